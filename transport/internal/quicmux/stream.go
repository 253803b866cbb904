package quicmux

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/plexus-p2p/plexus/muxer"
)

// Stream is a bidirectional stream. What quic-go does not have is here: any number
// of writers and closers at the same time, and errors that tell what happened.
type Stream struct {
	s *Session
	q *quic.Stream

	writing sync.RWMutex // held for reading by Write, for writing when the direction ends

	// The prefix of a stream that we opened has to be written, that of the peer's to be
	// read. turn is held by the Write or Read that does so, whom others wait for: a
	// channel, as time stands still in a synctest bubble while somebody waits for a mutex.
	begun atomic.Bool   // it has been, or there is none
	turn  chan struct{} // nil: there was none
	own   bool
	head  []byte // what has been read of it; guarded by turn

	answer atomic.Int32 // whether the peer has ended its direction since CloseWrite: unasked, …

	mu           sync.Mutex
	failed       error     // by Reset, or the closing of the session
	readClosed   bool      // by us
	writeClosed  bool      // by us
	eof          bool      // the peer's end, or its reset, was read
	wrote        time.Time // last, if no answer to that has been read
	readDeadline time.Time
	readers      int
	peeking      bool // Ready is, with a deadline of its own
	onReset      func()
	watched      bool // q's context tells of a reset
}

var _ muxer.Stream = (*Stream)(nil)

// What is known of the peer's end of a stream.
const (
	unasked  = iota
	awaited  // it has not come
	answered // it has come since CloseWrite
	early    // it had come before
)

// Read implements net.Conn.
func (st *Stream) Read(p []byte) (int, error) {
	st.mu.Lock()
	err := st.endedLocked(false)
	if err == nil {
		st.readers++
	}
	st.mu.Unlock()
	if err != nil {
		return 0, err
	}
	n, err := st.read(p)
	for n == 0 && errors.Is(err, os.ErrDeadlineExceeded) && !st.late() {
		n, err = st.read(p) // that deadline was Ready's
	}
	st.mu.Lock()
	st.readers--
	// What comes a round trip after the last Write can be the answer to it.
	if n > 0 && !st.wrote.IsZero() && time.Since(st.wrote) >= st.s.conn.ConnectionStats().MinRTT {
		st.wrote = time.Time{}
	}
	st.mu.Unlock()
	if err != nil {
		err = st.reason(err, false)
	}
	return n, err
}

// read reads what follows the prefix.
func (st *Stream) read(p []byte) (int, error) {
	if err := st.readPrefix(); err != nil {
		return 0, err
	}
	return st.q.Read(p)
}

// readPrefix goes on where a deadline has interrupted it.
func (st *Stream) readPrefix() error {
	if st.own || st.begun.Load() {
		return nil
	}
	st.turn <- struct{}{}
	defer func() { <-st.turn }()
	for !st.begun.Load() {
		more, err := st.s.dialect.Parse(st.head)
		if err == nil && more == 0 {
			st.head = nil
			st.begun.Store(true)
			break
		}
		if err == nil {
			var b [8]byte
			var n int
			n, err = st.q.Read(b[:min(more, len(b))])
			st.head = append(st.head, b[:n]...)
			if err == nil || n > 0 {
				continue
			}
			if err != io.EOF {
				return err
			}
		}
		st.reset(muxer.StreamProtocolViolation, quic.StreamErrorCode(st.s.dialect.Refused))
		return err // which reason replaces
	}
	return nil
}

// late tells that the deadline for Read has passed.
func (st *Stream) late() bool {
	st.mu.Lock()
	defer st.mu.Unlock()
	return st.lateLocked()
}

func (st *Stream) lateLocked() bool {
	return !st.readDeadline.IsZero() && !time.Now().Before(st.readDeadline)
}

// Write implements net.Conn.
func (st *Stream) Write(p []byte) (int, error) {
	st.writing.RLock()
	defer st.writing.RUnlock()
	if err := st.ended(true); err != nil {
		return 0, err
	}
	n, err := st.write(p)
	if n > 0 {
		st.touch()
	}
	if err != nil {
		err = st.reason(err, true)
	}
	return n, err
}

// write writes the prefix too, if nobody has, in one packet with what follows.
func (st *Stream) write(p []byte) (int, error) {
	if !st.own || st.begun.Load() {
		return st.q.Write(p)
	}
	st.turn <- struct{}{}
	defer func() { <-st.turn }()
	if st.begun.Load() {
		return st.q.Write(p)
	}
	const together = 1 << 10 // bytes, which quic-go takes in one piece
	prefix := st.s.dialect.Prefix
	first := p[:min(len(p), together)]
	n, err := st.q.Write(append(prefix[:len(prefix):len(prefix)], first...))
	n -= len(prefix)
	if n < 0 {
		return 0, err
	}
	st.begun.Store(true)
	// "the sender SHOULD […] ensure that the Reliable Size is set to at least the size of
	// the WebTransport header": else the peer could not tell whose stream it was.
	st.q.SetReliableBoundary()
	if err == nil && len(p) > len(first) {
		var m int
		m, err = st.q.Write(p[len(first):])
		n += m
	}
	return n, err
}

// touch notes that something was written just now.
func (st *Stream) touch() {
	now := time.Now()
	st.mu.Lock()
	st.wrote = now
	st.mu.Unlock()
}

// unread is when something was written that the peer may not have read.
func (st *Stream) unread() time.Time {
	if st.answer.Load() == answered {
		return time.Time{}
	}
	st.mu.Lock()
	defer st.mu.Unlock()
	return st.wrote
}

// ended tells how we ended a direction, if we did.
func (st *Stream) ended(write bool) error {
	st.mu.Lock()
	defer st.mu.Unlock()
	return st.endedLocked(write)
}

func (st *Stream) endedLocked(write bool) error {
	if write && st.writeClosed || !write && st.readClosed {
		return net.ErrClosed
	}
	return st.failed
}

// reason says an error of quic-go in our words.
func (st *Stream) reason(err error, write bool) error {
	if own := st.ended(write); own != nil {
		return own
	}
	var reset *quic.StreamError
	switch {
	case err == io.EOF:
		st.sawEnd()
		return err
	case errors.As(err, &reset):
		if !write {
			st.sawEnd()
		}
		return &muxer.StreamError{Code: st.s.dialect.Code(uint64(reset.ErrorCode), muxer.StreamCodeOutOfRange), Remote: reset.Remote}
	case errors.Is(err, os.ErrDeadlineExceeded):
		return os.ErrDeadlineExceeded
	case errors.Is(err, quic.ErrStreamClosed):
		return net.ErrClosed
	}
	return st.s.reason(err)
}

func (st *Stream) sawEnd() {
	st.mu.Lock()
	st.eof = true
	over := st.writeClosed
	st.mu.Unlock()
	if over {
		st.s.remove(st)
	}
}

// CloseWrite implements muxer.Stream.
func (st *Stream) CloseWrite() error { return st.closeWrite(true) }

// closeWrite ends our direction, and may look out for the peer's answer to that.
func (st *Stream) closeWrite(ask bool) error {
	st.mu.Lock()
	if st.writeClosed || st.failed != nil {
		st.mu.Unlock()
		return nil
	}
	st.writeClosed = true
	over := st.readClosed || st.eof
	st.mu.Unlock()
	// "It must not be called concurrently with Write": writers have to leave
	// first, and those that come find it closed.
	if !st.writing.TryLock() {
		st.q.SetWriteDeadline(past)
		st.writing.Lock()
	}
	if st.own && !st.begun.Load() {
		st.q.SetWriteDeadline(time.Time{})
		st.write(nil)
	}
	if st.q.Context().Err() == nil {
		st.q.Close()
	} else { // The peer does not want it any more, and Close would spend 1 µs on an error of that.
		st.q.CancelWrite(0)
	}
	st.writing.Unlock()
	if ask {
		st.touch() // the end is something to read, too
	}
	switch {
	case over:
		st.s.remove(st)
	case ask:
		st.ask()
	}
	return nil
}

// ask looks out for the peer's end. One that has come already is no answer to ours.
func (st *Stream) ask() {
	st.q.SetReceiveFinalSizeCallback(func(int64) { // must not block
		if st.answer.CompareAndSwap(unasked, early) || !st.answer.CompareAndSwap(awaited, answered) {
			return
		}
		select {
		case st.s.answered <- struct{}{}:
		default:
		}
	})
	st.answer.CompareAndSwap(unasked, awaited)
}

// Leave ends our direction of a stream whose peer has said what it had to, and reads
// its end when it comes, without asking for it. The session forgets the stream, and does
// not wait for it when it closes: a peer that reads any other has read this one.
func (st *Stream) Leave() {
	st.closeWrite(false)
	st.mu.Lock()
	st.wrote = time.Time{}
	st.mu.Unlock()
	st.q.SetReceiveFinalSizeCallback(func(int64) { // must not block
		go io.Copy(io.Discard, st.q) // ends as soon as what precedes the end has arrived
	})
	st.s.remove(st)
}

// past is a deadline that has passed, in a synctest bubble too.
var past = time.Unix(1, 0)

// CloseRead implements muxer.Stream. It asks the peer to send no more.
func (st *Stream) CloseRead() error {
	st.mu.Lock()
	over := st.writeClosed
	done := st.readClosed || st.failed != nil
	st.readClosed = true
	st.mu.Unlock()
	if done {
		return nil
	}
	st.q.CancelRead(st.s.wire(0))
	if over {
		st.s.remove(st)
	}
	return nil
}

// Close implements net.Conn.
func (st *Stream) Close() error {
	st.CloseRead()
	return st.closeWrite(false)
}

// Reset implements muxer.Stream.
//
// "RESET_STREAM […] STOP_SENDING": one ends our direction, the other asks the peer
// to end its own.
// https://github.com/libp2p/specs/blob/master/quic/README.md
func (st *Stream) Reset(c muxer.Code) error {
	st.reset(c, st.s.wire(c))
	return nil
}

func (st *Stream) reset(c muxer.Code, wire quic.StreamErrorCode) {
	st.mu.Lock()
	if st.failed != nil || st.readClosed && st.writeClosed {
		st.mu.Unlock()
		return // after Close, what was written still arrives
	}
	st.failed = &muxer.StreamError{Code: c}
	st.wrote = time.Time{} // nobody is to read it any more
	st.mu.Unlock()
	st.q.CancelRead(wire)
	st.q.CancelWrite(wire)
	st.s.remove(st)
}

// Ready implements muxer.Stream. quic-go can look at what waits only by waiting for
// it, so that is what Ready does, for a moment. While somebody else reads, nothing
// waits for us.
func (st *Stream) Ready() bool {
	const moment = 20 * time.Microsecond
	st.mu.Lock()
	if st.failed != nil || st.readClosed || st.eof || st.lateLocked() {
		st.mu.Unlock()
		return true
	}
	if st.readers > 0 || st.peeking {
		st.mu.Unlock()
		return false
	}
	st.peeking = true
	st.q.SetReadDeadline(time.Now().Add(moment))
	st.mu.Unlock()
	err := st.readPrefix()
	if err == nil {
		_, err = st.q.Peek(make([]byte, 1))
	}
	st.mu.Lock()
	st.peeking = false
	st.q.SetReadDeadline(st.readDeadline)
	st.mu.Unlock()
	return !errors.Is(err, os.ErrDeadlineExceeded)
}

// AfterReset implements muxer.Stream. A peer's reset asks us to stop sending, too, and
// that is what quic-go tells of.
func (st *Stream) AfterReset(f func()) {
	st.mu.Lock()
	st.onReset = f
	watched := st.watched
	st.watched = true
	st.mu.Unlock()
	if !watched {
		context.AfterFunc(st.q.Context(), st.told)
	} else if st.q.Context().Err() != nil {
		go st.told()
	}
}

// told calls what waits for a reset, or for the session's end.
func (st *Stream) told() {
	st.mu.Lock()
	f, closed := st.onReset, st.writeClosed
	st.onReset = nil
	st.mu.Unlock()
	if f != nil && !closed {
		f()
	}
}

// lastCall is told when the session closes. Blocked calls end, and so does what the
// peer sends, unless we have ended our direction and it may still answer: then
// wait is true until it does. Otherwise wrote is when something was written
// that the peer may not have read.
func (st *Stream) lastCall(end *muxer.SessionError) (wait bool, wrote time.Time) {
	st.mu.Lock()
	if st.writeClosed && !st.readClosed && st.failed == nil && st.answer.Load() == awaited {
		st.mu.Unlock()
		return true, time.Time{}
	}
	if st.failed == nil {
		st.failed = end
	}
	st.mu.Unlock()
	st.q.SetWriteDeadline(past)
	st.q.CancelRead(st.s.wire(muxer.StreamShutdown))
	return false, st.unread()
}

// LocalAddr and RemoteAddr are those of the session.
func (st *Stream) LocalAddr() net.Addr  { return st.s.local }
func (st *Stream) RemoteAddr() net.Addr { return st.s.remote }

// SetDeadline implements net.Conn.
func (st *Stream) SetDeadline(t time.Time) error {
	st.SetReadDeadline(t)
	return st.SetWriteDeadline(t)
}

// SetReadDeadline implements net.Conn.
func (st *Stream) SetReadDeadline(t time.Time) error {
	t = monotonic(t)
	st.mu.Lock()
	defer st.mu.Unlock()
	st.readDeadline = t
	if !st.peeking {
		st.q.SetReadDeadline(t)
	}
	return nil
}

// SetWriteDeadline implements net.Conn.
func (st *Stream) SetWriteDeadline(t time.Time) error {
	st.mu.Lock()
	defer st.mu.Unlock()
	if !st.writeClosed && st.failed == nil { // which have a deadline of its own
		st.q.SetWriteDeadline(monotonic(t))
	}
	return nil
}

// monotonic is t on the monotonic clock, which quic-go counts on.
func monotonic(t time.Time) time.Time {
	if t.IsZero() {
		return t
	}
	now := time.Now()
	return now.Add(t.Sub(now))
}
