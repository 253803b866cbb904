package simnet

import (
	"context"
	"net"
	"net/netip"
	"os"
	"sync"
	"syscall"
	"time"
)

const (
	udpBuffer  = 212992  // bytes that a socket holds for its reader, as Linux
	udpOut     = 1 << 20 // bytes that may be written at one instant
	udpPayload = 65507   // longest datagram
	udpCost    = 256     // what a datagram counts for beyond its bytes
)

// PacketConn is a UDP socket. SetReadBuffer, and SetWriteBuffer which does nothing,
// are there as with *net.UDPConn.
type PacketConn struct {
	h       *Host
	at      netip.AddrPort
	created uint64

	// All below is guarded by h.n.mu.
	in, out            []datagram
	inSize, outSize    int
	limit              int
	closed             bool
	marked             bool
	readable, writable sync.Cond
	readBy, writeBy    deadline
}

type datagram struct {
	addr netip.AddrPort
	data []byte
}

// ListenUDP opens a socket on an address of the host, or with "0.0.0.0" or "::" on
// all of that family. Port 0 picks one.
func (h *Host) ListenUDP(ctx context.Context, on netip.AddrPort) (net.PacketConn, error) {
	on = unmap(on)
	n := h.n
	n.enter()
	defer n.leave()
	at, err := bind(h, on, h.udp)
	if n.closed {
		err = net.ErrClosed
	}
	if err != nil {
		return nil, &net.OpError{Op: "listen", Net: "udp", Addr: net.UDPAddrFromAddrPort(on), Err: err}
	}
	n.ids++
	s := &PacketConn{h: h, at: at, created: n.ids, limit: udpBuffer}
	s.readable.L, s.writable.L = &n.mu, &n.mu
	s.readBy.do, s.writeBy.do = s.readable.Broadcast, s.writable.Broadcast
	s.readBy.t, s.writeBy.t = never, never
	h.udp[at] = s
	return s, nil
}

// ReadFrom waits for a datagram, and cuts it off at the length of p.
func (s *PacketConn) ReadFrom(p []byte) (int, net.Addr, error) {
	s.h.n.enter()
	defer s.h.n.leave()
	for {
		switch {
		case s.closed:
			return 0, nil, s.wrap("read", net.ErrClosed)
		case s.readBy.passed(s.h.n):
			return 0, nil, s.wrap("read", os.ErrDeadlineExceeded)
		case len(s.in) > 0:
			d := s.in[0]
			s.in[0] = datagram{}
			s.in = s.in[1:]
			s.inSize -= len(d.data) + udpCost
			return copy(p, d.data), net.UDPAddrFromAddrPort(d.addr), nil
		}
		s.h.n.wait(&s.readable)
	}
}

// WriteTo sends a datagram. What does not fit into the queue of the host's link is lost.
func (s *PacketConn) WriteTo(p []byte, to net.Addr) (int, error) {
	u, ok := to.(*net.UDPAddr)
	if !ok || u == nil {
		return 0, s.wrap("write", &net.AddrError{Err: "not a UDP address"})
	}
	dst := unmap(u.AddrPort())
	if !dst.IsValid() || dst.Port() == 0 || dst.Addr().IsUnspecified() || dst.Addr().Is4() != s.at.Addr().Is4() {
		return 0, s.wrap("write", &net.AddrError{Err: "unusable address", Addr: to.String()})
	}
	if len(p) > udpPayload {
		return 0, s.wrap("write", os.NewSyscallError("sendto", syscall.EMSGSIZE))
	}
	s.h.n.enter()
	defer s.h.n.leave()
	for {
		switch {
		case s.closed:
			return 0, s.wrap("write", net.ErrClosed)
		case s.writeBy.passed(s.h.n):
			return 0, s.wrap("write", os.ErrDeadlineExceeded)
		case s.outSize+len(p)+udpCost <= udpOut:
			if _, err := s.h.source(dst.Addr()); err != nil {
				return 0, s.wrap("write", err)
			}
			s.out = append(s.out, datagram{dst, append([]byte(nil), p...)})
			s.outSize += len(p) + udpCost
			if !s.marked {
				s.marked = true
				s.h.n.dirty = append(s.h.n.dirty, s)
			}
			return len(p), nil
		}
		s.h.n.wait(&s.writable)
	}
}

func (s *PacketConn) less() sortKey {
	return sortKey{host: s.h.index, udp: true, flow: flow{local: s.at}, created: s.created}
}

func (s *PacketConn) flush() {
	s.marked = false
	n := s.h.n
	for i, d := range s.out {
		s.out[i] = datagram{}
		src := s.at
		if src.Addr().IsUnspecified() {
			ip, err := s.h.source(d.addr.Addr())
			if err != nil {
				continue
			}
			src = netip.AddrPortFrom(ip, src.Port())
		}
		n.traceWrite("udp", flow{src, d.addr}, len(d.data))
		p := n.packet(s.h, src, d.addr)
		p.udp, p.data = true, d.data
		n.send(p, len(d.data))
	}
	s.out, s.outSize = s.out[:0], 0
	s.writable.Broadcast()
}

func (s *PacketConn) receive(p *packet) {
	if s.inSize+len(p.data)+udpCost > s.limit {
		s.h.n.trace(Dropped, p, NoRoom)
		return
	}
	s.in = append(s.in, datagram{p.src, p.data})
	s.inSize += len(p.data) + udpCost
	s.readable.Broadcast()
}

// Close frees the port. What was written is still sent.
func (s *PacketConn) Close() error {
	s.h.n.enter()
	defer s.h.n.leave()
	if s.closed {
		return s.wrap("close", net.ErrClosed)
	}
	s.close()
	return nil
}

func (s *PacketConn) close() {
	if s.closed {
		return
	}
	s.closed = true
	if s.h.udp[s.at] == s {
		delete(s.h.udp, s.at)
	}
	s.h.n.cancel(&s.readBy.event)
	s.h.n.cancel(&s.writeBy.event)
	s.in = nil
	s.readable.Broadcast()
	s.writable.Broadcast()
}

// LocalAddr returns a *net.UDPAddr.
func (s *PacketConn) LocalAddr() net.Addr { return net.UDPAddrFromAddrPort(s.at) }

// SetReadBuffer sets how many bytes wait for the reader before more are lost. Each
// datagram counts for 256 bytes more than it has.
func (s *PacketConn) SetReadBuffer(bytes int) error {
	s.h.n.enter()
	defer s.h.n.leave()
	s.limit = bytes
	return nil
}

// SetWriteBuffer does nothing.
func (s *PacketConn) SetWriteBuffer(bytes int) error { return nil }

// SetDeadline sets both deadlines.
func (s *PacketConn) SetDeadline(t time.Time) error {
	return s.setDeadline(t, &s.readBy, &s.writeBy)
}

// SetReadDeadline makes ReadFrom fail from then on. A zero time means never.
func (s *PacketConn) SetReadDeadline(t time.Time) error { return s.setDeadline(t, &s.readBy) }

// SetWriteDeadline makes WriteTo fail from then on. A zero time means never.
func (s *PacketConn) SetWriteDeadline(t time.Time) error { return s.setDeadline(t, &s.writeBy) }

func (s *PacketConn) setDeadline(t time.Time, ds ...*deadline) error {
	s.h.n.enter()
	defer s.h.n.leave()
	if s.closed {
		return s.wrap("set", net.ErrClosed)
	}
	for _, d := range ds {
		d.set(s.h.n, t)
	}
	return nil
}

func (s *PacketConn) wrap(op string, err error) error {
	return &net.OpError{Op: op, Net: "udp", Source: s.LocalAddr(), Err: err}
}
