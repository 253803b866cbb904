package yamux

import (
	"bytes"
	"testing"

	"github.com/plexus-p2p/plexus/muxer/muxertest"
	"github.com/plexus-p2p/plexus/muxer/session"
)

func TestFrames(t *testing.T) { muxertest.Frames(t, wire{}) }

func FuzzFrames(f *testing.F) { muxertest.FuzzWire(f, wire{}) }

func FuzzSession(f *testing.F) {
	in, _ := muxertest.Vectors(f)
	muxertest.Fuzz(f, Muxer{MaxReceive: 1 << 20, MaxStreams: 10}, 1<<20, append(in, bytes.Join(in, nil))...)
}

func TestWireAllocs(t *testing.T) {
	if n := testing.AllocsPerRun(100, roundTrip(t)); n > 0 {
		t.Errorf("%v allocations for a header, want none", n)
	}
}

func BenchmarkWire(b *testing.B) {
	f := roundTrip(b)
	b.ReportAllocs()
	for b.Loop() {
		f()
	}
}

// roundTrip returns a function that appends a header and parses it.
func roundTrip(tb testing.TB) func() {
	f := session.Frame{Kind: session.Data, Flags: session.Open, ID: 3, Body: 1000}
	buf := make([]byte, 0, headLen)
	return func() {
		back, _, err := wire{}.Parse(wire{}.Append(buf, f))
		if back != f || err != nil {
			tb.Fatal(back, err)
		}
	}
}
