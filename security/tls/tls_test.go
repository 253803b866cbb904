package tls

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"testing/cryptotest"
	"testing/synctest"
	"time"

	"github.com/plexus-p2p/plexus/peer"
	"github.com/plexus-p2p/plexus/security"
	"github.com/plexus-p2p/plexus/security/securitytest"
)

func TestConformance(t *testing.T) {
	securitytest.Test(t, securitytest.Config{New: func() security.Protocol { return new(Protocol) }})
}

func BenchmarkHandshake(b *testing.B) {
	securitytest.BenchmarkHandshake(b, func() security.Protocol { return new(Protocol) })
}

func BenchmarkRecords(b *testing.B) {
	securitytest.BenchmarkRecords(b, func() security.Protocol { return new(Protocol) })
}

// against runs one end of a handshake against crypto/tls with the certificate, and
// returns what that end said.
func against(t *testing.T, cert tls.Certificate, client bool) error {
	t.Helper()
	err, _ := script(t, client, nil, &tls.Config{Certificates: []tls.Certificate{cert}, NextProtos: []string{ALPN}})
	return err
}

// script runs one end of a handshake, with muxers to offer, against crypto/tls set up
// otherwise. It returns what either end says.
func script(t *testing.T, client bool, muxers []string, cfg *tls.Config) (ours, theirs error) {
	t.Helper()
	a, b := securitytest.Pipe()
	defer a.Close()
	defer b.Close()
	cfg.InsecureSkipVerify = true
	if cfg.ClientAuth == 0 {
		cfg.ClientAuth = tls.RequestClientCert
	}
	done := make(chan error, 1)
	go func() {
		c := tls.Client(b, cfg)
		if client {
			c = tls.Server(b, cfg)
		}
		err := c.HandshakeContext(t.Context())
		if err == nil && !client {
			_, err = c.Read(make([]byte, 1)) // the server's verdict
			if err == io.EOF {
				err = nil
			}
		}
		done <- err
	}()
	sc, err := new(Protocol).Secure(t.Context(), a, security.Handshake{Key: newKey(t, peer.Ed25519), Client: client, Muxers: muxers})
	if err == nil {
		sc.Close()
	}
	a.Close()
	return err, <-done
}

func TestSettings(t *testing.T) {
	host := newKey(t, peer.Ed25519)
	i, err := NewIdentity(host)
	if err != nil {
		t.Fatal(err)
	}
	base := func() *tls.Config {
		return &tls.Config{Certificates: []tls.Certificate{i.cert}, NextProtos: []string{ALPN}}
	}
	muxers := []string{"/yamux/1.0.0", "/mplex/6.7.0"}

	t.Run("TLS 1.2", func(t *testing.T) {
		for _, client := range []bool{true, false} {
			cfg := base()
			cfg.MaxVersion = tls.VersionTLS12
			if ours, theirs := script(t, client, muxers, cfg); ours == nil || theirs == nil {
				t.Errorf("client %v: got %v and %v, want failures", client, ours, theirs)
			}
		}
	})
	t.Run("what a client says", func(t *testing.T) {
		cfg := base()
		var hello *tls.ClientHelloInfo
		cfg.GetConfigForClient = func(h *tls.ClientHelloInfo) (*tls.Config, error) { hello = h; return nil, nil }
		if ours, theirs := script(t, true, muxers, cfg); ours != nil || theirs != nil {
			t.Fatal(ours, theirs)
		}
		if got, want := strings.Join(hello.SupportedProtos, " "), "/yamux/1.0.0 /mplex/6.7.0 libp2p"; got != want {
			t.Errorf("ALPN %q, want %q", got, want)
		}
		// "clients … MUST NOT send any value in the Server Name Indication."
		// https://github.com/libp2p/specs/blob/master/tls/tls.md#future-extensibility
		if hello.ServerName != "" {
			t.Errorf("server name %q", hello.ServerName)
		}
		if len(hello.SupportedVersions) != 1 || hello.SupportedVersions[0] != tls.VersionTLS13 {
			t.Errorf("versions %x, want 1.3 alone", hello.SupportedVersions)
		}
	})
	t.Run("server name", func(t *testing.T) {
		cfg := base()
		cfg.ServerName = "example.com" // "Servers … MUST ignore this field if present."
		if ours, theirs := script(t, false, muxers, cfg); ours != nil || theirs != nil {
			t.Error(ours, theirs)
		}
	})
	t.Run("ALPN", func(t *testing.T) {
		for _, c := range []struct {
			name  string
			offer []string
			fails bool
		}{
			{"libp2p", []string{ALPN}, false},
			{"a muxer alone", []string{"/mplex/6.7.0"}, false},
			{"none", nil, false},
			// "The server MUST abort the handshake if it doesn't support any of the
			// application protocols offered by the client."
			// https://github.com/libp2p/specs/blob/master/tls/tls.md#alpn
			{"foreign", []string{"h2"}, true},
		} {
			cfg := base()
			cfg.NextProtos = c.offer
			if ours, theirs := script(t, false, muxers, cfg); (ours != nil) != c.fails || (theirs != nil) != c.fails {
				t.Errorf("%s: got %v and %v, fails should be %v", c.name, ours, theirs, c.fails)
			}
		}
	})
	t.Run("odd muxers", func(t *testing.T) {
		odd := []string{"", strings.Repeat("m", 256), "/yamux/1.0.0"}
		cfg := base()
		if ours, theirs := script(t, true, odd, cfg); ours != nil || theirs != nil {
			t.Error(ours, theirs)
		}
	})
	t.Run("rejected client", func(t *testing.T) {
		a, b := securitytest.Pipe()
		go func() {
			new(Protocol).Secure(t.Context(), b, security.Handshake{Key: host, Want: newKey(t, peer.Ed25519).ID()})
			b.Close()
		}()
		sc, err := new(Protocol).Secure(t.Context(), a, security.Handshake{Key: host, Client: true})
		if err == nil {
			var n int
			if n, err = sc.Read(make([]byte, 1)); n > 0 || err == io.EOF {
				t.Errorf("read %d, %v, want the server's alert", n, err)
			}
		}
		if err == nil || !strings.Contains(err.Error(), "bad certificate") {
			t.Errorf("got %v", err)
		}
	})
}

// One certificate serves all connections of an identity.
func TestOneCertificate(t *testing.T) {
	p := new(Protocol)
	k := newKey(t, peer.Ed25519)
	one, _ := p.identity(k)
	if again, _ := p.identity(k); again != one {
		t.Error("the same identity got another certificate")
	}
	other := newKey(t, peer.Ed25519)
	if two, _ := p.identity(other); two == one || two.id != other.ID() {
		t.Error("two identities share a certificate")
	}
}

// Transports with TLS built in do this.
func TestIdentity(t *testing.T) {
	ck, sk := newKey(t, peer.Secp256k1), newKey(t, peer.ECDSA)
	ci, err := NewIdentity(ck)
	if err != nil {
		t.Fatal(err)
	}
	si, err := NewIdentity(sk)
	if err != nil {
		t.Fatal(err)
	}
	run := func(want peer.ID) (client, server tls.ConnectionState, err error) {
		a, b := securitytest.Pipe()
		cc, sc := ci.Config(want), si.Config("")
		cc.NextProtos, sc.NextProtos = []string{ALPN}, []string{ALPN}
		c, s := tls.Client(a, cc), tls.Server(b, sc)
		done := make(chan error, 1)
		go func() { done <- s.Handshake() }()
		err = c.Handshake()
		a.Close()
		if err2 := <-done; err == nil {
			err = err2
		}
		return c.ConnectionState(), s.ConnectionState(), err
	}
	c, s, err := run(sk.ID())
	if err != nil {
		t.Fatal(err)
	}
	if k, err := PeerKey(c); err != nil || !k.Equal(sk.Public()) {
		t.Errorf("client: %v", err)
	}
	if k, err := PeerKey(s); err != nil || !k.Equal(ck.Public()) {
		t.Errorf("server: %v", err)
	}
	var m *security.MismatchError
	if _, _, err := run(ck.ID()); !errors.As(err, &m) || m.Got != sk.ID() || m.Want != ck.ID() {
		t.Errorf("wrong peer: %v", err)
	}
	if _, err := PeerKey(tls.ConnectionState{}); !errors.Is(err, errCount) {
		t.Errorf("no certificate: %v", err)
	}
}

// counter counts calls, and keeps what was written.
type counter struct {
	net.Conn
	reads, writes int
}

func (c *counter) Read(p []byte) (int, error)  { c.reads++; return c.Conn.Read(p) }
func (c *counter) Write(p []byte) (int, error) { c.writes++; return c.Conn.Write(p) }

func pair(t testing.TB, a, b net.Conn) (client, server *security.Conn) {
	t.Helper()
	done := make(chan error, 1)
	go func() {
		var err error
		server, err = new(Protocol).Secure(t.Context(), b, security.Handshake{Key: newKey(t, peer.Ed25519)})
		done <- err
	}()
	client, err := new(Protocol).Secure(t.Context(), a, security.Handshake{Key: newKey(t, peer.Ed25519), Client: true})
	if err2 := <-done; err != nil || err2 != nil {
		t.Fatalf("client %v, server %v", err, err2)
	}
	return client, server
}

// Each call below is a system call in life.
func TestCalls(t *testing.T) {
	a, b := securitytest.Pipe()
	ca, cb := &counter{Conn: a}, &counter{Conn: b}
	c, s := pair(t, ca, cb)
	want := func(what string, reads, writes int) {
		t.Helper()
		if cb.reads > reads || ca.writes > writes {
			t.Errorf("%s: %d reads and %d writes, want at most %d and %d", what, cb.reads, ca.writes, reads, writes)
		}
		cb.reads, ca.writes = 0, 0
	}
	// The server reads less in one go as long as it does not know its peer.
	want("handshake", 12, 2)
	buf := make([]byte, maxBatch)
	io.WriteString(c, "small")
	s.Read(buf)
	want("a small record", 1, 1)
	for range 10 {
		io.WriteString(c, "small")
	}
	for range 10 {
		s.Read(buf)
	}
	want("10 small records", 2, 10)
	done := make(chan struct{})
	for _, size := range []int{64 << 10, maxBatch} {
		go func() { c.Write(buf[:size]); done <- struct{}{} }()
		io.ReadFull(s, make([]byte, size))
		<-done
		want(fmt.Sprint(size), 2+size/(16<<10), 1)
	}
}

func TestAllocs(t *testing.T) {
	a, b := securitytest.Pipe()
	c, s := pair(t, a, b)
	for _, size := range []int{32, 4000, 64 << 10, maxBatch} {
		p, q := make([]byte, size), make([]byte, size)
		work, got := make(chan struct{}), make(chan struct{})
		go func() {
			for range work {
				io.ReadFull(s, q)
				got <- struct{}{}
			}
		}()
		// crypto/tls allocates a little for each read of the connection below.
		most := 2 + 2*float64(size/maxPlain)
		if n := testing.AllocsPerRun(50, func() {
			work <- struct{}{}
			c.Write(p)
			<-got
		}); n > most && !raceEnabled { // whose pools lose things at random
			t.Errorf("Write and Read of %d bytes: %v allocations, want at most %v", size, n, most)
		}
		close(work)
	}
}

// Close does not wait for a peer that reads nothing.
func TestCloseStalled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := securitytest.Pipe()
		c, _ := pair(t, a, b)
		c.SetWriteDeadline(time.Now().Add(time.Second))
		if _, err := c.Write(make([]byte, 10<<20)); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatal(err)
		}
		start := time.Now()
		c.Close()
		if took := time.Since(start); took > goodbye {
			t.Errorf("took %v", took)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		a, b := securitytest.Pipe()
		c, _ := pair(t, a, b)
		a.Write(make([]byte, 256<<10)) // as if much had been written: the pipe is full
		start := time.Now()
		c.Close()
		if took := time.Since(start); took > goodbye {
			t.Errorf("took %v", took)
		}
		if _, err := c.Write([]byte{1}); !errors.Is(err, net.ErrClosed) {
			t.Errorf("write: %v", err)
		}
		c.Close()
	})
}

// What crypto/tls writes when a deadline has left half a record goes out after it.
func TestAlertAfterDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := securitytest.Pipe()
		c, v := pair(t, a, b)
		c.SetWriteDeadline(time.Now().Add(time.Second))
		n, err := c.Write(make([]byte, 10<<20))
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatalf("write: %d, %v", n, err)
		}
		b.Write([]byte{23, 3, 3, 0, 20, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0}) // forged: asks for an alert
		if _, err := c.Read(make([]byte, 1)); err == nil || err == io.EOF {
			t.Errorf("read: %v", err)
		}
		c.SetWriteDeadline(time.Time{})
		go c.Write(nil)
		got, err := io.ReadAll(v)
		if len(got) != n || err == nil || !strings.Contains(err.Error(), "bad record MAC") {
			t.Errorf("the peer read %d bytes, %v, want %d and the alert", len(got), err, n)
		}
	})
}

// odd is a connection whose timeouts crypto/tls would take for the end.
type odd struct{ net.Conn }

func (c odd) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if err != nil {
		err = fmt.Errorf("odd: %w", err)
	}
	return n, err
}

func TestOddTimeouts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := securitytest.Pipe()
		c, s := pair(t, a, odd{b})
		s.SetReadDeadline(time.Now().Add(time.Second))
		if _, err := s.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("got %v", err)
		}
		s.SetReadDeadline(time.Time{})
		io.WriteString(c, "later")
		got := make([]byte, 5)
		if _, err := io.ReadFull(s, got); string(got) != "later" || err != nil {
			t.Errorf("got %q, %v", got, err)
		}
	})
}

// FuzzHandshake gives each side arbitrary bytes of its peer, beginning with those
// of handshakes.
func FuzzHandshake(f *testing.F) {
	for range 2 {
		a, b := securitytest.Pipe()
		ta, tb := &tape{Conn: a}, &tape{Conn: b}
		pair(f, ta, tb)
		f.Add(true, tb.b.Bytes())
		f.Add(false, ta.b.Bytes())
	}
	k := newKey(f, peer.Ed25519)
	p := new(Protocol)
	f.Fuzz(func(t *testing.T, client bool, b []byte) {
		cryptotest.SetGlobalRandom(t, 1) // or the fuzzer finds no way that it can repeat
		sc, err := p.Secure(context.Background(), &scripted{b: b},
			security.Handshake{Key: k, Client: client, Muxers: []string{"/yamux/1.0.0"}})
		if err == nil || sc != nil || !errors.Is(err, security.ErrHandshake) {
			t.Fatalf("got %v, %v: a recorded peer cannot know our random", sc, err)
		}
	})
}

type tape struct {
	net.Conn
	b bytes.Buffer
}

func (c *tape) Write(p []byte) (int, error) {
	c.b.Write(p)
	return c.Conn.Write(p)
}

// scripted is a connection that gives bytes, and takes any.
type scripted struct {
	net.Conn
	b []byte
}

func (c *scripted) Write(p []byte) (int, error) { return len(p), nil }

func (c *scripted) Read(p []byte) (int, error) {
	if len(c.b) == 0 {
		return 0, io.EOF
	}
	n := copy(p, c.b)
	c.b = c.b[n:]
	return n, nil
}
