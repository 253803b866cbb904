package rtc

import (
	"bytes"
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"encoding/gob"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"time"

	"github.com/pion/dtls/v3"
	"github.com/pion/dtls/v3/pkg/crypto/prf"
	"github.com/pion/logging"

	"github.com/plexus-p2p/plexus/transport/internal/certhash"
)

// Content types of records.
const (
	recordChangeCipherSpec = 20
	recordAlert            = 21
	recordHandshake        = 22
	recordData             = 23
)

const (
	recordHeader = 13                     // type, version, epoch, sequence number, length
	explicitIV   = 8                      // the part of a nonce that records carry
	MaxDatagram  = 2048                   // bytes of a packet that we take
	maxEarly     = 32                     // packets of data that come before the handshake has ended here
	firstSeq     = 1 << 10                // of our records: pion has used some of the lower ones
	resendPause  = 100 * time.Millisecond // between answers to a peer that repeats the end of its handshake
)

// ErrCertHash means that the peer's certificate has another hash than was told before.
var ErrCertHash = errors.New("webrtc: the certificate has another hash than was told")

// errAlert means that the peer ended the DTLS connection.
var errAlert = errors.New("webrtc: the peer has ended the DTLS connection")

// Conn is a DTLS connection after its handshake, which pion/dtls makes. Its
// records are ours: pion takes several goroutines and twenty allocations for each.
//
// One goroutine reads, and one at a time writes.
type Conn struct {
	path  net.Conn // whose Reads and Writes are packets
	own   []byte   // our certificate
	peer  []byte   // the peer's certificate
	out   direction
	in    direction
	seq   uint64
	seen  window
	early [][]byte // datagrams that came too soon, to be read first

	answer [][]byte // our last flight, to be sent again if the peer has not got it
	sentAt time.Time
}

// direction is what encrypts or decrypts. It is used by one goroutine at a time.
type direction struct {
	aead       cipher.AEAD
	nonce      [12]byte // of a record: four bytes from the keys, the rest from the record
	additional [13]byte // what is authenticated beside its data
}

// Secure runs the handshake over path, whose reads the returned connection takes over.
// hash is that of the peer's certificate, or nil, which is any; another one is an
// ErrCertHash. It ends when ctx does. On failure path is closed.
func Secure(ctx context.Context, path net.Conn, client bool, own *tls.Certificate, hash []byte) (*Conn, error) {
	c := &Conn{path: path, own: own.Certificate[0], seq: firstSeq}
	hc := &handshakeConn{path: path, reading: make(chan struct{}, 1)}
	var failed error // what is wrong with the peer's certificate
	both := []dtls.Option{
		dtls.WithCertificates(*own),
		// "All implementations MUST support […] TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256".
		// https://www.rfc-editor.org/rfc/rfc8827#section-6.5
		dtls.WithCipherSuites(dtls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, dtls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256),
		// There is no media, but pion/webrtc ends a connection that has agreed on none, and
		// webrtc-rs one that has agreed on a key of 256 bits.
		dtls.WithSRTPProtectionProfiles(
			dtls.SRTP_AES128_CM_HMAC_SHA1_80, dtls.SRTP_AEAD_AES_128_GCM, dtls.SRTP_AEAD_AES_256_GCM,
		),
		dtls.WithExtendedMasterSecret(dtls.RequestExtendedMasterSecret),
		dtls.WithInsecureSkipVerify(true), // its hash counts
		dtls.WithFlightInterval(flightInterval),
		dtls.WithLoggerFactory(&logging.DefaultLoggerFactory{DefaultLogLevel: logging.LogLevelDisabled}), // what matters is an error,
		dtls.WithVerifyPeerCertificate(func(certs [][]byte, _ [][]*x509.Certificate) error {
			if len(certs) == 0 {
				failed = errors.New("webrtc: the peer has no certificate")
			} else if c.peer = certs[0]; hash != nil && !bytes.Equal(certhash.Of(c.peer), hash) {
				failed = ErrCertHash
			}
			return failed
		}),
	}
	handshake := func() error {
		var d *dtls.Conn
		var err error
		if client {
			var opts []dtls.ClientOption
			for _, o := range both {
				opts = append(opts, o)
			}
			d, err = dtls.ClientWithOptions(hc, path.RemoteAddr(), opts...)
		} else {
			opts := []dtls.ServerOption{
				dtls.WithClientAuth(dtls.RequireAnyClientCert),
				dtls.WithInsecureSkipVerifyHello(true), // STUN came before, and what we send is bounded by what has come
			}
			for _, o := range both {
				opts = append(opts, o)
			}
			d, err = dtls.ServerWithOptions(hc, path.RemoteAddr(), opts...)
		}
		if err != nil {
			return err
		}
		defer func() {
			hc.mute()
			d.Close()
		}()
		if err := d.HandshakeContext(ctx); err != nil {
			return err
		}
		return c.takeOver(d)
	}
	err := handshake()
	if !client {
		c.answer = hc.flight() // "[the server] MUST retransmit its final flight"
	}
	hc.leave()
	if err == nil {
		c.early = hc.early
		return c, nil
	}
	path.Close()
	switch {
	case failed != nil:
		return nil, failed
	case ctx.Err() != nil:
		return nil, context.Cause(ctx)
	case hc.err != nil:
		return nil, hc.err
	}
	return nil, fmt.Errorf("webrtc: DTLS: %v", err)
}

// flightInterval is how long pion waits for an answer before it repeats itself.
const flightInterval = 500 * time.Millisecond

// past is a deadline that has passed, in a synctest bubble too.
var past = time.Unix(1, 0)

// takeOver gets the keys of a handshake that has succeeded.
//
// https://www.rfc-editor.org/rfc/rfc5246#section-6.3
func (c *Conn) takeOver(d *dtls.Conn) error {
	state, ok := d.ConnectionState()
	if !ok {
		return errors.New("webrtc: DTLS without a state")
	}
	b, err := state.MarshalBinary()
	if err != nil {
		return err
	}
	var s struct { // of what pion serializes, what we need
		LocalRandom, RemoteRandom [32]byte
		MasterSecret              []byte
		IsClient                  bool
	}
	if err := gob.NewDecoder(bytes.NewReader(b)).Decode(&s); err != nil {
		return err
	}
	client, server := s.LocalRandom, s.RemoteRandom
	if !s.IsClient {
		client, server = server, client
	}
	keys, err := prf.GenerateEncryptionKeys(s.MasterSecret, client[:], server[:], 0, 16, 4, sha256.New)
	if err != nil {
		return err
	}
	ours, theirs := &c.out, &c.in
	if !s.IsClient {
		ours, theirs = theirs, ours
	}
	if err := ours.init(keys.ClientWriteKey, keys.ClientWriteIV); err != nil {
		return err
	}
	return theirs.init(keys.ServerWriteKey, keys.ServerWriteIV)
}

func (d *direction) init(key, iv []byte) error {
	block, err := aes.NewCipher(key)
	if err != nil {
		return err
	}
	copy(d.nonce[:], iv)
	d.aead, err = cipher.NewGCM(block)
	return err
}

// record is one of a datagram, as it lies there.
//
//	| type | version | epoch | sequence number | length | fragment …
//
// https://www.rfc-editor.org/rfc/rfc6347#section-4.1
type record struct {
	typ      byte
	epoch    uint16
	seq      uint64 // with the epoch in front
	raw      []byte
	fragment []byte
}

// nextRecord takes a record off a datagram. ok is false if there is none.
func nextRecord(b []byte) (r record, rest []byte, ok bool) {
	if len(b) < recordHeader {
		return r, nil, false
	}
	n := recordHeader + int(binary.BigEndian.Uint16(b[11:]))
	if n > len(b) {
		return r, nil, false
	}
	seq := binary.BigEndian.Uint64(b[3:])
	return record{b[0], uint16(seq >> 48), seq, b[:n], b[recordHeader:n]}, b[n:], true
}

// IsClientHello tells whether a datagram is what a client begins with.
func IsClientHello(b []byte) bool {
	const clientHello = 1
	r, _, ok := nextRecord(b)
	return ok && r.typ == recordHandshake && r.epoch == 0 && len(r.fragment) > 0 && r.fragment[0] == clientHello
}

// seal appends a record to b.
func (c *Conn) seal(b []byte, typ byte, data []byte) []byte {
	seq := 1<<48 | c.seq // of epoch 1
	c.seq++
	b = append(b, typ, 0xfe, 0xfd)
	b = binary.BigEndian.AppendUint64(b, seq)
	b = binary.BigEndian.AppendUint16(b, uint16(explicitIV+len(data)+16))
	b = binary.BigEndian.AppendUint64(b, seq)
	d := &c.out
	d.record(seq, seq, typ, len(data))
	return d.aead.Seal(b, d.nonce[:], data, d.additional[:])
}

// A Batcher is a path that sends several packets more cheaply than one by one.
type Batcher interface {
	// WriteBatch sends b as packets of size bytes each, of which the last may be shorter.
	WriteBatch(b []byte, size int) error
}

// send passes on records, each a packet, which end there in b. What is lost is sent again.
func (c *Conn) send(b []byte, ends []int) {
	batcher, ok := c.path.(Batcher)
	for from := 0; len(ends) > 0; {
		size, n := ends[0]-from, 1
		for ok && n < len(ends) && ends[n]-ends[n-1] <= size {
			n++
			if ends[n-1]-ends[n-2] < size {
				break // only the last may be shorter
			}
		}
		to := ends[n-1]
		if n > 1 {
			batcher.WriteBatch(b[from:to], size)
		} else {
			c.path.Write(b[from:to])
		}
		from, ends = to, ends[n:]
	}
}

// open decrypts a record in place.
func (c *Conn) open(r *record) ([]byte, bool) {
	n := len(r.fragment) - explicitIV - 16
	if n < 0 || r.epoch != 1 || c.seen.has(r.seq) {
		return nil, false
	}
	body := r.fragment[explicitIV:]
	d := &c.in
	d.record(binary.BigEndian.Uint64(r.fragment), r.seq, r.typ, n)
	data, err := d.aead.Open(body[:0], d.nonce[:], body, d.additional[:])
	if err != nil {
		return nil, false
	}
	c.seen.add(r.seq)
	return data, true
}

// record sets up nonce and additional for a record with n bytes of data.
//
// https://www.rfc-editor.org/rfc/rfc5288#section-3 and
// https://www.rfc-editor.org/rfc/rfc5246#section-6.2.3.3
func (d *direction) record(explicit, seq uint64, typ byte, n int) {
	binary.BigEndian.PutUint64(d.nonce[4:], explicit)
	a := binary.BigEndian.AppendUint64(d.additional[:0], seq)
	a = append(a, typ, 0xfe, 0xfd)
	binary.BigEndian.AppendUint16(a, uint16(n))
}

// window is which of the latest records have come.
//
// https://www.rfc-editor.org/rfc/rfc6347#section-4.1.2.6
type window struct {
	highest uint64
	mask    uint64
}

func (w *window) has(seq uint64) bool {
	if seq > w.highest {
		return false
	}
	d := w.highest - seq
	return d >= 64 || w.mask&(1<<d) != 0
}

func (w *window) add(seq uint64) {
	if seq > w.highest {
		w.mask = w.mask<<min(seq-w.highest, 64) | 1
		w.highest = seq
		return
	}
	w.mask |= 1 << (w.highest - seq)
}

// A Waiter is a path that tells whether a packet can be read at once.
type Waiter interface{ Waiting() bool }

// waiting tells whether there is something to receive.
func (c *Conn) waiting() bool {
	w, ok := c.path.(Waiter)
	return len(c.early) > 0 || ok && w.Waiting()
}

// receive waits for a datagram and calls data for each packet in it. It returns why
// there will be no more.
func (c *Conn) receive(buf []byte, data func([]byte)) error {
	var b []byte
	if len(c.early) > 0 {
		b, c.early = c.early[0], c.early[1:]
	} else {
		n, err := c.path.Read(buf)
		if err != nil {
			return err
		}
		b = buf[:n]
	}
	for {
		r, rest, ok := nextRecord(b)
		if !ok {
			return nil
		}
		b = rest
		if r.typ == recordHandshake || r.typ == recordChangeCipherSpec {
			c.repeat()
			continue
		}
		d, ok := c.open(&r)
		if !ok {
			continue
		}
		switch {
		case r.typ == recordData:
			data(d)
		case r.typ == recordAlert && len(d) == 2 && (d[0] == 2 || d[1] == 0): // fatal, or close_notify
			return errAlert
		}
	}
}

// repeat sends our last flight again: the peer has not got it.
//
// "the FINISHED state […] Read retransmit → Retransmit last flight".
// https://www.rfc-editor.org/rfc/rfc6347#section-4.2.4
func (c *Conn) repeat() {
	now := time.Now()
	if now.Sub(c.sentAt) < resendPause {
		return
	}
	c.sentAt = now
	for _, b := range c.answer {
		c.path.Write(b)
	}
}

// handshakeConn is what pion reads and writes: the path, but for data, which waits for the
// keys.
type handshakeConn struct {
	path    net.Conn
	reading chan struct{} // a turn, held by who reads the path

	mu     sync.Mutex
	closed bool
	muted  bool
	err    error    // why nothing comes any more
	early  [][]byte // data
	sent   [][]byte // since the last packet came
	fresh  bool     // a packet has come since
}

// mute drops what pion writes from now on.
func (h *handshakeConn) mute() {
	h.mu.Lock()
	h.muted = true
	h.mu.Unlock()
}

// flight is what pion wrote last.
func (h *handshakeConn) flight() [][]byte {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.sent
}

// leave ends what pion reads, and leaves the path without a deadline.
func (h *handshakeConn) leave() {
	h.Close()
	h.reading <- struct{}{} // for good
	h.path.SetReadDeadline(time.Time{})
}

func (h *handshakeConn) ReadFrom(p []byte) (int, net.Addr, error) {
	select {
	case h.reading <- struct{}{}:
	default: // only after leave
		return 0, nil, net.ErrClosed
	}
	defer func() { <-h.reading }()
	for {
		n, err := h.path.Read(p)
		if n, err = h.take(p[:n], err); n > 0 || err != nil {
			return n, h.path.RemoteAddr(), err
		}
	}
}

// take keeps the data of a datagram, and moves what is pion's to its beginning.
func (h *handshakeConn) take(b []byte, err error) (n int, _ error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
		h.err = err
	}
	var data []byte
	for rest := b; ; {
		r, after, ok := nextRecord(rest)
		if !ok {
			break
		}
		if r.typ == recordData {
			data = append(data, r.raw...)
		} else {
			n += copy(b[n:], r.raw)
		}
		rest = after
	}
	if len(data) > 0 && len(h.early) < maxEarly {
		h.early = append(h.early, data)
	}
	if h.closed {
		return 0, net.ErrClosed
	}
	h.fresh = h.fresh || n > 0
	return n, err
}

func (h *handshakeConn) WriteTo(b []byte, _ net.Addr) (int, error) {
	h.mu.Lock()
	if h.muted {
		h.mu.Unlock()
		return len(b), nil
	}
	if h.fresh {
		h.fresh, h.sent = false, nil
	}
	if len(h.sent) < 8 {
		h.sent = append(h.sent, append([]byte(nil), b...))
	}
	h.mu.Unlock()
	return h.path.Write(b)
}

// Close makes reads fail, whatever deadline pion sets from now on.
func (h *handshakeConn) Close() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.closed {
		h.closed = true
		h.path.SetReadDeadline(past)
	}
	return nil
}

func (h *handshakeConn) LocalAddr() net.Addr { return h.path.LocalAddr() }

func (h *handshakeConn) SetDeadline(t time.Time) error { return h.SetReadDeadline(t) }

// SetReadDeadline holds mu, so that Close has the last word.
func (h *handshakeConn) SetReadDeadline(t time.Time) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return nil
	}
	return h.path.SetReadDeadline(t)
}

func (h *handshakeConn) SetWriteDeadline(time.Time) error { return nil }
