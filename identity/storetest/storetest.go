// Package storetest is the specification of [identity.Store]: a suite of tests
// that every implementation passes.
//
// Beyond what the interface says it holds every store to the following. Where
// an operation has to be refused for what it was given (an empty or malformed
// key, a limit that is not positive) the error is none of the identity
// package's misses and nothing is stored. A new record whose ID exists is
// refused with ErrConflict. A user need not have an e-mail address. Keys and IDs
// are any UTF-8 text and are compared byte by byte; in other text, bytes that
// are not UTF-8 become U+FFFD.
package storetest

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/google/uuid"

	"portcullis/identity"
)

// Run tests the stores that newStore makes. Each call of newStore has to return
// a new, empty store; Run closes it.
func Run(t *testing.T, newStore func(t *testing.T) identity.Store) {
	for _, part := range []struct {
		name string
		test func(*testing.T, identity.Store)
	}{
		{"Users", testUsers},
		{"UniqueUsers", testUniqueUsers},
		{"UpdateUser", testUpdateUser},
		{"ListUsers", testListUsers},
		{"Administrators", testAdministrators},
		{"Sessions", testSessions},
		{"RotateSession", testRotateSession},
		{"Tokens", testTokens},
		{"Revocations", testRevocations},
		{"Counters", testCounters},
		{"Jobs", testJobs},
		{"Audit", testAudit},
		{"RuleHits", testRuleHits},
		{"Sweep", testSweep},
		{"Life", testLife},
	} {
		t.Run(part.name, func(t *testing.T) {
			s := newStore(t)
			t.Cleanup(func() {
				if err := s.Close(); err != nil {
					t.Errorf("Close: %v", err)
				}
			})
			part.test(t, s)
		})
	}
}

// hostile are values that mean something to some database, encoding or pattern
// language, and things close to each other. A store must take each as itself.
var hostile = []string{
	"$ne", "$where", "a.b", "a.b.", ".", "a", "a\x00", "a\x00b", "\x00", "A",
	"{\"$gt\":\"\"}", "[]", "null", "true", "0", ".*", "^a", "a|b", "(", "[a-z]", `\`, `\x00`, "%", "_", "'", `"`, "a ", " a",
	"role:admin", "ünïcode", "u\u0308", "日本", "\U0001F511", "\u2028", "\uFFFD", "<&>", "../x", "a/b", "a/",
}

// malformed is not UTF-8, and becomes replaced in free text.
const (
	malformed = "a\xffb\xc3"
	replaced  = "a\uFFFDb\uFFFD"
)

// theTime returns the present in the precision of a store. It is the present
// because some backends delete by their own clock what has expired.
func theTime() time.Time { return time.Now().UTC().Truncate(time.Millisecond) }

func newID() string { return uuid.Must(uuid.NewV7()).String() }

// newUser returns a user with every field set and keys that nobody else has.
func newUser(tenant string) identity.User {
	id, now := newID(), theTime()
	return identity.User{
		ID:       id,
		Username: "Name " + id, UsernameKey: "name-" + id, UsernameSkeleton: "skeleton-" + id,
		Email: "Mail-" + id + "@example.org", EmailKey: "mail-" + id + "@example.org", EmailVerified: true,
		PasswordHash: "$2b$12$" + id, Roles: []string{"user", "a.b", "$x"}, Active: true, Tenant: tenant,
		Epoch: 3, Version: 5, CreatedAt: now.Add(-time.Hour), UpdatedAt: now,
	}
}

func createUser(t *testing.T, s identity.Store, u identity.User) identity.User {
	t.Helper()
	succeed(t, s.CreateUser(t.Context(), u))
	return u
}

// succeed ends the test if err is not nil.
func succeed(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatalf("unexpected error: %v", err)
	}
}

// fail checks that err matches want.
func fail(t *testing.T, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("error is %v, want %v", err, want)
	}
}

// refuse checks that err is an error about the input.
func refuse(t *testing.T, err error) {
	t.Helper()
	if err == nil {
		t.Error("accepted, want an error")
	}
	for _, miss := range []error{identity.ErrNotFound, identity.ErrConflict, identity.ErrUsernameTaken, identity.ErrEmailTaken, identity.ErrLastAdministrator, identity.ErrUnavailable} {
		if errors.Is(err, miss) {
			t.Errorf("error is %v, want one about the input", err)
		}
	}
}

// equal compares values; nil and empty slices and maps are the same.
func equal[T any](t *testing.T, got, want T) {
	t.Helper()
	if diff := cmp.Diff(want, got, cmpopts.EquateEmpty()); diff != "" {
		t.Errorf("mismatch (-want +got):\n%s", diff)
	}
}

// utc checks that times are in UTC.
func utc(t *testing.T, times ...time.Time) {
	t.Helper()
	for _, tm := range times {
		if tm.Location() != time.UTC {
			t.Errorf("time %v is not in UTC", tm)
		}
	}
}

// oddTime returns a time that no store keeps as it is, and what it has to keep.
func oddTime() (odd, kept time.Time) {
	kept = theTime().Add(time.Hour)
	return kept.In(time.FixedZone("odd", 5400)).Add(999_999 * time.Nanosecond), kept
}

// together calls f n times at once and returns the errors by index.
func together(n int, f func(i int) error) []error {
	errs := make([]error, n)
	start := make(chan struct{})
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			<-start
			errs[i] = f(i)
		})
	}
	close(start)
	wg.Wait()
	return errs
}

// exactlyOne checks that one call succeeded and the others failed with want.
func exactlyOne(t *testing.T, errs []error, want error) {
	t.Helper()
	succeeded := 0
	for _, err := range errs {
		if err == nil {
			succeeded++
		} else {
			fail(t, err, want)
		}
	}
	if succeeded != 1 {
		t.Errorf("%d of %d parallel calls succeeded, want exactly 1", succeeded, len(errs))
	}
}

// testLife tests what is true of the store as a whole.
func testLife(t *testing.T, s identity.Store) {
	u := createUser(t, s, newUser(""))

	t.Run("an open store answers a ping", func(t *testing.T) {
		succeed(t, s.Ping(t.Context()))
	})

	t.Run("a call whose context has ended says that the store is unavailable and why, and does nothing", func(t *testing.T) {
		ended, cancel := context.WithCancel(t.Context())
		cancel()
		refused := newUser("")
		for name, err := range map[string]error{
			"Ping":       s.Ping(ended),
			"CreateUser": s.CreateUser(ended, refused),
			"DeleteUser": s.DeleteUser(ended, u.ID),
			"Hold":       s.HoldAdministrator(ended, u.ID),
			"User":       second(s.User(ended, u.ID)),
			"List":       second(s.ListUsers(ended, identity.UserQuery{Limit: 1})),
			"Hit":        second(s.Hit(ended, "k", 1, time.Minute, theTime())),
			"Claim":      second(s.ClaimJob(ended, theTime(), time.Minute)),
			"Sessions":   second(s.DeleteSessions(ended, u.ID, "")),
			"PutHits":    s.PutRuleHits(ended, identity.RuleHits{Day: "2026-11-27", Replica: "a"}),
			"SumHits":    second(s.SumRuleHits(ended, "2026-11-27", theTime())),
		} {
			if !errors.Is(err, identity.ErrUnavailable) || !errors.Is(err, context.Canceled) {
				t.Errorf("%s: error is %v, want ErrUnavailable and context.Canceled", name, err)
			}
		}
		_, err := s.User(t.Context(), refused.ID)
		fail(t, err, identity.ErrNotFound)
		_, err = s.User(t.Context(), u.ID)
		succeed(t, err)
	})

	t.Run("a closed store fails, and says that it is unavailable", func(t *testing.T) {
		succeed(t, s.Close())
		for name, err := range map[string]error{
			"Ping":          s.Ping(t.Context()),
			"CreateUser":    s.CreateUser(t.Context(), newUser("")),
			"User":          second(s.User(t.Context(), u.ID)),
			"Hit":           second(s.Hit(t.Context(), "k", 1, time.Minute, theTime())),
			"CreateSession": s.CreateSession(t.Context(), newSession(u.ID)),
		} {
			if !errors.Is(err, identity.ErrUnavailable) {
				t.Errorf("%s: error is %v, want ErrUnavailable", name, err)
			}
		}
	})

	t.Run("closing twice is closing once", func(t *testing.T) {
		succeed(t, s.Close())
	})
}

// second returns the error of a call with one result.
func second[T any](_ T, err error) error { return err }

// quoted makes a name for a subtest out of any bytes.
func quoted(s string) string { return fmt.Sprintf("%q", s) }
