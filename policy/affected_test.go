package policy

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestADifferenceCountsWhomItAffects(t *testing.T) {
	before := mustParse(t, "p, role:user, /tasks/:id, GET, allow\np, role:intern, /tasks/:id, GET, allow\n")
	after := mustParse(t, "p, role:user, /tasks/:id, GET|DELETE, allow\np, role:intern, /tasks/:id, DELETE, deny\np, role:boss, /tasks/9, GET, deny\np, perm:x, /x, GET, allow\ng, role:intern, perm:x\n")
	users := new(Population)
	users.Add("ana", withRoles("user"))
	users.Add("bob", withRoles("user"))
	users.Add("eve", withRoles("user", "intern")) // gains nothing, since an intern is denied it; keeps GET
	users.Add("dan", withRoles("intern"))
	users.Add("joe", withRoles("boss")) // has nothing to lose
	users.Add("max", withRoles("boss", "user"))
	users.Add("kim", withRoles())
	users.Add("deleted", withRoles("other"))
	d, err := DiffFor(before, after, users)
	if err != nil {
		t.Fatal(err)
	}
	want := `role:intern gains GET /x
    GET /x: before no rule
            now    policy.csv:4: p, perm:x, /x, GET, allow
    2 users (dan, eve) affected
role:user gains DELETE /tasks/:id
    DELETE /tasks/x: before no rule
                     now    policy.csv:1: p, role:user, /tasks/:id, GET|DELETE, allow
    3 users (ana, bob, max) affected
role:intern loses GET /tasks/:id
    GET /tasks/x: before policy.csv:2: p, role:intern, /tasks/:id, GET, allow
                  now    no rule
    1 user (dan) affected
role:boss now denies GET /tasks/9 (to whom another role allows it)
    GET /tasks/9: before no rule
                  now    policy.csv:3: p, role:boss, /tasks/9, GET, deny
    1 user (max) affected
role:intern gains the permission x, of which upstreams are told
    2 users (dan, eve) affected
in all, 5 users (ana, bob, dan, eve, max) affected
`
	if diff := cmp.Diff(want, d.String()); diff != "" {
		t.Error(diff)
	}
	md := d.Markdown()
	for _, want := range []string{"| now | users |\n|---|---|---|---|---|---|---|\n", "GET|DELETE, allow` | 3 |\n", "permission `x` | | | 2 |\n", "\n**5 users (ana, bob, dan, eve, max) affected**\n"} {
		if !strings.Contains(strings.ReplaceAll(md, `\|`, "|"), want) {
			t.Errorf("no %q in\n%s", want, md)
		}
	}
}
