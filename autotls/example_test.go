package autotls_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"log"

	ma "github.com/multiformats/go-multiaddr"

	"github.com/plexus-p2p/plexus"
	"github.com/plexus-p2p/plexus/autotls"
	"github.com/plexus-p2p/plexus/node"
	"github.com/plexus-p2p/plexus/peer"
	"github.com/plexus-p2p/plexus/transport"
	"github.com/plexus-p2p/plexus/transport/tcp"
	"github.com/plexus-p2p/plexus/transport/websocket"
)

// A node that browsers reach: on one TCP port, by WebSocket over TLS too.
func Example() {
	key, err := peer.LoadOrCreateKey("node.key")
	if err != nil {
		log.Fatal(err)
	}
	var h *plexus.Host
	var c *autotls.Client
	c, err = autotls.New(autotls.Config{
		Key:    key,
		Dir:    "certificates",
		Addrs:  func() []ma.Multiaddr { return h.Addrs() },
		Notify: func(*x509.Certificate) { h.Announce(c.Addrs) }, // the host tells its peers
	})
	if err != nil {
		log.Fatal(err)
	}
	h, err = node.New(node.Config{
		Key:    key,
		Listen: []string{"/ip4/0.0.0.0/tcp/4001", "/ip4/0.0.0.0/tcp/4001/tls/ws"},
		Transports: func(node.Config) ([]transport.Pipes, []transport.Sessions) {
			t := new(tcp.Transport)
			ws := &websocket.Transport{TCP: t, TLSConfig: &tls.Config{GetCertificate: c.GetCertificate}}
			return []transport.Pipes{t, ws}, nil
		},
	})
	if err != nil {
		log.Fatal(err)
	}
	defer h.Close()
	h.Announce(c.Addrs)
	c.Run(context.Background())
}
