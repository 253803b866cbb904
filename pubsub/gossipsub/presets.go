package gossipsub

import (
	"time"
)

// Default is what the specs recommend, without scores.
func Default() Config { return Config{Params: DefaultParams()} }

// Small is for networks of up to some thirty hosts, which need no more neighbours and
// should not wait for gossip: every host's messages go to all of its neighbours.
func Small() Config {
	p := DefaultParams()
	p.D, p.Dlo, p.Dhi, p.Dscore, p.Dout, p.Dlazy = 4, 3, 8, 3, 1, 4
	p.FloodPublishMax, p.EagerPeers = 0, 0
	return Config{Params: p}
}

// LAN is for hosts that trust each other on a network without delay: meshes form, and
// gossip repairs, in a fraction of a second.
func LAN() Config {
	p := DefaultParams()
	p.D, p.Dlo, p.Dhi, p.Dscore, p.Dout, p.Dlazy = 4, 3, 8, 3, 1, 4
	p.Heartbeat, p.HeartbeatDelay = 200*time.Millisecond, 20*time.Millisecond
	p.HistoryLength, p.HistoryGossip = 25, 15 // the same 5 s and 3 s
	p.PruneBackoff, p.UnsubscribeBackoff, p.GraftFlood = 10*time.Second, 2*time.Second, time.Second
	p.IWantFollowup = time.Second
	p.IDontWantTTL = 15
	p.DirectConnectTicks, p.OpportunisticGraftTicks = 50, 300
	p.FloodPublishMax, p.EagerPeers = 0, 0
	return Config{Params: p}
}

// Ethereum is what the consensus layer's nodes use. Topics are judged as
// ScoreParams.Topics says, which depends on the number of validators: they are the
// caller's to add. So are pubsub.Config's StrictNoSign, MessageID, a SeenTTL of 768 s
// and a MaxMessage of 10 MiB and some.
//
// https://github.com/ethereum/consensus-specs/blob/master/specs/phase0/p2p-interface.md#the-gossip-domain-gossipsub
func Ethereum() Config {
	const slot, epoch = 12 * time.Second, 32 * 12 * time.Second
	p := DefaultParams()
	p.D, p.Dlo, p.Dhi, p.Dlazy = 8, 6, 12, 6
	p.Heartbeat = 700 * time.Millisecond
	p.HistoryLength, p.HistoryGossip = 6, 3
	p.FloodPublish = false
	return Config{
		Params: p,
		Score: &ScoreParams{
			Thresholds:            Thresholds{Gossip: -4000, Publish: -8000, Graylist: -16000, AcceptPX: 100, OpportunisticGraft: 5},
			TopicScoreCap:         32.72,
			AppSpecificWeight:     1,
			IPColocationWeight:    -35.11,
			IPColocationThreshold: 10,
			BehaviourWeight:       -15.92,
			BehaviourThreshold:    6,
			BehaviourDecay:        Decay(10*epoch, slot),
			DecayInterval:         slot,
			RetainScore:           100 * epoch,
		},
	}
}

// Filecoin is what Filecoin's nodes use on a network, such as "testnetnet" for the
// main one. Bootstrap nodes are known by an AppSpecific score above AcceptPX, which
// is the caller's to add.
func Filecoin(network string) Config {
	p := DefaultParams()
	p.D, p.Dlo, p.Dhi, p.Dscore, p.Dout, p.Dlazy = 8, 6, 12, 6, 3, 12
	p.GossipFactor = 0.1
	p.HistoryLength = 10
	p.IWantFollowup = 5 * time.Second
	topic := func(first float64, decay time.Duration) *TopicScoreParams {
		return &TopicScoreParams{
			TopicWeight:      0.1,
			TimeInMeshWeight: 1.0 / 3600, TimeInMeshQuantum: time.Second, TimeInMeshCap: 1,
			FirstDeliveriesWeight: first, FirstDeliveriesDecay: Decay(decay, time.Second), FirstDeliveriesCap: 100,
			InvalidWeight: -1000, InvalidDecay: Decay(time.Hour, time.Second),
		}
	}
	return Config{
		Params: p,
		Score: &ScoreParams{
			Thresholds: Thresholds{Gossip: -500, Publish: -1000, Graylist: -2500, AcceptPX: 1000, OpportunisticGraft: 3.5},
			Topics: map[string]*TopicScoreParams{
				"/fil/blocks/" + network: topic(5, time.Hour),
				"/fil/msgs/" + network:   topic(0.5, 10*time.Minute),
			},
			AppSpecificWeight:     1,
			IPColocationWeight:    -100,
			IPColocationThreshold: 5,
			BehaviourWeight:       -10,
			BehaviourThreshold:    6,
			BehaviourDecay:        Decay(time.Hour, time.Second),
			RetainScore:           6 * time.Hour,
		},
	}
}
