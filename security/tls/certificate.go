package tls

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"
	"math/big"
	"time"

	"github.com/plexus-p2p/plexus/peer"
	"github.com/plexus-p2p/plexus/security"
)

// Identity is a key with a certificate that carries it. The key of the
// certificate itself is another one, made for it. It is safe for concurrent use.
type Identity struct {
	id   peer.ID
	cert tls.Certificate
}

// signedKey is what the extension of the certificate holds.
//
//	SignedKey ::= SEQUENCE {
//		publicKey OCTET STRING,   the PublicKey message
//		signature OCTET STRING    over signedPrefix and the certificate's SubjectPublicKeyInfo
//	}
//
// https://github.com/libp2p/specs/blob/master/tls/tls.md#libp2p-public-key-extension
type signedKey struct {
	PublicKey, Signature []byte
}

const signedPrefix = "libp2p-tls-handshake:"

// extensionID is the object identifier that IANA gave.
func extensionID() asn1.ObjectIdentifier { return asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 53594, 1, 1} }

// A certificate is valid at any time that a clock may show. The dates are those of
// the spec's test vectors, so every stack has met them.
var (
	notBefore = time.Date(1975, 1, 1, 13, 0, 0, 0, time.UTC)
	notAfter  = time.Date(4096, 1, 1, 13, 0, 0, 0, time.UTC)
)

// What is wrong with a certificate. [peer.ErrKey] and [peer.ErrSignature] are
// found too.
var (
	ErrCertificate = errors.New("tls: bad certificate")

	errCount     = fmt.Errorf("%w: there must be exactly one", ErrCertificate)
	errDates     = fmt.Errorf("%w: it is not valid now", ErrCertificate)
	errCritical  = fmt.Errorf("%w: it has a critical extension that is unknown", ErrCertificate)
	errExtension = fmt.Errorf("%w: it has no libp2p extension", ErrCertificate)
	errSignedKey = fmt.Errorf("%w: its libp2p extension is malformed", ErrCertificate)
)

// NewIdentity makes a certificate for k.
//
// "The key used to generate and sign this certificate SHOULD NOT be related to the
// host's key."
// https://github.com/libp2p/specs/blob/master/tls/tls.md#peer-authentication
func NewIdentity(k peer.PrivKey) (*Identity, error) {
	if k.IsZero() {
		return nil, errNoKey
	}
	own, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	spki, err := x509.MarshalPKIXPublicKey(&own.PublicKey)
	if err != nil {
		return nil, err
	}
	sig, err := k.Sign(append([]byte(signedPrefix), spki...))
	if err != nil {
		return nil, err
	}
	ext, err := asn1.Marshal(signedKey{k.Public().Bytes(), sig})
	if err != nil {
		return nil, err
	}
	serial, err := rand.Int(rand.Reader, big.NewInt(1<<62))
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber:    serial,
		Subject:         pkix.Name{SerialNumber: serial.String()}, // an issuer must not be empty
		NotBefore:       notBefore,
		NotAfter:        notAfter,
		ExtraExtensions: []pkix.Extension{{Id: extensionID(), Value: ext}},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &own.PublicKey, own)
	if err != nil {
		return nil, err
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	return &Identity{
		id:   k.ID(),
		cert: tls.Certificate{Certificate: [][]byte{der}, PrivateKey: own, Leaf: leaf},
	}, nil
}

// verify checks the certificates that a peer sent and returns its key.
func verify(certs [][]byte, now time.Time) (peer.PubKey, error) {
	// "Endpoints MUST abort the connection attempt if more than one certificate is
	// received, or if the certificate’s self-signature is not valid."
	// https://github.com/libp2p/specs/blob/master/tls/tls.md#peer-authentication
	if len(certs) != 1 {
		return peer.PubKey{}, errCount
	}
	cert, err := x509.ParseCertificate(certs[0])
	if err != nil {
		return peer.PubKey{}, fmt.Errorf("%w: %w", ErrCertificate, err)
	}
	return verifyParsed(cert, now)
}

func verifyParsed(cert *x509.Certificate, now time.Time) (k peer.PubKey, err error) {
	// "an endpoint MUST check these conditions and abort the connection attempt if
	// (a) the presented certificate is not yet valid, OR (b) if it is expired."
	if now.Before(cert.NotBefore) || now.After(cert.NotAfter) {
		return k, errDates
	}
	if err := cert.CheckSignature(cert.SignatureAlgorithm, cert.RawTBSCertificate, cert.Signature); err != nil {
		return k, fmt.Errorf("%w: its own signature: %w", ErrCertificate, err)
	}
	// "Endpoints MUST abort the connection attempt if the certificate contains
	// critical extensions that the endpoint does not understand."
	for _, id := range cert.UnhandledCriticalExtensions {
		if !id.Equal(extensionID()) {
			return k, errCritical
		}
	}
	// "If this extension is missing, endpoints MUST abort the connection attempt."
	var ext []byte
	for _, e := range cert.Extensions {
		if e.Id.Equal(extensionID()) {
			ext = e.Value
		}
	}
	if ext == nil {
		return k, errExtension
	}
	var sk signedKey
	if rest, err := asn1.Unmarshal(ext, &sk); err != nil || len(rest) > 0 {
		return k, errSignedKey
	}
	// "Peers MUST verify the signature, and abort the connection attempt if
	// signature verification fails."
	if k, err = peer.ParsePubKey(sk.PublicKey); err != nil {
		return k, fmt.Errorf("%w: %w", ErrCertificate, err)
	}
	if err := k.Verify(append([]byte(signedPrefix), cert.RawSubjectPublicKeyInfo...), sk.Signature); err != nil {
		return peer.PubKey{}, fmt.Errorf("%w: %w", ErrCertificate, err)
	}
	return k, nil
}

// Config returns a new configuration, for either end of a connection, that proves
// this identity and demands that the peer is want, or anybody if that is "". The
// caller adds what else it needs, NextProtos at least. [PeerKey] tells who came.
func (i *Identity) Config(want peer.ID) *tls.Config {
	return i.config(func(k peer.PubKey) error {
		if id := k.ID(); want != "" && id != want {
			return &security.MismatchError{Want: want, Got: id}
		}
		return nil
	})
}

// config is Config with another question to ask about the peer.
func (i *Identity) config(check func(peer.PubKey) error) *tls.Config {
	return &tls.Config{
		MinVersion:   tls.VersionTLS13,
		Certificates: []tls.Certificate{i.cert},

		// The standard checks are of no use for certificates that nobody else
		// vouches for; verify makes those that the spec asks for. Nothing is sent
		// or checked as server name.
		InsecureSkipVerify: true,
		ClientAuth:         tls.RequireAnyClientCert,
		VerifyPeerCertificate: func(certs [][]byte, _ [][]*x509.Certificate) error {
			k, err := verify(certs, time.Now())
			if err != nil {
				return err
			}
			return check(k)
		},

		// A resumed session would show no certificate.
		SessionTicketsDisabled: true,

		DynamicRecordSizingDisabled: true,
	}
}

// PeerKey returns the key of the peer at the other end of a connection. It makes
// all checks of the certificate anew, so any state may be passed.
func PeerKey(state tls.ConnectionState) (peer.PubKey, error) {
	if len(state.PeerCertificates) != 1 {
		return peer.PubKey{}, errCount
	}
	return verifyParsed(state.PeerCertificates[0], time.Now())
}
