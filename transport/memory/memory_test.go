package memory

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	ma "github.com/multiformats/go-multiaddr"

	"github.com/plexus-p2p/plexus/transport"
	"github.com/plexus-p2p/plexus/transport/transporttest"
)

func connect(t testing.TB) (c1, c2 net.Conn) {
	var n Network
	l, err := n.Listen(t.Context(), ma.StringCast("/memory/0"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c1, err = n.Dial(t.Context(), l.Addr().(Addr).Multiaddr())
	if err != nil {
		t.Fatal(err)
	}
	c2, err = l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	return c1, c2
}

func TestPipes(t *testing.T) {
	for _, bubble := range []bool{false, true} {
		t.Run(fmt.Sprint("bubble ", bubble), func(t *testing.T) {
			transporttest.TestPipes(t, transporttest.Pipes{
				New: func(t testing.TB) (client, server transport.Pipes) {
					var n Network
					return &n, &n
				},
				Listen:  ma.StringCast("/memory/0"),
				Refused: ma.StringCast("/memory/77"),
				Foreign: []ma.Multiaddr{ma.StringCast("/ip4/127.0.0.1/tcp/1"), ma.StringCast("/memory/1/memory/2")},
				Bubble:  bubble,
			})
		})
	}
}

// Two networks have their own names.
func TestScope(t *testing.T) {
	var a, b Network
	at := ma.StringCast("/memory/5")
	l, err := a.Listen(t.Context(), at)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if _, err := b.Dial(t.Context(), at); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Error(err)
	}
	if l.Addr().String() != "/memory/5" || l.Addr().Network() != "memory" {
		t.Error(l.Addr())
	}
	big := ma.StringCast("/memory/18446744073709551615")
	if l, err := b.Listen(t.Context(), big); err != nil || !l.Addr().(Addr).Multiaddr().Equal(big) {
		t.Error(l, err)
	}
}

// When connections are not accepted, dials wait in the end.
func TestBacklog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var n Network
		at := ma.StringCast("/memory/5")
		l, err := n.Listen(t.Context(), at)
		if err != nil {
			t.Fatal(err)
		}
		var waiting []net.Conn
		for range backlog {
			c, err := n.Dial(t.Context(), at)
			if err != nil {
				t.Fatal(err)
			}
			waiting = append(waiting, c)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := n.Dial(ctx, at); !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
		late := make(chan error)
		go func() {
			_, err := n.Dial(t.Context(), at)
			late <- err
		}()
		synctest.Wait()
		l.Close()
		if err := <-late; !errors.Is(err, syscall.ECONNREFUSED) {
			t.Error(err)
		}
		for _, c := range waiting {
			if _, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
				t.Fatal(err)
			}
			if _, err := c.Write(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
				t.Fatal(err)
			}
		}
	})
}

// A writer may not take more memory than the window.
func TestBound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, d := connect(t)
		c.SetWriteDeadline(time.Now().Add(time.Second))
		n, err := c.Write(make([]byte, 10*window))
		if n != window || !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%d bytes, %v", n, err)
		}
		if len(c.(*conn).out.buf) != window {
			t.Errorf("%d bytes of buffer", len(c.(*conn).out.buf))
		}
		d.Close()
		c.SetWriteDeadline(time.Time{})
		if _, err := c.Write([]byte{1}); !errors.Is(err, syscall.EPIPE) {
			t.Error(err)
		}
		c.Close()
	})
}

// Writes of several goroutines are not mixed.
func TestWriteWhole(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, d := connect(t)
		var wg sync.WaitGroup
		for i := range 8 {
			wg.Go(func() {
				p := make([]byte, 3*window/2)
				for j := range p {
					p[j] = byte(i)
				}
				if n, err := c.Write(p); n != len(p) || err != nil {
					t.Error(n, err)
				}
			})
		}
		p := make([]byte, 3*window/2)
		for range 8 {
			io.ReadFull(d, p)
			for _, b := range p {
				if b != p[0] {
					t.Fatal("writes are mixed")
				}
			}
		}
		wg.Wait()
	})
}

func Benchmark(b *testing.B) {
	c, d := connect(b)
	go io.Copy(io.Discard, d)
	p := make([]byte, 32<<10)
	b.SetBytes(int64(len(p)))
	b.ReportAllocs()
	for b.Loop() {
		c.Write(p)
	}
}
