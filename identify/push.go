package identify

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/plexus-p2p/plexus"
)

const (
	// pushDelay is how long changes are collected before peers hear of them.
	pushDelay = 300 * time.Millisecond

	// pushParallel is how many peers are told at the same time.
	pushParallel = 32

	// A peer may push pushBurst times in a row, and once more each pushEvery.
	// Further pushes are reset.
	pushBurst = 10
	pushEvery = 5 * time.Second
)

// changed hears that something may have changed.
func (s *service) changed() {
	s.stale.Store(true)
	s.schedule()
}

// schedule begins a round of pushes, unless one is about to begin.
func (s *service) schedule() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.guests) == 0 {
		return // whoever connects later is told when he asks
	}
	if s.pushing {
		s.again = true
		return
	}
	s.pushing = true
	time.AfterFunc(pushDelay, s.pushAll)
}

// pushAll tells all who want to know and do not yet. It runs alone, and for as
// long as things change: pushDelay after a round begins the next one.
func (s *service) pushAll() {
	s.mu.Lock()
	s.again = false
	s.mu.Unlock()

	me := s.current()
	var wg sync.WaitGroup
	free := make(chan struct{}, pushParallel)
	for _, c := range s.behind(me.gen) {
		free <- struct{}{}
		wg.Go(func() { // ends by timeout
			defer func() { <-free }()
			ctx, cancel := context.WithTimeout(context.Background(), timeout)
			defer cancel()
			s.push(ctx, c, me)
		})
	}
	wg.Wait()

	s.mu.Lock()
	defer s.mu.Unlock()
	if s.pushing = s.again; s.again {
		time.AfterFunc(pushDelay, s.pushAll)
	}
}

// behind lists, for each peer that takes pushes and has not heard of gen, a
// connection to it.
func (s *service) behind(gen uint64) []*plexus.Conn {
	s.mu.Lock()
	defer s.mu.Unlock()
	var conns []*plexus.Conn
	for _, g := range s.guests {
		if g.told >= gen {
			continue
		}
		if i := slices.IndexFunc(g.conns, takesPushes); i >= 0 {
			conns = append(conns, g.conns[i])
		}
	}
	return conns
}

func takesPushes(c *plexus.Conn) bool {
	id := c.Identity()
	return id != nil && slices.Contains(id.Protocols, PushProtocol)
}

// catchUp tells a peer what has changed between its question and our learning
// that it takes pushes.
func (s *service) catchUp(ctx context.Context, c *plexus.Conn) {
	me := s.current()
	s.mu.Lock()
	g := s.guests[c.Peer()]
	behind := g != nil && g.told > 0 && g.told < me.gen // who has not asked yet, will
	s.mu.Unlock()
	if behind && takesPushes(c) {
		s.push(ctx, c, me)
	}
}

// push tells one peer who we are now.
//
// "When the remote peer accepts the stream, the local peer will send an Identify
// message and close the stream."
func (s *service) push(ctx context.Context, c *plexus.Conn, me *self) {
	st, err := c.Open(ctx, PushProtocol)
	if err == nil {
		sc := s.scratches.Get().(*scratch)
		defer s.recycle(sc)
		sc.b = appendAnswer(sc.b, me.first, me.rest, nil)
		st.SetDeadline(time.Now().Add(timeout))
		if _, err = st.Write(sc.b); err != nil {
			st.Reset(plexus.CodeNone)
		} else if err = st.Close(); err == nil {
			s.hasHeard(c.Peer(), me.gen)
		}
	}
	if err != nil {
		s.log.Debug("push failed", "peer", c.Peer(), "addr", c.RemoteAddr(), "err", err)
	}
}

// receive serves [PushProtocol].
//
// "Upon receiving the pushed Identify message, the remote peer should update
// their local metadata repository with the information from the message."
func (s *service) receive(ctx context.Context, st *plexus.Stream) error {
	c := st.Conn()
	if !s.mayPush(c, time.Now()) {
		return fmt.Errorf("identify: %w: %d pushes at once, then one each %v", plexus.ErrLimit, pushBurst, pushEvery)
	}
	sc := s.scratches.Get().(*scratch)
	defer s.recycle(sc)
	st.SetDeadline(time.Now().Add(timeout))
	if err := sc.read(st); err != nil {
		return err
	}
	// A part of an identity alone is none: let the answer come first. Where it
	// never comes, the push is what there is.
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	c.WaitIdentity(ctx)
	return s.apply(c, &sc.m, true)
}

func (s *service) mayPush(c *plexus.Conn, now time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	g := s.guests[c.Peer()]
	return g != nil && g.mayPush(now.UnixNano())
}

// mayPush takes a push into account, if there is room for one.
func (g *guest) mayPush(now int64) bool {
	paid := max(g.pushes, now)
	if paid-now > (pushBurst-1)*int64(pushEvery) {
		return false
	}
	g.pushes = paid + int64(pushEvery)
	return true
}
