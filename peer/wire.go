package peer

import (
	"bytes"
	"crypto/ed25519"
	"crypto/x509"
	"errors"
	"fmt"

	"github.com/decred/dcrd/dcrec/secp256k1/v4"
	ma "github.com/multiformats/go-multiaddr"
	"github.com/multiformats/go-varint"

	"github.com/plexus-p2p/plexus/internal/pb"
)

// The messages of keys, public and private alike.
//
//	08 <type> 12 <uvarint len> <data>
//
// "[E]ncoding must be deterministic. […] Fields must be minimally encoded. […] Fields
// must be encoded in tag order (i.e., key type, then the key data). All fields must
// be included. No additional fields may be defined."
// https://github.com/libp2p/specs/blob/master/peer-ids/peer-ids.md#keys
const (
	headEd25519   = "\x08\x01\x12\x20" // and 32 bytes
	headSecp256k1 = "\x08\x02\x12\x21" // and 33 bytes

	maxPubKey  = 2 << 10 // bytes; an RSA key of 8192 bits takes 1062
	maxPrivKey = 8 << 10 // bytes; an RSA key of 8192 bits takes some 4700
)

func encodeKey(t KeyType, data []byte) string {
	b := make([]byte, 0, len(data)+8)
	b = pb.AppendUvarint(b, 1, uint64(t))
	return string(pb.AppendBytes(b, 2, data))
}

// decodeKey takes the message of a key apart. It returns an error for any but the
// deterministic encoding.
func decodeKey(b []byte) (KeyType, []byte, error) {
	if len(b) < 4 || b[0] != 0x08 || b[1] > uint8(ECDSA) || b[2] != 0x12 {
		return 0, nil, fmt.Errorf("%w: not the encoding of a key of a known type", ErrKey)
	}
	size, n, err := varint.FromUvarint(b[3:])
	data := b[3+n:]
	if err != nil || size != uint64(len(data)) {
		return 0, nil, fmt.Errorf("%w: the length is not that of the key", ErrKey)
	}
	return KeyType(b[1]), data, nil
}

// rawKey returns the data of a well-formed message.
func rawKey(enc string) []byte {
	_, data, _ := decodeKey([]byte(enc))
	return data
}

// ParsePubKey reads what [PubKey.Bytes] wrote, and only that: the deterministic
// encoding of a key of a known type and size. The error wraps [ErrKey].
func ParsePubKey(b []byte) (PubKey, error) {
	if len(b) > maxPubKey {
		return PubKey{}, fmt.Errorf("%w: public key of %d bytes", ErrKey, len(b))
	}
	t, data, err := decodeKey(b)
	if err != nil {
		return PubKey{}, err
	}
	var std any
	switch t {
	case Ed25519:
		std = ed25519.PublicKey(data)
	case Secp256k1:
		std, err = secp256k1.ParsePubKey(data)
	case RSA, ECDSA:
		std, err = x509.ParsePKIXPublicKey(data)
	}
	if err != nil {
		return PubKey{}, fmt.Errorf("%w: %s public key: %w", ErrKey, t, err)
	}
	k, err := newPubKey(std)
	if err != nil {
		return PubKey{}, err
	}
	// Catches another type within the PKIX, an uncompressed point, and whatever
	// DER lets pass: else one key would have several IDs.
	if k.enc != string(b) {
		return PubKey{}, fmt.Errorf("%w: not the one encoding of an %s public key", ErrKey, t)
	}
	return k, nil
}

// ParsePrivKey reads what [PrivKey.Bytes] wrote, and the form of Ed25519 keys that
// old versions of libp2p wrote. The error wraps [ErrKey].
func ParsePrivKey(b []byte) (PrivKey, error) {
	if len(b) > maxPrivKey {
		return PrivKey{}, fmt.Errorf("%w: private key of %d bytes", ErrKey, len(b))
	}
	t, data, err := decodeKey(b)
	if err != nil {
		return PrivKey{}, err
	}
	var std any
	switch t {
	case Ed25519:
		std, err = unredundant(data)
	case Secp256k1:
		var s secp256k1.ModNScalar
		if len(data) != 32 || s.SetByteSlice(data) { // which tells of an overflow
			err = errors.New("not a number below the order of the curve")
		}
		std = secp256k1.NewPrivateKey(&s)
	case RSA:
		std, err = x509.ParsePKCS1PrivateKey(data)
	case ECDSA:
		std, err = x509.ParseECPrivateKey(data)
	}
	if err != nil {
		return PrivKey{}, fmt.Errorf("%w: %s private key: %w", ErrKey, t, err)
	}
	return NewPrivKey(std)
}

// "Older versions of the libp2p code used the following format: [private
// key][public key][public key] (96 bytes). If you encounter this type of encoding,
// the proper way to process it is to compare the two public key strings (32 bytes
// each) and verify they are identical."
// https://github.com/libp2p/specs/blob/master/peer-ids/peer-ids.md#ed25519
func unredundant(data []byte) (ed25519.PrivateKey, error) {
	const size = ed25519.PrivateKeySize
	if len(data) == size+ed25519.PublicKeySize {
		if string(data[size:]) != string(data[size-ed25519.PublicKeySize:size]) {
			return nil, errors.New("the two copies of the public key differ")
		}
		data = data[:size]
	}
	return bytes.Clone(data), nil // the input is the caller's
}

// envelope is the message that holds something signed.
//
//	0a <len> <PublicKey>   the signer
//	12 <len> <type>        what the payload is
//	1a <len> <payload>
//	2a <len> <signature>   over domain, type and payload; there is no field 4
//
// https://github.com/libp2p/specs/blob/master/RFC/0002-signed-envelopes.md#wire-format
type envelope struct {
	key, typ, payload, sig []byte
}

func (e *envelope) append(b []byte) []byte {
	b = pb.AppendBytes(b, 1, e.key)
	if len(e.typ) > 0 {
		b = pb.AppendBytes(b, 2, e.typ)
	}
	if len(e.payload) > 0 {
		b = pb.AppendBytes(b, 3, e.payload)
	}
	return pb.AppendBytes(b, 5, e.sig)
}

func (e *envelope) parse(b []byte) error {
	d := pb.Decode(b)
	for d.Next() {
		switch d.Field() {
		case 1:
			e.key = d.Bytes()
		case 2:
			e.typ = d.Bytes()
		case 3:
			e.payload = d.Bytes()
		case 5:
			e.sig = d.Bytes()
		}
	}
	return d.Err()
}

// append appends the message of a record.
//
//	0a <len> <ID>
//	10 <uvarint seq>
//	1a <len> 0a <len> <address>   for each address
//
// https://github.com/libp2p/specs/blob/master/RFC/0003-routing-records.md#address-record-format
func (r *Record) append(b []byte) []byte {
	b = pb.AppendBytes(b, 1, r.ID)
	if r.Seq != 0 {
		b = pb.AppendUvarint(b, 2, r.Seq)
	}
	for _, a := range r.Addrs {
		// An address without components has no bytes, and js-libp2p would read
		// it as "/" and drop the record.
		if len(a) == 0 {
			continue
		}
		var at int
		b, at = pb.Begin(b, 3)
		b = pb.AppendBytes(b, 1, a.Bytes())
		b = pb.End(b, at)
	}
	return b
}

func (r *Record) parse(b []byte) error {
	d := pb.Decode(b)
	for d.Next() {
		switch d.Field() {
		case 1:
			id, err := FromBytes(d.Bytes())
			if err != nil {
				return err
			}
			r.ID = id
		case 2:
			r.Seq = d.Uvarint()
		case 3:
			if len(r.Addrs) == MaxRecordAddrs {
				continue
			}
			info := pb.Decode(d.Bytes())
			for info.Next() {
				if info.Field() != 1 || len(info.Bytes()) > maxAddr {
					continue
				}
				// An address of a protocol that we do not know is not an
				// error: the others may be of use.
				if a, err := ma.NewMultiaddrBytes(info.Bytes()); err == nil && len(a) > 0 {
					r.Addrs = append(r.Addrs, a)
				}
			}
			if err := info.Err(); err != nil {
				return err
			}
		}
	}
	return d.Err()
}
