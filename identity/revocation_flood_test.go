package identity_test

import (
	"context"
	"fmt"
	"log/slog"
	"testing"
	"time"

	"portcullis/identity"
)

// However many are revoked, the memory for it is bounded, and a token that was
// revoked stays so.
func TestAFloodOfRevocationsIsBounded(t *testing.T) {
	const most = 1 << 18
	store := &revoked{}
	r := identity.NewRevocations(identity.RevocationConfig{}, store, slog.New(slog.DiscardHandler))
	now := time.Now()
	ttl := 15 * time.Minute
	caller := func(n int, issued time.Time) *identity.Principal {
		return &identity.Principal{UserID: fmt.Sprintf("u%d", n), SessionID: fmt.Sprintf("s%d", n), Epoch: 1, IssuedAt: issued, ExpiresAt: issued.Add(ttl)}
	}
	revoke := func(n int) {
		rev := identity.Revocation{Kind: identity.RevokeSession, ID: fmt.Sprintf("s%d", n), ExpiresAt: now.Add(ttl)}
		if n%2 == 1 {
			rev = identity.Revocation{Kind: identity.RevokeUser, ID: fmt.Sprintf("u%d", n), MinEpoch: 2, ExpiresAt: now.Add(ttl)}
		}
		if err := r.Revoke(t.Context(), rev); err != nil {
			t.Fatal(err)
		}
	}
	bystander, foreigner := caller(-1, now), &identity.Principal{UserID: "elsewhere|1", IssuedAt: now, ExpiresAt: now.Add(ttl)}
	for n := range most {
		revoke(n)
	}
	if err := r.Check(bystander, now); err != nil {
		t.Errorf("a bystander, while there is room: %v", err)
	}
	for n := range most/2 + 1 {
		revoke(most + n)
		if r.Len() > most {
			t.Fatalf("%d are remembered", r.Len())
		}
	}
	for _, n := range []int{0, 1, most - 2, most - 1, most, most + most/2} {
		if err := r.Check(caller(n, now), now); err != identity.ErrTokenRevoked { //nolint:errorlint // it is documented as it is
			t.Errorf("%d counts again: %v", n, err)
		}
	}
	// What cannot be told apart any more is refused, until it is issued anew.
	if err := r.Check(bystander, now); err != identity.ErrTokenRevoked { //nolint:errorlint // likewise
		t.Errorf("a bystander: %v", err)
	}
	if err := r.Check(foreigner, now); err != identity.ErrTokenRevoked { //nolint:errorlint // likewise
		t.Errorf("a foreign caller, who may have been logged out, too: %v", err)
	}
	soon := time.Now().Add(10 * time.Second) // clocks differ a little
	if err := r.Check(caller(-1, soon), soon); err != nil {
		t.Errorf("a bystander who has refreshed: %v", err)
	}
}

// The clock of an issuer may be further ahead than that of a replica. Who was logged out
// by what such a clock says stays so when nobody remembers them by name.
func TestAFloodOfRevocationsForgivesNoClockThatIsAhead(t *testing.T) {
	r := identity.NewRevocations(identity.RevocationConfig{}, &revoked{}, slog.New(slog.DiscardHandler))
	now := time.Now()
	ahead := now.Add(4 * time.Minute).Truncate(time.Second)
	foreigner := &identity.Principal{Issuer: "idp", UserID: "idp:1", Epoch: ahead.Unix(), IssuedAt: ahead, ExpiresAt: ahead.Add(time.Hour)}
	for n := range 1<<18 + 1 {
		rev := identity.Revocation{Kind: identity.RevokeSession, ID: fmt.Sprint(n), ExpiresAt: now.Add(time.Hour)}
		if n == 0 {
			rev = identity.Revocation{Kind: identity.RevokeUser, ID: "idp:1", MinEpoch: ahead.Unix() + 1, ExpiresAt: now.Add(time.Hour)}
		}
		if err := r.Revoke(t.Context(), rev); err != nil {
			t.Fatal(err)
		}
	}
	if err := r.Check(foreigner, now); err != identity.ErrTokenRevoked { //nolint:errorlint // it is documented as it is
		t.Errorf("logged out, and counts again: %v", err)
	}
	soon := now.Add(10 * time.Second) // others don't wait for that clock
	if err := r.Check(&identity.Principal{UserID: "u", SessionID: "s", Epoch: 1, IssuedAt: soon, ExpiresAt: soon.Add(time.Minute)}, soon); err != nil {
		t.Errorf("somebody of ours who has refreshed: %v", err)
	}
}

// Once none of those that were forgotten can matter, everything is as before: also
// for foreign tokens that do not say when they were issued.
func TestAFloodOfRevocationsPasses(t *testing.T) {
	r := identity.NewRevocations(identity.RevocationConfig{}, &revoked{}, slog.New(slog.DiscardHandler))
	now := time.Now()
	for n := range 1<<18 + 1 {
		rev := identity.Revocation{Kind: identity.RevokeSession, ID: fmt.Sprint(n), ExpiresAt: now.Add(time.Minute)}
		if err := r.Revoke(t.Context(), rev); err != nil {
			t.Fatal(err)
		}
	}
	timeless := &identity.Principal{UserID: "elsewhere|1", ExpiresAt: now.Add(time.Hour)}
	if err := r.Sync(t.Context(), now.Add(30*time.Second)); err != nil {
		t.Fatal(err)
	}
	if err := r.Check(timeless, now.Add(30*time.Second)); err != identity.ErrTokenRevoked { //nolint:errorlint // it is documented as it is
		t.Errorf("while it lasts: %v", err)
	}
	if err := r.Sync(t.Context(), now.Add(2*time.Minute)); err != nil {
		t.Fatal(err)
	}
	if err := r.Check(timeless, now.Add(2*time.Minute)); err != nil {
		t.Errorf("when it is over: %v", err)
	}
	if r.Len() != 0 {
		t.Errorf("%d are left", r.Len())
	}
}

// revoked is a store that remembers nothing.
type revoked struct{ identity.Store }

func (*revoked) Revoke(context.Context, identity.Revocation) error { return nil }

func (*revoked) Revocations(_ context.Context, _, now time.Time) ([]identity.Revocation, time.Time, error) {
	return nil, now, nil
}
