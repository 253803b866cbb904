package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"io"
	"math/big"
	"net"
	"slices"
	"sync/atomic"

	"github.com/plexus-p2p/plexus/peer"
	"github.com/plexus-p2p/plexus/security"
	"github.com/plexus-p2p/plexus/security/noise"
)

// floor is a connection with nothing above it: each is one stream, whose
// protocol its first byte names.
type floor struct {
	wrap func(c net.Conn, client bool) (net.Conn, error) // secures; nil: bare TCP
}

func (f *floor) secure(c net.Conn, client bool) (net.Conn, error) {
	if f.wrap == nil {
		return c, nil
	}
	return f.wrap(c, client)
}

func (f *floor) listen() (string, error) {
	l, err := net.Listen("tcp", loopback()+":0")
	if err != nil {
		return "", err
	}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				s, err := f.secure(c, false)
				if err != nil {
					return
				}
				var b [1]byte
				if _, err := io.ReadFull(s, b[:]); err == nil && int(b[0]) < len(protos) {
					serve(protos[b[0]], s.(stream))
				}
			}()
		}
	}()
	return l.Addr().String(), nil
}

func (f *floor) dial(ctx context.Context, addr string) (conn, error) {
	c, err := f.connect(ctx, addr)
	return &floorConn{f: f, addr: addr, first: c}, err
}

func (f *floor) connect(ctx context.Context, addr string) (net.Conn, error) {
	var d net.Dialer
	c, err := d.DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	return f.secure(c, true)
}

// floorConn opens another connection for each stream after the first.
type floorConn struct {
	f     *floor
	addr  string
	first net.Conn
	used  atomic.Bool
}

func (c *floorConn) open(ctx context.Context, proto string) (s stream, err error) {
	nc := c.first
	if c.used.Swap(true) {
		if nc, err = c.f.connect(ctx, c.addr); err != nil {
			return nil, err
		}
	}
	return &floorStream{Conn: nc, proto: byte(slices.Index(protos, proto))}, nil
}

func (c *floorConn) Close() error { return c.first.Close() }

// floorStream sends its protocol with its first write.
type floorStream struct {
	net.Conn
	proto byte
	begun bool
}

func (s *floorStream) Write(b []byte) (int, error) {
	if s.begun {
		return s.Conn.Write(b)
	}
	s.begun = true
	n, err := s.Conn.Write(append([]byte{s.proto}, b...))
	return max(0, n-1), err
}

func (s *floorStream) CloseWrite() error {
	return s.Conn.(interface{ CloseWrite() error }).CloseWrite()
}

// floorTLS is the configuration of both ends.
func floorTLS() (*tls.Config, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1)}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	if err != nil {
		return nil, err
	}
	return &tls.Config{
		Certificates:           []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}},
		InsecureSkipVerify:     true, // only the cost is of interest
		MinVersion:             tls.VersionTLS13,
		SessionTicketsDisabled: true,
	}, nil
}

func newTLSFloor() (impl, error) {
	cfg, err := floorTLS()
	if err != nil {
		return nil, err
	}
	return &floor{wrap: func(c net.Conn, client bool) (net.Conn, error) {
		t := tls.Server(c, cfg)
		if client {
			t = tls.Client(c, cfg)
		}
		return t, t.Handshake()
	}}, nil
}

// newNoiseFloor is plexus' own records over TCP, without a muxer.
func newNoiseFloor() (impl, error) {
	key, err := peer.GenerateKey(peer.Ed25519)
	if err != nil {
		return nil, err
	}
	p := new(noise.Protocol)
	return &floor{wrap: func(c net.Conn, client bool) (net.Conn, error) {
		sc, err := p.Secure(context.Background(), c, security.Handshake{Key: key, Client: client})
		if err != nil {
			return nil, err
		}
		return sc.Conn, nil
	}}, nil
}

func readCount(r io.Reader) (uint64, error) {
	var b [8]byte
	_, err := io.ReadFull(r, b[:])
	return binary.BigEndian.Uint64(b[:]), err
}
