package noise

import (
	"bytes"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"fmt"
	"testing"

	flynn "github.com/flynn/noise"
)

// The handshake of another implementation agrees with ours, in both roles.
func TestXXAgainstLibrary(t *testing.T) {
	for _, initiator := range []bool{true, false} {
		for _, prologue := range [][]byte{nil, []byte("libp2p-webrtc-noise:x")} {
			t.Run(fmt.Sprintf("initiator %v prologue %q", initiator, prologue), func(t *testing.T) {
				static, err := newKey(rand.Reader)
				if err != nil {
					t.Fatal(err)
				}
				ours := newXX(initiator, prologue, static, rand.Reader)
				suite := flynn.NewCipherSuite(flynn.DH25519, flynn.CipherChaChaPoly, flynn.HashSHA256)
				key, err := suite.GenerateKeypair(rand.Reader)
				if err != nil {
					t.Fatal(err)
				}
				lib, err := flynn.NewHandshakeState(flynn.Config{
					CipherSuite: suite, Pattern: flynn.HandshakeXX, Initiator: !initiator, Prologue: prologue, StaticKeypair: key,
				})
				if err != nil {
					t.Fatal(err)
				}
				var first, last *flynn.CipherState
				for step := range 3 {
					payload := bytes.Repeat([]byte{byte(step)}, 100*step)
					var got []byte
					if initiator == (step%2 == 0) {
						m, err := ours.write(nil, payload)
						if err != nil {
							t.Fatal(err)
						}
						got, first, last, err = lib.ReadMessage(nil, m)
						if err != nil {
							t.Fatal(err)
						}
					} else {
						var m []byte
						if m, first, last, err = lib.WriteMessage(nil, payload); err != nil {
							t.Fatal(err)
						}
						if got, err = ours.read(m); err != nil {
							t.Fatal(err)
						}
					}
					if !bytes.Equal(got, payload) {
						t.Errorf("message %d: got %x, want %x", step+1, got, payload)
					}
				}
				if first.UnsafeKey() != ours.first || last.UnsafeKey() != ours.last {
					t.Error("the keys differ")
				}
				if !bytes.Equal(ours.theirS.Bytes(), key.Public) || !bytes.Equal(lib.PeerStatic(), static.PublicKey().Bytes()) {
					t.Error("the static keys differ")
				}
			})
		}
	}
}

func TestHKDF(t *testing.T) {
	for _, secret := range [][]byte{nil, make([]byte, 32), bytes.Repeat([]byte{7}, 32)} {
		x := newXX(true, []byte("p"), nil, nil)
		x.ck[3] = 9
		want, err := hkdf.Key(sha256.New, secret, x.ck[:], "", 64)
		if err != nil {
			t.Fatal(err)
		}
		one, two := x.hkdf(secret)
		if !bytes.Equal(append(one[:], two[:]...), want) {
			t.Errorf("%x: got %x %x, want %x", secret, one, two, want)
		}
	}
}

// Messages that are cut off, changed or of the wrong step end the handshake.
func TestXXBad(t *testing.T) {
	static, err := newKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	i, r := newXX(true, nil, static, rand.Reader), newXX(false, nil, static, rand.Reader)
	one, err := i.write(nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	for n := range keyLen {
		if _, err := newXX(false, nil, static, rand.Reader).read(one[:n]); err != errShortMessage {
			t.Errorf("message 1 of %d bytes: got %v", n, err)
		}
	}
	if _, err := r.read(one); err != nil {
		t.Fatal(err)
	}
	two, err := r.write(nil, []byte("payload"))
	if err != nil {
		t.Fatal(err)
	}
	for n := range two {
		again := *i
		again.digest = sha256.New()
		if _, err := again.read(bytes.Clone(two[:n])); err == nil {
			t.Errorf("message 2 of %d bytes was taken", n)
		}
		again = *i
		again.digest = sha256.New()
		bad := bytes.Clone(two)
		bad[n] ^= 0x80 >> (n % 8)
		// The top bit of an X25519 key has no meaning, but it is hashed.
		if _, err := again.read(bad); err == nil {
			t.Errorf("message 2 with byte %d changed was taken", n)
		}
	}
	if p, err := i.read(two); err != nil || string(p) != "payload" {
		t.Errorf("got %q, %v", p, err)
	}
}
