package noise

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"io"
	"math"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	flynn "github.com/flynn/noise"

	"github.com/plexus-p2p/plexus/peer"
	"github.com/plexus-p2p/plexus/security"
	"github.com/plexus-p2p/plexus/security/securitytest"
)

var update = flag.Bool("update", false, "write testdata anew")

func TestConformance(t *testing.T) {
	securitytest.Test(t, securitytest.Config{New: func() security.Protocol { return new(Protocol) }})
}

// WebRTC and WebTransport use these two settings.
func TestConformanceReverse(t *testing.T) {
	securitytest.Test(t, securitytest.Config{New: func() security.Protocol {
		return &Protocol{Prologue: []byte("both know"), Reverse: true}
	}, ServerChooses: true})
}

// seeded is an Ed25519 identity of 32 equal bytes.
func seeded(t testing.TB, b byte) peer.PrivKey {
	t.Helper()
	k, err := peer.NewPrivKey(ed25519.NewKeyFromSeed(bytes.Repeat([]byte{b}, ed25519.SeedSize)))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// fixed is a source of random bytes that is none: 32 equal bytes, then 32 of the next.
type fixed struct {
	mu sync.Mutex
	b  byte
}

func (f *fixed) Read(p []byte) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for i := range p {
		p[i] = f.b
	}
	f.b++
	return len(p), nil
}

// tape records what is written to a connection.
type tape struct {
	net.Conn
	writes [][]byte
}

func (c *tape) Write(p []byte) (int, error) {
	c.writes = append(c.writes, bytes.Clone(p))
	return c.Conn.Write(p)
}

// The whole handshake and the first records, byte for byte.
func TestVector(t *testing.T) {
	a, b := securitytest.Pipe()
	ta, tb := &tape{Conn: a}, &tape{Conn: b}
	ik, rk := seeded(t, 0x11), seeded(t, 0x22)
	c, s := pair(t, ta, tb,
		&Protocol{random: &fixed{b: 0x33}}, &Protocol{random: &fixed{b: 0x55}},
		security.Handshake{Key: ik, Client: true, Want: rk.ID(), Muxers: []string{"/yamux/1.0.0", "/mplex/6.7.0"}},
		security.Handshake{Key: rk, Muxers: []string{"/mplex/6.7.0", "/yamux/1.0.0"}})
	io.WriteString(c, "hello")
	io.WriteString(s, "hello back")

	var w strings.Builder
	w.WriteString(`# A handshake of /noise and the first record of each side, as they stand on the wire.
# Written by "go test -run TestVector -update". A value such as 11*32 is that byte 32 times.
#
# initiator identity (Ed25519 seed) = 11*32
# initiator static (X25519)         = 33*32
# initiator ephemeral               = 34*32
# initiator muxers                  = /yamux/1.0.0 /mplex/6.7.0
# responder identity (Ed25519 seed) = 22*32
# responder static                  = 55*32
# responder ephemeral               = 56*32
# responder muxers                  = /mplex/6.7.0 /yamux/1.0.0
`)
	for _, m := range []struct {
		name string
		b    []byte
	}{
		{"message 1", ta.writes[0]}, {"message 2", tb.writes[0]}, {"message 3", ta.writes[1]},
		{`initiator writes "hello"`, ta.writes[2]}, {`responder writes "hello back"`, tb.writes[1]},
	} {
		fmt.Fprintf(&w, "\n# %s\n%x\n", m.name, m.b)
	}
	file := filepath.Join("testdata", "handshake.txt")
	if *update {
		if err := os.WriteFile(file, []byte(w.String()), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if w.String() != string(want) {
		t.Errorf("got\n%s\nwant\n%s", w.String(), want)
	}
}

// vector returns the messages of testdata/handshake.txt.
func vector(t testing.TB) [][]byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", "handshake.txt"))
	if err != nil {
		t.Fatal(err)
	}
	var msgs [][]byte
	for line := range strings.Lines(string(b)) {
		if line = strings.TrimSpace(line); line == "" || line[0] == '#' {
			continue
		}
		m, err := hex.DecodeString(line)
		if err != nil {
			t.Fatal(err)
		}
		msgs = append(msgs, m)
	}
	return msgs
}

// pair runs a handshake.
func pair(t testing.TB, a, b net.Conn, ap, bp *Protocol, ah, bh security.Handshake) (client, server *security.Conn) {
	t.Helper()
	done := make(chan error, 1)
	go func() {
		var err error
		server, err = bp.Secure(t.Context(), b, bh)
		done <- err
	}()
	client, err := ap.Secure(t.Context(), a, ah)
	if err2 := <-done; err != nil || err2 != nil {
		t.Fatalf("client %v, server %v", err, err2)
	}
	return client, server
}

// The ends tell each other of certificates, and either may turn them down.
//
// "Servers MUST include […] webtransport_certhashes".
// https://github.com/libp2p/specs/blob/master/webtransport/README.md#security-handshake
func TestCerts(t *testing.T) {
	ik, rk := seeded(t, 0x11), seeded(t, 0x22)
	hashes := [][]byte{[]byte("one"), []byte("two")}
	errOther := errors.New("not these")
	for _, refuse := range []bool{false, true} {
		a, b := securitytest.Pipe()
		server := make(chan error, 1)
		go func() {
			_, err := new(Protocol).SecureCerts(t.Context(), b, security.Handshake{Key: rk}, Certs{Hashes: hashes})
			server <- err
		}()
		var got [][]byte
		_, err := new(Protocol).SecureCerts(t.Context(), a, security.Handshake{Key: ik, Client: true, Want: rk.ID()}, Certs{
			Check: func(theirs [][]byte) error {
				for _, h := range theirs {
					got = append(got, bytes.Clone(h))
				}
				if refuse {
					return errOther
				}
				return nil
			},
		})
		a.Close() // in place of message 3, if it was refused
		if err2 := <-server; refuse != errors.Is(err, errOther) || refuse != errors.Is(err, security.ErrHandshake) || refuse != (err2 != nil) {
			t.Errorf("refuse %v: client %v, server %v", refuse, err, err2)
		}
		if !slices.EqualFunc(got, hashes, bytes.Equal) {
			t.Errorf("the client got %q, want %q", got, hashes)
		}
		b.Close()
	}
}

// What the record layer sends is what the handshake's library would.
func TestRecordsAgainstLibrary(t *testing.T) {
	key := [32]byte{1, 2, 3}
	suite := flynn.NewCipherSuite(flynn.DH25519, flynn.CipherChaChaPoly, flynn.HashSHA256)
	lib := flynn.UnsafeNewCipherState(suite, key, 0)
	a, b := securitytest.Pipe()
	ta := &tape{Conn: a}
	c, s := newConn(ta, key, [32]byte{}), newConn(b, [32]byte{}, key)
	for _, size := range []int{1, 2, 1000, maxPlain - 1, maxPlain, maxPlain + 1, 3 * maxPlain} {
		p := bytes.Repeat([]byte{byte(size)}, size)
		ta.writes = nil
		if n, err := c.Write(p); n != size || err != nil {
			t.Fatalf("%d: wrote %d, %v", size, n, err)
		}
		var want []byte
		for rest := p; len(rest) > 0; {
			n := min(len(rest), 65519)
			want = binary.BigEndian.AppendUint16(want, uint16(n+16))
			want, _ = lib.Encrypt(want, nil, rest[:n])
			rest = rest[n:]
		}
		if len(ta.writes) != 1 || !bytes.Equal(ta.writes[0], want) {
			t.Errorf("%d: wrong records", size)
		}
		got := make([]byte, size)
		if _, err := io.ReadFull(s, got); err != nil || !bytes.Equal(got, p) {
			t.Errorf("%d: read something else, %v", size, err)
		}
	}
}

// exchangeWith runs one end of a handshake against a peer that follows a script.
func exchangeWith(t *testing.T, h security.Handshake, script func(x *exchange, id *identity) error) error {
	t.Helper()
	a, b := securitytest.Pipe()
	defer a.Close()
	defer b.Close()
	done := make(chan error, 1)
	go func() {
		_, err := new(Protocol).Secure(t.Context(), a, h)
		a.Close()
		done <- err
	}()
	p := new(Protocol)
	id, err := p.identity(seeded(t, 2))
	if err != nil {
		t.Fatal(err)
	}
	x := p.newExchange(b, id, !h.Client)
	if err := script(x, id); err != nil {
		t.Logf("script: %v", err)
	}
	b.CloseWrite()
	return <-done
}

func TestBadPayload(t *testing.T) {
	k := seeded(t, 2)
	for _, c := range []struct {
		name string
		make func(id *identity) []byte
		want error
	}{
		{"good", func(id *identity) []byte { return id.payload }, nil},
		{"unknown extensions", func(id *identity) []byte {
			return append(bytes.Clone(id.payload), "\x22\x05\x82\x40\x02hi\x9a\x06\x01x"...)
		}, nil},
		{"empty", func(*identity) []byte { return nil }, errNoIdentity},
		{"no signature", func(*identity) []byte { return appendIdentity(nil, k.Public().Bytes(), nil) }, errNoIdentity},
		{"no key", func(*identity) []byte { return appendIdentity(nil, nil, []byte("x")) }, errNoIdentity},
		{"not a key", func(*identity) []byte { return appendIdentity(nil, []byte("key"), []byte("x")) }, peer.ErrKey},
		{"signature of somebody else", func(id *identity) []byte {
			sig, _ := seeded(t, 3).Sign(signed(id.static.PublicKey().Bytes()))
			return appendIdentity(nil, k.Public().Bytes(), sig)
		}, peer.ErrSignature},
		{"signature over another static key", func(id *identity) []byte {
			sig, _ := k.Sign(signed(make([]byte, 32)))
			return appendIdentity(nil, k.Public().Bytes(), sig)
		}, peer.ErrSignature},
		{"signature without the prefix", func(id *identity) []byte {
			sig, _ := k.Sign(id.static.PublicKey().Bytes())
			return appendIdentity(nil, k.Public().Bytes(), sig)
		}, peer.ErrSignature},
		{"long muxer", func(id *identity) []byte {
			return appendExtensions(bytes.Clone(id.payload), nil, []string{strings.Repeat("m", maxMuxerID+1)})
		}, errTooLong},
		{"large", func(id *identity) []byte {
			return appendExtensions(bytes.Clone(id.payload), [][]byte{make([]byte, maxMessage)}, nil)
		}, errTooLarge},
	} {
		for _, client := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s client %v", c.name, client), func(t *testing.T) {
				err := exchangeWith(t, security.Handshake{Key: seeded(t, 1), Client: client}, func(x *exchange, id *identity) error {
					payload := c.make(id)
					if !client {
						if err := x.write(nil); err != nil {
							return err
						}
					}
					if err := x.read(nil); err != nil {
						return err
					}
					return x.writeAny(payload)
				})
				if !errors.Is(err, c.want) {
					t.Errorf("got %v, want %v", err, c.want)
				}
				if c.want != nil && !errors.Is(err, security.ErrHandshake) {
					t.Errorf("got %v, want security.ErrHandshake", err)
				}
			})
		}
	}
}

// writeAny is write without its bound.
func (x *exchange) writeAny(payload []byte) error {
	b, err := x.xx.write(make([]byte, prefix), payload)
	if err != nil {
		return err
	}
	binary.BigEndian.PutUint16(b, uint16(len(b)-prefix))
	_, err = x.c.Write(b)
	return err
}

// A point of low order makes a product that everybody knows.
func TestLowOrder(t *testing.T) {
	for _, client := range []bool{true, false} {
		a, b := securitytest.Pipe()
		zero := []byte{0, 32} // message 1 to a server
		if client {
			zero = []byte{0, 96} // message 2
		}
		b.Write(append(zero, make([]byte, zero[1])...))
		_, err := new(Protocol).Secure(t.Context(), a, security.Handshake{Key: seeded(t, 1), Client: client})
		if err == nil || !strings.Contains(err.Error(), "low order") {
			t.Errorf("client %v: got %v", client, err)
		}
	}
}

func TestPrologueDiffers(t *testing.T) {
	a, b := securitytest.Pipe()
	go func() {
		(&Protocol{Prologue: []byte("one")}).Secure(t.Context(), b, security.Handshake{Key: seeded(t, 2)})
		b.Close()
	}()
	_, err := (&Protocol{Prologue: []byte("two")}).Secure(t.Context(), a, security.Handshake{Key: seeded(t, 1), Client: true})
	if !errors.Is(err, security.ErrHandshake) {
		t.Errorf("got %v", err)
	}
	a.Close()
}

// A Protocol signs once for each identity in use.
func TestOneSignature(t *testing.T) {
	p := new(Protocol)
	one, _ := p.identity(seeded(t, 1))
	if again, _ := p.identity(seeded(t, 1)); again != one {
		t.Error("the same identity got another static key")
	}
	two, _ := p.identity(seeded(t, 2))
	if two == one || two.of != seeded(t, 2).ID() || two.static.Equal(one.static) {
		t.Error("two identities share a static key")
	}
	if other, _ := new(Protocol).identity(seeded(t, 1)); other.static.Equal(one.static) {
		t.Error("two protocol values share a static key")
	}
}

// counter counts calls.
type counter struct {
	net.Conn
	reads, writes int
}

func (c *counter) Read(p []byte) (int, error)  { c.reads++; return c.Conn.Read(p) }
func (c *counter) Write(p []byte) (int, error) { c.writes++; return c.Conn.Write(p) }

// Each call below is a system call in life.
func TestCalls(t *testing.T) {
	a, b := securitytest.Pipe()
	ca, cb := &counter{Conn: a}, &counter{Conn: b}
	c, s := pair(t, ca, cb, new(Protocol), new(Protocol),
		security.Handshake{Key: seeded(t, 1), Client: true}, security.Handshake{Key: seeded(t, 2)})
	want := func(what string, reads, writes int) {
		t.Helper()
		if cb.reads > reads || ca.writes > writes {
			t.Errorf("%s: %d reads and %d writes, want at most %d and %d", what, cb.reads, ca.writes, reads, writes)
		}
		cb.reads, ca.writes = 0, 0
	}
	want("handshake", 2, 2)
	buf := make([]byte, maxBatch*maxPlain)
	io.WriteString(c, "small")
	s.Read(buf)
	want("a small record", 1, 1)
	for range 50 {
		io.WriteString(c, "small")
	}
	for range 50 {
		s.Read(buf)
	}
	want("50 small records", 1, 50)
	c.Write(buf[:64<<10])
	io.ReadFull(s, buf[:64<<10])
	want("64 KiB", 2, 1)
	go c.Write(buf)
	io.ReadFull(s, buf)
	want("four full records", 2*maxBatch, 1)
}

// A connection at rest holds idleRead bytes; so does one whose peer announces much
// and sends little.
func TestIdleMemory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := securitytest.Pipe()
		c, s := newConn(a, [32]byte{}, [32]byte{}), newConn(b, [32]byte{}, [32]byte{})
		done := make(chan struct{})
		go func() {
			defer close(done)
			for {
				if _, err := s.ReadRecord(); err != nil {
					return
				}
			}
		}()
		at := func(when string) {
			t.Helper()
			synctest.Wait()
			if w := &s.in.wire; w.bulk != nil || cap(w.buf) > idleRead || cap(w.idle) > idleRead {
				t.Errorf("%s: holds %d bytes, bulk %v", when, cap(w.buf), w.bulk != nil)
			}
		}
		at("at first")
		for range 20 {
			c.Write(make([]byte, 100_000))
		}
		at("after bulk")
		a.Write([]byte{0xff, 0xff})
		at("after the announcement of 64 KiB")
		a.Write(make([]byte, 500))
		at("and 500 bytes")
		a.Write(make([]byte, 1000))
		synctest.Wait()
		if s.in.wire.bulk == nil {
			t.Error("there is no room for the record")
		}
		a.Close()
		<-done
	})
	a, b := securitytest.Pipe()
	c, s := newConn(a, [32]byte{}, [32]byte{}), newConn(b, [32]byte{}, [32]byte{})
	for _, size := range []int{100_000, 1000} { // the sizes of reads
		c.Write(make([]byte, 100_000))
		if _, err := io.ReadFull(atMost{s, size}, make([]byte, 100_000)); err != nil {
			t.Fatal(err)
		}
		if s.in.wire.bulk != nil {
			t.Errorf("reads of %d bytes: holds the bulk buffer without a Read under way", size)
		}
	}
}

// atMost reads at most size bytes at once.
type atMost struct {
	io.Reader
	size int
}

func (r atMost) Read(p []byte) (int, error) { return r.Reader.Read(p[:min(len(p), r.size)]) }

// "In the unlikely event that peers exchange more than 2^64 - 1 messages, they MUST
// terminate the connection to avoid reusing nonces"
// https://github.com/libp2p/specs/blob/master/noise/README.md#encryption-and-io
func TestNonces(t *testing.T) {
	a, b := securitytest.Pipe()
	c, s := newConn(a, [32]byte{}, [32]byte{}), newConn(b, [32]byte{}, [32]byte{})
	c.out.n, s.in.n = maxNonce-1, maxNonce-1
	buf := make([]byte, 10)
	for range 2 { // the last two
		if _, err := c.Write(buf); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Read(buf); err != nil {
			t.Fatal(err)
		}
	}
	if c.out.n != math.MaxUint64 {
		t.Fatalf("nonce %d", c.out.n)
	}
	for range 2 {
		if _, err := c.Write(buf); !errors.Is(err, errSpent) {
			t.Errorf("write: %v", err)
		}
	}
	a.Write(make([]byte, prefix+tag+1))
	a.Close()
	for range 2 {
		if _, err := s.Read(buf); !errors.Is(err, errShort) && !errors.Is(err, errSpent) {
			t.Errorf("read: %v", err)
		}
	}
}

// Empty records are legal and mean nothing; a record shorter than a tag is not.
func TestShortRecords(t *testing.T) {
	a, b := securitytest.Pipe()
	c, s := newConn(a, [32]byte{}, [32]byte{}), newConn(b, [32]byte{}, [32]byte{})
	for range 3 {
		nonce, _ := c.out.next()
		a.Write(c.out.aead.Seal([]byte{0, tag}, nonce, nil, nil))
	}
	io.WriteString(c, "something")
	buf := make([]byte, 100)
	if n, err := s.Read(buf); err != nil || string(buf[:n]) != "something" {
		t.Errorf("got %q, %v", buf[:n], err)
	}
	if n, err := c.Write(nil); n != 0 || err != nil {
		t.Errorf("an empty write: %d, %v", n, err)
	}
	a.Write(append([]byte{0, tag - 1}, make([]byte, tag-1)...))
	for range 2 {
		if _, err := s.Read(buf); !errors.Is(err, errShort) {
			t.Errorf("got %v, want %v", err, errShort)
		}
	}
}

func TestAllocs(t *testing.T) {
	for _, size := range []int{32, 4000, 64 << 10, 250_000} {
		c := newConn(sink{}, [32]byte{}, [32]byte{})
		p := make([]byte, size)
		if n := testing.AllocsPerRun(100, func() { c.Write(p) }); n > 0 {
			t.Errorf("Write of %d bytes: %v allocations", size, n)
		}
		raw, _ := c.out.seal(nil, p[:min(size, maxPlain)])
		r := newConn(&source{b: raw}, [32]byte{}, [32]byte{})
		first := c.out.n - 1
		for name, read := range map[string]func() (int, error){
			"Read": func() (int, error) { return r.Read(p) },
			"Read in parts": func() (int, error) {
				r.Read(p[:min(size, maxPlain)/2])
				return r.Read(p)
			},
			"ReadRecord": func() (int, error) { b, err := r.ReadRecord(); return len(b), err },
		} {
			n := testing.AllocsPerRun(100, func() {
				r.in.n = first // it is the same record each time
				if n, err := read(); err != nil || n == 0 {
					t.Fatalf("%s: %d, %v", name, n, err)
				}
			})
			if n > 0 {
				t.Errorf("%s of %d bytes: %v allocations", name, size, n)
			}
		}
	}
}

// FuzzHandshake gives each side arbitrary bytes of its peer, beginning with those
// of a good handshake.
func FuzzHandshake(f *testing.F) {
	m := vector(f)
	f.Add(true, append(bytes.Clone(m[1]), m[4]...))
	f.Add(false, append(append(bytes.Clone(m[0]), m[2]...), m[3]...))
	f.Add(true, []byte{0xff, 0xff})
	f.Fuzz(func(t *testing.T, client bool, b []byte) {
		c := &scripted{b: b}
		p := &Protocol{random: &fixed{b: 0x55}}
		h := security.Handshake{Key: seeded(t, 0x22), Muxers: []string{"/mplex/6.7.0", "/yamux/1.0.0"}}
		if client {
			p.random = &fixed{b: 0x33}
			h = security.Handshake{Key: seeded(t, 0x11), Client: true, Muxers: []string{"/yamux/1.0.0", "/mplex/6.7.0"}}
		}
		sc, err := p.Secure(context.Background(), c, h)
		if (err == nil) == (sc == nil) {
			t.Fatalf("%v and %v", sc, err)
		}
		if err != nil {
			if !errors.Is(err, security.ErrHandshake) {
				t.Fatal(err)
			}
			return
		}
		if sc.Peer == "" || sc.Peer != sc.Key.ID() {
			t.Fatalf("peer %q", sc.Peer)
		}
		io.Copy(io.Discard, sc)
	})
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

// The fuzzer's seeds are good handshakes indeed.
func TestReplay(t *testing.T) {
	m := vector(t)
	for _, client := range []bool{true, false} {
		p, k, said, want := &Protocol{random: &fixed{b: 0x55}}, seeded(t, 0x22), [][]byte{m[0], m[2], m[3]}, "hello"
		muxers := []string{"/mplex/6.7.0", "/yamux/1.0.0"}
		if client {
			muxers = []string{"/yamux/1.0.0", "/mplex/6.7.0"}
			p, k, said, want = &Protocol{random: &fixed{b: 0x33}}, seeded(t, 0x11), [][]byte{m[1], m[4]}, "hello back"
		}
		sc, err := p.Secure(t.Context(), &scripted{b: bytes.Join(said, nil)},
			security.Handshake{Key: k, Client: client, Muxers: muxers})
		if err != nil {
			t.Fatal(err)
		}
		if got, err := io.ReadAll(sc); string(got) != want || err != nil {
			t.Errorf("got %q, %v, want %q", got, err, want)
		}
		if sc.Muxer != "/yamux/1.0.0" {
			t.Errorf("muxer %q", sc.Muxer)
		}
	}
}
