package plexus

import (
	"iter"
	"slices"
	"sync"
	"time"

	ma "github.com/multiformats/go-multiaddr"

	"github.com/plexus-p2p/plexus/peer"
)

// How long an address is remembered, by where it comes from.
const (
	TTLHeard     = 10 * time.Minute // somebody else said so, or a peer we are not connected to
	TTLConnected = 2 * time.Hour    // the peer said so itself
	TTLForever   = time.Duration(1<<63 - 1)
)

// Peers is what a host knows of other peers: their addresses, each until it
// expires. It keeps at most [Limits.Peers] peers of [Limits.Addrs] addresses,
// and forgets those first that expire first. Its methods may be called
// concurrently.
type Peers struct {
	limits Limits

	mu sync.Mutex
	m  map[peer.ID][]known // by expiry, the latest first
}

// known is an address with the time until which it is remembered.
type known struct {
	addr  ma.Multiaddr
	until time.Time // zero is forever
}

func (p *Peers) init(l Limits) {
	p.limits = l
	p.m = make(map[peer.ID][]known)
}

// Add remembers addresses for ttl, or for longer where they are known for longer
// already. A /p2p part that names info.ID is dropped; an address that names
// another peer is left out.
func (p *Peers) Add(info peer.AddrInfo, ttl time.Duration) {
	if info.ID == "" || ttl <= 0 {
		return
	}
	now := time.Now()
	var until time.Time
	if ttl != TTLForever {
		until = now.Add(ttl)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	list := unexpired(p.m[info.ID], now)
	for _, a := range ownAddrs(info) {
		i := slices.IndexFunc(list, func(k known) bool { return k.addr.Equal(a) })
		switch {
		case i < 0:
			list = append(list, known{a, until})
		case later(until, list[i].until):
			list[i].until = until
		}
	}
	slices.SortStableFunc(list, func(a, b known) int {
		switch {
		case later(a.until, b.until):
			return -1
		case later(b.until, a.until):
			return 1
		}
		return 0
	})
	if len(list) > p.limits.Addrs {
		list = slices.Delete(list, p.limits.Addrs, len(list))
	}
	if len(list) == 0 {
		return
	}
	if _, ok := p.m[info.ID]; !ok && len(p.m) >= p.limits.Peers {
		p.evictLocked(now)
	}
	p.m[info.ID] = list
}

// evictLocked drops what has expired, or else the peer that expires first.
func (p *Peers) evictLocked(now time.Time) {
	var first peer.ID
	for id, list := range p.m {
		if list = unexpired(list, now); len(list) == 0 {
			delete(p.m, id)
			continue
		}
		p.m[id] = list
		if first == "" || later(p.m[first][0].until, list[0].until) {
			first = id
		}
	}
	if len(p.m) >= p.limits.Peers {
		delete(p.m, first)
	}
}

// Addrs lists the addresses known of a peer.
func (p *Peers) Addrs(id peer.ID) []ma.Multiaddr {
	p.mu.Lock()
	defer p.mu.Unlock()
	var addrs []ma.Multiaddr
	for _, k := range unexpired(p.m[id], time.Now()) {
		addrs = append(addrs, k.addr)
	}
	return addrs
}

// Forget drops all addresses of a peer.
func (p *Peers) Forget(id peer.ID) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.m, id)
}

// All yields the peers of which an address is known.
func (p *Peers) All() iter.Seq[peer.AddrInfo] {
	p.mu.Lock()
	ids := make([]peer.ID, 0, len(p.m))
	for id := range p.m {
		ids = append(ids, id)
	}
	p.mu.Unlock()
	return func(yield func(peer.AddrInfo) bool) {
		for _, id := range ids {
			if addrs := p.Addrs(id); len(addrs) > 0 && !yield(peer.AddrInfo{ID: id, Addrs: addrs}) {
				return
			}
		}
	}
}

func unexpired(list []known, now time.Time) []known {
	return slices.DeleteFunc(slices.Clone(list), func(k known) bool {
		return !k.until.IsZero() && !k.until.After(now)
	})
}

// later tells whether a is after b, where zero is forever.
func later(a, b time.Time) bool {
	if a.IsZero() || b.IsZero() {
		return a.IsZero() && !b.IsZero()
	}
	return a.After(b)
}

// ownAddrs are the addresses of info without their /p2p part, those that name
// another peer left out.
func ownAddrs(info peer.AddrInfo) []ma.Multiaddr {
	addrs := make([]ma.Multiaddr, 0, len(info.Addrs))
	for _, a := range info.Addrs {
		if a, id := peer.SplitAddr(a); len(a) > 0 && (id == "" || id == info.ID) {
			addrs = append(addrs, a)
		}
	}
	return addrs
}
