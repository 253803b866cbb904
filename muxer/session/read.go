package session

import (
	"sync"
	"time"
)

// A recordReader is a connection that hands out what it received where it lies,
// such as security.RecordReader. The slice is valid until the next call.
type recordReader interface {
	ReadRecord() ([]byte, error)
}

// A buffered connection can tell whether it has received a whole record already,
// so that the next read would not block. A leader that has what it wanted then
// stays for what others want, which makes small records to many streams twice as fast.
type buffered interface {
	Buffered() bool
}

const (
	// A session reads into smallRead bytes of its own, and under bulk into a
	// pooled buffer of bigRead.
	smallRead = 2 << 10
	bigRead   = 128 << 10

	// How long the read token stays free for a reader that is about to come
	// back, and how long a frame that nobody waits for waits for company.
	moment = time.Millisecond

	// After as many calm ticks in a row a tick comes 1<<maxCalm moments later. It is
	// also how long what has come for others may wait for a reader that does not come back.
	maxCalm = 2
)

var bigReads = sync.Pool{New: func() any { b := make([]byte, bigRead); return &b }}

// lead reads the connection with the read token, which is free, until there is
// something for the caller: a Read of st, which may have posted where it wants its
// bytes, or a Write, w, that waits for its window. With a nil st it reads for Serve,
// until the token is better left to somebody else.
func (s *Session) lead(st *Stream, w *write, post bool) {
	s.reading, s.leader, s.grace, s.stepBack = true, st, false, nil
	for s.err == nil {
		err := s.parse()
		for len(s.newborn) > 0 {
			born := s.newborn[0]
			s.newborn = append(s.newborn[:0], s.newborn[1:]...)
			s.mu.Unlock()
			s.accept(born)
			s.mu.Lock()
		}
		if s.ctl.n > 0 {
			s.kick()
		}
		if err != nil {
			s.violated(err)
		} else if s.readErr != nil {
			s.failRead(s.readErr)
		}
		if s.err != nil {
			break
		}
		if s.stepBack != nil || st != nil && st.settled(w, post) {
			if s.waiters.n == 0 || s.ahead == nil || !s.ahead.Buffered() {
				break
			}
		}
		if invariants {
			s.check()
		}
		if s.crowded != nil {
			s.pause()
			continue
		}
		s.fill()
	}
	if st != nil && st.readErr() == nil {
		s.mix(st)
	}
	s.reading, s.leader = false, nil
	s.leave(st)
	if invariants {
		s.check()
	}
}

// mayLead tells whether the read token is free, and not kept for somebody else. One
// who comes anew may take it even so.
func (s *Session) mayLead(st *Stream) bool {
	return !s.reading && (!s.grace || s.graceFor == st)
}

// settled tells whether there is something for those who lead for st.
func (st *Stream) settled(w *write, post bool) bool {
	if w != nil {
		return st.window > 0 || len(w.p) == 0 || st.writeErr() != nil
	}
	return post && st.rn > 0 || st.rbuf.n > 0 || st.readErr() != nil
}

// patience is how long all streams wait for the reader of one that has no window
// and holds half of what it may.
const patience = 100 * time.Millisecond

// pause lets that reader catch up before more is read. One that does not use the
// chance gets no other until it has read everything, and loses the stream.
func (s *Session) pause() {
	st := s.crowded
	late := time.AfterFunc(patience, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		st.slow = true
		s.caughtUp(st)
	})
	s.pausing = true
	for s.pausing && s.crowded != nil {
		s.drain.Wait()
	}
	s.pausing = false
	late.Stop()
}

// caughtUp ends the pause for st.
func (s *Session) caughtUp(st *Stream) {
	if s.crowded == st {
		s.crowded = nil
		s.drain.Broadcast()
	}
}

// fill reads once.
func (s *Session) fill() {
	if s.interrupted {
		s.interrupted = false
		s.conn.SetReadDeadline(time.Time{})
	}
	if s.records == nil && s.big == nil && s.small == nil {
		s.small = make([]byte, smallRead)
	}
	buf := s.small
	if s.big != nil {
		buf = *s.big
	}
	s.inRead = true
	s.mu.Unlock()
	var err error
	if s.records != nil {
		buf, err = s.records.ReadRecord()
	} else {
		var n int
		n, err = s.conn.Read(buf)
		buf = buf[:n]
	}
	s.mu.Lock()
	s.inRead = false
	s.in = buf
	if s.ended {
		s.in = nil
		s.freeBuffers()
		return
	}
	if len(buf) > 0 {
		s.received, s.timeouts = s.now(), 0
	}
	if s.records == nil && err == nil {
		if s.big == nil && len(buf) == smallRead {
			s.big = bigReads.Get().(*[]byte)
		} else if s.big != nil && len(buf) < smallRead {
			copy(s.small, buf)
			s.in = s.small[:len(buf)]
			s.freeBuffers()
		}
	}
	if err == nil {
		return
	}
	switch {
	case isTimeout(err) && s.interrupted: // by us
	case isTimeout(err) && s.timeouts < 100: // by somebody else; after a hundred in a row the connection is broken
		s.timeouts++
		s.interrupted = true
	default:
		s.readErr = err
	}
}

func (s *Session) freeBuffers() {
	if s.big != nil {
		bigReads.Put(s.big)
		s.big = nil
	}
}

// interrupt makes the leader look up from conn.Read.
func (s *Session) interrupt() {
	if s.pausing {
		s.pausing = false
		s.drain.Broadcast()
	}
	if s.inRead {
		s.interrupted = true
		s.conn.SetReadDeadline(time.Unix(1, 0))
	}
}

// leave is called when st's leader, or Serve for a nil st, has put the token down.
func (s *Session) leave(st *Stream) {
	switch {
	case s.err != nil:
	case s.stepBack != nil && !s.stepBack.rclosed && s.stepBack.err == nil: // else its reader does not come back
		s.startGrace(s.stepBack)
	case st == nil:
	case st.readErr() != nil && !st.local:
		// The peer opened this stream, and will open more.
		s.pass()
	case s.mixes() && s.serving:
		st.leaves()
		s.grace, s.graceFor = false, nil
		s.server.Signal()
	case st.readErr() == nil && st.prompt || s.waiters.n == 0:
		st.leaves()
		s.startGrace(st)
	default:
		st.leaves()
		s.pass()
	}
}

// leaves notes that a reader of st has something, and may come back for more.
func (st *Stream) leaves() {
	st.left = st.s.received
	if st.local {
		st.s.left = st.left
	}
}

// startGrace keeps the token free for a moment, for a reader of st. One who has come
// back already, while the accept function ran, is told.
func (s *Session) startGrace(st *Stream) {
	s.grace, s.graceFor = true, st
	if st.rblocked > 0 && !st.roused {
		st.readers.Broadcast()
	}
	s.armTick()
}

// pass wakes one who takes the token, which is free. Whoever was woken and does
// not take it, because it has to leave, passes it on.
func (s *Session) pass() {
	s.grace, s.graceFor = false, nil
	for st := s.waiters.first; st != nil; st = s.waiters.next(st) {
		if st.rblocked == 0 && st.window > 0 {
			continue // a Write that waits for its turn to write
		}
		s.waiters.remove(st) // to the end: the next time it is another's turn
		s.waiters.push(st)
		st.readers.Broadcast()
		st.writers.Broadcast()
		return
	}
	s.server.Signal()
}

// passOn is called by one who waited for the token, among other things, and
// leaves without it.
func (s *Session) passOn() {
	if !s.reading && !s.grace && s.err == nil {
		s.pass()
	}
}

// armTick makes onTick run in a moment. It runs later where what it looks after has
// settled by itself for as long: a timer each moment costs a busy conversation as
// much as all else, since it wakes threads that find nothing to do.
func (s *Session) armTick() {
	if s.ticking {
		return
	}
	s.ticking = true
	if s.received-s.ticked > 2*moment<<maxCalm {
		s.calm = 0
	}
	in := moment << s.calm
	if s.tick == nil {
		s.tick = time.AfterFunc(in, s.onTick)
	} else {
		s.tick.Reset(in)
	}
}

// onTick ends a grace that is over, and sends control frames that have waited
// for company. It stays armed over many graces: most end with the return of
// the reader.
func (s *Session) onTick() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ticking = false
	if s.err != nil {
		return
	}
	now := s.now()
	s.ticked = now
	over := s.grace && now-s.received >= moment
	alone := s.ctl.n > 0 && now-s.sent >= moment
	if over || alone {
		s.calm = 0
	} else if s.calm < maxCalm {
		s.calm++
	}
	if over {
		s.pass()
	}
	if alone {
		s.urgent = true
		s.kick()
	}
	if s.grace || s.ctl.n > 0 && !alone {
		s.armTick()
	}
}

// parse delivers what was received. It returns an error if the peer broke the rules.
func (s *Session) parse() error {
	for s.err == nil {
		if s.body > 0 {
			n := min(s.body, len(s.in))
			if n == 0 {
				return nil
			}
			b := s.in[:n]
			s.in = s.in[n:]
			s.body -= n
			if s.cur != nil {
				s.deliver(s.cur, b)
			}
			if s.body > 0 {
				return nil
			}
			if s.fin {
				s.cur.end()
			}
			s.cur, s.fin = nil, false
			continue
		}
		if len(s.in) == 0 {
			return nil
		}
		f, err := s.next()
		if err != nil {
			return err
		}
		if f == (Frame{Kind: Skip}) {
			continue
		}
		if err := s.handle(f); err != nil {
			return err
		}
	}
	return nil
}

// next parses the head of one frame. It returns an empty Skip if its rest has
// not been received.
func (s *Session) next() (Frame, error) {
	old := len(s.carry)
	if old == 0 {
		f, n, err := s.cfg.Wire.Parse(s.in)
		if err != nil || n > 0 {
			s.in = s.in[n:]
			return f, err
		}
	}
	// A piece of the head came before, or the head is not complete.
	s.carry = append(s.carry, s.in[:min(len(s.in), max(s.cfg.MaxHead-old, 1))]...)
	f, n, err := s.cfg.Wire.Parse(s.carry)
	if err != nil {
		return f, err
	}
	if n == 0 {
		s.in = s.in[len(s.carry)-old:]
		return Frame{Kind: Skip}, nil
	}
	s.in = s.in[n-old:]
	s.carry = s.carry[:0]
	return f, nil
}
