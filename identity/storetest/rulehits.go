package storetest

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"portcullis/identity"
)

func testRuleHits(t *testing.T, s identity.Store) {
	ctx := t.Context()
	now := theTime()
	put := func(t *testing.T, day, replica string, counts map[string]int64) {
		t.Helper()
		succeed(t, s.PutRuleHits(ctx, identity.RuleHits{Day: day, Replica: replica, Counts: counts, ExpiresAt: now.Add(time.Hour)}))
	}
	sum := func(t *testing.T, from string) identity.RuleHitSum {
		t.Helper()
		got, err := s.SumRuleHits(ctx, from, now)
		succeed(t, err)
		return got
	}

	t.Run("where nothing was stored nothing is known", func(t *testing.T) {
		equal(t, sum(t, "0001-01-01"), identity.RuleHitSum{})
	})

	t.Run("days and replicas add up, from a day on", func(t *testing.T) {
		put(t, "2026-11-25", "a", map[string]int64{"x": 1, "y": 10})
		put(t, "2026-11-26", "a", map[string]int64{"x": 2})
		put(t, "2026-11-26", "b", map[string]int64{"x": 4, "z": 100})
		put(t, "2026-12-01", "b", map[string]int64{"x": 8})
		equal(t, sum(t, "0001-01-01"), identity.RuleHitSum{First: "2026-11-25", Counts: map[string]int64{"x": 15, "y": 10, "z": 100}})
		equal(t, sum(t, "2026-11-26"), identity.RuleHitSum{First: "2026-11-26", Counts: map[string]int64{"x": 14, "z": 100}})
		equal(t, sum(t, "2026-11-30"), identity.RuleHitSum{First: "2026-12-01", Counts: map[string]int64{"x": 8}})
		equal(t, sum(t, "2026-12-02"), identity.RuleHitSum{})
	})

	t.Run("what a replica stores for a day takes the place of what it had", func(t *testing.T) {
		for _, n := range []int64{3, 3, 7} {
			put(t, "2030-01-01", "a", map[string]int64{"x": n, "only" + fmt.Sprint(n): 1})
		}
		equal(t, sum(t, "2030-01-01"), identity.RuleHitSum{First: "2030-01-01", Counts: map[string]int64{"x": 7, "only7": 1}})
		put(t, "2030-01-01", "a", nil)
		equal(t, sum(t, "2030-01-01"), identity.RuleHitSum{First: "2030-01-01"})
	})

	t.Run("names are taken literally", func(t *testing.T) {
		want := identity.RuleHitSum{First: "2040-01-01", Counts: map[string]int64{}}
		for i, name := range slices.Concat(hostile, []string{""}) {
			counts := map[string]int64{}
			for j, rule := range slices.Concat(hostile, []string{""}) {
				counts[rule] = int64(i + j)
				want.Counts[rule] += int64(i + j)
			}
			put(t, "2040-01-01", name+"r", counts)
		}
		equal(t, sum(t, "2040-01-01"), want)
	})

	t.Run("what has expired by then is as absent", func(t *testing.T) {
		succeed(t, s.PutRuleHits(ctx, identity.RuleHits{Day: "2050-01-01", Replica: "a", Counts: map[string]int64{"x": 1}, ExpiresAt: now.Add(time.Minute)}))
		put(t, "2050-01-02", "a", map[string]int64{"x": 2})
		equal(t, sum(t, "2050-01-01"), identity.RuleHitSum{First: "2050-01-01", Counts: map[string]int64{"x": 3}})
		got, err := s.SumRuleHits(ctx, "2050-01-01", now.Add(time.Minute))
		succeed(t, err)
		equal(t, got, identity.RuleHitSum{First: "2050-01-02", Counts: map[string]int64{"x": 2}})
	})

	t.Run("replicas that store at once lose nothing of each other", func(t *testing.T) {
		for _, err := range together(40, func(i int) error {
			return s.PutRuleHits(ctx, identity.RuleHits{Day: "2060-01-01", Replica: fmt.Sprint(i % 20), Counts: map[string]int64{"x": 1, fmt.Sprint(i % 20): 5}, ExpiresAt: now.Add(time.Hour)})
		}) {
			succeed(t, err)
		}
		got := sum(t, "2060-01-01")
		if got.Counts["x"] != 20 || got.Counts["7"] != 5 || len(got.Counts) != 21 {
			t.Errorf("20 replicas came to %v", got.Counts)
		}
	})

	t.Run("what is no day, and what could not be found again, is refused", func(t *testing.T) {
		for _, h := range []identity.RuleHits{
			{Day: "", Replica: "a"}, {Day: "2026-1-1", Replica: "a"}, {Day: "2026-02-30", Replica: "a"}, {Day: "today", Replica: "a"},
			{Day: "2070-01-01"}, {Day: "2070-01-01", Replica: malformed}, {Day: "2070-01-01", Replica: "a", Counts: map[string]int64{malformed: 1}},
		} {
			h.ExpiresAt = now.Add(time.Hour)
			refuse(t, s.PutRuleHits(ctx, h))
		}
		refuse(t, second(s.SumRuleHits(ctx, "yesterday", now)))
		equal(t, sum(t, "2070-01-01"), identity.RuleHitSum{})
	})
}
