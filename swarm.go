package plexus

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"sync"

	"github.com/plexus-p2p/plexus/peer"
)

// swarm is the table of a host's connections.
type swarm struct {
	// Fixed.
	limits     Limits
	handshakes chan struct{} // a token for each inbound upgrade under way

	mu        sync.Mutex
	closed    bool
	peers     map[peer.ID][]*Conn // the best first
	n         int
	ips       map[netip.Addr]int // inbound connections by IP
	protected map[peer.ID]int
	live      map[*Conn]struct{} // all whose session runs, retired ones included
}

func (s *swarm) init(l Limits) {
	s.limits = l
	if l.Handshakes < 1<<16 {
		s.handshakes = make(chan struct{}, l.Handshakes)
	}
	s.peers = make(map[peer.ID][]*Conn)
	s.ips = make(map[netip.Addr]int)
	s.protected = make(map[peer.ID]int)
	s.live = make(map[*Conn]struct{})
}

// handshake waits for room to upgrade one more inbound connection.
func (s *swarm) handshake(ctx context.Context) bool {
	if s.handshakes == nil {
		return ctx.Err() == nil
	}
	select {
	case s.handshakes <- struct{}{}:
		return true
	case <-ctx.Done():
		return false
	}
}

func (s *swarm) handshaken() {
	if s.handshakes != nil {
		<-s.handshakes
	}
}

// site is what counts as one address: an IPv4 address or an IPv6 /64.
func site(ip netip.Addr) netip.Addr {
	if ip.Is6() {
		if p, err := ip.WithZone("").Prefix(64); err == nil {
			return p.Addr()
		}
	}
	return ip
}

func (s *swarm) allowIP(ip netip.Addr) error {
	if !ip.IsValid() || ip.IsLoopback() {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ips[site(ip)] >= s.limits.ConnsPerIP {
		return fmt.Errorf("%w: %d connections from %s (Limits.ConnsPerIP)", ErrLimit, s.limits.ConnsPerIP, site(ip))
	}
	return nil
}

// add takes a connection in. Where the table is full, it returns the connection
// that has to go for it.
func (s *swarm) add(c *Conn) (out *Conn, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := c.link.peer
	switch {
	case s.closed:
		return nil, ErrClosed
	case len(s.peers[p]) >= s.limits.ConnsPerPeer:
		return nil, fmt.Errorf("%w: %d connections to %s (Limits.ConnsPerPeer)", ErrLimit, s.limits.ConnsPerPeer, p)
	case s.n >= s.limits.Conns:
		if out = s.idlestLocked(); out == nil {
			return nil, fmt.Errorf("%w: %d connections, all in use or protected (Limits.Conns)", ErrLimit, s.n)
		}
		s.retireLocked(out)
	}
	// The oldest connection stays the best, so that both ends agree without a word.
	s.peers[p] = append(s.peers[p], c)
	s.live[c] = struct{}{}
	s.n++
	if ip := c.link.ip(); c.link.inbound && ip.IsValid() {
		s.ips[site(ip)]++
	}
	return out, nil
}

// idlestLocked finds the connection that has been without streams for longest.
func (s *swarm) idlestLocked() (idlest *Conn) {
	for p, cs := range s.peers {
		if s.protected[p] > 0 {
			continue
		}
		for _, c := range cs {
			if c.streams.Load() == 0 && (idlest == nil || c.idle.Load() < idlest.idle.Load()) {
				idlest = c
			}
		}
	}
	return idlest
}

// retire takes a connection that is ending out of use.
func (s *swarm) retire(c *Conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.retireLocked(c)
}

func (s *swarm) retireLocked(c *Conn) {
	p := c.link.peer
	i := slices.Index(s.peers[p], c)
	if i < 0 {
		return
	}
	if s.peers[p] = slices.Delete(s.peers[p], i, i+1); len(s.peers[p]) == 0 {
		delete(s.peers, p)
	}
	s.n--
	if ip := c.link.ip(); c.link.inbound && ip.IsValid() {
		if s.ips[site(ip)]--; s.ips[site(ip)] == 0 {
			delete(s.ips, site(ip))
		}
	}
}

// remove forgets a connection whose session is over.
func (s *swarm) remove(c *Conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.retireLocked(c)
	delete(s.live, c)
}

// close refuses further connections and returns those whose sessions run.
func (s *swarm) close() []*Conn {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	cs := make([]*Conn, 0, len(s.live))
	for c := range s.live {
		cs = append(cs, c)
	}
	return cs
}

func (s *swarm) best(p peer.ID) *Conn {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range s.peers[p] {
		if !c.gone() {
			return c
		}
	}
	return nil
}

func (s *swarm) of(p peer.ID) []*Conn {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.peers[p])
}

func (s *swarm) all() []*Conn {
	s.mu.Lock()
	defer s.mu.Unlock()
	cs := make([]*Conn, 0, s.n)
	for _, of := range s.peers {
		cs = append(cs, of...)
	}
	return cs
}

// Protect keeps connections to p from being trimmed for [Limits.Conns], until
// release is called as often as Protect.
func (h *Host) Protect(p peer.ID) (release func()) {
	s := &h.swarm
	s.mu.Lock()
	defer s.mu.Unlock()
	s.protected[p]++
	var once sync.Once
	return func() {
		once.Do(func() {
			s.mu.Lock()
			defer s.mu.Unlock()
			if s.protected[p]--; s.protected[p] == 0 {
				delete(s.protected, p)
			}
		})
	}
}
