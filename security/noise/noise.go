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
//
// The extension of WebTransport (certificate hashes) is parsed and not used.
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

	"github.com/flynn/noise"

	"github.com/plexus-p2p/plexus/peer"
	"github.com/plexus-p2p/plexus/security"
	"github.com/plexus-p2p/plexus/security/internal/link"
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
	var sc *security.Conn
	err := security.Within(ctx, c, func() (err error) {
		sc, err = p.handshake(c, &h)
		return err
	})
	if err != nil {
		return nil, security.Failed(ID, err)
	}
	return sc, nil
}

// handshake runs
//
//	XX:
//	  -> e
//	  <- e, ee, s, es    with the responder's payload
//	  -> s, se           with the initiator's payload
//
// https://github.com/libp2p/specs/blob/master/noise/README.md#xx
func (p *Protocol) handshake(c net.Conn, h *security.Handshake) (*security.Conn, error) {
	id, err := p.identity(h.Key)
	if err != nil {
		return nil, err
	}
	x, err := p.newExchange(c, id, h.Client != p.Reverse)
	if err != nil {
		return nil, err
	}
	muxers := h.Muxers[:min(len(h.Muxers), maxMuxers)]
	own := appendExtensions(id.payload[:len(id.payload):len(id.payload)], nil, muxers)
	sc := new(security.Conn)
	var theirs []string
	verify := func(b []byte) error {
		got, err := parsePayload(b)
		if err != nil {
			return err
		}
		theirs = got.muxers
		if sc.Key, err = verifyIdentity(got, x.hs.PeerStatic()); err != nil {
			return err
		}
		sc.Peer = sc.Key.ID()
		return nil
	}

	// "the initiator MUST NOT send extensions in their first message."
	// https://github.com/libp2p/specs/blob/master/noise/README.md#the-libp2p-handshake-payload
	if x.initiator {
		if err := x.write(nil); err != nil {
			return nil, err
		}
		if err := x.read(verify); err != nil {
			return nil, err
		}
		if err := h.Check(sc.Peer); err != nil {
			return nil, err
		}
		if err := x.write(own); err != nil {
			return nil, err
		}
		sc.Muxer = security.Agree(muxers, theirs)
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
		if err := h.Check(sc.Peer); err != nil {
			return nil, err
		}
		sc.Muxer = security.Agree(theirs, muxers)
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
	initiator bool
	hs        *noise.HandshakeState
	c         net.Conn
	in        wire
	step      int                // messages so far
	tx, rx    *noise.CipherState // after the last message
}

func (p *Protocol) newExchange(c net.Conn, id *identity, initiator bool) (*exchange, error) {
	hs, err := noise.NewHandshakeState(noise.Config{
		CipherSuite:   noise.NewCipherSuite(&dh{static: id.static}, noise.CipherChaChaPoly, noise.HashSHA256),
		Pattern:       noise.HandshakeXX,
		Initiator:     initiator,
		Prologue:      p.Prologue,
		Random:        p.rand(),
		StaticKeypair: noise.DHKey{Private: []byte(useStatic), Public: id.static.PublicKey().Bytes()},
	})
	if err != nil {
		return nil, err
	}
	return &exchange{initiator: initiator, hs: hs, c: c, in: wire{c: c}}, nil
}

// write sends the next message, in one write.
func (x *exchange) write(payload []byte) error {
	x.step++
	buf := link.Borrow(link.Small)
	defer link.GiveBack(buf)
	b, fromInitiator, fromResponder, err := x.hs.WriteMessage((*buf)[:prefix], payload)
	if err == nil && len(b) > prefix+maxMessage {
		err = errTooLarge
	}
	if err == nil {
		binary.BigEndian.PutUint16(b, uint16(len(b)-prefix))
		_, err = x.c.Write(b)
	}
	if err != nil {
		return fmt.Errorf("sending message %d: %w", x.step, err)
	}
	x.tx, x.rx = fromInitiator, fromResponder
	return nil
}

// read receives the next message, and calls f with its payload.
func (x *exchange) read(f func(payload []byte) error) error {
	x.step++
	b, err := x.in.message(maxMessage)
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	var payload []byte
	if err == nil {
		payload, x.tx, x.rx, err = x.hs.ReadMessage(nil, b)
	}
	if err == nil && f != nil {
		err = f(payload)
	}
	if err != nil {
		return fmt.Errorf("message %d of the peer: %w", x.step, err)
	}
	return nil
}

// conn returns the connection after the last message. It goes on with what was
// read ahead.
func (x *exchange) conn() *conn {
	tx, rx := x.tx, x.rx
	if !x.initiator {
		tx, rx = rx, tx // the first key is the initiator's to send with
	}
	c := newConn(x.c, tx.UnsafeKey(), rx.UnsafeKey())
	c.in.wire = x.in
	return c
}

// dh is X25519 for one handshake. The private keys stay in it, parsed, because
// parsing one costs as much as using it; the handshake state holds names for them.
type dh struct{ static, ephemeral *ecdh.PrivateKey }

const useStatic, useEphemeral = "static", "ephemeral"

func (*dh) DHName() string { return "25519" }
func (*dh) DHLen() int     { return 32 }

func (d *dh) GenerateKeypair(random io.Reader) (noise.DHKey, error) {
	var err error
	if d.ephemeral, err = newKey(random); err != nil {
		return noise.DHKey{}, err
	}
	return noise.DHKey{Private: []byte(useEphemeral), Public: d.ephemeral.PublicKey().Bytes()}, nil
}

// DH fails if the peer sent a point of low order, whose product everybody knows.
func (d *dh) DH(which, public []byte) ([]byte, error) {
	k := d.static
	if string(which) == useEphemeral {
		k = d.ephemeral
	}
	p, err := ecdh.X25519().NewPublicKey(public)
	if err != nil {
		return nil, err
	}
	return k.ECDH(p)
}

// newKey makes a key. crypto/ecdh would not take random.
func newKey(random io.Reader) (*ecdh.PrivateKey, error) {
	var b [32]byte
	if _, err := io.ReadFull(random, b[:]); err != nil {
		return nil, err
	}
	return ecdh.X25519().NewPrivateKey(b[:])
}
