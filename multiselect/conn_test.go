package multiselect

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/nettest"
)

var past = time.Unix(1, 0)

// What a peer wrote before it left is read, though nobody waits for the answer
// (go-multistream#87).
func TestPeerLeft(t *testing.T) {
	for _, ready := range []bool{true, false} {
		a, b := newPipe()
		c := lazy(a, echo)
		write(t, c, "last words")
		c.Close()
		s := new(Conn)
		var nc net.Conn = b
		if !ready {
			nc = bare{b}
		}
		b.out.err = errors.New("broken pipe") // the answer cannot be sent
		if err := s.Accept(nc, Only(echo)); ready && err != nil {
			t.Fatal(err)
		} else if !ready {
			continue // a bare connection has to send its header early
		}
		if got, err := io.ReadAll(s); string(got) != "last words" || err != nil {
			t.Errorf("read %q, %v", got, err)
		}
		if _, err := s.Write([]byte("x")); err == nil {
			t.Error("wrote to a peer that left")
		}
		s.Close()
	}
}

func TestPeerLeftBare(t *testing.T) {
	a, b := newPipe()
	write(t, a, header)
	s := new(Conn)
	done := make(chan error)
	go func() { done <- s.Accept(bare{b}, Only(echo)) }()
	expect(t, a, header)
	write(t, a, mEcho+"last words")
	a.CloseWrite()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	b.out.set(func() { b.out.err = errors.New("broken pipe") })
	if got, err := io.ReadAll(s); string(got) != "last words" || err != nil {
		t.Errorf("read %q, %v", got, err)
	}
}

// Either end closes without having written, and the other finds an agreement.
func TestHalfClose(t *testing.T) {
	a, b := newPipe()
	c := lazy(a, echo)
	if err := c.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	s := accepted(t, b)
	expectEOF(t, s)
	if err := s.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	expectEOF(t, c)

	a, b = newPipe()
	c = lazy(a, echo)
	write(t, c, "x")
	s = accepted(t, b)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	expectEOF(t, c)

	if err := lazy(bare{a}, echo).CloseWrite(); err != errors.ErrUnsupported {
		t.Error(err)
	}
}

// A write that the peer's window stops must not keep Read from what the peer
// needs read.
func TestLargeFirstWrite(t *testing.T) {
	a, b := newPipe()
	a.out.limit, b.out.limit = 64<<10, 64<<10
	data := bytes.Repeat([]byte("0123456789abcdef"), 1<<16)
	go func() {
		s := new(Conn)
		if err := s.Accept(b, Only(echo)); err != nil {
			t.Error(err)
		}
		io.Copy(s, s)
		s.CloseWrite()
	}()
	c := lazy(a, echo)
	go func() {
		if n, err := c.Write(data); n != len(data) || err != nil {
			t.Errorf("wrote %d, %v", n, err)
		}
		c.CloseWrite()
	}()
	if got, err := io.ReadAll(c); !bytes.Equal(got, data) || err != nil {
		t.Errorf("read %d bytes, %v", len(got), err)
	}
}

// A first write that is stuck does not stop Close, nor a read with a deadline.
func TestStuckFirstWrite(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, limit := range []int{1, 10_000} {
			a, _ := newPipe()
			a.out.limit = limit
			c := lazy(a, echo)
			done := make(chan error, 2)
			for range 2 {
				go func() { _, err := c.Write(make([]byte, 1<<20)); done <- err }()
			}
			synctest.Wait()
			c.SetReadDeadline(time.Now().Add(time.Second))
			start := time.Now()
			if _, err := c.Read(make([]byte, 1)); err != os.ErrDeadlineExceeded || time.Since(start) != time.Second {
				t.Errorf("read: %v after %v", err, time.Since(start))
			}
			c.Close()
			for range 2 {
				if err := <-done; err != net.ErrClosed {
					t.Errorf("write: %v", err)
				}
			}
		}
	})
}

// Deadlines that pass at each byte do no harm.
func TestResume(t *testing.T) {
	full := header + mEcho
	t.Run("read", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			a, b := newPipe()
			c := lazy(a, echo)
			for i := range len(full) - 1 {
				write(t, b, full[i:i+1])
				c.SetReadDeadline(time.Now().Add(time.Second))
				if n, err := c.Read(make([]byte, 9)); n != 0 || err != os.ErrDeadlineExceeded {
					t.Fatalf("at %d: %d, %v", i, n, err)
				}
				if left := b.sent(); left != "" {
					t.Fatalf("at %d: %q was not read", i, left)
				}
			}
			c.SetReadDeadline(time.Time{})
			write(t, b, full[len(full)-1:]+"x")
			expect(t, c, "x")
		})
	})
	t.Run("write", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			a, b := newPipe()
			a.out.limit = 1
			c := lazy(a, echo)
			for i := range full {
				c.SetWriteDeadline(time.Now().Add(time.Second))
				if n, err := c.Write([]byte("x")); n != 0 || err != os.ErrDeadlineExceeded {
					t.Fatalf("at %d: %d, %v", i, n, err)
				}
				expect(t, b, full[i:i+1])
			}
			c.SetWriteDeadline(time.Time{})
			write(t, c, "x")
			expect(t, b, "x")
		})
	})
	t.Run("flush", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			a, b := newPipe()
			a.out.limit = 7
			c := lazy(a, echo)
			c.SetWriteDeadline(time.Now().Add(time.Second))
			if err := c.Flush(); err != os.ErrDeadlineExceeded {
				t.Fatal(err)
			}
			c.SetWriteDeadline(time.Time{})
			go c.Write([]byte("hello"))
			expect(t, b, full+"hello")
		})
	})
	t.Run("accept", func(t *testing.T) {
		a, b := newPipe()
		write(t, a, header)
		b.SetReadDeadline(past)
		c := new(Conn)
		if err := c.Accept(b, Only(echo)); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Error(err)
		}
		if _, err := c.Read(nil); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Error(err)
		}
	})
}

// CloseRead while Read waits for the answer: Write goes on.
func TestClosedLocally(t *testing.T) {
	a, b := newPipe()
	c := lazy(a, echo)
	a.CloseRead()
	if _, err := c.Read(make([]byte, 1)); err != net.ErrClosed {
		t.Error(err)
	}
	write(t, c, "x")
	expect(t, b, header+mEcho+"x")
}

func TestReset(t *testing.T) {
	reset := errors.New("reset")
	a, _ := newPipe()
	a.reset(reset)
	c := lazy(a, echo)
	_, err := c.Read(make([]byte, 1))
	if _, ok := errors.AsType[*NegotiationError](err); !ok || !errors.Is(err, reset) {
		t.Error(err)
	}
}

// Any number of readers, writers and closers at either end; every byte arrives
// once, and a first write stays in one piece.
func TestConcurrent(t *testing.T) {
	for range 50 {
		a, b := newPipe()
		a.out.limit, b.out.limit = 20_000, 20_000
		c, s := lazy(a, echo), new(Conn)
		run := func(accept func(), c *Conn, char string, got *[]byte) {
			accept()
			var w, r sync.WaitGroup
			var mu sync.Mutex
			for i := range 4 {
				piece := []byte(strings.Repeat(char, 5000*i+1))
				w.Go(func() {
					if n, err := c.Write(piece); n != len(piece) || err != nil {
						t.Errorf("wrote %d of %d, %v", n, len(piece), err)
					}
				})
				r.Go(func() {
					buf := make([]byte, 1000)
					for {
						n, err := c.Read(buf)
						mu.Lock()
						*got = append(*got, buf[:n]...)
						mu.Unlock()
						if err != nil {
							if err != io.EOF {
								t.Error(err)
							}
							return
						}
					}
				})
				r.Go(func() { c.Flush(); c.Handshake(); c.Protocol() })
			}
			w.Wait()
			c.CloseWrite()
			r.Wait()
			c.Close()
		}
		var wg sync.WaitGroup
		var atA, atB []byte
		wg.Go(func() { run(func() {}, c, "a", &atA) })
		wg.Go(func() {
			run(func() {
				if err := s.Accept(b, Only(echo)); err != nil {
					t.Error(err)
				}
			}, s, "b", &atB)
		})
		wg.Wait()
		want := 4 + 5000*(1+2+3)
		if string(atA) != strings.Repeat("b", want) || string(atB) != strings.Repeat("a", want) {
			t.Fatalf("%d and %d bytes arrived, want %d", len(atA), len(atB), want)
		}
	}
}

// The answer is there even if a reader and Close race to send it.
func TestCloseRace(t *testing.T) {
	for range 500 {
		a, b := newPipe()
		c := lazy(a, echo)
		c.Flush()
		s := accepted(t, b)
		var wg sync.WaitGroup
		wg.Go(func() { s.Read(make([]byte, 1)) })
		wg.Go(func() { s.CloseWrite() })
		s.Close()
		expectEOF(t, c)
		wg.Wait()
	}
}

func TestNettest(t *testing.T) {
	nettest.TestConn(t, func() (net.Conn, net.Conn, func(), error) {
		a, b := newPipe()
		a.out.limit, b.out.limit = 64<<10, 64<<10
		c := lazy(a, echo)
		s := new(Conn)
		// The proposal has to be there, as nobody answers while nettest runs.
		c.Flush()
		err := s.Accept(b, Only(echo))
		return c, s, func() { c.Close(); s.Close() }, err
	})
}

// rounds opens a stream and has a request answered, on pipes that are used again.
func rounds(tb testing.TB) func() {
	a, b := newPipe()
	p := Only(echo)
	msg := []byte("request")
	var c, s Conn
	buf := make([]byte, 16)
	return func() {
		c.Lazy(a, echo)
		c.Write(msg)
		if err := s.Accept(b, p); err != nil {
			tb.Fatal(err)
		}
		n, _ := s.Read(buf)
		s.Write(buf[:n])
		if n, err := c.Read(buf); string(buf[:n]) != "request" {
			tb.Fatal(err)
		}
	}
}

// selectAllocs is a ceiling for both ends.
const selectAllocs = 0

func TestAllocs(t *testing.T) {
	if raceEnabled {
		return // sync.Pool drops at random under race
	}
	if n := testing.AllocsPerRun(1000, rounds(t)); n > 0 {
		t.Errorf("%v allocations for a stream, both ends, want none", n)
	}
	if n := testing.AllocsPerRun(1000, selects(t)); n > selectAllocs {
		t.Errorf("Select and Accept: %v allocations, at most %v", n, selectAllocs)
	}
}

func BenchmarkLazy(b *testing.B) {
	f := rounds(b)
	b.ReportAllocs()
	for b.Loop() {
		f()
	}
}

func BenchmarkWrite(b *testing.B) {
	x, _ := newPipe()
	x.out.closed = true
	c := lazy(x, echo)
	msg := make([]byte, 64)
	b.ReportAllocs()
	for b.Loop() {
		c.Write(msg)
	}
}

// selects returns a function that agrees on a protocol by Select and Accept.
func selects(tb testing.TB) func() {
	x, y := newPipe()
	p := Only(echo)
	yes := []byte(header + mEcho)
	buf := make([]byte, 99)
	return func() {
		y.Write(yes)
		if _, err := Select(x, echo); err != nil {
			tb.Fatal(err)
		}
		if _, err := Accept(y, p); err != nil {
			tb.Fatal(err)
		}
		x.Read(buf)
	}
}

func BenchmarkSelect(b *testing.B) {
	f := selects(b)
	b.ReportAllocs()
	for b.Loop() {
		f()
	}
}
