package pubsub

import (
	"bytes"
	"encoding/binary"
	"slices"
	"testing"

	"github.com/plexus-p2p/plexus"
)

// rpcs parses what a batch consists of.
func rpcs(t *testing.T, b []byte) (all []RPC) {
	t.Helper()
	for len(b) > 0 {
		n, head := binary.Uvarint(b)
		var r RPC
		if err := r.Parse(b[head : head+int(n)]); err != nil {
			t.Fatal(err)
		}
		all = append(all, r)
		b = b[head+int(n):]
	}
	return all
}

// TestDontWant: a message that leaves at once needs no IDONTWANT beside it; one that
// waits behind others is announced.
func TestDontWant(t *testing.T) {
	for name, c := range map[string]struct {
		before int // bytes of a message that waits already
		want   []string
	}{
		"nothing waits": {0, []string{"other"}},
		"some waits":    {ownShare, []string{"m", "other"}},
	} {
		t.Run(name, func(t *testing.T) {
			ps := new(PubSub)
			ps.cfg.defaults()
			o := &outbox{ps: ps, stream: new(plexus.Stream), running: true, q: Queue{Own: ps.cfg.OwnQueue, Forward: ps.cfg.ForwardQueue}}
			if c.before > 0 {
				first := NewMessage("t", bytes.Repeat([]byte("."), c.before))
				first.ID = "first"
				o.push(first, false)
			}
			m := NewMessage("t", []byte("data"))
			m.ID = "m"
			o.control(&Control{IDontWant: [][]byte{[]byte("m"), []byte("other")}})
			o.push(m, false)
			b, _, _ := o.collect(nil)
			var got []string
			for _, r := range rpcs(t, b) {
				for _, id := range r.Control.IDontWant {
					got = append(got, string(id))
				}
			}
			if !slices.Equal(got, c.want) {
				t.Errorf("IDONTWANT of %q, want %q", got, c.want)
			}
		})
	}
}

// TestDontWantBound: what waits to be told by IDONTWANT is bounded.
func TestDontWantBound(t *testing.T) {
	ps := new(PubSub)
	ps.cfg.defaults()
	o := &outbox{ps: ps, stream: new(plexus.Stream), running: true, q: Queue{Own: ps.cfg.OwnQueue, Forward: ps.cfg.ForwardQueue}}
	for range maxDontWant + 5 {
		o.control(&Control{IDontWant: [][]byte{[]byte("id")}})
	}
	if got := ps.Stats().Dropped[GossipQueueFull]; got != 5 || len(o.q.unasked) != maxDontWant {
		t.Errorf("%d wait, %d dropped", len(o.q.unasked), got)
	}
}
