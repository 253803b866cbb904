package dial

import (
	"fmt"
	"strings"
	"testing"
	"time"

	ma "github.com/multiformats/go-multiaddr"
)

const (
	idA = "12D3KooWD3eckifWpRn9wQpMG9R9hX3sD158z7EqHWmweQAJU5SA"
	idB = "12D3KooWPjceQrSwdWXPyLLeABRXmuqt69Rg3sBYbU1Nft9HyQ6X"
)

func addrs(s ...string) []ma.Multiaddr {
	out := make([]ma.Multiaddr, len(s))
	for i := range s {
		out[i] = ma.StringCast(s[i])
	}
	return out
}

// lines prints a ranking as "delay address" lines.
func lines(r []Ranked) []string {
	out := []string{}
	for _, a := range r {
		out = append(out, fmt.Sprintf("%d %s", a.Delay.Milliseconds(), a.Addr))
	}
	return out
}

func TestRank(t *testing.T) {
	const wt = "/quic-v1/webtransport/certhash/uEiAkH5a4DPGKUuOBjYw0CgwjvcJCJMD2K_1aluKR_tpevQ"
	const rtc = "/webrtc-direct/certhash/uEiAkH5a4DPGKUuOBjYw0CgwjvcJCJMD2K_1aluKR_tpevQ"
	tests := []struct {
		name string
		in   []string
		want []string
	}{
		{"none", nil, []string{}},
		{"one", []string{"/ip4/192.0.2.1/tcp/1"}, []string{"0 /ip4/192.0.2.1/tcp/1"}},
		{"one relay", []string{"/ip4/192.0.2.1/tcp/1/p2p/" + idA + "/p2p-circuit"}, []string{"0 /ip4/192.0.2.1/tcp/1/p2p/" + idA + "/p2p-circuit"}},
		{"one browser", []string{"/ip4/192.0.2.1/tcp/1/ws"}, []string{"0 /ip4/192.0.2.1/tcp/1/ws"}},
		{"families", []string{
			"/ip4/192.0.2.1/tcp/1", "/ip4/192.0.2.1/udp/1/quic-v1", "/ip6/2001:db8::1/tcp/1", "/ip6/2001:db8::1/udp/1/quic-v1",
		}, []string{
			"0 /ip6/2001:db8::1/udp/1/quic-v1", "250 /ip4/192.0.2.1/udp/1/quic-v1",
			"500 /ip6/2001:db8::1/tcp/1", "750 /ip4/192.0.2.1/tcp/1",
		}},
		{"one family", []string{"/ip4/192.0.2.1/tcp/1", "/ip4/192.0.2.1/udp/1/quic-v1"}, []string{
			"0 /ip4/192.0.2.1/udp/1/quic-v1", "250 /ip4/192.0.2.1/tcp/1",
		}},
		{"TCP only", []string{"/ip4/192.0.2.1/tcp/1", "/ip4/192.0.2.2/tcp/1", "/ip4/192.0.2.3/tcp/1", "/ip6/2001:db8::1/tcp/1", "/ip6/2001:db8::2/tcp/1"}, []string{
			"0 /ip6/2001:db8::1/tcp/1", "250 /ip4/192.0.2.1/tcp/1", "500 /ip6/2001:db8::2/tcp/1", "500 /ip4/192.0.2.2/tcp/1", "500 /ip4/192.0.2.3/tcp/1",
		}},
		{"local beside public", []string{"/ip4/192.0.2.1/udp/1/quic-v1", "/ip4/192.168.0.1/tcp/1", "/ip4/192.168.0.1/udp/1/quic-v1", "/ip4/127.0.0.1/tcp/1", "/ip6/fd00::1/tcp/1", "/ip4/192.168.0.1/tcp/2/ws", "/ip4/100.64.0.1/tcp/3/ws"}, []string{
			"0 /ip4/192.168.0.1/udp/1/quic-v1", "0 /ip4/192.0.2.1/udp/1/quic-v1",
			"30 /ip6/fd00::1/tcp/1", "60 /ip4/192.168.0.1/tcp/1", "90 /ip4/127.0.0.1/tcp/1",
			"190 /ip4/192.168.0.1/tcp/2/ws", "220 /ip4/100.64.0.1/tcp/3/ws",
		}},
		{"all transports", []string{
			"/ip4/192.0.2.1/udp/1" + rtc, "/ip4/192.0.2.1/udp/1" + wt, "/dns4/example.com/tcp/443/tls/ws", "/ip4/192.0.2.1/udp/1/utp",
			"/ip4/192.0.2.1/tcp/1", "/ip4/192.0.2.1/udp/1/quic-v1",
		}, []string{
			"0 /ip4/192.0.2.1/udp/1/quic-v1", "250 /ip4/192.0.2.1/tcp/1",
			"1250 /dns4/example.com/tcp/443/tls/ws", "1500 /ip4/192.0.2.1/udp/1" + wt, "1750 /ip4/192.0.2.1/udp/1" + rtc, "1750 /ip4/192.0.2.1/udp/1/utp",
		}},
		{"relays", []string{
			"/ip4/192.0.2.9/tcp/1/p2p/" + idA + "/p2p-circuit", "/ip4/192.0.2.9/udp/1/quic-v1/p2p/" + idA + "/p2p-circuit",
			"/p2p/" + idA + "/p2p-circuit", "/ip4/192.0.2.1/tcp/1",
			"/ip4/192.0.2.9/tcp/1/p2p/" + idA + "/p2p-circuit/webrtc",
		}, []string{
			"0 /ip4/192.0.2.1/tcp/1",
			"500 /ip4/192.0.2.9/udp/1/quic-v1/p2p/" + idA + "/p2p-circuit", "750 /p2p/" + idA + "/p2p-circuit",
			"1000 /ip4/192.0.2.9/tcp/1/p2p/" + idA + "/p2p-circuit",
			"2000 /ip4/192.0.2.9/tcp/1/p2p/" + idA + "/p2p-circuit/webrtc",
		}},
		{"repetitions", []string{
			"/ip4/192.0.2.1/tcp/1", "/ip4/192.0.2.1/tcp/1/p2p/" + idA, "/ip4/192.0.2.1/tcp/1", "/ip4/192.0.2.1/tcp/2",
		}, []string{"0 /ip4/192.0.2.1/tcp/1", "250 /ip4/192.0.2.1/tcp/2"}},
		{"undialable", []string{
			"/ip4/0.0.0.0/tcp/1", "/ip6/::/udp/1/quic-v1", "/ip4/192.0.2.1/tcp/0", "/ip4/192.0.2.1/udp/0/quic-v1", "/ip6/ff02::1/udp/1/quic-v1",
			"/ip4/224.0.0.1/udp/1/quic-v1", "/ip4/255.255.255.255/udp/1/quic-v1", "/ip6/fe80::1/tcp/1", "/p2p/" + idA, "/ip6/::ffff:0.0.0.0/tcp/1",
		}, []string{}},
		// go-libp2p drops these always (BASELINE 3.5, 9).
		{"zone", []string{"/ip6zone/eth0/ip6/fe80::1/tcp/1", "/ip6/2001:db8::1/tcp/1"}, []string{
			"0 /ip6zone/eth0/ip6/fe80::1/tcp/1", "0 /ip6/2001:db8::1/tcp/1",
		}},
		{"no network", []string{"/memory/1", "/unix/tmp/s"}, []string{"0 /memory/1", "30 /unix/tmp/s"}},
		{"overlays", []string{"/onion3/vww6ybal4bd7szmgncyruucpgfkqahzddi37ktceo3ah7ngmcopnpyyd:1234", "/ip4/192.0.2.1/tcp/1"}, []string{
			"0 /ip4/192.0.2.1/tcp/1", "1000 /onion3/vww6ybal4bd7szmgncyruucpgfkqahzddi37ktceo3ah7ngmcopnpyyd:1234",
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			in := addrs(tt.in...)
			got, again := lines(Rank(in)), lines(Rank(in))
			if g, w := strings.Join(got, "\n"), strings.Join(tt.want, "\n"); g != w {
				t.Errorf("got\n%s\nwant\n%s", g, w)
			}
			if strings.Join(got, "\n") != strings.Join(again, "\n") {
				t.Error("not the same twice")
			}
		})
	}
}

func typical() []ma.Multiaddr {
	return addrs(
		"/ip4/192.168.1.5/tcp/4001", "/ip4/192.168.1.5/udp/4001/quic-v1", "/ip4/127.0.0.1/tcp/4001", "/ip6/::1/tcp/4001",
		"/ip4/203.0.113.7/tcp/4001", "/ip4/203.0.113.7/udp/4001/quic-v1", "/ip6/2001:db8::7/tcp/4001", "/ip6/2001:db8::7/udp/4001/quic-v1",
		"/ip4/203.0.113.7/udp/4001/quic-v1/webtransport", "/ip4/203.0.113.7/tcp/443/tls/sni/example.com/ws",
		"/ip4/198.51.100.1/tcp/4001/p2p/"+idA+"/p2p-circuit", "/ip4/198.51.100.1/udp/4001/quic-v1/p2p/"+idA+"/p2p-circuit",
	)
}

// many are as many addresses as a peer may have, all different.
func many() (in []ma.Multiaddr) {
	for i := range 500 {
		in = append(in, ma.StringCast(fmt.Sprintf("/ip4/192.0.2.1/tcp/%d", i+1)))
	}
	return in
}

// rankAllocs is a ceiling for any number of addresses.
const rankAllocs = 2

func TestRankAllocs(t *testing.T) {
	for _, in := range [][]ma.Multiaddr{typical(), many()} {
		if n := testing.AllocsPerRun(20, func() { Rank(in) }); n > rankAllocs {
			t.Errorf("%v allocations for %d addresses, at most %v", n, len(in), rankAllocs)
		}
	}
}

func BenchmarkRank(b *testing.B) {
	in := typical()
	b.ReportAllocs()
	for b.Loop() {
		Rank(in)
	}
}

// Many must not cost much.
func BenchmarkRank500(b *testing.B) {
	in := many()
	b.ReportAllocs()
	for b.Loop() {
		Rank(in)
	}
}

// Any address: no panic, sorted, within bounds, and ranked again the same.
func FuzzRank(f *testing.F) {
	f.Add("/ip4/192.0.2.1/tcp/1", "/ip6zone/x/ip6/fe80::1/udp/1/quic-v1", "/p2p/"+idA+"/p2p-circuit")
	f.Add("/dns/x/tcp/1/wss", "/memory/1", "/ip4/0.0.0.0/tcp/1")
	f.Fuzz(func(t *testing.T, a, b, c string) {
		var in []ma.Multiaddr
		for _, s := range []string{a, b, c} {
			if m, err := ma.NewMultiaddr(s); err == nil {
				in = append(in, m)
			}
		}
		out := Rank(in)
		var again []ma.Multiaddr
		for i, r := range out {
			if r.Delay < 0 || r.Delay > 5*time.Second || i > 0 && r.Delay < out[i-1].Delay || i == 0 && r.Delay != 0 {
				t.Fatal(lines(out))
			}
			again = append(again, r.Addr)
		}
		if len(Rank(again)) != len(out) {
			t.Fatal(lines(out), lines(Rank(again)))
		}
	})
}
