package webrtc

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"errors"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	ma "github.com/multiformats/go-multiaddr"
	"github.com/pion/stun/v3"

	"github.com/plexus-p2p/plexus/muxer"
	"github.com/plexus-p2p/plexus/peer"
	"github.com/plexus-p2p/plexus/simnet"
	"github.com/plexus-p2p/plexus/transport"
	"github.com/plexus-p2p/plexus/transport/internal/rtc"
	"github.com/plexus-p2p/plexus/transport/transporttest"
)

// world is a server on a simulated network, and a host from which to harm it.
type world struct {
	net    *simnet.Network
	server *Transport
	l      *listener
	at     ma.Multiaddr
	to     netip.AddrPort
	bad    *simnet.Host
}

func newWorld(t *testing.T) *world {
	t.Helper()
	n := simnet.New(simnet.Config{Path: simnet.Link{Latency: 5 * time.Millisecond}})
	t.Cleanup(n.Close)
	w := &world{net: n, server: &Transport{Key: transporttest.Key(t), Network: n.Host("10.0.0.1")}, bad: n.Host("10.0.0.66")}
	l, err := w.server.ListenSession(t.Context(), ma.StringCast("/ip4/10.0.0.1/udp/4001/webrtc-direct"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	w.l = l.(*listener)
	w.at, w.to = l.Addr().(addr).Multiaddr(), l.Addr().(addr).at
	return w
}

func (w *world) socket(t *testing.T) net.PacketConn {
	t.Helper()
	c, err := w.bad.ListenUDP(t.Context(), netip.AddrPortFrom(netip.IPv4Unspecified(), 0))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func (w *world) send(c net.PacketConn, b []byte) { c.WriteTo(b, net.UDPAddrFromAddrPort(w.to)) }

// held is what the port remembers.
func (w *world) held() (flows, addrs int) {
	m := w.l.m
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.flows), len(m.seen)
}

// welcome connects an honest client, and leaves it connected.
func (w *world) welcome(t *testing.T) {
	t.Helper()
	client := &Transport{Key: transporttest.Key(t), Network: w.net.Host("10.0.0.2")}
	ends := make(chan transport.Session, 1)
	go func() {
		if s, err := w.l.Accept(); err == nil {
			ends <- s
		}
	}()
	d, err := client.DialSession(t.Context(), w.at, w.server.Key.ID())
	if err != nil {
		t.Fatal(err)
	}
	accepted := <-ends
	t.Cleanup(func() { d.(*rtc.Session).Drop(); accepted.(*rtc.Session).Drop() })
}

func requestOf(t *testing.T, c credentials) []byte {
	t.Helper()
	m, err := c.request()
	if err != nil {
		t.Fatal(err)
	}
	return m.Raw
}

// However many STUN requests come, from wherever, by whatever name: each is answered,
// little is remembered, and nothing is started.
func TestSTUNFlood(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		answers := make(chan int)
		for range 3 * maxSeen / 10 {
			c := w.socket(t)
			for range 10 {
				w.send(c, requestOf(t, newCredentials(1)))
				w.send(c, requestOf(t, newCredentials(2)))
			}
			go func() {
				n := 0
				for b := make([]byte, 2000); ; n++ {
					if _, _, err := c.ReadFrom(b); err != nil {
						answers <- n
						return
					}
				}
			}()
			time.Sleep(20 * time.Millisecond)
			c.Close()
			if n := <-answers; n != 20 {
				t.Fatalf("%d answers to 20 requests", n)
			}
		}
		if flows, addrs := w.held(); flows != 0 || addrs > maxSeen {
			t.Errorf("%d connections, %d addresses are held", flows, addrs)
		}
		w.welcome(t)
	})
}

// What is not a request of a version that we know gets no answer.
//
// "if B does not recognize the version, or sees no such prefix, it MUST reject the
// connection rather than guess a version".
// https://github.com/libp2p/specs/pull/715
func TestSTUNSilence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		c := w.socket(t)
		v3 := credentials{"client", "", "libp2p+webrtc+v3/" + strings.Repeat("x", 32)}
		other := newCredentials(1)
		other.clientUfrag = "somebody"
		short := newCredentials(2)
		short.server = prefixV2 + "short"
		good := requestOf(t, newCredentials(1))
		wrongKey := bytes.Clone(good)
		wrongKey[len(wrongKey)-12] ^= 1 // in MESSAGE-INTEGRITY
		plain, _ := stun.Build(stun.TransactionID, stun.BindingRequest)
		indication, _ := stun.Build(stun.TransactionID, stun.NewType(stun.MethodBinding, stun.ClassIndication), stun.NewUsername("a:b"))
		for _, b := range [][]byte{
			requestOf(t, v3), requestOf(t, other), requestOf(t, short), wrongKey, plain.Raw, indication.Raw,
			good[:30], good[:19], {0}, {22, 0xfe, 0xfd}, {22}, make([]byte, 1500), bytes.Repeat([]byte{22}, 1500),
		} {
			w.send(c, b)
		}
		c.SetReadDeadline(time.Now().Add(5 * time.Second))
		if n, _, err := c.ReadFrom(make([]byte, 2000)); err == nil {
			t.Errorf("an answer of %d bytes", n)
		}
		if flows, addrs := w.held(); flows != 0 || addrs != 0 {
			t.Errorf("%d connections, %d addresses are held", flows, addrs)
		}
		w.send(c, good)
		c.SetReadDeadline(time.Now().Add(5 * time.Second))
		if _, _, err := c.ReadFrom(make([]byte, 2000)); err != nil {
			t.Errorf("no answer to a good one: %v", err)
		}
	})
}

// recorder keeps what DTLS sends first.
type recorder struct {
	net.Conn
	first chan []byte
}

func (r *recorder) Write(b []byte) (int, error) {
	select {
	case r.first <- bytes.Clone(b):
	default:
	}
	return len(b), nil
}

// clientHello returns the first packet of a client.
func clientHello(t *testing.T) []byte {
	t.Helper()
	cert, err := rtc.NewCertificate(transporttest.Key(t))
	if err != nil {
		t.Fatal(err)
	}
	a, b := net.Pipe()
	defer b.Close()
	r := &recorder{a, make(chan []byte, 1)}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		rtc.Secure(ctx, r, true, cert, nil)
	}()
	hello := <-r.first
	cancel()
	<-done
	return hello
}

// Handshakes that do not go on are bounded, for one address and in all, get no more than
// three times what they sent, and end. Honest clients come in meanwhile.
func TestHandshakeFlood(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		hello := clientHello(t)
		stun := requestOf(t, newCredentials(1))
		for range 2 * maxHandshakesEach {
			c := w.socket(t)
			w.send(c, hello) // without a request before, it is nothing
			w.send(c, stun)
			w.send(c, hello)
			go func() { // ends with the socket
				sent, got := len(stun)+len(hello), 0
				for b := make([]byte, 2000); ; {
					n, _, err := c.ReadFrom(b)
					if err != nil {
						break
					}
					if got += n; got > amplification*sent+amplification*len(hello)+len(stun) {
						t.Errorf("%d bytes for %d", got, sent)
					}
				}
			}()
		}
		time.Sleep(time.Second)
		if flows, _ := w.held(); flows == 0 || flows > maxHandshakesEach {
			t.Errorf("%d handshakes of one address", flows)
		}
		w.welcome(t)
		time.Sleep(handshakeTime)
		if flows, _ := w.held(); flows != 1 {
			t.Errorf("%d connections are left", flows)
		}
	})
}

// When there are too many, the oldest leave.
func TestHandshakesInAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		hello := clientHello(t)
		stun := requestOf(t, newCredentials(1))
		for i := range maxHandshakes + 50 {
			w.bad.SetAddrs("10.0.0.66", netip.AddrFrom4([4]byte{10, 1, byte(i / 50), 1}).String())
			c, err := w.bad.ListenUDP(t.Context(), netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 1, byte(i / 50), 1}), 0))
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			w.send(c, stun)
			w.send(c, hello)
			time.Sleep(time.Millisecond)
		}
		time.Sleep(time.Second)
		if flows, _ := w.held(); flows != maxHandshakes {
			t.Errorf("%d handshakes, want %d", flows, maxHandshakes)
		}
		w.welcome(t)
	})
}

// A peer that says nothing after DTLS is given up.
func TestSilentAfterDTLS(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		client := &Transport{Key: transporttest.Key(t), Network: w.net.Host("10.0.0.2")}
		if err := client.init(); err != nil {
			t.Fatal(err)
		}
		c, err := client.dial(t.Context(), w.to)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if _, err := rtc.Secure(t.Context(), c, true, client.cert, nil); err != nil {
			t.Fatal(err)
		}
		time.Sleep(handshakeTime / 2)
		if flows, _ := w.held(); flows != 1 {
			t.Errorf("%d connections", flows)
		}
		time.Sleep(handshakeTime)
		if flows, _ := w.held(); flows != 0 {
			t.Errorf("%d connections are left", flows)
		}
	})
}

// A certificate that is not the one of the address, and an address without any.
func TestCertHash(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		client := &Transport{Key: transporttest.Key(t), Network: w.net.Host("10.0.0.2")}
		if err := client.init(); err != nil {
			t.Fatal(err)
		}
		bare := w.at[:len(w.at)-1]
		if _, err := client.DialSession(t.Context(), append(bare[:len(bare):len(bare)], *client.hash), ""); !errors.Is(err, ErrCertHash) {
			t.Errorf("another hash: %v", err)
		}
		if _, err := client.DialSession(t.Context(), bare, ""); !errors.Is(err, ErrNoCertHash) {
			t.Errorf("no hash: %v", err)
		}
		if _, err := client.ListenSession(t.Context(), w.at); !errors.Is(err, ErrCertHash) {
			t.Errorf("listening by another hash: %v", err)
		}
	})
}

// The hash of a key's certificate is the same for ever: it stands in addresses.
func TestCertificate(t *testing.T) {
	key, err := peer.NewPrivKey(ed25519.NewKeyFromSeed(bytes.Repeat([]byte{7}, 32)))
	if err != nil {
		t.Fatal(err)
	}
	tr := &Transport{Key: key}
	if err := tr.init(); err != nil {
		t.Fatal(err)
	}
	const want = "/certhash/uEiB1c4p2fnNQ-IWo4oDJbRDV0b5L-6DfwYmYSlXEwc1zmw"
	if got := tr.hash.String(); got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

// The first answer comes after six round trips at most.
func TestFigureRoundTrips(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const rtt = 100 * time.Millisecond
		n := simnet.New(simnet.Config{Path: simnet.Link{Latency: rtt / 2}})
		t.Cleanup(n.Close)
		server := &Transport{Key: transporttest.Key(t), Network: n.Host("10.0.0.1")}
		l, err := server.ListenSession(t.Context(), ma.StringCast("/ip4/10.0.0.1/udp/4001/webrtc-direct"))
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		go func() {
			s, err := l.Accept()
			if err != nil {
				return
			}
			s.Serve(func(st muxer.Stream) {
				go func() {
					io.Copy(st, st)
					st.Close()
				}()
			})
		}()
		client := &Transport{Key: transporttest.Key(t), Network: n.Host("10.0.0.2")}
		begin := time.Now()
		c, err := client.DialSession(t.Context(), l.Addr().(addr).Multiaddr(), server.Key.ID())
		if err != nil {
			t.Fatal(err)
		}
		go c.Serve(func(muxer.Stream) {})
		defer c.(*rtc.Session).Drop()
		st, err := c.Open(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		st.Write([]byte("x"))
		if _, err := io.ReadFull(st, make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
		trips := float64(time.Since(begin)) / float64(rtt)
		t.Logf("first echo after %.2f round trips, without multiselect (go-libp2p v0.51: 10)", trips)
		if trips > 6.05 {
			t.Errorf("%.2f round trips, at most 6", trips)
		}
	})
}
