package mplex_test

import (
	"io"
	"testing"
	"testing/synctest"
	"time"

	"github.com/plexus-p2p/plexus/muxer"
	"github.com/plexus-p2p/plexus/muxer/mplex"
	"github.com/plexus-p2p/plexus/muxer/muxertest"
)

func TestMuxer(t *testing.T) {
	muxertest.Test(t, muxertest.Subject{
		Muxer:   mplex.Muxer{MaxQueue: 1 << 30, MaxReceive: 1 << 30},
		Limited: mplex.Muxer{MaxStreams: 8},
	})
}

func BenchmarkTCP(b *testing.B) { muxertest.Benchmark(b, mplex.Muxer{}, muxertest.TCP) }

// TestBusyReader: a reader that is slower than its peer, but reads, loses
// nothing: the session pauses for it. One that does not read holds others up once.
func TestBusyReader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := muxertest.NewPair(t, mplex.Muxer{MaxQueue: 1 << 20})
		const size = 8 << 20
		pair := func() (a, b muxer.Stream) {
			a, err := p.Client.Open(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			a.Write([]byte("x"))
			b = <-p.Accepted
			io.ReadFull(b, make([]byte, 1))
			return a, b
		}
		a, b := pair()
		go func() {
			a.Write(make([]byte, size))
			a.CloseWrite()
		}()
		buf := make([]byte, 32<<10)
		got := 0
		for {
			n, err := b.Read(buf)
			got += n
			if err == io.EOF {
				break
			}
			if err != nil {
				t.Fatalf("after %d bytes: %v", got, err)
			}
			time.Sleep(time.Millisecond)
		}
		if got != size {
			t.Errorf("read %d bytes of %d", got, size)
		}

		idle, _ := pair()
		go idle.Write(make([]byte, size)) // until it is reset
		c, d := pair()
		begin := time.Now()
		c.Write([]byte("x"))
		if _, err := d.Read(buf); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(begin); took > 150*time.Millisecond {
			t.Errorf("a stream that nobody reads held up another one for %v", took)
		}
	})
}
