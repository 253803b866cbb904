package pubsub

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"runtime"
	"sync"
	"sync/atomic"
	"time"
)

// TopicConfig says how one topic behaves. Zero fields are as the Config says.
type TopicConfig struct {
	Policy    Policy
	MessageID func(*Message) MessageID
	Validator *Validator // asked after Config.Validator

	// RequestPartial asks peers for parts instead of whole messages, SupportPartial
	// offers them. Both need a router that knows what that is.
	RequestPartial bool
	SupportPartial bool
}

// Why a message was not published.
var (
	// ErrNoPeers means that no neighbour takes messages of the topic now. This host's
	// subscriptions got it, and neighbours that come may still.
	ErrNoPeers = errors.New("no peer takes it")
	// ErrFull means that neighbours had no room for the message in time.
	ErrFull = errors.New("peers are too slow")
	// ErrRejected means that the topic's own validator refused the message.
	ErrRejected = errors.New("rejected by the topic's validator")
	// ErrDuplicate means that a message with this ID was published before.
	ErrDuplicate = errors.New("published before")
	// ErrTooLarge means that a message exceeds Config.MaxMessage.
	ErrTooLarge = errors.New("message too large")
)

// A Topic is what this host does with a topic. All its methods may be called
// concurrently.
type Topic struct {
	// Fixed.
	ps     *PubSub
	name   string
	policy Policy
	id     func(*Message) MessageID // nil: author and sequence number
	checks []*checker
	opts   SubOpts

	// Guarded by ps.mu.
	subs   []*Subscription
	relays int
	closed bool
}

// Join begins to use a topic. It receives messages from the first [Topic.Subscribe] or
// [Topic.Relay] on, and can be published to at once. Close ends it. The error wraps
// [ErrClosed], or says that the topic is joined, or its name longer than 4 KiB.
func (ps *PubSub) Join(name string, cfg TopicConfig) (*Topic, error) {
	if len(name) > maxTopic {
		return nil, fmt.Errorf("pubsub: join: a topic's name of %d bytes, at most %d", len(name), maxTopic)
	}
	if err := cfg.Validator.check(); err != nil {
		return nil, err
	}
	t := &Topic{
		ps:     ps,
		name:   name,
		policy: cmp.Or(cfg.Policy, ps.cfg.Policy),
		id:     ps.cfg.MessageID,
		opts: SubOpts{
			Topic: name, Subscribe: true,
			RequestsPartial: cfg.RequestPartial, SupportsPartial: cfg.SupportPartial || cfg.RequestPartial,
		},
	}
	if cfg.MessageID != nil {
		t.id = cfg.MessageID
	}
	if t.id == nil && t.policy == StrictNoSign {
		t.id = DataID
	}
	for _, v := range []*Validator{ps.cfg.Validator, cfg.Validator} {
		if v != nil {
			t.checks = append(t.checks, newChecker(v))
		}
	}
	ps.mu.Lock()
	defer ps.mu.Unlock()
	if ps.closed {
		return nil, fmt.Errorf("pubsub: join %q: %w", name, ErrClosed)
	}
	old := *ps.topics.Load()
	if old[name] != nil {
		return nil, fmt.Errorf("pubsub: join %q: joined already", name)
	}
	topics := maps.Clone(old)
	topics[name] = t
	ps.topics.Store(&topics)
	return t, nil
}

// String is the topic's name.
func (t *Topic) String() string { return t.name }

// Close ends the topic and its subscriptions.
func (t *Topic) Close() error {
	ps := t.ps
	ps.mu.Lock()
	defer ps.mu.Unlock()
	if t.closed || ps.closed {
		return nil
	}
	t.closeLocked()
	t.relays = 0
	t.update()
	topics := maps.Clone(*ps.topics.Load())
	delete(topics, t.name)
	ps.topics.Store(&topics)
	return nil
}

func (t *Topic) closeLocked() {
	t.closed = true
	for _, s := range t.subs {
		s.end(ErrClosed)
	}
	t.subs = nil
}

// update joins or leaves the topic at the router, as is due.
func (t *Topic) update() {
	ps := t.ps
	want := len(t.subs)+t.relays > 0
	if _, is := ps.core.Joined(t.name); is == want || ps.closed {
		return
	}
	o := t.opts
	// Peers hear of the subscription before its GRAFT.
	if o.Subscribe = want; want {
		t.announce(o)
		ps.core.Join(time.Now(), o, &ps.actions)
	} else {
		o = SubOpts{Topic: t.name}
		ps.core.Leave(time.Now(), t.name, &ps.actions)
	}
	ps.perform(nil)
	if !want {
		t.announce(o)
	}
}

// announce tells every peer of a subscription.
//
// "These announcements are sent to all known pubsub-capable peers, regardless of
// whether we currently have any topics in common."
func (t *Topic) announce(o SubOpts) {
	for _, p := range t.ps.core.Peers() {
		p.out.announce(o)
	}
}

// Relay lets this host pass the topic's messages on without a subscription, until
// stop is called as often as Relay.
func (t *Topic) Relay() (stop func()) {
	t.ps.mu.Lock()
	defer t.ps.mu.Unlock()
	if t.closed {
		return func() {}
	}
	t.relays++
	t.update()
	over := false
	return func() {
		t.ps.mu.Lock()
		defer t.ps.mu.Unlock()
		if over || t.closed {
			return
		}
		over = true
		t.relays--
		t.update()
	}
}

// Wait waits until at least n neighbours are subscribed to the topic. The error is
// the cause of ctx, or wraps [ErrClosed].
func (t *Topic) Wait(ctx context.Context, n int) error {
	ps := t.ps
	for {
		ps.mu.Lock()
		if t.closed || ps.closed {
			ps.mu.Unlock()
			return fmt.Errorf("pubsub: wait for peers of %q: %w", t.name, ErrClosed)
		}
		if len(ps.core.In(t.name)) >= n {
			ps.mu.Unlock()
			return nil
		}
		change := ps.nextChange()
		ps.mu.Unlock()
		select {
		case <-change:
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-ps.ctx.Done():
		}
	}
}

// A Receipt tells how far a published message came.
type Receipt struct {
	ID    MessageID
	Peers int // neighbours that it was queued for
	Left  int // neighbours that had no room for it, and were not waited for any longer
}

// Publish sends data to the topic's peers, and to this host's own subscriptions to it.
//
// It waits for room in the queues of the peers that the router chose, for as long as
// ctx lasts. A peer that makes no room for Config.Patience is left out, then and in
// later calls, until its queue is half empty: that is how much one slow peer slows
// others. What is queued, the connection's own flow control takes from there.
//
// The error is nil if at least one peer took the message and ctx did not end the
// wait for others; the Receipt is filled in anyway. Else it wraps [ErrNoPeers],
// [ErrFull], [ErrTooLarge], [ErrRejected], [ErrDuplicate], [ErrClosed], or the
// cause of ctx. After ErrNoPeers and ErrFull the message is published nonetheless, as
// far as it came.
func (t *Topic) Publish(ctx context.Context, data []byte) (Receipt, error) {
	var r [1]Receipt
	if _, err := t.publish(ctx, [][]byte{data}, r[:0]); err != nil {
		return r[0], fmt.Errorf("pubsub: publish to %q: %w", t.name, err)
	}
	return r[0], nil
}

// PublishBatch publishes many messages at once, and is quicker than as many calls of
// Publish: all processors sign, and each peer is sent them in another order, so
// that all of them are soon with somebody who passes them on. One too large or
// rejected keeps none back. There is a Receipt for each; the error joins those that
// Publish would have returned.
func (t *Topic) PublishBatch(ctx context.Context, data [][]byte) ([]Receipt, error) {
	rs, err := t.publish(ctx, data, make([]Receipt, 0, len(data)))
	if err != nil {
		return rs, fmt.Errorf("pubsub: publish to %q: %w", t.name, err)
	}
	return rs, nil
}

// publish appends a Receipt for each of data to rs.
func (t *Topic) publish(ctx context.Context, data [][]byte, rs []Receipt) ([]Receipt, error) {
	rs = rs[:len(data)]
	if err := ctx.Err(); err != nil {
		return rs, context.Cause(ctx)
	}
	own := make([]published, len(data)) // without m: it is not sent
	errs := make([]error, len(data))
	each(len(data), func(i int) {
		m, err := t.compose(data[i])
		if err == nil {
			rs[i].ID = m.ID
			err = t.accept(ctx, m)
		}
		if own[i].m = m; err != nil {
			own[i].m, errs[i] = nil, err
		}
	})
	if err := t.send(own, errs); err != nil {
		return rs, err
	}
	for i := range own {
		o, r := &own[i], &rs[i]
		if o.m == nil {
			continue
		}
		r.Peers = o.took
		if len(o.late) > 0 {
			t.ps.waitFor(ctx, o.m, o.late, r)
		}
		switch {
		case r.Left > 0 && ctx.Err() != nil:
			errs[i] = fmt.Errorf("%w: %d of %d have it: %w", ErrFull, r.Peers, r.Peers+r.Left, context.Cause(ctx))
		case r.Peers == 0 && r.Left > 0:
			errs[i] = ErrFull
		case r.Peers == 0:
			errs[i] = ErrNoPeers
		}
	}
	if len(errs) == 1 {
		return rs, errs[0]
	}
	return rs, errors.Join(errs...)
}

// each calls f with 0 to n-1, on all processors.
func each(n int, f func(i int)) {
	if n == 1 {
		f(0)
		return
	}
	var next atomic.Int64
	var wg sync.WaitGroup
	for range min(n, runtime.GOMAXPROCS(0)) {
		wg.Go(func() { // ends when nothing is left
			for i := next.Add(1) - 1; i < int64(n); i = next.Add(1) - 1 {
				f(int(i))
			}
		})
	}
	wg.Wait()
}

// accept asks the topic's validators about a message of this host's.
func (t *Topic) accept(ctx context.Context, m *Message) error {
	for _, c := range t.checks {
		if o := c.ask(ctx, t.ps.h.ID(), m); o != Accepted {
			return fmt.Errorf("%w: %v", ErrRejected, o)
		}
	}
	return nil
}

// send queues own messages, and delivers them to subscriptions.
func (t *Topic) send(own []published, errs []error) error {
	ps := t.ps
	ps.mu.Lock()
	defer ps.mu.Unlock()
	if t.closed || ps.closed {
		return ErrClosed
	}
	for i := range own {
		o := &own[i]
		if o.m == nil {
			continue
		}
		from := len(ps.actions.Sends)
		if !ps.core.Publish(time.Now(), o.m, &ps.actions) {
			o.m, errs[i] = nil, ErrDuplicate
			continue
		}
		ps.count.published.Add(1)
		for j := from; j < len(ps.actions.Sends); j++ {
			ps.actions.Sends[j].own = i + 1
		}
	}
	if len(own) > 1 {
		ps.actions.Sends = interleave(ps.actions.Sends, len(own))
	}
	ps.perform(own)
	for _, o := range own {
		if o.m != nil {
			t.deliver(o.m)
		}
	}
	return nil
}

// interleave orders what is to be sent of n own messages so that each leaves for one
// peer, and each for another peer than the one before, before any leaves for two.
func interleave(sends []Send, n int) []Send {
	of := make([][]Send, n)
	for _, s := range sends {
		of[s.own-1] = append(of[s.own-1], s)
	}
	out := make([]Send, 0, len(sends))
	for k := 0; len(out) < len(sends); k++ {
		for i, l := range of {
			if k < len(l) {
				out = append(out, l[(i+k)%len(l)])
			}
		}
	}
	return out
}

// waitFor waits until the late have taken m.
func (ps *PubSub) waitFor(ctx context.Context, m *Message, late []*outbox, r *Receipt) {
	patience := make(chan struct{})
	timer := time.AfterFunc(ps.cfg.Patience, func() { close(patience) })
	defer timer.Stop()
	for _, o := range late {
		switch o.wait(m, ctx.Done(), patience) {
		case queued:
			r.Peers++
		case gone:
			ps.dropped(PeerGone, o.link.id, m.ID)
		case full:
			r.Left++
			ps.mu.Lock()
			ps.dropped(OwnQueueFull, o.link.id, m.ID)
			if o.link.peer != nil && !ps.closed {
				ps.core.router.Missed(time.Now(), o.link.peer, m)
			}
			ps.mu.Unlock()
		}
	}
}

// compose makes a message of data.
func (t *Topic) compose(data []byte) (*Message, error) {
	m := &Message{Topic: t.name, Data: data, has: hasData | hasTopic}
	if t.policy == StrictSign {
		if err := m.sign(t.ps.key, t.ps.seqno.Add(1)); err != nil {
			return nil, err
		}
	}
	m.pack()
	if len(m.frame) > t.ps.cfg.MaxMessage {
		return nil, fmt.Errorf("%w: %d bytes, at most %d", ErrTooLarge, len(m.frame), t.ps.cfg.MaxMessage)
	}
	m.ReceivedFrom = t.ps.h.ID()
	if t.id == nil {
		m.ID = MessageID(appendDefaultID(nil, []byte(m.From), m.Seqno))
	} else {
		m.ID = t.id(m)
	}
	return m, nil
}

// deliver gives m to the topic's subscriptions.
func (t *Topic) deliver(m *Message) {
	for _, s := range t.subs {
		if s.push(m) {
			t.ps.count.delivered.Add(1)
		} else {
			t.ps.dropped(SubscriberFull, "", m.ID)
		}
	}
}
