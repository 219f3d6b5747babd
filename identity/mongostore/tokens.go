package mongostore

import (
	"context"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"portcullis/identity"
)

// tokenDoc is an identity.OneTimeToken. Its _id is made of the purpose and the
// user, so that there is one for both.
type tokenDoc struct {
	ID        string           `bson:"_id"`
	Purpose   identity.Purpose `bson:"purpose"`
	UserID    string           `bson:"user_id"`
	Hash      string           `bson:"hash"`
	Email     string           `bson:"email"`
	ExpiresAt time.Time        `bson:"expires_at"`
}

// PutToken implements [identity.TokenStore].
func (s *Store) PutToken(ctx context.Context, t identity.OneTimeToken) error {
	const doing = "put token"
	ctx, cancel := s.bound(ctx)
	defer cancel()
	if err := required(named{"Purpose", string(t.Purpose)}, named{"UserID", t.UserID}, named{"Hash", t.Hash}); err != nil {
		return failure(doing, err)
	}
	d := tokenDoc{
		ID: compound(string(t.Purpose), t.UserID), Purpose: t.Purpose, UserID: t.UserID,
		Hash: t.Hash, Email: text(t.Email), ExpiresAt: t.ExpiresAt,
	}
	_, err := upsert(ctx, func() (*mongo.UpdateResult, error) {
		return s.tokens.ReplaceOne(ctx, bson.D{eq("_id", d.ID)}, d, options.Replace().SetUpsert(true))
	})
	return failure(doing, err)
}

// TakeToken implements [identity.TokenStore].
func (s *Store) TakeToken(ctx context.Context, purpose identity.Purpose, hash string, now time.Time) (identity.OneTimeToken, error) {
	const doing = "take token"
	ctx, cancel := s.bound(ctx)
	defer cancel()
	if !findable(string(purpose), hash) {
		return identity.OneTimeToken{}, absent(ctx, doing)
	}
	d, err := one[tokenDoc](s.tokens.FindOneAndDelete(ctx, bson.D{eq("hash", hash), eq("purpose", string(purpose)), after("expires_at", now)}))
	if err != nil {
		return identity.OneTimeToken{}, failure(doing, err)
	}
	return identity.OneTimeToken{Purpose: d.Purpose, UserID: d.UserID, Hash: d.Hash, Email: d.Email, ExpiresAt: d.ExpiresAt}, nil
}

// DeleteTokens implements [identity.TokenStore].
func (s *Store) DeleteTokens(ctx context.Context, userID string) error {
	const doing = "delete tokens"
	ctx, cancel := s.bound(ctx)
	defer cancel()
	if !findable(userID) {
		return failure(doing, ctx.Err())
	}
	_, err := s.tokens.DeleteMany(ctx, bson.D{eq("user_id", userID)})
	return failure(doing, err)
}
