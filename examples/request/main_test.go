package main

import (
	"bytes"
	"testing"
)

func TestRequest(t *testing.T) {
	var out bytes.Buffer
	if err := run(t.Context(), &out); err != nil {
		t.Fatal(err)
	}
	const want = "17 / 5 = 3, remainder 2\n100 / 7 = 14, remainder 2\n1 / 0: division by zero\n"
	if got := out.String(); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
