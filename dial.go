package plexus

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	ma "github.com/multiformats/go-multiaddr"

	"github.com/plexus-p2p/plexus/dial"
	"github.com/plexus-p2p/plexus/internal/stack"
	"github.com/plexus-p2p/plexus/peer"
	"github.com/plexus-p2p/plexus/transport"
)

// dialer makes connections: one dial per peer, however many ask.
type dialer struct {
	slots chan struct{} // a token for each address being dialed; nil without limit

	mu     sync.Mutex
	closed bool
	dials  map[peer.ID]*dialing

	backoff dial.Backoff
	holes   dial.BlackHoles
}

// dialing is a dial that is under way.
type dialing struct {
	asking int // callers that wait; guarded by dialer.mu
	cancel context.CancelCauseFunc
	done   chan struct{}

	conn *Conn // set before done is closed
	err  error
}

func (d *dialer) init(l Limits) {
	if l.Dials < 1<<16 {
		d.slots = make(chan struct{}, l.Dials)
	}
	d.dials = make(map[peer.ID]*dialing)
}

func (d *dialer) close() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.closed = true
	for _, j := range d.dials {
		j.cancel(ErrClosed)
	}
}

// connect joins the dial to info.ID that is under way, or starts one. The dial
// ends with the last caller that waits for it. asked means that a person or
// program named the peer just now, so that its failures of a moment ago do not count.
func (h *Host) connect(ctx context.Context, info peer.AddrInfo, asked bool) (*Conn, error) {
	if info.ID == h.id {
		return nil, &DialError{Peer: info.ID, Err: ErrSelf}
	}
	info.Addrs = ownOrAny(info)
	d := &h.dialer
	for {
		d.mu.Lock()
		if d.closed {
			d.mu.Unlock()
			return nil, &DialError{Peer: info.ID, Err: ErrClosed}
		}
		j, joined := d.dials[info.ID]
		if !joined {
			j = h.startLocked(info, asked)
		}
		j.asking++
		d.mu.Unlock()

		select {
		case <-j.done:
		case <-ctx.Done():
			if !d.leave(info.ID, j, context.Cause(ctx)) {
				return nil, &DialError{Peer: info.ID, Err: context.Cause(ctx)}
			}
			<-j.done // at once: everything below heeds its context
		}
		if j.conn == nil && joined && ctx.Err() == nil && (asked || len(info.Addrs) > 0) {
			continue // that was somebody else's dial; ours may know more addresses
		}
		return j.conn, j.err
	}
}

// leave is called by a caller that waits no longer. With the last one the dial
// ends, and leave returns true.
func (d *dialer) leave(id peer.ID, j *dialing, why error) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if j.asking--; j.asking > 0 {
		return false
	}
	if d.dials[id] == j {
		delete(d.dials, id) // nobody joins a dial that is ending
	}
	j.cancel(why)
	return true
}

// startLocked starts a dial in its own goroutine, which ends by DialTimeout.
func (h *Host) startLocked(info peer.AddrInfo, asked bool) *dialing {
	ctx, cancel := context.WithCancelCause(h.ctx)
	ctx, stop := context.WithTimeoutCause(ctx, h.limits.DialTimeout, errDialTimeout)
	j := &dialing{cancel: cancel, done: make(chan struct{})}
	if info.ID != "" {
		h.dialer.dials[info.ID] = j
	}
	h.wg.Go(func() {
		defer cancel(nil)
		defer stop()
		// An earlier dial may have ended since the caller looked for a connection.
		if j.conn = h.swarm.best(info.ID); j.conn == nil {
			j.conn, j.err = h.dial(ctx, info, asked)
		}
		h.dialer.mu.Lock()
		if h.dialer.dials[info.ID] == j {
			delete(h.dialer.dials, info.ID)
		}
		h.dialer.mu.Unlock()
		close(j.done)
	})
	return j
}

// dial is the whole way: resolve, filter, rank, race, upgrade.
func (h *Host) dial(ctx context.Context, info peer.AddrInfo, asked bool) (*Conn, error) {
	begin := time.Now()
	ev := Dialed{Peer: info.ID}
	addrs := h.resolve(ctx, info, &ev)
	ev.Resolve = time.Since(begin)
	addrs = h.dialable(addrs, info.ID, asked, &ev)

	var (
		mu     sync.Mutex
		stages = make(map[string][]StageTime) // by address
	)
	ranked := dial.Rank(addrs)
	for _, a := range addrs {
		if !slices.ContainsFunc(ranked, func(r dial.Ranked) bool { return r.Addr.Equal(a) }) {
			ev.skip(a, ErrNotDialable)
		}
	}
	won, tried, err := dial.Race(ctx, ranked, h.limits.DialsPerPeer, func(ctx context.Context, a ma.Multiaddr) (*link, error) {
		stack.Large()
		// Told as they come: the race does not wait for those that it calls off.
		return h.dialAddr(ctx, a, info.ID, func(so []StageTime) {
			mu.Lock()
			defer mu.Unlock()
			stages[a.String()] = so
		})
	}, func(l *link) {
		if l.session != nil {
			l.session.Close(ended, CodeNone)
		}
	})
	mu.Lock()
	for _, t := range tried {
		h.learn(info.ID, t)
		ev.Attempts = append(ev.Attempts, Attempt{
			Addr: t.Addr, Start: t.Start.Sub(begin), Took: t.Took, Stages: stages[t.Addr.String()], Err: t.Err,
		})
	}
	mu.Unlock()
	for _, r := range ranked[len(tried):] {
		ev.Spared = append(ev.Spared, r.Addr)
	}
	if err == nil {
		ev.Conn, err = h.addConn(won)
	}
	if err != nil {
		de := &DialError{Peer: info.ID, Attempts: ev.Attempts}
		switch {
		case ctx.Err() != nil:
			de.Err = context.Cause(ctx)
		case len(ev.Attempts) == 0:
			de.Err = ErrNoAddrs
		case won != nil:
			de.Err = err
		}
		ev.Err = de
	}
	h.emit(ev)
	if ev.Err != nil {
		return nil, ev.Err
	}
	return ev.Conn, nil
}

// resolving is how many names of one dial are looked up at the same time.
const resolving = 8

// resolve gathers the peer's addresses, Limits.Addrs at most, and replaces
// names by what they stand for. What fails is an attempt that failed.
func (h *Host) resolve(ctx context.Context, info peer.AddrInfo, ev *Dialed) []ma.Multiaddr {
	all := info.Addrs
	if info.ID != "" {
		all = append(all[:len(all):len(all)], h.peers.Addrs(info.ID)...)
	}
	for _, a := range all[min(len(all), h.limits.Addrs):] {
		ev.skip(a, fmt.Errorf("%w: more than %d addresses (Limits.Addrs)", ErrLimit, h.limits.Addrs))
	}
	all = all[:min(len(all), h.limits.Addrs)]

	found := make([][]ma.Multiaddr, len(all))
	errs := make([]error, len(all))
	slots := make(chan struct{}, resolving)
	var wg sync.WaitGroup
	for i, a := range all {
		if h.takes(a) {
			found[i] = []ma.Multiaddr{a}
			continue
		}
		slots <- struct{}{}
		wg.Go(func() { // ends with ctx
			found[i], errs[i] = dial.Resolve(ctx, h.net, a, info.ID)
			<-slots
		})
	}
	wg.Wait()
	var addrs []ma.Multiaddr
	for i, as := range found {
		if errs[i] != nil {
			ev.skip(all[i], errs[i])
		}
		for _, a := range as {
			a, _ := peer.SplitAddr(a)
			addrs = append(addrs, a)
		}
	}
	return addrs
}

func (h *Host) takes(a ma.Multiaddr) bool {
	p, s := h.transportFor(a)
	return p != nil || s != nil
}

// dialable leaves out what cannot or should not be tried now, each with its reason.
func (h *Host) dialable(all []ma.Multiaddr, id peer.ID, asked bool, ev *Dialed) []ma.Multiaddr {
	d := &h.dialer
	now := time.Now()
	var addrs []ma.Multiaddr
	for _, a := range all {
		err := h.admit(StageDial, &link{peer: id, remote: a})
		switch {
		case err != nil:
		case !h.takes(a):
			err = ErrNoTransport
		case !asked && d.backoff.Wait(now, id, a) > 0:
			err = ErrBackoff
		}
		if err != nil {
			ev.skip(a, err)
			continue
		}
		addrs = append(addrs, a)
	}
	if asked {
		return addrs
	}
	addrs, dropped := d.holes.Filter(addrs)
	for _, a := range dropped {
		ev.skip(a, ErrBlackHole)
	}
	return addrs
}

// skip notes an address that is not tried.
func (ev *Dialed) skip(a ma.Multiaddr, why error) {
	ev.Attempts = append(ev.Attempts, Attempt{Addr: a, Start: ev.Resolve, Err: why})
}

// learn remembers how an attempt went. One that was called off says nothing.
func (h *Host) learn(id peer.ID, t dial.Attempt) {
	d := &h.dialer
	heard := t.Err
	switch {
	case errors.Is(t.Err, dial.ErrLost), errors.Is(t.Err, context.Canceled):
		return
	case t.Err == nil:
		d.backoff.Succeeded(id, t.Addr)
	default:
		d.backoff.Failed(time.Now(), id, t.Addr)
		if !errors.Is(t.Err, context.DeadlineExceeded) {
			heard = nil // whoever refuses us is there
		}
	}
	d.holes.Record(t.Addr, heard)
}

// dialAddr connects to one address and upgrades the connection. It returns the
// link, as far as it came, also with an error, and tells the stages so far at each.
func (h *Host) dialAddr(ctx context.Context, a ma.Multiaddr, want peer.ID, tell func([]StageTime)) (*link, error) {
	l := &link{remote: a, want: want, started: time.Now(), tell: tell}
	if h.dialer.slots != nil {
		select {
		case h.dialer.slots <- struct{}{}:
			defer func() { <-h.dialer.slots }()
		case <-ctx.Done():
			return l, context.Cause(ctx)
		}
	}
	pipes, sessions := h.transportFor(a)
	if sessions != nil {
		s, err := sessions.DialSession(ctx, a, want)
		if err != nil {
			return l, err
		}
		return l, h.adopt(s, l)
	}
	err := h.dialPipe(ctx, pipes, a, l, pipelined)
	if refused(err) && ctx.Err() == nil {
		// The peer took our handshake message for a proposal. It speaks
		// something else, or does not like our haste.
		l.stages = nil
		err = h.dialPipe(ctx, pipes, a, l, eager)
	}
	return l, err
}

func (h *Host) dialPipe(ctx context.Context, t transport.Pipes, a ma.Multiaddr, l *link, how negotiation) error {
	raw, err := t.Dial(ctx, a)
	if err != nil {
		return err
	}
	l.reached(StageConnect)
	l.watched = transport.Watches(t)
	if err := l.addrs(raw.LocalAddr(), raw.RemoteAddr()); err != nil {
		raw.Close()
		return err
	}
	if err := h.upgrade(ctx, raw, l, how); err != nil {
		raw.Close()
		return err
	}
	return nil
}

// refused tells whether a pipelined negotiation failed in a way that an
// eager one may not.
func refused(err error) bool {
	_, ok := errors.AsType[*NegotiationError](err)
	return ok
}

var errDialTimeout = fmt.Errorf("timed out (Limits.DialTimeout): %w", context.DeadlineExceeded)

// ownOrAny are the addresses to dial without their /p2p part.
func ownOrAny(info peer.AddrInfo) []ma.Multiaddr {
	if info.ID != "" {
		return ownAddrs(info)
	}
	addrs := make([]ma.Multiaddr, 0, len(info.Addrs))
	for _, a := range info.Addrs {
		a, _ = peer.SplitAddr(a)
		addrs = append(addrs, a)
	}
	return addrs
}
