package simnet

import (
	"encoding/binary"
	"io"
	"net/netip"
	"sync"
	"time"
)

// Recorder counts what happens on a network. Its Record method is a Config.Trace.
// The zero value works.
type Recorder struct {
	mu    sync.Mutex
	flows map[Flow]*Counters
}

// Flow is one direction between two sockets.
type Flow struct {
	Proto    string // "tcp" or "udp"
	From, To netip.AddrPort
}

// Counters count what was sent.
type Counters struct {
	Writes      int   // calls of Write or WriteTo
	Written     int64 // bytes in them
	Packets     int
	DataPackets int // with bytes of the application in them
	Bytes       int64
	Dropped     int // packets that did not arrive, or that nobody wanted
}

func (c *Counters) add(o Counters) {
	c.Writes += o.Writes
	c.Written += o.Written
	c.Packets += o.Packets
	c.DataPackets += o.DataPackets
	c.Bytes += o.Bytes
	c.Dropped += o.Dropped
}

// Record takes an event.
func (r *Recorder) Record(e Event) {
	var c Counters
	switch e.Kind {
	case Wrote:
		c.Writes, c.Written = 1, int64(e.Written)
	case Sent:
		c.Packets, c.Bytes = 1, int64(e.Size)
		if len(e.Payload) > 0 {
			c.DataPackets = 1
		}
	case Dropped:
		c.Dropped = 1
	default:
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.flows == nil {
		r.flows = make(map[Flow]*Counters)
	}
	f := Flow{e.Proto, e.From, e.To}
	if r.flows[f] == nil {
		r.flows[f] = new(Counters)
	}
	r.flows[f].add(c)
}

// Flows returns a copy of all counters.
func (r *Recorder) Flows() map[Flow]Counters {
	r.mu.Lock()
	defer r.mu.Unlock()
	all := make(map[Flow]Counters)
	for f, c := range r.flows {
		all[f] = *c
	}
	return all
}

// Sum adds up the counters of some flows, of all if match is nil.
func (r *Recorder) Sum(match func(Flow) bool) Counters {
	var sum Counters
	for f, c := range r.Flows() {
		if match == nil || match(f) {
			sum.add(c)
		}
	}
	return sum
}

// Between matches flows from one address to another, with any ports. An address
// that is "" matches all.
func Between(from, to string) func(Flow) bool {
	is := func(ip netip.Addr, s string) bool { return s == "" || ip == netip.MustParseAddr(s) }
	return func(f Flow) bool { return is(f.From.Addr(), from) && is(f.To.Addr(), to) }
}

// Reset forgets everything.
func (r *Recorder) Reset() {
	r.mu.Lock()
	defer r.mu.Unlock()
	clear(r.flows)
}

// Tee makes one Config.Trace of several.
func Tee(fs ...func(Event)) func(Event) {
	return func(e Event) {
		for _, f := range fs {
			f(e)
		}
	}
}

// Pcap returns a Config.Trace that writes all packets that are sent, lost ones too,
// to a file for tcpdump and Wireshark. It stops at the first error. Checksums are 0.
//
// Format: https://datatracker.ietf.org/doc/html/draft-ietf-opsawg-pcap
func Pcap(w io.Writer) func(Event) {
	const (
		nanoseconds = 0xa1b23c4d // magic number
		raw         = 101        // LINKTYPE_RAW: IP
	)
	le, be := binary.LittleEndian, binary.BigEndian
	b := le.AppendUint32(nil, nanoseconds)
	b = le.AppendUint16(b, 2)
	b = le.AppendUint16(b, 4)
	b = append(b, make([]byte, 8)...)
	b = le.AppendUint32(b, 1<<18)
	b = le.AppendUint32(b, raw)
	_, err := w.Write(b)
	start := time.Now()
	return func(e Event) {
		if e.Kind != Sent || err != nil {
			return
		}
		proto, header := byte(6), tcpHeader
		if e.Proto == "udp" {
			proto, header = 17, udpHeader
		}
		at := start.Add(e.At)
		b = le.AppendUint32(b[:0], uint32(at.Unix()))
		b = le.AppendUint32(b, uint32(at.Nanosecond()))
		b = le.AppendUint32(b, uint32(e.Size))
		b = le.AppendUint32(b, uint32(e.Size))
		if e.From.Addr().Is4() {
			b = append(b, 0x45, 0)
			b = be.AppendUint16(b, uint16(e.Size))
			b = append(b, 0, 0, 0x40, 0, 64, proto, 0, 0) // don't fragment
		} else {
			b = append(b, 0x60, 0, 0, 0)
			b = be.AppendUint16(b, uint16(header+len(e.Payload)))
			b = append(b, proto, 64)
		}
		b = append(b, e.From.Addr().AsSlice()...)
		b = append(b, e.To.Addr().AsSlice()...)
		b = be.AppendUint16(b, e.From.Port())
		b = be.AppendUint16(b, e.To.Port())
		if e.Proto == "tcp" {
			b = be.AppendUint32(b, e.Seq)
			b = be.AppendUint32(b, e.Ack)
			b = append(b, 5<<4, byte(e.Flags))
			b = be.AppendUint16(b, uint16(min(e.Window, 1<<16-1)))
			b = append(b, 0, 0, 0, 0)
		} else {
			b = be.AppendUint16(b, uint16(udpHeader+len(e.Payload)))
			b = append(b, 0, 0)
		}
		b = append(b, e.Payload...)
		_, err = w.Write(b)
	}
}
