// Drives @rudderstack/rudder-sdk-node: gzipped batches that call themselves form data, key in the header only.
import RudderAnalytics from '@rudderstack/rudder-sdk-node'
import { args, calls, message, run, summary } from './script.mjs'

const { endpoint, writeKey } = args()

await run('rudder', async (sent, errors) => {
  const analytics = new RudderAnalytics(writeKey, {
    dataPlaneUrl: endpoint,
    flushInterval: 200,
    errorHandler: (error) => errors.push(String(error)),
  })

  const acknowledged = []
  for (const call of calls('rudder')) {
    acknowledged.push(new Promise((resolve) => analytics[call.type](message(call), resolve)))
    sent.push(summary(call))
  }
  for (const error of await Promise.all(acknowledged)) {
    if (error) {
      errors.push(String(error))
    }
  }
  await analytics.flush()
})
