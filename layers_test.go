package plexus_test

import (
	"go/ast"
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
	{"identify", "ping", "perf", "fetch", "nat", "relay", "discovery", "pubsub", "exchange", "consensus"},
	{"autotls", "routing"},
	{"node"},
	{"cmd", "examples"},
}

// thirdParty lists, by folder, the modules that it and the folders below it may
// import. A module that only one folder needs stays there.
var thirdParty = map[string][]string{
	".":                        {"github.com/multiformats/go-multiaddr"},
	"internal/pb":              {"google.golang.org/protobuf/encoding/protowire", "github.com/multiformats/go-varint"},
	"peer":                     {"github.com/multiformats/go-multiaddr", "github.com/multiformats/go-multihash", "github.com/multiformats/go-varint", "github.com/ipfs/go-cid", "github.com/decred/dcrd/dcrec/secp256k1/v4"},
	"dial":                     {"github.com/multiformats/go-multiaddr"},
	"security":                 {},
	"security/noise":           {"golang.org/x/crypto"},
	"security/tls":             {"golang.org/x/crypto"},
	"security/pnet":            {"golang.org/x/crypto", "github.com/multiformats/go-multiaddr"},
	"muxer":                    {},
	"muxer/muxertest":          {"golang.org/x/net/nettest"},
	"transport":                {"github.com/multiformats/go-multiaddr", "golang.org/x/sys"},
	"transport/quic":           {"github.com/multiformats/go-multiaddr", "github.com/quic-go/quic-go"},
	"transport/webrtc":         {"github.com/multiformats/go-multiaddr", "github.com/pion/stun/v3"},
	"transport/webrtc/private": {"github.com/multiformats/go-multiaddr", "github.com/multiformats/go-multihash", "github.com/pion/ice/v4", "github.com/pion/logging", "github.com/pion/stun/v3"},
	"transport/webtransport":   {"github.com/multiformats/go-multiaddr", "github.com/quic-go/quic-go"},
	"transport/internal/rtc":   {"github.com/multiformats/go-varint", "github.com/pion/dtls/v3", "github.com/pion/logging"},
	"transport/internal":       {"github.com/multiformats/go-multiaddr", "github.com/quic-go/quic-go"},
	"transport/transporttest":  {"github.com/multiformats/go-multiaddr", "golang.org/x/net/nettest"},
	"simnet":                   {"github.com/multiformats/go-multiaddr"},
	"plexustest":               {"github.com/multiformats/go-multiaddr"},
	"identify":                 {"github.com/multiformats/go-multiaddr"},
	"pubsub":                   {"google.golang.org/protobuf/encoding/protowire"},
	"routing":                  {"github.com/multiformats/go-multiaddr", "github.com/multiformats/go-multihash"},
	"routing/ipns":             {"github.com/fxamacker/cbor/v2"},
	"autotls":                  {"github.com/multiformats/go-multiaddr", "golang.org/x/crypto/acme"},
	"node":                     {"github.com/multiformats/go-multiaddr"},
	"cmd":                      {"github.com/multiformats/go-multiaddr", "github.com/alecthomas/kong", "golang.org/x/term"},
	"examples":                 {"github.com/multiformats/go-multiaddr", "github.com/multiformats/go-multihash"},
}

// goPackage is one folder with Go files.
type goPackage struct {
	dir     string
	imports map[string]bool // of files that are not tests
	doc     bool
	files   []*ast.File // neither are these
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
		f, err := parser.ParseFile(token.NewFileSet(), p, nil, parser.SkipObjectResolution|parser.ParseComments)
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
		pkg.files = append(pkg.files, f)
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

// TestSignatures: what a package exports has no types of third parties but multiformats',
// so that these can be replaced.
func TestSignatures(t *testing.T) {
	version := regexp.MustCompile(`/v\d+$`)
	for _, p := range packages(t) {
		if strings.Contains(p.dir, "internal") || strings.HasPrefix(p.dir, "cmd") {
			continue
		}
		for _, f := range p.files {
			foreign := make(map[string]string) // import paths by name
			for _, im := range f.Imports {
				s, _ := strconv.Unquote(im.Path.Value)
				first, _, _ := strings.Cut(s, "/")
				if !strings.Contains(first, ".") || strings.HasPrefix(s, module) || strings.HasPrefix(s, "github.com/multiformats/") {
					continue
				}
				name := strings.TrimSuffix(strings.TrimPrefix(path.Base(version.ReplaceAllString(s, "")), "go-"), "-go")
				if im.Name != nil {
					name = im.Name.Name
				}
				foreign[name] = s
			}
			for what, typ := range exported(f) {
				ast.Inspect(typ, func(n ast.Node) bool {
					if sel, ok := n.(*ast.SelectorExpr); ok {
						if x, ok := sel.X.(*ast.Ident); ok && foreign[x.Name] != "" {
							t.Errorf("%s: %s has a type of %s", p.dir, what, foreign[x.Name])
						}
					}
					return true
				})
			}
		}
	}
}

// exported are the types that can be seen from elsewhere, by what has them.
func exported(f *ast.File) map[string]ast.Node {
	all := make(map[string]ast.Node)
	for _, d := range f.Decls {
		switch d := d.(type) {
		case *ast.FuncDecl:
			if d.Recv != nil {
				recv := d.Recv.List[0].Type
				if star, ok := recv.(*ast.StarExpr); ok {
					recv = star.X
				}
				if id, ok := recv.(*ast.Ident); ok && !id.IsExported() {
					continue
				}
			}
			if d.Name.IsExported() {
				all[d.Name.Name] = d.Type
			}
		case *ast.GenDecl:
			for _, spec := range d.Specs {
				switch spec := spec.(type) {
				case *ast.ValueSpec:
					if spec.Names[0].IsExported() && spec.Type != nil {
						all[spec.Names[0].Name] = spec.Type
					}
				case *ast.TypeSpec:
					st, ok := spec.Type.(*ast.StructType)
					switch {
					case !spec.Name.IsExported():
					case !ok:
						all[spec.Name.Name] = spec.Type
					default:
						for _, field := range st.Fields.List {
							if len(field.Names) == 0 || field.Names[0].IsExported() {
								all[spec.Name.Name+" at "+strconv.Itoa(int(field.Pos()))] = field.Type
							}
						}
					}
				}
			}
		}
	}
	return all
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
