package simnet

import (
	"syscall"
	"time"
)

// sender is the sending half of a connection. Positions in the stream count from 0;
// the FIN takes one.
type sender struct {
	out      []byte  // written and not sent; appended to, never overwritten: segments point into it
	cuts     []int64 // ends of writes in out, that end a segment too
	writing  bool    // a Write is under way; others wait for their turn
	full     bool    // out is full: wait until half of it is sent
	blocked  bool    // out waits for something
	finished bool    // the application writes no more
	writes   []int   // sizes of writes to be traced

	next     int64 // position of out[0]
	acked    int64 // all before has arrived
	edge     int64 // the peer takes bytes up to here
	finSent  bool
	finAcked bool

	segs    []*segment // sent, and not all acknowledged, by position
	pipe    int        // bytes of segs that are thought to be under way
	lostN   int        // segs that are thought to be lost
	strange bool       // segs may not be in the order of their transmission, or have arrived in it
	sent    uint64     // transmissions so far
	recent  *segment   // the latest transmission that was acknowledged
	roundTx uint64     // a round ends with the acknowledgement of a later transmission than this
	arrived count

	measured    bool  // rtt and rttVar are known
	rtt, rttVar int64 // smoothed, and its deviation; RFC 6298
	reorder     int64 // how much later than its successors a segment may arrive
	timeouts    int   // in a row
	lastOut     int64 // when the last packet will have left the uplink
	paced       int64 // when it would have left if the network were as fast as congestion thinks

	congestion congestion
	timeout    event // nothing arrives
	overdue    event // a segment's time to be overtaken is over
	waited     event // more may be sent
}

type segment struct {
	pos   int64
	data  []byte
	fin   bool
	tx    uint64 // number of its last transmission
	at    int64  // time of its last transmission
	since count  // what had arrived then
	again bool   // transmitted more than once
	got   bool   // has arrived
	lost  bool   // is thought to be lost
}

// count is how the rate of delivery is measured.
// https://datatracker.ietf.org/doc/html/draft-ietf-ccwg-bbr#section-4.1
type count struct {
	bytes int64 // that have arrived so far
	at    int64 // when the last of them were acknowledged
	sent  int64 // when they were sent
}

func (s *segment) end() int64 {
	if s.fin {
		return s.pos + int64(len(s.data)) + 1
	}
	return s.pos + int64(len(s.data))
}

func (s *segment) size() int { return int(s.end() - s.pos) }

const (
	firstTimeout = int64(time.Second)            // RFC 6298
	minTimeout   = int64(200 * time.Millisecond) // as Linux
	maxTimeout   = int64(2 * time.Minute)        // as Linux
	maxTimeouts  = 15                            // as Linux, tcp_retries2
	maxGreetings = 6                             // as Linux, tcp_syn_retries
	burst        = int64(time.Millisecond)       // of packets sent together: those in front of the uplink too, as TCP small queues
)

func (s *sender) init(c *Conn) {
	s.edge = c.n.firstWindow()
	s.timeout.do = c.timedOut
	s.overdue.do = func() { c.findLost(); c.mark() }
	s.waited.do = func() { c.mark() }
}

// start begins sending data.
func (c *Conn) start() {
	c.congestion.start(c.mss, c.n.now)
	if c.measured {
		c.congestion.sample(c.n.now, c.rtt)
	}
}

func (c *Conn) stopSending() {
	c.n.cancel(&c.timeout)
	c.n.cancel(&c.overdue)
	c.n.cancel(&c.waited)
	c.out, c.cuts, c.segs, c.recent = nil, nil, nil, nil
	c.lostN, c.pipe = 0, 0
}

// put takes what there is room for.
func (c *Conn) put(p []byte) int {
	if c.full {
		return 0
	}
	n := min(len(p), c.n.cfg.SendBuffer-len(c.out))
	c.out = append(c.out, p[:n]...)
	c.full = len(c.out) >= c.n.cfg.SendBuffer
	return n
}

// endOfWrite lets the segment end where the write does, if it can be sent at once.
func (c *Conn) endOfWrite() {
	if !c.blocked && len(c.out) > 0 {
		c.cuts = append(c.cuts, c.next+int64(len(c.out)))
	}
}

// mark notes that the connection has something to send.
func (c *Conn) mark() {
	if !c.marked && !c.n.closed {
		c.marked = true
		c.n.dirty = append(c.n.dirty, c)
	}
}

func (c *Conn) less() sortKey { return sortKey{host: c.h.index, flow: c.flow, created: c.created} }

// flush sends what may be sent now.
func (c *Conn) flush() {
	c.marked = false
	for _, n := range c.writes {
		c.n.traceWrite("tcp", c.flow, n)
	}
	c.writes = c.writes[:0]
	if c.resetDue {
		c.resetDue = false
		p := c.packet(rst | ack)
		c.transmit(p, 0)
	}
	switch c.state {
	case dead:
	case established:
		c.send()
		if c.ackDue {
			c.sendAck()
		}
		c.collect()
	default:
		if c.greet {
			c.greet = false
			f := syn
			if c.state == synReceived {
				f = syn | ack
			}
			c.transmit(c.packet(f), 0)
			c.n.at(c.n.now+min(firstTimeout<<c.timeouts, maxTimeout), &c.timeout)
			if c.timeouts == 0 {
				c.greetAt = c.n.now
			}
		}
	}
}

// packet returns one to the peer that acknowledges what has arrived.
func (c *Conn) packet(f flags) *packet {
	p := c.n.packet(c.h, c.flow.local, c.flow.remote)
	p.flags = f
	p.id, p.to2 = c.created, c.peer
	if f&ack != 0 {
		c.acknowledge(p)
	}
	return p
}

func (c *Conn) transmit(p *packet, payload int) {
	c.stats.Packets++
	c.stats.Bytes += int64(ipHeader(p.dst.Addr()) + tcpHeader + payload)
	if payload > 0 {
		c.stats.DataPackets++
	}
	c.n.send(p, payload)
	if c.h.up.Bandwidth > 0 && !c.h.has(c.flow.remote.Addr()) {
		c.lastOut = c.h.up.busy
	}
}

// send sends lost segments again, and then new ones, as far as the peer's window,
// the congestion window, and the queue in front of the uplink allow.
func (c *Conn) send() {
	if c.lostN > 0 {
		for _, s := range c.segs {
			if !s.lost {
				continue
			}
			if !c.allowed(s.size()) {
				return
			}
			s.lost = false
			s.again = true
			c.lostN--
			c.strange = true
			c.stats.Retransmitted++
			c.sendSegment(s)
			if c.lostN == 0 {
				break
			}
		}
	}
	for len(c.out) > 0 || c.finished && !c.finSent {
		n := min(len(c.out), c.mss)
		if len(c.cuts) > 0 {
			n = min(n, int(c.cuts[0]-c.next))
		}
		if room := int(c.edge - c.next); room < n {
			// "The sender's SWS avoidance algorithm": no tiny segments, unless
			// nothing else will make the peer's window grow.
			if n = room; len(c.segs) > 0 || room <= 0 {
				c.block()
				return
			}
		}
		if !c.allowed(n) {
			c.block()
			return
		}
		s := &segment{pos: c.next, data: c.out[:n:n]}
		c.out = c.out[n:]
		c.next += int64(n)
		if len(c.cuts) > 0 && c.cuts[0] == c.next {
			c.cuts = c.cuts[1:]
		}
		if len(c.out) == 0 {
			c.out, c.cuts, c.blocked = nil, nil, false
			if c.finished {
				s.fin, c.finSent = true, true
				c.next++
			}
		}
		if c.full && len(c.out) <= c.n.cfg.SendBuffer/2 {
			c.full = false
			c.writable.Broadcast()
		}
		c.segs = append(c.segs, s)
		c.sendSegment(s)
	}
}

// block notes that what is left in out has to wait, and goes in full segments then.
func (c *Conn) block() {
	c.blocked = true
	c.cuts = c.cuts[:0]
	c.congestion.waiting = true
}

// allowed tells whether so many bytes may be sent now.
func (c *Conn) allowed(n int) bool {
	if c.pipe > 0 && c.pipe+n > c.congestion.window {
		c.congestion.full = true
		return false
	}
	// What fits into the first window need not be spread over a round trip.
	if c.paced-c.n.now >= burst && (c.congestion.phase != starting || c.pipe+n > 10*c.mss) {
		c.congestion.full = true
		c.n.at(c.paced-burst/2, &c.waited)
		return false
	}
	if up := c.h.up; up.Bandwidth > 0 {
		limit := max(burst, 2*up.time(up.mtu()))
		if c.lastOut-c.n.now >= limit {
			c.n.at(c.lastOut-limit/2, &c.waited)
			return false
		}
	}
	return true
}

func (c *Conn) sendSegment(s *segment) {
	c.sent++
	if c.pipe == 0 {
		c.arrived.at, c.arrived.sent = c.n.now, c.n.now
	}
	s.tx, s.at, s.since = c.sent, c.n.now, c.arrived
	c.pipe += s.size()
	if rate := c.congestion.pace(); rate > 0 {
		c.paced = max(c.paced, c.n.now) + int64(float64(s.size())/rate*1e9)
	}
	f := ack
	if s.fin {
		f |= fin
	}
	if len(s.data) > 0 && len(c.out) == 0 {
		f |= psh
	}
	p := c.packet(f)
	p.seq, p.data = s.pos, s.data
	c.ackDue = false
	c.transmit(p, len(s.data))
	if c.timeout.pos == 0 {
		c.n.at(c.n.now+c.patience(), &c.timeout)
	}
}

// patience is the retransmission timeout.
func (c *Conn) patience() int64 {
	t := firstTimeout
	if c.measured {
		t = c.rtt + max(4*c.rttVar, minTimeout)
	}
	return min(t<<min(c.timeouts, 20), maxTimeout)
}

// measure takes a round-trip time. RFC 6298, section 2.
func (c *Conn) measure(rtt int64) {
	if !c.measured {
		c.measured, c.rtt, c.rttVar = true, rtt, rtt/2
	} else {
		c.rttVar += (max(c.rtt-rtt, rtt-c.rtt) - c.rttVar) / 4
		c.rtt += (rtt - c.rtt) / 8
	}
	c.congestion.sample(c.n.now, rtt)
}

// acknowledged takes what the peer has to say about our segments.
func (c *Conn) acknowledged(p *packet) {
	if p.ack > c.next {
		return // of nothing that we sent
	}
	grown := p.ack+p.window > c.edge
	c.edge = max(c.edge, p.ack+p.window)
	if p.dup {
		// We took a segment for lost that was only late. RFC 8985, section 6.2.
		c.reorder = min(max(2*c.reorder, c.congestion.base/4, int64(time.Millisecond)), max(c.rtt, int64(time.Millisecond)))
	}
	arrived, newest := 0, (*segment)(nil)
	got := func(s *segment) {
		if s.got {
			return
		}
		s.got = true
		arrived += s.size()
		if s.lost {
			s.lost = false
			c.lostN--
		} else {
			c.pipe -= s.size()
		}
		if newest == nil || s.tx > newest.tx {
			newest = s
		}
	}
	for len(c.segs) > 0 && c.segs[0].end() <= p.ack {
		got(c.segs[0])
		if c.segs[0].fin {
			c.finAcked = true
		}
		c.segs[0] = nil
		c.segs = c.segs[1:]
	}
	if len(c.segs) == 0 {
		c.segs = nil
		c.strange = false
	}
	if p.ack > c.acked {
		c.acked = p.ack
		c.timeouts = 0
	}
	if len(p.sacks) > 0 {
		c.strange = true
		i := 0
		for _, r := range p.sacks {
			for i < len(c.segs) && c.segs[i].pos < r.from {
				i++
			}
			for ; i < len(c.segs) && c.segs[i].end() <= r.to; i++ {
				got(c.segs[i])
			}
		}
	}
	if arrived > 0 {
		if !newest.again {
			c.measure(c.n.now - newest.at)
		}
		if c.recent == nil || newest.tx > c.recent.tx {
			c.recent = newest
		}
		c.arrived = count{c.arrived.bytes + int64(arrived), c.n.now, newest.at}
		took := max(c.n.now-newest.since.at, newest.at-newest.since.sent)
		c.congestion.arrived(arrived, c.arrived.bytes-newest.since.bytes, took)
		if newest.tx > c.roundTx {
			c.roundTx = c.sent
			c.congestion.endRound()
		}
		if len(c.segs) == 0 {
			c.n.cancel(&c.timeout)
		} else {
			c.n.at(c.n.now+c.patience(), &c.timeout)
		}
		c.findLost()
	}
	if arrived > 0 || grown {
		c.mark()
	}
}

// findLost looks for segments that should have arrived before others that have.
// RFC 8985 (RACK), section 6.2.
func (c *Conn) findLost() {
	c.n.cancel(&c.overdue)
	if !c.strange || c.recent == nil {
		return
	}
	wait := max(c.reorder, min(c.congestion.base, c.rtt)/4)
	next := int64(never)
	for _, s := range c.segs {
		if s.got || s.lost || s.tx > c.recent.tx {
			continue
		}
		if late := s.at + c.rtt + wait; late > c.n.now {
			next = min(next, late)
			continue
		}
		c.lose(s)
	}
	if next != never {
		c.n.at(next, &c.overdue)
	}
}

func (c *Conn) lose(s *segment) {
	s.lost = true
	c.lostN++
	c.pipe -= s.size()
}

// timedOut is called when nothing has arrived for long.
func (c *Conn) timedOut() {
	c.timeouts++
	if c.state != established {
		if c.timeouts > maxGreetings {
			c.end(syscall.ETIMEDOUT)
			return
		}
		c.greet = true
		c.mark()
		return
	}
	if c.timeouts > maxTimeouts {
		c.end(syscall.ETIMEDOUT)
		return
	}
	for _, s := range c.segs {
		if !s.got && !s.lost {
			c.lose(s)
		}
	}
	c.congestion.timeout()
	c.mark()
}
