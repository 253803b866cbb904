package pubsub

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/plexus-p2p/plexus/internal/pb"
	"github.com/plexus-p2p/plexus/peer"
)

// everything is an RPC with all that there is.
func everything() *RPC {
	return &RPC{
		Subs: []SubOpts{
			{Topic: "a", Subscribe: true},
			{Topic: "b"},
			{Topic: "c", Subscribe: true, RequestsPartial: true, SupportsPartial: true},
			{Topic: "d", Subscribe: true, SupportsPartial: true},
		},
		Messages: [][]byte{NewMessage("a", []byte("one")).Append(nil), NewMessage("b", nil).Append(nil)},
		Control: Control{
			IHave:     []IHave{{Topic: "a", IDs: [][]byte{[]byte("\xff\x00"), []byte("id")}}},
			IWant:     [][]byte{[]byte("x"), []byte("y")},
			Graft:     []string{"a", "b"},
			Prune:     []Prune{{Topic: "c", Backoff: time.Minute, Peers: []PX{{ID: "p", Record: []byte("r")}, {ID: "q"}}}, {Topic: "d"}},
			IDontWant: [][]byte{[]byte("z")},
			Extensions: &Extensions{
				Partial: true, Test: true,
			},
		},
		Partial: &Partial{Topic: "c", Group: []byte("g"), Message: []byte("m"), Metadata: []byte{}},
		Test:    true,
	}
}

func TestRPC(t *testing.T) {
	want := everything()
	var got RPC
	if err := got.Parse(want.Append(nil)); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(&got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
	// "Peers MUST ignore unknown extensions."
	// https://github.com/libp2p/specs/blob/master/pubsub/gossipsub/gossipsub-v1.3.md
	got = RPC{}
	if err := got.Parse([]byte("\x1a\x09\x32\x07\x50\x01\xf8\xff\xff\x01\x01")); err != nil || got.Control.Extensions == nil || !got.Control.Extensions.Partial {
		t.Errorf("an unknown extension: %+v, %v", got.Control, err)
	}
	var zero RPC
	if b := zero.Append(nil); len(b) != 0 || zero.Parse(nil) != nil {
		t.Errorf("the zero RPC is %x", b)
	}
}

// The encodings of the specs' definitions, written by hand.
func TestVectors(t *testing.T) {
	for _, v := range []struct {
		name, hex string
		rpc       RPC
	}{
		{"subscribe", "0a05 0801 120161", RPC{Subs: []SubOpts{{Topic: "a", Subscribe: true}}}},
		{"unsubscribe", "0a05 0800 120161", RPC{Subs: []SubOpts{{Topic: "a"}}}},
		{"requests partial", "0a09 0801 120161 1801 2001", RPC{Subs: []SubOpts{{Topic: "a", Subscribe: true, RequestsPartial: true, SupportsPartial: true}}}},
		{"ihave", "1a08 0a06 0a0161 120178", RPC{Control: Control{IHave: []IHave{{Topic: "a", IDs: [][]byte{{'x'}}}}}}},
		{"iwant", "1a05 1203 0a0178", RPC{Control: Control{IWant: [][]byte{{'x'}}}}},
		{"graft", "1a05 1a03 0a0161", RPC{Control: Control{Graft: []string{"a"}}}},
		{"prune", "1a0c 220a 0a0161 1203 0a0170 183c", RPC{Control: Control{Prune: []Prune{{Topic: "a", Backoff: time.Minute, Peers: []PX{{ID: "p"}}}}}}},
		{"idontwant", "1a05 2a03 0a0178", RPC{Control: Control{IDontWant: [][]byte{{'x'}}}}},
		{"extensions", "1a09 3207 5001 9091e21801", RPC{Control: Control{Extensions: &Extensions{Partial: true, Test: true}}}},
		{"partial", "5209 0a0161 120167 1a016d", RPC{Partial: &Partial{Topic: "a", Group: []byte("g"), Message: []byte("m")}}},
		{"test extension", "9291e21800", RPC{Test: true}},
	} {
		t.Run(v.name, func(t *testing.T) {
			b, err := hex.DecodeString(strings.ReplaceAll(v.hex, " ", ""))
			if err != nil {
				t.Fatal(err)
			}
			if got := v.rpc.Append(nil); !bytes.Equal(got, b) {
				t.Errorf("encoded %x, want %x", got, b)
			}
			var got RPC
			if err := got.Parse(b); err != nil || !reflect.DeepEqual(got, v.rpc) {
				t.Errorf("parsed %+v, %v, want %+v", got, err, v.rpc)
			}
		})
	}
}

// What one RPC may hold has bounds, each of which is reached.
func TestRPCBounds(t *testing.T) {
	ids := func(n, size int) (l [][]byte) {
		for range n {
			l = append(l, make([]byte, size))
		}
		return l
	}
	var px []PX
	for range maxPX + 5 {
		px = append(px, PX{ID: "p"})
	}
	name := strings.Repeat("n", maxTopic)
	for _, tt := range []struct {
		name string
		rpc  RPC
		bad  bool
	}{
		{"as many IDs as may be", RPC{Control: Control{IWant: ids(maxItems-2, 1)}}, false},
		{"too many IDs", RPC{Control: Control{IWant: ids(maxItems-1, 1)}}, true},
		{"too many IDs in IHAVE", RPC{Control: Control{IHave: []IHave{{IDs: ids(maxItems, 0)}}}}, true},
		{"too many IDs in IDONTWANT", RPC{Control: Control{IDontWant: ids(maxItems, 0)}}, true},
		{"too many subscriptions", RPC{Subs: make([]SubOpts, maxItems+1)}, true},
		{"too many messages", RPC{Messages: make([][]byte, maxItems+1)}, true},
		{"too many grafts", RPC{Control: Control{Graft: make([]string, maxItems)}}, true},
		{"the longest topic", RPC{Control: Control{Graft: []string{name}}}, false},
		{"graft of a topic too long", RPC{Control: Control{Graft: []string{name + "n"}}}, true},
		{"prune of a topic too long", RPC{Control: Control{Prune: []Prune{{Topic: name + "n"}}}}, true},
		{"ihave of a topic too long", RPC{Control: Control{IHave: []IHave{{Topic: name + "n"}}}}, true},
		{"subscription to a topic too long", RPC{Subs: []SubOpts{{Topic: name + "n"}}}, true},
		{"part of a topic too long", RPC{Partial: &Partial{Topic: name + "n"}}, true},
	} {
		err := new(RPC).Parse(tt.rpc.Append(nil))
		if tt.bad != (err != nil) || tt.bad && !errors.Is(err, pb.ErrMalformed) {
			t.Errorf("%s: %v", tt.name, err)
		}
	}
	var got RPC
	rpc := RPC{Control: Control{
		IWant: [][]byte{make([]byte, maxID), make([]byte, maxID+1)},
		Prune: []Prune{{Topic: "t", Peers: px, Backoff: 100 * maxBackoff}},
	}}
	if err := got.Parse(rpc.Append(nil)); err != nil {
		t.Fatal(err)
	}
	p := got.Control.Prune[0]
	if len(got.Control.IWant) != 1 || len(p.Peers) != maxPX || p.Backoff != maxBackoff {
		t.Errorf("%d IDs, %d peers, a back-off of %v", len(got.Control.IWant), len(p.Peers), p.Backoff)
	}
}

func FuzzRPC(f *testing.F) {
	f.Add(everything().Append(nil))
	f.Add([]byte{})
	f.Add([]byte{0x1a, 0x00})
	f.Fuzz(func(t *testing.T, b []byte) {
		var r RPC
		if err := r.Parse(b); err != nil {
			if !errors.Is(err, pb.ErrMalformed) {
				t.Fatalf("an error of another kind: %v", err)
			}
			return
		}
		once := r.Append(nil)
		var again RPC
		if err := again.Parse(once); err != nil {
			t.Fatalf("%x, which is what %x means: %v", once, b, err)
		}
		if twice := again.Append(nil); !bytes.Equal(once, twice) {
			t.Errorf("%x means %x means %x", b, once, twice)
		}
		if len(r.Subs)+len(r.Messages)+len(r.Control.Graft)+len(r.Control.IWant) > maxItems {
			t.Error("more than there may be")
		}
	})
}

func TestMessage(t *testing.T) {
	key, err := peer.GenerateKey(peer.Ed25519)
	if err != nil {
		t.Fatal(err)
	}
	m := &Message{Topic: "t", Data: []byte("data"), has: hasData | hasTopic}
	if err := m.sign(key, 7); err != nil {
		t.Fatal(err)
	}
	m.pack()
	// A field that we do not know comes first, and one in the middle.
	odd := append([]byte{0x78, 1}, m.Append(nil)...)
	for _, b := range [][]byte{m.Append(nil), odd} {
		got, err := ParseMessage(b, nil)
		if err != nil {
			t.Fatal(err)
		}
		if got.From != m.From || got.Topic != "t" || string(got.Data) != "data" || !bytes.Equal(got.Seqno, m.Seqno) || !bytes.Equal(got.Signature, m.Signature) {
			t.Errorf("%x is read as %+v", b, got)
		}
		if err := StrictSign.check(got, len(got.From)); err != nil {
			t.Error(err)
		}
		k, err := got.authorKey()
		if err != nil {
			t.Fatal(err)
		}
		if err := k.Verify(got.appendSigned(nil), got.Signature); (err == nil) != (len(got.extra) == 0) {
			t.Errorf("with %d bytes of unknown fields: %v", len(got.extra), err)
		}
	}
	for _, bad := range []string{
		"1201",      // cut off
		"1200 1200", // data twice
		"1001",      // data is a number
		"22" + "8120" + strings.Repeat("61", maxTopic+1),
	} {
		b, err := hex.DecodeString(strings.ReplaceAll(bad, " ", ""))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := ParseMessage(b, nil); !errors.Is(err, pb.ErrMalformed) {
			t.Errorf("%.20s: %v", bad, err)
		}
	}
}

// "Enforce the fields to be present, reject otherwise"; "Enforce the fields to be absent,
// reject otherwise."
// https://github.com/libp2p/specs/blob/master/pubsub/README.md#signature-policy-options
func TestPolicies(t *testing.T) {
	fields := []uint8{hasFrom, hasSeqno, hasSignature, hasKey}
	for set := range 1 << len(fields) {
		m := &Message{}
		from := 0
		for i, f := range fields {
			if set&(1<<i) == 0 {
				continue
			}
			m.has |= f
			switch f {
			case hasFrom:
				from = 38
			case hasSeqno:
				m.Seqno = make([]byte, 8)
			case hasSignature:
				m.Signature = []byte{1}
			}
		}
		if err := StrictSign.check(m, from); (err == nil) != (set&7 == 7) {
			t.Errorf("StrictSign, fields %04b: %v", set, err)
		}
		if err := StrictNoSign.check(m, from); (err == nil) != (set == 0) {
			t.Errorf("StrictNoSign, fields %04b: %v", set, err)
		}
	}
	m := &Message{has: hasFrom | hasSeqno | hasSignature, Seqno: make([]byte, 9), Signature: []byte{1}}
	if err := StrictSign.check(m, 38); !errors.Is(err, ErrUnsigned) {
		t.Errorf("a sequence number of 9 bytes: %v", err)
	}
	m.Seqno = m.Seqno[:7] // by js-libp2p's floodsub, once in 256 messages
	if err := StrictSign.check(m, 38); err != nil {
		t.Errorf("a sequence number of 7 bytes: %v", err)
	}
}

func FuzzMessage(f *testing.F) {
	f.Add(NewMessage("topic", []byte("data")).Append(nil))
	f.Add([]byte("\x0a\x01f\x12\x01d\x1a\x08seqnooooo\x22\x01t\x2a\x01s\x32\x01k\x3a\x01x"))
	f.Add([]byte("\x78\x01\x22\x01t"))
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := ParseMessage(b, nil)
		if err != nil {
			if !errors.Is(err, pb.ErrMalformed) {
				t.Fatalf("an error of another kind: %v", err)
			}
			return
		}
		if got := m.Append(nil); !bytes.Equal(got, m.raw) {
			t.Fatalf("%x is sent as %x and encoded as %x", b, m.raw, got)
		}
		again, err := ParseMessage(m.raw, m.frame)
		if err != nil || !bytes.Equal(again.raw, m.raw) || again.From != m.From || again.Topic != m.Topic || !bytes.Equal(again.appendSigned(nil), m.appendSigned(nil)) {
			t.Fatalf("%x, which is what %x means: %+v, %v", m.raw, b, again, err)
		}
		var rpc RPC
		size := len(m.frame) - fieldSize(len(m.raw))
		if err := rpc.Parse(m.frame[size:]); err != nil || len(rpc.Messages) != 1 || !bytes.Equal(rpc.Messages[0], m.raw) {
			t.Fatalf("the frame %x: %v", m.frame, err)
		}
	})
}

func BenchmarkParse(b *testing.B) {
	for _, size := range []int{100, 1000} {
		raw := NewMessage("topic", make([]byte, size)).Append(nil)
		frame := (&RPC{Messages: [][]byte{raw}}).Append(nil)
		b.Run(fmt.Sprintf("%d bytes", size), func(b *testing.B) {
			b.ReportAllocs()
			var r RPC
			for b.Loop() {
				r = RPC{Messages: r.Messages[:0]}
				if r.Parse(frame) != nil {
					b.Fatal()
				}
			}
		})
	}
}
