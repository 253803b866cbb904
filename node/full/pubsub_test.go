package full

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"

	ma "github.com/multiformats/go-multiaddr"

	"github.com/plexus-p2p/plexus"
	"github.com/plexus-p2p/plexus/node"
	"github.com/plexus-p2p/plexus/peer"
	"github.com/plexus-p2p/plexus/plexustest"
	"github.com/plexus-p2p/plexus/pubsub"
	"github.com/plexus-p2p/plexus/pubsub/floodsub"
	"github.com/plexus-p2p/plexus/pubsub/gossipsub"
	"github.com/plexus-p2p/plexus/pubsub/pubsubtest"
	"github.com/plexus-p2p/plexus/transport"
	"github.com/plexus-p2p/plexus/transport/memory"
	"github.com/plexus-p2p/plexus/transport/websocket"
)

// TestPubSub: both routers over every transport.
func TestPubSub(t *testing.T) {
	web := httptest.NewTLSServer(nil) // for its certificate
	defer web.Close()
	roots := x509.NewCertPool()
	roots.AddCert(web.Certificate())
	cfg := node.Config{TLS: web.TLS, Transports: func(cfg node.Config) ([]transport.Pipes, []transport.Sessions) {
		pipes, sessions := Transports(cfg)
		for _, p := range pipes {
			if ws, ok := p.(*websocket.Transport); ok {
				ws.TLSClientConfig = &tls.Config{RootCAs: roots}
			}
		}
		return pipes, sessions
	}}
	routers := map[string]func() pubsub.Router{
		"floodsub":  func() pubsub.Router { return floodsub.New() },
		"gossipsub": func() pubsub.Router { return gossipsub.Must(gossipsub.LAN()) },
	}
	const hosts = 4
	for _, over := range []string{"/tcp", "/tcp/ws", "/tcp/tls/ws", "/udp/quic-v1", "/udp/quic-v1/webtransport/certhash/certhash", "/udp/webrtc-direct/certhash", "/unix"} {
		for name, router := range routers {
			t.Run(name+" over "+over, func(t *testing.T) {
				dir := t.TempDir()
				var hs []*plexus.Host
				for i := range hosts {
					h, err := node.New(cfg)
					if err != nil {
						t.Fatal(err)
					}
					defer h.Close()
					if err := h.Listen(t.Context(), ma.StringCast("/unix/"+strings.TrimPrefix(filepath.Join(dir, fmt.Sprint(i)), "/"))); err != nil {
						t.Fatal(err)
					}
					hs = append(hs, h)
				}
				pubsubtest.Line(t, router, hs, func(ctx context.Context, from, to *plexus.Host) error {
					for _, a := range to.Addrs() {
						if kind(a) == over {
							_, err := from.Dial(ctx, peer.AddrInfo{ID: to.ID(), Addrs: []ma.Multiaddr{a}})
							return err
						}
					}
					return fmt.Errorf("%v has no such address", to.Addrs())
				})
			})
		}
	}
	for name, router := range routers {
		t.Run(name+" over memory", func(t *testing.T) {
			var n memory.Network
			var hs []*plexus.Host
			for range hosts {
				hs = append(hs, plexustest.Host(t, &n))
			}
			pubsubtest.Line(t, router, hs, func(ctx context.Context, from, to *plexus.Host) error {
				_, err := from.Dial(ctx, to.Info())
				return err
			})
		})
	}
}

// kind names an address's protocols behind 127.0.0.1; "" for other addresses.
func kind(a ma.Multiaddr) (name string) {
	first, rest := ma.SplitFirst(a)
	if first.Protocol().Code == ma.P_UNIX {
		return "/unix"
	}
	if first.Value() != "127.0.0.1" {
		return ""
	}
	for _, c := range rest {
		name += "/" + c.Protocol().Name
	}
	return name
}
