package gossipsub

import (
	"errors"
	"fmt"
	"math"
	"net/netip"
	"time"

	"github.com/plexus-p2p/plexus/peer"
	"github.com/plexus-p2p/plexus/pubsub"
)

// Thresholds are the scores at which a router treats a peer in another way.
//
// https://github.com/libp2p/specs/blob/master/pubsub/gossipsub/gossipsub-v1.1.md#score-thresholds
type Thresholds struct {
	Gossip             float64 // below: no gossip to it, none of its
	Publish            float64 // below: none of this host's messages to it
	Graylist           float64 // below: nothing of its
	AcceptPX           float64 // from it on: peers that it names are connected to
	OpportunisticGraft float64 // a median of a mesh below: better peers are added
}

// ScoreParams say how peers are judged. A weight of 0 turns a part off.
//
// https://github.com/libp2p/specs/blob/master/pubsub/gossipsub/gossipsub-v1.1.md#overview-of-new-parameters
type ScoreParams struct {
	Thresholds Thresholds

	Topics        map[string]*TopicScoreParams // topics that count
	TopicScoreCap float64                      // of the topics' sum; 0: none

	// AppSpecific is P5. It is called with the router's calls, at most once for each
	// change of a score and each DecayInterval, and must be quick.
	AppSpecific       func(peer.ID) float64
	AppSpecificWeight float64

	IPColocationWeight    float64 // P6
	IPColocationThreshold int     // peers on an IPv4 address or IPv6 /64 that are fine
	IPColocationAllow     []netip.Prefix

	// P7 counts what a peer offers by IHAVE and does not send; GRAFTs before its back-off
	// ends; and, once a heartbeat for each, an IWANT for more than it was offered or for
	// one message again and again, and an IDONTWANT for far more messages than there are.
	BehaviourWeight    float64
	BehaviourThreshold float64 // penalties that are forgiven
	BehaviourDecay     float64

	DecayInterval time.Duration // zero: one second
	DecayToZero   float64       // zero: 0.01
	RetainScore   time.Duration // after a peer left; zero: not at all
	SeenTTL       time.Duration // how long it is known who delivered a message; zero: two minutes
}

// TopicScoreParams say how a peer's behaviour in one topic is judged.
type TopicScoreParams struct {
	TopicWeight float64

	TimeInMeshWeight  float64 // P1
	TimeInMeshQuantum time.Duration
	TimeInMeshCap     float64

	FirstDeliveriesWeight float64 // P2
	FirstDeliveriesDecay  float64
	FirstDeliveriesCap    float64

	MeshDeliveriesWeight     float64 // P3
	MeshDeliveriesDecay      float64
	MeshDeliveriesThreshold  float64
	MeshDeliveriesCap        float64
	MeshDeliveriesActivation time.Duration
	MeshDeliveriesWindow     time.Duration

	MeshFailureWeight float64 // P3b
	MeshFailureDecay  float64

	InvalidWeight float64 // P4
	InvalidDecay  float64
}

// Decay returns the factor by which a counter of 1 decays to zero, 0.01, in the given
// time, with a DecayInterval of interval.
func Decay(in, interval time.Duration) float64 {
	return math.Pow(0.01, float64(interval)/float64(in))
}

func (p *ScoreParams) defaults() {
	if p.DecayInterval == 0 {
		p.DecayInterval = time.Second
	}
	if p.DecayToZero == 0 {
		p.DecayToZero = 0.01
	}
	if p.SeenTTL == 0 {
		p.SeenTTL = pubsub.DefaultSeenTTL
	}
}

func finite(fs ...float64) bool {
	for _, f := range fs {
		if math.IsNaN(f) || math.IsInf(f, 0) {
			return false
		}
	}
	return true
}

func factor(f float64) bool { return f > 0 && f < 1 }

// check reports what does not make sense, after the constraints of the spec.
func (p *ScoreParams) check() error {
	t := p.Thresholds
	for _, c := range []struct {
		wrong bool
		what  string
	}{
		{!finite(t.Gossip, t.Publish, t.Graylist, t.AcceptPX, t.OpportunisticGraft, p.TopicScoreCap, p.AppSpecificWeight,
			p.IPColocationWeight, p.BehaviourWeight, p.BehaviourThreshold, p.BehaviourDecay, p.DecayToZero), "a score parameter is not a finite number"},
		{t.Gossip >= 0, "Thresholds.Gossip must be < 0"},
		{t.Publish > t.Gossip, "Thresholds.Publish must be <= Thresholds.Gossip"},
		{t.Graylist >= t.Publish, "Thresholds.Graylist must be < Thresholds.Publish"},
		{t.AcceptPX < 0, "Thresholds.AcceptPX must be >= 0"},
		{t.OpportunisticGraft < 0, "Thresholds.OpportunisticGraft must be >= 0"},
		{p.TopicScoreCap < 0, "TopicScoreCap must be >= 0"},
		{p.AppSpecificWeight < 0, "AppSpecificWeight must be >= 0"},
		{p.IPColocationWeight > 0, "IPColocationWeight must be <= 0"},
		{p.IPColocationWeight != 0 && p.IPColocationThreshold < 1, "IPColocationThreshold must be at least 1"},
		{p.BehaviourWeight > 0, "BehaviourWeight must be <= 0"},
		{p.BehaviourWeight != 0 && !factor(p.BehaviourDecay), "BehaviourDecay must be between 0 and 1"},
		{p.BehaviourThreshold < 0, "BehaviourThreshold must be >= 0"},
		{p.DecayInterval < time.Second, "DecayInterval must be at least one second"},
		{!factor(p.DecayToZero), "DecayToZero must be between 0 and 1"},
		{p.RetainScore < 0 || p.SeenTTL < 0, "RetainScore and SeenTTL must not be negative"},
	} {
		if c.wrong {
			return errors.New(c.what)
		}
	}
	for name, tp := range p.Topics {
		if tp == nil {
			return fmt.Errorf("topic %q: no parameters", name)
		}
		if err := tp.check(); err != nil {
			return fmt.Errorf("topic %q: %w", name, err)
		}
	}
	return nil
}

func (p *TopicScoreParams) check() error {
	for _, c := range []struct {
		wrong bool
		what  string
	}{
		{!finite(p.TopicWeight, p.TimeInMeshWeight, p.TimeInMeshCap, p.FirstDeliveriesWeight, p.FirstDeliveriesDecay, p.FirstDeliveriesCap,
			p.MeshDeliveriesWeight, p.MeshDeliveriesDecay, p.MeshDeliveriesThreshold, p.MeshDeliveriesCap, p.MeshFailureWeight, p.MeshFailureDecay,
			p.InvalidWeight, p.InvalidDecay), "a score parameter is not a finite number"},
		{p.TopicWeight < 0, "TopicWeight must be >= 0"},
		{p.TimeInMeshWeight < 0, "TimeInMeshWeight must be >= 0"},
		{p.TimeInMeshWeight != 0 && (p.TimeInMeshQuantum <= 0 || p.TimeInMeshCap <= 0), "TimeInMeshQuantum and TimeInMeshCap must be positive"},
		{p.FirstDeliveriesWeight < 0, "FirstDeliveriesWeight must be >= 0"},
		{p.FirstDeliveriesWeight != 0 && (!factor(p.FirstDeliveriesDecay) || p.FirstDeliveriesCap <= 0), "FirstDeliveriesDecay must be between 0 and 1, and FirstDeliveriesCap positive"},
		{p.MeshDeliveriesWeight > 0, "MeshDeliveriesWeight must be <= 0"},
		{p.MeshDeliveriesWeight != 0 && !factor(p.MeshDeliveriesDecay), "MeshDeliveriesDecay must be between 0 and 1"},
		{p.MeshDeliveriesWeight != 0 && (p.MeshDeliveriesThreshold <= 0 || p.MeshDeliveriesCap < p.MeshDeliveriesThreshold), "MeshDeliveriesThreshold must be positive, and MeshDeliveriesCap at least as much"},
		{p.MeshDeliveriesWeight != 0 && p.MeshDeliveriesActivation < time.Second, "MeshDeliveriesActivation must be at least one second"},
		{p.MeshDeliveriesWindow < 0, "MeshDeliveriesWindow must not be negative"},
		{p.MeshFailureWeight > 0, "MeshFailureWeight must be <= 0"},
		{p.MeshFailureWeight != 0 && !factor(p.MeshFailureDecay), "MeshFailureDecay must be between 0 and 1"},
		{p.InvalidWeight > 0, "InvalidWeight must be <= 0"},
		{p.InvalidWeight != 0 && !factor(p.InvalidDecay), "InvalidDecay must be between 0 and 1"},
	} {
		if c.wrong {
			return errors.New(c.what)
		}
	}
	return nil
}
