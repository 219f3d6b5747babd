package policy

import (
	"fmt"
	"strings"
)

// A pattern is a canonical path whose segments are literals, names (":id": any
// one segment that is not empty) or, at the end only, "*": the rest of the
// path, however long, also none. Patterns are kept as the text that the file
// holds; checkPattern has seen each of them before anything else does.

// maxSegments bounds the depth of patterns, and so the work of a decision. A
// path may be longer; what lies beyond is only ever matched by a "*".
const maxSegments = 32

// cutSegment returns the first segment of a path's remainder (what follows a
// slash), the remainder after it, and whether there is one.
func cutSegment(rest string) (segment, after string, more bool) {
	if i := strings.IndexByte(rest, '/'); i >= 0 {
		return rest[:i], rest[i+1:], true
	}
	return rest, "", false
}

func isName(segment string) bool { return segment != "" && segment[0] == ':' }

// isOdd reports whether a segment has no place in a canonical path. Only the
// last one may be empty: that is what a trailing slash means.
func isOdd(segment string, last bool) bool {
	switch segment {
	case "":
		return !last
	case ".", "..":
		return true
	}
	return false
}

// isCanonical reports whether a path can be decided on at all. The gateway lets
// nothing else through; this is for the day when somebody asks without it.
func isCanonical(path string) bool {
	if path == "" || path[0] != '/' {
		return false
	}
	for rest, more := path[1:], true; more; {
		var segment string
		segment, rest, more = cutSegment(rest)
		if isOdd(segment, !more) {
			return false
		}
	}
	return true
}

// matches reports whether the pattern covers the path. It is the definition of
// the pattern language, and Casbin's enforcer calls it for each rule. A path
// that is not canonical is covered by no pattern.
func matches(pattern, path string) bool {
	if !isCanonical(path) {
		return false
	}
	pattern, path = pattern[1:], path[1:]
	morePath := true
	for morePattern := true; morePattern; {
		var want, got string
		want, pattern, morePattern = cutSegment(pattern)
		if want == "*" {
			return true
		}
		if !morePath {
			return false
		}
		got, path, morePath = cutSegment(path)
		if isName(want) {
			if got == "" {
				return false
			}
		} else if got != want {
			return false
		}
	}
	return !morePath
}

// prefixMatches reports whether a pattern without "*" covers the path or some
// first segments of it. The path is canonical and has as many segments.
func prefixMatches(prefix, path string) bool {
	for {
		// All literals up to the next name at once: a colon stands nowhere but
		// at the beginning of a name.
		name := strings.IndexByte(prefix, ':')
		if name < 0 {
			return strings.HasPrefix(path, prefix) && (len(path) == len(prefix) || path[len(prefix)] == '/')
		}
		// Only the last segment of a path can be empty, and then the path ends
		// where the name begins.
		if len(path) <= name || path[:name] != prefix[:name] {
			return false
		}
		prefix, path = fromSlash(prefix[name:]), fromSlash(path[name:])
	}
}

// fromSlash cuts off what is before the first slash.
func fromSlash(s string) string {
	if i := strings.IndexByte(s, '/'); i >= 0 {
		return s[i:]
	}
	return ""
}

// samePattern reports whether two patterns differ in nothing but names.
func samePattern(a, b string) bool {
	a, b = a[1:], b[1:]
	for moreA, moreB := true, true; moreA == moreB; {
		if !moreA {
			return true
		}
		var x, y string
		x, a, moreA = cutSegment(a)
		y, b, moreB = cutSegment(b)
		if x != y && !(isName(x) && isName(y)) {
			return false
		}
	}
	return false
}

// maxPlacements bounds the different sets of segments in which the patterns of a
// policy have names. Patterns with names in the same segments never compete for
// a path's first segments, so this bounds how many a decision has to follow.
const maxPlacements = 256

// placementOf returns the set of a pattern's segments that are names, as a bit mask.
func placementOf(pattern string) uint32 {
	var mask uint32
	for i, rest, more := 0, pattern[1:], true; more; i++ {
		var segment string
		segment, rest, more = cutSegment(rest)
		if isName(segment) {
			mask |= 1 << i
		}
	}
	return mask
}

// fault is what is wrong with a field: where in it, what, and what to do.
type fault struct {
	at            int // byte offset in the field
	message, hint string
}

// checkPattern returns nil if the text is a pattern.
func checkPattern(text string) *fault {
	if text == "" {
		return &fault{0, "path pattern is missing", "use /* for every path"}
	}
	if text[0] != '/' {
		return &fault{0, fmt.Sprintf("path pattern %q does not begin with /", text), ""}
	}
	var names []string
	count := 0
	for rest, more := text[1:], true; more; count++ {
		at := len(text) - len(rest)
		var segment string
		segment, rest, more = cutSegment(rest)
		if f := checkSegment(segment, !more); f != nil {
			f.at += at
			return f
		}
		if !isName(segment) {
			continue
		}
		for _, name := range names {
			if name == segment {
				return &fault{at, fmt.Sprintf("%s appears twice in one pattern", segment), "names are only for the reader; choose two"}
			}
		}
		names = append(names, segment)
	}
	if count > maxSegments {
		return &fault{0, fmt.Sprintf("path pattern has %d segments; the limit is %d", count, maxSegments), "end it earlier with *"}
	}
	return nil
}

func checkSegment(segment string, last bool) *fault {
	if isOdd(segment, last) {
		if segment == "" {
			return &fault{0, "empty path segment (two slashes in a row)", "a canonical path has none"}
		}
		return &fault{0, fmt.Sprintf("path segment %q", segment), "a canonical path has none"}
	}
	switch {
	case segment == "*" && last:
		return nil
	case segment == "*":
		return &fault{0, "* in the middle of a pattern", "* covers the rest and comes last; use :name for one segment"}
	case segment == "**":
		return &fault{0, "unknown wildcard **", "did you mean *?"}
	case isName(segment):
		return checkName(segment)
	case len(segment) > 2 && segment[0] == '{' && segment[len(segment)-1] == '}':
		return &fault{0, fmt.Sprintf("unknown wildcard %s", segment), fmt.Sprintf("did you mean :%s?", segment[1:len(segment)-1])}
	}
	if i := strings.IndexAny(segment, `*:?\`); i >= 0 {
		return &fault{i, fmt.Sprintf("%q inside a path segment", segment[i]), "* and :name stand for whole segments, and a pattern is a path without query; cover such a segment with :name"}
	}
	if i := strings.IndexByte(segment, '%'); i >= 0 && len(segment) >= i+3 && isHex(segment[i+1]) && isHex(segment[i+2]) {
		return &fault{i, fmt.Sprintf("percent-encoded %s in a path pattern", segment[i:i+3]), "patterns are written decoded"}
	}
	return nil
}

func checkName(segment string) *fault {
	if segment == ":" {
		return &fault{0, "name is missing after :", "write for example :id"}
	}
	for i, c := range []byte(segment[1:]) {
		if !isLetter(c) && c != '_' && (i == 0 || !isDigit(c)) {
			return &fault{i + 1, fmt.Sprintf("%q in the name of a path segment", c), "names are letters, digits and _, as in :task_id"}
		}
	}
	return nil
}

func isLetter(c byte) bool { return c|0x20 >= 'a' && c|0x20 <= 'z' }
func isDigit(c byte) bool  { return c >= '0' && c <= '9' }
func isHex(c byte) bool    { return isDigit(c) || c|0x20 >= 'a' && c|0x20 <= 'f' }
