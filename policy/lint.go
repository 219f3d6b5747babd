package policy

import (
	"fmt"
	"iter"
	"slices"
	"strings"
)

// Lint reports everything about a policy file that its author should know: the
// errors for which [Parse] refuses it or, if there is none, warnings about lines
// that are clear but hardly meant. It is for the person at the keyboard; it
// takes longer than Parse. The problems are in the order of lines.
func Lint(name string, source []byte) Problems { return Surroundings{}.Lint(name, source) }

// Lint is [Lint], and also says where the policy and its surroundings do not fit.
func (around Surroundings) Lint(name string, source []byte) Problems {
	p, err := Parse(name, source)
	if err != nil {
		return err.(Problems) //nolint:errorlint // Parse promises it
	}
	l := &linter{Policy: p, bySubject: make(map[uint32]map[subjectID][]*rule), nobodys: make(map[*rule]bool)}
	l.lintGrants()
	for i := range p.rules {
		if r := &p.rules[i]; !r.deny {
			l.allowed.add(p.pattern(r), r.methods)
		}
	}
	l.findClosed(around.Served)
	for i := range p.rules {
		if len(l.problems) >= maxProblems {
			break
		}
		l.lintRule(&p.rules[i])
	}
	l.lintServed(around.Served)
	l.lintBypasses(around, maxAsked)
	l.lintRoles(around)
	slices.SortStableFunc(l.problems, func(a, b Problem) int { return a.Line - b.Line })
	return l.problems
}

type linter struct {
	*Policy
	problems Problems
	// used has the subjects that some rule is for, granting those that some g
	// line has on the left, granted those on the right.
	used, granting, granted map[subjectID]bool
	// bySubject sorts the long lists of rules, by their beginning, so that files
	// with thousands of rules for one pattern take no quadratic time.
	bySubject map[uint32]map[subjectID][]*rule
	allowed   ground         // what some rule allows to somebody
	closed    ground         // what is served, and no rule allows any of it
	nobodys   map[*rule]bool // rules for a permission that nobody is granted
}

func (l *linter) warn(line uint32, code, hint, format string, args ...any) {
	l.problems = append(l.problems, Problem{
		File: l.file, Line: int(line), Severity: Warning, Code: code,
		Message: fmt.Sprintf(format, args...), Hint: hint,
	})
}

// lintGrants finds g lines that say nothing new or lead nowhere.
func (l *linter) lintGrants() {
	l.used, l.granting, l.granted = make(map[subjectID]bool), make(map[subjectID]bool), make(map[subjectID]bool)
	for i := range l.rules {
		l.used[l.rules[i].subject] = true
	}
	type pair struct{ member, group subjectID }
	first := make(map[pair]uint32)
	for _, g := range l.grants {
		l.granting[g.member], l.granted[g.group] = true, true
		if line, ok := first[pair{g.member, g.group}]; ok {
			l.warn(g.line, "duplicate", "remove one of them", "line %d says the same", line)
			continue
		}
		first[pair{g.member, g.group}] = g.line
	}
	for _, g := range l.grants {
		if l.used[g.group] || l.granting[g.group] {
			continue
		}
		name := l.subjects.names[g.group]
		if l.subjects.isPermission(g.group) {
			l.warn(g.line, "unused-permission", l.suggest(name, l.used, "upstreams see it in X-User-Permissions; if none of them looks at it, remove it"),
				"no rule is for %s", name)
		} else {
			l.warn(g.line, "empty-role", l.suggest(name, l.used, "give it a rule, or remove the line"),
				"nothing comes with %s: no rule is for it, and it inherits nothing", name)
		}
	}
}

// suggest returns a hint at a similar subject of the set, or the other hint.
func (l *linter) suggest(name string, set map[subjectID]bool, otherwise string) string {
	if len(set) > 10_000 {
		return otherwise
	}
	var names []string
	for id := range set {
		names = append(names, l.subjects.names[id])
	}
	slices.Sort(names)
	if hint := didYouMean(name, names); hint != "" {
		return hint
	}
	return otherwise
}

// lintRule finds rules that change no decision.
func (l *linter) lintRule(r *rule) {
	l.lintMethods(r)
	if l.subjects.isPermission(r.subject) && !l.granted[r.subject] {
		name := l.subjects.names[r.subject]
		l.nobodys[r] = true
		l.warn(r.line, "ungranted-permission", l.suggest(name, l.granted, fmt.Sprintf("add g, role:NAME, %s", name)),
			"the rule is for nobody: no role is granted %s", name)
		return
	}
	// The rules that decide everything that r decides, r itself excluded. Of two
	// that decide the same the later one is told.
	var same, broader, denied *rule
	l.covering(r, func(other *rule) {
		switch {
		case other.deny && !r.deny:
			denied = earlier(denied, other)
		case other.deny != r.deny:
		case l.alike(other, r):
			if other.line < r.line {
				same = earlier(same, other)
			}
		case other.line < r.line || !l.covers(r, other):
			broader = earlier(broader, other)
		}
	})
	text := func(o *rule) string { return fmt.Sprintf("line %d (%s)", o.line, l.ruleText(o)) }
	switch {
	case denied != nil && l.alike(denied, r):
		l.warn(r.line, "contradiction", "a denial wins; remove one of them", "%s denies exactly what this line allows", text(denied))
	case denied != nil:
		l.warn(r.line, "unreachable", "a denial wins, whatever the order of lines", "the rule never allows anything: %s denies all of it", text(denied))
	case same != nil:
		l.warn(r.line, "duplicate", "remove one of them", "%s says the same", text(same))
	case broader != nil:
		l.warn(r.line, "shadowed", "remove this line, or make the other one narrower", "the rule changes nothing: %s covers all of it", text(broader))
	case r.deny && (l.allowed.under(l.pattern(r))|l.closed.under(l.pattern(r)))&r.methods == 0:
		l.warn(r.line, "dead-deny", "what no rule allows is denied anyway", "the rule denies nothing: no rule allows any of it")
	}
}

func (l *linter) lintMethods(r *rule) {
	if r.methods == allMethods {
		return
	}
	registered := registeredMethods()
	for method := range strings.SplitSeq(l.methods.String(r.methods), "|") {
		if !slices.Contains(registered, method) {
			l.warn(r.line, "unregistered-method", "if it is no slip, ignore this", "%s is no registered HTTP method", method)
		}
	}
}

// alike reports whether two rules are for the same requests of the same subject.
func (l *linter) alike(a, b *rule) bool {
	return a.subject == b.subject && a.methods == b.methods && samePattern(l.pattern(a), l.pattern(b))
}

func earlier(a, b *rule) *rule {
	if a == nil || b.line < a.line {
		return b
	}
	return a
}

// everyHolderIs returns subjects that whoever is the given one is, too. Of a
// permission's holders it is only known that they are anonymous, and
// authenticated if no stranger holds it.
func (l *linter) everyHolderIs(id subjectID) []subjectID {
	all := []subjectID{id, anonymous}
	if id != anonymous && !l.subjects.is(anonymous, id) {
		all = append(all, authenticated)
	}
	return all
}

// covers reports whether a decides all that b decides, whatever the effects.
func (l *linter) covers(a, b *rule) bool {
	return b.methods&^a.methods == 0 && patternCovers(l.pattern(a), l.pattern(b)) &&
		slices.ContainsFunc(l.everyHolderIs(b.subject), func(id subjectID) bool { return l.subjects.is(id, a.subject) })
}

// covering calls f with every other rule that covers r. It walks the trie as a
// decision does, with r's pattern for a path.
func (l *linter) covering(r *rule, f func(*rule)) {
	pattern := l.pattern(r)
	each := func(from list) {
		for other := range l.candidates(from, r) {
			if other != r && l.covers(other, r) {
				f(other)
			}
		}
	}
	var visit func(n *node, after string, more bool)
	visit = func(n *node, after string, more bool) {
		each(n.rest())
		if !more {
			each(n.exact())
			return
		}
		segment, after, more := cutSegment(after)
		if segment == "*" {
			return
		}
		if n.flags&hasLiterals != 0 && !isName(segment) {
			if child := l.find(l.hash.child(n.key, l.hash.segment(segment))); child != nil {
				visit(child, after, more)
			}
		}
		if n.flags&hasNames != 0 && segment != "" {
			if child := l.find(l.hash.nameChild(n.key)); child != nil {
				visit(child, after, more)
			}
		}
	}
	visit(l.find(rootKey), pattern[1:], true)
}

// candidates yields the rules of a list that could cover r: of a long list those
// for the subjects that r's holders are.
func (l *linter) candidates(from list, r *rule) iter.Seq[*rule] {
	return func(yield func(*rule) bool) {
		if from.n <= minScan {
			for i := from.from; i < from.from+from.n; i++ {
				if !yield(&l.rules[i]) {
					return
				}
			}
			return
		}
		sorted := l.bySubject[from.from]
		if sorted == nil {
			sorted = make(map[subjectID][]*rule)
			for i := from.from; i < from.from+from.n; i++ {
				sorted[l.rules[i].subject] = append(sorted[l.rules[i].subject], &l.rules[i])
			}
			l.bySubject[from.from] = sorted
		}
		for _, id := range l.everyHolderIs(r.subject) {
			for _, subject := range append([]subjectID{id}, l.subjects.inherits(id)...) {
				for _, other := range sorted[subject] {
					if !yield(other) {
						return
					}
				}
			}
		}
	}
}

// patternCovers reports whether a matches every path that b matches.
func patternCovers(a, b string) bool {
	a, b = a[1:], b[1:]
	moreB := true
	for moreA := true; moreA; {
		var want, got string
		want, a, moreA = cutSegment(a)
		if want == "*" {
			return true
		}
		if !moreB {
			return false
		}
		got, b, moreB = cutSegment(b)
		switch {
		case got == "*":
			return false
		case isName(want):
			if got == "" {
				return false
			}
		case got != want:
			return false
		}
	}
	return !moreB
}
