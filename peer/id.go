package peer

import (
	"crypto/sha256"
	"fmt"
	"log/slog"
	"strings"

	"github.com/ipfs/go-cid"
	"github.com/multiformats/go-multihash"
)

// ID is the identity of a peer: the multihash of its public key, as bytes. It is
// comparable and a good map key. The zero value "" is nobody.
//
// An ID that comes from [FromBytes], [Parse] or a key is well-formed. One that was
// converted from a string may be not; [ID.Validate] tells.
type ID string

// The three forms of an ID. "Keys that serialize to more than 42 bytes must be
// hashed using sha256 multihash, keys that serialize to at most 42 bytes must be
// hashed using the "identity" multihash codec."
// https://github.com/libp2p/specs/blob/master/peer-ids/peer-ids.md#peer-ids
//
//	00 24 08 01 12 20 <32 bytes>   identity, 36 bytes: PublicKey{Ed25519, 32 bytes}
//	00 25 08 02 12 21 <33 bytes>   identity, 37 bytes: PublicKey{Secp256k1, 33 bytes}
//	12 20 <32 bytes>               sha2-256, 32 bytes: any other key
const (
	maxInline = 42 // bytes of an encoded public key

	inlineEd25519   = "\x00\x24" + headEd25519
	inlineSecp256k1 = "\x00\x25" + headSecp256k1
	hashed          = "\x12\x20"

	maxID   = len(inlineSecp256k1) + 33
	maxText = 512 // bytes; an ID takes 337 in base 2, the longest multibase
	short   = 8   // characters of [ID.Short]
)

// FromBytes returns the ID with the given bytes, as it stands in messages.
// The error wraps [ErrID].
func FromBytes(b []byte) (ID, error) {
	if len(b) > maxID {
		return "", fmt.Errorf("%w: %d bytes", ErrID, len(b))
	}
	id := ID(b)
	if err := id.Validate(); err != nil {
		return "", err
	}
	return id, nil
}

// Parse reads an ID from its text: base58btc ("12D3KooW…", "16Uiu2…", "Qm…") or a
// CID in any multibase ("bafz…", "k51…"). The error wraps [ErrID].
func Parse(s string) (ID, error) {
	if len(s) > maxText {
		return "", fmt.Errorf("%w: text of %d bytes", ErrID, len(s))
	}
	var b []byte
	var err error
	// "If it starts with 1 or Qm, it's a bare base58btc encoded multihash. […] If
	// it starts with a multibase prefix, it's a CIDv1 CID."
	// https://github.com/libp2p/specs/blob/master/peer-ids/peer-ids.md#decoding
	if strings.HasPrefix(s, "1") || strings.HasPrefix(s, "Qm") {
		b, err = multihash.FromB58String(s)
	} else if c, fault := cid.Decode(s); fault != nil {
		err = fault
	} else if b = c.Hash(); c.Type() != cid.Libp2pKey {
		return "", fmt.Errorf("%w: %q is not a CIDv1 of a libp2p-key", ErrID, s)
	}
	if err != nil {
		return "", fmt.Errorf("%w: %q: %w", ErrID, s, err)
	}
	return FromBytes(b)
}

// Validate returns nil if id is well-formed, else an error that wraps [ErrID].
func (id ID) Validate() error {
	switch {
	case len(id) == len(hashed)+sha256.Size && id[:len(hashed)] == hashed,
		len(id) == len(inlineEd25519)+32 && id[:len(inlineEd25519)] == inlineEd25519,
		len(id) == len(inlineSecp256k1)+33 && id[:len(inlineSecp256k1)] == inlineSecp256k1 && (id[6] == 2 || id[6] == 3):
		return nil
	case id == "":
		return fmt.Errorf("%w: it is empty", ErrID)
	case id[0] == 0:
		return fmt.Errorf("%w: identity multihash of %d bytes that is no short key", ErrID, len(id))
	default:
		return fmt.Errorf("%w: %d bytes that are no sha2-256 multihash", ErrID, len(id))
	}
}

// Key returns the public key that id holds. The error wraps [ErrNoKey] if id is a
// hash, which it is for RSA and ECDSA keys; [ErrKey] if no such key can exist; and
// [ErrID] if id is malformed.
func (id ID) Key() (PubKey, error) {
	if err := id.Validate(); err != nil {
		return PubKey{}, err
	}
	if id[0] != 0 {
		return PubKey{}, ErrNoKey
	}
	return ParsePubKey([]byte(id[2:]))
}

// Matches reports whether k is the key of id.
func (id ID) Matches(k PubKey) bool {
	if k.IsZero() {
		return false
	}
	if len(k.enc) <= maxInline {
		return len(id) == 2+len(k.enc) && id[0] == 0 && int(id[1]) == len(k.enc) && string(id[2:]) == k.enc
	}
	sum := sha256.Sum256([]byte(k.enc))
	return len(id) == len(hashed)+len(sum) && id[:len(hashed)] == hashed && string(id[len(hashed):]) == string(sum[:])
}

// String returns id in base58btc, the form that peers show to each other.
//
// "Implementations SHOULD display peer IDs using the first (raw base58btc encoded
// multihash) format until the second format is widely supported."
// https://github.com/libp2p/specs/blob/master/peer-ids/peer-ids.md#string-representation
func (id ID) String() string {
	var a [maxID]byte // a conversion of more than 32 bytes would allocate
	return multihash.Multihash(append(a[:0], id...)).B58String()
}

// CID returns id as a CID in base 32 ("bafz…"), the form that fits in names that
// know no upper case, such as DNS names.
func (id ID) CID() string {
	return cid.NewCidV1(cid.Libp2pKey, multihash.Multihash(id)).String()
}

// Short returns the last 8 characters of [ID.String]: enough to tell peers apart
// in a log, not to identify one.
func (id ID) Short() string {
	s := id.String()
	return s[max(0, len(s)-short):]
}

// LogValue makes slog print the short form.
func (id ID) LogValue() slog.Value { return slog.StringValue(id.Short()) }

// MarshalText returns [ID.String], so that an ID is a text in JSON. As the key of a
// JSON object it is not: encoding/json takes the bytes of a string type there.
func (id ID) MarshalText() ([]byte, error) { return []byte(id.String()), nil }

// UnmarshalText reads what [Parse] reads, and the empty text as the zero value.
func (id *ID) UnmarshalText(b []byte) error {
	if len(b) == 0 {
		*id = ""
		return nil
	}
	v, err := Parse(string(b))
	if err != nil {
		return err
	}
	*id = v
	return nil
}
