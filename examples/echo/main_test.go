package main

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"strings"
	"testing"
)

func TestEcho(t *testing.T) {
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	r, w := io.Pipe()
	done := make(chan error, 1)
	go func() {
		done <- run(ctx, nil, w)
		w.Close()
	}()
	addr, err := bufio.NewReader(r).ReadString('\n')
	if err != nil {
		t.Fatal(err, <-done)
	}
	var out bytes.Buffer
	if err := run(ctx, []string{strings.TrimSpace(addr), "hello", "there"}, &out); err != nil {
		t.Fatal(err)
	}
	if got, want := out.String(), "hello there\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	stop()
	if err := <-done; err != nil {
		t.Error(err)
	}
}
