package addrport

import (
	"net"
	"net/netip"
	"testing"
)

func TestOf(t *testing.T) {
	four, six := netip.MustParseAddrPort("192.0.2.7:80"), netip.MustParseAddrPort("[fe80::1%eth0]:80")
	for _, c := range []struct {
		a    net.Addr
		want netip.AddrPort
	}{
		{&net.TCPAddr{IP: net.IPv4(192, 0, 2, 7), Port: 80}, four},
		{&net.UDPAddr{IP: net.IPv4(192, 0, 2, 7).To4(), Port: 80}, four},
		{&net.UDPAddr{IP: net.ParseIP("fe80::1"), Zone: "eth0", Port: 80}, six},
		{&net.UDPAddr{}, netip.AddrPort{}},
		{&net.UnixAddr{Name: "/x"}, netip.AddrPort{}},
		{nil, netip.AddrPort{}},
	} {
		if got := Of(c.a); got != c.want {
			t.Errorf("%v is at %v, want %v", c.a, got, c.want)
		}
	}
}
