package quic_test

import (
	"context"
	"io"
	"runtime"
	"sync"
	"testing"
	"time"

	ma "github.com/multiformats/go-multiaddr"

	"github.com/plexus-p2p/plexus/muxer"
	"github.com/plexus-p2p/plexus/peer"
	"github.com/plexus-p2p/plexus/transport"
	"github.com/plexus-p2p/plexus/transport/quic"
	"github.com/plexus-p2p/plexus/transport/transporttest"
)

// bench is a client, and a server on loopback that echoes.
type bench struct {
	client, server *quic.Transport
	at             ma.Multiaddr
	id             peer.ID
	ends           chan transport.Session // of the server
}

func newBench(t testing.TB) *bench {
	t.Helper()
	b := &bench{
		client: &quic.Transport{Key: transporttest.Key(t)}, server: &quic.Transport{Key: transporttest.Key(t)},
		ends: make(chan transport.Session, 10000),
	}
	b.id = b.server.Key.ID()
	l, err := b.server.ListenSession(t.Context(), ma.StringCast("/ip4/127.0.0.1/udp/0/quic-v1"))
	if err != nil {
		t.Fatal(err)
	}
	if b.at, err = transport.Multiaddr(l.Addr()); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			s, err := l.Accept()
			if err != nil {
				return
			}
			b.ends <- s
			wg.Go(func() {
				s.Serve(func(st muxer.Stream) {
					wg.Go(func() {
						io.Copy(st, st)
						st.Close()
					})
				})
			})
		}
	})
	t.Cleanup(func() {
		l.Close()
		for len(b.ends) > 0 {
			(<-b.ends).Close(past, 0)
		}
		wg.Wait()
	})
	return b
}

func (b *bench) dial(t testing.TB) transport.Session {
	t.Helper()
	s, err := b.client.DialSession(context.Background(), b.at, b.id)
	if err != nil {
		t.Fatal(err)
	}
	go s.Serve(func(st muxer.Stream) { st.Reset(0) }) // ends with s
	return s
}

func echo(st muxer.Stream, buf []byte) error {
	if _, err := st.Write(buf); err != nil {
		return err
	}
	_, err := io.ReadFull(st, buf)
	return err
}

// BenchmarkBulk moves 1 MiB there and back.
func BenchmarkBulk(b *testing.B) {
	x := newBench(b)
	s := x.dial(b)
	defer s.Close(past, 0)
	st, err := s.Open(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	const size = 1 << 20
	buf, back := make([]byte, size), make([]byte, size)
	b.SetBytes(2 * size)
	b.ReportAllocs()
	for b.Loop() {
		go st.Write(buf)
		if _, err := io.ReadFull(st, back); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkStream opens a stream, has a byte echoed, and closes it.
func BenchmarkStream(b *testing.B) {
	x := newBench(b)
	s := x.dial(b)
	defer s.Close(past, 0)
	b.ReportAllocs()
	for b.Loop() {
		st, err := s.Open(b.Context())
		if err == nil {
			err = echo(st, make([]byte, 1))
		}
		if err != nil {
			b.Fatal(err)
		}
		st.Close()
	}
}

// BenchmarkStreams does so 64 at a time.
func BenchmarkStreams(b *testing.B) {
	x := newBench(b)
	s := x.dial(b)
	defer s.Close(past, 0)
	b.SetParallelism(64 / runtime.GOMAXPROCS(0))
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			st, err := s.Open(b.Context())
			if err == nil {
				err = echo(st, make([]byte, 1))
			}
			if err != nil {
				b.Error(err)
				return
			}
			st.Close()
		}
	})
}

// BenchmarkDial makes a connection and has a byte echoed.
func BenchmarkDial(b *testing.B) {
	x := newBench(b)
	b.ReportAllocs()
	for b.Loop() {
		s := x.dial(b)
		st, err := s.Open(b.Context())
		if err == nil {
			err = echo(st, make([]byte, 1))
		}
		if err != nil {
			b.Fatal(err)
		}
		s.Close(past, 0)
		(<-x.ends).Close(past, 0)
	}
}

// BenchmarkClose closes a session after an answer: what that takes beside a dial.
func BenchmarkClose(b *testing.B) {
	x := newBench(b)
	var took time.Duration
	for b.Loop() {
		s := x.dial(b)
		st, err := s.Open(b.Context())
		if err == nil {
			err = echo(st, make([]byte, 1))
		}
		if err != nil {
			b.Fatal(err)
		}
		st.Close()
		begin := time.Now()
		if err := s.Close(b.Context(), 0); err != nil {
			b.Fatal(err)
		}
		took += time.Since(begin)
		<-x.ends
	}
	b.ReportMetric(float64(took.Microseconds())/float64(b.N), "close-µs/op")
}

// TestFigureIdle measures what a connection at rest costs, both ends in one process. Two of
// the goroutines of each end are quic-go's, one serves.
func TestFigureIdle(t *testing.T) {
	const conns = 100
	x := newBench(t)
	var all []transport.Session
	dial := func(n int) {
		for range n {
			all = append(all, x.dial(t), <-x.ends)
		}
	}
	weigh := func() (bytes float64, goroutines int) {
		runtime.GC()
		runtime.GC() // frees what pools had kept
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return float64(m.HeapInuse + m.StackInuse), runtime.NumGoroutine()
	}
	dial(10)
	held, running := 1e9, 1e9
	for range 3 { // pages that are half full, and timers, may come between
		bytes, goroutines := weigh()
		dial(conns)
		more, moreGoroutines := weigh()
		held = min(held, (more-bytes)/conns/2/1024)
		running = min(running, float64(moreGoroutines-goroutines)/conns/2)
	}
	t.Logf("an idle connection holds %.1f KiB and %.1f goroutines at each end", held, running)
	if running > 3.1 {
		t.Errorf("%.1f goroutines, want 3", running)
	}
	if held > 60 && !raceEnabled {
		t.Errorf("%.1f KiB, want at most 60", held)
	}
	for _, s := range all {
		s.Close(past, 0)
	}
}
