package policy

import (
	"cmp"
	"fmt"
	"hash/maphash"
	"slices"
	"strings"
)

// Replay asks a policy again what was decided before, as a decision log has it.
// Its memory does not grow with the log: what flips is put together in groups,
// whose number is bounded, and so is what is kept of each.
type Replay struct {
	policy *Policy
	seed   maphash.Seed
	result Replayed
	groups map[flipKey]*Flip
	users  int // told apart, of all groups
}

// NewReplay replays on the candidate.
func NewReplay(candidate *Policy) *Replay {
	return &Replay{
		policy: candidate, seed: maphash.MakeSeed(), groups: make(map[flipKey]*Flip),
		result: Replayed{Policy: candidate.file, Revision: candidate.revision, Flips: []*Flip{}},
	}
}

// Replayed is what came of a replay.
type Replayed struct {
	Policy    string  `json:"policy"` // the candidate's file
	Revision  string  `json:"revision"`
	Decisions int     `json:"decisions"` // that were asked again
	Flipped   int     `json:"flipped"`
	Flips     []*Flip `json:"flips"` // what opens first, then the most frequent
	// Ungrouped are flips beyond the first groups, of which only the number is known.
	Ungrouped int `json:"ungrouped,omitzero"`
}

// Flip is decisions that would be others, and are so for the same reason.
type Flip struct {
	Before        Effect   `json:"before"`
	Now           Effect   `json:"now"`
	Authenticated bool     `json:"authenticated"`
	Roles         []string `json:"roles"`
	Method        string   `json:"method"`
	Route         string   `json:"route"`
	RuleBefore    string   `json:"rule_before,omitempty"` // absent: no rule matched
	RuleNow       *RuleRef `json:"rule_now,omitempty"`

	Count    int      `json:"count"`
	Users    int      `json:"users"`                   // different ones; strangers are not counted
	AtLeast  bool     `json:"users_at_least,omitzero"` // there are more users than were told apart
	Sample   []string `json:"sample,omitempty"`        // the IDs of some
	Example  string   `json:"example"`                 // the path of the first
	Requests []string `json:"requests"`                // the IDs of some

	users map[uint64]struct{} // hashes of IDs
}

type flipKey struct {
	before, now Effect
	caller      string
	method      string
	route       string
	ruleBefore  string
	lineNow     int
}

// What is kept of a replay, at most.
const (
	maxFlips     = 5_000   // groups
	maxFlipUsers = 1 << 20 // told apart, of all groups: some ten megabytes
)

// Ask replays one decision.
func (r *Replay) Ask(was Record) {
	r.result.Decisions++
	d := r.policy.Decide(was.Subject.Caller(), was.Method, was.Path)
	if now := effectOf(d.Allowed); now != was.Effect {
		r.flip(was, d, now)
	}
}

func (r *Replay) flip(was Record, d Decision, now Effect) {
	r.result.Flipped++
	roles := slices.Compact(slices.Sorted(slices.Values(was.Subject.Roles)))
	key := flipKey{was.Effect, now, fmt.Sprintf("%t %q", was.Subject.Authenticated, roles), was.Method, was.Route, was.Rule, d.Line}
	f := r.groups[key]
	if f == nil {
		if len(r.groups) == maxFlips {
			r.result.Ungrouped++
			return
		}
		f = &Flip{
			Before: was.Effect, Now: now, Authenticated: was.Subject.Authenticated, Roles: roles, Method: was.Method, Route: was.Route,
			RuleBefore: was.Rule, Example: was.Path, users: make(map[uint64]struct{}),
		}
		if d.Rule != "" {
			f.RuleNow = &RuleRef{d.Rule, d.File, d.Line}
		}
		r.groups[key] = f
		r.result.Flips = append(r.result.Flips, f)
	}
	f.Count++
	if len(f.Requests) < shownNames {
		f.Requests = append(f.Requests, was.RequestID)
	}
	r.countUser(f, was.Subject.UserID)
}

func (r *Replay) countUser(f *Flip, id string) {
	if id == "" {
		return
	}
	hash := maphash.String(r.seed, id)
	if _, known := f.users[hash]; known {
		return
	}
	if r.users == maxFlipUsers {
		f.AtLeast = true
		return
	}
	r.users++
	f.users[hash] = struct{}{}
	f.Users++
	if len(f.Sample) < shownNames {
		f.Sample = append(f.Sample, id)
	}
}

// Result returns what would flip so far.
func (r *Replay) Result() Replayed {
	slices.SortStableFunc(r.result.Flips, func(a, b *Flip) int {
		// "allow" before "deny": what opens is what to look at first.
		return cmp.Or(cmp.Compare(a.Now, b.Now), cmp.Compare(b.Count, a.Count))
	})
	return r.result
}

// String says in words what would flip.
func (r Replayed) String() string {
	var b strings.Builder
	for _, f := range r.Flips {
		fmt.Fprintf(&b, "%d × %s %s by %s: %s → %s\n", f.Count, f.Method, cmp.Or(f.Route, f.Example), f.who(), f.Before, f.Now)
		fmt.Fprintf(&b, "    before %s\n    now    %s\n", cmp.Or(f.RuleBefore, "no rule"), orNone(f.RuleNow))
		if f.Authenticated {
			fmt.Fprintf(&b, "    affects %s\n", f.people())
		}
		fmt.Fprintf(&b, "    such as %s (request %s)\n", f.Example, f.Requests[0])
	}
	if r.Ungrouped > 0 {
		fmt.Fprintf(&b, "and %d more, of more kinds than are told apart\n", r.Ungrouped)
	}
	fmt.Fprintf(&b, "%d of %d decisions would flip\n", r.Flipped, r.Decisions)
	return b.String()
}

func (f *Flip) who() string {
	switch {
	case !f.Authenticated:
		return "strangers"
	case len(f.Roles) == 0:
		return "users without roles"
	}
	return "users with " + strings.Join(f.Roles, ", ")
}

func (f *Flip) people() string {
	text := People{f.Users, f.Sample}.String()
	if f.AtLeast {
		return "at least " + text
	}
	return text
}
