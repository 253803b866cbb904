// Package transporttest holds the tests that every transport has to pass. A
// transport runs them in a test of its own:
//
//	func TestPipes(t *testing.T) {
//		transporttest.TestPipes(t, transporttest.Pipes{
//			New: func(t testing.TB) (client, server transport.Pipes) {
//				return new(tcp.Transport), new(tcp.Transport)
//			},
//			Listen:  ma.StringCast("/ip4/127.0.0.1/tcp/0"),
//			Refused: ma.StringCast("/ip4/127.0.0.1/tcp/1"),
//		})
//	}
package transporttest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	ma "github.com/multiformats/go-multiaddr"
	"golang.org/x/net/nettest"

	"github.com/plexus-p2p/plexus/transport"
)

// Pipes describes a transport that is to be tested.
type Pipes struct {
	// New returns the transports of two hosts, of which the client can dial the
	// server. They end by t.Cleanup.
	New func(t testing.TB) (client, server transport.Pipes)

	Listen  ma.Multiaddr   // where the server can listen, port 0
	Refused ma.Multiaddr   // where nobody listens, and the client learns it at once
	Silent  ma.Multiaddr   // where nobody answers; nil: there is no such address
	Foreign []ma.Multiaddr // that the transport does not take, beyond those it never takes

	Bubble     bool // run each test in a synctest bubble; the transport must not use real sockets
	Goroutines int  // that a connection may have, at both ends together
	NoRefusal  bool // refusal is another error than syscall.ECONNREFUSED
}

// A message that no test's other bytes contain.
var hello = []byte("hello, peer")

// TestPipes tests a transport.
func TestPipes(t *testing.T, p Pipes) {
	for _, c := range []struct {
		name string
		test func(t *testing.T, p Pipes)
	}{
		{"Match", testMatch},
		{"Echo", testEcho},
		{"Addrs", testAddrs},
		{"ForeignAddrs", testForeignAddrs},
		{"Refused", testRefused},
		{"CancelDial", testCancelDial},
		{"CloseWhileAccepting", testCloseWhileAccepting},
		{"ListenAgain", testListenAgain},
		{"ListenTwice", testListenTwice},
		{"ConnOutlivesListener", testConnOutlivesListener},
		{"ManyDials", testManyDials},
		{"Large", testLarge},
		{"BothWriteFirst", testBothWriteFirst},
		{"CloseDelivers", testCloseDelivers},
		{"CloseWakes", testCloseWakes},
		{"CloseWrite", testCloseWrite},
		{"RemoteClose", testRemoteClose},
		{"Deadlines", testDeadlines},
		{"Goroutines", testGoroutines},
	} {
		t.Run(c.name, func(t *testing.T) {
			if p.Bubble {
				synctest.Test(t, func(t *testing.T) { c.test(t, p) })
			} else {
				c.test(t, p)
			}
		})
	}
	t.Run("Conn", func(t *testing.T) {
		nettest.TestConn(t, func() (net.Conn, net.Conn, func(), error) {
			l, c1, c2 := connect(t, p)
			return c1, c2, func() { c1.Close(); c2.Close(); l.Close() }, nil
		})
	})
}

// listen returns the client, and a listener of the server with its address.
func listen(t testing.TB, p Pipes) (transport.Pipes, net.Listener, ma.Multiaddr) {
	t.Helper()
	client, server := p.New(t)
	l, err := server.Listen(t.Context(), p.Listen)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return client, l, multiaddr(t, l.Addr())
}

// connect returns both ends of a connection.
func connect(t testing.TB, p Pipes) (l net.Listener, c, d net.Conn) {
	t.Helper()
	client, l, at := listen(t, p)
	c, d = pair(t, client, l, at)
	return l, c, d
}

func pair(t testing.TB, client transport.Pipes, l net.Listener, at ma.Multiaddr) (c, d net.Conn) {
	t.Helper()
	var accepted error
	done := make(chan struct{})
	go func() {
		defer close(done)
		d, accepted = l.Accept()
	}()
	c, err := client.Dial(t.Context(), at)
	if err != nil {
		l.Close()
		<-done
		t.Fatalf("dial %v: %v", at, err)
	}
	<-done
	if accepted != nil {
		t.Fatalf("accept: %v", accepted)
	}
	t.Cleanup(func() { c.Close(); d.Close() })
	return c, d
}

func multiaddr(t testing.TB, a net.Addr) ma.Multiaddr {
	t.Helper()
	m, err := transport.Multiaddr(a)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// echo sends what comes, until it ends.
func echo(l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			io.Copy(c, c)
			c.Close()
		}()
	}
}

func roundTrip(c net.Conn) error {
	if _, err := c.Write(hello); err != nil {
		return err
	}
	got := make([]byte, len(hello))
	if _, err := io.ReadFull(c, got); err != nil {
		return err
	}
	if !bytes.Equal(got, hello) {
		return fmt.Errorf("echo: got %q, want %q", got, hello)
	}
	return nil
}

// fails checks that f returns an error of this kind soon.
func fails(t testing.TB, what string, want error, f func() error) {
	t.Helper()
	done := make(chan error, 1)
	go func() { done <- f() }()
	select {
	case err := <-done:
		if !errors.Is(err, want) {
			t.Errorf("%s: got %v, want %v", what, err, want)
		}
	case <-time.After(10 * time.Second):
		t.Errorf("%s does not return", what)
	}
}

// expired fails the test if f does not return that a deadline has passed.
func expired(t testing.TB, what string, f func() error) {
	t.Helper()
	fails(t, what, os.ErrDeadlineExceeded, func() error {
		err := f()
		if e := net.Error(nil); err != nil && (!errors.As(err, &e) || !e.Timeout()) {
			t.Errorf("%s: %v is not a timeout", what, err)
		}
		return err
	})
}

func read(c net.Conn) func() error {
	return func() error { _, err := c.Read(make([]byte, 1)); return err }
}

func testMatch(t *testing.T, p Pipes) {
	client, l, at := listen(t, p)
	for _, a := range []ma.Multiaddr{p.Listen, at, p.Refused} {
		if !client.Match(a) {
			t.Errorf("Match(%v) = false", a)
		}
	}
	for _, a := range append([]ma.Multiaddr{nil, {}, ma.StringCast("/p2p-circuit"), at.Encapsulate(ma.StringCast("/p2p-circuit"))}, p.Foreign...) {
		if client.Match(a) {
			t.Errorf("Match(%v) = true", a)
		}
	}
	l.Close()
}

func testEcho(t *testing.T, p Pipes) {
	client, l, at := listen(t, p)
	go echo(l)
	c, err := client.Dial(t.Context(), at)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for range 3 {
		if err := roundTrip(c); err != nil {
			t.Fatal(err)
		}
	}
}

// "The listener's Addr tells where it really listens", and both ends agree on who
// is connected to whom.
func testAddrs(t *testing.T, p Pipes) {
	l, c, d := connect(t, p)
	if at := multiaddr(t, l.Addr()); at.Equal(p.Listen) {
		t.Errorf("listens on %v, without a port", at)
	} else if got := multiaddr(t, c.RemoteAddr()); !got.Equal(at) {
		t.Errorf("dialed %v, connected to %v", at, got)
	}
	if near, far := multiaddr(t, c.LocalAddr()), multiaddr(t, d.RemoteAddr()); !near.Equal(far) {
		t.Errorf("dialed from %v, accepted from %v", near, far)
	}
	if near, far := multiaddr(t, d.LocalAddr()), multiaddr(t, c.RemoteAddr()); !near.Equal(far) {
		t.Errorf("accepted at %v, dialed to %v", near, far)
	}
}

func testForeignAddrs(t *testing.T, p Pipes) {
	client, _, _ := listen(t, p)
	for _, a := range append([]ma.Multiaddr{nil, ma.StringCast("/p2p-circuit")}, p.Foreign...) {
		if c, err := client.Dial(t.Context(), a); err == nil {
			c.Close()
			t.Errorf("dialed %v", a)
		}
		if l, err := client.Listen(t.Context(), a); err == nil {
			l.Close()
			t.Errorf("listened on %v", a)
		}
	}
}

func testRefused(t *testing.T, p Pipes) {
	client, l, at := listen(t, p)
	l.Close()
	for _, a := range []ma.Multiaddr{p.Refused, at} {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		c, err := client.Dial(ctx, a)
		if err == nil {
			c.Close()
		}
		if err == nil || ctx.Err() != nil || !p.NoRefusal && !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("dial %v, where nobody listens: %v", a, err)
		}
		cancel()
	}
}

func testCancelDial(t *testing.T, p Pipes) {
	client, _, at := listen(t, p)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	fails(t, "dial with a ctx that has ended", context.Canceled, func() error {
		c, err := client.Dial(ctx, at)
		if err == nil {
			c.Close()
		}
		return err
	})
	if p.Silent == nil {
		return
	}
	for name, want := range map[string]error{"cancelled": context.Canceled, "late": context.DeadlineExceeded} {
		ctx, cancel := context.WithCancel(t.Context())
		if want == context.DeadlineExceeded {
			ctx, cancel = context.WithTimeout(t.Context(), 50*time.Millisecond)
		} else {
			time.AfterFunc(50*time.Millisecond, cancel)
		}
		fails(t, name+" dial", want, func() error { _, err := client.Dial(ctx, p.Silent); return err })
		cancel()
	}
}

func testCloseWhileAccepting(t *testing.T, p Pipes) {
	_, l, _ := listen(t, p)
	var wg sync.WaitGroup
	for range 3 {
		wg.Go(func() {
			fails(t, "Accept, when the listener closes", net.ErrClosed, func() error { _, err := l.Accept(); return err })
		})
	}
	time.Sleep(10 * time.Millisecond)
	if err := l.Close(); err != nil {
		t.Error(err)
	}
	wg.Wait()
	fails(t, "Accept after Close", net.ErrClosed, func() error { _, err := l.Accept(); return err })
	l.Close() // again: whatever it returns
}

// Closing a listener frees the port at once, while connections to it live.
func testListenAgain(t *testing.T, p Pipes) {
	client, server := p.New(t)
	at := p.Listen
	for i := range 3 {
		l, err := server.Listen(t.Context(), at)
		if err != nil {
			t.Fatalf("listen on %v for the %d. time: %v", at, i+1, err)
		}
		at = multiaddr(t, l.Addr())
		c, _ := pair(t, client, l, at)
		if _, err := c.Write(hello); err != nil {
			t.Error(err)
		}
		l.Close()
	}
}

// Two listeners on one address would each get a part of the connections.
func testListenTwice(t *testing.T, p Pipes) {
	_, server := p.New(t)
	l, err := server.Listen(t.Context(), p.Listen)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if l2, err := server.Listen(t.Context(), multiaddr(t, l.Addr())); err == nil {
		l2.Close()
		t.Errorf("two listeners on %v", l.Addr())
	}
	l3, err := server.Listen(t.Context(), p.Listen)
	if err != nil {
		t.Fatal(err)
	}
	defer l3.Close()
	if l3.Addr().String() == l.Addr().String() {
		t.Errorf("%v was picked twice", l.Addr())
	}
}

func testConnOutlivesListener(t *testing.T, p Pipes) {
	l, c, d := connect(t, p)
	l.Close()
	go io.Copy(d, d)
	for range 3 {
		if err := roundTrip(c); err != nil {
			t.Fatal(err)
		}
	}
}

func testManyDials(t *testing.T, p Pipes) {
	client, l, at := listen(t, p)
	go echo(l)
	var wg sync.WaitGroup
	for range 100 {
		wg.Go(func() {
			c, err := client.Dial(t.Context(), at)
			if err != nil {
				t.Error(err)
				return
			}
			defer c.Close()
			if err := roundTrip(c); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
}

// pattern is a stream of bytes that do not repeat soon.
type pattern struct{ x uint32 }

func (p *pattern) Read(b []byte) (int, error) {
	for i := range b {
		p.x = p.x*1664525 + 1013904223
		b[i] = byte(p.x >> 24)
	}
	return len(b), nil
}

func testLarge(t *testing.T, p Pipes) {
	_, c, d := connect(t, p)
	large(t, c, d)
}

// large sends more than any buffer holds, both ways at the same time.
func large(t *testing.T, c, d net.Conn) {
	const size = 4 << 20
	var wg sync.WaitGroup
	for i, x := range [][2]net.Conn{{c, d}, {d, c}} {
		wg.Go(func() {
			if _, err := io.CopyN(x[0], &pattern{uint32(i)}, size); err != nil {
				t.Errorf("write: %v", err)
			}
		})
		wg.Go(func() {
			want := &pattern{uint32(i)}
			got, expect := make([]byte, 64<<10), make([]byte, 64<<10)
			for n := 0; n < size; {
				k, err := x[1].Read(got[:min(len(got), size-n)])
				want.Read(expect[:k])
				if err != nil || !bytes.Equal(got[:k], expect[:k]) {
					t.Errorf("wrong bytes after %d: %v", n, err)
					x[0].Close()
					return
				}
				n += k
			}
		})
	}
	wg.Wait()
}

// Multistream-select begins with both ends writing before they read.
func testBothWriteFirst(t *testing.T, p Pipes) {
	_, c, d := connect(t, p)
	for _, x := range []net.Conn{c, d} {
		if _, err := x.Write(hello); err != nil {
			t.Fatal(err)
		}
	}
	for _, x := range []net.Conn{c, d} {
		if _, err := io.ReadFull(x, make([]byte, len(hello))); err != nil {
			t.Fatal(err)
		}
	}
}

// "What has been written before Close is delivered."
func testCloseDelivers(t *testing.T, p Pipes) {
	for _, size := range []int{1, 10e3, 200e3} {
		_, c, d := connect(t, p)
		want := make([]byte, size)
		new(pattern).Read(want)
		go func() {
			if _, err := c.Write(want); err != nil {
				t.Error(err)
			}
			if err := c.Close(); err != nil {
				t.Error(err)
			}
		}()
		if got, err := io.ReadAll(d); err != nil || !bytes.Equal(got, want) {
			t.Errorf("got %d bytes of %d that were written before Close: %v", len(got), size, err)
		}
		c.Close()
		d.Close()
	}
}

func testCloseWakes(t *testing.T, p Pipes) {
	_, c, _ := connect(t, p)
	var wg sync.WaitGroup
	wg.Go(func() { fails(t, "Read, when the connection closes", net.ErrClosed, read(c)) })
	wg.Go(func() {
		fails(t, "Write, when the connection closes", net.ErrClosed, func() error {
			for {
				if _, err := c.Write(make([]byte, 64<<10)); err != nil {
					return err
				}
			}
		})
	})
	time.Sleep(50 * time.Millisecond)
	c.Close()
	wg.Wait()
	fails(t, "Read after Close", net.ErrClosed, read(c))
	fails(t, "Write after Close", net.ErrClosed, func() error { _, err := c.Write(hello); return err })
}

// A transport whose connections can be closed half says so by this method.
func testCloseWrite(t *testing.T, p Pipes) {
	_, c, d := connect(t, p)
	half, ok := c.(interface{ CloseWrite() error })
	if !ok {
		return
	}
	if _, err := c.Write(hello); err != nil {
		t.Fatal(err)
	}
	if err := half.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(d); err != nil || !bytes.Equal(got, hello) {
		t.Errorf("%q, %v", got, err)
	}
	if _, err := c.Write(hello); err == nil || errors.Is(err, net.ErrClosed) {
		t.Errorf("write after CloseWrite: %v", err)
	}
	if _, err := d.Write(hello); err != nil {
		t.Error(err)
	}
	d.Close()
	if got, err := io.ReadAll(c); err != nil || !bytes.Equal(got, hello) {
		t.Errorf("%q, %v", got, err)
	}
}

func testRemoteClose(t *testing.T, p Pipes) {
	_, c, d := connect(t, p)
	d.Close()
	fails(t, "Read, when the peer has closed", io.EOF, read(c))
	deadline := time.Now().Add(10 * time.Second)
	for {
		if _, err := c.Write(hello); err != nil {
			if errors.Is(err, net.ErrClosed) {
				t.Errorf("write, when the peer has closed: %v", err)
			}
			return
		}
		if time.Now().After(deadline) {
			t.Fatal("writes succeed though the peer has closed")
		}
		time.Sleep(time.Millisecond)
	}
}

func testDeadlines(t *testing.T, p Pipes) {
	_, c, d := connect(t, p)
	c.SetReadDeadline(time.Now().Add(20 * time.Millisecond))
	expired(t, "Read", read(c))
	expired(t, "Read again", read(c))
	c.SetReadDeadline(time.Now().Add(-time.Second))
	expired(t, "Read after a deadline in the past", read(c))

	c.SetReadDeadline(time.Time{})
	var wg sync.WaitGroup
	wg.Go(func() { expired(t, "Read, when a deadline is set", read(c)) })
	time.Sleep(10 * time.Millisecond)
	c.SetReadDeadline(time.Unix(1, 0))
	wg.Wait()

	// The peer does not read, so that writes block at some time. What was written
	// before is not lost, and the connection goes on.
	c.SetDeadline(time.Now().Add(100 * time.Millisecond))
	sent := 0
	expired(t, "Write", func() error {
		for {
			n, err := c.Write(make([]byte, 64<<10))
			if sent += n; err != nil {
				return err
			}
		}
	})
	c.SetDeadline(time.Time{})
	wg.Go(func() {
		if _, err := c.Write(hello); err != nil {
			t.Error(err)
		}
		c.Close()
	})
	got, err := io.Copy(io.Discard, d)
	if want := int64(sent + len(hello)); err != nil || got != want {
		t.Errorf("read %d bytes of %d, %v", got, want, err)
	}
	wg.Wait()
}

// Goroutines are counted in the process: other tests must not run at the same time.
func testGoroutines(t *testing.T, p Pipes) {
	const conns = 20
	client, l, at := listen(t, p)
	pair(t, client, l, at)
	time.Sleep(50 * time.Millisecond)
	before := runtime.NumGoroutine()
	for range conns {
		pair(t, client, l, at)
	}
	allowed := conns*p.Goroutines + conns/4
	for range 100 {
		if runtime.NumGoroutine()-before <= allowed {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Errorf("%d connections have %d goroutines, want %d each", conns, runtime.NumGoroutine()-before, p.Goroutines)
}
