package pubsub

import (
	"slices"

	"github.com/plexus-p2p/plexus/internal/pb"
)

const (
	// maxBatch is what one write carries, as long as no frame is longer.
	maxBatch = 64 << 10

	// ownShare is how much of a batch this host's own messages take while others wait.
	ownShare = maxBatch / 4 * 3

	// maxControl is how many bytes of gossip wait for a peer. GRAFT and PRUNE, without
	// which two routers disagree, may take twice that; then the peer is cut off.
	maxControl = 256 << 10

	// maxDontWant is how many IDs of IDONTWANT wait for a peer.
	maxDontWant = 4096
)

// A Queue is what waits to be sent to one peer: changes of subscriptions, control
// messages, this host's own messages, others' messages, and that is the order in which
// it goes. It is a state machine like [Core], for those who run one.
//
// Own and other messages are bounded apart, in bytes; a message larger than the bound
// finds room in an empty queue. What there is no room for is the caller's to count.
type Queue struct {
	// Own and Forward are the bounds. Fixed.
	Own, Forward int

	subs    map[string]SubOpts // to be announced
	ctl     pages              // control messages, but IDONTWANT
	unasked [][]byte           // IDs to be told of by IDONTWANT
	partial []byte             // encoded RPCs, each with its length
	own     fifo
	fwd     fifo
	where   map[MessageID]place
}

// A place is where a message waits.
type place struct {
	own bool
	seq uint64
}

// A fifo is a queue of messages. Their sequence numbers count from 0.
type fifo struct {
	q     []*Message // nil: cancelled
	head  int
	first uint64 // the sequence number of q[head]
	bytes int
}

func (f *fifo) push(m *Message) (seq uint64) {
	if f.head > 32 && f.head > len(f.q)/2 {
		n := copy(f.q, f.q[f.head:])
		clear(f.q[n:])
		f.q, f.head = f.q[:n], 0
	}
	f.q = append(f.q, m)
	f.bytes += len(m.frame)
	return f.first + uint64(len(f.q)-f.head-1)
}

// peek returns the first message that is not cancelled, or nil.
func (f *fifo) peek() *Message {
	for f.head < len(f.q) {
		if m := f.q[f.head]; m != nil {
			return m
		}
		f.next()
	}
	f.q, f.head = f.q[:0], 0
	if cap(f.q) > 1024 {
		f.q = nil
	}
	return nil
}

func (f *fifo) next() {
	f.q[f.head] = nil
	f.head++
	f.first++
}

func (f *fifo) pop(m *Message) {
	f.bytes -= len(m.frame)
	f.next()
}

// remove takes the message with a sequence number out.
func (f *fifo) remove(seq uint64) {
	at := &f.q[f.head+int(seq-f.first)]
	f.bytes -= len((*at).frame)
	*at = nil
}

// Push adds m, which waits already or not. It returns false if there is no room.
func (q *Queue) Push(m *Message, own bool) bool {
	if _, ok := q.where[m.ID]; ok {
		return true
	}
	f, limit := &q.fwd, q.Forward
	if own {
		f, limit = &q.own, q.Own
	}
	if f.bytes > 0 && f.bytes+len(m.frame) > limit {
		return false
	}
	if q.where == nil {
		q.where = make(map[MessageID]place)
	}
	q.where[m.ID] = place{own, f.push(m)}
	return true
}

// Cancel takes a message out that the peer turned out to have. It returns false if it
// does not wait.
func (q *Queue) Cancel(id []byte) bool {
	at, ok := q.where[MessageID(id)]
	if !ok {
		return false
	}
	delete(q.where, MessageID(id))
	if at.own {
		q.own.remove(at.seq)
	} else {
		q.fwd.remove(at.seq)
	}
	return true
}

// Announce adds a change of a subscription. Only the last one of a topic counts.
func (q *Queue) Announce(s SubOpts) {
	if q.subs == nil {
		q.subs = make(map[string]SubOpts)
	}
	q.subs[s.Topic] = s
}

// Control adds control messages. Where there is no room it returns the reason:
// GossipQueueFull, or ControlQueueFull for a peer that is to be cut off.
func (q *Queue) Control(c *Control) (full Reason, ok bool) {
	if q.ctl.bytes >= maxControl {
		if len(c.Graft)+len(c.Prune) == 0 {
			return GossipQueueFull, false
		}
		if q.ctl.bytes >= 2*maxControl {
			return ControlQueueFull, false
		}
	}
	q.ctl.add(c)
	if len(q.unasked)+len(c.IDontWant) > maxDontWant {
		return GossipQueueFull, false
	}
	q.unasked = append(q.unasked, c.IDontWant...)
	return 0, true
}

// dontWant makes IDONTWANT of the IDs that wait for that. A message that leaves in the
// same write needs none: that it comes from here says that it is here.
func (q *Queue) dontWant() {
	ids := q.unasked
	if q.ctl.bytes+q.own.bytes+q.fwd.bytes <= ownShare {
		ids = slices.DeleteFunc(ids, func(id []byte) bool { _, ok := q.where[MessageID(id)]; return ok })
	}
	q.ctl.addDontWant(ids)
	clear(q.unasked)
	q.unasked = q.unasked[:0]
}

// Partial adds a message of the extension for partial messages. It returns false if
// there is no room.
func (q *Queue) Partial(p *Partial) bool {
	if len(q.partial) > 0 && len(q.partial)+len(p.Message)+len(p.Metadata) > q.Forward {
		return false
	}
	var at int
	q.partial, at = pb.BeginDelimited(q.partial)
	q.partial = pb.End(p.append(q.partial), at)
	return true
}

// Next appends what is to be written next to b, as RPCs with their lengths, and takes
// it out. A message that is large comes apart, to be written after b and not changed.
// If both are empty, nothing waits.
func (q *Queue) Next(b []byte) (batch, large []byte, messages int) {
	if len(q.subs) > 0 {
		b = appendSubs(b, q.subs, nil)
		q.subs = nil
	}
	if len(q.unasked) > 0 {
		q.dontWant()
	}
	b = q.ctl.take(b, maxBatch)
	if len(q.partial) > 0 {
		b = append(b, q.partial...)
		q.partial = nil
	}
	limit := maxBatch
	if q.fwd.peek() != nil {
		limit = ownShare // so that what others say is not held up for as long as we speak
	}
	b, large, messages = q.take(&q.own, b, limit)
	if large == nil {
		var n int
		b, large, n = q.take(&q.fwd, b, maxBatch)
		messages += n
	}
	if len(q.where) == 0 {
		q.where = nil
	}
	return b, large, messages
}

// take moves messages from f to b until it has limit bytes.
func (q *Queue) take(f *fifo, b []byte, limit int) (_, large []byte, n int) {
	for {
		m := f.peek()
		if m == nil || len(b) > 0 && len(b)+len(m.frame) > limit && len(m.frame) <= maxBatch/2 {
			return b, nil, n
		}
		f.pop(m)
		delete(q.where, m.ID)
		n++
		if len(m.frame) > maxBatch/2 {
			return b, m.frame, n // not worth a copy
		}
		b = append(b, m.frame...)
	}
}

// Len is how many messages wait, and Size how many bytes of all kinds.
func (q *Queue) Len() int { return len(q.where) }

func (q *Queue) Size() int { return q.own.bytes + q.fwd.bytes + q.ctl.bytes + len(q.partial) }

// Clear empties q.
func (q *Queue) Clear() { *q = Queue{Own: q.Own, Forward: q.Forward} }
