package tcp

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	ma "github.com/multiformats/go-multiaddr"

	"github.com/plexus-p2p/plexus/simnet"
	"github.com/plexus-p2p/plexus/transport"
	"github.com/plexus-p2p/plexus/transport/transporttest"
)

func TestPipes(t *testing.T) {
	t.Run("System", func(t *testing.T) {
		transporttest.TestPipes(t, transporttest.Pipes{
			New: func(t testing.TB) (client, server transport.Pipes) {
				return new(Transport), new(Transport)
			},
			Listen:  ma.StringCast("/ip4/127.0.0.1/tcp/0"),
			Refused: ma.StringCast("/ip4/127.0.0.1/tcp/1"),
			Foreign: foreign,
		})
	})
	for name, cfg := range map[string]simnet.Config{
		"simnet":      {Path: simnet.Link{Latency: time.Millisecond}},
		"slow simnet": {Path: simnet.Link{Latency: 200 * time.Microsecond, Reorder: 0.01}, Access: simnet.Link{Bandwidth: 1e9}},
	} {
		t.Run(name, func(t *testing.T) {
			transporttest.TestPipes(t, transporttest.Pipes{
				New: func(t testing.TB) (client, server transport.Pipes) {
					n := simnet.New(cfg)
					t.Cleanup(n.Close)
					return &Transport{Network: n.Host("10.0.0.1")}, &Transport{Network: n.Host("10.0.0.2")}
				},
				Listen:  ma.StringCast("/ip4/10.0.0.2/tcp/0"),
				Refused: ma.StringCast("/ip4/10.0.0.2/tcp/1"),
				Silent:  ma.StringCast("/ip4/10.0.0.3/tcp/1"),
				Foreign: foreign,
				Bubble:  true,
			})
		})
	}
}

var foreign = []ma.Multiaddr{
	ma.StringCast("/ip4/127.0.0.1/tcp/1/ws"),
	ma.StringCast("/ip4/127.0.0.1/udp/1"),
	ma.StringCast("/dns/localhost/tcp/1"),
}

func listen(t *testing.T, tr *Transport, on string) (net.Listener, ma.Multiaddr) {
	t.Helper()
	l, err := tr.Listen(t.Context(), ma.StringCast(on))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	a, err := transport.Multiaddr(l.Addr())
	if err != nil {
		t.Fatal(err)
	}
	return l, a
}

func dial(t *testing.T, tr *Transport, to ma.Multiaddr) net.Conn {
	t.Helper()
	c, err := tr.Dial(t.Context(), to)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func port(a net.Addr) int { return a.(*net.TCPAddr).Port }

func TestMatch(t *testing.T) {
	for a, want := range map[string]bool{
		"/ip4/127.0.0.1/tcp/4001":                true,
		"/ip6/::1/tcp/0":                         true,
		"/ip6zone/eth0/ip6/fe80::1/tcp/1":        true,
		"/ip4/127.0.0.1":                         false,
		"/ip4/127.0.0.1/udp/1":                   false,
		"/ip4/127.0.0.1/tcp/4001/ws":             false,
		"/dns4/example.com/tcp/4001":             false,
		"/memory/1":                              false,
		"/tcp/1":                                 false,
		"/ip6zone/eth0/ip4/127.0.0.1/tcp/1":      false,
		"/ip4/1.2.3.4/tcp/1/ip4/1.2.3.4/tcp/1":   false,
		"/ip4/127.0.0.1/ipcidr/8/tcp/1":          false,
		"/ip6zone/eth0/ip6/::ffff:1.2.3.4/tcp/1": false,
	} {
		if got := new(Transport).Match(ma.StringCast(a)); got != want {
			t.Errorf("Match(%s) = %v, want %v", a, got, want)
		}
	}
}

func TestDialFromListeningPort(t *testing.T) {
	for _, on := range []string{"/ip4/127.0.0.1/tcp/0", "/ip4/0.0.0.0/tcp/0", "/ip6/::1/tcp/0", "/ip6/::/tcp/0"} {
		t.Run(on, func(t *testing.T) {
			to := "/ip4/127.0.0.1/tcp/0"
			if on[3] == '6' {
				to = "/ip6/::1/tcp/0"
				l, err := transport.System{}.ListenTCP(t.Context(), netip.MustParseAddrPort("[::1]:0"))
				if err != nil {
					t.Skip("no IPv6:", err)
				}
				l.Close()
			}
			var a, b Transport
			la, _ := listen(t, &a, on)
			lb, to2 := listen(t, &b, to)
			c := dial(t, &a, to2)
			if port(c.LocalAddr()) != port(la.Addr()) {
				t.Errorf("dialed from %v while listening on %v", c.LocalAddr(), la.Addr())
			}
			if _, ok := c.(*net.TCPConn); !ok {
				t.Errorf("dialed a %T", c)
			}
			in, err := lb.Accept()
			if err != nil {
				t.Fatal(err)
			}
			defer in.Close()
			if _, ok := in.(*net.TCPConn); !ok {
				t.Errorf("accepted a %T", in)
			}
			// The port is taken towards this remote: another one must do.
			c2 := dial(t, &a, to2)
			if port(c2.LocalAddr()) == port(c.LocalAddr()) {
				t.Errorf("two connections from %v to %v", c2.LocalAddr(), c2.RemoteAddr())
			}
			a.PrivatePort = true
			c3 := dial(t, &a, to2)
			if port(c3.LocalAddr()) == port(la.Addr()) {
				t.Errorf("dialed from the listener's port %v", c3.LocalAddr())
			}
		})
	}
}

// While the listener's port is shared with our dials, it is not with listeners.
func TestSecondListenerFails(t *testing.T) {
	var a, b Transport
	_, at := listen(t, &a, "/ip4/127.0.0.1/tcp/0")
	for _, tr := range []*Transport{&a, &b} {
		l, err := tr.Listen(t.Context(), at)
		if !errors.Is(err, syscall.EADDRINUSE) {
			t.Errorf("second listener on %v: %v, %v", at, l, err)
		}
		if err == nil {
			l.Close()
		}
	}
}

// A host that stops and starts again gets its port back, though connections from
// and to that port are still there.
func TestListenAgain(t *testing.T) {
	var a, b Transport
	la, at := listen(t, &a, "/ip4/127.0.0.1/tcp/0")
	lb, bt := listen(t, &b, "/ip4/127.0.0.1/tcp/0")
	out := dial(t, &a, bt)
	if _, err := lb.Accept(); err != nil {
		t.Fatal(err)
	}
	dial(t, &b, at)
	in, err := la.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	la.Close()
	if port(out.LocalAddr()) != port(la.Addr()) || port(in.LocalAddr()) != port(la.Addr()) {
		t.Fatal("not the listener's port")
	}
	l, err := a.Listen(t.Context(), at)
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	if len(a.ports) != 0 {
		t.Errorf("%d ports left", len(a.ports))
	}
}

// A host may learn its own address and dial it. It reaches its listener then, not
// the dialing socket itself.
func TestDialSelf(t *testing.T) {
	var a Transport
	l, at := listen(t, &a, "/ip4/127.0.0.1/tcp/0")
	c := dial(t, &a, at)
	in, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	if port(c.LocalAddr()) == port(l.Addr()) {
		t.Fatalf("%v is connected to itself", c.LocalAddr())
	}
	c.Write([]byte("x"))
	if _, err := io.ReadFull(in, make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
}

// A listener on loopback has a port that is of no use towards elsewhere.
func TestLocal(t *testing.T) {
	at := func(s string) *shared { return &shared{at: netip.MustParseAddrPort(s)} }
	for _, c := range []struct {
		ports    []*shared
		to, want string
	}{
		{nil, "1.2.3.4", "invalid AddrPort"},
		{[]*shared{at("127.0.0.1:1")}, "1.2.3.4", "invalid AddrPort"},
		{[]*shared{at("127.0.0.1:1"), at("10.0.0.1:2")}, "1.2.3.4", "0.0.0.0:2"},
		{[]*shared{at("10.0.0.1:2"), at("127.0.0.1:1")}, "127.0.0.1", "0.0.0.0:1"},
		{[]*shared{at("0.0.0.0:3")}, "127.0.0.1", "0.0.0.0:3"},
		{[]*shared{at("[::]:4")}, "127.0.0.1", "invalid AddrPort"},
		{[]*shared{at("0.0.0.0:3"), at("[::]:4")}, "2001:db8::1", "[::]:4"},
	} {
		tr := &Transport{ports: c.ports}
		if got := tr.local(netip.MustParseAddr(c.to)); got.String() != c.want {
			t.Errorf("to %s: from %v, want %s", c.to, got, c.want)
		}
	}
}

// Scripted accepts.
type scripted struct {
	net.Listener
	errs   []error
	calls  int
	closed chan struct{}
}

func (s *scripted) Accept() (net.Conn, error) {
	if s.calls++; s.calls <= len(s.errs) {
		return nil, &net.OpError{Op: "accept", Net: "tcp", Err: os.NewSyscallError("accept4", s.errs[s.calls-1])}
	}
	<-s.closed
	return nil, net.ErrClosed
}

func (s *scripted) Close() error   { close(s.closed); return nil }
func (s *scripted) Addr() net.Addr { return &net.TCPAddr{} }

type scriptedNetwork struct {
	transport.Network
	l net.Listener
}

func (n scriptedNetwork) ListenTCP(context.Context, netip.AddrPort) (net.Listener, error) {
	return n.l, nil
}

func TestAcceptBacksOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &scripted{closed: make(chan struct{})}
		for range 20 {
			s.errs = append(s.errs, syscall.EMFILE)
		}
		s.errs = append(s.errs, syscall.ECONNABORTED)
		tr := Transport{Network: scriptedNetwork{l: s}}
		l, err := tr.Listen(t.Context(), ma.StringCast("/ip4/127.0.0.1/tcp/0"))
		if err != nil {
			t.Fatal(err)
		}
		done := make(chan error)
		go func() {
			_, err := l.Accept()
			done <- err
		}()
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if s.calls < 10 || s.calls > 18 {
			t.Errorf("%d tries in 10 s", s.calls)
		}
		l.Close() // during the wait
		before := time.Now()
		if err := <-done; !errors.Is(err, syscall.EMFILE) && !errors.Is(err, net.ErrClosed) {
			t.Error(err)
		}
		if d := time.Since(before); d > 0 {
			t.Errorf("Close took %v to end Accept", d)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		s := &scripted{closed: make(chan struct{}), errs: []error{syscall.EINVAL}}
		tr := Transport{Network: scriptedNetwork{l: s}}
		l, err := tr.Listen(t.Context(), ma.StringCast("/ip4/127.0.0.1/tcp/0"))
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		if _, err := l.Accept(); !errors.Is(err, syscall.EINVAL) {
			t.Errorf("an error that does not pass: %v", err)
		}
	})
}
