package node

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"path/filepath"
	"runtime"
	"slices"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	ma "github.com/multiformats/go-multiaddr"

	"github.com/plexus-p2p/plexus"
	"github.com/plexus-p2p/plexus/identify"
	"github.com/plexus-p2p/plexus/peer"
	"github.com/plexus-p2p/plexus/ping"
	"github.com/plexus-p2p/plexus/security/pnet"
	"github.com/plexus-p2p/plexus/simnet"
	"github.com/plexus-p2p/plexus/transport"
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

// TestPingAndEnd: a ping is echoed though the end of the stream comes with it, as
// js-libp2p sends them. QUIC gives both with one Read.
func TestPingAndEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := simnet.New(simnet.Config{Path: simnet.Link{Latency: 20 * time.Millisecond}})
		defer n.Close()
		x, err := New(Config{Network: n.Host("10.0.0.1")})
		if err != nil {
			t.Fatal(err)
		}
		defer x.Close()
		for i, a := range x.Addrs() {
			y, err := New(Config{Network: n.Host(fmt.Sprintf("10.0.0.%d", 2+i))})
			if err != nil {
				t.Fatal(err)
			}
			defer y.Close()
			c, err := y.Dial(t.Context(), peer.AddrInfo{ID: x.ID(), Addrs: []ma.Multiaddr{a}})
			if err != nil {
				t.Fatal(err)
			}
			for range 10 {
				s, err := c.Open(t.Context(), ping.Protocol)
				if err != nil {
					t.Fatal(err)
				}
				data := bytes.Repeat([]byte{7}, 32)
				if _, err := s.Write(data); err != nil {
					t.Fatal(err)
				}
				s.CloseWrite()
				if got, err := io.ReadAll(s); err != nil || !bytes.Equal(got, data) {
					t.Errorf("%s: %d bytes came back, %v", a, len(got), err)
				}
				s.Close()
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
	for _, bad := range []string{"/ip4/10.0.0.1/udp/1/utp", "nonsense", "/ip4/192.0.2.1/tcp/1"} {
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

// TestListenDefault: all transports share the number of a port, which may be given.
func TestListenDefault(t *testing.T) {
	n := simnet.New(simnet.Config{})
	defer n.Close()
	host := n.Host("10.0.0.1", "fd00::1")
	listens := func(cfg Config) (got []string) {
		h, err := New(cfg)
		if err != nil {
			t.Fatal(err)
		}
		defer h.Close()
		for _, a := range h.ListenAddrs() {
			got = append(got, a.String())
		}
		return got
	}
	want := []string{
		"/ip4/0.0.0.0/tcp/4001", "/ip4/0.0.0.0/udp/4001/quic-v1",
		"/ip6/::/tcp/4001", "/ip6/::/udp/4001/quic-v1",
	}
	if got := listens(Config{Network: host, Port: 4001}); !slices.Equal(got, want) {
		t.Errorf("listens on %v", got)
	}
	// simnet's ports follow each other; the next one is free for TCP only.
	first := listens(Config{Network: host})
	port := chosen(ma.StringCast(first[0]))
	taken, err := host.ListenUDP(t.Context(), netip.AddrPortFrom(netip.IPv4Unspecified(), port+1))
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	second := listens(Config{Network: host})
	for _, a := range second {
		if chosen(ma.StringCast(a)) != port+2 || len(second) != len(want) {
			t.Errorf("listens on %v", second)
		}
	}
	if _, err := New(Config{Network: host, Port: port + 1}); !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("the UDP port is taken: %v", err)
	}
}

// TestPrivate: a key makes the network private, and nothing gets around it.
func TestPrivate(t *testing.T) {
	n := simnet.New(simnet.Config{})
	t.Cleanup(n.Close)
	ours, other := pnet.NewKey(), pnet.NewKey()
	start := func(ip string, key pnet.Key) *plexus.Host {
		h, err := New(Config{Network: n.Host(ip), Private: key})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { h.Close() })
		return h
	}
	x, y := start("10.0.0.1", ours), start("10.0.0.2", ours)
	there := n.Host("10.0.0.3")
	for _, a := range x.Addrs() {
		to := peer.AddrInfo{ID: x.ID(), Addrs: []ma.Multiaddr{a}}
		if c, err := y.Dial(t.Context(), to); err != nil {
			t.Errorf("%s: %v", a, err)
		} else if _, err := c.WaitIdentity(t.Context()); err != nil {
			t.Errorf("%s: %v", a, err)
		} else {
			c.Close()
		}
		for name, key := range map[string]pnet.Key{"another key": other, "no key": {}} {
			h, err := New(Config{Network: there, Private: key})
			if err != nil {
				t.Fatal(err)
			}
			// A TLS client may believe that it is connected until its certificate is refused.
			if c, err := h.Dial(t.Context(), to); err == nil {
				if _, err := c.WaitIdentity(t.Context()); err == nil {
					t.Errorf("%s, %s: no error", name, a)
				}
			}
			h.Close()
		}
	}
	open := func(cfg Config) ([]transport.Pipes, []transport.Sessions) {
		cfg.Private = pnet.Key{}
		return Transports(cfg)
	}
	if _, err := New(Config{Network: n.Host("10.0.0.5"), Private: ours, Transports: open}); err == nil {
		t.Error("QUIC in a private network")
	}
	t.Setenv("LIBP2P_FORCE_PNET", "1")
	if _, err := New(Config{}); !errors.Is(err, pnet.ErrNoKey) {
		t.Errorf("LIBP2P_FORCE_PNET=1 without a key: %v", err)
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
