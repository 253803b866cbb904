package transporttest

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	ma "github.com/multiformats/go-multiaddr"
	"golang.org/x/net/nettest"

	"github.com/plexus-p2p/plexus/muxer"
	"github.com/plexus-p2p/plexus/muxer/muxertest"
	"github.com/plexus-p2p/plexus/peer"
	"github.com/plexus-p2p/plexus/security"
	"github.com/plexus-p2p/plexus/transport"
)

// Sessions describes a transport of sessions that is to be tested.
type Sessions struct {
	// New returns the transports of two hosts with these keys, of which the
	// client can dial the server. They end by t.Cleanup, or with their sessions
	// and listeners.
	New func(t testing.TB, client, server peer.PrivKey) (c, s transport.Sessions)

	Listen  ma.Multiaddr   // where the server can listen, port 0
	Silent  ma.Multiaddr   // where nobody answers
	Foreign []ma.Multiaddr // that the transport does not take, beyond those it never takes

	Bubble     bool // run each test in a synctest bubble; the transport must not use real sockets
	Goroutines int  // that a session may have, at both ends together, with Serve at both
	Streams    int  // that a peer may have open at most; 0: not tested
	NoCodes    bool // the codes of Reset and Close stay at home
	NoRTT      bool // Stats has no round-trip time
}

// TestSessions tests a transport. It holds its sessions and streams to all that
// muxer.Session and muxer.Stream promise, as far as it does not depend on how much a
// window holds.
func TestSessions(t *testing.T, p Sessions) {
	for _, c := range []struct {
		name string
		test func(t *testing.T, p Sessions)
	}{
		{"Match", testSessionMatch},
		{"ForeignAddrs", testSessionForeignAddrs},
		{"Peers", testSessionPeers},
		{"WrongPeer", testSessionWrongPeer},
		{"CancelDial", testSessionCancelDial},
		{"CloseWhileAccepting", testSessionCloseWhileAccepting},
		{"ListenAgain", testSessionListenAgain},
		{"ListenTwice", testSessionListenTwice},
		{"OutlivesListener", testSessionOutlivesListener},
		{"ManyDials", testSessionManyDials},
		{"Goroutines", testSessionGoroutines},
		{"LazyOpen", testSessionLazyOpen},
		{"HalfClose", testSessionHalfClose},
		{"CloseBeforeWrite", on(muxertest.CloseBeforeWrite)},
		{"CloseRead", testSessionCloseRead},
		{"CloseDelivers", testSessionCloseDelivers},
		{"Reset", testSessionReset},
		{"AfterReset", testSessionAfterReset},
		{"Ready", testSessionReady},
		{"Deadlines", testSessionDeadlines},
		{"DeadlineWakesAll", testSessionDeadlineWakesAll},
		{"CloseWakesAll", testSessionCloseWakesAll},
		{"EndWakesAll", testSessionEndWakesAll},
		{"ManyReaders", on(muxertest.ManyReaders)},
		{"ManyWriters", on(muxertest.ManyWriters)},
		{"CloseDuringWrite", testSessionCloseDuringWrite},
		{"Large", testSessionLarge},
		{"OpenBothWays", testSessionOpenBothWays},
		{"ManyStreams", testSessionManyStreams},
		{"OpenWaits", testSessionOpenWaits},
		{"GracefulClose", testSessionGracefulClose},
		{"CloseCode", testSessionCloseCode},
		{"CloseAtOnce", testSessionCloseAtOnce},
		{"Datagrams", testSessionDatagrams},
	} {
		t.Run(c.name, func(t *testing.T) {
			if p.Bubble {
				synctest.Test(t, func(t *testing.T) { c.test(t, p) })
			} else {
				c.test(t, p)
			}
		})
	}
	if p.Bubble {
		return // nettest waits on the wall clock
	}
	t.Run("Conn", func(t *testing.T) {
		nettest.TestConn(t, func() (net.Conn, net.Conn, func(), error) {
			x := newSessionPair(t, p)
			a, b := x.Open()
			return a, b, func() { a.Close(); b.Close(); x.Cut(); x.l.Close() }, nil
		})
	})
}

// sessionHosts are two hosts, of which one listens.
type sessionHosts struct {
	client, server       transport.Sessions
	clientKey, serverKey peer.PrivKey
	l                    transport.SessionListener
	at                   ma.Multiaddr
}

func newSessionHosts(t testing.TB, p Sessions) *sessionHosts {
	t.Helper()
	h := new(sessionHosts)
	h.clientKey, h.serverKey = Key(t), Key(t)
	h.client, h.server = p.New(t, h.clientKey, h.serverKey)
	l, err := h.server.ListenSession(t.Context(), p.Listen)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	h.l, h.at = l, multiaddr(t, l.Addr())
	return h
}

// dial returns both ends of a session.
func (h *sessionHosts) dial(t testing.TB) (c, s transport.Session) {
	t.Helper()
	var accepted error
	done := make(chan struct{})
	go func() {
		defer close(done)
		s, accepted = h.l.Accept()
	}()
	c, err := h.client.DialSession(t.Context(), h.at, h.serverKey.ID())
	if err != nil {
		h.l.Close()
		<-done
		t.Fatalf("dial %v: %v", h.at, err)
	}
	<-done
	if accepted != nil {
		t.Fatalf("accept: %v", accepted)
	}
	t.Cleanup(func() { c.Close(ended(), 0); s.Close(ended(), 0) })
	return c, s
}

// ended returns a context that has ended.
func ended() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}

func soon(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// sessionPair is two ends of a session that are served.
type sessionPair struct {
	*sessionHosts
	*muxertest.Pair
	c, s transport.Session
}

func newSessionPair(t testing.TB, p Sessions) *sessionPair {
	t.Helper()
	h := newSessionHosts(t, p)
	c, s := h.dial(t)
	return &sessionPair{h, muxertest.Serve(t, c, s), c, s}
}

// on is a check that muxers share, of a transport.
func on(check func(*testing.T, *muxertest.Pair)) func(*testing.T, Sessions) {
	return func(t *testing.T, p Sessions) { check(t, newSessionPair(t, p).Pair) }
}

func put(t testing.TB, w io.Writer, s string) {
	t.Helper()
	if n, err := w.Write([]byte(s)); n != len(s) || err != nil {
		t.Fatalf("Write of %d bytes: %d, %v", len(s), n, err)
	}
}

func want(t testing.TB, r io.Reader, s string) {
	t.Helper()
	b := make([]byte, len(s))
	if n, err := io.ReadFull(r, b); err != nil || string(b) != s {
		t.Fatalf("read %q, %v; want %q", b[:n], err, s)
	}
}

// write writes more than any window holds, or until an error comes.
func write(c net.Conn) func() error {
	return func() error {
		for {
			if _, err := c.Write(make([]byte, 64<<10)); err != nil {
				return err
			}
		}
	}
}

func wantReset(t testing.TB, what string, err error, code muxer.Code, remote bool) {
	t.Helper()
	e, ok := errors.AsType[*muxer.StreamError](err)
	if !ok || e.Code != code || e.Remote != remote {
		t.Errorf("%s: got %v, want a reset with code %#x, remote=%v", what, err, code, remote)
	}
}

func wantEnd(t testing.TB, what string, err error, code muxer.Code, remote bool) {
	t.Helper()
	e, ok := errors.AsType[*muxer.SessionError](err)
	if !ok || e.Code != code || e.Remote != remote {
		t.Errorf("%s: got %v, want the end of the session with code %#x, remote=%v", what, err, code, remote)
	}
}

func (p Sessions) code(c muxer.Code) muxer.Code {
	if p.NoCodes {
		return 0
	}
	return c
}

// eventually waits until f is true.
func eventually(t testing.TB, what string, f func() bool) {
	t.Helper()
	for range 1000 {
		if f() {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Errorf("%s does not come true", what)
}

func testSessionMatch(t *testing.T, p Sessions) {
	h := newSessionHosts(t, p)
	for _, a := range []ma.Multiaddr{p.Listen, h.at, p.Silent} {
		if !h.client.Match(a) {
			t.Errorf("Match(%v) = false", a)
		}
	}
	for _, a := range append([]ma.Multiaddr{nil, {}, ma.StringCast("/p2p-circuit"), h.at.Encapsulate(ma.StringCast("/p2p-circuit"))}, p.Foreign...) {
		if h.client.Match(a) {
			t.Errorf("Match(%v) = true", a)
		}
	}
}

func testSessionForeignAddrs(t *testing.T, p Sessions) {
	h := newSessionHosts(t, p)
	for _, a := range append([]ma.Multiaddr{nil, ma.StringCast("/p2p-circuit")}, p.Foreign...) {
		if _, err := h.client.DialSession(t.Context(), a, h.serverKey.ID()); err == nil {
			t.Errorf("dialed %v", a)
		}
		if _, err := h.client.ListenSession(t.Context(), a); err == nil {
			t.Errorf("listened on %v", a)
		}
	}
}

// Both ends know who is at the other one, and where.
func testSessionPeers(t *testing.T, p Sessions) {
	h := newSessionHosts(t, p)
	c, s := h.dial(t)
	for _, x := range []struct {
		s   transport.Session
		key peer.PrivKey
	}{{c, h.serverKey}, {s, h.clientKey}} {
		id, key := x.s.Peer()
		if id != x.key.ID() || key.ID() != id {
			t.Errorf("connected to %v with key of %v, want %v", id, key.ID(), x.key.ID())
		}
	}
	if got := multiaddr(t, c.RemoteAddr()); !got.Equal(h.at) {
		t.Errorf("dialed %v, connected to %v", h.at, got)
	}
	if h.at.Equal(p.Listen) {
		t.Errorf("listens on %v, without a port", h.at)
	}
	for _, a := range []net.Addr{c.LocalAddr(), s.LocalAddr(), s.RemoteAddr()} {
		multiaddr(t, a)
	}
	// Anybody will do.
	go h.l.Accept()
	d, err := h.client.DialSession(t.Context(), h.at, "")
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close(ended(), 0)
	if id, _ := d.Peer(); id != h.serverKey.ID() {
		t.Errorf("connected to %v", id)
	}
}

func testSessionWrongPeer(t *testing.T, p Sessions) {
	h := newSessionHosts(t, p)
	_, err := h.client.DialSession(soon(t), h.at, h.clientKey.ID())
	e, ok := errors.AsType[*security.MismatchError](err)
	if !ok || e.Got != h.serverKey.ID() || e.Want != h.clientKey.ID() {
		t.Errorf("dialed somebody else: %v", err)
	}
	h.dial(t) // the listener goes on
}

func testSessionCancelDial(t *testing.T, p Sessions) {
	h := newSessionHosts(t, p)
	dial := func(ctx context.Context, to ma.Multiaddr) func() error {
		return func() error { _, err := h.client.DialSession(ctx, to, h.serverKey.ID()); return err }
	}
	fails(t, "dial with a ctx that has ended", context.Canceled, dial(ended(), h.at))
	for name, want := range map[string]error{"cancelled": context.Canceled, "late": context.DeadlineExceeded} {
		ctx, cancel := context.WithCancel(t.Context())
		if want == context.DeadlineExceeded {
			ctx, cancel = context.WithTimeout(t.Context(), 50*time.Millisecond)
		} else {
			time.AfterFunc(50*time.Millisecond, cancel)
		}
		fails(t, name+" dial", want, dial(ctx, p.Silent))
		cancel()
	}
}

func testSessionCloseWhileAccepting(t *testing.T, p Sessions) {
	h := newSessionHosts(t, p)
	accept := func() error { _, err := h.l.Accept(); return err }
	var wg sync.WaitGroup
	for range 3 {
		wg.Go(func() { fails(t, "Accept, when the listener closes", net.ErrClosed, accept) })
	}
	time.Sleep(10 * time.Millisecond)
	if err := h.l.Close(); err != nil {
		t.Error(err)
	}
	wg.Wait()
	fails(t, "Accept after Close", net.ErrClosed, accept)
	h.l.Close() // again: whatever it returns
}

// Closing a listener frees the address at once, also while sessions to it live.
func testSessionListenAgain(t *testing.T, p Sessions) {
	h := newSessionHosts(t, p)
	for i := range 3 {
		if _, s := h.dial(t); i == 0 {
			s.Close(ended(), 0)
		}
		h.l.Close()
		l, err := h.server.ListenSession(t.Context(), h.at)
		if err != nil {
			t.Fatalf("listen on %v for the %d. time: %v", h.at, i+2, err)
		}
		h.l = l
		defer l.Close()
	}
	h.dial(t)
}

func testSessionListenTwice(t *testing.T, p Sessions) {
	h := newSessionHosts(t, p)
	if l2, err := h.server.ListenSession(t.Context(), h.at); err == nil {
		l2.Close()
		t.Errorf("two listeners on %v", h.at)
	}
	l3, err := h.server.ListenSession(t.Context(), p.Listen)
	if err != nil {
		t.Fatal(err)
	}
	defer l3.Close()
	if l3.Addr().String() == h.l.Addr().String() {
		t.Errorf("%v was picked twice", h.l.Addr())
	}
}

func testSessionOutlivesListener(t *testing.T, p Sessions) {
	x := newSessionPair(t, p)
	x.l.Close()
	a, b := x.Open()
	put(t, b, "still here")
	want(t, a, "still here")
}

func testSessionManyDials(t *testing.T, p Sessions) {
	const dials = 30
	h := newSessionHosts(t, p)
	var wg sync.WaitGroup
	wg.Go(func() {
		for range dials {
			s, err := h.l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				s.Serve(func(st muxer.Stream) {
					wg.Go(func() {
						io.Copy(st, st)
						st.Close()
					})
				})
			})
		}
	})
	for range dials {
		wg.Go(func() {
			c, err := h.client.DialSession(soon(t), h.at, h.serverKey.ID())
			if err != nil {
				t.Error(err)
				return
			}
			wg.Go(func() { c.Serve(func(muxer.Stream) {}) })
			st, err := c.Open(soon(t))
			if err == nil {
				err = roundTrip(st)
			}
			if err != nil {
				t.Error(err)
			}
			c.Close(ended(), 0)
		})
	}
	wg.Wait()
}

// Goroutines are counted in the process: other tests must not run at the same time.
func testSessionGoroutines(t *testing.T, p Sessions) {
	const sessions = 20
	h := newSessionHosts(t, p)
	var wg sync.WaitGroup
	dial := func() (c, s transport.Session) {
		c, s = h.dial(t)
		wg.Go(func() { c.Serve(func(muxer.Stream) {}) })
		wg.Go(func() { s.Serve(func(muxer.Stream) {}) })
		return c, s
	}
	all := make([]transport.Session, 0, 2*sessions+2)
	c, s := dial()
	all = append(all, c, s)
	time.Sleep(50 * time.Millisecond)
	before := runtime.NumGoroutine()
	for range sessions {
		c, s := dial()
		all = append(all, c, s)
	}
	allowed := sessions*p.Goroutines + sessions/4
	eventually(t, "few goroutines a session", func() bool { return runtime.NumGoroutine()-before <= allowed })
	t.Logf("%.1f goroutines a session, at both ends together", float64(runtime.NumGoroutine()-before)/sessions)
	for _, x := range all {
		x.Close(ended(), 0)
	}
	wg.Wait()
	eventually(t, "the end of all goroutines", func() bool { return runtime.NumGoroutine() <= before })
}

// "It does not wait for the peer, and may send nothing before the stream's first
// write, read or close."
func testSessionLazyOpen(t *testing.T, p Sessions) {
	x := newSessionPair(t, p)
	silent, err := x.c.Open(soon(t))
	if err != nil {
		t.Fatal(err)
	}
	st, err := x.c.Open(soon(t))
	if err != nil {
		t.Fatal(err)
	}
	words := make(chan string, 2)
	for range 2 { // the peer may hear of both at once
		go func() {
			b := make([]byte, 3)
			io.ReadFull(<-x.Accepted, b)
			words <- string(b)
		}()
	}
	put(t, st, "two")
	if got := <-words; got != "two" {
		t.Errorf("got %q", got)
	}
	put(t, silent, "one")
	if got := <-words; got != "one" {
		t.Errorf("got %q", got)
	}
}

func testSessionHalfClose(t *testing.T, p Sessions) {
	x := newSessionPair(t, p)
	muxertest.HalfClose(t, x.Pair)
	if rtt := x.c.Stats().RTT; rtt <= 0 && !p.NoRTT {
		t.Errorf("round-trip time %v", rtt)
	}
}

func testSessionCloseRead(t *testing.T, p Sessions) {
	x := newSessionPair(t, p)
	a, b := x.Open()
	done := make(chan error, 1)
	go func() { done <- read(b)() }()
	time.Sleep(10 * time.Millisecond)
	if err := b.CloseRead(); err != nil {
		t.Fatal(err)
	}
	if err := <-done; !errors.Is(err, net.ErrClosed) {
		t.Errorf("blocked Read: %v", err)
	}
	fails(t, "Read after CloseRead", net.ErrClosed, read(b))
	a.Write([]byte("dropped")) // or refused
	put(t, b, "still here")
	want(t, a, "still here")
}

// "Close closes both directions: the peer reads what was written and then EOF."
func testSessionCloseDelivers(t *testing.T, p Sessions) {
	x := newSessionPair(t, p)
	for _, size := range []int{1, 10e3, 200e3} {
		a, b := x.Open()
		msg := make([]byte, size)
		new(pattern).Read(msg)
		go func() {
			if _, err := a.Write(msg); err != nil {
				t.Error(err)
			}
			a.Close()
			a.Reset(1) // as a deferred Reset does: what was written still arrives
		}()
		if got, err := io.ReadAll(b); err != nil || !bytes.Equal(got, msg) {
			t.Errorf("got %d bytes of %d that were written before Close: %v", len(got), size, err)
		}
		b.Close()
		fails(t, "Read after Close", net.ErrClosed, read(b))
		fails(t, "Write after Close", net.ErrClosed, write(b))
	}
}

func testSessionReset(t *testing.T, p Sessions) {
	x := newSessionPair(t, p)
	for _, flip := range []bool{false, true} {
		a, b := x.Open()
		if flip {
			a, b = b, a
		}
		errs := make(chan error, 1)
		go func() { errs <- read(a)() }()
		time.Sleep(10 * time.Millisecond)
		if err := a.Reset(0x1003); err != nil {
			t.Fatal(err)
		}
		wantReset(t, "own blocked Read", <-errs, 0x1003, false)
		_, err := a.Write([]byte("x"))
		wantReset(t, "own Write", err, 0x1003, false)
		wantReset(t, "peer's Read", read(b)(), p.code(0x1003), true)
		wantReset(t, "peer's Write", write(b)(), p.code(0x1003), true)
		for _, end := range []error{a.Close(), b.Close(), a.Reset(1), b.Reset(1)} {
			if end != nil {
				t.Errorf("ending a stream that was reset: %v", end)
			}
		}
	}
	a, b := x.Open() // the session goes on
	put(t, a, "x")
	want(t, b, "x")
	eventually(t, "that one stream is open", func() bool { return x.c.Stats().Streams == 1 })
}

// Who only writes hears of a reset and of the session's end, and of nothing else.
func testSessionAfterReset(t *testing.T, p Sessions) {
	x := newSessionPair(t, p)
	told := make(chan string, 10)
	watch := func(what string) (a, b muxer.Stream) {
		a, b = x.Open()
		a.AfterReset(func() { told <- "not the last" })
		a.AfterReset(func() { told <- what })
		return a, b
	}
	heard := func(want string) {
		t.Helper()
		if got := <-told; got != want {
			t.Errorf("told %q, want %q", got, want)
		}
	}
	_, b := watch("the end of the session")
	put(t, b, "x")
	b.CloseWrite() // its direction only
	a, b := watch("a closed stream")
	a.Close()
	b.Close()
	a, b = watch("a closed direction")
	a.CloseWrite()
	b.Reset(1)
	_, b = watch("the peer's reset")
	b.Reset(1)
	heard("the peer's reset")
	a, _ = watch("our reset")
	a.Reset(1)
	heard("our reset")
	a.AfterReset(func() { told <- "at once" })
	heard("at once")
	now, cancel := context.WithCancel(t.Context())
	cancel()
	x.s.Close(now, 0)
	heard("the end of the session")
	if len(told) > 0 {
		t.Errorf("told %q too", <-told)
	}
}

// "Ready tells that Read would not block: bytes, EOF or an error wait."
func testSessionReady(t *testing.T, p Sessions) {
	x := newSessionPair(t, p)
	a, b := x.Open()
	if b.Ready() {
		t.Error("ready, though nothing was sent")
	}
	put(t, a, "bytes")
	eventually(t, "Ready for bytes", b.Ready)
	want(t, b, "bytes")
	done := make(chan error, 1)
	go func() {
		_, err := io.ReadFull(b, make([]byte, 4))
		done <- err
	}()
	for range 10 { // it disturbs nobody
		b.Ready()
		time.Sleep(time.Millisecond)
	}
	put(t, a, "more")
	if err := <-done; err != nil {
		t.Errorf("Read beside Ready: %v", err)
	}
	a.CloseWrite()
	eventually(t, "Ready for the end", b.Ready)
	fails(t, "Read", io.EOF, read(b))
	b.Reset(1)
	eventually(t, "Ready for a reset", a.Ready)
}

func testSessionDeadlines(t *testing.T, p Sessions) {
	x := newSessionPair(t, p)
	a, b := x.Open()
	a.SetReadDeadline(time.Now().Add(20 * time.Millisecond))
	expired(t, "Read", read(a))
	expired(t, "Read again", read(a))
	a.SetReadDeadline(time.Now().Add(-time.Hour))
	expired(t, "Read after a deadline in the past", read(a))

	// Data that waits is not returned after the deadline, nor lost.
	put(t, b, "kept")
	expired(t, "Read after a deadline in the past", read(a))
	a.SetReadDeadline(time.Time{})
	want(t, a, "kept")

	// The peer does not read. What was written before is not lost.
	a.SetDeadline(time.Now().Add(200 * time.Millisecond))
	sent := 0
	expired(t, "Write", func() error {
		for {
			n, err := a.Write(make([]byte, 64<<10))
			if sent += n; err != nil {
				return err
			}
		}
	})
	a.SetDeadline(time.Time{})
	go func() {
		a.Write(hello)
		a.CloseWrite()
	}()
	got, err := io.Copy(io.Discard, b)
	if want := int64(sent + len(hello)); err != nil || got != want {
		t.Errorf("read %d bytes of %d, %v", got, want, err)
	}
}

// blockedCalls starts 8 goroutines that read and 8 that write, and returns where
// their errors come out once all of them are blocked, as well as one can tell: no
// Write has returned for a while.
func blockedCalls(st muxer.Stream) chan error {
	errs := make(chan error, 16)
	var writes atomic.Int64
	for range 8 {
		go func() { errs <- read(st)() }()
		go func() {
			for {
				if _, err := st.Write(make([]byte, 64<<10)); err != nil {
					errs <- err
					return
				}
				writes.Add(1)
			}
		}()
	}
	for before := int64(-1); before != writes.Load(); {
		before = writes.Load()
		time.Sleep(20 * time.Millisecond)
	}
	return errs
}

func wantAll(t testing.TB, errs chan error, check func(error)) {
	t.Helper()
	late := time.After(10 * time.Second)
	for i := range cap(errs) {
		select {
		case err := <-errs:
			check(err)
		case <-late:
			t.Fatalf("%d of %d calls are still blocked", cap(errs)-i, cap(errs))
		}
	}
}

func testSessionDeadlineWakesAll(t *testing.T, p Sessions) {
	x := newSessionPair(t, p)
	a, b := x.Open()
	for _, d := range []time.Duration{-time.Hour, 0, 10 * time.Millisecond} {
		errs := blockedCalls(a)
		a.SetDeadline(time.Now().Add(d))
		wantAll(t, errs, func(err error) {
			if !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("blocked call: %v", err)
			}
		})
		a.SetDeadline(time.Time{})
	}
	go io.Copy(io.Discard, b) // the stream still works
	put(t, b, "y")
	want(t, a, "y")
}

func testSessionCloseWakesAll(t *testing.T, p Sessions) {
	x := newSessionPair(t, p)
	a, _ := x.Open()
	errs := blockedCalls(a)
	a.Close()
	wantAll(t, errs, func(err error) {
		if !errors.Is(err, net.ErrClosed) {
			t.Errorf("blocked call: %v", err)
		}
	})
	a, b := x.Open()
	errs = blockedCalls(a)
	b.Reset(3)
	wantAll(t, errs, func(err error) { wantReset(t, "blocked call", err, p.code(3), true) })
}

func testSessionEndWakesAll(t *testing.T, p Sessions) {
	x := newSessionPair(t, p)
	a, _ := x.Open()
	_, b := x.Open()
	errs, errs2 := blockedCalls(a), blockedCalls(b)
	x.c.Close(ended(), 5)
	wantAll(t, errs, func(err error) {
		wantEnd(t, "blocked call", err, 5, false)
		if !errors.Is(err, net.ErrClosed) {
			t.Errorf("blocked call: %v, want net.ErrClosed", err)
		}
	})
	wantAll(t, errs2, func(err error) { wantEnd(t, "peer's blocked call", err, p.code(5), true) })
}

func testSessionCloseDuringWrite(t *testing.T, p Sessions) {
	muxertest.CloseDuringWrite(t, newSessionPair(t, p).Pair, 32<<20, true)
}

func testSessionLarge(t *testing.T, p Sessions) {
	c, d := newSessionPair(t, p).Open()
	large(t, c, d)
}

func testSessionOpenBothWays(t *testing.T, p Sessions) {
	c, s := newSessionHosts(t, p).dial(t)
	muxertest.OpenBothWays(t, c, s, 20)
}

// However streams end, their place is free again.
func testSessionManyStreams(t *testing.T, p Sessions) {
	x := newSessionPair(t, p)
	done := make(chan struct{})
	defer close(done)
	go func() {
		for {
			select {
			case st := <-x.Accepted:
				st.Reset(1)
			case <-done:
				return
			}
		}
	}()
	for i := range 1000 {
		st, err := x.c.Open(soon(t))
		if err != nil {
			t.Fatalf("Open %d: %v", i, err)
		}
		switch i % 4 {
		case 0:
			st.Write([]byte("x"))
			st.Read(make([]byte, 1)) // until it is reset
			st.Close()
		case 1:
			st.Reset(1) // before the peer knows of it
		case 2:
			st.Write([]byte("x"))
			st.Reset(1)
		case 3:
			st.Close()
		}
	}
	eventually(t, "that no stream is open", func() bool {
		return x.c.Stats().Streams == 0 && x.s.Stats().Streams == 0
	})
}

// Open waits while the peer takes no more streams, until its context ends or a
// stream does.
func testSessionOpenWaits(t *testing.T, p Sessions) {
	if p.Streams == 0 {
		return
	}
	x := newSessionPair(t, p)
	var first muxer.Stream
	for i := range p.Streams {
		st, err := x.c.Open(soon(t))
		if err != nil {
			t.Fatalf("Open %d: %v", i, err)
		}
		put(t, st, "x")
		if first == nil {
			first = st
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := x.c.Open(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Open of a stream too many: %v", err)
	}
	opened := make(chan error)
	go func() {
		_, err := x.c.Open(soon(t))
		opened <- err
	}()
	first.Reset(0)
	(<-x.Accepted).Reset(0)
	if err := <-opened; err != nil {
		t.Errorf("Open after another stream has ended: %v", err)
	}
	go func() {
		_, err := x.c.Open(context.Background())
		opened <- err
	}()
	time.Sleep(10 * time.Millisecond)
	x.c.Close(ended(), 9)
	wantEnd(t, "Open", <-opened, 9, false)
}

// "What has been written is delivered before", 20 times of 20.
func testSessionGracefulClose(t *testing.T, p Sessions) {
	h := newSessionHosts(t, p)
	for _, size := range []int{100, 10e3, 200e3} {
		for range 20 {
			c, s := h.dial(t)
			var wg sync.WaitGroup
			got := make(chan int, 1)
			wg.Go(func() { c.Serve(func(muxer.Stream) {}) })
			wg.Go(func() {
				s.Serve(func(st muxer.Stream) {
					wg.Go(func() {
						b, err := io.ReadAll(st)
						if err != nil {
							t.Errorf("after %d bytes of %d: %v", len(b), size, err)
						}
						got <- len(b)
						st.Close()
					})
				})
			})
			st, err := c.Open(soon(t))
			if err != nil {
				t.Fatal(err)
			}
			if _, err := st.Write(make([]byte, size)); err != nil {
				t.Fatal(err)
			}
			if err := st.CloseWrite(); err != nil {
				t.Fatal(err)
			}
			if err := c.Close(soon(t), 0); err != nil {
				t.Fatal("Close:", err)
			}
			if n := <-got; n != size {
				t.Fatalf("%d bytes of %d arrived", n, size)
			}
			wg.Wait()
		}
	}
}

func testSessionCloseCode(t *testing.T, p Sessions) {
	x := newSessionPair(t, p)
	a, b := x.Open()
	put(t, a, "begun")
	want(t, b, "begun")
	done := make(chan error, 1)
	go func() { done <- read(b)() }()
	if err := x.c.Close(soon(t), 0x1006); err != nil {
		t.Fatal("Close:", err)
	}
	wantEnd(t, "Read, when we close", read(a)(), 0x1006, false)
	if _, err := x.c.Open(soon(t)); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Open after Close: %v", err)
	}
	if err := x.c.Close(context.Background(), 1); err != nil {
		t.Errorf("a second Close: %v", err)
	}
	wantEnd(t, "Read, when the peer closes", <-done, p.code(0x1006), true)
	ours, theirs := x.Wait()
	wantEnd(t, "our Serve", ours, 0x1006, false)
	wantEnd(t, "the peer's Serve", theirs, p.code(0x1006), true)
}

// A context that has ended closes at once, whatever is stuck.
func testSessionCloseAtOnce(t *testing.T, p Sessions) {
	x := newSessionPair(t, p)
	a, _ := x.Open()
	errs := blockedCalls(a)
	begin := time.Now()
	x.c.Close(ended(), 0)
	if d := time.Since(begin); d > 5*time.Second {
		t.Errorf("took %v", d)
	}
	wantAll(t, errs, func(err error) { wantEnd(t, "blocked call", err, 0, false) })
	wantEnd(t, "Serve after the end", x.c.Serve(func(muxer.Stream) {}), 0, false)
}

func testSessionDatagrams(t *testing.T, p Sessions) {
	x := newSessionPair(t, p)
	c, ok := x.c.(transport.Datagrams)
	if !ok {
		return
	}
	s := x.s.(transport.Datagrams)
	size := c.MaxDatagram()
	if size < 1000 {
		t.Fatalf("datagrams have at most %d bytes", size)
	}
	msg := make([]byte, size)
	new(pattern).Read(msg)
	for range 3 { // none is lost on an idle network
		if err := c.SendDatagram(msg); err != nil {
			t.Fatal(err)
		}
		if got, err := s.ReceiveDatagram(soon(t)); err != nil || !bytes.Equal(got, msg) {
			t.Errorf("got %d bytes of %d, %v", len(got), len(msg), err)
		}
	}
	if err := c.SendDatagram(make([]byte, 1<<16)); !errors.Is(err, transport.ErrDatagramTooLong) {
		t.Errorf("datagram of 64 KiB: %v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if _, err := s.ReceiveDatagram(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("ReceiveDatagram until its ctx ends: %v", err)
	}

	// Several may wait at the same time, and all hear of the end.
	got := make(chan error, 4)
	for range 4 {
		go func() { _, err := s.ReceiveDatagram(soon(t)); got <- err }()
	}
	for range 2 {
		c.SendDatagram(msg)
	}
	for range 2 {
		if err := <-got; err != nil {
			t.Error(err)
		}
	}
	x.c.Close(ended(), 7)
	for range 2 {
		wantEnd(t, "ReceiveDatagram", <-got, p.code(7), true)
	}
	wantEnd(t, "SendDatagram", c.SendDatagram(msg), 7, false)
}
