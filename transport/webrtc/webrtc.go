// Package webrtc connects hosts over WebRTC: UDP with ICE, DTLS, SCTP, and data
// channels as streams. Browsers have it, and dial without a certificate that
// anybody signed.
//
// WebRTC-direct is for servers that are reachable. An address has the hash of the
// server's certificate: /ip4/1.2.3.4/udp/4001/webrtc-direct/certhash/uEi…
// There is no signalling. The client says in its first packet what the server has to
// know, and that needs no memory there. Versions 1 and 2 of it are served; a host
// dials by version 1, which all servers have, unless it is told otherwise.
//
// Hosts that are not reachable, such as browsers, use transport/webrtc/private.
//
//	webrtc.go   Transport, addresses
//	direct.go   one UDP port: STUN, and who is behind which packet
//	stun.go     what STUN says
//
// DTLS, data channels and streams are those of transport/internal/rtc.
//
// The certificate is derived from the host's key, so that addresses last.
//
// # Limits
//
// SCTP has one window for all streams of a connection. Towards a peer that reads slowly
// on some, we keep them from filling it. A peer that is not like us may fill ours
// with a stream that nobody reads here, and then its others wait.
//
// A client dials from a port of its own: DTLS cannot tell two connections between the
// same addresses apart. For the same reason one that comes back from the same
// address and port is taken in when its old connection has been silent for 30 seconds.
//
// A server's first message comes four milliseconds after the association, for a client
// that has to open its channel before. One that takes longer, as rust-libp2p under load
// may, does not connect. rust-libp2p cannot read what comes behind a FIN_ACK, which the
// spec demands.
//
// A host in a private network does not have this transport: a browser has no key.
//
// Spec: https://github.com/libp2p/specs/blob/master/webrtc/README.md and
// https://github.com/libp2p/specs/blob/master/webrtc/webrtc-direct.md
package webrtc

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net/netip"
	"sync"

	ma "github.com/multiformats/go-multiaddr"

	"github.com/plexus-p2p/plexus/internal/addrport"
	"github.com/plexus-p2p/plexus/peer"
	"github.com/plexus-p2p/plexus/transport"
	"github.com/plexus-p2p/plexus/transport/internal/certhash"
	"github.com/plexus-p2p/plexus/transport/internal/rtc"
	"github.com/plexus-p2p/plexus/transport/internal/sctp"
	"github.com/plexus-p2p/plexus/transport/udp"
)

// Why a dial fails, beside security.MismatchError and the end of its context.
var (
	ErrCertHash   = rtc.ErrCertHash // the certificate has another hash than the address
	ErrNoCertHash = errors.New("webrtc: the address has no hash of a certificate")
)

// ErrSilent means that a peer did not answer for 30 seconds. It is found in a
// muxer.SessionError.
var ErrSilent = sctp.ErrSilent

// Transport is the WebRTC-direct transport of one host. Its fields are set before the
// first use.
type Transport struct {
	Key     peer.PrivKey      // who we are; it must be set
	Network transport.Network // where sockets are opened; nil: that of Ports, or transport.System
	Ports   *udp.Ports        // to listen on, shared with other transports; nil: ports of its own
	Version int               // of WebRTC-direct to dial by; 0: 1

	once    sync.Once
	network transport.Network
	ports   *udp.Ports
	cert    *tls.Certificate
	hash    *ma.Component
	err     error

	mu    sync.Mutex
	muxes map[netip.AddrPort]*mux
}

var _ transport.Sessions = (*Transport)(nil)

func (t *Transport) init() error {
	t.once.Do(func() {
		if t.network = t.Network; t.network == nil && t.Ports != nil {
			t.network = t.Ports.Network
		}
		if t.network == nil {
			t.network = transport.System{}
		}
		if t.ports = t.Ports; t.ports == nil {
			t.ports = &udp.Ports{Network: t.network}
		}
		t.muxes = make(map[netip.AddrPort]*mux)
		if t.cert, t.err = rtc.NewCertificate(t.Key); t.err == nil {
			t.hash, t.err = certhash.Component(certhash.Of(t.cert.Certificate[0]))
		}
	})
	return t.err
}

// Match accepts an IP address, a UDP port and webrtc-direct, with or without one certhash.
func (t *Transport) Match(a ma.Multiaddr) bool {
	_, _, ok := parseAddr(a)
	return ok
}

func parseAddr(a ma.Multiaddr) (at netip.AddrPort, hash *ma.Component, ok bool) {
	at, rest, ok := transport.UDPAddrPort(a)
	if !ok || len(rest) == 0 || rest[0].Code() != ma.P_WEBRTC_DIRECT || len(rest) > 2 {
		return at, nil, false
	}
	if len(rest) == 2 {
		if rest[1].Code() != ma.P_CERTHASH {
			return at, nil, false
		}
		hash = &rest[1]
	}
	return at, hash, true
}

// addr is an end of a connection, or of a listener.
type addr struct {
	at   netip.AddrPort
	hash *ma.Component // of a server, where it is known
}

func (a addr) Network() string { return "webrtc-direct" }
func (a addr) String() string  { return a.at.String() }

// Multiaddr returns /ip4/…/udp/…/webrtc-direct, and the certhash where it is known.
func (a addr) Multiaddr() ma.Multiaddr {
	m, err := transport.FromUDP(a.at)
	if err != nil {
		return nil
	}
	m = m.Encapsulate(webrtcDirect)
	if a.hash != nil {
		m = append(m, *a.hash)
	}
	return m
}

var webrtcDirect = ma.StringCast("/webrtc-direct")

// DialSession connects, from a new port. It gives up when ctx ends. Somebody else than
// want is a security.MismatchError.
func (t *Transport) DialSession(ctx context.Context, to ma.Multiaddr, want peer.ID) (transport.Session, error) {
	remote, hash, ok := parseAddr(to)
	if !ok {
		return nil, fmt.Errorf("webrtc: dial: not a WebRTC-direct address: %v", to)
	}
	if hash == nil {
		return nil, fmt.Errorf("%w: %v", ErrNoCertHash, to)
	}
	if err := t.init(); err != nil {
		return nil, err
	}
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	c, err := t.dial(ctx, remote)
	if err != nil {
		return nil, err
	}
	sec, err := rtc.Secure(ctx, c, true, t.cert, hash.RawValue())
	if err != nil {
		return nil, err
	}
	s := rtc.NewSession(sec, true, addr{addrport.Of(c.LocalAddr()), nil}, addr{remote, hash})
	if err := s.Authenticate(ctx, t.Key, want); err != nil {
		s.Drop()
		return nil, err
	}
	return s, nil
}

// ListenSession accepts connections. Port 0 lets the system choose one.
func (t *Transport) ListenSession(ctx context.Context, on ma.Multiaddr) (transport.SessionListener, error) {
	local, hash, ok := parseAddr(on)
	if !ok {
		return nil, fmt.Errorf("webrtc: listen: not a WebRTC-direct address: %v", on)
	}
	if err := t.init(); err != nil {
		return nil, err
	}
	if hash != nil && !hash.Equal(t.hash) {
		return nil, fmt.Errorf("webrtc: listen: %w: %v", ErrCertHash, on)
	}
	return t.listen(ctx, local)
}
