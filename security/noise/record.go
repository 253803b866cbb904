package noise

import (
	"crypto/cipher"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"os"

	"golang.org/x/crypto/chacha20poly1305"

	"github.com/plexus-p2p/plexus/internal/link"
)

// A record, which is what Noise calls a transport message:
//
//	0        2                    2+n       2+n+16
//	| n + 16 | n bytes, encrypted |   tag   |
//
// https://github.com/libp2p/specs/blob/master/noise/README.md#wire-format
const (
	prefix    = 2                              // bytes of the length
	tag       = chacha20poly1305.Overhead      // bytes
	maxBody   = math.MaxUint16                 // bytes after the length
	maxPlain  = maxBody - tag                  // bytes of plaintext in a record
	maxBatch  = 4                              // records that go out in one write
	idleRead  = 3 << 9                         // bytes held by a connection at rest: a TCP segment fits
	maxNonce  = math.MaxUint64 - 1             // the last nonce that may be used
	nonceZero = chacha20poly1305.NonceSize - 8 // bytes before the counter
)

var (
	errTag    = errors.New("noise: a record was forged, changed, lost or repeated")
	errShort  = errors.New("noise: a record is too short for its tag")
	errSpent  = errors.New("noise: all nonces are used")
	errClosed = fmt.Errorf("noise: cannot write: %w for writing", net.ErrClosed)
)

// conn is a connection after the handshake. Its two halves share nothing but the
// connection below.
type conn struct {
	net.Conn // carries the records
	in       reader
	out      writer
}

func newConn(c net.Conn, tx, rx [32]byte) *conn {
	return &conn{
		Conn: c,
		in:   reader{turn: link.NewTurn(), half: newHalf(rx), wire: wire{c: c}},
		out:  writer{turn: link.NewTurn(), half: newHalf(tx), wire: link.Out{Conn: c}},
	}
}

// half is the cipher of one direction.
type half struct {
	aead  cipher.AEAD
	nonce [chacha20poly1305.NonceSize]byte // here, so that calls of aead allocate nothing
	n     uint64                           // records so far
}

func newHalf(key [32]byte) half {
	aead, err := chacha20poly1305.New(key[:])
	if err != nil {
		panic(err) // the key has the right size
	}
	return half{aead: aead}
}

// next makes the next nonce.
//
// "In the unlikely event that peers exchange more than 2^64 - 1 messages, they
// MUST terminate the connection to avoid reusing nonces"
// https://github.com/libp2p/specs/blob/master/noise/README.md#encryption-and-io
func (h *half) next() ([]byte, error) {
	if h.n > maxNonce {
		return nil, errSpent
	}
	binary.LittleEndian.PutUint64(h.nonce[nonceZero:], h.n)
	h.n++
	return h.nonce[:], nil
}

// reader is the receiving half.
type reader struct {
	turn link.Turn // of one of the readers
	half
	wire  wire
	plain []byte // decrypted and not read yet; lies in wire's buffer
	err   error  // why no record can follow
}

// Read returns bytes of one record at most.
func (c *conn) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	c.in.turn.Lock()
	defer c.in.turn.Unlock()
	n := 0
	if len(c.in.plain) == 0 {
		b, direct, err := c.in.open(p)
		if err != nil {
			return 0, err
		}
		if direct {
			n = len(b)
		} else {
			c.in.plain = b
		}
	}
	if n == 0 {
		n = copy(p, c.in.plain)
		c.in.plain = c.in.plain[n:]
	}
	if len(c.in.plain) == 0 && c.in.wire.empty() {
		c.in.wire.release() // the next call may be long in coming
	}
	return n, nil
}

// ReadRecord implements [security.RecordReader].
func (c *conn) ReadRecord() ([]byte, error) {
	c.in.turn.Lock()
	defer c.in.turn.Unlock()
	if b := c.in.plain; len(b) > 0 {
		c.in.plain = nil
		return b, nil
	}
	b, _, err := c.in.open(nil)
	return b, err
}

// Buffered tells whether ReadRecord would return at once, because a whole record
// has been read ahead. It waits for a read that is under way.
func (c *conn) Buffered() bool {
	c.in.turn.Lock()
	defer c.in.turn.Unlock()
	return len(c.in.plain) > 0 || c.in.wire.whole()
}

// open decrypts the next record that is not empty: into p if it fits there, else
// where it lies.
func (r *reader) open(p []byte) (b []byte, direct bool, err error) {
	for {
		if r.err != nil {
			return nil, false, r.err
		}
		body, err := r.wire.message(maxBody)
		if err != nil {
			return nil, false, err // nothing is lost: a deadline may be followed by a better one
		}
		if len(body) < tag {
			r.fail(errShort)
			continue
		}
		nonce, err := r.next()
		if err != nil {
			r.fail(err)
			continue
		}
		dst := body[:0]
		if direct = len(body)-tag <= len(p); direct {
			dst = p[:0]
		}
		b, err = r.aead.Open(dst, nonce, body, nil)
		if err != nil {
			r.fail(errTag)
			continue
		}
		if len(b) > 0 {
			return b, direct, nil
		}
	}
}

func (r *reader) fail(err error) {
	r.err = err
	r.wire.release()
}

// wire reads length-prefixed messages ahead, in few and large reads. At rest it
// holds idleRead bytes; while more than that arrives at once it borrows a large
// buffer, and gives it back when everything was taken out: after a Read at once, but
// what ReadRecord handed out lies in it until the next call.
type wire struct {
	c    net.Conn
	idle []byte  // made at the first read
	bulk *[]byte // borrowed, or nil
	buf  []byte  // one of the two
	r, w int     // buf[r:w] was read and not taken
}

// message returns the next message without its length, which is limit at most. It
// is valid until the next call. At an error nothing is taken: the next call goes on.
func (in *wire) message(limit int) ([]byte, error) {
	if err := in.fill(prefix); err != nil {
		return nil, err
	}
	n := prefix + int(binary.BigEndian.Uint16(in.buf[in.r:]))
	if n > prefix+limit {
		return nil, errTooLarge
	}
	if err := in.fill(n); err != nil {
		return nil, err
	}
	b := in.buf[in.r+prefix : in.r+n : in.r+n]
	in.r += n
	return b, nil
}

// whole tells whether message would return without reading.
func (in *wire) whole() bool {
	b := in.buf[in.r:in.w]
	return len(b) >= prefix && len(b) >= prefix+int(binary.BigEndian.Uint16(b))
}

// fill reads until buf[r:w] has n bytes or more.
func (in *wire) fill(n int) error {
	for idle := 0; in.w-in.r < n; {
		in.makeRoom(n)
		k, err := in.c.Read(in.buf[in.w:])
		in.w += k
		switch {
		case k > 0:
			idle = 0 // an error comes again when nothing is left
		case err == io.EOF && in.w > in.r:
			return io.ErrUnexpectedEOF // within a message
		case err != nil:
			return err
		default:
			if idle++; idle == 100 {
				return io.ErrNoProgress
			}
		}
	}
	return nil
}

// makeRoom makes buf fit for reading more, of a message of n bytes.
func (in *wire) makeRoom(n int) {
	have := in.w - in.r
	switch {
	case in.empty(): // at rest
		in.release()
		if in.idle == nil {
			in.idle = make([]byte, idleRead)
		}
		in.buf, in.r, in.w = in.idle, 0, 0
	case in.bulk == nil && (in.w == len(in.buf) || n > len(in.buf)) && have >= idleRead/2:
		// Much arrives. A length alone would be no reason: a peer that
		// announces 64 KiB and sends 2 bytes gets no large buffer.
		in.bulk = link.Borrow(link.Bulk)
		in.w = copy(*in.bulk, in.buf[in.r:in.w])
		in.buf, in.r = *in.bulk, 0
	case in.r > 0 && in.r+n > len(in.buf), in.w == len(in.buf):
		in.w = copy(in.buf, in.buf[in.r:in.w])
		in.r = 0
	}
}

// empty tells that everything was taken out.
func (in *wire) empty() bool { return in.r == in.w }

// release gives the borrowed buffer back, with all that it holds.
func (in *wire) release() {
	if in.bulk != nil {
		link.GiveBack(in.bulk)
		in.bulk, in.buf = nil, nil
	}
	in.r, in.w = 0, 0
}

// writer is the sending half.
type writer struct {
	turn link.Turn // of one of the writers; their writes follow each other whole
	half
	wire link.Out
	err  error // why nothing can be sent any more
}

// Write sends p in as few records as possible, several of them in one write to the
// connection. At a deadline n is what has become records; the next Write sends those
// that are left, and goes on. After any other error nothing can be written.
func (c *conn) Write(p []byte) (n int, err error) {
	w := &c.out
	w.turn.Lock()
	defer w.turn.Unlock()
	if w.err != nil {
		return 0, w.err
	}
	if err := w.fail(w.wire.FlushRest()); err != nil {
		return 0, err
	}
	for n < len(p) && err == nil {
		part := p[n:min(len(p), n+maxBatch*maxPlain)]
		records := (len(part) + maxPlain - 1) / maxPlain
		var b []byte
		b, err = w.seal(w.wire.Room(len(part)+records*(prefix+tag)), part)
		if err == nil {
			err = w.wire.Flush(b)
		}
		if w.fail(err); w.err == nil {
			n += len(part)
		}
	}
	return n, err
}

// fail returns err, after which nothing can be sent unless it is a deadline.
func (w *writer) fail(err error) error {
	if err != os.ErrDeadlineExceeded {
		w.err = err
	}
	return err
}

// seal appends p to b as records.
func (w *writer) seal(b, p []byte) ([]byte, error) {
	for len(p) > 0 {
		plain := p[:min(len(p), maxPlain)]
		p = p[len(plain):]
		nonce, err := w.next()
		if err != nil {
			return nil, err
		}
		b = binary.BigEndian.AppendUint16(b, uint16(len(plain)+tag))
		b = w.aead.Seal(b, nonce, plain, nil)
	}
	return b, nil
}

// CloseWrite ends the sending direction, after the writes under way and what they
// left at a deadline. It returns errors.ErrUnsupported if the connection below has no such thing.
func (c *conn) CloseWrite() error {
	below, ok := c.Conn.(interface{ CloseWrite() error })
	if !ok {
		return fmt.Errorf("noise: CloseWrite: %w", errors.ErrUnsupported)
	}
	w := &c.out
	w.turn.Lock()
	defer w.turn.Unlock()
	if w.err == nil {
		if err := w.fail(w.wire.FlushRest()); err != nil {
			return err
		}
		w.err = errClosed
	}
	return below.CloseWrite()
}
