package boltstore

import (
	"context"
	"time"

	"go.etcd.io/bbolt"

	"portcullis/identity"
)

// PutToken implements [identity.TokenStore].
func (s *Store) PutToken(ctx context.Context, t identity.OneTimeToken) error {
	return s.write(ctx, "put token", func(tx *bbolt.Tx) error {
		r := tokenRecord(t)
		r.ExpiresAt = stored(r.ExpiresAt)
		if err := required(named{"Purpose", string(r.Purpose)}, named{"UserID", r.UserID}, named{"Hash", r.Hash}); err != nil {
			return err
		}
		old, err := tokens.find(tx, tokens.key(&r))
		if err != nil {
			return err
		}
		return tokens.put(tx, old, r)
	})
}

// TakeToken implements [identity.TokenStore].
func (s *Store) TakeToken(ctx context.Context, purpose identity.Purpose, hash string, now time.Time) (identity.OneTimeToken, error) {
	var taken tokenRecord
	err := s.write(ctx, "take token", func(tx *bbolt.Tx) error {
		found, err := tokens.under(tx, "hash", group(string(purpose), hash))
		if err != nil {
			return err
		}
		for i := range found {
			if !expired(found[i].ExpiresAt, now) {
				taken = found[i]
				return tokens.remove(tx, &found[i])
			}
		}
		return identity.ErrNotFound
	})
	if err != nil {
		return identity.OneTimeToken{}, err
	}
	return identity.OneTimeToken(taken), nil
}

// DeleteTokens implements [identity.TokenStore].
func (s *Store) DeleteTokens(ctx context.Context, userID string) error {
	return s.write(ctx, "delete tokens", func(tx *bbolt.Tx) error {
		all, err := tokens.under(tx, primary, group(userID))
		if err != nil {
			return err
		}
		for i := range all {
			if err := tokens.remove(tx, &all[i]); err != nil {
				return err
			}
		}
		return nil
	})
}
