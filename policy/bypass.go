package policy

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// Routes that cut off or replace a prefix can lead clients to one path of an upstream
// from two of their own. The policy knows these only, so what a rule guards on one
// route, another rule may open on the other:
//
//	p, role:admin, /admin/*,  *,   allow    # of the route /admin
//	p, anonymous,  /public/*, GET, allow    # of the route /public, which is cut off: GET /public/admin/keys

// bypasses looks for ways around guards.
type bypasses struct {
	*linter
	cast   cast
	around Surroundings
	rules  []*rule            // by line
	kept   map[string][]guard // by the path of a route, what rules guard beneath it
	asked  int                // how often a policy, a rule or a route was
}

// guard is a rule with the part of its pattern that one route serves.
type guard struct {
	*rule
	pattern string
}

// maxAsked is what bypasses may ask: for a few seconds.
const maxAsked = 30_000_000

// lintBypasses reports rules that open on one route what rules guard on another, if
// that is hardly meant: because they are broader than the guard, which so they may
// have forgotten, or because nobody is kept from anything by it. Two doors for two
// kinds of people are fine.
//
// It asks so many questions at most, and says so if there are more.
func (l *linter) lintBypasses(around Surroundings, most int) {
	b := &bypasses{linter: l, around: around}
	for _, side := range around.Served {
		told := make(map[*rule]bool)
		for _, front := range around.Served {
			if !side.meets(front) {
				continue
			}
			if b.rules == nil {
				b.prepare()
			}
			for _, guard := range b.guards(front) {
				if len(l.problems) >= maxProblems {
					return
				}
				if b.asked > most {
					l.warn(0, "bypass-unfinished", "look yourself at what leads to the services of this route and of those that follow it in the configuration",
						"there are too many rules, roles and routes to find every way around a rule: the search ended after %d questions, at the route %s", most, side.Path)
					return
				}
				b.lint(guard, front, side, told)
			}
		}
	}
}

func (b *bypasses) prepare() {
	b.cast, b.kept = newCast(b.Policy), make(map[string][]guard)
	for i := range b.linter.rules {
		b.rules = append(b.rules, &b.linter.rules[i])
	}
	slices.SortFunc(b.rules, func(a, b *rule) int { return int(a.line) - int(b.line) })
}

// guards returns the rules that are for something that front serves. Those for nothing
// else come first: they tell best what is guarded.
func (b *bypasses) guards(front Served) []guard {
	if known, ok := b.kept[front.Path]; ok {
		return known
	}
	var own, others []guard
	for _, r := range b.rules {
		switch both := overlap(b.pattern(r), front.Pattern()); {
		case b.nobodys[r] || !patternCovers(b.pattern(r), both) || !patternCovers(front.Pattern(), both):
		case patternCovers(front.Pattern(), b.pattern(r)):
			own = append(own, guard{r, both})
		default:
			others = append(others, guard{r, both})
		}
	}
	b.kept[front.Path] = append(own, others...)
	return b.kept[front.Path]
}

// at returns the rule that stands in a line.
func (b *bypasses) at(line int) *rule {
	i, _ := slices.BinarySearchFunc(b.rules, line, func(r *rule, line int) int { return int(r.line) - line })
	return b.rules[i]
}

// lint looks at paths that the guard is for, if some rule may open them on the side
// route.
func (b *bypasses) lint(guard guard, front, side Served, told map[*rule]bool) {
	if !b.opens(side, front.beyond(guard.pattern), told) {
		return
	}
	for _, path := range examplePaths(guard.pattern) {
		b.lintPath(path, guard, front, side, told)
	}
}

// opens reports whether some rule that is not told of is for all of what a service
// gets as kept, if it gets that by side.
func (b *bypasses) opens(side Served, kept string, told map[*rule]bool) bool {
	rules := b.guards(side)
	b.asked += len(rules)
	return slices.ContainsFunc(rules, func(r guard) bool {
		return !r.deny && !told[r.rule] && patternCovers(side.beyond(r.pattern), kept)
	})
}

// lintPath looks at one path that the guard is for, and at the one by which the side
// route leads to the same. It tells of a rule once.
func (b *bypasses) lintPath(path string, guard guard, front, side Served, told map[*rule]bool) {
	upstream := front.beyond(path)
	other, ok := side.before(upstream)
	if !ok {
		return
	}
	for _, method := range b.cast.methods {
		if guard.methods&b.methods.lookup(method) == 0 || !b.serves(front, method, path) || !b.serves(side, method, other) {
			continue
		}
		passing, stopped, open := b.compare(method, path, other)
		if !open && front.Rewrite != "" {
			continue // a side door that is closed for good
		}
		for _, i := range passing {
			rule := b.at(b.Decide(b.cast.callers[i], method, other).Line)
			reach, kept := side.beyond(overlap(b.pattern(rule), side.Pattern())), front.beyond(guard.pattern)
			if told[rule] || !patternCovers(reach, kept) || stopped && (side.Rewrite == "" || patternCovers(kept, reach)) {
				continue
			}
			told[rule] = true
			b.warn(rule.line, "bypass", fmt.Sprintf("deny it there, let the rule or the route %s reach less, or allow them %s, too", side.Path, path),
				"%s may %s %s, and so what line %d (%s) guards at %s: %s gets both as %s",
				b.cast.names[i], method, other, guard.line, b.ruleText(guard.rule), path, side.Upstream, upstream)
		}
	}
}

// compare returns who of the cast is allowed the other path and not the path,
// whether for somebody it is the other way round, and whether anybody is allowed
// the path.
func (b *bypasses) compare(method, path, other string) (passing []int, stopped, open bool) {
	b.asked += len(b.cast.callers)
	for i, caller := range b.cast.callers {
		here, there := b.Decide(caller, method, path).Allowed, b.Decide(caller, method, other).Allowed
		if there && !here {
			passing = append(passing, i)
		}
		stopped, open = stopped || here && !there, open || here
	}
	return passing, stopped, open
}

// serves reports whether it is s that answers.
func (b *bypasses) serves(s Served, method, path string) bool {
	b.asked += len(b.around.Served)
	by, ok := b.around.ServedBy(method, path)
	return ok && by.What == s.What && by.Path == s.Path
}

// meets reports whether s and another route may lead to the same path of the same
// service. Without any rewriting each path has one route.
func (s Served) meets(other Served) bool {
	if s.Path == other.Path || s.Rewrite == "" && other.Rewrite == "" || strings.Contains(s.Path+other.Path, "/:") {
		return false
	}
	return slices.ContainsFunc(s.Targets, func(target string) bool { return slices.Contains(other.Targets, target) })
}

// prefixes are that of clients and that of the upstream; "" is the root.
func (s Served) prefixes() (client, upstream string) {
	return strings.TrimSuffix(s.Path, "/"), strings.TrimSuffix(cmp.Or(s.Rewrite, s.Path), "/")
}

// beyond is what the upstream gets for a path, or a pattern, beneath s.
func (s Served) beyond(path string) string {
	client, upstream := s.prefixes()
	return cmp.Or(upstream+path[len(client):], "/")
}

// before is a path that the upstream gets as beyond, if there is one.
func (s Served) before(beyond string) (path string, ok bool) {
	client, upstream := s.prefixes()
	rest, ok := strings.CutPrefix(beyond, upstream)
	if path = client + rest; !ok || path == "" || rest != "" && rest[0] != '/' {
		return "", false
	}
	return path, true
}

// examplePaths are paths that a pattern covers and, most likely, no literal in another
// one does. Names can be narrower than a "*": there is one path that a name covers where
// the "*" stands, one that is longer, and those that are shorter.
func examplePaths(pattern string) []string {
	segments := strings.Split(pattern, "/")
	for i, s := range segments {
		if isName(s) {
			segments[i] = s[1:]
		}
	}
	path, more := strings.CutSuffix(strings.Join(segments, "/"), "/*")
	switch {
	case !more:
		return []string{path}
	case path == "":
		return []string{"/x", "/x/x", "/"}
	}
	return []string{path + "/x", path + "/x/x", path, path + "/"}
}
