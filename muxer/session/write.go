package session

import (
	"net"
	"os"
	"runtime"
	"sync"
	"time"

	"github.com/plexus-p2p/plexus/muxer"
)

const (
	// maxBatch is what goes to the connection at once. What is twice as long does not
	// fit a first-level cache, nor a packet of the kernel's as soon as it is
	// encrypted, and while one half is sealed the peer can open the other.
	maxBatch = 32 << 10

	// maxTail is how much longer a batch gets if a Write is done with it. A
	// Write of 64 KiB would else leave a few bytes for another system call.
	maxTail = 4 << 10

	// quantum is what a stream may put into a batch if others wait.
	quantum = 8 << 10

	// maxControl is how much of a batch control frames take at most, and
	// minFrame how much must be left for another stream to have its turn.
	maxControl = 16 << 10
	minFrame   = 1 << 10

	// A stream whose Writes follow each other within rush, and are small, has them
	// copied into maxHeld bytes, from rushed of them on, while others go out.
	rush    = 20 * time.Microsecond
	rushed  = 4
	maxHeld = 16 << 10

	// maxFirst bounds the body of a stream's first frame: rust-yamux before
	// 0.13.10 panics if it is longer than the window (CVE-2026-32314).
	maxFirst = 16 << 10
)

var (
	batches = sync.Pool{New: func() any { b := make([]byte, 0, maxBatch+maxTail); return &b }}
	holds   = sync.Pool{New: func() any { b := make([]byte, 0, maxHeld); return &b }}
)

// A write is what one Write has still to send.
type write struct {
	p    []byte
	next *write
	busy bool
}

// Write implements net.Conn.
func (st *Stream) Write(p []byte) (n int, err error) {
	s := st.s
	s.mu.Lock()
	defer s.mu.Unlock()
	st.check(&st.wlimit)
	if err := st.writeErr(); err != nil {
		return 0, err
	}
	if s.closing != nil {
		return 0, s.closing
	}
	if len(p) == 0 {
		return 0, nil
	}
	if st.hurries(len(p)) {
		st.hold(p)
		return len(p), nil
	}
	w := &st.first
	if w.busy {
		w = new(write)
	}
	w.p, w.next, w.busy = p, nil, true
	last := &st.writes
	for *last != nil {
		last = &(*last).next
	}
	*last = w
	st.wrote, st.answered = true, false
	st.enqueue()
	st.waiting++
	s.pending++

	waited, led := false, false
	for len(w.p) > 0 {
		if err = st.writeErr(); err != nil {
			break
		}
		if !s.writing && s.ring.n+s.fresh.n > 0 {
			st.arm()
			s.writing = true
			s.gather()
			if st.writeErr() != nil { // by now
				go s.flushFn()
				continue
			}
			s.send(st)
			continue
		}
		s.kick() // what became due while we wrote
		st.arm()
		if st.window <= 0 && (s.mayLead(st) || !led && !s.reading) {
			led = true // as one who comes anew: a grace may be long in ending
			s.lead(st, w, false)
		} else {
			st.wait(&st.writers, &st.wblocked)
			waited = true
		}
	}
	n = len(p) - len(w.p)
	for l := &st.writes; *l != nil; l = &(*l).next {
		if *l == w {
			*l = w.next
			break
		}
	}
	w.p, w.busy = nil, false
	st.wroteAt = s.sent
	if st.ackDue {
		s.queue(st) // it was to ride with what was not sent
	}
	st.waiting--
	s.pending--
	if waited {
		s.passOn()
	}
	s.kick()
	if invariants {
		s.check()
	}
	return n, err
}

// hurries tells whether a Write of n bytes should be held, and leave at once: many small
// ones have come without a pause or an answer, and there is room.
func (st *Stream) hurries(n int) bool {
	s := st.s
	if n > maxHeld/8 || !st.wrote || st.answered || s.now()-st.wroteAt > rush {
		st.rapid = 0
		return false
	}
	if st.rapid < rushed {
		st.rapid++
		return false
	}
	h := &st.held
	return !h.busy && st.writes == nil || h.busy && h.next == nil && cap(h.p)-len(h.p) >= n
}

// hold keeps p for the next batch. The caller has seen that there is room.
func (st *Stream) hold(p []byte) {
	s, h := st.s, &st.held
	if !h.busy {
		st.heldIn = holds.Get().(*[]byte)
		h.p, h.busy = *st.heldIn, true
		st.writes = h
		s.pending++
	}
	h.p = append(h.p, p...)
	st.wroteAt = s.now()
	st.enqueue()
	s.kick()
}

// letGo is called when what was held has gone into a batch, or is dropped.
func (st *Stream) letGo() {
	h := &st.held
	if !h.busy {
		return
	}
	*h = write{}
	holds.Put(st.heldIn)
	st.heldIn = nil
	st.s.pending--
}

// writeErr is why nothing more can be sent, or cannot at the moment.
func (st *Stream) writeErr() error {
	switch {
	case st.wlimit.expired:
		return os.ErrDeadlineExceeded
	case st.err != nil:
		return st.err
	case st.wclosed:
		return net.ErrClosed
	case st.s.err != nil:
		return st.s.err
	}
	return st.s.mute
}

// enqueue puts the stream in the ring of those that wait for their turn, if it has
// something to send and may. A stream that had nothing to send before has its turn first.
func (st *Stream) enqueue() {
	if !st.inRing && st.writes != nil && st.window > 0 {
		st.inRing = true
		st.s.fresh.push(st)
	}
}

// queue puts control frames of st into the next batch. The caller kicks.
func (s *Session) queue(st *Stream) {
	if !st.inCtl {
		st.inCtl = true
		s.ctl.push(st)
	}
}

// control sends control frames of st, or of the session, soon.
func (s *Session) control(st *Stream) {
	if st != nil {
		s.queue(st)
	}
	s.urgent = true
	s.kick()
}

// kick sees to it that what waits is written, if nobody is writing.
func (s *Session) kick() {
	if s.writing || s.err != nil {
		return
	}
	if s.mute != nil {
		s.dropControl()
		return
	}
	for s.fresh.n+s.ring.n > 0 {
		q := &s.fresh
		if q.n == 0 {
			q = &s.ring
		}
		if st := q.ring[q.head]; st.writes != nil && st.window > 0 {
			if st.wblocked > 0 {
				st.writers.Broadcast()
			} else { // their Writes have left
				s.writing = true
				go s.flushFn()
			}
			return
		}
		q.pop().inRing = false
	}
	switch {
	case s.urgent:
		s.writing = true
		go s.flushFn()
	case s.ctl.n > 0:
		s.armTick()
	case s.closing != nil:
		s.closers.Broadcast()
	case s.gone != nil && s.all.n == 0:
		s.fail(s.gone)
	}
}

// flush writes what waits, with the write token, in a goroutine of its own.
func (s *Session) flush() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.send(nil)
	s.kick()
}

// gather lets those go first who have got something to read and are about to run: their
// answers go into the same batch. Otherwise each of them, as it runs, would find the
// connection free and make a system call of its own. It is called with the write token.
func (s *Session) gather() {
	if s.roused > 0 {
		s.mu.Unlock()
		runtime.Gosched()
		s.mu.Lock()
	}
}

// send writes what is left of a batch, or the next one, and gives the write token back.
// If it writes for st, a Write that may not wait any longer calls it off; another
// goroutine then writes the rest, and has the token.
func (s *Session) send(st *Stream) {
	b := s.rest
	if s.rest = nil; b == nil {
		if b = s.batch(); len(*b) == 0 {
			batches.Put(b)
			s.writing = false
			return
		}
	}
	s.passOn() // the peer may not read before we do
	if s.calledOff {
		s.calledOff = false
		s.conn.SetWriteDeadline(time.Time{})
	}
	s.inWrite = st
	s.mu.Unlock()
	n, err := s.conn.Write(*b)
	s.mu.Lock()
	s.inWrite, s.sent = nil, s.now()
	if s.calledOff && isTimeout(err) {
		*b = append((*b)[:0], (*b)[n:]...)
		s.rest = b // even if empty: the connection may hold some of it
		go s.flushFn()
		return
	}
	batches.Put(b)
	s.writing = false
	if err != nil {
		s.failWrite(err)
	}
}

// callOff makes the Write look up that is in conn.Write for its stream.
func (s *Session) callOff() {
	s.calledOff = true
	s.conn.SetWriteDeadline(time.Unix(1, 0))
}

// batch takes the next frames: control frames first, then streams in turn.
func (s *Session) batch() *[]byte {
	buf := batches.Get().(*[]byte)
	b := (*buf)[:0]
	wire := s.cfg.Wire
	for s.pongs.n > 0 {
		b = wire.Append(b, Frame{Kind: Pong, Value: s.pongs.pop()})
	}
	if s.pingDue {
		s.pingDue = false
		s.pingSent, s.covered = s.now(), true
		b = wire.Append(b, Frame{Kind: Ping, Value: s.pingID})
	}
	signs := len(b)
	for s.rsts.n > 0 && len(b) < maxControl {
		r := s.rsts.pop()
		b = wire.Append(b, Frame{Kind: Reset, ID: r.id, Value: uint64(r.code)})
	}
	for s.ctl.n > 0 && len(b) < maxControl {
		st := s.ctl.pop()
		st.inCtl = false
		if st.writes != nil && st.window > 0 && st.grant == 0 {
			continue // its flags ride with its data
		}
		b = s.appendControl(b, st)
	}
	s.urgent = s.rsts.n+s.ctl.n > 0
	for s.fresh.n+s.ring.n > 0 && maxBatch-len(b) >= minFrame+2*s.cfg.MaxHead {
		// Old streams are sure of half the batch.
		q := &s.fresh
		if q.n == 0 || s.ring.n > 0 && len(b) >= maxBatch/2 {
			q = &s.ring
		}
		st := q.pop()
		st.inRing = false
		b = s.appendData(b, st, maxBatch-len(b))
		if w := st.writes; w != nil && w.next == nil && len(w.p) < maxTail-s.cfg.MaxHead && len(b) <= maxBatch {
			b = s.appendData(b, st, maxTail)
		}
		if st.writes != nil && st.window > 0 {
			st.inRing = true
			s.ring.push(st)
		}
	}
	if len(b) > signs {
		s.underWay()
	}
	*buf = b
	return buf
}

// dropControl forgets what cannot be sent any more.
func (s *Session) dropControl() {
	s.pongs, s.rsts, s.pingDue, s.urgent = fifo[uint64]{}, fifo[refusal]{}, false, false
	var b []byte
	for s.ctl.n > 0 {
		st := s.ctl.pop()
		st.inCtl = false
		b = s.appendControl(b[:0], st)
	}
	s.closers.Broadcast()
}

// announce gives the stream its ID. IDs go up in the order of first frames, as some
// protocols ask for.
func (s *Session) announce(st *Stream) {
	st.synDue = false
	st.id = s.nextID
	s.nextID += 2
	s.streams[st.id] = st
}

// flags returns those that the stream's next frame carries.
func (s *Session) flags(st *Stream) Flags {
	var f Flags
	if st.synDue {
		s.announce(st)
		f |= Open
	}
	if st.ackDue {
		st.ackDue = false
		f |= Ack
	}
	return f
}

// appendControl appends what st has to send besides data.
func (s *Session) appendControl(b []byte, st *Stream) []byte {
	if st.removed {
		return b
	}
	if st.rstDue {
		st.rstDue = false
		b = s.cfg.Wire.Append(b, Frame{Kind: Reset, ID: st.id, Value: uint64(st.err.(*muxer.StreamError).Code)})
		s.remove(st)
		return b
	}
	flags := s.flags(st) // gives it an ID
	f := Frame{Kind: Window, Flags: flags, ID: st.id, Value: uint64(st.grant)}
	st.grant = 0
	if st.finDue {
		st.finDue, st.finSent = false, true
		f.Flags |= Fin
	}
	if f.Flags != 0 || f.Value != 0 {
		b = s.cfg.Wire.Append(b, f)
	}
	if st.finSent && st.eof {
		s.remove(st)
	}
	return b
}

// appendData appends one frame of st's data, of room bytes at most.
func (s *Session) appendData(b []byte, st *Stream, room int) []byte {
	if st.writes == nil || st.window <= 0 {
		return b
	}
	if st.grant > 0 {
		n := len(b)
		b = s.appendControl(b, st)
		room -= len(b) - n
	}
	limit := min(int64(room-s.cfg.MaxHead), int64(s.cfg.MaxBody), st.window)
	if s.fresh.n+s.ring.n > 0 {
		limit = min(limit, quantum)
	}
	flags := s.flags(st)
	f := Frame{Kind: Data, Flags: flags, ID: st.id}
	if flags&Open != 0 {
		limit = min(limit, maxFirst)
	}
	for w := st.writes; w != nil && f.Body < int(limit); w = w.next {
		f.Body += min(len(w.p), int(limit)-f.Body)
	}
	b = s.cfg.Wire.Append(b, f)
	st.window -= int64(f.Body)
	for left := f.Body; left > 0; {
		w := st.writes
		n := min(len(w.p), left)
		b = append(b, w.p[:n]...)
		w.p = w.p[n:]
		left -= n
		if len(w.p) == 0 {
			st.writes = w.next
			if w == &st.held {
				st.letGo()
			}
			if st.wblocked > 0 {
				st.writers.Broadcast()
			}
		}
	}
	if st.wclosed && st.writes == nil && !st.finSent {
		st.finDue = true // it waited for what was held
		b = s.appendControl(b, st)
	}
	return b
}
