package storetest

import (
	"slices"
	"strings"
	"testing"
	"time"

	"portcullis/identity"
)

func testCounters(t *testing.T, s identity.Store) {
	ctx := t.Context()

	// start is the beginning of a minute and of an hour.
	start := theTime().Truncate(time.Hour).Add(time.Hour)
	hit := func(t *testing.T, key string, n int, window time.Duration, now time.Time, want int) {
		t.Helper()
		got, err := s.Hit(ctx, key, n, window, now)
		succeed(t, err)
		if got != want {
			t.Errorf("Hit(%q, %d) returned %d, want %d", key, n, got, want)
		}
	}

	t.Run("hits add up", func(t *testing.T) {
		key := newID()
		hit(t, key, 1, time.Minute, start, 1)
		hit(t, key, 1, time.Minute, start, 2)
		hit(t, key, 5, time.Minute, start, 7)
		hit(t, key, -1, time.Minute, start, 6)
	})

	t.Run("a hit of none only asks", func(t *testing.T) {
		key := newID()
		hit(t, key, 0, time.Minute, start, 0)
		hit(t, key, 3, time.Minute, start, 3)
		hit(t, key, 0, time.Minute, start, 3)
		hit(t, key, 1, time.Minute, start, 4)
	})

	t.Run("a counter is never below zero", func(t *testing.T) {
		key := newID()
		hit(t, key, -1, time.Minute, start, 0)
		hit(t, key, 0, time.Minute, start, 0)
		hit(t, key, 1, time.Minute, start, 1)
		hit(t, key, -1, time.Minute, start, 0)
		hit(t, key, -1, time.Minute, start, 0)
		hit(t, key, 2, time.Minute, start, 2)
		hit(t, key, -3, time.Minute, start, 0)
		hit(t, key, 1, time.Minute, start, 1)
	})

	t.Run("a window is aligned to the Unix epoch, and counts nothing of another", func(t *testing.T) {
		for _, window := range []time.Duration{time.Millisecond, 7 * time.Second, time.Minute, time.Hour, 7 * 24 * time.Hour} {
			key := newID()
			began := time.UnixMilli(start.UnixMilli() / window.Milliseconds() * window.Milliseconds())
			if began.Add(window).Before(time.Now()) {
				began = began.Add(window) // what lies in the past may be gone
			}
			last := began.Add(window - time.Nanosecond)
			hit(t, key, 1, window, began, 1)
			hit(t, key, 1, window, last, 2)
			hit(t, key, 1, window, began.Add(window), 1)
			hit(t, key, 1, window, last, 3)
			hit(t, key, 0, window, began.Add(10*window), 0)
		}
	})

	t.Run("windows of different lengths count for themselves", func(t *testing.T) {
		key := newID()
		hit(t, key, 1, time.Minute, start, 1)
		hit(t, key, 1, time.Hour, start, 1)
		hit(t, key, 1, time.Minute, start, 2)
	})

	t.Run("a forgotten counter is zero, whatever its windows", func(t *testing.T) {
		key, other := newID(), newID()
		hit(t, key, 5, time.Minute, start, 5)
		hit(t, key, 5, time.Hour, start, 5)
		hit(t, other, 5, time.Minute, start, 5)
		succeed(t, s.Forget(ctx, key))
		succeed(t, s.Forget(ctx, key))
		hit(t, key, 0, time.Minute, start, 0)
		hit(t, key, 1, time.Hour, start, 1)
		hit(t, other, 1, time.Minute, start, 6)
	})

	t.Run("keys are taken literally, whatever their bytes and length", func(t *testing.T) {
		long := strings.Repeat("x", 100_000)
		keys := append(slices.Clone(hostile), "", malformed, replaced, "\xff", long, long+"x")
		for i, key := range keys {
			hit(t, key, i+1, time.Hour, start, i+1)
		}
		for i, key := range keys {
			hit(t, key, 0, time.Hour, start, i+1)
		}
		for i, key := range keys {
			if i%2 == 0 {
				succeed(t, s.Forget(ctx, key))
			}
		}
		for i, key := range keys {
			hit(t, key, 0, time.Hour, start, i%2*(i+1))
		}
	})

	t.Run("a window shorter than a millisecond is refused", func(t *testing.T) {
		for _, window := range []time.Duration{0, -time.Minute, time.Microsecond} {
			_, err := s.Hit(ctx, newID(), 1, window, start)
			refuse(t, err)
		}
	})

	t.Run("parallel hits count each number once", func(t *testing.T) {
		key, counts := newID(), make([]int, 100)
		for _, err := range together(len(counts), func(i int) (err error) {
			counts[i], err = s.Hit(ctx, key, 1, time.Hour, start)
			return err
		}) {
			succeed(t, err)
		}
		slices.Sort(counts)
		for i, n := range counts {
			if n != i+1 {
				t.Fatalf("counts are %v, want 1 to %d", counts, len(counts))
			}
		}
	})

	t.Run("hits taken back in parallel are all taken back, and no more than there were", func(t *testing.T) {
		key := newID()
		hit(t, key, 20, time.Hour, start, 20)
		for _, err := range together(40, func(i int) error {
			return second(s.Hit(ctx, key, 1-i%2*2, time.Hour, start))
		}) {
			succeed(t, err)
		}
		hit(t, key, 0, time.Hour, start, 20)
		for _, err := range together(40, func(int) error { return second(s.Hit(ctx, key, -1, time.Hour, start)) }) {
			succeed(t, err)
		}
		hit(t, key, 1, time.Hour, start, 1)
	})
}
