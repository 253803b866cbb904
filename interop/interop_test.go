//go:build linux

// Package interop runs plexus against other people's libp2p: go-, js-, rust- and
// py-libp2p, each in both directions, over every transport, security and muxer that
// both have. README.md says how.
package interop

import (
	"cmp"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/plexus-p2p/plexus/interop/contract"
)

const allPairs = "plexus:plexus,plexus:go,plexus:js,plexus:rust,plexus:py"

// offers are all ways to connect. On TCP every security meets every muxer; what
// differs above another transport is little.
var offers = []contract.Offer{
	{Transport: "tcp", Security: "noise", Muxer: "yamux"},
	{Transport: "tcp", Security: "noise", Muxer: "mplex"},
	{Transport: "tcp", Security: "tls", Muxer: "yamux"},
	{Transport: "tcp", Security: "tls", Muxer: "mplex"},
	{Transport: "tcp", Security: "plaintext", Muxer: "yamux"},
	{Transport: "tcp", Security: "plaintext", Muxer: "mplex"},
	{Transport: "ws", Security: "noise", Muxer: "yamux"},
	{Transport: "ws", Security: "tls", Muxer: "yamux"},
	{Transport: "wss", Security: "noise", Muxer: "yamux"},
	{Transport: "quic", Security: contract.Own, Muxer: contract.Own},
	{Transport: "webtransport", Security: contract.Own, Muxer: contract.Own},
	{Transport: "webrtc-direct", Security: contract.Own, Muxer: contract.Own},
}

// An expectation is a failure that we know. It holds for the cells and checks
// that match; "*" matches all. If a check of such a cell passes, that fails
// the test as well, unless it is one that passes at times.
type expectation struct {
	Dialer, Listener, Transport, Security, Muxer, Check string
	Sometimes                                           bool
	Reason                                              string
}

// A cell is one dialer against one listener over one transport, security and muxer.
type cell struct {
	rank             int // in the table
	dialer, listener *program
	offer            contract.Offer

	// After run.
	results map[string]contract.Result
	known   map[string]*expectation // the failures that we know
	failed  bool
}

func (c *cell) name() string {
	return fmt.Sprintf("%s-%s/%s", c.dialer.name, c.listener.name, c.offer)
}

// TestMatrix is the matrix. INTEROP_PAIRS, INTEROP_CHECKS and INTEROP_WRITE steer it.
func TestMatrix(t *testing.T) {
	checks := contract.Checks
	if s := os.Getenv("INTEROP_CHECKS"); s != "" {
		checks = strings.Split(s, ",")
	}
	var expected []*expectation
	if b, err := os.ReadFile("expect.json"); err != nil {
		t.Fatal(err)
	} else if err := json.Unmarshal(b, &expected); err != nil {
		t.Fatal("expect.json: ", err)
	}

	programs := make(map[string]*program)
	var cells []*cell
	var missing []string // combinations that do not exist, and why
	complete := true
	cert := selfSigned(t)
	for pair := range strings.SplitSeq(cmp.Or(os.Getenv("INTEROP_PAIRS"), allPairs), ",") {
		a, b, _ := strings.Cut(pair, ":")
		var err error
		for _, name := range []string{a, b} {
			if programs[name] == nil && err == nil {
				programs[name], err = load(t, name)
			}
		}
		if err != nil {
			complete = false
			t.Run(a+"-"+b, func(t *testing.T) { skip(t, "%v", err) })
			continue
		}
		pa, pb := programs[a], programs[b]
		directions := [][2]*program{{pa, pb}, {pb, pa}}
		if a == b {
			directions = directions[:1]
		}
		for _, d := range directions {
			for _, o := range offers {
				if why := lacks(d[0], d[1], o); why == "" {
					o.Cert = cert
					cells = append(cells, &cell{rank: len(cells), dialer: d[0], listener: d[1], offer: o})
				} else if why = fmt.Sprintf("%s ↔ %s: %s", a, b, why); !slices.Contains(missing, why) {
					missing = append(missing, why)
				}
			}
		}
	}

	start := time.Now()
	slots := make(chan struct{}, jobs())
	var ran []*cell // those that -run has chosen
	var mu sync.Mutex
	t.Run("cells", func(t *testing.T) {
		for _, c := range cells {
			t.Run(c.name(), func(t *testing.T) {
				t.Parallel()
				slots <- struct{}{}
				defer func() { <-slots }()
				mu.Lock()
				ran = append(ran, c)
				mu.Unlock()
				c.run(t, checks, expected)
			})
		}
	})
	slices.SortFunc(ran, func(x, y *cell) int { return x.rank - y.rank })

	if len(ran) == 0 {
		return
	}
	text := report(ran, checks, missing)
	fmt.Print("\n", text)
	fmt.Printf("\n%d combinations in %.0f s\n", len(ran), time.Since(start).Seconds())
	if os.Getenv("INTEROP_WRITE") == "" {
		return
	}
	if !complete || len(ran) < len(cells) || os.Getenv("INTEROP_PAIRS")+os.Getenv("INTEROP_CHECKS") != "" {
		t.Error("RESULTS.md is not written: this was not the whole matrix")
		return
	}
	head := "# Interop results\n\nWritten by `INTEROP_WRITE=1 go test`; README.md says what the checks are.\n"
	if err := os.WriteFile("RESULTS.md", []byte(head+text), 0o644); err != nil {
		t.Error(err)
	}
}

// lacks says which side of a pair lacks what an offer needs, or nothing.
func lacks(a, b *program, o contract.Offer) string {
	for _, p := range []*program{a, b} {
		switch {
		case !slices.Contains(p.Transport, o.Transport):
			return p.String() + " has no " + o.Transport
		case o.Security != contract.Own && !slices.Contains(p.Security, o.Security):
			return p.String() + " has no " + o.Security
		case o.Muxer != contract.Own && !slices.Contains(p.Muxer, o.Muxer):
			return p.String() + " has no " + o.Muxer
		}
	}
	return ""
}

func (c *cell) run(t *testing.T, checks []string, expected []*expectation) {
	l, err := listen(t.Context(), c.listener, c.offer)
	if err != nil {
		c.failed = true
		t.Fatal(err)
	}
	results, dialer, err := dial(t.Context(), c.dialer, l.addr, c.offer, checks)
	c.results, c.known = results, make(map[string]*expectation)
	if err != nil {
		t.Errorf("the dialer did not end well: %v", err)
	}
	unconnected := false
	for _, check := range checks {
		r, printed := results[check]
		e := c.expectation(expected, check)
		switch {
		case r.OK && (e == nil || e.Sometimes):
		case r.OK:
			t.Errorf("%s passes, but expect.json knows it as a failure: %s", check, e.Reason)
		case unconnected && check != "wrongpeer":
			// The failure of connect is judged already.
		case e != nil:
			c.known[check] = e
			t.Logf("%s fails as expected (%s): %s", check, e.Reason, r.Detail)
		case !printed:
			t.Errorf("%s: no result", check)
		default:
			t.Errorf("%s: %s", check, r.Detail)
		}
		unconnected = unconnected || check == "connect" && !r.OK
	}
	if err := l.stop(); err != nil {
		t.Error(err)
	}
	if c.failed = t.Failed(); c.failed {
		t.Logf("stderr of the dialer %s:\n%s", c.dialer.name, dialer.stderr.tail())
		t.Logf("stderr of the listener %s:\n%s", c.listener.name, l.stderr.tail())
	}
}

func (c *cell) expectation(all []*expectation, check string) *expectation {
	match := func(pattern, s string) bool { return pattern == "*" || pattern == s }
	for _, e := range all {
		if match(e.Dialer, c.dialer.name) && match(e.Listener, c.listener.name) &&
			match(e.Transport, c.offer.Transport) && match(e.Security, c.offer.Security) &&
			match(e.Muxer, c.offer.Muxer) && match(e.Check, check) {
			return e
		}
	}
	return nil
}

// report is the Markdown table with its notes.
func report(cells []*cell, checks, missing []string) string {
	var b strings.Builder
	versions := make(map[string]bool)
	for _, c := range cells {
		versions[c.dialer.String()], versions[c.listener.String()] = true, true
	}
	list := make([]string, 0, len(versions))
	for v := range versions {
		list = append(list, v)
	}
	slices.Sort(list)
	fmt.Fprintf(&b, "\n%s. Times in ms; perf is MB/s up / down, 64 MiB each. %d cells run at once.\n\n", strings.Join(list, ", "), jobs())

	var notes []string
	note := func(s string) string {
		i := slices.Index(notes, s)
		if i < 0 {
			i = len(notes)
			notes = append(notes, s)
		}
		return fmt.Sprintf("[%d]", i+1)
	}
	fmt.Fprintf(&b, "| dialer → listener | transport | security | muxer | %s |\n", strings.Join(checks, " | "))
	fmt.Fprintf(&b, "|%s\n", strings.Repeat("---|", 4+len(checks)))
	for _, c := range cells {
		fmt.Fprintf(&b, "| %s → %s | %s | %s | %s |", c.dialer.name, c.listener.name,
			c.offer.Transport, c.offer.Security, c.offer.Muxer)
		for _, check := range checks {
			r := c.results[check]
			switch {
			case r.OK && check == "perf":
				var up, down float64
				fmt.Sscanf(r.Detail, "up %f down %f", &up, &down)
				fmt.Fprintf(&b, " %.0f / %.0f |", up, down)
			case r.OK:
				fmt.Fprintf(&b, " %.1f |", r.MS)
			case c.known[check] != nil:
				fmt.Fprintf(&b, " known %s |", note(c.known[check].Reason))
			case strings.Contains(r.Detail, "not run: no connection"):
				b.WriteString(" – |")
			default:
				fmt.Fprintf(&b, " **FAIL** %s |", note(cmp.Or(strings.ReplaceAll(r.Detail, "\n", " "), "no result")))
			}
		}
		b.WriteString("\n")
	}
	for i, n := range notes {
		fmt.Fprintf(&b, "\n[%d] %s\n", i+1, n)
	}
	if len(missing) > 0 {
		b.WriteString("\nCombinations that do not exist:\n\n")
		for _, m := range missing {
			fmt.Fprintf(&b, "- %s\n", m)
		}
	}
	return b.String()
}
