package simnet

import (
	"fmt"
	"net/netip"
	"strings"
	"time"
)

// Event is something that happens on a network.
type Event struct {
	At       time.Duration // since New
	Kind     Kind
	Reason   Reason // why a packet was dropped
	Proto    string // "tcp" or "udp"
	From, To netip.AddrPort

	// Of a write, as the application made it; it is seen when the network
	// gets to it, which is at the same instant.
	Written int

	// Of a packet.
	Size     int    // on the wire, with IP header
	Payload  []byte // valid, and not to be changed, until Trace returns
	Flags    Flags  // of TCP
	Seq, Ack uint32 // of TCP; as if initial sequence numbers were 0
	Window   int    // of TCP, in bytes
}

// Kind tells events apart.
type Kind uint8

// The kinds of events.
const (
	Wrote     Kind = iota // an application wrote; From is its socket
	Sent                  // a packet entered the sender's link
	Delivered             // a packet came to the host it was for
	Dropped               // it did not, or nobody wanted it there
)

// Reason tells why a packet was dropped.
type Reason uint8

// The reasons.
const (
	Lost      Reason = 1 + iota // Link.Loss
	QueueFull                   // Link.Queue
	TooLong                     // Link.MTU
	Parted                      // Partition
	NoHost                      // no host has this address
	NoSocket                    // no UDP socket has this address
	NoRoom                      // too many wait at the receiving socket
)

// Flags are those of a TCP header, bit for bit.
type Flags uint8

// The flags that the network uses.
const (
	FIN = Flags(fin)
	SYN = Flags(syn)
	RST = Flags(rst)
	PSH = Flags(psh)
	ACK = Flags(ack)
)

func (k Kind) String() string { return [...]string{"wrote", "sent", "delivered", "dropped"}[k] }

func (r Reason) String() string {
	return [...]string{"", "lost", "queue full", "too long", "parted", "no host", "no socket", "no room"}[r]
}

func (f Flags) String() string {
	var s []string
	for i, name := range []string{"FIN", "SYN", "RST", "PSH", "ACK"} {
		if f&(1<<i) != 0 {
			s = append(s, name)
		}
	}
	return strings.Join(s, "|")
}

// String returns a line of a log.
func (e Event) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%v %s %v > %v %s", e.At, e.Proto, e.From, e.To, e.Kind)
	switch {
	case e.Kind == Wrote:
		fmt.Fprintf(&b, " %d bytes", e.Written)
		return b.String()
	case e.Kind == Dropped:
		fmt.Fprintf(&b, " (%v)", e.Reason)
	}
	if e.Proto == "tcp" {
		fmt.Fprintf(&b, " %v seq %d ack %d window %d", e.Flags, e.Seq, e.Ack, e.Window)
	}
	fmt.Fprintf(&b, " %d bytes", len(e.Payload))
	return b.String()
}

func (n *Network) trace(k Kind, p *packet, why Reason) {
	if n.cfg.Trace == nil {
		return
	}
	e := Event{At: time.Duration(n.now), Kind: k, Reason: why, Proto: "udp", From: p.src, To: p.dst, Size: p.size, Payload: p.data}
	if !p.udp {
		e.Proto = "tcp"
		e.Flags, e.Window = Flags(p.flags), int(p.window)
		// The SYN takes a number of its own.
		if e.Seq = uint32(p.seq); p.flags&syn == 0 {
			e.Seq++
		}
		if p.flags&ack != 0 {
			e.Ack = uint32(p.ack) + 1
		}
	}
	n.cfg.Trace(e)
}

func (n *Network) traceWrite(proto string, f flow, size int) {
	if n.cfg.Trace != nil {
		n.cfg.Trace(Event{At: time.Duration(n.now), Kind: Wrote, Proto: proto, From: f.local, To: f.remote, Written: size})
	}
}
