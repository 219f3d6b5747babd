package policy

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestLint(t *testing.T) {
	for _, c := range []struct {
		name, source string
		want         []string
	}{
		{"a clean file", `
			p, anonymous, /login, POST, allow
			p, perm:read, /a/:x, GET, allow
			p, role:a, /a/:x, PUT, allow
			p, role:b, /a/:x, PUT, deny
			g, role:a, perm:read
			`, nil},
		{"duplicates, whatever names are called and methods' order", `
			p, role:a, /x/:id, GET|PUT, allow
			p, role:a, /x/:key, PUT|GET, allow
			p, role:a, /x/:id/, GET|PUT, allow
			g, role:b, role:a
			g, role:b, role:a
			`, []string{"2 duplicate", "5 duplicate"}},
		{"contradictions", `
			p, role:a, /x, GET, deny
			p, role:a, /x, GET, allow
			p, role:b, /x, GET, allow
			p, role:a, /y, GET, allow
			p, role:a, /y, GET, deny
			`, []string{"2 contradiction", "4 contradiction"}},
		{"an allowed exception from a denial does not work", `
			p, role:a, /x/*, *, deny
			p, role:a, /x/open, GET, allow
			p, role:a, /x, GET, allow
			p, role:a, /xy, GET, allow
			`, []string{"2 unreachable", "3 unreachable"}},
		{"denials for whoever the subject is, too", `
			p, anonymous, /x/:y, *, deny
			p, authenticated, /a, *, deny
			p, perm:p, /x/1, GET, allow
			p, role:a, /a, GET, allow
			p, perm:q, /a, GET, allow
			g, anonymous, perm:q
			g, role:a, perm:p
			`, []string{"3 unreachable", "4 unreachable"}},
		{"a denial of less does not make unreachable", `
			p, role:a, /x/:y, GET, deny
			p, role:b, /x, *, deny
			p, role:a, /x/*, GET, allow
			p, role:a, /x/:y, GET|PUT, allow
			p, role:c, /x, GET, allow
			g, role:b, role:a
			`, nil},
		{"shadowed by a broader pattern, method or subject", `
			p, role:a, /x/*, GET|PUT, allow
			p, role:a, /x/:y, GET, allow
			p, role:b, /x/1/2, PUT, allow
			p, role:c, /x/1, PUT, allow
			p, role:a, /x/*, GET, deny
			p, role:b, /x/1, GET, deny
			g, role:b, role:a
			`, []string{"2 unreachable", "3 shadowed", "6 shadowed"}},
		{"the same for everybody", `
			p, role:a, /x, GET, allow
			p, anonymous, /x, GET, allow
			p, authenticated, /x, GET, allow
			`, []string{"1 shadowed", "3 shadowed"}},
		{"of two subjects that are the same people the later line is told", `
			p, role:a, /x, GET, allow
			p, anonymous, /x, GET, allow
			g, anonymous, role:a
			`, []string{"2 shadowed"}},
		{"a role that nothing comes with is probably a slip", `
			p, role:user, /x, GET, allow
			g, role:admin, role:usr
			`, []string{"2 empty-role did you mean role:user?"}},
		{"permissions granted but not used, used but not granted", `
			p, perm:tasks.read, /x, GET, allow
			p, perm:other, /x, PUT, allow
			g, role:a, perm:task.read
			g, role:a, perm:for-upstream
			`, []string{
			"1 ungranted-permission did you mean perm:task.read?",
			"2 ungranted-permission add g, role:NAME, perm:other",
			"3 unused-permission did you mean perm:tasks.read?",
			"4 unused-permission upstreams see it in X-User-Permissions; if none of them looks at it, remove it",
		}},
		{"methods that nobody registered", `
			p, role:a, /x, GET|FROBNICATE, allow
			p, role:a, /x, PROPFIND|PURGE, allow
			`, []string{"1 unregistered-method"}},
		{"errors come alone", `
			p, role:a, /x, GET, allow
			p, role:a, /x, GET, allow
			p, a, /x, GET, allow
			`, []string{"3 subject did you mean role:a?"}},
	} {
		source := strings.TrimPrefix(c.source, "\n")
		var got []string
		for _, p := range Lint("f", []byte(source)) {
			line := fmt.Sprintf("%d %s", p.Line, p.Code)
			if slices.ContainsFunc(c.want, func(w string) bool { return strings.HasPrefix(w, line+" ") }) {
				line += " " + p.Hint
			}
			got = append(got, line)
			if want := Warning; c.name != "errors come alone" && p.Severity != want {
				t.Errorf("%s: %v", c.name, p)
			}
		}
		if diff := cmp.Diff(c.want, got); diff != "" {
			t.Errorf("%s: %s", c.name, diff)
		}
	}
}

func TestThePolicyThatIsShippedIsClean(t *testing.T) {
	source, err := readFile("policy.csv")
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range Lint("policy.csv", source) {
		t.Error(p)
	}
}

// What lint calls superfluous is: without all these lines every decision is the
// same. And what is said to have no effect has none by Casbin's standard, which
// TestIndexEqualsCasbin holds the decisions to.
func TestLinesThatLintCallsSuperfluousAre(t *testing.T) {
	counts := make(map[string]int)
	seeds := uint64(400)
	if raceDetector {
		seeds = 100
	}
	for seed := range seeds {
		g := generate(randomDice(seed))
		lines := strings.Split(g.source, "\n")
		for _, problem := range Lint("f", []byte(g.source)) {
			counts[problem.Code]++
			if problem.Code != "unregistered-method" {
				lines[problem.Line-1] = ""
			}
		}
		before := mustParse(t, g.source)
		after := mustParse(t, strings.Join(append(lines, "p, role:nobody, /, GET, allow"), "\n"))
		for _, c := range g.callers {
			for _, path := range g.paths {
				for _, method := range g.methods {
					if a, b := before.Decide(c, method, path), after.Decide(c, method, path); a.Allowed != b.Allowed {
						t.Fatalf("seed %d: %+v %s %q: %+v before, %+v after\n%s\n-----\n%s", seed, c, method, path, a, b, g.source, strings.Join(lines, "\n"))
					}
				}
			}
		}
	}
	t.Log(counts)
	for _, code := range []string{"duplicate", "contradiction", "unreachable", "shadowed", "empty-role", "unused-permission", "ungranted-permission", "dead-deny"} {
		if counts[code] < 10 {
			t.Errorf("%s was found %d times only", code, counts[code])
		}
	}
}
