package yamux

import (
	"bytes"
	"testing"

	"github.com/plexus-p2p/plexus/muxer/muxertest"
)

func TestFrames(t *testing.T) { muxertest.Frames(t, wire{}) }

func FuzzFrames(f *testing.F) { muxertest.FuzzWire(f, wire{}) }

func FuzzSession(f *testing.F) {
	in, _ := muxertest.Vectors(f)
	muxertest.Fuzz(f, Muxer{MaxReceive: 1 << 20, MaxStreams: 10}, 1<<20, append(in, bytes.Join(in, nil))...)
}
