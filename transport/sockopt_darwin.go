package transport

import "golang.org/x/sys/unix"

// limitUnsent is an optimization: a kernel without it works too.
func limitUnsent(fd uintptr) {
	_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_NOTSENT_LOWAT, unsent)
}
