package muxertest

import (
	"encoding/binary"
	"net"
	"sync"
)

// Records returns a connection that behaves as a secured one: each Write is cut
// in records of at most size bytes, and ReadRecord returns one of them where it lies.
// As security.Conn says, deadlines lose no bytes.
func Records(c net.Conn, size int) net.Conn {
	return &records{Conn: c, size: size, buf: make([]byte, 4*(2+size))}
}

type records struct {
	net.Conn
	size int

	wmu  sync.Mutex
	rest []byte // a deadline left it

	rmu   sync.Mutex
	buf   []byte
	r, w  int    // buf[r:w] was received and not returned
	valid []byte // what was returned last
}

func (c *records) Write(p []byte) (n int, err error) {
	c.wmu.Lock()
	defer c.wmu.Unlock()
	for {
		k, err := c.Conn.Write(c.rest)
		if c.rest = c.rest[k:]; err != nil || n == len(p) {
			return n, err
		}
		k = min(len(p)-n, c.size)
		c.rest = append(binary.BigEndian.AppendUint16(nil, uint16(k)), p[n:n+k]...)
		n += k
	}
}

func (c *records) ReadRecord() ([]byte, error) {
	c.rmu.Lock()
	defer c.rmu.Unlock()
	for i := range c.valid {
		c.valid[i] = 0xdb // not any more
	}
	c.valid = nil
	for !c.whole() {
		if c.r > 0 {
			c.w = copy(c.buf, c.buf[c.r:c.w])
			c.r = 0
		}
		n, err := c.Conn.Read(c.buf[c.w:])
		c.w += n
		if err != nil && !c.whole() {
			return nil, err
		}
	}
	n := int(binary.BigEndian.Uint16(c.buf[c.r:]))
	c.valid = c.buf[c.r+2 : c.r+2+n]
	c.r += 2 + n
	return c.valid, nil
}

// Buffered tells whether ReadRecord would return at once.
func (c *records) Buffered() bool {
	c.rmu.Lock()
	defer c.rmu.Unlock()
	return c.whole()
}

func (c *records) whole() bool {
	b := c.buf[c.r:c.w]
	return len(b) >= 2 && len(b) >= 2+int(binary.BigEndian.Uint16(b))
}

func (c *records) Read(p []byte) (int, error) { panic("ReadRecord is preferred") }

func (c *records) CloseWrite() error { return c.Conn.(interface{ CloseWrite() error }).CloseWrite() }
