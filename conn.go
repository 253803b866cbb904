package plexus

import (
	"context"
	"errors"
	"iter"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	ma "github.com/multiformats/go-multiaddr"

	"github.com/plexus-p2p/plexus/muxer"
	"github.com/plexus-p2p/plexus/peer"
	"github.com/plexus-p2p/plexus/transport"
)

// Codes that this host ends connections and streams with.
const (
	CodeNone     Code = 0 // nothing is wrong
	CodeShutdown      = muxer.ConnShutdown
	CodeGated         = muxer.ConnGated
	CodeTrimmed       = muxer.ConnGarbageCollected
	CodeLimit         = muxer.ConnResourceLimitExceeded
)

// Conn is a connection to a peer that has proved who it is. All its methods may be
// called concurrently.
type Conn struct {
	host *Host
	link link // fixed
	ctx  context.Context
	stop context.CancelFunc // ends ctx

	inbound atomic.Int32 // streams of the peer that are being served
	streams atomic.Int32 // all open streams
	idle    atomic.Int64 // Unix nanoseconds since when there has been none
	ended   atomic.Bool

	mu         sync.Mutex
	identity   *Identity
	unknown    error         // why there is no identity
	identified chan struct{} // closed when one of the two is set; made on demand
}

// Identity is what a peer tells of itself, as [Conn.Identity] has it. Its
// slices must not be changed.
type Identity struct {
	Protocols []string
	Addrs     []ma.Multiaddr
	Agent     string       // such as "go-libp2p/0.51"
	Version   string       // of the network that the peer is part of
	Observed  ma.Multiaddr // how the peer sees us; nil when it does not say
	Signed    bool         // Addrs come from a record that the peer signed
	Record    []byte       // that record, sealed, to be passed on
}

// addConn puts a finished link into the table and starts to serve it.
func (h *Host) addConn(l *link) (*Conn, error) {
	c := &Conn{host: h, link: *l}
	c.link.stages, c.link.tell = nil, nil
	c.idle.Store(time.Now().UnixNano())
	c.ctx, c.stop = context.WithCancel(h.ctx)
	out, err := h.swarm.add(c)
	if err != nil {
		c.stop()
		l.session.Close(ended, CodeLimit)
		return nil, err
	}
	if out != nil {
		h.log.Debug("connection trimmed", "peer", out.link.peer)
		h.wg.Go(func() { out.end(ended, CodeTrimmed) })
	}
	h.emit(Connected{c})
	h.wg.Go(c.serve) // ends with the session
	return c, nil
}

// ended is a context that is over: closing with it does not wait.
var ended = func() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}()

// serve is the connection's one goroutine.
func (c *Conn) serve() {
	err := c.link.session.Serve(c.accept)
	c.ended.Store(true)
	c.stop()
	c.host.swarm.remove(c)
	c.host.emit(Disconnected{c, err})
}

// Peer is who is at the other end.
func (c *Conn) Peer() peer.ID { return c.link.peer }

// Key is the peer's public key.
func (c *Conn) Key() peer.PubKey { return c.link.key }

// Host is the host that the connection belongs to.
func (c *Conn) Host() *Host { return c.host }

// LocalAddr and RemoteAddr are the connection's ends.
func (c *Conn) LocalAddr() ma.Multiaddr  { return c.link.local }
func (c *Conn) RemoteAddr() ma.Multiaddr { return c.link.remote }

// Inbound tells whether the peer dialed us.
func (c *Conn) Inbound() bool { return c.link.inbound }

// Security and Muxer are the protocols in use; "" where the transport brings its own.
func (c *Conn) Security() string { return c.link.security }
func (c *Conn) Muxer() string    { return c.link.muxer }

// Since tells when the connection began.
func (c *Conn) Since() time.Time { return c.link.started }

// Stats describes the connection's session.
func (c *Conn) Stats() muxer.Stats { return c.link.session.Stats() }

// SendDatagram sends a message that may be lost, or overtake another one: at most
// [Conn.MaxDatagram] bytes, as a transport.ErrDatagramTooLong says. It does not wait for
// the peer. The protocols of a connection share its datagrams, and have to agree on how
// to tell theirs. Without datagrams the error is errors.ErrUnsupported.
func (c *Conn) SendDatagram(b []byte) error {
	d, ok := c.link.session.(transport.Datagrams)
	if !ok {
		return c.noDatagrams("send")
	}
	return d.SendDatagram(b)
}

// ReceiveDatagram waits for the peer's next message, until ctx or the connection ends.
// A bounded number is kept for it; further ones are lost.
func (c *Conn) ReceiveDatagram(ctx context.Context) ([]byte, error) {
	d, ok := c.link.session.(transport.Datagrams)
	if !ok {
		return nil, c.noDatagrams("receive")
	}
	return d.ReceiveDatagram(ctx)
}

// MaxDatagram is how many bytes a datagram can have now; 0: there are none. It changes
// with what is known of the path.
func (c *Conn) MaxDatagram() int {
	if d, ok := c.link.session.(transport.Datagrams); ok {
		return d.MaxDatagram()
	}
	return 0
}

func (c *Conn) noDatagrams(op string) error {
	return &OpError{Op: op + " a datagram with", Peer: c.link.peer, Addr: c.link.remote, Err: errors.ErrUnsupported}
}

// Done is closed when the connection has ended.
func (c *Conn) Done() <-chan struct{} { return c.ctx.Done() }

func (c *Conn) gone() bool { return c.ended.Load() }

// Open opens a stream on this connection, as [Host.Open] does.
func (c *Conn) Open(ctx context.Context, protos ...string) (*Stream, error) {
	s, err := c.open(ctx, protos)
	if err != nil {
		return nil, &OpError{Op: "open stream to", Peer: c.link.peer, Addr: c.link.remote, Err: err}
	}
	return s, nil
}

func (c *Conn) open(ctx context.Context, protos []string) (*Stream, error) {
	if len(protos) == 0 {
		return nil, errors.New("no protocol named")
	}
	m, err := c.link.session.Open(ctx)
	if err != nil {
		return nil, err
	}
	s := newStream(c, m, false)
	if proto := c.choose(protos); proto != "" {
		s.lazy(proto)
		return s, nil
	}
	if err := s.selectOne(ctx, protos); err != nil {
		s.Reset(muxer.StreamProtocolNegotiationFailed)
		return nil, err
	}
	return s, nil
}

// choose returns the protocol to propose without waiting for the answer, or "".
func (c *Conn) choose(protos []string) string {
	if len(protos) == 1 {
		return protos[0]
	}
	if id := c.Identity(); id != nil {
		for _, p := range protos {
			if slices.Contains(id.Protocols, p) {
				return p
			}
		}
	}
	return ""
}

// accept starts to serve a stream of the peer. It does not block: the session's
// reader waits for it.
func (c *Conn) accept(m muxer.Stream) {
	if int(c.inbound.Add(1)) > c.host.limits.Streams {
		c.inbound.Add(-1)
		m.Reset(muxer.StreamResourceLimitExceeded)
		return
	}
	s := newStream(c, m, true)
	c.host.busy.Add(1)
	go s.serve() // ends with the handler
}

// Close ends the connection: what was written is delivered, for at most
// [Limits.Linger].
func (c *Conn) Close() error { return c.CloseWithCode(CodeNone) }

// CloseWithCode is Close that tells the peer why.
func (c *Conn) CloseWithCode(code Code) error {
	ctx, cancel := context.WithTimeout(context.Background(), c.host.limits.Linger)
	defer cancel()
	return c.end(ctx, code)
}

func (c *Conn) end(ctx context.Context, code Code) error {
	c.ended.Store(true)
	c.host.swarm.retire(c)
	return c.link.session.Close(ctx, code)
}

// Identity is what the peer has told of itself, or nil. The package identify asks for it.
func (c *Conn) Identity() *Identity {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.identity
}

// WaitIdentity waits until the peer has told of itself, or it is clear that it
// will not. It needs the package identify to run on the host.
func (c *Conn) WaitIdentity(ctx context.Context) (*Identity, error) {
	c.mu.Lock()
	if c.identified == nil {
		c.identified = make(chan struct{})
		if c.identity != nil || c.unknown != nil {
			close(c.identified)
		}
	}
	known := c.identified
	c.mu.Unlock()
	select {
	case <-known:
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.identity == nil {
			return nil, &OpError{Op: "identify", Peer: c.link.peer, Addr: c.link.remote, Err: c.unknown}
		}
		return c.identity, nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	case <-c.ctx.Done():
		return nil, &OpError{Op: "identify", Peer: c.link.peer, Addr: c.link.remote, Err: ErrClosed}
	}
}

// SetIdentity records what the peer has told, or with a nil id why it has told
// nothing. It is for the package identify.
func (c *Conn) SetIdentity(id *Identity, why error) {
	c.mu.Lock()
	first := c.identity == nil && c.unknown == nil
	if id != nil {
		c.identity = id
	} else {
		c.unknown = why
	}
	if first && c.identified != nil {
		close(c.identified)
	}
	c.mu.Unlock()
	if id != nil {
		c.host.emit(Identified{c})
	}
}

// Conns yields the host's connections.
func (h *Host) Conns() iter.Seq[*Conn] { return slices.Values(h.swarm.all()) }

// ConnsTo lists the connections to a peer, the best one first.
func (h *Host) ConnsTo(p peer.ID) []*Conn { return h.swarm.of(p) }
