package node

import (
	"context"
	"net/netip"
	"path/filepath"
	"runtime"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/plexus-p2p/plexus"
	"github.com/plexus-p2p/plexus/identify"
	"github.com/plexus-p2p/plexus/ping"
	"github.com/plexus-p2p/plexus/simnet"
)

// TestNode: two zero configs meet, identify each other and ping.
func TestNode(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := simnet.New(simnet.Config{Path: simnet.Link{Latency: 20 * time.Millisecond}})
		defer n.Close()
		x, err := New(Config{Network: n.Host("10.0.0.1"), Agent: "x/1"})
		if err != nil {
			t.Fatal(err)
		}
		defer x.Close()
		y, err := New(Config{Network: n.Host("10.0.0.2")})
		if err != nil {
			t.Fatal(err)
		}
		defer y.Close()
		c, err := y.Dial(t.Context(), x.Info())
		if err != nil {
			t.Fatal(err)
		}
		id, err := c.WaitIdentity(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if id.Agent != "x/1" || !id.Signed || !slices.Contains(id.Protocols, ping.Protocol) || !slices.Contains(id.Protocols, identify.Protocol) {
			t.Errorf("got %+v", id)
		}
		pings := 0
		for rtt, err := range ping.Over(t.Context(), c) {
			// The first one meets the end of identify, and a session's grace for its reader.
			if pings++; err != nil || rtt < 40*time.Millisecond || rtt > 40*time.Millisecond && pings > 1 {
				t.Errorf("ping %d took %v, %v", pings, rtt, err)
			}
			if pings == 3 {
				break
			}
		}
	})
}

// TestKeyFile: one field makes an identity that lasts.
func TestKeyFile(t *testing.T) {
	cfg := Config{KeyFile: filepath.Join(t.TempDir(), "key"), Listen: []string{}}
	x, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	x.Close()
	y, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer y.Close()
	if x.ID() != y.ID() {
		t.Errorf("%s became %s", x.ID(), y.ID())
	}
}

// TestListenMustSucceed: an address that cannot be listened on is an error, not
// an omission, and leaves nothing behind.
func TestListenMustSucceed(t *testing.T) {
	n := simnet.New(simnet.Config{})
	defer n.Close()
	host := n.Host("10.0.0.1")
	for _, bad := range []string{"/ip4/10.0.0.1/udp/1/quic-v1", "nonsense", "/ip4/192.0.2.1/tcp/1"} {
		if h, err := New(Config{Network: host, Listen: []string{"/ip4/10.0.0.1/tcp/4001", bad}}); err == nil {
			h.Close()
			t.Errorf("%s: no error", bad)
		}
		l, err := host.ListenTCP(context.Background(), netip.MustParseAddrPort("10.0.0.1:4001"))
		if err != nil {
			t.Fatalf("%s: the other port is still taken: %v", bad, err)
		}
		l.Close()
	}
}

// TestFigureStart measures starting a default node on the system's network.
func TestFigureStart(t *testing.T) {
	cfg := Config{Limits: plexus.Limits{}}
	before := runtime.NumGoroutine()
	var hosts []*plexus.Host
	begin := time.Now()
	const n = 10
	for range n {
		h, err := New(cfg)
		if err != nil {
			t.Fatal(err)
		}
		hosts = append(hosts, h)
	}
	took := time.Since(begin) / n
	goroutines := (runtime.NumGoroutine() - before) / n
	for _, h := range hosts {
		h.Close()
	}
	t.Logf("a default node: started in %v, %d goroutines when idle (go-libp2p v0.51: 14 ms and 54)", took, goroutines)
	if goroutines > 12 {
		t.Errorf("%d goroutines, want at most 12", goroutines)
	}
}
