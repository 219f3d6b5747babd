package policy

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Population is the callers that there really are, counted by their roles: those
// of the store, or those of a decision log. Its memory grows with the number of
// different sets of roles, not with that of callers.
type Population struct {
	groups map[string]*Group
}

// Group is the callers who have the same roles, and so are the same to every policy.
type Group struct {
	Caller Caller
	Count  int
	Sample []string // the names of some, at most shownNames
}

// shownNames bounds the names that are told of a group.
const shownNames = 5

// Add counts one more caller. The name is only ever shown.
func (p *Population) Add(name string, c Caller) {
	roles := slices.Compact(slices.Sorted(slices.Values(c.Roles)))
	key := fmt.Sprintf("%t %q", c.Authenticated, roles)
	g := p.groups[key]
	if g == nil {
		if p.groups == nil {
			p.groups = make(map[string]*Group)
		}
		g = &Group{Caller: Caller{c.Authenticated, roles}}
		p.groups[key] = g
	}
	g.Count++
	if len(g.Sample) < shownNames {
		g.Sample = append(g.Sample, name)
	}
}

// Groups lists the groups in a stable order.
func (p *Population) Groups() []Group {
	var all []Group
	for _, key := range slices.Sorted(maps.Keys(p.groups)) {
		all = append(all, *p.groups[key])
	}
	return all
}

// People is a number of users and the names of some of them.
type People struct {
	Count  int      `json:"count"`
	Sample []string `json:"sample,omitempty"`
}

func (p *People) add(g Group) {
	p.Count += g.Count
	p.Sample = append(p.Sample, g.Sample[:min(len(g.Sample), shownNames-len(p.Sample))]...)
}

// String is such as "3 users (ana, bob, eve)".
func (p People) String() string {
	if p.Count == 0 {
		return "no user"
	}
	text := fmt.Sprintf("%d users", p.Count)
	if p.Count == 1 {
		text = "1 user"
	}
	if len(p.Sample) == 0 {
		return text
	}
	names := strings.Join(slices.Sorted(slices.Values(p.Sample)), ", ")
	if p.Count > len(p.Sample) {
		names += ", …"
	}
	return fmt.Sprintf("%s (%s)", text, names)
}
