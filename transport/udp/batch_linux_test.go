package udp

import (
	"net"
	"testing"
)

// On Linux a batch is one system call.
func TestSegments(t *testing.T) {
	open := func() *net.UDPConn {
		c, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		return c
	}
	from, to := open(), open()
	at := to.LocalAddr().(*net.UDPAddr).AddrPort()
	if !writeSegments(from, make([]byte, 2500), 1000, at) {
		t.Fatal("the kernel has not cut the batch into packets")
	}
	b := make([]byte, maxPacket)
	for _, want := range []int{1000, 1000, 500} {
		if n, err := to.Read(b); n != want || err != nil {
			t.Errorf("read %d bytes, %v; want %d", n, err, want)
		}
	}
}
