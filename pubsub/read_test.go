package pubsub_test

import (
	"context"
	"encoding/binary"
	"io"
	"testing"
	"testing/synctest"
	"time"

	"github.com/plexus-p2p/plexus"
	"github.com/plexus-p2p/plexus/plexustest"
	"github.com/plexus-p2p/plexus/pubsub"
	"github.com/plexus-p2p/plexus/pubsub/floodsub"
	"github.com/plexus-p2p/plexus/transport/memory"
)

// frame is an RPC as it is sent, with one message or none.
func frame(messages ...*pubsub.Message) []byte {
	var r pubsub.RPC
	for _, m := range messages {
		r.Messages = append(r.Messages, m.Append(nil))
	}
	b := r.Append(nil)
	return append(binary.AppendUvarint(nil, uint64(len(b))), b...)
}

// TestSlowReading: an RPC may come byte by byte, and after any silence.
func TestSlowReading(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var n memory.Network
		x, y := plexustest.Host(t, &n), plexustest.Host(t, &n)
		x.Handle(floodsub.Protocol, func(_ context.Context, s *plexus.Stream) error {
			_, err := io.Copy(io.Discard, s)
			return err
		})
		c, err := x.Dial(t.Context(), y.Info())
		if err != nil {
			t.Fatal(err)
		}
		ps, err := pubsub.New(y, floodsub.New(), pubsub.Config{Policy: pubsub.StrictNoSign})
		if err != nil {
			t.Fatal(err)
		}
		topic, err := ps.Join("t", pubsub.TopicConfig{})
		if err != nil {
			t.Fatal(err)
		}
		sub := topic.Subscribe()
		s, err := c.Open(t.Context(), floodsub.Protocol)
		if err != nil {
			t.Fatal(err)
		}
		write := func(b []byte) {
			t.Helper()
			if _, err := s.Write(b); err != nil {
				t.Fatal(err)
			}
		}
		want := func(data string) {
			t.Helper()
			if m, err := sub.Next(t.Context()); err != nil || string(m.Data) != data {
				t.Fatalf("got %v, %v, want %q", m, err, data)
			}
		}
		for _, b := range frame(pubsub.NewMessage("t", []byte("drop by drop"))) {
			write([]byte{b})
			time.Sleep(2 * time.Second)
		}
		want("drop by drop")
		for _, silence := range []time.Duration{time.Second, 10 * time.Second, time.Hour} {
			time.Sleep(silence)
			write(frame()) // one byte
			write(frame(pubsub.NewMessage("t", []byte(silence.String()))))
			want(silence.String())
		}
		// With half an RPC behind it.
		f := frame(pubsub.NewMessage("t", make([]byte, 300)))
		write(append(frame(pubsub.NewMessage("t", []byte("first"))), f[:1]...))
		want("first")
		time.Sleep(30 * time.Second)
		write(f[1:])
		want(string(make([]byte, 300)))
	})
}
