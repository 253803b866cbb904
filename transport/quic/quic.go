// Package quic connects hosts over QUIC version 1, which brings encryption and
// streams of its own.
//
// Addresses are /ip4/1.2.3.4/udp/4001/quic-v1, the same with /ip6 and /ip6zone, and
// nothing follows. Names are resolved before.
//
// A host dials from the port that it listens on. Then the address under which
// others see it is the one where they reach it, and two hosts behind NATs can
// meet. Other transports join the port by [Transport.Ports].
//
// # Limits
//
// There is no session resumption and no 0-RTT. In a resumed session nobody proves a key,
// only that he was there before:
//
//	"As the server is authenticating via a PSK, it does not send a Certificate or
//	a CertificateVerify message." (RFC 8446, section 2.2)
//
// Nor may a certificate be asked for later: "A server MUST NOT use post-handshake client
// authentication" (RFC 9001, section 4.4), while libp2p's servers "MUST require clients
// authentication during the TLS handshake". Resumption would save 39 % of a handshake's
// CPU time and no round trip, and no other stack offers it. 0-RTT would save one, but
// anybody can replay it: "There are no guarantees of non-replay between connections"
// (RFC 8446, section 2.3). The first answer comes after two round trips: one for the
// handshake, one for the request.
//
// The peer learns of a stream with the first bytes, or the end, that its opener
// writes. An opener that reads first waits for a peer that knows of nothing.
// Multistream-select always writes first.
//
// When a connection ends, quic-go drops what it has received and its program has not
// read yet. So Session.Close waits for the peer's end of those streams that we have
// ended with CloseWrite, at most until its context ends. What was written to others a
// moment ago and is not answered has at least 65 ms and two and a half round trips
// to arrive and be read.
//
// A session follows the peer that dialed it through two changes of the peer's address.
// After that quic-go v0.64 has no connection IDs left (its issue 5814), and the session ends
// when the peer is silent for too long. v0.65 mends that, but go-libp2p v0.51 does not
// compile beside it, and no program could have both.
//
// A peer that was killed and runs again tells that it knows the session no more when it gets
// a packet of more than 42 bytes. Signs of life are shorter.
//
// Sessions use the socket of their listener. When that is closed, the host can listen on
// the port again at once, other processes when the last session has ended.
//
// An answer by ICMP that a port is closed does not come through to sockets that are
// not connected, so that dialing such a port takes as long as dialing nobody.
//
// Spec: https://github.com/libp2p/specs/blob/master/quic/README.md
package quic

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"sync"

	ma "github.com/multiformats/go-multiaddr"
	"github.com/quic-go/quic-go"

	"github.com/plexus-p2p/plexus/internal/addrport"
	"github.com/plexus-p2p/plexus/peer"
	"github.com/plexus-p2p/plexus/security/pnet"
	"github.com/plexus-p2p/plexus/security/tls"
	"github.com/plexus-p2p/plexus/transport"
	"github.com/plexus-p2p/plexus/transport/internal/quicmux"
	"github.com/plexus-p2p/plexus/transport/internal/quicport"
	"github.com/plexus-p2p/plexus/transport/udp"
)

// alpn is what is negotiated in the handshake.
//
// "Endpoints MUST use ALPN […] libp2p". https://github.com/libp2p/specs/blob/master/tls/tls.md#alpn
const alpn = "libp2p"

// Transport is the QUIC transport of one host. Its fields are set before the first use.
type Transport struct {
	Key     peer.PrivKey      // who we are; it must be set
	Network transport.Network // where sockets are opened; nil: transport.System
	Ports   *udp.Ports        // shared with other transports, instead of Network; nil: ports of its own
	Private pnet.Key          // of the private network that all peers have to be in; zero: none

	once  sync.Once
	ports *udp.Ports
	id    *tls.Identity
	err   error
}

var _ transport.Sessions = (*Transport)(nil)

func (t *Transport) init() error {
	t.once.Do(func() {
		if t.ports = t.Ports; t.ports == nil {
			t.ports = &udp.Ports{Network: t.Network}
		}
		if t.Private == (pnet.Key{}) {
			t.id, t.err = tls.NewIdentity(t.Key)
		} else {
			t.id, t.err = tls.NewMember(t.Key, t.Private)
		}
	})
	return t.err
}

// PrivateNetwork is the key of the network that the transport does not leave, or zero.
func (t *Transport) PrivateNetwork() pnet.Key { return t.Private }

// Match accepts an IP address, a UDP port and quic-v1.
func (t *Transport) Match(a ma.Multiaddr) bool {
	_, ok := addrPort(a)
	return ok
}

func addrPort(a ma.Multiaddr) (netip.AddrPort, bool) {
	at, rest, ok := transport.UDPAddrPort(a)
	return at, ok && len(rest) == 1 && rest[0].Code() == ma.P_QUIC_V1
}

// DialSession connects, from a port that the host listens on if there is one. It
// gives up when ctx ends, and after 5 seconds of silence, which is a
// context.DeadlineExceeded. Somebody else than want is a security.MismatchError.
func (t *Transport) DialSession(ctx context.Context, to ma.Multiaddr, want peer.ID) (transport.Session, error) {
	remote, ok := addrPort(to)
	if !ok {
		return nil, fmt.Errorf("quic: dial: not a QUIC address: %v", to)
	}
	if err := t.init(); err != nil {
		return nil, err
	}
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	conf := t.id.Config(want)
	conf.NextProtos = []string{alpn}
	c, err := quicport.Dial(ctx, t.ports, t.Key, remote, conf)
	if err != nil {
		return nil, err
	}
	return newSession(c)
}

// ListenSession accepts connections. Port 0 lets the system choose one.
func (t *Transport) ListenSession(ctx context.Context, on ma.Multiaddr) (transport.SessionListener, error) {
	local, ok := addrPort(on)
	if !ok {
		return nil, fmt.Errorf("quic: listen: not a QUIC address: %v", on)
	}
	if err := t.init(); err != nil {
		return nil, err
	}
	port, err := t.ports.Listen(ctx, local)
	if err != nil {
		return nil, err
	}
	defer port.Close() // the listener holds it from then on
	q, err := quicport.On(port, t.Key)
	if err != nil {
		return nil, err
	}
	l, err := q.Listen(ctx, alpn, t.id.Config(""))
	if err != nil {
		return nil, err
	}
	return &listener{l}, nil
}

type listener struct{ l *quicport.Listener }

// Accept returns the next connection.
func (l *listener) Accept() (transport.Session, error) {
	for {
		c, err := l.l.Accept()
		if err != nil {
			return nil, err
		}
		if s, err := newSession(c); err == nil {
			return s, nil
		}
	}
}

// Close frees the port, once the connections that use it have ended.
func (l *listener) Close() error { return l.l.Close() }

func (l *listener) Addr() net.Addr { return addr(l.l.Addr()) }

// addr is an end of a connection.
type addr netip.AddrPort

func (a addr) Network() string { return "quic" }
func (a addr) String() string  { return netip.AddrPort(a).String() }

// Multiaddr returns /ip4/…/udp/…/quic-v1.
func (a addr) Multiaddr() ma.Multiaddr {
	m, err := transport.FromUDP(netip.AddrPort(a))
	if err != nil {
		return nil
	}
	return m.Encapsulate(quicV1)
}

var quicV1 = ma.StringCast("/quic-v1")

// Why a session ended that nobody closed. They are found in its muxer.SessionError.
var (
	ErrSilent = quicmux.ErrSilent // the peer does not answer
	ErrLost   = quicmux.ErrLost   // the peer does not know the connection any more
)

// session is a connection, of a peer that has proved who it is.
type session struct {
	*quicmux.Session
	id  peer.ID
	key peer.PubKey
}

var (
	_ transport.Session   = (*session)(nil)
	_ transport.Datagrams = (*session)(nil)
)

func (s *session) Peer() (peer.ID, peer.PubKey) { return s.id, s.key }

// newSession makes a session of a connection, or ends it.
func newSession(c *quic.Conn) (*session, error) {
	key, err := tls.PeerKey(c.ConnectionState().TLS)
	if err != nil { // not after a handshake that checked it
		c.CloseWithError(0, "")
		return nil, fmt.Errorf("quic: no identity: %w", err)
	}
	s := quicmux.New(c, quicmux.Dialect{}, addr(addrport.Of(c.LocalAddr())), addr(addrport.Of(c.RemoteAddr())))
	return &session{s, key.ID(), key}, nil
}
