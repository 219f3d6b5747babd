package policy

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode"

	"gopkg.in/yaml.v3"
)

// LoadSuite reads a test suite. What is wrong with its content is reported as
// [Problems]; any other error means that it could not be read.
func LoadSuite(file string) (*Suite, error) {
	source, err := readFile(file)
	if err != nil {
		return nil, fmt.Errorf("read policy tests: %w", err)
	}
	return ParseSuite(file, source)
}

// ParseSuite makes a suite of the content of a file; name appears in problems
// and reports. The error is of type [Problems].
func ParseSuite(name string, source []byte) (*Suite, error) {
	r := &suiteReader{suite: Suite{file: name}, byName: make(map[string]int)}
	r.read(source)
	if len(r.problems) > 0 {
		return nil, r.problems
	}
	return &r.suite, nil
}

// suiteReader walks the YAML tree itself: decoding into structs would lose the
// positions, and with them the help for whoever mistyped a key.
type suiteReader struct {
	suite    Suite
	byName   map[string]int // of principals, to their index
	problems Problems
}

func (r *suiteReader) problem(at *yaml.Node, code, message, hint string) {
	r.problems = append(r.problems, Problem{
		File: r.suite.file, Line: at.Line, Column: at.Column,
		Severity: Error, Code: code, Message: message, Hint: hint,
	})
}

func (r *suiteReader) read(source []byte) {
	decoder := yaml.NewDecoder(bytes.NewReader(source))
	var document yaml.Node
	if err := decoder.Decode(&document); err != nil {
		if errors.Is(err, io.EOF) {
			r.problem(&yaml.Node{}, "empty", "the file holds no tests", "")
			return
		}
		r.syntax(err)
		return
	}
	root := document.Content[0]
	var second yaml.Node
	if err := decoder.Decode(&second); err == nil {
		r.problem(&second, "yaml", "a second YAML document", "a suite is one document")
	} else if !errors.Is(err, io.EOF) {
		r.syntax(err)
	}
	top := r.mapping(root, "the suite", []string{"principals", "tests"}, []string{"principals", "tests"})
	if n := top["principals"]; n != nil {
		r.readPrincipals(n)
		if n.Kind == yaml.MappingNode && len(n.Content) == 0 {
			r.problem(n, "empty", "principals is empty", "")
		}
	}
	if n := top["tests"]; n != nil {
		for _, item := range r.filledSequence(n, "tests") {
			r.readTest(item)
		}
	}
	slices.SortStableFunc(r.problems, func(a, b Problem) int { return a.Line - b.Line })
}

// syntax reports what the YAML parser found, which comes as text only.
func (r *suiteReader) syntax(err error) {
	message := strings.TrimPrefix(err.Error(), "yaml: ")
	at := &yaml.Node{}
	if _, scanErr := fmt.Sscanf(message, "line %d:", &at.Line); scanErr == nil {
		_, message, _ = strings.Cut(message, ": ")
	}
	r.problem(at, "yaml", message, "")
}

// entry is one key of a mapping and its value.
type entry struct{ key, value *yaml.Node }

// entries returns the entries of a mapping without those that repeat a key.
func (r *suiteReader) entries(n *yaml.Node, what string) []entry {
	if n.Kind != yaml.MappingNode {
		r.problem(n, "type", what+" is not a mapping", "write it as key: value")
		return nil
	}
	var all []entry
	for i := 0; i+1 < len(n.Content); i += 2 {
		e := entry{n.Content[i], n.Content[i+1]}
		if slices.ContainsFunc(all, func(o entry) bool { return o.key.Value == e.key.Value }) {
			r.problem(e.key, "key", fmt.Sprintf("%q appears twice in %s", e.key.Value, what), "")
			continue
		}
		all = append(all, e)
	}
	return all
}

// mapping returns the values of a mapping whose keys are known.
func (r *suiteReader) mapping(n *yaml.Node, what string, known, required []string) map[string]*yaml.Node {
	values := make(map[string]*yaml.Node)
	for _, e := range r.entries(n, what) {
		if !slices.Contains(known, e.key.Value) {
			hint := didYouMean(e.key.Value, known)
			if hint == "" {
				hint = "there are " + strings.Join(known, ", ")
			}
			r.problem(e.key, "key", fmt.Sprintf("unknown key %q in %s", e.key.Value, what), hint)
			continue
		}
		values[e.key.Value] = e.value
	}
	for _, key := range required {
		if n.Kind == yaml.MappingNode && values[key] == nil {
			r.problem(n, "key", fmt.Sprintf("%s is missing in %s", key, what), "")
		}
	}
	return values
}

func (r *suiteReader) sequence(n *yaml.Node, what string) []*yaml.Node {
	if n.Kind != yaml.SequenceNode {
		r.problem(n, "type", what+" is not a list", "")
		return nil
	}
	return n.Content
}

// filledSequence is a sequence where an empty one would make a test that
// cannot fail.
func (r *suiteReader) filledSequence(n *yaml.Node, what string) []*yaml.Node {
	items := r.sequence(n, what)
	if n.Kind == yaml.SequenceNode && len(items) == 0 {
		r.problem(n, "empty", what+" is empty", "")
	}
	return items
}

func (r *suiteReader) text(n *yaml.Node, what string) (string, bool) {
	if n.Kind != yaml.ScalarNode || n.Tag != "!!str" || n.Value == "" {
		r.problem(n, "type", what+" is not a text", "")
		return "", false
	}
	// Reports repeat it, one line each, to terminals and to what reads a build's log.
	for _, c := range n.Value {
		if !unicode.IsGraphic(c) {
			r.problem(n, "encoding", fmt.Sprintf("%s has the invisible character %U", what, c), "")
			return "", false
		}
	}
	return n.Value, true
}

// readPrincipals reads NAME: anonymous, or NAME: {roles: [...]}.
func (r *suiteReader) readPrincipals(n *yaml.Node) {
	for _, e := range r.entries(n, "principals") {
		name, ok := r.text(e.key, "the name of a principal")
		if !ok {
			continue
		}
		who := principal{name: name}
		if e.value.Kind == yaml.ScalarNode {
			if e.value.Value != "anonymous" {
				r.problem(e.value, "principal", fmt.Sprintf("principal %s is %q", name, e.value.Value), "write anonymous, or {roles: [...]} for somebody with a token")
			}
		} else {
			who.caller = Caller{Authenticated: true, Roles: []string{}}
			keys := []string{"roles"}
			if roles := r.mapping(e.value, "principal "+name, keys, keys)["roles"]; roles != nil {
				for _, item := range r.sequence(roles, "roles") {
					if role, ok := r.text(item, "a role"); ok {
						who.caller.Roles = append(who.caller.Roles, role)
						who.roles = append(who.roles, position{item.Line, item.Column})
					}
				}
			}
		}
		r.byName[name] = len(r.suite.principals)
		r.suite.principals = append(r.suite.principals, who)
	}
}

func (r *suiteReader) readTest(n *yaml.Node) {
	values := r.mapping(n, "a test", []string{"name", "principals", "requests", "expect"}, []string{"name", "requests"})
	t := test{allowed: make(map[int]bool)}
	if n := values["name"]; n != nil {
		t.name, _ = r.text(n, "the name of a test")
	}
	if n := values["principals"]; n != nil {
		for _, item := range r.filledSequence(n, "principals") {
			if i, ok := r.principal(item); ok && !slices.Contains(t.principals, i) {
				t.principals = append(t.principals, i)
			}
		}
	} else {
		for i := range r.suite.principals {
			t.principals = append(t.principals, i)
		}
	}
	if n := values["requests"]; n != nil {
		for _, item := range r.filledSequence(n, "requests") {
			if q, ok := r.readRequest(item); ok {
				t.requests = append(t.requests, q)
			}
		}
	}
	if n := values["expect"]; n != nil {
		r.readExpect(n, &t)
	}
	r.suite.tests = append(r.suite.tests, t)
}

func (r *suiteReader) readExpect(n *yaml.Node, t *test) {
	for _, e := range r.entries(n, "expect") {
		i, ok := r.principal(e.key)
		if !ok {
			continue
		}
		if !slices.Contains(t.principals, i) {
			r.problem(e.key, "principal", fmt.Sprintf("%s is expected something, but is none of the test's principals", e.key.Value), "")
		}
		switch Effect(e.value.Value) {
		case Allow:
			t.allowed[i] = true
		case Deny:
		default:
			hint := didYouMean(e.value.Value, []string{"allow", "deny"})
			if hint == "" {
				hint = "write allow or deny"
			}
			r.problem(e.value, "effect", fmt.Sprintf("unknown expectation %q", e.value.Value), hint)
		}
	}
}

func (r *suiteReader) principal(n *yaml.Node) (int, bool) {
	if i, ok := r.byName[n.Value]; ok && n.Kind == yaml.ScalarNode {
		return i, true
	}
	var names []string
	for _, who := range r.suite.principals {
		names = append(names, who.name)
	}
	r.problem(n, "principal", fmt.Sprintf("unknown principal %q", n.Value), didYouMean(n.Value, names))
	return 0, false
}

// readRequest reads "METHOD /path", the path decoded as in the policy.
func (r *suiteReader) readRequest(n *yaml.Node) (request, bool) {
	text, ok := r.text(n, "a request")
	if !ok {
		return request{}, false
	}
	method, path, ok := strings.Cut(text, " ")
	if !ok {
		r.problem(n, "request", fmt.Sprintf("request %q has no path", text), "write it as GET /tasks/1")
		return request{}, false
	}
	if f := checkMethod(method); f != nil {
		r.problem(n, "request", f.message, f.hint)
		return request{}, false
	}
	if strings.Contains(path, "?") {
		r.problem(n, "request", fmt.Sprintf("request %q has a query", text), "the policy sees the path only")
		return request{}, false
	}
	if !isCanonical(path) {
		r.problem(n, "request", fmt.Sprintf("%q is no canonical path", path), "the gateway refuses such a request before it asks the policy")
		return request{}, false
	}
	return request{method, path, position{n.Line, n.Column}}, true
}
