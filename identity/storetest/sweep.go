package storetest

import (
	"testing"
	"time"

	"portcullis/identity"
)

func testSweep(t *testing.T, s identity.Store) {
	ctx := t.Context()
	now := theTime()
	soon, late := now.Add(time.Minute), now.Add(time.Hour)

	// Of each kind of record that expires, one that does so soon and one that
	// does so late.
	user := createUser(t, s, newUser(""))
	var gone, left identity.Session
	for at, session := range map[time.Time]*identity.Session{soon: &gone, late: &left} {
		*session = newSession(user.ID)
		session.ExpiresAt = at
		createSession(t, s, *session)
	}
	reset, verify := newToken(identity.PurposeReset, user.ID), newToken(identity.PurposeVerify, user.ID)
	reset.ExpiresAt, verify.ExpiresAt = soon, late
	putToken(t, s, reset)
	putToken(t, s, verify)
	succeed(t, s.Revoke(ctx, identity.Revocation{Kind: identity.RevokeSession, ID: gone.ID, ExpiresAt: soon}))
	kept := identity.Revocation{Kind: identity.RevokeSession, ID: left.ID, ExpiresAt: late}
	succeed(t, s.Revoke(ctx, kept))
	count := func(window time.Duration, n, want int) {
		t.Helper()
		got, err := s.Hit(ctx, "key", n, window, now)
		succeed(t, err)
		equal(t, got, want)
	}
	count(time.Second, 1, 1)
	count(100*365*24*time.Hour, 1, 1)
	short, long := newAudit("", user.ID, "login"), newAudit("", user.ID, "login")
	short.ExpiresAt, long.ExpiresAt = soon, late
	appendAudit(t, s, short)
	appendAudit(t, s, long)
	for at, day := range map[time.Time]string{soon: "2026-11-26", late: "2026-11-27"} {
		succeed(t, s.PutRuleHits(ctx, identity.RuleHits{Day: day, Replica: "a", Counts: map[string]int64{"x": 1}, ExpiresAt: at}))
	}
	job := enqueue(t, s, newJob(now))
	succeed(t, s.HoldAdministrator(ctx, user.ID))

	t.Run("a sweep before anything expires takes nothing", func(t *testing.T) {
		n, err := s.Sweep(ctx, now.Add(-time.Hour))
		succeed(t, err)
		equal(t, n, 0)
		_, err = s.Session(ctx, gone.ID, soon.Add(-time.Millisecond))
		succeed(t, err)
	})

	t.Run("a sweep takes what has expired by then and says how much, unless the backend does that by itself", func(t *testing.T) {
		n, err := s.Sweep(ctx, soon)
		succeed(t, err)
		if n != 6 && n != 0 {
			t.Errorf("%d records were swept, want 6, one of each kind that expires, or 0", n)
		}
		n, err = s.Sweep(ctx, soon)
		succeed(t, err)
		equal(t, n, 0)
	})

	t.Run("a sweep leaves what has not expired", func(t *testing.T) {
		_, err := s.User(ctx, user.ID)
		succeed(t, err)
		sessions, err := s.Sessions(ctx, user.ID, soon)
		succeed(t, err)
		equal(t, sessions, []identity.Session{left})
		rs, _, err := s.Revocations(ctx, time.Time{}, soon)
		succeed(t, err)
		equal(t, rs, []identity.Revocation{kept})
		_, err = s.TakeToken(ctx, verify.Purpose, verify.Hash, soon)
		succeed(t, err)
		count(100*365*24*time.Hour, 0, 1)
		records, err := s.ListAudit(ctx, identity.AuditQuery{Now: soon, Limit: 10})
		succeed(t, err)
		equal(t, records, []identity.AuditRecord{long})
		hits, err := s.SumRuleHits(ctx, "2026-11-26", soon)
		succeed(t, err)
		equal(t, hits, identity.RuleHitSum{First: "2026-11-27", Counts: map[string]int64{"x": 1}})
		j, err := s.ClaimJob(ctx, soon, time.Minute)
		succeed(t, err)
		equal(t, j.ID, job.ID)
		ids, err := s.Administrators(ctx)
		succeed(t, err)
		equal(t, ids, []string{user.ID})
	})

	t.Run("a reader of revocations who polls misses none because of a sweep", func(t *testing.T) {
		_, next, err := s.Revocations(ctx, time.Time{}, now)
		succeed(t, err)
		_, err = s.Sweep(ctx, late)
		succeed(t, err)
		succeed(t, s.Revoke(ctx, identity.Revocation{Kind: identity.RevokeUser, ID: user.ID, MinEpoch: 1, ExpiresAt: late}))
		rs, _, err := s.Revocations(ctx, next, now)
		succeed(t, err)
		found := false
		for _, r := range rs {
			found = found || r.Kind == identity.RevokeUser && r.ID == user.ID
		}
		if !found {
			t.Error("the revocation recorded after the sweep was missed")
		}
	})
}
