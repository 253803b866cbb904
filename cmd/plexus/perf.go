package main

import (
	"fmt"
	"time"

	"github.com/plexus-p2p/plexus/perf"
)

type perfCmd struct {
	Addr string `arg:"" name:"ADDR" help:"The node. It must serve perf, as plexus up --perf does."`
	Up   size   `default:"64MiB" placeholder:"64MiB" help:"Send so much. 0: nothing."`
	Down size   `default:"64MiB" placeholder:"64MiB" help:"Receive so much. 0: nothing."`
}

func (perfCmd) Help() string {
	return `Sends first and receives then, on a stream each, and reports every second. Sizes have
units: 64MiB, 1GB, 500k; K, M and G are powers of 1024.

Examples:

  plexus perf ADDR
  plexus perf ADDR --up 1GiB --down 0
  plexus perf --json ADDR | jq 'select(.event == "result") | .bytes_per_second'`
}

// throughput is how far a transfer has come, or how it ended.
type throughput struct {
	final     bool
	Direction string `json:"direction"` // "up" or "down"
	Bytes     uint64 `json:"bytes"`     // so far
	Elapsed   millis `json:"elapsed_ms"`
	Rate      uint64 `json:"bytes_per_second"` // since the last report; of the whole at the end
}

func (r throughput) event() string {
	if r.final {
		return "result"
	}
	return "progress"
}

func (r throughput) text(s style) string {
	rate := fmt.Sprintf("%s/s (%s)", size(r.Rate), bits(r.Rate))
	line := fmt.Sprintf("%-4s  %9s  %8s  ", r.Direction, size(r.Bytes), r.Elapsed)
	if r.final {
		return s.bold(line + rate)
	}
	return s.dim(line) + rate
}

func bits(bytes uint64) string {
	v := float64(bytes) * 8
	for _, unit := range []string{"bit/s", "kbit/s", "Mbit/s"} {
		if v < 1000 {
			return trim(v) + " " + unit
		}
		v /= 1000
	}
	return trim(v) + " Gbit/s"
}

func (c *perfCmd) Run(e *env) error {
	if c.Up == 0 && c.Down == 0 {
		return &failure{Kind: kindUsage, Text: "--up and --down are both 0: there is nothing to measure"}
	}
	cl, err := e.connect(c.Addr)
	if err != nil {
		return err
	}
	defer cl.Close()
	e.out.print(connected(cl))
	for _, t := range []struct {
		direction string
		up, down  size
	}{{"up", c.Up, 0}, {"down", 0, c.Down}} {
		if t.up+t.down == 0 {
			continue
		}
		var last perf.Report
		for r, err := range perf.Run(e.ctx, cl.conn, uint64(t.up), uint64(t.down)) {
			if err != nil {
				return tried(fmt.Sprintf("measure %s to %s", t.direction, c.Addr), err)
			}
			e.out.print(report(t.direction, last, r))
			last = r
		}
	}
	return nil
}

func report(direction string, last, r perf.Report) throughput {
	if r.Final {
		last = perf.Report{}
	}
	span := max(r.Elapsed-last.Elapsed, time.Microsecond)
	return throughput{
		final: r.Final, Direction: direction, Bytes: r.Up + r.Down, Elapsed: millis(r.Elapsed),
		Rate: uint64(float64(r.Up+r.Down-last.Up-last.Down) / span.Seconds()),
	}
}
