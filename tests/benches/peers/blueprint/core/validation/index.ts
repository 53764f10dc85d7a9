// One schema per event type, after Segment's spec. As Zod objects do, they drop what they do not know.
import { z } from 'zod'

const id = z.string().min(1)
const object = z.record(z.string(), z.unknown())

const common = {
  messageId: z.string().optional(),
  userId: id.nullish(),
  anonymousId: id.nullish(),
  context: object.optional(),
  integrations: object.optional(),
  timestamp: z.iso.datetime({ offset: true }).optional(),
}

const hasAnId = (event: { userId?: string | null; anonymousId?: string | null }) =>
  Boolean(event.userId || event.anonymousId)
const idMissing = { error: 'userId or anonymousId is required' }

export const trackSchema = z
  .object({ ...common, event: z.string().min(1), properties: object.nullish() })
  .refine(hasAnId, idMissing)
export const identifySchema = z.object({ ...common, traits: object.nullish() }).refine(hasAnId, idMissing)
export const pageSchema = z
  .object({ ...common, name: z.string().nullish(), category: z.string().nullish(), properties: object.nullish() })
  .refine(hasAnId, idMissing)
export const screenSchema = pageSchema
export const groupSchema = z.object({ ...common, groupId: id, traits: object.nullish() }).refine(hasAnId, idMissing)
export const aliasSchema = z.object({ ...common, userId: id, previousId: id })

export type TrackPayload = z.infer<typeof trackSchema>
export type IdentifyPayload = z.infer<typeof identifySchema>
export type PagePayload = z.infer<typeof pageSchema>
export type ScreenPayload = z.infer<typeof screenSchema>
export type GroupPayload = z.infer<typeof groupSchema>
export type AliasPayload = z.infer<typeof aliasSchema>

/** What a batch holds: events that say themselves which type they are. */
export const batchSchema = z.object({
  batch: z.array(
    z.discriminatedUnion('type', [
      trackSchema.safeExtend({ type: z.literal('track') }),
      identifySchema.safeExtend({ type: z.literal('identify') }),
      pageSchema.safeExtend({ type: z.literal('page') }),
      screenSchema.safeExtend({ type: z.literal('screen') }),
      groupSchema.safeExtend({ type: z.literal('group') }),
      aliasSchema.safeExtend({ type: z.literal('alias') }),
    ]),
  ),
})

/** One validated call. */
export type SegmentEvent =
  | { type: 'track'; payload: TrackPayload }
  | { type: 'identify'; payload: IdentifyPayload }
  | { type: 'page'; payload: PagePayload }
  | { type: 'screen'; payload: ScreenPayload }
  | { type: 'group'; payload: GroupPayload }
  | { type: 'alias'; payload: AliasPayload }
