package mplex_test

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/plexus-p2p/plexus/muxer"
	"github.com/plexus-p2p/plexus/muxer/mplex"
	"github.com/plexus-p2p/plexus/muxer/muxertest"
)

// testPeer is the other end of a session, and speaks messages in hex.
type testPeer struct {
	t        *testing.T
	c        net.Conn
	s        muxer.Session
	accepted chan muxer.Stream
	served   sync.WaitGroup
	err      error // of Serve
}

func play(t *testing.T, m mplex.Muxer, client bool, f func(t *testing.T, p *testPeer)) {
	synctest.Test(t, func(t *testing.T) {
		a, b := muxertest.Pipe(1 << 20)
		p := &testPeer{t: t, c: b, s: m.New(a, client), accepted: make(chan muxer.Stream, 100)}
		p.served.Go(func() { p.err = p.s.Serve(func(st muxer.Stream) { p.accepted <- st }) })
		t.Cleanup(func() {
			b.Close()
			p.served.Wait()
		})
		f(t, p)
	})
}

func (p *testPeer) send(messages string) {
	p.t.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(messages, " ", ""))
	if err != nil {
		p.t.Fatal(err)
	}
	if _, err := p.c.Write(b); err != nil {
		p.t.Fatal(err)
	}
}

// want checks all that was sent, a moment later.
func (p *testPeer) want(messages string) {
	p.t.Helper()
	time.Sleep(10 * time.Millisecond)
	p.c.SetReadDeadline(time.Now().Add(time.Nanosecond))
	got, _ := io.ReadAll(p.c)
	want, _ := hex.DecodeString(strings.ReplaceAll(messages, " ", ""))
	if !bytes.Equal(got, want) {
		p.t.Errorf("got % x, want % x", got, want)
	}
}

func (p *testPeer) open() muxer.Stream {
	p.t.Helper()
	st, err := p.s.Open(context.Background())
	if err != nil {
		p.t.Fatal(err)
	}
	return st
}

// "To open a new stream, first allocate a new stream ID. Then, send a message with the
// flag set to NewStream"
func TestOpen(t *testing.T) {
	for _, client := range []bool{true, false} { // "Both parties can open a substream with the same ID"
		play(t, mplex.Muxer{}, client, func(t *testing.T, p *testPeer) {
			st := p.open()
			p.want("")
			st.Write([]byte("hello"))
			p.want("00 00  02 05 68656c6c6f")
			p.send("01 02 6869")
			b := make([]byte, 2)
			if _, err := io.ReadFull(st, b); err != nil || string(b) != "hi" {
				t.Errorf("got %q, %v", b, err)
			}
			st.Close()
			p.want("04 00")
			p.send("03 00") // the other half
			st = p.open()
			go st.Read(make([]byte, 1))
			p.want("08 00")
			st.Reset(1)
			p.want("0e 00")

			p.send("00 01 30  02 02 6869") // their stream 0, with a name
			st = <-p.accepted
			if _, err := io.ReadFull(st, b); err != nil || string(b) != "hi" {
				t.Errorf("got %q, %v", b, err)
			}
			st.Write([]byte("hello"))
			st.CloseWrite()
			p.want("01 05 68656c6c6f  03 00")
			p.send("04 00")
			if _, err := st.Read(b); err != io.EOF {
				t.Errorf("got %v, want EOF", err)
			}
		})
	}
}

// "all future reads from a reset stream should return an error (*not* EOF)"
func TestReset(t *testing.T) {
	play(t, mplex.Muxer{}, false, func(t *testing.T, p *testPeer) {
		p.send("00 00  06 00")
		_, err := (<-p.accepted).Read(make([]byte, 1))
		if e, ok := errors.AsType[*muxer.StreamError](err); !ok || !e.Remote {
			t.Errorf("got %v", err)
		}
		p.send("0a 02 6869") // stream 1 never was
		p.want("0d 00")
		p.send("0a 02 6869")
		p.want("")
	})
}

// "the implementation must handle slow readers by [...] Resetting the offending stream."
func TestSlowReader(t *testing.T) {
	play(t, mplex.Muxer{MaxQueue: 100 << 10}, false, func(t *testing.T, p *testPeer) {
		p.send("00 00  08 00")
		slow, quick := <-p.accepted, <-p.accepted
		body := strings.Repeat("78", 50<<10)
		p.send("02 80 90 03" + body)
		p.send("02 80 90 03" + body)
		p.want("") // 100 KiB are allowed
		p.send("02 01 78")
		time.Sleep(100 * time.Millisecond) // for which the session waits for the reader, once
		p.want("05 00")
		_, err := slow.Read(make([]byte, 1))
		if e, ok := errors.AsType[*muxer.StreamError](err); !ok || e.Remote || e.Code != muxer.StreamResourceLimitExceeded {
			t.Errorf("got %v", err)
		}
		if n := p.s.Stats().Received; n != 0 {
			t.Errorf("%d bytes are held", n)
		}
		p.send("0a 01 79")
		if n, err := quick.Read(make([]byte, 1)); n != 1 || err != nil {
			t.Errorf("the other stream: %d, %v", n, err)
		}
	})
}

// "up to 1MiB per message"
func TestMessageTooLong(t *testing.T) {
	play(t, mplex.Muxer{}, false, func(t *testing.T, p *testPeer) {
		p.send("00 00  02 81 80 40")
		p.served.Wait()
		if !errors.Is(p.err, muxer.ErrProtocol) {
			t.Errorf("Serve: %v", p.err)
		}
	})
}

// A stream that we closed and the peer does not is reset in the end.
func TestCloseWithoutPeer(t *testing.T) {
	play(t, mplex.Muxer{}, true, func(t *testing.T, p *testPeer) {
		st := p.open()
		st.Write([]byte("hi"))
		st.Close()
		p.want("00 00  02 02 6869  04 00")
		time.Sleep(2 * time.Minute)
		p.want("06 00")
		if n := p.s.Stats().Streams; n != 0 {
			t.Errorf("%d streams are left", n)
		}
	})
}
