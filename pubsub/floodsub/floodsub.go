// Package floodsub is the simple pubsub router: every message goes to every
// neighbour that is subscribed to its topic.
//
//	ps, err := pubsub.New(h, floodsub.New(), pubsub.Config{})
//
// Spec: https://github.com/libp2p/specs/blob/master/pubsub/README.md
package floodsub

import (
	"time"

	"github.com/plexus-p2p/plexus/pubsub"
)

// Protocol is the ID that multiselect negotiates.
const Protocol = "/floodsub/1.0.0"

// Router is a pubsub.Router.
type Router struct {
	c *pubsub.Core
}

// New makes a router, for one PubSub.
func New() *Router { return new(Router) }

// Protocols implements pubsub.Router.
func (*Router) Protocols() []string { return []string{Protocol} }

// Start implements pubsub.Router.
func (r *Router) Start(_ time.Time, c *pubsub.Core, _ *pubsub.Actions) time.Time {
	r.c = c
	return time.Time{}
}

// Publish implements pubsub.Router.
func (r *Router) Publish(_ time.Time, m *pubsub.Message, a *pubsub.Actions) { r.flood(m, a) }

// Decided implements pubsub.Router.
func (r *Router) Decided(_ time.Time, m *pubsub.Message, o pubsub.Outcome, a *pubsub.Actions) {
	if o == pubsub.Accepted {
		r.flood(m, a)
	}
}

// flood sends m to all who may not have it.
func (r *Router) flood(m *pubsub.Message, a *pubsub.Actions) {
	for _, p := range r.c.In(m.Topic) {
		if p.ID != m.ReceivedFrom && p.ID != m.From && !m.HeldBy(p) {
			a.Send(p, m)
		}
	}
}

// Mesh implements pubsub.Router: it is all who are subscribed.
func (r *Router) Mesh(topic string) []*pubsub.Peer { return r.c.In(topic) }

// Admit implements pubsub.Router.
func (*Router) Admit(time.Time, *pubsub.Peer) pubsub.Admission { return pubsub.AdmitAll }

// The rest of pubsub.Router: floodsub knows no control messages and remembers nothing.

func (*Router) Tick(time.Time, *pubsub.Actions) time.Time                            { return time.Time{} }
func (*Router) AddPeer(time.Time, *pubsub.Peer, *pubsub.Actions)                     {}
func (*Router) RemovePeer(time.Time, *pubsub.Peer, *pubsub.Actions)                  {}
func (*Router) Subscribed(time.Time, *pubsub.Peer, string, bool, *pubsub.Actions)    {}
func (*Router) Join(time.Time, string, *pubsub.Actions)                              {}
func (*Router) Leave(time.Time, string, *pubsub.Actions)                             {}
func (*Router) Control(time.Time, *pubsub.Peer, *pubsub.RPC, bool, *pubsub.Actions)  {}
func (*Router) Received(time.Time, *pubsub.Message, *pubsub.Actions)                 {}
func (*Router) Duplicate(time.Time, *pubsub.Peer, pubsub.MessageID, *pubsub.Actions) {}
func (*Router) Missed(time.Time, *pubsub.Peer, *pubsub.Message)                      {}
func (*Router) Scores(time.Time) []pubsub.Score                                      { return nil }
