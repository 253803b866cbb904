package main

import (
	"bufio"
	"fmt"
	"io"
	"strings"
	"testing"
)

// person runs a chat with a keyboard and a screen.
type person struct {
	keys   *io.PipeWriter
	screen *bufio.Reader
	done   chan error
}

func start(t *testing.T, args ...string) *person {
	t.Helper()
	in, keys := io.Pipe()
	screen, out := io.Pipe()
	p := &person{keys, bufio.NewReader(screen), make(chan error, 1)}
	go func() {
		err := run(t.Context(), args, in, out)
		out.Close()
		p.done <- err
	}()
	t.Cleanup(func() {
		keys.Close()
		go io.Copy(io.Discard, screen)
		if err := <-p.done; err != nil {
			t.Error(err)
		}
	})
	return p
}

// reads waits for a line on the screen.
func (p *person) reads(t *testing.T) string {
	t.Helper()
	line, err := p.screen.ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(line)
}

func (p *person) readsEnd(t *testing.T, want string) {
	t.Helper()
	if got := p.reads(t); !strings.HasSuffix(got, ": "+want) {
		t.Fatalf("got %q, want %q", got, want)
	}
}

func TestChat(t *testing.T) {
	x := start(t)
	addr := x.reads(t)
	y := start(t, addr)
	x.readsEnd(t, "is here")
	z := start(t, addr)
	x.readsEnd(t, "is here")
	y.readsEnd(t, "is here") // x passes it on

	fmt.Fprintln(x.keys, "hello")
	y.readsEnd(t, "hello")
	z.readsEnd(t, "hello")
	fmt.Fprintln(y.keys, "hello x")
	x.readsEnd(t, "hello x")
	z.readsEnd(t, "hello x")
}
