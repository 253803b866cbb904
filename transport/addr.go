package transport

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"

	ma "github.com/multiformats/go-multiaddr"
)

// Multiaddr returns the multiaddr of an address that a connection or a listener
// of a transport has. Addresses other than TCP and UDP bring their own method
// Multiaddr() ma.Multiaddr. The error wraps [ErrNoAddr].
func Multiaddr(a net.Addr) (ma.Multiaddr, error) {
	switch a := a.(type) {
	case interface{ Multiaddr() ma.Multiaddr }:
		if m := a.Multiaddr(); len(m) > 0 {
			return m, nil
		}
	case *net.TCPAddr:
		if a != nil {
			return fromAddrPort(a.AddrPort(), ma.P_TCP)
		}
	case *net.UDPAddr:
		if a != nil {
			return fromAddrPort(a.AddrPort(), ma.P_UDP)
		}
	}
	if a == nil {
		return nil, fmt.Errorf("%w: nil", ErrNoAddr)
	}
	return nil, fmt.Errorf("%w: %T %v", ErrNoAddr, a, a)
}

// FromTCP returns /ip4/…/tcp/… or /ip6/…/tcp/…, and FromUDP the same with udp. An
// IPv4 address that came in IPv6 clothes (::ffff:1.2.3.4) is written as IPv4.
func FromTCP(a netip.AddrPort) (ma.Multiaddr, error) { return fromAddrPort(a, ma.P_TCP) }

// FromUDP is described at [FromTCP].
func FromUDP(a netip.AddrPort) (ma.Multiaddr, error) { return fromAddrPort(a, ma.P_UDP) }

func fromAddrPort(a netip.AddrPort, proto int) (ma.Multiaddr, error) {
	b, err := appendIP(make([]byte, 0, 32), a.Addr())
	if err != nil {
		return nil, err
	}
	b = binary.AppendUvarint(b, uint64(proto))
	b = binary.BigEndian.AppendUint16(b, a.Port())
	return parse(b)
}

// FromIP returns /ip4/… or /ip6/…, with /ip6zone before it where the address has
// a zone.
func FromIP(ip netip.Addr) (ma.Multiaddr, error) {
	b, err := appendIP(make([]byte, 0, 32), ip)
	if err != nil {
		return nil, err
	}
	return parse(b)
}

func appendIP(b []byte, ip netip.Addr) ([]byte, error) {
	ip = ip.Unmap()
	switch {
	case ip.Is4():
		b = binary.AppendUvarint(b, ma.P_IP4)
	case ip.Is6():
		if z := ip.Zone(); z != "" {
			b = binary.AppendUvarint(b, ma.P_IP6ZONE)
			b = binary.AppendUvarint(b, uint64(len(z)))
			b = append(b, z...)
		}
		b = binary.AppendUvarint(b, ma.P_IP6)
	default:
		return nil, fmt.Errorf("%w: not an IP address", ErrNoAddr)
	}
	return append(b, ip.AsSlice()...), nil
}

func parse(b []byte) (ma.Multiaddr, error) {
	m, err := ma.NewMultiaddrBytes(b)
	if err != nil { // a zone that a multiaddr cannot hold
		return nil, fmt.Errorf("%w: %w", ErrNoAddr, err)
	}
	return m, nil
}

// TCPAddrPort takes an address that begins with an IP address and a TCP port, and
// what follows. rest is empty for plain TCP, and /ws for a WebSocket.
func TCPAddrPort(a ma.Multiaddr) (ap netip.AddrPort, rest ma.Multiaddr, ok bool) {
	return addrPort(a, ma.P_TCP)
}

// UDPAddrPort takes an address that begins with an IP address and a UDP port, and
// what follows, such as /quic-v1.
func UDPAddrPort(a ma.Multiaddr) (ap netip.AddrPort, rest ma.Multiaddr, ok bool) {
	return addrPort(a, ma.P_UDP)
}

func addrPort(a ma.Multiaddr, proto int) (netip.AddrPort, ma.Multiaddr, bool) {
	ip, rest, ok := IP(a)
	if !ok || len(rest) == 0 || rest[0].Code() != proto {
		return netip.AddrPort{}, nil, false
	}
	port := binary.BigEndian.Uint16(rest[0].RawValue())
	return netip.AddrPortFrom(ip, port), rest[1:], true
}

// IP takes an address that begins with an IP address, and what follows.
func IP(a ma.Multiaddr) (ip netip.Addr, rest ma.Multiaddr, ok bool) {
	zone := ""
	if len(a) > 1 && a[0].Code() == ma.P_IP6ZONE {
		if a[1].Code() != ma.P_IP6 {
			return netip.Addr{}, nil, false
		}
		zone, a = a[0].Value(), a[1:]
	}
	if len(a) == 0 || a[0].Code() != ma.P_IP4 && a[0].Code() != ma.P_IP6 {
		return netip.Addr{}, nil, false
	}
	ip, ok = netip.AddrFromSlice(a[0].RawValue())
	if !ok {
		return netip.Addr{}, nil, false
	}
	if ip = ip.Unmap(); zone != "" {
		if ip.Is4() {
			return netip.Addr{}, nil, false
		}
		ip = ip.WithZone(zone)
	}
	return ip, a[1:], true
}

// Expand returns the addresses under which others may reach a listener: for
// /ip4/0.0.0.0 or /ip6/::, one for each of ifaces, the machine's own addresses, in
// that order. Other addresses are returned as they are.
//
// /ip6/:: means IPv6 alone, as [Network.ListenTCP] does. Link-local addresses are
// left out: they mean nothing without the zone, which differs at each end.
func Expand(addr ma.Multiaddr, ifaces []netip.Addr) []ma.Multiaddr {
	ip, rest, ok := IP(addr)
	if !ok || !ip.IsUnspecified() {
		return []ma.Multiaddr{addr}
	}
	var all []ma.Multiaddr
	for _, i := range ifaces {
		i = i.Unmap()
		if i.Is4() != ip.Is4() || i.IsUnspecified() || i.IsLinkLocalUnicast() || i.IsMulticast() {
			continue
		}
		m, err := FromIP(i)
		if err != nil {
			continue
		}
		all = append(all, append(m, rest...))
	}
	return all
}
