package policy

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"
)

// A decision must not take a time that somebody's policy file makes grow: each
// policy here comes small and large, with requests that have to look far.
func TestDecisionsDoNotSlowDownWithTheNumberOfRules(t *testing.T) {
	skipTiming(t)
	for name, c := range map[string]struct {
		source func(n int) string
		caller func(n int) Caller
		path   string
	}{
		"rules for one pattern, held by one role": {
			source: func(n int) string { return tableSource(n) + "p, role:other, /table, *, deny\n" },
			caller: func(int) Caller { return withRoles("holder") },
			path:   "/table",
		},
		"rules for one pattern, none of which applies": {
			source: func(n int) string {
				var b strings.Builder
				for i := range n {
					fmt.Fprintf(&b, "p, role:r%d, /*, GET, deny\n", i)
				}
				return b.String()
			},
			caller: func(int) Caller { return withRoles("r", "x") },
			path:   "/a/b/c",
		},
		"rules beneath every node of the path": {
			source: func(n int) string {
				var b strings.Builder
				for i := range n {
					fmt.Fprintf(&b, "p, role:r%d, %s/*, GET, deny\n", i, strings.Repeat("/a", i%20))
				}
				return b.String()
			},
			caller: func(int) Caller { return withRoles("r", "x") },
			path:   strings.Repeat("/a", 31),
		},
		"rules in every branch, all overlapping": {
			source: func(n int) string {
				var b strings.Builder
				for i := range n {
					fmt.Fprintf(&b, "p, role:r%d, %s/*, GET, deny\n", i, branch(i%32))
				}
				return b.String()
			},
			caller: func(int) Caller { return withRoles("r", "x") },
			path:   "/a/a/a/a/a/a/a",
		},
		"a long chain of roles": {
			source: func(n int) string {
				var b strings.Builder
				for i := range n / 30 {
					fmt.Fprintf(&b, "g, role:r%d, role:r%d\np, role:r%d, /a/:x, POST, deny\n", i, i+1, i)
				}
				fmt.Fprintf(&b, "p, role:r%d, /a/:x, GET, allow\n", n/30)
				return b.String()
			},
			caller: func(int) Caller { return withRoles("r0") },
			path:   "/a/b",
		},
	} {
		const small, large = 1_000, 100_000
		fast := fastest(mustParse(t, c.source(small)), c.caller(small), c.path)
		slow := fastest(mustParse(t, c.source(large)), c.caller(large), c.path)
		t.Logf("%s: %v and %v", name, fast, slow)
		// A hundred times the rules. Linear would be a hundred times the time.
		if slow > 10*fast+time.Microsecond {
			t.Errorf("%s: %v for %d rules, %v for %d", name, fast, small, slow, large)
		}
	}
}

// branch is a pattern of five segments; the bits say which are names.
func branch(bits int) string {
	var b strings.Builder
	for i := range 5 {
		if bits>>i&1 == 1 {
			fmt.Fprintf(&b, "/:n%d", i)
		} else {
			b.WriteString("/a")
		}
	}
	return b.String()
}

func skipTiming(t *testing.T) {
	t.Helper()
	if raceDetector {
		t.Skip("times say nothing under the race detector")
	}
}

// fastest times decisions and returns the best of several runs, which is the
// one that the rest of the machine disturbed least.
func fastest(p *Policy, c Caller, path string) time.Duration {
	const runs, decisions = 20, 200
	best := time.Hour
	for range runs {
		begin := time.Now()
		for range decisions {
			p.Decide(c, "GET", path)
		}
		best = min(best, time.Since(begin)/decisions)
	}
	return best
}

// The worst that the limits let through: every placement of names, to the depth
// limit, with nothing that decides early.
func TestTheWorstPolicyHasABound(t *testing.T) {
	skipTiming(t)
	var b strings.Builder
	for bits := range maxPlacements {
		var pattern strings.Builder
		for i := range maxSegments - 1 {
			if i < 8 && bits>>i&1 == 1 {
				fmt.Fprintf(&pattern, "/:n%d", i)
			} else {
				pattern.WriteString("/a")
			}
			if i > 8 {
				fmt.Fprintf(&b, "p, role:x, %s/*, GET, deny\n", &pattern)
			}
		}
	}
	p := mustParse(t, b.String())
	took := fastest(p, withRoles("y"), strings.Repeat("/a", 2*maxSegments))
	t.Logf("%d rules: %v", len(p.rules), took)
	if took > 5*time.Millisecond {
		t.Errorf("%v for one decision", took)
	}
}

func TestPoliciesBeyondTheLimitsAreRefused(t *testing.T) {
	var placements strings.Builder
	for bits := range maxPlacements + 1 {
		placements.WriteString("p, role:x, ")
		for i := range 9 {
			if bits>>i&1 == 1 {
				fmt.Fprintf(&placements, "/:n%d", i)
			} else {
				placements.WriteString("/a")
			}
		}
		placements.WriteString(", GET, allow\n")
	}
	var methods strings.Builder
	for i := range maxMethods + 1 {
		fmt.Fprintf(&methods, "p, role:x, /a, X-METHOD%d, allow\n", i)
	}
	var chain strings.Builder
	for i := range 9_000 {
		fmt.Fprintf(&chain, "g, role:r%d, role:r%d\n", i, i+1)
	}
	chain.WriteString("p, role:r0, /a, GET, allow\n")
	for name, source := range map[string]string{
		"placements": placements.String(), "methods": methods.String(), "inheritance": chain.String(),
	} {
		_, err := Parse("f", []byte(source))
		var problems Problems
		if !errors.As(err, &problems) || len(problems) != 1 {
			t.Errorf("%s: %v", name, err)
			continue
		}
		t.Log(problems[0])
	}
}

func TestAHashThatCannotTellNodesApartIsReplacedOrRefused(t *testing.T) {
	d, problems := parse("f", []byte(benchmarkSource(1_000)))
	if problems != nil {
		t.Fatal(problems)
	}
	h := newHasher()
	h.mask = 1<<8 - 1 // fewer keys than nodes
	if _, err := newPolicy(d, h); !errors.Is(err, errCollision) {
		t.Errorf("%v", err)
	}
	// Here less than every second seed will do, and eight are tried.
	d, _ = parse("f", []byte(benchmarkSource(40)))
	succeeded := 0
	for range 200 {
		h := newHasher()
		h.mask = 1<<9 - 1
		if _, err := newPolicy(d, h); err == nil {
			succeeded++
		}
	}
	if succeeded < 150 {
		t.Errorf("%d of 200 compiled", succeeded)
	}
}

// With keys of five bits nearly every probe finds some node. None is taken for
// another.
func TestCollidingHashesMisleadNobody(t *testing.T) {
	source := "p, anonymous, /a, GET, allow\np, anonymous, /a/b, GET, deny\np, anonymous, /:x/c/*, GET, allow\np, anonymous, /:x/c/:y/d, GET, deny\n" +
		"p, anonymous, /m/*, GET, allow\np, anonymous, /m/n, GET, allow\np, anonymous, /:x/:y/*, GET, allow\n"
	paths := []string{"/a", "/b", "/a/a", "/a/b", "/b/b", "/a/x", "/a/b/b", "/a/b/c", "/b/c/d", "/a/c", "/a/c/d", "/a/c/x/d", "/c/c/c/c", "/a/c/x/d/d", "/m/x", "/m/y", "/m/z", strings.Repeat("/a", 40)}
	want := mustParse(t, source)
	compiled := 0
	for range 3_000 {
		d, _ := parse("policy.csv", []byte(source))
		h := newHasher()
		h.mask = 1<<5 - 1
		p, err := newPolicy(d, h)
		if err != nil {
			continue
		}
		compiled++
		for _, path := range paths {
			if a, b := p.Decide(Caller{}, "GET", path), want.Decide(Caller{}, "GET", path); a != b {
				t.Fatalf("%s: %+v, want %+v", path, a, b)
			}
		}
	}
	if compiled < 1_000 {
		t.Errorf("only %d compiled", compiled)
	}
}
