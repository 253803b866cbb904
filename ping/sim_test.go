package ping

import (
	"testing"
	"testing/synctest"
	"time"

	ma "github.com/multiformats/go-multiaddr"

	"github.com/plexus-p2p/plexus"
	"github.com/plexus-p2p/plexus/muxer"
	"github.com/plexus-p2p/plexus/muxer/yamux"
	"github.com/plexus-p2p/plexus/peer"
	"github.com/plexus-p2p/plexus/security"
	"github.com/plexus-p2p/plexus/security/noise"
	"github.com/plexus-p2p/plexus/simnet"
	"github.com/plexus-p2p/plexus/transport"
	"github.com/plexus-p2p/plexus/transport/tcp"
)

// On a link of 50 ms each ping takes 100 ms, the first one too: the negotiation
// of its stream travels with it.
func TestRoundTrip(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := simnet.New(simnet.Config{Path: simnet.Link{Latency: 50 * time.Millisecond}})
		defer net.Close()
		make := func(ip string) *plexus.Host {
			key, err := peer.GenerateKey(peer.Ed25519)
			if err != nil {
				t.Fatal(err)
			}
			n := net.Host(ip)
			h, err := plexus.New(plexus.Config{
				Key:      key,
				Network:  n,
				Pipes:    []transport.Pipes{&tcp.Transport{Network: n}},
				Security: []security.Protocol{&noise.Protocol{}},
				Muxers:   []muxer.Muxer{&yamux.Muxer{}},
			})
			if err == nil {
				err = h.Listen(t.Context(), ma.StringCast("/ip4/0.0.0.0/tcp/4001"))
			}
			if err != nil {
				t.Fatal(err)
			}
			return h
		}
		x, y := make("10.0.0.1"), make("10.0.0.2")
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
