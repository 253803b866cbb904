package sctp

import (
	"slices"
	"time"
)

const (
	firstCwnd = 10 * PacketSize
	minCwnd   = 4 * PacketSize

	// reordered is how many later chunks have to arrive before a chunk counts as lost.
	reordered = 3

	// meek is how many bytes a stream may always have unread at the peer while
	// there is room.
	meek = 64 << 10
)

// sender is the half of an association that sends messages.
type sender struct {
	firstTSN, nextTSN uint32
	order             uint64 // of the next chunk, in which they are sent

	active  []*outStream // that have messages, the next one first
	current *outStream   // of whose first message a part was sent
	streams map[uint16]*outStream

	// flight is what has not been acknowledged cumulatively, TSN by TSN. What is
	// before begin is free.
	flight []outChunk
	begin  int
	bytes  int  // sent, neither acknowledged nor lost
	lost   int  // chunks that are to be sent again
	resume int  // where in flight the first lost one can be
	met    bool // for now, only those of streams that the peer knows are sent again

	window, full uint32 // what the peer has room for beyond the flight; the most that it ever had
	cwnd         int
	threshold    int
	recovery     uint64 // losses of chunks that were sent before mean nothing new
	highest      uint64 // the latest chunk, as they were sent, that has arrived

	srtt, rttvar time.Duration
	backoff      int  // timeouts in a row
	probe        bool // a chunk may be sent though the windows are full

	flying int // bytes sent and not acknowledged, lost or not

	held  int // bytes that are under way, or the peer holds for streams, by our account
	epoch int // accounts of streams are of this epoch, or void
	trial struct {
		next   bool       // one message may go that its stream's account forbids
		stream *outStream // of the last such message
		size   int
		wait   time.Duration // until the next
	}
}

// outStream is what is to be sent on a stream.
type outStream struct {
	id     uint16
	ssn    uint16
	queue  []outMessage
	offset int    // of the first message, up to which it was sent
	last   uint32 // TSN that was sent last
	sent   bool   // there is one
	met    bool   // a chunk of it has arrived

	// unread is our account of what the peer has not read.
	unread, epoch int
}

type outMessage struct {
	ppid uint32
	data []byte
}

type outChunk struct {
	stream *outStream
	data   []byte
	sent   time.Time
	order  uint64
	ppid   uint32
	ssn    uint16
	flags  byte
	acked  bool
	lost   bool
	again  bool // it was sent more than once
}

func (s *sender) init(tsn uint32) {
	s.firstTSN, s.nextTSN = tsn, tsn
	s.streams = make(map[uint16]*outStream)
	s.cwnd, s.threshold = firstCwnd, MaxFlight
	s.order = 1
}

func (s *sender) meet(v *initValue) { s.window, s.full = v.window, v.window }

func (s *sender) outstanding() []outChunk { return s.flight[s.begin:] }

// tsn is that of the first outstanding chunk.
func (s *sender) tsn() uint32 { return s.nextTSN - uint32(len(s.outstanding())) }

// Send queues a message. The association keeps msg.
func (a *Association) Send(stream uint16, ppid uint32, msg []byte) {
	if a.state == ended || len(msg) == 0 {
		return
	}
	st := a.send.streams[stream]
	if st == nil {
		st = &outStream{id: stream}
		a.send.streams[stream] = st
	}
	if len(st.queue) == 0 {
		a.send.active = append(a.send.active, st)
	}
	st.queue = append(st.queue, outMessage{ppid, msg})
}

// Drop forgets those of a stream's messages with this ppid of which nothing was sent.
func (a *Association) Drop(stream uint16, ppid uint32) {
	a.drop(stream, func(m outMessage) bool { return m.ppid == ppid })
}

func (a *Association) drop(stream uint16, which func(outMessage) bool) {
	st := a.send.streams[stream]
	if st == nil || len(st.queue) == 0 {
		return
	}
	begun := 0
	if a.send.current == st {
		begun = 1
	}
	rest := slices.DeleteFunc(st.queue[begun:], which)
	if st.queue = st.queue[:begun+len(rest)]; len(st.queue) > 0 {
		return
	}
	st.queue = nil
	a.send.active = slices.DeleteFunc(a.send.active, func(o *outStream) bool { return o == st })
}

// Drained tells that all that was queued has arrived.
func (a *Association) Drained() bool {
	return len(a.send.active) == 0 && len(a.send.outstanding()) == 0
}

// RTT is the smoothed round-trip time; 0 while it is unknown.
func (a *Association) RTT() time.Duration { return a.send.srtt }

// maySend tells that the windows let a chunk go, and there is one.
func (a *Association) maySend(now time.Time) bool {
	s := &a.send
	if s.probe {
		return s.lost > 0 || len(s.active) > 0
	}
	if s.bytes >= min(s.cwnd, MaxFlight) {
		return false
	}
	if s.lost > 0 || s.next() != nil {
		return true
	}
	if len(s.active) > 0 && len(s.outstanding()) == 0 && a.deadlines[timerTrial].IsZero() {
		s.trial.wait = min(max(2*s.trial.wait, 2*s.srtt+10*time.Millisecond), maxRTO)
		a.deadlines[timerTrial] = now.Add(s.trial.wait)
	}
	return false
}

// onTrial lets one message of a stream go that is not read, by our account. The
// peer may have read it and not told, or the account may be wrong.
func (s *sender) onTrial() { s.trial.next = len(s.active) > 0 && len(s.outstanding()) == 0 }

// next picks the stream whose turn it is.
//
// The peer has one window for all streams. One that it does not read must not fill
// it, or all others would stand still. How much the peer has not read of each we
// estimate from how its window changes. A stream may send while it has less
// unread than there is room left: so one that is not read stops at half of the
// window, the next at half of the rest.
func (s *sender) next() *outStream {
	if s.current != nil {
		return s.current
	}
	for range s.active {
		st := s.active[0]
		if st.epoch != s.epoch {
			st.unread, st.epoch = 0, s.epoch
		}
		if st.unread <= max(meek, int(s.window)) || s.trial.next {
			return st
		}
		s.active = append(s.active[1:], st) // its turn is over
	}
	return nil
}

// appendData appends a chunk that is to be sent, if there is one that fits and may go.
func (a *Association) appendData(now time.Time, b []byte, room int) []byte {
	s := &a.send
	if s.lost > 0 {
		return a.appendLost(now, b, room)
	}
	st := s.next()
	if st == nil {
		return b
	}
	m := &st.queue[0]
	n := min(len(m.data)-st.offset, DataSize)
	if padded(n)+dataHeaderSize > room {
		return b
	}
	if !s.probe && (s.bytes+n > min(s.cwnd, MaxFlight) || n > int(s.window) && len(s.outstanding()) > 0) {
		return b
	}
	c := outChunk{stream: st, data: m.data[st.offset : st.offset+n], ppid: m.ppid, ssn: st.ssn}
	if st.offset == 0 {
		c.flags |= flagBegin
	}
	st.offset += n
	if s.current = st; st.offset == len(m.data) {
		c.flags |= flagEnd
		st.ssn++
		st.offset = 0
		size := len(m.data)
		*m = outMessage{}
		st.queue = st.queue[1:]
		s.current = nil
		s.active = s.active[1:]
		if s.trial.next {
			s.trial.next, s.trial.stream, s.trial.size = false, st, size
		}
		if len(st.queue) > 0 {
			s.active = append(s.active, st)
		} else {
			st.queue = nil
		}
	}
	if s.begin > 1024 && s.begin > len(s.flight)/2 {
		k := copy(s.flight, s.flight[s.begin:])
		clear(s.flight[k:])
		s.flight, s.begin = s.flight[:k], 0
		s.resume, s.met = 0, true
	}
	s.flight = append(s.flight, c)
	st.last, st.sent = s.nextTSN, true
	s.nextTSN++
	s.window -= min(uint32(n), s.window)
	s.flying += n
	s.held += n
	st.unread += n
	b = a.transmit(now, b, len(s.outstanding())-1)
	a.ev.Sent(st.id, n)
	return b
}

// appendLost appends the first of the lost chunks. What all others wait for is the
// first; then come those of streams that the peer knows.
//
// pion/sctp has room for 16 new streams, and drops chunks of further ones without an
// acknowledgement. If it drops what opens one, and takes what follows, it waits for the
// former, and takes no stream until it comes. Chunks of others, in front of it, would
// be dropped again and again, and keep it from being sent.
func (a *Association) appendLost(now time.Time, b []byte, room int) []byte {
	s := &a.send
	out := s.outstanding()
	for ; s.met || s.resume < len(out); s.resume++ {
		if s.resume == len(out) {
			s.met, s.resume = false, 0
		}
		c := &out[s.resume]
		if !c.lost || s.met && !c.stream.met && s.resume > 0 {
			continue
		}
		if padded(len(c.data))+dataHeaderSize > room || !s.probe && s.bytes > 0 && s.bytes+len(c.data) > s.cwnd {
			return b
		}
		c.lost, c.again = false, true
		s.lost--
		return a.transmit(now, b, s.resume)
	}
	return b
}

// transmit appends the i-th outstanding chunk.
func (a *Association) transmit(now time.Time, b []byte, i int) []byte {
	s := &a.send
	c := &s.outstanding()[i]
	v := dataValue{flags: c.flags, tsn: s.tsn() + uint32(i), stream: c.stream.id, ssn: c.ssn, ppid: c.ppid, data: c.data}
	if c.again {
		v.flags |= flagImmediate
	}
	c.sent, c.order = now, s.order
	s.order++
	s.bytes += len(c.data)
	s.probe = false
	if a.deadlines[timerRetransmit].IsZero() {
		a.deadlines[timerRetransmit] = now.Add(s.timeout())
	}
	return v.append(b)
}

// timeout is how long to wait for an acknowledgement. First comes a probe, soon, that
// asks for one: chunks that were lost at the end of what was sent show by it. Acks may
// be delayed by 200 ms, so that nothing follows from silence so far. Then come
// timeouts proper.
func (s *sender) timeout() time.Duration {
	if s.srtt == 0 {
		return min(firstRTO<<s.backoff, maxRTO)
	}
	if s.backoff == 0 {
		return 2*s.srtt + 4*s.rttvar + 30*time.Millisecond
	}
	return min(max(s.srtt+4*s.rttvar, minRTO)<<(s.backoff-1), maxRTO)
}

// onRetransmit is called when no acknowledgement came.
//
// https://www.rfc-editor.org/rfc/rfc9260#section-6.3.3
func (a *Association) onRetransmit(now time.Time) {
	s := &a.send
	out := s.outstanding()
	if len(out) == 0 {
		return
	}
	first := true
	for i := range out {
		c := &out[i]
		if c.acked {
			continue
		}
		if !c.lost && (first || s.backoff > 0) {
			c.lost = true
			s.lost++
			s.bytes -= len(c.data)
		}
		if first = false; s.backoff == 0 {
			break
		}
	}
	s.resume, s.met = 0, true
	if s.backoff > 0 && s.window > 0 {
		s.threshold = max(s.cwnd/2, minCwnd)
		s.cwnd = minCwnd
		s.recovery = s.order
	}
	s.backoff++
	s.probe = true
	a.deadlines[timerRetransmit] = now.Add(s.timeout())
}

// onSack takes an acknowledgement.
func (a *Association) onSack(now time.Time, value []byte) error {
	v, err := parseSack(value)
	if err != nil {
		return err
	}
	s := &a.send
	first := s.tsn()
	if a.state < cookieEchoed || less(v.cum+1, first) {
		return nil // an old one
	}
	n := int(v.cum + 1 - first) // chunks that are acknowledged cumulatively
	out := s.outstanding()
	if n > len(out) {
		return malformed("SACK of what was not sent")
	}
	within := func(i int) (from, to int) { // out, a gap block
		g := v.block(i)
		return int(int32(g.first - first)), int(int32(g.last - first))
	}
	all := n
	for i := range len(v.blocks) / 4 {
		from, to := within(i)
		if from < n || to < from || to >= len(out) {
			return malformed("gap block")
		}
		// Blocks that say the same again and again would keep us busy.
		if all += to - from + 1; all > len(out) {
			return malformed("gap blocks overlap")
		}
	}
	if a.state == cookieEchoed {
		a.establish() // the COOKIE ACK was lost
	}
	acked, lastStream := 0, (*outStream)(nil)
	var newest *outChunk
	ack := func(c *outChunk) {
		if c.acked {
			return
		}
		c.acked, c.stream.met = true, true
		acked += len(c.data)
		s.flying -= len(c.data)
		lastStream = c.stream
		if c.lost {
			c.lost = false
			s.lost--
		} else {
			s.bytes -= len(c.data)
		}
		if newest == nil || c.order > newest.order {
			newest = c
		}
	}
	for i := range n {
		ack(&out[i])
	}
	for i := range len(v.blocks) / 4 {
		for j, to := within(i); j <= to; j++ {
			ack(&out[j])
		}
	}
	if newest != nil {
		s.highest = max(s.highest, newest.order)
		if !newest.again {
			s.measure(now.Sub(newest.sent))
		}
		s.backoff, s.probe = 0, false
	}
	lost := false
	if n < len(out) {
		lost = s.findLost(out[n:])
	}
	clear(out[:n])
	s.begin += n
	s.resume, s.met = 0, true
	if s.begin == len(s.flight) {
		s.flight, s.begin = s.flight[:0], 0
		if cap(s.flight) > 256 && len(s.active) == 0 {
			s.flight = nil // an idle connection holds nothing
		}
	}
	switch limited := s.bytes+acked+PacketSize >= s.cwnd; {
	case lost:
	case acked > 0 && limited && s.cwnd < s.threshold:
		s.cwnd += acked
	case acked > 0 && limited:
		s.cwnd += max(1, PacketSize*acked/s.cwnd)
	}
	s.cwnd = min(s.cwnd, MaxFlight)
	s.account(v.window, lastStream)
	switch {
	case len(s.outstanding()) == 0:
		a.deadlines[timerRetransmit] = time.Time{}
	case acked > 0:
		a.deadlines[timerRetransmit] = now.Add(s.timeout())
	}
	a.reset.check = true
	return nil
}

// findLost marks what was sent before what has arrived, and tells that the path is
// congested.
//
// https://www.rfc-editor.org/rfc/rfc9260#section-7.2.4
func (s *sender) findLost(out []outChunk) (congested bool) {
	for i := range out {
		c := &out[i]
		if c.acked || c.lost || c.order+reordered > s.highest {
			continue
		}
		c.lost = true
		s.lost++
		s.bytes -= len(c.data)
		if c.order >= s.recovery {
			congested = true
		}
	}
	if congested {
		s.threshold = max(s.cwnd/2, minCwnd)
		s.cwnd = s.threshold
		s.recovery = s.order
	}
	return congested
}

// measure takes a round trip.
//
// https://www.rfc-editor.org/rfc/rfc9260#section-6.3.1
func (s *sender) measure(rtt time.Duration) {
	rtt = max(rtt, 1)
	if s.srtt == 0 {
		s.srtt, s.rttvar = rtt, rtt/2
		return
	}
	s.rttvar += ((s.srtt - rtt).Abs() - s.rttvar) / 4
	s.srtt += (rtt - s.srtt) / 8
}

// account takes what the peer says of its window. What has left it was read; of whom,
// we do not know. We take it for the stream that has just been acknowledged, as what is
// read is sent, and what is not read is not.
func (s *sender) account(window uint32, st *outStream) {
	s.full = max(s.full, window)
	held := int(s.full-window) + s.flying
	s.window = window - min(window, uint32(s.flying))
	if s.full-window <= s.full/8 { // all was read, by and large
		s.held, s.trial.wait = held, 0
		s.epoch++
		return
	}
	read := s.held - held
	s.held = held
	if read <= 0 {
		return
	}
	s.trial.wait = 0
	if t := s.trial.stream; t != nil && read >= s.trial.size && t.epoch == s.epoch {
		// It was the only one that was sent, and streams are read in order. So all
		// that we took for unread on it is unread on others.
		rest := max(0, t.unread-s.trial.size)
		t.unread -= rest
		for _, o := range s.active {
			if o != t && o.epoch == s.epoch {
				o.unread += rest
				break
			}
		}
	}
	s.trial.stream = nil
	if st != nil && st.epoch == s.epoch {
		n := min(read, st.unread)
		st.unread -= n
		read -= n
	}
	for _, o := range s.streams {
		if read == 0 {
			break
		}
		if o.epoch == s.epoch {
			n := min(read, o.unread)
			o.unread -= n
			read -= n
		}
	}
}
