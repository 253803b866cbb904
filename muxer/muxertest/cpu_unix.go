//go:build unix

package muxertest

import "syscall"

// cpu is the time that the process has used, in nanoseconds.
func cpu() int64 {
	var r syscall.Rusage
	syscall.Getrusage(syscall.RUSAGE_SELF, &r)
	return r.Utime.Nano() + r.Stime.Nano()
}
