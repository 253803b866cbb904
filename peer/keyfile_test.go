package peer

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
)

func TestKeyFile(t *testing.T) {
	for _, kt := range keyTypes {
		dir := t.TempDir()
		path := filepath.Join(dir, "key")
		k := testKey(t, kt.name)
		if err := SaveKey(path, k); err != nil {
			t.Fatal(err)
		}
		got, err := LoadKey(path)
		if err != nil || got.ID() != k.ID() {
			t.Errorf("%s: got %v, %v, want %v", kt.name, got, err, k)
		}
		// The vectors are what go-libp2p's crypto.MarshalPrivateKey writes.
		b, err := os.ReadFile(path)
		if err != nil || !bytes.Equal(b, readVector(t, kt.name).bytes(t, "private")) {
			t.Errorf("%s: the file is not as go-libp2p writes it: %v", kt.name, err)
		}
		if info, err := os.Stat(path); err != nil || runtime.GOOS != "windows" && info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", kt.name, info.Mode(), err)
		}
		wantFiles(t, dir, "key")
	}
}

func wantFiles(t *testing.T, dir string, want ...string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, e := range entries {
		got = append(got, e.Name())
	}
	if strings.Join(got, " ") != strings.Join(want, " ") {
		t.Errorf("the directory has %q, want %q", got, want)
	}
}

func TestSaveKeyKeepsWhatIsThere(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "key")
	if err := os.WriteFile(path, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	err := SaveKey(path, testKey(t, "ed25519"))
	wantErr(t, "existing file", err, fs.ErrExist)
	var perr *fs.PathError
	if !errors.As(err, &perr) || perr.Path != path {
		t.Errorf("the error does not name the file: %v", err)
	}
	if b, err := os.ReadFile(path); err != nil || string(b) != "precious" {
		t.Errorf("it now has %q, %v", b, err)
	}
	wantFiles(t, dir, "key")

	wantErr(t, "no directory", SaveKey(filepath.Join(dir, "no", "key"), testKey(t, "ed25519")), fs.ErrNotExist)
	wantErr(t, "no key", SaveKey(filepath.Join(dir, "other"), PrivKey{}), ErrKey)
	wantFiles(t, dir, "key")
}

func TestSaveKeyInWorkingDirectory(t *testing.T) {
	dir := t.TempDir()
	k := testKey(t, "ed25519")
	t.Chdir(dir)
	if err := SaveKey("key", k); err != nil {
		t.Fatal(err)
	}
	wantFiles(t, dir, "key")
}

func TestLoadKeyErrors(t *testing.T) {
	dir := t.TempDir()
	write := func(name string, b []byte, mode fs.FileMode) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, b, mode); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, mode); err != nil { // whatever the umask
			t.Fatal(err)
		}
		return path
	}
	k := testKey(t, "ed25519").Bytes()
	for _, tt := range []struct {
		path string
		want error
	}{
		{filepath.Join(dir, "none"), fs.ErrNotExist},
		{dir, ErrKey},
		{write("empty", nil, 0o600), ErrKey},
		{write("torn", k[:40], 0o600), ErrKey},
		{write("text", []byte("CAESQ…"), 0o600), ErrKey},
		{write("large", make([]byte, maxPrivKey+1), 0o600), ErrKey},
		{write("read-only", k, 0o400), nil},
	} {
		_, err := LoadKey(tt.path)
		wantErr(t, tt.path, err, tt.want)
		var perr *fs.PathError
		if tt.want != nil && (!errors.As(err, &perr) || perr.Path != tt.path) {
			t.Errorf("%s: the error does not name the file: %v", tt.path, err)
		}
	}
	if runtime.GOOS == "windows" {
		return
	}
	for _, mode := range []fs.FileMode{0o644, 0o640, 0o620, 0o604} {
		_, err := LoadKey(write("exposed", k, mode))
		wantErr(t, mode.String(), err, ErrExposed)
		_, err = LoadOrCreateKey(filepath.Join(dir, "exposed"))
		wantErr(t, mode.String(), err, ErrExposed)
	}
}

func TestLoadOrCreateKey(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "key")
	k, err := LoadOrCreateKey(path)
	if err != nil || k.Type() != Ed25519 {
		t.Fatalf("got %v, %v", k, err)
	}
	again, err := LoadOrCreateKey(path)
	if err != nil || again.ID() != k.ID() {
		t.Errorf("got %v, %v, want %v", again, err, k)
	}
	_, err = LoadOrCreateKey(filepath.Join(dir, "no", "key"))
	wantErr(t, "no directory", err, fs.ErrNotExist)
	if err := os.Symlink(filepath.Join(dir, "nowhere"), filepath.Join(dir, "link")); err == nil {
		_, err = LoadOrCreateKey(filepath.Join(dir, "link"))
		wantErr(t, "dangling link", err, fs.ErrNotExist)
	}
}

// What races is the system's link call, so goroutines race as processes do.
func TestLoadOrCreateKeyRace(t *testing.T) {
	for range 20 {
		dir := t.TempDir()
		path := filepath.Join(dir, "key")
		var wg sync.WaitGroup
		ids := make([]ID, 8)
		for i := range ids {
			wg.Go(func() {
				k, err := LoadOrCreateKey(path)
				if err != nil {
					t.Error(err)
				}
				ids[i] = k.ID()
			})
		}
		wg.Wait()
		for _, id := range ids {
			if id != ids[0] || id == "" {
				t.Fatalf("different keys: %v", ids)
			}
		}
		wantFiles(t, dir, "key")
	}
}
