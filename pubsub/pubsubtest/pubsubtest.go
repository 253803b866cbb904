// Package pubsubtest tests pubsub routers: every router keeps the promises of package
// pubsub, on hosts of a simulated network in virtual time.
//
//	func TestConformance(t *testing.T) {
//		pubsubtest.Test(t, func() pubsub.Router { return gossipsub.Must(gossipsub.Default()) })
//	}
package pubsubtest

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/plexus-p2p/plexus"
	"github.com/plexus-p2p/plexus/peer"
	"github.com/plexus-p2p/plexus/plexustest"
	"github.com/plexus-p2p/plexus/pubsub"
	"github.com/plexus-p2p/plexus/simnet"
)

// A Node is a host with pubsub.
type Node struct {
	Host   *plexus.Host
	PubSub *pubsub.PubSub
	Topic  *pubsub.Topic
	Sub    *pubsub.Subscription

	sim *simnet.Host
}

// A Net is hosts on a simulated network.
type Net struct {
	Nodes []*Node
	Sim   *simnet.Network
	t     testing.TB
}

// New makes n hosts that are not connected, in the bubble of the test that it is
// called in. Their links have 10 ms of latency.
func New(t testing.TB, n int, router func() pubsub.Router, cfg func(i int) pubsub.Config) *Net {
	t.Helper()
	net := &Net{Sim: simnet.New(simnet.Config{Path: simnet.Link{Latency: 10 * time.Millisecond}}), t: t}
	t.Cleanup(net.Sim.Close)
	for i := range n {
		sim := net.Sim.Host(fmt.Sprintf("10.%d.%d.1", i>>8, i&255))
		h := plexustest.SimHost(t, sim)
		var c pubsub.Config
		if cfg != nil {
			c = cfg(i)
		}
		c.Seed = uint64(i) + 1
		ps, err := pubsub.New(h, router(), c)
		if err != nil {
			t.Fatal(err)
		}
		net.Nodes = append(net.Nodes, &Node{Host: h, PubSub: ps, sim: sim})
	}
	return net
}

// Connect connects two hosts.
func (n *Net) Connect(i, j int) {
	n.t.Helper()
	if _, err := n.Nodes[i].Host.Dial(n.t.Context(), n.Nodes[j].Host.Info()); err != nil {
		n.t.Fatal(err)
	}
}

// Mix connects the hosts to a ring, and each to others at random until it has
// degree neighbours or so.
func (n *Net) Mix(degree int) {
	n.t.Helper()
	rnd := rand.New(rand.NewPCG(1, 2))
	all := len(n.Nodes)
	for i := range all {
		n.Connect(i, (i+1)%all)
	}
	for range all * max(0, degree-2) / 2 {
		if i, j := rnd.IntN(all), rnd.IntN(all); i != j {
			n.Connect(i, j)
		}
	}
}

// Join lets every host join and subscribe to a topic, and waits until meshes stand.
func (n *Net) Join(name string, cfg pubsub.TopicConfig) {
	n.t.Helper()
	for _, node := range n.Nodes {
		node.join(n.t, name, cfg)
	}
	time.Sleep(5 * time.Second)
}

func (node *Node) join(t testing.TB, name string, cfg pubsub.TopicConfig) {
	t.Helper()
	var err error
	if node.Topic, err = node.PubSub.Join(name, cfg); err != nil {
		t.Fatal(err)
	}
	node.Sub = node.Topic.Subscribe()
}

// payload is a message that tells who sent it and which it is.
func payload(from, n, size int) []byte {
	b := make([]byte, max(size, 8))
	binary.BigEndian.PutUint32(b, uint32(from))
	binary.BigEndian.PutUint32(b[4:], uint32(n))
	return b
}

// collect reads a subscription until it has been silent for a while, and returns
// how often each message came.
func collect(t testing.TB, s *pubsub.Subscription, silence time.Duration) map[string]int {
	got := make(map[string]int)
	for {
		ctx, cancel := context.WithTimeout(t.Context(), silence)
		m, err := s.Next(ctx)
		cancel()
		if errors.Is(err, context.DeadlineExceeded) {
			return got
		}
		if err != nil {
			t.Error(err)
			return got
		}
		got[string(m.Data[:8])]++
	}
}

// wantOnce checks that every host received every message once.
func (n *Net) wantOnce(t testing.TB, want [][]byte) {
	t.Helper()
	for i, node := range n.Nodes {
		got := collect(t, node.Sub, 10*time.Second)
		missing, again := 0, 0
		for _, w := range want {
			switch got[string(w[:8])] {
			case 1:
			case 0:
				missing++
			default:
				again++
			}
		}
		if missing > 0 || again > 0 || len(got) != len(want) {
			t.Errorf("host %d: of %d messages %d are missing, %d came more than once, and there are %d; %v",
				i, len(want), missing, again, len(got), node.PubSub.Stats().Dropped)
		}
	}
}

// Test tests a router.
func Test(t *testing.T, router func() pubsub.Router) {
	run := func(name string, f func(t *testing.T)) {
		t.Run(name, func(t *testing.T) { synctest.Test(t, f) })
	}
	for _, hosts := range []int{20, 50} {
		run(fmt.Sprintf("%d hosts", hosts), func(t *testing.T) { testDelivery(t, router, hosts) })
	}
	run("batch", func(t *testing.T) { testBatch(t, router) })
	run("large messages", func(t *testing.T) { testLarge(t, router) })
	run("flat out", func(t *testing.T) { testFlatOut(t, router) })
	run("slow peer", func(t *testing.T) { testSlowPeer(t, router) })
	run("no room", func(t *testing.T) { testNoRoom(t, router) })
	run("slow subscriber", func(t *testing.T) { testSlowSubscriber(t, router) })
	run("nobody", func(t *testing.T) { testNobody(t, router) })
	run("publish only", func(t *testing.T) { testPublishOnly(t, router) })
	run("relay", func(t *testing.T) { testRelay(t, router) })
	run("leave", func(t *testing.T) { testLeave(t, router) })
	run("reconnect", func(t *testing.T) { testReconnect(t, router) })
	for _, inline := range []bool{true, false} {
		run(fmt.Sprintf("validators, inline %v", inline), func(t *testing.T) { testValidators(t, router, inline) })
	}
	run("busy validators", func(t *testing.T) { testBusy(t, router) })
	for _, tt := range []struct {
		name string
		p, q pubsub.Policy
	}{
		{"StrictSign", pubsub.StrictSign, pubsub.StrictSign},
		{"StrictNoSign", pubsub.StrictNoSign, pubsub.StrictNoSign},
		{"StrictNoSign to StrictSign", pubsub.StrictNoSign, pubsub.StrictSign},
		{"StrictSign to StrictNoSign", pubsub.StrictSign, pubsub.StrictNoSign},
	} {
		run(tt.name, func(t *testing.T) { testPolicies(t, router, tt.p, tt.q) })
	}
	run("closing", func(t *testing.T) { testClosing(t, router) })
}

// Every message reaches every subscriber once.
func testDelivery(t *testing.T, router func() pubsub.Router, hosts int) {
	n := New(t, hosts, router, nil)
	n.Mix(8)
	n.Join("topic", pubsub.TopicConfig{})
	var want [][]byte
	for i, node := range n.Nodes {
		for j := range 5 {
			b := payload(i, j, 1000)
			r, err := node.Topic.Publish(t.Context(), b)
			if err != nil || r.Peers == 0 || r.Left != 0 || r.ID == "" {
				t.Fatalf("host %d: %+v, %v", i, r, err)
			}
			want = append(want, b)
		}
		time.Sleep(7 * time.Millisecond)
	}
	n.wantOnce(t, want)
	for i, node := range n.Nodes {
		s := node.PubSub.Stats()
		if len(s.Dropped) != 0 {
			t.Errorf("host %d dropped %v", i, s.Dropped)
		}
		if s.Published != 5 || s.Delivered != uint64(len(want)) || s.Received-s.Duplicates != uint64(len(want))-5 {
			t.Errorf("host %d: %+v", i, s)
		}
	}
}

// A batch is as many messages, and what is wrong with one keeps none of the others back.
func testBatch(t *testing.T, router func() pubsub.Router) {
	n := New(t, 10, router, func(int) pubsub.Config { return pubsub.Config{OwnQueue: 32 << 10} })
	n.Mix(6)
	n.Join("topic", pubsub.TopicConfig{})
	var want [][]byte
	for j := range 300 {
		want = append(want, payload(0, j, 1000))
	}
	rs, err := n.Nodes[0].Topic.PublishBatch(t.Context(), want)
	if err != nil || len(rs) != len(want) {
		t.Fatalf("%d receipts, %v", len(rs), err)
	}
	ids := make(map[pubsub.MessageID]bool)
	for i, r := range rs {
		if ids[r.ID] = true; r.Peers == 0 || r.Left != 0 || len(ids) != i+1 {
			t.Fatalf("message %d: %+v", i, r)
		}
	}
	more := [][]byte{payload(1, 0, 8), make([]byte, pubsub.DefaultMaxMessage), payload(1, 1, 8)}
	rs, err = n.Nodes[0].Topic.PublishBatch(t.Context(), more)
	if !errors.Is(err, pubsub.ErrTooLarge) || errors.Is(err, pubsub.ErrNoPeers) || rs[0].Peers == 0 || rs[1].ID != "" || rs[2].Peers == 0 {
		t.Errorf("with one too large: %+v, %v", rs, err)
	}
	n.wantOnce(t, append(want, more[0], more[2]))
	if rs, err := n.Nodes[0].Topic.PublishBatch(t.Context(), nil); err != nil || len(rs) != 0 {
		t.Errorf("an empty batch: %v, %v", rs, err)
	}
}

func testLarge(t *testing.T, router func() pubsub.Router) {
	n := New(t, 10, router, nil)
	n.Mix(6)
	n.Join("topic", pubsub.TopicConfig{})
	var want [][]byte
	for i := range 10 {
		b := payload(i, 0, 512<<10+i)
		if _, err := n.Nodes[i].Topic.Publish(t.Context(), b); err != nil {
			t.Fatal(err)
		}
		want = append(want, b)
	}
	n.wantOnce(t, want)
	_, err := n.Nodes[0].Topic.Publish(t.Context(), make([]byte, pubsub.DefaultMaxMessage))
	if !errors.Is(err, pubsub.ErrTooLarge) {
		t.Errorf("too large: got %v", err)
	}
}

// Hosts that publish as fast as they can lose nothing in silence: each message that
// Publish took came to all.
func testFlatOut(t *testing.T, router func() pubsub.Router) {
	const hosts, each = 10, 500
	n := New(t, hosts, router, nil)
	n.Mix(6)
	n.Join("topic", pubsub.TopicConfig{})
	var (
		mu   sync.Mutex
		want [][]byte
		wg   sync.WaitGroup
	)
	for i, node := range n.Nodes {
		wg.Go(func() {
			for j := range each {
				b := payload(i, j, 1024)
				if _, err := node.Topic.Publish(t.Context(), b); err != nil {
					t.Errorf("host %d: %v", i, err)
					return
				}
				mu.Lock()
				want = append(want, b)
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	n.wantOnce(t, want)
}

// stream publishes count messages from node 0, one each millisecond, and returns
// them and how many neighbours were left out in all.
func (n *Net) stream(t testing.TB, count, size int) (sent [][]byte, left int) {
	t.Helper()
	for j := range count {
		b := payload(0, j, size)
		r, err := n.Nodes[0].Topic.Publish(t.Context(), b)
		if err != nil {
			t.Fatal(err)
		}
		left += r.Left
		sent = append(sent, b)
		time.Sleep(time.Millisecond)
	}
	return sent, left
}

// A neighbour that takes nothing, or little, slows neither the publisher for more
// than Patience nor the others at all.
func testSlowPeer(t *testing.T, router func() pubsub.Router) {
	n := New(t, 6, router, nil)
	for i := 1; i < 6; i++ {
		n.Connect(0, i)
	}
	n.Join("topic", pubsub.TopicConfig{})
	n.Sim.Partition(n.Nodes[5].sim) // it falls silent
	slow := n.Nodes[5]
	n.Nodes = n.Nodes[:5]
	begin := time.Now()
	sent, left := n.stream(t, 3000, 1024)
	if d, most := time.Since(begin), 3*time.Second+2*pubsub.DefaultPatience; d > most {
		t.Errorf("publishing took %v, want at most %v", d, most)
	}
	s := n.Nodes[0].PubSub.Stats()
	if left == 0 || s.Dropped[pubsub.OwnQueueFull] != uint64(left) {
		t.Errorf("%d times a neighbour was left out, and the counters say %v", left, s.Dropped)
	}
	n.wantOnce(t, sent)
	if got := collect(t, slow.Sub, time.Second); len(got) > 10 {
		t.Errorf("%d messages passed through a link that was cut", len(got))
	}
	n.Sim.Heal()
}

// If the only neighbour has no room, Publish waits for it, and says so in the end.
func testNoRoom(t *testing.T, router func() pubsub.Router) {
	n := New(t, 2, router, func(int) pubsub.Config {
		return pubsub.Config{OwnQueue: 64 << 10, Patience: 5 * time.Second}
	})
	n.Connect(0, 1)
	n.Join("topic", pubsub.TopicConfig{})
	// 80 kB/s is what the neighbour takes.
	n.Nodes[1].sim.SetAccess(simnet.Link{}, simnet.Link{Bandwidth: 8 * 80e3})
	begin := time.Now()
	sent := make([][]byte, 0, 600)
	for j := range 600 {
		b := payload(0, j, 1000)
		if r, err := n.Nodes[0].Topic.Publish(t.Context(), b); err != nil || r.Peers != 1 {
			t.Fatalf("message %d: %+v, %v", j, r, err)
		}
		sent = append(sent, b)
	}
	if d := time.Since(begin); d < time.Second {
		t.Errorf("600 kB went in %v through a link of 80 kB/s", d)
	}
	n.wantOnce(t, sent)

	n.Sim.Partition(n.Nodes[1].sim)
	var err error
	took := 0
	ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
	defer cancel()
	for ; err == nil && took < 5000; took++ {
		_, err = n.Nodes[0].Topic.Publish(ctx, payload(1, took, 1000))
	}
	if !errors.Is(err, pubsub.ErrFull) {
		t.Errorf("after %d messages to nowhere: %v, want ErrFull", took, err)
	}
	n.Sim.Heal()
	// The same with a context that ends first.
	for time.Sleep(time.Minute); ; {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		r, err := n.Nodes[0].Topic.Publish(ctx, payload(2, took, 1000))
		cancel()
		if took++; err == nil {
			if took == 20000 {
				t.Fatal("there is always room")
			}
			n.Nodes[1].sim.SetAccess(simnet.Link{}, simnet.Link{Bandwidth: 8 * 100})
			continue
		}
		if !errors.Is(err, pubsub.ErrFull) || !errors.Is(err, context.DeadlineExceeded) || r.Left != 1 {
			t.Errorf("no room until the context ended: %+v, %v", r, err)
		}
		break
	}
}

// A subscriber that does not read loses messages, is told how many, and nobody else does.
func testSlowSubscriber(t *testing.T, router func() pubsub.Router) {
	n := New(t, 2, router, func(int) pubsub.Config { return pubsub.Config{SubscriberQueue: 64 << 10} })
	n.Connect(0, 1)
	n.Join("topic", pubsub.TopicConfig{})
	quick := n.Nodes[1].Topic.Subscribe()
	const count = 500
	got := make(chan int)
	go func() {
		some := 0
		for _, err := range quick.All(t.Context()) {
			if err != nil {
				t.Error(err)
				break
			}
			if some++; some == count {
				break
			}
		}
		got <- some
	}()
	quiet := n.Nodes[0].Sub
	n.stream(t, count, 1000)
	if some := <-got; some != count {
		t.Errorf("the quick subscriber got %d", some)
	}
	for _, sub := range []*pubsub.Subscription{quiet, n.Nodes[1].Sub} {
		took, lost := 0, 0
		for took+lost < count {
			m, err := sub.Next(t.Context())
			if le, ok := errors.AsType[*pubsub.LostError](err); ok {
				lost += le.Messages
			} else if err != nil || len(m.Data) != 1000 {
				t.Fatal(err)
			} else {
				took++
			}
		}
		if took == 0 || lost == 0 || took+lost != count {
			t.Errorf("the slow subscriber got %d, and was told of %d lost", took, lost)
		}
		if n := n.Nodes[1].PubSub.Stats().Dropped[pubsub.SubscriberFull]; n != uint64(lost) {
			t.Errorf("%d counted, %d told", n, lost)
		}
	}
	if _, err := n.Nodes[0].Topic.Publish(t.Context(), payload(9, 9, 9)); err != nil {
		t.Fatal(err)
	}
	if m, err := n.Nodes[1].Sub.Next(t.Context()); err != nil || m.Data[3] != 9 {
		t.Errorf("after a loss: %v, %v", m, err)
	}
}

// A message that reaches nobody is no success.
func testNobody(t *testing.T, router func() pubsub.Router) {
	n := New(t, 2, router, nil)
	n.Join("topic", pubsub.TopicConfig{})
	b := payload(0, 0, 8)
	r, err := n.Nodes[0].Topic.Publish(t.Context(), b)
	if !errors.Is(err, pubsub.ErrNoPeers) || r.Peers != 0 {
		t.Errorf("without neighbours: %+v, %v", r, err)
	}
	if m, err := n.Nodes[0].Sub.Next(t.Context()); err != nil || m.ReceivedFrom != n.Nodes[0].Host.ID() {
		t.Errorf("this host's own subscription: %v, %v", m, err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := n.Nodes[0].Topic.Wait(ctx, 1); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("waiting for nobody: %v", err)
	}
	time.AfterFunc(time.Second, func() { n.Connect(0, 1) })
	if err := n.Nodes[0].Topic.Wait(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	if r, err := n.Nodes[0].Topic.Publish(t.Context(), b); err != nil || r.Peers != 1 {
		t.Errorf("with a neighbour: %+v, %v", r, err)
	}
}

// Who does not receive a topic can publish to it.
func testPublishOnly(t *testing.T, router func() pubsub.Router) {
	n := New(t, 8, router, nil)
	n.Mix(4)
	for _, node := range n.Nodes[1:] {
		node.join(t, "topic", pubsub.TopicConfig{})
	}
	topic, err := n.Nodes[0].PubSub.Join("topic", pubsub.TopicConfig{})
	if err != nil {
		t.Fatal(err)
	}
	time.Sleep(5 * time.Second)
	n.Nodes[0].Topic = topic
	sent, _ := n.stream(t, 10, 100)
	n.Nodes = n.Nodes[1:]
	n.wantOnce(t, sent)
}

// Who relays passes messages on without a subscription.
func testRelay(t *testing.T, router func() pubsub.Router) {
	n := New(t, 3, router, nil)
	n.Connect(0, 1)
	n.Connect(1, 2)
	n.Nodes[0].join(t, "topic", pubsub.TopicConfig{})
	n.Nodes[2].join(t, "topic", pubsub.TopicConfig{})
	middle, err := n.Nodes[1].PubSub.Join("topic", pubsub.TopicConfig{})
	if err != nil {
		t.Fatal(err)
	}
	stop := middle.Relay()
	time.Sleep(5 * time.Second)
	sent, _ := n.stream(t, 3, 100)
	ends := &Net{Nodes: []*Node{n.Nodes[0], n.Nodes[2]}, t: t}
	ends.wantOnce(t, sent)
	stop()
	stop()
	time.Sleep(time.Second)
	if _, err := n.Nodes[0].Topic.Publish(t.Context(), payload(0, 9, 8)); !errors.Is(err, pubsub.ErrNoPeers) {
		t.Errorf("after the relay has stopped: %v", err)
	}
}

// Who leaves is sent nothing more.
func testLeave(t *testing.T, router func() pubsub.Router) {
	n := New(t, 3, router, nil)
	n.Mix(2)
	n.Join("topic", pubsub.TopicConfig{})
	leaver := n.Nodes[2]
	leaver.Sub.Close()
	if _, err := leaver.Sub.Next(t.Context()); !errors.Is(err, pubsub.ErrClosed) {
		t.Errorf("a closed subscription: %v", err)
	}
	time.Sleep(time.Second)
	before := leaver.PubSub.Stats().Received
	sent, _ := n.stream(t, 3, 100)
	n.Nodes = n.Nodes[:2]
	n.wantOnce(t, sent)
	if now := leaver.PubSub.Stats().Received; now != before {
		t.Errorf("%d messages came after leaving", now-before)
	}
	if p := n.Nodes[0].PubSub.Peers("topic"); len(p) != 1 || p[0] != n.Nodes[1].Host.ID() {
		t.Errorf("subscribed are %v", p)
	}
	if p := n.Nodes[0].PubSub.Peers(""); len(p) != 2 {
		t.Errorf("neighbours are %v", p)
	}
	leaver.Sub = leaver.Topic.Subscribe()
	time.Sleep(90 * time.Second) // a back-off may have to pass
	n.Nodes = append(n.Nodes, leaver)
	sent, _ = n.stream(t, 3, 100)
	n.wantOnce(t, sent)
}

// After a connection is lost and made again, all is as before.
func testReconnect(t *testing.T, router func() pubsub.Router) {
	n := New(t, 2, router, nil)
	n.Connect(0, 1)
	n.Join("topic", pubsub.TopicConfig{})
	for i := range 3 {
		for c := range n.Nodes[i%2].Host.Conns() {
			c.Close()
		}
		time.Sleep(time.Second)
		for _, node := range n.Nodes {
			if p := node.PubSub.Peers(""); len(p) != 0 {
				t.Errorf("without a connection, neighbours are %v", p)
			}
		}
		n.Connect(i%2, 1-i%2)
		time.Sleep(3 * time.Second)
		sent, _ := n.stream(t, 3, 100)
		n.wantOnce(t, sent)
		time.Sleep(3 * time.Minute)
	}
}

// Validators decide on what is delivered and sent on.
func testValidators(t *testing.T, router func() pubsub.Router, inline bool) {
	n := New(t, 3, router, nil)
	n.Connect(0, 1)
	n.Connect(1, 2)
	for i, node := range n.Nodes {
		var cfg pubsub.TopicConfig
		if i == 1 {
			cfg.Validator = &pubsub.Validator{Inline: inline, Check: func(ctx context.Context, from peer.ID, m *pubsub.Message) pubsub.Outcome {
				if from != n.Nodes[0].Host.ID() || m.From != from {
					t.Errorf("from %v, by %v", from, m.From)
				}
				if !inline {
					time.Sleep(10 * time.Millisecond)
				}
				return pubsub.Outcome(m.Data[0])
			}}
		}
		node.join(t, "topic", cfg)
	}
	time.Sleep(5 * time.Second)
	for _, o := range []pubsub.Outcome{pubsub.Accepted, pubsub.Ignored, pubsub.Rejected} {
		b := make([]byte, 8)
		b[0] = byte(o)
		if _, err := n.Nodes[0].Topic.Publish(t.Context(), b); err != nil {
			t.Fatal(err)
		}
	}
	for _, node := range n.Nodes[1:] {
		got := collect(t, node.Sub, 5*time.Second)
		if len(got) != 1 || got[string(make([]byte, 8))] != 1 {
			t.Errorf("got %v, want the accepted one", got)
		}
	}
	d := n.Nodes[1].PubSub.Stats().Dropped
	if d[pubsub.InvalidMessage] != 1 || d[pubsub.IgnoredMessage] != 1 {
		t.Errorf("dropped: %v", d)
	}
	refuse := pubsub.TopicConfig{Validator: &pubsub.Validator{Check: func(context.Context, peer.ID, *pubsub.Message) pubsub.Outcome { return pubsub.Rejected }}}
	other, err := n.Nodes[0].PubSub.Join("other", refuse)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := other.Publish(t.Context(), nil); !errors.Is(err, pubsub.ErrRejected) {
		t.Errorf("against the own validator: %v", err)
	}
}

// Validators have bounds.
func testBusy(t *testing.T, router func() pubsub.Router) {
	n := New(t, 2, router, nil)
	n.Connect(0, 1)
	var mu sync.Mutex
	running, most := 0, 0
	n.Nodes[0].join(t, "topic", pubsub.TopicConfig{})
	n.Nodes[1].join(t, "topic", pubsub.TopicConfig{Validator: &pubsub.Validator{
		Concurrency: 3, Queue: 5, Timeout: time.Minute,
		Check: func(ctx context.Context, from peer.ID, m *pubsub.Message) pubsub.Outcome {
			mu.Lock()
			running++
			most = max(most, running)
			mu.Unlock()
			<-ctx.Done()
			mu.Lock()
			running--
			mu.Unlock()
			return pubsub.Rejected
		},
	}})
	time.Sleep(5 * time.Second)
	n.stream(t, 20, 100)
	time.Sleep(10 * time.Minute)
	d := n.Nodes[1].PubSub.Stats().Dropped
	if most != 3 || running != 0 || d[pubsub.ValidatorsBusy] != 12 || d[pubsub.IgnoredMessage] != 8 || d[pubsub.InvalidMessage] != 0 {
		t.Errorf("%d ran at a time, want 3; %d run yet; dropped: %v, want 12 for want of room and 8 for want of time", most, running, d)
	}
}

// What does not meet the signing policy is dropped.
func testPolicies(t *testing.T, router func() pubsub.Router, from, to pubsub.Policy) {
	n := New(t, 2, router, func(i int) pubsub.Config {
		return pubsub.Config{Policy: []pubsub.Policy{from, to}[i]}
	})
	n.Connect(0, 1)
	n.Join("topic", pubsub.TopicConfig{})
	sent, _ := n.stream(t, 3, 100)
	if from == to {
		n.wantOnce(t, sent)
		if from == pubsub.StrictNoSign {
			if _, err := n.Nodes[0].Topic.Publish(t.Context(), sent[0]); !errors.Is(err, pubsub.ErrDuplicate) {
				t.Errorf("the same without a sequence number: %v", err)
			}
		}
		return
	}
	if got := collect(t, n.Nodes[1].Sub, 5*time.Second); len(got) != 0 {
		t.Errorf("got %v", got)
	}
	if d := n.Nodes[1].PubSub.Stats().Dropped; d[pubsub.InvalidSignature] != 3 {
		t.Errorf("dropped: %v", d)
	}
}

// After Close nothing works, and nothing is left.
func testClosing(t *testing.T, router func() pubsub.Router) {
	n := New(t, 2, router, nil)
	n.Connect(0, 1)
	n.Join("topic", pubsub.TopicConfig{})
	x := n.Nodes[0]
	if _, err := x.PubSub.Join("topic", pubsub.TopicConfig{}); err == nil {
		t.Error("joined twice")
	}
	wait := make(chan error)
	go func() {
		_, err := x.Sub.Next(t.Context())
		wait <- err
	}()
	go func() { wait <- x.Topic.Wait(t.Context(), 5) }()
	time.Sleep(time.Second)
	x.PubSub.Close()
	x.PubSub.Close()
	for range 2 {
		if err := <-wait; !errors.Is(err, pubsub.ErrClosed) {
			t.Errorf("while closing: %v", err)
		}
	}
	if _, err := x.Topic.Publish(t.Context(), nil); !errors.Is(err, pubsub.ErrClosed) {
		t.Errorf("Publish: %v", err)
	}
	if _, err := x.PubSub.Join("other", pubsub.TopicConfig{}); !errors.Is(err, pubsub.ErrClosed) {
		t.Errorf("Join: %v", err)
	}
	if _, err := x.Topic.Subscribe().Next(t.Context()); !errors.Is(err, pubsub.ErrClosed) {
		t.Errorf("Subscribe: %v", err)
	}
	if p := x.Host.Protocols(); len(p) != 0 {
		t.Errorf("still served: %v", p)
	}
	time.Sleep(20 * time.Second) // the neighbour tries to open its stream again, for a while
	if p := n.Nodes[1].PubSub.Peers(""); len(p) != 0 {
		t.Errorf("the neighbour holds on to %v", p)
	}
	for c := range x.Host.Conns() {
		if s := c.Stats().Streams; s != 0 {
			t.Errorf("%d streams are left", s)
		}
	}
}
