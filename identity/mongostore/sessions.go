package mongostore

import (
	"context"
	"slices"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"portcullis/identity"
)

// sessionDoc is identity.Session under the names of the database.
type sessionDoc struct {
	ID        string    `bson:"_id"`
	UserID    string    `bson:"user_id"`
	Counter   int64     `bson:"counter"`
	UserAgent string    `bson:"user_agent"`
	IP        string    `bson:"ip"`
	CreatedAt time.Time `bson:"created_at"`
	RotatedAt time.Time `bson:"rotated_at"`
	ExpiresAt time.Time `bson:"expires_at"`
	EndsAt    time.Time `bson:"ends_at"`
}

// CreateSession implements [identity.SessionStore].
func (s *Store) CreateSession(ctx context.Context, session identity.Session) error {
	d := sessionDoc(session)
	d.UserAgent, d.IP = text(d.UserAgent), text(d.IP)
	return s.insert(ctx, "create session", s.sessions, d, required(named{"ID", d.ID}, named{"UserID", d.UserID}))
}

// Session implements [identity.SessionStore].
func (s *Store) Session(ctx context.Context, id string, now time.Time) (identity.Session, error) {
	const doing = "find session"
	ctx, cancel := s.bound(ctx)
	defer cancel()
	if !findable(id) {
		return identity.Session{}, absent(ctx, doing)
	}
	d, err := one[sessionDoc](s.sessions.FindOne(ctx, live(now, eq("_id", id))))
	return identity.Session(d), failure(doing, err)
}

// RotateSession implements [identity.SessionStore].
func (s *Store) RotateSession(ctx context.Context, id string, counter int64, now, expiresAt time.Time) (identity.Session, error) {
	const doing = "rotate session"
	ctx, cancel := s.bound(ctx)
	defer cancel()
	if !findable(id) {
		return identity.Session{}, absent(ctx, doing)
	}
	d, err := one[sessionDoc](s.sessions.FindOneAndUpdate(ctx,
		live(now, eq("_id", id), eq("counter", counter)),
		bson.D{elem("$set", bson.D{elem("counter", counter+1), elem("rotated_at", now), elem("expires_at", expiresAt)})},
		options.FindOneAndUpdate().SetReturnDocument(options.After)))
	return identity.Session(d), failure(doing, err)
}

// Sessions implements [identity.SessionStore]. Which of a user's sessions are over
// is looked at here: a server that is asked for it, too, may walk the index of
// expiry, which holds everybody's (DocumentDB: half a second for a million).
func (s *Store) Sessions(ctx context.Context, userID string, now time.Time) ([]identity.Session, error) {
	ctx, cancel := s.bound(ctx)
	defer cancel()
	if !findable(userID) {
		return nil, nil
	}
	docs, err := find[sessionDoc](ctx, s.sessions, bson.D{eq("user_id", userID)},
		options.Find().SetSort(bson.D{elem("created_at", -1), elem("_id", -1)}))
	var sessions []identity.Session
	for _, d := range docs {
		if d.ExpiresAt.After(stored(now)) && d.EndsAt.After(stored(now)) {
			sessions = append(sessions, identity.Session(d))
		}
	}
	return sessions, failure("list sessions", err)
}

// DeleteSession implements [identity.SessionStore].
func (s *Store) DeleteSession(ctx context.Context, id string) error {
	return s.deleteOne(ctx, "delete session", s.sessions, id)
}

// DeleteSessions implements [identity.SessionStore]. With an error it returns
// the sessions that may have ended before it: what happened to them is unknown,
// and their tokens had better be revoked.
func (s *Store) DeleteSessions(ctx context.Context, userID, keep string) ([]string, error) {
	const doing = "delete sessions"
	ctx, cancel := s.bound(ctx)
	defer cancel()
	if !findable(userID) {
		return nil, failure(doing, ctx.Err())
	}
	ids, err := s.sessionIDs(ctx, eq("user_id", userID))
	if err != nil {
		return nil, failure(doing, err)
	}
	ids = slices.DeleteFunc(ids, func(id string) bool { return id == keep })
	left := ids
	for range tries(ctx) {
		if len(left) == 0 {
			return ids, nil
		}
		all := elem("_id", bson.D{elem("$in", left)})
		r, err := s.sessions.DeleteMany(ctx, bson.D{all})
		if err != nil || r.DeletedCount == int64(len(left)) {
			return ids, failure(doing, err)
		}
		// Some had ended by themselves, or the server has passed over some that
		// were just being rotated, as in deleteOne.
		if left, err = s.sessionIDs(ctx, all); err != nil {
			return ids, failure(doing, err)
		}
	}
	return ids, failure(doing, busy(ctx))
}

// sessionIDs returns the IDs of the sessions that match filter.
func (s *Store) sessionIDs(ctx context.Context, filter bson.E) ([]string, error) {
	docs, err := find[sessionDoc](ctx, s.sessions, bson.D{filter}, options.Find().SetProjection(bson.D{elem("_id", 1)}))
	var ids []string
	for _, d := range docs {
		ids = append(ids, d.ID)
	}
	return ids, err
}

// live matches sessions that are not over by now.
func live(now time.Time, filter ...bson.E) bson.D {
	return append(filter, after("expires_at", now), after("ends_at", now))
}

// insert stores a new document, unless something is wrong with it.
func (s *Store) insert(ctx context.Context, doing string, c *mongo.Collection, d any, wrong error) error {
	ctx, cancel := s.bound(ctx)
	defer cancel()
	if wrong != nil {
		return failure(doing, wrong)
	}
	_, err := c.InsertOne(ctx, d)
	if mongo.IsDuplicateKeyError(err) {
		err = identity.ErrConflict
	}
	return failure(doing, err)
}
