import { BigQuery } from '@google-cloud/bigquery'
import { PassThroughClient } from 'google-auth-library'
import type {
  AliasPayload,
  GroupPayload,
  IdentifyPayload,
  PagePayload,
  ScreenPayload,
  TrackPayload,
} from '../validation/index.ts'
import type { Integration } from './types.ts'

type Payload = TrackPayload | IdentifyPayload | PagePayload | ScreenPayload | GroupPayload | AliasPayload

export class BigQueryIntegration implements Integration {
  public name = 'BigQuery'
  private client: BigQuery | null = null
  private projectId = process.env.BIGQUERY_PROJECT_ID
  private tableId = process.env.BIGQUERY_TABLE
  private datasetId = process.env.BIGQUERY_DATASET

  constructor() {
    if (this.isEnabled()) {
      // The client itself reads BIGQUERY_EMULATOR_HOST, but looks for credentials all the same.
      const authClient = process.env.BIGQUERY_EMULATOR_HOST ? new PassThroughClient() : undefined
      this.client = new BigQuery({ projectId: this.projectId, authClient })
    }
  }

  public isEnabled(): boolean {
    return !!(this.projectId && this.datasetId && this.tableId)
  }

  public track(payload: TrackPayload): Promise<void> {
    return this.insert(payload, 'track')
  }

  public identify(payload: IdentifyPayload): Promise<void> {
    return this.insert(payload, 'identify')
  }

  public page(payload: PagePayload): Promise<void> {
    return this.insert(payload, 'page')
  }

  public screen(payload: ScreenPayload): Promise<void> {
    return this.insert(payload, 'screen')
  }

  public group(payload: GroupPayload): Promise<void> {
    return this.insert(payload, 'group')
  }

  public alias(payload: AliasPayload): Promise<void> {
    return this.insert(payload, 'alias')
  }

  private async insert(payload: Payload, type: string): Promise<void> {
    const row = this.transformToRow(payload, type)
    await this.client!.dataset(this.datasetId!).table(this.tableId!).insert([row])
  }

  private transformToRow(payload: any, type: string): object {
    return {
      message_id: payload.messageId,
      timestamp: payload.timestamp,
      type: type,
      user_id: payload.userId,
      anonymous_id: payload.anonymousId,
      event: payload.event,
      properties: JSON.stringify(payload.properties || {}),
      context: JSON.stringify(payload.context || {}),
      traits: JSON.stringify(payload.traits || {}),
    }
  }
}
