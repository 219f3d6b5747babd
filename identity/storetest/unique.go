package storetest

import (
	"testing"

	"portcullis/identity"
)

// shared is something that no two users may have in common.
type shared struct {
	name  string
	share func(to *identity.User, from identity.User)
	taken error
}

// unique lists all there is of that.
func unique() []shared {
	return []shared{
		{"username key", func(to *identity.User, from identity.User) { to.UsernameKey = from.UsernameKey }, identity.ErrUsernameTaken},
		{"username skeleton", func(to *identity.User, from identity.User) { to.UsernameSkeleton = from.UsernameSkeleton }, identity.ErrUsernameTaken},
		{"e-mail key", func(to *identity.User, from identity.User) { to.EmailKey = from.EmailKey }, identity.ErrEmailTaken},
	}
}

func testUniqueUsers(t *testing.T, s identity.Store) {
	ctx := t.Context()

	for _, u := range unique() {
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
			for _, other := range unique() {
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
