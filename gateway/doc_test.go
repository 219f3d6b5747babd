package gateway

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// The table in the package's documentation names every test of ReverseProxy that
// the Go at hand has, and no test of ours that is not there.
func TestTheTableBesideReverseProxyIsTrue(t *testing.T) {
	doc, err := os.ReadFile("doc.go")
	if err != nil {
		t.Fatal(err)
	}
	name := regexp.MustCompile(`\bTest[A-Za-z0-9_]+`)
	rows := map[string]string{} // theirs → ours, or why not
	last := ""
	for line := range strings.Lines(string(doc)) {
		if row, ok := strings.CutPrefix(line, "//\t\t"); ok {
			rows[last] = row
		} else if row, ok := strings.CutPrefix(line, "//\t"); ok {
			last = strings.TrimSpace(row)
		}
	}
	defined := regexp.MustCompile(`(?m)^func (Test[A-Za-z0-9_]+)\(`)
	tests := func(pattern string) (all []string) {
		files, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range files {
			text, err := os.ReadFile(f)
			if err != nil {
				t.Fatal(err)
			}
			for _, m := range defined.FindAllStringSubmatch(string(text), -1) {
				all = append(all, m[1])
			}
		}
		return all
	}
	ours := tests("*_test.go")
	for theirs, row := range rows {
		named := name.FindAllString(row, -1)
		if len(named) == 0 && !strings.HasPrefix(row, "declined") {
			t.Errorf("%s: neither a test nor a reason", theirs)
		}
		for _, n := range named {
			if !slices.Contains(ours, n) {
				t.Errorf("%s: there is no %s", theirs, n)
			}
		}
	}
	root, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		t.Fatal(err)
	}
	asked := tests(filepath.Join(strings.TrimSpace(string(root)), "src/net/http/httputil/reverseproxy_test.go"))
	if len(asked) == 0 {
		t.Skip("Go is installed without its tests: what they ask is not known here")
	}
	for _, theirs := range asked {
		if rows[theirs] == "" {
			t.Errorf("%s has no row", theirs)
		}
	}
}
