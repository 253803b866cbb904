// Package memory connects hosts within one process. Addresses are /memory/N.
//
// It is for tests and for parts of one program that talk as peers. It adds no
// latency and loses nothing; simnet does.
//
// Spec: https://github.com/multiformats/multiaddr/blob/master/protocols.csv (code 777)
package memory

import (
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"os"
	"strconv"
	"sync"
	"syscall"

	ma "github.com/multiformats/go-multiaddr"

	"github.com/plexus-p2p/plexus/transport"
)

// backlog is how many connections wait to be accepted before dials have to wait.
const backlog = 128

// Network is a space of /memory addresses, and the transport of all hosts in it.
// The zero value works. It must not be copied.
type Network struct {
	mu        sync.Mutex
	listeners map[Addr]*listener
	last      Addr // the highest number given out
}

var _ transport.Pipes = (*Network)(nil)

// Addr is the N of /memory/N.
type Addr uint64

// Network returns "memory".
func (Addr) Network() string { return "memory" }

// String returns the multiaddr as text.
func (a Addr) String() string { return "/memory/" + strconv.FormatUint(uint64(a), 10) }

// Multiaddr returns /memory/N.
func (a Addr) Multiaddr() ma.Multiaddr { return ma.StringCast(a.String()) }

func parse(a ma.Multiaddr) (Addr, bool) {
	if len(a) != 1 || a[0].Code() != ma.P_MEMORY {
		return 0, false
	}
	return Addr(binary.BigEndian.Uint64(a[0].RawValue())), true
}

// Match accepts /memory/N.
func (n *Network) Match(a ma.Multiaddr) bool {
	_, ok := parse(a)
	return ok
}

// Dial connects. While too many connections wait to be accepted, it waits too.
// Without a listener the error is syscall.ECONNREFUSED.
func (n *Network) Dial(ctx context.Context, to ma.Multiaddr) (net.Conn, error) {
	addr, ok := parse(to)
	if !ok {
		return nil, fmt.Errorf("memory: dial: not a memory address: %v", to)
	}
	fail := func(err error) (net.Conn, error) {
		return nil, &net.OpError{Op: "dial", Net: "memory", Addr: addr, Err: err}
	}
	if ctx.Err() != nil {
		return fail(context.Cause(ctx))
	}
	n.mu.Lock()
	l := n.listeners[addr]
	local := n.pick()
	n.mu.Unlock()
	if l == nil {
		return fail(os.NewSyscallError("connect", syscall.ECONNREFUSED))
	}
	near, far := pipe(local, addr)
	select {
	case l.waiting <- far:
	case <-l.closed:
		return fail(os.NewSyscallError("connect", syscall.ECONNREFUSED))
	case <-ctx.Done():
		return fail(context.Cause(ctx))
	}
	// Close may have emptied the queue just before we filled it.
	select {
	case <-l.closed:
		l.drop()
	default:
	}
	return near, nil
}

// Listen accepts connections to /memory/N. /memory/0 picks a free number.
func (n *Network) Listen(ctx context.Context, on ma.Multiaddr) (net.Listener, error) {
	addr, ok := parse(on)
	if !ok {
		return nil, fmt.Errorf("memory: listen: not a memory address: %v", on)
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if addr == 0 {
		addr = n.pick()
	}
	if n.listeners[addr] != nil {
		return nil, &net.OpError{Op: "listen", Net: "memory", Addr: addr, Err: os.NewSyscallError("bind", syscall.EADDRINUSE)}
	}
	l := &listener{n: n, addr: addr, waiting: make(chan *conn, backlog), closed: make(chan struct{})}
	if n.listeners == nil {
		n.listeners = make(map[Addr]*listener)
	}
	n.listeners[addr] = l
	return l, nil
}

// pick returns a number that nobody listens on, and that was not picked before.
func (n *Network) pick() Addr {
	for {
		n.last++
		if n.last != 0 && n.listeners[n.last] == nil {
			return n.last
		}
	}
}

type listener struct {
	n       *Network
	addr    Addr
	waiting chan *conn
	once    sync.Once
	closed  chan struct{}
}

func (l *listener) Accept() (net.Conn, error) {
	select {
	case <-l.closed:
	default:
		select {
		case c := <-l.waiting:
			return c, nil
		case <-l.closed:
		}
	}
	return nil, &net.OpError{Op: "accept", Net: "memory", Addr: l.addr, Err: net.ErrClosed}
}

// Close frees the number. Connections that were not accepted are reset.
func (l *listener) Close() error {
	l.once.Do(func() {
		l.n.mu.Lock()
		delete(l.n.listeners, l.addr)
		l.n.mu.Unlock()
		close(l.closed)
		l.drop()
	})
	return nil
}

func (l *listener) drop() {
	for {
		select {
		case c := <-l.waiting:
			c.reset()
		default:
			return
		}
	}
}

func (l *listener) Addr() net.Addr { return l.addr }
