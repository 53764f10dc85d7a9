// Customer.io's Track API, v1. The blueprint names this integration and leaves its calls open: they are those of
// examples/configs/customerio.toml, less its special cases.
import type {
  AliasPayload,
  GroupPayload,
  IdentifyPayload,
  PagePayload,
  ScreenPayload,
  TrackPayload,
} from '../validation/index.ts'
import type { Integration } from './types.ts'

type Ids = { userId?: string | null; anonymousId?: string | null }

export class CustomerIOIntegration implements Integration {
  public name = 'Customer.io'
  private siteId = process.env.CUSTOMERIO_SITE_ID
  private apiKey = process.env.CUSTOMERIO_API_KEY
  private url = process.env.CUSTOMERIO_URL ?? 'https://track.customer.io/api/v1'
  private headers = {
    authorization: `Basic ${Buffer.from(`${this.siteId}:${this.apiKey}`).toString('base64')}`,
    'content-type': 'application/json',
  }

  public isEnabled(): boolean {
    return !!(this.siteId && this.apiKey)
  }

  public track(payload: TrackPayload): Promise<void> {
    return this.event(payload, { type: 'event', name: payload.event, data: payload.properties ?? {} })
  }

  public async identify(payload: IdentifyPayload): Promise<void> {
    if (payload.userId) {
      await this.send('PUT', person(payload.userId), { ...payload.traits, anonymous_id: payload.anonymousId })
    }
  }

  public page(payload: PagePayload): Promise<void> {
    return this.event(payload, { type: 'page', name: payload.name ?? 'page', data: payload.properties ?? {} })
  }

  public screen(payload: ScreenPayload): Promise<void> {
    return this.event(payload, { type: 'screen', name: payload.name ?? 'screen', data: payload.properties ?? {} })
  }

  public async group(payload: GroupPayload): Promise<void> {
    if (payload.userId) {
      const identifiers = { object_type_id: '1', object_id: payload.groupId }
      await this.send('PUT', person(payload.userId), {
        cio_relationships: { action: 'add_relationships', relationships: [{ identifiers }] },
      })
    }
  }

  public alias(payload: AliasPayload): Promise<void> {
    return this.send('POST', '/merge_customers', {
      primary: { id: payload.userId },
      secondary: { id: payload.previousId },
    })
  }

  private event({ userId, anonymousId }: Ids, event: object): Promise<void> {
    return userId
      ? this.send('POST', `${person(userId)}/events`, event)
      : this.send('POST', '/events', { ...event, anonymous_id: anonymousId })
  }

  private async send(method: string, path: string, body: object): Promise<void> {
    const response = await fetch(this.url + path, { method, headers: this.headers, body: JSON.stringify(body) })
    const text = await response.text() // Read to its end, so that the connection is free again.
    if (!response.ok) {
      throw new Error(`${method} ${path}: ${response.status} ${text}`)
    }
  }
}

function person(id: string): string {
  return `/customers/${encodeURIComponent(id)}`
}
