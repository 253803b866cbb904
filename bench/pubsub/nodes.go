package main

import (
	"context"
	"fmt"
	"log/slog"

	"github.com/libp2p/go-libp2p"
	gopubsub "github.com/libp2p/go-libp2p-pubsub"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	gopeer "github.com/libp2p/go-libp2p/core/peer"
	goyamux "github.com/libp2p/go-libp2p/p2p/muxer/yamux"
	gonoise "github.com/libp2p/go-libp2p/p2p/security/noise"
	gotcp "github.com/libp2p/go-libp2p/p2p/transport/tcp"

	"github.com/plexus-p2p/plexus"
	"github.com/plexus-p2p/plexus/muxer"
	"github.com/plexus-p2p/plexus/muxer/yamux"
	"github.com/plexus-p2p/plexus/node"
	"github.com/plexus-p2p/plexus/peer"
	"github.com/plexus-p2p/plexus/pubsub"
	"github.com/plexus-p2p/plexus/pubsub/gossipsub"
	"github.com/plexus-p2p/plexus/security"
	"github.com/plexus-p2p/plexus/security/noise"
)

// A member is a host in the network under test: TCP, Noise, yamux, and gossipsub as the
// stack sets it up by itself, messages signed.
type member interface {
	addr() string
	dial(ctx context.Context, addr string) error

	// join starts gossipsub and subscribes. Each message that comes is given to got, by
	// one goroutine.
	join(ctx context.Context, got func(data []byte)) error

	// peers is how many neighbours are subscribed.
	peers() int

	// publish returns false where the stack says that somebody does not get it.
	publish(ctx context.Context, data []byte) bool

	// told is how many messages the stack has counted as not sent or not delivered.
	told() uint64
}

const topic = "bench"

var stacks = map[string]func() (member, error){
	"plexus":    func() (member, error) { return newPlexus() },
	"go-libp2p": func() (member, error) { return newLibp2p() },
}

type plexusMember struct {
	h     *plexus.Host
	ps    *pubsub.PubSub
	topic *pubsub.Topic
}

func newPlexus() (*plexusMember, error) {
	h, err := node.New(node.Config{
		Listen:   []string{"/ip4/127.0.0.1/tcp/0"},
		Security: []security.Protocol{&noise.Protocol{}},
		Muxers:   []muxer.Muxer{&yamux.Muxer{}},
		Logger:   slog.New(slog.DiscardHandler),
	})
	return &plexusMember{h: h}, err
}

func (m *plexusMember) addr() string { return m.h.Info().Full()[0].String() }

func (m *plexusMember) dial(ctx context.Context, addr string) error {
	info, err := peer.ParseAddrInfo(addr)
	if err == nil {
		_, err = m.h.Dial(ctx, info)
	}
	return err
}

func (m *plexusMember) join(ctx context.Context, got func([]byte)) (err error) {
	if m.ps, err = pubsub.New(m.h, gossipsub.Must(gossipsub.Default()), pubsub.Config{}); err != nil {
		return err
	}
	if m.topic, err = m.ps.Join(topic, pubsub.TopicConfig{}); err != nil {
		return err
	}
	sub := m.topic.Subscribe()
	go func() { // ends with the process
		for msg, err := range sub.All(ctx) {
			if err == nil && msg.ReceivedFrom != m.h.ID() {
				got(msg.Data)
			}
		}
	}()
	return nil
}

func (m *plexusMember) peers() int { return len(m.ps.Peers(topic)) }

func (m *plexusMember) publish(ctx context.Context, data []byte) bool {
	r, err := m.topic.Publish(ctx, data)
	return err == nil && r.Left == 0
}

func (m *plexusMember) told() (n uint64) {
	for _, v := range m.ps.Stats().Dropped {
		n += v
	}
	return n
}

type goMember struct {
	h     host.Host
	ps    *gopubsub.PubSub
	topic *gopubsub.Topic
}

func newLibp2p() (*goMember, error) {
	h, err := libp2p.New(
		libp2p.ListenAddrStrings("/ip4/127.0.0.1/tcp/0"),
		libp2p.Transport(gotcp.NewTCPTransport),
		libp2p.Security(gonoise.ID, gonoise.New),
		libp2p.Muxer(goyamux.ID, goyamux.DefaultTransport),
		libp2p.ResourceManager(&network.NullResourceManager{}),
		libp2p.DisableRelay(), libp2p.DisableMetrics())
	return &goMember{h: h}, err
}

func (m *goMember) addr() string { return fmt.Sprintf("%s/p2p/%s", m.h.Addrs()[0], m.h.ID()) }

func (m *goMember) dial(ctx context.Context, addr string) error {
	info, err := gopeer.AddrInfoFromString(addr)
	if err != nil {
		return err
	}
	return m.h.Connect(ctx, *info)
}

func (m *goMember) join(ctx context.Context, got func([]byte)) (err error) {
	if m.ps, err = gopubsub.NewGossipSub(ctx, m.h); err != nil {
		return err
	}
	if m.topic, err = m.ps.Join(topic); err != nil {
		return err
	}
	sub, err := m.topic.Subscribe()
	if err != nil {
		return err
	}
	go func() { // ends with the process
		for {
			msg, err := sub.Next(ctx)
			if err != nil {
				return
			}
			if msg.ReceivedFrom != m.h.ID() {
				got(msg.Data)
			}
		}
	}()
	return nil
}

func (m *goMember) peers() int { return len(m.ps.ListPeers(topic)) }

func (m *goMember) publish(ctx context.Context, data []byte) bool {
	return m.topic.Publish(ctx, data) == nil
}

func (m *goMember) told() uint64 { return 0 } // nobody is, but by a tracer
