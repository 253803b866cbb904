package autotls

import (
	"math/big"
	"net/netip"
	"slices"
	"strings"

	ma "github.com/multiformats/go-multiaddr"

	"github.com/plexus-p2p/plexus/peer"
	"github.com/plexus-p2p/plexus/transport"
)

// maxAddrs is how many addresses the broker is given to try.
const maxAddrs = 16

// Label is a peer ID as part of a DNS name: at most 63 characters, and no difference
// between upper and lower case.
//
// "The node encodes its PeerID as multibase base36 of the CIDv1 of the multihash with
// the libp2p-key (0x72) multicodec".
// https://github.com/libp2p/specs/blob/master/tls/autotls-client.md#requesting-challenge-from-acme-server
func Label(id peer.ID) string {
	// The bytes of a CIDv1 begin with 1, so that a number is all that they are.
	return "k" + new(big.Int).SetBytes([]byte("\x01\x72"+string(id))).Text(36)
}

// ipLabel is an IP address as part of a DNS name.
//
// "Replace colons with dashes, handle leading/trailing colons as zeros (2001:db8::1 →
// 2001-db8--1, 2001:db8:: → 2001-db8--0)".
// https://github.com/libp2p/specs/blob/master/tls/autotls-client.md#signalling-challenge-completion-to-acme-server
func ipLabel(ip netip.Addr) string {
	s := strings.NewReplacer(".", "-", ":", "-").Replace(ip.Unmap().WithZone("").String())
	if strings.HasPrefix(s, "-") {
		s = "0" + s
	}
	if strings.HasSuffix(s, "-") {
		s += "0"
	}
	return s
}

// Addrs replaces, in a node's addresses, those of WebSocket over TLS by such as lead to
// the certificate, for [plexus.Host.Announce]: /tls/ws, /wss and /tls/sni/*.<domain>/ws
// after a public IP address and a TCP port get the name of that IP address. While
// there is no certificate, and where the IP address is not public, they are left
// out: nobody could verify who is there. Other addresses are returned as they are.
func (c *Client) Addrs(addrs []ma.Multiaddr) []ma.Multiaddr {
	ready := c.valid() != nil
	out := make([]ma.Multiaddr, 0, len(addrs))
	for _, a := range addrs {
		at, rest, ours := c.ours(a)
		switch {
		case !ours:
			out = append(out, a)
		case ready && c.reachable(at.Addr()):
			ws := ma.StringCast("/tls/sni/" + ipLabel(at.Addr()) + "." + c.base + "/ws")
			out = append(out, slices.Concat(a[:2], ws, rest))
		}
	}
	return out
}

// ours takes an address that our certificate is for to pieces: where it is, and what
// follows /ws.
func (c *Client) ours(a ma.Multiaddr) (at netip.AddrPort, rest ma.Multiaddr, ok bool) {
	at, rest, ok = transport.TCPAddrPort(a)
	if !ok || at.Addr().Zone() != "" || relayed(a) {
		return at, nil, false
	}
	next := func(code int) (ma.Component, bool) {
		if len(rest) == 0 || rest[0].Code() != code {
			return ma.Component{}, false
		}
		comp := rest[0]
		rest = rest[1:]
		return comp, true
	}
	if _, ok := next(ma.P_WSS); ok {
		return at, rest, true
	}
	if _, ok := next(ma.P_TLS); !ok {
		return at, nil, false
	}
	if sni, ok := next(ma.P_SNI); ok && !strings.EqualFold(sni.Value(), "*."+c.cfg.Domain) {
		return at, nil, false
	}
	_, ok = next(ma.P_WS)
	return at, rest, ok
}

// dialable are the addresses that the broker can dial.
//
// "The node MUST only include only publicly reachable IP addresses in multiaddrs. IPv4
// private address ranges MUST be excluded. IPv6 private address ranges and NAT64
// translated addresses MUST be excluded. Addresses containing /p2p-circuit MUST be
// excluded."
// https://github.com/libp2p/specs/blob/master/tls/autotls-client.md#sending-challenge-to-autotls-broker
func (c *Client) dialable(addrs []ma.Multiaddr) []string {
	var out []string
	for _, a := range addrs {
		ip, rest, ok := transport.IP(a)
		if !ok || !c.reachable(ip) || relayed(a) || secureWebSocket(rest) {
			continue
		}
		if out = append(out, a.String()); len(out) == maxAddrs {
			break
		}
	}
	return out
}

func relayed(a ma.Multiaddr) bool {
	return slices.ContainsFunc(a, func(c ma.Component) bool { return c.Code() == ma.P_CIRCUIT })
}

// secureWebSocket tells whether a certificate is needed at an address.
func secureWebSocket(a ma.Multiaddr) bool {
	return slices.ContainsFunc(a, func(c ma.Component) bool { return c.Code() == ma.P_TLS || c.Code() == ma.P_WSS })
}

func (c *Client) reachable(ip netip.Addr) bool {
	return ip.IsValid() && !ip.IsUnspecified() && ip.Zone() == "" && (c.cfg.AllowPrivate || public(ip))
}

var (
	// What of IPv4 is not public: this network, private, shared, loopback, link-local,
	// protocol assignments, documentation, old relays, benchmarks, documentation
	// twice, multicast, reserved.
	special = prefixes("0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16",
		"172.16.0.0/12", "192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16", "198.18.0.0/15",
		"198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/3")

	// What of IPv6 is: global unicast, less the documentation. NAT64 is not within.
	global        = netip.MustParsePrefix("2000::/3")
	documentation = prefixes("2001:db8::/32", "3fff::/20")
)

func prefixes(list ...string) (ps []netip.Prefix) {
	for _, s := range list {
		ps = append(ps, netip.MustParsePrefix(s))
	}
	return ps
}

// public tells whether everybody can reach an IP address, as far as it tells.
// https://www.iana.org/assignments/iana-ipv4-special-registry
func public(ip netip.Addr) bool {
	ip = ip.Unmap()
	within := func(p netip.Prefix) bool { return p.Contains(ip) }
	if ip.Is4() {
		return !slices.ContainsFunc(special, within)
	}
	return global.Contains(ip) && !slices.ContainsFunc(documentation, within)
}
