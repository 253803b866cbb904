package pubsub_test

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/plexus-p2p/plexus"
	"github.com/plexus-p2p/plexus/plexustest"
	"github.com/plexus-p2p/plexus/pubsub"
	"github.com/plexus-p2p/plexus/pubsub/floodsub"
	"github.com/plexus-p2p/plexus/pubsub/pubsubtest"
	"github.com/plexus-p2p/plexus/simnet"
)

func floods() pubsub.Router { return floodsub.New() }

// Watch tells of neighbours that are there, that come, leave and lose their connection.
func TestWatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := pubsubtest.New(t, 4, floods, nil)
		for i := 1; i < 4; i++ {
			n.Connect(0, i)
		}
		var topics []*pubsub.Topic
		for _, node := range n.Nodes {
			topic, err := node.PubSub.Join("topic", pubsub.TopicConfig{})
			if err != nil {
				t.Fatal(err)
			}
			topics = append(topics, topic)
		}
		topics[1].Subscribe()
		time.Sleep(time.Second)
		got := make(chan string, 10)
		ended := make(chan bool)
		ctx, cancel := context.WithCancel(t.Context())
		go func() {
			for c := range topics[0].Watch(ctx) {
				for i, node := range n.Nodes {
					if node.Host.ID() == c.Peer {
						got <- fmt.Sprint(i, c.Here)
					}
				}
			}
			close(ended)
		}()
		want := func(w string) {
			t.Helper()
			time.Sleep(time.Second)
			select {
			case g := <-got:
				if g != w {
					t.Errorf("got %s, want %s", g, w)
				}
			default:
				t.Errorf("nothing, want %s", w)
			}
		}
		want("1 true")
		sub := topics[2].Subscribe()
		want("2 true")
		topics[3].Subscribe()
		want("3 true")
		sub.Close()
		want("2 false")
		n.Nodes[3].Host.Close()
		want("3 false")
		n.Nodes[1].PubSub.Close()
		want("1 false")
		cancel()
		<-ended
		if len(got) > 0 {
			t.Errorf("and %s", <-got)
		}
		for range topics[1].Watch(t.Context()) {
			t.Error("a closed topic has neighbours")
		}
	})
}

// Flush returns when the last message is on its way; to a peer that takes nothing, it
// waits as long as it may.
func TestFlush(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := pubsubtest.New(t, 2, floods, nil)
		n.Connect(0, 1)
		n.Join("topic", pubsub.TopicConfig{})
		var got atomic.Int64
		go func() {
			for _, err := range n.Nodes[1].Sub.All(t.Context()) {
				if err != nil {
					return
				}
				got.Add(1)
			}
		}()
		const messages = 300
		for range messages {
			if _, err := n.Nodes[0].Topic.Publish(t.Context(), make([]byte, 1000)); err != nil {
				t.Fatal(err)
			}
		}
		if err := n.Nodes[0].PubSub.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
		n.Nodes[0].Host.Close()
		time.Sleep(time.Second)
		if got.Load() != messages {
			t.Errorf("%d of %d messages came", got.Load(), messages)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		sim := simnet.New(simnet.Config{})
		defer sim.Close()
		there := sim.Host("10.0.0.2")
		x, y := plexustest.SimHost(t, sim.Host("10.0.0.1")), plexustest.SimHost(t, there)
		var topics []*pubsub.Topic
		var all []*pubsub.PubSub
		for _, h := range []*plexus.Host{x, y} {
			ps, err := pubsub.New(h, floods(), pubsub.Config{Patience: time.Millisecond})
			if err != nil {
				t.Fatal(err)
			}
			topic, err := ps.Join("topic", pubsub.TopicConfig{})
			if err != nil {
				t.Fatal(err)
			}
			topic.Relay()
			topics, all = append(topics, topic), append(all, ps)
		}
		if _, err := x.Dial(t.Context(), y.Info()); err != nil {
			t.Fatal(err)
		}
		if err := topics[0].Wait(t.Context(), 1); err != nil {
			t.Fatal(err)
		}
		sim.Partition(there)
		for {
			if _, err := topics[0].Publish(t.Context(), make([]byte, 100<<10)); err != nil {
				break
			}
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := all[0].Flush(ctx); err != context.DeadlineExceeded {
			t.Errorf("flushed into a cut link: %v", err)
		}
		all[0].Close()
		if err := all[0].Flush(t.Context()); err != nil {
			t.Errorf("nothing is left, and: %v", err)
		}
	})
}
