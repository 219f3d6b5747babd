package policy

import (
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestTheReadmeIsTrue runs its examples: a csv block is a policy, a yaml block
// the suite for the policy before it, a text block what lint says about it, and a
// console block what commands say.
func TestTheReadmeIsTrue(t *testing.T) {
	readme, err := readFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	shipped, err := readFile("policy.csv")
	if err != nil {
		t.Fatal(err)
	}
	var policies, suites, lints, consoles int
	// The first suite that has no policy of its own is about the shipped one.
	current := string(shipped)
	previous := ""
	blocks := regexp.MustCompile("(?ms)^```(\\w+)\n(.*?)^```$").FindAllStringSubmatch(string(readme), -1)
	for i, block := range blocks {
		kind, text := block[1], block[2]
		switch kind {
		case "csv":
			policies++
			previous, current = current, text
			if i+1 == len(blocks) || blocks[i+1][1] != "text" {
				// What is not said to have problems has no errors at least.
				mustParse(t, text)
			}
		case "text":
			lints++
			var got strings.Builder
			for _, p := range Lint("policy.csv", []byte(current)) {
				got.WriteString(p.String() + "\n")
			}
			if diff := cmp.Diff(text, got.String()); diff != "" {
				t.Errorf("%s\n%s", current, diff)
			}
		case "console":
			for _, session := range strings.Split(text, "$ gateway policy ")[1:] {
				consoles++
				command, want, _ := strings.Cut(session, "\n")
				if diff := cmp.Diff(want, runInReadme(t, strings.Fields(command), previous, current)); diff != "" {
					t.Errorf("%s: %s", command, diff)
				}
			}
		case "yaml":
			suites++
			if strings.Contains(text, "/auth/users") {
				current = string(shipped)
			}
			s, err := ParseSuite("README.md", []byte(text))
			if err != nil {
				t.Fatal(err)
			}
			report, err := s.Run(mustParse(t, current))
			if err != nil {
				t.Fatal(err)
			}
			if report.Failed > 0 {
				t.Errorf("%s\n%s", current, report)
			}
		}
	}
	if policies < 7 || suites < 6 || lints < 2 || consoles < 2 {
		t.Errorf("only %d policies, %d suites, %d findings and %d commands in README.md", policies, suites, lints, consoles)
	}
}

// runInReadme returns what a command of the README prints, as far as it is this
// package's doing.
func runInReadme(t *testing.T, command []string, previous, current string) string {
	t.Helper()
	if command[0] == "explain" {
		n := len(command)
		var c Caller
		for i := 1; i < n-2; i += 2 {
			c.Authenticated = true
			c.Roles = append(c.Roles, command[i+1])
		}
		return mustParse(t, current).Explain(c, command[n-2], command[n-1]).String()
	}
	if command[0] == "diff" {
		return mustDiff(t, mustParse(t, previous), mustParse(t, current)).String()
	}
	if command[0] == "matrix" {
		return written(t, aMatrix(t, current, Surroundings{}).Text)
	}
	t.Fatalf("README.md runs the unknown command %q", command)
	return ""
}

// The codes of problems are a contract; each has its line in the README.
func TestTheReadmeKnowsEveryCode(t *testing.T) {
	readme, err := readFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	code := regexp.MustCompile(`(?:problem|fault|warn)\((?:[\w.\[\]]+, )?"([a-z-]+)"`)
	for _, file := range []string{"parse.go", "inherit.go", "lint.go", "surroundings.go"} {
		source, err := readFile(file)
		if err != nil {
			t.Fatal(err)
		}
		found := code.FindAllSubmatch(source, -1)
		if len(found) == 0 {
			t.Errorf("no codes in %s", file)
		}
		for _, m := range found {
			if !strings.Contains(string(readme), "`"+string(m[1])+"`") {
				t.Errorf("README.md does not know %s", m[1])
			}
		}
	}
}
