package policy

import (
	"bytes"
	"encoding/xml"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func mustRun(t testing.TB, s *Suite, p *Policy) Report {
	t.Helper()
	r, err := s.Run(p)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestCoverageSaysWhichLinesNoTestUses(t *testing.T) {
	p := mustParse(t, `p, anonymous, /tasks, GET, allow
p, perm:write, /tasks, POST, allow
p, role:boss, /tasks, *, deny
p, role:boss, /tasks, PUT, allow
p, anonymous, /other, GET, allow
g, role:user, perm:write
g, role:chief, role:user
g, role:boss, role:chief
g, role:user, perm:nothing
`)
	s, err := ParseSuite("s", []byte(`principals: {stranger: anonymous, chief: {roles: [chief]}, boss: {roles: [boss]}}
tests:
  - {name: read, principals: [stranger], requests: [GET /tasks], expect: {stranger: allow}}
  - {name: write, principals: [chief], requests: [POST /tasks], expect: {chief: allow}}
  - {name: none, principals: [boss], requests: [PUT /tasks, PUT /nowhere]}
`))
	if err != nil {
		t.Fatal(err)
	}
	c := mustRun(t, s, p).Coverage(p)
	want := `policy.csv:4: no test uses: p, role:boss, /tasks, PUT, allow
policy.csv:5: no test uses: p, anonymous, /other, GET, allow
policy.csv:8: no test uses: g, role:boss, role:chief
policy.csv:9: no test uses: g, role:user, perm:nothing
5 of 9 lines covered (55.5%)
`
	if diff := cmp.Diff(want, c.String()); diff != "" {
		t.Error(diff)
	}
	if !c.Reaches(55.5) || c.Reaches(56) || !c.Reaches(0) {
		t.Error("another percentage is reached than is said")
	}
	c = mustRun(t, s.Only(regexp.MustCompile("^read$")), p).Coverage(p)
	if c.Covered != 1 {
		t.Errorf("one test alone covers\n%s", c)
	}
	if s.Only(regexp.MustCompile("^rea$")) != nil {
		t.Error("there are tests of no such name")
	}
}

// Without the lines that no check uses, every check is decided by the same rule.
func TestLinesThatNoTestUsesDecideNothing(t *testing.T) {
	covered, uncovered := 0, 0
	for seed := range uint64(200) {
		g := generate(randomDice(seed))
		p := mustCompile(t, g.source)
		var report Report
		ask := func(p *Policy, note func(Caller, Check)) {
			for _, caller := range g.callers {
				for i, path := range g.paths {
					method := g.methods[i%len(g.methods)]
					note(caller, check(p, test{}, request{method: method, path: path}, principal{caller: caller}, false))
				}
			}
		}
		ask(p, func(_ Caller, c Check) { report.Checks = append(report.Checks, c) })
		c := report.Coverage(p)
		covered += c.Covered
		uncovered += len(c.Uncovered)
		if c.Covered+len(c.Uncovered) != c.Lines {
			t.Fatalf("seed %d: %+v", seed, c)
		}
		lines := strings.Split(g.source, "\n")
		for _, r := range c.Uncovered {
			lines[r.Line-1] = ""
		}
		i := 0
		ask(mustCompile(t, strings.Join(append(lines, "p, role:nobody, /nothing, GET, allow"), "\n")), func(caller Caller, got Check) {
			if want := report.Checks[i]; got.Rule != want.Rule || got.RuleLine != want.RuleLine {
				t.Fatalf("seed %d: %+v %s %q: decided by %q, and without unused lines by %q\n%s\n%s", seed, caller, got.Method, got.Path, want.Rule, got.Rule, g.source, c)
			}
			i++
		})
	}
	if covered < 500 || uncovered < 500 {
		t.Errorf("%d lines covered, %d not: the test says little", covered, uncovered)
	}
}

func TestAReportForCIServers(t *testing.T) {
	p := mustParse(t, "p, role:user, /tasks, GET, allow\n")
	s, err := ParseSuite("s.yaml", []byte(`principals: {"<ana> & co": {roles: [user]}}
tests: [{name: 'tasks are "private"', requests: [GET /tasks, PUT /tasks]}]
`))
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if err := mustRun(t, s, p).JUnit(&b); err != nil {
		t.Fatal(err)
	}
	want := `<?xml version="1.0" encoding="UTF-8"?>
<testsuites tests="2" failures="1">
  <testsuite name="s.yaml" tests="2" failures="1">
    <testcase classname="tasks are &#34;private&#34;" name="&lt;ana&gt; &amp; co GET /tasks" file="s.yaml" line="2">
      <failure message="want deny, got allow">&lt;ana&gt; &amp; co (roles user) GET /tasks: want denied, got allowed by policy.csv:1: p, role:user, /tasks, GET, allow</failure>
    </testcase>
    <testcase classname="tasks are &#34;private&#34;" name="&lt;ana&gt; &amp; co PUT /tasks" file="s.yaml" line="2"></testcase>
  </testsuite>
</testsuites>
`
	if diff := cmp.Diff(want, b.String()); diff != "" {
		t.Error(diff)
	}
	var back junitSuites
	if err := xml.Unmarshal(b.Bytes(), &back); err != nil || len(back.Suite.Cases) != 2 {
		t.Error(err)
	}
}
