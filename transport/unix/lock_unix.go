//go:build linux || darwin || freebsd || netbsd || openbsd || dragonfly

package unix

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"syscall"
	"time"
)

const tryLock = 5 * time.Millisecond // how long until the next try

// lock keeps others that use it out of a directory.
func lock(ctx context.Context, dir string) (unlock func(), err error) {
	d, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	for {
		err := syscall.Flock(int(d.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			return func() { d.Close() }, nil
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) && !errors.Is(err, syscall.EINTR) {
			d.Close()
			return nil, os.NewSyscallError("flock", err)
		}
		again := time.NewTimer(tryLock)
		select {
		case <-again.C:
		case <-ctx.Done():
			again.Stop()
			d.Close()
			return nil, context.Cause(ctx)
		}
	}
}

// protect sets the mode that the socket's file is made with, which Linux can do; elsewhere
// it is set just after.
func protect(fd uintptr, mode fs.FileMode) { syscall.Fchmod(int(fd), uint32(mode.Perm())) }
