package mongostore

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"portcullis/identity"
)

// counterDoc is one window of one counter. It is absent where the count is zero
// from the beginning.
type counterDoc struct {
	ID        string    `bson:"_id"`
	Count     int64     `bson:"count"`
	ExpiresAt time.Time `bson:"expires_at"`
}

// Hit implements [identity.CounterStore].
func (s *Store) Hit(ctx context.Context, key string, n int, window time.Duration, now time.Time) (int, error) {
	const doing = "count"
	ctx, cancel := s.bound(ctx)
	defer cancel()
	length := window.Milliseconds()
	if length <= 0 {
		return 0, failure(doing, inputError("the window is shorter than a millisecond"))
	}
	number := now.UnixMilli() / length // of the window, since the Unix epoch
	d := counterDoc{
		ID:        counterPrefix(key) + fmt.Sprintf("%d/%d", length, number),
		ExpiresAt: time.UnixMilli((number + 1) * length),
	}
	for range tries(ctx) {
		count, err := s.add(ctx, d, int64(n))
		if !errors.Is(err, identity.ErrConflict) {
			return int(count), failure(doing, err)
		}
	}
	return 0, failure(doing, busy(ctx))
}

// add adds n to the counter of d and returns the count; ErrConflict if others
// changed the counter between its steps.
func (s *Store) add(ctx context.Context, d counterDoc, n int64) (int64, error) {
	id, returnNew := eq("_id", d.ID), options.FindOneAndUpdate().SetReturnDocument(options.After)
	var result *mongo.SingleResult
	switch {
	case n == 0:
		result = s.counters.FindOne(ctx, bson.D{id})
	case n > 0:
		result = s.counters.FindOneAndUpdate(ctx, bson.D{id}, bson.D{elem("$inc", bson.D{elem("count", n)})}, returnNew)
	default:
		enough := elem("count", bson.D{elem("$gte", -n)})
		result = s.counters.FindOneAndUpdate(ctx, bson.D{id, enough}, bson.D{elem("$inc", bson.D{elem("count", n)})}, returnNew)
	}
	found, err := one[counterDoc](result)
	switch {
	case lostRace(err):
		return 0, identity.ErrConflict
	case !errors.Is(err, mongo.ErrNoDocuments):
		return found.Count, err
	case n == 0:
		return 0, nil
	case n > 0:
		d.Count = n
		_, err = s.counters.InsertOne(ctx, d)
		if lostRace(err) {
			err = identity.ErrConflict
		}
		return n, err
	}
	// Fewer than are to be taken back: leave none. Nothing is written where
	// there is no counter.
	few := elem("count", bson.D{elem("$lt", -n)})
	r, err := s.counters.UpdateOne(ctx, bson.D{id, few}, bson.D{elem("$set", bson.D{elem("count", int64(0))})})
	switch {
	case lostRace(err):
		return 0, identity.ErrConflict
	case err != nil || r.MatchedCount == 1:
		return 0, err
	}
	err = s.counters.FindOne(ctx, bson.D{id}).Err()
	switch {
	case errors.Is(err, mongo.ErrNoDocuments):
		return 0, nil
	case err == nil:
		err = identity.ErrConflict
	}
	return 0, err
}

// Forget implements [identity.CounterStore].
func (s *Store) Forget(ctx context.Context, key string) error {
	ctx, cancel := s.bound(ctx)
	defer cancel()
	prefix := counterPrefix(key)
	_, err := s.counters.DeleteMany(ctx, bson.D{elem("_id", bson.D{elem("$gte", prefix), elem("$lt", successor(prefix))})})
	return failure("forget counter", err)
}

// counterPrefix begins the _id of the windows of one counter. It is a hash, so
// that it has one length, does not begin another counter's, and is text
// whatever bytes strangers have put into key.
func counterPrefix(key string) string {
	sum := sha256.Sum256([]byte(key))
	return hex.EncodeToString(sum[:]) + "/"
}
