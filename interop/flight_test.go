//go:build linux

package interop

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/flynn/noise"
	"github.com/libp2p/go-libp2p/core/crypto"
	libp2ptls "github.com/libp2p/go-libp2p/p2p/security/tls"
	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"

	"github.com/plexus-p2p/plexus/interop/contract"
)

// TestOneFlight asks what plexus relies on to save round trips: that a listener
// answers a dialer that does not wait for the protocol negotiation. On a raw
// socket it sends in as few writes as the security allows
//
//	multistream header, security ID, first handshake message
//	last handshake message, multistream header, /yamux/1.0.0, a stream
//
// where "a stream" is its SYN, a multistream header, the echo protocol, and a
// few bytes for it, in the several forms that yamux allows.
func TestOneFlight(t *testing.T) {
	for _, name := range []string{"go", "js", "rust", "py", "plexus"} {
		t.Run(name, func(t *testing.T) {
			p, err := load(t, name)
			if err != nil {
				skip(t, "%v", err)
			}
			for _, security := range p.Security {
				l, err := listen(t.Context(), p, contract.Offer{Transport: "tcp", Security: security, Muxer: "yamux"})
				if err != nil {
					t.Fatal(err)
				}
				for _, f := range streamForms {
					t.Run(security+"/"+f.name, func(t *testing.T) {
						start := time.Now()
						err := oneFlight(t.Context(), l.addr, security, f.frames, f.fin)
						t.Logf("%.1f ms", float64(time.Since(start).Microseconds())/1000)
						// js-libp2p 3.3 negotiates a stream in a later turn of its event
						// loop, by when the end of the stream has closed it for the bytes
						// that it wants to push back. A dialer has to hold its FIN back
						// until it has seen the answer to its proposal.
						if known := name == "js" && f.fin; known && err == nil {
							t.Error("js-libp2p serves a stream that ends in the packet that opens it: no longer a known failure")
						} else if known {
							t.Logf("fails as expected: %v", err)
						} else if err != nil {
							t.Error(err)
						}
					})
				}
				if err := l.stop(); err != nil {
					t.Error(err)
				}
				if t.Failed() {
					t.Logf("stderr of the listener:\n%s", l.stderr.tail())
				}
			}
		})
	}
}

const hello = "hello, echo"

// Yamux frames: type and flags as in the spec.
// https://github.com/hashicorp/yamux/blob/master/spec.md#framing
const (
	data, window   = 0, 1
	syn, fin, rset = 1, 4, 8
)

func frame(kind byte, flags uint16, length uint32, body string) string {
	b := []byte{0, kind}
	b = binary.BigEndian.AppendUint16(b, flags)
	b = binary.BigEndian.AppendUint32(b, 1) // the dialer's first stream
	b = binary.BigEndian.AppendUint32(b, length)
	return string(b) + body
}

func dataFrame(flags uint16, body string) string { return frame(data, flags, uint32(len(body)), body) }

func selects(protocols ...string) string {
	s := ""
	for _, p := range append([]string{"/multistream/1.0.0"}, protocols...) {
		s += string(binary.AppendUvarint(nil, uint64(len(p)+1))) + p + "\n"
	}
	return s
}

// streamForms are the ways to open a stream, negotiate it lazily, and use it.
var streamForms = []struct {
	name   string
	frames string
	fin    bool // we close our side, so the echo must close its
}{
	{"window+SYN, data", frame(window, syn, 0, "") + dataFrame(0, selects(contract.Echo)+hello), false},
	{"data+SYN empty, data", dataFrame(syn, "") + dataFrame(0, selects(contract.Echo)+hello), false},
	{"data+SYN", dataFrame(syn, selects(contract.Echo)+hello), false},
	{"data+SYN, data+FIN empty", dataFrame(syn, selects(contract.Echo)+hello) + dataFrame(fin, ""), true},
	{"data+SYN, window+FIN", dataFrame(syn, selects(contract.Echo)+hello) + frame(window, fin, 0, ""), true},
	{"data+SYN+FIN", dataFrame(syn|fin, selects(contract.Echo)+hello), true},
	{"data+SYN, data+FIN with the bytes", dataFrame(syn, selects(contract.Echo)) + dataFrame(fin, hello), true},
}

func oneFlight(ctx context.Context, addr, security, frames string, fin bool) error {
	a, err := ma.NewMultiaddr(addr)
	if err != nil {
		return err
	}
	tcp, _ := ma.SplitLast(a)
	raw, err := manet.Dial(tcp)
	if err != nil {
		return err
	}
	defer raw.Close()
	raw.SetDeadline(time.Now().Add(5 * time.Second))
	select1 := selects(contract.Wire[security])
	c, err := secure(ctx, &eager{Conn: raw, head: []byte(select1), want: []byte(select1)}, security)
	if err != nil {
		return fmt.Errorf("%s sent with its negotiation: %w", security, err)
	}
	select2 := selects("/yamux/1.0.0")
	m := &eager{Conn: c, head: []byte(select2), want: []byte(select2)}
	if _, err := m.Write([]byte(frames)); err != nil {
		return err
	}
	return echoed(m, fin)
}

// echoed reads frames until stream 1 has answered: its multistream header, the
// protocol, and the bytes; and its FIN if it should end.
func echoed(r io.Reader, wantFIN bool) error {
	want := selects(contract.Echo) + hello
	var got []byte
	var head [12]byte
	for ended := false; string(got) != want || wantFIN && !ended; {
		if _, err := io.ReadFull(r, head[:]); err != nil {
			return fmt.Errorf("read after %q, ended %v: %w", got, ended, err)
		}
		kind, flags := head[1], binary.BigEndian.Uint16(head[2:])
		id, length := binary.BigEndian.Uint32(head[4:]), binary.BigEndian.Uint32(head[8:])
		if kind == data {
			body := make([]byte, length)
			if _, err := io.ReadFull(r, body); err != nil {
				return err
			}
			if id == 1 {
				got = append(got, body...)
			}
		}
		if kind == 3 {
			return fmt.Errorf("GOAWAY, code %d", length)
		}
		if id == 1 && flags&rset != 0 {
			return fmt.Errorf("the stream is reset after %q", got)
		}
		ended = ended || id == 1 && flags&fin != 0
		if !strings.HasPrefix(want, string(got)) {
			return fmt.Errorf("the stream says %q", got)
		}
	}
	return nil
}

// eager puts head before the first bytes written, and takes want off before
// the first that are read: a negotiation whose outcome is foreseen.
type eager struct {
	net.Conn
	head, want []byte
}

func (c *eager) Write(p []byte) (int, error) {
	if c.head == nil {
		return c.Conn.Write(p)
	}
	_, err := c.Conn.Write(slices.Concat(c.head, p))
	c.head = nil
	return len(p), err
}

func (c *eager) Read(p []byte) (int, error) {
	if c.want != nil {
		got := make([]byte, len(c.want))
		if n, err := io.ReadFull(c.Conn, got); err != nil {
			return 0, fmt.Errorf("its negotiation ends after %q: %w", got[:n], err)
		}
		if !bytes.Equal(got, c.want) {
			return 0, fmt.Errorf("it negotiates %q", got)
		}
		c.want = nil
	}
	return c.Conn.Read(p)
}

// secure is the dialer's side of a handshake. It expects no particular peer.
func secure(ctx context.Context, c net.Conn, security string) (net.Conn, error) {
	pub, priv, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	key := append([]byte{0x08, 0x01, 0x12, 0x20}, pub...) // PublicKey{Ed25519, pub}
	switch security {
	case "noise":
		return noiseHandshake(c, key, priv)
	case "tls":
		k, err := crypto.UnmarshalEd25519PrivateKey(priv)
		if err != nil {
			return nil, err
		}
		id, err := libp2ptls.NewIdentity(k)
		if err != nil {
			return nil, err
		}
		conf, _ := id.ConfigForPeer("")
		conf.NextProtos = []string{"libp2p"}
		tc := tls.Client(c, conf)
		return tc, tc.HandshakeContext(ctx)
	case "plaintext": // Exchange{id, pubkey} both ways
		body := slices.Concat([]byte{0x0a, byte(len(key) + 2), 0x00, byte(len(key))}, key, []byte{0x12, byte(len(key))}, key)
		if _, err := c.Write(append([]byte{byte(len(body))}, body...)); err != nil {
			return nil, err
		}
		var size [1]byte
		if _, err := io.ReadFull(c, size[:]); err != nil {
			return nil, err
		}
		_, err := io.ReadFull(c, make([]byte, size[0]))
		return c, err
	}
	return nil, errors.New("no such security")
}

// noiseConn is a secured connection. Its first write carries the third
// handshake message too.
type noiseConn struct {
	net.Conn
	third    []byte
	out, in  *noise.CipherState
	leftover []byte
}

func noiseHandshake(c net.Conn, key []byte, priv ed25519.PrivateKey) (net.Conn, error) {
	suite := noise.NewCipherSuite(noise.DH25519, noise.CipherChaChaPoly, noise.HashSHA256)
	static, err := suite.GenerateKeypair(rand.Reader)
	if err != nil {
		return nil, err
	}
	hs, err := noise.NewHandshakeState(noise.Config{
		CipherSuite: suite, Pattern: noise.HandshakeXX, Initiator: true, StaticKeypair: static,
	})
	if err != nil {
		return nil, err
	}
	first, _, _, err := hs.WriteMessage(nil, nil)
	if err != nil {
		return nil, err
	}
	if _, err := c.Write(record(first)); err != nil {
		return nil, err
	}
	second, err := readRecord(c)
	if err != nil {
		return nil, err
	}
	if _, _, _, err := hs.ReadMessage(nil, second); err != nil {
		return nil, err
	}
	sig := ed25519.Sign(priv, append([]byte("noise-libp2p-static-key:"), static.Public...))
	payload := slices.Concat([]byte{0x0a, byte(len(key))}, key, []byte{0x12, byte(len(sig))}, sig)
	third, out, in, err := hs.WriteMessage(nil, payload)
	return &noiseConn{Conn: c, third: record(third), out: out, in: in}, err
}

func record(b []byte) []byte {
	return append(binary.BigEndian.AppendUint16(nil, uint16(len(b))), b...)
}

func readRecord(r io.Reader) ([]byte, error) {
	var size [2]byte
	if _, err := io.ReadFull(r, size[:]); err != nil {
		return nil, err
	}
	b := make([]byte, binary.BigEndian.Uint16(size[:]))
	_, err := io.ReadFull(r, b)
	return b, err
}

func (c *noiseConn) Write(p []byte) (int, error) {
	b, err := c.out.Encrypt(nil, nil, p)
	if err != nil {
		return 0, err
	}
	_, err = c.Conn.Write(append(c.third, record(b)...))
	c.third = nil
	return len(p), err
}

func (c *noiseConn) Read(p []byte) (int, error) {
	for len(c.leftover) == 0 {
		b, err := readRecord(c.Conn)
		if err != nil {
			return 0, err
		}
		if c.leftover, err = c.in.Decrypt(nil, nil, b); err != nil {
			return 0, err
		}
	}
	n := copy(p, c.leftover)
	c.leftover = c.leftover[n:]
	return n, nil
}
