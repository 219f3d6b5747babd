package policy

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// shifts puts the changes together: methods that change for the same subject in
// the same regions, and then subjects for whom the same changes.
func (d *differ) shifts() []Shift {
	type place struct {
		who  int
		kind ShiftKind
		text string // of the paths
	}
	described := make(map[string][]Paths)
	methods := make(map[place][]int)
	paths := make(map[string]Paths)
	for c, regions := range d.changed {
		key := fmt.Sprint(regions)
		if _, known := described[key]; !known {
			chosen := make(map[int]bool)
			for _, i := range regions {
				chosen[i] = true
			}
			described[key] = describe(d.regions, chosen)
		}
		for _, p := range described[key] {
			at := place{c.who, c.kind, p.String()}
			methods[at] = append(methods[at], c.method)
			paths[at.text] = p
		}
	}
	together := make(map[string]*Shift)
	for _, at := range slices.SortedFunc(maps.Keys(methods), func(a, b place) int { return a.who - b.who }) {
		slices.Sort(methods[at])
		key := fmt.Sprint(at.kind, methods[at], at.text)
		s := together[key]
		if s == nil {
			s = &Shift{Kind: at.kind, Paths: paths[at.text]}
			s.Methods, s.Except = d.spell(methods[at])
			s.Example = d.example(at.who, methods[at][0], s.Paths.Pattern)
			together[key] = s
		}
		s.Subjects = append(s.Subjects, d.names[at.who])
	}
	all := make([]Shift, 0, len(together))
	for _, s := range together {
		all = append(all, *s)
	}
	slices.SortFunc(all, compareShifts)
	return all
}

// compareShifts orders what opens before what closes, then by subject and path.
func compareShifts(a, b Shift) int {
	kinds := []ShiftKind{Gains, Unblocked, Loses, Blocked}
	if n := slices.Index(kinds, a.Kind) - slices.Index(kinds, b.Kind); n != 0 {
		return n
	}
	if n := slices.Compare(a.Subjects, b.Subjects); n != 0 {
		return n
	}
	if n := strings.Compare(a.Paths.String(), b.Paths.String()); n != 0 {
		return n
	}
	return slices.Compare(a.Methods, b.Methods)
}

// example asks both policies for the region that the label is of.
func (d *differ) example(who, method int, label string) Example {
	i, _ := slices.BinarySearchFunc(d.regions, label, func(r region, s string) int { return strings.Compare(r.label, s) })
	e := Example{Method: d.methods[method], Path: d.regions[i].path}
	ask := func(p *Policy) *RuleRef {
		decision := p.Decide(d.callers[who], e.Method, e.Path)
		if decision.Rule == "" {
			return nil
		}
		return &RuleRef{decision.Rule, decision.File, decision.Line}
	}
	e.Before, e.After = ask(d.before), ask(d.after)
	return e
}

func (d *differ) permissions() []PermissionShift {
	together := make(map[string]*PermissionShift)
	note := func(who string, kind ShiftKind, has, had []string) {
		gone := slices.DeleteFunc(slices.Clone(has), func(name string) bool { return slices.Contains(had, name) })
		if len(gone) == 0 {
			return
		}
		key := fmt.Sprint(kind, gone)
		if together[key] == nil {
			together[key] = &PermissionShift{Kind: kind, Permissions: gone}
		}
		together[key].Subjects = append(together[key].Subjects, who)
	}
	for i, caller := range d.callers {
		if !caller.Authenticated {
			continue // upstreams are told nothing of a stranger
		}
		was, is := d.before.Permissions(caller.Roles), d.after.Permissions(caller.Roles)
		note(d.names[i], Gains, is, was)
		note(d.names[i], Loses, was, is)
	}
	all := make([]PermissionShift, 0, len(together))
	for _, s := range together {
		all = append(all, *s)
	}
	slices.SortFunc(all, func(a, b PermissionShift) int {
		if n := strings.Compare(string(a.Kind), string(b.Kind)); n != 0 {
			return n
		}
		if n := slices.Compare(a.Permissions, b.Permissions); n != 0 {
			return n
		}
		return slices.Compare(a.Subjects, b.Subjects)
	})
	return all
}
