package rtc

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/hkdf"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/binary"
	"fmt"
	"io"
	"math/big"
	"time"

	"github.com/multiformats/go-multihash"

	"github.com/plexus-p2p/plexus/peer"
)

// NewCertificate derives the certificate of a host from its key, so that its addresses
// stay the same from run to run. Who knows the certificate knows nothing of the key. It
// does not prove who we are: Noise does, and binds the certificate to that.
//
// No peer looks at the dates. Browsers compare the hash alone, as RFC 8122 says.
func NewCertificate(key peer.PrivKey) (*tls.Certificate, error) {
	seed, err := hkdf.Key(sha256.New, key.Raw(), nil, "libp2p webrtc certificate", 8+32*8)
	if err != nil {
		return nil, fmt.Errorf("webrtc: certificate: %w", err)
	}
	serial, seed := seed[:8], seed[8:]
	var priv *ecdsa.PrivateKey
	for priv == nil && len(seed) > 0 { // one in 2³² is not below the order of the curve
		priv, _ = ecdsa.ParseRawPrivateKey(elliptic.P256(), seed[:32])
		seed = seed[32:]
	}
	if priv == nil {
		return nil, fmt.Errorf("webrtc: certificate: no key")
	}
	template := &x509.Certificate{
		SerialNumber:       new(big.Int).SetUint64(binary.BigEndian.Uint64(serial)>>1 | 1),
		Subject:            pkix.Name{CommonName: "libp2p"},
		NotBefore:          time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC),
		NotAfter:           time.Date(2120, 1, 1, 0, 0, 0, 0, time.UTC),
		SignatureAlgorithm: x509.ECDSAWithSHA256,
	}
	der, err := x509.CreateCertificate(nil, template, template, priv.Public(), repeatable{priv})
	if err != nil {
		return nil, fmt.Errorf("webrtc: certificate: %w", err)
	}
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: priv}, nil
}

// repeatable signs the same with the same signature each time (RFC 6979).
type repeatable struct{ *ecdsa.PrivateKey }

func (r repeatable) Sign(_ io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	return r.PrivateKey.Sign(nil, digest, opts)
}

// Fingerprint is the multihash of a certificate.
//
// "the multihash […] of the certificate"
// https://github.com/libp2p/specs/blob/master/webrtc/webrtc-direct.md#connection-security
func Fingerprint(der []byte) []byte {
	sum := sha256.Sum256(der)
	return append([]byte{multihash.SHA2_256, sha256.Size}, sum[:]...)
}
