package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"sync"
	"unicode/utf8"

	"golang.org/x/term"
)

// A screen shows what is said in a chat: a terminal with a line that is being edited
// below, or lines for whoever reads them.
type screen interface {
	show(said)
	prompt(nick string)
	terminal() bool
	close()
}

// screen makes one of standard input and output, and the lines that are typed. They
// end with an error, io.EOF at best.
func (e *env) screen(ctx context.Context) (screen, <-chan typed, error) {
	keys := make(chan typed)
	give := func(t typed) bool {
		select {
		case keys <- t:
			return true
		case <-ctx.Done():
			return false
		}
	}
	in, _ := e.stdin.(*os.File)
	if in == nil || !term.IsTerminal(int(in.Fd())) || !e.out.style.terminal || e.JSON {
		go func() { // ends with the input or ctx
			for line, err := range lines(ctx, e.stdin) {
				if !give(typed{string(line), err}) || err != nil {
					return
				}
			}
			give(typed{err: io.EOF})
		}()
		return plainScreen{e.out}, keys, nil
	}
	old, err := term.MakeRaw(int(in.Fd()))
	if err != nil {
		return nil, nil, fmt.Errorf("terminal: %w", err)
	}
	s := &liveScreen{
		style: e.out.style, fd: int(in.Fd()), old: old, out: e.stdout,
		Terminal: term.NewTerminal(struct {
			io.Reader
			io.Writer
		}{in, e.stdout}, ""),
	}
	s.SetBracketedPasteMode(true)
	s.resize()
	go func() { // ends with the keyboard or ctx; with the process, while nobody types
		for {
			line, err := s.ReadLine()
			if err == term.ErrPasteIndicator {
				err = nil
			}
			if err == nil {
				s.erase(line)
			}
			if !give(typed{line, err}) || err != nil {
				return
			}
		}
	}()
	return s, keys, nil
}

// plainScreen prints.
type plainScreen struct{ out *printer }

func (s plainScreen) show(l said) {
	if !l.mine { // whoever types knows what
		s.out.print(l)
	}
}
func (plainScreen) prompt(string)  {}
func (plainScreen) terminal() bool { return false }
func (plainScreen) close()         {}

// liveScreen is a terminal in raw mode.
type liveScreen struct {
	*term.Terminal
	style style
	fd    int
	old   *term.State
	out   io.Writer

	mu     sync.Mutex
	width  int
	height int
	nick   string
}

// resize follows the size of the window.
func (s *liveScreen) resize() {
	w, h, err := term.GetSize(s.fd)
	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil || w <= 0 || w == s.width && h == s.height {
		return
	}
	s.width, s.height = w, h
	s.SetSize(w, h)
}

func (s *liveScreen) prompt(nick string) {
	s.mu.Lock()
	s.nick = nick
	s.mu.Unlock()
	s.SetPrompt(s.style.bold(nick) + "› ")
}

func (s *liveScreen) show(l said) {
	s.resize()
	s.Write([]byte(l.text(s.style) + "\n"))
}

// erase takes the line that was typed off the screen: it comes back as what was said.
func (s *liveScreen) erase(line string) {
	s.mu.Lock()
	rows := 1 + (utf8.RuneCountInString(s.nick)+2+utf8.RuneCountInString(line))/max(s.width, 1)
	s.mu.Unlock()
	s.Write(bytes.Repeat([]byte("\x1b[A\x1b[2K"), rows))
}

func (*liveScreen) terminal() bool { return true }

func (s *liveScreen) close() {
	s.SetBracketedPasteMode(false)
	term.Restore(s.fd, s.old)
	fmt.Fprint(s.out, "\r\x1b[K")
}
