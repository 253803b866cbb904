package websocket

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	ma "github.com/multiformats/go-multiaddr"
	xws "golang.org/x/net/websocket"

	"github.com/plexus-p2p/plexus"
	"github.com/plexus-p2p/plexus/muxer"
	"github.com/plexus-p2p/plexus/muxer/yamux"
	"github.com/plexus-p2p/plexus/peer"
	"github.com/plexus-p2p/plexus/security"
	"github.com/plexus-p2p/plexus/security/noise"
	"github.com/plexus-p2p/plexus/simnet"
	"github.com/plexus-p2p/plexus/transport"
	"github.com/plexus-p2p/plexus/transport/tcp"
)

// host makes a host with WebSocket before TCP, that echoes.
func host(t testing.TB, n *simnet.Host, ws *Transport, listen ...string) *plexus.Host {
	t.Helper()
	ws.TCP = new(tcp.Transport)
	cfg := plexus.Config{
		Pipes:    []transport.Pipes{ws, ws.TCP},
		Security: []security.Protocol{&noise.Protocol{}},
		Muxers:   []muxer.Muxer{&yamux.Muxer{}},
	}
	if n != nil {
		ws.TCP.Network, cfg.Network = n, n
	}
	var err error
	if cfg.Key, err = peer.GenerateKey(peer.Ed25519); err != nil {
		t.Fatal(err)
	}
	h, err := plexus.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.Close() })
	h.Handle("/echo", func(_ context.Context, s *plexus.Stream) error {
		_, err := io.Copy(s, s)
		return err
	})
	for _, a := range listen {
		if err := h.Listen(t.Context(), ma.StringCast(a)); err != nil {
			t.Fatal(err)
		}
	}
	return h
}

// talk dials an address of y and has an answer.
func talk(t *testing.T, x, y *plexus.Host, at string) {
	t.Helper()
	c, err := x.Dial(t.Context(), peer.AddrInfo{ID: y.ID(), Addrs: []ma.Multiaddr{ma.StringCast(at)}})
	if err != nil {
		t.Error(err)
		return
	}
	defer c.Close()
	s, err := x.Open(t.Context(), y.ID(), "/echo")
	if err != nil {
		t.Error(err)
		return
	}
	s.Write([]byte("hello"))
	s.CloseWrite()
	if got, err := io.ReadAll(s); string(got) != "hello" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
}

// Round trips until the first answer: TCP, HTTP, Noise, and the request.
func TestFigureRoundTrips(t *testing.T) {
	const rtt = 100 * time.Millisecond
	synctest.Test(t, func(t *testing.T) {
		n := simnet.New(simnet.Config{Path: simnet.Link{Latency: rtt / 2}})
		defer n.Close()
		x := host(t, n.Host("10.0.0.1"), new(Transport))
		y := host(t, n.Host("10.0.0.2"), new(Transport), "/ip4/10.0.0.2/tcp/4001/ws")
		defer y.Close()
		defer x.Close()
		begin := time.Now()
		if _, err := x.Dial(t.Context(), y.Info()); err != nil {
			t.Fatal(err)
		}
		s, err := x.Open(t.Context(), y.ID(), "/echo")
		if err != nil {
			t.Fatal(err)
		}
		s.Write([]byte("x"))
		if _, err := s.Read(make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
		trips := float64(time.Since(begin)) / float64(rtt)
		t.Logf("first echo after %.2f round trips", trips)
		if trips > 4.01 {
			t.Errorf("%.2f round trips, want 4", trips)
		}
	})
}

// TestOnePort: TCP, WebSocket, WebSocket over TLS and a web site on one port.
func TestOnePort(t *testing.T) {
	server, client := certificate(t, []string{"10.0.0.2"})
	synctest.Test(t, func(t *testing.T) {
		n := simnet.New(simnet.Config{Path: simnet.Link{Latency: time.Millisecond}})
		defer n.Close()
		far := n.Host("10.0.0.1")
		x := host(t, far, &Transport{TLSClientConfig: client})
		const at = "/ip4/10.0.0.2/tcp/4001"
		y := host(t, n.Host("10.0.0.2"), &Transport{
			TLSConfig: server,
			Handler:   http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "site ", r.URL.Path) }),
		}, at, at+"/ws/http-path/p2p", at+"/tls/ws")
		defer y.Close()
		defer x.Close()
		talk(t, x, y, at)
		talk(t, x, y, at+"/ws/http-path/p2p")
		talk(t, x, y, at+"/tls/ws")
		talk(t, x, y, at+"/wss")

		tr := &http.Transport{
			DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
				return (&tcp.Transport{Network: far}).Dial(ctx, ma.StringCast(at))
			},
			TLSClientConfig: client,
		}
		for _, url := range []string{"http://10.0.0.2:4001/", "https://10.0.0.2:4001/", "http://10.0.0.2:4001/p2p"} {
			for range 2 {
				resp, err := (&http.Client{Transport: tr}).Get(url)
				if err != nil {
					t.Fatal(err)
				}
				if got, _ := io.ReadAll(resp.Body); resp.StatusCode != 200 || string(got)[:6] != "site /" {
					t.Errorf("%s: %s %q", url, resp.Status, got)
				}
				resp.Body.Close()
			}
		}
		tr.CloseIdleConnections()
	})
}

// TestNames: the host resolves names, and asks for them in TLS.
func TestNames(t *testing.T) {
	server, client := certificate(t, nil, "y.example")
	synctest.Test(t, func(t *testing.T) {
		n := simnet.New(simnet.Config{Path: simnet.Link{Latency: time.Millisecond}})
		defer n.Close()
		n.SetDNS("y.example", "10.0.0.2")
		x := host(t, n.Host("10.0.0.1"), &Transport{TLSClientConfig: client})
		y := host(t, n.Host("10.0.0.2"), &Transport{TLSConfig: server},
			"/ip4/10.0.0.2/tcp/443/wss", "/ip4/10.0.0.2/tcp/80/ws/http-path/a%2Fb")
		n.SetTXT("_dnsaddr.net.example", "dnsaddr=/dns4/y.example/tcp/443/wss/p2p/"+y.ID().String())
		defer y.Close()
		defer x.Close()
		for _, a := range []string{
			"/dns4/y.example/tcp/443/wss", "/dns/y.example/tcp/443/tls/ws", "/dns/y.example/wss", "/dnsaddr/net.example",
			"/dns4/y.example/tcp/443/tls/sni/y.example/ws", "/dns4/y.example/tcp/80/ws/http-path/a%2Fb", "/dns/y.example/ws/http-path/a%2Fb",
		} {
			talk(t, x, y, a)
		}
	})
}

// TestOther talks to another implementation, in both roles.
func TestOther(t *testing.T) {
	echo := func(c io.ReadWriter) { io.Copy(c, c) }
	data := make([]byte, 100e3)
	for i := range data {
		data[i] = byte(i * i)
	}
	check := func(c io.ReadWriter) {
		t.Helper()
		go c.Write(data)
		got := make([]byte, len(data))
		if _, err := io.ReadFull(c, got); err != nil || string(got) != string(data) {
			t.Error("the echo differs:", err)
		}
	}

	inner, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := http.Server{Handler: xws.Server{Handler: func(c *xws.Conn) { c.PayloadType = xws.BinaryFrame; echo(c) }}}
	go s.Serve(inner)
	defer s.Close()
	below, _ := transport.Multiaddr(inner.Addr())
	c, err := new(Transport).Dial(t.Context(), below.Encapsulate(plain))
	if err != nil {
		t.Fatal(err)
	}
	check(c)
	c.Close()

	l, err := new(Transport).Listen(t.Context(), ma.StringCast("/ip4/127.0.0.1/tcp/0/ws"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		c, err := l.Accept()
		if err == nil {
			echo(c)
			c.Close()
		}
	}()
	cfg, _ := xws.NewConfig("ws://"+l.(*listener).inner.Addr().String()+"/any", "https://evil.example/")
	x, err := xws.DialConfig(cfg)
	if err != nil {
		t.Fatal(err)
	}
	x.PayloadType = xws.BinaryFrame
	check(x)
	x.Close()
}

// BenchmarkNoise sends one way through two hosts over loopback: WebSocket or TCP, Noise, yamux.
func BenchmarkNoise(b *testing.B) {
	for _, suffix := range []string{"", "/ws"} {
		b.Run("tcp"+suffix, func(b *testing.B) {
			x, y := host(b, nil, new(Transport)), host(b, nil, new(Transport), "/ip4/127.0.0.1/tcp/0"+suffix)
			done := make(chan int64, 1)
			y.Handle("/discard", func(_ context.Context, s *plexus.Stream) error {
				n, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, s, make([]byte, 64<<10))
				done <- n
				return err
			})
			if _, err := x.Dial(b.Context(), y.Info()); err != nil {
				b.Fatal(err)
			}
			s, err := x.Open(b.Context(), y.ID(), "/discard")
			if err != nil {
				b.Fatal(err)
			}
			p := make([]byte, 64<<10)
			b.SetBytes(int64(len(p)))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := s.Write(p); err != nil {
					b.Fatal(err)
				}
			}
			s.CloseWrite()
			<-done
		})
	}
}
