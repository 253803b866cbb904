// Package mplex is an old stream muxer, for peers that have no other. Its streams
// have no windows: a peer sends as fast as it likes. When a stream holds half of
// what it may, the whole session pauses for up to 100 ms, once, for its reader to
// catch up; a stream that has no more room is reset. Prefer yamux.
//
// The frames are in wire.go. What happens to them is in package session.
//
// Spec: https://github.com/libp2p/specs/blob/master/mplex/README.md (deprecated)
//
// # Limits
//
// There is no place for codes: the peer sees 0. Stream names are neither sent nor read.
package mplex

import (
	"net"

	"github.com/plexus-p2p/plexus/muxer"
	"github.com/plexus-p2p/plexus/muxer/session"
)

// ID is what multiselect negotiates.
const ID = "/mplex/6.7.0"

// Muxer starts mplex sessions. The zero value works. It implements [muxer.Muxer].
type Muxer struct {
	// MaxStreams is how many streams the peer may have open on one session. A
	// further one is reset. Zero means 1000, negative no limit.
	MaxStreams int

	// MaxQueue is how many bytes a stream holds for its reader. It is reset when
	// more arrive. Zero means 4 MiB.
	MaxQueue int

	// MaxReceive is how many bytes a session holds for readers of its streams,
	// at what they cost. A stream that needs more is reset. Zero means 64 MiB.
	MaxReceive int
}

// ID implements [muxer.Muxer].
func (m Muxer) ID() string { return ID }

// New implements [muxer.Muxer].
func (m Muxer) New(c net.Conn, client bool) muxer.Session {
	return session.New(c, session.Config{
		Wire:    wire{},
		FirstID: 1, // at both ends, see wire.go
		MaxID:   maxID,
		MaxHead: maxHead,
		MaxBody: maxBody,

		MaxStreams: or(m.MaxStreams, 1000),
		MaxQueue:   or(m.MaxQueue, 4<<20),
		MaxReceive: or(m.MaxReceive, 64<<20),
	})
}

func or(v, zero int) int {
	if v == 0 {
		return zero
	}
	return v
}
