package peerauth

import (
	"crypto/tls"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/plexus-p2p/plexus/peer"
)

// bad is a server that answers its nth request with the nth function, and a client.
func bad(t *testing.T, answers ...func(h http.Header) int) (*Transport, *int) {
	n := new(int)
	return &Transport{Key: newKey(t), Base: &wire{server: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		status := http.StatusTeapot
		if *n < len(answers) {
			status = answers[*n](w.Header())
		} else {
			t.Errorf("request %d: %q", *n+1, r.Header)
		}
		*n++
		w.WriteHeader(status)
	})}}, n
}

// TestBadServer: what a server may do to a client ends in a typed error, without the body.
func TestBadServer(t *testing.T) {
	key := newKey(t)
	public := base64url(key.Public().Bytes())
	challenge := strings.Repeat("c", 32)
	ask := func(pairs ...string) func(http.Header) int {
		return func(h http.Header) int {
			v, err := header(pairs...)
			if err != nil {
				panic(err)
			}
			h.Set(headerAsk, v)
			return http.StatusUnauthorized
		}
	}
	raw := func(v string) func(http.Header) int {
		return func(h http.Header) int { h.Set(headerAsk, v); return http.StatusUnauthorized }
	}
	status := func(n int) func(http.Header) int { return func(http.Header) int { return n } }
	info := func(pairs ...string) func(http.Header) int {
		return func(h http.Header) int {
			v, _ := header(pairs...)
			h.Set(headerInfo, v)
			return http.StatusOK
		}
	}
	begins := ask(paramChallengeClient, challenge, paramPublicKey, public, paramOpaque, "o")
	for _, tt := range []struct {
		name    string
		answers []func(http.Header) int
		want    error
	}{
		{"does not ask", []func(http.Header) int{status(200)}, ErrNotAsked},
		{"is broken", []func(http.Header) int{status(503)}, ErrNotAsked},
		{"asks for a password", []func(http.Header) int{raw(`Basic realm="x"`)}, ErrNotAsked},
		{"asks with another status", []func(http.Header) int{func(h http.Header) int { begins(h); return 200 }}, ErrNotAsked},
		{"long header", []func(http.Header) int{raw(Scheme + ` opaque="` + strings.Repeat("o", MaxHeader) + `"`)}, ErrTooLong},
		{"malformed header", []func(http.Header) int{raw(Scheme + ` opaque="`)}, ErrHeader},
		{"no challenge", []func(http.Header) int{ask(paramPublicKey, public, paramOpaque, "o")}, ErrHeader},
		{"short challenge", []func(http.Header) int{ask(paramChallengeClient, challenge[1:], paramPublicKey, public, paramOpaque, "o")}, ErrHeader},
		{"no key", []func(http.Header) int{ask(paramChallengeClient, challenge, paramOpaque, "o")}, ErrHeader},
		{"key that is none", []func(http.Header) int{ask(paramChallengeClient, challenge, paramPublicKey, "AAAA", paramOpaque, "o")}, ErrHeader},
		{"key that is no base64", []func(http.Header) int{ask(paramChallengeClient, challenge, paramPublicKey, "?", paramOpaque, "o")}, ErrHeader},
		{"signature that is no base64", []func(http.Header) int{ask(paramChallengeClient, challenge, paramPublicKey, public, paramOpaque, "o", paramSig, "?")}, ErrHeader},
		{"wrong signature", []func(http.Header) int{ask(paramChallengeClient, challenge, paramPublicKey, public, paramOpaque, "o", paramSig, base64url(make([]byte, 64)))}, ErrSignature},
		{"opaque that fills a header", []func(http.Header) int{ask(paramChallengeClient, challenge, paramPublicKey, public, paramOpaque, strings.Repeat("o", 1850))}, ErrTooLong},
		{"begins, then rejects", []func(http.Header) int{begins, status(401)}, ErrRejected},
		{"begins, then asks again", []func(http.Header) int{begins, begins}, ErrRejected},
		{"begins, then proves nothing", []func(http.Header) int{begins, status(200)}, ErrHeader},
		{"begins, then gives a token alone", []func(http.Header) int{begins, info(paramBearer, "b")}, ErrHeader},
		{"begins, then proves wrongly", []func(http.Header) int{begins, info(paramBearer, "b", paramSig, base64url(make([]byte, 64)))}, ErrSignature},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c, n := bad(t, tt.answers...)
			w := c.Base.(*wire)
			inner := w.server
			w.server = http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
				if b, _ := io.ReadAll(r.Body); len(b) > 0 {
					t.Error("the server has the body")
				}
				inner.ServeHTTP(rw, r)
			})
			_, _, err := do(t, c, site, "body")
			if !errors.Is(err, tt.want) {
				t.Errorf("%v, want %v", err, tt.want)
			}
			if se, ok := errors.AsType[*StatusError](err); ok != (tt.want == ErrNotAsked) || ok && se.Status == 0 {
				t.Errorf("the status is in %#v", err)
			}
			if *n != len(tt.answers) {
				t.Errorf("%d requests, want %d", *n, len(tt.answers))
			}
			if len(c.servers) != 0 {
				t.Error("the client has a token")
			}
		})
	}
}

// TestBadEnd: a server that is proved, and then answers badly.
func TestBadEnd(t *testing.T) {
	for _, tt := range []struct {
		name string
		info string
		want error
	}{
		{"no token", "", nil}, // "MUST set", but the response is there
		{"expiry that is none", Scheme + ` bearer="b", expires="tomorrow"`, ErrHeader},
		{"malformed", Scheme + ` bearer="`, ErrHeader},
		{"long token", Scheme + ` bearer="` + strings.Repeat("b", MaxHeader) + `"`, ErrTooLong},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c, _, w := pair(t)
			inner := w.server
			w.server = http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
				rec := httptest.NewRecorder()
				inner.ServeHTTP(rec, r)
				if v := rec.Header().Get(headerAsk); v != "" {
					rw.Header().Set(headerAsk, v)
				} else if tt.info != "" {
					rw.Header().Set(headerInfo, tt.info)
				}
				rw.WriteHeader(rec.Code)
			})
			_, _, err := do(t, c, site, "body")
			if !errors.Is(err, tt.want) || (err == nil) != (tt.want == nil) {
				t.Errorf("%v, want %v", err, tt.want)
			}
			if len(c.servers) != 0 {
				t.Error("the client has a token")
			}
		})
	}
}

// TestBadURL: requests that cannot be for a server.
func TestBadURL(t *testing.T) {
	c, _, w := pair(t)
	for url, want := range map[string]error{
		"https://exämple.com/": ErrHostname,
		"https://:443/":        ErrHostname,
	} {
		if _, _, err := do(t, c, url, "body"); !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", url, err, want)
		}
	}
	if _, _, err := do(t, &Transport{Base: w}, site, ""); err == nil || len(w.lines) != 0 {
		t.Errorf("without a key: %v, %q", err, w.lines)
	}
}

// TestBadClient: what clients get for what they send.
func TestBadClient(t *testing.T) {
	key, other := newKey(t), newKey(t)
	s := &Server{Key: newKey(t), Hostnames: []string{"example.com", "example.org"}}
	now := time.Now()
	s.now = func() time.Time { return now }
	h := s.Handler(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("the handler is reached") }))
	public := base64url(key.Public().Bytes())
	challenge := strings.Repeat("c", 32)
	head := func(pairs ...string) string {
		v, err := header(pairs...)
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	// begin asks for a challenge.
	begin := func(hostname string, pairs ...string) params {
		auth := ""
		if len(pairs) > 0 {
			auth = head(pairs...)
		}
		a, err := s.answer(auth, hostname)
		if err != nil {
			t.Fatal(err)
		}
		p, _, err := parse(a.ask)
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	sign := func(k peer.PrivKey, challenge, hostname string) string {
		sig, err := k.Sign(signedByClient(challenge, s.Key.Public().Bytes(), hostname))
		if err != nil {
			t.Fatal(err)
		}
		return base64url(sig)
	}
	p := begin("example.com")
	org := begin("example.org")
	mine := begin("example.com", paramPublicKey, public, paramChallengeServer, challenge)
	a, err := s.answer(head(paramOpaque, mine.opaque, paramSig, sign(key, mine.challengeClient, "example.com")), "example.com")
	if err != nil || a.client != key.ID() {
		t.Fatalf("%+v, %v", a, err)
	}
	token, _, _ := parse(a.info)
	sealed := func(st state) string {
		v, err := st.seal(s.secret)
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	flip := func(v string, i int) string {
		b, _ := unbase64(v)
		b[i] ^= 1
		return base64url(b)
	}

	for _, tt := range []struct {
		name, auth string
		status     int
		want       error
	}{
		{"nothing", "", 401, nil},
		{"a password", "Basic eDp5", 401, nil},
		{"malformed", Scheme + ` sig="`, 400, ErrHeader},
		{"long", Scheme + ` sig="` + strings.Repeat("s", MaxHeader) + `"`, 431, ErrTooLong},
		{"no parameters", Scheme, 400, ErrHeader},
		{"a challenge alone", head(paramChallengeServer, challenge), 400, ErrHeader},
		{"a key alone", head(paramPublicKey, public), 400, ErrHeader},
		{"a short challenge", head(paramPublicKey, public, paramChallengeServer, challenge[1:]), 400, ErrHeader},
		{"a key that is none", head(paramPublicKey, "AAAA", paramChallengeServer, challenge), 400, ErrHeader},

		{"another's signature", head(paramPublicKey, public, paramChallengeServer, challenge, paramOpaque, p.opaque, paramSig, sign(other, p.challengeClient, "example.com")), 401, ErrSignature},
		{"a signature for another challenge", head(paramPublicKey, public, paramChallengeServer, challenge, paramOpaque, p.opaque, paramSig, sign(key, mine.challengeClient, "example.com")), 401, ErrSignature},
		{"a signature for another name", head(paramPublicKey, public, paramChallengeServer, challenge, paramOpaque, p.opaque, paramSig, sign(key, p.challengeClient, "example.org")), 401, ErrSignature},
		{"a signature that is no base64", head(paramPublicKey, public, paramChallengeServer, challenge, paramOpaque, p.opaque, paramSig, "?"), 400, ErrHeader},
		{"a challenge for another name", head(paramPublicKey, public, paramChallengeServer, challenge, paramOpaque, org.opaque, paramSig, sign(key, org.challengeClient, "example.com")), 401, ErrHostname},
		{"no key", head(paramChallengeServer, challenge, paramOpaque, p.opaque, paramSig, sign(key, p.challengeClient, "example.com")), 400, ErrHeader},
		{"no challenge", head(paramPublicKey, public, paramOpaque, p.opaque, paramSig, sign(key, p.challengeClient, "example.com")), 400, ErrHeader},
		{"another key than it began with", head(paramPublicKey, base64url(other.Public().Bytes()), paramChallengeServer, challenge, paramOpaque, mine.opaque, paramSig, sign(other, mine.challengeClient, "example.com")), 401, ErrSignature},

		{"opaque of its own", head(paramOpaque, base64url(make([]byte, 64)), paramSig, "AAAA"), 401, ErrForged},
		{"opaque that is too short", head(paramOpaque, "AAAA", paramSig, "AAAA"), 401, ErrForged},
		{"opaque that is no base64", head(paramOpaque, "?", paramSig, "AAAA"), 401, ErrForged},
		{"opaque with another sum", head(paramOpaque, flip(mine.opaque, 0), paramSig, "AAAA"), 401, ErrForged},
		{"opaque with other contents", head(paramOpaque, flip(mine.opaque, 40), paramSig, "AAAA"), 401, ErrForged},
		{"a token as opaque", head(paramOpaque, token.bearer, paramSig, "AAAA"), 401, ErrForged},
		{"opaque as a token", head(paramBearer, mine.opaque), 401, ErrForged},
		{"a token of its own", head(paramBearer, base64url(make([]byte, 64))), 401, ErrForged},
		{"a token for another name", head(paramBearer, sealed(state{IsToken: true, Peer: key.ID(), Hostname: "example.org", Created: now})), 401, ErrHostname},
		{"an old token", head(paramBearer, sealed(state{IsToken: true, Peer: key.ID(), Hostname: "example.com", Created: now.Add(-DefaultTokenTTL - 1)})), 401, ErrExpired},
		{"a token of the future", head(paramBearer, sealed(state{IsToken: true, Peer: key.ID(), Hostname: "example.com", Created: now.Add(DefaultTokenTTL + 1)})), 401, ErrExpired},
		{"an old challenge", head(paramOpaque, sealed(state{ClientKey: key.Public().Bytes(), Challenge: challenge, Hostname: "example.com", Created: now.Add(-DefaultChallengeTTL - 1)}), paramSig, sign(key, challenge, "example.com")), 401, ErrExpired},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := httptest.NewRequest(http.MethodGet, "/", nil)
			r.Host = "example.com"
			r.TLS = &tls.ConnectionState{ServerName: "example.com"}
			if tt.auth != "" {
				r.Header.Set(headerAnswer, tt.auth)
			}
			if _, err := s.authenticate(r); !errors.Is(err, tt.want) || (err == nil) != (tt.want == nil) {
				t.Errorf("%v, want %v", err, tt.want)
			}
			w := httptest.NewRecorder()
			h.ServeHTTP(w, r)
			if w.Code != tt.status {
				t.Errorf("status %d, want %d", w.Code, tt.status)
			}
			// "401: the server sends WWW-Authenticate", so that one can go on.
			if p, ok, err := parse(w.Header().Get(headerAsk)); ok != (tt.status == 401) || err != nil || ok && p.challengeClient == "" {
				t.Errorf("%s: %+v, %v, %v", headerAsk, p, ok, err)
			}
			if v := w.Header().Get(headerInfo); v != "" {
				t.Errorf("%s: %s", headerInfo, v)
			}
		})
	}
}

// TestBadRequest: requests that are not for this server, or are ambiguous.
func TestBadRequest(t *testing.T) {
	s := &Server{Key: newKey(t), Hostnames: []string{"example.com", "example.org"}}
	h := s.Handler(nil)
	for _, tt := range []struct {
		name, host, sni string
		auth            []string
		status          int
	}{
		{"right", "example.com", "example.com", nil, 401},
		{"with port, and in another case", "Example.com:8443", "EXAMPLE.com", nil, 401},
		{"no name in TLS", "example.com", "", nil, 421},
		{"no name at all", "", "", nil, 421},
		{"two names", "example.com", "example.org", nil, 421},
		{"another server's", "example.net", "example.net", nil, 421},
		{"two headers", "example.com", "example.com", []string{Scheme + ` bearer="a"`, Scheme + ` bearer="b"`}, 400},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := httptest.NewRequest(http.MethodGet, "/", nil)
			r.Host, r.TLS = tt.host, &tls.ConnectionState{ServerName: tt.sni}
			r.Header[headerAnswer] = tt.auth
			w := httptest.NewRecorder()
			h.ServeHTTP(w, r)
			if w.Code != tt.status {
				t.Errorf("status %d, want %d: %s", w.Code, tt.status, w.Body)
			}
		})
	}
}

// TestHandlerPanics: a server without a key or a name is a mistake of the program.
func TestHandlerPanics(t *testing.T) {
	for name, s := range map[string]*Server{
		"no key":  {Hostnames: []string{"example.com"}},
		"no name": {Key: newKey(t)},
	} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%s: no panic", name)
				}
			}()
			s.Handler(nil)
		}()
	}
}
