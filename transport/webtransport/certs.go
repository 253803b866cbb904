package webtransport

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/hkdf"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"fmt"
	"math/big"
	"slices"
	"sync"
	"time"

	"github.com/plexus-p2p/plexus/peer"
	"github.com/plexus-p2p/plexus/transport/internal/certhash"
)

// Certificates follow each other, and overlap by two hours, so that one in use is good
// by clocks that are an hour off.
//
//	|---- validity ----|
//	  |-- in use ----|
//	               |---- validity ----|
//	                 |-- in use ----|
//
// "Servers need to take care of regularly renewing their certificates. […] In the first
// connection to the server, […] at least two certificates".
//
// "The certificate MUST be valid for at most 14 days": browsers accept no other.
// https://www.w3.org/TR/webtransport/#custom-certificate-requirements
const (
	validity = 14 * 24 * time.Hour
	skew     = time.Hour
	period   = validity - 2*skew
)

// certificate is one of those.
type certificate struct {
	tls  tls.Certificate
	hash []byte // a multihash
}

// certs are the certificates of a host. They derive from its key and the time, so
// that one that restarts has them again.
type certs struct {
	key   peer.PrivKey
	phase time.Duration // since 1970, when the first was made: not all hosts change at once

	mu   sync.Mutex
	last int64 // which of them was in use when now was called
	made *[3]*certificate
}

// Which of them, in what now returns.
const (
	previous = iota
	current
	next
)

func newCerts(key peer.PrivKey) *certs {
	h := sha256.Sum256(key.Public().Bytes())
	minutes := time.Duration(binary.BigEndian.Uint32(h[:])) % (period / time.Minute)
	return &certs{key: key, phase: minutes * time.Minute}
}

// number tells which certificate is in use, and until when.
func (cs *certs) number(now time.Time) (n int64, until time.Time) {
	n = int64(now.Add(-skew).Sub(time.Unix(0, 0).Add(cs.phase)) / period)
	return n, cs.start(n + 1).Add(skew)
}

// start is when a certificate begins to be valid.
func (cs *certs) start(n int64) time.Time {
	return time.Unix(0, 0).Add(cs.phase + time.Duration(n)*period)
}

// now returns the certificate in use, the one before and the one after.
func (cs *certs) now() (*[3]*certificate, error) {
	n, _ := cs.number(time.Now())
	cs.mu.Lock()
	defer cs.mu.Unlock()
	if cs.made != nil && cs.last == n {
		return cs.made, nil
	}
	var made [3]*certificate
	for i := range made {
		var err error
		if made[i], err = makeCertificate(cs.key, cs.start(n+int64(i)-1)); err != nil {
			return nil, fmt.Errorf("webtransport: making a certificate: %w", err)
		}
	}
	cs.made, cs.last = &made, n
	return cs.made, nil
}

// makeCertificate makes the certificate of a key that begins at a time.
func makeCertificate(key peer.PrivKey, from time.Time) (*certificate, error) {
	salt := binary.BigEndian.AppendUint64(nil, uint64(from.Unix()))
	prk, err := hkdf.Extract(sha256.New, key.Raw(), salt)
	if err != nil {
		return nil, err
	}
	serial, err := hkdf.Expand(sha256.New, prk, "webtransport certificate serial", 8)
	if err != nil {
		return nil, err
	}
	serial[0] = serial[0]&0x7f | 1 // positive, and of one length
	own, err := deriveKey(prk)
	if err != nil {
		return nil, err
	}
	der, err := certhash.Create(&x509.Certificate{
		SerialNumber: new(big.Int).SetBytes(serial),
		NotBefore:    from,
		NotAfter:     from.Add(validity),
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}, &x509.Certificate{}, own)
	if err != nil {
		return nil, err
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	return &certificate{
		tls:  tls.Certificate{Certificate: [][]byte{der}, PrivateKey: own, Leaf: leaf},
		hash: certhash.Of(der),
	}, nil
}

// deriveKey makes an ECDSA key of a secret: the first candidate that is a number from 1
// to the order of the curve. The first one is, but once in four billion times.
//
// https://nvlpubs.nist.gov/nistpubs/FIPS/NIST.FIPS.186-5.pdf A.2.2
func deriveKey(secret []byte) (*ecdsa.PrivateKey, error) {
	for i := byte(0); ; i++ {
		b, err := hkdf.Expand(sha256.New, secret, "webtransport certificate key"+string(rune(i)), 32)
		if err != nil {
			return nil, err
		}
		k, err := ecdsa.ParseRawPrivateKey(elliptic.P256(), b)
		if err == nil || i == 8 {
			return k, err
		}
	}
}

// checkCertificate holds the certificate of a server to the hashes of its address.
//
// "the certificate's total validity period [must] not exceed two weeks", "the current
// time [must be] within the validity period", and "RSA MUST NOT" be its key.
// https://www.w3.org/TR/webtransport/#custom-certificate-requirements
func checkCertificate(chain []*x509.Certificate, hashes [][]byte, now time.Time) error {
	if len(chain) == 0 {
		return fmt.Errorf("%w: there is none", ErrCertificate)
	}
	c := chain[0]
	h := certhash.Of(c.Raw)
	switch {
	case !slices.ContainsFunc(hashes, func(w []byte) bool { return bytes.Equal(h, w) }):
		return fmt.Errorf("%w: its hash is not one of the address", ErrCertificate)
	case c.PublicKeyAlgorithm == x509.RSA:
		return fmt.Errorf("%w: its key is RSA", ErrCertificate)
	case c.NotAfter.Sub(c.NotBefore) > validity:
		return fmt.Errorf("%w: it is valid for more than 14 days", ErrCertificate)
	case now.Before(c.NotBefore) || now.After(c.NotAfter):
		return fmt.Errorf("%w: it is valid from %v to %v", ErrCertificate, c.NotBefore, c.NotAfter)
	}
	return nil
}

// checkVouched tells whether the peer vouches for the certificates of its address. A
// browser does not tell which of them it has seen, and so whoever reads an address
// must be able to trust them all.
//
// "the client […] MUST verify that the certificate hash(es) […] are contained in" them.
// https://github.com/libp2p/specs/blob/master/webtransport/README.md#security-handshake
func checkVouched(hashes, theirs [][]byte) error {
	for _, h := range hashes {
		if !slices.ContainsFunc(theirs, func(t []byte) bool { return bytes.Equal(h, t) }) {
			return ErrCertHashes
		}
	}
	return nil
}
