package gateway

import (
	"context"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/google/uuid"

	"portcullis/identity"
	"portcullis/policy"
)

// HitStore is where the replicas put together how often rules have decided; an
// identity.Store is one.
type HitStore interface {
	identity.RuleHitStore
}

// hitLedger adds up, day by day, what the rules of one policy after the other
// have decided, and stores it.
type hitLedger struct {
	store   HitStore
	replica string // of this process, so that no two write the same

	mu     sync.Mutex
	day    string
	counts map[string]int64  // of the day, by RuleID
	seen   map[string]uint64 // how far each rule was counted already, by RuleID
	failed bool
}

const (
	flushEvery  = time.Minute
	hitsKept    = 400 * 24 * time.Hour // a year and a bit
	maxHitRules = 50_000               // in one record, so that none grows too large for a store
)

func newHitLedger(store HitStore) *hitLedger {
	return &hitLedger{store: store, replica: uuid.NewString(), counts: map[string]int64{}, seen: map[string]uint64{}}
}

// collect adds what was counted since it was collected last. The counts of rules
// that are no more are forgotten: should one come back, it begins at zero.
func (l *hitLedger) collect(h *policy.Hits) {
	l.mu.Lock()
	defer l.mu.Unlock()
	seen := make(map[string]uint64, len(l.seen))
	for rule, n := range h.Counts() {
		id := policy.RuleID(rule)
		if before := l.seen[id]; n > before {
			l.counts[id] += int64(n - before)
		}
		seen[id] = n
	}
	l.seen = seen
}

// flush stores the day's counts, all of them each time, so that one that failed
// is made good by the next. What came between the last flush of a day and midnight
// is the old day's, as is what came after it before the first of the new one.
func (l *hitLedger) flush(ctx context.Context, now time.Time) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	today := now.UTC().Format(time.DateOnly)
	if l.day == "" {
		l.day = today
	}
	if err := l.put(ctx); err != nil {
		return err
	}
	if l.day != today {
		l.day, l.counts = today, map[string]int64{}
		return l.put(ctx) // that nothing was used is known of a day, too
	}
	return nil
}

func (l *hitLedger) put(ctx context.Context) error {
	day, err := time.Parse(time.DateOnly, l.day)
	if err != nil {
		return err
	}
	h := identity.RuleHits{Day: l.day, Replica: l.replica, ExpiresAt: day.Add(hitsKept)}
	if len(l.counts) <= maxHitRules {
		h.Counts = l.counts
		return l.store.PutRuleHits(ctx, h)
	}
	parts := map[string]map[string]int64{"": {}}
	for id, n := range l.counts {
		part := id[:2]
		if parts[part] == nil {
			parts[part] = map[string]int64{}
		}
		parts[part][id] = n
	}
	for part, counts := range parts { // the first, whole one becomes empty
		h.Replica, h.Counts = l.replica+part, counts
		if err := l.store.PutRuleHits(ctx, h); err != nil {
			return err
		}
	}
	return nil
}

// RunHits stores what the rules have decided every minute until ctx ends, and then
// once more.
func (g *Gateway) RunHits(ctx context.Context) {
	if g.ledger == nil {
		return
	}
	tick := time.NewTicker(flushEvery)
	defer tick.Stop()
	g.storeHits(ctx)
	for {
		select {
		case <-tick.C:
			g.storeHits(ctx)
		case <-ctx.Done():
			g.storeHits(context.WithoutCancel(ctx))
			return
		}
	}
}

// storeHits says once that it does not work, and once that it does again.
func (g *Gateway) storeHits(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	g.ledger.collect(g.state.Load().hits)
	err := g.ledger.flush(ctx, time.Now())
	g.ledger.mu.Lock()
	changed := g.ledger.failed != (err != nil)
	g.ledger.failed = err != nil
	g.ledger.mu.Unlock()
	switch {
	case changed && err != nil:
		g.log.Error("what rules decide cannot be stored", "error", err)
	case changed:
		g.log.Info("what rules decide is stored again")
	}
}

// HitsReport is the answer to GET /policy/hits.
type HitsReport struct {
	PolicyRevision string            `json:"policy_revision"`
	Rules          []policy.RuleHits `json:"rules"` // since this gateway has started
	// With ?days=N: what all replicas have stored for the last N days, today included.
	Since string           `json:"since,omitempty"` // the first day of which something is known
	Days  map[string]int64 `json:"days,omitempty"`  // by policy.RuleID; a rule without hits is absent
}

func (g *Gateway) getHits(w http.ResponseWriter, r *http.Request) {
	st := g.state.Load()
	out := HitsReport{PolicyRevision: st.policy.Revision(), Rules: st.hits.All()}
	if text := r.URL.Query().Get("days"); text != "" {
		days, err := strconv.Atoi(text)
		switch {
		case err != nil || days < 1 || days > 10_000:
			refuseOperator(w, http.StatusBadRequest, "days must be a number from 1 to 10000")
			return
		case g.ledger == nil:
			refuseOperator(w, http.StatusNotFound, "nothing is stored")
			return
		}
		g.storeHits(r.Context())
		now := time.Now()
		ctx, cancel := context.WithTimeout(r.Context(), callTimeout)
		defer cancel()
		sum, err := g.ledger.store.SumRuleHits(ctx, FirstDay(now, days), now)
		if err != nil {
			g.log.Error("what rules decided cannot be read", "error", err)
			refuseOperator(w, http.StatusServiceUnavailable, "the store is not available")
			return
		}
		out.Since, out.Days = sum.First, sum.Counts
	}
	answerOperator(w, http.StatusOK, out)
}

// FirstDay is the first of so many days, today included, as stores name them.
func FirstDay(now time.Time, days int) string {
	return now.UTC().AddDate(0, 0, 1-days).Format(time.DateOnly)
}
