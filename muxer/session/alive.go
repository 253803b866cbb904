package session

import (
	"time"

	"github.com/plexus-p2p/plexus/muxer"
)

// ping sends a ping, unless one is out.
func (s *Session) ping() {
	if s.cfg.Pings && !s.pingOut {
		s.pingIsDue()
		s.control(nil)
	}
}

func (s *Session) pingIsDue() {
	s.pingOut, s.pingDue = true, true
	s.pingID++
}

// pong takes the answer.
func (s *Session) pong(id uint64) {
	if !s.pingOut || s.pingDue || id != s.pingID {
		return
	}
	s.pingOut, s.arrived = false, s.covered
	if s.probed != 0 { // all is well, and the timer need not come to tell
		s.probed = 0
		s.alive.Reset(s.together(s.quiet()))
	}
	d := max(s.now()-s.pingSent, 1)
	if s.rtt == 0 {
		s.rtt = d
	} else {
		s.rtt += (d - s.rtt) / 8
	}
}

// quiet is how long the peer may be silent.
//
// Where the system watches it, a ping costs more than it tells: it wakes both ends. But the
// system does not look while it sends again and again what is not acknowledged, which
// may take it a quarter of an hour. So it takes over when a ping's answer has shown that there is
// no such thing, until something else is sent. A pong that gets lost with the peer's host is
// not worth a ping: then Watched and Timeout hold.
//
// One end asks a step before the other, who has heard from it then, and need not.
func (s *Session) quiet() time.Duration {
	d := s.cfg.KeepAlive
	if s.watched && s.arrived {
		d = s.cfg.Watched
	}
	if s.cfg.FirstID&1 == 1 {
		d -= s.step()
	}
	return d
}

// step is how far the moments are apart in which sessions look at their peers.
func (s *Session) step() time.Duration { return max(s.cfg.KeepAlive/16, 1) }

// underWay is called when something other than pings and pongs is about to be sent.
func (s *Session) underWay() {
	s.covered = false
	if !s.arrived {
		return
	}
	s.arrived = false
	if s.watched && s.probed == 0 && s.alive != nil && s.err == nil { // else the timer fires soon enough
		s.alive.Reset(s.together(s.quiet()))
	}
}

// onAlive runs when the peer may have been silent for too long. A dead peer is
// noticed after KeepAlive and Timeout, by us or by the system.
func (s *Session) onAlive() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		return
	}
	silent := s.now() - s.received
	switch {
	case silent < s.quiet():
		s.probed = 0
		s.alive.Reset(s.together(s.quiet() - silent))
	case s.probed == 0:
		s.probed = s.now()
		s.alive.Reset(s.cfg.Timeout)
		s.pingIsDue() // the last one is lost, if one is out
		s.urgent = true
		if !s.writing && s.mute == nil {
			s.writing = true
			s.send(nil) // here, as this is a goroutine already
		}
		s.kick()
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
	grid := s.step()
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
