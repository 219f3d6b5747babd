package storetest

import (
	"math"
	"sync/atomic"
	"testing"
	"time"

	"portcullis/identity"
)

func testRevocations(t *testing.T, s identity.Store) {
	ctx := t.Context()
	now := theTime()
	hour := now.Add(time.Hour)

	type subject struct {
		kind identity.RevocationKind
		id   string
	}
	// since returns what there is since a time, by subject.
	since := func(t *testing.T, since, now time.Time) (map[subject]identity.Revocation, time.Time) {
		t.Helper()
		rs, next, err := s.Revocations(ctx, since, now)
		succeed(t, err)
		found := map[subject]identity.Revocation{}
		for _, r := range rs {
			found[subject{r.Kind, r.ID}] = r
			utc(t, r.ExpiresAt)
		}
		return found, next
	}
	revoke := func(t *testing.T, r identity.Revocation) identity.Revocation {
		t.Helper()
		succeed(t, s.Revoke(ctx, r))
		return r
	}
	has := func(t *testing.T, found map[subject]identity.Revocation, want identity.Revocation) {
		t.Helper()
		equal(t, found[subject{want.Kind, want.ID}], want)
	}

	t.Run("a store without revocations returns none, and a value to go on with", func(t *testing.T) {
		found, next := since(t, time.Time{}, now)
		equal(t, len(found), 0)
		r := revoke(t, identity.Revocation{Kind: identity.RevokeSession, ID: newID(), ExpiresAt: hour})
		found, _ = since(t, next, now)
		has(t, found, r)
	})

	t.Run("the zero time returns every revocation, whole", func(t *testing.T) {
		odd, kept := oddTime()
		session := revoke(t, identity.Revocation{Kind: identity.RevokeSession, ID: newID(), ExpiresAt: odd})
		user := revoke(t, identity.Revocation{Kind: identity.RevokeUser, ID: newID(), MinEpoch: math.MaxInt64, ExpiresAt: hour})
		found, _ := since(t, time.Time{}, now)
		session.ExpiresAt = kept
		has(t, found, session)
		has(t, found, user)
	})

	t.Run("a session and a user of one ID are two", func(t *testing.T) {
		id := newID()
		session := revoke(t, identity.Revocation{Kind: identity.RevokeSession, ID: id, ExpiresAt: hour})
		user := revoke(t, identity.Revocation{Kind: identity.RevokeUser, ID: id, MinEpoch: 4, ExpiresAt: hour.Add(time.Hour)})
		found, _ := since(t, time.Time{}, now)
		has(t, found, session)
		has(t, found, user)
	})

	t.Run("of two the higher epoch and the later expiry stay, each for itself", func(t *testing.T) {
		id := newID()
		for _, step := range []struct{ epoch, minutes, wantEpoch, wantMinutes int64 }{
			{5, 30, 5, 30}, {4, 20, 5, 30}, {6, 10, 6, 30}, {3, 40, 6, 40}, {6, 40, 6, 40}, {9, 50, 9, 50},
		} {
			r := identity.Revocation{Kind: identity.RevokeUser, ID: id, MinEpoch: step.epoch, ExpiresAt: now.Add(time.Duration(step.minutes) * time.Minute)}
			revoke(t, r)
			r.MinEpoch, r.ExpiresAt = step.wantEpoch, now.Add(time.Duration(step.wantMinutes)*time.Minute)
			found, _ := since(t, time.Time{}, now)
			has(t, found, r)
		}
	})

	t.Run("a revocation that has expired by now is not returned", func(t *testing.T) {
		r := revoke(t, identity.Revocation{Kind: identity.RevokeSession, ID: newID(), ExpiresAt: hour})
		for _, from := range []time.Time{{}, now.Add(-time.Hour)} {
			found, _ := since(t, from, hour.Add(-time.Millisecond))
			has(t, found, r)
			found, _ = since(t, from, hour)
			if _, ok := found[subject{r.Kind, r.ID}]; ok {
				t.Error("an expired revocation was returned")
			}
		}
	})

	t.Run("a reader who polls sees what was recorded since, and what was raised", func(t *testing.T) {
		_, next := since(t, time.Time{}, now)
		first := revoke(t, identity.Revocation{Kind: identity.RevokeUser, ID: newID(), MinEpoch: 1, ExpiresAt: hour})
		found, next := since(t, next, now)
		has(t, found, first)
		_, next = since(t, next, now)
		second := revoke(t, identity.Revocation{Kind: identity.RevokeSession, ID: newID(), ExpiresAt: hour})
		first.MinEpoch = 2
		revoke(t, first)
		found, _ = since(t, next, now)
		has(t, found, second)
		has(t, found, first)
	})

	t.Run("IDs are taken literally", func(t *testing.T) {
		for i, id := range hostile {
			revoke(t, identity.Revocation{Kind: identity.RevokeUser, ID: id, MinEpoch: int64(i + 1), ExpiresAt: hour})
		}
		found, _ := since(t, time.Time{}, now)
		for i, id := range hostile {
			has(t, found, identity.Revocation{Kind: identity.RevokeUser, ID: id, MinEpoch: int64(i + 1), ExpiresAt: hour})
		}
	})

	t.Run("a revocation without or with a malformed kind or ID is refused", func(t *testing.T) {
		before, _ := since(t, time.Time{}, now)
		for _, bad := range []string{"", malformed} {
			refuse(t, s.Revoke(ctx, identity.Revocation{Kind: identity.RevokeSession, ID: bad, ExpiresAt: hour}))
			refuse(t, s.Revoke(ctx, identity.Revocation{Kind: identity.RevocationKind(bad), ID: newID(), ExpiresAt: hour}))
		}
		after, _ := since(t, time.Time{}, now)
		equal(t, len(after), len(before))
	})

	t.Run("of revocations of one user in parallel the highest stays", func(t *testing.T) {
		id := newID()
		for _, err := range together(20, func(i int) error {
			return s.Revoke(ctx, identity.Revocation{Kind: identity.RevokeUser, ID: id, MinEpoch: int64(i), ExpiresAt: hour.Add(time.Duration(-i) * time.Minute)})
		}) {
			succeed(t, err)
		}
		found, _ := since(t, time.Time{}, now)
		has(t, found, identity.Revocation{Kind: identity.RevokeUser, ID: id, MinEpoch: 19, ExpiresAt: hour})
	})

	t.Run("a reader who polls while others write misses none", func(t *testing.T) {
		const writers, each = 8, 20
		ids := make([]string, writers*each)
		for i := range ids {
			ids[i] = newID()
		}
		_, next := since(t, time.Time{}, now)
		var writing atomic.Bool
		writing.Store(true)
		done := make(chan []error, 1)
		go func() {
			errs := together(writers, func(w int) error {
				for i := range each {
					if err := s.Revoke(ctx, identity.Revocation{Kind: identity.RevokeSession, ID: ids[w*each+i], ExpiresAt: hour}); err != nil {
						return err
					}
				}
				return nil
			})
			writing.Store(false)
			done <- errs
		}()
		seen := map[string]bool{}
		for last := false; !last; {
			last = !writing.Load()
			var found map[subject]identity.Revocation
			found, next = since(t, next, now)
			for of := range found {
				seen[of.id] = true
			}
		}
		for _, err := range <-done {
			succeed(t, err)
		}
		for _, id := range ids {
			if !seen[id] {
				t.Errorf("revocation of %s was missed", id)
			}
		}
	})
}
