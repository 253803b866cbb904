// Package full has the transports that package node leaves out, because whoever
// imports them pays for them: a program that makes a node of package full is larger.
//
//	h, err := node.New(node.Config{Transports: full.Transports})
package full

import (
	"github.com/plexus-p2p/plexus/node"
	"github.com/plexus-p2p/plexus/security/pnet"
	"github.com/plexus-p2p/plexus/transport"
	"github.com/plexus-p2p/plexus/transport/quic"
	"github.com/plexus-p2p/plexus/transport/tcp"
	"github.com/plexus-p2p/plexus/transport/udp"
	"github.com/plexus-p2p/plexus/transport/unix"
	"github.com/plexus-p2p/plexus/transport/webrtc"
	"github.com/plexus-p2p/plexus/transport/websocket"
	"github.com/plexus-p2p/plexus/transport/webtransport"
)

// Transports are all transports of the operating system's network: TCP, WebSocket,
// unix sockets, QUIC, WebTransport and WebRTC-direct. It is for [node.Config]. TCP and
// WebSocket share ports, and so do the last three. A private network goes without
// WebTransport and WebRTC.
func Transports(cfg node.Config) ([]transport.Pipes, []transport.Sessions) {
	t := &tcp.Transport{Network: cfg.Network}
	pipes := []transport.Pipes{t, &websocket.Transport{TCP: t, TLSConfig: cfg.TLS}, new(unix.Transport)}
	ports := &udp.Ports{Network: cfg.Network}
	sessions := []transport.Sessions{&quic.Transport{Key: cfg.Key, Ports: ports, Private: cfg.Private}}
	if cfg.Private == (pnet.Key{}) {
		sessions = append(sessions, &webtransport.Transport{Key: cfg.Key, Ports: ports}, &webrtc.Transport{Key: cfg.Key, Ports: ports})
	}
	return pipes, sessions
}
