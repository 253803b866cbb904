package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"io"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	ma "github.com/multiformats/go-multiaddr"

	"github.com/plexus-p2p/plexus"
	"github.com/plexus-p2p/plexus/node"
	"github.com/plexus-p2p/plexus/node/full"
	"github.com/plexus-p2p/plexus/peer"
	"github.com/plexus-p2p/plexus/perf"
	"github.com/plexus-p2p/plexus/ping"
	"github.com/plexus-p2p/plexus/transport"
)

// ran is what became of a command.
type ran struct {
	status   int
	out, err string
}

func command(t *testing.T, args ...string) ran {
	t.Helper()
	return commandOn(t, nil, "", args...)
}

func commandOn(t *testing.T, network transport.Network, stdin string, args ...string) ran {
	t.Helper()
	var out, err bytes.Buffer
	status := runOn(t.Context(), network, args, strings.NewReader(stdin), &out, &err)
	return ran{status, out.String(), err.String()}
}

// ok fails the test unless the command did what it was told, without a word of complaint.
func (r ran) ok(t *testing.T) ran {
	t.Helper()
	if r.status != 0 || r.err != "" {
		t.Fatalf("status %d, stderr %q, stdout:\n%s", r.status, r.err, r.out)
	}
	return r
}

// has checks that the output has all these texts.
func (r ran) has(t *testing.T, texts ...string) {
	t.Helper()
	for _, text := range texts {
		if !strings.Contains(r.out, text) {
			t.Errorf("%q is missing in:\n%s", text, r.out)
		}
	}
}

// events parses --json output into objects, by their event.
func (r ran) events(t *testing.T) map[string][]map[string]any {
	t.Helper()
	all := make(map[string][]map[string]any)
	for line := range strings.Lines(r.out) {
		var v map[string]any
		if err := json.Unmarshal([]byte(line), &v); err != nil {
			t.Fatalf("%v: %s", err, line)
		}
		ev, _ := v["event"].(string)
		all[ev] = append(all[ev], v)
	}
	return all
}

// remote starts a node for a verb to talk to, and returns its full address.
func remote(t *testing.T, cfg node.Config) (*plexus.Host, string) {
	t.Helper()
	cfg.Listen = []string{"/ip4/127.0.0.1/tcp/0"}
	h, err := node.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.Close() })
	return h, h.Info().Full()[0].String()
}

func TestPing(t *testing.T) {
	h, addr := remote(t, node.Config{})
	r := command(t, "ping", addr, "-n", "3", "--interval", "1ms").ok(t)
	r.has(t, h.ID().String()+" at /ip4/127.0.0.1/tcp/", "by /noise, /yamux/1.0.0 in", "pong   1 ", "pong   3 ", "3 sent, 3 answered, 0 % lost", "min ", "avg ", "max ")

	evs := command(t, "ping", addr, "-n", "2", "--interval", "1ms", "--json").ok(t).events(t)
	if len(evs["connected"]) != 1 || len(evs["pong"]) != 2 || len(evs["summary"]) != 1 {
		t.Fatalf("events: %v", evs)
	}
	if p := evs["pong"][1]; p["seq"] != 2.0 || p["rtt_ms"].(float64) <= 0 {
		t.Errorf("second pong: %v", p)
	}
	if s := evs["summary"][0]; s["sent"] != 2.0 || s["received"] != 2.0 || s["loss_percent"] != 0.0 {
		t.Errorf("summary: %v", s)
	}
}

// The flags choose what the connection is made of.
func TestSecurityAndMuxer(t *testing.T) {
	_, addr := remote(t, node.Config{})
	command(t, "ping", "-n1", "--security", "tls", addr).ok(t).has(t, "by /tls/1.0.0, /yamux/1.0.0 in")
	command(t, "ping", "-n1", "--security", "noise,tls", "--muxer", "mplex,yamux", addr).ok(t).has(t, "by /noise, /yamux/1.0.0 in")
}

// An address without /p2p is whoever answers there.
func TestWhoever(t *testing.T) {
	h, addr := remote(t, node.Config{})
	addr, _, _ = strings.Cut(addr, "/p2p/")
	command(t, "ping", "-n1", addr).ok(t).has(t, h.ID().String())
	command(t, "id", addr).ok(t).has(t, h.ID().String())
	command(t, "explain", addr).ok(t).has(t, h.ID().String())
}

// A ping that is lost is told, and counts; the next one has a new stream.
func TestPingLost(t *testing.T) {
	h, addr := remote(t, node.Config{NoServices: true})
	h.Handle(ping.Protocol, func(_ context.Context, s *plexus.Stream) error {
		var b [32]byte
		if _, err := io.ReadFull(s, b[:]); err != nil {
			return err
		}
		if _, err := s.Write(b[:]); err != nil {
			return err
		}
		io.ReadFull(s, b[:])
		return errors.New("one is enough")
	})
	r := command(t, "ping", addr, "-n", "3", "--interval", "1ms")
	r.has(t, "pong   1 ", "lost   2 ", "stream reset by the peer", "pong   3 ", "3 sent, 2 answered, 33 % lost")
	if r.status != 1 || !strings.Contains(r.err, "1 of 3 pings to "+h.ID().String()+" lost") || strings.Count(r.err, "\n") != 1 {
		t.Errorf("status %d, stderr %q", r.status, r.err)
	}
}

// A connection that is lost is made anew.
func TestPingReconnects(t *testing.T) {
	h, addr := remote(t, node.Config{NoServices: true})
	h.Handle(ping.Protocol, func(_ context.Context, s *plexus.Stream) error {
		var b [32]byte
		if _, err := io.ReadFull(s, b[:]); err != nil {
			return err
		}
		if _, err := s.Write(b[:]); err != nil {
			return err
		}
		io.ReadFull(s, b[:])
		return s.Conn().CloseWithCode(plexus.CodeShutdown)
	})
	r := command(t, "ping", addr, "-n", "6", "--interval", "1ms")
	_, rest, lost := strings.Cut(r.out, "lost   2 ")
	if !lost || !strings.Contains(rest, "pong ") {
		t.Errorf("no pong on a second connection:\n%s", r.out)
	}
}

// ^C ends ping with its summary, and that is success.
func TestPingInterrupted(t *testing.T) {
	_, addr := remote(t, node.Config{})
	ctx, cancel := context.WithCancel(t.Context())
	out, w := io.Pipe()
	status := make(chan int, 1)
	go func() {
		status <- run(ctx, []string{"ping", addr, "--interval", "1h"}, nil, w, io.Discard)
		w.Close()
	}()
	lines := bufio.NewScanner(out)
	for range 3 { // two on the connection, and a pong
		lines.Scan()
	}
	cancel()
	rest, _ := io.ReadAll(out)
	if got := <-status; got != 0 || !strings.Contains(string(rest), "1 sent, 1 answered") {
		t.Errorf("status %d, output %q", got, rest)
	}
}

func TestID(t *testing.T) {
	h, addr := remote(t, node.Config{Agent: "somebody/1.2.3"})
	r := command(t, "id", addr).ok(t)
	r.has(t, h.ID().String(), h.ID().CID(), "Ed25519", "somebody/1.2.3", "/ipfs/ping/1.0.0", "/ipfs/id/1.0.0",
		"signed", h.Addrs()[0].String(), "/noise, /yamux/1.0.0", "how it sees us")

	v := command(t, "id", addr, "--json").ok(t).events(t)["identity"][0]
	for field, want := range map[string]any{
		"peer": h.ID().String(), "key_type": "Ed25519", "agent": "somebody/1.2.3", "signed": true,
		"security": "/noise", "muxer": "/yamux/1.0.0",
	} {
		if v[field] != want {
			t.Errorf("%s: got %v want %v", field, v[field], want)
		}
	}
	if o := v["observed"].(string); !strings.HasPrefix(o, "/ip4/127.0.0.1/tcp/") {
		t.Errorf("observed %q", o)
	}
}

func TestPerf(t *testing.T) {
	h, addr := remote(t, node.Config{})
	perf.Serve(h)
	command(t, "perf", addr, "--up", "1MiB", "--down", "300kB").ok(t).has(t, "up  ", "1 MiB", "down", "293 KiB", "bit/s")

	evs := command(t, "perf", addr, "--up", "70000", "--down", "1MiB", "--json").ok(t).events(t)["result"]
	if len(evs) != 2 || evs[0]["direction"] != "up" || evs[0]["bytes"] != 70000.0 || evs[1]["direction"] != "down" || evs[1]["bytes"] != 1048576.0 {
		t.Errorf("results: %v", evs)
	}
	if evs := command(t, "perf", addr, "--up", "0", "--down", "1", "--json").ok(t).events(t)["result"]; len(evs) != 1 {
		t.Errorf("results: %v", evs)
	}
}

func TestExplain(t *testing.T) {
	h, addr := remote(t, node.Config{})
	r := command(t, "explain", addr).ok(t)
	r.has(t, "0 ", "✓ /ip4/127.0.0.1/tcp/", "connect ", "security /noise", "muxer /yamux/1.0.0", "identify", "█", h.ID().String())
	for line := range strings.Lines(r.out) {
		if n := columns(line); n > 82 && strings.Contains(line, "█") {
			t.Errorf("%d columns: %s", n, line)
		}
	}

	evs := command(t, "explain", addr, "--json").ok(t).events(t)
	a := evs["attempt"][0]
	if a["won"] != true || len(a["stages"].([]any)) != 3 {
		t.Errorf("attempt: %v", a)
	}
	if id := evs["identity"][0]; id["peer"] != h.ID().String() || id["connect_ms"].(float64) <= 0 {
		t.Errorf("identity: %v", id)
	}
}

func TestCat(t *testing.T) {
	h, addr := remote(t, node.Config{})
	h.Handle("/shout/1", func(_ context.Context, s *plexus.Stream) error {
		b, err := io.ReadAll(s)
		if err != nil {
			return err
		}
		_, err = s.Write(bytes.ToUpper(b))
		return err
	})
	long := strings.Repeat("all of it\n", 50_000)
	if r := commandOn(t, nil, long, "cat", addr, "/shout/1").ok(t); r.out != strings.ToUpper(long) {
		t.Errorf("got %d bytes, want %d", len(r.out), len(long))
	}
}

func TestKey(t *testing.T) {
	dir := t.TempDir()
	for _, typ := range []string{"ed25519", "rsa", "secp256k1", "ecdsa"} {
		t.Run(typ, func(t *testing.T) {
			file := filepath.Join(dir, typ)
			made := command(t, "key", "new", file, "--type", typ).ok(t)
			shown := command(t, "key", "show", file).ok(t)
			if made.out != shown.out {
				t.Errorf("new prints %q, show %q", made.out, shown.out)
			}
			v := command(t, "key", "show", "--json", file).ok(t).events(t)["key"][0]
			if !strings.EqualFold(v["key_type"].(string), typ) || !strings.HasPrefix(v["cid"].(string), "bafz") {
				t.Errorf("key: %v", v)
			}
			shown.has(t, v["peer"].(string), v["cid"].(string), v["public_key"].(string))
		})
	}
	file := filepath.Join(dir, "ed25519")
	before, _ := os.ReadFile(file)
	if r := command(t, "key", "new", file); r.status != 1 || !strings.Contains(r.err, "exists") {
		t.Errorf("over an existing file: %+v", r)
	}
	if after, _ := os.ReadFile(file); !bytes.Equal(before, after) {
		t.Error("the existing key was replaced")
	}
}

func TestUp(t *testing.T) {
	key := filepath.Join(t.TempDir(), "node.key")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	out, w := io.Pipe()
	var stderr bytes.Buffer
	status := make(chan int, 1)
	go func() {
		args := []string{"up", "--perf", "--key", key, "--listen", "/ip4/127.0.0.1/tcp/0", "--listen", "/ip4/127.0.0.1/tcp/0"}
		status <- run(ctx, args, nil, w, &stderr)
		w.Close()
	}()
	lines := bufio.NewScanner(out)
	next := func() string { lines.Scan(); return lines.Text() }
	id, first, second := next(), next(), next()
	command(t, "key", "show", key).ok(t).has(t, id)
	for _, addr := range []string{first, second} {
		if !strings.HasPrefix(addr, "/ip4/127.0.0.1/tcp/") || !strings.HasSuffix(addr, "/p2p/"+id) {
			t.Fatalf("address %q of %s", addr, id)
		}
		command(t, "ping", "-n1", addr).ok(t)
	}
	command(t, "id", first).ok(t).has(t, id, "plexus/", echo)
	command(t, "perf", "--up", "1", "--down", "1", first).ok(t)
	if r := commandOn(t, nil, "hello", "cat", first, echo).ok(t); r.out != "hello" {
		t.Errorf("echo: %q", r.out)
	}
	cancel()
	if rest, _ := io.ReadAll(out); len(rest) > 0 {
		t.Errorf("without -v: %q", rest)
	}
	if got := <-status; got != 0 || stderr.Len() > 0 {
		t.Errorf("status %d, stderr %q", got, stderr.String())
	}
}

// up runs the verb until the test ends, and returns the lines that it begins with.
func up(t *testing.T, lines int, args ...string) []string {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	out, w := io.Pipe()
	status := make(chan int, 1)
	go func() {
		status <- run(ctx, append([]string{"up"}, args...), nil, w, io.Discard)
		w.Close()
	}()
	t.Cleanup(func() {
		cancel()
		io.Copy(io.Discard, out)
		if got := <-status; got != 0 {
			t.Errorf("up %v: status %d", args, got)
		}
	})
	var got []string
	for in := bufio.NewScanner(out); len(got) < lines && in.Scan(); {
		got = append(got, in.Text())
	}
	return got
}

// By default, the addresses have one port in common. That each works: full.TestTransports.
func TestUpEverywhere(t *testing.T) {
	seen := make(map[string]bool)
	for _, addr := range up(t, 4)[1:] {
		command(t, "ping", "-n1", addr).ok(t)
		seen[regexp.MustCompile(`/ip[46]/[^/]+|/p2p/.*`).ReplaceAllString(addr, "")] = true
	}
	var port string
	for what := range seen {
		p := regexp.MustCompile(`[0-9]+`).FindString(what)
		if port != "" && p != port {
			t.Errorf("several ports: %v", seen)
		}
		port = p
	}
}

func TestPrivateNetwork(t *testing.T) {
	file, other := filepath.Join(t.TempDir(), "swarm.key"), filepath.Join(t.TempDir(), "other.key")
	made := command(t, "key", "swarm", file, "--json").ok(t).events(t)["swarm key"]
	if len(made) != 1 || len(made[0]["fingerprint"].(string)) != 32 {
		t.Errorf("events: %v", made)
	}
	command(t, "key", "swarm", other).ok(t)
	addr := up(t, 2, "--swarm-key", file, "-l", "/ip4/127.0.0.1/tcp/0")[1]
	command(t, "ping", "-n1", "--swarm-key", file, addr).ok(t)
	for _, args := range [][]string{{"ping", addr}, {"ping", "--swarm-key", other, addr}} {
		if r := command(t, args...); r.status != 1 || strings.Count(r.err, "\n") != 1 {
			t.Errorf("%v: status %d, %q", args, r.status, r.err)
		}
	}
	if r := command(t, "up", "--swarm-key", filepath.Join(t.TempDir(), "none")); r.status == 0 || !strings.Contains(r.err, "none") {
		t.Errorf("a missing key: status %d, %q", r.status, r.err)
	}
}

// With a certificate there are addresses for WebSocket over TLS.
func TestUpCert(t *testing.T) {
	web := httptest.NewTLSServer(nil)
	defer web.Close()
	key, err := x509.MarshalPKCS8PrivateKey(web.TLS.Certificates[0].PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "cert.pem")
	both := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: web.Certificate().Raw})
	both = append(both, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key})...)
	if err := os.WriteFile(file, both, 0o600); err != nil {
		t.Fatal(err)
	}
	if addr := up(t, 2, "--cert", file, "-l", "/ip4/127.0.0.1/tcp/0/tls/ws")[1]; !strings.Contains(addr, "/tls/ws/p2p/") {
		t.Errorf("listens on %s", addr)
	}
	if r := command(t, "up", "--cert-key", file); r.status != 2 || !strings.Contains(r.err, "--cert") {
		t.Errorf("status %d, %q", r.status, r.err)
	}
	if r := command(t, "up", "--autotls", t.TempDir()); r.status != 2 || !strings.Contains(r.err, "--key") {
		t.Errorf("status %d, %q", r.status, r.err)
	}
	// Nobody has given it a certificate, so it does not tell of /tls/ws.
	args := []string{"--autotls", t.TempDir(), "--key", filepath.Join(t.TempDir(), "key"), "-l", "/ip4/127.0.0.1/tcp/0/tls/ws", "-l", "/ip4/127.0.0.1/tcp/0"}
	if addr := up(t, 2, args...)[1]; strings.Contains(addr, "/ws") {
		t.Errorf("tells of %s", addr)
	}
	if r := command(t, "up", "-l", "/ip4/127.0.0.1/tcp/0/tls/ws"); r.status != 1 || !strings.Contains(r.err, "certificate") {
		t.Errorf("status %d, %q", r.status, r.err)
	}
}

// The module for browsers has the addresses that they can dial. That it works is
// for the interop tests to show.
func TestPrintJS(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	var out bytes.Buffer
	h, addr := remote(t, node.Config{Transports: full.Transports})
	cancel()
	status := run(ctx, []string{"up", "--print-js", "-l", "/ip4/127.0.0.1/tcp/0/ws", "-l", "/ip4/127.0.0.1/tcp/0"}, nil, &out, io.Discard)
	text := out.String()
	if n := strings.Count(text, `  "/ip4/127.0.0.1/tcp/`); status != 0 || n != 1 || !regexp.MustCompile(`/tcp/[0-9]+/ws/p2p/`).MatchString(text) || strings.Contains(text, "webtransport") {
		t.Errorf("status %d:\n%s", status, text)
	}
	for _, a := range []string{"/ip4/1.2.3.4/udp/5/quic-v1/webtransport", "/ip4/1.2.3.4/udp/5/webrtc-direct"} {
		js, err := newScript(peer.AddrInfo{ID: h.ID(), Addrs: []ma.Multiaddr{ma.StringCast(a), ma.StringCast(addr)}})
		if err != nil || !strings.Contains(js.Module, strconv.Quote(a+"/p2p/"+h.ID().String())) || strings.Contains(js.Module, `"`+addr) {
			t.Errorf("%v\n%s", err, js.Module)
		}
	}
}

// With -v, up prints who comes and goes.
func TestUpVerbose(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	out, w := io.Pipe()
	go func() {
		run(ctx, []string{"up", "-v", "--json", "--listen", "/ip4/127.0.0.1/tcp/0"}, nil, w, io.Discard)
		w.Close()
	}()
	lines := json.NewDecoder(out)
	next := func() (v map[string]any) {
		if err := lines.Decode(&v); err != nil {
			t.Fatal(err)
		}
		return v
	}
	next()
	addr := next()["addr"].(string)
	command(t, "id", addr).ok(t)
	seen := make(map[string]bool)
	for !seen["disconnected"] {
		v := next()
		seen[v["event"].(string)] = true
		if v["inbound"] != true || v["security"] != "/noise" {
			t.Errorf("event: %v", v)
		}
	}
	if !seen["connected"] {
		t.Error("nobody connected")
	}
}

func TestVersion(t *testing.T) {
	command(t, "version").ok(t).has(t, "plexus ", "go1.")
	if v := command(t, "version", "--json").ok(t).events(t)["version"]; len(v) != 1 {
		t.Errorf("events: %v", v)
	}
}

// Each verb has a help text with examples that it takes.
func TestHelp(t *testing.T) {
	command(t, "--help").ok(t).has(t, "Commands:", "demo", "explain", "Common flags:", "--json", "ADDR is a multiaddr")
	for _, verb := range []string{"demo", "up", "ping", "id", "perf", "explain", "cat", "key new", "key show", "key swarm"} {
		t.Run(verb, func(t *testing.T) {
			args := strings.Fields(verb)
			r := command(t, append(args, "--help")...).ok(t)
			r.has(t, "Usage: plexus "+verb, "Examples:", "\n    plexus "+verb)
			if other := command(t, append([]string{"help"}, args...)...).ok(t); other != r {
				t.Errorf("plexus help %s differs:\n%s", verb, other.out)
			}
		})
	}
}

func TestUsage(t *testing.T) {
	tests := []struct {
		args []string
		want string
	}{
		{nil, "which verb?"},
		{[]string{"pong"}, "ping"},
		{[]string{"ping"}, "see plexus ping --help"},
		{[]string{"ping", "--nonsense", "/ip4/127.0.0.1/tcp/1"}, "--nonsense"},
		{[]string{"ping", "--security", "rot13", "/ip4/127.0.0.1/tcp/1"}, "rot13"},
		{[]string{"ping", "--count=-1", "/ip4/127.0.0.1/tcp/1"}, "negative"},
		{[]string{"ping", "--timeout=-1s", "/ip4/127.0.0.1/tcp/1"}, "negative"},
		{[]string{"ping", "-n", "-1", "/ip4/127.0.0.1/tcp/1"}, `--count: "-1" is read as a flag; if it is the value, write --count="-1"; see`},
		{[]string{"sub", "news", "--peer", "--raw"}, `--peer: "--raw" is read as a flag`},
		{[]string{"pub", "", "hello"}, "TOPIC is empty"},
		{[]string{"perf", "--up", "much", "/ip4/127.0.0.1/tcp/1"}, `"much" is not a size`},
		{[]string{"perf", "--up", "0", "--down", "0", "/ip4/127.0.0.1/tcp/1"}, "nothing to measure"},
		{[]string{"key"}, "see plexus key --help"},
		{[]string{"key", "new", "x", "--type", "dsa"}, "dsa"},
	}
	for _, tt := range tests {
		t.Run(strings.Join(tt.args, " "), func(t *testing.T) {
			r := command(t, tt.args...)
			lines := strings.Split(strings.TrimSpace(r.err), "\n")
			if last := lines[len(lines)-1]; r.status != 2 || r.out != "" || !strings.Contains(last, tt.want) {
				t.Errorf("status %d, stdout %q, stderr %q; want 2 and %q", r.status, r.out, r.err, tt.want)
			}
			if len(tt.args) > 0 && len(lines) > 1 {
				t.Errorf("%d lines: %q", len(lines), r.err)
			}
		})
	}
}

func TestSize(t *testing.T) {
	tests := []struct {
		text string
		want size
		back string
	}{
		{"0", 0, "0 B"}, {"1", 1, "1 B"}, {"64MiB", 64 << 20, "64 MiB"}, {"64 M", 64 << 20, "64 MiB"},
		{"1gb", 1e9, "954 MiB"}, {"1.5KiB", 1536, "1.50 KiB"}, {"12B", 12, "12 B"}, {"2TiB", 2 << 40, "2 TiB"},
	}
	for _, tt := range tests {
		var s size
		if err := s.UnmarshalText([]byte(tt.text)); err != nil || s != tt.want || s.String() != tt.back {
			t.Errorf("%q: got %d, %q, %v", tt.text, s, s, err)
		}
	}
	for _, text := range []string{"", "MiB", "-1", "1XB", "NaN", "9e30", "0x10 MiB MiB"} {
		var s size
		if err := s.UnmarshalText([]byte(text)); err == nil {
			t.Errorf("%q: got %d", text, s)
		}
	}
}
