package pubsub

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"math/bits"
	"slices"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/plexus-p2p/plexus/internal/pb"
	"github.com/plexus-p2p/plexus/peer"
)

// A MessageID identifies a message to all peers of its topic: any bytes.
type MessageID string

// A Message is what was published. It is shared by all who hold it, and none of its
// parts must be changed.
//
//	message Message {
//		optional bytes from = 1;
//		optional bytes data = 2;
//		optional bytes seqno = 3;
//		required string topic = 4;
//		optional bytes signature = 5;
//		optional bytes key = 6;
//	}
//
// https://github.com/libp2p/specs/blob/master/pubsub/README.md#the-message
type Message struct {
	ID    MessageID
	Topic string
	Data  []byte

	From      peer.ID // who published it; "" under StrictNoSign
	Seqno     []byte  // 8 bytes, big-endian
	Signature []byte
	Key       []byte // where From does not hold it

	// ReceivedFrom is the neighbour that the message came from first: this host's
	// own ID for what it published.
	ReceivedFrom peer.ID

	has   uint8  // the fields 1 to 6 that are there, as bits
	extra []byte // fields that we do not know, as they came: they are signed too
	raw   []byte // the message as it is sent
	frame []byte // an RPC with only this message, its length before it; ends in raw

	holders []*Peer // who sent it while it was being validated
}

// has bits.
const (
	hasFrom = 1 << (1 + iota)
	hasData
	hasSeqno
	hasTopic
	hasSignature
	hasKey
)

var errRepeated = errors.New("a field of a message occurs twice, or with another type")

// ParseMessage reads a message from its encoding. Where frame is not nil it is an RPC
// with nothing but the message, its length before it, and b is its end: then the
// message keeps that memory, otherwise it has its own. It sets neither ID nor
// ReceivedFrom. The error wraps pb.ErrMalformed.
func ParseMessage(b, frame []byte) (*Message, error) {
	m := new(Message)
	from, topic, canonical, err := m.parse(b)
	if err != nil {
		return nil, err
	}
	m.From, m.Topic = peer.ID(from), string(topic)
	m.keep(b, frame, canonical)
	return m, nil
}

// keep lets m, parsed from raw, be a message of its own.
func (m *Message) keep(raw, frame []byte, canonical bool) {
	switch {
	case !canonical:
		m.pack()
	case frame != nil:
		m.frame, m.raw = frame, raw
	default:
		m.hold(raw)
	}
}

// parse reads all fields but From and Topic, which it returns. Whoever forwards or
// verifies a message may encode it anew, fields in order and the unknown ones last,
// as protobuf libraries do: canonical tells whether that changes nothing. What two
// readers could read as two messages is malformed.
func (m *Message) parse(b []byte) (from, topic []byte, canonical bool, err error) {
	canonical = true
	size, last := 0, protowire.Number(0)
	for rest := b; len(rest) > 0; {
		num, typ, tag := protowire.ConsumeTag(rest)
		if tag < 0 {
			return nil, nil, false, malformed(protowire.ParseError(tag))
		}
		n := protowire.ConsumeFieldValue(num, typ, rest[tag:])
		if n < 0 {
			return nil, nil, false, malformed(protowire.ParseError(n))
		}
		if num < last {
			canonical = false
		}
		last = num
		field := rest[:tag+n]
		rest = rest[tag+n:]
		if num > 6 {
			m.extra = append(m.extra, field...)
			size += len(field)
			continue
		}
		if typ != protowire.BytesType || m.has&(1<<num) != 0 {
			return nil, nil, false, malformed(errRepeated)
		}
		v, _ := protowire.ConsumeBytes(field[tag:])
		v = slices.Clip(v)
		m.has |= 1 << num
		size += fieldSize(len(v))
		switch num {
		case 1:
			from = v
		case 2:
			m.Data = v
		case 3:
			m.Seqno = v
		case 4:
			topic = v
		case 5:
			m.Signature = v
		case 6:
			m.Key = v
		}
	}
	if len(topic) > maxTopic {
		return nil, nil, false, malformed(errTopic)
	}
	return from, topic, canonical && size == len(b), nil
}

// fieldSize is what a field of n bytes takes, its tag of one byte included.
func fieldSize(n int) int { return 1 + (bits.Len(uint(n)|1)+6)/7 + n }

// appendUnsigned appends the encoding of m without signature and key.
func (m *Message) appendUnsigned(b []byte) []byte {
	if m.has&hasFrom != 0 {
		b = pb.AppendBytes(b, 1, m.From)
	}
	if m.has&hasData != 0 {
		b = pb.AppendBytes(b, 2, m.Data)
	}
	if m.has&hasSeqno != 0 {
		b = pb.AppendBytes(b, 3, m.Seqno)
	}
	if m.has&hasTopic != 0 {
		b = pb.AppendBytes(b, 4, m.Topic)
	}
	return b
}

// Append appends the encoding of m to b.
func (m *Message) Append(b []byte) []byte {
	b = m.appendUnsigned(b)
	if m.has&hasSignature != 0 {
		b = pb.AppendBytes(b, 5, m.Signature)
	}
	if m.has&hasKey != 0 {
		b = pb.AppendBytes(b, 6, m.Key)
	}
	return append(b, m.extra...)
}

// pack encodes m, once for all peers, and lets its parts be parts of that.
func (m *Message) pack() { m.hold(m.Append(nil)) }

// hold puts raw, which is m's encoding, into a frame of m's own.
func (m *Message) hold(raw []byte) {
	field := fieldSize(len(raw))
	b := make([]byte, 0, binary.MaxVarintLen32+field)
	b = binary.AppendUvarint(b, uint64(field))
	b = pb.AppendBytes(b, 2, raw)
	m.frame = b
	m.raw = b[len(b)-len(raw):]
	own := Message{} // the parts of raw that m's fields are
	own.parse(m.raw)
	m.Data, m.Seqno, m.Signature, m.Key, m.extra = own.Data, own.Seqno, own.Signature, own.Key, own.extra
}

// NewMessage makes a message without an author, as under StrictNoSign. It has no ID yet.
func NewMessage(topic string, data []byte) *Message {
	m := &Message{Topic: topic, Data: data, has: hasData | hasTopic}
	m.pack()
	return m
}

// Size is how many bytes m takes on the wire.
func (m *Message) Size() int { return len(m.frame) }

// HeldBy reports whether p has sent m too, so that nobody needs to send it to p.
func (m *Message) HeldBy(p *Peer) bool {
	for _, h := range m.holders {
		if h == p {
			return true
		}
	}
	return false
}

// A Policy says how messages of a topic are signed.
//
// https://github.com/libp2p/specs/blob/master/pubsub/README.md#signature-policy-options
type Policy uint8

const (
	// StrictSign, the default: every message has an author and a signature.
	StrictSign Policy = 1
	// StrictNoSign: no message has an author, a sequence number or a signature.
	StrictNoSign Policy = 2
)

// Why a message does not meet its topic's policy.
var (
	ErrUnsigned  = errors.New("pubsub: signature, author or sequence number is missing")
	ErrSigned    = errors.New("pubsub: signature, author, sequence number or key where there must be none")
	ErrSignature = errors.New("pubsub: the signature does not verify")
)

// signDomain is what the signed bytes begin with.
const signDomain = "libp2p-pubsub:"

// check checks what can be checked without arithmetic. from is the length of m's
// author's ID.
func (p Policy) check(m *Message, from int) error {
	if p == StrictNoSign {
		// "Enforce the fields to be absent, reject otherwise."
		if m.has&(hasFrom|hasSeqno|hasSignature|hasKey) != 0 {
			return ErrSigned
		}
		return nil
	}
	// "Enforce the fields to be present, reject otherwise."
	if from == 0 || len(m.Seqno) == 0 || len(m.Signature) == 0 {
		return ErrUnsigned
	}
	// It should have 8 bytes; js-libp2p's floodsub leaves out the leading ones that are 0.
	if len(m.Seqno) > 8 {
		return fmt.Errorf("%w: a sequence number of %d bytes", ErrUnsigned, len(m.Seqno))
	}
	return nil
}

// appendSigned appends the bytes that m's author signs.
//
// "The signature is computed over the marshalled message protobuf excluding the
// signature field itself. This includes any fields that are not recognized", and
// excluding the key, which the text does not say and everybody does.
func (m *Message) appendSigned(b []byte) []byte {
	b = append(b, signDomain...)
	b = m.appendUnsigned(b)
	return append(b, m.extra...)
}

// sign makes m a message of key's owner.
func (m *Message) sign(key peer.PrivKey, seqno uint64) error {
	m.From = key.ID()
	m.Seqno = binary.BigEndian.AppendUint64(nil, seqno)
	m.has |= hasFrom | hasSeqno
	sig, err := key.Sign(m.appendSigned(make([]byte, 0, len(signDomain)+len(m.Data)+len(m.Topic)+96)))
	if err != nil {
		return err
	}
	m.Signature = sig
	m.has |= hasSignature
	if _, err := m.From.Key(); err != nil {
		// "The key field contains the signing key when it cannot be inlined in the
		// source peer ID (from)."
		m.Key = key.Public().Bytes()
		m.has |= hasKey
	}
	return nil
}

// authorKey is the key that m must be signed with.
func (m *Message) authorKey() (peer.PubKey, error) {
	if len(m.Key) == 0 {
		return m.From.Key()
	}
	k, err := peer.ParsePubKey(m.Key)
	if err != nil {
		return peer.PubKey{}, err
	}
	// "When present, it must match the peer ID."
	if !m.From.Matches(k) {
		return peer.PubKey{}, errors.New("the key is not the author's")
	}
	return k, nil
}

// appendDefaultID appends the ID of messages that have an author.
//
// "This strategy relies on the string concatenation of the from and seqno fields"
func appendDefaultID(b, from, seqno []byte) []byte {
	return append(append(b, from...), seqno...)
}

// DataID identifies a message by the SHA-256 of its data, as js-libp2p does for
// messages without an author.
func DataID(m *Message) MessageID {
	sum := sha256.Sum256(m.Data)
	return MessageID(sum[:])
}
