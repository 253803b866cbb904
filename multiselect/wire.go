package multiselect

import (
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
)

// A message, or token, is its length as an unsigned varint, text, and a newline
// that the length includes:
//
//	13 "/multistream/1.0.0" 0a    the header, first in both directions
//	03 "na" 0a                    not available
//	03 "ls" 0a                    which protocols do you speak?
//	0f "/yamux/1.0.0\n…" 0a       a proposal, or the answer that takes it
//
// https://github.com/libp2p/specs/blob/master/connections/README.md#multistream-select
const (
	header = "\x13/multistream/1.0.0\n"
	na     = "\x03na\n"
	ls     = "\x03ls\n"
)

// first is how many bytes of the application fit beside the negotiation into
// the first write of a stream, at least.
const first = 3 * 1024

// A buffer is where messages are read and written. What goes through a net.Conn
// escapes to the heap, so the buffers are pooled.
type buffer struct {
	in    [len(header) + 2 + maxToken]byte         // what is read
	want  [len(header) + 2 + maxToken + first]byte // what is sent, or expected
	ahead readAhead
}

var buffers = sync.Pool{New: func() any { return new(buffer) }}

// readAhead reads a connection whose reads are system calls in few of them. What it
// has read and not given out is left.
type readAhead struct {
	net.Conn
	left []byte
	buf  [2 << 10]byte
}

func (r *readAhead) Read(p []byte) (int, error) {
	if len(r.left) == 0 {
		n, err := r.Conn.Read(r.buf[:])
		if n == 0 {
			return 0, err // one that comes with bytes comes again
		}
		r.left = r.buf[:n]
	}
	n := copy(p, r.left)
	r.left = r.left[n:]
	return n, nil
}

// Ready tells that there is something to read. If not, there may be even so.
func (r *readAhead) Ready() bool { return len(r.left) > 0 }

// reader returns what to read c by: c itself if it can tell what is there, as a muxer's
// stream can, where reading little by little costs little.
func (b *buffer) reader(c net.Conn, left []byte) io.ReadWriter {
	if _, ok := c.(interface{ Ready() bool }); ok {
		return c
	}
	b.ahead.Conn, b.ahead.left = c, left
	return &b.ahead
}

// left returns what reader's has read ahead and not given out, for the caller to keep.
func (b *buffer) left() []byte {
	left := append([]byte(nil), b.ahead.left...)
	b.ahead.Conn, b.ahead.left = nil, nil
	return left
}

// appendMessage appends id as a message, after the header if greet.
func appendMessage(b []byte, greet bool, id string) []byte {
	if greet {
		b = append(b, header...)
	}
	b = appendLength(b, len(id)+1)
	b = append(b, id...)
	return append(b, '\n')
}

func appendLength(b []byte, n int) []byte {
	for n >= 0x80 {
		b = append(b, byte(n)|0x80)
		n >>= 7
	}
	return append(b, byte(n))
}

// readHeader reads the message that comes first in each direction. The error is
// io.EOF if there was no byte at all.
//
// "If either side receives anything other than the multistream protocol id as
// the first message, they abort the negotiation process."
func readHeader(r io.Reader, buf []byte) error {
	b := buf[:len(header)]
	if _, err := io.ReadFull(r, b); err != nil {
		return err
	}
	if string(b) != header {
		return fmt.Errorf("%w: %q instead of the header", ErrMalformed, b)
	}
	return nil
}

// readToken reads a message into buf and returns it without its newline. The
// error is io.EOF if there was no byte at all.
func readToken(r io.Reader, buf []byte) ([]byte, error) {
	n, err := readLength(r, buf, maxToken)
	if err != nil {
		return nil, err
	}
	b := buf[:n]
	if _, err := io.ReadFull(r, b); err != nil {
		return nil, noEOF(err)
	}
	if b[n-1] != '\n' {
		return nil, fmt.Errorf("%w: no newline at the end of %.64q", ErrMalformed, b)
	}
	return b[:n-1], nil
}

// readLength reads a varint from 1 to limit, byte by byte, as it must not read
// more.
func readLength(r io.Reader, buf []byte, limit int) (int, error) {
	n := 0
	for i := range 3 {
		if _, err := io.ReadFull(r, buf[:1]); err != nil {
			if i > 0 {
				err = noEOF(err)
			}
			return 0, err
		}
		b := buf[0]
		n |= int(b&0x7f) << (7 * i)
		if b < 0x80 {
			// "Unsigned varints MUST be encoded minimally"
			// https://github.com/multiformats/unsigned-varint
			if n == 0 || n > limit || (b == 0 && i > 0) {
				break
			}
			return n, nil
		}
	}
	return 0, fmt.Errorf("%w: a bad length", ErrMalformed)
}

// appendList appends the answer to ls, as many protocols as it may hold.
//
//	<length of all that follows> (<length> <protocol> 0a)* 0a
//
// https://github.com/multiformats/multistream-select#ls-example-in-detail
func appendList(b []byte, ids []string) []byte {
	var body []byte
	for _, id := range ids {
		if check(id) == nil && len(body)+len(id)+4 < maxList {
			body = appendMessage(body, false, id)
		}
	}
	body = append(body, '\n')
	return append(appendLength(b, len(body)), body...)
}

func parseList(b []byte) ([]string, error) {
	var ids []string
	r := strings.NewReader(string(b))
	var buf [maxToken]byte
	for r.Len() > 1 {
		tok, err := readToken(r, buf[:])
		if err != nil || check(string(tok)) != nil {
			return nil, fmt.Errorf("%w: in the list", ErrMalformed)
		}
		ids = append(ids, string(tok))
	}
	if c, err := r.ReadByte(); err != nil || c != '\n' {
		return nil, fmt.Errorf("%w: no newline at the end of the list", ErrMalformed)
	}
	return ids, nil
}

// An answer is what the initiator has read of the responder's answer. There are
// two that it understands, so it only counts how far the bytes agree with
// either, and can go on after a deadline.
type answer struct {
	noHeader bool   // an answer before this one had it
	notYes   bool   // the bytes differ from yes
	notNo    bool   // the bytes differ from no
	got      uint16 // bytes
}

// read reads the answer from r and not one byte more. The one that means yes is
// given, header included; the one that means no is na. It returns nil,
// ErrNotSupported, or why there is no answer, which is never io.EOF.
func (a *answer) read(r io.Reader, yes, buf []byte) error {
	no := header + na
	if a.noHeader {
		no = na
	}
	for {
		// The shorter of those that it still can be: reading so many is safe.
		need := len(yes)
		if a.notYes || !a.notNo && len(no) < need {
			need = len(no)
		}
		have := int(a.got)
		b := buf[:need-have]
		n, err := r.Read(b)
		b = b[:n]
		a.notYes = a.notYes || string(b) != string(yes[have:have+n])
		a.notNo = a.notNo || have+n > len(no) || string(b) != no[have:have+n]
		a.got += uint16(n)
		switch got := int(a.got); {
		case a.notYes && a.notNo:
			return fmt.Errorf("%w: the answer has %q", ErrMalformed, b)
		case !a.notYes && got == len(yes):
			return nil
		case !a.notNo && got == len(no):
			return ErrNotSupported
		case err != nil:
			return noEOF(err)
		}
	}
}

// noEOF keeps an end amid the negotiation apart from a clean one.
func noEOF(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

func isTimeout(err error) bool {
	t, ok := errors.AsType[net.Error](err)
	return ok && t.Timeout()
}
