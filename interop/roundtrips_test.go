//go:build linux

package interop

import (
	"context"
	"io"
	"net"
	"testing"
	"time"

	ma "github.com/multiformats/go-multiaddr"

	"github.com/plexus-p2p/plexus/interop/contract"
	"github.com/plexus-p2p/plexus/node"
	"github.com/plexus-p2p/plexus/peer"
	"github.com/plexus-p2p/plexus/security"
	"github.com/plexus-p2p/plexus/security/noise"
	"github.com/plexus-p2p/plexus/security/tls"
)

// TestRoundTrips dials each stack's listener over a link of 200 ms and counts the
// round trips until the first echo: two after TCP's own, which the link, a proxy
// on this machine, does not delay.
func TestRoundTrips(t *testing.T) {
	const rtt = 200 * time.Millisecond
	for name, want := range map[string]float64{"go": 3, "js": 3, "rust": 4, "py": 4, "plexus": 3} {
		t.Run(name, func(t *testing.T) {
			p, err := load(t, name)
			if err != nil {
				skip(t, "%v", err)
			}
			for _, proto := range []security.Protocol{&noise.Protocol{}, &tls.Protocol{}} {
				label := map[string]string{"/noise": "noise", "/tls/1.0.0": "tls"}[proto.ID()]
				l, err := listen(t.Context(), p, contract.Offer{Transport: "tcp", Security: label, Muxer: "yamux"})
				if err != nil {
					t.Fatal(err)
				}
				info, err := peer.ParseAddrInfo(l.addr)
				if err != nil {
					t.Fatal(err)
				}
				// The first connections of a fresh process are slow for reasons of their own, as
				// is a busy machine. The trips that are needed come out as the least.
				trips := want + 10
				for i := 0; i < 10 && trips > want+0.5 || i < 3; i++ {
					trips = min(trips, 1+float64(firstEcho(t, info, proto, rtt/2))/float64(rtt))
				}
				t.Logf("plexus to %s over %s: first echo after %.2f round trips", p, label, trips)
				if trips > want+0.5 {
					t.Errorf("%.2f round trips, want %v", trips, want)
				}
				if err := l.stop(); err != nil {
					t.Error(err)
				}
			}
		})
	}
}

// firstEcho tells how long it takes to connect, by a link with that latency one
// way, and to have a word echoed.
func firstEcho(t *testing.T, info peer.AddrInfo, proto security.Protocol, latency time.Duration) time.Duration {
	t.Helper()
	h, err := node.New(node.Config{Listen: []string{}, Security: []security.Protocol{proto}})
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	info.Addrs = []ma.Multiaddr{delayed(t, info.Addrs[0], latency)}
	begin := time.Now()
	if _, err := h.Dial(t.Context(), info); err != nil {
		t.Fatal(err)
	}
	s, err := h.Open(t.Context(), info.ID, contract.Echo)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	word := []byte("hello")
	if _, err := s.Write(word); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(s, word); err != nil {
		t.Fatal(err)
	}
	return time.Since(begin)
}

// delayed makes a proxy to an address, that holds every byte for the latency.
func delayed(t *testing.T, to ma.Multiaddr, latency time.Duration) ma.Multiaddr {
	t.Helper()
	port, err := to.ValueForProtocol(ma.P_TCP)
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	t.Cleanup(func() { cancel(); l.Close() })
	go func() { // ends with the test
		for {
			near, err := l.Accept()
			if err != nil {
				return
			}
			far, err := net.Dial("tcp", "127.0.0.1:"+port)
			if err != nil {
				near.Close()
				return
			}
			context.AfterFunc(ctx, func() { near.Close(); far.Close() })
			go carry(far, near, latency)
			go carry(near, far, latency)
		}
	}()
	_, ours, _ := net.SplitHostPort(l.Addr().String())
	return ma.StringCast("/ip4/127.0.0.1/tcp/" + ours)
}

// carry copies from to to, each byte after the latency.
func carry(to, from net.Conn, latency time.Duration) {
	type piece struct {
		due time.Time
		b   []byte
	}
	pieces := make(chan piece, 1024)
	go func() { // ends with from
		defer close(pieces)
		for {
			b := make([]byte, 64<<10)
			n, err := from.Read(b)
			if n > 0 {
				pieces <- piece{time.Now().Add(latency), b[:n]}
			}
			if err != nil {
				return
			}
		}
	}()
	for p := range pieces {
		<-time.After(time.Until(p.due))
		if _, err := to.Write(p.b); err != nil {
			break
		}
	}
	to.Close()
	for range pieces { // its sender must not wait for us
	}
}
