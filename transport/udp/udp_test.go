package udp

import (
	"bytes"
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/plexus-p2p/plexus/simnet"
)

// inSim runs f in a bubble, with the ports of 10.0.0.1 and a socket on 10.0.0.2.
func inSim(t *testing.T, f func(t *testing.T, ps *Ports, peer net.PacketConn)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		n := simnet.New(simnet.Config{Path: simnet.Link{Latency: time.Millisecond}})
		t.Cleanup(n.Close)
		peer, err := n.Host("10.0.0.2").ListenUDP(t.Context(), netip.MustParseAddrPort("10.0.0.2:9"))
		if err != nil {
			t.Fatal(err)
		}
		f(t, &Ports{Network: n.Host("10.0.0.1")}, peer)
	})
}

var (
	anywhere = netip.MustParseAddrPort("0.0.0.0:0")
	remote   = netip.MustParseAddrPort("10.0.0.2:9")
)

func listen(t testing.TB, ps *Ports, on netip.AddrPort) *Port {
	t.Helper()
	p, err := ps.Listen(t.Context(), on)
	if err != nil {
		t.Fatalf("listen on %v: %v", on, err)
	}
	return p
}

func dial(t testing.TB, ps *Ports, to string) *Port {
	t.Helper()
	p, err := ps.Dial(t.Context(), netip.MustParseAddr(to))
	if err != nil {
		t.Fatalf("dial %v: %v", to, err)
	}
	return p
}

func packets(t testing.TB, p *Port, k Kind) net.PacketConn {
	t.Helper()
	v, err := p.Packets(k)
	if err != nil {
		t.Fatalf("packets of kind %d: %v", k, err)
	}
	return v
}

// to sends packets to a port.
func to(t testing.TB, from net.PacketConn, p *Port, packets ...string) {
	t.Helper()
	at := net.UDPAddrFromAddrPort(netip.AddrPortFrom(netip.MustParseAddr("10.0.0.1"), p.Addr().Port()))
	for _, b := range packets {
		if _, err := from.WriteTo([]byte(b), at); err != nil {
			t.Fatal(err)
		}
	}
}

// wantPackets reads packets, and then none.
func wantPackets(t testing.TB, c net.PacketConn, want ...string) {
	t.Helper()
	b := make([]byte, maxPacket)
	for _, w := range want {
		c.SetReadDeadline(time.Now().Add(time.Second))
		n, from, err := c.ReadFrom(b)
		if err != nil || string(b[:n]) != w || from.(*net.UDPAddr).AddrPort() != remote {
			t.Errorf("read %q from %v, %v; want %q from %v", b[:n], from, err, w, remote)
		}
	}
	c.SetReadDeadline(time.Now().Add(time.Second))
	if n, _, err := c.ReadFrom(b); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("read %q, %v; want nothing more", b[:n], err)
	}
	c.SetReadDeadline(time.Time{})
}

// gone tells that the port's address can be bound again.
func gone(t testing.TB, ps *Ports, at netip.AddrPort) bool {
	t.Helper()
	c, err := ps.Network.ListenUDP(t.Context(), at)
	if err != nil {
		return false
	}
	c.Close()
	return true
}

// "  127 < B < 192  -+--> RTP/RTCP     63 < B < 128, 191 < B < 256 --> QUIC
// 19 < B < 64   -+--> DTLS              B < 4                  --> STUN"
// https://www.rfc-editor.org/rfc/rfc9443#section-3
func TestKindOf(t *testing.T) {
	for b := range 256 {
		var want Kind
		switch {
		case b < 4:
			want = STUN
		case 19 < b && b < 64:
			want = DTLS
		case 63 < b && b < 128, 191 < b:
			want = QUIC
		}
		if got := KindOf([]byte{byte(b), 1}); got != want {
			t.Errorf("KindOf(%d…) = %d, want %d", b, got, want)
		}
	}
	if got := KindOf(nil); got != 0 {
		t.Errorf("KindOf(nothing) = %d", got)
	}
}

func TestShare(t *testing.T) {
	inSim(t, func(t *testing.T, ps *Ports, _ net.PacketConn) {
		p := listen(t, ps, anywhere)
		at := p.Addr()
		if at.Port() == 0 {
			t.Fatal("no port was chosen")
		}
		if q := listen(t, ps, at); q != p {
			t.Error("a second Listen opened another port")
		}
		if q := listen(t, ps, netip.AddrPortFrom(netip.AddrFrom16(at.Addr().As16()), at.Port())); q != p {
			t.Error("an IPv4 address in IPv6 form is another one")
		}
		if q := listen(t, ps, anywhere); q == p {
			t.Error("port 0 is not a new port")
		} else {
			q.Close()
		}
		if q := dial(t, ps, "10.0.0.2"); q != p {
			t.Error("Dial opened a port, though one is open")
		}
		p.Hold()
		for range 4 {
			if gone(t, ps, at) {
				t.Fatal("the port closed before its last user did")
			}
			if err := p.Close(); err != nil {
				t.Error(err)
			}
		}
		if gone(t, ps, at) {
			t.Error("the port closed before its last user did")
		}
		if err := p.Close(); err != nil {
			t.Error(err)
		}
		if !gone(t, ps, at) {
			t.Error("the port is not free after its last user has closed it")
		}
		if err := p.Close(); !errors.Is(err, net.ErrClosed) {
			t.Errorf("Close too often: %v", err)
		}
		if q := listen(t, ps, at); q == p {
			t.Error("a closed port came back")
		}
	})
}

// A dial leaves from a port that is listened on, even if another one is older.
func TestDialPrefersListening(t *testing.T) {
	inSim(t, func(t *testing.T, ps *Ports, _ net.PacketConn) {
		d := dial(t, ps, "10.0.0.2")
		if q := dial(t, ps, "10.0.0.3"); q != d {
			t.Error("each dial has a port of its own")
		}
		l := listen(t, ps, anywhere)
		if q := dial(t, ps, "10.0.0.2"); q != l {
			t.Error("dialed from a port that nobody listens on")
		}
		if q := dial(t, ps, "127.0.0.1"); q != l {
			t.Error("a port on all addresses does not reach loopback")
		}
	})
}

// Ports on loopback reach loopback alone, and the others all but that; IPv6 is
// another world.
func TestDialFits(t *testing.T) {
	ps := new(Ports)
	open := func(p *Port) *Port { t.Cleanup(func() { p.Close() }); return p }
	lo := open(listen(t, ps, netip.MustParseAddrPort("127.0.0.1:0")))
	if p := open(dial(t, ps, "127.0.0.1")); p != lo {
		t.Error("loopback is not dialed from loopback")
	}
	wide := open(dial(t, ps, "192.0.2.1"))
	if wide == lo {
		t.Error("the Internet is dialed from loopback")
	}
	if p, err := ps.Dial(t.Context(), netip.MustParseAddr("2001:db8::1")); err == nil {
		if open(p) == lo || p == wide {
			t.Error("an IPv6 address is dialed from an IPv4 port")
		}
	}
}

// One that is closing is waited for.
func TestListenWaitsForClose(t *testing.T) {
	inSim(t, func(t *testing.T, ps *Ports, _ net.PacketConn) {
		p := listen(t, ps, anywhere)
		e := &engine{closing: make(chan struct{}), closed: make(chan struct{})}
		if _, err := p.Engine(e.start); err != nil {
			t.Fatal(err)
		}
		go p.Close()
		<-e.closing
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := ps.Listen(ctx, p.Addr()); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("listen while the port closes, until ctx ends: %v", err)
		}
		var q *Port
		var wg sync.WaitGroup
		wg.Go(func() { q = listen(t, ps, p.Addr()) })
		synctest.Wait()
		close(e.closed)
		wg.Wait()
		if q == nil || q == p || q.Addr() != p.Addr() {
			t.Errorf("got %v, want a new port at %v", q, p.Addr())
		}
	})
}

func TestListenFails(t *testing.T) {
	inSim(t, func(t *testing.T, ps *Ports, _ net.PacketConn) {
		c, err := ps.Network.ListenUDP(t.Context(), netip.MustParseAddrPort("0.0.0.0:7"))
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if _, err := ps.Listen(t.Context(), netip.MustParseAddrPort("0.0.0.0:7")); err == nil {
			t.Error("listened on a port of somebody else")
		}
		if len(ps.open) != 0 {
			t.Errorf("%d ports are open", len(ps.open))
		}
	})
}

// Without an engine, the views get all that is theirs.
func TestPackets(t *testing.T) {
	inSim(t, func(t *testing.T, ps *Ports, peer net.PacketConn) {
		p := listen(t, ps, anywhere)
		stun, rest := packets(t, p, STUN), packets(t, p, DTLS|QUIC)
		for _, k := range []Kind{STUN, DTLS, QUIC, STUN | DTLS, DTLS | QUIC} {
			if _, err := p.Packets(k); !errors.Is(err, ErrTaken) {
				t.Errorf("packets of kind %d for a second user: %v", k, err)
			}
		}
		to(t, peer, p, "\x00stun", "\x80rtp", "\x16dtls", "\x40quic", "\x03", "\x10zrtp", "\xffquic", "")
		wantPackets(t, stun, "\x00stun", "\x03")
		wantPackets(t, rest, "\x16dtls", "\x40quic", "\xffquic")

		// Both write from the port.
		if _, err := stun.WriteTo([]byte("a"), net.UDPAddrFromAddrPort(remote)); err != nil {
			t.Error(err)
		}
		if err := p.WriteTo([]byte("b"), netip.AddrPortFrom(netip.AddrFrom16(remote.Addr().As16()), remote.Port())); err != nil {
			t.Error(err)
		}
		b := make([]byte, 9)
		for _, want := range "ab" {
			n, from, err := peer.ReadFrom(b)
			if err != nil || string(b[:n]) != string(want) || from.(*net.UDPAddr).Port != int(p.Addr().Port()) {
				t.Errorf("got %q from %v, %v", b[:n], from, err)
			}
		}
		if got := stun.LocalAddr().(*net.UDPAddr).AddrPort(); got != p.Addr() {
			t.Errorf("LocalAddr is %v, want %v", got, p.Addr())
		}

		// What a closed view had is free for another one.
		for range 2 {
			err := rest.Close()
			if err != nil && !errors.Is(err, net.ErrClosed) {
				t.Error(err)
			}
		}
		if _, _, err := rest.ReadFrom(b); !errors.Is(err, net.ErrClosed) {
			t.Errorf("ReadFrom after Close: %v", err)
		}
		if _, err := rest.WriteTo(b, net.UDPAddrFromAddrPort(remote)); !errors.Is(err, net.ErrClosed) {
			t.Errorf("WriteTo after Close: %v", err)
		}
		dtls := packets(t, p, DTLS)
		to(t, peer, p, "\x16dtls", "\x40quic")
		wantPackets(t, dtls, "\x16dtls")

		p.Close()
		stun.Close()
		if gone(t, ps, p.Addr()) {
			t.Error("the port closed while a view is open")
		}
		dtls.Close()
		if !gone(t, ps, p.Addr()) {
			t.Error("the port is open after its last view has closed")
		}
	})
}

func TestPacketsCut(t *testing.T) {
	inSim(t, func(t *testing.T, ps *Ports, peer net.PacketConn) {
		p := listen(t, ps, anywhere)
		defer p.Close()
		v := packets(t, p, STUN)
		defer v.Close()
		to(t, peer, p, "\x00long")
		b := make([]byte, 2)
		if n, _, err := v.ReadFrom(b); n != 2 || err != nil {
			t.Errorf("read %d, %v", n, err)
		}
		wantPackets(t, v)
	})
}

// Whoever does not read has a bounded number of packets waiting.
func TestPacketsBound(t *testing.T) {
	inSim(t, func(t *testing.T, ps *Ports, peer net.PacketConn) {
		p := listen(t, ps, anywhere)
		defer p.Close()
		idle, busy := packets(t, p, STUN), packets(t, p, DTLS)
		defer idle.Close()
		defer busy.Close()
		for range 2 * maxQueue {
			to(t, peer, p, "\x00", "\x16")
			if _, _, err := busy.ReadFrom(make([]byte, 1)); err != nil {
				t.Fatal(err)
			}
		}
		want := make([]string, maxQueue)
		for i := range want {
			want[i] = "\x00"
		}
		wantPackets(t, idle, want...)
	})
}

func TestDeadlines(t *testing.T) {
	inSim(t, func(t *testing.T, ps *Ports, peer net.PacketConn) {
		p := listen(t, ps, anywhere)
		defer p.Close()
		v := packets(t, p, STUN)
		b := make([]byte, 9)
		read := func() error { _, _, err := v.ReadFrom(b); return err }
		errs := make(chan error)
		go func() { errs <- read() }()
		synctest.Wait()
		v.SetDeadline(time.Now().Add(time.Second)) // moves that of a blocked call
		begin := time.Now()
		if err := <-errs; !errors.Is(err, os.ErrDeadlineExceeded) || time.Since(begin) != time.Second {
			t.Errorf("after %v: %v", time.Since(begin), err)
		}
		to(t, peer, p, "\x00kept")
		synctest.Wait()
		if err := read(); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("after the deadline: %v", err)
		}
		v.SetReadDeadline(time.Time{})
		v.SetWriteDeadline(time.Now()) // of no consequence
		wantPackets(t, v, "\x00kept")
		go func() { errs <- read() }()
		synctest.Wait()
		v.Close()
		if err := <-errs; !errors.Is(err, net.ErrClosed) {
			t.Errorf("when closed: %v", err)
		}
	})
}

// engine is one that takes packets that begin with 'Q'.
type engine struct {
	sock            net.PacketConn
	closing, closed chan struct{}
}

func (e *engine) start(c net.PacketConn) (Engine, error) {
	e.sock = c
	return e, nil
}

func (e *engine) ReadOther(b []byte) (int, net.Addr, error) {
	for {
		n, from, err := e.sock.ReadFrom(b)
		if err != nil || !bytes.HasPrefix(b[:n], []byte("Q")) {
			return n, from, err
		}
	}
}

func (e *engine) Close() error {
	if e.closing != nil {
		close(e.closing)
		<-e.closed
	}
	return nil
}

// An engine takes the socket over from the pump, and views live on.
func TestEngine(t *testing.T) {
	inSim(t, func(t *testing.T, ps *Ports, peer net.PacketConn) {
		p := listen(t, ps, anywhere)
		v := packets(t, p, STUN|QUIC)
		to(t, peer, p, "\x00before", "Q before")
		wantPackets(t, v, "\x00before", "Q before")

		broken := errors.New("broken")
		if _, err := p.Engine(func(net.PacketConn) (Engine, error) { return nil, broken }); err != broken {
			t.Errorf("an engine that does not start: %v", err)
		}
		to(t, peer, p, "\x00between")
		wantPackets(t, v, "\x00between")

		e := new(engine)
		for range 2 {
			if got, err := p.Engine(e.start); got != Engine(e) || err != nil {
				t.Fatalf("engine %v, %v", got, err)
			}
		}
		if got, err := p.Engine(new(engine).start); got != Engine(e) || err != nil {
			t.Errorf("a second engine: %v, %v", got, err)
		}
		to(t, peer, p, "\x00after", "Q after")
		wantPackets(t, v, "\x00after")
		p.Close()
		v.Close()
		if !gone(t, ps, p.Addr()) {
			t.Error("the port is not free")
		}
	})
}

// A view that comes when the engine runs already gets what that gives away.
func TestEngineFirst(t *testing.T) {
	inSim(t, func(t *testing.T, ps *Ports, peer net.PacketConn) {
		p := listen(t, ps, anywhere)
		if _, err := p.Engine(new(engine).start); err != nil {
			t.Fatal(err)
		}
		v := packets(t, p, STUN)
		to(t, peer, p, "Q", "\x00")
		wantPackets(t, v, "\x00")
		v.Close()
		p.Close()
	})
}

func TestHoldAfterClose(t *testing.T) {
	inSim(t, func(t *testing.T, ps *Ports, _ net.PacketConn) {
		p := listen(t, ps, anywhere)
		p.Close()
		defer func() {
			if recover() == nil {
				t.Error("Hold of a closed port does not panic")
			}
		}()
		p.Hold()
	})
}

// Whatever comes first, a packet is of one kind at most, which its first byte tells.
func FuzzKindOf(f *testing.F) {
	f.Add([]byte{})
	f.Add([]byte("\x00\x01\x00\x00\x21\x12\xa4\x42"))
	f.Add([]byte("\x16\xfe\xfd"))
	f.Add([]byte("\xc0\x00\x00\x00\x01"))
	f.Fuzz(func(t *testing.T, b []byte) {
		k := KindOf(b)
		if k&(k-1) != 0 || k > QUIC {
			t.Errorf("KindOf(%q) = %b", b, k)
		}
		if len(b) > 0 && KindOf(b[:1]) != k {
			t.Errorf("KindOf(%q) depends on more than the first byte", b)
		}
	})
}

// Packets of one size leave by one call, however the socket is made, and come one by one.
func TestWriteBatch(t *testing.T) {
	var batch []byte
	for i := range 70 { // more than the kernel takes at once
		batch = append(batch, bytes.Repeat([]byte{byte(i)}, 1000)...)
	}
	check := func(t *testing.T, from, to net.PacketConn) {
		for _, n := range []int{1, 999, 1000, 1001, 16_000, 16_500, len(batch)} {
			if err := WriteBatch(from, batch[:n], 1000, to.LocalAddr()); err != nil {
				t.Fatal(err)
			}
			b := make([]byte, maxPacket)
			for rest := batch[:n]; len(rest) > 0; {
				want := rest[:min(1000, len(rest))]
				to.SetReadDeadline(time.Now().Add(10 * time.Second))
				if k, _, err := to.ReadFrom(b); err != nil || !bytes.Equal(b[:k], want) {
					t.Fatalf("of %d bytes: read %d of %d with %d, %v; want %d of %d", n, k, b[0], rest[0], err, len(want), want[0])
				}
				rest = rest[len(want):]
			}
		}
	}
	system := func(t *testing.T) net.PacketConn {
		c, err := net.ListenPacket("udp4", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		return c
	}
	t.Run("socket", func(t *testing.T) { check(t, system(t), system(t)) })
	t.Run("view", func(t *testing.T) {
		p, err := new(Ports).Listen(t.Context(), netip.MustParseAddrPort("127.0.0.1:0"))
		if err != nil {
			t.Fatal(err)
		}
		v := packets(t, p, DTLS)
		check(t, v, system(t))
		v.Close()
		p.Close()
		if err := WriteBatch(v, batch, 1000, p.sock.LocalAddr()); !errors.Is(err, net.ErrClosed) {
			t.Errorf("on a closed view: %v", err)
		}
	})
	t.Run("simulated", func(t *testing.T) {
		inSim(t, func(t *testing.T, ps *Ports, peer net.PacketConn) {
			c, err := ps.Network.ListenUDP(t.Context(), netip.MustParseAddrPort("10.0.0.1:7"))
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			check(t, c, peer)
		})
	})
}
