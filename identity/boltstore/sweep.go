package boltstore

import (
	"context"
	"time"

	"go.etcd.io/bbolt"
)

// sweepBatch bounds how many records one transaction of Sweep deletes, and with
// that how long other writers wait for it.
const sweepBatch = 256

// Sweep implements [identity.Store]. It deletes in short transactions, between
// which others can write, and ends early when ctx does.
func (s *Store) Sweep(ctx context.Context, now time.Time) (int, error) {
	swept := 0
	for _, sweep := range []func(*bbolt.Tx, time.Time, int) (int, error){
		sessions.sweep, tokens.sweep, revocations.sweep, counters.sweep, audits.sweep, ruleHits.sweep,
	} {
		for {
			var n int
			err := s.write(ctx, "sweep", func(tx *bbolt.Tx) (err error) {
				n, err = sweep(tx, now, sweepBatch)
				return err
			})
			if err != nil {
				return swept, err
			}
			swept += n
			if n < sweepBatch {
				break
			}
		}
	}
	return swept, nil
}
