// Package webtransport connects hosts over WebTransport, which browsers speak: HTTP/3 by
// its ALPN, in which one CONNECT request makes a session, and streams of QUIC are its
// streams. A host listens for it on the UDP port that it has for QUIC.
//
// Addresses are /ip4/1.2.3.4/udp/4001/quic-v1/webtransport, and one /certhash or more.
// These name certificates that no authority has signed: a client, a browser too, accepts
// one that has such a hash. A listener's address has that of the certificate in use
// and that of the next one. It changes every 14 days less two hours. Certificates derive
// from the host's key, so that addresses outlive a restart.
//
// The certificate says nothing of who the peer is. A Noise handshake on the first
// stream does, and in it the server vouches for the certificates.
//
// A client sends the request and the first message of Noise at once, so that the first
// answer comes after three round trips: one for the handshake of QUIC, one for the
// request and Noise, one for the answer.
//
// Drafts 2 to 15 of WebTransport over HTTP/3 are spoken, with clients and servers: those of
// go-libp2p from v0.43, where it was tried, to v0.51, and Chromium.
//
// # Limits
//
// Without a certificate hash nobody is dialed: certificates of authorities are not used.
//
// A connection carries one session. WebTransport's own flow control, by which several
// would share it, is not offered; QUIC's is what counts. Safari wants it and opens
// no streams without.
//
// A private network is not possible: node leaves the transport out.
//
// The limits of transport/quic hold here, too.
//
// Spec: https://github.com/libp2p/specs/blob/master/webtransport/README.md
package webtransport

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"time"

	ma "github.com/multiformats/go-multiaddr"

	"github.com/plexus-p2p/plexus/peer"
	"github.com/plexus-p2p/plexus/security/noise"
	"github.com/plexus-p2p/plexus/transport"
	"github.com/plexus-p2p/plexus/transport/internal/quicport"
	"github.com/plexus-p2p/plexus/transport/udp"
)

const (
	// alpn is that of HTTP/3.
	alpn = "h3"

	// handshakeTimeout is how long a session may take from the first byte of HTTP/3 to
	// the last of Noise. go-libp2p: the same.
	handshakeTimeout = 10 * time.Second

	// handshakes is how many inbound connections may be between these two. Further
	// ones are closed.
	handshakes = 256
)

// Why sessions do not come about.
var (
	ErrNoCertHash  = errors.New("webtransport: the address has no certificate hash")
	ErrCertificate = errors.New("webtransport: the server's certificate is not good")
	ErrCertHashes  = errors.New("webtransport: the peer does not vouch for the certificates of the address")
	ErrNoSession   = errors.New("webtransport: the server does not speak it")
)

// A StatusError means that the server has turned the request for a session down.
type StatusError struct{ Status int }

func (e *StatusError) Error() string {
	return fmt.Sprintf("webtransport: the server answers with status %d", e.Status)
}

// Transport is the WebTransport of one host. Its fields are set before the first use.
type Transport struct {
	Key     peer.PrivKey      // who we are; it must be set
	Network transport.Network // where sockets are opened; nil: transport.System
	Ports   *udp.Ports        // shared with other transports, instead of Network; nil: ports of its own

	once  sync.Once
	ports *udp.Ports
	certs *certs
	noise noise.Protocol
}

var _ transport.Sessions = (*Transport)(nil)

func (t *Transport) init() {
	t.once.Do(func() {
		if t.ports = t.Ports; t.ports == nil {
			t.ports = &udp.Ports{Network: t.Network}
		}
		t.certs = newCerts(t.Key)
	})
}

// Match accepts an IP address, a UDP port, quic-v1 and webtransport, and any certificate
// hashes. Those mean nothing to listen.
func (t *Transport) Match(a ma.Multiaddr) bool {
	_, _, ok := parseAddr(a)
	return ok
}

// DialSession connects, from a port that the host listens on if there is one. It
// gives up when ctx ends, after 5 seconds of silence, and when the handshakes after
// QUIC's take 10 seconds; the latter are a context.DeadlineExceeded. Somebody else than
// want is a security.MismatchError.
func (t *Transport) DialSession(ctx context.Context, to ma.Multiaddr, want peer.ID) (transport.Session, error) {
	remote, hashes, ok := parseAddr(to)
	if !ok {
		return nil, fmt.Errorf("webtransport: dial: not a WebTransport address: %v", to)
	}
	if len(hashes) == 0 {
		return nil, fmt.Errorf("%w: %v", ErrNoCertHash, to)
	}
	t.init()
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	c, err := quicport.Dial(ctx, t.ports, t.Key, remote, &tls.Config{
		MinVersion: tls.VersionTLS13,
		NextProtos: []string{alpn},

		// What counts is the hash.
		InsecureSkipVerify: true,
		VerifyConnection: func(s tls.ConnectionState) error {
			return checkCertificate(s.PeerCertificates, hashes, time.Now())
		},
	})
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, handshakeTimeout)
	defer cancel()
	s, err := t.client(ctx, c, fixed(to), hashes, want)
	if err != nil {
		c.CloseWithError(errNo, "")
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return nil, err
	}
	return s, nil
}

// ListenSession accepts connections. Port 0 lets the system choose one. The address of
// the listener has certificate hashes. It changes with time; a func passed to its method
// OnAddrChange is called when it has.
func (t *Transport) ListenSession(ctx context.Context, on ma.Multiaddr) (transport.SessionListener, error) {
	local, _, ok := parseAddr(on)
	if !ok {
		return nil, fmt.Errorf("webtransport: listen: not a WebTransport address: %v", on)
	}
	t.init()
	if _, err := t.certs.now(); err != nil {
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
	l, err := q.ListenEarly(ctx, alpn, &tls.Config{
		MinVersion: tls.VersionTLS13,
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			c, err := t.certs.now()
			if err != nil {
				return nil, err
			}
			return &c[current].tls, nil
		},
	})
	if err != nil {
		return nil, err
	}
	return newListener(t, l), nil
}

// addr is an end of a connection.
type addr struct {
	at netip.AddrPort
	m  func() ma.Multiaddr
}

func (a addr) Network() string         { return "webtransport" }
func (a addr) String() string          { return a.at.String() }
func (a addr) Multiaddr() ma.Multiaddr { return a.m() }

// fixed is an address that does not change.
func fixed(m ma.Multiaddr) addr {
	at, _, _ := transport.UDPAddrPort(m)
	return addr{at, func() ma.Multiaddr { return m }}
}
