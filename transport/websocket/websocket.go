// Package websocket connects hosts by WebSocket, which browsers can use, and which
// passes HTTP proxies.
//
// Addresses begin with an IP address, and a TCP port if that is not 80 or 443:
//
//	/ip4/1.2.3.4/tcp/4001/ws                      over TCP
//	/ip4/1.2.3.4/tcp/443/tls/ws                   over TLS; /wss is the same
//	/ip4/1.2.3.4/tcp/443/tls/sni/example.com/ws   with the name to ask for
//	/ip6/2001:db8::1/ws/http-path/a%2Fpath        at a path, with any of these
//
// Names are resolved before, as for TCP: the host makes the third form of
// /dns4/example.com/tcp/443/wss, one for each address that the name has.
//
// What is sent are binary frames, one for each Write. Where frames and messages begin
// means nothing. The host secures the connection within as any other, also over
// TLS, so it is not asked which web page makes a browser connect (the Origin): pages
// have no cookies nor passwords here that another one could use.
//
// The framing is our own. The libraries lose the connection at a deadline, in the
// middle of a frame, and muxers need connections that go on. It is as fast: medians for
// masked writes of 64 KiB and 1 KiB over loopback, in MB/s on two cores of an EPYC,
// are 3650 and 254; gorilla/websocket v1.5.3 has 3680 and 213, gobwas/ws v1.4.0 1440 and 151,
// coder/websocket v1.8.15 960 and 215, bare TCP 4460 and 349 (bench/websocket_test.go).
//
// # Limits
//
// No compression, and no HTTP/2 or 3. Behind a proxy all peers have its address:
// no header is believed to tell another one. Browsers connect to listeners with a
// certificate that they can verify, or on their own machine.
//
// Spec: https://github.com/libp2p/specs/blob/master/websockets/README.md,
// https://www.rfc-editor.org/rfc/rfc6455
package websocket

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"sync"
	"time"

	ma "github.com/multiformats/go-multiaddr"

	"github.com/plexus-p2p/plexus/security"
	"github.com/plexus-p2p/plexus/transport"
	"github.com/plexus-p2p/plexus/transport/internal/room"
	"github.com/plexus-p2p/plexus/transport/tcp"
)

const (
	maxPending = 256              // connections of a listener that are not accepted; the oldest makes room
	requestIn  = 10 * time.Second // how long TLS may take, and a request then
	idle       = time.Minute      // how long a connection may wait for its next request to Handler
)

// Transport is the WebSocket transport of one host. The zero value dials, and
// listens on /ws.
type Transport struct {
	// TCP makes the connections. A port that it listens on can be listened on
	// here, too: a connection's first bytes tell them apart. Nil: one of its own.
	TCP *tcp.Transport

	// TLSConfig has the certificates to listen with on /wss. Nil: it cannot.
	TLSConfig *tls.Config

	// TLSClientConfig says how servers are verified. Nil: as by tls.Config's
	// zero value, with the system's authorities.
	TLSClientConfig *tls.Config

	// Handler answers requests that do not ask for a WebSocket, or at another path
	// than the listener's. It serves HTTP/1.1. As in any web server, nothing
	// bounds the number of connections that it serves. Nil: "not found".
	Handler http.Handler

	own tcp.Transport
}

var _ transport.Pipes = (*Transport)(nil)

func (t *Transport) tcp() *tcp.Transport {
	if t.TCP != nil {
		return t.TCP
	}
	return &t.own
}

// Match accepts the addresses that the package comment shows.
func (t *Transport) Match(a ma.Multiaddr) bool {
	_, ok := parse(a)
	return ok
}

// Dial connects. A refusal by the other end's HTTP server is an [ErrHandshake].
func (t *Transport) Dial(ctx context.Context, to ma.Multiaddr) (net.Conn, error) {
	a, ok := parse(to)
	if !ok {
		return nil, fmt.Errorf("websocket: dial: not a WebSocket address: %v", to)
	}
	below, err := a.tcp()
	if err != nil {
		return nil, err
	}
	raw, err := t.tcp().Dial(ctx, below)
	if err != nil {
		return nil, err
	}
	var (
		rw   net.Conn = raw
		tc   *tls.Conn
		sock *socket
		head []byte
	)
	err = security.Within(ctx, raw, func() error {
		if a.secure {
			sock = newSocket(raw)
			tc = tls.Client(sock, t.client(a.name()))
			if err := tc.Handshake(); err != nil {
				return failed("%w", err)
			}
			rw = tc
		}
		head, err = request(rw, &a)
		return err
	})
	if err != nil {
		raw.Close()
		return nil, err
	}
	c := newConn(raw, tc, sock, true, head)
	c.local = netAddr{raw.LocalAddr(), dialer(a.secure)}
	c.remote = netAddr{raw.RemoteAddr(), a.suffix()}
	return c, nil
}

// client is how to ask for a server.
func (t *Transport) client(name string) *tls.Config {
	cfg := t.TLSClientConfig.Clone() // of nil it is nil
	if cfg == nil {
		cfg = new(tls.Config)
	}
	if cfg.ServerName == "" {
		cfg.ServerName = name
	}
	cfg.NextProtos = []string{"http/1.1"}
	cfg.DynamicRecordSizingDisabled = true // a frame goes out in one write anyway
	return cfg
}

// server is how to answer: without HTTP/2, in which a connection cannot become a WebSocket.
func (t *Transport) server() *tls.Config {
	cfg := t.TLSConfig.Clone()
	cfg.NextProtos = slices.DeleteFunc(slices.Clone(cfg.NextProtos), func(s string) bool { return s == "h2" })
	if !slices.Contains(cfg.NextProtos, "http/1.1") {
		cfg.NextProtos = append(cfg.NextProtos, "http/1.1")
	}
	cfg.DynamicRecordSizingDisabled = true
	return cfg
}

// Listen accepts connections. Port 0 lets the system choose one. With a path in
// the address it accepts connections at that path, without one at any.
func (t *Transport) Listen(ctx context.Context, on ma.Multiaddr) (net.Listener, error) {
	a, ok := parse(on)
	if !ok {
		return nil, fmt.Errorf("websocket: listen: not a WebSocket address: %v", on)
	}
	kind := tcp.HTTP
	if a.secure {
		kind = tcp.TLS
		if t.TLSConfig == nil {
			return nil, fmt.Errorf("websocket: listen on %v: Transport.TLSConfig is nil: there is no certificate", on)
		}
	}
	below, err := a.tcp()
	if err != nil {
		return nil, err
	}
	inner, err := t.tcp().ListenKind(ctx, below, kind)
	if err != nil {
		return nil, err
	}
	l := &listener{
		inner: inner, a: a, handler: t.Handler,
		pending:  room.Room{Max: maxPending},
		accepted: make(chan *conn, maxPending),
		closed:   make(chan struct{}),
	}
	if a.secure {
		l.tls = t.server()
	}
	if l.handler == nil {
		l.handler = http.NotFoundHandler()
	}
	l.server = http.Server{
		Handler:           l,
		ReadHeaderTimeout: requestIn,
		IdleTimeout:       idle,
		MaxHeaderBytes:    maxHeader,
		ConnContext:       func(ctx context.Context, c net.Conn) context.Context { return context.WithValue(ctx, connKey{}, c) },
		ConnState: func(c net.Conn, s http.ConnState) {
			if s == http.StateClosed {
				raw, _, _ := split(c)
				l.pending.Remove(raw)
			}
		},
		// What goes wrong here any peer can cause at will.
		ErrorLog: slog.NewLogLogger(slog.Default().Handler(), slog.LevelDebug),
	}
	l.server.Protocols = new(http.Protocols)
	l.server.Protocols.SetHTTP1(true)
	if t.Handler == nil {
		l.server.SetKeepAlivesEnabled(false)
		l.server.ReadTimeout, l.server.WriteTimeout = requestIn, requestIn // of bodies that nobody wants
	}
	go l.serve() // ends when the listener closes
	return l, nil
}

// listener is an HTTP server, and takes from it the connections that become WebSockets.
type listener struct {
	inner   net.Listener
	a       address
	tls     *tls.Config
	handler http.Handler
	server  http.Server

	// A connection is pending until it is accepted or its request is Handler's.
	pending  room.Room
	accepted chan *conn

	once   sync.Once
	closed chan struct{}
	err    error // why serve ended; set before closed is closed
}

type connKey struct{}

func (l *listener) serve() {
	l.close(l.server.Serve(door{l}))
}

// door is the net.Listener that the HTTP server has.
type door struct{ l *listener }

func (d door) Accept() (net.Conn, error) {
	raw, err := d.l.inner.Accept()
	if err != nil {
		return nil, err
	}
	d.l.pending.Add(raw)
	if d.l.tls != nil {
		return tls.Server(newSocket(raw), d.l.tls), nil
	}
	return raw, nil
}

func (d door) Close() error   { return d.l.inner.Close() }
func (d door) Addr() net.Addr { return d.l.inner.Addr() }

// split takes a connection of the HTTP server to pieces.
func split(c net.Conn) (raw net.Conn, tc *tls.Conn, sock *socket) {
	if tc, ok := c.(*tls.Conn); ok {
		sock := tc.NetConn().(*socket)
		return sock.Conn, tc, sock
	}
	return c, nil, nil
}

// ServeHTTP answers one request.
func (l *listener) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	raw, tc, sock := split(r.Context().Value(connKey{}).(net.Conn))
	if !isRequest(r) || l.a.path != "" && r.URL.Path != l.a.path {
		l.pending.Remove(raw)
		l.handler.ServeHTTP(w, r)
		return
	}
	head, err := answer(w, r)
	if err != nil {
		l.pending.Remove(raw)
		return // the peer knows
	}
	c := newConn(raw, tc, sock, false, head)
	c.local = netAddr{raw.LocalAddr(), l.a.suffix()}
	c.remote = netAddr{raw.RemoteAddr(), dialer(l.a.secure)}
	select {
	case l.accepted <- c:
		if l.isClosed() {
			l.drain()
		}
	default: // full, of such as are pending no longer
		l.pending.Remove(raw)
		raw.Close()
	}
}

// Accept waits for the next connection.
func (l *listener) Accept() (net.Conn, error) {
	for !l.isClosed() {
		select {
		case c := <-l.accepted:
			if l.pending.Remove(c.Conn) {
				return c, nil
			}
		case <-l.closed:
		}
	}
	return nil, &net.OpError{Op: "accept", Net: "websocket", Addr: l.Addr(), Err: l.err}
}

func (l *listener) isClosed() bool {
	select {
	case <-l.closed:
		return true
	default:
		return false
	}
}

// Close frees the port, unless others share it. It ends the requests that Handler is
// at, and leaves accepted connections alive.
func (l *listener) Close() error { return l.close(net.ErrClosed) }

func (l *listener) close(why error) (err error) {
	if errors.Is(why, http.ErrServerClosed) {
		why = net.ErrClosed
	}
	l.once.Do(func() {
		l.err = why
		close(l.closed)
		err = l.inner.Close()
		l.drain()
		l.pending.Close()
		l.server.Close()
	})
	return err
}

// drain closes what nobody will accept.
func (l *listener) drain() {
	for {
		select {
		case c := <-l.accepted:
			l.pending.Remove(c.Conn)
			c.Conn.Close()
		default:
			return
		}
	}
}

// Addr tells where it listens: with the real port, and the rest as it was asked for.
func (l *listener) Addr() net.Addr { return netAddr{l.inner.Addr(), l.a.suffix()} }
