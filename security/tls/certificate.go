package tls

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/base64"
	"errors"
	"fmt"
	"math/big"
	"slices"
	"sync"
	"time"

	"github.com/plexus-p2p/plexus/peer"
	"github.com/plexus-p2p/plexus/security"
	"github.com/plexus-p2p/plexus/security/pnet"
)

// Identity is a key with a certificate that carries it. The key of the
// certificate itself is another one, made for it. It is safe for concurrent use.
type Identity struct {
	id      peer.ID
	cert    tls.Certificate
	network pnet.Key // which peers have to be in; zero: any
	known   known
}

// known are certificates that were verified, by their hash, and the keys that they carry. A
// peer that comes back shows the same one as long as it runs, and to verify it takes an
// eighth of the time of a handshake over QUIC.
type known struct {
	mu   sync.Mutex
	keys map[[sha256.Size]byte]peer.PubKey // maxKnown at most
}

const maxKnown = 256

func (n *known) get(sum [sha256.Size]byte) (k peer.PubKey, ok bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	k, ok = n.keys[sum]
	return k, ok
}

// add makes room for a certificate, if there is none, in the place of any other.
func (n *known) add(sum [sha256.Size]byte, k peer.PubKey) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.keys == nil {
		n.keys = make(map[[sha256.Size]byte]peer.PubKey)
	}
	for old := range n.keys {
		if len(n.keys) < maxKnown {
			break
		}
		delete(n.keys, old)
	}
	n.keys[sum] = k
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
func NewIdentity(k peer.PrivKey) (*Identity, error) { return newIdentity(k, pnet.Key{}) }

// NewMember makes a certificate for k that shows, to the network's members, that k
// is one of them; its configurations demand the same of the peer, and fail with
// [pnet.ErrStranger]. It is for transports that cannot encrypt all they send once
// more, as [pnet.Transport] does. Strangers learn who is there, but are not let in.
//
// The common name of the certificate is its key, authenticated with the network's. That
// this is no replay of another host's certificate, TLS proves.
//
// It is a mapping of this project: libp2p has none for QUIC.
func NewMember(k peer.PrivKey, network pnet.Key) (*Identity, error) {
	if network == (pnet.Key{}) {
		return nil, pnet.ErrNoKey
	}
	return newIdentity(k, network)
}

const memberPrefix = "plexus-pnet-tls-member:"

// member is the common name of a member's certificate.
func member(network pnet.Key, spki []byte) string {
	mac := hmac.New(sha256.New, network[:])
	mac.Write([]byte(memberPrefix))
	mac.Write(spki)
	return base64.RawURLEncoding.EncodeToString(mac.Sum(nil))
}

func newIdentity(k peer.PrivKey, network pnet.Key) (*Identity, error) {
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
	if network != (pnet.Key{}) {
		template.Subject.CommonName = member(network, spki)
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
		id:      k.ID(),
		cert:    tls.Certificate{Certificate: [][]byte{der}, PrivateKey: own, Leaf: leaf},
		network: network,
	}, nil
}

// verify checks the certificates that a peer sent and returns its key. Where a network
// is given, the peer has to be in it.
func verify(certs []*x509.Certificate, now time.Time, network pnet.Key) (peer.PubKey, error) {
	// "Endpoints MUST abort the connection attempt if more than one certificate is
	// received, or if the certificate’s self-signature is not valid."
	// https://github.com/libp2p/specs/blob/master/tls/tls.md#peer-authentication
	if len(certs) != 1 {
		return peer.PubKey{}, errCount
	}
	cert := certs[0]
	k, err := verifyOne(cert, now)
	if err != nil {
		return k, err
	}
	if network != (pnet.Key{}) && !hmac.Equal([]byte(cert.Subject.CommonName), []byte(member(network, cert.RawSubjectPublicKeyInfo))) {
		return peer.PubKey{}, pnet.ErrStranger
	}
	return k, nil
}

// verify is the function, but for signatures that were verified before.
func (i *Identity) verify(certs []*x509.Certificate, now time.Time) (peer.PubKey, error) {
	if len(certs) != 1 {
		return peer.PubKey{}, errCount
	}
	sum := sha256.Sum256(certs[0].Raw)
	if k, ok := i.known.get(sum); ok && checkDates(certs[0], now) == nil {
		return k, nil
	}
	k, err := verify(certs, now, i.network)
	if err == nil {
		i.known.add(sum, k)
	}
	return k, err
}

// "an endpoint MUST check these conditions and abort the connection attempt if (a) the
// presented certificate is not yet valid, OR (b) if it is expired."
func checkDates(cert *x509.Certificate, now time.Time) error {
	if now.Before(cert.NotBefore) || now.After(cert.NotAfter) {
		return errDates
	}
	return nil
}

func verifyOne(cert *x509.Certificate, now time.Time) (k peer.PubKey, err error) {
	if err := checkDates(cert, now); err != nil {
		return k, err
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
	k, sig, err := carried(cert)
	if err != nil {
		return k, err
	}
	// "Peers MUST verify the signature, and abort the connection attempt if
	// signature verification fails."
	if err := k.Verify(append([]byte(signedPrefix), cert.RawSubjectPublicKeyInfo...), sig); err != nil {
		return peer.PubKey{}, fmt.Errorf("%w: %w", ErrCertificate, err)
	}
	return k, nil
}

// carried returns the key that a certificate carries, and the signature to check.
func carried(cert *x509.Certificate) (k peer.PubKey, sig []byte, err error) {
	// "If this extension is missing, endpoints MUST abort the connection attempt."
	i := slices.IndexFunc(cert.Extensions, func(e pkix.Extension) bool { return e.Id.Equal(extensionID()) })
	if i < 0 {
		return k, nil, errExtension
	}
	var sk signedKey
	if rest, err := asn1.Unmarshal(cert.Extensions[i].Value, &sk); err != nil || len(rest) > 0 {
		return k, nil, errSignedKey
	}
	if k, err = peer.ParsePubKey(sk.PublicKey); err != nil {
		return k, nil, fmt.Errorf("%w: %w", ErrCertificate, err)
	}
	return k, sk.Signature, nil
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
		VerifyConnection: func(state tls.ConnectionState) error { // which has them parsed
			k, err := i.verify(state.PeerCertificates, time.Now())
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

// PeerKey returns the key of the peer at the other end of a connection whose handshake
// has succeeded with an [Identity.Config]. All checks were made then; they take a tenth
// of the time of a handshake.
func PeerKey(state tls.ConnectionState) (peer.PubKey, error) {
	if len(state.PeerCertificates) != 1 {
		return peer.PubKey{}, errCount
	}
	k, _, err := carried(state.PeerCertificates[0])
	return k, err
}
