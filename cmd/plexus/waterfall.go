package main

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// waterfall draws a dial: a bar for each step, all on one time axis.
type waterfall struct {
	lookups  []lookup
	attempts []attempt
	who      *reached // nil where nobody told
}

const (
	labelColumns = 22
	timeColumns  = 9
	barColumns   = 44
)

// canvas is the drawing under way.
type canvas struct {
	strings.Builder
	style
	end time.Duration // of the axis
}

func (w *waterfall) draw(s style) string {
	c := &canvas{style: s, end: w.end()}
	c.line(c.dim(strings.Repeat(" ", labelColumns+timeColumns+2) + ruler(c.end)))
	for _, l := range w.lookups {
		c.row("resolve", l.span, c.yellow)
		what := strings.Join(l.Answers, ", ")
		if l.Error != "" {
			what = l.Error
		}
		c.line("  " + c.dim(clean(l.Name+" → "+what)))
	}
	for _, a := range w.attempts {
		if a.Kind == kindSpared {
			c.line(c.dim("· " + a.Addr + ", " + a.Error))
			continue
		}
		mark, note := c.red("✗"), c.red(clean(a.Error))
		switch {
		case a.Won:
			mark = c.green("✓")
		case a.Kind == kindSlower:
			mark, note = c.dim("–"), c.dim(a.Error)
		}
		c.line(mark + " " + a.Addr)
		for _, st := range a.Stages {
			paint := map[string]func(string) string{"connect": c.blue, "security": c.purple, "muxer": c.cyan}[st.Stage]
			if !st.Done || paint == nil {
				paint = c.red
			}
			if !st.Done && a.Kind == kindSlower {
				paint = c.dim
			}
			c.row("  "+strings.TrimSpace(st.Stage+" "+st.With), st.span, paint)
		}
		if note != "" {
			c.line("  " + note)
		}
	}
	if w.who != nil {
		c.row("identify", w.who.span, c.green)
		c.line("")
		c.line(fmt.Sprintf("%s is %s and speaks %d protocols", c.bold(w.who.Peer.String()), clean(w.who.Agent), len(w.who.Protocols)))
		c.line(fmt.Sprintf("streams could be opened after %s, and it told who it is after %s", w.who.Connect, w.who.Start+w.who.Took))
	}
	return strings.TrimRight(c.String(), "\n")
}

func (c *canvas) line(text string) { c.WriteString(strings.TrimRight(text, " ") + "\n") }

func (c *canvas) row(label string, sp span, paint func(string) string) {
	if columns(label) > labelColumns {
		label = string([]rune(label)[:labelColumns-1]) + "…"
	}
	before, blocks := bar(sp, c.end)
	c.line(pad(label, labelColumns) + fmt.Sprintf("%*s  ", timeColumns, sp.Took) + before + paint(blocks))
}

// end is the time of the last step's end.
func (w *waterfall) end() (end time.Duration) {
	see := func(s span) { end = max(end, time.Duration(s.Start+s.Took)) }
	for _, l := range w.lookups {
		see(l.span)
	}
	for _, a := range w.attempts {
		see(a.span)
	}
	if w.who != nil {
		see(w.who.span)
	}
	return max(end, time.Microsecond)
}

// bar is a span in whole blocks and a last one in eighths, with what is blank before.
func bar(sp span, end time.Duration) (before, blocks string) {
	at := func(m millis) int { return int(math.Round(float64(m) / float64(end) * barColumns * 8)) }
	from, to := at(sp.Start)/8, at(sp.Start+sp.Took)
	from = min(from, barColumns-1)
	eighths := max(1, to-8*from)
	blocks = strings.Repeat("█", eighths/8)
	if rest := eighths % 8; rest > 0 {
		blocks += string([]rune(" ▏▎▍▌▋▊▉")[rest])
	}
	return strings.Repeat(" ", from), blocks
}

// ruler writes round numbers above the bars: "0 ms     20        40".
func ruler(end time.Duration) string {
	unit, name := time.Millisecond, " ms"
	if end >= 10*time.Second {
		unit, name = time.Second, " s"
	}
	total := float64(end) / float64(unit)
	// The smallest step of 1, 2, 5, 10, … that leaves room for the numbers.
	decade := math.Floor(math.Log10(total)) - 1
	step := 0.0
	for _, f := range []float64{1, 2, 5, 10, 20, 50} {
		if step = f * math.Pow(10, decade); step/total*barColumns >= 9 {
			break
		}
	}
	line := "0" + name
	for i := 1; float64(i)*step <= total; i++ {
		n := strconv.FormatFloat(float64(i)*step, 'f', max(0, -int(math.Floor(math.Log10(step)))), 64)
		col := int(float64(i) * step / total * barColumns)
		if col+len(n) > barColumns+2 {
			break
		}
		line = pad(line, col) + n
	}
	return line
}
