// Package security holds what secure channels have in common. A secure channel
// encrypts a connection and proves to each end who the other is.
//
// The protocols are in the folders below: [noise], [tls], [plaintext]. Each is
// held to the suite in securitytest.
//
// Spec: https://github.com/libp2p/specs/blob/master/connections/README.md
package security

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/plexus-p2p/plexus/peer"
)

// A Protocol secures connections.
type Protocol interface {
	// ID is what multiselect negotiates, such as "/noise".
	ID() string

	// Secure runs the handshake on c and returns the secured connection, or
	// closes nothing and returns an error: c stays the caller's. The handshake
	// ends when ctx does. It reads no byte of c beyond what belongs to the
	// secured connection, which owns c from then on.
	Secure(ctx context.Context, c net.Conn, h Handshake) (*Conn, error)
}

// Handshake is what one end brings to a handshake.
type Handshake struct {
	Key    peer.PrivKey
	Client bool     // whether this end dialed
	Want   peer.ID  // whom a client expects; "" accepts anybody
	Muxers []string // protocol IDs to agree on along the way, in order of preference; nil: none
}

// Conn is a connection after its handshake. Reads and writes are independent;
// one goroutine may read while another writes, and further ones wait.
//
// Deadlines lose no bytes. A read can be repeated. A write that returns n and
// os.ErrDeadlineExceeded has taken n bytes; what of them has not been sent goes out
// first when the rest is written, even if there is no rest.
type Conn struct {
	net.Conn             // carries what the application reads and writes
	Peer     peer.ID     // the other end, proved
	Key      peer.PubKey // its key
	Muxer    string      // what the handshake agreed on; "" when muxers are still to be negotiated
}

// A RecordReader is a secured connection that decrypts in place and can hand
// out a record where it lies. Muxers prefer it to Read: it saves a copy, and an
// idle connection need not hold a buffer of its own.
type RecordReader interface {
	// ReadRecord blocks for the next non-empty record. The slice is valid, and
	// the caller may change it, until the next call of ReadRecord or Read.
	// It loses nothing at a deadline.
	ReadRecord() ([]byte, error)

	// Buffered tells whether ReadRecord would return at once.
	Buffered() bool
}

// ErrHandshake is what every failed handshake wraps.
var ErrHandshake = errors.New("security: handshake failed")

// Failed returns err as the failure of a handshake of the protocol id.
func Failed(id string, err error) error {
	if errors.Is(err, ErrHandshake) {
		return err
	}
	return fmt.Errorf("%w: %s: %w", ErrHandshake, id, err)
}

// A MismatchError says that somebody else answered than was dialed. It is also
// an [ErrHandshake].
type MismatchError struct{ Want, Got peer.ID }

func (e *MismatchError) Error() string {
	return fmt.Sprintf("security: dialed %s but reached %s", e.Want, e.Got)
}

func (e *MismatchError) Unwrap() error { return ErrHandshake }

// Check returns a [MismatchError] unless got is whom h wants.
func (h *Handshake) Check(got peer.ID) error {
	if h.Want != "" && h.Want != got {
		return &MismatchError{Want: h.Want, Got: got}
	}
	return nil
}

// Agree returns the first of the client's muxers that the server has too, or "".
//
// "the muxer selected will be the first from the initiator's list that is
// also supported by the responder"
// https://github.com/libp2p/specs/blob/master/connections/inlined-muxer-negotiation.md
func Agree(client, server []string) string {
	for _, c := range client {
		for _, s := range server {
			if c == s {
				return c
			}
		}
	}
	return ""
}

// Within runs f, which uses c, and makes its reads and writes fail when ctx
// ends. It returns the cause of ctx in that case, and leaves c without deadlines.
func Within(ctx context.Context, c net.Conn, f func() error) error {
	if ctx.Done() == nil {
		return f()
	}
	fired := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		c.SetDeadline(time.Unix(1, 0)) // in the past: wakes both directions
		close(fired)
	})
	err := f()
	if !stop() {
		<-fired // else the deadline could be set after we cleared it
		c.SetDeadline(time.Time{})
		if err != nil {
			return fmt.Errorf("%w: %w", context.Cause(ctx), err)
		}
	}
	return err
}
