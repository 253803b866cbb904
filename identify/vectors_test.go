package identify

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/plexus-p2p/plexus/peer"
)

// Answers of other implementations, in testdata: what they say in "# name = value",
// then the bytes.
func TestVectors(t *testing.T) {
	files, _ := filepath.Glob("testdata/*.txt")
	if len(files) == 0 {
		t.Fatal("no vectors")
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			b, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			want := make(map[string]string)
			var digits strings.Builder
			for line := range strings.Lines(string(b)) {
				line = strings.TrimSpace(line)
				if comment, ok := strings.CutPrefix(line, "# "); ok {
					name, value, _ := strings.Cut(comment, " = ")
					want[name] = value
					continue
				}
				digits.WriteString(line)
			}
			if b, err = hex.DecodeString(digits.String()); err != nil {
				t.Fatal(err)
			}
			sc := newScratch().(*scratch)
			if err := sc.read(bytes.NewReader(b)); err != nil {
				t.Fatal(err)
			}
			key, err := peer.ParsePubKey(sc.m.key)
			if err != nil {
				t.Fatal(err)
			}
			rec, err := peer.OpenRecord(sc.m.record)
			if err != nil {
				t.Fatal(err)
			}
			words := func(v any) string { return strings.Trim(fmt.Sprint(v), "[]") }
			for name, got := range map[string]string{
				"peer":      key.ID().String(),
				"observed":  parseAddr(sc.m.observed).String(),
				"addrs":     words(rec.Addrs),
				"agent":     string(sc.m.agent),
				"protocols": string(bytes.Join(sc.m.protocols, []byte(" "))),
			} {
				if got != want[name] {
					t.Errorf("%s is %q, want %q", name, got, want[name])
				}
			}
			if got := words(parseAddrs(sc.m.addrs)); got != want["addrs"] || rec.ID != key.ID() {
				t.Errorf("%s at %q, record of %s", key.ID(), got, rec.ID)
			}
		})
	}
}
