package gossip

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"iter"
	"sync"
	"time"

	"github.com/multiformats/go-multihash"

	"github.com/plexus-p2p/plexus"
	"github.com/plexus-p2p/plexus/fetch"
	"github.com/plexus-p2p/plexus/peer"
	"github.com/plexus-p2p/plexus/pubsub"
	"github.com/plexus-p2p/plexus/routing"
)

const (
	// askAtOnce is how many peers are asked for values at the same time, askPerSearch
	// how many in one search.
	askAtOnce    = 32
	askPerSearch = 32

	askTimeout = 10 * time.Second
)

// A record is a key whose value this host has, or follows.
type record struct {
	// Fixed.
	r     *Router
	key   string
	topic *pubsub.Topic
	meet  string // the key under which those who follow it are providers
	ctx   context.Context
	stop  context.CancelFunc

	// Guarded by r.mu.
	value    []byte    // the Validator has taken it
	until    time.Time // and it is valid until then; zero: always
	own      bool      // it was put here: it stays
	used     time.Time
	searches int
	change   chan struct{} // closed when value changes
}

// topicOf is the topic of a key.
//
// "Topic format: /record/base64url-unpadded(key)"
func topicOf(key string) string {
	return "/record/" + base64.RawURLEncoding.EncodeToString([]byte(key))
}

// meetingPoint is the hash under which go-libp2p-pubsub advertises a topic by content
// routing.
func meetingPoint(topic string) string {
	sum := sha256.Sum256([]byte("floodsub:" + topic))
	mh, err := multihash.Encode(sum[:], multihash.SHA2_256)
	if err != nil {
		panic(err) // the hash is known
	}
	return string(mh)
}

// follow returns the record of a key, which it begins to follow where it does not yet.
// It counts as used until release.
func (r *Router) follow(key string) (*record, error) {
	if _, err := r.cfg.Validator.Validate(key, nil, time.Now()); errors.Is(err, routing.ErrNamespace) {
		return nil, err
	}
	r.joining.Lock()
	defer r.joining.Unlock()
	r.mu.Lock()
	if r.closed {
		r.mu.Unlock()
		return nil, fail("follow a key", plexus.ErrClosed)
	}
	rec := r.records[key]
	if rec != nil {
		rec.searches++
		r.mu.Unlock()
		return rec, nil
	}
	old := r.spareLocked()
	full := len(r.records) >= r.cfg.MaxRecords
	r.mu.Unlock()
	if full && old == nil {
		return nil, fail("follow a key", fmt.Errorf("%w: MaxRecords", plexus.ErrLimit))
	}
	if full {
		r.unfollow(old)
	}
	name := topicOf(key)
	rec = &record{r: r, key: key, meet: meetingPoint(name), searches: 1, change: make(chan struct{})}
	var err error
	rec.topic, err = r.ps.Join(name, pubsub.TopicConfig{
		Policy:    pubsub.StrictSign,
		Validator: &pubsub.Validator{Check: rec.check, Inline: true},
	})
	if err != nil {
		return nil, err
	}
	rec.ctx, rec.stop = context.WithCancel(r.ctx)
	r.mu.Lock()
	closed := r.closed
	if !closed {
		r.records[key] = rec
		r.wg.Go(rec.greet) // ends with rec.ctx
	}
	r.mu.Unlock()
	if closed {
		rec.close()
		return nil, fail("follow a key", plexus.ErrClosed)
	}
	rec.topic.Relay()
	return rec, r.provide(rec.meet, false)
}

// spareLocked is the record that was used longest ago, of those that nobody needs.
func (r *Router) spareLocked() (old *record) {
	for _, rec := range r.records {
		if !rec.own && rec.searches == 0 && (old == nil || rec.used.Before(old.used)) {
			old = rec
		}
	}
	return old
}

func (r *Router) unfollow(rec *record) {
	r.mu.Lock()
	if r.records[rec.key] == rec {
		delete(r.records, rec.key)
	}
	r.mu.Unlock()
	rec.close()
	r.withdraw(rec.meet, false)
}

func (rec *record) close() {
	rec.stop()
	rec.topic.Close()
}

func (rec *record) release() {
	rec.r.mu.Lock()
	defer rec.r.mu.Unlock()
	rec.searches--
	rec.used = time.Now()
}

// best returns the value, if there is one that is still valid.
func (rec *record) best(now time.Time) ([]byte, <-chan struct{}) {
	rec.r.mu.Lock()
	defer rec.r.mu.Unlock()
	if !rec.until.IsZero() && now.After(rec.until) {
		return nil, rec.change
	}
	return rec.value, rec.change
}

func (r *Router) validate(key string, v []byte, now time.Time) (until time.Time, err error) {
	if len(v) > r.cfg.MaxValue {
		return until, fmt.Errorf("%w: %d bytes, at most %d are taken", routing.ErrInvalid, len(v), r.cfg.MaxValue)
	}
	return r.cfg.Validator.Validate(key, v, now)
}

// take keeps a value if it is valid, and better than what there is. It tells how it
// compares to that. A value that is there already is not checked again: signatures
// cost time, and strangers decide what comes.
func (rec *record) take(v []byte, now time.Time) (c int, err error) {
	r := rec.r
	old, change := rec.best(now)
	if old != nil && bytes.Equal(v, old) {
		return 0, nil
	}
	until, err := r.validate(rec.key, v, now)
	if err != nil {
		return 0, err
	}
	for ; ; old, change = rec.best(now) {
		c = 1
		if old != nil {
			c = r.cfg.Validator.Compare(rec.key, v, old)
		}
		if c <= 0 {
			return c, nil
		}
		r.mu.Lock()
		if rec.change != change {
			r.mu.Unlock() // somebody was faster
			continue
		}
		rec.value, rec.until = append([]byte(nil), v...), until
		close(rec.change)
		rec.change = make(chan struct{})
		r.mu.Unlock()
		return c, nil
	}
}

// check judges a value that was published.
func (rec *record) check(_ context.Context, from peer.ID, m *pubsub.Message) pubsub.Outcome {
	switch c, err := rec.take(m.Data, time.Now()); {
	case errors.Is(err, routing.ErrExpired):
		return pubsub.Ignored // the clocks of two may differ
	case err != nil:
		return pubsub.Rejected
	case c > 0, c == 0 && from == rec.r.h.ID():
		return pubsub.Accepted
	}
	return pubsub.Ignored
}

// greet asks each neighbour that comes to the topic for its value.
//
// "whenever A notices any node that has connected to it and subscribed to t it should
// run the Fetch protocol". https://specs.ipfs.tech/ipns/ipns-pubsub-router/
func (rec *record) greet() {
	for c := range rec.topic.Watch(rec.ctx) {
		if c.Here && rec.r.slot(rec.ctx) {
			rec.r.begin(func() { // ends after askTimeout; there are at most askAtOnce
				defer rec.r.free()
				rec.ask(rec.ctx, c.Peer)
			})
		}
	}
}

// slot waits until there may be one more request.
func (r *Router) slot(ctx context.Context) bool {
	select {
	case r.asking <- struct{}{}:
		return true
	case <-ctx.Done():
		return false
	}
}

func (r *Router) free() { <-r.asking }

// ask asks a peer for its value.
//
// "If Fetch returns a record that supersedes A's current record then A updates its
// record and Publishes it to the network".
func (rec *record) ask(ctx context.Context, id peer.ID) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	v, err := fetch.Fetch(ctx, rec.r.h, id, rec.key)
	c := 0
	if err == nil {
		c, err = rec.take(v, time.Now())
	}
	if err != nil {
		rec.r.cfg.Logger.Debug("no value from a peer", "peer", id, "err", err)
	}
	if c > 0 {
		rec.r.publish(rec)
	}
}

// publish publishes the value of a record, as it is now.
func (r *Router) publish(rec *record) error {
	v, _ := rec.best(time.Now())
	if v == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(rec.ctx, publishTimeout)
	defer cancel()
	_, err := rec.topic.Publish(ctx, v)
	if errors.Is(err, pubsub.ErrNoPeers) || errors.Is(err, pubsub.ErrRejected) {
		return nil // who comes will ask; a better value has come meanwhile
	}
	return err
}

// Put implements routing.Values. The value is kept until Forget, published, and given
// to whoever asks.
func (r *Router) Put(ctx context.Context, key string, value []byte) error {
	if err := ctx.Err(); err != nil {
		return context.Cause(ctx)
	}
	now := time.Now()
	if _, err := r.validate(key, value, now); err != nil {
		return err // and the key is not followed
	}
	rec, err := r.follow(key)
	if err != nil {
		return err
	}
	defer rec.release()
	if c, err := rec.take(value, now); err != nil {
		return err
	} else if c < 0 {
		return routing.ErrOlder
	}
	r.mu.Lock()
	rec.own = true
	r.mu.Unlock()
	return r.publish(rec)
}

// Forget ends keeping the value of a key, and following it.
func (r *Router) Forget(key string) {
	r.mu.Lock()
	rec := r.records[key]
	r.mu.Unlock()
	if rec != nil {
		r.unfollow(rec)
	}
}

// Search implements routing.Values. It begins to follow the key: the next search has
// what was published meanwhile.
func (r *Router) Search(ctx context.Context, key string) iter.Seq2[[]byte, error] {
	return func(yield func([]byte, error) bool) {
		rec, err := r.follow(key)
		if err != nil {
			yield(nil, err)
			return
		}
		defer rec.release()
		ctx, cancel := context.WithCancelCause(ctx)
		defer cancel(nil)
		asked := make(chan struct{})
		r.begin(func() { // ends with ctx, or when all have been asked
			defer close(asked)
			rec.askAll(ctx)
		})
		var last []byte
		for {
			v, change := rec.best(time.Now())
			if v != nil && (last == nil || r.cfg.Validator.Compare(key, v, last) > 0) {
				if last = v; !yield(v, nil) {
					return
				}
			}
			select {
			case <-change:
			case <-asked:
				if v, _ := rec.best(time.Now()); v != nil && (last == nil || r.cfg.Validator.Compare(key, v, last) > 0) {
					last = v
					if !yield(v, nil) {
						return
					}
				}
				if last == nil {
					yield(nil, fmt.Errorf("%w: %.40q", routing.ErrNotFound, key))
				}
				return
			case <-ctx.Done():
				yield(nil, context.Cause(ctx))
				return
			case <-rec.ctx.Done():
				yield(nil, fail("search", plexus.ErrClosed))
				return
			}
		}
	}
}

// askAll asks those who follow a record and are found by that.
func (rec *record) askAll(ctx context.Context) {
	r := rec.r
	var wg sync.WaitGroup
	defer wg.Wait()
	n := 0
	for p, err := range r.FindProviders(ctx, multihash.Multihash(rec.meet)) {
		if err != nil || n == askPerSearch || !r.slot(ctx) {
			return
		}
		n++
		wg.Go(func() { // ends after askTimeout, or with ctx
			defer r.free()
			r.h.Peers().Add(p, plexus.TTLHeard)
			rec.ask(ctx, p.ID)
		})
	}
}

// Lookup is what r serves by fetch: the values of the keys that it follows.
func (r *Router) Lookup(_ context.Context, key string) ([]byte, error) {
	r.mu.Lock()
	rec := r.records[key]
	r.mu.Unlock()
	if rec != nil {
		if v, _ := rec.best(time.Now()); v != nil {
			return v, nil
		}
	}
	return nil, fetch.ErrNotFound
}
