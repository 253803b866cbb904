// The page of the browser suite: it connects to a plexus node by each address that
// `plexus up --print-js` gave, tries what a program does, and shows how that went.
import { echo } from './echo.js'
import { addresses, connect } from './node.js'

// transport names the transport of an address.
const transport = a => /\/(webtransport|webrtc-direct|tls\/ws|wss|ws)(?=\/|$)/.exec(a)[1].replace('tls/ws', 'wss')

const checks = {
  async ping (c) {
    for (let i = 0; i < 5; i++) await c.ping()
  },
  async text (c) {
    const text = 'Grüße 👋'
    const got = await c.echo(text)
    if (got !== text) throw new Error(`${got} came back`)
  },
  async 'echo 1 MiB' (c) {
    await echo(c.connection, 1 << 20)
  },
  async '50 streams' (c) {
    await Promise.all(Array.from({ length: 50 }, () => echo(c.connection, 3000)))
  },
  async 'unknown protocol' (c) {
    const err = await c.connection.newStream('/nobody/speaks/1').then(() => null, e => e)
    if (err?.name !== 'UnsupportedProtocolError') throw new Error(`not refused but: ${err}`)
  }
}

// wrongPeer dials the address of somebody else.
async function wrongPeer (address) {
  const other = address.replace(/[^/]+$/, '12D3KooWDpJ7As7BWAwRMfu1VU2WCqNjvq387JEYKDBj4kx6nXTN')
  const c = await connect([other]).catch(() => null)
  if (c != null) throw new Error('connected')
}

// wrongHash dials with the certificate hash of somebody else, in place of one of the two
// or of both. The browser compares the first with the certificate; js-libp2p both with
// those that the node vouches for.
async function wrongHash (address) {
  const hashes = address.match(/(?<=certhash\/)[^/]+/g)
  for (const wrong of [...hashes.map(h => [h]), hashes]) {
    const other = wrong.reduce((a, h) => a.replace(h, 'uEiAkH5a4DPGKUuOBjYw0CgwjvcJCJMD2K_1aluKR_tpevQ'), address)
    const c = await connect([other]).catch(() => null)
    if (c != null) throw new Error(`connected by ${other}`)
  }
}

function show (row, name, ok, text) {
  const cell = row.insertCell()
  cell.textContent = (ok ? '✓ ' : '✗ ') + text
  cell.className = ok ? 'ok' : 'bad'
  cell.title = name
}

// run tries all with one address, and returns what failed.
async function run (address) {
  const row = document.querySelector('tbody').insertRow()
  row.insertCell().textContent = transport(address)
  const failures = []
  const attempt = async (name, f) => {
    const begin = performance.now()
    let error = null
    try {
      await Promise.race([f(), new Promise((resolve, reject) => setTimeout(reject, 20000, new Error('timeout')))])
    } catch (e) {
      error = e
      failures.push(`${name}: ${e.stack ?? e}`)
    }
    show(row, name, error == null, error?.message ?? `${(performance.now() - begin).toFixed(0)} ms`)
    return error == null
  }
  let c
  if (await attempt('connect', async () => { c = await connect([address]) })) {
    for (const [name, check] of Object.entries(checks)) await attempt(name, () => check(c))
    await attempt('close', () => c.node.stop())
  }
  await attempt('wrong peer', () => wrongPeer(address))
  if (address.includes('/certhash/')) await attempt('wrong hash', () => wrongHash(address))
  return { transport: transport(address), address, failures }
}

for (const name of ['', 'connect', ...Object.keys(checks), 'close', 'wrong peer', 'wrong hash']) {
  const th = document.createElement('th')
  th.textContent = name
  document.querySelector('thead tr').append(th)
}

// For the driver.
window.suite = { addresses, run }
