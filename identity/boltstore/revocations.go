package boltstore

import (
	"context"
	"time"

	"go.etcd.io/bbolt"

	"portcullis/identity"
)

// Revoke implements [identity.RevocationStore].
func (s *Store) Revoke(ctx context.Context, v identity.Revocation) error {
	return s.write(ctx, "revoke", func(tx *bbolt.Tx) error {
		r := revocationRecord{Kind: v.Kind, ID: v.ID, MinEpoch: v.MinEpoch, ExpiresAt: stored(v.ExpiresAt)}
		if err := required(named{"Kind", string(r.Kind)}, named{"ID", r.ID}); err != nil {
			return err
		}
		old, err := revocations.find(tx, revocations.key(&r))
		if err != nil {
			return err
		}
		if old != nil {
			r.MinEpoch = max(r.MinEpoch, old.MinEpoch)
			r.ExpiresAt = later(r.ExpiresAt, old.ExpiresAt)
		}
		if r.RaisedAt, err = tick(tx); err != nil {
			return err
		}
		return revocations.put(tx, old, r)
	})
}

// Revocations implements [identity.RevocationStore].
func (s *Store) Revocations(ctx context.Context, since, now time.Time) ([]identity.Revocation, time.Time, error) {
	var live []identity.Revocation
	next := since
	err := s.read(ctx, "list revocations", func(tx *bbolt.Tx) error {
		c := revocations.index(tx, "raised").Cursor()
		for k, primary := c.Seek(timeKey(since)); k != nil; k, primary = c.Next() {
			r, err := revocations.get(tx, primary)
			if err != nil {
				return err
			}
			if !expired(r.ExpiresAt, now) {
				live = append(live, identity.Revocation{Kind: r.Kind, ID: r.ID, MinEpoch: r.MinEpoch, ExpiresAt: r.ExpiresAt})
			}
			// Exact: whoever commits later has ticked later.
			next = r.RaisedAt.Add(time.Millisecond)
		}
		return nil
	})
	if err != nil {
		return nil, time.Time{}, err
	}
	return live, next, nil
}

// tick reads the store's own clock, which shows another millisecond each time
// and never goes back, even if the machine's clock does or the record that it
// was last read for is gone.
func tick(tx *bbolt.Tx) (time.Time, error) {
	b := revocations.bucket(tx)
	ms := max(time.Now().UnixMilli(), int64(b.Sequence())+1)
	if err := b.SetSequence(uint64(ms)); err != nil {
		return time.Time{}, err
	}
	return time.UnixMilli(ms).UTC(), nil
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
