package securitytest

import (
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/plexus-p2p/plexus/internal/link"
)

// pipeSize is how many bytes wait in one direction of a [Pipe] before writes block.
const pipeSize = 256 << 10

// Pipe returns the two ends of a connection in memory. Other than net.Pipe it has a
// buffer in each direction, so that both ends may write first, and each direction
// can be closed for itself. It works in a synctest bubble.
func Pipe() (client, server *End) {
	there, back := newHalf(), newHalf()
	client, server = &End{in: back, out: there}, &End{in: there, out: back}
	client.writing, server.writing = link.NewTurn(), link.NewTurn()
	return client, server
}

// End is one end of a [Pipe], a net.Conn.
type End struct {
	// MaxRead is how many bytes one Read returns at most. Zero: as many as wait.
	MaxRead int

	Reads, Writes atomic.Int64 // calls that moved bytes

	writing link.Turn // writes follow each other whole, as those of net.Conn do
	in, out *half
}

// half is one direction.
type half struct {
	mu            sync.Mutex
	changed       sync.Cond
	buf           []byte
	eof           bool // no more is written
	gone          bool // no more is read
	read, written deadline
}

func newHalf() *half {
	h := new(half)
	h.changed.L = &h.mu
	return h
}

type deadline struct {
	at    time.Time
	timer *time.Timer
}

func (d *deadline) passed() bool { return !d.at.IsZero() && !time.Now().Before(d.at) }

func (h *half) set(d *deadline, at time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if d.timer != nil {
		d.timer.Stop()
		d.timer = nil
	}
	d.at = at
	if !at.IsZero() && !d.passed() {
		d.timer = time.AfterFunc(time.Until(at), func() {
			h.mu.Lock()
			defer h.mu.Unlock()
			h.changed.Broadcast()
		})
	}
	h.changed.Broadcast()
}

// Read implements net.Conn.
func (e *End) Read(p []byte) (int, error) {
	h := e.in
	h.mu.Lock()
	defer h.mu.Unlock()
	for {
		switch {
		case h.gone:
			return 0, net.ErrClosed
		case h.read.passed():
			return 0, os.ErrDeadlineExceeded
		case len(h.buf) > 0:
			if e.MaxRead > 0 {
				p = p[:min(len(p), e.MaxRead)]
			}
			n := copy(p, h.buf)
			h.buf = h.buf[:copy(h.buf, h.buf[n:])]
			h.changed.Broadcast()
			e.Reads.Add(1)
			return n, nil
		case h.eof:
			return 0, io.EOF
		}
		h.changed.Wait()
	}
}

// Write implements net.Conn.
func (e *End) Write(p []byte) (int, error) {
	e.writing.Lock()
	defer e.writing.Unlock()
	h := e.out
	h.mu.Lock()
	defer h.mu.Unlock()
	e.Writes.Add(1)
	for done := 0; ; {
		switch {
		case h.eof:
			return done, net.ErrClosed
		case h.gone:
			return done, io.ErrClosedPipe
		case h.written.passed():
			return done, os.ErrDeadlineExceeded
		case done == len(p):
			return done, nil
		case len(h.buf) < pipeSize:
			n := min(len(p)-done, pipeSize-len(h.buf))
			h.buf = append(h.buf, p[done:done+n]...)
			done += n
			h.changed.Broadcast()
			continue
		}
		h.changed.Wait()
	}
}

// CloseWrite ends the direction to the other end.
func (e *End) CloseWrite() error {
	e.out.mu.Lock()
	defer e.out.mu.Unlock()
	e.out.eof = true
	e.out.changed.Broadcast()
	return nil
}

// Close implements net.Conn. What was written can still be read.
func (e *End) Close() error {
	e.CloseWrite()
	e.in.mu.Lock()
	defer e.in.mu.Unlock()
	e.in.gone, e.in.buf = true, nil
	e.in.changed.Broadcast()
	return nil
}

// SetDeadline implements net.Conn.
func (e *End) SetDeadline(t time.Time) error {
	e.SetReadDeadline(t)
	return e.SetWriteDeadline(t)
}

// SetReadDeadline implements net.Conn.
func (e *End) SetReadDeadline(t time.Time) error {
	e.in.set(&e.in.read, t)
	return nil
}

// SetWriteDeadline implements net.Conn.
func (e *End) SetWriteDeadline(t time.Time) error {
	e.out.set(&e.out.written, t)
	return nil
}

type addr struct{}

func (addr) Network() string { return "securitytest" }
func (addr) String() string  { return "securitytest" }

// LocalAddr implements net.Conn.
func (e *End) LocalAddr() net.Addr { return addr{} }

// RemoteAddr implements net.Conn.
func (e *End) RemoteAddr() net.Addr { return addr{} }
