// Package plexustest makes hosts for the tests of protocols: as small as hosts
// come, on a network in memory or a simulated one.
package plexustest

import (
	"testing"
	"testing/synctest"
	"time"

	ma "github.com/multiformats/go-multiaddr"

	"github.com/plexus-p2p/plexus"
	"github.com/plexus-p2p/plexus/muxer"
	"github.com/plexus-p2p/plexus/muxer/yamux"
	"github.com/plexus-p2p/plexus/peer"
	"github.com/plexus-p2p/plexus/security"
	"github.com/plexus-p2p/plexus/security/noise"
	"github.com/plexus-p2p/plexus/simnet"
	"github.com/plexus-p2p/plexus/transport"
	"github.com/plexus-p2p/plexus/transport/memory"
	"github.com/plexus-p2p/plexus/transport/tcp"
)

// Host makes a host with Noise and yamux that listens on n and serves nothing.
// The test's end closes it.
func Host(t testing.TB, n *memory.Network) *plexus.Host {
	t.Helper()
	return host(t, plexus.Config{Pipes: []transport.Pipes{n}}, "/memory/0")
}

// SimHost makes such a host on a simulated machine, with TCP.
func SimHost(t testing.TB, n *simnet.Host) *plexus.Host {
	t.Helper()
	return host(t, plexus.Config{Network: n, Pipes: []transport.Pipes{&tcp.Transport{Network: n}}}, "/ip4/0.0.0.0/tcp/4001")
}

func host(t testing.TB, cfg plexus.Config, listen string) *plexus.Host {
	t.Helper()
	var err error
	if cfg.Key, err = peer.GenerateKey(peer.Ed25519); err != nil {
		t.Fatal(err)
	}
	cfg.Security = []security.Protocol{&noise.Protocol{}}
	cfg.Muxers = []muxer.Muxer{&yamux.Muxer{}}
	h, err := plexus.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.Close() })
	if err := h.Listen(t.Context(), ma.StringCast(listen)); err != nil {
		t.Fatal(err)
	}
	return h
}

// Pair runs f in a synctest bubble with a connection to y.
func Pair(t *testing.T, f func(t *testing.T, c *plexus.Conn, y *plexus.Host)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		var n memory.Network
		x, y := Host(t, &n), Host(t, &n)
		c, err := x.Dial(t.Context(), y.Info())
		if err != nil {
			t.Fatal(err)
		}
		f(t, c, y)
	})
}

// Links runs f on two kinds of links: one that has latency, and one that loses packets, too.
// pair makes two hosts, 10.0.0.1 and 10.0.0.2, on a network of their own.
func Links(t *testing.T, f func(t *testing.T, pair func(t testing.TB) (x, y *simnet.Host))) {
	for name, link := range map[string]simnet.Link{
		"latency": {Latency: 10 * time.Millisecond},
		"loss":    {Latency: 10 * time.Millisecond, Loss: 0.02},
	} {
		t.Run(name, func(t *testing.T) {
			f(t, func(t testing.TB) (x, y *simnet.Host) {
				n := simnet.New(simnet.Config{Path: link})
				t.Cleanup(n.Close)
				return n.Host("10.0.0.1"), n.Host("10.0.0.2")
			})
		})
	}
}
