// Command muxerbench puts what the benchmarks in this folder print into a table of
// all muxers, in Markdown:
//
//	go test -run - -bench . ./muxer/muxerbench | go run ./muxer/muxerbench
//
// Where a benchmark ran more than once, its median is taken. A muxer is added by a
// line in muxer_test.go.
package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
)

func main() {
	if err := table(os.Stdout, os.Stdin); err != nil {
		fmt.Fprintln(os.Stderr, "muxerbench:", err)
		os.Exit(1)
	}
}

// results are the values of a benchmark by their unit.
type results map[string][]float64

func (r results) median(unit string) float64 {
	v := slices.Sorted(slices.Values(r[unit]))
	if len(v) == 0 {
		return 0
	}
	return v[len(v)/2]
}

// table reads lines such as
//
//	BenchmarkMuxer/tcp/yamux/RoundTrip-2  1000  12345 ns/op  0 allocs/op
//
// and writes a table for each link, with a row for each load and a column for each
// muxer.
func table(w io.Writer, r io.Reader) error {
	var links, muxers, loads []string
	all := make(map[[3]string]results)
	add := func(list *[]string, s string) {
		if !slices.Contains(*list, s) {
			*list = append(*list, s)
		}
	}
	for lines := bufio.NewScanner(r); lines.Scan(); {
		f := strings.Fields(lines.Text())
		if len(f) < 4 || !strings.HasPrefix(f[0], "BenchmarkMuxer/") {
			continue
		}
		name := f[0]
		if i := strings.LastIndexByte(name, '-'); i > strings.LastIndexByte(name, '/') { // GOMAXPROCS, if it is not 1
			name = name[:i]
		}
		path := strings.Split(name, "/")
		if len(path) != 4 {
			return fmt.Errorf("%q is not a link, a muxer and a load", f[0])
		}
		key := [3]string(path[1:])
		if all[key] == nil {
			all[key] = make(results)
		}
		for i := 2; i+1 < len(f); i += 2 {
			v, err := strconv.ParseFloat(f[i], 64)
			if err != nil {
				return fmt.Errorf("%s: %w", f[0], err)
			}
			all[key][f[i+1]] = append(all[key][f[i+1]], v)
		}
		add(&links, key[0])
		add(&muxers, key[1])
		add(&loads, key[2])
	}
	if len(all) == 0 {
		return errors.New("no results")
	}
	for _, link := range links {
		fmt.Fprintf(w, "## %s\n\n| load | %s |\n|---|%s\n", link, strings.Join(muxers, " | "), strings.Repeat("---:|", len(muxers)))
		for _, load := range loads {
			fmt.Fprintf(w, "| %s |", load)
			for _, m := range muxers {
				fmt.Fprintf(w, " %s |", cell(all[[3]string{link, m, load}]))
			}
			fmt.Fprintln(w)
		}
		fmt.Fprintln(w)
	}
	return nil
}

// cell is what matters of a benchmark: what is held, or rate, CPU time and allocations.
func cell(r results) string {
	switch {
	case r == nil:
		return "–"
	case r["B/session"] != nil:
		return fmt.Sprintf("session %.1f KiB, %.2g; stream %.2f KiB, %.2g",
			r.median("B/session")/1024, r.median("goroutines/session"), r.median("B/stream")/1024, r.median("goroutines/stream"))
	}
	rate := fmt.Sprintf("%.1f k/s", 1e6/r.median("ns/op"))
	if r["MB/s"] != nil {
		rate = fmt.Sprintf("%.0f MB/s", r.median("MB/s"))
	}
	return fmt.Sprintf("%s, %.2f µs, %.0f", rate, r.median("cpu-ns/op")/1e3, r.median("allocs/op"))
}
