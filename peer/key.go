package peer

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"fmt"
	"io"
	"log/slog"

	"github.com/decred/dcrd/dcrec/secp256k1/v4"
	secpecdsa "github.com/decred/dcrd/dcrec/secp256k1/v4/ecdsa"
)

// KeyType is the kind of a key. Its numbers are those of the protobuf messages:
// append only. Note that the zero value is RSA; take [Ed25519] unless there is a
// reason not to.
type KeyType uint8

// The kinds of keys. "Implementations MUST support Ed25519", so every peer knows
// that one.
const (
	RSA       KeyType = 0
	Ed25519   KeyType = 1
	Secp256k1 KeyType = 2
	ECDSA     KeyType = 3
)

// String returns the name of t in the spec.
func (t KeyType) String() string {
	switch t {
	case RSA:
		return "RSA"
	case Ed25519:
		return "Ed25519"
	case Secp256k1:
		return "Secp256k1"
	case ECDSA:
		return "ECDSA"
	}
	return fmt.Sprintf("KeyType(%d)", uint8(t))
}

// The sizes of RSA keys, in bits. Larger ones cost whoever verifies more than
// they are worth (CVE-2023-39533).
const (
	minRSA = 2048
	maxRSA = 8192
)

// PubKey is a public key. The zero value is no key; [PubKey.IsZero] tells.
// Compare keys with [PubKey.Equal]: == does not compile.
type PubKey struct {
	_   [0]func() // makes == an error, which would compare the pointer in std
	enc string    // the PublicKey message, in its one deterministic encoding
	std crypto.PublicKey
}

// PrivKey is a private key. The zero value is no key; [PrivKey.IsZero] tells.
//
// It never shows its secret when printed or logged, not even as an unexported
// field of something else: only [PrivKey.Raw] and [PrivKey.Bytes] give it out.
// Two keys are the same if their IDs are; == does not compile.
type PrivKey struct {
	// A func, since fmt looks into whatever else an unexported field holds: into
	// pointers too, when the verb does not fit them.
	open func() *privKey
}

type privKey struct {
	enc string // the PrivateKey message
	std crypto.PrivateKey
	pub PubKey
	id  ID
}

// GenerateKey makes a new key. RSA keys get 2048 bits, ECDSA keys the curve P-256.
// The error wraps [ErrKey] if t is unknown.
func GenerateKey(t KeyType) (PrivKey, error) {
	var std crypto.PrivateKey
	var err error
	switch t {
	case RSA:
		std, err = rsa.GenerateKey(rand.Reader, minRSA)
	case Ed25519:
		_, std, err = ed25519.GenerateKey(rand.Reader)
	case Secp256k1:
		std, err = secp256k1.GeneratePrivateKey()
	case ECDSA:
		std, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	default:
		return PrivKey{}, fmt.Errorf("%w: unknown type %s", ErrKey, t)
	}
	if err != nil {
		return PrivKey{}, fmt.Errorf("peer: generate an %s key: %w", t, err)
	}
	return NewPrivKey(std)
}

// NewPrivKey returns the key of an ed25519.PrivateKey, *rsa.PrivateKey or
// *ecdsa.PrivateKey, or of the *secp256k1.PrivateKey of decred. The caller must
// not change it any more. The error wraps [ErrKey].
func NewPrivKey(std crypto.PrivateKey) (PrivKey, error) {
	var (
		t   KeyType
		raw []byte
		pub crypto.PublicKey
		err error
	)
	switch k := std.(type) {
	case ed25519.PrivateKey:
		if len(k) != ed25519.PrivateKeySize {
			return PrivKey{}, fmt.Errorf("%w: Ed25519 private key of %d bytes", ErrKey, len(k))
		}
		// Signing with the public half of another key would give the secret away.
		if !k.Equal(ed25519.NewKeyFromSeed(k.Seed())) {
			return PrivKey{}, fmt.Errorf("%w: the halves of the Ed25519 key do not belong together", ErrKey)
		}
		t, raw, pub = Ed25519, k, k.Public()
	case *rsa.PrivateKey:
		if err := k.Validate(); err != nil {
			return PrivKey{}, fmt.Errorf("%w: %w", ErrKey, err)
		}
		t, raw, pub = RSA, x509.MarshalPKCS1PrivateKey(k), &k.PublicKey
	case *secp256k1.PrivateKey:
		if k.Key.IsZero() {
			return PrivKey{}, fmt.Errorf("%w: the Secp256k1 key is 0", ErrKey)
		}
		t, raw, pub = Secp256k1, k.Serialize(), k.PubKey()
	case *ecdsa.PrivateKey:
		t, pub = ECDSA, &k.PublicKey
		if raw, err = x509.MarshalECPrivateKey(k); err != nil {
			return PrivKey{}, fmt.Errorf("%w: %w", ErrKey, err)
		}
	default:
		return PrivKey{}, fmt.Errorf("%w: a %T is none", ErrKey, std)
	}
	pk, err := newPubKey(pub)
	if err != nil {
		return PrivKey{}, err
	}
	k := &privKey{enc: encodeKey(t, raw), std: std, pub: pk, id: pk.ID()}
	return PrivKey{open: func() *privKey { return k }}, nil
}

func newPubKey(std crypto.PublicKey) (PubKey, error) {
	switch k := std.(type) {
	case ed25519.PublicKey:
		if len(k) != ed25519.PublicKeySize {
			return PubKey{}, fmt.Errorf("%w: Ed25519 public key of %d bytes", ErrKey, len(k))
		}
		return PubKey{enc: headEd25519 + string(k)}, nil
	case *secp256k1.PublicKey:
		return PubKey{enc: headSecp256k1 + string(k.SerializeCompressed()), std: k}, nil
	case *rsa.PublicKey:
		if n := k.N.BitLen(); n < minRSA || n > maxRSA {
			return PubKey{}, fmt.Errorf("%w: RSA key of %d bits; %d to %d are taken", ErrKey, n, minRSA, maxRSA)
		}
		return newPKIXKey(RSA, k)
	case *ecdsa.PublicKey:
		return newPKIXKey(ECDSA, k)
	default:
		return PubKey{}, fmt.Errorf("%w: a %T is none", ErrKey, std)
	}
}

func newPKIXKey(t KeyType, std crypto.PublicKey) (PubKey, error) {
	der, err := x509.MarshalPKIXPublicKey(std)
	if err != nil {
		return PubKey{}, fmt.Errorf("%w: %w", ErrKey, err)
	}
	return PubKey{enc: encodeKey(t, der), std: std}, nil
}

// IsZero reports whether k is no key.
func (k PubKey) IsZero() bool { return k.enc == "" }

// Type returns the kind of k. It is of no meaning for the zero value.
func (k PubKey) Type() KeyType {
	if k.IsZero() {
		return 0
	}
	return KeyType(k.enc[1])
}

// Bytes returns the PublicKey message of k, the form in which it travels.
// [ParsePubKey] reads it.
func (k PubKey) Bytes() []byte { return []byte(k.enc) }

// Raw returns the bytes of k without its type: 32 bytes for Ed25519, a compressed
// point for secp256k1, and PKIX for RSA and ECDSA.
func (k PubKey) Raw() []byte { return rawKey(k.enc) }

// ID returns the ID that belongs to k, or "" for the zero value.
func (k PubKey) ID() ID {
	switch {
	case k.IsZero():
		return ""
	case len(k.enc) <= maxInline:
		return ID("\x00" + string(rune(len(k.enc))) + k.enc)
	}
	sum := sha256.Sum256([]byte(k.enc))
	return ID(hashed + string(sum[:]))
}

// Equal reports whether k and o are the same key.
func (k PubKey) Equal(o PubKey) bool { return k.enc == o.enc }

// String names the key by its ID: "Ed25519 public key of 12D3KooW…".
func (k PubKey) String() string {
	if k.IsZero() {
		return "no public key"
	}
	return fmt.Sprintf("%s public key of %s", k.Type(), k.ID())
}

// Std returns k as the type that the standard library has for it:
// ed25519.PublicKey, *rsa.PublicKey or *ecdsa.PublicKey. secp256k1, which it does
// not have, is a *secp256k1.PublicKey of decred; the zero value is nil.
func (k PubKey) Std() crypto.PublicKey {
	if !k.IsZero() && k.Type() == Ed25519 {
		return ed25519.PublicKey(k.enc[len(headEd25519):])
	}
	return k.std
}

// Verify returns nil if the owner of k made sig over msg, else [ErrSignature].
func (k PubKey) Verify(msg, sig []byte) error {
	ok := false
	switch std := k.std.(type) {
	case nil:
		ok = !k.IsZero() && ed25519.Verify(ed25519.PublicKey(k.enc[len(headEd25519):]), msg, sig)
	case *rsa.PublicKey:
		sum := sha256.Sum256(msg)
		ok = rsa.VerifyPKCS1v15(std, crypto.SHA256, sum[:], sig) == nil
	case *secp256k1.PublicKey:
		sum := sha256.Sum256(msg)
		s, err := secpecdsa.ParseDERSignature(sig)
		ok = err == nil && s.Verify(sum[:], std)
	case *ecdsa.PublicKey:
		sum := sha256.Sum256(msg)
		ok = ecdsa.VerifyASN1(std, sum[:], sig)
	}
	if !ok {
		return ErrSignature
	}
	return nil
}

// IsZero reports whether k is no key.
func (k PrivKey) IsZero() bool { return k.open == nil }

// Type returns the kind of k. It is of no meaning for the zero value.
func (k PrivKey) Type() KeyType { return k.Public().Type() }

// Public returns the public half of k; that of the zero value is the zero value.
func (k PrivKey) Public() PubKey {
	if k.open == nil {
		return PubKey{}
	}
	return k.open().pub
}

// ID returns the ID that belongs to k, or "" for the zero value.
func (k PrivKey) ID() ID {
	if k.open == nil {
		return ""
	}
	return k.open().id
}

// Bytes returns the PrivateKey message of k, the form in which key files have it.
// It is a secret. [ParsePrivKey] reads it.
func (k PrivKey) Bytes() []byte {
	if k.open == nil {
		return nil
	}
	return []byte(k.open().enc)
}

// Raw returns the bytes of k without its type: seed and public key for Ed25519,
// 32 bytes for secp256k1, PKCS #1 for RSA and SEC 1 for ECDSA. It is a secret.
func (k PrivKey) Raw() []byte {
	if k.open == nil {
		return nil
	}
	return rawKey(k.open().enc)
}

// Sign returns the signature of k over msg. It hashes msg itself: with SHA-256, or
// as Ed25519 does. The error wraps [ErrKey] for the zero value.
func (k PrivKey) Sign(msg []byte) ([]byte, error) {
	if k.open == nil {
		return nil, fmt.Errorf("%w: no key to sign with", ErrKey)
	}
	switch std := k.open().std.(type) {
	case ed25519.PrivateKey:
		return ed25519.Sign(std, msg), nil
	case *rsa.PrivateKey:
		sum := sha256.Sum256(msg)
		return rsa.SignPKCS1v15(nil, std, crypto.SHA256, sum[:])
	case *secp256k1.PrivateKey:
		sum := sha256.Sum256(msg)
		return secpecdsa.Sign(std, sum[:]).Serialize(), nil
	case *ecdsa.PrivateKey:
		sum := sha256.Sum256(msg)
		return ecdsa.SignASN1(rand.Reader, std, sum[:])
	}
	panic("unreachable: NewPrivKey makes no other")
}

// String names the key without its secret: "Ed25519 private key of 12D3KooW…".
func (k PrivKey) String() string {
	if k.open == nil {
		return "no private key"
	}
	return fmt.Sprintf("%s private key of %s", k.Type(), k.ID())
}

// Format prints [PrivKey.String] for every verb, so that none shows the secret.
func (k PrivKey) Format(s fmt.State, _ rune) { io.WriteString(s, k.String()) }

// LogValue makes slog print [PrivKey.String].
func (k PrivKey) LogValue() slog.Value { return slog.StringValue(k.String()) }
