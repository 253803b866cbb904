package plexus_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestReadme: a row of the feature table that is done has its folder, and the
// tests that are to prove it are there.
func TestReadme(t *testing.T) {
	readme, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	tests := make(map[string]bool) // "package.TestName"; the root's have no package
	funcs := regexp.MustCompile(`(?m)^func (Test\w+)\(`)
	for _, glob := range []string{"*_test.go", "*/*_test.go", "*/*/*_test.go", "*/*/*/*_test.go"} {
		files, _ := filepath.Glob(glob)
		for _, f := range files {
			src, err := os.ReadFile(f)
			if err != nil {
				t.Fatal(err)
			}
			pkg := ""
			if dir := filepath.Dir(f); dir != "." {
				pkg = filepath.Base(dir) + "."
			}
			for _, m := range funcs.FindAllSubmatch(src, -1) {
				tests[pkg+string(m[1])] = true
			}
		}
	}
	folder := regexp.MustCompile(`\]\(([^)]+)\)`)
	named := regexp.MustCompile("`([^`]+)`")
	rows := 0
	for line := range strings.Lines(string(readme)) {
		cells := strings.Split(line, "|")
		if len(cells) != 6 || strings.TrimSpace(cells[3]) != "done" {
			continue
		}
		rows++
		if m := folder.FindStringSubmatch(cells[2]); m == nil {
			t.Errorf("no folder: %s", line)
		} else if _, err := os.Stat(m[1]); err != nil {
			t.Errorf("%v: %s", err, line)
		}
		names := named.FindAllStringSubmatch(cells[4], -1)
		if len(names) == 0 {
			t.Errorf("nothing proves: %s", line)
		}
		for _, n := range names {
			if !tests[n[1]] {
				t.Errorf("no test %s: %s", n[1], line)
			}
		}
	}
	if rows < 15 {
		t.Errorf("found %d rows that are done", rows)
	}
}

// TestReadmeProgram builds the program in the README.
func TestReadmeProgram(t *testing.T) {
	readme, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, program, _ := strings.Cut(string(readme), "```go\n")
	program, _, ok := strings.Cut(program, "```")
	if !ok {
		t.Fatal("there is none")
	}
	file := filepath.Join(t.TempDir(), "main.go")
	if err := os.WriteFile(file, []byte(program), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("go", "vet", file).CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}
