package yamux_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/plexus-p2p/plexus/muxer"
	"github.com/plexus-p2p/plexus/muxer/muxertest"
	"github.com/plexus-p2p/plexus/muxer/session"
	"github.com/plexus-p2p/plexus/muxer/yamux"
)

const (
	data, window, ping, goAway = 0, 1, 2, 3
	syn, ack, fin, rst         = 1, 2, 4, 8

	initial = 256 << 10
)

// frame is a header.
type frame struct {
	typ, flags uint16
	id, length uint32
}

func (f frame) String() string {
	typ := fmt.Sprintf("type %d", f.typ)
	if f.typ <= goAway {
		typ = []string{"data", "window", "ping", "goaway"}[f.typ]
	}
	flags := ""
	for i, name := range []string{"|SYN", "|ACK", "|FIN", "|RST"} {
		if f.flags&(1<<i) != 0 {
			flags += name
		}
	}
	return fmt.Sprintf("%s%s id=%d length=%d", typ, flags, f.id, f.length)
}

// testPeer is the other end of a session, and speaks frames.
type testPeer struct {
	t        *testing.T
	c        net.Conn
	s        muxer.Session
	accepted chan muxer.Stream
	served   sync.WaitGroup
	err      error // of Serve
}

// play runs f in a bubble against a session of m, that is the client's end or the server's.
func play(t *testing.T, m muxer.Muxer, client bool, f func(t *testing.T, p *testPeer)) {
	synctest.Test(t, func(t *testing.T) {
		a, b := muxertest.Pipe(1 << 20)
		p := &testPeer{t: t, c: b, s: m.New(a, client), accepted: make(chan muxer.Stream, 10000)}
		p.served.Go(func() { p.err = p.s.Serve(func(st muxer.Stream) { p.accepted <- st }) })
		t.Cleanup(p.end)
		f(t, p)
	})
}

func (p *testPeer) end() {
	p.c.Close()
	p.served.Wait()
}

func (p *testPeer) send(f frame, body string) {
	p.t.Helper()
	b := []byte{0, byte(f.typ)}
	b = binary.BigEndian.AppendUint16(b, f.flags)
	b = binary.BigEndian.AppendUint32(b, f.id)
	b = binary.BigEndian.AppendUint32(b, f.length)
	if _, err := p.c.Write(append(b, body...)); err != nil {
		p.t.Fatalf("send %v: %v", f, err)
	}
}

// read returns the next frame.
func (p *testPeer) read() (frame, string, error) {
	var h [12]byte
	p.c.SetReadDeadline(time.Now().Add(time.Hour))
	if _, err := io.ReadFull(p.c, h[:]); err != nil {
		return frame{}, "", err
	}
	f := frame{uint16(h[1]), binary.BigEndian.Uint16(h[2:]), binary.BigEndian.Uint32(h[4:]), binary.BigEndian.Uint32(h[8:])}
	if f.typ != data {
		return f, "", nil
	}
	body := make([]byte, f.length)
	_, err := io.ReadFull(p.c, body)
	return f, string(body), err
}

// want checks the next frame.
func (p *testPeer) want(want frame, body string) {
	p.t.Helper()
	f, b, err := p.read()
	if err != nil {
		p.t.Fatalf("want %v: %v", want, err)
	}
	if f != want || b != body {
		p.t.Fatalf("got %v %.20q, want %v %.20q", f, b, want, body)
	}
}

// wantNothing checks that nothing was sent.
func (p *testPeer) wantNothing() {
	p.t.Helper()
	synctest.Wait()
	p.c.SetReadDeadline(time.Now())
	var b [100]byte
	if n, _ := p.c.Read(b[:]); n > 0 {
		p.t.Fatalf("got % x, want nothing", b[:n])
	}
}

// wantEnd checks that the session ends with GoAway, and why.
func (p *testPeer) wantEnd(code uint32, why error) {
	p.t.Helper()
	for {
		f, _, err := p.read()
		if err != nil {
			p.t.Fatalf("want goaway: %v", err)
		}
		if f.typ == goAway {
			if f.length != code {
				p.t.Errorf("got %v, want code %d", f, code)
			}
			break
		}
	}
	if _, _, err := p.read(); err != io.EOF {
		p.t.Errorf("after goaway: %v, want the connection's end", err)
	}
	p.served.Wait()
	if !errors.Is(p.err, why) {
		p.t.Errorf("the session ended with %v, want %v", p.err, why)
	}
}

func (p *testPeer) open() muxer.Stream {
	p.t.Helper()
	st, err := p.s.Open(p.t.Context())
	if err != nil {
		p.t.Fatal(err)
	}
	return st
}

func write(t *testing.T, w io.Writer, s string) {
	t.Helper()
	if _, err := io.WriteString(w, s); err != nil {
		t.Fatal(err)
	}
}

func wantRead(t *testing.T, r io.Reader, want string) {
	t.Helper()
	b := make([]byte, len(want))
	if n, err := io.ReadFull(r, b); err != nil || string(b) != want {
		t.Fatalf("read %.20q, %v; want %.20q", b[:n], err, want)
	}
}

// "To open a stream, an initial data or window update frame is sent with a new
// StreamID. The SYN flag should be set to signal a new stream."
func TestOpen(t *testing.T) {
	play(t, yamux.Muxer{}, true, func(t *testing.T, p *testPeer) {
		st := p.open()
		time.Sleep(time.Second)
		p.wantNothing()
		write(t, st, "hello")
		p.want(frame{data, syn, 1, 5}, "hello")
		write(t, st, "again")
		p.want(frame{data, 0, 1, 5}, "again")

		st = p.open() // a Read needs it as well
		go st.Read(make([]byte, 1))
		p.want(frame{window, syn, 3, 0}, "")

		p.open().Close()
		p.want(frame{window, syn | fin, 5, 0}, "")
		p.open().Reset(1) // never was
		st = p.open()
		st.CloseWrite()
		p.want(frame{window, syn | fin, 7, 0}, "")
	})
	// "The client side should use odd ID's, and the server even."
	play(t, yamux.Muxer{}, false, func(t *testing.T, p *testPeer) {
		write(t, p.open(), "hello")
		p.want(frame{data, syn, 2, 5}, "hello")
	})
}

// rust-yamux before 0.13.10 panics if a first frame is longer than the window.
func TestFirstFrameIsSmall(t *testing.T) {
	play(t, yamux.Muxer{}, true, func(t *testing.T, p *testPeer) {
		st := p.open()
		write(t, st, string(make([]byte, 200000)))
		p.want(frame{data, syn, 1, 16 << 10}, string(make([]byte, 16<<10)))
		// And each batch is one of 32 KiB.
		p.want(frame{data, 0, 1, 16<<10 - 12 - 12}, string(make([]byte, 16<<10-12-12)))
		p.want(frame{data, 0, 1, 32<<10 - 12}, string(make([]byte, 32<<10-12)))
	})
}

// "The receiver must then reply with either a data or window update frame with the
// StreamID along with the ACK flag to accept the stream"
func TestAck(t *testing.T) {
	play(t, yamux.Muxer{}, false, func(t *testing.T, p *testPeer) {
		p.send(frame{data, syn, 1, 5}, "hello")
		st := <-p.accepted
		wantRead(t, st, "hello")
		p.wantNothing() // it rides with the answer
		write(t, st, "answer")
		p.want(frame{data, ack, 1, 6}, "answer")

		p.send(frame{window, syn, 3, 0}, "") // a Read that blocks sends it
		go (<-p.accepted).Read(make([]byte, 1))
		synctest.Wait()
		p.want(frame{window, ack, 3, 0}, "")

		start := time.Now()
		p.send(frame{window, syn, 5, 0}, "") // else it is sent soon
		p.want(frame{window, ack, 5, 0}, "")
		if d := time.Since(start); d == 0 || d > 2*time.Millisecond {
			t.Errorf("the acknowledgement came after %v", d)
		}

		p.send(frame{data, syn | fin, 7, 5}, "hello")
		<-p.accepted
		st = <-p.accepted
		b, err := io.ReadAll(st)
		if string(b) != "hello" || err != nil {
			t.Errorf("got %q, %v", b, err)
		}
		st.Close()
		p.want(frame{window, ack | fin, 7, 0}, "")
	})
}

// An end that the peer does not wait for rides with other frames.
func TestEndRides(t *testing.T) {
	play(t, yamux.Muxer{}, true, func(t *testing.T, p *testPeer) {
		st := p.open()
		write(t, st, "question")
		p.want(frame{data, syn, 1, 8}, "question")
		p.send(frame{data, ack, 1, 6}, "answer")
		wantRead(t, st, "answer")
		st.Close()
		p.wantNothing()
		write(t, p.open(), "next")
		p.want(frame{window, fin, 1, 0}, "")
		p.want(frame{data, syn, 3, 4}, "next")

		// Nobody else sends anything: it goes by itself, soon.
		st = p.open()
		write(t, st, "question")
		p.want(frame{data, syn, 5, 8}, "question")
		p.send(frame{data, ack, 5, 6}, "answer")
		wantRead(t, st, "answer")
		start := time.Now()
		st.Close()
		p.want(frame{window, fin, 5, 0}, "")
		if d := time.Since(start); d == 0 || d > 2*time.Millisecond {
			t.Errorf("the end came after %v", d)
		}

		// After our own write the peer waits for it.
		st = p.open()
		write(t, st, "message")
		start = time.Now()
		st.Close()
		p.want(frame{data, syn, 7, 7}, "message")
		p.want(frame{window, fin, 7, 0}, "")
		if d := time.Since(start); d != 0 {
			t.Errorf("the end came after %v", d)
		}

		// And so does our own reader, in effect.
		st = p.open()
		write(t, st, "question")
		p.send(frame{data, 0, 9, 6}, "answer")
		p.want(frame{data, syn, 9, 8}, "question")
		wantRead(t, st, "answer")
		st.CloseWrite()
		start = time.Now()
		go st.Read(make([]byte, 1))
		p.want(frame{window, fin, 9, 0}, "")
		if d := time.Since(start); d != 0 {
			t.Errorf("the end came after %v", d)
		}
	})
}

// "or with the RST flag to reject the stream"
func TestRefusal(t *testing.T) {
	play(t, yamux.Muxer{MaxStreams: 1}, false, func(t *testing.T, p *testPeer) {
		p.send(frame{window, syn, 1, 0}, "")
		p.want(frame{window, ack, 1, 0}, "")
		p.send(frame{data, syn, 3, 5}, "hello")
		p.want(frame{window, rst, 3, uint32(muxer.StreamResourceLimitExceeded)}, "")
		p.send(frame{data, 0, 3, 5}, "hello")
		p.send(frame{window, fin, 3, 0}, "")
		p.wantNothing()
		p.send(frame{window, rst, 1, 77}, "")
		p.send(frame{window, syn, 5, 0}, "")
		p.want(frame{window, ack, 5, 0}, "")
		_, err := (<-p.accepted).Read(make([]byte, 1))
		if e, ok := errors.AsType[*muxer.StreamError](err); !ok || *e != (muxer.StreamError{Code: 77, Remote: true}) {
			t.Errorf("Read: %v", err)
		}
	})
}

// Frames for streams that never were are answered once; what belongs to streams
// that are over is ignored.
func TestUnknownStream(t *testing.T) {
	play(t, yamux.Muxer{}, false, func(t *testing.T, p *testPeer) {
		p.send(frame{data, 0, 9, 5}, "hello")
		p.want(frame{window, rst, 9, uint32(muxer.StreamProtocolViolation)}, "")
		p.send(frame{data, 0, 9, 5}, "hello")
		p.send(frame{window, 0, 9, 5}, "")
		p.send(frame{window, rst, 11, 5}, "")
		p.send(frame{data, rst, 13, 5}, "hello")
		p.send(frame{data, 0, 2, 5}, "hello") // ours, long ago
		p.wantNothing()

		p.send(frame{data, syn, 7, 5}, "hello") // out of order, as go-yamux may
		st := <-p.accepted
		wantRead(t, st, "hello")
		st.Reset(5)
		p.want(frame{window, rst, 7, 5}, "")
		p.send(frame{data, 0, 7, 5}, "hello")
		p.send(frame{window, fin, 7, 5}, "")
		p.wantNothing()
	})
}

func TestProtocolErrors(t *testing.T) {
	for name, f := range map[string]frame{
		// "The version field [...] is always set to 0"
		"type":                          {4, 0, 1, 0},
		"stream 0":                      {data, 0, 0, 0},
		"window of stream 0":            {window, 0, 0, 1},
		"opened by the wrong end":       {window, syn, 2, 0},
		"opened twice":                  {window, syn, 1, 0},
		"window overflows":              {window, 0, 1, 1<<32 - 1},
		"first frame beyond the window": {data, syn, 3, initial + 1},
		"data beyond the window":        {data, 0, 1, initial + 1},
	} {
		t.Run(name, func(t *testing.T) {
			play(t, yamux.Muxer{}, false, func(t *testing.T, p *testPeer) {
				p.send(frame{window, syn, 1, 0}, "")
				p.send(f, "")
				p.wantEnd(1, muxer.ErrProtocol)
				_, err := (<-p.accepted).Read(make([]byte, 1))
				if !errors.Is(err, muxer.ErrProtocol) {
					t.Errorf("streams end with %v", err)
				}
			})
		})
	}
}

func TestWindowOverrun(t *testing.T) {
	play(t, yamux.Muxer{}, false, func(t *testing.T, p *testPeer) {
		p.send(frame{data, syn, 1, initial}, string(make([]byte, initial)))
		p.want(frame{window, ack, 1, 0}, "")
		p.send(frame{data, 0, 1, 0}, "")
		p.wantNothing()
		p.send(frame{data, 0, 1, 1}, "x")
		p.wantEnd(1, muxer.ErrProtocol)
		// What was received within the window can still be read.
		wantRead(t, <-p.accepted, string(make([]byte, initial)))
	})
}

// A FIN is the last frame; data after it ends the stream, not the session.
func TestDataAfterFin(t *testing.T) {
	play(t, yamux.Muxer{}, false, func(t *testing.T, p *testPeer) {
		p.send(frame{data, syn | fin, 1, 1}, "x")
		p.want(frame{window, ack, 1, 0}, "")
		p.send(frame{data, 0, 1, 1}, "y")
		p.want(frame{window, rst, 1, uint32(muxer.StreamProtocolViolation)}, "")
		p.send(frame{ping, syn, 0, 7}, "")
		p.want(frame{ping, ack, 0, 7}, "")
	})
}

// "Ping - Contains an opaque value, echoed back"
func TestPing(t *testing.T) {
	play(t, yamux.Muxer{}, false, func(t *testing.T, p *testPeer) {
		p.send(frame{ping, syn, 0, 0xdeadbeef}, "")
		p.want(frame{ping, ack, 0, 0xdeadbeef}, "")
		p.send(frame{ping, ack, 0, 1}, "") // to no question of ours
		p.wantNothing()
	})
}

// A peer that floods pings and does not read is answered a few of them.
func TestPingFlood(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := muxertest.Pipe(100)
		p := &testPeer{t: t, c: b, s: yamux.Muxer{}.New(a, false)}
		p.served.Go(func() { p.s.Serve(func(muxer.Stream) {}) })
		t.Cleanup(p.end)
		const n = 10000
		for i := range uint32(n) {
			p.send(frame{ping, syn, 0, i}, "")
		}
		synctest.Wait()
		last, count := uint32(0), 0
		for last != n-1 {
			f, _, err := p.read()
			if err != nil {
				t.Fatal(err)
			}
			last = f.length
			count++
		}
		if count > 40 {
			t.Errorf("%d of %d pings were answered", count, n)
		}
	})
}

// "To prevent the streams from stalling, window update frames should be sent
// regularly." "Both sides should track the number of bytes sent in Data frames only"
func TestWindowUpdate(t *testing.T) {
	play(t, yamux.Muxer{}, false, func(t *testing.T, p *testPeer) {
		p.send(frame{data, syn, 1, initial}, string(make([]byte, initial)))
		p.want(frame{window, ack, 1, 0}, "")
		st := <-p.accepted
		wantRead(t, st, string(make([]byte, initial/2-1)))
		p.wantNothing()
		wantRead(t, st, "\x00")
		p.want(frame{ping, syn, 0, 1}, "") // the first time, to know the round trip
		p.want(frame{window, 0, 1, initial / 2}, "")
		time.Sleep(100 * time.Millisecond)
		p.send(frame{ping, ack, 0, 1}, "")
		synctest.Wait()
		if rtt := p.s.Stats().RTT; rtt != 100*time.Millisecond {
			t.Errorf("the round trip is %v", rtt)
		}
		// Half a window within four round trips: it doubles.
		wantRead(t, st, string(make([]byte, initial/2)))
		p.want(frame{window, 0, 1, initial/2 + initial}, "")
		// Half a window (of 512 KiB now) after a long time: it does not.
		time.Sleep(time.Second)
		p.send(frame{data, 0, 1, initial}, string(make([]byte, initial)))
		wantRead(t, st, string(make([]byte, initial)))
		p.want(frame{window, 0, 1, initial}, "")
	})
}

// A window update that becomes due while the last of a stream's window is being written
// goes out after that, though the Write has to wait then: the peer may be waiting, too.
func TestWindowUpdateAfterWrite(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := muxertest.Pipe(100)
		p := &testPeer{t: t, c: b, s: yamux.Muxer{}.New(a, false), accepted: make(chan muxer.Stream, 1)}
		p.served.Go(func() { p.s.Serve(func(st muxer.Stream) { p.accepted <- st }) })
		t.Cleanup(p.end)
		p.send(frame{window, syn, 1, 0}, "")
		st := <-p.accepted
		go func() {
			st.Write(make([]byte, initial-1000))
			st.Write(make([]byte, 2000)) // until the session ends
		}()
		for left := initial - 1000; left > 0; {
			_, body, err := p.read()
			if err != nil {
				t.Fatal(err)
			}
			left -= len(body)
		}
		synctest.Wait() // the rest of the window does not fit into the pipe

		p.send(frame{data, 0, 1, initial / 2}, string(make([]byte, initial/2)))
		wantRead(t, st, string(make([]byte, initial/2)))
		time.Sleep(time.Second) // Serve reads the connection again
		begin := time.Now()
		p.want(frame{data, 0, 1, 1000}, string(make([]byte, 1000)))
		p.want(frame{ping, syn, 0, 1}, "")
		p.want(frame{window, 0, 1, initial / 2}, "")
		if took := time.Since(begin); took > 0 {
			t.Errorf("the window update came after %v", took)
		}
	})
}

// A Write that waits for its window does not wait for a reader of another stream, who has
// come back quickly before and does not now.
func TestWriteBesideReader(t *testing.T) {
	play(t, yamux.Muxer{}, true, func(t *testing.T, p *testPeer) {
		x, y := p.open(), p.open()
		write(t, x, "x")
		p.want(frame{data, syn, 1, 1}, "x")
		write(t, y, "y")
		p.want(frame{data, syn, 3, 1}, "y")
		for range 2 { // the second time the token is kept for the reader
			read := make(chan struct{})
			go func() { wantRead(t, y, "z"); close(read) }()
			synctest.Wait()
			p.send(frame{data, ack, 3, 1}, "z")
			<-read
		}
		begin := time.Now()
		go x.Write(make([]byte, initial))
		total := func(left int) {
			t.Helper()
			for left > 0 {
				_, body, err := p.read()
				if err != nil {
					t.Fatal(err)
				}
				left -= len(body)
			}
		}
		total(initial - 1)
		synctest.Wait()
		p.send(frame{window, ack, 1, 1}, "")
		total(1)
		if took := time.Since(begin); took > 0 {
			t.Errorf("the rest came after %v", took)
		}
	})
}

// A window grows up to MaxWindow and no further.
func TestMaxWindow(t *testing.T) {
	play(t, yamux.Muxer{MaxWindow: 600 << 10}, false, func(t *testing.T, p *testPeer) {
		p.send(frame{window, syn, 1, 0}, "")
		st := <-p.accepted
		go io.Copy(io.Discard, st)
		var granted atomic.Int64 // what we may send, in all
		granted.Store(initial)
		sent, most := 0, 0
		p.served.Go(func() {
			for {
				f, _, err := p.read()
				if err != nil {
					return
				}
				switch f.typ {
				case ping:
					time.Sleep(20 * time.Microsecond)
					p.send(frame{ping, ack, 0, f.length}, "")
				case window:
					granted.Add(int64(f.length))
				}
			}
		})
		for range 1000 {
			open := int(granted.Load()) - sent
			most = max(most, open)
			if n := min(open, 50000); n > 0 {
				p.send(frame{data, 0, 1, uint32(n)}, string(make([]byte, n)))
				sent += n
			}
			time.Sleep(time.Microsecond)
		}
		if sent < 2<<20 || most > 600<<10 || most < 500<<10 {
			t.Errorf("sent %d, and at times %d more might have been", sent, most)
		}
	})
}

// Streams that hold too much together are reset, one by one; the session goes on.
func TestMaxReceive(t *testing.T) {
	play(t, yamux.Muxer{MaxReceive: 1 << 20}, false, func(t *testing.T, p *testPeer) {
		for id := uint32(1); id < 12; id += 2 {
			p.send(frame{data, syn, id, initial}, string(make([]byte, initial)))
		}
		synctest.Wait()
		if n := p.s.Stats().Received; n > 1<<20 || n < 3*initial {
			t.Errorf("%d bytes are held", n)
		}
		resets := 0
		for range 6 {
			switch f, _, _ := p.read(); f.flags {
			case rst:
				resets++
				if f.length != uint32(muxer.StreamResourceLimitExceeded) {
					t.Errorf("got %v", f)
				}
			case ack:
			default:
				t.Errorf("got %v", f)
			}
		}
		if resets < 2 || resets > 3 {
			t.Errorf("%d of 6 streams were reset", resets)
		}
		wantRead(t, <-p.accepted, string(make([]byte, initial)))
	})
}

// "Go Away - used to close a session." Streams that are open go on.
func TestGoAway(t *testing.T) {
	play(t, yamux.Muxer{}, true, func(t *testing.T, p *testPeer) {
		st := p.open()
		write(t, st, "question")
		p.want(frame{data, syn, 1, 8}, "question")
		p.send(frame{goAway, 0, 0, 0x1006}, "")
		synctest.Wait()
		_, err := p.s.Open(t.Context())
		if e, ok := errors.AsType[*muxer.SessionError](err); !ok || !e.Remote || e.Code != muxer.ConnShutdown {
			t.Errorf("Open: %v", err)
		}
		p.send(frame{data, ack | fin, 1, 6}, "answer")
		b, err := io.ReadAll(st)
		if string(b) != "answer" || err != nil {
			t.Errorf("got %q, %v", b, err)
		}
		write(t, st, "thanks")
		st.Close()
		p.want(frame{data, 0, 1, 6}, "thanks")
		p.want(frame{window, fin, 1, 0}, "")
		// No streams are left.
		if _, _, err := p.read(); err != io.EOF {
			t.Errorf("got %v, want the end", err)
		}
		p.served.Wait()
		if e, ok := errors.AsType[*muxer.SessionError](p.err); !ok || !e.Remote || e.Code != muxer.ConnShutdown {
			t.Errorf("Serve: %v", p.err)
		}
	})
}

// "When a session is being terminated, the Go Away message should be sent."
func TestClose(t *testing.T) {
	play(t, yamux.Muxer{}, true, func(t *testing.T, p *testPeer) {
		st := p.open()
		write(t, st, "hello")
		closed := make(chan error, 1)
		go func() { closed <- p.s.Close(t.Context(), muxer.ConnShutdown) }()
		p.want(frame{data, syn, 1, 5}, "hello")
		p.want(frame{goAway, 0, 0, uint32(muxer.ConnShutdown)}, "")
		if _, _, err := p.read(); err != io.EOF { // half of it
			t.Errorf("after goaway: %v", err)
		}
		time.Sleep(time.Second)
		p.send(frame{data, ack, 1, 4}, "late")
		p.send(frame{window, syn, 2, 0}, "") // too late
		wantRead(t, st, "late")
		p.c.Close()
		if err := <-closed; err != nil {
			t.Error(err)
		}
	})
}

// "It can also be used to heart-beat and do keep-alives over TCP."
func TestKeepAlive(t *testing.T) {
	play(t, yamux.Muxer{}, false, func(t *testing.T, p *testPeer) {
		start := time.Now()
		at := func(want time.Duration) {
			t.Helper()
			if d := time.Since(start); d != want {
				t.Errorf("after %v, want %v", d, want)
			}
		}
		p.want(frame{ping, syn, 0, 1}, "")
		at(30 * time.Second)
		time.Sleep(9 * time.Second)
		p.send(frame{ping, ack, 0, 1}, "")
		p.want(frame{ping, syn, 0, 2}, "")
		at(69375 * time.Millisecond) // all sessions of a process at once, at multiples of 1.875 s
		if rtt := p.s.Stats().RTT; rtt != 9*time.Second {
			t.Errorf("the round trip is %v", rtt)
		}
		time.Sleep(time.Second)
		p.send(frame{window, syn, 1, 0}, "") // anything is a sign of life
		p.want(frame{window, ack, 1, 0}, "")
		p.want(frame{ping, syn, 0, 3}, "")
		at(101250 * time.Millisecond)
		if _, _, err := p.read(); err != io.EOF {
			t.Errorf("got %v, want the end", err)
		}
		at(111250 * time.Millisecond)
		p.served.Wait()
		if _, err := (<-p.accepted).Read(make([]byte, 1)); err != p.err {
			t.Errorf("streams end with %v, the session with %v", err, p.err)
		}
	})
	play(t, yamux.Muxer{KeepAlive: -1}, false, func(t *testing.T, p *testPeer) {
		time.Sleep(time.Hour)
		p.wantNothing()
	})
}

// Where the system watches the peer, it is pinged a fourth as often, once an answer has
// shown that nothing is under way: that is when the system does not look.
func TestWatched(t *testing.T) {
	watched := func(m yamux.Muxer, f func(t *testing.T, p *testPeer, at func(time.Duration))) {
		t.Helper()
		play(t, tellMuxer{m}, false, func(t *testing.T, p *testPeer) {
			start := time.Now()
			f(t, p, func(want time.Duration) {
				t.Helper()
				if d := time.Since(start); d != want {
					t.Errorf("after %v, want %v", d, want)
				}
			})
		})
	}
	const second, minute = time.Second, time.Minute
	watched(yamux.Muxer{}, func(t *testing.T, p *testPeer, at func(time.Duration)) {
		p.want(frame{ping, syn, 0, 1}, "") // what the handshake sent may be under way
		at(30 * second)
		p.send(frame{ping, ack, 0, 1}, "")
		p.want(frame{ping, syn, 0, 2}, "")
		at(150 * second)
		p.send(frame{ping, ack, 0, 2}, "")
		time.Sleep(10 * second)
		p.send(frame{ping, syn, 0, 7}, "") // an answer to that may be lost, and nobody mind
		p.want(frame{ping, ack, 0, 7}, "")
		p.want(frame{ping, syn, 0, 3}, "")
		at(281250 * time.Millisecond) // multiples of 1.875 s
		p.send(frame{ping, ack, 0, 3}, "")

		time.Sleep(minute)
		write(t, p.open(), "hello") // which may be lost, as the system's looks are then
		p.want(frame{data, syn, 2, 5}, "hello")
		p.want(frame{ping, syn, 0, 4}, "")
		at(371250 * time.Millisecond)
		if _, _, err := p.read(); err != io.EOF {
			t.Errorf("got %v, want the end", err)
		}
		at(381250 * time.Millisecond)
		p.served.Wait()
		if !errors.Is(p.err, session.ErrSilent) {
			t.Errorf("the session ended with %v", p.err)
		}
	})
	// What went out behind the ping is not covered by its answer.
	watched(yamux.Muxer{}, func(t *testing.T, p *testPeer, at func(time.Duration)) {
		p.want(frame{ping, syn, 0, 1}, "")
		at(30 * second)
		write(t, p.open(), "hello")
		p.want(frame{data, syn, 2, 5}, "hello")
		p.send(frame{ping, ack, 0, 1}, "")
		p.want(frame{ping, syn, 0, 2}, "")
		at(60 * second)
	})
	// A time that was asked for holds.
	watched(yamux.Muxer{KeepAlive: minute}, func(t *testing.T, p *testPeer, at func(time.Duration)) {
		for i := range uint32(3) {
			p.want(frame{ping, syn, 0, i + 1}, "")
			at(time.Duration(i+1) * minute)
			p.send(frame{ping, ack, 0, i + 1}, "")
		}
	})
}

// tellMuxer's sessions are watched.
type tellMuxer struct{ yamux.Muxer }

func (m tellMuxer) New(c net.Conn, client bool) muxer.Session {
	s := m.Muxer.New(c, client)
	s.(muxer.Watched).Watched()
	return s
}

// When the system finds that the peer's host is gone, that is silence, too.
func TestSystemTimeout(t *testing.T) {
	a, b := net.Pipe()
	defer b.Close()
	s := yamux.Muxer{}.New(timedOut{a}, true)
	err := s.Serve(func(muxer.Stream) {})
	if !errors.Is(err, session.ErrSilent) || !errors.Is(err, syscall.ETIMEDOUT) {
		t.Errorf("the session ended with %v", err)
	}
}

type timedOut struct{ net.Conn }

func (timedOut) Read([]byte) (int, error) {
	return 0, &net.OpError{Op: "read", Net: "tcp", Err: os.NewSyscallError("read", syscall.ETIMEDOUT)}
}

// A stream that we closed and the peer does not is reset in the end.
func TestCloseWithoutPeer(t *testing.T) {
	play(t, yamux.Muxer{}, false, func(t *testing.T, p *testPeer) {
		p.send(frame{window, syn, 1, 0}, "")
		st := <-p.accepted
		st.CloseWrite()
		st.CloseRead()
		p.want(frame{window, ack | fin, 1, 0}, "")
		start := time.Now()
		for {
			f, _, err := p.read()
			if err != nil {
				t.Fatal(err)
			}
			if f.typ == ping {
				p.send(frame{ping, ack, 0, f.length}, "")
				continue
			}
			if f != (frame{window, rst, 1, uint32(muxer.StreamGarbageCollected)}) {
				t.Errorf("got %v", f)
			}
			break
		}
		if d := time.Since(start); d < time.Minute || d > 3*time.Minute {
			t.Errorf("it was reset after %v", d)
		}
	})
}

// Frames of one byte cost what they hold, and their memory is accounted for: in
// go-yamux 25.9 times as much.
func TestTinyFrames(t *testing.T) {
	play(t, yamux.Muxer{}, false, func(t *testing.T, p *testPeer) {
		const streams = 16
		var frames [streams][]byte
		for i := range uint32(streams) {
			p.send(frame{window, syn, 1 + 2*i, 0}, "")
			frames[i] = bytes.Repeat([]byte{0, data, 0, 0, 0, 0, 0, byte(1 + 2*i), 0, 0, 0, 1, 'x'}, initial)
		}
		synctest.Wait()
		heap := func() int {
			var m runtime.MemStats
			runtime.GC()
			runtime.GC()
			runtime.ReadMemStats(&m)
			return int(m.HeapAlloc)
		}
		before := heap()
		for _, f := range frames {
			p.c.Write(f)
		}
		synctest.Wait()
		const size = streams * initial
		n := p.s.Stats().Received
		if n < size || n > size*11/10 {
			t.Errorf("%d bytes of data are charged as %d", size, n)
		}
		if cost := heap() - before; cost > n*11/10+100<<10 {
			t.Errorf("%d bytes of data, charged as %d, cost %d", size, n, cost)
		}
		for range streams {
			wantRead(t, <-p.accepted, string(bytes.Repeat([]byte{'x'}, initial)))
		}
		if n := p.s.Stats().Received; n != 0 {
			t.Errorf("%d bytes are still held", n)
		}
	})
}

// A peer that sends one byte at a time.
func TestDribble(t *testing.T) {
	play(t, yamux.Muxer{}, false, func(t *testing.T, p *testPeer) {
		for _, b := range []byte("\x00\x00\x00\x01\x00\x00\x00\x01\x00\x00\x00\x05hello" +
			"\x00\x02\x00\x01\x00\x00\x00\x00\x00\x00\x00\x07" +
			"\x00\x01\x00\x04\x00\x00\x00\x01\x00\x00\x00\x00") {
			p.c.Write([]byte{b})
			synctest.Wait()
		}
		p.want(frame{ping, ack, 0, 7}, "")
		p.want(frame{window, ack, 1, 0}, "")
		if b, err := io.ReadAll(<-p.accepted); string(b) != "hello" || err != nil {
			t.Errorf("got %q, %v", b, err)
		}
	})
}

// In a conversation each end reads for itself: no byte goes from one goroutine to
// another, even if other streams have readers that wait.
func TestNoHandOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := muxertest.Pipe(1000)
		var answers string
		ca, cb := &whoReads{Conn: a, by: map[string]int{}}, &whoReads{Conn: b, by: map[string]int{}}
		x, y := yamux.Muxer{}.New(ca, true), yamux.Muxer{}.New(cb, false)
		var wg sync.WaitGroup
		wg.Go(func() { x.Serve(func(muxer.Stream) {}) })
		wg.Go(func() {
			y.Serve(func(st muxer.Stream) {
				go func() {
					answers = goroutine()
					io.Copy(st, st)
					st.Close()
				}()
			})
		})
		open := func() muxer.Stream {
			st, err := x.Open(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			return st
		}
		talk := func(st muxer.Stream, rounds int) {
			for range rounds {
				write(t, st, "hello")
				wantRead(t, st, "hello")
				time.Sleep(100 * time.Microsecond)
			}
		}
		for range 5 {
			st := open()
			talk(st, 1)
			go st.Read(make([]byte, 1)) // waits
		}
		time.Sleep(time.Second)
		st := open()
		talk(st, 10) // until those who wait have seen who talks
		n, m := ca.count(goroutine()), cb.count(answers)
		talk(st, 100)
		if n, m := ca.count(goroutine())-n, cb.count(answers)-m; n < 100 || m < 100 {
			t.Errorf("of 100 messages the client's goroutine read %d, the server's %d", n, m)
		}
		a.Close()
		b.Close()
		wg.Wait()
	})
}

// whoReads counts reads by the goroutine that calls.
type whoReads struct {
	net.Conn
	mu sync.Mutex
	by map[string]int
}

func (w *whoReads) count(who string) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.by[who]
}

func (w *whoReads) Read(p []byte) (int, error) {
	who := goroutine()
	w.mu.Lock()
	w.by[who]++
	w.mu.Unlock()
	return w.Conn.Read(p)
}

// goroutine names the caller's.
func goroutine() string {
	var stack [40]byte
	id, _, _ := strings.Cut(string(stack[:runtime.Stack(stack[:], false)]), "[")
	return id
}

// An 8-byte message does not queue behind what four bulk streams have to send: at
// most the batch under way and one more go before it.
func TestFairness(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := muxertest.Pipe(100)
		p := &testPeer{t: t, c: b, s: yamux.Muxer{}.New(a, true)}
		p.served.Go(func() { p.s.Serve(func(muxer.Stream) {}) })
		var wg sync.WaitGroup
		t.Cleanup(func() {
			p.end()
			wg.Wait()
		})
		for range 4 {
			st := p.open()
			wg.Go(func() { st.Write(make([]byte, 10<<20)) })
		}
		synctest.Wait() // their IDs are 1 to 7
		echo := p.open()
		write8 := func() {
			wg.Go(func() { echo.Write([]byte("8 bytes.")) })
			synctest.Wait()
		}
		read, since := 0, 0
		seen, shares := 0, map[uint32]int{}
		for seen < 20 {
			f, body, err := p.read()
			if err != nil {
				t.Fatal(err)
			}
			read, since = read+len(body)+12, since+len(body)+12
			shares[f.id] += len(body)
			if string(body) == "8 bytes." {
				if since > 2*65519 {
					t.Errorf("%d bytes went before it", since)
				}
				if seen++; seen < 20 {
					since = 0
					write8()
				}
			} else if seen == 0 && since > 1<<19 && echo != nil {
				since, seen = 0, 1
				write8()
			}
			if f.typ == data && f.id != 9 { // endless windows
				p.send(frame{window, 0, f.id, f.length}, "")
			}
		}
		for id := uint32(1); id < 9; id += 2 {
			if share := shares[id] * 4 * 100 / read; share < 80 || share > 120 {
				t.Errorf("stream %d had %d %% of its share", id, share)
			}
		}
	})
}
