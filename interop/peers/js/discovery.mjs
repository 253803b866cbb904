// A js-libp2p host with pubsub-peer-discovery: dials ADDR, says {"id":…}, and
// {"id":…,"found":ADDR} when it has discovered PEER. It ends with its stdin.
//
//     node discovery.mjs ADDR PEER
import { gossipsub } from '@libp2p/gossipsub'
import { identify } from '@libp2p/identify'
import { noise } from '@libp2p/noise'
import { pubsubPeerDiscovery } from '@libp2p/pubsub-peer-discovery'
import { tcp } from '@libp2p/tcp'
import { yamux } from '@libp2p/yamux'
import { multiaddr } from '@multiformats/multiaddr'
import { createLibp2p } from 'libp2p'

const [addr, want] = process.argv.slice(2)
const node = await createLibp2p({
  addresses: { listen: ['/ip4/127.0.0.1/tcp/0'] },
  transports: [tcp()],
  connectionEncrypters: [noise()],
  streamMuxers: [yamux()],
  peerDiscovery: [pubsubPeerDiscovery({ interval: 1000 })],
  services: { identify: identify(), pubsub: gossipsub() }
})
const id = node.peerId.toString()
node.addEventListener('peer:discovery', (event) => {
  const { id: peer, multiaddrs } = event.detail
  if (peer.toString() === want && multiaddrs.length > 0) {
    console.log(JSON.stringify({ id, found: multiaddrs[0].toString() }))
  }
})
await node.dial(multiaddr(addr))
console.log(JSON.stringify({ id }))
process.stdin.resume()
process.stdin.on('end', () => process.exit(0))
