package policy

import (
	"fmt"
	"math/rand/v2"
	"strings"
)

// dice choose. Thrown by a random source they make a test; thrown by a fuzzer's
// bytes they let it look for the throw that matters.
type dice func(sides int) int

func randomDice(seed uint64) dice {
	r := rand.New(rand.NewPCG(seed, 0))
	return r.IntN
}

func byteDice(data []byte) dice {
	return func(sides int) int {
		if len(data) == 0 {
			return 0
		}
		n := int(data[0]) % sides
		data = data[1:]
		return n
	}
}

func pick[T any](d dice, from []T) T { return from[d(len(from))] }

// generated is a policy file and what to ask of it. The alphabets are small, so
// that rules overlap, shadow and contradict each other all the time.
type generated struct {
	source  string
	callers []Caller
	methods []string
	paths   []string
}

func generate(d dice) generated {
	var b strings.Builder
	roles := 1 + d(6)
	if d(8) == 0 {
		roles = 80 // more than a mask of 64 bits tells apart
	}
	permissions := d(4)
	subject := func() string {
		switch n := d(roles + permissions + 2); {
		case n < roles:
			return fmt.Sprintf("role:r%d", n)
		case n < roles+permissions:
			return fmt.Sprintf("perm:p%d", n-roles)
		case n == roles+permissions:
			return "anonymous"
		default:
			return "authenticated"
		}
	}
	// Inheritance goes from lower to higher numbers, so that it has chains and
	// diamonds but no circles.
	for range d(8) * (1 + roles/8) {
		member := d(roles+2) - 2
		group := max(member, 0) + 1 + d(roles)
		left := fmt.Sprintf("role:r%d", member)
		if member < 0 {
			left = [...]string{"anonymous", "authenticated"}[-member-1]
			group = d(roles)
		}
		right := fmt.Sprintf("role:r%d", group)
		if group >= roles {
			if permissions == 0 {
				continue
			}
			right = fmt.Sprintf("perm:p%d", d(permissions))
		}
		fmt.Fprintf(&b, "g, %s, %s\n", left, right)
	}
	methods := []string{"GET", "POST", "GET|POST", "*", "*", "GET|PUT|DELETE", "POST|PROPFIND", "GET|X-CUSTOM", "HEAD|GET"}
	patterns := []string{"/a/*"}
	for range 1 + d(8) {
		patterns = append(patterns, generatePattern(d))
	}
	rules := 1 + d(12) + roles/2
	if d(8) == 0 {
		// Lists long enough for tables.
		rules, patterns = 40+d(60), patterns[:2]
	}
	for range rules {
		effect := "allow"
		if d(4) == 0 {
			effect = "deny"
		}
		fmt.Fprintf(&b, "p, %s, %s, %s, %s\n", subject(), pick(d, patterns), pick(d, methods), effect)
	}

	g := generated{source: b.String()}
	g.callers = []Caller{{}, {Authenticated: true}, {Roles: []string{"r0", "r1"}}}
	for range 5 {
		c := Caller{Authenticated: true}
		for range 1 + d(4) {
			c.Roles = append(c.Roles, fmt.Sprintf("r%d", d(roles+1)))
		}
		g.callers = append(g.callers, c)
	}
	g.callers = append(g.callers, Caller{Authenticated: true, Roles: []string{
		pick(d, []string{"role:r0", "perm:p0", "anonymous", "authenticated", "", "caller:0", "r0 ", "R0", "r0,r1", "*"}),
	}})
	g.methods = []string{"GET", "POST",
		pick(d, []string{"PUT", "DELETE", "HEAD", "PROPFIND", "X-CUSTOM", "OPTIONS", "X-OTHER", "get", "GETX", "", "*", "GET|POST"})}
	for range 8 {
		g.paths = append(g.paths, generatePath(d, patterns))
	}
	return g
}

func generatePattern(d dice) string {
	var b strings.Builder
	for i := range d(5) {
		b.WriteByte('/')
		if d(3) == 0 {
			fmt.Fprintf(&b, ":n%d", i)
		} else {
			b.WriteString(pick(d, []string{"a", "b", "c", "a b", "é", ".a", "a.b", "%"}))
		}
	}
	switch d(4) {
	case 0:
		b.WriteString("/*")
	case 1:
		b.WriteByte('/')
	}
	if b.Len() == 0 {
		return "/"
	}
	return b.String()
}

// generatePath makes a path, mostly one that a pattern covers or nearly covers.
func generatePath(d dice, patterns []string) string {
	path := strings.TrimSuffix(pick(d, patterns), "*")
	var b strings.Builder
	for i, segment := range strings.Split(path, "/") {
		if i > 0 {
			b.WriteByte('/')
		}
		if isName(segment) || d(16) == 0 {
			segment = pick(d, []string{"a", "b", "c", "x", "x", "x", "é", ":n0", "*", "a\nb", "a\x00", "\xff", "", ".", ".."})
		}
		b.WriteString(segment)
	}
	b.WriteString(pick(d, []string{"", "", "", "", "", "", "", "", "/", "/a", "/b/c", "x", "//", "/.", "/../a", "/a/b/c/d/e"}))
	path = b.String()
	switch d(32) {
	case 0:
		path = strings.TrimPrefix(path, "/")
	case 1:
		path = strings.ToUpper(path)
	case 2:
		path += strings.Repeat("/a", 40)
	case 3:
		path = ""
	}
	return path
}
