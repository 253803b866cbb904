package main

import (
	"bufio"
	"context"
	"fmt"
	"math"
	"net"
	"strings"
	"sync"
	"time"

	ma "github.com/multiformats/go-multiaddr"

	"github.com/plexus-p2p/plexus"
	"github.com/plexus-p2p/plexus/muxer"
	"github.com/plexus-p2p/plexus/muxer/yamux"
	"github.com/plexus-p2p/plexus/node"
	"github.com/plexus-p2p/plexus/security"
	"github.com/plexus-p2p/plexus/security/noise"
	"github.com/plexus-p2p/plexus/simnet"
	"github.com/plexus-p2p/plexus/transport"
	"github.com/plexus-p2p/plexus/transport/tcp"
)

type demoCmd struct{}

func (demoCmd) Help() string {
	return `The first act is on this machine, over TCP on loopback. The second one is over a simulated
link whose round trip takes 100 ms, so that the round trips of each stage show.

Examples:

  plexus demo
  plexus demo --security tls --muxer mplex
  plexus demo --json | jq 'select(.event == "answer")'`
}

const (
	demoProto = "/plexus/demo/1.0.0"
	demoRTT   = 100 * time.Millisecond
)

// moment is a stage that a host has come to.
type moment struct {
	Act   int     `json:"act"`
	At    *millis `json:"at_ms"` // since X began to dial; null before
	Trips *trips  `json:"round_trips"`
	Host  string  `json:"host"`
	Stage string  `json:"stage"`
	Text  string  `json:"text"`
	far   bool    // round trips are counted
}

// trips is a number of round trips, as measured.
type trips float64

// String leaves out a bit more than a whole or half round trip: that is this
// machine's work, not the link's.
func (t trips) String() string {
	if half := math.Floor(float64(t)*2+0.02) / 2; float64(t)-half < 0.15 {
		return fmt.Sprintf("%.1f", half)
	}
	return fmt.Sprintf("%.1f", float64(t))
}

func (t trips) MarshalJSON() ([]byte, error) { return fmt.Appendf(nil, "%.2f", float64(t)), nil }

func (moment) event() string { return "stage" }

func (r moment) text(s style) string {
	at, n := "", ""
	switch {
	case r.Trips != nil:
		at, n = fmt.Sprintf("%.0f ms", float64(*r.At)/1e6), r.Trips.String()
	case r.At != nil:
		at = fmt.Sprintf("%.2f ms", float64(*r.At)/1e6)
	}
	if at = fmt.Sprintf("%10s", at); r.far {
		at += fmt.Sprintf("%7s", n)
	}
	host := s.cyan("X")
	if r.Host == "Y" {
		host = s.yellow("Y")
	}
	return fmt.Sprintf("%s  %s  %s %s", s.dim(at), host, s.bold(pad(r.Stage, 9)), r.Text)
}

// answer is what an act comes to.
type answer struct {
	Act   int    `json:"act"`
	At    millis `json:"first_answer_ms"`
	Trips *trips `json:"round_trips"`
	Parts *parts `json:"parts,omitempty"`
}

// parts is where the round trips go.
type parts struct {
	Connect trips `json:"connect"`
	Upgrade trips `json:"upgrade"` // security and muxer
	Talk    trips `json:"talk"`    // stream, message and reply
}

func (answer) event() string { return "answer" }

func (r answer) text(s style) string {
	line := fmt.Sprintf("\n  X has its first answer %s after it began to dial", s.green(r.At.String()))
	if r.Trips == nil {
		return line + "."
	}
	return line + fmt.Sprintf(": %s.\n  %s to connect, %s for security and muxer, %s for stream, message and reply.",
		s.green(r.Trips.String()+" round trips"), r.Parts.Connect, r.Parts.Upgrade, r.Parts.Talk)
}

func (demoCmd) Run(e *env) error {
	s := e.out.style
	e.out.say("\n  %s: two hosts, %s and %s, meet on this machine and talk.\n", s.bold("plexus demo"), s.cyan("X"), s.yellow("Y"))
	loopback := &act{env: e, number: 1, x: e.network, y: e.network, listen: "/ip4/127.0.0.1/tcp/0"}
	if err := loopback.play(); err != nil {
		return tried("play the first act", err)
	}
	e.out.say("\n  The same over a simulated link, whose round trip takes %d ms.\n", demoRTT.Milliseconds())
	e.out.say("%s", s.dim("      time  trips"))
	if err := simulated(e, demoRTT); err != nil {
		return tried("play the second act", err)
	}
	e.out.say("\n  Now you: %s, and elsewhere %s.\n", s.bold("plexus up"), s.bold("plexus ping ADDR"))
	return nil
}

// simulated plays the second act: on a network in this process whose links take
// their time, and nothing else.
func simulated(e *env, rtt time.Duration) error {
	n := simnet.New(simnet.Config{Path: simnet.Link{Latency: rtt / 2}})
	defer n.Close()
	far := &act{
		env: e, number: 2, rtt: rtt,
		x: n.Host("192.0.2.1"), y: n.Host("198.51.100.2"), listen: "/ip4/198.51.100.2/tcp/4001",
	}
	return far.play()
}

// act is X and Y on a network, and what happens to them as it happens.
type act struct {
	*env
	number int
	x, y   transport.Network // nil: the operating system's
	listen string            // Y's address
	rtt    time.Duration     // of the network, where that is known

	mu    sync.Mutex
	begin time.Time        // when X began to dial
	trips map[string]trips // when X came to a stage
	early map[string]bool  // whether a host agreed on the muxer within the handshake
}

func (a *act) tell(host, stage, format string, args ...any) {
	a.mu.Lock()
	defer a.mu.Unlock()
	m := moment{Act: a.number, Host: host, Stage: stage, Text: fmt.Sprintf(format, args...), far: a.rtt > 0}
	if !a.begin.IsZero() {
		m.At, m.Trips = a.timeLocked()
	}
	if host == "X" && m.Trips != nil {
		a.trips[stage] = *m.Trips
	}
	a.out.print(m)
}

func (a *act) timeLocked() (*millis, *trips) {
	at := millis(time.Since(a.begin))
	if a.rtt == 0 {
		return &at, nil
	}
	t := trips(float64(at) / float64(a.rtt))
	return &at, &t
}

func (a *act) play() error {
	a.trips, a.early = make(map[string]trips), make(map[string]bool)
	ctx, cancel := a.within()
	defer cancel()
	y, err := a.host("Y", a.y, a.listen)
	if err != nil {
		return err
	}
	defer y.Close()
	x, err := a.host("X", a.x)
	if err != nil {
		return err
	}
	defer x.Close()
	identified, gone := make(chan struct{}), make(chan struct{})
	defer y.Notify(func(ev plexus.Event) {
		if _, ok := ev.(plexus.Disconnected); ok {
			a.tell("Y", "close", "X has hung up")
			close(gone)
		}
	})()
	defer x.Notify(func(ev plexus.Event) {
		if ev, ok := ev.(plexus.Identified); ok {
			id := ev.Conn.Identity()
			a.tell("X", "identify", "Y is %s and speaks %d protocols", id.Agent, len(id.Protocols))
			close(identified)
		}
	})()
	y.Handle(demoProto, func(_ context.Context, s *plexus.Stream) error {
		line, err := bufio.NewReader(s).ReadString('\n')
		if err != nil {
			return err
		}
		a.tell("Y", "message", "takes the stream and reads %q", strings.TrimSpace(line))
		a.tell("Y", "reply", "writes %q", "Yes, X!")
		_, err = fmt.Fprintf(s, "Yes, X!\n")
		return err
	})
	return a.talk(ctx, x, y, identified, gone)
}

// talk is the plot.
func (a *act) talk(ctx context.Context, x, y *plexus.Host, identified, gone <-chan struct{}) error {
	a.tell("X", "host", "%s", x.ID())
	a.tell("Y", "host", "%s", y.ID())
	a.tell("Y", "listen", "on %s", y.Addrs()[0])
	a.mu.Lock()
	a.begin = time.Now()
	a.mu.Unlock()
	a.tell("X", "dial", "Y at %s", y.Addrs()[0])
	conn, err := x.Dial(ctx, y.Info())
	if err != nil {
		return err
	}
	s, err := conn.Open(ctx, demoProto)
	if err != nil {
		return err
	}
	defer s.Close()
	a.tell("X", "stream", "opens %s; the proposal goes with the first bytes", demoProto)
	a.tell("X", "message", "writes %q", "Y, are you there?")
	if _, err := fmt.Fprintf(s, "Y, are you there?\n"); err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { s.Reset(plexus.CodeNone) })
	defer stop()
	line, err := bufio.NewReader(s).ReadString('\n')
	if err != nil {
		return err
	}
	a.tell("X", "reply", "reads %q", strings.TrimSpace(line))
	end := a.answer()
	select {
	case <-identified:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	a.tell("X", "close", "the stream and the connection")
	s.Close()
	if err := conn.Close(); err != nil {
		return err
	}
	select {
	case <-gone:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	a.out.print(end)
	return nil
}

// answer is what was measured when X had read the reply.
func (a *act) answer() answer {
	a.mu.Lock()
	defer a.mu.Unlock()
	at, n := a.timeLocked()
	r := answer{Act: a.number, At: *at, Trips: n}
	if n != nil {
		connect, ready := a.trips["connect"], a.trips["muxer"]
		r.Parts = &parts{Connect: connect, Upgrade: ready - connect, Talk: *n - ready}
	}
	return r
}

// host makes a node whose parts tell what they do.
func (a *act) host(name string, network transport.Network, listen ...string) (*plexus.Host, error) {
	if listen == nil {
		listen = []string{}
	}
	secs, muxers := a.securities(), a.muxers()
	if secs == nil {
		secs = []security.Protocol{&noise.Protocol{}}
	}
	if muxers == nil {
		muxers = []muxer.Muxer{&yamux.Muxer{}}
	}
	for i, s := range secs {
		secs[i] = tellingSecurity{s, a, name}
	}
	for i, m := range muxers {
		muxers[i] = tellingMuxer{m, a, name}
	}
	return a.node(node.Config{
		Network: network,
		Transports: func(node.Config) ([]transport.Pipes, []transport.Sessions) {
			return []transport.Pipes{tellingPipes{&tcp.Transport{Network: network}, a, name}}, nil
		},
		Security: secs, Muxers: muxers, Listen: listen,
	})
}

// tellingPipes tells of connections.
type tellingPipes struct {
	transport.Pipes
	act  *act
	host string
}

func (p tellingPipes) Dial(ctx context.Context, to ma.Multiaddr) (net.Conn, error) {
	c, err := p.Pipes.Dial(ctx, to)
	if err == nil {
		p.act.tell(p.host, "connect", "over TCP")
	}
	return c, err
}

func (p tellingPipes) Listen(ctx context.Context, on ma.Multiaddr) (net.Listener, error) {
	l, err := p.Pipes.Listen(ctx, on)
	if err != nil {
		return nil, err
	}
	return tellingListener{l, p}, nil
}

type tellingListener struct {
	net.Listener
	pipes tellingPipes
}

func (l tellingListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err == nil {
		l.pipes.act.tell(l.pipes.host, "accept", "TCP from %s", c.RemoteAddr())
	}
	return c, err
}

// tellingSecurity tells of handshakes.
type tellingSecurity struct {
	security.Protocol
	act  *act
	host string
}

func (p tellingSecurity) Secure(ctx context.Context, c net.Conn, h security.Handshake) (*security.Conn, error) {
	sc, err := p.Protocol.Secure(ctx, c, h)
	if err == nil {
		p.act.tell(p.host, "security", "%s; the other end proves to be …%s", p.ID(), sc.Peer.Short())
		p.act.mu.Lock()
		p.act.early[p.host] = sc.Muxer != ""
		p.act.mu.Unlock()
	}
	return sc, err
}

// tellingMuxer tells of sessions.
type tellingMuxer struct {
	muxer.Muxer
	act  *act
	host string
}

func (m tellingMuxer) New(c net.Conn, client bool) muxer.Session {
	m.act.mu.Lock()
	early := m.act.early[m.host]
	m.act.mu.Unlock()
	how := "agreed on by multiselect"
	if early {
		how = "agreed on within the handshake"
	}
	m.act.tell(m.host, "muxer", "%s, %s: ready for streams", m.ID(), how)
	return m.Muxer.New(c, client)
}
