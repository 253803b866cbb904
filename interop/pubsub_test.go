//go:build linux

package interop

import (
	"bufio"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/plexus-p2p/plexus/interop/contract"
)

// pubsubStacks are the peers beside plexus.
var pubsubStacks = []string{"go", "js", "rust", "py"}

// loadPubSub makes a pubsub peer ready.
func loadPubSub(t *testing.T, name string) (*program, error) {
	cache := cacheDir()
	p := &program{name: name}
	switch name {
	case "go", "plexus":
		bin := filepath.Join(t.TempDir(), name)
		if out, err := exec.Command("go", "build", "-buildvcs=false", "-o", bin, "./peers/"+name+"/pubsub").CombinedOutput(); err != nil {
			return nil, fmt.Errorf("go build ./peers/%s/pubsub: %v\n%s", name, err, out)
		}
		p.argv = []string{bin}
		return p, nil
	case "js":
		p.argv = []string{nodePath(), filepath.Join(cache, "js/pubsub.mjs")}
	case "rust":
		p.argv = []string{filepath.Join(cache, "rust/debug/pubsub")}
	case "py":
		p.argv = []string{filepath.Join(cache, "py/bin/python"), "peers/py/pubsub.py"}
	}
	if exec.Command("./install.sh", "--check", name).Run() != nil {
		return nil, fmt.Errorf("%s is not installed or out of date: run interop/install.sh %s", name, name)
	}
	if name == "js" {
		return p, copyFile("peers/js/pubsub.mjs", p.argv[1])
	}
	return p, nil
}

// pubsubKnown are failures that we know. One that passes fails the test.
var pubsubKnown = map[string]string{
	"js/floodsub/unsigned":  "@libp2p/floodsub 11.0.28 drops a message without an author, which StrictNoSign demands ('RPC message was missing from')",
	"py/gossipsub/unsigned": "py-libp2p 0.8.1 tells messages apart by author and sequence number: the second one without them is 'equivocation' and goes nowhere",
}

// A pubsubPeer is a pubsub peer at work.
type pubsubPeer struct {
	*process
	name  string
	index uint32 // the From of what it publishes: its own, and with bigFrom added
	hello contract.Hello
	in    io.WriteCloser
	lines chan []byte // closed at the end of its output
	last  contract.Report
}

// bigFrom is added to the From of messages of bigSize bytes.
const (
	bigFrom   = 1000
	smallSize = 1 << 10
	bigSize   = 512 << 10
)

func startPubSub(t *testing.T, p *program, index int, args ...string) (*pubsubPeer, error) {
	c := newProcess(t.Context(), p, args...)
	in, out, err := c.start()
	if err != nil {
		return nil, err
	}
	n := &pubsubPeer{process: c, name: p.name, index: uint32(index), in: in, lines: make(chan []byte)}
	t.Cleanup(func() {
		in.Close()
		syscall.Kill(-c.cmd.Process.Pid, syscall.SIGKILL)
		for range n.lines {
		}
		c.cmd.Wait()
	})
	go func() { // ends with the process
		defer close(n.lines)
		r := bufio.NewReader(out)
		for {
			b, err := r.ReadBytes('\n')
			if err != nil {
				return
			}
			n.lines <- b
		}
	}()
	return n, n.read(&n.hello)
}

// read waits for a line.
func (n *pubsubPeer) read(v any) error {
	select {
	case b, ok := <-n.lines:
		if !ok {
			return fmt.Errorf("%s ended\n%s", n.name, n.stderr.tail())
		}
		return json.Unmarshal(b, v)
	case <-time.After(2 * time.Minute):
		return fmt.Errorf("%s says nothing for two minutes\n%s", n.name, n.stderr.tail())
	}
}

// do has the peer carry out a command. Afterwards n.last is what it has seen.
func (n *pubsubPeer) do(c contract.Command) error {
	if err := json.NewEncoder(n.in).Encode(c); err != nil {
		return fmt.Errorf("%s: %w\n%s", n.name, err, n.stderr.tail())
	}
	var r contract.Report
	if err := n.read(&r); err != nil {
		return err
	}
	if r.Err != "" {
		return fmt.Errorf("%s: %s", n.name, r.Err)
	}
	n.last = r
	return nil
}

// A pubsubNet is peers that are connected.
type pubsubNet struct {
	peers []*pubsubPeer
	edges [][2]int // who dials whom

	patience time.Duration // with messages that do not come
}

// each calls f for all peers at once.
func (n *pubsubNet) each(f func(i int, p *pubsubPeer) error) error {
	errs := make([]error, len(n.peers))
	var wg sync.WaitGroup
	for i, p := range n.peers {
		wg.Go(func() { errs[i] = f(i, p) })
	}
	wg.Wait()
	return errors.Join(errs...)
}

func newPubSubNet(t *testing.T, programs []*program, edges [][2]int, args ...string) (*pubsubNet, error) {
	n := &pubsubNet{edges: edges, peers: make([]*pubsubPeer, len(programs)), patience: 15 * time.Second}
	t.Cleanup(func() {
		for i, p := range n.peers {
			if t.Failed() && p != nil {
				t.Logf("stderr of %s (%d):\n%s", p.name, i, p.stderr.tail())
			}
		}
	})
	if err := n.each(func(i int, _ *pubsubPeer) (err error) {
		n.peers[i], err = startPubSub(t, programs[i], i, args...)
		return err
	}); err != nil {
		return nil, err
	}
	if err := n.each(func(i int, p *pubsubPeer) error {
		for _, e := range edges {
			if e[0] == i {
				// Ten peers that start at once may be too slow for somebody's patience.
				err := p.do(contract.Command{Dial: n.peers[e[1]].hello.Addr})
				for try := 0; err != nil && try < 2; try++ {
					err = p.do(contract.Command{Dial: n.peers[e[1]].hello.Addr})
				}
				if err != nil {
					return fmt.Errorf("dial %s: %w", n.peers[e[1]].name, err)
				}
			}
		}
		return nil
	}); err != nil {
		return nil, err
	}
	return n, n.await(20*time.Second, func(i int, r contract.Report) string {
		neighbours := 0
		for _, e := range edges {
			if e[0] == i || e[1] == i {
				neighbours++
			}
		}
		if min(r.Peers, r.Mesh) >= neighbours {
			return ""
		}
		return fmt.Sprintf("knows %d of %d neighbours to be subscribed, and has %d in its mesh", r.Peers, neighbours, r.Mesh)
	})
}

// await asks all peers until lacks says nothing of any, or nothing has changed for so long.
func (n *pubsubNet) await(patience time.Duration, lacks func(i int, r contract.Report) string) error {
	var before string
	for end := time.Now().Add(patience); ; <-time.After(50 * time.Millisecond) {
		var mu sync.Mutex
		var missing []string
		if err := n.each(func(i int, p *pubsubPeer) error {
			if err := p.do(contract.Command{Report: true}); err != nil {
				return err
			}
			if l := lacks(i, p.last); l != "" {
				mu.Lock()
				defer mu.Unlock()
				missing = append(missing, fmt.Sprintf("%s (%d) %s", p.name, i, l))
			}
			return nil
		}); err != nil {
			return err
		}
		if len(missing) == 0 {
			return nil
		}
		slices.Sort(missing)
		if now := strings.Join(missing, "; "); now != before {
			before, end = now, time.Now().Add(patience)
		} else if time.Now().After(end) {
			return errors.New(now)
		}
	}
}

// publish has every peer publish so many messages of each size, and waits until every
// other peer has each of them, once.
func (n *pubsubNet) publish(small, large int, gap float64) error {
	for _, k := range []struct {
		add   uint32
		count int
		size  int
		gap   float64
	}{{0, small, smallSize, gap}, {bigFrom, large, bigSize, 50 * gap}} {
		if err := n.each(func(i int, p *pubsubPeer) error {
			return p.do(contract.Command{Publish: &contract.Publish{From: p.index + k.add, Count: uint32(k.count), Size: k.size, Gap: k.gap}})
		}); err != nil {
			return err
		}
		if err := n.await(n.patience, func(i int, r contract.Report) string {
			return n.lacks(i, r, k.add, k.count)
		}); err != nil {
			return fmt.Errorf("%d messages of %d bytes from each: %w", k.count, k.size, err)
		}
	}
	// Whatever comes a second time has come by the next heartbeats' gossip, of which the
	// stacks tell nothing.
	<-time.After(1500 * time.Millisecond)
	return n.each(func(i int, p *pubsubPeer) error {
		if err := p.do(contract.Command{Report: true}); err != nil {
			return err
		}
		if p.last.Again > 0 || p.last.Bad > 0 {
			return fmt.Errorf("%s (%d) got %d messages again and %d that were not as published", p.name, i, p.last.Again, p.last.Bad)
		}
		return nil
	})
}

// lacks says whose messages are missing.
func (n *pubsubNet) lacks(i int, r contract.Report, add uint32, count int) string {
	var missing []string
	for _, q := range n.peers {
		if got := r.Got[q.index+add]; q.index != uint32(i) && got < count {
			missing = append(missing, fmt.Sprintf("%d of %s (%d)", count-got, q.name, q.index))
		}
	}
	if missing == nil {
		return ""
	}
	return "lacks " + strings.Join(missing, ", ")
}

// A pubsubCell is a row of the table.
type pubsubCell struct {
	rank               int // in the table
	what, router, sign string
	notes              []string
	took               time.Duration
	err                error
	known              string // why it fails
}

// TestPubSub runs the networks of the pubsub table: each stack between two of plexus,
// which dial and are dialed, and ten peers of all stacks. INTEROP_WRITE=1 writes PUBSUB.md.
func TestPubSub(t *testing.T) {
	programs := make(map[string]*program)
	complete := true
	for _, name := range append([]string{"plexus"}, pubsubStacks...) {
		p, err := loadPubSub(t, name)
		if err != nil && name == "plexus" {
			t.Fatal(err)
		}
		if err != nil {
			complete = false
			t.Run(name, func(t *testing.T) { skip(t, "%v", err) })
			continue
		}
		programs[name] = p
	}
	begin := time.Now()
	var cells []*pubsubCell
	var mu sync.Mutex
	var versions sync.Map
	all := 0
	slots := make(chan struct{}, jobs())
	run := func(t *testing.T, c *pubsubCell, alone bool, f func(t *testing.T, c *pubsubCell) error) {
		c.rank = all
		all++
		t.Run(strings.ReplaceAll(c.what, " ", "-")+"/"+c.router+"-"+c.sign, func(t *testing.T) {
			if !alone {
				t.Parallel()
				slots <- struct{}{}
				defer func() { <-slots }()
			}
			mu.Lock()
			cells = append(cells, c) // those that -run has chosen
			mu.Unlock()
			start := time.Now()
			c.err = f(t, c)
			c.took = time.Since(start)
			switch c.known = pubsubKnown[c.what+"/"+c.router+"/"+c.sign]; {
			case c.known == "" && c.err != nil:
				t.Error(c.err)
			case c.known != "" && c.err == nil:
				t.Error("passes, but is known as a failure: ", c.known)
			case c.known != "":
				t.Logf("fails as expected (%s): %v", c.known, c.err)
			}
		})
	}
	args := func(c *pubsubCell) []string {
		return []string{"--router", c.router, "--sign", map[string]string{"signed": "yes", "unsigned": "no"}[c.sign]}
	}
	note := func(n *pubsubNet) {
		for _, p := range n.peers {
			versions.Store(p.hello.Name+" "+strings.TrimPrefix(p.hello.Version, "v"), true)
		}
	}

	t.Run("pairs", func(t *testing.T) {
		for _, name := range pubsubStacks {
			if programs[name] == nil {
				continue
			}
			for _, router := range []string{"gossipsub", "floodsub"} {
				for _, sign := range []string{"signed", "unsigned"} {
					run(t, &pubsubCell{what: name, router: router, sign: sign}, false, func(t *testing.T, c *pubsubCell) error {
						return pubsubPair(t, c, programs, args(c), note)
					})
				}
			}
		}
		if programs["go"] != nil {
			run(t, &pubsubCell{what: "go, partial messages", router: "gossipsub", sign: "signed"}, false, func(t *testing.T, c *pubsubCell) error {
				return pubsubParts(t, c, programs, append(args(c), "--partial", "yes"))
			})
		}
	})
	if complete {
		for _, c := range []*pubsubCell{
			{what: "ten of all", router: "gossipsub", sign: "signed"},
			{what: "ten of all", router: "gossipsub", sign: "unsigned"},
			{what: "ten of all", router: "floodsub", sign: "signed"},
		} {
			run(t, c, true, func(t *testing.T, c *pubsubCell) error { return pubsubTen(t, c, programs, args(c), note) })
		}
	}
	slices.SortFunc(cells, func(a, b *pubsubCell) int { return a.rank - b.rank })
	text := pubsubReport(cells, &versions)
	fmt.Print("\n", text)
	fmt.Printf("\n%d networks in %.0f s\n", len(cells), time.Since(begin).Seconds())
	if os.Getenv("INTEROP_WRITE") == "" {
		return
	}
	if !complete || t.Failed() || len(cells) < all {
		t.Error("PUBSUB.md is not written: this was not the whole table, or not all of it passed")
		return
	}
	if err := os.WriteFile("PUBSUB.md", []byte("# Pubsub interop\n\nWritten by `INTEROP_WRITE=1 go test -run TestPubSub`.\n"+text), 0o644); err != nil {
		t.Error(err)
	}
}

// pubsubPair has a peer of another stack between two of plexus: one dials it, it dials the
// other, and the two are connected as well, so that there is something to say by IDONTWANT.
func pubsubPair(t *testing.T, c *pubsubCell, programs map[string]*program, args []string, note func(*pubsubNet)) error {
	p := programs["plexus"]
	n, err := newPubSubNet(t, []*program{p, programs[c.what], p}, [][2]int{{0, 1}, {1, 2}, {0, 2}}, args...)
	if err != nil {
		return err
	}
	note(n)
	i := slices.IndexFunc(n.peers[0].hello.Protocols, func(p string) bool { return slices.Contains(n.peers[1].hello.Protocols, p) })
	if i < 0 {
		return fmt.Errorf("plexus and %s have no protocol in common", c.what)
	}
	c.notes = append(c.notes, n.peers[0].hello.Protocols[i])
	if pubsubKnown[c.what+"/"+c.router+"/"+c.sign] != "" {
		n.patience = 4 * time.Second
	}
	if err := n.publish(100, 5, 5); err != nil {
		return err
	}
	if c.router != "gossipsub" {
		return nil
	}
	ours, theirs := n.peers[0].last.DontWant+n.peers[2].last.DontWant, n.peers[1].last.DontWant
	if theirs < 0 {
		c.notes = append(c.notes, fmt.Sprintf("IDONTWANT: %d came to plexus", ours))
	} else {
		c.notes = append(c.notes, fmt.Sprintf("IDONTWANT: %d came to plexus, %d to %s", ours, theirs, c.what))
	}
	if ours == 0 || theirs == 0 {
		return fmt.Errorf("IDONTWANT: %d came to plexus, %d to %s", ours, theirs, c.what)
	}
	return nil
}

// pubsubParts has a message put together from parts that three peers have.
func pubsubParts(t *testing.T, c *pubsubCell, programs map[string]*program, args []string) error {
	p := programs["plexus"]
	n, err := newPubSubNet(t, []*program{p, programs["go"], p}, [][2]int{{0, 1}, {1, 2}}, args...)
	if err != nil {
		return err
	}
	if err := n.each(func(i int, p *pubsubPeer) error {
		return p.do(contract.Command{Parts: [][]int{{0, 1, 2}, {3, 4}, {5, 6, 7}}[i]})
	}); err != nil {
		return err
	}
	c.notes = append(c.notes, "/meshsub/1.3.0", fmt.Sprintf("%d parts", contract.PartCount))
	return n.await(10*time.Second, func(_ int, r contract.Report) string {
		if len(r.Parts) == contract.PartCount {
			return ""
		}
		return fmt.Sprintf("has parts %v only", r.Parts)
	})
}

// pubsubTen has ten peers publish 1,000 messages of 1 KiB and 20 of 512 KiB.
func pubsubTen(t *testing.T, c *pubsubCell, programs map[string]*program, args []string, note func(*pubsubNet)) error {
	var all []*program
	names := []string{"plexus", "go", "js", "rust", "py", "plexus", "go", "js", "rust", "plexus"}
	if pubsubKnown["py/"+c.router+"/"+c.sign] != "" {
		names[4] = "go"
		c.notes = append(c.notes, "without py, whose row says why")
	}
	if c.router == "floodsub" {
		names[2], names[7] = "py", "go"
		c.notes = append(c.notes, "without js: @libp2p/floodsub 11.0.28 leaves out leading zeros of sequence numbers, so that libp2p-gossipsub refuses one message of it in 256, and it refuses all of py-libp2p")
	}
	for _, name := range names {
		all = append(all, programs[name])
	}
	var edges [][2]int
	for i := range all {
		for _, far := range []int{1, 3} {
			edges = append(edges, [2]int{i, (i + far) % len(all)})
		}
	}
	n, err := newPubSubNet(t, all, edges, args...)
	if err != nil {
		return err
	}
	note(n)
	return n.publish(100, 2, 30)
}

// pubsubReport is the table.
func pubsubReport(cells []*pubsubCell, versions *sync.Map) string {
	var b strings.Builder
	list := make(map[string]bool)
	versions.Range(func(v, _ any) bool { list[v.(string)] = true; return true })
	fmt.Fprintf(&b, `
%s. In the rows that name a stack, one peer of it stands between two of plexus, one of which
dials it and one of which it dials; the two are connected too. Each publishes 100 messages of 1 KiB and 5 of 512 KiB. In "ten of all"
there are three of plexus, two each of go, js and rust, and one of py, if no note says otherwise, each with four neighbours, and they publish 1,000 messages of
1 KiB and 20 of 512 KiB. A row is ok when every peer has got each message of the others exactly once and unchanged.

`, strings.Join(slices.Sorted(maps.Keys(list)), ", "))
	b.WriteString("| peers | router | messages | result | seconds | |\n|---|---|---|---|---:|---|\n")
	for _, c := range cells {
		result := "ok"
		if c.known != "" {
			result = "known: " + c.known
		} else if c.err != nil {
			result = "**FAIL** " + strings.ReplaceAll(c.err.Error(), "\n", " ")
		}
		fmt.Fprintf(&b, "| %s | %s | %s | %s | %.1f | %s |\n", c.what, c.router, c.sign, result, c.took.Seconds(), cmp.Or(strings.Join(c.notes, "; "), " "))
	}
	return b.String()
}
