// Package routing says what a router is: who finds peers, those who provide something,
// and values. Package gossip is one, over pubsub.
//
//	r, err := gossip.New(h, ps, gossip.Config{Validator: routing.Namespaces{"/ipns/": ipns.Validator{}}})
//	err = r.Provide(ctx, sum)
//	for p, err := range r.FindProviders(ctx, sum) { … }
//	info, err := r.FindPeer(ctx, id)
//	value, err := routing.Get(ctx, r, ipns.Key(id))
//
// What a router finds comes from strangers. Values are checked by a [Validator];
// addresses are those that the peers themselves tell.
//
// Package routingtest has the tests that every router passes.
package routing

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"strings"
	"time"

	"github.com/multiformats/go-multihash"

	"github.com/plexus-p2p/plexus/peer"
)

var (
	// ErrNotFound means that nobody who could be asked knows it.
	ErrNotFound = errors.New("routing: not found")
	// ErrInvalid means that a value must not stand under its key: it is malformed, or
	// not signed by whom the key names.
	ErrInvalid = errors.New("routing: invalid value")
	// ErrExpired means that a value was valid once.
	ErrExpired = errors.New("routing: expired value")
	// ErrOlder means that a better value is known than the one that was to be put.
	ErrOlder = errors.New("routing: a better value is known")
	// ErrNamespace means that no validator knows keys like this one.
	ErrNamespace = errors.New("routing: no validator for this key")
)

// Content is content routing: who provides something, that is named by its hash. The
// hash of a CID is its Hash().
type Content interface {
	// Provide tells others, now and again, that this host provides what key names,
	// until Withdraw is called or the router closes. The error means that they could
	// not be told now; they will be.
	Provide(ctx context.Context, key multihash.Multihash) error

	// Withdraw ends what Provide began. Others may believe it for some time.
	Withdraw(ctx context.Context, key multihash.Multihash) error

	// FindProviders yields those who provide what key names, this host not among them,
	// each once and as they are found, until nobody who could be asked is left. An
	// error, such as the cause of ctx, is the last value. Finding nobody is none.
	FindProviders(ctx context.Context, key multihash.Multihash) iter.Seq2[peer.AddrInfo, error]
}

// Peers is peer routing.
type Peers interface {
	// FindPeer finds where a peer is. The error wraps [ErrNotFound], or is the cause
	// of ctx.
	FindPeer(ctx context.Context, id peer.ID) (peer.AddrInfo, error)
}

// Values is a store of values that are signed, or can be checked otherwise, under keys
// such as "/ipns/" and a peer ID's bytes. Of two values a [Validator] says which is better.
type Values interface {
	// Put stores a value where others find it. The error wraps [ErrInvalid],
	// [ErrExpired], [ErrOlder] or [ErrNamespace], or is the cause of ctx.
	Put(ctx context.Context, key string, value []byte) error

	// Search yields values, each better than the one before, until nobody who could
	// be asked is left. An error is the last value: [ErrNotFound] where there was
	// none, [ErrNamespace], or the cause of ctx.
	Search(ctx context.Context, key string) iter.Seq2[[]byte, error]
}

// Router is all of it. Its methods may be called concurrently.
type Router interface {
	Content
	Peers
	Values
}

// Get returns the best value that a search finds. Where ctx ends the search, that is
// the best until then. Who wants speed takes the first value of [Values.Search].
func Get(ctx context.Context, v Values, key string) (best []byte, err error) {
	for value, err := range v.Search(ctx, key) {
		if err != nil && best == nil {
			return nil, err
		}
		if err == nil {
			best = value
		}
	}
	return best, nil
}

// A Validator judges values. Its methods may be called concurrently, with what
// strangers send.
type Validator interface {
	// Validate says whether a value may stand under a key at a time, and until when, that
	// time included; the zero Time is never. The error wraps [ErrInvalid] or [ErrExpired].
	Validate(key string, value []byte, now time.Time) (until time.Time, err error)

	// Compare tells of two valid values which is better: more than 0 if a is, less if
	// b is, and 0 only where they are the same.
	Compare(key string, a, b []byte) int
}

// Namespaces are validators by the prefix of their keys, such as "/ipns/".
type Namespaces map[string]Validator

// of is the validator with the longest prefix of key, or nil.
func (n Namespaces) of(key string) (v Validator) {
	longest := -1
	for prefix, w := range n {
		if strings.HasPrefix(key, prefix) && len(prefix) > longest {
			longest, v = len(prefix), w
		}
	}
	return v
}

// Validate implements Validator. The error may also wrap [ErrNamespace].
func (n Namespaces) Validate(key string, value []byte, now time.Time) (until time.Time, err error) {
	v := n.of(key)
	if v == nil {
		return until, fmt.Errorf("%w: %.40q", ErrNamespace, key)
	}
	return v.Validate(key, value, now)
}

// Compare implements Validator.
func (n Namespaces) Compare(key string, a, b []byte) int {
	if v := n.of(key); v != nil {
		return v.Compare(key, a, b)
	}
	return 0
}
