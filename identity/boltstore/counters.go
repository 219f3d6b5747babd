package boltstore

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"go.etcd.io/bbolt"
)

// Hit implements [identity.CounterStore].
func (s *Store) Hit(ctx context.Context, key string, n int, window time.Duration, now time.Time) (int, error) {
	length := window.Milliseconds()
	if length <= 0 {
		return 0, errors.New("boltstore: count: the window is shorter than a millisecond")
	}
	number := now.UnixMilli() / length // of the window, since the Unix epoch
	id := counterPrefix(key) + fmt.Sprintf("%d/%d", length, number)

	var count int
	add := func(tx *bbolt.Tx) error {
		old, err := counters.find(tx, []byte(id))
		if err != nil {
			return err
		}
		was := 0
		if old != nil {
			was = old.Count
		}
		if count = max(was+n, 0); count == was {
			return nil
		}
		return counters.put(tx, old, counterRecord{Key: id, Count: count, ExpiresAt: time.UnixMilli((number + 1) * length).UTC()})
	}
	run := s.write
	if n == 0 {
		run = s.read
	}
	if err := run(ctx, "count", add); err != nil {
		return 0, err
	}
	return count, nil
}

// Forget implements [identity.CounterStore].
func (s *Store) Forget(ctx context.Context, key string) error {
	return s.write(ctx, "forget counter", func(tx *bbolt.Tx) error {
		windows, err := counters.under(tx, primary, []byte(counterPrefix(key)))
		if err != nil {
			return err
		}
		for i := range windows {
			if err := counters.remove(tx, &windows[i]); err != nil {
				return err
			}
		}
		return nil
	})
}

// counterPrefix begins the keys of the windows of one counter. It is a hash,
// so that it has one length, does not begin another counter's, and is valid in
// JSON whatever bytes strangers have put into key.
func counterPrefix(key string) string {
	sum := sha256.Sum256([]byte(key))
	return hex.EncodeToString(sum[:]) + "/"
}
