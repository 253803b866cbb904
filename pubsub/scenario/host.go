package scenario

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/plexus-p2p/plexus"
	"github.com/plexus-p2p/plexus/peer"
	"github.com/plexus-p2p/plexus/pubsub"
	"github.com/plexus-p2p/plexus/pubsub/gossipsub"
)

// A Node runs a script on a host.
type Node struct {
	Number int
	Host   *plexus.Host
	Start  time.Time // of which waitUntil counts

	// Dial connects to another node.
	Dial func(ctx context.Context, node int) error

	// Log is the node's output: "PeerID", "Received Message", "All parts received".
	Log *slog.Logger

	ps     *pubsub.PubSub
	router *gossipsub.Router
	topics map[string]*pubsub.Topic
	delays map[string]time.Duration
	wg     sync.WaitGroup
	work   chan func() // what partial messages cause, for the one goroutine that owns parts
	parts  parts
}

// Run runs a script to its end. Then the host no longer takes part in pubsub.
func (n *Node) Run(ctx context.Context, s *Script) error {
	n.topics, n.delays = make(map[string]*pubsub.Topic), make(map[string]time.Duration)
	n.work = make(chan func(), 1024)
	n.parts.complete = func(id uint64) { n.Log.Info("All parts received", "group id", id) }
	n.Log.Info("PeerID", "id", n.Host.ID().String(), "node_id", n.Number)
	ctx, cancel := context.WithCancel(ctx)
	defer n.wg.Wait()
	defer func() {
		if n.ps != nil {
			n.ps.Close()
		}
	}()
	defer cancel()
	n.wg.Go(func() { // ends with the script
		for {
			select {
			case f := <-n.work:
				f()
			case <-ctx.Done():
				return
			}
		}
	})
	for _, i := range s.For(n.Number) {
		if err := n.step(ctx, i); err != nil {
			return fmt.Errorf("scenario: node %d: %s: %w", n.Number, i.Type, err)
		}
	}
	return nil
}

var errInit = errors.New("before initGossipSub")

func (n *Node) step(ctx context.Context, i Instruction) error {
	if n.ps == nil && i.Type != "initGossipSub" && i.Type != "connect" && i.Type != "waitUntil" && i.Type != "setTopicValidationDelay" {
		return errInit
	}
	switch i.Type {
	case "initGossipSub":
		return n.init(i.Params)
	case "connect":
		for _, to := range i.ConnectTo {
			if err := n.Dial(ctx, to); err != nil {
				return err
			}
		}
	case "waitUntil":
		select {
		case <-time.After(time.Until(n.Start.Add(time.Duration(i.ElapsedSeconds) * time.Second))):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	case "setTopicValidationDelay":
		n.delays[i.TopicID] = time.Duration(i.DelaySeconds * float64(time.Second))
	case "subscribeToTopic":
		t, err := n.topic(i.TopicID, i.Partial)
		if err != nil {
			return err
		}
		n.wg.Go(func() { // ends with the script, or the topic
			for range t.Subscribe().All(ctx) {
			}
		})
	case "publish":
		t, err := n.topic(i.TopicID, false)
		if err != nil {
			return err
		}
		if _, err := t.Publish(ctx, i.data()); err != nil && !errors.Is(err, pubsub.ErrNoPeers) {
			return err
		}
	case "addPartialMessage":
		return n.do(ctx, func() { n.parts.fill(i.TopicID, i.GroupID, i.Parts) })
	case "publishPartial":
		var to []peer.ID
		for _, id := range i.PublishToNodeIDs {
			to = append(to, Key(id).ID())
		}
		return n.do(ctx, func() {
			n.publish(n.parts.group(i.TopicID, binary.BigEndian.AppendUint64(nil, i.GroupID)), to)
		})
	}
	return nil
}

// do lets the goroutine that owns the parts call f.
func (n *Node) do(ctx context.Context, f func()) error {
	select {
	case n.work <- f:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// later is do for the router's calls, which must not wait.
func (n *Node) later(f func()) {
	select {
	case n.work <- f:
	default:
		n.Log.Warn("partial message dropped")
	}
}

func (n *Node) init(p *Params) error {
	cfg := p.config()
	cfg.Partial = &gossipsub.Partial{
		Incoming: func(from peer.ID, m *pubsub.Partial) {
			own := clone(m)
			n.later(func() {
				if g, err := n.parts.incoming(from, own); err == nil {
					n.publish(g, nil)
				}
			})
		},
		Gossip: func(topic string, id []byte, peers []peer.ID) {
			n.later(func() { n.publish(n.parts.group(topic, id), peers) })
		},
	}
	var err error
	if n.router, err = gossipsub.New(cfg); err != nil {
		return err
	}
	n.ps, err = pubsub.New(n.Host, n.router, pubsub.Config{
		Policy:     pubsub.StrictNoSign,
		MessageID:  messageID,
		MaxMessage: maxSize + 1<<10,
		OwnQueue:   2 * maxSize,
		Seed:       uint64(n.Number) + 1,
		Trace:      n.trace,
	})
	return err
}

// trace logs each copy of a message.
//
// "This event MUST be logged every time a message is received, including duplicate
// messages."
func (n *Node) trace(e pubsub.Event) {
	switch e := e.(type) {
	case pubsub.Received:
		n.Log.Info("Received Message", "service", "gossipsub", "from", e.Peer.String(), "topic", e.Topic, "id", number(e.ID))
	case pubsub.Duplicate:
		n.Log.Info("Received Message", "service", "gossipsub", "from", e.Peer.String(), "id", number(e.ID))
	}
}

func (n *Node) publish(g *group, to []peer.ID) {
	if err := n.router.PublishPartial(n.ps, g.topic, g.id[:], to, g.send); err != nil {
		n.Log.Warn("partial message not published", "err", err)
	}
}

func clone(m *pubsub.Partial) *pubsub.Partial {
	bytes := func(b []byte) []byte { return append([]byte(nil), b...) }
	return &pubsub.Partial{Topic: m.Topic, Group: bytes(m.Group), Message: bytes(m.Message), Metadata: bytes(m.Metadata)}
}

// topic joins a topic.
func (n *Node) topic(name string, partial bool) (*pubsub.Topic, error) {
	if t := n.topics[name]; t != nil {
		return t, nil
	}
	cfg := pubsub.TopicConfig{RequestPartial: partial}
	if d := n.delays[name]; d > 0 {
		cfg.Validator = &pubsub.Validator{
			Concurrency: 600,
			Check: func(ctx context.Context, _ peer.ID, m *pubsub.Message) pubsub.Outcome {
				if m.ReceivedFrom == n.Host.ID() {
					return pubsub.Accepted
				}
				select {
				case <-time.After(d):
				case <-ctx.Done():
				}
				return pubsub.Accepted
			},
		}
	}
	t, err := n.ps.Join(name, cfg)
	if err != nil {
		return nil, err
	}
	n.topics[name] = t
	return t, nil
}
