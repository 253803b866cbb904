package room

import (
	"net"
	"testing"
)

type conn struct {
	net.Conn
	closed int
}

func (c *conn) Close() error { c.closed++; return nil }

func TestRoom(t *testing.T) {
	r := Room{Max: 2}
	a, b, c, d := new(conn), new(conn), new(conn), new(conn)
	r.Add(a)
	r.Add(b)
	if !r.Remove(a) || r.Remove(a) || a.closed != 0 {
		t.Error("a does not leave once and alive")
	}
	r.Add(c)
	r.Add(d)
	if b.closed != 1 || c.closed+d.closed != 0 || r.Remove(b) {
		t.Errorf("a third one made %d, %d, %d leave", b.closed, c.closed, d.closed)
	}
	r.Close()
	if c.closed != 1 || d.closed != 1 || r.Remove(c) {
		t.Error("Close closes not all")
	}
}
