package dial

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"testing"

	ma "github.com/multiformats/go-multiaddr"
)

func TestBlackHole(t *testing.T) {
	fail := errors.New("timeout")
	var b BlackHole
	for i := range holeWindow {
		if b.Blocked() || !b.Allow() {
			t.Fatalf("blocked after %d dials", i)
		}
		// go-libp2p counts dials that it called off itself (BASELINE 3.5, 9).
		b.Record(context.Canceled)
		b.Record(fmt.Errorf("QUIC: %w", ErrLost))
		b.Record(fail)
	}
	probes := 0
	for range 10 * holeProbe {
		if !b.Blocked() {
			t.Fatal("not blocked")
		}
		if b.Allow() {
			probes++
			b.Record(fail)
		}
	}
	if probes != 10 {
		t.Errorf("%d probes, want 10", probes)
	}
	b.Record(nil)
	if b.Blocked() {
		t.Error("still blocked after a success")
	}
	for range holeWindow {
		b.Record(fail)
	}
	if !b.Blocked() {
		t.Error("not blocked again")
	}
	b.Reset()
	if b.Blocked() {
		t.Error("blocked after Reset")
	}

	// 5 successes of the last 100 are enough, 4 are not.
	b.Reset()
	for i := range 1000 {
		if i%20 == 0 {
			b.Record(nil)
		} else {
			b.Record(fail)
		}
		if b.Blocked() {
			t.Fatalf("blocked by 5 %% after %d", i)
		}
	}
	for range 19 {
		b.Record(fail)
	}
	b.Record(fail)
	if !b.Blocked() {
		t.Error("not blocked by 4 %")
	}
}

func TestBlackHoles(t *testing.T) {
	all := addrs(
		"/ip4/192.0.2.1/tcp/1", "/ip4/192.0.2.1/udp/1/quic-v1", "/ip6/2001:db8::1/tcp/1", "/ip6/2001:db8::1/udp/1/quic-v1",
		"/ip4/192.168.0.1/udp/1/quic-v1", "/ip6/fd00::1/tcp/1", "/ip6/2001:db8::1/udp/1/quic-v1/p2p/"+idA+"/p2p-circuit", "/ip4/0.0.0.0/udp/1/quic-v1",
	)
	var b BlackHoles
	check := func(what string, drop ...int) {
		t.Helper()
		try, dropped := b.Filter(all)
		var want []ma.Multiaddr
		for _, i := range drop {
			want = append(want, all[i])
		}
		if !reflect.DeepEqual(dropped, want) || len(try)+len(dropped) != len(all) {
			t.Errorf("%s: dropped %v, want %v", what, dropped, want)
		}
	}
	check("new")
	for range holeWindow {
		for _, i := range []int{4, 5, 6, 7} { // they do not count
			b.Record(all[i], errRefused)
		}
		b.Record(all[0], errRefused)
		b.Record(all[1], errRefused)
	}
	check("no UDP", 1, 3)
	for range holeWindow {
		b.Record(all[2], errRefused)
	}
	check("neither", 1, 2, 3)
	for range holeProbe - 3 { // UDP had one more
		check("still neither", 1, 2, 3)
	}
	check("a probe of UDP", 2, 3)
	check("a probe of IPv6", 1, 3)
	check("neither again", 1, 2, 3)
	b.Reset()
	check("reset")
	b.Record(all[3], nil)
}
