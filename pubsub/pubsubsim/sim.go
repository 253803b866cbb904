// Package pubsubsim runs thousands of pubsub state machines, a [pubsub.Core] with its
// router each, in virtual time and one goroutine: what they say is encoded, queued in
// a [pubsub.Queue] for each neighbour, sent at the rate of an uplink, and parsed.
//
//	s := pubsubsim.New(pubsubsim.Config{Seed: 1})
//	a := s.Add(pubsubsim.NodeConfig{Router: gossipsub.Must(gossipsub.Default())})
//	b := s.Add(pubsubsim.NodeConfig{Router: gossipsub.Must(gossipsub.Default())})
//	s.Connect(a, b)
//	b.Join("topic")
//	s.Run(5 * time.Second)
//	a.Publish("topic", data)
//
// With the same Seed and the same calls, the same happens.
//
// # The model
//
// A node's neighbours share its uplink in turns of 16 KiB, as connections share a
// link. What has arrived passes the receiver's downlink in order. Between two nodes at
// most 1 MiB is under way; what more there is waits in the queue, which has the bounds of
// pubsub.Config. What is lost on the way comes later, as on a TCP connection. There are no signatures: their place
// is taken by NodeConfig.Check.
//
// # What it takes
//
// The tests attack networks of 60 nodes, of 1,000 in CI, and of 5,000 by `make sim`, where
// one takes one to three minutes of a processor and up to 3 GiB of memory.
package pubsubsim

import (
	"encoding/binary"
	"math/rand/v2"
	"time"

	"github.com/plexus-p2p/plexus/peer"
	"github.com/plexus-p2p/plexus/pubsub"
)

const (
	chunk  = 16 << 10 // bytes of a turn on an uplink
	window = 1 << 20  // bytes under way on a connection
	packet = 1400     // bytes that are lost or not
)

// Config describes a network.
type Config struct {
	Seed uint64

	// Latency is how long a byte takes from one node to another. Nil: 50 ms.
	Latency func(from, to *Node) time.Duration

	// Loss is the share of packets that are lost on the way, of 1,400 bytes. A lost one, and
	// what comes after it on the connection, is there a round trip and 200 ms later: as
	// TCP repairs it.
	Loss float64

	// MessageID identifies messages. Nil: the first 8 bytes of their data do.
	MessageID func(*pubsub.Message) pubsub.MessageID
}

// A Sim is a network of nodes. It belongs to one goroutine.
type Sim struct {
	Nodes []*Node
	Rand  *rand.Rand

	cfg    Config
	now    time.Duration
	events heap
	seq    uint64
	by     map[peer.ID]*Node
	rpc    pubsub.RPC
}

// epoch is when simulations begin.
var epoch = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// New makes a network without nodes.
func New(cfg Config) *Sim {
	if cfg.Latency == nil {
		cfg.Latency = func(*Node, *Node) time.Duration { return 50 * time.Millisecond }
	}
	if cfg.MessageID == nil {
		cfg.MessageID = func(m *pubsub.Message) pubsub.MessageID { return pubsub.MessageID(m.Data[:min(8, len(m.Data))]) }
	}
	return &Sim{cfg: cfg, Rand: rand.New(rand.NewPCG(cfg.Seed, 0x706c65787573)), by: make(map[peer.ID]*Node)}
}

// Now is the time since the simulation began.
func (s *Sim) Now() time.Duration { return s.now }

func (s *Sim) time() time.Time { return epoch.Add(s.now) }

// After calls f when d has passed.
func (s *Sim) After(d time.Duration, f func()) { s.push(event{at: s.now + d, kind: call, f: f}) }

// Every calls f every d, the first time when d has passed, until it returns false.
func (s *Sim) Every(d time.Duration, f func() bool) {
	s.After(d, func() {
		if f() {
			s.Every(d, f)
		}
	})
}

// Run lets time pass.
func (s *Sim) Run(d time.Duration) {
	end := s.now + d
	for len(s.events) > 0 && s.events[0].at <= end {
		e := s.events.pop()
		s.now = e.at
		switch e.kind {
		case call:
			e.f()
		case tick:
			e.n.tick()
		case sent:
			e.c.sent(e.b, e.end)
		case arrived:
			e.c.arrived(e.b, e.end)
		case passed:
			e.c.passed(e.b, e.end)
		}
	}
	s.now = end
}

// An event is something that happens at a time.
type event struct {
	at   time.Duration
	seq  uint64 // those of the same time, in order
	kind kind
	n    *Node
	c    *conn
	b    []byte
	end  int
	f    func()
}

type kind uint8

const (
	call    kind = iota
	tick         // a router's
	sent         // a piece of a batch has left the uplink
	arrived      // it is at the receiver's downlink
	passed       // it is there
)

func (s *Sim) push(e event) {
	s.seq++
	e.seq = s.seq
	s.events.push(e)
}

// A heap of events, the first one at 0.
type heap []event

func (h heap) less(i, j int) bool {
	return h[i].at < h[j].at || h[i].at == h[j].at && h[i].seq < h[j].seq
}

func (h *heap) push(e event) {
	*h = append(*h, e)
	l := *h
	for i := len(l) - 1; i > 0; {
		up := (i - 1) / 4
		if !l.less(i, up) {
			break
		}
		l[i], l[up] = l[up], l[i]
		i = up
	}
}

func (h *heap) pop() event {
	l := *h
	e := l[0]
	last := len(l) - 1
	l[0] = l[last]
	l[last] = event{}
	l = l[:last]
	*h = l
	for i := 0; ; {
		first := i
		for c := 4*i + 1; c <= 4*i+4 && c < last; c++ {
			if l.less(c, first) {
				first = c
			}
		}
		if first == i {
			return e
		}
		l[i], l[first] = l[first], l[i]
		i = first
	}
}

// ID is the ID of the node with an index: the hash of nothing that exists.
func ID(i int) peer.ID {
	b := make([]byte, 34)
	b[0], b[1] = 0x12, 0x20
	binary.BigEndian.PutUint64(b[2:], uint64(i))
	return peer.ID(b)
}
