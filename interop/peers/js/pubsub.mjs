// The pubsub peer on js-libp2p: @libp2p/gossipsub and @libp2p/floodsub. The contract is
// in ../../contract/pubsub.go.

import { readFileSync } from 'node:fs'
import { createInterface } from 'node:readline'
import { setTimeout as sleep } from 'node:timers/promises'
import { parseArgs } from 'node:util'
import { floodsub } from '@libp2p/floodsub'
import { gossipsub } from '@libp2p/gossipsub'
import { identify } from '@libp2p/identify'
import { noise } from '@libp2p/noise'
import { tcp } from '@libp2p/tcp'
import { yamux } from '@libp2p/yamux'
import { multiaddr } from '@multiformats/multiaddr'
import { createLibp2p } from 'libp2p'

const TOPIC = 'interop'

const { values: args } = parseArgs({
  options: { router: { type: 'string', default: 'gossipsub' }, sign: { type: 'string', default: 'yes' } }
})

// By default js-libp2p's gossipsub takes the author's public key for the first part of an ID,
// all others take the peer ID. IHAVE, IWANT and IDONTWANT would name what nobody knows.
function messageID (msg) {
  const id = Buffer.alloc(8)
  id.writeBigUInt64BE(msg.sequenceNumber)
  return Buffer.concat([msg.from.toMultihash().bytes, id])
}

const policy = args.sign === 'yes' ? 'StrictSign' : 'StrictNoSign'
const router = args.router === 'floodsub'
  ? floodsub({ globalSignaturePolicy: policy })
  : gossipsub({ globalSignaturePolicy: policy, ...(args.sign === 'yes' ? { msgIdFn: messageID } : {}) })

const node = await createLibp2p({
  addresses: { listen: ['/ip4/127.0.0.1/tcp/0'] },
  transports: [tcp()],
  connectionEncrypters: [noise()],
  streamMuxers: [yamux()],
  connectionMonitor: { enabled: false }, // it pings by itself
  connectionManager: { inboundConnectionThreshold: 1000 }, // 5 a second by default
  services: { identify: identify(), pubsub: router }
})
const pubsub = node.services.pubsub

const report = { got: {}, again: 0, bad: 0, dontwant: -1 }
const seen = new Set()

pubsub.addEventListener('message', ({ detail }) => {
  if (detail.topic !== TOPIC) return
  const data = Buffer.from(detail.data)
  const [from, n] = [data.readUInt32BE(0), data.readUInt32BE(4)]
  if (!data.subarray(8).every((b) => b === ((7 * from + n) & 0xff))) {
    report.bad++
  } else if (seen.has(`${from} ${n}`)) {
    report.again++
  } else {
    seen.add(`${from} ${n}`)
    report.got[from] = (report.got[from] ?? 0) + 1
  }
})

if (args.router === 'gossipsub') {
  report.dontwant = 0
  const handle = pubsub.handleIdontwant.bind(pubsub)
  pubsub.handleIdontwant = (id, all) => {
    for (const { messageIDs } of all) report.dontwant += messageIDs.length
    handle(id, all)
  }
}

async function publish ({ from, count, size, gap }) {
  const begin = performance.now()
  for (let n = 0; n < count; n++) {
    const wait = begin + n * gap - performance.now()
    if (wait > 0) await sleep(wait)
    const data = Buffer.alloc(size, (7 * from + n) & 0xff)
    data.writeUInt32BE(from, 0)
    data.writeUInt32BE(n, 4)
    await pubsub.publish(TOPIC, data)
  }
}

pubsub.subscribe(TOPIC)
const { version } = JSON.parse(readFileSync(new URL(`node_modules/@libp2p/${args.router}/package.json`, import.meta.url)))
console.log(JSON.stringify({
  addr: node.getMultiaddrs()[0].toString(), name: `@libp2p/${args.router}`, version, protocols: pubsub.protocols ?? [pubsub.protocol]
}))
process.on('unhandledRejection', (err) => console.error('unhandled:', err))
for await (const line of createInterface({ input: process.stdin })) {
  const cmd = JSON.parse(line)
  try {
    if (cmd.dial) await node.dial(multiaddr(cmd.dial))
    if (cmd.publish) await publish(cmd.publish)
    const peers = pubsub.getSubscribers(TOPIC).length
    console.log(JSON.stringify({ ...report, peers, mesh: pubsub.getMeshPeers?.(TOPIC).length ?? peers }))
  } catch (err) {
    console.log(JSON.stringify({ err: `${err.name}: ${err.message}` }))
  }
}
process.exit(0)
