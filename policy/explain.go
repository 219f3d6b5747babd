package policy

import (
	"fmt"
	"slices"
	"strings"
)

// Explanation is a decision with everything that led to it, for the person who
// asks why. Subjects are spelt as in the policy file.
type Explanation struct {
	Method string `json:"method"`
	Path   string `json:"path"`
	// NotCanonical says what is wrong with a path that no rule can ever cover.
	NotCanonical  string   `json:"not_canonical,omitempty"`
	Authenticated bool     `json:"authenticated"`
	Roles         []string `json:"roles"`
	// Ignored are those of the roles that the policy does not name, and all of
	// them if the caller is not authenticated.
	Ignored []string `json:"ignored_roles,omitempty"`

	Effect Effect   `json:"effect"`
	Rule   *RuleRef `json:"rule,omitempty"` // that decided; absent if none applies

	Subjects []Membership `json:"subjects"`          // all that the caller is
	Applies  []RuleRef    `json:"applies,omitempty"` // every rule that applies: denials first, then by line
	// Near are the rules of the opposite effect that failed by little, the nearest
	// first: what nearly allowed a denied request, or denied an allowed one.
	Near []NearRule `json:"near,omitempty"`
	// Changes would each allow a denied request, the one that opens least first.
	// There is none for a path that is not canonical.
	Changes []Change `json:"changes,omitempty"`
}

// RuleRef is a rule and where it stands.
type RuleRef struct {
	Rule string `json:"rule"` // in canonical spelling: see Decision.Rule
	File string `json:"file"`
	Line int    `json:"line"` // from 1
}

func (r RuleRef) String() string { return fmt.Sprintf("%s:%d: %s", r.File, r.Line, r.Rule) }

// Membership is a subject that a caller is, and why.
type Membership struct {
	Subject string `json:"subject"`
	// Via are the g lines that lead to it from what the caller is by itself, in
	// order and as few as possible. It is empty for the latter.
	Via []RuleRef `json:"via,omitempty"`
}

// Explain says what Decide says about the request, and why. Unlike Decide, it
// takes a time that grows with the number of rules.
func (p *Policy) Explain(c Caller, method, path string) Explanation {
	d := p.Decide(c, method, path)
	e := Explanation{
		Method: method, Path: path, NotCanonical: whyNotCanonical(path),
		Authenticated: c.Authenticated, Roles: slices.Clone(c.Roles), Effect: effectOf(d.Allowed),
	}
	if p == nil || p.index == nil {
		return e
	}
	if d.Rule != "" {
		e.Rule = &RuleRef{d.Rule, d.File, d.Line}
	}
	for _, role := range c.Roles {
		if _, known := p.subjects.roles[role]; !known || !c.Authenticated {
			e.Ignored = append(e.Ignored, role)
		}
	}
	e.Subjects = p.memberships(c)
	if e.NotCanonical != "" {
		return e
	}
	x := &explainer{Policy: p, caller: c, method: method, path: path, bit: p.methods.lookup(method)}
	x.sortOut(d.Allowed)
	for _, r := range x.applies {
		e.Applies = append(e.Applies, p.ref(r))
	}
	e.Near = x.nearest()
	if !d.Allowed {
		e.Changes = x.changes()
	}
	return e
}

func (p *Policy) ref(r *rule) RuleRef { return RuleRef{p.ruleText(r), p.file, int(r.line)} }

// whyNotCanonical returns "" for a path that a rule could cover.
func whyNotCanonical(path string) string {
	if isCanonical(path) {
		return ""
	}
	if path == "" || path[0] != '/' {
		return "it does not begin with /"
	}
	for i, segment := range strings.Split(path[1:], "/") {
		if segment == "." || segment == ".." {
			return fmt.Sprintf("segment %d is %q", i+1, segment)
		}
		if segment == "" {
			return fmt.Sprintf("segment %d is empty (two slashes in a row)", i+1)
		}
	}
	return "its segments are odd"
}

// memberships follows the g lines from what the caller is, breadth first, so
// that each subject is reached in the fewest steps.
func (p *Policy) memberships(c Caller) []Membership {
	next := make(map[subjectID][]grant)
	for _, g := range p.grants {
		next[g.member] = append(next[g.member], g)
	}
	reached := make(map[subjectID]bool)
	var order []subjectID
	for _, id := range p.subjects.of(c, nil) {
		if !reached[id] {
			reached[id] = true
			order = append(order, id)
		}
	}
	by := make(map[subjectID]grant)
	var all []Membership
	for i := 0; i < len(order); i++ {
		id := order[i]
		m := Membership{Subject: p.subjects.names[id]}
		for at := id; ; {
			g, inherited := by[at]
			if !inherited {
				break
			}
			m.Via = append(m.Via, p.grantRef(g))
			at = g.member
		}
		slices.Reverse(m.Via)
		all = append(all, m)
		for _, g := range next[id] {
			if !reached[g.group] {
				reached[g.group] = true
				by[g.group] = g
				order = append(order, g.group)
			}
		}
	}
	return all
}

// explainer is one explanation under way.
type explainer struct {
	*Policy
	caller       Caller
	method, path string
	bit          methodSet // of the method

	applies []*rule    // to the caller and the request
	matches []*rule    // the path and the method, whoever the caller is
	covers  []*rule    // the path, whatever the method
	near    []NearRule // see Explanation.Near
}

// sortOut looks at every rule once.
func (x *explainer) sortOut(allowed bool) {
	is := x.subjectTest()
	for i := range x.rules {
		r := &x.rules[i]
		pathFails := comparePath(x.pattern(r), x.path)
		mine, fits := is(r.subject), r.methods&x.bit != 0
		if pathFails == nil {
			x.covers = append(x.covers, r)
			if fits {
				x.matches = append(x.matches, r)
			}
			if fits && mine {
				x.applies = append(x.applies, r)
				continue
			}
		}
		// A denial is of interest when the request is allowed, and vice versa.
		if r.deny != allowed || pathFails != nil && !pathFails.near {
			continue
		}
		n := NearRule{RuleRef: x.ref(r)}
		if pathFails != nil {
			n.Failed = append(n.Failed, pathFails.Failure)
		}
		if !fits {
			n.Failed = append(n.Failed, x.methodFailure(r))
		}
		if !mine {
			n.Failed = append(n.Failed, x.subjectFailure(r))
		}
		if len(n.Failed) == 1 || len(n.Failed) == 2 && (pathFails == nil || fits) {
			x.near = append(x.near, n)
		}
	}
	byEffectAndLine := func(a, b *rule) int {
		if a.deny != b.deny {
			if a.deny {
				return -1
			}
			return 1
		}
		return int(a.line) - int(b.line)
	}
	slices.SortFunc(x.applies, byEffectAndLine)
	slices.SortFunc(x.matches, byEffectAndLine)
	slices.SortFunc(x.covers, byEffectAndLine)
}

// subjectTest returns whether the caller is a subject.
func (x *explainer) subjectTest() func(subjectID) bool {
	ids := x.subjects.of(x.caller, nil)
	return func(subject subjectID) bool {
		return slices.ContainsFunc(ids, func(id subjectID) bool { return x.subjects.is(id, subject) })
	}
}

// String explains in words.
func (e Explanation) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s is %s\n", e.Method, e.Path, map[Effect]string{Allow: "allowed", Deny: "denied"}[e.Effect])
	switch {
	case e.NotCanonical != "":
		fmt.Fprintf(&b, "  the path is not canonical: %s; no rule can cover it\n", e.NotCanonical)
	case e.Rule == nil:
		b.WriteString("  no rule allows it\n")
	default:
		fmt.Fprintf(&b, "  by %s\n", *e.Rule)
	}
	b.WriteString("\nthe caller is\n")
	for _, m := range e.Subjects {
		fmt.Fprintf(&b, "  %s\n", m.Subject)
		for _, via := range m.Via {
			fmt.Fprintf(&b, "      by %s\n", via)
		}
	}
	for _, role := range e.Ignored {
		if e.Authenticated {
			fmt.Fprintf(&b, "  and has the role %q, which the policy does not name\n", role)
		} else {
			fmt.Fprintf(&b, "  the role %q does not count without a valid token\n", role)
		}
	}
	if len(e.Applies) > 1 {
		b.WriteString("\nall rules that apply\n")
		for _, r := range e.Applies {
			fmt.Fprintf(&b, "  %s\n", r)
		}
	}
	if len(e.Near) > 0 {
		fmt.Fprintf(&b, "\nnearly %s by\n", map[Effect]string{Allow: "denied", Deny: "allowed"}[e.Effect])
		for _, n := range e.Near {
			fmt.Fprintf(&b, "  %s\n", n.RuleRef)
			for _, f := range n.Failed {
				fmt.Fprintf(&b, "      but %s\n", f.Detail)
			}
		}
	}
	for i, change := range e.Changes {
		b.WriteString([...]string{"\nthe smallest change that would allow it\n", "\nor\n"}[min(i, 1)])
		b.WriteString(change.String())
	}
	return b.String()
}
