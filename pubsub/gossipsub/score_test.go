package gossipsub

import (
	"fmt"
	"math"
	"net/netip"
	"testing"
	"time"

	"github.com/plexus-p2p/plexus/peer"
	"github.com/plexus-p2p/plexus/pubsub"
)

func topicParams() *TopicScoreParams {
	return &TopicScoreParams{
		TopicWeight:      0.5,
		TimeInMeshWeight: 0.01, TimeInMeshQuantum: time.Second, TimeInMeshCap: 10,
		FirstDeliveriesWeight: 1, FirstDeliveriesDecay: 0.9, FirstDeliveriesCap: 20,
		MeshDeliveriesWeight: -1, MeshDeliveriesDecay: 0.9, MeshDeliveriesThreshold: 3, MeshDeliveriesCap: 10, MeshDeliveriesActivation: 5 * time.Second, MeshDeliveriesWindow: 10 * time.Millisecond,
		MeshFailureWeight: -2, MeshFailureDecay: 0.9,
		InvalidWeight: -3, InvalidDecay: 0.9,
	}
}

func scoreParams() ScoreParams {
	return ScoreParams{
		Thresholds:            Thresholds{Gossip: -10, Publish: -20, Graylist: -30},
		Topics:                map[string]*TopicScoreParams{"t": topicParams(), "u": topicParams()},
		TopicScoreCap:         15,
		AppSpecific:           func(id peer.ID) float64 { return float64(len(id)) },
		AppSpecificWeight:     0.5,
		IPColocationWeight:    -1,
		IPColocationThreshold: 2,
		BehaviourWeight:       -1,
		BehaviourThreshold:    1,
		BehaviourDecay:        0.9,
		RetainScore:           time.Minute,
	}
}

// FuzzScore lets things happen to peers, as the bytes say, and checks after each that the
// score is what the formula makes of its parts, and that the parts are within what they
// may be.
func FuzzScore(f *testing.F) {
	f.Add([]byte("\x00\x01\x02\x10\x11\x12\x20\x30\x40\x50\x60\x70\x80\x90\xa0\xb0\xc0"))
	f.Add([]byte("aZ09 the quick brown fox jumps over the lazy dog and back again"))
	f.Fuzz(func(t *testing.T, ops []byte) {
		s, err := newScore(scoreParams())
		if err != nil {
			t.Fatal(err)
		}
		now := time.Unix(1e9, 0)
		s.start(now)
		peers := make(map[peer.ID]*pubsub.Peer)
		var messages []*pubsub.Message
		for i, op := range ops[:min(len(ops), 2000)] {
			id := peer.ID("pppppppp"[:1+op&7])
			topic := []string{"t", "u", "other"}[int(op>>3)%3]
			if peers[id] == nil {
				p := &pubsub.Peer{ID: id, IP: netip.AddrFrom4([4]byte{10, 0, 0, op & 3})}
				peers[id] = p
				s.add(p)
			}
			before := s.explain(id)
			switch op >> 4 {
			case 0, 1:
				s.grafted(now, id, topic)
			case 2, 3:
				s.pruned(now, id, topic)
			case 4, 5, 6, 7:
				m := pubsub.NewMessage(topic, nil)
				m.ID = pubsub.MessageID(fmt.Sprint(i))
				m.ReceivedFrom = id
				messages = append(messages, m)
				s.received(now, m)
				if op&1 == 0 {
					s.decided(now, m, pubsub.Outcome(op>>1)%5)
				}
			case 8, 9:
				if len(messages) > 0 {
					s.duplicate(now, id, messages[int(op)%len(messages)].ID)
				}
				if after := s.explain(id); first(after) > first(before) {
					t.Fatal("a copy is no first delivery")
				}
			case 10:
				s.punish(id, int(op&3))
				if after := s.explain(id); after.Total > before.Total {
					t.Fatal("a punishment made a score better")
				}
			case 11:
				s.remove(now, id)
				delete(peers, id)
			default:
				now = now.Add(time.Duration(op) * 50 * time.Millisecond)
				s.refresh(now)
			}
			check(t, s, peers)
		}
		// "The counters decay periodically so that their values are not continuously
		// increasing and ensure that a large positive or negative score isn't sticky for the
		// lifetime of the peer." What remains is the time in meshes and what they lack, the
		// application's, and the address.
		for range 200 {
			now = now.Add(time.Second)
			s.refresh(now)
		}
		for id, st := range s.peers {
			if peers[id] == nil {
				t.Errorf("%q left long ago", id)
			}
			x := s.explain(id)
			if st.penalty != 0 || x.Behaviour != 0 {
				t.Errorf("%q is still punished", id)
			}
			for _, ts := range x.Topics {
				if ts.First != 0 || ts.Failures != 0 || ts.Invalid != 0 {
					t.Errorf("%q: %+v did not decay", id, ts)
				}
			}
		}
	})
}

func first(s pubsub.Score) (sum float64) {
	for _, t := range s.Topics {
		sum += t.First
	}
	return sum
}

func check(t *testing.T, s *score, peers map[peer.ID]*pubsub.Peer) {
	t.Helper()
	ips := make(map[netip.Prefix]int)
	for id, st := range s.peers {
		if st.ip.IsValid() {
			ips[st.ip]++
		}
		x := s.explain(id)
		sum := x.TopicCap + x.Application + x.Colocation + x.Behaviour
		topics := 0.0
		for _, ts := range x.Topics {
			p := s.params.Topics[ts.Topic]
			if p == nil {
				t.Fatalf("topic %q is not configured, and counts", ts.Topic)
			}
			if parts := ts.TimeInMesh + ts.First + ts.Deliveries + ts.Failures + ts.Invalid; math.Abs(parts-ts.Total) > 1e-9 {
				t.Fatalf("%+v: the parts are %v", ts, parts)
			}
			w := p.TopicWeight
			if ts.TimeInMesh < 0 || ts.TimeInMesh > w*p.TimeInMeshWeight*p.TimeInMeshCap || ts.InMesh == 0 && ts.TimeInMesh > 0 {
				t.Fatalf("P1: %+v", ts)
			}
			if ts.First < 0 || ts.First > w*p.FirstDeliveriesWeight*p.FirstDeliveriesCap {
				t.Fatalf("P2: %+v", ts)
			}
			d := p.MeshDeliveriesThreshold
			if ts.Deliveries > 0 || ts.Deliveries < w*p.MeshDeliveriesWeight*d*d || ts.Deliveries < 0 && ts.InMesh <= p.MeshDeliveriesActivation {
				t.Fatalf("P3: %+v", ts)
			}
			if ts.Failures > 0 || ts.Invalid > 0 || ts.Failures == 0 && math.Signbit(ts.Failures) || ts.Invalid == 0 && math.Signbit(ts.Invalid) {
				t.Fatalf("P3b, P4: %+v", ts)
			}
			topics += ts.Total
		}
		if c := s.params.TopicScoreCap; topics+x.TopicCap > c+1e-9 || x.TopicCap > 0 || x.TopicCap < 0 && topics <= c {
			t.Fatalf("the cap of %v takes %v of %v", c, x.TopicCap, topics)
		}
		if x.Colocation > 0 || x.Behaviour > 0 || x.Application != s.params.AppSpecificWeight*float64(len(id)) {
			t.Fatalf("%+v", x)
		}
		if surplus := s.ips[st.ip] - s.params.IPColocationThreshold; st.ip.IsValid() && surplus > 0 && x.Colocation != -float64(surplus*surplus) {
			t.Fatalf("%d peers on %v, and P6 is %v", s.ips[st.ip], st.ip, x.Colocation)
		}
		if math.Abs(sum+topics-x.Total) > 1e-9 || s.of(st) != x.Total || math.IsNaN(x.Total) {
			t.Fatalf("the score is %v, its parts %v, what is remembered %v", x.Total, sum+topics, s.of(st))
		}
	}
	for ip, n := range s.ips {
		if ips[ip] != n {
			t.Fatalf("%d peers are on %v, %d are counted", ips[ip], ip, n)
		}
	}
	for id := range peers {
		if s.peers[id] == nil {
			t.Fatalf("%q is not known", id)
		}
	}
}

// Parameters that make no sense are refused, each by its name.
func TestScoreParams(t *testing.T) {
	for name, change := range map[string]func(p *ScoreParams, t *TopicScoreParams){
		"Gossip":             func(p *ScoreParams, _ *TopicScoreParams) { p.Thresholds.Gossip = 0 },
		"Publish":            func(p *ScoreParams, _ *TopicScoreParams) { p.Thresholds.Publish = -5 },
		"Graylist":           func(p *ScoreParams, _ *TopicScoreParams) { p.Thresholds.Graylist = -20 },
		"AcceptPX":           func(p *ScoreParams, _ *TopicScoreParams) { p.Thresholds.AcceptPX = -1 },
		"OpportunisticGraft": func(p *ScoreParams, _ *TopicScoreParams) { p.Thresholds.OpportunisticGraft = -1 },
		"TopicScoreCap":      func(p *ScoreParams, _ *TopicScoreParams) { p.TopicScoreCap = -1 },
		"AppSpecificWeight":  func(p *ScoreParams, _ *TopicScoreParams) { p.AppSpecificWeight = -1 },
		"IPColocationWeight": func(p *ScoreParams, _ *TopicScoreParams) { p.IPColocationWeight = 1 },
		"IPColocationThreshold": func(p *ScoreParams, _ *TopicScoreParams) {
			p.IPColocationThreshold = 0
		},
		"BehaviourWeight":    func(p *ScoreParams, _ *TopicScoreParams) { p.BehaviourWeight = 1 },
		"BehaviourDecay":     func(p *ScoreParams, _ *TopicScoreParams) { p.BehaviourDecay = 1 },
		"BehaviourThreshold": func(p *ScoreParams, _ *TopicScoreParams) { p.BehaviourThreshold = -1 },
		"DecayInterval":      func(p *ScoreParams, _ *TopicScoreParams) { p.DecayInterval = time.Millisecond },
		"DecayToZero":        func(p *ScoreParams, _ *TopicScoreParams) { p.DecayToZero = 1 },
		"RetainScore":        func(p *ScoreParams, _ *TopicScoreParams) { p.RetainScore = -1 },
		"finite":             func(p *ScoreParams, _ *TopicScoreParams) { p.BehaviourWeight = math.Inf(-1) },
		"no parameters":      func(p *ScoreParams, _ *TopicScoreParams) { p.Topics["v"] = nil },
		"TopicWeight":        func(_ *ScoreParams, t *TopicScoreParams) { t.TopicWeight = -1 },
		"TimeInMeshWeight":   func(_ *ScoreParams, t *TopicScoreParams) { t.TimeInMeshWeight = -1 },
		"TimeInMeshQuantum":  func(_ *ScoreParams, t *TopicScoreParams) { t.TimeInMeshQuantum = 0 },
		"FirstDeliveriesWeight": func(_ *ScoreParams, t *TopicScoreParams) {
			t.FirstDeliveriesWeight = -1
		},
		"FirstDeliveriesDecay":     func(_ *ScoreParams, t *TopicScoreParams) { t.FirstDeliveriesDecay = 0 },
		"MeshDeliveriesWeight":     func(_ *ScoreParams, t *TopicScoreParams) { t.MeshDeliveriesWeight = 1 },
		"MeshDeliveriesDecay":      func(_ *ScoreParams, t *TopicScoreParams) { t.MeshDeliveriesDecay = 2 },
		"MeshDeliveriesThreshold":  func(_ *ScoreParams, t *TopicScoreParams) { t.MeshDeliveriesCap = 2 },
		"MeshDeliveriesActivation": func(_ *ScoreParams, t *TopicScoreParams) { t.MeshDeliveriesActivation = 0 },
		"MeshDeliveriesWindow":     func(_ *ScoreParams, t *TopicScoreParams) { t.MeshDeliveriesWindow = -1 },
		"MeshFailureWeight":        func(_ *ScoreParams, t *TopicScoreParams) { t.MeshFailureWeight = 1 },
		"MeshFailureDecay":         func(_ *ScoreParams, t *TopicScoreParams) { t.MeshFailureDecay = 0 },
		"InvalidWeight":            func(_ *ScoreParams, t *TopicScoreParams) { t.InvalidWeight = 1 },
		"InvalidDecay":             func(_ *ScoreParams, t *TopicScoreParams) { t.InvalidDecay = math.NaN() },
	} {
		p := scoreParams()
		change(&p, p.Topics["t"])
		cfg := Default()
		cfg.Score = &p
		if _, err := New(cfg); err == nil {
			t.Errorf("%s: no error", name)
		} else if _, ok := err.(*Error); !ok {
			t.Errorf("%s: %T", name, err)
		}
	}
	for name, cfg := range map[string]Config{"Default": Default(), "Small": Small(), "LAN": LAN(), "Ethereum": Ethereum(), "Filecoin": Filecoin("testnetnet"), "zero": {}} {
		if _, err := New(cfg); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}
