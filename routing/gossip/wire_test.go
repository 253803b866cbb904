package gossip

import (
	"bytes"
	"encoding/hex"
	"errors"
	"reflect"
	"strings"
	"testing"
	"testing/synctest"

	ma "github.com/multiformats/go-multiaddr"

	"github.com/plexus-p2p/plexus/internal/pb"
	"github.com/plexus-p2p/plexus/peer"
	"github.com/plexus-p2p/plexus/routing/routingtest"
)

func newKey(t testing.TB) peer.PrivKey {
	t.Helper()
	k, err := peer.GenerateKey(peer.Ed25519)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func TestBeacon(t *testing.T) {
	k := newKey(t)
	addrs := []ma.Multiaddr{ma.StringCast("/ip4/192.0.2.7/tcp/4001"), ma.StringCast("/ip4/192.0.2.7/tcp/4001/p2p/" + k.ID().String())}
	b := beacon{key: k.Public(), addrs: addrs}.append(nil)
	// By hand from the protobuf: the key as identify has it, then the addresses.
	want := "0a24" + "08011220" + hex.EncodeToString(k.Public().Raw()) + "1208" + "04c0000207060fa1" + "1231" + "04c0000207060fa1" + "a50326" + hex.EncodeToString([]byte(k.ID()))
	if got := hex.EncodeToString(b); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	got, err := parseBeacon(b)
	if err != nil {
		t.Fatal(err)
	}
	if i := got.info(); i.ID != k.ID() || len(i.Addrs) != 2 || !i.Addrs[1].Equal(addrs[0]) {
		t.Errorf("got %v", i)
	}
	// What cannot be read, names another, or is too much, is left out.
	odd := beacon{key: k.Public(), addrs: []ma.Multiaddr{ma.StringCast("/ip4/192.0.2.7/tcp/1/p2p/" + newKey(t).ID().String())}}.append(nil)
	odd = pb.AppendBytes(odd, 2, "\xff\xff")
	odd = pb.AppendBytes(odd, 2, "")
	if got, err = parseBeacon(odd); err != nil || len(got.info().Addrs) != 0 {
		t.Errorf("%v, %v", got.info(), err)
	}
	many := beacon{key: k.Public()}.append(nil)
	for range maxAddrs + 10 {
		many = pb.AppendBytes(many, 2, addrs[0].Bytes())
	}
	if got, err = parseBeacon(many); err != nil || len(got.addrs) != maxAddrs {
		t.Errorf("%d addresses, %v", len(got.addrs), err)
	}
	for _, bad := range [][]byte{nil, []byte("rubbish"), pb.AppendBytes(nil, 1, "no key"), append(bytes.Clone(b), make([]byte, maxBeacon)...)} {
		if _, err := parseBeacon(bad); err == nil {
			t.Errorf("%.20x: no error", bad)
		}
	}
}

func TestNotice(t *testing.T) {
	a, b, c := string(routingtest.Sum("a")), string(routingtest.Sum("b")), string(routingtest.Sum("c"))
	want := notice{want: []string{a}, have: []string{b, c}, gone: []string{c}, record: []byte("record"), seq: 7, expires: 9}
	var got notice
	if err := got.parse(want.append(nil)); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%v, %v", got, err)
	}
	if s := hex.EncodeToString((&notice{want: []string{a}, seq: 1}).append(nil)); s != "0a22"+hex.EncodeToString([]byte(a))+"2801" {
		t.Errorf("got %s", s)
	}
	many := func(n *notice, list *[]string, count int) []byte {
		for range count {
			*list = append(*list, a)
		}
		return n.append(nil)
	}
	var n1, n2, n3, n4 notice
	for name, tt := range map[string]struct {
		b    []byte
		want error
	}{
		"too many questions":      {many(&n1, &n1.want, maxWant+1), errTooMany},
		"too many answers":        {many(&n2, &n2.have, maxHave+1), errTooMany},
		"too many withdrawals":    {many(&n3, &n3.gone, maxHave+1), errTooMany},
		"as many as there may be": {many(&n4, &n4.have, maxHave), nil},
		"no multihash":            {pb.AppendBytes(nil, 1, "x"), errKey},
		"an empty key":            {pb.AppendBytes(nil, 2, ""), errKey},
		"a long key":              {pb.AppendBytes(nil, 2, "\x00\xff\x01"+strings.Repeat("x", 255)), errKey},
		"truncated":               {want.append(nil)[:20], pb.ErrMalformed},
	} {
		var n notice
		if err := n.parse(tt.b); !errors.Is(err, tt.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if (&notice{}).parse(make([]byte, maxNotice+1)) == nil {
		t.Error("a notice that is too large")
	}
}

// What a host sends, it takes.
func TestSome(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		set := make(map[string]bool)
		for i := range 1000 {
			set[string(routingtest.Sum(string(rune(i))))] = true
		}
		n := notice{want: some(set, maxWant), have: some(set, noticeKeys), gone: some(set, noticeKeys), record: make([]byte, peer.MaxEnvelopeSize), seq: 1 << 63}
		if len(n.want) != maxWant || len(n.have) != noticeKeys || len(set) != 1000-maxWant-2*noticeKeys {
			t.Errorf("%d, %d, %d left", len(n.want), len(n.have), len(set))
		}
		var got notice
		if err := got.parse(n.append(nil)); err != nil {
			t.Error(err)
		}
	})
}

func TestTable(t *testing.T) {
	gone := ""
	tb := newTable[string, int](4, 3)
	tb.dropped = func(k string) { gone += k }
	for i, k := range []string{"a", "b", "c"} {
		*tb.touch(k, "x") = i
	}
	tb.touch("a", "x")
	tb.touch("d", "x") // x has its share: its oldest, b, goes
	tb.touch("e", "y")
	if gone != "b" || tb.get("b") != nil || *tb.get("a") != 0 || *tb.get("c") != 2 {
		t.Errorf("gone: %q", gone)
	}
	tb.touch("f", "y") // full: c is the oldest
	if gone != "bc" || len(tb.by) != 4 || tb.order.Len() != 4 || tb.sources["x"] != 2 || tb.sources["y"] != 2 {
		t.Errorf("gone: %q, %v", gone, tb.sources)
	}
	order := ""
	tb.each(func(k string, _ *int) bool { order += k; return k != "d" })
	if order != "fed" {
		t.Errorf("order: %q", order)
	}
	one := newTable[string, int](1, 1)
	for _, k := range []string{"a", "b", "a"} {
		*one.touch(k, "x")++
	}
	if *one.get("a") != 1 || len(one.by) != 1 || len(one.sources) != 1 {
		t.Errorf("%v", one)
	}
}

func FuzzBeacon(f *testing.F) {
	k := newKey(f)
	f.Add(beacon{key: k.Public(), addrs: []ma.Multiaddr{ma.StringCast("/ip4/192.0.2.7/tcp/4001")}}.append(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := parseBeacon(b)
		if err != nil {
			return
		}
		again, err := parseBeacon(r.append(nil))
		if err != nil || !again.key.Equal(r.key) || len(again.addrs) != len(r.addrs) {
			t.Errorf("%v became %v, %v", r, again, err)
		}
		r.info()
	})
}

func FuzzNotice(f *testing.F) {
	n := notice{want: []string{string(routingtest.Sum("a"))}, have: []string{string(routingtest.Sum("b"))}, record: []byte("r"), seq: 1, expires: 2}
	f.Add(n.append(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		var n, again notice
		if n.parse(b) != nil {
			return
		}
		if enc := n.append(nil); len(enc) <= maxNotice {
			if err := again.parse(enc); err != nil || again.seq != n.seq || len(again.have) != len(n.have) {
				t.Errorf("%v became %v, %v", n, again, err)
			}
		}
	})
}
