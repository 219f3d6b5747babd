package storetest

import (
	"errors"
	"testing"

	"portcullis/identity"
)

func testUpdateUser(t *testing.T, s identity.Store) {
	ctx := t.Context()

	t.Run("an update replaces every field, raises the version and returns what is stored", func(t *testing.T) {
		before := createUser(t, s, newUser("before"))
		u := newUser("after")
		u.ID, u.Version, u.Epoch = before.ID, before.Version, before.Epoch+1
		u.EmailVerified, u.Active, u.Roles = false, false, nil
		var kept = u
		u.CreatedAt, kept.CreatedAt = oddTime()
		u.UpdatedAt, kept.UpdatedAt = oddTime()
		kept.Version = before.Version + 1

		got, err := s.UpdateUser(ctx, u)
		succeed(t, err)
		equal(t, got, kept)
		utc(t, got.CreatedAt, got.UpdatedAt)
		got, err = s.User(ctx, u.ID)
		succeed(t, err)
		equal(t, got, kept)
	})

	t.Run("keys move with an update: the new ones find the user, the old ones nobody", func(t *testing.T) {
		before := createUser(t, s, newUser("before"))
		u := newUser("after")
		u.ID, u.Version = before.ID, before.Version
		_, err := s.UpdateUser(ctx, u)
		succeed(t, err)

		_, err = s.UserByUsername(ctx, before.UsernameKey)
		fail(t, err, identity.ErrNotFound)
		_, err = s.UserByEmail(ctx, before.EmailKey)
		fail(t, err, identity.ErrNotFound)
		got, err := s.UserByUsername(ctx, u.UsernameKey)
		succeed(t, err)
		equal(t, got.ID, u.ID)
		got, err = s.UserByEmail(ctx, u.EmailKey)
		succeed(t, err)
		equal(t, got.ID, u.ID)

		before.ID = newID()
		createUser(t, s, before) // somebody else can have them now
	})

	t.Run("an address can be taken away and given again", func(t *testing.T) {
		u := createUser(t, s, newUser(""))
		address := u.EmailKey
		u.EmailKey = ""
		u, err := s.UpdateUser(ctx, u)
		succeed(t, err)
		_, err = s.UserByEmail(ctx, address)
		fail(t, err, identity.ErrNotFound)
		u.EmailKey = address
		_, err = s.UpdateUser(ctx, u)
		succeed(t, err)
		got, err := s.UserByEmail(ctx, address)
		succeed(t, err)
		equal(t, got.ID, u.ID)
	})

	t.Run("another version is a conflict, and changes nothing", func(t *testing.T) {
		u := createUser(t, s, newUser(""))
		for _, version := range []int64{u.Version - 1, u.Version + 1, 0} {
			stale := newUser("")
			stale.ID, stale.Version = u.ID, version
			_, err := s.UpdateUser(ctx, stale)
			fail(t, err, identity.ErrConflict)
			got, err := s.User(ctx, u.ID)
			succeed(t, err)
			equal(t, got, u)
		}
	})

	t.Run("a user who is not there is not found, and not created", func(t *testing.T) {
		for _, id := range []string{newID(), ""} {
			u := newUser("")
			u.ID = id
			_, err := s.UpdateUser(ctx, u)
			if id != "" {
				fail(t, err, identity.ErrNotFound)
			} else if err == nil {
				t.Error("a user without ID was updated")
			}
			_, err = s.UserByUsername(ctx, u.UsernameKey)
			fail(t, err, identity.ErrNotFound)
		}
	})

	for _, shared := range unique() {
		t.Run("the "+shared.name+" of another is refused, and changes nothing", func(t *testing.T) {
			first, second := createUser(t, s, newUser("")), createUser(t, s, newUser(""))
			changed := newUser("")
			changed.ID, changed.Version = second.ID, second.Version
			shared.share(&changed, first)
			_, err := s.UpdateUser(ctx, changed)
			fail(t, err, shared.taken)
			got, err := s.User(ctx, second.ID)
			succeed(t, err)
			equal(t, got, second)
			got, err = s.UserByUsername(ctx, second.UsernameKey)
			succeed(t, err)
			equal(t, got, second)
		})
	}

	t.Run("a user who could not be found again is refused", func(t *testing.T) {
		u := createUser(t, s, newUser(""))
		for _, spoil := range []func(*identity.User){
			func(u *identity.User) { u.UsernameKey = "" },
			func(u *identity.User) { u.UsernameSkeleton = malformed },
			func(u *identity.User) { u.EmailKey = malformed },
		} {
			bad := u
			spoil(&bad)
			_, err := s.UpdateUser(ctx, bad)
			refuse(t, err)
		}
		got, err := s.User(ctx, u.ID)
		succeed(t, err)
		equal(t, got, u)
	})

	t.Run("of parallel updates of one version one succeeds, and is what is stored", func(t *testing.T) {
		u := createUser(t, s, newUser(""))
		stored := make([]identity.User, 20)
		errs := together(len(stored), func(i int) (err error) {
			mine := u
			mine.Username = newID()
			stored[i], err = s.UpdateUser(ctx, mine)
			return err
		})
		exactlyOne(t, errs, identity.ErrConflict)
		got, err := s.User(ctx, u.ID)
		succeed(t, err)
		for i, err := range errs {
			if err == nil {
				equal(t, got, stored[i])
			}
		}
	})

	t.Run("of an update and a deletion in parallel the update does not bring the user back", func(t *testing.T) {
		for range 10 {
			u := createUser(t, s, newUser(""))
			errs := together(2, func(i int) error {
				if i == 0 {
					return s.DeleteUser(ctx, u.ID)
				}
				_, err := s.UpdateUser(ctx, u)
				return err
			})
			succeed(t, errs[0])
			if errs[1] != nil && !errors.Is(errs[1], identity.ErrNotFound) {
				t.Errorf("update: %v", errs[1])
			}
			_, err := s.User(ctx, u.ID)
			fail(t, err, identity.ErrNotFound)
		}
	})
}
