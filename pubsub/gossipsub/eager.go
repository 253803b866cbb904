package gossipsub

import (
	"slices"
	"time"

	"github.com/plexus-p2p/plexus/pubsub"
)

// A large message of others goes to some peers of the mesh at once, and to the rest one
// after the other, unless they have it by then: they tell by IDONTWANT. That halves
// the copies, and lets those that are sent it first have the uplink for themselves.

// maxStaggered bounds the messages that some are yet to be sent; further ones go to all
// at once.
const maxStaggered = 256

// A staggered message is one that some peers of its mesh are yet to be sent.
type staggered struct {
	m     *pubsub.Message
	peers []*neighbour
	due   time.Time // of the next one
}

// stagger sends m to some of its mesh, and to the others later.
func (r *Router) stagger(now time.Time, m *pubsub.Message, mesh []*neighbour, a *pubsub.Actions) {
	peers := slices.DeleteFunc(slices.Clone(mesh), func(n *neighbour) bool { return !r.wanted(n, m) })
	r.c.Rand.Shuffle(len(peers), func(i, j int) { peers[i], peers[j] = peers[j], peers[i] })
	first := min(r.params.EagerPeers, len(peers))
	if len(r.staggered) >= maxStaggered {
		first = len(peers)
	}
	for _, n := range peers[:first] {
		a.Send(n.Peer, m)
	}
	if rest := peers[first:]; len(rest) > 0 {
		due := now.Add(r.params.EagerStep)
		r.staggered = append(r.staggered, &staggered{m, rest, due})
		r.c.Wake(due)
	}
}

// has notes that a peer has a message.
func (r *Router) has(n *neighbour, id pubsub.MessageID) {
	for _, s := range r.staggered {
		if s.m.ID == id {
			s.peers = without(s.peers, n)
			return
		}
	}
}

// sendStaggered sends what is due.
func (r *Router) sendStaggered(now time.Time, a *pubsub.Actions) {
	r.staggered = slices.DeleteFunc(r.staggered, func(s *staggered) bool {
		for len(s.peers) > 0 && !now.Before(s.due) {
			n := s.peers[0]
			s.peers = s.peers[1:]
			if ms := r.mesh[s.m.Topic]; ms != nil && ms.has(n) && r.wanted(n, s.m) {
				a.Send(n.Peer, s.m)
				s.due = s.due.Add(r.params.EagerStep)
			}
		}
		return len(s.peers) == 0
	})
}
