package contract

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"io"
	"sync/atomic"
)

// handlers returns the protocols that a listener serves.
func handlers(stack Stack) map[string]Handler {
	var resets atomic.Int64 // streams on ResetMe whose dialer reset them
	return map[string]Handler{
		Echo: closing(func(s Stream) error {
			_, err := io.Copy(s, s)
			return err
		}),
		HalfClose: closing(func(s Stream) error {
			h := sha256.New()
			if _, err := io.Copy(h, s); err != nil {
				return err
			}
			_, err := s.Write(h.Sum(nil))
			return err
		}),
		Reset: func(s Stream) {
			io.ReadFull(s, make([]byte, 1))
			s.Reset()
		},
		ResetMe: func(s Stream) {
			var b [1]byte
			if _, err := io.ReadFull(s, b[:]); err == nil {
				s.Write(b[:])
			}
			if _, err := s.Read(b[:]); stack.IsReset(err) {
				resets.Add(1)
			}
			s.Reset()
		},
		ResetCount: closing(func(s Stream) error {
			_, err := fmt.Fprint(s, resets.Load())
			return err
		}),
		// "The client opens a stream, sends a u64 in big-endian order: the number
		// of bytes it wants back, then writes data until it half-closes."
		// https://github.com/libp2p/specs/blob/master/perf/perf.md
		Perf: closing(func(s Stream) error {
			var head [8]byte
			if _, err := io.ReadFull(s, head[:]); err != nil {
				return err
			}
			if _, err := io.Copy(io.Discard, s); err != nil {
				return err
			}
			return writeZeros(s, int64(binary.BigEndian.Uint64(head[:])))
		}),
	}
}

// closing makes a Handler: no error closes the stream, an error resets it.
func closing(f func(Stream) error) Handler {
	return func(s Stream) {
		if err := f(s); err != nil {
			s.Reset()
			return
		}
		s.Close()
	}
}

func writeZeros(w io.Writer, n int64) error {
	zeros := make([]byte, 64<<10)
	for n > 0 {
		k := min(n, int64(len(zeros)))
		if _, err := w.Write(zeros[:k]); err != nil {
			return err
		}
		n -= k
	}
	return nil
}
