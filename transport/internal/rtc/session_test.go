package rtc

import (
	"bytes"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/netip"
	"runtime"
	"sync"
	"testing"
	"testing/synctest"
	"time"
	"weak"

	"github.com/plexus-p2p/plexus/muxer"
	"github.com/plexus-p2p/plexus/peer"
	"github.com/plexus-p2p/plexus/simnet"
	"github.com/plexus-p2p/plexus/transport/internal/sctp"
	"github.com/plexus-p2p/plexus/transport/transporttest"
)

// packets is a socket that talks to one address only, as a net.Conn.
type packets struct {
	net.PacketConn
	to net.Addr
}

func (p *packets) Read(b []byte) (int, error) {
	n, _, err := p.ReadFrom(b)
	return n, err
}

func (p *packets) Write(b []byte) (int, error) { return p.WriteTo(b, p.to) }
func (p *packets) RemoteAddr() net.Addr        { return p.to }

// paths are the two ends of a path that takes 5 ms.
func paths(t *testing.T) (client, server *packets) {
	t.Helper()
	n := simnet.New(simnet.Config{Path: simnet.Link{Latency: 5 * time.Millisecond}})
	t.Cleanup(n.Close)
	var ends [2]*packets
	for i, host := range []string{"10.0.0.1", "10.0.0.2"} {
		c, err := n.Host(host).ListenUDP(t.Context(), netip.AddrPortFrom(netip.MustParseAddr(host), 4001))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		ends[i] = &packets{PacketConn: c}
	}
	ends[0].to, ends[1].to = ends[1].LocalAddr(), ends[0].LocalAddr()
	return ends[0], ends[1]
}

func certificate(t *testing.T, key peer.PrivKey) *tls.Certificate {
	t.Helper()
	c, err := NewCertificate(key)
	if err != nil {
		t.Error(err)
	}
	return c
}

// answer is a server on a path. It returns nil if the client does not go on.
func answer(t *testing.T, path *packets) *Session {
	key := transporttest.Key(t)
	sec, err := Secure(t.Context(), path, false, certificate(t, key), nil)
	if err != nil {
		return nil
	}
	s := NewSession(sec, false, nil, nil)
	if err := s.Authenticate(t.Context(), key, ""); err != nil {
		s.Drop()
		return nil
	}
	return s
}

// pair returns both ends of a connection, which are served.
func pair(t *testing.T) (c, s *Session, accepted chan muxer.Stream) {
	t.Helper()
	client, server := paths(t)
	ends := make(chan *Session, 1)
	go func() { ends <- answer(t, server) }()
	key := transporttest.Key(t)
	sec, err := Secure(t.Context(), client, true, certificate(t, key), nil)
	if err != nil {
		t.Fatal(err)
	}
	c = NewSession(sec, true, nil, nil)
	if err := c.Authenticate(t.Context(), key, ""); err != nil {
		t.Fatal(err)
	}
	if s = <-ends; s == nil {
		t.Fatal("the server has failed")
	}
	accepted = make(chan muxer.Stream, 2*maxStreams)
	go c.Serve(func(st muxer.Stream) { st.Reset(0) })
	go s.Serve(func(st muxer.Stream) { accepted <- st })
	t.Cleanup(func() { c.Drop(); s.Drop() })
	return c, s, accepted
}

// TestFirstMessage: the server leaves the client the time to open channel 0.
func TestFirstMessage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, server := paths(t)
		go answer(t, server)
		sec, err := Secure(t.Context(), client, true, certificate(t, transporttest.Key(t)), nil)
		if err != nil {
			t.Fatal(err)
		}
		s := NewSession(sec, true, nil, nil)
		st := s.open0()
		s.start()
		defer s.Drop()
		<-s.ready
		begin := time.Now()
		if _, err := st.Read(make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(begin); took < openTime {
			t.Errorf("the first message came after %v", took)
		}
	})
}

// lane is one end of a path without loss or latency. What comes can be held up.
type lane struct {
	net.Conn
	to     *lane
	closed chan struct{}

	mu     sync.Mutex
	list   [][]byte
	held   bool
	come   chan struct{} // told when there is something to read
	writes int
}

func lanes() (a, b *lane) {
	a = &lane{closed: make(chan struct{}), come: make(chan struct{}, 1)}
	b = &lane{closed: make(chan struct{}), come: make(chan struct{}, 1), to: a}
	a.to = b
	return a, b
}

func (l *lane) Write(b []byte) (int, error) {
	l.mu.Lock()
	l.writes++
	l.mu.Unlock()
	l.to.mu.Lock()
	l.to.list = append(l.to.list, bytes.Clone(b))
	l.to.mu.Unlock()
	l.to.tell()
	return len(b), nil
}

func (l *lane) tell() {
	select {
	case l.come <- struct{}{}:
	default:
	}
}

func (l *lane) Read(p []byte) (int, error) {
	for {
		l.mu.Lock()
		if len(l.list) > 0 && !l.held {
			n := copy(p, l.list[0])
			l.list = l.list[1:]
			l.mu.Unlock()
			return n, nil
		}
		l.mu.Unlock()
		select {
		case <-l.come:
		case <-l.closed:
			return 0, net.ErrClosed
		}
	}
}

func (l *lane) Waiting() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.list) > 0 && !l.held
}

// hold makes what comes wait, or come. It returns how often the end has written so far.
func (l *lane) hold(on bool) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.held = on
	l.tell()
	return l.writes
}

func (l *lane) Close() error {
	close(l.closed)
	return nil
}

// Packets that wait are answered together.
func TestOneAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := lanes()
		ends := make([]*Session, 2)
		for i, l := range []*lane{a, b} {
			conn := loop(t)
			conn.path = l
			ends[i] = NewSession(conn, i == 0, nil, nil)
			ends[i].start()
			defer ends[i].Drop()
		}
		<-ends[0].ready
		<-ends[1].ready
		synctest.Wait()
		st, err := ends[0].Open(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		b.hold(true)
		if _, err := st.Write(make([]byte, 8*sctp.DataSize)); err != nil {
			t.Fatal(err)
		}
		before := b.hold(false)
		synctest.Wait()
		if n := b.hold(false) - before; n < 1 || n > 2 { // two, if batch ends among them
			t.Errorf("%d answers to what waited", n)
		}
		if n := ends[1].Stats().Received; n < 8*sctp.DataSize {
			t.Errorf("%d bytes have come", n)
		}
	})
}

// Messages that make no sense cost the stream, and not the connection.
func TestBadMessages(t *testing.T) {
	long := appendMessage(nil, message{flag: flagNone, payload: make([]byte, MaxMessage)})
	for name, b := range map[string][]byte{
		"no protobuf":     {3, 0xff, 0xff, 0xff},
		"a length of 2³²": {0xff, 0xff, 0xff, 0xff, 0x0f},
		"a field cut off": {2, 0x12, 5},
		"too long":        long,
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c, s, accepted := pair(t)
				st, err := c.Open(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				bad := st.(*stream)
				c.mu.Lock()
				bad.announce()
				c.assoc.Send(bad.id, ppidBinary, b)
				c.unlock()
				end := <-accepted
				_, err = end.Read(make([]byte, 1))
				var reset *muxer.StreamError
				if !errors.As(err, &reset) || reset.Code != muxer.StreamProtocolViolation || reset.Remote {
					t.Errorf("read: %v", err)
				}
				_, err = st.Read(make([]byte, 1))
				if !errors.As(err, &reset) || reset.Code != muxer.StreamProtocolViolation || !reset.Remote {
					t.Errorf("who sent it reads: %v", err)
				}
				echoOnce(t, c, accepted)
				time.Sleep(2 * closeWait)
				if n, held := s.Stats().Streams, s.Stats().Received; n != 0 || held != 0 {
					t.Errorf("%d streams, %d bytes are held", n, held)
				}
			})
		})
	}
}

// echoOnce shows that a connection works.
func echoOnce(t *testing.T, c *Session, accepted chan muxer.Stream) {
	t.Helper()
	st, err := c.Open(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	st.Write([]byte("hello"))
	end := <-accepted
	defer end.Close()
	b := make([]byte, 5)
	if _, err := io.ReadFull(end, b); err != nil || string(b) != "hello" {
		t.Errorf("got %q, %v", b, err)
	}
}

// alone returns a stream of a session that has no peer.
func alone(t *testing.T) *stream {
	st := NewSession(loop(t), true, nil, nil).add(1)
	st.opened = true
	return st
}

// A peer that says FIN again and again, and reads nothing, does not make us hold answers.
func TestManyFINs(t *testing.T) {
	st := alone(t)
	for range 100 {
		st.onMessage(appendMessage(nil, message{flag: flagFin}))
	}
	if one := len(appendMessage(nil, message{flag: flagFinAck})); st.queued != one {
		t.Errorf("%d bytes of answers, want %d", st.queued, one)
	}
}

// A peer that opens and closes streams does not make us hold those that nobody accepts yet.
func TestBacklog(t *testing.T) {
	s := alone(t).s
	for range 3 * maxStreams {
		s.accept(3, openMessage())
		s.onPeerReset(3)
	}
	if n := len(s.backlog); n != maxStreams || s.inbound != 0 {
		t.Errorf("%d streams wait, %d are open", n, s.inbound)
	}
}

// A payload holds no more memory than it counts for, also where it came beside much else.
func TestShortPayload(t *testing.T) {
	st := alone(t)
	b := appendMessage(nil, message{flag: flagNone, payload: make([]byte, 2*small)})
	for range 100 {
		b = append(b, appendMessage(nil, message{flag: flagNone, code: 1})...)
	}
	b = append(b, appendMessage(nil, message{flag: flagNone, payload: make([]byte, 8*small)})...)
	b = append(b, make([]byte, 100<<10)...) // messages without anything
	w := weak.Make(&b[0])
	st.onMessage(b)
	b = nil
	runtime.GC()
	if w.Value() != nil {
		t.Error("what came with it is held")
	}
	if n := len(st.received); n != 2 || st.held != 10*small {
		t.Errorf("%d payloads, %d bytes count", n, st.held)
	}
}

// A message in tiny pieces is not copied for each.
func TestTinyPieces(t *testing.T) {
	st := alone(t)
	all := appendMessage(nil, message{flag: flagNone, payload: make([]byte, MaxMessage-10)})
	st.onMessage(bytes.Clone(all[:len(all)/2]))
	piece := make([]byte, 1)
	if n := testing.AllocsPerRun(1000, func() { st.onMessage(piece) }); n != 0 {
		t.Errorf("%v allocations for a piece", n)
	}
}

// Streams whose FIN was acknowledged are not held until it would be too late for that.
func TestLinger(t *testing.T) {
	s := alone(t).s
	for id := range uint16(100) {
		st := s.add(2 * id)
		st.opened = true
		st.onMessage(appendMessage(nil, message{flag: flagFin}))
		st.closeWrite()
		st.onMessage(appendMessage(nil, message{flag: flagFinAck}))
		if !st.over {
			t.Fatal("all is said, and the stream is not over")
		}
	}
	if n := len(s.linger); n > 1 {
		t.Errorf("%d streams are held", n)
	}
}

// A message of 257 KiB is taken, also where it comes in pieces or beside others.
func TestPieces(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, _, accepted := pair(t)
		st, _ := c.Open(t.Context())
		x := st.(*stream)
		payload := make([]byte, MaxMessage-10)
		for i := range payload {
			payload[i] = byte(i * 7)
		}
		all := appendMessage(nil, message{flag: flagNone, payload: payload})
		all = append(all, appendMessage(nil, message{flag: flagNone, payload: []byte("and more")})...)
		all = append(all, appendMessage(nil, message{flag: flagFin})...)
		c.mu.Lock()
		x.announce()
		for len(all) > 0 {
			n := min(len(all), 1+len(all)%5000)
			c.assoc.Send(x.id, ppidBinary, all[:n:n])
			all = all[n:]
		}
		c.unlock()
		got, err := io.ReadAll(<-accepted)
		if err != nil || !bytes.Equal(got, append(payload, "and more"...)) {
			t.Errorf("got %d bytes, %v", len(got), err)
		}
	})
}

// A peer may have so many streams, and further ones are reset.
func TestTooManyStreams(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, s, accepted := pair(t)
		for range maxStreams {
			st, err := c.Open(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			st.Write([]byte("x"))
			<-accepted
		}
		st, err := c.Open(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		st.Write([]byte("x"))
		var reset *muxer.StreamError
		if _, err := st.Read(make([]byte, 1)); !errors.As(err, &reset) || reset.Code != muxer.StreamResourceLimitExceeded {
			t.Errorf("one stream too many: %v", err)
		}
		if n := s.Stats().Streams; n != maxStreams {
			t.Errorf("%d streams", n)
		}
	})
}

// A peer that is gone is noticed after half a minute; one that is idle is not.
func TestGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, s, accepted := pair(t)
		time.Sleep(10 * time.Minute)
		echoOnce(t, c, accepted)
		c.conn.path.(*packets).PacketConn.Close() // without a word
		begin := time.Now()
		<-s.over
		if took := time.Since(begin); took > 31*time.Second || !errors.Is(s.end, sctp.ErrSilent) {
			t.Errorf("%v after %v", s.end, took)
		}
	})
}
