package session

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/plexus-p2p/plexus/muxer"
)

// Config is what a muxer tells the engine: its protocol's rules, and the user's
// limits. Unlike a user's config it has no defaults, except that zero times are never.
type Config struct {
	Wire     Wire
	FirstID  uint64     // of the first stream that this end opens; each further one is two higher
	MaxID    uint64     // the last one
	MaxHead  int        // the most bytes that Append adds
	MaxBody  int        // the longest body to send in one frame
	Window   int        // what each end may send on a new stream; 0: there are no windows
	Acks     bool       // whether a stream is acknowledged
	Backlog  int        // how many streams to open before the peer acknowledges one; 0: any number
	Pings    bool       // whether the protocol has pings
	Violated muxer.Code // what GoAway says to a peer that breaks the rules

	MaxStreams int           // streams that the peer may have open; a further one is reset
	MaxWindow  int           // how far the window of a fast stream may grow
	MaxQueue   int           // without windows: bytes that a stream may hold for its reader; it is reset beyond
	MaxReceive int           // bytes that all streams may hold together; a stream that needs more is reset
	KeepAlive  time.Duration // silence after which the peer is pinged
	Watched    time.Duration // the same where the system watches the peer, and nothing of ours may be under way
	Timeout    time.Duration // silence after that ping which ends the session
}

// ErrSilent is why a session ended whose peer did not answer a ping, or the system.
var ErrSilent = errors.New("muxer: the peer does not answer")

// ErrExhausted is returned by Open when all stream IDs have been used.
var ErrExhausted = errors.New("muxer: no stream IDs left")

const (
	// farewell bounds waiting for the peer where nothing else does: to read
	// what it sent before our writes failed, to send it a last GoAway, and for
	// its hanging up if the connection cannot be closed in one direction only.
	farewell = time.Second

	// What waits to be sent to a peer that does not read has bounds. One that
	// does gets nowhere near.
	maxRefusals = 16 << 10 // resets of streams that are not in the table
	maxPongs    = 8        // answers to pings, the latest

	// How many control frames go out together with GoAway.
	maxLast = 100
)

// Session is one end of a muxed connection. It implements [muxer.Session].
type Session struct {
	// Fixed after New.
	conn    net.Conn
	records recordReader // conn, if it is one
	ahead   buffered     // conn, if it is one
	cfg     Config
	flushFn func() // flush; kept because `go s.flush()` allocates
	born    time.Time

	mu     sync.Mutex
	accept func(*Stream) // set by Serve
	err    error         // why the session has ended

	// The table (this file). all links every stream that is not over.
	streams map[uint64]*Stream // those that have an ID
	all     list
	nextID  uint64
	lastID  uint64 // the highest that the peer used
	seen    bool   // whether the peer used any
	inbound int    // streams that the peer opened
	unacked int    // streams that we opened and the peer has not acknowledged
	openers sync.Cond

	// Ending (this file).
	closing *muxer.SessionError // Close was called
	gone    *muxer.SessionError // the peer sent GoAway
	mute    error               // why nothing can be written any more
	unsent  bool                // Close was cut short before everything was sent
	last    []byte              // a frame to send before hanging up
	serving bool
	ended   bool      // Serve is over and conn is closed
	closers sync.Cond // waits for drained, ended, err

	// Reading (read.go, frames.go).
	reading     bool    // the read token is taken
	inRead      bool    // the leader is in conn.Read
	leader      *Stream // by whom; nil is Serve
	interrupted bool    // conn's read deadline is in the past
	timeouts    int     // reads in a row that ended at a deadline which is not ours
	readErr     error
	in          []byte // received, not parsed
	carry       []byte // the start of a frame whose rest was not received
	cur         *Stream
	body        int  // bytes of the current frame still to come, for cur
	fin         bool // the current frame ends its stream
	newborn     []*Stream
	small       []byte  // read buffers, if conn has none
	big         *[]byte // of bulk only
	mixed       int     // how much what comes is for several streams in turn, 0 to 256
	latest      *Stream // for which something came last, of those that had a reader
	roused      int     // streams whose reader was woken and has not come yet
	stepBack    *Stream // the leader has delivered to one of its readers, who will want to lead
	grace       bool    // the token is free, and kept for one who will come back
	graceFor    *Stream
	waiters     list          // streams whose readers or writers could take the token
	server      sync.Cond     // Serve waits for its turn
	crowded     *Stream       // no window, and half full: let its reader catch up before reading more
	pausing     bool          // the leader does so
	drain       sync.Cond     // where it waits
	held        int           // bytes charged to streams' buffers
	windows     int           // by how much windows have grown, all streams
	received    time.Duration // when conn.Read last returned bytes, since born
	left        time.Duration // when a reader of a stream of ours last had something, since born

	// Writing (write.go).
	writing   bool    // the write token is taken
	rest      *[]byte // what is left of a batch
	inWrite   *Stream // whose Write is in conn.Write
	calledOff bool    // conn's write deadline is in the past
	pending   int     // Writes under way
	ring      fifo[*Stream]
	fresh     fifo[*Stream]
	ctl       fifo[*Stream] // streams with control frames to send
	urgent    bool          // some control frame should not wait
	rsts      fifo[refusal]
	pongs     fifo[uint64]
	sent      time.Duration // when conn.Write last returned, since born
	ticking   bool
	tick      *time.Timer
	ticked    time.Duration // when the last tick came, since born
	calm      uint          // ticks in a row that found nothing to do
	pingDue   bool
	pingOut   bool          // a ping waits for its answer
	pingSent  time.Duration // when, since born
	pingID    uint64
	rtt       time.Duration
	alive     *time.Timer
	probed    time.Duration // when the keepalive ping went out; 0: none did
	watched   bool          // the system notices when the peer's host is gone
	arrived   bool          // all that we sent but pongs has: a ping that left after it was answered
	covered   bool          // the latest ping left after all else but pongs
	sweeper   *time.Timer
	sweeping  bool // it runs
	sweeps    uint
}

// New starts a session on c, which it owns from then on.
func New(c net.Conn, cfg Config) *Session {
	s := &Session{
		conn:    c,
		cfg:     cfg,
		born:    time.Now(),
		streams: make(map[uint64]*Stream),
		nextID:  cfg.FirstID,
		reading: true, // until Serve
	}
	s.records, _ = c.(recordReader)
	s.ahead, _ = c.(buffered)
	s.flushFn = s.flush
	s.waiters.kind = inWaiters
	s.openers.L, s.closers.L, s.server.L, s.drain.L = &s.mu, &s.mu, &s.mu, &s.mu
	if cfg.Pings && cfg.KeepAlive > 0 {
		s.alive = time.AfterFunc(s.together(s.quiet()), s.onAlive)
	}
	return s
}

// now is the time since the session began. It never goes back.
func (s *Session) now() time.Duration { return time.Since(s.born) + 1 }

// Open implements [muxer.Session].
func (s *Session) Open(ctx context.Context) (muxer.Stream, error) {
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.full() {
		stop := context.AfterFunc(ctx, func() {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.openers.Broadcast()
		})
		defer stop()
		for s.full() {
			if ctx.Err() != nil {
				return nil, context.Cause(ctx)
			}
			s.openers.Wait()
		}
	}
	switch {
	case s.err != nil:
		return nil, s.err
	case s.closing != nil:
		return nil, s.closing
	case s.gone != nil:
		return nil, s.gone
	case s.mute != nil:
		return nil, s.mute
	case s.nextID > s.cfg.MaxID:
		return nil, ErrExhausted
	}
	st := s.add(true)
	st.synDue = true
	if s.cfg.Acks {
		st.unacked = true
		s.unacked++
	}
	return st, nil
}

// full tells whether Open has to wait for acknowledgements.
func (s *Session) full() bool {
	return s.cfg.Backlog > 0 && s.unacked >= s.cfg.Backlog &&
		s.err == nil && s.closing == nil && s.gone == nil && s.mute == nil
}

// add makes a stream.
func (s *Session) add(local bool) *Stream {
	st := &Stream{s: s, local: local}
	st.readers.L, st.writers.L = &s.mu, &s.mu
	if s.cfg.Window > 0 {
		st.window, st.recvMax, st.recvLeft = int64(s.cfg.Window), s.cfg.Window, s.cfg.Window
	} else {
		st.window = 1 << 62
	}
	s.all.push(st)
	if !local {
		s.inbound++
	}
	return st
}

// remove forgets a stream that has nothing more to send or to receive.
func (s *Session) remove(st *Stream) {
	if st.removed {
		return
	}
	st.removed = true
	if !st.synDue {
		delete(s.streams, st.id)
	}
	s.all.remove(st)
	if s.latest == st {
		s.latest = nil
	}
	if !st.local {
		s.inbound--
	}
	st.acked()
	s.windows -= st.recvMax - s.cfg.Window
	if st.timer != nil {
		st.timer.Stop()
	}
}

// Serve implements [muxer.Session].
func (s *Session) Serve(accept func(muxer.Stream)) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.serving { // else Close was called before, and serves
		s.accept = func(st *Stream) { accept(st) }
		s.serve()
	}
	for !s.ended {
		s.closers.Wait()
	}
	return s.err
}

// serve is the reader of last resort, until the session ends.
func (s *Session) serve() {
	s.serving = true
	if s.err == nil {
		s.reading = false // nobody could before
	}
	for s.err == nil {
		if s.reading || s.grace {
			s.server.Wait()
		} else {
			s.lead(nil, nil, false)
		}
	}
	s.hangUp()
}

// hangUp closes the connection after the session has ended.
func (s *Session) hangUp() {
	last := s.last
	if s.writing || s.mute != nil {
		last = nil // another goroutine is stuck there
	}
	s.writing = true
	s.mu.Unlock()
	if last != nil {
		s.conn.SetWriteDeadline(time.Now().Add(farewell))
		s.conn.Write(last)
	}
	s.conn.Close()
	s.mu.Lock()
	s.ended = true
	if !s.inRead { // else the leader is still about to come back from it
		s.freeBuffers()
	}
	s.closers.Broadcast()
}

// Close implements [muxer.Session]. It returns an error if ctx ended before
// everything was sent.
func (s *Session) Close(ctx context.Context, code muxer.Code) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err == nil && s.closing == nil {
		s.closing = &muxer.SessionError{Code: code}
		s.openers.Broadcast()
	}
	if ctx.Err() != nil {
		s.cut()
	}
	stop := context.AfterFunc(ctx, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.cut()
	})
	defer stop()
	for s.err == nil && s.mute == nil && (s.writing || s.pending > 0 || s.ctl.n+s.rsts.n > maxLast) {
		s.urgent = s.ctl.n+s.rsts.n > 0
		s.kick()
		s.closers.Wait()
	}
	if s.err == nil && s.mute == nil {
		s.bye(code) // once: the session is mute then
	}
	if !s.serving {
		s.serve() // nobody did
	}
	for !s.ended {
		s.closers.Wait()
	}
	if s.unsent {
		return fmt.Errorf("muxer: close: not everything was sent: %w", context.Cause(ctx))
	}
	return nil
}

// cut ends the session though not all may have been sent.
func (s *Session) cut() {
	if s.err == nil {
		s.unsent = s.mute == nil && !s.drained()
		s.fail(s.closing)
	}
}

// drained tells whether all that was written has gone to the connection.
func (s *Session) drained() bool {
	return !s.writing && s.pending == 0 && s.ctl.n == 0 && s.rsts.n == 0
}

// bye sends what control frames are left and GoAway, and ends our direction of the
// connection.
func (s *Session) bye(code muxer.Code) {
	b := s.batch()
	*b = s.cfg.Wire.Append(*b, Frame{Kind: GoAway, ID: s.lastID, Value: uint64(code)})
	s.writing, s.rest = true, b
	s.send(nil)
	if s.err != nil || s.mute != nil {
		return
	}
	s.writing = true
	half, ok := s.conn.(interface{ CloseWrite() error })
	s.mu.Unlock()
	if ok {
		ok = half.CloseWrite() == nil
	}
	s.mu.Lock()
	s.writing = false
	if s.mute == nil {
		s.mute = s.closing
	}
	s.wakeWriters()
	if !ok && s.err == nil {
		// "waits until the peer hangs up": it may not know that it should.
		time.AfterFunc(farewell, func() {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.fail(s.closing)
		})
	}
}

// fail ends the session. Serve, or Close if that was never called, then closes
// the connection, which frees those who are stuck in it.
func (s *Session) fail(err error) {
	if s.err != nil {
		return
	}
	s.err = err
	s.grace = false
	for st := s.all.first; st != nil; st = s.all.next(st) {
		if st.timer != nil {
			st.timer.Stop()
		}
		st.readers.Broadcast()
		st.writers.Broadcast()
		st.told()
	}
	if s.alive != nil {
		s.alive.Stop()
	}
	if s.tick != nil {
		s.tick.Stop()
	}
	if s.sweeper != nil {
		s.sweeper.Stop()
	}
	s.openers.Broadcast()
	s.closers.Broadcast()
	s.server.Broadcast()
	s.interrupt()
}

// failRead ends the session because the connection cannot be read any more.
func (s *Session) failRead(err error) {
	switch {
	case s.closing != nil:
		s.fail(s.closing)
	case s.gone != nil:
		s.fail(s.gone)
	case errors.Is(err, io.EOF):
		s.fail(&muxer.SessionError{Remote: true, Err: io.ErrUnexpectedEOF}) // a stream's EOF is another thing
	case errors.Is(err, syscall.ETIMEDOUT): // the system asked
		s.fail(&muxer.SessionError{Remote: true, Err: fmt.Errorf("%w: %w", ErrSilent, err)})
	default:
		s.fail(&muxer.SessionError{Remote: true, Err: err})
	}
}

// failWrite is called when the connection takes no more bytes. What the peer sent
// before is still read.
func (s *Session) failWrite(err error) {
	if s.err != nil || s.mute != nil {
		return
	}
	if s.gone != nil {
		s.mute = s.gone
	} else {
		s.mute = &muxer.SessionError{Remote: true, Err: err}
	}
	s.wakeWriters()
	s.openers.Broadcast()
	s.closers.Broadcast()
	time.AfterFunc(farewell, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.fail(s.mute)
	})
}

func (s *Session) wakeWriters() {
	s.interrupt() // one of them may lead
	for st := s.all.first; st != nil; st = s.all.next(st) {
		st.writers.Broadcast()
	}
}

// violated ends the session because the peer broke the rules.
func (s *Session) violated(err error) {
	s.last = s.cfg.Wire.Append(nil, Frame{Kind: GoAway, ID: s.lastID, Value: uint64(s.cfg.Violated)})
	s.fail(&muxer.SessionError{Code: s.cfg.Violated, Err: err})
}

// protocolError makes an error that tells what the peer did wrong.
func protocolError(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{muxer.ErrProtocol}, args...)...)
}

// Stats implements [muxer.Session].
func (s *Session) Stats() muxer.Stats {
	s.mu.Lock()
	defer s.mu.Unlock()
	return muxer.Stats{Streams: s.all.n, Received: s.held, RTT: s.rtt}
}

// Watched implements [muxer.Watched].
func (s *Session) Watched() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.watched = true
}

func isTimeout(err error) bool { return errors.Is(err, os.ErrDeadlineExceeded) }
