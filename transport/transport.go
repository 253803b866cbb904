// Package transport holds what transports have in common. A transport makes
// connections between hosts: either pipes, plain byte streams that the host then
// secures and muxes, or sessions, that come secured and muxed.
//
// Each transport is a folder below, and is held to the suite in transporttest.
//
// Spec: https://github.com/libp2p/specs/blob/master/connections/README.md
package transport

import (
	"context"
	"errors"
	"net"
	"net/netip"

	ma "github.com/multiformats/go-multiaddr"

	"github.com/plexus-p2p/plexus/muxer"
	"github.com/plexus-p2p/plexus/peer"
)

// Pipes gives byte streams. The addresses that it takes carry no /p2p part.
type Pipes interface {
	// Match tells whether Dial and Listen take the address.
	Match(ma.Multiaddr) bool

	// Dial connects. It gives up when ctx ends.
	Dial(ctx context.Context, to ma.Multiaddr) (net.Conn, error)

	// Listen accepts connections until the listener is closed, which leaves
	// the accepted ones alive. The listener's Addr tells where it really listens.
	Listen(ctx context.Context, on ma.Multiaddr) (net.Listener, error)
}

// A Watcher is a Pipes, or a [Network] with TCP, that knows whether the system notices
// when the other end's host is gone.
type Watcher interface {
	// Watches tells that a read fails when the host at the far end of the connection, and
	// not that of a proxy, has been silent for 40 s and does not answer the system. A
	// muxer need not ask as often then.
	Watches() bool
}

// Watches tells whether v is a [Watcher] and does.
func Watches(v any) bool {
	w, ok := v.(Watcher)
	return ok && w.Watches()
}

// Sessions gives connections that are authenticated and muxed already.
type Sessions interface {
	Match(ma.Multiaddr) bool
	DialSession(ctx context.Context, to ma.Multiaddr, want peer.ID) (Session, error)
	ListenSession(ctx context.Context, on ma.Multiaddr) (SessionListener, error)
}

// A Session is a muxed connection to a peer whose identity is proved.
type Session interface {
	muxer.Session
	Peer() (peer.ID, peer.PubKey)
	LocalAddr() net.Addr
	RemoteAddr() net.Addr
}

// A SessionListener accepts sessions, as net.Listener accepts connections. One whose
// address changes with time, as that of WebTransport, has OnAddrChange(f func()) beside
// these: f is called when it has.
type SessionListener interface {
	Accept() (Session, error)
	Close() error
	Addr() net.Addr
}

// Network is what transports need of an operating system. It is the one seam
// through which a whole host runs on another network, such as a simulated one.
// The zero value of every transport uses [System].
type Network interface {
	// DialTCP connects from local to remote. The zero local lets the system
	// choose; a local address that a listener of this network holds is shared
	// with it, which is how a host dials from the port that it listens on.
	DialTCP(ctx context.Context, local, remote netip.AddrPort) (net.Conn, error)

	// ListenTCP accepts connections. A listener that has SetDeadline, as
	// *net.TCPListener, costs the transport tcp a goroutine less.
	ListenTCP(ctx context.Context, on netip.AddrPort) (net.Listener, error)
	ListenUDP(ctx context.Context, on netip.AddrPort) (net.PacketConn, error)

	// LookupNetIP and LookupTXT resolve names as net.Resolver does.
	LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error)
	LookupTXT(ctx context.Context, name string) ([]string, error)

	// Addrs lists the addresses of this machine's interfaces.
	Addrs() ([]netip.Addr, error)
}

// ErrNoAddr means that a net.Addr has no multiaddr.
var ErrNoAddr = errors.New("transport: no multiaddr for this address")

// Datagrams is what a [Session] has beyond streams, where its transport can:
// messages that may be lost, and may overtake each other. All methods may be
// called concurrently.
type Datagrams interface {
	// SendDatagram sends a message. It does not wait for the peer; it may wait for
	// its turn. A message longer than MaxDatagram is an ErrDatagramTooLong.
	SendDatagram(b []byte) error

	// ReceiveDatagram waits for the next message, until ctx or the session ends. A
	// bounded number is kept for it; further ones are lost.
	ReceiveDatagram(ctx context.Context) ([]byte, error)

	// MaxDatagram is how long a message can be now; 0: the peer takes none.
	// It changes with what is known of the path.
	MaxDatagram() int
}

// ErrDatagramTooLong means that a datagram does not fit into a packet.
var ErrDatagramTooLong = errors.New("transport: datagram too long")
