package main

import (
	"context"
	"fmt"
	"io"
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

var protos = []string{protoEcho, protoSink, protoFlow}

// stacks are what can be measured, by name. Those called floor have no streams
// to speak of: a connection is one.
var stacks = map[string]func() (impl, error){
	"plexus/noise":    func() (impl, error) { return newPlexus("noise", false) },
	"plexus/tls":      func() (impl, error) { return newPlexus("tls", false) },
	"plexus/node":     func() (impl, error) { return newPlexus("noise", true) },
	"go-libp2p/noise": func() (impl, error) { return newLibp2p("noise", false) },
	"go-libp2p/tls":   func() (impl, error) { return newLibp2p("tls", false) },
	"go-libp2p/node":  func() (impl, error) { return newLibp2p("noise", true) },
	"floor/tcp":       func() (impl, error) { return &floor{}, nil },
	"floor/tls":       func() (impl, error) { return newTLSFloor() },
	"floor/noise":     func() (impl, error) { return newNoiseFloor() },
}

// serve runs the server's side of a protocol on a stream. It does not close it.
func serve(proto string, s stream) error {
	buf := make([]byte, bufSize)
	switch proto {
	case protoEcho:
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

// bufSize is the application's buffer, at both ends of every stack.
const bufSize = 64 << 10
