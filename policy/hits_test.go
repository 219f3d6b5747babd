package policy

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestHitsCountTheRuleThatDecidedAndOutliveAReload(t *testing.T) {
	ask := func(h *Hits, p *Policy, n int, method, path string) {
		for range n {
			h.Count(p.Decide(Caller{}, method, path))
		}
	}
	first := mustParse(t, "p, anonymous, /a, GET, allow\np, anonymous, /b, GET, allow\np,  anonymous, /b, GET, allow\np, anonymous, /c, GET, deny\n")
	h := NewHits(first, nil)
	ask(h, first, 2, "GET", "/a")
	ask(h, first, 3, "GET", "/b")
	ask(h, first, 4, "GET", "/c")
	ask(h, first, 5, "GET", "/nowhere")
	want := []RuleHits{{1, "p, anonymous, /a, GET, allow", 2}, {2, "p, anonymous, /b, GET, allow", 3}, {4, "p, anonymous, /c, GET, deny", 4}}
	if diff := cmp.Diff(want, h.All()); diff != "" {
		t.Error(diff)
	}

	// Moved, aligned otherwise, without its twin; another goes, a new one comes.
	second := mustParse(t, "p, anonymous, /new, GET, allow\np, anonymous,    /b, GET, allow\np, anonymous, /a, GET|POST, allow\n")
	next := NewHits(second, h)
	ask(next, second, 10, "GET", "/b")
	ask(h, first, 100, "GET", "/b") // a request that began before
	ask(next, second, 1, "GET", "/new")
	want = []RuleHits{{1, "p, anonymous, /new, GET, allow", 1}, {2, "p, anonymous, /b, GET, allow", 113}, {3, "p, anonymous, /a, GET|POST, allow", 0}}
	if diff := cmp.Diff(want, next.All()); diff != "" {
		t.Error(diff)
	}
	got := map[string]uint64{}
	for rule, n := range next.Counts() {
		got[rule] += n
	}
	if diff := cmp.Diff(map[string]uint64{"p, anonymous, /new, GET, allow": 1, "p, anonymous, /b, GET, allow": 113}, got); diff != "" {
		t.Error(diff)
	}
	if n := testing.AllocsPerRun(100, func() { h.Count(first.Decide(Caller{}, "GET", "/a")) }); n > 0 {
		t.Errorf("counting takes %v allocations", n)
	}
}

// With more rules than are scanned, a table says which decides: the right one counts.
func TestHitsOfLongLists(t *testing.T) {
	var b strings.Builder
	for _, role := range strings.Split(strings.Repeat("x", 100), "") {
		b.WriteString("p, role:r" + role + string(rune('a'+b.Len()%26)) + ", /a, GET, allow\n")
	}
	b.WriteString("p, role:last, /a, GET, allow\n")
	p := mustParse(t, b.String())
	h := NewHits(p, nil)
	d := p.Decide(Caller{Authenticated: true, Roles: []string{"last"}}, "GET", "/a")
	h.Count(d)
	for _, r := range h.All() {
		if want := uint64(0); (r.Rule == d.Rule) != (r.Hits == 1) || r.Rule != d.Rule && r.Hits != want {
			t.Errorf("%+v, decided by %s", r, d.Rule)
		}
	}
}

func TestUnusedRulesAreNamedAndTheTighterPolicySuggested(t *testing.T) {
	source := `# head
p, anonymous, /a, GET, allow
p, anonymous, /b, GET, allow
p, anonymous, /c, GET, deny
# 5
# 6
# 7
# 8
# 9
# 10
p, anonymous, /d,   GET, allow
p, anonymous, /e, GET, allow`
	used := map[string]int64{"p, anonymous, /a, GET, allow": 7, "p, anonymous, /e, GET, allow": 1}
	u := Usage{Hits: func(rule string) int64 { return used[rule] }, Since: "2026-11-01"}
	problems, diff, err := u.Unused("policy.csv", []byte(source))
	if err != nil {
		t.Fatal(err)
	}
	want := `policy.csv:3: warning: the rule has decided nothing since 2026-11-01; if it is not needed, remove it [no-hits]
policy.csv:4: warning: the rule has decided nothing since 2026-11-01; nobody has tried; it may be right nevertheless [no-hits]
policy.csv:11: warning: the rule has decided nothing since 2026-11-01; if it is not needed, remove it [no-hits]`
	if d := cmp.Diff(want, problems.Error()); d != "" {
		t.Error(d)
	}
	want = `--- a/policy.csv
+++ b/policy.csv
@@ -1,6 +1,5 @@
 # head
 p, anonymous, /a, GET, allow
-p, anonymous, /b, GET, allow
 p, anonymous, /c, GET, deny
 # 5
 # 6
@@ -8,5 +7,4 @@
 # 8
 # 9
 # 10
-p, anonymous, /d,   GET, allow
 p, anonymous, /e, GET, allow
\ No newline at end of file
`
	if d := cmp.Diff(want, diff); d != "" {
		t.Error(d)
	}
	// Nothing used: no suggestion to be without a policy.
	u.Hits = func(string) int64 { return 0 }
	if _, diff, err := u.Unused("policy.csv", []byte("p, anonymous, /a, GET, allow")); diff != "" || err != nil {
		t.Error(diff, err)
	}
	if _, _, err := u.Unused("policy.csv", []byte("nonsense")); err == nil {
		t.Error("no error for a file that is no policy")
	}
}
