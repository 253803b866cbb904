// Package gossipsub is the pubsub router for large networks: the messages of a topic
// flow along a mesh of few neighbours each, and gossip tells others what there is.
//
//	router, err := gossipsub.New(gossipsub.Default())
//	ps, err := pubsub.New(h, router, pubsub.Config{})
//
// It speaks /meshsub/1.3.0, 1.2.0, 1.1.0, 1.0.0 and /floodsub/1.0.0. What it adds to the
// specs: a message that found no room in a neighbour's queue is offered to it by
// IHAVE in the next heartbeat; a message that a neighbour sent while it was being
// checked here is not sent back; own messages above Params.FloodPublishMax go to the
// mesh, not to all neighbours; large messages of others go to some of the mesh first,
// and later to those that have not said that they have it; P7 counts floods of IWANT and
// IDONTWANT, which v1.1 and v1.2 only bound.
//
// # The map
//
//	gossipsub.go  the Router: whom a message goes to
//	eager.go      large messages, to some peers first
//	mesh.go       joining and leaving topics; GRAFT, PRUNE, back-off, peer exchange
//	heartbeat.go  once a second: meshes, fanout, gossip
//	gossip.go     IHAVE, IWANT, IDONTWANT, and the cache of messages
//	score.go scoreparams.go  what is thought of a peer
//	gater.go      random early drop before busy validators
//	partial.go    extensions: partial messages
//	params.go presets.go     the numbers
//
// Spec:
// https://github.com/libp2p/specs/blob/master/pubsub/gossipsub/gossipsub-v1.0.md,
// https://github.com/libp2p/specs/blob/master/pubsub/gossipsub/gossipsub-v1.1.md,
// https://github.com/libp2p/specs/blob/master/pubsub/gossipsub/gossipsub-v1.2.md,
// https://github.com/libp2p/specs/blob/master/pubsub/gossipsub/gossipsub-v1.3.md,
// https://github.com/libp2p/specs/blob/master/pubsub/gossipsub/red.md
//
// # Limits
//
// An IWANT is not cancelled when another peer sends the message first, which v1.2
// leaves open. Of the extensions there is the one for partial messages; the test
// extension is understood and not offered. The episub router is not there.
package gossipsub
