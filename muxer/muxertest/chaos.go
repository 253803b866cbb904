package muxertest

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/plexus-p2p/plexus/muxer"
)

// Chaos runs many streams at once that write, read, wait, give up and end in
// random ways, over connections of random habits, and checks that each end reads
// what the other wrote, in order, and that nobody waits for nothing.
func Chaos(t *testing.T, s Subject, seed uint64) {
	synctest.Test(t, func(t *testing.T) {
		rnd := rand.New(rand.NewPCG(seed, 0))
		a, b := Pipe(1 << (6 + rnd.IntN(12)))
		if rnd.IntN(2) == 0 {
			size := 20 + rnd.IntN(1<<(1+rnd.IntN(15)))
			a, b = Records(a, size), Records(b, size)
		}
		x, y := s.Muxer.New(a, true), s.Muxer.New(b, false)
		var served, asking sync.WaitGroup
		var answering atomic.Int64 // not a WaitGroup: it comes back from 0
		start := time.Now()
		serve := func(z muxer.Session, seed uint64) {
			served.Go(func() {
				z.Serve(func(st muxer.Stream) {
					answering.Add(1)
					go func() { // ends with the stream
						defer answering.Add(-1)
						answer(t, st)
					}()
				})
			})
			for i := range 5 + rnd.IntN(20) {
				asking.Go(func() { ask(t, z, rand.New(rand.NewPCG(seed, uint64(i)))) })
			}
		}
		serve(x, rnd.Uint64())
		serve(y, rnd.Uint64())
		asking.Wait()
		for answering.Load() > 0 {
			time.Sleep(time.Millisecond)
		}
		if d := time.Since(start); d > 3*time.Second {
			t.Errorf("seed %d took %v", seed, d)
		}
		time.Sleep(100 * time.Millisecond) // for ends that wait for company
		for _, z := range []muxer.Session{x, y} {
			if st := z.Stats(); st.Streams != 0 || st.Received != 0 {
				t.Errorf("seed %d: at the end %+v", seed, st)
			}
		}
		if err := x.Close(context.Background(), 0); err != nil {
			t.Error(err)
		}
		served.Wait()
	})
}

// A script says what the two ends of a stream do. The first message carries it.
type script struct {
	Seed   uint64
	Up     uint32 // bytes that the client sends after the script
	Down   uint32
	Reset  [2]uint32 // after so many bytes written, by client and server; 0: never
	Unread [2]bool   // close without reading
}

const scriptSize = 8 + 4 + 4 + 8 + 2

// chaosBytes are those that a stream of that seed carries in one direction.
func chaosBytes(seed uint64, n int) []byte {
	var k [32]byte
	binary.BigEndian.PutUint64(k[:], seed)
	b := make([]byte, n)
	rand.NewChaCha8(k).Read(b)
	return b
}

func ask(t *testing.T, z muxer.Session, rnd *rand.Rand) {
	for range 1 + rnd.IntN(5) {
		nap(rnd)
		st, err := z.Open(context.Background())
		if err != nil {
			t.Error("Open:", err)
			return
		}
		sc := script{Seed: rnd.Uint64(), Up: size(rnd), Down: size(rnd)}
		switch rnd.IntN(8) {
		case 0:
			sc.Reset[0] = 1 + rnd.Uint32N(sc.Up+1)
		case 1:
			sc.Reset[1] = 1 + rnd.Uint32N(sc.Down+1)
		case 2:
			sc.Unread[rnd.IntN(2)] = true
		}
		head, _ := binary.Append(nil, binary.BigEndian, sc)
		play(t, st, rnd, 0, sc, append(head, chaosBytes(sc.Seed, int(sc.Up))...), chaosBytes(sc.Seed+1, int(sc.Down)))
	}
}

func answer(t *testing.T, st muxer.Stream) {
	head := make([]byte, scriptSize)
	if _, err := io.ReadFull(st, head); err != nil {
		if _, ok := errors.AsType[*muxer.StreamError](err); !ok { // reset before it was said
			t.Error("read the script:", err)
		}
		st.Close()
		return
	}
	var sc script
	binary.Decode(head, binary.BigEndian, &sc)
	play(t, st, rand.New(rand.NewPCG(sc.Seed, 1)), 1, sc, chaosBytes(sc.Seed+1, int(sc.Down)), chaosBytes(sc.Seed, int(sc.Up)))
}

// play writes out, and expects in.
func play(t *testing.T, st muxer.Stream, rnd *rand.Rand, me int, sc script, out, in []byte) {
	mine, theirs := sc.Reset[me] > 0, sc.Reset[1-me] > 0
	fine := func(what string, err error) bool {
		e, ok := errors.AsType[*muxer.StreamError](err)
		switch {
		case err == nil:
			return true
		case mine && (ok && !e.Remote || errors.Is(err, net.ErrClosed)):
		case theirs && ok && e.Remote:
		case sc.Unread[me] && errors.Is(err, net.ErrClosed):
		default:
			t.Errorf("%s: %v; %+v", what, err, sc)
		}
		return false
	}
	var wg sync.WaitGroup
	w := rand.New(rand.NewPCG(rnd.Uint64(), 0))
	wg.Go(func() {
		for sent := 0; sent < len(out); {
			if mine && sent >= int(sc.Reset[me]) {
				st.Reset(muxer.Code(w.Uint32()))
				return
			}
			nap(w)
			p := out[sent:min(len(out), sent+1+w.IntN(1<<(1+w.IntN(17))))]
			if w.IntN(5) == 0 {
				st.SetWriteDeadline(time.Now().Add(time.Duration(w.IntN(int(2 * time.Millisecond)))))
			}
			n, err := st.Write(p)
			sent += n
			if errors.Is(err, os.ErrDeadlineExceeded) {
				st.SetWriteDeadline(time.Time{})
			} else if !fine("Write", err) {
				return
			} else if n != len(p) {
				t.Errorf("Write of %d: %d, nil", len(p), n)
			}
		}
		if mine {
			st.Reset(1)
			return
		}
		fine("CloseWrite", st.CloseWrite())
	})
	wg.Go(func() {
		for got := 0; ; {
			if sc.Unread[me] && got >= len(in)/2 {
				st.CloseRead()
				return
			}
			nap(rnd)
			buf := make([]byte, 1+rnd.IntN(1<<(1+rnd.IntN(17))))
			if rnd.IntN(5) == 0 {
				st.SetReadDeadline(time.Now().Add(time.Duration(rnd.IntN(int(2 * time.Millisecond)))))
			}
			n, err := st.Read(buf)
			if got+n > len(in) || !bytes.Equal(buf[:n], in[got:got+n]) {
				t.Errorf("other bytes than were sent, at %d; %+v", got, sc)
				return
			}
			got += n
			if errors.Is(err, os.ErrDeadlineExceeded) {
				st.SetReadDeadline(time.Time{})
			} else if err == io.EOF {
				if got != len(in) {
					t.Errorf("EOF after %d of %d bytes; %+v", got, len(in), sc)
				}
				return
			} else if !fine("Read", err) {
				return
			}
		}
	})
	wg.Wait()
	nap(rnd)
	if err := st.Close(); err != nil {
		t.Error("Close:", err)
	}
}

// nap sleeps a random time, mostly none.
func nap(rnd *rand.Rand) {
	if rnd.IntN(8) == 0 {
		time.Sleep(time.Duration(rnd.IntN(int(2 * time.Millisecond))))
	}
}

func size(rnd *rand.Rand) uint32 { return rnd.Uint32N(1 << (1 + rnd.IntN(18))) }

func testChaos(t *testing.T, s Subject) {
	for seed := range uint64(10) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) { Chaos(t, s, seed) })
	}
}
