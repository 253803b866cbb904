// Package unix connects processes of one machine by Unix domain sockets.
//
// Addresses are /unix/run/plexus.sock: the path, which is absolute, is all that follows.
// The socket that dials has no address, so both ends of a connection have the
// listener's.
//
// Who may connect is a matter of the file's mode. The host proves itself to whoever
// connects, and asks for proof, as on any other transport.
//
// # Limits
//
// Linux's abstract sockets have no multiaddr. A path has about 100 bytes at most.
//
// Spec: https://github.com/multiformats/multiaddr/blob/master/protocols.csv (code 400)
package unix

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"sync"
	"syscall"

	ma "github.com/multiformats/go-multiaddr"

	"github.com/plexus-p2p/plexus/transport"
	"github.com/plexus-p2p/plexus/transport/internal/patient"
)

// Transport is the transport of one host. The zero value works.
type Transport struct {
	Mode fs.FileMode // of the sockets that it makes; 0: 0600, the user's own
}

var _ transport.Pipes = (*Transport)(nil)

func path(a ma.Multiaddr) (string, bool) {
	if len(a) != 1 || a[0].Code() != ma.P_UNIX {
		return "", false
	}
	return string(a[0].RawValue()), true
}

// Match accepts /unix and a path.
func (t *Transport) Match(a ma.Multiaddr) bool {
	_, ok := path(a)
	return ok
}

// Dial connects. Where nobody listens the error is fs.ErrNotExist or
// syscall.ECONNREFUSED.
func (t *Transport) Dial(ctx context.Context, to ma.Multiaddr) (net.Conn, error) {
	p, ok := path(to)
	if !ok {
		return nil, fmt.Errorf("unix: dial: not a Unix address: %v", to)
	}
	c, err := new(net.Dialer).DialContext(ctx, "unix", p)
	if err != nil {
		return nil, err
	}
	return &conn{c.(*net.UnixConn), addr(p)}, nil
}

// Listen makes a socket and accepts connections. In place of a directory it makes
// one of a new name in there. A socket that nobody listens to any more is replaced; any
// other file is not. Closing the listener removes the socket, if it is still its own.
func (t *Transport) Listen(ctx context.Context, on ma.Multiaddr) (net.Listener, error) {
	p, ok := path(on)
	if !ok {
		return nil, fmt.Errorf("unix: listen: not a Unix address: %v", on)
	}
	if info, err := os.Stat(p); err == nil && info.IsDir() {
		p = filepath.Join(p, rand.Text()[:10]+".sock")
	}
	mode := t.Mode
	if mode == 0 {
		mode = 0o600
	}
	// Two that find the same stale socket must not remove each other's new one.
	unlock, err := lock(ctx, filepath.Dir(p))
	if err != nil {
		return nil, &net.OpError{Op: "listen", Net: "unix", Addr: addr(p), Err: err}
	}
	defer unlock()
	if err := removeStale(ctx, p); err != nil {
		return nil, &net.OpError{Op: "listen", Net: "unix", Addr: addr(p), Err: err}
	}
	lc := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		return c.Control(func(fd uintptr) { protect(fd, mode) })
	}}
	inner, err := lc.Listen(ctx, "unix", p)
	if err != nil {
		return nil, err
	}
	l := &listener{inner: inner.(*net.UnixListener), addr: addr(p), closed: make(chan struct{})}
	l.inner.SetUnlinkOnClose(false) // it would not look whose socket it is
	if err = os.Chmod(p, mode); err == nil {
		l.file, err = os.Lstat(p)
	}
	if err != nil {
		os.Remove(p)
		l.inner.Close()
		return nil, err
	}
	return l, nil
}

// removeStale removes a socket that nobody listens to, and is an error if there is
// something else.
func removeStale(ctx context.Context, p string) error {
	info, err := os.Lstat(p)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if info.Mode().Type() != fs.ModeSocket {
		return fmt.Errorf("%w, and no socket", fs.ErrExist)
	}
	c, err := new(net.Dialer).DialContext(ctx, "unix", p)
	if err == nil {
		c.Close()
	}
	if !errors.Is(err, syscall.ECONNREFUSED) {
		return os.NewSyscallError("bind", syscall.EADDRINUSE)
	}
	return os.Remove(p)
}

type listener struct {
	inner  *net.UnixListener
	addr   addr
	file   fs.FileInfo
	once   sync.Once
	closed chan struct{}
}

func (l *listener) Accept() (net.Conn, error) {
	c, err := patient.Accept(l.inner, l.closed)
	if err != nil {
		return nil, err
	}
	return &conn{c.(*net.UnixConn), l.addr}, nil
}

// Close removes the socket, and leaves accepted connections alive.
func (l *listener) Close() (err error) {
	l.once.Do(func() {
		close(l.closed)
		// As long as inner is open no other file can be the same.
		if info, err := os.Lstat(string(l.addr)); err == nil && os.SameFile(info, l.file) {
			os.Remove(string(l.addr))
		}
		err = l.inner.Close()
	})
	return err
}

func (l *listener) Addr() net.Addr { return l.addr }

// conn has addresses with a Multiaddr method.
type conn struct {
	*net.UnixConn
	addr addr
}

func (c *conn) LocalAddr() net.Addr  { return c.addr }
func (c *conn) RemoteAddr() net.Addr { return c.addr }

// addr is a path.
type addr string

// Network returns "unix".
func (addr) Network() string { return "unix" }

// String returns the path.
func (a addr) String() string { return string(a) }

// Multiaddr is what transport.Multiaddr asks for.
func (a addr) Multiaddr() ma.Multiaddr {
	c, err := ma.NewComponent("unix", string(a))
	if err != nil {
		return nil
	}
	return c.Multiaddr()
}
