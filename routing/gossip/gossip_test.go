package gossip

import (
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/plexus-p2p/plexus"
	"github.com/plexus-p2p/plexus/fetch"
	"github.com/plexus-p2p/plexus/plexustest"
	"github.com/plexus-p2p/plexus/pubsub"
	"github.com/plexus-p2p/plexus/pubsub/floodsub"
	"github.com/plexus-p2p/plexus/pubsub/gossipsub"
	"github.com/plexus-p2p/plexus/routing"
	"github.com/plexus-p2p/plexus/routing/routingtest"
	"github.com/plexus-p2p/plexus/transport/memory"
)

// routers are the pubsub routers that a Router runs on.
var routers = map[string]func() pubsub.Router{
	"floodsub":  func() pubsub.Router { return floodsub.New() },
	"gossipsub": func() pubsub.Router { return gossipsub.Must(gossipsub.Default()) },
}

// start makes a Router on a host.
func start(t testing.TB, h *plexus.Host, r pubsub.Router, cfg Config) *Router {
	t.Helper()
	ps, err := pubsub.New(h, r, pubsub.Config{Seed: 1})
	if err != nil {
		t.Fatal(err)
	}
	router, err := New(h, ps, cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { router.Close() })
	return router
}

// TestConformance: only pubsub runs on the hosts.
func TestConformance(t *testing.T) {
	for name, router := range routers {
		t.Run(name, func(t *testing.T) {
			routingtest.Test(t, func(t testing.TB, h *plexus.Host, v routing.Validator) routing.Router {
				// Hours pass in these tests.
				return start(t, h, router(), Config{Validator: v, Discovery: DiscoveryConfig{Interval: 10 * time.Minute}})
			})
		})
	}
}

// counted counts how often a value is checked.
type counted struct {
	routingtest.Numbers
	checks *atomic.Int64
}

func (v counted) Validate(key string, value []byte, now time.Time) (time.Time, error) {
	if value != nil {
		v.checks.Add(1)
	}
	return v.Numbers.Validate(key, value, now)
}

// TestCheckedOnce: a value that is kept is not checked again for those who ask for it, nor
// for what comes after it; and it ends when it says so.
func TestCheckedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var net memory.Network
		var checks atomic.Int64
		r := start(t, plexustest.Host(t, &net), floodsub.New(), Config{Validator: counted{checks: &checks}})
		const key = routingtest.Prefix + "a"
		until := time.Now().Add(time.Hour)
		if err := r.Put(t.Context(), key, routingtest.Value(2, until)); err != nil {
			t.Fatal(err)
		}
		rec := r.records[key]
		for _, tt := range []struct {
			value  []byte
			want   pubsub.Outcome
			checks int64
		}{
			{routingtest.Value(2, until), pubsub.Ignored, 0},
			{routingtest.Value(1, until), pubsub.Ignored, 1},
			{routingtest.Value(3, until), pubsub.Accepted, 1},
			{routingtest.Value(3, until), pubsub.Ignored, 0},
			{[]byte("x"), pubsub.Rejected, 1},
		} {
			before := checks.Load()
			got := rec.check(t.Context(), "somebody", &pubsub.Message{Data: tt.value})
			if n := checks.Load() - before; got != tt.want || n != tt.checks {
				t.Errorf("%s: %v, want %v; checked %d times, want %d", tt.value, got, tt.want, n, tt.checks)
			}
		}
		before := checks.Load()
		time.Sleep(time.Until(until))
		if v, err := r.Lookup(t.Context(), key); string(v) != string(routingtest.Value(3, until)) || err != nil {
			t.Errorf("in its last moment: %q, %v", v, err)
		}
		time.Sleep(time.Second)
		if v, err := r.Lookup(t.Context(), key); err != fetch.ErrNotFound {
			t.Errorf("after its end: %q, %v", v, err)
		}
		if n := checks.Load() - before; n != 0 {
			t.Errorf("checked %d times more", n)
		}
	})
}
