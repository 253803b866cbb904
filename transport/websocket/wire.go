package websocket

import (
	"crypto/subtle"
	"encoding/binary"
	"errors"
	"fmt"
)

// A frame, with the lengths that follow from the 7 bits, and a key if masked:
//
//	fin 1 ‖ rsv 3 ‖ opcode 4 ‖ masked 1 ‖ length 7 ‖ length 0, 16 or 64 ‖ key 0 or 32 ‖ payload
//
// https://www.rfc-editor.org/rfc/rfc6455#section-5.2
const (
	opContinue = 0
	opText     = 1
	opBinary   = 2
	opClose    = 8
	opPing     = 9
	opPong     = 10

	fin    = 1 << 7
	masked = 1 << 7

	maxHead    = 14  // bytes before the payload
	maxControl = 125 // bytes in a control frame
)

// Status codes of a Close frame.
// https://www.rfc-editor.org/rfc/rfc6455#section-7.4.1
const (
	statusNormal   = 1000
	statusProtocol = 1002
	statusType     = 1003
)

// ErrProtocol means that the peer broke the rules of WebSocket.
var ErrProtocol = errors.New("websocket: protocol violation")

// errText is an ErrProtocol too.
var errText = fmt.Errorf("%w: text, where libp2p sends bytes", ErrProtocol)

func violation(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{ErrProtocol}, args...)...)
}

// decoder takes frames apart, in whatever pieces they come. It keeps no data: a frame
// may be as long as it likes.
type decoder struct {
	masked bool // what the peer sends has to be; fixed

	head [maxHead]byte
	n    int // of head
	op   byte
	left uint64  // of the payload
	key  [4]byte // turned to the next byte

	open    bool // a message goes on in the next data frame
	control [maxControl]byte
	got     int // of control

	ping   []byte // of the last Ping, when pinged
	pinged bool
	closed bool // a Close frame has come; what follows is not looked at
}

// decode leaves of b, bytes as they came, only the data, and returns how many these are.
// It stops at a Close frame. After an error it must not be called again.
func (d *decoder) decode(b []byte) (n int, err error) {
	for i := 0; i < len(b) && !d.closed; {
		if d.n < d.need() {
			k := copy(d.head[d.n:d.need()], b[i:])
			d.n += k
			i += k
			if d.n < d.need() {
				continue // need has grown, or b is at its end
			}
			if err := d.begin(); err != nil {
				return n, err
			}
		} else {
			part := b[i:]
			if uint64(len(part)) > d.left {
				part = part[:d.left]
			}
			i += len(part)
			d.left -= uint64(len(part))
			if d.masked {
				d.key = mask(part, part, d.key)
			}
			if d.op >= opClose {
				d.got += copy(d.control[d.got:], part)
			} else if n += len(part); n < i {
				copy(b[n-len(part):], part)
			}
		}
		if d.left == 0 {
			d.end()
		}
	}
	return n, nil
}

// within tells that a frame has begun and not ended.
func (d *decoder) within() bool { return d.n > 0 || d.open }

// need is how long the header is, as far as one can tell.
func (d *decoder) need() int {
	n := 2
	if d.n < n {
		return n
	}
	switch d.head[1] &^ masked {
	case 126:
		n += 2
	case 127:
		n += 8
	}
	if d.head[1]&masked != 0 {
		n += 4
	}
	return n
}

// begin looks at a header.
func (d *decoder) begin() error {
	first, last := d.head[0], d.head[0]&fin != 0
	d.op = first & 15
	h := d.head[2:d.n]
	switch n := d.head[1] &^ masked; n {
	case 126:
		d.left, h = uint64(binary.BigEndian.Uint16(h)), h[2:]
	case 127:
		d.left, h = binary.BigEndian.Uint64(h), h[8:]
	default:
		d.left = uint64(n)
	}
	isMasked := d.head[1]&masked != 0
	if isMasked {
		copy(d.key[:], h)
	}
	switch {
	// "MUST be 0 unless an extension is negotiated"
	case first&0x70 != 0:
		return violation("reserved bits %#x", first)
	// "The server MUST close the connection upon receiving a frame that is
	// not masked." "A client MUST close a connection if it detects a masked frame."
	// https://www.rfc-editor.org/rfc/rfc6455#section-5.1
	case isMasked != d.masked:
		return violation("masked: %v, want %v", isMasked, d.masked)
	// "the most significant bit MUST be 0"
	case d.left>>63 != 0:
		return violation("a frame of %d bytes", d.left)
	case d.op == opText:
		return errText
	case d.op == opBinary && d.open, d.op == opContinue && !d.open:
		return violation("opcode %d amid messages", d.op)
	case d.op == opBinary, d.op == opContinue:
		d.open = !last
	// "All control frames MUST have a payload length of 125 bytes or less and
	// MUST NOT be fragmented."
	// https://www.rfc-editor.org/rfc/rfc6455#section-5.5
	case d.op < opClose || d.op > opPong || !last || d.left > maxControl:
		return violation("opcode %d, final: %v, %d bytes", d.op, last, d.left)
	}
	return nil
}

// end is called after the last byte of a frame.
func (d *decoder) end() {
	switch d.op {
	case opPing:
		d.ping, d.pinged = append(d.ping[:0], d.control[:d.got]...), true
	case opClose:
		d.closed = true
	}
	d.n, d.got = 0, 0
}

// appendFrame appends a frame, masked with key if there is one.
func appendFrame(b []byte, op byte, p []byte, key *[4]byte) []byte {
	m := byte(0)
	if key != nil {
		m = masked
	}
	switch n := len(p); {
	case n < 126:
		b = append(b, fin|op, m|byte(n))
	case n < 1<<16:
		b = append(b, fin|op, m|126)
		b = binary.BigEndian.AppendUint16(b, uint16(n))
	default:
		b = append(b, fin|op, m|127)
		b = binary.BigEndian.AppendUint64(b, uint64(n))
	}
	if key == nil {
		return append(b, p...)
	}
	b = append(b, key[:]...)
	at := len(b)
	if cap(b)-at < len(p) {
		b = append(b, p...) // the bytes do not matter, the room does
	}
	b = b[:at+len(p)]
	mask(b[at:], p, *key)
	return b
}

// mask sets dst to src ⊕ key, and returns the key turned to the byte after. dst and
// src overlap in full or not at all.
func mask(dst, src []byte, key [4]byte) [4]byte {
	if len(src) >= 128 {
		// XORBytes is vectorised, so it gets a key as long as worthwhile.
		var long [1 << 10]byte
		n := copy(long[:], key[:])
		for size := min(len(long), len(src)); n < size; n *= 2 {
			copy(long[n:], long[:n])
		}
		for len(src) > 0 {
			n := subtle.XORBytes(dst, src, long[:])
			dst, src = dst[n:], src[n:]
			if n%4 != 0 {
				key = turn(key, n) // the last round
			}
		}
		return key
	}
	for i := range src {
		dst[i] = src[i] ^ key[i&3]
	}
	return turn(key, len(src))
}

func turn(key [4]byte, n int) [4]byte {
	return [4]byte{key[n&3], key[(n+1)&3], key[(n+2)&3], key[(n+3)&3]}
}
