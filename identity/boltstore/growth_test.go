package boltstore_test

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sync/errgroup"

	"portcullis/identity/boltstore"
	"portcullis/identity/storetest"
)

// BenchmarkAccountsGrow compares what a login costs with 1,000 users and with
// 100,000: see storetest.Growth. `make bench-accounts` runs it.
func BenchmarkAccountsGrow(b *testing.B) {
	if os.Getenv("BENCH_ACCOUNTS") == "" {
		b.Skip("make bench-accounts runs this")
	}
	few := storetest.Sized{Users: 1_000, Store: filled(b, 1_000)}
	many := storetest.Sized{Users: 100_000, Store: filled(b, 100_000)}
	b.ResetTimer()
	storetest.Growth(b, few, many)
}

// filled is a store with n users. Many writers at once share their commits.
func filled(b *testing.B, n int) *boltstore.Store {
	b.Helper()
	s := open(b, filepath.Join(b.TempDir(), "identity.db"))
	var g errgroup.Group
	g.SetLimit(500)
	for i := range n {
		g.Go(func() error { return s.CreateUser(b.Context(), storetest.GrowthUser(i)) })
	}
	if err := g.Wait(); err != nil {
		b.Fatal(err)
	}
	return s
}
