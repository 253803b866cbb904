package simnet

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/nettest"
)

func addr(s string) netip.AddrPort { return netip.MustParseAddrPort(s) }

// bubble runs f in a bubble with a network.
func bubble(t *testing.T, cfg Config, f func(t *testing.T, n *Network)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		n := New(cfg)
		defer n.Close()
		f(t, n)
	})
}

func listen(t testing.TB, h *Host, on string) net.Listener {
	t.Helper()
	l, err := h.ListenTCP(t.Context(), addr(on))
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// pair connects a to b.
func pair(t testing.TB, a, b *Host) (*Conn, *Conn) {
	t.Helper()
	l := listen(t, b, netip.AddrPortFrom(b.ips[0], 0).String())
	defer l.Close()
	c, err := a.DialTCP(t.Context(), netip.AddrPort{}, l.Addr().(*net.TCPAddr).AddrPort())
	if err != nil {
		t.Fatal(err)
	}
	d, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	return c.(*Conn), d.(*Conn)
}

// elapsed checks how long f takes.
func elapsed(t *testing.T, want time.Duration, f func()) {
	t.Helper()
	start := time.Now()
	f()
	if got := time.Since(start); got != want {
		t.Errorf("took %v, want %v", got, want)
	}
}

func must[T any](t testing.TB) func(T, error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func TestConn(t *testing.T) {
	for name, cfg := range map[string]Config{
		"perfect": {},
		"slow":    {Access: Link{Bandwidth: 1e9, Latency: 50 * time.Microsecond}},
	} {
		t.Run(name, func(t *testing.T) {
			nettest.TestConn(t, func() (net.Conn, net.Conn, func(), error) {
				n := New(cfg)
				c1, c2 := pair(t, n.Host("10.0.0.1"), n.Host("10.0.0.2"))
				return c1, c2, n.Close, nil
			})
		})
	}
}

func TestLatency(t *testing.T) {
	bubble(t, Config{Path: Link{Latency: 50 * time.Millisecond}}, func(t *testing.T, n *Network) {
		a, b := n.Host("10.0.0.1"), n.Host("10.0.0.2")
		l := listen(t, b, "10.0.0.2:1")
		var c, d net.Conn
		elapsed(t, 100*time.Millisecond, func() {
			c = must[net.Conn](t)(a.DialTCP(t.Context(), netip.AddrPort{}, addr("10.0.0.2:1")))
		})
		elapsed(t, 50*time.Millisecond, func() { d = must[net.Conn](t)(l.Accept()) })
		go io.Copy(d, d)
		for range 3 {
			elapsed(t, 100*time.Millisecond, func() {
				must[int](t)(c.Write([]byte("hello")))
				must[int](t)(io.ReadFull(c, make([]byte, 5)))
			})
		}
		c.Close()
		synctest.Wait()
	})
}

// The example of the package comment.
func TestSerialization(t *testing.T) {
	bubble(t, Config{Access: Link{Bandwidth: 100e6}, Path: Link{Latency: 50 * time.Millisecond}}, func(t *testing.T, n *Network) {
		a, b := n.Host("10.0.0.1"), n.Host("10.0.0.2")
		c, d := pair(t, a, b)
		time.Sleep(time.Second)
		elapsed(t, 50*time.Millisecond+2*120*time.Microsecond, func() {
			must[int](t)(c.Write(make([]byte, 1460)))
			must[int](t)(io.ReadFull(d, make([]byte, 1460)))
		})
		time.Sleep(time.Second)
		elapsed(t, 50*time.Millisecond+(5+1)*120*time.Microsecond, func() {
			must[int](t)(c.Write(make([]byte, 5*1460)))
			must[int](t)(io.ReadFull(d, make([]byte, 5*1460)))
		})
	})
}

func transfer(t testing.TB, c, d *Conn, size int64) time.Duration {
	t.Helper()
	start := time.Now()
	go func() {
		p := make([]byte, 32<<10)
		for left := size; left > 0; {
			n, err := c.Write(p[:min(left, int64(len(p)))])
			if left -= int64(n); err != nil {
				t.Errorf("write: %v, %d left", err, left)
				return
			}
		}
		c.CloseWrite()
	}()
	got, err := io.Copy(io.Discard, d)
	if err != nil || got != size {
		t.Fatalf("%d of %d bytes: %v", got, size, err)
	}
	return time.Since(start)
}

func TestBandwidth(t *testing.T) {
	const ms = time.Millisecond
	access := Link{Bandwidth: 100e6}
	for name, c := range map[string]struct {
		cfg  Config
		size int64
		want float64 // of 100 Mbit/s; what is missing is headers, 4 %, and the start
	}{
		"near":         {Config{Access: access, Path: Link{Latency: 2 * ms}}, 10e6, 0.95},
		"far":          {Config{Access: access, Path: Link{Latency: 50 * ms}}, 10e6, 0.4},
		"loss":         {Config{Access: access, Path: Link{Latency: 5 * ms, Loss: 0.01}}, 10e6, 0.85},
		"heavy loss":   {Config{Access: access, Path: Link{Latency: 5 * ms, Loss: 0.1}}, 5e6, 0.4},
		"jitter":       {Config{Access: access, Path: Link{Latency: 10 * ms, Jitter: 5 * ms}}, 10e6, 0.65},
		"reordering":   {Config{Access: access, Path: Link{Latency: 10 * ms, Reorder: 0.05}}, 10e6, 0.85},
		"path limit":   {Config{Path: Link{Latency: 5 * ms, Bandwidth: 100e6}}, 10e6, 0.9},
		"short queue":  {Config{Path: Link{Latency: 5 * ms, Bandwidth: 100e6, Queue: 15000}}, 10e6, 0.75},
		"small window": {Config{Access: access, Path: Link{Latency: 2 * ms}, ReceiveBuffer: 100e3, SendBuffer: 10e3}, 10e6, 0.9},
		"IPv6":         {Config{Access: access, Path: Link{Latency: 2 * ms}}, 10e6, 0.93},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, c.cfg, func(t *testing.T, n *Network) {
				a, b := "10.0.0.1", "10.0.0.2"
				if name == "IPv6" {
					a, b = "2001:db8::1", "2001:db8::2"
				}
				x, y := pair(t, n.Host(a), n.Host(b))
				took := transfer(t, x, y, c.size)
				got := float64(c.size) * 8 / took.Seconds() / 100e6
				t.Logf("%v, %.1f Mbit/s, %+v", took, got*100, x.Stats())
				if got < c.want || got > 1460./1500 {
					t.Errorf("%.1f Mbit/s, want %.0f", got*100, c.want*100)
				}
				if name == "near" && (took < 800*ms || took > 850*ms) {
					t.Errorf("10 MB over 100 Mbit/s took %v", took)
				}
				if name == "near" && x.Stats().Retransmitted > 0 {
					t.Errorf("%d retransmissions", x.Stats().Retransmitted)
				}
			})
		})
	}
}

// Connections of one host share its link.
func TestSharedLink(t *testing.T) {
	bubble(t, Config{Access: Link{Bandwidth: 100e6}, Path: Link{Latency: time.Millisecond}}, func(t *testing.T, n *Network) {
		x := n.Host("10.0.0.1")
		var wg sync.WaitGroup
		start := time.Now()
		for i := range 4 {
			c, d := pair(t, x, n.Host(fmt.Sprintf("10.0.1.%d", i)))
			wg.Go(func() {
				took := transfer(t, c, d, 5e6)
				if took < 1200*time.Millisecond {
					t.Errorf("a connection had %.0f Mbit/s of the shared 100", 5*8/took.Seconds())
				}
			})
		}
		wg.Wait()
		if took := time.Since(start); took < 1600*time.Millisecond || took > 1750*time.Millisecond {
			t.Errorf("4 × 5 MB over 100 Mbit/s took %v", took)
		}
	})
}

// What an application wrote waits in the send buffer, not in the network: a second
// connection is not held up by a first.
func TestEchoBesideBulk(t *testing.T) {
	for name, c := range map[string]struct {
		bulk int
		cfg  Config
	}{
		"uplink": {4, Config{Access: Link{Bandwidth: 100e6}, Path: Link{Latency: 650 * time.Microsecond}}},
		"path":   {1, Config{Path: Link{Latency: 650 * time.Microsecond, Bandwidth: 100e6}}},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, c.cfg, func(t *testing.T, n *Network) {
				x, y := n.Host("10.0.0.1"), n.Host("10.0.0.2")
				e, f := pair(t, x, y)
				go io.Copy(f, f)
				echo := func() time.Duration {
					start := time.Now()
					must[int](t)(e.Write([]byte("12345678")))
					must[int](t)(io.ReadFull(e, make([]byte, 8)))
					return time.Since(start)
				}
				idle := echo()
				var wg sync.WaitGroup
				size := 8e6 / int64(c.bulk)
				for range c.bulk {
					c, d := pair(t, x, y)
					wg.Go(func() { transfer(t, c, d, size) })
				}
				time.Sleep(50 * time.Millisecond)
				var all []time.Duration
				for range 100 {
					all = append(all, echo())
					time.Sleep(time.Millisecond)
				}
				wg.Wait()
				slices.Sort(all)
				t.Logf("idle %v, p50 %v, p99 %v", idle, all[50], all[99])
				if all[99] > idle+15*time.Millisecond {
					t.Errorf("an echo took %v beside bulk, %v alone", all[99], idle)
				}
			})
		})
	}
}

func TestDialErrors(t *testing.T) {
	bubble(t, Config{Path: Link{Latency: 10 * time.Millisecond}}, func(t *testing.T, n *Network) {
		a, b := n.Host("10.0.0.1"), n.Host("10.0.0.2", "2001:db8::2")
		fails := func(to string, want error, after time.Duration) {
			t.Helper()
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
			defer cancel()
			elapsed(t, after, func() {
				t.Helper()
				c, err := a.DialTCP(ctx, netip.AddrPort{}, addr(to))
				if !errors.Is(err, want) {
					t.Errorf("dial %s: %v, %v, want %v", to, c, err, want)
				}
				if op := (*net.OpError)(nil); !errors.As(err, &op) || op.Op != "dial" {
					t.Errorf("%T %v", err, err)
				}
			})
		}
		fails("10.0.0.2:1", syscall.ECONNREFUSED, 20*time.Millisecond)
		fails("10.0.0.1:1", syscall.ECONNREFUSED, 0)
		fails("127.0.0.1:1", syscall.ECONNREFUSED, 0)
		fails("10.0.0.3:1", context.DeadlineExceeded, 5*time.Second)
		fails("[2001:db8::2]:1", syscall.ENETUNREACH, 0)
		l := listen(t, b, "10.0.0.2:1")
		n.Partition(a)
		fails("10.0.0.2:1", context.DeadlineExceeded, 5*time.Second)
		n.Heal()
		time.Sleep(10 * time.Second)
		ctx, cancel := context.WithCancelCause(t.Context())
		why := errors.New("why")
		time.AfterFunc(5*time.Millisecond, func() { cancel(why) })
		if _, err := a.DialTCP(ctx, netip.AddrPort{}, addr("10.0.0.2:1")); !errors.Is(err, why) {
			t.Error(err)
		}
		if _, err := a.DialTCP(ctx, netip.AddrPort{}, addr("10.0.0.2:1")); !errors.Is(err, why) {
			t.Error(err)
		}
		l.Close()
		fails("10.0.0.2:1", syscall.ECONNREFUSED, 20*time.Millisecond)
		if _, err := a.DialTCP(t.Context(), addr("10.0.0.9:0"), addr("10.0.0.2:1")); !errors.Is(err, syscall.EADDRNOTAVAIL) {
			t.Error(err)
		}
		// "tcp_syn_retries […] default 6 […] 127 seconds"
		elapsed(t, 127*time.Second, func() {
			if _, err := a.DialTCP(context.Background(), netip.AddrPort{}, addr("10.0.0.3:1")); !errors.Is(err, syscall.ETIMEDOUT) {
				t.Error(err)
			}
		})
		idle(t, n)
	})
}

// idle checks that nothing is left to do, and that no connection is left.
func idle(t *testing.T, n *Network) {
	t.Helper()
	synctest.Wait()
	n.mu.Lock()
	defer n.mu.Unlock()
	if len(n.events) > 0 || len(n.dirty) > 0 || n.armed != never {
		t.Errorf("an idle network has %d events, %d sockets to flush; next in %v", len(n.events), len(n.dirty), time.Duration(n.armed-n.now))
	}
	for _, h := range n.hosts {
		for _, c := range h.conns {
			t.Errorf("%v still has a connection to %v, state %d, closed %v", c.local, c.remote, c.state, c.closed)
		}
	}
}

func TestListenErrors(t *testing.T) {
	bubble(t, Config{}, func(t *testing.T, n *Network) {
		h := n.Host("10.0.0.1", "10.0.0.2", "2001:db8::1")
		for _, c := range []struct {
			on   string
			want error
		}{
			{"10.0.0.1:1", nil},
			{"10.0.0.2:1", nil},
			{"10.0.0.1:1", syscall.EADDRINUSE},
			{"0.0.0.0:1", syscall.EADDRINUSE},
			{"[::]:1", nil},
			{"[2001:db8::1]:1", syscall.EADDRINUSE},
			{"10.0.0.3:1", syscall.EADDRNOTAVAIL},
			{"127.0.0.1:1", nil},
			{"0.0.0.0:2", nil},
			{"10.0.0.1:2", syscall.EADDRINUSE},
			{"0.0.0.0:0", nil},
			{"0.0.0.0:0", nil},
		} {
			if _, err := h.ListenTCP(t.Context(), addr(c.on)); !errors.Is(err, c.want) {
				t.Errorf("tcp %s: %v, want %v", c.on, err, c.want)
			}
			if _, err := h.ListenUDP(t.Context(), addr(c.on)); !errors.Is(err, c.want) {
				t.Errorf("udp %s: %v, want %v", c.on, err, c.want)
			}
		}
		if _, err := h.ListenTCP(t.Context(), netip.AddrPort{}); err == nil {
			t.Error("listened on no address")
		}
	})
}

// A lost segment holds up what was sent after it, until it was sent again.
func TestLossHoldsUp(t *testing.T) {
	bubble(t, Config{Path: Link{Latency: 50 * time.Millisecond}}, func(t *testing.T, n *Network) {
		x, y := n.Host("10.0.0.1"), n.Host("10.0.0.2")
		c, d := pair(t, x, y)
		lose := func() {
			n.SetOneWay(x, y, Link{Loss: 1})
			must[int](t)(c.Write([]byte("lost.")))
			synctest.Wait()
			n.SetOneWay(x, y, Link{Latency: 50 * time.Millisecond})
		}
		read := func(size int) {
			t.Helper()
			must[int](t)(io.ReadFull(d, make([]byte, size)))
		}
		// What follows at once shows the loss, a round trip and a quarter later:
		// "reo_wnd […] one quarter of the minimum RTT", RFC 8985.
		lose()
		time.Sleep(time.Millisecond)
		must[int](t)(c.Write([]byte("later")))
		elapsed(t, (100+25+50-1)*time.Millisecond, func() {
			read(5)
			elapsed(t, 0, func() { read(5) })
		})
		// "max RTO […] TCP_RTO_MIN": nothing follows, so it takes a timeout.
		time.Sleep(time.Second)
		lose()
		start := time.Now()
		read(5)
		if got := time.Since(start); got < 350*time.Millisecond || got > 450*time.Millisecond {
			t.Errorf("a lost last segment took %v", got)
		}
		if s := c.Stats(); s.Retransmitted != 2 {
			t.Errorf("%d retransmissions", s.Retransmitted)
		}
		c.Close()
		d.Close()
		time.Sleep(time.Second)
		idle(t, n)
	})
}

// Bytes come out as they went in, whatever happens to packets.
func TestIntegrity(t *testing.T) {
	for seed := range uint64(20) {
		bad := Link{Latency: 10 * time.Millisecond, Jitter: 5 * time.Millisecond, Loss: 0.1, Reorder: 0.2, Bandwidth: 20e6, Queue: 20e3}
		bubble(t, Config{Seed: seed, Path: bad, SendBuffer: 5000, ReceiveBuffer: 50e3}, func(t *testing.T, n *Network) {
			c, d := pair(t, n.Host("10.0.0.1"), n.Host("10.0.0.2"))
			var wg sync.WaitGroup
			for _, x := range [][2]*Conn{{c, d}, {d, c}} {
				want := make([]byte, 300e3)
				for i := range want {
					want[i] = byte(i * 7 >> 3)
				}
				wg.Go(func() {
					for size, left := 1, want; len(left) > 0; size = size*3%5003 + 1 {
						k, err := x[0].Write(left[:min(size, len(left))])
						if err != nil {
							t.Error(err)
							return
						}
						left = left[k:]
					}
					x[0].CloseWrite()
				})
				wg.Go(func() {
					got, err := io.ReadAll(x[1])
					if err != nil || !bytes.Equal(got, want) {
						t.Errorf("seed %d: got %d bytes, %v", seed, len(got), err)
					}
				})
			}
			wg.Wait()
			c.Close()
			d.Close()
			time.Sleep(time.Minute)
			idle(t, n)
		})
	}
}

// A reader that does not read stops the writer, and an idle connection with a full
// window has no timer. A lost window update is sent again.
func TestBackPressure(t *testing.T) {
	bubble(t, Config{Path: Link{Latency: 10 * time.Millisecond}, ReceiveBuffer: 200e3}, func(t *testing.T, n *Network) {
		x, y := n.Host("10.0.0.1"), n.Host("10.0.0.2")
		c, d := pair(t, x, y)
		c.SetWriteDeadline(time.Now().Add(time.Minute))
		sent, err := c.Write(make([]byte, 10e6))
		if !errors.Is(err, os.ErrDeadlineExceeded) || sent < 128<<10 || sent > 128<<10+64<<10 {
			t.Errorf("wrote %d bytes that nobody reads: %v", sent, err)
		}
		synctest.Wait()
		if len(n.events) > 0 {
			t.Errorf("%d events with a full window", len(n.events))
		}
		n.SetOneWay(y, x, Link{Loss: 1})
		d.SetReadDeadline(time.Now().Add(20 * time.Millisecond))
		got, _ := io.Copy(io.Discard, d)
		n.SetOneWay(y, x, Link{Latency: 10 * time.Millisecond})
		d.SetReadDeadline(time.Now().Add(5 * time.Second))
		more, _ := io.Copy(io.Discard, d)
		if got != 128<<10 || got+more != int64(sent) {
			t.Errorf("read %d, then %d bytes of %d", got, more, sent)
		}
	})
}

func TestClose(t *testing.T) {
	const rtt = 20 * time.Millisecond
	run := func(name string, f func(t *testing.T, n *Network, c, d *Conn)) {
		t.Run(name, func(t *testing.T) {
			bubble(t, Config{Path: Link{Latency: rtt / 2}}, func(t *testing.T, n *Network) {
				c, d := pair(t, n.Host("10.0.0.1"), n.Host("10.0.0.2"))
				f(t, n, c, d)
				c.Close()
				d.Close()
				time.Sleep(time.Second)
				idle(t, n)
			})
		})
	}
	run("delivers", func(t *testing.T, n *Network, c, d *Conn) {
		must[int](t)(c.Write(make([]byte, 60000)))
		c.Close()
		if _, err := c.Write([]byte("x")); !errors.Is(err, net.ErrClosed) {
			t.Error(err)
		}
		if _, err := c.Read(make([]byte, 1)); !errors.Is(err, net.ErrClosed) {
			t.Error(err)
		}
		if err := c.Close(); !errors.Is(err, net.ErrClosed) {
			t.Error(err)
		}
		if got, err := io.ReadAll(d); len(got) != 60000 || err != nil {
			t.Errorf("%d bytes, %v", len(got), err)
		}
	})
	run("delivers though the other end has closed its half", func(t *testing.T, n *Network, c, d *Conn) {
		d.CloseWrite()
		time.Sleep(rtt)
		must[int](t)(c.Write(make([]byte, 60000)))
		c.Close()
		if got, err := io.ReadAll(d); len(got) != 60000 || err != nil {
			t.Errorf("%d bytes, %v", len(got), err)
		}
	})
	run("half", func(t *testing.T, n *Network, c, d *Conn) {
		c.CloseWrite()
		if _, err := c.Write([]byte("x")); !errors.Is(err, syscall.EPIPE) {
			t.Error(err)
		}
		elapsed(t, rtt/2, func() {
			if _, err := d.Read(make([]byte, 1)); err != io.EOF {
				t.Error(err)
			}
		})
		time.Sleep(time.Second)
		must[int](t)(d.Write([]byte("hello")))
		elapsed(t, rtt/2, func() { must[int](t)(io.ReadFull(c, make([]byte, 5))) })
	})
	run("with unread data resets", func(t *testing.T, n *Network, c, d *Conn) {
		must[int](t)(c.Write([]byte("hello")))
		must[int](t)(d.Write([]byte("world")))
		time.Sleep(rtt)
		c.Close()
		time.Sleep(rtt)
		if got, err := io.ReadAll(d); string(got) != "hello" || !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("%q, %v", got, err)
		}
		if _, err := d.Write([]byte("x")); !errors.Is(err, syscall.ECONNRESET) {
			t.Error(err)
		}
	})
	run("resets what comes later", func(t *testing.T, n *Network, c, d *Conn) {
		c.Close()
		time.Sleep(rtt)
		must[int](t)(d.Write([]byte("x")))
		time.Sleep(rtt + 1)
		if _, err := d.Write([]byte("x")); !errors.Is(err, syscall.ECONNRESET) {
			t.Error(err)
		}
	})
	run("linger 0 resets", func(t *testing.T, n *Network, c, d *Conn) {
		c.SetLinger(0)
		must[int](t)(c.Write([]byte("x")))
		c.Close()
		if _, err := d.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
			t.Error(err)
		}
	})
	run("both at once", func(t *testing.T, n *Network, c, d *Conn) {
		must[int](t)(c.Write([]byte("x")))
		c.CloseWrite()
		d.Close()
	})
}

// Connections that are closed while packets get lost go away all the same.
func TestCloseUnderLoss(t *testing.T) {
	for seed := range uint64(30) {
		bubble(t, Config{Seed: seed, Path: Link{Latency: time.Millisecond, Loss: 0.3}}, func(t *testing.T, n *Network) {
			x, y := n.Host("10.0.0.1"), n.Host("10.0.0.2")
			c, d := pair(t, x, y)
			c.Write([]byte("hello"))
			go c.Close()
			got, err := io.ReadAll(d)
			if string(got) != "hello" || err != nil {
				t.Errorf("seed %d: %q, %v", seed, got, err)
			}
			d.Close()
			time.Sleep(time.Hour)
			idle(t, n)
		})
	}
}

func TestPartition(t *testing.T) {
	bubble(t, Config{Path: Link{Latency: 10 * time.Millisecond}}, func(t *testing.T, n *Network) {
		x, y, z := n.Host("10.0.0.1"), n.Host("10.0.0.2"), n.Host("10.0.0.3")
		c, d := pair(t, x, y)
		e, f := pair(t, x, z)
		must[int](t)(c.Write([]byte("a"))) // under way when it happens
		time.Sleep(5 * time.Millisecond)
		n.Partition(y)
		must[int](t)(e.Write([]byte("a"))) // not concerned
		elapsed(t, 10*time.Millisecond, func() { must[int](t)(f.Read(make([]byte, 1))) })
		d.SetReadDeadline(time.Now().Add(3 * time.Second))
		if _, err := d.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Error(err)
		}
		n.Heal()
		d.SetReadDeadline(time.Time{})
		start := time.Now()
		must[int](t)(d.Read(make([]byte, 1)))
		// Timeouts double: the pause lasts as long again at most.
		t.Log("after a partition of 3 s:", time.Since(start))
		if took := time.Since(start); took > 4*time.Second {
			t.Errorf("took %v", took)
		}
		n.Partition(x, z)
		n.Partition(z)
		must[int](t)(e.Write([]byte("b")))
		if _, err := e.Read(make([]byte, 1)); !errors.Is(err, syscall.ETIMEDOUT) {
			t.Error(err)
		}
		if took := time.Since(start); took < 5*time.Minute {
			t.Errorf("gave up after %v", took)
		}
	})
}

func TestCut(t *testing.T) {
	bubble(t, Config{Path: Link{Latency: 10 * time.Millisecond}}, func(t *testing.T, n *Network) {
		x, y, z := n.Host("10.0.0.1"), n.Host("10.0.0.2"), n.Host("10.0.0.3")
		e, f := pair(t, x, z)
		for end := range 2 {
			c, d := pair(t, x, y)
			time.AfterFunc(time.Millisecond, func() { n.Cut(x, y) })
			elapsed(t, time.Millisecond, func() {
				if _, err := []*Conn{c, d}[end].Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
					t.Error(err)
				}
			})
		}
		must[int](t)(e.Write([]byte("a")))
		must[int](t)(f.Read(make([]byte, 1)))
	})
}

func TestCrash(t *testing.T) {
	bubble(t, Config{Path: Link{Latency: 10 * time.Millisecond}}, func(t *testing.T, n *Network) {
		x, y := n.Host("10.0.0.1"), n.Host("10.0.0.2")
		l := listen(t, y, "10.0.0.2:1")
		u := must[net.PacketConn](t)(y.ListenUDP(t.Context(), addr("10.0.0.2:1")))
		c := must[net.Conn](t)(x.DialTCP(t.Context(), netip.AddrPort{}, addr("10.0.0.2:1")))
		d := must[net.Conn](t)(l.Accept())
		time.AfterFunc(time.Millisecond, y.Crash)
		elapsed(t, 11*time.Millisecond, func() {
			if _, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
				t.Error(err)
			}
		})
		if _, err := d.Write([]byte("x")); !errors.Is(err, syscall.ECONNRESET) {
			t.Error(err)
		}
		if _, err := l.Accept(); !errors.Is(err, net.ErrClosed) {
			t.Error(err)
		}
		if _, _, err := u.ReadFrom(nil); !errors.Is(err, net.ErrClosed) {
			t.Error(err)
		}
		if _, err := x.DialTCP(t.Context(), netip.AddrPort{}, addr("10.0.0.2:1")); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Error(err)
		}
		listen(t, y, "10.0.0.2:1")
		must[net.Conn](t)(x.DialTCP(t.Context(), netip.AddrPort{}, addr("10.0.0.2:1")))
	})
}

// Links change while they are in use.
func TestSetLinks(t *testing.T) {
	bubble(t, Config{Access: Link{Bandwidth: 20e6}, Path: Link{Latency: 5 * time.Millisecond}}, func(t *testing.T, n *Network) {
		x, y := n.Host("10.0.0.1"), n.Host("10.0.0.2")
		c, d := pair(t, x, y)
		done := make(chan struct{})
		go func() {
			defer close(done)
			io.Copy(io.Discard, d)
		}()
		go func() {
			for p := make([]byte, 32<<10); ; {
				if _, err := c.Write(p); err != nil {
					return
				}
			}
		}()
		rate := func() float64 {
			time.Sleep(2 * time.Second) // to find its pace
			n.mu.Lock()
			before := d.got
			n.mu.Unlock()
			time.Sleep(5 * time.Second)
			n.mu.Lock()
			defer n.mu.Unlock()
			return float64(d.got-before) * 8 / 5 / 1e6
		}
		check := func(what string, low, high float64) {
			t.Helper()
			if got := rate(); got < low || got > high {
				t.Errorf("%s: %.1f Mbit/s, want %.0f to %.0f", what, got, low, high)
			}
		}
		check("at first", 17, 19.6)
		y.SetAccess(Link{}, Link{Bandwidth: 2e6})
		check("slow downlink", 1.7, 1.96)
		y.SetAccess(Link{}, Link{})
		n.SetPath(x, y, Link{Latency: 50 * time.Millisecond, Bandwidth: 4e6})
		check("slow and long path", 3.4, 3.92)
		n.SetPath(x, y, Link{})
		x.SetAccess(Link{Bandwidth: 10e6}, Link{})
		check("slow uplink", 8, 9.8)
		c.Close()
		<-done
	})
}

func TestMTU(t *testing.T) {
	var rec Recorder
	bubble(t, Config{Path: Link{MTU: 600}, Trace: rec.Record}, func(t *testing.T, n *Network) {
		c, d := pair(t, n.Host("10.0.0.1"), n.Host("10.0.0.2"))
		transfer(t, c, d, 56000)
		if got := rec.Sum(Between("10.0.0.1", "")); got.DataPackets != 100 || got.Dropped != 0 {
			t.Errorf("%+v", got)
		}
	})
}

// A host that has lost power and comes back answers to its old connections with a
// reset, and one that dials again from the same port gets a new connection.
func TestReboot(t *testing.T) {
	bubble(t, Config{Path: Link{Latency: 10 * time.Millisecond}}, func(t *testing.T, n *Network) {
		x, y := n.Host("10.0.0.1"), n.Host("10.0.0.2")
		lx, l := listen(t, x, "10.0.0.1:1"), listen(t, y, "10.0.0.2:1")
		dial := func() net.Conn {
			return must[net.Conn](t)(x.DialTCP(t.Context(), addr("0.0.0.0:1"), addr("10.0.0.2:1")))
		}
		c := dial()
		d := must[net.Conn](t)(l.Accept())
		if c.LocalAddr().String() != "10.0.0.1:1" {
			t.Error("dialed from", c.LocalAddr())
		}
		n.Partition(x)
		x.Crash()
		lx.Close()
		time.Sleep(time.Second)
		n.Heal()
		// The first SYN meets the old connection, the second one, a second later, does not.
		elapsed(t, time.Second+20*time.Millisecond, func() { c = dial() })
		if _, err := d.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
			t.Error(err)
		}
		d = must[net.Conn](t)(l.Accept())
		must[int](t)(d.Write([]byte("x")))
		must[int](t)(c.Read(make([]byte, 1)))
	})
}

// Two hosts behind firewalls can only connect if both begin.
func TestSimultaneousOpen(t *testing.T) {
	bubble(t, Config{Path: Link{Latency: 10 * time.Millisecond}}, func(t *testing.T, n *Network) {
		x, y := n.Host("10.0.0.1"), n.Host("10.0.0.2")
		var c, d net.Conn
		var wg sync.WaitGroup
		wg.Go(func() { c = must[net.Conn](t)(x.DialTCP(t.Context(), addr("0.0.0.0:1"), addr("10.0.0.2:1"))) })
		wg.Go(func() { d = must[net.Conn](t)(y.DialTCP(t.Context(), addr("0.0.0.0:1"), addr("10.0.0.1:1"))) })
		elapsed(t, 20*time.Millisecond, wg.Wait)
		must[int](t)(c.Write([]byte("hello")))
		must[int](t)(io.ReadFull(d, make([]byte, 5)))
		must[int](t)(d.Write([]byte("hello")))
		must[int](t)(io.ReadFull(c, make([]byte, 5)))
		c.Close()
		d.Close()
		time.Sleep(time.Second)
		idle(t, n)
	})
}

func TestPorts(t *testing.T) {
	bubble(t, Config{}, func(t *testing.T, n *Network) {
		x, y := n.Host("10.0.0.1"), n.Host("10.0.0.2")
		l := listen(t, y, "0.0.0.0:7")
		listen(t, x, "0.0.0.0:7")
		a := must[net.Conn](t)(x.DialTCP(t.Context(), addr("0.0.0.0:7"), addr("10.0.0.2:7")))
		b := must[net.Conn](t)(x.DialTCP(t.Context(), addr("0.0.0.0:7"), addr("10.0.0.2:7")))
		if a.LocalAddr().String() != "10.0.0.1:7" || b.LocalAddr().String() == "10.0.0.1:7" {
			t.Errorf("dialed from %v, then from %v", a.LocalAddr(), b.LocalAddr())
		}
		in := must[net.Conn](t)(l.Accept())
		if in.RemoteAddr().String() != a.LocalAddr().String() || in.LocalAddr().String() != "10.0.0.2:7" {
			t.Errorf("accepted %v at %v", in.RemoteAddr(), in.LocalAddr())
		}
		// Not connected to itself.
		self := must[net.Conn](t)(x.DialTCP(t.Context(), addr("0.0.0.0:7"), addr("10.0.0.1:7")))
		if self.LocalAddr().String() == self.RemoteAddr().String() {
			t.Error("connected to itself")
		}
		lo := must[net.Conn](t)(x.DialTCP(t.Context(), netip.AddrPort{}, addr("127.0.0.1:7")))
		if !strings.HasPrefix(lo.LocalAddr().String(), "127.0.0.1:") {
			t.Error("dialed loopback from", lo.LocalAddr())
		}
	})
}

// The same seed and the same programs give the same events, however goroutines are
// scheduled. Another seed gives other faults.
func TestDeterminism(t *testing.T) {
	run := func(seed uint64) string {
		var log bytes.Buffer
		cfg := Config{
			Seed:   seed,
			Access: Link{Bandwidth: 50e6},
			Path:   Link{Latency: 5 * time.Millisecond, Jitter: time.Millisecond, Loss: 0.02, Reorder: 0.02},
			Trace:  func(e Event) { fmt.Fprintln(&log, e) },
		}
		bubble(t, cfg, func(t *testing.T, n *Network) {
			server := n.Host("10.0.0.100")
			l := listen(t, server, "10.0.0.100:1")
			var wg sync.WaitGroup
			wg.Go(func() {
				for range 8 {
					c, err := l.Accept()
					if err != nil {
						t.Error(err)
						return
					}
					wg.Go(func() {
						io.Copy(c, c)
						c.Close()
					})
				}
			})
			for i := range 8 {
				h := n.Host(fmt.Sprintf("10.0.0.%d", i+1))
				wg.Go(func() {
					c := must[net.Conn](t)(h.DialTCP(t.Context(), netip.AddrPort{}, addr("10.0.0.100:1")))
					for j := range 20 {
						p := make([]byte, 1000*(j+1))
						must[int](t)(c.Write(p))
						must[int](t)(io.ReadFull(c, p))
						time.Sleep(time.Millisecond)
					}
					c.Close()
				})
			}
			wg.Wait()
		})
		return log.String()
	}
	a := run(1)
	for range 3 {
		if b := run(1); a != b {
			la, lb := strings.Split(a, "\n"), strings.Split(b, "\n")
			for i := range min(len(la), len(lb)) {
				if la[i] != lb[i] {
					t.Fatalf("event %d of %d differs:\n%s\n%s", i, len(la), la[i], lb[i])
				}
			}
			t.Fatal("one trace is longer")
		}
	}
	if run(2) == a {
		t.Error("the seed changes nothing")
	}
	t.Logf("%d events", strings.Count(a, "\n"))
}

func TestUDP(t *testing.T) {
	bubble(t, Config{Access: Link{Bandwidth: 8e6}, Path: Link{Latency: 10 * time.Millisecond}}, func(t *testing.T, n *Network) {
		x, y := n.Host("10.0.0.1"), n.Host("10.0.0.2", "2001:db8::2")
		a := must[net.PacketConn](t)(x.ListenUDP(t.Context(), addr("0.0.0.0:0")))
		b := must[net.PacketConn](t)(y.ListenUDP(t.Context(), addr("10.0.0.2:53")))
		send := func(size int) {
			t.Helper()
			must[int](t)(a.WriteTo(make([]byte, size), b.LocalAddr()))
		}
		p := make([]byte, 2000)
		send(972)
		elapsed(t, 12*time.Millisecond, func() {
			n, from, err := b.ReadFrom(p)
			if n != 972 || err != nil || from.(*net.UDPAddr).IP.String() != "10.0.0.1" || from.(*net.UDPAddr).Port != a.LocalAddr().(*net.UDPAddr).Port {
				t.Errorf("%d from %v: %v", n, from, err)
			}
			b.WriteTo(p[:972], from)
		})
		elapsed(t, 12*time.Millisecond, func() { a.ReadFrom(p) })
		// Longer than the MTU.
		send(1473)
		send(1472)
		if n, _, _ := b.ReadFrom(p); n != 1472 {
			t.Errorf("%d bytes", n)
		}
		if _, err := a.WriteTo(make([]byte, 70000), b.LocalAddr()); !errors.Is(err, syscall.EMSGSIZE) {
			t.Error(err)
		}
		// The rest of a datagram is lost.
		send(100)
		if n, _, _ := b.ReadFrom(p[:10]); n != 10 {
			t.Errorf("%d bytes", n)
		}
		b.SetReadDeadline(time.Now().Add(time.Second))
		elapsed(t, time.Second, func() {
			if _, _, err := b.ReadFrom(p); !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Error(err)
			}
		})
		// A queue of 64 KiB, and two packets that do not wait.
		b.SetReadDeadline(time.Time{})
		for range 200 {
			send(972)
		}
		got := 0
		b.SetReadDeadline(time.Now().Add(5 * time.Second))
		for {
			if _, _, err := b.ReadFrom(p); err != nil {
				break
			}
			got++
		}
		if got != 65536/1000 {
			t.Errorf("%d of 200 datagrams fitted into a queue of 65", got)
		}
		// A full socket.
		b.(*PacketConn).SetReadBuffer(10 * (972 + 256))
		for range 20 {
			send(972)
		}
		time.Sleep(time.Second)
		got = 0
		b.SetReadDeadline(time.Now().Add(time.Second))
		for ; ; got++ {
			if _, _, err := b.ReadFrom(p); err != nil {
				break
			}
		}
		if got != 10 {
			t.Errorf("%d datagrams in a buffer for 10", got)
		}
		if _, err := a.WriteTo(p, &net.UDPAddr{IP: net.ParseIP("2001:db8::2"), Port: 1}); err == nil {
			t.Error("wrote from IPv4 to IPv6")
		}
		if _, err := a.WriteTo(p, &net.UDPAddr{IP: net.ParseIP("10.0.0.77"), Port: 1}); err != nil {
			t.Error(err)
		}
		go a.Close()
		if _, _, err := a.ReadFrom(p); !errors.Is(err, net.ErrClosed) {
			t.Error(err)
		}
		if _, err := a.WriteTo(p, b.LocalAddr()); !errors.Is(err, net.ErrClosed) {
			t.Error(err)
		}
		time.Sleep(time.Second)
		idle(t, n)
	})
}

func TestUDPFaults(t *testing.T) {
	const total = 10000
	receive := func(t *testing.T, l Link) (seq []int) {
		bubble(t, Config{Path: l}, func(t *testing.T, n *Network) {
			x, y := n.Host("10.0.0.1"), n.Host("10.0.0.2")
			a := must[net.PacketConn](t)(x.ListenUDP(t.Context(), addr("0.0.0.0:0")))
			b := must[net.PacketConn](t)(y.ListenUDP(t.Context(), addr("10.0.0.2:53")))
			go func() {
				for i := range total {
					a.WriteTo([]byte{byte(i >> 8), byte(i)}, b.LocalAddr())
					time.Sleep(100 * time.Microsecond)
				}
				time.Sleep(time.Second)
				b.Close()
			}()
			p := make([]byte, 2)
			for {
				if _, _, err := b.ReadFrom(p); err != nil {
					return
				}
				seq = append(seq, int(p[0])<<8|int(p[1]))
			}
		})
		return seq
	}
	near := func(t *testing.T, what string, got int, share float64) {
		t.Helper()
		want := share * total
		if math.Abs(float64(got)-want) > 4*math.Sqrt(want) {
			t.Errorf("%d packets %s, want about %.0f", got, what, want)
		}
	}
	overtaken := func(seq []int) (n int) {
		for i, top := 0, -1; i < len(seq); i++ {
			if seq[i] < top {
				n++
			}
			top = max(top, seq[i])
		}
		return n
	}
	t.Run("loss", func(t *testing.T) {
		near(t, "lost", total-len(receive(t, Link{Loss: 0.05})), 0.05)
	})
	t.Run("jitter", func(t *testing.T) {
		if seq := receive(t, Link{Latency: 10 * time.Millisecond, Jitter: 10 * time.Millisecond}); overtaken(seq) != 0 || len(seq) != total {
			t.Errorf("%d of %d packets overtaken", overtaken(seq), len(seq))
		}
	})
	t.Run("reorder", func(t *testing.T) {
		seq := receive(t, Link{Latency: 10 * time.Millisecond, Reorder: 0.05})
		near(t, "overtaken", overtaken(seq), 0.05)
		if len(seq) != total {
			t.Errorf("%d packets", len(seq))
		}
	})
}

// A burst at one instant blocks the writer until the network has taken it.
func TestUDPBurst(t *testing.T) {
	bubble(t, Config{}, func(t *testing.T, n *Network) {
		x, y := n.Host("10.0.0.1"), n.Host("10.0.0.2")
		a := must[net.PacketConn](t)(x.ListenUDP(t.Context(), addr("0.0.0.0:0")))
		b := must[net.PacketConn](t)(y.ListenUDP(t.Context(), addr("10.0.0.2:53")))
		b.(*PacketConn).SetReadBuffer(100 << 20)
		elapsed(t, 0, func() {
			for range 10000 {
				must[int](t)(a.WriteTo(make([]byte, 1000), b.LocalAddr()))
			}
			for range 10000 {
				b.ReadFrom(make([]byte, 1000))
			}
		})
	})
}

func TestDNS(t *testing.T) {
	bubble(t, Config{Lookup: 30 * time.Millisecond}, func(t *testing.T, n *Network) {
		h := n.Host("10.0.0.1")
		n.SetDNS("Example.com", "10.0.0.2", "2001:db8::2")
		n.SetTXT("_dnsaddr.example.com", "dnsaddr=/ip4/10.0.0.2")
		for network, want := range map[string]string{"ip": "[10.0.0.2 2001:db8::2]", "ip4": "[10.0.0.2]", "ip6": "[2001:db8::2]"} {
			elapsed(t, 30*time.Millisecond, func() {
				got, err := h.LookupNetIP(t.Context(), network, "example.com.")
				if err != nil || fmt.Sprint(got) != want {
					t.Errorf("%s: %v, %v", network, got, err)
				}
			})
		}
		elapsed(t, 0, func() { must[[]netip.Addr](t)(h.LookupNetIP(t.Context(), "ip", "10.1.1.1")) })
		if got, err := h.LookupTXT(t.Context(), "_dnsaddr.example.com"); err != nil || len(got) != 1 {
			t.Error(got, err)
		}
		for _, name := range []string{"nobody.example.com", ""} {
			_, err := h.LookupNetIP(t.Context(), "ip", name)
			if dns := (*net.DNSError)(nil); !errors.As(err, &dns) || !dns.IsNotFound {
				t.Error(err)
			}
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		if _, err := h.LookupTXT(ctx, "example.com"); !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
		if got := must[[]netip.Addr](t)(h.Addrs()); fmt.Sprint(got) != "[10.0.0.1]" {
			t.Error(got)
		}
	})
}

// Each write is a packet, and what waits is put together.
func TestRecorder(t *testing.T) {
	var rec Recorder
	var file bytes.Buffer
	bubble(t, Config{Path: Link{Latency: 10 * time.Millisecond}, Trace: Tee(rec.Record, Pcap(&file))}, func(t *testing.T, n *Network) {
		c, d := pair(t, n.Host("10.0.0.1"), n.Host("10.0.0.2", "2001:db8::2"))
		time.Sleep(time.Second)
		there, back := Between("10.0.0.1", "10.0.0.2"), Between("10.0.0.2", "10.0.0.1")
		if got := rec.Sum(there); got.Packets != 2 || got.Bytes != 80 {
			t.Errorf("SYN and acknowledgement: %+v", got)
		}
		rec.Reset()
		for range 3 {
			must[int](t)(c.Write(make([]byte, 100)))
		}
		must[int](t)(io.ReadFull(d, make([]byte, 300)))
		must[int](t)(d.Write([]byte("answer")))
		must[int](t)(io.ReadFull(c, make([]byte, 6)))
		if got, want := rec.Sum(there), (Counters{Writes: 3, Written: 300, Packets: 3, DataPackets: 3, Bytes: 420}); got != want {
			t.Errorf("%+v, want %+v", got, want)
		}
		// The acknowledgement travels with the answer.
		if got, want := rec.Sum(back), (Counters{Writes: 1, Written: 6, Packets: 1, DataPackets: 1, Bytes: 46}); got != want {
			t.Errorf("%+v, want %+v", got, want)
		}
		if s := c.Stats(); s.Writes != 3 || s.DataPackets != 3 || s.Written != 300 || s.RTT != 20*time.Millisecond {
			t.Errorf("%+v", s)
		}
		rec.Reset()
		go io.Copy(io.Discard, d)
		for range 1000 {
			must[int](t)(c.Write(make([]byte, 100)))
		}
		time.Sleep(time.Second)
		// One each as far as the first window goes, and the rest in long ones.
		if got := rec.Sum(there); got.Packets > 146+60 || got.Writes != 1000 {
			t.Errorf("%+v", got)
		}
	})
	b := file.Bytes()
	if len(b) < 24+16+40 || !bytes.Equal(b[:4], []byte{0x4d, 0x3c, 0xb2, 0xa1}) || b[40] != 0x45 || b[40+33] != byte(SYN) {
		t.Errorf("% x", b[:min(len(b), 100)])
	}
}

// After Close everything fails and nothing blocks.
func TestNetworkClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := New(Config{Path: Link{Latency: time.Second}})
		x, y := n.Host("10.0.0.1"), n.Host("10.0.0.2")
		c, d := pair(t, x, y)
		l := listen(t, y, "10.0.0.2:9")
		u := must[net.PacketConn](t)(y.ListenUDP(t.Context(), addr("10.0.0.2:9")))
		var wg sync.WaitGroup
		for name, f := range map[string]func() error{
			"read":   func() error { _, err := c.Read(make([]byte, 1)); return err },
			"write":  func() error { _, err := d.Write(make([]byte, 1e6)); return err },
			"accept": func() error { _, err := l.Accept(); return err },
			"dial": func() error {
				_, err := x.DialTCP(context.Background(), netip.AddrPort{}, addr("10.0.0.2:9"))
				return err
			},
			"udp": func() error { _, _, err := u.ReadFrom(nil); return err },
		} {
			for range 2 { // before and after
				wg.Go(func() {
					if err := f(); !errors.Is(err, net.ErrClosed) {
						t.Errorf("%s: %v", name, err)
					}
				})
				time.Sleep(time.Millisecond)
			}
		}
		n.Close()
		wg.Wait()
		n.Close()
		if err := c.SetDeadline(time.Now().Add(time.Hour)); err != nil && !errors.Is(err, net.ErrClosed) {
			t.Error(err)
		}
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
}

// An address can move to another host, and back.
func TestSetAddrs(t *testing.T) {
	bubble(t, Config{}, func(t *testing.T, n *Network) {
		x, y := n.Host("10.0.0.1"), n.Host("10.0.0.2")
		l := listen(t, y, "0.0.0.0:1")
		y.SetAddrs("10.0.0.3")
		must[net.Conn](t)(x.DialTCP(t.Context(), netip.AddrPort{}, addr("10.0.0.3:1")))
		if c := must[net.Conn](t)(l.Accept()); c.LocalAddr().String() != "10.0.0.3:1" {
			t.Error(c.LocalAddr())
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := x.DialTCP(ctx, netip.AddrPort{}, addr("10.0.0.2:1")); !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
		defer func() {
			if recover() == nil {
				t.Error("two hosts with one address")
			}
		}()
		n.Host("10.0.0.3")
	})
}

// Each of 1000 hosts talks to five others.
func TestThousandHosts(t *testing.T) {
	start := time.Now()
	bubble(t, Config{Access: Link{Bandwidth: 100e6}, Path: Link{Latency: 20 * time.Millisecond}}, func(t *testing.T, n *Network) {
		var hosts []*Host
		for i := range 1000 {
			h := n.Host(fmt.Sprintf("10.0.%d.%d", i/250, i%250+1))
			hosts = append(hosts, h)
			l := listen(t, h, "0.0.0.0:1")
			go func() {
				for {
					c, err := l.Accept()
					if err != nil {
						return
					}
					go func() {
						io.Copy(c, c)
						c.Close()
					}()
				}
			}()
		}
		var wg sync.WaitGroup
		for i, h := range hosts {
			wg.Go(func() {
				for j := range 5 {
					to := hosts[(i+1+j*97)%len(hosts)]
					c, err := h.DialTCP(t.Context(), netip.AddrPort{}, netip.AddrPortFrom(to.ips[0], 1))
					if err != nil {
						t.Error(err)
						return
					}
					p := make([]byte, 1000)
					must[int](t)(c.Write(p))
					must[int](t)(io.ReadFull(c, p))
					c.Close()
				}
			})
		}
		wg.Wait()
	})
	t.Log("5000 connections in", time.Since(start))
}

// In real time, where only the network's own work counts.
func BenchmarkTransfer(b *testing.B) {
	const size = 10e6
	b.SetBytes(size)
	b.ReportAllocs()
	for b.Loop() {
		n := New(Config{})
		c, d := pair(b, n.Host("10.0.0.1"), n.Host("10.0.0.2"))
		transfer(b, c, d, size)
		n.Close()
	}
}

func BenchmarkRoundTrip(b *testing.B) {
	n := New(Config{})
	defer n.Close()
	c, d := pair(b, n.Host("10.0.0.1"), n.Host("10.0.0.2"))
	go io.Copy(d, d)
	p := make([]byte, 100)
	b.ReportAllocs()
	for b.Loop() {
		c.Write(p)
		io.ReadFull(c, p)
	}
}
