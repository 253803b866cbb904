package udp

import (
	"net"
	"testing"
)

func loopback(t *testing.T) *net.UDPConn {
	t.Helper()
	c, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// A socket tells whether a packet has come.
func TestPending(t *testing.T) {
	from, to := loopback(t), loopback(t)
	pending := Pending(to)
	if pending() {
		t.Error("nothing was sent")
	}
	if _, err := from.WriteTo([]byte("x"), to.LocalAddr()); err != nil {
		t.Fatal(err)
	}
	raw, err := to.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	if err := raw.Read(func(uintptr) bool { return pending() }); err != nil { // waits for it
		t.Fatal(err)
	}
	if _, err := to.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	if pending() {
		t.Error("it was read")
	}
	to.Close()
	if pending() {
		t.Error("it is closed")
	}
}

// On Linux a batch is one system call.
func TestSegments(t *testing.T) {
	from, to := loopback(t), loopback(t)
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
