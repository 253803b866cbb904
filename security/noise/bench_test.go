package noise

import (
	"fmt"
	"io"
	"net"
	"testing"

	"golang.org/x/crypto/chacha20poly1305"

	"github.com/plexus-p2p/plexus/security"
	"github.com/plexus-p2p/plexus/security/securitytest"
)

func BenchmarkHandshake(b *testing.B) {
	securitytest.BenchmarkHandshake(b, func() security.Protocol { return new(Protocol) })
}

// handshakeAllocs is a ceiling for both ends, with the goroutine and the pipe of the test.
const handshakeAllocs = 82

func TestHandshakeAllocs(t *testing.T) {
	securitytest.HandshakeAllocs(t, func() security.Protocol { return new(Protocol) }, handshakeAllocs)
}

func BenchmarkRecords(b *testing.B) {
	securitytest.BenchmarkRecords(b, func() security.Protocol { return new(Protocol) })
}

// sink is a connection that takes everything; source one that repeats bytes.
type (
	sink   struct{ net.Conn }
	source struct {
		net.Conn
		b  []byte
		at int
	}
)

func (sink) Write(p []byte) (int, error) { return len(p), nil }

func (s *source) Read(p []byte) (int, error) {
	if s.at == len(s.b) {
		s.at = 0
	}
	n := copy(p, s.b[s.at:])
	s.at += n
	return n, nil
}

// BenchmarkSeal and BenchmarkOpen compare with the bare cipher, which is the floor.
func BenchmarkSeal(b *testing.B) {
	for _, size := range []int{32, 1 << 10, 64<<10 - 17, 256 << 10} {
		p := make([]byte, size)
		b.Run(fmt.Sprintf("%d/record", size), func(b *testing.B) {
			c := newConn(sink{}, [32]byte{}, [32]byte{})
			b.SetBytes(int64(size))
			b.ReportAllocs()
			for b.Loop() {
				c.Write(p)
			}
		})
		b.Run(fmt.Sprintf("%d/bare", size), func(b *testing.B) {
			aead, _ := chacha20poly1305.New(make([]byte, 32))
			var nonce [12]byte
			dst := make([]byte, 0, size+tag)
			b.SetBytes(int64(size))
			b.ReportAllocs()
			for b.Loop() {
				aead.Seal(dst, nonce[:], p, nil)
			}
		})
	}
}

func BenchmarkOpen(b *testing.B) {
	for _, size := range []int{32, 1 << 10, maxPlain} {
		sealed := func() *source {
			w := newConn(sink{}, [32]byte{}, [32]byte{})
			raw, _ := w.out.seal(nil, make([]byte, size))
			return &source{b: raw}
		}
		for _, kind := range []string{"read", "record"} {
			b.Run(fmt.Sprintf("%d/%s", size, kind), func(b *testing.B) {
				c := newConn(sealed(), [32]byte{}, [32]byte{})
				p := make([]byte, size)
				b.SetBytes(int64(size))
				b.ReportAllocs()
				for b.Loop() {
					c.in.n = 0
					var err error
					if kind == "read" {
						_, err = io.ReadFull(c, p)
					} else {
						_, err = c.ReadRecord()
					}
					if err != nil {
						b.Fatal(err)
					}
				}
			})
		}
		b.Run(fmt.Sprintf("%d/bare", size), func(b *testing.B) {
			aead, _ := chacha20poly1305.New(make([]byte, 32))
			var nonce [12]byte
			ct := aead.Seal(nil, nonce[:], make([]byte, size), nil)
			dst := make([]byte, 0, size)
			b.SetBytes(int64(size))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := aead.Open(dst, nonce[:], ct, nil); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
