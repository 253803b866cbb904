package pubsub

import "time"

// seen remembers message IDs for a time, first in first out, within bounds of
// entries and bytes.
type seen struct {
	ttl     time.Duration
	entries int
	bytes   int

	ids   map[MessageID]struct{}
	queue []seenID // a ring, the oldest at head
	head  int
	n     int
	size  int
	early int // IDs that were forgotten before their time
}

type seenID struct {
	id    MessageID
	until time.Time
}

// seenCost is what an ID takes in memory beside its own bytes.
const seenCost = 96

func newSeen(ttl time.Duration, entries, bytes int) *seen {
	return &seen{ttl: ttl, entries: entries, bytes: bytes, ids: make(map[MessageID]struct{})}
}

func (s *seen) has(id MessageID) bool {
	_, ok := s.ids[id]
	return ok
}

// add remembers id. It returns false if it is known.
func (s *seen) add(now time.Time, id MessageID) bool {
	if s.has(id) {
		return false
	}
	s.expire(now)
	cost := len(id) + seenCost
	for s.n > 0 && (s.n >= s.entries || s.size+cost > s.bytes) {
		s.drop()
		s.early++
	}
	if s.n == len(s.queue) {
		q := make([]seenID, max(64, 2*s.n))
		for i := range s.n {
			q[i] = s.queue[(s.head+i)%len(s.queue)]
		}
		s.queue, s.head = q, 0
	}
	s.queue[(s.head+s.n)%len(s.queue)] = seenID{id, now.Add(s.ttl)}
	s.n++
	s.size += cost
	s.ids[id] = struct{}{}
	return true
}

// expire forgets what is too old.
func (s *seen) expire(now time.Time) {
	for s.n > 0 && !now.Before(s.queue[s.head].until) {
		s.drop()
	}
	if s.n == 0 && len(s.queue) > 1024 {
		s.queue, s.head, s.ids = nil, 0, make(map[MessageID]struct{}) // what a burst has left behind
	}
}

func (s *seen) drop() {
	e := &s.queue[s.head]
	delete(s.ids, e.id)
	s.size -= len(e.id) + seenCost
	*e = seenID{}
	s.head = (s.head + 1) % len(s.queue)
	s.n--
}
