package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"io"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/plexus-p2p/plexus/node"
	"github.com/plexus-p2p/plexus/peer"
	"github.com/plexus-p2p/plexus/pubsub"
)

// running is a verb that runs, until stop or the end of the test. What it prints waits
// for the test, and it does not wait for that.
type running struct {
	t      *testing.T
	keys   *io.PipeWriter
	lines  chan string
	stop   context.CancelFunc
	status chan int
	stderr locked
}

// locked is a buffer: a node may still log when its verb has ended.
type locked struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *locked) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(b)
}

func (l *locked) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func begin(t *testing.T, args ...string) *running {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	in, keys := io.Pipe()
	out, w := io.Pipe()
	r := &running{t: t, keys: keys, lines: make(chan string, 10_000), stop: cancel, status: make(chan int, 1)}
	go func() {
		status := run(ctx, args, in, w, &r.stderr)
		in.CloseWithError(io.ErrClosedPipe)
		w.Close()
		r.status <- status
	}()
	go func() {
		defer close(r.lines)
		in := bufio.NewScanner(out)
		in.Buffer(nil, 1<<20)
		for in.Scan() {
			r.lines <- in.Text()
		}
	}()
	t.Cleanup(func() {
		cancel()
		keys.Close()
		for range r.lines {
		}
	})
	return r
}

// end waits until the verb has ended, and returns what it still said.
func (r *running) end() ran {
	r.t.Helper()
	var rest strings.Builder
	for l := range r.lines {
		rest.WriteString(l + "\n")
	}
	return ran{<-r.status, rest.String(), r.stderr.String()}
}

// line waits for a line.
func (r *running) line() string {
	r.t.Helper()
	l, ok := <-r.lines
	if !ok {
		r.t.Fatalf("it ended: %+v", r.end())
	}
	return l
}

// until waits for a line with a text.
func (r *running) until(text string) string {
	r.t.Helper()
	for {
		if l := r.line(); strings.Contains(l, text) {
			return l
		}
	}
}

// event waits for an event of --json.
func (r *running) event(name string) map[string]any {
	r.t.Helper()
	var v map[string]any
	if err := json.Unmarshal([]byte(r.until(`{"event":"`+name+`"`)), &v); err != nil {
		r.t.Fatal(err)
	}
	return v
}

// subscribe begins "sub", or another verb, and returns its address.
func subscribe(t *testing.T, verb string, args ...string) (*running, string) {
	t.Helper()
	r := begin(t, append([]string{verb, "--json", "-l", "/ip4/127.0.0.1/tcp/0"}, args...)...)
	return r, r.event("listen")["addr"].(string)
}

const loopback = "/ip4/127.0.0.1/tcp/0"

func TestPubSub(t *testing.T) {
	for _, router := range []string{"gossipsub", "floodsub"} {
		for _, unsigned := range []bool{false, true} {
			t.Run(router, func(t *testing.T) {
				flags := []string{"news", "--router", router}
				if unsigned {
					flags = append(flags, "--unsigned")
				}
				sub, addr := subscribe(t, "sub", append(flags, "-n", "3")...)
				pub := append([]string{"pub", "-l", loopback, "--peer", addr}, flags...)
				command(t, append(pub, "it rains")...).ok(t).has(t, "published", "8 B", "to 1 peer")
				first := sub.event("message")
				if first["text"] != "it rains" || first["topic"] != "news" || (first["from"] == nil) != unsigned || first["via"] == "" || first["time"] == "" {
					t.Errorf("message: %v", first)
				}
				// Lines of standard input.
				evs := commandOn(t, nil, "one\ntwo", append(pub, "--json")...).ok(t).events(t)["published"]
				if len(evs) != 2 || evs[0]["bytes"] != 3.0 || evs[0]["peers"] != 1.0 || evs[0]["left"] != 0.0 || evs[0]["id"] == evs[1]["id"] {
					t.Errorf("published: %v", evs)
				}
				got := []string{sub.event("message")["text"].(string), sub.event("message")["text"].(string)}
				slices.Sort(got) // messages are not ordered
				if !slices.Equal(got, []string{"one", "two"}) {
					t.Errorf("got %q", got)
				}
				sub.end().ok(t)
			})
		}
	}
}

// Any bytes come through, and are told on a line each.
func TestPubSubBinary(t *testing.T) {
	all := make([]byte, 256)
	for i := range all {
		all[i] = byte(i)
	}
	data := strings.Repeat(string(all), 400)
	hub, addr := subscribe(t, "sub", "bytes", "--router", "floodsub", "-v")
	var raw bytes.Buffer
	done := make(chan int, 1)
	go func() {
		done <- run(t.Context(), []string{"sub", "bytes", "--router", "floodsub", "-n", "1", "--raw", "-l", loopback, "--peer", addr}, nil, &raw, io.Discard)
	}()
	plain := begin(t, "sub", "bytes", "--router", "floodsub", "-n", "1", "-l", loopback, "--peer", addr)
	hub.event("joined")
	hub.event("joined")
	commandOn(t, nil, data, "pub", "bytes", "--router", "floodsub", "--whole", "-l", loopback, "--peer", addr).ok(t)
	got, err := base64.StdEncoding.DecodeString(hub.event("message")["data"].(string))
	if err != nil || string(got) != data {
		t.Errorf("--json: %d bytes of %d, %v", len(got), len(data), err)
	}
	if l := plain.line(); !strings.HasSuffix(l, "  "+visible([]byte(data))) {
		t.Errorf("text: %.200q", l)
	}
	if status := <-done; status != 0 || raw.String() != data {
		t.Errorf("--raw: %d bytes of %d, status %d", raw.Len(), len(data), status)
	}
}

func TestVisible(t *testing.T) {
	for in, want := range map[string]string{
		"plain": "plain", "käse €": "käse €", "a\nb\tc": `a\nb\tc`, "\xff\x00": `\xff\x00`, "\x1b[31m": `\x1b[31m`, `\n`: `\\n`, "\ufffd": "\ufffd", "\u202e": `\u202e`,
	} {
		if got := visible([]byte(in)); got != want {
			t.Errorf("%q: got %q, want %q", in, got, want)
		}
	}
}

func TestPubNobody(t *testing.T) {
	_, addr := remote(t, node.Config{})
	for _, args := range [][]string{{"pub", "news", "x", "-l", loopback, "--timeout", "50ms"}, {"pub", "news", "x", "-l", loopback, "--timeout", "1s", "--peer", addr}} {
		r := command(t, append(args, "--json")...)
		var f failure
		lines := strings.Split(strings.TrimSpace(r.err), "\n")
		if err := json.Unmarshal([]byte(lines[len(lines)-1]), &f); err != nil || r.status != 1 || f.Kind != kindNoPeers || !strings.Contains(f.Text, "news") {
			t.Errorf("status %d, %v, %s", r.status, err, r.err)
		}
	}
}

// What does not go out is an error, and one line.
func TestPubFails(t *testing.T) {
	sub, addr := subscribe(t, "sub", "news")
	defer sub.stop()
	pub := []string{"pub", "news", "-l", loopback, "--peer", addr}
	for _, tt := range []struct {
		stdin string
		args  []string
		want  string
	}{
		{strings.Repeat("x", 2<<20), []string{"--whole"}, "message too large"},
		{strings.Repeat("x", 2<<20), nil, "a line of standard input is longer"},
		{"", []string{"--unsigned", "same", "same"}, "published before"},
		{"", []string{"x", "--peer", "nonsense"}, "not an address"},
		{"", []string{"x", "--router", "carrier"}, "--router"},
		{"", []string{"x", "-l", "/ip4/127.0.0.1/udp/1/utp"}, "no transport"},
	} {
		r := commandOn(t, nil, tt.stdin, append(slices.Clone(pub), tt.args...)...)
		if r.status == 0 || strings.Count(r.err, "\n") != 1 || !strings.Contains(r.err, tt.want) {
			t.Errorf("%v: status %d, %q", tt.args, r.status, r.err)
		}
	}
	// One of two peers is there: that is enough, and told.
	r := command(t, append(pub, "x", "--peer", "/ip4/127.0.0.1/tcp/1")...)
	if r.status != 0 || !strings.Contains(r.err, "cannot connect to /ip4/127.0.0.1/tcp/1") || !strings.Contains(r.out, "to 1 peer") {
		t.Errorf("%+v", r)
	}
	r = command(t, "pub", "news", "x", "--peer", "/ip4/127.0.0.1/tcp/1", "--peer", "/ip4/127.0.0.1/tcp/2")
	if r.status != 1 || !strings.Contains(r.err, "none of 2 peers") {
		t.Errorf("%+v", r)
	}
}

// A peer that is lost is connected to again.
func TestSubReconnects(t *testing.T) {
	key := filepath.Join(t.TempDir(), "key")
	hub, addr := subscribe(t, "sub", "news", "-v", "--key", key)
	sub := begin(t, "sub", "news", "-l", loopback, "--peer", addr)
	hub.event("joined")
	hub.stop()
	hub.end()
	at, _, _ := strings.Cut(addr, "/p2p/")
	command(t, "pub", "news", "back again", "--key", key, "-l", at).has(t, "to 1 peer")
	sub.until("  back again")
}

func TestTopic(t *testing.T) {
	hub, addr := subscribe(t, "sub", "news")
	pub := begin(t, "pub", "news", "-l", loopback, "--peer", addr)
	watch := begin(t, "topic", "news", "--json", "--scores", "-i", "50ms", "-l", loopback, "--peer", addr)
	for watch.event("topic")["mesh"] != 1.0 {
	}
	io.WriteString(pub.keys, "hello\n")
	hub.event("message")
	for {
		v := watch.event("topic")
		peers := v["peers"].([]any)
		p := peers[0].(map[string]any)
		if p["first"] == 0.0 {
			continue
		}
		id, _ := peer.ParseAddrInfo(addr)
		if len(peers) != 1 || p["peer"] != id.ID.String() || p["in_mesh"] != true || p["protocol"] != "/meshsub/1.3.0" || p["first"] != 1.0 || p["invalid"] != 0.0 {
			t.Errorf("peers: %v", peers)
		}
		score := p["score"].(map[string]any)
		if len(score) != 10 || score["p2_first_deliveries"].(float64) < 0.9 || score["total"].(float64) < score["p2_first_deliveries"].(float64) {
			t.Errorf("score: %v", score)
		}
		break
	}
	pub.keys.Close()
	if r := pub.end(); r.status != 0 {
		t.Errorf("%+v", r)
	}
	r := command(t, "topic", "news", "--scores", "-n", "1", "-i", "1.2s", "-l", loopback, "--peer", addr).ok(t)
	r.has(t, "news  gossipsub, ", "1 peer, 1 in the mesh", "meshsub/1.3.0", "P1 time in mesh", "P2 first deliveries", "P3 mesh deliveries",
		"P3b mesh failures", "P4 invalid messages", "P5 application", "P6 IP colocation", "P7 behaviour")
	command(t, "topic", "news", "--router", "floodsub", "-n", "1", "-i", "300ms", "-l", loopback, "--peer", addr).ok(t).has(t, "news  floodsub, 1 peer", "floodsub/1.0.0")
	if r := command(t, "topic", "news", "--router", "floodsub", "--scores"); r.status != 2 || strings.Count(r.err, "\n") != 1 {
		t.Errorf("%+v", r)
	}
}

// A tick that comes late makes no traffic.
func TestRates(t *testing.T) {
	begin := time.Now()
	last := sample{begin, pubsub.Stats{Received: 10, Sent: 1, BytesIn: 100}}
	now := sample{begin.Add(4 * time.Second), pubsub.Stats{Received: 30, Duplicates: 2, Sent: 1, BytesIn: 500, BytesOut: 8}}
	if got, want := now.since(last), (rates{Received: 5, Duplicates: 0.5, In: 100, Out: 2}); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	if got := now.since(now); got != (rates{}) {
		t.Errorf("in no time: %+v", got)
	}
}

func TestChat(t *testing.T) {
	alice, addr := subscribe(t, "chat", "garden", "--nick", "alice")
	bob := begin(t, "chat", "garden", "--nick", "bob", "-l", loopback, "--peer", addr)
	carol := begin(t, "chat", "garden", "--nick", "carol", "-l", loopback, "--peer", addr)
	// bob and carol hear each other's names through alice.
	bob.hear("alice", "carol")
	carol.hear("alice", "bob")
	for _, l := range [][2]string{{"hello, all", "hello, all"}, {"//not a command", "/not a command"}} {
		io.WriteString(bob.keys, l[0]+"\n")
		carol.until(" bob  " + l[1])
	}
	io.WriteString(bob.keys, "/nick\n/connect\n") // change nothing
	bob.until("/nick NAME")
	bob.until("/connect ADDR")
	io.WriteString(bob.keys, "/nick robert\n")
	carol.until("bob is now robert")
	io.WriteString(bob.keys, "/who\n")
	bob.until("robert (you)")
	for _, name := range []string{"alice", "carol"} {
		if l := bob.line(); !strings.HasPrefix(l, name+" ") {
			t.Errorf("/who: %q", l)
		}
	}
	ev := alice.event("renamed")
	if ev["nick"] == "bob" { // his message came before his name, which is another topic's
		ev = alice.event("renamed")
	}
	if ev["nick"] != "robert" || ev["from"] == "" {
		t.Errorf("renamed: %v", ev)
	}
	// Who is not plexus has no name, and escapes do not reach the terminal.
	command(t, "pub", "garden", "a\x1b[2Jb\nc", "-l", loopback, "--peer", addr).ok(t)
	if l := carol.until("\ufffd[2Jb"); strings.Contains(l, "\x1b") {
		t.Errorf("%q", l)
	}
	if l := carol.line(); strings.TrimSpace(l) != "c" {
		t.Errorf("%q", l)
	}
	io.WriteString(bob.keys, "/quit\n")
	if r := bob.end(); r.status != 0 {
		t.Errorf("%+v", r)
	}
	alice.until(`"left"`)
	carol.until("robert has left")
	carol.keys.Close()
	if r := carol.end(); r.status != 0 {
		t.Errorf("%+v", r)
	}
}

// hear waits until it has said all these names, in any order.
func (r *running) hear(names ...string) {
	r.t.Helper()
	for len(names) > 0 {
		l := r.line()
		names = slices.DeleteFunc(names, func(n string) bool { return strings.Contains(l, n) })
	}
}

func TestNick(t *testing.T) {
	for in, want := range map[string]string{"bob": "bob", " a  b ": "a b", "\x1b[1mx": "[1mx", "\xff": "", strings.Repeat("é", 40): strings.Repeat("é", maxNick), "\u200b": ""} {
		if got := cleanNick(in); got != want || !utf8.ValidString(got) {
			t.Errorf("%q: got %q", in, got)
		}
	}
	if r := command(t, "chat", "--nick", strings.Repeat("x", 25), "-l", loopback); r.status != 2 {
		t.Errorf("%+v", r)
	}
}
