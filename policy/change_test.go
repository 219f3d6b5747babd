package policy

import (
	"slices"
	"strings"
	"testing"
)

// A change that is suggested changes nothing but what it says: whatever else a
// policy decides, it decides as before.
func TestChangesChangeNothingElse(t *testing.T) {
	seeds, enough := uint64(60), 100
	if raceDetector {
		seeds, enough = 6, 10
	}
	compared, gained := 0, 0
	for seed := range seeds {
		g := generate(randomDice(seed))
		if strings.Count(g.source, "\n") > 40 {
			continue // as good as the others, and slow to compare
		}
		before := mustCompile(t, g.source)
		for i, c := range g.callers {
			for j, path := range g.paths {
				if (i+j)%3 > 0 {
					continue
				}
				method := g.methods[(i+j)%len(g.methods)]
				for _, change := range before.Explain(c, method, path).Changes {
					after := mustCompile(t, apply(t, g.source, change))
					d := mustDiff(t, before, after)
					compared++
					for _, s := range d.Shifts {
						gained++
						if !slices.ContainsFunc(change.Edits, func(e Edit) bool { return explains(e, before, after, s) }) {
							t.Fatalf("seed %d: for %+v %s %q\n%sdoes more than it says:\n%s\n%s", seed, c, method, path, change, d, g.source)
						}
					}
				}
			}
		}
	}
	if compared < enough || gained < compared/2 {
		t.Errorf("%d changes compared, which changed %d things: the test says little", compared, gained)
	}
}

// explains reports whether a shift comes of the edit, and is no more than it says.
func explains(e Edit, before, after *Policy, s Shift) bool {
	everyIs := func(p *Policy, name string) bool {
		subject := p.subjects.ids[name]
		return !slices.ContainsFunc(s.Subjects, func(who string) bool {
			var caller Caller
			if who != "anonymous" {
				caller.Authenticated = true
			}
			if role, ok := strings.CutPrefix(who, rolePrefix); ok {
				caller.Roles = []string{role}
			}
			return !slices.ContainsFunc(p.subjects.of(caller, nil), func(id subjectID) bool { return p.subjects.is(id, subject) })
		})
	}
	fields := strings.Split(e.New, ", ")
	if e.Action == RemoveLine {
		fields = strings.Split(e.Old, ", ")
	}
	opens := s.Kind == Gains || s.Kind == Unblocked
	if fields[0] == "g" {
		return opens && everyIs(after, fields[1])
	}
	return opens && patternCovers(fields[2], s.Paths.Pattern) && (everyIs(before, fields[1]) || everyIs(after, fields[1]))
}
