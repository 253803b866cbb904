package dial

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	ma "github.com/multiformats/go-multiaddr"
)

const ms = time.Millisecond

// A script says how an attempt ends: after so long, with an error or without.
type script struct {
	delay time.Duration // in the schedule
	takes time.Duration
	err   error
	deaf  bool // does not notice that it is called off
}

var errRefused = errors.New("refused")

// want is one attempt, in times since the start.
type want struct {
	addr        int
	start, took time.Duration
	err         error
}

func TestRace(t *testing.T) {
	hang := time.Hour
	cause := errors.New("shutting down")
	tests := []struct {
		name     string
		scripts  []script
		parallel int
		cancel   time.Duration // 0: never
		want     []want
		err      error
		took     time.Duration
		discards int32
	}{
		{name: "first wins", scripts: []script{{0, 100 * ms, nil, false}, {250 * ms, 10 * ms, nil, false}},
			want: []want{{0, 0, 100 * ms, nil}}, took: 100 * ms},
		{name: "second overtakes", scripts: []script{{0, 600 * ms, nil, false}, {250 * ms, 100 * ms, nil, false}, {500 * ms, 1 * ms, nil, false}},
			want: []want{{0, 0, 350 * ms, ErrLost}, {1, 250 * ms, 100 * ms, nil}}, took: 350 * ms},
		{name: "a late winner is discarded", scripts: []script{{0, 600 * ms, nil, true}, {250 * ms, 100 * ms, nil, true}},
			want: []want{{0, 0, 350 * ms, ErrLost}, {1, 250 * ms, 100 * ms, nil}}, took: 350 * ms, discards: 1},
		{name: "a failure lets the next one start", scripts: []script{{0, 10 * ms, errRefused, false}, {250 * ms, 20 * ms, errRefused, false}, {500 * ms, 30 * ms, nil, false}},
			want: []want{{0, 0, 10 * ms, errRefused}, {1, 10 * ms, 20 * ms, errRefused}, {2, 30 * ms, 30 * ms, nil}}, took: 60 * ms},
		{name: "those behind it come earlier too", scripts: []script{{0, 10 * ms, errRefused, false}, {250 * ms, hang, nil, false}, {250 * ms, hang, nil, false}, {500 * ms, 30 * ms, nil, false}},
			want: []want{{0, 0, 10 * ms, errRefused}, {1, 10 * ms, 280 * ms, ErrLost}, {2, 10 * ms, 280 * ms, ErrLost}, {3, 260 * ms, 30 * ms, nil}}, took: 290 * ms},
		{name: "not while another one runs", scripts: []script{{0, hang, nil, false}, {0, 10 * ms, errRefused, false}, {250 * ms, 30 * ms, nil, false}},
			want: []want{{0, 0, 280 * ms, ErrLost}, {1, 0, 10 * ms, errRefused}, {2, 250 * ms, 30 * ms, nil}}, took: 280 * ms},
		{name: "the first does not wait", scripts: []script{{500 * ms, 10 * ms, nil, false}},
			want: []want{{0, 0, 10 * ms, nil}}, took: 10 * ms},
		{name: "all fail", scripts: []script{{0, 10 * ms, errRefused, false}, {0, 20 * ms, errRefused, false}},
			want: []want{{0, 0, 10 * ms, errRefused}, {1, 0, 20 * ms, errRefused}}, err: ErrFailed, took: 20 * ms},
		{name: "one at a time", parallel: 1, scripts: []script{{0, 400 * ms, errRefused, false}, {250 * ms, 400 * ms, errRefused, false}, {500 * ms, 10 * ms, nil, false}},
			want: []want{{0, 0, 400 * ms, errRefused}, {1, 400 * ms, 400 * ms, errRefused}, {2, 800 * ms, 10 * ms, nil}}, took: 810 * ms},
		{name: "two at a time", parallel: 2, scripts: []script{{0, 100 * ms, errRefused, false}, {0, 150 * ms, errRefused, false}, {0, 200 * ms, errRefused, false}},
			want: []want{{0, 0, 100 * ms, errRefused}, {1, 0, 150 * ms, errRefused}, {2, 100 * ms, 200 * ms, errRefused}}, err: ErrFailed, took: 300 * ms},
		{name: "none", err: ErrNoAddrs},
		{name: "canceled", cancel: 300 * ms, scripts: []script{{0, hang, nil, true}, {250 * ms, hang, nil, false}, {500 * ms, hang, nil, false}},
			want: []want{{0, 0, 300 * ms, cause}, {1, 250 * ms, 50 * ms, cause}}, err: cause, took: 300 * ms, discards: 1},
		{name: "at the same time", scripts: []script{{0, 100 * ms, nil, true}, {0, 100 * ms, nil, true}},
			want: nil, took: 100 * ms, discards: 1},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithCancelCause(t.Context())
				defer cancel(nil)
				if tt.cancel > 0 {
					time.AfterFunc(tt.cancel, func() { cancel(cause) })
				}
				var in []Ranked
				index := map[string]int{}
				for i, s := range tt.scripts {
					a := ma.StringCast(fmt.Sprintf("/memory/%d", i+1))
					in = append(in, Ranked{a, s.delay})
					index[a.String()] = i
				}
				var running, most, discards atomic.Int32
				dialOne := func(ctx context.Context, a ma.Multiaddr) (int, error) {
					most.Store(max(most.Load(), running.Add(1)))
					defer running.Add(-1)
					i := index[a.String()]
					s := tt.scripts[i]
					if s.deaf {
						time.Sleep(s.takes)
						return i, s.err
					}
					select {
					case <-time.After(s.takes):
						return i, s.err
					case <-ctx.Done():
						return -1, context.Cause(ctx)
					}
				}
				start := time.Now()
				winner, attempts, err := Race(ctx, in, tt.parallel, dialOne, func(int) { discards.Add(1) })
				if took := time.Since(start); took != tt.took || err != tt.err {
					t.Errorf("took %v, %v, want %v, %v", took, err, tt.took, tt.err)
				}
				won := 0
				for i, a := range attempts {
					if a.Err == nil {
						won++
						if winner != index[a.Addr.String()] {
							t.Errorf("attempt %d won, but %d is returned", i, winner)
						}
					}
					if tt.want == nil {
						continue
					}
					w := tt.want[i]
					if index[a.Addr.String()] != w.addr || a.Start.Sub(start) != w.start || a.Took != w.took || !errors.Is(a.Err, w.err) {
						t.Errorf("attempt %d: %s at %v for %v: %v, want %v", i, a.Addr, a.Start.Sub(start), a.Took, a.Err, w)
					}
					if w.err == cause && !errors.Is(a.Err, context.Canceled) {
						t.Errorf("attempt %d: %v is not context.Canceled", i, a.Err)
					}
				}
				if tt.want != nil && len(attempts) != len(tt.want) {
					t.Errorf("%d attempts, want %d", len(attempts), len(tt.want))
				}
				if (won == 1) != (err == nil) || won > 1 {
					t.Errorf("%d won", won)
				}
				if tt.parallel > 0 && int(most.Load()) > tt.parallel {
					t.Errorf("%d ran at once", most.Load())
				}
				before := append([]Attempt(nil), attempts...)
				time.Sleep(2 * hang)
				synctest.Wait()
				if discards.Load() != tt.discards || running.Load() != 0 {
					t.Errorf("%d discarded, want %d; %d still run", discards.Load(), tt.discards, running.Load())
				}
				if !reflect.DeepEqual(before, attempts) {
					t.Error("attempts changed after the race")
				}
			})
		})
	}
}

func TestRaceDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		hang := func(ctx context.Context, _ ma.Multiaddr) (int, error) { <-ctx.Done(); return 0, ctx.Err() }
		_, attempts, err := Race(ctx, []Ranked{{ma.StringCast("/memory/1"), 0}}, 0, hang, nil)
		if err != context.DeadlineExceeded || len(attempts) != 1 || !errors.Is(attempts[0].Err, err) || attempts[0].Took != time.Second {
			t.Errorf("%v %v", attempts, err)
		}
		// A context that has ended starts nothing.
		if _, attempts, err := Race(ctx, []Ranked{{ma.StringCast("/memory/1"), 0}}, 0, hang, nil); err != context.DeadlineExceeded || len(attempts) != 0 {
			t.Errorf("%v %v", attempts, err)
		}
	})
}

// The context of the losers ends with ErrLost as its cause.
func TestRaceCause(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		causes := make(chan error, 1)
		_, _, err := Race(t.Context(), []Ranked{{ma.StringCast("/memory/1"), 0}, {ma.StringCast("/memory/2"), 0}}, 0,
			func(ctx context.Context, a ma.Multiaddr) (int, error) {
				if a.String() == "/memory/2" {
					return 2, nil
				}
				<-ctx.Done()
				causes <- context.Cause(ctx)
				return 0, ctx.Err()
			}, nil)
		if got := <-causes; err != nil || got != ErrLost {
			t.Errorf("%v, %v", got, err)
		}
	})
}
