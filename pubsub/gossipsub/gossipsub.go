package gossipsub

import (
	"hash/maphash"
	"slices"
	"time"

	"github.com/plexus-p2p/plexus/peer"
	"github.com/plexus-p2p/plexus/pubsub"
	"github.com/plexus-p2p/plexus/pubsub/floodsub"
)

// Versions of the protocol.
const (
	v10 = 10 + iota
	v11
	v12
	v13
)

// Router is a pubsub.Router. It belongs to the PubSub that it was given to.
type Router struct {
	// Fixed.
	cfg       Config
	params    Params
	protocols []string
	versions  map[string]int // of protocols; floodsub's is 0
	direct    map[peer.ID]peer.AddrInfo
	sums      maphash.Seed

	c     *pubsub.Core
	score *score // nil: everybody's is 0
	gater *gater // nil: everybody is admitted
	parts *parts // nil: the extension is off

	beat     time.Time // the next heartbeat
	ticks    int
	news     int     // messages since the last heartbeat that nobody had brought before
	meshes   []*mesh // joined topics, in the order in which they were
	mesh     map[string]*mesh
	fanout   map[string]*fanout
	backoffs map[string]map[peer.ID]time.Time // until when
	cache    mcache
	promises promises

	staggered []*staggered // large messages, the order is that in which they came
}

// A neighbour is the router's State of a Peer.
type neighbour struct {
	*pubsub.Peer
	version int
	direct  bool
	stats   *peerStats // what is thought of it; nil without scores

	ext *pubsub.Extensions // what it supports; nil until it has told

	// Since the last heartbeat.
	haves     int  // RPCs with IHAVE
	asked     int  // IDs asked of it
	wants     int  // IDs in its IWANT
	insists   bool // on a message that it has asked for again and again
	dontwants int  // RPCs with IDONTWANT
	refusals  int  // IDs in them

	offered int // IDs that it may ask for: it was offered them, and has not asked yet
	spare   int // IDs that it may say it does not want, for no message that came
	owing   int // heartbeats for which that has been less than none

	unwanted map[uint64]int // hashes of IDs that it does not want, and the tick until when
	missed   map[string][]pubsub.MessageID
	misses   int
	have     []pubsub.IHave // gossip for it, in a heartbeat
}

// of returns the router's own of a Peer.
func of(p *pubsub.Peer) *neighbour { return p.State.(*neighbour) }

// A mesh is the peers that a joined topic's messages are sent to at once.
type mesh struct {
	topic string
	peers []*neighbour
}

func (m *mesh) has(n *neighbour) bool { return slices.Contains(m.peers, n) }

// A fanout is the same for a topic that is only published to.
type fanout struct {
	peers []*neighbour
	last  time.Time // when something was published
}

// New makes a router, for one PubSub. The error is an [Error] that says what does not
// make sense in cfg.
func New(cfg Config) (*Router, error) {
	if cfg.Params == (Params{}) {
		cfg.Params = DefaultParams()
	}
	if err := cfg.Params.check(); err != nil {
		return nil, &Error{err}
	}
	if cfg.Prefix == "" {
		cfg.Prefix = "meshsub"
	}
	r := &Router{
		cfg:      cfg,
		params:   cfg.Params,
		versions: make(map[string]int),
		direct:   make(map[peer.ID]peer.AddrInfo),
		sums:     maphash.MakeSeed(),
		mesh:     make(map[string]*mesh),
		fanout:   make(map[string]*fanout),
		backoffs: make(map[string]map[peer.ID]time.Time),
	}
	for i, v := range []string{"1.3.0", "1.2.0", "1.1.0", "1.0.0"} {
		p := "/" + cfg.Prefix + "/" + v
		r.protocols = append(r.protocols, p)
		r.versions[p] = v13 - i
	}
	r.protocols = append(r.protocols, floodsub.Protocol)
	for _, i := range cfg.Direct {
		r.direct[i.ID] = i
	}
	if cfg.Score != nil {
		s, err := newScore(*cfg.Score)
		if err != nil {
			return nil, &Error{err}
		}
		r.score = s
	}
	if cfg.Gater != nil {
		g, err := newGater(*cfg.Gater)
		if err != nil {
			return nil, &Error{err}
		}
		r.gater = g
	}
	if cfg.Partial != nil {
		p, err := newParts(*cfg.Partial)
		if err != nil {
			return nil, &Error{err}
		}
		r.parts = p
	}
	r.cache.init(cfg.Params)
	r.promises.init()
	return r, nil
}

// Must is New for a Config that is known to make sense; it panics otherwise.
func Must(cfg Config) *Router {
	r, err := New(cfg)
	if err != nil {
		panic(err)
	}
	return r
}

// Protocols implements pubsub.Router.
func (r *Router) Protocols() []string { return r.protocols }

// Start implements pubsub.Router.
func (r *Router) Start(now time.Time, c *pubsub.Core, a *pubsub.Actions) time.Time {
	r.c = c
	r.beat = now.Add(r.params.HeartbeatDelay)
	if r.score != nil {
		r.score.start(now)
	}
	r.connectDirect(a)
	return r.due()
}

// due tells when Tick is to be called.
func (r *Router) due() time.Time {
	due := r.beat
	if r.score != nil && r.score.decayAt.Before(due) {
		due = r.score.decayAt
	}
	for _, s := range r.staggered {
		if s.due.Before(due) {
			due = s.due
		}
	}
	return due
}

// AddPeer implements pubsub.Router.
func (r *Router) AddPeer(now time.Time, p *pubsub.Peer, a *pubsub.Actions) {
	_, direct := r.direct[p.ID]
	n := &neighbour{Peer: p, version: r.versions[p.Protocol], direct: direct, spare: r.params.MaxIDontWantMessages}
	p.State = n
	if r.score != nil {
		n.stats = r.score.add(p)
	}
	if r.gater != nil {
		r.gater.add(p)
	}
}

// RemovePeer implements pubsub.Router.
func (r *Router) RemovePeer(now time.Time, p *pubsub.Peer, a *pubsub.Actions) {
	n := of(p)
	for _, m := range r.meshes {
		if m.has(n) { // it grafted us without a subscription
			r.unlink(now, m, n, a)
		}
	}
	for _, f := range r.fanout {
		f.peers = without(f.peers, n)
	}
	if r.score != nil {
		r.score.remove(now, p.ID)
	}
	if r.gater != nil {
		r.gater.remove(now, p)
	}
	if r.parts != nil {
		r.parts.remove(p.ID)
	}
}

// Subscribed implements pubsub.Router.
func (r *Router) Subscribed(now time.Time, p *pubsub.Peer, topic string, on bool, a *pubsub.Actions) {
	if on {
		return // the heartbeat will see
	}
	n := of(p)
	if m := r.mesh[topic]; m != nil && m.has(n) {
		r.unlink(now, m, n, a)
	}
	if f := r.fanout[topic]; f != nil {
		f.peers = without(f.peers, n)
	}
}

func without(l []*neighbour, n *neighbour) []*neighbour {
	if i := slices.Index(l, n); i >= 0 {
		return slices.Delete(l, i, i+1)
	}
	return l
}

// scoreOf is what the router thinks of a peer.
func (r *Router) scoreOf(n *neighbour) float64 {
	if n.stats == nil {
		return 0
	}
	return r.score.of(n.stats)
}

// threshold returns the thresholds, which are all 0 without scores, as these are.
func (r *Router) thresholds() Thresholds {
	if r.score == nil {
		return Thresholds{}
	}
	return r.score.params.Thresholds
}

// Admit implements pubsub.Router.
//
// "when a peer's score drops below this threshold, the peer is graylisted and its
// RPCs are ignored."; of explicit peers, "incoming RPCs are always accepted from them."
func (r *Router) Admit(now time.Time, p *pubsub.Peer) pubsub.Admission {
	n := of(p)
	switch {
	case n.direct:
		return pubsub.AdmitAll
	case r.scoreOf(n) < r.thresholds().Graylist:
		return pubsub.AdmitNone
	case r.gater != nil:
		return r.gater.admit(now, p, r.c.Rand)
	}
	return pubsub.AdmitAll
}

// candidates lists peers of a topic that keep holds for, at most count of them (all,
// if that is negative), in random order.
func (r *Router) candidates(topic string, count int, keep func(*neighbour) bool) []*neighbour {
	var l []*neighbour
	for _, p := range r.c.In(topic) {
		if n := of(p); n.version >= v10 && keep(n) {
			l = append(l, n)
		}
	}
	r.c.Rand.Shuffle(len(l), func(i, j int) { l[i], l[j] = l[j], l[i] })
	if count >= 0 && len(l) > count {
		l = l[:count]
	}
	return l
}

// Publish implements pubsub.Router.
func (r *Router) Publish(now time.Time, m *pubsub.Message, a *pubsub.Actions) {
	r.cache.put(m)
	r.news++
	if r.score != nil {
		r.score.published(now, m)
	}
	if r.params.FloodPublish && (r.params.FloodPublishMax == 0 || len(m.Data) <= r.params.FloodPublishMax) {
		// "a peer's own messages will always be published to all known peers in the
		// topic", those "with a score above a publish threshold"
		for _, p := range r.c.In(m.Topic) {
			if n := of(p); n.direct || r.scoreOf(n) >= r.thresholds().Publish {
				r.send(n, m, a)
			}
		}
		return
	}
	r.forward(now, m, a)
	if ms := r.mesh[m.Topic]; ms != nil {
		// A mesh that does not stand yet must not cost messages.
		if need := r.params.D - len(ms.peers); len(ms.peers) < r.params.Dlo && need > 0 {
			for _, n := range r.candidates(m.Topic, need, func(n *neighbour) bool {
				return !n.direct && !ms.has(n) && r.scoreOf(n) >= r.thresholds().Publish
			}) {
				r.send(n, m, a)
			}
		}
		return
	}
	for _, n := range r.fanoutOf(now, m.Topic).peers {
		r.send(n, m, a)
	}
}

// fanoutOf returns the fanout of a topic that is published to now.
//
// "If the router is not subscribed to the topic, it will examine the set of peers in
// fanout[topic]. If this set is empty, the router will choose up to D peers from
// peers.gossipsub[topic] and add them to fanout[topic]."
func (r *Router) fanoutOf(now time.Time, topic string) *fanout {
	f := r.fanout[topic]
	if f == nil {
		f = new(fanout)
		r.fanout[topic] = f
	}
	if len(f.peers) == 0 {
		f.peers = r.candidates(topic, r.params.D, func(n *neighbour) bool {
			return !n.direct && r.scoreOf(n) >= r.thresholds().Publish
		})
	}
	f.last = now
	return f
}

// forward sends m to direct peers, to peers that speak floodsub, and to the mesh.
//
// "First, it will forward the message to every peer in peers.floodsub[topic] for
// backwards-compatibility with floodsub. Next, it will forward the message to every
// peer in its local gossipsub topic mesh"; "every new valid incoming message is
// forwarded to the direct peers"
func (r *Router) forward(now time.Time, m *pubsub.Message, a *pubsub.Actions) {
	for _, p := range r.c.In(m.Topic) {
		n := of(p)
		if n.direct || n.version == 0 && r.scoreOf(n) >= r.thresholds().Publish {
			r.send(n, m, a)
		}
	}
	ms := r.mesh[m.Topic]
	switch {
	case ms == nil:
	case r.params.EagerPeers > 0 && len(m.Data) >= r.params.EagerThreshold && m.ReceivedFrom != r.c.Self():
		r.stagger(now, m, ms.peers, a)
	default:
		for _, n := range ms.peers {
			r.send(n, m, a)
		}
	}
}

// send sends m to a peer that may want it.
func (r *Router) send(n *neighbour, m *pubsub.Message, a *pubsub.Actions) {
	if r.wanted(n, m) {
		a.Send(n.Peer, m)
	}
}

// wanted reports whether n may want m.
//
// "When later relaying the messageId message to the mesh the peers found in
// dont_send_message_ids MUST be skipped."
func (r *Router) wanted(n *neighbour, m *pubsub.Message) bool {
	return n.ID != m.ReceivedFrom && n.ID != m.From && !m.HeldBy(n.Peer) && !n.doesNotWant(r.sum(m.ID)) && !r.partialInstead(n, m.Topic)
}

func (r *Router) sum(id pubsub.MessageID) uint64 { return maphash.String(r.sums, string(id)) }

func (n *neighbour) doesNotWant(sum uint64) bool {
	_, ok := n.unwanted[sum]
	return ok
}

// Received implements pubsub.Router.
//
// "When the peer receives the first message instance it immediately broadcasts (not
// queue for later piggybacking) IDONTWANT with the messageId to all its mesh peers.
// This could be performed prior to the message validation". It is performed after the
// check of the signature: a forged copy must not keep the true one away.
func (r *Router) Received(now time.Time, m *pubsub.Message, a *pubsub.Actions) {
	r.promises.kept(m.ID)
	r.news++
	if r.score != nil {
		r.score.received(now, m)
	}
	if r.gater != nil {
		r.gater.received()
	}
	ms := r.mesh[m.Topic]
	if ms == nil || len(m.Data) < r.params.IDontWantThreshold {
		return
	}
	var c *pubsub.Control
	for _, n := range ms.peers {
		if n.version < v12 || n.ID == m.ReceivedFrom || m.HeldBy(n.Peer) || r.partialWanted(n, m.Topic) {
			continue
		}
		if c == nil {
			c = &pubsub.Control{IDontWant: [][]byte{[]byte(m.ID)}}
		}
		a.Control(n.Peer, c)
	}
}

// Duplicate implements pubsub.Router.
func (r *Router) Duplicate(now time.Time, p *pubsub.Peer, id pubsub.MessageID, a *pubsub.Actions) {
	r.has(of(p), id)
	if r.score != nil {
		r.score.duplicate(now, p.ID, id)
	}
	if r.gater != nil {
		r.gater.duplicate(p)
	}
}

// Decided implements pubsub.Router.
func (r *Router) Decided(now time.Time, m *pubsub.Message, o pubsub.Outcome, a *pubsub.Actions) {
	if r.score != nil {
		r.score.decided(now, m, o)
	}
	if r.gater != nil {
		r.gater.decided(now, r.c.Peer(m.ReceivedFrom), m.Topic, o)
	}
	if o == pubsub.Accepted {
		r.cache.put(m)
		r.forward(now, m, a)
	}
}

// Missed implements pubsub.Router: the peer is told by IHAVE in the next heartbeat
// that the message is there.
func (r *Router) Missed(now time.Time, p *pubsub.Peer, m *pubsub.Message) {
	n := of(p)
	if n.version < v10 || n.misses >= r.params.MaxIHaveLength {
		return
	}
	if n.missed == nil {
		n.missed = make(map[string][]pubsub.MessageID)
	}
	n.missed[m.Topic] = append(n.missed[m.Topic], m.ID)
	n.misses++
}

// Mesh implements pubsub.Router.
func (r *Router) Mesh(topic string) []*pubsub.Peer {
	m := r.mesh[topic]
	if m == nil {
		return nil
	}
	l := make([]*pubsub.Peer, len(m.peers))
	for i, n := range m.peers {
		l[i] = n.Peer
	}
	return l
}

// Scores implements pubsub.Router.
func (r *Router) Scores(now time.Time) []pubsub.Score {
	if r.score == nil {
		return nil
	}
	var l []pubsub.Score
	for _, p := range r.c.Peers() {
		l = append(l, r.score.explain(p.ID))
	}
	return l
}

// Control implements pubsub.Router.
func (r *Router) Control(now time.Time, p *pubsub.Peer, rpc *pubsub.RPC, first bool, a *pubsub.Actions) {
	n := of(p)
	c := &rpc.Control
	if n.version >= v13 {
		r.extensions(n, c.Extensions, first)
		if rpc.Partial != nil {
			r.partial(n, rpc.Partial)
		}
	}
	if n.version < v10 || c.IsZero() {
		return
	}
	var answer pubsub.Control
	if len(c.IHave) > 0 {
		answer.IWant = r.handleIHave(now, n, c.IHave)
	}
	if len(c.IWant) > 0 {
		r.handleIWant(n, c.IWant, a)
	}
	if len(c.Graft) > 0 {
		answer.Prune = r.handleGraft(now, n, c.Graft, a)
	}
	if len(c.Prune) > 0 {
		r.handlePrune(now, n, c.Prune, a)
	}
	if len(c.IDontWant) > 0 {
		r.handleIDontWant(n, c.IDontWant)
	}
	if !answer.IsZero() {
		a.Control(p, &answer)
	}
}
