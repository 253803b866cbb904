package peerauth

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/plexus-p2p/plexus/peer"
)

// wire is an http.RoundTripper that is a server, and writes down what goes over.
type wire struct {
	server http.Handler
	mute   bool // keeps the client's challenge from the server, so that the server begins
	plain  bool // no TLS
	sni    string

	mu    sync.Mutex
	lines []string // "> Authorization: …", "< WWW-Authenticate: …"
}

func (w *wire) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	if auth := r.Header.Get(headerAnswer); w.mute && strings.HasPrefix(auth, Scheme+" challenge-server=") {
		r.Header.Del(headerAnswer)
	}
	r.Host = r.URL.Host
	if r.Body == nil {
		r.Body = http.NoBody
	}
	if !w.plain {
		r.TLS = &tls.ConnectionState{ServerName: r.URL.Hostname()}
		if w.sni != "" {
			r.TLS.ServerName = w.sni
		}
	}
	w.note(">", r.Header, headerAnswer)
	rec := httptest.NewRecorder()
	w.server.ServeHTTP(rec, r)
	r.Body.Close()
	w.note("<", rec.Header(), headerAsk, headerInfo)
	return rec.Result(), nil
}

// note writes headers down; a line for none.
func (w *wire) note(way string, h http.Header, names ...string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	found := false
	for _, n := range names {
		for _, v := range h.Values(n) {
			w.lines = append(w.lines, way+" "+n+": "+v)
			found = true
		}
	}
	if !found {
		w.lines = append(w.lines, way)
	}
}

func newKey(t *testing.T) peer.PrivKey {
	t.Helper()
	k, err := peer.GenerateKey(peer.Ed25519)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// echo answers with who asks, and with what.
var echo = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
	id, ok := ClientID(r.Context())
	b, _ := io.ReadAll(r.Body)
	fmt.Fprintf(w, "%s %v %v %s", r.Method, id, ok, b)
})

// pair is a client and its server.
func pair(t *testing.T) (*Transport, *Server, *wire) {
	s := &Server{Key: newKey(t), Hostnames: []string{"example.com"}}
	w := &wire{server: s.Handler(echo)}
	return &Transport{Key: newKey(t), Base: w}, s, w
}

// do posts a body, or gets where it is "", and returns the answer.
func do(t *testing.T, rt http.RoundTripper, url, body string) (*http.Response, string, error) {
	t.Helper()
	method, r := http.MethodGet, io.Reader(nil)
	if body != "" {
		method, r = http.MethodPost, strings.NewReader(body)
	}
	req, err := http.NewRequestWithContext(t.Context(), method, url, r)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := rt.RoundTrip(req)
	if err != nil {
		return nil, "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, string(b), nil
}

const site = "https://example.com/a"

// transcript reads a file of testdata: its parameters and its lines.
func transcript(t *testing.T, name string) (map[string]string, []string) {
	t.Helper()
	b, err := os.ReadFile("testdata/" + name)
	if err != nil {
		t.Fatal(err)
	}
	params := make(map[string]string)
	var lines []string
	for line := range strings.Lines(string(b)) {
		line = strings.TrimSpace(line)
		if rest, ok := strings.CutPrefix(line, "# "); ok {
			k, v, _ := strings.Cut(rest, " = ")
			params[k] = v
		} else if line != "" {
			lines = append(lines, line)
		}
	}
	return params, lines
}

// replay makes the requests of a transcript, and returns what went over.
func replay(t *testing.T, params map[string]string, mute bool, requests int) []string {
	t.Helper()
	key := func(name string) peer.PrivKey {
		k, err := peer.ParsePrivKey(unhex(params[name]))
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	now, err := time.Parse(time.RFC3339, params["now"])
	if err != nil {
		t.Fatal(err)
	}
	clock := func() time.Time { return now.In(time.FixedZone("", -8*60*60)) }
	s := &Server{
		Key: key("server key"), Secret: unhex(params["server secret"]), Hostnames: []string{params["hostname"]},
		now: clock, random: bytes.NewReader(unhex(params["server random"])),
	}
	w := &wire{server: s.Handler(echo), mute: mute}
	c := &Transport{Key: key("client key"), Base: w, now: clock, random: bytes.NewReader(unhex(params["client random"]))}
	for range requests {
		resp, body, err := do(t, c, "https://"+params["hostname"]+"/", "")
		if err != nil {
			t.Fatal(err)
		}
		if id, ok := ServerID(resp); id != s.Key.ID() || !ok {
			t.Errorf("the server is %v, %v; want %v", id, ok, s.Key.ID())
		}
		if want := fmt.Sprintf("GET %v true ", c.Key.ID()); body != want {
			t.Errorf("the answer is %q; want %q", body, want)
		}
	}
	return w.lines
}

// same compares what went over with a transcript, but for the expiry of the token,
// which "the server MAY include", and does.
func same(t *testing.T, got, want []string) {
	t.Helper()
	expires := regexp.MustCompile(`, expires="1969-12-31T17:00:00-08:00"$`)
	for i := range got {
		if strings.HasPrefix(got[i], "< "+headerInfo) {
			if !expires.MatchString(got[i]) {
				t.Errorf("line %d does not say when the token expires: %s", i+1, got[i])
			}
			got[i] = expires.ReplaceAllString(got[i], "")
		}
	}
	if len(got) != len(want) {
		t.Fatalf("%d lines, want %d:\n%s", len(got), len(want), strings.Join(got, "\n"))
	}
	for i := range got {
		if got[i] != want[i] {
			t.Errorf("line %d:\n%s\nwant\n%s", i+1, got[i], want[i])
		}
	}
}

// TestTranscriptClient: the client begins.
// https://github.com/libp2p/specs/blob/master/http/peer-id-auth.md#complete-client-initiated-handshake-example
func TestTranscriptClient(t *testing.T) {
	params, want := transcript(t, "client-initiated.txt")
	same(t, replay(t, params, false, 1), want)
}

// TestTranscriptServer: the server begins. The spec's transcript differs from the
// spec's text in three places, and here the text is followed, as go-libp2p does:
//
//   - WWW-Authenticate has the server's public-key; "the public-key parameter is
//     the server's public key".
//   - The client's signature is over it; "the sig param represents a signature over
//     the parameters challenge-client, server-public-key […], hostname". The one in
//     the transcript is over the other two. With it, the signature is that of
//     the other transcript.
//   - Authentication-Info does not have it again.
//
// https://github.com/libp2p/specs/blob/master/http/peer-id-auth.md#complete-server-initiated-handshake-example
func TestTranscriptServer(t *testing.T) {
	params, want := transcript(t, "server-initiated.txt")
	const (
		key    = `, public-key="CAESIIqI4910CfGV_VLbLTy6XXLKZwm_HZQSG_N0iAG0D29c"`
		oldSig = "5RT0BbFdn-hMgE4pQ_GH9tnlKpptGUQZvkh8kVLbwy81Rzli_vfiNOsuGTcMk8lyUfkmTFmk79b5XUZCR3-RBw=="
		newSig = "OrwJPO4buHKJdKXP2av8PFwv3XF_-m5MqndskeVV5UzufYzBCTm7RBaFnBS1sEhuQHZSZPh9RJgN5NmLzrUrBQ=="
	)
	old := want[2]
	want[1] = strings.Replace(want[1], ", opaque=", key+", opaque=", 1)
	want[2] = strings.Replace(want[2], oldSig, newSig, 1)
	want[3] = strings.TrimSuffix(want[3], key)
	got := replay(t, params, true, 2)
	if len(got) == 0 || got[len(got)-1] != "<" {
		t.Fatalf("a request with a token is answered with more: %q", got)
	}
	same(t, got[:len(got)-1], want)

	// The old signature does not say which server it is for.
	s := &Server{Secret: unhex(params["server secret"]), Hostnames: []string{params["hostname"]}}
	var err error
	if s.Key, err = peer.ParsePrivKey(unhex(params["server key"])); err != nil {
		t.Fatal(err)
	}
	s.now = func() time.Time { return time.Unix(0, 0) }
	s.Handler(nil)
	if a, err := s.answer(strings.TrimPrefix(old, "> Authorization: "), "example.com"); !errors.Is(err, ErrSignature) {
		t.Errorf("the old signature: %+v, %v; want ErrSignature", a, err)
	}
}

// TestBody: a body goes to a server that has proved who it is, once, whoever begins.
func TestBody(t *testing.T) {
	for _, mute := range []bool{false, true} {
		t.Run(fmt.Sprintf("mute=%v", mute), func(t *testing.T) {
			c, s, w := pair(t)
			w.mute = mute
			var bodies []string
			proved := false // the client has seen a signature
			w.server = func(next http.Handler) http.Handler {
				return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
					b, _ := io.ReadAll(r.Body)
					r.Body = io.NopCloser(bytes.NewReader(b))
					if len(b) > 0 && !proved {
						t.Error("a body before the proof")
					}
					bodies = append(bodies, string(b))
					next.ServeHTTP(rw, r)
					proved = proved || strings.Contains(rw.Header().Get(headerAsk)+rw.Header().Get(headerInfo), "sig=")
				})
			}(w.server)
			for i := range 2 {
				resp, body, err := do(t, c, site, "hello")
				if err != nil {
					t.Fatal(err)
				}
				if want := fmt.Sprintf("POST %v true hello", c.Key.ID()); body != want {
					t.Errorf("request %d: %q, want %q", i, body, want)
				}
				if id, _ := ServerID(resp); id != s.Key.ID() {
					t.Errorf("request %d: the server is %v", i, id)
				}
			}
			want := []string{"", "hello", "hello"}
			if mute {
				want = []string{"", "", "hello", "hello"}
			}
			if !slices.Equal(bodies, want) {
				t.Errorf("bodies %q, want %q", bodies, want)
			}
		})
	}
}

// TestToken: a token spares the handshake, until it expires.
func TestToken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, _, w := pair(t)
		for _, tt := range []struct {
			wait     time.Duration
			requests int
		}{{0, 2}, {time.Minute, 1}, {DefaultTokenTTL - time.Minute - time.Second, 1}, {2 * time.Second, 2}} {
			time.Sleep(tt.wait)
			w.lines = nil
			if _, _, err := do(t, c, site, ""); err != nil {
				t.Fatal(err)
			}
			if n := len(w.lines) / 2; n != tt.requests {
				t.Errorf("after another %v: %d requests, want %d", tt.wait, n, tt.requests)
			}
		}
	})
}

// TestTokenPerServer: a token goes to nobody but who gave it out.
func TestTokenPerServer(t *testing.T) {
	c, s, w := pair(t)
	s.Hostnames = append(s.Hostnames, "example.org")
	for _, url := range []string{site, "https://example.org/a", "https://EXAMPLE.com:8443/a"} {
		w.lines = nil
		if _, _, err := do(t, c, url, ""); err != nil {
			t.Fatalf("%s: %v", url, err)
		}
		if len(w.lines) != 4 || strings.Contains(strings.Join(w.lines[:3], ""), "bearer") {
			t.Errorf("%s: not a handshake: %q", url, w.lines)
		}
	}
}

// TestTokenRefused: a server that has forgotten its secret gets another handshake, and
// the body again.
func TestTokenRefused(t *testing.T) {
	c, s, w := pair(t)
	if _, _, err := do(t, c, site, "one"); err != nil {
		t.Fatal(err)
	}
	again := &Server{Key: s.Key, Hostnames: s.Hostnames}
	w.server = again.Handler(echo)
	if _, body, err := do(t, c, site, "two"); err != nil || !strings.HasSuffix(body, "true two") {
		t.Errorf("%q, %v", body, err)
	}

	// Where the body cannot be had again, the next request is all right.
	again = &Server{Key: s.Key, Hostnames: s.Hostnames}
	w.server = again.Handler(echo)
	req, err := http.NewRequest(http.MethodPost, site, io.MultiReader(strings.NewReader("three")))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.RoundTrip(req); !errors.Is(err, ErrRejected) {
		t.Errorf("a body that cannot be sent again: %v, want ErrRejected", err)
	}
	if _, body, err := do(t, c, site, "four"); err != nil || !strings.HasSuffix(body, "true four") {
		t.Errorf("%q, %v", body, err)
	}
}

// TestServersBound: of many servers some are forgotten.
func TestServersBound(t *testing.T) {
	c, _, _ := pair(t)
	for i := range 2 * maxServers {
		c.remember(fmt.Sprint(i), server{bearer: "x"})
	}
	if len(c.servers) != maxServers {
		t.Errorf("%d servers are known, want %d", len(c.servers), maxServers)
	}
}

// TestCookies: a balancer of loads, that knows clients by a cookie, has them meet the same
// server again.
func TestCookies(t *testing.T) {
	c, s, w := pair(t)
	other := &Server{Key: s.Key, Hostnames: s.Hostnames}
	servers := map[string]http.Handler{"a": s.Handler(echo), "b": other.Handler(echo)}
	next := []string{"a", "b", "a", "b"}
	w.server = http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		at := ""
		if ck, err := r.Cookie("at"); err == nil {
			at = ck.Value
		} else {
			at, next = next[0], next[1:]
			http.SetCookie(rw, &http.Cookie{Name: "at", Value: at})
		}
		servers[at].ServeHTTP(rw, r)
	})
	for range 2 {
		if _, _, err := do(t, c, site, "x"); err != nil {
			t.Fatal(err)
		}
	}
	if len(w.lines) != 6 || len(next) != 3 {
		t.Errorf("%d requests at %d servers, want 3 at 1", len(w.lines)/2, 4-len(next))
	}

	// A server cannot fill our memory with them.
	e := exchange{t: c}
	for i := range 100 {
		e.keep(&http.Cookie{Name: fmt.Sprint(i), Value: "x"})
	}
	e.keep(&http.Cookie{Name: "0", Value: strings.Repeat("x", maxCookie)})
	if len(e.server.cookies) != maxCookies-1 { // the last one has removed the first
		t.Errorf("%d cookies, want %d", len(e.server.cookies), maxCookies-1)
	}
}

// TestAllow: a server that is not allowed gets neither our signature nor the body.
func TestAllow(t *testing.T) {
	no := errors.New("no")
	for _, mute := range []bool{false, true} {
		c, s, w := pair(t)
		w.mute = mute
		c.Allow = func(hostname string, id peer.ID) error {
			if hostname != "example.com" || id != s.Key.ID() {
				t.Errorf("asked for %v at %q", id, hostname)
			}
			return no
		}
		w.server = func(next http.Handler) http.Handler {
			return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
				if b, _ := io.ReadAll(r.Body); len(b) > 0 {
					t.Errorf("mute=%v: the server has the body", mute)
				}
				next.ServeHTTP(rw, r)
			})
		}(w.server)
		if _, _, err := do(t, c, site, "body"); !errors.Is(err, no) {
			t.Errorf("mute=%v: %v, want %v", mute, err, no)
		}
		if !mute && len(w.lines) != 2 {
			t.Errorf("%d requests, want 1", len(w.lines)/2)
		}
	}
}

// TestHTTPS: over real TLS, with an http.Client, at once.
func TestHTTPS(t *testing.T) {
	s := &Server{Key: newKey(t), Hostnames: []string{"example.com"}}
	ts := httptest.NewUnstartedServer(s.Handler(echo))
	ts.EnableHTTP2 = true
	ts.StartTLS()
	defer ts.Close()
	base := ts.Client().Transport.(*http.Transport) // trusts the certificate, which is for example.com
	base.DialContext = func(ctx context.Context, network, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, ts.Listener.Addr().String())
	}
	rt := &Transport{Key: newKey(t), Base: base}
	c := &http.Client{Transport: rt}
	var wg sync.WaitGroup
	for i := range 16 {
		wg.Go(func() {
			for range 4 {
				body := fmt.Sprint("hello ", i)
				resp, err := c.Post(site, "text/plain", strings.NewReader(body))
				if err != nil {
					t.Error(err)
					return
				}
				got, err := io.ReadAll(resp.Body)
				resp.Body.Close()
				if want := fmt.Sprintf("POST %v true %s", rt.Key.ID(), body); string(got) != want || err != nil {
					t.Errorf("%q, %v; want %q", got, err, want)
				}
				if id, ok := ServerID(resp); id != s.Key.ID() || !ok {
					t.Errorf("the server is %v, %v", id, ok)
				}
			}
		})
	}
	wg.Wait()
	// It has no name: the server is asked for no name either.
	if _, err := c.Get(ts.URL); !errors.Is(err, ErrNotAsked) {
		t.Errorf("by its IP address: %v, want ErrNotAsked", err)
	}
}

// TestKeys: all kinds of keys fit.
func TestKeys(t *testing.T) {
	for _, kind := range []peer.KeyType{peer.RSA, peer.Ed25519, peer.Secp256k1, peer.ECDSA} {
		for _, mute := range []bool{false, true} {
			t.Run(fmt.Sprintf("%v/mute=%v", kind, mute), func(t *testing.T) {
				c, _, w := pair(t)
				w.mute = mute
				var err error
				if c.Key, err = peer.GenerateKey(kind); err != nil {
					t.Fatal(err)
				}
				if _, body, err := do(t, c, site, "x"); err != nil || !strings.HasPrefix(body, "POST "+c.Key.ID().String()) {
					t.Errorf("%q, %v", body, err)
				}
			})
		}
	}
}

// TestLongKeys: of RSA with 4096 bits the key of one end fits, and those of both do not:
// the server's first answer would have both.
func TestLongKeys(t *testing.T) {
	std, err := rsa.GenerateKey(rand.Reader, 4096)
	if err != nil {
		t.Fatal(err)
	}
	long, err := peer.NewPrivKey(std)
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		client, server peer.PrivKey
		want           int // status of the error; 0: none
	}{{long, newKey(t), 0}, {newKey(t), long, 0}, {long, long, http.StatusRequestHeaderFieldsTooLarge}} {
		s := &Server{Key: tt.server, Hostnames: []string{"example.com"}}
		c := &Transport{Key: tt.client, Base: &wire{server: s.Handler(echo)}}
		_, _, err := do(t, c, site, "x")
		if se, ok := errors.AsType[*StatusError](err); ok != (tt.want != 0) || ok && se.Status != tt.want || !ok && err != nil {
			t.Errorf("client %v, server %v: %v, want %d", tt.client.Type(), tt.server.Type(), err, tt.want)
		}
	}
}

// TestInsecure: without TLS only if both ends say so.
func TestInsecure(t *testing.T) {
	c, s, w := pair(t)
	w.plain = true
	const url = "http://example.com/"
	if _, _, err := do(t, c, url, ""); !errors.Is(err, ErrInsecure) || len(w.lines) != 0 {
		t.Errorf("%v and %d requests; want ErrInsecure and none", err, len(w.lines)/2)
	}
	c.Insecure = true
	if _, _, err := do(t, c, url, ""); !errors.Is(err, ErrNotAsked) {
		t.Errorf("the server answers without TLS: %v", err)
	}
	s.Insecure = true
	if _, _, err := do(t, c, url, ""); err != nil {
		t.Error(err)
	}
	if _, _, err := do(t, c, "ftp://example.com/", ""); !errors.Is(err, ErrInsecure) {
		t.Errorf("ftp: %v, want ErrInsecure", err)
	}
	if _, _, err := do(t, c, "http://example.net/", ""); !errors.Is(err, ErrNotAsked) {
		t.Errorf("another server's name: %v, want ErrNotAsked", err)
	}
}

// TestMiddle: who passes a handshake on between a client and a server does not
// become either of them.
func TestMiddle(t *testing.T) {
	c, s, w := pair(t)
	real := w.server
	// The client wants evil.example, which has the request answered by the real
	// server, by its own name there.
	w.server = http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		r.Host, r.TLS.ServerName = "example.com", "example.com"
		real.ServeHTTP(rw, r)
	})
	if _, _, err := do(t, c, "https://evil.example/", "secret"); !errors.Is(err, ErrSignature) {
		t.Errorf("the client believes: %v, want ErrSignature", err)
	}
	// Or by its name at evil.example, which the server does not have.
	w.server = real
	if _, _, err := do(t, c, "https://evil.example/", "secret"); !errors.Is(err, ErrNotAsked) {
		t.Errorf("the server answers for others: %v", err)
	}
	// A client without checks signs for evil.example; the real server refuses it.
	s.Handler(nil)
	ask, err := s.challenge("example.com")
	if err != nil {
		t.Fatal(err)
	}
	p, _, _ := parse(ask.ask)
	sig, _ := c.Key.Sign(signedByClient(p.challengeClient, s.Key.Public().Bytes(), "evil.example"))
	h, _ := header(paramPublicKey, base64url(c.Key.Public().Bytes()), paramChallengeServer, strings.Repeat("x", 32), paramSig, base64url(sig), paramOpaque, p.opaque)
	if _, err := s.answer(h, "example.com"); !errors.Is(err, ErrSignature) {
		t.Errorf("the server believes: %v, want ErrSignature", err)
	}
}
