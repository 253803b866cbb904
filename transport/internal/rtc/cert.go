package rtc

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/hkdf"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/binary"
	"fmt"
	"math/big"
	"time"

	"github.com/plexus-p2p/plexus/peer"
	"github.com/plexus-p2p/plexus/transport/internal/certhash"
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
	der, err := certhash.Create(template, template, priv)
	if err != nil {
		return nil, fmt.Errorf("webrtc: certificate: %w", err)
	}
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: priv}, nil
}
