// Package node makes a ready [plexus.Host]: default transports, security,
// muxers and services, each replaceable by one field.
package node

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"syscall"

	ma "github.com/multiformats/go-multiaddr"

	"github.com/plexus-p2p/plexus"
	"github.com/plexus-p2p/plexus/identify"
	"github.com/plexus-p2p/plexus/muxer"
	"github.com/plexus-p2p/plexus/muxer/yamux"
	"github.com/plexus-p2p/plexus/peer"
	"github.com/plexus-p2p/plexus/ping"
	"github.com/plexus-p2p/plexus/security"
	"github.com/plexus-p2p/plexus/security/noise"
	"github.com/plexus-p2p/plexus/security/pnet"
	libp2ptls "github.com/plexus-p2p/plexus/security/tls"
	"github.com/plexus-p2p/plexus/transport"
	"github.com/plexus-p2p/plexus/transport/quic"
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

	// Listen are the multiaddrs to listen on; each must succeed. Nil: all interfaces,
	// by every transport that has ports, of which one TCP port and the UDP port of
	// the same number are used; a machine without IPv6 may miss those addresses.
	// Empty but not nil: none.
	Listen []string

	// Port is the port of the default addresses. 0: one that is free.
	Port uint16

	// Security and Muxers, in order of preference. Nil: Noise, TLS; yamux.
	Security []security.Protocol
	Muxers   []muxer.Muxer

	// Transports makes the transports, in order of preference; it gets this Config
	// with the Key in it. Nil: [Transports]. Package full has all that there are.
	Transports func(Config) ([]transport.Pipes, []transport.Sessions)

	// TLS has the certificates, that browsers trust, for WebSocket over TLS. Nil: none.
	TLS *tls.Config

	// Private is the key of the private network that the node is in: it reaches
	// nobody else, and transports that could are an error. Zero: an open network,
	// which is an error where the environment has LIBP2P_FORCE_PNET=1.
	Private pnet.Key

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
	if err := identity(&cfg); err != nil {
		return nil, err
	}
	if cfg.Transports == nil {
		cfg.Transports = Transports
	}
	pc := plexus.Config{
		Key: cfg.Key, Network: cfg.Network, Security: cfg.Security, Muxers: cfg.Muxers,
		Limits: cfg.Limits, Allow: cfg.Allow, Logger: cfg.Logger,
	}
	pc.Pipes, pc.Sessions = cfg.Transports(cfg)
	if err := private(&pc, cfg.Private); err != nil {
		return nil, err
	}
	if pc.Security == nil {
		pc.Security = []security.Protocol{&noise.Protocol{}, &libp2ptls.Protocol{}}
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
	if cfg.Listen == nil {
		err = listenDefault(h, &cfg)
	} else {
		err = listen(h, cfg.Listen)
	}
	if err != nil {
		h.Close()
		return nil, err
	}
	return h, nil
}

// identity finds the key of a node.
func identity(cfg *Config) (err error) {
	switch {
	case !cfg.Key.IsZero():
	case cfg.KeyFile != "":
		cfg.Key, err = peer.LoadOrCreateKey(cfg.KeyFile)
	default:
		cfg.Key, err = peer.GenerateKey(peer.Ed25519)
	}
	return err
}

// Transports are TCP and QUIC.
func Transports(cfg Config) ([]transport.Pipes, []transport.Sessions) {
	return []transport.Pipes{&tcp.Transport{Network: cfg.Network}},
		[]transport.Sessions{&quic.Transport{Key: cfg.Key, Network: cfg.Network, Private: cfg.Private}}
}

// private makes the transports those of a private network, if there is a key.
//
// "It can be enabled by setting LIBP2P_FORCE_PNET=1 in the environment before starting
// […] any other libp2p based application. In the event that the node is trying to
// connect with no PSK […] an error will be raised".
// https://github.com/libp2p/specs/blob/master/pnet/Private-Networks-PSK-V1.md
func private(pc *plexus.Config, key pnet.Key) error {
	if key == (pnet.Key{}) {
		if os.Getenv("LIBP2P_FORCE_PNET") == "1" {
			return fmt.Errorf("node: LIBP2P_FORCE_PNET=1, but %w", pnet.ErrNoKey)
		}
		return nil
	}
	for _, t := range pc.Sessions {
		if m, ok := t.(interface{ PrivateNetwork() pnet.Key }); !ok || m.PrivateNetwork() != key {
			return fmt.Errorf("node: %T is not in the private network", t)
		}
	}
	open := pc.Pipes
	pc.Pipes = nil
	for _, t := range open {
		pc.Pipes = append(pc.Pipes, &pnet.Transport{Key: key, Pipes: t})
	}
	return nil
}

// listen listens on addresses, each of which must succeed.
func listen(h *plexus.Host, on []string) error {
	for _, s := range on {
		a, err := ma.NewMultiaddr(s)
		if err != nil {
			return fmt.Errorf("node: listen address %q: %w", s, err)
		}
		if err := h.Listen(context.Background(), a); err != nil {
			return err
		}
	}
	return nil
}

// suffixes are the addresses by which transports listen, less the IP.
func suffixes(cfg *Config) []string {
	list := []string{
		"/tcp/%d", "/tcp/%d/ws",
		"/udp/%d/quic-v1", "/udp/%d/quic-v1/webtransport", "/udp/%d/webrtc-direct",
	}
	if cfg.TLS != nil {
		list = append(list, "/tcp/%d/tls/ws")
	}
	return list
}

// listenDefault listens on one port of all interfaces. A free one may be taken
// for another transport or family, so that 0 tries some.
func listenDefault(h *plexus.Host, cfg *Config) error {
	const attempts = 16
	for i := 1; ; i++ {
		err := listenOn(h, suffixes(cfg), cfg.Port)
		if err == nil || cfg.Port != 0 || !errors.Is(err, syscall.EADDRINUSE) || i == attempts {
			return err
		}
		for _, a := range h.ListenAddrs() {
			h.StopListening(a)
		}
	}
}

func listenOn(h *plexus.Host, suffixes []string, port uint16) error {
	for _, ip := range []string{"/ip4/0.0.0.0", "/ip6/::"} {
		for _, s := range suffixes {
			err := h.Listen(context.Background(), ma.StringCast(ip+fmt.Sprintf(s, port)))
			switch {
			case err == nil && port == 0:
				port = chosen(h.ListenAddrs()[0])
			case errors.Is(err, plexus.ErrNoTransport): // has no such addresses
			case err != nil && (ip != "/ip6/::" || errors.Is(err, syscall.EADDRINUSE)):
				return err
			}
		}
	}
	return nil
}

// chosen is the port of an address.
func chosen(a ma.Multiaddr) uint16 {
	if at, _, ok := transport.TCPAddrPort(a); ok {
		return at.Port()
	}
	at, _, _ := transport.UDPAddrPort(a)
	return at.Port()
}
