package boltstore

import (
	"bytes"
	"context"
	"errors"

	"go.etcd.io/bbolt"

	"portcullis/identity"
)

// CreateUser implements [identity.UserStore].
func (s *Store) CreateUser(ctx context.Context, u identity.User) error {
	return s.write(ctx, "create user", func(tx *bbolt.Tx) error {
		r, err := newUserRecord(u)
		if err != nil {
			return err
		}
		return users.insert(tx, r)
	})
}

// User implements [identity.UserStore].
func (s *Store) User(ctx context.Context, id string) (identity.User, error) {
	return s.user(ctx, func(tx *bbolt.Tx) (userRecord, error) { return users.get(tx, []byte(id)) })
}

// UserByUsername implements [identity.UserStore].
func (s *Store) UserByUsername(ctx context.Context, key string) (identity.User, error) {
	return s.user(ctx, func(tx *bbolt.Tx) (userRecord, error) { return users.lookup(tx, "username", key) })
}

// UserByEmail implements [identity.UserStore].
func (s *Store) UserByEmail(ctx context.Context, key string) (identity.User, error) {
	return s.user(ctx, func(tx *bbolt.Tx) (userRecord, error) { return users.lookup(tx, "email", key) })
}

func (s *Store) user(ctx context.Context, find func(*bbolt.Tx) (userRecord, error)) (identity.User, error) {
	var found userRecord
	err := s.read(ctx, "find user", func(tx *bbolt.Tx) (err error) {
		found, err = find(tx)
		return err
	})
	if err != nil {
		return identity.User{}, err
	}
	return identity.User(found), nil
}

// UpdateUser implements [identity.UserStore].
func (s *Store) UpdateUser(ctx context.Context, u identity.User) (identity.User, error) {
	var updated userRecord
	err := s.write(ctx, "update user", func(tx *bbolt.Tx) error {
		r, err := newUserRecord(u)
		if err != nil {
			return err
		}
		old, err := users.get(tx, []byte(u.ID))
		if err != nil {
			return err
		}
		if old.Version != u.Version {
			return identity.ErrConflict
		}
		r.Version++
		updated = r
		return users.put(tx, &old, r)
	})
	if err != nil {
		return identity.User{}, err
	}
	return identity.User(updated), nil
}

// DeleteUser implements [identity.UserStore].
func (s *Store) DeleteUser(ctx context.Context, id string) error {
	return s.write(ctx, "delete user", func(tx *bbolt.Tx) error {
		r, err := users.get(tx, []byte(id))
		if err != nil {
			return err
		}
		return users.remove(tx, &r)
	})
}

// ListUsers implements [identity.UserStore].
func (s *Store) ListUsers(ctx context.Context, q identity.UserQuery) ([]identity.User, error) {
	var page []identity.User
	err := s.read(ctx, "list users", func(tx *bbolt.Tx) error {
		if q.Limit <= 0 {
			return errors.New("the limit must be positive")
		}
		if q.UsernamePrefix != "" && q.EmailPrefix != "" {
			return errors.New("at most one prefix may be set")
		}
		index, prefix := "username", q.UsernamePrefix
		if q.EmailPrefix != "" {
			index, prefix = "email", q.EmailPrefix
		}
		var base []byte
		if q.Tenant != nil {
			index, base = "tenant_"+index, group(*q.Tenant)
		}
		within := append(base[:len(base):len(base)], prefix...)
		after := append(base[:len(base):len(base)], q.After...)

		c := users.index(tx, index).Cursor()
		k, id := c.Seek(within)
		if q.After != "" && bytes.Compare(after, within) >= 0 {
			if k, id = c.Seek(after); bytes.Equal(k, after) {
				k, id = c.Next()
			}
		}
		for ; k != nil && bytes.HasPrefix(k, within) && len(page) < q.Limit; k, id = c.Next() {
			r, err := users.get(tx, id)
			if err != nil {
				return err
			}
			page = append(page, identity.User(r))
		}
		return nil
	})
	return page, err
}

func newUserRecord(u identity.User) (userRecord, error) {
	r := userRecord(u)
	r.CreatedAt, r.UpdatedAt = stored(u.CreatedAt), stored(u.UpdatedAt)
	if err := optional(named{"EmailKey", u.EmailKey}, named{"Tenant", u.Tenant}); err != nil {
		return r, err
	}
	return r, required(named{"ID", u.ID}, named{"UsernameKey", u.UsernameKey}, named{"UsernameSkeleton", u.UsernameSkeleton})
}
