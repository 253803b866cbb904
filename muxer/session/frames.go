package session

import (
	"math"
	"time"

	"github.com/plexus-p2p/plexus/muxer"
)

// handle does what a frame asks for. Its body, if it has one, follows.
func (s *Session) handle(f Frame) error {
	s.cur, s.body, s.fin = nil, f.Body, false
	switch f.Kind {
	case Skip:
	case Ping:
		if s.pongs.n == maxPongs {
			s.pongs.pop() // a peer that floods is answered the latest only
		}
		s.pongs.push(f.Value)
		s.control(nil)
	case Pong:
		s.pong(f.Value)
	case GoAway:
		if s.gone == nil {
			s.gone = &muxer.SessionError{Code: muxer.Code(f.Value), Remote: true}
			s.openers.Broadcast()
			s.kick() // which ends the session if it has no streams
		}
	default:
		return s.handleStream(f)
	}
	return nil
}

// handleStream does what a stream's frame asks for.
func (s *Session) handleStream(f Frame) error {
	st := s.streams[f.ID]
	ours := f.ID&1 == s.cfg.FirstID&1
	if f.Flags&Open != 0 {
		if ours || st != nil {
			return protocolError("stream %d opened by the wrong end, or twice", f.ID)
		}
		if st = s.admit(f.ID); st == nil {
			return nil
		}
	}
	if st == nil {
		// What a peer sends before it learns that we closed or reset the
		// stream is ignored. A stream that never was is reset, once.
		if f.Kind != Reset && !ours && (!s.seen || f.ID > s.lastID) {
			s.seen, s.lastID = true, f.ID
			s.refuse(f.ID, muxer.StreamProtocolViolation)
		}
		return nil
	}
	st.acked() // some peers forget to say so
	switch f.Kind {
	case Reset:
		st.abort(&muxer.StreamError{Code: muxer.Code(f.Value), Remote: true})
		s.remove(st)
		return nil
	case Window:
		if s.cfg.Window > 0 && f.Value > 0 {
			if st.window += int64(f.Value); st.window > math.MaxUint32 {
				return protocolError("window of stream %d overflows", f.ID)
			}
			st.enqueue()
			st.writers.Broadcast()
		}
	case Data:
		if s.cfg.Window > 0 {
			if f.Body > st.recvLeft {
				return protocolError("stream %d sent %d bytes, its window is %d", f.ID, f.Body, st.recvLeft)
			}
			st.recvLeft -= f.Body
		}
		if st.eof && f.Body > 0 && st.err == nil {
			st.reset(muxer.StreamProtocolViolation)
		}
		s.cur = st
	}
	if f.Flags&Fin != 0 {
		if s.cur = st; f.Body > 0 {
			s.fin = true
		} else {
			st.end()
		}
	}
	return nil
}

// admit takes a stream that the peer opens, or returns nil.
func (s *Session) admit(id uint64) *Stream {
	if !s.seen || id > s.lastID {
		s.seen, s.lastID = true, id
	}
	if s.closing != nil || s.cfg.MaxStreams > 0 && s.inbound >= s.cfg.MaxStreams {
		code := muxer.StreamResourceLimitExceeded
		if s.closing != nil {
			code = muxer.StreamShutdown
		}
		s.refuse(id, code)
		return nil
	}
	st := s.add(false)
	st.id = id
	s.streams[id] = st
	s.newborn = append(s.newborn, st)
	if s.cfg.Acks {
		st.ackDue = true
		s.queue(st)
	}
	return st
}

// A refusal resets a stream that is not in the table.
type refusal struct {
	id   uint64
	code muxer.Code
}

// refuse resets a stream that is not in the table.
func (s *Session) refuse(id uint64, code muxer.Code) {
	if s.rsts.n < maxRefusals {
		s.rsts.push(refusal{id, code})
		s.control(nil)
	}
}

// acked gives back the place in the backlog that the stream holds.
func (st *Stream) acked() {
	if st.unacked {
		st.unacked = false
		st.s.unacked--
		st.s.openers.Broadcast()
	}
}

// deliver gives bytes to the stream's readers: to one who waits, where it wants
// them, else to the buffer.
func (s *Session) deliver(st *Stream, b []byte) {
	if st.wrote {
		st.answered = true
	}
	if st.err != nil {
		return
	}
	if st.rclosed {
		st.consumed(len(b))
		return
	}
	if st.rdst != nil && st.rbuf.n == 0 {
		n := copy(st.rdst[st.rn:], b)
		st.rn += n
		b = b[n:]
		st.consumed(n)
	}
	for len(b) > 0 {
		if s.cfg.Window == 0 && st.rbuf.n+len(b) > s.cfg.MaxQueue ||
			st.rbuf.room() == 0 && s.held+st.rbuf.grow(len(b)) > s.cfg.MaxReceive {
			st.reset(muxer.StreamResourceLimitExceeded)
			return
		}
		held := st.rbuf.held
		b = b[st.rbuf.add(b):]
		s.held += st.rbuf.held - held
	}
	if s.cfg.Window == 0 && st.rbuf.n > s.cfg.MaxQueue/2 && !st.slow {
		s.crowded = st
	}
	s.wakeReaders(st)
}

// wakeReaders wakes those who wait for something to read.
func (s *Session) wakeReaders(st *Stream) {
	if st.rblocked == 0 {
		return
	}
	st.readers.Broadcast()
	if !st.roused {
		st.roused = true
		s.roused++
	}
	if st.readErr() == nil {
		st.leaves()
		s.mix(st)
		if st.prompt && st != s.leader && !s.mixes() {
			s.stepBack = st
		}
	}
}

// mix takes account of whether what comes is for one stream after the other, as here
// for st, or for several in turn. Then one goroutine had better read while others answer.
func (s *Session) mix(st *Stream) {
	if st == s.latest || s.latest == nil || s.latest.rclosed {
		s.mixed -= s.mixed / 4
	} else {
		s.mixed += (256 - s.mixed) / 8
	}
	s.latest = st
}

func (s *Session) mixes() bool { return s.mixed > 128 }

// end is called when the peer will send no more.
func (st *Stream) end() {
	if st.eof || st.err != nil {
		return
	}
	st.eof = true
	if st.wrote {
		st.answered = true
	}
	st.readers.Broadcast()
	if st.finSent {
		st.s.remove(st)
	}
}

// consumed returns window to the peer, for n bytes that need no buffer any more.
//
// "To prevent the streams from stalling, window update frames should be sent
// regularly." They are sent when half the window was used up.
func (st *Stream) consumed(n int) {
	s := st.s
	if s.cfg.Window == 0 || st.eof || st.err != nil || st.removed {
		return
	}
	st.unreturned += n
	if st.unreturned < st.recvMax/2 {
		return
	}
	s.growWindow(st)
	st.grant += st.unreturned
	st.recvLeft += st.unreturned
	st.unreturned = 0
	s.control(st)
}

// growWindow doubles the window of a stream that used up half of it within four
// round trips, because the sender may have had to wait.
func (s *Session) growWindow(st *Stream) {
	now := s.now()
	quick := st.granted > 0 && s.rtt > 0 && now-st.granted < 4*s.rtt
	st.granted = now
	if s.rtt == 0 || now-s.pingSent > rttAge {
		s.ping()
	}
	more := min(st.recvMax, s.cfg.MaxWindow-st.recvMax, s.cfg.MaxReceive/2-s.windows)
	if !quick || more <= 0 || st.rclosed {
		return
	}
	st.recvMax += more
	s.windows += more
	st.unreturned += more
}

const rttAge = 10 * time.Second // after which a busy stream has the round trip measured again
