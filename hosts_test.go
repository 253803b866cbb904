package plexus_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	ma "github.com/multiformats/go-multiaddr"

	"github.com/plexus-p2p/plexus"
	"github.com/plexus-p2p/plexus/muxer"
	"github.com/plexus-p2p/plexus/muxer/mplex"
	"github.com/plexus-p2p/plexus/muxer/yamux"
	"github.com/plexus-p2p/plexus/peer"
	"github.com/plexus-p2p/plexus/security"
	"github.com/plexus-p2p/plexus/security/noise"
	"github.com/plexus-p2p/plexus/security/plaintext"
	"github.com/plexus-p2p/plexus/security/tls"
	"github.com/plexus-p2p/plexus/transport"
	"github.com/plexus-p2p/plexus/transport/memory"
	"github.com/plexus-p2p/plexus/transport/tcp"
)

// kind is one way to make a host.
type kind struct {
	pipes    transport.Pipes
	listen   string
	security security.Protocol
	muxer    muxer.Muxer
}

func (k kind) host(t testing.TB) *plexus.Host {
	t.Helper()
	h := makeHost(t, plexus.Config{
		Pipes:    []transport.Pipes{k.pipes},
		Security: []security.Protocol{k.security},
		Muxers:   []muxer.Muxer{k.muxer},
	})
	if err := h.Listen(t.Context(), ma.StringCast(k.listen)); err != nil {
		t.Fatal(err)
	}
	return h
}

func makeHost(t testing.TB, cfg plexus.Config) *plexus.Host {
	t.Helper()
	if cfg.Key.IsZero() {
		key, err := peer.GenerateKey(peer.Ed25519)
		if err != nil {
			t.Fatal(err)
		}
		cfg.Key = key
	}
	h, err := plexus.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.Close() })
	return h
}

// run runs f for each transport, security and muxer.
func run(t *testing.T, f func(t *testing.T, k kind)) {
	for _, tr := range []struct {
		name, listen string
		make         func() transport.Pipes
	}{
		{"tcp", "/ip4/127.0.0.1/tcp/0", func() transport.Pipes { return &tcp.Transport{} }},
		{"memory", "/memory/0", func() transport.Pipes { return new(memory.Network) }},
	} {
		for _, sec := range []security.Protocol{&noise.Protocol{}, &tls.Protocol{}, &plaintext.Protocol{}} {
			for _, mux := range []muxer.Muxer{&yamux.Muxer{}, &mplex.Muxer{}} {
				t.Run(tr.name+sec.ID()+mux.ID(), func(t *testing.T) {
					f(t, kind{tr.make(), tr.listen, sec, mux})
				})
			}
		}
	}
}

// TestHosts is what two hosts do for each other, over everything there is.
func TestHosts(t *testing.T) {
	run(t, func(t *testing.T, k kind) {
		x, y := k.host(t), k.host(t)
		ctx := t.Context()
		y.Handle(echoProtocol, echo)
		y.Handle("/sum", func(ctx context.Context, s *plexus.Stream) error {
			b, err := io.ReadAll(s)
			if err != nil {
				return err
			}
			_, err = fmt.Fprint(s, len(b))
			return err
		})
		y.Handle("/reset", func(ctx context.Context, s *plexus.Stream) error {
			s.Read(make([]byte, 1))
			return errors.New("not today")
		})

		c, err := x.Dial(ctx, y.Info())
		if err != nil {
			t.Fatal(err)
		}
		if c.Peer() != y.ID() || c.Security() != k.security.ID() || c.Muxer() != k.muxer.ID() || c.Inbound() {
			t.Errorf("connected to %s by %s and %s", c.Peer(), c.Security(), c.Muxer())
		}
		if again, _ := x.Dial(ctx, y.Info()); again != c {
			t.Error("a second Dial made a second connection")
		}

		t.Run("echo", func(t *testing.T) {
			s := open(t, x, y.ID(), echoProtocol)
			msg := make([]byte, 1<<20)
			rand.Read(msg)
			go func() {
				for b := msg; len(b) > 0; {
					n := min(len(b), 1+len(b)%65537)
					s.Write(b[:n])
					b = b[n:]
				}
				s.CloseWrite()
			}()
			got, err := io.ReadAll(s)
			if err != nil || !bytes.Equal(got, msg) {
				t.Fatalf("echoed %d bytes of %d: %v", len(got), len(msg), err)
			}
			s.Close()
		})
		t.Run("half close", func(t *testing.T) {
			s := open(t, x, y.ID(), "/sum")
			s.Write(make([]byte, 100_000))
			s.CloseWrite()
			if got, err := io.ReadAll(s); err != nil || string(got) != "100000" {
				t.Fatalf("got %q, %v", got, err)
			}
			s.Close()
		})
		t.Run("reset", func(t *testing.T) {
			s := open(t, x, y.ID(), "/reset")
			s.Write([]byte("x"))
			_, err := io.ReadAll(s)
			if se, ok := errors.AsType[*plexus.StreamError](err); !ok || !se.Remote {
				t.Fatalf("got %v, want a remote StreamError", err)
			}
		})
		t.Run("unknown protocol", func(t *testing.T) {
			s, err := x.Open(ctx, y.ID(), "/nobody/speaks/this")
			if err == nil {
				_, err = s.Read(make([]byte, 1))
			}
			if !errors.Is(err, plexus.ErrNotSupported) {
				t.Fatalf("got %v, want ErrNotSupported", err)
			}
			if _, err = x.Open(ctx, y.ID(), "/nor/this", "/nor/that"); !errors.Is(err, plexus.ErrNotSupported) {
				t.Fatalf("got %v, want ErrNotSupported", err)
			}
		})
		t.Run("second choice", func(t *testing.T) {
			s, err := x.Open(ctx, y.ID(), "/echo/2.0.0", echoProtocol)
			if err != nil || s.Protocol() != echoProtocol {
				t.Fatalf("%v", err)
			}
			talk(t, s)
		})
		t.Run("streams", func(t *testing.T) {
			var wg sync.WaitGroup
			for range 100 {
				wg.Go(func() {
					s, err := x.Open(ctx, y.ID(), echoProtocol)
					if err != nil {
						t.Error(err)
						return
					}
					talk(t, s)
				})
			}
			wg.Wait()
		})
		t.Run("the other way", func(t *testing.T) {
			x.Handle(echoProtocol, echo)
			talk(t, open(t, y, x.ID(), echoProtocol))
		})
		t.Run("wrong peer", func(t *testing.T) {
			stranger, _ := peer.GenerateKey(peer.Ed25519)
			_, err := x.Dial(ctx, peer.AddrInfo{ID: stranger.ID(), Addrs: y.Addrs()})
			me, ok := errors.AsType[*plexus.MismatchError](err)
			if !ok || me.Want != stranger.ID() || me.Got != y.ID() {
				t.Fatalf("got %v, want a MismatchError that names both", err)
			}
		})
	})
}

func open(t testing.TB, h *plexus.Host, p peer.ID, proto string) *plexus.Stream {
	t.Helper()
	s, err := h.Open(t.Context(), p, proto)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// talk has one exchange on an echoing stream and closes it.
func talk(t testing.TB, s *plexus.Stream) {
	t.Helper()
	defer s.Close()
	msg := []byte("hello")
	if _, err := s.Write(msg); err != nil {
		t.Error(err)
		return
	}
	got := make([]byte, len(msg))
	if _, err := io.ReadFull(s, got); err != nil || !bytes.Equal(got, msg) {
		t.Errorf("got %q, %v", got, err)
	}
}

// TestCloseDelivers: "20 of 20 times": what was written before Close arrives.
func TestCloseDelivers(t *testing.T) {
	for _, size := range []int{100, 10_000, 200_000} {
		for i := range 20 {
			x, y := tcpHost(t, nil, plexus.Limits{}), tcpHost(t, nil, plexus.Limits{})
			got := make(chan int, 1)
			y.Handle("/take", func(ctx context.Context, s *plexus.Stream) error {
				b, err := io.ReadAll(s)
				if err != nil {
					t.Errorf("%d bytes, run %d: %v", size, i, err)
				}
				got <- len(b)
				return nil
			})
			if _, err := x.Dial(t.Context(), y.Info()); err != nil {
				t.Fatal(err)
			}
			s := open(t, x, y.ID(), "/take")
			if _, err := s.Write(make([]byte, size)); err != nil {
				t.Fatal(err)
			}
			if err := s.CloseWrite(); err != nil {
				t.Fatal(err)
			}
			if err := x.Close(); err != nil {
				t.Fatal(err)
			}
			if n := <-got; n != size {
				t.Fatalf("run %d: %d bytes of %d arrived", i, n, size)
			}
			y.Close()
		}
	}
}

// TestFigureManyConns: nothing grows when many connections come and go.
func TestFigureManyConns(t *testing.T) {
	conns, rounds := 100, 3
	if os.Getenv("PLEXUS_FIGURES") != "" {
		conns, rounds = 1000, 10
	}
	limits := plexus.Limits{ConnsPerPeer: -1, Conns: -1, Handshakes: -1}
	x, y := tcpHost(t, nil, limits), tcpHost(t, nil, limits)
	y.Handle(echoProtocol, echo)
	type sample struct{ goroutines, fds, heap int }
	var first, last sample
	for round := range rounds {
		var wg sync.WaitGroup
		slots := make(chan struct{}, 32)
		var mu sync.Mutex
		var all []*plexus.Conn
		for range conns {
			wg.Go(func() {
				slots <- struct{}{}
				defer func() { <-slots }()
				c, err := x.Dial(t.Context(), peer.AddrInfo{Addrs: y.Addrs()})
				if err != nil {
					t.Error(err)
					return
				}
				s, err := c.Open(t.Context(), echoProtocol)
				if err != nil {
					t.Error(err)
					return
				}
				talk(t, s)
				mu.Lock()
				all = append(all, c)
				mu.Unlock()
			})
		}
		wg.Wait()
		for _, c := range all {
			wg.Go(func() {
				begin := time.Now()
				c.Close()
				if took := time.Since(begin); took >= 2*time.Second {
					t.Errorf("closing took %v: nobody reads", took)
				}
			})
		}
		wg.Wait()
		settled(t, func() bool { return count(x) == 0 && count(y) == 0 && runtime.NumGoroutine() < 40 })
		runtime.GC()
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		last = sample{runtime.NumGoroutine(), descriptors(t), int(m.HeapAlloc)}
		if round == 0 {
			first = last
		}
	}
	t.Logf("after %d connections: %+v; after %d: %+v", conns, first, conns*rounds, last)
	if last.goroutines > first.goroutines+2 || last.fds > first.fds+2 || last.heap > first.heap+1<<20 {
		t.Errorf("from %+v to %+v", first, last)
	}
}

func descriptors(t testing.TB) int {
	d, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return 0 // no /proc on this system
	}
	return len(d)
}

// TestStreamFlood: a peer that opens 10,000 streams gets Limits.Streams of
// them, and other peers keep working.
func TestStreamFlood(t *testing.T) {
	const limit, flood = 100, 10_000
	x, y, z := tcpHost(t, nil, plexus.Limits{}), tcpHost(t, nil, plexus.Limits{Streams: limit}), tcpHost(t, nil, plexus.Limits{})
	y.Handle(echoProtocol, echo)
	var held atomic.Int32
	y.Handle("/hold", func(ctx context.Context, s *plexus.Stream) error {
		held.Add(1)
		<-ctx.Done()
		return nil
	})
	for _, h := range []*plexus.Host{x, z} {
		if _, err := h.Dial(t.Context(), y.Info()); err != nil {
			t.Fatal(err)
		}
	}
	var wg sync.WaitGroup
	var refused atomic.Int32
	for range flood {
		s := open(t, x, y.ID(), "/hold")
		s.Write([]byte("x"))
		wg.Go(func() {
			_, err := s.Read(make([]byte, 1))
			if se, ok := errors.AsType[*plexus.StreamError](err); ok && se.Remote && se.Code == muxer.StreamResourceLimitExceeded {
				refused.Add(1)
			}
		})
	}
	settled(t, func() bool { return refused.Load() == flood-limit })
	if n := held.Load(); n != limit {
		t.Errorf("%d streams are served, want %d", n, limit)
	}
	talk(t, open(t, z, y.ID(), echoProtocol))
	y.Close()
	wg.Wait()
}

// TestDialErrors: a failed dial names every address and why.
func TestDialErrors(t *testing.T) {
	x, y := tcpHost(t, nil, plexus.Limits{}), tcpHost(t, nil, plexus.Limits{})
	addr := y.Addrs()[0]
	y.Close()
	id := y.ID()
	_, err := x.Dial(t.Context(), peer.AddrInfo{ID: id, Addrs: []ma.Multiaddr{addr, ma.StringCast("/ip4/127.0.0.1/udp/1/quic-v1")}})
	de, ok := errors.AsType[*plexus.DialError](err)
	if !ok || len(de.Attempts) != 2 {
		t.Fatalf("got %v", err)
	}
	for _, want := range []string{id.String(), addr.String(), "refused", "no transport"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q does not name %q", err, want)
		}
	}
	if !errors.Is(err, plexus.ErrNoTransport) {
		t.Error("not ErrNoTransport")
	}
	if _, err := x.Open(t.Context(), id, "/x"); !errors.Is(err, plexus.ErrNoAddrs) {
		t.Errorf("got %v, want ErrNoAddrs", err)
	}
	x.Peers().Add(peer.AddrInfo{ID: id, Addrs: []ma.Multiaddr{addr}}, time.Hour)
	if _, err := x.Open(t.Context(), id, "/x"); !errors.Is(err, plexus.ErrBackoff) {
		t.Errorf("got %v, want ErrBackoff", err)
	}
	if _, err := x.Dial(t.Context(), peer.AddrInfo{ID: x.ID(), Addrs: x.Addrs()}); !errors.Is(err, plexus.ErrSelf) {
		t.Errorf("got %v, want ErrSelf", err)
	}
	if _, err := x.Dial(t.Context(), peer.AddrInfo{Addrs: x.Addrs()}); !errors.Is(err, plexus.ErrSelf) {
		t.Errorf("got %v, want ErrSelf", err)
	}
	x.Close()
	if _, err := x.Dial(t.Context(), peer.AddrInfo{ID: id, Addrs: []ma.Multiaddr{addr}}); !errors.Is(err, net.ErrClosed) {
		t.Errorf("got %v, want ErrClosed", err)
	}
}

// TestOneDial: however many ask for a peer, one connection is made.
func TestOneDial(t *testing.T) {
	x, y := tcpHost(t, nil, plexus.Limits{}), tcpHost(t, nil, plexus.Limits{})
	var wg sync.WaitGroup
	for range 50 {
		wg.Go(func() {
			if _, err := x.Dial(t.Context(), y.Info()); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if n := count(x); n != 1 {
		t.Errorf("%d connections", n)
	}
}

// TestTrim: a full table makes room by what is idle for longest, and refuses
// where nothing is.
func TestTrim(t *testing.T) {
	y := tcpHost(t, nil, plexus.Limits{Conns: 3})
	y.Handle(echoProtocol, echo)
	var xs []*plexus.Host
	for range 4 {
		xs = append(xs, tcpHost(t, nil, plexus.Limits{}))
	}
	ctx := t.Context()
	up := make(chan *plexus.Conn, 16)
	y.Notify(func(ev plexus.Event) {
		if ev, ok := ev.(plexus.Connected); ok {
			up <- ev.Conn
		}
	})
	for _, x := range xs[:3] {
		if _, err := x.Dial(ctx, y.Info()); err != nil {
			t.Fatal(err)
		}
		<-up
	}
	busy := open(t, xs[0], y.ID(), echoProtocol)
	busy.Write([]byte("x"))
	io.ReadFull(busy, make([]byte, 1))
	release := y.Protect(xs[1].ID())
	if _, err := xs[3].Dial(ctx, y.Info()); err != nil {
		t.Fatal(err)
	}
	<-up
	settled(t, func() bool { return len(y.ConnsTo(xs[2].ID())) == 0 && count(xs[2]) == 0 })
	if len(y.ConnsTo(xs[0].ID())) == 0 || len(y.ConnsTo(xs[1].ID())) == 0 {
		t.Error("trimmed one that is in use or protected")
	}
	release()
}

// TestListener serves HTTP over streams.
func TestListener(t *testing.T) {
	x, y := tcpHost(t, nil, plexus.Limits{}), tcpHost(t, nil, plexus.Limits{})
	l := y.Listener("/http/1.1")
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "hello ", r.URL.Path) })}
	go srv.Serve(l)
	defer srv.Close()
	if _, err := x.Dial(t.Context(), y.Info()); err != nil {
		t.Fatal(err)
	}
	client := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return x.Open(ctx, y.ID(), "/http/1.1")
	}}}
	resp, err := client.Get("http://peer/world")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if b, _ := io.ReadAll(resp.Body); string(b) != "hello /world" {
		t.Errorf("got %q", b)
	}
	client.CloseIdleConnections()
}

// TestEvents: a watcher hears of connections in order.
func TestEvents(t *testing.T) {
	x, y := tcpHost(t, nil, plexus.Limits{}), tcpHost(t, nil, plexus.Limits{})
	events := x.Watch(t.Context())
	c, err := x.Dial(t.Context(), y.Info())
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
	var got []string
	for ev := range events {
		got = append(got, strings.TrimPrefix(fmt.Sprintf("%T", ev), "plexus."))
		if _, ok := ev.(plexus.Disconnected); ok {
			break
		}
	}
	if want := []string{"Connected", "Dialed", "Disconnected"}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

// TestAllow: the gate ends a connection at each stage.
func TestAllow(t *testing.T) {
	for _, stage := range []plexus.Stage{plexus.StageDial, plexus.StageSecure} {
		no := errors.New("not you")
		y := tcpHost(t, nil, plexus.Limits{})
		x := makeHost(t, plexus.Config{
			Pipes:    []transport.Pipes{&tcp.Transport{}},
			Security: []security.Protocol{&noise.Protocol{}},
			Muxers:   []muxer.Muxer{&yamux.Muxer{}},
			Allow: func(s plexus.Stage, ci plexus.ConnInfo) error {
				if s == stage {
					return no
				}
				return nil
			},
		})
		if _, err := x.Dial(t.Context(), y.Info()); !errors.Is(err, no) {
			t.Errorf("%s: got %v", stage, err)
		}
	}
}

// TestErrorTexts: errors say what happened in words.
func TestErrorTexts(t *testing.T) {
	for _, c := range []struct {
		err  error
		want string
	}{
		{&plexus.StreamError{Code: muxer.StreamResourceLimitExceeded, Remote: true}, "stream reset by the peer: resource limit exceeded"},
		{&plexus.StreamError{Code: 7}, "stream reset by us: code 0x7"},
		{&plexus.ConnError{Code: plexus.CodeShutdown, Remote: true}, "connection closed by the peer: shutdown"},
		{&plexus.ConnError{Err: io.ErrUnexpectedEOF}, "connection closed by us: unexpected EOF"},
	} {
		if got := c.err.Error(); got != c.want {
			t.Errorf("got %q, want %q", got, c.want)
		}
	}
}
