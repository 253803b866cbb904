package session

import (
	"io"
	"net"
	"os"
	"sync"
	"time"

	"github.com/plexus-p2p/plexus/muxer"
)

// Stream is one conversation of a session. It implements [muxer.Stream]. The
// session's lock guards all of it.
type Stream struct {
	s     *Session
	links [kinds]links
	id    uint64
	local bool // we opened it

	// What is to be sent.
	synDue bool // the peer does not know of it, and it has no ID
	ackDue bool
	finDue bool
	rstDue bool
	inCtl  bool // in s.ctl
	inRing bool // in s.ring or s.fresh

	// What has happened.
	unacked  bool  // it holds a place in the backlog
	wrote    bool  // we wrote
	answered bool  // the peer sent something after our last write
	finSent  bool  // our end is in a batch
	eof      bool  // the peer's end has arrived
	rclosed  bool  // by CloseRead or Close
	wclosed  bool  // by CloseWrite or Close
	removed  bool  // not in the session's table any more
	err      error // a reset
	lingers  uint  // we closed it during that sweep, counted from 1
	onReset  func()

	// Reading.
	rbuf     buffer
	rdst     []byte // where one of the readers wants its bytes
	rn       int    // bytes there
	rblocked int    // goroutines that wait in readers
	roused   bool   // one of them has something to read, and has not come yet
	slow     bool   // the session has paused for its reader, in vain
	prompt   bool   // its reader came back in a moment, the last time
	left     time.Duration
	readers  sync.Cond

	recvMax    int // the window
	recvLeft   int // what the peer may still send
	unreturned int // bytes read since the last grant
	grant      int // to be sent in a window update
	granted    time.Duration

	// Writing (write.go).
	window   int64 // what we may send
	writes   *write
	first    write // the first of them, mostly the only one
	held     write // those whose Writes have left, in one; comes before all others
	heldIn   *[]byte
	rapid    int           // small Writes in a row
	wroteAt  time.Duration // when the last Write left, since the session was born
	wblocked int           // goroutines that wait in writers
	writers  sync.Cond

	// Deadlines.
	rlimit, wlimit limit
	timer          *time.Timer
	armed          time.Time // when the timer fires, zero: never
	waiting        int       // Reads and Writes that a deadline would end
}

// A limit is a deadline.
type limit struct {
	at      time.Time
	expired bool
}

// Read implements net.Conn.
func (st *Stream) Read(p []byte) (int, error) {
	s := st.s
	s.mu.Lock()
	defer s.mu.Unlock()
	st.check(&st.rlimit)
	if n, err := st.take(p); n > 0 || err != nil || len(p) == 0 {
		return n, err
	}
	if left := st.left; left != 0 {
		st.prompt = s.now()-left < moment
	} else if st.local && s.left != 0 {
		st.prompt = s.now()-s.left < moment // with a new stream for each request
	}
	st.waiting++
	defer func() { st.waiting-- }()
	for first, waited := true, false; ; first = false {
		// What is due rides with what we write, but we are waiting now.
		if st.synDue || st.ackDue || st.finDue {
			s.control(st)
		}
		post := st.rdst == nil
		if post {
			st.rdst, st.rn = p, 0
		}
		st.arm()
		if first && !s.reading || s.mayLead(st) {
			s.lead(st, nil, post)
		} else {
			st.wait(&st.readers, &st.rblocked)
			waited = true // it may have been woken to take the token
		}
		n := 0
		if post {
			n = st.rn
			st.rdst, st.rn = nil, 0
		}
		var err error
		if n == 0 {
			n, err = st.take(p)
		}
		if n > 0 || err != nil {
			if waited {
				s.passOn()
			}
			return n, err
		}
	}
}

// take returns what a Read returns without waiting, or nothing.
func (st *Stream) take(p []byte) (int, error) {
	if st.rbuf.n > 0 && !st.rlimit.expired {
		held := st.rbuf.held
		n := st.rbuf.read(p)
		st.s.held -= held - st.rbuf.held
		st.consumed(n)
		if st.rbuf.n == 0 {
			st.slow = false
		}
		if st.rbuf.n <= st.s.cfg.MaxQueue/4 {
			st.s.caughtUp(st)
		}
		return n, nil
	}
	return 0, st.readErr()
}

// readErr is why nothing more will be received, or can be at the moment. Bytes
// in the buffer come before an end, but not before a deadline.
func (st *Stream) readErr() error {
	switch {
	case st.rlimit.expired:
		return os.ErrDeadlineExceeded
	case st.err != nil:
		return st.err
	case st.rclosed:
		return net.ErrClosed
	case st.rbuf.n > 0:
		return nil
	case st.eof:
		return io.EOF
	}
	return st.s.err
}

// Ready implements [muxer.Stream].
func (st *Stream) Ready() bool {
	st.s.mu.Lock()
	defer st.s.mu.Unlock()
	st.check(&st.rlimit)
	return st.rbuf.n > 0 || st.readErr() != nil
}

// wait blocks until c is signalled.
func (st *Stream) wait(c *sync.Cond, blocked *int) {
	if st.rblocked+st.wblocked == 0 {
		st.s.waiters.push(st)
	}
	*blocked++
	c.Wait()
	*blocked--
	if st.roused {
		st.roused = false
		st.s.roused--
	}
	if st.rblocked+st.wblocked == 0 {
		st.s.waiters.remove(st)
	}
}

// wake lets all who wait for st look again.
func (st *Stream) wake() {
	st.readers.Broadcast()
	st.writers.Broadcast()
	if st.s.leader == st {
		st.s.interrupt()
	}
	if st.s.inWrite == st && st.writeErr() != nil {
		st.s.callOff()
	}
}

// CloseWrite implements [muxer.Stream].
func (st *Stream) CloseWrite() error {
	st.s.mu.Lock()
	defer st.s.mu.Unlock()
	if st.wclosed {
		return nil
	}
	if st.err != nil {
		return st.err
	}
	if st.s.err != nil {
		return st.s.err
	}
	st.closeWrite()
	return nil
}

// CloseRead implements [muxer.Stream].
func (st *Stream) CloseRead() error {
	st.s.mu.Lock()
	defer st.s.mu.Unlock()
	st.closeRead()
	return nil
}

// Close implements net.Conn.
func (st *Stream) Close() error {
	st.s.mu.Lock()
	defer st.s.mu.Unlock()
	st.closeRead()
	st.closeWrite()
	return nil
}

func (st *Stream) closeRead() {
	if st.rclosed || st.err != nil {
		return
	}
	st.rclosed = true
	st.consumed(st.discard())
	st.wake()
	st.yield()
	st.linger()
}

func (st *Stream) closeWrite() {
	if st.wclosed || st.err != nil || st.s.err != nil {
		return
	}
	st.wclosed = true
	st.writes = nil // their writers return with what was sent
	if st.held.busy {
		st.writes, st.held.next = &st.held, nil // which has none any more
	} else {
		st.finDue = true
	}
	st.wake()
	st.linger()
	if !st.finDue {
		st.s.kick()
	} else if st.answered {
		st.s.queue(st) // nobody waits for it
		st.s.kick()
	} else {
		st.s.control(st)
	}
}

// Reset implements [muxer.Stream].
func (st *Stream) Reset(code muxer.Code) error {
	st.s.mu.Lock()
	defer st.s.mu.Unlock()
	if st.err == nil && st.s.err == nil && !st.removed {
		st.reset(code)
	}
	return nil
}

// reset ends both directions, and tells the peer.
func (st *Stream) reset(code muxer.Code) {
	st.abort(&muxer.StreamError{Code: code})
	if st.synDue {
		st.s.remove(st)
		return
	}
	st.rstDue = true
	st.s.control(st)
}

// abort ends both directions.
func (st *Stream) abort(err error) {
	if st.err != nil {
		return
	}
	st.err = err
	st.discard()
	st.writes = nil
	st.letGo()
	st.wake()
	st.yield()
	st.told()
}

// AfterReset implements [muxer.Stream].
func (st *Stream) AfterReset(f func()) {
	st.s.mu.Lock()
	defer st.s.mu.Unlock()
	st.onReset = f
	if st.err != nil || st.s.err != nil {
		st.told()
	}
}

// told calls what waits for a reset, or for the session's end.
func (st *Stream) told() {
	if st.onReset != nil && !st.wclosed {
		go st.onReset() // the caller of AfterReset says when it ends
	}
	st.onReset = nil
}

// discard drops what was received and not read, and returns how much.
func (st *Stream) discard() int {
	st.s.held -= st.rbuf.held
	st.s.caughtUp(st)
	return st.rbuf.clear()
}

// yield gives the read token away that is kept for the stream's readers, who
// will not come back. If we opened the stream we may open another; if the peer
// did, Serve should see it.
func (st *Stream) yield() {
	if s := st.s; s.grace && s.graceFor == st && (!st.local || s.waiters.n > 0) {
		s.pass()
	}
}

// LocalAddr implements net.Conn.
func (st *Stream) LocalAddr() net.Addr { return st.s.conn.LocalAddr() }

// RemoteAddr implements net.Conn.
func (st *Stream) RemoteAddr() net.Addr { return st.s.conn.RemoteAddr() }

// SetDeadline implements net.Conn.
func (st *Stream) SetDeadline(t time.Time) error { return st.limit(t, true, true) }

// SetReadDeadline implements net.Conn.
func (st *Stream) SetReadDeadline(t time.Time) error { return st.limit(t, true, false) }

// SetWriteDeadline implements net.Conn.
func (st *Stream) SetWriteDeadline(t time.Time) error { return st.limit(t, false, true) }

func (st *Stream) limit(t time.Time, r, w bool) error {
	st.s.mu.Lock()
	defer st.s.mu.Unlock()
	if r {
		st.rlimit = limit{at: t}
		st.check(&st.rlimit)
	}
	if w {
		st.wlimit = limit{at: t}
		st.check(&st.wlimit)
	}
	if r && st.rlimit.expired || w && st.wlimit.expired {
		st.wake()
	}
	st.arm()
	return nil
}

// check notices that a deadline has passed.
func (st *Stream) check(l *limit) {
	if !l.expired && !l.at.IsZero() && !time.Now().Before(l.at) {
		l.expired = true
	}
}

// arm sets the timer, if anybody waits. It is not set back when a deadline moves
// away, so that a deadline for each of many Reads costs next to nothing.
func (st *Stream) arm() {
	if st.waiting == 0 {
		return
	}
	var at time.Time
	for _, l := range [...]*limit{&st.rlimit, &st.wlimit} {
		if !l.expired && !l.at.IsZero() && (at.IsZero() || l.at.Before(at)) {
			at = l.at
		}
	}
	if at.IsZero() || !st.armed.IsZero() && !at.Before(st.armed) {
		return
	}
	st.armed = at
	if st.timer == nil {
		st.timer = time.AfterFunc(time.Until(at), st.onTimer)
	} else {
		st.timer.Reset(time.Until(at))
	}
}

func (st *Stream) onTimer() {
	st.s.mu.Lock()
	defer st.s.mu.Unlock()
	st.armed = time.Time{}
	st.check(&st.rlimit)
	st.check(&st.wlimit)
	if st.rlimit.expired || st.wlimit.expired {
		st.wake()
	}
	st.arm()
}
