package muxertest

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/plexus-p2p/plexus/muxer"
	"github.com/plexus-p2p/plexus/muxer/session"
)

// Vectors reads testdata/frames.txt: lines of hex = what Parse makes of it.
func Vectors(t testing.TB) (in [][]byte, want []string) {
	t.Helper()
	f, err := os.Open("testdata/frames.txt")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		line, _, _ := strings.Cut(lines.Text(), "#")
		digits, meaning, ok := strings.Cut(line, "=")
		if !ok {
			continue
		}
		b, err := hex.DecodeString(strings.Join(strings.Fields(digits), ""))
		if err != nil {
			t.Fatal(err)
		}
		in, want = append(in, b), append(want, strings.Join(strings.Fields(meaning), " "))
	}
	return in, want
}

// Frames holds a wire to its vectors. What parses to "only ..." is not what Append makes.
func Frames(t *testing.T, w session.Wire) {
	in, want := Vectors(t)
	for i, b := range in {
		f, n, err := w.Parse(b)
		foreign := strings.HasPrefix(want[i], "only ")
		if got := describe(f, n, err); got != strings.TrimPrefix(want[i], "only ") {
			t.Errorf("% x: got %s, want %s", b, got, want[i])
			continue
		}
		if n == 0 || err != nil || foreign {
			continue
		}
		if got := w.Append(nil, f); !bytes.Equal(got, b[:n]) {
			t.Errorf("%s: appended as % x, want % x", want[i], got, b[:n])
		}
		for cut := range n {
			if f, n, err := w.Parse(b[:cut]); n != 0 || err != nil {
				t.Errorf("% x: parsed as %s", b[:cut], describe(f, n, err))
			}
		}
	}
}

func describe(f session.Frame, n int, err error) string {
	switch {
	case errors.Is(err, muxer.ErrProtocol):
		return "error"
	case err != nil:
		return err.Error()
	case n == 0:
		return "short"
	}
	flags := ""
	for i, name := range []string{" open", " ack", " fin"} {
		if f.Flags&(1<<i) != 0 {
			flags += name
		}
	}
	kind := []string{"data", "window", "reset", "ping", "pong", "goaway", "skip"}[f.Kind]
	return fmt.Sprintf("%s%s id=%d body=%d value=%d", kind, flags, f.ID, f.Body, f.Value)
}

// FuzzWire checks that Parse takes anything, and is the reverse of Append where
// both know a frame.
func FuzzWire(f *testing.F, w session.Wire) {
	in, _ := Vectors(f)
	for _, b := range in {
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		frame, n, err := w.Parse(b)
		if n < 0 || n > len(b) || frame.Body < 0 {
			t.Fatalf("%d of %d bytes, and a body of %d", n, len(b), frame.Body)
		}
		if err != nil || n == 0 || frame.Kind != session.Data && frame.Body > 0 {
			return
		}
		out := w.Append(nil, frame)
		if len(out) == 0 {
			return
		}
		back, n, err := w.Parse(out)
		if back != frame || n != len(out) || err != nil {
			t.Fatalf("%+v became % x, and that %+v, %d, %v", frame, out, back, n, err)
		}
	})
}
