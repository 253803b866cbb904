package websocket

import (
	"crypto/rand"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/plexus-p2p/plexus/internal/link"
)

const (
	maxFrame  = 260 << 10              // bytes of a Write that go into one frame: whatever security has to send at once
	readAhead = 4 << 10                // bytes read beyond the end of a frame, that may have to be moved
	goodbye   = 100 * time.Millisecond // how long Close tries to tell the peer
)

// conn is a connection after its handshake. Deadlines lose no bytes, as security.Conn
// asks for it.
type conn struct {
	net.Conn           // below
	tls      *tls.Conn // between, or nil
	sock     *socket   // of tls
	client   bool
	local    netAddr
	remote   netAddr
	closing  atomic.Bool
	closed   atomic.Bool
	writeBy  atomic.Int64  // Unix time in ns; 0: no deadline
	status   atomic.Uint32 // of the Close frame to send

	in  reader
	out writer

	mu      sync.Mutex
	pong    []byte // to be sent
	ponging bool   // by a goroutine
}

type reader struct {
	turn link.Turn // guards what follows
	decoder
	head []byte // came with the handshake
	err  error  // why nothing can be read any more
}

type writer struct {
	turn link.Turn // guards what follows
	wire link.Out  // without tls
	shut bool      // a Close frame was sent, or waits to be
	err  error     // why nothing can be written any more
}

// newConn makes a connection of raw, that t may lie on. head was read before.
func newConn(raw net.Conn, t *tls.Conn, sock *socket, client bool, head []byte) *conn {
	c := &conn{Conn: raw, tls: t, sock: sock, client: client}
	c.in.turn, c.in.masked, c.in.head = link.NewTurn(), !client, head
	c.out.turn, c.out.wire.Conn = link.NewTurn(), raw
	c.status.Store(statusNormal)
	if sock != nil {
		sock.up = true
	}
	return c
}

// LocalAddr and RemoteAddr have a method Multiaddr.
func (c *conn) LocalAddr() net.Addr { return c.local }

// RemoteAddr is the other end's.
func (c *conn) RemoteAddr() net.Addr { return c.remote }

// Read returns data as it comes: frames and messages mean nothing.
func (c *conn) Read(p []byte) (int, error) {
	r := &c.in
	r.turn.Lock()
	defer r.turn.Unlock()
	for len(p) > 0 {
		switch {
		case c.closed.Load():
			return 0, net.ErrClosed
		case r.err != nil:
			return 0, r.err
		}
		k, below := c.fill(p)
		n, err := r.decode(p[:k])
		if r.pinged {
			r.pinged = false
			c.answer(r.ping)
		}
		switch {
		case err != nil:
			c.status.Store(statusProtocol)
			if errors.Is(err, errText) {
				c.status.Store(statusType)
			}
			r.err = err
		case r.closed:
			r.err = io.EOF
		case below == io.EOF && r.within():
			r.err = io.ErrUnexpectedEOF
		case below == io.EOF:
			r.err = io.EOF
		}
		switch {
		case n > 0:
			return n, nil
		case r.err == nil && below != nil:
			return 0, below // a deadline: nothing is lost
		}
	}
	return 0, nil
}

// fill reads into p: data in its place, and little of what follows, as the decoder
// has to move that.
func (c *conn) fill(p []byte) (int, error) {
	r := &c.in
	if len(r.head) > 0 {
		n := copy(p, r.head)
		if r.head = r.head[n:]; len(r.head) == 0 {
			r.head = nil
		}
		return n, nil
	}
	if r.left < uint64(len(p)) {
		p = p[:min(len(p), int(r.left)+readAhead)]
	}
	if c.tls != nil {
		return c.tls.Read(p)
	}
	return c.Conn.Read(p)
}

// Write sends p as one frame, up to maxFrame. At a deadline n is what has become
// frames; the next Write sends what is left of those, and goes on. After any other
// error nothing can be written.
func (c *conn) Write(p []byte) (n int, err error) {
	w := &c.out
	w.turn.Lock()
	defer w.turn.Unlock()
	if err := c.ready(); err != nil {
		return 0, err
	}
	for n < len(p) && err == nil {
		part := p[n:min(len(p), n+maxFrame)]
		if err = c.send(opBinary, part); w.err == nil {
			n += len(part)
		}
	}
	return n, err
}

// ready returns why nothing can be written, after what was left before.
func (c *conn) ready() error {
	w := &c.out
	switch {
	case c.closed.Load():
		return net.ErrClosed
	case w.err != nil:
		return w.err
	}
	if by := c.writeBy.Load(); by != 0 && by <= time.Now().UnixNano() {
		return os.ErrDeadlineExceeded // a frame that nothing is sent of is better not begun
	}
	if err := c.flush(); err != nil {
		return err
	}
	if w.shut {
		return &net.OpError{Op: "write", Net: "websocket", Source: c.local, Addr: c.remote, Err: os.NewSyscallError("write", syscall.EPIPE)}
	}
	return nil
}

// send sends one frame.
func (c *conn) send(op byte, p []byte) error {
	var key *[4]byte
	if c.client {
		// "The masking key needs to be unpredictable"
		// https://www.rfc-editor.org/rfc/rfc6455#section-5.3
		key = new([4]byte)
		rand.Read(key[:])
	}
	w := &c.out
	if c.tls == nil {
		return c.check(w.wire.Flush(appendFrame(w.wire.Room(maxHead+len(p)), op, p, key)))
	}
	buf := link.Borrow(maxHead + len(p))
	defer link.GiveBack(buf)
	c.sock.Collect(maxHead + len(p))
	_, err := c.tls.Write(appendFrame((*buf)[:0], op, p, key))
	if sent := c.sock.Send(); err == nil {
		err = sent
	}
	return c.check(err)
}

// flush sends what was left at a deadline.
func (c *conn) flush() error {
	if c.tls != nil {
		return c.check(c.sock.Send())
	}
	return c.check(c.out.wire.FlushRest())
}

// check returns err, after which nothing can be written unless it is a deadline.
func (c *conn) check(err error) error {
	if err != os.ErrDeadlineExceeded {
		c.out.err = err
	}
	return err
}

// answer sends a Pong soon, in a goroutine that ends with the connection at the
// latest. While it waits for its turn it answers the last Ping only.
//
// "If an endpoint receives a Ping frame and has not yet sent Pong frame(s) in
// response to previous Ping frame(s), the endpoint MAY elect to send a Pong frame for
// only the most recently processed Ping frame."
// https://www.rfc-editor.org/rfc/rfc6455#section-5.5.3
func (c *conn) answer(ping []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.pong = append(c.pong[:0], ping...)
	if !c.ponging {
		c.ponging = true
		go c.sendPong()
	}
}

func (c *conn) sendPong() {
	c.out.turn.Lock()
	defer c.out.turn.Unlock()
	c.mu.Lock()
	pong := c.pong
	c.pong, c.ponging = nil, false
	c.mu.Unlock()
	if c.ready() == nil {
		c.send(opPong, pong)
	}
}

// CloseWrite sends a Close frame. WebSocket has no half-closed connections, but comes
// near: the peer reads io.EOF, and what it sends until it closes can still be
// read. Other implementations answer at once, and send no more.
func (c *conn) CloseWrite() error {
	w := &c.out
	w.turn.Lock()
	defer w.turn.Unlock()
	return c.shutdown()
}

// shutdown is called in turn.
func (c *conn) shutdown() error {
	w := &c.out
	if w.shut {
		return c.flush()
	}
	if err := c.ready(); err != nil {
		return err
	}
	w.shut = true
	return c.send(opClose, binary.BigEndian.AppendUint16(nil, uint16(c.status.Load())))
}

// Close sends a Close frame, unless a write is under way, and closes the connection.
func (c *conn) Close() error {
	if c.closing.Swap(true) {
		return nil
	}
	if c.out.turn.TryLock() {
		defer c.out.turn.Unlock()
		if c.out.err == nil {
			c.SetWriteDeadline(time.Now().Add(goodbye))
			if c.shutdown() == nil && c.tls != nil {
				c.tls.CloseWrite()
			}
		}
	}
	c.closed.Store(true)
	return c.Conn.Close()
}

// SetDeadline implements net.Conn.
func (c *conn) SetDeadline(t time.Time) error {
	return errors.Join(c.SetReadDeadline(t), c.SetWriteDeadline(t))
}

// SetWriteDeadline implements net.Conn.
func (c *conn) SetWriteDeadline(t time.Time) error {
	by := int64(0)
	if !t.IsZero() {
		by = t.UnixNano()
	}
	c.writeBy.Store(by)
	return c.Conn.SetWriteDeadline(t)
}

// socket is what crypto/tls has for a connection.
type socket struct {
	*link.Socket
	up bool // the deadline for writing is the application's, and not crypto/tls's
}

func newSocket(c net.Conn) *socket { return &socket{Socket: link.NewSocket(c)} }

// SetWriteDeadline implements net.Conn.
func (s *socket) SetWriteDeadline(t time.Time) error {
	if s.up {
		return nil
	}
	return s.Socket.SetWriteDeadline(t)
}
