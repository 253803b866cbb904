package main

import (
	"bufio"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"
)

func main() {
	var (
		rounds = flag.Int("rounds", 5, "how often each load runs on each stack")
		each   = flag.Duration("time", time.Second, "how long a load runs each time")
		only   = flag.String("only", "", "run loads whose name matches this `regexp`")
		md     = flag.String("md", "", "write the table to this `file`, and a plot beside it")
		server = flag.String("server", "", "be the server of a `stack`; for internal use")
		client = flag.String("client", "", "be a client of a `stack`; for internal use")
		addr   = flag.String("addr", "", "the server's address; for internal use")
	)
	flag.Parse()
	var err error
	switch {
	case *server != "":
		err = work(*server, "")
	case *client != "":
		err = work(*client, *addr)
	default:
		err = compare(*rounds, *each, *only, *md)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// order is what a worker is told, and report what it answers, a JSON value a line.
type order struct {
	Load string // "" asks for the CPU time alone
	Time time.Duration
}

type report struct {
	Addr string  `json:",omitempty"` // of a server, once
	Ops  float64 // operations
	Secs float64 // that they took
	CPU  float64 // seconds that this process has used so far
	Err  string  `json:",omitempty"`
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
	for {
		var o order
		if err := in.Decode(&o); err == io.EOF {
			return nil
		} else if err != nil {
			return err
		}
		var r report
		if i := slices.IndexFunc(loads, func(l load) bool { return l.name == o.Load }); i >= 0 {
			begin := time.Now()
			r.Ops, err = loads[i].run(context.Background(), s, addr, o.Time)
			r.Secs = time.Since(begin).Seconds()
			if err != nil {
				r.Err = err.Error()
			}
		}
		r.CPU = cpuTime()
		out.Encode(r)
	}
}

func cpuTime() float64 {
	var u syscall.Rusage
	syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return float64(u.Utime.Nano()+u.Stime.Nano()) / 1e9
}

// worker is a process of ours.
type worker struct {
	cmd *exec.Cmd
	in  *json.Encoder
	out *json.Decoder
}

func start(args ...string) (*worker, error) {
	exe, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(exe, args...)
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	return &worker{cmd, json.NewEncoder(in), json.NewDecoder(bufio.NewReader(out))}, cmd.Start()
}

func (w *worker) ask(o order) (r report, err error) {
	if err = w.in.Encode(o); err == nil {
		err = w.out.Decode(&r)
	}
	return r, err
}

func compare(rounds int, each time.Duration, only, md string) error {
	runtime.LockOSThread() // children die with the thread that started them
	match, err := regexp.Compile(only)
	if err != nil {
		return err
	}
	type pair struct{ server, client *worker }
	pairs := make(map[string]*pair)
	defer func() {
		for _, p := range pairs {
			for _, w := range []*worker{p.server, p.client} {
				w.cmd.Process.Kill()
				w.cmd.Wait()
			}
		}
	}()
	get := func(stack string) (*pair, error) {
		if p := pairs[stack]; p != nil {
			return p, nil
		}
		s, err := start("-server", stack)
		if err != nil {
			return nil, err
		}
		var r report
		if err := s.out.Decode(&r); err != nil {
			return nil, fmt.Errorf("%s: server: %w", stack, err)
		}
		c, err := start("-client", stack, "-addr", r.Addr)
		if err != nil {
			return nil, err
		}
		pairs[stack] = &pair{s, c}
		return pairs[stack], nil
	}
	samples := make(map[cell][]sample)
	for round := range rounds + 1 { // the first one warms up
		for _, l := range loads {
			if !match.MatchString(l.name) {
				continue
			}
			for _, stack := range l.stacks() {
				p, err := get(stack)
				if err != nil {
					return err
				}
				before, err := p.server.ask(order{})
				if err != nil {
					return err
				}
				cbefore, err := p.client.ask(order{})
				if err != nil {
					return err
				}
				d := each
				if round == 0 {
					d = each / 5
				}
				r, err := p.client.ask(order{l.name, d})
				if err != nil {
					return err
				}
				if r.Err != "" {
					return fmt.Errorf("%s: %s: %s", stack, l.name, r.Err)
				}
				after, err := p.server.ask(order{})
				if err != nil {
					return err
				}
				if round > 0 {
					c := cell{l.name, stack}
					samples[c] = append(samples[c], sample{r.Ops / r.Secs, (after.CPU - before.CPU + r.CPU - cbefore.CPU) / r.Ops})
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
	head := fmt.Sprintf("# plexus beside go-libp2p\n\nWritten by `make bench`: %d interleaved rounds of %v on %d cores, %s.\n\n![ratios](%s.svg)\n\n",
		rounds, each, runtime.NumCPU(), runtime.Version(), strings.TrimSuffix(filepath.Base(md), ".md"))
	return os.WriteFile(md, []byte(head+table), 0o644)
}

// stacks are those that the load runs on, those to compare next to each other.
func (l load) stacks() (names []string) {
	for _, kind := range l.among {
		names = append(names, "plexus/"+kind, "go-libp2p/"+kind)
		if l.floor {
			names = append(names, "floor/"+kind)
		}
	}
	if l.floor {
		names = append(names, "floor/tcp")
	}
	return names
}
