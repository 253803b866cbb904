//go:build race

package muxertest

const idleMax = 10 << 10 // bytes, the race detector's share included
