package plexus

import (
	"context"
	"errors"
	"io"
	"net"
	"sync/atomic"
	"time"

	"github.com/plexus-p2p/plexus/internal/stack"
	"github.com/plexus-p2p/plexus/multiselect"
	"github.com/plexus-p2p/plexus/muxer"
	"github.com/plexus-p2p/plexus/security"
)

// Stream is one conversation with a peer about one protocol. It is a net.Conn
// for any number of concurrent readers, writers and closers.
type Stream struct {
	ms      multiselect.Conn // negotiates on its way, then passes through
	raw     patient          // what ms reads and writes
	conn    *Conn
	inbound bool
	over    atomic.Bool // counted out of conn.streams
}

// patient is a muxer's stream that, while a protocol is negotiated with a
// stranger, waits for a bounded time only. A deadline costs less than to look whether one
// is needed: no timer runs where the proposal has come with the opening.
type patient struct {
	muxer.Stream
	limit time.Duration // 0: wait as the application says
	set   bool
}

func (p *patient) Read(b []byte) (int, error) {
	if p.limit > 0 && !p.set {
		p.set = true
		p.Stream.SetReadDeadline(time.Now().Add(p.limit))
	}
	return p.Stream.Read(b)
}

func newStream(c *Conn, m muxer.Stream, inbound bool) *Stream {
	s := &Stream{conn: c, inbound: inbound}
	s.raw.Stream = m
	c.streams.Add(1)
	return s
}

// lazy proposes a protocol without waiting for the answer.
func (s *Stream) lazy(proto string) {
	s.ms.Lazy(&s.raw, proto)
}

// selectOne proposes one protocol after the other until the peer takes one.
func (s *Stream) selectOne(ctx context.Context, protos []string) error {
	ctx, cancel := context.WithTimeout(ctx, s.conn.host.limits.NegotiateTimeout)
	defer cancel()
	return security.Within(ctx, s.raw.Stream, func() error { return s.ms.Select(&s.raw, protos...) })
}

// serve answers the peer's proposal and runs the handler.
func (s *Stream) serve() {
	stack.Small()
	h := s.conn.host
	defer h.busy.Done()
	s.raw.limit = h.limits.NegotiateTimeout
	err := s.ms.Accept(&s.raw, h.served)
	if s.raw.limit = 0; s.raw.set {
		s.raw.Stream.SetReadDeadline(time.Time{})
	}
	if errors.Is(err, ErrNotSupported) {
		s.Close() // a reset could overtake our "na"
		return
	}
	if err != nil {
		s.finish(err)
		return
	}
	hd := h.lookup(s.Protocol())
	if hd == nil { // unregistered this moment
		s.finish(ErrNotSupported)
		return
	}
	if err := hd.f(s.conn.ctx, s); err != nil || !hd.keep {
		s.finish(err)
	}
}

// finish ends a stream as its handler asks.
func (s *Stream) finish(err error) {
	if err == nil {
		s.Close()
		return
	}
	code := CodeNone
	_, refused := errors.AsType[*NegotiationError](err)
	switch {
	case refused:
		code = muxer.StreamProtocolNegotiationFailed
	case errors.Is(err, ErrLimit):
		code = muxer.StreamResourceLimitExceeded
	}
	s.Reset(code)
}

// release counts the stream out, once.
func (s *Stream) release() {
	if s.over.Swap(true) {
		return
	}
	c := s.conn
	if s.inbound {
		c.inbound.Add(-1)
	}
	if c.streams.Add(-1) == 0 {
		c.idle.Store(time.Now().UnixNano())
	}
}

// Protocol is what the stream speaks.
func (s *Stream) Protocol() string { return s.ms.Protocol() }

// Conn is the connection that carries the stream.
func (s *Stream) Conn() *Conn { return s.conn }

// Inbound tells whether the peer opened the stream.
func (s *Stream) Inbound() bool { return s.inbound }

// Read reads what the peer sent. It returns io.EOF after the peer's last byte,
// a [StreamError] after a reset, a [ConnError] when the connection ended,
// os.ErrDeadlineExceeded at the deadline, net.ErrClosed after Close or
// CloseRead, and a [NegotiationError] when the peer refused the protocol.
func (s *Stream) Read(p []byte) (int, error) {
	n, err := s.ms.Read(p)
	return n, s.agreed(err)
}

// Write returns when all of p is on its way, or with the error that stopped it,
// as Read's. It blocks while the peer does not read.
func (s *Stream) Write(p []byte) (int, error) { return s.ms.Write(p) }

// Handshake waits for the peer's answer to the protocol, which Read otherwise does on its
// way. The error is a [NegotiationError] where it refuses, or Read's.
func (s *Stream) Handshake() error { return s.agreed(s.ms.Handshake()) }

// agreed resets the stream if err is that the peer refuses the protocol.
func (s *Stream) agreed(err error) error {
	if err != nil && err != io.EOF {
		if _, refused := errors.AsType[*NegotiationError](err); refused {
			s.Reset(muxer.StreamProtocolNegotiationFailed) // writers that wait for the peer need wait no longer
		}
	}
	return err
}

// AfterReset has f called, in a goroutine of its own, once the stream was reset by either
// end or the connection has ended; at once where that is so. It is for streams that are only
// written to: no goroutine needs to read them. Only the last f is called, and none
// after Close or CloseWrite.
func (s *Stream) AfterReset(f func()) { s.raw.Stream.AfterReset(f) }

// CloseWrite tells the peer that it has read everything once it has. Reading goes on.
func (s *Stream) CloseWrite() error { return s.ms.CloseWrite() }

// CloseRead drops what the peer sends from now on.
func (s *Stream) CloseRead() error { return s.raw.Stream.CloseRead() }

// Close ends both directions; the peer still gets what was written, and what it
// sends is dropped. It is nil after Reset and after another Close.
func (s *Stream) Close() error {
	s.release()
	s.ms.Flush() // the opening, or our answer to it, where nothing was written
	return s.raw.Stream.Close()
}

// Reset ends both directions at once; the peer's reads and writes fail. The
// code reaches peers that understand it.
func (s *Stream) Reset(code Code) error {
	s.release()
	return s.raw.Stream.Reset(code)
}

// SetDeadline, SetReadDeadline and SetWriteDeadline are net.Conn's.
func (s *Stream) SetDeadline(t time.Time) error      { return s.raw.Stream.SetDeadline(t) }
func (s *Stream) SetReadDeadline(t time.Time) error  { return s.raw.Stream.SetReadDeadline(t) }
func (s *Stream) SetWriteDeadline(t time.Time) error { return s.raw.Stream.SetWriteDeadline(t) }

// LocalAddr and RemoteAddr name the hosts and the protocol; [Stream.Conn] has the multiaddrs.
func (s *Stream) LocalAddr() net.Addr  { return streamAddr{s.conn.host.id, s.Protocol()} }
func (s *Stream) RemoteAddr() net.Addr { return streamAddr{s.conn.link.peer, s.Protocol()} }
