package plexus_test

import (
	"io"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	ma "github.com/multiformats/go-multiaddr"

	"github.com/plexus-p2p/plexus"
	"github.com/plexus-p2p/plexus/muxer"
	"github.com/plexus-p2p/plexus/muxer/mplex"
	"github.com/plexus-p2p/plexus/muxer/yamux"
	"github.com/plexus-p2p/plexus/peer"
	"github.com/plexus-p2p/plexus/security"
	"github.com/plexus-p2p/plexus/security/noise"
	"github.com/plexus-p2p/plexus/security/pnet"
	"github.com/plexus-p2p/plexus/security/tls"
	"github.com/plexus-p2p/plexus/simnet"
	"github.com/plexus-p2p/plexus/transport"
	"github.com/plexus-p2p/plexus/transport/tcp"
	"github.com/plexus-p2p/plexus/transport/websocket"
)

// simHost makes a host with an address of its own on a simulated network. It
// closes it at the bubble's end by h.Close.
func simHost(t testing.TB, n *simnet.Network, ip string, sec ...security.Protocol) *plexus.Host {
	t.Helper()
	return simHostOn(t, n.Host(ip), sec...)
}

func simHostOn(t testing.TB, sim *simnet.Host, sec ...security.Protocol) *plexus.Host {
	t.Helper()
	if sec == nil {
		sec = []security.Protocol{&noise.Protocol{}, &tls.Protocol{}}
	}
	h := makeHost(t, plexus.Config{
		Network:  sim,
		Pipes:    []transport.Pipes{&tcp.Transport{Network: sim}},
		Security: sec,
		Muxers:   []muxer.Muxer{&yamux.Muxer{}, &mplex.Muxer{}},
	})
	h.Handle(echoProtocol, echo)
	h.Handle("/discard", discard)
	if err := h.Listen(t.Context(), ma.StringCast("/ip4/0.0.0.0/tcp/4001")); err != nil {
		t.Fatal(err)
	}
	return h
}

// TestFigureRoundTrips measures, in round trips of a link with 100 ms, the time
// from Dial until the first answer on a fresh connection.
func TestFigureRoundTrips(t *testing.T) {
	const rtt = 100 * time.Millisecond
	for _, sec := range []security.Protocol{&noise.Protocol{}, &tls.Protocol{}} {
		synctest.Test(t, func(t *testing.T) {
			n := simnet.New(simnet.Config{Path: simnet.Link{Latency: rtt / 2}})
			defer n.Close()
			x, y := simHost(t, n, "10.0.0.1", sec), simHost(t, n, "10.0.0.2", sec)
			defer y.Close()
			defer x.Close()
			begin := time.Now()
			if _, err := x.Dial(t.Context(), y.Info()); err != nil {
				t.Fatal(err)
			}
			talk(t, open(t, x, y.ID(), echoProtocol))
			trips := float64(time.Since(begin)) / float64(rtt)
			t.Logf("%s: first echo after %.2f round trips (go-libp2p v0.51: 5)", sec.ID(), trips)
			if trips > 3.01 {
				t.Errorf("%.2f round trips, want 3", trips)
			}
		})
	}
}

// TestFallback: a listener that lacks our first security protocol is dialed again.
func TestFallback(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := simnet.New(simnet.Config{Path: simnet.Link{Latency: 10 * time.Millisecond}})
		defer n.Close()
		x, y := simHost(t, n, "10.0.0.1"), simHost(t, n, "10.0.0.2", &tls.Protocol{})
		defer y.Close()
		defer x.Close()
		c, err := x.Dial(t.Context(), y.Info())
		if err != nil {
			t.Fatal(err)
		}
		if c.Security() != "/tls/1.0.0" {
			t.Errorf("secured by %s", c.Security())
		}
		talk(t, open(t, x, y.ID(), echoProtocol))
	})
}

// TestFigureFairness: an 8-byte echo beside 4 bulk streams on one link of 100 Mbit/s.
func TestFigureFairness(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := simnet.New(simnet.Config{
			Access: simnet.Link{Bandwidth: 100e6},
			Path:   simnet.Link{Latency: 500 * time.Microsecond},
		})
		defer n.Close()
		x, y := simHost(t, n, "10.0.0.1"), simHost(t, n, "10.0.0.2")
		defer y.Close()
		defer x.Close()
		if _, err := x.Dial(t.Context(), y.Info()); err != nil {
			t.Fatal(err)
		}
		s := open(t, x, y.ID(), echoProtocol)
		p99 := func() time.Duration {
			var took []time.Duration
			b := make([]byte, 8)
			for range 300 {
				begin := time.Now()
				s.Write(b)
				if _, err := io.ReadFull(s, b); err != nil {
					t.Fatal(err)
				}
				took = append(took, time.Since(begin))
				time.Sleep(7 * time.Millisecond)
			}
			slices.Sort(took)
			return took[len(took)*99/100]
		}
		idle := p99()
		var bulk []*plexus.Stream
		for range 4 {
			s := open(t, x, y.ID(), "/discard")
			bulk = append(bulk, s)
			go func() { // ends with the stream
				b := make([]byte, 64<<10)
				for {
					if _, err := s.Write(b); err != nil {
						return
					}
				}
			}()
		}
		time.Sleep(2 * time.Second)
		busy := p99()
		t.Logf("p99 of an 8-byte echo: %v idle, %v beside 4 bulk streams at 100 Mbit/s (go-libp2p v0.51: 1.3 ms and 155 ms)", idle, busy)
		if busy-idle > 15*time.Millisecond {
			t.Errorf("%v over idle, want at most 15ms", busy-idle)
		}
		for _, s := range bulk {
			s.Reset(0)
		}
	})
}

// TestDeterministic: a network of hosts with losses plays the same twice.
func TestDeterministic(t *testing.T) {
	play := func(seed uint64) (took time.Duration) {
		synctest.Test(t, func(t *testing.T) {
			n := simnet.New(simnet.Config{Seed: seed, Path: simnet.Link{Latency: 20 * time.Millisecond, Loss: 0.02, Bandwidth: 10e6}})
			defer n.Close()
			x, y := simHost(t, n, "10.0.0.1", &noise.Protocol{}), simHost(t, n, "10.0.0.2", &noise.Protocol{})
			defer y.Close()
			defer x.Close()
			begin := time.Now()
			if _, err := x.Dial(t.Context(), y.Info()); err != nil {
				t.Fatal(err)
			}
			s := open(t, x, y.ID(), "/discard")
			s.Write(make([]byte, 1<<20))
			s.CloseWrite()
			if _, err := s.Read(make([]byte, 1)); err != io.EOF {
				t.Fatal(err)
			}
			took = time.Since(begin)
		})
		return took
	}
	a, b, c := play(1), play(1), play(2)
	if a != b {
		t.Errorf("seed 1 took %v, then %v", a, b)
	}
	if a == c {
		t.Errorf("seeds 1 and 2 both took %v", a)
	}
}

// TestPartition: a path that swallows everything fails dials by time, an
// established connection by keepalive, and works again once it is healed.
func TestPartition(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := simnet.New(simnet.Config{Path: simnet.Link{Latency: 10 * time.Millisecond}})
		defer n.Close()
		island := n.Host("10.0.0.2")
		x, y := simHost(t, n, "10.0.0.1"), simHostOn(t, island)
		defer y.Close()
		defer x.Close()
		c, err := x.Dial(t.Context(), y.Info())
		if err != nil {
			t.Fatal(err)
		}
		n.Partition(island)
		begin := time.Now()
		<-c.Done()
		if took := time.Since(begin); took > 45*time.Second {
			t.Errorf("a dead path was noticed after %v", took)
		}
		begin = time.Now()
		_, err = x.Dial(t.Context(), y.Info())
		if took := time.Since(begin); err == nil || took > 16*time.Second {
			t.Errorf("dialing a dead path took %v: %v", took, err)
		}
		n.Heal()
		if _, err := x.Dial(t.Context(), y.Info()); err != nil {
			t.Fatal(err)
		}
		talk(t, open(t, x, y.ID(), echoProtocol))
	})
}

// TestWatched: where the system notices that a host is gone, the session asks rarely, at
// both ends and in private networks too, but for those that go by WebSocket or another
// network. A path that swallows what was sent is noticed as soon as ever.
func TestWatched(t *testing.T) {
	type pipes func(sim *simnet.Host) transport.Pipes
	watched := func(sim *simnet.Host) *tcp.Transport { return &tcp.Transport{Network: watchedNetwork{sim}} }
	for name, c := range map[string]struct {
		pipes pipes
		rare  bool
	}{
		"tcp":     {func(sim *simnet.Host) transport.Pipes { return watched(sim) }, true},
		"private": {func(sim *simnet.Host) transport.Pipes { return &pnet.Transport{Key: pnet.Key{1}, Pipes: watched(sim)} }, true},
		"ws":      {func(sim *simnet.Host) transport.Pipes { return &websocket.Transport{TCP: watched(sim)} }, false},
		"simnet":  {func(sim *simnet.Host) transport.Pipes { return &tcp.Transport{Network: sim} }, false},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := simnet.New(simnet.Config{Path: simnet.Link{Latency: 10 * time.Millisecond}})
				defer n.Close()
				on := "/ip4/0.0.0.0/tcp/4001"
				if name == "ws" {
					on += "/ws"
				}
				host := func(sim *simnet.Host) *plexus.Host {
					h := makeHost(t, plexus.Config{
						Network: sim, Pipes: []transport.Pipes{c.pipes(sim)},
						Security: []security.Protocol{&noise.Protocol{}}, Muxers: []muxer.Muxer{&yamux.Muxer{}},
					})
					h.Handle(echoProtocol, echo)
					if err := h.Listen(t.Context(), ma.StringCast(on)); err != nil {
						t.Fatal(err)
					}
					return h
				}
				island := n.Host("10.0.0.2")
				x, y := host(n.Host("10.0.0.1")), host(island)
				defer y.Close()
				defer x.Close()
				// gone parts the two, and tells when the ends noticed.
				gone := func(between func()) (ours, theirs time.Duration) {
					t.Helper()
					conn, err := x.Dial(t.Context(), y.Info())
					if err != nil {
						t.Fatal(err)
					}
					talk(t, open(t, x, y.ID(), echoProtocol))
					time.Sleep(10 * time.Minute)
					n.Partition(island)
					begin := time.Now()
					between()
					other := y.ConnsTo(x.ID())[0]
					<-conn.Done()
					ours = time.Since(begin)
					<-other.Done()
					theirs = time.Since(begin)
					n.Heal()
					return ours, theirs
				}
				least := time.Duration(0)
				most := 45 * time.Second
				if c.rare {
					least, most = 45*time.Second, 135*time.Second
				}
				ours, theirs := gone(func() {})
				if ours > most || theirs > most || max(ours, theirs) < least {
					t.Errorf("a dead path was noticed after %v and %v, want %v to %v", ours, theirs, least, most)
				}
				ours, _ = gone(func() { open(t, x, y.ID(), echoProtocol).Write([]byte("hello")) })
				if ours > 45*time.Second {
					t.Errorf("that nothing arrives was noticed after %v", ours)
				}
			})
		})
	}
}

// watchedNetwork says that it notices when a host is gone. It does not.
type watchedNetwork struct{ *simnet.Host }

func (watchedNetwork) Watches() bool { return true }

// TestDNS dials by names: dns4, and dnsaddr with a record for somebody else.
func TestDNS(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := simnet.New(simnet.Config{})
		defer n.Close()
		x, y := simHost(t, n, "10.0.0.1"), simHost(t, n, "10.0.0.2")
		defer y.Close()
		defer x.Close()
		n.SetDNS("y.example", "10.0.0.2")
		n.SetTXT("_dnsaddr.net.example",
			"dnsaddr=/ip4/10.0.0.1/tcp/4001/p2p/"+x.ID().String(),
			"dnsaddr=/dns4/y.example/tcp/4001/p2p/"+y.ID().String())
		for _, a := range []string{"/dns4/y.example/tcp/4001", "/dnsaddr/net.example"} {
			c, err := x.Dial(t.Context(), peer.AddrInfo{ID: y.ID(), Addrs: []ma.Multiaddr{ma.StringCast(a)}})
			if err != nil {
				t.Fatal(err)
			}
			c.Close()
		}
		if _, err := x.Dial(t.Context(), peer.AddrInfo{ID: y.ID(), Addrs: []ma.Multiaddr{ma.StringCast("/dns4/nobody.example/tcp/1")}}); err == nil {
			t.Error("dialed a name that does not exist")
		}
	})
}
