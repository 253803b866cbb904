// Package simnet is a network in one process, for tests: hosts with addresses, TCP
// and UDP sockets and DNS, on links that have latency, bandwidth, queues, loss,
// reordering and an MTU, and that can fail while they are in use.
//
//	n := simnet.New(simnet.Config{
//		Access: simnet.Link{Bandwidth: 100e6},                // of each host, each way
//		Path:   simnet.Link{Latency: 50 * time.Millisecond},  // between any two hosts
//	})
//	defer n.Close()
//	a, b := n.Host("10.0.0.1"), n.Host("10.0.0.2", "2001:db8::2")
//	l, err := b.ListenTCP(ctx, netip.MustParseAddrPort("10.0.0.2:4001"))
//
// A [Host] is a transport.Network: whole libp2p hosts run on it. Inside a
// testing/synctest bubble the network runs in virtual time, exactly and as fast as
// the machine can; outside, in real time. A network belongs to the bubble that it was made in.
//
// # What a packet meets
//
// The sender's uplink, the path between the two hosts, the receiver's downlink. Each
// is a [Link]: it takes packets one after the other at its bandwidth, while others
// wait in its queue or are dropped when that is full; then its latency passes. An
// idle 1500-byte packet takes, over the network above, 0.12 ms for the uplink, 50 ms
// for the path, and 0.12 ms for the downlink. A host reaches itself, by any of its
// addresses or by loopback, without passing a link.
//
// The same Seed and the same traffic meet the same faults. In a bubble the whole
// network replays event by event, as long as the programs on it do.
//
// # TCP
//
// Connections behave as those of Linux where an application can tell: a connect
// takes one round trip; nobody listening is ECONNREFUSED; a lost SYN costs a
// second; segments, acknowledgements and headers take bandwidth; a lost segment
// holds up what was sent after it, for a round trip or a retransmission timeout; a
// write blocks while SendBuffer bytes wait to be sent; a reader that does not read
// stops the writer; a close with unread data resets; 15 timeouts in a row are
// ETIMEDOUT. Writes are sent at once (TCP_NODELAY), each in segments of its own
// while nothing waits. Selective acknowledgements are perfect, an acknowledgement
// is never delayed, and congestion control watches delivery rate and delay as BBR
// does: a random loss costs its retransmission but no bandwidth, and queues stay
// short. Ports can be shared between a listener and dials, and two hosts that
// dial each other at once from such ports get one connection.
//
// # Limits
//
// There is no NAT, no ICMP, no fragmentation (what is longer than the MTU is lost),
// no path MTU discovery (TCP knows the MTU when it connects), no multicast, no
// TIME_WAIT.
package simnet

import (
	"context"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"
)

// Config describes a network. The zero Config is a perfect one.
type Config struct {
	Seed   uint64        // of all that is random
	Access Link          // links of new hosts, each way
	Path   Link          // between any two hosts' links, each way
	Lookup time.Duration // how long a DNS lookup takes

	SendBuffer    int // bytes that a TCP connection holds before they are sent; 0: 64 KiB
	ReceiveBuffer int // bytes that it holds at most for its reader; 0: 4 MiB

	// Trace, if not nil, sees all that happens. It must not call the network.
	// See [Recorder] and [Pcap].
	Trace func(Event)
}

// Network is a network of hosts. Its methods, and all of its hosts and sockets,
// may be used concurrently.
type Network struct {
	cfg     Config
	start   time.Time
	virtual bool // in a synctest bubble

	mu       sync.Mutex // guards all below, and hosts, links and sockets
	now      int64
	events   heap
	seq      uint64
	timer    *time.Timer // calls tick
	settled  *time.Timer // calls act; see settle
	guard    *time.Timer
	armed    int64 // when one of them is to call
	settling bool  // it is settled
	dirty    []socket
	spare    []socket // the other backing array of dirty
	free     *packet
	ids      uint64 // connections made so far

	hosts   []*Host
	owners  map[netip.Addr]*Host
	paths   map[[2]int]*link
	pathCfg map[[2]int]Link // where it is not cfg.Path
	islands []map[*Host]bool
	names   map[string][]netip.Addr
	texts   map[string][]string
	closed  bool
}

// New makes a network.
func New(cfg Config) *Network {
	if cfg.SendBuffer <= 0 {
		cfg.SendBuffer = 64 << 10
	}
	if cfg.ReceiveBuffer <= 0 {
		cfg.ReceiveBuffer = 4 << 20
	}
	return &Network{
		cfg:     cfg,
		start:   time.Now(),
		virtual: inBubble(),
		armed:   never,
		owners:  make(map[netip.Addr]*Host),
		paths:   make(map[[2]int]*link),
		pathCfg: make(map[[2]int]Link),
		names:   make(map[string][]netip.Addr),
		texts:   make(map[string][]string),
	}
}

// Host adds a host with these addresses. It panics if one is not an IP address or
// belongs to another host.
func (n *Network) Host(ips ...string) *Host {
	n.enter()
	defer n.leave()
	name := strings.Join(ips, " ")
	h := &Host{
		n:         n,
		name:      name,
		index:     len(n.hosts),
		up:        newLink(n.cfg.Access, n.cfg.Seed, "up "+name),
		down:      newLink(n.cfg.Access, n.cfg.Seed, "down "+name),
		conns:     make(map[flow]*Conn),
		listeners: make(map[netip.AddrPort]*Listener),
		udp:       make(map[netip.AddrPort]*PacketConn),
	}
	h.setIPs(ips)
	n.hosts = append(n.hosts, h)
	return h
}

// SetPath changes the path between two hosts, in both directions.
func (n *Network) SetPath(a, b *Host, l Link) {
	n.SetOneWay(a, b, l)
	n.SetOneWay(b, a, l)
}

// SetOneWay changes the path from one host to another.
func (n *Network) SetOneWay(from, to *Host, l Link) {
	n.enter()
	defer n.leave()
	n.pathCfg[[2]int{from.index, to.index}] = l
	if p := n.paths[[2]int{from.index, to.index}]; p != nil {
		p.Link = l
	}
}

// path returns the path from one host to another; nil is a perfect one.
func (n *Network) path(from, to *Host) *link {
	k := [2]int{from.index, to.index}
	if p := n.paths[k]; p != nil {
		return p
	}
	cfg, own := n.pathCfg[k]
	if !own {
		cfg = n.cfg.Path
	}
	if cfg == (Link{}) {
		return nil
	}
	p := newLink(cfg, n.cfg.Seed, "path "+from.name+" to "+to.name)
	n.paths[k] = p
	return p
}

// Partition separates these hosts from all others. Packets between the two sides
// vanish, those under way too. It can be called again, to part the network further.
func (n *Network) Partition(island ...*Host) {
	n.enter()
	defer n.leave()
	m := make(map[*Host]bool)
	for _, h := range island {
		m[h] = true
	}
	n.islands = append(n.islands, m)
}

// Heal ends all partitions.
func (n *Network) Heal() {
	n.enter()
	defer n.leave()
	n.islands = nil
}

func (n *Network) parted(a, b *Host) bool {
	for _, m := range n.islands {
		if m[a] != m[b] {
			return true
		}
	}
	return false
}

// Cut resets all TCP connections between two hosts, at both ends at once.
func (n *Network) Cut(a, b *Host) {
	n.enter()
	defer n.leave()
	for _, x := range [][2]*Host{{a, b}, {b, a}} {
		for _, c := range x[0].conns {
			if n.owners[c.flow.remote.Addr()] == x[1] {
				c.end(errReset)
			}
		}
	}
}

// SetDNS makes a name resolve to addresses, or to nothing. It panics if one is not
// an IP address.
func (n *Network) SetDNS(name string, ips ...string) {
	n.enter()
	defer n.leave()
	var all []netip.Addr
	for _, ip := range ips {
		all = append(all, netip.MustParseAddr(ip))
	}
	n.names[dnsKey(name)] = all
}

// SetTXT sets the TXT records of a name.
func (n *Network) SetTXT(name string, texts ...string) {
	n.enter()
	defer n.leave()
	n.texts[dnsKey(name)] = slices.Clone(texts)
}

func dnsKey(name string) string { return strings.ToLower(strings.TrimSuffix(name, ".")) }

// lookup waits for an answer as long as one takes.
func (n *Network) lookup(ctx context.Context, name string) error {
	if n.cfg.Lookup > 0 && ctx.Err() == nil {
		t := time.NewTimer(n.cfg.Lookup)
		defer t.Stop()
		select {
		case <-t.C:
		case <-ctx.Done():
		}
	}
	if ctx.Err() != nil {
		err := context.Cause(ctx)
		return &net.DNSError{UnwrapErr: err, Err: err.Error(), Name: name, IsTimeout: ctx.Err() == context.DeadlineExceeded}
	}
	return nil
}

func noSuchName(name string) error {
	return &net.DNSError{Err: "no such host", Name: name, IsNotFound: true}
}

// Close ends the network: all sockets close, without a word to their peers.
func (n *Network) Close() {
	n.enter()
	defer n.leave()
	for _, h := range n.hosts {
		h.closeSockets(net.ErrClosed)
	}
	n.closed = true
	if n.guard != nil {
		n.guard.Stop()
	}
	clear(n.events)
	n.events, n.dirty = nil, nil
}
