package gossipsub

import (
	"errors"
	"fmt"
	"time"

	"github.com/plexus-p2p/plexus/peer"
)

// Params are the numbers of the specs, under their names.
//
// https://github.com/libp2p/specs/blob/master/pubsub/gossipsub/gossipsub-v1.0.md#parameters,
// https://github.com/libp2p/specs/blob/master/pubsub/gossipsub/gossipsub-v1.1.md#overview-of-new-parameters
type Params struct {
	D      int // peers in a mesh
	Dlo    int // fewer, and some are added
	Dhi    int // more, and all but D are removed
	Dscore int // of those kept then, so many are the ones with the best scores
	Dout   int // of those in a mesh, so many we dialed
	Dlazy  int // peers that hear gossip, at least

	GossipFactor         float64 // share of peers that hear gossip, where that is more than Dlazy
	GossipRetransmission int     // how often a peer gets one message by IWANT

	HistoryLength int // heartbeats for which messages are kept for IWANT
	HistoryGossip int // heartbeats for which they are offered by IHAVE
	HistoryBytes  int // bytes of messages kept, whatever their age

	Heartbeat      time.Duration
	HeartbeatDelay time.Duration // before the first one

	FanoutTTL time.Duration

	PrunePeers         int // peers named in a PRUNE, and connected to after one
	PruneBackoff       time.Duration
	UnsubscribeBackoff time.Duration
	GraftFlood         time.Duration // a GRAFT so soon after a PRUNE is punished twice

	DirectConnectTicks      int // heartbeats between attempts to connect to direct peers
	OpportunisticGraftTicks int
	OpportunisticGraftPeers int

	MaxIHaveLength   int           // IDs in an IHAVE, and asked of a peer in a heartbeat
	MaxIHaveMessages int           // RPCs with IHAVE of a peer in a heartbeat
	IWantFollowup    time.Duration // how long a peer has to send what it offered

	MaxIWantUnoffered int // IDs that a peer may ask for in a heartbeat without having been offered them

	MaxIDontWantLength   int // IDs in an RPC's IDONTWANT
	MaxIDontWantMessages int // RPCs with IDONTWANT of a peer in a heartbeat; IDs, beyond ten for each message that came
	IDontWantThreshold   int // bytes of a message that IDONTWANT is sent for
	IDontWantTTL         int // heartbeats

	// A message of others, of EagerThreshold bytes or more, goes to so many peers of the
	// mesh at once, and to one more after each EagerStep. 0 peers: to all at once.
	EagerPeers     int
	EagerStep      time.Duration
	EagerThreshold int

	// FloodPublish sends own messages of up to FloodPublishMax bytes (0: any) to all
	// peers of their topic, larger ones to the mesh.
	FloodPublish    bool
	FloodPublishMax int
}

// DefaultParams are those of the specs and of deployed nodes.
func DefaultParams() Params {
	return Params{
		D: 6, Dlo: 5, Dhi: 12, Dscore: 4, Dout: 2, Dlazy: 6,
		GossipFactor: 0.25, GossipRetransmission: 3,
		HistoryLength: 5, HistoryGossip: 3, HistoryBytes: 64 << 20,
		Heartbeat: time.Second, HeartbeatDelay: 100 * time.Millisecond,
		FanoutTTL:  time.Minute,
		PrunePeers: 16, PruneBackoff: time.Minute, UnsubscribeBackoff: 10 * time.Second, GraftFlood: 10 * time.Second,
		DirectConnectTicks: 300, OpportunisticGraftTicks: 60, OpportunisticGraftPeers: 2,
		MaxIHaveLength: 5000, MaxIHaveMessages: 10, IWantFollowup: 3 * time.Second, MaxIWantUnoffered: 50,
		MaxIDontWantLength: 10, MaxIDontWantMessages: 1000, IDontWantThreshold: 1 << 10, IDontWantTTL: 3,
		EagerPeers: 2, EagerStep: 150 * time.Millisecond, EagerThreshold: 16 << 10,
		FloodPublish: true, FloodPublishMax: 16 << 10,
	}
}

func (p *Params) check() error {
	for _, c := range []struct {
		wrong bool
		what  string
	}{
		{p.D < 0 || p.Dlo < 0 || p.Dscore < 0 || p.Dout < 0 || p.Dlazy < 0, "D, Dlo, Dscore, Dout and Dlazy must not be negative"},
		{p.Dlo > p.D || p.D > p.Dhi, "Dlo <= D <= Dhi must hold"},
		{p.Dscore > p.Dhi, "Dscore must be at most Dhi"},
		// "D_out, which must be set below D_lo and at most D/2"
		{p.Dout > 0 && (p.Dout >= p.Dlo || p.Dout > p.D/2), "Dout must be less than Dlo and at most D/2"},
		{!(p.GossipFactor >= 0 && p.GossipFactor <= 1), "GossipFactor must be between 0 and 1"},
		{p.GossipRetransmission < 0, "GossipRetransmission must not be negative"},
		{p.HistoryLength <= 0 || p.HistoryGossip < 0 || p.HistoryGossip > p.HistoryLength, "0 <= HistoryGossip <= HistoryLength, and HistoryLength > 0, must hold"},
		{p.HistoryBytes <= 0, "HistoryBytes must be positive"},
		{p.Heartbeat <= 0 || p.HeartbeatDelay < 0, "Heartbeat must be positive"},
		{p.FanoutTTL < 0 || p.PruneBackoff < 0 || p.UnsubscribeBackoff < 0 || p.GraftFlood < 0 || p.IWantFollowup <= 0, "a time is negative, or IWantFollowup not positive"},
		{p.PrunePeers < 0 || p.OpportunisticGraftPeers < 0, "PrunePeers and OpportunisticGraftPeers must not be negative"},
		{p.DirectConnectTicks <= 0 || p.OpportunisticGraftTicks <= 0, "DirectConnectTicks and OpportunisticGraftTicks must be positive"},
		{p.MaxIHaveLength <= 0 || p.MaxIHaveMessages <= 0, "MaxIHaveLength and MaxIHaveMessages must be positive"},
		{p.MaxIWantUnoffered < 0, "MaxIWantUnoffered must not be negative"},
		{p.MaxIDontWantLength < 0 || p.MaxIDontWantMessages < 0 || p.IDontWantThreshold < 0 || p.IDontWantTTL < 0, "what concerns IDONTWANT must not be negative"},
		{p.EagerPeers < 0 || p.EagerThreshold < 0 || p.EagerPeers > 0 && p.EagerStep <= 0, "EagerPeers and EagerThreshold must not be negative, and EagerStep be positive"},
		{p.FloodPublishMax < 0, "FloodPublishMax must not be negative"},
	} {
		if c.wrong {
			return errors.New(c.what)
		}
	}
	return nil
}

// Config says how a Router behaves. The zero Config is [Default]'s.
type Config struct {
	// Params are the numbers. Where all are zero, DefaultParams.
	Params Params

	// Score judges peers. Nil: nobody is judged.
	Score *ScoreParams

	// Gater protects validators from floods. Nil: they are not protected.
	Gater *GaterParams

	// PX names other peers to those that are pruned: for bootstrap nodes and other
	// well-connected ones. Peers that others name are connected to as far as
	// Thresholds.AcceptPX lets them.
	PX bool

	// Direct are peers that messages are sent to and taken from whatever happens. It
	// has to be configured at both ends.
	Direct []peer.AddrInfo

	// Partial turns on the extension for partial messages. Nil: it is off.
	Partial *Partial

	// Prefix is what the protocol IDs begin with. "": "meshsub", as everywhere.
	Prefix string
}

// An Error says what is wrong with a Config.
type Error struct{ Err error }

func (e *Error) Error() string { return fmt.Sprintf("gossipsub: %v", e.Err) }
func (e *Error) Unwrap() error { return e.Err }
