import type {
  AliasPayload,
  GroupPayload,
  IdentifyPayload,
  PagePayload,
  ScreenPayload,
  TrackPayload,
} from '../validation/index.ts'

export interface Integration {
  name: string
  /** Whether the environment has what it needs. */
  isEnabled(): boolean

  track(payload: TrackPayload): Promise<void>
  identify(payload: IdentifyPayload): Promise<void>
  page(payload: PagePayload): Promise<void>
  screen(payload: ScreenPayload): Promise<void>
  group(payload: GroupPayload): Promise<void>
  alias(payload: AliasPayload): Promise<void>
}
