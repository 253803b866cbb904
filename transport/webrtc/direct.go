package webrtc

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/pion/stun/v3"

	"github.com/plexus-p2p/plexus/internal/addrport"
	"github.com/plexus-p2p/plexus/internal/slots"
	"github.com/plexus-p2p/plexus/transport"
	"github.com/plexus-p2p/plexus/transport/internal/room"
	"github.com/plexus-p2p/plexus/transport/internal/rtc"
	"github.com/plexus-p2p/plexus/transport/udp"
)

const (
	// maxHandshakes is how many inbound handshakes there are on a port. When there is
	// one more, the oldest ends.
	maxHandshakes = 256

	// maxHandshakesEach is how many of them come from one IP address.
	maxHandshakesEach = 64

	// handshakeTime is how long one takes at most.
	handshakeTime = 10 * time.Second

	// maxSeen is how many addresses are remembered that have sent a STUN request and
	// nothing more.
	maxSeen = 1024

	// seenTime is for how long.
	seenTime = 10 * time.Second

	// amplification is how many times more we send to an address than has come from it,
	// before it has shown that it gets what we send.
	amplification = 3

	firstRepeat = 250 * time.Millisecond // of a STUN request that is not answered
)

// mux is a UDP port on which connections come in. STUN requests are answered without
// memory; a connection begins with DTLS. It lives as long as a listener or a
// connection needs it.
type mux struct {
	t    *Transport
	at   netip.AddrPort
	pc   net.PacketConn
	room *room.Room
	from slots.Slots[netip.Addr]

	mu       sync.Mutex
	listener *listener // nil: nobody listens
	flows    map[netip.AddrPort]*flow
	seen     map[netip.AddrPort]seen
	order    [maxSeen]netip.AddrPort // of seen, in a ring
	oldest   int                     // in order
	closed   bool
}

// seen is what has come from an address that has no connection.
type seen struct {
	bytes int
	at    time.Time
}

type listener struct {
	m        *mux
	accepted chan *rtc.Session
	ctx      context.Context // ends with the listener
	cancel   context.CancelFunc
	wg       sync.WaitGroup // handshakes
}

// listen joins the mux of a port, or makes it.
func (t *Transport) listen(ctx context.Context, on netip.AddrPort) (*listener, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	on = addrport.Unmap(on)
	m := t.muxes[on]
	if m == nil {
		port, err := t.ports.Listen(ctx, on)
		if err != nil {
			return nil, err
		}
		defer port.Close() // the view holds it
		pc, err := port.Packets(udp.STUN | udp.DTLS)
		if err != nil {
			return nil, err
		}
		m = &mux{
			t: t, at: port.Addr(), pc: pc, room: &room.Room{Max: maxHandshakes},
			flows: make(map[netip.AddrPort]*flow), seen: make(map[netip.AddrPort]seen),
		}
		m.from.Each, m.from.All = maxHandshakesEach, 2*maxHandshakes
		t.muxes[m.at] = m
		go m.run() // ends when pc is closed
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.listener != nil {
		return nil, &net.OpError{Op: "listen", Net: "webrtc-direct", Addr: addr{m.at, nil}, Err: syscall.EADDRINUSE}
	}
	l := &listener{m: m, accepted: make(chan *rtc.Session)}
	l.ctx, l.cancel = context.WithCancel(context.Background())
	m.listener = l
	return l, nil
}

// Accept returns the next connection.
func (l *listener) Accept() (transport.Session, error) {
	select {
	case <-l.ctx.Done():
		return nil, net.ErrClosed
	default:
	}
	select {
	case s := <-l.accepted:
		return s, nil
	case <-l.ctx.Done():
		return nil, net.ErrClosed
	}
}

// Close ends handshakes under way, and frees the port once the connections have ended.
func (l *listener) Close() error {
	l.m.mu.Lock()
	if l.m.listener != l {
		l.m.mu.Unlock()
		return net.ErrClosed
	}
	l.m.listener = nil
	l.m.mu.Unlock()
	l.cancel()
	l.wg.Wait()
	l.m.leave()
	return nil
}

func (l *listener) Addr() net.Addr { return addr{l.m.at, l.m.t.hash} }

// leave ends the mux if nobody needs it any more.
func (m *mux) leave() {
	m.t.mu.Lock()
	defer m.t.mu.Unlock()
	m.mu.Lock()
	last := !m.closed && m.listener == nil && len(m.flows) == 0
	if last {
		m.closed = true
		delete(m.t.muxes, m.at)
	}
	m.mu.Unlock()
	if last {
		m.pc.Close()
	}
}

// run reads the port.
func (m *mux) run() {
	buf := make([]byte, rtc.MaxDatagram)
	for {
		n, from, err := m.pc.ReadFrom(buf)
		if err != nil {
			m.fail()
			return
		}
		at := addrport.Of(from)
		if udp.KindOf(buf[:n]) == udp.STUN {
			m.onSTUN(buf[:n], at, from)
		} else {
			m.onDTLS(buf[:n], at, from)
		}
	}
}

// fail ends all connections: there is nothing to read any more.
func (m *mux) fail() {
	m.mu.Lock()
	var all []*flow
	for _, f := range m.flows {
		all = append(all, f)
	}
	m.mu.Unlock()
	for _, f := range all {
		f.Close()
	}
}

// onSTUN answers a request. The rest is dropped: we ask nobody.
func (m *mux) onSTUN(b []byte, at netip.AddrPort, from net.Addr) {
	r, err := answerRequest(b, at)
	if err != nil {
		return
	}
	m.mu.Lock()
	f := m.flows[at]
	if f == nil {
		if m.listener == nil {
			m.mu.Unlock()
			return
		}
		m.note(at, len(b))
	}
	m.mu.Unlock()
	if f != nil {
		f.credit.Add(int64(amplification * len(b)))
	}
	m.pc.WriteTo(r, from)
}

// note remembers that an address has sent a request, and forgets another if that is
// too much.
func (m *mux) note(at netip.AddrPort, n int) {
	s, ok := m.seen[at]
	if !ok {
		delete(m.seen, m.order[m.oldest])
		m.order[m.oldest] = at
		m.oldest = (m.oldest + 1) % maxSeen
	}
	m.seen[at] = seen{s.bytes + n, time.Now()}
}

// known takes an address out of those that have sent a request.
func (m *mux) known(at netip.AddrPort) (bytes int, ok bool) {
	s, ok := m.seen[at]
	if !ok {
		return 0, false
	}
	delete(m.seen, at)
	return s.bytes, time.Since(s.at) < seenTime
}

// onDTLS passes a packet to its connection, or begins one.
func (m *mux) onDTLS(b []byte, at netip.AddrPort, from net.Addr) {
	m.mu.Lock()
	f := m.flows[at]
	if f != nil {
		m.mu.Unlock()
		f.Put(b)
		return
	}
	l := m.listener
	if l == nil || !rtc.IsClientHello(b) {
		m.mu.Unlock()
		return
	}
	bytes, ok := m.known(at)
	if !ok || !m.from.Take(at.Addr()) {
		m.mu.Unlock()
		return
	}
	f = &flow{m: m, at: at, to: from}
	f.Init()
	f.credit.Store(int64(amplification * bytes))
	m.flows[at] = f
	l.wg.Add(1)
	m.mu.Unlock()
	f.Put(b)
	m.room.Add(f)
	go func() { // ends with l, or after handshakeTime, or when somebody accepts
		defer l.wg.Done()
		defer m.from.Free(at.Addr())
		l.handshake(f)
	}()
}

// handshake makes a session and hands it to Accept.
func (l *listener) handshake(f *flow) {
	ctx, cancel := context.WithTimeout(l.ctx, handshakeTime)
	defer cancel()
	t := l.m.t
	sec, err := rtc.Secure(ctx, f, false, t.cert, nil)
	if err != nil {
		l.m.room.Remove(f)
		return
	}
	f.valid.Store(true)
	s := rtc.NewSession(sec, false, addr{l.m.at, t.hash}, addr{f.at, nil})
	if err := s.Authenticate(ctx, t.Key, ""); err != nil || !l.m.room.Remove(f) {
		s.Drop()
		return
	}
	select {
	case l.accepted <- s:
	case <-l.ctx.Done():
		s.Drop()
	}
}

// flow is the packets between us and one address, as a net.Conn.
type flow struct {
	rtc.Inbox
	m  *mux
	at netip.AddrPort
	to net.Addr

	valid  atomic.Bool  // the peer gets what we send
	credit atomic.Int64 // bytes that we may send before
}

func (f *flow) Put(b []byte) {
	if !f.valid.Load() {
		f.credit.Add(int64(amplification * len(b)))
	}
	f.Inbox.Put(b)
}

func (f *flow) Write(b []byte) (int, error) {
	if !f.valid.Load() && f.credit.Add(-int64(len(b))) < 0 {
		f.credit.Add(int64(len(b)))
		return len(b), nil // as if it was lost
	}
	return f.m.pc.WriteTo(b, f.to)
}

// WriteBatch implements rtc.Batcher.
func (f *flow) WriteBatch(b []byte, size int) error { return udp.WriteBatch(f.m.pc, b, size, f.to) }

func (f *flow) Close() error {
	if f.Shut() {
		f.m.mu.Lock()
		delete(f.m.flows, f.at)
		f.m.mu.Unlock()
		f.m.leave()
	}
	return nil
}

func (f *flow) LocalAddr() net.Addr  { return net.UDPAddrFromAddrPort(f.m.at) }
func (f *flow) RemoteAddr() net.Addr { return f.to }

// dialed is the packets of a client, on a socket of its own, as a net.Conn. DTLS begins
// at once, with STUN: a server that takes no DTLS before its answer gets the first
// flight again when that answer has come.
type dialed struct {
	net.PacketConn
	to      *net.UDPAddr
	at      netip.AddrPort
	creds   credentials
	stop    context.CancelFunc // of the requests
	pending func() bool        // tells whether a packet has come

	mu       sync.Mutex
	sent     time.Time // the first request
	answered bool
	id       [stun.TransactionIDSize]byte
	heard    bool     // DTLS has come
	first    [][]byte // what was written before
}

// dial opens a socket and sends requests until there is an answer, or ctx ends.
func (t *Transport) dial(ctx context.Context, to netip.AddrPort) (*dialed, error) {
	from := netip.IPv4Unspecified()
	if to.Addr().Is6() {
		from = netip.IPv6Unspecified()
	}
	pc, err := udp.Open(ctx, t.network, netip.AddrPortFrom(from, 0))
	if err != nil {
		return nil, err
	}
	d := &dialed{
		PacketConn: pc, to: net.UDPAddrFromAddrPort(to), at: to,
		creds: newCredentials(t.Version), pending: udp.Pending(pc),
	}
	m, err := d.creds.request()
	if err != nil {
		pc.Close()
		return nil, err
	}
	d.id, d.sent = m.TransactionID, time.Now()
	pc.WriteTo(m.Raw, d.to)
	ctx, d.stop = context.WithCancel(ctx)
	go func() { // ends with ctx, or the answer
		for wait := firstRepeat; ; wait *= 2 {
			timer := time.NewTimer(wait)
			select {
			case <-timer.C:
				pc.WriteTo(m.Raw, d.to)
			case <-ctx.Done():
				timer.Stop()
				return
			}
		}
	}()
	return d, nil
}

// Read returns the next packet of DTLS.
func (d *dialed) Read(p []byte) (int, error) {
	for {
		n, from, err := d.ReadFrom(p)
		if err != nil {
			if errors.Is(err, net.ErrClosed) || errors.Is(err, os.ErrDeadlineExceeded) {
				return 0, err
			}
			time.Sleep(time.Millisecond) // of an earlier packet; it means nothing for the next
			continue
		}
		switch at := addrport.Of(from); {
		case at != d.at:
		case udp.KindOf(p[:n]) == udp.DTLS:
			d.mu.Lock()
			if !d.heard {
				d.heard, d.first = true, nil
				d.stop()
			}
			d.mu.Unlock()
			return n, nil
		case udp.KindOf(p[:n]) == udp.STUN:
			d.onSTUN(p[:n])
		}
	}
}

// onSTUN takes the answer to our request, and answers those of a server that asks too.
func (d *dialed) onSTUN(b []byte) {
	m, err := parseSTUN(b)
	if err != nil {
		return
	}
	switch m.Type {
	case stun.BindingRequest:
		if r, err := answer(m, d.creds.clientPwd, d.at); err == nil {
			d.PacketConn.WriteTo(r, d.to)
		}
	case stun.BindingSuccess:
		if m.TransactionID != d.id || stun.NewShortTermIntegrity(d.creds.server).Check(m) != nil {
			return
		}
		d.mu.Lock()
		defer d.mu.Unlock()
		if d.answered || d.heard {
			return
		}
		d.answered = true
		d.stop()
		time.AfterFunc(time.Since(d.sent)/4+time.Millisecond, d.repeat)
	}
}

// repeat sends again what was sent before the server took DTLS, unless it has answered.
func (d *dialed) repeat() {
	d.mu.Lock()
	first := d.first
	if d.heard {
		first = nil
	}
	d.mu.Unlock()
	for _, b := range first {
		d.PacketConn.WriteTo(b, d.to)
	}
}

func (d *dialed) Write(b []byte) (int, error) {
	d.mu.Lock()
	if !d.heard && len(d.first) == 0 {
		d.first = append(d.first, append([]byte(nil), b...))
	}
	d.mu.Unlock()
	return d.PacketConn.WriteTo(b, d.to)
}

// Waiting implements rtc.Waiter.
func (d *dialed) Waiting() bool { return d.pending() }

// WriteBatch implements rtc.Batcher.
func (d *dialed) WriteBatch(b []byte, size int) error {
	return udp.WriteBatch(d.PacketConn, b, size, d.to)
}

func (d *dialed) Close() error {
	d.stop()
	return d.PacketConn.Close()
}

func (d *dialed) RemoteAddr() net.Addr { return d.to }
