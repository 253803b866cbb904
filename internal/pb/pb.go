// Package pb helps to write codecs for protobuf messages by hand.
//
// Each wire.go of plexus is a pair of functions, append and parse, over this
// package. Appending is a call for each field, in the order of the field numbers:
//
//	b = pb.AppendUvarint(b, 1, m.kind)
//	b = pb.AppendBytes(b, 2, m.data)
//
// Parsing is one loop, which allocates nothing itself:
//
//	d := pb.Decode(b)
//	for d.Next() {
//		switch d.Field() {
//		case 1:
//			m.kind = d.Uvarint()
//		case 2:
//			m.data = d.Bytes()
//		}
//	}
//	return d.Err()
//
// Spec: https://protobuf.dev/programming-guides/encoding/
//
// # Limits
//
// Fields with numbers that the loop does not name are skipped, as protobuf asks.
// Groups are malformed here: protobuf gave them up, and no message of libp2p has
// them. Packed, signed (zigzag) and fixed-size values can be skipped but not read,
// until a message needs them.
package pb

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"google.golang.org/protobuf/encoding/protowire"
)

// ErrMalformed is what every error about malformed input wraps.
var ErrMalformed = errors.New("pb: malformed message")

// AppendBytes appends the field num with the value v to b, also when v is empty:
// whether an empty field is left out is the message's rule, not protobuf's.
// It serves for bytes, strings and nested messages.
func AppendBytes[T ~[]byte | ~string](b []byte, num int, v T) []byte {
	b = protowire.AppendTag(b, protowire.Number(num), protowire.BytesType)
	b = binary.AppendUvarint(b, uint64(len(v)))
	return append(b, v...)
}

// AppendUvarint appends the field num with the value v to b, also when v is 0.
// It serves for unsigned integers and enums.
func AppendUvarint(b []byte, num int, v uint64) []byte {
	b = protowire.AppendTag(b, protowire.Number(num), protowire.VarintType)
	return binary.AppendUvarint(b, v)
}

// AppendBool appends the field num with the value v to b, also when v is false.
func AppendBool(b []byte, num int, v bool) []byte {
	return AppendUvarint(b, num, protowire.EncodeBool(v))
}

// Begin starts a nested message in the field num. What is appended to the
// returned slice until [End] is called with the returned position is its content.
// Nesting needs neither a second buffer nor the size in advance.
func Begin(b []byte, num int) ([]byte, int) {
	return BeginDelimited(protowire.AppendTag(b, protowire.Number(num), protowire.BytesType))
}

// End ends the nested or delimited message that began at the given position.
func End(b []byte, at int) []byte {
	n := len(b) - at
	var l [binary.MaxVarintLen64]byte
	size := binary.PutUvarint(l[:], uint64(n))
	// One byte is held free for the length, which is enough for the most messages.
	if size > 1 {
		b = append(b, l[:size-1]...) // any bytes: it grows b by as many as are missing
		copy(b[at+size-1:], b[at:at+n])
	}
	copy(b[at-1:], l[:size])
	return b
}

// A Decoder walks over the fields of one message. It belongs to one goroutine;
// the zero value is a decoder of the empty message.
type Decoder struct {
	b    []byte // what follows the current field
	num  protowire.Number
	typ  protowire.Type
	n    uint64 // value of the current field, when it is a varint
	data []byte // value of the current field, when it is bytes
	err  error
}

// Decode returns a decoder for the message b, which must not change while the
// decoder or a slice that it returned is in use.
func Decode(b []byte) Decoder { return Decoder{b: b} }

// Next moves on to the next field. It returns false at the end of the message and
// at the first malformed field; [Decoder.Err] tells the two apart.
func (d *Decoder) Next() bool {
	if d.err != nil || len(d.b) == 0 {
		return false
	}
	num, typ, n := protowire.ConsumeTag(d.b)
	if n < 0 {
		d.fail("after field", protowire.ParseError(n))
		return false
	}
	d.b, d.num, d.typ, d.n, d.data = d.b[n:], num, typ, 0, nil
	switch typ {
	case protowire.VarintType:
		d.n, n = protowire.ConsumeVarint(d.b)
	case protowire.BytesType:
		d.data, n = protowire.ConsumeBytes(d.b)
	case protowire.Fixed32Type:
		_, n = protowire.ConsumeFixed32(d.b)
	case protowire.Fixed64Type:
		_, n = protowire.ConsumeFixed64(d.b)
	default:
		d.fail("field", errGroup)
		return false
	}
	if n < 0 {
		d.fail("field", protowire.ParseError(n))
		return false
	}
	d.b = d.b[n:]
	return true
}

// Field returns the number of the current field.
func (d *Decoder) Field() int { return int(d.num) }

// Uvarint returns the value of the current field, an unsigned integer or enum.
// A field of another type is malformed and ends the walk.
func (d *Decoder) Uvarint() uint64 {
	d.want(protowire.VarintType)
	return d.n
}

// Bool returns the value of the current field.
// A field of another type is malformed and ends the walk.
func (d *Decoder) Bool() bool { return d.Uvarint() != 0 }

// Bytes returns the value of the current field, bytes or a nested message: a
// part of the input, not a copy, and never nil unless the field is malformed.
// A field of another type is malformed and ends the walk.
func (d *Decoder) Bytes() []byte {
	d.want(protowire.BytesType)
	return slices.Clip(d.data) // an append must not write over the next field
}

// Text returns the value of the current field as a string. It does not check for
// UTF-8: deployed peers put bytes into fields that are strings by the letter.
// A field of another type is malformed and ends the walk.
func (d *Decoder) Text() string { return string(d.Bytes()) }

// Err returns nil if each field until now was well-formed, else an error that
// wraps [ErrMalformed].
func (d *Decoder) Err() error { return d.err }

var (
	errGroup = errors.New("a group, or no wire type at all")
	errType  = errors.New("not of the type that this field has")
)

// want checks the type of the current field. protobuf's own parsers treat a known
// field of the wrong type as unknown; no sane sender makes one, so refusing it
// keeps two parsers from reading two things in one message.
func (d *Decoder) want(typ protowire.Type) {
	if d.typ != typ && d.err == nil {
		d.fail("field", errType)
	}
}

func (d *Decoder) fail(where string, err error) {
	d.err = fmt.Errorf("%w: %s %d: %w", ErrMalformed, where, d.num, err)
	d.b, d.n, d.data = nil, 0, nil
}
