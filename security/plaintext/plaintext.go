// Package plaintext is the channel that secures nothing: the peers tell each other who
// they are, and everybody on the way reads and changes what they say, this
// included. It is for tests and for looking at a protocol on the wire.
//
// No host uses it unless it is named in its configuration. Naming it next to other
// protocols takes their worth away: an attacker then has it chosen.
//
// Spec: https://github.com/libp2p/specs/blob/master/plaintext/README.md
package plaintext

import (
	"context"
	"errors"
	"io"
	"net"

	"github.com/plexus-p2p/plexus/internal/pb"
	"github.com/plexus-p2p/plexus/peer"
	"github.com/plexus-p2p/plexus/security"
)

// ID is what multiselect negotiates.
const ID = "/plaintext/2.0.0"

// Protocol is plaintext. It has no settings.
type Protocol struct{}

var (
	errNoKey = errors.New("security.Handshake has no Key")
	errID    = errors.New("the peer's ID does not belong to its key")
)

// ID implements [security.Protocol].
func (*Protocol) ID() string { return ID }

// Secure implements [security.Protocol], but for what its name says. The returned
// connection carries c itself.
func (*Protocol) Secure(ctx context.Context, c net.Conn, h security.Handshake) (*security.Conn, error) {
	sc := &security.Conn{Conn: c}
	err := security.Within(ctx, c, func() (err error) {
		sc.Key, err = exchangeKeys(c, h.Key)
		return err
	})
	if err != nil {
		return nil, security.Failed(ID, err)
	}
	sc.Peer = sc.Key.ID()
	if err := h.Check(sc.Peer); err != nil {
		return nil, err
	}
	return sc, nil
}

// exchangeKeys tells who we are and returns who the peer says it is.
//
// "Once the plaintext protocol has been negotiated, both peers immediately send an
// Exchange message containing their peer id and public key."
// https://github.com/libp2p/specs/blob/master/plaintext/README.md#exchange
func exchangeKeys(c net.Conn, own peer.PrivKey) (k peer.PubKey, err error) {
	if own.IsZero() {
		return k, errNoKey
	}
	// Written beside the read: over a connection without a buffer, as net.Pipe, two
	// peers that both write first would wait for each other. It ends when the peer has
	// read, when ctx ends, or when the caller closes a connection that failed.
	sent := make(chan error, 1)
	go func() {
		msg := appendExchange(nil, exchange{id: []byte(own.ID()), key: own.Public().Bytes()})
		_, err := c.Write(pb.AppendDelimited(nil, msg))
		sent <- err
	}()
	b, err := pb.ReadDelimited(c, maxExchange, nil) // not a byte more: the rest is not ours
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		return k, err
	}
	e, err := parseExchange(b)
	if err != nil {
		return k, err
	}
	if k, err = peer.ParsePubKey(e.key); err != nil {
		return k, err
	}
	// "each side will validate that the given peer id is consistent with the given
	// public key"
	if string(e.id) != string(k.ID()) {
		return k, errID
	}
	return k, <-sent
}
