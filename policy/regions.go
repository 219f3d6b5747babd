package policy

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// The patterns of a policy divide all paths into regions: two paths are in one
// region if the same patterns cover them, so that no request can tell them
// apart. To know what a policy says about every path, it is enough to ask it
// about one path of each region.

// region is a set of paths that are covered by the same patterns and no others.
type region struct {
	// label is what these patterns have in common, which is a pattern again. It
	// covers the region and, it may be, narrower ones.
	label    string
	path     string // one of the region
	patterns []int  // that cover it, by position in the terrain, ascending
}

// terrain is the patterns of one or more policies as a trie. Unlike the index,
// it is made to be walked along all paths at once.
type terrain struct {
	patterns []string
	ids      map[string]int // by the pattern without its names
	root     *crossing
}

// crossing is where patterns that begin alike part.
type crossing struct {
	literals    map[string]*crossing
	name        *crossing
	exact, rest int  // the pattern that ends here, or here with "*"; -1: none
	relevant    bool // a pattern that somebody asks about ends here or beneath
}

func newTerrain() *terrain {
	return &terrain{ids: make(map[string]int), root: newCrossing()}
}

func newCrossing() *crossing {
	return &crossing{literals: make(map[string]*crossing), exact: -1, rest: -1}
}

// add returns the position of a pattern; patterns that differ in names only are
// the same. Only regions that some relevant pattern covers are ever looked for.
func (t *terrain) add(pattern string, relevant bool) int {
	key := withoutNames(pattern)
	id, known := t.ids[key]
	if !known {
		id = len(t.patterns)
		t.ids[key] = id
		t.patterns = append(t.patterns, strings.Clone(pattern))
	}
	at := t.root
	for rest, more := pattern[1:], true; more; {
		at.relevant = at.relevant || relevant
		var segment string
		segment, rest, more = cutSegment(rest)
		if segment == "*" {
			at.rest = id
			return id
		}
		next := at.literals[segment]
		if isName(segment) {
			next = at.name
		}
		if next == nil {
			next = newCrossing()
			if isName(segment) {
				at.name = next
			} else {
				at.literals[segment] = next
			}
		}
		at = next
	}
	at.exact = id
	at.relevant = at.relevant || relevant
	return id
}

func withoutNames(pattern string) string {
	segments := strings.Split(pattern, "/")
	for i, s := range segments {
		if isName(s) {
			segments[i] = ":"
		}
	}
	return strings.Join(segments, "/")
}

// maxSteps bounds the walk. The number of regions grows with the number of
// patterns, as long as names and literals are not mixed freely in each segment.
const maxSteps = 1 << 18

var errTooManyRegions = errors.New("the patterns overlap in too many ways to look at all of them")

// regions lists the regions that a relevant pattern covers, in the order of
// their labels. relevant says so for a pattern that ends in "*".
func (t *terrain) regions(relevant func(id int) bool) ([]region, error) {
	w := &walk{terrain: t, isRelevant: relevant, found: make(map[string]region)}
	if err := w.from([]*crossing{t.root}, "", nil); err != nil {
		return nil, err
	}
	all := slices.Collect(maps.Values(w.found))
	for i, r := range all {
		all[i].label = t.patterns[r.patterns[0]]
		for _, id := range r.patterns[1:] {
			all[i].label = overlap(all[i].label, t.patterns[id])
		}
	}
	slices.SortFunc(all, func(a, b region) int { return strings.Compare(a.label, b.label) })
	return all, nil
}

type walk struct {
	*terrain
	isRelevant func(id int) bool
	found      map[string]region // by the positions of their patterns
	steps      int
}

// from looks at all paths that begin with some segments: path is one of these
// beginnings, at is where the patterns are that agree with it so far, and
// behind has those that have ended with a "*".
func (w *walk) from(at []*crossing, path string, behind []int) error {
	if w.steps++; w.steps > maxSteps {
		return errTooManyRegions
	}
	behind = slices.Clip(behind)
	relevant := slices.ContainsFunc(behind, w.isRelevant)
	var names []*crossing
	literals := make(map[string][]*crossing)
	here := behind
	for _, c := range at {
		relevant = relevant || c.relevant
		if c.rest >= 0 {
			here = append(here, c.rest)
		}
		if c.name != nil {
			names = append(names, c.name)
		}
		for literal, next := range c.literals {
			literals[literal] = append(literals[literal], next)
		}
	}
	if !relevant {
		return nil
	}
	if path != "" {
		w.note(path, here, at)
	}
	// The empty segment is no name, and nothing follows it.
	w.note(path+"/", here, literals[""])
	delete(literals, "")
	for literal, next := range literals {
		if err := w.from(slices.Concat(next, names), path+"/"+literal, here); err != nil {
			return err
		}
	}
	other := otherThan("x", func(s string) bool { return literals[s] != nil })
	if names == nil {
		w.note(path+"/"+other, here, nil)
		return nil
	}
	return w.from(names, path+"/"+other, here)
}

// otherThan returns a word that is not taken.
func otherThan(word string, taken func(string) bool) string {
	other := word
	for i := 2; taken(other); i++ {
		other = fmt.Sprintf("%s%d", word, i)
	}
	return other
}

// note keeps the region of a path: covered by what covers everything beneath
// and by what ends exactly there.
func (w *walk) note(path string, beneath []int, ends []*crossing) {
	ids := slices.Clone(beneath)
	for _, c := range ends {
		if c.exact >= 0 {
			ids = append(ids, c.exact)
		}
		if c.rest >= 0 && !slices.Contains(ids, c.rest) {
			ids = append(ids, c.rest)
		}
	}
	if !slices.ContainsFunc(ids, w.isRelevant) {
		return
	}
	slices.Sort(ids)
	key := fmt.Sprint(ids)
	if old, known := w.found[key]; known && len(old.path) <= len(path) {
		return
	}
	w.found[key] = region{path: path, patterns: ids}
}

// overlap returns the pattern of all paths that both patterns cover. If there are
// none, it returns one that not both of them cover.
func overlap(a, b string) string {
	x, y := strings.Split(a[1:], "/"), strings.Split(b[1:], "/")
	var both []string
	for i := range max(len(x), len(y)) {
		if i >= len(x) || i >= len(y) {
			break // the longer one ends in "*", which also covers nothing
		}
		if x[i] == "*" {
			both = append(both, y[i:]...)
			break
		}
		if y[i] == "*" {
			both = append(both, x[i:]...)
			break
		}
		segment := x[i]
		if isName(segment) {
			segment = y[i]
		}
		if isName(segment) {
			segment = otherThan(segment, func(s string) bool { return slices.Contains(both, s) })
		}
		both = append(both, segment)
	}
	return "/" + strings.Join(both, "/")
}

// Paths are those that a pattern covers, without some.
type Paths struct {
	Pattern string  `json:"pattern"`
	Except  []Paths `json:"except,omitempty"`
}

// String describes the paths, such as "/tasks/* except /tasks/mine".
func (p Paths) String() string {
	if len(p.Except) == 0 {
		return p.Pattern
	}
	var except []string
	for _, e := range p.Except {
		if len(e.Except) > 0 {
			except = append(except, "("+e.String()+")")
		} else {
			except = append(except, e.Pattern)
		}
	}
	return p.Pattern + " except " + strings.Join(except, ", ")
}

// describe returns in few patterns what the chosen of all regions cover. Both
// are positions in regions, which are in the order of their labels.
func describe(regions []region, chosen map[int]bool) []Paths {
	var all []Paths
	for _, i := range broadest(regions, chosen) {
		except := make(map[int]bool)
		for _, j := range within(regions, regions[i].label) {
			if !chosen[j] {
				except[j] = true
			}
		}
		all = append(all, Paths{regions[i].label, describe(regions, except)})
	}
	return all
}

// broadest returns those of the chosen regions whose label no other's covers.
func broadest(regions []region, chosen map[int]bool) []int {
	inner := make(map[int]bool)
	for i := range chosen {
		if inner[i] || !isBroad(regions[i].label) {
			continue
		}
		for _, j := range within(regions, regions[i].label) {
			if i != j {
				inner[j] = true
			}
		}
	}
	var outer []int
	for i := range chosen {
		if !inner[i] {
			outer = append(outer, i)
		}
	}
	slices.Sort(outer)
	return outer
}

// isBroad reports whether a pattern covers more than one path.
func isBroad(pattern string) bool { return strings.ContainsAny(pattern, ":*") }

// within returns the regions that a pattern covers.
func within(regions []region, pattern string) []int {
	// What it covers begins as it does, up to its first name or "*".
	start := pattern
	if i := strings.IndexAny(pattern, ":*"); i >= 0 {
		start = pattern[:i-1]
	}
	first, _ := slices.BinarySearchFunc(regions, start, func(r region, s string) int { return strings.Compare(r.label, s) })
	var all []int
	for i := first; i < len(regions) && strings.HasPrefix(regions[i].label, start); i++ {
		if patternCovers(pattern, regions[i].label) {
			all = append(all, i)
		}
	}
	return all
}
