package mongostore

import (
	"context"
	"slices"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"portcullis/identity"
)

// ruleHitsDoc is an identity.RuleHits. Rules and Counts are parallel: names of
// rules are no names of fields.
type ruleHitsDoc struct {
	ID        string    `bson:"_id"` // day/replica
	Day       string    `bson:"day"`
	Replica   string    `bson:"replica"`
	Rules     []string  `bson:"rules"`
	Counts    []int64   `bson:"counts"`
	ExpiresAt time.Time `bson:"expires_at"`
}

const errDay = inputError("the day is not of the form 2026-11-27")

// PutRuleHits implements [identity.RuleHitStore].
func (s *Store) PutRuleHits(ctx context.Context, h identity.RuleHits) error {
	const doing = "put rule hits"
	ctx, cancel := s.bound(ctx)
	defer cancel()
	if !identity.ValidDay(h.Day) {
		return failure(doing, errDay)
	}
	if err := required(named{"Replica", h.Replica}); err != nil {
		return failure(doing, err)
	}
	d := ruleHitsDoc{ID: h.Day + "/" + h.Replica, Day: h.Day, Replica: h.Replica, Rules: []string{}, Counts: []int64{}, ExpiresAt: h.ExpiresAt}
	for rule, n := range h.Counts {
		if err := optional(named{"rule", rule}); err != nil {
			return failure(doing, err)
		}
		d.Rules, d.Counts = append(d.Rules, rule), append(d.Counts, n)
	}
	_, err := upsert(ctx, func() (*mongo.UpdateResult, error) {
		return s.ruleHits.ReplaceOne(ctx, bson.D{eq("_id", d.ID)}, d, options.Replace().SetUpsert(true))
	})
	return failure(doing, err)
}

// SumRuleHits implements [identity.RuleHitStore].
func (s *Store) SumRuleHits(ctx context.Context, from string, now time.Time) (identity.RuleHitSum, error) {
	const doing = "sum rule hits"
	ctx, cancel := s.bound(ctx)
	defer cancel()
	var sum identity.RuleHitSum
	if !identity.ValidDay(from) {
		return sum, failure(doing, errDay)
	}
	docs, err := find[ruleHitsDoc](ctx, s.ruleHits, bson.D{elem("_id", bson.D{elem("$gte", from)}), after("expires_at", now)})
	if err != nil {
		return sum, failure(doing, err)
	}
	for _, d := range docs {
		h := identity.RuleHits{Day: d.Day, Counts: make(map[string]int64, len(d.Rules))}
		for i, rule := range slices.All(d.Rules[:min(len(d.Rules), len(d.Counts))]) {
			h.Counts[rule] = d.Counts[i]
		}
		sum.Add(h)
	}
	return sum, nil
}
