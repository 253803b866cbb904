package floodsub_test

import (
	"flag"
	"testing"

	"github.com/plexus-p2p/plexus/pubsub"
	"github.com/plexus-p2p/plexus/pubsub/floodsub"
	"github.com/plexus-p2p/plexus/pubsub/pubsubtest"
)

func TestConformance(t *testing.T) {
	pubsubtest.Test(t, func() pubsub.Router { return floodsub.New() })
}

var update = flag.Bool("update", false, "write what the router does into the script")

// TestScript runs the rules of the spec, each under its sentence.
func TestScript(t *testing.T) {
	pubsubtest.Script(t, "testdata/floodsub.txt", *update, func(map[string]string, func(string)) (pubsub.Router, error) {
		return floodsub.New(), nil
	})
}
