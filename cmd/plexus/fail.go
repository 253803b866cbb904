package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"strings"
	"syscall"
	"time"

	"github.com/plexus-p2p/plexus"
	"github.com/plexus-p2p/plexus/dial"
	"github.com/plexus-p2p/plexus/multiselect"
	"github.com/plexus-p2p/plexus/security"
)

// kind says for scripts what went wrong: the field "kind". Append only.
type kind string

const (
	kindUsage       kind = "usage"        // the command line is wrong
	kindAddress     kind = "bad-address"  // ADDR is malformed
	kindNoTransport kind = "no-transport" // nothing here takes such an address
	kindResolve     kind = "resolve"      // a name stands for no address
	kindUnreachable kind = "unreachable"  // no route
	kindRefused     kind = "refused"      // nobody listens there
	kindTimeout     kind = "timeout"      // no answer in time
	kindWrongPeer   kind = "wrong-peer"   // somebody else answered
	kindUnsupported kind = "unsupported"  // no protocol in common
	kindHandshake   kind = "handshake"    // whoever answered does not speak as a node does
	kindLost        kind = "lost"         // the connection or stream ended amid
	kindKey         kind = "key"          // a key file is missing, or not one
	kindSelf        kind = "self"         // ADDR is this node
	kindInUse       kind = "in-use"       // somebody listens there already
	kindInterrupted kind = "interrupted"  // ^C
	kindNoPeers     kind = "no-peers"     // nobody is in the topic
	kindSlower      kind = "slower"       // another address won; not a failure
	kindSpared      kind = "spared"       // its turn had not come; not a failure
	kindFailed      kind = "failed"       // anything else
)

// failure is why a verb failed, in one line.
type failure struct {
	Text string `json:"error"`
	Kind kind   `json:"kind"`
}

func (f *failure) Error() string { return f.Text }

func (f *failure) event() string { return "" }

func (f *failure) text(s style) string { return s.red("plexus:") + " " + f.Text }

// trial is an error with what was tried.
type trial struct {
	what string
	err  error
}

func tried(what string, err error) error { return &trial{what, err} }

func (t *trial) Error() string { return "cannot " + t.what + ": " + t.err.Error() }
func (t *trial) Unwrap() error { return t.err }

// describe turns any error into a failure.
func describe(err error) *failure {
	t, ok := errors.AsType[*trial](err)
	if ok {
		err = t.err
	}
	k, why := reason(err)
	if ok {
		why = "cannot " + t.what + ": " + why
	}
	return &failure{Kind: k, Text: clean(strings.ReplaceAll(why, "\n", "; "))}
}

// reason says why, without what was tried.
func reason(err error) (kind, string) {
	if f, ok := errors.AsType[*failure](err); ok {
		return f.Kind, f.Text
	}
	if de, ok := errors.AsType[*plexus.DialError](err); ok {
		return dialReason(de)
	}
	if k, why := pubsubReason(err); k != "" {
		return k, why
	}
	var (
		mismatch   *plexus.MismatchError
		dns        *net.DNSError
		unresolved *dial.ResolveError
		file       *fs.PathError
		refused    *plexus.NegotiationError
	)
	switch {
	case errors.As(err, &file) && file.Path == os.Stdout.Name():
		return kindFailed, "standard output: " + file.Err.Error()
	case errors.As(err, &file) && file.Path == os.Stdin.Name():
		return kindFailed, "standard input: " + file.Err.Error()
	case errors.As(err, &mismatch):
		return kindWrongPeer, fmt.Sprintf("the wrong peer answers: wanted %s, got %s", mismatch.Want, mismatch.Got)
	case errors.Is(err, plexus.ErrSelf):
		return kindSelf, "it is this node itself"
	case errors.Is(err, plexus.ErrNoTransport):
		return kindNoTransport, "no transport of this node takes such an address"
	case errors.Is(err, plexus.ErrNotDialable):
		return kindAddress, "such an address leads nowhere"
	case errors.Is(err, dial.ErrLost):
		return kindSlower, "another address was faster"
	case errors.Is(err, context.Canceled):
		return kindInterrupted, "interrupted"
	case errors.As(err, &unresolved) && !errors.As(err, &dns):
		return kindResolve, root(unresolved)
	case errors.As(err, &dns):
		return kindResolve, fmt.Sprintf("the name %s does not resolve: %s", dns.Name, dns.Err)
	case isErrno(err, syscall.ECONNREFUSED, 10061):
		return kindRefused, "connection refused: nobody listens there"
	case isErrno(err, syscall.ENETUNREACH, 10051), isErrno(err, syscall.EHOSTUNREACH, 10065):
		return kindUnreachable, "unreachable: there is no route to it"
	case isErrno(err, syscall.EADDRINUSE, 10048):
		return kindInUse, "somebody listens there already"
	case isErrno(err, syscall.EADDRNOTAVAIL, 10049):
		return kindFailed, "this machine has no such address"
	case isTimeout(err):
		return kindTimeout, "timeout: no answer in time"
	case errors.Is(err, plexus.ErrNotSupported):
		if errors.As(err, &refused) && len(refused.Protocols) > 0 {
			return kindUnsupported, "the peer does not speak " + strings.Join(refused.Protocols, ", ")
		}
		return kindUnsupported, "the peer speaks none of our protocols"
	case errors.Is(err, multiselect.ErrMalformed):
		return kindHandshake, "what answers there is no libp2p node: " + root(err)
	case isLost(err):
		return kindLost, "the peer hung up: " + root(err)
	case errors.Is(err, security.ErrHandshake):
		return kindHandshake, "the handshake failed: " + root(err)
	case errors.As(err, &file): // verbs use no other files
		return kindKey, fmt.Sprintf("key file %s: %v", file.Path, file.Err)
	}
	return kindFailed, strings.TrimPrefix(err.Error(), "plexus: ")
}

// dialReason gathers the reasons of all addresses. The kind is that of the
// address which came farthest.
func dialReason(e *plexus.DialError) (kind, string) {
	if len(e.Attempts) == 0 {
		if e.Err == nil {
			return kindFailed, "there is nothing to try"
		}
		return reason(e.Err)
	}
	if len(e.Attempts) == 1 {
		return attemptReason(e.Attempts[0], e.Err)
	}
	best, all := kindNoTransport, make([]string, len(e.Attempts))
	for i, a := range e.Attempts {
		k, why := attemptReason(a, e.Err)
		all[i] = a.Addr.String() + ": " + why
		if rank(k) > rank(best) {
			best = k
		}
	}
	return best, fmt.Sprintf("all %d addresses failed: %s", len(all), strings.Join(all, "; "))
}

// rank orders kinds by how far a dial came.
func rank(k kind) int {
	for i, r := range []kind{kindNoTransport, kindResolve, kindUnreachable, kindTimeout, kindRefused, kindLost, kindHandshake, kindUnsupported, kindSelf, kindWrongPeer} {
		if r == k {
			return i
		}
	}
	return -1
}

// attemptReason knows how far an attempt came, and what ended the dial before it
// did, if not nil.
func attemptReason(a plexus.Attempt, end error) (kind, string) {
	k, why := reason(a.Err)
	if k == kindInterrupted && end != nil {
		k, why = reason(end)
	}
	if len(a.Stages) == 0 {
		return k, why // the transport says all
	}
	doing, with := "the security handshake", "secure channel"
	if a.Stages[len(a.Stages)-1].Stage == plexus.StageSecure {
		doing, with = "the muxer negotiation", "muxer"
	}
	switch k {
	case kindTimeout:
		return k, fmt.Sprintf("timeout: it took the connection, but did not finish %s in time", doing)
	case kindLost:
		return k, fmt.Sprintf("the peer hung up amid %s", doing)
	case kindUnsupported:
		if refused, ok := errors.AsType[*plexus.NegotiationError](a.Err); ok {
			return k, fmt.Sprintf("no %s in common: the peer refuses %s", with, strings.Join(refused.Protocols, ", "))
		}
	}
	return k, why
}

func isErrno(err error, posix, windows syscall.Errno) bool {
	return errors.Is(err, posix) || errors.Is(err, windows)
}

func isTimeout(err error) bool {
	ne, ok := errors.AsType[net.Error](err)
	return errors.Is(err, context.DeadlineExceeded) || ok && ne.Timeout()
}

func isLost(err error) bool {
	var (
		ce *plexus.ConnError
		se *plexus.StreamError
	)
	return errors.As(err, &ce) || errors.As(err, &se) ||
		errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, net.ErrClosed) ||
		isErrno(err, syscall.ECONNRESET, 10054) || isErrno(err, syscall.EPIPE, 10058)
}

// root is the text of what failed underneath everything.
func root(err error) string {
	for {
		next := errors.Unwrap(err)
		if next == nil {
			return err.Error()
		}
		err = next
	}
}

// wait says what a step waits for, where that took too long.
func wait(what string, timeout time.Duration, err error) error {
	if isTimeout(err) {
		return &failure{Kind: kindTimeout, Text: fmt.Sprintf("timeout: %s within %s", what, timeout)}
	}
	return err
}
