package yamux_test

import (
	"context"
	"net"
	"testing"

	"github.com/plexus-p2p/plexus/muxer/muxertest"
	"github.com/plexus-p2p/plexus/muxer/yamux"
	"github.com/plexus-p2p/plexus/peer"
	"github.com/plexus-p2p/plexus/security"
	"github.com/plexus-p2p/plexus/security/noise"
)

// BenchmarkNoise is what most connections are.
func BenchmarkNoise(b *testing.B) { muxertest.Benchmark(b, yamux.Muxer{}, secured) }

func secured(t testing.TB) (client, server net.Conn) {
	t.Helper()
	c, s := muxertest.TCP(t)
	secure := func(c net.Conn, client bool) net.Conn {
		key, err := peer.GenerateKey(peer.Ed25519)
		if err != nil {
			t.Error(err)
		}
		sc, err := new(noise.Protocol).Secure(context.Background(), c, security.Handshake{Key: key, Client: client})
		if err != nil {
			t.Error(err)
			return c
		}
		return sc.Conn
	}
	done := make(chan net.Conn, 1)
	go func() { done <- secure(s, false) }()
	return secure(c, true), <-done
}
