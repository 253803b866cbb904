package gossipsub

import (
	"cmp"
	"slices"
	"time"

	"github.com/plexus-p2p/plexus/pubsub"
)

// Tick implements pubsub.Router: the heartbeat, and the decay of scores.
func (r *Router) Tick(now time.Time, a *pubsub.Actions) time.Time {
	if r.score != nil {
		r.score.refresh(now)
	}
	if r.gater != nil {
		r.gater.refresh(now)
	}
	r.sendStaggered(now, a)
	if !now.Before(r.beat) {
		r.heartbeat(now, a)
		if r.beat = r.beat.Add(r.params.Heartbeat); r.beat.Before(now) {
			r.beat = now.Add(r.params.Heartbeat) // the machine was asleep
		}
	}
	return r.due()
}

// heartbeat is mesh maintenance, fanout maintenance and gossip.
//
// https://github.com/libp2p/specs/blob/master/pubsub/gossipsub/gossipsub-v1.0.md#heartbeat
func (r *Router) heartbeat(now time.Time, a *pubsub.Actions) {
	r.ticks++
	if r.ticks%15 == 0 {
		r.clearBackoffs(now)
	}
	for id, n := range r.promises.broken(now) {
		r.punish(id, n)
	}
	if r.ticks%r.params.DirectConnectTicks == 0 {
		r.connectDirect(a)
	}
	for _, p := range r.c.Peers() {
		n := of(p)
		r.judge(n)
		for sum, until := range n.unwanted {
			if until <= r.ticks {
				delete(n.unwanted, sum)
			}
		}
		if len(n.unwanted) == 0 {
			n.unwanted = nil
		}
		r.offerMissed(n)
	}
	r.news = 0
	b := &beat{r: r, now: now, a: a, changes: make(map[*neighbour]*pubsub.Control)}
	for _, m := range r.meshes {
		b.maintain(m)
		r.gossip(m.topic, m.peers)
	}
	r.maintainFanout(now)
	b.flush()
	r.cache.shift()
	if r.parts != nil {
		r.parts.heartbeat()
	}
}

// A beat is a heartbeat's changes of meshes, of which each peer is told at once.
type beat struct {
	r       *Router
	now     time.Time
	a       *pubsub.Actions
	changes map[*neighbour]*pubsub.Control
	order   []*neighbour
}

func (b *beat) change(n *neighbour) *pubsub.Control {
	c := b.changes[n]
	if c == nil {
		c = new(pubsub.Control)
		b.changes[n] = c
		b.order = append(b.order, n)
	}
	return c
}

func (b *beat) graft(m *mesh, n *neighbour) {
	b.r.link(b.now, m, n, b.a)
	c := b.change(n)
	c.Graft = append(c.Graft, m.topic)
}

func (b *beat) prune(m *mesh, n *neighbour) {
	b.r.unlink(b.now, m, n, b.a)
	b.r.backOff(b.now, m.topic, n.ID, b.r.params.PruneBackoff)
	c := b.change(n)
	c.Prune = append(c.Prune, b.r.prune(n, m.topic, true, b.r.params.PruneBackoff))
}

// flush sends what has changed, and gossip along with it.
func (b *beat) flush() {
	for _, p := range b.r.c.Peers() {
		if n := of(p); len(n.have) > 0 {
			b.change(n).IHave = n.have
			n.have = nil
		}
	}
	for _, n := range b.order {
		b.a.Control(n.Peer, b.changes[n])
	}
}

// maintain brings a mesh into shape.
func (b *beat) maintain(m *mesh) {
	r, p := b.r, &b.r.params

	// "Peers with a negative score are pruned from all meshes."
	for i := 0; i < len(m.peers); {
		if n := m.peers[i]; r.scoreOf(n) < 0 {
			b.prune(m, n)
		} else {
			i++
		}
	}

	// "if |mesh[topic]| < D_low: select D - |mesh[topic]| peers from
	// peers.gossipsub[topic] - mesh[topic]"; "When selecting peers to graft because of
	// undersubscription, peers with a negative score are ignored."
	if len(m.peers) < p.Dlo {
		for _, n := range r.candidates(m.topic, p.D-len(m.peers), func(n *neighbour) bool { return r.graftable(b.now, m, n) }) {
			b.graft(m, n)
		}
	}

	if len(m.peers) > p.Dhi {
		b.shrink(m)
	}

	// "During heartbeat maintenance, if the peer already has at least D_lo peers in the
	// mesh but not enough outbound connections, then it selects as many needed peers to
	// fill the quota and grafts them in the mesh."
	if out := outbound(m.peers); len(m.peers) >= p.Dlo && out < p.Dout {
		for _, n := range r.candidates(m.topic, p.Dout-out, func(n *neighbour) bool { return n.Outbound && r.graftable(b.now, m, n) }) {
			b.graft(m, n)
		}
	}

	// "Periodically, the router checks the median score of peers in the mesh against the
	// OpportunisticGraftThreshold. If the median score is below the threshold, the router
	// opportunistically grafts (at least) two peers with score above the median in the
	// mesh."
	if r.ticks%p.OpportunisticGraftTicks == 0 && len(m.peers) > 1 {
		scores := make([]float64, len(m.peers))
		for i, n := range m.peers {
			scores[i] = r.scoreOf(n)
		}
		slices.Sort(scores)
		if median := scores[len(scores)/2]; median < r.thresholds().OpportunisticGraft {
			for _, n := range r.candidates(m.topic, p.OpportunisticGraftPeers, func(n *neighbour) bool {
				return r.graftable(b.now, m, n) && r.scoreOf(n) > median
			}) {
				b.graft(m, n)
			}
		}
	}
}

// shrink prunes all but D peers.
//
// "When pruning because of oversubscription, the peer keeps the best D_score scoring
// peers and selects the remaining peers to keep at random. [...] The selection is done
// under the constraint that D_out peers are outbound connections; if the scoring plus
// random selection does not result in enough outbound connections, then we replace
// the random and lower scoring peers in the selection with outbound connection peers."
func (b *beat) shrink(m *mesh) {
	r, p := b.r, &b.r.params
	l := slices.Clone(m.peers)
	shuffle := func(l []*neighbour) { r.c.Rand.Shuffle(len(l), func(i, j int) { l[i], l[j] = l[j], l[i] }) }
	shuffle(l) // equal scores are in random order
	slices.SortStableFunc(l, func(x, y *neighbour) int { return cmp.Compare(r.scoreOf(y), r.scoreOf(x)) })
	shuffle(l[min(p.Dscore, len(l)):])
	keep, rest := l[:p.D], l[p.D:]
	for i := len(keep) - 1; i >= 0 && outbound(keep) < p.Dout; i-- {
		if keep[i].Outbound {
			continue
		}
		j := slices.IndexFunc(rest, func(n *neighbour) bool { return n.Outbound })
		if j < 0 {
			break
		}
		keep[i], rest[j] = rest[j], keep[i]
	}
	for _, n := range rest {
		b.prune(m, n)
	}
}

func outbound(l []*neighbour) (n int) {
	for _, p := range l {
		if p.Outbound {
			n++
		}
	}
	return n
}

// maintainFanout forgets topics that are no longer published to, and keeps the
// others' peers.
//
// "if time since last published > fanout_ttl: remove topic from fanout; else if
// |fanout[topic]| < D: select D - |fanout[topic]| peers from peers.gossipsub[topic] -
// fanout[topic]"
func (r *Router) maintainFanout(now time.Time) {
	topics := make([]string, 0, len(r.fanout))
	for t := range r.fanout {
		topics = append(topics, t)
	}
	slices.Sort(topics)
	good := func(n *neighbour) bool { return r.scoreOf(n) >= r.thresholds().Publish }
	for _, t := range topics {
		f := r.fanout[t]
		if now.Sub(f.last) > r.params.FanoutTTL {
			delete(r.fanout, t)
			continue
		}
		f.peers = slices.DeleteFunc(f.peers, func(n *neighbour) bool { return !good(n) })
		if need := r.params.D - len(f.peers); need > 0 {
			f.peers = append(f.peers, r.candidates(t, need, func(n *neighbour) bool {
				return !n.direct && !slices.Contains(f.peers, n) && good(n)
			})...)
		}
		r.gossip(t, f.peers)
	}
}
