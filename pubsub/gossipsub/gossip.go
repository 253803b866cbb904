package gossipsub

import (
	"slices"
	"time"

	"github.com/plexus-p2p/plexus/peer"
	"github.com/plexus-p2p/plexus/pubsub"
)

// maxIHave bounds what a topic's IHAVE has in a heartbeat, in bytes. It is spread over
// RPCs of 12 KiB, of which peers look at ten in a heartbeat.
const maxIHave = 72 << 10

// handleIHave returns what to ask n for.
//
// "IHAVE messages are capped to a certain number of IHAVE messages and aggregate
// number of message IDs advertised per heartbeat [...] additional IHAVE messages are
// ignored."
func (r *Router) handleIHave(now time.Time, n *neighbour, haves []pubsub.IHave) [][]byte {
	// "no gossip is emitted towards that peer and gossip from that peer is ignored"
	if r.scoreOf(n) < r.thresholds().Gossip {
		return nil
	}
	if n.haves++; n.haves > r.params.MaxIHaveMessages || n.asked >= r.params.MaxIHaveLength {
		return nil
	}
	var want [][]byte
	asked := make(map[string]bool)
	for _, h := range haves {
		if r.mesh[h.Topic] == nil {
			continue // "scoped to a given topic", which we do not receive
		}
		for i, id := range h.IDs {
			if i == r.params.MaxIHaveLength {
				break
			}
			if !r.c.Seen(id) && !asked[string(id)] {
				asked[string(id)] = true
				want = append(want, slices.Clone(id)) // the RPC's memory is not ours
			}
		}
	}
	if len(want) == 0 {
		return nil
	}
	r.c.Rand.Shuffle(len(want), func(i, j int) { want[i], want[j] = want[j], want[i] })
	if left := r.params.MaxIHaveLength - n.asked; len(want) > left {
		want = want[:left]
	}
	n.asked += len(want)
	// "For each IHAVE advertisement which elicits an IWANT request, the router tracks a
	// random message ID within the advertised set."
	r.promises.add(pubsub.MessageID(want[r.c.Rand.IntN(len(want))]), n.ID, now.Add(r.params.IWantFollowup))
	return want
}

// handleIWant sends n what it asks for.
//
// "IWANT message responses are limited in the number of retransmissions to a certain
// peer"
func (r *Router) handleIWant(n *neighbour, ids [][]byte, a *pubsub.Actions) {
	n.wants += len(ids)
	if r.scoreOf(n) < r.thresholds().Gossip {
		return
	}
	sent := make(map[string]bool)
	for _, id := range ids {
		if sent[string(id)] {
			continue // one request is for one copy
		}
		e := r.cache.by[pubsub.MessageID(id)]
		if e == nil || n.doesNotWant(r.sum(e.m.ID)) {
			continue
		}
		sent[string(id)] = true
		if e.asked == nil {
			e.asked = make(map[peer.ID]int)
		}
		e.asked[n.ID]++
		switch asked := e.asked[n.ID]; {
		case asked <= r.params.GossipRetransmission:
			a.Send(n.Peer, e.m)
		case asked > r.params.GossipRetransmission+r.params.HistoryGossip+r.params.HistoryLength:
			n.insists = true // it is not offered so often, not even if there never is room for it
		}
	}
}

// handleIDontWant notes what n does not want.
//
// "To prevent DoS the number of IDONTWANT control messages is limited to
// max_idontwant_messages per heartbeat"
func (r *Router) handleIDontWant(n *neighbour, ids [][]byte) {
	n.refusals += len(ids)
	if n.dontwants++; n.dontwants > r.params.MaxIDontWantMessages {
		return
	}
	if len(ids) > r.params.MaxIDontWantLength {
		ids = ids[:r.params.MaxIDontWantLength]
	}
	if n.unwanted == nil {
		n.unwanted = make(map[uint64]int)
	}
	for _, id := range ids {
		n.unwanted[r.sum(pubsub.MessageID(id))] = r.ticks + r.params.IDontWantTTL
	}
}

// judge punishes n, once a heartbeat for each, if it asked for more than it was offered,
// or for one message again and again; or if it does not want far more messages than there
// are. It then ends the heartbeat's counts.
//
// Who only asks for what it was offered never asks for more, whatever is lost or late. And
// who only says what it has got names the messages that come here too, if later, for which
// there are IDontWantTTL heartbeats. Ten times as many are forgiven, for a host that hardly
// keeps up, and some that it found to be of no worth and passed on to nobody.
func (r *Router) judge(n *neighbour) {
	p := &r.params
	n.offered -= n.wants
	if n.insists || n.offered < -p.MaxIWantUnoffered {
		r.punish(n.ID, 1)
	}
	n.offered = min(max(n.offered, 0), p.MaxIHaveLength*p.HistoryLength)
	n.spare += 10*r.news + p.MaxIDontWantMessages/10 - n.refusals
	n.spare = min(max(n.spare, -10*p.MaxIDontWantMessages), p.MaxIDontWantMessages)
	if n.spare >= 0 {
		n.owing = 0
	} else if n.owing++; n.owing > p.IDontWantTTL {
		r.punish(n.ID, 1)
	}
	n.haves, n.asked, n.wants, n.insists, n.dontwants, n.refusals = 0, 0, 0, false, 0, 0
}

// gossip lets some of a topic's peers that are not sent its messages know what there is.
//
// "it randomly selects gossip factor peers with a minimum of D_lazy, and emits gossip
// to the selected peers", of "all peers with a peer score above a gossip threshold"
func (r *Router) gossip(topic string, exclude []*neighbour) {
	ids := r.cache.recent(topic)
	partial := r.parts != nil && r.parts.has(topic)
	if len(ids) == 0 && !partial {
		return
	}
	peers := r.candidates(topic, -1, func(n *neighbour) bool {
		return !n.direct && !slices.Contains(exclude, n) && r.scoreOf(n) >= r.thresholds().Gossip
	})
	target := max(r.params.Dlazy, int(r.params.GossipFactor*float64(len(peers))))
	peers = peers[:min(target, len(peers))]
	var some []peer.ID
	for _, n := range peers {
		if r.partialInstead(n, topic) {
			some = append(some, n.ID)
			continue
		}
		n.offer(topic, r.pick(ids))
	}
	if len(some) > 0 {
		r.parts.gossip(topic, some)
	}
}

// welcome offers recent messages to a peer that comes into a mesh, with the next
// heartbeat. Gossip is for peers outside of it, and what was sent before it came was not
// sent to it: without this, what is published in a subscriber's first moments passes it by.
func (r *Router) welcome(topic string, n *neighbour) {
	if ids := r.cache.recent(topic); len(ids) > 0 && !n.direct && !r.partialInstead(n, topic) {
		n.offer(topic, r.pick(ids))
	}
}

// pick shuffles ids and returns as many as fit in an IHAVE: different ones for each
// peer, where not all do.
func (r *Router) pick(ids [][]byte) [][]byte {
	r.c.Rand.Shuffle(len(ids), func(i, j int) { ids[i], ids[j] = ids[j], ids[i] })
	bytes := 0
	for i, id := range ids {
		if bytes += len(id) + 4; i == r.params.MaxIHaveLength || bytes > maxIHave {
			return slices.Clone(ids[:i])
		}
	}
	return slices.Clone(ids)
}

// offer adds to the gossip for n in this heartbeat.
func (n *neighbour) offer(topic string, ids [][]byte) {
	if len(ids) > 0 {
		n.have = append(n.have, pubsub.IHave{Topic: topic, IDs: ids})
		n.offered += len(ids)
	}
}

// offerMissed offers n what found no room in its queue, while it is there.
func (r *Router) offerMissed(n *neighbour) {
	if n.misses == 0 {
		return
	}
	topics := make([]string, 0, len(n.missed))
	for t := range n.missed {
		topics = append(topics, t)
	}
	slices.Sort(topics)
	for _, t := range topics {
		var ids [][]byte
		bytes := 0
		for _, id := range n.missed[t] {
			if e := r.cache.by[id]; e != nil && !n.doesNotWant(r.sum(id)) {
				if bytes += len(id) + 4; bytes > maxIHave {
					break
				}
				ids = append(ids, []byte(id))
			}
		}
		n.offer(t, ids)
	}
	n.missed, n.misses = nil, 0
}

// An mcache holds messages for IWANT, by the heartbeat in which they came.
//
// https://github.com/libp2p/specs/blob/master/pubsub/gossipsub/gossipsub-v1.0.md#message-cache
type mcache struct {
	gossip  int // windows that are offered
	limit   int // bytes
	by      map[pubsub.MessageID]*cached
	windows [][]*cached // the present one first
	bytes   int
}

type cached struct {
	m     *pubsub.Message
	asked map[peer.ID]int // how often by IWANT
}

func (c *mcache) init(p Params) {
	c.gossip, c.limit = p.HistoryGossip, p.HistoryBytes
	c.by = make(map[pubsub.MessageID]*cached)
	c.windows = make([][]*cached, p.HistoryLength)
}

// put adds m to the present window.
func (c *mcache) put(m *pubsub.Message) {
	if c.by[m.ID] != nil {
		return
	}
	e := &cached{m: m}
	c.by[m.ID] = e
	c.windows[0] = append(c.windows[0], e)
	c.bytes += m.Size()
	for i := len(c.windows) - 1; i >= 0 && c.bytes > c.limit; i-- {
		for len(c.windows[i]) > 0 && c.bytes > c.limit {
			c.drop(c.windows[i][0])
			c.windows[i] = c.windows[i][1:]
		}
	}
}

func (c *mcache) drop(e *cached) {
	delete(c.by, e.m.ID)
	c.bytes -= e.m.Size()
}

// shift ends the present window and forgets the oldest.
func (c *mcache) shift() {
	last := len(c.windows) - 1
	for _, e := range c.windows[last] {
		c.drop(e)
	}
	copy(c.windows[1:], c.windows[:last])
	c.windows[0] = nil
}

// recent lists the IDs of a topic's messages that are to be offered.
func (c *mcache) recent(topic string) (ids [][]byte) {
	for _, w := range c.windows[:c.gossip] {
		for _, e := range w {
			if e.m.Topic == topic {
				ids = append(ids, []byte(e.m.ID))
			}
		}
	}
	return ids
}

// promises are IDs that were asked of peers who offered them.
type promises struct {
	by map[pubsub.MessageID][]promise
}

type promise struct {
	peer peer.ID
	end  time.Time
}

func (p *promises) init() { p.by = make(map[pubsub.MessageID][]promise) }

func (p *promises) add(id pubsub.MessageID, from peer.ID, end time.Time) {
	for _, old := range p.by[id] {
		if old.peer == from {
			return
		}
	}
	p.by[id] = append(p.by[id], promise{from, end})
}

// kept tells that a message has come, from whomever.
func (p *promises) kept(id pubsub.MessageID) { delete(p.by, id) }

// broken returns how many promises each peer has not kept, and forgets them.
//
// "If the message is not received (from any peer) within a period of time, then a
// behavioural penalty is applied to the advertising peer through P₇"
func (p *promises) broken(now time.Time) map[peer.ID]int {
	var by map[peer.ID]int
	for id, l := range p.by {
		l = slices.DeleteFunc(l, func(pr promise) bool {
			if now.Before(pr.end) {
				return false
			}
			if by == nil {
				by = make(map[peer.ID]int)
			}
			by[pr.peer]++
			return true
		})
		if len(l) == 0 {
			delete(p.by, id)
		} else {
			p.by[id] = l
		}
	}
	return by
}
