package plexus

import (
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	ma "github.com/multiformats/go-multiaddr"

	"github.com/plexus-p2p/plexus/multiselect"
	"github.com/plexus-p2p/plexus/muxer"
	"github.com/plexus-p2p/plexus/peer"
	"github.com/plexus-p2p/plexus/security"
)

// Errors of the layers below, under the names that a host's user meets them by.
type (
	// A StreamError is why a stream was reset, and by whom.
	StreamError = muxer.StreamError
	// A ConnError is why a connection ended, and by whom.
	ConnError = muxer.SessionError
	// A NegotiationError says which protocols a peer refused.
	NegotiationError = multiselect.NegotiationError
	// A MismatchError says that somebody else answered than was dialed.
	MismatchError = security.MismatchError
	// Code says why a stream or a connection ended.
	Code = muxer.Code
)

var (
	// ErrClosed means that the host is closed. It is net.ErrClosed.
	ErrClosed = net.ErrClosed
	// ErrNotSupported means that the peer speaks none of the protocols asked for.
	ErrNotSupported = multiselect.ErrNotSupported
	// ErrSelf means that a host was asked to dial itself.
	ErrSelf = errors.New("that is this host")
	// ErrNoAddrs means that no address is known for a peer.
	ErrNoAddrs = errors.New("no address known")
	// ErrNoTransport means that no transport of this host takes an address.
	ErrNoTransport = errors.New("no transport for this address")
	// ErrNotDialable means that an address leads nowhere, such as one with port 0.
	ErrNotDialable = errors.New("not an address to dial")
	// ErrBackoff means that an address failed lately and is not tried again yet.
	ErrBackoff = errors.New("failed lately, waiting")
	// ErrBlackHole means that nothing of this kind of address answered lately.
	ErrBlackHole = errors.New("this kind of address never answers here")
	// ErrLimit means that a bound in [Limits] was met.
	ErrLimit = errors.New("limit reached")
)

// An OpError says what a host tried, with whom, on which address, and why not.
type OpError struct {
	Op   string // "listen", "open", "upgrade"
	Peer peer.ID
	Addr ma.Multiaddr
	Err  error
}

func (e *OpError) Error() string {
	var b strings.Builder
	b.WriteString("plexus: ")
	b.WriteString(e.Op)
	if e.Peer != "" {
		b.WriteString(" " + e.Peer.String())
	}
	if e.Addr != nil {
		b.WriteString(" " + e.Addr.String())
	}
	b.WriteString(": " + e.Err.Error())
	return b.String()
}

func (e *OpError) Unwrap() error { return e.Err }

// A DialError lists every address of a peer that was tried or left out, and why.
type DialError struct {
	Peer     peer.ID
	Attempts []Attempt
	Err      error // why nothing was tried, or what ended the dial before its attempts did; may be nil
}

// listed is how many attempts the text of an error has. The error has them all.
const listed = 16

func (e *DialError) Error() string {
	var b strings.Builder
	b.WriteString("plexus: dial")
	if e.Peer != "" {
		b.WriteString(" " + e.Peer.String())
	}
	if e.Err != nil {
		fmt.Fprintf(&b, ": %v", e.Err)
	}
	switch n := len(e.Attempts); {
	case n == 1:
		fmt.Fprintf(&b, ": %s: %v", e.Attempts[0].Addr, e.Attempts[0].Err)
	case n > 1:
		fmt.Fprintf(&b, ": all %d addresses failed", n)
		for _, a := range e.Attempts[:min(n, listed)] {
			fmt.Fprintf(&b, "; %s: %v", a.Addr, a.Err)
		}
		if n > listed {
			fmt.Fprintf(&b, "; and %d more", n-listed)
		}
	}
	return b.String()
}

// Unwrap returns the cause and every attempt's error.
func (e *DialError) Unwrap() []error {
	var errs []error
	if e.Err != nil {
		errs = append(errs, e.Err)
	}
	for _, a := range e.Attempts {
		if a.Err != nil {
			errs = append(errs, a.Err)
		}
	}
	return errs
}

// An Attempt is what became of one address in a dial.
type Attempt struct {
	Addr   ma.Multiaddr
	Start  time.Duration // since the dial began
	Took   time.Duration
	Stages []StageTime // how far it came
	Err    error       // nil for the address that won
}

// StageTime tells when a stage of an attempt was done, counted from the attempt's start.
type StageTime struct {
	Stage Stage
	Done  time.Duration
}
