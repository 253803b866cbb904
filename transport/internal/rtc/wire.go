package rtc

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/multiformats/go-varint"

	"github.com/plexus-p2p/plexus/internal/pb"
	"github.com/plexus-p2p/plexus/transport/internal/sctp"
)

// What data channels carry.
//
// https://www.rfc-editor.org/rfc/rfc8831#section-8
const (
	ppidControl     = 50 // of the data channel establishment protocol
	ppidBinary      = 53
	ppidStringEmpty = 56
	ppidBinaryEmpty = 57
)

// Messages of the data channel establishment protocol.
//
// https://www.rfc-editor.org/rfc/rfc8832#section-5
const (
	channelAck  = 2
	channelOpen = 3
)

// openMessage opens a reliable and ordered channel without a label.
//
//	|  Message Type |  Channel Type |            Priority           |
//	|                    Reliability Parameter                      |
//	|         Label Length          |       Protocol Length         |
func openMessage() []byte { return []byte{channelOpen, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0} }

func ackMessage() []byte { return []byte{channelAck} }

// parseOpen returns the label of a new channel.
func parseOpen(b []byte) (label string, err error) {
	if len(b) < 12 || b[0] != channelOpen {
		return "", fmt.Errorf("%w: DATA_CHANNEL_OPEN", errMalformed)
	}
	n, m := int(binary.BigEndian.Uint16(b[8:])), int(binary.BigEndian.Uint16(b[10:]))
	if len(b) != 12+n+m {
		return "", fmt.Errorf("%w: DATA_CHANNEL_OPEN", errMalformed)
	}
	return string(b[12 : 12+n]), nil
}

// errMalformed means that a message cannot be read.
var errMalformed = errors.New("webrtc: malformed message")

// Flags of a message. Append only.
//
// https://github.com/libp2p/specs/blob/master/webrtc/README.md#multiplexing
const (
	flagFin         = iota // the sender will write no more
	flagStopSending        // the sender will read no more
	flagReset              // the sender ends the stream at once
	flagFinAck             // the sender has received the FIN
	flagNone        = -1
)

const (
	// maxSend is how long a message is at most that we send, with its length: three
	// full packets.
	//
	// 16 KiB are allowed. But go-libp2p reads lengths with a buffer of 4 KiB, in which a
	// longer message has no place, unless its length comes before by itself; and that is
	// what rust-libp2p does not understand.
	maxSend = 3 * sctp.DataSize

	// maxPayload is how much of a stream a message carries: as much as fits beside
	// two lengths and a tag.
	maxPayload = maxSend - 7

	// MaxMessage is how long a message is at most that we take.
	MaxMessage = 257 << 10
)

// message is what is sent on a data channel, with its length in front.
//
//	message Message {
//	  optional Flag flag = 1;
//	  optional bytes message = 2;
//	  optional uint32 errorCode = 3;
//	}
type message struct {
	flag    int // flagNone: none
	payload []byte
	code    uint32
}

func appendMessage(b []byte, m message) []byte {
	n := 0
	if m.flag != flagNone {
		n += 2
	}
	if len(m.payload) > 0 {
		n += 1 + varint.UvarintSize(uint64(len(m.payload))) + len(m.payload)
	}
	if m.code != 0 {
		n += 1 + varint.UvarintSize(uint64(m.code))
	}
	if b == nil {
		b = make([]byte, 0, varint.UvarintSize(uint64(n))+n)
	}
	b = binary.AppendUvarint(b, uint64(n))
	if m.flag != flagNone {
		b = pb.AppendUvarint(b, 1, uint64(m.flag))
	}
	if len(m.payload) > 0 {
		b = pb.AppendBytes(b, 2, m.payload)
	}
	if m.code != 0 {
		b = pb.AppendUvarint(b, 3, uint64(m.code))
	}
	return b
}

// nextMessage takes a message off b. ok is false if only a part of it is there.
func nextMessage(b []byte) (m message, rest []byte, ok bool, err error) {
	size, n, err := varint.FromUvarint(b)
	switch {
	case err == varint.ErrUnderflow && len(b) < 5:
		return m, b, false, nil
	case err != nil || size > MaxMessage:
		return m, b, false, fmt.Errorf("%w: length", errMalformed)
	case uint64(len(b)-n) < size:
		return m, b, false, nil
	}
	rest = b[n+int(size):]
	m, err = parseMessage(b[n : n+int(size)])
	return m, rest, err == nil, err
}

// isLength tells that b is the length of a message of n bytes, and nothing else.
func isLength(b []byte, n int) bool {
	size, k, err := varint.FromUvarint(b)
	return err == nil && k == len(b) && size == uint64(n)
}

// parseMessage reads a message without its length.
func parseMessage(b []byte) (m message, err error) {
	m.flag = flagNone
	d := pb.Decode(b)
	for d.Next() {
		switch d.Field() {
		case 1:
			if f := d.Uvarint(); f <= flagFinAck {
				m.flag = int(f)
			}
		case 2:
			m.payload = d.Bytes()
		case 3:
			m.code = uint32(d.Uvarint())
		}
	}
	if err := d.Err(); err != nil {
		return m, fmt.Errorf("%w: %w", errMalformed, err)
	}
	return m, nil
}

// ICEChars tells whether s may be a ufrag or a password of ICE.
//
// "ice-char = ALPHA / DIGIT / '+' / '/'".
// https://www.rfc-editor.org/rfc/rfc8839#section-5.4
func ICEChars(s string, shortest, longest int) bool {
	for _, r := range s {
		if !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '+' || r == '/') {
			return false
		}
	}
	return len(s) >= shortest && len(s) <= longest
}
