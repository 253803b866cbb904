package pb

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/multiformats/go-varint"
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
	scratch = 64       // bytes to start with when the caller has no buffer
	chunk   = 16 << 10 // bytes taken on trust at a time
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
	head := buf[:cap(buf)]
	if len(head) < varint.MaxLenUvarint63 {
		head = make([]byte, varint.MaxLenUvarint63)
	}
	size, err := readUvarint(r, head[:varint.MaxLenUvarint63])
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

// readUvarint reads an unsigned varint of r into buf, and no byte more.
func readUvarint(r io.Reader, buf []byte) (uint64, error) {
	br, _ := r.(io.ByteReader)
	for i := range buf {
		var err error
		if br != nil {
			buf[i], err = br.ReadByte()
		} else {
			_, err = io.ReadFull(r, buf[i:i+1])
		}
		if err != nil {
			if i > 0 {
				err = unexpected(err)
			}
			return 0, err
		}
		if buf[i] < 0x80 {
			buf = buf[:i+1]
			break
		}
	}
	v, _, err := varint.FromUvarint(buf)
	if err != nil {
		return 0, fmt.Errorf("%w: length: %w", ErrMalformed, err)
	}
	return v, nil
}

// unexpected turns the end of the stream into one that came too early.
func unexpected(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}
