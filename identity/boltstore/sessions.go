package boltstore

import (
	"context"
	"slices"
	"strings"
	"time"

	"go.etcd.io/bbolt"

	"portcullis/identity"
)

// CreateSession implements [identity.SessionStore].
func (s *Store) CreateSession(ctx context.Context, session identity.Session) error {
	return s.write(ctx, "create session", func(tx *bbolt.Tx) error {
		r := sessionRecord(session)
		r.CreatedAt, r.RotatedAt = stored(r.CreatedAt), stored(r.RotatedAt)
		r.ExpiresAt, r.EndsAt = stored(r.ExpiresAt), stored(r.EndsAt)
		if err := required(named{"ID", r.ID}, named{"UserID", r.UserID}); err != nil {
			return err
		}
		return sessions.insert(tx, r)
	})
}

// Session implements [identity.SessionStore].
func (s *Store) Session(ctx context.Context, id string, now time.Time) (identity.Session, error) {
	var found sessionRecord
	err := s.read(ctx, "find session", func(tx *bbolt.Tx) (err error) {
		found, err = liveSession(tx, id, now)
		return err
	})
	if err != nil {
		return identity.Session{}, err
	}
	return identity.Session(found), nil
}

// RotateSession implements [identity.SessionStore].
func (s *Store) RotateSession(ctx context.Context, id string, counter int64, now, expiresAt time.Time) (identity.Session, error) {
	var rotated sessionRecord
	err := s.write(ctx, "rotate session", func(tx *bbolt.Tx) error {
		old, err := liveSession(tx, id, now)
		if err != nil {
			return err
		}
		if old.Counter != counter {
			return identity.ErrNotFound
		}
		rotated = old
		rotated.Counter = counter + 1
		rotated.RotatedAt, rotated.ExpiresAt = stored(now), stored(expiresAt)
		return sessions.put(tx, &old, rotated)
	})
	if err != nil {
		return identity.Session{}, err
	}
	return identity.Session(rotated), nil
}

// Sessions implements [identity.SessionStore].
func (s *Store) Sessions(ctx context.Context, userID string, now time.Time) ([]identity.Session, error) {
	var live []identity.Session
	err := s.read(ctx, "list sessions", func(tx *bbolt.Tx) error {
		all, err := sessions.under(tx, "user", group(userID))
		if err != nil {
			return err
		}
		for _, r := range all {
			if !expired(r.over(), now) {
				live = append(live, identity.Session(r))
			}
		}
		return nil
	})
	slices.SortFunc(live, func(a, b identity.Session) int {
		if c := b.CreatedAt.Compare(a.CreatedAt); c != 0 {
			return c
		}
		return strings.Compare(b.ID, a.ID)
	})
	return live, err
}

// DeleteSession implements [identity.SessionStore].
func (s *Store) DeleteSession(ctx context.Context, id string) error {
	return s.write(ctx, "delete session", func(tx *bbolt.Tx) error {
		r, err := sessions.get(tx, []byte(id))
		if err != nil {
			return err
		}
		return sessions.remove(tx, &r)
	})
}

// DeleteSessions implements [identity.SessionStore].
func (s *Store) DeleteSessions(ctx context.Context, userID, keep string) ([]string, error) {
	var ended []string
	err := s.write(ctx, "delete sessions", func(tx *bbolt.Tx) error {
		ended = nil
		all, err := sessions.under(tx, "user", group(userID))
		if err != nil {
			return err
		}
		for i := range all {
			if all[i].ID == keep {
				continue
			}
			if err := sessions.remove(tx, &all[i]); err != nil {
				return err
			}
			ended = append(ended, all[i].ID)
		}
		return nil
	})
	return ended, err // after a failed commit nobody knows: these may have ended
}

// liveSession returns the session with that ID that is not over by now, or
// ErrNotFound.
func liveSession(tx *bbolt.Tx, id string, now time.Time) (sessionRecord, error) {
	r, err := sessions.get(tx, []byte(id))
	if err == nil && expired(r.over(), now) {
		err = identity.ErrNotFound
	}
	return r, err
}
