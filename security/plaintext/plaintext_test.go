package plaintext

import (
	"bytes"
	"crypto/ed25519"
	"encoding/hex"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/plexus-p2p/plexus/internal/pb"
	"github.com/plexus-p2p/plexus/peer"
	"github.com/plexus-p2p/plexus/security"
	"github.com/plexus-p2p/plexus/security/securitytest"
)

func TestConformance(t *testing.T) {
	securitytest.Test(t, securitytest.Config{
		New:      func() security.Protocol { return new(Protocol) },
		Plain:    true,
		NoMuxers: true,
	})
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

// vector returns the message of testdata/exchange.txt.
func vector(t testing.TB) []byte {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("testdata", "exchange.txt"))
	if err != nil {
		t.Fatal(err)
	}
	var digits string
	for line := range strings.Lines(string(text)) {
		if !strings.HasPrefix(line, "#") {
			digits += strings.TrimSpace(line)
		}
	}
	b, err := hex.DecodeString(digits)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestVector(t *testing.T) {
	a, b := net.Pipe()
	go func() {
		new(Protocol).Secure(t.Context(), a, security.Handshake{Key: seeded(t, 0x11)})
	}()
	want := vector(t)
	got := make([]byte, len(want))
	if _, err := io.ReadFull(b, got); err != nil || !bytes.Equal(got, want) {
		t.Errorf("got\n%x, %v, want\n%x", got, err, want)
	}
	b.Close()
}

// Bytes behind the exchange are left in the connection, and it is the raw one.
func TestReadsNoMore(t *testing.T) {
	a, b := securitytest.Pipe()
	b.Write(append(vector(t), "more"...))
	sc, err := new(Protocol).Secure(t.Context(), a, security.Handshake{Key: seeded(t, 0x22), Client: true, Want: seeded(t, 0x11).ID()})
	if err != nil {
		t.Fatal(err)
	}
	if sc.Conn != a {
		t.Errorf("the connection is a %T", sc.Conn)
	}
	got := make([]byte, 4)
	if _, err := io.ReadFull(a, got); string(got) != "more" {
		t.Errorf("got %q, %v", got, err)
	}
}

func TestBadExchange(t *testing.T) {
	one, two := seeded(t, 1), seeded(t, 2)
	for _, c := range []struct {
		name string
		msg  []byte
		want error
	}{
		{"ID of another key", appendExchange(nil, exchange{[]byte(one.ID()), two.Public().Bytes()}), errID},
		{"no ID", pb.AppendBytes(nil, 2, one.Public().Bytes()), errID},
		{"no key", pb.AppendBytes(nil, 1, one.ID()), peer.ErrKey},
		{"nothing", nil, peer.ErrKey},
		{"no protobuf", []byte{0xff}, pb.ErrMalformed},
		{"large", make([]byte, maxExchange+1), nil},
	} {
		a, b := securitytest.Pipe()
		b.Write(pb.AppendDelimited(nil, c.msg))
		_, err := new(Protocol).Secure(t.Context(), a, security.Handshake{Key: one, Client: true})
		if c.name == "large" {
			if large := new(pb.TooLargeError); !errors.As(err, &large) {
				t.Errorf("%s: got %v", c.name, err)
			}
		} else if !errors.Is(err, c.want) {
			t.Errorf("%s: got %v, want %v", c.name, err, c.want)
		}
		if !errors.Is(err, security.ErrHandshake) {
			t.Errorf("%s: got %v", c.name, err)
		}
	}
}

func FuzzHandshake(f *testing.F) {
	f.Add(vector(f))
	f.Add([]byte{0xff, 0xff, 0xff, 0xff, 0x0f})
	f.Fuzz(func(t *testing.T, b []byte) {
		x, y := securitytest.Pipe()
		go func() {
			y.Write(b)
			y.CloseWrite()
		}()
		sc, err := new(Protocol).Secure(t.Context(), x, security.Handshake{Key: seeded(t, 1)})
		if err == nil && (sc.Peer == "" || sc.Peer != sc.Key.ID()) || err != nil && !errors.Is(err, security.ErrHandshake) {
			t.Fatalf("got %v, %v", sc, err)
		}
		x.Close()
	})
}

func FuzzExchange(f *testing.F) {
	f.Add(vector(f)[1:])
	f.Fuzz(func(t *testing.T, b []byte) {
		e, err := parseExchange(b)
		if err != nil {
			return
		}
		if f, err := parseExchange(appendExchange(nil, e)); err != nil || !bytes.Equal(e.id, f.id) || !bytes.Equal(e.key, f.key) {
			t.Fatalf("%x became %x, %v", e, f, err)
		}
	})
}
