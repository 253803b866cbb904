package identify

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	ma "github.com/multiformats/go-multiaddr"

	"github.com/plexus-p2p/plexus"
	"github.com/plexus-p2p/plexus/internal/pb"
	"github.com/plexus-p2p/plexus/peer"
	"github.com/plexus-p2p/plexus/plexustest"
	"github.com/plexus-p2p/plexus/transport/memory"
)

func newKey(t testing.TB) peer.PrivKey {
	t.Helper()
	key, err := peer.GenerateKey(peer.Ed25519)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// hosts runs f with two hosts without identify, not connected, in virtual time.
func hosts(t *testing.T, f func(t *testing.T, x, y *plexus.Host)) {
	synctest.Test(t, func(t *testing.T) {
		var n memory.Network
		f(t, plexustest.Host(t, &n), plexustest.Host(t, &n))
	})
}

// connect connects x to y and returns the connection as each has it.
func connect(t testing.TB, x, y *plexus.Host) (cx, cy *plexus.Conn) {
	t.Helper()
	cx, err := x.Dial(t.Context(), peer.AddrInfo{Addrs: y.ListenAddrs()}) // without an ID it is always a new one
	if err != nil {
		t.Fatal(err)
	}
	synctest.Wait()
	cs := y.ConnsTo(x.ID())
	return cx, cs[len(cs)-1]
}

// settle gives everything that takes a moment its moment, less than pushDelay.
func settle() { time.Sleep(pushDelay / 3) }

func identity(t testing.TB, c *plexus.Conn) *plexus.Identity {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	id, err := c.WaitIdentity(ctx)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func equalAddrs(a, b []ma.Multiaddr) bool { return slices.EqualFunc(a, b, ma.Multiaddr.Equal) }

// answering serves identify with what a test scripts.
func answering(h *plexus.Host, b []byte) {
	h.Handle(Protocol, func(_ context.Context, s *plexus.Stream) error {
		_, err := s.Write(b)
		return err
	})
}

// frames are the bytes of messages.
func frames(ms ...message) (b []byte) {
	for _, m := range ms {
		b = pb.AppendDelimited(b, m.append(nil))
	}
	return b
}

func raw(as ...ma.Multiaddr) (bs [][]byte) {
	for _, a := range as {
		bs = append(bs, a.Bytes())
	}
	return bs
}

func protocols(ps ...string) (bs [][]byte) {
	for _, p := range ps {
		bs = append(bs, []byte(p))
	}
	return bs
}

func record(t testing.TB, key peer.PrivKey, seq uint64, addrs ...ma.Multiaddr) []byte {
	t.Helper()
	b, err := peer.Record{ID: key.ID(), Seq: seq, Addrs: addrs}.Seal(key)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// push pushes bytes from a peer without identify.
func push(t testing.TB, c *plexus.Conn, b []byte) *plexus.Stream {
	t.Helper()
	s, err := c.Open(t.Context(), PushProtocol)
	if err != nil {
		t.Fatal(err)
	}
	s.Write(b)
	s.CloseWrite()
	return s
}

// isReset reads to the end and tells whether the peer reset the stream.
func isReset(s *plexus.Stream) bool {
	_, err := io.Copy(io.Discard, s)
	se, ok := errors.AsType[*plexus.StreamError](err)
	return ok && se.Remote
}

var (
	addr1 = ma.StringCast("/memory/1001")
	addr2 = ma.StringCast("/memory/1002")
	addr3 = ma.StringCast("/ip4/192.0.2.1/tcp/4001")
)

func TestIdentify(t *testing.T) {
	hosts(t, func(t *testing.T, x, y *plexus.Host) {
		Start(x, Config{Agent: "x/1", ProtocolVersion: "/net/1"})
		Start(y, Config{})
		y.Handle("/echo", nothing)
		begin := time.Now()
		cx, cy := connect(t, x, y)
		of := identity(t, cx)
		if of.Agent != "plexus/devel" || of.Version != "" || !of.Signed {
			t.Errorf("y is %+v", of)
		}
		if want := []string{"/echo", Protocol, PushProtocol}; !slices.Equal(of.Protocols, want) {
			t.Errorf("y speaks %q, want %q", of.Protocols, want)
		}
		if !equalAddrs(of.Addrs, y.Addrs()) || !equalAddrs(x.Peers().Addrs(y.ID()), y.Addrs()) {
			t.Errorf("y is at %v, known as %v, want %v", of.Addrs, x.Peers().Addrs(y.ID()), y.Addrs())
		}
		// "This is the connection source address of the stream-initiating peer as
		// observed by the peer being identified"
		if !of.Observed.Equal(cy.RemoteAddr()) {
			t.Errorf("y sees x at %v, want %v", of.Observed, cy.RemoteAddr())
		}
		if of := identity(t, cy); of.Agent != "x/1" || of.Version != "/net/1" || !of.Observed.Equal(cx.RemoteAddr()) {
			t.Errorf("x is %+v", of)
		}
		if d := time.Since(begin); d > 10*time.Millisecond {
			t.Errorf("took %v", d)
		}
		settle()
		if n := cx.Stats().Streams + cy.Stats().Streams; n != 0 {
			t.Errorf("%d streams are left", n)
		}
	})
}

// A host with more addresses than a message holds tells the first of them.
func TestManyAddrs(t *testing.T) {
	for name, addr := range map[string]string{
		"short": "/ip4/192.0.2.1/tcp/%d",
		"long":  "/dns/" + strings.Repeat("a", 60) + ".example.org/tcp/%d",
	} {
		t.Run(name, func(t *testing.T) {
			hosts(t, func(t *testing.T, x, y *plexus.Host) {
				y.Announce(func([]ma.Multiaddr) (as []ma.Multiaddr) {
					for i := range 500 {
						as = append(as, ma.StringCast(fmt.Sprintf(addr, 1000+i)))
					}
					return as
				})
				Start(x, Config{})
				Start(y, Config{})
				y.Handle("/echo", nothing)
				c, _ := connect(t, x, y)
				id := identity(t, c)
				if n := len(id.Addrs); !id.Signed || n < 20 || n > peer.MaxRecordAddrs || !equalAddrs(id.Addrs, y.Addrs()[:n]) {
					t.Errorf("%d addresses, signed %v: %v", n, id.Signed, id.Addrs)
				}
				if !slices.Contains(id.Protocols, "/echo") {
					t.Errorf("speaks %q", id.Protocols)
				}
			})
		})
	}
}

// Idle connections hold no goroutine of identify.
func TestIdle(t *testing.T) {
	hosts(t, func(t *testing.T, x, y *plexus.Host) {
		Start(x, Config{})
		Start(y, Config{})
		c, _ := connect(t, x, y)
		identity(t, c)
		x.Handle("/new", nothing)
		time.Sleep(time.Minute)
		b := make([]byte, 1<<20)
		if b = b[:runtime.Stack(b, true)]; bytes.Contains(b, []byte("identify.(*service)")) {
			t.Errorf("%s", b)
		}
	})
}

// "Never open a stream for identify more than once per connection"
func TestOnce(t *testing.T) {
	hosts(t, func(t *testing.T, x, y *plexus.Host) {
		var asked, pushed atomic.Int32
		y.Handle(Protocol, func(_ context.Context, s *plexus.Stream) error {
			asked.Add(1)
			_, err := s.Write(frames(message{agent: []byte("y")}))
			return err
		})
		y.Handle(PushProtocol, func(context.Context, *plexus.Stream) error {
			pushed.Add(1)
			return nil
		})
		connect(t, x, y) // before Start, which finds it
		Start(x, Config{})
		settle()
		if asked.Load() != 1 {
			t.Errorf("asked %d times on the connection that was there", asked.Load())
		}
		c, _ := connect(t, x, y)
		identity(t, c)
		x.Handle("/new", nothing)
		time.Sleep(24 * time.Hour)
		if asked.Load() != 2 {
			t.Errorf("asked %d times on two connections", asked.Load())
		}
		if pushed.Load() != 0 { // y did not announce the protocol, though it serves it
			t.Errorf("pushed %d times to one that does not take pushes", pushed.Load())
		}
	})
}

// What a peer may answer, and what of it is believed.
func TestAnswers(t *testing.T) {
	stranger := newKey(t)
	for _, tt := range []struct {
		name   string
		answer func(key peer.PrivKey) []byte
		want   *plexus.Identity // nil: not identified
	}{
		{"little", func(peer.PrivKey) []byte {
			return frames(message{agent: []byte("y")})
		}, &plexus.Identity{Agent: "y"}},
		{"the right key", func(key peer.PrivKey) []byte {
			return frames(message{key: key.Public().Bytes(), agent: []byte("y")})
		}, &plexus.Identity{Agent: "y"}},
		{"wrong key", func(peer.PrivKey) []byte {
			return frames(message{key: stranger.Public().Bytes(), agent: []byte("y")})
		}, nil},
		{"no key at all", func(peer.PrivKey) []byte {
			return frames(message{key: []byte("x"), agent: []byte("y")})
		}, nil},
		{"unsigned", func(peer.PrivKey) []byte {
			return frames(message{addrs: raw(addr1, addr2)})
		}, &plexus.Identity{Addrs: []ma.Multiaddr{addr1, addr2}}},
		// "it MUST use the data contained within it and ignore duplicated fields
		// present in the main identify message"
		{"signed", func(key peer.PrivKey) []byte {
			return frames(message{addrs: raw(addr1), record: record(t, key, 1, addr2)})
		}, &plexus.Identity{Addrs: []ma.Multiaddr{addr2}, Signed: true}},
		{"signed to be nowhere", func(key peer.PrivKey) []byte {
			return frames(message{addrs: raw(addr1), record: record(t, key, 1)})
		}, &plexus.Identity{Signed: true}},
		{"foreign record", func(peer.PrivKey) []byte {
			return frames(message{addrs: raw(addr1), record: record(t, stranger, 1, addr2)})
		}, &plexus.Identity{Addrs: []ma.Multiaddr{addr1}}},
		{"record about somebody else", func(key peer.PrivKey) []byte {
			// protobuf: the last of two fields counts, here in the record's payload
			payload := pb.AppendBytes(pb.AppendBytes(nil, 1, string(stranger.ID())), 3, pb.AppendBytes(nil, 1, addr2.Bytes()))
			b, err := peer.Seal(key, peer.RecordDomain, peer.RecordType, payload)
			if err != nil {
				t.Fatal(err)
			}
			return frames(message{addrs: raw(addr1), record: b})
		}, &plexus.Identity{Addrs: []ma.Multiaddr{addr1}}},
		{"forged record", func(key peer.PrivKey) []byte {
			b := record(t, key, 1, addr2)
			b[len(b)-1] ^= 1
			return frames(message{addrs: raw(addr1), record: b})
		}, &plexus.Identity{Addrs: []ma.Multiaddr{addr1}}},
		{"another purpose", func(key peer.PrivKey) []byte {
			b, err := peer.Seal(key, "libp2p-routing-state", peer.RecordType, []byte("x"))
			if err != nil {
				t.Fatal(err)
			}
			return frames(message{addrs: raw(addr1), record: b})
		}, &plexus.Identity{Addrs: []ma.Multiaddr{addr1}}},
		{"several messages", func(key peer.PrivKey) []byte {
			return frames(
				message{protocols: protocols("/a"), addrs: raw(addr1), agent: []byte("x")},
				message{protocols: protocols("/b", "/c"), agent: []byte("y")},
				message{record: record(t, key, 1, addr2)})
		}, &plexus.Identity{Agent: "y", Protocols: []string{"/a", "/b", "/c"}, Addrs: []ma.Multiaddr{addr2}, Signed: true}},
		{"addresses of another world", func(peer.PrivKey) []byte {
			return frames(message{addrs: [][]byte{{0xff}, addr1.Bytes(), {}}, observed: []byte{0xff, 0xff}})
		}, &plexus.Identity{Addrs: []ma.Multiaddr{addr1}}},
		{"long words", func(peer.PrivKey) []byte {
			long := strings.Repeat("é", maxText+1)
			return frames(message{agent: []byte(long), version: []byte("\xff"), protocols: protocols(long, "/a")})
		}, &plexus.Identity{Agent: strings.Repeat("é", maxText), Version: "\uFFFD", Protocols: []string{"/a"}}},
		{"nothing", func(peer.PrivKey) []byte { return nil }, nil},
		{"half a message", func(peer.PrivKey) []byte { return []byte{5, 1} }, nil},
		{"malformed", func(peer.PrivKey) []byte { return []byte{1, 0xff} }, nil},
		{"too large", func(peer.PrivKey) []byte { return pb.AppendDelimited(nil, make([]byte, maxMessage+1)) }, nil},
		{"too many messages", func(peer.PrivKey) []byte {
			return bytes.Repeat(frames(message{agent: []byte("y")}), maxMessages+1)
		}, nil},
		{"very many protocols", func(peer.PrivKey) []byte {
			return bytes.Repeat(frames(message{protocols: slices.Repeat(protocols("/a"), 1000)}), 1000)
		}, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			hosts(t, func(t *testing.T, x, y *plexus.Host) {
				answering(y, tt.answer(y.Key()))
				Start(x, Config{})
				c, _ := connect(t, x, y)
				settle()
				got := c.Identity()
				switch {
				case tt.want == nil && got != nil:
					t.Errorf("identified as %+v", got)
				case tt.want == nil:
				case got == nil:
					t.Error("not identified")
				case got.Agent != tt.want.Agent || got.Version != tt.want.Version || got.Signed != tt.want.Signed ||
					!slices.Equal(got.Protocols, tt.want.Protocols) || !equalAddrs(got.Addrs, tt.want.Addrs) || got.Observed != nil:
					t.Errorf("got %+v, want %+v", got, tt.want)
				}
				if n := c.Stats().Streams; n != 0 {
					t.Errorf("%d streams are left", n)
				}
				if tt.want == nil && len(x.Peers().Addrs(y.ID())) > 0 {
					t.Error("addresses known of a peer that is not identified")
				}
				// Whatever it says costs the stream, not the connection.
				if len(x.ConnsTo(y.ID())) != 1 {
					t.Error("the connection is gone")
				}
			})
		})
	}
}

// Peers that take their time have five seconds of it.
func TestSlowAnswers(t *testing.T) {
	for name, answer := range map[string]plexus.Handler{
		"never": func(ctx context.Context, s *plexus.Stream) error {
			<-ctx.Done()
			return nil
		},
		"byte by byte": func(_ context.Context, s *plexus.Stream) error {
			for _, c := range frames(full(1)) {
				if _, err := s.Write([]byte{c}); err != nil {
					return err
				}
				time.Sleep(100 * time.Millisecond)
			}
			return nil
		},
		"without end": func(ctx context.Context, s *plexus.Stream) error {
			s.Write(frames(full(1)))
			<-ctx.Done()
			return nil
		},
	} {
		t.Run(name, func(t *testing.T) {
			hosts(t, func(t *testing.T, x, y *plexus.Host) {
				y.Handle(Protocol, answer)
				Start(x, Config{})
				c, _ := connect(t, x, y)
				time.Sleep(timeout - time.Second)
				if n := c.Stats().Streams; n != 1 {
					t.Errorf("%d streams, want one that waits", n)
				}
				time.Sleep(2 * time.Second)
				if n := c.Stats().Streams; n != 0 || c.Identity() != nil {
					t.Errorf("%d streams are left, identified as %v", n, c.Identity())
				}
			})
		})
	}
}

// A peer that asks and does not listen is answered all the same, and reset.
func TestDeafPeer(t *testing.T) {
	hosts(t, func(t *testing.T, x, y *plexus.Host) {
		Start(x, Config{})
		_, cy := connect(t, x, y)
		for range 100 {
			s, err := cy.Open(t.Context(), Protocol)
			if err != nil {
				t.Fatal(err)
			}
			s.CloseWrite()
		}
		settle()
		s, _ := cy.Open(t.Context(), Protocol)
		var sc = newScratch().(*scratch)
		if err := sc.read(s); err != nil || string(sc.m.agent) != "plexus/devel" {
			t.Errorf("got %q, %v", sc.m.agent, err)
		}
	})
}

// Addresses are known for as long as the peer is connected, and a while longer.
func TestRefresh(t *testing.T) {
	hosts(t, func(t *testing.T, x, y *plexus.Host) {
		Start(x, Config{})
		Start(y, Config{})
		c, _ := connect(t, x, y)
		time.Sleep(10 * plexus.TTLConnected)
		if got := x.Peers().Addrs(y.ID()); !equalAddrs(got, y.Addrs()) {
			t.Errorf("while connected: %v", got)
		}
		c.Close()
		time.Sleep(plexus.TTLConnected / 3)
		if got := x.Peers().Addrs(y.ID()); !equalAddrs(got, y.Addrs()) {
			t.Errorf("soon after: %v", got)
		}
		time.Sleep(plexus.TTLConnected)
		if got := x.Peers().Addrs(y.ID()); len(got) != 0 {
			t.Errorf("much later: %v", got)
		}
	})
}

func TestDialable(t *testing.T) {
	all := []string{
		"/ip4/127.0.0.1/tcp/1", "/ip6/::1/tcp/1", "/ip4/10.0.0.1/tcp/1", "/ip4/100.64.0.1/tcp/1", "/ip6/fd00::1/tcp/1",
		"/ip4/192.0.2.1/tcp/1", "/ip6/2001:db8::1/tcp/1", "/dns/example.org/tcp/1", "/ip4/0.0.0.0/tcp/1", "/ip4/224.0.0.1/udp/1",
	}
	for remote, want := range map[string][]string{
		"/ip4/127.0.0.1/tcp/2": all[:8],
		"/ip4/10.0.0.9/tcp/2":  all[2:8],
		"/ip6/fe80::1/tcp/2":   all[2:8],
		"/ip4/192.0.2.9/tcp/2": all[5:8],
		"/memory/1":            all[:8],
	} {
		var addrs []ma.Multiaddr
		for _, a := range all {
			addrs = append(addrs, ma.StringCast(a))
		}
		var got []string
		for _, a := range dialable(addrs, ma.StringCast(remote)) {
			got = append(got, a.String())
		}
		if !slices.Equal(got, want) {
			t.Errorf("from %s: %q, want %q", remote, got, want)
		}
	}
}

func TestNames(t *testing.T) {
	var n names
	a := n.one([]byte("/a"))
	if b := n.all([][]byte{[]byte("/a")})[0]; b != a {
		t.Errorf("got %q", b)
	}
	if allocs := testing.AllocsPerRun(100, func() { n.one([]byte("/a")) }); allocs != 0 {
		t.Errorf("%v allocations for a known name", allocs)
	}
	for i := range 3 * keepNames {
		n.one([]byte{byte(i), byte(i >> 8)})
	}
	if len(n.m) > keepNames {
		t.Errorf("%d names kept", len(n.m))
	}
}

// BenchmarkIdentify is one question and its answer, at both ends: what a
// connection costs. 40 protocols are what a Kubo node has.
func BenchmarkIdentify(b *testing.B) {
	f := asks(b)
	b.ReportAllocs()
	for b.Loop() {
		f()
	}
}

// TestAskAllocs counts a question and its answer, at both ends, streams and all.
func TestAskAllocs(t *testing.T) {
	if n := testing.AllocsPerRun(200, asks(t)); n > askAllocs {
		t.Errorf("%v allocations, at most %v", n, askAllocs)
	}
}

// asks returns a function that asks, and has been run.
func asks(b testing.TB) func() {
	var n memory.Network
	x, y := plexustest.Host(b, &n), plexustest.Host(b, &n)
	s := &service{h: x, guests: make(map[peer.ID]*guest)}
	s.scratches.New = newScratch
	for i := range 40 {
		y.Handle("/kubo/speaks/this/1.0."+string(rune('a'+i)), nothing)
	}
	Start(y, Config{})
	c, err := x.Dial(b.Context(), y.Info())
	if err != nil {
		b.Fatal(err)
	}
	s.guests[y.ID()] = &guest{conns: []*plexus.Conn{c}}
	f := func() {
		if err := s.ask(b.Context(), c); err != nil {
			b.Fatal(err)
		}
	}
	for range 20 { // fill pools
		f()
	}
	return f
}
