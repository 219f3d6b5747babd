package policy

import (
	"fmt"
	"slices"
	"strings"
)

// maxInherited bounds the pairs (subject, what it inherits by one of its g
// lines) of a policy, and so the time that the closure takes and its memory:
// 32 Mi pairs are at most 128 MiB.
const maxInherited = 32 << 20

// checkCycles reports inheritance that leads back to where it began. Casbin
// would load it; but the lines of a cycle all mean the same set of roles, which
// nobody writes on purpose.
func (p *parser) checkCycles() {
	next := make([][]grant, len(p.subjects.names))
	for _, g := range p.grants {
		next[g.member] = append(next[g.member], g)
	}
	const (
		unseen = iota
		open   // on the path under way
		closed
	)
	state := make([]uint8, len(next))
	var path []grant
	for start := range next {
		if state[start] != unseen {
			continue
		}
		// Depth first with a stack of our own: chains can be long.
		state[start] = open
		path = append(path[:0], grant{group: subjectID(start)})
		for len(path) > 0 && len(p.problems) < maxProblems {
			at := path[len(path)-1].group
			if len(next[at]) == 0 {
				state[at] = closed
				path = path[:len(path)-1]
				continue
			}
			g := next[at][0]
			next[at] = next[at][1:]
			switch state[g.group] {
			case unseen:
				state[g.group] = open
				path = append(path, g)
			case open:
				p.reportCycle(path, g)
			}
		}
	}
}

// reportCycle reports the cycle that back closes, at its last line.
func (p *parser) reportCycle(path []grant, back grant) {
	i := len(path) - 1
	for path[i].group != back.group {
		i--
	}
	cycle := append(slices.Clone(path[i+1:]), back)
	var b strings.Builder
	b.WriteString(p.subjects.names[cycle[0].member])
	last := uint32(0)
	for i, g := range cycle {
		last = max(last, g.line)
		if i == 3 && len(cycle) > 6 {
			fmt.Fprintf(&b, " → … %d more", len(cycle)-6)
		}
		if i >= 3 && i < len(cycle)-3 {
			continue
		}
		fmt.Fprintf(&b, " → %s (line %d)", p.subjects.names[g.group], g.line)
	}
	p.line = int(last)
	p.problem("cycle", &fault{-1, "inheritance in a circle: " + b.String(), "remove one of these lines"})
}

// close computes what each subject inherits. The grants must be free of cycles.
func (s *subjects) close(grants []grant) error {
	n := len(s.names)
	groups := make([][]subjectID, n)
	members := make([]int, n) // how many inherit directly and are not done yet
	for _, g := range grants {
		groups[g.member] = append(groups[g.member], g.group)
		members[g.group]++
	}
	order := make([]subjectID, 0, n) // members before the groups they inherit
	for id := range n {
		if members[id] == 0 {
			order = append(order, subjectID(id))
		}
	}
	for i := 0; i < len(order); i++ {
		for _, group := range groups[order[i]] {
			if members[group]--; members[group] == 0 {
				order = append(order, group)
			}
		}
	}

	closures := make([][]subjectID, n)
	total := 0
	for _, id := range slices.Backward(order) {
		var all []subjectID
		for _, group := range groups[id] {
			all = append(append(all, group), closures[group]...)
		}
		if total += len(all); total > maxInherited {
			return fmt.Errorf("inheritance is too dense: more than %d pairs of a subject and what it inherits", maxInherited)
		}
		slices.Sort(all)
		closures[id] = slices.Clip(slices.Compact(all))
	}

	s.offsets = make([]uint32, 1, n+1)
	s.inherited = make([]subjectID, 0, total)
	s.blooms = make([]uint64, n)
	for id, closure := range closures {
		s.blooms[id] = 1 << (id % 64)
		for _, group := range closure {
			s.blooms[id] |= 1 << (group % 64)
		}
		s.inherited = append(s.inherited, closure...)
		s.offsets = append(s.offsets, uint32(len(s.inherited)))
	}
	return nil
}

// holders returns a function that lists who is a subject: the subject itself
// and all that inherit it, without permissions, which nobody has as such.
func (s *subjects) holders() func(subjectID) []subjectID {
	offsets := make([]uint32, len(s.names)+1)
	count := func(yield func(holder, held subjectID)) {
		for id := range subjectID(len(s.names)) {
			if s.isPermission(id) {
				continue
			}
			yield(id, id)
			for _, held := range s.inherits(id) {
				yield(id, held)
			}
		}
	}
	count(func(_, held subjectID) { offsets[held+1]++ })
	for i := range s.names {
		offsets[i+1] += offsets[i]
	}
	all := make([]subjectID, offsets[len(s.names)])
	next := slices.Clone(offsets)
	count(func(holder, held subjectID) {
		all[next[held]] = holder
		next[held]++
	})
	return func(held subjectID) []subjectID { return all[offsets[held]:offsets[held+1]] }
}
