// Package muxertest is the suite that each muxer passes. It begins with
// nettest.TestConn, and has a test for each defect that was found in muxers in use.
//
// Tests that depend on time run in a testing/synctest bubble, over [Pipe].
package muxertest

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"os"
	"regexp"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/nettest"

	"github.com/plexus-p2p/plexus/muxer"
)

// A Subject is a muxer under test, and what its protocol is able to do.
type Subject struct {
	Muxer muxer.Muxer

	// Limited is the same muxer, but it lets the peer have 8 streams only.
	Limited muxer.Muxer

	// Windows tells that a writer waits for a slow reader. Without, Muxer's
	// queues have to be endless for this suite.
	Windows bool

	// Codes tells that the peer learns the code of Reset and Close.
	Codes bool

	// Backlog is how many streams may be opened before the peer acknowledges
	// one; 0: any number.
	Backlog int
}

// Test holds a muxer to all that muxer.Session and muxer.Stream promise.
func Test(t *testing.T, s Subject) {
	t.Run("Conn", func(t *testing.T) { testConn(t, s) })
	for _, c := range []struct {
		name string
		f    func(t *testing.T, s Subject)
	}{
		{"HalfClose", testHalfClose},
		{"CloseBeforeWrite", on(CloseBeforeWrite)},
		{"CloseUnread", testCloseUnread},
		{"CloseRead", testCloseRead},
		{"Reset", testReset},
		{"AfterReset", testAfterReset},
		{"Deadline", testDeadline},
		{"DeadlineWakesAll", testDeadlineWakesAll},
		{"WakeWhileStuck", testWakeWhileStuck},
		{"CloseWakesAll", testCloseWakesAll},
		{"SessionCloseWakesAll", testSessionCloseWakesAll},
		{"HangUpWakesAll", testHangUpWakesAll},
		{"BackPressure", testBackPressure},
		{"SlowReader", testSlowReader},
		{"NobodyReads", testNobodyReads},
		{"OtherReads", testOtherReads},
		{"TokenPassedOn", testTokenPassedOn},
		{"BackDuringAccept", testBackDuringAccept},
		{"TwoReaders", on(ManyReaders)},
		{"ConcurrentWriters", on(ManyWriters)},
		{"LostWakeUp", testLostWakeUp},
		{"CloseDuringWrite", testCloseDuringWrite},
		{"OpenBothWays", testOpenBothWays},
		{"OpenLeak", testOpenLeak},
		{"OpenWaits", testOpenWaits},
		{"Refusal", testRefusal},
		{"ResetStorm", testResetStorm},
		{"GracefulClose", testGracefulClose},
		{"CloseCode", testCloseCode},
		{"CloseAtOnce", testCloseAtOnce},
		{"CloseWithoutServe", testCloseWithoutServe},
		{"Lingering", testLingering},
		{"SilentPeer", testSilentPeer},
		{"Goroutines", testGoroutines},
		{"Writes", testWrites},
		{"SmallWrites", testSmallWrites},
		{"LoneWrite", testLoneWrite},
		{"Latency", testLatency},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { c.f(t, s) })
		})
	}
	t.Run("Chaos", func(t *testing.T) { testChaos(t, s) })
	t.Run("GracefulCloseTCP", func(t *testing.T) { gracefulClose(t, s, Kinds[len(Kinds)-1]) })
	t.Run("ManyAnswers", func(t *testing.T) { testManyAnswers(t, s) })
	t.Run("Idle", func(t *testing.T) { testIdle(t, s) })
	t.Run("Allocs", func(t *testing.T) { testAllocs(t, s) })
}

// A Kind of connection that sessions run on.
type Kind struct {
	Name string
	Make func(t testing.TB) (client, server net.Conn)
}

// Kinds are connections with different habits.
var Kinds = []Kind{
	{"memory", func(testing.TB) (net.Conn, net.Conn) { return Pipe(64 << 10) }},
	{"tight", func(testing.TB) (net.Conn, net.Conn) { return Pipe(7) }},
	{"unbuffered", func(testing.TB) (net.Conn, net.Conn) { return net.Pipe() }},
	{"records", func(testing.TB) (net.Conn, net.Conn) {
		a, b := Pipe(64 << 10)
		return Records(a, 65519), Records(b, 65519)
	}},
	{"small records", func(testing.TB) (net.Conn, net.Conn) {
		a, b := Pipe(64 << 10)
		return Records(a, 13), Records(b, 13)
	}},
	{"tcp", func(t testing.TB) (net.Conn, net.Conn) { return TCP(t) }},
}

// TCP returns the two ends of a TCP connection over loopback.
func TCP(t testing.TB) (client, server net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if client, err = net.Dial("tcp", l.Addr().String()); err != nil {
		t.Fatal(err)
	}
	if server, err = l.Accept(); err != nil {
		t.Fatal(err)
	}
	return client, server
}

func testConn(t *testing.T, s Subject) {
	for _, kind := range Kinds {
		t.Run(kind.Name, func(t *testing.T) {
			nettest.TestConn(t, func() (c1, c2 net.Conn, stop func(), err error) {
				p := connect(t, s.Muxer, kind)
				c1, c2 = p.Open()
				return c1, c2, p.Cut, nil
			})
		})
	}
}

// on is a shared check of a muxer.
func on(check func(*testing.T, *Pair)) func(*testing.T, Subject) {
	return func(t *testing.T, s Subject) { check(t, NewPair(t, s.Muxer)) }
}

// NewPair runs a session over a connection in memory.
func NewPair(t testing.TB, m muxer.Muxer) *Pair { return connect(t, m, Kinds[0]) }

func connect(t testing.TB, m muxer.Muxer, kind Kind) *Pair {
	t.Helper()
	a, b := kind.Make(t)
	p := Serve(t, m.New(a, true), m.New(b, false))
	p.conns = [2]net.Conn{a, b}
	return p
}

// past returns a context that has ended.
func past() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}

// within returns a context that ends after d.
func within(t testing.TB, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), d)
	t.Cleanup(cancel)
	return ctx
}

func wantErr(t testing.TB, what string, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("%s: got %v, want %v", what, err, want)
	}
}

// wantReset checks that err says that the stream was reset.
func wantReset(t testing.TB, what string, err error, code muxer.Code, remote bool) {
	t.Helper()
	e, ok := errors.AsType[*muxer.StreamError](err)
	if !ok || e.Code != code || e.Remote != remote {
		t.Errorf("%s: got %v, want a reset with code %#x, remote=%v", what, err, code, remote)
	}
}

// wantEnd checks that err says that the session ended.
func wantEnd(t testing.TB, what string, err error, remote bool) {
	t.Helper()
	e, ok := errors.AsType[*muxer.SessionError](err)
	if !ok || e.Remote != remote {
		t.Errorf("%s: got %v, want the end of the session, remote=%v", what, err, remote)
	}
}

func (s Subject) code(c muxer.Code) muxer.Code {
	if s.Codes {
		return c
	}
	return 0
}

// wantRead checks that the next bytes of r are want.
func wantRead(t testing.TB, r io.Reader, want string) {
	t.Helper()
	b := make([]byte, len(want))
	if n, err := io.ReadFull(r, b); err != nil || string(b) != want {
		t.Fatalf("read %q, %v; want %q", b[:n], err, want)
	}
}

func write(t testing.TB, w io.Writer, s string) {
	t.Helper()
	if n, err := w.Write([]byte(s)); n != len(s) || err != nil {
		t.Fatalf("Write of %d bytes: %d, %v", len(s), n, err)
	}
}

func testHalfClose(t *testing.T, s Subject) {
	p := NewPair(t, s.Muxer)
	HalfClose(t, p)
	for _, x := range []muxer.Session{p.Client, p.Server} {
		if st := x.Stats(); st.Received != 0 {
			t.Errorf("after both ends closed: %+v", st)
		}
	}
}

// A peer that closes without reading must not lose what it wrote, nor block us.
func testCloseUnread(t *testing.T, s Subject) {
	p := NewPair(t, s.Muxer)
	a, b := p.Open()
	write(t, b, "answer")
	write(t, a, strings.Repeat("unread", 1000))
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	for range 100 { // in all more than a window
		write(t, a, strings.Repeat("z", 10000))
	}
	a.CloseWrite()
	got, err := io.ReadAll(a)
	if string(got) != "answer" || err != nil {
		t.Errorf("got %q, %v", got, err)
	}
	if _, err := b.Read(make([]byte, 1)); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Read after Close: %v", err)
	}
	if _, err := b.Write(make([]byte, 1)); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Write after Close: %v", err)
	}
	synctest.Wait()
	if n := p.Server.Stats().Received; n != 0 {
		t.Errorf("%d bytes are held for a closed stream", n)
	}
}

func testCloseRead(t *testing.T, s Subject) {
	p := NewPair(t, s.Muxer)
	a, b := p.Open()
	read := make(chan error, 1)
	go func() {
		_, err := b.Read(make([]byte, 1))
		read <- err
	}()
	synctest.Wait()
	if err := b.CloseRead(); err != nil {
		t.Fatal(err)
	}
	wantErr(t, "blocked Read", <-read, net.ErrClosed)
	for range 100 {
		write(t, a, strings.Repeat("z", 10000))
	}
	write(t, b, "still here")
	wantRead(t, a, "still here")
}

func testReset(t *testing.T, s Subject) {
	p := NewPair(t, s.Muxer)
	for _, flip := range []bool{false, true} {
		a, b := p.Open()
		if flip {
			a, b = b, a
		}
		write(t, b, "never read")
		errs := make(chan error, 2)
		go func() {
			_, err := a.Read(make([]byte, 0, 1)[:1])
			for err == nil {
				_, err = a.Read(make([]byte, 1))
			}
			errs <- err
		}()
		synctest.Wait()
		if err := a.Reset(7); err != nil {
			t.Fatal(err)
		}
		wantReset(t, "own blocked Read", <-errs, 7, false)
		_, err := a.Write([]byte("x"))
		wantReset(t, "own Write", err, 7, false)
		synctest.Wait()
		_, err = b.Read(make([]byte, 1))
		wantReset(t, "peer's Read", err, s.code(7), true)
		_, err = b.Write(make([]byte, 1))
		wantReset(t, "peer's Write", err, s.code(7), true)
		for _, end := range []error{a.Close(), b.Close(), a.Reset(1), b.Reset(1)} {
			if end != nil {
				t.Errorf("ending a stream that was reset: %v", end)
			}
		}
	}
	a, b := p.Open() // the session goes on
	write(t, a, "x")
	wantRead(t, b, "x")
	synctest.Wait()
	if n := p.Client.Stats().Streams; n != 1 {
		t.Errorf("%d streams, want 1", n)
	}
}

// Who only writes hears of a reset and of the session's end, and of nothing else.
func testAfterReset(t *testing.T, s Subject) {
	p := NewPair(t, s.Muxer)
	told := make(chan string, 10)
	watch := func(what string) (a, b muxer.Stream) {
		a, b = p.Open()
		a.AfterReset(func() { told <- "not the last" })
		a.AfterReset(func() { told <- what })
		return a, b
	}
	heard := func(want string) {
		t.Helper()
		synctest.Wait()
		got := ""
		for len(told) > 0 {
			got += <-told
		}
		if got != want {
			t.Errorf("told %q, want %q", got, want)
		}
	}
	_, b := watch("the peer's reset")
	b.Reset(1)
	heard("the peer's reset")
	a, _ := watch("our reset")
	a.Reset(1)
	heard("our reset")
	a.AfterReset(func() { told <- "at once" })
	heard("at once")
	_, b = watch("the end of the session")
	write(t, b, "x")
	b.CloseWrite() // its direction only
	a, b = watch("a closed stream")
	a.Close()
	b.Close()
	a, b = watch("a closed direction")
	a.CloseWrite()
	b.Reset(1)
	heard("")
	p.conns[1].Close()
	heard("the end of the session")
}

func testDeadline(t *testing.T, s Subject) {
	p := NewPair(t, s.Muxer)
	a, b := p.Open()
	for _, set := range []func(time.Time) error{a.SetReadDeadline, a.SetDeadline} {
		start := time.Now()
		set(start.Add(time.Hour))
		set(start.Add(time.Second))
		_, err := a.Read(make([]byte, 1))
		wantErr(t, "Read", err, os.ErrDeadlineExceeded)
		if e, ok := err.(net.Error); !ok || !e.Timeout() {
			t.Errorf("%v is not a timeout as net has them", err)
		}
		if d := time.Since(start); d != time.Second {
			t.Errorf("a deadline of 1 s ended the Read after %v", d)
		}
		set(time.Time{})
	}
	// However many there are, none is taken for an error of the connection.
	for range 1000 {
		a.SetReadDeadline(time.Now().Add(time.Millisecond))
		_, err := a.Read(make([]byte, 1))
		wantErr(t, "Read", err, os.ErrDeadlineExceeded)
	}
	// One that moves away does not end the Read.
	start := time.Now()
	a.SetReadDeadline(start.Add(time.Second))
	time.AfterFunc(500*time.Millisecond, func() { a.SetReadDeadline(start.Add(3 * time.Second)) })
	time.AfterFunc(2*time.Second, func() { b.Write([]byte("late")) })
	wantRead(t, a, "late")
	// Data that waits is not returned after the deadline, nor lost.
	write(t, b, "kept")
	time.Sleep(5 * time.Second)
	_, err := a.Read(make([]byte, 4))
	wantErr(t, "Read after the deadline", err, os.ErrDeadlineExceeded)
	a.SetReadDeadline(time.Time{})
	wantRead(t, a, "kept")
}

// blocked starts 8 goroutines that read, and 8 that write if the muxer has windows,
// and returns where their errors come out once all of them are blocked.
func blocked(t *testing.T, s Subject, a muxer.Stream) (errs chan error, n int) {
	errs = make(chan error, 16)
	for range 8 {
		n++
		go func() {
			_, err := a.Read(make([]byte, 1))
			errs <- err
		}()
		if s.Windows {
			n++
			go func() {
				var err error
				for err == nil {
					_, err = a.Write(make([]byte, 10000))
				}
				errs <- err
			}()
		}
	}
	synctest.Wait()
	return errs, n
}

// wantAll waits for n errors, for a second.
func wantAll(t *testing.T, errs chan error, n int, check func(error)) {
	t.Helper()
	timeout := time.After(time.Second)
	for i := range n {
		select {
		case err := <-errs:
			check(err)
		case <-timeout:
			t.Fatalf("%d of %d calls are still blocked", n-i, n)
		}
	}
}

func testDeadlineWakesAll(t *testing.T, s Subject) {
	p := NewPair(t, s.Muxer)
	a, b := p.Open()
	for _, d := range []time.Duration{-time.Hour, 0, 10 * time.Millisecond} {
		errs, n := blocked(t, s, a)
		a.SetDeadline(time.Now().Add(d))
		wantAll(t, errs, n, func(err error) { wantErr(t, "blocked call", err, os.ErrDeadlineExceeded) })
		a.SetDeadline(time.Time{})
	}
	go io.Copy(io.Discard, b) // the stream still works
	for range 100 {
		write(t, a, strings.Repeat("z", 10000))
	}
	write(t, b, "y")
	wantRead(t, a, "y")
}

// A Write ends at its deadline even if the connection takes no bytes at all.
// A Write that waits for a peer which reads nothing at all is woken by what ends it.
// What it wrote arrives all the same once the peer reads, unless the stream was reset.
func testWakeWhileStuck(t *testing.T, s Subject) {
	for _, kind := range Kinds[:len(Kinds)-1] { // not TCP, which a bubble cannot see through
		for _, c := range []struct {
			name string
			wake func(muxer.Stream)
			want func(error)
		}{
			{"nothing new", nil, func(err error) { wantErr(t, kind.Name+": Write", err, os.ErrDeadlineExceeded) }},
			{"SetWriteDeadline", func(st muxer.Stream) { st.SetWriteDeadline(time.Now()) }, func(err error) { wantErr(t, kind.Name+": Write", err, os.ErrDeadlineExceeded) }},
			{"Close", func(st muxer.Stream) { st.Close() }, func(err error) { wantErr(t, kind.Name+": Write", err, net.ErrClosed) }},
			{"CloseWrite", func(st muxer.Stream) { st.CloseWrite() }, func(err error) { wantErr(t, kind.Name+": Write", err, net.ErrClosed) }},
			{"Reset", func(st muxer.Stream) { st.Reset(1) }, func(err error) { wantReset(t, kind.Name+": Write", err, 1, false) }},
		} {
			a, b := kind.Make(t)
			x, y := s.Muxer.New(a, true), s.Muxer.New(b, false)
			var served sync.WaitGroup
			served.Go(func() { x.Serve(func(muxer.Stream) {}) })
			st, err := x.Open(context.Background())
			if err != nil {
				t.Fatal(err)
			}
			if c.wake == nil {
				st.SetWriteDeadline(time.Now().Add(time.Second))
			}
			start := time.Now()
			msg := make([]byte, 1<<20)
			for i := range msg {
				msg[i] = byte(i % 251)
			}
			type result struct {
				n   int
				err error
			}
			wrote := make(chan result, 1)
			go func() {
				n, err := st.Write(msg)
				wrote <- result{n, err}
			}()
			time.Sleep(time.Second)
			if c.wake != nil {
				go c.wake(st)
			}
			synctest.Wait()
			var r result
			select {
			case r = <-wrote:
			default:
				t.Fatalf("%s: %s did not wake the Write", kind.Name, c.name)
			}
			if c.want(r.err); time.Since(start) != time.Second {
				t.Errorf("%s: %s took %v", kind.Name, c.name, time.Since(start)-time.Second)
			}
			st.SetReadDeadline(time.Now().Add(time.Second))
			if _, err := st.Read(make([]byte, 1)); err == nil {
				t.Error("Read returned")
			}

			// The peer wakes up. Another stream sees that no frame is torn.
			accepted := make(chan muxer.Stream, 2)
			served.Go(func() { y.Serve(func(st muxer.Stream) { accepted <- st }) })
			other, err := x.Open(context.Background())
			if err != nil {
				t.Fatal(err)
			}
			write(t, other, "whole")
			if c.name != "Reset" {
				st.CloseWrite()
				got, err := io.ReadAll(<-accepted)
				if err != nil || !bytes.Equal(got, msg[:r.n]) {
					t.Errorf("%s: %s: the peer read %d bytes, %v, Write said %d", kind.Name, c.name, len(got), err, r.n)
				}
			}
			in := <-accepted
			if c.name == "Reset" {
				in = <-accepted
			}
			wantRead(t, in, "whole")
			x.Close(past(), 0)
			y.Close(past(), 0)
			served.Wait()
		}
	}
}

func testCloseWakesAll(t *testing.T, s Subject) {
	p := NewPair(t, s.Muxer)
	a, _ := p.Open()
	errs, n := blocked(t, s, a)
	a.Close()
	wantAll(t, errs, n, func(err error) { wantErr(t, "blocked call", err, net.ErrClosed) })

	a, b := p.Open()
	errs, n = blocked(t, s, a)
	b.Reset(3)
	wantAll(t, errs, n, func(err error) { wantReset(t, "blocked call", err, s.code(3), true) })
}

func testSessionCloseWakesAll(t *testing.T, s Subject) {
	p := NewPair(t, s.Muxer)
	a, _ := p.Open()
	_, b := p.Open()
	errs, n := blocked(t, s, a)
	errs2, n2 := blocked(t, s, b)
	p.Client.Close(past(), 5)
	wantAll(t, errs, n, func(err error) {
		wantEnd(t, "blocked call", err, false)
		wantErr(t, "blocked call", err, net.ErrClosed)
	})
	wantAll(t, errs2, n2, func(err error) { wantEnd(t, "peer's blocked call", err, true) })
}

func testHangUpWakesAll(t *testing.T, s Subject) {
	p := NewPair(t, s.Muxer)
	a, _ := p.Open()
	errs, n := blocked(t, s, a)
	p.conns[1].Close()
	wantAll(t, errs, n, func(err error) {
		wantEnd(t, "blocked call", err, true)
		if errors.Is(err, io.EOF) {
			t.Error("the end of the connection is taken for the end of the stream")
		}
	})
	if _, err := p.Client.Open(context.Background()); err == nil {
		t.Error("Open works after the end")
	}
}

func testBackPressure(t *testing.T, s Subject) {
	if !s.Windows {
		return // the protocol has no windows
	}
	p := NewPair(t, s.Muxer)
	a, b := p.Open()
	a.SetWriteDeadline(time.Now().Add(time.Second))
	sent := 0
	var err error
	for err == nil {
		var n int
		n, err = a.Write(make([]byte, 100000))
		sent += n
	}
	wantErr(t, "Write", err, os.ErrDeadlineExceeded)
	if sent < 200<<10 || sent > 1<<20 {
		t.Errorf("%d bytes were taken for a reader that does not read", sent)
	}
	if st := p.Server.Stats(); st.Received > sent*11/10+2<<10 {
		t.Errorf("%d bytes cost %d", sent, st.Received)
	}
	a.SetWriteDeadline(time.Time{})
	a.CloseWrite()
	if n, err := io.Copy(io.Discard, b); int(n) != sent || err != nil {
		t.Errorf("read %d, %v; sent %d", n, err, sent)
	}
}

// A stream whose reader does not read never holds up another.
func testSlowReader(t *testing.T, s Subject) {
	p := NewPair(t, s.Muxer)
	slow, _ := p.Open()
	a, b := p.Open()
	go func() {
		for range 200 {
			if _, err := slow.Write(make([]byte, 10000)); err != nil {
				return
			}
		}
	}()
	go io.Copy(b, b)
	start := time.Now()
	for range 100 {
		write(t, a, "ping")
		wantRead(t, a, "ping")
	}
	if d := time.Since(start); d > 100*time.Millisecond {
		t.Errorf("100 round trips beside a slow reader took %v", d)
	}
}

// What arrives is dealt with within a moment even if no stream is read.
func testNobodyReads(t *testing.T, s Subject) {
	p := NewPair(t, s.Muxer)
	a, b := p.Open()
	write(t, b, "x")
	wantRead(t, a, "x") // its reader had the read token, and does not come back
	start := time.Now()
	write(t, b, "y")
	for !a.Ready() {
		time.Sleep(time.Millisecond)
	}
	if d := time.Since(start); d > 5*time.Millisecond {
		t.Errorf("data was received after %v", d)
	}
	c, err := p.Client.Open(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	write(t, c, "z")
	start = time.Now()
	<-p.Accepted
	if d := time.Since(start); d > 5*time.Millisecond {
		t.Errorf("a stream was accepted after %v", d)
	}
	p.conns[1].Close()
	start = time.Now()
	p.Wait()
	if d := time.Since(start); d > 5*time.Millisecond {
		t.Errorf("the end was noticed after %v", d)
	}
}

// A reader gets its bytes while others read, come late, or leave.
func testOtherReads(t *testing.T, s Subject) {
	p := NewPair(t, s.Muxer)
	const n = 20
	var as, bs [n]muxer.Stream
	for i := range n {
		as[i], bs[i] = p.Open()
	}
	var wg sync.WaitGroup
	for i, a := range as {
		wg.Go(func() {
			for j := range 50 {
				want := []byte{byte(i), byte(j)}
				got := make([]byte, 2)
				start := time.Now()
				if i%3 == 0 { // give up now and then, maybe while leading
					a.SetReadDeadline(start.Add(time.Duration(j) * 100 * time.Microsecond))
				}
				_, err := io.ReadFull(a, got)
				if errors.Is(err, os.ErrDeadlineExceeded) {
					a.SetReadDeadline(time.Time{})
					_, err = io.ReadFull(a, got)
				}
				if err != nil || !bytes.Equal(got, want) {
					t.Errorf("got %v, %v; want %v", got, err, want)
					return
				}
				if d := time.Since(start); d > 10*time.Millisecond {
					t.Errorf("waited %v", d)
				}
				time.Sleep(time.Duration(i*j%7) * 300 * time.Microsecond)
			}
		})
		wg.Go(func() {
			for j := range 50 {
				time.Sleep(time.Duration((i+j)%5) * 400 * time.Microsecond)
				bs[i].Write([]byte{byte(i), byte(j)})
			}
		})
	}
	wg.Wait()
}

// A reader or writer that is to read the connection for all, and has to leave at
// that very moment, sees to it that another does.
func testTokenPassedOn(t *testing.T, s Subject) {
	p := NewPair(t, s.Muxer)
	gone, _ := p.Open()
	full, _ := p.Open()
	last, c := p.Open()
	for i := range 200 {
		lead, l := p.Open()
		var reader, others sync.WaitGroup
		reader.Go(func() { lead.Read(make([]byte, 1)) })
		synctest.Wait()
		leave := func() { gone.SetReadDeadline(time.Now()) }
		if i%2 == 0 || !s.Windows {
			others.Go(func() { gone.Read(make([]byte, 1)) })
		} else {
			leave = func() { full.SetWriteDeadline(time.Now()) }
			others.Go(func() {
				for err := error(nil); err == nil; {
					_, err = full.Write(make([]byte, 100000))
				}
			})
		}
		synctest.Wait()
		others.Go(func() { last.Read(make([]byte, 1)) })
		synctest.Wait()

		write(t, l, "x")
		reader.Wait()
		lead.CloseRead() // its readers do not come back: wakes the first of the others
		leave()
		synctest.Wait()
		start := time.Now()
		write(t, c, "x")
		others.Wait()
		if d := time.Since(start); d > 5*time.Millisecond {
			t.Fatalf("waited %v though all others have left", d)
		}
		lead.Close()
		l.Close()
		gone.SetReadDeadline(time.Time{})
		full.SetWriteDeadline(time.Time{})
	}
}

// A leader that steps back for a reader, who has answered and waits again by the time
// that the accept function returns, does not leave both waiting.
func testBackDuringAccept(t *testing.T, s Subject) {
	a, b := Pipe(64 << 10)
	gate := &gated{a, make(chan struct{}, 1)}
	x, y := s.Muxer.New(gate, true), s.Muxer.New(b, false)
	accepted, accepting := make(chan muxer.Stream, 4), make(chan struct{})
	var served, ends sync.WaitGroup
	served.Go(func() { x.Serve(func(muxer.Stream) {}) })
	count := 0
	served.Go(func() {
		y.Serve(func(st muxer.Stream) {
			if count++; count == 4 {
				<-accepting
			}
			accepted <- st
		})
	})
	var ours, theirs [4]muxer.Stream
	for i := range 3 {
		var err error
		if ours[i], err = x.Open(context.Background()); err != nil {
			t.Fatal(err)
		}
		write(t, ours[i], "h")
		theirs[i] = <-accepted
		wantRead(t, theirs[i], "h")
	}
	quick := ours[1]
	write(t, quick, "q")
	wantRead(t, theirs[1], "q")
	ends.Go(func() { theirs[0].Read(make([]byte, 1)) }) // leads
	synctest.Wait()
	ends.Go(func() { io.Copy(theirs[1], theirs[1]) }) // is quick, and waits
	synctest.Wait()

	// Something for the quick reader and a new stream arrive together.
	var err error
	if ours[3], err = x.Open(context.Background()); err != nil {
		t.Fatal(err)
	}
	gate.gate <- struct{}{}
	for _, st := range []muxer.Stream{ours[2], quick, ours[3]} {
		ends.Go(func() { st.Write([]byte("q")) })
		synctest.Wait()
	}
	<-gate.gate
	wantRead(t, quick, "q")
	synctest.Wait()
	close(accepting)
	<-accepted
	start := time.Now()
	write(t, quick, "q")
	wantRead(t, quick, "q")
	if d := time.Since(start); d > 0 {
		t.Errorf("the answer took %v", d)
	}
	x.Close(past(), 0)
	y.Close(past(), 0)
	served.Wait()
	ends.Wait()
}

// A gated connection holds Writes back while somebody has put something into its gate.
type gated struct {
	net.Conn
	gate chan struct{}
}

func (g *gated) Write(p []byte) (int, error) {
	g.gate <- struct{}{}
	defer func() { <-g.gate }()
	return g.Conn.Write(p)
}

// Eight writers on one stream whose peer always reads: in go-yamux they stalled for
// good in six runs of seven.
func testLostWakeUp(t *testing.T, s Subject) {
	p := NewPair(t, s.Muxer)
	a, b := p.Open()
	const writers, each, size = 8, 60, 32 << 10
	var wg sync.WaitGroup
	for range writers {
		wg.Go(func() {
			for range each {
				if _, err := a.Write(make([]byte, size)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	start := time.Now()
	go func() {
		wg.Wait()
		a.CloseWrite()
	}()
	if n, err := io.Copy(io.Discard, b); n != writers*each*size || err != nil {
		t.Errorf("read %d bytes of %d, %v", n, writers*each*size, err)
	}
	if d := time.Since(start); d > 100*time.Millisecond {
		t.Errorf("took %v, on a link without latency", d)
	}
}

func testCloseDuringWrite(t *testing.T, s Subject) {
	CloseDuringWrite(t, NewPair(t, s.Muxer), 10<<20, s.Windows)
}

func testOpenBothWays(t *testing.T, s Subject) {
	a, b := Pipe(64 << 10)
	OpenBothWays(t, s.Muxer.New(a, true), s.Muxer.New(b, false), 50)
}

// A stream that fails, in whatever way, gives its place in the backlog back. In
// go-yamux 256 of them blocked a connection.
func testOpenLeak(t *testing.T, s Subject) {
	p := NewPair(t, s.Muxer)
	go func() {
		for st := range p.Accepted {
			st.Reset(1)
		}
	}()
	ctx := within(t, time.Minute)
	for i := range 1000 {
		st, err := p.Client.Open(ctx)
		if err != nil {
			t.Fatalf("Open %d: %v", i, err)
		}
		switch i % 4 {
		case 0:
			st.Write([]byte("x"))
			st.Read(make([]byte, 1)) // until it is reset
		case 1:
			st.Reset(1) // before the peer knows of it
		case 2:
			st.Write([]byte("x"))
			st.Reset(1)
		case 3:
			st.Close()
		}
	}
	synctest.Wait()
	time.Sleep(10 * time.Millisecond)
	if n := p.Client.Stats().Streams; n != 0 {
		t.Errorf("%d streams are left", n)
	}
	close(p.Accepted)
}

// Open waits while the backlog is full, until its context ends.
func testOpenWaits(t *testing.T, s Subject) {
	if s.Backlog == 0 {
		return // the protocol has no acknowledgement
	}
	a, b := Pipe(1 << 20)
	x := s.Muxer.New(a, true)
	var served sync.WaitGroup
	served.Go(func() { x.Serve(func(muxer.Stream) {}) })
	ctx := within(t, time.Second)
	start := time.Now()
	for i := range s.Backlog {
		st, err := x.Open(ctx)
		if err != nil {
			t.Fatalf("Open %d: %v", i, err)
		}
		write(t, st, "x")
	}
	_, err := x.Open(ctx)
	wantErr(t, "Open", err, context.DeadlineExceeded)
	if d := time.Since(start); d != time.Second {
		t.Errorf("a context of 1 s ended Open after %v", d)
	}
	// A peer comes at last, and acknowledges.
	y := s.Muxer.New(b, false)
	served.Go(func() { y.Serve(func(muxer.Stream) {}) })
	start = time.Now()
	if _, err := x.Open(within(t, time.Second)); err != nil {
		t.Error(err)
	}
	if d := time.Since(start); d > 10*time.Millisecond {
		t.Errorf("acknowledgements were seen after %v", d)
	}
	// The session's end ends it as well.
	z := s.Muxer.New(func() net.Conn { a, _ := Pipe(1 << 20); return a }(), true)
	served.Go(func() { z.Serve(func(muxer.Stream) {}) })
	for range s.Backlog {
		z.Open(context.Background())
	}
	time.AfterFunc(time.Second, func() { z.Close(past(), 9) })
	_, err = z.Open(context.Background())
	wantEnd(t, "Open", err, false)
	x.Close(past(), 0)
	y.Close(past(), 0)
	served.Wait()
}

// Streams over the limit are reset; the others go on. In go-yamux a stream whose memory
// was refused ended the connection.
func testRefusal(t *testing.T, s Subject) {
	p := NewPair(t, s.Limited)
	a, b := p.Open()
	var streams []muxer.Stream
	for range 10000 {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		st, err := p.Client.Open(ctx)
		cancel()
		if err != nil {
			t.Fatal(err)
		}
		write(t, st, "x")
		streams = append(streams, st)
		if n := p.Server.Stats().Streams; n > 8 {
			t.Fatalf("the server has %d streams", n)
		}
	}
	synctest.Wait()
	time.Sleep(10 * time.Millisecond)
	refused := 0
	for _, st := range streams {
		if st.Ready() {
			_, err := st.Read(make([]byte, 1))
			wantReset(t, "Read", err, s.code(muxer.StreamResourceLimitExceeded), true)
			refused++
		}
	}
	if refused != 9993 {
		t.Errorf("%d of 10000 streams were refused, want 9993", refused)
	}
	write(t, a, "hello")
	wantRead(t, b, "hello")
	for range 7 { // each that ends makes room for another
		(<-p.Accepted).Reset(0)
	}
	synctest.Wait()
	c, d := p.Open()
	write(t, c, "again")
	wantRead(t, d, "again")
	if n := p.Client.Stats().Streams; n != 2 {
		t.Errorf("%d streams are left", n)
	}
}

// Two ends that reset everything at once, from where they read, do not wait for each other, even if the
// connection holds next to nothing.
func testResetStorm(t *testing.T, s Subject) {
	a, b := Pipe(16)
	x, y := s.Limited.New(a, true), s.Limited.New(b, false)
	var served, clients sync.WaitGroup
	for _, z := range []muxer.Session{x, y} {
		served.Go(func() { z.Serve(func(s muxer.Stream) { s.Reset(1) }) })
		for range 20 {
			clients.Go(func() {
				for range 100 {
					st, err := z.Open(within(t, time.Minute))
					if err != nil {
						t.Error(err)
						return
					}
					st.SetDeadline(time.Now().Add(time.Minute))
					st.Write([]byte("x"))
					if _, err := st.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
						t.Errorf("Read: %v", err)
					}
				}
			})
		}
	}
	clients.Wait()
	x.Close(past(), 0)
	y.Close(past(), 0)
	served.Wait()
}

// gracefulClose checks twenty times of twenty: "Write ok → Close ok → the whole message
// arrived". With go-libp2p it was three or four.
func gracefulClose(t *testing.T, s Subject, kind Kind) {
	for _, size := range []int{100, 10000, 200000} {
		for range 20 {
			p := connect(t, s.Muxer, kind)
			a, _ := p.Client.Open(context.Background())
			msg := strings.Repeat("m", size)
			write(t, a, msg)
			if err := a.CloseWrite(); err != nil {
				t.Fatal(err)
			}
			if err := p.Client.Close(within(t, 10*time.Second), 0); err != nil {
				t.Fatal("Close:", err)
			}
			b := <-p.Accepted
			got, err := io.ReadAll(b)
			if len(got) != size || err != nil {
				t.Fatalf("read %d of %d bytes, %v", len(got), size, err)
			}
		}
	}
}

func testGracefulClose(t *testing.T, s Subject) {
	for _, kind := range Kinds {
		if kind.Name == "memory" || kind.Name == "records" {
			gracefulClose(t, s, kind)
		}
	}
	// Without the end of the stream, the reader learns that something is missing.
	p := NewPair(t, s.Muxer)
	a, _ := p.Open()
	b, c := p.Open()
	write(t, a, "begun")
	write(t, b, "done")
	b.Close()
	start := time.Now()
	if err := p.Client.Close(within(t, 10*time.Second), 17); err != nil {
		t.Fatal("Close:", err)
	}
	if d := time.Since(start); d > 100*time.Millisecond {
		t.Errorf("Close took %v though the peer hung up", d)
	}
	got, err := io.ReadAll(c)
	if string(got) != "done" || err != nil {
		t.Errorf("got %q, %v", got, err)
	}
}

func testCloseCode(t *testing.T, s Subject) {
	p := NewPair(t, s.Muxer)
	a, b := p.Open()
	write(t, a, "begun")
	if err := p.Client.Close(within(t, 10*time.Second), 17); err != nil {
		t.Fatal("Close:", err)
	}
	got, err := io.ReadAll(b)
	if string(got) != "begun" {
		t.Errorf("got %q", got)
	}
	if e, ok := errors.AsType[*muxer.SessionError](err); !ok || !e.Remote || e.Code != s.code(17) {
		t.Errorf("the peer's streams end with %v, want code %#x", err, s.code(17))
	}
	_, err = a.Read(make([]byte, 1))
	if e, ok := errors.AsType[*muxer.SessionError](err); !ok || e.Remote || e.Code != 17 {
		t.Errorf("our streams end with %v", err)
	}
	if _, err := p.Client.Open(context.Background()); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Open after Close: %v", err)
	}
	if err := p.Client.Close(context.Background(), 1); err != nil {
		t.Errorf("a second Close: %v", err)
	}
	p.Wait()
}

// A context that has ended closes at once, whatever is stuck.
func testCloseAtOnce(t *testing.T, s Subject) {
	a, b := Pipe(10)
	x := s.Muxer.New(a, true)
	var wg sync.WaitGroup
	wg.Go(func() { wantEnd(t, "Serve", x.Serve(func(muxer.Stream) {}), false) })
	for range 3 {
		st, err := x.Open(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		wg.Go(func() {
			var err error
			for err == nil {
				_, err = st.Write(make([]byte, 1000))
			}
			wantEnd(t, "Write", err, false)
		})
	}
	synctest.Wait()
	start := time.Now()
	if err := x.Close(within(t, time.Second), 0); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Close that could not send everything: %v", err)
	}
	if d := time.Since(start); d != time.Second {
		t.Errorf("Close took %v", d)
	}
	wg.Wait()
	b.Close()
}

func testCloseWithoutServe(t *testing.T, s Subject) {
	a, b := Pipe(1000)
	x := s.Muxer.New(a, true)
	st, err := x.Open(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	write(t, st, "x")
	if err := x.Close(within(t, time.Second), 0); err != nil {
		t.Error(err)
	}
	_, err = st.Read(make([]byte, 1))
	wantEnd(t, "Read", err, false)
	wantEnd(t, "Serve", x.Serve(func(muxer.Stream) {}), false)
	if _, err := io.Copy(io.Discard, b); err != nil {
		t.Error(err)
	}
}

// The peer reads on after we have said goodbye, and what it still sends arrives.
func testLingering(t *testing.T, s Subject) {
	p := NewPair(t, s.Muxer)
	a, b := p.Open()
	closed := make(chan error)
	time.AfterFunc(time.Second, func() { closed <- p.Client.Close(within(t, time.Minute), 0) })
	p.conns[1] = nil
	if err := <-closed; err != nil {
		t.Error(err)
	}
	_, err := b.Read(make([]byte, 1))
	wantEnd(t, "Read", err, true)
	_, err = a.Read(make([]byte, 1))
	wantEnd(t, "Read", err, false)
}

// A peer that falls silent in the middle of a frame, and one that hangs up there.
func testSilentPeer(t *testing.T, s Subject) {
	// What a client sends for one stream and 100 bytes.
	a, b := Pipe(1000)
	x := s.Muxer.New(a, true)
	st, _ := x.Open(context.Background())
	write(t, st, strings.Repeat("b", 100))
	x.Close(past(), 0)
	sent, _ := io.ReadAll(b)

	for cut := 1; cut < len(sent); cut += 3 {
		for _, hangUp := range []bool{false, true} {
			a, b := Pipe(1000)
			y := s.Muxer.New(a, false)
			var wg sync.WaitGroup
			wg.Go(func() {
				err := y.Serve(func(st muxer.Stream) {
					wg.Go(func() {
						_, err := io.ReadFull(st, make([]byte, 100))
						wantEnd(t, "Read", err, hangUp)
					})
				})
				wantEnd(t, "Serve", err, hangUp)
			})
			b.Write(sent[:cut])
			synctest.Wait()
			if hangUp {
				b.Close()
			} else {
				y.Close(within(t, time.Second), 0)
			}
			wg.Wait()
		}
	}
}

// goroutines counts those of the bubble.
func goroutines() int {
	buf := make([]byte, 1<<20)
	all := string(buf[:runtime.Stack(buf, true)])
	bubble := regexp.MustCompile(`synctest bubble \d+`).FindString(all) // our own comes first
	return strings.Count(all, bubble+"]")
}

// A session has one goroutine at each end, and none after its end.
func testGoroutines(t *testing.T, s Subject) {
	before := goroutines()
	p := NewPair(t, s.Muxer)
	var as, bs []muxer.Stream
	for range 20 {
		a, b := p.Open()
		write(t, b, "x")
		wantRead(t, a, "x")
		a.SetReadDeadline(time.Now().Add(time.Second))
		a.Read(make([]byte, 1))
		as, bs = append(as, a), append(bs, b)
	}
	time.Sleep(time.Second)
	synctest.Wait()
	if n := goroutines() - before; n != 2 {
		t.Errorf("%d goroutines for two idle ends of a session, want 2", n)
	}
	for i := range as {
		as[i].Close()
		bs[i].Close()
	}
	p.Client.Close(within(t, time.Minute), 0)
	p.Wait()
	synctest.Wait()
	if n := goroutines() - before; n != 0 {
		t.Errorf("%d goroutines are left", n)
	}
}

// Opening, an echo and closing cost one write to the connection at each end, if
// something follows.
func testWrites(t *testing.T, s Subject) {
	a, b := Pipe(64 << 10)
	ca, cb := &counter{Conn: a}, &counter{Conn: b}
	x, y := s.Muxer.New(ca, true), s.Muxer.New(cb, false)
	var served sync.WaitGroup
	served.Go(func() { x.Serve(func(muxer.Stream) {}) })
	served.Go(func() {
		y.Serve(func(st muxer.Stream) {
			go func() {
				io.Copy(st, st)
				st.Close()
			}()
		})
	})
	const n = 100
	for range n {
		st, err := x.Open(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		write(t, st, "hello")
		wantRead(t, st, "hello")
		st.Close()
	}
	if a, b := ca.writes.Load(), cb.writes.Load(); a > n+2 || b > n+2 {
		t.Errorf("%d streams cost %d writes, and %d at the other end", n, a, b)
	}
	time.Sleep(10 * time.Millisecond)
	if n := x.Stats().Streams + y.Stats().Streams; n != 0 {
		t.Errorf("%d ends of streams are left", n)
	}
	x.Close(past(), 0)
	y.Close(past(), 0)
	served.Wait()
}

// Small Writes in a row share frames and writes to the connection, and are delivered
// whatever ends the stream; a lone one goes out before it returns.
func testSmallWrites(t *testing.T, s Subject) {
	const n = 10_000
	number := func(i int) []byte { return binary.BigEndian.AppendUint32(nil, uint32(i)) }
	for name, end := range map[string]func(muxer.Stream, muxer.Session){
		"CloseWrite":    func(st muxer.Stream, _ muxer.Session) { st.CloseWrite() },
		"Close":         func(st muxer.Stream, _ muxer.Session) { st.Close() },
		"session Close": func(st muxer.Stream, x muxer.Session) { st.Close(); x.Close(within(t, time.Minute), 0) },
	} {
		a, b := Pipe(64 << 10)
		c := &counter{Conn: a}
		x, y := s.Muxer.New(c, true), s.Muxer.New(b, false)
		accepted := make(chan muxer.Stream, 1)
		var served sync.WaitGroup
		served.Go(func() { x.Serve(func(muxer.Stream) {}) })
		served.Go(func() { y.Serve(func(st muxer.Stream) { accepted <- st }) })
		st, err := x.Open(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		served.Go(func() {
			for i := range n {
				if k, err := st.Write(number(i)); k != 4 || err != nil {
					t.Errorf("Write: %d, %v", k, err)
				}
			}
			end(st, x)
		})
		in := <-accepted
		got, err := io.ReadAll(in)
		if err != nil || len(got) != 4*n {
			t.Fatalf("%s: %d bytes arrived of %d, %v", name, len(got), 4*n, err)
		}
		for i := range n {
			if !bytes.Equal(got[4*i:4*i+4], number(i)) {
				t.Fatalf("%s: Write %d arrived as %x", name, i, got[4*i:4*i+4])
			}
		}
		if w := c.writes.Load(); w > n/10 {
			t.Errorf("%s: %d Writes cost %d of the connection", name, n, w)
		}
		x.Close(past(), 0)
		y.Close(past(), 0)
		served.Wait()
	}

	// One who writes a little at a time waits for a peer that does not read, as others
	// do, and loses nothing.
	p := NewPair(t, s.Muxer)
	st, in := p.Open()
	st.SetWriteDeadline(time.Now().Add(time.Second))
	sent := 0
	for err := error(nil); err == nil && sent < 10<<20; {
		var k int
		k, err = st.Write(make([]byte, 100))
		sent += k
	}
	if s.Windows && sent >= 10<<20 {
		t.Errorf("%d bytes were taken though nobody reads", sent)
	}
	if s.Windows { // else the queue has overflowed
		st.CloseWrite()
		if got, err := io.ReadAll(in); len(got) != sent || err != nil {
			t.Errorf("read %d bytes of %d, %v", len(got), sent, err)
		}
	}
}

// Streams that are answered at the same time share system calls. No bubble: it cannot see
// through TCP, so time would stand still while somebody reads.
func testManyAnswers(t *testing.T, s Subject) {
	const streams, trips = 50, 100
	a, b := TCP(t)
	c, d := &counter{Conn: a}, &counter{Conn: b}
	x, y := s.Muxer.New(c, true), s.Muxer.New(d, false)
	var served, done sync.WaitGroup
	served.Go(func() { x.Serve(func(muxer.Stream) {}) })
	served.Go(func() { y.Serve(func(st muxer.Stream) { go func() { io.Copy(st, st); st.Close() }() }) })
	for range streams {
		st, err := x.Open(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		done.Go(func() {
			defer st.Close()
			out, in := make([]byte, 1000), make([]byte, 1000)
			for i := range trips {
				out[0] = byte(i)
				st.Write(out)
				if _, err := io.ReadFull(st, in); err != nil || in[0] != out[0] {
					t.Errorf("%v, answer %d to %d", err, in[0], out[0])
					return
				}
			}
		})
	}
	done.Wait()
	if w := c.writes.Load() + d.writes.Load(); w > streams*trips {
		t.Errorf("%d trips took %d Writes of both connections", streams*trips, w)
	} else {
		t.Logf("%.2f Writes of both connections a trip", float64(w)/(streams*trips))
	}
	x.Close(past(), 0)
	y.Close(past(), 0)
	served.Wait()
}

// A Write that comes alone goes out before it returns, also after many in a row.
func testLoneWrite(t *testing.T, s Subject) {
	a, b := Pipe(64 << 10)
	c := &counter{Conn: a}
	x, y := s.Muxer.New(c, true), s.Muxer.New(b, false)
	accepted := make(chan muxer.Stream, 1)
	var served sync.WaitGroup
	served.Go(func() { x.Serve(func(muxer.Stream) {}) })
	served.Go(func() { y.Serve(func(st muxer.Stream) { accepted <- st }) })
	st, err := x.Open(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	for range 10 {
		write(t, st, "hurry")
	}
	in := <-accepted
	wantRead(t, in, strings.Repeat("hurry", 10))
	for _, pause := range []func(){
		func() { time.Sleep(time.Millisecond) },
		func() { write(t, in, "answer"); wantRead(t, st, "answer") },
	} {
		pause()
		before := c.writes.Load()
		write(t, st, "alone")
		if n := c.writes.Load() - before; n != 1 {
			t.Errorf("%d writes went to the connection, want 1", n)
		}
		wantRead(t, in, "alone")
	}
	x.Close(past(), 0)
	y.Close(past(), 0)
	served.Wait()
}

type counter struct {
	net.Conn
	writes atomic.Int64
}

func (c *counter) Write(p []byte) (int, error) {
	c.writes.Add(1)
	return c.Conn.Write(p)
}

// The round trip of 8 bytes beside bulk streams on a link of 100 Mbit/s: go-libp2p's
// took 155 ms beside four.
func testLatency(t *testing.T, s Subject) {
	for _, bulk := range []int{1, 4, 20} {
		a, b := Pipe(1000)
		x, y := s.Muxer.New(&link{a}, true), s.Muxer.New(b, false)
		var served, apps sync.WaitGroup
		served.Go(func() { x.Serve(func(muxer.Stream) {}) })
		served.Go(func() {
			y.Serve(func(st muxer.Stream) {
				go func() {
					var first [1]byte
					if st.Read(first[:]); first[0] == 'b' {
						io.Copy(io.Discard, st)
					} else {
						st.Write(first[:])
						io.Copy(st, st)
					}
					st.Close()
				}()
			})
		})
		for range bulk {
			st, err := x.Open(context.Background())
			if err != nil {
				t.Fatal(err)
			}
			apps.Go(func() {
				for err := error(nil); err == nil; {
					_, err = st.Write(bytes.Repeat([]byte("b"), 100000))
				}
			})
		}
		time.Sleep(time.Second)
		st, err := x.Open(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		var worst time.Duration
		for range 50 {
			start := time.Now()
			write(t, st, "8 bytes.")
			wantRead(t, st, "8 bytes.")
			worst = max(worst, time.Since(start))
			time.Sleep(3 * time.Millisecond)
		}
		if worst > 15*time.Millisecond {
			t.Errorf("beside %d bulk streams a round trip took %v", bulk, worst)
		}
		x.Close(past(), 0)
		y.Close(past(), 0)
		served.Wait()
		apps.Wait()
	}
}

// link is a connection that sends 100 Mbit/s.
type link struct{ net.Conn }

func (l *link) Write(p []byte) (n int, err error) {
	for err == nil && n < len(p) {
		q := p[n:min(len(p), n+1250)]
		time.Sleep(time.Duration(len(q)) * 80 * time.Nanosecond)
		_, err = l.Conn.Write(q)
		n += len(q)
	}
	return n, err
}

// An idle session holds little: 8 KiB at each end, with its goroutine's stack.
func testIdle(t *testing.T, s Subject) {
	const n = 400
	var sessions []muxer.Session
	var conns []io.Closer
	var served sync.WaitGroup
	usage := func() uint64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.GC()
		runtime.ReadMemStats(&m)
		return m.HeapAlloc + m.StackInuse
	}
	var reading atomic.Int64
	before := usage()
	for range n {
		a, b := Pipe(1)
		x := s.Muxer.New(&waiter{a, &reading}, true)
		served.Go(func() { x.Serve(func(muxer.Stream) {}) })
		sessions, conns = append(sessions, x), append(conns, b)
		st, _ := x.Open(context.Background())
		st.Reset(0)
	}
	for reading.Load() < n {
		runtime.Gosched()
	}
	if each := (int64(usage()) - int64(before)) / n; each > idleMax {
		t.Errorf("an idle session and its pipe hold %d bytes", each)
	}
	for _, c := range conns {
		c.Close()
	}
	served.Wait()
	runtime.KeepAlive(sessions)
}

// waiter counts those who have begun to read.
type waiter struct {
	net.Conn
	reading *atomic.Int64
}

func (w *waiter) Read(p []byte) (int, error) {
	w.reading.Add(1)
	return w.Conn.Read(p)
}

// Opening, one echo and closing allocate the two ends of the stream and little else.
func testAllocs(t *testing.T, s Subject) {
	a, b := TCP(t)
	x, y := s.Muxer.New(a, true), s.Muxer.New(b, false)
	var served sync.WaitGroup
	served.Go(func() { x.Serve(func(muxer.Stream) {}) })
	streams := make(chan muxer.Stream)
	served.Go(func() { y.Serve(func(s muxer.Stream) { streams <- s }) })
	go func() {
		buf := make([]byte, 32)
		for s := range streams {
			for {
				n, err := s.Read(buf)
				if err != nil {
					break
				}
				s.Write(buf[:n])
			}
			s.Close()
		}
	}()
	buf := make([]byte, 32)
	n := testing.AllocsPerRun(1000, func() {
		st, err := x.Open(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		st.Write(buf)
		if _, err := io.ReadFull(st, buf); err != nil {
			t.Fatal(err)
		}
		st.Close()
	})
	if n > streamAllocs {
		t.Errorf("open, echo and close allocate %v times, at most %v", n, streamAllocs)
	}
	st, err := x.Open(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	if n := testing.AllocsPerRun(1000, func() {
		st.Write(buf)
		io.ReadFull(st, buf)
	}); n > tripAllocs {
		t.Errorf("a round trip allocates %v times, at most %v", n, tripAllocs)
	}
	st.Close()
	x.Close(past(), 0)
	y.Close(past(), 0)
	served.Wait()
	close(streams)
}
