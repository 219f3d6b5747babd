package identity_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/bcrypt"

	"portcullis/identity"
)

// fields lists the fields that an error finds fault with.
func fields(err error) []string {
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		var all []string
		for _, e := range joined.Unwrap() {
			all = append(all, fields(e)...)
		}
		return all
	}
	var field *identity.FieldError
	if errors.As(err, &field) {
		return []string{field.Field}
	}
	return nil
}

func TestRegister(t *testing.T) {
	w := newWorld(t)
	u, err := w.Register(w.ctx, identity.Registration{Username: "Ana", Email: "Ana@Example.com", Password: password}, nil, here)
	w.must(err)
	if u.Username != "Ana" || u.UsernameKey != "ana" || u.Email != "Ana@Example.com" || u.EmailKey != "ana@example.com" || u.EmailVerified ||
		!u.Active || !slices.Equal(u.Roles, []string{"user"}) || u.Tenant != "" {
		t.Errorf("%+v", u)
	}
	if strings.Contains(u.PasswordHash, password) || u.PasswordHash == "" {
		t.Errorf("stored as %q", u.PasswordHash)
	}
	if got := mailsTo(w.mail()); !slices.Equal(got, []string{"verify Ana@Example.com"}) {
		t.Errorf("mailed %v", got)
	}
	if r := w.audited(identity.EventRegistered); len(r) != 1 || r[0].UserID != u.ID || r[0].ActorID != u.ID {
		t.Errorf("audited as %+v", r)
	}
}

func TestRegistrationThatIsRefusedStoresNothing(t *testing.T) {
	w := newWorld(t)
	w.user("tall")
	w.mail()
	for name, c := range map[string]struct {
		in     identity.Registration
		fields []string
		err    error
	}{
		"everything wrong":         {identity.Registration{Username: "a b", Email: "nobody", Password: "short"}, []string{"email", "password", "username"}, nil},
		"everything empty":         {identity.Registration{}, []string{"email", "password", "username"}, nil},
		"password is the name":     {identity.Registration{Username: "ana-maria", Email: "a@example.com", Password: "Ana-Maria"}, []string{"password"}, nil},
		"password is the address":  {identity.Registration{Username: "ana", Email: "ana@example.com", Password: "ANA@example.com"}, []string{"password"}, nil},
		"common password":          {identity.Registration{Username: "ana", Email: "ana@example.com", Password: "Password123"}, []string{"password"}, nil},
		"username taken":           {identity.Registration{Username: "TALL", Email: "a@example.com", Password: password}, nil, identity.ErrUsernameTaken},
		"username looks taken":     {identity.Registration{Username: "taIl", Email: "a@example.com", Password: password}, nil, identity.ErrUsernameTaken},
		"address taken":            {identity.Registration{Username: "ana", Email: "Tall@EXAMPLE.com", Password: password}, nil, identity.ErrEmailTaken},
		"administrator":            {identity.Registration{Username: "ana", Email: "a@example.com", Password: password, Role: "admin"}, nil, identity.ErrRoleNotAllowed},
		"super administrator":      {identity.Registration{Username: "ana", Email: "a@example.com", Password: password, Role: "superadmin"}, nil, identity.ErrRoleNotAllowed},
		"role in another spelling": {identity.Registration{Username: "ana", Email: "a@example.com", Password: password, Role: "role:user"}, nil, identity.ErrRoleNotAllowed},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := w.Register(w.ctx, c.in, nil, here)
			if c.err != nil {
				w.want(err, c.err)
			}
			got := fields(err)
			slices.Sort(got)
			if !slices.Equal(got, c.fields) {
				t.Errorf("faults in %v, want %v (%v)", got, c.fields, err)
			}
			users, _, err := w.Users(w.ctx, nil, "", "", 10)
			w.must(err)
			if len(users) != 1 {
				t.Fatalf("%d users", len(users))
			}
		})
	}
	w.clock.advance(2 * identity.JobLease)
	if got := w.mail(); len(got) != 0 {
		t.Errorf("mailed %v", mailsTo(got))
	}
}

func TestWhoMayRegisterWhom(t *testing.T) {
	member := &identity.Principal{UserID: "m", Roles: []string{"user"}, Tenant: "acme"}
	admin := &identity.Principal{UserID: "a", Roles: []string{"admin"}, Tenant: "acme"}
	super := &identity.Principal{UserID: "s", Roles: []string{"superadmin"}, Tenant: ""}
	for name, c := range map[string]struct {
		open   bool
		by     *identity.Principal
		role   string
		err    error
		roles  []string
		tenant string
	}{
		"a stranger, open":                    {true, nil, "", nil, []string{"user"}, ""},
		"a stranger asks for the default":     {true, nil, "user", nil, []string{"user"}, ""},
		"a stranger, closed":                  {false, nil, "", identity.ErrRegistrationClosed, nil, ""},
		"a stranger, closed, with a role":     {false, nil, "admin", identity.ErrRegistrationClosed, nil, ""},
		"a member, open":                      {true, member, "", nil, []string{"user"}, ""}, // not into the tenant
		"a member asks for more":              {true, member, "admin", identity.ErrRoleNotAllowed, nil, ""},
		"a member, closed":                    {false, member, "", identity.ErrRegistrationClosed, nil, ""},
		"an administrator, closed":            {false, admin, "", nil, []string{"user"}, "acme"},
		"an administrator makes another":      {false, admin, "admin", nil, []string{"admin"}, "acme"},
		"an administrator, an unknown role":   {false, admin, "emperor", nil, nil, ""},
		"an administrator, the super role":    {false, admin, "superadmin", identity.ErrRoleNotAllowed, nil, ""},
		"a super administrator makes another": {false, super, "superadmin", nil, []string{"superadmin"}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, func(cfg *identity.Config) { cfg.Registration = c.open })
			u, err := w.Register(w.ctx, identity.Registration{Username: "ana", Email: "ana@example.com", Password: password, Role: c.role}, c.by, here)
			if c.roles == nil {
				if err == nil || c.err != nil && !errors.Is(err, c.err) {
					t.Errorf("%+v, %v; want %v", u, err, c.err)
				}
				return
			}
			w.must(err)
			if !slices.Equal(u.Roles, c.roles) || u.Tenant != c.tenant {
				t.Errorf("roles %v in %q, want %v in %q", u.Roles, u.Tenant, c.roles, c.tenant)
			}
		})
	}
}

func TestParallelRegistrationsOfOneName(t *testing.T) {
	w := newWorld(t)
	var mu sync.Mutex
	made := 0
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			_, err := w.Register(w.ctx, identity.Registration{Username: "ana", Email: "ana@example.com", Password: password}, nil, here)
			mu.Lock()
			defer mu.Unlock()
			if err == nil {
				made++
			} else if !errors.Is(err, identity.ErrUsernameTaken) && !errors.Is(err, identity.ErrEmailTaken) {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if made != 1 {
		t.Errorf("%d accounts", made)
	}
	if got := mailsTo(w.mail()); len(got) != 1 {
		t.Errorf("mailed %v", got)
	}
}

func TestImportedAccount(t *testing.T) {
	w := newWorld(t)
	const hash = "$bcrypt-sha256$v=2,t=2b,r=4$abcdefghijklmnopqrstuu$h8GCYhBqatMGV8VIjRD4nhRxM87r3yu"
	u, err := w.CreateUser(w.ctx, identity.NewUser{Username: "ana", Email: "ana@example.com", PasswordHash: hash}, here)
	w.must(err)
	_, err = w.Login(w.ctx, "ana", "correct horse battery stapl", here)
	w.want(err, identity.ErrBadCredentials)
	if w.stored(u.ID).PasswordHash != hash {
		t.Error("a wrong password changed the hash")
	}
	_, err = w.Login(w.ctx, "ana", "correct horse battery staple", here)
	w.must(err)
	if got := w.stored(u.ID).PasswordHash; !strings.HasPrefix(got, "$2a$04$") {
		t.Errorf("the hash is still %q", got)
	}
	_, err = w.Login(w.ctx, "ana", "correct horse battery staple", here)
	w.must(err)

	for _, bad := range []string{"plain", "$2b$31$abcdefghijklmnopqrstuu7EJV7kdjBBQxyb0HjTh9KS7.Lah/6CG", strings.Repeat("$", 1000)} {
		_, err := w.CreateUser(w.ctx, identity.NewUser{Username: "eve", Email: "eve@example.com", PasswordHash: bad}, here)
		if got := fields(err); !slices.Equal(got, []string{"password_hash"}) {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

func TestLoginByEverySpellingOfTheName(t *testing.T) {
	w := newWorld(t)
	u, err := w.CreateUser(w.ctx, identity.NewUser{Username: "Zoë", Email: "Zoe@Example.com", Password: password}, here)
	w.must(err)
	for _, name := range []string{"Zoë", "zoë", "ZOË", "Zoe\u0308", "Ｚoë", "Zoe@Example.com", "zoe@EXAMPLE.COM"} {
		g, err := w.Login(w.ctx, name, password, here)
		if err != nil || g.User.ID != u.ID {
			t.Errorf("%q: %v", name, err)
		}
	}
}

// Whatever is wrong is one answer, and it has asked the store and the hasher the
// same: that is what takes time.
func TestLoginTellsStrangersNothing(t *testing.T) {
	w := newWorld(t, func(cfg *identity.Config) { cfg.LoginLimit.Attempts = 1000 })
	w.user("ana")
	none, err := w.CreateUser(w.ctx, identity.NewUser{Username: "blocked", Email: "blocked@example.com", Password: password}, here)
	w.must(err)
	active := false
	_, err = w.UpdateUser(w.ctx, nil, none.ID, identity.Change{Active: &active}, here)
	w.must(err)
	var reference []string
	for _, c := range [][2]string{
		{"ana", "wrong password"}, {"ana@example.com", "wrong password"},
		{"nobody", "wrong password"}, {"nobody@example.com", "wrong password"}, {"nobody", password},
		{"blocked", "wrong password"}, {"ana", ""}, {"ana", password + " "}, {"", ""}, {"a b", "x"}, {"@", "x"},
		{"ana\x00", password}, {"\xff\xfe", "x"}, {strings.Repeat("x", 70000), "x"}, {"ana", strings.Repeat("x", 60000)},
		{"role:admin", "x"}, {`{"$ne":null}`, "x"}, {"ana\n", password}, {" ana", password},
	} {
		var calls []string
		w.store.hook(nil, func(method string) { calls = append(calls, method) })
		g, err := w.Login(w.ctx, c[0], c[1], here)
		w.store.heal()
		if !errors.Is(err, identity.ErrBadCredentials) || err.Error() != identity.ErrBadCredentials.Error() || g.AccessToken != "" {
			t.Errorf("%.20q, %.20q: %v", c[0], c[1], err)
		}
		for i, m := range calls {
			calls[i] = strings.TrimPrefix(strings.TrimPrefix(m, "UserByUsername"), "UserByEmail")
		}
		if reference == nil {
			reference = calls
		} else if !slices.Equal(calls, reference) {
			t.Errorf("%.20q, %.20q: asked the store %v, others %v", c[0], c[1], calls, reference)
		}
	}
	_, err = w.Login(w.ctx, "blocked", password, here)
	w.want(err, identity.ErrDisabled) // told to whoever has the password only
}

func TestLoginIsAudited(t *testing.T) {
	w := newWorld(t)
	u := w.userOf("acme", "ana")
	_, err := w.Login(w.ctx, "ana", "wrong password", here)
	w.want(err, identity.ErrBadCredentials)
	_, err = w.Login(w.ctx, "nobody", "wrong password", here)
	w.want(err, identity.ErrBadCredentials)
	g := w.login("ana")
	failed, ok := w.audited(identity.EventLoginFailed), w.audited(identity.EventLogin)
	if len(failed) != 2 || failed[0].UserID != u.ID || failed[0].Tenant != "acme" || failed[0].ActorID != "" || failed[1].UserID != "" {
		t.Errorf("%+v", failed)
	}
	if len(ok) != 1 || ok[0].UserID != u.ID || ok[0].SessionID != g.SessionID || ok[0].IP != here.IP || ok[0].RequestID != here.RequestID {
		t.Errorf("%+v", ok)
	}
}

// After the setting has changed, every hash is made anew at its next login, also
// when many log in at once: losing that race is no wrong password.
func TestParallelLoginsWhileTheHashIsMadeAnew(t *testing.T) {
	w := newWorld(t, func(cfg *identity.Config) { cfg.LoginLimit.Attempts = 20 })
	old, err := bcrypt.GenerateFromPassword([]byte(password), 5)
	w.must(err)
	u, err := w.CreateUser(w.ctx, identity.NewUser{Username: "ana", Email: "ana@example.com", PasswordHash: string(old)}, here)
	w.must(err)
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			if _, err := w.Login(w.ctx, "ana", password, identity.Client{}); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if hash := w.stored(u.ID).PasswordHash; !strings.HasPrefix(hash, "$2a$04$") {
		t.Errorf("the hash is %q", hash)
	}
	if n := w.sessions(u.ID); n != 20 {
		t.Errorf("%d sessions", n)
	}
}

func TestRehashLosesToAPasswordChange(t *testing.T) {
	w := newWorld(t)
	old, err := bcrypt.GenerateFromPassword([]byte(password), 5)
	w.must(err)
	u, err := w.CreateUser(w.ctx, identity.NewUser{Username: "ana", Email: "ana@example.com", PasswordHash: string(old)}, here)
	w.must(err)
	token := w.forgot("ana@example.com")
	w.store.once("UpdateUser", false, func() { w.must(w.Reset(w.ctx, token, another, here)) })
	_, err = w.Login(w.ctx, "ana", password, here)
	w.want(err, identity.ErrBadCredentials)
	if n := w.sessions(u.ID); n != 0 {
		t.Errorf("%d sessions", n)
	}
	_, err = w.Login(w.ctx, "ana", another, here)
	w.must(err)
}

func TestChangePassword(t *testing.T) {
	w := newWorld(t)
	elsewhere := w.replica()
	u := w.user("ana")
	w.mail()
	mine, other := w.login("ana"), w.login("ana")
	me := w.who(mine.AccessToken)
	elsewhere.believed(other.AccessToken)

	for name, c := range map[string]struct{ current, next, field string }{
		"wrong password": {"wrong", another, "current_password"},
		"empty password": {"", another, "current_password"},
		"too short":      {password, "short", "new_password"},
		"common":         {password, "iloveyou1", "new_password"},
		"the username":   {password, "ana@example.com", "new_password"},
	} {
		if got := fields(w.ChangePassword(w.ctx, me, c.current, c.next, here)); !slices.Equal(got, []string{c.field}) {
			t.Errorf("%s: faults in %v", name, got)
		}
	}
	w.believed(other.AccessToken)

	w.must(w.ChangePassword(w.ctx, me, password, another, here))
	w.believed(mine.AccessToken)
	if _, err := w.Refresh(w.ctx, mine.RefreshToken, here); err != nil {
		t.Errorf("the caller is signed out: %v", err)
	}
	w.refused(other.AccessToken)
	w.must(elsewhere.revocations.Sync(w.ctx, w.clock.Now()))
	elsewhere.refused(other.AccessToken)
	_, err := w.Refresh(w.ctx, other.RefreshToken, here)
	w.want(err, identity.ErrTokenInvalid)
	_, err = w.Login(w.ctx, "ana", password, here)
	w.want(err, identity.ErrBadCredentials)
	_, err = w.Login(w.ctx, "ana", another, here)
	w.must(err)
	if got := mailsTo(w.mail()); !slices.Equal(got, []string{"password_changed ana@example.com"}) {
		t.Errorf("mailed %v", got)
	}
	if r := w.audited(identity.EventPasswordChanged); len(r) != 1 || r[0].UserID != u.ID || r[0].SessionID != mine.SessionID {
		t.Errorf("audited as %+v", r)
	}
	if r := w.audited(identity.EventLoginFailed); len(r) != 3 {
		t.Errorf("%d wrong guesses audited, want 3", len(r))
	}
}

// A thief knows the old password and is changing it while the owner resets it:
// the owner's is the one that stays.
func TestChangePasswordLosesToAReset(t *testing.T) {
	w := newWorld(t)
	u := w.user("ana")
	token := w.forgot("ana@example.com")
	thief := w.as("ana")
	w.store.once("UpdateUser", false, func() { w.must(w.Reset(w.ctx, token, another, here)) })
	if got := fields(w.ChangePassword(w.ctx, thief, password, "the thief's own", here)); !slices.Equal(got, []string{"current_password"}) {
		t.Errorf("faults in %v", got)
	}
	_, err := w.Login(w.ctx, "ana", "the thief's own", here)
	w.want(err, identity.ErrBadCredentials)
	_, err = w.Login(w.ctx, "ana", another, here)
	w.must(err)
	if n := w.sessions(u.ID); n != 1 {
		t.Errorf("%d sessions, want the owner's", n)
	}
}

func TestUpdateMe(t *testing.T) {
	name := func(s string) identity.Profile { return identity.Profile{Username: &s} }
	address := func(s string) identity.Profile { return identity.Profile{Email: &s, CurrentPassword: password} }

	t.Run("a new name ends the tokens that say the old one", func(t *testing.T) {
		w := newWorld(t)
		w.user("ana")
		g := w.login("ana")
		u, err := w.UpdateMe(w.ctx, w.who(g.AccessToken), name("Anna"), here)
		w.must(err)
		if u.Username != "Anna" || u.UsernameKey != "anna" {
			t.Errorf("%+v", u)
		}
		w.refused(g.AccessToken)
		next, err := w.Refresh(w.ctx, g.RefreshToken, here)
		w.must(err)
		if p := w.who(next.AccessToken); p.Username != "Anna" {
			t.Errorf("the token says %q", p.Username)
		}
		_, err = w.Login(w.ctx, "anna", password, here)
		w.must(err)
	})
	t.Run("a name that is taken", func(t *testing.T) {
		w := newWorld(t)
		w.user("ana")
		w.user("eve")
		g := w.login("ana")
		_, err := w.UpdateMe(w.ctx, w.who(g.AccessToken), name("EVE"), here)
		w.want(err, identity.ErrUsernameTaken)
		w.believed(g.AccessToken)
	})
	t.Run("the same name in another case", func(t *testing.T) {
		w := newWorld(t)
		w.user("ana")
		u, err := w.UpdateMe(w.ctx, w.as("ana"), name("ANA"), here)
		w.must(err)
		if u.Username != "ANA" {
			t.Errorf("%+v", u)
		}
	})
	t.Run("a new address counts once it was confirmed", func(t *testing.T) {
		w := newWorld(t)
		u := w.user("ana")
		w.mail()
		g := w.login("ana")
		got, err := w.UpdateMe(w.ctx, w.who(g.AccessToken), address("new@example.com"), here)
		w.must(err)
		if got.Email != "ana@example.com" || w.stored(u.ID).EmailKey != "ana@example.com" {
			t.Errorf("it counts already: %+v", got)
		}
		token := w.token()
		w.believed(g.AccessToken)
		w.must(w.VerifyEmail(w.ctx, token, here))
		if s := w.stored(u.ID); s.Email != "new@example.com" || s.EmailKey != "new@example.com" || !s.EmailVerified {
			t.Errorf("%+v", s)
		}
		w.refused(g.AccessToken)
		if got := mailsTo(w.mail()); !slices.Equal(got, []string{"email_changed ana@example.com"}) {
			t.Errorf("mailed %v", got)
		}
		w.want(w.VerifyEmail(w.ctx, token, here), identity.ErrTokenUsed)
	})
	t.Run("another address takes the password that is current when it is asked for", func(t *testing.T) {
		w := newWorld(t)
		u := w.user("ana")
		w.mail()
		me, n, evil := w.as("ana"), "anna", "evil@example.net"
		w.store.once("UpdateUser", false, func() { w.must(w.ChangePassword(w.ctx, me, password, another, here)) })
		if _, err := w.UpdateMe(w.ctx, me, identity.Profile{Username: &n, Email: &evil, CurrentPassword: password}, here); !slices.Equal(fields(err), []string{"current_password"}) {
			t.Errorf("%v", err)
		}
		if got := mailsTo(w.mail()); !slices.Equal(got, []string{"password_changed ana@example.com"}) || w.stored(u.ID).Username != "ana" {
			t.Errorf("mailed %v; %+v", got, w.stored(u.ID))
		}
	})
	t.Run("another address takes the password", func(t *testing.T) {
		w := newWorld(t)
		u := w.user("ana")
		w.mail()
		me := w.as("ana")
		n, evil := "anna", "evil@example.net"
		for _, guess := range []string{"", another} {
			if _, err := w.UpdateMe(w.ctx, me, identity.Profile{Username: &n, Email: &evil, CurrentPassword: guess}, here); !slices.Equal(fields(err), []string{"current_password"}) {
				t.Errorf("%q: %v", guess, err)
			}
		}
		if s := w.stored(u.ID); s.Version != u.Version || len(w.mail()) > 0 {
			t.Errorf("something was done: %+v", s)
		}
		// The address that is there already can be confirmed without.
		_, err := w.UpdateMe(w.ctx, me, identity.Profile{Email: ptr("ANA@example.com")}, here)
		w.must(err)
		if got := mailsTo(w.mail()); len(got) != 1 {
			t.Errorf("mailed %v", got)
		}
		// Guesses count as those of a login do.
		var throttled *identity.ThrottledError
		for range w.cfg.LoginLimit.Attempts {
			_, err = w.UpdateMe(w.ctx, me, identity.Profile{Email: &evil, CurrentPassword: another}, here)
		}
		if !errors.As(err, &throttled) {
			t.Errorf("guesses are not limited: %v", err)
		}
	})
	t.Run("nothing changes when one part is wrong or throttled", func(t *testing.T) {
		w := newWorld(t)
		w.user("ana")
		w.mail()
		me := w.as("ana")
		n, bad, good := "anna", "nobody", "x@example.com"
		if _, err := w.UpdateMe(w.ctx, me, identity.Profile{Username: &n, Email: &bad, CurrentPassword: password}, here); !slices.Equal(fields(err), []string{"email"}) {
			t.Error(err)
		}
		for range identity.MailsPerAddressee {
			_, err := w.UpdateMe(w.ctx, me, address(good), here)
			w.must(err)
		}
		var throttled *identity.ThrottledError
		if _, err := w.UpdateMe(w.ctx, me, identity.Profile{Username: &n, Email: &good, CurrentPassword: password}, here); !errors.As(err, &throttled) {
			t.Error(err)
		}
		if u, err := w.Me(w.ctx, me); err != nil || u.Username != "ana" {
			t.Errorf("%+v, %v", u, err)
		}
	})
	t.Run("an address cannot change where none can be confirmed", func(t *testing.T) {
		w := newWorld(t, func(cfg *identity.Config) { cfg.VerifyLink = "" })
		w.user("ana")
		if _, err := w.UpdateMe(w.ctx, w.as("ana"), address("new@example.com"), here); !slices.Equal(fields(err), []string{"email"}) {
			t.Error(err)
		}
		if got := w.mail(); len(got) != 0 {
			t.Errorf("mailed %v", mailsTo(got))
		}
	})
}

// An intruder prepares a way back: an address of theirs, to be confirmed later.
// Whatever the owner does to get the account back ends it.
func TestAddressChangeDoesNotSurviveTheOwner(t *testing.T) {
	owners := map[string]func(*world, identity.User){
		"reset": func(w *world, u identity.User) {
			w.must(w.Reset(w.ctx, w.forgot(u.Email), another, here))
		},
		"password change": func(w *world, u identity.User) {
			w.must(w.ChangePassword(w.ctx, w.as(u.Username), password, another, here))
		},
		"an administrator's new address": func(w *world, u identity.User) {
			right := "right@example.com"
			_, err := w.UpdateUser(w.ctx, nil, u.ID, identity.Change{Email: &right}, here)
			w.must(err)
		},
		"disabled and enabled": func(w *world, u identity.User) {
			for _, active := range []bool{false, true} {
				_, err := w.UpdateUser(w.ctx, nil, u.ID, identity.Change{Active: &active}, here)
				w.must(err)
			}
		},
	}
	evil := "evil@example.net"
	tokenFor := func(mails []identity.Mail, to string) string {
		for _, m := range mails {
			if _, token, ok := strings.Cut(m.Link, "token="); ok && m.To == to && m.Template == "verify" {
				return token
			}
		}
		return ""
	}
	for name, act := range owners {
		t.Run(name+", after the mail", func(t *testing.T) {
			w := newWorld(t)
			u := w.user("ana")
			w.mail()
			_, err := w.UpdateMe(w.ctx, w.as("ana"), identity.Profile{Email: &evil, CurrentPassword: password}, here)
			w.must(err)
			token := tokenFor(w.mail(), evil)
			if token == "" {
				t.Fatal("no mail to confirm the address")
			}
			act(w, u)
			w.want(w.VerifyEmail(w.ctx, token, here), identity.ErrTokenUsed)
			if got := w.stored(u.ID).EmailKey; got == evil {
				t.Errorf("the address is %s", got)
			}
		})
		t.Run(name+", before a mail that was late", func(t *testing.T) {
			w := newWorld(t)
			u := w.user("ana")
			w.mail()
			_, err := w.UpdateMe(w.ctx, w.as("ana"), identity.Profile{Email: &evil, CurrentPassword: password}, here)
			w.must(err)
			w.mails.failWith(errors.New("no connection"))
			w.mail()
			w.mails.failWith(nil)
			act(w, u)
			w.clock.advance(identity.JobPause)
			token := tokenFor(w.mail(), evil)
			if token != "" {
				t.Error("the mail was sent all the same")
				w.want(w.VerifyEmail(w.ctx, token, here), identity.ErrTokenUsed)
			}
		})
	}
	t.Run("reset while the mail is being written", func(t *testing.T) {
		w := newWorld(t)
		u := w.user("ana")
		w.mail()
		reset := w.forgot(u.Email)
		_, err := w.UpdateMe(w.ctx, w.as("ana"), identity.Profile{Email: &evil, CurrentPassword: password}, here)
		w.must(err)
		w.store.once("PutToken", false, func() { w.must(w.Reset(w.ctx, reset, another, here)) })
		if token := tokenFor(w.mail(), evil); token != "" {
			w.want(w.VerifyEmail(w.ctx, token, here), identity.ErrTokenUsed)
		}
	})
}

func TestLoginIsBoundedWhenPasswordsQueue(t *testing.T) {
	w := newWorld(t)
	w.user("ana")
	ctx, cancel := context.WithTimeout(w.ctx, -time.Second)
	defer cancel()
	_, err := w.Login(ctx, "ana", password, here)
	if !errors.Is(err, identity.ErrUnavailable) && !errors.Is(err, identity.ErrBusy) {
		t.Errorf("%v", err)
	}
}
