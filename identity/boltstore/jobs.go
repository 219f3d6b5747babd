package boltstore

import (
	"bytes"
	"context"
	"time"

	"go.etcd.io/bbolt"

	"portcullis/identity"
)

// Enqueue implements [identity.JobStore].
func (s *Store) Enqueue(ctx context.Context, j identity.Job) error {
	return s.write(ctx, "enqueue job", func(tx *bbolt.Tx) error {
		r := jobRecord(j)
		r.CreatedAt, r.NextAt = stored(r.CreatedAt), stored(r.NextAt)
		if err := required(named{"ID", r.ID}); err != nil {
			return err
		}
		return jobs.insert(tx, r)
	})
}

// ClaimJob implements [identity.JobStore].
func (s *Store) ClaimJob(ctx context.Context, now time.Time, lease time.Duration) (identity.Job, error) {
	var claimed jobRecord
	err := s.write(ctx, "claim job", func(tx *bbolt.Tx) error {
		k, id := jobs.index(tx, "due").Cursor().First()
		if end := timeKey(now); k == nil || bytes.Compare(k[:len(end)], end) > 0 {
			return identity.ErrNotFound
		}
		old, err := jobs.get(tx, id)
		if err != nil {
			return err
		}
		claimed = old
		claimed.Attempts++
		claimed.NextAt = stored(now.Add(lease))
		return jobs.put(tx, &old, claimed)
	})
	if err != nil {
		return identity.Job{}, err
	}
	return identity.Job(claimed), nil
}

// FinishJob implements [identity.JobStore].
func (s *Store) FinishJob(ctx context.Context, id string) error {
	return s.write(ctx, "finish job", func(tx *bbolt.Tx) error {
		r, err := jobs.find(tx, []byte(id))
		if err != nil || r == nil {
			return err
		}
		return jobs.remove(tx, r)
	})
}

// RetryJob implements [identity.JobStore].
func (s *Store) RetryJob(ctx context.Context, id string, next time.Time) error {
	return s.write(ctx, "retry job", func(tx *bbolt.Tx) error {
		old, err := jobs.get(tx, []byte(id))
		if err != nil {
			return err
		}
		r := old
		r.NextAt = stored(next)
		return jobs.put(tx, &old, r)
	})
}
