package plexus_test

import (
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/plexus-p2p/plexus"

// layers, the lowest first: a package imports lower layers and its own folder
// only. "." is the root package.
var layers = [][]string{
	{"internal"},
	{"peer"},
	{"multiselect", "dial", "store", "metrics"},
	{"muxer", "security"},
	{"transport"},
	{"simnet"},
	{"."},
	{"plexustest"},
	{"identify", "ping", "perf", "fetch", "nat", "relay", "discovery", "routing", "pubsub", "exchange", "consensus"},
	{"node"},
	{"cmd", "examples"},
}

// thirdParty lists, by folder, the modules that it and the folders below it may
// import. A module that only one folder needs stays there.
var thirdParty = map[string][]string{
	".":                       {"github.com/multiformats/go-multiaddr"},
	"internal/pb":             {"google.golang.org/protobuf/encoding/protowire"},
	"peer":                    {"github.com/multiformats/go-multiaddr", "github.com/multiformats/go-multibase", "github.com/mr-tron/base58", "github.com/decred/dcrd/dcrec/secp256k1/v4"},
	"dial":                    {"github.com/multiformats/go-multiaddr"},
	"security":                {},
	"security/noise":          {"github.com/flynn/noise", "golang.org/x/crypto"},
	"security/tls":            {"golang.org/x/crypto"},
	"muxer":                   {},
	"muxer/muxertest":         {"golang.org/x/net/nettest"},
	"transport":               {"github.com/multiformats/go-multiaddr", "golang.org/x/sys"},
	"transport/transporttest": {"github.com/multiformats/go-multiaddr", "golang.org/x/net/nettest"},
	"simnet":                  {"github.com/multiformats/go-multiaddr"},
	"plexustest":              {"github.com/multiformats/go-multiaddr"},
	"identify":                {"github.com/multiformats/go-multiaddr"},
	"node":                    {"github.com/multiformats/go-multiaddr"},
	"cmd":                     {"github.com/multiformats/go-multiaddr", "github.com/alecthomas/kong", "golang.org/x/term"},
	"examples":                {"github.com/multiformats/go-multiaddr"},
}

// goPackage is one folder with Go files.
type goPackage struct {
	dir     string
	imports map[string]bool // of files that are not tests
	doc     bool
}

// packages reads the module's folders. Nested modules are left out.
func packages(t *testing.T) []goPackage {
	t.Helper()
	byDir := make(map[string]*goPackage)
	err := filepath.WalkDir(".", func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if _, err := os.Stat(filepath.Join(p, "go.mod")); p != "." && err == nil || d.Name() == "testdata" || strings.HasPrefix(d.Name(), ".") && p != "." {
				return fs.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(p, ".go") || strings.HasSuffix(p, "_test.go") {
			return nil
		}
		f, err := parser.ParseFile(token.NewFileSet(), p, nil, parser.ImportsOnly|parser.ParseComments)
		if err != nil {
			return err
		}
		dir := filepath.ToSlash(filepath.Dir(p))
		pkg := byDir[dir]
		if pkg == nil {
			pkg = &goPackage{dir: dir, imports: make(map[string]bool)}
			byDir[dir] = pkg
		}
		pkg.doc = pkg.doc || f.Doc != nil
		for _, im := range f.Imports {
			s, _ := strconv.Unquote(im.Path.Value)
			pkg.imports[s] = true
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	var all []goPackage
	for _, p := range byDir {
		all = append(all, *p)
	}
	return all
}

func layerOf(dir string) int {
	top, _, _ := strings.Cut(dir, "/")
	return slices.IndexFunc(layers, func(l []string) bool { return slices.Contains(l, top) })
}

// TestLayers holds imports to the layers above.
func TestLayers(t *testing.T) {
	for _, p := range packages(t) {
		from := layerOf(p.dir)
		if from < 0 {
			t.Errorf("%s stands in no layer", p.dir)
			continue
		}
		for im := range p.imports {
			rel, ours := strings.CutPrefix(im, module)
			if !ours {
				continue
			}
			rel = strings.TrimPrefix(rel, "/")
			if rel == "" {
				rel = "."
			}
			own := strings.Split(p.dir, "/")[0] == strings.Split(rel, "/")[0]
			if to := layerOf(rel); to >= from && !own {
				t.Errorf("%s imports %s, which stands in a layer not below it", p.dir, rel)
			}
			if p.dir == "." && strings.Count(rel, "/") > 0 && !strings.HasPrefix(rel, "internal/") {
				t.Errorf("the root imports %s: it names no concrete transport, muxer or security", rel)
			}
		}
	}
}

// TestThirdParty holds third-party imports to the table above.
func TestThirdParty(t *testing.T) {
	for _, p := range packages(t) {
		for im := range p.imports {
			first, _, _ := strings.Cut(im, "/")
			if !strings.Contains(first, ".") || strings.HasPrefix(im, module) {
				continue
			}
			if !allowed(p.dir, im) {
				t.Errorf("%s imports %s, which its row in thirdParty does not name", p.dir, im)
			}
			if strings.Contains(im, "libp2p") {
				t.Errorf("%s imports %s", p.dir, im)
			}
		}
	}
}

func allowed(dir, im string) bool {
	for {
		for _, m := range thirdParty[dir] {
			if strings.HasPrefix(im, m) {
				return true
			}
		}
		if dir == "." || !strings.Contains(dir, "/") {
			return false
		}
		dir = path.Dir(dir)
	}
}

// TestPackageComments: a package opens with prose.
func TestPackageComments(t *testing.T) {
	for _, p := range packages(t) {
		if !p.doc {
			t.Errorf("%s has no package comment", p.dir)
		}
	}
}

// TestNoSleep: tests wait for events, or sleep in virtual time.
func TestNoSleep(t *testing.T) {
	sleep := regexp.MustCompile(`\btime\.Sleep\(`)
	err := filepath.WalkDir(".", func(p string, d fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(p, "_test.go") || p == "layers_test.go" {
			return err
		}
		b, err := os.ReadFile(p)
		if sleep.Match(b) && !strings.Contains(string(b), "testing/synctest") && !strings.Contains(string(b), "plexustest.Pair(") {
			t.Errorf("%s sleeps on the wall clock", p)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}
