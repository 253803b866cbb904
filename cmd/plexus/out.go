package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/term"
)

// A record is one thing that a verb has to say: a struct whose exported fields
// are what scripts read, under names that stay as they are.
type record interface {
	event() string       // what it is, the field "event"; "" leaves that out
	text(s style) string // what people read, lines without the last newline; "" is nothing
}

// printer writes records: text for people, or one JSON object a line. It may be
// used concurrently.
type printer struct {
	style style // fixed

	mu   sync.Mutex
	w    io.Writer
	json bool
	err  error // the first that w gave
}

func newPrinter(w io.Writer, json, colour bool) *printer {
	p := &printer{w: w, json: json, style: style{width: 80}}
	f, ok := w.(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) {
		return p
	}
	p.style.terminal = true
	// https://no-color.org: "when present and not an empty string"
	p.style.colour = colour && os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb"
	if width, _, err := term.GetSize(int(f.Fd())); err == nil && width > 0 {
		p.style.width = width
	}
	return p
}

func (p *printer) print(r record) {
	p.mu.Lock()
	defer p.mu.Unlock()
	var line string
	if p.json {
		line = jsonLine(r)
	} else if line = r.text(p.style); line != "" {
		line += "\n"
	}
	if _, err := io.WriteString(p.w, line); err != nil && p.err == nil {
		p.err = fmt.Errorf("standard output: %w", err)
	}
}

// failed returns the first error in printing.
func (p *printer) failed() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.err
}

// say prints what only people want to read.
func (p *printer) say(format string, args ...any) {
	if p.json {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	fmt.Fprintf(p.w, format+"\n", args...)
}

// jsonLine is the record with its event as the first field.
func jsonLine(r record) string {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(r); err != nil {
		panic(err) // a record holds what cannot be encoded
	}
	line := b.String()
	if r.event() == "" {
		return line
	}
	first := `{"event":` + strconv.Quote(r.event())
	if rest := line[1:]; rest[0] != '}' {
		return first + "," + rest
	}
	return first + line[1:]
}

// style is how text looks. Its zero value is plain.
type style struct {
	terminal bool
	colour   bool
	width    int // columns
}

func (s style) sgr(code, text string) string {
	if !s.colour || text == "" {
		return text
	}
	return "\x1b[" + code + "m" + text + "\x1b[0m"
}

func (s style) bold(t string) string   { return s.sgr("1", t) }
func (s style) dim(t string) string    { return s.sgr("2", t) }
func (s style) red(t string) string    { return s.sgr("31", t) }
func (s style) green(t string) string  { return s.sgr("32", t) }
func (s style) yellow(t string) string { return s.sgr("33", t) }
func (s style) blue(t string) string   { return s.sgr("34", t) }
func (s style) cyan(t string) string   { return s.sgr("36", t) }
func (s style) purple(t string) string { return s.sgr("35", t) }

// pad fills a text up to n columns, whatever its colours.
func pad(text string, n int) string {
	return text + strings.Repeat(" ", max(0, n-columns(text)))
}

// columns counts what a text takes on the screen. All that we print is one
// column a character, but for escapes.
func columns(text string) int {
	n, escape := 0, false
	for _, r := range text {
		switch {
		case r == '\x1b':
			escape = true
		case escape:
			escape = r != 'm'
		default:
			n++
		}
	}
	return n
}

// millis is a duration that is a number of milliseconds in JSON.
type millis time.Duration

func (m millis) MarshalJSON() ([]byte, error) {
	return strconv.AppendFloat(nil, float64(m)/1e6, 'f', 3, 64), nil
}

// String has about three digits: "0.213 ms", "12.3 ms", "4.56 s".
func (m millis) String() string {
	d := time.Duration(m)
	switch ms := float64(d) / 1e6; {
	case d >= 10*time.Second:
		return fmt.Sprintf("%.1f s", d.Seconds())
	case d >= time.Second:
		return fmt.Sprintf("%.2f s", d.Seconds())
	case ms >= 100:
		return fmt.Sprintf("%.0f ms", ms)
	case ms >= 10:
		return fmt.Sprintf("%.1f ms", ms)
	case ms >= 1:
		return fmt.Sprintf("%.2f ms", ms)
	default:
		return fmt.Sprintf("%.3f ms", ms)
	}
}

// clean makes what a peer says of itself fit for a terminal: no control
// characters, and not endless.
func clean(s string) string {
	const most = 2000
	n := 0
	return strings.Map(func(r rune) rune {
		n++
		switch {
		case n > most:
			return -1
		case !strconv.IsPrint(r):
			return '\uFFFD'
		}
		return r
	}, s)
}
