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
	s.sweep()
	silent := s.now() - s.received
	switch {
	case silent < s.cfg.KeepAlive:
		s.probed = 0
		s.alive.Reset(s.cfg.KeepAlive - silent)
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

// lingering is how long a stream that we closed waits for the peer's end.
const lingering = time.Minute

// sweep resets streams whose peer does not end them after we did.
func (s *Session) sweep() {
	for st := s.all.first; st != nil; st = s.all.next(st) {
		if st.rclosed && st.finSent && st.err == nil {
			if st.closedAt == 0 {
				st.closedAt = s.now()
			} else if s.now()-st.closedAt > lingering {
				st.reset(muxer.StreamGarbageCollected)
			}
		}
	}
}
