package muxertest

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/plexus-p2p/plexus/muxer"
)

// The checks in this file hold for whatever has sessions: transporttest has them too.
// They run in a bubble and, on sockets, outside.

// Pair is two ends of a session, and who serves them.
type Pair struct {
	Client, Server muxer.Session
	Accepted       chan muxer.Stream // by the server

	t      testing.TB
	conns  [2]net.Conn // of a muxer's
	served sync.WaitGroup
	why    [2]error
}

// Serve serves both ends of a session until the test ends.
func Serve(t testing.TB, client, server muxer.Session) *Pair {
	p := &Pair{Client: client, Server: server, Accepted: make(chan muxer.Stream, 20000), t: t}
	p.served.Go(func() { p.why[0] = client.Serve(func(s muxer.Stream) { s.Reset(0) }) })
	p.served.Go(func() { p.why[1] = server.Serve(func(s muxer.Stream) { p.Accepted <- s }) })
	t.Cleanup(p.Cut)
	return p
}

// Wait waits until neither end is served any more, and returns why.
func (p *Pair) Wait() (client, server error) {
	p.served.Wait()
	return p.why[0], p.why[1]
}

// Cut ends both ends at once.
func (p *Pair) Cut() {
	p.Client.Close(past(), 0)
	p.Server.Close(past(), 0)
	p.served.Wait()
}

// Open returns the two ends of a new stream, on which nothing is under way.
func (p *Pair) Open() (a, b muxer.Stream) {
	p.t.Helper()
	a, err := p.Client.Open(within(p.t, patience))
	if err != nil {
		p.t.Fatal("Open:", err)
	}
	write(p.t, a, "x")
	b = <-p.Accepted
	wantRead(p.t, b, "x")
	return a, b
}

// patience is how long what comes at once may take on a busy machine.
const patience = 20 * time.Second

// noStreams waits until no stream is open. Ends that nobody waits for may be late.
func (p *Pair) noStreams() {
	p.t.Helper()
	for begin := time.Now(); p.Client.Stats().Streams+p.Server.Stats().Streams > 0; time.Sleep(10 * time.Millisecond) {
		if time.Since(begin) > patience {
			p.t.Fatalf("%+v and %+v, want no stream", p.Client.Stats(), p.Server.Stats())
		}
	}
}

// HalfClose: a question that ends, and the answer.
func HalfClose(t *testing.T, p *Pair) {
	a, b := p.Open()
	write(t, a, "question")
	if err := a.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if _, err := a.Write([]byte("x")); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Write after CloseWrite: %v", err)
	}
	got, err := io.ReadAll(b)
	if string(got) != "question" || err != nil {
		t.Fatalf("got %q, %v", got, err)
	}
	write(t, b, "answer")
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	got, err = io.ReadAll(a)
	if string(got) != "answer" || err != nil {
		t.Fatalf("got %q, %v", got, err)
	}
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	p.noStreams()
}

// CloseBeforeWrite: the peer learns of a stream on which nothing is said.
func CloseBeforeWrite(t *testing.T, p *Pair) {
	for _, end := range []func(muxer.Stream) error{muxer.Stream.Close, muxer.Stream.CloseWrite} {
		a, err := p.Client.Open(within(t, patience))
		if err != nil {
			t.Fatal(err)
		}
		if err := end(a); err != nil {
			t.Fatal(err)
		}
		b := <-p.Accepted
		if n, err := b.Read(make([]byte, 1)); n != 0 || err != io.EOF {
			t.Errorf("got %d, %v, want EOF", n, err)
		}
		a.Close()
		b.Close()
	}
}

// ManyReaders: each byte goes to one of a stream's readers, and none is left behind.
func ManyReaders(t *testing.T, p *Pair) {
	a, b := p.Open()
	var mu sync.Mutex
	total := 0
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			buf := make([]byte, 777)
			for {
				n, err := b.Read(buf)
				mu.Lock()
				total += n
				mu.Unlock()
				if err != nil {
					wantErr(t, "Read", err, io.EOF)
					return
				}
			}
		})
	}
	for i := range 100 {
		write(t, a, string(make([]byte, 5000)))
		if i%3 == 0 {
			time.Sleep(time.Millisecond) // all wait again
		}
	}
	a.CloseWrite()
	wg.Wait()
	if total != 500000 {
		t.Errorf("%d bytes, want 500000", total)
	}
}

// ManyWriters: sixteen writers on one stream, and a reader that is sometimes slow. The
// window is never overrun, which in go-yamux cost the connection, and no Write is torn.
func ManyWriters(t *testing.T, p *Pair) {
	a, b := p.Open()
	const writers, each = 16, 40
	var wg sync.WaitGroup
	for i := range writers {
		wg.Go(func() {
			for j := range each {
				size := (i*131+j*977)%20000 + 4
				msg := bytes.Repeat([]byte{byte(i)}, size)
				binary.BigEndian.PutUint32(msg, uint32(size)<<8|uint32(i))
				if n, err := a.Write(msg); n != size || err != nil {
					t.Errorf("Write: %d, %v", n, err)
					return
				}
			}
		})
	}
	go func() { wg.Wait(); a.CloseWrite() }()
	for msgs := 0; ; msgs++ {
		var head [4]byte
		if _, err := io.ReadFull(b, head[:]); err == io.EOF && msgs == writers*each {
			break
		} else if err != nil {
			t.Fatalf("after %d messages: %v", msgs, err)
		}
		v := binary.BigEndian.Uint32(head[:])
		body := make([]byte, v>>8-4)
		if _, err := io.ReadFull(b, body); err != nil {
			t.Fatal(err)
		}
		if bytes.Count(body, []byte{byte(v)}) != len(body) {
			t.Fatalf("the bytes of two Writes are mixed")
		}
		if msgs%50 == 0 {
			time.Sleep(10 * time.Millisecond)
		}
	}
}

// CloseDuringWrite: a Write that is under way when its stream is closed has sent what it
// says, and nothing after that. size is more than what is under way; without windows
// all of it may have been taken.
func CloseDuringWrite(t *testing.T, p *Pair, size int, windows bool) {
	for _, end := range []func(muxer.Stream) error{muxer.Stream.Close, muxer.Stream.CloseWrite} {
		a, b := p.Open()
		sent := make(chan int)
		go func() {
			n, err := a.Write(make([]byte, size))
			if windows || err != nil {
				wantErr(t, "Write", err, net.ErrClosed)
			}
			sent <- n
		}()
		time.Sleep(20 * time.Millisecond)
		if err := end(a); err != nil {
			t.Error(err)
		}
		want := <-sent
		if n, err := io.Copy(io.Discard, b); int(n) != want || err != nil {
			t.Errorf("read %d bytes of %d, %v", n, want, err)
		}
		a.Close()
		b.Close()
	}
}

// OpenBothWays: two ends that nobody serves yet open so many streams each at the same
// time, and echo.
func OpenBothWays(t *testing.T, x, y muxer.Session, streams int) {
	var served, clients sync.WaitGroup
	for _, z := range []muxer.Session{x, y} {
		served.Go(func() {
			z.Serve(func(s muxer.Stream) {
				go func() {
					io.Copy(s, s)
					s.Close()
				}()
			})
		})
		for range streams {
			clients.Go(func() {
				st, err := z.Open(within(t, patience))
				if err != nil {
					t.Error(err)
					return
				}
				msg := bytes.Repeat([]byte("hello"), 10000)
				go func() {
					st.Write(msg)
					st.CloseWrite()
				}()
				got, err := io.ReadAll(st)
				if !bytes.Equal(got, msg) || err != nil {
					t.Errorf("echo: %d bytes of %d, %v", len(got), len(msg), err)
				}
				st.Close()
			})
		}
	}
	clients.Wait()
	x.Close(past(), 0)
	y.Close(past(), 0)
	served.Wait()
}
