package peerauth

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/plexus-p2p/plexus/peer"
)

// What is kept of servers, and of an answer that is not the last.
const (
	maxServers = 256 // one makes room for another
	maxCookies = 8
	maxCookie  = 4 << 10 // bytes of a name and its value
	maxDrain   = 4 << 10 // bytes of a body that are read to use the connection again
)

// Transport is an http.RoundTripper that authenticates: the server to the client, then
// the client to the server. It may be used concurrently; its fields must not change then.
//
// A request's body goes to a server that has proved who it is, and to no other. A
// server is asked at the URL of the request, without the body: so a Transport is
// for URLs that ask for authentication, and others are an [ErrNotAsked].
//
// Once authenticated, a client has a token of the server, and needs no more round trips
// while it lasts. Where the server refuses it early, a request with a body is sent again
// if it has a GetBody, as those of http.NewRequest have, and fails with [ErrRejected]
// if not. Errors are those of this package and of Base.
type Transport struct {
	// Key is the identity of the client. It is required.
	Key peer.PrivKey

	// Base sends the requests. Nil: http.DefaultTransport.
	Base http.RoundTripper

	// Allow, where set, is asked whether the server at hostname may be the peer that it is.
	// An error ends the request.
	Allow func(hostname string, server peer.ID) error

	// Insecure lets requests go to http URLs, where anybody between can see and
	// change them, and take the token. It is for tests, and for TLS by other means.
	Insecure bool

	mu      sync.Mutex
	servers map[string]server // by scheme, name and port

	now    func() time.Time // of tests
	random io.Reader
}

// server is what is known of one. The zero value is nothing.
type server struct {
	id      peer.ID
	bearer  string
	expires time.Time // zero: it did not tell

	// Servers behind one name send cookies, so that a client meets the same one
	// again: no other knows its challenge or its token.
	cookies []*http.Cookie
}

// serverKey is where responses have the peer.ID of a server: in the context of Request.
type serverKey struct{}

// ServerID is the peer that a response of a [Transport] comes from.
func ServerID(resp *http.Response) (id peer.ID, ok bool) {
	if resp.Request == nil {
		return "", false
	}
	id, ok = resp.Request.Context().Value(serverKey{}).(peer.ID)
	return id, ok
}

// RoundTrip sends a request, authenticated.
func (t *Transport) RoundTrip(req *http.Request) (*http.Response, error) {
	e := exchange{t: t, req: req}
	resp, err := e.run()
	if err != nil {
		if req.Body != nil && !e.sent {
			req.Body.Close()
		}
		return nil, err
	}
	if req.Body != nil && !e.sent {
		req.Body.Close() // the server has answered without it
	}
	resp.Request = req.WithContext(context.WithValue(req.Context(), serverKey{}, e.server.id))
	return resp, nil
}

// exchange is what becomes of one request.
type exchange struct {
	t        *Transport
	req      *http.Request
	hostname string
	at       string // in Transport.servers
	server   server
	sent     bool // the body of req
}

func (e *exchange) run() (*http.Response, error) {
	u := e.req.URL
	switch {
	case e.t.Key.IsZero():
		return nil, errors.New("peerauth: Transport.Key is empty")
	case u == nil || u.Scheme != "https" && !(u.Scheme == "http" && e.t.Insecure):
		return nil, fmt.Errorf("%w: %v", ErrInsecure, u)
	}
	var err error
	if e.hostname, err = hostname(u); err != nil {
		return nil, err
	}
	e.at = u.Scheme + "://" + strings.ToLower(u.Host)
	e.server = e.t.known(e.at)
	if e.server.bearer != "" {
		resp, err := e.withToken()
		if err != nil || resp.StatusCode != http.StatusUnauthorized {
			return resp, err
		}
		drain(resp)
		e.t.forget(e.at, e.server.bearer)
		if e.sent && e.req.GetBody == nil {
			return nil, fmt.Errorf("%w: the token; and the body of the request cannot be sent again", ErrRejected)
		}
	}
	return e.handshake()
}

// hasBody tells whether the request has one.
func (e *exchange) hasBody() bool { return e.req.Body != nil && e.req.Body != http.NoBody }

// withToken sends the request.
func (e *exchange) withToken() (*http.Response, error) {
	h, err := header(paramBearer, e.server.bearer)
	if err != nil {
		return nil, err
	}
	return e.send(h, true)
}

// send sends the request with a header, and its body or none.
func (e *exchange) send(auth string, body bool) (*http.Response, error) {
	r := e.req.Clone(e.req.Context()) // "RoundTrip should not modify the request"
	r.Header.Set(headerAnswer, auth)
	for _, c := range e.server.cookies {
		if _, err := r.Cookie(c.Name); err != nil {
			r.AddCookie(c)
		}
	}
	switch {
	case !body:
		r.Body, r.GetBody, r.ContentLength = nil, nil, 0
		r.TransferEncoding, r.Trailer = nil, nil
	case e.sent && e.hasBody():
		var err error
		if r.Body, err = e.req.GetBody(); err != nil {
			return nil, err
		}
	default:
		e.sent = true
	}
	base := e.t.Base
	if base == nil {
		base = http.DefaultTransport
	}
	resp, err := base.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	for _, c := range resp.Cookies() {
		e.keep(c)
	}
	return resp, nil
}

// keep keeps a cookie, in place of an older one with its name.
func (e *exchange) keep(c *http.Cookie) {
	// What e.server came from has the same array.
	cs := slices.DeleteFunc(slices.Clone(e.server.cookies), func(o *http.Cookie) bool { return o.Name == c.Name })
	if c.MaxAge >= 0 && len(c.Name)+len(c.Value) <= maxCookie && len(cs) < maxCookies {
		cs = append(cs, &http.Cookie{Name: c.Name, Value: c.Value})
	}
	e.server.cookies = cs
}

// handshake authenticates and sends the request.
func (e *exchange) handshake() (*http.Response, error) {
	mine := base64url(e.t.Key.Public().Bytes())
	challenge, err := e.t.challenge()
	if err != nil {
		return nil, err
	}
	h, err := header(paramChallengeServer, challenge, paramPublicKey, mine)
	if err != nil {
		return nil, err
	}
	resp, err := e.send(h, false)
	if err != nil {
		return nil, err
	}
	drain(resp)
	var (
		p     params
		found bool
	)
	if resp.StatusCode == http.StatusUnauthorized {
		p, found, err = find(resp.Header, headerAsk)
	}
	switch {
	case err != nil:
		return nil, err
	case !found:
		return nil, &StatusError{resp.StatusCode, resp.Header}
	case len(p.challengeClient) < minChallenge:
		return nil, fmt.Errorf("%w: %s of %d characters", ErrHeader, paramChallengeClient, len(p.challengeClient))
	}
	k, err := publicKey(p.publicKey)
	if err != nil {
		return nil, err
	}
	e.server.id = k.ID()
	sig, err := e.t.Key.Sign(signedByClient(p.challengeClient, k.Bytes(), e.hostname))
	if err != nil {
		return nil, err
	}
	proof := signedByServer(challenge, e.t.Key.Public().Bytes(), e.hostname)
	if p.sig != "" {
		if err := e.admit(k, proof, p.sig); err != nil {
			return nil, err
		}
		h, err := header(paramOpaque, p.opaque, paramSig, base64url(sig))
		if err != nil {
			return nil, err
		}
		return e.last(h)
	}
	// "The server MAY ignore the initial request, and respond by starting the Server
	// initiated handshake." It has not proved anything then, and does not get the body.
	if h, err = header(paramPublicKey, mine, paramChallengeServer, challenge, paramSig, base64url(sig), paramOpaque, p.opaque); err != nil {
		return nil, err
	}
	if resp, err = e.send(h, false); err != nil {
		return nil, err
	}
	if p, err = e.proved(resp, k, proof); err != nil {
		drain(resp)
		return nil, err
	}
	if !e.hasBody() {
		return resp, nil
	}
	drain(resp) // of a request that had no body
	if p.bearer == "" {
		return nil, fmt.Errorf("%w: %s is missing", ErrHeader, paramBearer)
	}
	return e.withToken()
}

// proved reads what ends a handshake that the server began.
func (e *exchange) proved(resp *http.Response, k peer.PubKey, proof []byte) (params, error) {
	if resp.StatusCode == http.StatusUnauthorized {
		return params{}, fmt.Errorf("%w: %v: %s", ErrRejected, e.req.URL.Redacted(), resp.Status)
	}
	p, found, err := find(resp.Header, headerInfo)
	if err != nil {
		return p, err
	}
	if !found || p.sig == "" {
		return p, fmt.Errorf("%w: %s is missing", ErrHeader, paramSig)
	}
	if err := e.admit(k, proof, p.sig); err != nil {
		return p, err
	}
	return p, e.learn(p)
}

// last sends the answer to a server's challenge, and the request with it.
func (e *exchange) last(auth string) (*http.Response, error) {
	resp, err := e.send(auth, true)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode == http.StatusUnauthorized {
		drain(resp)
		return nil, fmt.Errorf("%w: %v: %s", ErrRejected, e.req.URL.Redacted(), resp.Status)
	}
	p, _, err := find(resp.Header, headerInfo)
	if err == nil {
		err = e.learn(p)
	}
	if err != nil {
		drain(resp)
		return nil, err
	}
	return resp, nil
}

// admit checks that the server has its key, and asks whether it may be here.
func (e *exchange) admit(k peer.PubKey, proof []byte, sig string) error {
	if err := verify(k, proof, sig); err != nil {
		return err
	}
	if e.t.Allow != nil {
		return e.t.Allow(e.hostname, k.ID())
	}
	return nil
}

// learn keeps a token. A server that gives none is asked again each time.
func (e *exchange) learn(p params) error {
	if p.bearer == "" {
		return nil
	}
	e.server.bearer, e.server.expires = p.bearer, time.Time{}
	if p.expires != "" {
		var err error
		if e.server.expires, err = time.Parse(time.RFC3339, p.expires); err != nil {
			return fmt.Errorf("%w: %s: %w", ErrHeader, paramExpires, err)
		}
	}
	e.t.remember(e.at, e.server)
	return nil
}

// find looks for the scheme in the headers of a name.
func find(h http.Header, name string) (p params, found bool, err error) {
	for _, v := range h.Values(name) {
		if p, found, err = parse(v); found || err != nil {
			return p, found, err
		}
	}
	return params{}, false, nil
}

func drain(resp *http.Response) {
	io.CopyN(io.Discard, resp.Body, maxDrain)
	resp.Body.Close()
}

func (t *Transport) challenge() (string, error) {
	var nonce [24]byte // 32 characters, as the AutoTLS spec has it
	r := t.random
	if r == nil {
		r = rand.Reader
	}
	_, err := io.ReadFull(r, nonce[:])
	return base64url(nonce[:]), err
}

func (t *Transport) time() time.Time {
	if t.now != nil {
		return t.now()
	}
	return time.Now()
}

// known is what there is of a server, without a token that has expired.
func (t *Transport) known(at string) server {
	t.mu.Lock()
	defer t.mu.Unlock()
	s := t.servers[at]
	// "The expires field is only advisory": the server has the last word.
	if !s.expires.IsZero() && !t.time().Before(s.expires) {
		delete(t.servers, at)
		s = server{cookies: s.cookies}
	}
	return s
}

func (t *Transport) remember(at string, s server) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.servers == nil {
		t.servers = make(map[string]server)
	}
	if _, ok := t.servers[at]; !ok && len(t.servers) >= maxServers {
		for other := range t.servers {
			delete(t.servers, other)
			break
		}
	}
	t.servers[at] = s
}

// forget forgets a token, unless there is a newer one.
func (t *Transport) forget(at, bearer string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.servers[at].bearer == bearer {
		delete(t.servers, at)
	}
}
