import { aliasSchema } from '../../../core/validation/index.ts'
import { collect } from '../../utils/collect.ts'

export default collect(aliasSchema, (payload) => [{ type: 'alias', payload }])
