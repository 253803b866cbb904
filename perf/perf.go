// Package perf measures how fast bytes go to a peer and back.
//
// Spec: https://github.com/libp2p/specs/blob/master/perf/perf.md
//
// # Limits
//
// The header is the spec's, 8 bytes. Some images of libp2p's unified-testing
// send 16, the bytes to come before the bytes to go back, under the same
// protocol ID. The two cannot be told apart, so such a client takes our
// answer for wrong.
package perf

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"iter"
	"math"
	"sync/atomic"
	"time"

	"github.com/plexus-p2p/plexus"
	"github.com/plexus-p2p/plexus/internal/slots"
	"github.com/plexus-p2p/plexus/peer"
)

// Protocol is the ID that multiselect negotiates.
const Protocol = "/perf/1.0.0"

const (
	header = 8        // bytes
	chunk  = 64 << 10 // bytes read or written at once, and held for a stream

	streamsPerPeer = 16 // served at the same time; further ones are reset
	streamsOfAll   = 64

	// stall ends a transfer of which no byte moves.
	stall = 30 * time.Second

	every = time.Second // between two reports
)

// ErrTooMuch means that a peer sent more bytes than it was asked for.
var ErrTooMuch = errors.New("perf: the peer sent more than was asked for")

// zeros is what is sent: bytes nobody looks at.
var zeros [chunk]byte

// Serve lets any peer send and fetch as many bytes as it likes. Do not offer it
// to the public: "this protocol lets clients ask servers to do significant work".
func Serve(h *plexus.Host) {
	sl := &slots.Slots[peer.ID]{Each: streamsPerPeer, All: streamsOfAll}
	h.Handle(Protocol, func(_ context.Context, s *plexus.Stream) error {
		p := s.Conn().Peer()
		if !sl.Take(p) {
			return fmt.Errorf("perf: %w: streams served", plexus.ErrLimit)
		}
		defer sl.Free(p)
		return serve(s)
	})
}

func serve(s *plexus.Stream) error {
	// "Read the big-endian uint64 number. This is how many bytes we'll send back"
	var b [header]byte
	s.SetDeadline(time.Now().Add(stall))
	if _, err := io.ReadFull(s, b[:]); err != nil {
		return err
	}
	var up, down atomic.Uint64 // nobody watches
	// "Read from the stream until we get an EOF (client's write side was closed)."
	if err := drain(s, &up, math.MaxUint64); err != nil {
		return err
	}
	return fill(s, &down, binary.BigEndian.Uint64(b[:]))
}

// drain reads s to its end and counts into n. More bytes than limit are [ErrTooMuch].
func drain(s *plexus.Stream, n *atomic.Uint64, limit uint64) error {
	b := make([]byte, chunk)
	for {
		s.SetReadDeadline(time.Now().Add(stall))
		m, err := s.Read(b)
		if n.Add(uint64(m)) > limit {
			return ErrTooMuch
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// fill writes, and counts into n, the bytes that are missing from n to limit.
func fill(s *plexus.Stream, n *atomic.Uint64, limit uint64) error {
	for n.Load() < limit {
		s.SetWriteDeadline(time.Now().Add(stall))
		m, err := s.Write(zeros[:min(chunk, limit-n.Load())])
		n.Add(uint64(m))
		if err != nil {
			return err
		}
	}
	return nil
}

// A Report says how far a run has come.
type Report struct {
	Up, Down uint64        // bytes sent and received since the run began
	Elapsed  time.Duration // since the run began
	Final    bool          // all bytes went and came
}

// Run sends up bytes to c's peer, then receives down bytes from it. It yields a
// report each second and one more at the end; an error is the last value.
// Leaving the loop, or the end of ctx, ends the run: to measure for a time
// rather than a size, ask for math.MaxUint64 bytes.
//
// Sent bytes are those that the connection has taken; those in flight at the
// moment are among them. The final report waits for the peer to have read them all.
func Run(ctx context.Context, c *plexus.Conn, up, down uint64) iter.Seq2[Report, error] {
	return func(yield func(Report, error) bool) {
		begin := time.Now()
		s, err := c.Open(ctx, Protocol)
		if err != nil {
			yield(Report{}, err)
			return
		}
		var (
			r    = run{s: s}
			done = make(chan error, 1)
		)
		stop := context.AfterFunc(ctx, func() { s.Reset(plexus.CodeNone) })
		defer stop()
		defer s.Reset(plexus.CodeNone)               // where the loop is left early
		go func() { done <- r.transfer(up, down) }() // ends with s
		report := func(final bool) Report {
			return Report{Up: r.up.Load(), Down: r.down.Load(), Elapsed: time.Since(begin), Final: final}
		}
		tick := time.NewTicker(every)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				if !yield(report(false), nil) {
					return
				}
			case err := <-done:
				if err == nil {
					s.Close()
					yield(report(true), nil)
					return
				}
				if ctx.Err() != nil {
					err = context.Cause(ctx)
				}
				yield(report(false), &plexus.OpError{Op: "perf", Peer: c.Peer(), Addr: c.RemoteAddr(), Err: err})
				return
			}
		}
	}
}

// run is the client's end of a stream.
type run struct {
	s        *plexus.Stream
	up, down atomic.Uint64
}

func (r *run) transfer(up, down uint64) error {
	// The header and the first bytes go together: a small run is one packet.
	first := min(up, chunk)
	b := binary.BigEndian.AppendUint64(make([]byte, 0, header+first), down)
	r.s.SetDeadline(time.Now().Add(stall))
	if _, err := r.s.Write(append(b, zeros[:first]...)); err != nil {
		return err
	}
	r.up.Store(first)
	if err := fill(r.s, &r.up, up); err != nil {
		return err
	}
	// "Close the write side of our stream."
	if err := r.s.CloseWrite(); err != nil {
		return err
	}
	if err := drain(r.s, &r.down, down); err != nil {
		return err
	}
	if r.down.Load() < down {
		return io.ErrUnexpectedEOF
	}
	return nil
}
