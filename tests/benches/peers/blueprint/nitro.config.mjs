// Not TypeScript: on Node 20 Nitro would install a loader for it while it builds.
import { defineConfig } from 'nitro'

export default defineConfig({
  compatibilityDate: '2026-11-01',
  preset: 'node-server',
  serverDir: 'server',
})
