package quic_test

import (
	"context"
	"net"
	"net/netip"
	"testing"
	"time"

	ma "github.com/multiformats/go-multiaddr"

	"github.com/plexus-p2p/plexus/peer"
	"github.com/plexus-p2p/plexus/simnet"
	"github.com/plexus-p2p/plexus/transport"
	"github.com/plexus-p2p/plexus/transport/quic"
	"github.com/plexus-p2p/plexus/transport/transporttest"
)

var foreign = []ma.Multiaddr{
	ma.StringCast("/ip4/127.0.0.1/udp/1"),
	ma.StringCast("/ip4/127.0.0.1/tcp/1"),
	ma.StringCast("/ip4/127.0.0.1/udp/1/quic"),
	ma.StringCast("/ip4/127.0.0.1/udp/1/quic-v1/webtransport"),
	ma.StringCast("/dns/example.com/udp/1/quic-v1"),
}

func TestSessions(t *testing.T) {
	for _, ip := range []string{"/ip4/127.0.0.1", "/ip6/::1"} {
		t.Run(ip[1:4], func(t *testing.T) {
			transporttest.TestSessions(t, transporttest.Sessions{
				New: func(t testing.TB, client, server peer.PrivKey) (c, s transport.Sessions) {
					return &quic.Transport{Key: client}, &quic.Transport{Key: server}
				},
				Listen:     ma.StringCast(ip + "/udp/0/quic-v1"),
				Silent:     silent(t, ip),
				Foreign:    foreign,
				Goroutines: 6,
				Streams:    256,
			})
		})
	}
}

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
	return a.Encapsulate(ma.StringCast("/quic-v1"))
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
					return &quic.Transport{Key: client, Network: n.Host("10.0.0.1")},
						&quic.Transport{Key: server, Network: n.Host("10.0.0.2")}
				},
				Listen:     ma.StringCast("/ip4/10.0.0.2/udp/0/quic-v1"),
				Silent:     ma.StringCast("/ip4/10.0.0.3/udp/1/quic-v1"),
				Foreign:    foreign,
				Bubble:     true,
				Goroutines: 6,
				Streams:    256,
			})
		})
	}
}

// When more is known of the path, datagrams can be longer than at first. Simulated
// sockets cannot forbid fragmentation, so this runs on real ones.
func TestMaxDatagramGrows(t *testing.T) {
	server := &quic.Transport{Key: newKey(t)}
	l, err := server.ListenSession(t.Context(), ma.StringCast("/ip4/127.0.0.1/udp/0/quic-v1"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	ends := accepted(t, l)
	at, err := transport.Multiaddr(l.Addr())
	if err != nil {
		t.Fatal(err)
	}
	c, err := (&quic.Transport{Key: newKey(t)}).DialSession(t.Context(), at, server.Key.ID())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close(past, 0)
	serve(c)
	end := <-ends
	defer end.Close(past, 0)
	go func() { // ends with the session
		for {
			b, err := end.Session.(transport.Datagrams).ReceiveDatagram(context.Background())
			if err != nil {
				return
			}
			end.Session.(transport.Datagrams).SendDatagram(b)
		}
	}()
	d := c.(transport.Datagrams)
	first := d.MaxDatagram()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	for d.MaxDatagram() <= first {
		// What goes back and forth gives quic-go occasions to look for more.
		if err := d.SendDatagram([]byte("x")); err != nil {
			t.Fatal(err)
		}
		if _, err := d.ReceiveDatagram(ctx); err != nil {
			t.Fatalf("MaxDatagram is still %d: %v", first, err)
		}
	}
	if err := d.SendDatagram(make([]byte, d.MaxDatagram())); err != nil {
		t.Errorf("a datagram of %d bytes: %v", d.MaxDatagram(), err)
	}
}

// past is a context that has ended.
var past = func() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}()
