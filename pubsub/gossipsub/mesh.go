package gossipsub

import (
	"time"

	"github.com/plexus-p2p/plexus/peer"
	"github.com/plexus-p2p/plexus/pubsub"
)

// Join implements pubsub.Router.
//
// "the router will form a topic mesh by selecting up to D peers from its local
// peering state first examining the fanout map. If there are peers in fanout[topic],
// the router will move those peers from the fanout map to mesh[topic]. [...] the router
// will attempt to fill mesh[topic] with peers from peers.gossipsub[topic]"
func (r *Router) Join(now time.Time, topic string, a *pubsub.Actions) {
	m := &mesh{topic: topic}
	r.mesh[topic] = m
	r.meshes = append(r.meshes, m)
	if f := r.fanout[topic]; f != nil {
		delete(r.fanout, topic)
		for _, n := range f.peers {
			if len(m.peers) < r.params.D && r.graftable(now, m, n) {
				r.graft(now, m, n, a)
			}
		}
	}
	for _, n := range r.candidates(topic, r.params.D-len(m.peers), func(n *neighbour) bool { return r.graftable(now, m, n) }) {
		r.graft(now, m, n, a)
	}
}

// Leave implements pubsub.Router.
//
// "The router will inform the peers in mesh[topic] by sending them a PRUNE control
// message [...]. After sending PRUNE messages, the router will forget mesh[topic]";
// "A shorter backoff period can be used in case of an unsubscribe event"
func (r *Router) Leave(now time.Time, topic string, a *pubsub.Actions) {
	m := r.mesh[topic]
	for len(m.peers) > 0 {
		n := m.peers[0]
		r.unlink(now, m, n, a)
		r.backOff(now, topic, n.ID, r.params.UnsubscribeBackoff)
		a.Control(n.Peer, &pubsub.Control{Prune: []pubsub.Prune{r.prune(n, topic, true, r.params.UnsubscribeBackoff)}})
	}
	delete(r.mesh, topic)
	for i := range r.meshes {
		if r.meshes[i] == m {
			r.meshes = append(r.meshes[:i], r.meshes[i+1:]...)
			break
		}
	}
	if r.parts != nil {
		r.parts.leave(topic)
	}
}

// graftable reports whether n may be asked into a mesh.
func (r *Router) graftable(now time.Time, m *mesh, n *neighbour) bool {
	return !n.direct && !m.has(n) && !r.backedOff(now, m.topic, n.ID, r.slack()) && r.scoreOf(n) >= 0
}

// slack is how much longer than a back-off we wait before we GRAFT.
//
// "The peer has to wait the full backoff period before attempting to graft again
// —plus some slack to account for the offset until the next heartbeat that clears the
// backoff— otherwise it risks getting its graft rejected"
func (r *Router) slack() time.Duration { return 2 * r.params.Heartbeat }

// link puts n into a mesh, unlink takes it out.
func (r *Router) link(now time.Time, m *mesh, n *neighbour, a *pubsub.Actions) {
	m.peers = append(m.peers, n)
	r.welcome(m.topic, n)
	if r.score != nil {
		r.score.grafted(now, n.ID, m.topic)
	}
	if a.Tracing() {
		a.Event(pubsub.Grafted{Peer: n.ID, Topic: m.topic})
	}
}

func (r *Router) unlink(now time.Time, m *mesh, n *neighbour, a *pubsub.Actions) {
	m.peers = without(m.peers, n)
	if r.score != nil {
		r.score.pruned(now, n.ID, m.topic)
	}
	if a.Tracing() {
		a.Event(pubsub.Pruned{Peer: n.ID, Topic: m.topic})
	}
}

// graft puts n into a mesh and tells it.
func (r *Router) graft(now time.Time, m *mesh, n *neighbour, a *pubsub.Actions) {
	r.link(now, m, n, a)
	a.Control(n.Peer, &pubsub.Control{Graft: []string{m.topic}})
}

// maxBackoffs bounds the back-offs of a topic. The earliest to end makes room.
const maxBackoffs = 4096

// backOff keeps n out of a topic's mesh for a time.
func (r *Router) backOff(now time.Time, topic string, id peer.ID, d time.Duration) {
	b := r.backoffs[topic]
	if b == nil {
		b = make(map[peer.ID]time.Time)
		r.backoffs[topic] = b
	}
	until := now.Add(d)
	if old, ok := b[id]; ok {
		if old.Before(until) {
			b[id] = until
		}
		return
	}
	if len(b) >= maxBackoffs {
		var first peer.ID
		for i, t := range b {
			if first == "" || t.Before(b[first]) {
				first = i
			}
		}
		delete(b, first)
	}
	b[id] = until
}

// backedOff reports whether n is to be kept out, and for slack longer.
func (r *Router) backedOff(now time.Time, topic string, id peer.ID, slack time.Duration) bool {
	until, ok := r.backoffs[topic][id]
	return ok && now.Before(until.Add(slack))
}

// clearBackoffs forgets those that are over.
func (r *Router) clearBackoffs(now time.Time) {
	for topic, b := range r.backoffs {
		for id, until := range b {
			if !now.Before(until.Add(r.slack())) {
				delete(b, id)
			}
		}
		if len(b) == 0 {
			delete(r.backoffs, topic)
		}
	}
}

// maxPXRecords is how many bytes of records a PRUNE has.
const maxPXRecords = 10 << 10

// prune makes a PRUNE for n, with other peers to connect to if px is set and we do that.
func (r *Router) prune(n *neighbour, topic string, px bool, backoff time.Duration) pubsub.Prune {
	p := pubsub.Prune{Topic: topic}
	if n.version < v11 {
		return p
	}
	p.Backoff = backoff
	if !px || !r.cfg.PX {
		return p
	}
	// "no PX information is emitted towards those peers [with a negative score]. In
	// addition, when performing PX only peers with non-negative scores are exchanged."
	if r.scoreOf(n) < 0 {
		return p
	}
	left := maxPXRecords
	for _, x := range r.candidates(topic, r.params.PrunePeers, func(x *neighbour) bool { return x != n && r.scoreOf(x) >= 0 }) {
		px := pubsub.PX{ID: x.ID, Record: r.c.Record(x.ID)}
		if left -= len(px.Record); left < 0 {
			px.Record = nil // "the emitting peer is allowed to omit the signed peer record"
		}
		p.Peers = append(p.Peers, px)
	}
	return p
}

// handleGraft takes n into meshes, or tells why not.
func (r *Router) handleGraft(now time.Time, n *neighbour, topics []string, a *pubsub.Actions) (prunes []pubsub.Prune) {
	refused := make(map[string]bool)
	refuse := func(topic string, px bool) {
		if !refused[topic] { // one answer a topic is enough
			refused[topic] = true
			prunes = append(prunes, r.prune(n, topic, px, r.params.PruneBackoff))
		}
	}
	for _, topic := range topics {
		m := r.mesh[topic]
		switch {
		case m == nil:
			// "GRAFT messages for unknown topics are ignored"
		case m.has(n):
			// We may have grafted each other at once.
		case n.direct:
			// "It is an error to GRAFT on an explicit peer, and such an attempt should be
			// logged and rejected with a PRUNE."
			refuse(topic, false)
		case r.backedOff(now, topic, n.ID, 0):
			// "Both the pruning and the pruned peer will immediately prune a GRAFT within
			// the backoff period and extend it. When a peer tries to regraft too early, the
			// pruning peer may apply a behavioural penalty"
			r.punish(n.ID, 1)
			if now.Before(r.backoffs[topic][n.ID].Add(r.params.GraftFlood - r.params.PruneBackoff)) {
				r.punish(n.ID, 1)
			}
			r.backOff(now, topic, n.ID, r.params.PruneBackoff)
			refuse(topic, false)
		case r.scoreOf(n) < 0:
			// "peers with a score below this threshold are pruned from the mesh during the
			// heartbeat and ignored when looking for peers to graft": to take them
			// in until then would be no use.
			r.backOff(now, topic, n.ID, r.params.PruneBackoff)
			refuse(topic, false)
		case len(m.peers) >= r.params.Dhi && !n.Outbound:
			// "When the peer receives a GRAFT while oversubscribed (with mesh degree at
			// D_hi or higher), it only accepts the new peer in the mesh if it is an outbound
			// connection."
			r.backOff(now, topic, n.ID, r.params.PruneBackoff)
			refuse(topic, true)
		default:
			r.link(now, m, n, a)
		}
	}
	return prunes
}

// handlePrune takes n out of meshes.
func (r *Router) handlePrune(now time.Time, n *neighbour, prunes []pubsub.Prune, a *pubsub.Actions) {
	for _, p := range prunes {
		m := r.mesh[p.Topic]
		if m == nil {
			continue
		}
		if m.has(n) {
			r.unlink(now, m, n, a)
		}
		backoff := p.Backoff
		if backoff == 0 {
			backoff = r.params.PruneBackoff
		}
		r.backOff(now, p.Topic, n.ID, backoff)
		// "we only accept it and connect to the supplied peers if the originating peer's
		// score exceeds this threshold", and "PX is ignored from them" below 0
		if s := r.scoreOf(n); len(p.Peers) > 0 && s >= 0 && s >= r.thresholds().AcceptPX {
			r.connect(p.Peers, a)
		}
	}
}

// connect connects to some of the peers that somebody named.
func (r *Router) connect(px []pubsub.PX, a *pubsub.Actions) {
	left := r.params.PrunePeers
	for _, i := range r.c.Rand.Perm(len(px)) {
		x := px[i]
		if left == 0 {
			return
		}
		if x.ID == r.c.Self() || r.c.Peer(x.ID) != nil || x.ID.Validate() != nil {
			continue
		}
		left--
		// It outlives the RPC that it is a part of.
		a.Connects = append(a.Connects, pubsub.Connect{Info: peer.AddrInfo{ID: x.ID}, Record: append([]byte(nil), x.Record...)})
	}
}

// connectDirect connects to direct peers that are not there.
//
// "The connections are initially established when the router boots, and are
// periodically checked for connectivity and reconnect if the connectivity is lost."
func (r *Router) connectDirect(a *pubsub.Actions) {
	for _, i := range r.cfg.Direct {
		if r.c.Peer(i.ID) == nil {
			a.Connects = append(a.Connects, pubsub.Connect{Info: i})
		}
	}
}

// punish adds to a peer's behavioural penalty.
func (r *Router) punish(id peer.ID, n int) {
	if r.score != nil {
		r.score.punish(id, n)
	}
}
