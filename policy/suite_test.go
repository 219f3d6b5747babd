package policy

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const suiteSource = `
principals:
  stranger: anonymous
  newcomer: {roles: []}
  ana: {roles: [user]}
tests:
  - name: tasks are for users
    requests:
      - GET /tasks
      - DELETE /tasks/1
    expect: {ana: allow, stranger: deny}
  - name: a part of the principals
    principals: [newcomer]
    requests: [GET /tasks]
    expect: {newcomer: allow}
`

func TestTheShippedPolicyKeepsItsPromises(t *testing.T) {
	p, err := Load("policy.csv")
	if err != nil {
		t.Fatal(err)
	}
	s, err := LoadSuite(SuiteFile("policy.csv"))
	if err != nil {
		t.Fatal(err)
	}
	report, err := s.Run(p)
	if err != nil {
		t.Fatal(err)
	}
	if report.Failed != 0 || report.Passed == 0 {
		t.Error(report)
	}
}

// Every line of the shipped policy is held in place by its suite: without it,
// it fails.
func TestTheSuiteMissesEveryLineOfTheShippedPolicy(t *testing.T) {
	source, err := readFile("policy.csv")
	if err != nil {
		t.Fatal(err)
	}
	s, err := LoadSuite("policy.test.yaml")
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(string(source), "\n")
	for i, line := range lines {
		if !strings.HasPrefix(line, "p,") && !strings.HasPrefix(line, "g,") {
			continue
		}
		// While everybody signed in is a user, this says nothing new. It is there
		// for the day on which the last line is removed.
		if strings.HasPrefix(line, "g, role:admin, role:user") {
			continue
		}
		without := append(append([]string{}, lines[:i]...), lines[i+1:]...)
		report, err := s.Run(mustParse(t, strings.Join(without, "\n")))
		// A role that no line names any more is an error of the suite's.
		if err == nil && report.Failed == 0 {
			t.Errorf("nothing fails without line %d: %s", i+1, line)
		}
	}
}

func TestWithoutItsLastLineTheShippedPolicyAsksForRoles(t *testing.T) {
	source, err := readFile("policy.csv")
	if err != nil {
		t.Fatal(err)
	}
	without, found := strings.CutSuffix(string(source), "g, authenticated, role:user\n")
	if !found {
		t.Fatal("it has another last line")
	}
	p := mustParse(t, without)
	for role, want := range map[string]bool{"": false, "user": true, "admin": true} {
		if got := p.Decide(withRoles(role), "GET", "/tasks").Allowed; got != want {
			t.Errorf("role %q: %v", role, got)
		}
	}
}

func TestAReportSaysWhatWasExpectedAndWhichRuleDecided(t *testing.T) {
	p := mustParse(t, "p, role:user, /tasks, GET, allow\np, role:user, /tasks/:id, *, deny\np, anonymous, /tasks, GET, allow\n")
	s, err := ParseSuite("policy.test.yaml", []byte(suiteSource))
	if err != nil {
		t.Fatal(err)
	}
	report, err := s.Run(p)
	if err != nil {
		t.Fatal(err)
	}
	want := `policy.test.yaml:9: "tasks are for users": stranger (without a token) GET /tasks: want denied, got allowed by policy.csv:3: p, anonymous, /tasks, GET, allow
policy.test.yaml:9: "tasks are for users": newcomer (no roles) GET /tasks: want denied, got allowed by policy.csv:3: p, anonymous, /tasks, GET, allow
policy.test.yaml:10: "tasks are for users": ana (roles user) DELETE /tasks/1: want allowed, got denied by policy.csv:2: p, role:user, /tasks/:id, *, deny
4 passed, 3 failed
`
	if diff := cmp.Diff(want, report.String()); diff != "" {
		t.Error(diff)
	}
	report.Checks = report.Failures()[2:]
	got, err := json.MarshalIndent(report, "", " ")
	if err != nil {
		t.Fatal(err)
	}
	wantJSON := `{
 "policy": "policy.csv",
 "revision": "` + p.Revision() + `",
 "suite": "policy.test.yaml",
 "passed": 4,
 "failed": 3,
 "checks": [
  {
   "test": "tasks are for users",
   "line": 10,
   "principal": "ana",
   "authenticated": true,
   "roles": [
    "user"
   ],
   "method": "DELETE",
   "path": "/tasks/1",
   "want": "allow",
   "got": "deny",
   "rule": "p, role:user, /tasks/:id, *, deny",
   "rule_file": "policy.csv",
   "rule_line": 2
  }
 ]
}`
	if diff := cmp.Diff(wantJSON, string(got)); diff != "" {
		t.Error(diff)
	}
}

func TestASuiteForRolesThatThePolicyDoesNotKnowDoesNotRun(t *testing.T) {
	s, err := ParseSuite("f", []byte("principals:\n  a: {roles: [usr, role:user]}\ntests: [{name: x, requests: [GET /]}]\n"))
	if err != nil {
		t.Fatal(err)
	}
	_, err = s.Run(mustParse(t, "p, role:user, /tasks, GET, allow"))
	want := `f:2:15: error: a has the role "usr", which policy.csv does not name; did you mean user? [role]
f:2:20: error: a has the role "role:user", which policy.csv does not name; did you mean user? roles are prefixed in the policy only [role]`
	if err == nil || err.Error() != want {
		t.Errorf("%v", err)
	}
	if _, err := s.Run(&Policy{}); err == nil {
		t.Error("a policy that was not loaded passed")
	}
}

func TestProblemsOfASuiteHaveTheirPlace(t *testing.T) {
	const head = "principals: {ana: {roles: [user]}, bob: anonymous}\n"
	for _, c := range []struct{ source, want string }{
		{"", `f: error: the file holds no tests [empty]`},
		{"a: [\n", `f:1: error: did not find expected node content [yaml]`},
		{"- x", `f:1:1: error: the suite is not a mapping; write it as key: value [type]`},
		{head, `f:1:1: error: tests is missing in the suite [key]`},
		{"principals: {}\ntests: [{name: x, requests: [GET /]}]", `f:1:13: error: principals is empty [empty]`},
		{head + "tests: []", `f:2:8: error: tests is empty [empty]`},
		{head + "test: []\ntests: [{name: x, requests: [GET /]}]", `f:2:1: error: unknown key "test" in the suite; did you mean tests? [key]`},
		{head + "tests: [{name: x, requests: [GET /], expects: {}}]", `f:2:38: error: unknown key "expects" in a test; did you mean expect? [key]`},
		{head + "tests: [{name: x, requests: [GET /], name: y}]", `f:2:38: error: "name" appears twice in a test [key]`},
		{head + "tests: [{requests: [GET /]}]", `f:2:9: error: name is missing in a test [key]`},
		{head + "tests: [{name: x, requests: []}]", `f:2:29: error: requests is empty [empty]`},
		{head + "tests: [{name: x, requests: GET /}]", `f:2:29: error: requests is not a list [type]`},
		{head + "tests: [{name: x, requests: [/]}]", `f:2:30: error: request "/" has no path; write it as GET /tasks/1 [request]`},
		{head + "tests: [{name: x, requests: [get /]}]", `f:2:30: error: unknown method "get"; did you mean GET? [request]`},
		{head + "tests: [{name: x, requests: [GET a]}]", `f:2:30: error: "a" is no canonical path; the gateway refuses such a request before it asks the policy [request]`},
		{head + "tests: [{name: x, requests: [GET /a//b]}]", `f:2:30: error: "/a//b" is no canonical path; the gateway refuses such a request before it asks the policy [request]`},
		{head + "tests: [{name: x, requests: ['GET /a?b']}]", `f:2:30: error: request "GET /a?b" has a query; the policy sees the path only [request]`},
		{head + "tests: [{name: x, requests: [GET /], expect: {an: allow}}]", `f:2:47: error: unknown principal "an" [principal]`},
		{head + "tests: [{name: x, requests: [GET /], expect: {anna: allow}}]", `f:2:47: error: unknown principal "anna"; did you mean ana? [principal]`},
		{head + "tests: [{name: x, principals: [bob], requests: [GET /], expect: {ana: allow}}]", `f:2:66: error: ana is expected something, but is none of the test's principals [principal]`},
		{head + "tests: [{name: x, requests: [GET /], expect: {ana: alow}}]", `f:2:52: error: unknown expectation "alow"; did you mean allow? [effect]`},
		{"principals: {ana: admin}\ntests: [{name: x, requests: [GET /]}]", `f:1:19: error: principal ana is "admin"; write anonymous, or {roles: [...]} for somebody with a token [principal]`},
		{"principals: {ana: {role: [a]}}\ntests: [{name: x, requests: [GET /]}]", "f:1:20: error: unknown key \"role\" in principal ana; did you mean roles? [key]\nf:1:19: error: roles is missing in principal ana [key]"},
		{"principals: {ana: {roles: [1]}}\ntests: [{name: x, requests: [GET /]}]", `f:1:28: error: a role is not a text [type]`},
		{"principals: {a: &x {roles: []}, b: *x}\ntests: [{name: x, requests: [GET /]}]", `f:1:36: error: principal b is not a mapping; write it as key: value [type]`},
		{head + `tests: [{name: "a\e[2J", requests: [GET /]}]`, `f:2:16: error: the name of a test has the invisible character U+001B [encoding]`},
		{head + `tests: [{name: "a\n::warning::b", requests: [GET /]}]`, `f:2:16: error: the name of a test has the invisible character U+000A [encoding]`},
		{head + `tests: [{name: x, requests: ["GET /\u202E"]}]`, `f:2:30: error: a request has the invisible character U+202E [encoding]`},
		{`principals: {"a\e[2J": admin}` + "\ntests: [{name: x, requests: [GET /]}]", `f:1:14: error: the name of a principal has the invisible character U+001B [encoding]`},
		{head + "tests: [{name: x, requests: [GET /]}]\n---\na: b\n", `f:3:1: error: a second YAML document; a suite is one document [yaml]`},
	} {
		_, err := ParseSuite("f", []byte(c.source))
		var problems Problems
		if !errors.As(err, &problems) || err.Error() != c.want {
			t.Errorf("%q:\n got %v\nwant %s", c.source, err, c.want)
		}
	}
}

func FuzzParseSuite(f *testing.F) {
	f.Add([]byte(suiteSource))
	f.Add([]byte("tests: *x"))
	f.Fuzz(func(t *testing.T, source []byte) {
		s, err := ParseSuite("f", source)
		var problems Problems
		if err != nil && (!errors.As(err, &problems) || len(problems) == 0) {
			t.Fatal(err)
		}
		if err == nil {
			if _, err := s.Run(mustParse(t, "p, role:user, /tasks, GET, allow")); err != nil && !errors.As(err, &problems) {
				t.Fatal(err)
			}
		}
	})
}
