//go:build invariants

package session

import "fmt"

const invariants = true

// check panics if the session's books do not balance.
func (s *Session) check() {
	n, held, inbound, unacked, windows, waiters, ringed, ctl := 0, 0, 0, 0, 0, 0, 0, 0
	count := func(n *int, is bool) {
		if is {
			*n++
		}
	}
	for st := s.all.first; st != nil; st = s.all.next(st) {
		n++
		held += st.rbuf.held
		windows += st.recvMax - s.cfg.Window
		count(&inbound, !st.local)
		count(&unacked, st.unacked)
		count(&waiters, st.rblocked+st.wblocked > 0)
		count(&ringed, st.inRing)
		count(&ctl, st.inCtl)
		sum := st.recvLeft + st.rbuf.n + st.unreturned
		if s.cur == st {
			sum += s.body // on its way
		}
		switch over := st.eof || st.err != nil; {
		case st.removed:
			broken("stream %d is removed and in the list", st.id)
		case !st.synDue && s.streams[st.id] != st:
			broken("stream %d is not in the table", st.id)
		case st.rn > len(st.rdst):
			broken("stream %d: %d bytes where %d fit", st.id, st.rn, len(st.rdst))
		case st.window < 0:
			broken("stream %d sent more than its window", st.id)
		case st.writes != nil && (st.wclosed && st.writes != &st.held || st.err != nil):
			broken("stream %d writes after its end", st.id)
		case st.writes != nil && st.window > 0 && !st.inRing:
			broken("stream %d has something to send, and no place in the ring", st.id)
		case st.rbuf.n > 0 && (st.rclosed || st.err != nil):
			broken("stream %d holds bytes that nobody can read", st.id)
		case s.cfg.Window > 0 && !over && sum != st.recvMax:
			broken("stream %d: %d left, %d held, %d read, %d coming; the window is %d",
				st.id, st.recvLeft, st.rbuf.n, st.unreturned, sum-st.recvLeft-st.rbuf.n-st.unreturned, st.recvMax)
		}
	}
	switch {
	case n != s.all.n || n < len(s.streams):
		broken("%d streams, counted as %d, %d in the table", n, s.all.n, len(s.streams))
	case held > s.held || s.held > s.cfg.MaxReceive:
		broken("%d bytes held, %d in the books, %d allowed", held, s.held, s.cfg.MaxReceive)
	case inbound != s.inbound || s.cfg.MaxStreams > 0 && inbound > s.cfg.MaxStreams:
		broken("%d streams inbound, %d in the books, %d allowed", inbound, s.inbound, s.cfg.MaxStreams)
	case unacked != s.unacked:
		broken("%d streams unacknowledged, %d in the books", unacked, s.unacked)
	case windows != s.windows:
		broken("windows grown by %d, %d in the books", windows, s.windows)
	case waiters > s.waiters.n || ringed > s.ring.n+s.fresh.n || ctl > s.ctl.n:
		broken("%d waiters of %d, %d in the ring of %d, %d with control frames of %d",
			waiters, s.waiters.n, ringed, s.ring.n+s.fresh.n, ctl, s.ctl.n)
	case s.grace && s.reading:
		broken("the read token is taken, and kept for somebody")
	}
}

func broken(format string, args ...any) { panic(fmt.Sprintf("session: "+format, args...)) }
