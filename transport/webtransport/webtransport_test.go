package webtransport_test

import (
	"testing"

	ma "github.com/multiformats/go-multiaddr"

	"github.com/plexus-p2p/plexus/peer"
	"github.com/plexus-p2p/plexus/plexustest"
	"github.com/plexus-p2p/plexus/simnet"
	"github.com/plexus-p2p/plexus/transport"
	"github.com/plexus-p2p/plexus/transport/transporttest"
	"github.com/plexus-p2p/plexus/transport/webtransport"
)

const anyHash = "/certhash/uEiAkH5a4DPGKUuOBjYw0CgwjvcJCJMD2K_1aluKR_tpevQ"

var foreign = []ma.Multiaddr{
	ma.StringCast("/ip4/127.0.0.1/udp/1"),
	ma.StringCast("/ip4/127.0.0.1/udp/1/quic-v1"),
	ma.StringCast("/ip4/127.0.0.1/udp/1/quic/webtransport"),
	ma.StringCast("/ip4/127.0.0.1/udp/1/quic-v1" + anyHash),
	ma.StringCast("/ip4/127.0.0.1/udp/1/webrtc-direct" + anyHash),
	ma.StringCast("/dns/example.com/udp/1/quic-v1/webtransport" + anyHash),
}

var suite = transporttest.UDP{
	New: func(key peer.PrivKey, n transport.Network) transport.Sessions {
		return &webtransport.Transport{Key: key, Network: n}
	},
	Listen: "/quic-v1/webtransport", Dial: "/quic-v1/webtransport" + anyHash, Foreign: foreign,
	Goroutines: 12, Streams: 255, // all that QUIC allows but that of the request
}

func TestSessions(t *testing.T) { transporttest.TestUDP(t, suite) }

// TestSessionsSim is TestSessions in virtual time.
func TestSessionsSim(t *testing.T) {
	plexustest.Links(t, func(t *testing.T, pair func(t testing.TB) (x, y *simnet.Host)) {
		transporttest.TestUDPSim(t, suite, func(t testing.TB) (x, y transport.Network) { return pair(t) })
	})
}
