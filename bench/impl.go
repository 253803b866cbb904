package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"sync"
)

// impl is a networking stack under test.
type impl interface {
	// listen makes this process the server, which serves the loads' protocols,
	// and returns its address.
	listen() (string, error)

	// dial makes a fresh connection to addr.
	dial(ctx context.Context, addr string) (conn, error)
}

// conn is a connection of a stack.
type conn interface {
	// open opens a stream on one of the loads' protocols.
	open(ctx context.Context, proto string) (stream, error)
	io.Closer
}

type stream interface {
	io.ReadWriteCloser
	CloseWrite() error
}

// The loads' protocols. Their names are as long as names are.
const (
	protoEcho = "/bench/echo/1.0.0" // what comes goes back
	protoSink = "/bench/sink/1.0.0" // read to the end, then one byte back
	protoFlow = "/bench/flow/1.0.0" // 8 bytes say how many to send, big-endian
)

var protos = []string{protoEcho, protoSink, protoFlow, protoHold}

// stacks are what can be measured, by name. Those called floor have no streams
// to speak of: a connection is one.
var stacks = map[string]func() (impl, error){
	"plexus/noise":           func() (impl, error) { return newPlexus("noise", false) },
	"plexus/tls":             func() (impl, error) { return newPlexus("tls", false) },
	"plexus/quic":            func() (impl, error) { return newPlexus("quic", false) },
	"plexus/ws":              func() (impl, error) { return newPlexus("ws", false) },
	"plexus/webtransport":    func() (impl, error) { return newPlexus("webtransport", false) },
	"plexus/webrtc":          func() (impl, error) { return newPlexus("webrtc", false) },
	"plexus/node":            func() (impl, error) { return newPlexus("noise", true) },
	"go-libp2p/noise":        func() (impl, error) { return newLibp2p("noise", false) },
	"go-libp2p/tls":          func() (impl, error) { return newLibp2p("tls", false) },
	"go-libp2p/quic":         func() (impl, error) { return newLibp2p("quic", false) },
	"go-libp2p/ws":           func() (impl, error) { return newLibp2p("ws", false) },
	"go-libp2p/webtransport": func() (impl, error) { return newLibp2p("webtransport", false) },
	"go-libp2p/webrtc":       func() (impl, error) { return newLibp2p("webrtc", false) },
	"go-libp2p/node":         func() (impl, error) { return newLibp2p("noise", true) },
	"floor/tcp":              func() (impl, error) { return &floor{}, nil },
	"floor/tls":              func() (impl, error) { return newTLSFloor() },
	"floor/quic":             newQUICFloor,
	"floor/noise":            func() (impl, error) { return newNoiseFloor() },
}

// loopback is an address of this process. The ports of the connections that a load has
// closed stay taken for a minute, for one address; looking for a free one among few
// would cost the next stack more than all else.
func loopback() string {
	pid := os.Getpid()
	return fmt.Sprintf("127.%d.%d.%d", pid>>16&0x7f+1, pid>>8&0xff, pid&0xff)
}

// serve runs the server's side of a protocol on a stream. It does not close it.
func serve(proto string, s stream) error {
	var buf []byte
	if proto == protoHold {
		buf = make([]byte, holdSize)
	} else {
		b := buffers.Get().(*[]byte)
		defer buffers.Put(b)
		buf = *b
	}
	switch proto {
	case protoEcho, protoHold:
		for {
			n, err := s.Read(buf)
			if n > 0 {
				if _, err := s.Write(buf[:n]); err != nil {
					return err
				}
			}
			if err == io.EOF {
				return nil
			}
			if err != nil {
				return err
			}
		}
	case protoSink:
		for {
			if _, err := s.Read(buf); err == io.EOF {
				break
			} else if err != nil {
				return err
			}
		}
		_, err := s.Write(buf[:1])
		return err
	case protoFlow:
		left, err := readCount(s)
		for left > 0 && err == nil {
			n := min(left, uint64(len(buf)))
			_, err = s.Write(buf[:n])
			left -= n
		}
		return err
	}
	return fmt.Errorf("no such protocol: %s", proto)
}

// bufSize is the application's buffer, at both ends of every stack. The server's are
// pooled: making one would cost more than a short stream.
const bufSize = 64 << 10

var buffers = sync.Pool{New: func() any { b := make([]byte, bufSize); return &b }}
