package transport

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"syscall"
	"testing"
	"time"

	"github.com/plexus-p2p/plexus/internal/addrport"
)

var (
	loopback = netip.MustParseAddrPort("127.0.0.1:0")
	any4     = netip.MustParseAddrPort("0.0.0.0:0")
	any6     = netip.MustParseAddrPort("[::]:0")
)

func listen(t *testing.T, on netip.AddrPort) net.Listener {
	t.Helper()
	l, err := System{}.ListenTCP(t.Context(), on)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

// When somebody else has the port, and does not share it, another one does.
func TestDialFallsBack(t *testing.T) {
	l := listen(t, loopback)
	foreign, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer foreign.Close()
	c, err := System{}.DialTCP(t.Context(), addrport.Of(foreign.Addr()), addrport.Of(l.Addr()))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if addrport.Of(c.LocalAddr()) == addrport.Of(foreign.Addr()) || addrport.Of(c.LocalAddr()).Addr() != loopback.Addr() {
		t.Errorf("dialed from %v", c.LocalAddr())
	}
}

func TestDialErrors(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	l := listen(t, loopback)
	// Nobody listens on a connection's port, and the system gives it to nobody meanwhile.
	c, err := (System{}).DialTCP(ctx, netip.AddrPort{}, addrport.Of(l.Addr()))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := (System{}).DialTCP(ctx, netip.AddrPort{}, addrport.Of(c.LocalAddr())); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Error(err)
	}
	if _, err := (System{}).DialTCP(ctx, netip.AddrPort{}, netip.AddrPort{}); err == nil {
		t.Error("dialed no address")
	}
	// 192.0.2.0/24 belongs to nobody.
	if _, err := (System{}).DialTCP(ctx, netip.MustParseAddrPort("192.0.2.1:0"), addrport.Of(l.Addr())); err == nil {
		t.Error("dialed from an address of somebody else")
	}
}

// /ip6/:: is IPv6 alone, so that /ip4/0.0.0.0 with the same port is another listener.
func TestFamiliesAreSeparate(t *testing.T) {
	l, err := System{}.ListenTCP(t.Context(), any6)
	if err != nil {
		t.Skip("no IPv6:", err)
	}
	defer l.Close()
	port := addrport.Of(l.Addr()).Port()
	if c, err := (System{}).DialTCP(t.Context(), netip.AddrPort{}, netip.AddrPortFrom(loopback.Addr(), port)); err == nil {
		c.Close()
		t.Error("a listener on [::] took IPv4")
	}
	listen(t, netip.AddrPortFrom(any4.Addr(), port))
	u, err := System{}.ListenUDP(t.Context(), any6)
	if err != nil {
		t.Fatal(err)
	}
	defer u.Close()
	v, err := System{}.ListenUDP(t.Context(), netip.AddrPortFrom(any4.Addr(), addrport.Of(u.LocalAddr()).Port()))
	if err != nil {
		t.Fatal(err)
	}
	v.Close()
}

// An IPv4 address in IPv6 clothes is an IPv4 address.
func TestMappedAddr(t *testing.T) {
	l := listen(t, netip.MustParseAddrPort("[::ffff:127.0.0.1]:0"))
	c, err := System{}.DialTCP(t.Context(), netip.AddrPort{}, netip.AddrPortFrom(netip.MustParseAddr("::ffff:127.0.0.1"), addrport.Of(l.Addr()).Port()))
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
}

func TestUDPPortIsOurs(t *testing.T) {
	u, err := System{}.ListenUDP(t.Context(), loopback)
	if err != nil {
		t.Fatal(err)
	}
	defer u.Close()
	if _, ok := u.(*net.UDPConn); !ok {
		t.Errorf("%T", u)
	}
	if v, err := (System{}).ListenUDP(t.Context(), addrport.Of(u.LocalAddr())); err == nil {
		v.Close()
		t.Error("two sockets have one port")
	}
}

func TestSystemAddrs(t *testing.T) {
	all, err := System{}.Addrs()
	if err != nil || len(all) == 0 {
		t.Fatal(all, err)
	}
	for _, a := range all {
		if !a.IsValid() || a.Is4In6() {
			t.Error(a)
		}
	}
}

func TestLookup(t *testing.T) {
	got, err := System{}.LookupNetIP(t.Context(), "ip4", "127.0.0.1")
	if err != nil || len(got) != 1 || got[0] != loopback.Addr() {
		t.Error(got, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := (System{}).LookupTXT(ctx, "invalid."); err == nil {
		t.Error("a lookup with a ctx that has ended")
	}
}
