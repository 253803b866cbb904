package multiselect

import (
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
)

// A Conn negotiates on a net.Conn by the way, while the application uses it. Make
// it part of another struct, and call one of Lazy, Select and Accept once, before
// anything else. Then all methods may be called concurrently, as far as those of
// the net.Conn may. Do not use the net.Conn beside it but for addresses,
// deadlines and ways to close other than those here.
//
// Once the negotiation is over, Read and Write cost one atomic load more than
// the net.Conn's. A deadline that passes amid the negotiation does no harm: the
// next call goes on where the last stopped.
type Conn struct {
	net.Conn        // fixed, once set up
	proto    string // fixed, once set up

	state atomic.Uint32 // bits, which are never cleared

	// guarded by mu, which is never held during I/O
	mu      sync.Mutex
	turn    sync.Cond // waits for one of the flags to fall. A Cond, since time stands still in a synctest bubble while a Mutex is waited for
	writing bool      // somebody is in the first Write
	sending bool      // somebody sends the message, the owner of off
	reading bool      // somebody reads the answer, the owner of got; or what is Ready

	greet bool   // the message begins with the header; fixed, once set up
	off   uint16 // bytes of the message that were sent
	got   answer // what was received of the answer
	ahead []byte // what was received behind the negotiation; the owner of reading's
	err   error  // set before failed
}

// The message is what this end has to send, with the header: its proposal or
// its answer.
const (
	sent     = 1 << iota // the message is out
	written              // the first Write is over: others need not queue behind it
	answered             // the answer is read; always set in a responder
	caughtUp             // nothing is left of what was read ahead
	failed               // there is no agreement; err tells why
)

func (c *Conn) init(nc net.Conn, id string, state uint32) {
	c.Conn, c.proto = nc, id
	c.turn.L = &c.mu
	c.greet, c.off, c.got, c.ahead, c.err = false, 0, answer{}, nil, nil
	c.state.Store(state)
}

// Lazy proposes id on nc. Nothing is sent before the first Write, whose bytes
// leave together with the proposal, or the first Read, Flush, Handshake,
// CloseWrite or Close. The answer is awaited by Read and Handshake only. If it is no, they
// and every later Write fail with a [NegotiationError].
func (c *Conn) Lazy(nc net.Conn, id string) {
	c.init(nc, id, 0)
	c.greet = true
	if err := check(id); err != nil {
		c.fail(err)
	}
}

// Select proposes the protocols in their order and waits for the answers, as
// the function [Select] does.
func (c *Conn) Select(nc net.Conn, ids ...string) error {
	id, err := Select(nc, ids...)
	c.init(nc, id, sent|written|answered|caughtUp)
	if err != nil {
		c.fail(err)
	}
	return err
}

// Accept waits for a proposal of a protocol in p, as the function [Accept] does.
// But it keeps the answer back: that leaves together with what the first Write
// sends, or before a Read that would block, or by Flush, Handshake, CloseWrite or Close.
// A Read can only know that it would not block if nc has a method Ready() bool
// like muxer.Stream's.
//
// An answer that cannot be sent does not stop Read: what a peer sent before it
// left is delivered. After an error that is ErrNotSupported, close nc rather than
// reset it, or the refusal may not arrive.
func (c *Conn) Accept(nc net.Conn, p Protocols) error {
	buf := buffers.Get().(*buffer)
	defer buffers.Put(buf)
	id, greet, err := accept(buf.reader(nc, nil), p, buf)
	c.init(nc, id, answered)
	c.greet = greet
	c.keep(buf.left())
	if err != nil {
		c.fail(err)
	}
	return err
}

// Protocol is the protocol that both ends agree on, or the one that Lazy proposed.
func (c *Conn) Protocol() string { return c.proto }

// Read reads from the net.Conn, as soon as a lazy proposal is answered.
func (c *Conn) Read(p []byte) (int, error) {
	if c.state.Load()&(sent|answered|caughtUp|failed) == sent|answered|caughtUp {
		return c.Conn.Read(p)
	}
	return c.firstRead(p)
}

// Write writes to the net.Conn. The first sends the proposal or the answer too,
// in one write if p is short.
func (c *Conn) Write(p []byte) (int, error) {
	if c.state.Load()&(written|failed) == written {
		return c.Conn.Write(p)
	}
	return c.firstWrite(p)
}

// Flush sends the proposal or the answer if it has not left yet.
func (c *Conn) Flush() error {
	_, err := c.send(nil, true)
	return err
}

// Handshake completes the negotiation: after Lazy it sends the proposal and waits
// for the answer, after Accept it sends the answer.
func (c *Conn) Handshake() error {
	if err := c.Flush(); err != nil {
		return err
	}
	return c.await()
}

// CloseWrite closes the net.Conn for writing, after a Flush. It is
// errors.ErrUnsupported if that has no method CloseWrite.
func (c *Conn) CloseWrite() error {
	w, ok := c.Conn.(interface{ CloseWrite() error })
	if !ok {
		return errors.ErrUnsupported
	}
	// A peer that saw EOF where the proposal should be would not even know that
	// there was one, and one that waits for our answer would find no agreement.
	err := c.Flush()
	if e := w.CloseWrite(); err == nil {
		err = e
	}
	return err
}

// Close closes the net.Conn, after an attempt to Flush. That is a write and may
// wait like one, until the write deadline; but not for a Write in progress, which
// Close makes fail.
func (c *Conn) Close() error {
	if c.state.Load()&(sent|failed) != 0 {
		return c.Conn.Close()
	}
	c.mu.Lock()
	if c.writing {
		c.mu.Unlock()
		return c.Conn.Close()
	}
	c.writing = true
	c.mu.Unlock()
	defer c.release(&c.writing)
	c.Flush()
	return c.Conn.Close()
}

// firstRead is Read before the message is sent and answered, and what was read ahead
// is taken.
func (c *Conn) firstRead(p []byte) (int, error) {
	if err := c.await(); err != nil {
		return 0, err
	}
	// Reads take turns as long as the answer is held back, lest another one takes
	// what was ready, and this one blocks.
	c.acquire(&c.reading)
	if n := copy(p, c.ahead); n > 0 {
		c.keep(c.ahead[n:])
		c.release(&c.reading)
		return n, nil
	}
	if c.state.Load()&sent == 0 && !mayBlock(c.Conn) {
		n, err := c.Conn.Read(p)
		c.release(&c.reading)
		return n, err
	}
	c.release(&c.reading)
	// If that fails Write will tell. The peer may have left, but first it may
	// have sent something.
	c.send(nil, false)
	return c.Conn.Read(p)
}

// await reads the answer to Lazy.
func (c *Conn) await() error {
	if c.state.Load()&(answered|failed) != 0 {
		return c.failure()
	}
	// Not to wait for a Write that waits for our peer, as that may wait for us
	// to read. It sends the proposal.
	if _, err := c.send(nil, false); err != nil {
		return c.unanswered(err)
	}
	c.acquire(&c.reading)
	defer c.release(&c.reading)
	if c.state.Load()&(answered|failed) != 0 {
		return c.failure()
	}
	buf := buffers.Get().(*buffer)
	defer buffers.Put(buf)
	err := c.got.read(buf.reader(c.Conn, c.ahead), appendMessage(buf.want[:0], true, c.proto), buf.in[:])
	c.ahead = buf.left()
	if err != nil {
		return c.unanswered(err)
	}
	c.keep(c.ahead)
	c.state.Or(answered)
	return nil
}

// keep keeps what was read ahead and not taken, after the negotiation.
func (c *Conn) keep(b []byte) {
	if c.ahead = b; len(b) == 0 {
		c.ahead = nil
		c.state.Or(caughtUp)
	}
}

// unanswered is what Read returns for err in place of an answer.
func (c *Conn) unanswered(err error) error {
	if isTimeout(err) || errors.Is(err, net.ErrClosed) {
		return err // nothing that the peer said; and Write may go on after CloseRead
	}
	return c.fail(err)
}

// firstWrite is Write before one has succeeded.
func (c *Conn) firstWrite(p []byte) (int, error) {
	c.acquire(&c.writing)
	defer c.release(&c.writing)
	n, err := c.send(p, true)
	if err == nil && n < len(p) {
		var m int
		m, err = c.Conn.Write(p[n:])
		n += m
	}
	if c.state.Load()&sent != 0 {
		c.state.Or(written)
	}
	return n, err
}

// send sends the message, and as much of p along with it as fits into the
// buffer, unless the message is out. It returns how much of p it sent. If
// somebody else is sending it waits for that, or else returns at once.
func (c *Conn) send(p []byte, wait bool) (int, error) {
	if c.state.Load()&(sent|failed) != 0 {
		return 0, c.failure()
	}
	c.mu.Lock()
	for c.sending {
		if !wait {
			c.mu.Unlock()
			return 0, nil
		}
		c.turn.Wait()
	}
	c.sending = true
	c.mu.Unlock()
	defer c.release(&c.sending)
	if c.state.Load()&(sent|failed) != 0 {
		return 0, c.failure()
	}
	buf := buffers.Get().(*buffer)
	defer buffers.Put(buf)
	b := appendMessage(buf.want[:0], c.greet, c.proto)[c.off:]
	left := len(b)
	b = append(b, p[:min(len(p), cap(b)-left)]...)
	n, err := c.Conn.Write(b)
	if err == nil && n < len(b) {
		err = io.ErrShortWrite
	}
	if n < left {
		c.off += uint16(n)
		return 0, err
	}
	c.state.Or(sent)
	return n - left, err
}

// acquire waits until nobody else has the flag, and takes it.
func (c *Conn) acquire(flag *bool) {
	c.mu.Lock()
	for *flag {
		c.turn.Wait()
	}
	*flag = true
	c.mu.Unlock()
}

func (c *Conn) release(flag *bool) {
	c.mu.Lock()
	*flag = false
	c.mu.Unlock()
	c.turn.Broadcast()
}

// fail makes all further reads and writes fail.
func (c *Conn) fail(err error) error {
	if _, ok := errors.AsType[*NegotiationError](err); !ok && !isTimeout(err) {
		var ids []string
		if c.proto != "" {
			ids = []string{c.proto}
		}
		err = negotiationError(ids, err)
	}
	c.mu.Lock()
	if c.err == nil {
		c.err = err
	}
	err = c.err
	c.mu.Unlock()
	c.state.Or(failed)
	return err
}

// failure returns why there is no agreement, if so.
func (c *Conn) failure() error {
	if c.state.Load()&failed == 0 {
		return nil
	}
	return c.err
}
