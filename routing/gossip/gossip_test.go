package gossip

import (
	"testing"
	"time"

	"github.com/plexus-p2p/plexus"
	"github.com/plexus-p2p/plexus/pubsub"
	"github.com/plexus-p2p/plexus/pubsub/floodsub"
	"github.com/plexus-p2p/plexus/pubsub/gossipsub"
	"github.com/plexus-p2p/plexus/routing"
	"github.com/plexus-p2p/plexus/routing/routingtest"
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
