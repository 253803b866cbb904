// Package noise is the secure channel of the Noise Protocol Framework: the
// handshake XX over X25519, ChaCha20-Poly1305 and SHA-256.
//
// A handshake takes one round trip and a half, of which the client waits for one.
// The static Noise key is made once per [Protocol] and identity, and so is the
// signature that binds it to the identity. That is as safe as a new one for each
// connection, since secrecy comes from the ephemeral keys, and spares each
// handshake a key and a signature, which peers could otherwise have us make at will.
//
// The records after the handshake (record.go) allocate nothing, cost one system
// call for up to 256 KiB, and a connection at rest holds 2.5 KiB in all.
//
// Spec: https://github.com/libp2p/specs/blob/master/noise/README.md
//
// # Limits
//
// Noise has no message that ends a connection: whoever can cut the connection
// below can cut this one between two records, which then reads as io.EOF. Muxers
// end their streams by themselves and are not misled.
package noise

import (
	"context"
	"crypto/ecdh"
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"sync/atomic"

	"github.com/plexus-p2p/plexus/internal/link"
	"github.com/plexus-p2p/plexus/peer"
	"github.com/plexus-p2p/plexus/security"
)

// ID is what multiselect negotiates.
const ID = "/noise"

// Protocol is Noise with its settings. The zero value is what peers speak over TCP.
// Share one value between all connections; it must not be copied after use.
type Protocol struct {
	// Prologue is what both ends must know beforehand for the handshake to
	// succeed. Nil: nothing.
	Prologue []byte

	// Reverse has the server send the first message, as WebRTC asks.
	Reverse bool

	random io.Reader // nil but in tests
	cached atomic.Pointer[identity]
}

// identity is the static Noise key of an identity, with the proof of whose it is.
type identity struct {
	of      peer.ID
	static  *ecdh.PrivateKey
	payload []byte // the fields identity_key and identity_sig
}

// ID implements [security.Protocol].
func (p *Protocol) ID() string { return ID }

// Secure implements [security.Protocol].
func (p *Protocol) Secure(ctx context.Context, c net.Conn, h security.Handshake) (*security.Conn, error) {
	return p.SecureCerts(ctx, c, h, Certs{})
}

// Certs is what a handshake says of the certificates below it, that are not the
// identity's own: the extension webtransport_certhashes.
type Certs struct {
	Hashes [][]byte                    // which we vouch for, as multihashes; nil: none
	Check  func(theirs [][]byte) error // fails the handshake if the peer's do not suit; nil: any do
}

// SecureCerts is Secure, with an extension.
func (p *Protocol) SecureCerts(ctx context.Context, c net.Conn, h security.Handshake, certs Certs) (*security.Conn, error) {
	var sc *security.Conn
	err := security.Within(ctx, c, func() (err error) {
		sc, err = p.handshake(c, &h, &certs)
		return err
	})
	if err != nil {
		return nil, security.Failed(ID, err)
	}
	return sc, nil
}

// handshake runs XX.
//
// https://github.com/libp2p/specs/blob/master/noise/README.md#xx
func (p *Protocol) handshake(c net.Conn, h *security.Handshake, certs *Certs) (*security.Conn, error) {
	id, err := p.identity(h.Key)
	if err != nil {
		return nil, err
	}
	x := p.newExchange(c, id, h.Client != p.Reverse)
	muxers := h.Muxers[:min(len(h.Muxers), maxMuxers)]
	own := appendExtensions(id.payload[:len(id.payload):len(id.payload)], certs.Hashes, muxers)
	sc := new(security.Conn)
	var theirs payload // valid until the next read
	verify := func(b []byte) (err error) {
		if theirs, err = parsePayload(b); err != nil {
			return err
		}
		if sc.Key, err = verifyIdentity(theirs, x.xx.theirS.Bytes()); err != nil {
			return err
		}
		sc.Peer = sc.Key.ID()
		return nil
	}
	check := func() error {
		if err := h.Check(sc.Peer); err != nil || certs.Check == nil {
			return err
		}
		return certs.Check(theirs.certHashes)
	}

	// "the initiator MUST NOT send extensions in their first message."
	// https://github.com/libp2p/specs/blob/master/noise/README.md#the-libp2p-handshake-payload
	if x.xx.initiator {
		if err := x.write(nil); err != nil {
			return nil, err
		}
		if err := x.read(verify); err != nil {
			return nil, err
		}
		if err := check(); err != nil {
			return nil, err
		}
		if err := x.write(own); err != nil {
			return nil, err
		}
		sc.Muxer = security.Agree(muxers, theirs.muxers)
	} else {
		if err := x.read(nil); err != nil {
			return nil, err
		}
		if err := x.write(own); err != nil {
			return nil, err
		}
		if err := x.read(verify); err != nil {
			return nil, err
		}
		if err := check(); err != nil {
			return nil, err
		}
		sc.Muxer = security.Agree(theirs.muxers, muxers)
	}
	sc.Conn = x.conn()
	return sc, nil
}

// identity returns the static key for k: the last one made, if that was for k too.
func (p *Protocol) identity(k peer.PrivKey) (*identity, error) {
	if id := p.cached.Load(); id != nil && id.of == k.ID() {
		return id, nil
	}
	if k.IsZero() {
		return nil, errNoKey
	}
	static, err := newKey(p.rand())
	if err != nil {
		return nil, err
	}
	sig, err := k.Sign(signed(static.PublicKey().Bytes()))
	if err != nil {
		return nil, err
	}
	id := &identity{
		of:      k.ID(),
		static:  static,
		payload: appendIdentity(nil, k.Public().Bytes(), sig),
	}
	p.cached.Store(id) // if another handshake did so meanwhile, either is good
	return id, nil
}

func (p *Protocol) rand() io.Reader {
	if p.random != nil {
		return p.random
	}
	return rand.Reader
}

// signed returns what an identity signs for a static key.
func signed(static []byte) []byte {
	return append([]byte("noise-libp2p-static-key:"), static...)
}

// verifyIdentity returns the key of the peer that has the static key.
//
// "If the signature is invalid, the connection MUST be terminated immediately."
// https://github.com/libp2p/specs/blob/master/noise/README.md#the-libp2p-handshake-payload
func verifyIdentity(p payload, static []byte) (peer.PubKey, error) {
	k, err := peer.ParsePubKey(p.key)
	if err != nil {
		return k, err
	}
	return k, k.Verify(signed(static), p.sig)
}

// exchange is a handshake under way.
type exchange struct {
	xx *xx
	c  net.Conn
	in wire
}

func (p *Protocol) newExchange(c net.Conn, id *identity, initiator bool) *exchange {
	return &exchange{xx: newXX(initiator, p.Prologue, id.static, p.rand()), c: c, in: wire{c: c}}
}

// write sends the next message, in one write.
func (x *exchange) write(payload []byte) error {
	n := x.xx.step + 1
	buf := link.Borrow(link.Small)
	defer link.GiveBack(buf)
	b, err := x.xx.write((*buf)[:prefix], payload)
	if err == nil && len(b) > prefix+maxMessage {
		err = errTooLarge
	}
	if err == nil {
		binary.BigEndian.PutUint16(b, uint16(len(b)-prefix))
		_, err = x.c.Write(b)
	}
	if err != nil {
		return fmt.Errorf("sending message %d: %w", n, err)
	}
	return nil
}

// read receives the next message, and calls f with its payload.
func (x *exchange) read(f func(payload []byte) error) error {
	n := x.xx.step + 1
	b, err := x.in.message(maxMessage)
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	var payload []byte
	if err == nil {
		payload, err = x.xx.read(b)
	}
	if err == nil && f != nil {
		err = f(payload)
	}
	if err != nil {
		return fmt.Errorf("message %d of the peer: %w", n, err)
	}
	return nil
}

// conn returns the connection after the last message. It goes on with what was
// read ahead.
func (x *exchange) conn() *conn {
	tx, rx := x.xx.first, x.xx.last
	if !x.xx.initiator {
		tx, rx = rx, tx
	}
	c := newConn(x.c, tx, rx)
	c.in.wire = x.in
	return c
}

// newKey makes a key. crypto/ecdh would not take random.
func newKey(random io.Reader) (*ecdh.PrivateKey, error) {
	var b [32]byte
	if _, err := io.ReadFull(random, b[:]); err != nil {
		return nil, err
	}
	return ecdh.X25519().NewPrivateKey(b[:])
}
