package pubsub

import (
	"net/netip"
	"time"

	"github.com/plexus-p2p/plexus/peer"
)

// A Router decides who is sent what: package floodsub has the simple one, package
// gossipsub the good one. It is a state machine without goroutines, clock and
// locks: a [Core] calls it, one call at a time, with the present time, and what it
// wants done it adds to the Actions. With the same calls and the same Core.Rand it
// does the same.
type Router interface {
	// Protocols are the IDs that the router speaks, the preferred one first.
	Protocols() []string

	// Start is the first call. It returns when Tick is to be called; the zero Time
	// means never. c is there for the router to ask.
	Start(now time.Time, c *Core, a *Actions) (tick time.Time)

	// Tick is called when it is due, and returns when it is due next.
	Tick(now time.Time, a *Actions) (tick time.Time)

	// AddPeer and RemovePeer tell that a peer can be sent to, and no longer can.
	// Subscribed follows a change of a peer's subscriptions, RemovePeer included.
	AddPeer(now time.Time, p *Peer, a *Actions)
	RemovePeer(now time.Time, p *Peer, a *Actions)
	Subscribed(now time.Time, p *Peer, topic string, on bool, a *Actions)

	// Join and Leave tell that this host receives a topic, and no longer does.
	Join(now time.Time, topic string, a *Actions)
	Leave(now time.Time, topic string, a *Actions)

	// Admit says how much of what p sends is looked at. It is asked for each RPC.
	Admit(now time.Time, p *Peer) Admission

	// Control handles p's control messages; first is set for the first RPC of a stream.
	Control(now time.Time, p *Peer, rpc *RPC, first bool, a *Actions)

	// Publish sends this host's own message.
	Publish(now time.Time, m *Message, a *Actions)

	// Received follows the first copy of a message, once its signature has verified
	// and before its validators run; Duplicate each further copy, whatever became of
	// the first; Decided the validators' verdict. Accepted messages are to be sent on.
	Received(now time.Time, m *Message, a *Actions)
	Duplicate(now time.Time, p *Peer, id MessageID, a *Actions)
	Decided(now time.Time, m *Message, o Outcome, a *Actions)

	// Missed tells that m could not be sent to p for want of room.
	Missed(now time.Time, p *Peer, m *Message)

	// Mesh lists whom the router sends a joined topic's messages to at once, and
	// Scores what it thinks of each peer, for people to look at.
	Mesh(topic string) []*Peer
	Scores(now time.Time) []Score
}

// An Admission is how much of a peer's RPC is looked at.
type Admission uint8

const (
	AdmitAll Admission = iota
	AdmitControl
	AdmitNone
)

// An Outcome is what became of a message.
type Outcome uint8

const (
	// Accepted: it is delivered and sent on.
	Accepted Outcome = iota
	// Rejected: it is invalid, and its sender to blame.
	Rejected
	// Ignored: it is neither delivered nor sent on, and nobody to blame.
	Ignored
	// Throttled: the validators had no room for it.
	Throttled
	// Forged: its signature does not verify, or is missing. Its ID stands for nothing.
	Forged
)

func (o Outcome) String() string {
	return [...]string{"accepted", "rejected", "ignored", "throttled", "forged"}[o]
}

// A Peer is a neighbour that speaks pubsub.
type Peer struct {
	ID       peer.ID
	Protocol string     // one of the router's
	Outbound bool       // we dialed it
	IP       netip.Addr // where it is; may be invalid
	State    any        // the router's own

	topics map[string]*topicPeer
	named  int     // bytes of their names
	out    *outbox // nil where nothing is sent
	seen   bool    // its first RPC has come
}

// topicPeer is a peer's subscription.
type topicPeer struct {
	opts SubOpts
	at   int // in Core.topics
}

// Topic returns p's subscription to a topic, if it has one.
func (p *Peer) Topic(topic string) (SubOpts, bool) {
	t := p.topics[topic]
	if t == nil {
		return SubOpts{}, false
	}
	return t.opts, true
}

// Actions is what a router wants done, in this order: it is emptied and used again.
type Actions struct {
	Sends    []Send
	Controls []Send
	Connects []Connect
	Events   []Event

	tracing bool
}

// A Send is a message, or a control message, for a peer.
type Send struct {
	To      *Peer
	Message *Message
	Control *Control // shared with other peers
	Partial *Partial

	own int // 1 + the index of the message among those that Publish publishes; 0: it is another
}

// A Connect asks for a connection to a peer.
type Connect struct {
	Info   peer.AddrInfo
	Record []byte // a sealed peer.Record of it, not verified yet; may be nil
}

// Send sends m to p.
func (a *Actions) Send(p *Peer, m *Message) { a.Sends = append(a.Sends, Send{To: p, Message: m}) }

// Control sends control messages to p, before all messages.
func (a *Actions) Control(p *Peer, c *Control) {
	a.Controls = append(a.Controls, Send{To: p, Control: c})
	if a.tracing {
		a.Event(ControlSent{Peer: p.ID, Control: c})
	}
}

// Partial sends a message of the extension for partial messages to p.
func (a *Actions) Partial(p *Peer, m *Partial) {
	a.Controls = append(a.Controls, Send{To: p, Partial: m})
}

// Tracing reports whether anybody wants events.
func (a *Actions) Tracing() bool { return a.tracing }

// Event tells those who trace what happens.
func (a *Actions) Event(e Event) {
	if a.tracing {
		a.Events = append(a.Events, e)
	}
}

// Reset empties a.
func (a *Actions) Reset() {
	clear(a.Sends)
	clear(a.Controls)
	clear(a.Connects)
	clear(a.Events)
	a.Sends, a.Controls, a.Connects, a.Events = a.Sends[:0], a.Controls[:0], a.Connects[:0], a.Events[:0]
}

// A Score is what a router thinks of a peer, and why.
type Score struct {
	Peer   peer.ID
	Total  float64
	Topics []TopicScore
	// The parts of Total besides its topics', weights applied.
	TopicCap    float64 // what the cap on the topics' sum took away; 0 or less
	Application float64 // P5
	Colocation  float64 // P6
	Behaviour   float64 // P7: broken promises, hasty GRAFTs, floods of IWANT and IDONTWANT
}

// A TopicScore is what a peer's behaviour in one topic adds to its score, weights applied.
type TopicScore struct {
	Topic      string
	Total      float64
	InMesh     time.Duration // how long; 0: it is not
	TimeInMesh float64       // P1
	First      float64       // P2: first to deliver
	Deliveries float64       // P3: fewer deliveries than expected
	Failures   float64       // P3b: pruned with such a deficit
	Invalid    float64       // P4
}
