package policy

import (
	"fmt"
	"math/bits"
	"slices"
	"strings"
	"unicode"
)

// whom returns the subject that is to gain something: of the caller's roles that
// can stand in a policy the one that the fewest have, preferably a known one.
func (x *explainer) whom() string {
	if !x.caller.Authenticated {
		return x.subjects.names[anonymous]
	}
	best, bestHolders := "", 0
	for _, role := range x.caller.Roles {
		name := rolePrefix + role
		if _, known := x.subjects.ids[name]; !known && len(name) > longestWord || checkSubject(name, x.subjects) != nil {
			continue
		}
		holders := x.holders(name)
		if _, known := x.subjects.ids[name]; !known {
			holders += len(x.subjects.names)
		}
		if best == "" || holders < bestHolders {
			best, bestHolders = name, holders
		}
	}
	if best == "" {
		return x.subjects.names[authenticated]
	}
	return best
}

// holders counts the subjects, permissions aside, that are the named one.
func (x *explainer) holders(name string) int {
	id, known := x.subjects.ids[name]
	if !known {
		return 1
	}
	n := 0
	for other := range subjectID(len(x.subjects.names)) {
		if !x.subjects.isPermission(other) && (id == anonymous || id == authenticated && other != anonymous ||
			x.subjects.is(other, id) || x.subjects.is(anonymous, id) || other != anonymous && x.subjects.is(authenticated, id)) {
			n++
		}
	}
	return n
}

func weight(methods methodSet, pattern string) int {
	w := 10
	if methods != allMethods {
		w = min(w, bits.OnesCount64(uint64(methods)))
	}
	if strings.HasSuffix(pattern, "/*") {
		w *= 10
	}
	return w
}

// grantsFor suggests g lines: a role or permission that may do it already.
func (x *explainer) grantsFor(who string) []Change {
	var groups []subjectID
	for _, r := range x.matches {
		if !r.deny && r.subject != anonymous && r.subject != authenticated && !slices.Contains(groups, r.subject) {
			groups = append(groups, r.subject)
		}
	}
	const considered = 50 // most policies have a handful
	groups = groups[:min(len(groups), considered)]
	if len(groups) == 0 {
		return nil
	}
	gains := make(map[subjectID]int) // what the allow rules of a subject weigh
	denials := make(map[subjectID]bool)
	for i := range x.rules {
		if r := &x.rules[i]; r.deny {
			denials[r.subject] = true
		} else {
			gains[r.subject] += weight(r.methods, x.pattern(r))
		}
	}
	is := x.subjectTest()
	var found []Change
	for _, group := range groups {
		if x.bringsDenials(who, group, denials) || x.closesCircle(who, group) {
			continue
		}
		c := Change{Edits: []Edit{{Action: AddLine, New: fmt.Sprintf("g, %s, %s", who, x.subjects.names[group])}}}
		rules := 0
		for _, id := range append([]subjectID{group}, x.subjects.inherits(group)...) {
			if !is(id) {
				rules += gains[id]
			}
		}
		c.cost = x.holders(who) * rules
		c.Opens = []string{fmt.Sprintf("gives all that %s may do to %s", x.subjects.names[group], x.everybodyNamed(who))}
		found = append(found, c)
	}
	return found
}

func (x *explainer) everybodyNamed(name string) string {
	if id, known := x.subjects.ids[name]; known {
		return x.everybodyWhoIs(id)
	}
	return "whoever is " + name
}

// bringsDenials reports whether who becomes the group is denied anything by it: a
// change that is to allow something must not take away something else.
func (x *explainer) bringsDenials(who string, group subjectID, denials map[subjectID]bool) bool {
	id, known := x.subjects.ids[who]
	for _, subject := range append([]subjectID{group}, x.subjects.inherits(group)...) {
		if denials[subject] && !(known && x.subjects.is(id, subject)) {
			return true
		}
	}
	return false
}

func (x *explainer) closesCircle(who string, group subjectID) bool {
	id, known := x.subjects.ids[who]
	return known && x.subjects.is(group, id)
}

// methodsFor suggests rules for the caller that lack nothing but the method.
func (x *explainer) methodsFor() []Change {
	if !x.nameable() {
		return nil
	}
	is := x.subjectTest()
	var found []Change
	for _, r := range x.covers {
		if r.deny || !is(r.subject) {
			continue
		}
		text := x.ruleText(r)
		at := strings.LastIndex(text, ", ")
		longer := text[:at] + "|" + x.method + text[at:]
		if len(longer) > maxLineBytes {
			continue
		}
		found = append(found, Change{
			Edits: []Edit{{ReplaceLine, int(r.line), text, longer}},
			Opens: []string{fmt.Sprintf("allows %s on %s to %s", x.method, x.pattern(r), x.everybodyWhoIs(r.subject))},
			cost:  x.holders(x.subjects.names[r.subject]) * weight(1, x.pattern(r)),
		})
	}
	return found
}

// nameable reports whether a rule can name the method.
func (x *explainer) nameable() bool {
	return len(x.method) <= longestWord && checkMethod(x.method) == nil && (x.bit != otherMethods || len(x.methods.names) < maxMethods)
}

// ruleFor suggests a rule of its own.
func (x *explainer) ruleFor(who string) Change {
	method, w := x.method, 1
	if !x.nameable() {
		method, w = "*", 10
	}
	pattern := x.patternFor()
	return Change{
		Edits: []Edit{{Action: AddLine, New: fmt.Sprintf("p, %s, %s, %s, allow", who, pattern, method)}},
		Opens: []string{fmt.Sprintf("allows %s on %s to %s", strings.Replace(method, "*", "every method", 1), pattern, x.everybodyNamed(who))},
		cost:  x.holders(who) * w * weight(1, pattern),
	}
}

// patternFor returns the narrowest pattern that somebody would write for the
// path: one that the policy has, or else the path itself with names for what is
// an identifier or cannot stand in a pattern.
func (x *explainer) patternFor() string {
	best := ""
	for _, r := range x.covers {
		pattern := x.pattern(r)
		if !strings.HasSuffix(pattern, "/*") && (best == "" || patternCovers(best, pattern)) {
			best = pattern
		}
	}
	if best != "" {
		return best
	}
	segments := strings.Split(x.path[1:], "/")
	names := 0
	for i, s := range segments {
		last := i == len(segments)-1
		if s == "" || s != "*" && !isName(s) && checkSegment(s, last) == nil && isPlain(s) && !isIdentifier(s) {
			continue
		}
		if names++; names == 1 {
			segments[i] = ":id"
		} else {
			segments[i] = fmt.Sprintf(":id%d", names)
		}
	}
	if len(segments) > maxSegments {
		segments = append(segments[:maxSegments-1], "*")
	}
	return "/" + strings.Join(segments, "/")
}

// longestWord is the length of what is still taken for a name somebody gave, so
// that suggested lines stay within the limit of lines.
const longestWord = 100

// isPlain reports whether a policy file can hold the segment.
func isPlain(s string) bool {
	return len(s) <= longestWord && strings.TrimSpace(s) == s && !strings.ContainsAny(s, `,"`) &&
		!strings.ContainsFunc(s, func(r rune) bool { return r == unicode.ReplacementChar || !unicode.IsPrint(r) })
}

// isIdentifier reports whether a segment looks like the name of one thing among
// many: a number, a UUID, a digest.
func isIdentifier(s string) bool {
	digits := 0
	for _, c := range []byte(s) {
		switch {
		case isDigit(c):
			digits++
		case !isHex(c) && c != '-':
			return false
		}
	}
	return digits == len(s) || digits > 0 && len(s) >= 8
}
