package storetest

import (
	"errors"
	"slices"
	"sync"
	"testing"
	"time"

	"portcullis/identity"
)

func newJob(due time.Time) identity.Job {
	return identity.Job{
		ID: newID(), Kind: "mail", Data: map[string]string{"email": "a@example.org", "template": ""},
		CreatedAt: due.Add(-time.Hour), NextAt: due,
	}
}

func enqueue(t *testing.T, s identity.Store, j identity.Job) identity.Job {
	t.Helper()
	succeed(t, s.Enqueue(t.Context(), j))
	return j
}

func testJobs(t *testing.T, s identity.Store) {
	ctx := t.Context()
	now := theTime()

	// start empties the outbox.
	start := func(t *testing.T) {
		t.Helper()
		for {
			j, err := s.ClaimJob(ctx, now.Add(1000*time.Hour), time.Hour)
			if errors.Is(err, identity.ErrNotFound) {
				return
			}
			succeed(t, err)
			succeed(t, s.FinishJob(ctx, j.ID))
		}
	}
	claim := func(t *testing.T, now time.Time) identity.Job {
		t.Helper()
		j, err := s.ClaimJob(ctx, now, time.Minute)
		succeed(t, err)
		return j
	}
	none := func(t *testing.T, now time.Time) {
		t.Helper()
		_, err := s.ClaimJob(ctx, now, time.Minute)
		fail(t, err, identity.ErrNotFound)
	}

	t.Run("an empty outbox has nothing to claim", func(t *testing.T) {
		none(t, now)
	})

	t.Run("a claimed job comes whole, with one attempt more and due again after the lease", func(t *testing.T) {
		start(t)
		j := newJob(now)
		odd, kept := oddTime()
		j.Attempts, j.CreatedAt, j.NextAt = 3, odd, odd
		enqueue(t, s, j)
		got, err := s.ClaimJob(ctx, odd, time.Minute)
		succeed(t, err)
		utc(t, got.CreatedAt, got.NextAt)
		j.Attempts, j.CreatedAt, j.NextAt = 4, kept, kept.Add(time.Minute)
		equal(t, got, j)
	})

	t.Run("a job is not claimed before it is due, and not by two during one lease", func(t *testing.T) {
		start(t)
		enqueue(t, s, newJob(now))
		none(t, now.Add(-time.Millisecond))
		equal(t, claim(t, now).Attempts, 1)
		none(t, now.Add(time.Minute-time.Millisecond))
		equal(t, claim(t, now.Add(time.Minute)).Attempts, 2)
	})

	t.Run("the longest due is claimed first", func(t *testing.T) {
		start(t)
		var want, got []string
		for _, minutes := range []int{5, 1, 9, 3, 7} {
			enqueue(t, s, newJob(now.Add(time.Duration(minutes)*time.Minute)))
		}
		for range 5 {
			j := claim(t, now.Add(10*time.Minute))
			want = append(want, j.CreatedAt.String())
			got = append(got, j.CreatedAt.String())
		}
		slices.Sort(want)
		equal(t, got, want)
	})

	t.Run("a finished job is gone, and finishing it again is no error", func(t *testing.T) {
		start(t)
		j := enqueue(t, s, newJob(now))
		claim(t, now)
		for _, id := range []string{j.ID, j.ID, newID(), "", malformed} {
			succeed(t, s.FinishJob(ctx, id))
		}
		none(t, now.Add(time.Hour))
	})

	t.Run("a job that is tried again is due then, with its attempts", func(t *testing.T) {
		start(t)
		j := enqueue(t, s, newJob(now))
		claim(t, now)
		succeed(t, s.RetryJob(ctx, j.ID, now.Add(10*time.Second)))
		none(t, now.Add(9*time.Second))
		equal(t, claim(t, now.Add(10*time.Second)).Attempts, 2)
		succeed(t, s.RetryJob(ctx, j.ID, now.Add(time.Hour)))
		none(t, now.Add(time.Hour-time.Millisecond))
		got := claim(t, now.Add(time.Hour))
		j.Attempts, j.NextAt = 3, now.Add(time.Hour+time.Minute)
		equal(t, got, j)
	})

	t.Run("a job that is gone cannot be tried again", func(t *testing.T) {
		start(t)
		j := enqueue(t, s, newJob(now))
		succeed(t, s.FinishJob(ctx, j.ID))
		for _, id := range []string{j.ID, newID(), "", malformed} {
			fail(t, s.RetryJob(ctx, id, now), identity.ErrNotFound)
		}
		none(t, now)
	})

	t.Run("data is taken literally, and no data as no data", func(t *testing.T) {
		literal := map[string]string{}
		for i, key := range hostile {
			literal[key] = hostile[len(hostile)-1-i]
		}
		for _, data := range []map[string]string{nil, {}, {"": ""}, literal} {
			start(t)
			j := newJob(now)
			j.Data = data
			enqueue(t, s, j)
			equal(t, claim(t, now).Data, data)
		}
	})

	t.Run("data need not be UTF-8 to be kept", func(t *testing.T) {
		start(t)
		j := newJob(now)
		j.Data = map[string]string{malformed: malformed}
		enqueue(t, s, j)
		equal(t, claim(t, now).Data, map[string]string{replaced: replaced})
	})

	t.Run("an existing ID is a conflict, and the existing job stays", func(t *testing.T) {
		start(t)
		j := enqueue(t, s, newJob(now))
		other := newJob(now.Add(-time.Hour))
		other.ID, other.Kind = j.ID, "other"
		fail(t, s.Enqueue(ctx, other), identity.ErrConflict)
		none(t, now.Add(-time.Minute))
		equal(t, claim(t, now).Kind, j.Kind)
	})

	t.Run("a job without or with a malformed ID is refused", func(t *testing.T) {
		start(t)
		for _, bad := range []string{"", malformed} {
			j := newJob(now)
			j.ID = bad
			refuse(t, s.Enqueue(ctx, j))
		}
		none(t, now)
	})

	t.Run("of jobs claimed in parallel none is claimed twice and none is left", func(t *testing.T) {
		start(t)
		const jobs = 60
		for range jobs {
			enqueue(t, s, newJob(now))
		}
		var mu sync.Mutex
		claims := map[string]int{}
		for _, err := range together(10, func(int) error {
			for {
				j, err := s.ClaimJob(ctx, now, time.Hour)
				if errors.Is(err, identity.ErrNotFound) {
					return nil
				}
				if err != nil {
					return err
				}
				mu.Lock()
				claims[j.ID]++
				mu.Unlock()
			}
		}) {
			succeed(t, err)
		}
		equal(t, len(claims), jobs)
		for id, n := range claims {
			if n != 1 {
				t.Errorf("job %s was claimed %d times", id, n)
			}
		}
	})
}
