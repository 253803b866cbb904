package tcp

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"sync"
	"syscall"
	"time"

	ma "github.com/multiformats/go-multiaddr"

	"github.com/plexus-p2p/plexus/internal/addrport"
	"github.com/plexus-p2p/plexus/transport"
	"github.com/plexus-p2p/plexus/transport/internal/patient"
	"github.com/plexus-p2p/plexus/transport/internal/room"
)

// Kind is how the bytes of a connection begin.
type Kind int

const (
	Plain Kind = iota // as neither of the others: a libp2p connection, in a private network or not
	HTTP              // with the method of an HTTP request
	TLS               // with a ClientHello
	kinds
)

const (
	maxUndecided = 256              // connections to a shared port that have not said enough; the oldest makes room
	decideIn     = 10 * time.Second // how long a connection may take to say it
)

// ListenKind accepts the connections of one kind. Listeners of different kinds share
// a port; until there is a second one, the first gets all connections. A kind
// that nobody listens for goes to Plain. The dialer has to speak first, as it does
// in libp2p, HTTP and TLS.
func (t *Transport) ListenKind(ctx context.Context, on ma.Multiaddr, k Kind) (net.Listener, error) {
	local, rest, ok := transport.TCPAddrPort(on)
	if !ok || len(rest) > 0 || k < 0 || k >= kinds {
		return nil, fmt.Errorf("tcp: listen: not a TCP address: %v", on)
	}
	if l, err := t.join(local, k); l != nil || err != nil {
		return l, err
	}
	inner, err := t.network().ListenTCP(ctx, local)
	if err != nil {
		return nil, err
	}
	p := &shared{
		t: t, inner: inner, at: addrport.Of(inner.Addr()), closed: make(chan struct{}),
		undecided: room.Room{Max: maxUndecided},
	}
	p.left.L = &p.mu
	l := p.add(k)
	t.mu.Lock()
	t.ports = append(t.ports, p)
	t.mu.Unlock()
	return l, nil
}

// join adds a listener to a port that is open, if there is one.
func (t *Transport) join(at netip.AddrPort, k Kind) (net.Listener, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, p := range t.ports {
		if p.at != at || at.Port() == 0 {
			continue
		}
		p.mu.Lock()
		defer p.mu.Unlock()
		if p.listeners[k] != nil {
			return nil, &net.OpError{Op: "listen", Net: "tcp", Addr: p.inner.Addr(), Err: os.NewSyscallError("bind", syscall.EADDRINUSE)}
		}
		p.serveLocked()
		return p.add(k), nil
	}
	return nil, nil
}

// shared is a listening socket, and who listens there.
type shared struct {
	t      *Transport
	inner  net.Listener
	at     netip.AddrPort
	closed chan struct{}

	undecided room.Room

	mu        sync.Mutex // after Transport.mu
	listeners [kinds]*listener
	serving   bool      // serve accepts; before, each Accept does so itself
	accepting int       // calls of Accept that do
	left      sync.Cond // one of them has ended
}

type listener struct {
	*shared
	kind   Kind
	direct chan net.Conn // all connections, while nobody shares the port any more
	ready  chan *peeked  // those of the kind, that are in the room until they are accepted
	failed chan error    // of the port
	once   sync.Once
	done   chan struct{}
}

// add is called with p.mu held, or before anybody else knows p.
func (p *shared) add(k Kind) *listener {
	l := &listener{
		shared: p, kind: k,
		direct: make(chan net.Conn), ready: make(chan *peeked, maxUndecided),
		failed: make(chan error, 1), done: make(chan struct{}),
	}
	p.listeners[k] = l
	return l
}

// who returns the listener of a kind, and whether it is the only one.
func (p *shared) who(k Kind) (l *listener, only bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := 0
	for _, o := range p.listeners {
		if o != nil {
			l = o
			n++
		}
	}
	if n > 1 {
		if l = p.listeners[k]; l == nil {
			l = p.listeners[Plain]
		}
	}
	return l, n == 1
}

// serveLocked makes a goroutine accept, because the port has more than one listener:
// who accepts for all can't be who wants to return when its own listener closes.
func (p *shared) serveLocked() {
	if p.serving {
		return
	}
	p.serving = true
	if d, ok := p.inner.(deadliner); ok {
		d.SetDeadline(past) // calls them off
		for p.accepting > 0 {
			p.left.Wait()
		}
		d.SetDeadline(time.Time{})
	}
	go p.serve() // ends when the last listener closes
}

type deadliner interface{ SetDeadline(time.Time) error }

// past is a deadline that has passed, in a synctest bubble too.
var past = time.Unix(1, 0)

// serve accepts until the port closes.
func (p *shared) serve() {
	for {
		c, err := patient.Accept(p.inner, p.closed)
		if err != nil {
			p.mu.Lock()
			defer p.mu.Unlock()
			for _, l := range p.listeners {
				if l != nil {
					l.failed <- err
				}
			}
			return
		}
		if l, only := p.who(Plain); only {
			select {
			case l.direct <- c:
			case <-l.done:
				c.Close()
			}
			continue
		}
		pc := &peeked{Conn: c}
		p.undecided.Add(pc)
		go p.decide(pc) // ends after decideIn
	}
}

// decide finds out whose connection c is.
func (p *shared) decide(c *peeked) {
	k, err := c.peek()
	if err == nil {
		if l, _ := p.who(k); l != nil {
			select {
			case l.ready <- c:
				if l.isClosed() {
					l.drain()
				}
				return
			default: // full, of such as have left the room
			}
		}
	}
	p.undecided.Remove(c)
	c.Close()
}

// Accept waits for the next connection.
func (l *listener) Accept() (net.Conn, error) {
	if c, err := l.acceptSelf(); c != nil || err != nil {
		return c, err
	}
	for !l.isClosed() {
		select {
		case c := <-l.direct:
			return c, nil
		case c := <-l.ready:
			if l.undecided.Remove(c) {
				return c, nil
			}
		case err := <-l.failed:
			l.failed <- err // for the next Accept
			return nil, err
		case <-l.done:
		}
	}
	return nil, &net.OpError{Op: "accept", Net: "tcp", Addr: l.Addr(), Err: net.ErrClosed}
}

// acceptSelf accepts while nobody shares the port; without connection and error
// it is shared.
func (l *listener) acceptSelf() (net.Conn, error) {
	l.mu.Lock()
	if _, ok := l.inner.(deadliner); !ok && !l.isClosed() {
		l.serveLocked()
	}
	serving := l.serving
	if !serving {
		l.accepting++
	}
	l.mu.Unlock()
	if serving {
		return nil, nil
	}
	c, err := patient.Accept(l.inner, l.closed)
	l.mu.Lock()
	l.accepting--
	l.left.Broadcast()
	serving = l.serving
	l.mu.Unlock()
	if serving && errors.Is(err, os.ErrDeadlineExceeded) {
		return nil, nil
	}
	return c, err
}

// drain closes what nobody will accept.
func (l *listener) drain() {
	for {
		select {
		case c := <-l.ready:
			l.undecided.Remove(c)
			c.Close()
		default:
			return
		}
	}
}

func (l *listener) isClosed() bool {
	select {
	case <-l.done:
		return true
	default:
		return false
	}
}

// Close frees the port, unless others share it, and leaves accepted connections alive.
func (l *listener) Close() (err error) {
	l.once.Do(func() {
		close(l.done)
		l.t.mu.Lock()
		defer l.t.mu.Unlock()
		l.mu.Lock()
		defer l.mu.Unlock()
		l.listeners[l.kind] = nil
		l.drain()
		if l.listeners != [kinds]*listener{} {
			return
		}
		l.undecided.Close()
		close(l.closed)
		l.t.ports = slices.DeleteFunc(l.t.ports, func(o *shared) bool { return o == l.shared })
		err = l.inner.Close()
	})
	return err
}

// Addr is where the port is.
func (l *listener) Addr() net.Addr { return l.inner.Addr() }

// peeked is a connection whose first bytes were looked at.
type peeked struct {
	net.Conn
	head []byte // read, but not by the application
}

// peek reads until it knows what the connection is.
func (c *peeked) peek() (Kind, error) {
	c.SetReadDeadline(time.Now().Add(decideIn))
	defer c.SetReadDeadline(time.Time{})
	b := make([]byte, longest)
	for n := 0; ; {
		k, err := c.Conn.Read(b[n:])
		n += k
		if kind, ok := kindOf(b[:n]); ok {
			c.head = b[:n]
			return kind, nil
		}
		if err != nil {
			return 0, err
		}
	}
}

func (c *peeked) Read(p []byte) (int, error) {
	if len(c.head) == 0 {
		return c.Conn.Read(p)
	}
	n := copy(p, c.head)
	if c.head = c.head[n:]; len(c.head) == 0 {
		c.head = nil
	}
	return n, nil
}

// CloseWrite does what the connection below does.
func (c *peeked) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return fmt.Errorf("tcp: CloseWrite: %w", errors.ErrUnsupported)
}

// How HTTP and TLS begin. A nonce of a private network begins like that once in
// ten million connections.
var starts = []struct {
	b []byte
	k Kind
}{
	{[]byte("GET "), HTTP}, {[]byte("HEAD "), HTTP}, {[]byte("POST "), HTTP}, {[]byte("PUT "), HTTP},
	{[]byte("PATCH "), HTTP}, {[]byte("DELETE "), HTTP}, {[]byte("CONNECT "), HTTP},
	{[]byte("OPTIONS "), HTTP}, {[]byte("TRACE "), HTTP}, {[]byte("PRI * "), HTTP},
	// "struct { ContentType type; ProtocolVersion legacy_record_version; […]"
	// https://www.rfc-editor.org/rfc/rfc8446#section-5.1
	{[]byte{22, 3, 0}, TLS}, {[]byte{22, 3, 1}, TLS}, {[]byte{22, 3, 3}, TLS},
}

const longest = len("OPTIONS ")

// kindOf tells how b, the first bytes of a connection, begins; not ok means that
// more of them are needed.
func kindOf(b []byte) (k Kind, ok bool) {
	open := false
	for _, s := range starts {
		if bytes.HasPrefix(b, s.b) {
			return s.k, true
		}
		open = open || bytes.HasPrefix(s.b, b)
	}
	return Plain, !open
}
