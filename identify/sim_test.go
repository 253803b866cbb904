package identify

import (
	"slices"
	"testing"
	"testing/synctest"
	"time"

	ma "github.com/multiformats/go-multiaddr"

	"github.com/plexus-p2p/plexus"
	"github.com/plexus-p2p/plexus/muxer"
	"github.com/plexus-p2p/plexus/muxer/yamux"
	"github.com/plexus-p2p/plexus/security"
	"github.com/plexus-p2p/plexus/security/noise"
	"github.com/plexus-p2p/plexus/simnet"
	"github.com/plexus-p2p/plexus/transport"
	"github.com/plexus-p2p/plexus/transport/tcp"
)

func simHost(t *testing.T, n *simnet.Host) *plexus.Host {
	t.Helper()
	h, err := plexus.New(plexus.Config{
		Key:      newKey(t),
		Network:  n,
		Pipes:    []transport.Pipes{&tcp.Transport{Network: n}},
		Security: []security.Protocol{&noise.Protocol{}},
		Muxers:   []muxer.Muxer{&yamux.Muxer{}},
	})
	if err == nil {
		err = h.Listen(t.Context(), ma.StringCast("/ip4/0.0.0.0/tcp/4001"))
	}
	if err != nil {
		t.Fatal(err)
	}
	Start(h, Config{})
	return h
}

// A peer is known one round trip after the connection is there.
func TestRoundTrip(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const rtt = 100 * time.Millisecond
		n := simnet.New(simnet.Config{Path: simnet.Link{Latency: rtt / 2}})
		defer n.Close()
		x, y := simHost(t, n.Host("10.0.0.1")), simHost(t, n.Host("10.0.0.2"))
		defer x.Close()
		defer y.Close()
		c, err := x.Dial(t.Context(), y.Info())
		if err != nil {
			t.Fatal(err)
		}
		begin := time.Now()
		identity(t, c)
		if d := time.Since(begin); d > rtt+10*time.Millisecond {
			t.Errorf("identified after %v, want %v", d, rtt)
		}
	})
}

// A machine gets another address, and no event tells. The next peer that asks is
// told, and so are the others then.
func TestNewInterface(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := simnet.New(simnet.Config{})
		defer n.Close()
		machine := n.Host("10.0.0.1")
		x, y, z := simHost(t, machine), simHost(t, n.Host("10.0.0.2")), simHost(t, n.Host("10.0.0.3"))
		for _, h := range []*plexus.Host{x, y, z} {
			defer h.Close()
		}
		knows := func(h *plexus.Host) bool {
			c, err := h.Dial(t.Context(), x.Info())
			if err != nil {
				t.Fatal(err)
			}
			return slices.ContainsFunc(identity(t, c).Addrs, ma.StringCast("/ip4/10.0.0.99/tcp/4001").Equal)
		}
		if knows(y) {
			t.Error("y knows what is not yet so")
		}
		machine.SetAddrs("10.0.0.1", "10.0.0.99")
		time.Sleep(2 * lookEvery)
		if !knows(z) {
			t.Error("z was told an old address")
		}
		time.Sleep(2 * pushDelay)
		if !knows(y) {
			t.Error("y was not told")
		}
	})
}

// What peers say to each other while the network fails has no lasting effect.
func TestLossy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := simnet.New(simnet.Config{Path: simnet.Link{Latency: 20 * time.Millisecond, Loss: 0.1}})
		defer n.Close()
		x := simHost(t, n.Host("10.0.0.1"))
		defer x.Close()
		for _, ip := range []string{"10.0.0.2", "10.0.0.3", "10.0.0.4"} {
			y := simHost(t, n.Host(ip))
			defer y.Close()
			c, err := x.Dial(t.Context(), y.Info())
			if err != nil {
				t.Fatal(err)
			}
			identity(t, c)
			y.Handle("/new", nothing)
			time.Sleep(10 * time.Second)
			if id := c.Identity(); !slices.Contains(id.Protocols, "/new") {
				t.Errorf("%s speaks %q", ip, id.Protocols)
			}
		}
	})
}
