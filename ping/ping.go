// Package ping measures the round trip to a peer.
//
//	for rtt, err := range ping.Ping(ctx, h, p) { … }
//
// Spec: https://github.com/libp2p/specs/blob/master/ping/ping.md
//
// # Limits
//
// "The dialing peer MUST NOT keep more than one outbound stream for the ping
// protocol per peer": this is left to the caller, since each Ping has its own
// stream. A peer serves two.
package ping

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"iter"
	"math"
	"time"

	"github.com/plexus-p2p/plexus"
	"github.com/plexus-p2p/plexus/internal/slots"
	"github.com/plexus-p2p/plexus/peer"
)

// Protocol is the ID that multiselect negotiates.
const Protocol = "/ipfs/ping/1.0.0"

const (
	size = 32 // bytes per ping

	// "The listening peer SHOULD accept at most two streams per peer"
	streamsPerPeer = 2

	// roundTimeout bounds a round: for us until the echo is there, for a peer
	// that we serve from the first byte of a ping until its echo is taken.
	roundTimeout = 10 * time.Second

	// idleTimeout is how long a stream is served without a ping. rust-libp2p
	// pings every 15 s on one stream, so that it is longer than a round.
	idleTimeout = time.Minute
)

// ErrMismatch means that a peer echoed something else than we sent.
var ErrMismatch = errors.New("ping: the echo differs")

// Serve answers pings on h. A peer that floods us with pings fills a stream of
// its own: one ping is echoed after the other, and the next one is not read
// before the peer has taken the echo.
func Serve(h *plexus.Host) {
	s := &slots.Slots[peer.ID]{Each: streamsPerPeer, All: math.MaxInt} // Limits.Conns bounds all
	h.Handle(Protocol, func(_ context.Context, st *plexus.Stream) error {
		p := st.Conn().Peer()
		if !s.Take(p) {
			return fmt.Errorf("ping: %w: %d streams of this peer", plexus.ErrLimit, streamsPerPeer)
		}
		defer s.Free(p)
		return serve(st)
	})
}

func serve(s *plexus.Stream) error {
	var b [size]byte
	for {
		// "the listening peer SHOULD loop and echo the next payload"
		s.SetDeadline(time.Now().Add(idleTimeout))
		n, err := s.Read(b[:])
		if n == 0 && err == io.EOF { // else the end came with the ping, as QUIC may have it
			return nil // the dialing peer is done
		}
		if n == 0 && err != nil {
			return err
		}
		s.SetDeadline(time.Now().Add(roundTimeout))
		if _, err := io.ReadFull(s, b[n:]); err != nil {
			return err
		}
		if _, err := s.Write(b[:]); err != nil {
			return err
		}
	}
}

// Ping yields round-trip times to p, one round after the other as fast as the
// caller takes them, until the caller stops or ctx ends. An error is the last
// value: one of [plexus.Host.Open], [ErrMismatch], os.ErrDeadlineExceeded after
// ten seconds without an echo, or the cause of ctx.
func Ping(ctx context.Context, h *plexus.Host, p peer.ID) iter.Seq2[time.Duration, error] {
	return func(yield func(time.Duration, error) bool) {
		s, err := h.Open(ctx, p, Protocol)
		if err != nil {
			yield(0, err)
			return
		}
		rounds(ctx, s, yield)
	}
}

// Over is [Ping] on one connection, for peers that have several.
func Over(ctx context.Context, c *plexus.Conn) iter.Seq2[time.Duration, error] {
	return func(yield func(time.Duration, error) bool) {
		s, err := c.Open(ctx, Protocol)
		if err != nil {
			yield(0, err)
			return
		}
		rounds(ctx, s, yield)
	}
}

func rounds(ctx context.Context, s *plexus.Stream, yield func(time.Duration, error) bool) {
	// "The dialing peer SHOULD close the write operation of the stream after
	// sending the last payload"
	defer s.Close()
	stop := context.AfterFunc(ctx, func() { s.Reset(plexus.CodeNone) })
	defer stop()
	for {
		rtt, err := round(s)
		if err != nil {
			s.Reset(plexus.CodeNone)
			if ctx.Err() != nil {
				err = context.Cause(ctx)
			}
			c := s.Conn()
			yield(0, &plexus.OpError{Op: "ping", Peer: c.Peer(), Addr: c.RemoteAddr(), Err: err})
			return
		}
		if !yield(rtt, nil) {
			return
		}
	}
}

// round sends one ping and waits for its echo.
func round(s *plexus.Stream) (time.Duration, error) {
	var b [2 * size]byte
	sent, echo := b[:size], b[size:]
	// "a 32-byte payload of random binary data"
	rand.Read(sent)
	begin := time.Now()
	s.SetDeadline(begin.Add(roundTimeout))
	if _, err := s.Write(sent); err != nil {
		return 0, err
	}
	if _, err := io.ReadFull(s, echo); err != nil {
		return 0, err
	}
	rtt := time.Since(begin)
	if string(echo) != string(sent) {
		return 0, ErrMismatch
	}
	return rtt, nil
}
