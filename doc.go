// Package plexus is a libp2p host: it finds peers, connects to them over any
// transport, proves who they are, and holds many streams over one connection.
//
// Most programs start with the sub-package node, which makes a [Host] with
// good defaults:
//
//	h, err := node.New(node.Config{})
//	h.Handle("/echo/1.0.0", func(ctx context.Context, s *plexus.Stream) error {
//		_, err := io.Copy(s, s)
//		return err
//	})
//	s, err := h.Open(ctx, friend, "/echo/1.0.0")
//
// This package imports no transport, security or muxer of its own: a program
// links those that it names in its [Config].
//
// # The map
//
// The files in the order in which a byte meets them:
//
//	host.go     Host and Config: what there is
//	listen.go   1  a transport accepts a connection
//	upgrade.go  2  multiselect → security → multiselect → muxer
//	conn.go     3  Conn: streams in, streams out
//	stream.go   4  Stream, a net.Conn: multiselect → Handler
//	swarm.go    the table of connections: limits, trimming, closing
//	dial.go     the dialer stack: peer → addresses → ranked race → upgrade
//	peers.go    what is known of peers: addresses, protocols
//	events.go   what happens, told to those who ask
//	limits.go   every bound
//	errors.go   every error
//
// Spec: https://github.com/libp2p/specs
package plexus
