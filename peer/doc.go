// Package peer says who a host is: its keys, the ID derived from them, where it
// is reached, and what it signs.
//
// A host owns a [PrivKey], which [LoadOrCreateKey] keeps in a file. The [PubKey]
// of it travels in handshakes; its hash is the [ID], by which everybody knows the
// host. An [AddrInfo] is an ID with addresses. What a host wants others to pass on
// unchanged, such as the [Record] of its own addresses, it signs with [Seal].
//
// Everything here is a value: no goroutine, no clock and no package state, so all
// may be used concurrently. Only the functions on key files touch the disk.
//
// Spec: https://github.com/libp2p/specs/blob/master/peer-ids/peer-ids.md,
// https://github.com/libp2p/specs/blob/master/RFC/0001-text-peerid-cid.md,
// https://github.com/libp2p/specs/blob/master/RFC/0002-signed-envelopes.md,
// https://github.com/libp2p/specs/blob/master/RFC/0003-routing-records.md
//
// # Limits
//
// Stricter than the other implementations: a public key has exactly one encoding,
// as the spec asks, and any other is refused; secp256k1 keys come compressed; an
// identity multihash is an ID only if it holds an Ed25519 or secp256k1 key, the
// two kinds that are short enough.
//
// Peer records follow the deployed constants, not the text of RFC 0003: the domain
// "libp2p-peer-record" and the payload type 03 01.
//
// Key files are not encrypted. Keys in hardware are not supported: they cannot be
// written to a file, and nobody has asked yet.
package peer
