package muxertest

import (
	"context"
	"fmt"
	"io"
	"net"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/plexus-p2p/plexus/muxer"
)

// Benchmark measures m over connections that kind makes, over TCP for instance. All
// figures but those of Idle are of both ends together. muxer/muxerbench has the table of
// all muxers.
func Benchmark(b *testing.B, m muxer.Muxer, kind func(testing.TB) (client, server net.Conn)) {
	run := func(name string, f func(b *testing.B, x muxer.Session), handle func(muxer.Stream)) {
		b.Run(name, func(b *testing.B) {
			c, s := kind(b)
			x, y := m.New(c, true), m.New(s, false)
			var served sync.WaitGroup
			served.Go(func() { x.Serve(func(muxer.Stream) {}) })
			served.Go(func() { y.Serve(func(s muxer.Stream) { go handle(s) }) })
			b.ReportAllocs()
			before := cpu()
			f(b, x)
			b.StopTimer()
			b.ReportMetric(float64(cpu()-before)/float64(b.N), "cpu-ns/op")
			x.Close(past(), 0)
			y.Close(past(), 0)
			served.Wait()
		})
	}

	echo := func(s muxer.Stream) {
		defer s.Close()
		var buf [32]byte
		for {
			n, err := s.Read(buf[:])
			if err != nil {
				return
			}
			if _, err := s.Write(buf[:n]); err != nil {
				return
			}
		}
	}
	trip := func(b *testing.B, s muxer.Stream, p []byte) {
		if _, err := s.Write(p); err != nil {
			b.Fatal(err)
		}
		if _, err := io.ReadFull(s, p); err != nil {
			b.Fatal(err)
		}
	}
	open := func(b *testing.B, x muxer.Session) muxer.Stream {
		s, err := x.Open(context.Background())
		if err != nil {
			b.Fatal(err)
		}
		return s
	}

	run("RoundTrip", func(b *testing.B, x muxer.Session) {
		s, p := open(b, x), make([]byte, 32)
		for b.Loop() {
			trip(b, s, p)
		}
	}, echo)
	run("RoundTripDeadline", func(b *testing.B, x muxer.Session) {
		s, p := open(b, x), make([]byte, 32)
		for b.Loop() {
			s.SetDeadline(time.Now().Add(time.Minute))
			trip(b, s, p)
		}
	}, echo)
	run("RoundTripBesideIdle", func(b *testing.B, x muxer.Session) { // streams whose readers wait as well
		for range 10 {
			s, p := open(b, x), make([]byte, 32)
			trip(b, s, p)
			go s.Read(p)
		}
		s, p := open(b, x), make([]byte, 32)
		for b.Loop() {
			trip(b, s, p)
		}
	}, echo)
	for _, n := range []int{10, 100} {
		run(fmt.Sprintf("RoundTrip%d", n), func(b *testing.B, x muxer.Session) {
			b.SetParallelism(max(1, n/runtime.GOMAXPROCS(0)))
			b.RunParallel(func(pb *testing.PB) {
				s, p := open(b, x), make([]byte, 32)
				for pb.Next() {
					trip(b, s, p)
				}
			})
		}, echo)
	}
	var echoing atomic.Int64
	run("OpenEchoClose", func(b *testing.B, x muxer.Session) {
		p := make([]byte, 32)
		for b.Loop() {
			s := open(b, x)
			trip(b, s, p)
			s.Close()
			for echoing.Load() > 100 { // over a pipe we are faster than their ends
				runtime.Gosched()
			}
		}
	}, func(s muxer.Stream) {
		echoing.Add(1)
		defer echoing.Add(-1)
		echo(s)
	})

	discard := func(s muxer.Stream) {
		buf := make([]byte, 32<<10)
		for {
			if _, err := s.Read(buf); err != nil {
				s.Close()
				return
			}
		}
	}
	finish := func(b *testing.B, s muxer.Stream) {
		s.CloseWrite()
		if _, err := s.Read(make([]byte, 1)); err != io.EOF {
			b.Error(err)
		}
	}
	for _, w := range []struct {
		name    string
		n, size int
	}{{"Write64B", 1, 64}, {"Write64KiB", 1, 64 << 10}, {"Write64Bx100", 100, 64}, {"Write64KiBx100", 100, 64 << 10}} {
		run(w.name, func(b *testing.B, x muxer.Session) {
			b.SetBytes(int64(w.size))
			if w.n == 1 {
				s, p := open(b, x), make([]byte, w.size)
				for b.Loop() {
					s.Write(p)
				}
				b.StartTimer() // until all has arrived
				finish(b, s)
				return
			}
			b.SetParallelism(max(1, w.n/runtime.GOMAXPROCS(0)))
			b.RunParallel(func(pb *testing.PB) {
				s, p := open(b, x), make([]byte, w.size)
				for pb.Next() {
					s.Write(p)
				}
				finish(b, s)
			})
		}, discard)
	}
	b.Run("Idle", func(b *testing.B) { benchmarkIdle(b, m, kind) })
}

// benchmarkIdle weighs each end of sessions and streams that have been used once.
func benchmarkIdle(b *testing.B, m muxer.Muxer, kind func(testing.TB) (client, server net.Conn)) {
	const sessions, streams = 50, 500
	weigh := func() (bytes, goroutines float64) {
		for range 3 { // what pools hold goes with the second
			runtime.GC()
		}
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return float64(m.HeapAlloc + m.StackInuse), float64(runtime.NumGoroutine())
	}
	sums := make(map[string]float64)
	add := func(what string, n int, bytes, goroutines float64) {
		sums["B/"+what] += bytes / float64(2*n)
		sums["goroutines/"+what] += goroutines / float64(2*n)
	}
	p := make([]byte, 1)
	for b.Loop() {
		var conns []net.Conn
		for range sessions {
			c, s := kind(b)
			conns = append(conns, c, s)
		}
		var all []muxer.Session
		var held []muxer.Stream
		var served, echoed sync.WaitGroup
		use := func(x muxer.Session) muxer.Stream {
			echoed.Add(1)
			s, err := x.Open(context.Background())
			if err != nil {
				b.Fatal(err)
			}
			s.Write(p)
			if _, err := io.ReadFull(s, p); err != nil {
				b.Fatal(err)
			}
			return s
		}
		m0, g0 := weigh()
		for i, c := range conns {
			x := m.New(c, i%2 == 0)
			all = append(all, x)
			served.Go(func() {
				x.Serve(func(s muxer.Stream) {
					go func() {
						defer echoed.Done()
						var p [1]byte
						s.Read(p[:])
						s.Write(p[:])
					}()
				})
			})
		}
		for i := 0; i < len(all); i += 2 {
			use(all[i]).Reset(0)
		}
		echoed.Wait()
		m1, g1 := weigh()
		add("session", sessions, m1-m0, g1-g0)
		for range streams {
			held = append(held, use(all[0]))
		}
		echoed.Wait()
		m2, g2 := weigh()
		add("stream", streams, m2-m1, g2-g1)
		runtime.KeepAlive(held)
		for _, x := range all {
			x.Close(past(), 0)
		}
		served.Wait()
	}
	for unit, sum := range sums {
		b.ReportMetric(sum/float64(b.N), unit)
	}
	b.ReportMetric(0, "ns/op") // which tells nothing
}
