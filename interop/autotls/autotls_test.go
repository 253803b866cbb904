// Package autotls has a node get its certificate from pebble, the certificate authority that
// Let's Encrypt tests clients with, and be reached by it; and holds peer-ID
// authentication against that of go-libp2p, which the brokers that exist run.
//
// It is a module of its own: the main one has none of these dependencies.
package autotls

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/letsencrypt/pebble/v2/ca"
	"github.com/letsencrypt/pebble/v2/db"
	"github.com/letsencrypt/pebble/v2/va"
	"github.com/letsencrypt/pebble/v2/wfe"
	"github.com/libp2p/go-libp2p/core/crypto"
	gopeer "github.com/libp2p/go-libp2p/core/peer"
	goauth "github.com/libp2p/go-libp2p/p2p/http/auth"
	"github.com/miekg/dns"
	ma "github.com/multiformats/go-multiaddr"

	"github.com/plexus-p2p/plexus"
	"github.com/plexus-p2p/plexus/autotls"
	"github.com/plexus-p2p/plexus/exchange/p2phttp/peerauth"
	"github.com/plexus-p2p/plexus/muxer"
	"github.com/plexus-p2p/plexus/muxer/yamux"
	"github.com/plexus-p2p/plexus/peer"
	"github.com/plexus-p2p/plexus/ping"
	"github.com/plexus-p2p/plexus/security"
	"github.com/plexus-p2p/plexus/security/noise"
	"github.com/plexus-p2p/plexus/transport"
	"github.com/plexus-p2p/plexus/transport/tcp"
	"github.com/plexus-p2p/plexus/transport/websocket"
)

// zone is a DNS server for libp2p.direct: the one of a broker.
type zone struct {
	transport.System // for hosts that ask it
	resolver         net.Resolver
	addr             string

	mu  sync.Mutex
	txt map[string]string
}

func newZone(t *testing.T) *zone {
	t.Helper()
	z := &zone{txt: make(map[string]string)}
	pc, l := ports(t)
	z.addr = pc.LocalAddr().String()
	for _, s := range []*dns.Server{{PacketConn: pc, Handler: z}, {Listener: l, Handler: z}} {
		go s.ActivateAndServe() // until Shutdown
		t.Cleanup(func() { s.Shutdown() })
	}
	z.resolver = net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, z.addr)
	}}
	return z
}

// ports are a UDP and a TCP port of the same number, which may be taken for one of them.
func ports(t *testing.T) (net.PacketConn, net.Listener) {
	t.Helper()
	for attempt := 1; ; attempt++ {
		pc, err := net.ListenPacket("udp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		l, err := net.Listen("tcp", pc.LocalAddr().String())
		if err == nil {
			return pc, l
		}
		pc.Close()
		if attempt == 100 || !errors.Is(err, syscall.EADDRINUSE) {
			t.Fatal(err)
		}
	}
}

// LookupNetIP and LookupTXT make it a transport.Network, with the sockets of the system.
func (z *zone) LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error) {
	ips, err := z.resolver.LookupNetIP(ctx, network, host)
	for i := range ips {
		ips[i] = ips[i].Unmap()
	}
	return ips, err
}

func (z *zone) LookupTXT(ctx context.Context, name string) ([]string, error) {
	return z.resolver.LookupTXT(ctx, name)
}

// ServeDNS answers 127-0-0-1.<peer>.libp2p.direct with 127.0.0.1, and what is set.
func (z *zone) ServeDNS(w dns.ResponseWriter, m *dns.Msg) {
	r := new(dns.Msg).SetReply(m)
	r.Authoritative = true
	for _, q := range m.Question {
		name := strings.ToLower(strings.TrimSuffix(q.Name, "."))
		head := dns.RR_Header{Name: q.Name, Rrtype: q.Qtype, Class: dns.ClassINET, Ttl: 1}
		label, _, _ := strings.Cut(name, ".")
		ip := net.ParseIP(strings.ReplaceAll(label, "-", "."))
		z.mu.Lock()
		txt := z.txt[name]
		z.mu.Unlock()
		switch {
		case q.Qtype == dns.TypeA && ip != nil && strings.HasSuffix(name, ".libp2p.direct"):
			r.Answer = append(r.Answer, &dns.A{Hdr: head, A: ip})
		case q.Qtype == dns.TypeTXT && txt != "":
			r.Answer = append(r.Answer, &dns.TXT{Hdr: head, Txt: []string{txt}})
		case ip == nil && txt == "":
			r.Rcode = dns.RcodeNameError
		}
	}
	w.WriteMsg(r)
}

// pebble is an authority that asks the zone.
func pebble(t *testing.T, z *zone) (directory string, roots *x509.CertPool) {
	t.Helper()
	t.Setenv("PEBBLE_VA_NOSLEEP", "1")
	t.Setenv("PEBBLE_WFE_NONCEREJECT", "5") // percent; clients have to try again
	logger := log.New(io.Discard, "", 0)
	if testing.Verbose() {
		logger = log.New(os.Stderr, "pebble ", log.Ltime)
	}
	store := db.NewMemoryStore()
	authority := ca.New(logger, store, "", "ecdsa", 0, 1, map[string]ca.Profile{"default": {Description: "default"}})
	validator := va.New(logger, 1, 1, true, z.addr, store)
	front := wfe.New(logger, store, validator, authority, []string{"pebble.letsencrypt.org"}, true, false, 1, 1)
	s := httptest.NewTLSServer(front.Handler())
	t.Cleanup(s.Close)
	roots = x509.NewCertPool()
	if !roots.AppendCertsFromPEM(authority.GetRootCert(0).PEM()) {
		t.Fatal("pebble has no root")
	}
	return s.URL + wfe.DirectoryPath, roots
}

// serve runs a server of TLS named example.com, and returns a client that leads to it by
// that name, and elsewhere by theirs.
func serve(t *testing.T, h http.Handler) *http.Client {
	t.Helper()
	s := httptest.NewTLSServer(h)
	t.Cleanup(s.Close)
	c := s.Client()
	c.Transport.(*http.Transport).DialContext = func(ctx context.Context, network, addr string) (net.Conn, error) {
		if addr == "example.com:443" {
			addr = s.Listener.Addr().String()
		}
		return new(net.Dialer).DialContext(ctx, network, addr)
	}
	return c
}

func newKey(t *testing.T) peer.PrivKey {
	t.Helper()
	k, err := peer.GenerateKey(peer.Ed25519)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// goKey is a key as go-libp2p has it.
func goKey(t *testing.T, k peer.PrivKey) crypto.PrivKey {
	t.Helper()
	g, err := crypto.UnmarshalPrivateKey(k.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	return g
}

// newHost makes a host that asks the zone, and answers pings.
func newHost(t *testing.T, z *zone, key peer.PrivKey, ws *websocket.Transport) *plexus.Host {
	t.Helper()
	ws.TCP = &tcp.Transport{Network: z}
	h, err := plexus.New(plexus.Config{
		Key: key, Network: z, Pipes: []transport.Pipes{ws, ws.TCP},
		Security: []security.Protocol{&noise.Protocol{}}, Muxers: []muxer.Muxer{&yamux.Muxer{}},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.Close() })
	ping.Serve(h)
	return h
}

// broker dials who asks, by plexus, and has the value in the zone. It stands behind
// an authentication, which tells the peer.
type broker struct {
	t     *testing.T
	z     *zone
	h     *plexus.Host
	mu    sync.Mutex
	dials []string
}

func (b *broker) serve(id string, w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodPost || r.URL.Path != "/v1/_acme-challenge" {
		http.Error(w, r.Method+" "+r.URL.Path, http.StatusBadRequest)
		return
	}
	var body struct {
		Value     string   `json:"value"`
		Addresses []string `json:"addresses"`
	}
	d := json.NewDecoder(r.Body)
	d.DisallowUnknownFields()
	if err := d.Decode(&body); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	node, err := peer.Parse(id)
	if err != nil {
		b.t.Error(err)
	}
	info := peer.AddrInfo{ID: node}
	for _, s := range body.Addresses {
		a, err := ma.NewMultiaddr(s)
		if err != nil {
			b.t.Error(err)
		}
		info.Addrs = append(info.Addrs, a)
	}
	c, err := b.h.Dial(r.Context(), info)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	b.mu.Lock()
	b.dials = append(b.dials, c.RemoteAddr().String())
	b.mu.Unlock()
	c.Close()
	b.z.mu.Lock()
	defer b.z.mu.Unlock()
	b.z.txt["_acme-challenge."+autotls.Label(node)+".libp2p.direct"] = body.Value
}

// TestPebble: a node gets a certificate, and a client that trusts the authority reaches it
// by its name, as a browser would: with a broker of plexus, and of go-libp2p's kind.
func TestPebble(t *testing.T) {
	for _, kind := range []string{"plexus", "go-libp2p"} {
		t.Run(kind, func(t *testing.T) {
			z := newZone(t)
			directory, roots := pebble(t, z)
			b := &broker{t: t, z: z, h: newHost(t, z, newKey(t), new(websocket.Transport))}
			var auth http.Handler
			if kind == "plexus" {
				s := &peerauth.Server{Key: b.h.Key(), Hostnames: []string{"example.com"}}
				auth = s.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					id, _ := peerauth.ClientID(r.Context())
					b.serve(id.String(), w, r)
				}))
			} else {
				auth = &goauth.ServerPeerIDAuth{
					PrivKey: goKey(t, b.h.Key()), TokenTTL: time.Hour,
					Next: func(id gopeer.ID, w http.ResponseWriter, r *http.Request) { b.serve(id.String(), w, r) },
				}
			}
			key, dir := newKey(t), t.TempDir()
			var y *plexus.Host
			cfg := autotls.Config{
				Key: key, Addrs: func() []ma.Multiaddr { return y.Addrs() }, Dir: dir, Directory: directory,
				Broker: "https://example.com", Domain: "libp2p.direct",
				HTTPClient: serve(t, auth), LookupTXT: z.LookupTXT, AllowPrivate: true,
				Logger: slog.New(slog.NewTextHandler(t.Output(), nil)),
			}
			c, err := autotls.New(cfg)
			if err != nil {
				t.Fatal(err)
			}
			y = newHost(t, z, key, &websocket.Transport{TLSConfig: &tls.Config{GetCertificate: c.GetCertificate}})
			y.Announce(c.Addrs)
			if err := y.Listen(t.Context(), ma.StringCast("/ip4/127.0.0.1/tcp/0")); err != nil {
				t.Fatal(err)
			}
			plain := y.Addrs()[0]
			port, err := plain.ValueForProtocol(ma.P_TCP)
			if err != nil {
				t.Fatal(err)
			}
			if err := y.Listen(t.Context(), plain.Encapsulate(ma.StringCast("/tls/ws"))); err != nil {
				t.Fatal(err)
			}
			get(t, c)
			if got := fmt.Sprint(b.dials); got != "["+plain.String()+"]" {
				t.Errorf("the broker dialed %s, want %s", got, plain)
			}

			name := "127-0-0-1." + autotls.Label(y.ID()) + ".libp2p.direct"
			want := "/ip4/127.0.0.1/tcp/" + port + "/tls/sni/" + name + "/ws"
			if got := fmt.Sprint(y.Addrs()); got != "["+plain.String()+" "+want+"]" {
				t.Errorf("the host tells %s, want %s in it", got, want)
			}
			for _, a := range []string{"/dns4/" + name + "/tcp/" + port + "/tls/ws", want} {
				x := newHost(t, z, newKey(t), &websocket.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}})
				conn, err := x.Dial(t.Context(), peer.AddrInfo{ID: y.ID(), Addrs: []ma.Multiaddr{ma.StringCast(a)}})
				if err != nil {
					t.Fatal(err)
				}
				if got := conn.RemoteAddr().String(); !strings.HasPrefix(got, want) {
					t.Errorf("connected to %s, want %s", got, want)
				}
				for rtt, err := range ping.Over(t.Context(), conn) {
					if err != nil {
						t.Error(err)
					}
					t.Logf("ping by %s: %v", a, rtt)
					break
				}
				conn.Close()
			}
			// Who does not trust the authority does not connect.
			x := newHost(t, z, newKey(t), new(websocket.Transport))
			if _, err := x.Dial(t.Context(), peer.AddrInfo{ID: y.ID(), Addrs: []ma.Multiaddr{ma.StringCast(want)}}); err == nil {
				t.Error("a client connects that does not know the authority")
			}

			// After a restart the certificate is there, and without it the account is.
			if again, err := autotls.New(cfg); err != nil || !isReady(again) {
				t.Errorf("after a restart: %v", err)
			}
			kept, err := filepath.Glob(filepath.Join(dir, "*", "*.libp2p.direct.pem"))
			if err != nil || len(kept) != 1 {
				t.Fatalf("kept: %q, %v", kept, err)
			}
			if err := os.Remove(kept[0]); err != nil {
				t.Fatal(err)
			}
			again, err := autotls.New(cfg)
			if err != nil || isReady(again) {
				t.Fatalf("without the file: %v", err)
			}
			get(t, again)
		})
	}
}

func isReady(c *autotls.Client) bool {
	select {
	case <-c.Ready():
		return true
	default:
		return false
	}
}

// get runs a client until it has a certificate.
func get(t *testing.T, c *autotls.Client) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- c.Run(ctx) }()
	select {
	case <-c.Ready():
	case <-ctx.Done():
		t.Fatal("no certificate within a minute")
	}
	cancel()
	<-done
}

// TestAuth: peer-ID authentication with go-libp2p at the other end: all kinds of keys, in
// both roles, by a handshake and by a token.
func TestAuth(t *testing.T) {
	const url = "https://example.com/a"
	for _, kind := range []peer.KeyType{peer.Ed25519, peer.Secp256k1, peer.ECDSA, peer.RSA} {
		client, server := newKey(t), newKey(t)
		var err error
		if client, err = peer.GenerateKey(kind); err != nil {
			t.Fatal(err)
		}
		if server, err = peer.GenerateKey(kind); err != nil {
			t.Fatal(err)
		}
		answer := func(id string, w http.ResponseWriter, r *http.Request) {
			b, _ := io.ReadAll(r.Body)
			fmt.Fprintf(w, "%s says %s", id, b)
		}
		check := func(t *testing.T, resp *http.Response, err error) {
			t.Helper()
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			b, err := io.ReadAll(resp.Body)
			if want := client.ID().String() + " says hello"; string(b) != want || err != nil {
				t.Errorf("%q, %v; want %q", b, err, want)
			}
		}
		t.Run(kind.String()+"/plexus to go", func(t *testing.T) {
			requests := 0
			auth := &goauth.ServerPeerIDAuth{
				PrivKey: goKey(t, server), TokenTTL: time.Hour,
				Next: func(id gopeer.ID, w http.ResponseWriter, r *http.Request) { answer(id.String(), w, r) },
			}
			c := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { requests++; auth.ServeHTTP(w, r) }))
			c.Transport = &peerauth.Transport{Key: client, Base: c.Transport}
			for range 2 {
				resp, err := c.Post(url, "text/plain", strings.NewReader("hello"))
				check(t, resp, err)
				if id, ok := peerauth.ServerID(resp); id != server.ID() || !ok {
					t.Errorf("the server is %v, want %v", id, server.ID())
				}
			}
			if requests != 3 {
				t.Errorf("%d requests, want 3: two with the handshake, one with the token", requests)
			}
		})
		t.Run(kind.String()+"/go to plexus", func(t *testing.T) {
			requests := 0
			s := &peerauth.Server{Key: server, Hostnames: []string{"example.com"}}
			auth := s.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				id, _ := peerauth.ClientID(r.Context())
				answer(id.String(), w, r)
			}))
			c := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { requests++; auth.ServeHTTP(w, r) }))
			ga := &goauth.ClientPeerIDAuth{PrivKey: goKey(t, client)}
			for range 2 {
				req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url, strings.NewReader("hello"))
				if err != nil {
					t.Fatal(err)
				}
				id, resp, err := ga.AuthenticatedDo(c, req)
				check(t, resp, err)
				if id.String() != server.ID().String() {
					t.Errorf("the server is %v, want %v", id, server.ID())
				}
			}
			if requests != 3 {
				t.Errorf("%d requests, want 3: two with the handshake, one with the token", requests)
			}
		})
	}
}
