// Package tls is the secure channel of TLS 1.3, in which the peers show certificates
// that carry their keys.
//
// A handshake takes one round trip. The certificate is made once per [Protocol] and
// identity. Its own key signs each handshake, so a large identity key costs nothing
// there. The muxer is agreed on by ALPN.
//
// crypto/tls writes each record of 16 KiB for itself; the connection here collects
// the records of one Write, up to 256 KiB, and sends them at once.
//
// [Identity] is for transports that have TLS built in, as QUIC has.
//
// Spec: https://github.com/libp2p/specs/blob/master/tls/tls.md
//
// # Limits
//
// A connection holds 10 KiB at rest, and up to 50 KiB once it received full records:
// crypto/tls keeps its buffer, and reads 32 KiB at once into it. There is no
// RecordReader.
package tls

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"sync/atomic"

	"github.com/plexus-p2p/plexus/internal/link"
	"github.com/plexus-p2p/plexus/peer"
	"github.com/plexus-p2p/plexus/security"
)

// ID is what multiselect negotiates.
const ID = "/tls/1.0.0"

// ALPN is what TLS negotiates when it agrees on no muxer.
const ALPN = "libp2p"

// What is offered by ALPN.
const (
	maxMuxers  = 100 // muxers, the first ones
	maxMuxerID = 255 // bytes, by RFC 7301; longer ones are left out
)

var errNoKey = errors.New("security.Handshake has no Key")

// Protocol is TLS. The zero value is ready. Share one value between all connections;
// it must not be copied after use.
type Protocol struct {
	cached atomic.Pointer[Identity]
}

// ID implements [security.Protocol].
func (p *Protocol) ID() string { return ID }

// Secure implements [security.Protocol].
//
// A client is done before the server has seen its certificate. If the server refuses
// it, the client's first read says so.
func (p *Protocol) Secure(ctx context.Context, c net.Conn, h security.Handshake) (*security.Conn, error) {
	var sc *security.Conn
	err := security.Within(ctx, c, func() (err error) {
		sc, err = p.handshake(c, &h)
		return err
	})
	if err != nil {
		return nil, security.Failed(ID, err)
	}
	return sc, nil
}

func (p *Protocol) handshake(c net.Conn, h *security.Handshake) (*security.Conn, error) {
	id, err := p.identity(h.Key)
	if err != nil {
		return nil, err
	}
	sc := new(security.Conn)
	check := func(k peer.PubKey) error {
		sc.Key, sc.Peer = k, k.ID()
		return h.Check(sc.Peer)
	}
	muxers := alpn(h.Muxers)
	sock := socket{link.NewSocket(c)}
	var t *tls.Conn
	if h.Client {
		// "The "libp2p" protocol code MUST always be the last item in the
		// multiplexer list."
		// https://github.com/libp2p/specs/blob/master/connections/inlined-muxer-negotiation.md
		cfg := id.config(check)
		cfg.NextProtos = append(muxers, ALPN)
		t = tls.Client(sock, cfg)
	} else {
		// "The server SHOULD respect the client's preference and pick the first
		// protocol from the list that it supports." crypto/tls would take the
		// server's first, so it is left with one.
		t = tls.Server(sock, &tls.Config{GetConfigForClient: func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
			cfg := id.config(check)
			cfg.NextProtos = []string{ALPN}
			if m := security.Agree(hello.SupportedProtos, muxers); m != "" {
				cfg.NextProtos[0] = m
			}
			return cfg, nil
		}})
	}
	if err := t.Handshake(); err != nil {
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		return nil, err
	}
	if err := sock.Send(); err != nil {
		return nil, err
	}
	if sc.Key.IsZero() {
		return nil, errCount // crypto/tls has asked check, or failed; still
	}
	if m := t.ConnectionState().NegotiatedProtocol; m != ALPN {
		sc.Muxer = m
	}
	sc.Conn = newConn(t, sock)
	return sc, nil
}

// identity returns the certificate for k: the last one made, if that was for k too.
func (p *Protocol) identity(k peer.PrivKey) (*Identity, error) {
	if i := p.cached.Load(); i != nil && i.id == k.ID() {
		return i, nil
	}
	i, err := NewIdentity(k)
	if err == nil {
		p.cached.Store(i) // if another handshake did so meanwhile, either is good
	}
	return i, err
}

// alpn returns the muxers that can be offered.
func alpn(muxers []string) []string {
	var list []string
	for _, m := range muxers {
		if 0 < len(m) && len(m) <= maxMuxerID && len(list) < maxMuxers {
			list = append(list, m)
		}
	}
	return list
}
