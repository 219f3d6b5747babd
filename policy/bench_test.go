package policy

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"strings"
	"testing"
)

// benchmarkSource writes a policy of n rules as a platform of many services
// would have it: four rules for each resource, roles that inherit in chains of
// four, and denials.
func benchmarkSource(n int) string {
	roles := benchmarkRoles(n)
	var b strings.Builder
	for i := range roles {
		if i%4 != 0 {
			fmt.Fprintf(&b, "g, role:team%d, role:team%d\n", i, i-1)
		}
	}
	for i := range n {
		resource := i / 4
		role := (resource*7 + i%4) % roles
		path := fmt.Sprintf("/service%d/resource%d", resource/25, resource%25)
		switch i % 4 {
		case 0:
			fmt.Fprintf(&b, "p, role:team%d, %s, GET|POST, allow\n", role, path)
		case 1:
			fmt.Fprintf(&b, "p, role:team%d, %s/:id, GET, allow\n", role, path)
		case 2:
			fmt.Fprintf(&b, "p, role:team%d, %s/:id, PATCH|DELETE, allow\n", role, path)
		case 3:
			fmt.Fprintf(&b, "p, role:team%d, %s/:id/internal/*, *, deny\n", role, path)
		}
	}
	return b.String()
}

func benchmarkRoles(n int) int { return min(max(n/20, 4), 2000) }

type benchmarkRequest struct {
	caller       Caller
	method, path string
}

// benchmarkRequests returns so many requests for resources all over the policy.
// Each caller has two roles.
func benchmarkRequests(n, count int) []benchmarkRequest {
	r := rand.New(rand.NewPCG(1, 1))
	roles := benchmarkRoles(n)
	requests := make([]benchmarkRequest, count)
	for i := range requests {
		rule := r.IntN(n)
		resource := rule / 4
		path := fmt.Sprintf("/service%d/resource%d", resource/25, resource%25)
		method := "GET"
		switch rule % 4 {
		case 1:
			path += "/4711"
		case 2:
			path, method = path+"/4711", "DELETE"
		case 3:
			path += "/4711/internal/notes"
		}
		requests[i] = benchmarkRequest{
			Caller{Authenticated: true, Roles: []string{
				fmt.Sprintf("team%d", (resource*7+rule%4)%roles),
				fmt.Sprintf("team%d", r.IntN(roles)),
			}}, method, path,
		}
	}
	return requests
}

func rulesName(n int) string { return fmt.Sprintf("rules=%d", n) }

// BenchmarkDecide is a decision by the index, and beside it the same one by
// Casbin's enforcer, as far as that can be waited for. A thousand different
// requests come in turn: what is asked for at one time is a small part of a large
// policy.
func BenchmarkDecide(b *testing.B) {
	for _, n := range []int{10, 100, 1_000, 10_000, 100_000, 1_000_000} {
		b.Run(rulesName(n)+"/by=index", func(b *testing.B) { benchmarkIndex(b, n, 1_000) })
		if n <= 10_000 {
			b.Run(rulesName(n)+"/by=casbin", func(b *testing.B) { benchmarkCasbin(b, n) })
		}
	}
}

// BenchmarkDecideScattered is the worst case for the processor's caches: hardly
// a request comes twice.
func BenchmarkDecideScattered(b *testing.B) {
	for _, n := range []int{10, 100_000, 1_000_000} {
		b.Run(rulesName(n), func(b *testing.B) { benchmarkIndex(b, n, 100_000) })
	}
}

func benchmarkIndex(b *testing.B, rules, requestCount int) {
	p, err := Parse("policy.csv", []byte(benchmarkSource(rules)))
	if err != nil {
		b.Fatal(err)
	}
	requests := benchmarkRequests(rules, requestCount)
	runtime.GC()
	b.ReportAllocs()
	allowed, i := 0, 0
	for b.Loop() {
		q := &requests[i%len(requests)]
		if p.Decide(q.caller, q.method, q.path).Allowed {
			allowed++
		}
		i++
	}
	b.ReportMetric(100*float64(allowed)/float64(i), "%allowed")
}

func benchmarkCasbin(b *testing.B, rules int) {
	d, problems := parse("policy.csv", []byte(benchmarkSource(rules)))
	if problems != nil {
		b.Fatal(problems)
	}
	requests := benchmarkRequests(rules, 64)
	var callers []Caller
	for _, q := range requests {
		callers = append(callers, q.caller)
	}
	e, err := newEnforcer(d, callers)
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		q := &requests[i%len(requests)]
		if _, err := e.decide(i%len(requests), q.method, q.path); err != nil {
			b.Fatal(err)
		}
		i++
	}
}

// BenchmarkLoad reads, checks and compiles a policy. It reports the memory that
// the policy takes once loaded, and how much was allocated on the way.
func BenchmarkLoad(b *testing.B) {
	for _, n := range []int{10, 100, 1_000, 10_000, 100_000, 1_000_000} {
		b.Run(rulesName(n), func(b *testing.B) {
			source := []byte(benchmarkSource(n))
			var p *Policy
			before := liveBytes()
			b.ReportAllocs()
			for b.Loop() {
				var err error
				if p, err = Parse("policy.csv", source); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(liveBytes()-before)/1e6, "MB-loaded")
			runtime.KeepAlive(p)
			runtime.KeepAlive(source)
		})
	}
}

func liveBytes() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}
