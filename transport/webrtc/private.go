package webrtc

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"sync"

	ma "github.com/multiformats/go-multiaddr"
	"github.com/multiformats/go-multihash"
	"github.com/pion/ice/v4"
	"github.com/pion/stun/v3"

	"github.com/plexus-p2p/plexus/internal/pb"
	"github.com/plexus-p2p/plexus/peer"
	"github.com/plexus-p2p/plexus/security"
	"github.com/plexus-p2p/plexus/transport"
)

// SignalingProtocol is what peers negotiate for a stream that signals.
const SignalingProtocol = "/webrtc-signaling/0.0.1"

// ErrSignaling means that what a peer said on such a stream makes no sense.
var ErrSignaling = errors.New("webrtc: bad signaling")

const (
	maxSignal     = 64 << 10 // bytes of a message
	maxCandidates = 64       // that a peer may name
	maxPending    = 16       // connections that are ready and not accepted
)

// Private connects hosts that nobody reaches from outside, such as browsers. They
// find a way by ICE, for which they exchange what they need on a stream that there
// is already: over a relay, or over any other connection. Addresses end with /webrtc.
//
// Who the peer is, the connection below that stream has proved.
//
// Spec: https://github.com/libp2p/specs/blob/master/webrtc/webrtc.md
type Private struct {
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
	listener *privateListener
}

var _ transport.Sessions = (*Private)(nil)

func (p *Private) init() error {
	p.once.Do(func() { p.cert, p.err = newCertificate(p.Key) })
	return p.err
}

// Match accepts addresses that end with /webrtc.
func (p *Private) Match(a ma.Multiaddr) bool {
	return len(a) > 0 && a[len(a)-1].Code() == ma.P_WEBRTC
}

// privateAddr is an end of such a connection.
type privateAddr struct{ a ma.Multiaddr }

func (a privateAddr) Network() string         { return "webrtc" }
func (a privateAddr) String() string          { return a.a.String() }
func (a privateAddr) Multiaddr() ma.Multiaddr { return a.a }

var webrtcAddr = ma.StringCast("/webrtc")

// DialSession connects by a signaling stream of its own.
func (p *Private) DialSession(ctx context.Context, to ma.Multiaddr, want peer.ID) (transport.Session, error) {
	if !p.Match(to) || p.Open == nil {
		return nil, fmt.Errorf("webrtc: dial: not an address to signal to: %v", to)
	}
	if err := p.init(); err != nil {
		return nil, err
	}
	stream, key, err := p.Open(ctx, to, want)
	if err != nil {
		return nil, err
	}
	defer stream.Close()
	if id := key.ID(); want != "" && id != want {
		return nil, &security.MismatchError{Want: want, Got: id}
	}
	return p.connect(ctx, stream, key, to, true)
}

// Signal serves a signaling stream that a peer, who has proved this key, has opened. The
// connection goes to Accept. It returns when it is there, or why it failed.
func (p *Private) Signal(ctx context.Context, stream net.Conn, key peer.PubKey) error {
	if err := p.init(); err != nil {
		return err
	}
	p.mu.Lock()
	l := p.listener
	p.mu.Unlock()
	if l == nil {
		return fmt.Errorf("%w: nobody listens", ErrSignaling)
	}
	ctx, cancel := context.WithTimeout(ctx, handshakeTime)
	defer cancel()
	s, err := p.connect(ctx, stream, key, webrtcAddr, false)
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
	s.Close(ended, 0)
	return err
}

// ListenSession makes Signal work. There is one listener, and its address is /webrtc.
func (p *Private) ListenSession(_ context.Context, on ma.Multiaddr) (transport.SessionListener, error) {
	if !on.Equal(webrtcAddr) {
		return nil, fmt.Errorf("webrtc: listen: not /webrtc: %v", on)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.listener != nil {
		return nil, errors.New("webrtc: listen: there is a listener on /webrtc")
	}
	p.listener = &privateListener{p: p, accepted: make(chan *session, maxPending), closed: make(chan struct{})}
	return p.listener, nil
}

type privateListener struct {
	p        *Private
	accepted chan *session
	once     sync.Once
	closed   chan struct{}
}

// Accept returns the next connection.
func (l *privateListener) Accept() (transport.Session, error) {
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

func (l *privateListener) Close() error {
	l.once.Do(func() {
		close(l.closed)
		l.p.mu.Lock()
		l.p.listener = nil
		l.p.mu.Unlock()
	})
	return nil
}

func (l *privateListener) Addr() net.Addr { return privateAddr{webrtcAddr} }

// connect makes a connection, with what is said on stream. The dialer offers.
func (p *Private) connect(ctx context.Context, stream net.Conn, key peer.PubKey, at ma.Multiaddr, dialer bool) (*session, error) {
	stop := context.AfterFunc(ctx, func() { stream.SetDeadline(past) })
	defer stop()
	agent, err := p.agent()
	if err != nil {
		return nil, err
	}
	s, err := p.negotiate(ctx, agent, &signaling{c: stream}, at, dialer)
	if err != nil {
		agent.Close()
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		return nil, err
	}
	s.id, s.key = key.ID(), key
	s.start()
	return s, nil
}

func (p *Private) agent() (*ice.Agent, error) {
	var urls []*stun.URI
	for _, s := range p.STUN {
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
		LoggerFactory:    logs{},
	})
}

func (p *Private) negotiate(ctx context.Context, agent *ice.Agent, sig *signaling, at ma.Multiaddr, dialer bool) (*session, error) {
	ufrag, pwd, err := agent.GetLocalUserCredentials()
	if err != nil {
		return nil, err
	}
	own := description{ufrag: ufrag, pwd: pwd, print: fingerprint(p.cert.Certificate[0]), setup: "actpass", mid: "0"}
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
	sec, err := secure(ctx, newPath(conn, agent), client, p.cert, func(der []byte) error {
		if !bytes.Equal(fingerprint(der), theirs.print) {
			return ErrCertHash
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	s := newSession(sec, client, privateAddr{webrtcAddr}, privateAddr{at})
	if client {
		s.nextID = 0
	}
	return s, nil
}

// path is the packets that ICE carries, with deadlines, which those of ICE have not.
type path struct {
	inbox
	c     *ice.Conn
	agent *ice.Agent
	once  sync.Once
}

func newPath(c *ice.Conn, agent *ice.Agent) *path {
	p := &path{c: c, agent: agent}
	p.init()
	go func() { // ends with the agent
		b := make([]byte, maxDatagram)
		for {
			n, err := c.Read(b)
			if err != nil {
				p.Close()
				return
			}
			p.put(b[:n])
		}
	}()
	return p
}

func (p *path) Write(b []byte) (int, error) { return p.c.Write(b) }
func (p *path) LocalAddr() net.Addr         { return p.c.LocalAddr() }
func (p *path) RemoteAddr() net.Addr        { return p.c.RemoteAddr() }

func (p *path) Close() error {
	p.once.Do(func() {
		close(p.closed)
		p.agent.Close()
	})
	return nil
}

// Types of messages on a signaling stream. Append only.
const (
	signalOffer = iota
	signalAnswer
	signalCandidate
)

// signaling is a stream with its messages.
//
//	message Message {
//	  optional Type type = 1;
//	  optional string data = 2;
//	}
type signaling struct {
	c  net.Conn
	mu sync.Mutex // held while a message is written
}

func (s *signaling) write(typ int, data string) error {
	b, at := pb.BeginDelimited(nil)
	b = pb.AppendUvarint(b, 1, uint64(typ))
	b = pb.AppendBytes(b, 2, data)
	b = pb.End(b, at)
	s.mu.Lock()
	defer s.mu.Unlock()
	_, err := s.c.Write(b)
	return err
}

func (s *signaling) next() (typ int, data string, err error) {
	b, err := pb.ReadDelimited(s.c, maxSignal, nil)
	if err != nil {
		return 0, "", err
	}
	return parseSignal(b)
}

func parseSignal(b []byte) (typ int, data string, err error) {
	d := pb.Decode(b)
	for d.Next() {
		switch d.Field() {
		case 1:
			typ = int(min(d.Uvarint(), 1<<20))
		case 2:
			data = d.Text()
		}
	}
	if err := d.Err(); err != nil {
		return 0, "", fmt.Errorf("%w: %w", ErrSignaling, err)
	}
	return typ, data, nil
}

func (s *signaling) description(want int) (description, error) {
	typ, data, err := s.next()
	if err != nil {
		return description{}, err
	}
	if typ != want {
		return description{}, fmt.Errorf("%w: message %d, want %d", ErrSignaling, typ, want)
	}
	return parseDescription(data)
}

// candidateInit is a candidate as browsers write it.
type candidateInit struct {
	Candidate string  `json:"candidate"`
	Mid       *string `json:"sdpMid"`
	Line      *int    `json:"sdpMLineIndex"`
}

func (s *signaling) candidate(c ice.Candidate, mid string) error {
	zero := 0
	b, err := json.Marshal(candidateInit{"candidate:" + c.Marshal(), &mid, &zero})
	if err != nil {
		return err
	}
	return s.write(signalCandidate, string(b))
}

// read takes candidates until the stream ends, which means nothing: the peer has
// connected, or there are no more.
func (s *signaling) read(agent *ice.Agent) error {
	for range maxCandidates {
		typ, data, err := s.next()
		if err != nil {
			if errors.Is(err, ErrSignaling) {
				return err
			}
			return nil
		}
		if typ != signalCandidate {
			return fmt.Errorf("%w: message %d, want a candidate", ErrSignaling, typ)
		}
		c, err := parseCandidate(data)
		if err != nil {
			return err
		}
		if c != nil {
			agent.AddRemoteCandidate(c)
		}
	}
	return fmt.Errorf("%w: more than %d candidates", ErrSignaling, maxCandidates)
}

// parseCandidate returns nil for the end of candidates, and for those that we cannot use.
func parseCandidate(data string) (ice.Candidate, error) {
	var init *candidateInit
	if data == `""` {
		return nil, nil
	}
	if err := json.Unmarshal([]byte(data), &init); err != nil {
		return nil, fmt.Errorf("%w: candidate: %v", ErrSignaling, err)
	}
	if init == nil || init.Candidate == "" {
		return nil, nil
	}
	c, err := ice.UnmarshalCandidate(init.Candidate)
	if err != nil || !c.NetworkType().IsUDP() {
		return nil, nil
	}
	return c, nil
}

// description is what we need of SDP.
//
// https://www.rfc-editor.org/rfc/rfc8841
type description struct {
	ufrag, pwd string
	print      []byte // multihash of the certificate
	setup, mid string
	bundle     bool
	candidates []ice.Candidate
}

func (d *description) String() string {
	var id [8]byte
	rand.Read(id[:])
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\r\n", args...) }
	line("v=0")
	line("o=- %d 2 IN IP4 127.0.0.1", uint64(id[0])<<40|uint64(id[1])<<32|uint64(id[2])<<24|uint64(id[3])<<16|1)
	line("s=-")
	line("t=0 0")
	if d.bundle || d.setup == "actpass" {
		line("a=group:BUNDLE %s", d.mid)
	}
	line("m=application 9 UDP/DTLS/SCTP webrtc-datachannel")
	line("c=IN IP4 0.0.0.0")
	line("a=mid:%s", d.mid)
	line("a=ice-ufrag:%s", d.ufrag)
	line("a=ice-pwd:%s", d.pwd)
	line("a=ice-options:trickle")
	hash := make([]string, 0, 32)
	for _, c := range d.print[2:] {
		hash = append(hash, fmt.Sprintf("%02X", c))
	}
	line("a=fingerprint:sha-256 %s", strings.Join(hash, ":"))
	line("a=setup:%s", d.setup)
	line("a=sctp-port:%d", sctpPort)
	line("a=max-message-size:%d", maxReceive)
	return b.String()
}

const sctpPort = 5000

func parseDescription(s string) (d description, err error) {
	d.mid = "0"
	for l := range strings.Lines(s) {
		name, value, _ := strings.Cut(strings.TrimRight(l, "\r\n"), ":")
		switch name {
		case "a=ice-ufrag":
			d.ufrag = value
		case "a=ice-pwd":
			d.pwd = value
		case "a=setup":
			d.setup = value
		case "a=mid":
			d.mid = value
		case "a=group":
			d.bundle = true
		case "a=sctp-port":
			if n, err := strconv.Atoi(value); err != nil || n != sctpPort {
				return d, fmt.Errorf("%w: SCTP port %q", ErrSignaling, value)
			}
		case "a=fingerprint":
			hash, hexed, _ := strings.Cut(value, " ")
			sum, err := hex.DecodeString(strings.ReplaceAll(hexed, ":", ""))
			if strings.EqualFold(hash, "sha-256") && err == nil && len(sum) == 32 {
				d.print = append([]byte{multihash.SHA2_256, 32}, sum...)
			}
		case "a=candidate":
			if c, err := ice.UnmarshalCandidate(value); err == nil && c.NetworkType().IsUDP() && len(d.candidates) < maxCandidates {
				d.candidates = append(d.candidates, c)
			}
		}
	}
	switch {
	case !iceChars(d.ufrag, 4, 256) || !iceChars(d.pwd, 22, 256):
		err = fmt.Errorf("%w: ICE credentials", ErrSignaling)
	case d.print == nil:
		err = fmt.Errorf("%w: no fingerprint by SHA-256", ErrSignaling)
	case d.setup != "actpass" && d.setup != "active" && d.setup != "passive":
		err = fmt.Errorf("%w: setup %q", ErrSignaling, d.setup)
	case strings.ContainsAny(d.mid, " \r\n") || len(d.mid) > 64:
		err = fmt.Errorf("%w: mid", ErrSignaling)
	}
	return d, err
}
