package simnet

import "slices"

// receiver is the receiving half of a connection.
type receiver struct {
	in     [][]byte // arrived in order, to be read
	unread int64    // bytes in in
	got    int64    // all before this position has arrived
	early  []chunk  // arrived before what precedes it, by position, not overlapping
	limit  int64    // where the window ends that the peer was told of
	buffer int64    // bytes to hold for the reader

	finAt   int64 // position of the peer's FIN; -1: unknown
	finSeen bool  // all before it has arrived too
	dup     bool  // something has arrived twice: the peer should know

	updating bool  // the acknowledgement that is due tells of a window that has grown
	reading  int64 // bytes read since readAt, by which the buffer grows
	readAt   int64
	greetAt  int64 // when we sent our first SYN
	update   event // sends a window update again that was lost
}

// chunk is a part of the stream that has arrived early.
type chunk struct {
	span
	data []byte
}

// firstWindow is what a connection lets the peer send at first. It grows when the
// reader is quick, as in Linux.
func (n *Network) firstWindow() int64 { return int64(min(128<<10, n.cfg.ReceiveBuffer)) }

func (r *receiver) init(c *Conn) {
	r.buffer = c.n.firstWindow()
	r.limit = r.buffer // as the peer assumes
	r.finAt = -1
	r.update.do = func() {
		c.ackDue, c.updating = true, true
		c.mark()
	}
}

func (c *Conn) stopReceiving() {
	c.n.cancel(&c.update)
	c.early = nil
}

// receive takes a packet from the peer.
func (c *Conn) receive(p *packet) {
	switch {
	case p.flags&rst != 0:
		if p.to2 == c.created { // else it is about an older connection
			if c.state == synSent {
				c.end(errRefused)
			} else {
				c.end(errReset)
			}
		}
		return
	case p.flags&syn != 0:
		c.receiveSYN(p)
		return
	case p.to2 != c.created || c.state == synSent:
		c.h.refuse(p)
		return
	case c.state == synReceived:
		if c.timeouts == 0 && c.listener != nil {
			c.measure(c.n.now - c.greetAt)
		}
		c.open()
	}
	c.acknowledged(p)
	if len(p.data) > 0 || p.flags&fin != 0 {
		c.arrive(p)
	}
}

func (c *Conn) receiveSYN(p *packet) {
	answers := p.flags&ack != 0 && p.to2 == c.created
	switch {
	case c.state == synSent && answers:
		c.peer = p.id
		if c.timeouts == 0 {
			c.measure(c.n.now - c.greetAt)
		}
		c.ackDue = true
		c.open()
	case c.state == synSent && p.flags == syn:
		// Both ends dial each other: "simultaneous initiation", RFC 9293, 3.5.
		c.peer = p.id
		c.state = synReceived
		c.greet = true
		c.mark()
	case c.state == synSent:
		c.h.refuse(p)
	case c.state == synReceived && p.id != c.peer:
		c.end(errReset) // the peer has given up and tries again
		c.h.receive(p)
	case c.state == synReceived && answers:
		c.ackDue = true
		c.open()
	case c.state == synReceived:
		c.greet = true
		c.mark()
	default:
		// Either our last acknowledgement got lost, or the peer has forgotten
		// this connection and makes a new one: then it will reset this one.
		// "challenge ACK", RFC 5961, section 4.
		c.ackDue = true
		c.mark()
	}
}

// arrive takes a segment's data.
func (c *Conn) arrive(p *packet) {
	c.ackDue = true
	c.mark()
	s := span{p.seq, p.seq + int64(len(p.data))}
	if c.closed && s.to > c.got {
		c.abort(errReset) // for nobody
		return
	}
	end := s.to
	if p.flags&fin != 0 {
		c.finAt = s.to
		end++
	}
	switch {
	case end <= c.got:
		c.dup = true
		return
	case s.to > max(c.limit, c.got):
		c.n.trace(Dropped, p, NoRoom)
		return
	case s.from > c.got:
		i, found := slices.BinarySearchFunc(c.early, s.from, func(k chunk, pos int64) int { return int(k.from - pos) })
		if found {
			c.dup = true
		} else {
			c.early = slices.Insert(c.early, i, chunk{span{s.from, end}, p.data})
		}
		return
	}
	c.keep(p.data)
	n := 0
	for n < len(c.early) && c.early[n].from == c.got {
		c.keep(c.early[n].data)
		n++
	}
	c.early = slices.Delete(c.early, 0, n)
	if c.got == c.finAt {
		c.finSeen = true
		c.got++
		c.early = nil
	}
	c.readable.Broadcast()
}

func (c *Conn) keep(data []byte) {
	c.got += int64(len(data))
	if len(data) > 0 {
		c.in = append(c.in, data)
		c.unread += int64(len(data))
	}
}

// acknowledge writes into p what has arrived.
func (c *Conn) acknowledge(p *packet) {
	c.limit = max(c.limit, c.got-c.unread+c.buffer)
	p.ack, p.window = c.got, c.limit-c.got
	for _, k := range c.early {
		if last := len(p.sacks) - 1; last >= 0 && p.sacks[last].to == k.from {
			p.sacks[last].to = k.to
		} else {
			p.sacks = append(p.sacks, k.span)
		}
	}
	p.dup, c.dup = c.dup, false
}

// sendAck sends an acknowledgement alone.
func (c *Conn) sendAck() {
	p := c.packet(ack)
	p.seq = c.next
	if c.updating {
		p.owner = c
	}
	c.ackDue, c.updating = false, false
	c.transmit(p, 0)
}

// updateLost is called when a window update got lost. Real TCP has the sender ask
// for it from time to time. This end knows better, so that a connection whose
// reader sleeps needs no timer.
func (c *Conn) updateLost() {
	if c.state == established {
		c.n.at(c.n.now+c.patience(), &c.update)
	}
}

// take gives the application what has arrived.
func (c *Conn) take(p []byte) int {
	n := 0
	for n < len(p) && len(c.in) > 0 {
		k := copy(p[n:], c.in[0])
		n += k
		if k == len(c.in[0]) {
			c.in[0] = nil
			c.in = c.in[1:]
		} else {
			c.in[0] = c.in[0][k:]
		}
	}
	if len(c.in) == 0 {
		c.in = nil
	}
	c.unread -= int64(n)

	// A window of twice of what is read in a round trip lets the peer send
	// on without a pause.
	c.reading += int64(n)
	if c.n.now-c.readAt > c.rtt {
		c.buffer = max(c.buffer, min(2*c.reading, int64(c.n.cfg.ReceiveBuffer)))
		c.reading, c.readAt = 0, c.n.now
	}
	if c.state == established && !c.finSeen && c.got-c.unread+c.buffer-c.limit >= c.buffer/4 {
		c.ackDue, c.updating = true, true
		c.mark()
	}
	return n
}
