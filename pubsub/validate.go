package pubsub

import (
	"cmp"
	"context"
	"errors"
	"sync"
	"time"

	"github.com/plexus-p2p/plexus/peer"
)

// A Validator decides about messages before they are delivered and sent on.
//
// "Accept message; in this case the message is considered valid, and it should be
// delivered and forwarded to the network. Reject message; in this case the message is
// considered invalid [...] Ignore message; in this case the message is neither
// delivered nor forwarded to the network, but the router does not trigger the P₄ penalty."
// https://github.com/libp2p/specs/blob/master/pubsub/gossipsub/gossipsub-v1.1.md#extended-validators
type Validator struct {
	// Check returns Accepted, Rejected or Ignored for a message that from sent first.
	// It is called concurrently, also for this host's own messages.
	Check func(ctx context.Context, from peer.ID, m *Message) Outcome

	// Inline calls Check where the message was read: for checks that take
	// microseconds. While it runs, nothing else is read of that peer.
	Inline bool

	// Concurrency is how many checks run at the same time, Queue how many messages
	// wait for one; further ones are dropped as [ValidatorsBusy]. Zero: 64 and 1024.
	Concurrency int
	Queue       int

	// Timeout ends ctx. A message that is not decided by then is ignored. Zero: no end.
	Timeout time.Duration
}

func (v *Validator) check() error {
	if v == nil {
		return nil
	}
	if v.Check == nil {
		return errors.New("pubsub: a Validator without a Check")
	}
	return tooSmall([]field{
		{"Validator.Concurrency", v.Concurrency, v.Concurrency < 0},
		{"Validator.Queue", v.Queue, v.Queue < 0},
		{"Validator.Timeout", v.Timeout, v.Timeout < 0},
	})
}

// A checker runs a Validator within its bounds.
type checker struct {
	Validator

	mu      sync.Mutex
	running int
	queue   []task
}

// A task is a message that has passed the validators before next.
type task struct {
	t    *Topic
	m    *Message
	next int
}

func newChecker(v *Validator) *checker {
	c := &checker{Validator: *v}
	c.Concurrency = cmp.Or(c.Concurrency, 64)
	c.Queue = cmp.Or(c.Queue, 1024)
	return c
}

// ask calls Check.
func (c *checker) ask(ctx context.Context, from peer.ID, m *Message) Outcome {
	if c.Timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, c.Timeout)
		defer cancel()
	}
	switch o := c.Check(ctx, from, m); {
	case o > Ignored || ctx.Err() != nil && o == Rejected: // nobody is to blame for our being slow
		return Ignored
	default:
		return o
	}
}

// validate runs m through the topic's validators from next on, and decides. It
// returns at once where a validator is not Inline.
func (t *Topic) validate(m *Message, next int) {
	ps := t.ps
	for ; next < len(t.checks); next++ {
		c := t.checks[next]
		if !c.Inline {
			if !c.begin(task{t, m, next}) {
				ps.decide(t, m, Throttled)
			}
			return
		}
		if o := c.ask(ps.ctx, m.ReceivedFrom, m); o != Accepted {
			ps.decide(t, m, o)
			return
		}
	}
	ps.decide(t, m, Accepted)
}

// begin runs k in a goroutine, now or later. It returns false if too many wait.
func (c *checker) begin(k task) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.running >= c.Concurrency {
		if len(c.queue) >= c.Queue {
			return false
		}
		c.queue = append(c.queue, k)
		return true
	}
	c.running++
	k.t.ps.begin(func() { c.run(k) }) // ends when none waits; Concurrency bounds how many there are
	return true
}

func (c *checker) run(k task) {
	for {
		ps := k.t.ps
		if o := c.ask(ps.ctx, k.m.ReceivedFrom, k.m); o != Accepted {
			ps.decide(k.t, k.m, o)
		} else {
			k.t.validate(k.m, k.next+1)
		}
		c.mu.Lock()
		if len(c.queue) == 0 || ps.ctx.Err() != nil {
			c.running--
			c.queue = nil
			c.mu.Unlock()
			return
		}
		k = c.queue[0]
		c.queue[0] = task{}
		c.queue = c.queue[1:]
		c.mu.Unlock()
	}
}

// verify checks m's signature, and has it validated.
func (ps *PubSub) verify(t *Topic, m *Message) {
	if t.policy == StrictSign && !ps.authentic(m) {
		ps.log.Debug("forged message", "peer", m.ReceivedFrom, "topic", m.Topic)
		ps.decide(t, m, Forged)
		return
	}
	ps.mu.Lock()
	if ps.closed {
		ps.mu.Unlock()
		return
	}
	now := time.Now()
	if !ps.core.Verified(now, m, &ps.actions) {
		ps.count.duplicates.Add(1)
		ps.perform(nil)
		ps.mu.Unlock()
		return
	}
	if len(t.checks) == 0 {
		ps.decideLocked(now, t, m, Accepted)
		ps.mu.Unlock()
		return
	}
	ps.perform(nil)
	ps.mu.Unlock()
	t.validate(m, 0)
}

// decide ends m's validation.
func (ps *PubSub) decide(t *Topic, m *Message, o Outcome) {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	if !ps.closed {
		ps.decideLocked(time.Now(), t, m, o)
	}
}

func (ps *PubSub) decideLocked(now time.Time, t *Topic, m *Message, o Outcome) {
	ps.core.Decide(now, m, o, &ps.actions)
	ps.perform(nil)
	switch o {
	case Accepted:
		t.deliver(m)
	case Rejected:
		ps.dropped(InvalidMessage, m.ReceivedFrom, m.ID)
	case Ignored:
		ps.dropped(IgnoredMessage, m.ReceivedFrom, m.ID)
	case Throttled:
		ps.dropped(ValidatorsBusy, m.ReceivedFrom, m.ID)
	case Forged:
		ps.dropped(InvalidSignature, m.ReceivedFrom, m.ID)
	}
	m.holders = nil
}

// authentic reports whether m's author signed it.
func (ps *PubSub) authentic(m *Message) bool {
	key, ok := ps.authors.keyOf(m)
	if !ok {
		return false
	}
	bp := ps.buffers.Get().(*[]byte)
	b := m.appendSigned((*bp)[:0])
	err := key.Verify(b, m.Signature)
	if cap(b) <= 2*maxBatch {
		*bp = b[:0]
	}
	ps.buffers.Put(bp)
	return err == nil
}

// authors remembers those who publish: each message names its author, and reading a
// key costs more than looking it up.
type authors struct {
	mu sync.RWMutex
	by map[peer.ID]*author
}

type author struct {
	id  peer.ID // the same string for all of its messages
	key peer.PubKey
}

const maxAuthors = 4096

// intern returns the ID in b.
func (a *authors) intern(b []byte) peer.ID {
	a.mu.RLock()
	defer a.mu.RUnlock()
	if by := a.by[peer.ID(b)]; by != nil {
		return by.id
	}
	return peer.ID(b)
}

// keyOf returns the key that m is to be signed with.
func (a *authors) keyOf(m *Message) (peer.PubKey, bool) {
	a.mu.RLock()
	by := a.by[m.From]
	a.mu.RUnlock()
	if by != nil && len(m.Key) == 0 {
		return by.key, true
	}
	k, err := m.authorKey()
	if err != nil {
		return peer.PubKey{}, false
	}
	if by != nil {
		return k, true
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.by == nil {
		a.by = make(map[peer.ID]*author)
	}
	for id := range a.by {
		if len(a.by) < maxAuthors {
			break
		}
		delete(a.by, id)
	}
	a.by[m.From] = &author{m.From, k}
	return k, true
}
