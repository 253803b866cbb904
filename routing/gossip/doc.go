// Package gossip routes with pubsub alone: peers, providers and values are found by
// asking the topics that hosts share, whichever router carries them.
//
//	ps, err := pubsub.New(h, gossipsub.Must(gossipsub.Default()), pubsub.Config{})
//	r, err := gossip.New(h, ps, gossip.Config{
//		Validator: routing.Namespaces{"/ipns/": ipns.Validator{}},
//	})
//
// It is for networks in which everybody may hear everything: a question goes to all
// hosts, once each. For large ones there is to be a distributed hash table.
//
// # Peers
//
// A [Discovery] tells others where its host is, again and again, in the topic
// "_peer-discovery._p2p._pubsub", and hears where they are. js-libp2p's
// pubsub-peer-discovery does the same. A Router has one.
//
// # Providers
//
// Who looks for providers asks in the topic [Topic]; who provides says so there, when
// it begins, now and again, and when it is asked. An answer has the signed addresses of
// its author, a sequence number, and a time at which it ends. A peer provides its own
// ID, so that looking for a peer is looking for its providers.
//
// # Values
//
// Each key has a topic, "/record/" and the key in base64url, in which its value is
// published when it changes and every ten minutes. Who comes later asks its neighbours
// in that topic by fetch. That is how go-libp2p-pubsub-router does it, which Kubo uses
// for IPNS. Those who have or follow a key that are no neighbours are found as its
// providers: of the hash under which that program advertises the topic.
//
// # Bounds
//
// What others say is kept as far as [Config] lets it, the oldest goes first. Of what is
// known of peers, what one neighbour passes on takes at most half; of providers, what one
// author says. An author is listened to eight times a
// second. A host keeps the values of those keys only that it has put or looked for.
//
// Spec: https://github.com/libp2p/js-libp2p-pubsub-peer-discovery,
// https://specs.ipfs.tech/ipns/ipns-pubsub-router/
//
// # Limits
//
// The topic [Topic] is this package's own: no other implementation routes content by
// pubsub alone.
package gossip
