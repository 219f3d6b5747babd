package identity_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"portcullis/identity"
)

func TestRefreshRotates(t *testing.T) {
	w := newWorld(t)
	w.user("ana")
	first := w.login("ana")
	second, err := w.Refresh(w.ctx, first.RefreshToken, here)
	w.must(err)
	if second.RefreshToken == first.RefreshToken || second.SessionID != first.SessionID {
		t.Errorf("the refresh token did not rotate within its session")
	}
	if second.AccessExpiresIn != accessTTL || second.RefreshExpiresIn != w.cfg.RefreshTTL {
		t.Errorf("expire in %v and %v", second.AccessExpiresIn, second.RefreshExpiresIn)
	}
	w.believed(first.AccessToken)
	w.believed(second.AccessToken)
}

// Many tabs wake up at once. All get the same successor, nobody is signed out.
func TestParallelRefreshesOfOneToken(t *testing.T) {
	w := newWorld(t)
	w.user("ana")
	g := w.login("ana")
	var mu sync.Mutex
	tokens := map[string]int{}
	var wg sync.WaitGroup
	start := make(chan struct{})
	for range 200 {
		wg.Go(func() {
			<-start
			next, err := w.Refresh(w.ctx, g.RefreshToken, here)
			if err != nil {
				t.Error(err)
				return
			}
			w.believed(next.AccessToken)
			mu.Lock()
			defer mu.Unlock()
			tokens[next.RefreshToken]++
		})
	}
	close(start)
	wg.Wait()
	if len(tokens) != 1 || tokens[g.RefreshToken] != 0 {
		t.Errorf("%d different successors", len(tokens))
	}
	session, err := w.store.Store.Session(w.ctx, g.SessionID, w.clock.Now())
	w.must(err)
	if session.Counter != 1 {
		t.Errorf("%d rotations", session.Counter)
	}
	for token := range tokens {
		if _, err := w.Refresh(w.ctx, token, here); err != nil {
			t.Errorf("the session does not live on: %v", err)
		}
	}
	if n := len(w.audited(identity.EventTokenReuse)); n != 0 {
		t.Errorf("taken for a theft %d times", n)
	}
}

func TestRefreshTokenThatIsNotTheCurrentOne(t *testing.T) {
	for name, c := range map[string]struct {
		rotations int           // after the token was issued
		wait      time.Duration // after the last of them
		stolen    bool
	}{
		"current":                        {0, 0, false},
		"current, after a day":           {0, 24 * time.Hour, false},
		"one behind":                     {1, 0, false},
		"one behind, at the last moment": {1, grace, false},
		"one behind, after the grace":    {1, grace + time.Millisecond, true},
		"two behind":                     {2, 0, true},
		"two behind, after the grace":    {2, time.Hour, true},
		"far behind":                     {9, 0, true},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			u := w.userOf("acme", "ana")
			first := w.login("ana")
			last := first
			for range c.rotations {
				next, err := w.Refresh(w.ctx, last.RefreshToken, here)
				w.must(err)
				last = next
			}
			w.clock.advance(c.wait)
			thief := identity.Client{IP: "198.51.100.66", RequestID: "req-thief"}
			got, err := w.Refresh(w.ctx, first.RefreshToken, thief)
			if !c.stolen {
				w.must(err)
				w.believed(got.AccessToken)
				if c.rotations == 1 && got.RefreshToken != last.RefreshToken {
					t.Error("the token before the current one got a sibling of its successor")
				}
				return
			}
			w.want(err, identity.ErrTokenReused)
			if _, err := w.Refresh(w.ctx, last.RefreshToken, here); !errors.Is(err, identity.ErrTokenInvalid) {
				t.Errorf("the session lives on: %v", err)
			}
			if c.wait < accessTTL {
				w.refused(last.AccessToken)
				w.refused(first.AccessToken)
			}
			records := w.audited(identity.EventTokenReuse)
			if len(records) != 1 || records[0].UserID != u.ID || records[0].SessionID != first.SessionID ||
				records[0].Tenant != "acme" || records[0].IP != thief.IP || records[0].RequestID != thief.RequestID {
				t.Errorf("audited as %+v", records)
			}
			// Other sessions are not touched.
			if _, err := w.Login(w.ctx, "ana", password, here); err != nil {
				t.Error(err)
			}
		})
	}
}

// A thief who is faster than the owner within the grace gets what the owner
// gets; the first of the two to refresh that later is ahead, and the other's
// next refresh ends the session for both.
func TestThiefIsFoundWhenBothGoOn(t *testing.T) {
	w := newWorld(t)
	w.user("ana")
	g := w.login("ana")
	owner, err := w.Refresh(w.ctx, g.RefreshToken, here)
	w.must(err)
	thief, err := w.Refresh(w.ctx, g.RefreshToken, here)
	w.must(err)
	w.clock.advance(time.Minute)
	thief, err = w.Refresh(w.ctx, thief.RefreshToken, here)
	w.must(err)
	w.clock.advance(time.Minute)
	_, err = w.Refresh(w.ctx, owner.RefreshToken, here)
	w.want(err, identity.ErrTokenReused)
	_, err = w.Refresh(w.ctx, thief.RefreshToken, here)
	w.want(err, identity.ErrTokenInvalid)
	w.refused(thief.AccessToken)
}

// The grace counts from the rotation. Using the old token does not prolong it.
func TestGraceIsNotProlonged(t *testing.T) {
	w := newWorld(t)
	w.user("ana")
	g := w.login("ana")
	_, err := w.Refresh(w.ctx, g.RefreshToken, here)
	w.must(err)
	for range 4 {
		w.clock.advance(grace / 4)
		_, err = w.Refresh(w.ctx, g.RefreshToken, here)
		w.must(err)
	}
	w.clock.advance(time.Millisecond)
	_, err = w.Refresh(w.ctx, g.RefreshToken, here)
	w.want(err, identity.ErrTokenReused)
}

func TestRefreshTokensAreNotAccessTokensNorTheOtherWay(t *testing.T) {
	w := newWorld(t)
	w.user("ana")
	g := w.login("ana")
	if _, err := w.Tokens().Verify([]byte(g.RefreshToken)); !errors.Is(err, identity.ErrTokenInvalid) {
		t.Errorf("a refresh token as an access token: %v", err)
	}
	calls := w.store.failing(0)
	for _, token := range []string{g.AccessToken, "", "prt_" + strings.Repeat("\n", 55)} {
		if _, err := w.Refresh(w.ctx, token, here); !errors.Is(err, identity.ErrTokenInvalid) {
			t.Errorf("%q as a refresh token: %v", token, err)
		}
	}
	if calls() != 0 {
		t.Errorf("the store was asked %d times about garbage", calls())
	}
}

func TestSessionEnds(t *testing.T) {
	t.Run("when it is not refreshed", func(t *testing.T) {
		w := newWorld(t)
		w.user("ana")
		g := w.login("ana")
		w.clock.advance(w.cfg.RefreshTTL)
		_, err := w.Refresh(w.ctx, g.RefreshToken, here)
		w.want(err, identity.ErrTokenInvalid)
	})
	t.Run("however often it is refreshed", func(t *testing.T) {
		w := newWorld(t)
		w.user("ana")
		g := w.login("ana")
		var left time.Duration
		for days := 5; days < 30; days += 5 {
			w.clock.advance(5 * 24 * time.Hour)
			next, err := w.Refresh(w.ctx, g.RefreshToken, here)
			w.must(err)
			g, left = next, next.RefreshExpiresIn
		}
		if left != 5*24*time.Hour {
			t.Errorf("the last refresh promises %v, and five days are left", left)
		}
		w.clock.advance(5 * 24 * time.Hour)
		_, err := w.Refresh(w.ctx, g.RefreshToken, here)
		w.want(err, identity.ErrTokenInvalid)
	})
	t.Run("when its user is disabled behind our back", func(t *testing.T) {
		w := newWorld(t)
		u := w.user("ana")
		g := w.login("ana")
		u = w.stored(u.ID)
		u.Active = false
		_, err := w.store.UpdateUser(w.ctx, u)
		w.must(err)
		_, err = w.Refresh(w.ctx, g.RefreshToken, here)
		w.want(err, identity.ErrTokenInvalid)
		w.refused(g.AccessToken)
		if w.sessions(u.ID) != 0 {
			t.Error("the session is still there")
		}
	})
	t.Run("when its user is gone", func(t *testing.T) {
		w := newWorld(t)
		u := w.user("ana")
		g := w.login("ana")
		w.must(w.store.DeleteUser(w.ctx, u.ID))
		_, err := w.Refresh(w.ctx, g.RefreshToken, here)
		w.want(err, identity.ErrTokenInvalid)
		w.refused(g.AccessToken)
	})
}

func TestLogout(t *testing.T) {
	for scope, ends := range map[identity.LogoutScope][]bool{ // of the caller's session, of another, of another user's
		identity.LogoutLocal:  {true, false, false},
		identity.LogoutOthers: {false, true, false},
		identity.LogoutGlobal: {true, true, false},
	} {
		t.Run(string(scope), func(t *testing.T) {
			w := newWorld(t)
			elsewhere := w.replica()
			w.user("ana")
			w.user("eve")
			grants := []identity.Grant{w.login("ana"), w.login("ana"), w.login("eve")}
			for _, g := range grants {
				elsewhere.believed(g.AccessToken)
			}
			w.must(w.Logout(w.ctx, w.who(grants[0].AccessToken), scope, here))
			w.must(elsewhere.revocations.Sync(w.ctx, w.clock.Now()))
			for i, g := range grants {
				_, err := w.Refresh(w.ctx, g.RefreshToken, here)
				if !ends[i] {
					w.must(err)
					w.believed(g.AccessToken)
					elsewhere.believed(g.AccessToken)
					continue
				}
				w.want(err, identity.ErrTokenInvalid)
				w.refused(g.AccessToken)
				elsewhere.refused(g.AccessToken)
			}
			records := w.audited(identity.EventLogout)
			if len(records) != 1 || records[0].Details["scope"] != string(scope) {
				t.Errorf("audited as %+v", records)
			}
		})
	}
	t.Run("another word", func(t *testing.T) {
		w := newWorld(t)
		w.user("ana")
		g := w.login("ana")
		var field *identity.FieldError
		if err := w.Logout(w.ctx, w.who(g.AccessToken), "everything", here); !errors.As(err, &field) || field.Field != "scope" {
			t.Error(err)
		}
		w.believed(g.AccessToken)
	})
}

func TestSessionsOfTheCaller(t *testing.T) {
	w := newWorld(t)
	w.user("ana")
	w.user("eve")
	phone, err := w.Login(w.ctx, "ana", password, identity.Client{IP: "2001:db8::1", UserAgent: "phone \xff " + strings.Repeat("ü", 300)})
	w.must(err)
	w.clock.advance(time.Minute)
	laptop := w.login("ana")
	eve := w.as("eve")
	ana := w.who(laptop.AccessToken)

	sessions, err := w.Sessions(w.ctx, ana)
	w.must(err)
	if len(sessions) != 2 || sessions[0].ID != laptop.SessionID || sessions[1].ID != phone.SessionID {
		t.Fatalf("%+v; want the newest first", sessions)
	}
	if agent := sessions[1].UserAgent; !strings.HasPrefix(agent, "phone \uFFFD ü") || len(agent) > 256 || !strings.HasSuffix(agent, "ü") {
		t.Errorf("the device is shown as %q", agent)
	}
	if sessions[1].IP != "2001:db8::1" || !sessions[1].CreatedAt.Equal(w.clock.Now().Add(-time.Minute)) {
		t.Errorf("%+v", sessions[1])
	}

	w.want(w.EndSession(w.ctx, eve, phone.SessionID, here), identity.ErrNotFound)
	w.want(w.EndSession(w.ctx, eve, "no such session", here), identity.ErrNotFound)
	w.believed(phone.AccessToken)
	w.must(w.EndSession(w.ctx, ana, phone.SessionID, here))
	w.refused(phone.AccessToken)
	w.believed(laptop.AccessToken)
	w.want(w.EndSession(w.ctx, ana, phone.SessionID, here), identity.ErrNotFound)
}

// What is done to an account between the steps of a login or of a refresh must
// not slip through.
func TestNothingSlipsThroughBetweenTheSteps(t *testing.T) {
	admin := (*identity.Principal)(nil) // the operator
	disable := func(w *world, id string) error {
		active := false
		_, err := w.UpdateUser(w.ctx, admin, id, identity.Change{Active: &active}, here)
		return err
	}
	demote := func(w *world, id string) error {
		_, err := w.UpdateUser(w.ctx, admin, id, identity.Change{Roles: &[]string{}}, here)
		return err
	}
	logout := func(w *world, id string) error { return w.LogoutUser(w.ctx, admin, id, here) }
	remove := func(w *world, id string) error { return w.DeleteUser(w.ctx, admin, id, here) }

	logins := map[string]struct {
		method string
		after  bool
		do     func(*world, string) error
		want   error // nil: the login may succeed, but its token must not say what is no longer so
	}{
		"disabled after the look at the account": {"UserByUsername", true, disable, identity.ErrBadCredentials},
		"disabled before the session":            {"CreateSession", false, disable, identity.ErrBadCredentials},
		"disabled after the session":             {"CreateSession", true, disable, identity.ErrBadCredentials},
		"deleted after the look at the account":  {"UserByUsername", true, remove, identity.ErrBadCredentials},
		"deleted before the session":             {"CreateSession", false, remove, identity.ErrBadCredentials},
		"deleted after the session":              {"CreateSession", true, remove, identity.ErrBadCredentials},
		"demoted after the look at the account":  {"UserByUsername", true, demote, nil},
		"demoted after the session":              {"CreateSession", true, demote, nil},
		"demoted after the second look":          {"User", true, demote, nil},
		"disabled after the second look":         {"User", true, disable, nil},
		"deleted after the second look":          {"User", true, remove, nil},
	}
	for name, c := range logins {
		t.Run("login: "+name, func(t *testing.T) {
			w := newWorld(t)
			u := w.user("ana")
			w.store.once(c.method, c.after, func() {
				if err := c.do(w, u.ID); err != nil {
					t.Error(err)
				}
			})
			g, err := w.Login(w.ctx, "ana", password, here)
			if c.want != nil {
				w.want(err, c.want)
				if n := w.sessions(u.ID); n != 0 {
					t.Errorf("%d sessions are left", n)
				}
				return
			}
			w.must(err)
			if p, err := w.Tokens().Verify([]byte(g.AccessToken)); err == nil && len(p.Roles) > 0 {
				t.Errorf("the token still has roles %v", p.Roles)
			}
		})
	}
	refreshes := map[string]struct {
		method string
		after  bool
		do     func(*world, string) error
	}{
		"logged out after the look at the session": {"Session", true, logout},
		"logged out before the rotation":           {"RotateSession", false, logout},
		"logged out after the rotation":            {"RotateSession", true, logout},
		"logged out after the look at the user":    {"User", true, logout},
		"disabled after the look at the session":   {"Session", true, disable},
		"disabled after the rotation":              {"RotateSession", true, disable},
		"disabled after the look at the user":      {"User", true, disable},
		"deleted after the rotation":               {"RotateSession", true, remove},
		"deleted after the look at the user":       {"User", true, remove},
		"demoted after the rotation":               {"RotateSession", true, demote},
		"demoted after the look at the user":       {"User", true, demote},
	}
	for name, c := range refreshes {
		t.Run("refresh: "+name, func(t *testing.T) {
			w := newWorld(t)
			elsewhere := w.replica()
			u := w.user("ana")
			g := w.login("ana")
			w.store.once(c.method, c.after, func() {
				if err := c.do(w, u.ID); err != nil {
					t.Error(err)
				}
			})
			next, err := w.Refresh(w.ctx, g.RefreshToken, here)
			if err != nil {
				w.want(err, identity.ErrTokenInvalid)
				return
			}
			w.must(elsewhere.revocations.Sync(w.ctx, w.clock.Now()))
			for _, replica := range []*world{w, elsewhere} {
				if p, err := replica.Tokens().Verify([]byte(next.AccessToken)); err == nil && len(p.Roles) > 0 {
					t.Errorf("the token is believed, with roles %v", p.Roles)
				}
			}
		})
	}
}

// Role changes reach the client with its next refresh, and not later than that.
func TestRefreshedTokenSaysWhatIsTrueNow(t *testing.T) {
	w := newWorld(t)
	elsewhere := w.replica()
	u := w.user("ana")
	g := w.login("ana")
	elsewhere.believed(g.AccessToken)
	_, err := w.UpdateUser(w.ctx, nil, u.ID, identity.Change{Roles: &[]string{"editor", "user"}}, here)
	w.must(err)
	w.refused(g.AccessToken)
	w.must(elsewhere.revocations.Sync(w.ctx, w.clock.Now()))
	elsewhere.refused(g.AccessToken)
	next, err := elsewhere.Refresh(w.ctx, g.RefreshToken, here)
	w.must(err)
	p := w.who(next.AccessToken)
	if !slices.Equal(p.Roles, []string{"editor", "user"}) || !slices.Equal(p.Permissions, []string{"be.editor", "be.user"}) {
		t.Errorf("roles %v, permissions %v", p.Roles, p.Permissions)
	}
}

// Whoever knows a password must not be able to begin so many sessions that its
// owner can't end them any more.
func TestSessionsAreBounded(t *testing.T) {
	w := newWorld(t)
	u := w.user("ana")
	oldest := []identity.Grant{w.login("ana"), w.login("ana")}
	begin := func(n int, ago time.Duration) {
		for i := range n {
			at := w.clock.Now().Add(-ago)
			w.must(w.store.Store.CreateSession(w.ctx, identity.Session{ID: fmt.Sprintf("%v-%d", ago, i), UserID: u.ID,
				CreatedAt: at, RotatedAt: at, ExpiresAt: at.Add(24 * time.Hour), EndsAt: at.Add(24 * time.Hour)}))
		}
	}
	w.clock.advance(time.Minute)
	begin(identity.MaxSessions-2, 0)
	w.believed(oldest[0].AccessToken)
	w.clock.advance(time.Minute)
	newest := []identity.Grant{w.login("ana"), w.login("ana")}
	if n := w.sessions(u.ID); n != identity.MaxSessions {
		t.Errorf("%d sessions", n)
	}
	for i := range oldest {
		w.refused(oldest[i].AccessToken)
		w.sessionEnded(oldest[i])
		w.believed(newest[i].AccessToken)
	}
	ended := w.audited(identity.EventLogout)
	if len(ended) != 2 || ended[0].UserID != u.ID || ended[0].Details["scope"] != "too many" {
		t.Errorf("audited %+v", ended)
	}

	// More than there can be, as after a version without the bound: some at a time.
	begin(25, time.Hour)
	for range 3 {
		w.login("ana")
	}
	if n := w.sessions(u.ID); n != identity.MaxSessions {
		t.Errorf("%d sessions", n)
	}
}
