// Command pubsub is the pubsub peer on go-libp2p-pubsub.
package main

import (
	"context"
	"crypto/sha256"
	"fmt"
	"iter"
	"log/slog"
	"runtime/debug"
	"sync/atomic"
	"time"

	"github.com/libp2p/go-libp2p"
	pubsub "github.com/libp2p/go-libp2p-pubsub"
	"github.com/libp2p/go-libp2p-pubsub/partialmessages"
	pb "github.com/libp2p/go-libp2p-pubsub/pb"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/libp2p/go-libp2p/p2p/transport/tcp"

	"github.com/plexus-p2p/plexus/interop/contract"
)

func main() { contract.PubSubMain(new(peerNode)) }

type peerNode struct {
	h       host.Host
	ps      *pubsub.PubSub
	topic   *pubsub.Topic
	floods  bool
	wants   atomic.Int64
	mesh    atomic.Int64 // which it does not tell but to a tracer
	parts   atomic.Int64 // the mesh of PartialTopic
	partial bool
	gotPart func(int)
}

// partState is what is known of a peer: what it has told that it has, and we it.
type partState struct {
	has, told       byte
	hasAny, toldAny bool
}

func (n *peerNode) Start(ctx context.Context, router string, sign, partial bool, got func([]byte), gotPart func(int)) (hello contract.Hello, err error) {
	n.partial, n.gotPart = partial, gotPart
	if n.h, err = libp2p.New(
		libp2p.ListenAddrStrings("/ip4/127.0.0.1/tcp/0"),
		libp2p.Transport(tcp.NewTCPTransport),
		libp2p.ResourceManager(&network.NullResourceManager{}),
		libp2p.DisableRelay(), libp2p.DisableMetrics()); err != nil {
		return hello, err
	}
	opts := []pubsub.Option{
		pubsub.WithRawTracer(tracer{n}),
		// By default a queue holds 32 RPCs, and what comes then is dropped in silence. Gossip
		// repairs it, if it was not too much.
		pubsub.WithPeerOutboundQueueSize(1024), pubsub.WithValidateQueueSize(1024),
	}
	if !sign {
		opts = append(opts, pubsub.WithMessageSignaturePolicy(pubsub.StrictNoSign), pubsub.WithNoAuthor(),
			pubsub.WithMessageIdFn(func(m *pb.Message) string { s := sha256.Sum256(m.Data); return string(s[:]) }))
	}
	protocols := []protocol.ID{pubsub.FloodSubID}
	if router == "floodsub" {
		n.floods = true
		n.ps, err = pubsub.NewFloodSub(ctx, n.h, opts...)
	} else {
		if partial {
			opts = append(opts, pubsub.WithPartialMessagesExtension(&partialmessages.PartialMessagesExtension[partState]{
				Logger:             slog.New(slog.DiscardHandler),
				OnIncomingRPC:      n.incoming,
				OnEmitGossip:       func(string, []byte, []peer.ID, map[peer.ID]partState) {},
				GroupTTLByHeatbeat: 60,
			}))
		}
		protocols = pubsub.GossipSubDefaultProtocols
		n.ps, err = pubsub.NewGossipSub(ctx, n.h, opts...)
	}
	if err != nil {
		return hello, err
	}
	if n.topic, err = n.ps.Join(contract.Topic); err != nil {
		return hello, err
	}
	// By default it holds 32 messages, and further ones are dropped in silence.
	sub, err := n.topic.Subscribe(pubsub.WithBufferSize(2048))
	if err != nil {
		return hello, err
	}
	go func() { // ends with the process
		for {
			m, err := sub.Next(ctx)
			if err != nil {
				return
			}
			if m.ReceivedFrom != n.h.ID() {
				got(m.Data)
			}
		}
	}()
	if partial {
		t, err := n.ps.Join(contract.PartialTopic, pubsub.RequestPartialMessages())
		if err != nil {
			return hello, err
		}
		if _, err := t.Subscribe(); err != nil {
			return hello, err
		}
	}
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, m := range info.Deps {
			if m.Path == "github.com/libp2p/go-libp2p-pubsub" {
				hello.Version = m.Version
			}
		}
	}
	hello.Name, hello.Protocols = "go-libp2p-pubsub", protocol.ConvertToStrings(protocols)
	hello.Addr = fmt.Sprintf("%s/p2p/%s", n.h.Addrs()[0], n.h.ID())
	return hello, nil
}

func (n *peerNode) Dial(ctx context.Context, addr string) error {
	info, err := peer.AddrInfoFromString(addr)
	if err != nil {
		return err
	}
	return n.h.Connect(ctx, *info)
}

func (n *peerNode) Publish(ctx context.Context, data []byte) error { return n.topic.Publish(ctx, data) }
func (n *peerNode) Peers() (subscribed, mesh int) {
	subscribed = len(n.ps.ListPeers(contract.Topic))
	if n.floods {
		return subscribed, subscribed
	}
	mesh = int(n.mesh.Load())
	if n.partial {
		mesh = min(mesh, int(n.parts.Load()))
	}
	return subscribed, mesh
}

func (n *peerNode) DontWant() int { return int(n.wants.Load()) }

func (n *peerNode) incoming(from peer.ID, states map[peer.ID]partState, rpc *pb.PartialMessagesExtension) error {
	if string(rpc.GroupID) != contract.PartGroup {
		return nil
	}
	s := states[from]
	if len(rpc.PartsMetadata) == 1 {
		s.has, s.hasAny = rpc.PartsMetadata[0], true
		go n.gotPart(-1) // so that it gets what it lacks
	}
	contract.DecodeParts(rpc.PartialMessage, func(i int) { go n.gotPart(i) })
	states[from] = s
	return nil
}

func (n *peerNode) PublishParts(have []int) error {
	meta := contract.PartsMetadata(have)
	return pubsub.PublishPartial(n.ps, contract.PartialTopic, []byte(contract.PartGroup),
		func(states map[peer.ID]partState, wants func(peer.ID) bool) iter.Seq2[peer.ID, partialmessages.PublishAction] {
			return func(yield func(peer.ID, partialmessages.PublishAction) bool) {
				for p, s := range states {
					var a partialmessages.PublishAction
					if !s.toldAny || s.told != meta {
						s.told, s.toldAny = meta, true
						a.EncodedPartsMetadata = []byte{meta}
					}
					if s.hasAny && wants(p) {
						a.EncodedPartialMessage = contract.EncodeParts(have, s.has)
						s.has |= meta
					}
					states[p] = s
					if !yield(p, a) {
						return
					}
				}
			}
		})
}

func (t tracer) Graft(_ peer.ID, topic string) { t.change(topic, 1) }
func (t tracer) Prune(_ peer.ID, topic string) { t.change(topic, -1) }

func (t tracer) change(topic string, by int64) {
	switch topic {
	case contract.Topic:
		t.n.mesh.Add(by)
	case contract.PartialTopic:
		t.n.parts.Add(by)
	}
}

// tracer counts the IDONTWANT that comes, and the peers in the mesh.
type tracer struct{ n *peerNode }

func (t tracer) RecvRPC(rpc *pubsub.RPC) {
	for _, d := range rpc.GetControl().GetIdontwant() {
		t.n.wants.Add(int64(len(d.GetMessageIDs())))
	}
}

func (tracer) OnNewOutboundStream(peer.ID, protocol.ID)             {}
func (tracer) OnClosedOutboundStream(peer.ID)                       {}
func (tracer) Join(string)                                          {}
func (tracer) Leave(string)                                         {}
func (tracer) ValidateMessage(*pubsub.Message)                      {}
func (tracer) DeliverMessage(*pubsub.Message)                       {}
func (tracer) RejectMessage(*pubsub.Message, string)                {}
func (tracer) DuplicateMessage(*pubsub.Message)                     {}
func (tracer) ThrottlePeer(peer.ID)                                 {}
func (tracer) SendRPC(*pubsub.RPC, peer.ID)                         {}
func (tracer) SendRPCCompleted(*pubsub.RPC, peer.ID, time.Duration) {}
func (tracer) DropRPC(*pubsub.RPC, peer.ID)                         {}
func (tracer) UndeliverableMessage(*pubsub.Message)                 {}
