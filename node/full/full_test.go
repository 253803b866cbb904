package full

import (
	"crypto/tls"
	"crypto/x509"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"

	ma "github.com/multiformats/go-multiaddr"

	"github.com/plexus-p2p/plexus/node"
	"github.com/plexus-p2p/plexus/peer"
	"github.com/plexus-p2p/plexus/ping"
	"github.com/plexus-p2p/plexus/security/pnet"
	"github.com/plexus-p2p/plexus/transport"
	"github.com/plexus-p2p/plexus/transport/websocket"
)

// TestTransports: each address of a node leads to it, from a node that does the same.
func TestTransports(t *testing.T) {
	web := httptest.NewTLSServer(nil) // for its certificate
	defer web.Close()
	cfg := node.Config{TLS: web.TLS}
	roots := x509.NewCertPool()
	roots.AddCert(web.Certificate())
	cfg.Transports = func(cfg node.Config) ([]transport.Pipes, []transport.Sessions) {
		pipes, sessions := Transports(cfg)
		for _, p := range pipes {
			if ws, ok := p.(*websocket.Transport); ok {
				ws.TLSClientConfig = &tls.Config{RootCAs: roots}
			}
		}
		return pipes, sessions
	}
	server, err := node.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	if err := server.Listen(t.Context(), ma.StringCast("/unix/"+strings.TrimPrefix(filepath.Join(t.TempDir(), "socket"), "/"))); err != nil {
		t.Fatal(err)
	}
	tried := make(map[string]bool)
	for _, a := range server.Addrs() {
		if ip, _ := ma.SplitFirst(a); ip.Protocol().Code != ma.P_UNIX && ip.Value() != "127.0.0.1" && ip.Value() != "::1" {
			continue
		}
		cfg.Listen = []string{}
		client, err := node.New(cfg)
		if err != nil {
			t.Fatal(err)
		}
		c, err := client.Dial(t.Context(), peer.AddrInfo{ID: server.ID(), Addrs: []ma.Multiaddr{a}})
		if err != nil {
			t.Errorf("%s: %v", a, err)
		} else if _, err := c.WaitIdentity(t.Context()); err != nil {
			t.Errorf("%s: %v", a, err)
		} else {
			for _, err := range ping.Over(t.Context(), c) {
				if err != nil {
					t.Errorf("%s: %v", a, err)
				}
				break
			}
		}
		client.Close()
		name := ""
		for _, c := range a[1:] {
			name += "/" + c.Protocol().Name
		}
		tried[name] = true
	}
	for _, name := range []string{"/tcp", "/tcp/ws", "/tcp/tls/ws", "/udp/quic-v1", "/udp/quic-v1/webtransport/certhash/certhash", "/udp/webrtc-direct/certhash", ""} { // the last is unix
		if !tried[name] {
			t.Errorf("%s was not tried: %v", name, server.Addrs())
		}
	}
}

// TestPrivate: what cannot keep to a private network is not there.
func TestPrivate(t *testing.T) {
	h, err := node.New(node.Config{Transports: Transports, Private: pnet.NewKey()})
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	for _, a := range h.Addrs() {
		if strings.Contains(a.String(), "webrtc") {
			t.Errorf("%s in a private network", a)
		}
	}
}
