package plexus

import "time"

// Limits bounds what peers can make a host hold. A zero field means its
// default, a negative one no limit.
type Limits struct {
	// Conns is how many connections the host holds. A further one takes the
	// place of the connection that has been without streams for longest and is
	// not protected; where none is, it is refused. Default 1024.
	Conns int

	// ConnsPerPeer is how many connections one peer holds. Default 8.
	ConnsPerPeer int

	// ConnsPerIP is how many inbound connections one IP address holds (one /64
	// for IPv6). Default 256. Loopback is exempt.
	ConnsPerIP int

	// Handshakes is how many inbound connections may be in their handshakes at
	// the same time; further ones wait in the operating system. Default 128.
	Handshakes int

	// Streams is how many streams opened by the peer a connection serves at the
	// same time. A further one is reset. Default 1024.
	Streams int

	// Dials is how many addresses are dialed at the same time, and DialsPerPeer
	// how many of one peer. Defaults 128 and 8.
	Dials        int
	DialsPerPeer int

	// Addrs is how many addresses are remembered of a peer, and Peers of how
	// many peers that are not connected. Defaults 64 and 4096.
	Addrs int
	Peers int

	// HandshakeTimeout ends the upgrade of an inbound connection, DialTimeout a
	// whole dial, NegotiateTimeout the protocol negotiation of a stream.
	// Defaults 15 s, 15 s, 10 s.
	HandshakeTimeout time.Duration
	DialTimeout      time.Duration
	NegotiateTimeout time.Duration

	// Linger is how long Close waits for peers to take what was written.
	// Default 2 s.
	Linger time.Duration
}

const unlimited = 1<<31 - 1

func (l Limits) withDefaults() Limits {
	for _, f := range []struct {
		v   *int
		def int
	}{
		{&l.Conns, 1024}, {&l.ConnsPerPeer, 8}, {&l.ConnsPerIP, 256}, {&l.Handshakes, 128},
		{&l.Streams, 1024}, {&l.Dials, 128}, {&l.DialsPerPeer, 8}, {&l.Addrs, 64}, {&l.Peers, 4096},
	} {
		*f.v = orDefault(*f.v, f.def, unlimited)
	}
	const forever = time.Duration(1<<63 - 1)
	for _, f := range []struct {
		v   *time.Duration
		def time.Duration
	}{
		{&l.HandshakeTimeout, 15 * time.Second}, {&l.DialTimeout, 15 * time.Second},
		{&l.NegotiateTimeout, 10 * time.Second}, {&l.Linger, 2 * time.Second},
	} {
		*f.v = orDefault(*f.v, f.def, forever)
	}
	return l
}

// orDefault reads a limit: zero is the default, negative is none.
func orDefault[T int | time.Duration](v, def, none T) T {
	switch {
	case v == 0:
		return def
	case v < 0:
		return none
	}
	return v
}
