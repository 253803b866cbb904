package simnet

import (
	"net/netip"
)

// flow identifies a connection at one of its ends.
type flow struct{ local, remote netip.AddrPort }

// A packet on its way. Packets are reused once they have arrived or were dropped,
// but what data points to is not.
type packet struct {
	event // the next thing that happens to it
	next  *packet

	n        *Network
	from, to *Host // to is found when the packet leaves the sender's link
	src, dst netip.AddrPort
	udp      bool
	size     int // bytes, with headers
	stage    stage
	data     []byte

	// TCP only:
	flags    flags
	seq, ack int64 // of the stream, from 0; handshakes do not count
	window   int64
	sacks    []span // what has arrived beyond ack
	dup      bool   // tells the sender that it sent something twice
	id, to2  uint64 // which connection this comes from, and is for: stands for the random initial sequence numbers
	owner    *Conn  // of a window update: who has to send it again if it gets lost
}

type flags uint8

const (
	fin flags = 1 << iota
	syn
	rst
	psh
	ack
)

// span is a range of a stream.
type span struct{ from, to int64 }

// stage is how far a packet has come. Each host has a link of its own, up and
// down, and each pair of hosts has a path between these. Middle boxes will stand
// between the links.
type stage uint8

const (
	uplink stage = iota
	path
	downlink
	arrived
)

func (n *Network) packet(from *Host, src, dst netip.AddrPort) *packet {
	p := n.free
	if p == nil {
		p = &packet{n: n}
		p.do = p.forward
	} else {
		n.free = p.next
		p.next = nil
	}
	p.from, p.src, p.dst = from, src, dst
	return p
}

// release ends a packet's life.
func (p *packet) release() {
	n := p.n
	*p = packet{event: event{do: p.do}, n: n, next: n.free, sacks: p.sacks[:0]}
	n.free = p
}

const (
	tcpHeader = 20
	udpHeader = 8
)

func ipHeader(a netip.Addr) int {
	if a.Is4() {
		return 20
	}
	return 40
}

// send starts a packet on its way.
func (n *Network) send(p *packet, payload int) {
	if p.udp {
		p.size = ipHeader(p.dst.Addr()) + udpHeader + payload
	} else {
		p.size = ipHeader(p.dst.Addr()) + tcpHeader + payload
	}
	n.trace(Sent, p, 0)
	if p.from.has(p.dst.Addr()) {
		p.to, p.stage, p.hop = p.from, arrived, false
		n.at(n.now, &p.event)
		return
	}
	p.forward()
}

// forward takes a packet as far as it comes without waiting.
func (p *packet) forward() {
	n, at := p.n, p.n.now
	for {
		var l *link
		switch p.stage {
		case uplink:
			l = p.from.up
		case path:
			if p.to = n.owners[p.dst.Addr()]; p.to == nil {
				p.drop(NoHost)
				return
			}
			if n.parted(p.from, p.to) {
				p.drop(Parted)
				return
			}
			l = n.path(p.from, p.to)
		case downlink:
			l = p.to.down
		case arrived:
			if p.from != p.to && n.parted(p.from, p.to) {
				p.drop(Parted)
				return
			}
			n.trace(Delivered, p, 0)
			p.to.receive(p)
			p.release()
			return
		}
		p.stage++
		if l != nil {
			var why Reason
			if at, why = l.pass(at, p.size); why != 0 {
				p.drop(why)
				return
			}
		}
		if p.stage == arrived || at > n.now && (p.stage == path || p.to.down.shared()) {
			p.hop = p.stage != arrived
			n.at(at, &p.event)
			return
		}
	}
}

func (p *packet) drop(why Reason) {
	p.n.trace(Dropped, p, why)
	if p.owner != nil {
		p.owner.updateLost()
	}
	p.release()
}

// receive gives a packet to the socket that it is for.
func (h *Host) receive(p *packet) {
	if p.udp {
		if s := lookup(h.udp, p.dst); s != nil {
			s.receive(p)
		} else {
			h.n.trace(Dropped, p, NoSocket)
		}
		return
	}
	if c := h.conns[flow{p.dst, p.src}]; c != nil {
		c.receive(p)
		return
	}
	if p.flags == syn {
		if l := lookup(h.listeners, p.dst); l != nil {
			l.receive(p)
			return
		}
	}
	h.refuse(p)
}

// lookup finds the socket bound to the address, or to all.
func lookup[S any](m map[netip.AddrPort]*S, at netip.AddrPort) *S {
	if s := m[at]; s != nil {
		return s
	}
	any := netip.IPv4Unspecified()
	if at.Addr().Is6() {
		any = netip.IPv6Unspecified()
	}
	return m[netip.AddrPortFrom(any, at.Port())]
}

// refuse answers a packet of a connection that does not exist.
func (h *Host) refuse(p *packet) {
	if p.flags&rst != 0 {
		return
	}
	r := h.n.packet(h, p.dst, p.src)
	r.flags, r.id, r.to2 = rst|ack, p.to2, p.id
	h.n.send(r, 0)
}
