package policy

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const explainedSource = `p, anonymous, /login, POST, allow
p, authenticated, /me, GET, allow
p, perm:tasks.use, /tasks, GET|POST, allow
p, perm:tasks.use, /tasks/:id, GET|PATCH, allow
p, perm:tasks.admin, /admin/tasks, GET, allow
p, perm:tasks.admin, /admin/all, *, allow
p, role:intern, /tasks/:id, PATCH|DELETE, deny
p, role:intern, /vault/*, *, deny
p, perm:audit.read, /audit, GET, allow
g, role:user, perm:tasks.use
g, role:intern, role:user
g, role:admin, role:user
g, role:admin, perm:tasks.admin
`

func TestExplanations(t *testing.T) {
	p := mustParse(t, explainedSource)
	for _, c := range []struct {
		what         string
		caller       Caller
		method, path string
		effect       Effect
		line         int
		near         []string // line, then the parts that failed
		changes      []string // the edits of the first
	}{
		{"what is allowed needs no change", withRoles("user"), "GET", "/tasks/9", Allow, 4, []string{"7 method subject"}, nil},
		{"a permission that somebody else has", withRoles("user"), "GET", "/admin/all", Deny, 0,
			[]string{"6 subject", "5 path subject"}, []string{"add p, role:user, /admin/all, GET, allow"}},
		{"a permission with one rule is granted rather than copied", withRoles("user"), "GET", "/audit", Deny, 0,
			[]string{"9 subject"}, []string{"add g, role:user, perm:audit.read"}},
		{"a method that a rule lacks", withRoles("user"), "DELETE", "/tasks/9", Deny, 0,
			[]string{"4 method"}, []string{"replace 4 p, perm:tasks.use, /tasks/:id, GET|PATCH|DELETE, allow"}},
		{"a method in lower case can only be allowed with all", withRoles("user"), "get", "/tasks/9", Deny, 0,
			[]string{"4 method"}, []string{"add p, role:user, /tasks/:id, *, allow"}},
		{"a trailing slash", withRoles("user"), "GET", "/tasks/", Deny, 0,
			[]string{"3 path", "4 path"}, []string{"add p, role:user, /tasks/, GET, allow"}},
		{"a slip in a word", withRoles("user"), "GET", "/task", Deny, 0,
			[]string{"3 path"}, []string{"add p, role:user, /task, GET, allow"}},
		{"something that no rule is near", withRoles("user"), "GET", "/orders/4711/items/0198c0de-77aa", Deny, 0,
			nil, []string{"add p, role:user, /orders/:id/items/:id2, GET, allow"}},
		{"a denial of methods loses one", withRoles("intern"), "PATCH", "/tasks/9", Deny, 7,
			nil, []string{"replace 7 p, role:intern, /tasks/:id, DELETE, deny"}},
		{"a denial of everything becomes one of all other methods, and something must allow", withRoles("intern"), "GET", "/vault/x", Deny, 8,
			nil, []string{"replace 8 p, role:intern, /vault/*, HEAD|POST|PUT|PATCH|DELETE|OPTIONS|CONNECT|TRACE, deny", "add p, role:intern, /vault/x, GET, allow"}},
		{"a stranger", Caller{}, "GET", "/me", Deny, 0,
			[]string{"2 subject"}, []string{"add p, anonymous, /me, GET, allow"}},
		{"a role that the policy does not name", withRoles("guest"), "GET", "/vault/x", Deny, 0,
			nil, []string{"add p, role:guest, /vault/x, GET, allow"}},
		{"a role that no policy could name", withRoles("perm:tasks.use"), "GET", "/tasks", Deny, 0,
			[]string{"3 subject", "4 path subject"}, []string{"add p, authenticated, /tasks, GET, allow"}},
		{"a path that is not canonical", withRoles("admin"), "GET", "/tasks/../tasks", Deny, 0, nil, nil},
		{"what cannot be written in a pattern", withRoles("user"), "GET", `/x/a,b/a:b/"`, Deny, 0,
			nil, []string{"add p, role:user, /x/:id/:id2/:id3, GET, allow"}},
	} {
		t.Run(c.what, func(t *testing.T) {
			e := p.Explain(c.caller, c.method, c.path)
			line := 0
			if e.Rule != nil {
				line = e.Rule.Line
			}
			if e.Effect != c.effect || line != c.line {
				t.Errorf("%s by line %d, want %s by %d", e.Effect, line, c.effect, c.line)
			}
			var near, edits []string
			for _, n := range e.Near {
				text := strings.Split(n.RuleRef.String(), ":")[1]
				for _, f := range n.Failed {
					text += " " + string(f.Part)
				}
				near = append(near, text)
			}
			if len(e.Changes) > 0 {
				for _, edit := range e.Changes[0].Edits {
					edits = append(edits, spell(edit))
				}
			}
			if diff := cmp.Diff(c.near, near); diff != "" {
				t.Errorf("near: %s", diff)
			}
			if diff := cmp.Diff(c.changes, edits); diff != "" {
				t.Errorf("changes: %s", diff)
			}
		})
	}
}

// spell writes an edit in one line.
func spell(e Edit) string {
	if e.Action == AddLine {
		return fmt.Sprintf("add %s", e.New)
	}
	return fmt.Sprintf("%s %d %s", e.Action, e.Line, e.New)
}

func TestExplanationsSayWhereASubjectComesFrom(t *testing.T) {
	p := mustParse(t, explainedSource)
	want := map[string][]int{
		"anonymous": nil, "authenticated": nil, "role:admin": nil,
		"role:user": {12}, "perm:tasks.admin": {13}, "perm:tasks.use": {12, 10},
	}
	got := map[string][]int{}
	for _, m := range p.Explain(withRoles("admin", "admin"), "GET", "/").Subjects {
		var lines []int
		for _, via := range m.Via {
			lines = append(lines, via.Line)
		}
		if _, twice := got[m.Subject]; twice {
			t.Errorf("%s twice", m.Subject)
		}
		got[m.Subject] = lines
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestAnExplanationInWords(t *testing.T) {
	got := mustParse(t, explainedSource).Explain(withRoles("user", "usr"), "GET", "/admin/tasks").String()
	want := `GET /admin/tasks is denied
  no rule allows it

the caller is
  anonymous
  authenticated
  role:user
  perm:tasks.use
      by policy.csv:10: g, role:user, perm:tasks.use
  and has the role "usr", which the policy does not name

nearly allowed by
  policy.csv:5: p, perm:tasks.admin, /admin/tasks, GET, allow
      but the caller is not perm:tasks.admin, as is role:admin
`
	if head, _, _ := strings.Cut(got, "  policy.csv:6"); head != want {
		t.Error(cmp.Diff(want, head))
	}
	if !strings.Contains(got, "the smallest change that would allow it\n  add           p, role:user, /admin/tasks, GET, allow\n") {
		t.Error(got)
	}
}

func TestNothingIsExplainedWithoutAPolicy(t *testing.T) {
	var none *Policy
	if e := none.Explain(withRoles("admin"), "GET", "/"); e.Effect != Deny || e.Changes != nil {
		t.Errorf("%+v", e)
	}
}

// An explanation says what Decide says, and each change that it suggests for a
// denied request makes a policy that allows it.
func TestExplanationsAgreeWithDecisions(t *testing.T) {
	seeds := uint64(200)
	if raceDetector {
		seeds = 20
	}
	denied, applied := 0, map[Action]int{}
	for seed := range seeds {
		g := generate(randomDice(seed))
		p := mustCompile(t, g.source)
		for i, c := range g.callers {
			for j, path := range g.paths {
				method := g.methods[(i+j)%len(g.methods)]
				d, e := p.Decide(c, method, path), p.Explain(c, method, path)
				var rule RuleRef
				if e.Rule != nil {
					rule = *e.Rule
				}
				if e.Effect != effectOf(d.Allowed) || rule != (RuleRef{d.Rule, d.File, d.Line}) {
					t.Fatalf("seed %d: %+v %s %q: %+v, but Explain says %s %+v", seed, c, method, path, d, e.Effect, rule)
				}
				if (d.Rule != "") != (len(e.Applies) > 0) {
					t.Fatalf("seed %d: %+v %s %q: decided by %q, but %d rules apply", seed, c, method, path, d.Rule, len(e.Applies))
				}
				if d.Allowed || !isCanonical(path) {
					if e.Changes != nil {
						t.Fatalf("seed %d: %s %q needs no change or admits none: %+v", seed, method, path, e.Changes)
					}
					continue
				}
				denied++
				if len(e.Changes) == 0 {
					t.Fatalf("seed %d: %+v %s %q: no change", seed, c, method, path)
				}
				for _, change := range e.Changes {
					for _, edit := range change.Edits {
						applied[edit.Action]++
					}
					after := mustCompile(t, apply(t, g.source, change))
					if !after.Decide(c, method, path).Allowed {
						t.Fatalf("seed %d: %+v %s %q is still denied after\n%s\n%s", seed, c, method, path, change, g.source)
					}
				}
			}
		}
	}
	t.Log(denied, applied)
	if least := denied / 50; applied[AddLine] < least || applied[ReplaceLine] < least || applied[RemoveLine] < least {
		t.Error("some kind of change is hardly suggested")
	}
}

// mustCompile is mustParse without the comparison with Casbin, which has its own
// test and takes most of the time.
func mustCompile(t testing.TB, source string) *Policy {
	t.Helper()
	d, problems := parse("policy.csv", []byte(source))
	if len(problems) > 0 {
		t.Fatalf("%v\n%s", problems, source)
	}
	p, err := newPolicy(d, newHasher())
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func apply(t *testing.T, source string, c Change) string {
	t.Helper()
	lines := strings.Split(source, "\n")
	for _, e := range c.Edits {
		if e.Action != AddLine && lines[e.Line-1] != e.Old {
			t.Fatalf("line %d is %q, not %q", e.Line, lines[e.Line-1], e.Old)
		}
		switch e.Action {
		case AddLine:
			lines = slices.Concat(lines, []string{e.New})
		case ReplaceLine:
			lines[e.Line-1] = e.New
		case RemoveLine:
			lines[e.Line-1] = ""
		}
	}
	return strings.Join(lines, "\n")
}
