package mongostore

import (
	"context"
	"os"
	"strings"
	"testing"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	"golang.org/x/sync/errgroup"

	"portcullis/identity/storetest"
)

// BenchmarkAccountsGrow compares what a login costs with 1,000 users and with
// 1,000,000: see storetest.Growth. Loading those takes minutes, so it is only
// done for `make bench-accounts`.
func BenchmarkAccountsGrow(b *testing.B) {
	if os.Getenv("BENCH_ACCOUNTS") == "" {
		b.Skip("make bench-accounts runs this")
	}
	few := storetest.Sized{Users: 1_000, Store: filled(b, 1_000)}
	many := storetest.Sized{Users: 1_000_000, Store: filled(b, 1_000_000)}
	b.ResetTimer()
	storetest.Growth(b, few, many)
}

// filled is a store with n users, each of whom has a session.
func filled(b *testing.B, n int) *Store {
	b.Helper()
	s := openFor(b, server(b), newDatabase(b))
	const batch, writers = 1_000, 2
	var g errgroup.Group
	g.SetLimit(writers)
	start := time.Now()
	for first := 0; first < n; first += batch {
		g.Go(func() error { return s.fill(b.Context(), first, min(batch, n-first)) })
	}
	if err := g.Wait(); err != nil {
		b.Fatal(err)
	}
	b.Logf("%d users loaded in %v", n, time.Since(start).Round(time.Second))
	s.explain(b)
	return s
}

func (s *Store) fill(ctx context.Context, first, n int) error {
	users, sessions := make([]any, n), make([]any, n)
	for i := range n {
		u := storetest.GrowthUser(first + i)
		d, err := newUserDoc(u)
		if err != nil {
			return err
		}
		users[i] = d
		sessions[i] = sessionDoc{ID: u.ID, UserID: u.ID, CreatedAt: u.CreatedAt, RotatedAt: u.CreatedAt,
			ExpiresAt: u.CreatedAt.Add(24 * time.Hour), EndsAt: u.CreatedAt.Add(24 * time.Hour)}
	}
	if _, err := s.users.InsertMany(ctx, users); err != nil {
		return err
	}
	_, err := s.sessions.InsertMany(ctx, sessions)
	return err
}

// explain asks the server how it would find what a login looks for, and fails if
// that is not by the index that is there for it. TestStore holds every query
// against the indexes; this is the server's own word, where it has one.
func (s *Store) explain(b *testing.B) {
	b.Helper()
	for _, q := range []struct{ collection, field, index string }{
		{"users", "username_key", "username_key_1"},
		{"users", "email_key", "email_key_1"},
		{"sessions", "user_id", "user_id_1_created_at_-1__id_-1"},
	} {
		filter := bson.D{eq(q.field, "x")}
		plan, err := s.users.Database().RunCommand(b.Context(), bson.D{
			elem("explain", bson.D{elem("find", q.collection), elem("filter", filter)}), elem("verbosity", "queryPlanner"),
		}).Raw()
		if err != nil {
			b.Logf("the server does not explain itself: %v", err)
			return
		}
		if !strings.Contains(plan.String(), `"`+q.index+`"`) {
			b.Errorf("%s are found by %s without its index: %s", q.collection, q.field, plan)
		}
	}
}
