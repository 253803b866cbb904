package main

import (
	"context"
	"crypto/rand"
	"io"
	"net"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/libp2p/go-libp2p/core/sec"
	"github.com/libp2p/go-libp2p/core/transport"
	"github.com/libp2p/go-libp2p/p2p/host/blank"
	"github.com/libp2p/go-libp2p/p2p/host/eventbus"
	"github.com/libp2p/go-libp2p/p2p/host/peerstore/pstoremem"
	rcmgr "github.com/libp2p/go-libp2p/p2p/host/resource-manager"
	"github.com/libp2p/go-libp2p/p2p/muxer/yamux"
	"github.com/libp2p/go-libp2p/p2p/net/swarm"
	"github.com/libp2p/go-libp2p/p2p/net/upgrader"
	"github.com/libp2p/go-libp2p/p2p/security/noise"
	tls "github.com/libp2p/go-libp2p/p2p/security/tls"
	libp2pquic "github.com/libp2p/go-libp2p/p2p/transport/quic"
	"github.com/libp2p/go-libp2p/p2p/transport/quicreuse"
	"github.com/libp2p/go-libp2p/p2p/transport/tcp"
	libp2pwebrtc "github.com/libp2p/go-libp2p/p2p/transport/webrtc"
	"github.com/libp2p/go-libp2p/p2p/transport/websocket"
	libp2pwebtransport "github.com/libp2p/go-libp2p/p2p/transport/webtransport"
	ma "github.com/multiformats/go-multiaddr"
	"github.com/multiformats/go-multistream"
	"github.com/quic-go/quic-go"
)

type libp2pImpl struct {
	h    host.Host
	sw   *swarm.Swarm   // nil: a default node, where identify runs and NewStream waits for it
	pool chan host.Host // of default nodes that dial
}

var muxers = []upgrader.StreamMuxer{{ID: yamux.ID, Muxer: yamux.DefaultTransport}}

// newLibp2p makes a host with TCP and one security protocol, or with Noise on
// WebSocket, or QUIC: a default node, or
// a swarm with as little around it as there can be. The resource manager has
// no limits; that it accounts at all is the default, and stays.
func newLibp2p(security string, services bool) (impl, error) {
	rm, err := rcmgr.NewResourceManager(rcmgr.NewFixedLimiter(rcmgr.InfiniteLimits))
	if err != nil {
		return nil, err
	}
	listen := "/ip4/" + loopback() + "/tcp/0"
	if services {
		l := &libp2pImpl{pool: make(chan host.Host, 16)}
		for range cap(l.pool) {
			h, err := libp2p.New(
				libp2p.ListenAddrStrings(listen),
				libp2p.Transport(tcp.NewTCPTransport),
				libp2p.Security(noise.ID, noise.New),
				libp2p.Muxer(yamux.ID, yamux.DefaultTransport),
				libp2p.ResourceManager(rm),
			)
			if err != nil {
				return nil, err
			}
			l.h = h
			l.pool <- h
		}
		return l, nil
	}
	key, pub, err := crypto.GenerateEd25519Key(rand.Reader)
	if err != nil {
		return nil, err
	}
	id, err := peer.IDFromPublicKey(pub)
	if err != nil {
		return nil, err
	}
	ps, err := pstoremem.NewPeerstore()
	if err != nil {
		return nil, err
	}
	ps.AddPrivKey(id, key)
	ps.AddPubKey(id, pub)
	bus := eventbus.NewBus()
	sw, err := swarm.NewSwarm(id, ps, bus, swarm.WithResourceManager(rm))
	if err != nil {
		return nil, err
	}
	var tr transport.Transport
	switch security {
	case "webrtc":
		listen = "/ip4/" + loopback() + "/udp/0/webrtc-direct"
		listenUDP := func(network string, at *net.UDPAddr) (net.PacketConn, error) { return net.ListenUDP(network, at) }
		if tr, err = libp2pwebrtc.New(key, nil, nil, rm, listenUDP); err != nil {
			return nil, err
		}
	case "quic", "webtransport":
		cm, err := quicreuse.NewConnManager(quic.StatelessResetKey{}, quic.TokenGeneratorKey{})
		if err != nil {
			return nil, err
		}
		listen = "/ip4/" + loopback() + "/udp/0/quic-v1"
		if security == "quic" {
			tr, err = libp2pquic.NewTransport(key, cm, nil, nil, rm)
		} else {
			listen += "/webtransport"
			tr, err = libp2pwebtransport.New(key, nil, cm, nil, rm)
		}
		if err != nil {
			return nil, err
		}
	default:
		if security == "ws" {
			listen += "/ws"
		}
		if tr, err = newPipe(security, key, rm); err != nil {
			return nil, err
		}
	}
	if err := sw.AddTransport(tr); err != nil {
		return nil, err
	}
	if err := sw.Listen(ma.StringCast(listen)); err != nil {
		return nil, err
	}
	return &libp2pImpl{h: blankhost.NewBlankHost(sw, blankhost.WithEventBus(bus)), sw: sw}, nil
}

func newPipe(security string, key crypto.PrivKey, rm network.ResourceManager) (transport.Transport, error) {
	var st sec.SecureTransport
	var err error
	if security == "tls" {
		st, err = tls.New(tls.ID, key, muxers)
	} else {
		st, err = noise.New(noise.ID, key, muxers)
	}
	if err != nil {
		return nil, err
	}
	up, err := upgrader.New([]sec.SecureTransport{st}, muxers, nil, rm, nil)
	if err != nil {
		return nil, err
	}
	if security == "ws" {
		return websocket.New(up, rm, nil)
	}
	return tcp.NewTCPTransport(up, rm, nil)
}

func (l *libp2pImpl) listen() (string, error) {
	for _, proto := range protos {
		l.h.SetStreamHandler(protocol.ID(proto), func(s network.Stream) {
			if err := serve(proto, s); err != nil {
				s.Reset()
				return
			}
			s.Close()
		})
	}
	a, err := peer.AddrInfoToP2pAddrs(&peer.AddrInfo{ID: l.h.ID(), Addrs: l.h.Addrs()})
	if err != nil {
		return "", err
	}
	return a[0].String(), nil
}

func (l *libp2pImpl) dial(ctx context.Context, addr string) (conn, error) {
	info, err := peer.AddrInfoFromString(addr)
	if err != nil {
		return nil, err
	}
	if l.sw == nil {
		// A host has one connection to a peer: whoever wants 16 takes 16 hosts.
		h := <-l.pool
		if err := h.Connect(ctx, *info); err != nil {
			return nil, err
		}
		return nodeConn{l, h, h.Network().ConnsToPeer(info.ID)[0]}, nil
	}
	// Beside the swarm's table, for the same reason.
	c, err := l.sw.TransportForDialing(info.Addrs[0]).Dial(ctx, info.Addrs[0], info.ID)
	if err != nil {
		return nil, err
	}
	return bareConn{c}, nil
}

type nodeConn struct {
	l *libp2pImpl
	h host.Host
	c network.Conn
}

func (c nodeConn) open(ctx context.Context, proto string) (stream, error) {
	return c.h.NewStream(ctx, c.c.RemotePeer(), protocol.ID(proto))
}

func (c nodeConn) Close() error {
	defer func() { c.l.pool <- c.h }()
	return c.c.Close()
}

type bareConn struct{ c transport.CapableConn }

// open proposes lazily, as a default node does on a protocol that identify has
// told of.
func (c bareConn) open(ctx context.Context, proto string) (stream, error) {
	s, err := c.c.OpenStream(ctx)
	if err != nil {
		return nil, err
	}
	return lazyStream{s, multistream.NewMSSelect(s, protocol.ID(proto))}, nil
}

func (c bareConn) Close() error { return c.c.Close() }

type lazyStream struct {
	network.MuxedStream
	lazy io.ReadWriter
}

func (s lazyStream) Read(b []byte) (int, error)  { return s.lazy.Read(b) }
func (s lazyStream) Write(b []byte) (int, error) { return s.lazy.Write(b) }
