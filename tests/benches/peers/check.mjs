// Whether the blueprint's app does what the blueprint says: `./build && node --test check.mjs`.
//
// It is sent what SDKs were seen to send (tests/fixtures/captures), with this process as BigQuery and Customer.io.
import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { createServer } from 'node:http'
import { json } from 'node:stream/consumers'
import { after, before, beforeEach, test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'

const CAPTURES = new URL('../../fixtures/captures/', import.meta.url)
const SERVER = fileURLToPath(new URL('blueprint/.output/server/index.mjs', import.meta.url))
const COLUMNS = 'message_id timestamp type user_id anonymous_id event properties context traits'.split(' ')
const TRACK = { userId: 'user-1', event: 'Signed Up' }

let received = []
const sink = createServer(async (request, response) => {
  received.push({ call: `${request.method} ${request.url}`, body: await json(request) })
  response.setHeader('content-type', 'application/json').end('{}')
})
let app
let url

before(async () => {
  await once(sink.listen(0, '127.0.0.1'), 'listening')
  const host = `http://127.0.0.1:${sink.address().port}`
  const env = {
    HOST: '127.0.0.1',
    PORT: '0',
    BIGQUERY_PROJECT_ID: 'p',
    BIGQUERY_DATASET: 'd',
    BIGQUERY_TABLE: 't',
    BIGQUERY_EMULATOR_HOST: `${host}/bigquery/v2`,
    CUSTOMERIO_SITE_ID: 'site',
    CUSTOMERIO_API_KEY: 'key',
    CUSTOMERIO_URL: `${host}/api/v1`,
  }
  app = spawn(process.execPath, [SERVER], { env, stdio: ['ignore', 'pipe', 'inherit'] })
  const [line] = await once(app.stdout, 'data')
  ;[url] = /http:\/\/[\d.:]+/.exec(line)
})
beforeEach(() => {
  received = []
})
after(async () => {
  app.kill('SIGKILL')
  sink.close()
  sink.closeAllConnections()
})

/** Posts JSON, or a body as it is. */
async function post(path, body, headers = {}) {
  const text = typeof body === 'object' && !Buffer.isBuffer(body) ? JSON.stringify(body) : body
  const response = await fetch(url + path, { method: 'POST', body: text, headers })
  return { status: response.status, ...(await response.json()) }
}

/** The requests of these calls, once there are `count`. */
async function calls(pattern, count) {
  const found = () => received.filter(({ call }) => pattern.test(call))
  const deadline = Date.now() + 10_000
  while (found().length < count && Date.now() < deadline) await sleep(10)
  assert.equal(found().length, count)
  return found()
}

/** The rows that came to BigQuery: one insert call for each. */
async function rows(count) {
  const inserts = await calls(/^POST \/bigquery\/v2\/projects\/p\/datasets\/d\/tables\/t\/insertAll/, count)
  return inserts.map(({ body }) => {
    assert.equal(body.rows.length, 1)
    return body.rows[0].json
  })
}

for (const sdk of ['segment-node', 'segment-python', 'segment-rust']) {
  test(`what ${sdk} sends is answered with 200 and every event of it is a row`, async () => {
    const { requests } = JSON.parse(readFileSync(new URL(`${sdk}.json`, CAPTURES)))
    const sent = []
    for (const { path, headers, rawBase64 } of requests) {
      const type = headers.find(([name]) => name.toLowerCase() === 'content-type')
      const body = Buffer.from(rawBase64, 'base64')
      assert.deepEqual(await post(path, body, { 'content-type': type[1] }), { status: 200, success: true })
      sent.push(...(JSON.parse(body).batch ?? [{ type: path.slice('/v1/'.length), ...JSON.parse(body) }]))
    }
    assert.ok(sent.length > 10)
    const names = (events) => events.map(({ type, event }) => `${type} ${event ?? ''}`).sort()
    assert.deepEqual(names(await rows(sent.length)), names(sent))
  })
}

test('a row has the nine columns', async () => {
  const event = {
    messageId: 'm-1',
    userId: 'user-1',
    event: 'Signed Up',
    timestamp: '2026-11-26T12:00:00.000Z',
    properties: { plan: 'pro' },
    context: { ip: '203.0.113.7' },
  }
  await post('/v1/track', event)
  const [row] = await rows(1)
  assert.deepEqual(Object.keys(row), COLUMNS)
  assert.deepEqual(row, {
    message_id: 'm-1',
    timestamp: '2026-11-26T12:00:00.000Z',
    type: 'track',
    user_id: 'user-1',
    anonymous_id: null,
    event: 'Signed Up',
    properties: '{"plan":"pro"}',
    context: '{"ip":"203.0.113.7"}',
    traits: '{}',
  })
})

test('Customer.io hears of each event too', async () => {
  await post('/v1/batch', {
    batch: [
      { type: 'identify', userId: 'user-1', traits: { plan: 'pro' } },
      { type: 'track', ...TRACK },
      { type: 'page', anonymousId: 'anon-1', name: 'Home' },
      { type: 'group', userId: 'user-1', groupId: 'group-1' },
      { type: 'alias', userId: 'user-1', previousId: 'anon-1' },
    ],
  })
  const heard = await calls(/ \/api\/v1\//, 5)
  assert.deepEqual(heard.map(({ call }) => call.replace('/api/v1', '')).sort(), [
    'POST /customers/user-1/events',
    'POST /events',
    'POST /merge_customers',
    'PUT /customers/user-1',
    'PUT /customers/user-1',
  ])
})

test('what a schema refuses is answered with 400, and says why', async () => {
  const refused = [
    ['/v1/track', { userId: 'user-1' }, 'event'],
    ['/v1/track', { event: 'Signed Up' }, ''],
    ['/v1/track', { ...TRACK, properties: 'none' }, 'properties'],
    ['/v1/track', { ...TRACK, timestamp: 'yesterday' }, 'timestamp'],
    ['/v1/group', { userId: 'user-1' }, 'groupId'],
    ['/v1/alias', { userId: 'user-1' }, 'previousId'],
    ['/v1/batch', { batch: [{ type: 'track', ...TRACK }, { type: 'shout', userId: 'user-1' }] }, 'batch.1.type'],
    ['/v1/batch', {}, 'batch'],
  ]
  for (const [path, body, at] of refused) {
    const { status, error, details } = await post(path, body)
    assert.deepEqual([status, error, details[0].path.join('.')], [400, 'Invalid payload', at])
  }
  assert.equal((await post('/v1/track', '{"userId":')).status, 400)
  assert.equal(received.length, 0)
})
