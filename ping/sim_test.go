package ping

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/plexus-p2p/plexus/plexustest"
	"github.com/plexus-p2p/plexus/simnet"
)

// On a link of 50 ms each ping takes 100 ms, the first one too: the negotiation
// of its stream travels with it.
func TestRoundTrip(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := simnet.New(simnet.Config{Path: simnet.Link{Latency: 50 * time.Millisecond}})
		defer net.Close()
		x, y := plexustest.SimHost(t, net.Host("10.0.0.1")), plexustest.SimHost(t, net.Host("10.0.0.2"))
		defer x.Close()
		defer y.Close()
		Serve(y)
		if _, err := x.Dial(t.Context(), y.Info()); err != nil {
			t.Fatal(err)
		}
		n := 0
		for rtt, err := range Ping(t.Context(), x, y.ID()) {
			if err != nil || rtt != 100*time.Millisecond {
				t.Errorf("ping %d: %v, %v", n, rtt, err)
			}
			if n++; n == 3 || err != nil {
				break
			}
		}
	})
}
