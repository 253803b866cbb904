package plexus_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"runtime"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	ma "github.com/multiformats/go-multiaddr"

	"github.com/plexus-p2p/plexus"
	"github.com/plexus-p2p/plexus/muxer"
	"github.com/plexus-p2p/plexus/muxer/mplex"
	"github.com/plexus-p2p/plexus/muxer/yamux"
	"github.com/plexus-p2p/plexus/security"
	"github.com/plexus-p2p/plexus/security/noise"
	"github.com/plexus-p2p/plexus/security/tls"
	"github.com/plexus-p2p/plexus/transport"
	"github.com/plexus-p2p/plexus/transport/memory"
)

// The tests here are peers that mean no good, or have a bad day. Each costs
// itself, and a good peer goes on beside it.

// mangled is a transport whose connections are changed on their way.
type mangled struct {
	transport.Pipes
	mangle func(net.Conn) net.Conn
}

func (m mangled) Dial(ctx context.Context, to ma.Multiaddr) (net.Conn, error) {
	c, err := m.Pipes.Dial(ctx, to)
	if err != nil {
		return nil, err
	}
	return m.mangle(c), nil
}

func memoryHost(t testing.TB, pipes transport.Pipes, limits plexus.Limits) *plexus.Host {
	t.Helper()
	h := makeHost(t, plexus.Config{
		Pipes:    []transport.Pipes{pipes},
		Security: []security.Protocol{&noise.Protocol{}, &tls.Protocol{}},
		Muxers:   []muxer.Muxer{&yamux.Muxer{}, &mplex.Muxer{}},
		Limits:   limits,
	})
	h.Handle(echoProtocol, echo)
	if err := h.Listen(t.Context(), ma.StringCast("/memory/0")); err != nil {
		t.Fatal(err)
	}
	return h
}

// wellBehaved connects to y and has a word with it.
func wellBehaved(t testing.TB, net transport.Pipes, y *plexus.Host) {
	t.Helper()
	z := memoryHost(t, net, plexus.Limits{})
	if _, err := z.Dial(t.Context(), y.Info()); err != nil {
		t.Fatal(err)
	}
	talk(t, open(t, z, y.ID(), echoProtocol))
	z.Close()
}

// TestSilentPeer connects and says nothing.
func TestSilentPeer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := new(memory.Network)
		y := memoryHost(t, net, plexus.Limits{HandshakeTimeout: 7 * time.Second})
		c, err := net.Dial(t.Context(), y.Addrs()[0])
		if err != nil {
			t.Fatal(err)
		}
		begin := time.Now()
		wellBehaved(t, net, y)
		if n, err := io.Copy(io.Discard, c); n > 0 && err != nil {
			t.Logf("%d bytes, %v", n, err)
		}
		if took := time.Since(begin); took != 7*time.Second {
			t.Errorf("hung up after %v, want HandshakeTimeout", took)
		}
		y.Close()
	})
}

// TestSilentCrowd fills all places for handshakes; they are free again in time.
func TestSilentCrowd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := new(memory.Network)
		y := memoryHost(t, net, plexus.Limits{Handshakes: 4, HandshakeTimeout: 5 * time.Second})
		for range 8 {
			go func() { // ends when y hangs up
				if c, err := net.Dial(t.Context(), y.Addrs()[0]); err == nil {
					io.Copy(io.Discard, c)
				}
			}()
		}
		synctest.Wait()
		wellBehaved(t, net, y)
		y.Close()
	})
}

// trickle writes a byte at a time.
type trickle struct{ net.Conn }

func (c trickle) Write(b []byte) (int, error) {
	for i := range b {
		if _, err := c.Conn.Write(b[i : i+1]); err != nil {
			return i, err
		}
	}
	return len(b), nil
}

// TestByteAtATime talks to a host in pieces of one byte.
func TestByteAtATime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net1 := new(memory.Network)
		y := memoryHost(t, net1, plexus.Limits{})
		x := memoryHost(t, mangled{net1, func(c net.Conn) net.Conn { return trickle{c} }}, plexus.Limits{})
		if _, err := x.Dial(t.Context(), y.Info()); err != nil {
			t.Fatal(err)
		}
		talk(t, open(t, x, y.ID(), echoProtocol))
		x.Close()
		y.Close()
	})
}

// cut ends a connection after a number of bytes in either direction.
type cut struct {
	net.Conn
	left *atomic.Int64
}

var errCut = errors.New("cut")

func (c cut) spend(n int, err error) (int, error) {
	if c.left.Add(-int64(n)) <= 0 {
		c.Conn.Close()
		return n, errCut
	}
	return n, err
}

func (c cut) Write(b []byte) (int, error) {
	if left := c.left.Load(); int64(len(b)) > left {
		b = b[:max(0, left)]
	}
	return c.spend(c.Conn.Write(b))
}
func (c cut) Read(b []byte) (int, error) { return c.spend(c.Conn.Read(b)) }

// TestCutAnywhere cuts the connection after each number of bytes: both ends
// notice, nothing stays behind, and the next connection works.
func TestCutAnywhere(t *testing.T) {
	for _, sec := range []security.Protocol{&noise.Protocol{}, &tls.Protocol{}} {
		t.Run(sec.ID(), func(t *testing.T) {
			for after := int64(1); ; after += 7 {
				finished := false
				synctest.Test(t, func(t *testing.T) {
					net1 := new(memory.Network)
					y := memoryHost(t, net1, plexus.Limits{})
					left := new(atomic.Int64)
					left.Store(after)
					x := makeHost(t, plexus.Config{
						Pipes:    []transport.Pipes{mangled{net1, func(c net.Conn) net.Conn { return cut{c, left} }}},
						Security: []security.Protocol{sec},
						Muxers:   []muxer.Muxer{&yamux.Muxer{}},
					})
					begin := time.Now()
					_, err := x.Dial(t.Context(), y.Info())
					var s *plexus.Stream
					if err == nil {
						s, err = x.Open(t.Context(), y.ID(), echoProtocol)
					}
					if err == nil {
						_, err = s.Write([]byte("hello"))
					}
					if err == nil {
						_, err = io.ReadFull(s, make([]byte, 5))
					}
					if took := time.Since(begin); took > 0 {
						t.Errorf("cut after %d bytes: noticed after %v: %v", after, took, err)
					}
					finished = err == nil
					x.Close()
					wellBehaved(t, net1, y)
					y.Close()
				})
				if finished {
					return
				}
				if after > 20_000 {
					t.Fatal("never came through")
				}
			}
		})
	}
}

// TestGarbage answers and asks with bytes of no meaning.
func TestGarbage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := new(memory.Network)
		y := memoryHost(t, net, plexus.Limits{})
		for _, g := range []string{
			"GET / HTTP/1.1\r\n\r\n",
			"\x13/multistream/1.0.0\n\x07/noise\n\xff\xff\xff\xff\xff\xff",
			"\x13/multistream/1.0.0\n\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff",
			"\x13/multistream/1.0.0\n\x0b/tls/1.0.0\n\x16\x03\x01\x00\x05hello",
			"\x00\x00\x00\x00",
		} {
			c, err := net.Dial(t.Context(), y.Addrs()[0])
			if err != nil {
				t.Fatal(err)
			}
			c.Write([]byte(g))
			if c, ok := c.(interface{ CloseWrite() error }); ok {
				c.CloseWrite()
			}
			begin := time.Now()
			io.Copy(io.Discard, c)
			if took := time.Since(begin); took > 0 {
				t.Errorf("%q kept the host busy for %v", g, took)
			}
		}
		wellBehaved(t, net, y)
		y.Close()
	})
}

// TestSilentStreams: a peer that opens streams and proposes nothing loses them.
func TestSilentStreams(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := new(memory.Network)
		y := memoryHost(t, net, plexus.Limits{Streams: 10, NegotiateTimeout: 3 * time.Second})
		// x speaks yamux by hand over a connection of its own.
		sess := rawSession(t, net, y)
		defer sess.Close(t.Context(), 0)
		for range 10 {
			s, err := sess.Open(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if _, err := s.Write([]byte{0x13}); err != nil { // the start of a header
				t.Fatal(err)
			}
		}
		synctest.Wait()
		s, err := sess.Open(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		s.Write([]byte{0x13})
		if _, err := s.Read(make([]byte, 1)); err == nil {
			t.Error("the 11th stream was served")
		}
		begin := time.Now()
		time.Sleep(3 * time.Second)
		synctest.Wait()
		if s, err = sess.Open(t.Context()); err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(s, "\x13/multistream/1.0.0\n\x0c%s\nx", echoProtocol)
		if _, err := io.ReadFull(s, make([]byte, 20+13+1)); err != nil {
			t.Errorf("no place after %v: %v", time.Since(begin), err)
		}
		s.Close()
		wellBehaved(t, net, y)
		y.Close()
	})
}

// rawSession is a secured and muxed connection without a host behind it.
func rawSession(t testing.TB, n transport.Pipes, y *plexus.Host) muxer.Session {
	t.Helper()
	ctx := t.Context()
	raw, err := n.Dial(ctx, y.Addrs()[0])
	if err != nil {
		t.Fatal(err)
	}
	hello := "\x13/multistream/1.0.0\n\x07/noise\n"
	io.WriteString(raw, hello)
	if _, err := io.ReadFull(raw, make([]byte, len(hello))); err != nil {
		t.Fatal(err)
	}
	m := &yamux.Muxer{}
	sc, err := (&noise.Protocol{}).Secure(ctx, raw, security.Handshake{
		Key: makeHost(t, plexus.Config{}).Key(), Client: true, Want: y.ID(), Muxers: []string{m.ID()},
	})
	if err != nil {
		t.Fatal(err)
	}
	s := m.New(sc.Conn, true)
	go s.Serve(func(s muxer.Stream) { s.Reset(0) }) // ends with the session
	return s
}

// TestGoroutines: a host that is closed leaves nothing behind.
func TestGoroutines(t *testing.T) {
	before := runtime.NumGoroutine()
	net := new(memory.Network)
	x, y := memoryHost(t, net, plexus.Limits{}), memoryHost(t, net, plexus.Limits{})
	if _, err := x.Dial(t.Context(), y.Info()); err != nil {
		t.Fatal(err)
	}
	for range 10 {
		talk(t, open(t, x, y.ID(), echoProtocol))
	}
	x.Close()
	y.Close()
	settled(t, func() bool { return runtime.NumGoroutine() <= before })
}
