// Package policy answers one question: may these roles do this method on this
// path?
//
// A policy is a Casbin CSV file with its tests beside it; README.md describes
// the language for those who write it. Casbin defines what a file means: its
// model is model.conf, and [Parse] compares what it built with Casbin's own
// enforcer before it hands it out. But the enforcer walks every rule for each
// request, so an index made of the same rules answers in its place (index.go,
// decide.go). The package knows neither HTTP nor users.
package policy

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"slices"
	"strings"
)

// Policy is a set of rules, ready to decide. It never changes and is safe for
// concurrent use. The zero Policy, and a nil one, deny everything.
type Policy struct {
	*document
	*index
	revision string
}

// Caller is whoever sent a request, as far as a policy cares. The zero Caller
// is a stranger.
type Caller struct {
	// Authenticated says that the caller has shown a valid token. The roles of
	// a caller who has not are not looked at.
	Authenticated bool
	// Roles are the names of roles as stored and sent, without the "role:" of
	// the policy file. Names that the policy does not know mean nothing.
	Roles []string
}

// Decision is the answer to a request and its reason. The zero Decision denies.
type Decision struct {
	Allowed bool
	// Rule is the rule that decided, in canonical spelling (the fields of its
	// line separated by a comma and a space), so that it names the rule in logs
	// and counters whatever its alignment in the file. It is "" when no rule
	// matched. Of several that match, a denial comes before a permission, then
	// the more specific pattern (at the first segment in which they differ, a
	// literal before a name before "*"), then the earlier line.
	Rule string
	File string // as given to Load or Parse; "" when no rule matched
	Line int    // from 1; 0 when no rule matched
}

// Load reads a policy file. What is wrong with its content is reported as
// [Problems]; any other error means that it could not be read.
func Load(file string) (*Policy, error) {
	source, err := readFile(file)
	if err != nil {
		return nil, fmt.Errorf("read policy: %w", err)
	}
	return Parse(file, source)
}

// readFile reads a file that is not larger than any we would accept.
func readFile(file string) ([]byte, error) {
	info, err := os.Stat(file)
	if err != nil {
		return nil, err
	}
	if info.Size() > maxFileBytes {
		return nil, fmt.Errorf("%s is larger than %d MiB", file, maxFileBytes>>20)
	}
	return os.ReadFile(file)
}

// Parse makes a policy of the content of a file; name appears in problems and
// decisions. The error is of type [Problems].
func Parse(name string, source []byte) (*Policy, error) {
	d, problems := parse(name, source)
	if len(problems) > 0 {
		return nil, problems
	}
	p, err := newPolicy(d, newHasher())
	if err != nil {
		return nil, Problems{{File: name, Severity: Error, Code: "limit", Message: err.Error()}}
	}
	if err := p.compareWithCasbin(selfCheckWork); err != nil {
		return nil, Problems{{File: name, Severity: Error, Code: "casbin", Message: err.Error()}}
	}
	digest := sha256.Sum256(source)
	p.revision = hex.EncodeToString(digest[:6])
	return p, nil
}

// newPolicy compiles a document without problems.
func newPolicy(d *document, h hasher) (*Policy, error) {
	if err := d.subjects.close(d.grants); err != nil {
		return nil, err
	}
	ix, err := compile(d, h)
	if err != nil {
		return nil, err
	}
	return &Policy{document: d, index: ix}, nil
}

// Decide says whether the caller may use the method on the path.
//
// The path is the decoded canonical path that will be forwarded. A path that is
// not canonical (does not begin with a slash, has an empty segment other than
// the last, or one that is "." or "..") is denied. Methods are case-sensitive.
// Decide cannot fail, does not allocate for callers of up to 32 roles, and takes
// a time that does not grow with the number of rules.
func (p *Policy) Decide(c Caller, method, path string) Decision {
	if p == nil || p.index == nil {
		return Decision{}
	}
	s := search{document: p.document, index: p.index, path: path, method: p.methods.lookup(method)}
	if !s.split() {
		return Decision{}
	}
	var buffer [34]subjectID
	s.caller.subjects = p.subjects.of(c, buffer[:0])
	for _, id := range s.caller.subjects {
		s.caller.bloom |= p.subjects.blooms[id]
	}
	s.visit(p.find(rootKey), rootKey, 0, 0)
	if !s.found {
		return Decision{}
	}
	r := &p.rules[s.deciding]
	return Decision{Allowed: !r.deny, Rule: p.ruleText(r), File: p.file, Line: int(r.line)}
}

// Permissions lists what an authenticated caller with these roles is granted:
// the names of permissions without their "perm:", sorted.
func (p *Policy) Permissions(roles []string) []string {
	if p == nil || p.index == nil {
		return nil
	}
	var names []string
	for _, id := range p.subjects.of(Caller{Authenticated: true, Roles: roles}, nil) {
		for _, inherited := range p.subjects.inherits(id) {
			if name, ok := strings.CutPrefix(p.subjects.names[inherited], permissionPrefix); ok {
				names = append(names, name)
			}
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// Roles lists every role that the policy names, without "role:", sorted.
func (p *Policy) Roles() []string {
	if p == nil || p.document == nil {
		return nil
	}
	return p.subjects.withPrefix(rolePrefix)
}

// RuleCount is the number of p lines.
func (p *Policy) RuleCount() int {
	if p == nil || p.document == nil {
		return 0
	}
	return len(p.rules)
}

// Revision identifies the content of the file: twelve hexadecimal digits of its
// SHA-256.
func (p *Policy) Revision() string {
	if p == nil {
		return ""
	}
	return p.revision
}
