package mongostore

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"go.mongodb.org/mongo-driver/v2/mongo"

	"portcullis/identity"
)

// Waits are drawn, so what is looked at holds for any draw: the clock stands
// still but for them.
func TestTries(t *testing.T) {
	const timeout = 10 * time.Second

	t.Run("the first is at once, the later ones wait, and the end is the context's", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), timeout)
			defer cancel()
			start := time.Now()
			var at []time.Duration
			for range tries(ctx) {
				at = append(at, time.Since(start))
			}
			if at[0] != 0 {
				t.Errorf("the first try was after %v", at[0])
			}
			for i := 1; i < len(at); i++ {
				longest := longestWait
				if i < 8 {
					longest = firstWait << (i - 1)
				}
				if wait := at[i] - at[i-1]; wait < 0 || wait >= longest {
					t.Errorf("the wait before try %d was %v, it may be anything under %v", i+1, wait, longest)
				}
			}
			if least := int(timeout / longestWait); len(at) < least {
				t.Errorf("%d tries in %v, want %d at least", len(at), timeout, least)
			}
			if took := time.Since(start); took != timeout {
				t.Errorf("ended after %v, want %v", took, timeout)
			}
		})
	})

	t.Run("a context that has ended allows no second", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		n := 0
		for range tries(ctx) {
			n++
		}
		if n != 1 {
			t.Errorf("%d tries", n)
		}
	})

	t.Run("an upsert is tried until it doesn't lose, however often that is", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), timeout)
			defer cancel()
			left := 30
			got, err := upsert(ctx, func() (string, error) {
				if left--; left > 0 {
					return "", mongo.CommandError{Code: 112}
				}
				return "stored", nil
			})
			if got != "stored" || err != nil || left != 0 {
				t.Errorf("got %q, %v with %d tries left", got, err, left)
			}
		})
	})

	t.Run("one that always loses is busy, which is not an answer about the data", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), timeout)
			defer cancel()
			_, err := upsert(ctx, func() (string, error) { return "", mongo.CommandError{Code: 112} })
			if err := failure("upsert", err); !errors.Is(err, identity.ErrUnavailable) || !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("error is %v", err)
			}
		})
	})
}
