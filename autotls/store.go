package autotls

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/plexus-p2p/plexus/peer"
)

// maxFile is how many bytes of a file are read.
const maxFile = 1 << 20

const (
	blockKey         = "PRIVATE KEY" // PKCS #8
	blockCertificate = "CERTIFICATE"
)

// file is where something is kept: in a directory for each authority, since one does not
// know the other's accounts, and the certificates of one for tests are of no use.
func (c *Client) file(name string) string {
	u, _ := url.Parse(c.cfg.Directory) // New has done so
	authority := strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '.' || r == '-' {
			return r
		}
		return '_'
	}, u.Host+u.Path)
	return filepath.Join(c.cfg.Dir, authority, name+".pem")
}

// account is the key of the account at the authority: the one kept, or a new one.
func (c *Client) account() (crypto.Signer, error) {
	path := c.file("account")
	if c.cfg.Dir != "" {
		b, err := read(path)
		if err == nil {
			key, _, err := decode(b)
			if err == nil {
				return key, nil
			}
			c.log.Warn("autotls: account replaced", "file", path, "err", err)
		} else if !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil || c.cfg.Dir == "" {
		return key, err
	}
	b, err := encode(key, nil)
	if err != nil {
		return nil, err
	}
	return key, write(path, b)
}

// load returns the certificate kept, or nil.
func (c *Client) load() (*tls.Certificate, error) {
	if c.cfg.Dir == "" {
		return nil, nil
	}
	path := c.file(c.base)
	b, err := read(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	cert, err := c.parse(b)
	if err != nil {
		c.log.Warn("autotls: certificate not used", "file", path, "err", err)
	}
	return cert, nil
}

// parse reads a certificate of ours.
func (c *Client) parse(b []byte) (*tls.Certificate, error) {
	key, chain, err := decode(b)
	if err != nil {
		return nil, err
	}
	if len(chain) == 0 {
		return nil, errors.New("no certificate")
	}
	leaf, err := x509.ParseCertificate(chain[0])
	if err != nil {
		return nil, err
	}
	if err := c.check(leaf, &key.PublicKey); err != nil {
		return nil, err
	}
	return &tls.Certificate{Certificate: chain, PrivateKey: key, Leaf: leaf}, nil
}

func (c *Client) save(cert *tls.Certificate) error {
	if c.cfg.Dir == "" {
		return nil
	}
	b, err := encode(cert.PrivateKey.(*ecdsa.PrivateKey), cert.Certificate)
	if err != nil {
		return err
	}
	if err := write(c.file(c.base), b); err != nil {
		// It is good all the same, while we run.
		c.log.Warn("autotls: certificate not kept", "err", err)
	}
	return nil
}

// encode makes a file of a key and the certificates for it: one, so that they belong
// together whenever it is read.
func encode(key *ecdsa.PrivateKey, chain [][]byte) ([]byte, error) {
	b, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	out := pem.EncodeToMemory(&pem.Block{Type: blockKey, Bytes: b})
	for _, der := range chain {
		out = append(out, pem.EncodeToMemory(&pem.Block{Type: blockCertificate, Bytes: der})...)
	}
	return out, nil
}

// decode reads what encode has made.
func decode(b []byte) (key *ecdsa.PrivateKey, chain [][]byte, err error) {
	for {
		var block *pem.Block
		if block, b = pem.Decode(b); block == nil {
			break
		}
		switch {
		case block.Type == blockKey && key == nil:
			k, err := x509.ParsePKCS8PrivateKey(block.Bytes)
			if err != nil {
				return nil, nil, err
			}
			var ok bool
			if key, ok = k.(*ecdsa.PrivateKey); !ok {
				return nil, nil, fmt.Errorf("a key of type %T", k)
			}
		case block.Type == blockCertificate:
			chain = append(chain, block.Bytes)
		default:
			return nil, nil, fmt.Errorf("an unexpected %.32q", block.Type)
		}
	}
	if key == nil {
		return nil, nil, errors.New("no key")
	}
	return key, chain, nil
}

// read reads a file that its owner alone may read.
func read(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if mode := info.Mode(); runtime.GOOS != "windows" && mode.Perm()&0o077 != 0 {
		return nil, &fs.PathError{Op: "read", Path: path, Err: fmt.Errorf("%w: its mode is %#o; run chmod 600 on it", peer.ErrExposed, mode.Perm())}
	}
	return io.ReadAll(io.LimitReader(f, maxFile))
}

// write puts a file in place of another, whole or not at all.
func write(path string, b []byte) error {
	dir, name := filepath.Split(path)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	f, err := os.CreateTemp(dir, "."+name+".*") // mode 0600
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		os.Remove(f.Name())
	}
	return err
}
