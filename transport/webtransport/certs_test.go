package webtransport

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"math/big"
	"testing"
	"testing/synctest"
	"time"

	"github.com/plexus-p2p/plexus/peer"
	"github.com/plexus-p2p/plexus/transport/internal/certhash"
)

func seeded(t testing.TB, b byte) peer.PrivKey {
	t.Helper()
	k, err := peer.NewPrivKey(ed25519.NewKeyFromSeed(bytes.Repeat([]byte{b}, ed25519.SeedSize)))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// A key and a time give the same certificate, today and with later versions: else addresses
// would not outlive an update.
func TestCertificateVector(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // in 2000
		c, err := newCerts(seeded(t, 7)).now()
		if err != nil {
			t.Fatal(err)
		}
		for i, want := range [3]string{
			"1220724951d0e2ed53d8f5dabb57d99a4b3d4e1e22690c1b36de3660e8e30e52e5ea",
			"122085ec7e3e409cd464c0396fed577ad9724688658aa0cee049791f68a4fba86736",
			"12200b2c975c4414383d235bc214fed91c20585c09d02592eac04a5388a324313a80",
		} {
			if got := hex.EncodeToString(c[i].hash); got != want {
				t.Errorf("certificate %d has hash %s, want %s", i, got, want)
			}
		}
		leaf := c[current].tls.Leaf
		if k, ok := leaf.PublicKey.(*ecdsa.PublicKey); !ok || k.Curve != elliptic.P256() {
			t.Errorf("its key is %T", leaf.PublicKey)
		}
		if err := leaf.CheckSignature(leaf.SignatureAlgorithm, leaf.RawTBSCertificate, leaf.Signature); err != nil {
			t.Errorf("it is not signed by itself: %v", err)
		}
		if leaf.Version != 3 || leaf.SerialNumber.Sign() <= 0 || leaf.NotAfter.Sub(leaf.NotBefore) != validity {
			t.Errorf("version %d, serial %v, from %v to %v", leaf.Version, leaf.SerialNumber, leaf.NotBefore, leaf.NotAfter)
		}
	})
}

// At any time there is one certificate in use, good by clocks that are an hour off, and
// hosts change at different times.
func TestCertificateTimes(t *testing.T) {
	phases := make(map[time.Duration]bool)
	for b := range byte(10) {
		cs := newCerts(seeded(t, b))
		if cs.phase < 0 || cs.phase >= period {
			t.Errorf("phase %v", cs.phase)
		}
		phases[cs.phase] = true
		was := int64(-1 << 62)
		for now := time.Unix(1e9, 0); now.Before(time.Unix(1e9, 0).Add(100 * 24 * time.Hour)); now = now.Add(time.Hour) {
			n, until := cs.number(now)
			from, to := cs.start(n), cs.start(n).Add(validity)
			if now.Before(from.Add(skew)) || now.After(to.Add(-skew)) {
				t.Fatalf("at %v: certificate %d, valid from %v to %v", now, n, from, to)
			}
			if m, _ := cs.number(until); m != n+1 || !until.After(now) {
				t.Fatalf("at %v: certificate %d until %v, when it is %d", now, n, until, m)
			}
			if m, _ := cs.number(until.Add(-1)); m != n {
				t.Fatalf("at %v: certificate %d until %v, before which it is %d", now, n, until, m)
			}
			if was > -1<<62 && n != was && n != was+1 {
				t.Fatalf("at %v: certificate %d after %d", now, n, was)
			}
			was = n
		}
	}
	if len(phases) < 5 {
		t.Errorf("ten hosts change at %d different times", len(phases))
	}
}

func TestCheckCertificate(t *testing.T) {
	now := time.Now()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	cert := func(from, to time.Duration, pub, priv any) *x509.Certificate {
		t.Helper()
		tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: now.Add(from), NotAfter: now.Add(to)}
		der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, pub, priv)
		if err != nil {
			t.Fatal(err)
		}
		c, err := x509.ParseCertificate(der)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	const day = 24 * time.Hour
	good := cert(-day, 13*day, key.Public(), key)
	other := certhash.Of([]byte("other"))
	for _, c := range []struct {
		name   string
		chain  []*x509.Certificate
		hashes [][]byte
		ok     bool
	}{
		{"good", []*x509.Certificate{good}, [][]byte{other, certhash.Of(good.Raw)}, true},
		{"others behind it", []*x509.Certificate{good, cert(-day, day, key.Public(), key)}, [][]byte{certhash.Of(good.Raw)}, true},
		{"another first", []*x509.Certificate{cert(-day, day, key.Public(), key), good}, [][]byte{certhash.Of(good.Raw)}, false},
		{"another hash", []*x509.Certificate{good}, [][]byte{other}, false},
		{"a hash of another kind", []*x509.Certificate{good}, [][]byte{append([]byte{0x13}, certhash.Of(good.Raw)[1:]...)}, false},
		{"no hash", []*x509.Certificate{good}, nil, false},
		{"none", nil, [][]byte{other}, false},
		{"expired", []*x509.Certificate{cert(-2*day, -time.Minute, key.Public(), key)}, nil, false},
		{"not yet", []*x509.Certificate{cert(time.Minute, day, key.Public(), key)}, nil, false},
		{"too long", []*x509.Certificate{cert(-day, 13*day+time.Second, key.Public(), key)}, nil, false},
		{"RSA", []*x509.Certificate{cert(-day, day, rsaKey.Public(), rsaKey)}, nil, false},
	} {
		if c.hashes == nil && len(c.chain) > 0 && c.name != "no hash" {
			c.hashes = [][]byte{certhash.Of(c.chain[0].Raw)}
		}
		if err := checkCertificate(c.chain, c.hashes, now); (err == nil) != c.ok || !c.ok && !errors.Is(err, ErrCertificate) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}

func TestCheckVouched(t *testing.T) {
	a, b, c := certhash.Of([]byte("a")), certhash.Of([]byte("b")), certhash.Of([]byte("c"))
	for _, x := range []struct {
		hashes, theirs [][]byte
		ok             bool
	}{
		{[][]byte{a}, [][]byte{c, b, a}, true},
		{[][]byte{a, b}, [][]byte{c, b, a}, true},
		{[][]byte{a, b}, [][]byte{a}, false},
		{[][]byte{a}, nil, false},
	} {
		if err := checkVouched(x.hashes, x.theirs); (err == nil) != x.ok || !x.ok && err != ErrCertHashes {
			t.Errorf("%x of %x: %v", x.hashes, x.theirs, err)
		}
	}
}
