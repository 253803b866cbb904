package peer

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
)

// LoadKey reads the key in the file path. Its bytes are those of [PrivKey.Bytes],
// which are those of go-libp2p's crypto.MarshalPrivateKey, so that key files can be
// carried over in both directions.
//
// Like ssh it refuses a file to which others than its owner have access, on
// systems that have such permissions. The error is a [*fs.PathError] over
// fs.ErrNotExist, [ErrExposed], [ErrKey], or what the system said.
func LoadKey(path string) (PrivKey, error) {
	f, err := os.Open(path)
	if err != nil {
		return PrivKey{}, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return PrivKey{}, err
	}
	if mode := info.Mode(); !mode.IsRegular() {
		return PrivKey{}, keyError("load key", path, fmt.Errorf("%w: not a file", ErrKey))
	} else if runtime.GOOS != "windows" && mode.Perm()&0o077 != 0 {
		return PrivKey{}, keyError("load key", path, fmt.Errorf("%w: its mode is %#o; run chmod 600 on it", ErrExposed, mode.Perm()))
	}
	b, err := io.ReadAll(io.LimitReader(f, maxPrivKey+1))
	if err != nil {
		return PrivKey{}, err
	}
	k, err := ParsePrivKey(b)
	if err != nil {
		return PrivKey{}, keyError("load key", path, err)
	}
	return k, nil
}

// SaveKey writes k to the new file path, which only its owner may access. After a
// crash it is there whole or not at all. An existing file is left alone: the error
// is then one over fs.ErrExist. The directory must exist and be on a file system
// with hard links.
func SaveKey(path string, k PrivKey) (err error) {
	if k.IsZero() {
		return keyError("save key", path, fmt.Errorf("%w: no key to save", ErrKey))
	}
	dir, name := filepath.Split(path)
	if dir == "" {
		dir = "."
	}
	f, err := os.CreateTemp(dir, "."+name+".*") // mode 0600
	if err != nil {
		return keyError("save key", path, err)
	}
	defer os.Remove(f.Name())
	_, err = f.Write(k.Bytes())
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return keyError("save key", path, err)
	}
	// Not Rename, which would replace what another process has put there meanwhile.
	if err := os.Link(f.Name(), path); err != nil {
		if errors.Is(err, fs.ErrExist) {
			err = fs.ErrExist // the LinkError tells of a file that nobody knows
		}
		return keyError("save key", path, err)
	}
	// The key is there. That its name outlives a power failure is as much as can
	// be asked for: not every system can sync a directory.
	if d, err := os.Open(dir); err == nil {
		d.Sync()
		d.Close()
	}
	return nil
}

// LoadOrCreateKey reads the key in the file path, or makes a new [Ed25519] key
// there if there is no such file. Processes that race for it get the same key.
// The errors are those of [LoadKey] and [SaveKey].
func LoadOrCreateKey(path string) (PrivKey, error) {
	k, err := LoadKey(path)
	if !errors.Is(err, fs.ErrNotExist) {
		return k, err
	}
	if k, err = GenerateKey(Ed25519); err != nil {
		return PrivKey{}, err
	}
	err = SaveKey(path, k)
	if errors.Is(err, fs.ErrExist) {
		return LoadKey(path) // another process was first
	}
	if err != nil {
		return PrivKey{}, err
	}
	return k, nil
}

func keyError(op, path string, err error) error {
	if inner, ok := errors.AsType[*fs.PathError](err); ok {
		err = inner.Err // it tells of a temporary file that nobody knows
	}
	return &fs.PathError{Op: op, Path: path, Err: err}
}
