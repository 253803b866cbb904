package securitytest

import (
	"net"
	"sync"
)

// faulty is a connection that does something to what is written to it.
type faulty struct {
	net.Conn
	mu  sync.Mutex
	at  int  // bytes written so far
	off int  // where the fault is
	hit bool // whether the byte at off was written
	do  func(f *faulty, p []byte, i int) (int, error)
}

// Write writes p, and calls do when the byte at off is among it, as p[i].
func (f *faulty) Write(p []byte) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	i := f.off - f.at
	f.at += len(p)
	if i >= len(p) {
		return f.Conn.Write(p)
	}
	f.hit = true
	return f.do(f, p, i)
}

// done tells whether there was a fault: a handshake may be shorter than the one that
// was measured, where signatures have no fixed size.
func (f *faulty) done() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.hit
}

func (f *faulty) CloseWrite() error { return f.Conn.(interface{ CloseWrite() error }).CloseWrite() }

// cut ends the sending direction before byte off; its writer notices nothing.
func cut(c net.Conn, off int) *faulty {
	return &faulty{Conn: c, off: off, do: func(f *faulty, p []byte, i int) (int, error) {
		if i >= 0 {
			f.Conn.Write(p[:i])
			f.CloseWrite()
		}
		return len(p), nil
	}}
}

// stall loses everything from byte off on.
func stall(c net.Conn, off int) *faulty {
	return &faulty{Conn: c, off: off, do: func(f *faulty, p []byte, i int) (int, error) {
		if i > 0 {
			f.Conn.Write(p[:i])
		}
		return len(p), nil
	}}
}

// flip changes one bit of byte off.
func flip(c net.Conn, off int) *faulty {
	return &faulty{Conn: c, off: off, do: func(f *faulty, p []byte, i int) (int, error) {
		if i >= 0 {
			q := append([]byte(nil), p...)
			q[i] ^= 1 << (off % 8)
			return f.Conn.Write(q)
		}
		return f.Conn.Write(p)
	}}
}

// count only counts.
func count(c net.Conn) *faulty {
	return &faulty{Conn: c, off: 1 << 62}
}

func (f *faulty) written() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.at
}
