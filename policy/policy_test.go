package policy

import (
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func mustParse(t testing.TB, source string) *Policy {
	t.Helper()
	p, err := Parse("policy.csv", []byte(source))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func withRoles(roles ...string) Caller { return Caller{Authenticated: true, Roles: roles} }

func TestPatterns(t *testing.T) {
	for _, c := range []struct {
		pattern       string
		covers, other []string
	}{
		{"/", []string{"/"}, []string{"/a", "", "a", "//"}},
		{"/a", []string{"/a"}, []string{"/", "/a/", "/A", "/ab", "/a/b", "a", "/a?", "/a\n", "/a\x00"}},
		{"/a/", []string{"/a/"}, []string{"/a", "/a//", "/a/b"}},
		{"/a.b", []string{"/a.b"}, []string{"/axb"}},
		{"/:x", []string{"/a", "/*", "/:x", "/a\nb", "/\xff", "/ "}, []string{"/", "/a/", "/a/b", "/.", "/.."}},
		{"/:x/", []string{"/a/"}, []string{"/a", "//", "/"}},
		{"/a/:x/c", []string{"/a/b/c", "/a/c/c"}, []string{"/a//c", "/a/b", "/a/b/c/", "/a/../c", "/a/b/d"}},
		{"/*", []string{"/", "/a", "/a/", "/a/b/c", "/" + strings.Repeat("a/", 100)}, []string{"", "a", "*", "//", "/a//b", "/./a", "/a/.."}},
		{"/a/*", []string{"/a", "/a/", "/a/b/c", "/a/b/"}, []string{"/", "/ab", "/b", "/a//", "/a//b", "/a/./b", "/a/b/../../c"}},
		{"/:x/*", []string{"/a", "/a/", "/a/b"}, []string{"/", "//"}},
	} {
		p := mustParse(t, "p, anonymous, "+c.pattern+", GET, allow")
		for _, path := range c.covers {
			if !p.Decide(Caller{}, "GET", path).Allowed {
				t.Errorf("%s does not cover %q", c.pattern, path)
			}
		}
		for _, path := range c.other {
			if p.Decide(Caller{}, "GET", path).Allowed {
				t.Errorf("%s covers %q", c.pattern, path)
			}
		}
	}
}

// The index compares a node's prefix with a path in its own, faster way.
func TestPrefixesAreComparedLikePatterns(t *testing.T) {
	prefixes := []string{"/", "/a", "/b", "/a/", "/:x", "/:x/", "/a/:x", "/b/:x", "/:x/a", "/:x/b", "/:x/:y", "/ab/:x/a", "/a/:x/a", "/a/:x/:y", "/a/b/c", "/:x/b/:y"}
	paths := []string{"/", "/a", "/ab", "/b", "/:x", "/a/", "/b/", "/a/a", "/a/b", "/b/b", "/ab/b", "/a/b/", "/a/b/a", "/ab/b/a", "/a/b/ab", "/a/b/c", "/b/b/c", "/x/b/c"}
	agreed := map[bool]int{}
	for _, prefix := range prefixes {
		for _, path := range paths {
			if strings.Count(path, "/") != strings.Count(prefix, "/") {
				continue
			}
			want := matches(prefix, path)
			agreed[want]++
			if got := prefixMatches(prefix, path); got != want {
				t.Errorf("%s and %s: %v", prefix, path, got)
			}
			// It is the same with more segments behind it, but for a trailing slash.
			if !strings.HasSuffix(path, "/") && prefixMatches(prefix, path+"/a") != want {
				t.Errorf("%s and %s/a: %v", prefix, path, !want)
			}
		}
	}
	if agreed[true] < 10 || agreed[false] < 10 {
		t.Error(agreed)
	}
}

func TestAPolicyDecidesForManyAtOnce(t *testing.T) {
	p := mustParse(t, benchmarkSource(1_000)+tableSource(100))
	requests := benchmarkRequests(1_000, 500)
	want := make([]Decision, len(requests))
	for i, q := range requests {
		want[i] = p.Decide(q.caller, q.method, q.path)
	}
	var group sync.WaitGroup
	for range 4 {
		group.Go(func() {
			for i, q := range requests {
				if got := p.Decide(q.caller, q.method, q.path); got != want[i] {
					t.Errorf("%+v, alone %+v", got, want[i])
				}
				p.Permissions(q.caller.Roles)
			}
		})
	}
	group.Wait()
}

func TestMethodsAreComparedWhole(t *testing.T) {
	p := mustParse(t, `
		p, anonymous, /some, GET|POST|PROPFIND, allow
		p, anonymous, /all, *, allow
	`)
	for method, want := range map[string]bool{
		"GET": true, "POST": true, "PROPFIND": true,
		"get": false, "GETX": false, "XGET": false, "PUT": false, "": false, "*": false, "GET|POST": false, "X-OTHER": false,
	} {
		if got := p.Decide(Caller{}, method, "/some").Allowed; got != want {
			t.Errorf("%q: %v", method, got)
		}
		if !p.Decide(Caller{}, method, "/all").Allowed {
			t.Errorf("* does not include %q", method)
		}
	}
}

func TestSubjects(t *testing.T) {
	p := mustParse(t, `
		p, anonymous,     /everybody,  GET, allow
		p, authenticated, /signed-in,  GET, allow
		p, role:user,     /users,      GET, allow
		p, role:admin,    /admins,     GET, allow
		p, perm:x,        /permitted,  GET, allow
		p, role:trial,    /free,       GET, allow
		g, role:admin, role:user
		g, role:user,  perm:x
		g, anonymous,  role:trial
	`)
	all := []string{"/everybody", "/signed-in", "/users", "/admins", "/permitted", "/free"}
	for _, c := range []struct {
		who    string
		caller Caller
		may    []string
	}{
		{"a stranger", Caller{}, []string{"/everybody", "/free"}},
		{"a stranger who claims roles", Caller{Roles: []string{"admin"}}, []string{"/everybody", "/free"}},
		{"somebody without roles", withRoles(), []string{"/everybody", "/signed-in", "/free"}},
		{"a user", withRoles("user"), []string{"/everybody", "/signed-in", "/users", "/permitted", "/free"}},
		{"an administrator", withRoles("admin"), all},
		{"an unknown role", withRoles("x", "perm", "role"), []string{"/everybody", "/signed-in", "/free"}},
		// What users are called, or get as a role, is never a subject.
		{"a role named like a permission", withRoles("perm:x"), []string{"/everybody", "/signed-in", "/free"}},
		{"a role named like a prefixed role", withRoles("role:admin"), []string{"/everybody", "/signed-in", "/free"}},
		{"a role named like a built-in subject", withRoles("anonymous", "authenticated"), []string{"/everybody", "/signed-in", "/free"}},
		{"a role with other letters", withRoles("Admin", "admin ", " admin", "admin\x00", "admin,user", ""), []string{"/everybody", "/signed-in", "/free"}},
	} {
		var may []string
		for _, path := range all {
			if p.Decide(c.caller, "GET", path).Allowed {
				may = append(may, path)
			}
		}
		if diff := cmp.Diff(c.may, may); diff != "" {
			t.Errorf("%s: %s", c.who, diff)
		}
	}
}

func TestWhichRuleIsReported(t *testing.T) {
	p := mustParse(t, strings.Join([]string{
		"p, anonymous, /*, GET, allow",
		"p, anonymous, /a/*, GET, allow",
		"p, anonymous, /:x/b, GET, allow",
		"p, anonymous, /a/:x, GET, allow",
		"p, anonymous, /a/:y, *, allow",
		"p, anonymous, /a/b, POST, allow",
		"p, role:out, /:x/*, *, deny",
		"p, role:out, /a/:x, *, deny",
	}, "\n"))
	for _, c := range []struct {
		what, method, path string
		caller             Caller
		line               int
	}{
		{"the only one", "GET", "/c", Caller{}, 1},
		{"a longer literal before *", "GET", "/a/b/c", Caller{}, 2},
		{"the first difference counts: /a/:x before /:x/b", "GET", "/a/b", Caller{}, 4},
		{"a literal before a name, if the method fits", "POST", "/a/b", Caller{}, 6},
		{"a pattern that fits less in the method does not count", "PUT", "/a/b", Caller{}, 5},
		{"a denial before every permission", "POST", "/a/b", withRoles("out"), 8},
		{"of denials the most specific", "GET", "/a/b/c", withRoles("out"), 7},
		{"none", "PUT", "/c", Caller{}, 0},
	} {
		got := p.Decide(c.caller, c.method, c.path)
		if got.Line != c.line || (got.Rule == "") != (c.line == 0) || (got.File == "") != (c.line == 0) {
			t.Errorf("%s: %s %s: %+v, want line %d", c.what, c.method, c.path, got, c.line)
		}
	}
}

func TestNothingIsAllowedByWhatIsNotThere(t *testing.T) {
	var none *Policy
	for name, p := range map[string]*Policy{"nil": none, "zero": {}} {
		if got := p.Decide(withRoles("admin"), "GET", "/"); got != (Decision{}) {
			t.Errorf("%s policy: %+v", name, got)
		}
		if p.Permissions([]string{"admin"}) != nil || p.Roles() != nil || p.Revision() != "" {
			t.Errorf("%s policy knows something", name)
		}
	}
	if (Decision{}).Allowed {
		t.Error("the zero decision allows")
	}
}

func TestPermissionsAreWhatTheRolesReach(t *testing.T) {
	p := mustParse(t, `
		p, perm:a, /a, GET, allow
		g, role:x, perm:b
		g, role:x, perm:a
		g, role:y, role:x
		g, role:y, perm:c
		g, role:z, perm:c
		g, authenticated, perm:e
		g, anonymous, perm:d
	`)
	for _, c := range []struct{ roles, want []string }{
		{nil, []string{"d", "e"}},
		{[]string{"x"}, []string{"a", "b", "d", "e"}},
		{[]string{"y", "z", "y"}, []string{"a", "b", "c", "d", "e"}},
		{[]string{"perm:c", "unknown"}, []string{"d", "e"}},
	} {
		if diff := cmp.Diff(c.want, p.Permissions(c.roles)); diff != "" {
			t.Errorf("%q: %s", c.roles, diff)
		}
	}
	if diff := cmp.Diff([]string{"x", "y", "z"}, p.Roles()); diff != "" {
		t.Error(diff)
	}
}

func TestRevisionChangesWithTheContent(t *testing.T) {
	a := mustParse(t, "p, role:a, /a, GET, allow\n")
	b := mustParse(t, "p, role:a, /a, GET, allow\n# changed\n")
	again := mustParse(t, "p, role:a, /a, GET, allow\n")
	if a.Revision() == b.Revision() || a.Revision() != again.Revision() || len(a.Revision()) != 12 {
		t.Errorf("%q %q %q", a.Revision(), b.Revision(), again.Revision())
	}
}

func TestDecideDoesNotAllocate(t *testing.T) {
	p := mustParse(t, benchmarkSource(10_000)+tableSource(100))
	roles := []string{"holder"}
	for i := range 31 {
		roles = append(roles, fmt.Sprintf("team%d", i))
	}
	for _, c := range []struct {
		caller       Caller
		method, path string
	}{
		{withRoles("team1", "team2"), "GET", "/service1/resource1/4711"},
		{withRoles(roles...), "PROPFIND", "/service1/resource1/4711/internal/x"},
		{withRoles(roles...), "GET", "/table"},
		{Caller{}, "GET", "/" + strings.Repeat("a/", 4000)},
	} {
		if n := testing.AllocsPerRun(100, func() { p.Decide(c.caller, c.method, c.path) }); n != 0 {
			t.Errorf("%s %.40s: %v allocations", c.method, c.path, n)
		}
	}
}

// tableSource has n rules for one pattern, each for a permission of its own, and
// one role that holds them all.
func tableSource(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "p, perm:p%d, /table, GET, allow\ng, role:holder, perm:p%d\n", i, i)
	}
	return b.String()
}
