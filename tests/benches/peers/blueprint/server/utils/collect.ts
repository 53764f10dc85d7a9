import { waitUntil } from '@vercel/functions'
import { defineHandler } from 'nitro'
import { readBody } from 'nitro/h3'
import type { z } from 'zod'
import { integrationManager } from '../../core/integrations/manager.ts'
import type { SegmentEvent } from '../../core/validation/index.ts'

/**
 * The handler of an endpoint: reads and validates the body, answers at once, and processes the events meanwhile.
 *
 * `eventsOf` says which events a valid body holds.
 */
export function collect<S extends z.ZodType>(schema: S, eventsOf: (body: z.output<S>) => SegmentEvent[]) {
  return defineHandler(async (event) => {
    const validation = schema.safeParse(await readBody(event))
    if (!validation.success) {
      event.res.status = 400
      return { error: 'Invalid payload', details: validation.error.issues }
    }
    for (const segmentEvent of eventsOf(validation.data)) {
      waitUntil(integrationManager.process(segmentEvent))
    }
    return { success: true }
  })
}
