package memory

import (
	"net"
	"testing"

	ma "github.com/multiformats/go-multiaddr"
	"golang.org/x/net/nettest"
)

func connect(t testing.TB) (c1, c2 net.Conn) {
	var n Network
	l, err := n.Listen(t.Context(), ma.StringCast("/memory/0"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c1, err = n.Dial(t.Context(), l.Addr().(Addr).Multiaddr())
	if err != nil {
		t.Fatal(err)
	}
	c2, err = l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	return c1, c2
}

func TestConn(t *testing.T) {
	nettest.TestConn(t, func() (net.Conn, net.Conn, func(), error) {
		c1, c2 := connect(t)
		return c1, c2, func() { c1.Close(); c2.Close() }, nil
	})
}
