package main

import (
	"fmt"
	"html"
	"slices"
	"strings"
)

// sample is one run of a load on a stack.
type sample struct{ rate, cpu float64 } // operations a second; CPU seconds of both ends an operation

// cell is a load on a stack.
type cell struct{ load, stack string }

// row is what the samples of a cell come to.
type row struct {
	load           load
	stack          string
	rate, lo, hi   float64
	cpu            float64 // seconds an operation
	ratio, cpuPart float64 // to go-libp2p in the same run; 0: there is none
}

// rows sums the samples up, in the order of the loads.
func rows(samples map[cell][]sample) (all []row) {
	for _, l := range loads {
		for _, stack := range l.stacks(true) {
			ss := samples[cell{l.name, stack}]
			if len(ss) == 0 {
				continue
			}
			r := row{load: l, stack: stack}
			r.rate, r.lo, r.hi = spread(ss, func(s sample) float64 { return s.rate })
			r.cpu, _, _ = spread(ss, func(s sample) float64 { return s.cpu })
			_, kind, _ := strings.Cut(stack, "/")
			if base := samples[cell{l.name, "go-libp2p/" + kind}]; len(base) > 0 {
				rate, _, _ := spread(base, func(s sample) float64 { return s.rate })
				cpu, _, _ := spread(base, func(s sample) float64 { return s.cpu })
				r.ratio, r.cpuPart = r.rate/rate, r.cpu/cpu
			}
			all = append(all, r)
		}
	}
	return all
}

// spread returns the median, the lowest and the highest of what f says.
func spread(ss []sample, f func(sample) float64) (median, lo, hi float64) {
	v := make([]float64, len(ss))
	for i, s := range ss {
		v[i] = f(s)
	}
	slices.Sort(v)
	return v[len(v)/2], v[0], v[len(v)-1]
}

// markdown writes the rows as a table.
func markdown(all []row) string {
	var b strings.Builder
	b.WriteString("| load | stack | median /s | min | max | CPU µs, both ends | × go-libp2p | CPU × |\n")
	b.WriteString("|---|---|---:|---:|---:|---:|---:|---:|\n")
	for _, r := range all {
		ratios := "| |"
		if r.ratio > 0 {
			ratios = fmt.Sprintf("%.2f | %.2f |", r.ratio, r.cpuPart)
		}
		fmt.Fprintf(&b, "| %s | %s | %.0f %s | %.0f | %.0f | %.1f | %s\n", r.load.name, r.stack, r.rate, r.load.unit, r.lo, r.hi, r.cpu*1e6, ratios)
	}
	return b.String()
}

// plot draws, for each load, how plexus does against go-libp2p: the rate, where
// longer is better, and the CPU time, where shorter is.
func plot(all []row) string {
	const (
		left, unit, bar, gap = 330, 120, 9, 30 // pixels; unit is a ratio of 1
		most                 = 4.0
	)
	var mine []row
	for _, r := range all {
		if strings.HasPrefix(r.stack, "plexus/") && r.ratio > 0 {
			mine = append(mine, r)
		}
	}
	width, height := left+int(most*unit)+50, 60+gap*len(mine)
	var b strings.Builder
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" font-family="sans-serif" font-size="11">`, width, height)
	fmt.Fprintf(&b, `<rect width="%d" height="%d" fill="white"/>`, width, height)
	fmt.Fprintf(&b, `<text x="10" y="20" font-size="14">plexus beside go-libp2p v0.51, which is 1 (one interleaved run, medians)</text>`)
	fmt.Fprintf(&b, `<rect x="10" y="30" width="10" height="%d" fill="#2a78b8"/><text x="25" y="39">operations a second: longer is better</text>`, bar)
	fmt.Fprintf(&b, `<rect x="250" y="30" width="10" height="%d" fill="#e0913a"/><text x="265" y="39">CPU time of both ends an operation: shorter is better</text>`, bar)
	fmt.Fprintf(&b, `<line x1="%d" y1="46" x2="%d" y2="%d" stroke="#ccc"/>`, left+unit, left+unit, height)
	for i, r := range mine {
		y := 52 + i*gap
		fmt.Fprintf(&b, `<text x="%d" y="%d" text-anchor="end">%s, %s</text>`, left-8, y+12, html.EscapeString(r.load.name), strings.TrimPrefix(r.stack, "plexus/"))
		for j, v := range []float64{r.ratio, r.cpuPart} {
			w := min(v, most) * unit
			fmt.Fprintf(&b, `<rect x="%d" y="%d" width="%.0f" height="%d" fill="%s"/><text x="%.0f" y="%d">%.2f</text>`,
				left, y+j*(bar+1), w, bar, []string{"#2a78b8", "#e0913a"}[j], left+w+4, y+j*(bar+1)+bar, v)
		}
	}
	return b.String() + "</svg>\n"
}
