package peer

import (
	"bytes"
	"strings"
	"testing"

	"github.com/plexus-p2p/plexus/internal/pb"
)

func TestEnvelopeVectors(t *testing.T) {
	for _, kt := range keyTypes {
		v, k := readVector(t, kt.name), testKey(t, kt.name)
		domain, typ, payload := v.text("domain"), string(v.bytes(t, "type")), v.bytes(t, "payload")
		signer, got, err := OpenEnvelope(v.bytes(t, "envelope"), domain, typ)
		if err != nil || !signer.Equal(k.Public()) || !bytes.Equal(got, payload) {
			t.Errorf("%s: got %s, %q, %v", kt.name, signer, got, err)
		}
		b, err := Seal(k, domain, typ, payload)
		if err != nil {
			t.Fatal(err)
		}
		if want := v.bytes(t, "envelope"); kt.typ != ECDSA && !bytes.Equal(b, want) {
			t.Errorf("%s:\n got %x\nwant %x", kt.name, b, want)
		}
		if _, _, err := OpenEnvelope(b, domain, typ); err != nil {
			t.Errorf("%s: %v", kt.name, err)
		}
	}
}

func TestEnvelopePurpose(t *testing.T) {
	k := testKey(t, "ed25519")
	b, err := Seal(k, "domain", "type", []byte("payload"))
	if err != nil {
		t.Fatal(err)
	}
	// "If the domain string used to validate is different from the one used to
	// sign, the signature validation will fail."
	// https://github.com/libp2p/specs/blob/master/RFC/0002-signed-envelopes.md#domain-separation
	_, _, err = OpenEnvelope(b, "Domain", "type")
	wantErr(t, "another domain", err, ErrSignature)
	_, _, err = OpenEnvelope(b, "", "type")
	wantErr(t, "no domain", err, ErrSignature)
	_, _, err = OpenEnvelope(b, "domain", "Type")
	wantErr(t, "another type", err, ErrEnvelope)

	_, err = Seal(k, "", "type", nil)
	wantErr(t, "sealing without a domain", err, ErrEnvelope)
	_, err = Seal(PrivKey{}, "domain", "type", nil)
	wantErr(t, "sealing without a key", err, ErrKey)

	// "The field may be left empty without invalidating the envelope."
	b, err = Seal(k, "domain", "", nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, p, err := OpenEnvelope(b, "domain", ""); err != nil || len(p) != 0 {
		t.Errorf("empty: got %q, %v", p, err)
	}
}

// Lengths are signed too: bytes cannot move from one part to the next.
func TestEnvelopePartsDoNotMix(t *testing.T) {
	k := testKey(t, "ed25519")
	b, err := Seal(k, "domain", "type", []byte("payload"))
	if err != nil {
		t.Fatal(err)
	}
	var e envelope
	if err := e.parse(b); err != nil {
		t.Fatal(err)
	}
	for _, parts := range [][3]string{{"domain", "typep", "ayload"}, {"domain", "typ", "epayload"}, {"domaint", "ype", "payload"}} {
		e.typ, e.payload = []byte(parts[1]), []byte(parts[2])
		_, _, err := OpenEnvelope(e.append(nil), parts[0], parts[1])
		wantErr(t, strings.Join(parts[:], " "), err, ErrSignature)
	}
}

func TestEnvelopeBitFlips(t *testing.T) {
	v := readVector(t, "ed25519")
	b, domain, typ := v.bytes(t, "envelope"), v.text("domain"), string(v.bytes(t, "type"))
	for i := range b {
		for bit := range 8 {
			b[i] ^= 1 << bit
			if _, p, err := OpenEnvelope(b, domain, typ); err == nil {
				t.Errorf("bit %d of byte %d changed, and it opens: %q", bit, i, p)
			}
			b[i] ^= 1 << bit
		}
	}
	for n := range b {
		if _, _, err := OpenEnvelope(b[:n], domain, typ); err == nil {
			t.Errorf("opens after %d bytes", n)
		}
	}
}

func TestEnvelopeUnknownFields(t *testing.T) {
	v := readVector(t, "ed25519")
	b := pb.AppendBytes(v.bytes(t, "envelope"), 99, "from the future")
	if _, _, err := OpenEnvelope(b, v.text("domain"), string(v.bytes(t, "type"))); err != nil {
		t.Error(err)
	}
}

func TestEnvelopeSize(t *testing.T) {
	k := testKey(t, "ed25519")
	b, err := Seal(k, "domain", "t", nil)
	if err != nil {
		t.Fatal(err)
	}
	fits := MaxEnvelopeSize - len(b) - 3 // tag and length of the payload
	b, err = Seal(k, "domain", "t", make([]byte, fits))
	if err != nil || len(b) != MaxEnvelopeSize {
		t.Fatalf("%d bytes, %v", len(b), err)
	}
	if _, _, err := OpenEnvelope(b, "domain", "t"); err != nil {
		t.Error(err)
	}
	_, err = Seal(k, "domain", "t", make([]byte, fits+1))
	wantErr(t, "sealing one byte more", err, ErrEnvelope)
	_, _, err = OpenEnvelope(pb.AppendUvarint(b, 9, 0), "domain", "t")
	wantErr(t, "opening two bytes more", err, ErrEnvelope)
}

func FuzzOpenEnvelope(f *testing.F) {
	for _, kt := range keyTypes {
		v := readVector(f, kt.name)
		f.Add(v.bytes(f, "envelope"))
		f.Add(v.bytes(f, "record-envelope"))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		signer, payload, err := OpenEnvelope(b, "libp2p-testing", "/libp2p/testdata")
		if err == nil && (string(payload) != "hello world!" || signer.IsZero()) {
			t.Errorf("forged: %q by %s", payload, signer)
		}
		OpenRecord(b)
		var r Record
		r.parse(b)
	})
}

func BenchmarkOpenRecord(b *testing.B) {
	enc := readVector(b, "ed25519").bytes(b, "record-envelope")
	b.ReportAllocs()
	for b.Loop() {
		if _, err := OpenRecord(enc); err != nil {
			b.Fatal(err)
		}
	}
}
