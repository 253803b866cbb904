// Package private connects hosts that nobody reaches from outside, such as browsers, over
// WebRTC. They find a way by ICE, for which they exchange what they need on a stream that
// there is already: over a relay, or over any other connection. Addresses end with /webrtc.
//
// Who the peer is, the connection below that stream has proved.
//
// It stands beside transport/webrtc, so that who does not need it does not link pion/ice.
//
//	private.go  Transport: signaling, and ICE, which is pion's
//	wire.go     what is said on a signaling stream: messages, SDP, candidates
//
// DTLS, data channels and streams are those of transport/internal/rtc.
//
// # Limits
//
// It opens sockets of the operating system, as pion/ice does. Candidates with names of mDNS
// are not looked up. The limits of transport/webrtc that speak of SCTP hold here, too.
//
// Spec: https://github.com/libp2p/specs/blob/master/webrtc/webrtc.md
package private

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	ma "github.com/multiformats/go-multiaddr"
	"github.com/pion/ice/v4"
	"github.com/pion/logging"
	"github.com/pion/stun/v3"

	"github.com/plexus-p2p/plexus/peer"
	"github.com/plexus-p2p/plexus/security"
	"github.com/plexus-p2p/plexus/transport"
	"github.com/plexus-p2p/plexus/transport/internal/certhash"
	"github.com/plexus-p2p/plexus/transport/internal/rtc"
	"github.com/plexus-p2p/plexus/transport/internal/sctp"
)

// SignalingProtocol is what peers negotiate for a stream that signals.
const SignalingProtocol = "/webrtc-signaling/0.0.1"

// Why connections do not come about, beside security.MismatchError and the end of a context.
var (
	ErrSignaling = errors.New("webrtc: bad signaling") // what the peer said makes no sense
	ErrCertHash  = rtc.ErrCertHash                     // its certificate is not the one that it described
)

// ErrSilent means that a peer did not answer for 30 seconds. It is found in a
// muxer.SessionError.
var ErrSilent = sctp.ErrSilent

const (
	maxSignal     = 64 << 10         // bytes of a message
	maxCandidates = 64               // that a peer may name
	signalTime    = 10 * time.Second // that Signal takes at most
)

// Transport is the WebRTC private-to-private of one host. Its exported fields are set before
// the first use.
type Transport struct {
	Key peer.PrivKey // who we are; it must be set

	// Open opens a stream of SignalingProtocol to the peer that an address leads to.
	// The key is the one that the connection below has proved. It is needed to dial.
	Open func(ctx context.Context, to ma.Multiaddr, want peer.ID) (net.Conn, peer.PubKey, error)

	// STUN are servers, such as stun:stun.example.com:3478, that tell the host what its
	// address looks like from outside. Nil: none, and only hosts that reach each
	// other directly can connect.
	STUN []string

	once sync.Once
	cert *tls.Certificate
	err  error

	mu       sync.Mutex
	listener *listener
}

var _ transport.Sessions = (*Transport)(nil)

func (t *Transport) init() error {
	t.once.Do(func() { t.cert, t.err = rtc.NewCertificate(t.Key) })
	return t.err
}

// Match accepts addresses that end with /webrtc.
func (t *Transport) Match(a ma.Multiaddr) bool {
	return len(a) > 0 && a[len(a)-1].Code() == ma.P_WEBRTC
}

// addr is an end of such a connection.
type addr struct{ a ma.Multiaddr }

func (a addr) Network() string         { return "webrtc" }
func (a addr) String() string          { return a.a.String() }
func (a addr) Multiaddr() ma.Multiaddr { return a.a }

var webrtcAddr = ma.StringCast("/webrtc")

// DialSession connects by a signaling stream of its own.
func (t *Transport) DialSession(ctx context.Context, to ma.Multiaddr, want peer.ID) (transport.Session, error) {
	if !t.Match(to) || t.Open == nil {
		return nil, fmt.Errorf("webrtc: dial: not an address to signal to: %v", to)
	}
	if err := t.init(); err != nil {
		return nil, err
	}
	stream, key, err := t.Open(ctx, to, want)
	if err != nil {
		return nil, err
	}
	defer stream.Close()
	if id := key.ID(); want != "" && id != want {
		return nil, &security.MismatchError{Want: want, Got: id}
	}
	return t.connect(ctx, stream, key, to, true)
}

// Signal serves a signaling stream that a peer, who has proved this key, has opened. The
// connection goes to Accept. It returns when it is there, or why it failed.
func (t *Transport) Signal(ctx context.Context, stream net.Conn, key peer.PubKey) error {
	if err := t.init(); err != nil {
		return err
	}
	t.mu.Lock()
	l := t.listener
	t.mu.Unlock()
	if l == nil {
		return fmt.Errorf("%w: nobody listens", ErrSignaling)
	}
	ctx, cancel := context.WithTimeout(ctx, signalTime)
	defer cancel()
	s, err := t.connect(ctx, stream, key, webrtcAddr, false)
	if err != nil {
		return err
	}
	select {
	case l.accepted <- s:
		return nil
	case <-l.closed:
		err = net.ErrClosed
	case <-ctx.Done():
		err = context.Cause(ctx)
	}
	s.Drop()
	return err
}

// ListenSession makes Signal work. There is one listener, and its address is /webrtc.
func (t *Transport) ListenSession(_ context.Context, on ma.Multiaddr) (transport.SessionListener, error) {
	if !on.Equal(webrtcAddr) {
		return nil, fmt.Errorf("webrtc: listen: not /webrtc: %v", on)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.listener != nil {
		return nil, errors.New("webrtc: listen: there is a listener on /webrtc")
	}
	t.listener = &listener{t: t, accepted: make(chan *rtc.Session), closed: make(chan struct{})}
	return t.listener, nil
}

type listener struct {
	t        *Transport
	accepted chan *rtc.Session
	once     sync.Once
	closed   chan struct{}
}

// Accept returns the next connection.
func (l *listener) Accept() (transport.Session, error) {
	select {
	case <-l.closed:
		return nil, net.ErrClosed
	default:
	}
	select {
	case s := <-l.accepted:
		return s, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *listener) Close() error {
	l.once.Do(func() {
		close(l.closed)
		l.t.mu.Lock()
		l.t.listener = nil
		l.t.mu.Unlock()
	})
	return nil
}

func (l *listener) Addr() net.Addr { return addr{webrtcAddr} }

// connect makes a connection, with what is said on stream. The dialer offers.
func (t *Transport) connect(ctx context.Context, stream net.Conn, key peer.PubKey, at ma.Multiaddr, dialer bool) (*rtc.Session, error) {
	stop := context.AfterFunc(ctx, func() { stream.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	agent, err := t.agent()
	if err != nil {
		return nil, err
	}
	s, err := t.negotiate(ctx, agent, &signaling{c: stream}, at, dialer)
	if err != nil {
		agent.Close()
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		return nil, err
	}
	s.Start(key)
	return s, nil
}

func (t *Transport) agent() (*ice.Agent, error) {
	var urls []*stun.URI
	for _, s := range t.STUN {
		u, err := stun.ParseURI(s)
		if err != nil {
			return nil, fmt.Errorf("webrtc: STUN server %q: %w", s, err)
		}
		urls = append(urls, u)
	}
	return ice.NewAgent(&ice.AgentConfig{
		Urls:             urls,
		NetworkTypes:     []ice.NetworkType{ice.NetworkTypeUDP4, ice.NetworkTypeUDP6},
		CandidateTypes:   []ice.CandidateType{ice.CandidateTypeHost, ice.CandidateTypeServerReflexive},
		MulticastDNSMode: ice.MulticastDNSModeDisabled,
		IncludeLoopback:  true,
		LoggerFactory:    &logging.DefaultLoggerFactory{DefaultLogLevel: logging.LogLevelDisabled},
	})
}

func (t *Transport) negotiate(ctx context.Context, agent *ice.Agent, sig *signaling, at ma.Multiaddr, dialer bool) (*rtc.Session, error) {
	ufrag, pwd, err := agent.GetLocalUserCredentials()
	if err != nil {
		return nil, err
	}
	own := description{ufrag: ufrag, pwd: pwd, print: certhash.Of(t.cert.Certificate[0]), setup: "actpass", mid: "0"}
	var theirs description
	if dialer {
		// "A creates an SDP offer […] B […] answers".
		if err := sig.write(signalOffer, own.String()); err != nil {
			return nil, err
		}
		if theirs, err = sig.description(signalAnswer); err != nil {
			return nil, err
		}
	} else {
		if theirs, err = sig.description(signalOffer); err != nil {
			return nil, err
		}
		own.setup, own.mid, own.bundle = "active", theirs.mid, theirs.bundle
		if theirs.setup == "active" {
			own.setup = "passive"
		}
		if err := sig.write(signalAnswer, own.String()); err != nil {
			return nil, err
		}
	}
	if err := agent.OnCandidate(func(c ice.Candidate) {
		if c != nil {
			sig.candidate(c, own.mid) // if it fails, so does reading
		}
	}); err != nil {
		return nil, err
	}
	if err := agent.GatherCandidates(); err != nil {
		return nil, err
	}
	for _, c := range theirs.candidates {
		agent.AddRemoteCandidate(c)
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	go func() { // ends with the stream, which its owner closes
		if err := sig.read(agent); err != nil {
			cancel(err)
		}
	}()
	find := agent.Accept
	if dialer {
		find = agent.Dial
	}
	conn, err := find(ctx, theirs.ufrag, theirs.pwd)
	if err != nil {
		if cause := context.Cause(ctx); cause != nil {
			err = cause
		}
		return nil, fmt.Errorf("webrtc: ICE: %w", err)
	}
	client := own.setup == "active" || theirs.setup == "passive"
	sec, err := rtc.Secure(ctx, newPath(conn, agent), client, t.cert, theirs.print)
	if err != nil {
		return nil, err
	}
	return rtc.NewSession(sec, client, addr{webrtcAddr}, addr{at}), nil
}

// path is the packets that ICE carries, with deadlines, which those of ICE have not.
type path struct {
	rtc.Inbox
	c     *ice.Conn
	agent *ice.Agent
}

func newPath(c *ice.Conn, agent *ice.Agent) *path {
	p := &path{c: c, agent: agent}
	p.Init()
	go func() { // ends with the agent
		b := make([]byte, rtc.MaxDatagram)
		for {
			n, err := c.Read(b)
			if err != nil {
				p.Close()
				return
			}
			p.Put(b[:n])
		}
	}()
	return p
}

func (p *path) Write(b []byte) (int, error) { return p.c.Write(b) }
func (p *path) LocalAddr() net.Addr         { return p.c.LocalAddr() }
func (p *path) RemoteAddr() net.Addr        { return p.c.RemoteAddr() }

func (p *path) Close() error {
	if p.Shut() {
		p.agent.Close()
	}
	return nil
}
