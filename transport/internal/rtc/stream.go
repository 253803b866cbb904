package rtc

import (
	"bytes"
	"io"
	"net"
	"os"
	"time"

	"github.com/plexus-p2p/plexus/muxer"
)

const (
	// sendQueue is how many bytes a stream may have waiting to be sent.
	sendQueue = 64 << 10

	// small is how long a message is that is copied behind the one before, so that
	// many small ones do not cost much more than what they hold.
	small = 512
)

// stream is a data channel. All of it is guarded by s.mu.
//
// Each direction ends by itself: the sender says FIN, or the receiver STOP_SENDING, or
// either RESET. When both have ended, and the peer has said so by FIN_ACK, the channel
// is closed.
type stream struct {
	s       *Session
	id      uint16
	inbound bool
	opened  bool // the peer knows of it, or will
	over    bool // the channel is closed, or will be when all has arrived
	peerHas bool // closed its direction of it

	received [][]byte // payloads, in order
	partial  []byte   // of a message
	held     int      // bytes of the association's window that we hold
	eof      bool     // the peer has ended its direction
	readEnd  bool     // by CloseRead
	writeEnd bool     // by CloseWrite
	failed   error    // both directions have, by a reset of either end
	stopped  error    // the peer does not read any more
	cut      error    // the peer has closed the channel without a FIN

	finSent, finAcked bool
	lingers           time.Time // until then it waits for FIN_ACK
	queued            int       // bytes that wait to be sent
	writer            bool      // a Write is under way; others wait for it

	readLate, writeLate deadline
	readWake, writeWake chan struct{} // closed to wake who waits; nil: nobody does
	onReset             func()
}

var _ muxer.Stream = (*stream)(nil)

// deadline is one of a direction.
type deadline struct {
	at    time.Time
	timer *time.Timer
}

func (d *deadline) passed() bool { return !d.at.IsZero() && !time.Now().Before(d.at) }

// wait waits for the channel at wake to be closed, without s.mu.
func (st *stream) wait(wake *chan struct{}) {
	if *wake == nil {
		*wake = make(chan struct{})
	}
	ch := *wake
	st.s.unlock()
	<-ch
	st.s.mu.Lock()
}

func wake(ch *chan struct{}) {
	if *ch != nil {
		close(*ch)
		*ch = nil
	}
}

// wakeLocked wakes all who wait, and who is to hear of a reset.
func (st *stream) wakeLocked() {
	wake(&st.readWake)
	wake(&st.writeWake)
	if st.failed == nil && st.cut == nil && st.s.end == nil {
		return
	}
	if st.onReset != nil && !st.writeEnd {
		go st.onReset() // the caller of AfterReset says when it ends
	}
	st.onReset = nil
}

// AfterReset implements muxer.Stream.
func (st *stream) AfterReset(f func()) {
	st.s.mu.Lock()
	defer st.s.mu.Unlock()
	st.onReset = f
	st.wakeLocked()
}

// Read implements net.Conn.
func (st *stream) Read(p []byte) (int, error) {
	st.s.mu.Lock()
	defer st.s.unlock()
	st.announce()
	for {
		switch {
		case st.readEnd:
			return 0, net.ErrClosed
		case st.failed != nil:
			return 0, st.failed
		case st.readLate.passed():
			return 0, os.ErrDeadlineExceeded
		case st.s.end != nil && !st.s.end.Remote:
			return 0, st.s.end
		case len(st.received) > 0:
			return st.take(p), nil
		case st.eof:
			return 0, io.EOF
		case st.cut != nil:
			return 0, st.cut
		case st.s.end != nil:
			return 0, st.s.end
		case len(p) == 0:
			return 0, nil
		}
		st.wait(&st.readWake)
	}
}

// take copies what has come.
func (st *stream) take(p []byte) (n int) {
	for n < len(p) && len(st.received) > 0 {
		k := copy(p[n:], st.received[0])
		n += k
		if k == len(st.received[0]) {
			st.received[0] = nil
			st.received = st.received[1:]
		} else {
			st.received[0] = st.received[0][k:]
		}
	}
	if len(st.received) == 0 {
		st.received = nil
	}
	st.release(n)
	return n
}

// release gives back n bytes of the window.
func (st *stream) release(n int) {
	n = min(n, st.held)
	st.held -= n
	st.s.assoc.Consume(n)
}

// drop forgets what has come and was not read.
func (st *stream) drop() {
	st.received, st.partial = nil, nil
	st.release(st.held)
}

// announce opens the channel at the peer.
func (st *stream) announce() {
	if !st.opened && st.failed == nil {
		st.opened = true
		st.s.assoc.Send(st.id, ppidControl, openMessage())
	}
}

// send queues a message.
func (st *stream) send(m message) {
	st.announce()
	b := appendMessage(nil, m)
	st.queued += len(b)
	st.s.assoc.Send(st.id, ppidBinary, b)
}

// writeErr is why nothing can be written.
func (st *stream) writeErr() error {
	switch {
	case st.writeEnd:
		return net.ErrClosed
	case st.failed != nil:
		return st.failed
	case st.s.end != nil:
		return st.s.end
	case st.stopped != nil:
		return st.stopped
	case st.writeLate.passed():
		return os.ErrDeadlineExceeded
	}
	return nil
}

// Write implements net.Conn.
func (st *stream) Write(p []byte) (n int, err error) {
	st.s.mu.Lock()
	defer st.s.unlock()
	for st.writer {
		if err := st.writeErr(); err != nil {
			return 0, err
		}
		st.wait(&st.writeWake)
	}
	st.writer = true
	defer func() {
		st.writer = false
		wake(&st.writeWake)
	}()
	st.announce()
	for {
		if err := st.writeErr(); err != nil {
			return n, err
		}
		if n == len(p) {
			return n, nil
		}
		if st.queued >= sendQueue {
			st.wait(&st.writeWake)
			continue
		}
		k := min(len(p)-n, maxPayload)
		st.send(message{flag: flagNone, payload: p[n : n+k]})
		if n += k; n == len(p) {
			return n, nil
		}
	}
}

// onSent is told when n bytes of the queue have gone.
func (st *stream) onSent(n int) {
	st.queued = max(0, st.queued-n)
	if st.queued < sendQueue/2 {
		wake(&st.writeWake)
	}
}

// onMessage takes what has come. A message of the peer need not be one of the
// association: some cut them, and some put several into one.
func (st *stream) onMessage(b []byte) {
	st.held += len(b)
	before := st.partial
	st.partial = nil
	switch {
	case len(before) == 0:
	case isLength(before, len(b)): // as go-libp2p sends: the length first, by itself
		st.release(len(before))
		m, err := parseMessage(b)
		if err != nil {
			st.s.violation(st)
			return
		}
		st.onOne(m, len(b), len(b))
		return
	default:
		b = append(before, b...)
	}
	all := len(b)
	for len(b) > 0 && !st.over {
		m, rest, ok, err := nextMessage(b)
		if err != nil {
			st.s.violation(st)
			break
		}
		if !ok {
			if len(before) == 0 || len(b) < all {
				b = bytes.Clone(b)
			} // else there is room behind it for what follows
			st.partial = b
			return
		}
		st.onOne(m, len(b)-len(rest), all)
		b = rest
	}
	st.release(len(b))
}

// onOne takes a message, which had n bytes and lies in all of them that came together.
func (st *stream) onOne(m message, n, all int) {
	if len(m.payload) > 0 && st.wants() {
		p := m.payload
		if len(p) < all/2 {
			p = bytes.Clone(p) // or it would hold what does not count any more
		}
		st.keep(p)
		n -= len(m.payload)
		wake(&st.readWake)
	}
	st.release(n)
	if m.flag != flagNone {
		st.onFlag(m)
	}
}

// wants tells that what comes will be read.
func (st *stream) wants() bool { return !st.readEnd && st.failed == nil && !st.eof }

func (st *stream) keep(b []byte) {
	if i := len(st.received) - 1; i >= 0 && len(b) <= small {
		last := st.received[i]
		switch {
		case cap(last)-len(last) >= len(b) && cap(last) >= 8*small:
			st.received[i] = append(last, b...)
			return
		case len(last) <= small:
			st.received[i] = append(append(make([]byte, 0, 8*small), last...), b...)
			return
		}
	}
	st.received = append(st.received, b[:len(b):len(b)])
}

// onFlag takes what the peer says of the stream.
func (st *stream) onFlag(m message) {
	switch m.flag {
	case flagFin:
		if st.eof {
			return // a peer that says it again and again gets one answer
		}
		st.eof = true
		wake(&st.readWake)
		// "If a FIN flag is received the node SHOULD respond with a FIN_ACK."
		// https://github.com/libp2p/specs/blob/master/webrtc/README.md#multiplexing
		st.send(message{flag: flagFinAck})
	case flagFinAck:
		st.ackFin()
	case flagStopSending:
		if st.stopped == nil && !st.finAcked {
			st.stopped = &muxer.StreamError{Code: muxer.Code(m.code), Remote: true}
			if !st.finSent {
				st.s.assoc.Drop(st.id, ppidBinary)
				st.queued = 0
				if st.eof { // the answer to that was among it, perhaps
					st.send(message{flag: flagFinAck})
				}
			}
			wake(&st.writeWake)
		}
	case flagReset:
		st.fail(&muxer.StreamError{Code: muxer.Code(m.code), Remote: true})
	}
	st.settle()
}

func (st *stream) ackFin() {
	if st.finSent && !st.finAcked {
		st.finAcked = true
		st.s.fins--
	}
}

// onPeerReset: the peer has closed the channel. If that was not expected, it is a reset.
func (st *stream) onPeerReset() {
	st.peerHas = true
	st.ackFin()
	end := &muxer.StreamError{Remote: true}
	if !st.eof {
		st.cut = end
	}
	if st.stopped == nil {
		st.stopped = end
	}
	st.wakeLocked()
	st.settle()
}

// fail ends both directions.
func (st *stream) fail(err error) {
	if st.failed != nil || st.over {
		return
	}
	st.failed = err
	st.drop()
	st.s.assoc.Drop(st.id, ppidBinary)
	st.ackFin()
	st.wakeLocked()
}

// settle closes the channel when both directions have ended.
func (st *stream) settle() {
	if st.over {
		return
	}
	read := st.eof || st.cut != nil || st.readEnd || st.failed != nil
	write := st.failed != nil || st.stopped != nil || st.finAcked
	switch {
	case read && write:
		st.finish()
	case read && st.finSent && st.lingers.IsZero():
		st.lingers = time.Now().Add(finWait)
		for len(st.s.linger) > 0 && st.s.linger[0].over {
			st.s.linger = st.s.linger[1:] // has its FIN_ACK
		}
		st.s.linger = append(st.s.linger, st)
	}
}

// giveUp stops waiting for FIN_ACK.
func (st *stream) giveUp() {
	st.ackFin()
	st.settle()
}

// finish closes the channel.
func (st *stream) finish() {
	if st.over {
		return
	}
	s := st.s
	st.over = true
	st.ackFin()
	s.open--
	if st.inbound {
		s.inbound--
	}
	if st.opened {
		s.closeChannel(st.id, st.peerHas)
	} else {
		delete(s.streams, st.id)
		s.freed()
	}
	st.stopTimers()
}

func (st *stream) stopTimers() {
	for _, d := range []*deadline{&st.readLate, &st.writeLate} {
		if d.timer != nil && st.readEnd && st.writeEnd {
			d.timer.Stop()
		}
	}
}

// CloseWrite implements muxer.Stream.
func (st *stream) CloseWrite() error {
	st.s.mu.Lock()
	st.closeWrite()
	st.s.unlock()
	return nil
}

func (st *stream) closeWrite() {
	if st.writeEnd || st.failed != nil {
		return
	}
	st.writeEnd = true
	wake(&st.writeWake)
	if st.stopped == nil && st.s.end == nil {
		st.send(message{flag: flagFin})
		st.finSent = true
		st.s.fins++
	}
	st.settle()
}

// CloseRead implements muxer.Stream.
func (st *stream) CloseRead() error {
	st.s.mu.Lock()
	st.closeRead()
	st.s.unlock()
	return nil
}

func (st *stream) closeRead() {
	if st.readEnd || st.failed != nil {
		return
	}
	st.readEnd = true
	st.drop()
	wake(&st.readWake)
	if !st.eof && st.cut == nil && st.s.end == nil {
		st.send(message{flag: flagStopSending})
	}
	st.settle()
}

// Close implements net.Conn.
func (st *stream) Close() error {
	st.s.mu.Lock()
	st.closeWrite() // first: a peer may take STOP_SENDING for the end of all
	st.closeRead()
	st.s.unlock()
	return nil
}

// Reset implements muxer.Stream.
func (st *stream) Reset(code muxer.Code) error {
	st.s.mu.Lock()
	st.resetLocked(code)
	st.s.unlock()
	return nil
}

func (st *stream) resetLocked(code muxer.Code) {
	if st.failed != nil || st.readEnd && st.writeEnd {
		return // after Close, what was written still arrives
	}
	if st.over {
		st.failed = &muxer.StreamError{Code: code}
		st.drop()
		st.wakeLocked()
		return
	}
	reading := !st.eof && st.cut == nil && !st.readEnd
	st.fail(&muxer.StreamError{Code: code})
	if st.opened && st.s.end == nil {
		st.send(message{flag: flagReset, code: uint32(code)})
		if reading { // to some RESET means one direction
			st.send(message{flag: flagStopSending, code: uint32(code)})
		}
	}
	st.settle()
}

// Ready implements muxer.Stream.
func (st *stream) Ready() bool {
	st.s.mu.Lock()
	defer st.s.mu.Unlock()
	return len(st.received) > 0 || st.eof || st.cut != nil || st.readEnd || st.failed != nil || st.s.end != nil || st.readLate.passed()
}

// LocalAddr and RemoteAddr are those of the session.
func (st *stream) LocalAddr() net.Addr  { return st.s.local }
func (st *stream) RemoteAddr() net.Addr { return st.s.remote }

// SetDeadline implements net.Conn.
func (st *stream) SetDeadline(t time.Time) error {
	st.SetReadDeadline(t)
	return st.SetWriteDeadline(t)
}

// SetReadDeadline implements net.Conn.
func (st *stream) SetReadDeadline(t time.Time) error {
	st.setDeadline(&st.readLate, &st.readWake, t)
	return nil
}

// SetWriteDeadline implements net.Conn.
func (st *stream) SetWriteDeadline(t time.Time) error {
	st.setDeadline(&st.writeLate, &st.writeWake, t)
	return nil
}

func (st *stream) setDeadline(d *deadline, ch *chan struct{}, t time.Time) {
	st.s.mu.Lock()
	defer st.s.mu.Unlock()
	if d.timer != nil {
		d.timer.Stop()
		d.timer = nil
	}
	d.at = t
	if !t.IsZero() {
		if left := time.Until(t); left > 0 {
			d.timer = time.AfterFunc(left, func() {
				st.s.mu.Lock()
				wake(ch)
				st.s.mu.Unlock()
			})
			return
		}
	}
	wake(ch)
}
