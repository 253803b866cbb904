package unix

import (
	"context"
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	ma "github.com/multiformats/go-multiaddr"

	"github.com/plexus-p2p/plexus/transport"
	"github.com/plexus-p2p/plexus/transport/transporttest"
)

// dir is a directory whose name is short enough for a socket's.
func dir(t testing.TB) string {
	t.Helper()
	d, err := os.MkdirTemp("", "u")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(d) })
	return d
}

func unix(p string) ma.Multiaddr { return addr(p).Multiaddr() }

func TestPipes(t *testing.T) {
	d := dir(t)
	transporttest.TestPipes(t, transporttest.Pipes{
		New:       func(t testing.TB) (client, server transport.Pipes) { return new(Transport), new(Transport) },
		Listen:    unix(d),
		Refused:   unix(filepath.Join(d, "none")),
		Foreign:   []ma.Multiaddr{ma.StringCast("/ip4/127.0.0.1/tcp/1"), ma.StringCast("/memory/1")},
		NoRefusal: true,
	})
	if left, err := os.ReadDir(d); err != nil || len(left) > 0 {
		t.Errorf("left: %v, %v", left, err)
	}
}

func TestMode(t *testing.T) {
	for mode, want := range map[fs.FileMode]fs.FileMode{0: 0o600, 0o666: 0o666} {
		p := filepath.Join(dir(t), "s")
		l, err := (&Transport{Mode: mode}).Listen(t.Context(), unix(p))
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		if info, err := os.Stat(p); err != nil || info.Mode().Perm() != want {
			t.Errorf("mode %v, %v; want %v", info.Mode(), err, want)
		}
	}
}

// The file never has more rights than it should, not even at first.
func TestProtect(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("only Linux can")
	}
	p := filepath.Join(dir(t), "s")
	lc := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		return c.Control(func(fd uintptr) { protect(fd, 0o600) })
	}}
	l, err := lc.Listen(t.Context(), "unix", p)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if info, err := os.Stat(p); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
}

// stale leaves a socket as a process that was killed does.
func stale(t *testing.T, p string) {
	t.Helper()
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: p, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	l.Close()
}

func TestStale(t *testing.T) {
	p := filepath.Join(dir(t), "s")
	stale(t, p)
	l, err := new(Transport).Listen(t.Context(), unix(p))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if _, err := new(Transport).Listen(t.Context(), unix(p)); !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("a second listener: %v", err)
	}
}

// Of many that find a stale socket, one replaces it.
func TestStaleRace(t *testing.T) {
	for range 20 {
		p := filepath.Join(dir(t), "s")
		stale(t, p)
		var wg sync.WaitGroup
		var won atomic.Int32
		for range 8 {
			wg.Go(func() {
				l, err := new(Transport).Listen(t.Context(), unix(p))
				if err == nil {
					won.Add(1)
					t.Cleanup(func() { l.Close() })
				} else if !errors.Is(err, syscall.EADDRINUSE) {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if won.Load() != 1 {
			t.Fatalf("%d listeners", won.Load())
		}
	}
}

// What is no socket stays.
func TestOtherFiles(t *testing.T) {
	d := dir(t)
	file, link := filepath.Join(d, "file"), filepath.Join(d, "link")
	if err := os.WriteFile(file, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(file, link); err != nil {
		t.Fatal(err)
	}
	for _, p := range []string{file, link} {
		if l, err := new(Transport).Listen(t.Context(), unix(p)); !errors.Is(err, fs.ErrExist) {
			t.Errorf("%s: %v, %v", p, l, err)
		}
		if b, err := os.ReadFile(p); string(b) != "precious" {
			t.Errorf("%s: %q, %v", p, b, err)
		}
	}
	if l, err := new(Transport).Listen(t.Context(), unix(filepath.Join(d, "no", "where"))); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%v, %v", l, err)
	}
}

// A listener removes its own socket only.
func TestCloseRemoves(t *testing.T) {
	p := filepath.Join(dir(t), "s")
	old, err := new(Transport).Listen(t.Context(), unix(p))
	if err != nil {
		t.Fatal(err)
	}
	os.Remove(p)
	l, err := new(Transport).Listen(t.Context(), unix(p))
	if err != nil {
		t.Fatal(err)
	}
	old.Close()
	c, err := new(Transport).Dial(t.Context(), unix(p))
	if err != nil {
		t.Fatalf("the new socket is gone: %v", err)
	}
	c.Close()
	l.Close()
	if _, err := os.Lstat(p); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("it is still there: %v", err)
	}
}

// Listen waits for others in the directory, until ctx ends.
func TestLock(t *testing.T) {
	d := dir(t)
	unlock, err := lock(t.Context(), d)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if runtime.GOOS != "windows" {
		if _, err := new(Transport).Listen(ctx, unix(d)); !errors.Is(err, context.Canceled) {
			t.Errorf("got %v", err)
		}
	}
	unlock()
	l, err := new(Transport).Listen(t.Context(), unix(d))
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
}
