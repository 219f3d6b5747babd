package main

import (
	"encoding/json"
	"go/ast"
	"go/parser"
	"go/token"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// The house: who may know whom, and what no room does. CONTRIBUTING.md says why.

// listed is what go list tells of a package.
type listed struct {
	ImportPath string
	Dir        string
	GoFiles    []string
	Imports    []string
	Deps       []string
}

func listPackages(t *testing.T) []listed {
	t.Helper()
	out, err := exec.Command("go", "list", "-json=ImportPath,Dir,GoFiles,Imports,Deps", "portcullis/...").Output()
	if err != nil {
		t.Fatal(err)
	}
	var all []listed
	for d := json.NewDecoder(strings.NewReader(string(out))); d.More(); {
		var p listed
		if err := d.Decode(&p); err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
	}
	if len(all) < 8 {
		t.Fatalf("found only %d packages", len(all))
	}
	return all
}

func TestWhoMayKnowWhom(t *testing.T) {
	mayImport := map[string][]string{
		"portcullis/cmd/gateway": {"portcullis/config", "portcullis/gateway", "portcullis/gateway/certs", "portcullis/policy", "portcullis/identity",
			"portcullis/identity/boltstore", "portcullis/identity/mongostore"},
		"portcullis/cmd/taskmanager":         {"portcullis/upstream"},
		"portcullis/cmd/bench":               {"portcullis/identity"}, // for its tokens
		"portcullis/gateway":                 {"portcullis/policy", "portcullis/identity"},
		"portcullis/gateway/certs":           {},
		"portcullis/gateway/certs/certstest": {}, // for tests alone, of every room
		"portcullis/policy":                  {},
		"portcullis/identity":                {},
		"portcullis/identity/boltstore":      {"portcullis/identity"},
		"portcullis/identity/mongostore":     {"portcullis/identity"},
		"portcullis/identity/storetest":      {"portcullis/identity"},
		"portcullis/upstream":                {},
		"portcullis/config":                  {},
	}
	for _, p := range listPackages(t) {
		allowed, ok := mayImport[p.ImportPath]
		if !ok {
			t.Errorf("%s is a room that nobody has drawn", p.ImportPath)
		}
		for _, i := range p.Imports {
			if strings.HasPrefix(i, "portcullis/") && !slices.Contains(allowed, i) {
				t.Errorf("%s must not import %s", p.ImportPath, i)
			}
		}
	}
}

// libraries are those that stay in the rooms they were chosen for.
func libraries() map[string][]string {
	return map[string][]string{
		"github.com/gofiber/fiber":        {"portcullis/gateway"},
		"github.com/valyala/fasthttp":     {"portcullis/gateway"},
		"github.com/casbin/casbin":        {"portcullis/policy"},
		"go.mongodb.org/mongo-driver":     {"portcullis/identity/mongostore", "portcullis/upstream"},
		"go.etcd.io/bbolt":                {"portcullis/identity/boltstore", "portcullis/upstream"},
		"github.com/golang-jwt/jwt":       {"portcullis/identity", "portcullis/upstream"},
		"github.com/spf13/cobra":          {"portcullis/cmd/gateway"},
		"github.com/wneessen/go-mail":     {"portcullis/identity"},
		"golang.org/x/sys":                {"portcullis/identity", "portcullis/cmd/bench"},
		"golang.org/x/crypto/acme":        {"portcullis/gateway", "portcullis/gateway/certs"},
		"github.com/prometheus":           {"portcullis/gateway", "portcullis/gateway/certs", "portcullis/cmd/gateway"},
		"github.com/go-json-experiment":   {"portcullis/gateway", "portcullis/cmd/gateway", "portcullis/upstream", "portcullis/config", "portcullis/policy"},
		"github.com/redis/go-redis":       {"portcullis/gateway"},
		"go.opentelemetry.io":             {"portcullis/gateway"},
		"google.golang.org/protobuf":      {"portcullis/gateway"},
		"google.golang.org/grpc":          {},
		"github.com/swaggo/files":         {"portcullis/gateway"},
		"github.com/google/pprof":         {"portcullis/cmd/bench"},
		"github.com/mtibben/confusables":  {"portcullis/identity"},
		"github.com/MicahParks/keyfunc":   {"portcullis/upstream"},
		"github.com/pb33f/libopenapi":     {},
		"github.com/rogpeppe/go-internal": {},
	}
}

func TestLibrariesStayInTheirRooms(t *testing.T) {
	rooms := libraries()
	for _, p := range listPackages(t) {
		for _, i := range p.Imports {
			for library, in := range rooms {
				if strings.HasPrefix(i, library) && !slices.Contains(in, p.ImportPath) {
					t.Errorf("%s must not import %s", p.ImportPath, i)
				}
			}
		}
	}
}

// A library in an exported signature would leave its room through the door.
func TestLibrariesAreNotInExportedSignatures(t *testing.T) {
	for _, p := range listPackages(t) {
		for name, file := range parse(t, p) {
			kept := map[string]string{} // local name → path
			for _, i := range file.Imports {
				path := strings.Trim(i.Path.Value, `"`)
				for _, library := range []string{"github.com/gofiber/fiber", "github.com/valyala/fasthttp", "github.com/casbin/casbin", "go.mongodb.org/mongo-driver", "github.com/redis/go-redis"} {
					if !strings.HasPrefix(path, library) {
						continue
					}
					local := filepath.Base(strings.TrimSuffix(strings.TrimSuffix(path, "/v2"), "/v3"))
					if i.Name != nil {
						local = i.Name.Name
					}
					kept[local] = path
				}
			}
			for _, where := range exportedTypes(file) {
				ast.Inspect(where, func(n ast.Node) bool {
					if s, ok := n.(*ast.SelectorExpr); ok {
						if x, ok := s.X.(*ast.Ident); ok && kept[x.Name] != "" {
							t.Errorf("%s: an exported signature has %s.%s", name, x.Name, s.Sel.Name)
						}
					}
					return true
				})
			}
		}
	}
}

// exportedTypes returns the parts of a file's declarations that others can see.
func exportedTypes(file *ast.File) []ast.Node {
	var all []ast.Node
	for _, d := range file.Decls {
		switch d := d.(type) {
		case *ast.FuncDecl:
			if d.Name.IsExported() && (d.Recv == nil || receiverExported(d.Recv)) {
				all = append(all, d.Type)
			}
		case *ast.GenDecl:
			for _, spec := range d.Specs {
				ts, ok := spec.(*ast.TypeSpec)
				if !ok || !ts.Name.IsExported() {
					continue
				}
				st, ok := ts.Type.(*ast.StructType)
				if !ok {
					all = append(all, ts.Type)
					continue
				}
				for _, f := range st.Fields.List {
					if len(f.Names) == 0 || f.Names[0].IsExported() {
						all = append(all, f.Type)
					}
				}
			}
		}
	}
	return all
}

func receiverExported(recv *ast.FieldList) bool {
	typ := recv.List[0].Type
	if star, ok := typ.(*ast.StarExpr); ok {
		typ = star.X
	}
	if index, ok := typ.(*ast.IndexExpr); ok {
		typ = index.X
	}
	id, ok := typ.(*ast.Ident)
	return ok && id.IsExported()
}

// constants are files whose package variables are what constants would be if Go
// had constants of those types: names of buckets, tables that nothing writes to.
func constants() []string {
	return []string{"identity/boltstore/administrators.go", "identity/boltstore/boltstore.go", "identity/boltstore/records.go",
		"identity/storetest/storetest.go", "upstream/errors.go"}
}

// Nothing happens at import, and nothing is shared behind everybody's back: no
// init, no package variable but errors, embedded files and assertions about types.
func TestNoPackageStateAndOnePackageComment(t *testing.T) {
	for _, p := range listPackages(t) {
		comments := 0
		for name, file := range parse(t, p) {
			if file.Doc != nil {
				comments++
			}
			for _, d := range file.Decls {
				if f, ok := d.(*ast.FuncDecl); ok && f.Recv == nil && f.Name.Name == "init" {
					t.Errorf("%s has an init function", name)
				}
				g, ok := d.(*ast.GenDecl)
				if !ok || g.Tok != token.VAR {
					continue
				}
				for _, spec := range g.Specs {
					if v := spec.(*ast.ValueSpec); !harmless(g, v) && !slices.Contains(constants(), name) {
						t.Errorf("%s: package variable %s", name, v.Names[0].Name)
					}
				}
			}
		}
		if comments != 1 {
			t.Errorf("%s has %d package comments", p.ImportPath, comments)
		}
	}
}

// harmless reports whether a package variable cannot be a state.
func harmless(g *ast.GenDecl, v *ast.ValueSpec) bool {
	if v.Names[0].Name == "_" || g.Doc != nil && strings.Contains(g.Doc.Text()+directives(g), "go:embed") {
		return true
	}
	for _, value := range v.Values {
		call, ok := value.(*ast.CallExpr)
		if !ok {
			return false
		}
		f, ok := call.Fun.(*ast.SelectorExpr)
		if !ok || f.Sel.Name != "New" && f.Sel.Name != "Errorf" {
			return false
		}
	}
	return len(v.Values) > 0
}

func directives(g *ast.GenDecl) string {
	var b strings.Builder
	for _, c := range g.Doc.List {
		b.WriteString(c.Text)
	}
	return b.String()
}

func parse(t *testing.T, p listed) map[string]*ast.File {
	t.Helper()
	files := map[string]*ast.File{}
	for _, name := range p.GoFiles {
		path := filepath.Join(p.Dir, name)
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ParseComments)
		if err != nil {
			t.Fatal(err)
		}
		files[strings.TrimPrefix(p.ImportPath, "portcullis/")+"/"+name] = file
	}
	return files
}
