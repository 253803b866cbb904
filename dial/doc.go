// Package dial holds the decisions of a dialer, each of them on its own and
// without I/O of its own:
//
//	Resolve     names become addresses
//	BlackHoles  those that this network swallows are left out
//	Backoff     those that failed a moment ago are left out
//	Rank        the others are put into an order, with a delay for each
//	Race        they are tried by that schedule until one succeeds
//
// The host's dialer puts them together. Time is passed in, but to Race.
//
// Spec: https://github.com/libp2p/specs/blob/master/addressing/README.md#dnsaddr-links,
// and RFC 8305 "Happy Eyeballs Version 2". How addresses are ranked is not
// specified; the delays are those of go-libp2p.
package dial
