package main

import (
	"bytes"
	"testing"
)

func TestPubSub(t *testing.T) {
	var out bytes.Buffer
	if err := run(t.Context(), &out); err != nil {
		t.Fatal(err)
	}
	const want = "neighbours that took it: 1\nit rains, says x: true\n"
	if got := out.String(); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
