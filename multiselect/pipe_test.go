package multiselect

import (
	"io"
	"net"
	"os"
	"sync"
	"time"
)

// A pipe is one end of an in-memory stream with buffers, as a muxer's stream is.
type pipe struct {
	in, out *half
}

func newPipe() (a, b *pipe) {
	x, y := newHalf(), newHalf()
	return &pipe{x, y}, &pipe{y, x}
}

// A half is one direction.
type half struct {
	mu     sync.Mutex
	cond   sync.Cond
	buf    []byte
	off    int
	limit  int   // bytes that wait at most; 0: no limit
	eof    bool  // the writer closed
	closed bool  // the reader closed: what comes is dropped
	err    error // reset
	rpast  bool
	wpast  bool
	writes int
	reads  int
	rt, wt *time.Timer
}

func newHalf() *half {
	h := &half{}
	h.cond.L = &h.mu
	return h
}

func (h *half) set(f func()) {
	h.mu.Lock()
	f()
	h.mu.Unlock()
	h.cond.Broadcast()
}

func (p *pipe) Read(b []byte) (int, error) {
	h := p.in
	h.mu.Lock()
	defer h.mu.Unlock()
	h.reads++
	for {
		switch {
		case h.closed:
			return 0, net.ErrClosed
		case h.rpast:
			return 0, os.ErrDeadlineExceeded
		case h.err != nil:
			return 0, h.err
		case len(h.buf) > h.off:
			n := copy(b, h.buf[h.off:])
			if h.off += n; h.off == len(h.buf) {
				h.buf, h.off = h.buf[:0], 0
			}
			h.cond.Broadcast()
			return n, nil
		case h.eof:
			return 0, io.EOF
		case len(b) == 0:
			return 0, nil
		}
		h.cond.Wait()
	}
}

func (p *pipe) Write(b []byte) (n int, err error) {
	h := p.out
	h.mu.Lock()
	defer h.mu.Unlock()
	h.writes++
	for {
		switch {
		case h.eof:
			return n, net.ErrClosed
		case h.wpast:
			return n, os.ErrDeadlineExceeded
		case h.err != nil:
			return n, h.err
		}
		m := len(b)
		if h.limit > 0 {
			m = min(m, h.limit-(len(h.buf)-h.off))
		}
		if !h.closed {
			h.buf = append(h.buf, b[:m]...)
		}
		n, b = n+m, b[m:]
		h.cond.Broadcast()
		if len(b) == 0 {
			return n, nil
		}
		h.cond.Wait()
	}
}

func (p *pipe) Ready() bool {
	h := p.in
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.closed || h.err != nil || h.eof || len(h.buf) > h.off
}

func (p *pipe) CloseWrite() error { p.out.set(func() { p.out.eof = true }); return nil }
func (p *pipe) CloseRead() error  { p.in.set(func() { p.in.closed = true }); return nil }
func (p *pipe) Close() error      { p.CloseRead(); return p.CloseWrite() }

func (p *pipe) reset(err error) {
	p.in.set(func() { p.in.err = err })
	p.out.set(func() { p.out.err = err })
}

func (p *pipe) SetReadDeadline(t time.Time) error {
	h := p.in
	h.set(func() { deadline(h, t, &h.rt, &h.rpast) })
	return nil
}

func (p *pipe) SetWriteDeadline(t time.Time) error {
	h := p.out
	h.set(func() { deadline(h, t, &h.wt, &h.wpast) })
	return nil
}

func deadline(h *half, t time.Time, timer **time.Timer, past *bool) {
	if *timer != nil {
		(*timer).Stop()
	}
	*past = !t.IsZero() && !t.After(time.Now())
	if !t.IsZero() && !*past {
		*timer = time.AfterFunc(time.Until(t), func() { h.set(func() { *past = true }) })
	}
}

func (p *pipe) SetDeadline(t time.Time) error {
	p.SetReadDeadline(t)
	return p.SetWriteDeadline(t)
}

func (p *pipe) LocalAddr() net.Addr  { return nil }
func (p *pipe) RemoteAddr() net.Addr { return nil }

// sent is what p wrote and the other end has not read.
func (p *pipe) sent() string {
	p.out.mu.Lock()
	defer p.out.mu.Unlock()
	return string(p.out.buf[p.out.off:])
}

func (p *pipe) writes() int {
	p.out.mu.Lock()
	defer p.out.mu.Unlock()
	return p.out.writes
}

// A bare conn cannot tell whether it is ready.
type bare struct{ net.Conn }

// A trickle gives and takes a byte at a time.
type trickle struct{ *pipe }

func (t trickle) Read(b []byte) (int, error) { return t.pipe.Read(b[:min(1, len(b))]) }
func (t trickle) Write(b []byte) (int, error) {
	for i := range b {
		if _, err := t.pipe.Write(b[i : i+1]); err != nil {
			return i, err
		}
	}
	return len(b), nil
}
