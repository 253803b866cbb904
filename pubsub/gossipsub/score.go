package gossipsub

import (
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/plexus-p2p/plexus/peer"
	"github.com/plexus-p2p/plexus/pubsub"
)

// score keeps the score of each peer.
//
//	Score(p) = TopicCap(Σ tᵢ*(w₁P₁ + w₂P₂ + w₃P₃ + w₃bP₃b + w₄P₄)) + w₅P₅ + w₆P₆ + w₇P₇
//
// https://github.com/libp2p/specs/blob/master/pubsub/gossipsub/gossipsub-v1.1.md#the-score-function
type score struct {
	params  ScoreParams
	decayAt time.Time
	peers   map[peer.ID]*peerStats
	ips     map[netip.Prefix]int // peers on an address, those remembered included
	records map[pubsub.MessageID]*record
	queue   []*record // oldest first
}

// peerStats is what is known of a peer, and for a time of one that left.
type peerStats struct {
	id        peer.ID
	connected bool
	expire    time.Time // of one that left
	topics    map[string]*topicStats
	penalty   float64      // the counter of P7
	ip        netip.Prefix // invalid: none, or not counted
	total     float64
	fresh     bool // total is right
}

// topicStats are the counters of P1 to P4.
type topicStats struct {
	inMesh  bool
	grafted time.Time
	mesh    time.Duration // how long in the mesh; "calculated lazily during the decay update"
	active  bool          // P3 applies
	first   float64
	deliver float64
	failed  float64
	invalid float64
}

// A record is the history of a message.
type record struct {
	id    pubsub.MessageID
	topic string
	until time.Time
	done  bool // decided
	how   pubsub.Outcome
	valid time.Time // when it was accepted
	peers []peer.ID // who delivered it
}

// maxRecords bounds the messages of which is known who delivered them, and
// maxRecordPeers for how many peers; maxRetained the peers that left.
const (
	maxRecords     = 1 << 16
	maxRecordPeers = 256
	maxRetained    = 8192
)

func newScore(p ScoreParams) (*score, error) {
	p.defaults()
	if err := p.check(); err != nil {
		return nil, err
	}
	p.Topics = maps.Clone(p.Topics)
	return &score{
		params:  p,
		peers:   make(map[peer.ID]*peerStats),
		ips:     make(map[netip.Prefix]int),
		records: make(map[pubsub.MessageID]*record),
	}, nil
}

func (s *score) start(now time.Time) { s.decayAt = now.Add(s.params.DecayInterval) }

// add notes that a peer came, or came back, and returns what is known of it.
func (s *score) add(p *pubsub.Peer) *peerStats {
	st := s.peers[p.ID]
	if st == nil {
		st = &peerStats{id: p.ID, topics: make(map[string]*topicStats)}
		s.peers[p.ID] = st
	}
	st.connected, st.fresh = true, false
	s.move(st, s.site(p.IP))
	return st
}

// site is what peers are counted by: an IPv4 address, or what one customer has of IPv6.
func (s *score) site(ip netip.Addr) netip.Prefix {
	ip = ip.Unmap().WithZone("")
	if !ip.IsValid() || slices.ContainsFunc(s.params.IPColocationAllow, func(p netip.Prefix) bool { return p.Contains(ip) }) {
		return netip.Prefix{}
	}
	bits := 32
	if ip.Is6() {
		bits = 64
	}
	p, _ := ip.Prefix(bits)
	return p
}

// move counts a peer at an address instead of at the one before.
func (s *score) move(st *peerStats, to netip.Prefix) {
	if st.ip == to {
		return
	}
	for _, c := range []struct {
		at netip.Prefix
		n  int
	}{{st.ip, -1}, {to, 1}} {
		if !c.at.IsValid() {
			continue
		}
		if s.ips[c.at] += c.n; s.ips[c.at] == 0 {
			delete(s.ips, c.at)
		}
		for _, o := range s.peers {
			if o.ip == c.at {
				o.fresh = false
			}
		}
	}
	st.ip = to
}

// remove notes that a peer left.
//
// "the score is retained for some period of time when a peer disconnects, so that
// malicious peers cannot easily reset their score when it drops to negative"
func (s *score) remove(now time.Time, id peer.ID) {
	st := s.peers[id]
	if st == nil {
		return
	}
	if s.of(st) > 0 || s.params.RetainScore == 0 || len(s.peers) > maxRetained {
		s.move(st, netip.Prefix{})
		delete(s.peers, id)
		return
	}
	for topic, t := range st.topics {
		t.first = 0 // of what it has done, only the bad outlives its going
		if t.inMesh {
			t.leave(s.params.Topics[topic])
		}
	}
	st.connected, st.fresh = false, false
	st.expire = now.Add(s.params.RetainScore)
}

// leave ends a peer's time in a mesh.
//
// "whenever the peer is pruned with an active deficit in message delivery":
// "meshFailurePenalty += deficit * deficit"
func (t *topicStats) leave(p *TopicScoreParams) {
	if t.active && t.deliver < p.MeshDeliveriesThreshold {
		d := p.MeshDeliveriesThreshold - t.deliver
		t.failed += d * d
	}
	t.inMesh, t.active, t.mesh = false, false, 0
}

// topic returns a peer's counters of a topic that is scored.
func (s *score) topic(id peer.ID, topic string) (*topicStats, *TopicScoreParams) {
	st := s.peers[id]
	p := s.params.Topics[topic]
	if st == nil || p == nil {
		return nil, nil
	}
	t := st.topics[topic]
	if t == nil {
		t = new(topicStats)
		st.topics[topic] = t
	}
	st.fresh = false
	return t, p
}

func (s *score) grafted(now time.Time, id peer.ID, topic string) {
	if t, _ := s.topic(id, topic); t != nil {
		*t = topicStats{inMesh: true, grafted: now, first: t.first, deliver: t.deliver, failed: t.failed, invalid: t.invalid}
	}
}

func (s *score) pruned(now time.Time, id peer.ID, topic string) {
	if t, p := s.topic(id, topic); t != nil && t.inMesh {
		t.leave(p)
	}
}

func (s *score) punish(id peer.ID, n int) {
	if st := s.peers[id]; st != nil {
		st.penalty += float64(n)
		st.fresh = false
	}
}

// record returns the history of a message, a new one if there is none.
func (s *score) record(now time.Time, id pubsub.MessageID, topic string) *record {
	r := s.records[id]
	if r == nil {
		for len(s.queue) > 0 && (!now.Before(s.queue[0].until) || len(s.records) >= maxRecords) {
			if s.records[s.queue[0].id] == s.queue[0] {
				delete(s.records, s.queue[0].id)
			}
			s.queue[0] = nil
			s.queue = s.queue[1:]
		}
		r = &record{id: id, topic: topic, until: now.Add(s.params.SeenTTL)}
		s.records[id] = r
		s.queue = append(s.queue, r)
	}
	return r
}

// received begins the history of a message.
func (s *score) received(now time.Time, m *pubsub.Message) { s.record(now, m.ID, m.Topic) }

// published is the history of this host's own message: who sends it back at once
// delivers it too.
func (s *score) published(now time.Time, m *pubsub.Message) {
	r := s.record(now, m.ID, m.Topic)
	r.done, r.how, r.valid = true, pubsub.Accepted, now
}

// duplicate notes a further copy of a message.
func (s *score) duplicate(now time.Time, id peer.ID, msg pubsub.MessageID) {
	r := s.records[msg]
	if r == nil || slices.Contains(r.peers, id) || len(r.peers) >= maxRecordPeers {
		return
	}
	switch {
	case !r.done:
		r.peers = append(r.peers, id) // the verdict will be its too
	case r.how == pubsub.Accepted:
		r.peers = append(r.peers, id)
		s.near(now, id, r)
	case r.how == pubsub.Rejected:
		r.peers = append(r.peers, id)
		s.bad(id, r.topic)
	}
}

// near counts a delivery that came after the first one.
//
// "A near-first message delivery is a message delivery that occurs while a message
// has been first received and is being validated or it has been received within a
// configurable window of validation of first message delivery."
func (s *score) near(now time.Time, id peer.ID, r *record) {
	t, p := s.topic(id, r.topic)
	if t != nil && t.inMesh && now.Sub(r.valid) <= p.MeshDeliveriesWindow {
		t.deliver = min(t.deliver+1, p.MeshDeliveriesCap)
	}
}

// bad counts an invalid message.
func (s *score) bad(id peer.ID, topic string) {
	if t, _ := s.topic(id, topic); t != nil {
		t.invalid++
	}
}

// decided notes what became of a message.
func (s *score) decided(now time.Time, m *pubsub.Message, o pubsub.Outcome) {
	if o == pubsub.Forged {
		// The ID is whatever the sender says; the history is that of the true message.
		s.bad(m.ReceivedFrom, m.Topic)
		for _, p := range m.Holders() {
			s.bad(p.ID, m.Topic)
		}
		return
	}
	r := s.record(now, m.ID, m.Topic)
	r.done, r.how, r.valid = true, o, now
	switch o {
	case pubsub.Accepted:
		if t, p := s.topic(m.ReceivedFrom, m.Topic); t != nil {
			t.first = min(t.first+1, p.FirstDeliveriesCap)
			if t.inMesh {
				t.deliver = min(t.deliver+1, p.MeshDeliveriesCap)
			}
		}
		for _, id := range r.peers {
			if id != m.ReceivedFrom {
				s.near(now, id, r)
			}
		}
	case pubsub.Rejected:
		s.bad(m.ReceivedFrom, m.Topic)
		for _, id := range r.peers {
			if id != m.ReceivedFrom {
				s.bad(id, m.Topic)
			}
		}
	}
	if !slices.Contains(r.peers, m.ReceivedFrom) {
		r.peers = append(r.peers, m.ReceivedFrom)
	}
}

// refresh lets the counters decay as often as is due.
func (s *score) refresh(now time.Time) {
	if now.Before(s.decayAt) {
		return
	}
	for range 1000 { // more is all the same
		s.decay(now)
		if s.decayAt = s.decayAt.Add(s.params.DecayInterval); now.Before(s.decayAt) {
			return
		}
	}
	s.decayAt = now.Add(s.params.DecayInterval)
}

func (s *score) decay(now time.Time) {
	p := &s.params
	for id, st := range s.peers {
		st.fresh = false
		if !st.connected {
			// What a peer has done before it left does not decay: it comes back to it.
			if !now.Before(st.expire) {
				s.move(st, netip.Prefix{})
				delete(s.peers, id)
			}
			continue
		}
		for topic, t := range st.topics {
			tp := p.Topics[topic]
			if tp == nil {
				continue
			}
			t.first = p.decayed(t.first, tp.FirstDeliveriesDecay)
			t.deliver = p.decayed(t.deliver, tp.MeshDeliveriesDecay)
			t.failed = p.decayed(t.failed, tp.MeshFailureDecay)
			t.invalid = p.decayed(t.invalid, tp.InvalidDecay)
			if t.inMesh {
				t.mesh = now.Sub(t.grafted)
				if t.mesh > tp.MeshDeliveriesActivation {
					t.active = true
				}
			}
		}
		st.penalty = p.decayed(st.penalty, p.BehaviourDecay)
	}
}

// decayed is a counter after one interval.
//
// "When the value drops below a threshold it is considered zero."
func (p *ScoreParams) decayed(v, factor float64) float64 {
	if v *= factor; v < p.DecayToZero {
		return 0
	}
	return v
}

// of returns a peer's score.
func (s *score) of(st *peerStats) float64 {
	if !st.fresh {
		st.total = s.compute(st, nil)
		st.fresh = true
	}
	return st.total
}

// explain returns a peer's score and what it consists of.
func (s *score) explain(id peer.ID) pubsub.Score {
	x := pubsub.Score{Peer: id}
	if st := s.peers[id]; st != nil {
		x.Total = s.compute(st, &x)
	}
	slices.SortFunc(x.Topics, func(a, b pubsub.TopicScore) int {
		if a.Topic < b.Topic {
			return -1
		}
		return 1
	})
	return x
}

// compute computes a score, with its parts in x if that is not nil.
func (s *score) compute(st *peerStats, x *pubsub.Score) float64 {
	p := &s.params
	topics := 0.0
	for name, t := range st.topics {
		tp := p.Topics[name]
		if tp == nil {
			continue // "If a topic is not configured, a peer's behavior in that topic will not contribute to their score."
		}
		ts := tp.score(t)
		ts.Topic = name
		topics += ts.Total
		if x != nil {
			x.Topics = append(x.Topics, ts)
		}
	}
	total := topics
	if p.TopicScoreCap > 0 {
		total = min(total, p.TopicScoreCap)
	}
	parts := pubsub.Score{TopicCap: total - topics}
	if p.AppSpecific != nil {
		parts.Application = p.AppSpecificWeight * p.AppSpecific(st.id)
	}
	// "If the number of peers in the same IP exceeds the threshold, then the value is
	// the square of the surplus, otherwise it is 0."
	if surplus := float64(s.ips[st.ip] - p.IPColocationThreshold); st.ip.IsValid() && surplus > 0 {
		parts.Colocation = p.IPColocationWeight * surplus * surplus
	}
	// "The value of the parameter is the square of the counter and is mixed with a
	// negative weight."
	if excess := st.penalty - p.BehaviourThreshold; excess > 0 {
		parts.Behaviour = p.BehaviourWeight * excess * excess
	}
	total += parts.Application + parts.Colocation + parts.Behaviour
	if x != nil {
		x.TopicCap, x.Application, x.Colocation, x.Behaviour = parts.TopicCap, parts.Application, parts.Colocation, parts.Behaviour
	}
	return total
}

// score is what a peer's counters in one topic are worth.
func (p *TopicScoreParams) score(t *topicStats) (s pubsub.TopicScore) {
	if t.inMesh {
		s.InMesh = t.mesh
		if p.TimeInMeshQuantum > 0 {
			s.TimeInMesh = p.TopicWeight * p.TimeInMeshWeight * min(float64(t.mesh/p.TimeInMeshQuantum), p.TimeInMeshCap)
		}
	}
	s.First = p.TopicWeight * p.FirstDeliveriesWeight * t.first
	if t.active && t.deliver < p.MeshDeliveriesThreshold {
		d := p.MeshDeliveriesThreshold - t.deliver
		s.Deliveries = p.TopicWeight * p.MeshDeliveriesWeight * d * d
	}
	if t.failed > 0 { // not to say -0
		s.Failures = p.TopicWeight * p.MeshFailureWeight * t.failed
	}
	if t.invalid > 0 {
		s.Invalid = p.TopicWeight * p.InvalidWeight * t.invalid * t.invalid
	}
	s.Total = s.TimeInMesh + s.First + s.Deliveries + s.Failures + s.Invalid
	return s
}
