package interop

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	gopeer "github.com/libp2p/go-libp2p/core/peer"
	goping "github.com/libp2p/go-libp2p/p2p/protocol/ping"
	gowebrtc "github.com/libp2p/go-libp2p/p2p/transport/webrtc"

	"github.com/plexus-p2p/plexus"
	"github.com/plexus-p2p/plexus/node"
	"github.com/plexus-p2p/plexus/peer"
	"github.com/plexus-p2p/plexus/ping"
	"github.com/plexus-p2p/plexus/transport"
	"github.com/plexus-p2p/plexus/transport/webrtc"
)

const webrtcEcho = "/echo/1.0.0"

// webrtcNode is a plexus node that has WebRTC-direct alone.
func webrtcNode(t testing.TB, version int) *plexus.Host {
	h, err := node.New(node.Config{
		Listen: []string{"/ip4/127.0.0.1/udp/0/webrtc-direct"},
		Transports: func(cfg node.Config) ([]transport.Pipes, []transport.Sessions) {
			return nil, []transport.Sessions{&webrtc.Transport{Key: cfg.Key, Version: version}}
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.Close() })
	h.Handle(webrtcEcho, webrtcEchoHandler)
	return h
}

func webrtcEchoHandler(_ context.Context, s *plexus.Stream) error {
	_, err := io.Copy(s, s)
	return err
}

func webrtcGo(t testing.TB, opts ...any) host.Host {
	h, err := libp2p.New(libp2p.ListenAddrStrings("/ip4/127.0.0.1/udp/0/webrtc-direct"),
		libp2p.Transport(gowebrtc.New, opts...), libp2p.ResourceManager(&network.NullResourceManager{}),
		libp2p.DisableRelay(), libp2p.DisableMetrics())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.Close() })
	h.SetStreamHandler(webrtcEcho, func(s network.Stream) {
		io.Copy(s, s)
		s.Close()
	})
	return h
}

// duplex is a stream of either stack.
type duplex interface {
	io.ReadWriter
	CloseWrite() error
	Close() error
}

// webrtcEchoes sends much on one stream, and less on 50 at a time.
func webrtcEchoes(open func() (duplex, error)) error {
	one := func(size int) error {
		s, err := open()
		if err != nil {
			return err
		}
		msg := bytes.Repeat([]byte("0123456789abcde\n"), size/16+1)[:size]
		go func() {
			s.Write(msg)
			s.CloseWrite()
		}()
		got, err := io.ReadAll(s)
		if err != nil || !bytes.Equal(got, msg) {
			return fmt.Errorf("echo: %d bytes of %d, %w", len(got), size, err)
		}
		return s.Close()
	}
	if err := one(1 << 20); err != nil {
		return err
	}
	for _, size := range []int{1, 100, 50e3} {
		errs := make(chan error)
		for range 50 {
			go func() { errs <- one(size) }()
		}
		var all error
		for range 50 {
			all = errors.Join(all, <-errs)
		}
		if all != nil {
			return all
		}
	}
	return nil
}

// TestWebRTCGo: WebRTC-direct with go-libp2p, both versions, both ways.
func TestWebRTCGo(t *testing.T) {
	for _, version := range []int{1, 2} {
		t.Run(fmt.Sprintf("v%d", version), func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			x := webrtcNode(t, version)
			y := webrtcGo(t, gowebrtc.WithDialerVersion(version))
			t.Run("dial", func(t *testing.T) {
				c, err := x.Dial(ctx, peer.AddrInfo{ID: peer.ID(y.ID()), Addrs: y.Addrs()})
				if err != nil {
					t.Fatal(err)
				}
				if _, err := c.WaitIdentity(ctx); err != nil {
					t.Fatal(err)
				}
				for rtt, err := range ping.Over(ctx, c) {
					if err != nil {
						t.Fatal(err)
					}
					t.Logf("ping %v", rtt)
					break
				}
				if err := webrtcEchoes(func() (duplex, error) { return c.Open(ctx, webrtcEcho) }); err != nil {
					t.Error(err)
				}
				gone := make(chan struct{}, 1)
				y.Network().Notify(&network.NotifyBundle{DisconnectedF: func(network.Network, network.Conn) { gone <- struct{}{} }})
				c.Close()
				<-gone // it would be used once more
			})
			t.Run("listen", func(t *testing.T) {
				info := gopeer.AddrInfo{ID: gopeer.ID(x.ID()), Addrs: x.Addrs()}
				if err := y.Connect(ctx, info); err != nil {
					t.Fatal(err)
				}
				if r := <-goping.Ping(ctx, y, info.ID); r.Error != nil {
					t.Fatal(r.Error)
				} else {
					t.Logf("ping %v", r.RTT)
				}
				if err := webrtcEchoes(func() (duplex, error) { return y.NewStream(ctx, info.ID, webrtcEcho) }); err != nil {
					t.Error(err)
				}
			})
		})
	}
}
