package pubsubsim

import (
	"encoding/binary"
	"net/netip"
	"time"

	"github.com/plexus-p2p/plexus/peer"
	"github.com/plexus-p2p/plexus/pubsub"
)

// NodeConfig describes a node.
type NodeConfig struct {
	Router   pubsub.Router
	Protocol string             // that it speaks with others; "": the best that both do
	Core     pubsub.CoreConfig  // Self and Seed are set by Add
	IP       netip.Addr         // zero: one of its own
	Up, Down float64            // bit/s; 0: no bound
	Own, Fwd int                // bounds of each neighbour's queue; zero: those of pubsub.Config
	Deaf     func(peer.ID) bool // connections that it does not take; nil: none

	// Check validates a message, for as long as it says. Nil: all are valid, at once.
	Check func(*pubsub.Message) (pubsub.Outcome, time.Duration)

	// Trace hears of what happens, as that of pubsub.Config does. May be nil.
	Trace func(pubsub.Event)

	// Deliver hears of each valid message of a joined topic, and its own. May be nil.
	Deliver func(*pubsub.Message)
}

// A Node is a state machine with its links.
type Node struct {
	ID    peer.ID
	Index int
	Core  *pubsub.Core
	Stats Stats

	s     *Sim
	cfg   NodeConfig
	a     pubsub.Actions
	conns map[peer.ID]*conn      // to its neighbours
	links map[*pubsub.Peer]*conn // the same
	due   time.Duration          // when a tick is in the heap
	down  time.Duration          // when the downlink is free
	busy  bool                   // the uplink is
	ready []*conn                // those that have something for it
}

// Stats counts what a node has done.
type Stats struct {
	Copies     int // messages that came, the same one as often as it did
	Duplicates int // of them known already
	Delivered  int
	Refused    int // RPCs of peers that it does not listen to
	BytesIn    int
	BytesOut   int
	Cancelled  int // messages that a neighbour turned out to have
	Dropped    int // messages and control messages for which a queue had no room
	PeakQueue  int // bytes that waited for one neighbour at most
}

// Add adds a node.
func (s *Sim) Add(cfg NodeConfig) *Node {
	i := len(s.Nodes)
	n := &Node{ID: ID(i), Index: i, s: s, cfg: cfg, conns: make(map[peer.ID]*conn), links: make(map[*pubsub.Peer]*conn)}
	if !cfg.IP.IsValid() {
		n.cfg.IP = netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)})
	}
	if cfg.Own == 0 {
		n.cfg.Own = pubsub.DefaultOwnQueue
	}
	if cfg.Fwd == 0 {
		n.cfg.Fwd = pubsub.DefaultForwardQueue
	}
	cfg.Core.Tracing = cfg.Trace != nil
	cfg.Core.Self, cfg.Core.Seed = n.ID, s.Rand.Uint64()|1 // 0 would be any
	s.Nodes = append(s.Nodes, n)
	s.by[n.ID] = n
	n.Core = pubsub.NewCore(s.time(), cfg.Core, cfg.Router, &n.a)
	n.perform()
	return n
}

// Neighbours is how many nodes n is connected to.
func (n *Node) Neighbours() int { return len(n.conns) }

// Connected reports whether two nodes are connected.
func (n *Node) Connected(to *Node) bool { return n.conns[to.ID] != nil }

// A conn is one direction of a connection.
type conn struct {
	from, to *Node
	peer     *pubsub.Peer // what to is to from
	back     *conn
	latency  time.Duration
	q        pubsub.Queue
	batch    []byte        // on the uplink
	at       int           // so much of it
	large    []byte        // after it
	active   bool          // it is among from.ready, or on the uplink
	under    int           // bytes under way
	read     int           // of the batch that arrives
	last     time.Duration // when the last piece arrives
	closed   bool
}

// Connect connects a to b; b may not take it.
func (s *Sim) Connect(a, b *Node) {
	if a == b || a.conns[b.ID] != nil || b.cfg.Deaf != nil && b.cfg.Deaf(a.ID) {
		return
	}
	protocol := a.cfg.Protocol
	if protocol == "" {
		protocol = b.cfg.Protocol
	}
	if protocol == "" {
		protocol = common(a.cfg.Router.Protocols(), b.cfg.Router.Protocols())
	}
	make := func(from, to *Node, out bool) *conn {
		c := &conn{from: from, to: to, latency: s.cfg.Latency(from, to), q: pubsub.Queue{Own: from.cfg.Own, Forward: from.cfg.Fwd}}
		c.peer = &pubsub.Peer{ID: to.ID, Protocol: protocol, Outbound: out, IP: to.cfg.IP}
		from.conns[to.ID], from.links[c.peer] = c, c
		return c
	}
	x, y := make(a, b, true), make(b, a, false)
	x.back, y.back = y, x
	for _, c := range []*conn{x, y} {
		c.from.Core.AddPeer(s.time(), c.peer, &c.from.a)
		c.batch = c.from.Core.Hello(c.peer)
		c.from.perform()
		c.kick()
	}
}

func common(a, b []string) string {
	for _, x := range a {
		for _, y := range b {
			if x == y {
				return x
			}
		}
	}
	return ""
}

// Disconnect ends the connection between two nodes.
func (s *Sim) Disconnect(a, b *Node) {
	x := a.conns[b.ID]
	if x == nil {
		return
	}
	for _, c := range []*conn{x, x.back} {
		c.closed = true
		c.q.Clear()
		delete(c.from.conns, c.to.ID)
		delete(c.from.links, c.peer)
		c.from.Core.RemovePeer(s.time(), c.peer, &c.from.a)
		c.from.perform()
	}
}

// Join lets n receive a topic, Leave no longer.
func (n *Node) Join(topic string) { n.JoinPartial(pubsub.SubOpts{Topic: topic}) }

// JoinPartial is Join with wishes for parts of messages.
func (n *Node) JoinPartial(o pubsub.SubOpts) {
	o.Subscribe = true
	n.announce(o)
	n.Core.Join(n.s.time(), o, &n.a)
	n.perform()
}

func (n *Node) Leave(topic string) {
	n.Core.Leave(n.s.time(), topic, &n.a)
	n.perform()
	n.announce(pubsub.SubOpts{Topic: topic})
}

func (n *Node) announce(o pubsub.SubOpts) {
	for _, p := range n.Core.Peers() {
		c := n.links[p]
		c.q.Announce(o)
		c.kick()
	}
}

// Publish publishes a message. It returns how many neighbours it is queued for.
func (n *Node) Publish(topic string, data []byte) int {
	m := pubsub.NewMessage(topic, data)
	m.ID = n.s.cfg.MessageID(m)
	if !n.Core.Publish(n.s.time(), m, &n.a) {
		return 0
	}
	took := len(n.a.Sends)
	n.perform()
	n.deliver(m)
	return took
}

func (n *Node) deliver(m *pubsub.Message) {
	if _, ok := n.Core.Joined(m.Topic); !ok {
		return
	}
	n.Stats.Delivered++
	if n.cfg.Deliver != nil {
		n.cfg.Deliver(m)
	}
}

// Do calls f as one of the router's calls.
func (n *Node) Do(f func(now time.Time, a *pubsub.Actions)) {
	f(n.s.time(), &n.a)
	n.perform()
}

// Say sends a neighbour an RPC, whatever the router thinks: as attackers do.
func (n *Node) Say(to *Node, rpc *pubsub.RPC) {
	c := n.conns[to.ID]
	if c == nil || len(c.large) > 0 {
		return // it takes no more
	}
	body := rpc.Append(nil)
	c.large = append(binary.AppendUvarint(nil, uint64(len(body))), body...)
	c.kick()
}

func (n *Node) tick() {
	if n.s.now != n.due {
		return // it was before
	}
	n.due = 0
	n.Core.Tick(n.s.time(), &n.a)
	n.perform()
}

// arm sees to the next tick.
func (n *Node) arm() {
	t := n.Core.Due()
	if t.IsZero() {
		return
	}
	if due := max(t.Sub(epoch), n.s.now); n.due == 0 || due < n.due {
		n.due = due
		n.s.push(event{at: due, kind: tick, n: n})
	}
}

// perform does what the core wants done.
func (n *Node) perform() {
	a := &n.a
	for _, d := range a.Controls {
		c := n.links[d.To]
		if c == nil {
			continue
		}
		ok := true
		if d.Control != nil {
			_, ok = c.q.Control(d.Control)
		} else {
			ok = c.q.Partial(d.Partial)
		}
		if !ok {
			n.Stats.Dropped++
		}
		c.kick()
	}
	for _, d := range a.Sends {
		c := n.links[d.To]
		if c == nil {
			continue
		}
		if !c.q.Push(d.Message, d.Message.ReceivedFrom == n.ID) {
			n.Stats.Dropped++
			n.Core.Router().Missed(n.s.time(), d.To, d.Message)
		}
		c.kick()
	}
	for _, e := range a.Events {
		n.cfg.Trace(e)
	}
	dials := a.Connects
	a.Connects = nil
	a.Reset()
	for _, d := range dials {
		if to := n.s.by[d.Info.ID]; to != nil {
			n.s.After(2*n.s.cfg.Latency(n, to), func() { n.s.Connect(n, to) })
		}
	}
	n.arm()
}

// kick lets c have a turn on the uplink, if it has something to send.
func (c *conn) kick() {
	n := c.from
	n.Stats.PeakQueue = max(n.Stats.PeakQueue, c.q.Size())
	if c.active || c.closed || c.under >= window {
		return
	}
	if len(c.batch) == 0 && !c.load() {
		return
	}
	c.active = true
	n.ready = append(n.ready, c)
	n.pump()
}

// load takes the next batch.
func (c *conn) load() bool {
	c.at = 0
	c.batch, c.large = c.large, nil
	if len(c.batch) == 0 {
		c.batch, c.large, _ = c.q.Next(nil)
		if len(c.batch) == 0 {
			c.batch, c.large = c.large, nil
		}
	}
	return len(c.batch) > 0
}

// pump lets the next connection send a piece.
func (n *Node) pump() {
	for !n.busy && len(n.ready) > 0 {
		c := n.ready[0]
		n.ready = n.ready[1:]
		if c.closed {
			continue
		}
		size := min(chunk, len(c.batch)-c.at)
		c.at += size
		c.under += size
		n.Stats.BytesOut += size
		if n.cfg.Up == 0 {
			c.sent(c.batch, c.at)
			continue
		}
		n.busy = true
		n.s.push(event{at: n.s.now + rate(size, n.cfg.Up), kind: sent, c: c, b: c.batch, end: c.at})
	}
}

func rate(bytes int, bits float64) time.Duration {
	return time.Duration(float64(bytes) * 8 / bits * float64(time.Second))
}

// sent is called when a piece of a batch, until end, has left.
func (c *conn) sent(b []byte, end int) {
	n := c.from
	if n.cfg.Up != 0 {
		n.busy = false
	}
	if !c.closed {
		c.last = max(c.last, n.s.now+c.latency+c.repair((end-1)%chunk+1))
		n.s.push(event{at: c.last, kind: arrived, c: c, b: b, end: end})
		if c.active = false; c.at == len(c.batch) {
			c.batch = nil
		}
		if c.under < window && (len(c.batch) > 0 || c.load()) {
			c.active = true
			n.ready = append(n.ready, c)
		}
	}
	if n.cfg.Up != 0 {
		n.pump()
	}
}

// repair is how much later so many bytes are there for what is lost of them.
func (c *conn) repair(size int) (d time.Duration) {
	s := c.from.s
	if s.cfg.Loss == 0 {
		return 0
	}
	for ; size > 0; size -= packet {
		for s.Rand.Float64() < s.cfg.Loss {
			d += 2*c.latency + 200*time.Millisecond
		}
	}
	return d
}

func (c *conn) arrived(b []byte, end int) {
	if c.closed {
		return
	}
	n := c.to
	if n.cfg.Down == 0 {
		c.passed(b, end)
		return
	}
	size := (end-1)%chunk + 1
	n.down = max(n.down, n.s.now) + rate(size, n.cfg.Down)
	n.s.push(event{at: n.down, kind: passed, c: c, b: b, end: end})
}

func (c *conn) passed(b []byte, end int) {
	if c.closed {
		return
	}
	size := (end-1)%chunk + 1
	c.under -= size
	c.to.Stats.BytesIn += size
	c.kick()
	for c.read < end && !c.closed {
		v, head := binary.Uvarint(b[c.read:end])
		if head <= 0 || c.read+head+int(v) > end {
			break // its rest is under way
		}
		frame := b[c.read : c.read+head+int(v) : c.read+head+int(v)]
		c.read += len(frame)
		c.to.receive(c.back, frame, head)
	}
	if end == len(b) {
		c.read = 0
	}
}

// receive handles an RPC of a neighbour.
func (n *Node) receive(c *conn, frame []byte, head int) {
	rpc := &n.s.rpc
	*rpc = pubsub.RPC{Messages: rpc.Messages[:0]}
	if rpc.Parse(frame[head:]) != nil {
		n.s.Disconnect(n, c.to)
		return
	}
	adm := n.Core.Open(n.s.time(), c.peer, rpc, &n.a)
	n.perform()
	if adm == pubsub.AdmitNone {
		n.Stats.Refused++
		return
	}
	if len(rpc.Messages) > 1 || rpc.Subs != nil || !rpc.Control.IsZero() {
		frame = nil // it is not the message's alone
	}
	for _, raw := range rpc.Messages {
		n.Stats.Copies++
		if adm == pubsub.AdmitAll {
			n.message(c, raw, frame)
		}
	}
	for _, id := range rpc.Control.IDontWant {
		if c.q.Cancel(id) {
			n.Stats.Cancelled++
		}
	}
	n.Core.Close(n.s.time(), c.peer, rpc, &n.a)
	n.perform()
}

// message handles a message of a neighbour.
func (n *Node) message(c *conn, raw, frame []byte) {
	m, err := pubsub.ParseMessage(raw, frame)
	if err != nil {
		n.s.Disconnect(n, c.to)
		return
	}
	if _, ok := n.Core.Joined(m.Topic); !ok {
		return
	}
	m.ID = n.s.cfg.MessageID(m)
	if c.q.Cancel([]byte(m.ID)) {
		n.Stats.Cancelled++
	}
	if !n.Core.Receive(n.s.time(), c.peer, m, &n.a) || !n.Core.Verified(n.s.time(), m, &n.a) {
		n.Stats.Duplicates++
		n.perform()
		return
	}
	n.perform()
	o, d := pubsub.Accepted, time.Duration(0)
	if n.cfg.Check != nil {
		o, d = n.cfg.Check(m)
	}
	if d > 0 {
		n.s.After(d, func() { n.decide(m, o) })
		return
	}
	n.decide(m, o)
}

func (n *Node) decide(m *pubsub.Message, o pubsub.Outcome) {
	n.Core.Decide(n.s.time(), m, o, &n.a)
	n.perform()
	if o == pubsub.Accepted {
		n.deliver(m)
	}
}
