package config

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/pb33f/jsonschema/v6"
	"github.com/pb33f/jsonschema/v6/kind"
	"gopkg.in/yaml.v3"
)

// schema compiles what Schema returns, which validates it against its own
// schema, that of draft 2020-12.
func schema(t *testing.T) *jsonschema.Schema {
	t.Helper()
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(Schema()))
	if err != nil {
		t.Fatal(err)
	}
	compiler := jsonschema.NewCompiler()
	if err := compiler.AddResource("gateway.schema.json", doc); err != nil {
		t.Fatal(err)
	}
	s, err := compiler.Compile("gateway.schema.json")
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func parse(t *testing.T, text []byte) any {
	t.Helper()
	var doc any
	if err := yaml.Unmarshal(text, &doc); err != nil {
		t.Fatal(err)
	}
	return doc
}

func TestTheSchemaAcceptsWhatLoads(t *testing.T) {
	s := schema(t)
	for _, path := range []string{"../gateway.yaml", "testdata/design.yaml", "testdata/minimal.yaml", "testdata/routes.yaml", "testdata/env/gateway.yaml"} {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := Load(path, nil); err != nil {
			t.Errorf("the loader refuses %s: %v", path, err)
		}
		if err := s.Validate(parse(t, text)); err != nil {
			t.Errorf("the schema refuses %s: %v", path, err)
		}
	}
}

// Of the files in testdata/bad, the schema finds in those of form each problem
// that the loader finds. Those of rules it accepts: they have the right form.
func TestTheSchemaAndTheLoaderAgree(t *testing.T) {
	s := schema(t)
	for _, path := range badFiles(t) {
		class := filepath.Base(filepath.Dir(path))
		if class == "yaml" {
			continue // not what a schema is about
		}
		t.Run(strings.TrimPrefix(path, "testdata/bad/"), func(t *testing.T) {
			_, text := readBad(t, path)
			found := map[string]bool{}
			var invalid *jsonschema.ValidationError
			if errors.As(s.Validate(parse(t, text)), &invalid) {
				addPaths(found, invalid)
			}
			if class == "rules" {
				if len(found) > 0 {
					t.Errorf("the schema refuses values at %v", found)
				}
				return
			}
			var problems *Error
			if _, err := decode("gateway.yaml", text, nil); !errors.As(err, &problems) {
				t.Fatalf("got error %v, want problems", err)
			}
			loaded := map[string]bool{}
			for _, p := range problems.Problems {
				loaded[p.Key] = true
				// Where a section is missing the loader asks for what it must hold.
				if path := p.Key; !found[path] && !found[parent(path)] && !found[parent(parent(path))] {
					t.Errorf("the schema finds nothing wrong at %s", path)
				}
			}
			for path := range found {
				if !anyUnder(loaded, path) {
					t.Errorf("the loader finds nothing wrong at or below %q", path)
				}
			}
		})
	}
}

func anyUnder(paths map[string]bool, path string) bool {
	for p := range paths {
		if p == path || strings.HasPrefix(p, path+".") || path == "" {
			return true
		}
	}
	return false
}

// addPaths collects the places of the innermost errors, as the loader names them.
func addPaths(paths map[string]bool, err *jsonschema.ValidationError) {
	path := ""
	for _, part := range err.InstanceLocation {
		if _, notIndex := strconv.Atoi(part); notIndex == nil {
			path += "[" + part + "]"
		} else {
			path = join(path, part)
		}
	}
	switch k := err.ErrorKind.(type) {
	case *kind.Required:
		for _, name := range k.Missing {
			paths[join(path, name)] = true
		}
	case *kind.AdditionalProperties:
		for _, name := range k.Properties {
			paths[join(path, name)] = true
		}
	case *kind.PropertyNames:
		paths[join(path, k.Property)] = true
	case *kind.UniqueItems:
		paths[fmt.Sprintf("%s[%d]", path, k.Duplicates[1])] = true
	default:
		for _, cause := range err.Causes {
			addPaths(paths, cause)
		}
		if len(err.Causes) == 0 {
			paths[path] = true
		}
	}
}

func TestEveryKeyIsDescribed(t *testing.T) {
	walk(keysOf(reflect.TypeFor[Config]()), "", func(k key, path string) {
		if !regexp.MustCompile(`^[a-z][a-z_]*$`).MatchString(k.name) {
			t.Errorf("%s: the name is not in snake case", path)
		}
		if k.shape != section && k.doc == "" {
			t.Errorf("%s: there is no doc", path)
		}
		for _, bound := range []string{k.min, k.max} {
			k.bound(bound) // panics if it is none
		}
		if text := k.fallback; k.shape == scalar && text != "" {
			if _, err := k.format.parse(text, ""); err != nil {
				t.Errorf("%s: the default %q: %v", path, text, err)
			}
			if p := k.format.pattern; p != "" && !regexp.MustCompile(whole(p)).MatchString(text) {
				t.Errorf("%s: the default %q does not match %s", path, text, p)
			}
		}
	})
}

// README.md holds the table of keys; go test ./config -update puts it there.
func TestTheReadmeHasEveryKey(t *testing.T) {
	const path, begin, end = "README.md", "<!-- keys: begin -->\n", "<!-- keys: end -->"
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, found := strings.Cut(string(text), begin)
	table, after, closed := strings.Cut(rest, end)
	if !found || !closed {
		t.Fatalf("README.md has no table of keys between %q and %q", begin, end)
	}
	if strings.TrimSpace(table) == strings.TrimSpace(Table()) {
		return
	}
	if !*update {
		t.Fatal("the table of keys in README.md is not the present one; go test ./config -update puts it there")
	}
	if err := os.WriteFile(path, []byte(before+begin+"\n"+Table()+"\n"+end+after), 0o644); err != nil {
		t.Fatal(err)
	}
}
