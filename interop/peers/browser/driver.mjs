// Bundles the page and runs it in Chromium.
//
//   driver.mjs bundle FOLDER PAGE             PAGE.js there becomes PAGE.bundle.js
//   driver.mjs run URL CHROMIUM SCREENSHOT    prints what each address gave, as JSON
//   driver.mjs private URL CHROMIUM ADDRESS   prints what failed, as JSON
import { build } from 'esbuild'
import { chromium } from 'playwright-core'

async function bundle (dir, name) {
  await build({
    absWorkingDir: dir,
    entryPoints: [`${name}.js`],
    outfile: `${name}.bundle.js`,
    bundle: true,
    format: 'iife',
    platform: 'browser',
    define: { global: 'globalThis' },
    nodePaths: [new URL('node_modules', import.meta.url).pathname],
    logLevel: 'warning'
  })
}

const launch = executablePath => chromium.launch({
  executablePath,
  args: [
    '--no-sandbox', // which root needs
    '--ignore-certificate-errors', // that of wss is self-signed
    '--disable-features=WebRtcHideLocalIpsWithMdns',
    '--disable-background-networking', '--disable-component-update', '--disable-sync'
  ]
})

async function run (url, executablePath, screenshot) {
  const browser = await launch(executablePath)
  try {
    const page = await browser.newPage({ viewport: { width: 1100, height: 500 } })
    page.on('pageerror', e => process.stderr.write(`page: ${e}\n`))
    const results = []
    await page.goto(url)
    for (const address of await page.evaluate(() => window.suite.addresses)) {
      results.push(await page.evaluate(a => window.suite.run(a), address))
    }
    await page.screenshot({ path: screenshot })
    // A reload drops all connections without a word. The node takes the next ones.
    await page.reload()
    for (const r of results) {
      const again = await page.evaluate(a => window.suite.run(a), r.address)
      r.failures.push(...again.failures.map(f => `after a reload, ${f}`))
    }
    process.stdout.write(JSON.stringify({ browser: browser.version(), results }))
  } finally {
    await browser.close()
  }
}

async function reachable (url, executablePath, address) {
  const browser = await launch(executablePath)
  try {
    const page = await browser.newPage()
    page.on('pageerror', e => process.stderr.write(`page: ${e}\n`))
    await page.goto(url)
    const failures = await page.evaluate(a => window.run(a), address)
    await page.reload()
    failures.push(...(await page.evaluate(a => window.run(a), address)).map(f => `after a reload, ${f}`))
    process.stdout.write(JSON.stringify(failures))
  } finally {
    await browser.close()
  }
}

const [what, ...args] = process.argv.slice(2)
await { bundle, run, private: reachable }[what](...args)
