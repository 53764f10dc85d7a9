import { batchSchema, type SegmentEvent } from '../../../core/validation/index.ts'
import { collect } from '../../utils/collect.ts'

export default collect(batchSchema, ({ batch }) =>
  batch.map((payload) => ({ type: payload.type, payload }) as SegmentEvent),
)
