// Package fetch asks a peer for the value of a key.
//
//	fetch.Serve(h, fetch.Namespaces{"/ipns/": records.Get}.Lookup)
//	value, err := fetch.Fetch(ctx, h, p, "/ipns/k51…")
//
// Spec: https://github.com/libp2p/specs/blob/master/fetch/README.md
//
// # Limits
//
// One request a stream. A key is any bytes: the spec's string, and the bytes of
// https://github.com/libp2p/specs/pull/657.
package fetch

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/plexus-p2p/plexus"
	"github.com/plexus-p2p/plexus/internal/pb"
	"github.com/plexus-p2p/plexus/internal/slots"
	"github.com/plexus-p2p/plexus/peer"
)

// Protocol is the ID that multiselect negotiates.
const Protocol = "/libp2p/fetch/0.0.1"

// MaxKey and MaxValue bound what is sent and taken, in bytes.
const (
	MaxKey   = 4 << 10
	MaxValue = 4 << 20
)

const (
	overhead = 16 // bytes of a message besides its key or value, at most

	// Requests that are served at the same time, of one peer and of all; further
	// ones are reset. A value is held until the peer has taken it.
	lookupsPerPeer = 8
	lookupsOfAll   = 128

	// timeout bounds a request, at either end. A lookup has that long too.
	timeout = 30 * time.Second
)

var (
	// ErrNotFound means that there is no value for a key.
	ErrNotFound = errors.New("fetch: not found")
	// ErrFailed means that the peer tried and failed to look a key up.
	ErrFailed = errors.New("fetch: the peer failed to look it up")
	// ErrTooLarge means that a key exceeds [MaxKey].
	ErrTooLarge = errors.New("fetch: key too large")
)

// A Lookup finds the value of a key, which any peer may have chosen. It returns
// [ErrNotFound] where there is none; for other errors the peer learns that there
// was one. It may be called concurrently.
type Lookup func(ctx context.Context, key string) ([]byte, error)

// Namespaces are lookups by the prefix of their keys, for several services of
// one host.
type Namespaces map[string]Lookup

// Lookup asks the lookup with the longest prefix of key.
func (n Namespaces) Lookup(ctx context.Context, key string) ([]byte, error) {
	longest := -1
	var f Lookup
	for prefix, l := range n {
		if strings.HasPrefix(key, prefix) && len(prefix) > longest {
			longest, f = len(prefix), l
		}
	}
	if f == nil {
		return nil, ErrNotFound
	}
	return f(ctx, key)
}

// Serve answers with what f finds.
func Serve(h *plexus.Host, f Lookup) {
	sl := &slots.Slots[peer.ID]{Each: lookupsPerPeer, All: lookupsOfAll}
	h.Handle(Protocol, func(ctx context.Context, s *plexus.Stream) error {
		p := s.Conn().Peer()
		if !sl.Take(p) {
			return fmt.Errorf("fetch: %w: requests served", plexus.ErrLimit)
		}
		defer sl.Free(p)
		return serve(ctx, s, f)
	})
}

func serve(ctx context.Context, s *plexus.Stream, f Lookup) error {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	s.SetDeadline(time.Now().Add(timeout))
	b, err := pb.ReadDelimited(s, MaxKey+overhead, nil)
	if err != nil {
		return err
	}
	key, err := parseRequest(b)
	if err != nil {
		return err
	}
	r := response{}
	r.data, err = f(ctx, key)
	switch {
	case errors.Is(err, ErrNotFound):
		r = response{status: statusNotFound}
	case err != nil || len(r.data) > MaxValue:
		r = response{status: statusError}
	}
	_, err = s.Write(r.append(make([]byte, 0, len(r.data)+overhead)))
	return err
}

// Fetch asks p for the value of key. The error wraps [ErrNotFound], [ErrFailed],
// [ErrTooLarge], the cause of ctx, os.ErrDeadlineExceeded after half a minute, or
// is one of [plexus.Host.Open].
func Fetch(ctx context.Context, h *plexus.Host, p peer.ID, key string) ([]byte, error) {
	if len(key) > MaxKey {
		return nil, fmt.Errorf("%w: %d bytes, at most %d", ErrTooLarge, len(key), MaxKey)
	}
	s, err := h.Open(ctx, p, Protocol)
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { s.Reset(plexus.CodeNone) })
	defer stop()
	v, err := request(s, key)
	if err == nil || errors.Is(err, ErrNotFound) || errors.Is(err, ErrFailed) {
		s.Close()
	} else {
		s.Reset(plexus.CodeNone)
	}
	if err != nil {
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return nil, &plexus.OpError{Op: "fetch from", Peer: p, Addr: s.Conn().RemoteAddr(), Err: err}
	}
	return v, nil
}

func request(s *plexus.Stream, key string) ([]byte, error) {
	s.SetDeadline(time.Now().Add(timeout))
	if _, err := s.Write(appendRequest(nil, key)); err != nil {
		return nil, err
	}
	b, err := pb.ReadDelimited(s, MaxValue+overhead, nil)
	if err == io.EOF {
		return nil, io.ErrUnexpectedEOF // it hung up without an answer
	}
	if err != nil {
		return nil, err
	}
	var r response
	if err := r.parse(b); err != nil {
		return nil, err
	}
	// "A ignores any information in the data field if the status is NOT_FOUND"
	return r.data, r.status.err()
}
