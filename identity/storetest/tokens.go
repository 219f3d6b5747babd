package storetest

import (
	"fmt"
	"testing"
	"time"

	"portcullis/identity"
)

func newToken(purpose identity.Purpose, userID string) identity.OneTimeToken {
	return identity.OneTimeToken{
		Purpose: purpose, UserID: userID, Hash: "hash-" + newID(),
		Email: "Mail@example.org", ExpiresAt: theTime().Add(time.Hour),
	}
}

func putToken(t *testing.T, s identity.Store, token identity.OneTimeToken) identity.OneTimeToken {
	t.Helper()
	succeed(t, s.PutToken(t.Context(), token))
	return token
}

func testTokens(t *testing.T, s identity.Store) {
	ctx := t.Context()

	take := func(token identity.OneTimeToken) error {
		_, err := s.TakeToken(ctx, token.Purpose, token.Hash, theTime())
		return err
	}

	t.Run("a token is taken once, whole", func(t *testing.T) {
		token := newToken(identity.PurposeReset, newID())
		odd, kept := oddTime()
		token.ExpiresAt = odd
		putToken(t, s, token)
		got, err := s.TakeToken(ctx, token.Purpose, token.Hash, theTime())
		succeed(t, err)
		utc(t, got.ExpiresAt)
		token.ExpiresAt = kept
		equal(t, got, token)
		fail(t, take(token), identity.ErrNotFound)
	})

	t.Run("a token that was taken can be put back", func(t *testing.T) {
		token := putToken(t, s, newToken(identity.PurposeReset, newID()))
		succeed(t, take(token))
		putToken(t, s, token)
		succeed(t, take(token))
	})

	t.Run("a new token takes the place of the user's earlier one of that purpose only", func(t *testing.T) {
		first := putToken(t, s, newToken(identity.PurposeReset, newID()))
		verify := putToken(t, s, newToken(identity.PurposeVerify, first.UserID))
		foreign := putToken(t, s, newToken(identity.PurposeReset, newID()))
		second := putToken(t, s, newToken(identity.PurposeReset, first.UserID))
		fail(t, take(first), identity.ErrNotFound)
		succeed(t, take(second))
		succeed(t, take(verify))
		succeed(t, take(foreign))
	})

	t.Run("a token is worth nothing for another purpose, and stays", func(t *testing.T) {
		token := putToken(t, s, newToken(identity.PurposeReset, newID()))
		for _, purpose := range []identity.Purpose{identity.PurposeVerify, "", "res", "reset ", malformed} {
			_, err := s.TakeToken(ctx, purpose, token.Hash, theTime())
			fail(t, err, identity.ErrNotFound)
		}
		succeed(t, take(token))
	})

	t.Run("an unknown, empty or partial hash takes nothing", func(t *testing.T) {
		token := putToken(t, s, newToken(identity.PurposeReset, newID()))
		for _, hash := range []string{"", newID(), token.Hash[:10], token.Hash + "0", malformed, "$ne", "\x00"} {
			_, err := s.TakeToken(ctx, identity.PurposeReset, hash, theTime())
			fail(t, err, identity.ErrNotFound)
		}
		succeed(t, take(token))
	})

	t.Run("a token that has expired by now is not taken", func(t *testing.T) {
		token := putToken(t, s, newToken(identity.PurposeVerify, newID()))
		for _, now := range []time.Time{token.ExpiresAt, token.ExpiresAt.Add(time.Hour)} {
			_, err := s.TakeToken(ctx, token.Purpose, token.Hash, now)
			fail(t, err, identity.ErrNotFound)
		}
		_, err := s.TakeToken(ctx, token.Purpose, token.Hash, token.ExpiresAt.Add(-time.Millisecond))
		succeed(t, err)
	})

	t.Run("deleting a user's tokens deletes all of theirs and nobody else's", func(t *testing.T) {
		userID := newID()
		reset := putToken(t, s, newToken(identity.PurposeReset, userID))
		verify := putToken(t, s, newToken(identity.PurposeVerify, userID))
		foreign := putToken(t, s, newToken(identity.PurposeReset, userID+"0"))
		for range 2 {
			succeed(t, s.DeleteTokens(ctx, userID))
		}
		succeed(t, s.DeleteTokens(ctx, ""))
		succeed(t, s.DeleteTokens(ctx, malformed))
		fail(t, take(reset), identity.ErrNotFound)
		fail(t, take(verify), identity.ErrNotFound)
		succeed(t, take(foreign))
	})

	t.Run("user IDs are taken literally", func(t *testing.T) {
		var tokens []identity.OneTimeToken
		for _, id := range hostile {
			tokens = append(tokens, putToken(t, s, newToken(identity.PurposeReset, id)))
		}
		for i, token := range tokens {
			if i%2 == 0 {
				succeed(t, s.DeleteTokens(ctx, token.UserID))
			}
		}
		for i, token := range tokens {
			if err := take(token); i%2 == 0 {
				fail(t, err, identity.ErrNotFound)
			} else {
				succeed(t, err)
			}
		}
	})

	t.Run("a token without or with a malformed purpose, user or hash is refused", func(t *testing.T) {
		for _, bad := range []string{"", malformed} {
			for _, spoil := range []func(*identity.OneTimeToken){
				func(t *identity.OneTimeToken) { t.Purpose = identity.Purpose(bad) },
				func(t *identity.OneTimeToken) { t.UserID = bad },
				func(t *identity.OneTimeToken) { t.Hash = bad },
			} {
				token := newToken(identity.PurposeReset, newID())
				spoil(&token)
				refuse(t, s.PutToken(ctx, token))
				fail(t, take(token), identity.ErrNotFound)
			}
		}
	})

	t.Run("of 20 parallel takers one gets the token", func(t *testing.T) {
		token := putToken(t, s, newToken(identity.PurposeReset, newID()))
		exactlyOne(t, together(20, func(int) error { return take(token) }), identity.ErrNotFound)
	})

	t.Run("of tokens put in parallel one is left", func(t *testing.T) {
		userID := newID()
		tokens := make([]identity.OneTimeToken, 10)
		for i := range tokens {
			tokens[i] = newToken(identity.PurposeReset, userID)
			tokens[i].Hash += fmt.Sprint(i)
		}
		for _, err := range together(len(tokens), func(i int) error { return s.PutToken(ctx, tokens[i]) }) {
			succeed(t, err)
		}
		exactlyOne(t, together(len(tokens), func(i int) error { return take(tokens[i]) }), identity.ErrNotFound)
	})
}
