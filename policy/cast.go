package policy

import (
	"maps"
	"slices"
	"strings"
)

// cast is everybody whom policies tell apart, each as a caller who is nobody
// else. A caller of several roles is denied what one of them is denied, and
// else allowed what one of them is allowed.
type cast struct {
	names   []string
	callers []Caller
	methods []string // that a rule names, and at the end one that none does
}

func newCast(policies ...*Policy) cast {
	c := cast{names: []string{"anonymous", "authenticated"}, callers: []Caller{{}, {Authenticated: true}}}
	roles, named := make(map[string]bool), make(map[string]bool)
	for _, p := range policies {
		for _, role := range p.Roles() {
			roles[role] = true
		}
		var all methodSet
		for i := range p.rules {
			if set := p.rules[i].methods; set != allMethods {
				all |= set
			}
		}
		for method := range strings.SplitSeq(p.methods.String(all), "|") {
			named[method] = true
		}
	}
	delete(named, "") // no rule names any
	for _, role := range slices.Sorted(maps.Keys(roles)) {
		c.names = append(c.names, rolePrefix+role)
		c.callers = append(c.callers, Caller{Authenticated: true, Roles: []string{role}})
	}
	for _, method := range registeredMethods()[:commonMethods] {
		if named[method] {
			c.methods = append(c.methods, method)
			delete(named, method)
		}
	}
	c.methods = append(c.methods, slices.Sorted(maps.Keys(named))...)
	taken := func(method string) bool { return slices.Contains(c.methods, method) }
	for _, method := range registeredMethods()[:commonMethods] {
		if !taken(method) {
			c.methods = append(c.methods, method)
			return c
		}
	}
	c.methods = append(c.methods, otherThan("OTHER", taken))
	return c
}

// spell returns the names of methods, given by position: "*", if the one is
// among them that no rule names, and which are to be excepted.
func (c cast) spell(methods []int) (names, except []string) {
	last := len(c.methods) - 1
	if !slices.Contains(methods, last) {
		for _, m := range methods {
			names = append(names, c.methods[m])
		}
		return names, nil
	}
	for m := range last {
		if !slices.Contains(methods, m) {
			except = append(except, c.methods[m])
		}
	}
	return []string{"*"}, except
}

// members says of each of the cast whether they are the subject.
func (c cast) members(p *Policy, subject subjectID) []bool {
	is := make([]bool, len(c.callers))
	for i, caller := range c.callers {
		is[i] = slices.ContainsFunc(p.subjects.of(caller, nil), func(id subjectID) bool { return p.subjects.is(id, subject) })
	}
	return is
}
