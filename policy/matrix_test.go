package policy

import (
	"bytes"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/net/html"
)

const matrixSource = `p, anonymous, /status, GET, allow
p, perm:tasks, /tasks/*, *, allow
p, role:intern, /tasks/:id, DELETE, deny
g, role:user, perm:tasks
g, role:intern, role:user
p, role:user, /reports, GET|PUT, allow
`

func aMatrix(t *testing.T, source string, around Surroundings) *Matrix {
	t.Helper()
	m, err := mustParse(t, source).Matrix(around)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func written(t *testing.T, write func(io.Writer) error) string {
	t.Helper()
	var b bytes.Buffer
	if err := write(&b); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestAMatrixInText(t *testing.T) {
	m := aMatrix(t, matrixSource, Surroundings{Served: []Served{{What: "route", Path: "/tasks", Prefix: true}, {What: "endpoint", Path: "/status", Methods: []string{"GET"}}}})
	request := func(method, path string, roles ...string) {
		m.Count(Record{Method: method, Path: path, Subject: RecordSubject{Authenticated: roles != nil, Roles: roles}})
	}
	request("GET", "/status")
	request("DELETE", "/tasks/9", "intern")
	request("DELETE", "/tasks/9", "intern", "user", "unknown")
	request("PROPFIND", "/tasks/9/x", "unknown")
	request("GET", "/tasks/9", "user")
	request("GET", "/nowhere")
	want := `PATH        METHODS          anonymous  authenticated  role:intern  role:user
/reports    GET|PUT          .          .              (+6)         +6
/status     GET              +1 ×1      (+1)           (+1)         (+1)
/tasks/*    *                .          . ×1           (+2)         (+2)
/tasks/:id  DELETE           .          .              -3 ×2        (+2) ×1
            * except DELETE  .          .              (+2)         (+2) ×1

+N is allowed by line N of policy.csv, (+N) as well, by what is inherited; -N is denied by line N; . has no rule, and is denied;
a path is what it covers without what rows for narrower paths do
×N is the number of logged requests, of 6 in all; 1 were for what has no row
`
	if diff := cmp.Diff(want, written(t, m.Text)); diff != "" {
		t.Error(diff)
	}
	if got := written(t, m.Markdown); !strings.Contains(got, "\n| `/tasks/:id` | `DELETE` | . | . | -3 ×2 | (+2) ×1 |\n") ||
		!strings.HasPrefix(got, "| path | methods | `anonymous` | `authenticated` | `role:intern` | `role:user` |\n|---|---|---|---|---|---|\n") {
		t.Error(got)
	}
	lines := strings.Split(written(t, m.CSV), "\n")
	if len(lines) != 1+5*4+1 || lines[15] != `/tasks/:id,DELETE,role:intern,deny,false,"p, role:intern, /tasks/:id, DELETE, deny",policy.csv,3,route /tasks,2` {
		t.Errorf("%q", lines)
	}
	var served []string
	for _, r := range m.Rows {
		served = append(served, fmt.Sprint(r.Path, " ", r.ServedBy, " ", r.Unserved, " ", r.Rest))
	}
	if diff := cmp.Diff([]string{"/reports  true false", "/status endpoint false false", "/tasks/* route /tasks false true", "/tasks/:id route /tasks false false", "/tasks/:id route /tasks false false"}, served); diff != "" {
		t.Error(diff)
	}
	if via := m.Rows[2].Cells[2].Via; len(via) != 2 || via[0].Line != 5 || via[1].Line != 4 {
		t.Errorf("%+v", via)
	}
}

// A matrix says of every request what Decide says, and of what it has no row for,
// Decide says that there is no rule.
func TestAMatrixAgreesWithDecisions(t *testing.T) {
	rows, none := 0, 0
	seeds, enough := uint64(150), 1000
	if raceDetector {
		seeds, enough = 15, 100
	}
	for seed := range seeds {
		g := generate(randomDice(seed))
		p := mustCompile(t, g.source)
		m, err := p.Matrix(Surroundings{})
		if err != nil {
			t.Fatal(err)
		}
		for i, c := range m.cast.callers {
			for _, path := range g.paths {
				for _, method := range g.methods {
					d := p.Decide(c, method, path)
					found := m.rows[m.key(m.terrain.covering(path), method)]
					if len(found) == 0 {
						none++
						if d.Rule != "" {
							t.Fatalf("seed %d: no row for %s %q, which %s is decided by %q\n%s", seed, method, path, m.Subjects[i], d.Rule, g.source)
						}
						continue
					}
					for _, row := range found {
						rows++
						cell := m.Rows[row].Cells[i]
						if line := d.Line; cell.Effect != effectOf(d.Allowed) || (cell.Rule != nil) != (line > 0) || line > 0 && cell.Rule.Line != line {
							t.Fatalf("seed %d: %s %s %q: %+v, and the matrix says %+v\n%s", seed, m.Subjects[i], method, path, d, cell, g.source)
						}
					}
				}
			}
		}
	}
	if rows < 5*enough || none < enough {
		t.Errorf("%d requests with a row, %d without: the test says little", rows, none)
	}
}

// The page holds what a policy, a path or a file are called as text, loads
// nothing, and has no script and no style but its own.
func TestThePageOfAMatrixIsSafe(t *testing.T) {
	const evil = `/</script><img src=x onerror=alert(1)>/onmouseover='x'/x{{.}}/` + "`" + `&amp;/*`
	p, err := Parse(`<b>"'policy</script>.csv`, []byte("p, role:a, "+evil+", GET|X-A, allow\np, role:a, /javascript, GET, deny\n"))
	if err != nil {
		t.Fatal(err)
	}
	m, err := p.Matrix(Surroundings{Served: []Served{{What: "<i>", Path: "/<u>", Prefix: true}}})
	if err != nil {
		t.Fatal(err)
	}
	page := written(t, m.HTML)
	doc, err := html.Parse(strings.NewReader(page))
	if err != nil {
		t.Fatal(err)
	}
	var csp string
	var own, texts []string
	known := strings.Fields("html head meta title style body header div h1 p code span form input output ul li i main table thead tbody tr th td button small em b wbr aside h2 noscript script")
	for n := range doc.Descendants() {
		if n.Type == html.TextNode {
			texts = append(texts, n.Data)
			continue
		}
		if n.Type != html.ElementNode {
			continue
		}
		if !slices.Contains(known, n.Data) {
			t.Errorf("the page has a %s", n.Data)
		}
		attributes := make(map[string]string)
		for _, a := range n.Attr {
			attributes[a.Key] = a.Val
			if strings.HasPrefix(a.Key, "on") || slices.Contains([]string{"style", "src", "href", "action", "srcset"}, a.Key) {
				t.Errorf("%s has %s=%q", n.Data, a.Key, a.Val)
			}
		}
		if attributes["http-equiv"] != "" {
			csp = attributes["content"]
		}
		if n.Data == "style" || n.Data == "script" && attributes["type"] == "" {
			own = append(own, n.FirstChild.Data)
		}
	}
	if want := []string{matrixCSS, matrixJS}; !slices.Equal(own, want) {
		t.Errorf("the page has %d styles and scripts, or others than ours", len(own))
	}
	for _, want := range []string{"default-src 'none'", "style-src '" + cspHash(matrixCSS) + "'", "script-src '" + cspHash(matrixJS) + "'"} {
		if !strings.Contains(csp, want) {
			t.Errorf("the page's policy is %q", csp)
		}
	}
	for _, want := range []string{evil, p.file, "X-A"} {
		if !slices.Contains(texts, want) {
			t.Errorf("the page does not show %q", want)
		}
	}
	if again := written(t, m.HTML); again != page {
		t.Error("the page differs from time to time")
	}
}

func TestNoMatrixOfNothing(t *testing.T) {
	if _, err := (&Policy{}).Matrix(Surroundings{}); err == nil {
		t.Error("no error")
	}
}
