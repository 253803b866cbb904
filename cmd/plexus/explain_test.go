package main

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/plexus-p2p/plexus/node"
	"github.com/plexus-p2p/plexus/node/full"
	"github.com/plexus-p2p/plexus/simnet"
)

// Of the addresses that a name stands for one refuses, one wins, and one comes
// too late: each says so.
func TestExplainRace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := simnet.New(simnet.Config{Path: simnet.Link{Latency: 200 * time.Millisecond}, Lookup: 30 * time.Millisecond})
		defer n.Close()
		here, there, other := n.Host("192.0.2.1"), n.Host("198.51.100.2", "203.0.113.3"), n.Host("203.0.113.4")
		n.SetPath(here, other, simnet.Link{Latency: 50 * time.Millisecond})
		n.SetDNS("some.example", "203.0.113.4", "198.51.100.2", "203.0.113.3")
		h, err := node.New(node.Config{Network: there, Listen: []string{"/ip4/0.0.0.0/tcp/4001"}})
		if err != nil {
			t.Fatal(err)
		}
		defer h.Close()

		r := commandOn(t, here, "", "explain", "/dns4/some.example/tcp/4001/p2p/"+h.ID().String()).ok(t)
		t.Log("\n" + r.out)
		r.has(t, "some.example → 203.0.113.4, 198.51.100.2, 203.0.113.3",
			"✗ /ip4/203.0.113.4/tcp/4001", "connection refused: nobody listens there",
			"✓ /ip4/", "– /ip4/", "another address was faster", "resolve                 30.0 ms")

		evs := commandOn(t, here, "", "explain", "--json", "/dns4/some.example/tcp/4001/p2p/"+h.ID().String()).ok(t).events(t)
		if l := evs["resolve"]; len(l) != 1 || l[0]["took_ms"] != 30.0 || len(l[0]["answers"].([]any)) != 3 {
			t.Errorf("lookups: %v", l)
		}
		kinds := make(map[any]int)
		for _, a := range evs["attempt"] {
			kinds[a["kind"]]++
			if a["won"] == true {
				kinds["won"]++
			}
		}
		if kinds["refused"] != 1 || kinds["slower"] != 1 || kinds["won"] != 1 {
			t.Errorf("attempts: %v", evs["attempt"])
		}
	})
}

// Of several addresses, QUIC has a head start: on a short path TCP is not needed, on a
// longer one it comes too late.
func TestExplainSeveral(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := simnet.New(simnet.Config{})
		defer n.Close()
		here, there := n.Host("192.0.2.1"), n.Host("198.51.100.2")
		h, err := node.New(node.Config{Network: there, Port: 4001, Transports: full.Transports})
		if err != nil {
			t.Fatal(err)
		}
		defer h.Close()
		for _, c := range []struct {
			latency time.Duration
			want    string
		}{
			{50 * time.Millisecond, "· /ip4/198.51.100.2/tcp/4001, not tried"},
			{150 * time.Millisecond, "– /ip4/198.51.100.2/tcp/4001\n"},
		} {
			n.SetPath(here, there, simnet.Link{Latency: c.latency})
			r := commandOn(t, here, "", "explain", "/ip4/198.51.100.2/tcp/4001/ws", "/ip4/198.51.100.2/tcp/4001",
				"/ip4/198.51.100.2/udp/4001/quic-v1/p2p/"+h.ID().String()).ok(t)
			t.Log("\n" + r.out)
			r.has(t, "✓ /ip4/198.51.100.2/udp/4001/quic-v1", "connect /quic-v1", c.want, "· /ip4/198.51.100.2/tcp/4001/ws, not tried")
		}
	})
}

func TestWaterfall(t *testing.T) {
	ms := func(start, took int) span {
		return span{millis(time.Duration(start) * time.Millisecond), millis(time.Duration(took) * time.Millisecond)}
	}
	w := waterfall{
		lookups: []lookup{{Name: "some.example", Answers: []string{"192.0.2.1", "192.0.2.2"}, span: ms(0, 20)}},
		attempts: []attempt{{
			Addr: "/ip4/192.0.2.1/tcp/1", span: ms(20, 40), Kind: kindRefused, Error: "connection refused",
			Stages: []stageSpan{{Stage: "connect", span: ms(20, 40)}},
		}, {
			Addr: "/ip4/192.0.2.2/tcp/1", span: ms(60, 81), Won: true,
			Stages: []stageSpan{
				{Stage: "connect", span: ms(60, 40), Done: true},
				{Stage: "security", span: ms(100, 40), Done: true, With: "/noise"},
				{Stage: "muxer", span: ms(140, 0), Done: true, With: "/a/very/long/muxer/name/1.0.0"},
			},
		}},
		who: &reached{span: ms(140, 35), identity: identity{Peer: "", Agent: "somebody/1", Connect: 140e6}},
	}
	want := strings.TrimPrefix(`
                                 0 ms        50           100         150
resolve                 20.0 ms  █████
  some.example → 192.0.2.1, 192.0.2.2
✗ /ip4/192.0.2.1/tcp/1
  connect               40.0 ms       ██████████▏
  connection refused
✓ /ip4/192.0.2.2/tcp/1
  connect               40.0 ms                 ██████████▏
  security /noise       40.0 ms                           ██████████▎
  muxer /a/very/long/… 0.000 ms                                     ▎
identify                35.0 ms                                     █████████
`, "\n")
	got, _, _ := strings.Cut(w.draw(style{}), "\n\n")
	if got+"\n" != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	if s := (style{colour: true}); columns(w.draw(s)) != columns(w.draw(style{})) {
		t.Error("colours change the columns")
	}
}
