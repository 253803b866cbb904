package websocket

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	ma "github.com/multiformats/go-multiaddr"

	"github.com/plexus-p2p/plexus/simnet"
	"github.com/plexus-p2p/plexus/transport/tcp"
)

var at = ma.StringCast("/ip4/10.0.0.2/tcp/80/ws")

const upgrade = "GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: keep-alive, Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"

// hostile runs f in a bubble, with a TCP client, and a listener of a WebSocket server.
func hostile(t *testing.T, f func(t *testing.T, dial func() net.Conn, server *Transport, l net.Listener)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		n := simnet.New(simnet.Config{Path: simnet.Link{Latency: time.Millisecond}})
		defer n.Close()
		client, server := &tcp.Transport{Network: n.Host("10.0.0.1")}, &Transport{TCP: &tcp.Transport{Network: n.Host("10.0.0.2")}}
		l, err := server.Listen(t.Context(), at)
		if err != nil {
			t.Fatal(err)
		}
		defer time.Sleep(time.Second) // net/http closes at leisure
		defer l.Close()
		f(t, func() net.Conn {
			c, err := client.Dial(t.Context(), at[:2])
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { c.Close() })
			return c
		}, server, l)
	})
}

// upgraded returns a raw client and the accepted connection.
func upgraded(t *testing.T, dial func() net.Conn, l net.Listener) (raw, c net.Conn) {
	t.Helper()
	raw = dial()
	io.WriteString(raw, upgrade)
	resp, err := http.ReadResponse(bufio.NewReader(raw), nil)
	// "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
	// https://www.rfc-editor.org/rfc/rfc6455#section-1.3
	if err != nil || resp.StatusCode != 101 || resp.Header.Get("Sec-WebSocket-Accept") != "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" {
		t.Fatalf("%v, %v", resp, err)
	}
	c, err = l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return raw, c
}

// A client that sends one byte a second has requestIn.
func TestSlowRequest(t *testing.T) {
	hostile(t, func(t *testing.T, dial func() net.Conn, _ *Transport, l net.Listener) {
		for name, what := range map[string]string{"slow": upgrade[:40], "silent": "", "slow body": strings.Repeat("x", 100)} {
			c := dial()
			begin := time.Now()
			if name == "slow body" {
				io.WriteString(c, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n")
			}
			done := make(chan struct{})
			go func() {
				defer close(done)
				for i := range what {
					time.Sleep(time.Second)
					if _, err := c.Write([]byte{what[i]}); err != nil {
						return
					}
				}
			}()
			io.Copy(io.Discard, c)
			if took := time.Since(begin); took > requestIn+time.Second {
				t.Errorf("%s: it took %v", name, took)
			}
			c.Close()
			<-done
		}
		// Slow is not too slow.
		c := dial()
		for i := range upgrade {
			time.Sleep(requestIn / 2 / time.Duration(len(upgrade)))
			c.Write([]byte{upgrade[i]})
		}
		if _, err := l.Accept(); err != nil {
			t.Error(err)
		}
	})
}

// Too long a request, or one that asks for something else, is refused.
func TestWrongRequests(t *testing.T) {
	hostile(t, func(t *testing.T, dial func() net.Conn, server *Transport, l net.Listener) {
		for _, c := range []struct {
			request string
			want    int
		}{
			{upgrade[:16] + "X: " + strings.Repeat("x", maxHeader+5000) + "\r\n" + upgrade[16:], 431},
			{upgrade[:16] + strings.Repeat("X: x\r\n", maxHeader/2) + upgrade[16:], 431},
			{"GET / HTTP/1.1\r\nHost: x\r\n\r\n", 404},
			{strings.Replace(upgrade, "GET", "POST", 1), 404},
			{strings.Replace(upgrade, "Upgrade: websocket", "Upgrade: h2c", 1), 404},
			{strings.Replace(upgrade, "alive, Upgrade", "alive", 1), 404},
			{strings.Replace(upgrade, "13", "8", 1), 426},
			{strings.Replace(upgrade, "dGhl", "", 1), 400},
			{strings.Replace(upgrade, "Sec-WebSocket-Key", "X", 1), 400},
			{"\x13/multistream/1.0.0\n\x07/noise\n\r\n\r\n", 400},
		} {
			raw := dial()
			go io.WriteString(raw, c.request)
			resp, err := http.ReadResponse(bufio.NewReader(raw), nil)
			if err != nil || resp.StatusCode != c.want {
				t.Errorf("%.60q: %v, %v; want %d", c.request, resp, err, c.want)
			}
			raw.Close()
		}
	})
}

// Connections that are not accepted yet make room for new ones, the oldest first.
func TestPending(t *testing.T) {
	hostile(t, func(t *testing.T, dial func() net.Conn, _ *Transport, l net.Listener) {
		var all []net.Conn
		before := runtime.NumGoroutine()
		for i := range maxPending + 3 {
			c := dial()
			if i%2 == 0 {
				io.WriteString(c, upgrade)
			}
			all = append(all, c)
			synctest.Wait()
		}
		if n := runtime.NumGoroutine() - before; n > maxPending+2 {
			t.Errorf("%d goroutines", n)
		}
		begin := time.Now()
		for i, c := range all[:3] {
			if _, err := io.Copy(io.Discard, c); time.Since(begin) > time.Second {
				t.Errorf("connection %d still waits: %v", i, err)
			}
		}
		for range maxPending / 2 { // those that left are not accepted
			c, err := l.Accept()
			if err != nil {
				t.Fatal(err)
			}
			c.Close()
		}
		upgraded(t, dial, l)
	})
}

// A frame may announce what it likes: what comes of it is read as it comes.
func TestHugeFrame(t *testing.T) {
	hostile(t, func(t *testing.T, dial func() net.Conn, _ *Transport, l net.Listener) {
		raw, c := upgraded(t, dial, l)
		raw.Write([]byte("\x82\xff\x7f\xff\xff\xff\xff\xff\xff\xff\x00\x00\x00\x00abc"))
		b := make([]byte, 100)
		if n, err := io.ReadAtLeast(c, b, 3); string(b[:n]) != "abc" || err != nil {
			t.Errorf("%q, %v", b[:n], err)
		}
		raw.Close()
		if _, err := c.Read(b); err != io.ErrUnexpectedEOF {
			t.Errorf("a frame that ends early: %v", err)
		}
	})
}

// An error is final, and the peer learns what it was.
func TestViolationCloses(t *testing.T) {
	for name, frame := range bad {
		hostile(t, func(t *testing.T, dial func() net.Conn, _ *Transport, l net.Listener) {
			raw, c := upgraded(t, dial, l)
			raw.Write([]byte(frame))
			for range 2 {
				if _, err := c.Read(make([]byte, 100)); !errors.Is(err, ErrProtocol) {
					t.Errorf("%s: %v", name, err)
				}
			}
			c.Close()
			want := "\x88\x02\x03\xea" // 1002
			if name == "text" {
				want = "\x88\x02\x03\xeb" // 1003
			}
			if got, _ := io.ReadAll(raw); string(got) != want {
				t.Errorf("%s: the peer reads %x, want %x", name, got, want)
			}
		})
	}
}

// "Upon receipt of a Ping frame, an endpoint MUST send a Pong frame in response"
// https://www.rfc-editor.org/rfc/rfc6455#section-5.5.2
func TestPing(t *testing.T) {
	hostile(t, func(t *testing.T, dial func() net.Conn, _ *Transport, l net.Listener) {
		raw, c := upgraded(t, dial, l)
		go io.Copy(io.Discard, c)
		for range 3 {
			raw.Write(appendFrame(nil, opPing, []byte("hello"), &testKey))
			want := appendFrame(nil, opPong, []byte("hello"), nil)
			got := make([]byte, len(want))
			if _, err := io.ReadFull(raw, got); err != nil || !bytes.Equal(got, want) {
				t.Errorf("%x, %v; want %x", got, err, want)
			}
		}
	})
}

// A peer that pings and does not read what it gets back costs one goroutine, and
// data goes on.
func TestPingFlood(t *testing.T) {
	hostile(t, func(t *testing.T, dial func() net.Conn, _ *Transport, l net.Listener) {
		raw, c := upgraded(t, dial, l)
		go func() { // fills the way to the peer, so that Pongs wait
			for {
				if _, err := c.Write(make([]byte, 64<<10)); err != nil {
					return
				}
			}
		}()
		synctest.Wait()
		before := runtime.NumGoroutine()
		flood := bytes.Repeat(appendFrame(nil, opPing, make([]byte, 125), &testKey), 1000)
		for range 10 {
			go raw.Write(append(flood, appendFrame(nil, opBinary, []byte("data"), &testKey)...))
			b := make([]byte, 4)
			if _, err := io.ReadFull(c, b); err != nil || string(b) != "data" {
				t.Fatalf("%q, %v", b, err)
			}
			synctest.Wait()
			if n := runtime.NumGoroutine(); n > before+3 { // a Pong's, and simnet's
				t.Errorf("%d goroutines more", n-before)
			}
		}
		c.Close()
		synctest.Wait()
		// A goroutine counts for a moment longer than the bubble waits for it.
		for i := 0; runtime.NumGoroutine() >= before; i++ {
			if i == 1<<20 {
				t.Fatalf("%d goroutines, of %d, are left", runtime.NumGoroutine(), before)
			}
			runtime.Gosched()
		}
	})
}

// A peer that closes gets no more than what was written, and its Close frame is answered.
func TestPeerCloses(t *testing.T) {
	hostile(t, func(t *testing.T, dial func() net.Conn, _ *Transport, l net.Listener) {
		raw, c := upgraded(t, dial, l)
		raw.Write(append(appendFrame(nil, opBinary, []byte("last"), &testKey), appendFrame(nil, opClose, []byte("\x03\xe9why"), &testKey)...))
		if got, err := io.ReadAll(c); string(got) != "last" || err != nil {
			t.Errorf("%q, %v", got, err)
		}
		c.Close()
		if got, _ := io.ReadAll(raw); string(got) != "\x88\x02\x03\xe8" {
			t.Errorf("the peer reads %x", got)
		}
	})
}

// TestHostileServer: a client believes no answer but the right one.
func TestHostileServer(t *testing.T) {
	const good = "HTTP/1.1 101 x\r\nUpgrade: WebSocket\r\nConnection: upgrade\r\nSec-WebSocket-Accept: KEY\r\n"
	for _, c := range []struct{ name, answer, want string }{
		{"", good + "\r\n", ""},
		{"not found", "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", "404 Not Found"},
		{"redirect", "HTTP/1.1 301 x\r\nLocation: ws://127.0.0.1/\r\n\r\n", "301"},
		{"another key", strings.Replace(good, "KEY", "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=", 1) + "\r\n", "something else"},
		{"another protocol", strings.Replace(good, "WebSocket", "h2c", 1) + "\r\n", "something else"},
		{"extension", good + "Sec-WebSocket-Extensions: permessage-deflate\r\n\r\n", "not asked for"},
		{"subprotocol", good + "Sec-WebSocket-Protocol: x\r\n\r\n", "not asked for"},
		{"endless", good + strings.Repeat("X: x\r\n", maxHeader), "no answer"},
		{"endless line", good + strings.Repeat("x", 3*maxHeader), "no answer"},
		{"SSH", "SSH-2.0-x\r\n", "no answer"},
		{"nothing", "", "no answer"},
	} {
		synctest.Test(t, func(t *testing.T) {
			n := simnet.New(simnet.Config{})
			defer n.Close()
			server := &tcp.Transport{Network: n.Host("10.0.0.2")}
			l, err := server.Listen(t.Context(), at[:2])
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			go func() {
				s, err := l.Accept()
				if err != nil {
					return
				}
				r, err := http.ReadRequest(bufio.NewReader(s))
				if err == nil {
					io.WriteString(s, strings.Replace(c.answer, "KEY", accept(r.Header.Get("Sec-WebSocket-Key")), 1))
				}
				s.(interface{ CloseWrite() error }).CloseWrite()
				io.Copy(io.Discard, s)
				s.Close()
			}()
			client := &Transport{TCP: &tcp.Transport{Network: n.Host("10.0.0.1")}}
			conn, err := client.Dial(t.Context(), at)
			if c.want == "" {
				if err != nil {
					t.Fatal(err)
				}
				conn.Close()
			} else if !errors.Is(err, ErrHandshake) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%s: %v", c.name, err)
			}
		})
	}
}

// A server that answers late is given up on when ctx ends.
func TestSilentServer(t *testing.T) {
	for _, suffix := range []string{"/ws", "/wss"} {
		synctest.Test(t, func(t *testing.T) {
			n := simnet.New(simnet.Config{})
			defer n.Close()
			server := &tcp.Transport{Network: n.Host("10.0.0.2")}
			l, err := server.Listen(t.Context(), at[:2])
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			client := &Transport{TCP: &tcp.Transport{Network: n.Host("10.0.0.1")}}
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			begin := time.Now()
			_, err = client.Dial(ctx, at[:2].Encapsulate(ma.StringCast(suffix)))
			if !errors.Is(err, context.DeadlineExceeded) || time.Since(begin) > 2*time.Second {
				t.Errorf("%s: %v after %v", suffix, err, time.Since(begin))
			}
		})
	}
}

// connected returns both ends of a connection on n.
func connected(t *testing.T, n *simnet.Network, suffix string, server, client *tls.Config) (c, d net.Conn) {
	t.Helper()
	s := &Transport{TCP: &tcp.Transport{Network: n.Host("10.0.0.2")}, TLSConfig: server}
	on := at[:2].Encapsulate(ma.StringCast(suffix))
	l, err := s.Listen(t.Context(), on)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c, err = (&Transport{TCP: &tcp.Transport{Network: n.Host("10.0.0.1")}, TLSClientConfig: client}).Dial(t.Context(), on)
	if err != nil {
		t.Fatal(err)
	}
	if d, err = l.Accept(); err != nil {
		t.Fatal(err)
	}
	return c, d
}

// "One Write = one binary frame", in one write below, also with TLS.
func TestOneWrite(t *testing.T) {
	server, client := certificate(t, []string{"10.0.0.2"})
	for _, suffix := range []string{"/ws", "/wss"} {
		synctest.Test(t, func(t *testing.T) {
			n := simnet.New(simnet.Config{})
			defer n.Close()
			c, d := connected(t, n, suffix, server, client)
			for _, x := range [][2]net.Conn{{c, d}, {d, c}} {
				go io.Copy(io.Discard, x[1])
				stats := x[0].(*conn).Conn.(*simnet.Conn).Stats
				for _, size := range []int{1, 125, 126, 65535, 65536, maxFrame} {
					before := stats().Writes
					if n, err := x[0].Write(make([]byte, size)); n != size || err != nil {
						t.Fatal(n, err)
					}
					if got := stats().Writes - before; got != 1 {
						t.Errorf("%s: %d bytes took %d writes", suffix, size, got)
					}
				}
			}
			c.Close()
			d.Close()
		})
	}
}

// "A write that returns n and os.ErrDeadlineExceeded has taken n bytes; what of them has
// not been sent goes out first when the rest is written, even if there is no rest."
// Reads go on after a deadline, too.
func TestDeadlineLosesNothing(t *testing.T) {
	server, client := certificate(t, []string{"10.0.0.2"})
	for _, suffix := range []string{"/ws", "/wss"} {
		synctest.Test(t, func(t *testing.T) {
			n := simnet.New(simnet.Config{Path: simnet.Link{Latency: time.Millisecond, Bandwidth: 10e6}})
			defer n.Close()
			c, d := connected(t, n, suffix, server, client)
			defer d.Close()
			want := make([]byte, 3<<20)
			for i := range want {
				want[i] = byte(i * i >> 4)
			}
			late := 0
			var lateWrites atomic.Int64
			go func() {
				for sent := 0; sent < len(want); {
					c.SetWriteDeadline(time.Now().Add(3 * time.Millisecond))
					n, err := c.Write(want[sent:min(len(want), sent+100e3)])
					if errors.Is(err, os.ErrDeadlineExceeded) {
						lateWrites.Add(1)
					} else if err != nil {
						t.Error(err)
						return
					}
					sent += n
				}
				c.SetWriteDeadline(time.Time{})
				if _, err := c.Write(nil); err != nil { // there is no rest
					t.Error(err)
				}
			}()
			got, b := []byte(nil), make([]byte, 50e3)
			for len(got) < len(want) {
				d.SetReadDeadline(time.Now().Add(time.Millisecond / 2))
				n, err := d.Read(b)
				got = append(got, b[:n]...)
				if errors.Is(err, os.ErrDeadlineExceeded) {
					late++
				} else if err != nil {
					t.Fatal(err)
				}
			}
			if !bytes.Equal(got, want) || late < 100 || lateWrites.Load() < 100 {
				t.Errorf("%s: wrong bytes, or only %d and %d deadlines", suffix, late, lateWrites.Load())
			}
			synctest.Wait()
			c.Close()
		})
	}
}

func TestParse(t *testing.T) {
	for _, c := range []struct{ addr, at, host, target string }{
		{"/ip4/1.2.3.4/ws", "1.2.3.4:80", "1.2.3.4", "/"},
		{"/ip4/1.2.3.4/tls/ws", "1.2.3.4:443", "1.2.3.4", "/"},
		{"/ip4/1.2.3.4/wss", "1.2.3.4:443", "1.2.3.4", "/"},
		{"/ip6/2001:db8::1/wss", "[2001:db8::1]:443", "[2001:db8::1]", "/"},
		{"/ip6/2001:db8::1/tcp/1/ws", "[2001:db8::1]:1", "[2001:db8::1]:1", "/"},
		{"/ip6zone/eth0/ip6/fe80::1/tcp/1/ws", "[fe80::1%eth0]:1", "[fe80::1]:1", "/"},
		{"/ip4/1.2.3.4/tcp/5/tls/sni/a.example/ws", "1.2.3.4:5", "a.example:5", "/"},
		{"/ip4/1.2.3.4/tls/sni/a.example/ws/http-path/path%2Fto%2Fendpoint", "1.2.3.4:443", "a.example", "/path/to/endpoint"},
		{"/ip4/1.2.3.4/ws/http-path/a%0D%0AHost%3A%20b%3Fc%20d", "1.2.3.4:80", "1.2.3.4", "/a%0D%0AHost:%20b%3Fc%20d"},
	} {
		a, ok := parse(ma.StringCast(c.addr))
		if !ok || a.at.String() != c.at || a.host() != c.host || a.target() != c.target {
			t.Errorf("%s: %v, %v %q %q", c.addr, ok, a.at, a.host(), a.target())
		}
	}
	for _, s := range []string{
		"/ip4/1.2.3.4/tcp/1", "/ip4/1.2.3.4/tcp/1/tls", "/ip4/1.2.3.4/tcp/1/sni/x/ws", "/ip4/1.2.3.4/tcp/1/ws/ws", "/ip4/1.2.3.4/udp/1/ws",
		"/ip4/1.2.3.4/tcp/1/tls/wss", "/ip4/1.2.3.4/tcp/1/http", "/dns/x/tcp/1/ws", "/tcp/1/ws", "/ip4/1.2.3.4/tcp/1/http-path/x/ws", "/ip4/1.2.3.4/tcp/1/ws/p2p-circuit",
		"/ip4/1.2.3.4/tls/sni/x\r\nHost: y/ws", "/ip4/1.2.3.4/tls/sni/x y/ws", "/ip4/1.2.3.4/tls/sni/x:80/ws",
	} {
		if new(Transport).Match(ma.StringCast(s)) {
			t.Errorf("%s matches", s)
		}
	}
	if _, err := new(Transport).Listen(t.Context(), ma.StringCast("/ip4/127.0.0.1/tcp/0/wss")); err == nil || !strings.Contains(fmt.Sprint(err), "TLSConfig") {
		t.Errorf("listen without a certificate: %v", err)
	}
}

// Whatever a multiaddr says, a request is one: nobody's lines get into it.
func FuzzParse(f *testing.F) {
	for _, s := range []string{"/ip4/1.2.3.4/wss/http-path/a%0D%0Ab%20%3F", "/ip6zone/eth0/ip6/fe80::1/tcp/1/tls/sni/x/ws", "/ip4/1.2.3.4/tls/sni/x\r\ny/ws"} {
		f.Add(ma.StringCast(s).Bytes())
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := ma.NewMultiaddrBytes(b)
		if err != nil {
			return
		}
		a, ok := parse(m)
		if !ok {
			return
		}
		r, err := http.ReadRequest(bufio.NewReader(strings.NewReader("GET " + a.target() + " HTTP/1.1\r\nHost: " + a.host() + "\r\n\r\n")))
		if err != nil {
			t.Fatalf("%v: %v", m, err)
		}
		if r.Host != a.host() || len(r.Header) > 0 || r.URL.RawQuery != "" || a.path != "" && r.URL.Path != a.path {
			t.Fatalf("%v: %+v", m, r)
		}
	})
}
