package simnet

import (
	"context"
	"io"
	"net"
	"net/netip"
	"os"
	"sync"
	"syscall"
	"time"
)

// backlog is how many connections wait to be accepted before SYNs are dropped.
const backlog = 4096

// Listener accepts TCP connections.
type Listener struct {
	h       *Host
	at      netip.AddrPort
	waiting []*Conn // to be accepted
	opening int     // connections whose handshake is under way
	ready   sync.Cond
	by      deadline // of Accept
	closed  bool
}

// ListenTCP listens on an address of the host, or with "0.0.0.0" or "::" on all of
// that family. Port 0 picks one.
func (h *Host) ListenTCP(ctx context.Context, on netip.AddrPort) (net.Listener, error) {
	on = unmap(on)
	n := h.n
	n.enter()
	defer n.leave()
	at, err := bind(h, on, h.listeners)
	if n.closed {
		err = net.ErrClosed
	}
	if err != nil {
		return nil, &net.OpError{Op: "listen", Net: "tcp", Addr: net.TCPAddrFromAddrPort(on), Err: err}
	}
	l := &Listener{h: h, at: at}
	l.ready.L = &n.mu
	l.by.do, l.by.t = l.ready.Broadcast, never
	h.listeners[at] = l
	return l, nil
}

// Accept waits for the next connection.
func (l *Listener) Accept() (net.Conn, error) {
	l.h.n.enter()
	defer l.h.n.leave()
	for {
		switch {
		case l.closed:
			return nil, &net.OpError{Op: "accept", Net: "tcp", Addr: l.Addr(), Err: net.ErrClosed}
		case len(l.waiting) > 0:
			c := l.waiting[0]
			l.waiting[0] = nil
			l.waiting = l.waiting[1:]
			c.listener = nil
			return c, nil
		case l.by.passed(l.h.n):
			return nil, &net.OpError{Op: "accept", Net: "tcp", Addr: l.Addr(), Err: os.ErrDeadlineExceeded}
		}
		l.h.n.wait(&l.ready)
	}
}

// Close frees the port. Connections that were not accepted are reset.
func (l *Listener) Close() error {
	l.h.n.enter()
	defer l.h.n.leave()
	if l.closed {
		return &net.OpError{Op: "close", Net: "tcp", Addr: l.Addr(), Err: net.ErrClosed}
	}
	l.close()
	return nil
}

func (l *Listener) close() {
	if l.closed {
		return
	}
	l.closed = true
	l.h.n.cancel(&l.by.event)
	delete(l.h.listeners, l.at)
	l.waiting = nil
	for _, c := range l.h.conns {
		if c.listener == l {
			c.abort(errReset)
		}
	}
	l.ready.Broadcast()
}

// SetDeadline makes Accept fail from then on. A zero time means never.
func (l *Listener) SetDeadline(t time.Time) error {
	l.h.n.enter()
	defer l.h.n.leave()
	if l.closed {
		return &net.OpError{Op: "set", Net: "tcp", Addr: l.Addr(), Err: net.ErrClosed}
	}
	l.by.set(l.h.n, t)
	return nil
}

// Addr returns a *net.TCPAddr.
func (l *Listener) Addr() net.Addr { return net.TCPAddrFromAddrPort(l.at) }

// receive takes a SYN.
func (l *Listener) receive(p *packet) {
	if len(l.waiting)+l.opening >= backlog {
		l.h.n.trace(Dropped, p, NoRoom)
		return
	}
	c := l.h.newConn(p.dst, p.src)
	c.listener = l
	c.peer = p.id
	c.state = synReceived
	c.greet = true
	l.opening++
	c.mark()
}

// Conn is one end of a TCP connection. Beyond net.Conn it has what *net.TCPConn has
// too: CloseWrite and SetLinger.
type Conn struct {
	n             *Network
	h             *Host
	flow          flow
	local, remote net.Addr
	created       uint64 // unique in the network; stands for the initial sequence number
	mss           int

	// All below is guarded by n.mu.
	peer     uint64 // the other end's created
	state    state
	err      error         // why the connection ended, once it is dead
	listener *Listener     // that it has not been accepted from
	opened   chan struct{} // of a dial: closed when the handshake is over

	readable, writable sync.Cond
	readBy, writeBy    deadline
	closed             bool // by Close
	noLinger           bool
	marked             bool // in n.dirty
	greet              bool // a SYN is to be sent
	ackDue             bool // an acknowledgement is to be sent
	resetDue           bool // a RST is to be sent
	stats              Stats

	sender
	receiver
}

type state uint8

const (
	synSent state = iota
	synReceived
	established
	dead // end was called; nothing goes in or out any more
)

// Stats counts what one end of a connection did.
type Stats struct {
	Writes        int   // calls of Write
	Written       int64 // bytes that Write took
	Packets       int   // sent, of any kind
	DataPackets   int   // sent, with data in them
	Retransmitted int   // of these, sent again
	Bytes         int64 // sent, with headers
	RTT           time.Duration
}

func (h *Host) newConn(local, remote netip.AddrPort) *Conn {
	n := h.n
	n.ids++
	c := &Conn{
		n: n, h: h,
		flow:    flow{local, remote},
		local:   net.TCPAddrFromAddrPort(local),
		remote:  net.TCPAddrFromAddrPort(remote),
		created: n.ids,
		opened:  make(chan struct{}),
	}
	c.readable.L, c.writable.L = &n.mu, &n.mu
	c.readBy.do, c.writeBy.do = c.readable.Broadcast, c.writable.Broadcast
	c.readBy.t, c.writeBy.t = never, never
	c.sender.init(c)
	c.receiver.init(c)
	h.conns[c.flow] = c
	return c
}

// DialTCP connects. The port of local can be that of a listener; it is another one
// if an older connection to remote has it already.
func (h *Host) DialTCP(ctx context.Context, local, remote netip.AddrPort) (net.Conn, error) {
	remote = unmap(remote)
	fail := func(err error) (net.Conn, error) {
		return nil, &net.OpError{Op: "dial", Net: "tcp", Addr: net.TCPAddrFromAddrPort(remote), Err: err}
	}
	if ctx.Err() != nil {
		return fail(context.Cause(ctx))
	}
	c, err := h.dial(unmap(local), remote)
	if err != nil {
		return fail(err)
	}
	select {
	case <-c.opened:
	case <-ctx.Done():
	}
	h.n.enter()
	defer h.n.leave()
	switch {
	case c.state == established:
		return c, nil
	case c.err != nil:
		return fail(c.err)
	}
	c.end(context.Cause(ctx))
	return fail(context.Cause(ctx))
}

func (h *Host) dial(local, remote netip.AddrPort) (*Conn, error) {
	n := h.n
	n.enter()
	defer n.leave()
	if n.closed {
		return nil, net.ErrClosed
	}
	if !remote.IsValid() || remote.Addr().IsUnspecified() || remote.Port() == 0 {
		return nil, os.NewSyscallError("connect", syscall.EADDRNOTAVAIL)
	}
	from := local.Addr()
	if !from.IsValid() || from.IsUnspecified() {
		var err error
		if from, err = h.source(remote.Addr()); err != nil {
			return nil, err
		}
	} else if err := h.canBind(from); err != nil {
		return nil, err
	}
	free := func(port uint16) bool {
		f := flow{netip.AddrPortFrom(from, port), remote}
		return h.conns[f] == nil && f.local != remote
	}
	port := local.Port()
	if port == 0 || !free(port) {
		var err error
		if port, err = h.pick(func(port uint16) bool {
			return lookup(h.listeners, netip.AddrPortFrom(from, port)) == nil && free(port)
		}); err != nil {
			return nil, err
		}
	}
	c := h.newConn(netip.AddrPortFrom(from, port), remote)
	c.state = synSent
	c.greet = true
	c.mark()
	return c, nil
}

// Read returns what has arrived, in order; then io.EOF, or why the connection ended.
func (c *Conn) Read(p []byte) (int, error) {
	c.n.enter()
	defer c.n.leave()
	for {
		switch {
		case c.closed:
			return 0, c.wrap("read", net.ErrClosed)
		case c.readBy.passed(c.n):
			return 0, c.wrap("read", os.ErrDeadlineExceeded)
		case len(p) == 0:
			return 0, nil
		case c.unread > 0:
			return c.take(p), nil
		case c.finSeen:
			return 0, io.EOF
		case c.err != nil:
			return 0, c.wrap("read", c.err)
		}
		c.n.wait(&c.readable)
	}
}

// Write returns when the last byte has found its place in the send buffer.
func (c *Conn) Write(p []byte) (sent int, err error) {
	c.n.enter()
	defer c.n.leave()
	c.stats.Writes++
	if c.n.cfg.Trace != nil {
		c.writes = append(c.writes, len(p))
	}
	turn := false
	defer func() {
		c.stats.Written += int64(sent)
		if turn {
			c.writing = false
			c.writable.Broadcast()
		}
	}()
	for {
		switch {
		case c.closed:
			return sent, c.wrap("write", net.ErrClosed)
		case c.err != nil:
			return sent, c.wrap("write", c.err)
		case c.finished:
			return sent, c.wrap("write", syscall.EPIPE)
		case c.writeBy.passed(c.n):
			return sent, c.wrap("write", os.ErrDeadlineExceeded)
		}
		if turn || !c.writing {
			turn, c.writing = true, true
			if put := c.put(p[sent:]); put > 0 {
				sent += put
				c.mark()
			}
			if sent == len(p) {
				c.endOfWrite()
				return sent, nil
			}
		}
		c.n.wait(&c.writable)
	}
}

// Close delivers what was written, in the background, and frees the port when that
// is done. If there is data to read that nobody has read, it resets the connection.
func (c *Conn) Close() error {
	c.n.enter()
	defer c.n.leave()
	if c.closed {
		return c.wrap("close", net.ErrClosed)
	}
	c.closed = true
	c.n.cancel(&c.readBy.event)
	c.n.cancel(&c.writeBy.event)
	c.readable.Broadcast()
	c.writable.Broadcast()
	switch {
	case c.state == dead:
	case c.unread > 0 || c.noLinger:
		c.abort(net.ErrClosed)
	default:
		c.finished = true
		c.mark()
	}
	c.in, c.unread = nil, 0
	return nil
}

// CloseWrite lets the peer read io.EOF after what was written. Reading goes on.
func (c *Conn) CloseWrite() error {
	c.n.enter()
	defer c.n.leave()
	switch {
	case c.closed:
		return c.wrap("close", net.ErrClosed)
	case c.err != nil:
		return c.wrap("close", c.err)
	}
	c.finished = true
	c.writable.Broadcast()
	c.mark()
	return nil
}

// SetLinger makes Close reset the connection if sec is 0. It has no other effect.
func (c *Conn) SetLinger(sec int) error {
	c.n.enter()
	defer c.n.leave()
	c.noLinger = sec == 0
	return nil
}

// LocalAddr returns a *net.TCPAddr.
func (c *Conn) LocalAddr() net.Addr { return c.local }

// RemoteAddr returns a *net.TCPAddr.
func (c *Conn) RemoteAddr() net.Addr { return c.remote }

// Stats tells what this end did.
func (c *Conn) Stats() Stats {
	c.n.enter()
	defer c.n.leave()
	s := c.stats
	s.RTT = time.Duration(c.rtt)
	return s
}

// SetDeadline sets both deadlines.
func (c *Conn) SetDeadline(t time.Time) error { return c.setDeadline(t, &c.readBy, &c.writeBy) }

// SetReadDeadline makes Read fail from then on. A zero time means never.
func (c *Conn) SetReadDeadline(t time.Time) error { return c.setDeadline(t, &c.readBy) }

// SetWriteDeadline makes Write fail from then on. A zero time means never.
func (c *Conn) SetWriteDeadline(t time.Time) error { return c.setDeadline(t, &c.writeBy) }

func (c *Conn) setDeadline(t time.Time, ds ...*deadline) error {
	c.n.enter()
	defer c.n.leave()
	if c.closed {
		return c.wrap("set", net.ErrClosed)
	}
	for _, d := range ds {
		d.set(c.n, t)
	}
	return nil
}

// wrap gives errors the form that they have in package net.
func (c *Conn) wrap(op string, err error) error {
	if n, ok := err.(syscall.Errno); ok {
		err = os.NewSyscallError(op, n)
	}
	return &net.OpError{Op: op, Net: "tcp", Source: c.local, Addr: c.remote, Err: err}
}

// deadline is when an operation fails. Its event wakes those who wait.
type deadline struct {
	event
	t int64
}

func (d *deadline) set(n *Network, t time.Time) {
	n.cancel(&d.event)
	d.t = never
	if !t.IsZero() {
		d.t = int64(t.Sub(n.start))
	}
	if d.t > n.now && d.t != never && !n.closed {
		n.at(d.t, &d.event)
	}
	d.do()
}

func (d *deadline) passed(n *Network) bool { return d.t <= n.now }

// open ends the handshake.
func (c *Conn) open() {
	if c.state == synReceived && c.listener != nil {
		c.listener.opening--
		c.listener.waiting = append(c.listener.waiting, c)
		c.listener.ready.Signal()
	}
	c.state = established
	c.greet = false
	c.mss = c.segmentSize()
	c.n.cancel(&c.timeout)
	c.timeouts = 0
	c.start()
	close(c.opened)
	c.mark()
}

// segmentSize is what both ends and the path between them let through.
func (c *Conn) segmentSize() int {
	mtu := 65535
	if r := c.n.owners[c.flow.remote.Addr()]; !c.h.has(c.flow.remote.Addr()) && r != nil {
		mtu = min(c.h.up.mtu(), c.h.down.mtu(), r.up.mtu(), r.down.mtu())
		for _, p := range []*link{c.n.path(c.h, r), c.n.path(r, c.h)} {
			if p != nil {
				mtu = min(mtu, p.mtu())
			}
		}
	}
	return max(mtu-ipHeader(c.flow.local.Addr())-tcpHeader, 1)
}

// end kills the connection at this end. What has arrived can still be read.
func (c *Conn) end(err error) {
	if c.state == dead {
		return
	}
	if c.state == synReceived && c.listener != nil {
		c.listener.opening--
	}
	if c.state != established {
		close(c.opened)
	}
	c.state = dead
	c.err = err
	if c.h.conns[c.flow] == c {
		delete(c.h.conns, c.flow)
	}
	c.stopSending()
	c.stopReceiving()
	c.readable.Broadcast()
	c.writable.Broadcast()
}

// abort kills the connection at both ends.
func (c *Conn) abort(err error) {
	if c.state == established || c.state == synReceived {
		c.resetDue = true
		c.mark()
	}
	c.end(err)
}

// collect ends a connection that both ends have closed, and whose bytes have all arrived.
func (c *Conn) collect() {
	if c.closed && c.finAcked && c.finSeen {
		if c.ackDue {
			c.sendAck()
		}
		c.end(net.ErrClosed)
	}
}
