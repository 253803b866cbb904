package gossip

import (
	"context"
	"testing"
	"time"

	"github.com/plexus-p2p/plexus/peer"
	"github.com/plexus-p2p/plexus/plexustest"
	"github.com/plexus-p2p/plexus/pubsub"
	"github.com/plexus-p2p/plexus/pubsub/floodsub"
	"github.com/plexus-p2p/plexus/routing"
	"github.com/plexus-p2p/plexus/routing/ipns"
	"github.com/plexus-p2p/plexus/transport/memory"
)

// BenchmarkValues is what a value costs where its key is followed: one that comes by
// pubsub and is kept already, is older, or is better, and one that a peer asks for.
func BenchmarkValues(b *testing.B) {
	var net memory.Network
	h := plexustest.Host(b, &net)
	r := start(b, h, floodsub.New(), Config{Validator: routing.Namespaces{ipns.Prefix: ipns.Validator{}}})
	key, err := peer.GenerateKey(peer.Ed25519)
	if err != nil {
		b.Fatal(err)
	}
	name := ipns.Key(key.ID())
	seal := func(seq int) *pubsub.Message {
		v, err := ipns.Seal(key, ipns.Record{Value: "/ipfs/bafkqaaa", Sequence: uint64(seq), Until: time.Now().Add(time.Hour)})
		if err != nil {
			b.Fatal(err)
		}
		return &pubsub.Message{Data: v}
	}
	old, now := seal(1), seal(2)
	if err := r.Put(b.Context(), name, now.Data); err != nil {
		b.Fatal(err)
	}
	rec := r.records[name]
	for _, bb := range []struct {
		name string
		m    *pubsub.Message
	}{{"same", now}, {"older", old}} {
		b.Run(bb.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if rec.check(context.Background(), "", bb.m) != pubsub.Ignored {
					b.Fatal("taken")
				}
			}
		})
	}
	seq := 2
	b.Run("better", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			b.StopTimer()
			seq++
			m := seal(seq)
			b.StartTimer()
			if rec.check(context.Background(), "", m) != pubsub.Accepted {
				b.Fatal("not taken")
			}
		}
	})
	b.Run("lookup", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := r.Lookup(context.Background(), name); err != nil {
				b.Fatal(err)
			}
		}
	})
}
