package mongostore

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"
)

// The waits between the tries of a call that lost a race. The first ones are
// about as long as a call takes.
const (
	firstWait   = time.Millisecond
	longestWait = 128 * time.Millisecond
)

// tries is ranged over by a call that may lose a race with others: it yields at
// once, and again after waits that grow, until ctx ends. The waits are random, so
// that those who lost to each other don't meet again: of ten that insert the same
// key at one moment, a server may refuse each in favour of another, over and over.
func tries(ctx context.Context) func(yield func() bool) {
	return func(yield func() bool) {
		timer := time.NewTimer(0)
		defer timer.Stop()
		for wait := firstWait; yield(); wait = min(2*wait, longestWait) {
			timer.Reset(rand.N(wait)) //nolint:gosec // so that losers do not meet again; not a secret
			select {
			case <-timer.C:
			case <-ctx.Done():
			}
			if ctx.Err() != nil {
				return
			}
		}
	}
}

// busy is the error of a call that ended with its context, because others were
// faster each time.
func busy(ctx context.Context) error {
	return fmt.Errorf("too many changes at once: %w", ctx.Err())
}

// upsert repeats an upsert of one _id that lost against another, which inserted
// the document first: it is there now, so that the next try updates it.
func upsert[R any](ctx context.Context, try func() (R, error)) (R, error) {
	for range tries(ctx) {
		if r, err := try(); !lostRace(err) {
			return r, err
		}
	}
	var none R
	return none, busy(ctx)
}
