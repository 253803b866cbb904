package perf

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/plexus-p2p/plexus/plexustest"
	"github.com/plexus-p2p/plexus/simnet"
)

// What is measured is what the link carries.
func TestLink(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := simnet.New(simnet.Config{
			Access: simnet.Link{Bandwidth: 8e6}, // 1 MB/s
			Path:   simnet.Link{Latency: 10 * time.Millisecond},
		})
		defer net.Close()
		x, y := plexustest.SimHost(t, net.Host("10.0.0.1")), plexustest.SimHost(t, net.Host("10.0.0.2"))
		defer x.Close()
		defer y.Close()
		Serve(y)
		c, err := x.Dial(t.Context(), y.Info())
		if err != nil {
			t.Fatal(err)
		}
		for _, tt := range []struct{ up, down uint64 }{{2e6, 0}, {0, 2e6}} {
			var last Report
			reports := 0
			for r, err := range Run(t.Context(), c, tt.up, tt.down) {
				if err != nil {
					t.Fatal(err)
				}
				last = r
				reports++
			}
			rate := float64(last.Up+last.Down) / last.Elapsed.Seconds()
			if reports != 3 || rate < 0.85e6 || rate > 1e6 {
				t.Errorf("%d reports, the last is %+v: %.2f MB/s, want nearly 1", reports, last, rate/1e6)
			}
		}
		// One byte each way takes a round trip: nothing waits for anything.
		var last Report
		for last = range Run(t.Context(), c, 1, 1) {
		}
		if last.Elapsed > 22*time.Millisecond {
			t.Errorf("one byte each way took %v", last.Elapsed)
		}
	})
}
