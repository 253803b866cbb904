package peer

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// vector is a file of testdata: lines "name = value" and comments.
type vector map[string][]string

func (v vector) text(name string) string { return v[name][0] }

func (v vector) bytes(t testing.TB, name string) []byte { return unhex(t, v.text(name)) }

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.TrimPrefix(s, "-"))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// readLines returns the fields of each line of a file of testdata.
func readLines(t testing.TB, name, sep string) [][]string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	var lines [][]string
	s := bufio.NewScanner(bytes.NewReader(b))
	for s.Scan() {
		if line := s.Text(); line != "" && line[0] != '#' {
			lines = append(lines, strings.Split(line, sep))
		}
	}
	return lines
}

func readVector(t testing.TB, name string) vector {
	t.Helper()
	v := vector{}
	for _, l := range readLines(t, name+".txt", " = ") {
		v[l[0]] = append(v[l[0]], l[1])
	}
	return v
}

var keyTypes = []struct {
	name string
	typ  KeyType
}{
	{"ed25519", Ed25519},
	{"secp256k1", Secp256k1},
	{"ecdsa", ECDSA},
	{"rsa", RSA},
}

// testKey returns the key of the spec's test vectors.
func testKey(t testing.TB, name string) PrivKey {
	t.Helper()
	k, err := ParsePrivKey(readVector(t, name).bytes(t, "private"))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func wantErr(t *testing.T, what string, got, want error) {
	t.Helper()
	if !errors.Is(got, want) {
		t.Errorf("%s: got error %v, want %v", what, got, want)
	}
}
