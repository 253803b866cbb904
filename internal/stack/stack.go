// Package stack makes room on a goroutine's stack.
//
// A goroutine begins with 2 KiB. Each time that is not enough the runtime doubles it, and
// moves all frames, one by one, the more the deeper the call is that needs room. For a
// goroutine that lives as long as one handshake or one request, that is several
// percent of its time.
package stack

import "runtime"

// Small makes room for what a stream needs, from its handler to the socket. To be called
// first in a goroutine, when there is nothing to move.
//
//go:noinline
func Small() {
	var room [2 << 10]byte
	runtime.KeepAlive(&room)
}

// Large makes room for a handshake.
//
//go:noinline
func Large() {
	var room [8 << 10]byte
	runtime.KeepAlive(&room)
}
