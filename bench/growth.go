package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
)

// The order in this file is that of a run: what a client does, what the parent asks
// for, what it writes. plot.go draws it.

// growthStacks are plotted beside each other.
var growthStacks = []string{"plexus/noise", "go-libp2p/noise"}

// protoHold echoes with a buffer of holdSize bytes, so that an idle handler weighs little.
const (
	protoHold = "/bench/hold/1.0.0"
	holdSize  = 1 << 10
)

// held is what a client keeps open between orders.
type held struct {
	conns   []conn
	streams []stream // on the first connection
}

// growths are the orders that have an N. They return how many operations they did.
var growths = map[string]func(h *held, ctx context.Context, s impl, addr string, o order) (float64, error){
	"hold connections": (*held).connect,
	"hold streams":     (*held).open,
	"echo on streams":  (*held).echo,
	"echo a message":   (*held).message,
}

// connect dials until there are N connections, and echoes a byte on each, so that the
// server has them, too.
func (h *held) connect(ctx context.Context, s impl, addr string, o order) (float64, error) {
	have := len(h.conns)
	h.conns = append(h.conns, make([]conn, max(0, o.N-have))...)
	return atOnce(16, o.N-have, func(i int) (float64, error) {
		c, err := s.dial(ctx, addr)
		if err != nil {
			return 0, err
		}
		h.conns[have+i] = c
		st, err := c.open(ctx, protoHold)
		if err != nil {
			return 0, err
		}
		defer st.Close()
		return 1, trip(st, 1)()
	})
}

// open opens streams until there are N.
func (h *held) open(ctx context.Context, s impl, addr string, o order) (float64, error) {
	if _, err := h.connect(ctx, s, addr, order{N: 1}); err != nil {
		return 0, err
	}
	have := len(h.streams)
	h.streams = append(h.streams, make([]stream, max(0, o.N-have))...)
	return atOnce(64, o.N-have, func(i int) (float64, error) {
		st, err := h.conns[0].open(ctx, protoHold)
		if err != nil {
			return 0, err
		}
		h.streams[have+i] = st
		return 1, trip(st, 1)()
	})
}

// echo makes round trips of holdSize bytes on N streams at once.
func (h *held) echo(_ context.Context, _ impl, _ string, o order) (float64, error) {
	return atOnce(o.N, o.N, func(i int) (float64, error) {
		return until(o.Time, trip(h.streams[i], holdSize))
	})
}

// message makes round trips of N bytes on one stream.
func (h *held) message(ctx context.Context, s impl, addr string, o order) (float64, error) {
	if _, err := h.connect(ctx, s, addr, order{N: 1}); err != nil {
		return 0, err
	}
	st, err := h.conns[0].open(ctx, protoEcho)
	if err != nil {
		return 0, err
	}
	defer st.Close()
	return until(o.Time, trip(st, o.N))
}

// trip returns a function that echoes n bytes. The server sends what it has while more
// comes: beyond its buffer somebody has to read meanwhile.
func trip(st stream, n int) func() error {
	out, in := make([]byte, n), make([]byte, n)
	write := func() error { _, err := st.Write(out); return err }
	return func() error {
		if n <= bufSize {
			if err := write(); err != nil {
				return err
			}
			_, err := io.ReadFull(st, in)
			return err
		}
		wrote := make(chan error, 1)
		go func() { wrote <- write() }()
		_, err := io.ReadFull(st, in)
		return cmp.Or(err, <-wrote)
	}
}

// atOnce calls f with 0 to n-1, so many calls at once, and adds up what they return.
func atOnce(calls, n int, f func(i int) (float64, error)) (float64, error) {
	var next atomic.Int64
	type result struct {
		ops float64
		err error
	}
	results := make(chan result, calls)
	for range calls {
		go func() {
			var r result
			for i := int(next.Add(1)) - 1; i < n && r.err == nil; i = int(next.Add(1)) - 1 {
				var ops float64
				ops, r.err = f(i)
				r.ops += ops
			}
			results <- r
		}()
	}
	var sum result
	for range calls {
		r := <-results
		sum.ops += r.ops
		sum.err = cmp.Or(sum.err, r.err)
	}
	return sum.ops, sum.err
}

// weigh adds what the process holds.
func (r *report) weigh() {
	for range 3 { // what pools hold goes with the second
		runtime.GC()
	}
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	r.Bytes, r.Goroutines = float64(m.HeapAlloc+m.StackInuse), float64(runtime.NumGoroutine())
}

// A growth is how costs change with x.
type growth struct {
	name, x string
	note    string
	xs      []int
	metrics []*metric
}

// A metric has, for each stack, a value for each x. One that is not a number was not
// measured.
type metric struct {
	name, unit string
	y          map[string][]float64
}

func (g *growth) metric(name, unit string) *metric {
	m := &metric{name, unit, make(map[string][]float64)}
	g.metrics = append(g.metrics, m)
	return m
}

func (m *metric) title() string {
	if m.unit == "" {
		return m.name
	}
	return m.name + ", " + m.unit
}

func (m *metric) add(stack string, v float64) { m.y[stack] = append(m.y[stack], v) }

// growthConfig is how far to go.
type growthConfig struct {
	conns, streams, sizes ints
	idle, each            time.Duration
	rounds                int
	md                    string
}

// spareFiles are descriptors for other things than connections.
const spareFiles = 100

// grow plots how the costs of growthStacks grow.
func grow(cfg growthConfig) error {
	runtime.LockOSThread() // children die with the thread that started them
	begin := time.Now()
	conns, err := growConns(cfg)
	if err != nil {
		return err
	}
	streams, err := growStreams(cfg)
	if err != nil {
		return err
	}
	sizes, err := growSizes(cfg)
	if err != nil {
		return err
	}
	all := []*growth{conns, streams, sizes}
	table := growthTables(all)
	fmt.Print(table)
	fmt.Fprintf(os.Stderr, "%.0f s\n", time.Since(begin).Seconds())
	svg := strings.TrimSuffix(cfg.md, ".md") + ".svg"
	if err := os.WriteFile(svg, []byte(plotGrowth(all)), 0o644); err != nil {
		return err
	}
	head := fmt.Sprintf("# How costs grow\n\nWritten by `make growth`: plexus beside go-libp2p v0.51 on TCP with Noise and yamux, "+
		"server and client in processes of their own, on %s. Memory is live heap and stacks; "+
		"rates are medians of %d interleaved rounds of %v. Each cell is plexus / go-libp2p.\n\n![plots](%s)\n\n",
		machine(), cfg.rounds, cfg.each, filepath.Base(svg))
	return os.WriteFile(cfg.md, []byte(head+table), 0o644)
}

// growthPairs starts a pair of each stack.
func growthPairs() (pairs map[string]*pair, stop func(), err error) {
	pairs = make(map[string]*pair)
	stop = func() {
		for _, p := range pairs {
			p.stop()
		}
	}
	for _, stack := range growthStacks {
		if pairs[stack], err = startPair(stack, ""); err != nil {
			delete(pairs, stack)
			stop()
			return nil, nil, err
		}
	}
	return pairs, stop, nil
}

// both asks both ends.
func (p *pair) both(o order) (server, client report, err error) {
	if server, err = ask(p.server, o); err == nil {
		client, err = ask(p.client, o)
	}
	return server, client, err
}

func growConns(cfg growthConfig) (*growth, error) {
	g := &growth{name: "Idle connections", x: "connections"}
	g.note = fmt.Sprintf("Idle for %v, which has the first ping on all connections if it is 30 s or more. go-libp2p's further ones come each 30 s, plexus' each 2 min.", cfg.idle)
	var files syscall.Rlimit // Go has raised it to the hard limit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &files); err != nil {
		return nil, err
	}
	fit := int(min(files.Cur, 1<<30)) - spareFiles
	for _, n := range cfg.conns {
		if n > fit {
			g.note += fmt.Sprintf(" %d do not fit into the limit of %d open files a process.", n, files.Cur)
			n = fit
		}
		if len(g.xs) == 0 || n > g.xs[len(g.xs)-1] {
			g.xs = append(g.xs, n)
		}
	}
	pairs, stop, err := growthPairs()
	if err != nil {
		return nil, err
	}
	defer stop()
	w := newWeights(g, "connection")
	cpu := g.metric("CPU idle, both ends", "ms/s")
	if err := w.base(pairs, "hold connections"); err != nil {
		return nil, err
	}
	for _, n := range g.xs {
		before := make(map[string]float64)
		for _, stack := range growthStacks {
			s, c, err := w.hold(pairs[stack], stack, "hold connections", n)
			if err != nil {
				return nil, err
			}
			before[stack] = s.CPU + c.CPU
		}
		time.Sleep(cfg.idle)
		for _, stack := range growthStacks {
			s, c, err := pairs[stack].both(order{})
			if err != nil {
				return nil, err
			}
			cpu.add(stack, (s.CPU+c.CPU-before[stack])/cfg.idle.Seconds()*1e3)
		}
		fmt.Fprintf(os.Stderr, "%d connections\n", n)
	}
	return g, nil
}

func growStreams(cfg growthConfig) (*growth, error) {
	g := &growth{name: "Streams on one connection", x: "streams", xs: cfg.streams}
	g.note = fmt.Sprintf("The server's share has the handler's goroutine and its buffer of %d bytes.", holdSize)
	pairs, stop, err := growthPairs()
	if err != nil {
		return nil, err
	}
	defer stop()
	w := newWeights(g, "idle stream")
	if err := w.base(pairs, "hold streams"); err != nil {
		return nil, err
	}
	for _, n := range g.xs {
		for _, stack := range growthStacks {
			if _, _, err := w.hold(pairs[stack], stack, "hold streams", n); err != nil {
				return nil, err
			}
		}
		fmt.Fprintf(os.Stderr, "%d streams\n", n)
	}
	return g, growRates(cfg, g, pairs, "echo on streams", fmt.Sprintf("echo of %d B on all", holdSize))
}

func growSizes(cfg growthConfig) (*growth, error) {
	g := &growth{name: "Size of a message", x: "bytes", xs: cfg.sizes, note: "Echoed on one stream, one after the other."}
	pairs, stop, err := growthPairs()
	if err != nil {
		return nil, err
	}
	defer stop()
	if err := growRates(cfg, g, pairs, "echo a message", "echo"); err != nil {
		return nil, err
	}
	through := g.metric("echo, one way", "MB/s")
	for stack, rates := range g.metrics[0].y {
		for i, rate := range rates {
			through.add(stack, rate*float64(g.xs[i])/1e6)
		}
	}
	return g, nil
}

// growRates adds the rate and the CPU time of a load over g.xs.
func growRates(cfg growthConfig, g *growth, pairs map[string]*pair, load, what string) error {
	rates := g.metric(what, "/s")
	cpu := g.metric(what+", CPU of both ends", "µs")
	for _, x := range g.xs {
		samples := make(map[string][]sample)
		for round := range cfg.rounds + 1 {
			for _, stack := range growthStacks {
				d := cfg.each
				if round == 0 { // warms up
					d /= 5
				}
				s, err := pairs[stack].run(order{Load: load, Time: d, N: x})
				if err != nil {
					return fmt.Errorf("%s: %s: %d: %w", stack, load, x, err)
				}
				if round > 0 {
					samples[stack] = append(samples[stack], s)
				}
			}
		}
		for _, stack := range growthStacks {
			rate, _, _ := spread(samples[stack], func(s sample) float64 { return s.rate })
			used, _, _ := spread(samples[stack], func(s sample) float64 { return s.cpu })
			rates.add(stack, rate)
			cpu.add(stack, used*1e6)
		}
		fmt.Fprintf(os.Stderr, "%s: %d\n", load, x)
	}
	return nil
}

// fewest is of how many the weight is more than noise.
const fewest = 10

// weights are the metrics of what is held: by each, above what there was with one.
type weights struct {
	server, client, goroutines *metric
	bases                      map[string][2]report
}

func newWeights(g *growth, what string) *weights {
	return &weights{
		server:     g.metric("memory per "+what+", server", "KiB"),
		client:     g.metric("memory per "+what+", client", "KiB"),
		goroutines: g.metric("goroutines per "+what+", server", ""),
		bases:      make(map[string][2]report),
	}
}

// base has each stack hold one: what is made once and kept is there then.
func (w *weights) base(pairs map[string]*pair, load string) error {
	for stack, p := range pairs {
		s, c, err := p.hold(load, 1)
		if err != nil {
			return err
		}
		w.bases[stack] = [2]report{s, c}
	}
	return nil
}

func (w *weights) hold(p *pair, stack, load string, n int) (server, client report, err error) {
	s, c, err := p.hold(load, n+1)
	if err != nil {
		return s, c, fmt.Errorf("%s: %s: %d: %w", stack, load, n, err)
	}
	if n < fewest {
		for _, m := range []*metric{w.server, w.client, w.goroutines} {
			m.add(stack, math.NaN())
		}
		return s, c, nil
	}
	base := w.bases[stack]
	w.server.add(stack, (s.Bytes-base[0].Bytes)/float64(n)/1024)
	w.client.add(stack, (c.Bytes-base[1].Bytes)/float64(n)/1024)
	w.goroutines.add(stack, (s.Goroutines-base[0].Goroutines)/float64(n))
	return s, c, nil
}

// hold has the client hold n, and weighs both ends.
func (p *pair) hold(load string, n int) (server, client report, err error) {
	if _, err := p.run(order{Load: load, N: n}); err != nil {
		return server, client, err
	}
	return p.both(order{Weigh: true})
}

func growthTables(all []*growth) string {
	var b strings.Builder
	for _, g := range all {
		fmt.Fprintf(&b, "## %s\n\n%s\n\n| %s |", g.name, g.note, g.x)
		for _, m := range g.metrics {
			fmt.Fprintf(&b, " %s |", m.title())
		}
		fmt.Fprintf(&b, "\n|%s\n", strings.Repeat("---:|", 1+len(g.metrics)))
		for i, x := range g.xs {
			fmt.Fprintf(&b, "| %d |", x)
			for _, m := range g.metrics {
				fmt.Fprintf(&b, " %s / %s |", short(m.y[growthStacks[0]][i]), short(m.y[growthStacks[1]][i]))
			}
			b.WriteByte('\n')
		}
		b.WriteByte('\n')
	}
	return b.String()
}

// short writes v with three digits or more.
func short(v float64) string {
	switch {
	case math.IsNaN(v):
		return "–"
	case v >= 100:
		return strconv.FormatFloat(v, 'f', 0, 64)
	case v >= 1:
		return strconv.FormatFloat(v, 'f', 1, 64)
	}
	return strconv.FormatFloat(v, 'g', 3, 64)
}

// ints is a flag: numbers in rising order, with commas.
type ints []int

func (v *ints) String() string {
	return strings.Trim(strings.ReplaceAll(fmt.Sprint([]int(*v)), " ", ","), "[]")
}

func (v *ints) Set(s string) error {
	*v = nil
	for f := range strings.SplitSeq(s, ",") {
		n, err := strconv.Atoi(f)
		if err != nil || n < 1 {
			return fmt.Errorf("%q is not a number above 0", f)
		}
		*v = append(*v, n)
	}
	return nil
}
