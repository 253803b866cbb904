package pnet

import (
	"bytes"
	"crypto/rand"
	"crypto/sha3"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/crypto/salsa20"
)

// Key is the secret that the hosts of a private network share. The zero Key is none.
type Key [32]byte

var (
	// ErrNoKey means that a key is missing, or zero.
	ErrNoKey = errors.New("pnet: no key")

	// ErrKeyFile means that something is no key file.
	ErrKeyFile = errors.New("pnet: not a key file")
)

// "The file uses a path-based multicodec where, for now, the codec that is defined
// and used is /key/swarm/psk/1.0.0/. The codec expects the next path-based multicodec
// to define the base encoding for the rest of the file (/bin/, /base16/, /base64/),
// which is the 256-bit PSK."
// https://github.com/libp2p/specs/blob/master/pnet/Private-Networks-PSK-V1.md#interface
const (
	codec   = "/key/swarm/psk/1.0.0/"
	base16  = "/base16/"
	base64s = "/base64/"
	binary  = "/bin/"

	maxFile = 1 << 10 // bytes of a key file
)

// NewKey makes a random key, for a new network.
func NewKey() (k Key) {
	rand.Read(k[:])
	return k
}

// ParseKey reads the contents of a swarm.key file. What it refuses is an [ErrKeyFile];
// a zero key is an [ErrNoKey].
func ParseKey(file []byte) (Key, error) {
	var k Key
	first, rest, _ := bytes.Cut(file, []byte("\n"))
	second, body, ok := bytes.Cut(rest, []byte("\n"))
	if !ok || len(file) > maxFile || string(bytes.TrimRight(first, "\r")) != codec {
		return k, fmt.Errorf("%w: it does not begin with the line %s", ErrKeyFile, codec)
	}
	text := bytes.TrimSpace(body)
	var raw []byte
	var err error
	switch enc := string(bytes.TrimRight(second, "\r")); enc {
	case base16:
		raw, err = hex.DecodeString(string(text))
	case base64s:
		raw, err = base64.StdEncoding.Strict().DecodeString(string(text))
	case binary: // an editor may have ended the line
		if raw = body; len(raw) == len(k)+1 {
			raw = bytes.TrimSuffix(raw, []byte("\n"))
		}
	default:
		return k, fmt.Errorf("%w: encoding %q", ErrKeyFile, enc)
	}
	if err != nil || len(raw) != len(k) {
		return k, fmt.Errorf("%w: want %d bytes", ErrKeyFile, len(k)) // not err, which quotes them
	}
	copy(k[:], raw)
	if k == (Key{}) {
		return k, ErrNoKey
	}
	return k, nil
}

// LoadKey reads a swarm.key file.
func LoadKey(path string) (Key, error) {
	f, err := os.Open(path)
	if err != nil {
		return Key{}, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return Key{}, err
	}
	k, err := ParseKey(b)
	if err != nil {
		return Key{}, fmt.Errorf("%s: %w", path, err)
	}
	return k, nil
}

// SaveKey writes a swarm.key file of mode 0600. It replaces none: a network is not
// lost that easily.
func SaveKey(path string, k Key) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(k.File())
	return errors.Join(err, f.Close())
}

// File returns the contents of a swarm.key file, in base 16 as everybody writes it.
func (k Key) File() []byte {
	return fmt.Appendf(nil, "%s\n%s\n%s\n", codec, base16, hex.EncodeToString(k[:]))
}

// Fingerprint tells networks apart without telling the key: 32 hexadecimal digits, the
// ones that Kubo shows and mDNS names have.
func (k Key) Fingerprint() string {
	b := make([]byte, 64)
	salsa20.XORKeyStream(b, b, []byte("finprint"), (*[32]byte)(&k))
	return hex.EncodeToString(sha3.SumSHAKE128(b, 16))
}

// String returns the fingerprint: keys end up in logs.
func (k Key) String() string { return "private network " + k.Fingerprint() }

// GoString returns the same.
func (k Key) GoString() string { return k.String() }
