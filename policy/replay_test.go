package policy

import (
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestReplayGroupsWhatWouldFlip(t *testing.T) {
	candidate := mustParse(t, `p, anonymous, /status, GET, allow
p, role:user, /tasks/:id, GET, allow
p, role:intern, /tasks/:id, GET, deny
`)
	r := NewReplay(candidate)
	ask := func(n int, effect Effect, rule, user, method, path string, roles ...string) {
		for i := range n {
			r.Ask(Record{
				RequestID: fmt.Sprintf("%s-%d", user, i), Effect: effect, Rule: rule, Method: method, Path: path, Route: "/tasks",
				Subject: RecordSubject{UserID: user, Authenticated: user != "", Roles: roles},
			})
		}
	}
	ask(2, Allow, "p, role:user, /tasks/*, *, allow", "ana", "DELETE", "/tasks/1", "user")
	ask(3, Allow, "p, role:user, /tasks/*, *, allow", "bob", "DELETE", "/tasks/2", "user")
	ask(4, Allow, "p, role:user, /tasks/*, *, allow", "bob", "GET", "/tasks/2", "user") // as before, by another rule
	ask(1, Allow, "p, role:user, /tasks/*, *, allow", "eve", "GET", "/tasks/3", "user", "intern")
	ask(1, Allow, "p, role:user, /tasks/*, *, allow", "eve", "GET", "/tasks/3", "intern", "user", "user")
	ask(6, Deny, "", "", "GET", "/status")
	ask(1, Deny, "", "", "GET", "/other")
	ask(1, Allow, "p, authenticated, /*, *, allow", "dan", "GET", "/x")
	want := `6 × GET /tasks by strangers: deny → allow
    before no rule
    now    policy.csv:1: p, anonymous, /status, GET, allow
    such as /status (request -0)
5 × DELETE /tasks by users with user: allow → deny
    before p, role:user, /tasks/*, *, allow
    now    no rule
    affects 2 users (ana, bob)
    such as /tasks/1 (request ana-0)
2 × GET /tasks by users with intern, user: allow → deny
    before p, role:user, /tasks/*, *, allow
    now    policy.csv:3: p, role:intern, /tasks/:id, GET, deny
    affects 1 user (eve)
    such as /tasks/3 (request eve-0)
1 × GET /tasks by users without roles: allow → deny
    before p, authenticated, /*, *, allow
    now    no rule
    affects 1 user (dan)
    such as /x (request dan-0)
14 of 19 decisions would flip
`
	if diff := cmp.Diff(want, r.Result().String()); diff != "" {
		t.Error(diff)
	}
}

// Whatever is in the log, what a replay keeps is bounded, and it still counts.
func TestReplayKeepsWithinBounds(t *testing.T) {
	r := NewReplay(mustParse(t, "p, role:a, /x, GET, allow\n"))
	for i := range maxFlips + 10 {
		r.Ask(Record{Effect: Allow, Method: fmt.Sprint("M", i), Path: "/y", Subject: RecordSubject{UserID: "u", Authenticated: true}})
	}
	r.users = maxFlipUsers
	r.Ask(Record{Effect: Allow, Method: "M0", Path: "/y", Subject: RecordSubject{UserID: "u", Authenticated: true}})
	r.Ask(Record{Effect: Allow, Method: "M0", Path: "/y", Subject: RecordSubject{UserID: "v", Authenticated: true}})
	got := r.Result()
	if len(got.Flips) != maxFlips || got.Ungrouped != 10 || got.Flipped != maxFlips+12 {
		t.Errorf("%d groups, %d beyond, %d flips", len(got.Flips), got.Ungrouped, got.Flipped)
	}
	f := got.Flips[0]
	if f.Count != 3 || f.Users != 1 || !f.AtLeast || len(f.Requests) > shownNames || f.people() != "at least 1 user (u)" {
		t.Errorf("%+v", f)
	}
}

// A replay of what the same policy decided flips nothing, and of what another one
// did, what Decide says.
func TestReplayAgreesWithDecisions(t *testing.T) {
	flipped := 0
	for seed := range uint64(100) {
		d := randomDice(seed)
		g := generate(d)
		before, after := mustCompile(t, g.source), mustCompile(t, generate(d).source)
		same, other := NewReplay(before), NewReplay(after)
		want := 0
		for _, c := range g.callers {
			for i, path := range g.paths {
				method := g.methods[i%len(g.methods)]
				was := before.Decide(c, method, path)
				record := Record{Effect: effectOf(was.Allowed), Rule: was.Rule, Method: method, Path: path, Subject: RecordSubject{Authenticated: c.Authenticated, Roles: c.Roles}}
				same.Ask(record)
				other.Ask(record)
				if after.Decide(c, method, path).Allowed != was.Allowed {
					want++
				}
			}
		}
		if got := same.Result(); got.Flipped != 0 || len(got.Flips) != 0 {
			t.Fatalf("seed %d: %s", seed, got)
		}
		sum := 0
		for _, f := range other.Result().Flips {
			sum += f.Count
		}
		if got := other.Result(); got.Flipped != want || sum != want {
			t.Fatalf("seed %d: %d flips, want %d: %s", seed, got.Flipped, want, got)
		}
		flipped += want
	}
	if flipped < 500 {
		t.Errorf("only %d decisions flip: the test says little", flipped)
	}
}
