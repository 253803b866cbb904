package pubsubsim_test

import (
	"encoding/binary"
	"fmt"
	"testing"
	"time"

	"github.com/plexus-p2p/plexus/pubsub"
	"github.com/plexus-p2p/plexus/pubsub/floodsub"
	"github.com/plexus-p2p/plexus/pubsub/gossipsub"
	"github.com/plexus-p2p/plexus/pubsub/pubsubsim"
)

// The same seed and the same calls are the same network, to the nanosecond.
func TestDeterministic(t *testing.T) {
	run := func(seed uint64) string {
		w := pubsubsim.NewWorld(seed)
		s := pubsubsim.New(pubsubsim.Config{Seed: seed, Latency: w.Latency})
		log := ""
		for range 30 {
			bits := w.Place()
			n := s.Add(pubsubsim.NodeConfig{Router: gossipsub.Must(gossipsub.Default()), Up: bits, Down: bits,
				Deliver: func(m *pubsub.Message) { log += fmt.Sprint(s.Now(), m.ReceivedFrom.String()[44:], " ") }})
			n.Join(topic)
		}
		s.Mix(s.Nodes, 8)
		s.Run(3 * time.Second)
		for i := range 20 {
			s.Nodes[i].Publish(topic, binary.BigEndian.AppendUint64(nil, uint64(i)))
			s.Run(50 * time.Millisecond)
		}
		s.Run(5 * time.Second)
		return log
	}
	a, b, c := run(1), run(1), run(2)
	if a != b {
		t.Error("the same seed gives two different runs")
	}
	if a == c {
		t.Error("two seeds give the same run")
	}
}

// A message takes the uplink, the latency and the downlink, and those who share an
// uplink wait for each other; what a queue has no room for is counted.
func TestLinks(t *testing.T) {
	s := pubsubsim.New(pubsubsim.Config{})
	var at []time.Duration
	add := func(cfg pubsubsim.NodeConfig) *pubsubsim.Node {
		cfg.Router = floodsub.New()
		cfg.Deliver = func(m *pubsub.Message) { at = append(at, s.Now()) }
		return s.Add(cfg)
	}
	from := add(pubsubsim.NodeConfig{Up: 8e6, Own: 20000}) // a byte each microsecond
	quick := add(pubsubsim.NodeConfig{})
	slow := add(pubsubsim.NodeConfig{Down: 0.8e6})
	for _, n := range []*pubsubsim.Node{quick, slow} {
		s.Connect(from, n)
		n.Join(topic)
	}
	s.Run(time.Second)
	begin := s.Now()
	if n := from.Publish(topic, make([]byte, 10000)); n != 2 {
		t.Fatalf("queued for %d", n)
	}
	s.Run(time.Second)
	// The uplink takes 10 ms for one and 20 for both, the slow downlink 100.
	for i, want := range []time.Duration{60 * time.Millisecond, 170 * time.Millisecond} {
		if got := at[i] - begin; got < want || got > want+3*time.Millisecond {
			t.Errorf("delivery %d after %v, want %v", i, got, want)
		}
	}
	for i := range 4 {
		from.Publish(topic, binary.BigEndian.AppendUint64(make([]byte, 0, 9000), uint64(i)+7)[:9000])
	}
	if from.Stats.Dropped == 0 || from.Stats.PeakQueue > 20000 {
		t.Errorf("%d were dropped, and at most %d bytes waited", from.Stats.Dropped, from.Stats.PeakQueue)
	}
	s.Disconnect(from, quick)
	if quick.Neighbours() != 0 || len(from.Core.In(topic)) != 1 {
		t.Error("the connection is still there")
	}
}

// TestFigureDuplicates counts how often a node receives a message of 150 KB, with D = 8 on
// a world's links, and how long that takes: with those passed on to some first, and to all
// at once as the specs have it. go-libp2p-pubsub has 4.6 copies.
func TestFigureDuplicates(t *testing.T) {
	const size, count = 150 << 10, 5
	run := func(eager int) (copies float64, half, last time.Duration) {
		w := pubsubsim.NewWorld(1)
		s := pubsubsim.New(pubsubsim.Config{Seed: 1, Latency: w.Latency})
		var begin time.Duration
		var delays []time.Duration
		for range nodes(t) {
			cfg := gossipsub.Default()
			p := &cfg.Params
			p.D, p.Dlo, p.Dhi, p.Dscore, p.Dout, p.EagerPeers = 8, 6, 12, 4, 3, eager
			bits := w.Place()
			s.Add(pubsubsim.NodeConfig{
				Router: gossipsub.Must(cfg), Up: bits, Down: bits,
				Check: func(*pubsub.Message) (pubsub.Outcome, time.Duration) {
					return pubsub.Accepted, 5 * time.Millisecond
				},
				Deliver: func(m *pubsub.Message) { delays = append(delays, s.Now()-begin) },
			}).Join(topic)
		}
		s.Mix(s.Nodes, 20)
		s.Run(20 * time.Second)
		for i := range count {
			begin, delays = s.Now(), delays[:0]
			data := make([]byte, size)
			binary.BigEndian.PutUint64(data, uint64(i))
			s.Nodes[s.Rand.IntN(len(s.Nodes))].Publish(topic, data)
			s.Run(12 * time.Second)
			if len(delays) != len(s.Nodes) {
				t.Errorf("%d of %d got message %d", len(delays), len(s.Nodes), i)
			}
			half += delays[len(delays)/2] / count
			last += delays[len(delays)-1] / count
		}
		for _, n := range s.Nodes {
			copies += float64(n.Stats.Copies)
		}
		return copies / float64(len(s.Nodes)*count), half, last
	}
	for _, eager := range []int{0, gossipsub.DefaultParams().EagerPeers} {
		copies, half, last := run(eager)
		t.Logf("%d nodes, %d peers at once (0: all): %.2f copies; half of the nodes have it after %v, the last after %v (go-libp2p-pubsub: 4.6 copies)",
			nodes(t), eager, copies, half.Round(time.Millisecond), last.Round(time.Millisecond))
		if eager > 0 && copies > 3 {
			t.Errorf("%.2f copies, want at most 3", copies)
		}
	}
}
