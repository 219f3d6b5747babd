package mongostore

import (
	"context"
	"errors"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"portcullis/identity"
)

// administratorsDoc is the whole set: one document, so that a change of one
// member can depend on the others.
type administratorsDoc struct {
	IDs []string `bson:"ids"`
}

// administratorsID is the _id of the only document of its collection.
const administratorsID = "administrators"

// HoldAdministrator implements [identity.AdministratorStore].
func (s *Store) HoldAdministrator(ctx context.Context, id string) error {
	const doing = "hold administrator"
	ctx, cancel := s.bound(ctx)
	defer cancel()
	if err := required(named{"ID", id}); err != nil {
		return failure(doing, err)
	}
	_, err := upsert(ctx, func() (*mongo.UpdateResult, error) {
		return s.administrators.UpdateOne(ctx, bson.D{eq("_id", administratorsID)},
			bson.D{elem("$addToSet", bson.D{elem("ids", id)})}, options.UpdateOne().SetUpsert(true))
	})
	return failure(doing, err)
}

// ReleaseAdministrator implements [identity.AdministratorStore].
func (s *Store) ReleaseAdministrator(ctx context.Context, id string) error {
	const doing = "release administrator"
	ctx, cancel := s.bound(ctx)
	defer cancel()
	if !findable(id) {
		return nil
	}
	isMember := bson.D{elem("$eq", id)}
	isNotAlone := bson.D{elem("$eq", id), elem("$elemMatch", bson.D{elem("$ne", id)})}
	for range tries(ctx) {
		r, err := s.administrators.UpdateOne(ctx,
			bson.D{eq("_id", administratorsID), elem("ids", isNotAlone)},
			bson.D{elem("$pull", bson.D{elem("ids", id)})})
		if err != nil || r.MatchedCount == 1 {
			return failure(doing, err)
		}
		set, err := one[administratorsDoc](s.administrators.FindOne(ctx, bson.D{eq("_id", administratorsID), elem("ids", isMember)}))
		switch {
		case errors.Is(err, mongo.ErrNoDocuments):
			return nil
		case err != nil:
			return failure(doing, err)
		case len(set.IDs) == 1:
			return failure(doing, identity.ErrLastAdministrator)
		}
		// Another member was added between the two.
	}
	return failure(doing, busy(ctx))
}

// DropAdministrator implements [identity.AdministratorStore].
func (s *Store) DropAdministrator(ctx context.Context, id string) error {
	ctx, cancel := s.bound(ctx)
	defer cancel()
	if !findable(id) {
		return nil
	}
	_, err := s.administrators.UpdateOne(ctx, bson.D{eq("_id", administratorsID)}, bson.D{elem("$pull", bson.D{elem("ids", id)})})
	return failure("drop administrator", err)
}

// Administrators implements [identity.AdministratorStore].
func (s *Store) Administrators(ctx context.Context) ([]string, error) {
	ctx, cancel := s.bound(ctx)
	defer cancel()
	set, err := one[administratorsDoc](s.administrators.FindOne(ctx, bson.D{eq("_id", administratorsID)}))
	if errors.Is(err, mongo.ErrNoDocuments) {
		err = nil // nobody was ever held
	}
	return set.IDs, failure("list administrators", err)
}
