// What the JavaScript drivers share: the command line, the calls of calls.json, the one line of result.
import { readFileSync } from 'node:fs'
import { parseArgs } from 'node:util'
import { nativeValues } from './native.mjs'

/** A driver that is not done by now never will be. */
const DEADLINE_MS = 90_000

/** `--endpoint URL --write-key KEY [--mode NAME]`. */
export function args() {
  const options = { endpoint: { type: 'string' }, 'write-key': { type: 'string' }, mode: { type: 'string' } }
  const { values } = parseArgs({ options })
  if (!values.endpoint || !values['write-key']) {
    console.error('usage: --endpoint http://127.0.0.1:PORT --write-key KEY [--mode NAME]')
    process.exit(2)
  }
  return { endpoint: values.endpoint, writeKey: values['write-key'], mode: values.mode }
}

/** The calls of calls.json and its extra tracks, with message ids that begin with the SDK's name. */
export function calls(sdk) {
  const script = JSON.parse(readFileSync(new URL('calls.json', import.meta.url), 'utf8'))
  const extras = Array.from({ length: script.extras }, (_, n) => ({
    id: `extra-${n}`,
    type: 'track',
    userId: script.calls.find((call) => call.id === 'track').userId,
    event: 'Extra',
    properties: { n, total: n + 0.5 },
  }))
  return [...script.calls, ...extras].map((call) => ({ ...call, messageId: `${sdk}-${call.id}` }))
}

/** What a server's SDK is given for a call: without our id, its time a Date, `native` with its values. */
export function message({ id, type, timestamp, ...call }) {
  const properties = id === 'native' ? { ...call.properties, ...nativeValues() } : call.properties
  return { ...call, ...(properties && { properties }), ...(timestamp && { timestamp: new Date(timestamp) }) }
}

/** What the test wants to know of a call. */
export function summary({ id, type, messageId, userId, anonymousId, event, name }) {
  return { id, type, messageId, userId, anonymousId, event, name }
}

/** Runs `drive(sent, errors)`, prints `{"sdk","sent","errors"}` and exits: 0 only if the SDK reported no failure. */
export async function run(sdk, drive) {
  const sent = []
  const errors = []
  const finish = (more = {}) => {
    const line = JSON.stringify({ sdk, sent, errors, ...more }) + '\n'
    process.stdout.write(line, () => process.exit(errors.length === 0 ? 0 : 1))
  }
  setTimeout(() => {
    errors.push(`not done after ${DEADLINE_MS} ms`)
    finish()
  }, DEADLINE_MS).unref()
  try {
    finish(await drive(sent, errors))
  } catch (error) {
    errors.push(String(error?.stack ?? error))
    finish()
  }
}
