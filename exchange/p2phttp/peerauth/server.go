package peerauth

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/plexus-p2p/plexus/peer"
)

// The defaults of [Server].
const (
	DefaultChallengeTTL = 5 * time.Minute // as in go-libp2p
	DefaultTokenTTL     = time.Hour
)

// Server authenticates itself to clients, and clients to handlers. Its fields must
// not change once it serves. All methods may be called concurrently.
type Server struct {
	// Key is the identity of the server. It is required.
	Key peer.PrivKey

	// Hostnames are the names under which clients know the server; at least one is
	// required. A server that answered to any name would sign for one in between.
	Hostnames []string

	// Insecure serves requests without TLS, as they come from a proxy that ends it.
	// The hostname is that of the Host header then.
	Insecure bool

	// Secret authenticates what the server gives clients to keep. Servers that answer
	// for each other need the same, of 32 random bytes. Nil: one of its own, so that
	// clients authenticate again after a restart.
	Secret []byte

	// ChallengeTTL is how long a client may take to answer. 0: DefaultChallengeTTL.
	ChallengeTTL time.Duration

	// TokenTTL is how long a client need not authenticate again. 0: DefaultTokenTTL.
	TokenTTL time.Duration

	// Logger hears, at Debug, why a request was refused. Nil: nobody does.
	Logger *slog.Logger

	once   sync.Once
	secret []byte
	now    func() time.Time // of tests
	random io.Reader
}

// clientKey is where requests have their peer.ID.
type clientKey struct{}

// ClientID is the peer that a request comes from, given the context of one that
// [Server.Handler] let through.
func ClientID(ctx context.Context) (id peer.ID, ok bool) {
	id, ok = ctx.Value(clientKey{}).(peer.ID)
	return id, ok
}

// Handler lets requests of authenticated clients through to next, which learns by
// [ClientID] who they are, and may refuse them. Others are answered with status
// 401 and a challenge; 400 or 431 if they are malformed; 421 if they are for another
// server. A nil next answers 200 with nothing: see [EndpointProtocol].
//
// It panics if s has no Key or no Hostnames.
func (s *Server) Handler(next http.Handler) http.Handler {
	if s.Key.IsZero() || len(s.Hostnames) == 0 {
		panic("peerauth: Server.Key and Server.Hostnames are required")
	}
	s.once.Do(s.init)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		a, err := s.authenticate(r)
		if err != nil && s.Logger != nil {
			s.Logger.Debug("peerauth: request refused", "remote", r.RemoteAddr, "host", r.Host, "err", err)
		}
		if a.ask != "" {
			w.Header().Set(headerAsk, a.ask)
		}
		if a.info != "" {
			w.Header().Set(headerInfo, a.info)
		}
		switch {
		case a.status != http.StatusOK:
			text := http.StatusText(a.status)
			if err != nil {
				text = err.Error()
			}
			http.Error(w, text, a.status)
		case next != nil:
			next.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), clientKey{}, a.client)))
		}
	})
}

func (s *Server) init() {
	if s.random == nil {
		s.random = rand.Reader
	}
	if s.now == nil {
		s.now = func() time.Time { return time.Now().UTC() } // tokens need not tell where the server is
	}
	if s.secret = s.Secret; s.secret == nil {
		s.secret = make([]byte, 32)
		rand.Read(s.secret)
	}
}

// answer is what becomes of a request.
type answer struct {
	status    int // 200: next serves it
	client    peer.ID
	ask, info string // headers
}

// authenticate finds out who a request is from. The error is why that is unknown,
// where the client has tried.
func (s *Server) authenticate(r *http.Request) (answer, error) {
	name, status, err := s.hostname(r)
	if err != nil {
		return answer{status: status}, err
	}
	auth := r.Header.Values(headerAnswer)
	if len(auth) > 1 {
		return answer{status: http.StatusBadRequest}, fmt.Errorf("%w: %s comes twice", ErrHeader, headerAnswer)
	}
	a, err := s.answer(strings.Join(auth, ""), name)
	switch {
	case err == nil:
		return a, nil
	case errors.Is(err, ErrTooLong):
		return answer{status: http.StatusRequestHeaderFieldsTooLarge}, err
	case errors.Is(err, ErrHeader):
		return answer{status: http.StatusBadRequest}, err
	}
	// "The server MUST return 401 Unauthorized if the server fails to validate the
	// signature." It comes with a new challenge, so that clients can try again.
	a, again := s.challenge(name)
	return a, errors.Join(err, again)
}

// hostname is the server that the client wants to reach. The status is for the error.
//
// "The server SHOULD verify the signature using the server name used in the TLS
// session."
// https://github.com/libp2p/specs/blob/master/http/peer-id-auth.md#server-initiated-handshake
func (s *Server) hostname(r *http.Request) (string, int, error) {
	host := withoutPort(r.Host)
	name := host
	switch {
	case r.TLS != nil && !s.Insecure:
		name = r.TLS.ServerName
		if !strings.EqualFold(host, name) {
			return "", http.StatusMisdirectedRequest, fmt.Errorf("%w: TLS is with %q, the request to %q", ErrHostname, name, host)
		}
	case !s.Insecure:
		return "", http.StatusBadRequest, ErrInsecure
	}
	if !slices.ContainsFunc(s.Hostnames, func(h string) bool { return strings.EqualFold(h, name) }) {
		return "", http.StatusMisdirectedRequest, fmt.Errorf("%w: %q is not here", ErrHostname, name)
	}
	return name, 0, nil
}

// answer takes one step of a handshake.
func (s *Server) answer(auth, hostname string) (answer, error) {
	p, found, err := parse(auth)
	switch {
	case err != nil:
		return answer{}, err
	case !found:
		return s.challenge(hostname)
	case p.sig != "" && p.opaque != "":
		return s.verify(&p, hostname)
	case p.bearer != "":
		return s.recognize(p.bearer, hostname)
	case p.challengeServer != "" && p.publicKey != "":
		return s.prove(&p, hostname)
	}
	return answer{}, fmt.Errorf("%w: parameters are missing", ErrHeader)
}

// challenge begins a handshake.
func (s *Server) challenge(hostname string) (answer, error) {
	return s.ask(state{Hostname: hostname}, "")
}

// prove answers the challenge of a client that begins.
func (s *Server) prove(p *params, hostname string) (answer, error) {
	k, err := publicKey(p.publicKey)
	if err != nil {
		return answer{}, err
	}
	sig, err := s.sign(p.challengeServer, k, hostname)
	if err != nil {
		return answer{}, err
	}
	return s.ask(state{ClientKey: k.Bytes(), Hostname: hostname}, sig)
}

func (s *Server) ask(st state, sig string) (answer, error) {
	var nonce [32]byte
	if _, err := io.ReadFull(s.random, nonce[:]); err != nil {
		return answer{}, err
	}
	st.Challenge, st.Created = base64url(nonce[:]), s.now()
	opaque, err := st.seal(s.secret)
	if err != nil {
		return answer{}, err
	}
	h, err := header(
		paramChallengeClient, st.Challenge,
		paramPublicKey, base64url(s.Key.Public().Bytes()),
		paramSig, sig,
		paramOpaque, opaque,
	)
	return answer{status: http.StatusUnauthorized, ask: h}, err
}

func (s *Server) sign(challenge string, client peer.PubKey, hostname string) (string, error) {
	if len(challenge) < minChallenge {
		return "", fmt.Errorf("%w: %s of %d characters", ErrHeader, paramChallengeServer, len(challenge))
	}
	sig, err := s.Key.Sign(signedByServer(challenge, client.Bytes(), hostname))
	return base64url(sig), err
}

// verify ends a handshake.
func (s *Server) verify(p *params, hostname string) (answer, error) {
	st, err := s.open(p.opaque, hostname, false)
	if err != nil {
		return answer{}, err
	}
	var (
		client peer.PubKey
		sig    string
		began  = st.ClientKey != nil // the client did, and has our signature
	)
	if began {
		client, err = peer.ParsePubKey(st.ClientKey)
	} else if p.publicKey == "" || p.challengeServer == "" {
		return answer{}, fmt.Errorf("%w: %s and %s are missing", ErrHeader, paramPublicKey, paramChallengeServer)
	} else {
		client, err = publicKey(p.publicKey)
	}
	if err != nil {
		return answer{}, err
	}
	if err := verify(client, signedByClient(st.Challenge, s.Key.Public().Bytes(), hostname), p.sig); err != nil {
		return answer{}, err
	}
	if !began {
		if sig, err = s.sign(p.challengeServer, client, hostname); err != nil {
			return answer{}, err
		}
	}
	now := s.now()
	bearer, err := state{IsToken: true, Peer: client.ID(), Hostname: hostname, Created: now}.seal(s.secret)
	if err != nil {
		return answer{}, err
	}
	h, err := header(paramSig, sig, paramBearer, bearer, paramExpires, now.Add(s.tokenTTL()).Format(time.RFC3339))
	return answer{status: http.StatusOK, client: client.ID(), info: h}, err
}

// recognize lets a client in that was here before.
func (s *Server) recognize(bearer, hostname string) (answer, error) {
	st, err := s.open(bearer, hostname, true)
	if err != nil {
		return answer{}, err
	}
	return answer{status: http.StatusOK, client: st.Peer}, nil
}

// open reads a token, or a challenge.
func (s *Server) open(text, hostname string, token bool) (state, error) {
	ttl := s.tokenTTL()
	if !token {
		ttl = s.ChallengeTTL
		if ttl == 0 {
			ttl = DefaultChallengeTTL
		}
	}
	st, err := open(text, s.secret, s.now(), ttl)
	switch {
	case err != nil:
		return state{}, err
	case st.IsToken != token:
		return state{}, fmt.Errorf("%w: a token for a challenge, or the reverse", ErrForged)
	case st.Hostname != hostname:
		return state{}, fmt.Errorf("%w: given out at %q", ErrHostname, st.Hostname)
	}
	return st, nil
}

func (s *Server) tokenTTL() time.Duration {
	if s.TokenTTL == 0 {
		return DefaultTokenTTL
	}
	return s.TokenTTL
}
