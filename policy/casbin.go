package policy

import (
	_ "embed" // model.conf
	"errors"
	"fmt"
	"strings"

	"github.com/casbin/casbin/v2"
	"github.com/casbin/casbin/v2/model"
	"github.com/casbin/casbin/v2/persist"
	defaultrolemanager "github.com/casbin/casbin/v2/rbac/default-role-manager"
)

// Casbin has the last word on what a policy means. Its enforcer is built from
// the rules after our own reader has seen them (its adapters drop lines or
// panic), asked a bounded number of questions, and let go: kept for every
// request, it would cost a time and a number of allocations that grow with the
// number of rules; kept beside the index, several hundred bytes a rule. Tests
// ask it many more questions (casbin_test.go).

//go:embed model.conf
var casbinModel string

// enforcer is Casbin's for a policy and some callers.
type enforcer struct {
	casbin  *casbin.Enforcer
	callers []string // their names in g
}

// newEnforcer builds a new enforcer. A live one is never changed.
func newEnforcer(d *document, callers []Caller) (*enforcer, error) {
	m, err := model.NewModelFromString(casbinModel)
	if err != nil {
		return nil, fmt.Errorf("casbin model: %w", err)
	}
	e := &enforcer{}
	source := &source{document: d}
	for i, c := range callers {
		// No subject of a file has this prefix, so that whatever a role is
		// called, a caller is nobody else.
		name := fmt.Sprintf("caller:%d", i)
		e.callers = append(e.callers, name)
		source.grants = append(source.grants, memberships(name, c)...)
	}
	if e.casbin, err = casbin.NewEnforcer(); err != nil {
		return nil, fmt.Errorf("casbin: %w", err)
	}
	if err := e.casbin.InitWithModelAndAdapter(m, nil); err != nil {
		return nil, fmt.Errorf("casbin model: %w", err)
	}
	// Casbin's own role manager stops, without a word, at the tenth step of
	// inheritance.
	e.casbin.SetRoleManager(defaultrolemanager.NewRoleManager(len(d.subjects.names) + 1))
	e.casbin.SetAdapter(source)
	e.casbin.AddFunction("pathMatches", pathMatches)
	e.casbin.AddFunction("methodMatches", methodMatches)
	if err := e.casbin.LoadPolicy(); err != nil {
		return nil, fmt.Errorf("casbin policy: %w", err)
	}
	return e, nil
}

func memberships(name string, c Caller) [][]string {
	grants := [][]string{{"g", name, "anonymous"}}
	if c.Authenticated {
		grants = append(grants, []string{"g", name, "authenticated"})
		for _, role := range c.Roles {
			grants = append(grants, []string{"g", name, rolePrefix + role})
		}
	}
	return grants
}

// verdict is what came of a request: whether it is allowed, and whether any
// rule said so.
type verdict struct{ allowed, matched bool }

func (e *enforcer) decide(caller int, method, path string) (verdict, error) {
	allowed, rule, err := e.casbin.EnforceEx(e.callers[caller], path, method)
	return verdict{allowed, len(rule) > 0}, err
}

// source is a document as Casbin reads policies: a persist.Adapter.
type source struct {
	document *document
	grants   [][]string
}

var _ persist.Adapter = (*source)(nil)

func (s *source) LoadPolicy(m model.Model) error {
	d := s.document
	for i := range d.rules {
		r := &d.rules[i]
		fields := strings.Split(d.ruleText(r), ", ")
		if err := persist.LoadPolicyArray(fields, m); err != nil {
			return err
		}
	}
	for _, g := range d.grants {
		fields := []string{"g", d.subjects.names[g.member], d.subjects.names[g.group]}
		if err := persist.LoadPolicyArray(fields, m); err != nil {
			return err
		}
	}
	for _, fields := range s.grants {
		if err := persist.LoadPolicyArray(fields, m); err != nil {
			return err
		}
	}
	return nil
}

var errReadOnly = errors.New("policies are read-only")

func (s *source) SavePolicy(model.Model) error                              { return errReadOnly }
func (s *source) AddPolicy(string, string, []string) error                  { return errReadOnly }
func (s *source) RemovePolicy(string, string, []string) error               { return errReadOnly }
func (s *source) RemoveFilteredPolicy(string, string, int, ...string) error { return errReadOnly }

func pathMatches(args ...any) (any, error) {
	path, pattern, err := twoStrings(args)
	if err != nil {
		return false, err
	}
	return matches(pattern, path), nil
}

// methodMatches compares whole methods. Casbin's regexMatch is not anchored:
// GET|POST would match GETX.
func methodMatches(args ...any) (any, error) {
	method, methods, err := twoStrings(args)
	if err != nil {
		return false, err
	}
	if methods == "*" {
		return true, nil
	}
	for m := range strings.SplitSeq(methods, "|") {
		if m == method {
			return true, nil
		}
	}
	return false, nil
}

func twoStrings(args []any) (a, b string, err error) {
	if len(args) == 2 {
		var okA, okB bool
		a, okA = args[0].(string)
		b, okB = args[1].(string)
		if okA && okB {
			return a, b, nil
		}
	}
	return "", "", errors.New("the function takes two strings")
}

// selfCheckWork bounds the comparison of [Parse] by the number of rules that
// Casbin walks: some milliseconds.
const selfCheckWork = 20_000

// compareWithCasbin asks the index and Casbin's enforcer the same questions,
// spread over the rules of the policy, and fails if they disagree. Beyond a few
// thousand rules the enforcer cannot answer any within work, and it is left to
// the tests.
func (p *Policy) compareWithCasbin(work int) error {
	n := len(p.rules)
	deepest := 0
	for id := range p.subjects.names {
		deepest = max(deepest, len(p.subjects.inherits(subjectID(id))))
	}
	// Casbin follows inheritance step by step, and its steps cost about a tenth
	// of a rule.
	questions := min(work/(n*(1+deepest/10)), 4*n)
	if questions < 4 {
		return nil
	}
	callers := []Caller{{}, {Authenticated: true}}
	roles := p.Roles()
	for i := range min(len(roles), 64) {
		role := roles[i*len(roles)/min(len(roles), 64)]
		callers = append(callers, Caller{Authenticated: true, Roles: []string{role}})
	}
	e, err := newEnforcer(p.document, callers)
	if err != nil {
		return err
	}
	for i := range questions {
		r := &p.rules[i*n/questions]
		caller := i % len(callers)
		path := exampleOf(p.pattern(r), i)
		method, _, _ := strings.Cut(p.methods.String(r.methods), "|")
		ours := p.Decide(callers[caller], method, path)
		theirs, err := e.decide(caller, method, path)
		if err != nil {
			return fmt.Errorf("casbin: %w", err)
		}
		if theirs != (verdict{ours.Allowed, ours.Rule != ""}) {
			return fmt.Errorf("the index and Casbin disagree on %s %s for roles %q; please report this", method, path, callers[caller].Roles)
		}
	}
	return nil
}

// exampleOf returns a path that the pattern covers; which one depends on i.
func exampleOf(pattern string, i int) string {
	segments := strings.Split(pattern[1:], "/")
	for j, segment := range segments {
		if isName(segment) {
			segments[j] = "x"
		}
	}
	if last := len(segments) - 1; segments[last] == "*" {
		segments[last] = [...]string{"", "x", "x/y"}[i%3]
	}
	return "/" + strings.Join(segments, "/")
}
