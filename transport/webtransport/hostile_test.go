package webtransport

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"regexp"
	"runtime"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"

	"github.com/plexus-p2p/plexus/muxer"
	"github.com/plexus-p2p/plexus/peer"
	"github.com/plexus-p2p/plexus/security"
	"github.com/plexus-p2p/plexus/security/noise"
	"github.com/plexus-p2p/plexus/simnet"
	"github.com/plexus-p2p/plexus/transport"
)

var serverAt = netip.MustParseAddrPort("10.0.0.2:4001")

// world is a transport that listens on 10.0.0.2, and a place for somebody else.
type world struct {
	t      testing.TB
	server *Transport
	l      transport.SessionListener
	ends   chan transport.Session
	away   *simnet.Host // 10.0.0.1
}

// inWorld runs f in a bubble.
func inWorld(t *testing.T, f func(t *testing.T, w *world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		n := simnet.New(simnet.Config{Path: simnet.Link{Latency: 5 * time.Millisecond}})
		t.Cleanup(n.Close)
		w := &world{t: t, away: n.Host("10.0.0.1"), ends: make(chan transport.Session, 100)}
		w.server = &Transport{Key: seeded(t, 1), Network: n.Host("10.0.0.2")}
		var err error
		if w.l, err = w.server.ListenSession(t.Context(), withHashes(serverAt)); err != nil {
			t.Fatal(err)
		}
		go func() { // ends with the listener
			for {
				s, err := w.l.Accept()
				if err != nil {
					return
				}
				w.ends <- s
			}
		}()
		f(t, w)
		w.l.Close()
	})
}

// dial connects as a good peer does, and talks.
func (w *world) dial() {
	w.t.Helper()
	tr := &Transport{Key: seeded(w.t, 2), Network: w.away}
	at, err := transport.Multiaddr(w.l.Addr())
	if err != nil {
		w.t.Fatal(err)
	}
	c, err := tr.DialSession(w.t.Context(), at, w.server.Key.ID())
	if err != nil {
		w.t.Fatalf("a good peer: %v", err)
	}
	s := <-w.ends
	streams, over := serve(s)
	st, err := c.Open(w.t.Context())
	if err != nil {
		w.t.Fatal(err)
	}
	st.Write([]byte("x"))
	if _, err := io.ReadFull(<-streams, make([]byte, 1)); err != nil {
		w.t.Errorf("a good peer: %v", err)
	}
	c.Close(past, 0)
	<-over
}

func serve(s transport.Session) (streams chan muxer.Stream, over chan error) {
	streams, over = make(chan muxer.Stream, 300), make(chan error, 1)
	go func() { over <- s.Serve(func(st muxer.Stream) { streams <- st }) }()
	return streams, over
}

// past is a context that has ended.
var past = func() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}()

// client is one that does what it is told.
type client struct {
	*quic.Conn
	w    *world
	http *http3.RawClientConn
	done func()
}

func (w *world) client() *client {
	w.t.Helper()
	c, err := w.tryClient()
	if err != nil {
		w.t.Fatal(err)
	}
	return c
}

func (w *world) tryClient() (*client, error) {
	w.t.Helper()
	sock, err := w.away.ListenUDP(w.t.Context(), netip.MustParseAddrPort("10.0.0.1:0"))
	if err != nil {
		w.t.Fatal(err)
	}
	tr := &quic.Transport{Conn: sock}
	c, err := tr.Dial(w.t.Context(), net.UDPAddrFromAddrPort(serverAt), &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h3"}},
		&quic.Config{EnableDatagrams: true, EnableStreamResetPartialDelivery: true})
	if err != nil {
		tr.Close()
		sock.Close()
		return nil, err
	}
	return &client{c, w, nil, func() { c.CloseWithError(0, ""); tr.Close(); sock.Close() }}, nil
}

// request makes a request. The status is 0 if there is no answer.
func (c *client) request(method, proto, path, query string) (str *http3.RequestStream, status int) {
	c.w.t.Helper()
	if c.http == nil {
		c.http = (&http3.Transport{EnableDatagrams: true, AdditionalSettings: settings}).NewRawClientConn(c.Conn)
		go uni(c.Conn, c.http.HandleUnidirectionalStream)
		select {
		case <-c.http.ReceivedSettings():
		case <-c.Context().Done():
			return nil, 0
		}
	}
	str, err := c.http.OpenRequestStream(c.w.t.Context())
	if err != nil {
		return nil, 0
	}
	str.SendRequestHeader(&http.Request{Method: method, Proto: proto, Host: "x", URL: &url.URL{Scheme: "https", Host: "x", Path: path, RawQuery: query}, Header: http.Header{}})
	res, err := str.ReadResponse()
	if err != nil {
		return str, 0
	}
	return str, res.StatusCode
}

// session makes one, and proves who we are.
func (c *client) session() (str *http3.RequestStream, id uint64, end transport.Session) {
	c.w.t.Helper()
	str, status := c.request(http.MethodConnect, protocol, path, query)
	if status != 200 {
		c.w.t.Fatalf("a good request: status %d", status)
	}
	id = uint64(str.StreamID())
	st, err := c.OpenStream()
	if err != nil {
		c.w.t.Fatal(err)
	}
	st.Write(appendPrefix(nil, id))
	if _, err := new(noise.Protocol).Secure(c.w.t.Context(), plain{st, c.Conn}, security.Handshake{Key: seeded(c.w.t, 2), Client: true}); err != nil {
		c.w.t.Fatal(err)
	}
	st.Close()
	return str, id, <-c.w.ends
}

// plain makes a net.Conn of a stream.
type plain struct {
	*quic.Stream
	c *quic.Conn
}

func (p plain) LocalAddr() net.Addr  { return p.c.LocalAddr() }
func (p plain) RemoteAddr() net.Addr { return p.c.RemoteAddr() }

// goroutines counts those of the bubble.
func goroutines() (n int) {
	synctest.Wait()
	b := make([]byte, 16<<20)
	bubble := regexp.MustCompile(`synctest bubble \d+\]`).Find(b[:runtime.Stack(b, false)])
	return bytes.Count(b[:runtime.Stack(b, true)], bubble)
}

// Requests that are for something else are answered, a few of them.
func TestRequests(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		c := w.client()
		defer c.done()
		for _, r := range []struct {
			method, proto, path, query string
			want                       int
		}{
			{http.MethodGet, "", path, query, 405},
			{http.MethodConnect, protocol, "/", query, 404},
			{http.MethodConnect, protocol, path, "type=tls", 400},
			{http.MethodConnect, "websocket", path, query, -1}, // that was enough: whether the answer arrives is luck
		} {
			if _, status := c.request(r.method, r.proto, r.path, r.query); status != r.want && r.want >= 0 {
				t.Errorf("%s %s%s?%s: status %d, want %d", r.method, r.proto, r.path, r.query, status, r.want)
			}
		}
		<-c.Context().Done()
		w.dial()
	})
}

// Clients that stop anywhere on the way to a session are given up after 10 seconds, and
// what else comes is no session.
func TestStalled(t *testing.T) {
	for name, f := range map[string]func(t *testing.T, c *client){
		"connected": func(*testing.T, *client) {},
		"half a request": func(t *testing.T, c *client) {
			st, _ := c.OpenStream()
			st.Write([]byte{1})
		},
		"a session": func(t *testing.T, c *client) { c.request(http.MethodConnect, protocol, path, query) },
		"half a prefix": func(t *testing.T, c *client) {
			c.request(http.MethodConnect, protocol, path, query)
			st, _ := c.OpenStream()
			st.Write([]byte{0x40})
		},
		"half of Noise": func(t *testing.T, c *client) {
			str, _ := c.request(http.MethodConnect, protocol, path, query)
			st, _ := c.OpenStream()
			st.Write(append(appendPrefix(nil, uint64(str.StreamID())), 0, 32, 1, 2, 3))
		},
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) {
				w.dial()
				time.Sleep(time.Minute)
				before := goroutines()
				c := w.client()
				begin := time.Now()
				f(t, c)
				<-c.Context().Done()
				if took := time.Since(begin); took < handshakeTimeout-time.Second || took > handshakeTimeout+time.Second {
					t.Errorf("given up after %v", took)
				}
				if len(w.ends) > 0 {
					t.Error("that was accepted")
				}
				c.done()
				w.dial()
				time.Sleep(time.Minute)
				if n := goroutines(); n > before {
					t.Errorf("%d goroutines, %d before", n, before)
				}
			})
		})
	}
	for name, b := range map[string][]byte{
		"another stream": {0x40, 0x41, 0x40, 0x44},
		"no prefix":      bytes.Repeat([]byte{7}, 100),
		"garbage":        append([]byte{0x40, 0x41, 0, 0, 64}, make([]byte, 64)...),
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) {
				c := w.client()
				defer c.done()
				c.request(http.MethodConnect, protocol, path, query)
				st, _ := c.OpenStream()
				st.Write(b)
				begin := time.Now()
				<-c.Context().Done()
				if took := time.Since(begin); took > time.Second {
					t.Errorf("given up after %v", took)
				}
				if len(w.ends) > 0 {
					t.Error("that was accepted")
				}
				w.dial()
			})
		})
	}
}

// So many connections may be without a session, and no more.
func TestHandshakesBound(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		const more = 10
		var wg sync.WaitGroup
		var mu sync.Mutex
		refused := 0
		for range handshakes + more {
			c, err := w.tryClient()
			if err != nil { // it has heard during the handshake of QUIC
				mu.Lock()
				refused++
				mu.Unlock()
				continue
			}
			begin := time.Now()
			wg.Go(func() {
				<-c.Context().Done()
				mu.Lock()
				if time.Since(begin) < time.Second {
					refused++
				}
				mu.Unlock()
				c.done()
			})
		}
		wg.Wait()
		if refused != more {
			t.Errorf("%d of %d connections were refused", refused, more)
		}
		w.dial()
	})
}

// On a session, streams that are not of it are refused, and it goes on.
func TestStrangeStreams(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		c := w.client()
		defer c.done()
		_, id, end := c.session()
		streams, over := serve(end)
		for _, b := range [][]byte{appendPrefix(nil, id+4), {1, 2, 3}} {
			st, err := c.OpenStream()
			if err != nil {
				t.Fatal(err)
			}
			st.Write(append(b, "hello"...))
			_, err = (<-streams).Read(make([]byte, 10))
			if e, ok := errors.AsType[*muxer.StreamError](err); !ok || e.Remote || e.Code != muxer.StreamProtocolViolation {
				t.Errorf("%x: %v", b, err)
			}
			_, err = st.Read(make([]byte, 1))
			if e, ok := errors.AsType[*quic.StreamError](err); !ok || uint64(e.ErrorCode) != errRejected {
				t.Errorf("%x: the client got %v", b, err)
			}
		}
		// It ends before its prefix does.
		st, _ := c.OpenStream()
		st.Write([]byte{0x40})
		st.Close()
		_, err := (<-streams).Read(make([]byte, 10))
		if e, ok := errors.AsType[*muxer.StreamError](err); !ok || e.Code != muxer.StreamProtocolViolation {
			t.Errorf("half a prefix: %v", err)
		}
		// A second session.
		go func() { c.request(http.MethodConnect, protocol, path, query) }()
		if _, err := (<-streams).Read(make([]byte, 10)); err == nil {
			t.Error("a second session")
		}

		// The prefix comes in pieces, while several wait for what follows, and a deadline
		// passes.
		st, _ = c.OpenStream()
		b := appendPrefix(nil, id)
		st.Write(b[:1])
		got := <-streams
		if got.Ready() {
			t.Error("half a prefix is ready")
		}
		got.SetReadDeadline(time.Now().Add(time.Second))
		errs := make(chan error, 3)
		for range cap(errs) {
			go func() { _, err := got.Read(make([]byte, 1)); errs <- err }()
		}
		for range cap(errs) {
			if err := <-errs; !errors.Is(err, context.DeadlineExceeded) && err == nil {
				t.Errorf("half a prefix: %v", err)
			}
		}
		got.SetReadDeadline(time.Time{})
		for range cap(errs) {
			go func() { _, err := got.Read(make([]byte, 1)); errs <- err }()
		}
		for _, b := range append(b[1:], "abc"...) {
			time.Sleep(time.Second)
			st.Write([]byte{b})
		}
		for range cap(errs) {
			if err := <-errs; err != nil {
				t.Errorf("what follows a prefix in pieces: %v", err)
			}
		}
		c.CloseWithError(0, "")
		<-over
	})
}

// How the stream of the request ends is how the session does.
func TestEnd(t *testing.T) {
	for _, c := range []struct {
		name string
		do   func(*http3.RequestStream)
		want muxer.SessionError
		err  error
	}{
		{"a code", func(s *http3.RequestStream) { s.Write(appendClose(nil, 0x1007)) }, muxer.SessionError{Code: 0x1007, Remote: true}, nil},
		{"the end", func(s *http3.RequestStream) { s.Close() }, muxer.SessionError{Remote: true}, nil},
		{"a reset", func(s *http3.RequestStream) { s.CancelWrite(1) }, muxer.SessionError{Remote: true}, nil},
		{"nonsense", func(s *http3.RequestStream) { s.Write([]byte("\x68\x43\x02\x00\x00")) }, muxer.SessionError{}, muxer.ErrProtocol},
		{"half a capsule", func(s *http3.RequestStream) { s.Write([]byte("\x68\x43\x04")); s.Close() }, muxer.SessionError{}, muxer.ErrProtocol},
	} {
		t.Run(c.name, func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) {
				cl := w.client()
				defer cl.done()
				str, id, end := cl.session()
				streams, over := serve(end)
				st, _ := cl.OpenStream()
				st.Write(appendPrefix(nil, id))
				read := make(chan error)
				go func() { _, err := (<-streams).Read(make([]byte, 1)); read <- err }()
				time.Sleep(time.Second)
				c.do(str)
				for what, err := range map[string]error{"Serve": <-over, "Read": <-read} {
					if e, ok := errors.AsType[*muxer.SessionError](err); !ok || e.Code != c.want.Code || e.Remote != c.want.Remote || !errors.Is(err, c.err) && c.err != nil {
						t.Errorf("%s: %v, want %v, %v", what, err, &c.want, c.err)
					}
				}
				<-cl.Context().Done()
			})
		})
	}
}

// hostile is a server that does what it is told.
type hostile struct {
	settings map[uint64]uint64
	status   int
	hashes   [][]byte // which it vouches for
	noise    func(*quic.Stream)
}

// TestServers: a dial says what is wrong with the server.
func TestServers(t *testing.T) {
	cert, err := makeCertificate(seeded(t, 3), time.Date(1999, 12, 31, 0, 0, 0, 0, time.UTC)) // it is 2000 in a bubble
	if err != nil {
		t.Fatal(err)
	}
	old, err := makeCertificate(seeded(t, 3), time.Date(1999, 12, 1, 0, 0, 0, 0, time.UTC))
	if err != nil {
		t.Fatal(err)
	}
	isStatus := func(err error) bool {
		e, ok := errors.AsType[*StatusError](err)
		return ok && e.Status == 404
	}
	is := func(want error) func(error) bool { return func(err error) bool { return errors.Is(err, want) } }
	good := hostile{settings: settings, hashes: [][]byte{cert.hash}}
	for name, c := range map[string]struct {
		server hostile
		cert   *certificate
		hashes [][]byte
		want   peer.ID
		ok     func(error) bool
	}{
		"good":            {good, cert, [][]byte{cert.hash}, "", func(err error) bool { return err == nil }},
		"an older draft":  {hostile{settings: map[uint64]uint64{settingDraft2: 1}, hashes: good.hashes}, cert, [][]byte{cert.hash}, "", func(err error) bool { return err == nil }},
		"no WebTransport": {hostile{}, cert, [][]byte{cert.hash}, "", is(ErrNoSession)},
		"not found":       {hostile{settings: settings, status: 404}, cert, [][]byte{cert.hash}, "", isStatus},
		"wrong peer": {good, cert, [][]byte{cert.hash}, seeded(t, 9).ID(), func(err error) bool {
			_, ok := errors.AsType[*security.MismatchError](err)
			return ok
		}},
		"another hash":       {good, cert, [][]byte{hashA}, "", is(ErrCertificate)},
		"no hash":            {good, cert, nil, "", is(ErrNoCertHash)},
		"expired":            {good, old, [][]byte{old.hash}, "", is(ErrCertificate)},
		"vouches for none":   {hostile{settings: settings}, cert, [][]byte{cert.hash}, "", is(ErrCertHashes)},
		"vouches for others": {good, cert, [][]byte{cert.hash, hashA}, "", is(ErrCertHashes)},
		"says nothing":       {hostile{settings: settings, noise: func(*quic.Stream) {}}, cert, [][]byte{cert.hash}, "", is(context.DeadlineExceeded)},
		"breaks off":         {hostile{settings: settings, noise: func(s *quic.Stream) { s.Write([]byte{0, 50, 1, 2}); s.Close() }}, cert, [][]byte{cert.hash}, "", is(security.ErrHandshake)},
		"garbage":            {hostile{settings: settings, noise: func(s *quic.Stream) { s.Write(make([]byte, 1000)) }}, cert, [][]byte{cert.hash}, "", is(security.ErrHandshake)},
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) {
				sock, err := w.away.ListenUDP(t.Context(), netip.MustParseAddrPort("10.0.0.1:0"))
				if err != nil {
					t.Fatal(err)
				}
				defer sock.Close()
				tr := &quic.Transport{Conn: sock}
				defer tr.Close()
				l, err := tr.Listen(&tls.Config{Certificates: []tls.Certificate{c.cert.tls}, NextProtos: []string{"h3"}},
					&quic.Config{EnableDatagrams: true, EnableStreamResetPartialDelivery: true})
				if err != nil {
					t.Fatal(err)
				}
				go c.server.run(t, l)
				at := sock.LocalAddr().(*net.UDPAddr).AddrPort()
				begin := time.Now()
				s, err := w.server.DialSession(t.Context(), withHashes(at, c.hashes...), c.want)
				if !c.ok(err) {
					t.Errorf("%v", err)
				}
				if took := time.Since(begin); took > handshakeTimeout+time.Second {
					t.Errorf("after %v", took)
				}
				if err == nil {
					s.Close(past, 0)
				}
			})
		})
	}
}

func (h *hostile) run(t *testing.T, l *quic.Listener) {
	c, err := l.Accept(t.Context())
	if err != nil {
		return
	}
	granted := false
	raw, err := (&http3.Server{EnableDatagrams: true, AdditionalSettings: h.settings, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if old := h.settings[settingEnabled] == 0; old != (r.Header.Get(headerDraft2) == "1") || old != (r.Proto == protocolDraft) {
			t.Errorf("asked by %s, %v", r.Proto, r.Header)
		}
		if h.status != 0 {
			w.WriteHeader(h.status)
			return
		}
		w.(http3.HTTPStreamer).HTTPStream()
		granted = true
	})}).NewRawServerConn(c)
	if err != nil {
		return
	}
	go uni(c, raw.HandleUnidirectionalStream)
	str, err := c.AcceptStream(t.Context())
	if err != nil {
		return
	}
	if raw.HandleRequestStream(str); !granted {
		return
	}
	st, err := c.AcceptStream(t.Context())
	if err != nil {
		return
	}
	io.ReadFull(st, make([]byte, len(appendPrefix(nil, uint64(str.StreamID())))))
	if h.noise != nil {
		h.noise(st)
		return
	}
	new(noise.Protocol).SecureCerts(t.Context(), plain{st, c}, security.Handshake{Key: seeded(t, 3)}, noise.Certs{Hashes: h.hashes})
}

// Datagrams that nobody reads are lost, but for a bounded number, and those of other
// sessions are.
func TestDatagramsBound(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		c := w.client()
		defer c.done()
		_, _, end := c.session()
		_, over := serve(end)
		for i := range 1000 {
			c.SendDatagram(append([]byte{byte(i % 2)}, make([]byte, 1000)...)) // quarter of the session's ID, or another
			if i%20 == 0 {
				time.Sleep(time.Millisecond)
			}
		}
		time.Sleep(time.Second)
		got := 0
		for {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			b, err := end.(transport.Datagrams).ReceiveDatagram(ctx)
			cancel()
			if err != nil {
				break
			}
			if got++; len(b) != 1000 {
				t.Errorf("a datagram of %d bytes", len(b))
			}
		}
		if got == 0 || got > 256 {
			t.Errorf("%d datagrams of 500 were kept", got)
		}
		c.CloseWithError(0, "")
		<-over
	})
}
