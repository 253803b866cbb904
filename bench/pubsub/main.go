// Command pubsub measures plexus's gossipsub beside go-libp2p-pubsub: networks of
// hosts on loopback, each host a process of its own or all in one, with the stacks'
// own defaults and every message signed. They take their turns in interleaved rounds.
//
//	go run ./pubsub -rounds 3                 everything
//	go run ./pubsub -only 'flat out, 20'      some of it
//	go run ./pubsub -md ../docs/pubsub.md     and keep the table
//	go run ./pubsub -profile /tmp/prof        and where the CPU time of publishing goes
//
// A delivery is a message that one host has published and another host's subscription
// has given to its reader. A network of n hosts should see n-1 of them for each message.
package main

import (
	"flag"
	"fmt"
	"os"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"time"
)

func main() {
	var (
		rounds = flag.Int("rounds", 3, "how often each load runs on each stack")
		each   = flag.Duration("time", 3*time.Second, "how long members publish")
		only   = flag.String("only", "", "run loads whose name matches this `regexp`")
		stack  = flag.String("stack", "", "run them on stacks whose name matches this `regexp`")
		md     = flag.String("md", "", "write the table to this `file`")
		prof   = flag.String("profile", "", "write CPU profiles of all processes into this `folder`")
		worker = flag.String("worker", "", "be members of a `stack`; for internal use")
	)
	flag.Parse()
	var err error
	if *worker != "" {
		if *prof != "" {
			runtime.MemProfileRate = 512
		}
		err = work(*worker, *prof)
	} else {
		err = compare(*rounds, *each, *only, *stack, *md, *prof)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// busy says how busy the machine is, of which some twenty processes are our own.
func busy() string {
	b, _ := os.ReadFile("/proc/loadavg")
	load, _, _ := strings.Cut(string(b), " ")
	return load
}

func compare(rounds int, each time.Duration, only, on, md, prof string) error {
	runtime.LockOSThread() // children die with the thread that started them
	match, err := regexp.Compile(only)
	if err != nil {
		return err
	}
	matchStack, err := regexp.Compile(on)
	if err != nil {
		return err
	}
	samples := make(map[cell][]sample)
	for round := range rounds {
		for _, l := range loads {
			if !match.MatchString(l.name) {
				continue
			}
			order := []string{"go-libp2p", "plexus"}
			if round%2 == 1 {
				slices.Reverse(order)
			}
			for _, s := range order {
				if !matchStack.MatchString(s) {
					continue
				}
				got, err := l.run(l, s, prof, each)
				if err != nil {
					return fmt.Errorf("%s: %s: %w", s, l.name, err)
				}
				fmt.Fprintf(os.Stderr, "%-28s %-9s %v\n", l.name, s, got)
				samples[cell{l.name, s}] = append(samples[cell{l.name, s}], got)
			}
		}
		fmt.Fprintf(os.Stderr, "round %d of %d\n", round+1, rounds)
		if md == "" {
			continue
		}
		head := fmt.Sprintf("# gossipsub beside go-libp2p-pubsub\n\nWritten by `make bench-pubsub`: %d interleaved rounds on %d cores, %s, load %s. %s\n\n",
			round+1, runtime.NumCPU(), runtime.Version(), busy(), about)
		if err := os.WriteFile(md, []byte(head+markdown(samples)), 0o644); err != nil {
			return err
		}
	}
	fmt.Print(markdown(samples))
	return nil
}
