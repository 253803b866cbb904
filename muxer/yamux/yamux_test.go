package yamux_test

import (
	"testing"

	"github.com/plexus-p2p/plexus/muxer/muxertest"
	"github.com/plexus-p2p/plexus/muxer/yamux"
)

func TestMuxer(t *testing.T) {
	muxertest.Test(t, muxertest.Subject{
		Muxer:   yamux.Muxer{},
		Limited: yamux.Muxer{MaxStreams: 8},
		Windows: true,
		Codes:   true,
		Backlog: 256,
	})
}

func BenchmarkTCP(b *testing.B) { muxertest.Benchmark(b, yamux.Muxer{}, muxertest.TCP) }
