package storetest

import (
	"testing"

	"portcullis/identity"
)

func testUsers(t *testing.T, s identity.Store) {
	ctx := t.Context()

	t.Run("a created user is found by ID and by both keys, with every field", func(t *testing.T) {
		u := createUser(t, s, newUser("tenant"))
		createUser(t, s, newUser("tenant"))
		for _, find := range []func() (identity.User, error){
			func() (identity.User, error) { return s.User(ctx, u.ID) },
			func() (identity.User, error) { return s.UserByUsername(ctx, u.UsernameKey) },
			func() (identity.User, error) { return s.UserByEmail(ctx, u.EmailKey) },
		} {
			got, err := find()
			succeed(t, err)
			equal(t, got, u)
		}
	})

	t.Run("a user of zero values but the keys is found with the same values", func(t *testing.T) {
		u := identity.User{ID: newID(), UsernameKey: newID(), UsernameSkeleton: newID()}
		createUser(t, s, u)
		got, err := s.User(ctx, u.ID)
		succeed(t, err)
		equal(t, got, u)
	})

	t.Run("times are kept to the millisecond and come back in UTC", func(t *testing.T) {
		u := newUser("")
		odd, kept := oddTime()
		u.CreatedAt, u.UpdatedAt = odd, odd
		createUser(t, s, u)
		got, err := s.User(ctx, u.ID)
		succeed(t, err)
		equal(t, got.CreatedAt, kept)
		equal(t, got.UpdatedAt, kept)
		utc(t, got.CreatedAt, got.UpdatedAt)
	})

	t.Run("roles come back in their order, and no roles as no roles", func(t *testing.T) {
		for _, roles := range [][]string{nil, {}, {""}, {"b", "a", "b"}, hostile} {
			u := newUser("")
			u.Roles = roles
			createUser(t, s, u)
			got, err := s.User(ctx, u.ID)
			succeed(t, err)
			equal(t, got.Roles, roles)
		}
	})

	t.Run("an unknown or empty key finds nobody", func(t *testing.T) {
		createUser(t, s, identity.User{ID: newID(), UsernameKey: newID(), UsernameSkeleton: newID()}) // has no address
		for _, key := range []string{"", newID(), malformed} {
			_, err := s.User(ctx, key)
			fail(t, err, identity.ErrNotFound)
			_, err = s.UserByUsername(ctx, key)
			fail(t, err, identity.ErrNotFound)
			_, err = s.UserByEmail(ctx, key)
			fail(t, err, identity.ErrNotFound)
			fail(t, s.DeleteUser(ctx, key), identity.ErrNotFound)
		}
	})

	t.Run("a key is taken literally", func(t *testing.T) {
		owners := map[string]identity.User{}
		for _, key := range hostile {
			u := newUser("")
			u.ID, u.UsernameKey, u.UsernameSkeleton, u.EmailKey, u.Tenant = "id"+key, key, key, key, key
			owners[key] = createUser(t, s, u)
		}
		for key, u := range owners {
			t.Run(quoted(key), func(t *testing.T) {
				got, err := s.User(ctx, "id"+key)
				succeed(t, err)
				equal(t, got, u)
				got, err = s.UserByUsername(ctx, key)
				succeed(t, err)
				equal(t, got.ID, u.ID)
				got, err = s.UserByEmail(ctx, key)
				succeed(t, err)
				equal(t, got.ID, u.ID)
			})
		}
	})

	t.Run("what users type need not be UTF-8 to be kept", func(t *testing.T) {
		u := newUser("")
		u.Username = malformed
		createUser(t, s, u)
		got, err := s.User(ctx, u.ID)
		succeed(t, err)
		equal(t, got.Username, replaced)
	})

	t.Run("a user who could not be found again is refused", func(t *testing.T) {
		for _, spoil := range []func(*identity.User){
			func(u *identity.User) { u.ID = "" },
			func(u *identity.User) { u.UsernameKey = "" },
			func(u *identity.User) { u.UsernameSkeleton = "" },
			func(u *identity.User) { u.ID = malformed },
			func(u *identity.User) { u.UsernameKey = malformed },
			func(u *identity.User) { u.UsernameSkeleton = malformed },
			func(u *identity.User) { u.EmailKey = malformed },
			func(u *identity.User) { u.Tenant = malformed },
		} {
			u := newUser("")
			spoil(&u)
			refuse(t, s.CreateUser(ctx, u))
			_, err := s.UserByUsername(ctx, u.UsernameKey)
			fail(t, err, identity.ErrNotFound)
		}
	})

	t.Run("a deleted user is found by nothing, and the keys are free", func(t *testing.T) {
		u := createUser(t, s, newUser(""))
		succeed(t, s.DeleteUser(ctx, u.ID))
		_, err := s.User(ctx, u.ID)
		fail(t, err, identity.ErrNotFound)
		_, err = s.UserByUsername(ctx, u.UsernameKey)
		fail(t, err, identity.ErrNotFound)
		_, err = s.UserByEmail(ctx, u.EmailKey)
		fail(t, err, identity.ErrNotFound)
		fail(t, s.DeleteUser(ctx, u.ID), identity.ErrNotFound)
		createUser(t, s, u)
	})
}
