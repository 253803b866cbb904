package pubsub

import (
	"bytes"
	"cmp"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/plexus-p2p/plexus/peer"
)

// CoreConfig says how a Core behaves. Zero fields have the defaults of [Config].
type CoreConfig struct {
	Self peer.ID
	Seed uint64 // of Core.Rand; 0: any

	SeenTTL     time.Duration
	SeenEntries int
	SeenBytes   int

	TopicsPerPeer int
	AllowTopic    func(topic string) bool

	// Record returns a peer's sealed peer.Record, or nil where it is not known.
	Record func(peer.ID) []byte

	// Tracing lets Actions have events.
	Tracing bool
}

// A Core is pubsub without a host: what is known of peers and messages, and a
// Router that decides what to do. It has no goroutine, clock or lock. A [PubSub] runs
// one for a host; simulations of large networks run thousands of them in one goroutine.
//
// What its methods add to the Actions is to be done in that order.
type Core struct {
	// Rand is where all that is random comes from.
	Rand *rand.Rand

	cfg    CoreConfig
	router Router
	tick   time.Time // when the router's Tick is due

	peers  map[peer.ID]*Peer
	list   []*Peer            // the same
	topics map[string][]*Peer // who is subscribed to what
	joined map[string]SubOpts // what this host receives

	seen    *seen
	pending map[MessageID]*Message // being validated

	drops dropFunc
}

// dropFunc hears of everything that is not delivered or not sent on.
type dropFunc func(reason Reason, n int)

// NewCore makes a Core and starts its router.
func NewCore(now time.Time, cfg CoreConfig, r Router, a *Actions) *Core {
	if cfg.Seed == 0 {
		cfg.Seed = rand.Uint64()
	}
	if cfg.AllowTopic == nil {
		cfg.AllowTopic = func(string) bool { return true }
	}
	if cfg.Record == nil {
		cfg.Record = func(peer.ID) []byte { return nil }
	}
	c := &Core{
		Rand:    rand.New(rand.NewPCG(cfg.Seed, cfg.Seed^0x9e3779b97f4a7c15)),
		router:  r,
		peers:   make(map[peer.ID]*Peer),
		topics:  make(map[string][]*Peer),
		joined:  make(map[string]SubOpts),
		pending: make(map[MessageID]*Message),
		drops:   func(Reason, int) {},
	}
	cfg.SeenTTL = cmp.Or(cfg.SeenTTL, DefaultSeenTTL)
	cfg.SeenEntries = cmp.Or(cfg.SeenEntries, DefaultSeenEntries)
	cfg.SeenBytes = cmp.Or(cfg.SeenBytes, DefaultSeenBytes)
	cfg.TopicsPerPeer = cmp.Or(cfg.TopicsPerPeer, DefaultTopicsPerPeer)
	c.cfg = cfg
	c.seen = newSeen(cfg.SeenTTL, cfg.SeenEntries, cfg.SeenBytes)
	a.tracing = cfg.Tracing
	c.tick = r.Start(now, c, a)
	return c
}

// Self is this host's ID.
func (c *Core) Self() peer.ID { return c.cfg.Self }

// Peer returns a neighbour, or nil.
func (c *Core) Peer(id peer.ID) *Peer { return c.peers[id] }

// Peers lists all neighbours. The slice is valid until the next change.
func (c *Core) Peers() []*Peer { return c.list }

// In lists the neighbours that are subscribed to a topic. The slice is valid until
// the next change.
func (c *Core) In(topic string) []*Peer { return c.topics[topic] }

// Joined returns how this host receives a topic, if it does.
func (c *Core) Joined(topic string) (SubOpts, bool) {
	o, ok := c.joined[topic]
	return o, ok
}

// Seen reports whether a message is known, valid or not, or being validated.
func (c *Core) Seen(id []byte) bool {
	if _, ok := c.seen.ids[MessageID(id)]; ok {
		return true
	}
	_, ok := c.pending[MessageID(id)]
	return ok
}

// Record returns a peer's sealed peer.Record, or nil where it is not known.
func (c *Core) Record(id peer.ID) []byte { return c.cfg.Record(id) }

// Router is the router that c was made with.
func (c *Core) Router() Router { return c.router }

// Due tells when Tick is to be called; the zero Time means never.
func (c *Core) Due() time.Time { return c.tick }

// Wake lets the router's Tick be called at t, if it is not due before.
func (c *Core) Wake(t time.Time) {
	if c.tick.IsZero() || t.Before(c.tick) {
		c.tick = t
	}
}

// Tick lets time pass.
func (c *Core) Tick(now time.Time, a *Actions) {
	c.seen.expire(now)
	c.tick = c.router.Tick(now, a)
}

// AddPeer adds p, which must be new.
func (c *Core) AddPeer(now time.Time, p *Peer, a *Actions) {
	p.topics = make(map[string]*topicPeer)
	c.peers[p.ID] = p
	c.list = append(c.list, p)
	a.Event(PeerAdded{Peer: p.ID, Protocol: p.Protocol})
	c.router.AddPeer(now, p, a)
}

// RemovePeer removes p, and all that is known of it.
func (c *Core) RemovePeer(now time.Time, p *Peer, a *Actions) {
	if c.peers[p.ID] != p {
		return
	}
	c.Forget(now, p, a)
	c.router.RemovePeer(now, p, a)
	delete(c.peers, p.ID)
	i := slices.Index(c.list, p)
	c.list = slices.Delete(c.list, i, i+1)
	a.Event(PeerRemoved{Peer: p.ID})
}

// Forget drops p's subscriptions: it will tell them anew.
func (c *Core) Forget(now time.Time, p *Peer, a *Actions) {
	p.seen = false
	topics := make([]string, 0, len(p.topics))
	for t := range p.topics {
		topics = append(topics, t)
	}
	slices.Sort(topics)
	for _, t := range topics {
		c.subscribed(now, p, SubOpts{Topic: t}, a)
	}
}

// Extended is a Router with extensions to tell of.
type Extended interface {
	// Extensions is what p is told that this host supports; nil: it is told nothing.
	Extensions(p *Peer) *Extensions
}

// Hello makes the first RPCs for p, each with its length before it: this host's
// subscriptions, and its extensions.
//
// "If a peer supports any extension, the Extensions control message MUST be
// included in the first message on the stream."
func (c *Core) Hello(p *Peer) []byte {
	var ext *Extensions
	if e, ok := c.router.(Extended); ok {
		ext = e.Extensions(p)
	}
	return appendSubs(nil, c.joined, ext)
}

// Open handles the subscriptions of an RPC, and says what more of it is to be
// looked at: all, or no messages, or nothing. What is, is given to Receive, message by
// message, and then to Close.
func (c *Core) Open(now time.Time, p *Peer, rpc *RPC, a *Actions) Admission {
	for _, s := range rpc.Subs {
		c.subscribed(now, p, s, a)
	}
	return c.router.Admit(now, p)
}

// Close handles the control messages of an RPC.
func (c *Core) Close(now time.Time, p *Peer, rpc *RPC, a *Actions) {
	first := !p.seen
	p.seen = true
	if first || !rpc.Control.IsZero() || rpc.Partial != nil || rpc.Test {
		if a.tracing && !rpc.Control.IsZero() {
			a.Event(ControlReceived{Peer: p.ID, Control: &rpc.Control})
		}
		c.router.Control(now, p, rpc, first, a)
	}
}

// meanTopic is how long the names of a peer's topics may be on average, if it has as
// many as it may.
const meanTopic = 256

func (c *Core) subscribed(now time.Time, p *Peer, o SubOpts, a *Actions) {
	t := p.topics[o.Topic]
	if !o.Subscribe {
		if t == nil {
			return
		}
		in := c.topics[o.Topic]
		last := in[len(in)-1]
		in[t.at] = last
		last.topics[o.Topic].at = t.at
		in[len(in)-1] = nil
		delete(p.topics, o.Topic)
		p.named -= len(o.Topic)
		if c.topics[o.Topic] = in[:len(in)-1]; len(in) == 1 {
			delete(c.topics, o.Topic)
		}
		a.Event(Unsubscribed{Peer: p.ID, Topic: o.Topic})
		c.router.Subscribed(now, p, o.Topic, false, a)
		return
	}
	if t != nil {
		t.opts = o // what it wants may have changed
		return
	}
	if !c.cfg.AllowTopic(o.Topic) {
		c.drops(SubscriptionNotAllowed, 1)
		return
	}
	if len(p.topics) >= c.cfg.TopicsPerPeer || p.named+len(o.Topic) > c.cfg.TopicsPerPeer*meanTopic {
		c.drops(TooManySubscriptions, 1)
		return
	}
	p.named += len(o.Topic)
	p.topics[o.Topic] = &topicPeer{opts: o, at: len(c.topics[o.Topic])}
	c.topics[o.Topic] = append(c.topics[o.Topic], p)
	a.Event(Subscribed{Peer: p.ID, Topic: o.Topic})
	c.router.Subscribed(now, p, o.Topic, true, a)
}

// Join begins to receive a topic.
func (c *Core) Join(now time.Time, o SubOpts, a *Actions) {
	o.Subscribe = true
	o.SupportsPartial = o.SupportsPartial || o.RequestsPartial
	if _, ok := c.joined[o.Topic]; ok {
		c.joined[o.Topic] = o
		return
	}
	c.joined[o.Topic] = o
	a.Event(Joined{Topic: o.Topic})
	c.router.Join(now, o.Topic, a)
}

// Leave ends receiving a topic.
func (c *Core) Leave(now time.Time, topic string, a *Actions) {
	if _, ok := c.joined[topic]; !ok {
		return
	}
	c.router.Leave(now, topic, a)
	delete(c.joined, topic)
	a.Event(Left{Topic: topic})
}

// Publish sends a message of this host's. It returns false if one with its ID is known.
func (c *Core) Publish(now time.Time, m *Message, a *Actions) bool {
	m.ReceivedFrom = c.cfg.Self
	c.seen.expire(now)
	if c.Seen([]byte(m.ID)) {
		return false
	}
	c.seen.add(now, m.ID)
	a.Event(Published{ID: m.ID, Topic: m.Topic})
	c.router.Publish(now, m, a)
	return true
}

// duplicate is Receive for a message that is known; it costs nothing to ask.
func (c *Core) duplicate(now time.Time, p *Peer, id, raw []byte, a *Actions) bool {
	c.seen.expire(now)
	if first := c.pending[MessageID(id)]; first != nil {
		if _, verified := c.seen.ids[MessageID(id)]; !verified && !bytes.Equal(first.raw, raw) {
			return false // one of the two is forged: each has to show its signature
		}
		if !first.HeldBy(p) {
			first.holders = append(first.holders, p)
		}
		if !c.seen.has(MessageID(id)) {
			return true // Verified will tell the router
		}
	} else if _, ok := c.seen.ids[MessageID(id)]; !ok {
		return false
	}
	c.again(now, p, MessageID(id), a)
	return true
}

// again tells that p has sent a message that was had before.
func (c *Core) again(now time.Time, p *Peer, id MessageID, a *Actions) {
	c.router.Duplicate(now, p, id, a)
	if a.tracing {
		a.Event(Duplicate{ID: id, Peer: p.ID})
	}
}

// Receive handles a message from p, with its ID set. It returns true if m is new:
// then it is to be verified, and given to Verified or to Decide as [Forged].
func (c *Core) Receive(now time.Time, p *Peer, m *Message, a *Actions) bool {
	if c.duplicate(now, p, []byte(m.ID), m.raw, a) {
		return false
	}
	m.ReceivedFrom = p.ID
	if c.pending[m.ID] == nil {
		c.pending[m.ID] = m
	}
	return true
}

// Verified tells that m's signature is its author's, or that it needs none. It
// returns true if m is to be validated, with the result given to Decide; false if
// another copy was faster.
func (c *Core) Verified(now time.Time, m *Message, a *Actions) bool {
	if !c.seen.add(now, m.ID) {
		if p := c.peers[m.ReceivedFrom]; p != nil {
			c.again(now, p, m.ID, a)
		}
		return false
	}
	c.pending[m.ID] = m // whoever else claims to be it is forged
	if a.tracing {
		a.Event(Received{ID: m.ID, Topic: m.Topic, Peer: m.ReceivedFrom})
	}
	c.router.Received(now, m, a)
	for _, p := range m.holders {
		c.again(now, p, m.ID, a)
	}
	return true
}

// Decide ends the validation of m.
func (c *Core) Decide(now time.Time, m *Message, o Outcome, a *Actions) {
	if c.pending[m.ID] == m {
		delete(c.pending, m.ID)
	}
	c.router.Decided(now, m, o, a)
	if a.tracing {
		a.Event(Decided{ID: m.ID, Topic: m.Topic, Peer: m.ReceivedFrom, Outcome: o})
	}
}

// Holders lists who sent m while it was being validated, besides m.ReceivedFrom.
func (m *Message) Holders() []*Peer { return m.holders }
