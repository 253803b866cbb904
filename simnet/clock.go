package simnet

import (
	"cmp"
	"math"
	"slices"
	"sync"
	"time"
)

// The clock of a network: a heap of events and a timer for the earliest of them.
// There is no goroutine, and while nothing is to happen no timer that does anything, so
// that a synctest bubble sees an idle network as idle.
//
// In a bubble all that goroutines do at one instant is taken in first, and then
// handled in an order that does not depend on how they were scheduled: see settle.
// A network that replays in the same way needs that. It also lets an
// acknowledgement travel with the answer that the application gives at once.

const never = math.MaxInt64

// An event is something that happens at a time. Times are nanoseconds since New.
type event struct {
	at  int64
	seq uint64 // among events at one time: first pushed, first done
	pos int    // in the heap, from 1; 0: not there
	hop bool   // a packet comes to a link: no application can tell when in this instant
	do  func()
}

// socket is what applications write to. Its flush sends what they have written.
type socket interface {
	flush()
	less() sortKey
}

// sortKey orders the sockets that flush at one instant.
type sortKey struct {
	host    int
	udp     bool
	flow    flow
	created uint64
}

func (a sortKey) compare(b sortKey) int {
	u := func(x bool) int {
		if x {
			return 1
		}
		return 0
	}
	return cmp.Or(
		cmp.Compare(a.host, b.host),
		cmp.Compare(u(a.udp), u(b.udp)),
		a.flow.local.Compare(b.flow.local),
		a.flow.remote.Compare(b.flow.remote),
		cmp.Compare(a.created, b.created),
	)
}

// inBubble tells whether this goroutine is in a synctest bubble. Time starts in
// the year 2000 there. If that changes, networks work still, but do not replay.
func inBubble() bool { return time.Now().Year() < 2020 }

// enter locks the network and brings its time up to date, leave lets it act on
// what the caller did.
func (n *Network) enter() {
	n.mu.Lock()
	now := int64(time.Since(n.start))
	if now < 0 {
		n.mu.Unlock()
		panic("simnet: a network was made outside of the synctest bubble that uses it")
	}
	if !n.virtual {
		n.process(now)
	}
	n.now = max(n.now, now)
}

// wait waits for c, below enter. It may return early.
func (n *Network) wait(c *sync.Cond) {
	if !n.virtual && len(n.dirty) > 0 {
		n.process(int64(time.Since(n.start))) // what it does may be what the caller waits for
		n.arm()
		return
	}
	n.arm()
	c.Wait()
}

func (n *Network) leave() {
	if !n.virtual && len(n.dirty) > 0 {
		n.process(int64(time.Since(n.start)))
	}
	n.arm()
	n.mu.Unlock()
}

// arm sets a timer to the next thing to do.
func (n *Network) arm() {
	next := int64(never)
	switch {
	case n.closed:
	case len(n.dirty) > 0:
		next = n.now
	case len(n.events) > 0:
		next = n.events[0].at
	}
	if next == n.armed {
		return
	}
	n.armed, n.settling = next, false
	if next == never {
		n.timer.Stop()
		return
	}
	if n.timer == nil {
		n.timer = time.AfterFunc(time.Hour, n.tick)
	}
	wait := time.Until(n.start.Add(time.Duration(next)))
	if wait <= 0 && n.virtual {
		n.settle()
	} else {
		n.timer.Reset(wait)
	}
}

// settle has act called at this instant, when all else in the bubble waits.
//
// A timer that is set to the present fires at once, unless it was set to the future
// before: then it keeps the place of that in the bubble's heap, which is looked at when
// all goroutines wait; but also, from the top, while timers of this instant fire, whose
// goroutines may be the ones that call settle. The guard, which does nothing, is before
// that place, so that it is not at the top.
func (n *Network) settle() {
	n.settling = true
	if n.settled == nil {
		n.guard = time.AfterFunc(time.Hour, func() {})
		n.settled = time.AfterFunc(time.Hour, n.act)
	}
	n.guard.Reset(time.Hour / 2)
	n.settled.Reset(time.Hour)
	n.settled.Reset(0)
}

// tick is what the timer calls.
func (n *Network) tick() {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.closed {
		return
	}
	now := int64(time.Since(n.start))
	if !n.virtual {
		n.armed = never
		n.process(now)
		n.arm()
		return
	}
	if now < n.armed || n.settling {
		return // an older setting of the timer
	}
	// Time has just come to here, for others too: let them act first.
	n.now = max(n.now, now)
	for n.due(n.now) && n.events[0].hop {
		n.first()
	}
	n.armed = never
	n.arm()
}

// act does what is due at an instant at which nothing else is done. What arrives comes
// first, then applications react, then sockets send.
func (n *Network) act() {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.closed || !n.settling {
		return
	}
	n.now = max(n.now, int64(time.Since(n.start)))
	if !n.due(n.now) {
		n.flush()
	}
	n.happen()
	n.armed, n.settling = never, false
	n.arm()
}

// process does all that is due until now, each thing at its time. (In real time
// the timer is late, but the network does not become slower by that.)
func (n *Network) process(now int64) {
	for !n.closed {
		if n.due(now) {
			n.now = max(n.now, n.events[0].at)
			n.happen()
		} else {
			n.now = max(n.now, now)
			if len(n.dirty) == 0 {
				return
			}
		}
		n.flush()
	}
}

func (n *Network) due(now int64) bool { return len(n.events) > 0 && n.events[0].at <= now }

// happen does the events of this instant.
func (n *Network) happen() {
	for n.due(n.now) {
		n.first()
	}
}

func (n *Network) first() {
	e := n.events[0]
	n.cancel(e)
	e.do()
}

// flush lets the sockets send that have something to send.
func (n *Network) flush() {
	if len(n.dirty) == 0 {
		return
	}
	d := n.dirty
	n.dirty = n.spare[:0]
	if len(d) > 1 {
		slices.SortFunc(d, func(a, b socket) int { return a.less().compare(b.less()) })
	}
	for _, s := range d {
		s.flush()
	}
	clear(d)
	n.spare = d
}

// at schedules an event, again if it is scheduled already.
func (n *Network) at(t int64, e *event) {
	if e.pos != 0 {
		if e.at == t {
			return
		}
		n.cancel(e)
	}
	n.seq++
	e.at, e.seq = t, n.seq
	n.events = append(n.events, e)
	e.pos = len(n.events)
	n.events.up(e.pos - 1)
}

func (n *Network) cancel(e *event) {
	if e.pos == 0 {
		return
	}
	h, i := n.events, e.pos-1
	last := len(h) - 1
	if i != last {
		h.swap(i, last)
	}
	h[last] = nil
	n.events = h[:last]
	if i != last {
		n.events.down(i)
		n.events.up(i)
	}
	e.pos = 0
}

type heap []*event

func (h heap) less(i, j int) bool {
	a, b := h[i], h[j]
	return a.at < b.at || a.at == b.at && a.seq < b.seq
}

func (h heap) swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].pos, h[j].pos = i+1, j+1
}

func (h heap) up(i int) {
	for i > 0 && h.less(i, (i-1)/2) {
		h.swap(i, (i-1)/2)
		i = (i - 1) / 2
	}
}

func (h heap) down(i int) {
	for {
		c := 2*i + 1
		if c >= len(h) {
			return
		}
		if c+1 < len(h) && h.less(c+1, c) {
			c++
		}
		if !h.less(c, i) {
			return
		}
		h.swap(i, c)
		i = c
	}
}
