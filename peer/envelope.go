package peer

import (
	"fmt"

	"github.com/plexus-p2p/plexus/internal/pb"
)

// MaxEnvelopeSize bounds a signed envelope, in bytes. It is what go-libp2p takes
// for a whole Identify message, so nobody sends more.
const MaxEnvelopeSize = 8 << 10

// Seal returns payload in an envelope signed with key: bytes for others to pass on
// and for anybody to [OpenEnvelope].
//
// "A signature made for a specific purpose MUST NOT be considered valid for a
// different purpose": domain names the purpose. It is not in the envelope and must
// not be empty. payloadType says what the payload is, in the bytes of a multicodec.
//
// The error wraps [ErrKey] if key is zero, and [ErrEnvelope] if domain is empty or
// the result larger than [MaxEnvelopeSize].
func Seal(key PrivKey, domain, payloadType string, payload []byte) ([]byte, error) {
	if domain == "" {
		return nil, fmt.Errorf("%w: sealed without a domain", ErrEnvelope)
	}
	e := envelope{key: key.Public().Bytes(), typ: []byte(payloadType), payload: payload}
	var err error
	if e.sig, err = key.Sign(e.signed(domain)); err != nil {
		return nil, err
	}
	b := e.append(make([]byte, 0, len(e.key)+len(e.typ)+len(e.payload)+len(e.sig)+16))
	if len(b) > MaxEnvelopeSize {
		return nil, fmt.Errorf("%w: %d bytes, at most %d are allowed", ErrEnvelope, len(b), MaxEnvelopeSize)
	}
	return b, nil
}

// OpenEnvelope checks that b is an envelope for this domain and payload type and
// returns who signed it, and what. The payload is a part of b, not a copy.
//
// That the signature verifies says nothing on who the signer is: the caller
// compares. [OpenRecord] does that for peer records.
//
// The error wraps [ErrEnvelope], [ErrKey] or [ErrSignature]; the last also stands
// for an envelope of another domain.
func OpenEnvelope(b []byte, domain, payloadType string) (signer PubKey, payload []byte, err error) {
	if len(b) > MaxEnvelopeSize {
		return PubKey{}, nil, fmt.Errorf("%w: %d bytes, at most %d are taken", ErrEnvelope, len(b), MaxEnvelopeSize)
	}
	var e envelope
	if err := e.parse(b); err != nil {
		return PubKey{}, nil, fmt.Errorf("%w: %w", ErrEnvelope, err)
	}
	// Cheap checks come first: verifying is what costs.
	if string(e.typ) != payloadType {
		return PubKey{}, nil, fmt.Errorf("%w: payload type %x, want %x", ErrEnvelope, e.typ, payloadType)
	}
	signer, err = ParsePubKey(e.key)
	if err != nil {
		return PubKey{}, nil, err
	}
	if err := signer.Verify(e.signed(domain), e.sig); err != nil {
		return PubKey{}, nil, fmt.Errorf("%w: envelope of %s in domain %q", err, signer.ID(), domain)
	}
	return signer, e.payload, nil
}

// signed returns what the signature is over.
//
// "The length of the domain separation string in bytes; the domain separation
// string, encoded as UTF-8; the length of the payload_type field in bytes; the
// value of the payload_type field; the length of the payload field in bytes; the
// value of the payload field"
// https://github.com/libp2p/specs/blob/master/RFC/0002-signed-envelopes.md#signature-production--verification
func (e *envelope) signed(domain string) []byte {
	b := make([]byte, 0, len(domain)+len(e.typ)+len(e.payload)+9)
	b = pb.AppendDelimited(b, domain)
	b = pb.AppendDelimited(b, e.typ)
	return pb.AppendDelimited(b, e.payload)
}
