//go:build race

package muxertest

// With the race detector's share.
const (
	idleMax      = 10 << 10 // bytes
	tripAllocs   = 2        // of a round trip on an open stream, both ends
	streamAllocs = 8        // of a stream that opens, echoes and closes, both ends
)
