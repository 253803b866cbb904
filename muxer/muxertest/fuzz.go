package muxertest

import (
	"context"
	"io"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/plexus-p2p/plexus/muxer"
)

// Fuzz feeds sessions of m with whatever bytes: they end cleanly, answer in measure
// and hold no more than maxReceive bytes.
func Fuzz(f *testing.F, m muxer.Muxer, maxReceive int, seeds ...[]byte) {
	for _, seed := range seeds {
		f.Add(seed, false, uint8(0))
		f.Add(seed, true, uint8(3))
	}
	f.Fuzz(func(t *testing.T, in []byte, client bool, piece uint8) {
		synctest.Test(t, func(t *testing.T) {
			a, b := Pipe(1 << 16)
			s := m.New(a, client)
			var wg sync.WaitGroup
			use := func(st muxer.Stream, id int) {
				st.SetDeadline(time.Now().Add(time.Second))
				switch id % 4 {
				case 0:
					io.Copy(st, st)
				case 1:
					io.Copy(io.Discard, st)
				case 2: // never read
					st.Write(make([]byte, 1000))
					st.CloseWrite()
					time.Sleep(time.Second)
				case 3:
					st.Reset(1)
				}
				st.Close()
			}
			accepted := 0
			wg.Go(func() {
				s.Serve(func(st muxer.Stream) {
					id := accepted
					accepted++
					wg.Go(func() { use(st, id) })
				})
			})
			for i := range 3 {
				if st, err := s.Open(context.Background()); err == nil {
					wg.Go(func() { use(st, i) })
				}
			}
			answer := make(chan int64, 1)
			go func() {
				n, _ := io.Copy(io.Discard, b)
				answer <- n
			}()
			for p := in; len(p) > 0; {
				n := min(len(p), 1+int(piece)*int(piece))
				if _, err := b.Write(p[:n]); err != nil {
					break
				}
				p = p[n:]
			}
			synctest.Wait()
			if st := s.Stats(); st.Received > maxReceive {
				t.Errorf("%d bytes are held", st.Received)
			}
			s.Close(within(t, time.Second), 1)
			if n := <-answer; n > 10000+20*int64(len(in)) {
				t.Errorf("%d bytes were answered with %d", len(in), n)
			}
			b.Close()
			wg.Wait()
		})
	})
}
