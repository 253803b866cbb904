package ping

import (
	"context"
	"errors"
	"io"
	"os"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/plexus-p2p/plexus"
	"github.com/plexus-p2p/plexus/plexustest"
)

// open opens a stream that the test scripts.
func open(t *testing.T, c *plexus.Conn) *plexus.Stream {
	t.Helper()
	s, err := c.Open(t.Context(), Protocol)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// echo sends one ping on s and reads the echo.
func echo(s *plexus.Stream) error {
	var b [size]byte
	if _, err := s.Write(b[:]); err != nil {
		return err
	}
	_, err := io.ReadFull(s, b[:])
	return err
}

// wantReset expects that the peer resets s, before long.
func wantReset(t *testing.T, s *plexus.Stream) {
	t.Helper()
	_, err := io.Copy(io.Discard, s)
	if se, ok := errors.AsType[*plexus.StreamError](err); !ok || !se.Remote {
		t.Errorf("got %v, want a remote StreamError", err)
	}
}

func TestPing(t *testing.T) {
	plexustest.Pair(t, func(t *testing.T, c *plexus.Conn, y *plexus.Host) {
		Serve(y)
		begin, n := time.Now(), 0
		for rtt, err := range Ping(t.Context(), c.Host(), y.ID()) {
			if err != nil || rtt != 0 {
				t.Fatalf("got %v, %v", rtt, err)
			}
			if n++; n == 3 {
				break
			}
		}
		for _, err := range Over(t.Context(), c) {
			if err != nil {
				t.Fatal(err)
			}
			break
		}
		if d := time.Since(begin); d != 0 {
			t.Errorf("took %v, want no time", d)
		}
		time.Sleep(time.Second) // closing may wait for something to travel with
		if n := c.Stats().Streams; n != 0 {
			t.Errorf("%d streams are left", n)
		}
	})
}

// "The listening peer SHOULD accept at most two streams per peer"
// https://github.com/libp2p/specs/blob/master/ping/ping.md#protocol
func TestThirdStream(t *testing.T) {
	plexustest.Pair(t, func(t *testing.T, c *plexus.Conn, y *plexus.Host) {
		Serve(y)
		first, second := open(t, c), open(t, c)
		if err := errors.Join(echo(first), echo(second)); err != nil {
			t.Fatal(err)
		}
		third := open(t, c)
		third.Write(make([]byte, size))
		wantReset(t, third)
		if err := errors.Join(echo(first), echo(second)); err != nil {
			t.Errorf("after the third: %v", err)
		}
		first.Close()
		time.Sleep(time.Second)
		if err := echo(open(t, c)); err != nil {
			t.Errorf("in place of the first: %v", err)
		}
	})
}

func TestPingErrors(t *testing.T) {
	stopped := errors.New("stopped")
	for _, tt := range []struct {
		name  string
		serve plexus.Handler // nil: none
		stop  time.Duration  // cancel after so long
		want  error
		after time.Duration
	}{
		{name: "not served", want: plexus.ErrNotSupported},
		{name: "another echo", want: ErrMismatch, serve: func(_ context.Context, s *plexus.Stream) error {
			var b [size]byte
			io.ReadFull(s, b[:])
			b[size-1]++
			s.Write(b[:])
			return nil
		}},
		{name: "half an echo", want: io.ErrUnexpectedEOF, serve: func(_ context.Context, s *plexus.Stream) error {
			_, err := io.CopyN(s, s, size/2)
			return err
		}},
		{name: "silence", want: os.ErrDeadlineExceeded, after: roundTimeout, serve: silent},
		{name: "cancelled", want: stopped, stop: time.Second, after: time.Second, serve: silent},
	} {
		t.Run(tt.name, func(t *testing.T) {
			plexustest.Pair(t, func(t *testing.T, c *plexus.Conn, y *plexus.Host) {
				if tt.serve != nil {
					y.Handle(Protocol, tt.serve)
				}
				ctx, cancel := context.WithCancelCause(t.Context())
				defer cancel(nil)
				if tt.stop > 0 {
					time.AfterFunc(tt.stop, func() { cancel(stopped) })
				}
				begin, n := time.Now(), 0
				for _, err := range Over(ctx, c) {
					n++
					if oe, ok := errors.AsType[*plexus.OpError](err); !ok || oe.Peer != y.ID() || !errors.Is(err, tt.want) {
						t.Errorf("got %v, want an OpError with %v", err, tt.want)
					}
				}
				if n != 1 {
					t.Errorf("yielded %d times, want once", n)
				}
				if d := time.Since(begin); d != tt.after {
					t.Errorf("after %v, want %v", d, tt.after)
				}
			})
		})
	}
}

func silent(ctx context.Context, s *plexus.Stream) error {
	io.Copy(io.Discard, s)
	return nil
}

// rust-libp2p pings every 15 s on one stream.
func TestSlowPings(t *testing.T) {
	plexustest.Pair(t, func(t *testing.T, c *plexus.Conn, y *plexus.Host) {
		Serve(y)
		s := open(t, c)
		for range 10 {
			if err := echo(s); err != nil {
				t.Fatal(err)
			}
			time.Sleep(15 * time.Second)
		}
		begin := time.Now()
		wantReset(t, s)
		if d := time.Since(begin); d != idleTimeout-15*time.Second {
			t.Errorf("an idle stream was served for %v more", d)
		}
	})
}

func TestSlowBytes(t *testing.T) {
	plexustest.Pair(t, func(t *testing.T, c *plexus.Conn, y *plexus.Host) {
		Serve(y)
		s := open(t, c)
		begin := time.Now()
		var wg sync.WaitGroup
		defer wg.Wait()
		wg.Go(func() {
			for { // one a second is too slow
				if _, err := s.Write([]byte{1}); err != nil {
					return
				}
				time.Sleep(time.Second)
			}
		})
		wantReset(t, s)
		if d := time.Since(begin); d != roundTimeout {
			t.Errorf("reset after %v, want %v", d, roundTimeout)
		}
	})
}

// A peer that sends pings and takes no echo has its window full of echoes and its
// stream reset. Nobody else notices.
func TestFlood(t *testing.T) {
	plexustest.Pair(t, func(t *testing.T, c *plexus.Conn, y *plexus.Host) {
		Serve(y)
		s := open(t, c)
		flooded := make(chan error)
		begin := time.Now()
		go func() {
			b := make([]byte, 64<<10)
			for {
				if _, err := s.Write(b); err != nil {
					flooded <- err
					return
				}
			}
		}()
		synctest.Wait()
		if err := echo(open(t, c)); err != nil {
			t.Errorf("on another stream: %v", err)
		}
		if d := time.Since(begin); d > 10*time.Millisecond {
			t.Errorf("on another stream: after %v", d)
		}
		if se, ok := errors.AsType[*plexus.StreamError](<-flooded); !ok || !se.Remote {
			t.Errorf("the flood was not reset")
		}
		if d := time.Since(begin).Round(time.Second); d != roundTimeout {
			t.Errorf("the flood lasted %v, want %v", d, roundTimeout)
		}
	})
}
