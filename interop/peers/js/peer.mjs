// The interop peer on js-libp2p. The contract is in ../../README.md.
//
// The driver runs a copy of this file that lies beside node_modules, because
// node looks for packages from where the importing file is.

import { createHash, randomBytes } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { getCACertificates, setDefaultCACertificates } from 'node:tls'
import { parseArgs } from 'node:util'
import { quic } from '@chainsafe/libp2p-quic'
import { generateKeyPair } from '@libp2p/crypto/keys'
import { identify } from '@libp2p/identify'
import { mplex } from '@libp2p/mplex'
import { noise } from '@libp2p/noise'
import { peerIdFromPrivateKey } from '@libp2p/peer-id'
import { ping } from '@libp2p/ping'
import { plaintext } from '@libp2p/plaintext'
import { preSharedKey } from '@libp2p/pnet'
import { tcp } from '@libp2p/tcp'
import { tls } from '@libp2p/tls'
import { webRTCDirect } from '@libp2p/webrtc'
import { webSockets } from '@libp2p/websockets'
import { yamux } from '@libp2p/yamux'
import { multiaddr } from '@multiformats/multiaddr'
import { createLibp2p } from 'libp2p'

const ECHO = '/interop/echo/1.0.0'
const HALFCLOSE = '/interop/halfclose/1.0.0'
const RESET = '/interop/reset/1.0.0'
const RESETME = '/interop/resetme/1.0.0'
const RESETCOUNT = '/interop/resetcount/1.0.0'
const PERF = '/perf/1.0.0'
const OWN = '-' // the transport brings it
const PERF_BYTES = 64 << 20
const CHECK_TIMEOUT = 30_000
// js-libp2p allows 32 inbound and 64 outbound streams of one protocol on a
// connection, and resets the rest.
const LIMITS = { maxInboundStreams: 1000, maxOutboundStreams: 1000 }

const transports = {
  tcp,
  ws: webSockets,
  wss: (args) => {
    const pem = readFileSync(args.cert)
    setDefaultCACertificates([...getCACertificates(), pem.toString()])
    return webSockets({ https: { cert: pem, key: pem } })
  },
  quic: () => quic(),
  'webrtc-direct': () => webRTCDirect({ rtcConfiguration: { iceServers: [] } }) // by default it asks public STUN servers
}
const securities = { noise, tls, plaintext }
// js-libp2p's mplex drops the connection at the sixth inbound stream within a
// second, though its documentation says: only beyond maxInboundStreams.
const muxers = { yamux, mplex: () => mplex({ disconnectThreshold: 100_000 }) }
const wire = {
  noise: '/noise', tls: '/tls/1.0.0', plaintext: '/plaintext/2.0.0', yamux: '/yamux/1.0.0', mplex: '/mplex/6.7.0'
}

async function newNode (args, listen) {
  return createLibp2p({
    addresses: { listen },
    transports: [transports[args.transport](args)],
    connectionEncrypters: args.security === OWN ? [] : [securities[args.security]()],
    streamMuxers: args.muxer === OWN ? [] : [muxers[args.muxer]()],
    connectionProtector: args.psk == null ? undefined : preSharedKey({ psk: readFileSync(args.psk) }),
    connectionMonitor: { enabled: false }, // it pings by itself
    // By default the sixth connection from one address within a second is cut.
    connectionManager: { inboundConnectionThreshold: 100_000 },
    // A dialer calls identify itself, and once a connection is enough.
    // Its ping counts a stream until both ends have closed it, and returns before: with
    // the default of one, the next ping is refused now and then, whoever listens.
    services: { identify: identify({ runOnConnectionOpen: listen.length > 0 }), ping: ping({ maxOutboundStreams: 5 }) }
  })
}

// Reader turns the events of a stream into reads.
//
// `for await` on the stream would be shorter. But a Go dialer sends its protocol
// proposal, a short request and the end of its side in one flight. Then the
// bytes after the proposal are pushed back onto the stream when 'end' and
// 'remoteCloseWrite' have fired already, and a loop that waits for either of
// them never ends. So this asks for the state, and hears the events besides.
class Reader {
  chunks = []
  ended = false
  error = null
  wake = () => {}

  constructor (stream) {
    const end = (err) => { this.ended = true; this.error ??= err; this.wake() }
    const endIfOver = () => { if (stream.remoteWriteStatus === 'closed' && stream.readBufferLength === 0) end(null) }
    stream.addEventListener('end', endIfOver)
    stream.addEventListener('close', (e) => end(e.error))
    stream.addEventListener('message', (e) => { this.chunks.push(e.data.subarray()); this.wake(); endIfOver() })
    endIfOver()
  }

  // next returns some bytes, or null at the end. It throws on a reset.
  async next () {
    while (this.chunks.length === 0) {
      if (this.error != null) throw this.error
      if (this.ended) return null
      await new Promise((resolve) => { this.wake = resolve })
    }
    return this.chunks.shift()
  }

  async all (each = () => {}) {
    let n = 0
    for (let c = await this.next(); c != null; c = await this.next()) {
      n += c.byteLength
      await each(c)
    }
    return n
  }

  async exactly (n) {
    const parts = []
    while (n > 0) {
      const c = await this.next()
      if (c == null) throw new Error('EOF too early')
      parts.push(c.subarray(0, n))
      if (c.byteLength > n) this.chunks.unshift(c.subarray(n))
      n -= Math.min(n, c.byteLength)
    }
    return Buffer.concat(parts)
  }
}

async function write (stream, bytes) {
  if (!stream.send(bytes)) await stream.onDrain()
}

async function writeZeros (stream, n) {
  const zeros = new Uint8Array(64 << 10)
  for (; n > 0; n -= zeros.byteLength) await write(stream, zeros.subarray(0, Math.min(n, zeros.byteLength)))
}

// ---------------------------------------------------------------- listener

let resets = 0

const handlers = {
  [ECHO]: async (s) => { await new Reader(s).all((c) => write(s, c)) },
  [HALFCLOSE]: async (s) => {
    const hash = createHash('sha256')
    await new Reader(s).all((c) => { hash.update(c) })
    await write(s, hash.digest())
  },
  [RESET]: async (s) => {
    await new Reader(s).exactly(1)
    throw new Error('reset on request')
  },
  [RESETME]: async (s) => {
    const r = new Reader(s)
    await write(s, await r.exactly(1))
    try {
      await r.next()
    } catch (err) {
      if (err.name === 'StreamResetError') resets++
    }
  },
  [RESETCOUNT]: async (s) => { await write(s, Buffer.from(String(resets))) },
  [PERF]: async (s) => {
    const r = new Reader(s)
    const want = Number((await r.exactly(8)).readBigUInt64BE())
    await r.all()
    await writeZeros(s, want)
  }
}

async function listen (args) {
  const node = await newNode(args, [args.listen])
  for (const [protocol, handle] of Object.entries(handlers)) {
    await node.handle(protocol, async (s) => {
      try {
        await handle(s)
        await s.close()
      } catch (err) {
        if (protocol !== RESET) console.error(protocol, err)
        s.abort(err)
      }
    }, LIMITS)
  }
  console.log(JSON.stringify({ addr: node.getMultiaddrs()[0].toString() }))
  process.stdin.resume().on('end', () => process.exit(0))
}

// ---------------------------------------------------------------- dialer

async function exchange (s, data, ...sizes) {
  const parts = []
  const read = new Reader(s).all((c) => { parts.push(c) })
  read.catch(() => {}) // heard below, unless a write fails first
  for (let at = 0, i = 0; at < data.byteLength; i++) {
    const size = sizes[i % sizes.length]
    await write(s, data.subarray(at, at + size))
    at += size
  }
  await s.close()
  await read
  return Buffer.concat(parts)
}

async function halfClose (d, data) {
  const got = await exchange(await d.open(HALFCLOSE), data, 10_000)
  if (!createHash('sha256').update(data).digest().equals(got)) throw new Error(`${got.byteLength} bytes came back, not the SHA-256`)
}

const checks = {
  async connect (d) {
    d.node = await newNode(d.args, [])
    d.conn = await d.node.dial(multiaddr(d.args.to))
    if (d.args.security === OWN) return d.args.transport
    const used = `${d.conn.encryption} ${d.conn.multiplexer}`
    if (used !== `${wire[d.args.security]} ${wire[d.args.muxer]}`) throw new Error(`the connection uses ${used}`)
    return `${d.args.transport} ${used}`
  },
  async request (d) {
    for (let i = 0; i < 20; i++) await halfClose(d, Buffer.from('plexus'))
    return '20 short requests'
  },
  async identify (d) {
    // The service itself refuses a message whose key is not the remote's.
    const id = await d.node.services.identify.identify(d.conn)
    if (!id.agentVersion) throw new Error('no agent version')
    if (!id.observedAddr?.toString().startsWith('/ip4/127.0.0.1/')) throw new Error(`observed address ${id.observedAddr}`)
    if (!d.args.to.endsWith(`/p2p/${id.peerId}`)) throw new Error(`public key of ${id.peerId}`)
    for (const p of [ECHO, PERF, '/ipfs/ping/1.0.0', '/ipfs/id/1.0.0']) {
      if (!id.protocols.includes(p)) throw new Error(`protocols lack ${p}: ${id.protocols}`)
    }
    return `${id.agentVersion}, ${id.protocols.length} protocols, sees us at ${id.observedAddr}`
  },
  async ping (d) {
    const rtts = []
    for (let i = 0; i < 5; i++) rtts.push(await d.node.services.ping.ping(d.conn.remotePeer))
    return `[${rtts.join(' ')}] ms`
  },
  async echo (d) {
    const data = randomBytes(1 << 20)
    const got = await exchange(await d.open(ECHO), data, 1, 7, 1000, 4093, 65537)
    if (!data.equals(got)) throw new Error(`${got.byteLength} bytes came back and differ`)
    return '1 MiB'
  },
  async streams (d) {
    const streams = await Promise.all(Array.from({ length: 100 }, () => d.open(ECHO)))
    const readers = streams.map((s) => new Reader(s))
    await Promise.all(streams.map(async (s, i) => {
      const data = Buffer.alloc(1024, i)
      await write(s, data)
      if (!data.equals(await readers[i].exactly(1024))) throw new Error('echo differs')
    }))
    // No stream closes before all have had their echo.
    await Promise.all(streams.map(async (s, i) => { await s.close(); await readers[i].all() }))
    return '100 at once'
  },
  async halfclose (d) {
    await halfClose(d, Buffer.alloc(100_000, 'plexus '))
    return '100 kB, SHA-256 back'
  },
  async reset (d) {
    const s = await d.open(RESET)
    const r = new Reader(s)
    await write(s, new Uint8Array(1))
    let seen = 'a clean end'
    await r.next().catch((err) => { seen = err.name })
    if (seen !== 'StreamResetError') throw new Error(`after the listener's reset, read says ${seen}`)

    const ours = await d.open(RESETME)
    const echo = new Reader(ours)
    await write(ours, new Uint8Array(1))
    await echo.exactly(1)
    ours.abort(new Error('our reset'))
    for (const end = Date.now() + 5000; Date.now() < end;) {
      if (Number(await exchange(await d.open(RESETCOUNT), new Uint8Array(0))) > 0) return 'seen both ways'
      await new Promise((resolve) => setTimeout(resolve, 20))
    }
    throw new Error('seen here, but not there: the listener counts no reset within 5 s')
  },
  async perf (d) {
    const measure = async (up, down) => {
      const s = await d.open(PERF)
      const read = new Reader(s).all()
      read.catch(() => {})
      const start = performance.now()
      const head = Buffer.alloc(8)
      head.writeBigUInt64BE(BigInt(down))
      await write(s, head)
      await writeZeros(s, up)
      await s.close()
      const n = await read
      if (n !== down) throw new Error(`${n} bytes came back, not ${down}`)
      return ((up + down) / 1e3 / (performance.now() - start)).toFixed(0)
    }
    return `up ${await measure(PERF_BYTES, 0)} down ${await measure(0, PERF_BYTES)} MB/s`
  },
  async wrongpeer (d) {
    const nobody = peerIdFromPrivateKey(await generateKeyPair('Ed25519'))
    const node = await newNode(d.args, [])
    try {
      await node.dial(multiaddr(d.args.to.replace(/\/p2p\/.*/, `/p2p/${nobody}`)))
    } catch (err) {
      return `refused: ${err.name}: ${err.message}`
    }
    throw new Error('connected to a peer that is not there')
  }
}

async function dial (args) {
  const d = { args, open: (protocol) => d.conn.newStream(protocol, LIMITS) }
  let allOk = true
  for (const check of args.checks.split(',')) {
    const start = performance.now()
    let [ok, detail] = [true, '']
    let timer
    try {
      if (checks[check] == null) throw new Error('unknown check')
      if (d.conn == null && !['connect', 'wrongpeer'].includes(check)) throw new Error('not run: no connection')
      const late = new Promise((resolve, reject) => {
        timer = setTimeout(() => reject(new Error('timed out after 30 s')), CHECK_TIMEOUT)
      })
      detail = await Promise.race([checks[check](d), late])
    } catch (err) {
      [ok, detail] = [false, err instanceof Error ? `${err.name}: ${err.message}` : `the stream had a ${err?.type} event`]
    }
    clearTimeout(timer)
    allOk &&= ok
    console.log(JSON.stringify({ check, ok, detail, ms: Math.round((performance.now() - start) * 1000) / 1000 }))
  }
  process.exit(allOk ? 0 : 1)
}

// A stream error in a handler must not end the process.
process.on('unhandledRejection', (err) => console.error('unhandled:', err))

const { positionals: [verb], values: args } = parseArgs({
  allowPositionals: true,
  options: {
    listen: { type: 'string', default: '/ip4/127.0.0.1/tcp/0' },
    to: { type: 'string' },
    transport: { type: 'string', default: 'tcp' },
    security: { type: 'string', default: 'noise' },
    muxer: { type: 'string', default: 'yamux' },
    cert: { type: 'string' },
    psk: { type: 'string' }, // a file with the key of a private network
    checks: { type: 'string', default: Object.keys(checks).join(',') }
  }
})
if (verb === 'features') {
  const { version } = JSON.parse(readFileSync(new URL('node_modules/libp2p/package.json', import.meta.url)))
  console.log(JSON.stringify({
    name: 'js-libp2p', version, transport: Object.keys(transports), security: Object.keys(securities), muxer: Object.keys(muxers)
  }))
} else if (verb === 'listen') {
  await listen(args)
} else {
  await dial(args)
}
