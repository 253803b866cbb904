//go:build !race

package muxertest

const idleMax = 8 << 10 // bytes
