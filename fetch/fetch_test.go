package fetch

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/plexus-p2p/plexus"
	"github.com/plexus-p2p/plexus/internal/pb"
	"github.com/plexus-p2p/plexus/plexustest"
)

func TestFetch(t *testing.T) {
	values := map[string]string{
		"k":                         "v",
		"empty":                     "",
		"\xff\x00":                  "bytes", // libp2p/specs#657
		strings.Repeat("k", MaxKey): "long",
		"large":                     strings.Repeat("v", MaxValue),
		"too large":                 strings.Repeat("v", MaxValue+1),
	}
	plexustest.Pair(t, func(t *testing.T, c *plexus.Conn, y *plexus.Host) {
		Serve(y, func(_ context.Context, key string) ([]byte, error) {
			if key == "broken" {
				return nil, errors.New("broken")
			}
			v, ok := values[key]
			if !ok {
				return []byte("nothing"), ErrNotFound
			}
			return []byte(v), nil
		})
		for _, tt := range []struct {
			name, key string
			want      error
		}{
			{"value", "k", nil},
			{"empty value", "empty", nil},
			{"bytes", "\xff\x00", nil},
			{"longest key", strings.Repeat("k", MaxKey), nil},
			{"largest value", "large", nil},
			{"no value", "nowhere", ErrNotFound},
			{"empty key", "", ErrNotFound},
			{"broken", "broken", ErrFailed},
			{"value too large", "too large", ErrFailed},
			{"key too long", strings.Repeat("k", MaxKey+1), ErrTooLarge},
		} {
			got, err := Fetch(t.Context(), c.Host(), y.ID(), tt.key)
			if !errors.Is(err, tt.want) {
				t.Errorf("%s: got %v, want %v", tt.name, err, tt.want)
			}
			if err == nil && string(got) != values[tt.key] {
				t.Errorf("%s: got %d bytes, want %d", tt.name, len(got), len(values[tt.key]))
			}
			if err != nil && got != nil {
				t.Errorf("%s: got %q and an error", tt.name, got)
			}
		}
		time.Sleep(time.Second)
		if n := c.Stats().Streams; n != 0 {
			t.Errorf("%d streams are left", n)
		}
	})
}

func TestNamespaces(t *testing.T) {
	is := func(v string) Lookup {
		return func(_ context.Context, key string) ([]byte, error) { return []byte(v + key), nil }
	}
	n := Namespaces{"/a/": is("a"), "/a/b/": is("b")}
	for key, want := range map[string]string{"/a/1": "a/a/1", "/a/b/1": "b/a/b/1", "/a/b": "a/a/b"} {
		if got, err := n.Lookup(t.Context(), key); err != nil || string(got) != want {
			t.Errorf("%s: got %q, %v; want %q", key, got, err, want)
		}
	}
	for _, key := range []string{"", "/", "/c/1"} {
		if _, err := n.Lookup(t.Context(), key); !errors.Is(err, ErrNotFound) {
			t.Errorf("%s: got %v, want ErrNotFound", key, err)
		}
	}
}

func TestFetchErrors(t *testing.T) {
	stopped := errors.New("stopped")
	answer := func(b []byte) plexus.Handler {
		return func(_ context.Context, s *plexus.Stream) error {
			s.Write(b)
			return nil
		}
	}
	for _, tt := range []struct {
		name  string
		serve plexus.Handler // nil: none
		stop  time.Duration
		want  error
		after time.Duration
	}{
		{name: "not served", want: plexus.ErrNotSupported},
		{name: "no answer", want: io.ErrUnexpectedEOF, serve: answer(nil)},
		{name: "half an answer", want: io.ErrUnexpectedEOF, serve: answer([]byte("\x03\x12"))},
		{name: "malformed", want: pb.ErrMalformed, serve: answer([]byte("\x01\xff"))},
		{name: "unknown status", want: ErrFailed, serve: answer([]byte("\x02\x08\x09"))},
		{name: "silence", want: os.ErrDeadlineExceeded, after: timeout, serve: silent},
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
				begin := time.Now()
				_, err := Fetch(ctx, c.Host(), y.ID(), "k")
				if oe, ok := errors.AsType[*plexus.OpError](err); !ok || oe.Peer != y.ID() || !errors.Is(err, tt.want) {
					t.Errorf("got %v, want an OpError with %v", err, tt.want)
				}
				if d := time.Since(begin).Round(time.Second); d != tt.after {
					t.Errorf("after %v, want %v", d, tt.after)
				}
			})
		})
	}
	t.Run("too large", func(t *testing.T) {
		plexustest.Pair(t, func(t *testing.T, c *plexus.Conn, y *plexus.Host) {
			y.Handle(Protocol, answer([]byte("\xff\xff\xff\x7f"))) // and nothing after it
			_, err := Fetch(t.Context(), c.Host(), y.ID(), "k")
			if _, ok := errors.AsType[*pb.TooLargeError](err); !ok {
				t.Errorf("got %v, want a TooLargeError", err)
			}
		})
	})
}

func silent(_ context.Context, s *plexus.Stream) error {
	<-s.Conn().Done()
	return nil
}

// raw opens a stream and writes b.
func raw(t *testing.T, c *plexus.Conn, b []byte) *plexus.Stream {
	t.Helper()
	s, err := c.Open(t.Context(), Protocol)
	if err != nil {
		t.Fatal(err)
	}
	s.Write(b)
	return s
}

func wantReset(t *testing.T, s *plexus.Stream) {
	t.Helper()
	_, err := io.Copy(io.Discard, s)
	if se, ok := errors.AsType[*plexus.StreamError](err); !ok || !se.Remote {
		t.Errorf("got %v, want a remote StreamError", err)
	}
}

func TestServeBounds(t *testing.T) {
	for _, tt := range []struct {
		name  string
		bytes []byte
		after time.Duration
	}{
		{name: "key too long", bytes: appendRequest(nil, strings.Repeat("k", MaxKey+overhead+1))},
		{name: "announced only", bytes: []byte("\xff\xff\xff\xff\x0f")},
		{name: "malformed", bytes: []byte("\x01\xff")},
		{name: "half a request", bytes: []byte("\x04\x0a"), after: timeout},
	} {
		t.Run(tt.name, func(t *testing.T) {
			plexustest.Pair(t, func(t *testing.T, c *plexus.Conn, y *plexus.Host) {
				Serve(y, func(context.Context, string) ([]byte, error) {
					t.Error("asked")
					return nil, nil
				})
				begin := time.Now()
				wantReset(t, raw(t, c, tt.bytes))
				if d := time.Since(begin).Round(time.Second); d != tt.after {
					t.Errorf("after %v, want %v", d, tt.after)
				}
			})
		})
	}
}

func TestLookupBounds(t *testing.T) {
	plexustest.Pair(t, func(t *testing.T, c *plexus.Conn, y *plexus.Host) {
		var n, late atomic.Int64
		begin := time.Now()
		Serve(y, func(ctx context.Context, key string) ([]byte, error) {
			n.Add(1)
			<-ctx.Done() // a lookup that takes too long is told so
			late.Store(int64(time.Since(begin)))
			return nil, ctx.Err()
		})
		var ss []*plexus.Stream
		for range lookupsPerPeer {
			ss = append(ss, raw(t, c, appendRequest(nil, "k")))
		}
		time.Sleep(time.Second)
		wantReset(t, raw(t, c, appendRequest(nil, "k")))
		if n.Load() != lookupsPerPeer {
			t.Errorf("%d lookups, want %d", n.Load(), lookupsPerPeer)
		}
		io.Copy(io.Discard, ss[0])
		if late := time.Duration(late.Load()); late != timeout {
			t.Errorf("a lookup was stopped after %v, want %v", late, timeout)
		}
	})
}

func TestPeerTakesNothing(t *testing.T) {
	plexustest.Pair(t, func(t *testing.T, c *plexus.Conn, y *plexus.Host) {
		v := bytes.Repeat([]byte("v"), MaxValue)
		Serve(y, func(context.Context, string) ([]byte, error) { return v, nil })
		s := raw(t, c, appendRequest(nil, "k"))
		begin := time.Now()
		if _, err := s.Read(make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
		time.Sleep(timeout)
		wantReset(t, s)
		if d := time.Since(begin).Round(time.Second); d != timeout {
			t.Errorf("after %v, want %v", d, timeout)
		}
	})
}
