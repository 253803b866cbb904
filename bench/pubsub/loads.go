package main

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// A load is something that networks of both stacks do.
type load struct {
	name      string
	members   int
	processes int
	rate      float64 // messages a second of all members together; 0: as many as they can
	run       func(l load, stack, prof string, each time.Duration) (sample, error)
}

var loads = []load{
	{"flat out, 20 processes", 20, 20, 0, traffic},
	{"flat out, 20 in one", 20, 1, 0, traffic},
	{"flat out, 50 processes", 50, 50, 0, traffic},
	{"flat out, 50 in one", 50, 1, 0, traffic},
	{"100 a second, 20 processes", 20, 20, 100, traffic},
	{"100 a second, 20 in one", 20, 1, 100, traffic},
	{"idle, 300 peers", 300, 1, 0, idle},
}

const about = `1 KiB messages, signed; each host is connected to ten others. "flat out": every
host publishes as fast as Publish lets it. Rates count from the first message to the last delivery. "lost" is the share of
deliveries that were missing at the end, "silent" those of them that neither Publish nor a counter of the stack has told of
(go-libp2p-pubsub tells a tracer, which applications do not have). CPU is that of all hosts.
"idle" is what a host holds for each of 300 neighbours that are subscribed to a topic, beyond what it holds for a bare
connection.`

// A sample is what a load has come to.
type sample struct {
	published, delivered float64 // a second; delivered is per host
	lost, silent         float64 // shares
	cpu                  float64 // seconds of a delivery
	p50, p99             float64 // milliseconds, where a rate was set
	heap, stacks         float64 // bytes
}

func (s sample) String() string {
	return fmt.Sprintf("published %.0f/s delivered %.0f/s lost %.2f%% silent %.2f%% cpu %.1f µs p50 %.1f p99 %.1f ms, heap %.1f stacks %.1f KiB a peer",
		s.published, s.delivered, 100*s.lost, 100*s.silent, 1e6*s.cpu, s.p50, s.p99, s.heap/1024, s.stacks/1024)
}

// cell is a load on a stack.
type cell struct{ load, stack string }

// chords are how far on a ring of members the neighbours of each are: ten, both ways.
var chords = []int{1, 3, 4, 7, 9}

// connected makes a fleet whose members are joined and connected.
func connected(stack, prof string, l load) (*fleet, error) {
	f, err := newFleet(stack, prof, l.members, l.processes)
	if err != nil {
		return nil, err
	}
	hosts, err := f.ask(order{Do: "host", N: f.each}, nil)
	var addrs []string
	for _, r := range hosts {
		addrs = append(addrs, r.Addrs...)
	}
	if err == nil {
		_, err = f.ask(order{Do: "join"}, nil)
	}
	if err == nil {
		_, err = f.ask(order{Do: "dial"}, func(i int, o *order) {
			for j := i * f.each; j < (i+1)*f.each; j++ {
				var to []string
				for _, c := range chords {
					to = append(to, addrs[(j+c)%len(addrs)])
				}
				o.Dials = append(o.Dials, to)
			}
		})
	}
	if err == nil {
		_, err = f.ask(order{Do: "wait", N: 2 * len(chords)}, nil)
	}
	if err != nil {
		f.stop()
		return nil, err
	}
	time.Sleep(2500 * time.Millisecond) // two heartbeats, in which meshes form
	return f, nil
}

// traffic has all members publish, and waits until nothing more comes.
func traffic(l load, stack, prof string, each time.Duration) (s sample, err error) {
	f, err := connected(stack, prof, l)
	if err != nil {
		return s, err
	}
	defer f.stop()
	before, err := f.ask(order{Do: "count"}, nil)
	if err != nil {
		return s, err
	}
	begin := time.Now()
	pubs, err := f.ask(order{Do: "publish", Rate: l.rate / float64(l.members), Time: each, Size: 1 << 10}, nil)
	if err != nil {
		return s, err
	}
	var published, failed float64
	for _, r := range pubs {
		published += r.Published
		failed += r.Failed
	}
	expected := published * float64(l.members-1)
	var after []report
	var delivered, told, cpu float64
	var last int64
	for quiet := time.Now(); ; time.Sleep(250 * time.Millisecond) {
		if after, err = f.ask(order{Do: "count"}, nil); err != nil {
			return s, err
		}
		had := delivered
		delivered, told, cpu = 0, 0, 0
		for i, r := range after {
			delivered += r.Delivered
			told += r.Told
			cpu += r.CPU - before[i].CPU
			last = max(last, r.Last)
		}
		if delivered > had {
			quiet = time.Now()
		}
		if delivered >= expected || time.Since(quiet) > 4*time.Second {
			break // whatever gossip repairs, it does within three heartbeats
		}
	}
	secs := float64(last-begin.UnixNano()) / 1e9
	lost := max(0, expected-delivered)
	s = sample{
		published: published / each.Seconds(),
		delivered: delivered / float64(l.members-1) / secs,
		lost:      lost / expected,
		silent:    max(0, lost-told-failed*float64(l.members-1)) / expected,
		cpu:       cpu / delivered,
	}
	if l.rate > 0 {
		var late []int32
		for _, r := range after {
			late = append(late, r.Late...)
		}
		slices.Sort(late)
		s.p50, s.p99 = float64(late[len(late)/2])/1e3, float64(late[len(late)*99/100])/1e3
	}
	return s, nil
}

// idle weighs a host with so many neighbours, with gossipsub and without.
func idle(l load, stack, prof string, _ time.Duration) (s sample, err error) {
	weigh := func(join bool) (r report, err error) {
		hub, err := newFleet(stack, prof, 1, 1)
		if err != nil {
			return r, err
		}
		defer hub.stop()
		rim, err := newFleet(stack, prof, l.members, 1)
		if err != nil {
			return r, err
		}
		defer rim.stop()
		hosts, err := hub.ask(order{Do: "host", N: 1}, nil)
		if err != nil {
			return r, err
		}
		dials := make([][]string, l.members)
		for i := range dials {
			dials[i] = hosts[0].Addrs
		}
		if _, err := rim.ask(order{Do: "host", N: l.members}, nil); err != nil {
			return r, err
		}
		if join {
			for _, f := range []*fleet{hub, rim} {
				if _, err := f.ask(order{Do: "join"}, nil); err != nil {
					return r, err
				}
			}
		}
		if _, err := rim.ask(order{Do: "dial", Dials: dials}, nil); err != nil {
			return r, err
		}
		if join {
			if _, err := hub.ask(order{Do: "wait", N: l.members}, nil); err != nil {
				return r, err
			}
		}
		time.Sleep(8 * time.Second) // until what was needed to connect is given back
		weights, err := hub.ask(order{Do: "weigh"}, nil)
		if err != nil {
			return r, err
		}
		return weights[0], nil
	}
	without, err := weigh(false)
	if err != nil {
		return s, err
	}
	with, err := weigh(true)
	s.heap = (with.Heap - without.Heap) / float64(l.members)
	s.stacks = (with.Stacks - without.Stacks) / float64(l.members)
	return s, err
}

// median of what f says of the samples.
func median(ss []sample, f func(sample) float64) float64 {
	if len(ss) == 0 {
		return 0
	}
	v := make([]float64, len(ss))
	for i, s := range ss {
		v[i] = f(s)
	}
	slices.Sort(v)
	return v[len(v)/2]
}

// columns are the figures of a load, and which loads have them.
var columns = []struct {
	name, format string
	of           func(sample) float64
	has          func(load) bool
}{
	{"published /s", "%.0f", func(s sample) float64 { return s.published }, isTraffic},
	{"delivered /s", "%.0f", func(s sample) float64 { return s.delivered }, isTraffic},
	{"lost", "%.2f %%", func(s sample) float64 { return 100 * s.lost }, isTraffic},
	{"silent", "%.2f %%", func(s sample) float64 { return 100 * s.silent }, isTraffic},
	{"CPU a delivery, µs", "%.1f", func(s sample) float64 { return 1e6 * s.cpu }, isTraffic},
	{"p50, ms", "%.1f", func(s sample) float64 { return s.p50 }, isPaced},
	{"p99, ms", "%.1f", func(s sample) float64 { return s.p99 }, isPaced},
	{"heap, KiB a peer", "%.1f", func(s sample) float64 { return s.heap / 1024 }, isIdle},
	{"stacks, KiB a peer", "%.1f", func(s sample) float64 { return s.stacks / 1024 }, isIdle},
}

func isTraffic(l load) bool { return !isIdle(l) }
func isPaced(l load) bool   { return l.rate > 0 }
func isIdle(l load) bool    { return strings.HasPrefix(l.name, "idle") }

// markdown writes medians, and plexus's as multiples of the other's.
func markdown(samples map[cell][]sample) string {
	var b strings.Builder
	b.WriteString("| load | |")
	for _, c := range columns {
		b.WriteString(" " + c.name + " |")
	}
	b.WriteString("\n|---|---|" + strings.Repeat("---:|", len(columns)) + "\n")
	for _, l := range loads {
		theirs, ours := samples[cell{l.name, "go-libp2p"}], samples[cell{l.name, "plexus"}]
		for _, row := range []struct {
			name string
			ss   []sample
		}{{"go-libp2p-pubsub", theirs}, {"plexus", ours}} {
			if len(row.ss) == 0 {
				continue
			}
			fmt.Fprintf(&b, "| %s | %s |", l.name, row.name)
			for _, c := range columns {
				if c.has(l) {
					fmt.Fprintf(&b, " "+c.format+" |", median(row.ss, c.of))
				} else {
					b.WriteString(" |")
				}
			}
			b.WriteString("\n")
		}
		if len(theirs) == 0 || len(ours) == 0 {
			continue
		}
		b.WriteString("| | **ratio** |")
		for _, c := range columns {
			if t := median(theirs, c.of); c.has(l) && t > 0 {
				fmt.Fprintf(&b, " **%.2f** |", median(ours, c.of)/t)
			} else {
				b.WriteString(" |")
			}
		}
		b.WriteString("\n")
	}
	return b.String()
}
