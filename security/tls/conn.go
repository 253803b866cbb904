package tls

import (
	"crypto/tls"
	"fmt"
	"net"
	"os"
	"time"

	"github.com/plexus-p2p/plexus/internal/link"
)

const (
	maxPlain = 16 << 10               // bytes in a record
	maxBatch = 16 * maxPlain          // bytes that go out in one write
	goodbye  = 100 * time.Millisecond // how long Close tries to tell the peer
)

var errClosed = fmt.Errorf("tls: cannot write: %w for writing", net.ErrClosed)

// conn is a connection after the handshake.
//
//	application → conn → crypto/tls → socket → the connection below
//
// Deadlines and Close bypass crypto/tls, which has its own ideas of them.
type conn struct {
	net.Conn // below
	tls      *tls.Conn
	sock     socket

	reading link.Turn
	writing link.Turn // before that of sock
	err     error     // why nothing can be written any more; owned by writing
}

func newConn(t *tls.Conn, s socket) *conn {
	return &conn{Conn: s.Conn, tls: t, sock: s, reading: link.NewTurn(), writing: link.NewTurn()}
}

// Read returns bytes of one record at most.
func (c *conn) Read(p []byte) (int, error) {
	c.reading.Lock()
	defer c.reading.Unlock()
	return c.tls.Read(p)
}

// Write sends up to maxBatch bytes in one write to the connection. At a deadline n is
// what has become records; the next Write sends those that are left, and goes on. After
// any other error nothing can be written.
func (c *conn) Write(p []byte) (n int, err error) {
	c.writing.Lock()
	defer c.writing.Unlock()
	if c.err != nil {
		return 0, c.err
	}
	if err := c.fail(c.sock.Send()); err != nil {
		return 0, err
	}
	for n < len(p) && err == nil {
		part := p[n:min(len(p), n+maxBatch)]
		c.sock.Collect(len(part))
		_, err = c.tls.Write(part)
		if sent := c.sock.Send(); err == nil {
			err = sent
		}
		if c.fail(err); c.err == nil {
			n += len(part)
		}
	}
	return n, err
}

// fail returns err, after which nothing can be written unless it is a deadline.
func (c *conn) fail(err error) error {
	if err != os.ErrDeadlineExceeded {
		c.err = err
	}
	return err
}

// CloseWrite tells the peer that nothing follows, after the writes under way and what
// they left at a deadline, and ends the sending direction of the connection below if it
// can do that.
func (c *conn) CloseWrite() error {
	c.writing.Lock()
	defer c.writing.Unlock()
	if c.err == nil {
		if err := c.fail(c.tls.CloseWrite()); err != nil {
			return err
		}
		c.err = errClosed
	}
	if c.err != errClosed {
		return c.err
	}
	if err := c.sock.Send(); err != nil {
		return err // after a deadline, to be called again
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
type socket struct{ *link.Socket }

// Close implements net.Conn: nothing. A connection is the caller's until it is secured.
func (s socket) Close() error { return nil }

// SetDeadline implements net.Conn: nothing, as the two others. Deadlines are the
// application's; crypto/tls sets them when it says goodbye.
func (s socket) SetDeadline(time.Time) error { return nil }

// SetReadDeadline implements net.Conn.
func (s socket) SetReadDeadline(time.Time) error { return nil }

// SetWriteDeadline implements net.Conn.
func (s socket) SetWriteDeadline(time.Time) error { return nil }
