package pubsub

import (
	"context"
	"fmt"
	"iter"
	"slices"
	"sync"
)

// A LostError says that a subscription's reader was too slow. Reading goes on.
type LostError struct {
	Topic    string
	Messages int // lost since the message before
}

func (e *LostError) Error() string {
	return fmt.Sprintf("pubsub: %d messages of %q lost: they were not read in time", e.Messages, e.Topic)
}

// A Subscription is a queue of a topic's messages, bounded by Config.SubscriberQueue.
type Subscription struct {
	t *Topic

	mu    sync.Mutex
	queue []item
	head  int
	bytes int
	wake  chan struct{} // holds an element when a reader may have something to do
	err   error         // why there will be no more
}

// An item is a message, or how many were lost.
type item struct {
	m    *Message
	lost int
}

// Subscribe receives the topic's messages, this host's own included, until Close.
func (t *Topic) Subscribe() *Subscription {
	s := &Subscription{t: t, wake: make(chan struct{}, 1)}
	t.ps.mu.Lock()
	defer t.ps.mu.Unlock()
	if t.closed || t.ps.closed {
		s.err = ErrClosed
		return s
	}
	t.subs = append(t.subs, s)
	t.update()
	return s
}

// Close ends the subscription. Messages that wait can still be read.
func (s *Subscription) Close() error {
	ps := s.t.ps
	ps.mu.Lock()
	defer ps.mu.Unlock()
	s.end(ErrClosed)
	if i := slices.Index(s.t.subs, s); i >= 0 {
		s.t.subs = slices.Delete(s.t.subs, i, i+1)
		s.t.update()
	}
	return nil
}

func (s *Subscription) end(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err == nil {
		s.err = err
	}
	s.signal()
}

func (s *Subscription) signal() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// push queues m; it returns false if there is no room.
func (s *Subscription) push(m *Message) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.bytes > 0 && s.bytes+itemCost(m) > s.t.ps.cfg.SubscriberQueue {
		if last := &s.queue[len(s.queue)-1]; last.m == nil {
			last.lost++
		} else {
			s.queue = append(s.queue, item{lost: 1})
		}
		return false
	}
	s.bytes += itemCost(m)
	s.queue = append(s.queue, item{m: m})
	if len(s.queue)-s.head == 1 {
		s.signal()
	}
	return true
}

// itemCost is what a message takes in memory.
func itemCost(m *Message) int { return len(m.frame) + 256 }

// take returns what is next, if anything is.
func (s *Subscription) take() (it item, ok bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.head == len(s.queue) {
		return item{}, false, s.err
	}
	it = s.queue[s.head]
	s.queue[s.head] = item{}
	s.head++
	if it.m != nil {
		s.bytes -= itemCost(it.m)
	}
	if s.head == len(s.queue) {
		s.head = 0
		if s.queue = s.queue[:0]; cap(s.queue) > 1024 {
			s.queue = nil
		}
	} else {
		if s.head > 64 && s.head > len(s.queue)/2 {
			n := copy(s.queue, s.queue[s.head:])
			clear(s.queue[n:])
			s.queue, s.head = s.queue[:n], 0
		}
		s.signal() // for another reader
	}
	return it, true, nil
}

// Next waits for the next message. Any number of readers share a subscription. The
// error is a [LostError] where messages were lost, after which reading goes on; the
// cause of ctx; or wraps [ErrClosed].
func (s *Subscription) Next(ctx context.Context) (*Message, error) {
	for {
		it, ok, err := s.take()
		switch {
		case err != nil:
			s.signal()
			return nil, fmt.Errorf("pubsub: subscription to %q: %w", s.t.name, err)
		case ok && it.m == nil:
			return nil, &LostError{Topic: s.t.name, Messages: it.lost}
		case ok:
			return it.m, nil
		}
		select {
		case <-s.wake:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// All yields messages as Next returns them. An error that is no [LostError] is the
// last value.
func (s *Subscription) All(ctx context.Context) iter.Seq2[*Message, error] {
	return func(yield func(*Message, error) bool) {
		for {
			m, err := s.Next(ctx)
			if !yield(m, err) {
				return
			}
			if _, lost := err.(*LostError); err != nil && !lost {
				return
			}
		}
	}
}
