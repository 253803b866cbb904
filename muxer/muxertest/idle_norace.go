//go:build !race

package muxertest

const (
	idleMax    = 8 << 10 // bytes
	tripAllocs = 0       // of a round trip on an open stream, both ends
)
