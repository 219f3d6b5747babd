package policy

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// The limits of a file. They bound memory and let offsets fit in 32 bits.
const (
	maxFileBytes = 512 << 20
	maxLineBytes = 4096
	maxProblems  = 1000 // after that many nobody reads on
)

// rule is one p line. Policies of a million of them are kept in memory, hence
// the offsets instead of strings.
type rule struct {
	methods   methodSet
	subject   subjectID
	line      uint32 // from 1
	text      uint32 // where the rule begins in document.text
	textLen   uint16
	patternAt uint16 // where the pattern begins in the rule's text
	patternTo uint16 // and where it ends
	deny      bool
}

// grant is one g line: whoever is the member is the group as well.
type grant struct {
	member, group subjectID
	line          uint32
}

// document is what a policy file says.
type document struct {
	file     string
	rules    []rule // in the order of the file until compile sorts them
	grants   []grant
	subjects *subjects
	methods  methodTable
	// acknowledged is what its comments acknowledge.
	acknowledged []acknowledged
	// text holds every rule in canonical spelling: one space after each comma.
	// Counters and logs name a rule by it, whatever the file's alignment.
	text string
}

func (d *document) ruleText(r *rule) string {
	return d.text[r.text : r.text+uint32(r.textLen)]
}

func (d *document) pattern(r *rule) string {
	return d.text[r.text+uint32(r.patternAt) : r.text+uint32(r.patternTo)]
}

// parser reads the lines of a policy file. It refuses what Casbin's own adapter
// would drop silently or die of, and goes on after a problem, so that one look
// shows all of them.
type parser struct {
	document
	spelling strings.Builder // becomes document.text
	problems Problems
	line     int
	source   string // the line under way

	placements map[uint32]struct{} // of names in patterns
}

// parse reads a policy file. The document is fit for use only if there is no problem.
func parse(file string, source []byte) (*document, Problems) {
	p := &parser{document: document{file: file, subjects: newSubjects()}, placements: make(map[uint32]struct{})}
	switch {
	case len(source) > maxFileBytes:
		p.problem("limit", &fault{-1, fmt.Sprintf("the file is larger than %d MiB", maxFileBytes>>20), ""})
		return &p.document, p.problems
	case strings.HasPrefix(string(source[:min(len(source), 3)]), "\ufeff"):
		p.line = 1
		p.problem("encoding", &fault{0, "the file begins with a byte order mark", "save it as UTF-8 without one"})
		source = source[3:]
	}
	p.spelling.Grow(len(source))
	p.line = 0
	for more := true; more && len(p.problems) < maxProblems; {
		var line []byte
		line, source, more = bytes.Cut(source, []byte{'\n'})
		p.line++
		p.readLine(line)
	}
	p.text = p.spelling.String()
	p.checkCycles()
	if len(p.rules) == 0 && len(p.problems) == 0 {
		p.line = 0
		p.problem("empty", &fault{-1, "the file holds no rule", "an empty or half-written file is not taken for a policy; to close everything, write p, anonymous, /*, *, deny"})
	}
	slices.SortStableFunc(p.problems, func(a, b Problem) int { return a.Line - b.Line })
	return &p.document, p.problems
}

// problem records what is wrong with the line under way, or with the file if
// there is none. A fault at -1 concerns the line as a whole.
func (p *parser) problem(code string, f *fault) {
	column := 0
	if f.at >= 0 {
		column = utf8.RuneCountInString(p.source[:min(f.at, len(p.source))]) + 1
	}
	p.problems = append(p.problems, Problem{
		File: p.file, Line: p.line, Column: column,
		Severity: Error, Code: code, Message: f.message, Hint: f.hint,
	})
}

// field is one field of a line, without the spaces around it.
type field struct {
	text string
	at   int // byte offset in the line
}

// fault reports what is wrong with a field of the line under way.
func (p *parser) fault(code string, in field, f *fault) bool {
	if f == nil {
		return false
	}
	f.at += in.at
	p.problem(code, f)
	return true
}

const maxFields = 5

func (p *parser) readLine(raw []byte) {
	if len(raw) > maxLineBytes {
		p.source = ""
		p.problem("limit", &fault{-1, fmt.Sprintf("the line is longer than %d bytes", maxLineBytes), ""})
		return
	}
	p.source = string(raw)
	if !p.checkCharacters() {
		return
	}
	trimmed := strings.TrimSpace(p.source)
	if trimmed == "" {
		return
	}
	if trimmed[0] == '#' {
		p.readComment(trimmed)
		return
	}
	var fields [maxFields + 1]field
	n := 0
	for at := 0; at <= len(p.source); n++ {
		text, _, _ := strings.Cut(p.source[at:], ",")
		if n < len(fields) {
			left := strings.TrimLeft(text, " \t\r")
			fields[n] = field{strings.TrimRight(left, " \t\r"), at + len(text) - len(left)}
		}
		at += len(text) + 1
	}
	switch kind := fields[0]; kind.text {
	case "p":
		p.readRule(fields[:min(n, len(fields))])
	case "g":
		p.readGrant(fields[:min(n, len(fields))])
	default:
		f := &fault{0, fmt.Sprintf("unknown kind of line %q", kind.text), "a line begins with p (rule), g (inheritance) or # (comment)"}
		if lower := strings.ToLower(kind.text); lower == "p" || lower == "g" {
			f.hint = fmt.Sprintf("did you mean %s?", lower)
		}
		p.fault("kind", kind, f)
	}
}

// checkCharacters refuses what a reader of the file would not see or an editor
// would not keep, and quotes, which make one line readable in two ways.
func (p *parser) checkCharacters() bool {
	comment := strings.HasPrefix(strings.TrimSpace(p.source), "#")
	for i := 0; i < len(p.source); {
		r, width := utf8.DecodeRuneInString(p.source[i:])
		switch {
		case r == utf8.RuneError && width == 1:
			p.problem("encoding", &fault{i, "the line is not UTF-8", ""})
			return false
		case r == '"' && !comment:
			p.problem("syntax", &fault{i, "fields are not quoted", "a segment with a comma or a quote can only be covered by :name or *"})
			return false
		case r == '\t', r == '\r' && i == len(p.source)-1, unicode.IsPrint(r):
		default:
			p.problem("encoding", &fault{i, fmt.Sprintf("invisible character %U", r), "remove it, or replace it by a space"})
			return false
		}
		i += width
	}
	return true
}

// readRule reads p, SUBJECT, PATTERN, METHODS, EFFECT.
func (p *parser) readRule(fields []field) {
	if !p.checkCount(fields, 5, "p, SUBJECT, PATH, METHODS, allow or deny") {
		return
	}
	subject, pattern, methods, effect := fields[1], fields[2], fields[3], fields[4]
	bad := p.fault("subject", subject, checkSubject(subject.text, p.subjects))
	if f := checkPattern(pattern.text); f != nil {
		bad = p.fault("pattern", pattern, f)
	} else {
		bad = p.fault("limit", pattern, p.checkPlacement(pattern.text)) || bad
	}
	set, f := p.methods.parseMethods(methods.text)
	bad = p.fault("method", methods, f) || bad
	bad = p.fault("effect", effect, checkEffect(effect.text)) || bad
	if bad {
		return
	}
	r := rule{
		methods: set,
		subject: p.subjects.intern(subject.text),
		line:    uint32(p.line),
		text:    uint32(p.spelling.Len()),
		deny:    effect.text == "deny",
	}
	p.spelling.WriteString("p, ")
	p.spelling.WriteString(subject.text)
	p.spelling.WriteString(", ")
	r.patternAt = uint16(p.spelling.Len() - int(r.text))
	p.spelling.WriteString(pattern.text)
	r.patternTo = uint16(p.spelling.Len() - int(r.text))
	p.spelling.WriteString(", ")
	p.spelling.WriteString(methods.text)
	p.spelling.WriteString(", ")
	p.spelling.WriteString(effect.text)
	r.textLen = uint16(p.spelling.Len() - int(r.text))
	p.rules = append(p.rules, r)
}

// checkPlacement keeps count of the placements of names.
func (p *parser) checkPlacement(pattern string) *fault {
	p.placements[placementOf(pattern)] = struct{}{}
	if len(p.placements) <= maxPlacements {
		return nil
	}
	return &fault{0, fmt.Sprintf("the policy's names stand in more than %d different combinations of segments", maxPlacements), "use literals or * instead"}
}

// readGrant reads g, MEMBER, GROUP.
func (p *parser) readGrant(fields []field) {
	if !p.checkCount(fields, 3, "g, MEMBER, ROLE or PERMISSION") {
		return
	}
	member, group := fields[1], fields[2]
	bad := p.fault("subject", member, checkMember(member.text, p.subjects))
	bad = p.fault("subject", group, checkGroup(group.text, p.subjects)) || bad
	if bad {
		return
	}
	p.grants = append(p.grants, grant{p.subjects.intern(member.text), p.subjects.intern(group.text), uint32(p.line)})
}

// checkCount reports a line with too few or too many fields, at the place where
// the first is missing or the rest begins.
func (p *parser) checkCount(fields []field, want int, form string) bool {
	if len(fields) == want {
		return true
	}
	f := &fault{len(p.source), fmt.Sprintf("the line has %d of %d fields", len(fields), want), "write " + form}
	if len(fields) > want {
		f.at = fields[want].at
		f.message = fmt.Sprintf("the line has more than %d fields", want)
	} else if want == 5 && len(fields) == 4 && checkEffect(fields[3].text) != nil {
		f.message = "effect is missing"
		f.hint = "say what the rule does: allow or deny"
	}
	p.problem("fields", f)
	return false
}

func checkEffect(text string) *fault {
	switch text {
	case "allow", "deny":
		return nil
	case "":
		return &fault{0, "effect is missing", "say what the rule does: allow or deny"}
	}
	f := &fault{0, fmt.Sprintf("unknown effect %q", text), didYouMean(text, []string{"allow", "deny"})}
	if strings.Contains(text, "#") {
		f.hint = "a comment has a line of its own"
	}
	if f.hint == "" {
		f.hint = "write allow or deny"
	}
	return f
}

func checkMember(text string, known *subjects) *fault {
	if strings.HasPrefix(text, permissionPrefix) {
		return &fault{0, fmt.Sprintf("permission %q inherits something", text), "permissions only stand on the right; grant both to the role"}
	}
	return checkSubject(text, known)
}

func checkGroup(text string, known *subjects) *fault {
	if id, ok := known.ids[text]; ok && id <= authenticated {
		return &fault{0, fmt.Sprintf("%s is granted to somebody", text), "everybody is anonymous, and everybody with a valid token is authenticated already"}
	}
	return checkSubject(text, known)
}
