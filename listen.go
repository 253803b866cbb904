package plexus

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"slices"
	"time"

	ma "github.com/multiformats/go-multiaddr"

	"github.com/plexus-p2p/plexus/internal/stack"
	"github.com/plexus-p2p/plexus/peer"
	"github.com/plexus-p2p/plexus/transport"
)

// listening is one address that the host listens on.
type listening struct {
	at    interface{ Addr() net.Addr } // tells the address as the transport reports it: with the real port
	close func() error
}

// addr is the address now. It may change, in its certificate hashes.
func (l *listening) addr() ma.Multiaddr {
	a, _ := transport.Multiaddr(l.at.Addr())
	return a
}

// bound is an address without certificate hashes. No two listeners have the same.
func bound(a ma.Multiaddr) string {
	for i, c := range a {
		if c.Code() == ma.P_CERTHASH {
			a = a[:i]
			break
		}
	}
	return a.String()
}

// Listen accepts connections on an address until the host closes or
// [Host.StopListening] is called. Port 0 lets the system choose; [Host.Addrs]
// tells what it chose. The error is an [OpError].
func (h *Host) Listen(ctx context.Context, on ma.Multiaddr) error {
	err := h.listen(ctx, on)
	if err != nil {
		return &OpError{Op: "listen", Addr: on, Err: err}
	}
	h.emit(AddrsChanged{})
	return nil
}

func (h *Host) listen(ctx context.Context, on ma.Multiaddr) error {
	on, id := peer.SplitAddr(on)
	if id != "" && id != h.id {
		return errors.New("the address names another peer")
	}
	var (
		l   = new(listening)
		run func()
		err error
	)
	switch pipes, sessions := h.transportFor(on); {
	case pipes != nil:
		var nl net.Listener
		if nl, err = pipes.Listen(ctx, on); err != nil {
			return err
		}
		l.at, l.close, run = nl, nl.Close, func() { h.accept(l, nl, transport.Watches(pipes)) }
	case sessions != nil:
		var sl transport.SessionListener
		if sl, err = sessions.ListenSession(ctx, on); err != nil {
			return err
		}
		l.at, l.close, run = sl, sl.Close, func() { h.acceptSessions(l, sl) }
	default:
		return ErrNoTransport
	}
	at, err := transport.Multiaddr(l.at.Addr())
	if err != nil {
		l.close()
		return err
	}
	if c, ok := l.at.(interface{ OnAddrChange(func()) }); ok {
		c.OnAddrChange(func() { h.emit(AddrsChanged{}) })
	}
	h.mu.Lock()
	if h.closed.Load() {
		h.mu.Unlock()
		l.close()
		return ErrClosed
	}
	h.listeners[bound(at)] = l
	h.wg.Go(run) // ends when the listener closes
	h.mu.Unlock()
	return nil
}

// StopListening frees an address of [Host.ListenAddrs]. Connections that came
// by it live on.
func (h *Host) StopListening(addr ma.Multiaddr) error {
	h.mu.Lock()
	l := h.listeners[bound(addr)]
	delete(h.listeners, bound(addr))
	h.mu.Unlock()
	if l == nil {
		return &OpError{Op: "stop listening", Addr: addr, Err: errors.New("the host does not listen there")}
	}
	err := l.close()
	h.emit(AddrsChanged{})
	return err
}

func (h *Host) closeListeners() {
	h.mu.Lock()
	ls := h.listeners
	h.listeners = make(map[string]*listening)
	h.mu.Unlock()
	for _, l := range ls {
		l.close()
	}
}

// ListenAddrs are the addresses that the host listens on, as bound, with their
// certificate hashes of the moment.
func (h *Host) ListenAddrs() []ma.Multiaddr {
	h.mu.RLock()
	defer h.mu.RUnlock()
	addrs := make([]ma.Multiaddr, 0, len(h.listeners))
	for _, l := range h.listeners {
		addrs = append(addrs, l.addr())
	}
	slices.SortFunc(addrs, func(a, b ma.Multiaddr) int { return a.Compare(b) })
	return addrs
}

// Addrs are the addresses that others can try: the ones listened on, with
// 0.0.0.0 and :: replaced by those of the interfaces, passed through
// [Host.Announce]'s function.
func (h *Host) Addrs() []ma.Multiaddr {
	var addrs []ma.Multiaddr
	ifaces, _ := h.net.Addrs() // without them, concrete addresses still stand
	for _, a := range h.ListenAddrs() {
		addrs = append(addrs, transport.Expand(a, ifaces)...)
	}
	h.mu.RLock()
	f := h.announced
	h.mu.RUnlock()
	if f != nil {
		addrs = f(addrs)
	}
	return addrs
}

// Announce lets f replace the addresses that the host tells of itself. Nil ends that.
func (h *Host) Announce(f func([]ma.Multiaddr) []ma.Multiaddr) {
	h.mu.Lock()
	h.announced = f
	h.mu.Unlock()
	h.emit(AddrsChanged{})
}

// transportFor finds who takes an address: at most one of the two is not nil.
func (h *Host) transportFor(a ma.Multiaddr) (transport.Pipes, transport.Sessions) {
	for _, t := range h.cfg.Pipes {
		if t.Match(a) {
			return t, nil
		}
	}
	for _, t := range h.cfg.Sessions {
		if t.Match(a) {
			return nil, t
		}
	}
	return nil, nil
}

// accept takes connections from a listener while fewer than Limits.Handshakes
// are being upgraded; the rest wait in the operating system's backlog.
func (h *Host) accept(l *listening, nl net.Listener, watched bool) {
	for {
		if !h.swarm.handshake(h.ctx) {
			return
		}
		raw, err := nl.Accept()
		if err != nil {
			h.swarm.handshaken()
			h.stopped(l, err)
			return
		}
		h.wg.Go(func() { // ends by HandshakeTimeout
			stack.Large()
			defer h.swarm.handshaken()
			h.inbound(raw, watched)
		})
	}
}

func (h *Host) inbound(raw net.Conn, watched bool) {
	ctx, cancel := context.WithTimeout(h.ctx, h.limits.HandshakeTimeout)
	defer cancel()
	link := &link{inbound: true, watched: watched, started: time.Now()}
	err := link.addrs(raw.LocalAddr(), raw.RemoteAddr())
	if err == nil {
		err = h.admit(StageAccept, link)
	}
	if err == nil {
		err = h.upgrade(ctx, raw, link, eager)
	}
	if err == nil {
		_, err = h.addConn(link)
	}
	if err != nil {
		raw.Close()
		h.log.Debug("inbound connection failed", "addr", link.remote, "peer", link.peer, "err", err)
	}
}

func (h *Host) acceptSessions(l *listening, sl transport.SessionListener) {
	for {
		sess, err := sl.Accept()
		if err != nil {
			h.stopped(l, err)
			return
		}
		link := &link{inbound: true, started: time.Now()}
		if link.remote, err = transport.Multiaddr(sess.RemoteAddr()); err == nil {
			err = h.admit(StageAccept, link)
		}
		if err != nil {
			sess.Close(ended, CodeGated)
			continue
		}
		err = h.adopt(sess, link)
		if err == nil {
			_, err = h.addConn(link)
		}
		if err != nil {
			h.log.Debug("inbound session failed", "addr", link.remote, "peer", link.peer, "err", err)
		}
	}
}

// stopped tells of a listener that ended without our doing.
func (h *Host) stopped(l *listening, err error) {
	h.mu.Lock()
	addr := l.addr()
	ours := h.listeners[bound(addr)] != l
	if !ours {
		delete(h.listeners, bound(addr))
	}
	h.mu.Unlock()
	l.close()
	if !ours {
		h.log.Warn("listener failed", "addr", addr, "err", err)
		h.emit(ListenFailed{addr, err})
		h.emit(AddrsChanged{})
	}
}

// admit asks the limits and the gate of the host whether a connection may go on.
func (h *Host) admit(stage Stage, l *link) error {
	if l.inbound && stage == StageAccept {
		if err := h.swarm.allowIP(l.ip()); err != nil {
			return err
		}
	}
	if h.cfg.Allow != nil {
		return h.cfg.Allow(stage, ConnInfo{Peer: l.peer, Remote: l.remote, Inbound: l.inbound})
	}
	return nil
}

// ip is the remote's IP address, zero where its address starts otherwise.
func (l *link) ip() netip.Addr {
	ip, _, _ := transport.IP(l.remote)
	return ip
}
