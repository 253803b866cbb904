package muxertest

import (
	"io"
	"net"
	"os"
	"sync"
	"time"
)

// Pipe returns the two ends of a connection in memory, with a buffer of size
// bytes in each direction, deadlines and CloseWrite. It works in a synctest bubble.
func Pipe(size int) (net.Conn, net.Conn) {
	a, b := newHalf(size), newHalf(size)
	return &end{in: a, out: b}, &end{in: b, out: a}
}

// end is one end of a pipe.
type end struct{ in, out *half }

func (e *end) Read(p []byte) (int, error)  { return e.in.read(p) }
func (e *end) Write(p []byte) (int, error) { return e.out.write(p) }
func (e *end) CloseWrite() error           { e.out.finish(); return nil }
func (e *end) Close() error                { e.in.cut(); e.out.finish(); return nil }
func (e *end) LocalAddr() net.Addr         { return addr{} }
func (e *end) RemoteAddr() net.Addr        { return addr{} }

func (e *end) SetDeadline(t time.Time) error {
	e.in.rlimit.set(&e.in.mu, &e.in.changed, t)
	e.out.wlimit.set(&e.out.mu, &e.out.changed, t)
	return nil
}

func (e *end) SetReadDeadline(t time.Time) error {
	e.in.rlimit.set(&e.in.mu, &e.in.changed, t)
	return nil
}

func (e *end) SetWriteDeadline(t time.Time) error {
	e.out.wlimit.set(&e.out.mu, &e.out.changed, t)
	return nil
}

type addr struct{}

func (addr) Network() string { return "pipe" }
func (addr) String() string  { return "pipe" }

// half is one direction of a pipe.
type half struct {
	mu             sync.Mutex
	changed        sync.Cond
	ring           []byte
	r, n           int  // where the bytes begin, and how many there are
	fin            bool // no more bytes will be written
	closed         bool // none will be read
	rlimit, wlimit limit
}

func newHalf(size int) *half {
	h := &half{ring: make([]byte, size)}
	h.changed.L = &h.mu
	return h
}

func (h *half) read(p []byte) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for {
		switch {
		case h.rlimit.expired:
			return 0, os.ErrDeadlineExceeded
		case h.closed:
			return 0, net.ErrClosed
		case h.n > 0:
			n := copy(p, h.ring[h.r:min(h.r+h.n, len(h.ring))])
			h.r, h.n = (h.r+n)%len(h.ring), h.n-n
			h.changed.Broadcast()
			return n, nil
		case h.fin:
			return 0, io.EOF
		}
		h.changed.Wait()
	}
}

func (h *half) write(p []byte) (n int, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for {
		switch {
		case h.wlimit.expired:
			return n, os.ErrDeadlineExceeded
		case h.fin:
			return n, net.ErrClosed
		case h.closed:
			return n, io.ErrClosedPipe
		}
		for n < len(p) && h.n < len(h.ring) {
			w := (h.r + h.n) % len(h.ring)
			k := copy(h.ring[w:min(w+len(h.ring)-h.n, len(h.ring))], p[n:])
			n, h.n = n+k, h.n+k
			h.changed.Broadcast()
		}
		if n == len(p) {
			return n, nil
		}
		h.changed.Wait()
	}
}

func (h *half) finish() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.fin = true
	h.changed.Broadcast()
}

func (h *half) cut() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.closed = true
	h.changed.Broadcast()
}

// limit is a deadline.
type limit struct {
	expired bool
	timer   *time.Timer
}

func (l *limit) set(mu *sync.Mutex, changed *sync.Cond, t time.Time) {
	mu.Lock()
	defer mu.Unlock()
	if l.timer != nil {
		l.timer.Stop()
		l.timer = nil
	}
	d := time.Until(t)
	l.expired = !t.IsZero() && d <= 0
	if !t.IsZero() && d > 0 {
		var timer *time.Timer
		timer = time.AfterFunc(d, func() {
			mu.Lock()
			defer mu.Unlock()
			if l.timer == timer {
				l.expired = true
				changed.Broadcast()
			}
		})
		l.timer = timer
	}
	changed.Broadcast()
}
