package gossipsub_test

import (
	"testing"

	"github.com/plexus-p2p/plexus/pubsub"
	"github.com/plexus-p2p/plexus/pubsub/gossipsub"
	"github.com/plexus-p2p/plexus/pubsub/pubsubtest"
)

func TestConformance(t *testing.T) {
	pubsubtest.Test(t, func() pubsub.Router { return gossipsub.Must(gossipsub.Default()) })
}
