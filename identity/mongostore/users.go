package mongostore

import (
	"cmp"
	"context"
	"time"
	"unicode/utf8"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"portcullis/identity"
)

// userDoc is identity.User under the names of the database.
type userDoc struct {
	ID               string    `bson:"_id"`
	Username         string    `bson:"username"`
	UsernameKey      string    `bson:"username_key"`
	UsernameSkeleton string    `bson:"username_skeleton"`
	Email            string    `bson:"email"`
	EmailKey         string    `bson:"email_key,omitempty"` // absent, and so not in the unique index
	EmailVerified    bool      `bson:"email_verified"`
	PasswordHash     string    `bson:"password_hash"`
	Roles            []string  `bson:"roles"`
	Active           bool      `bson:"active"`
	Tenant           string    `bson:"tenant"`
	Epoch            int64     `bson:"epoch"`
	Version          int64     `bson:"version"`
	CreatedAt        time.Time `bson:"created_at"`
	UpdatedAt        time.Time `bson:"updated_at"`
}

func newUserDoc(u identity.User) (userDoc, error) {
	d := userDoc(u)
	d.Username, d.Email, d.PasswordHash = text(u.Username), text(u.Email), text(u.PasswordHash)
	d.Roles = make([]string, len(u.Roles))
	for i, role := range u.Roles {
		d.Roles[i] = text(role)
	}
	d.CreatedAt, d.UpdatedAt = stored(u.CreatedAt), stored(u.UpdatedAt)
	if err := optional(named{"EmailKey", u.EmailKey}, named{"Tenant", u.Tenant}); err != nil {
		return d, err
	}
	return d, required(named{"ID", u.ID}, named{"UsernameKey", u.UsernameKey}, named{"UsernameSkeleton", u.UsernameSkeleton})
}

// CreateUser implements [identity.UserStore].
func (s *Store) CreateUser(ctx context.Context, u identity.User) error {
	const doing = "create user"
	ctx, cancel := s.bound(ctx)
	defer cancel()
	d, err := newUserDoc(u)
	if err != nil {
		return failure(doing, err)
	}
	for range tries(ctx) {
		if _, err = s.users.InsertOne(ctx, d); !lostRace(err) {
			return failure(doing, err)
		}
		if there, err := exists(ctx, s.users, eq("_id", d.ID)); err != nil {
			return failure(doing, err)
		} else if there {
			return failure(doing, identity.ErrConflict)
		}
		if err := s.taken(ctx, d); err != nil {
			return failure(doing, err)
		}
	}
	return failure(doing, busy(ctx))
}

// taken finds out which key of d another user has: servers name the violated
// index in different words, and MongoDB's quote keys that users have chosen.
// It returns nil if by now nobody has one.
func (s *Store) taken(ctx context.Context, d userDoc) error {
	for _, unique := range []struct {
		field, value string
		taken        error
	}{
		{"username_key", d.UsernameKey, identity.ErrUsernameTaken},
		{"username_skeleton", d.UsernameSkeleton, identity.ErrUsernameTaken},
		{"email_key", d.EmailKey, identity.ErrEmailTaken},
	} {
		if unique.value == "" {
			continue
		}
		there, err := exists(ctx, s.users, eq(unique.field, unique.value), elem("_id", bson.D{elem("$ne", d.ID)}))
		if err != nil {
			return err
		}
		if there {
			return unique.taken
		}
	}
	return nil
}

// User implements [identity.UserStore].
func (s *Store) User(ctx context.Context, id string) (identity.User, error) {
	return s.findUser(ctx, "_id", id)
}

// UserByUsername implements [identity.UserStore].
func (s *Store) UserByUsername(ctx context.Context, key string) (identity.User, error) {
	return s.findUser(ctx, "username_key", key)
}

// UserByEmail implements [identity.UserStore].
func (s *Store) UserByEmail(ctx context.Context, key string) (identity.User, error) {
	return s.findUser(ctx, "email_key", key)
}

func (s *Store) findUser(ctx context.Context, field, key string) (identity.User, error) {
	const doing = "find user"
	ctx, cancel := s.bound(ctx)
	defer cancel()
	if !findable(key) {
		return identity.User{}, absent(ctx, doing)
	}
	d, err := one[userDoc](s.users.FindOne(ctx, bson.D{eq(field, key)}))
	return identity.User(d), failure(doing, err)
}

// UpdateUser implements [identity.UserStore].
func (s *Store) UpdateUser(ctx context.Context, u identity.User) (identity.User, error) {
	const doing = "update user"
	ctx, cancel := s.bound(ctx)
	defer cancel()
	d, err := newUserDoc(u)
	if err != nil {
		return identity.User{}, failure(doing, err)
	}
	d.Version++
	for range tries(ctx) {
		r, err := s.users.ReplaceOne(ctx, bson.D{eq("_id", u.ID), eq("version", u.Version)}, d)
		if lostRace(err) {
			if err = s.taken(ctx, d); err == nil {
				continue
			}
		}
		if err != nil {
			return identity.User{}, failure(doing, err)
		}
		if r.MatchedCount == 1 {
			return identity.User(d), nil
		}
		if there, err := exists(ctx, s.users, eq("_id", u.ID)); err != nil || !there {
			return identity.User{}, failure(doing, cmp.Or(err, mongo.ErrNoDocuments))
		}
		return identity.User{}, failure(doing, identity.ErrConflict)
	}
	return identity.User{}, failure(doing, busy(ctx))
}

// DeleteUser implements [identity.UserStore].
func (s *Store) DeleteUser(ctx context.Context, id string) error {
	return s.deleteOne(ctx, "delete user", s.users, id)
}

// ListUsers implements [identity.UserStore].
func (s *Store) ListUsers(ctx context.Context, q identity.UserQuery) ([]identity.User, error) {
	const doing = "list users"
	ctx, cancel := s.bound(ctx)
	defer cancel()
	if q.Limit <= 0 {
		return nil, failure(doing, inputError("the limit must be positive"))
	}
	if q.UsernamePrefix != "" && q.EmailPrefix != "" {
		return nil, failure(doing, inputError("at most one prefix may be set"))
	}
	field, prefix := "username_key", q.UsernamePrefix
	if q.EmailPrefix != "" {
		field, prefix = "email_key", q.EmailPrefix
	}
	var filter bson.D
	if q.Tenant != nil {
		if !utf8.ValidString(*q.Tenant) {
			return nil, nil
		}
		filter = append(filter, eq("tenant", *q.Tenant))
	}
	if !utf8.ValidString(prefix) || !utf8.ValidString(q.After) {
		return nil, nil
	}
	if bounds := beginning(prefix, q.After); len(bounds) > 0 {
		filter = append(filter, elem(field, bounds))
	}
	docs, err := find[userDoc](ctx, s.users, filter, options.Find().SetSort(bson.D{elem(field, 1)}).SetLimit(int64(q.Limit)))
	var users []identity.User
	for _, d := range docs {
		users = append(users, identity.User(d))
	}
	return users, failure(doing, err)
}

// beginning bounds a field to the values that begin with prefix and come after
// the given one. It is a range, never a pattern.
func beginning(prefix, after string) bson.D {
	var bounds bson.D
	switch {
	case after != "" && after >= prefix:
		bounds = append(bounds, elem("$gt", after))
	case prefix != "":
		bounds = append(bounds, elem("$gte", prefix))
	}
	if end := successor(prefix); end != "" {
		bounds = append(bounds, elem("$lt", end))
	}
	return bounds
}

// successor returns the least text that is greater than all that begin with
// prefix, or "" if there is none. Bytes of UTF-8 and code points have one order.
func successor(prefix string) string {
	for prefix != "" {
		last, size := utf8.DecodeLastRuneInString(prefix)
		prefix = prefix[:len(prefix)-size]
		switch last {
		case utf8.MaxRune:
			continue // nothing is greater: raise what comes before
		case 0xD7FF:
			return prefix + "\uE000" // surrogates are not text
		default:
			return prefix + string(last+1)
		}
	}
	return ""
}
