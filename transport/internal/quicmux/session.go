// Package quicmux makes sessions and streams of QUIC connections. The transports quic and
// webtransport share it: to either, a stream of the session is a stream of QUIC.
//
// Spec: https://github.com/libp2p/specs/blob/master/quic/README.md
package quicmux

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/plexus-p2p/plexus/muxer"
	"github.com/plexus-p2p/plexus/transport"
)

// Why a session ended that nobody closed. They are found in its muxer.SessionError.
var (
	ErrSilent = errors.New("quic: the peer does not answer")
	ErrLost   = errors.New("quic: the peer does not know the connection any more")
)

// A Dialect is what a transport has streams begin with, and how it writes codes. The
// zero value is libp2p over QUIC: nothing, and as they are.
type Dialect struct {
	// Prefix is what each stream that we open begins with. Nil: nothing, at either end.
	Prefix []byte

	// Parse looks at the first bytes of a stream that the peer opened, and tells how
	// many more it needs, or 0. A stream for which it fails is reset with Refused.
	Parse   func(b []byte) (more int, err error)
	Refused uint64

	// Code reads a code of a stream or a connection. tooLarge is what it returns for
	// one that has no place in a muxer.Code. Wire is its inverse.
	Code func(wire uint64, tooLarge muxer.Code) muxer.Code
	Wire func(muxer.Code) uint64

	// Bye tells the peer that the session ends, before the connection does.
	Bye func(context.Context, muxer.Code)
}

// Session is a connection. The transport adds whose it is.
type Session struct {
	conn          *quic.Conn
	dialect       Dialect
	local, remote net.Addr

	answered chan struct{} // poked, while the session closes, by each stream that the peer ends

	mu      sync.Mutex
	streams map[*Stream]struct{} // those of which some direction is open, as far as we have closed it
	wrote   time.Time            // when one of the others was written to last, if that may not have been read
	closing *muxer.SessionError  // since Close, or End
	ended   *muxer.SessionError  // since End, or Bye; why the connection ends does not count then
}

var (
	_ muxer.Session       = (*Session)(nil)
	_ transport.Datagrams = (*Session)(nil)
)

// New returns the session of a connection. Of the dialect, what is nil means nothing.
func New(c *quic.Conn, d Dialect, local, remote net.Addr) *Session {
	if d.Code == nil {
		d.Code, d.Wire = code, func(c muxer.Code) uint64 { return uint64(c) }
	}
	return &Session{
		conn: c, dialect: d, local: local, remote: remote,
		answered: make(chan struct{}, 1),
		streams:  make(map[*Stream]struct{}),
	}
}

// LocalAddr and RemoteAddr are those of New.
func (s *Session) LocalAddr() net.Addr  { return s.local }
func (s *Session) RemoteAddr() net.Addr { return s.remote }

// Open implements muxer.Session. It waits while the peer takes no more streams.
func (s *Session) Open(ctx context.Context) (muxer.Stream, error) {
	q, err := s.conn.OpenStreamSync(ctx)
	if err != nil {
		return nil, s.Reason(ctx, err)
	}
	st, err := s.add(q, true)
	if err != nil {
		return nil, err
	}
	return st, nil
}

// Accept returns the next stream that the peer opens, before Serve.
func (s *Session) Accept(ctx context.Context) (*Stream, error) {
	q, err := s.conn.AcceptStream(ctx)
	if err != nil {
		return nil, s.Reason(ctx, err)
	}
	return s.add(q, false)
}

// add makes a stream known, or ends it if the session is closing.
func (s *Session) add(q *quic.Stream, own bool) (*Stream, error) {
	st := &Stream{s: s, q: q, own: own}
	if s.dialect.Prefix == nil {
		st.begun.Store(true)
	} else {
		st.turn = make(chan struct{}, 1)
	}
	s.mu.Lock()
	closing := s.closing
	if closing == nil {
		s.streams[st] = struct{}{}
	}
	s.mu.Unlock()
	if closing == nil {
		return st, nil
	}
	q.CancelRead(s.wire(muxer.StreamShutdown))
	q.CancelWrite(s.wire(muxer.StreamShutdown))
	return nil, closing
}

// remove forgets a stream that has ended, but for when the peer may not have read it yet.
func (s *Session) remove(st *Stream) {
	wrote := st.unread()
	s.mu.Lock()
	delete(s.streams, st)
	if wrote.After(s.wrote) {
		s.wrote = wrote
	}
	s.mu.Unlock()
}

// Serve implements muxer.Session.
func (s *Session) Serve(accept func(muxer.Stream)) error {
	for {
		q, err := s.conn.AcceptStream(context.Background())
		if err != nil {
			s.mu.Lock()
			clear(s.streams)
			s.mu.Unlock()
			return s.reason(err)
		}
		if st, err := s.add(q, false); err == nil {
			accept(st)
		}
	}
}

// Stats implements muxer.Session. What streams hold is not known, but bounded by
// the connection's window.
func (s *Session) Stats() muxer.Stats {
	s.mu.Lock()
	n := len(s.streams)
	s.mu.Unlock()
	return muxer.Stats{Streams: n, RTT: s.conn.ConnectionStats().SmoothedRTT}
}

// Close implements muxer.Session.
func (s *Session) Close(ctx context.Context, code muxer.Code) error {
	if s.conn.Context().Err() != nil {
		return nil
	}
	err := s.drain(ctx, &muxer.SessionError{Code: code})
	if err == nil && s.dialect.Bye != nil {
		s.mu.Lock()
		s.ended = s.closing // whatever the peer says to it
		s.mu.Unlock()
		s.dialect.Bye(ctx, code)
	}
	s.conn.CloseWithError(quic.ApplicationErrorCode(s.dialect.Wire(code)), "")
	return err
}

// End ends the session for a reason that the connection does not know: the peer
// said so in words of the transport. wire is what the peer gets to hear.
func (s *Session) End(why *muxer.SessionError, wire uint64) {
	s.mu.Lock()
	if s.closing == nil {
		s.closing, s.ended = why, why
	}
	s.mu.Unlock()
	s.conn.CloseWithError(quic.ApplicationErrorCode(wire), "")
}

// Settle waits until what has just been written has arrived, as far as one can tell.
func (s *Session) Settle(ctx context.Context) error { return s.settle(ctx, time.Now()) }

// Reason tells why a call on the connection failed that ends with ctx: the cause of that,
// or, once the session has ended, an error of package muxer.
func (s *Session) Reason(ctx context.Context, err error) error {
	if s.conn.Context().Err() == nil && ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return s.reason(err)
}

func (s *Session) wire(c muxer.Code) quic.StreamErrorCode {
	return quic.StreamErrorCode(s.dialect.Wire(c))
}

// drain waits until what was written has been read, as far as one can tell.
//
// "the endpoint that sends CONNECTION_CLOSE […] discards […] all other state", and
// so does the one that receives it: what waits to be sent again is lost, and in
// quic-go what its program has not read yet.
// https://www.rfc-editor.org/rfc/rfc9000#section-10.2
//
// A peer that ends its direction of a stream after we have ended ours has read ours, and
// so has, as a rule, one that sent something a round trip after our last Write. If
// all streams are answered, the session closes at once. Those that we have ended
// while the peer may still do so are waited for. Of the rest nothing is known but
// when it was written: settle waits for it to arrive.
func (s *Session) drain(ctx context.Context, end *muxer.SessionError) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	s.mu.Lock()
	if s.closing == nil {
		s.closing = end
	}
	wrote := s.wrote
	var asked []*Stream
	for st := range s.streams {
		asked = append(asked, st)
	}
	s.mu.Unlock()
	asked = slices.DeleteFunc(asked, func(st *Stream) bool {
		wait, at := st.lastCall(end)
		if at.After(wrote) {
			wrote = at
		}
		return !wait
	})
	for {
		asked = slices.DeleteFunc(asked, func(st *Stream) bool { return st.answer.Load() != awaited })
		if len(asked) == 0 {
			return s.settle(ctx, wrote)
		}
		select {
		case <-s.answered:
		case <-s.conn.Context().Done():
			return nil
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// settle waits until what was written up to a time has arrived. quic-go does not tell
// what the peer has acknowledged: it does to a tracer, which costs a quarter of the
// throughput. But
//
// "A sender SHOULD [set] the PTO timer […] when ack-eliciting packets are in
// flight", and when it fires, send a packet. So whoever has sent nothing for that
// long has nothing in flight. A probe may be lost too, and the next one comes after
// twice that time. It also gives the peer's program a moment to read.
// https://www.rfc-editor.org/rfc/rfc9002#section-6.2
//
// Other packets come in between, such as acknowledgements. When there was time for
// two probes, only a sender that sends more than it answers still has something to say.
func (s *Session) settle(ctx context.Context, wrote time.Time) error {
	if wrote.IsZero() {
		return nil
	}
	began := time.Now()
	quiet, then := began, began // since when nothing was sent; a PTO ago
	last := s.conn.ConnectionStats()
	at := last // then
	tick := time.NewTimer(0)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-s.conn.Context().Done():
			return nil
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		now, stats := time.Now(), s.conn.ConnectionStats()
		pto := stats.SmoothedRTT + max(4*stats.MeanDeviation, time.Millisecond) + maxAckDelay
		if began.Sub(wrote) > 8*pto {
			return nil // three probes fit into seven
		}
		if stats.PacketsSent != last.PacketsSent {
			quiet = now
		}
		last = stats
		if now.Sub(quiet) >= 2*pto+pto/2 {
			return nil
		}
		if now.Sub(then) >= pto {
			if now.Sub(began) >= 4*pto && stats.PacketsSent-at.PacketsSent <= stats.PacketsReceived-at.PacketsReceived+2 {
				return nil
			}
			then, at = now, stats
		}
		tick.Reset(pto / 4)
	}
}

// maxAckDelay is how long a peer may hold an acknowledgement back. 25 ms is the
// default, which all known stacks keep.
// https://www.rfc-editor.org/rfc/rfc9000#section-18.2
const maxAckDelay = 26 * time.Millisecond

// reason tells why the session ended.
func (s *Session) reason(err error) error {
	s.mu.Lock()
	ended := s.ended
	s.mu.Unlock()
	if ended != nil {
		return ended
	}
	if cause := context.Cause(s.conn.Context()); cause != nil {
		err = cause // the same for all that ask
	}
	var (
		app *quic.ApplicationError
		te  *quic.TransportError
	)
	switch {
	case errors.As(err, &app):
		return &muxer.SessionError{Code: s.dialect.Code(uint64(app.ErrorCode), muxer.ConnCodeOutOfRange), Remote: app.Remote}
	case errors.As(err, new(*quic.IdleTimeoutError)):
		return &muxer.SessionError{Remote: true, Err: ErrSilent}
	case errors.As(err, new(*quic.StatelessResetError)):
		return &muxer.SessionError{Remote: true, Err: ErrLost}
	case errors.As(err, &te) && !te.Remote && te.ErrorCode != quic.InternalError && te.ErrorCode != quic.NoError:
		return &muxer.SessionError{Err: fmt.Errorf("%w: %v", muxer.ErrProtocol, te)}
	}
	return &muxer.SessionError{Remote: te != nil && te.Remote, Err: fmt.Errorf("quic: %v", err)}
}

// code makes one of ours of a code that has up to 62 bits.
func code(c uint64, tooLarge muxer.Code) muxer.Code {
	if c > math.MaxUint32 {
		return tooLarge
	}
	return muxer.Code(c)
}

// SendDatagram implements transport.Datagrams.
func (s *Session) SendDatagram(b []byte) error {
	err := s.conn.SendDatagram(b)
	switch {
	case err == nil:
		return nil
	case errors.As(err, new(*quic.DatagramTooLargeError)):
		return fmt.Errorf("%w: %d bytes, at most %d", transport.ErrDatagramTooLong, len(b), s.MaxDatagram())
	case s.conn.Context().Err() != nil:
		return s.reason(err)
	}
	return fmt.Errorf("%w: the peer takes none", transport.ErrDatagramTooLong)
}

// ReceiveDatagram implements transport.Datagrams.
func (s *Session) ReceiveDatagram(ctx context.Context) ([]byte, error) {
	b, err := s.conn.ReceiveDatagram(ctx)
	if err != nil {
		return nil, s.Reason(ctx, err)
	}
	return b, nil
}

// MaxDatagram implements transport.Datagrams.
func (s *Session) MaxDatagram() int {
	var tooLarge *quic.DatagramTooLargeError
	// Nothing is sent of what no packet can hold, but the error has the limit.
	if errors.As(s.conn.SendDatagram(endless[:]), &tooLarge) {
		return int(max(tooLarge.MaxDatagramPayloadSize, 0))
	}
	return 0
}

var endless [1 << 16]byte // more than a UDP packet
