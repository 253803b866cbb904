// Command pubsub is the pubsub peer on plexus.
package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/plexus-p2p/plexus"
	"github.com/plexus-p2p/plexus/interop/contract"
	"github.com/plexus-p2p/plexus/node"
	"github.com/plexus-p2p/plexus/peer"
	"github.com/plexus-p2p/plexus/pubsub"
	"github.com/plexus-p2p/plexus/pubsub/floodsub"
	"github.com/plexus-p2p/plexus/pubsub/gossipsub"
)

func main() { contract.PubSubMain(new(peerNode)) }

type peerNode struct {
	h     *plexus.Host
	ps    *pubsub.PubSub
	topic *pubsub.Topic
	wants atomic.Int64

	gossip  *gossipsub.Router
	partial bool
	gotPart func(int)

	mu   sync.Mutex
	has  map[peer.ID]byte // what parts peers have told that they have
	told map[peer.ID]byte // and we them
}

// counting is a router that counts the IDONTWANT that comes.
type counting struct {
	*gossipsub.Router
	n *peerNode
}

func (c counting) Control(now time.Time, p *pubsub.Peer, rpc *pubsub.RPC, first bool, a *pubsub.Actions) {
	c.n.wants.Add(int64(len(rpc.Control.IDontWant)))
	c.Router.Control(now, p, rpc, first, a)
}

func (n *peerNode) Start(ctx context.Context, router string, sign, partial bool, got func([]byte), gotPart func(int)) (contract.Hello, error) {
	n.partial, n.gotPart, n.has, n.told = partial, gotPart, make(map[peer.ID]byte), make(map[peer.ID]byte)
	var err error
	if n.h, err = node.New(node.Config{Listen: []string{"/ip4/127.0.0.1/tcp/0"}}); err != nil {
		return contract.Hello{}, err
	}
	var r pubsub.Router = floodsub.New()
	if router == "gossipsub" {
		cfg := gossipsub.Default()
		if partial {
			cfg.Partial = &gossipsub.Partial{Incoming: n.incoming}
		}
		n.gossip = gossipsub.Must(cfg)
		r = counting{n.gossip, n}
	}
	policy := pubsub.StrictSign
	if !sign {
		policy = pubsub.StrictNoSign
	}
	if n.ps, err = pubsub.New(n.h, r, pubsub.Config{
		// The other side of a publication may be slow here.
		Policy: policy, OwnQueue: 32 << 20, ForwardQueue: 32 << 20, Patience: 30 * time.Second,
		Logger: slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug})),
	}); err != nil {
		return contract.Hello{}, err
	}
	if n.topic, err = n.ps.Join(contract.Topic, pubsub.TopicConfig{}); err != nil {
		return contract.Hello{}, err
	}
	sub := n.topic.Subscribe()
	go func() { // ends with the process
		for m, err := range sub.All(ctx) {
			if err == nil && m.ReceivedFrom != n.h.ID() {
				got(m.Data)
			}
		}
	}()
	if partial {
		t, err := n.ps.Join(contract.PartialTopic, pubsub.TopicConfig{RequestPartial: true})
		if err != nil {
			return contract.Hello{}, err
		}
		t.Subscribe()
	}
	return contract.Hello{
		Addr: n.h.Info().Full()[0].String(), Name: "plexus", Version: "from this checkout", Protocols: r.Protocols(),
	}, nil
}

func (n *peerNode) Dial(ctx context.Context, addr string) error {
	info, err := peer.ParseAddrInfo(addr)
	if err == nil {
		_, err = n.h.Dial(ctx, info)
	}
	return err
}

func (n *peerNode) Publish(ctx context.Context, data []byte) error {
	r, err := n.topic.Publish(ctx, data)
	if err == nil && r.Left > 0 {
		err = fmt.Errorf("%d neighbours had no room for a message", r.Left)
	}
	return err
}

func (n *peerNode) Peers() (subscribed, mesh int) {
	mesh = len(n.ps.Mesh(contract.Topic))
	if n.partial {
		mesh = min(mesh, len(n.ps.Mesh(contract.PartialTopic)))
	}
	return len(n.ps.Peers(contract.Topic)), mesh
}

func (n *peerNode) DontWant() int { return int(n.wants.Load()) }

// incoming is called with the router's lock.
func (n *peerNode) incoming(from peer.ID, m *pubsub.Partial) {
	if m.Topic != contract.PartialTopic || string(m.Group) != contract.PartGroup {
		return
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if len(m.Metadata) == 1 {
		n.has[from] = m.Metadata[0]
		go n.gotPart(-1) // so that it gets what it lacks
	}
	contract.DecodeParts(m.Message, func(i int) { go n.gotPart(i) })
}

func (n *peerNode) PublishParts(have []int) error {
	if n.gossip == nil {
		return errors.New("floodsub has no parts")
	}
	meta := contract.PartsMetadata(have)
	return n.gossip.PublishPartial(n.ps, contract.PartialTopic, []byte(contract.PartGroup), nil, func(p peer.ID, wants bool) (part gossipsub.Part) {
		n.mu.Lock()
		defer n.mu.Unlock()
		if told, ok := n.told[p]; !ok || told != meta {
			n.told[p] = meta
			part.Metadata = []byte{meta}
		}
		if has, ok := n.has[p]; ok && wants {
			part.Message = contract.EncodeParts(have, has)
			n.has[p] |= meta
		}
		return part
	})
}
