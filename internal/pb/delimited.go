package pb

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
)

// AppendDelimited appends msg to b with its length before it, as an unsigned
// varint. That is how libp2p puts messages onto streams.
//
// Spec: https://github.com/multiformats/unsigned-varint
func AppendDelimited[T ~[]byte | ~string](b []byte, msg T) []byte {
	b = binary.AppendUvarint(b, uint64(len(msg)))
	return append(b, msg...)
}

// BeginDelimited starts a delimited message. What is appended to the returned
// slice until [End] is called with the returned position is the message.
func BeginDelimited(b []byte) ([]byte, int) {
	b = append(b, 0) // the length, of which End knows more
	return b, len(b)
}

// A TooLargeError says that a message was announced with more bytes than the
// reader takes. None of them was read.
type TooLargeError struct {
	Size uint64 // what the sender announced
	Max  int    // what the reader takes
}

func (e *TooLargeError) Error() string {
	return fmt.Sprintf("pb: message of %d bytes, at most %d are taken", e.Size, e.Max)
}

const (
	maxVarint = 9        // bytes
	scratch   = 64       // bytes to start with when the caller has no buffer
	chunk     = 16 << 10 // bytes taken on trust at a time
)

// ReadDelimited reads one delimited message of at most limit bytes from r. It reads
// no byte beyond the message, therefore the length byte by byte: give it an r with
// ReadByte where that matters.
//
// The message is put into the capacity of buf where it fits, so the returned slice
// is best passed to the next call; buf may be nil. A sender that announces much
// and sends little costs little: memory grows as bytes arrive.
//
// The error is io.EOF if r ended before the message, io.ErrUnexpectedEOF if it
// ended within, a [TooLargeError], one that wraps [ErrMalformed] if the length is
// not a minimal varint, or what r returned. With any error the stream is no
// longer at the beginning of a message.
func ReadDelimited(r io.Reader, limit int, buf []byte) ([]byte, error) {
	if cap(buf) == 0 {
		buf = make([]byte, 0, scratch)
	}
	size, err := readUvarint(r, buf[:1])
	if err != nil {
		return nil, err
	}
	if limit < 0 || size > uint64(limit) {
		return nil, &TooLargeError{Size: size, Max: limit}
	}
	left := int(size)
	msg := buf[:0]
	if first := min(left, chunk); cap(msg) < first {
		msg = make([]byte, 0, first)
	}
	for left > 0 {
		if len(msg) == cap(msg) {
			msg = slices.Grow(msg, min(left, max(chunk, len(msg)))) // as much again as has come
		}
		n := min(left, cap(msg)-len(msg))
		end := len(msg) + n
		if _, err := io.ReadFull(r, msg[len(msg):end]); err != nil {
			return nil, unexpected(err)
		}
		msg, left = msg[:end], left-n
	}
	return msg, nil
}

// readUvarint reads an unsigned varint of r, with the one byte of room in one.
//
// "Leading zeros must be trimmed when encoding and must be rejected when decoding."
// "Implementations MUST restrict the size of the varint to a max of 9 bytes (63 bits)."
// https://github.com/multiformats/unsigned-varint
func readUvarint(r io.Reader, one []byte) (uint64, error) {
	br, _ := r.(io.ByteReader)
	var v uint64
	for i := range maxVarint {
		var c byte
		var err error
		if br != nil {
			c, err = br.ReadByte()
		} else {
			_, err = io.ReadFull(r, one)
			c = one[0]
		}
		if err != nil {
			if i > 0 {
				err = unexpected(err)
			}
			return 0, err
		}
		v |= uint64(c&0x7f) << (7 * i)
		if c < 0x80 {
			if c == 0 && i > 0 {
				return 0, errNotMinimal
			}
			return v, nil
		}
	}
	return 0, errTooLong
}

var (
	errNotMinimal = fmt.Errorf("%w: length is not a minimal varint", ErrMalformed)
	errTooLong    = fmt.Errorf("%w: length of more than %d bytes", ErrMalformed, maxVarint)
)

// unexpected turns the end of the stream into one that came too early.
func unexpected(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}
