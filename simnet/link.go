package simnet

import (
	"hash/fnv"
	"math/rand/v2"
	"time"
)

// Link describes one direction of a link. The zero Link is perfect, and carries
// packets of up to 1500 bytes.
type Link struct {
	Latency   time.Duration // that each packet takes
	Jitter    time.Duration // random part on top, up to this; it does not change the order
	Bandwidth int64         // bits per second, over all that uses the link; 0: no limit
	Queue     int           // bytes that wait for their turn before packets are dropped; 0: those of 50 ms, at least 64 KiB
	Loss      float64       // share of packets that vanish
	Reorder   float64       // share of packets that take up to Latency/2 + 2 ms longer, so that later ones overtake
	MTU       int           // longest packet, with IP header; longer ones vanish; 0: 1500
}

// link is one direction of a link at work.
type link struct {
	Link
	rand *rand.Rand
	busy int64 // when the last queued packet has been sent
	last int64 // when the last packet arrives that was not reordered
}

// newLink returns a link whose faults depend on nothing but seed, name, and what
// it carries.
func newLink(l Link, seed uint64, name string) *link {
	h := fnv.New64a()
	h.Write([]byte(name))
	return &link{Link: l, rand: rand.New(rand.NewPCG(seed, h.Sum64()))}
}

// pass puts a packet on the link and returns when it arrives, or why it does not.
func (l *link) pass(now int64, size int) (at int64, why Reason) {
	if size > l.mtu() {
		return 0, TooLong
	}
	if l.Bandwidth > 0 {
		start := max(now, l.busy)
		if waiting := float64(start-now) / 8e9 * float64(l.Bandwidth); start > now && waiting+float64(size) > float64(l.queue()) {
			return 0, QueueFull
		}
		l.busy = start + l.time(size)
		now = l.busy
	}
	if l.Loss > 0 && l.rand.Float64() < l.Loss {
		return 0, Lost
	}
	at = now + int64(l.Latency)
	if l.Jitter > 0 {
		at = max(at+l.rand.Int64N(int64(l.Jitter)), l.last)
	}
	if l.Reorder > 0 && l.rand.Float64() < l.Reorder {
		return at + int64(time.Millisecond) + l.rand.Int64N(int64(l.Latency/2+time.Millisecond)), 0
	}
	l.last = at
	return at, 0
}

// shared tells whether packets meet on the link, so that their order counts.
func (l *link) shared() bool { return l.Bandwidth > 0 || l.Jitter > 0 }

// time is how long it takes to send so many bytes.
func (l *link) time(size int) int64 { return int64(size) * 8e9 / l.Bandwidth }

func (l *link) mtu() int {
	if l.MTU > 0 {
		return l.MTU
	}
	return 1500
}

func (l *link) queue() int {
	if l.Queue > 0 {
		return l.Queue
	}
	return max(64<<10, int(l.Bandwidth/8/20))
}
