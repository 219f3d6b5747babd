package gateway

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/valyala/fasthttp"

	"portcullis/identity"
	"portcullis/policy"
)

func testLimit(t testing.TB, r RateLimit) *limit {
	t.Helper()
	l, err := newLimit(r)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func TestABucketEmptiesAndFills(t *testing.T) {
	l := testLimit(t, RateLimit{Name: "l", Key: "user", Requests: 60, Per: time.Minute, Burst: 3})
	start := l.buckets.start.Add(time.Hour)
	for i, step := range []struct {
		at   time.Duration
		ok   bool
		left int64
		wait time.Duration // until the next is allowed
	}{
		{0, true, 2, 0}, {0, true, 1, 0}, {0, true, 0, time.Second}, {0, false, 0, time.Second},
		{500 * time.Millisecond, false, 0, 500 * time.Millisecond}, // refused ones cost nothing more
		{time.Second, true, 0, time.Second},
		{3 * time.Second, true, 1, 0},
		{time.Hour, true, 2, 0}, // it holds no more than it holds
		{time.Hour - time.Minute, false, 0, 0},
	} {
		debt, ok := l.buckets.take(7, start.Add(step.at), l.every, l.whole)
		if ok != step.ok {
			t.Errorf("step %d: %v", i, ok)
		}
		if i == 8 {
			continue // a clock that goes back refuses, and gives nothing
		}
		if left := int64((l.whole - debt) / l.every); left != step.left {
			t.Errorf("step %d: %d left, want %d", i, left, step.left)
		}
		if wait := max(0, l.wait(debt)); wait != step.wait {
			t.Errorf("step %d: wait %s, want %s", i, wait, step.wait)
		}
	}
}

// However many come at once, from however many sides, exactly the burst is let in.
func TestABucketIsCountedOnce(t *testing.T) {
	l := testLimit(t, RateLimit{Name: "l", Key: "user", Requests: 100, Per: time.Hour})
	var allowed atomic.Int32
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for range 100 {
				if _, ok := l.buckets.take(1, l.buckets.start, l.every, l.whole); ok {
					allowed.Add(1)
				}
			}
		})
	}
	all.Wait()
	if n := allowed.Load(); n != 100 {
		t.Errorf("%d of 800 were allowed, want 100", n)
	}
}

// A million strangers take no memory, and no empty bucket is forgotten for them:
// a flood of addresses is no way to be forgiven.
func TestAFloodOfCallersForgivesNobody(t *testing.T) {
	l := testLimit(t, RateLimit{Name: "l", Key: "address", Requests: 10, Per: time.Hour})
	const attackers = 64
	for caller := range uint64(attackers) {
		for range 10 {
			l.buckets.take(caller+1, l.buckets.start, l.every, l.whole)
		}
	}
	random := rand.New(rand.NewPCG(1, 2))
	for range 1 << 20 {
		if _, ok := l.buckets.take(random.Uint64(), l.buckets.start, l.every, l.whole); !ok {
			t.Fatal("a newcomer is refused")
		}
	}
	for caller := range uint64(attackers) {
		if _, ok := l.buckets.take(caller+1, l.buckets.start, l.every, l.whole); ok {
			t.Errorf("attacker %d is forgiven", caller)
		}
	}
	if n := len(l.buckets.sets); n != manyCallers {
		t.Errorf("%d sets", n)
	}
}

func TestWhoCountsAsOneCaller(t *testing.T) {
	b := newBuckets(1)
	id := func(addr string) uint64 { return b.address(netip.MustParseAddr(addr)) }
	for _, same := range [][2]string{{"192.0.2.1", "192.0.2.1"}, {"192.0.2.1", "::ffff:192.0.2.1"}, {"2001:db8::1", "2001:db8::2"}, {"2001:db8:0:1::", "2001:db8:0:1:ffff:ffff:ffff:ffff"},
		{"fe80::1", "fe80::1%eth0"}} {
		if id(same[0]) != id(same[1]) {
			t.Errorf("%v are two callers", same)
		}
	}
	for _, other := range [][2]string{{"192.0.2.1", "192.0.2.2"}, {"2001:db8::1", "2001:db8:0:1::1"}, {"::", "0.0.0.0"}, {"192.0.2.1", "::192.0.2.1"}} {
		if id(other[0]) == id(other[1]) {
			t.Errorf("%v are one caller", other)
		}
	}
	raw := networkOf(netip.MustParseAddr("192.0.2.1")).As16()
	names := map[uint64]string{id("192.0.2.1"): "the address"}
	for k := range kindCount {
		for _, name := range []string{"192.0.2.1", string(raw[:]), ""} {
			caller := b.name(k, name)
			if k == kindAddress {
				continue
			}
			if before, taken := names[caller]; taken {
				t.Errorf("%q of kind %d is %s", name, k, before)
			}
			names[caller] = fmt.Sprintf("%q of kind %d", name, k)
		}
	}
}

func TestCountingAllocatesNothing(t *testing.T) {
	l := testLimit(t, RateLimit{Name: "l", Key: "user", Requests: 1000000, Per: time.Second})
	addr, now := netip.MustParseAddr("2001:db8::1"), time.Now()
	if n := testing.AllocsPerRun(1000, func() {
		l.buckets.take(l.buckets.address(addr), now, l.every, l.whole)
		l.buckets.take(l.buckets.name(kindUser, "0190b5a0-0000-7000-8000-000000000000"), now, l.every, l.whole)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkRateLimit(b *testing.B) {
	for _, key := range []string{"address", "user"} {
		b.Run(key, func(b *testing.B) {
			l := testLimit(b, RateLimit{Name: "l", Key: key, Requests: 1000000, Per: time.Second})
			addr, now := netip.MustParseAddr("192.0.2.1"), time.Now()
			b.ReportAllocs()
			for b.Loop() {
				caller := l.buckets.address(addr)
				if key == "user" {
					caller = l.buckets.name(kindUser, "0190b5a0-0000-7000-8000-000000000000")
				}
				l.buckets.take(caller, now, l.every, l.whole)
			}
		})
	}
}

func TestRateLimitsThatAreRefused(t *testing.T) {
	for _, r := range []RateLimit{
		{"l", "session", 1, time.Second, 0}, {"l", "user", 0, time.Second, 0}, {"l", "user", 1, 0, 0}, {"l", "user", -1, time.Second, 0},
		{"l", "user", 1, time.Second, -1}, {"l", "user", 1 << 40, time.Second, 0}, {"l\r\n", "user", 1, time.Second, 0}, {`"`, "user", 1, time.Second, 0},
		{"l", "user", 1, 24 * time.Hour, 1 << 40},
	} {
		if _, err := newLimit(r); err == nil {
			t.Errorf("%+v is accepted", r)
		}
	}
}

// startLimited starts a gateway whose routes and endpoints have these limits: an
// hour is longer than any test.
func startLimited(t *testing.T, limits []RateLimit, change ...func(*StateConfig)) *testGateway {
	return startGateway(t, append([]func(*StateConfig){func(c *StateConfig) {
		for i := range limits {
			limits[i].Per = time.Hour
			for r := range c.Routes {
				c.Routes[r].RateLimits = append(c.Routes[r].RateLimits, limits[i].Name)
			}
			c.OwnRateLimits = append(c.OwnRateLimits, limits[i].Name)
		}
		c.RateLimits = limits
	}}, change...)...)
}

// statuses sends a request several times.
func (e *testGateway) statuses(n int, raw string) string {
	var all []string
	for range n {
		res, _ := e.send(raw)
		all = append(all, strconv.Itoa(res.StatusCode))
	}
	return strings.Join(all, " ")
}

func TestAnAddressIsLimitedBeforeAnybodyIsKnown(t *testing.T) {
	e := startLimited(t, []RateLimit{{Name: "calm", Key: "address", Requests: 3}})
	if got := e.statuses(5, get("/tasks", "Authorization: Bearer guessed")); got != "401 401 401 429 429" {
		t.Fatal(got)
	}
	res, body := e.send(get("/tasks", "Authorization: Bearer "+e.token("uma", "user"), "X-Forwarded-For: 203.0.113.9", "Forwarded: for=203.0.113.9", "X-Real-IP: 203.0.113.9"))
	if res.StatusCode != 429 || !strings.Contains(body, `"code":"too_many_requests"`) {
		t.Fatalf("%d %s", res.StatusCode, body)
	}
	want := map[string]string{"Retry-After": "1200", "Ratelimit-Policy": `"calm";q=3;w=3600`, "Ratelimit": `"calm";r=0;t=3600`}
	for name, value := range want {
		if got := res.Header.Get(name); got != value {
			t.Errorf("%s: %q, want %q", name, got, value)
		}
	}
	if !strings.Contains(e.log.String(), "rate limit calm") {
		t.Error("the log does not say which limit it was")
	}
	// The limit is one, wherever it is named.
	if got := e.statuses(1, "POST /auth/login HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n"); got != "429" {
		t.Errorf("at the login: %s", got)
	}
	if seen := e.requests(); len(seen) != 0 {
		t.Errorf("the upstream saw %q", seen)
	}
}

// There is no path on which tokens can be tried without end.
func TestWhatLeadsNowhereIsLimited(t *testing.T) {
	e := startLimited(t, []RateLimit{{Name: "calm", Key: "address", Requests: 3}})
	if got := e.statuses(2, get("/nowhere", "Authorization: Bearer guessed")) + " " + e.statuses(2, get("/none")); got != "401 401 401 429" {
		t.Error(got)
	}
}

func TestBehindATrustedProxyEachClientCounts(t *testing.T) {
	e := startLimited(t, []RateLimit{{Name: "calm", Key: "address", Requests: 1}}, func(c *StateConfig) { c.TrustedProxies = prefixes(t, "127.0.0.0/8") })
	for _, tc := range []struct{ client, want string }{
		{"203.0.113.1", "200 429"}, {"203.0.113.2", "200 429"}, {"6.6.6.6, 203.0.113.2", "429 429"}, {"::ffff:203.0.113.2", "429 429"},
		{"2001:db8::1", "200 429"}, {"2001:db8::2", "429 429"}, {"2001:db8:1::2", "200 429"},
	} {
		if got := e.statuses(2, get("/public/x", "X-Forwarded-For: "+tc.client)); got != tc.want {
			t.Errorf("%s: %s, want %s", tc.client, got, tc.want)
		}
	}
}

func TestEachUserIsLimitedAndAStrangerIsAnAddress(t *testing.T) {
	e := startLimited(t, []RateLimit{{Name: "each", Key: "user", Requests: 3}})
	uma, ulf := "Authorization: Bearer "+e.token("uma", "user"), "Authorization: Bearer "+e.token("ulf", "user")
	if got := e.statuses(2, get("/admin/x", uma)); got != "403 403" {
		t.Fatal(got)
	}
	res, _ := e.send(get("/tasks", uma))
	if got := res.Header.Get("RateLimit"); res.StatusCode != 200 || got != `"each";r=0;t=3600` || res.Header.Get("RateLimit-Policy") != `"each";q=3;w=3600` || res.Header.Get("X-Up") != "yes" {
		t.Errorf("an upstream's answer: %d %v", res.StatusCode, res.Header)
	}
	if got := e.statuses(1, get("/tasks", uma)); got != "429" {
		t.Errorf("what the policy refused did not count: %s", got)
	}
	if got := e.statuses(4, get("/tasks", ulf)); got != "200 200 200 429" {
		t.Errorf("another user: %s", got)
	}
	// A stranger who is refused does not learn of the route by its limits.
	res, _ = e.send(get("/tasks"))
	if res.StatusCode != 401 || res.Header.Get("RateLimit") != "" || res.Header.Get("RateLimit-Policy") != "" {
		t.Errorf("a stranger: %d %v", res.StatusCode, res.Header)
	}
	if got := e.statuses(3, get("/public/x")); got != "200 200 429" {
		t.Errorf("strangers: %s", got)
	}
	res, _ = e.send(get("/auth/me", ulf))
	if res.StatusCode != 429 {
		t.Errorf("an endpoint: %d", res.StatusCode)
	}
}

// Nobody who may not use a route can use it up for those who may.
func TestARouteIsLimitedForThoseWhoMay(t *testing.T) {
	e := startLimited(t, []RateLimit{{Name: "all", Key: "route", Requests: 2}})
	uma, ada := "Authorization: Bearer "+e.token("uma", "user"), "Authorization: Bearer "+e.token("ada", "admin")
	if got := e.statuses(4, get("/tasks")) + " " + e.statuses(3, get("/tasks/secret", uma)); got != "401 401 401 401 403 403 403" {
		t.Fatal(got)
	}
	if got := e.statuses(3, get("/tasks", uma)); got != "200 200 429" {
		t.Errorf("%s", got)
	}
	if got := e.statuses(3, get("/admin", ada)); got != "200 200 429" {
		t.Errorf("another route: %s", got)
	}
}

func TestTenantsAreLimitedTogether(t *testing.T) {
	e := startLimited(t, []RateLimit{{Name: "tenant", Key: "tenant", Requests: 2}})
	uma, ulf := "Authorization: Bearer "+e.token("uma", "user"), "Authorization: Bearer "+e.token("ulf", "user")
	if got := e.statuses(1, get("/tasks", uma)) + e.statuses(1, get("/tasks", ulf)) + e.statuses(1, get("/tasks", uma)); got != "200200429" {
		t.Errorf("%s", got)
	}
	if got := e.statuses(1, get("/public/x")); got != "200" {
		t.Errorf("a stranger is of no tenant: %s", got)
	}
}

func TestSeveralLimitsAreAllTold(t *testing.T) {
	e := startLimited(t, []RateLimit{{Name: "a", Key: "address", Requests: 5}, {Name: "u", Key: "user", Requests: 4, Burst: 2}})
	res, _ := e.send(get("/public/x"))
	if diff := cmp.Diff([]string{`"a";r=4;t=720`, `"u";r=1;t=900`}, res.Header["Ratelimit"]); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]string{`"a";q=5;w=3600`, `"u";q=4;w=3600`}, res.Header["Ratelimit-Policy"]); diff != "" {
		t.Error(diff)
	}
}

// A reload forgives nobody, unless it changed the limit itself.
func TestBucketsSurviveAReload(t *testing.T) {
	e := startLimited(t, []RateLimit{{Name: "calm", Key: "address", Requests: 2}})
	swap := func(change func(*StateConfig)) {
		t.Helper()
		cfg := e.config
		change(&cfg)
		st, err := NewState(cfg)
		if err != nil {
			t.Fatal(err)
		}
		e.gateway.Swap(st)
	}
	if got := e.statuses(3, get("/public/x")); got != "200 200 429" {
		t.Fatal(got)
	}
	open, err := policy.Parse("open.csv", []byte("p, anonymous, /*, *, allow"))
	if err != nil {
		t.Fatal(err)
	}
	swap(func(c *StateConfig) { c.Policy = open })
	swap(func(c *StateConfig) { c.Policy = open })
	if got := e.statuses(1, get("/tasks")); got != "429" {
		t.Errorf("after another policy: %s", got)
	}
	swap(func(c *StateConfig) {
		c.RateLimits = []RateLimit{{Name: "calm", Key: "address", Requests: 3, Per: time.Hour}}
	})
	if got := e.statuses(4, get("/public/x")); got != "200 200 200 429" {
		t.Errorf("after another limit: %s", got)
	}
}

func TestRoutesNameLimitsThatThereAre(t *testing.T) {
	e := startGateway(t)
	for _, names := range [][]string{{"none"}, {"calm", "calm"}} {
		cfg := e.config
		cfg.RateLimits = []RateLimit{{Name: "calm", Key: "user", Requests: 1, Per: time.Second}}
		cfg.OwnRateLimits = names
		if _, err := NewState(cfg); err == nil {
			t.Errorf("%v are accepted", names)
		}
	}
}

// What a request pays for the terms of its route: nothing where there are none.
func BenchmarkTerms(b *testing.B) {
	known := map[string]*limit{}
	for _, r := range []RateLimit{{"per-address", "address", 1000000, time.Second, 0}, {"per-user", "user", 1000000, time.Second, 0}} {
		known[r.Name] = testLimit(b, r)
	}
	two, err := newLimits(known, []string{"per-address", "per-user"}, "/tasks")
	if err != nil {
		b.Fatal(err)
	}
	pages, err := newCORS(testCORS())
	if err != nil {
		b.Fatal(err)
	}
	var g Gateway
	for name, t := range map[string]terms{"none": {}, "two limits": {limits: two}, "cors": {cors: pages}} {
		b.Run(name, func(b *testing.B) {
			r := &request{ctx: &fasthttp.RequestCtx{}, method: "GET", client: netip.MustParseAddr("192.0.2.1"), event: &event{start: time.Now()},
				principal: &identity.Principal{UserID: "0190b5a0-0000-7000-8000-000000000000"}}
			b.ReportAllocs()
			for b.Loop() {
				r.fields, r.limited = nil, nil
				if r.crossOrigin(t) || r.limitAddress(t.limits) != nil || g.limitCaller(r, t.limits, true) != nil {
					b.Fatal("refused")
				}
			}
		})
	}
}
