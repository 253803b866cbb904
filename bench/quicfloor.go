package main

import (
	"context"
	"crypto/tls"
	"io"
	"slices"

	"github.com/quic-go/quic-go"
)

// quicFloor is quic-go with nothing above it, and with the settings that both stacks
// give it. The first byte of a stream names its protocol.
type quicFloor struct {
	tls  *tls.Config
	quic *quic.Config
}

func newQUICFloor() (impl, error) {
	cfg, err := floorTLS()
	if err != nil {
		return nil, err
	}
	cfg.NextProtos = []string{"floor"}
	return &quicFloor{
		tls: cfg,
		quic: &quic.Config{
			MaxIncomingStreams:         1 << 20,
			MaxStreamReceiveWindow:     10 << 20,
			MaxConnectionReceiveWindow: 15 << 20,
			EnableDatagrams:            true,
		},
	}, nil
}

func (f *quicFloor) listen() (string, error) {
	l, err := quic.ListenAddr(loopback()+":0", f.tls, f.quic)
	if err != nil {
		return "", err
	}
	go func() {
		for {
			c, err := l.Accept(context.Background())
			if err != nil {
				return
			}
			go func() {
				for {
					s, err := c.AcceptStream(context.Background())
					if err != nil {
						return
					}
					go func() {
						var b [1]byte
						if _, err := io.ReadFull(s, b[:]); err == nil && int(b[0]) < len(protos) {
							serve(protos[b[0]], &quicFloorStream{s, nil})
						}
						s.Close()
					}()
				}
			}()
		}
	}()
	return l.Addr().String(), nil
}

func (f *quicFloor) dial(ctx context.Context, addr string) (conn, error) {
	c, err := quic.DialAddr(ctx, addr, f.tls, f.quic)
	if err != nil {
		return nil, err
	}
	return quicFloorConn{c}, nil
}

type quicFloorConn struct{ *quic.Conn }

func (c quicFloorConn) open(ctx context.Context, proto string) (stream, error) {
	s, err := c.OpenStreamSync(ctx)
	if err != nil {
		return nil, err
	}
	return &quicFloorStream{s, []byte{byte(slices.Index(protos, proto))}}, nil
}

func (c quicFloorConn) Close() error { return c.CloseWithError(0, "") }

// quicFloorStream sends what is in head with its first write.
type quicFloorStream struct {
	*quic.Stream
	head []byte
}

func (s *quicFloorStream) Write(b []byte) (int, error) {
	if s.head == nil {
		return s.Stream.Write(b)
	}
	head := s.head
	s.head = nil
	n, err := s.Stream.Write(append(head, b...))
	return max(0, n-len(head)), err
}

func (s *quicFloorStream) CloseWrite() error { return s.Stream.Close() }

func (s *quicFloorStream) Close() error {
	s.CancelRead(0)
	return s.Stream.Close()
}
