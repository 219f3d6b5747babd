package policy

import (
	"fmt"
	"slices"
	"strings"
)

// Coverage says which lines of a policy its tests have put to use. A rule is
// covered if it decided a check, an inheritance if the caller of a check came by
// it to the rule that decided.
type Coverage struct {
	Lines     int       `json:"lines"` // rules and inheritances
	Covered   int       `json:"covered"`
	Percent   float64   `json:"percent"` // rounded down to a tenth
	Uncovered []RuleRef `json:"uncovered"`
}

// Reaches reports whether at least so many percent of the lines are covered.
func (c Coverage) Reaches(percent float64) bool {
	return float64(c.Covered)*100 >= percent*float64(c.Lines)
}

// String lists the lines that are not covered, in the way of compilers, and counts.
func (c Coverage) String() string {
	var b strings.Builder
	for _, r := range c.Uncovered {
		fmt.Fprintf(&b, "%s:%d: no test uses: %s\n", r.File, r.Line, r.Rule)
	}
	fmt.Fprintf(&b, "%d of %d lines covered (%.1f%%)\n", c.Covered, c.Lines, c.Percent)
	return b.String()
}

// Coverage says which lines of the policy, which must be the one that the suite
// was run on, decided the checks.
func (r Report) Coverage(p *Policy) Coverage {
	bySubject := make(map[int]subjectID) // by the line of a rule
	for i := range p.rules {
		bySubject[int(p.rules[i].line)] = p.rules[i].subject
	}
	covered := make(map[int]bool) // by line
	seen := make(map[string]bool)
	for _, c := range r.Checks {
		if c.Rule == "" {
			continue
		}
		covered[c.RuleLine] = true
		caller, subject := Caller{c.Authenticated, c.Roles}, bySubject[c.RuleLine]
		key := fmt.Sprint(caller, subject)
		if seen[key] {
			continue
		}
		seen[key] = true
		ids := p.subjects.of(caller, nil)
		for _, g := range p.grants {
			came := slices.ContainsFunc(ids, func(id subjectID) bool { return p.subjects.is(id, g.member) })
			if came && p.subjects.is(g.group, subject) {
				covered[int(g.line)] = true
			}
		}
	}
	return p.coverage(covered)
}

func (p *Policy) coverage(covered map[int]bool) Coverage {
	c := Coverage{Lines: len(p.rules) + len(p.grants), Uncovered: []RuleRef{}}
	note := func(r RuleRef) {
		if covered[r.Line] {
			c.Covered++
		} else {
			c.Uncovered = append(c.Uncovered, r)
		}
	}
	for i := range p.rules {
		note(p.ref(&p.rules[i]))
	}
	for _, g := range p.grants {
		note(p.grantRef(g))
	}
	slices.SortFunc(c.Uncovered, func(a, b RuleRef) int { return a.Line - b.Line })
	c.Percent = float64(c.Covered*1000/c.Lines) / 10
	return c
}

func (p *Policy) grantRef(g grant) RuleRef {
	return RuleRef{fmt.Sprintf("g, %s, %s", p.subjects.names[g.member], p.subjects.names[g.group]), p.file, int(g.line)}
}
