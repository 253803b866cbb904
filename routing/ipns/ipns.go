// Package ipns is values under peer IDs: a path, signed by the peer, with a sequence
// number and a time at which it ends.
//
//	b, err := ipns.Seal(key, ipns.Record{Value: "/ipfs/bafk…", Sequence: 1, Until: time.Now().Add(48 * time.Hour)})
//	err = r.Put(ctx, ipns.Key(key.ID()), b)
//
// Spec: https://specs.ipfs.tech/ipns/ipns-record/
//
// # Limits
//
// Records are made in version 2 alone, which all current implementations take, and
// without custom fields, which are ignored in others' records. The legacy fields of
// version 1 must agree with the signed ones where they are there.
package ipns

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/fxamacker/cbor/v2"

	"github.com/plexus-p2p/plexus/internal/pb"
	"github.com/plexus-p2p/plexus/peer"
	"github.com/plexus-p2p/plexus/routing"
)

// Prefix is what the keys of records begin with.
const Prefix = "/ipns/"

// MaxRecord bounds a record, in bytes.
//
// "Implementations MUST support sending and receiving a serialized IpnsEntry less than
// or equal to 10 KiB in size. Records over the limit MAY be ignored."
const MaxRecord = 10 << 10

// signDomain is what the signed bytes begin with.
const signDomain = "ipns-signature:"

// Key is where the record of a peer stands: the ID is in it in its bytes.
func Key(id peer.ID) string { return Prefix + string(id) }

// A Record is what a peer says under its ID.
type Record struct {
	Value    string        // a path, such as "/ipfs/bafk…"
	Sequence uint64        // a greater one replaces a lesser one
	Until    time.Time     // when it ends
	TTL      time.Duration // how long it may be kept without asking anew; a hint
}

// signed is the DAG-CBOR that the signature is over.
type signed struct {
	Value        []byte `cbor:"Value"`
	Validity     []byte `cbor:"Validity"`
	ValidityType uint64 `cbor:"ValidityType"`
	Sequence     uint64 `cbor:"Sequence"`
	TTL          uint64 `cbor:"TTL"`
}

// encoder makes DAG-CBOR: "make sure the CBOR field order follows [RFC 7049] sorting
// rules: length and then bytewise".
var encoder = sync.OnceValue(func() cbor.EncMode {
	m, err := cbor.EncOptions{Sort: cbor.SortLengthFirst}.EncMode()
	if err != nil {
		panic(err) // the options are constant
	}
	return m
})

// decoder takes maps of bytes and numbers, with whatever else small in them.
var decoder = sync.OnceValue(func() cbor.DecMode {
	m, err := cbor.DecOptions{
		DupMapKey: cbor.DupMapKeyEnforcedAPF, IndefLength: cbor.IndefLengthForbidden,
		MaxNestedLevels: 8, MaxMapPairs: 128, MaxArrayElements: 1024,
		FieldNameMatching: cbor.FieldNameMatchingCaseSensitive,
	}.DecMode()
	if err != nil {
		panic(err)
	}
	return m
})

// Seal returns r signed with key: a value for [Key] of its owner.
func Seal(key peer.PrivKey, r Record) ([]byte, error) {
	if r.TTL < 0 {
		return nil, errors.New("ipns: a negative TTL")
	}
	data, err := encoder().Marshal(signed{
		Value: []byte(r.Value), Validity: []byte(r.Until.UTC().Format(time.RFC3339Nano)), Sequence: r.Sequence, TTL: uint64(r.TTL),
	})
	if err != nil {
		return nil, err
	}
	sig, err := key.Sign(append([]byte(signDomain), data...))
	if err != nil {
		return nil, err
	}
	var b []byte
	if _, err := key.ID().Key(); err != nil {
		// "The public key MUST be included if it cannot be extracted from the IPNS name".
		b = pb.AppendBytes(b, 7, key.Public().Bytes())
	}
	b = pb.AppendBytes(b, 8, sig)
	b = pb.AppendBytes(b, 9, data)
	if len(b) > MaxRecord {
		return nil, fmt.Errorf("%w: %d bytes, at most %d are allowed", routing.ErrInvalid, len(b), MaxRecord)
	}
	return b, nil
}

// An entry is
//
//	message IpnsEntry {
//		bytes value = 1;
//		bytes signatureV1 = 2;
//		ValidityType validityType = 3;
//		bytes validity = 4;
//		uint64 sequence = 5;
//		uint64 ttl = 6;
//		bytes pubKey = 7;
//		bytes signatureV2 = 8;
//		bytes data = 9;
//	}
type entry struct {
	value, sig1, validity, key, sig, data []byte
	validityType, sequence, ttl           uint64
}

func (e *entry) parse(b []byte) error {
	d := pb.Decode(b)
	for d.Next() {
		switch d.Field() {
		case 1:
			e.value = d.Bytes()
		case 2:
			e.sig1 = d.Bytes()
		case 3:
			e.validityType = d.Uvarint()
		case 4:
			e.validity = d.Bytes()
		case 5:
			e.sequence = d.Uvarint()
		case 6:
			e.ttl = d.Uvarint()
		case 7:
			e.key = d.Bytes()
		case 8:
			e.sig = d.Bytes()
		case 9:
			e.data = d.Bytes()
		}
	}
	return d.Err()
}

// parse reads a record without checking who signed it.
func parse(b []byte) (e entry, s signed, r Record, err error) {
	// "Before parsing the protobuf, confirm that the serialized IpnsEntry bytes sum to less
	// than or equal to the size limit."
	if len(b) > MaxRecord {
		return e, s, r, fmt.Errorf("%d bytes, at most %d are taken", len(b), MaxRecord)
	}
	if err := e.parse(b); err != nil {
		return e, s, r, err
	}
	// "Confirm IpnsEntry.signatureV2 and IpnsEntry.data are present and are not empty"
	if len(e.sig) == 0 || len(e.data) == 0 {
		return e, s, r, errors.New("no signature or no data")
	}
	if err := decoder().Unmarshal(e.data, &s); err != nil {
		return e, s, r, err
	}
	if s.ValidityType != 0 {
		return e, s, r, fmt.Errorf("validity type %d", s.ValidityType)
	}
	until, err := time.Parse(time.RFC3339Nano, string(s.Validity))
	if err != nil {
		return e, s, r, errors.New("validity is no time")
	}
	if s.TTL > 1<<63-1 {
		return e, s, r, errors.New("a negative TTL")
	}
	return e, s, Record{Value: string(s.Value), Sequence: s.Sequence, Until: until, TTL: time.Duration(s.TTL)}, nil
}

// Open checks that id signed the record b, and that it is valid at a time. The error
// wraps routing.ErrInvalid or routing.ErrExpired.
func Open(id peer.ID, b []byte, now time.Time) (Record, error) {
	r, err := open(id, b)
	if err != nil {
		return Record{}, fmt.Errorf("%w: ipns: %w", routing.ErrInvalid, err)
	}
	if now.After(r.Until) {
		return Record{}, fmt.Errorf("%w: ipns: it ended %s", routing.ErrExpired, r.Until.UTC().Format(time.RFC3339))
	}
	return r, nil
}

func open(id peer.ID, b []byte) (Record, error) {
	e, s, r, err := parse(b)
	if err != nil {
		return Record{}, err
	}
	key, err := id.Key()
	if err != nil {
		if key, err = peer.ParsePubKey(e.key); err != nil {
			return Record{}, err
		}
	} else if len(e.key) > 0 && !bytes.Equal(e.key, key.Bytes()) {
		return Record{}, errors.New("the key is not that of the name")
	}
	if !id.Matches(key) {
		return Record{}, errors.New("the key is not that of the name")
	}
	if err := key.Verify(append([]byte(signDomain), e.data...), e.sig); err != nil {
		return Record{}, err
	}
	// "If IpnsEntry.signatureV1 or IpnsEntry.value is present, confirm the values in
	// IpnsEntry protobuf match deserialized ones from IpnsEntry.data"
	if len(e.sig1) > 0 || len(e.value) > 0 {
		if !bytes.Equal(e.value, s.Value) || !bytes.Equal(e.validity, s.Validity) ||
			e.validityType != s.ValidityType || e.sequence != s.Sequence || e.ttl != s.TTL {
			return Record{}, errors.New("its fields of version 1 say something else than the signed ones")
		}
	}
	return r, nil
}

// Validator is a routing.Validator for keys that [Key] makes.
type Validator struct{}

// Validate implements routing.Validator.
func (Validator) Validate(key string, value []byte, now time.Time) (until time.Time, err error) {
	raw, ok := strings.CutPrefix(key, Prefix)
	if !ok {
		return until, fmt.Errorf("%w: %.40q", routing.ErrNamespace, key)
	}
	id, err := peer.FromBytes([]byte(raw))
	if err != nil {
		return until, fmt.Errorf("%w: ipns: the key is no peer ID", routing.ErrInvalid)
	}
	r, err := Open(id, value, now)
	return r.Until, err
}

// Compare implements routing.Validator.
//
// Where sequence and validity are the same, the bytes decide, as in other implementations.
func (Validator) Compare(_ string, a, b []byte) int {
	_, _, x, errA := parse(a)
	_, _, y, errB := parse(b)
	if errA != nil || errB != nil {
		return cmp.Compare(okay(errA), okay(errB))
	}
	return cmp.Or(cmp.Compare(x.Sequence, y.Sequence), x.Until.Compare(y.Until), bytes.Compare(a, b))
}

func okay(err error) int {
	if err == nil {
		return 1
	}
	return 0
}
