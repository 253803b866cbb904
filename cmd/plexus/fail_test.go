package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/plexus-p2p/plexus/muxer"
	"github.com/plexus-p2p/plexus/muxer/yamux"
	"github.com/plexus-p2p/plexus/node"
	"github.com/plexus-p2p/plexus/peer"
	"github.com/plexus-p2p/plexus/security"
	"github.com/plexus-p2p/plexus/security/tls"
	"github.com/plexus-p2p/plexus/transport"
)

// badNetwork is the operating system's but for what it does to those who dial and ask.
type badNetwork struct {
	transport.System
	dial   func(ctx context.Context) error
	lookup error
	ips    []netip.Addr
}

func (n badNetwork) DialTCP(ctx context.Context, _, remote netip.AddrPort) (net.Conn, error) {
	return nil, &net.OpError{Op: "dial", Net: "tcp", Addr: net.TCPAddrFromAddrPort(remote), Err: n.dial(ctx)}
}

func (n badNetwork) LookupNetIP(context.Context, string, string) ([]netip.Addr, error) {
	return n.ips, n.lookup
}

// fails gives the same error to everybody who dials.
func fails(err error) func(context.Context) error {
	return func(context.Context) error { return err }
}

// TestFailures: each way not to succeed has one line that says what was tried
// and why not, and a kind for scripts.
func TestFailures(t *testing.T) {
	h, addr := remote(t, node.Config{})
	at, _, _ := strings.Cut(addr, "/p2p/")
	other, _ := peer.GenerateKey(peer.Ed25519)
	_, onlyTLS := remote(t, node.Config{Security: []security.Protocol{&tls.Protocol{}}})
	_, onlyYamux := remote(t, node.Config{Muxers: []muxer.Muxer{&yamux.Muxer{}}})
	_, mute := remote(t, node.Config{NoServices: true})
	own := filepath.Join(t.TempDir(), "own.key")
	if err := peer.SaveKey(own, h.Key()); err != nil {
		t.Fatal(err)
	}

	tests := []struct {
		name    string
		network transport.Network
		args    []string
		kind    kind
		status  int
		want    []string // in the one line
	}{
		{
			name: "nobody listens", args: []string{"ping", nobody(t)}, kind: kindRefused,
			want: []string{"cannot connect to /ip4/127.0.0.1/tcp/", "refused", "nobody listens"},
		}, {
			name: "no route", network: badNetwork{dial: fails(os.NewSyscallError("connect", syscall.ENETUNREACH))},
			args: []string{"id", "/ip4/192.0.2.1/tcp/4001"}, kind: kindUnreachable,
			want: []string{"cannot connect to /ip4/192.0.2.1/tcp/4001", "unreachable", "no route"},
		}, {
			name: "host unreachable", network: badNetwork{dial: fails(os.NewSyscallError("connect", syscall.EHOSTUNREACH))},
			args: []string{"explain", "/ip4/192.0.2.1/tcp/4001"}, kind: kindUnreachable,
			want: []string{"no route"},
		}, {
			name: "no answer to the dial", network: badNetwork{dial: func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }},
			args: []string{"ping", "--timeout", "20ms", "/ip4/192.0.2.1/tcp/4001"}, kind: kindTimeout,
			want: []string{"cannot connect to /ip4/192.0.2.1/tcp/4001", "timeout"},
		}, {
			name: "silence after the dial", args: []string{"ping", "--timeout", "50ms", answering(t, nil)}, kind: kindTimeout,
			want: []string{"timeout", "took the connection", "security handshake"},
		}, {
			name: "another peer", args: []string{"ping", at + "/p2p/" + other.ID().String()}, kind: kindWrongPeer,
			want: []string{at, "wrong peer", other.ID().String(), h.ID().String()},
		}, {
			name: "this node itself", args: []string{"ping", "--key", own, addr}, kind: kindSelf,
			want: []string{"this node itself"},
		}, {
			name: "no multiaddr", args: []string{"ping", "nonsense"}, kind: kindAddress, status: 2,
			want: []string{`"nonsense" is not an address`},
		}, {
			name: "host and port", args: []string{"ping", "127.0.0.1:4001"}, kind: kindAddress, status: 2,
			want: []string{`"127.0.0.1:4001"`, "did you mean /ip4/127.0.0.1/tcp/4001?"},
		}, {
			name: "name and port", args: []string{"id", "example.org:4001"}, kind: kindAddress, status: 2,
			want: []string{"did you mean /dns/example.org/tcp/4001?"},
		}, {
			name: "peer without address", args: []string{"id", "/p2p/" + h.ID().String()}, kind: kindAddress, status: 2,
			want: []string{"not where"},
		}, {
			name: "peer ID alone", args: []string{"id", h.ID().String()}, kind: kindAddress, status: 2,
			want: []string{"/p2p/" + h.ID().String()},
		}, {
			name: "malformed peer", args: []string{"explain", "/ip4/127.0.0.1/tcp/1/p2p/12D3"}, kind: kindAddress, status: 2,
			want: []string{"12D3"},
		}, {
			name: "two nodes", args: []string{"explain", addr, at + "/p2p/" + other.ID().String()}, kind: kindUsage, status: 2,
			want: []string{"two nodes", h.ID().String(), other.ID().String()},
		}, {
			name: "no transport", args: []string{"ping", "/ip4/127.0.0.1/udp/1/utp"}, kind: kindNoTransport,
			want: []string{"/ip4/127.0.0.1/udp/1/utp", "no transport"},
		}, {
			name: "port 0", args: []string{"ping", "/ip4/127.0.0.1/tcp/0"}, kind: kindAddress, status: 2,
			want: []string{"/ip4/127.0.0.1/tcp/0", "leads nowhere"},
		}, {
			name: "no such protocol", args: []string{"cat", addr, "/nobody/speaks/1"}, kind: kindUnsupported,
			want: []string{"open /nobody/speaks/1", addr, "does not speak"},
		}, {
			name: "no perf", args: []string{"perf", addr}, kind: kindUnsupported,
			want: []string{addr, "does not speak /perf/1.0.0"},
		}, {
			name: "no ping", args: []string{"ping", mute}, kind: kindUnsupported,
			want: []string{"1 of 1 pings", "does not speak /ipfs/ping/1.0.0"},
		}, {
			name: "no identify", args: []string{"id", mute}, kind: kindUnsupported,
			want: []string{"identify " + mute, "does not speak /ipfs/id/1.0.0"},
		}, {
			name: "no secure channel in common", args: []string{"id", "--security", "noise", onlyTLS}, kind: kindUnsupported,
			want: []string{"no secure channel in common", "/noise"},
		}, {
			name: "no muxer in common", args: []string{"id", "--muxer", "mplex", onlyYamux}, kind: kindUnsupported,
			want: []string{"no muxer in common", "/mplex/6.7.0"},
		}, {
			name: "a web server", args: []string{"id", answering(t, []byte("HTTP/1.1 400 Bad Request\r\n\r\n"))}, kind: kindHandshake,
			want: []string{"no libp2p node"},
		}, {
			name: "no such name", network: badNetwork{lookup: &net.DNSError{Err: "no such host", Name: "nobody.example", IsNotFound: true}},
			args: []string{"ping", "/dns4/nobody.example/tcp/1"}, kind: kindResolve,
			want: []string{"nobody.example", "no such host"},
		}, {
			name:    "all of several addresses",
			network: badNetwork{dial: fails(os.NewSyscallError("connect", syscall.ECONNREFUSED)), ips: []netip.Addr{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2")}},
			args:    []string{"ping", "/dns4/some.example/tcp/7"}, kind: kindRefused,
			want: []string{"all 2 addresses", "/ip4/192.0.2.1/tcp/7: connection refused", "/ip4/192.0.2.2/tcp/7: connection refused"},
		}, {
			name: "no key file", args: []string{"ping", "--key", filepath.Join(t.TempDir(), "none"), addr}, kind: kindKey,
			want: []string{"key file", "no such file"},
		}, {
			name: "not a key file", args: []string{"key", "show", os.Args[0]}, kind: kindKey,
			want: []string{os.Args[0]},
		}, {
			name: "listen on no multiaddr", args: []string{"up", "--listen", "0.0.0.0:4001"}, kind: kindAddress, status: 2,
			want: []string{"did you mean /ip4/0.0.0.0/tcp/4001?"},
		}, {
			name: "listen where somebody does", args: []string{"up", "--listen", at}, kind: kindInUse,
			want: []string{"cannot listen on " + at, "somebody listens there already"},
		}, {
			name: "listen on another machine's address", args: []string{"up", "--listen", "/ip4/192.0.2.1/tcp/0"}, kind: kindFailed,
			want: []string{"plexus: cannot listen on /ip4/192.0.2.1/tcp/0: this machine has no such address"},
		}, {
			name: "no folder for the key", args: []string{"up", "--key", filepath.Join(t.TempDir(), "none", "key")}, kind: kindKey,
			want: []string{filepath.Join("none", "key") + ": no such file"},
		}, {
			name: "no such port", args: []string{"ping", "/ip4/127.0.0.1/tcp/99999"}, kind: kindAddress, status: 2,
			want: []string{`is not an address: invalid value "99999" for protocol tcp` + "\n"},
		}, {
			name: "no protocol ID", args: []string{"cat", addr, ""}, kind: kindUsage, status: 2,
			want: []string{"PROTO is empty"},
		}, {
			name: "nowhere to listen", args: []string{"up", "--listen", "/ip4/127.0.0.1/udp/0/utp"}, kind: kindNoTransport,
			want: []string{"/ip4/127.0.0.1/udp/0/utp"},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if tt.status == 0 {
				tt.status = 1
			}
			r := commandOn(t, tt.network, "", tt.args...)
			if r.status != tt.status {
				t.Errorf("status %d, want %d", r.status, tt.status)
			}
			if !strings.HasPrefix(r.err, "plexus: ") || strings.Count(r.err, "\n") != 1 || !strings.HasSuffix(r.err, "\n") {
				t.Errorf("stderr is not one line: %q", r.err)
			}
			for _, w := range tt.want {
				if !strings.Contains(r.err, w) {
					t.Errorf("stderr %q: %q is missing", r.err, w)
				}
			}
			t.Log(strings.TrimSpace(r.err))

			r = commandOn(t, tt.network, "", append(tt.args, "--json")...)
			var f struct{ Error, Kind string }
			if err := json.Unmarshal([]byte(r.err), &f); err != nil || strings.Count(r.err, "\n") != 1 {
				t.Fatalf("%v: %q", err, r.err)
			}
			if f.Kind != string(tt.kind) || f.Error == "" {
				t.Errorf("kind %q, want %q; error %q", f.Kind, tt.kind, f.Error)
			}
		})
	}
}

// nobody is an address on which nothing listens. A connection of ours has its port, so
// that the system gives it to no listener meanwhile, of this test or another process.
func nobody(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return tcpAddr(c.LocalAddr())
}

// answering is an address where somebody takes connections and says only hello.
func answering(t *testing.T, hello []byte) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() { // ends with l
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			t.Cleanup(func() { c.Close() })
			c.Write(hello)
		}
	}()
	return tcpAddr(l.Addr())
}

func tcpAddr(at net.Addr) string {
	ap := at.(*net.TCPAddr).AddrPort()
	a, err := transport.Multiaddr(net.TCPAddrFromAddrPort(ap))
	if err != nil {
		panic(err)
	}
	return a.String()
}

// What was tried stands once, whatever went wrong.
func TestDescribe(t *testing.T) {
	for _, tt := range []struct {
		err  error
		want string
	}{
		{tried("fly", errors.New("no wings")), "cannot fly: no wings"},
		{tried("fly", errors.New("no wings\nno wind")), "cannot fly: no wings; no wind"},
		{tried("send", &fs.PathError{Op: "read", Path: os.Stdin.Name(), Err: errors.New("is a directory")}), "cannot send: standard input: is a directory"},
		{fmt.Errorf("printer: %w", &fs.PathError{Op: "write", Path: os.Stdout.Name(), Err: errors.New("disk full")}), "standard output: disk full"},
	} {
		if got := describe(tt.err); got.Text != tt.want || got.Kind != kindFailed {
			t.Errorf("got %q, kind %q; want %q", got.Text, got.Kind, tt.want)
		}
	}
}

// A full disk or a closed pipe is no success.
func TestOutputFails(t *testing.T) {
	var stderr strings.Builder
	status := run(t.Context(), []string{"version"}, nil, brokenWriter{}, &stderr)
	if status != 1 || !strings.Contains(stderr.String(), "standard output: disk full") {
		t.Errorf("status %d, stderr %q", status, stderr.String())
	}
}

type brokenWriter struct{}

func (brokenWriter) Write([]byte) (int, error) { return 0, errors.New("disk full") }

// What a peer says of itself must not steer the terminal.
func TestClean(t *testing.T) {
	if got := clean("evil\x1b[2J\r\nagent\u202e"); strings.ContainsAny(got, "\x1b\r\n\u202e") {
		t.Errorf("got %q", got)
	}
	if got := []rune(clean(strings.Repeat("ä", 10_000))); len(got) > 2000 {
		t.Errorf("got %d characters", len(got))
	}
}
