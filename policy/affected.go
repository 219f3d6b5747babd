package policy

import "slices"

// DiffFor is [Diff], and counts of the population whom each change affects:
// those for whom a request that it covers, and that is their doing, is decided
// otherwise.
func DiffFor(before, after *Policy, users *Population) (Difference, error) {
	d, err := newDiffer(before, after)
	if err != nil {
		return Difference{}, err
	}
	result := d.difference()
	d.affected(&result, users.Groups())
	return result, nil
}

func (d *differ) affected(result *Difference, groups []Group) {
	result.Affected = new(People)
	for i := range result.Shifts {
		result.Shifts[i].Affected = new(People)
	}
	for i := range result.Permissions {
		result.Permissions[i].Affected = new(People)
	}
	regions := make([][]region, len(result.Shifts))
	for i, s := range result.Shifts {
		for _, j := range within(d.regions, s.Paths.Pattern) {
			if s.Paths.covers(d.regions[j].path) {
				regions[i] = append(regions[i], d.regions[j])
			}
		}
	}
	for _, g := range groups {
		any := false
		for i := range result.Shifts {
			if s := &result.Shifts[i]; d.affects(s, regions[i], g.Caller) {
				s.Affected.add(g)
				any = true
			}
		}
		for i := range result.Permissions {
			if s := &result.Permissions[i]; d.affectsPermissions(s, g.Caller) {
				s.Affected.add(g)
				any = true
			}
		}
		if any {
			result.Affected.add(g)
		}
	}
}

// spelt is what a caller is by itself, as a Difference spells it.
func (c Caller) spelt() []string {
	if !c.Authenticated {
		return []string{"anonymous"}
	}
	names := []string{"authenticated"}
	for _, role := range c.Roles {
		names = append(names, rolePrefix+role)
	}
	return names
}

func (s *Shift) concerns(method string) bool {
	return slices.Contains(s.Methods, method) || s.Methods[0] == "*" && !slices.Contains(s.Except, method)
}

// affects reports whether some request of the shift is decided otherwise for the
// caller, who is one of its subjects.
func (d *differ) affects(s *Shift, regions []region, c Caller) bool {
	if !slices.ContainsFunc(c.spelt(), func(name string) bool { return slices.Contains(s.Subjects, name) }) {
		return false
	}
	for _, method := range d.methods {
		if !s.concerns(method) {
			continue
		}
		for _, r := range regions {
			if d.before.Decide(c, method, r.path).Allowed != d.after.Decide(c, method, r.path).Allowed {
				return true
			}
		}
	}
	return false
}

// affectsPermissions reports whether upstreams are told otherwise of the caller.
func (d *differ) affectsPermissions(s *PermissionShift, c Caller) bool {
	if !c.Authenticated || !slices.ContainsFunc(c.spelt(), func(name string) bool { return slices.Contains(s.Subjects, name) }) {
		return false
	}
	was, is := d.before.Permissions(c.Roles), d.after.Permissions(c.Roles)
	return slices.ContainsFunc(s.Permissions, func(name string) bool { return slices.Contains(was, name) != slices.Contains(is, name) })
}

// covers reports whether a request's path is one of the paths.
func (p Paths) covers(path string) bool {
	return matches(p.Pattern, path) && !slices.ContainsFunc(p.Except, func(e Paths) bool { return e.covers(path) })
}
