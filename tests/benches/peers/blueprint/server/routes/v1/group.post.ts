import { groupSchema } from '../../../core/validation/index.ts'
import { collect } from '../../utils/collect.ts'

export default collect(groupSchema, (payload) => [{ type: 'group', payload }])
