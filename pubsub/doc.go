// Package pubsub is publish and subscribe: what a host publishes to a topic reaches
// every host that is subscribed to it, by way of their neighbours.
//
//	ps, err := pubsub.New(h, gossipsub.Must(gossipsub.Default()), pubsub.Config{})
//	chat, err := ps.Join("chat", pubsub.TopicConfig{})
//	sub := chat.Subscribe()
//	receipt, err := chat.Publish(ctx, []byte("hello"))
//	for m, err := range sub.All(ctx) { … }
//
// Which neighbours a message goes to is a [Router]'s choice: package gossipsub, or
// package floodsub.
//
// # Nothing is lost in silence
//
// Each neighbour has a queue, bounded in bytes: subscriptions and control messages
// first, then this host's own messages, then others'; while others' wait, own ones
// take three quarters of each write. [Topic.Publish] waits for room and tells how many
// neighbours took the message. A neighbour that takes nothing is left out after a
// moment, so that it slows nobody. What finds no room is counted by its [Reason], and
// gossipsub offers it again. A subscription whose reader is too slow gets a
// [LostError] in the place of what it missed. A peer that sends more than this host
// can check is slowed by its stream's flow control. A message that a neighbour turns
// out to have is taken out of its queue.
//
// # The map
//
//	core.go     what is known of peers and messages: a state machine, no goroutine
//	router.go   the Router that it asks, and the Actions that they want done
//	pubsub.go   PubSub runs a Core for a host
//	link.go     neighbours come and go; a stream in, a stream out
//	read.go     1  an RPC comes in
//	validate.go 2  its messages are verified and validated
//	queue.go    3  and wait for the next peers: a state machine too
//	outbox.go   4  which they are written to
//	topic.go subscription.go  the ends: publishing and receiving
//	watch.go                  who comes and goes; what is written
//	wire.go message.go        the encodings
//	seen.go events.go         memory of IDs; events, counters
//
// Spec: https://github.com/libp2p/specs/blob/master/pubsub/README.md
//
// # Limits
//
// Of the signing policies there are StrictSign and StrictNoSign, not the two that the
// spec calls legacy. Topic descriptors, which nobody uses, are not there. Messages are
// not ordered.
//
// A message is checked, and sent on, in the encoding of protobuf libraries: fields in
// order, unknown ones last. One with a field that occurs twice is malformed.
package pubsub
