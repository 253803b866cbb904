//go:build !linux && !darwin && !dragonfly && !freebsd && !netbsd && !openbsd

package transport

// A port cannot be shared here: DialTCP always takes a port of its own.
const (
	canShare  = false
	shareLate = false
)

func sharePort(uintptr) error { return nil }
