// A page that is a host which nobody reaches from outside. It connects to a node by
// WebSocket, and over that connection signals for WebRTC: once as the one that dials,
// once as the one that is dialed.
import { circuitRelayTransport } from '@libp2p/circuit-relay-v2'
import { identify } from '@libp2p/identify'
import { noise } from '@libp2p/noise'
import { webRTC } from '@libp2p/webrtc'
import { webSockets } from '@libp2p/websockets'
import { yamux } from '@libp2p/yamux'
import { multiaddr } from '@multiformats/multiaddr'
import { createLibp2p } from 'libp2p'
import { echo } from './echo.js'

const ECHO = '/plexus/echo/1.0.0'
const DIAL_ME = '/plexus/interop/dial-me'

// answer sends back what comes.
async function answer (stream) {
  for await (const bytes of stream) {
    if (!stream.send(bytes)) await new Promise(resolve => stream.addEventListener('drain', resolve, { once: true }))
  }
  await stream.close()
}

// read reads a stream as text.
async function read (stream) {
  let text = ''
  for await (const bytes of stream) text += new TextDecoder().decode(bytes.subarray())
  return text
}

// run returns what failed.
window.run = async function (address) {
  const failures = []
  const attempt = async (name, f) => {
    try {
      await Promise.race([f(), new Promise((resolve, reject) => setTimeout(reject, 30000, new Error('timeout')))])
    } catch (e) {
      failures.push(`${name}: ${e.stack ?? e}`)
    }
  }
  const node = await createLibp2p({
    transports: [webSockets(), circuitRelayTransport(), webRTC({ rtcConfiguration: { iceServers: [] } })],
    connectionEncrypters: [noise()],
    streamMuxers: [yamux()],
    connectionGater: { denyDialMultiaddr: () => false },
    services: { identify: identify() }
  })
  await node.handle(ECHO, answer, { maxInboundStreams: 100 })
  const first = await node.dial(multiaddr(address))
  await attempt('dialer', async () => {
    // Of the relay that the address names there is no need: signaling goes over the
    // connection that there is.
    const c = await node.dial(multiaddr(`${address}/p2p-circuit/webrtc/p2p/${first.remotePeer}`), { force: true })
    if (!c.remoteAddr.toString().includes('/webrtc')) throw new Error(`connected by ${c.remoteAddr}`)
    await echo(c, 1 << 20)
    await Promise.all(Array.from({ length: 50 }, () => echo(c, 3000)))
    await c.close()
  })
  await attempt('listener', async () => {
    const said = await read(await first.newStream(DIAL_ME))
    if (said !== 'ok') throw new Error(said)
  })
  await node.stop()
  return failures
}
