package identity_test

import (
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"portcullis/identity"
)

// principal is a caller whom nobody had to sign in.
func principal(tenant string, roles ...string) *identity.Principal {
	return &identity.Principal{UserID: "by-" + tenant + strings.Join(roles, "+"), Roles: roles, Tenant: tenant}
}

func ptr[T any](v T) *T { return &v }

func TestUpdateUser(t *testing.T) {
	t.Run("roles", func(t *testing.T) {
		w := newWorld(t)
		u := w.user("ana")
		g := w.login("ana")
		got, err := w.UpdateUser(w.ctx, principal("", "admin"), u.ID, identity.Change{Roles: &[]string{"user", "editor", "user"}}, here)
		w.must(err)
		if !slices.Equal(got.Roles, []string{"editor", "user"}) {
			t.Errorf("roles %v", got.Roles)
		}
		w.refused(g.AccessToken)
		if w.sessions(u.ID) != 1 {
			t.Error("the session ended")
		}
		r := w.audited(identity.EventUserChanged)
		if len(r) != 1 || r[0].UserID != u.ID || r[0].ActorID != "by-admin" || r[0].Details["roles"] != "user -> editor,user" {
			t.Errorf("audited as %+v", r)
		}
	})
	t.Run("disabled and enabled", func(t *testing.T) {
		w := newWorld(t)
		elsewhere := w.replica()
		u := w.user("ana")
		g := w.login("ana")
		elsewhere.believed(g.AccessToken)
		_, err := w.UpdateUser(w.ctx, nil, u.ID, identity.Change{Active: ptr(false)}, here)
		w.must(err)
		w.refused(g.AccessToken)
		w.must(elsewhere.revocations.Sync(w.ctx, w.clock.Now()))
		elsewhere.refused(g.AccessToken)
		_, err = w.Refresh(w.ctx, g.RefreshToken, here)
		w.want(err, identity.ErrTokenInvalid)
		_, err = w.Login(w.ctx, "ana", password, here)
		w.want(err, identity.ErrDisabled)
		_, err = w.UpdateUser(w.ctx, nil, u.ID, identity.Change{Active: ptr(true)}, here)
		w.must(err)
		w.refused(g.AccessToken) // what has ended stays ended
		_, err = w.Refresh(w.ctx, g.RefreshToken, here)
		w.want(err, identity.ErrTokenInvalid)
		w.login("ana")
	})
	t.Run("address", func(t *testing.T) {
		w := newWorld(t)
		u := w.user("ana")
		w.must(w.VerifyEmail(w.ctx, w.token(), here))
		got, err := w.UpdateUser(w.ctx, nil, u.ID, identity.Change{Email: ptr("New@Example.com")}, here)
		w.must(err)
		if got.Email != "New@Example.com" || got.EmailKey != "new@example.com" || got.EmailVerified {
			t.Errorf("%+v", got)
		}
		if got := mailsTo(w.mail()); !slices.Equal(got, []string{"email_changed ana@example.com", "verify New@Example.com"}) {
			t.Errorf("mailed %v", got)
		}
	})
	t.Run("address that is taken", func(t *testing.T) {
		w := newWorld(t)
		u := w.user("ana")
		w.user("eve")
		g := w.login("ana")
		_, err := w.UpdateUser(w.ctx, nil, u.ID, identity.Change{Email: ptr("EVE@example.com")}, here)
		w.want(err, identity.ErrEmailTaken)
		w.believed(g.AccessToken)
	})
	t.Run("everything wrong at once", func(t *testing.T) {
		w := newWorld(t)
		u := w.user("ana")
		_, err := w.UpdateUser(w.ctx, nil, u.ID, identity.Change{Roles: &[]string{"emperor"}, Email: ptr("nobody"), Tenant: ptr("a\r\nX-User-Roles: admin")}, here)
		got := fields(err)
		slices.Sort(got)
		if !slices.Equal(got, []string{"email", "roles", "tenant"}) {
			t.Errorf("faults in %v", got)
		}
		if s := w.stored(u.ID); s.Version != u.Version {
			t.Errorf("stored all the same: %+v", s)
		}
	})
	t.Run("nobody", func(t *testing.T) {
		w := newWorld(t)
		for _, id := range []string{"", "no such user", "role:admin"} {
			_, err := w.UpdateUser(w.ctx, nil, id, identity.Change{Active: ptr(false)}, here)
			w.want(err, identity.ErrNotFound)
		}
	})
}

// Every way in which an administrator could reach further than they may.
func TestReachOfAnAdministrator(t *testing.T) {
	w := newWorld(t)
	users := map[string]identity.User{
		"neighbour":           w.userOf("acme", "neighbour"),
		"fellow admin":        w.userOf("acme", "fellow", "admin"),
		"super in the tenant": w.userOf("acme", "root", "superadmin"),
		"super with more":     w.userOf("acme", "root2", "admin", "superadmin", "user"),
		"stranger":            w.userOf("other", "stranger"),
		"default tenant":      w.userOf("", "plain"),
	}
	admin := principal("acme", "admin")
	within := map[string]error{
		"neighbour": nil, "fellow admin": nil, "super in the tenant": identity.ErrRoleNotAllowed, "super with more": identity.ErrRoleNotAllowed,
		"stranger": identity.ErrNotFound, "default tenant": identity.ErrNotFound,
	}
	for name, want := range within {
		u := users[name]
		check := func(doing string, err error) {
			t.Helper()
			if want == nil && err != nil || want != nil && !errors.Is(err, want) {
				t.Errorf("%s of %s: %v, want %v", doing, name, err, want)
			}
		}
		change := func(in identity.Change) error {
			_, err := w.UpdateUser(w.ctx, admin, u.ID, in, here)
			return err
		}
		check("new address", change(identity.Change{Email: ptr(strings.ReplaceAll(name, " ", "-") + "@evil.example")}))
		check("no roles", change(identity.Change{Roles: &[]string{}}))
		check("disabling", change(identity.Change{Active: ptr(false)}))
		check("logout", w.LogoutUser(w.ctx, admin, u.ID, here))
		check("unlocking", w.UnlockUser(w.ctx, admin, u.ID, here))
		check("deleting", w.DeleteUser(w.ctx, admin, u.ID, here))
		if s, err := w.store.User(w.ctx, u.ID); want != nil && (err != nil || s.Version != u.Version) {
			t.Errorf("%s was changed: %+v, %v", name, s, err)
		}
	}
}

// Whom the policy lets administer without an administrator's role, such as a
// helpdesk, must not become an administrator by it: not by giving the role, and
// not by taking over the account of somebody who has it.
func TestReachOfWhoIsNoAdministrator(t *testing.T) {
	w := newWorld(t)
	helper := w.userOf("acme", "helper", "editor")
	ana := w.userOf("acme", "ana")
	helpdesk := &identity.Principal{UserID: helper.ID, Roles: helper.Roles, Tenant: "acme"}
	for _, roles := range [][]string{{"admin"}, {"user", "admin"}, {"superadmin"}, {"editor", "user"}, {}} {
		for _, u := range []identity.User{helper, ana} {
			_, err := w.UpdateUser(w.ctx, helpdesk, u.ID, identity.Change{Roles: &roles, Active: ptr(true)}, here)
			w.want(err, identity.ErrRoleNotAllowed)
			if s := w.stored(u.ID); s.Version != u.Version {
				t.Errorf("%s got %v", u.Username, s.Roles)
			}
		}
	}
	for _, u := range []identity.User{w.userOf("acme", "boss", "admin"), w.userOf("acme", "root", "superadmin"), w.userOf("acme", "sleeping", "user", "admin")} {
		for doing, change := range map[string]identity.Change{
			"address": {Email: ptr("evil@example.net")}, "disabling": {Active: ptr(false)}, "no roles": {Roles: &[]string{}},
		} {
			if _, err := w.UpdateUser(w.ctx, helpdesk, u.ID, change, here); !errors.Is(err, identity.ErrRoleNotAllowed) {
				t.Errorf("%s of %s: %v", doing, u.Username, err)
			}
		}
		w.want(w.LogoutUser(w.ctx, helpdesk, u.ID, here), identity.ErrRoleNotAllowed)
		w.want(w.DeleteUser(w.ctx, helpdesk, u.ID, here), identity.ErrRoleNotAllowed)
		if s := w.stored(u.ID); s.Version != u.Version {
			t.Errorf("%s was changed: %+v", u.Username, s)
		}
	}
	// What is left is what such a role is for.
	_, err := w.UpdateUser(w.ctx, helpdesk, ana.ID, identity.Change{Roles: &[]string{"user"}, Email: ptr("ana@example.net")}, here)
	w.must(err)
	w.must(w.LogoutUser(w.ctx, helpdesk, ana.ID, here))
	w.must(w.DeleteUser(w.ctx, helpdesk, ana.ID, here))
}

// Nobody here knows which roles a user of another issuer has: those who may log out
// whoever has one of these may.
func TestReachOfALogoutElsewhere(t *testing.T) {
	w := newWorld(t)
	admin, helpdesk := &identity.Principal{UserID: "a", Roles: []string{"admin"}, Tenant: "acme"}, &identity.Principal{UserID: "h", Roles: []string{"editor"}, Tenant: "acme"}
	for role, want := range map[string][2]error{
		"user":       {nil, nil},
		"admin":      {nil, identity.ErrRoleNotAllowed},
		"superadmin": {identity.ErrRoleNotAllowed, identity.ErrRoleNotAllowed},
	} {
		held, err := identity.NewFederation(slog.New(slog.DiscardHandler)).Trust([]identity.IssuerConfig{{
			Name: "idp", Issuer: "https://idp.example", JWKSURL: "http://127.0.0.1:1/", Audience: "api", Algorithms: []string{"ES256"},
			Roles: map[string]string{"theirs": role}, Tenant: "acme", Refresh: time.Hour,
		}})
		w.must(err)
		s := w.Trusting(held)
		w.want(s.LogoutUser(w.ctx, admin, "idp:f3a", here), want[0])
		w.want(s.LogoutUser(w.ctx, helpdesk, "idp:f3a", here), want[1])
		s.Close()
	}
}

func TestWhatAnAdministratorMayGive(t *testing.T) {
	for name, c := range map[string]struct {
		by     *identity.Principal
		change identity.Change
		want   error // nil: allowed
	}{
		"admin":                                 {principal("acme", "admin"), identity.Change{Roles: &[]string{"admin"}}, nil},
		"the super role":                        {principal("acme", "admin"), identity.Change{Roles: &[]string{"superadmin"}}, identity.ErrRoleNotAllowed},
		"the super role among others":           {principal("acme", "admin"), identity.Change{Roles: &[]string{"user", "superadmin", "admin"}}, identity.ErrRoleNotAllowed},
		"another tenant":                        {principal("acme", "admin"), identity.Change{Tenant: ptr("other")}, identity.ErrRoleNotAllowed},
		"the default tenant":                    {principal("acme", "admin"), identity.Change{Tenant: ptr("")}, identity.ErrRoleNotAllowed},
		"the tenant it has":                     {principal("acme", "admin"), identity.Change{Tenant: ptr("acme")}, nil},
		"the super role by a super":             {principal("", "superadmin"), identity.Change{Roles: &[]string{"superadmin"}}, nil},
		"another tenant by a super":             {principal("", "superadmin"), identity.Change{Tenant: ptr("other")}, nil},
		"the super role by the operator":        {nil, identity.Change{Roles: &[]string{"superadmin"}}, nil},
		"the super role with the policy prefix": {principal("acme", "admin"), identity.Change{Roles: &[]string{"role:superadmin"}}, &identity.FieldError{}},
		"a role in another case":                {principal("acme", "admin"), identity.Change{Roles: &[]string{"Superadmin"}}, &identity.FieldError{}},
		"an empty role":                         {principal("acme", "admin"), identity.Change{Roles: &[]string{""}}, &identity.FieldError{}},
		"roles in one":                          {principal("acme", "admin"), identity.Change{Roles: &[]string{"user,superadmin"}}, &identity.FieldError{}},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			u := w.userOf("acme", "ana")
			_, err := w.UpdateUser(w.ctx, c.by, u.ID, c.change, here)
			var field *identity.FieldError
			switch {
			case c.want == nil:
				w.must(err)
			case errors.As(c.want, &field):
				if !errors.As(err, &field) {
					t.Error(err)
				}
			default:
				w.want(err, c.want)
			}
		})
	}
}

// The target gets the super role, or another tenant, while the change is made.
func TestReachIsAskedOfWhatIsReplaced(t *testing.T) {
	for name, change := range map[string]identity.Change{
		"the super role": {Roles: &[]string{"superadmin"}},
		"another tenant": {Tenant: ptr("other")},
	} {
		w := newWorld(t)
		u := w.userOf("acme", "ana")
		w.store.once("UpdateUser", false, func() {
			_, err := w.UpdateUser(w.ctx, nil, u.ID, change, here)
			w.must(err)
		})
		_, err := w.UpdateUser(w.ctx, principal("acme", "admin"), u.ID, identity.Change{Email: ptr("evil@example.net")}, here)
		if !errors.Is(err, identity.ErrRoleNotAllowed) && !errors.Is(err, identity.ErrNotFound) {
			t.Errorf("%s: %v", name, err)
		}
		if s := w.stored(u.ID); s.EmailKey != u.EmailKey {
			t.Errorf("%s: the address is %s", name, s.Email)
		}
	}
}

func TestListingUsers(t *testing.T) {
	w := newWorld(t)
	for i := range 5 {
		w.userOf("acme", fmt.Sprintf("acme%d", i))
		w.userOf("other", fmt.Sprintf("other%d", i))
	}
	list := func(p *identity.Principal, search string, limit int) (names []string) {
		t.Helper()
		cursor := ""
		for range 20 {
			users, next, err := w.Users(w.ctx, p, search, cursor, limit)
			w.must(err)
			if len(users) > limit {
				t.Errorf("%d users in a page of %d", len(users), limit)
			}
			for _, u := range users {
				names = append(names, u.Username)
			}
			if cursor = next; cursor == "" {
				return names
			}
		}
		t.Fatal("the pages do not end")
		return nil
	}
	acme := []string{"acme0", "acme1", "acme2", "acme3", "acme4"}
	for _, limit := range []int{1, 2, 5, 100} {
		if got := list(principal("acme", "admin"), "", limit); !slices.Equal(got, acme) {
			t.Errorf("pages of %d: %v", limit, got)
		}
	}
	if got := list(principal("acme", "admin"), "ACME3", 10); !slices.Equal(got, []string{"acme3"}) {
		t.Errorf("search by name: %v", got)
	}
	if got := list(principal("acme", "admin"), "Acme2@", 10); !slices.Equal(got, []string{"acme2"}) {
		t.Errorf("search by address: %v", got)
	}
	for _, search := range []string{"other", "other1@", "OTHER"} {
		if got := list(principal("acme", "admin"), search, 10); len(got) != 0 {
			t.Errorf("another tenant's: %v", got)
		}
	}
	if got := list(principal("", "admin"), "", 10); len(got) != 0 {
		t.Errorf("an administrator of the default tenant sees %v", got)
	}
	for name, p := range map[string]*identity.Principal{"super": principal("", "superadmin"), "operator": nil} {
		if got := list(p, "", 3); len(got) != 10 {
			t.Errorf("%s sees %v", name, got)
		}
	}
	if _, _, err := w.Users(w.ctx, principal("acme", "admin"), strings.Repeat("x\x00\xff", 1000), "\xff\x00", 10); errors.Is(err, identity.ErrUnavailable) {
		t.Errorf("odd bytes: %v", err)
	}
}

func TestAuditIsOfOnesTenant(t *testing.T) {
	w := newWorld(t)
	a, o := w.userOf("acme", "ana"), w.userOf("other", "otto")
	w.login("ana")
	w.login("otto")
	list := func(p *identity.Principal, q identity.AuditQuery) (ids []string) {
		t.Helper()
		q.Limit = 100
		q.Tenant = ptr("other") // not for the caller to choose
		records, err := w.Audit(w.ctx, p, q)
		w.must(err)
		for _, r := range records {
			ids = append(ids, r.UserID)
		}
		return ids
	}
	if got := list(principal("acme", "admin"), identity.AuditQuery{}); len(got) != 2 || slices.Contains(got, o.ID) {
		t.Errorf("%v", got)
	}
	if got := list(principal("acme", "admin"), identity.AuditQuery{UserID: o.ID}); len(got) != 0 {
		t.Errorf("%v", got)
	}
	if got := list(principal("", "superadmin"), identity.AuditQuery{}); !slices.Contains(got, o.ID) || !slices.Contains(got, a.ID) {
		t.Errorf("%v", got)
	}
	if got := list(nil, identity.AuditQuery{Event: identity.EventLogin}); !slices.Equal(got, []string{o.ID, a.ID}) {
		t.Errorf("%v", got)
	}
}

func TestDeleteUser(t *testing.T) {
	w := newWorld(t)
	elsewhere := w.replica()
	u := w.user("ana")
	g := w.login("ana")
	token := w.forgot(u.Email)
	elsewhere.believed(g.AccessToken)
	w.must(w.DeleteUser(w.ctx, principal("", "admin"), u.ID, here))
	w.refused(g.AccessToken)
	w.must(elsewhere.revocations.Sync(w.ctx, w.clock.Now()))
	elsewhere.refused(g.AccessToken)
	_, err := w.Refresh(w.ctx, g.RefreshToken, here)
	w.want(err, identity.ErrTokenInvalid)
	_, err = w.Login(w.ctx, "ana", password, here)
	w.want(err, identity.ErrBadCredentials)
	w.want(w.Reset(w.ctx, token, another, here), identity.ErrTokenUsed)
	w.want(w.DeleteUser(w.ctx, nil, u.ID, here), identity.ErrNotFound)
	if n := w.sessions(u.ID); n != 0 {
		t.Errorf("%d sessions are left", n)
	}
	if r := w.audited(identity.EventUserDeleted); len(r) != 1 || r[0].UserID != u.ID {
		t.Errorf("audited as %+v", r)
	}
	// The name is free again, and its new owner is somebody else.
	again := w.user("ana")
	w.believed(w.login("ana").AccessToken)
	w.refused(g.AccessToken)
	if again.ID == u.ID {
		t.Error("the id was given again")
	}
}

// administrators holds the set against the accounts.
func (w *world) administrators() (really []string) {
	w.t.Helper()
	w.store.heal()
	set, err := w.store.Administrators(w.ctx)
	w.must(err)
	users, _, err := w.Users(w.ctx, nil, "", "", 1000)
	w.must(err)
	for _, u := range users {
		administers := u.Active && (slices.Contains(u.Roles, "admin") || slices.Contains(u.Roles, "superadmin"))
		if administers {
			really = append(really, u.ID)
		} else if slices.Contains(set, u.ID) {
			w.t.Errorf("%s counts as an administrator and is none", u.Username)
		}
	}
	for _, id := range set {
		if !slices.Contains(really, id) {
			w.t.Errorf("%s counts as an administrator and is none", id)
		}
	}
	return really
}

func TestLastAdministratorStays(t *testing.T) {
	ways := map[string]func(*world, string) error{
		"demoted": func(w *world, id string) error {
			_, err := w.UpdateUser(w.ctx, nil, id, identity.Change{Roles: &[]string{"user"}}, here)
			return err
		},
		"disabled": func(w *world, id string) error {
			_, err := w.UpdateUser(w.ctx, nil, id, identity.Change{Active: ptr(false)}, here)
			return err
		},
		"deleted": func(w *world, id string) error { return w.DeleteUser(w.ctx, nil, id, here) },
	}
	for name, remove := range ways {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			first := w.user("first", "admin")
			g := w.login("first")
			w.want(remove(w, first.ID), identity.ErrLastAdministrator)
			w.believed(g.AccessToken)
			second := w.user("second", "superadmin")
			w.must(remove(w, first.ID))
			w.want(remove(w, second.ID), identity.ErrLastAdministrator)
			if got := w.administrators(); !slices.Equal(got, []string{second.ID}) {
				t.Errorf("%v", got)
			}
			there, err := w.HasAdministrator(w.ctx)
			if err != nil || !there {
				t.Errorf("%v, %v", there, err)
			}
		})
		t.Run(name+", all at once", func(t *testing.T) {
			w := newWorld(t)
			var ids []string
			for i := range 8 {
				ids = append(ids, w.user(fmt.Sprintf("admin%d", i), "admin").ID)
			}
			var wg sync.WaitGroup
			for _, id := range ids {
				wg.Go(func() {
					if err := remove(w, id); err != nil && !errors.Is(err, identity.ErrLastAdministrator) {
						t.Error(err)
					}
				})
			}
			wg.Wait()
			if got := w.administrators(); len(got) != 1 {
				t.Errorf("%d administrators are left", len(got))
			}
		})
	}
	t.Run("a disabled one does not count", func(t *testing.T) {
		w := newWorld(t)
		first, second := w.user("first", "admin"), w.user("second", "admin")
		w.must(ways["disabled"](w, second.ID))
		w.want(ways["demoted"](w, first.ID), identity.ErrLastAdministrator)
		_, err := w.UpdateUser(w.ctx, nil, second.ID, identity.Change{Active: ptr(true)}, here)
		w.must(err)
		w.must(ways["demoted"](w, first.ID))
	})
	t.Run("promoted while being changed", func(t *testing.T) {
		w := newWorld(t)
		first, second := w.user("first", "admin"), w.user("second")
		// Between the look at the second and its replacement, it becomes an
		// administrator and the first ceases to be one.
		w.store.once("UpdateUser", false, func() {
			_, err := w.UpdateUser(w.ctx, nil, second.ID, identity.Change{Roles: &[]string{"admin"}}, here)
			w.must(err)
			w.must(ways["demoted"](w, first.ID))
		})
		_, err := w.UpdateUser(w.ctx, nil, second.ID, identity.Change{Roles: &[]string{"editor"}}, here)
		w.want(err, identity.ErrLastAdministrator)
		if got := w.administrators(); !slices.Equal(got, []string{second.ID}) {
			t.Errorf("%v", got)
		}
	})
}

// Whatever is interleaved, the set holds administrators only, and when all is
// quiet somebody can administer.
func TestAdministratorsComeAndGo(t *testing.T) {
	w := newWorld(t)
	var ids []string
	for i := range 4 {
		ids = append(ids, w.user(fmt.Sprintf("admin%d", i), "admin").ID)
	}
	var wg sync.WaitGroup
	for worker := range 4 {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(1, uint64(worker)))
			for range 15 {
				change := []identity.Change{
					{Roles: &[]string{"user"}}, {Roles: &[]string{"admin"}}, {Active: ptr(false)}, {Active: ptr(true)},
				}[r.IntN(4)]
				if _, err := w.UpdateUser(w.ctx, nil, ids[r.IntN(len(ids))], change, here); err != nil && !errors.Is(err, identity.ErrLastAdministrator) {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	really := w.administrators()
	if len(really) == 0 {
		t.Error("nobody can administer")
	}
	set, err := w.store.Administrators(w.ctx)
	w.must(err)
	for _, id := range really {
		if !slices.Contains(set, id) {
			t.Error("an administrator does not count as one")
		}
	}
}

func TestUserByName(t *testing.T) {
	w := newWorld(t)
	u := w.user("ana")
	for _, name := range []string{"ana", "ANA", "ana@example.com", "ANA@Example.com"} {
		if got, err := w.UserByName(w.ctx, name); err != nil || got.ID != u.ID {
			t.Errorf("%q: %+v, %v", name, got, err)
		}
	}
	for _, name := range []string{"", "nobody", "nobody@example.com", "@", "a b", "\xff"} {
		if _, err := w.UserByName(w.ctx, name); !errors.Is(err, identity.ErrNotFound) {
			t.Errorf("%q: %v", name, err)
		}
	}
}
