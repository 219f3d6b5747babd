package policy

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// Change is an edit of the policy file that would allow a request.
type Change struct {
	Edits []Edit `json:"edits"`
	// Opens says in words what the change allows beside the request.
	Opens []string `json:"opens"`

	cost int // how much it opens; see explainer.changes
}

// Edit is one line to add, to replace or to remove.
type Edit struct {
	Action Action `json:"action"`
	Line   int    `json:"line,omitzero"` // from 1; absent for a line to add
	Old    string `json:"old,omitempty"` // in canonical spelling
	New    string `json:"new,omitempty"` // to be pasted
}

// Action says what an Edit does.
type Action string

// What an Edit does.
const (
	AddLine     Action = "add"
	ReplaceLine Action = "replace"
	RemoveLine  Action = "remove"
)

func (c Change) String() string {
	var b strings.Builder
	for _, e := range c.Edits {
		switch e.Action {
		case AddLine:
			fmt.Fprintf(&b, "  add           %s\n", e.New)
		case ReplaceLine:
			fmt.Fprintf(&b, "  in line %-5d %s\n  write         %s\n", e.Line, e.Old, e.New)
		case RemoveLine:
			fmt.Fprintf(&b, "  remove %-6d %s\n", e.Line, e.Old)
		}
	}
	for _, opens := range c.Opens {
		fmt.Fprintf(&b, "                (%s)\n", opens)
	}
	return b.String()
}

// shownChanges bounds the changes that an explanation suggests.
const shownChanges = 3

// changes returns what would allow the request, the change that opens least
// first: measured by how many subjects gain how many methods of how many rules,
// where "*" counts for ten. Of changes that open the same, one that uses what is
// there comes before a new rule.
func (x *explainer) changes() []Change {
	var base Change
	allowed := false
	for _, r := range x.applies {
		if r.deny {
			base.Edits = append(base.Edits, x.narrow(r))
			base.Opens = append(base.Opens, x.noLongerDenies(r))
		} else {
			allowed = true
		}
	}
	if allowed {
		return []Change{base}
	}
	who := x.whom()
	found := slices.Concat(x.grantsFor(who), x.methodsFor(), []Change{x.ruleFor(who)})
	slices.SortStableFunc(found, func(a, b Change) int { return cmp.Compare(a.cost, b.cost) })
	found = found[:min(len(found), shownChanges)]
	for i, c := range found {
		found[i].Edits = slices.Concat(base.Edits, c.Edits)
		found[i].Opens = slices.Concat(base.Opens, c.Opens)
	}
	return found
}

// narrow takes the method out of a denial.
func (x *explainer) narrow(r *rule) Edit {
	e := Edit{Action: RemoveLine, Line: int(r.line), Old: x.ruleText(r)}
	if left := r.methods & x.methods.named() &^ x.bit; left != 0 {
		e.Action, e.New = ReplaceLine, x.respell(r, left)
	}
	return e
}

func (x *explainer) noLongerDenies(r *rule) string {
	methods := x.method
	switch {
	case r.methods == allMethods && x.bit != otherMethods:
		// The language cannot say "all but".
		methods += ", and methods that the policy does not name,"
	case r.methods == allMethods:
		methods = "methods that the policy does not name"
	}
	return fmt.Sprintf("no longer denied: %s on %s for %s", methods, x.pattern(r), x.everybodyWhoIs(r.subject))
}

// named is the set of all methods that have a name in the policy or in common.
func (t *methodTable) named() methodSet {
	return 1<<(commonMethods+len(t.names)) - 1
}

func (x *explainer) respell(r *rule, methods methodSet) string {
	effect := Allow
	if r.deny {
		effect = Deny
	}
	return fmt.Sprintf("p, %s, %s, %s, %s", x.subjects.names[r.subject], x.pattern(r), x.methods.String(methods), effect)
}

func (x *explainer) everybodyWhoIs(id subjectID) string {
	switch {
	case id == anonymous || x.subjects.is(anonymous, id):
		return "everybody"
	case id == authenticated || x.subjects.is(authenticated, id):
		return "everybody with a valid token"
	}
	return "whoever is " + x.subjects.names[id]
}
