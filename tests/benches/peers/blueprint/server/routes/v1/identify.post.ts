import { identifySchema } from '../../../core/validation/index.ts'
import { collect } from '../../utils/collect.ts'

export default collect(identifySchema, (payload) => [{ type: 'identify', payload }])
