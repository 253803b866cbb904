package main

import (
	"bytes"
	"testing"
)

func TestFind(t *testing.T) {
	var out bytes.Buffer
	if err := run(t.Context(), &out); err != nil {
		t.Fatal(err)
	}
	const want = "the third provides it: true\nand is found at an address: true\nit says: /ipfs/bafkqaaa\n"
	if got := out.String(); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
