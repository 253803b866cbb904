package mplex_test

import (
	"testing"

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
