package tls

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"os"
	"time"

	"github.com/plexus-p2p/plexus/security/internal/link"
)

const (
	maxPlain = 16 << 10               // bytes in a record
	maxBatch = 16 * maxPlain          // bytes that go out in one write
	overhead = 5 + 1 + 16             // bytes of a record that are not the application's
	goodbye  = 100 * time.Millisecond // how long Close tries to tell the peer
)

var (
	errBroken = errors.New("tls: cannot write: an earlier write stopped at its deadline within a record")
	errClosed = fmt.Errorf("tls: cannot write: %w for writing", net.ErrClosed)
)

// conn is a connection after the handshake.
//
//	application → conn → crypto/tls → socket → the connection below
//
// Deadlines and Close bypass crypto/tls, which has its own ideas of them.
type conn struct {
	net.Conn // below
	tls      *tls.Conn
	sock     *socket

	reading link.Turn
	writing link.Turn // before sock.turn
	err     error     // why nothing can be written any more; owned by writing
}

func newConn(t *tls.Conn, s *socket) *conn {
	return &conn{Conn: s.Conn, tls: t, sock: s, reading: link.NewTurn(), writing: link.NewTurn()}
}

// Read returns bytes of one record at most.
func (c *conn) Read(p []byte) (int, error) {
	c.reading.Lock()
	defer c.reading.Unlock()
	return c.tls.Read(p)
}

// Write sends up to maxBatch bytes in one write to the connection. Unless it returns
// nil, nothing can be written afterwards.
func (c *conn) Write(p []byte) (int, error) {
	c.writing.Lock()
	defer c.writing.Unlock()
	for done := 0; ; {
		if c.err != nil || done == len(p) {
			return done, c.err
		}
		part := p[done:min(len(p), done+maxBatch)]
		c.sock.collect(len(part) + (len(part)+maxPlain-1)/maxPlain*overhead)
		_, err := c.tls.Write(part)
		if sent := c.sock.send(); err == nil {
			err = sent
		}
		if err == nil {
			done += len(part)
			continue
		}
		c.err = err
		if errors.Is(err, os.ErrDeadlineExceeded) {
			c.err = errBroken // which no later deadline mends
		}
		return done, err
	}
}

// CloseWrite tells the peer that nothing follows, after the writes under way, and ends
// the sending direction of the connection below if it can do that.
func (c *conn) CloseWrite() error {
	c.writing.Lock()
	defer c.writing.Unlock()
	if c.err != nil {
		return c.err
	}
	c.err = errClosed
	if err := c.tls.CloseWrite(); err != nil {
		return err
	}
	if below, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return below.CloseWrite()
	}
	return nil
}

// Close tells the peer, unless a write is under way, and closes the connection.
func (c *conn) Close() error {
	if c.writing.TryLock() {
		if c.err == nil {
			c.Conn.SetWriteDeadline(time.Now().Add(goodbye))
			c.tls.CloseWrite()
		}
		if c.err == nil || c.err == errClosed {
			c.err = net.ErrClosed
		}
		defer c.writing.Unlock()
	}
	return c.Conn.Close()
}

// socket is what crypto/tls has for a connection.
type socket struct {
	net.Conn           // below
	turn     link.Turn // of one of the writers: the application, or crypto/tls with an alert

	// Owned by turn.
	buf *[]byte // collects, or nil
	n   int     // bytes in buf
	err error   // a write failed, maybe within a record
}

func newSocket(c net.Conn) *socket { return &socket{Conn: c, turn: link.NewTurn()} }

// collect keeps what is written until send; n bytes are expected.
func (s *socket) collect(n int) {
	s.turn.Lock()
	defer s.turn.Unlock()
	s.buf, s.n = link.Borrow(n), 0
}

// send sends what was collected.
func (s *socket) send() error {
	s.turn.Lock()
	defer s.turn.Unlock()
	err := s.flush(nil)
	link.GiveBack(s.buf)
	s.buf = nil
	return err
}

// flush sends what was collected, or p instead if that is not nil. The caller has the turn.
func (s *socket) flush(p []byte) error {
	if p == nil {
		p = (*s.buf)[:s.n]
		s.n = 0
	}
	if s.err == nil {
		_, s.err = s.Conn.Write(p)
	}
	return s.err
}

// Write implements net.Conn.
func (s *socket) Write(p []byte) (int, error) {
	s.turn.Lock()
	defer s.turn.Unlock()
	if s.buf != nil {
		if s.n+len(p) <= len(*s.buf) {
			s.n += copy((*s.buf)[s.n:], p)
			return len(p), nil
		}
		if err := s.flush(nil); err != nil {
			return 0, err
		}
	}
	if err := s.flush(p); err != nil {
		return 0, err
	}
	return len(p), nil
}

// Read implements net.Conn.
func (s *socket) Read(p []byte) (int, error) {
	n, err := s.Conn.Read(p)
	if err != nil && errors.Is(err, os.ErrDeadlineExceeded) {
		// crypto/tls goes on after errors that are temporary in so many words.
		err = os.ErrDeadlineExceeded
	}
	return n, err
}

// Close implements net.Conn: nothing. A connection is the caller's until it is secured.
func (s *socket) Close() error { return nil }

// SetDeadline implements net.Conn: nothing, as the two others. Deadlines are the
// application's; crypto/tls sets them when it says goodbye.
func (s *socket) SetDeadline(time.Time) error { return nil }

// SetReadDeadline implements net.Conn.
func (s *socket) SetReadDeadline(time.Time) error { return nil }

// SetWriteDeadline implements net.Conn.
func (s *socket) SetWriteDeadline(time.Time) error { return nil }
