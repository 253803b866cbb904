package main

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"strings"
	"testing"
)

func TestHTTP(t *testing.T) {
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	r, w := io.Pipe()
	done := make(chan error, 1)
	go func() {
		err := run(ctx, nil, w)
		w.Close()
		done <- err
	}()
	addr, err := bufio.NewReader(r).ReadString('\n')
	if err != nil {
		t.Fatal(err, <-done)
	}
	var out bytes.Buffer
	if err := run(ctx, []string{strings.TrimSpace(addr)}, &out); err != nil {
		t.Fatal(err)
	}
	if got := out.String(); !strings.HasPrefix(got, "Hello, /p2p/12D3KooW") {
		t.Errorf("got %q", got)
	}
	stop()
	if err := <-done; err != nil {
		t.Error(err)
	}
}
