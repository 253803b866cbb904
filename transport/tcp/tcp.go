// Package tcp connects hosts over TCP.
//
// Addresses are /ip4/1.2.3.4/tcp/4001, /ip6/…/tcp/4001 and
// /ip6zone/eth0/ip6/fe80::1/tcp/4001, and nothing follows. Names are resolved before.
//
// A host dials from the port that it listens on where it can. Then the address
// under which others see it is the one where they reach it, and both ends of a
// connection can open it at once, through their NATs.
//
// Spec: https://github.com/libp2p/specs/blob/master/connections/README.md
package tcp

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"
	"syscall"
	"time"

	ma "github.com/multiformats/go-multiaddr"

	"github.com/plexus-p2p/plexus/transport"
)

// Transport is the TCP transport of one host. The zero value works. On
// [transport.System] its connections are *net.TCPConn.
type Transport struct {
	Network     transport.Network // where connections are made; nil: transport.System
	PrivatePort bool              // dial from a port of its own, not from a listener's; false: share where possible

	mu        sync.Mutex
	listeners []*listener // open ones, oldest first
}

var _ transport.Pipes = (*Transport)(nil)

// Match accepts an IP address and a TCP port.
func (t *Transport) Match(a ma.Multiaddr) bool {
	_, rest, ok := transport.TCPAddrPort(a)
	return ok && len(rest) == 0
}

// Dial connects.
func (t *Transport) Dial(ctx context.Context, to ma.Multiaddr) (net.Conn, error) {
	remote, rest, ok := transport.TCPAddrPort(to)
	if !ok || len(rest) > 0 {
		return nil, fmt.Errorf("tcp: dial: not a TCP address: %v", to)
	}
	return t.network().DialTCP(ctx, t.local(remote.Addr()), remote)
}

// Listen accepts connections. Port 0 lets the system choose one.
func (t *Transport) Listen(ctx context.Context, on ma.Multiaddr) (net.Listener, error) {
	local, rest, ok := transport.TCPAddrPort(on)
	if !ok || len(rest) > 0 {
		return nil, fmt.Errorf("tcp: listen: not a TCP address: %v", on)
	}
	inner, err := t.network().ListenTCP(ctx, local)
	if err != nil {
		return nil, err
	}
	l := &listener{Listener: inner, t: t, closed: make(chan struct{})}
	if a, ok := inner.Addr().(*net.TCPAddr); ok {
		l.at = a.AddrPort()
		l.at = netip.AddrPortFrom(l.at.Addr().Unmap(), l.at.Port())
	}
	t.mu.Lock()
	t.listeners = append(t.listeners, l)
	t.mu.Unlock()
	return l, nil
}

func (t *Transport) network() transport.Network {
	if t.Network != nil {
		return t.Network
	}
	return transport.System{}
}

// local returns the address to dial to from: a listener's port, on whatever
// interface leads there. A listener on loopback is of no use for the rest of the
// world, nor the other way round.
func (t *Transport) local(to netip.Addr) netip.AddrPort {
	if t.PrivatePort {
		return netip.AddrPort{}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, l := range t.listeners {
		at := l.at.Addr()
		if at.Is4() != to.Is4() || !at.IsUnspecified() && at.IsLoopback() != to.IsLoopback() {
			continue
		}
		from := netip.IPv4Unspecified()
		if to.Is6() {
			from = netip.IPv6Unspecified()
		}
		return netip.AddrPortFrom(from, l.at.Port())
	}
	return netip.AddrPort{}
}

type listener struct {
	net.Listener
	t  *Transport
	at netip.AddrPort

	once   sync.Once
	closed chan struct{}
}

// Accept waits for the next connection. It outlives errors that pass, such as
// having no file descriptor left: it tries again, at most once a second.
func (l *listener) Accept() (net.Conn, error) {
	var wait time.Duration
	for {
		c, err := l.Listener.Accept()
		if err == nil || !passing(err) {
			return c, err
		}
		wait = min(max(2*wait, 5*time.Millisecond), time.Second)
		again := time.NewTimer(wait)
		select {
		case <-again.C:
		case <-l.closed:
			again.Stop()
			// The next Accept returns net.ErrClosed in the listener's words.
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

// Close frees the port and leaves accepted connections alive.
func (l *listener) Close() error {
	l.once.Do(func() {
		close(l.closed)
		l.t.mu.Lock()
		l.t.listeners = slices.DeleteFunc(l.t.listeners, func(o *listener) bool { return o == l })
		l.t.mu.Unlock()
	})
	return l.Listener.Close()
}
