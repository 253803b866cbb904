package pubsubtest

import (
	"context"
	"testing"
	"time"

	"github.com/plexus-p2p/plexus"
	"github.com/plexus-p2p/plexus/pubsub"
)

// Line tests a router on hosts of any kind, in real time. Each is connected to the one
// before it, by dial, and what one of them publishes comes to each of the others once.
func Line(t *testing.T, router func() pubsub.Router, hosts []*plexus.Host, dial func(ctx context.Context, from, to *plexus.Host) error) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	changed := make(chan struct{}, 1)
	var nodes []*Node
	for _, h := range hosts {
		ps, err := pubsub.New(h, router(), pubsub.Config{Trace: func(pubsub.Event) {
			select {
			case changed <- struct{}{}:
			default:
			}
		}})
		if err != nil {
			t.Fatal(err)
		}
		defer ps.Close()
		node := &Node{Host: h, PubSub: ps}
		node.join(t, "topic", pubsub.TopicConfig{})
		nodes = append(nodes, node)
	}
	for i := 1; i < len(hosts); i++ {
		if err := dial(ctx, hosts[i], hosts[i-1]); err != nil {
			t.Fatal(err)
		}
	}
	for i, node := range nodes {
		neighbours := min(i, 1) + min(len(nodes)-1-i, 1)
		for len(node.PubSub.Mesh("topic")) < neighbours {
			select {
			case <-changed:
			case <-ctx.Done():
				t.Fatalf("host %d has %d in its mesh", i, len(node.PubSub.Mesh("topic")))
			}
		}
	}
	want := make(map[string]bool)
	for i, node := range nodes {
		var batch [][]byte
		for j := range 20 {
			batch = append(batch, payload(i, j, 1024))
		}
		batch = append(batch, payload(i, 20, 300<<10))
		if _, err := node.Topic.PublishBatch(ctx, batch); err != nil {
			t.Fatalf("host %d: %v", i, err)
		}
		for _, b := range batch {
			want[string(b[:8])] = true
		}
	}
	for i, node := range nodes {
		got := make(map[string]bool)
		for len(got) < len(want) {
			m, err := node.Sub.Next(ctx)
			if err != nil {
				t.Fatalf("host %d has %d of %d messages: %v; %+v", i, len(got), len(want), err, node.PubSub.Stats())
			}
			k := string(m.Data[:8])
			if !want[k] || got[k] {
				t.Fatalf("host %d got %x, which it had, or nobody has published", i, k)
			}
			got[k] = true
		}
	}
}
