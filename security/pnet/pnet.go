// Package pnet makes networks private: only hosts that have the network's key can
// connect to each other.
//
//	key, err := pnet.LoadKey("swarm.key")
//	…
//	Pipes: []transport.Pipes{&pnet.Transport{Key: key, Pipes: new(tcp.Transport)}}
//
// All that goes over the connections of a transport is encrypted with the key, before
// the host secures it as always. That keeps strangers out and hides what is spoken. It
// proves nothing else: identity, secrecy among members and integrity are Noise's or
// TLS's within.
//
// It fails closed. A Transport without a key makes no connections. A private host is
// one of which all transports are wrapped; those that bring their own security cannot
// be. QUIC has a way of its own to be private (tls.NewMember); others have no place in it.
//
// The specification has programs heed the environment, LIBP2P_FORCE_PNET=1, and refuse to
// start without a key then. This package reads no environment: that is for main to do,
// where the key is loaded.
//
// A peer that is not in the network, and sends what is no nonce but the beginning of
// multistream-select, is an [ErrStranger] at once. One with another key sends nonsense, of
// which multistream-select says so by the 20th byte.
//
// Spec: https://github.com/libp2p/specs/blob/master/pnet/Private-Networks-PSK-V1.md
package pnet

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"

	ma "github.com/multiformats/go-multiaddr"

	"github.com/plexus-p2p/plexus/internal/link"
)

// ErrStranger means that the peer does not encrypt, or that its certificate shows
// no membership: it is not in the network.
var ErrStranger = errors.New("pnet: the peer is not in the private network")

// multistream is what connections in the open begin with.
const multistream = "\x13/multistream/1.0.0\n"

// Pipes is what is wrapped: a transport.Pipes.
type Pipes interface {
	Match(ma.Multiaddr) bool
	Dial(ctx context.Context, to ma.Multiaddr) (net.Conn, error)
	Listen(ctx context.Context, on ma.Multiaddr) (net.Listener, error)
}

// Transport is a transport whose connections are private. It is a transport.Pipes.
type Transport struct {
	Key   Key   // of the network; zero: nothing works
	Pipes Pipes // makes the connections
}

// Match accepts what the transport below does.
func (t *Transport) Match(a ma.Multiaddr) bool { return t.Pipes.Match(a) }

// Dial connects. It returns [ErrNoKey] if there is none.
func (t *Transport) Dial(ctx context.Context, to ma.Multiaddr) (net.Conn, error) {
	if t.Key == (Key{}) {
		return nil, ErrNoKey
	}
	c, err := t.Pipes.Dial(ctx, to)
	if err != nil {
		return nil, err
	}
	return newConn(c, t.Key), nil
}

// Listen accepts connections. It returns [ErrNoKey] if there is none.
func (t *Transport) Listen(ctx context.Context, on ma.Multiaddr) (net.Listener, error) {
	if t.Key == (Key{}) {
		return nil, ErrNoKey
	}
	l, err := t.Pipes.Listen(ctx, on)
	if err != nil {
		return nil, err
	}
	return &listener{l, t.Key}, nil
}

// Watches tells what the transport below does: see transport.Watcher.
func (t *Transport) Watches() bool {
	w, ok := t.Pipes.(interface{ Watches() bool })
	return ok && w.Watches()
}

type listener struct {
	net.Listener
	key Key
}

func (l *listener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return newConn(c, l.key), nil
}

// conn is a private connection. Each direction begins with a nonce, and all else is
// encrypted. Deadlines do what they do below.
type conn struct {
	net.Conn
	key     Key
	in, out half
}

type half struct {
	turn  link.Turn // guards what follows
	nonce [nonceSize]byte
	n     int // of nonce, that were sent or have come
	stream
	err error // why nothing can be read any more
}

func newConn(c net.Conn, k Key) *conn {
	p := &conn{Conn: c, key: k}
	p.in.turn, p.out.turn = link.NewTurn(), link.NewTurn()
	rand.Read(p.out.nonce[:])
	p.out.init(&k, &p.out.nonce)
	return p
}

// Read decrypts what comes, where it comes.
func (c *conn) Read(p []byte) (int, error) {
	h := &c.in
	h.turn.Lock()
	defer h.turn.Unlock()
	if h.err != nil {
		return 0, h.err
	}
	for h.n < nonceSize && len(p) > 0 {
		n, err := c.Conn.Read(p)
		k := copy(h.nonce[h.n:], p[:n])
		h.n += k
		n = copy(p, p[k:n]) // what came with it
		switch {
		case bytes.HasPrefix(h.nonce[:h.n], []byte(multistream)):
			h.err = ErrStranger
			return 0, h.err
		case h.n == nonceSize:
			h.init(&c.key, &h.nonce)
			if n > 0 {
				h.xor(p[:n], p[:n])
				return n, err
			}
			c.greet()
		case err == io.EOF && h.n > 0:
			return 0, io.ErrUnexpectedEOF
		case err != nil:
			return 0, err
		}
	}
	n, err := c.Conn.Read(p)
	h.xor(p[:n], p[:n])
	return n, err
}

// greet sends our nonce, if nothing was written yet, to a peer that has sent its own and
// nothing else: rust- and js-libp2p say nothing before they have it, and we may be
// waiting for them.
//
// "New nonce is created, it is [cross-shared] with the other party".
// https://github.com/libp2p/specs/blob/master/pnet/Private-Networks-PSK-V1.md#algorithm
func (c *conn) greet() {
	h := &c.out
	if !h.turn.TryLock() {
		return // it goes with what is being written
	}
	defer h.turn.Unlock()
	if h.n < nonceSize {
		n, _ := c.Conn.Write(h.nonce[h.n:]) // an error will come again
		h.n += n
	}
}

// Write encrypts and sends p, the first time with the nonce before it. n is what was
// sent: what a deadline keeps back was never encrypted, for all that the peer can tell.
func (c *conn) Write(p []byte) (n int, err error) {
	h := &c.out
	h.turn.Lock()
	defer h.turn.Unlock()
	if len(p) == 0 {
		return c.Conn.Write(p) // what is below may have something left to send
	}
	buf := link.Borrow(min(len(p)+nonceSize, link.Batch))
	defer link.GiveBack(buf)
	for n < len(p) {
		b := append((*buf)[:0], h.nonce[h.n:]...)
		head := len(b)
		b = b[:min(len(*buf), head+len(p)-n)]
		start := h.pos
		h.xor(b[head:], p[n:n+len(b)-head])
		k, err := c.Conn.Write(b)
		if k < len(b) && err == nil {
			err = io.ErrShortWrite
		}
		h.n += min(k, head)
		sent := max(k-head, 0)
		n += sent
		if err != nil {
			h.seek(start + uint64(sent))
			return n, err
		}
	}
	return n, nil
}

// CloseWrite ends the sending direction, if the connection below can do that; else it is
// errors.ErrUnsupported.
func (c *conn) CloseWrite() error {
	half, ok := c.Conn.(interface{ CloseWrite() error })
	if !ok {
		return fmt.Errorf("pnet: CloseWrite: %w", errors.ErrUnsupported)
	}
	c.out.turn.Lock()
	defer c.out.turn.Unlock()
	return half.CloseWrite()
}
