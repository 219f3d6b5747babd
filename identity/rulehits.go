package identity

import (
	"context"
	"time"
)

// RuleHits says how often rules of the policy decided, on one day and at one
// replica. It is kept beside the accounts because that is where replicas meet.
type RuleHits struct {
	Day       string // in UTC, as 2026-11-27
	Replica   string
	Counts    map[string]int64 // by a name of the rule
	ExpiresAt time.Time
}

// RuleHitSum is what several days and replicas come to.
type RuleHitSum struct {
	First  string // the first day of which something is known; "" if of none
	Counts map[string]int64
}

// RuleHitStore keeps what the rules of the policy were used for.
type RuleHitStore interface {
	// PutRuleHits stores h in place of what the replica has stored for the day, so
	// that it can be repeated. The day must be one.
	PutRuleHits(ctx context.Context, h RuleHits) error
	// SumRuleHits adds up what all replicas have stored for the day and those after
	// it, as far as it has not expired by now.
	SumRuleHits(ctx context.Context, from string, now time.Time) (RuleHitSum, error)
}

// ValidDay reports whether a text is a day of [RuleHits].
func ValidDay(day string) bool {
	t, err := time.Parse(time.DateOnly, day)
	return err == nil && t.Format(time.DateOnly) == day
}

// Add adds a day's counts to the sum.
func (s *RuleHitSum) Add(h RuleHits) {
	if s.Counts == nil {
		s.Counts = make(map[string]int64)
	}
	if s.First == "" || h.Day < s.First {
		s.First = h.Day
	}
	for rule, n := range h.Counts {
		s.Counts[rule] += n
	}
}
