package quic_test

import (
	"context"
	"testing"
	"time"

	ma "github.com/multiformats/go-multiaddr"

	"github.com/plexus-p2p/plexus/peer"
	"github.com/plexus-p2p/plexus/plexustest"
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

var suite = transporttest.UDP{
	New: func(key peer.PrivKey, n transport.Network) transport.Sessions {
		return &quic.Transport{Key: key, Network: n}
	},
	Listen: "/quic-v1", Dial: "/quic-v1", Foreign: foreign,
	Goroutines: 6, Streams: 256,
}

func TestSessions(t *testing.T) { transporttest.TestUDP(t, suite) }

// TestSessionsSim is TestSessions in virtual time.
func TestSessionsSim(t *testing.T) {
	plexustest.Links(t, func(t *testing.T, pair func(t testing.TB) (x, y *simnet.Host)) {
		transporttest.TestUDPSim(t, suite, func(t testing.TB) (x, y transport.Network) { return pair(t) })
	})
}

// When more is known of the path, datagrams can be longer than at first. Simulated
// sockets cannot forbid fragmentation, so this runs on real ones.
func TestMaxDatagramGrows(t *testing.T) {
	server := &quic.Transport{Key: transporttest.Key(t)}
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
	c, err := (&quic.Transport{Key: transporttest.Key(t)}).DialSession(t.Context(), at, server.Key.ID())
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
