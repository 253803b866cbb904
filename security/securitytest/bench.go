package securitytest

import (
	"context"
	"fmt"
	"io"
	"net"
	"testing"

	"github.com/plexus-p2p/plexus/peer"
	"github.com/plexus-p2p/plexus/security"
)

// BenchmarkHandshake measures a handshake over memory, both ends, with shared
// protocol values as hosts have them.
func BenchmarkHandshake(b *testing.B, fresh func() security.Protocol) {
	handshake, writes := handshakes(b, fresh)
	b.ReportAllocs()
	for b.Loop() {
		handshake()
	}
	b.ReportMetric(float64(*writes)/float64(b.N), "writes/op")
}

// HandshakeAllocs holds a handshake, both ends, to at most so many allocations.
func HandshakeAllocs(t *testing.T, fresh func() security.Protocol, most float64) {
	handshake, _ := handshakes(t, fresh)
	for range 10 { // fill pools
		handshake()
	}
	if n := testing.AllocsPerRun(100, handshake); n > most {
		t.Errorf("%v allocations, at most %v", n, most)
	}
}

// handshakes returns a function that makes one, and counts the writes.
func handshakes(b testing.TB, fresh func() security.Protocol) (handshake func(), writes *int64) {
	ck, sk := key(b, peer.Ed25519), key(b, peer.Ed25519)
	cp, sp := fresh(), fresh()
	muxers := []string{"/yamux/1.0.0"}
	ctx := context.Background()
	writes = new(int64)
	return func() {
		x, y := Pipe()
		done := make(chan error, 1)
		go func() {
			_, err := sp.Secure(ctx, y, security.Handshake{Key: sk, Muxers: muxers})
			done <- err
		}()
		_, err := cp.Secure(ctx, x, security.Handshake{Key: ck, Client: true, Want: sk.ID(), Muxers: muxers})
		if err2 := <-done; err != nil || err2 != nil {
			b.Fatal(err, err2)
		}
		*writes += x.Writes.Load() + y.Writes.Load()
	}, writes
}

// BenchmarkRecords measures a stream of writes over a loopback TCP connection.
func BenchmarkRecords(b *testing.B, fresh func() security.Protocol) {
	for _, size := range []int{32, 1 << 10, 16 << 10, 64 << 10, 256 << 10} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			c, v := tcpPair(b)
			cc, vc := &countConn{Conn: c}, &countConn{Conn: v}
			s := &suite{Config: Config{New: fresh}, a: key(b, peer.Ed25519), b: key(b, peer.Ed25519)}
			from, to := s.over(b, cc, vc)
			done := make(chan struct{})
			go func() {
				defer close(done)
				if r, ok := to.Conn.(security.RecordReader); ok {
					for {
						if _, err := r.ReadRecord(); err != nil {
							return
						}
					}
				}
				io.CopyBuffer(io.Discard, onlyReader{to}, make([]byte, 64<<10))
			}()
			p := make([]byte, size)
			cc.writes, vc.reads = 0, 0
			b.SetBytes(int64(size))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := from.Write(p); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(cc.writes)/float64(b.N), "writes/op")
			from.Close()
			<-done
			b.ReportMetric(float64(vc.reads)/float64(b.N), "reads/op")
		})
	}
}

type onlyReader struct{ io.Reader }

func tcpPair(b *testing.B) (client, server net.Conn) {
	b.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Skip(err)
	}
	defer l.Close()
	client, err = net.Dial("tcp", l.Addr().String())
	if err != nil {
		b.Fatal(err)
	}
	server, err = l.Accept()
	if err != nil {
		b.Fatal(err)
	}
	return client, server
}

// countConn counts the calls that end in system calls. Each counter belongs to one
// goroutine.
type countConn struct {
	net.Conn
	reads, writes int
}

func (c *countConn) Read(p []byte) (int, error)  { c.reads++; return c.Conn.Read(p) }
func (c *countConn) Write(p []byte) (int, error) { c.writes++; return c.Conn.Write(p) }
