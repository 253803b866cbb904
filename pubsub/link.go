package pubsub

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/plexus-p2p/plexus"
	"github.com/plexus-p2p/plexus/peer"
	"github.com/plexus-p2p/plexus/transport"
)

const (
	openTimeout     = 10 * time.Second
	identifyTimeout = 10 * time.Second
)

// A link is a neighbour: the stream that we write to, in its outbox, and the one
// that we read from.
//
// "Data should be exchanged between peers using two separately negotiated streams,
// one inbound, one outbound. These streams are treated as unidirectional streams."
type link struct {
	id  peer.ID
	out *outbox

	// Guarded by PubSub.mu.
	in   *plexus.Stream // nil: there is none
	peer *Peer          // nil: neither stream has been there yet
}

// notify hears what happens to the host.
func (ps *PubSub) notify(ev plexus.Event) {
	switch ev := ev.(type) {
	case plexus.Connected:
		ps.begin(func() { ps.connected(ev.Conn) }) // ends with the peer's identity, or after identifyTimeout
	case plexus.Identified:
		if ps.speaks(ev.Conn) {
			ps.begin(func() { ps.connect(ev.Conn.Peer()) })
		}
	}
}

// begin runs f unless ps is closed.
func (ps *PubSub) begin(f func()) {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	if !ps.closed {
		ps.wg.Go(f)
	}
}

// connected waits for a new connection's identity. Where it does not come, the peer
// is asked for the protocols one by one.
func (ps *PubSub) connected(c *plexus.Conn) {
	if slices.Contains(ps.h.Protocols(), identifyProtocol) {
		ctx, cancel := context.WithTimeout(ps.ctx, identifyTimeout)
		defer cancel()
		if _, err := c.WaitIdentity(ctx); err == nil && !ps.speaks(c) {
			return
		}
	}
	ps.connect(c.Peer())
}

// identifyProtocol is what package identify serves, which this package need not link.
const identifyProtocol = "/ipfs/id/1.0.0"

// speaks reports whether the peer has told that it speaks one of our protocols.
func (ps *PubSub) speaks(c *plexus.Conn) bool {
	id := c.Identity()
	return id != nil && slices.ContainsFunc(ps.protocols, func(p string) bool { return slices.Contains(id.Protocols, p) })
}

// linkTo returns the link to a peer, a new one if there is none, or nil.
func (ps *PubSub) linkTo(id peer.ID) *link {
	if ps.closed {
		return nil
	}
	l := ps.links[id]
	if l == nil {
		l = &link{id: id}
		l.out = &outbox{ps: ps, link: l, q: Queue{Own: ps.cfg.OwnQueue, Forward: ps.cfg.ForwardQueue}}
		ps.links[id] = l
	}
	return l
}

// connect opens a stream to a peer, unless there is one.
func (ps *PubSub) connect(id peer.ID) {
	ps.mu.Lock()
	l := ps.linkTo(id)
	ps.mu.Unlock()
	if l != nil {
		l.out.start()
	}
}

// open opens the stream to a peer and returns what is to be sent first: our
// subscriptions, and what we support. Where it fails, hopeless tells whether there
// is no use in trying again.
func (ps *PubSub) open(l *link) (s *plexus.Stream, hello []byte, hopeless bool) {
	conns := ps.h.ConnsTo(l.id)
	if len(conns) == 0 {
		return nil, nil, true
	}
	ctx, cancel := context.WithTimeout(ps.ctx, openTimeout)
	defer cancel()
	s, err := conns[0].Open(ctx, ps.protocols...)
	if err != nil {
		return nil, nil, errors.Is(err, plexus.ErrNotSupported)
	}
	ps.mu.Lock()
	defer ps.mu.Unlock()
	if ps.closed || ps.links[l.id] != l {
		s.Reset(plexus.CodeNone)
		return nil, nil, true
	}
	ps.up(l, s)
	return s, ps.hello(l), false
}

// up makes a link's peer known to the core, if it is not.
func (ps *PubSub) up(l *link, s *plexus.Stream) {
	if l.peer != nil {
		return
	}
	l.peer = &Peer{ID: l.id, Protocol: s.Protocol(), Outbound: !s.Conn().Inbound(), out: l.out}
	l.peer.IP, _, _ = transport.IP(s.Conn().RemoteAddr())
	ps.core.AddPeer(time.Now(), l.peer, &ps.actions)
	ps.perform(nil)
	ps.changed()
}

// hello makes the first RPCs of a stream.
func (ps *PubSub) hello(l *link) []byte {
	l.out.mu.Lock()
	l.out.q.subs = nil // what changed until now is said hereby
	l.out.mu.Unlock()
	return ps.core.Hello(l.peer)
}

// attach makes s the stream that we read a peer from. An earlier one is reset: the
// peer has opened another because it gave that one up.
func (ps *PubSub) attach(s *plexus.Stream) *link {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	l := ps.linkTo(s.Conn().Peer())
	if l == nil {
		return nil
	}
	if l.in != nil {
		l.in.Reset(plexus.CodeNone)
	}
	l.in = s
	if l.peer != nil {
		ps.core.Forget(time.Now(), l.peer, &ps.actions)
		ps.perform(nil)
	}
	ps.up(l, s)
	l.out.start()
	return l
}

// detach ends what attach began.
func (ps *PubSub) detach(l *link, s *plexus.Stream) {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	if l.in != s {
		return // replaced
	}
	l.in = nil
	if ps.links[l.id] != l {
		return
	}
	ps.core.Forget(time.Now(), l.peer, &ps.actions)
	ps.perform(nil)
	ps.changed()
	if len(ps.h.ConnsTo(l.id)) == 0 {
		ps.downLocked(l)
	}
}

// down ends a link.
func (ps *PubSub) down(l *link) {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	ps.downLocked(l)
}

func (ps *PubSub) downLocked(l *link) {
	if ps.links[l.id] != l {
		return
	}
	delete(ps.links, l.id)
	if l.in != nil {
		l.in.Reset(plexus.CodeNone)
	}
	if l.peer != nil {
		ps.core.RemovePeer(time.Now(), l.peer, &ps.actions)
		ps.perform(nil)
	}
	l.out.close()
	ps.changed()
}
