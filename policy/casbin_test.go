package policy

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/casbin/casbin/v2"
	fileadapter "github.com/casbin/casbin/v2/persist/file-adapter"
)

// TestIndexEqualsCasbin compares the index with Casbin's enforcer on random
// policies and requests. POLICY_COMPARISONS sets how many answers are compared
// at least (100,000), POLICY_COMPARE_FOR how long at least (a duration), and
// POLICY_SEED with which policy to begin.
func TestIndexEqualsCasbin(t *testing.T) {
	enough := 100_000
	if raceDetector {
		enough = 10_000 // it has nothing to find here, and takes ten times as long
	}
	wanted := environment(t, "POLICY_COMPARISONS", enough, strconv.Atoi)
	atLeast := environment(t, "POLICY_COMPARE_FOR", 0, time.ParseDuration)
	seed := environment(t, "POLICY_SEED", 1, func(s string) (uint64, error) { return strconv.ParseUint(s, 10, 64) })

	var c comparison
	begin := time.Now()
	for ; c.answers < wanted || time.Since(begin) < atLeast; seed++ {
		if err := c.compare(generate(randomDice(seed))); err != nil {
			t.Fatalf("POLICY_SEED=%d: %v", seed, err)
		}
	}
	t.Logf("%d answers of %d policies compared: %d allowed, %d denied by a rule, %d without a rule; %d policies again with colliding hashes",
		c.answers, c.policies, c.allowed, c.denied, c.answers-c.allowed-c.denied, c.weak)
	if least := c.answers / 50; c.allowed < least || c.denied < least || c.answers-c.allowed-c.denied < least || c.weak < c.policies/4 {
		t.Error("the generator hardly makes one kind of answer: the comparison says little")
	}
}

func environment[T any](t *testing.T, name string, otherwise T, parse func(string) (T, error)) T {
	t.Helper()
	text := os.Getenv(name)
	if text == "" {
		return otherwise
	}
	value, err := parse(text)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return value
}

// FuzzDecide is the same with a fuzzer's choice of policies. Hashes differ from
// run to run and so does the coverage: without -fuzzminimizetime=10x the fuzzer
// spends its time minimising what it takes for news.
func FuzzDecide(f *testing.F) {
	for seed := range uint64(8) {
		d := randomDice(seed)
		data := make([]byte, 256)
		for i := range data {
			data[i] = byte(d(256))
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		var c comparison
		if err := c.compare(generate(byteDice(data))); err != nil {
			t.Fatal(err)
		}
	})
}

type comparison struct {
	policies, answers, allowed, denied, weak int
}

// compare asks Casbin, the index, an index with a hash so bad that probes
// collide, and the definition of the deciding rule.
func (c *comparison) compare(g generated) error {
	d, problems := parse("policy.csv", []byte(g.source))
	if len(problems) > 0 {
		return fmt.Errorf("generated policy: %w\n%s", problems, g.source)
	}
	inOrder := slices.Clone(d.rules)
	p, err := newPolicy(d, newHasher())
	if err != nil {
		return fmt.Errorf("compile: %w\n%s", err, g.source)
	}
	weak, err := weakPolicy(g.source)
	if err != nil {
		return err
	}
	if weak != nil {
		c.weak++
	}
	theirs, err := newEnforcer(d, g.callers)
	if err != nil {
		return err
	}
	c.policies++
	for i, caller := range g.callers {
		for _, path := range g.paths {
			for _, method := range g.methods {
				got := p.Decide(caller, method, path)
				if err := c.compareOne(theirs, i, method, path, got); err != nil {
					return fmt.Errorf("%+v %s %q: %w\n%s", caller, method, path, err, g.source)
				}
				if want := decisionByDefinition(d, inOrder, caller, method, path); got != want {
					return fmt.Errorf("%+v %s %q: %+v, but the most specific rule is %+v\n%s", caller, method, path, got, want, g.source)
				}
				if weak == nil {
					continue
				}
				if again := weak.Decide(caller, method, path); again != got {
					return fmt.Errorf("%+v %s %q: %+v with colliding hashes, %+v without\n%s", caller, method, path, again, got, g.source)
				}
			}
		}
	}
	return nil
}

func (c *comparison) compareOne(theirs *enforcer, caller int, method, path string, got Decision) error {
	want, err := theirs.decide(caller, method, path)
	if err != nil {
		return fmt.Errorf("casbin: %w", err)
	}
	if ours := (verdict{got.Allowed, got.Rule != ""}); ours != want {
		return fmt.Errorf("index %+v, Casbin %+v", got, want)
	}
	c.answers++
	if got.Allowed {
		c.allowed++
	} else if got.Rule != "" {
		c.denied++
	}
	return nil
}

// weakPolicy compiles the policy with hashes of as few bits as suffice to tell
// its nodes apart, so that paths find nodes that they do not lead to. Nil: even
// many bits did not suffice.
func weakPolicy(source string) (*Policy, error) {
	for bits := 3; bits <= 12; bits++ {
		d, _ := parse("policy.csv", []byte(source))
		h := newHasher()
		h.mask = 1<<bits - 1
		p, err := newPolicy(d, h)
		if !errors.Is(err, errCollision) {
			return p, err
		}
	}
	return nil, nil
}

// decisionByDefinition is what the documentation of Decision.Rule says, word by
// word and rule by rule.
func decisionByDefinition(d *document, rules []rule, c Caller, method, path string) Decision {
	is := map[string]bool{"anonymous": true}
	if c.Authenticated {
		is["authenticated"] = true
		for _, role := range c.Roles {
			is["role:"+role] = true
		}
	}
	for range d.grants {
		for _, g := range d.grants {
			if is[d.subjects.names[g.member]] {
				is[d.subjects.names[g.group]] = true
			}
		}
	}
	var best *rule
	for i := range rules {
		r := &rules[i]
		fields := strings.Split(d.ruleText(r), ", ")
		if !is[fields[1]] || !matches(fields[2], path) ||
			fields[3] != "*" && !slices.Contains(strings.Split(fields[3], "|"), method) {
			continue
		}
		if best == nil || r.deny && !best.deny || r.deny == best.deny && specificity(d.pattern(r)) < specificity(d.pattern(best)) {
			best = r
		}
	}
	if best == nil {
		return Decision{}
	}
	return Decision{Allowed: !best.deny, Rule: d.ruleText(best), File: d.file, Line: int(best.line)}
}

// specificity orders the patterns of one path: a string of one letter for each
// segment, the more specific the smaller.
func specificity(pattern string) string {
	var b strings.Builder
	for segment := range strings.SplitSeq(pattern[1:], "/") {
		switch {
		case segment == "*":
			b.WriteByte('d')
		case isName(segment):
			b.WriteByte('c')
		default:
			b.WriteByte('b')
		}
	}
	return b.String()
}

func TestInheritanceDeeperThanCasbinsDefaultIsFollowed(t *testing.T) {
	var b strings.Builder
	for i := range 50 {
		fmt.Fprintf(&b, "g, role:r%d, role:r%d\n", i, i+1)
	}
	b.WriteString("p, role:r50, /deep, GET, allow\n")
	d, problems := parse("policy.csv", []byte(b.String()))
	if problems != nil {
		t.Fatal(problems)
	}
	p, err := newPolicy(d, newHasher())
	if err != nil {
		t.Fatal(err)
	}
	caller := Caller{Authenticated: true, Roles: []string{"r0"}}
	e, err := newEnforcer(d, []Caller{caller})
	if err != nil {
		t.Fatal(err)
	}
	theirs, err := e.decide(0, "GET", "/deep")
	if err != nil || !theirs.allowed {
		t.Errorf("Casbin: %+v, %v", theirs, err)
	}
	if !p.Decide(caller, "GET", "/deep").Allowed {
		t.Error("index: denied")
	}
}

// The file is what it says it is: Casbin's own adapter reads the same rules.
func TestDefaultPolicyIsACasbinFile(t *testing.T) {
	theirs, err := casbin.NewEnforcer()
	if err != nil {
		t.Fatal(err)
	}
	p, err := Load("policy.csv")
	if err != nil {
		t.Fatal(err)
	}
	e, err := newEnforcer(p.document, nil)
	if err != nil {
		t.Fatal(err)
	}
	m := e.casbin.GetModel().Copy()
	m.ClearPolicy()
	if err := theirs.InitWithModelAndAdapter(m, fileadapter.NewAdapter("policy.csv")); err != nil {
		t.Fatal(err)
	}
	rules, err := theirs.GetPolicy()
	if err != nil {
		t.Fatal(err)
	}
	ours, err := e.casbin.GetPolicy()
	if err != nil {
		t.Fatal(err)
	}
	if len(rules) == 0 || len(rules) != len(ours) {
		t.Fatalf("Casbin's adapter reads %d rules, ours %d", len(rules), len(ours))
	}
	for _, rule := range rules {
		if has, err := e.casbin.HasPolicy(rule); err != nil || !has {
			t.Errorf("Casbin's adapter reads %q; %v", rule, err)
		}
	}
}

// The check that Parse makes can fail.
func TestAnIndexThatDisagreesWithCasbinIsNotLoaded(t *testing.T) {
	source := "p, role:user, /tasks, GET, allow\np, role:user, /tasks/:id, GET, deny\n"
	p, err := Parse("policy.csv", []byte(source))
	if err != nil {
		t.Fatal(err)
	}
	if err := p.compareWithCasbin(selfCheckWork); err != nil {
		t.Fatalf("intact: %v", err)
	}
	for i := range p.slots {
		p.slots[i].flags &^= hasDenials
		p.slots[i].exactly = 0
	}
	if err := p.compareWithCasbin(selfCheckWork); err == nil {
		t.Error("an index without rules passed")
	}
}
