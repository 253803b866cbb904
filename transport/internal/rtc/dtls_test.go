package rtc

import (
	"bytes"
	"net"
	"testing"
)

// loop is a connection that opens what it seals.
func loop(t testing.TB) *Conn {
	t.Helper()
	c := &Conn{seq: firstSeq}
	for _, d := range []*direction{&c.in, &c.out} {
		if err := d.init(make([]byte, 16), make([]byte, 4)); err != nil {
			t.Fatal(err)
		}
	}
	return c
}

// A record costs no allocation, in neither direction.
func TestRecordAllocs(t *testing.T) {
	c := loop(t)
	data := bytes.Repeat([]byte("x"), 1000)
	b := make([]byte, 0, MaxDatagram)
	n := testing.AllocsPerRun(100, func() {
		r, _, ok := nextRecord(c.seal(b[:0], recordData, data))
		if !ok {
			t.Fatal("no record")
		}
		if got, ok := c.open(&r); !ok || !bytes.Equal(got, data) {
			t.Fatal("it does not open")
		}
	})
	if n != 0 {
		t.Errorf("%v allocations for a record", n)
	}
}

// What comes for pion and the data beside it, in one datagram, part.
func TestTake(t *testing.T) {
	c := loop(t)
	first := c.seal(nil, recordHandshake, []byte("first"))
	data := c.seal(nil, recordData, []byte("data"))
	last := c.seal(nil, recordAlert, []byte("last"))
	h := new(handshakeConn)
	all := append(append(bytes.Clone(first), data...), last...)
	all = append(all, 22, 0xfe) // cut off
	b := bytes.Clone(all)
	n, err := h.take(b, nil)
	if err != nil || !bytes.Equal(b[:n], append(first, last...)) {
		t.Errorf("pion gets %x, %v", b[:n], err)
	}
	if len(h.early) != 1 || !bytes.Equal(h.early[0], data) {
		t.Errorf("%x waits for the keys", h.early)
	}
	h.closed = true // since pion is done
	if n, err := h.take(all, nil); n != 0 || err != net.ErrClosed || len(h.early) != 2 {
		t.Errorf("after the handshake pion gets %d bytes, %v, and %d datagrams wait", n, err, len(h.early))
	}
	h.closed = false
	for range 2 * maxEarly {
		if n, err := h.take(bytes.Clone(data), nil); n != 0 || err != nil {
			t.Fatalf("pion gets %d bytes of data, %v", n, err)
		}
	}
	if len(h.early) != maxEarly {
		t.Errorf("%d datagrams wait", len(h.early))
	}
}
