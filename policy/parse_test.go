package policy

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/casbin/casbin/v2/model"
	"github.com/casbin/casbin/v2/persist"
	"github.com/google/go-cmp/cmp"
)

func TestEveryProblemHasItsPlaceAndSaysWhatToDo(t *testing.T) {
	for _, c := range []struct{ source, want string }{
		// Subjects.
		{"p, admin, /a, GET, allow", `f:1:4: error: unknown subject "admin"; did you mean role:admin? [subject]`},
		{"p, Role:admin, /a, GET, allow", `f:1:4: error: unknown subject "Role:admin"; did you mean role:admin? [subject]`},
		{"p, roles:admin, /a, GET, allow", `f:1:4: error: unknown subject "roles:admin"; did you mean role:admin? [subject]`},
		{"p, permission:x, /a, GET, allow", `f:1:4: error: unknown subject "permission:x"; did you mean perm:x? [subject]`},
		{"p, anonymus, /a, GET, allow", `f:1:4: error: unknown subject "anonymus"; did you mean anonymous? [subject]`},
		{"p, *, /a, GET, allow", `f:1:4: error: unknown subject "*"; did you mean anonymous (everybody)? [subject]`},
		{"p, user:ana, /a, GET, allow", `f:1:4: error: unknown subject "user:ana"; write role:NAME, perm:NAME, anonymous or authenticated [subject]`},
		{"p, role:, /a, GET, allow", `f:1:9: error: name is missing after role: [subject]`},
		{"p, role:role:x, /a, GET, allow", `f:1:9: error: subject "role:role:x" has two prefixes; did you mean role:x? [subject]`},
		{"p, role:a b, /a, GET, allow", `f:1:10: error: ' ' in the name of a subject; names are letters, digits and any of . _ : - after the first [subject]`},
		{"p, , /a, GET, allow", `f:1:4: error: subject is missing; write role:NAME, perm:NAME, anonymous or authenticated [subject]`},
		// Patterns.
		{"p, role:a, a, GET, allow", `f:1:12: error: path pattern "a" does not begin with / [pattern]`},
		{"p, role:a, , GET, allow", `f:1:12: error: path pattern is missing; use /* for every path [pattern]`},
		{"p, role:a, /a*, GET, allow", `f:1:14: error: '*' inside a path segment; * and :name stand for whole segments, and a pattern is a path without query; cover such a segment with :name [pattern]`},
		{"p, role:a, /a:b, GET, allow", `f:1:14: error: ':' inside a path segment; * and :name stand for whole segments, and a pattern is a path without query; cover such a segment with :name [pattern]`},
		{"p, role:a, /a?b, GET, allow", `f:1:14: error: '?' inside a path segment; * and :name stand for whole segments, and a pattern is a path without query; cover such a segment with :name [pattern]`},
		{"p, role:a, /a/*/b, GET, allow", `f:1:15: error: * in the middle of a pattern; * covers the rest and comes last; use :name for one segment [pattern]`},
		{"p, role:a, /a/**, GET, allow", `f:1:15: error: unknown wildcard **; did you mean *? [pattern]`},
		{"p, role:a, /{id}, GET, allow", `f:1:13: error: unknown wildcard {id}; did you mean :id? [pattern]`},
		{"p, role:a, /:, GET, allow", `f:1:13: error: name is missing after :; write for example :id [pattern]`},
		{"p, role:a, /:1a, GET, allow", `f:1:14: error: '1' in the name of a path segment; names are letters, digits and _, as in :task_id [pattern]`},
		{"p, role:a, /:a/:a, GET, allow", `f:1:16: error: :a appears twice in one pattern; names are only for the reader; choose two [pattern]`},
		{"p, role:a, /a//b, GET, allow", `f:1:15: error: empty path segment (two slashes in a row); a canonical path has none [pattern]`},
		{"p, role:a, /a/../b, GET, allow", `f:1:15: error: path segment ".."; a canonical path has none [pattern]`},
		{"p, role:a, /a%2fb, GET, allow", `f:1:14: error: percent-encoded %2f in a path pattern; patterns are written decoded [pattern]`},
		{"p, role:a, " + strings.Repeat("/a", 33) + ", GET, allow", `f:1:12: error: path pattern has 33 segments; the limit is 32; end it earlier with * [pattern]`},
		// Methods.
		{"p, role:a, /a, get, allow", `f:1:16: error: unknown method "get"; did you mean GET? [method]`},
		{"p, role:a, /a, GTE, deny", `f:1:16: error: unknown method "GTE"; did you mean GET? [method]`},
		{"p, role:a, /a, fetch, allow", `f:1:16: error: "fetch" is no HTTP method; write methods such as GET|POST, or * for all [method]`},
		{"p, role:a, /a, GET | POST, allow", `f:1:19: error: "GET " is no HTTP method; write methods such as GET|POST, or * for all [method]`},
		{"p, role:a, /a, GET|, allow", `f:1:20: error: empty method; write methods such as GET|POST without spaces [method]`},
		{"p, role:a, /a, GET|GET, allow", `f:1:20: error: method GET appears twice [method]`},
		{"p, role:a, /a, GET|*, allow", `f:1:20: error: * among methods; * stands alone and already means every method [method]`},
		{"p, role:a, /a, , allow", `f:1:16: error: action is missing; write methods such as GET or GET|POST, or * for all [method]`},
		// Effects.
		{"p, role:a, /a, GET, Allow", `f:1:21: error: unknown effect "Allow"; did you mean allow? [effect]`},
		{"p, role:a, /a, GET, permit", `f:1:21: error: unknown effect "permit"; write allow or deny [effect]`},
		{"p, role:a, /a, GET", `f:1:19: error: effect is missing; say what the rule does: allow or deny [fields]`},
		{"p, role:a, /a, GET,", `f:1:20: error: effect is missing; say what the rule does: allow or deny [effect]`},
		{"p, role:a, /a, GET, allow # why", `f:1:21: error: unknown effect "allow # why"; a comment has a line of its own [effect]`},
		// Lines.
		{"p, role:a, /a, allow", `f:1:21: error: the line has 4 of 5 fields; write p, SUBJECT, PATH, METHODS, allow or deny [fields]`},
		{"p, role:a, /a, GET, allow, x", `f:1:28: error: the line has more than 5 fields; write p, SUBJECT, PATH, METHODS, allow or deny [fields]`},
		{"p2, role:a, /a, GET, allow", `f:1:1: error: unknown kind of line "p2"; a line begins with p (rule), g (inheritance) or # (comment) [kind]`},
		{"P, role:a, /a, GET, allow", `f:1:1: error: unknown kind of line "P"; did you mean p? [kind]`},
		{", role:a", `f:1:1: error: unknown kind of line ""; a line begins with p (rule), g (inheritance) or # (comment) [kind]`},
		{`p, role:a, "/a", GET, allow`, `f:1:12: error: fields are not quoted; a segment with a comma or a quote can only be covered by :name or * [syntax]`},
		{"p, role:a, /a\u00a0, GET, allow", `f:1:14: error: invisible character U+00A0; remove it, or replace it by a space [encoding]`},
		{"# \u202e", `f:1:3: error: invisible character U+202E; remove it, or replace it by a space [encoding]`},
		{"p, role:a, /a\x00, GET, allow", `f:1:14: error: invisible character U+0000; remove it, or replace it by a space [encoding]`},
		{"p, role:a, /a\xff, GET, allow", `f:1:14: error: the line is not UTF-8 [encoding]`},
		{"\ufeffp, role:a, /a, GET, allow", `f:1:1: error: the file begins with a byte order mark; save it as UTF-8 without one [encoding]`},
		{"#" + strings.Repeat("x", 4096), `f:1: error: the line is longer than 4096 bytes [limit]`},
		{"\n# nothing\n", `f: error: the file holds no rule; an empty or half-written file is not taken for a policy; to close everything, write p, anonymous, /*, *, deny [empty]`},
		// Inheritance.
		{"g, role:a", `f:1:10: error: the line has 2 of 3 fields; write g, MEMBER, ROLE or PERMISSION [fields]`},
		{"g, perm:a, role:b", `f:1:4: error: permission "perm:a" inherits something; permissions only stand on the right; grant both to the role [subject]`},
		{"g, role:a, anonymous", `f:1:12: error: anonymous is granted to somebody; everybody is anonymous, and everybody with a valid token is authenticated already [subject]`},
		{"g, ana, role:admin", `f:1:4: error: unknown subject "ana"; did you mean role:ana? [subject]`},
		{"g, role:a, role:a", `f:1: error: inheritance in a circle: role:a → role:a (line 1); remove one of these lines [cycle]`},
		{"g, role:c, role:a\ng, role:b, role:c\ng, role:a, role:b", `f:3: error: inheritance in a circle: role:c → role:a (line 1) → role:b (line 3) → role:c (line 2); remove one of these lines [cycle]`},
	} {
		_, err := Parse("f", []byte(c.source))
		var problems Problems
		if !errors.As(err, &problems) || err.Error() != c.want {
			t.Errorf("%q:\n got %v\nwant %s", c.source, err, c.want)
		}
	}
}

func TestAllProblemsAreReportedAtOnceInTheOrderOfLines(t *testing.T) {
	source := "p, role:a, /é, GTE, alow\n" +
		"g, role:a, role:b\n" +
		"p, role:a, /ok, GET, allow\n" +
		"g, role:b, role:a\n" +
		"nonsense\n"
	_, err := Parse("f", []byte(source))
	var problems Problems
	if !errors.As(err, &problems) {
		t.Fatal(err)
	}
	var got []string
	for _, p := range problems {
		got = append(got, strings.Split(p.String(), ":")[1]+" "+p.Code)
	}
	want := []string{"1 method", "1 effect", "4 cycle", "5 kind"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	// Columns are counted in characters, not bytes.
	if problems[0].Column != 16 {
		t.Errorf("column %d, want 16", problems[0].Column)
	}
}

func TestAFileOfTheWrongKindDoesNotFillTheScreen(t *testing.T) {
	_, err := Parse("f", []byte(strings.Repeat("{}\n", 100_000)))
	var problems Problems
	if !errors.As(err, &problems) || len(problems) > maxProblems {
		t.Fatalf("%d problems", len(problems))
	}
	if lines := strings.Count(err.Error(), "\n"); lines > shownProblems {
		t.Errorf("%d lines", lines)
	}
}

func TestSpacesCommentsAndLineEndsDoNotMatter(t *testing.T) {
	for _, source := range []string{
		"p, role:a, /a b, GET|POST, allow",
		"p,role:a,/a b,GET|POST,allow\n",
		"\r\n# a \"comment\"\r\n\t p ,\trole:a , /a b ,GET|POST\t, allow \r\n\r\n",
	} {
		p, err := Parse("f", []byte(source))
		if err != nil {
			t.Errorf("%q: %v", source, err)
			continue
		}
		got := p.Decide(Caller{Authenticated: true, Roles: []string{"a"}}, "POST", "/a b")
		if want := "p, role:a, /a b, GET|POST, allow"; !got.Allowed || got.Rule != want {
			t.Errorf("%q: %+v", source, got)
		}
	}
}

func TestLoadTellsAFileThatCannotBeReadFromOneThatIsWrong(t *testing.T) {
	_, err := Load(filepath.Join(t.TempDir(), "absent.csv"))
	var problems Problems
	if !errors.Is(err, os.ErrNotExist) || errors.As(err, &problems) {
		t.Errorf("absent: %v", err)
	}
	file := filepath.Join(t.TempDir(), "wrong.csv")
	if err := os.WriteFile(file, []byte("p, x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(file); !errors.As(err, &problems) || problems[0].File != file {
		t.Errorf("wrong: %v", err)
	}
}

// FuzzParse: whatever the bytes, there is a policy that can account for each of
// its rules, or there are problems that say where.
func FuzzParse(f *testing.F) {
	for _, seed := range []string{
		"p, role:a, /a/:b/*, GET|POST, allow\ng, role:b, role:a\n",
		"p, anonymous, /, *, deny\np,authenticated,/x/,PROPFIND,allow",
		"# x\r\np, perm:a.b, /a b/:c, GET, allow\r\ng, authenticated, perm:a.b\r\n",
		"p, role:a, \"/a\", GET, allow", "\ufeff", "p,,,,\n", "g, role:a, role:a",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, source []byte) {
		d, problems := parse("f", source)
		lines := bytes.Split(source, []byte("\n"))
		if len(problems) > 0 {
			for _, p := range problems {
				if p.Message == "" || p.Line < 0 || p.Line > len(lines) || strings.ContainsAny(p.String(), "\n\x00") {
					t.Errorf("%+v", p)
				}
			}
			return
		}
		inOrder := slices.Clone(d.rules)
		p, err := newPolicy(d, newHasher())
		if err != nil {
			t.Skip("beyond a limit")
		}
		for i := range inOrder {
			r := &inOrder[i]
			line := string(lines[r.line-1])
			if !slices.Equal(casbinFields(t, line), strings.Split(d.ruleText(r), ", ")[1:]) {
				t.Errorf("line %d is %q, read as %q", r.line, line, d.ruleText(r))
			}
			caller, ok := holderOf(p, r.subject)
			if !ok {
				continue
			}
			method, _, _ := strings.Cut(d.methods.String(r.methods), "|")
			path := exampleOf(d.pattern(r), i)
			got := p.Decide(caller, method, path)
			if want := decisionByDefinition(d, inOrder, caller, method, path); got != want || got.Rule == "" {
				t.Errorf("%+v %s %s: %+v, want %+v", caller, method, path, got, want)
			}
		}
	})
}

// casbinFields is what Casbin's own reader makes of a line.
func casbinFields(t *testing.T, line string) []string {
	m, err := model.NewModelFromString(casbinModel)
	if err != nil {
		t.Fatal(err)
	}
	// Casbin trims before it hands a line to this function.
	if err := persist.LoadPolicyLine(strings.TrimSpace(line), m); err != nil {
		t.Errorf("Casbin cannot read %q: %v", line, err)
		return nil
	}
	fields := slices.Clone(m["p"]["p"].Policy[0])
	for i := range fields {
		// It leaves the spaces before a comma where they are; ours go.
		fields[i] = strings.TrimRight(fields[i], " \t")
	}
	return fields
}

// holderOf finds a caller whom a rule for the subject concerns.
func holderOf(p *Policy, subject subjectID) (Caller, bool) {
	for _, role := range append([]string{""}, p.Roles()...) {
		c := Caller{Authenticated: true, Roles: []string{role}}
		for _, id := range p.subjects.of(c, nil) {
			if p.subjects.is(id, subject) {
				return c, true
			}
		}
	}
	return Caller{}, false
}
