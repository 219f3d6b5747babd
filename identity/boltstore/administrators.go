package boltstore

import (
	"context"

	"go.etcd.io/bbolt"

	"portcullis/identity"
)

// administratorsBucket holds a key for each member of the set.
var administratorsBucket = []byte("administrators")

// HoldAdministrator implements [identity.AdministratorStore].
func (s *Store) HoldAdministrator(ctx context.Context, id string) error {
	return s.write(ctx, "hold administrator", func(tx *bbolt.Tx) error {
		if err := required(named{"ID", id}); err != nil {
			return err
		}
		return tx.Bucket(administratorsBucket).Put([]byte(id), []byte{1})
	})
}

// ReleaseAdministrator implements [identity.AdministratorStore].
func (s *Store) ReleaseAdministrator(ctx context.Context, id string) error {
	return s.write(ctx, "release administrator", func(tx *bbolt.Tx) error {
		b := tx.Bucket(administratorsBucket)
		if b.Get([]byte(id)) == nil {
			return nil
		}
		c := b.Cursor()
		c.First()
		if another, _ := c.Next(); another == nil {
			return identity.ErrLastAdministrator
		}
		return b.Delete([]byte(id))
	})
}

// DropAdministrator implements [identity.AdministratorStore].
func (s *Store) DropAdministrator(ctx context.Context, id string) error {
	return s.write(ctx, "drop administrator", func(tx *bbolt.Tx) error {
		return tx.Bucket(administratorsBucket).Delete([]byte(id))
	})
}

// Administrators implements [identity.AdministratorStore].
func (s *Store) Administrators(ctx context.Context) ([]string, error) {
	var ids []string
	err := s.read(ctx, "list administrators", func(tx *bbolt.Tx) error {
		return tx.Bucket(administratorsBucket).ForEach(func(id, _ []byte) error {
			ids = append(ids, string(id))
			return nil
		})
	})
	return ids, err
}
