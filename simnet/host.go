package simnet

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"syscall"

	"github.com/plexus-p2p/plexus/transport"
)

// Host is a machine on a network, with a link of its own, up and down.
type Host struct {
	n         *Network
	name      string // the addresses that it was made with
	index     int
	ips       []netip.Addr
	up, down  *link
	conns     map[flow]*Conn // one may be in here no longer and still be used, to read what has come
	listeners map[netip.AddrPort]*Listener
	udp       map[netip.AddrPort]*PacketConn
	port      uint16 // the last one that was picked
}

var _ transport.Network = (*Host)(nil)

var (
	errReset   error = syscall.ECONNRESET
	errRefused error = syscall.ECONNREFUSED
)

// String returns the addresses that the host was made with.
func (h *Host) String() string { return h.name }

// SetAccess changes the host's link. Packets under way are not affected.
func (h *Host) SetAccess(up, down Link) {
	h.n.enter()
	defer h.n.leave()
	h.up.Link, h.down.Link = up, down
}

// SetAddrs gives the host other addresses, as when it moves to another network.
// Sockets that are bound to an old one stay, and reach nobody.
func (h *Host) SetAddrs(ips ...string) {
	h.n.enter()
	defer h.n.leave()
	h.setIPs(ips)
}

func (h *Host) setIPs(ips []string) {
	for _, ip := range h.ips {
		delete(h.n.owners, ip)
	}
	h.ips = nil
	for _, s := range ips {
		ip := netip.MustParseAddr(s).Unmap()
		if o := h.n.owners[ip]; o != nil || ip.IsUnspecified() || ip.IsLoopback() {
			panic(fmt.Sprintf("simnet: a host cannot have the address %v", ip))
		}
		h.n.owners[ip] = h
		h.ips = append(h.ips, ip)
	}
}

// Crash ends all sockets of the host, as when its process is killed: peers get
// resets. The host can be used again at once.
func (h *Host) Crash() {
	h.n.enter()
	defer h.n.leave()
	h.closeSockets(errReset)
}

func (h *Host) closeSockets(why error) {
	for _, c := range h.conns {
		if why == errReset {
			c.abort(why)
		} else {
			c.end(why)
		}
	}
	for _, l := range h.listeners {
		l.close()
	}
	for _, s := range h.udp {
		s.close()
	}
}

// Addrs returns the host's addresses. Loopback, that each host has, is not among them.
func (h *Host) Addrs() ([]netip.Addr, error) {
	h.n.enter()
	defer h.n.leave()
	return slices.Clone(h.ips), nil
}

// LookupNetIP answers from what [Network.SetDNS] has set.
func (h *Host) LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error) {
	keep := func(ip netip.Addr) bool {
		return network == "ip" || network == "ip4" && ip.Is4() || network == "ip6" && ip.Is6()
	}
	var all []netip.Addr
	if ip, err := netip.ParseAddr(host); err == nil {
		all = []netip.Addr{ip.Unmap()}
	} else {
		if err := h.n.lookup(ctx, host); err != nil {
			return nil, err
		}
		h.n.enter()
		all = slices.Clone(h.n.names[dnsKey(host)])
		h.n.leave()
	}
	all = slices.DeleteFunc(all, func(ip netip.Addr) bool { return !keep(ip) })
	if len(all) == 0 {
		return nil, noSuchName(host)
	}
	return all, nil
}

// LookupTXT answers from what [Network.SetTXT] has set.
func (h *Host) LookupTXT(ctx context.Context, name string) ([]string, error) {
	if err := h.n.lookup(ctx, name); err != nil {
		return nil, err
	}
	h.n.enter()
	defer h.n.leave()
	if t := h.n.texts[dnsKey(name)]; len(t) > 0 {
		return slices.Clone(t), nil
	}
	return nil, noSuchName(name)
}

// has tells whether packets to ip stay on this host.
func (h *Host) has(ip netip.Addr) bool { return ip.IsLoopback() || h.n.owners[ip] == h }

// source returns the address from which h sends to ip.
func (h *Host) source(to netip.Addr) (netip.Addr, error) {
	if h.has(to) {
		return to, nil
	}
	for _, ip := range h.ips {
		if ip.Is4() == to.Is4() {
			return ip, nil
		}
	}
	return netip.Addr{}, os.NewSyscallError("connect", syscall.ENETUNREACH)
}

// canBind tells whether a socket of h can be bound to ip.
func (h *Host) canBind(ip netip.Addr) error {
	switch {
	case !ip.IsValid():
		return &net.AddrError{Err: "no IP address"}
	case ip.IsUnspecified() || h.has(ip):
		return nil
	}
	return os.NewSyscallError("bind", syscall.EADDRNOTAVAIL)
}

// pick returns a port from the ephemeral range for which free is true.
func (h *Host) pick(free func(port uint16) bool) (uint16, error) {
	const first = 49152
	for range 1<<16 - first {
		if h.port++; h.port < first {
			h.port = first
		}
		if free(h.port) {
			return h.port, nil
		}
	}
	return 0, os.NewSyscallError("bind", syscall.EADDRINUSE)
}

// overlap tells whether two sockets bound to these addresses would get the same packets.
func overlap(a, b netip.AddrPort) bool {
	return a.Port() == b.Port() && a.Addr().Is4() == b.Addr().Is4() &&
		(a.Addr() == b.Addr() || a.Addr().IsUnspecified() || b.Addr().IsUnspecified())
}

// bind finds the address to bind to, with a port, that none of the sockets has.
func bind[S any](h *Host, on netip.AddrPort, sockets map[netip.AddrPort]*S) (netip.AddrPort, error) {
	if err := h.canBind(on.Addr()); err != nil {
		return on, err
	}
	free := func(port uint16) bool {
		at := netip.AddrPortFrom(on.Addr(), port)
		for other := range sockets {
			if overlap(at, other) {
				return false
			}
		}
		return true
	}
	if on.Port() != 0 {
		if !free(on.Port()) {
			return on, os.NewSyscallError("bind", syscall.EADDRINUSE)
		}
		return on, nil
	}
	port, err := h.pick(free)
	return netip.AddrPortFrom(on.Addr(), port), err
}

func unmap(a netip.AddrPort) netip.AddrPort {
	return netip.AddrPortFrom(a.Addr().Unmap().WithZone(""), a.Port())
}
