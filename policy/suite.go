package policy

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// Suite is a file of expectations of a policy. README.md describes its format.
type Suite struct {
	file       string
	principals []principal // in the order of the file
	tests      []test
}

type principal struct {
	name   string
	caller Caller
	roles  []position // of caller.Roles
}

type test struct {
	name       string
	principals []int // in Suite.principals
	requests   []request
	allowed    map[int]bool // by principal; whoever is absent is to be denied
}

type request struct {
	method, path string
	at           position
}

// position is a place in the suite's file, both from 1.
type position struct{ line, column int }

// SuiteFile returns the name of the suite that belongs to a policy file:
// policy.test.yaml for policy.csv.
func SuiteFile(policyFile string) string {
	return strings.TrimSuffix(policyFile, ".csv") + ".test.yaml"
}

// Effect is an expectation or an answer in words.
type Effect string

// The two effects.
const (
	Allow Effect = "allow"
	Deny  Effect = "deny"
)

func effectOf(allowed bool) Effect {
	if allowed {
		return Allow
	}
	return Deny
}

// Report is what came of running a suite.
type Report struct {
	Policy   string  `json:"policy"`   // the policy's file
	Revision string  `json:"revision"` // the policy's
	Suite    string  `json:"suite"`    // the suite's file
	Passed   int     `json:"passed"`
	Failed   int     `json:"failed"`
	Checks   []Check `json:"checks"` // in the order of the suite
}

// Check is one principal's request, what was expected and what was decided.
type Check struct {
	Test          string   `json:"test"`
	Line          int      `json:"line"` // of the request in the suite
	Principal     string   `json:"principal"`
	Authenticated bool     `json:"authenticated"` // with a token
	Roles         []string `json:"roles"`
	Method        string   `json:"method"`
	Path          string   `json:"path"`
	Want          Effect   `json:"want"`
	Got           Effect   `json:"got"`
	Rule          string   `json:"rule,omitempty"` // that decided; absent if none matched
	RuleFile      string   `json:"rule_file,omitempty"`
	RuleLine      int      `json:"rule_line,omitzero"`
}

// Passed reports whether the decision was the expected one.
func (c Check) Passed() bool { return c.Want == c.Got }

// String says in one line what was expected and which rule decided what.
func (c Check) String() string {
	who := "without a token"
	switch {
	case !c.Authenticated:
	case len(c.Roles) > 0:
		who = "roles " + strings.Join(c.Roles, ", ")
	default:
		who = "no roles"
	}
	verb := map[Effect]string{Allow: "allowed", Deny: "denied"}
	why := "no rule matches"
	if c.Rule != "" {
		why = fmt.Sprintf("%s:%d: %s", c.RuleFile, c.RuleLine, c.Rule)
	}
	return fmt.Sprintf("%s (%s) %s %s: want %s, got %s by %s", c.Principal, who, c.Method, c.Path, verb[c.Want], verb[c.Got], why)
}

// Failures returns the checks that did not pass.
func (r Report) Failures() []Check {
	var failures []Check
	for _, c := range r.Checks {
		if !c.Passed() {
			failures = append(failures, c)
		}
	}
	return failures
}

// String lists the failures, in the way of compilers, and counts.
func (r Report) String() string {
	var b strings.Builder
	for _, c := range r.Failures() {
		fmt.Fprintf(&b, "%s:%d: %q: %s\n", r.Suite, c.Line, c.Test, c)
	}
	fmt.Fprintf(&b, "%d passed, %d failed\n", r.Passed, r.Failed)
	return b.String()
}

// Only returns the tests whose names match, or nil if there is none.
func (s *Suite) Only(names *regexp.Regexp) *Suite {
	only := *s
	only.tests = slices.DeleteFunc(slices.Clone(s.tests), func(t test) bool { return !names.MatchString(t.name) })
	if len(only.tests) == 0 {
		return nil
	}
	return &only
}

// Run asks the policy, which must be a loaded one, everything that the suite
// expects of it. An error of type [Problems] names principals with roles that
// the policy does not know: they would be denied for the wrong reason.
func (s *Suite) Run(p *Policy) (Report, error) {
	if p == nil || p.index == nil {
		return Report{}, errors.New("run policy tests: no policy")
	}
	if problems := s.unknownRoles(p); len(problems) > 0 {
		return Report{}, problems
	}
	report := Report{Policy: p.file, Revision: p.revision, Suite: s.file}
	for _, t := range s.tests {
		for _, r := range t.requests {
			for _, i := range t.principals {
				c := check(p, t, r, s.principals[i], t.allowed[i])
				if c.Passed() {
					report.Passed++
				} else {
					report.Failed++
				}
				report.Checks = append(report.Checks, c)
			}
		}
	}
	return report, nil
}

func check(p *Policy, t test, r request, who principal, allowed bool) Check {
	decision := p.Decide(who.caller, r.method, r.path)
	return Check{
		Test: t.name, Line: r.at.line,
		Principal: who.name, Authenticated: who.caller.Authenticated, Roles: who.caller.Roles,
		Method: r.method, Path: r.path,
		Want: effectOf(allowed), Got: effectOf(decision.Allowed),
		Rule: decision.Rule, RuleFile: decision.File, RuleLine: decision.Line,
	}
}

func (s *Suite) unknownRoles(p *Policy) Problems {
	var problems Problems
	for _, who := range s.principals {
		for i, role := range who.caller.Roles {
			if _, ok := p.subjects.roles[role]; ok {
				continue
			}
			at := who.roles[i]
			hint := didYouMean(role, p.Roles())
			if bare, ok := strings.CutPrefix(role, rolePrefix); ok {
				hint = fmt.Sprintf("did you mean %s? roles are prefixed in the policy only", bare)
			}
			problems = append(problems, Problem{
				File: s.file, Line: at.line, Column: at.column, Severity: Error, Code: "role",
				Message: fmt.Sprintf("%s has the role %q, which %s does not name", who.name, role, p.file), Hint: hint,
			})
		}
	}
	return problems
}
