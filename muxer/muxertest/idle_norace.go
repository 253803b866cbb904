//go:build !race

package muxertest

const (
	idleMax      = 7 << 10 // bytes
	tripAllocs   = 0       // of a round trip on an open stream, both ends
	streamAllocs = 2.5     // of a stream that opens, echoes and closes, both ends
)
