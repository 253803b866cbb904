package peer

import (
	"fmt"
	"sync/atomic"
	"time"

	ma "github.com/multiformats/go-multiaddr"
)

// How peer records are signed. All deployed code uses these; RFC 0003 has a longer
// text for each.
const (
	RecordDomain = "libp2p-peer-record"
	RecordType   = "\x03\x01" // the multicodec libp2p-peer-record
)

// MaxRecordAddrs bounds the addresses of a record. [Record.Seal] refuses more,
// [OpenRecord] ignores further ones.
const MaxRecordAddrs = 64

// maxAddr bounds an address in a record, in bytes. The largest in use, a relayed
// WebTransport address with its certificate hashes, have some 250.
const maxAddr = 1 << 10

// Record says where a peer is reached, in its own words. Signed, it may be passed
// on by anybody.
type Record struct {
	ID    ID
	Seq   uint64 // a greater one replaces a lesser one; see [Sequence]
	Addrs []ma.Multiaddr
}

// Seal returns r in an envelope signed with key, which must be that of r.ID.
// Addresses without components are left out. The error wraps [ErrSigner] if the
// key is another, [ErrRecord] if there are more than [MaxRecordAddrs] addresses,
// and [ErrEnvelope] if they are too long together.
func (r Record) Seal(key PrivKey) ([]byte, error) {
	if r.ID != key.ID() || r.ID == "" {
		return nil, fmt.Errorf("%w: record of %q with the key of %q", ErrSigner, r.ID, key.ID())
	}
	if len(r.Addrs) > MaxRecordAddrs {
		return nil, fmt.Errorf("%w: %d addresses, at most %d are allowed", ErrRecord, len(r.Addrs), MaxRecordAddrs)
	}
	return Seal(key, RecordDomain, RecordType, r.append(nil))
}

// OpenRecord checks the signature of the record in the envelope b and returns it.
// It holds at most [MaxRecordAddrs] addresses, and none that this package cannot
// read. Whether it is newer than one that is known is for the caller to compare.
//
// The error wraps [ErrSigner] if the record is about another peer than its signer,
// [ErrRecord] if it is malformed, or is one of [OpenEnvelope].
func OpenRecord(b []byte) (Record, error) {
	// "If the signature is invalid, the envelope MUST be discarded without
	// deserializing the envelope payload."
	// https://github.com/libp2p/specs/blob/master/RFC/0003-routing-records.md#certification--verification
	signer, payload, err := OpenEnvelope(b, RecordDomain, RecordType)
	if err != nil {
		return Record{}, err
	}
	var r Record
	if err := r.parse(payload); err != nil {
		return Record{}, fmt.Errorf("%w: %w", ErrRecord, err)
	}
	// "If the public key in the envelope cannot derive the peer id contained in the
	// routing state record, the RoutingState MUST be discarded."
	if !r.ID.Matches(signer) {
		return Record{}, fmt.Errorf("%w: record of %q, signed by %s", ErrSigner, r.ID, signer.ID())
	}
	return r, nil
}

// A Sequence makes the sequence numbers of a host's records: the time in
// nanoseconds, so that they grow over restarts without being stored, and always
// more than the one before, whatever the clock does. The zero value is ready; it
// may be used concurrently.
type Sequence struct{ last atomic.Uint64 }

// Next returns the number for a record made now.
func (s *Sequence) Next(now time.Time) uint64 {
	for {
		last := s.last.Load()
		next := max(uint64(max(0, now.UnixNano())), last+1)
		if s.last.CompareAndSwap(last, next) {
			return next
		}
	}
}
