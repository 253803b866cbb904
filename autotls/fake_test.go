package autotls

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"math/big"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	ma "github.com/multiformats/go-multiaddr"
	"golang.org/x/crypto/acme"

	"github.com/plexus-p2p/plexus"
	"github.com/plexus-p2p/plexus/exchange/p2phttp/peerauth"
	"github.com/plexus-p2p/plexus/muxer"
	"github.com/plexus-p2p/plexus/muxer/yamux"
	"github.com/plexus-p2p/plexus/peer"
	"github.com/plexus-p2p/plexus/ping"
	"github.com/plexus-p2p/plexus/security"
	"github.com/plexus-p2p/plexus/security/noise"
	"github.com/plexus-p2p/plexus/simnet"
	"github.com/plexus-p2p/plexus/transport"
	"github.com/plexus-p2p/plexus/transport/tcp"
	"github.com/plexus-p2p/plexus/transport/websocket"
)

// world is all that a node meets: a certificate authority, a broker that dials, and the
// DNS. They are simulated, in the time of a bubble. It is an http.RoundTripper that leads
// to the two servers.
type world struct {
	t      *testing.T
	net    *simnet.Network
	broker *plexus.Host // dials from 5.6.7.8
	auth   http.Handler
	site   *simnet.Host // of the node
	node   peer.PrivKey
	root   *x509.Certificate
	ca     *ecdsa.PrivateKey

	mu       sync.Mutex
	calls    []string
	times    []time.Time // of the calls
	txt      string      // of the DNS
	life     time.Duration
	accounts map[string]*ecdsa.PublicKey // by kid
	orders   int
	token    string
	status   string // of the challenge
	polls    int    // of the authorization and the order
	cert     []byte

	// fail, where set, may answer instead of a server, by the name of the call.
	fail func(call string, w http.ResponseWriter) bool
	// forge, where set, changes the certificate before it is signed.
	forge func(*x509.Certificate, *any)
}

func newWorld(t *testing.T) *world {
	w := &world{t: t, life: 90 * 24 * time.Hour, accounts: make(map[string]*ecdsa.PublicKey)}
	w.net = simnet.New(simnet.Config{Path: simnet.Link{Latency: 10 * time.Millisecond}})
	t.Cleanup(func() { w.net.Close() })
	w.site = w.net.Host("1.2.3.4", "10.0.0.4")
	far := w.net.Host("5.6.7.8")
	w.node = newKey(t)
	w.broker = newHost(t, far, newKey(t), nil)
	s := &peerauth.Server{Key: w.broker.Key(), Hostnames: []string{"broker.test"}}
	w.auth = s.Handler(http.HandlerFunc(w.serveBroker))

	var err error
	if w.ca, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test authority"}, IsCA: true,
		BasicConstraintsValid: true, NotBefore: time.Now(), NotAfter: time.Now().Add(10 * 365 * 24 * time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &w.ca.PublicKey, w.ca)
	if err != nil {
		t.Fatal(err)
	}
	if w.root, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	return w
}

func newKey(t testing.TB) peer.PrivKey {
	t.Helper()
	k, err := peer.GenerateKey(peer.Ed25519)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// newHost makes a host with TCP and WebSocket, that answers pings.
func newHost(t *testing.T, n *simnet.Host, key peer.PrivKey, ws *websocket.Transport, listen ...string) *plexus.Host {
	t.Helper()
	if ws == nil {
		ws = new(websocket.Transport)
	}
	ws.TCP = &tcp.Transport{Network: n}
	h, err := plexus.New(plexus.Config{
		Key: key, Network: n, Pipes: []transport.Pipes{ws, ws.TCP},
		Security: []security.Protocol{&noise.Protocol{}}, Muxers: []muxer.Muxer{&yamux.Muxer{}},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.Close() })
	ping.Serve(h)
	for _, a := range listen {
		if err := h.Listen(t.Context(), ma.StringCast(a)); err != nil {
			t.Fatal(err)
		}
	}
	return h
}

// config is what a client in the world needs, but for addresses.
func (w *world) config() Config {
	return Config{
		Key: w.node, Directory: "https://acme.test/directory", Broker: "https://broker.test/",
		HTTPClient: &http.Client{Transport: w}, LookupTXT: w.site.LookupTXT,
		Domain: "libp2p.direct", Contact: "me@example.com",
		Addrs:  func() []ma.Multiaddr { return []ma.Multiaddr{ma.StringCast("/ip4/1.2.3.4/tcp/4001")} },
		Logger: slog.New(slog.DiscardHandler),
	}
}

// RoundTrip leads to the servers.
func (w *world) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	r.Host = r.URL.Host
	r.TLS = &tls.ConnectionState{ServerName: r.URL.Hostname()}
	if r.Body == nil {
		r.Body = http.NoBody
	}
	defer r.Body.Close()
	rec := httptest.NewRecorder()
	switch r.URL.Host {
	case "acme.test":
		w.serveACME(rec, r)
	case "broker.test":
		if w.call(rec, "broker "+r.Method+" "+r.URL.Path) {
			w.auth.ServeHTTP(rec, r)
		}
	default:
		return nil, fmt.Errorf("no such host: %s", r.URL.Host)
	}
	if err := r.Context().Err(); err != nil {
		return nil, err
	}
	return rec.Result(), nil
}

// call notes a call; false if it has been answered.
func (w *world) call(rw http.ResponseWriter, name string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.calls, w.times = append(w.calls, name), append(w.times, time.Now())
	return w.fail == nil || !w.fail(name, rw)
}

// took returns the calls since it was called last.
func (w *world) took() (calls []string, times []time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	calls, times = w.calls, w.times
	w.calls, w.times = nil, nil
	return calls, times
}

// serveBroker dials the node, and has the value in the DNS.
func (w *world) serveBroker(rw http.ResponseWriter, r *http.Request) {
	id, _ := peerauth.ClientID(r.Context())
	var body struct {
		Value     string   `json:"value"`
		Addresses []string `json:"addresses"`
	}
	d := json.NewDecoder(r.Body)
	d.DisallowUnknownFields()
	if err := d.Decode(&body); err != nil {
		http.Error(rw, err.Error(), http.StatusBadRequest)
		return
	}
	if b, err := base64.RawURLEncoding.DecodeString(body.Value); err != nil || len(b) != sha256.Size {
		http.Error(rw, "value is not a digest", http.StatusBadRequest)
		return
	}
	info := peer.AddrInfo{ID: id}
	for _, s := range body.Addresses {
		a, err := ma.NewMultiaddr(s)
		if err != nil {
			http.Error(rw, err.Error(), http.StatusBadRequest)
			return
		}
		info.Addrs = append(info.Addrs, a)
	}
	w.call(nil, "broker dials "+strings.Join(body.Addresses, " "))
	ctx, cancel := context.WithTimeout(r.Context(), 15*time.Second)
	defer cancel()
	c, err := w.broker.Dial(ctx, info)
	if err != nil {
		http.Error(rw, err.Error(), http.StatusBadRequest)
		return
	}
	c.Close()
	base := Label(id) + ".libp2p.direct"
	w.mu.Lock()
	w.txt = body.Value
	w.mu.Unlock()
	w.net.SetTXT("_acme-challenge."+base, body.Value)
	for _, a := range info.Addrs {
		if ip, _, ok := transport.IP(a); ok {
			w.net.SetDNS(ipLabel(ip)+"."+base, ip.String())
		}
	}
}

// jws is a signed request to the authority.
type jws struct {
	Protected, Payload, Signature string
}

// open checks a request of RFC 8555 and returns its payload and account.
func (w *world) open(r *http.Request) (payload []byte, kid string, key *ecdsa.PublicKey, err error) {
	var m jws
	if err := json.NewDecoder(r.Body).Decode(&m); err != nil {
		return nil, "", nil, err
	}
	b, err := base64.RawURLEncoding.DecodeString(m.Protected)
	if err != nil {
		return nil, "", nil, err
	}
	var head struct {
		Alg, Nonce, URL, KID string
		JWK                  *struct{ X, Y string }
	}
	if err := json.Unmarshal(b, &head); err != nil {
		return nil, "", nil, err
	}
	if head.Alg != "ES256" || head.Nonce == "" || head.URL != r.URL.String() || (head.JWK == nil) == (head.KID == "") {
		return nil, "", nil, fmt.Errorf("header %s", b)
	}
	if head.JWK != nil {
		x, _ := base64.RawURLEncoding.DecodeString(head.JWK.X)
		y, _ := base64.RawURLEncoding.DecodeString(head.JWK.Y)
		if key, err = ecdsa.ParseUncompressedPublicKey(elliptic.P256(), slices.Concat([]byte{4}, x, y)); err != nil {
			return nil, "", nil, err
		}
	} else if key = w.accounts[head.KID]; key == nil {
		return nil, "", nil, errors.New("no such account")
	}
	sig, err := base64.RawURLEncoding.DecodeString(m.Signature)
	if err != nil || len(sig) != 64 {
		return nil, "", nil, errors.New("not a signature")
	}
	sum := sha256.Sum256([]byte(m.Protected + "." + m.Payload))
	if !ecdsa.Verify(key, sum[:], new(big.Int).SetBytes(sig[:32]), new(big.Int).SetBytes(sig[32:])) {
		return nil, "", nil, errors.New("wrong signature")
	}
	payload, err = base64.RawURLEncoding.DecodeString(m.Payload)
	return payload, head.KID, key, err
}

// serveACME is the authority, of one client.
// https://www.rfc-editor.org/rfc/rfc8555#section-7
func (w *world) serveACME(rw http.ResponseWriter, r *http.Request) {
	const url = "https://acme.test"
	rw.Header().Set("Replay-Nonce", rand.Text())
	if !w.call(rw, "acme "+r.URL.Path) {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	reply := func(status int, v any) {
		rw.Header().Set("Content-Type", "application/json")
		rw.WriteHeader(status)
		json.NewEncoder(rw).Encode(v)
	}
	switch {
	case r.URL.Path == "/directory":
		reply(200, map[string]any{
			"newNonce": url + "/nonce", "newAccount": url + "/account", "newOrder": url + "/order",
			"meta": map[string]any{"termsOfService": url + "/terms"},
		})
		return
	case r.URL.Path == "/nonce":
		return
	}
	payload, kid, key, err := w.open(r)
	if err != nil {
		w.t.Errorf("%s: %v", r.URL.Path, err)
		reply(400, map[string]any{"type": "urn:ietf:params:acme:error:malformed", "detail": err.Error()})
		return
	}
	order := func(status string) map[string]any {
		return map[string]any{
			"status": status, "authorizations": []string{url + "/authz"}, "finalize": url + "/finalize", "certificate": url + "/cert",
			"identifiers": []any{map[string]string{"type": "dns", "value": "*." + Label(w.node.ID()) + ".libp2p.direct"}},
		}
	}
	challenge := func() map[string]any {
		return map[string]any{"type": "dns-01", "url": url + "/challenge", "token": w.token, "status": w.status}
	}
	switch r.URL.Path {
	case "/account":
		var req struct {
			TermsOfServiceAgreed bool
			Contact              []string
		}
		json.Unmarshal(payload, &req)
		status := 200
		for k, old := range w.accounts {
			if old.Equal(key) {
				kid = k
			}
		}
		if kid == "" {
			if !req.TermsOfServiceAgreed || !slices.Equal(req.Contact, []string{"mailto:me@example.com"}) {
				w.t.Errorf("account: %s", payload)
			}
			kid, status = fmt.Sprintf("%s/account/%d", url, len(w.accounts)+1), 201
			w.accounts[kid] = key
		}
		rw.Header().Set("Location", kid)
		reply(status, map[string]string{"status": "valid"})
	case "/order":
		w.orders++
		w.token, w.status, w.polls = rand.Text(), "pending", 0
		rw.Header().Set("Location", fmt.Sprintf("%s/order/%d", url, w.orders))
		reply(201, order("pending"))
	case "/authz":
		if w.status == "processing" {
			w.status = "valid"
		}
		status := w.status
		if status == "valid" && w.polls < 1 {
			w.polls++
			status = "pending"
		}
		reply(200, map[string]any{
			"status": status, "wildcard": true, "challenges": []any{challenge()},
			"identifier": map[string]string{"type": "dns", "value": Label(w.node.ID()) + ".libp2p.direct"},
		})
	case "/challenge":
		thumb, err := acme.JWKThumbprint(key)
		sum := sha256.Sum256([]byte(w.token + "." + thumb))
		w.status = "processing"
		if base64.RawURLEncoding.EncodeToString(sum[:]) != w.txt || err != nil {
			w.t.Error("the DNS has another value than the challenge asks for")
			w.status = "invalid"
		}
		reply(200, challenge())
	case fmt.Sprintf("/order/%d", w.orders):
		status := "ready"
		if w.cert != nil {
			status = "valid"
		}
		reply(200, order(status))
	case "/finalize":
		var req struct{ CSR string }
		json.Unmarshal(payload, &req)
		der, _ := base64.RawURLEncoding.DecodeString(req.CSR)
		csr, err := x509.ParseCertificateRequest(der)
		if err == nil {
			err = csr.CheckSignature()
		}
		if want := []string{"*." + Label(w.node.ID()) + ".libp2p.direct"}; err != nil || !slices.Equal(csr.DNSNames, want) {
			w.t.Errorf("request for %v, %v", csr.DNSNames, err)
		}
		w.cert = w.sign(csr)
		reply(200, order("processing"))
	case "/cert":
		pem.Encode(rw, &pem.Block{Type: "CERTIFICATE", Bytes: w.cert})
		pem.Encode(rw, &pem.Block{Type: "CERTIFICATE", Bytes: w.root.Raw})
		w.cert = nil
	default:
		w.t.Errorf("%s %s", r.Method, r.URL)
		rw.WriteHeader(404)
	}
}

func (w *world) sign(csr *x509.CertificateRequest) []byte {
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(int64(w.orders) + 1), DNSNames: csr.DNSNames,
		NotBefore: time.Now(), NotAfter: time.Now().Add(w.life),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	public := csr.PublicKey
	if w.forge != nil {
		w.forge(tmpl, &public)
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, w.root, public, crypto.Signer(w.ca))
	if err != nil {
		w.t.Error(err)
	}
	return der
}

// problem answers as an authority that refuses.
func problem(rw http.ResponseWriter, status int, kind string) bool {
	rw.Header().Set("Content-Type", "application/problem+json")
	rw.WriteHeader(status)
	fmt.Fprintf(rw, `{"type": "urn:ietf:params:acme:error:%s", "detail": "no"}`, kind)
	return true
}
