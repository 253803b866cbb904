// Package securitytest holds secure channels to what [security.Protocol] promises.
// It has a connection in memory too, [Pipe].
package securitytest

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/plexus-p2p/plexus/peer"
	"github.com/plexus-p2p/plexus/security"
)

// Config says what is tested.
type Config struct {
	// New makes a protocol with settings that suit both ends.
	New func() security.Protocol

	// Plain says that the protocol proves and encrypts nothing, as plaintext.
	Plain bool

	// NoMuxers says that the handshake agrees on no muxer.
	NoMuxers bool

	// ServerChooses says that the server's order of muxers counts.
	ServerChooses bool
}

// Test runs the suite.
func Test(t *testing.T, cfg Config) {
	s := &suite{Config: cfg, a: key(t, peer.Ed25519), b: key(t, peer.Ed25519)}
	for _, c := range []struct {
		name string
		f    func(*testing.T)
	}{
		{"Handshake", s.handshake},
		{"Shared", s.shared},
		{"WrongPeer", s.wrongPeer},
		{"NoKey", s.noKey},
		{"Muxers", s.muxers},
		{"Cancel", s.cancel},
		{"OneByteReads", s.oneByteReads},
		{"EarlyData", s.earlyData},
		{"Cut", s.cut},
		{"Flip", s.flip},
		{"Garbage", s.garbage},
		{"Transfer", s.transfer},
		{"Concurrent", s.concurrent},
		{"HalfClose", s.halfClose},
		{"Close", s.close},
		{"ReadDeadline", s.readDeadline},
		{"WriteDeadline", s.writeDeadline},
		{"CloseWriteAfterDeadline", s.closeWriteAfterDeadline},
		{"WriteError", s.writeError},
		{"Tamper", s.tamper},
		{"Reorder", s.reorder},
		{"Truncate", s.truncate},
		{"Records", s.records},
	} {
		t.Run(c.name, c.f)
	}
}

type suite struct {
	Config
	a, b peer.PrivKey // of client and server
}

func key(t testing.TB, kind peer.KeyType) peer.PrivKey {
	t.Helper()
	k, err := peer.GenerateKey(kind)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// client and server are what the two ends bring, unless a test says otherwise.
func (s *suite) client() security.Handshake {
	return security.Handshake{Key: s.a, Client: true, Want: s.b.ID()}
}

func (s *suite) server() security.Handshake { return security.Handshake{Key: s.b} }

// end is what came of a handshake.
type end struct {
	*security.Conn
	err error
}

// secure runs one end's handshake, and closes the connection if it fails, as
// callers do.
func secure(ctx context.Context, p security.Protocol, c net.Conn, h security.Handshake) end {
	sc, err := p.Secure(ctx, c, h)
	if err != nil {
		c.Close()
	}
	return end{sc, err}
}

// both runs a handshake between two connections.
func (s *suite) both(ctx context.Context, a, b net.Conn, ah, bh security.Handshake) (client, server end) {
	var wg sync.WaitGroup
	wg.Go(func() { server = secure(ctx, s.New(), b, bh) })
	client = secure(ctx, s.New(), a, ah)
	wg.Wait()
	return client, server
}

// over returns a secured pair that runs over the two connections.
func (s *suite) over(t testing.TB, a, b net.Conn) (client, server *security.Conn) {
	t.Helper()
	c, v := s.both(t.Context(), a, b, s.client(), s.server())
	if c.err != nil || v.err != nil {
		t.Fatalf("handshake: client %v, server %v", c.err, v.err)
	}
	t.Cleanup(func() { c.Close(); v.Close() })
	return c.Conn, v.Conn
}

func (s *suite) pair(t testing.TB) (client, server *security.Conn) {
	t.Helper()
	a, b := Pipe()
	return s.over(t, a, b)
}

func (s *suite) handshake(t *testing.T) {
	kinds := []peer.KeyType{peer.RSA, peer.Ed25519, peer.Secp256k1, peer.ECDSA}
	keys := make([]peer.PrivKey, len(kinds))
	for i, k := range kinds {
		keys[i] = key(t, k)
	}
	for _, ck := range keys {
		for _, sk := range keys {
			t.Run(fmt.Sprintf("%s to %s", ck.Type(), sk.Type()), func(t *testing.T) {
				a, b := Pipe()
				c, v := s.both(t.Context(), a, b,
					security.Handshake{Key: ck, Client: true, Want: sk.ID()}, security.Handshake{Key: sk})
				if c.err != nil || v.err != nil {
					t.Fatalf("client %v, server %v", c.err, v.err)
				}
				defer c.Close()
				defer v.Close()
				for _, e := range []struct {
					name string
					end
					other peer.PrivKey
				}{{"client", c, sk}, {"server", v, ck}} {
					if e.Peer != e.other.ID() || !e.Key.Equal(e.other.Public()) {
						t.Errorf("%s met %s with key %v, want %s", e.name, e.Peer, e.Key.Type(), e.other.ID())
					}
					if e.Muxer != "" {
						t.Errorf("%s has muxer %q without asking for one", e.name, e.Muxer)
					}
				}
				talk(t, c.Conn, v.Conn)
				talk(t, v.Conn, c.Conn)
			})
		}
	}
	t.Run("anybody", func(t *testing.T) {
		a, b := Pipe()
		h := s.client()
		h.Want = ""
		c, v := s.both(t.Context(), a, b, h, s.server())
		if c.err != nil || v.err != nil {
			t.Fatalf("client %v, server %v", c.err, v.err)
		}
		if c.Peer != s.b.ID() {
			t.Errorf("client met %s, want %s", c.Peer, s.b.ID())
		}
	})
}

// talk sends a message from one end to the other.
func talk(t testing.TB, from, to net.Conn) {
	t.Helper()
	const msg = "through the channel"
	if _, err := io.WriteString(from, msg); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, len(msg))
	if _, err := io.ReadFull(to, got); err != nil {
		t.Fatal(err)
	}
	if string(got) != msg {
		t.Fatalf("got %q, want %q", got, msg)
	}
}

// One value serves all connections of a host, at once and with several keys.
func (s *suite) shared(t *testing.T) {
	p := s.New()
	var wg sync.WaitGroup
	for i := range 8 {
		ck, sk := s.a, s.b
		if i%2 == 1 {
			ck, sk = sk, ck
		}
		wg.Go(func() {
			a, b := Pipe()
			wg.Go(func() {
				if e := secure(t.Context(), p, b, security.Handshake{Key: sk}); e.err != nil {
					t.Error(e.err)
				} else if e.Peer != ck.ID() {
					t.Errorf("server met %s, want %s", e.Peer, ck.ID())
				}
			})
			if e := secure(t.Context(), p, a, security.Handshake{Key: ck, Client: true, Want: sk.ID()}); e.err != nil {
				t.Error(e.err)
			} else if e.Peer != sk.ID() {
				t.Errorf("client met %s, want %s", e.Peer, sk.ID())
			}
		})
	}
	wg.Wait()
}

func (s *suite) wrongPeer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := Pipe()
		h := s.client()
		h.Want = key(t, peer.Ed25519).ID()
		c, v := s.both(t.Context(), a, b, h, s.server())
		var m *security.MismatchError
		if !errors.As(c.err, &m) {
			t.Fatalf("client: got %v, want a MismatchError", c.err)
		}
		if m.Want != h.Want || m.Got != s.b.ID() {
			t.Errorf("client: wanted %s and got %s, want %s and %s", m.Want, m.Got, h.Want, s.b.ID())
		}
		wantFailed(t, "client", c.err)
		for _, id := range []peer.ID{h.Want, s.b.ID()} {
			if !strings.Contains(c.err.Error(), id.String()) {
				t.Errorf("client: %q does not name %s", c.err, id)
			}
		}
		// The server learns at once that it is not wanted: from the handshake, or from
		// the connection if its part of the handshake was over before.
		if v.err == nil {
			_, v.err = v.Read(make([]byte, 1))
			if v.err == nil {
				t.Fatal("the server read something")
			}
		} else {
			wantFailed(t, "server", v.err)
		}
		if errors.As(v.err, &m) {
			t.Errorf("server: %v is the client's finding", v.err)
		}
	})
}

func wantFailed(t testing.TB, who string, err error) {
	t.Helper()
	if !errors.Is(err, security.ErrHandshake) {
		t.Errorf("%s: got %v, want security.ErrHandshake", who, err)
	}
}

func (s *suite) noKey(t *testing.T) {
	for _, client := range []bool{true, false} {
		a, _ := Pipe()
		_, err := s.New().Secure(t.Context(), a, security.Handshake{Client: client})
		wantFailed(t, fmt.Sprintf("client %v", client), err)
	}
}

// "The multiplexer to use is determined by picking the first item from the
// initiator's list that both parties support."
// https://github.com/libp2p/specs/blob/master/connections/inlined-muxer-negotiation.md
func (s *suite) muxers(t *testing.T) {
	many := make([]string, 200)
	for i := range many {
		many[i] = fmt.Sprintf("/muxer/%d", i)
	}
	for _, c := range []struct {
		name           string
		client, server []string
		want           string
	}{
		{"one", []string{"/yamux/1.0.0"}, []string{"/yamux/1.0.0"}, "/yamux/1.0.0"},
		{"client's order", []string{"/yamux/1.0.0", "/mplex/6.7.0"}, []string{"/mplex/6.7.0", "/yamux/1.0.0"}, "/yamux/1.0.0"},
		{"second choice", []string{"/x", "/mplex/6.7.0"}, []string{"/y", "/mplex/6.7.0"}, "/mplex/6.7.0"},
		{"client silent", nil, []string{"/yamux/1.0.0"}, ""},
		{"server silent", []string{"/yamux/1.0.0"}, nil, ""},
		{"both silent", nil, nil, ""},
		{"no overlap", []string{"/yamux/1.0.0"}, []string{"/mplex/6.7.0"}, ""},
		{"more than fit", many, many, "/muxer/0"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if s.NoMuxers {
				c.want = ""
			}
			if s.ServerChooses {
				c.client, c.server = c.server, c.client
			}
			a, b := Pipe()
			ah, bh := s.client(), s.server()
			ah.Muxers, bh.Muxers = c.client, c.server
			cl, sv := s.both(t.Context(), a, b, ah, bh)
			if cl.err != nil || sv.err != nil {
				t.Fatalf("client %v, server %v", cl.err, sv.err)
			}
			if cl.Muxer != c.want || sv.Muxer != c.want {
				t.Errorf("client has %q, server %q, want %q", cl.Muxer, sv.Muxer, c.want)
			}
			talk(t, cl.Conn, sv.Conn)
		})
	}
}

// size returns how many bytes client and server send in a handshake. It differs a
// little from run to run where signatures do.
func (s *suite) size(t testing.TB) (client, server int) {
	t.Helper()
	a, b := Pipe()
	ca, cb := count(a), count(b)
	c, v := s.both(t.Context(), ca, cb, s.client(), s.server())
	if c.err != nil || v.err != nil {
		t.Fatalf("client %v, server %v", c.err, v.err)
	}
	return ca.written(), cb.written()
}

// offsets calls f for faults at some or all of the offsets of a handshake.
func (s *suite) offsets(t *testing.T, at int, f func(t *testing.T, client bool, off int)) {
	t.Helper()
	cn, sn := s.size(t)
	for _, d := range []struct {
		client bool
		n      int
	}{{true, cn}, {false, sn}} {
		step := max(1, d.n/at)
		for off := 0; off < d.n; off += step {
			f(t, d.client, off)
		}
		f(t, d.client, d.n-1)
	}
}

// spoil puts a fault into what one of two ends writes.
func spoil(a, b net.Conn, client bool, kind func(net.Conn, int) *faulty, off int) (ac, bc net.Conn, fault *faulty) {
	if client {
		fault = kind(a, off)
		return fault, b, fault
	}
	fault = kind(b, off)
	return a, fault, fault
}

// A peer that falls silent at any point is left when the context ends.
func (s *suite) cancel(t *testing.T) {
	s.offsets(t, 12, func(t *testing.T, client bool, off int) {
		for _, mode := range []error{context.Canceled, context.DeadlineExceeded} {
			synctest.Test(t, func(t *testing.T) {
				a, b := Pipe()
				defer a.Close()
				defer b.Close()
				ac, bc, fault := spoil(a, b, client, stall, off)
				ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
				if mode == context.Canceled {
					ctx, cancel = context.WithCancel(t.Context())
					time.AfterFunc(10*time.Second, cancel)
				}
				defer cancel()
				start := time.Now()
				c, v := s.both(ctx, ac, bc, s.client(), s.server())
				if !fault.done() {
					return
				}
				if took := time.Since(start); took != 10*time.Second {
					t.Errorf("client %v, off %d: took %v", client, off, took)
				}
				stalled := v.err // the end that heard nothing
				if !client {
					stalled = c.err
				}
				if !errors.Is(stalled, mode) || !errors.Is(stalled, security.ErrHandshake) {
					t.Errorf("client %v, off %d: got %v, want %v and security.ErrHandshake", client, off, stalled, mode)
				}
			})
		}
	})
	t.Run("before", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			for _, h := range []security.Handshake{s.client(), s.server()} {
				a, b := Pipe()
				ctx, cancel := context.WithCancelCause(t.Context())
				why := errors.New("why")
				cancel(why)
				_, err := s.New().Secure(ctx, a, h)
				if !errors.Is(err, why) {
					t.Errorf("client %v: got %v, want the cause", h.Client, err)
				}
				// "c stays the caller's"
				if _, err := a.Write([]byte{1}); err != nil {
					t.Errorf("client %v: the connection was closed, or kept its deadline: %v", h.Client, err)
				}
				b.Close()
			}
		})
	})
}

func (s *suite) oneByteReads(t *testing.T) {
	a, b := Pipe()
	a.MaxRead, b.MaxRead = 1, 1
	c, v := s.over(t, a, b)
	talk(t, c, v)
	talk(t, v, c)
}

// What a client sends right behind its handshake arrives, though the server reads it
// together with the handshake.
func (s *suite) earlyData(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := Pipe()
		var c end
		done := make(chan struct{})
		go func() {
			defer close(done)
			c = secure(t.Context(), s.New(), a, s.client())
			if c.err == nil {
				io.WriteString(c, "early")
				c.Conn.Conn.(interface{ CloseWrite() error }).CloseWrite()
			}
		}()
		slow := &slowReader{Conn: b}
		v := secure(t.Context(), s.New(), slow, s.server())
		<-done
		if c.err != nil || v.err != nil {
			t.Fatalf("client %v, server %v", c.err, v.err)
		}
		got, err := io.ReadAll(v)
		if string(got) != "early" || err != nil {
			t.Errorf("got %q, %v", got, err)
		}
	})
}

// slowReader lets everything arrive before it reads.
type slowReader struct{ net.Conn }

func (c *slowReader) Read(p []byte) (int, error) {
	time.Sleep(time.Second)
	return c.Conn.Read(p)
}

// A handshake that ends at any byte fails, at the end that misses bytes.
func (s *suite) cut(t *testing.T) {
	s.offsets(t, every(t), func(t *testing.T, client bool, off int) {
		a, b := Pipe()
		ac, bc, fault := spoil(a, b, client, cut, off)
		c, v := s.both(t.Context(), ac, bc, s.client(), s.server())
		if !fault.done() {
			return
		}
		err := v.err
		if !client {
			err = c.err
		}
		wantFailed(t, fmt.Sprintf("client cut %v, off %d", client, off), err)
		if !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("client cut %v, off %d: got %v, want io.ErrUnexpectedEOF", client, off, err)
		}
	})
}

// every is how many offsets of a handshake are tried.
func every(t *testing.T) int {
	if testing.Short() {
		return 50
	}
	return 1 << 20
}

// A handshake in which a bit was changed does not succeed at both ends, or the bit did
// not matter.
func (s *suite) flip(t *testing.T) {
	if s.Plain {
		return // nothing is authenticated
	}
	ah, bh := s.client(), s.server()
	ah.Muxers, bh.Muxers = []string{"/yamux/1.0.0", "/mplex/6.7.0"}, []string{"/mplex/6.7.0", "/yamux/1.0.0"}
	harmless := 0
	s.offsets(t, every(t)/4, func(t *testing.T, client bool, off int) {
		synctest.Test(t, func(t *testing.T) {
			a, b := Pipe()
			ac, bc, fault := spoil(a, b, client, flip, off)
			// A changed length may have an end wait for more.
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			c, v := s.both(ctx, ac, bc, ah, bh)
			if c.err == nil && v.err == nil && fault.done() {
				// It must have been a byte without meaning, such as TLS has some.
				if c.Peer != s.b.ID() || v.Peer != s.a.ID() || c.Muxer != v.Muxer {
					t.Errorf("client %v, off %d: both ends are content and disagree", client, off)
				}
				talk(t, c.Conn, v.Conn)
				talk(t, v.Conn, c.Conn)
				harmless++
			}
			for _, e := range []end{c, v} {
				if e.err != nil {
					wantFailed(t, fmt.Sprintf("client %v, off %d", client, off), e.err)
				} else {
					e.Close()
				}
			}
		})
	})
	if harmless > maxHarmless {
		t.Errorf("%d bytes of the handshake may be changed, want at most %d", harmless, maxHarmless)
	}
}

// maxHarmless is how many bytes of a handshake may be without meaning.
const maxHarmless = 10

// Whatever a peer says instead of a handshake, it fails or ends with its context.
func (s *suite) garbage(t *testing.T) {
	const much = 70 << 10
	random := make([]byte, much)
	rand.NewChaCha8([32]byte{7}).Read(random)
	for name, said := range map[string][]byte{
		"random":   random,
		"zeros":    make([]byte, much),
		"ones":     bytes.Repeat([]byte{0xff}, much),
		"one byte": {0x80},
		"HTTP":     []byte("GET / HTTP/1.1\r\n" + strings.Repeat("X", much)),
	} {
		for _, h := range []security.Handshake{s.client(), s.server()} {
			t.Run(fmt.Sprintf("%s, client %v", name, h.Client), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					a, b := Pipe()
					ctx, cancel := context.WithTimeout(t.Context(), time.Second)
					defer cancel()
					go io.Copy(io.Discard, b)
					b.Write(said)
					wantFailed(t, name, secure(ctx, s.New(), a, h).err)
					b.Close()
				})
			})
		}
	}
}

// pattern is a source of bytes that both ends know.
func pattern(seed byte) *rand.ChaCha8 { return rand.NewChaCha8([32]byte{seed}) }

// send writes n bytes of a pattern to c in writes of odd sizes.
func send(c net.Conn, seed byte, n int) error {
	src, sizes := pattern(seed), rand.New(rand.NewPCG(uint64(seed), 1))
	buf := make([]byte, 400<<10)
	for n > 0 {
		k := min(n, 1+sizes.IntN(1<<(1+sizes.IntN(18)))) // small ones as often as large ones
		if sizes.IntN(20) == 0 {
			k = min(n, len(buf))
		}
		src.Read(buf[:k])
		if m, err := c.Write(buf[:k]); err != nil || m != k {
			return fmt.Errorf("write of %d bytes: %d, %w", k, m, err)
		}
		n -= k
	}
	return nil
}

// receive reads n bytes of a pattern from c in reads of odd sizes.
func receive(c net.Conn, seed byte, n int) error {
	src, sizes := pattern(seed), rand.New(rand.NewPCG(uint64(seed), 2))
	buf, want := make([]byte, 200<<10), make([]byte, 200<<10)
	records, _ := c.(security.RecordReader)
	for n > 0 {
		b := buf[:1+sizes.IntN(1<<(1+sizes.IntN(17)))]
		if records != nil && sizes.IntN(4) == 0 {
			r, err := records.ReadRecord()
			if err != nil {
				return err
			}
			b = r
		} else {
			k, err := c.Read(b)
			if err != nil {
				return err
			}
			b = b[:k]
		}
		src.Read(want[:len(b)])
		if !bytes.Equal(b, want[:len(b)]) {
			return fmt.Errorf("%d bytes before the end: wrong bytes", n)
		}
		clear(b) // they are ours now
		n -= len(b)
	}
	return nil
}

func (s *suite) transfer(t *testing.T) {
	size := 10 << 20
	if testing.Short() {
		size = 2 << 20
	}
	c, v := s.pair(t)
	var wg sync.WaitGroup
	for i, f := range []func() error{
		func() error { return send(c.Conn, 1, size) },
		func() error { return send(v.Conn, 2, size) },
		func() error { return receive(v.Conn, 1, size) },
		func() error { return receive(c.Conn, 2, size) },
	} {
		wg.Go(func() {
			if err := f(); err != nil {
				t.Errorf("%d: %v", i, err)
				c.Close()
				v.Close()
			}
		})
	}
	wg.Wait()
}

// Writes of several goroutines follow each other whole, whatever their sizes; reads
// of several goroutines lose nothing.
func (s *suite) concurrent(t *testing.T) {
	const writers, messages = 4, 20
	c, v := s.pair(t)
	var wg sync.WaitGroup
	total := 0
	for w := range writers {
		sizes := rand.New(rand.NewPCG(uint64(w), 3))
		var msgs [][]byte
		for range messages {
			m := bytes.Repeat([]byte{byte(w)}, 5+sizes.IntN(1<<(1+sizes.IntN(17))))
			binary.BigEndian.PutUint32(m[1:], uint32(len(m)))
			msgs = append(msgs, m)
			total += len(m)
		}
		for _, from := range []net.Conn{c, v} {
			wg.Go(func() {
				for _, m := range msgs {
					if _, err := from.Write(m); err != nil {
						t.Error(err)
						return
					}
				}
			})
		}
	}
	wg.Go(func() { // one reader sees the order
		defer func() {
			if t.Failed() {
				c.Close() // the other goroutines must not wait for ever
				v.Close()
			}
		}()
		var head [5]byte
		for range writers * messages {
			if _, err := io.ReadFull(v, head[:]); err != nil {
				t.Error(err)
				return
			}
			body := make([]byte, binary.BigEndian.Uint32(head[1:])-5)
			if _, err := io.ReadFull(v, body); err != nil {
				t.Error(err)
				return
			}
			if n := bytes.Count(body, head[:1]); n != len(body) {
				t.Errorf("a message of writer %d has %d bytes of others", head[0], len(body)-n)
				return
			}
		}
	})
	var mu sync.Mutex
	left := total
	for range 4 { // four readers see the bytes
		wg.Go(func() {
			b := make([]byte, 3000)
			for {
				n, err := c.Read(b)
				mu.Lock()
				left -= n
				done := left == 0
				mu.Unlock()
				if done {
					c.SetReadDeadline(time.Unix(1, 0)) // for the other three
				}
				if err != nil {
					return
				}
			}
		})
	}
	wg.Wait()
	if left != 0 {
		t.Errorf("%d bytes were not read", left)
	}
}

func (s *suite) halfClose(t *testing.T) {
	for _, swap := range []bool{false, true} {
		c, v := s.pair(t)
		if swap {
			c, v = v, c
		}
		closer, ok := c.Conn.(interface{ CloseWrite() error })
		if !ok {
			t.Fatal("no CloseWrite")
		}
		talk(t, c, v)
		io.WriteString(c, "last words")
		if err := closer.CloseWrite(); err != nil {
			t.Fatal(err)
		}
		if got, err := io.ReadAll(v); string(got) != "last words" || err != nil {
			t.Errorf("got %q, %v, want the last words and EOF", got, err)
		}
		if n, err := v.Read(make([]byte, 1)); n != 0 || err != io.EOF {
			t.Errorf("a second read gave %d, %v, want EOF", n, err)
		}
		if _, err := c.Write([]byte("more")); !errors.Is(err, net.ErrClosed) {
			t.Errorf("a write after CloseWrite: got %v, want net.ErrClosed", err)
		}
		talk(t, v, c)
	}
}

func (s *suite) close(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, _ := s.pair(t)
		var wg sync.WaitGroup
		wg.Go(func() {
			if _, err := c.Read(make([]byte, 1)); !errors.Is(err, net.ErrClosed) {
				t.Errorf("read: got %v, want net.ErrClosed", err)
			}
		})
		wg.Go(func() {
			if _, err := c.Write(make([]byte, 10*pipeSize)); err == nil {
				t.Error("a write succeeded that nobody reads")
			}
		})
		synctest.Wait()
		if err := c.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
		c.Close()
		wg.Wait()
		if _, err := c.Write([]byte{1}); !errors.Is(err, net.ErrClosed) {
			t.Errorf("write after close: got %v, want net.ErrClosed", err)
		}
		if _, err := c.Read(make([]byte, 1)); !errors.Is(err, net.ErrClosed) {
			t.Errorf("read after close: got %v, want net.ErrClosed", err)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		c, v := s.pair(t)
		io.WriteString(c, "last words")
		c.Close()
		if got, err := io.ReadAll(v); string(got) != "last words" || err != nil {
			t.Errorf("got %q, %v, want the last words and EOF", got, err)
		}
	})
}

// gate is a connection that holds what is written to it.
type gate struct {
	net.Conn
	held [][]byte // of each write
	shut bool
}

func (g *gate) Write(p []byte) (int, error) {
	if !g.shut {
		return g.Conn.Write(p)
	}
	g.held = append(g.held, bytes.Clone(p))
	return len(p), nil
}

func (g *gate) CloseWrite() error { return g.Conn.(interface{ CloseWrite() error }).CloseWrite() }

// take returns what f writes to the connection below.
func (g *gate) take(f func()) []byte {
	g.shut, g.held = true, nil
	f()
	g.shut = false
	return bytes.Join(g.held, nil)
}

func (s *suite) gated(t testing.TB) (client, server *security.Conn, wire *gate) {
	t.Helper()
	a, b := Pipe()
	wire = &gate{Conn: a}
	client, server = s.over(t, wire, b)
	return client, server, wire
}

// A read that ends at its deadline loses nothing, wherever a record stands.
func (s *suite) readDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, v, wire := s.gated(t)
		defer v.Close()
		const msg = "in parts"
		for off := 0; ; off++ {
			sent := wire.take(func() { io.WriteString(c, msg) })
			if off == len(sent) {
				break
			}
			wire.Write(sent[:off])
			got := make([]byte, 0, 100)
			for range 2 {
				v.SetReadDeadline(time.Now().Add(time.Second))
				start := time.Now()
				n, err := v.Read(got[len(got):cap(got)])
				if s.Plain { // which has no records
					got = got[:len(got)+n]
					continue
				}
				if n != 0 || !errors.Is(err, os.ErrDeadlineExceeded) || time.Since(start) != time.Second {
					t.Fatalf("after %d bytes: %d, %v after %v, want a timeout after 1s", off, n, err, time.Since(start))
				}
				var ne net.Error
				if !errors.As(err, &ne) || !ne.Timeout() {
					t.Fatalf("after %d bytes: %v is no timeout of net.Error", off, err)
				}
			}
			v.SetReadDeadline(time.Time{})
			wire.Write(sent[off:])
			n, err := v.Read(got[len(got):cap(got)])
			if got = got[:len(got)+n]; err != nil || string(got) != msg {
				t.Fatalf("after %d bytes: %q, %v, want %q", off, got, err, msg)
			}
		}
	})
	synctest.Test(t, func(t *testing.T) { // a deadline wakes every reader
		_, v := s.pair(t)
		var wg sync.WaitGroup
		for range 3 {
			wg.Go(func() {
				if _, err := v.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
					t.Errorf("got %v, want a timeout", err)
				}
			})
		}
		synctest.Wait()
		v.SetReadDeadline(time.Now().Add(time.Second))
		wg.Wait()
	})
}

// A write that ends at its deadline loses nothing: it goes on with the rest, after any
// number of deadlines, and the peer never takes the middle of a record for its beginning.
func (s *suite) writeDeadline(t *testing.T) {
	for _, size := range []int{4 * pipeSize, pipeSize + 1000, pipeSize} {
		synctest.Test(t, func(t *testing.T) {
			c, v := s.pair(t)
			msg := make([]byte, size)
			pattern(1).Read(msg)
			var got []byte
			for sent := 0; ; {
				c.SetWriteDeadline(time.Now().Add(time.Second))
				n, err := c.Write(msg[sent:])
				if n < 0 || n > len(msg)-sent {
					t.Fatalf("wrote %d of %d bytes", n, len(msg)-sent)
				}
				sent += n
				if err == nil {
					break
				}
				if !errors.Is(err, os.ErrDeadlineExceeded) {
					t.Fatal(err)
				}
				c.SetWriteDeadline(time.Unix(1, 0))
				if n, err := c.Write(msg[sent:]); !errors.Is(err, os.ErrDeadlineExceeded) {
					t.Fatalf("wrote %d bytes, %v after the deadline", n, err)
				} else {
					sent += n
				}
				b := make([]byte, 10_000)
				n, err = io.ReadFull(v, b)
				if err != nil {
					t.Fatal(err)
				}
				got = append(got, b[:n]...)
			}
			go func() {
				c.SetWriteDeadline(time.Time{})
				io.WriteString(c, "more")
				c.Conn.(interface{ CloseWrite() error }).CloseWrite()
			}()
			rest, err := io.ReadAll(v)
			if got = append(got, rest...); err != nil || string(got) != string(msg)+"more" {
				t.Errorf("read %d bytes, %v, want the %d that were written", len(got), err, len(msg)+4)
			}
		})
	}
}

// CloseWrite sends what a deadline left, and can be repeated after another one.
func (s *suite) closeWriteAfterDeadline(t *testing.T) {
	if s.Plain {
		return // nothing is left
	}
	synctest.Test(t, func(t *testing.T) {
		c, v := s.pair(t)
		msg := make([]byte, 2*pipeSize)
		pattern(1).Read(msg)
		c.SetWriteDeadline(time.Now().Add(time.Second))
		n, err := c.Write(msg)
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatalf("write: %d, %v, want a timeout", n, err)
		}
		half := c.Conn.(interface{ CloseWrite() error })
		if err := half.CloseWrite(); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatalf("CloseWrite: %v, want a timeout", err)
		}
		c.SetWriteDeadline(time.Time{})
		go half.CloseWrite()
		if got, err := io.ReadAll(v); err != nil || !bytes.Equal(got, msg[:n]) {
			t.Errorf("read %d bytes, %v, want the %d that were taken", len(got), err, n)
		}
	})
}

// When the connection below fails otherwise, and mends, nothing is written any more.
func (s *suite) writeError(t *testing.T) {
	if s.Plain {
		return // there are no records
	}
	a, b := Pipe()
	f := &faulty{Conn: a, off: 1 << 62}
	c, v := s.over(t, f, b)
	fault := errors.New("fault")
	f.do = func(f *faulty, p []byte, i int) (int, error) {
		f.off = 1 << 62 // once
		n, _ := f.Conn.Write(p[:len(p)-1])
		return n, fault
	}
	f.mu.Lock()
	f.off = f.at
	f.mu.Unlock()
	for range 3 {
		if n, err := c.Write([]byte("all or nothing")); n != 0 || !errors.Is(err, fault) {
			t.Errorf("write: %d, %v, want the fault", n, err)
		}
	}
	f.CloseWrite()
	if got, err := io.ReadAll(v); len(got) > 0 || err == nil {
		t.Errorf("the peer read %q, %v", got, err)
	}
}

// A changed bit of a record is found, and the reader gets nothing from there on.
func (s *suite) tamper(t *testing.T) {
	if s.Plain {
		return // nothing is authenticated
	}
	synctest.Test(t, func(t *testing.T) {
		for off := 0; ; off++ {
			c, v, wire := s.gated(t)
			sent := wire.take(func() { io.WriteString(c, "secret") })
			if off == len(sent) {
				break
			}
			sent[off] ^= 1 << (off % 8)
			wire.Write(sent)
			wire.Write(wire.take(func() { io.WriteString(c, "another") }))
			wire.CloseWrite()
			for range 2 {
				n, err := v.Read(make([]byte, 100))
				if n != 0 || err == nil || err == io.EOF {
					t.Errorf("off %d: %d bytes, %v, want an error", off, n, err)
				}
			}
			v.Close()
		}
	})
}

// A record that comes twice, too early or not at all is found.
func (s *suite) reorder(t *testing.T) {
	if s.Plain {
		return // nothing is authenticated
	}
	for name, order := range map[string][]int{"repeated": {0, 0}, "swapped": {1, 0}, "lost": {0, 2}} {
		c, v, wire := s.gated(t)
		var sent [3][]byte
		for i := range sent {
			sent[i] = wire.take(func() { fmt.Fprintf(c, "record %d", i) })
		}
		for _, i := range order {
			wire.Write(sent[i])
		}
		wire.CloseWrite()
		var got []byte
		var err error
		for err == nil {
			b := make([]byte, 100)
			var n int
			n, err = v.Read(b)
			got = append(got, b[:n]...)
		}
		want := ""
		if order[0] == 0 {
			want = "record 0"
		}
		if string(got) != want || err == io.EOF {
			t.Errorf("%s: got %q, %v, want %q and an error", name, got, err, want)
		}
	}
}

// The end of the connection below is an end between records, and an error within.
func (s *suite) truncate(t *testing.T) {
	if s.Plain {
		return // there are no records
	}
	for off := 0; ; off++ {
		c, v, wire := s.gated(t)
		wire.Write(wire.take(func() { io.WriteString(c, "whole") }))
		sent := wire.take(func() { io.WriteString(c, "cut off") })
		wire.Write(sent[:off])
		wire.CloseWrite()
		want, end := "whole", io.ErrUnexpectedEOF
		switch off {
		case 0:
			end = io.EOF
		case len(sent):
			want, end = "wholecut off", io.EOF
		}
		var got []byte
		var err error
		for err == nil {
			b := make([]byte, 100)
			var n int
			n, err = v.Read(b)
			got = append(got, b[:n]...)
		}
		if string(got) != want || err != end {
			t.Errorf("%d of %d bytes: got %q, %v, want %q, %v", off, len(sent), got, err, want, end)
		}
		if off == len(sent) {
			return
		}
	}
}

// Reads and records take turns.
func (s *suite) records(t *testing.T) {
	c, v := s.pair(t)
	r, ok := v.Conn.(security.RecordReader)
	if !ok {
		return // no ReadRecord
	}
	for _, m := range []string{"first", "second", "third"} {
		io.WriteString(c, m)
	}
	b := make([]byte, 2)
	v.Read(b)
	for i, want := range []string{"rst", "second", "third"} {
		got, err := r.ReadRecord()
		if string(got) != want || err != nil {
			t.Errorf("record %d: got %q, %v, want %q", i, got, err, want)
		}
		clear(got[:cap(got)]) // the caller may change it
	}
	c.Close()
	if got, err := r.ReadRecord(); len(got) > 0 || err != io.EOF {
		t.Errorf("after the end: got %q, %v, want EOF", got, err)
	}
}
