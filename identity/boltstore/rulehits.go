package boltstore

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"go.etcd.io/bbolt"

	"portcullis/identity"
)

var errDay = errors.New("the day is not of the form 2026-11-27")

// PutRuleHits implements [identity.RuleHitStore].
func (s *Store) PutRuleHits(ctx context.Context, h identity.RuleHits) error {
	return s.write(ctx, "put rule hits", func(tx *bbolt.Tx) error {
		if !identity.ValidDay(h.Day) {
			return errDay
		}
		if err := required(named{"Replica", h.Replica}); err != nil {
			return err
		}
		for rule := range h.Counts {
			if err := optional(named{"rule", rule}); err != nil {
				return err
			}
		}
		r := ruleHitsRecord(h)
		r.ExpiresAt = stored(r.ExpiresAt)
		old, err := ruleHits.find(tx, ruleHits.key(&r))
		if err != nil {
			return err
		}
		return ruleHits.put(tx, old, r)
	})
}

// SumRuleHits implements [identity.RuleHitStore].
func (s *Store) SumRuleHits(ctx context.Context, from string, now time.Time) (identity.RuleHitSum, error) {
	var sum identity.RuleHitSum
	err := s.read(ctx, "sum rule hits", func(tx *bbolt.Tx) error {
		if !identity.ValidDay(from) {
			return errDay
		}
		c := ruleHits.bucket(tx).Cursor()
		for k, v := c.Seek([]byte(from)); k != nil; k, v = c.Next() { // days sort as text
			var r ruleHitsRecord
			if err := json.Unmarshal(v, &r); err != nil {
				return fmt.Errorf("decode %s record: %w", ruleHits.name, err)
			}
			if !expired(r.ExpiresAt, now) {
				sum.Add(identity.RuleHits(r))
			}
		}
		return nil
	})
	return sum, err
}
