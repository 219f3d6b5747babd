package boltstore

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"go.etcd.io/bbolt"

	"portcullis/identity"
)

// An index entry without its record would answer "taken" for ever; a record
// without its entry would never be found. Whatever is done to the store, in any
// order, entries and records have to belong together.
func TestIndexEntriesAreExactlyThoseOfTheRecords(t *testing.T) {
	s, err := Open(filepath.Join(t.TempDir(), "identity.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = s.Close() }()
	ctx, start := t.Context(), time.Now()
	pick := func(what string) string { return fmt.Sprint(what, rand.IntN(6)) }
	in := func() time.Time { return start.Add(time.Duration(rand.IntN(100)) * time.Second) }
	do := []func(){
		func() {
			_ = s.CreateUser(ctx, identity.User{ID: pick("u"), UsernameKey: pick("n"), UsernameSkeleton: pick("s"), EmailKey: pick("m"), Tenant: pick("t")})
		},
		func() {
			u, err := s.User(ctx, pick("u"))
			if err == nil {
				u.UsernameKey, u.EmailKey, u.Tenant = pick("n"), []string{"", pick("m")}[rand.IntN(2)], pick("t")
				_, _ = s.UpdateUser(ctx, u)
			}
		},
		func() { _ = s.DeleteUser(ctx, pick("u")) },
		func() {
			_ = s.CreateSession(ctx, identity.Session{ID: pick("s"), UserID: pick("u"), ExpiresAt: in(), EndsAt: in()})
		},
		func() { _, _ = s.RotateSession(ctx, pick("s"), 0, start, in()) },
		func() { _ = s.DeleteSession(ctx, pick("s")) },
		func() { _, _ = s.DeleteSessions(ctx, pick("u"), pick("s")) },
		func() {
			_ = s.PutToken(ctx, identity.OneTimeToken{Purpose: identity.Purpose(pick("p")), UserID: pick("u"), Hash: pick("h"), ExpiresAt: in()})
		},
		func() { _, _ = s.TakeToken(ctx, identity.Purpose(pick("p")), pick("h"), start) },
		func() { _ = s.DeleteTokens(ctx, pick("u")) },
		func() { _ = s.Revoke(ctx, identity.Revocation{Kind: "user", ID: pick("u"), ExpiresAt: in()}) },
		func() { _, _ = s.Hit(ctx, pick("k"), rand.IntN(4)-2, 10*time.Second, in()) },
		func() { _ = s.Forget(ctx, pick("k")) },
		func() { _ = s.Enqueue(ctx, identity.Job{ID: pick("j"), NextAt: in()}) },
		func() { _, _ = s.ClaimJob(ctx, in(), 10*time.Second) },
		func() { _ = s.RetryJob(ctx, pick("j"), in()) },
		func() { _ = s.FinishJob(ctx, pick("j")) },
		func() {
			_ = s.AppendAudit(ctx, identity.AuditRecord{ID: pick("a"), Event: pick("e"), Tenant: pick("t"), UserID: pick("u"), ExpiresAt: in()})
		},
		func() { _, _ = s.Sweep(ctx, start.Add(time.Duration(rand.IntN(20))*time.Second)) },
	}
	for range 3000 {
		do[rand.IntN(len(do))]()
	}
	if err := s.db.View(func(tx *bbolt.Tx) error {
		matches(t, tx, &users)
		matches(t, tx, &sessions)
		matches(t, tx, &tokens)
		matches(t, tx, &revocations)
		matches(t, tx, &counters)
		matches(t, tx, &jobs)
		matches(t, tx, &audits)
		return nil
	}); err != nil {
		t.Fatal(err)
	}
}

func matches[R any](t *testing.T, tx *bbolt.Tx, table *table[R]) {
	t.Helper()
	want := map[string][]string{}
	_ = table.bucket(tx).ForEach(func(key, raw []byte) error {
		var r R
		if err := json.Unmarshal(raw, &r); err != nil || !bytes.Equal(table.key(&r), key) {
			t.Errorf("%s: record %q does not belong under its key (%v)", table.name, key, err)
		}
		for _, ix := range table.all() {
			if k := ix.key(&r); k != nil {
				want[ix.name] = append(want[ix.name], fmt.Sprintf("%q to %q", k, key))
			}
		}
		return nil
	})
	for _, ix := range table.all() {
		var got []string
		_ = table.index(tx, ix.name).ForEach(func(k, v []byte) error {
			got = append(got, fmt.Sprintf("%q to %q", k, v))
			return nil
		})
		slices.Sort(got)
		slices.Sort(want[ix.name])
		if !slices.Equal(got, want[ix.name]) {
			t.Errorf("%s.%s has entries %v, want %v", table.name, ix.name, got, want[ix.name])
		}
	}
}

func TestOneTransactionOfASweepIsShort(t *testing.T) {
	s, err := Open(filepath.Join(t.TempDir(), "identity.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = s.Close() }()
	now := time.Now()
	if err := s.db.Update(func(tx *bbolt.Tx) error {
		for i := range 20 {
			if err := counters.insert(tx, counterRecord{Key: fmt.Sprint(i), ExpiresAt: now}); err != nil {
				return err
			}
		}
		for _, want := range []int{8, 8, 4, 0} {
			if n, err := counters.sweep(tx, now, 8); err != nil || n != want {
				t.Errorf("swept %d, %v, want %d", n, err, want)
			}
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
}

func TestAFileOfAnotherFormatIsRefused(t *testing.T) {
	path := filepath.Join(t.TempDir(), "identity.db")
	s, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.db.Update(func(tx *bbolt.Tx) error { return tx.Bucket(metaBucket).Put(formatKey, []byte("2")) }); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	for range 2 { // the refusal lets go of the file
		if s, err := Open(path); err == nil {
			_ = s.Close()
			t.Fatal("opened, want an error")
		} else if want := `format "2"`; !bytes.Contains([]byte(err.Error()), []byte(want)) {
			t.Fatalf("Open: %v, want %s in it", err, want)
		}
	}
}

func TestTheClockOfRevocationsDoesNotGoBackWithTheMachines(t *testing.T) {
	s, err := Open(filepath.Join(t.TempDir(), "identity.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = s.Close() }()
	now := time.Now()
	revoke := func(id string) {
		t.Helper()
		if err := s.Revoke(t.Context(), identity.Revocation{Kind: identity.RevokeSession, ID: id, ExpiresAt: now.Add(time.Hour)}); err != nil {
			t.Fatal(err)
		}
	}
	ahead := now.Add(24 * time.Hour).UnixMilli()
	if err := s.db.Update(func(tx *bbolt.Tx) error { return revocations.bucket(tx).SetSequence(uint64(ahead)) }); err != nil {
		t.Fatal(err)
	}
	revoke("while the clock was ahead")
	_, next, err := s.Revocations(t.Context(), time.Time{}, now)
	if err != nil {
		t.Fatal(err)
	}
	revoke("after it was put right")
	rs, _, err := s.Revocations(t.Context(), next, now)
	if err != nil || len(rs) != 1 || rs[0].ID != "after it was put right" {
		t.Errorf("Revocations: %v, %v, want exactly the new one", rs, err)
	}
}
