package plexus_test

import (
	"io"
	"testing"

	"github.com/plexus-p2p/plexus"
)

// BenchmarkRoundTrip echoes 32 bytes on an open stream over loopback TCP, both
// ends in this process.
func BenchmarkRoundTrip(b *testing.B) {
	x, y := tcpHost(b, nil, plexus.Limits{}), tcpHost(b, nil, plexus.Limits{})
	y.Handle(echoProtocol, echo)
	if _, err := x.Dial(b.Context(), y.Info()); err != nil {
		b.Fatal(err)
	}
	s := open(b, x, y.ID(), echoProtocol)
	defer s.Close()
	msg := make([]byte, 32)
	b.ReportAllocs()
	for b.Loop() {
		s.Write(msg)
		if _, err := io.ReadFull(s, msg); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkStream opens a stream, echoes a byte and closes it.
func BenchmarkStream(b *testing.B) {
	x, y := tcpHost(b, nil, plexus.Limits{}), tcpHost(b, nil, plexus.Limits{})
	y.Handle(echoProtocol, echo)
	c, err := x.Dial(b.Context(), y.Info())
	if err != nil {
		b.Fatal(err)
	}
	msg := make([]byte, 1)
	b.ReportAllocs()
	for b.Loop() {
		s, err := c.Open(b.Context(), echoProtocol)
		if err != nil {
			b.Fatal(err)
		}
		s.Write(msg)
		if _, err := io.ReadFull(s, msg); err != nil {
			b.Fatal(err)
		}
		s.Close()
	}
}

// BenchmarkDial makes a connection and closes it.
func BenchmarkDial(b *testing.B) {
	limits := plexus.Limits{ConnsPerPeer: -1, Conns: -1}
	x, y := tcpHost(b, nil, limits), tcpHost(b, nil, limits)
	info := y.Info()
	info.ID = "" // a fresh one each time
	b.ReportAllocs()
	for b.Loop() {
		c, err := x.Dial(b.Context(), info)
		if err != nil {
			b.Fatal(err)
		}
		go c.Close()
	}
}

// BenchmarkBulk writes 64 KiB at a time to a peer that drops them.
func BenchmarkBulk(b *testing.B) {
	x, y := tcpHost(b, nil, plexus.Limits{}), tcpHost(b, nil, plexus.Limits{})
	y.Handle("/discard", discard)
	if _, err := x.Dial(b.Context(), y.Info()); err != nil {
		b.Fatal(err)
	}
	s := open(b, x, y.ID(), "/discard")
	buf := make([]byte, 64<<10)
	b.SetBytes(int64(len(buf)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := s.Write(buf); err != nil {
			b.Fatal(err)
		}
	}
	s.CloseWrite()
	s.Read(buf[:1])
}
