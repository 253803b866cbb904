package interop

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/host"
	gopeer "github.com/libp2p/go-libp2p/core/peer"
	gowebtransport "github.com/libp2p/go-libp2p/p2p/transport/webtransport"
	ma "github.com/multiformats/go-multiaddr"

	"github.com/plexus-p2p/plexus"
	"github.com/plexus-p2p/plexus/node"
	"github.com/plexus-p2p/plexus/node/full"
	"github.com/plexus-p2p/plexus/peer"
	"github.com/plexus-p2p/plexus/transport/webtransport"
)

// TestCertHashes has plexus and go-libp2p dial each other by WebTransport with addresses
// that are good, or have a certificate hash of somebody else: for that of the certificate
// in use, or beside it.
//
// "the client MUST verify that the certificate hash used on the connection is contained in"
// what the server vouches for.
// https://github.com/libp2p/specs/blob/master/webtransport/README.md#security-handshake
func TestCertHashes(t *testing.T) {
	const on = "/ip4/127.0.0.1/udp/0/quic-v1/webtransport"
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	ours, theirs := byWebTransport(t, on), goByWebTransport(t, on)
	for _, c := range []struct {
		name string
		swap []int // certificate hashes of the other host
		want error
	}{
		{"good", nil, nil},
		{"in use", []int{0, 1}, webtransport.ErrCertificate},
		{"beside", []int{1}, webtransport.ErrCertHashes},
	} {
		swap := func(to, other ma.Multiaddr) []ma.Multiaddr {
			const first = 4
			to = slices.Clone(to)
			for _, i := range c.swap {
				to[first+i] = other[first+i]
			}
			return []ma.Multiaddr{to}
		}
		id, err := peer.Parse(theirs.ID().String())
		if err != nil {
			t.Fatal(err)
		}
		_, err = byWebTransport(t).Dial(ctx, peer.AddrInfo{ID: id, Addrs: swap(theirs.Addrs()[0], ours.Addrs()[0])})
		if !errors.Is(err, c.want) || (err == nil) != (c.want == nil) {
			t.Errorf("%s: plexus to go: %v, want %v", c.name, err, c.want)
		}
		me, err := gopeer.Decode(ours.ID().String())
		if err != nil {
			t.Fatal(err)
		}
		err = goByWebTransport(t).Connect(ctx, gopeer.AddrInfo{ID: me, Addrs: swap(ours.Addrs()[0], theirs.Addrs()[0])})
		if (err == nil) != (c.want == nil) {
			t.Errorf("%s: go to plexus: %v", c.name, err)
		}
	}
}

func byWebTransport(t *testing.T, on ...string) *plexus.Host {
	t.Helper()
	h, err := node.New(node.Config{Listen: append([]string{}, on...), Transports: full.Transports})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.Close() })
	return h
}

func goByWebTransport(t *testing.T, on ...string) host.Host {
	t.Helper()
	listen := libp2p.NoListenAddrs
	if len(on) > 0 {
		listen = libp2p.ListenAddrStrings(on...)
	}
	h, err := libp2p.New(listen, libp2p.Transport(gowebtransport.New), libp2p.DisableRelay(), libp2p.DisableMetrics())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.Close() })
	return h
}
