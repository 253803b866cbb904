package identify

import (
	"bytes"
	"unicode/utf8"

	"github.com/plexus-p2p/plexus/internal/pb"
)

// What is taken of a peer. go-libp2p takes the same.
const (
	maxMessage   = 8 << 10 // bytes
	maxMessages  = 10      // of one answer or push; their fields are merged
	maxText      = 128     // code points, https://github.com/libp2p/specs/pull/491
	maxProtocols = 1024    // further ones are ignored
	maxAddrs     = 500     // further ones are ignored
)

// What is sent to a peer. rust-libp2p takes 4 KiB and reads one message, so the
// first one holds what matters; the signed record repeats addresses and may be
// missed.
const (
	sendMessage  = 4 << 10 // bytes of a message
	sendTogether = 2 << 10 // up to so many bytes the record stands with the rest
	sendObserved = 256     // bytes kept free for the observed address; larger ones are left out
	sendAddrs    = 2 << 10 // bytes of addresses: half of the first message
)

// A message is one Identify message, or several merged.
//
//	message Identify {
//		optional bytes publicKey = 1;
//		repeated bytes listenAddrs = 2;
//		repeated string protocols = 3;
//		optional bytes observedAddr = 4;
//		optional string protocolVersion = 5;
//		optional string agentVersion = 6;
//		optional bytes signedPeerRecord = 8;
//	}
//
// A field that is empty was not sent.
//
// https://github.com/libp2p/specs/blob/master/identify/README.md#the-identify-message
type message struct {
	key       []byte
	addrs     [][]byte
	protocols [][]byte
	observed  []byte
	version   []byte
	agent     []byte
	record    []byte
}

// parse reads b into m, whose fields become parts of b. Several messages, one
// behind the other, are one message with their fields merged: that is how
// protobuf defines merging.
//
// Protocol IDs that are longer than anybody's, and whatever exceeds the number of
// protocols and addresses, are left out.
func (m *message) parse(b []byte) error {
	d := pb.Decode(b)
	for d.Next() {
		switch d.Field() {
		case 1:
			m.key = d.Bytes()
		case 2:
			if a := d.Bytes(); len(a) > 0 && len(m.addrs) < maxAddrs {
				m.addrs = append(m.addrs, a)
			}
		case 3:
			if p := d.Bytes(); len(p) > 0 && len(m.protocols) < maxProtocols && !tooLong(p) {
				m.protocols = append(m.protocols, p)
			}
		case 4:
			m.observed = d.Bytes()
		case 5:
			m.version = d.Bytes()
		case 6:
			m.agent = d.Bytes()
		case 8:
			m.record = d.Bytes()
		}
	}
	return d.Err()
}

// reset empties m and keeps its room.
func (m *message) reset() {
	clear(m.addrs)
	clear(m.protocols)
	*m = message{addrs: m.addrs[:0], protocols: m.protocols[:0]}
}

func tooLong(text []byte) bool { return len(text) > maxText && utf8.RuneCount(text) > maxText }

// text is what people read of a string that a peer sent: valid UTF-8, and cut
// where it is too long.
func text(b []byte) []byte {
	if !utf8.Valid(b) {
		b = bytes.ToValidUTF8(b, []byte("\uFFFD"))
	}
	n := 0
	for i := range string(b) {
		if n++; n > maxText {
			return b[:i]
		}
	}
	return b
}

// append appends m to b, without a length before it.
func (m *message) append(b []byte) []byte {
	b = m.appendHead(b)
	for _, p := range m.protocols {
		b = pb.AppendBytes(b, 3, p)
	}
	b = appendField(b, 4, m.observed)
	return appendField(b, 8, m.record)
}

// appendHead appends what must be in the first message.
func (m *message) appendHead(b []byte) []byte {
	b = appendField(b, 1, m.key)
	for _, a := range m.addrs {
		b = pb.AppendBytes(b, 2, a)
	}
	b = appendField(b, 5, m.version)
	return appendField(b, 6, m.agent)
}

func appendField(b []byte, num int, v []byte) []byte {
	if len(v) == 0 {
		return b
	}
	return pb.AppendBytes(b, num, v)
}

// frames encodes m, without m.observed, in as many messages as peers need: the
// first one, without a length because the observed address is still to come, and
// the rest with theirs. Protocols for which there are not enough messages are left
// out. The sizes are not in the spec, but deployed: see the constants.
func (m *message) frames() (first, rest []byte) {
	whole := *m
	whole.observed = nil
	if b := whole.append(nil); len(b) <= sendTogether-sendObserved {
		return b, nil
	}
	cur, room := m.appendHead(nil), sendMessage-sendObserved
	n := 1 // messages until now
	end := func() {
		if n == 1 {
			first = cur
		} else {
			rest = pb.AppendDelimited(rest, cur)
		}
	}
	for _, p := range m.protocols {
		longer := pb.AppendBytes(cur, 3, p)
		if len(longer) > room && len(cur) > 0 {
			if n == maxMessages-1 { // the record needs one
				break
			}
			end()
			n++
			cur, room = nil, sendMessage
			longer = pb.AppendBytes(cur, 3, p)
		}
		cur = longer
	}
	end()
	if len(m.record) > 0 {
		rest = pb.AppendDelimited(rest, pb.AppendBytes(nil, 8, m.record))
	}
	return first, rest
}

// appendAnswer puts the observed address into the first message and appends
// everything to b, ready to send.
func appendAnswer(b, first, rest, observed []byte) []byte {
	b, at := pb.BeginDelimited(b)
	b = append(b, first...)
	if len(observed) < sendObserved-4 { // the field's tag and length
		b = appendField(b, 4, observed)
	}
	b = pb.End(b, at)
	return append(b, rest...)
}
