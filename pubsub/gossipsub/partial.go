package gossipsub

import (
	"errors"
	"slices"
	"time"

	"github.com/plexus-p2p/plexus/peer"
	"github.com/plexus-p2p/plexus/pubsub"
)

// Partial turns on the extension for partial messages: peers send each other the
// parts of a message that they lack. What a part is, how it is encoded, and which ones
// somebody has and wants, is the application's; gossipsub carries it between the
// peers that asked for it by pubsub.TopicConfig's RequestPartial and SupportPartial.
//
// The functions are called with the router's other calls: they must be quick, and
// must not call the PubSub or [Router.PublishPartial] but from another goroutine.
//
// Spec: https://github.com/libp2p/specs/pull/685
type Partial struct {
	// Incoming hears of every partial message. The message's parts are valid only
	// during the call.
	//
	// "When Gossipsub receives a partial message it MUST forward it to the application.
	// The application decides if it should act on the message by either requesting parts
	// or forwarding the message. Both are done with .PublishPartial."
	Incoming func(from peer.ID, m *pubsub.Partial)

	// Gossip hears, in a heartbeat, of peers outside the mesh that should learn what
	// this host has of a group: by PublishPartial with To. Nil: they do not.
	Gossip func(topic string, group []byte, peers []peer.ID)

	// GroupTTL is for how many heartbeats a group is remembered after it was last
	// published. Zero: 5.
	GroupTTL int
}

// Bounds of groups that peers begin, as go-libp2p-pubsub has them.
const (
	maxPeerGroups   = 255 // of a topic
	maxGroupsEach   = 8   // of a topic and a peer
	maxGroupID      = 1 << 10
	maxGroupPeers   = 1024
	defaultGroupTTL = 5
	maxOwnGroups    = 4096
)

// parts is the state of the extension.
type parts struct {
	cfg    Partial
	topics map[string]map[string]*group
}

// A group is the parts of one message.
type group struct {
	ttl   int
	begun peer.ID // who named it first; "": this host
	peers []peer.ID
}

func newParts(cfg Partial) (*parts, error) {
	if cfg.Incoming == nil {
		return nil, errors.New("Partial.Incoming must be set")
	}
	if cfg.GroupTTL < 0 {
		return nil, errors.New("Partial.GroupTTL must not be negative")
	}
	if cfg.GroupTTL == 0 {
		cfg.GroupTTL = defaultGroupTTL
	}
	return &parts{cfg: cfg, topics: make(map[string]map[string]*group)}, nil
}

func (x *parts) has(topic string) bool { return len(x.topics[topic]) > 0 }

func (x *parts) leave(topic string) { delete(x.topics, topic) }

func (x *parts) remove(id peer.ID) {
	for _, gs := range x.topics {
		for _, g := range gs {
			g.peers = slices.DeleteFunc(g.peers, func(p peer.ID) bool { return p == id })
		}
	}
}

// group returns a group, a new one if there is none, or nil if there are too many.
func (x *parts) group(topic, id string, from peer.ID) *group {
	gs := x.topics[topic]
	if g := gs[id]; g != nil {
		if from == "" {
			g.begun = ""
		}
		return g
	}
	all, each, own := 0, 0, 0
	for _, g := range gs {
		switch g.begun {
		case "":
			own++
			continue
		case from:
			each++
		}
		all++
	}
	if from != "" && (all >= maxPeerGroups || each >= maxGroupsEach) || own >= maxOwnGroups {
		return nil
	}
	if gs == nil {
		gs = make(map[string]*group)
		x.topics[topic] = gs
	}
	g := &group{ttl: x.cfg.GroupTTL, begun: from}
	gs[id] = g
	return g
}

// knows notes that something was exchanged with a peer. It returns false if that was
// known.
func (g *group) knows(id peer.ID) bool {
	if slices.Contains(g.peers, id) || len(g.peers) >= maxGroupPeers {
		return false
	}
	g.peers = append(g.peers, id)
	return true
}

func (x *parts) heartbeat() {
	for topic, gs := range x.topics {
		for id, g := range gs {
			if g.ttl--; g.ttl < 0 {
				delete(gs, id)
			}
		}
		if len(gs) == 0 {
			delete(x.topics, topic)
		}
	}
}

// gossip lets the application know whom to tell of its groups.
func (x *parts) gossip(topic string, peers []peer.ID) {
	if x.cfg.Gossip == nil {
		return
	}
	ids := make([]string, 0, len(x.topics[topic]))
	for id, g := range x.topics[topic] {
		if g.begun == "" {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	for _, id := range ids {
		g := x.topics[topic][id]
		var some []peer.ID
		for _, p := range peers {
			if g.knows(p) {
				some = append(some, p)
			}
		}
		if len(some) > 0 {
			x.cfg.Gossip(topic, []byte(id), some)
		}
	}
}

// Extensions implements pubsub.Extended.
//
// "If a peer supports no extensions, it may omit sending the Extensions control message."
func (r *Router) Extensions(p *pubsub.Peer) *pubsub.Extensions {
	if r.parts == nil || r.versions[p.Protocol] < v13 {
		return nil
	}
	return &pubsub.Extensions{Partial: true}
}

// extensions notes what n supports.
//
// "An Extensions control message MUST NOT be sent more than once."
func (r *Router) extensions(n *neighbour, e *pubsub.Extensions, first bool) {
	switch {
	case first:
		n.ext = e
	case e != nil:
		r.punish(n.ID, 1)
	}
}

// speaksPartial reports whether the extension is on between n and us.
func (r *Router) speaksPartial(n *neighbour) bool {
	return r.parts != nil && n.ext != nil && n.ext.Partial
}

// partialInstead reports whether n is sent no whole messages of a topic.
//
// "If a peer subscribes to a topic with a requestPartial, the node SHOULD send the
// peer partial messages. Otherwise, send the node full messages."
func (r *Router) partialInstead(n *neighbour, topic string) bool {
	if !r.speaksPartial(n) {
		return false
	}
	its, subscribed := n.Topic(topic)
	return subscribed && its.RequestsPartial && r.offersPartial(topic)
}

// offersPartial reports whether this host sends parts of a topic's messages: it says so
// where it is subscribed, and does so where it publishes without.
func (r *Router) offersPartial(topic string) bool {
	if mine, ok := r.c.Joined(topic); ok {
		return mine.SupportsPartial
	}
	for _, g := range r.parts.topics[topic] {
		if g.begun == "" {
			return true
		}
	}
	return false
}

// partialWanted reports whether n sends us no whole messages of a topic.
func (r *Router) partialWanted(n *neighbour, topic string) bool {
	if !r.speaksPartial(n) {
		return false
	}
	mine, ok := r.c.Joined(topic)
	its, subscribed := n.Topic(topic)
	return ok && subscribed && mine.RequestsPartial && its.SupportsPartial
}

// partial handles a partial message.
func (r *Router) partial(n *neighbour, m *pubsub.Partial) {
	if !r.speaksPartial(n) || len(m.Group) > maxGroupID || r.scoreOf(n) < r.thresholds().Gossip {
		return
	}
	if !r.offersPartial(m.Topic) {
		return
	}
	g := r.parts.group(m.Topic, string(m.Group), n.ID)
	if g == nil {
		return
	}
	g.knows(n.ID)
	r.parts.cfg.Incoming(n.ID, m)
}

// A Part is what to send one peer of a group: parts of the message, and which parts
// this host has and wants. What is nil is not sent.
type Part struct {
	Message  []byte
	Metadata []byte
}

// ErrPartial means that partial messages are off, in the Config or for the topic.
var ErrPartial = errors.New("gossipsub: partial messages are off")

// A Doer makes calls to a router, as [pubsub.PubSub.Do] does.
type Doer interface {
	Do(f func(now time.Time, a *pubsub.Actions))
}

// PublishPartial sends parts of a group: to the peers to, or where that is nil to the
// topic's mesh and to whom parts of the group were exchanged with. Who is not subscribed
// names the peers. part chooses what; wants tells whether the peer takes parts, or only
// metadata. It must not call ps.
//
// "If a peer supports partial messages on a topic but did not request them, a node
// MUST omit the partialMessage field of the PartialMessagesExtension message."
func (r *Router) PublishPartial(ps Doer, topic string, id []byte, to []peer.ID, part func(p peer.ID, wants bool) Part) (err error) {
	ps.Do(func(now time.Time, a *pubsub.Actions) { err = r.publishPartial(topic, id, to, part, a) })
	return err
}

func (r *Router) publishPartial(topic string, id []byte, to []peer.ID, part func(p peer.ID, wants bool) Part, a *pubsub.Actions) error {
	if r.parts == nil || len(id) > maxGroupID {
		return ErrPartial
	}
	g := r.parts.group(topic, string(id), "")
	if g == nil || !r.offersPartial(topic) {
		return ErrPartial
	}
	g.ttl = r.parts.cfg.GroupTTL
	if to == nil {
		to = slices.Clone(g.peers)
		if m := r.mesh[topic]; m != nil {
			for _, n := range m.peers {
				if !slices.Contains(to, n.ID) {
					to = append(to, n.ID)
				}
			}
		}
		for _, p := range r.c.In(topic) {
			if of(p).direct && !slices.Contains(to, p.ID) {
				to = append(to, p.ID)
			}
		}
	}
	for _, pid := range to {
		p := r.c.Peer(pid)
		if p == nil {
			continue
		}
		n := of(p)
		wants := r.partialInstead(n, topic)
		if _, subscribed := n.Topic(topic); !subscribed {
			// It published to us without being subscribed: it is told what we lack.
			if !r.speaksPartial(n) || !slices.Contains(g.peers, pid) {
				continue
			}
		} else if !wants && !r.partialWanted(n, topic) {
			continue
		}
		g.knows(pid)
		x := part(pid, wants)
		if !wants {
			x.Message = nil
		}
		if x.Message != nil || x.Metadata != nil {
			a.Partial(p, &pubsub.Partial{Topic: topic, Group: id, Message: x.Message, Metadata: x.Metadata})
		}
	}
	return nil
}
