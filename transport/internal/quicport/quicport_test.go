package quicport

import (
	"context"
	stdtls "crypto/tls"
	"errors"
	"io"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/plexus-p2p/plexus/peer"
	"github.com/plexus-p2p/plexus/security/tls"
	"github.com/plexus-p2p/plexus/simnet"
	"github.com/plexus-p2p/plexus/transport/transporttest"
	"github.com/plexus-p2p/plexus/transport/udp"
)

// party is a host on a simulated network.
type party struct {
	t     testing.TB
	key   peer.PrivKey
	id    *tls.Identity
	ports *udp.Ports
	sim   *simnet.Host
}

func newParty(t testing.TB, n *simnet.Network, ip string) *party {
	t.Helper()
	key := transporttest.Key(t)
	id, err := tls.NewIdentity(key)
	if err != nil {
		t.Fatal(err)
	}
	sim := n.Host(ip)
	return &party{t, key, id, &udp.Ports{Network: sim}, sim}
}

// inSim runs f in a bubble with a client, 10.0.0.1, and a server, 10.0.0.2.
func inSim(t *testing.T, f func(t *testing.T, client, server *party)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		n := simnet.New(simnet.Config{Path: simnet.Link{Latency: time.Millisecond}})
		t.Cleanup(n.Close)
		f(t, newParty(t, n, "10.0.0.1"), newParty(t, n, "10.0.0.2"))
	})
}

var serverAt = netip.MustParseAddrPort("10.0.0.2:4001")

// port opens the server's port. Its user is the caller.
func (p *party) port() (*udp.Port, *Port) {
	p.t.Helper()
	u, err := p.ports.Listen(p.t.Context(), serverAt)
	if err != nil {
		p.t.Fatal(err)
	}
	q, err := On(u, p.key)
	if err != nil {
		p.t.Fatal(err)
	}
	return u, q
}

func (p *party) listen(q *Port, alpn string) *Listener {
	p.t.Helper()
	l, err := q.Listen(p.t.Context(), alpn, p.id.Config(""))
	if err != nil {
		p.t.Fatalf("listen for %s: %v", alpn, err)
	}
	return l
}

func (p *party) dial(ctx context.Context, alpns ...string) (*quic.Conn, error) {
	u, err := p.ports.Dial(ctx, serverAt.Addr())
	if err != nil {
		return nil, err
	}
	defer u.Close()
	q, err := On(u, p.key)
	if err != nil {
		return nil, err
	}
	conf := p.id.Config("")
	conf.NextProtos = alpns
	return q.dial(ctx, serverAt, conf)
}

func (p *party) mustDial(alpns ...string) *quic.Conn {
	p.t.Helper()
	c, err := p.dial(p.t.Context(), alpns...)
	if err != nil {
		p.t.Fatalf("dial for %v: %v", alpns, err)
	}
	return c
}

// accepted accepts a connection in the background.
func accepted(l *Listener) chan *quic.Conn {
	c := make(chan *quic.Conn, 1)
	go func() {
		got, err := l.Accept()
		if err != nil {
			close(c)
			return
		}
		c <- got
	}()
	return c
}

// accepting accepts connections until l closes.
func accepting(l *Listener) chan *quic.Conn {
	conns := make(chan *quic.Conn, 100)
	go func() {
		defer close(conns)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			conns <- c
		}
	}()
	return conns
}

func proto(c *quic.Conn) string {
	if c == nil {
		return "nothing"
	}
	return c.ConnectionState().TLS.NegotiatedProtocol
}

// free tells that nobody has the server's port.
func (p *party) free() bool {
	c, err := p.sim.ListenUDP(p.t.Context(), serverAt)
	if err != nil {
		return false
	}
	c.Close()
	return true
}

// Connections find the listener of their protocol, whoever takes them from the port.
func TestSeveralProtocols(t *testing.T) {
	inSim(t, func(t *testing.T, client, server *party) {
		u, q := server.port()
		a, b := server.listen(q, "a"), server.listen(q, "b")
		u.Close()
		defer a.Close()
		defer b.Close()
		var conns []*quic.Conn
		dial := func(protos ...string) {
			t.Helper()
			conns = append(conns, client.mustDial(protos...))
		}
		got := func(want string, c chan *quic.Conn) {
			t.Helper()
			conn := <-c
			if proto(conn) != want {
				t.Errorf("accepted %s, want %s", proto(conn), want)
			}
			conns = append(conns, conn)
		}

		ca, cb := accepted(a), accepted(b)
		dial("a")
		dial("b")
		got("a", ca)
		got("b", cb)

		// The first of the client's that is there.
		cb = accepted(b)
		dial("none", "b", "a")
		got("b", cb)

		// One leader passes the others' on, and hands over when it has its own.
		cb = accepted(b)
		synctest.Wait()
		ca = accepted(a)
		synctest.Wait()
		dial("a")
		dial("a")
		got("a", ca)
		dial("b")
		got("b", cb)
		got("a", accepted(a)) // what waited for it meanwhile

		// Nobody accepts: all wait.
		dial("a")
		dial("b")
		synctest.Wait()
		got("b", accepted(b))
		got("a", accepted(a))
		for _, c := range conns {
			if c.Context().Err() != nil {
				t.Errorf("a connection for %s has ended: %v", proto(c), context.Cause(c.Context()))
			}
			c.CloseWithError(0, "")
		}
	})
}

// "If an application protocol cannot be negotiated, the connection […] MUST be closed
// with a no_application_protocol TLS alert".
// https://www.rfc-editor.org/rfc/rfc9001#section-8.1
func TestUnknownProtocol(t *testing.T) {
	const noApplicationProtocol = 0x100 + 120
	inSim(t, func(t *testing.T, client, server *party) {
		u, q := server.port()
		defer u.Close()
		dial := func() {
			t.Helper()
			c, err := client.dial(t.Context(), "b")
			te, ok := errors.AsType[*quic.TransportError](err)
			if !ok || !te.Remote || te.ErrorCode != noApplicationProtocol {
				t.Errorf("dial for b: %v, %v; want no_application_protocol", proto(c), err)
			}
		}
		a := server.listen(q, "a")
		defer a.Close()
		dial()
		server.listen(q, "b").Close()
		dial() // it was there a moment ago
		ca := accepted(a)
		defer client.mustDial("a").CloseWithError(0, "")
		if c := <-ca; c == nil {
			t.Error("others are not served any more")
		}
	})
}

func TestListenTwice(t *testing.T) {
	inSim(t, func(t *testing.T, client, server *party) {
		u, q := server.port()
		l := server.listen(q, "a")
		if _, err := q.Listen(t.Context(), "a", server.id.Config("")); !errors.Is(err, syscall.EADDRINUSE) {
			t.Errorf("a second listener: %v, want EADDRINUSE", err)
		}
		if again, err := On(u, server.key); again != q || err != nil {
			t.Errorf("On is another one on the same port, %v", err)
		}
		for range 3 {
			if err := l.Close(); err != nil {
				t.Error(err)
			}
		}
		if l.Addr() != serverAt {
			t.Errorf("Addr is %v", l.Addr())
		}
		server.listen(q, "a").Close()
		u.Close()
		if !server.free() {
			t.Error("the port is not free")
		}
	})
}

// Somebody else may have the port, as long as it is no QUIC.
func TestTaken(t *testing.T) {
	inSim(t, func(t *testing.T, _, server *party) {
		u, err := server.ports.Listen(t.Context(), serverAt)
		if err != nil {
			t.Fatal(err)
		}
		defer u.Close()
		if _, err := u.Engine(func(net.PacketConn) (udp.Engine, error) { return other{}, nil }); err != nil {
			t.Fatal(err)
		}
		if _, err := On(u, server.key); !errors.Is(err, udp.ErrTaken) {
			t.Errorf("QUIC on a port that something else reads: %v", err)
		}
	})
}

type other struct{}

func (other) ReadOther([]byte) (int, net.Addr, error) { return 0, nil, net.ErrClosed }
func (other) Close() error                            { return nil }

// Packets that are not QUIC are for others.
func TestReadOther(t *testing.T) {
	inSim(t, func(t *testing.T, client, server *party) {
		u, q := server.port()
		l := server.listen(q, "a")
		v, err := u.Packets(udp.STUN | udp.DTLS)
		if err != nil {
			t.Fatal(err)
		}
		defer client.mustDial("a").CloseWithError(0, "")
		from, err := client.ports.Dial(t.Context(), serverAt.Addr())
		if err != nil {
			t.Fatal(err)
		}
		defer from.Close()
		for _, want := range []string{"\x00stun", "\x16dtls"} {
			if err := from.WriteTo([]byte(want), serverAt); err != nil {
				t.Fatal(err)
			}
			b := make([]byte, 99)
			n, at, err := v.ReadFrom(b)
			if err != nil || string(b[:n]) != want || at.(*net.UDPAddr).Port != int(from.Addr().Port()) {
				t.Errorf("read %q from %v, %v; want %q", b[:n], at, err, want)
			}
		}
		u.Close()
		l.Close()
		v.Close()
	})
}

// The port closes with the last of its users, be it a connection or a listener.
func TestPortCloses(t *testing.T) {
	inSim(t, func(t *testing.T, client, server *party) {
		u, q := server.port()
		a, b := server.listen(q, "a"), server.listen(q, "b")
		u.Close()
		ca := accepted(a)
		c := client.mustDial("a")
		s := <-ca
		a.Close()
		waiting := client.mustDial("b") // nobody accepts it
		b.Close()
		<-waiting.Context().Done()
		if server.free() {
			t.Error("the port is free, though a connection uses it")
		}
		st, err := c.OpenStream()
		if err != nil {
			t.Fatal(err)
		}
		st.Write([]byte("x"))
		if _, err := s.AcceptStream(t.Context()); err != nil {
			t.Errorf("the connection has not outlived the listener: %v", err)
		}
		c.CloseWithError(0, "")
		<-s.Context().Done()
		synctest.Wait()
		if !server.free() {
			t.Error("the port is not free after its last connection")
		}
	})
}

func TestAcceptEnds(t *testing.T) {
	inSim(t, func(t *testing.T, client, server *party) {
		u, q := server.port()
		a, b := server.listen(q, "a"), server.listen(q, "b")
		u.Close()
		var wg sync.WaitGroup
		for _, l := range []*Listener{a, a, b} {
			wg.Go(func() {
				_, err := l.Accept()
				if !errors.Is(err, net.ErrClosed) {
					t.Errorf("Accept for %s: %v, want net.ErrClosed", l.alpn, err)
				}
			})
		}
		synctest.Wait()
		a.Close()
		if _, err := a.Accept(); !errors.Is(err, net.ErrClosed) {
			t.Errorf("Accept after Close: %v", err)
		}
		c := client.mustDial("b") // b goes on
		synctest.Wait()
		b.Close()
		wg.Wait()
		c.CloseWithError(0, "")
	})
}

// Connections of one protocol that nobody accepts do not stop another one, and are
// bounded.
func TestBacklog(t *testing.T) {
	inSim(t, func(t *testing.T, client, server *party) {
		u, q := server.port()
		a, b := server.listen(q, "a"), server.listen(q, "b")
		u.Close()
		defer a.Close()
		go func() {
			for {
				c, err := a.Accept()
				if err != nil {
					return
				}
				defer c.CloseWithError(0, "")
			}
		}()
		var conns []*quic.Conn
		for range backlog + 2 {
			conns = append(conns, client.mustDial("b"))
		}
		conns = append(conns, client.mustDial("a"))
		time.Sleep(time.Second)
		alive := 0
		for _, c := range conns {
			if c.Context().Err() == nil {
				alive++
			}
		}
		if alive != backlog+1 {
			t.Errorf("%d connections live, want %d that wait and one that is accepted", alive, backlog)
		}
		b.Close()
		for _, c := range conns[:backlog] {
			<-c.Context().Done()
		}
		if c := conns[len(conns)-1]; c.Context().Err() != nil {
			t.Error("the accepted one has ended")
		} else {
			c.CloseWithError(0, "")
		}
	})
}

// stalled is a socket that hears nothing of a handshake but that it is to prove its
// address.
type stalled struct {
	*simnet.PacketConn
	retries *atomic.Int32
}

func (c stalled) ReadFrom(b []byte) (int, net.Addr, error) {
	for {
		n, from, err := c.PacketConn.ReadFrom(b)
		if err != nil {
			return n, from, err
		}
		if n > 0 && b[0]&0xf0 == 0xf0 { // a Retry packet
			c.retries.Add(1)
			return n, from, nil
		}
	}
}

// Peers that begin handshakes and do not end them fill what is for handshakes, and no
// more. Soon they have to prove their address. When they are gone, all is as before.
//
// "A server might […] be configured to only send Retry packets in response to load".
// https://www.rfc-editor.org/rfc/rfc9000#section-8.1.2
func TestHandshakesBound(t *testing.T) {
	inSim(t, func(t *testing.T, client, server *party) {
		u, q := server.port()
		l := server.listen(q, "a")
		u.Close()
		defer l.Close()
		conns := accepting(l)
		sock, err := client.sim.ListenUDP(t.Context(), netip.MustParseAddrPort("10.0.0.1:9"))
		if err != nil {
			t.Fatal(err)
		}
		defer sock.Close()
		var retried atomic.Int32
		tr := &quic.Transport{Conn: stalled{sock.(*simnet.PacketConn), &retried}}
		defer tr.Close()
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		begin := func(n int) {
			for range n {
				wg.Go(func() {
					conf := client.id.Config("")
					conf.NextProtos = []string{"a"}
					if _, err := tr.Dial(ctx, net.UDPAddrFromAddrPort(serverAt), conf, config()); err == nil {
						t.Error("a handshake was completed")
					}
				})
			}
			time.Sleep(100 * time.Millisecond)
		}
		begin(retries)
		if n := q.handshakes.Load(); n != retries || retried.Load() != 0 {
			t.Errorf("%d handshakes, asked %d times for a proof; want %d, never", n, retried.Load(), retries)
		}
		begin(1)
		if n := q.handshakes.Load(); n != retries+1 || retried.Load() == 0 {
			t.Errorf("%d handshakes, asked %d times for a proof; want %d, and at least once", n, retried.Load(), retries+1)
		}

		// A good peer gets through.
		c := client.mustDial("a")
		if <-conns == nil {
			t.Error("a handshake under load was not accepted")
		}
		c.CloseWithError(0, "")

		for q.handshakes.Load() < maxHandshakes {
			begin(min(100, maxHandshakes-int(q.handshakes.Load())))
		}
		begin(20)
		if n := q.handshakes.Load(); n != maxHandshakes {
			t.Errorf("%d handshakes, want %d at most", n, maxHandshakes)
		}
		_, err = client.dial(t.Context(), "a")
		if !errors.Is(reason(err), syscall.ECONNREFUSED) {
			t.Errorf("dial to a busy port: %v, want ECONNREFUSED", err)
		}

		cancel()
		wg.Wait()
		time.Sleep(2 * handshakeIdle)
		if n := q.handshakes.Load(); n != 0 {
			t.Errorf("%d handshakes are left over", n)
		}
		began := time.Now()
		c = client.mustDial("a")
		if took := time.Since(began); took > 3*time.Millisecond {
			t.Errorf("a handshake took %v, with a round trip of 2 ms", took)
		}
		<-conns
		c.CloseWithError(0, "")
	})
}

// One who was there before does not have to prove its address under load.
func TestToken(t *testing.T) {
	const rtt = 2 * time.Millisecond
	inSim(t, func(t *testing.T, client, server *party) {
		u, q := server.port()
		l := server.listen(q, "a")
		u.Close()
		defer l.Close()
		cu, err := client.ports.Dial(t.Context(), serverAt.Addr())
		if err != nil {
			t.Fatal(err)
		}
		defer cu.Close() // until then, all dials are from it
		dial := func(what string, trips int) {
			t.Helper()
			cl := accepted(l)
			began := time.Now()
			c := client.mustDial("a")
			if took := time.Since(began); took != time.Duration(trips)*rtt {
				t.Errorf("%s: the handshake took %v, want %d round trips of %v", what, took, trips, rtt)
			}
			<-cl
			time.Sleep(time.Second) // the token is on its way
			c.CloseWithError(0, "")
			time.Sleep(time.Second)
		}
		q.handshakes.Add(retries) // of others
		dial("under load", 2)
		dial("again", 1)
		q.handshakes.Add(-retries)
		dial("without load", 1)
	})
}

func TestReason(t *testing.T) {
	refused := &quic.TransportError{Remote: true, ErrorCode: quic.ConnectionRefused}
	for _, c := range []struct {
		name string
		err  error
		want error // found in the reason
		not  error
	}{
		{"idle", &quic.IdleTimeoutError{}, context.DeadlineExceeded, nil},
		{"handshake", &quic.HandshakeTimeoutError{}, context.DeadlineExceeded, nil},
		{"refused", refused, syscall.ECONNREFUSED, nil},
		{"version", &quic.VersionNegotiationError{}, nil, net.ErrClosed},
		{"cancelled", context.Canceled, context.Canceled, nil},
		{"other", io.ErrShortWrite, io.ErrShortWrite, nil},
		{"alert", &quic.TransportError{Remote: true, ErrorCode: 0x100 + 42, ErrorMessage: "bad certificate"}, nil, net.ErrClosed},
	} {
		got := reason(c.err)
		if got == nil || c.want != nil && !errors.Is(got, c.want) || c.not != nil && errors.Is(got, c.not) {
			t.Errorf("%s: reason(%v) = %v", c.name, c.err, got)
		}
	}
	var alert stdtls.AlertError = 42
	if got := reason(alert); !errors.Is(got, alert) {
		t.Errorf("reason(%v) = %v", alert, got)
	}
}
