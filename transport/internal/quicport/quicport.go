// Package quicport runs QUIC on the UDP ports of a host. It is what the transports
// quic and webtransport share: one listener for each ALPN protocol, and dials, all
// on one socket.
//
// Spec: https://github.com/libp2p/specs/blob/master/quic/README.md
package quicport

import (
	"context"
	"crypto/hkdf"
	"crypto/sha256"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/plexus-p2p/plexus/peer"
	"github.com/plexus-p2p/plexus/transport/udp"
)

const (
	// handshakeIdle is how long a peer may be silent during the handshake, which
	// takes at most twice as long.
	handshakeIdle = 5 * time.Second

	// idle is how long a peer may be silent before it is given up. It is asked for a
	// sign of life after half of that. go-libp2p: 30 s and 15 s.
	idle = 30 * time.Second

	// maxStreams is how many streams a peer may have open in a connection, and
	// uniStreams how many that go one way, which HTTP/3 needs three of.
	maxStreams = 256
	uniStreams = 5

	// Bytes that are held for a slow reader, of a stream and in a connection. The
	// windows start with 512 KiB and grow as they are used. go-libp2p: the same.
	streamWindow = 10 << 20
	connWindow   = 15 << 20

	// firstPacket is the size of the first packets, without IP and UDP headers. It is
	// the least that QUIC allows, so that they pass where the MTU is 1280, and
	// discovery of the MTU goes up from there.
	//
	// "QUIC […] assumes a minimum IP packet size of at least 1280 bytes. This is
	// the IPv6 minimum size". https://www.rfc-editor.org/rfc/rfc9000#section-14
	firstPacket = 1200

	// maxHandshakes is how many inbound connections may be in their handshakes on one
	// port. Further ones are refused. From retries on, a peer has to prove first
	// that it can be reached where it says, which costs it a round trip.
	maxHandshakes = 512
	retries       = 64

	// backlog is how many connections of one ALPN protocol wait to be accepted. Further
	// ones are closed.
	backlog = 32

	// knownPeers is of how many addresses tokens are kept, one for the next connection each.
	knownPeers = 256
)

// errHandshakes means that too many inbound connections are in their handshakes.
var errHandshakes = errors.New("quic: too many handshakes under way")

// config is for both ALPN protocols: which one it will be is not known in time to
// choose.
func config() *quic.Config {
	return &quic.Config{
		Versions:                   []quic.Version{quic.Version1},
		HandshakeIdleTimeout:       handshakeIdle,
		MaxIdleTimeout:             idle,
		KeepAlivePeriod:            idle / 2,
		MaxIncomingStreams:         maxStreams,
		MaxIncomingUniStreams:      uniStreams,
		MaxStreamReceiveWindow:     streamWindow,
		MaxConnectionReceiveWindow: connWindow,
		InitialPacketSize:          firstPacket,
		EnableDatagrams:            true,

		// WebTransport needs it.
		EnableStreamResetPartialDelivery: true,
	}
}

// Port is QUIC on a UDP port.
type Port struct {
	udp *udp.Port
	tr  *quic.Transport

	handshakes atomic.Int32

	// tokens were given out by peers. One that comes back is spared the proof of its
	// address, and knows how long a round trip takes before the first.
	//
	// "a server provides the client with an address validation token during one
	// connection that can be used on a subsequent connection."
	// https://www.rfc-editor.org/rfc/rfc9000#section-8.1.3
	tokens quic.TokenStore

	// leading is held by the one of the Accepts that takes connections from ln, for
	// itself and for others. So a port needs no goroutine for that.
	leading chan struct{}

	mu    sync.Mutex
	ln    *quic.EarlyListener // while there are listeners
	lead  *Listener           // whose Accept is leading; nil: none
	wake  context.CancelFunc  // ends its wait, once it has got a connection
	stop  chan struct{}       // closed when the last listener has stopped; nil while none is stopping
	alpns map[string]*Listener
}

// On returns QUIC on a UDP port. The port stays the caller's: it must be open while
// the result is used. The secrets that let a peer take a stateless reset or an
// address token seriously derive from key, so that they outlive a restart.
func On(p *udp.Port, key peer.PrivKey) (*Port, error) {
	e, err := p.Engine(func(sock net.PacketConn) (udp.Engine, error) {
		// The names are go-libp2p's.
		reset, err := derive(key, "libp2p quic stateless reset key")
		if err != nil {
			return nil, err
		}
		token, err := derive(key, "libp2p quic token generator key")
		if err != nil {
			return nil, err
		}
		q := &Port{udp: p, leading: make(chan struct{}, 1), alpns: make(map[string]*Listener)}
		q.tokens = quic.NewLRUTokenStore(knownPeers, 1)
		q.tr = &quic.Transport{
			Conn:                sock,
			StatelessResetKey:   (*quic.StatelessResetKey)(reset),
			TokenGeneratorKey:   (*quic.TokenGeneratorKey)(token),
			ConnContext:         q.begin,
			VerifySourceAddress: func(net.Addr) bool { return q.handshakes.Load() >= retries },
		}
		return q, nil
	})
	if err != nil {
		return nil, err
	}
	q, ok := e.(*Port)
	if !ok {
		return nil, udp.ErrTaken
	}
	return q, nil
}

func derive(key peer.PrivKey, name string) (*[32]byte, error) {
	b, err := hkdf.Key(sha256.New, key.Raw(), nil, name, 32)
	if err != nil {
		return nil, err
	}
	return (*[32]byte)(b), nil
}

// ReadOther implements udp.Engine.
func (q *Port) ReadOther(b []byte) (int, net.Addr, error) {
	return q.tr.ReadNonQUICPacket(context.Background(), b)
}

// Close implements udp.Engine. It is called by the port when all users have left.
func (q *Port) Close() error { return q.tr.Close() }

// handshake is one of those that are counted.
type handshake struct {
	once sync.Once
	port *Port
	to   atomic.Pointer[Listener] // whom the client has asked for
}

func (h *handshake) over() { h.once.Do(func() { h.port.handshakes.Add(-1) }) }

type handshakeKey struct{}

// begin counts the handshakes of inbound connections.
func (q *Port) begin(ctx context.Context, _ *quic.ClientInfo) (context.Context, error) {
	if q.handshakes.Add(1) > maxHandshakes {
		q.handshakes.Add(-1)
		return nil, errHandshakes
	}
	h := &handshake{port: q}
	context.AfterFunc(ctx, h.over) // it failed
	return context.WithValue(ctx, handshakeKey{}, h), nil
}

// Dial connects, from a port that is listened on if there is one. It gives up when ctx
// ends and when the peer is silent. Errors are those of the standard library and our
// own. The caller owns the connection, which keeps the port open.
func Dial(ctx context.Context, ports *udp.Ports, key peer.PrivKey, to netip.AddrPort, conf *tls.Config) (*quic.Conn, error) {
	p, err := ports.Dial(ctx, to.Addr())
	if err != nil {
		return nil, err
	}
	defer p.Close() // the connection holds it
	q, err := On(p, key)
	if err != nil {
		return nil, err
	}
	c, err := q.dial(ctx, to, conf)
	if err != nil {
		return nil, reason(err)
	}
	return c, nil
}

func (q *Port) dial(ctx context.Context, to netip.AddrPort, conf *tls.Config) (*quic.Conn, error) {
	q.udp.Hold()
	own := config()
	own.TokenStore = q.tokens
	c, err := q.tr.Dial(ctx, net.UDPAddrFromAddrPort(to), conf, own)
	if err != nil {
		q.udp.Close()
		return nil, err
	}
	q.hold(c)
	return c, nil
}

// hold lets the port, held already, go when the connection has ended.
func (q *Port) hold(c *quic.Conn) { context.AfterFunc(c.Context(), func() { q.udp.Close() }) }

// A Listener accepts the connections of one ALPN protocol.
type Listener struct {
	q     *Port
	ln    *quic.EarlyListener // of all protocols
	alpn  string
	early bool
	conf  *tls.Config
	queue chan *quic.Conn

	ctx   context.Context // ends with Close
	close context.CancelFunc
}

// Listen accepts connections of an ALPN protocol when their handshakes are complete.
// Each can be listened for once. conf need not name it. The listener keeps the port
// open until it is closed.
func (q *Port) Listen(ctx context.Context, alpn string, conf *tls.Config) (*Listener, error) {
	return q.listen(ctx, &Listener{alpn: alpn, conf: conf})
}

// ListenEarly is Listen for a protocol whose server may speak first, which is half a
// round trip before the handshake is complete. Nothing is known of the client then,
// and [quic.Conn.ConnectionState] would block.
func (q *Port) ListenEarly(ctx context.Context, alpn string, conf *tls.Config) (*Listener, error) {
	return q.listen(ctx, &Listener{alpn: alpn, conf: conf, early: true})
}

func (q *Port) listen(ctx context.Context, l *Listener) (*Listener, error) {
	l.q = q
	l.conf = l.conf.Clone()
	l.conf.NextProtos = []string{l.alpn}
	l.queue = make(chan *quic.Conn, backlog)
	q.mu.Lock()
	defer q.mu.Unlock()
	for q.stop != nil {
		stop := q.stop
		q.mu.Unlock()
		select {
		case <-stop:
			q.mu.Lock()
		case <-ctx.Done():
			q.mu.Lock()
			return nil, context.Cause(ctx)
		}
	}
	if q.alpns[l.alpn] != nil {
		return nil, &net.OpError{Op: "listen", Net: "quic", Addr: net.UDPAddrFromAddrPort(q.udp.Addr()), Err: syscall.EADDRINUSE}
	}
	if q.ln == nil {
		ln, err := q.tr.ListenEarly(&tls.Config{GetConfigForClient: q.choose}, config())
		if err != nil {
			return nil, err
		}
		q.ln = ln
	}
	l.ln = q.ln
	l.ctx, l.close = context.WithCancel(context.Background())
	q.udp.Hold()
	q.alpns[l.alpn] = l
	return l, nil
}

// choose finds the configuration for the protocols that a client offers.
func (q *Port) choose(hello *tls.ClientHelloInfo) (*tls.Config, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, alpn := range hello.SupportedProtos {
		if l := q.alpns[alpn]; l != nil {
			// Its context is that of the connection.
			if h, ok := hello.Context().Value(handshakeKey{}).(*handshake); ok {
				h.to.Store(l)
			}
			return l.conf, nil
		}
	}
	// crypto/tls turns it down with the right alert, as the protocol is not there.
	return &tls.Config{NextProtos: []string{"none"}, MinVersion: tls.VersionTLS13}, nil
}

// Accept returns the next connection. The caller owns it; it keeps the port open.
// While nobody accepts the connections of any protocol, all of them wait, in quic-go,
// which has room for 32.
func (l *Listener) Accept() (*quic.Conn, error) {
	for l.ctx.Err() == nil {
		select {
		case c := <-l.queue:
			return c, nil
		case <-l.ctx.Done():
		case l.q.leading <- struct{}{}:
			err := l.take()
			<-l.q.leading
			if err != nil {
				return nil, l.fail(err)
			}
		}
	}
	return nil, l.fail(net.ErrClosed)
}

func (l *Listener) fail(err error) error {
	return &net.OpError{Op: "accept", Net: "quic", Addr: net.UDPAddrFromAddrPort(l.q.udp.Addr()), Err: err}
}

// take gives connections to the listeners that they are for, until one is for l, or
// l closes.
func (l *Listener) take() error {
	q := l.q
	ctx, wake := context.WithCancel(l.ctx)
	defer wake()
	q.mu.Lock()
	q.lead, q.wake = l, wake
	waiting := len(l.queue) > 0
	q.mu.Unlock()
	defer func() {
		q.mu.Lock()
		q.lead, q.wake = nil, nil
		q.mu.Unlock()
	}()
	for !waiting {
		c, err := l.ln.Accept(ctx)
		if err != nil && ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return err
		}
		q.accepted(c)
	}
	return nil
}

// accepted delivers a connection, now or when its handshake is complete.
func (q *Port) accepted(c *quic.Conn) {
	h, _ := c.Context().Value(handshakeKey{}).(*handshake)
	if h == nil || h.to.Load() == nil { // not after a handshake that chose a protocol
		go c.CloseWithError(0, "") // returns when the connection's loop has heard it
		return
	}
	l := h.to.Load()
	closed := l.ctx.Done()
	if l.early {
		q.deliver(c, l)
		closed = nil // it is the caller of Accept who owns the connection
	}
	go func() { // ends with the handshake
		select {
		case <-c.HandshakeComplete():
			h.over()
			if !l.early {
				q.deliver(c, l)
			}
		case <-c.Context().Done():
		case <-closed:
			c.CloseWithError(0, "")
		}
	}()
}

// deliver gives a connection to a listener, or closes it if that one has enough.
func (q *Port) deliver(c *quic.Conn, l *Listener) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.alpns[l.alpn] == l {
		select {
		case l.queue <- c:
			q.udp.Hold()
			q.hold(c)
			if q.lead == l {
				q.wake()
			}
			return
		default:
		}
	}
	go c.CloseWithError(0, "")
}

// Addr is where the port is bound.
func (l *Listener) Addr() netip.AddrPort { return l.q.udp.Addr() }

// Close stops listening. Connections that were accepted live on; those that wait
// for Accept are closed.
func (l *Listener) Close() error {
	q := l.q
	q.mu.Lock()
	if q.alpns[l.alpn] != l {
		q.mu.Unlock()
		return nil
	}
	delete(q.alpns, l.alpn)
	last := len(q.alpns) == 0
	if last {
		q.ln = nil
		q.stop = make(chan struct{})
	}
	q.mu.Unlock()
	l.close()
	// Nothing is added to the queue any more.
	for len(l.queue) > 0 {
		select {
		case c := <-l.queue:
			c.CloseWithError(0, "")
		default: // an Accept was faster
		}
	}
	if last {
		l.ln.Close()
		for { // what quic-go has for the next Accept
			c, err := l.ln.Accept(context.Background())
			if err != nil {
				break
			}
			c.CloseWithError(0, "")
		}
		q.mu.Lock()
		close(q.stop)
		q.stop = nil
		q.mu.Unlock()
	}
	return q.udp.Close()
}

// reason tells why a dial failed, in errors of the standard library and our own.
func reason(err error) error {
	var te *quic.TransportError
	switch {
	case isA[*quic.HandshakeTimeoutError](err), isA[*quic.IdleTimeoutError](err):
		return fmt.Errorf("quic: no answer: %w", context.DeadlineExceeded)
	case isA[*quic.VersionNegotiationError](err):
		return errors.New("quic: the peer does not speak version 1")
	case errors.As(err, &te):
		if te.Remote && te.ErrorCode == quic.ConnectionRefused {
			return fmt.Errorf("quic: %w", syscall.ECONNREFUSED)
		}
		// What failed underneath, without net.ErrClosed, which quic-go puts beside it.
		if i := slices.IndexFunc(te.Unwrap(), func(e error) bool { return e != nil && e != net.ErrClosed }); i >= 0 {
			return fmt.Errorf("quic: %w", te.Unwrap()[i])
		}
		return errors.New("quic: " + te.Error())
	}
	return err
}

func isA[E error](err error) bool {
	_, ok := errors.AsType[E](err)
	return ok
}
