// Package peerauth lets an HTTP client and an HTTP server prove their peer IDs to
// each other, by the authentication scheme libp2p-PeerID.
//
// A client needs an [http.Client] whose Transport is a [Transport]; a server wraps
// its handlers by [Server.Handler]:
//
//	c := http.Client{Transport: &peerauth.Transport{Key: key}}
//	resp, err := c.Get("https://example.com/private")
//	server, ok := peerauth.ServerID(resp)
//
//	s := peerauth.Server{Key: key, Hostnames: []string{"example.com"}}
//	http.Handle("/private", s.Handler(private)) // which asks ClientID(r.Context())
//
// The files in the order in which things happen:
//
//	transport.go  the client: which request goes out with what
//	wire.go       the header, and what is signed
//	server.go     the server: what it answers
//	token.go      what the server remembers, by giving it to the client
//
// Each end signs the other's challenge together with the hostname, so that a server
// cannot pass on what it gets to another one. That the name is the server's is for TLS to prove:
// nothing is done without, unless Insecure says otherwise.
//
// Spec: https://github.com/libp2p/specs/blob/master/http/peer-id-auth.md
//
// # Limits
//
// A header has 2048 bytes at most. RSA keys of 2048 bits fit into it, and one of 4096
// with a short one at the other end; two of 4096 do not.
// The server remembers nothing, so an answer to a challenge can be used again, by
// who sees it within TLS, until the challenge expires.
//
// The hostname is the name of the server without a port, as in TLS. go-libp2p signs
// the port too if the URL has one, so the two understand each other on port 443 alone.
//
// The first transcript in the spec was made before the client signed the server's key. Its
// signature is refused here, as it is by go-libp2p.
package peerauth

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"

	"github.com/plexus-p2p/plexus/peer"
)

// Scheme is the name of the authentication scheme.
const Scheme = "libp2p-PeerID"

// EndpointProtocol is the ID of the protocol that does nothing but authenticate. It
// is served by [Server.Handler] of nil.
const EndpointProtocol = "/http-peer-id-auth/1.0.0"

// MaxHeader is how many bytes a header of the scheme may have.
//
// "The suggested Maximum length of the Authentication related header should is 2048 bytes."
// https://github.com/libp2p/specs/blob/master/http/peer-id-auth.md#considerations-for-implementations
const MaxHeader = 2048

var (
	// ErrHeader means that a header is malformed, or lacks what it has to have.
	ErrHeader = errors.New("peerauth: malformed header")

	// ErrTooLong means that a header would have more than [MaxHeader] bytes.
	ErrTooLong = errors.New("peerauth: header too long")

	// ErrSignature means that the other end has not proved that it has its key.
	ErrSignature = errors.New("peerauth: wrong signature")

	// ErrForged means that a client returns what the server has not given out.
	ErrForged = errors.New("peerauth: not given out by this server")

	// ErrExpired means that a client returns what the server gave out too long ago.
	ErrExpired = errors.New("peerauth: expired")

	// ErrHostname means that a request is for another server than the one reached.
	ErrHostname = errors.New("peerauth: wrong hostname")

	// ErrInsecure means that there is no TLS.
	ErrInsecure = errors.New("peerauth: no TLS")

	// ErrNotAsked means that the server does not authenticate at this URL. The error is
	// a [StatusError].
	ErrNotAsked = errors.New("peerauth: the server does not authenticate")

	// ErrRejected means that the server does not accept who the client is.
	ErrRejected = errors.New("peerauth: rejected by the server")
)

// StatusError is what a server answers that does not authenticate: because it has no
// need to, or cannot just now. It wraps [ErrNotAsked].
type StatusError struct {
	Status int         // of HTTP
	Header http.Header // Retry-After may say when to try again
}

func (e *StatusError) Error() string {
	return fmt.Sprintf("%v: it answers %d %s", ErrNotAsked, e.Status, http.StatusText(e.Status))
}

// Unwrap returns ErrNotAsked.
func (e *StatusError) Unwrap() error { return ErrNotAsked }

// hostname is the name of the server that a URL is for, as TLS asks for it.
func hostname(u *url.URL) (string, error) {
	name := strings.TrimSuffix(u.Hostname(), ".")
	if name == "" || strings.ContainsFunc(name, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return "", fmt.Errorf("%w: %q: not an ASCII name", ErrHostname, u.Host)
	}
	return name, nil
}

// withoutPort is the name in the Host of a request.
func withoutPort(host string) string {
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	host = strings.TrimSuffix(strings.TrimPrefix(host, "["), "]")
	return strings.TrimSuffix(host, ".")
}

// publicKey reads the parameter public-key.
func publicKey(text string) (peer.PubKey, error) {
	b, err := unbase64(text)
	if err != nil {
		return peer.PubKey{}, fmt.Errorf("%w: public-key: %w", ErrHeader, err)
	}
	k, err := peer.ParsePubKey(b)
	if err != nil {
		return peer.PubKey{}, fmt.Errorf("%w: public-key: %w", ErrHeader, err)
	}
	return k, nil
}

// verify checks the parameter sig.
func verify(k peer.PubKey, msg []byte, sig string) error {
	b, err := unbase64(sig)
	if err != nil {
		return fmt.Errorf("%w: sig: %w", ErrHeader, err)
	}
	if err := k.Verify(msg, b); err != nil {
		return fmt.Errorf("%w of %v", ErrSignature, k.ID())
	}
	return nil
}
