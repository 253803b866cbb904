package perf

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"testing"
	"testing/synctest"
	"time"

	"github.com/plexus-p2p/plexus"
	"github.com/plexus-p2p/plexus/plexustest"
)

func TestRun(t *testing.T) {
	for _, tt := range []struct{ up, down uint64 }{
		{0, 0}, {1, 1}, {chunk, 0}, {0, chunk}, {chunk + 1, chunk - 1}, {3 << 20, 5 << 20},
	} {
		t.Run(fmt.Sprint(tt.up, tt.down), func(t *testing.T) {
			plexustest.Pair(t, func(t *testing.T, c *plexus.Conn, y *plexus.Host) {
				Serve(y)
				var last Report
				for r, err := range Run(t.Context(), c, tt.up, tt.down) {
					if err != nil {
						t.Fatal(err)
					}
					last = r
				}
				if last.Up != tt.up || last.Down != tt.down || !last.Final {
					t.Errorf("got %+v", last)
				}
				time.Sleep(time.Second)
				if n := c.Stats().Streams; n != 0 {
					t.Errorf("%d streams are left", n)
				}
			})
		})
	}
}

// slow serves perf at a chunk each 100 ms.
func slow(_ context.Context, s *plexus.Stream) error {
	var b [header]byte
	if _, err := io.ReadFull(s, b[:]); err != nil {
		return err
	}
	buf := make([]byte, chunk)
	for {
		time.Sleep(100 * time.Millisecond)
		if _, err := io.ReadFull(s, buf); err != nil {
			break
		}
	}
	for n := binary.BigEndian.Uint64(b[:]); n > 0; n -= min(n, chunk) {
		time.Sleep(100 * time.Millisecond)
		if _, err := s.Write(zeros[:min(n, chunk)]); err != nil {
			return err
		}
	}
	return nil
}

func TestReports(t *testing.T) {
	plexustest.Pair(t, func(t *testing.T, c *plexus.Conn, y *plexus.Host) {
		y.Handle(Protocol, slow)
		var got []Report
		for r, err := range Run(t.Context(), c, 20*chunk, 20*chunk) {
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, r)
		}
		for i, r := range got[:len(got)-1] {
			if want := time.Duration(i+1) * every; r.Final || r.Elapsed != want {
				t.Errorf("report %d: %+v, want one after %v", i, r, want)
			}
			if i > 0 && (r.Up < got[i-1].Up || r.Down < got[i-1].Down) {
				t.Errorf("report %d: %+v after %+v", i, r, got[i-1])
			}
		}
		if last := got[len(got)-1]; len(got) < 4 || !last.Final || last.Down != 20*chunk {
			t.Errorf("%d reports, the last is %+v", len(got), last)
		}
	})
}

// "For download, the client should request a response size of max uint64, then
// close the stream after the timer ends."
// https://github.com/libp2p/specs/blob/master/perf/perf.md#single-connection-throughput
func TestLeave(t *testing.T) {
	for _, tt := range []struct {
		name     string
		up, down uint64
	}{{"up", math.MaxUint64, 0}, {"down", 0, math.MaxUint64}} {
		t.Run(tt.name, func(t *testing.T) {
			plexustest.Pair(t, func(t *testing.T, c *plexus.Conn, y *plexus.Host) {
				ended := make(chan error, 1)
				y.Handle(Protocol, func(ctx context.Context, s *plexus.Stream) error {
					err := slow(ctx, s)
					ended <- err
					return err
				})
				for r, err := range Run(t.Context(), c, tt.up, tt.down) {
					if err != nil || r.Final {
						t.Fatalf("got %+v, %v", r, err)
					}
					if r.Elapsed >= 3*time.Second {
						break
					}
				}
				<-ended
				time.Sleep(time.Second)
				if n := c.Stats().Streams; n != 0 {
					t.Errorf("%d streams are left", n)
				}
			})
		})
	}
}

func TestRunErrors(t *testing.T) {
	stopped := errors.New("stopped")
	for _, tt := range []struct {
		name  string
		serve plexus.Handler // nil: none
		stop  time.Duration
		want  error
		after time.Duration
	}{
		{name: "not served", want: plexus.ErrNotSupported},
		{name: "too few", want: io.ErrUnexpectedEOF, serve: func(_ context.Context, s *plexus.Stream) error {
			io.Copy(io.Discard, s)
			s.Write(make([]byte, 99))
			return nil
		}},
		{name: "too many", want: ErrTooMuch, serve: func(_ context.Context, s *plexus.Stream) error {
			io.Copy(io.Discard, s)
			s.Write(make([]byte, 101))
			return nil
		}},
		{name: "silence", want: os.ErrDeadlineExceeded, after: stall, serve: func(_ context.Context, s *plexus.Stream) error {
			_, err := io.Copy(io.Discard, s)
			io.ReadFull(s, make([]byte, 1)) // EOF
			<-s.Conn().Done()
			return err
		}},
		{name: "cancelled", want: stopped, stop: time.Second, after: time.Second, serve: func(_ context.Context, s *plexus.Stream) error {
			<-s.Conn().Done()
			return nil
		}},
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
				begin := time.Now()
				var err error
				for _, err = range Run(ctx, c, 100, 100) {
				}
				if oe, ok := errors.AsType[*plexus.OpError](err); !ok || oe.Peer != y.ID() || !errors.Is(err, tt.want) {
					t.Errorf("got %v, want an OpError with %v", err, tt.want)
				}
				if d := time.Since(begin).Round(time.Second); d != tt.after {
					t.Errorf("after %v, want %v", d, tt.after)
				}
			})
		})
	}
}

func wantReset(t *testing.T, s *plexus.Stream) {
	t.Helper()
	_, err := io.Copy(io.Discard, s)
	if se, ok := errors.AsType[*plexus.StreamError](err); !ok || !se.Remote {
		t.Errorf("got %v, want a remote StreamError", err)
	}
}

func TestServeBounds(t *testing.T) {
	plexustest.Pair(t, func(t *testing.T, c *plexus.Conn, y *plexus.Host) {
		Serve(y)
		open := func(b []byte) *plexus.Stream {
			s, err := c.Open(t.Context(), Protocol)
			if err != nil {
				t.Fatal(err)
			}
			s.Write(b)
			return s
		}
		begin := time.Now()
		half := open([]byte{0, 0, 0}) // half a header, then silence
		for range streamsPerPeer - 1 {
			open(make([]byte, header)) // no upload, no end
		}
		synctest.Wait()
		wantReset(t, open(make([]byte, header))) // one too many
		if d := time.Since(begin); d > time.Second {
			t.Errorf("refused after %v", d)
		}
		wantReset(t, half)
		if d := time.Since(begin).Round(time.Second); d != stall {
			t.Errorf("reset after %v, want %v", d, stall)
		}
		time.Sleep(time.Second)
		for r, err := range Run(t.Context(), c, 1, 1) { // there is room again
			if err != nil || !r.Final {
				t.Errorf("got %+v, %v", r, err)
			}
		}
		// One that takes nothing of what it asked for.
		s := open(binary.BigEndian.AppendUint64(nil, math.MaxUint64))
		s.CloseWrite()
		time.Sleep(stall + time.Second)
		wantReset(t, s)
	})
}
