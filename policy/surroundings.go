package policy

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Surroundings is what can be known of the world that a policy is for. The zero
// Surroundings know nothing, and lint then looks at the policy alone.
type Surroundings struct {
	// Served is everything that answers requests; nil if that is not known.
	Served []Served
	// Granted are the roles that the configuration gives, whether or not somebody
	// has them yet; Reserved those that mean something to the gateway itself, and
	// that the policy need not name.
	Granted, Reserved []string
	// Users are those whom the store knows; nil if it was not asked.
	Users *Population
}

// Served is something that answers requests: a route to an upstream, or an
// endpoint of the gateway's own.
type Served struct {
	What    string   // for people: "route", "endpoint"
	Path    string   // canonical; ":name" is any one segment
	Prefix  bool     // what is beneath the path belongs to it
	Methods []string // nil: all

	// Of a route: where it leads to, by name, and the addresses of that, which two
	// upstreams may share; and what the upstream gets in place of Path, "" for Path.
	Upstream string
	Targets  []string
	Rewrite  string
}

// Pattern is the path as a policy would write it.
func (s Served) Pattern() string {
	if s.Prefix {
		return strings.TrimSuffix(s.Path, "/") + "/*"
	}
	return s.Path
}

func (s Served) String() string {
	if s.Methods == nil {
		return fmt.Sprintf("the %s %s", s.What, s.Path)
	}
	methods := slices.Clone(s.Methods)
	if slices.Contains(methods, "GET") { // HEAD goes without saying
		methods = slices.DeleteFunc(methods, func(m string) bool { return m == "HEAD" })
	}
	return fmt.Sprintf("the %s %s %s", s.What, strings.Join(methods, "|"), s.Path)
}

// ServedBy says what answers a request. Endpoints go before routes, and of these
// the one with the longest path.
func (around Surroundings) ServedBy(method, path string) (by Served, ok bool) {
	for _, s := range around.Served {
		if !matches(s.Pattern(), path) || s.Methods != nil && !slices.Contains(s.Methods, method) {
			continue
		}
		if !ok || by.Prefix && (!s.Prefix || len(s.Path) > len(by.Path)) {
			by, ok = s, true
		}
	}
	return by, ok
}

// methodsOf are the methods that something answers.
func (t *methodTable) methodsOf(s Served) methodSet {
	if s.Methods == nil {
		return allMethods
	}
	var set methodSet
	for _, method := range s.Methods {
		set |= t.lookup(method)
	}
	return set
}

// findClosed finds what is served and allowed to nobody. A deny rule for it is
// not idle: it says that this is on purpose.
func (l *linter) findClosed(all []Served) {
	for _, s := range all {
		if methods := l.methods.methodsOf(s); l.allowed.under(s.Pattern())&methods == 0 {
			l.closed.add(s.Pattern(), methods)
		}
	}
}

// lintServed holds the rules against what is served.
func (l *linter) lintServed(all []Served) {
	if all == nil {
		return
	}
	var served ground
	for _, s := range all {
		served.add(s.Pattern(), l.methods.methodsOf(s))
	}
	var rules ground
	for i := range l.rules {
		r := &l.rules[i]
		if r.deny || !l.nobodys[r] {
			rules.add(l.pattern(r), r.methods)
		}
		if len(l.problems) < maxProblems {
			l.lintReach(r, served.under(l.pattern(r)))
		}
	}
	for _, s := range all {
		if rules.under(s.Pattern())&l.methods.methodsOf(s) == 0 && len(l.problems) < maxProblems {
			l.warn(0, "unreached", "allow it to somebody, or say with a deny rule that it is closed",
				"nobody may use %s: no rule is for it", s)
		}
	}
}

// lintReach reports a rule for what nothing answers.
func (l *linter) lintReach(r *rule, served methodSet) {
	switch {
	case served == 0:
		l.warn(r.line, "unserved", "no route and no endpoint of the gateway is there; remove the rule, or add the route",
			"nothing is served at %s", l.pattern(r))
	case served&r.methods == 0:
		l.warn(r.line, "unserved", "it is served, but with other methods", "%s of %s is answered by nothing", l.methods.String(r.methods), l.pattern(r))
	case r.methods != allMethods && r.methods&^served != 0:
		l.warn(r.line, "unserved", "the others are", "%s of %s is answered by nothing", l.methods.String(r.methods&^served), l.pattern(r))
	}
}

// lintRoles holds the roles that users have, or may get, against those that the
// policy knows.
func (l *linter) lintRoles(around Surroundings) {
	for i, role := range around.Granted {
		if _, known := l.subjects.roles[role]; !known && !slices.Contains(around.Granted[:i], role) {
			l.warn(0, "unknown-role", didYouMean(role, l.Roles()), "the configuration gives the role %q, which the policy does not name", role)
		}
	}
	if around.Users == nil {
		return
	}
	held := make(map[subjectID]bool)
	hold := func(c Caller) {
		for _, id := range l.subjects.of(c, nil) {
			held[id] = true
			for _, inherited := range l.subjects.inherits(id) {
				held[inherited] = true
			}
		}
	}
	hold(Caller{Authenticated: true, Roles: slices.Concat(around.Granted, around.Reserved)})
	unknown := make(map[string]*People)
	for _, g := range around.Users.Groups() {
		hold(g.Caller)
		for _, role := range g.Caller.Roles {
			if _, known := l.subjects.roles[role]; known {
				continue
			}
			if unknown[role] == nil {
				unknown[role] = new(People)
			}
			unknown[role].add(g)
		}
	}
	for _, role := range slices.Sorted(maps.Keys(unknown)) {
		l.warn(0, "unknown-role", didYouMean(role, l.Roles()), "%s have the role %q, which the policy does not name", unknown[role], role)
	}
	first := l.firstLines()
	for id := range subjectID(len(l.subjects.names)) {
		if !held[id] && strings.HasPrefix(l.subjects.names[id], rolePrefix) && len(l.problems) < maxProblems {
			l.warn(first[id], "unheld-role", "give it to somebody, or remove its lines", "no user has %s, or a role that inherits it", l.subjects.names[id])
		}
	}
}

// firstLines are the lines in which subjects appear first.
func (l *linter) firstLines() []uint32 {
	first := make([]uint32, len(l.subjects.names))
	note := func(id subjectID, line uint32) {
		if first[id] == 0 || line < first[id] {
			first[id] = line
		}
	}
	for i := range l.rules {
		note(l.rules[i].subject, l.rules[i].line)
	}
	for _, g := range l.grants {
		note(g.member, g.line)
		note(g.group, g.line)
	}
	return first
}
