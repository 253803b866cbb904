package webtransport

import (
	"context"
	"net"
	"slices"
	"sync"
	"time"

	ma "github.com/multiformats/go-multiaddr"
	"github.com/quic-go/quic-go"

	"github.com/plexus-p2p/plexus/transport"
	"github.com/plexus-p2p/plexus/transport/internal/quicport"
)

// listener accepts sessions.
type listener struct {
	t     *Transport
	l     *quicport.Listener
	ready chan *session
	slots chan struct{} // a token for each connection that is not accepted yet

	ctx   context.Context // ends with Close, or the port
	close context.CancelCauseFunc
	wg    sync.WaitGroup

	mu      sync.Mutex
	changed []func()
	roll    *time.Timer // to the next certificate; nil: nobody wants to know
}

func newListener(t *Transport, l *quicport.Listener) *listener {
	w := &listener{t: t, l: l, ready: make(chan *session), slots: make(chan struct{}, handshakes)}
	w.ctx, w.close = context.WithCancelCause(context.Background())
	w.wg.Go(w.run) // ends when l closes
	return w
}

func (w *listener) run() {
	for {
		c, err := w.l.Accept()
		if err != nil {
			w.close(err)
			return
		}
		select {
		case w.slots <- struct{}{}:
			w.wg.Go(func() { // ends by handshakeTimeout, and when somebody accepts
				defer func() { <-w.slots }()
				w.handshake(c)
			})
		default:
			go c.CloseWithError(errLoad, "") // returns when the connection's loop has heard it
		}
	}
}

// handshake makes a session of a connection, or ends it.
func (w *listener) handshake(c *quic.Conn) {
	ctx, cancel := context.WithTimeout(w.ctx, handshakeTimeout)
	defer cancel()
	// http3 does not heed a context.
	stop := context.AfterFunc(ctx, func() { c.CloseWithError(errNo, "") })
	s, err := w.t.server(ctx, c)
	if !stop() || err != nil {
		c.CloseWithError(errNo, "")
		return
	}
	select {
	case w.ready <- s:
	case <-c.Context().Done():
	case <-w.ctx.Done():
		c.CloseWithError(errNo, "")
	}
}

// Accept returns the next session.
func (w *listener) Accept() (transport.Session, error) {
	if w.ctx.Err() == nil {
		select {
		case s := <-w.ready:
			return s, nil
		case <-w.ctx.Done():
		}
	}
	return nil, context.Cause(w.ctx)
}

// Close frees the port, once the sessions that use it have ended.
func (w *listener) Close() error {
	w.close(&net.OpError{Op: "accept", Net: "webtransport", Addr: w.Addr(), Err: net.ErrClosed})
	err := w.l.Close()
	w.mu.Lock()
	if w.roll != nil {
		w.roll.Stop()
	}
	w.mu.Unlock()
	w.wg.Wait()
	return err
}

// Addr has the certificate hashes of the moment.
func (w *listener) Addr() net.Addr {
	at := w.l.Addr()
	return addr{at, func() ma.Multiaddr {
		c, err := w.t.certs.now()
		if err != nil {
			return withHashes(at)
		}
		return withHashes(at, c[current].hash, c[next].hash)
	}}
}

// OnAddrChange has f called each time the address has changed.
func (w *listener) OnAddrChange(f func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.changed = append(w.changed, f)
	if w.roll == nil {
		w.roll = time.AfterFunc(w.untilNext(), w.rolled)
	}
}

// untilNext is how long the address stays as it is.
func (w *listener) untilNext() time.Duration {
	_, until := w.t.certs.number(time.Now())
	return time.Until(until)
}

func (w *listener) rolled() {
	w.mu.Lock()
	if w.ctx.Err() == nil {
		w.roll.Reset(w.untilNext())
	}
	changed := slices.Clone(w.changed)
	w.mu.Unlock()
	for _, f := range changed {
		f()
	}
}
