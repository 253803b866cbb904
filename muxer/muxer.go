// Package muxer holds what stream muxers have in common. A muxer carries many
// streams over one connection.
//
// The muxers are in the folders below: yamux, mplex. Each is held to the suite in
// muxertest, that starts with nettest.TestConn.
//
// Spec: https://github.com/libp2p/specs/blob/master/connections/README.md#multiplexing
package muxer

import (
	"context"
	"errors"
	"net"
	"time"
)

// A Muxer starts sessions on connections.
type Muxer interface {
	// ID is what multiselect negotiates, such as "/yamux/1.0.0".
	ID() string

	// New starts a session on c, which it owns from then on. Deadlines of c must
	// lose no bytes, as security.Conn says. Exactly one end is the client: the one
	// that dialed. Nothing is read before [Session.Serve].
	New(c net.Conn, client bool) Session
}

// A Session is one end of a muxed connection. All methods may be called
// concurrently.
type Session interface {
	// Open starts a stream. It does not wait for the peer, and may send nothing
	// before the stream's first write, read or close. It blocks only while
	// too many streams wait for the peer's acknowledgement, until ctx ends.
	// After the session's end it returns the session's error.
	Open(ctx context.Context) (Stream, error)

	// Serve reads the connection until the session ends, calls accept for each
	// stream that the peer opens, and returns why the session ended. Call it
	// once; nothing is received without it. accept must not block: it runs in a
	// goroutine that other streams wait for.
	Serve(accept func(Stream)) error

	// Close ends the session. What has been written is delivered before: Close
	// sends it, tells the peer the code, and waits until the peer hangs up or
	// ctx ends. Then all streams fail with a [SessionError]. A ctx that has
	// ended already closes at once.
	Close(ctx context.Context, code Code) error

	// Stats tells what the session holds now.
	Stats() Stats
}

// Watched is what a [Session] has besides if it pings its peer.
type Watched interface {
	// Watched tells that the system notices when the peer's host is gone, as
	// transport.Watcher says, so that the session need not ask often. Call it before Serve.
	Watched()
}

// A Stream is a net.Conn, safe for concurrent use by any number of readers,
// writers and closers. In addition each direction ends for itself.
//
// Close closes both directions: the peer reads what was written and then EOF;
// what it sends from then on is dropped. It never blocks and is not an error after Reset.
// Write returns when all bytes went to the connection or wait in its bounded queue.
type Stream interface {
	net.Conn
	CloseWrite() error     // the peer reads EOF after what was written; Read goes on
	CloseRead() error      // what the peer sends from now on is dropped; Read returns net.ErrClosed
	Reset(code Code) error // both directions end at once with a StreamError, at both ends

	// Ready tells that Read would not block: bytes, EOF or an error wait.
	Ready() bool

	// AfterReset has f called, in a goroutine of its own, once the stream was reset by
	// either end or the session has ended; at once where that is so. That needs nobody
	// who reads. Only the last f is called, and none where we have closed our direction.
	AfterReset(f func())
}

// Stats describes a session.
type Stats struct {
	Streams  int           // open streams, by either end
	Received int           // bytes held for streams that have not read them, at what they cost
	RTT      time.Duration // smoothed round-trip time; 0 while unknown
}

// Code says why a stream or a session ended. Muxers that have no place for it on
// the wire drop it.
//
// Spec: https://github.com/libp2p/specs/pull/623 (as go-libp2p deploys it)
type Code uint32

// A StreamError is why a stream was reset.
type StreamError struct {
	Code   Code
	Remote bool // the peer reset it
}

func (e *StreamError) Error() string {
	return "stream reset by " + side(e.Remote) + describe(e.Code, StreamProtocolNegotiationFailed)
}

// A SessionError is why a session ended and all its streams with it.
type SessionError struct {
	Code   Code
	Remote bool  // the peer ended it
	Err    error // what failed underneath, may be nil
}

func (e *SessionError) Error() string {
	s := "connection closed by " + side(e.Remote) + describe(e.Code, ConnProtocolNegotiationFailed)
	if e.Err != nil {
		s += ": " + e.Err.Error()
	}
	return s
}

// Unwrap returns what failed underneath. A session that this end closed is also
// net.ErrClosed.
func (e *SessionError) Unwrap() []error {
	var errs []error
	if !e.Remote && e.Err == nil {
		errs = append(errs, net.ErrClosed)
	}
	if e.Err != nil {
		errs = append(errs, e.Err)
	}
	return errs
}

// ErrProtocol means that the peer broke the muxer's rules; the session ends.
var ErrProtocol = errors.New("muxer: protocol violation")

func side(remote bool) string {
	if remote {
		return "the peer"
	}
	return "us"
}
