// Package node makes a ready [plexus.Host]: default transports, security,
// muxers and services, each replaceable by one field.
package node

import (
	"context"
	"fmt"
	"log/slog"

	ma "github.com/multiformats/go-multiaddr"

	"github.com/plexus-p2p/plexus"
	"github.com/plexus-p2p/plexus/identify"
	"github.com/plexus-p2p/plexus/muxer"
	"github.com/plexus-p2p/plexus/muxer/yamux"
	"github.com/plexus-p2p/plexus/peer"
	"github.com/plexus-p2p/plexus/ping"
	"github.com/plexus-p2p/plexus/security"
	"github.com/plexus-p2p/plexus/security/noise"
	"github.com/plexus-p2p/plexus/security/tls"
	"github.com/plexus-p2p/plexus/transport"
	"github.com/plexus-p2p/plexus/transport/tcp"
)

// Config says what differs from the defaults. Its zero value is a node with a
// fresh identity that listens on every interface.
type Config struct {
	// Key is the node's identity. Zero: the one of KeyFile.
	Key peer.PrivKey

	// KeyFile keeps the identity from run to run: it is made, mode 0600, where
	// it does not exist. Empty: a fresh identity each time.
	KeyFile string

	// Listen are the multiaddrs to listen on. Nil: /ip4/0.0.0.0/tcp/0 and
	// /ip6/::/tcp/0. Empty but not nil: none. Each must succeed, but that a
	// machine without IPv6 may miss the IPv6 default.
	Listen []string

	// Security and Muxers, in order of preference. Nil: Noise, TLS; yamux.
	Security []security.Protocol
	Muxers   []muxer.Muxer

	// Pipes replaces the transports. Nil: TCP.
	Pipes []transport.Pipes

	// Network is what the host runs on. Nil: the operating system's.
	Network transport.Network

	// Agent is the name and version that identify tells. Empty: "plexus".
	Agent string

	// NoServices leaves out identify and ping.
	NoServices bool

	Limits plexus.Limits
	Allow  func(plexus.Stage, plexus.ConnInfo) error
	Logger *slog.Logger
}

// New makes a node and starts it. Close it when done.
func New(cfg Config) (*plexus.Host, error) {
	key, err := identity(cfg)
	if err != nil {
		return nil, err
	}
	pc := plexus.Config{
		Key: key, Network: cfg.Network, Pipes: cfg.Pipes, Security: cfg.Security, Muxers: cfg.Muxers,
		Limits: cfg.Limits, Allow: cfg.Allow, Logger: cfg.Logger,
	}
	if pc.Pipes == nil {
		pc.Pipes = []transport.Pipes{&tcp.Transport{Network: cfg.Network}}
	}
	if pc.Security == nil {
		pc.Security = []security.Protocol{&noise.Protocol{}, &tls.Protocol{}}
	}
	if pc.Muxers == nil {
		pc.Muxers = []muxer.Muxer{&yamux.Muxer{}}
	}
	h, err := plexus.New(pc)
	if err != nil {
		return nil, err
	}
	if !cfg.NoServices {
		identify.Start(h, identify.Config{Agent: cfg.Agent, Logger: cfg.Logger})
		ping.Serve(h)
	}
	if err := listen(h, cfg.Listen); err != nil {
		h.Close()
		return nil, err
	}
	return h, nil
}

func identity(cfg Config) (peer.PrivKey, error) {
	switch {
	case !cfg.Key.IsZero():
		return cfg.Key, nil
	case cfg.KeyFile != "":
		return peer.LoadOrCreateKey(cfg.KeyFile)
	}
	return peer.GenerateKey(peer.Ed25519)
}

func listen(h *plexus.Host, on []string) error {
	var optional string
	if on == nil {
		optional = "/ip6/::/tcp/0"
		on = []string{"/ip4/0.0.0.0/tcp/0", optional}
	}
	for _, s := range on {
		a, err := ma.NewMultiaddr(s)
		if err != nil {
			return fmt.Errorf("node: listen address %q: %w", s, err)
		}
		if err := h.Listen(context.Background(), a); err != nil && s != optional {
			return err
		}
	}
	return nil
}
