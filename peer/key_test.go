package peer

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"fmt"
	"log/slog"
	"math/big"
	"strings"
	"testing"

	"github.com/decred/dcrd/dcrec/secp256k1/v4"
)

// "Implementations SHOULD check that they can produce the provided public key from
// the private key."
// https://github.com/libp2p/specs/blob/master/peer-ids/peer-ids.md#test-vectors
func TestKeyVectors(t *testing.T) {
	for _, kt := range keyTypes {
		t.Run(kt.name, func(t *testing.T) {
			v := readVector(t, kt.name)
			k, err := ParsePrivKey(v.bytes(t, "private"))
			if err != nil {
				t.Fatal(err)
			}
			pub := k.Public()
			if k.Type() != kt.typ || pub.Type() != kt.typ {
				t.Errorf("types %s and %s, want %s", k.Type(), pub.Type(), kt.typ)
			}
			if got, want := k.Bytes(), v.bytes(t, "private"); !bytes.Equal(got, want) {
				t.Errorf("private key\n got %x\nwant %x", got, want)
			}
			if got, want := pub.Bytes(), v.bytes(t, "public"); !bytes.Equal(got, want) {
				t.Errorf("public key\n got %x\nwant %x", got, want)
			}
			if got, want := string(k.ID()), string(v.bytes(t, "id")); got != want {
				t.Errorf("ID\n got %x\nwant %x", got, want)
			}
			parsed, err := ParsePubKey(v.bytes(t, "public"))
			if err != nil || !parsed.Equal(pub) || parsed.ID() != k.ID() {
				t.Errorf("parsed %s, %v, want %s", parsed, err, pub)
			}
			msg, sig := []byte(v.text("message")), v.bytes(t, "signature")
			if err := parsed.Verify(msg, sig); err != nil {
				t.Errorf("the signature of go-libp2p: %v", err)
			}
			got, err := k.Sign(msg)
			if err != nil {
				t.Fatal(err)
			}
			if kt.typ != ECDSA && !bytes.Equal(got, sig) { // the others are deterministic
				t.Errorf("signature\n got %x\nwant %x", got, sig)
			}
		})
	}
}

func TestGenerateKey(t *testing.T) {
	for _, kt := range keyTypes {
		t.Run(kt.name, func(t *testing.T) {
			k, err := GenerateKey(kt.typ)
			if err != nil {
				t.Fatal(err)
			}
			pub := k.Public()
			if k.IsZero() || pub.IsZero() || k.Type() != kt.typ || k.ID() != pub.ID() || !k.ID().Matches(pub) {
				t.Errorf("inconsistent: %v, %v", k, pub)
			}
			if back, err := ParsePrivKey(k.Bytes()); err != nil || !bytes.Equal(back.Bytes(), k.Bytes()) || !back.Public().Equal(pub) {
				t.Errorf("private key does not survive its encoding: %v", err)
			}
			if back, err := ParsePubKey(pub.Bytes()); err != nil || !back.Equal(pub) {
				t.Errorf("public key does not survive its encoding: %v", err)
			}
			sig, err := k.Sign([]byte("message"))
			if err != nil {
				t.Fatal(err)
			}
			if err := pub.Verify([]byte("message"), sig); err != nil {
				t.Errorf("own signature: %v", err)
			}
			other := testKey(t, kt.name).Public()
			wantErr(t, "another message", pub.Verify([]byte("Message"), sig), ErrSignature)
			wantErr(t, "another key", other.Verify([]byte("message"), sig), ErrSignature)
			wantErr(t, "no signature", pub.Verify([]byte("message"), nil), ErrSignature)
			wantErr(t, "a byte more", pub.Verify([]byte("message"), append(bytes.Clone(sig), 0)), ErrSignature)
			wantErr(t, "a byte less", pub.Verify([]byte("message"), sig[:len(sig)-1]), ErrSignature)
			sig[len(sig)/2] ^= 1
			wantErr(t, "a bit changed", pub.Verify([]byte("message"), sig), ErrSignature)
			if other.Equal(pub) || other.ID() == pub.ID() || other.ID().Matches(pub) {
				t.Error("two keys are one")
			}
		})
	}
	_, err := GenerateKey(4)
	wantErr(t, "unknown type", err, ErrKey)
}

func TestBadKeys(t *testing.T) {
	for _, l := range readLines(t, "bad-keys.txt", " ") {
		b := unhex(t, l[2])
		var err error
		if l[0] == "public" {
			_, err = ParsePubKey(b)
		} else {
			_, err = ParsePrivKey(b)
		}
		wantErr(t, l[0]+" "+l[1], err, ErrKey)
		if err != nil && strings.Count(err.Error(), ErrKey.Error()) != 1 {
			t.Errorf("%s: says it twice: %v", l[1], err)
		}
	}
}

func TestOtherECDSACurves(t *testing.T) {
	for _, c := range []elliptic.Curve{elliptic.P224(), elliptic.P384(), elliptic.P521()} {
		std, err := ecdsa.GenerateKey(c, rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		k, err := NewPrivKey(std)
		if err != nil {
			t.Fatal(err)
		}
		sig, err := k.Sign([]byte("message"))
		if err != nil {
			t.Fatal(err)
		}
		pub, err := ParsePubKey(k.Public().Bytes())
		if err != nil || pub.Verify([]byte("message"), sig) != nil {
			t.Errorf("%s: %v", c.Params().Name, err)
		}
	}
}

// "Older versions of the libp2p code used the following format: [private
// key][public key][public key] (96 bytes)."
// https://github.com/libp2p/specs/blob/master/peer-ids/peer-ids.md#ed25519
func TestLegacyEd25519(t *testing.T) {
	want := testKey(t, "ed25519")
	raw := want.Raw()
	old := append([]byte("\x08\x01\x12\x60"), raw...)
	old = append(old, raw[32:]...)
	got, err := ParsePrivKey(old)
	if err != nil || !bytes.Equal(got.Bytes(), want.Bytes()) {
		t.Errorf("got %v, %v, want %v", got, err, want)
	}
}

func TestParsedKeyKeepsNoInput(t *testing.T) {
	for _, kt := range keyTypes {
		k := testKey(t, kt.name)
		priv, pub := k.Bytes(), k.Public().Bytes()
		p1, err1 := ParsePrivKey(priv)
		p2, err2 := ParsePubKey(pub)
		if err1 != nil || err2 != nil {
			t.Fatal(err1, err2)
		}
		clear(priv)
		clear(pub)
		sig, err := p1.Sign([]byte("message"))
		if err != nil || p2.Verify([]byte("message"), sig) != nil {
			t.Errorf("%s: changed with the bytes that it was parsed from", kt.name)
		}
	}
}

// Bounds against CVE-2023-39533, keys that take minutes to verify with.
func TestRSABounds(t *testing.T) {
	for bits, ok := range map[int]bool{1024: false, minRSA - 1: false, minRSA: true, maxRSA: true, maxRSA + 1: false, 16384: false} {
		n := new(big.Int).Lsh(big.NewInt(1), uint(bits-1))
		n.Add(n, big.NewInt(1))
		k, err := newPKIXKey(RSA, &rsa.PublicKey{N: n, E: 65537})
		if err != nil {
			t.Fatal(err)
		}
		_, err = ParsePubKey(k.Bytes())
		if ok && err != nil {
			t.Errorf("%d bits: %v", bits, err)
		} else if !ok {
			wantErr(t, fmt.Sprint(bits, " bits"), err, ErrKey)
		}
		if bits == maxRSA && len(k.enc) > maxPubKey {
			t.Errorf("the largest key takes %d bytes", len(k.enc))
		}
	}
	weak, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	_, err = NewPrivKey(weak)
	wantErr(t, "private key of 1024 bits", err, ErrKey)
}

func TestKeySizeBounds(t *testing.T) {
	_, err := ParsePubKey(make([]byte, maxPubKey+1))
	wantErr(t, "public key", err, ErrKey)
	_, err = ParsePrivKey(make([]byte, maxPrivKey+1))
	wantErr(t, "private key", err, ErrKey)
}

func TestNewPrivKey(t *testing.T) {
	seed := make([]byte, ed25519.SeedSize)
	a, err := NewPrivKey(ed25519.NewKeyFromSeed(seed))
	if err != nil {
		t.Fatal(err)
	}
	b, _ := NewPrivKey(ed25519.NewKeyFromSeed(seed))
	if a.ID() != b.ID() {
		t.Error("one seed, two keys")
	}
	torn := ed25519.NewKeyFromSeed(seed)
	torn[63] ^= 1
	for what, std := range map[string]any{
		"nil":               nil,
		"a public key":      ed25519.PublicKey(make([]byte, 32)),
		"an empty Ed25519":  ed25519.PrivateKey{},
		"a torn Ed25519":    torn,
		"a zero secp256k1":  &secp256k1.PrivateKey{},
		"secp256k1 as P256": testKey(t, "secp256k1").open().std.(*secp256k1.PrivateKey).ToECDSA(),
	} {
		_, err := NewPrivKey(std)
		wantErr(t, what, err, ErrKey)
	}
}

func TestStd(t *testing.T) {
	for _, kt := range keyTypes {
		std := testKey(t, kt.name).Public().Std()
		ok := false
		switch kt.typ {
		case RSA:
			_, ok = std.(*rsa.PublicKey)
		case Ed25519:
			_, ok = std.(ed25519.PublicKey)
		case Secp256k1:
			_, ok = std.(*secp256k1.PublicKey)
		case ECDSA:
			_, ok = std.(*ecdsa.PublicKey)
		}
		if !ok {
			t.Errorf("%s: got a %T", kt.name, std)
		}
		k, err := newPubKey(std)
		if err != nil || !k.Equal(testKey(t, kt.name).Public()) {
			t.Errorf("%s: another key came back, or %v", kt.name, err)
		}
	}
}

func TestZeroKeys(t *testing.T) {
	var k PrivKey
	var p PubKey
	if !k.IsZero() || !p.IsZero() || k.ID() != "" || p.ID() != "" || !k.Public().IsZero() || p.Std() != nil ||
		k.Bytes() != nil || k.Raw() != nil || len(p.Bytes()) != 0 || p.Raw() != nil {
		t.Error("a zero key is something")
	}
	_, err := k.Sign(nil)
	wantErr(t, "signing", err, ErrKey)
	wantErr(t, "verifying", p.Verify(nil, nil), ErrSignature)
	if ID("").Matches(p) {
		t.Error("the zero key matches the zero ID")
	}
	if k.String() != "no private key" || p.String() != "no public key" {
		t.Errorf("zero keys print as %q and %q", k, p)
	}
}

func TestSecretsAreNotPrinted(t *testing.T) {
	for _, kt := range keyTypes {
		k := testKey(t, kt.name)
		hidden := struct {
			key PrivKey
			ptr *PrivKey
			any any
		}{k, &k, k}
		shown := struct{ Key PrivKey }{k}
		var out bytes.Buffer
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%t"} {
			for _, v := range []any{k, &k, hidden, &hidden, shown, []PrivKey{k}, map[string]PrivKey{"": k}} {
				fmt.Fprintf(&out, verb+"\n", v)
			}
		}
		for _, h := range []slog.Handler{slog.NewTextHandler(&out, nil), slog.NewJSONHandler(&out, nil)} {
			l := slog.New(h)
			l.Info("m", "key", k, "ptr", &k, "hidden", hidden, "shown", shown)
		}
		// A window of the secret, in the forms in which it could appear. The
		// public half of Ed25519 is at the end of the bytes: look at the seed.
		secret := k.Raw()[8:24]
		if kt.typ == RSA {
			secret = k.Raw()[len(k.Raw())-64:][:16]
		}
		for _, form := range []string{string(secret), fmt.Sprintf("%x", secret), fmt.Sprintf("%X", secret), strings.Trim(fmt.Sprint(secret), "[]"), strings.Trim(fmt.Sprintf("%#v", secret), "[]byte{}")} {
			if strings.Contains(out.String(), form) {
				t.Errorf("%s: %q shows", kt.name, form)
			}
		}
		if want := kt.typ.String() + " private key of " + k.ID().String(); !strings.Contains(out.String(), want) {
			t.Errorf("%s: does not say %q", kt.name, want)
		}
	}
}

func TestKeyTypeString(t *testing.T) {
	if got := fmt.Sprint(RSA, Ed25519, Secp256k1, ECDSA, KeyType(9)); got != "RSA Ed25519 Secp256k1 ECDSA KeyType(9)" {
		t.Error(got)
	}
}

func FuzzParsePubKey(f *testing.F) {
	for _, kt := range keyTypes {
		f.Add(testKey(f, kt.name).Public().Bytes())
	}
	for _, l := range readLines(f, "bad-keys.txt", " ") {
		f.Add(unhex(f, l[2]))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		k, err := ParsePubKey(b)
		if err != nil {
			wantErr(t, "parse", err, ErrKey)
			return
		}
		if !bytes.Equal(k.Bytes(), b) {
			t.Errorf("%x became %x", b, k.Bytes())
		}
		id := k.ID()
		if err := id.Validate(); err != nil || !id.Matches(k) {
			t.Errorf("%x has the ID %x: %v", b, string(id), err)
		}
		k.Verify(b, b)
	})
}

func FuzzParsePrivKey(f *testing.F) {
	for _, kt := range keyTypes {
		if kt.typ != RSA { // too slow to be of use
			f.Add(testKey(f, kt.name).Bytes())
		}
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		k, err := ParsePrivKey(b)
		if err != nil {
			wantErr(t, "parse", err, ErrKey)
			return
		}
		back, err := ParsePrivKey(k.Bytes())
		if err != nil || !bytes.Equal(back.Bytes(), k.Bytes()) {
			t.Errorf("%x: %v", k.Bytes(), err)
		}
		sig, err := k.Sign(b)
		if err != nil || k.Public().Verify(b, sig) != nil {
			t.Errorf("cannot sign: %v", err)
		}
	})
}

func FuzzVerify(f *testing.F) {
	var keys []PubKey
	for i, kt := range keyTypes {
		v := readVector(f, kt.name)
		f.Add(i, []byte(v.text("message")+"?"), v.bytes(f, "signature"))
		keys = append(keys, testKey(f, kt.name).Public())
	}
	f.Fuzz(func(t *testing.T, i int, msg, sig []byte) {
		err := keys[uint(i)%uint(len(keys))].Verify(msg, sig)
		if err == nil && string(msg) != "plexus signs this" {
			t.Errorf("a forged signature: %x", sig)
		}
	})
}

func TestKeyAllocs(t *testing.T) {
	k := testKey(t, "ed25519")
	pub, msg := k.Public(), []byte("message")
	enc := pub.Bytes()
	sig, _ := k.Sign(msg)
	id := k.ID()
	rsaKey := testKey(t, "rsa").Public()
	rsaID := rsaKey.ID()
	for _, tt := range []struct {
		name string
		max  float64
		f    func()
	}{
		{"ParsePubKey", 2, func() { ParsePubKey(enc) }},
		{"PubKey.ID", 1, func() { pub.ID() }},
		{"PrivKey.ID", 0, func() { k.ID() }},
		{"PrivKey.Public", 0, func() { k.Public() }},
		{"Sign", 1, func() { k.Sign(msg) }},
		{"Verify", 0, func() { pub.Verify(msg, sig) }},
		{"Matches", 0, func() { id.Matches(pub) }},
		{"Matches a hash", 1, func() { rsaID.Matches(rsaKey) }},
		{"Equal", 0, func() { pub.Equal(rsaKey) }},
	} {
		if n := testing.AllocsPerRun(50, tt.f); n > tt.max {
			t.Errorf("%s: %v allocations, at most %v", tt.name, n, tt.max)
		}
	}
}

func BenchmarkParsePubKey(b *testing.B) {
	for _, kt := range keyTypes {
		enc := testKey(b, kt.name).Public().Bytes()
		b.Run(kt.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				ParsePubKey(enc)
			}
		})
	}
}

func BenchmarkVerify(b *testing.B) {
	for _, kt := range keyTypes {
		v := readVector(b, kt.name)
		k, msg, sig := testKey(b, kt.name).Public(), []byte(v.text("message")), v.bytes(b, "signature")
		b.Run(kt.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if err := k.Verify(msg, sig); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
