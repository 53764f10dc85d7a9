// Opens the README's two browser snippets in headless Chromium and waits until each has delivered its event.
//
// node readme.mjs --endpoint URL FOLDER; FOLDER holds them as page.html (served as it is) and bundled.mjs (with the
// package's own browser build in place of a bundler's).
import { createServer } from 'node:http'
import { readFile } from 'node:fs/promises'
import { existsSync } from 'node:fs'
import { basename, join } from 'node:path'
import { parseArgs } from 'node:util'
import { withChromium } from './chromium.mjs'

/** The most a page may take to hand over its event. */
const DELIVERY_MAX_MS = 30_000

const UMD = new URL('node_modules/@segment/analytics-next/dist/umd/', import.meta.url)

const BUNDLED = `<!doctype html>
<script type="importmap">{ "imports": { "@segment/analytics-next": "/package.mjs" } }</script>
<script type="module" src="/bundled.mjs"></script>`

const PACKAGE = `import '/index.js'
export const { AnalyticsBrowser } = self.AnalyticsNext`

const { values, positionals } = parseArgs({ options: { endpoint: { type: 'string' } }, allowPositionals: true })
const { endpoint } = values
const [folder] = positionals

const site = await serveSite()
await withChromium(async (browser) => {
  await visit(browser, '/page.html')
  await visit(browser, '/bundled.html')
})
process.exit(0)

async function visit(browser, path) {
  const page = await browser.newPage()
  const complaints = []
  page.on('pageerror', (error) => complaints.push(String(error)))
  page.on('requestfailed', (request) => complaints.push(`${request.url()}: ${request.failure().errorText}`))
  const isDelivery = (response) => response.request().method() === 'POST' && response.url().startsWith(endpoint)
  const delivery = page.waitForResponse(isDelivery, { timeout: DELIVERY_MAX_MS })
  await page.goto(site + path)
  const status = await delivery.then((response) => response.status(), String)
  if (status !== 200 || complaints.length > 0) {
    throw new Error(`${path}: ${status}; ${complaints.join('; ')}`)
  }
  await page.close()
}

/** The snippets, and the files of the package's build, at an origin of their own. */
async function serveSite() {
  const made = { '/bundled.html': BUNDLED, '/package.mjs': PACKAGE }
  const server = createServer(async (request, response) => {
    const { pathname } = new URL(request.url, 'http://site')
    response.setHeader('content-type', `${pathname.endsWith('.html') ? 'text/html' : 'text/javascript'}; charset=utf-8`)
    const files = [join(folder, basename(pathname)), new URL(basename(pathname), UMD)]
    const file = files.find((file) => existsSync(file))
    response.statusCode = made[pathname] || file ? 200 : 404
    response.end(made[pathname] ?? (file ? await readFile(file) : ''))
  })
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve))
  return `http://127.0.0.1:${server.address().port}`
}
