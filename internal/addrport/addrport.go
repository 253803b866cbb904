// Package addrport tells where sockets are, in one form: systems tell of IPv4 addresses within
// IPv6 or without.
package addrport

import (
	"net"
	"net/netip"
)

// Unmap returns a with an IPv4 address as such, even where a has it within IPv6.
func Unmap(a netip.AddrPort) netip.AddrPort {
	return netip.AddrPortFrom(a.Addr().Unmap(), a.Port())
}

// Of returns where a is, as Unmap does: a *net.TCPAddr or a *net.UDPAddr. Others are nowhere,
// which is not valid.
func Of(a net.Addr) netip.AddrPort {
	if a, ok := a.(interface{ AddrPort() netip.AddrPort }); ok {
		return Unmap(a.AddrPort())
	}
	return netip.AddrPort{}
}
