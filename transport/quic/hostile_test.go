package quic_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	stdtls "crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"io"
	"math/big"
	mrand "math/rand/v2"
	"net"
	"net/netip"
	"os"
	"regexp"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	ma "github.com/multiformats/go-multiaddr"
	quicgo "github.com/quic-go/quic-go"

	"github.com/plexus-p2p/plexus/muxer"
	"github.com/plexus-p2p/plexus/peer"
	"github.com/plexus-p2p/plexus/security"
	"github.com/plexus-p2p/plexus/security/pnet"
	"github.com/plexus-p2p/plexus/security/tls"
	"github.com/plexus-p2p/plexus/simnet"
	"github.com/plexus-p2p/plexus/transport"
	"github.com/plexus-p2p/plexus/transport/quic"
	"github.com/plexus-p2p/plexus/transport/transporttest"
)

// end is a session that is served.
type end struct {
	transport.Session
	streams chan muxer.Stream
	over    chan error // why Serve ended
}

func serve(s transport.Session) *end {
	e := &end{s, make(chan muxer.Stream, 1000), make(chan error, 1)}
	go func() { e.over <- s.Serve(func(st muxer.Stream) { e.streams <- st }) }()
	return e
}

// accepted serves all that l accepts.
func accepted(t testing.TB, l transport.SessionListener) chan *end {
	ends := make(chan *end, 100)
	go func() {
		defer close(ends)
		for {
			s, err := l.Accept()
			if err != nil {
				return
			}
			ends <- serve(s)
		}
	}()
	return ends
}

// goroutines counts those of the bubble that have to do with hosts, transports and QUIC.
func goroutines() (n int) {
	synctest.Wait()
	b := make([]byte, 4<<20)
	bubble := regexp.MustCompile(`synctest bubble \d+\]`).Find(b[:runtime.Stack(b, false)])
	for g := range bytes.SplitSeq(b[:runtime.Stack(b, true)], []byte("\n\n")) {
		head, _, _ := bytes.Cut(g, []byte("\n"))
		if bytes.Contains(head, bubble) && (bytes.Contains(g, []byte("quic-go/quic-go.")) || bytes.Contains(g, []byte("plexus.(*Host)"))) {
			n++
		}
	}
	return n
}

// world is a transport that listens on 10.0.0.2, and a place for somebody else.
type world struct {
	t      testing.TB
	n      *simnet.Network
	key    peer.PrivKey
	server *quic.Transport
	l      transport.SessionListener
	ends   chan *end

	away *simnet.Host // 10.0.0.1
}

var (
	listenAt = ma.StringCast("/ip4/10.0.0.2/udp/4001/quic-v1")
	serverAt = netip.MustParseAddrPort("10.0.0.2:4001")
)

// inWorld runs f in a bubble.
func inWorld(t *testing.T, f func(t *testing.T, w *world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		n := simnet.New(simnet.Config{Path: simnet.Link{Latency: 5 * time.Millisecond}})
		t.Cleanup(n.Close)
		w := &world{t: t, n: n, key: transporttest.Key(t), away: n.Host("10.0.0.1")}
		w.server = &quic.Transport{Key: w.key, Network: n.Host("10.0.0.2")}
		w.listen()
		f(t, w)
		w.l.Close()
	})
}

func (w *world) listen() {
	w.t.Helper()
	var err error
	if w.l, err = w.server.ListenSession(w.t.Context(), listenAt); err != nil {
		w.t.Fatal(err)
	}
	w.ends = accepted(w.t, w.l)
}

// socket opens one for the other side.
func (w *world) socket() net.PacketConn {
	w.t.Helper()
	c, err := w.away.ListenUDP(w.t.Context(), netip.MustParseAddrPort("10.0.0.1:0"))
	if err != nil {
		w.t.Fatal(err)
	}
	return c
}

// dial connects as a good peer does, and talks.
func (w *world) dial() {
	w.t.Helper()
	tr := &quic.Transport{Key: transporttest.Key(w.t), Network: w.away}
	c, err := tr.DialSession(w.t.Context(), listenAt, w.key.ID())
	if err != nil {
		w.t.Fatalf("a good peer: %v", err)
	}
	ce, se := serve(c), <-w.ends
	st, err := c.Open(w.t.Context())
	if err != nil {
		w.t.Fatal(err)
	}
	st.Write([]byte("x"))
	if _, err := io.ReadFull(<-se.streams, make([]byte, 1)); err != nil {
		w.t.Errorf("a good peer: %v", err)
	}
	c.Close(past, 0)
	<-ce.over
	<-se.over
}

// raw dials with quic-go, and whatever it is told.
func (w *world) raw(conf *stdtls.Config, qc *quicgo.Config) (*quicgo.Conn, func(), error) {
	w.t.Helper()
	sock := w.socket()
	tr := &quicgo.Transport{Conn: sock}
	done := func() { tr.Close(); sock.Close() }
	if conf.NextProtos == nil {
		conf.NextProtos = []string{"libp2p"}
	}
	c, err := tr.Dial(w.t.Context(), net.UDPAddrFromAddrPort(serverAt), conf, qc)
	return c, done, err
}

func config(t testing.TB, key peer.PrivKey) *stdtls.Config {
	t.Helper()
	id, err := tls.NewIdentity(key)
	if err != nil {
		t.Fatal(err)
	}
	return id.Config("")
}

// certificate is one to go wrong. By default it is a good one.
type certificate struct {
	from, to time.Time
	none     bool // no libp2p extension
	forged   bool // signed by another key than it says
	garbage  bool // the extension is malformed
	critical bool // it has another extension, a critical one
	twice    bool
}

func (x certificate) make(t testing.TB, host peer.PrivKey) stdtls.Certificate {
	t.Helper()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	own, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(err)
	spki, err := x509.MarshalPKIXPublicKey(own.Public())
	must(err)
	signer := host
	if x.forged {
		signer = transporttest.Key(t)
	}
	sig, err := signer.Sign(append([]byte("libp2p-tls-handshake:"), spki...))
	must(err)
	ext, err := asn1.Marshal(struct{ Key, Sig []byte }{host.Public().Bytes(), sig})
	must(err)
	if x.garbage {
		ext = ext[:len(ext)/2]
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour)}
	if !x.from.IsZero() {
		tmpl.NotBefore = x.from
	}
	if !x.to.IsZero() {
		tmpl.NotAfter = x.to
	}
	if !x.none {
		tmpl.ExtraExtensions = []pkix.Extension{{Id: asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 53594, 1, 1}, Value: ext}}
	}
	if x.critical {
		tmpl.ExtraExtensions = append(tmpl.ExtraExtensions, pkix.Extension{Id: asn1.ObjectIdentifier{1, 2, 3, 4}, Critical: true, Value: []byte{5, 0}})
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, own.Public(), own)
	must(err)
	c := stdtls.Certificate{Certificate: [][]byte{der}, PrivateKey: own}
	if x.twice {
		c.Certificate = append(c.Certificate, der)
	}
	return c
}

// "Endpoints MUST abort the connection attempt if […] the certificate’s self-signature is
// not valid", and so on, whichever end they are.
// https://github.com/libp2p/specs/blob/master/tls/tls.md#peer-authentication
func TestBadCertificates(t *testing.T) {
	const day = 24 * time.Hour
	for name, c := range map[string]struct {
		make func() certificate
		want error
	}{
		"good":        {func() certificate { return certificate{} }, nil},
		"expired":     {func() certificate { return certificate{to: time.Now().Add(-day), from: time.Now().Add(-2 * day)} }, tls.ErrCertificate},
		"not yet":     {func() certificate { return certificate{from: time.Now().Add(day), to: time.Now().Add(2 * day)} }, tls.ErrCertificate},
		"no identity": {func() certificate { return certificate{none: true} }, tls.ErrCertificate},
		"malformed":   {func() certificate { return certificate{garbage: true} }, tls.ErrCertificate},
		"forged":      {func() certificate { return certificate{forged: true} }, peer.ErrSignature},
		"critical":    {func() certificate { return certificate{critical: true} }, tls.ErrCertificate},
		"two":         {func() certificate { return certificate{twice: true} }, tls.ErrCertificate},
	} {
		t.Run("server/"+name, func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) {
				key := transporttest.Key(t)
				sock := w.socket()
				defer sock.Close()
				l, err := quicgo.Listen(sock, &stdtls.Config{
					Certificates: []stdtls.Certificate{c.make().make(t, key)},
					NextProtos:   []string{"libp2p"},
					ClientAuth:   stdtls.RequireAnyClientCert,
				}, nil)
				if err != nil {
					t.Fatal(err)
				}
				defer l.Close()
				to, err := transport.FromUDP(sock.LocalAddr().(*net.UDPAddr).AddrPort())
				if err != nil {
					t.Fatal(err)
				}
				s, err := w.server.DialSession(t.Context(), to.Encapsulate(ma.StringCast("/quic-v1")), key.ID())
				if !errors.Is(err, c.want) || (err == nil) != (c.want == nil) {
					t.Errorf("dial: %v, want %v", err, c.want)
				}
				if err == nil {
					s.Close(past, 0)
				}
			})
		})
		t.Run("client/"+name, func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) {
				conf := &stdtls.Config{InsecureSkipVerify: true, Certificates: []stdtls.Certificate{c.make().make(t, transporttest.Key(t))}}
				wantRefused(t, w, conf, c.want != nil)
			})
		})
	}
	t.Run("client/none", func(t *testing.T) {
		inWorld(t, func(t *testing.T, w *world) { wantRefused(t, w, &stdtls.Config{InsecureSkipVerify: true}, true) })
	})
}

// wantRefused dials the server with conf. A client may believe that it is connected
// until the server has seen its certificate.
func wantRefused(t *testing.T, w *world, conf *stdtls.Config, refused bool) {
	t.Helper()
	c, done, err := w.raw(conf, nil)
	defer done()
	time.Sleep(time.Second)
	if err == nil {
		err = context.Cause(c.Context())
	}
	if !refused {
		if err != nil || len(w.ends) != 1 {
			t.Errorf("a good peer: %v, %d sessions", err, len(w.ends))
		}
		if err == nil {
			c.CloseWithError(0, "")
		}
		return
	}
	if te, ok := errors.AsType[*quicgo.TransportError](err); !ok || !te.Remote || !te.ErrorCode.IsCryptoError() {
		t.Errorf("the client was told %v", err)
	}
	if len(w.ends) > 0 {
		t.Error("the session was accepted")
	}
	w.dial() // the listener goes on
}

func TestWrongPeer(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		tr := &quic.Transport{Key: transporttest.Key(t), Network: w.away}
		want := transporttest.Key(t).ID()
		_, err := tr.DialSession(t.Context(), listenAt, want)
		if e, ok := errors.AsType[*security.MismatchError](err); !ok || e.Want != want || e.Got != w.key.ID() {
			t.Errorf("dialed somebody else: %v", err)
		}
		w.dial()
	})
}

// A private network's members reach each other, and nobody else, from either side.
func TestPrivate(t *testing.T) {
	secret, other := pnet.Key(sha256.Sum256([]byte("a"))), pnet.Key(sha256.Sum256([]byte("b")))
	for _, c := range []struct {
		name           string
		client, server pnet.Key
		ok             bool
	}{
		{"members", secret, secret, true},
		{"two networks", secret, other, false},
		{"open client", pnet.Key{}, secret, false},
		{"open server", secret, pnet.Key{}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) {
				w.l.Close()
				w.server = &quic.Transport{Key: w.key, Network: w.server.Network, Private: c.server}
				w.listen()
				tr := &quic.Transport{Key: transporttest.Key(t), Network: w.away, Private: c.client}
				s, err := tr.DialSession(t.Context(), listenAt, w.key.ID())
				if err == nil { // it may be told only after its own part is done
					time.Sleep(time.Second)
					if e := serve(s); !c.ok {
						err = <-e.over
					}
				}
				if (err == nil) != c.ok {
					t.Errorf("dial: %v", err)
				}
				if c.client != (pnet.Key{}) && !c.ok && !errors.Is(err, pnet.ErrStranger) {
					t.Errorf("dial: %v, want pnet.ErrStranger", err)
				}
				if got := len(w.ends); got != 0 != c.ok {
					t.Errorf("%d sessions were accepted", got)
				}
				if s != nil {
					s.Close(past, 0)
				}
			})
		})
	}
}

// A flood of whatever is dropped, and costs neither a session nor a goroutine.
func TestGarbage(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.dial()
		time.Sleep(time.Minute)
		before := goroutines()
		tr := &quic.Transport{Key: transporttest.Key(t), Network: w.away}
		c, err := tr.DialSession(t.Context(), listenAt, w.key.ID())
		if err != nil {
			t.Fatal(err)
		}
		serve(c)
		s := <-w.ends
		st, err := c.Open(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		sock := w.socket()
		rnd := mrand.NewChaCha8([32]byte{1})
		b := make([]byte, 1400)
		for i := range 5000 {
			rnd.Read(b)
			switch i % 4 {
			case 0: // an Initial, as its header says
				copy(b, "\xc0\x00\x00\x00\x01\x08")
			case 1: // of another version
				b[0] |= 0xc0
			case 2: // of a session
				b[0] = b[0]&0x3f | 0x40
			}
			n := len(b)
			if i%3 > 0 {
				n = mrand.IntN(len(b))
			}
			if _, err := sock.WriteTo(b[:n], net.UDPAddrFromAddrPort(serverAt)); err != nil {
				t.Fatal(err)
			}
			if i%50 == 0 {
				time.Sleep(time.Millisecond)
			}
		}
		sock.WriteTo(make([]byte, 65000), net.UDPAddrFromAddrPort(serverAt))
		st.Write([]byte("x"))
		if _, err := io.ReadFull(<-s.streams, make([]byte, 1)); err != nil {
			t.Errorf("a session beside the flood: %v", err)
		}
		w.dial()
		c.Close(past, 0)
		<-s.over
		time.Sleep(time.Minute)
		if n := goroutines(); n > before {
			t.Errorf("%d goroutines, %d before the flood", n, before)
		}
		sock.Close()
	})
}

// flight returns the first datagrams of a client.
func (w *world) flight() [][]byte {
	w.t.Helper()
	ctx, cancel := context.WithCancel(w.t.Context())
	nobody, sock := w.socket(), w.socket()
	tr := &quicgo.Transport{Conn: sock}
	done := make(chan struct{})
	go func() {
		defer close(done)
		conf := config(w.t, transporttest.Key(w.t))
		conf.NextProtos = []string{"libp2p"}
		tr.Dial(ctx, nobody.LocalAddr(), conf, nil)
	}()
	var all [][]byte
	nobody.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
	for {
		b := make([]byte, 2000)
		n, _, err := nobody.ReadFrom(b)
		if err != nil {
			break
		}
		all = append(all, b[:n])
	}
	cancel()
	<-done
	tr.Close()
	sock.Close()
	nobody.Close()
	return all
}

// Handshakes that break off, or are broken, are forgotten.
func TestTruncatedHandshake(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.dial()
		time.Sleep(time.Minute)
		before := goroutines()
		sock := w.socket()
		for range 10 {
			for _, b := range w.flight() {
				for _, cut := range []int{1, 6, 20, 100, 1199, len(b) - 1, len(b)} {
					sock.WriteTo(b[:min(cut, len(b))], net.UDPAddrFromAddrPort(serverAt))
				}
				flipped := append([]byte(nil), b...)
				flipped[mrand.IntN(len(b))] ^= 1 << mrand.IntN(8)
				sock.WriteTo(flipped, net.UDPAddrFromAddrPort(serverAt))
				time.Sleep(time.Millisecond)
			}
		}
		if len(w.ends) > 0 {
			t.Error("half a handshake was accepted")
		}
		w.dial()
		sock.Close()
		time.Sleep(time.Minute)
		if n := goroutines(); n > before {
			t.Errorf("%d goroutines, %d before", n, before)
		}
		w.dial()
	})
}

// A peer that wants 10,000 streams gets 256, and however much it sends on them, what
// we hold is bounded by the connection's window.
func TestManyStreams(t *testing.T) {
	const bound = 15<<20 + 1<<20 // the window, and what a Write has handed over
	inWorld(t, func(t *testing.T, w *world) {
		c, done, err := w.raw(config(t, transporttest.Key(t)), nil)
		defer done()
		if err != nil {
			t.Fatal(err)
		}
		s := <-w.ends
		var opened []*quicgo.Stream
		written := 0
		for range 10000 {
			if st, err := c.OpenStream(); err == nil {
				n, _ := st.Write([]byte("x")) // so that the other end knows of it
				written += n
				opened = append(opened, st)
			}
		}
		for _, st := range opened {
			st.SetWriteDeadline(time.Now().Add(100 * time.Millisecond))
			n, _ := st.Write(make([]byte, 1<<20))
			written += n
		}
		if len(opened) != 256 {
			t.Errorf("%d streams were opened, want 256", len(opened))
		}
		if written > bound {
			t.Errorf("%d bytes are held for a peer, want %d at most", written, bound)
		}
		if n := s.Stats().Streams; n != 256 {
			t.Errorf("%d streams are open", n)
		}
		for range 256 {
			(<-s.streams).Reset(0)
		}
		if _, err := c.OpenStreamSync(t.Context()); err != nil {
			t.Errorf("a stream after the others have ended: %v", err)
		}
		c.CloseWithError(0, "")
		<-s.over
	})
}

// Datagrams that nobody reads are lost, but for a bounded number.
func TestDatagramsBound(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		c, done, err := w.raw(config(t, transporttest.Key(t)), &quicgo.Config{EnableDatagrams: true})
		defer done()
		if err != nil {
			t.Fatal(err)
		}
		s := <-w.ends
		for i := range 2000 {
			if err := c.SendDatagram(make([]byte, 1000)); err != nil {
				t.Fatal(err)
			}
			if i%20 == 0 {
				time.Sleep(time.Millisecond)
			}
		}
		time.Sleep(time.Second)
		got := 0
		for {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			_, err := s.Session.(transport.Datagrams).ReceiveDatagram(ctx)
			cancel()
			if err != nil {
				break
			}
			got++
		}
		if got == 0 || got > 256 {
			t.Errorf("%d datagrams of 2000 were kept", got)
		}
		c.CloseWithError(0, "")
		<-s.over
	})
}

// A peer without datagrams has a length of 0, and an error that says so.
func TestNoDatagrams(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		c, done, err := w.raw(config(t, transporttest.Key(t)), nil)
		defer done()
		if err != nil {
			t.Fatal(err)
		}
		s := <-w.ends
		d := s.Session.(transport.Datagrams)
		if n := d.MaxDatagram(); n != 0 {
			t.Errorf("MaxDatagram = %d", n)
		}
		if err := d.SendDatagram([]byte("x")); !errors.Is(err, transport.ErrDatagramTooLong) {
			t.Errorf("SendDatagram: %v", err)
		}
		c.CloseWithError(0, "")
		<-s.over
	})
}

// "a stateless reset is provided as an option of last resort for an endpoint that does
// not have access to the state of a connection": a host that was killed and runs again,
// with its key, tells its peers with the first packet that they send. It does not matter
// who dialed, as long as that was from the port that is listened on.
// https://www.rfc-editor.org/rfc/rfc9000#section-10.3
func TestStatelessReset(t *testing.T) {
	for _, dialer := range []bool{false, true} {
		inWorld(t, func(t *testing.T, w *world) {
			key := transporttest.Key(t)
			listenAway := func() *quic.Transport {
				tr := &quic.Transport{Key: key, Network: w.away}
				l, err := tr.ListenSession(t.Context(), ma.StringCast("/ip4/10.0.0.1/udp/4001/quic-v1"))
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { l.Close() })
				return tr
			}
			c, err := listenAway().DialSession(t.Context(), listenAt, w.key.ID())
			if err != nil {
				t.Fatal(err)
			}
			left := serve(c)
			st, err := c.Open(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			st.Write([]byte("x"))
			other := <-w.ends
			end := <-other.streams
			time.Sleep(time.Second)

			if dialer {
				w.away.Crash()
				listenAway()
				left, st = other, end
			} else {
				w.server.Network.(*simnet.Host).Crash()
				w.server = &quic.Transport{Key: w.key, Network: w.server.Network}
				w.listen()
			}
			begin := time.Now()
			st.Write(make([]byte, 100)) // quic-go does not answer packets of 42 bytes and less
			_, err = io.ReadFull(st, make([]byte, 2))
			if took := time.Since(begin); took > 15*time.Millisecond {
				t.Errorf("a lost connection was noticed after %v, with a round trip of 10 ms", took)
			}
			for what, err := range map[string]error{"Read": err, "Serve": <-left.over} {
				if se, ok := errors.AsType[*muxer.SessionError](err); !ok || !errors.Is(err, quic.ErrLost) || !se.Remote {
					t.Errorf("%s: %v, want ErrLost", what, err)
				}
			}
			w.dial()
		})
	}
}

// A peer that vanishes is given up after 30 seconds.
func TestSilent(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		tr := &quic.Transport{Key: transporttest.Key(t), Network: w.away}
		c, err := tr.DialSession(t.Context(), listenAt, w.key.ID())
		if err != nil {
			t.Fatal(err)
		}
		e := serve(c)
		time.Sleep(10 * time.Minute) // an idle session lives on
		if err := c.(interface{ Stats() muxer.Stats }).Stats(); err.RTT != 10*time.Millisecond {
			t.Errorf("RTT is %v, want 10 ms", err.RTT)
		}
		begin := time.Now()
		w.n.Partition(w.away)
		err = <-e.over
		if took := time.Since(begin); took < 15*time.Second || took > 46*time.Second {
			t.Errorf("a silent peer was given up after %v", took)
		}
		if !errors.Is(err, quic.ErrSilent) {
			t.Errorf("Serve: %v, want ErrSilent", err)
		}
		<-(<-w.ends).over
	})
}

// Nobody there, or one who does not answer, is a deadline that has passed.
func TestNoAnswer(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		tr := &quic.Transport{Key: transporttest.Key(t), Network: w.away}
		begin := time.Now()
		_, err := tr.DialSession(t.Context(), ma.StringCast("/ip4/10.0.0.2/udp/5/quic-v1"), "")
		if !errors.Is(err, context.DeadlineExceeded) || time.Since(begin) > 6*time.Second {
			t.Errorf("after %v: %v", time.Since(begin), err)
		}
		if !os.IsTimeout(err) && !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%v is no timeout", err)
		}
	})
}

// The ports of dials and of listeners close with the last session.
func TestPortsClose(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		tr := &quic.Transport{Key: transporttest.Key(t), Network: w.away}
		c, err := tr.DialSession(t.Context(), listenAt, w.key.ID())
		if err != nil {
			t.Fatal(err)
		}
		from, _ := netip.ParseAddrPort(c.LocalAddr().String())
		free := func(h transport.Network, at netip.AddrPort) bool {
			s, err := h.ListenUDP(t.Context(), at)
			if err == nil {
				s.Close()
			}
			return err == nil
		}
		if from.Port() == 0 || free(w.away, from) {
			t.Errorf("the dial's port %v is not in use", from)
		}
		s := <-w.ends
		w.l.Close()
		if free(w.server.Network, serverAt) {
			t.Error("the listener's port is free, though a session uses it")
		}
		c.Close(past, 0)
		<-s.over
		synctest.Wait()
		if !free(w.away, from) || !free(w.server.Network, serverAt) {
			t.Error("ports are not free after the last session")
		}
		// A dial that fails leaves nothing behind.
		if _, err := tr.DialSession(t.Context(), listenAt, w.key.ID()); err == nil {
			t.Error("dialed a port that is closed")
		}
		synctest.Wait()
		if !free(w.away, from) {
			t.Error("a failed dial keeps its port")
		}
	})
}

// FuzzDatagram sends a port whatever there is. Then a good peer gets through.
func FuzzDatagram(f *testing.F) {
	server := &quic.Transport{Key: transporttest.Key(f)}
	l, err := server.ListenSession(f.Context(), ma.StringCast("/ip4/127.0.0.1/udp/0/quic-v1"))
	if err != nil {
		f.Fatal(err)
	}
	defer l.Close()
	go func() {
		for range accepted(f, l) { // they end with their peers
		}
	}()
	client := &quic.Transport{Key: transporttest.Key(f)}
	at, err := transport.Multiaddr(l.Addr())
	if err != nil {
		f.Fatal(err)
	}
	sock, err := net.Dial("udp", l.Addr().String())
	if err != nil {
		f.Fatal(err)
	}
	defer sock.Close()
	f.Add([]byte("\xc0\x00\x00\x00\x01\x08abcdefgh\x00\x00\x44\x9e"))
	f.Add([]byte("\x40abcdefghijklmnopqrstuvwxyz"))
	f.Add([]byte("\xc0\xfa\xfa\xfa\xfa\x14abcdefghijklmnopqrst\x00"))
	n := 0
	f.Fuzz(func(t *testing.T, b []byte) {
		sock.Write(b)
		if len(b) > 6 { // as an Initial that is long enough to be looked at
			long := append(append([]byte("\xc3\x00\x00\x00\x01"), b...), make([]byte, 1200)...)
			sock.Write(long[:1200])
		}
		if n++; n%100 > 1 {
			return
		}
		c, err := client.DialSession(context.Background(), at, "")
		if err != nil {
			t.Fatal(err)
		}
		c.Close(past, 0)
	})
}
