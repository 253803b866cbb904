package pnet

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	ma "github.com/multiformats/go-multiaddr"
	"golang.org/x/crypto/salsa20"

	"github.com/plexus-p2p/plexus"
	"github.com/plexus-p2p/plexus/muxer"
	"github.com/plexus-p2p/plexus/muxer/muxertest"
	"github.com/plexus-p2p/plexus/muxer/yamux"
	"github.com/plexus-p2p/plexus/peer"
	"github.com/plexus-p2p/plexus/security"
	"github.com/plexus-p2p/plexus/security/noise"
	"github.com/plexus-p2p/plexus/simnet"
	"github.com/plexus-p2p/plexus/transport"
	"github.com/plexus-p2p/plexus/transport/tcp"
	"github.com/plexus-p2p/plexus/transport/transporttest"
	"github.com/plexus-p2p/plexus/transport/websocket"
)

var testKey = Key([]byte("this is 32-byte key for xsalsa20"))

var _ transport.Pipes = (*Transport)(nil)

func TestPipes(t *testing.T) {
	foreign := []ma.Multiaddr{ma.StringCast("/ip4/127.0.0.1/udp/1")}
	t.Run("TCP", func(t *testing.T) {
		transporttest.TestPipes(t, transporttest.Pipes{
			New: func(t testing.TB) (client, server transport.Pipes) {
				return &Transport{testKey, new(tcp.Transport)}, &Transport{testKey, new(tcp.Transport)}
			},
			Listen:  ma.StringCast("/ip4/127.0.0.1/tcp/0"),
			Refused: ma.StringCast("/ip4/127.0.0.1/tcp/1"),
			Foreign: foreign,
		})
	})
	t.Run("WebSocket", func(t *testing.T) {
		transporttest.TestPipes(t, transporttest.Pipes{
			New: func(t testing.TB) (client, server transport.Pipes) {
				return &Transport{testKey, new(websocket.Transport)}, &Transport{testKey, new(websocket.Transport)}
			},
			Listen:  ma.StringCast("/ip4/127.0.0.1/tcp/0/ws"),
			Refused: ma.StringCast("/ip4/127.0.0.1/tcp/1/ws"),
			Foreign: foreign,
		})
	})
	t.Run("simnet", func(t *testing.T) {
		transporttest.TestPipes(t, transporttest.Pipes{
			New: func(t testing.TB) (client, server transport.Pipes) {
				n := simnet.New(simnet.Config{Path: simnet.Link{Latency: time.Millisecond}})
				t.Cleanup(n.Close)
				return &Transport{testKey, &tcp.Transport{Network: n.Host("10.0.0.1")}}, &Transport{testKey, &tcp.Transport{Network: n.Host("10.0.0.2")}}
			},
			Listen:  ma.StringCast("/ip4/10.0.0.2/tcp/0"),
			Refused: ma.StringCast("/ip4/10.0.0.2/tcp/1"),
			Silent:  ma.StringCast("/ip4/10.0.0.3/tcp/1"),
			Foreign: foreign,
			Bubble:  true,
		})
	})
}

// The stream in pieces, and from anywhere, is that of golang.org/x/crypto/salsa20.
func TestStream(t *testing.T) {
	nonce := [nonceSize]byte([]byte("24-byte nonce for xsalsa"))
	for in, want := range map[string]string{ // of golang.org/x/crypto/salsa20's tests
		"Hello world!":           "002d4513843fc240c401e541",
		string(make([]byte, 64)): "4848297feb1fb52fb66d81609bd547fabcbe7026edc8b5e5e449d088bfa69c088f5d8da1d791267c2c195a7f8cae9c4b4050d08ce6d3a151ec265f3a58e47648",
	} {
		var s stream
		s.init(&testKey, &nonce)
		got := make([]byte, len(in))
		if s.xor(got, []byte(in)); fmt.Sprintf("%x", got) != want {
			t.Errorf("%q: %x, want %s", in, got, want)
		}
	}
	want := make([]byte, 10e3)
	salsa20.XORKeyStream(want, want, nonce[:], (*[32]byte)(&testKey))
	r := rand.New(rand.NewPCG(1, 2))
	var s stream
	s.init(&testKey, &nonce)
	got := make([]byte, len(want))
	for at := 0; at < len(got); {
		n := min(len(got)-at, r.IntN(300))
		s.xor(got[at:at+n], got[at:at+n])
		if at += n; r.IntN(3) == 0 { // go back
			back := r.IntN(min(at, 150) + 1)
			at -= back
			clear(got[at : at+back])
			s.seek(uint64(at))
		}
	}
	if !bytes.Equal(got, want) {
		t.Error("the pieces differ from the whole")
	}
	// Beyond 2^32 blocks the counter goes on.
	s.seek(1<<38 - 10)
	a, b := make([]byte, 20), make([]byte, 20)
	s.xor(a, a)
	s.seek(1<<38 - 10)
	s.xor(b[:10], b[:10])
	s.seek(1 << 38)
	s.xor(b[10:], b[10:])
	if !bytes.Equal(a, b) || bytes.Equal(a[10:], want[:10]) {
		t.Error("the counter is cut off")
	}
}

// tap records what goes over the connections of a transport.
type tap struct {
	Pipes
	mu  sync.Mutex
	all []byte
}

func (p *tap) Dial(ctx context.Context, to ma.Multiaddr) (net.Conn, error) {
	c, err := p.Pipes.Dial(ctx, to)
	if err != nil {
		return nil, err
	}
	return &tapped{c, p}, nil
}

type tapped struct {
	net.Conn
	p *tap
}

func (c *tapped) Write(b []byte) (int, error) {
	n, err := c.Conn.Write(b)
	c.p.mu.Lock()
	defer c.p.mu.Unlock()
	c.p.all = append(c.p.all, b[:n]...)
	return n, err
}

// The wire is a nonce and then XSalsa20, and the nonce goes with the first bytes.
func TestWire(t *testing.T) {
	p := &tap{Pipes: new(tcp.Transport)}
	l, err := p.Pipes.Listen(t.Context(), ma.StringCast("/ip4/127.0.0.1/tcp/0"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	at, _ := transport.Multiaddr(l.Addr())
	c, err := (&Transport{testKey, p}).Dial(t.Context(), at)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.Write(nil)
	if len(p.all) > 0 {
		t.Errorf("%d bytes of nothing", len(p.all))
	}
	want := make([]byte, 700e3)
	for i := range want {
		want[i] = byte(i * i)
	}
	go func() {
		in, err := l.Accept()
		if err == nil {
			io.Copy(io.Discard, in)
		}
	}()
	for _, part := range [][]byte{want[:5], want[5:300], want[300:]} {
		if n, err := c.Write(part); n != len(part) || err != nil {
			t.Fatal(n, err)
		}
	}
	got := p.all[nonceSize:]
	salsa20.XORKeyStream(got, got, p.all[:nonceSize], (*[32]byte)(&testKey))
	if !bytes.Equal(got, want) {
		t.Error("the wire is not XSalsa20")
	}
}

// slow takes as many bytes as it is told, and then times out.
type slow struct {
	net.Conn
	got []byte
	n   int
}

func (c *slow) Write(p []byte) (int, error) {
	n := min(c.n, len(p))
	c.got, c.n = append(c.got, p[:n]...), c.n-n
	if n < len(p) {
		return n, os.ErrDeadlineExceeded
	}
	return n, nil
}

// A deadline tears neither the nonce nor the stream, wherever it strikes.
func TestDeadlineAnywhere(t *testing.T) {
	want := make([]byte, 500)
	for i := range want {
		want[i] = byte(i)
	}
	r := rand.New(rand.NewPCG(3, 4))
	for range 200 {
		s := &slow{}
		c := newConn(s, testKey)
		for at := 0; at < len(want); {
			s.n = r.IntN(150)
			n, err := c.Write(want[at:])
			if at += n; err != nil && err != os.ErrDeadlineExceeded || err == nil && at < len(want) {
				t.Fatal(n, err)
			}
		}
		got := make([]byte, len(want))
		salsa20.XORKeyStream(got, s.got[nonceSize:], s.got[:nonceSize], (*[32]byte)(&testKey))
		if !bytes.Equal(got, want) {
			t.Fatal("the stream is torn")
		}
	}
}

func TestNoKey(t *testing.T) {
	tr := &Transport{Pipes: new(tcp.Transport)}
	if _, err := tr.Dial(t.Context(), ma.StringCast("/ip4/127.0.0.1/tcp/1")); !errors.Is(err, ErrNoKey) {
		t.Errorf("dial: %v", err)
	}
	if _, err := tr.Listen(t.Context(), ma.StringCast("/ip4/127.0.0.1/tcp/0")); !errors.Is(err, ErrNoKey) {
		t.Errorf("listen: %v", err)
	}
}

func host(t *testing.T, p transport.Pipes, n *simnet.Host) *plexus.Host {
	t.Helper()
	cfg := plexus.Config{
		Network:  n,
		Pipes:    []transport.Pipes{p},
		Security: []security.Protocol{&noise.Protocol{}},
		Muxers:   []muxer.Muxer{&yamux.Muxer{}},
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
	if err := h.Listen(t.Context(), ma.StringCast("/ip4/0.0.0.0/tcp/1")); err != nil {
		t.Fatal(err)
	}
	return h
}

// "Nodes of different private networks must not be able to connect to each other. This
// extends to node in private network connecting to node in public network."
func TestStrangers(t *testing.T) {
	const rtt = 10 * time.Millisecond
	other := NewKey()
	for _, c := range []struct {
		name string
		x, y Key // zero: in the open
	}{
		{"same key", testKey, testKey}, {"other key", testKey, other}, {"to the open", testKey, Key{}}, {"from the open", Key{}, testKey},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := simnet.New(simnet.Config{Path: simnet.Link{Latency: rtt / 2}})
				defer n.Close()
				nx, ny := n.Host("10.0.0.1"), n.Host("10.0.0.2")
				wire := &tap{Pipes: &tcp.Transport{Network: nx}}
				wrap := func(k Key, p Pipes) transport.Pipes {
					if k == (Key{}) {
						return p
					}
					return &Transport{k, p}
				}
				x, y := host(t, wrap(c.x, wire), nx), host(t, wrap(c.y, &tcp.Transport{Network: ny}), ny)
				defer y.Close()
				defer x.Close()
				begin := time.Now()
				_, err := x.Dial(t.Context(), y.Info())
				took := time.Since(begin)
				if c.x != c.y {
					if err == nil || took > 10*rtt {
						t.Errorf("%v after %v", err, took)
					}
				} else {
					if err != nil {
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
					if took := time.Since(begin); took > 3*rtt+rtt/10 {
						t.Errorf("%v until the first answer, want 3 round trips of %v", took, rtt)
					}
				}
				wire.mu.Lock()
				defer wire.mu.Unlock()
				if c.x != (Key{}) && bytes.Contains(wire.all, []byte("multistream")) {
					t.Errorf("in the open: %q", wire.all)
				}
			})
		})
	}
}

// A stranger is known by its first 20 bytes, of the 24 that a nonce has.
func TestStrangerError(t *testing.T) {
	x, y := net.Pipe()
	defer x.Close()
	go io.WriteString(x, multistream)
	c := newConn(y, testKey)
	for range 2 {
		if _, err := c.Read(make([]byte, 1)); !errors.Is(err, ErrStranger) {
			t.Errorf("got %v", err)
		}
	}
}

// A peer that says nothing before it has our nonce gets it, though we wait for it to speak.
func TestGreeting(t *testing.T) {
	x, y := muxertest.Pipe(1000)
	defer y.Close()
	defer x.Close()
	got := make(chan error, 1)
	go func() {
		b := make([]byte, 5)
		_, err := io.ReadFull(newConn(y, testKey), b)
		if err == nil && string(b) != "hello" {
			err = errors.New(string(b))
		}
		got <- err
	}()
	var ours, theirs [nonceSize]byte
	if _, err := x.Write(ours[:]); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(x, theirs[:]); err != nil {
		t.Fatal(err)
	}
	b := []byte("hello")
	salsa20.XORKeyStream(b, b, ours[:], (*[32]byte)(&testKey))
	x.Write(b)
	if err := <-got; err != nil {
		t.Error(err)
	}
}

// A connection that ends within the nonce is broken off, one that ends before it is over.
func TestTruncatedNonce(t *testing.T) {
	for n, want := range map[int]error{0: io.EOF, 1: io.ErrUnexpectedEOF, nonceSize - 1: io.ErrUnexpectedEOF, nonceSize: io.EOF} {
		x, y := net.Pipe()
		go func() {
			x.Write(make([]byte, n))
			x.Close()
		}()
		c := newConn(y, testKey)
		if k, err := c.Read(make([]byte, 1)); k != 0 || err != want {
			t.Errorf("after %d bytes of a nonce: %d, %v; want %v", n, k, err, want)
		}
	}
}

func TestKeyFile(t *testing.T) {
	ff := Key(bytes.Repeat([]byte{0xff}, 32))
	hex := strings.Repeat("ff", 32)
	for _, c := range []struct {
		name, file string
		want       Key
		err        error
	}{
		{"base16", codec + "\n/base16/\n" + hex + "\n", ff, nil},
		{"no last line end", codec + "\n/base16/\n" + hex, ff, nil},
		{"Windows", codec + "\r\n/base16/\r\n" + strings.ToUpper(hex) + "\r\n", ff, nil},
		{"base64", codec + "\n/base64/\n//////////////////////////////////////////8=\n", ff, nil},
		{"bin", codec + "\n/bin/\n" + string(ff[:]), ff, nil},
		{"bin with line end", codec + "\n/bin/\n" + string(ff[:]) + "\n", ff, nil},
		{"bin of white space", codec + "\n/bin/\n" + strings.Repeat("\n", 32), Key(bytes.Repeat([]byte("\n"), 32)), nil},
		{"empty", "", Key{}, ErrKeyFile},
		{"no key", codec + "\n/base16/", Key{}, ErrKeyFile},
		{"empty key", codec + "\n/base16/\n", Key{}, ErrKeyFile},
		{"other codec", "/key/swarm/psk/2.0.0/\n/base16/\n" + hex, Key{}, ErrKeyFile},
		{"other encoding", codec + "\n/base32/\n" + hex, Key{}, ErrKeyFile},
		{"short", codec + "\n/base16/\n" + hex[2:], Key{}, ErrKeyFile},
		{"long", codec + "\n/base16/\n" + hex + "ff", Key{}, ErrKeyFile},
		{"not hex", codec + "\n/base16/\n" + hex[2:] + "xx", Key{}, ErrKeyFile},
		{"long bin", codec + "\n/bin/\n" + string(ff[:]) + "xx", Key{}, ErrKeyFile},
		{"large", codec + "\n/base16/\n" + hex + strings.Repeat("\n", maxFile), Key{}, ErrKeyFile},
		{"zero", codec + "\n/base16/\n" + strings.Repeat("00", 32), Key{}, ErrNoKey},
	} {
		k, err := ParseKey([]byte(c.file))
		if k != c.want || !errors.Is(err, c.err) {
			t.Errorf("%s: %x, %v", c.name, k[:], err)
		}
		if err != nil && strings.Contains(err.Error(), "ff") {
			t.Errorf("%s: the error tells the key: %v", c.name, err)
		}
	}
}

func TestSaveKey(t *testing.T) {
	p := filepath.Join(t.TempDir(), "swarm.key")
	k := NewKey()
	if err := SaveKey(p, k); err != nil {
		t.Fatal(err)
	}
	if got, err := LoadKey(p); got != k || err != nil {
		t.Errorf("%v, %v", got, err)
	}
	if info, err := os.Stat(p); err != nil || info.Mode().Perm()&0o077 != 0 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	if err := SaveKey(p, NewKey()); !errors.Is(err, fs.ErrExist) {
		t.Errorf("overwritten: %v", err)
	}
	for _, s := range []string{fmt.Sprint(k), fmt.Sprintf("%#v", k), fmt.Sprintf("%+v", &Transport{Key: k})} {
		if strings.Contains(s, fmt.Sprintf("%x", k[:4])) || strings.Contains(s, fmt.Sprintf("%d %d", k[0], k[1])) {
			t.Errorf("%s tells the key", s)
		}
	}
}

// The fingerprint is Kubo's; this one was computed by other code, in Python.
func TestFingerprint(t *testing.T) {
	if got, want := testKey.Fingerprint(), "163e434146e453dfaf2cedf0e2177e7c"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func FuzzParseKey(f *testing.F) {
	f.Add(testKey.File())
	f.Add([]byte(codec + "\r\n/base64/\n//////////////////////////////////////////8=\n"))
	f.Add([]byte(codec + "\n/bin/\n" + string(testKey[:])))
	f.Fuzz(func(t *testing.T, b []byte) {
		k, err := ParseKey(b)
		if err != nil {
			if !errors.Is(err, ErrKeyFile) && !errors.Is(err, ErrNoKey) || k != (Key{}) {
				t.Fatalf("%v, %v", k, err)
			}
			return
		}
		if again, err := ParseKey(k.File()); again != k || err != nil {
			t.Fatal(err)
		}
	})
}

func BenchmarkStream(b *testing.B) {
	for _, size := range []int{100, 64 << 10} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			var s stream
			s.init(&testKey, new([nonceSize]byte))
			p := make([]byte, size)
			b.SetBytes(int64(size))
			b.ReportAllocs()
			for b.Loop() {
				s.xor(p, p)
			}
		})
	}
}
