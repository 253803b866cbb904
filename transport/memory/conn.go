package memory

import (
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"time"
)

// window is how many bytes wait in one direction before writes block.
const window = 64 << 10

// conn is one end of a connection: the reader of one half, the writer of the other.
type conn struct {
	in, out       *half
	local, remote Addr
}

// pipe returns the two ends of a connection.
func pipe(near, far Addr) (*conn, *conn) {
	a, b := newHalf(), newHalf()
	return &conn{a, b, near, far}, &conn{b, a, far, near}
}

// half carries bytes one way. The reader's end and the writer's end close for
// themselves.
type half struct {
	mu       sync.Mutex
	readable sync.Cond // on mu
	writable sync.Cond // on mu

	// Below mu:
	buf             []byte // a ring, that grows to window
	head, used      int    // where the first byte is; how many there are
	writing         bool   // a Write is under way; others wait for their turn
	readErr         error  // why reading ended: net.ErrClosed, ECONNRESET
	writeErr        error  // why writing ended: net.ErrClosed, EPIPE, ECONNRESET
	eof             bool   // the writer has closed: EOF after what is buffered
	readBy, writeBy limit
}

// limit is a deadline, with the timer that wakes those whom it concerns.
type limit struct {
	at    time.Time
	timer *time.Timer
}

func newHalf() *half {
	h := new(half)
	h.readable.L, h.writable.L = &h.mu, &h.mu
	return h
}

// set changes a deadline, below h.mu.
func (h *half) set(l *limit, at time.Time, wake *sync.Cond) {
	l.at = at
	if l.timer != nil {
		l.timer.Stop()
		l.timer = nil
	}
	if d := time.Until(at); !at.IsZero() && d > 0 {
		l.timer = time.AfterFunc(d, func() {
			h.mu.Lock() // else the waiter could miss it between its check and Wait
			wake.Broadcast()
			h.mu.Unlock()
		})
	}
	wake.Broadcast()
}

func (l *limit) passed() bool { return !l.at.IsZero() && time.Until(l.at) <= 0 }

func (h *half) read(p []byte) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for {
		switch {
		case h.readErr == net.ErrClosed:
			return 0, h.readErr
		case h.readBy.passed():
			return 0, os.ErrDeadlineExceeded
		case h.used > 0 || len(p) == 0:
			n := h.take(p)
			if n > 0 {
				h.writable.Broadcast()
			}
			return n, nil
		case h.readErr != nil:
			return 0, h.readErr
		case h.eof:
			return 0, io.EOF
		}
		h.readable.Wait()
	}
}

// write writes all of p, not mixed with what other goroutines write.
func (h *half) write(p []byte) (n int, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	turn := false // a mutex held while waiting would not let a synctest bubble idle
	defer func() {
		if turn {
			h.writing = false
			h.writable.Broadcast()
		}
	}()
	for {
		switch {
		case h.writeErr != nil:
			return n, h.writeErr
		case h.writeBy.passed():
			return n, os.ErrDeadlineExceeded
		}
		if turn || !h.writing {
			turn, h.writing = true, true
			if put := h.put(p[n:]); put > 0 {
				n += put
				h.readable.Broadcast()
			}
			if n == len(p) {
				return n, nil
			}
		}
		h.writable.Wait()
	}
}

// take copies what it can out of the ring, and put into it.
func (h *half) take(p []byte) int {
	n := 0
	for n < len(p) && h.used > 0 {
		k := copy(p[n:], h.buf[h.head:min(h.head+h.used, len(h.buf))])
		n += k
		h.used -= k
		h.head = (h.head + k) % len(h.buf)
	}
	if h.used == 0 {
		h.head = 0
	}
	return n
}

func (h *half) put(p []byte) int {
	if want := h.used + len(p); want > len(h.buf) && len(h.buf) < window {
		size := max(len(h.buf), 512)
		for size < min(want, window) {
			size *= 2
		}
		buf := make([]byte, size)
		h.used, h.head, h.buf = h.take(buf), 0, buf
	}
	n := 0
	for n < len(p) && h.used < len(h.buf) {
		tail := (h.head + h.used) % len(h.buf)
		end := len(h.buf)
		if tail < h.head {
			end = h.head
		}
		k := copy(h.buf[tail:end], p[n:])
		n += k
		h.used += k
	}
	return n
}

// endRead and endWrite stop one end, for the first reason given, and free what
// nobody will read.
func (h *half) endRead(err error) {
	if h.readErr == nil || err == net.ErrClosed {
		h.readErr = err
	}
	if err == net.ErrClosed {
		h.buf, h.head, h.used = nil, 0, 0
	}
	h.readable.Broadcast()
}

func (h *half) endWrite(err error) {
	if h.writeErr == nil || err == net.ErrClosed {
		h.writeErr = err
	}
	h.writable.Broadcast()
}

// Read returns what has been written, then io.EOF or why the connection ended.
func (c *conn) Read(p []byte) (int, error) {
	n, err := c.in.read(p)
	return n, c.wrap("read", err)
}

// Write blocks while the peer does not read.
func (c *conn) Write(p []byte) (int, error) {
	n, err := c.out.write(p)
	return n, c.wrap("write", err)
}

// Close closes both directions. The peer still reads what was written before.
func (c *conn) Close() error {
	c.in.mu.Lock()
	closed := c.in.readErr == net.ErrClosed
	c.in.endRead(net.ErrClosed)
	c.in.endWrite(syscall.EPIPE)
	c.in.set(&c.in.readBy, time.Time{}, &c.in.readable)
	c.in.mu.Unlock()

	c.out.mu.Lock()
	c.out.endWrite(net.ErrClosed)
	c.out.eof = true
	c.out.readable.Broadcast()
	c.out.set(&c.out.writeBy, time.Time{}, &c.out.writable)
	c.out.mu.Unlock()
	if closed {
		return c.wrap("close", net.ErrClosed)
	}
	return nil
}

// CloseWrite lets the peer read io.EOF after what was written. Reading goes on.
func (c *conn) CloseWrite() error {
	c.out.mu.Lock()
	defer c.out.mu.Unlock()
	if c.out.writeErr != nil {
		if c.out.writeErr == syscall.EPIPE {
			return nil // closed before, by either end
		}
		return c.wrap("close", c.out.writeErr)
	}
	c.out.endWrite(syscall.EPIPE)
	c.out.eof = true
	c.out.readable.Broadcast()
	return nil
}

// reset ends the connection without delivering anything more.
func (c *conn) reset() {
	for _, h := range []*half{c.in, c.out} {
		h.mu.Lock()
		h.endRead(syscall.ECONNRESET)
		h.endWrite(syscall.ECONNRESET)
		h.mu.Unlock()
	}
}

func (c *conn) LocalAddr() net.Addr  { return c.local }
func (c *conn) RemoteAddr() net.Addr { return c.remote }

func (c *conn) SetDeadline(t time.Time) error {
	return errors.Join(c.SetReadDeadline(t), c.SetWriteDeadline(t))
}

func (c *conn) SetReadDeadline(t time.Time) error {
	c.in.mu.Lock()
	defer c.in.mu.Unlock()
	if c.in.readErr == net.ErrClosed {
		return c.wrap("set", net.ErrClosed)
	}
	c.in.set(&c.in.readBy, t, &c.in.readable)
	return nil
}

func (c *conn) SetWriteDeadline(t time.Time) error {
	c.out.mu.Lock()
	defer c.out.mu.Unlock()
	if c.out.writeErr == net.ErrClosed {
		return c.wrap("set", net.ErrClosed)
	}
	c.out.set(&c.out.writeBy, t, &c.out.writable)
	return nil
}

// wrap gives errors the form that those of a TCP connection have.
func (c *conn) wrap(op string, err error) error {
	if err == nil || err == io.EOF {
		return err
	}
	if n, ok := err.(syscall.Errno); ok {
		err = os.NewSyscallError(op, n)
	}
	return &net.OpError{Op: op, Net: "memory", Source: c.local, Addr: c.remote, Err: err}
}
