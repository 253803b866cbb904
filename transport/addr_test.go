package transport

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"testing"

	ma "github.com/multiformats/go-multiaddr"
)

type special string

func (special) Network() string           { return "special" }
func (s special) String() string          { return string(s) }
func (s special) Multiaddr() ma.Multiaddr { return ma.StringCast(string(s)) }

type hollow struct{}

func (hollow) Network() string         { return "hollow" }
func (hollow) String() string          { return "hollow" }
func (hollow) Multiaddr() ma.Multiaddr { return nil }

func TestMultiaddr(t *testing.T) {
	for _, c := range []struct {
		addr net.Addr
		want string // "": none
	}{
		{&net.TCPAddr{IP: net.IPv4(1, 2, 3, 4), Port: 5}, "/ip4/1.2.3.4/tcp/5"}, // 16 bytes inside
		{&net.TCPAddr{IP: net.IP{1, 2, 3, 4}, Port: 65535}, "/ip4/1.2.3.4/tcp/65535"},
		{&net.TCPAddr{IP: net.ParseIP("2001:db8::1"), Port: 5}, "/ip6/2001:db8::1/tcp/5"},
		{&net.TCPAddr{IP: net.ParseIP("fe80::1"), Port: 5, Zone: "eth0"}, "/ip6zone/eth0/ip6/fe80::1/tcp/5"},
		{&net.UDPAddr{IP: net.IPv4(1, 2, 3, 4), Port: 5}, "/ip4/1.2.3.4/udp/5"},
		{&net.UDPAddr{IP: net.ParseIP("::"), Port: 5}, "/ip6/::/udp/5"},
		{special("/memory/7"), "/memory/7"},
		{hollow{}, ""},
		{&net.TCPAddr{Port: 5}, ""},
		{&net.TCPAddr{IP: net.ParseIP("fe80::1"), Zone: "a/b"}, ""},
		{&net.UnixAddr{Name: "/x", Net: "unix"}, ""},
		{(*net.TCPAddr)(nil), ""},
		{nil, ""},
	} {
		got, err := Multiaddr(c.addr)
		if c.want == "" {
			if !errors.Is(err, ErrNoAddr) {
				t.Errorf("%T %v: %v, %v", c.addr, c.addr, got, err)
			}
		} else if err != nil || got.String() != c.want {
			t.Errorf("%v: %v, %v, want %s", c.addr, got, err, c.want)
		}
	}
}

func TestAddrPort(t *testing.T) {
	for _, c := range []struct{ addr, tcp, udp, rest string }{
		{"/ip4/1.2.3.4/tcp/5", "1.2.3.4:5", "", ""},
		{"/ip4/1.2.3.4/tcp/5/ws", "1.2.3.4:5", "", "/ws"},
		{"/ip6/2001:db8::1/tcp/5", "[2001:db8::1]:5", "", ""},
		{"/ip6zone/eth0/ip6/fe80::1/tcp/5", "[fe80::1%eth0]:5", "", ""},
		{"/ip6/::ffff:1.2.3.4/tcp/5", "1.2.3.4:5", "", ""},
		{"/ip4/1.2.3.4/udp/5/quic-v1", "", "1.2.3.4:5", "/quic-v1"},
		{"/ip4/1.2.3.4", "", "", ""},
		{"/tcp/5", "", "", ""},
		{"/dns/example.com/tcp/5", "", "", ""},
		{"/ip4/1.2.3.4/ipcidr/24/tcp/5", "", "", ""},
		{"/ip6zone/eth0/ip4/1.2.3.4/tcp/5", "", "", ""},
		{"/ip6zone/eth0/ip6/::ffff:1.2.3.4/tcp/5", "", "", ""},
		{"/ip6zone/eth0", "", "", ""},
		{"/memory/1", "", "", ""},
	} {
		check := func(name string, f func(ma.Multiaddr) (netip.AddrPort, ma.Multiaddr, bool), want string) {
			ap, rest, ok := f(ma.StringCast(c.addr))
			switch {
			case ok != (want != ""):
				t.Errorf("%s %s: %v", name, c.addr, ok)
			case ok && (ap.String() != want || rest.String() != c.rest):
				t.Errorf("%s %s: %v and %v, want %s and %s", name, c.addr, ap, rest, want, c.rest)
			}
		}
		check("tcp", TCPAddrPort, c.tcp)
		check("udp", UDPAddrPort, c.udp)
	}
	if _, _, ok := TCPAddrPort(nil); ok {
		t.Error("no address has a port")
	}
}

func TestExpand(t *testing.T) {
	var ifaces []netip.Addr
	for _, s := range []string{"127.0.0.1", "192.168.1.2", "::ffff:10.0.0.1", "169.254.1.1", "0.0.0.0", "::1", "2001:db8::1", "fe80::1%eth0", "::", "224.0.0.1"} {
		ifaces = append(ifaces, netip.MustParseAddr(s))
	}
	for addr, want := range map[string]string{
		"/ip4/0.0.0.0/tcp/5":         "[/ip4/127.0.0.1/tcp/5 /ip4/192.168.1.2/tcp/5 /ip4/10.0.0.1/tcp/5]",
		"/ip6/::/udp/5/quic-v1":      "[/ip6/::1/udp/5/quic-v1 /ip6/2001:db8::1/udp/5/quic-v1]",
		"/ip4/192.168.7.7/tcp/5":     "[/ip4/192.168.7.7/tcp/5]",
		"/ip4/169.254.1.1/tcp/5":     "[/ip4/169.254.1.1/tcp/5]",
		"/memory/0":                  "[/memory/0]",
		"/dns/example.com/tcp/5/wss": "[/dns/example.com/tcp/5/wss]",
	} {
		got := fmt.Sprint(Expand(ma.StringCast(addr), ifaces))
		if want != "" && got != want {
			t.Errorf("%s: %s, want %s", addr, got, want)
		}
	}
	if got := Expand(ma.StringCast("/ip4/0.0.0.0/tcp/5"), nil); len(got) != 0 {
		t.Error(got)
	}
}

func FuzzAddr(f *testing.F) {
	for _, s := range []string{"/ip4/1.2.3.4/tcp/5", "/ip6zone/eth0/ip6/fe80::1/udp/5/quic-v1", "/ip6/::ffff:1.2.3.4/tcp/1", "/ip6/::/tcp/0/ws", "/memory/1", "/dns/a/tcp/1"} {
		f.Add(ma.StringCast(s).Bytes())
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		a, err := ma.NewMultiaddrBytes(b)
		if err != nil {
			return
		}
		for _, x := range []struct {
			split func(ma.Multiaddr) (netip.AddrPort, ma.Multiaddr, bool)
			join  func(netip.AddrPort) (ma.Multiaddr, error)
		}{{TCPAddrPort, FromTCP}, {UDPAddrPort, FromUDP}} {
			ap, rest, ok := x.split(a)
			if !ok {
				continue
			}
			m, err := x.join(ap)
			if err != nil {
				t.Fatalf("%v: %v", a, err)
			}
			again, none, ok := x.split(m)
			if !ok || again != ap || len(none) > 0 {
				t.Fatalf("%v: %v, then %v", a, ap, again)
			}
			if ap.Addr().Is6() && !m.Encapsulate(rest).Equal(a) {
				t.Fatalf("%v becomes %v", a, m.Encapsulate(rest))
			}
		}
		ifaces := []netip.Addr{netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("2001:db8::1")}
		if n := len(Expand(a, ifaces)); n != 1 {
			t.Fatalf("%v expands to %d addresses", a, n)
		}
	})
}
