//go:build linux

package interop

import (
	"context"
	"encoding/json"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"testing"

	ma "github.com/multiformats/go-multiaddr"

	"github.com/plexus-p2p/plexus"
	"github.com/plexus-p2p/plexus/node"
	"github.com/plexus-p2p/plexus/peer"
	"github.com/plexus-p2p/plexus/transport"
	"github.com/plexus-p2p/plexus/transport/webrtc/private"
	"github.com/plexus-p2p/plexus/transport/websocket"
)

// TestPrivateBrowser: a page in Chromium that is connected by WebSocket signals over that
// connection for WebRTC: it dials the node, and is dialed by it.
func TestPrivateBrowser(t *testing.T) {
	_, run, chromium := browser(t)
	p := new(private.Transport)
	h, err := node.New(node.Config{
		Listen: []string{"/ip4/127.0.0.1/tcp/0/ws", "/webrtc"},
		Transports: func(cfg node.Config) ([]transport.Pipes, []transport.Sessions) {
			p.Key = cfg.Key
			return []transport.Pipes{new(websocket.Transport)}, []transport.Sessions{p}
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	p.Open = func(ctx context.Context, to ma.Multiaddr, _ peer.ID) (net.Conn, peer.PubKey, error) {
		value, err := to.ValueForProtocol(ma.P_P2P)
		if err != nil {
			return nil, peer.PubKey{}, err
		}
		id, err := peer.Parse(value)
		if err != nil {
			return nil, peer.PubKey{}, err
		}
		s, err := h.Open(ctx, id, private.SignalingProtocol)
		if err != nil {
			return nil, peer.PubKey{}, err
		}
		return s, s.Conn().Key(), nil
	}
	h.Handle(private.SignalingProtocol, func(ctx context.Context, s *plexus.Stream) error {
		return p.Signal(ctx, s, s.Conn().Key())
	})
	const echo = "/plexus/echo/1.0.0"
	h.Handle(echo, webrtcEchoHandler)
	h.Handle("/plexus/interop/dial-me", func(ctx context.Context, s *plexus.Stream) error {
		said := "ok"
		to := ma.StringCast("/p2p/" + s.Conn().Peer().String() + "/p2p-circuit/webrtc")
		c, err := h.Dial(ctx, peer.AddrInfo{Addrs: []ma.Multiaddr{to}}) // without an ID: there is a connection
		if err == nil {
			err = webrtcEchoes(func() (duplex, error) { return c.Open(ctx, echo) })
			c.Close()
		}
		if err != nil {
			said = err.Error()
		}
		_, err = s.Write([]byte(said))
		return err
	})

	page := t.TempDir()
	for _, f := range []string{"private.js", "private.html", "echo.js"} {
		if err := copyFile("peers/browser/"+f, filepath.Join(page, f)); err != nil {
			t.Fatal(err)
		}
	}
	run("bundle", page, "private")
	web := httptest.NewServer(http.FileServer(http.Dir(page)))
	defer web.Close()
	var address string
	for _, a := range h.Info().Full() {
		if _, err := a.ValueForProtocol(ma.P_WS); err == nil {
			address = a.String()
		}
	}
	var failures []string
	if out := run("private", web.URL+"/private.html", chromium, address); json.Unmarshal(out, &failures) != nil {
		t.Fatalf("driver.mjs printed %q", out)
	}
	for _, f := range failures {
		t.Error(f)
	}
}
