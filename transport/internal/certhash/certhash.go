// Package certhash is for certificates that nobody signed, as their hashes stand in addresses:
// those of WebTransport and of WebRTC.
package certhash

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/binary"
	"io"

	ma "github.com/multiformats/go-multiaddr"
)

// Create is x509.CreateCertificate for the key itself, and makes the same of the same each
// time: without randomness, crypto/ecdsa signs as RFC 6979 says.
func Create(template, parent *x509.Certificate, key *ecdsa.PrivateKey) (der []byte, err error) {
	return x509.CreateCertificate(nil, template, parent, key.Public(), repeatable{key})
}

// repeatable signs the same with the same signature each time.
type repeatable struct{ *ecdsa.PrivateKey }

func (r repeatable) Sign(_ io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	return r.PrivateKey.Sign(nil, digest, opts)
}

// sha2256 is the code of SHA-256 in a multihash.
//
// https://github.com/multiformats/multicodec/blob/master/table.csv
const sha2256 = 0x12

// Of is the multihash of a certificate.
//
// "/certhash/<hash> where <hash> is the multihash of the certificate".
// https://github.com/libp2p/specs/blob/master/webrtc/webrtc-direct.md
func Of(der []byte) []byte {
	sum := sha256.Sum256(der)
	return append([]byte{sha2256, sha256.Size}, sum[:]...)
}

// Component is /certhash/…, for the end of an address.
func Component(hash []byte) (*ma.Component, error) {
	b := binary.AppendUvarint(nil, ma.P_CERTHASH)
	b = binary.AppendUvarint(b, uint64(len(hash)))
	m, err := ma.NewMultiaddrBytes(append(b, hash...))
	if err != nil {
		return nil, err
	}
	return &m[0], nil
}
