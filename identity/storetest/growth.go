package storetest

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"portcullis/identity"
)

// growthPassword is that of every user of GrowthUser, and growthHash its hash
// (bcrypt, cost 4): what hashing costs is not a store's.
const (
	growthPassword = "correct horse battery"
	growthHash     = "$2a$04$SjyrdoQx0l6Zee0I4I2hN.ChgDBz3.G/kj.fpOjTX4cKLEr03NDom"
)

// GrowthUser is the i-th user that a store is filled with for Growth.
func GrowthUser(i int) identity.User {
	now := theTime()
	name := fmt.Sprintf("user-%07d", i)
	return identity.User{
		ID: newID(), Username: name, UsernameKey: name, UsernameSkeleton: name,
		Email: name + "@example.com", EmailKey: name + "@example.com",
		PasswordHash: growthHash, Roles: []string{"user"}, Active: true,
		Epoch: 1, CreatedAt: now, UpdatedAt: now,
	}
}

// Sized is a store with that many users of GrowthUser, from 0 on.
type Sized struct {
	Users int
	Store identity.Store
}

// Growth measures what a login costs a store with few users and one with many,
// and prints it: the time of every call to the store that Service.Login makes,
// as medians, and how they compare. The two take turns, so that whatever else
// the machine does falls on both. Nothing fails: what is measured on a busy
// machine decides nothing.
func Growth(b *testing.B, few, many Sized) {
	const warmUp, rounds = 50, 400
	sides := []*growing{newGrowing(b, few), newGrowing(b, many)}
	for i := range warmUp + rounds {
		if i == warmUp {
			for _, s := range sides {
				s.forget()
			}
		}
		for _, s := range sides {
			s.login(b, i)
		}
	}
	report(b, sides[0], sides[1])
}

func report(b *testing.B, few, many *growing) {
	var t strings.Builder
	fmt.Fprintf(&t, "the store's part of a login, medians:\n%-18s %6s %12s %12s %7s\n", "call", "times",
		fmt.Sprintf("%d users", few.users), fmt.Sprintf("%d users", many.users), "ratio")
	line := func(name string, a, b []time.Duration, perLogin float64) float64 {
		x, y := median(a), median(b)
		ratio := float64(y) / float64(max(x, 1))
		fmt.Fprintf(&t, "%-18s %6.1f %12s %12s %7.2f\n", name, perLogin, x.Round(time.Microsecond), y.Round(time.Microsecond), ratio)
		return ratio
	}
	for _, name := range slices.Sorted(maps.Keys(few.calls)) {
		line(name, few.calls[name], many.calls[name], float64(len(few.calls[name]))/float64(len(few.total)))
	}
	b.ReportMetric(line("all of them", few.total, many.total, 1), "ratio")
	_, _ = os.Stdout.WriteString("\n" + t.String()) // b.Log cuts what is long
}

func median(d []time.Duration) time.Duration {
	if len(d) == 0 {
		return 0
	}
	return slices.SortedFunc(slices.Values(d), cmp.Compare[time.Duration])[len(d)/2]
}

// growing is a Service over a store whose calls are timed.
type growing struct {
	identity.Store
	users   int
	service *identity.Service

	mu    sync.Mutex
	calls map[string][]time.Duration
	now   time.Duration // of the login under way
	total []time.Duration
}

func newGrowing(b *testing.B, of Sized) *growing {
	b.Helper()
	g := &growing{Store: of.Store, users: of.Users}
	g.forget()
	keys, err := identity.OpenKeyring(filepath.Join(b.TempDir(), "keys"), identity.EdDSA)
	if err != nil {
		b.Fatal(err)
	}
	hasher, err := identity.NewHasher(identity.PasswordConfig{Hash: "bcrypt", Cost: 4, Workers: 1, Queue: 1})
	if err != nil {
		b.Fatal(err)
	}
	log := slog.New(slog.DiscardHandler)
	revocations := identity.NewRevocations(identity.RevocationConfig{}, g, log)
	tokens := identity.NewTokens(identity.TokensConfig{Issuer: "https://id.example", Audience: "api", AccessTTL: time.Minute}, keys, revocations)
	g.service = identity.NewService(identity.Config{
		AdminRoles: []string{"admin"}, RefreshTTL: time.Hour, SessionTTL: time.Hour, AuditTTL: time.Hour,
		LoginLimit: identity.Limit{Attempts: 1000, Window: time.Hour},
	}, g, tokens, revocations, hasher, noRoles{}, nil, log)
	return g
}

type noRoles struct{}

func (noRoles) Roles() []string               { return nil }
func (noRoles) Permissions([]string) []string { return nil }

func (g *growing) forget() { g.calls, g.total = map[string][]time.Duration{}, nil }

// login signs in somebody, from an address of their own.
func (g *growing) login(b *testing.B, i int) {
	b.Helper()
	name := GrowthUser(rand.IntN(g.users)).Username //nolint:gosec // a choice, not a secret
	client := identity.Client{IP: fmt.Sprintf("10.0.%d.%d", i/250, i%250), UserAgent: "growth", RequestID: "growth"}
	g.now = 0
	if _, err := g.service.Login(context.Background(), name, growthPassword, client); err != nil {
		b.Fatal(err)
	}
	g.total = append(g.total, g.now)
}

func (g *growing) timed(name string) func() {
	start := time.Now()
	return func() {
		took := time.Since(start)
		g.mu.Lock()
		defer g.mu.Unlock()
		g.calls[name] = append(g.calls[name], took)
		g.now += took
	}
}

// The calls of a login.

func (g *growing) UserByUsername(ctx context.Context, key string) (identity.User, error) {
	defer g.timed("UserByUsername")()
	return g.Store.UserByUsername(ctx, key)
}

func (g *growing) User(ctx context.Context, id string) (identity.User, error) {
	defer g.timed("User")()
	return g.Store.User(ctx, id)
}

func (g *growing) Hit(ctx context.Context, key string, n int, window time.Duration, now time.Time) (int, error) {
	defer g.timed(fmt.Sprintf("Hit %+d", n))()
	return g.Store.Hit(ctx, key, n, window, now)
}

func (g *growing) Forget(ctx context.Context, key string) error {
	defer g.timed("Forget")()
	return g.Store.Forget(ctx, key)
}

func (g *growing) CreateSession(ctx context.Context, s identity.Session) error {
	defer g.timed("CreateSession")()
	return g.Store.CreateSession(ctx, s)
}

func (g *growing) Sessions(ctx context.Context, userID string, now time.Time) ([]identity.Session, error) {
	defer g.timed("Sessions")()
	return g.Store.Sessions(ctx, userID, now)
}

func (g *growing) AppendAudit(ctx context.Context, r identity.AuditRecord) error {
	defer g.timed("AppendAudit")()
	return g.Store.AppendAudit(ctx, r)
}
