package pubsub

import (
	"sync/atomic"

	"github.com/plexus-p2p/plexus/peer"
)

// An Event is something that happened: one of the types below. [Config.Trace] hears
// of them.
type Event interface{ event() }

type (
	// PeerAdded and PeerRemoved: a neighbour came, or went.
	PeerAdded struct {
		Peer     peer.ID
		Protocol string
	}
	PeerRemoved struct{ Peer peer.ID }

	// Subscribed and Unsubscribed: a neighbour's subscription began, or ended.
	Subscribed struct {
		Peer  peer.ID
		Topic string
	}
	Unsubscribed struct {
		Peer  peer.ID
		Topic string
	}

	// Joined and Left: this host began to receive a topic, or ended.
	Joined struct{ Topic string }
	Left   struct{ Topic string }

	// Grafted and Pruned: a neighbour came into the mesh of a topic, or left it.
	Grafted struct {
		Peer  peer.ID
		Topic string
	}
	Pruned struct {
		Peer  peer.ID
		Topic string
	}

	// Published: this host published a message.
	Published struct {
		ID    MessageID
		Topic string
	}

	// Received: a neighbour sent a message for the first time, and it is not forged.
	Received struct {
		ID    MessageID
		Topic string
		Peer  peer.ID
	}

	// Duplicate: a neighbour sent a message that is known.
	Duplicate struct {
		ID   MessageID
		Peer peer.ID
	}

	// Decided: a message's validation ended.
	Decided struct {
		ID      MessageID
		Topic   string
		Peer    peer.ID // who sent it first
		Outcome Outcome
	}

	// ControlSent and ControlReceived: control messages for a neighbour, and from one that
	// is listened to. They are valid during the call.
	ControlSent struct {
		Peer    peer.ID
		Control *Control
	}
	ControlReceived struct {
		Peer    peer.ID
		Control *Control
	}

	// Dropped: something was not sent, or not looked at. Peer is "" where none is
	// concerned, ID where it is no message.
	Dropped struct {
		Reason Reason
		ID     MessageID
		Peer   peer.ID
	}
)

func (PeerAdded) event()       {}
func (PeerRemoved) event()     {}
func (Subscribed) event()      {}
func (Unsubscribed) event()    {}
func (Joined) event()          {}
func (Left) event()            {}
func (Grafted) event()         {}
func (Pruned) event()          {}
func (Published) event()       {}
func (Received) event()        {}
func (Duplicate) event()       {}
func (Decided) event()         {}
func (ControlSent) event()     {}
func (ControlReceived) event() {}
func (Dropped) event()         {}

// A Reason is why something was dropped. The counters of [Stats] have one for each.
type Reason uint8

const (
	// ForwardQueueFull: a message of others was not sent on to a neighbour whose
	// queue is full. gossipsub offers it to that neighbour again.
	ForwardQueueFull Reason = iota
	// OwnQueueFull: a message of this host's was not sent to a neighbour that made no
	// room in time. Publish has told.
	OwnQueueFull
	// PeerGone: it waited for a neighbour that left.
	PeerGone
	// GossipQueueFull: IHAVE, IWANT or IDONTWANT for a neighbour whose queue is full.
	GossipQueueFull
	// ControlQueueFull: a neighbour that does not even take control messages was cut off.
	ControlQueueFull
	// SubscriberFull: a subscription's queue is full. Its reader has been told.
	SubscriberFull
	// ValidatorsBusy: a topic's validators have no room.
	ValidatorsBusy
	// InvalidMessage: validators rejected it.
	InvalidMessage
	// IgnoredMessage: validators ignored it.
	IgnoredMessage
	// InvalidSignature: it does not meet the signing policy.
	InvalidSignature
	// NotJoined: a message of a topic that this host does not receive.
	NotJoined
	// OwnMessage: a neighbour sent this host's own message, long after it was published.
	OwnMessage
	// NotAdmitted: messages of a neighbour that the router does not listen to.
	NotAdmitted
	// SubscriptionNotAllowed and TooManySubscriptions: a neighbour's subscription was
	// not noted, for Config.AllowTopic or Config.TopicsPerPeer.
	SubscriptionNotAllowed
	TooManySubscriptions
	// SeenEarly: an ID was forgotten before its time, for Config.SeenEntries or SeenBytes.
	SeenEarly
	// PXFull: a peer named by others was not connected to, for too many were.
	PXFull

	reasons int = iota
)

var reasonNames = [reasons]string{
	"forward queue full", "own queue full", "peer gone", "gossip queue full", "control queue full",
	"subscriber full", "validators busy", "invalid message", "ignored message", "invalid signature",
	"topic not joined", "own message", "not admitted", "subscription not allowed",
	"too many subscriptions", "seen early", "too many peers exchanged",
}

func (r Reason) String() string { return reasonNames[r] }

// Stats counts what a PubSub has done since it was made.
type Stats struct {
	Published  uint64 // messages of this host
	Received   uint64 // messages from neighbours, the same one as often as it came
	Duplicates uint64 // of them known already
	Delivered  uint64 // to subscriptions
	Sent       uint64 // messages to neighbours
	Cancelled  uint64 // messages that a neighbour turned out to have before they were sent
	BytesIn    uint64
	BytesOut   uint64
	Dropped    map[Reason]uint64 // only what is not 0
}

// counters are what Stats is made of.
type counters struct {
	published, received, duplicates, delivered, sent, cancelled, in, out atomic.Uint64

	dropped [reasons]atomic.Uint64
}

func (c *counters) drop(r Reason, n int) { c.dropped[r].Add(uint64(n)) }

func (c *counters) stats() Stats {
	s := Stats{
		Published:  c.published.Load(),
		Received:   c.received.Load(),
		Duplicates: c.duplicates.Load(),
		Delivered:  c.delivered.Load(),
		Sent:       c.sent.Load(),
		Cancelled:  c.cancelled.Load(),
		BytesIn:    c.in.Load(),
		BytesOut:   c.out.Load(),
		Dropped:    make(map[Reason]uint64),
	}
	for r := range c.dropped {
		if n := c.dropped[r].Load(); n > 0 {
			s.Dropped[Reason(r)] = n
		}
	}
	return s
}
