package autotls

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/plexus-p2p/plexus/peer"
)

func mustKey() *ecdsa.PrivateKey {
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	return k
}

// TestKept: what is kept badly is as good as nothing, unless others can read it.
func TestKept(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(t *testing.T, path string, b []byte)
		want   error
		there  bool
	}{
		{"as it was", func(*testing.T, string, []byte) {}, nil, true},
		{"cut", func(t *testing.T, path string, b []byte) { put(t, path, b[:len(b)/2]) }, nil, false},
		{"empty", func(t *testing.T, path string, b []byte) { put(t, path, nil) }, nil, false},
		{"without end", func(t *testing.T, path string, b []byte) { put(t, path, append(make([]byte, maxFile), b...)) }, nil, false},
		{"readable by others", func(t *testing.T, path string, b []byte) {
			if err := os.Chmod(path, 0o640); err != nil {
				t.Fatal(err)
			}
		}, peer.ErrExposed, false},
	} {
		for _, which := range []string{"certificate", "account"} {
			t.Run(tt.name+"/"+which, func(t *testing.T) {
				dir := t.TempDir()
				inWorld(t, func(t *testing.T, w *world, cfg Config) {
					cfg.Dir = dir
					c, err := New(cfg)
					if err != nil {
						t.Fatal(err)
					}
					if _, err := c.issue(t.Context(), c.dialable(cfg.Addrs())); err != nil {
						t.Fatal(err)
					}
					path := c.file(c.base)
					if which == "account" {
						path = c.file("account")
					}
					b, err := os.ReadFile(path)
					if err != nil {
						t.Fatal(err)
					}
					tt.change(t, path, b)
					again, err := New(cfg)
					if which == "certificate" {
						if !errors.Is(err, tt.want) || (err == nil) != (tt.want == nil) {
							t.Fatalf("New: %v, want %v", err, tt.want)
						}
						if err == nil && (again.valid() != nil) != tt.there {
							t.Errorf("certificate: %v, want %v", again.valid() != nil, tt.there)
						}
						return
					}
					if err != nil || again.valid() == nil {
						t.Fatalf("New: %v", err)
					}
					if _, err = again.issue(t.Context(), again.dialable(cfg.Addrs())); !errors.Is(err, tt.want) || (err == nil) != (tt.want == nil) {
						t.Errorf("issue: %v, want %v", err, tt.want)
					}
					if n := len(w.accounts); (n == 1) != (tt.there || tt.want != nil) {
						t.Errorf("%d accounts", n)
					}
					left, err := filepath.Glob(filepath.Join(filepath.Dir(path), ".*"))
					if len(left) != 0 || err != nil {
						t.Errorf("left behind: %q, %v", left, err)
					}
				})
			})
		}
	}
}

func put(t *testing.T, path string, b []byte) {
	t.Helper()
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestNotKept: a directory that cannot be written to is found before an account is made.
func TestNotKept(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	put(t, file, nil)
	inWorld(t, func(t *testing.T, w *world, cfg Config) {
		cfg.Dir = file // not a directory
		if _, err := New(cfg); err == nil {
			t.Error("New: no error")
		}
		cfg.Dir = ""
		c, err := New(cfg)
		if err != nil {
			t.Fatal(err)
		}
		c.cfg.Dir = file
		if _, err := c.issue(t.Context(), c.dialable(cfg.Addrs())); err == nil || len(w.accounts) != 0 {
			t.Errorf("%v, and %d accounts", err, len(w.accounts))
		}
	})
}

func FuzzDecode(f *testing.F) {
	key := mustKey()
	good, err := encode(key, [][]byte{[]byte("leaf"), []byte("issuer")})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	rk, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		f.Fatal(err)
	}
	b, err := x509.MarshalPKCS8PrivateKey(rk)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(pem.EncodeToMemory(&pem.Block{Type: blockKey, Bytes: b}))
	f.Fuzz(func(t *testing.T, b []byte) {
		key, chain, err := decode(b)
		if err != nil {
			return
		}
		enc, err := encode(key, chain)
		if err != nil {
			t.Fatal(err)
		}
		again, chain2, err := decode(enc)
		if err != nil || !again.Equal(key) || len(chain2) != len(chain) {
			t.Fatalf("%v, %d certificates of %d", err, len(chain2), len(chain))
		}
		for i := range chain {
			if !bytes.Equal(chain[i], chain2[i]) {
				t.Fatalf("certificate %d differs", i)
			}
		}
	})
}
