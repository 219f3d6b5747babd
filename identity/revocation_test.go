package identity_test

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"portcullis/identity"
)

func TestRevocationsReachEveryReplica(t *testing.T) {
	w := newWorld(t)
	elsewhere := w.replica()
	w.user("ana")
	g := w.login("ana")
	w.must(w.Logout(w.ctx, w.who(g.AccessToken), identity.LogoutLocal, here))
	w.refused(g.AccessToken)
	elsewhere.believed(g.AccessToken) // not yet
	w.must(elsewhere.revocations.Sync(w.ctx, w.clock.Now()))
	elsewhere.refused(g.AccessToken)
	late := w.replica() // starts knowing
	late.refused(g.AccessToken)
}

// A revocation counts on the replica that made it even if the store could not be
// told; the caller hears that the others do not know.
func TestRevocationCountsHereWhenTheStoreIsAway(t *testing.T) {
	w := newWorld(t)
	w.user("ana")
	g := w.login("ana")
	me := w.who(g.AccessToken)
	w.store.failing(0)
	w.want(w.Logout(w.ctx, me, identity.LogoutLocal, here), identity.ErrUnavailable)
	w.refused(g.AccessToken)
	w.store.heal()
	w.must(w.Logout(w.ctx, me, identity.LogoutLocal, here))
	w.replica().refused(g.AccessToken)
}

// It is remembered as long as a token that it is about can be valid, also one
// that another replica has just issued, and not much longer.
func TestRevocationsAreForgotten(t *testing.T) {
	w := newWorld(t)
	u := w.user("ana")
	var last identity.Grant
	for range 10 {
		last = w.login("ana")
	}
	w.must(w.LogoutUser(w.ctx, nil, u.ID, here))
	_, err := w.UpdateUser(w.ctx, nil, u.ID, identity.Change{Roles: &[]string{}}, here)
	w.must(err)
	if n := w.revocations.Len(); n != 11 {
		t.Errorf("%d revocations", n)
	}
	w.clock.advance(accessTTL - time.Second)
	w.must(w.revocations.Sync(w.ctx, w.clock.Now()))
	w.refused(last.AccessToken)
	w.clock.advance(3 * time.Minute)
	w.must(w.revocations.Sync(w.ctx, w.clock.Now()))
	if n := w.revocations.Len(); n != 0 {
		t.Errorf("%d revocations are kept of tokens that have expired", n)
	}
	if _, err := w.Tokens().Verify([]byte(last.AccessToken)); !errors.Is(err, identity.ErrTokenExpired) {
		t.Error(err)
	}
}

func TestStaleRevocations(t *testing.T) {
	w := newWorld(t)
	w.user("ana")
	g := w.login("ana")
	check := func(deny bool) (*identity.Revocations, func() error) {
		cfg := identity.RevocationConfig{}
		if deny {
			cfg.MaxStaleness = 30 * time.Second
		}
		r := identity.NewRevocations(cfg, w.store, slog.New(slog.DiscardHandler))
		tokens := identity.NewTokens(identity.TokensConfig{Issuer: "https://id.example", Audience: "api", AccessTTL: accessTTL, Now: w.clock.Now}, w.keys, r)
		return r, func() error { _, err := tokens.Verify([]byte(g.AccessToken)); return err }
	}
	deny, denied := check(true)
	serve, served := check(false)
	w.want(denied(), identity.ErrRevocationsStale) // nothing has been learnt yet
	w.must(deny.Sync(w.ctx, w.clock.Now()))
	w.must(serve.Sync(w.ctx, w.clock.Now()))
	w.must(denied())

	w.store.failing(0)
	w.clock.advance(30 * time.Second)
	w.want(deny.Sync(w.ctx, w.clock.Now()), identity.ErrUnavailable)
	w.must(denied())
	w.clock.advance(time.Second)
	w.want(denied(), identity.ErrRevocationsStale)
	if got := deny.Staleness(w.clock.Now()); got != 31*time.Second {
		t.Errorf("stale for %v", got)
	}
	w.must(served())

	w.store.heal()
	w.must(deny.Sync(w.ctx, w.clock.Now()))
	w.must(denied())
}

// What was revoked while the store was away for a reader is learnt afterwards.
func TestNoRevocationIsMissed(t *testing.T) {
	w := newWorld(t)
	w.user("ana")
	reader := w.replica()
	var grants []identity.Grant
	for range 30 {
		grants = append(grants, w.login("ana"))
	}
	var done atomic.Bool
	var wg sync.WaitGroup
	wg.Go(func() {
		for !done.Load() {
			w.must(reader.revocations.Sync(w.ctx, w.clock.Now()))
		}
	})
	var writers sync.WaitGroup
	for i := range 3 {
		writers.Go(func() {
			for j := i; j < len(grants); j += 3 {
				p, err := w.Tokens().Verify([]byte(grants[j].AccessToken))
				if err == nil {
					err = w.Logout(w.ctx, p, identity.LogoutLocal, here)
				}
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	writers.Wait()
	done.Store(true)
	wg.Wait()
	w.must(reader.revocations.Sync(w.ctx, w.clock.Now()))
	for _, g := range grants {
		reader.refused(g.AccessToken)
	}
}

func TestRevocationsArePolledUntilTheEnd(t *testing.T) {
	w := newWorld(t)
	w.user("ana")
	g := w.login("ana")
	log := &logs{}
	r := identity.NewRevocations(identity.RevocationConfig{Poll: time.Millisecond}, w.store, slog.New(slog.NewTextHandler(log, nil)))
	ctx, cancel := context.WithCancel(w.ctx)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		r.Run(ctx)
	}()
	eventually := func(what string, ok func() bool) {
		t.Helper()
		for deadline := time.Now().Add(identity.Patience); !ok(); time.Sleep(time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("never: %s", what)
			}
		}
	}
	p := w.who(g.AccessToken)
	w.must(w.Logout(w.ctx, p, identity.LogoutLocal, here))
	eventually("the revocation is learnt", func() bool { return r.Len() == 1 })

	count := w.store.failing(0)
	eventually("the store is asked again and again", func() bool { return count() > 5 })
	w.store.heal()
	eventually("it is logged that the store is back", func() bool { return countLines(log.String(), "again") == 1 })
	if n := countLines(log.String(), "cannot be read"); n != 1 {
		t.Errorf("the failure was logged %d times", n)
	}
	cancel()
	<-ended
}
