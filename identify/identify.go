// Package identify asks each peer who it is and what it speaks, answers the same
// question, and tells peers what changes.
//
// [Start] is all there is to call. What a peer has told is in
// [plexus.Conn.Identity], and its addresses in [plexus.Host.Peers]. Nobody
// has to wait for it: [plexus.Host.Open] does not, and who must,
// calls [plexus.Conn.WaitIdentity].
//
// The files in the order in which things happen:
//
//	identify.go  a connection is there: the two protocols, and who is connected
//	ask.go       1  we ask the peer; what it says becomes its Identity
//	tell.go      2  the peer asks us
//	push.go      3  something changes, here or there
//	wire.go      the message
//
// Spec: https://github.com/libp2p/specs/blob/master/identify/README.md
//
// # Limits
//
// The delta protocol /p2p/id/delta/1.0.0, which nobody speaks any more, is not
// there. Observed addresses are reported and kept, one a connection, not judged:
// that is for the package nat.
package identify

import (
	"context"
	"log/slog"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/plexus-p2p/plexus"
	"github.com/plexus-p2p/plexus/peer"
)

// The IDs that multiselect negotiates.
const (
	Protocol     = "/ipfs/id/1.0.0"
	PushProtocol = "/ipfs/id/push/1.0.0"
)

// timeout bounds one exchange with a peer: an answer, a push, in either
// direction.
const timeout = 5 * time.Second

// Config says what a host tells of itself, besides what it knows.
type Config struct {
	// Agent is the program and its version. Empty: "plexus/" and the version
	// of this module.
	Agent string

	// ProtocolVersion names the network that the host is part of, such as
	// "/my-network/0.1.0". Empty: none is told.
	ProtocolVersion string

	// Logger hears, at Debug, why a peer could not be identified. Nil: nobody does.
	Logger *slog.Logger
}

// Start serves identify on h, asks every peer once for each connection, and keeps
// peers informed until h closes. Call it once, best before h listens.
func Start(h *plexus.Host, cfg Config) {
	s := &service{
		h:       h,
		agent:   cfg.Agent,
		version: cfg.ProtocolVersion,
		log:     cfg.Logger,
		guests:  make(map[peer.ID]*guest),
	}
	if s.agent == "" {
		s.agent = agent()
	}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	s.scratches.New = newScratch
	h.Handle(Protocol, s.answer)
	h.Handle(PushProtocol, s.receive)
	h.Notify(s.notify)
	for c := range h.Conns() {
		s.connected(c)
	}
}

// agent names this module, as the program that it is part of was built.
func agent() string {
	const module = "github.com/plexus-p2p/plexus"
	version := "devel"
	if bi, ok := debug.ReadBuildInfo(); ok {
		for _, m := range append([]*debug.Module{&bi.Main}, bi.Deps...) {
			if v := strings.TrimPrefix(m.Version, "v"); m.Path == module && v != "" && v != "(devel)" {
				version = v
			}
		}
	}
	return "plexus/" + version
}

// service is identify on one host. On an idle host it has no goroutine, and one
// timer while there are peers.
//
// Locks: a guest's mu, or making, may be held while service.mu is taken, never
// the other way round. service.mu is not held while calling what may call back.
type service struct {
	// Fixed.
	h       *plexus.Host
	agent   string
	version string
	log     *slog.Logger

	names     names
	scratches sync.Pool // of *scratch
	seq       peer.Sequence

	stale atomic.Bool // something has changed that self does not say

	// making is held while self is made, so that nobody is told an old one
	// meanwhile.
	making sync.Mutex
	self   *self
	looked time.Time // when the host was looked at

	mu      sync.Mutex
	guests  map[peer.ID]*guest
	refresh *time.Timer // runs while there are guests
	pushing bool        // a round of pushes runs or is about to
	again   bool        // and what it tells is out of date already
}

// guest is a connected peer.
type guest struct {
	// Guarded by service.mu.
	conns  []*plexus.Conn
	told   uint64 // the generation of self that the peer was told last; 0: none
	pushes int64  // Unix nanoseconds until which pushes of the peer are paid for

	// mu is held while what the peer says is put in place, so that one message
	// comes after the other.
	mu  sync.Mutex
	seq uint64 // of the signed record in use
}

// notify hears what happens on the host. It does not block.
func (s *service) notify(ev plexus.Event) {
	switch ev := ev.(type) {
	case plexus.Connected:
		s.connected(ev.Conn)
	case plexus.Disconnected:
		s.disconnected(ev.Conn)
	case plexus.AddrsChanged, plexus.ProtocolsChanged:
		s.changed()
	}
}

func (s *service) connected(c *plexus.Conn) {
	s.mu.Lock()
	g := s.guests[c.Peer()]
	if g == nil {
		g = new(guest)
		s.guests[c.Peer()] = g
	}
	known := slices.Contains(g.conns, c)
	if !known {
		g.conns = append(g.conns, c)
	}
	if s.refresh == nil {
		s.refresh = time.AfterFunc(refreshEvery, s.refreshAddrs)
	}
	s.mu.Unlock()
	select {
	case <-c.Done(): // before we knew of it, as Start may find it
		s.disconnected(c)
		return
	default:
	}
	if !known {
		go s.identify(c) // ends by timeout, or with the connection
	}
}

func (s *service) disconnected(c *plexus.Conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	g := s.guests[c.Peer()]
	if g == nil {
		return
	}
	if g.conns = slices.DeleteFunc(g.conns, func(o *plexus.Conn) bool { return o == c }); len(g.conns) > 0 {
		return
	}
	delete(s.guests, c.Peer())
	if len(s.guests) == 0 && s.refresh != nil {
		s.refresh.Stop()
		s.refresh = nil
	}
}

// guest finds a connected peer; nil if it is not.
func (s *service) guest(p peer.ID) *guest {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.guests[p]
}

// conns are the connections of a guest.
func (s *service) conns(g *guest) []*plexus.Conn {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(g.conns)
}

// identify asks the peer once.
func (s *service) identify(c *plexus.Conn) {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	if err := s.ask(ctx, c); err != nil {
		s.log.Debug("peer not identified", "peer", c.Peer(), "addr", c.RemoteAddr(), "err", err)
		c.SetIdentity(nil, err)
		return
	}
	s.catchUp(ctx, c)
}

// refreshEvery is how often the addresses of connected peers are remembered
// anew, so that they are known for as long as the peer is connected, and after
// that for an hour or two.
const refreshEvery = plexus.TTLConnected / 2

func (s *service) refreshAddrs() {
	s.mu.Lock()
	var conns []*plexus.Conn
	for _, g := range s.guests {
		conns = append(conns, g.conns...)
	}
	if s.refresh != nil {
		s.refresh.Reset(refreshEvery)
	}
	s.mu.Unlock()
	for _, c := range conns {
		if id := c.Identity(); id != nil {
			s.remember(c, id)
		}
	}
}
