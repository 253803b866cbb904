package main

import (
	"fmt"
	"html"
	"math"
	"strings"
)

// plotGrowth draws a row of plots for each growth, a plot for each metric, both axes
// logarithmic.
func plotGrowth(all []*growth) string {
	const width, height, head = 300, 230, 60 // pixels, of a plot
	across := 0
	for _, g := range all {
		across = max(across, len(g.metrics))
	}
	var b strings.Builder
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" font-family="sans-serif" font-size="11">`, across*width, head+len(all)*height)
	fmt.Fprintf(&b, `<rect width="%d" height="%d" fill="white"/>`, across*width, head+len(all)*height)
	b.WriteString(`<text x="10" y="20" font-size="14">How costs grow, plexus beside go-libp2p v0.51</text>`)
	for i, stack := range growthStacks {
		name, _, _ := strings.Cut(stack, "/")
		fmt.Fprintf(&b, `<rect x="%d" y="32" width="10" height="9" fill="%s"/><text x="%d" y="40">%s</text>`, 10+i*90, colours[i], 25+i*90, name)
	}
	for row, g := range all {
		for col, m := range g.metrics {
			fmt.Fprintf(&b, `<g transform="translate(%d,%d)">`, col*width, head+row*height)
			g.plot(&b, m, width, height)
			b.WriteString(`</g>`)
		}
	}
	return b.String() + "</svg>\n"
}

var colours = []string{"#2a78b8", "#e0913a"}

func (g *growth) plot(b *strings.Builder, m *metric, width, height float64) {
	const left, right, top, bottom = 52, 18, 24, 34
	lo, hi := math.Inf(1), math.Inf(-1) // in decades
	for _, ys := range m.y {
		for _, y := range ys {
			if y > 0 {
				lo, hi = min(lo, math.Floor(math.Log10(y))), max(hi, math.Ceil(math.Log10(y)))
			}
		}
	}
	if lo > hi {
		lo, hi = 0, 1
	}
	hi = max(hi, lo+1)
	first, last := math.Log10(float64(g.xs[0])), math.Log10(float64(g.xs[len(g.xs)-1]))
	atX := func(x int) float64 {
		if first == last {
			return left
		}
		return left + (math.Log10(float64(x))-first)/(last-first)*(width-left-right)
	}
	atY := func(y float64) float64 { return height - bottom - (math.Log10(y)-lo)/(hi-lo)*(height-top-bottom) }

	fmt.Fprintf(b, `<text x="%d" y="14">%s</text>`, left, html.EscapeString(m.title()))
	for d := lo; d <= hi; d++ {
		y := atY(math.Pow(10, d))
		fmt.Fprintf(b, `<line x1="%d" y1="%.1f" x2="%.0f" y2="%.1f" stroke="#ddd"/><text x="%d" y="%.1f" text-anchor="end">%s</text>`,
			left, y, width-right, y, left-5, y+4, power(d))
	}
	for _, x := range g.xs {
		fmt.Fprintf(b, `<line x1="%.1f" y1="%d" x2="%.1f" y2="%.0f" stroke="#eee"/><text x="%.1f" y="%.0f" text-anchor="middle">%s</text>`,
			atX(x), top, atX(x), height-bottom, atX(x), height-bottom+13, si(x))
	}
	fmt.Fprintf(b, `<text x="%.0f" y="%.0f" text-anchor="middle">%s</text>`, (left+width-right)/2, height-bottom+26, g.x)
	for i, stack := range growthStacks {
		var line strings.Builder
		for j, y := range m.y[stack] {
			if y > 0 {
				fmt.Fprintf(&line, "%.1f,%.1f ", atX(g.xs[j]), atY(y))
				fmt.Fprintf(b, `<circle cx="%.1f" cy="%.1f" r="2.5" fill="%s"/>`, atX(g.xs[j]), atY(y), colours[i])
			}
		}
		fmt.Fprintf(b, `<polyline points="%s" fill="none" stroke="%s" stroke-width="1.5"/>`, strings.TrimSpace(line.String()), colours[i])
	}
}

// power writes a power of ten.
func power(d float64) string {
	if d < 0 {
		return fmt.Sprintf("%.*f", int(-d), math.Pow(10, d))
	}
	return si(int(math.Pow(10, d)))
}

// si shortens a round number: powers of ten, and of two for sizes.
func si(n int) string {
	switch {
	case n >= 1<<20 && n%(1<<20) == 0:
		return fmt.Sprintf("%dMi", n>>20)
	case n >= 1<<10 && n%(1<<10) == 0:
		return fmt.Sprintf("%dKi", n>>10)
	case n >= 1e6 && n%1e5 == 0:
		return fmt.Sprintf("%gM", float64(n)/1e6)
	case n >= 1e3 && n%1e2 == 0:
		return fmt.Sprintf("%gk", float64(n)/1e3)
	}
	return fmt.Sprint(n)
}
