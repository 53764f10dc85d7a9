import type { SegmentEvent } from '../validation/index.ts'
import { BigQueryIntegration } from './bigquery.ts'
import { CustomerIOIntegration } from './customerio.ts'
import type { Integration } from './types.ts'

class IntegrationManager {
  private enabledIntegrations: Integration[] = []

  constructor(integrations: (new () => Integration)[]) {
    this.enabledIntegrations = integrations.map((I) => new I()).filter((i) => i.isEnabled())
  }

  /** Hands the event to every enabled integration. One that fails is logged and stops no other. */
  public async process(event: SegmentEvent) {
    const outcomes = await Promise.allSettled(
      this.enabledIntegrations.map((integration) => this.deliver(integration, event)),
    )
    outcomes.forEach((outcome, index) => {
      if (outcome.status === 'rejected') {
        console.error(`${this.enabledIntegrations[index]!.name} failed:`, outcome.reason)
      }
    })
  }

  private deliver(integration: Integration, event: SegmentEvent): Promise<void> {
    switch (event.type) {
      case 'track':
        return integration.track(event.payload)
      case 'identify':
        return integration.identify(event.payload)
      case 'page':
        return integration.page(event.payload)
      case 'screen':
        return integration.screen(event.payload)
      case 'group':
        return integration.group(event.payload)
      case 'alias':
        return integration.alias(event.payload)
    }
  }
}

export const integrationManager = new IntegrationManager([BigQueryIntegration, CustomerIOIntegration])
