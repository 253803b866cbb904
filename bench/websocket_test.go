package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	coder "github.com/coder/websocket"
	gobwas "github.com/gobwas/ws"
	"github.com/gobwas/ws/wsutil"
	gorilla "github.com/gorilla/websocket"
	ma "github.com/multiformats/go-multiaddr"

	"github.com/plexus-p2p/plexus/transport"
	"github.com/plexus-p2p/plexus/transport/websocket"
)

// BenchmarkWebSocket sends one way over loopback, from the end that dialed, so masked,
// one message for each write. It is why transport/websocket has a framing of its own:
//
//	go test -run - -bench WebSocket -count 5 .
//
// Beyond speed, a muxer needs deadlines that lose nothing. With gorilla and coder the
// first deadline that passes ends the connection, by their documentation; gobwas gives
// back the error amid a frame.
func BenchmarkWebSocket(b *testing.B) {
	for name, open := range map[string]func(b *testing.B) (w io.Writer, r io.Reader){
		"plexus": plexusWS, "gorilla": gorillaWS, "coder": coderWS, "gobwas": gobwasWS, "tcp": bareTCP,
	} {
		for _, size := range []int{1 << 10, 64 << 10} {
			b.Run(fmt.Sprintf("%s/%d", name, size), func(b *testing.B) {
				w, r := open(b)
				done := make(chan error, 1)
				total := int64(0)
				stop := make(chan int64, 1)
				go func() {
					buf := make([]byte, 128<<10)
					var got, want int64 = 0, -1
					for want < 0 || got < want {
						n, err := r.Read(buf)
						got += int64(n)
						if err != nil {
							done <- err
							return
						}
						select {
						case want = <-stop:
						default:
						}
					}
					done <- nil
				}()
				p := make([]byte, size)
				b.SetBytes(int64(size))
				b.ReportAllocs()
				for b.Loop() {
					if _, err := w.Write(p); err != nil {
						b.Fatal(err)
					}
					total += int64(size)
				}
				stop <- total + int64(size)
				w.Write(p)
				if err := <-done; err != nil {
					b.Fatal(err)
				}
			})
		}
	}
}

func plexusWS(b *testing.B) (io.Writer, io.Reader) {
	t := new(websocket.Transport)
	l, err := t.Listen(b.Context(), ma.StringCast("/ip4/127.0.0.1/tcp/0/ws"))
	if err != nil {
		b.Fatal(err)
	}
	at, err := transport.Multiaddr(l.Addr())
	if err != nil {
		b.Fatal(err)
	}
	c, err := t.Dial(b.Context(), at)
	if err != nil {
		b.Fatal(err)
	}
	s, err := l.Accept()
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { c.Close(); s.Close(); l.Close() })
	return c, s
}

// serveWS runs an HTTP server and returns its address for WebSockets.
func serveWS(b *testing.B, h http.HandlerFunc) string {
	s := httptest.NewServer(h)
	b.Cleanup(s.Close)
	return "ws" + strings.TrimPrefix(s.URL, "http")
}

// messages reads one message after the other.
type messages struct {
	next func() (io.Reader, error)
	r    io.Reader
}

func (m *messages) Read(p []byte) (int, error) {
	for {
		if m.r == nil {
			r, err := m.next()
			if err != nil {
				return 0, err
			}
			m.r = r
		}
		n, err := m.r.Read(p)
		if err == io.EOF {
			m.r, err = nil, nil
		}
		if n > 0 || err != nil {
			return n, err
		}
	}
}

type writeFunc func(p []byte) error

func (f writeFunc) Write(p []byte) (int, error) { return len(p), f(p) }

func gorillaWS(b *testing.B) (io.Writer, io.Reader) {
	conns := make(chan *gorilla.Conn, 1)
	u := gorilla.Upgrader{ReadBufferSize: 72 << 10} // the default of 4 KiB would cut messages up
	url := serveWS(b, func(w http.ResponseWriter, r *http.Request) {
		c, err := u.Upgrade(w, r, nil)
		if err == nil {
			conns <- c
		}
	})
	c, _, err := (&gorilla.Dialer{WriteBufferSize: 72 << 10}).Dial(url, nil)
	if err != nil {
		b.Fatal(err)
	}
	s := <-conns
	b.Cleanup(func() { c.Close(); s.Close() })
	return writeFunc(func(p []byte) error { return c.WriteMessage(gorilla.BinaryMessage, p) }),
		&messages{next: func() (io.Reader, error) { _, r, err := s.NextReader(); return r, err }}
}

func coderWS(b *testing.B) (io.Writer, io.Reader) {
	conns := make(chan *coder.Conn, 1)
	url := serveWS(b, func(w http.ResponseWriter, r *http.Request) {
		c, err := coder.Accept(w, r, nil)
		if err == nil {
			conns <- c
		}
	})
	ctx := context.Background()
	c, _, err := coder.Dial(ctx, url, nil)
	if err != nil {
		b.Fatal(err)
	}
	s := <-conns
	s.SetReadLimit(-1)
	b.Cleanup(func() { c.CloseNow(); s.CloseNow() })
	return writeFunc(func(p []byte) error { return c.Write(ctx, coder.MessageBinary, p) }),
		&messages{next: func() (io.Reader, error) { _, r, err := s.Reader(ctx); return r, err }}
}

func gobwasWS(b *testing.B) (io.Writer, io.Reader) {
	conns := make(chan net.Conn, 1)
	url := serveWS(b, func(w http.ResponseWriter, r *http.Request) {
		c, _, _, err := gobwas.UpgradeHTTP(r, w)
		if err == nil {
			conns <- c
		}
	})
	c, _, _, err := gobwas.Dial(context.Background(), url)
	if err != nil {
		b.Fatal(err)
	}
	s := <-conns
	b.Cleanup(func() { c.Close(); s.Close() })
	r := &wsutil.Reader{Source: bufio.NewReader(s), State: gobwas.StateServerSide}
	return writeFunc(func(p []byte) error { return wsutil.WriteClientBinary(c, append([]byte(nil), p...)) }), // it masks in place
		&messages{next: func() (io.Reader, error) { _, err := r.NextFrame(); return r, err }}
}

func bareTCP(b *testing.B) (io.Writer, io.Reader) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	defer l.Close()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		b.Fatal(err)
	}
	s, err := l.Accept()
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { c.Close(); s.Close() })
	return c, s
}

// TestWebSocketPeers has each library at either end of our transport.
func TestWebSocketPeers(t *testing.T) {
	data := make([]byte, 300e3)
	for i := range data {
		data[i] = byte(i * i)
	}
	echoed := func(t *testing.T, w io.Writer, r io.Reader) {
		t.Helper()
		go w.Write(data)
		got := make([]byte, len(data))
		if _, err := io.ReadFull(r, got); err != nil || string(got) != string(data) {
			t.Error("the echo differs:", err)
		}
	}
	ctx := t.Context()
	for name, accept := range map[string]func(w http.ResponseWriter, r *http.Request) (io.Reader, io.WriteCloser){
		"gorilla": func(w http.ResponseWriter, r *http.Request) (io.Reader, io.WriteCloser) {
			c, err := (&gorilla.Upgrader{}).Upgrade(w, r, nil)
			if err != nil {
				t.Fatal(err)
			}
			return gorillaPipe(c)
		},
		"coder": func(w http.ResponseWriter, r *http.Request) (io.Reader, io.WriteCloser) {
			c, err := coder.Accept(w, r, nil)
			if err != nil {
				t.Fatal(err)
			}
			n := coder.NetConn(ctx, c, coder.MessageBinary)
			return n, n
		},
	} {
		t.Run(name+" listens", func(t *testing.T) {
			s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
				r, c := accept(w, req)
				io.Copy(c, r)
				c.Close()
			}))
			defer s.Close()
			at, err := transport.FromTCP(s.Listener.Addr().(*net.TCPAddr).AddrPort())
			if err != nil {
				t.Fatal(err)
			}
			c, err := new(websocket.Transport).Dial(ctx, at.Encapsulate(ma.StringCast("/ws")))
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			echoed(t, c, c)
			if err := c.(interface{ CloseWrite() error }).CloseWrite(); err != nil {
				t.Error(err)
			}
			if _, err := c.Read(data); err != io.EOF {
				t.Errorf("after CloseWrite: %v", err)
			}
		})
	}
	for name, dial := range map[string]func(url string) (io.Reader, io.WriteCloser, error){
		"gorilla": func(url string) (io.Reader, io.WriteCloser, error) {
			c, _, err := gorilla.DefaultDialer.Dial(url, nil)
			if err != nil {
				return nil, nil, err
			}
			r, w := gorillaPipe(c)
			return r, w, nil
		},
		"coder": func(url string) (io.Reader, io.WriteCloser, error) {
			c, _, err := coder.Dial(ctx, url, nil)
			if err != nil {
				return nil, nil, err
			}
			c.SetReadLimit(-1)
			n := coder.NetConn(ctx, c, coder.MessageBinary)
			return n, n, nil
		},
	} {
		t.Run(name+" dials", func(t *testing.T) {
			l, err := new(websocket.Transport).Listen(ctx, ma.StringCast("/ip4/127.0.0.1/tcp/0/ws"))
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			ended := make(chan error, 1)
			go func() {
				c, err := l.Accept()
				if err == nil {
					_, err = io.Copy(c, struct{ io.Reader }{c})
					c.Close()
				}
				ended <- err
			}()
			at, _ := transport.Multiaddr(l.Addr())
			ap, _, _ := transport.TCPAddrPort(at)
			r, c, err := dial("ws://" + ap.String() + "/")
			if err != nil {
				t.Fatal(err)
			}
			echoed(t, c, r)
			c.Close()
			if err := <-ended; err != nil {
				t.Errorf("the end: %v", err)
			}
		})
	}
}

type gorillaWriter struct{ *gorilla.Conn }

func (w gorillaWriter) Write(p []byte) (int, error) {
	return len(p), w.WriteMessage(gorilla.BinaryMessage, p)
}

func gorillaPipe(c *gorilla.Conn) (io.Reader, io.WriteCloser) {
	return &messages{next: func() (io.Reader, error) {
		_, r, err := c.NextReader()
		if gorilla.IsCloseError(err, gorilla.CloseNormalClosure) {
			err = io.EOF
		}
		return r, err
	}}, gorillaWriter{c}
}
