// Headless Chromium with a profile of its own that reaches nothing but this machine.
import { mkdtemp, rm } from 'node:fs/promises'
import { existsSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { chromium } from 'playwright-core'

const ARGS = [
  '--no-sandbox',
  '--disable-gpu',
  '--disable-quic',
  '--no-first-run',
  '--disable-background-networking',
  '--disable-component-update',
  '--disable-sync',
  '--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1',
]

/** Opens a browser for as long as `visit` takes, and answers what it answers. */
export async function withChromium(visit) {
  const profile = await mkdtemp(join(tmpdir(), 'libroseg-chromium-'))
  const launch = { executablePath: findChromium(), headless: true, args: ARGS }
  const browser = await chromium.launchPersistentContext(profile, launch)
  try {
    return await visit(browser)
  } finally {
    await browser.close()
    await rm(profile, { recursive: true, force: true })
  }
}

function findChromium() {
  const usual = ['chromium', 'chromium-browser', 'google-chrome'].map((name) => join('/usr/bin', name))
  const found = [process.env.CHROMIUM, ...usual].find((path) => path && existsSync(path))
  if (!found) {
    throw new Error('no Chromium: set CHROMIUM to its path')
  }
  return found
}
