// Command plexus is the interop peer on plexus.
package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	ma "github.com/multiformats/go-multiaddr"

	"github.com/plexus-p2p/plexus"
	"github.com/plexus-p2p/plexus/identify"
	"github.com/plexus-p2p/plexus/interop/contract"
	"github.com/plexus-p2p/plexus/muxer"
	"github.com/plexus-p2p/plexus/muxer/mplex"
	"github.com/plexus-p2p/plexus/muxer/yamux"
	"github.com/plexus-p2p/plexus/peer"
	"github.com/plexus-p2p/plexus/perf"
	"github.com/plexus-p2p/plexus/ping"
	"github.com/plexus-p2p/plexus/security"
	"github.com/plexus-p2p/plexus/security/noise"
	"github.com/plexus-p2p/plexus/security/plaintext"
	"github.com/plexus-p2p/plexus/security/tls"
	"github.com/plexus-p2p/plexus/transport"
	"github.com/plexus-p2p/plexus/transport/quic"
	"github.com/plexus-p2p/plexus/transport/tcp"
	"github.com/plexus-p2p/plexus/transport/webrtc"
	"github.com/plexus-p2p/plexus/transport/websocket"
	"github.com/plexus-p2p/plexus/transport/webtransport"
)

func main() { contract.Main(stack{}) }

type stack struct{}

var (
	securities = map[string]security.Protocol{
		"noise":     &noise.Protocol{},
		"tls":       &tls.Protocol{},
		"plaintext": &plaintext.Protocol{},
	}
	muxers = map[string]muxer.Muxer{
		"yamux": &yamux.Muxer{},
		"mplex": &mplex.Muxer{},
	}
	transports = map[string]func(*plexus.Config, contract.Offer) error{
		"tcp": func(c *plexus.Config, _ contract.Offer) error {
			c.Pipes = []transport.Pipes{&tcp.Transport{}}
			return nil
		},
		"ws": func(c *plexus.Config, _ contract.Offer) error {
			c.Pipes = []transport.Pipes{&websocket.Transport{}}
			return nil
		},
		"wss": func(c *plexus.Config, o contract.Offer) error {
			conf, err := o.TLS()
			c.Pipes = []transport.Pipes{&websocket.Transport{TLSConfig: conf, TLSClientConfig: conf}}
			return err
		},
		"quic": func(c *plexus.Config, _ contract.Offer) error {
			c.Sessions = []transport.Sessions{&quic.Transport{Key: c.Key}}
			return nil
		},
		"webtransport": func(c *plexus.Config, _ contract.Offer) error {
			c.Sessions = []transport.Sessions{&webtransport.Transport{Key: c.Key}}
			return nil
		},
		"webrtc-direct": func(c *plexus.Config, _ contract.Offer) error {
			c.Sessions = []transport.Sessions{&webrtc.Transport{Key: c.Key}}
			return nil
		},
	}
)

func (stack) Features() contract.Features {
	return contract.Features{
		Name: "plexus", Version: "from this checkout",
		Transport: slices.Sorted(maps.Keys(transports)),
		Security:  slices.Sorted(maps.Keys(securities)),
		Muxer:     slices.Sorted(maps.Keys(muxers)),
	}
}

func newHost(o contract.Offer) (*plexus.Host, error) {
	key, err := peer.GenerateKey(peer.Ed25519)
	if err != nil {
		return nil, err
	}
	c := plexus.Config{Key: key}
	if add := transports[o.Transport]; add == nil {
		return nil, fmt.Errorf("plexus has no transport %s", o.Transport)
	} else if err := add(&c, o); err != nil {
		return nil, err
	}
	if c.Pipes != nil {
		if securities[o.Security] == nil || muxers[o.Muxer] == nil {
			return nil, fmt.Errorf("plexus has no %s over %s", o.Muxer, o.Security)
		}
		c.Security = []security.Protocol{securities[o.Security]}
		c.Muxers = []muxer.Muxer{muxers[o.Muxer]}
	}
	h, err := plexus.New(c)
	if err != nil {
		return nil, err
	}
	identify.Start(h, identify.Config{})
	ping.Serve(h)
	return h, nil
}

func (stack) Listen(ctx context.Context, on string, o contract.Offer, handlers map[string]contract.Handler) (string, error) {
	h, err := newHost(o)
	if err != nil {
		return "", err
	}
	context.AfterFunc(ctx, func() { h.Close() })
	perf.Serve(h)
	for proto, handle := range handlers {
		if proto == contract.Perf {
			continue // plexus has its own
		}
		h.Handle(proto, func(_ context.Context, s *plexus.Stream) error {
			handle(stream{s})
			return nil
		})
	}
	addr, err := ma.NewMultiaddr(on)
	if err != nil {
		return "", err
	}
	if err := h.Listen(ctx, addr); err != nil {
		return "", err
	}
	return fmt.Sprintf("%s/p2p/%s", h.ListenAddrs()[0], h.ID()), nil
}

func (stack) Dial(ctx context.Context, to string, o contract.Offer) (contract.Conn, error) {
	info, err := peer.ParseAddrInfo(to)
	if err != nil {
		return nil, err
	}
	h, err := newHost(o)
	if err != nil {
		return nil, err
	}
	c, err := h.Dial(ctx, info)
	if err != nil {
		h.Close()
		return nil, err
	}
	return &conn{h, c}, nil
}

func (stack) IsReset(err error) bool {
	e, ok := errors.AsType[*plexus.StreamError](err)
	return ok && e.Remote
}

type conn struct {
	h *plexus.Host
	c *plexus.Conn
}

func (c *conn) Used() (security, muxer string) { return c.c.Security(), c.c.Muxer() }

func (c *conn) Identify(ctx context.Context) (contract.Identity, error) {
	id, err := c.c.WaitIdentity(ctx)
	if err != nil {
		return contract.Identity{}, err
	}
	observed := ""
	if id.Observed != nil {
		observed = id.Observed.String()
	}
	// plexus takes the key from the handshake, which proved it.
	return contract.Identity{Agent: id.Agent, Protocols: id.Protocols, Observed: observed, Peer: c.c.Key().ID().String()}, nil
}

func (c *conn) Ping(ctx context.Context, n int) (rtts []time.Duration, err error) {
	for rtt, err := range ping.Over(ctx, c.c) {
		if err != nil {
			return rtts, err
		}
		if rtts = append(rtts, rtt.Round(time.Microsecond)); len(rtts) == n {
			break
		}
	}
	return rtts, nil
}

func (c *conn) Open(ctx context.Context, protocol string) (contract.Stream, error) {
	s, err := c.c.Open(ctx, protocol)
	if err != nil {
		return nil, err
	}
	return stream{s}, nil
}

func (c *conn) Close() error { return c.h.Close() }

type stream struct{ *plexus.Stream }

func (s stream) Reset() error { return s.Stream.Reset(0) }
