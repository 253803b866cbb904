package certhash

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/hex"
	"math/big"
	"testing"
)

// What is created once more is the same, and signed by the key.
func TestCreate(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1)}
	first, err := Create(template, template, key)
	if err != nil {
		t.Fatal(err)
	}
	second, err := Create(template, template, key)
	if err != nil || !bytes.Equal(first, second) {
		t.Errorf("the second certificate is another: %v", err)
	}
	c, err := x509.ParseCertificate(first)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.CheckSignature(c.SignatureAlgorithm, c.RawTBSCertificate, c.Signature); err != nil {
		t.Error(err)
	}
}

func TestHash(t *testing.T) {
	hash := Of(nil)
	const want = "1220e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
	if got := hex.EncodeToString(hash); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	c, err := Component(hash)
	if err != nil || !bytes.Equal(c.RawValue(), hash) || c.String() != "/certhash/uEiDjsMRCmPwcFJr79MiZb7kkJ65B5GSbk0yklZkbeFK4VQ" {
		t.Errorf("%v, %v", c, err)
	}
	if c, err := Component([]byte{sha2256, 3, 1}); err == nil {
		t.Errorf("%v of what is no multihash", c)
	}
}
