package muxertest

import (
	"context"
	"fmt"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/plexus-p2p/plexus/muxer"
)

// Benchmark measures m over connections that kind makes, over TCP for instance.
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
			b.SetParallelism(n / 2)
			b.RunParallel(func(pb *testing.PB) {
				s, p := open(b, x), make([]byte, 32)
				for pb.Next() {
					trip(b, s, p)
				}
			})
		}, echo)
	}
	run("OpenEchoClose", func(b *testing.B, x muxer.Session) {
		p := make([]byte, 32)
		for b.Loop() {
			s := open(b, x)
			trip(b, s, p)
			s.Close()
		}
	}, echo)

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
	run("Write32", func(b *testing.B, x muxer.Session) {
		s, p := open(b, x), make([]byte, 32)
		b.SetBytes(32)
		for b.Loop() {
			s.Write(p)
		}
		finish(b, s)
	}, discard)
	for _, n := range []int{1, 10, 100} {
		run(fmt.Sprintf("Bulk%d", n), func(b *testing.B, x muxer.Session) {
			p := make([]byte, 1<<20)
			b.SetBytes(int64(n) << 20)
			var streams []muxer.Stream
			for range n {
				streams = append(streams, open(b, x))
			}
			for b.Loop() {
				var wg sync.WaitGroup
				for _, s := range streams {
					wg.Go(func() { s.Write(p) })
				}
				wg.Wait()
			}
			for _, s := range streams {
				finish(b, s)
			}
		}, discard)
	}
}
