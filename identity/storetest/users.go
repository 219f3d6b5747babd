package storetest

import (
	"errors"
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

// unique lists what no two users may have in common.
var unique = []struct {
	name  string
	share func(to *identity.User, from identity.User)
	taken error
}{
	{"username key", func(to *identity.User, from identity.User) { to.UsernameKey = from.UsernameKey }, identity.ErrUsernameTaken},
	{"username skeleton", func(to *identity.User, from identity.User) { to.UsernameSkeleton = from.UsernameSkeleton }, identity.ErrUsernameTaken},
	{"e-mail key", func(to *identity.User, from identity.User) { to.EmailKey = from.EmailKey }, identity.ErrEmailTaken},
}

func testUniqueUsers(t *testing.T, s identity.Store) {
	ctx := t.Context()

	for _, u := range unique {
		t.Run("a user with the "+u.name+" of another is refused, and nothing of it is stored", func(t *testing.T) {
			first := createUser(t, s, newUser(""))
			second := newUser("other tenant")
			u.share(&second, first)
			fail(t, s.CreateUser(ctx, second), u.taken)

			_, err := s.User(ctx, second.ID)
			fail(t, err, identity.ErrNotFound)
			got, err := s.User(ctx, first.ID)
			succeed(t, err)
			equal(t, got, first)
			// Whatever the refused user had for itself is free.
			third := newUser("")
			third.ID, third.Email = second.ID, second.Email
			for _, other := range unique {
				if other.name != u.name {
					other.share(&third, second)
				}
			}
			createUser(t, s, third)
		})

		t.Run("of parallel creations with one "+u.name+" one succeeds", func(t *testing.T) {
			shared := newUser("")
			users := make([]identity.User, 10)
			for i := range users {
				users[i] = newUser("")
				u.share(&users[i], shared)
			}
			errs := together(len(users), func(i int) error { return s.CreateUser(ctx, users[i]) })
			exactlyOne(t, errs, u.taken)
			for i, err := range errs {
				_, found := s.User(ctx, users[i].ID)
				if (found == nil) != (err == nil) {
					t.Errorf("creation said %v, look-up says %v", err, found)
				}
			}
		})
	}

	t.Run("keys of different kinds do not collide", func(t *testing.T) {
		first := createUser(t, s, newUser(""))
		second := newUser("")
		second.UsernameKey, second.UsernameSkeleton, second.EmailKey = first.EmailKey, first.UsernameKey, first.UsernameSkeleton
		createUser(t, s, second)
	})

	t.Run("a username that is taken is named before an address that is", func(t *testing.T) {
		first := createUser(t, s, newUser(""))
		second := newUser("")
		second.UsernameSkeleton, second.EmailKey = first.UsernameSkeleton, first.EmailKey
		fail(t, s.CreateUser(ctx, second), identity.ErrUsernameTaken)
	})

	t.Run("the ID of another user is a conflict, and the other stays", func(t *testing.T) {
		first := createUser(t, s, newUser(""))
		second := newUser("")
		second.ID = first.ID
		fail(t, s.CreateUser(ctx, second), identity.ErrConflict)
		got, err := s.User(ctx, first.ID)
		succeed(t, err)
		equal(t, got, first)
		_, err = s.UserByUsername(ctx, second.UsernameKey)
		fail(t, err, identity.ErrNotFound)
	})

	t.Run("any number of users can have no address", func(t *testing.T) {
		for range 2 {
			u := newUser("")
			u.Email, u.EmailKey = "", ""
			createUser(t, s, u)
		}
	})
}

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

	for _, shared := range unique {
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
