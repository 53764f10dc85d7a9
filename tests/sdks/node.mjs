// Drives @segment/analytics-node: batches of 15 to /v1/batch, key in the header and in the body.
import { Analytics } from '@segment/analytics-node'
import { args, calls, message, run, summary } from './script.mjs'

const { endpoint, writeKey } = args()

await run('node', async (sent, errors) => {
  const analytics = new Analytics({ writeKey, host: endpoint, flushInterval: 200 })
  analytics.on('error', (error) => errors.push(`${error.code}: ${error.reason?.message ?? error.reason}`))

  const acknowledged = []
  for (const call of calls('node')) {
    acknowledged.push(new Promise((resolve) => analytics[call.type](message(call), resolve)))
    sent.push(summary(call))
  }
  for (const error of await Promise.all(acknowledged)) {
    if (error) {
      errors.push(String(error))
    }
  }
  await analytics.closeAndFlush({ timeout: 20_000 })
})
