package policy

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestWhatAPolicyAndItsSurroundingsDoNotShare(t *testing.T) {
	endpoint := func(path string, methods ...string) Served {
		return Served{What: "endpoint", Path: path, Methods: methods}
	}
	served := []Served{
		{What: "route", Path: "/tasks", Prefix: true},
		endpoint("/auth/me", "GET", "HEAD"),
		endpoint("/auth/users/:id", "PATCH"),
	}
	const base = `p, role:user, /tasks/*, *, allow
p, role:user, /auth/me, GET, allow
p, role:admin, /auth/users/:id, PATCH, allow
`
	users := func(roles ...string) *Population {
		p := new(Population)
		for i, role := range roles {
			p.Add(fmt.Sprintf("u%d", i+1), withRoles(strings.Fields(role)...))
		}
		return p
	}
	for _, c := range []struct {
		what, source string
		around       Surroundings
		want         []string
	}{
		{"all is well", base, Surroundings{Served: served}, nil},
		{"nothing is known", "p, role:a, /x, GET, allow\n", Surroundings{}, nil},
		{"a slip in a path", base + "p, role:user, /taks/:id, GET, allow\n", Surroundings{Served: served},
			[]string{"4 unserved nothing is served at /taks/:id"}},
		{"a path beside a route", base + "p, role:user, /tasksx, GET, allow\n", Surroundings{Served: served}, []string{"4 unserved nothing is served at /tasksx"}},
		{"a path with and one without a slash below a route", base + "p, anonymous, /tasks/, GET, allow\np, anonymous, /tasks, GET, allow\n", Surroundings{Served: served}, nil},
		{"methods that an endpoint does not have", base + "p, role:admin, /auth/users/:user, DELETE, allow\np, role:admin, /auth/me, GET|HEAD|PUT, allow\n", Surroundings{Served: served},
			[]string{"4 unserved DELETE of /auth/users/:user is answered by nothing", "5 unserved PUT of /auth/me is answered by nothing"}},
		{"one user, who is a path like any other", base + "p, role:user, /auth/users/7, PATCH, allow\n", Surroundings{Served: served}, nil},
		{"no name stands for nothing", base + "p, role:admin, /auth/users/, PATCH, allow\n", Surroundings{Served: served}, []string{"4 unserved nothing is served at /auth/users/"}},
		{"everything", "p, role:root, /*, *, allow\n", Surroundings{Served: served}, nil},
		{"a route that serves everything", base + "p, role:user, /x, GET, allow\n", Surroundings{Served: append(served, Served{What: "route", Path: "/", Prefix: true})}, nil},
		{"a route without a rule", base, Surroundings{Served: append(served, Served{What: "route", Path: "/reports", Prefix: true})},
			[]string{"0 unreached nobody may use the route /reports: no rule is for it"}},
		{"an endpoint without a rule for its method", base, Surroundings{Served: append(served, endpoint("/auth/me", "PATCH"))},
			[]string{"0 unreached nobody may use the endpoint PATCH /auth/me: no rule is for it"}},
		{"what is allowed and denied again is closed on purpose", base + "p, role:user, /reports, GET, allow\np, anonymous, /reports, GET, deny\n",
			Surroundings{Served: append(served, endpoint("/reports", "GET"))},
			[]string{"4 unreachable the rule never allows anything: line 5 (p, anonymous, /reports, GET, deny) denies all of it"}},
		{"a rule for nobody reaches nothing", base + "p, perm:reports, /reports, GET, allow\n", Surroundings{Served: append(served, endpoint("/reports", "GET"))},
			[]string{"0 unreached nobody may use the endpoint GET /reports: no rule is for it", "4 ungranted-permission the rule is for nobody: no role is granted perm:reports"}},
		{"closed on purpose", base + "p, anonymous, /auth/me, PATCH, deny\n", Surroundings{Served: append(served, endpoint("/auth/me", "PATCH"))}, nil},
		{"a denial of nothing", base + "p, role:user, /auth/me, PATCH, deny\n", Surroundings{},
			[]string{"4 dead-deny the rule denies nothing: no rule allows any of it"}},
		{"a denial of what another role may", base + "p, role:intern, /tasks/:id, DELETE, deny\n", Surroundings{Served: served}, nil},
		{"roles that users have", base, Surroundings{Users: users("user", "user", "usr admin", "usr")},
			[]string{"0 unknown-role 2 users (u3, u4) have the role \"usr\", which the policy does not name"}},
		{"roles that nobody has", base + "p, role:boss, /tasks/x, GET, deny\n" + "g, role:chief, role:user\ng, role:chief, perm:x\n", Surroundings{Users: users("", "chief")},
			[]string{"3 unheld-role no user has role:admin, or a role that inherits it", "4 unheld-role no user has role:boss, or a role that inherits it",
				"6 unused-permission no rule is for perm:x"}},
		{"roles that come by themselves", base + "g, authenticated, role:user\n", Surroundings{Users: users(), Granted: []string{"admin"}}, nil},
		{"and one that comes in vain", base + "g, role:root, role:user\n", Surroundings{Users: users(), Granted: []string{"usr", "usr", "admin"}, Reserved: []string{"root", "top"}},
			[]string{"0 unknown-role the configuration gives the role \"usr\", which the policy does not name"}},
	} {
		t.Run(c.what, func(t *testing.T) {
			var got []string
			for _, p := range c.around.Lint("f", []byte(c.source)) {
				if p.Severity != Warning {
					t.Error(p)
				}
				got = append(got, fmt.Sprintf("%d %s %s", p.Line, p.Code, p.Message))
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// What the ground says of two patterns is whether some path is covered by both.
func TestTheGroundKnowsWhatPatternsShare(t *testing.T) {
	var paths []string
	var grow func(path string, depth int)
	grow = func(path string, depth int) {
		paths = append(paths, path+"/")
		if depth == 0 {
			return
		}
		for _, segment := range []string{"a", "b", "c", "x"} {
			paths = append(paths, path+"/"+segment)
			grow(path+"/"+segment, depth-1)
		}
	}
	grow("", 4)
	simple := func(d dice) string {
		for {
			if p := generatePattern(d); strings.Trim(p, "/abcn0123:*") == "" {
				return p
			}
		}
	}
	shared := 0
	for seed := range uint64(300) {
		d := randomDice(seed)
		var g ground
		var patterns []string
		for i := range 5 {
			patterns = append(patterns, simple(d))
			g.add(patterns[i], 1<<i)
		}
		asked := simple(d)
		var want methodSet
		for i, p := range patterns {
			for _, path := range paths {
				if matches(p, path) && matches(asked, path) {
					want |= 1 << i
					shared++
					break
				}
			}
		}
		if got := g.under(asked); got != want {
			t.Errorf("seed %d: %s shares paths with %05b of %q, not %05b", seed, asked, want, patterns, got)
		}
	}
	if shared < 300 {
		t.Errorf("only %d patterns share a path", shared)
	}
}
