package quic_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/netip"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	ma "github.com/multiformats/go-multiaddr"

	"github.com/plexus-p2p/plexus"
	"github.com/plexus-p2p/plexus/plexustest"
	"github.com/plexus-p2p/plexus/simnet"
	"github.com/plexus-p2p/plexus/transport"
	"github.com/plexus-p2p/plexus/transport/quic"
	"github.com/plexus-p2p/plexus/transport/transporttest"
)

// host makes a host that listens with QUIC alone, and echoes. The test's end closes it.
func host(t testing.TB, n *simnet.Host) *plexus.Host {
	t.Helper()
	key := transporttest.Key(t)
	h, err := plexus.New(plexus.Config{
		Key: key, Network: n,
		Sessions: []transport.Sessions{&quic.Transport{Key: key, Network: n}},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.Close() })
	h.Handle("/echo", func(_ context.Context, s *plexus.Stream) error {
		_, err := io.Copy(s, s)
		return err
	})
	if err := h.Listen(t.Context(), ma.StringCast("/ip4/0.0.0.0/udp/4001/quic-v1")); err != nil {
		t.Fatal(err)
	}
	return h
}

// inHosts runs f in a bubble with two hosts on a link with this round-trip time.
func inHosts(t *testing.T, link simnet.Link, f func(t *testing.T, x, y *plexus.Host)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		n := simnet.New(simnet.Config{Path: link})
		t.Cleanup(n.Close)
		f(t, host(t, n.Host("10.0.0.1")), host(t, n.Host("10.0.0.2")))
	})
}

func dialHost(t testing.TB, x, y *plexus.Host) *plexus.Conn {
	t.Helper()
	c, err := x.Dial(t.Context(), y.Info())
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// inbound waits for y's end of a connection.
func inbound(y *plexus.Host) *plexus.Conn {
	for {
		for c := range y.Conns() {
			return c
		}
		time.Sleep(time.Millisecond) // of the bubble
	}
}

// Round trips until the first answer: the handshake, and the request.
func TestFigureRoundTrips(t *testing.T) {
	const rtt = 100 * time.Millisecond
	inHosts(t, simnet.Link{Latency: rtt / 2}, func(t *testing.T, x, y *plexus.Host) {
		begin := time.Now()
		s, err := dialHost(t, x, y).Open(t.Context(), "/echo")
		if err != nil {
			t.Fatal(err)
		}
		s.Write([]byte("x"))
		if _, err := io.ReadFull(s, make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
		trips := float64(time.Since(begin)) / float64(rtt)
		t.Logf("first echo after %.2f round trips (go-libp2p v0.51: 3)", trips)
		if trips > 2.01 {
			t.Errorf("%.2f round trips, want 2", trips)
		}
	})
}

// Two hosts that know each other's address meet from the ports that they listen on.
func TestDialFromListeningPort(t *testing.T) {
	inHosts(t, simnet.Link{Latency: time.Millisecond}, func(t *testing.T, x, y *plexus.Host) {
		dialHost(t, x, y)
		if got, want := inbound(y).RemoteAddr(), ma.StringCast("/ip4/10.0.0.1/udp/4001/quic-v1"); !got.Equal(want) {
			t.Errorf("dialed from %v, want %v", got, want)
		}
	})
}

// What was written before CloseWrite arrives, though the host is closed at once; and
// that takes no longer than the peer takes to read it.
func TestCloseDelivers(t *testing.T) {
	for name, link := range map[string]simnet.Link{
		"fast":  {Latency: time.Millisecond},
		"far":   {Latency: 50 * time.Millisecond},
		"lossy": {Latency: 5 * time.Millisecond, Loss: 0.05},
	} {
		t.Run(name, func(t *testing.T) {
			for _, size := range []int{100, 10e3, 200e3} {
				for range 20 {
					inHosts(t, link, func(t *testing.T, x, y *plexus.Host) {
						got := make(chan int, 1)
						y.Handle("/sink", func(_ context.Context, s *plexus.Stream) error {
							b, err := io.ReadAll(s)
							if err != nil {
								t.Errorf("after %d bytes of %d: %v", len(b), size, err)
							}
							got <- len(b)
							return nil
						})
						s, err := dialHost(t, x, y).Open(t.Context(), "/sink")
						if err != nil {
							t.Fatal(err)
						}
						if _, err := s.Write(make([]byte, size)); err != nil {
							t.Fatal(err)
						}
						if err := s.CloseWrite(); err != nil {
							t.Fatal(err)
						}
						begin := time.Now()
						if err := x.Close(); err != nil {
							t.Error(err)
						}
						took := time.Since(begin)
						if n := <-got; n != size {
							t.Fatalf("%d bytes of %d arrived", n, size)
						}
						// The end, and the answer to it. Of the megabyte that may
						// be under way the window has let all but some go.
						if trips := float64(took) / float64(2*link.Latency); link.Loss == 0 && trips > 1.5 {
							t.Errorf("Close took %.1f round trips for %d bytes", trips, size)
						}
					})
				}
			}
		})
	}
}

// A server answers, and its host closes at once: the answer arrives.
func TestCloseDeliversAnswer(t *testing.T) {
	for name, link := range map[string]simnet.Link{
		"fast":  {Latency: time.Millisecond},
		"lossy": {Latency: 5 * time.Millisecond, Loss: 0.02},
	} {
		t.Run(name, func(t *testing.T) {
			for range 20 {
				inHosts(t, link, func(t *testing.T, x, y *plexus.Host) {
					var wg sync.WaitGroup
					y.Handle("/answer", func(_ context.Context, s *plexus.Stream) error {
						if _, err := io.ReadAll(s); err != nil {
							return err
						}
						_, err := s.Write(make([]byte, 50e3))
						s.CloseWrite() // what it has not ended, the host would cut off
						wg.Go(func() { y.Close() })
						return err
					})
					s, err := dialHost(t, x, y).Open(t.Context(), "/answer")
					if err != nil {
						t.Fatal(err)
					}
					s.CloseWrite()
					if b, err := io.ReadAll(s); err != nil || len(b) != 50e3 {
						t.Errorf("%d bytes, %v", len(b), err)
					}
					wg.Wait()
				})
			}
		})
	}
}

// A host that has nothing under way closes at once.
func TestCloseIdle(t *testing.T) {
	inHosts(t, simnet.Link{Latency: 50 * time.Millisecond}, func(t *testing.T, x, y *plexus.Host) {
		c := dialHost(t, x, y)
		s, err := c.Open(t.Context(), "/echo")
		if err != nil {
			t.Fatal(err)
		}
		s.Write([]byte("hello"))
		io.ReadFull(s, make([]byte, 5))
		s.Close()
		time.Sleep(5 * time.Second)
		begin := time.Now()
		x.Close()
		if took := time.Since(begin); took > 0 {
			t.Errorf("Close took %v", took)
		}
	})
}

func TestDatagrams(t *testing.T) {
	inHosts(t, simnet.Link{Latency: time.Millisecond}, func(t *testing.T, x, y *plexus.Host) {
		c := dialHost(t, x, y)
		d := inbound(y)
		if n := c.MaxDatagram(); n < 1100 {
			t.Errorf("datagrams have %d bytes at most", n)
		}
		msg := bytes.Repeat([]byte("x"), c.MaxDatagram())
		for _, e := range [][2]*plexus.Conn{{c, d}, {d, c}} {
			if err := e[0].SendDatagram(msg); err != nil {
				t.Fatal(err)
			}
			if got, err := e[1].ReceiveDatagram(t.Context()); err != nil || !bytes.Equal(got, msg) {
				t.Errorf("got %d bytes of %d, %v", len(got), len(msg), err)
			}
		}
		if err := c.SendDatagram(make([]byte, 1<<16)); !errors.Is(err, transport.ErrDatagramTooLong) {
			t.Errorf("a datagram of 64 KiB: %v", err)
		}

		c.Close()
		if _, err := c.ReceiveDatagram(t.Context()); !errors.Is(err, plexus.ErrClosed) {
			t.Errorf("ReceiveDatagram after Close: %v", err)
		}
	})
}

// Loss is visible: on a bad link some are missing, and none comes twice.
func TestDatagramsLoss(t *testing.T) {
	inHosts(t, simnet.Link{Latency: time.Millisecond, Loss: 0.2}, func(t *testing.T, x, y *plexus.Host) {
		c := dialHost(t, x, y)
		d := inbound(y)
		seen := make(map[byte]bool)
		for i := range byte(200) {
			if err := c.SendDatagram([]byte{i}); err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
			b, err := d.ReceiveDatagram(ctx)
			cancel()
			if err != nil {
				continue
			}
			if seen[b[0]] {
				t.Errorf("datagram %d came twice", b[0])
			}
			seen[b[0]] = true
		}
		if len(seen) < 100 || len(seen) > 190 {
			t.Errorf("%d of 200 datagrams have arrived over a link that loses 20%%", len(seen))
		}
	})
}

// Over TCP there are none.
func TestDatagramsUnsupported(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := simnet.New(simnet.Config{})
		t.Cleanup(n.Close)
		x, y := plexustest.SimHost(t, n.Host("10.0.0.1")), plexustest.SimHost(t, n.Host("10.0.0.2"))
		c := dialHost(t, x, y)
		if err := c.SendDatagram([]byte("x")); !errors.Is(err, errors.ErrUnsupported) {
			t.Errorf("SendDatagram over TCP: %v", err)
		}
		if _, err := c.ReceiveDatagram(t.Context()); !errors.Is(err, errors.ErrUnsupported) {
			t.Errorf("ReceiveDatagram over TCP: %v", err)
		}
		if n := c.MaxDatagram(); n != 0 {
			t.Errorf("MaxDatagram over TCP: %d", n)
		}
	})
}

// The host has one goroutine for a port, and one for a connection, beside quic-go's:
// four for a port, two for a connection. A program that looks at its
// goroutines sees no more.
func TestFigureGoroutines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := simnet.New(simnet.Config{})
		t.Cleanup(n.Close)
		before := goroutines()
		x := host(t, n.Host("10.0.0.1"))
		port := goroutines() - before
		y := host(t, n.Host("10.0.0.2"))
		before = goroutines()
		dialHost(t, x, y)
		time.Sleep(10 * time.Second)
		conn := goroutines() - before
		t.Logf("%d goroutines for a port, %d for both ends of a connection", port, conn)
		if port > 5 || conn > 6 {
			t.Errorf("%d goroutines for a port, %d for both ends of a connection; want 5, 6", port, conn)
		}
	})
}

// The host's network changes under it: the peer sees it at its new address, and the
// session lives on.
//
// "an endpoint can continue a connection when its address changes".
// https://www.rfc-editor.org/rfc/rfc9000#section-9
func TestMigration(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := simnet.New(simnet.Config{Path: simnet.Link{Latency: 10 * time.Millisecond}})
		t.Cleanup(n.Close)
		moving := n.Host("10.0.0.1")
		x, y := host(t, moving), host(t, n.Host("10.0.0.2"))
		s, err := dialHost(t, x, y).Open(t.Context(), "/echo")
		if err != nil {
			t.Fatal(err)
		}
		for i, ip := range []string{"10.0.0.1", "10.0.7.7", "10.0.8.8"} {
			moving.SetAddrs(ip)
			msg := bytes.Repeat([]byte{byte(i)}, 5000)
			if _, err := s.Write(msg); err != nil {
				t.Fatal(err)
			}
			got := make([]byte, len(msg))
			s.SetReadDeadline(time.Now().Add(10 * time.Second))
			if _, err := io.ReadFull(s, got); err != nil || !bytes.Equal(got, msg) {
				t.Fatalf("move %d, to %v: %v", i, ip, err)
			}
		}
	})
}

// The first flight, and all until more is known of the path, fits where the MTU is
// 1280; and a path that has no more works.
//
// "A client MUST expand the payload of all UDP datagrams carrying Initial packets to at
// least the smallest allowed maximum datagram size of 1200 bytes".
// https://www.rfc-editor.org/rfc/rfc9000#section-14.1
func TestSmallMTU(t *testing.T) {
	for _, ip := range []string{"10.0.0.", "fd00::"} {
		synctest.Test(t, func(t *testing.T) {
			var mu sync.Mutex
			largest := 0
			n := simnet.New(simnet.Config{
				Path: simnet.Link{Latency: 10 * time.Millisecond, MTU: 1280},
				Trace: func(e simnet.Event) {
					mu.Lock()
					defer mu.Unlock()
					if e.Kind == simnet.Sent && e.At < 20*time.Millisecond { // one round trip
						largest = max(largest, e.Size)
					}
				},
			})
			t.Cleanup(n.Close)
			key, skey := transporttest.Key(t), transporttest.Key(t)
			on, at := "/ip4/0.0.0.0", ip+"2"
			if ip == "fd00::" {
				on = "/ip6/::"
			}
			st := &quic.Transport{Key: skey, Network: n.Host(at)}
			l, err := st.ListenSession(t.Context(), ma.StringCast(on+"/udp/4001/quic-v1"))
			if err != nil {
				t.Fatal(err)
			}
			ends := accepted(t, l)
			to, err := transport.FromUDP(netip.AddrPortFrom(netip.MustParseAddr(at), 4001))
			if err != nil {
				t.Fatal(err)
			}
			ct := &quic.Transport{Key: key, Network: n.Host(ip + "1")}
			c, err := ct.DialSession(t.Context(), to.Encapsulate(ma.StringCast("/quic-v1")), skey.ID())
			if err != nil {
				t.Fatal(err)
			}
			mu.Lock()
			if largest > 1280 || largest < 1200 {
				t.Errorf("packets of up to %d bytes, want at most 1280", largest)
			}
			mu.Unlock()
			serve(c)
			s := <-ends
			st1, err := c.Open(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			go func() {
				st1.Write(make([]byte, 1e6))
				st1.CloseWrite()
			}()
			if got, err := io.ReadAll(<-s.streams); len(got) != 1e6 || err != nil {
				t.Errorf("%d bytes over a path of 1280, %v", len(got), err)
			}
			c.Close(past, 0)
			s.Close(past, 0)
			l.Close()
		})
	}
}
