package mongostore

import (
	"context"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"portcullis/identity"
)

// overlap is how far before its cursor a reader reads again, beyond the time
// that a call may take. A revocation has the time at which the server wrote it
// and is seen a little later, possibly after younger ones; one that is seen
// later than that has failed for whoever recorded it.
const overlap = 3 * time.Second

// revocationDoc is an identity.Revocation.
type revocationDoc struct {
	Kind      identity.RevocationKind `bson:"kind"`
	RevokedID string                  `bson:"revoked_id"`
	MinEpoch  int64                   `bson:"min_epoch"`
	ExpiresAt time.Time               `bson:"expires_at"`
	RaisedAt  time.Time               `bson:"raised_at"` // by the server's clock
}

// Revoke implements [identity.RevocationStore].
func (s *Store) Revoke(ctx context.Context, r identity.Revocation) error {
	const doing = "revoke"
	ctx, cancel := s.bound(ctx)
	defer cancel()
	if err := required(named{"Kind", string(r.Kind)}, named{"ID", r.ID}); err != nil {
		return failure(doing, err)
	}
	_, err := upsert(ctx, func() (*mongo.UpdateResult, error) {
		return s.revocations.UpdateOne(ctx, bson.D{eq("_id", compound(string(r.Kind), r.ID))}, bson.D{
			elem("$max", bson.D{elem("min_epoch", r.MinEpoch), elem("expires_at", r.ExpiresAt)}),
			elem("$set", bson.D{elem("kind", string(r.Kind)), elem("revoked_id", r.ID)}),
			elem("$currentDate", bson.D{elem("raised_at", true)}),
		}, options.UpdateOne().SetUpsert(true))
	})
	return failure(doing, err)
}

// Revocations implements [identity.RevocationStore].
//
// The value returned as next is the latest time seen on a revocation, not the
// time of the call: it can only be compared with clocks that wrote
// revocations. It is kept from getting ahead of the server's clock, because a
// revocation from a time when that clock was ahead would hide those recorded
// after it was put right.
func (s *Store) Revocations(ctx context.Context, since, now time.Time) ([]identity.Revocation, time.Time, error) {
	const doing = "list revocations"
	ctx, cancel := s.bound(ctx)
	defer cancel()
	clock, err := s.clock(ctx)
	if err != nil {
		return nil, time.Time{}, failure(doing, err)
	}
	if clock.Before(since) {
		since = time.Time{} // the clock was put back
	}
	filter := bson.D{after("expires_at", now)}
	if !since.IsZero() {
		filter = append(filter, elem("raised_at", bson.D{elem("$gte", since.Add(-s.timeout-overlap))}))
	}
	docs, err := find[revocationDoc](ctx, s.revocations, filter)
	if err != nil {
		return nil, time.Time{}, failure(doing, err)
	}
	var rs []identity.Revocation
	next := since
	for _, d := range docs {
		rs = append(rs, identity.Revocation{Kind: d.Kind, ID: d.RevokedID, MinEpoch: d.MinEpoch, ExpiresAt: d.ExpiresAt})
		if d.RaisedAt.After(next) {
			next = d.RaisedAt
		}
	}
	if next.After(clock) {
		next = clock
	}
	return rs, next, nil
}

// clock returns the time by the server's clock.
func (s *Store) clock(ctx context.Context) (time.Time, error) {
	reply, err := one[struct {
		LocalTime time.Time `bson:"localTime"`
	}](s.revocations.Database().RunCommand(ctx, bson.D{elem("hello", 1)}))
	return reply.LocalTime, err
}
