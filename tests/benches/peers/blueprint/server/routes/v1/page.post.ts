import { pageSchema } from '../../../core/validation/index.ts'
import { collect } from '../../utils/collect.ts'

export default collect(pageSchema, (payload) => [{ type: 'page', payload }])
