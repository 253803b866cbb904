package plexus

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	ma "github.com/multiformats/go-multiaddr"

	"github.com/plexus-p2p/plexus/multiselect"
	"github.com/plexus-p2p/plexus/muxer"
	"github.com/plexus-p2p/plexus/peer"
	"github.com/plexus-p2p/plexus/security"
	"github.com/plexus-p2p/plexus/transport"
)

// Config says what a host is made of. Every zero value works but for Key; a
// host without transports reaches nobody.
type Config struct {
	// Key is the host's identity.
	Key peer.PrivKey

	// Pipes and Sessions are the transports; the first that matches an address
	// takes it.
	Pipes    []transport.Pipes
	Sessions []transport.Sessions

	// Security and Muxers upgrade what Pipes give, in order of preference.
	Security []security.Protocol
	Muxers   []muxer.Muxer

	// Network resolves names and lists interfaces. Nil: the operating system's.
	Network transport.Network

	Limits Limits

	// Allow, where set, is asked at StageDial, StageAccept and StageSecure; an
	// error ends the connection there. It may be called concurrently and must be quick.
	Allow func(Stage, ConnInfo) error

	// Logger hears what nobody else can see: at Debug what peers can cause at
	// will, at Warn the rest. Nil: slog.Default.
	Logger *slog.Logger
}

// Stage is how far a connection has come.
type Stage int

const (
	StageDial    Stage = iota // an address is about to be dialed
	StageAccept               // a transport has accepted a connection
	StageConnect              // a transport has connected
	StageSecure               // the peer has proved who it is
	StageMux                  // streams can be opened
)

func (s Stage) String() string {
	return [...]string{"dial", "accept", "connect", "secure", "mux"}[s]
}

// ConnInfo is what is known of a connection at a stage.
type ConnInfo struct {
	Peer    peer.ID // "" while unknown
	Remote  ma.Multiaddr
	Inbound bool
}

// A Handler serves one stream that a peer opened. Returning nil closes the
// stream, an error resets it. ctx ends when the connection or the host does.
type Handler func(ctx context.Context, s *Stream) error

// Host is a node. All its methods may be called concurrently.
//
// Locks: h.mu guards the handlers and listeners; swarm, peers, dialer and events
// have one each. None is held while another is taken, nor while calling out.
type Host struct {
	// Fixed after New.
	id     peer.ID
	cfg    Config
	limits Limits
	net    transport.Network
	log    *slog.Logger
	served multiselect.Protocols
	ctx    context.Context // ends when Close has let connections linger
	cancel context.CancelFunc
	closed atomic.Bool
	wg     sync.WaitGroup // goroutines of the host, handlers excepted
	busy   sync.WaitGroup // handlers

	swarm  swarm
	peers  Peers
	dialer dialer
	events events

	mu        sync.RWMutex
	handlers  map[string]*handler
	listeners map[string]*listening // by the address as bound, without certificate hashes
	announced func([]ma.Multiaddr) []ma.Multiaddr
}

// handler is a registered protocol.
type handler struct {
	proto string
	f     Handler
	keep  bool // the stream outlives f: it was handed to a Listener
}

// New makes a host. It listens on nothing yet.
func New(cfg Config) (*Host, error) {
	if cfg.Key.IsZero() {
		return nil, errors.New("plexus: Config.Key is empty: make one with peer.GenerateKey")
	}
	if len(cfg.Pipes) > 0 && (len(cfg.Security) == 0 || len(cfg.Muxers) == 0) {
		return nil, errors.New("plexus: Config.Pipes needs Security and Muxers to upgrade with")
	}
	h := &Host{
		id:        cfg.Key.ID(),
		cfg:       cfg,
		limits:    cfg.Limits.withDefaults(),
		net:       cfg.Network,
		log:       cfg.Logger,
		handlers:  make(map[string]*handler),
		listeners: make(map[string]*listening),
	}
	if h.net == nil {
		h.net = transport.System{}
	}
	if h.log == nil {
		h.log = slog.Default()
	}
	h.ctx, h.cancel = context.WithCancel(context.Background())
	h.served = multiselect.Protocols{Match: h.match, List: h.Protocols}
	h.swarm.init(h.limits)
	h.peers.init(h.limits)
	h.dialer.init(h.limits)
	return h, nil
}

// ID is the host's peer ID.
func (h *Host) ID() peer.ID { return h.id }

// Key is the host's identity.
func (h *Host) Key() peer.PrivKey { return h.cfg.Key }

// Done is closed when the host has closed its connections.
func (h *Host) Done() <-chan struct{} { return h.ctx.Done() }

// Peers is what the host knows of other peers.
func (h *Host) Peers() *Peers { return &h.peers }

// Info is the host's ID and addresses, as others need it to dial.
func (h *Host) Info() peer.AddrInfo { return peer.AddrInfo{ID: h.id, Addrs: h.Addrs()} }

// Handle serves proto with f from now on. Each stream has its goroutine. It
// panics if proto is empty, too long or has a handler already.
func (h *Host) Handle(proto string, f Handler) { h.handle(&handler{proto: proto, f: f}) }

func (h *Host) handle(hd *handler) {
	if n := len(hd.proto); n == 0 || n > 1000 {
		panic(fmt.Sprintf("plexus: protocol ID of %d bytes", n))
	}
	h.mu.Lock()
	if h.handlers[hd.proto] != nil {
		h.mu.Unlock()
		panic("plexus: two handlers for " + hd.proto)
	}
	h.handlers[hd.proto] = hd
	h.mu.Unlock()
	h.emit(ProtocolsChanged{})
}

// Unhandle ends serving proto. Streams that are being served go on.
func (h *Host) Unhandle(proto string) {
	h.mu.Lock()
	delete(h.handlers, proto)
	h.mu.Unlock()
	h.emit(ProtocolsChanged{})
}

// match finds the protocol that a peer proposes, without allocating.
func (h *Host) match(proto []byte) string {
	h.mu.RLock()
	defer h.mu.RUnlock()
	if hd := h.handlers[string(proto)]; hd != nil {
		return hd.proto
	}
	return ""
}

func (h *Host) lookup(proto string) *handler {
	h.mu.RLock()
	defer h.mu.RUnlock()
	return h.handlers[proto]
}

// Protocols lists what the host serves, sorted.
func (h *Host) Protocols() []string {
	h.mu.RLock()
	defer h.mu.RUnlock()
	ps := make([]string, 0, len(h.handlers))
	for p := range h.handlers {
		ps = append(ps, p)
	}
	slices.Sort(ps)
	return ps
}

// Open opens a stream to p on the first of protos that p speaks, dialing it
// where there is no connection. With one protocol, or when p's are known,
// Open does not wait for the peer: the proposal goes with the first bytes
// written, and a refusal is met by the first Read as a [NegotiationError].
func (h *Host) Open(ctx context.Context, p peer.ID, protos ...string) (*Stream, error) {
	for {
		c := h.swarm.best(p)
		if c == nil {
			var err error
			if c, err = h.connect(ctx, peer.AddrInfo{ID: p}, false); err != nil {
				return nil, err
			}
		}
		s, err := c.Open(ctx, protos...)
		if err != nil && c.gone() && ctx.Err() == nil && h.swarm.best(p) != c {
			continue // it ended under our hands: there may be a better one
		}
		return s, err
	}
}

// Dial returns a connection to a peer, the one there is or a new one. It tries
// info's addresses and those known of the peer, even such as failed a moment
// ago. An empty info.ID accepts whoever answers. The error is a [DialError].
func (h *Host) Dial(ctx context.Context, info peer.AddrInfo) (*Conn, error) {
	if info.ID != "" {
		if c := h.swarm.best(info.ID); c != nil {
			return c, nil
		}
	}
	return h.connect(ctx, info, true)
}

// Close ends the host. What was written to streams is delivered first, for at
// most [Limits.Linger]. It waits for the host's own goroutines; handlers
// that ignore the end of their stream and context are reported as an error
// after another Linger.
func (h *Host) Close() error {
	if h.closed.Swap(true) {
		<-h.ctx.Done()
		return nil
	}
	h.closeListeners()
	h.dialer.close()

	ctx, cancel := context.WithTimeout(context.Background(), h.limits.Linger)
	defer cancel()
	var wg sync.WaitGroup
	for _, c := range h.swarm.close() {
		wg.Go(func() { c.end(ctx, CodeShutdown) })
	}
	wg.Wait()
	h.cancel()
	h.wg.Wait()

	done := make(chan struct{})
	go func() { h.busy.Wait(); close(done) }() // ends with the last handler
	timer := time.NewTimer(h.limits.Linger)
	defer timer.Stop()
	select {
	case <-done:
		return nil
	case <-timer.C:
		return errors.New("plexus: close: a handler still runs though its context has ended")
	}
}

// Listener returns a net.Listener of the streams that peers open on proto, for
// code that serves connections:
//
//	http.Serve(h.Listener("/http/1.1"), mux)
//
// At most 128 streams wait to be accepted; further ones are reset. It panics
// if proto has a handler already. Close ends serving proto.
func (h *Host) Listener(proto string) net.Listener {
	l := &streamListener{h: h, proto: proto, in: make(chan *Stream, 128), done: make(chan struct{})}
	h.handle(&handler{proto: proto, keep: true, f: func(_ context.Context, s *Stream) error {
		select {
		case <-l.done:
			return net.ErrClosed
		default:
		}
		select {
		case l.in <- s:
			return nil
		default:
			return fmt.Errorf("%w: nobody accepts", ErrLimit)
		}
	}})
	return l
}

type streamListener struct {
	h     *Host
	proto string
	in    chan *Stream
	done  chan struct{}
	once  sync.Once
}

func (l *streamListener) Accept() (net.Conn, error) {
	select {
	case s := <-l.in:
		return s, nil
	default:
	}
	select {
	case s := <-l.in:
		return s, nil
	case <-l.done:
		return nil, net.ErrClosed
	case <-l.h.ctx.Done():
		return nil, net.ErrClosed
	}
}

func (l *streamListener) Close() error {
	l.once.Do(func() {
		l.h.Unhandle(l.proto)
		close(l.done)
	})
	for {
		select {
		case s := <-l.in:
			s.Reset(CodeShutdown)
		default:
			return nil
		}
	}
}

func (l *streamListener) Addr() net.Addr { return streamAddr{l.h.id, l.proto} }

// streamAddr is where a stream listener listens: a peer and a protocol.
type streamAddr struct {
	id    peer.ID
	proto string
}

func (a streamAddr) Network() string { return "libp2p" }
func (a streamAddr) String() string  { return "/p2p/" + a.id.String() + a.proto }
