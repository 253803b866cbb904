package websocket

import (
	"net"
	"net/netip"
	"net/url"
	"strconv"
	"strings"

	ma "github.com/multiformats/go-multiaddr"

	"github.com/plexus-p2p/plexus/transport"
)

// address is what a multiaddr says.
type address struct {
	all    ma.Multiaddr
	at     netip.AddrPort
	secure bool
	sni    string // "" where there is none
	path   string // with a slash in front; "" where there is none
}

// parse takes an IP address, a TCP port or none, /ws, /wss, /tls/ws or
// /tls/sni/…/ws, and a path or none.
//
// "If a TCP port is omitted, a secure WebSocket (e.g. /tls/ws or /wss is assumed to
// run on TCP port 443), an insecure WebSocket is assumed to run on TCP port 80"
// https://github.com/libp2p/specs/blob/master/websockets/README.md#addressing
func parse(m ma.Multiaddr) (a address, ok bool) {
	a.all = m
	at, rest, port := transport.TCPAddrPort(m)
	if !port {
		ip, after, ok := transport.IP(m)
		if !ok {
			return a, false
		}
		at, rest = netip.AddrPortFrom(ip, 0), after
	}
	next := func(code int) (string, bool) {
		if len(rest) == 0 || rest[0].Code() != code {
			return "", false
		}
		raw := rest[0].RawValue()
		rest = rest[1:]
		return string(raw), true
	}
	if _, ok := next(ma.P_WSS); ok {
		a.secure = true
	} else {
		if _, a.secure = next(ma.P_TLS); a.secure {
			a.sni, _ = next(ma.P_SNI)
		}
		if strings.ContainsFunc(a.sni, func(r rune) bool { return r <= ' ' || r > '~' || strings.ContainsRune("/:@?#", r) }) {
			return a, false // a multiaddr may hold lines of HTTP
		}
		if _, ok := next(ma.P_WS); !ok {
			return a, false
		}
	}
	if path, ok := next(ma.P_HTTP_PATH); ok {
		a.path = "/" + path
	}
	if !port {
		at = netip.AddrPortFrom(at.Addr(), a.defaultPort())
	}
	a.at = at
	return a, len(rest) == 0
}

func (a *address) defaultPort() uint16 {
	if a.secure {
		return 443
	}
	return 80
}

// tcp is the address of the connection below.
func (a *address) tcp() (ma.Multiaddr, error) { return transport.FromTCP(a.at) }

// name is who has to answer to TLS.
func (a *address) name() string {
	if a.sni != "" {
		return a.sni
	}
	return a.at.Addr().WithZone("").String()
}

// target is what requests are for.
func (a *address) target() string {
	if a.path == "" {
		return "/"
	}
	return (&url.URL{Path: a.path}).EscapedPath()
}

// host is the Host of requests.
func (a *address) host() string {
	host := a.name()
	if a.at.Port() != a.defaultPort() {
		return net.JoinHostPort(host, strconv.Itoa(int(a.at.Port())))
	}
	if a.sni == "" && a.at.Addr().Is6() {
		return "[" + host + "]"
	}
	return host
}

// suffix is what follows the TCP port.
func (a *address) suffix() ma.Multiaddr {
	if _, rest, ok := transport.TCPAddrPort(a.all); ok {
		return rest
	}
	_, rest, _ := transport.IP(a.all)
	return rest
}

var (
	plain  = ma.StringCast("/ws")
	secure = ma.StringCast("/tls/ws")
)

// dialer is what follows the TCP port of a connection's end that dialed. Nobody
// can be reached there.
func dialer(isSecure bool) ma.Multiaddr {
	if isSecure {
		return secure
	}
	return plain
}

// netAddr is a net.Addr: that of the connection below, and what follows.
type netAddr struct {
	below net.Addr
	rest  ma.Multiaddr
}

// Network returns "websocket".
func (netAddr) Network() string { return "websocket" }

// String returns the multiaddr as text.
func (a netAddr) String() string { return a.Multiaddr().String() }

// Multiaddr is what transport.Multiaddr asks for.
func (a netAddr) Multiaddr() ma.Multiaddr {
	m, err := transport.Multiaddr(a.below)
	if err != nil {
		return nil
	}
	return m.Encapsulate(a.rest)
}
