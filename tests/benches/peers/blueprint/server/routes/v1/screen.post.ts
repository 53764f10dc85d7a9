import { screenSchema } from '../../../core/validation/index.ts'
import { collect } from '../../utils/collect.ts'

export default collect(screenSchema, (payload) => [{ type: 'screen', payload }])
