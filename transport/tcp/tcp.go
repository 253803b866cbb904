// Package tcp connects hosts over TCP.
//
// Addresses are /ip4/1.2.3.4/tcp/4001, /ip6/…/tcp/4001 and
// /ip6zone/eth0/ip6/fe80::1/tcp/4001, and nothing follows. Names are resolved before.
//
// A host dials from the port that it listens on where it can. Then the address
// under which others see it is the one where they reach it, and both ends of a
// connection can open it at once, through their NATs.
//
// Spec: https://github.com/libp2p/specs/blob/master/connections/README.md
package tcp

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"sync"

	ma "github.com/multiformats/go-multiaddr"

	"github.com/plexus-p2p/plexus/transport"
)

// Transport is the TCP transport of one host. The zero value works. On
// [transport.System] its connections are *net.TCPConn, but for those accepted on a port that
// [Transport.ListenKind] shares.
type Transport struct {
	Network     transport.Network // where connections are made; nil: transport.System
	PrivatePort bool              // dial from a port of its own, not from a listener's; false: share where possible

	mu    sync.Mutex
	ports []*shared // open ones, oldest first
}

var (
	_ transport.Pipes   = (*Transport)(nil)
	_ transport.Watcher = (*Transport)(nil)
)

// Match accepts an IP address and a TCP port.
func (t *Transport) Match(a ma.Multiaddr) bool {
	_, rest, ok := transport.TCPAddrPort(a)
	return ok && len(rest) == 0
}

// Dial connects.
func (t *Transport) Dial(ctx context.Context, to ma.Multiaddr) (net.Conn, error) {
	remote, rest, ok := transport.TCPAddrPort(to)
	if !ok || len(rest) > 0 {
		return nil, fmt.Errorf("tcp: dial: not a TCP address: %v", to)
	}
	return t.network().DialTCP(ctx, t.local(remote.Addr()), remote)
}

// Listen accepts connections. Port 0 lets the system choose one. A port that
// [Transport.ListenKind] has for others is shared with them.
func (t *Transport) Listen(ctx context.Context, on ma.Multiaddr) (net.Listener, error) {
	return t.ListenKind(ctx, on, Plain)
}

func (t *Transport) network() transport.Network {
	if t.Network != nil {
		return t.Network
	}
	return transport.System{}
}

// Watches implements [transport.Watcher]: the network's system watches all connections.
func (t *Transport) Watches() bool { return transport.Watches(t.network()) }

// local returns the address to dial to from: a listener's port, on whatever
// interface leads there. A listener on loopback is of no use for the rest of the
// world, nor the other way round.
func (t *Transport) local(to netip.Addr) netip.AddrPort {
	if t.PrivatePort {
		return netip.AddrPort{}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, p := range t.ports {
		at := p.at.Addr()
		if at.Is4() != to.Is4() || !at.IsUnspecified() && at.IsLoopback() != to.IsLoopback() {
			continue
		}
		from := netip.IPv4Unspecified()
		if to.Is6() {
			from = netip.IPv6Unspecified()
		}
		return netip.AddrPortFrom(from, p.at.Port())
	}
	return netip.AddrPort{}
}
