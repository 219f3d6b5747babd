package storetest

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"portcullis/identity"
)

// newSession returns a session with every field set that lives for an hour.
func newSession(userID string) identity.Session {
	now := theTime()
	return identity.Session{
		ID: newID(), UserID: userID, Counter: 7,
		UserAgent: "curl/8 (a.b; $ne)", IP: "2001:db8::1",
		CreatedAt: now, RotatedAt: now, ExpiresAt: now.Add(time.Hour), EndsAt: now.Add(24 * time.Hour),
	}
}

func createSession(t *testing.T, s identity.Store, session identity.Session) identity.Session {
	t.Helper()
	succeed(t, s.CreateSession(t.Context(), session))
	return session
}

func testSessions(t *testing.T, s identity.Store) {
	ctx := t.Context()

	list := func(t *testing.T, userID string, now time.Time) []identity.Session {
		t.Helper()
		sessions, err := s.Sessions(ctx, userID, now)
		succeed(t, err)
		return sessions
	}

	t.Run("a created session is found with every field", func(t *testing.T) {
		session := createSession(t, s, newSession(newID()))
		got, err := s.Session(ctx, session.ID, session.CreatedAt)
		succeed(t, err)
		equal(t, got, session)
		equal(t, list(t, session.UserID, session.CreatedAt), []identity.Session{session})
	})

	t.Run("times are kept to the millisecond and come back in UTC", func(t *testing.T) {
		session := newSession(newID())
		odd, kept := oddTime()
		session.CreatedAt, session.RotatedAt, session.ExpiresAt, session.EndsAt = odd, odd, odd, odd
		createSession(t, s, session)
		got, err := s.Session(ctx, session.ID, theTime())
		succeed(t, err)
		for _, tm := range []time.Time{got.CreatedAt, got.RotatedAt, got.ExpiresAt, got.EndsAt} {
			equal(t, tm, kept)
			utc(t, tm)
		}
		got, err = s.RotateSession(ctx, session.ID, session.Counter, odd.Add(-time.Second), odd)
		succeed(t, err)
		equal(t, []time.Time{got.RotatedAt, got.ExpiresAt}, []time.Time{kept.Add(-time.Second), kept})
		utc(t, got.RotatedAt, got.ExpiresAt)
	})

	t.Run("a session is over when it expires, and when it ends in any case", func(t *testing.T) {
		now := theTime()
		for name, session := range map[string]identity.Session{
			"expires first": {ExpiresAt: now.Add(time.Hour), EndsAt: now.Add(2 * time.Hour)},
			"ends first":    {ExpiresAt: now.Add(2 * time.Hour), EndsAt: now.Add(time.Hour)},
		} {
			t.Run(name, func(t *testing.T) {
				session.ID, session.UserID = newID(), newID()
				createSession(t, s, session)
				last := now.Add(time.Hour - time.Millisecond)
				_, err := s.Session(ctx, session.ID, last)
				succeed(t, err)
				equal(t, len(list(t, session.UserID, last)), 1)
				for _, later := range []time.Time{now.Add(time.Hour), now.Add(48 * time.Hour)} {
					_, err = s.Session(ctx, session.ID, later)
					fail(t, err, identity.ErrNotFound)
					equal(t, len(list(t, session.UserID, later)), 0)
				}
			})
		}
	})

	t.Run("an unknown or empty ID finds no session", func(t *testing.T) {
		createSession(t, s, newSession(newID()))
		for _, id := range []string{newID(), "", malformed} {
			_, err := s.Session(ctx, id, theTime())
			fail(t, err, identity.ErrNotFound)
			_, err = s.RotateSession(ctx, id, 7, theTime(), theTime().Add(time.Hour))
			fail(t, err, identity.ErrNotFound)
			fail(t, s.DeleteSession(ctx, id), identity.ErrNotFound)
			equal(t, len(list(t, id, theTime())), 0)
			ended, err := s.DeleteSessions(ctx, id, "")
			succeed(t, err)
			equal(t, ended, nil)
		}
	})

	t.Run("IDs and user IDs are taken literally", func(t *testing.T) {
		for _, id := range hostile {
			session := newSession(id)
			session.ID = id
			createSession(t, s, session)
		}
		for _, id := range hostile {
			got, err := s.Session(ctx, id, theTime())
			succeed(t, err)
			equal(t, got.ID, id)
			sessions := list(t, id, theTime())
			if len(sessions) != 1 || sessions[0].ID != id {
				t.Errorf("user %q has %d sessions, want their own one", id, len(sessions))
			}
		}
		for _, id := range hostile {
			ended, err := s.DeleteSessions(ctx, id, "")
			succeed(t, err)
			equal(t, ended, []string{id})
		}
	})

	t.Run("what a client says of itself need not be UTF-8 to be kept", func(t *testing.T) {
		session := newSession(newID())
		session.UserAgent, session.IP = malformed, malformed
		createSession(t, s, session)
		got, err := s.Session(ctx, session.ID, theTime())
		succeed(t, err)
		equal(t, []string{got.UserAgent, got.IP}, []string{replaced, replaced})
	})

	t.Run("an existing ID is a conflict, and the existing session stays", func(t *testing.T) {
		session := createSession(t, s, newSession(newID()))
		other := newSession(newID())
		other.ID = session.ID
		fail(t, s.CreateSession(ctx, other), identity.ErrConflict)
		got, err := s.Session(ctx, session.ID, theTime())
		succeed(t, err)
		equal(t, got, session)
		equal(t, len(list(t, other.UserID, theTime())), 0)
	})

	t.Run("a session without or with a malformed ID or user is refused", func(t *testing.T) {
		for _, bad := range []string{"", malformed} {
			session := newSession(bad)
			refuse(t, s.CreateSession(ctx, session))
			session = newSession(newID())
			session.ID = bad
			refuse(t, s.CreateSession(ctx, session))
			equal(t, len(list(t, session.UserID, theTime())), 0)
		}
	})

	t.Run("a user's sessions are listed newest first", func(t *testing.T) {
		userID, now := newID(), theTime()
		var want []identity.Session
		for i := range 12 {
			session := newSession(userID)
			session.CreatedAt = now.Add(time.Duration(i/2) * time.Second) // pairs of one time are in the order of their IDs
			want = append(want, createSession(t, s, session))
		}
		createSession(t, s, newSession(newID()))
		slices.Reverse(want)
		equal(t, list(t, userID, now), want)
	})

	t.Run("a deleted session is gone, and the user's others are not", func(t *testing.T) {
		session := createSession(t, s, newSession(newID()))
		other := createSession(t, s, newSession(session.UserID))
		succeed(t, s.DeleteSession(ctx, session.ID))
		fail(t, s.DeleteSession(ctx, session.ID), identity.ErrNotFound)
		_, err := s.Session(ctx, session.ID, theTime())
		fail(t, err, identity.ErrNotFound)
		equal(t, list(t, session.UserID, theTime()), []identity.Session{other})
	})

	t.Run("all sessions of a user but the one to keep end, and their IDs are returned", func(t *testing.T) {
		userID := newID()
		foreign := createSession(t, s, newSession(newID()))
		var ids []string
		for range 5 {
			ids = append(ids, createSession(t, s, newSession(userID)).ID)
		}
		ended, err := s.DeleteSessions(ctx, userID, ids[2])
		succeed(t, err)
		slices.Sort(ended)
		equal(t, ended, slices.Concat(ids[:2], ids[3:]))
		left := list(t, userID, theTime())
		if len(left) != 1 || left[0].ID != ids[2] {
			t.Errorf("%d sessions are left, want the one to keep", len(left))
		}
		ended, err = s.DeleteSessions(ctx, userID, foreign.ID)
		succeed(t, err)
		equal(t, ended, ids[2:3])
		equal(t, len(list(t, userID, theTime())), 0)
		_, err = s.Session(ctx, foreign.ID, theTime())
		succeed(t, err)
		ended, err = s.DeleteSessions(ctx, userID, "")
		succeed(t, err)
		equal(t, ended, nil)
	})

	t.Run("of parallel deletions of one session one succeeds", func(t *testing.T) {
		session := createSession(t, s, newSession(newID()))
		exactlyOne(t, together(20, func(int) error { return s.DeleteSession(ctx, session.ID) }), identity.ErrNotFound)
	})
}

func testRotateSession(t *testing.T, s identity.Store) {
	ctx := t.Context()

	t.Run("a rotation raises the counter, sets both times, and changes nothing else", func(t *testing.T) {
		session := createSession(t, s, newSession(newID()))
		now, expires := theTime().Add(time.Minute), theTime().Add(2*time.Hour)
		want := session
		want.Counter, want.RotatedAt, want.ExpiresAt = session.Counter+1, now, expires
		got, err := s.RotateSession(ctx, session.ID, session.Counter, now, expires)
		succeed(t, err)
		equal(t, got, want)
		got, err = s.Session(ctx, session.ID, now)
		succeed(t, err)
		equal(t, got, want)
	})

	t.Run("a rotated session lives by its new expiry, longer or shorter", func(t *testing.T) {
		for _, life := range []time.Duration{2 * time.Hour, time.Minute} {
			session := createSession(t, s, newSession(newID()))
			now := theTime()
			_, err := s.RotateSession(ctx, session.ID, session.Counter, now, now.Add(life))
			succeed(t, err)
			_, err = s.Sweep(ctx, now.Add(life-time.Millisecond))
			succeed(t, err)
			_, err = s.Session(ctx, session.ID, now.Add(life-time.Millisecond))
			succeed(t, err)
			_, err = s.Session(ctx, session.ID, now.Add(life))
			fail(t, err, identity.ErrNotFound)
		}
	})

	t.Run("another counter does not rotate, and changes nothing", func(t *testing.T) {
		session := createSession(t, s, newSession(newID()))
		for _, counter := range []int64{session.Counter - 1, session.Counter + 1, 0, -1} {
			_, err := s.RotateSession(ctx, session.ID, counter, theTime(), theTime().Add(time.Hour))
			fail(t, err, identity.ErrNotFound)
		}
		got, err := s.Session(ctx, session.ID, theTime())
		succeed(t, err)
		equal(t, got, session)
	})

	t.Run("a session that is over is not brought back", func(t *testing.T) {
		for _, end := range []func(*identity.Session, time.Time){
			func(s *identity.Session, now time.Time) { s.ExpiresAt = now },
			func(s *identity.Session, now time.Time) { s.EndsAt = now },
		} {
			now := theTime().Add(time.Minute)
			session := newSession(newID())
			end(&session, now)
			createSession(t, s, session)
			_, err := s.RotateSession(ctx, session.ID, session.Counter, now, now.Add(time.Hour))
			fail(t, err, identity.ErrNotFound)
		}
	})

	t.Run("of 200 parallel rotations with one counter exactly one succeeds", func(t *testing.T) {
		session := createSession(t, s, newSession(newID()))
		now := theTime()
		exactlyOne(t, together(200, func(int) error {
			_, err := s.RotateSession(ctx, session.ID, session.Counter, now, now.Add(time.Hour))
			return err
		}), identity.ErrNotFound)
		got, err := s.Session(ctx, session.ID, now)
		succeed(t, err)
		equal(t, got.Counter, session.Counter+1)
	})

	t.Run("a session that is rotated while all of a user's end has ended too", func(t *testing.T) {
		for range 10 {
			userID, now := newID(), theTime()
			sessions := make([]identity.Session, 5)
			for i := range sessions {
				sessions[i] = createSession(t, s, newSession(userID))
			}
			errs := together(1+2*len(sessions), func(i int) error {
				if i == 0 {
					ended, err := s.DeleteSessions(ctx, userID, "")
					if err == nil && len(ended) != len(sessions) {
						err = fmt.Errorf("%d sessions ended, want %d", len(ended), len(sessions))
					}
					return err
				}
				session := sessions[i%len(sessions)]
				_, _ = s.RotateSession(ctx, session.ID, session.Counter, now, now.Add(time.Hour)) // or finds it gone
				return nil
			})
			succeed(t, errs[0])
			left, err := s.Sessions(ctx, userID, now)
			succeed(t, err)
			equal(t, len(left), 0)
		}
	})

	t.Run("of rotations and a deletion in parallel none brings the session back", func(t *testing.T) {
		for range 10 {
			session := createSession(t, s, newSession(newID()))
			now := theTime()
			errs := together(4, func(i int) error {
				if i == 0 {
					return s.DeleteSession(ctx, session.ID)
				}
				_, err := s.RotateSession(ctx, session.ID, session.Counter, now, now.Add(time.Hour))
				return err
			})
			succeed(t, errs[0])
			_, err := s.Session(ctx, session.ID, now)
			fail(t, err, identity.ErrNotFound)
		}
	})
}
