// Drives @segment/analytics-next in headless Chromium. The page has its own port, so every call to the endpoint is
// cross-origin and preflighted; settings come from the endpoint, and calls go where they say.
//
// --mode calls     a request for each call, all awaited (the default)
// --mode batching  batches of 10 to /v1/b, all awaited
// --mode unload    calls whose page is gone right after: a batch on navigation, keepalive on close, and a request
//                  that navigation cuts off, which the next page of the site sends again
import { createServer } from 'node:http'
import { readFile } from 'node:fs/promises'
import { setTimeout as sleep } from 'node:timers/promises'
import { withChromium } from './chromium.mjs'
import { args, calls, run, summary } from './script.mjs'

/** Nobody can ask a page that is gone what became of its last request: the browser stays for this long. */
const AFTERMATH_MS = 4_000

/** The most a page may take to hand over what it was given. */
const DELIVERY_MAX_MS = 30_000

/** Longer than the driver lives: nothing leaves a batch on a timer, only because the page ends. */
const NEVER_MS = 3_600_000

/** Chromium lets the keepalive requests of a page carry 64 KiB in all: more calls than these would not fit. */
const UNLOAD_CALLS_MAX = 30

/** How the page's SDK hands over its calls, as Segment's users choose it: in the load options, or not at all. */
const STRATEGIES = {
  standard: undefined,
  batching: { deliveryStrategy: { strategy: 'batching', config: { size: 10, timeout: 500 } } },
  hoarding: { deliveryStrategy: { strategy: 'batching', config: { size: 1000, timeout: NEVER_MS } } },
  keepalive: { deliveryStrategy: { config: { keepalive: true } } },
}

const { endpoint, writeKey, mode = 'calls' } = args()

await run(`browser-${mode}`, async (sent, errors) => {
  const site = await serveSite()
  return withChromium(async (browser) => {
    const visitor = { browser, site, errors, traffic: { preflights: 0, posts: 0, delivered: 0 } }
    const modes = {
      calls: () => stay(visitor, 'standard'),
      batching: () => stay(visitor, 'batching'),
      unload: () => leave(visitor),
    }
    sent.push(...(await modes[mode]()).map(summary))
    return { traffic: visitor.traffic }
  })
})

/** One page makes all calls and stays until they are delivered. */
async function stay(visitor, strategy) {
  const script = calls(`browser-${mode}`)
  const page = await open(visitor, strategy)
  // No SDK yet: the snippet's queue holds this call until it has come. It is delivered before the visitor is
  // identified, because the SDK gives an event without a user the one it knows when it sends.
  await page.evaluate((anonymous) => void window.call(anonymous), script[0])
  await page.evaluate(() => window.loaded)
  await answered(visitor, 1)
  const failures = await page.evaluate(async (rest) => {
    const contexts = await Promise.all(rest.map((call) => window.call(call)))
    return contexts.map((context) => context.failedDelivery()).filter(Boolean).map((failure) => String(failure.reason))
  }, script.slice(1))
  visitor.errors.push(...failures)
  await answered(visitor, script.length)
  return script
}

async function answered({ traffic, errors }, count) {
  const giveUpAt = Date.now() + DELIVERY_MAX_MS
  while (traffic.delivered < count && Date.now() < giveUpAt) {
    await sleep(50)
  }
  if (traffic.delivered !== count) {
    errors.push(`${traffic.delivered} of ${count} calls were answered`)
  }
}

/** Three pages end right after their calls. */
async function leave(visitor) {
  const script = calls('browser-unload').slice(0, UNLOAD_CALLS_MAX)
  const [together, closing, cutOff] = [script.slice(0, -2), script.at(-2), script.at(-1)]

  const hoarder = await open(visitor, 'hoarding')
  await hoarder.evaluate(() => window.loaded)
  // Awaited until they are in the batch: calls made in the very task that navigates are lost inside the SDK.
  await hoarder.evaluate(async ([anonymous, ...rest]) => {
    await window.call(anonymous)
    await Promise.all(rest.map((call) => window.call(call)))
    location.href = '/elsewhere'
  }, together)
  await hoarder.waitForURL('**/elsewhere')

  const closer = await open(visitor, 'keepalive')
  await closer.evaluate(() => window.loaded)
  await closer.evaluate((closing) => void window.call(closing), closing)
  await closer.close()

  const runner = await open(visitor, 'standard')
  await runner.evaluate(() => window.loaded)
  await runner.evaluate((cutOff) => {
    window.call(cutOff)
    location.href = '/elsewhere'
  }, cutOff)
  await runner.waitForURL('**/elsewhere')

  // Within 0.6 s of its start the SDK sends again what was cut off, if it was: a quick endpoint may have had it all.
  const next = await open(visitor, 'standard')
  await next.evaluate(() => window.loaded)
  await sleep(AFTERMATH_MS)
  return script
}

/** Opens the site with the SDK's load options for `strategy`, counting what it sends. */
async function open({ browser, site, errors, traffic }, strategy) {
  const page = await browser.newPage()
  const network = await browser.newCDPSession(page)
  await network.send('Network.enable')
  network.on('Network.requestWillBeSent', ({ request }) => {
    traffic.preflights += request.method === 'OPTIONS'
    traffic.posts += request.method === 'POST'
    if (!request.url.startsWith('data:') && new URL(request.url).hostname !== '127.0.0.1') {
      errors.push(`asked for ${request.url}`)
    }
  })
  page.on('pageerror', (error) => errors.push(`the page threw ${error}`))
  page.on('response', (response) => {
    if (response.status() >= 400 && response.url().startsWith(endpoint)) {
      errors.push(`${response.request().method()} ${response.url()}: ${response.status()}`)
    } else if (response.request().method() === 'POST') {
      traffic.delivered += response.request().postDataJSON().batch?.length ?? 1
    }
  })
  const settings = STRATEGIES[strategy]
  const options = settings ? { integrations: { 'Segment.io': settings } } : {}
  // Not in the address: the SDK sends that along.
  await page.addInitScript((load) => void (window.load = load), { cdn: endpoint, writeKey, options })
  await page.goto(site, { waitUntil: 'domcontentloaded' })
  return page
}

/** Serves the page, the SDK as npm ships it, and for any other path a page without it. Returns the origin. */
async function serveSite() {
  const files = {
    '/': ['page.html', 'text/html'],
    '/native.mjs': ['native.mjs', 'text/javascript'],
    '/standalone.js': ['node_modules/@segment/analytics-next/dist/umd/standalone.js', 'text/javascript'],
  }
  const server = createServer(async (request, response) => {
    const [file, type] = files[new URL(request.url, 'http://site').pathname] ?? [undefined, 'text/html']
    response.setHeader('content-type', `${type}; charset=utf-8`)
    response.end(file ? await readFile(new URL(file, import.meta.url)) : '<!doctype html><title>elsewhere</title>')
  })
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve))
  return `http://127.0.0.1:${server.address().port}`
}
