package dial

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	ma "github.com/multiformats/go-multiaddr"
)

// DefaultParallel is how many attempts of a race run at once unless told otherwise.
const DefaultParallel = 8

var (
	// ErrLost is the error of an attempt that was called off, since another one
	// won; it is also the cause of its context's end.
	ErrLost = errors.New("dial: another address was faster")

	// ErrFailed means that no attempt of a race succeeded.
	ErrFailed = errors.New("dial: all attempts failed")

	// ErrNoAddrs means that there was nothing to try.
	ErrNoAddrs = errors.New("dial: no addresses")
)

// An Attempt is what became of one address in a race.
type Attempt struct {
	Addr  ma.Multiaddr
	Start time.Time
	Took  time.Duration
	Err   error // nil for the winner
}

// Race tries addresses until one succeeds, and returns what dialOne returned for
// it. An attempt starts when its delay is over, if less than parallel run; 0 means
// [DefaultParallel]. Where nothing runs there is nothing to wait for: then the
// next one starts at once, and those behind it come earlier by as much.
//
// The winner is returned as soon as it is there. All other attempts are called off,
// and what they return nevertheless is given to discard, which may be nil. Each
// runs in a goroutine that ends with its dialOne and discard. The context of
// dialOne ends when the race does: what it returned must not depend on it.
//
// The attempts that were started are returned in that order, whatever the
// outcome. Those that still ran have the error ErrLost, or the cause of ctx. The
// error is that cause, ErrFailed or ErrNoAddrs. addrs is sorted by delay, as Rank
// returns it.
func Race[T any](ctx context.Context, addrs []Ranked, parallel int, dialOne func(context.Context, ma.Multiaddr) (T, error), discard func(T)) (T, []Attempt, error) {
	var none T
	if err := context.Cause(ctx); err != nil {
		return none, nil, err
	}
	if len(addrs) == 0 {
		return none, nil, ErrNoAddrs
	}
	if parallel <= 0 {
		parallel = DefaultParallel
	}
	r := &race[T]{ctx: ctx, dialOne: dialOne, discard: discard, changed: make(chan struct{}, 1)}
	runCtx, cancel := context.WithCancelCause(ctx)
	defer cancel(ErrLost)

	var due <-chan time.Time
	begin := time.Now() // of the schedule: earlier than now by what was skipped
	for next := 0; ; {
		r.mu.Lock()
		for next < len(addrs) && r.running < parallel && !r.over {
			wait := time.Until(begin.Add(addrs[next].Delay))
			if wait > 0 && r.running > 0 {
				due = time.After(wait)
				break
			}
			if wait > 0 {
				begin = begin.Add(-wait)
			}
			r.startLocked(runCtx, addrs[next].Addr)
			next++
		}
		if !r.over && r.running == 0 {
			r.over = true // next == len(addrs), else something would run
		}
		over := r.over
		r.mu.Unlock()
		if over {
			break
		}
		select {
		case <-r.changed:
		case <-due:
		case <-ctx.Done():
			return r.stop(context.Cause(ctx))
		}
	}
	if r.won {
		return r.stop(ErrLost)
	}
	return none, r.attempts, ErrFailed
}

// A race is what Race and its attempts share.
type race[T any] struct {
	ctx     context.Context // of Race
	dialOne func(context.Context, ma.Multiaddr) (T, error)
	discard func(T)
	changed chan struct{} // an attempt ended; holds one

	mu       sync.Mutex // guards what follows until over; then it changes no more
	attempts []Attempt
	ended    []bool // of attempts
	running  int
	over     bool
	won      bool
	winner   T
}

func (r *race[T]) startLocked(ctx context.Context, a ma.Multiaddr) {
	i := len(r.attempts)
	r.attempts = append(r.attempts, Attempt{Addr: a, Start: time.Now()})
	r.ended = append(r.ended, false)
	r.running++
	// Ends with dialOne, whose context ends with the race. At most parallel run.
	go func() {
		v, err := r.dialOne(ctx, a)
		if !r.end(i, v, err) && err == nil && r.discard != nil {
			r.discard(v)
		}
	}()
}

// end notes how attempt i ended. It returns false if that is of no use.
func (r *race[T]) end(i int, v T, err error) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.over {
		return false
	}
	r.running--
	r.ended[i] = true
	r.attempts[i].Took = time.Since(r.attempts[i].Start)
	r.attempts[i].Err = r.calledOff(err)
	if err == nil {
		r.over, r.won, r.winner = true, true, v
	}
	select {
	case r.changed <- struct{}{}:
	default:
	}
	return true
}

// stop ends the race unless somebody won, and returns the outcome. cause is why
// those that still run are called off.
func (r *race[T]) stop(cause error) (T, []Attempt, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.over = true
	off := cause
	if !r.won {
		off = r.calledOff(cause)
	}
	for i := range r.attempts {
		if a := &r.attempts[i]; !r.ended[i] {
			a.Took, a.Err = time.Since(a.Start), off
		}
	}
	if r.won {
		return r.winner, r.attempts, nil
	}
	return r.winner, r.attempts, cause
}

// calledOff returns the error of an attempt. Once ctx is canceled that is
// context.Canceled too, whatever the cause: it is no failure for a BlackHole.
func (r *race[T]) calledOff(err error) error {
	if err == nil || r.ctx.Err() != context.Canceled || errors.Is(err, context.Canceled) {
		return err
	}
	return fmt.Errorf("%w: %w", context.Canceled, err)
}
