package session

import (
	"time"

	"github.com/plexus-p2p/plexus/muxer"
)

// ping sends a ping, unless one is out.
func (s *Session) ping() {
	if s.cfg.Pings && !s.pingOut {
		s.pingOut, s.pingDue = true, true
		s.pingID++
		s.control(nil)
	}
}

// pong takes the answer.
func (s *Session) pong(id uint64) {
	if !s.pingOut || s.pingDue || id != s.pingID {
		return
	}
	s.pingOut = false
	d := max(s.now()-s.pingSent, 1)
	if s.rtt == 0 {
		s.rtt = d
	} else {
		s.rtt += (d - s.rtt) / 8
	}
}

// onAlive runs when the peer may have been silent for too long. A dead peer is
// noticed after KeepAlive and Timeout.
func (s *Session) onAlive() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		return
	}
	silent := s.now() - s.received
	switch {
	case silent < s.cfg.KeepAlive:
		s.probed = 0
		s.alive.Reset(s.together(s.cfg.KeepAlive - silent))
	case s.probed == 0:
		s.probed = s.now()
		s.pingOut = false // the last one is lost
		s.ping()
		s.alive.Reset(s.cfg.Timeout)
	case s.now()-s.probed >= s.cfg.Timeout:
		s.fail(&muxer.SessionError{Remote: true, Err: ErrSilent})
	default:
		s.alive.Reset(s.cfg.Timeout - (s.now() - s.probed))
	}
}

// together returns d and a bit: the sessions of a process, and those of their peers, look
// at their peers at the same moments. Hundreds of idle connections that wake up one by
// one cost several times as much as all at once.
func (s *Session) together(d time.Duration) time.Duration {
	grid := max(s.cfg.KeepAlive/16, 1)
	at := time.Duration(time.Now().UnixNano()) + d
	return d + (grid-at%grid)%grid
}

// lingering is how long a stream that we closed waits for the peer's end.
const lingering = time.Minute

// linger makes sure that a stream of which we closed both directions, and the peer
// does not, is reset after one or two times lingering.
func (st *Stream) linger() {
	s := st.s
	if !st.rclosed || !st.wclosed || st.eof || s.err != nil {
		return
	}
	st.lingers = s.sweeps + 1
	if s.sweeper == nil {
		s.sweeper = time.AfterFunc(lingering, s.onSweep)
	} else if !s.sweeping {
		s.sweeper.Reset(lingering)
	}
	s.sweeping = true
}

func (s *Session) onSweep() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.sweeping = false; s.err != nil {
		return
	}
	s.sweeps++
	for st, next := s.all.first, (*Stream)(nil); st != nil; st = next {
		next = s.all.next(st)
		switch {
		case st.lingers == 0 || st.err != nil:
		case st.lingers < s.sweeps:
			st.reset(muxer.StreamGarbageCollected)
		case !s.sweeping:
			s.sweeping = true
			s.sweeper.Reset(lingering)
		}
	}
}
