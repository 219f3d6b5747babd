package policy

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// routes are written "/path -> /upstream-path @target".
func routes(texts ...string) (around Surroundings) {
	for _, text := range texts {
		text, target, _ := strings.Cut(text, " @")
		path, rewrite, _ := strings.Cut(text, " -> ")
		around.Served = append(around.Served, Served{What: "route", Path: path, Prefix: true, Upstream: "app", Targets: strings.Fields("10.0.0.7:80 " + target)[max(0, min(1, len(target))):], Rewrite: rewrite})
	}
	return around
}

// What a rule guards on one route is open on another, or is not.
func TestWaysAroundARule(t *testing.T) {
	const guarded = "p, role:admin, /admin/*, *, allow\n"
	for _, c := range []struct {
		what   string
		around Surroundings
		source string
		want   []string
	}{
		{"a cut prefix opens what is guarded", routes("/admin", "/public -> /"), guarded + "p, anonymous, /public/*, GET, allow\n",
			[]string{"2 anonymous may GET /public/admin/x, and so what line 1 (p, role:admin, /admin/*, *, allow) guards at /admin/x: app gets both as /admin/x"}},
		{"also where the guard is for more than the route", routes("/admin", "/public -> /"), "p, role:admin, /*, *, allow\np, anonymous, /public/*, GET, allow\n",
			[]string{"2 anonymous may GET /public/admin/x, and so what line 1 (p, role:admin, /*, *, allow) guards at /admin/x: app gets both as /admin/x"}},
		{"or for its name among others", routes("/admin", "/public -> /"), "p, role:admin, /:any/*, *, allow\np, anonymous, /public/*, GET, allow\n",
			[]string{"2 anonymous may GET /public/admin/x, and so what line 1 (p, role:admin, /:any/*, *, allow) guards at /admin/x: app gets both as /admin/x"}},
		{"a guard for more is closed again", routes("/admin", "/public -> /"), "p, role:admin, /*, *, allow\np, anonymous, /public/*, GET, allow\np, anonymous, /public/admin/*, *, deny\n", nil},
		{"and nothing where it is cut for another service", routes("/admin", "/public -> / @10.0.0.8:80"), guarded + "p, anonymous, /public/*, GET, allow\n", nil},
		{"or not cut", routes("/admin", "/public"), guarded + "p, anonymous, /public/*, GET, allow\n", nil},
		{"or replaced by another", routes("/admin", "/public -> /pages"), guarded + "p, anonymous, /public/*, GET, allow\n", nil},
		{"or by one that only begins alike", routes("/admin", "/public -> /adm"), guarded + "p, anonymous, /public/*, GET, allow\n", nil},
		{"replaced by the guarded one", routes("/admin", "/public -> /admin"), guarded + "p, anonymous, /public/*, GET, allow\n",
			[]string{"2 anonymous may GET /public/x, and so what line 1 (p, role:admin, /admin/*, *, allow) guards at /admin/x: app gets both as /admin/x"}},
		{"a part of it is opened on purpose", routes("/admin", "/public -> /admin"), guarded + "p, anonymous, /public/logo, GET, allow\n", nil},
		{"closed again", routes("/admin", "/public -> /"), guarded + "p, anonymous, /public/*, GET, allow\np, anonymous, /public/admin/*, *, deny\n", nil},
		{"but for longer paths", routes("/admin", "/public -> /"), guarded + "p, anonymous, /public/*, GET, allow\np, anonymous, /public/admin/:page, *, deny\n",
			[]string{"2 anonymous may GET /public/admin/x/x, and so what line 1 (p, role:admin, /admin/*, *, allow) guards at /admin/x/x: app gets both as /admin/x/x"}},
		{"or shorter ones", routes("/admin", "/public -> /"), guarded + "p, anonymous, /public/*, GET, allow\np, anonymous, /public/admin/:a, *, deny\np, anonymous, /public/admin/:a/*, *, deny\n",
			[]string{"2 anonymous may GET /public/admin, and so what line 1 (p, role:admin, /admin/*, *, allow) guards at /admin: app gets both as /admin"}},
		{"which are open anyway", routes("/admin", "/public -> /"), guarded + "p, anonymous, /admin, GET, allow\np, anonymous, /admin/, GET, allow\np, anonymous, /public/*, GET, allow\np, anonymous, /public/admin/:a/*, *, deny\n", nil},
		{"also where that is a slash", routes("/admin", "/public -> /"), guarded + "p, anonymous, /public/*, GET, allow\np, anonymous, /public/admin, *, deny\np, anonymous, /public/admin/:a/*, *, deny\n",
			[]string{"2 anonymous may GET /public/admin/, and so what line 1 (p, role:admin, /admin/*, *, allow) guards at /admin/: app gets both as /admin/"}},
		{"or nothing at all", routes("/", "/public -> /"), "p, role:admin, /*, *, allow\np, anonymous, /public/*, GET, allow\np, anonymous, /public/:a/*, *, deny\n",
			[]string{"2 anonymous may GET /public/, and so what line 1 (p, role:admin, /*, *, allow) guards at /: app gets both as /"}},
		{"not reached by the rule", routes("/admin", "/public -> /"), guarded + "p, anonymous, /public/:page, GET, allow\n", nil},
		{"names reach as far as they are long", routes("/admin", "/public -> /"), guarded + "p, anonymous, /public/:a/:b, GET, allow\n", nil},
		{"a name for a name", routes("/tasks", "/public -> /"), "p, role:user, /tasks/:id, GET, allow\np, anonymous, /public/tasks/:task, GET, allow\n",
			[]string{"2 anonymous may GET /public/tasks/id, and so what line 1 (p, role:user, /tasks/:id, GET, allow) guards at /tasks/id: app gets both as /tasks/id"}},
		{"by a longer route it is served elsewhere", routes("/admin", "/public -> /", "/public/admin @10.0.0.8:80"), guarded + "p, anonymous, /public/*, GET, allow\n", nil},
		{"a denial does not hold by the other way", routes("/", "/side -> /"), "p, role:user, /*, *, allow\np, role:intern, /salaries/*, *, deny\ng, role:intern, role:user\n",
			[]string{"1 role:intern may GET /side/salaries/x, and so what line 2 (p, role:intern, /salaries/*, *, deny) guards at /salaries/x: app gets both as /salaries/x"}},
		{"two doors of which one keeps nobody out", routes("/app -> /", "/public -> /"), "p, authenticated, /app/*, *, allow\np, anonymous, /public/*, GET, allow\n",
			[]string{"2 anonymous may GET /public/x, and so what line 1 (p, authenticated, /app/*, *, allow) guards at /app/x: app gets both as /x"}},
		{"also where the open one is the short way", routes("/app -> /", "/pages"), "p, authenticated, /app/*, *, allow\np, authenticated, /app/pages/*, *, allow\np, anonymous, /pages/*, GET, allow\n",
			[]string{"3 anonymous may GET /pages/x, and so what line 2 (p, authenticated, /app/pages/*, *, allow) guards at /app/pages/x: app gets both as /pages/x"}},
		{"and the rule is told of for what it denies", routes("/admin", "/side -> /"), "p, role:user, /*, *, allow\np, role:intern, /admin/*, *, deny\ng, role:intern, role:user\n",
			[]string{"1 role:intern may GET /side/admin/x, and so what line 2 (p, role:intern, /admin/*, *, deny) guards at /admin/x: app gets both as /admin/x"}},
		{"closed where it was guarded", routes("/admin", "/public -> /"), "p, anonymous, /admin/*, *, deny\np, anonymous, /public/*, GET, allow\n",
			[]string{"2 anonymous may GET /public/admin/x, and so what line 1 (p, anonymous, /admin/*, *, deny) guards at /admin/x: app gets both as /admin/x"}},
		{"two doors for two kinds of people", routes("/tasks", "/partner -> /"), "p, role:user, /tasks/*, *, allow\np, role:partner, /partner/tasks/*, GET, allow\n", nil},
		{"of which one is the short way, and broader", routes("/tasks", "/partner -> /"), "p, role:user, /tasks/*, *, allow\np, role:partner, /partner/tasks/reports/*, GET, allow\n", nil},
		{"of which one reaches too far", routes("/tasks", "/partner -> /"), "p, role:user, /tasks/*, *, allow\np, role:partner, /partner/*, GET, allow\n",
			[]string{"2 role:partner may GET /partner/tasks/x, and so what line 1 (p, role:user, /tasks/*, *, allow) guards at /tasks/x: app gets both as /tasks/x"}},
		{"two versions with the same rules", routes("/v1 -> /", "/v2 -> /"), "p, role:user, /v1/*, *, allow\np, role:user, /v2/*, *, allow\n", nil},
		{"methods that nobody else has", routes("/v1 -> /", "/v2 -> /"), "p, anonymous, /v1/*, GET, allow\np, role:user, /v2/*, POST, allow\n", nil},
		{"whoever may everything", routes("/admin", "/public -> /"), guarded + "p, role:root, /*, *, allow\n", nil},
		{"a guard for nobody", routes("/admin", "/public -> /"), "p, perm:x, /admin/*, *, allow\np, anonymous, /public/*, GET, allow\n", nil},
		{"each rule once", routes("/admin", "/public -> /"), guarded + "p, role:boss, /admin/a, *, allow\np, anonymous, /public/*, *, allow\n",
			[]string{"3 anonymous may GET /public/admin/x, and so what line 1 (p, role:admin, /admin/*, *, allow) guards at /admin/x: app gets both as /admin/x"}},
		{"the root of what is cut off", routes("/admin -> /", "/public -> /"), "p, role:admin, /admin, GET, allow\np, anonymous, /public/*, GET, allow\n",
			[]string{"2 anonymous may GET /public/, and so what line 1 (p, role:admin, /admin, GET, allow) guards at /admin: app gets both as /"}},
		{"an endpoint of the gateway's own is no way", Surroundings{Served: append(routes("/", "/public -> /").Served, Served{What: "endpoint", Path: "/auth/users", Methods: []string{"GET"}})},
			"p, role:admin, /auth/users, GET, allow\np, anonymous, /public/*, GET, allow\n", nil},
	} {
		t.Run(c.what, func(t *testing.T) {
			var got []string
			for _, p := range c.around.Lint("f", []byte(c.source)) {
				if p.Code == "bypass" {
					got = append(got, fmt.Sprintf("%d %s", p.Line, p.Message))
				}
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// Whoever reads nothing of ways around a rule takes it that there are none: lint says
// where it has not looked.
func TestWaysAroundARuleThatAreNotLookedFor(t *testing.T) {
	p, err := Parse("f", []byte("p, role:admin, /admin/*, *, allow\np, role:user, /app/*, *, allow\np, anonymous, /public/*, GET, allow\n"))
	if err != nil {
		t.Fatal(err)
	}
	const unfinished = "f: warning: there are too many rules, roles and routes to find every way around a rule: the search ended after 1 questions, at the route /public; " +
		"look yourself at what leads to the services of this route and of those that follow it in the configuration [bypass-unfinished]"
	for _, c := range []struct {
		around Surroundings
		most   int
		want   []string
	}{
		{routes("/admin", "/app", "/public -> /"), 1, []string{unfinished}},
		{routes("/admin", "/app", "/public -> /"), maxAsked, []string{"f:3: warning: anonymous may GET /public/admin/x, and so what line 1 (p, role:admin, /admin/*, *, allow) guards at /admin/x: app gets both as /admin/x; " +
			"deny it there, let the rule or the route /public reach less, or allow them /admin/x, too [bypass]"}},
		{routes("/admin", "/app", "/public"), 0, nil}, // there is nothing to look for
	} {
		l := &linter{Policy: p}
		l.lintBypasses(c.around, c.most)
		var got []string
		for _, p := range l.problems {
			got = append(got, p.String())
		}
		if diff := cmp.Diff(c.want, got); diff != "" {
			t.Errorf("%d questions: %s", c.most, diff)
		}
	}
}
