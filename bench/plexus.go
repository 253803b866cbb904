package main

import (
	"context"
	"log/slog"

	"github.com/plexus-p2p/plexus"
	"github.com/plexus-p2p/plexus/muxer"
	"github.com/plexus-p2p/plexus/muxer/yamux"
	"github.com/plexus-p2p/plexus/node"
	"github.com/plexus-p2p/plexus/node/full"
	"github.com/plexus-p2p/plexus/peer"
	"github.com/plexus-p2p/plexus/security"
	"github.com/plexus-p2p/plexus/security/noise"
	"github.com/plexus-p2p/plexus/security/tls"
)

type plexusImpl struct{ h *plexus.Host }

// newPlexus makes a host: with default services as node makes it, or bare. Both
// take any number of connections of one peer, as go-libp2p's is told to.
func newPlexus(sec string, services bool) (impl, error) {
	cfg := node.Config{
		Listen:     []string{"/ip4/" + loopback() + "/tcp/0"},
		NoServices: !services,
		Muxers:     []muxer.Muxer{&yamux.Muxer{MaxStreams: -1}},
		Limits:     plexus.Limits{Conns: -1, ConnsPerPeer: -1, Streams: -1},
		Logger:     slog.New(slog.DiscardHandler),
	}
	switch sec {
	case "noise":
		cfg.Security = []security.Protocol{&noise.Protocol{}}
	case "ws":
		cfg.Security = []security.Protocol{&noise.Protocol{}}
		cfg.Transports = full.Transports
		cfg.Listen[0] += "/ws"
	case "tls":
		cfg.Security = []security.Protocol{&tls.Protocol{}}
	case "quic":
		cfg.Listen = []string{"/ip4/" + loopback() + "/udp/0/quic-v1"}
	case "webtransport":
		cfg.Transports = full.Transports
		cfg.Listen = []string{"/ip4/" + loopback() + "/udp/0/quic-v1/webtransport"}
	case "webrtc":
		cfg.Transports = full.Transports
		cfg.Listen = []string{"/ip4/" + loopback() + "/udp/0/webrtc-direct"}
	}
	h, err := node.New(cfg)
	return plexusImpl{h}, err
}

func (p plexusImpl) listen() (string, error) {
	for _, proto := range protos {
		p.h.Handle(proto, func(_ context.Context, s *plexus.Stream) error { return serve(proto, s) })
	}
	return p.h.Info().Full()[0].String(), nil
}

func (p plexusImpl) dial(ctx context.Context, addr string) (conn, error) {
	info, err := peer.ParseAddrInfo(addr)
	if err != nil {
		return nil, err
	}
	info.ID = "" // as there may be a connection, and this is to be a fresh one
	c, err := p.h.Dial(ctx, info)
	if err != nil {
		return nil, err
	}
	return plexusConn{c}, nil
}

type plexusConn struct{ *plexus.Conn }

func (c plexusConn) open(ctx context.Context, proto string) (stream, error) {
	return c.Conn.Open(ctx, proto)
}

// Close does not wait for the peer to hang up, as go-libp2p does not.
func (c plexusConn) Close() error {
	go c.Conn.Close() // bounded by Limits.Linger
	return nil
}
