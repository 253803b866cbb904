package scenario

import (
	"encoding/binary"
	"fmt"
	"time"

	"github.com/plexus-p2p/plexus/peer"
	"github.com/plexus-p2p/plexus/pubsub"
	"github.com/plexus-p2p/plexus/pubsub/gossipsub"
	"github.com/plexus-p2p/plexus/pubsub/pubsubsim"
)

// A Result is what came of an experiment.
type Result struct {
	// Received are the copies of each message, by the nodes' numbers.
	Received map[uint64]map[int]int
	// Complete are the nodes that have all parts of each group.
	Complete map[uint64]map[int]bool
}

func newResult() *Result {
	return &Result{Received: make(map[uint64]map[int]int), Complete: make(map[uint64]map[int]bool)}
}

func (r *Result) received(node int, id uint64) {
	if r.Received[id] == nil {
		r.Received[id] = make(map[int]int)
	}
	r.Received[id][node]++
}

func (r *Result) completed(node int, group uint64) {
	if r.Complete[group] == nil {
		r.Complete[group] = make(map[int]bool)
	}
	r.Complete[group][node] = true
}

// Simulate runs a script on so many nodes, on the test plan's network, until all have
// come to its end.
func Simulate(s *Script, nodes int, seed uint64) (*Result, error) {
	x := &simulation{r: newResult(), w: pubsubsim.NewWorld(seed)}
	x.s = pubsubsim.New(pubsubsim.Config{Seed: seed, Latency: x.w.Latency, MessageID: messageID})
	for i := range nodes {
		if err := x.add(i, s.For(i)); err != nil {
			return nil, err
		}
	}
	for _, n := range x.nodes {
		n.run()
	}
	for running := true; running; {
		x.s.Run(time.Second)
		running = false
		for _, n := range x.nodes {
			running = running || len(n.left) > 0
		}
	}
	return x.r, x.err
}

type simulation struct {
	s     *pubsubsim.Sim
	w     *pubsubsim.World
	r     *Result
	nodes []*simulated
	err   error
}

// A simulated node is what Node is, without a host.
type simulated struct {
	x      *simulation
	number int
	left   []Instruction
	node   *pubsubsim.Node
	router *gossipsub.Router
	delays map[string]time.Duration
	parts  parts
}

func (x *simulation) add(number int, script []Instruction) error {
	n := &simulated{x: x, number: number, left: script, delays: make(map[string]time.Duration)}
	n.parts.complete = func(id uint64) { x.r.completed(number, id) }
	cfg := gossipsub.Default()
	for _, i := range script {
		if i.Type == "initGossipSub" {
			cfg = i.Params.config()
		}
	}
	cfg.Partial = &gossipsub.Partial{
		Incoming: func(from peer.ID, m *pubsub.Partial) {
			own := clone(m)
			x.s.After(0, func() {
				if g, err := n.parts.incoming(from, own); err == nil {
					n.publish(g, nil)
				}
			})
		},
		Gossip: func(topic string, id []byte, peers []peer.ID) {
			x.s.After(0, func() { n.publish(n.parts.group(topic, id), peers) })
		},
	}
	var err error
	if n.router, err = gossipsub.New(cfg); err != nil {
		return err
	}
	bits := x.w.Place()
	n.node = x.s.Add(pubsubsim.NodeConfig{
		Router: n.router, Up: bits, Down: bits, Own: 2 * maxSize,
		Check: func(m *pubsub.Message) (pubsub.Outcome, time.Duration) {
			return pubsub.Accepted, n.delays[m.Topic]
		},
		Trace: func(e pubsub.Event) {
			switch e := e.(type) {
			case pubsub.Received:
				x.r.received(number, binary.BigEndian.Uint64([]byte(e.ID)))
			case pubsub.Duplicate:
				x.r.received(number, binary.BigEndian.Uint64([]byte(e.ID)))
			}
		},
	})
	x.nodes = append(x.nodes, n)
	return nil
}

// run takes steps until one waits.
func (n *simulated) run() {
	for len(n.left) > 0 {
		i := n.left[0]
		if i.Type == "waitUntil" {
			if d := time.Duration(i.ElapsedSeconds)*time.Second - n.x.s.Now(); d > 0 {
				n.x.s.After(d, n.run)
				return
			}
		}
		n.left = n.left[1:]
		if err := n.step(i); err != nil && n.x.err == nil {
			n.x.err = fmt.Errorf("scenario: node %d: %s: %w", n.number, i.Type, err)
		}
	}
}

func (n *simulated) step(i Instruction) error {
	switch i.Type {
	case "connect":
		for _, to := range i.ConnectTo {
			if to >= len(n.x.nodes) {
				return fmt.Errorf("there is no node %d", to)
			}
			n.x.s.Connect(n.node, n.x.nodes[to].node)
		}
	case "setTopicValidationDelay":
		n.delays[i.TopicID] = time.Duration(i.DelaySeconds * float64(time.Second))
	case "subscribeToTopic":
		n.node.JoinPartial(pubsub.SubOpts{Topic: i.TopicID, RequestsPartial: i.Partial})
	case "publish":
		n.node.Publish(i.TopicID, i.data())
	case "addPartialMessage":
		n.parts.fill(i.TopicID, i.GroupID, i.Parts)
	case "publishPartial":
		var to []peer.ID
		for _, id := range i.PublishToNodeIDs {
			if id >= len(n.x.nodes) {
				return fmt.Errorf("there is no node %d", id)
			}
			to = append(to, n.x.nodes[id].node.ID)
		}
		n.publish(n.parts.group(i.TopicID, binary.BigEndian.AppendUint64(nil, i.GroupID)), to)
	}
	return nil
}

func (n *simulated) publish(g *group, to []peer.ID) {
	if err := n.router.PublishPartial(n.node, g.topic, g.id[:], to, g.send); err != nil && n.x.err == nil {
		n.x.err = fmt.Errorf("scenario: node %d: publishPartial: %w", n.number, err)
	}
}
