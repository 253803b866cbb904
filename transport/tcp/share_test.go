package tcp

import (
	"errors"
	"io"
	"net"
	"runtime"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	ma "github.com/multiformats/go-multiaddr"

	"github.com/plexus-p2p/plexus/simnet"
)

func TestKindOf(t *testing.T) {
	for _, c := range []struct {
		in   string
		want Kind
		at   int // how many bytes tell
	}{
		{"\x13/multistream/1.0.0\n", Plain, 1},
		{"GET / HTTP/1.1\r\n", HTTP, 4},
		{"OPTIONS * HTTP/1.1\r\n", HTTP, 8},
		{"PRI * HTTP/2.0\r\n", HTTP, 6},
		{"PUT /x", HTTP, 4},
		{"PX", Plain, 2},
		{"GETX", Plain, 4},
		{"get / ", Plain, 1},
		{"\x16\x03\x01\x02\x00", TLS, 3},
		{"\x16\x03\x03\x02\x00", TLS, 3},
		{"\x16\x02", Plain, 2},
		{"\x00", Plain, 1},
	} {
		for n := range len(c.in) + 1 {
			k, ok := kindOf([]byte(c.in[:n]))
			if ok != (n >= c.at) || ok && k != c.want {
				t.Errorf("%q: %v, %v; want %v after %d bytes", c.in[:n], k, ok, c.want, c.at)
			}
		}
	}
}

// listenKinds listens for some kinds on one port.
func listenKinds(t *testing.T, tr *Transport, list ...Kind) (at ma.Multiaddr, ls map[Kind]net.Listener) {
	t.Helper()
	ls = make(map[Kind]net.Listener)
	at = ma.StringCast("/ip4/10.0.0.2/tcp/7")
	for _, k := range list {
		l, err := tr.ListenKind(t.Context(), at, k)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { l.Close() })
		ls[k] = l
		if l, err := tr.ListenKind(t.Context(), at, k); !errors.Is(err, syscall.EADDRINUSE) {
			t.Errorf("a second listener: %v, %v", l, err)
		}
	}
	return at, ls
}

// inBubble runs f with the transports of two hosts.
func inBubble(t *testing.T, f func(t *testing.T, client, server *Transport)) {
	synctest.Test(t, func(t *testing.T) {
		n := simnet.New(simnet.Config{Path: simnet.Link{Latency: time.Millisecond}})
		defer n.Close()
		f(t, &Transport{Network: n.Host("10.0.0.1")}, &Transport{Network: n.Host("10.0.0.2")})
	})
}

func TestShare(t *testing.T) {
	first := map[Kind]string{Plain: "\x13/multistream", HTTP: "HEAD / HTTP/1.1", TLS: "\x16\x03\x01rest"}
	inBubble(t, func(t *testing.T, client, server *Transport) {
		at, ls := listenKinds(t, server, Plain, TLS, HTTP)
		for k, l := range ls {
			for _, pause := range []time.Duration{0, 100 * time.Millisecond} {
				c := dial(t, client, at)
				go func() {
					for i := range len(first[k]) { // one byte at a time
						time.Sleep(pause)
						c.Write([]byte(first[k][i : i+1]))
					}
					c.(interface{ CloseWrite() error }).CloseWrite()
				}()
				in, err := l.Accept()
				if err != nil {
					t.Fatal(err)
				}
				if got, err := io.ReadAll(in); string(got) != first[k] || err != nil {
					t.Errorf("kind %d: %q, %v", k, got, err)
				}
				if err := in.(interface{ CloseWrite() error }).CloseWrite(); err != nil {
					t.Error(err)
				}
				in.Close()
			}
		}
		// What nobody listens for goes to Plain; a closed kind can be listened for again.
		ls[HTTP].Close()
		c := dial(t, client, at)
		c.Write([]byte(first[HTTP]))
		if _, err := ls[Plain].Accept(); err != nil {
			t.Error(err)
		}
		if _, err := ls[HTTP].Accept(); !errors.Is(err, net.ErrClosed) {
			t.Errorf("accept after Close: %v", err)
		}
		l, err := server.ListenKind(t.Context(), at, HTTP)
		if err != nil {
			t.Fatal(err)
		}
		l.Close()
		ls[Plain].Close()
		ls[TLS].Close()
		if _, err := client.Dial(t.Context(), at); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("the port is still open: %v", err)
		}
	})
}

// A connection that nobody accepts ends with its listener.
func TestShareClose(t *testing.T) {
	inBubble(t, func(t *testing.T, client, server *Transport) {
		at, ls := listenKinds(t, server, Plain, HTTP)
		c := dial(t, client, at)
		c.Write([]byte("GET / "))
		silent := dial(t, client, at)
		synctest.Wait()
		ls[HTTP].Close()
		if _, err := c.Read(make([]byte, 1)); err == nil {
			t.Error("the connection lives")
		}
		begin := time.Now()
		ls[Plain].Close()
		if _, err := silent.Read(make([]byte, 1)); err == nil || time.Since(begin) > time.Second {
			t.Errorf("the silent connection lives: %v", err)
		}
	})
}

// Who says nothing is closed after decideIn, or when too many others come.
func TestUndecided(t *testing.T) {
	inBubble(t, func(t *testing.T, client, server *Transport) {
		at, ls := listenKinds(t, server, Plain, HTTP)
		var silent []net.Conn
		before := runtime.NumGoroutine()
		for range maxUndecided + 3 {
			silent = append(silent, dial(t, client, at))
			synctest.Wait()
		}
		if n := runtime.NumGoroutine() - before; n > maxUndecided+2 {
			t.Errorf("%d goroutines", n)
		}
		begin := time.Now()
		for i, c := range silent[:3] {
			if _, err := c.Read(make([]byte, 1)); err == nil || time.Since(begin) > time.Second {
				t.Errorf("connection %d still waits", i)
			}
		}
		go dial(t, client, at).Write([]byte("\x13"))
		if _, err := ls[Plain].Accept(); err != nil {
			t.Error(err)
		}
		for i, c := range silent[4:] { // the fourth made room
			if _, err := c.Read(make([]byte, 1)); err == nil {
				t.Errorf("connection %d was answered", i)
			}
		}
		if took := time.Since(begin); took < decideIn-time.Second || took > decideIn+time.Second {
			t.Errorf("the last silent connection ended after %v, want %v", took, decideIn)
		}
	})
}
