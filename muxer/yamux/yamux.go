// Package yamux is the stream muxer that libp2p prefers: each stream has a window,
// so that one whose reader is slow does not hold up the others.
//
// The frames are in wire.go. What happens to them is in package session.
//
// Spec: https://github.com/libp2p/specs/blob/master/yamux/README.md, and
// https://github.com/libp2p/specs/pull/622 and 623 for error codes.
package yamux

import (
	"math"
	"net"
	"time"

	"github.com/plexus-p2p/plexus/muxer"
	"github.com/plexus-p2p/plexus/muxer/session"
)

// ID is what multiselect negotiates.
const ID = "/yamux/1.0.0"

// "Both sides assume the initial 256KB window"
const initialWindow = 256 << 10

// Muxer starts yamux sessions. The zero value works. It implements [muxer.Muxer].
type Muxer struct {
	// MaxStreams is how many streams the peer may have open on one session. A
	// further one is reset with muxer.StreamResourceLimitExceeded. Zero means
	// 1000, negative no limit.
	MaxStreams int

	// MaxWindow is how many bytes the window of a fast stream may grow to. It
	// starts at 256 KiB. Zero means 16 MiB.
	MaxWindow int

	// MaxReceive is how many bytes a session holds for readers of its streams,
	// at what they cost. A stream that needs more is reset with
	// muxer.StreamResourceLimitExceeded. Zero means 64 MiB.
	MaxReceive int

	// Backlog is how many streams Open starts before the peer acknowledges
	// one. Zero means 256, which the spec advises not to exceed; negative no limit.
	Backlog int

	// KeepAlive is how long the peer may be silent before it is pinged. Zero means
	// 30 s; and 2 min on a connection that the system watches (muxer.Watched), once an
	// answer has shown that all that was sent has arrived. Negative means never.
	KeepAlive time.Duration

	// Timeout is how long the peer may be silent after that before the session
	// ends. Zero means 10 s.
	Timeout time.Duration
}

// ID implements [muxer.Muxer].
func (m Muxer) ID() string { return ID }

// New implements [muxer.Muxer].
func (m Muxer) New(c net.Conn, client bool) muxer.Session {
	// "The client side should use odd ID's, and the server even."
	first := uint64(2)
	if client {
		first = 1
	}
	keepAlive, watched := m.KeepAlive, m.KeepAlive
	if keepAlive == 0 {
		keepAlive, watched = 30*time.Second, 2*time.Minute
	}
	return session.New(c, session.Config{
		Wire:     wire{},
		FirstID:  first,
		MaxID:    math.MaxUint32 - 1<<16, // some streams are open and have no ID yet
		MaxHead:  headLen,
		MaxBody:  math.MaxInt32,
		Window:   initialWindow,
		Acks:     true,
		Backlog:  or(m.Backlog, 256),
		Pings:    true,
		Violated: goAwayProtocol,

		MaxStreams: or(m.MaxStreams, 1000),
		MaxWindow:  max(or(m.MaxWindow, 16<<20), initialWindow),
		MaxReceive: or(m.MaxReceive, 64<<20),
		KeepAlive:  keepAlive,
		Watched:    watched,
		Timeout:    or(m.Timeout, 10*time.Second),
	})
}

func or[T int | time.Duration](v, zero T) T {
	if v == 0 {
		return zero
	}
	return v
}
