import { trackSchema } from '../../../core/validation/index.ts'
import { collect } from '../../utils/collect.ts'

export default collect(trackSchema, (payload) => [{ type: 'track', payload }])
