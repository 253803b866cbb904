// Package patient accepts connections as long as the listener may.
package patient

import (
	"errors"
	"net"
	"slices"
	"syscall"
	"time"
)

// Accept accepts a connection of l. It outlives errors that pass, such as having no
// file descriptor left: it tries again, at most once a second, until closed is, as
// l then should be.
func Accept(l net.Listener, closed <-chan struct{}) (net.Conn, error) {
	var wait time.Duration
	for {
		c, err := l.Accept()
		if err == nil || !passing(err) {
			return c, err
		}
		wait = min(max(2*wait, 5*time.Millisecond), time.Second)
		again := time.NewTimer(wait)
		select {
		case <-again.C:
		case <-closed:
			again.Stop()
			return nil, net.ErrClosed
		}
	}
}

// passing tells errors of one connection, or of a machine that is short of
// something, from those of the listener.
//
// "Linux accept() passes already-pending network errors on the new socket as an
// error code from accept(). […] treat them like EAGAIN by retrying." accept(2)
func passing(err error) bool {
	var n syscall.Errno
	return errors.As(err, &n) && (n.Temporary() || slices.Contains([]syscall.Errno{
		syscall.EMFILE, syscall.ENFILE, syscall.ENOBUFS, syscall.ENOMEM, syscall.ECONNABORTED,
		syscall.ENETDOWN, syscall.EPROTO, syscall.ENOPROTOOPT, syscall.EHOSTDOWN,
		syscall.EHOSTUNREACH, syscall.EOPNOTSUPP, syscall.ENETUNREACH, syscall.EPERM,
	}, n))
}
