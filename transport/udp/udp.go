// Package udp lets transports of a host share its UDP ports: QUIC, WebTransport
// and WebRTC on one port are one hole in a NAT or firewall, and one address to
// tell others.
//
//	ports := new(udp.Ports)
//	quic := &quic.Transport{Key: key, Ports: ports}
//
// A [Port] is one socket. Packets are told apart by their first byte, as RFC 9443
// says. A transport asks for those of a kind by [Port.Packets]. QUIC does more: it
// brings an [Engine], which reads the socket itself and gives away what is not QUIC.
//
// Spec: https://www.rfc-editor.org/rfc/rfc9443#section-3
package udp

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/plexus-p2p/plexus/internal/addrport"
	"github.com/plexus-p2p/plexus/transport"
)

// Kind is a kind of packet, or several.
type Kind uint8

// The kinds that there are.
const (
	STUN Kind = 1 << iota // first byte 0 to 3
	DTLS                  // first byte 20 to 63
	QUIC                  // first byte 64 to 127 or 192 to 255; never passed to Packets' views while QUIC runs

	kinds = iota
)

// KindOf tells the kind of a packet; 0 is none of them.
//
//	127 < B < 192  -+--> RTP/RTCP     63 < B < 128, 191 < B < 256 --> QUIC
//	 19 < B < 64   -+--> DTLS              B < 4                  --> STUN
//
// https://www.rfc-editor.org/rfc/rfc9443#section-3
func KindOf(packet []byte) Kind {
	if len(packet) == 0 {
		return 0
	}
	switch b := packet[0]; {
	case b < 4:
		return STUN
	case b > 19 && b < 64:
		return DTLS
	case b > 63 && b < 128, b > 191:
		return QUIC
	}
	return 0
}

// socketSize is how many bytes a socket holds in each direction, if the system permits.
const socketSize = 4 << 20

// ErrTaken means that somebody else gets these packets of the port.
var ErrTaken = errors.New("udp: another transport has these packets of the port")

// Ports are the UDP ports of one host. The zero value works. Its methods may be
// called concurrently.
type Ports struct {
	Network transport.Network // where sockets are opened; nil: transport.System

	mu   sync.Mutex
	open []*Port // oldest first; those that are closing are among them
}

// A Port is an open socket that several users share: each call of [Ports.Listen],
// [Ports.Dial], [Port.Hold] and [Port.Packets] makes one. The socket closes when
// as many have closed. Its methods may be called concurrently.
type Port struct {
	ports *Ports
	sock  net.PacketConn
	at    netip.AddrPort

	users    int           // guarded by ports.mu
	listened bool          // somebody has asked for this port; guarded by ports.mu
	gone     chan struct{} // closed when the address is free again

	views [kinds]atomic.Pointer[view] // set with mu held

	mu     sync.Mutex
	engine Engine
	pump   chan struct{} // closed when the pump has ended; nil: there is none
}

// An Engine reads the socket of a port, and gives away what is not for it.
type Engine interface {
	// ReadOther waits for the next packet that is not the engine's. It fails
	// when the engine has been closed.
	ReadOther(p []byte) (n int, from net.Addr, err error)

	// Close stops reading the socket and leaves it open.
	Close() error
}

// Listen joins the port that is open at this address, or opens it. Port 0 lets the
// system choose a new one. The caller closes it.
func (ps *Ports) Listen(ctx context.Context, on netip.AddrPort) (*Port, error) {
	on = addrport.Unmap(on)
	return ps.get(ctx, on, true, func(p *Port) bool { return on.Port() != 0 && p.at == on })
}

// Dial returns a port to reach an address from: one that was opened to listen, one
// that is open already, or a new one. What leaves from a port where others are listened for has an
// address that they can answer, or dial, through a NAT. The caller closes it.
func (ps *Ports) Dial(ctx context.Context, to netip.Addr) (*Port, error) {
	to = to.Unmap()
	any := netip.IPv4Unspecified()
	if to.Is6() {
		any = netip.IPv6Unspecified()
	}
	return ps.get(ctx, netip.AddrPortFrom(any, 0), false, func(p *Port) bool {
		at := p.at.Addr()
		// A socket on loopback is of no use for the rest of the world, nor the
		// other way round.
		return at.Is4() == to.Is4() && (at.IsUnspecified() || at.IsLoopback() == to.IsLoopback())
	})
}

// get returns the first open port that is fit, but rather one that was opened to
// listen, or opens one.
func (ps *Ports) get(ctx context.Context, on netip.AddrPort, listen bool, fit func(*Port) bool) (*Port, error) {
	for {
		ps.mu.Lock()
		var found, closing *Port
		for _, p := range ps.open {
			switch {
			case !fit(p):
			case p.users == 0 && p.at == on:
				closing = p
			case p.users > 0 && (found == nil || p.listened && !found.listened):
				found = p
			}
		}
		var err error
		switch {
		case found != nil:
			found.users++
		case closing == nil:
			// Opening a socket does not block, so that holding the lock is fine,
			// and keeps two dials from opening one each.
			found, err = ps.openLocked(ctx, on)
		}
		if found != nil {
			found.listened = found.listened || listen
		}
		ps.mu.Unlock()
		if closing == nil || found != nil {
			return found, err
		}
		select {
		case <-closing.gone:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// Open opens a socket with as large buffers as the system permits, up to 4 MiB: what comes
// in a burst must not be lost.
func Open(ctx context.Context, network transport.Network, on netip.AddrPort) (net.PacketConn, error) {
	sock, err := network.ListenUDP(ctx, on)
	if err != nil {
		return nil, err
	}
	if s, ok := sock.(interface {
		SetReadBuffer(int) error
		SetWriteBuffer(int) error
	}); ok {
		s.SetReadBuffer(socketSize)
		s.SetWriteBuffer(socketSize)
	}
	return sock, nil
}

func (ps *Ports) openLocked(ctx context.Context, on netip.AddrPort) (*Port, error) {
	var network transport.Network = transport.System{}
	if ps.Network != nil {
		network = ps.Network
	}
	sock, err := Open(ctx, network, on)
	if err != nil {
		return nil, err
	}
	at := addrport.Of(sock.LocalAddr())
	if !at.IsValid() {
		sock.Close()
		return nil, &net.AddrError{Err: "not a UDP address", Addr: sock.LocalAddr().String()}
	}
	p := &Port{
		ports: ps,
		sock:  sock,
		at:    at,
		users: 1,
		gone:  make(chan struct{}),
	}
	ps.open = append(ps.open, p)
	return p, nil
}

// Addr is where the port is bound.
func (p *Port) Addr() netip.AddrPort { return p.at }

// Hold adds a user to a port that has some. It closes the port as the others do.
func (p *Port) Hold() {
	p.ports.mu.Lock()
	defer p.ports.mu.Unlock()
	if p.users == 0 {
		panic("udp: Hold of a port that was closed by all its users")
	}
	p.users++
}

// Close is called once by each user. The last one closes the socket, and finds the
// address free when Close returns.
func (p *Port) Close() error {
	ps := p.ports
	ps.mu.Lock()
	if p.users == 0 {
		ps.mu.Unlock()
		return net.ErrClosed
	}
	p.users--
	last := p.users == 0
	ps.mu.Unlock()
	if !last {
		return nil
	}
	p.mu.Lock()
	engine, pump := p.engine, p.pump
	p.mu.Unlock()
	if engine != nil {
		engine.Close()
	}
	err := p.sock.Close()
	if pump != nil {
		<-pump
	}
	ps.mu.Lock()
	for i, o := range ps.open {
		if o == p {
			ps.open = append(ps.open[:i:i], ps.open[i+1:]...)
			break
		}
	}
	ps.mu.Unlock()
	close(p.gone)
	return err
}

// WriteTo sends a packet of whatever kind, as hole punching does.
func (p *Port) WriteTo(b []byte, to netip.AddrPort) error {
	_, err := p.sock.WriteTo(b, net.UDPAddrFromAddrPort(addrport.Unmap(to)))
	return err
}

// Engine returns the engine of the port. The first call starts it, by passing the
// socket to start; it runs until the port closes.
func (p *Port) Engine(start func(net.PacketConn) (Engine, error)) (Engine, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.engine != nil {
		return p.engine, nil
	}
	if p.pump != nil { // which reads the socket so far
		p.sock.SetReadDeadline(past)
		<-p.pump
		p.sock.SetReadDeadline(time.Time{})
		p.pump = nil
	}
	e, err := start(p.sock)
	if err == nil {
		p.engine = e
	}
	p.startPumpLocked()
	return e, err
}

// past is a deadline that has passed, in a synctest bubble too.
var past = time.Unix(1, 0)

// startPumpLocked makes packets flow to the views, if there are any. The pump ends
// with the port, or when an engine takes the socket over.
func (p *Port) startPumpLocked() {
	viewed := false
	for i := range p.views {
		viewed = viewed || p.views[i].Load() != nil
	}
	if p.pump != nil || !viewed {
		return
	}
	read := p.sock.ReadFrom
	if p.engine != nil {
		read = p.engine.ReadOther
	}
	own, done := p.engine == nil, make(chan struct{})
	p.pump = done
	go func() {
		defer close(done)
		b := make([]byte, maxPacket)
		for {
			n, from, err := read(b)
			if err == nil {
				p.deliver(b[:n], from)
				continue
			}
			if own && errors.Is(err, os.ErrDeadlineExceeded) {
				return // handed over
			}
			if !own || errors.Is(err, net.ErrClosed) {
				for i := range p.views { // nothing will come any more
					if v := p.views[i].Load(); v != nil {
						v.end()
					}
				}
				return
			}
			// On some systems reads return errors that earlier packets have
			// caused. They mean nothing for the next.
			time.Sleep(time.Millisecond)
		}
	}()
}

func (p *Port) deliver(b []byte, from net.Addr) {
	k := KindOf(b)
	for i := range p.views {
		if v := p.views[i].Load(); v != nil && k == 1<<i {
			v.put(b, from)
		}
	}
}
