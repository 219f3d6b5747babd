package storetest

import (
	"fmt"
	"slices"
	"testing"

	"portcullis/identity"
)

func testAdministrators(t *testing.T, s identity.Store) {
	ctx := t.Context()

	// start makes members the whole set.
	start := func(t *testing.T, members ...string) {
		t.Helper()
		ids, err := s.Administrators(ctx)
		succeed(t, err)
		for _, id := range ids {
			succeed(t, s.DropAdministrator(ctx, id))
		}
		for _, id := range members {
			succeed(t, s.HoldAdministrator(ctx, id))
		}
	}
	members := func(t *testing.T) []string {
		t.Helper()
		ids, err := s.Administrators(ctx)
		succeed(t, err)
		slices.Sort(ids)
		return ids
	}

	t.Run("the set is empty at first, and nothing can be released or dropped from it", func(t *testing.T) {
		equal(t, members(t), nil)
		succeed(t, s.ReleaseAdministrator(ctx, "a"))
		succeed(t, s.DropAdministrator(ctx, "a"))
		equal(t, members(t), nil)
	})

	t.Run("whoever is held is a member, once", func(t *testing.T) {
		start(t, "a", "b", "a")
		equal(t, members(t), []string{"a", "b"})
	})

	t.Run("a member can be released while another remains, and the last cannot", func(t *testing.T) {
		start(t, "a", "b", "c")
		succeed(t, s.ReleaseAdministrator(ctx, "b"))
		succeed(t, s.ReleaseAdministrator(ctx, "a"))
		fail(t, s.ReleaseAdministrator(ctx, "c"), identity.ErrLastAdministrator)
		equal(t, members(t), []string{"c"})
		start(t, "a", "b")
		succeed(t, s.ReleaseAdministrator(ctx, "b"))
		fail(t, s.ReleaseAdministrator(ctx, "a"), identity.ErrLastAdministrator)
		equal(t, members(t), []string{"a"})
	})

	t.Run("releasing a non-member does nothing", func(t *testing.T) {
		start(t, "b")
		for _, id := range []string{"a", "c", "", "b ", malformed} {
			succeed(t, s.ReleaseAdministrator(ctx, id))
		}
		equal(t, members(t), []string{"b"})
	})

	t.Run("a member can be dropped even if no other remains", func(t *testing.T) {
		start(t, "a", "b")
		succeed(t, s.DropAdministrator(ctx, "a"))
		succeed(t, s.DropAdministrator(ctx, "a"))
		succeed(t, s.DropAdministrator(ctx, malformed))
		succeed(t, s.DropAdministrator(ctx, "b"))
		equal(t, members(t), nil)
	})

	t.Run("an ID is taken literally", func(t *testing.T) {
		start(t, hostile...)
		equal(t, members(t), slices.Sorted(slices.Values(hostile)))
		for _, id := range hostile[1:] {
			succeed(t, s.ReleaseAdministrator(ctx, id))
		}
		fail(t, s.ReleaseAdministrator(ctx, hostile[0]), identity.ErrLastAdministrator)
	})

	t.Run("an ID that nobody has is refused", func(t *testing.T) {
		start(t)
		refuse(t, s.HoldAdministrator(ctx, ""))
		refuse(t, s.HoldAdministrator(ctx, malformed))
		equal(t, members(t), nil)
	})

	t.Run("of members held in parallel none is lost", func(t *testing.T) {
		for range 5 {
			start(t)
			ids := make([]string, 20)
			for i := range ids {
				ids[i] = newID()
			}
			for _, err := range together(len(ids), func(i int) error { return s.HoldAdministrator(ctx, ids[i]) }) {
				succeed(t, err)
			}
			equal(t, members(t), slices.Sorted(slices.Values(ids)))
		}
	})

	t.Run("of members held and dropped in parallel every change counts", func(t *testing.T) {
		for range 5 {
			ids := make([]string, 20)
			for i := range ids {
				ids[i] = fmt.Sprintf("%02d", i)
			}
			start(t, ids[:10]...)
			for _, err := range together(len(ids), func(i int) error {
				if i < 10 {
					return s.DropAdministrator(ctx, ids[i])
				}
				return s.HoldAdministrator(ctx, ids[i])
			}) {
				succeed(t, err)
			}
			equal(t, members(t), ids[10:])
		}
	})

	t.Run("of two members released in parallel by two callers one remains", func(t *testing.T) {
		for range 20 {
			start(t, "a", "b")
			errs := together(2, func(i int) error { return s.ReleaseAdministrator(ctx, []string{"a", "b"}[i]) })
			exactlyOne(t, errs, identity.ErrLastAdministrator)
			if left := members(t); len(left) != 1 {
				t.Fatalf("%d members remain, want 1", len(left))
			}
		}
	})

	t.Run("of many members released in parallel one remains", func(t *testing.T) {
		ids := make([]string, 20)
		for i := range ids {
			ids[i] = newID()
		}
		start(t, ids...)
		refused := 0
		for _, err := range together(len(ids), func(i int) error { return s.ReleaseAdministrator(ctx, ids[i]) }) {
			if err != nil {
				fail(t, err, identity.ErrLastAdministrator)
				refused++
			}
		}
		if left := members(t); len(left) != 1 || refused != 1 {
			t.Errorf("%d members remain and %d were refused, want 1 and 1", len(left), refused)
		}
	})
}
