package peer

import (
	"encoding/json"
	"strings"
	"testing"

	ma "github.com/multiformats/go-multiaddr"
)

const (
	alice = "12D3KooWBtg3aaRMjxwedh83aGiUkwSxDwUZkzuJcfaqUmo7R3pq"
	bob   = "QmYyQSo1c1Ym7orWxLYvCrM2EmxFTANf8wXmmE7DWjhx5N"
)

func TestParseAddrInfo(t *testing.T) {
	for _, tt := range []struct{ in, id, addr string }{
		{"/ip4/192.0.2.1/tcp/4001/p2p/" + alice, alice, "/ip4/192.0.2.1/tcp/4001"},
		{"/ip4/192.0.2.1/tcp/4001/ipfs/" + bob, bob, "/ip4/192.0.2.1/tcp/4001"},
		{"/dns4/example.org/tcp/443/tls/ws/p2p/bafzbeie5745rpv2m6tjyuugywy4d5ewrqgqqhfnf445he3omzpjbx5xqxe", bob, "/dns4/example.org/tcp/443/tls/ws"},
		{"/ip4/192.0.2.1/tcp/4001/p2p/" + bob + "/p2p-circuit/p2p/" + alice, alice, "/ip4/192.0.2.1/tcp/4001/p2p/" + bob + "/p2p-circuit"},
		{"/p2p/" + alice, alice, ""},
	} {
		got, err := ParseAddrInfo(tt.in)
		if err != nil {
			t.Errorf("%s: %v", tt.in, err)
			continue
		}
		var addr string
		for _, a := range got.Addrs {
			addr += a.String()
		}
		if got.ID.String() != tt.id || addr != tt.addr {
			t.Errorf("%s: got %s", tt.in, got)
		}
		full := got.Full()
		if len(full) != 1 || !full[0].Equal(mustAddr(t, tt.in)) {
			t.Errorf("%s: came back as %s", tt.in, full)
		}
	}
}

func TestParseAddrInfoBad(t *testing.T) {
	for _, s := range []string{
		"",
		"/",
		"nonsense",
		alice,
		"/ip4/192.0.2.1/tcp/4001",
		"/ip4/192.0.2.1/tcp/4001/p2p/" + bob + "/p2p-circuit",
		"/ip4/192.0.2.1/tcp/4001/p2p/nobody",
		"/p2p/161g3c", // an identity multihash of no key, which multiaddr takes
	} {
		_, err := ParseAddrInfo(s)
		wantErr(t, s, err, ErrAddr)
	}
}

func TestAddrInfos(t *testing.T) {
	var addrs []ma.Multiaddr
	for _, s := range []string{
		"/ip4/192.0.2.2/tcp/2/p2p/" + bob,
		"/ip4/192.0.2.1/tcp/1/p2p/" + alice,
		"/p2p/" + bob,
		"/ip4/192.0.2.2/udp/2/quic-v1/p2p/" + bob,
	} {
		addrs = append(addrs, mustAddr(t, s))
	}
	infos, err := AddrInfos(addrs...)
	if err != nil || len(infos) != 2 {
		t.Fatalf("got %v, %v", infos, err)
	}
	for i, want := range []string{
		bob + " at /ip4/192.0.2.2/tcp/2, /ip4/192.0.2.2/udp/2/quic-v1",
		alice + " at /ip4/192.0.2.1/tcp/1",
	} {
		if got := infos[i].String(); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
	_, err = AddrInfos(addrs[0], mustAddr(t, "/ip4/192.0.2.1/tcp/1"))
	wantErr(t, "one without a peer", err, ErrAddr)
	_, err = AddrInfos(nil)
	wantErr(t, "one without anything", err, ErrAddr)
	if infos, err := AddrInfos(); err != nil || infos != nil {
		t.Errorf("of nothing: %v, %v", infos, err)
	}
}

func TestSplitAddr(t *testing.T) {
	for _, tt := range []struct{ in, addr, id string }{
		{"/ip4/192.0.2.1/tcp/1", "/ip4/192.0.2.1/tcp/1", ""},
		{"/ip4/192.0.2.1/tcp/1/p2p/" + alice, "/ip4/192.0.2.1/tcp/1", alice},
		{"/p2p/" + alice, "", alice},
		{"/p2p/" + alice + "/p2p-circuit", "/p2p/" + alice + "/p2p-circuit", ""},
	} {
		addr, id := SplitAddr(mustAddr(t, tt.in))
		if addr.String() != tt.addr || id.String() != tt.id {
			t.Errorf("%s: got %q and %q", tt.in, addr, id)
		}
	}
	if addr, id := SplitAddr(nil); addr != nil || id != "" {
		t.Errorf("of nothing: %v, %v", addr, id)
	}
	// The part that is returned shares no room with what it is part of.
	in := mustAddr(t, "/ip4/192.0.2.1/tcp/1/p2p/"+alice)
	addr, _ := SplitAddr(in)
	_ = append(addr, mustAddr(t, "/ws")...)
	if !strings.HasSuffix(in.String(), alice) {
		t.Error("appending changed the input")
	}
}

func TestFull(t *testing.T) {
	a := mustAddr(t, "/ip4/192.0.2.1/tcp/1/ws")[:2] // with room behind it
	id, err := Parse(alice)
	if err != nil {
		t.Fatal(err)
	}
	full := AddrInfo{ID: id, Addrs: []ma.Multiaddr{a, mustAddr(t, "/ip6/::1/tcp/2")}}.Full()
	if len(full) != 2 || full[0].String() != "/ip4/192.0.2.1/tcp/1/p2p/"+alice || full[1].String() != "/ip6/::1/tcp/2/p2p/"+alice {
		t.Errorf("got %v", full)
	}
	if a[:3].String() != "/ip4/192.0.2.1/tcp/1/ws" {
		t.Error("wrote behind an address")
	}
	if full := (AddrInfo{}).Full(); full != nil {
		t.Errorf("of nobody: %v", full)
	}
}

func TestAddrInfoJSON(t *testing.T) {
	in, err := ParseAddrInfo("/ip4/192.0.2.1/tcp/4001/p2p/" + alice)
	if err != nil {
		t.Fatal(err)
	}
	b, err := json.Marshal(in)
	if want := `{"ID":"` + alice + `","Addrs":["/ip4/192.0.2.1/tcp/4001"]}`; err != nil || string(b) != want {
		t.Errorf("got %s, %v, want %s", b, err, want)
	}
	var out AddrInfo
	if err := json.Unmarshal(b, &out); err != nil || out.String() != in.String() {
		t.Errorf("got %s, %v", out, err)
	}
}

func TestSplitAddrAllocs(t *testing.T) {
	a := mustAddr(t, "/ip4/192.0.2.1/tcp/1/p2p/"+alice)
	if n := testing.AllocsPerRun(100, func() { SplitAddr(a) }); n > 2 {
		t.Errorf("%v allocations", n)
	}
	a = a[:2]
	if n := testing.AllocsPerRun(100, func() { SplitAddr(a) }); n > 0 {
		t.Errorf("%v allocations without a peer", n)
	}
}

func FuzzParseAddrInfo(f *testing.F) {
	f.Add("/ip4/192.0.2.1/tcp/4001/p2p/" + alice)
	f.Add("/p2p/" + bob)
	f.Add("/p2p/161g3c")
	f.Fuzz(func(t *testing.T, s string) {
		info, err := ParseAddrInfo(s)
		if err != nil {
			wantErr(t, "parse", err, ErrAddr)
			return
		}
		if err := info.ID.Validate(); err != nil {
			t.Error(err)
		}
		full := info.Full()
		if len(full) != 1 {
			t.Fatalf("%q became %v", s, full)
		}
		again, err := AddrInfos(full...)
		if err != nil || len(again) != 1 || again[0].String() != info.String() {
			t.Errorf("%q became %v, %v", s, again, err)
		}
	})
}
