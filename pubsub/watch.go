package pubsub

import (
	"context"
	"iter"

	"github.com/plexus-p2p/plexus/peer"
)

// A Change is a neighbour that came to a topic, or left it.
type Change struct {
	Peer peer.ID
	Here bool // it is subscribed
}

// Watch yields the neighbours that are subscribed to the topic, and from then on each
// that comes or goes, until ctx, the topic or the loop ends. It compares what is with
// what was: who goes and comes back meanwhile, is not told of.
func (t *Topic) Watch(ctx context.Context) iter.Seq[Change] {
	return func(yield func(Change) bool) {
		ps := t.ps
		here := make(map[peer.ID]bool)
		for {
			ps.mu.Lock()
			if t.closed || ps.closed {
				ps.mu.Unlock()
				return
			}
			now := ids(ps.core.In(t.name))
			change := ps.nextChange()
			ps.mu.Unlock()
			for _, c := range diff(here, now) {
				if !yield(c) {
					return
				}
			}
			select {
			case <-change:
			case <-ctx.Done():
				return
			case <-ps.ctx.Done():
				return
			}
		}
	}
}

// diff makes here, a set, what now lists, and returns what that changes: who went first.
func diff(here map[peer.ID]bool, now []peer.ID) (changes []Change) {
	for id := range here {
		here[id] = false
	}
	for _, id := range now {
		if _, old := here[id]; !old {
			changes = append(changes, Change{id, true})
		}
		here[id] = true
	}
	for id, still := range here {
		if !still {
			delete(here, id)
			changes = append([]Change{{id, false}}, changes...)
		}
	}
	return changes
}

// nextChange is closed when peers or subscriptions change. The caller holds ps.mu.
func (ps *PubSub) nextChange() <-chan struct{} {
	if ps.change == nil {
		ps.change = make(chan struct{})
	}
	return ps.change
}

// Flush waits until all that this host has published is written to the streams of
// those neighbours that took it: before the host is closed, which delivers what is
// written. The error is the cause of ctx.
func (ps *PubSub) Flush(ctx context.Context) error {
	ps.mu.Lock()
	all := make([]*outbox, 0, len(ps.links))
	for _, l := range ps.links {
		all = append(all, l.out)
	}
	ps.mu.Unlock()
	for _, o := range all {
		for idle := o.waitIdle(); idle != nil; idle = o.waitIdle() {
			select {
			case <-idle:
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		}
	}
	return nil
}

// waitIdle returns nil if no own message waits or is being written; else what is
// closed when that may be so.
func (o *outbox) waitIdle() <-chan struct{} {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.closed || !o.writing && o.q.own.peek() == nil {
		return nil
	}
	if o.idle == nil {
		o.idle = make(chan struct{})
	}
	return o.idle
}

// rest wakes Flush. The caller holds o.mu.
func (o *outbox) rest() {
	if o.idle != nil {
		close(o.idle)
		o.idle = nil
	}
}
