package plexus

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	ma "github.com/multiformats/go-multiaddr"

	"github.com/plexus-p2p/plexus/multiselect"
	"github.com/plexus-p2p/plexus/muxer"
	"github.com/plexus-p2p/plexus/peer"
	"github.com/plexus-p2p/plexus/security"
	"github.com/plexus-p2p/plexus/transport"
)

// link is a connection on its way up, as far as it has come.
type link struct {
	inbound       bool
	watched       bool // the system notices when the peer's host is gone
	started       time.Time
	stages        []StageTime       // of dials
	tell          func([]StageTime) // hears of each stage of a dial
	local, remote ma.Multiaddr
	want          peer.ID // whom a dial expects; "" is anybody

	peer     peer.ID // proved
	key      peer.PubKey
	security string
	muxer    string
	session  muxer.Session
}

func (l *link) addrs(local, remote net.Addr) (err error) {
	if l.local, err = transport.Multiaddr(local); err != nil {
		return err
	}
	if l.remote == nil { // a dial knows better whom it dialed
		l.remote, err = transport.Multiaddr(remote)
	}
	return err
}

func (l *link) reached(s Stage) {
	if !l.inbound {
		l.stages = append(l.stages, StageTime{s, time.Since(l.started)})
		l.tell(l.stages)
	}
}

// negotiation is how the security protocol is agreed on.
type negotiation int

const (
	// eager waits for each answer.
	eager negotiation = iota
	// pipelined proposes our first protocol and sends its first handshake message at
	// once, which saves a round trip. A peer that refuses takes that
	// message for garbage, so the connection is lost: dial again, eagerly.
	pipelined
)

// upgrade secures and muxes a raw connection. On error raw stays open.
func (h *Host) upgrade(ctx context.Context, raw net.Conn, l *link, how negotiation) error {
	c, err := h.secure(ctx, raw, l, how)
	if err != nil {
		return fmt.Errorf("security: %w", err)
	}
	l.peer, l.key = c.Peer, c.Key
	if l.peer == h.id {
		return ErrSelf
	}
	l.reached(StageSecure)
	if err := h.admit(StageSecure, l); err != nil {
		return err
	}
	m, err := h.mux(ctx, c, l)
	if err != nil {
		return fmt.Errorf("muxer: %w", err)
	}
	l.muxer = m.ID()
	// c.Conn and not c: the muxer looks for what the secured connection can do beyond net.Conn.
	l.session = m.New(c.Conn, !l.inbound)
	if s, ok := l.session.(muxer.Watched); ok && l.watched {
		s.Watched()
	}
	l.reached(StageMux)
	return nil
}

func (h *Host) secure(ctx context.Context, raw net.Conn, l *link, how negotiation) (*security.Conn, error) {
	protos := h.cfg.Security
	hs := security.Handshake{Key: h.cfg.Key, Client: !l.inbound, Want: l.want, Muxers: h.muxerIDs()}
	ms := new(multiselect.Conn)
	var err error
	switch {
	case how == pipelined:
		ms.Lazy(raw, protos[0].ID())
	case l.inbound: // the answer goes with our handshake message where the peer is pipelining
		err = security.Within(ctx, raw, func() error { return ms.Accept(raw, multiselect.Only(ids(protos)...)) })
	default:
		err = security.Within(ctx, raw, func() error { return ms.Select(raw, ids(protos)...) })
	}
	if err != nil {
		return nil, err
	}
	l.security = ms.Protocol()
	return find(protos, l.security).Secure(ctx, ms, hs)
}

// mux agrees on a muxer, where the handshake has not.
func (h *Host) mux(ctx context.Context, c *security.Conn, l *link) (muxer.Muxer, error) {
	id := c.Muxer
	if id == "" {
		negotiate := multiselect.Select
		if l.inbound {
			negotiate = func(c io.ReadWriter, ids ...string) (string, error) {
				return multiselect.Accept(c, multiselect.Only(ids...))
			}
		}
		err := security.Within(ctx, c, func() (err error) {
			id, err = negotiate(c, h.muxerIDs()...)
			return err
		})
		if err != nil {
			return nil, err
		}
	}
	if m := find(h.cfg.Muxers, id); m != nil {
		return m, nil
	}
	return nil, errors.New("the handshake agreed on one that was not offered")
}

func (h *Host) muxerIDs() []string { return ids(h.cfg.Muxers) }

// What security protocols and muxers have in common: a name to agree on.
type named interface{ ID() string }

func ids[T named](list []T) []string {
	s := make([]string, len(list))
	for i, v := range list {
		s[i] = v.ID()
	}
	return s
}

func find[T named](list []T, id string) (none T) {
	for _, v := range list {
		if v.ID() == id {
			return v
		}
	}
	return none
}

// adopt makes a link of a connection that came secured and muxed, or ends it.
func (h *Host) adopt(s transport.Session, l *link) error {
	err := l.addrs(s.LocalAddr(), s.RemoteAddr())
	l.peer, l.key = s.Peer()
	l.session = s
	l.reached(StageMux)
	switch {
	case err != nil:
	case l.peer == h.id:
		err = ErrSelf
	default:
		err = h.admit(StageSecure, l)
	}
	if err != nil {
		s.Close(ended, CodeGated)
	}
	return err
}
