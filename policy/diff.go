package policy

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Difference is what a change of policy changes for callers. It is exact: a
// request is decided in another way for some caller if, and only if, a Shift of
// one of the caller's subjects covers it.
type Difference struct {
	Old         string            `json:"old"` // the policies' files
	New         string            `json:"new"`
	Shifts      []Shift           `json:"shifts"`
	Permissions []PermissionShift `json:"permissions"`
	// Affected are the users for whom anything changes; see DiffFor.
	Affected *People `json:"affected,omitempty"`
}

// Same reports whether the policies mean the same.
func (d Difference) Same() bool { return len(d.Shifts)+len(d.Permissions) == 0 }

// Shift is a set of requests that change their effect for some subjects.
type Shift struct {
	// Subjects are spelt as in the policy file: anonymous is a caller without a
	// token, authenticated one with a token and no role, role:NAME one with a
	// token and this role. Who is listed changes; what a subject inherits is
	// followed already.
	Subjects []string  `json:"subjects"`
	Kind     ShiftKind `json:"kind"`
	// Methods are names, or "*" for every method but the Except.
	Methods  []string `json:"methods"`
	Except   []string `json:"methods_except,omitempty"`
	Paths    Paths    `json:"paths"`
	Example  Example  `json:"example"`
	Affected *People  `json:"affected,omitempty"`
}

// ShiftKind says what changes.
type ShiftKind string

// The kinds of shift. A subject that was neither allowed nor denied by a rule and
// is denied by one now, or the other way round, sees no difference alone; but
// whoever has a second role, by which the request is allowed, does.
const (
	Gains     ShiftKind = "gains"     // is allowed now
	Unblocked ShiftKind = "unblocked" // keeps nobody from it any more who is allowed by another role
	Loses     ShiftKind = "loses"     // is not allowed any more
	Blocked   ShiftKind = "blocked"   // keeps everybody from it who is allowed by another role
)

// Example is one of the requests of a Shift, for the first of its subjects.
type Example struct {
	Method string   `json:"method"`
	Path   string   `json:"path"`
	Before *RuleRef `json:"before,omitempty"` // that decided; absent if none applied
	After  *RuleRef `json:"after,omitempty"`
}

// PermissionShift is a change of what upstreams are told of a caller's
// permissions.
type PermissionShift struct {
	Subjects    []string  `json:"subjects"`
	Kind        ShiftKind `json:"kind"`        // gains or loses
	Permissions []string  `json:"permissions"` // without "perm:"
	Affected    *People   `json:"affected,omitempty"`
}

// Diff compares the meaning of two policies, whatever their lines. It fails if a
// policy is missing, or if the patterns overlap in more ways than can be looked at.
func Diff(before, after *Policy) (Difference, error) {
	d, err := newDiffer(before, after)
	if err != nil {
		return Difference{}, err
	}
	return d.difference(), nil
}

func newDiffer(before, after *Policy) (*differ, error) {
	if before == nil || before.index == nil || after == nil || after.index == nil {
		return nil, errors.New("compare policies: no policy")
	}
	d := &differ{before: before, after: after, cast: newCast(before, after)}
	if err := d.compareAll(); err != nil {
		return nil, fmt.Errorf("compare policies: %w", err)
	}
	return d, nil
}

func (d *differ) difference() Difference {
	return Difference{
		Old: d.before.file, New: d.after.file,
		Shifts: d.shifts(), Permissions: d.permissions(),
	}
}

// compareAll asks both policies about every request that may have changed.
func (d *differ) compareAll() error {
	if err := d.findRegions(); err != nil {
		return err
	}
	if len(d.regions)*len(d.callers)*len(d.methods) > maxQuestions {
		return errors.New("too many roles and paths have changed to compare them all")
	}
	for i, r := range d.regions {
		d.compare(i, r)
	}
	return nil
}

type differ struct {
	before, after *Policy
	cast
	regions []region
	touched map[int][]bool // by pattern: who of the cast has other rules for it than before
	changed map[change][]int
}

// change is what may happen to one of the cast; differ.changed has where.
type change struct {
	who, method int
	kind        ShiftKind
}

// maxQuestions bounds how often policies are asked: for some tens of seconds.
const maxQuestions = 100_000_000

// findRegions finds the regions in which some rule is not the same in both
// policies. Elsewhere nothing can have changed.
func (d *differ) findRegions() error {
	type meaning struct {
		pattern, methods, members string
		deny                      bool
	}
	type occurrence struct {
		policies uint8
		pattern  string
		is       []bool
	}
	all := make(map[meaning]*occurrence)
	for n, p := range [...]*Policy{d.before, d.after} {
		members := make(map[subjectID][]bool)
		for i := range p.rules {
			r := &p.rules[i]
			is, known := members[r.subject]
			if !known {
				is = d.members(p, r.subject)
				members[r.subject] = is
			}
			if !slices.Contains(is, true) {
				continue // it is about nobody
			}
			m := meaning{withoutNames(p.pattern(r)), p.methods.String(r.methods), packed(is), r.deny}
			if all[m] == nil {
				all[m] = &occurrence{pattern: p.pattern(r), is: is}
			}
			all[m].policies |= 1 << n
		}
	}
	t := newTerrain()
	d.touched = make(map[int][]bool)
	for _, m := range slices.SortedFunc(maps.Keys(all), func(a, b meaning) int { return strings.Compare(all[a].pattern, all[b].pattern) }) {
		o := all[m]
		both := o.policies == 3
		id := t.add(o.pattern, !both)
		if both {
			continue
		}
		if d.touched[id] == nil {
			d.touched[id] = make([]bool, len(d.callers))
		}
		for who, is := range o.is {
			d.touched[id][who] = d.touched[id][who] || is
		}
	}
	d.changed = make(map[change][]int)
	var err error
	d.regions, err = t.regions(func(id int) bool { return d.touched[id] != nil })
	return err
}

// packed packs truths into a string that can be compared.
func packed(truths []bool) string {
	bytes := make([]byte, (len(truths)+7)/8)
	for i, is := range truths {
		if is {
			bytes[i/8] |= 1 << (i % 8)
		}
	}
	return string(bytes)
}

// standing is what a policy says of a request of one of the cast.
type standing uint8

const (
	unmatched standing = iota
	allowed
	denied
)

func standingOf(d Decision) standing {
	switch {
	case d.Allowed:
		return allowed
	case d.Rule != "":
		return denied
	}
	return unmatched
}

func (d *differ) compare(i int, r region) {
	for who := range d.callers {
		if !slices.ContainsFunc(r.patterns, func(id int) bool { return d.touched[id] != nil && d.touched[id][who] }) {
			continue
		}
		for m, method := range d.methods {
			was := standingOf(d.before.Decide(d.callers[who], method, r.path))
			now := standingOf(d.after.Decide(d.callers[who], method, r.path))
			kind := ShiftKind("")
			switch {
			case was == now:
			case now == allowed:
				kind = Gains
			case was == allowed:
				kind = Loses
			case now == denied && d.anyAllowed(d.before, method, r.path):
				kind = Blocked
			case was == denied && d.anyAllowed(d.after, method, r.path):
				kind = Unblocked
			}
			if kind != "" {
				c := change{who, m, kind}
				d.changed[c] = append(d.changed[c], i)
			}
		}
	}
}

func (d *differ) anyAllowed(p *Policy, method, path string) bool {
	return slices.ContainsFunc(d.callers, func(c Caller) bool { return p.Decide(c, method, path).Allowed })
}
