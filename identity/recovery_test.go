package identity_test

import (
	"errors"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"portcullis/identity"
)

func TestReset(t *testing.T) {
	w := newWorld(t)
	elsewhere := w.replica()
	u := w.user("ana")
	w.mail()
	grants := []identity.Grant{w.login("ana"), w.login("ana")}
	elsewhere.believed(grants[0].AccessToken)
	w.must(w.Forgot(w.ctx, "ANA@example.com", here))
	mails := w.mail()
	if len(mails) != 1 || mails[0].To != "ana@example.com" || mails[0].Template != "reset" || mails[0].Valid != time.Hour {
		t.Fatalf("%+v", mails)
	}
	_, token, _ := strings.Cut(mails[0].Link, "https://id.example/reset?token=")
	if len(token) != 43 {
		t.Errorf("a token of %d characters: %q", len(token), token)
	}
	w.must(w.Reset(w.ctx, token, another, here))

	w.must(elsewhere.revocations.Sync(w.ctx, w.clock.Now()))
	for _, g := range grants {
		w.refused(g.AccessToken)
		elsewhere.refused(g.AccessToken)
		_, err := w.Refresh(w.ctx, g.RefreshToken, here)
		w.want(err, identity.ErrTokenInvalid)
	}
	_, err := w.Login(w.ctx, "ana", password, here)
	w.want(err, identity.ErrBadCredentials)
	_, err = w.Login(w.ctx, "ana", another, here)
	w.must(err)
	if got := mailsTo(w.mail()); !slices.Equal(got, []string{"password_changed ana@example.com"}) {
		t.Errorf("mailed %v", got)
	}
	if r := w.audited(identity.EventPasswordReset); len(r) != 1 || r[0].UserID != u.ID {
		t.Errorf("audited as %+v", r)
	}
	if r := w.audited(identity.EventResetRequested); len(r) != 1 || r[0].UserID != u.ID || r[0].IP != here.IP || r[0].RequestID != here.RequestID {
		t.Errorf("audited as %+v", r)
	}
}

// Whoever registers with somebody else's address must not have our mails say to them
// what is in a name.
func TestOnlyAtAProvedAddressIsAnybodyGreetedByName(t *testing.T) {
	greeted := func(w *world, want ...string) {
		t.Helper()
		var got []string
		for _, m := range w.mail() {
			got = append(got, m.Template+" to "+m.To+" for "+m.Username)
		}
		slices.Sort(got)
		if !slices.Equal(got, want) {
			t.Errorf("mailed %q\nwant %q", got, want)
		}
	}
	w := newWorld(t)
	_, err := w.CreateUser(w.ctx, identity.NewUser{Username: "www.evil.example", Email: "ana@example.com", Password: password}, here)
	w.must(err)
	eve := w.as("www.evil.example")
	w.must(w.Forgot(w.ctx, "ana@example.com", here))
	w.must(w.ChangePassword(w.ctx, eve, password, another, here))
	greeted(w, "password_changed to ana@example.com for ", "reset to ana@example.com for ", "verify to ana@example.com for ")
	_, err = w.UpdateMe(w.ctx, eve, identity.Profile{Email: ptr("bea@example.com"), CurrentPassword: another}, here)
	w.must(err)
	w.must(w.VerifyEmail(w.ctx, w.token(), here))
	greeted(w, "email_changed to ana@example.com for ")

	w.user("cleo")
	w.must(w.VerifyEmail(w.ctx, w.token(), here))
	cleo := w.as("cleo")
	w.must(w.Forgot(w.ctx, "cleo@example.com", here))
	_, err = w.UpdateMe(w.ctx, cleo, identity.Profile{Email: ptr("cleo@example.net"), CurrentPassword: password}, here)
	w.must(err)
	greeted(w, "reset to cleo@example.com for cleo", "verify to cleo@example.net for ")
	_, err = w.UpdateUser(w.ctx, nil, cleo.UserID, identity.Change{Email: ptr("cleo@example.org")}, here)
	w.must(err)
	greeted(w, "email_changed to cleo@example.com for cleo", "verify to cleo@example.org for ")
}

func TestForgotTellsStrangersNothing(t *testing.T) {
	w := newWorld(t)
	u := w.user("ana")
	blocked := w.user("blocked")
	active := false
	_, err := w.UpdateUser(w.ctx, nil, blocked.ID, identity.Change{Active: &active}, here)
	w.must(err)
	w.mail()
	var reference []string
	for _, address := range []string{u.Email, "nobody@example.com", blocked.Email} {
		var calls []string
		w.store.hook(nil, func(method string) { calls = append(calls, method) })
		if err := w.Forgot(w.ctx, address, here); err != nil {
			t.Errorf("%s: %v", address, err)
		}
		w.store.heal()
		if reference == nil {
			reference = calls
		} else if !slices.Equal(calls, reference) {
			t.Errorf("%s: asked the store %v, others %v", address, calls, reference)
		}
	}
	if got := mailsTo(w.mail()); !slices.Equal(got, []string{"reset ana@example.com"}) {
		t.Errorf("mailed %v", got)
	}
	if got := fields(w.Forgot(w.ctx, "nobody", here)); !slices.Equal(got, []string{"email"}) {
		t.Errorf("faults in %v", got)
	}
}

// The mail goes to the address of the account, not to the one that was typed.
func TestResetGoesToTheAddressOfTheAccount(t *testing.T) {
	w := newWorld(t)
	_, err := w.CreateUser(w.ctx, identity.NewUser{Username: "mike", Email: "Mike@Example.com", Password: password}, here)
	w.must(err)
	w.mail()
	for _, typed := range []string{"mike@example.com", "ｍike@example.com", "MIKE@EXAMPLE.COM"} {
		w.must(w.Forgot(w.ctx, typed, here))
		if got := mailsTo(w.mail()); !slices.Equal(got, []string{"reset Mike@Example.com"}) {
			t.Errorf("%q: mailed %v", typed, got)
		}
	}
	w.must(w.Forgot(w.ctx, "mıke@example.com", here))
	if got := w.mail(); len(got) != 0 {
		t.Errorf("a look-alike: mailed %v", mailsTo(got))
	}
}

func TestResetTokenIsGoodForOneUse(t *testing.T) {
	w := newWorld(t)
	u := w.user("ana")
	token := w.forgot(u.Email)
	var succeeded atomic.Int32
	var wg sync.WaitGroup
	start := make(chan struct{})
	for i := range 20 {
		wg.Go(func() {
			<-start
			switch err := w.Reset(w.ctx, token, another+strings.Repeat("!", i), here); {
			case err == nil:
				succeeded.Add(1)
			case !errors.Is(err, identity.ErrTokenUsed):
				t.Error(err)
			}
		})
	}
	close(start)
	wg.Wait()
	if n := succeeded.Load(); n != 1 {
		t.Errorf("%d of 20 parallel uses succeeded", n)
	}
	if got := mailsTo(w.mail()); !slices.Equal(got, []string{"password_changed ana@example.com"}) {
		t.Errorf("mailed %v", got)
	}
}

func TestResetTokenThatIsNotGood(t *testing.T) {
	w := newWorld(t)
	u := w.user("ana")
	older := w.forgot(u.Email)
	token := w.forgot(u.Email)
	w.want(w.Reset(w.ctx, older, another, here), identity.ErrTokenUsed)
	w.want(w.VerifyEmail(w.ctx, token, here), identity.ErrTokenUsed) // of another purpose
	for _, garbage := range []string{"", "x", token + "=", token[:42], " " + token, strings.Repeat("A", 43), strings.Repeat("A", 1<<20), strings.ToUpper(token)} {
		w.want(w.Reset(w.ctx, garbage, another, here), identity.ErrTokenUsed)
	}
	w.must(w.Reset(w.ctx, token, another, here))
	w.want(w.Reset(w.ctx, token, another, here), identity.ErrTokenUsed)

	expired := w.forgot(u.Email)
	w.clock.advance(time.Hour)
	w.want(w.Reset(w.ctx, expired, another, here), identity.ErrTokenUsed)
	if _, err := w.Login(w.ctx, "ana", another, here); err != nil {
		t.Error(err)
	}
}

// A password that is refused has not cost the link.
func TestResetWithABadPasswordCanBeRepeated(t *testing.T) {
	w := newWorld(t)
	u := w.user("anamaria")
	token := w.forgot(u.Email)
	for _, bad := range []string{"", "short", "password1", "AnaMaria", "anamaria@example.com", strings.Repeat("x", 1025)} {
		if got := fields(w.Reset(w.ctx, token, bad, here)); !slices.Equal(got, []string{"new_password"}) {
			t.Errorf("%.20q: faults in %v", bad, got)
		}
	}
	w.must(w.Reset(w.ctx, token, another, here))
}

func TestResetTokenDoesNotOutliveWhatItProves(t *testing.T) {
	for name, change := range map[string]func(*world, identity.User){
		"the address is another's": func(w *world, u identity.User) {
			address := "other@example.com"
			_, err := w.UpdateUser(w.ctx, nil, u.ID, identity.Change{Email: &address}, here)
			w.must(err)
		},
		"the user is disabled": func(w *world, u identity.User) {
			active := false
			_, err := w.UpdateUser(w.ctx, nil, u.ID, identity.Change{Active: &active}, here)
			w.must(err)
		},
		"the user is deleted": func(w *world, u identity.User) { w.must(w.DeleteUser(w.ctx, nil, u.ID, here)) },
		"the password was changed": func(w *world, u identity.User) {
			w.must(w.ChangePassword(w.ctx, w.as("ana"), password, "another one again", here))
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			u := w.user("ana")
			token := w.forgot(u.Email)
			change(w, u)
			w.want(w.Reset(w.ctx, token, another, here), identity.ErrTokenUsed)
		})
		t.Run(name+" while it is used", func(t *testing.T) {
			if strings.Contains(name, "password") {
				t.Skip("both are the owner's: the later one counts")
			}
			w := newWorld(t)
			u := w.user("ana")
			token := w.forgot(u.Email)
			w.store.once("UpdateUser", false, func() { change(w, u) })
			w.want(w.Reset(w.ctx, token, another, here), identity.ErrTokenUsed)
		})
	}
}

func TestVerifyEmail(t *testing.T) {
	w := newWorld(t)
	u := w.user("ana")
	g := w.login("ana")
	token := w.token()
	w.must(w.VerifyEmail(w.ctx, token, here))
	if s := w.stored(u.ID); !s.EmailVerified || s.Email != u.Email {
		t.Errorf("%+v", s)
	}
	w.believed(g.AccessToken)
	w.want(w.VerifyEmail(w.ctx, token, here), identity.ErrTokenUsed)
	if got := w.mail(); len(got) != 0 {
		t.Errorf("mailed %v", mailsTo(got))
	}
	if r := w.audited(identity.EventEmailVerified); len(r) != 1 || r[0].UserID != u.ID {
		t.Errorf("audited as %+v", r)
	}
}

func TestVerifyEmailOfAnAddressThatWasTakenMeanwhile(t *testing.T) {
	w := newWorld(t)
	u := w.user("ana")
	w.mail()
	wanted := "wanted@example.com"
	_, err := w.UpdateMe(w.ctx, w.as("ana"), identity.Profile{Email: &wanted, CurrentPassword: password}, here)
	w.must(err)
	token := w.token()
	_, err = w.CreateUser(w.ctx, identity.NewUser{Username: "faster", Email: wanted, Password: password}, here)
	w.must(err)
	w.want(w.VerifyEmail(w.ctx, token, here), identity.ErrEmailTaken)
	if s := w.stored(u.ID); s.EmailKey != "ana@example.com" {
		t.Errorf("%+v", s)
	}
}

func TestVerifyTokenExpires(t *testing.T) {
	w := newWorld(t)
	w.user("ana")
	token := w.token()
	w.clock.advance(w.cfg.VerifyTTL)
	w.want(w.VerifyEmail(w.ctx, token, here), identity.ErrTokenUsed)
}
