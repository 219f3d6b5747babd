package storetest

import (
	"slices"
	"strings"
	"testing"

	"portcullis/identity"
)

func testListUsers(t *testing.T, s identity.Store) {
	ctx := t.Context()

	// names are the username keys of one tenant, addresses the e-mail keys.
	tenant, other, empty := newID(), newID(), newID()
	var names, addresses []string
	for i, name := range append(slices.Clone(hostile), "a1", "a2", "a22", "a3", "ab", "a\U0010FFFFb", "b", "zz", "é", "\U0010FFFF", "\U0010FFFFa", "\uD7FF", "\uD7FFa", "\uE000") {
		u := newUser(tenant)
		u.UsernameKey, u.UsernameSkeleton = name, name
		if u.EmailKey = "mail" + name; i%5 == 0 {
			u.EmailKey = ""
		} else {
			addresses = append(addresses, u.EmailKey)
		}
		names = append(names, createUser(t, s, u).UsernameKey)
	}
	slices.Sort(names)
	slices.Sort(addresses)
	for _, name := range []string{"a0-other", "a2-other", "zzz-other"} {
		u := newUser(other)
		u.UsernameKey, u.EmailKey = name, "mail"+name
		createUser(t, s, u)
	}

	list := func(t *testing.T, q identity.UserQuery) []identity.User {
		t.Helper()
		users, err := s.ListUsers(ctx, q)
		succeed(t, err)
		return users
	}
	keys := func(users []identity.User) []string {
		var keys []string
		for _, u := range users {
			keys = append(keys, u.UsernameKey)
		}
		return keys
	}
	emails := func(users []identity.User) []string {
		var keys []string
		for _, u := range users {
			keys = append(keys, u.EmailKey)
		}
		return keys
	}
	beginning := func(all []string, prefix string) []string {
		return slices.DeleteFunc(slices.Clone(all), func(s string) bool { return !strings.HasPrefix(s, prefix) })
	}

	t.Run("users are listed whole, in the byte order of their username keys", func(t *testing.T) {
		users := list(t, identity.UserQuery{Tenant: &tenant, Limit: 1000})
		equal(t, keys(users), names)
		for _, u := range users {
			got, err := s.User(ctx, u.ID)
			succeed(t, err)
			equal(t, u, got)
		}
	})

	t.Run("no tenant means every tenant, and the empty tenant is one", func(t *testing.T) {
		all := slices.Sorted(slices.Values(append(slices.Clone(names), "a0-other", "a2-other", "zzz-other")))
		equal(t, keys(list(t, identity.UserQuery{Limit: 1000})), all)
		var none string
		equal(t, keys(list(t, identity.UserQuery{Tenant: &none, Limit: 1000})), nil)
		equal(t, keys(list(t, identity.UserQuery{Tenant: &empty, Limit: 1000})), nil)
		equal(t, keys(list(t, identity.UserQuery{Tenant: &other, UsernamePrefix: "a", Limit: 1000})), []string{"a0-other", "a2-other"})
	})

	t.Run("a prefix is taken literally", func(t *testing.T) {
		for _, prefix := range append(slices.Clone(names), "a2", ".", "a.", "$", "^", "\u00e9", "zzzz", "\U0010FFFFz") {
			t.Run(quoted(prefix), func(t *testing.T) {
				equal(t, keys(list(t, identity.UserQuery{Tenant: &tenant, UsernamePrefix: prefix, Limit: 1000})), beginning(names, prefix))
				equal(t, emails(list(t, identity.UserQuery{Tenant: &tenant, EmailPrefix: "mail" + prefix, Limit: 1000})), beginning(addresses, "mail"+prefix))
			})
		}
	})

	t.Run("a prefix of addresses lists by e-mail key, and only who has one", func(t *testing.T) {
		equal(t, emails(list(t, identity.UserQuery{Tenant: &tenant, EmailPrefix: "m", Limit: 1000})), addresses)
		equal(t, emails(list(t, identity.UserQuery{EmailPrefix: "mailzzz", Limit: 1000})), []string{"mailzzz-other"})
	})

	t.Run("pages miss and repeat nobody", func(t *testing.T) {
		for _, size := range []int{1, 2, 7, len(names), 1000} {
			for _, q := range []identity.UserQuery{
				{Tenant: &tenant},
				{Tenant: &tenant, UsernamePrefix: "a"},
				{Tenant: &tenant, EmailPrefix: "mail"},
				{UsernamePrefix: "a"},
				{EmailPrefix: "maila"},
			} {
				q.Limit = 1000
				whole := keys(list(t, q))
				q.Limit = size
				var paged []string
				for {
					page := list(t, q)
					if len(page) == 0 {
						break
					}
					if len(page) > size {
						t.Fatalf("a page of %d has %d users", size, len(page))
					}
					paged = append(paged, keys(page)...)
					if q.After = page[len(page)-1].UsernameKey; q.EmailPrefix != "" {
						q.After = page[len(page)-1].EmailKey
					}
				}
				equal(t, paged, whole)
			}
		}
	})

	t.Run("a page begins after the cursor even if its user is gone or was never there", func(t *testing.T) {
		equal(t, keys(list(t, identity.UserQuery{Tenant: &tenant, UsernamePrefix: "a", After: "a1z", Limit: 2})), []string{"a2", "a22"})
		equal(t, keys(list(t, identity.UserQuery{Tenant: &tenant, UsernamePrefix: "a2", After: "A", Limit: 1})), []string{"a2"})
		equal(t, keys(list(t, identity.UserQuery{Tenant: &tenant, UsernamePrefix: "a2", After: "b", Limit: 1})), nil)
	})

	t.Run("users who come and go meanwhile do not make pages miss or repeat the others", func(t *testing.T) {
		tenant := newID()
		var want []string
		for range 20 {
			want = append(want, createUser(t, s, newUser(tenant)).UsernameKey)
		}
		slices.Sort(want)
		q := identity.UserQuery{Tenant: &tenant, Limit: 3}
		var got []string
		for page := list(t, q); len(page) > 0; page = list(t, q) {
			for _, key := range keys(page) {
				if slices.Contains(want, key) {
					got = append(got, key)
				}
			}
			q.After = page[len(page)-1].UsernameKey
			if len(got) >= len(want) {
				continue
			}
			ahead, behind := newUser(tenant), newUser(tenant)
			ahead.UsernameKey, behind.UsernameKey = q.After+"+", "name"+ahead.ID
			createUser(t, s, ahead)
			createUser(t, s, behind)
			succeed(t, s.DeleteUser(ctx, behind.ID))
		}
		equal(t, got, want)
	})

	t.Run("a prefix or cursor that is not UTF-8 finds nobody", func(t *testing.T) {
		equal(t, keys(list(t, identity.UserQuery{UsernamePrefix: "a\xff", Limit: 1000})), nil)
		equal(t, keys(list(t, identity.UserQuery{EmailPrefix: "\xff", Limit: 1000})), nil)
		equal(t, keys(list(t, identity.UserQuery{After: "\xff", Limit: 1000})), nil)
		bad := "\xff"
		equal(t, keys(list(t, identity.UserQuery{Tenant: &bad, Limit: 1000})), nil)
	})

	t.Run("two prefixes, or a limit that is not positive, are refused", func(t *testing.T) {
		for _, q := range []identity.UserQuery{{}, {Limit: -1}, {UsernamePrefix: "a", EmailPrefix: "a", Limit: 1}} {
			_, err := s.ListUsers(ctx, q)
			refuse(t, err)
		}
	})
}
