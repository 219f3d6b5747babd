package policy

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func mustDiff(t testing.TB, before, after *Policy) Difference {
	t.Helper()
	d, err := Diff(before, after)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func TestDifferences(t *testing.T) {
	const base = `
		p, role:user, /tasks, GET|POST, allow
		p, role:user, /tasks/:id, GET, allow
		p, role:user, /reports/*, GET, allow
		p, role:intern, /tasks, POST, deny
		g, role:chief, role:user
	`
	for _, c := range []struct {
		what, before, after string
		want                []string
	}{
		{"other lines, names and orders mean the same", base, `
			g, role:chief, role:user
			p, role:intern, /tasks, POST, deny
			p, role:user, /reports/*, GET, allow
			p, role:user, /tasks/:task, GET, allow
			p, role:user, /tasks, POST, allow
			p, role:user, /tasks, GET, allow
			p, role:user, /reports, GET, allow
			`, nil},
		{"a permission in between does not show but to upstreams", "p, role:a, /x, GET, allow", "p, perm:x, /x, GET, allow\ng, role:a, perm:x",
			[]string{"role:a gains permission x"}},
		{"a gain goes to who inherits", base, base + "p, role:user, /tasks/:id, DELETE, allow",
			[]string{"role:chief, role:user gains DELETE /tasks/:id"}},
		{"an opening to everybody is told of who gains by it", base, base + "p, anonymous, /reports/*, GET, allow",
			[]string{"anonymous, authenticated, role:intern gains GET /reports/*"}},
		{"what was open already is no gain", base, base + "p, role:user, /*, GET, allow",
			[]string{"role:chief, role:user gains GET /* except /reports/*, /tasks, /tasks/:id"}},
		{"an exception from an exception", "p, role:a, /x/:y/*, GET, allow\np, role:a, /x/y/z, GET, deny", "p, role:a, /*, GET, allow",
			[]string{"role:a gains GET /* except (/x/:y/* except /x/y/z)"}},
		{"methods that nobody names", "p, role:a, /x, GET|PUT, allow", "p, role:a, /x, *, allow",
			[]string{"role:a gains * except GET|PUT /x"}},
		{"all methods", "p, role:a, /x, GET|PUT, allow", "p, role:b, /x, *, allow",
			[]string{"role:b gains * /x", "role:a loses GET|PUT /x"}},
		{"a role that is gone", base, strings.ReplaceAll(base, "role:chief", "role:boss"),
			[]string{
				"role:boss gains GET /reports/*", "role:boss gains GET|POST /tasks", "role:boss gains GET /tasks/:id",
				"role:chief loses GET /reports/*", "role:chief loses GET|POST /tasks", "role:chief loses GET /tasks/:id",
			}},
		{"a denial of what the role is not allowed concerns who has another", base, base + "p, role:intern, /reports/*, *, deny",
			[]string{"role:intern blocked GET /reports/*"}},
		{"and likewise when it goes", base, strings.Replace(base, "p, role:intern, /tasks, POST, deny", "", 1),
			[]string{"role:intern unblocked POST /tasks"}},
		{"a denial of what nobody is allowed is nothing", base, base + "p, role:intern, /other/*, *, deny", nil},
		{"overlaps of patterns", "p, role:a, /:x/b, GET, allow\np, role:a, /a/:y, GET, allow", "p, role:a, /:x/b, GET, allow\np, role:a, /a/:y, GET, allow\np, role:b, /:x/b, *, deny\np, role:a, /a/b, PUT, allow\np, role:b, /a/:y, GET, allow",
			[]string{"role:a gains PUT /a/b", "role:b gains GET /a/:y except /a/b", "role:b blocked GET /:x/b"}},
	} {
		t.Run(c.what, func(t *testing.T) {
			d := mustDiff(t, mustParse(t, c.before), mustParse(t, c.after))
			var got []string
			for _, s := range d.Shifts {
				got = append(got, fmt.Sprintf("%s %s %s %s", strings.Join(s.Subjects, ", "), s.Kind, s.methods(), s.Paths))
			}
			for _, s := range d.Permissions {
				got = append(got, fmt.Sprintf("%s %s permission %s", strings.Join(s.Subjects, ", "), s.Kind, strings.Join(s.Permissions, ", ")))
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Error(diff)
			}
			if d.Same() != (len(got) == 0) {
				t.Error("Same is wrong")
			}
		})
	}
}

func TestADifferenceIsShown(t *testing.T) {
	before, _ := Parse("old.csv", []byte("p, role:a, /x, GET, allow\n"))
	after, _ := Parse("new.csv", []byte("p, role:a, /x, GET|PUT, allow\np, role:a, /`, GET, allow\n"))
	d := mustDiff(t, before, after)
	want := "role:a gains GET /`\n" +
		"    GET /`: before no rule\n" +
		"            now    new.csv:2: p, role:a, /`, GET, allow\n" +
		"role:a gains PUT /x\n" +
		"    PUT /x: before no rule\n" +
		"            now    new.csv:1: p, role:a, /x, GET|PUT, allow\n"
	if got := d.String(); got != want {
		t.Error(cmp.Diff(want, got))
	}
	want = "### Policy: `old.csv` → `new.csv`\n\n" +
		"| who | | methods | paths | before | now |\n|---|---|---|---|---|---|\n" +
		"| `role:a` | **gains** | `GET` | `` /` `` | no rule | `` new.csv:2: p, role:a, /`, GET, allow `` |\n" +
		"| `role:a` | **gains** | `PUT` | `/x` | no rule | `new.csv:1: p, role:a, /x, GET\\|PUT, allow` |\n"
	if got := d.Markdown(); got != want {
		t.Error(cmp.Diff(want, got))
	}
	same := mustDiff(t, before, before)
	if got := same.String() + same.Markdown(); !strings.Contains(got, "old.csv and old.csv mean the same") || !strings.Contains(got, "Both mean the same.") {
		t.Error(got)
	}
}

func TestNoPolicyIsNotCompared(t *testing.T) {
	p := mustParse(t, "p, role:a, /x, GET, allow")
	for _, pair := range [][2]*Policy{{nil, p}, {p, nil}, {p, {}}} {
		if _, err := Diff(pair[0], pair[1]); err == nil {
			t.Error("no error")
		}
	}
}

func TestPatternsThatOverlapWithoutEndAreRefused(t *testing.T) {
	var b strings.Builder
	for i := range 24 {
		segments := slices.Repeat([]string{":x"}, 24)
		for j := range segments {
			segments[j] = fmt.Sprintf(":x%d", j)
		}
		segments[i] = "a"
		fmt.Fprintf(&b, "p, role:a, /%s, GET, allow\n", strings.Join(segments, "/"))
	}
	p := mustParse(t, b.String())
	if _, err := Diff(p, mustParse(t, b.String()+"p, role:a, /*, PUT, allow")); err == nil {
		t.Error("no error")
	}
}

func (s Shift) covers(subject, method, path string) bool {
	return slices.Contains(s.Subjects, subject) && s.Paths.covers(path) && s.concerns(method)
}

// Of the requests of a random caller, those change that a Difference says, and no
// others: one subject is exactly what its shifts are, and of several roles no
// change is missed.
func TestDifferencesAreExact(t *testing.T) {
	seeds := uint64(300)
	if raceDetector {
		seeds = 30
	}
	asked, changed := 0, 0
	for seed := range seeds {
		d := randomDice(seed)
		g := generate(d)
		lines := strings.Split(strings.TrimSpace(g.source), "\n")
		other := generate(d)
		switch d(3) {
		case 0: // something else altogether
			lines = strings.Split(strings.TrimSpace(other.source), "\n")
		case 1: // lines less
			for range 1 + d(3) {
				if i := d(len(lines)); len(lines) > 1 {
					lines = slices.Delete(lines, i, i+1)
				}
			}
		default: // lines more; inheritance could close a circle
			for line := range strings.Lines(other.source) {
				if line[0] == 'p' && d(3) == 0 {
					lines = append(lines, strings.TrimSpace(line))
				}
			}
		}
		lines = append(lines, "p, role:nobody, /nothing, GET, allow")
		before, after := mustCompile(t, g.source), mustCompile(t, strings.Join(lines, "\n"))
		diff := mustDiff(t, before, after)
		affected := make(map[string]bool)
		callers, paths, methods := slices.Concat(g.callers, other.callers), slices.Concat(g.paths, other.paths), slices.Concat(g.methods, other.methods)
		for range 200 {
			c, path, method := pick(d, callers), pick(d, paths), pick(d, methods)
			was, is := before.Decide(c, method, path).Allowed, after.Decide(c, method, path).Allowed
			asked++
			if was != is {
				changed++
			}
			if who := fmt.Sprint(c); was != is && !affected[who] {
				affected[who] = isAffected(t, before, after, c)
			}
			if was != is && !affected[fmt.Sprint(c)] {
				t.Fatalf("seed %d: %+v %s %q: %v before, %v after, and not affected\n%s", seed, c, method, path, was, is, diff)
			}
			if err := agrees(diff, c, method, path, was, is); err != nil {
				t.Fatalf("seed %d: %+v %s %q: %v before, %v after: %v\n%s\n%s-----\n%s", seed, c, method, path, was, is, err, diff, g.source, strings.Join(lines, "\n"))
			}
		}
	}
	t.Logf("%d requests, %d changed", asked, changed)
	if changed < asked/50 {
		t.Error("hardly anything changes: the test says little")
	}
}

// isAffected counts a population of one.
func isAffected(t *testing.T, before, after *Policy, c Caller) bool {
	t.Helper()
	users := new(Population)
	users.Add("one", c)
	d, err := DiffFor(before, after, users)
	if err != nil {
		t.Fatal(err)
	}
	return d.Affected.Count == 1
}

// agrees holds a difference against one request.
func agrees(d Difference, c Caller, method, path string, was, is bool) error {
	kinds := make(map[ShiftKind]bool)
	for _, s := range d.Shifts {
		if !isCanonical(path) {
			break
		}
		for _, subject := range c.spelt() {
			kinds[s.Kind] = kinds[s.Kind] || s.covers(subject, method, path)
		}
	}
	if was != is && len(kinds) == 0 {
		return fmt.Errorf("no shift says so")
	}
	if single := len(c.Roles) == 0 || !c.Authenticated; single && (kinds[Gains] != (!was && is) || kinds[Loses] != (was && !is)) {
		return fmt.Errorf("shifts say %v", kinds)
	}
	if !was && is && !kinds[Gains] && !kinds[Unblocked] || was && !is && !kinds[Loses] && !kinds[Blocked] {
		return fmt.Errorf("shifts say %v", kinds)
	}
	return nil
}
