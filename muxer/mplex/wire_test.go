package mplex

import (
	"bytes"
	"testing"

	"github.com/plexus-p2p/plexus/muxer/muxertest"
	"github.com/plexus-p2p/plexus/muxer/session"
)

// mirror appends what the peer would: its streams are ours.
type mirror struct{ wire }

func (m mirror) Append(b []byte, f session.Frame) []byte {
	f.ID ^= 1
	return m.wire.Append(b, f)
}

func TestFrames(t *testing.T) { muxertest.Frames(t, mirror{}) }

func FuzzFrames(f *testing.F) { muxertest.FuzzWire(f, mirror{}) }

func FuzzSession(f *testing.F) {
	in, _ := muxertest.Vectors(f)
	muxertest.Fuzz(f, Muxer{MaxReceive: 1 << 20, MaxQueue: 100 << 10, MaxStreams: 10}, 1<<20, append(in, bytes.Join(in, nil))...)
}
