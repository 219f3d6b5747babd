package gateway

import (
	"context"
	"encoding/json"
	"errors"
	"maps"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"portcullis/identity"
	"portcullis/identity/boltstore"
	"portcullis/policy"
)

func hitStore(t *testing.T) *boltstore.Store {
	t.Helper()
	s, err := boltstore.Open(filepath.Join(t.TempDir(), "hits.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

// failingStore fails as long as it is told to.
type failingStore struct {
	identity.RuleHitStore
	mu   sync.Mutex
	down bool
}

func (s *failingStore) PutRuleHits(ctx context.Context, h identity.RuleHits) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.down {
		return errors.New("the store is away")
	}
	return s.RuleHitStore.PutRuleHits(ctx, h)
}

func TestHitsOfReplicasAndDaysAddUp(t *testing.T) {
	store := hitStore(t)
	p := mustParsePolicy(t, "p, anonymous, /a, GET, allow\np, anonymous, /b, GET, allow\n")
	a, b := policy.RuleID("p, anonymous, /a, GET, allow"), policy.RuleID("p, anonymous, /b, GET, allow")
	monday := time.Date(2030, 1, 7, 23, 59, 30, 0, time.UTC)
	type replica struct {
		*hitLedger
		*policy.Hits
	}
	newReplica := func(s HitStore) replica { return replica{newHitLedger(s), policy.NewHits(p, nil)} }
	flaky := &failingStore{RuleHitStore: store}
	one, two := newReplica(store), newReplica(flaky)
	use := func(r replica, path string, n int) {
		for range n {
			r.Count(p.Decide(policy.Caller{}, "GET", path))
		}
	}
	flush := func(r replica, now time.Time) error {
		r.collect(r.Hits)
		return r.flush(t.Context(), now)
	}
	sum := func(from string) map[string]int64 {
		s, err := store.SumRuleHits(t.Context(), from, monday)
		if err != nil {
			t.Fatal(err)
		}
		return s.Counts
	}
	use(one, "/a", 3)
	use(two, "/a", 4)
	use(two, "/b", 5)
	for range 2 { // repeating it counts nothing twice
		if err := errors.Join(flush(one, monday), flush(two, monday)); err != nil {
			t.Fatal(err)
		}
	}
	if got, want := sum("2030-01-07"), (map[string]int64{a: 7, b: 5}); !maps.Equal(got, want) {
		t.Errorf("monday is %v, want %v", got, want)
	}
	// The store goes away for a while: nothing is lost.
	flaky.down = true
	use(two, "/b", 10)
	if err := flush(two, monday.Add(10*time.Second)); err == nil {
		t.Error("no error while the store is away")
	}
	flaky.down = false
	if err := errors.Join(flush(two, monday.Add(20*time.Second)), flush(one, monday.Add(20*time.Second))); err != nil {
		t.Fatal(err)
	}
	if got, want := sum("2030-01-07"), (map[string]int64{a: 7, b: 15}); !maps.Equal(got, want) {
		t.Errorf("monday is %v, want %v", got, want)
	}
	// Midnight.
	if err := flush(one, monday.Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	use(one, "/a", 100)
	if err := flush(one, monday.Add(2*time.Minute)); err != nil {
		t.Fatal(err)
	}
	if got, want := sum("2030-01-08"), (map[string]int64{a: 100}); !maps.Equal(got, want) {
		t.Errorf("tuesday is %v, want %v", got, want)
	}
	if got, want := sum("2030-01-07"), (map[string]int64{a: 107, b: 15}); !maps.Equal(got, want) {
		t.Errorf("both days are %v, want %v", got, want)
	}
}

// A day's rules that do not fit into one record are spread over several, and add
// up to the same.
func TestManyRulesAreStoredInParts(t *testing.T) {
	store := hitStore(t)
	l := newHitLedger(store)
	now := time.Now()
	fill := func(n int) {
		for i := range n {
			l.counts[policy.RuleID(string(rune(i)))] = 1
		}
	}
	for _, n := range []int{maxHitRules, maxHitRules + 5000} {
		fill(n)
		want := len(l.counts)
		if err := l.flush(t.Context(), now); err != nil {
			t.Fatal(err)
		}
		s, err := store.SumRuleHits(t.Context(), FirstDay(now, 1), now)
		if err != nil || len(s.Counts) != want || s.Counts[policy.RuleID("a")] != 1 {
			t.Errorf("%d rules, want %d; the first has %d; %v", len(s.Counts), want, s.Counts[policy.RuleID("a")], err)
		}
	}
}

func TestOperatorsSeeHits(t *testing.T) {
	e := startGateway(t)
	e.gateway.ledger = newHitLedger(hitStore(t))
	server := httptest.NewServer(e.gateway.AdminHandler(prometheus.NewRegistry()))
	defer server.Close()
	ask := func(query string, want int) HitsReport {
		t.Helper()
		res, err := http.Get(server.URL + "/policy/hits" + query)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = res.Body.Close() }()
		var r HitsReport
		if err := json.NewDecoder(res.Body).Decode(&r); err != nil || res.StatusCode != want {
			t.Errorf("%s: %s, want %d; %v", query, res.Status, want, err)
		}
		return r
	}
	const public, login = "p, anonymous, /public/*, *, allow", "p, anonymous, /auth/login, POST, allow"
	e.send(get("/public/x"))
	e.send(get("/public/y"))
	e.send(get("/nowhere"))
	// A reload that leaves the rule alone goes on counting, and forgets what is gone.
	next := e.config
	next.Policy = mustParsePolicy(t, public+"\n"+login+"\n")
	state, err := NewState(next)
	if err != nil {
		t.Fatal(err)
	}
	e.gateway.Swap(state)
	e.send(get("/public/z"))
	r := ask("?days=1", 200)
	if len(r.Rules) != 2 || r.Rules[0] != (policy.RuleHits{Line: 1, Rule: public, Hits: 3}) || r.Rules[1].Hits != 0 || r.PolicyRevision != next.Policy.Revision() {
		t.Errorf("%+v", r)
	}
	if len(r.Days) != 1 || r.Days[policy.RuleID(public)] != 3 || r.Since != FirstDay(time.Now(), 1) {
		t.Errorf("%+v", r)
	}
	for _, query := range []string{"?days=0", "?days=x", "?days=99999999999999999999"} {
		ask(query, 400)
	}
	if r := ask("", 200); r.Days != nil {
		t.Errorf("%+v", r)
	}
}
