package webtransport_test

import (
	"net"
	"net/netip"
	"testing"
	"time"

	ma "github.com/multiformats/go-multiaddr"

	"github.com/plexus-p2p/plexus/peer"
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

func TestSessions(t *testing.T) {
	for _, ip := range []string{"/ip4/127.0.0.1", "/ip6/::1"} {
		t.Run(ip[1:4], func(t *testing.T) {
			transporttest.TestSessions(t, transporttest.Sessions{
				New: func(t testing.TB, client, server peer.PrivKey) (c, s transport.Sessions) {
					return &webtransport.Transport{Key: client}, &webtransport.Transport{Key: server}
				},
				Listen:     ma.StringCast(ip + "/udp/0/quic-v1/webtransport"),
				Silent:     silent(t, ip),
				Foreign:    foreign,
				Goroutines: 12,
				Streams:    streams,
			})
		})
	}
}

// streams is how many a client may open: all that QUIC lets it but that of the request.
const streams = 255

// silent returns an address where a socket is bound that nobody reads.
func silent(t testing.TB, ip string) ma.Multiaddr {
	t.Helper()
	at, _, _ := transport.IP(ma.StringCast(ip))
	c, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(at, 0)))
	if err != nil {
		t.Skip(err)
	}
	t.Cleanup(func() { c.Close() })
	a, err := transport.FromUDP(c.LocalAddr().(*net.UDPAddr).AddrPort())
	if err != nil {
		t.Fatal(err)
	}
	return a.Encapsulate(ma.StringCast("/quic-v1/webtransport" + anyHash))
}

// TestSessionsSim is TestSessions in virtual time, on a link that has latency and
// loses packets.
func TestSessionsSim(t *testing.T) {
	for name, path := range map[string]simnet.Link{
		"latency": {Latency: 10 * time.Millisecond},
		"loss":    {Latency: 10 * time.Millisecond, Loss: 0.02},
	} {
		t.Run(name, func(t *testing.T) {
			transporttest.TestSessions(t, transporttest.Sessions{
				New: func(t testing.TB, client, server peer.PrivKey) (c, s transport.Sessions) {
					n := simnet.New(simnet.Config{Path: path})
					t.Cleanup(n.Close)
					return &webtransport.Transport{Key: client, Network: n.Host("10.0.0.1")},
						&webtransport.Transport{Key: server, Network: n.Host("10.0.0.2")}
				},
				Listen:     ma.StringCast("/ip4/10.0.0.2/udp/0/quic-v1/webtransport"),
				Silent:     ma.StringCast("/ip4/10.0.0.3/udp/1/quic-v1/webtransport" + anyHash),
				Foreign:    foreign,
				Bubble:     true,
				Goroutines: 12,
				Streams:    streams,
			})
		})
	}
}
