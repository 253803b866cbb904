package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"runtime/pprof"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/plexus-p2p/plexus/bench/internal/child"
)

func main() {
	var (
		rounds = flag.Int("rounds", 5, "how often each load runs on each stack")
		each   = flag.Duration("time", time.Second, "how long a load runs each time")
		only   = flag.String("only", "", "run loads whose name matches this `regexp`")
		stack  = flag.String("stack", "", "run them on stacks whose name matches this `regexp`")
		mixed  = flag.Bool("mixed", false, "run them between plexus and go-libp2p, too: stacks named client>server/kind")
		md     = flag.String("md", "", "write the table to this `file`, and a plot beside it")
		growth = flag.String("growth", "", "plot how costs grow instead, into this `file` and a plot beside it")
		prof   = flag.String("profile", "", "write CPU profiles of all processes into this `folder`")
		server = flag.String("server", "", "be the server of a `stack`; for internal use")
		client = flag.String("client", "", "be a client of a `stack`; for internal use")
		addr   = flag.String("addr", "", "the server's address; for internal use")
	)
	g := growthConfig{conns: ints{10, 100, 1000, 5000, 10_000}, streams: ints{1, 10, 100, 1000, 10_000}, sizes: ints{1, 16, 256, 4 << 10, 64 << 10, 1 << 20}}
	flag.Var(&g.conns, "conns", "with -growth: `numbers` of connections")
	flag.Var(&g.streams, "streams", "with -growth: `numbers` of streams")
	flag.Var(&g.sizes, "sizes", "with -growth: `sizes` of messages")
	flag.DurationVar(&g.idle, "idle", 30*time.Second, "with -growth: how long connections idle")
	flag.Parse()
	var err error
	switch {
	case *server != "":
		err = profiled(*prof, *server+"-server", func() error { return work(*server, "") })
	case *client != "":
		err = profiled(*prof, *client+"-client", func() error { return work(*client, *addr) })
	case *growth != "":
		g.rounds, g.each, g.md = *rounds, *each, *growth
		err = grow(g)
	default:
		err = compare(*rounds, *each, *only, *stack, *mixed, *md, *prof)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// order is what a worker is told, and report what it answers, a JSON value a line.
type order struct {
	Load  string // "" asks for the CPU time alone
	Time  time.Duration
	N     int  // of a load that grows
	Weigh bool // tell what the process holds
}

type report struct {
	Addr string  `json:",omitempty"` // of a server, once
	Ops  float64 // operations
	Secs float64 // that they took
	CPU  float64 // seconds that this process has used so far

	Bytes, Goroutines float64 // if Weigh

	Err string `json:",omitempty"`
}

// work is what a server or client process does until its standard input ends.
func work(stack, addr string) error {
	mk := stacks[stack]
	if mk == nil {
		return fmt.Errorf("no stack %q", stack)
	}
	s, err := mk()
	if err != nil {
		return err
	}
	out := json.NewEncoder(os.Stdout)
	if addr == "" {
		a, err := s.listen()
		if err != nil {
			return err
		}
		out.Encode(report{Addr: a})
	}
	in := json.NewDecoder(os.Stdin)
	var h held
	for {
		var o order
		if err := in.Decode(&o); err == io.EOF {
			return nil
		} else if err != nil {
			return err
		}
		var r report
		begin := time.Now()
		var err error
		if i := slices.IndexFunc(loads, func(l load) bool { return l.name == o.Load }); i >= 0 {
			r.Ops, err = loads[i].run(context.Background(), s, addr, o.Time)
		} else if f := growths[o.Load]; f != nil {
			r.Ops, err = f(&h, context.Background(), s, addr, o)
		}
		r.Secs = time.Since(begin).Seconds()
		if err != nil {
			r.Err = err.Error()
		}
		if o.Weigh {
			r.weigh()
		}
		r.CPU = cpuTime()
		out.Encode(r)
	}
}

// profiled runs f and keeps where its CPU time went, if dir is not empty.
func profiled(dir, name string, f func() error) error {
	if dir == "" {
		return f()
	}
	file, err := os.Create(filepath.Join(dir, strings.ReplaceAll(name, "/", "-")+".pprof"))
	if err != nil {
		return err
	}
	defer file.Close()
	if err := pprof.StartCPUProfile(file); err != nil {
		return err
	}
	defer pprof.StopCPUProfile()
	return f()
}

func cpuTime() float64 {
	var u syscall.Rusage
	syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return float64(u.Utime.Nano()+u.Stime.Nano()) / 1e9
}

// ask gives a process an order.
func ask(w *child.Process, o order) (r report, err error) {
	err = w.Ask(o, &r)
	return r, err
}

// pair is the server and the client of a stack.
type pair struct{ server, client *child.Process }

// startPair starts them. A stack called "a>b/kind" is a client of a and a server of b.
func startPair(stack, prof string) (*pair, error) {
	client, server := stack, stack
	if a, b, ok := strings.Cut(stack, ">"); ok {
		_, kind, _ := strings.Cut(b, "/")
		client, server = a+"/"+kind, b
	}
	s, err := child.Start("-profile", prof, "-server", server)
	if err != nil {
		return nil, err
	}
	var r report
	if err := s.Hear(&r); err != nil {
		return nil, fmt.Errorf("%s: server: %w", server, err)
	}
	c, err := child.Start("-profile", prof, "-client", client, "-addr", r.Addr)
	if err != nil {
		return nil, err
	}
	return &pair{s, c}, nil
}

func (p *pair) stop() {
	for _, w := range []*child.Process{p.server, p.client} {
		w.End()
		w.Wait()
	}
}

// run has the client carry out o.
func (p *pair) run(o order) (sample, error) {
	before, err := ask(p.server, order{})
	if err != nil {
		return sample{}, err
	}
	cbefore, err := ask(p.client, order{})
	if err != nil {
		return sample{}, err
	}
	r, err := ask(p.client, o)
	if err != nil {
		return sample{}, err
	}
	if r.Err != "" {
		return sample{}, errors.New(r.Err)
	}
	after, err := ask(p.server, order{})
	return sample{r.Ops / r.Secs, (after.CPU - before.CPU + r.CPU - cbefore.CPU) / r.Ops}, err
}

func compare(rounds int, each time.Duration, only, on string, mixed bool, md, prof string) error {
	runtime.LockOSThread() // children die with the thread that started them
	match, err := regexp.Compile(only)
	if err != nil {
		return err
	}
	matchStack, err := regexp.Compile(on)
	if err != nil {
		return err
	}
	pairs := make(map[string]*pair)
	defer func() {
		for _, p := range pairs {
			p.stop()
		}
	}()
	samples := make(map[cell][]sample)
	for round := range rounds + 1 { // the first one warms up
		for _, l := range loads {
			if !match.MatchString(l.name) {
				continue
			}
			for _, stack := range l.stacks(mixed) {
				if !matchStack.MatchString(stack) {
					continue
				}
				p := pairs[stack]
				if p == nil {
					if p, err = startPair(stack, prof); err != nil {
						return err
					}
					pairs[stack] = p
				}
				d := each
				if round == 0 {
					d = each / 5
				}
				s, err := p.run(order{Load: l.name, Time: d})
				if err != nil {
					return fmt.Errorf("%s: %s: %w", stack, l.name, err)
				}
				if round > 0 {
					c := cell{l.name, stack}
					samples[c] = append(samples[c], s)
				}
			}
		}
		fmt.Fprintf(os.Stderr, "round %d of %d\n", round, rounds)
	}

	all := rows(samples)
	table := markdown(all)
	fmt.Print(table)
	if md == "" {
		return nil
	}
	if err := os.WriteFile(strings.TrimSuffix(md, ".md")+".svg", []byte(plot(all)), 0o644); err != nil {
		return err
	}
	head, target := "# plexus beside go-libp2p", "bench"
	if mixed {
		head, target = head+", and with it", "bench-mixed"
	}
	head += fmt.Sprintf("\n\nWritten by `make %s`: %d interleaved rounds of %v on %s.\n\n![ratios](%s.svg)\n\n",
		target, rounds, each, machine(), strings.TrimSuffix(filepath.Base(md), ".md"))
	return os.WriteFile(md, []byte(head+table), 0o644)
}

// machine says what a run was made on, and how busy that was: three or so are its own.
func machine() string {
	s := fmt.Sprintf("%d cores, %s", runtime.NumCPU(), runtime.Version())
	if b, err := os.ReadFile("/proc/loadavg"); err == nil {
		if f := strings.Fields(string(b)); len(f) > 1 {
			s += ", with a load average of " + f[1] + " at the end"
		}
	}
	return s
}

// stacks are those that the load runs on, those to compare next to each other.
func (l load) stacks(mixed bool) (names []string) {
	for _, kind := range l.among {
		names = append(names, "plexus/"+kind, "go-libp2p/"+kind)
		if mixed {
			names = append(names, "plexus>go-libp2p/"+kind, "go-libp2p>plexus/"+kind)
		}
		if (l.floor || kind == "quic") && kind != "ws" && kind != "webtransport" && kind != "webrtc" { // QUIC has streams
			names = append(names, "floor/"+kind)
		}
	}
	if l.floor {
		names = append(names, "floor/tcp")
	}
	return names
}
