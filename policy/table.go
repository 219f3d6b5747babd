package policy

import (
	"fmt"
	"maps"
	"slices"
)

// A table answers for a list of rules that is too long to be looked through: it
// says for each role which of the rules can decide, so that a decision costs a
// bisection for each of the caller's roles.

// table is a range of index.roles.
type table list

const (
	minScan = 16
	maxScan = 4096
	// maxChoices bounds the memory of the tables: 16 Mi are at most 192 MiB.
	maxChoices = 16 << 20
)

// tabulate makes tables of the lists that are longer than scanLimit, which it
// raises until they fit into the memory they may take.
func (b *builder) tabulate() error {
	b.scanLimit = minScan
	longest := uint32(0)
	for i := range b.slots {
		longest = max(longest, b.slots[i].exactly, b.slots[i].beneath)
	}
	if longest <= minScan {
		return nil
	}
	holders := b.subjects.holders()
	for ; b.scanLimit <= maxScan; b.scanLimit *= 2 {
		if b.tabulateAll(holders) {
			return nil
		}
	}
	return fmt.Errorf("too many roles have rules for one pattern: tables of more than %d choices", maxChoices)
}

func (b *builder) tabulateAll(holders func(subjectID) []subjectID) bool {
	b.tables = make(map[uint32]table)
	b.roles, b.offsets, b.choices = nil, nil, nil
	budget := maxChoices
	for i := range b.slots {
		for _, l := range [...]list{b.slots[i].exact(), b.slots[i].rest()} {
			if l.n <= b.scanLimit {
				continue
			}
			if b.tabulateOne(l, holders, &budget); budget < 0 {
				return false
			}
		}
	}
	b.offsets = append(b.offsets, uint32(len(b.choices)))
	return true
}

// decided are the methods that earlier rules of a list decide for a subject.
type decided struct{ denied, allowed methodSet }

// adds reports whether a rule decides anything that earlier ones do not.
func (d *decided) adds(r *rule) bool {
	before := *d
	if r.deny {
		d.denied |= r.methods
	} else {
		d.allowed |= r.methods
	}
	return *d != before
}

// tabulateOne notes, for every role that some rule of the list applies to,
// which rules can decide.
func (b *builder) tabulateOne(l list, holders func(subjectID) []subjectID, budget *int) {
	type choice struct {
		decided
		rules []uint32
	}
	byRole := make(map[subjectID]*choice)
	bySubject := make(map[subjectID]decided)
	for i := l.from; i < l.from+l.n; i++ {
		r := &b.rules[i]
		d := bySubject[r.subject]
		if !d.adds(r) {
			continue
		}
		bySubject[r.subject] = d
		for _, role := range holders(r.subject) {
			if *budget--; *budget < 0 {
				return
			}
			c := byRole[role]
			if c == nil {
				c = new(choice)
				byRole[role] = c
			}
			if c.adds(r) {
				c.rules = append(c.rules, i)
			}
		}
	}
	roles := slices.Sorted(maps.Keys(byRole))
	b.tables[l.from] = table{uint32(len(b.roles)), uint32(len(roles))}
	for _, role := range roles {
		b.roles = append(b.roles, role)
		b.offsets = append(b.offsets, uint32(len(b.choices)))
		b.choices = append(b.choices, byRole[role].rules...)
	}
}

// lookUp returns the first rule of a long list that applies.
func (s *search) lookUp(t table) uint32 {
	best := uint32(noRule)
	roles := s.roles[t.from : t.from+t.n]
	for _, id := range s.caller.subjects {
		at, ok := slices.BinarySearch(roles, id)
		if !ok {
			continue
		}
		at += int(t.from)
		for _, i := range s.choices[s.offsets[at]:s.offsets[at+1]] {
			// Positions in a list are in order of precedence.
			if s.rules[i].methods&s.method != 0 {
				best = min(best, i)
				break
			}
		}
	}
	return best
}
