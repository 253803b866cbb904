package webtransport_test

import (
	"context"
	"errors"
	"io"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	ma "github.com/multiformats/go-multiaddr"

	"github.com/plexus-p2p/plexus"
	"github.com/plexus-p2p/plexus/peer"
	"github.com/plexus-p2p/plexus/simnet"
	"github.com/plexus-p2p/plexus/transport"
	"github.com/plexus-p2p/plexus/transport/quic"
	"github.com/plexus-p2p/plexus/transport/transporttest"
	"github.com/plexus-p2p/plexus/transport/udp"
	"github.com/plexus-p2p/plexus/transport/webtransport"
)

var listenAny = ma.StringCast("/ip4/0.0.0.0/udp/4001/quic-v1/webtransport")

// host makes a host that listens with WebTransport and QUIC on one port, and echoes. The
// test's end closes it.
func host(t testing.TB, n *simnet.Host, key peer.PrivKey) *plexus.Host {
	t.Helper()
	ports := &udp.Ports{Network: n}
	h, err := plexus.New(plexus.Config{
		Key: key, Network: n,
		Sessions: []transport.Sessions{&webtransport.Transport{Key: key, Ports: ports}, &quic.Transport{Key: key, Ports: ports}},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.Close() })
	h.Handle("/echo", func(_ context.Context, s *plexus.Stream) error {
		_, err := io.Copy(s, s)
		return err
	})
	for _, a := range []ma.Multiaddr{listenAny, ma.StringCast("/ip4/0.0.0.0/udp/4001/quic-v1")} {
		if err := h.Listen(t.Context(), a); err != nil {
			t.Fatal(err)
		}
	}
	return h
}

// inHosts runs f in a bubble with two hosts on a link.
func inHosts(t *testing.T, link simnet.Link, f func(t *testing.T, x, y *plexus.Host)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		n := simnet.New(simnet.Config{Path: link})
		t.Cleanup(n.Close)
		f(t, host(t, n.Host("10.0.0.1"), transporttest.Key(t)), host(t, n.Host("10.0.0.2"), transporttest.Key(t)))
	})
}

// info is how to reach a host by WebTransport alone.
func info(h *plexus.Host) peer.AddrInfo {
	i := h.Info()
	i.Addrs = slices.DeleteFunc(i.Addrs, func(a ma.Multiaddr) bool {
		return !slices.ContainsFunc(a, func(c ma.Component) bool { return c.Code() == ma.P_WEBTRANSPORT })
	})
	return i
}

func dialHost(t testing.TB, x, y *plexus.Host) *plexus.Conn {
	t.Helper()
	c, err := x.Dial(t.Context(), info(y))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// inbound waits for y's end of a connection.
func inbound(y *plexus.Host) *plexus.Conn {
	for {
		for c := range y.Conns() {
			return c
		}
		time.Sleep(time.Millisecond) // of the bubble
	}
}

// disconnect ends all connections between x and y, and waits until y knows.
func disconnect(x, y *plexus.Host) {
	for _, c := range x.ConnsTo(y.ID()) {
		c.Close()
	}
	for len(y.ConnsTo(x.ID())) > 0 {
		time.Sleep(time.Millisecond) // of the bubble
	}
}

func echo(t testing.TB, c *plexus.Conn) {
	t.Helper()
	s, err := c.Open(t.Context(), "/echo")
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	s.Write([]byte("x"))
	if _, err := io.ReadFull(s, make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
}

// Round trips until the first answer: QUIC's handshake, the session's with that of Noise,
// and the request.
func TestFigureRoundTrips(t *testing.T) {
	const rtt = 100 * time.Millisecond
	inHosts(t, simnet.Link{Latency: rtt / 2}, func(t *testing.T, x, y *plexus.Host) {
		begin := time.Now()
		echo(t, dialHost(t, x, y))
		trips := float64(time.Since(begin)) / float64(rtt)
		t.Logf("first echo after %.2f round trips (go-libp2p v0.51: 6)", trips)
		if trips > 3.01 {
			t.Errorf("%.2f round trips, want 3", trips)
		}
	})
}

// QUIC and WebTransport have one port, to listen and to dial from. Either may stop
// listening while the other goes on.
func TestSharedPort(t *testing.T) {
	inHosts(t, simnet.Link{Latency: time.Millisecond}, func(t *testing.T, x, y *plexus.Host) {
		for range 2 {
			echo(t, dialHost(t, x, y))
			if got, want := inbound(y).RemoteAddr(), ma.StringCast("/ip4/10.0.0.1/udp/4001/quic-v1/webtransport"); !got.Equal(want) {
				t.Errorf("dialed from %v, want %v", got, want)
			}
			disconnect(x, y)
		}
		i := y.Info()
		for _, a := range y.ListenAddrs() {
			if err := y.StopListening(a); err != nil {
				t.Errorf("%v: %v", a, err)
			}
			if err := y.Listen(t.Context(), a); err != nil {
				t.Errorf("listening on %v again: %v", a, err)
			}
		}
		for _, a := range i.Addrs {
			c, err := x.Dial(t.Context(), peer.AddrInfo{Addrs: []ma.Multiaddr{a}})
			if err != nil {
				t.Fatal(err)
			}
			echo(t, c)
		}
	})
}

// The addresses of a host have the hashes of the certificate in use and of the next
// one, at any time. When they change, the host tells, and who knows the address of before
// still gets in; who knows one that is older does not. A host that restarts has the
// addresses that it had.
func TestCertificatesRoll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := simnet.New(simnet.Config{Path: simnet.Link{Latency: time.Millisecond}})
		t.Cleanup(n.Close)
		key := transporttest.Key(t)
		away := n.Host("10.0.0.2")
		y := host(t, away, key)
		x := host(t, n.Host("10.0.0.1"), transporttest.Key(t))
		var seen []ma.Multiaddr
		var changed time.Time
		for roll := range 5 {
			at := info(y).Addrs
			if len(at) != 1 || len(at[0]) != 6 {
				t.Fatalf("addresses: %v", at)
			}
			seen = append(seen, at[0])
			if roll > 0 && !seen[roll][4].Equal(&seen[roll-1][5]) {
				t.Errorf("after %v comes %v", seen[roll-1], seen[roll])
			}
			for age := range seen {
				c, err := x.Dial(t.Context(), peer.AddrInfo{ID: y.ID(), Addrs: []ma.Multiaddr{seen[roll-age]}})
				if age > 1 {
					if !errors.Is(err, webtransport.ErrCertificate) {
						t.Errorf("an address of %d changes ago: %v", age, err)
					}
					break
				}
				if err != nil {
					t.Fatalf("an address of %d changes ago: %v", age, err)
				}
				echo(t, c)
				disconnect(x, y)
			}
			if roll == 2 {
				y.Close()
				y = host(t, away, key)
				if again := info(y).Addrs; !again[0].Equal(at[0]) {
					t.Errorf("after a restart: %v, before: %v", again, at)
				}
			}
			ctx, cancel := context.WithTimeout(t.Context(), 15*24*time.Hour)
			for ev := range y.Watch(ctx) {
				if _, ok := ev.(plexus.AddrsChanged); ok {
					break
				}
			}
			cancel()
			if took := time.Since(changed); roll > 0 && took != (14*24-2)*time.Hour {
				t.Errorf("the address has changed after %v", took)
			}
			changed = time.Now()
		}
	})
}
