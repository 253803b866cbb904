package tls

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/hex"
	"errors"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/plexus-p2p/plexus/peer"
	"github.com/plexus-p2p/plexus/security"
	"github.com/plexus-p2p/plexus/security/pnet"
)

// certVector is a block of testdata/certificates.txt.
type certVector struct {
	name, key, peer, expect string
	der                     []byte
}

func certVectors(t testing.TB) []certVector {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", "certificates.txt"))
	if err != nil {
		t.Fatal(err)
	}
	var all []certVector
	var v certVector
	for line := range strings.Lines(string(b)) {
		line = strings.TrimSpace(line)
		if k, val, ok := strings.Cut(strings.TrimPrefix(line, "# "), " = "); ok {
			*map[string]*string{"name": &v.name, "key": &v.key, "peer": &v.peer, "expect": &v.expect}[k] = val
		} else if line != "" && line[0] != '#' {
			if v.der, err = hex.DecodeString(line); err != nil {
				t.Fatal(err)
			}
			all = append(all, v)
			v = certVector{}
		}
	}
	return all
}

func TestVectors(t *testing.T) {
	n := 0
	for _, v := range certVectors(t) {
		t.Run(v.name, func(t *testing.T) {
			n++
			k, err := verifyDER([][]byte{v.der}, time.Now(), pnet.Key{})
			if v.expect == "signature" {
				if !errors.Is(err, peer.ErrSignature) || !errors.Is(err, ErrCertificate) {
					t.Errorf("got %v, want peer.ErrSignature", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if k.Type().String() != v.key || k.ID().String() != v.peer {
				t.Errorf("got %s %s, want %s %s", k.Type(), k.ID(), v.key, v.peer)
			}
		})
	}
	if n != 4 {
		t.Errorf("%d vectors, want 4", n)
	}
}

func newKey(t testing.TB, kind peer.KeyType) peer.PrivKey {
	t.Helper()
	k, err := peer.GenerateKey(kind)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// spec says how a certificate is made, right or wrong.
type spec struct {
	own       crypto.Signer // the certificate's key
	name      string        // common name
	signed    []byte        // what the host key signs; nil: what it has to
	ext       []byte        // the extension's value; nil: what it has to be; empty: no extension
	critical  bool
	more      []pkix.Extension
	from, to  time.Time
	signerKey crypto.Signer // who signs the certificate; nil: own
	algorithm x509.SignatureAlgorithm
}

func (s spec) make(t testing.TB, host peer.PrivKey) tls.Certificate {
	t.Helper()
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	var err error
	if s.own == nil {
		s.own, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		check(err)
	}
	if s.signerKey == nil {
		s.signerKey = s.own
	}
	if s.signed == nil {
		spki, err := x509.MarshalPKIXPublicKey(s.own.Public())
		check(err)
		s.signed = append([]byte("libp2p-tls-handshake:"), spki...)
	}
	if s.ext == nil {
		sig, err := host.Sign(s.signed)
		check(err)
		s.ext, err = asn1.Marshal(signedKey{host.Public().Bytes(), sig})
		check(err)
	}
	template := &x509.Certificate{
		SerialNumber:       big.NewInt(1),
		Subject:            pkix.Name{Organization: []string{"libp2p.io"}, CommonName: s.name},
		NotBefore:          notBefore,
		NotAfter:           notAfter,
		ExtraExtensions:    s.more,
		SignatureAlgorithm: s.algorithm,
	}
	if !s.from.IsZero() {
		template.NotBefore = s.from
	}
	if !s.to.IsZero() {
		template.NotAfter = s.to
	}
	if len(s.ext) > 0 {
		template.ExtraExtensions = append(template.ExtraExtensions, pkix.Extension{Id: extensionID(), Critical: s.critical, Value: s.ext})
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, s.own.Public(), s.signerKey)
	check(err)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: s.own}
}

func TestCertificates(t *testing.T) {
	host, other := newKey(t, peer.Ed25519), newKey(t, peer.Ed25519)
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	_, edKey, _ := ed25519.GenerateKey(rand.Reader)
	p384, _ := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	another, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	signed := func(k peer.PrivKey, b []byte) []byte {
		sig, _ := k.Sign(b)
		der, _ := asn1.Marshal(signedKey{k.Public().Bytes(), sig})
		return der
	}
	day := 24 * time.Hour
	unknown := pkix.Extension{Id: asn1.ObjectIdentifier{1, 2, 3, 4}, Value: []byte{5, 0}}
	criticalUnknown := unknown
	criticalUnknown.Critical = true

	for _, c := range []struct {
		name string
		spec spec
		want error
	}{
		{"good", spec{}, nil},
		{"extension critical", spec{critical: true}, nil},
		{"RSA certificate", spec{own: rsaKey}, nil},
		{"RSA-PSS certificate", spec{own: rsaKey, algorithm: x509.SHA256WithRSAPSS}, nil},
		{"Ed25519 certificate", spec{own: edKey}, nil},
		{"P-384 certificate", spec{own: p384}, nil},
		{"unknown extension", spec{more: []pkix.Extension{unknown}}, nil},
		{"unknown critical extension", spec{more: []pkix.Extension{criticalUnknown}}, errCritical},
		{"both critical", spec{critical: true, more: []pkix.Extension{criticalUnknown}}, errCritical},
		{"not yet valid", spec{from: time.Now().Add(day)}, errDates},
		{"expired", spec{to: time.Now().Add(-day)}, errDates},
		{"just valid", spec{from: time.Now().Add(-day), to: time.Now().Add(day)}, nil},
		{"no extension", spec{ext: []byte{}}, errExtension},
		{"extension no ASN.1", spec{ext: []byte("nonsense")}, errSignedKey},
		{"extension with more behind", spec{ext: append(signed(host, nil), 0)}, errSignedKey},
		{"no key", spec{ext: []byte{0x30, 4, 4, 0, 4, 0}}, peer.ErrKey},
		{"certificate signed by another key", spec{signerKey: another}, ErrCertificate},
		{"certificate signed by another kind of key", spec{signerKey: edKey}, ErrCertificate},
		{"signature over something else", spec{signed: []byte("libp2p-tls-handshake:")}, peer.ErrSignature},
		{"signature by another key", spec{ext: func() []byte {
			der, _ := asn1.Marshal(signedKey{host.Public().Bytes(), make([]byte, 64)})
			return der
		}()}, peer.ErrSignature},
		{"extension of another certificate", spec{ext: signed(other, []byte("libp2p-tls-handshake:something"))}, peer.ErrSignature},
	} {
		t.Run(c.name, func(t *testing.T) {
			cert := c.spec.make(t, host)
			k, err := verifyDER(cert.Certificate, time.Now(), pnet.Key{})
			if !errors.Is(err, c.want) || (err == nil) != (c.want == nil) {
				t.Fatalf("got %v, want %v", err, c.want)
			}
			if err == nil && !k.Equal(host.Public()) {
				t.Errorf("got the key of %s, want %s", k.ID(), host.ID())
			}
			if err != nil && (!errors.Is(err, ErrCertificate) || !k.IsZero()) {
				t.Errorf("got %v and key %v, want ErrCertificate and none", err, k)
			}
			for _, client := range []bool{true, false} {
				err := against(t, cert, client)
				if !errors.Is(err, c.want) || (err == nil) != (c.want == nil) {
					t.Errorf("handshake, client %v: got %v, want %v", client, err, c.want)
				}
			}
		})
	}

	t.Run("self-signature", func(t *testing.T) {
		der := bytes.Clone(spec{}.make(t, host).Certificate[0])
		der[len(der)-1] ^= 1
		if _, err := verifyDER([][]byte{der}, time.Now(), pnet.Key{}); !errors.Is(err, ErrCertificate) {
			t.Errorf("got %v", err)
		}
	})
	t.Run("two", func(t *testing.T) {
		cert := spec{}.make(t, host)
		cert.Certificate = append(cert.Certificate, cert.Certificate[0])
		for _, client := range []bool{true, false} {
			if err := against(t, cert, client); !errors.Is(err, errCount) {
				t.Errorf("client %v: got %v, want %v", client, err, errCount)
			}
		}
	})
	t.Run("none", func(t *testing.T) {
		if _, err := verify(nil, time.Now(), pnet.Key{}); !errors.Is(err, errCount) {
			t.Errorf("got %v", err)
		}
		// "servers MUST require client authentication"
		if err := against(t, tls.Certificate{}, false); !errors.Is(err, security.ErrHandshake) {
			t.Errorf("got %v", err)
		}
	})
}

// The signatures of a certificate are verified once; when it is valid, each time. What
// is remembered is bounded, and nothing that failed is.
func TestKnown(t *testing.T) {
	i, err := NewIdentity(newKey(t, peer.Ed25519))
	if err != nil {
		t.Fatal(err)
	}
	host := newKey(t, peer.Ed25519)
	parse := func(x spec) *x509.Certificate {
		cert, err := x509.ParseCertificate(x.make(t, host).Certificate[0])
		if err != nil {
			t.Fatal(err)
		}
		return cert
	}
	cert := parse(spec{})
	broken := *cert // by somebody in this process: it has the same hash
	broken.Signature = make([]byte, len(cert.Signature))
	if _, err := i.verify([]*x509.Certificate{&broken}, time.Now()); !errors.Is(err, ErrCertificate) {
		t.Errorf("a broken certificate: %v", err)
	}
	if len(i.known.keys) > 0 {
		t.Error("a broken certificate is remembered")
	}
	for _, c := range []*x509.Certificate{cert, &broken} {
		if k, err := i.verify([]*x509.Certificate{c}, time.Now()); err != nil || !k.Equal(host.Public()) {
			t.Errorf("got %v, %v", k, err)
		}
	}
	if k, err := i.verify([]*x509.Certificate{cert}, cert.NotAfter.Add(time.Second)); !errors.Is(err, errDates) || !k.IsZero() {
		t.Errorf("when it has expired: %v", err)
	}
	for range maxKnown + 10 {
		if _, err := i.verify([]*x509.Certificate{parse(spec{})}, time.Now()); err != nil {
			t.Fatal(err)
		}
	}
	if n := len(i.known.keys); n != maxKnown {
		t.Errorf("%d certificates are remembered, want %d at most", n, maxKnown)
	}
}

// Members of a private network know each other by their certificates, and nobody else.
func TestMember(t *testing.T) {
	ours, other := pnet.NewKey(), pnet.NewKey()
	if _, err := NewMember(newKey(t, peer.Ed25519), pnet.Key{}); !errors.Is(err, pnet.ErrNoKey) {
		t.Errorf("without a key: %v", err)
	}
	cert := func(network pnet.Key) tls.Certificate {
		i, err := newIdentity(newKey(t, peer.Ed25519), network)
		if err != nil {
			t.Fatal(err)
		}
		return i.cert
	}
	friend := cert(ours)
	for name, c := range map[string]struct {
		cert tls.Certificate
		want error
	}{
		"member":          {friend, nil},
		"another network": {cert(other), pnet.ErrStranger},
		"no network":      {cert(pnet.Key{}), pnet.ErrStranger},
		"a stolen name":   {spec{name: friend.Leaf.Subject.CommonName}.make(t, newKey(t, peer.Ed25519)), pnet.ErrStranger},
	} {
		if _, err := verifyDER(c.cert.Certificate, time.Now(), ours); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
		if _, err := verifyDER(c.cert.Certificate, time.Now(), pnet.Key{}); err != nil { // it is not asked for
			t.Errorf("%s: %v", name, err)
		}
	}
}

// An identity's certificate is what the spec asks for.
func TestNewIdentity(t *testing.T) {
	for _, kind := range []peer.KeyType{peer.RSA, peer.Ed25519, peer.Secp256k1, peer.ECDSA} {
		k := newKey(t, kind)
		i, err := NewIdentity(k)
		if err != nil {
			t.Fatal(err)
		}
		for _, now := range []time.Time{time.Unix(1e9, 0), time.Now(), time.Now().AddDate(500, 0, 0)} {
			if got, err := verifyDER(i.cert.Certificate, now, pnet.Key{}); err != nil || !got.Equal(k.Public()) {
				t.Errorf("%s in %d: %v", kind, now.Year(), err)
			}
		}
		leaf := i.cert.Leaf
		if own, ok := leaf.PublicKey.(*ecdsa.PublicKey); !ok || own.Curve != elliptic.P256() {
			t.Errorf("%s: the certificate's key is a %T", kind, leaf.PublicKey)
		}
		if len(leaf.Issuer.Names) == 0 || leaf.Issuer.String() != leaf.Subject.String() {
			t.Errorf("%s: issuer %q, subject %q", kind, leaf.Issuer, leaf.Subject)
		}
		if n := len(i.cert.Certificate[0]); kind == peer.Ed25519 && n > 500 {
			t.Errorf("certificate of %d bytes", n)
		}
	}
}

// FuzzCertificate looks for certificates that break the parser.
func FuzzCertificate(f *testing.F) {
	for _, v := range certVectors(f) {
		f.Add(v.der)
	}
	f.Fuzz(func(t *testing.T, der []byte) {
		k, err := verifyDER([][]byte{der}, time.Now(), pnet.Key{})
		if (err == nil) == k.IsZero() {
			t.Fatalf("key %v, %v", k, err)
		}
		if err != nil && !errors.Is(err, ErrCertificate) {
			t.Fatal(err)
		}
	})
}

// FuzzSignedKey does so behind the certificate's own signature.
func FuzzSignedKey(f *testing.F) {
	host := newKey(f, peer.Ed25519)
	own, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		f.Fatal(err)
	}
	good := spec{own: own}.make(f, host)
	cert, err := x509.ParseCertificate(good.Certificate[0])
	if err != nil {
		f.Fatal(err)
	}
	at := 0
	for i, e := range cert.Extensions {
		if e.Id.Equal(extensionID()) {
			f.Add(e.Value)
			at = i
		}
	}
	for _, v := range certVectors(f) {
		c, err := x509.ParseCertificate(v.der)
		if err != nil {
			f.Fatal(err)
		}
		for _, e := range c.Extensions {
			f.Add(e.Value)
		}
	}
	f.Fuzz(func(t *testing.T, ext []byte) {
		c := *cert
		c.Extensions = append([]pkix.Extension(nil), cert.Extensions...)
		c.Extensions[at].Value = ext
		k, err := verifyOne(&c, time.Now())
		if (err == nil) == k.IsZero() || err != nil && !errors.Is(err, ErrCertificate) {
			t.Fatalf("key %v, %v", k, err)
		}
		if err == nil && !bytes.Equal(ext, cert.Extensions[at].Value) && k.Equal(host.Public()) {
			t.Logf("another form of the same proof: %x", ext)
		}
	})
}

// verifyDER is verify, for what crypto/tls has yet to parse.
func verifyDER(ders [][]byte, now time.Time, network pnet.Key) (peer.PubKey, error) {
	var certs []*x509.Certificate
	for _, der := range ders {
		c, err := x509.ParseCertificate(der)
		if err != nil {
			return peer.PubKey{}, fmt.Errorf("%w: %w", ErrCertificate, err)
		}
		certs = append(certs, c)
	}
	return verify(certs, now, network)
}
