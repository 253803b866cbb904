package peer

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/multiformats/go-multibase"
)

func TestIDVectors(t *testing.T) {
	for _, kt := range keyTypes {
		v := readVector(t, kt.name)
		id, err := FromBytes(v.bytes(t, "id"))
		if err != nil {
			t.Fatal(err)
		}
		if got, want := id.String(), v.text("base58"); got != want {
			t.Errorf("%s: got %s, want %s", kt.name, got, want)
		}
		if got, want := id.CID(), v.text("cid"); got != want {
			t.Errorf("%s: got %s, want %s", kt.name, got, want)
		}
		for _, s := range []string{v.text("base58"), v.text("cid")} {
			if got, err := Parse(s); got != id || err != nil {
				t.Errorf("%s: Parse(%q) is %s, %v", kt.name, s, got, err)
			}
		}
	}
}

// The examples of the spec.
// https://github.com/libp2p/specs/blob/master/peer-ids/peer-ids.md#decoding
func TestParseExamples(t *testing.T) {
	for _, s := range []string{
		"bafzbeie5745rpv2m6tjyuugywy4d5ewrqgqqhfnf445he3omzpjbx5xqxe",
		"QmYyQSo1c1Ym7orWxLYvCrM2EmxFTANf8wXmmE7DWjhx5N",
		"12D3KooWD3eckifWpRn9wQpMG9R9hX3sD158z7EqHWmweQAJU5SA",
	} {
		id, err := Parse(s)
		if err != nil {
			t.Errorf("%s: %v", s, err)
		}
		if id.String() != s && id.CID() != s {
			t.Errorf("%s came back as %s and %s", s, id, id.CID())
		}
	}
}

const cidHead = "\x01\x72" // CIDv1, libp2p-key

// "It starts with a multibase prefix": any of them.
func TestParseMultibases(t *testing.T) {
	for _, kt := range keyTypes {
		id := testKey(t, kt.name).ID()
		for base, name := range multibase.EncodingToStr {
			s, err := multibase.Encode(base, []byte(cidHead+string(id)))
			if err != nil {
				t.Fatal(err)
			}
			if len(s) > maxText {
				t.Errorf("%s takes %d bytes, more than the bound", name, len(s))
			}
			if got, err := Parse(s); got != id || err != nil {
				t.Errorf("%s in %s: got %s, %v", kt.name, name, got, err)
			}
		}
	}
}

func TestParseBad(t *testing.T) {
	id := testKey(t, "ed25519").ID()
	cid := func(b string) string {
		s, _ := multibase.Encode(multibase.Base32, []byte(b))
		return s
	}
	for name, s := range map[string]string{
		"empty":                  "",
		"base58 of nothing":      "1",
		"base58 cut off":         id.String()[:40],
		"base58 and more":        id.String() + "1",
		"not of the alphabet":    "Qm0OIl",
		"not ASCII":              "Qmé",
		"bare sha1":              "5dtZ6dqJyAoYUQ9Ltdi5S1JmB4Cq",
		"unknown multibase":      "?abc",
		"multibase of nothing":   "b",
		"bad base 32":            "b0189",
		"no CID":                 cid("\x01"),
		"CID of another codec":   cid("\x01\x70" + string(id)),
		"CIDv2":                  cid("\x02\x72" + string(id)),
		"CIDv0":                  cid(string(testKey(t, "rsa").ID())),
		"CID without a hash":     cid("\x01\x72"),
		"CID of sha2-512":        cid("\x01\x72\x13\x40" + strings.Repeat("a", 64)),
		"too long":               "1" + strings.Repeat("1", maxText),
		"spaces around":          " " + id.String(),
		"an address, not a peer": "/p2p/" + id.String(),
	} {
		_, err := Parse(s)
		wantErr(t, name, err, ErrID)
	}
}

func TestBadIDs(t *testing.T) {
	for _, l := range readLines(t, "bad-ids.txt", " ") {
		b := unhex(t, l[1])
		_, err := FromBytes(b)
		wantErr(t, l[0], err, ErrID)
		wantErr(t, l[0]+", Validate", ID(b).Validate(), ErrID)
		_, err = ID(b).Key()
		wantErr(t, l[0]+", Key", err, ErrID)
		_ = ID(b).String() // prints whatever it is
	}
}

func TestIDKey(t *testing.T) {
	for _, kt := range keyTypes {
		k := testKey(t, kt.name)
		got, err := k.ID().Key()
		if kt.typ == Ed25519 || kt.typ == Secp256k1 {
			if err != nil || !got.Equal(k.Public()) {
				t.Errorf("%s: got %s, %v", kt.name, got, err)
			}
		} else {
			wantErr(t, kt.name, err, ErrNoKey)
		}
	}
	// Well-formed, but x is on no point of the curve.
	id := ID(inlineSecp256k1 + "\x02" + strings.Repeat("\xff", 32))
	_, err := id.Key()
	wantErr(t, "no point", err, ErrKey)
}

// An Ed25519 key has one ID, the one that holds it, not the hash that go-ipfs used
// before keys were inlined.
func TestMatchesOneForm(t *testing.T) {
	k := testKey(t, "ed25519").Public()
	sum := sha256.Sum256(k.Bytes())
	old, err := FromBytes(append([]byte(hashed), sum[:]...))
	if err != nil {
		t.Fatal(err)
	}
	if old.Matches(k) || ID("").Matches(k) || ID(k.Bytes()).Matches(k) {
		t.Error("matches another form")
	}
}

func TestIDShort(t *testing.T) {
	id := testKey(t, "ed25519").ID()
	if got := id.Short(); got != id.String()[len(id.String())-8:] || len(got) != 8 {
		t.Error(got)
	}
	if ID("").Short() != "" || ID("a").Short() == "" {
		t.Error("short of the short")
	}
	var out bytes.Buffer
	slog.New(slog.NewTextHandler(&out, nil)).Info("m", "peer", id)
	if !strings.Contains(out.String(), "peer="+id.Short()) {
		t.Error(out.String())
	}
}

func TestIDJSON(t *testing.T) {
	type doc struct {
		Peer  ID
		Empty ID
	}
	id := testKey(t, "rsa").ID()
	b, err := json.Marshal(doc{Peer: id})
	if err != nil {
		t.Fatal(err)
	}
	if want := fmt.Sprintf(`{"Peer":"%s","Empty":""}`, id); string(b) != want {
		t.Errorf("got %s, want %s", b, want)
	}
	got := doc{Empty: "x"}
	if err := json.Unmarshal(b, &got); err != nil || got.Peer != id || got.Empty != "" {
		t.Errorf("got %+v, %v", got, err)
	}
	wantErr(t, "bad text", json.Unmarshal([]byte(`{"Peer":"nobody"}`), &got), ErrID)
}

func TestIDAllocs(t *testing.T) {
	id := testKey(t, "ed25519").ID()
	other := ID(strings.Clone(string(id)))
	b, text, cid := []byte(id), id.String(), id.CID()
	m := map[ID]int{id: 1}
	for _, tt := range []struct {
		name string
		max  float64
		f    func()
	}{
		{"==", 0, func() { _ = id == other }},
		{"map", 0, func() { _ = m[other] }},
		{"Validate", 0, func() { id.Validate() }},
		{"FromBytes", 1, func() { FromBytes(b) }},
		{"Parse", 4, func() { Parse(text) }},
		{"Parse CID", 4, func() { Parse(cid) }},
		{"Key", 3, func() { id.Key() }},
		{"String", 2, func() { _ = id.String() }},
		{"CID", 4, func() { id.CID() }},
	} {
		if n := testing.AllocsPerRun(100, tt.f); n > tt.max {
			t.Errorf("%s: %v allocations, at most %v", tt.name, n, tt.max)
		} else {
			t.Logf("%s: %v allocations", tt.name, n)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, kt := range keyTypes {
		v := readVector(f, kt.name)
		f.Add(v.text("base58"))
		f.Add(v.text("cid"))
	}
	f.Add("k51qzi5uqu5dlvj2baxnqndepeb86cbk3ng7n3i46uzyxzyqj2xjonzllnv0v8")
	f.Fuzz(func(t *testing.T, s string) {
		id, err := Parse(s)
		if err != nil {
			wantErr(t, "parse", err, ErrID)
			return
		}
		for _, s := range []string{id.String(), id.CID()} {
			if back, err := Parse(s); back != id || err != nil {
				t.Errorf("%q: got %x, %v, want %x", s, string(back), err, string(id))
			}
		}
	})
}

func FuzzFromBytes(f *testing.F) {
	for _, kt := range keyTypes {
		f.Add(readVector(f, kt.name).bytes(f, "id"))
	}
	for _, l := range readLines(f, "bad-ids.txt", " ") {
		f.Add(unhex(f, l[1]))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		id, err := FromBytes(b)
		if err != nil {
			wantErr(t, "FromBytes", err, ErrID)
			return
		}
		if string(id) != string(b) {
			t.Errorf("%x became %x", b, string(id))
		}
		// What holds a key holds the one that it is the ID of.
		if k, err := id.Key(); err == nil && (k.ID() != id || !id.Matches(k)) {
			t.Errorf("%x holds the key of %x", b, string(k.ID()))
		}
	})
}

func BenchmarkID(b *testing.B) {
	key := testKey(b, "ed25519")
	pub, id := key.Public(), key.ID()
	enc, text, cid := []byte(id), id.String(), id.CID()
	for _, bb := range []struct {
		name string
		f    func()
	}{
		{"String", func() { _ = id.String() }},
		{"CID", func() { id.CID() }},
		{"Parse", func() { Parse(text) }},
		{"ParseCID", func() { Parse(cid) }},
		{"FromBytes", func() { FromBytes(enc) }},
		{"Key", func() { id.Key() }},
		{"OfKey", func() { pub.ID() }},
		{"Matches", func() { id.Matches(pub) }},
	} {
		b.Run(bb.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				bb.f()
			}
		})
	}
}
