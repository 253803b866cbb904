package ipns

import (
	"bytes"
	"encoding/hex"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/plexus-p2p/plexus/internal/pb"
	"github.com/plexus-p2p/plexus/peer"
	"github.com/plexus-p2p/plexus/routing"
)

var start = time.Date(2026, 11, 28, 12, 0, 0, 0, time.UTC)

func keyOf(t testing.TB, typ peer.KeyType) peer.PrivKey {
	t.Helper()
	k, err := peer.GenerateKey(typ)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func seal(t testing.TB, k peer.PrivKey, r Record) []byte {
	t.Helper()
	b, err := Seal(k, r)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestRecord(t *testing.T) {
	want := Record{Value: "/ipfs/bafkqaaa", Sequence: 7, Until: start.Add(time.Hour), TTL: 5 * time.Minute}
	for _, typ := range []peer.KeyType{peer.Ed25519, peer.RSA, peer.Secp256k1, peer.ECDSA} {
		k, other := keyOf(t, typ), keyOf(t, peer.Ed25519)
		b := seal(t, k, want)
		got, err := Open(k.ID(), b, start)
		if err != nil || got != want {
			t.Errorf("%v: %+v, %v", typ, got, err)
		}
		if _, err := (Validator{}).Validate(Key(k.ID()), b, start); err != nil {
			t.Errorf("%v: %v", typ, err)
		}
		if _, err := Open(other.ID(), b, start); !errors.Is(err, routing.ErrInvalid) {
			t.Errorf("%v, under another name: %v", typ, err)
		}
		if _, err := Open(k.ID(), b, want.Until.Add(1)); !errors.Is(err, routing.ErrExpired) || errors.Is(err, routing.ErrInvalid) {
			t.Errorf("%v, when it has ended: %v", typ, err)
		}
		for i := range b {
			forged := bytes.Clone(b)
			forged[i] ^= 1
			// A bit of a field number may make it a field that nobody knows.
			if r, err := Open(k.ID(), forged, start); err == nil && r != want {
				t.Fatalf("%v, byte %d: %+v", typ, i, r)
			}
		}
	}
}

// legacy is a record with the fields of version 1 in front.
func legacy(b []byte, value, validity string, seq, ttl uint64) []byte {
	var v1 []byte
	v1 = pb.AppendBytes(v1, 1, value)
	v1 = pb.AppendBytes(v1, 2, "sig")
	v1 = pb.AppendUvarint(v1, 3, 0)
	v1 = pb.AppendBytes(v1, 4, validity)
	v1 = pb.AppendUvarint(v1, 5, seq)
	v1 = pb.AppendUvarint(v1, 6, ttl)
	return append(v1, b...)
}

// "If IpnsEntry.signatureV1 or IpnsEntry.value is present, confirm the values in
// IpnsEntry protobuf match deserialized ones from IpnsEntry.data".
// https://specs.ipfs.tech/ipns/ipns-record/#record-verification
func TestLegacy(t *testing.T) {
	k := keyOf(t, peer.Ed25519)
	b := seal(t, k, Record{Value: "/ipfs/x", Sequence: 3, Until: start, TTL: 9})
	const until = "2026-11-28T12:00:00Z"
	for name, tt := range map[string]struct {
		b  []byte
		ok bool
	}{
		"the same":         {legacy(b, "/ipfs/x", until, 3, 9), true},
		"another value":    {legacy(b, "/ipfs/y", until, 3, 9), false},
		"another validity": {legacy(b, "/ipfs/x", "2026-11-28T12:00:01Z", 3, 9), false},
		"another sequence": {legacy(b, "/ipfs/x", until, 4, 9), false},
		"another TTL":      {legacy(b, "/ipfs/x", until, 3, 8), false},
		"no data":          {pb.AppendBytes(nil, 8, "sig"), false},
		"no signature":     {pb.AppendBytes(nil, 9, "\xa0"), false},
		"too large":        {append(bytes.Clone(b), pb.AppendBytes(nil, 100, strings.Repeat("x", MaxRecord))...), false},
		"nothing":          {nil, false},
	} {
		if _, err := Open(k.ID(), tt.b, start); (err == nil) != tt.ok {
			t.Errorf("%s: %v", name, err)
		} else if err != nil && !errors.Is(err, routing.ErrInvalid) {
			t.Errorf("%s: %v is no ErrInvalid", name, err)
		}
	}
	if _, err := Seal(k, Record{Value: strings.Repeat("x", MaxRecord)}); !errors.Is(err, routing.ErrInvalid) {
		t.Errorf("a value too large: %v", err)
	}
}

func TestCompare(t *testing.T) {
	k := keyOf(t, peer.Ed25519)
	r := Record{Value: "/ipfs/x", Sequence: 3, Until: start}
	v, base := Validator{}, seal(t, k, r)
	later, newer := r, r
	later.Until = start.Add(1)
	newer.Sequence, newer.Until = 4, start.Add(-time.Hour)
	other := r
	other.Value = "/ipfs/y"
	for name, better := range map[string][]byte{"later": seal(t, k, later), "newer": seal(t, k, newer)} {
		if v.Compare("", better, base) <= 0 || v.Compare("", base, better) >= 0 {
			t.Errorf("%s is not better", name)
		}
	}
	twin := seal(t, k, other)
	if c := v.Compare("", base, twin); c == 0 || c != -v.Compare("", twin, base) || v.Compare("", base, base) != 0 {
		t.Errorf("two that are as good: %d", c)
	}
	if v.Compare("", base, []byte("rubbish")) <= 0 || v.Compare("", []byte("rubbish"), base) >= 0 {
		t.Error("rubbish is better")
	}
}

func TestKeys(t *testing.T) {
	b := seal(t, keyOf(t, peer.Ed25519), Record{Until: start})
	for key, want := range map[string]error{"/pk/x": routing.ErrNamespace, "/ipns/x": routing.ErrInvalid, "/ipns/": routing.ErrInvalid, "": routing.ErrNamespace} {
		if _, err := (Validator{}).Validate(key, b, start); !errors.Is(err, want) {
			t.Errorf("%q: %v", key, err)
		}
	}
	k := keyOf(t, peer.Ed25519)
	if until, err := (Validator{}).Validate(Key(k.ID()), seal(t, k, Record{Until: start}), start); err != nil || !until.Equal(start) {
		t.Errorf("until %v, %v; want %v", until, err, start)
	}
}

// The encoding: protobuf around DAG-CBOR, whose keys are sorted by length.
func TestEncoding(t *testing.T) {
	k := keyOf(t, peer.Ed25519)
	b := seal(t, k, Record{Value: "/ipfs/x", Sequence: 3, Until: start, TTL: 9})
	const data = "a5" + "6354544c" + "09" + // TTL
		"6556616c7565" + "47" + "2f697066732f78" + // Value
		"6853657175656e6365" + "03" + // Sequence
		"6856616c6964697479" + "54" + "323032362d31312d32385431323a30303a30305a" + // Validity
		"6c56616c696469747954797065" + "00" // ValidityType
	if got := hex.EncodeToString(b[2+64:]); got != "4a4a"+data {
		t.Errorf("got %s", got)
	}
}

func FuzzOpen(f *testing.F) {
	k := keyOf(f, peer.Ed25519)
	b := seal(f, k, Record{Value: "/ipfs/x", Sequence: 3, Until: start, TTL: 9})
	f.Add(b)
	f.Add(legacy(b, "/ipfs/x", "2026-11-28T12:00:00Z", 3, 9))
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := Open(k.ID(), b, start)
		if err == nil && (r.Value != "/ipfs/x" || r.Sequence != 3) {
			t.Errorf("forged: %+v", r)
		}
		if v := (Validator{}); v.Compare("", b, b) != 0 {
			t.Error("it is better than itself")
		}
	})
}
