// Package multiselect negotiates which protocol a connection or a stream speaks,
// by multistream-select 1.0.
//
// The initiator proposes protocol IDs, one after the other, until the responder
// repeats one. There are two ways to do so:
//
//   - At once, on a raw or secured connection: [Select] and [Accept] return when
//     both ends agree, have read no byte too many, and leave nothing behind.
//   - On the way, on a stream: a [Conn] lets the negotiation ride on what the
//     application writes. [Conn.Lazy] proposes with the first write and looks at the
//     answer when it first reads; [Conn.Accept] answers with its first write.
//     A request and its response then cost one write and one round trip in all.
//
// What a peer may send is bounded: 1024 bytes a message, 100 proposals. How long
// it takes is bounded by the deadlines that the caller sets.
//
// Spec: https://github.com/multiformats/multistream-select and
// https://github.com/libp2p/specs/blob/master/connections/README.md#multistream-select
//
// # Limits
//
// Simultaneous open is not done. A refused [Conn.Lazy] fails, and does not
// propose again.
package multiselect

import (
	"errors"
	"fmt"
	"io"
	"strings"
)

// Bounds on what a peer may send.
const (
	maxToken     = 1024      // bytes of one message, with its newline
	maxProposals = 100       // messages that Accept answers before it gives up
	maxList      = 64 * 1024 // bytes of an answer to ls
	maxRefused   = 8         // refused proposals that an error names
)

var (
	// ErrNotSupported means that the responder has none of the proposed protocols.
	ErrNotSupported = errors.New("protocol not supported")

	// ErrMalformed means that a peer sent what is not multistream-select.
	ErrMalformed = errors.New("malformed multistream-select message")

	errProposals = fmt.Errorf("%w: more than %d proposals", ErrMalformed, maxProposals)
)

// A NegotiationError says that there is no agreement on a protocol. It is also
// what failed underneath: [ErrNotSupported], [ErrMalformed], or an error of the
// connection.
type NegotiationError struct {
	Protocols []string // what was proposed, the first few
	Err       error
}

func (e *NegotiationError) Error() string {
	if len(e.Protocols) == 0 {
		return "multiselect: " + e.Err.Error()
	}
	return fmt.Sprintf("multiselect: %q: %v", e.Protocols, e.Err)
}

func (e *NegotiationError) Unwrap() error { return e.Err }

// Protocols is what a responder speaks.
type Protocols struct {
	// Match returns the ID of a protocol that it speaks, and "" for any other.
	// It must not keep id. A lookup such as table[string(id)] allocates nothing.
	Match func(id []byte) string

	// List answers ls; nil: like an unknown protocol.
	List func() []string
}

// Only is a fixed set of protocols.
func Only(ids ...string) Protocols {
	return Protocols{
		Match: func(id []byte) string {
			for _, s := range ids {
				if s == string(id) {
					return s
				}
			}
			return ""
		},
		List: func() []string { return ids },
	}
}

// Select proposes the protocols in their order, and returns the one that the
// responder takes. It waits for each answer, and reads no byte after the last.
// All errors but those of deadlines are a [NegotiationError].
func Select(c io.ReadWriter, ids ...string) (string, error) {
	buf := buffers.Get().(*buffer)
	defer buffers.Put(buf)
	// "the initiator SHOULD send the multistream protocol AND the desired
	// protocol in the same packet"
	// https://github.com/multiformats/multistream-select#implementation-recommendations
	greet := true
	for i, id := range ids {
		if err := check(id); err != nil {
			return "", negotiationError(ids[i:i+1], err)
		}
		want := appendMessage(buf.want[:0], greet, id)
		if _, err := c.Write(want); err != nil {
			return "", negotiationError(ids, err)
		}
		a := answer{noHeader: !greet}
		switch err := a.read(c, want, buf.in[:]); {
		case err == nil:
			return id, nil
		case err != ErrNotSupported:
			return "", negotiationError(ids, err)
		}
		greet = false
	}
	return "", negotiationError(ids, ErrNotSupported)
}

// List asks the responder which protocols it speaks. Few answer, and Select may
// follow on another stream only.
func List(c io.ReadWriter) ([]string, error) {
	ask := []string{"ls"}
	if _, err := io.WriteString(c, header+ls); err != nil {
		return nil, negotiationError(ask, err)
	}
	buf := buffers.Get().(*buffer)
	defer buffers.Put(buf)
	if err := readHeader(c, buf.in[:]); err != nil {
		return nil, negotiationError(ask, noEOF(err))
	}
	n, err := readLength(c, buf.in[:], maxList)
	if err != nil {
		return nil, negotiationError(ask, noEOF(err))
	}
	b := make([]byte, n)
	if _, err := io.ReadFull(c, b); err != nil {
		return nil, negotiationError(ask, noEOF(err))
	}
	if string(b) == na[1:] {
		return nil, negotiationError(ask, ErrNotSupported)
	}
	ids, err := parseList(b)
	if err != nil {
		return nil, negotiationError(ask, err)
	}
	return ids, nil
}

// Accept answers proposals until one is of a protocol in p, which it returns. The
// answer is sent, and no byte after the proposal is read. All errors but those
// of deadlines are a [NegotiationError]. It is io.EOF when the initiator sent
// nothing, and ErrNotSupported when it left after refusals.
func Accept(c io.ReadWriter, p Protocols) (string, error) {
	buf := buffers.Get().(*buffer)
	defer buffers.Put(buf)
	id, greet, err := accept(c, p, buf)
	if err != nil {
		return "", err
	}
	if _, err := c.Write(appendMessage(buf.want[:0], greet, id)); err != nil {
		return "", negotiationError([]string{id}, err)
	}
	return id, nil
}

// accept reads and answers until it would answer yes. That answer is left to the
// caller, with the header before it if greet.
func accept(c io.ReadWriter, p Protocols, buf *buffer) (id string, greet bool, err error) {
	if err := readHeader(c, buf.in[:]); err != nil {
		return "", false, negotiationError(nil, err)
	}
	greet = true
	// The spec lets an initiator wait for our header before it proposes, and
	// py-libp2p does. So the header can only wait for the answer when the
	// proposal is there already.
	if mayBlock(c) {
		if _, err := io.WriteString(c, header); err != nil {
			return "", false, negotiationError(nil, err)
		}
		greet = false
	}
	var refused []string
	listed := false
	for range maxProposals {
		tok, err := readToken(c, buf.in[:])
		if err == io.EOF && refused != nil {
			err = ErrNotSupported
		}
		if err != nil {
			return "", false, negotiationError(refused, noEOF(err))
		}
		out := buf.want[:0]
		if greet {
			out = append(out, header...)
		}
		last := false
		switch {
		case string(tok) == "ls" && p.List != nil && !listed:
			listed = true // once: the answer is much longer than the question
			out = appendList(out, p.List())
		default:
			if id := p.Match(tok); id != "" {
				return id, greet, nil
			}
			if len(refused) < maxRefused {
				refused = append(refused, string(tok))
			}
			out = append(out, na...)
			// A lazy initiator sends its application's bytes without waiting for
			// the answer. After a refusal they must not be taken for proposals:
			// they may spell one (go-multistream#20). Only one that waited may
			// propose again, and so far no answer left.
			last = ready(c)
		}
		if _, err := c.Write(out); err != nil {
			return "", false, negotiationError(refused, err)
		}
		if last {
			return "", false, negotiationError(refused, ErrNotSupported)
		}
		greet = false
	}
	return "", false, negotiationError(refused, errProposals)
}

// ready tells that bytes, EOF or an error wait in c, if c can tell.
func ready(c any) bool {
	r, ok := c.(interface{ Ready() bool })
	return ok && r.Ready()
}

// mayBlock tells that reading c may wait for the peer.
func mayBlock(c any) bool { return !ready(c) }

// negotiationError wraps err, unless it says that a deadline passed.
func negotiationError(ids []string, err error) error {
	if isTimeout(err) {
		return err
	}
	if len(ids) > maxRefused {
		ids = ids[:maxRefused]
	}
	return &NegotiationError{Protocols: append([]string(nil), ids...), Err: err}
}

// check tells why id cannot be proposed.
func check(id string) error {
	switch {
	case id == "" || len(id) >= maxToken:
		return fmt.Errorf("a protocol ID of %d bytes", len(id))
	case strings.Contains(id, "\n") || id == "na" || id == "ls":
		return errors.New("not a protocol ID")
	}
	return nil
}
