// Command go is the interop peer on go-libp2p.
package main

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"time"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/event"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/libp2p/go-libp2p/p2p/muxer/yamux"
	"github.com/libp2p/go-libp2p/p2p/protocol/ping"
	"github.com/libp2p/go-libp2p/p2p/security/insecure"
	"github.com/libp2p/go-libp2p/p2p/security/noise"
	libp2ptls "github.com/libp2p/go-libp2p/p2p/security/tls"
	libp2pquic "github.com/libp2p/go-libp2p/p2p/transport/quic"
	"github.com/libp2p/go-libp2p/p2p/transport/tcp"
	webrtc "github.com/libp2p/go-libp2p/p2p/transport/webrtc"
	"github.com/libp2p/go-libp2p/p2p/transport/websocket"
	webtransport "github.com/libp2p/go-libp2p/p2p/transport/webtransport"

	"github.com/plexus-p2p/plexus/interop/contract"
)

func main() { contract.Main(stack{}) }

type stack struct{}

func (stack) Features() contract.Features {
	version := "unknown"
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, m := range info.Deps {
			if m.Path == "github.com/libp2p/go-libp2p" {
				version = m.Version
			}
		}
	}
	return contract.Features{
		Name: "go-libp2p", Version: version,
		Transport: []string{"tcp", "ws", "wss", "quic", "webtransport", "webrtc-direct"},
		Security:  []string{"noise", "tls", "plaintext"},
		Muxer:     []string{"yamux"}, // its mplex was a module of its own, and is gone
	}
}

func newHost(o contract.Offer, opts ...libp2p.Option) (host.Host, error) {
	switch o.Transport {
	case "tcp":
		opts = append(opts, libp2p.Transport(tcp.NewTCPTransport))
	case "ws":
		opts = append(opts, libp2p.Transport(websocket.New))
	case "wss":
		conf, err := o.TLS()
		if err != nil {
			return nil, err
		}
		opts = append(opts, libp2p.Transport(websocket.New, websocket.WithTLSConfig(conf), websocket.WithTLSClientConfig(conf)))
	case "quic":
		opts = append(opts, libp2p.Transport(libp2pquic.NewTransport))
	case "webtransport":
		opts = append(opts, libp2p.Transport(webtransport.New))
	case "webrtc-direct":
		opts = append(opts, libp2p.Transport(webrtc.New))
	default:
		return nil, fmt.Errorf("go-libp2p has no transport %s", o.Transport)
	}
	switch o.Security {
	case "noise":
		opts = append(opts, libp2p.Security(noise.ID, noise.New))
	case "tls":
		opts = append(opts, libp2p.Security(libp2ptls.ID, libp2ptls.New))
	case "plaintext":
		opts = append(opts, libp2p.Security(insecure.ID, insecure.NewWithIdentity))
	}
	return libp2p.New(append(opts,
		libp2p.Muxer(yamux.ID, yamux.DefaultTransport),
		libp2p.ResourceManager(&network.NullResourceManager{}),
		libp2p.UserAgent("go-libp2p/"+stack{}.Features().Version),
		libp2p.DisableRelay(), libp2p.DisableMetrics())...)
}

func (stack) Listen(ctx context.Context, on string, o contract.Offer, handlers map[string]contract.Handler) (string, error) {
	h, err := newHost(o, libp2p.ListenAddrStrings(on))
	if err != nil {
		return "", err
	}
	context.AfterFunc(ctx, func() { h.Close() })
	for id, handle := range handlers {
		h.SetStreamHandler(protocol.ID(id), func(s network.Stream) { handle(s) })
	}
	addrs, err := peer.AddrInfoToP2pAddrs(&peer.AddrInfo{ID: h.ID(), Addrs: h.Network().ListenAddresses()})
	if err != nil {
		return "", err
	}
	return addrs[0].String(), nil
}

func (stack) Dial(ctx context.Context, to string, o contract.Offer) (contract.Conn, error) {
	info, err := peer.AddrInfoFromString(to)
	if err != nil {
		return nil, err
	}
	h, err := newHost(o, libp2p.NoListenAddrs)
	if err != nil {
		return nil, err
	}
	// Before the dial, so that it cannot be missed.
	identified, err := h.EventBus().Subscribe(new(event.EvtPeerIdentificationCompleted))
	if err != nil {
		return nil, err
	}
	h.Peerstore().AddAddrs(info.ID, info.Addrs, time.Hour)
	c, err := h.Network().DialPeer(ctx, info.ID)
	if err != nil {
		h.Close()
		return nil, err
	}
	return &conn{h, c, identified}, nil
}

func (stack) IsReset(err error) bool { return errors.Is(err, network.ErrReset) }

type conn struct {
	h          host.Host
	c          network.Conn
	identified event.Subscription
}

func (c *conn) Used() (security, muxer string) {
	st := c.c.ConnState()
	return string(st.Security), string(st.StreamMultiplexer)
}

// Identify waits for the event of the identify round that go-libp2p starts by
// itself on every connection.
func (c *conn) Identify(ctx context.Context) (contract.Identity, error) {
	select {
	case e := <-c.identified.Out():
		e2 := e.(event.EvtPeerIdentificationCompleted)
		id := contract.Identity{Agent: e2.AgentVersion, Protocols: protocol.ConvertToStrings(e2.Protocols)}
		if e2.ObservedAddr != nil {
			id.Observed = e2.ObservedAddr.String()
		}
		// go-libp2p stores the key of the identify message only if it hashes to
		// the peer ID; with ed25519 it can tell the key from the ID as well.
		key := c.h.Peerstore().PubKey(e2.Peer)
		if key == nil {
			return id, errors.New("no public key")
		}
		p, err := peer.IDFromPublicKey(key)
		id.Peer = p.String()
		return id, err
	case <-ctx.Done():
		return contract.Identity{}, fmt.Errorf("no identify message: %w", ctx.Err())
	}
}

func (c *conn) Ping(ctx context.Context, n int) (rtts []time.Duration, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	results := ping.Ping(ctx, c.h, c.c.RemotePeer())
	for range n {
		r, ok := <-results
		if !ok || r.Error != nil {
			return rtts, fmt.Errorf("after %d pings: %w", len(rtts), errors.Join(r.Error, ctx.Err()))
		}
		rtts = append(rtts, r.RTT.Round(time.Microsecond))
	}
	return rtts, nil
}

func (c *conn) Open(ctx context.Context, proto string) (contract.Stream, error) {
	return c.h.NewStream(ctx, c.c.RemotePeer(), protocol.ID(proto))
}

func (c *conn) Close() error { return c.h.Close() }
