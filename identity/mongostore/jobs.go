package mongostore

import (
	"context"
	"errors"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"portcullis/identity"
)

// jobDoc is an identity.Job.
type jobDoc struct {
	ID        string    `bson:"_id"`
	Kind      string    `bson:"kind"`
	Data      []pair    `bson:"data"`
	Attempts  int64     `bson:"attempts"`
	CreatedAt time.Time `bson:"created_at"`
	NextAt    time.Time `bson:"next_at"`
}

// Enqueue implements [identity.JobStore].
func (s *Store) Enqueue(ctx context.Context, j identity.Job) error {
	return s.insert(ctx, "enqueue job", s.jobs, jobDoc{
		ID: j.ID, Kind: text(j.Kind), Data: pairs(j.Data), Attempts: int64(j.Attempts), CreatedAt: j.CreatedAt, NextAt: j.NextAt,
	}, required(named{"ID", j.ID}))
}

// ClaimJob implements [identity.JobStore].
func (s *Store) ClaimJob(ctx context.Context, now time.Time, lease time.Duration) (identity.Job, error) {
	ctx, cancel := s.bound(ctx)
	defer cancel()
	d, err := one[jobDoc](s.jobs.FindOneAndUpdate(ctx,
		bson.D{elem("next_at", bson.D{elem("$lte", now)})},
		bson.D{elem("$inc", bson.D{elem("attempts", int64(1))}), elem("$set", bson.D{elem("next_at", now.Add(lease))})},
		options.FindOneAndUpdate().SetSort(bson.D{elem("next_at", 1), elem("_id", 1)}).SetReturnDocument(options.After)))
	if err != nil {
		return identity.Job{}, failure("claim job", err)
	}
	return identity.Job{
		ID: d.ID, Kind: d.Kind, Data: unpair(d.Data), Attempts: int(d.Attempts), CreatedAt: d.CreatedAt, NextAt: d.NextAt,
	}, nil
}

// FinishJob implements [identity.JobStore].
func (s *Store) FinishJob(ctx context.Context, id string) error {
	err := s.deleteOne(ctx, "finish job", s.jobs, id)
	if errors.Is(err, identity.ErrNotFound) {
		return nil
	}
	return err
}

// RetryJob implements [identity.JobStore].
func (s *Store) RetryJob(ctx context.Context, id string, next time.Time) error {
	const doing = "retry job"
	ctx, cancel := s.bound(ctx)
	defer cancel()
	if !findable(id) {
		return absent(ctx, doing)
	}
	r, err := s.jobs.UpdateOne(ctx, bson.D{eq("_id", id)}, bson.D{elem("$set", bson.D{elem("next_at", next)})})
	if err == nil && r.MatchedCount == 0 {
		err = mongo.ErrNoDocuments
	}
	return failure(doing, err)
}
