package identity_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"portcullis/identity"
)

// from is a client at the n-th address of a network.
func from(n int) identity.Client {
	return identity.Client{IP: fmt.Sprintf("10.%d.%d.%d", n>>16, n>>8&255, n&255)}
}

// throttled returns the wait that an error asks for, and whether it does.
func throttled(err error) (time.Duration, bool) {
	var t *identity.ThrottledError
	if errors.As(err, &t) {
		return t.RetryAfter, true
	}
	return 0, false
}

// guess tries a wrong password and reports whether it was let through.
func (w *world) guess(name string, client identity.Client) bool {
	w.t.Helper()
	_, err := w.Login(w.ctx, name, "wrong password", client)
	if _, ok := throttled(err); ok {
		return false
	}
	w.want(err, identity.ErrBadCredentials)
	return true
}

func TestGuessingIsThrottled(t *testing.T) {
	w := newWorld(t)
	w.user("ana")
	w.clock.advance(4 * time.Minute) // into a window
	for i := range 5 {
		if !w.guess("ana", here) {
			t.Fatalf("throttled after %d guesses", i)
		}
	}
	_, err := w.Login(w.ctx, "ana", password, here)
	if wait, ok := throttled(err); !ok || wait != 11*time.Minute {
		t.Errorf("the right password at once: %v; want to wait for the end of the window", err)
	}
	if w.guess("nobody", from(1)) && !w.guess("ana", from(1)) {
		t.Error("others are throttled")
	}
	if _, err := w.Login(w.ctx, "ana", password, from(2)); err != nil {
		t.Errorf("the owner, at another address: %v", err)
	}
	w.clock.advance(11 * time.Minute)
	if _, err := w.Login(w.ctx, "ana", password, here); err != nil {
		t.Errorf("after the wait: %v", err)
	}
}

// Unknown names are throttled like known ones, or the difference would tell.
func TestGuessingAtNobodyIsThrottledAlike(t *testing.T) {
	w := newWorld(t)
	for _, name := range []string{"nobody", "nobody@example.com", "a b", strings.Repeat("x", 1000), "\xff"} {
		for i := range 5 {
			if !w.guess(name, from(len(name))) {
				t.Errorf("%.20q: throttled after %d guesses", name, i)
			}
		}
		if w.guess(name, from(len(name))) {
			t.Errorf("%.20q: a sixth guess", name)
		}
	}
}

func TestSpellingsOfANameCountTogether(t *testing.T) {
	for kind, spellings := range map[string][]string{
		"username": {"zoë", "Zoë", "ZOË", "zoe\u0308", "ｚoë", "Zoe\u0308"},
		"address":  {"zoe@bücher.example", "ZOE@bücher.example", "zoe@BÜCHER.example", "zoe@xn--bcher-kva.example", "zoe@bu\u0308cher.example", "ｚoe@bücher.example"},
	} {
		w := newWorld(t)
		for i, s := range spellings {
			if through := w.guess(s, here); through != (i < 5) {
				t.Errorf("%s %q, guess %d: let through %v", kind, s, i+1, through)
			}
		}
	}
}

func TestParallelGuesses(t *testing.T) {
	w := newWorld(t)
	second := w.replica()
	w.user("ana")
	var through atomic.Int32
	var wg sync.WaitGroup
	for i := range 60 {
		replica := []*world{w, second}[i%2]
		wg.Go(func() {
			if replica.guess("ana", here) {
				through.Add(1)
			}
		})
	}
	wg.Wait()
	if n := through.Load(); n != 5 {
		t.Errorf("%d guesses were let through on two replicas, want 5", n)
	}
}

func TestOwnSuccessesDoNotPayForGuesses(t *testing.T) {
	w := newWorld(t, func(cfg *identity.Config) { cfg.LoginLimit.Attempts = 1 })
	w.user("mallory")
	limit := identity.AddressFactor
	for i := range limit {
		if !w.guess(fmt.Sprintf("victim%d", i), here) {
			t.Fatalf("throttled after %d guesses", i)
		}
		if i < limit-1 { // the attacker's own login is between any two
			w.login("mallory")
		}
	}
	if w.guess("another victim", here) {
		t.Error("the address may go on")
	}
	if !w.guess("another victim", from(7)) {
		t.Error("other addresses may not")
	}
}

func TestSuccessStartsThePairAnew(t *testing.T) {
	w := newWorld(t)
	w.user("ana")
	for range 3 {
		for range 4 {
			if !w.guess("ana", here) {
				t.Fatal("throttled")
			}
		}
		w.login("ana")
	}
}

func TestIPv6ClientHasOneNetwork(t *testing.T) {
	w := newWorld(t)
	for i := range 6 {
		if through := w.guess("ana", identity.Client{IP: fmt.Sprintf("2001:db8::%x", i+1)}); through != (i < 5) {
			t.Errorf("guess %d: let through %v", i+1, through)
		}
	}
}

// A spread attack is slowed down for the account; until the window ends, or an
// administrator unlocks it, or its owner resets the password, that is the
// owner's trouble too.
func TestSpreadGuessing(t *testing.T) {
	attack := func(w *world, name string) {
		w.t.Helper()
		for i := range identity.AccountFactor {
			if !w.guess(name, from(i)) {
				w.t.Fatalf("throttled after %d guesses", i)
			}
		}
		if w.guess(name, from(5000)) {
			w.t.Fatal("the attack may go on")
		}
	}
	for name, back := range map[string]func(*world, identity.User){
		"the window ends": func(w *world, _ identity.User) { w.clock.advance(15 * time.Minute) },
		"unlocked":        func(w *world, u identity.User) { w.must(w.UnlockUser(w.ctx, nil, u.ID, here)) },
		"unlocked at another replica": func(w *world, u identity.User) {
			w.must(w.replica().UnlockUser(w.ctx, nil, u.ID, here))
		},
		"reset": func(w *world, u identity.User) { w.must(w.Reset(w.ctx, w.forgot(u.Email), password+"!", here)) },
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, func(cfg *identity.Config) { cfg.LoginLimit.Attempts = 1 })
			u := w.user("ana")
			attack(w, "ana")
			attack(w, "ana@example.com") // on its own, see Login
			for _, n := range []string{"ana", "ana@example.com"} {
				if _, err := w.Login(w.ctx, n, password, from(9000)); err == nil {
					t.Fatalf("the owner is let in as %s", n)
				}
			}
			back(w, u)
			right := password
			if name == "reset" {
				right += "!"
			}
			for _, n := range []string{"ana", "ana@example.com"} {
				if _, err := w.Login(w.ctx, n, right, from(9000)); err != nil {
					t.Errorf("%s: %v", n, err)
				}
			}
		})
	}
}

func TestUnlockUser(t *testing.T) {
	w := newWorld(t)
	u := w.userOf("acme", "ana")
	super := w.userOf("acme", "root", "superadmin")
	other := w.userOf("", "eve")
	for _, n := range []string{"ana", "eve"} {
		for range 6 {
			w.guess(n, here)
		}
		if w.guess(n, here) {
			t.Fatal("not throttled")
		}
	}
	admin := &identity.Principal{UserID: "a", Roles: []string{"admin"}, Tenant: "acme"}
	w.want(w.UnlockUser(w.ctx, admin, "no such user", here), identity.ErrNotFound)
	w.want(w.UnlockUser(w.ctx, admin, other.ID, here), identity.ErrNotFound)
	w.want(w.UnlockUser(w.ctx, admin, super.ID, here), identity.ErrRoleNotAllowed)
	w.must(w.UnlockUser(w.ctx, admin, u.ID, here))
	w.login("ana")
	for i := range 6 { // the limit is there again
		if through := w.guess("ana", here); through != (i < 5) {
			t.Errorf("guess %d: let through %v", i+1, through)
		}
	}
	w.must(w.UnlockUser(w.ctx, admin, u.ID, here)) // more than once in a window
	w.login("ana")
	if _, err := w.Login(w.ctx, "eve", password, here); err == nil {
		t.Error("another account was unlocked as well")
	}
	if r := w.audited(identity.EventUserUnlocked); len(r) != 2 || r[0].UserID != u.ID || r[0].ActorID != "a" || r[0].Tenant != "acme" {
		t.Errorf("audited as %+v", r)
	}
}

func TestChangePasswordIsThrottledLikeALogin(t *testing.T) {
	w := newWorld(t)
	w.user("ana")
	me := w.as("ana")
	for range 5 {
		if got := fields(w.ChangePassword(w.ctx, me, "wrong", another, here)); len(got) != 1 {
			t.Fatalf("faults in %v", got)
		}
	}
	if _, ok := throttled(w.ChangePassword(w.ctx, me, password, another, here)); !ok {
		t.Error("a stolen token may go on guessing")
	}
	if w.guess("ana", here) {
		t.Error("and at the login as well")
	}
}

func TestThrottlingIsAuditedOnce(t *testing.T) {
	w := newWorld(t)
	for range 12 {
		w.guess("ana", here)
	}
	if r := w.audited(identity.EventThrottled); len(r) != 1 || r[0].IP != here.IP {
		t.Errorf("%d records: %+v", len(r), r)
	}
	if r := w.audited(identity.EventLoginFailed); len(r) != 5 {
		t.Errorf("%d failed logins audited", len(r))
	}
}

func TestLimitCanBeTurnedOff(t *testing.T) {
	w := newWorld(t, func(cfg *identity.Config) { cfg.LoginLimit = identity.Limit{} })
	u := w.user("ana")
	for range 30 {
		if !w.guess("ana", here) {
			t.Fatal("throttled")
		}
	}
	w.login("ana")
	w.must(w.UnlockUser(w.ctx, nil, u.ID, here))
}

func TestOtherOperationsAreThrottled(t *testing.T) {
	w := newWorld(t)
	count := func(limit int, attempt func(i int) error) {
		t.Helper()
		for i := range limit {
			if _, ok := throttled(attempt(i)); ok {
				t.Fatalf("throttled after %d attempts, want %d", i, limit)
			}
		}
		if wait, ok := throttled(attempt(limit)); !ok || wait <= 0 || wait > time.Hour {
			t.Errorf("attempt %d: throttled %v, wait %v", limit+1, ok, wait)
		}
	}
	// What would take long is counted by hand, but for the last two.
	counted := func(key string, n int, window time.Duration) {
		t.Helper()
		_, err := w.store.Hit(w.ctx, key, n, window, w.clock.Now())
		w.must(err)
	}
	counted("register:"+here.IP, identity.RegistrationsPerHour-1, time.Hour)
	count(1, func(int) error {
		_, err := w.Register(w.ctx, identity.Registration{}, nil, here)
		return err
	})
	count(identity.MailsPerAddressee, func(i int) error { return w.Forgot(w.ctx, "Ana@example.com", from(i)) })
	counted("mail:address:"+from(99).IP, identity.MailsPerHour-3, time.Hour)
	count(3, func(i int) error { return w.Forgot(w.ctx, fmt.Sprintf("x%d@example.com", i), from(99)) })

	w.user("eve")
	g := w.login("eve")
	counted("refresh:"+g.SessionID, identity.RefreshesPerMinute-1, time.Minute)
	next, err := w.Refresh(w.ctx, g.RefreshToken, here)
	w.must(err)
	_, err = w.Refresh(w.ctx, next.RefreshToken, here)
	if _, ok := throttled(err); !ok {
		t.Errorf("refresh %d: %v", identity.RefreshesPerMinute+1, err)
	}
	w.clock.advance(time.Minute)
	_, err = w.Refresh(w.ctx, next.RefreshToken, here)
	w.must(err)
}

// What somebody typed must not be found in the store: it may be a password in
// the wrong field.
func TestNamesAreNotKeysOfCounters(t *testing.T) {
	w := newWorld(t)
	for range 7 {
		_, _ = w.Login(w.ctx, "hunter2-in-the-wrong-field", "x", here)
	}
	for _, r := range w.audited("") {
		for _, v := range r.Details {
			if strings.Contains(v, "hunter2") {
				t.Errorf("%+v", r)
			}
		}
	}
	if strings.Contains(w.logs.String(), "hunter2") {
		t.Error("it is in the log")
	}
}

// crowded is another gateway over the same store, in which every login finds the
// passwords' queue full when it comes to its own; before that, act is called.
func (w *world) crowded(act func()) *world {
	w.t.Helper()
	r := *w
	r.store = &faultyStore{Store: w.store.Store}
	hasher, err := identity.NewHasher(identity.PasswordConfig{Hash: "bcrypt", Cost: 4, Workers: 1})
	if err != nil {
		w.t.Fatal(err)
	}
	r.hasher = hasher
	r.start()
	w.t.Cleanup(hasher.Close)
	r.store.once("Hit", true, func() {
		hasher.Occupy()
		act()
	})
	return &r
}

// For want of a worker no guess is made, and none is counted, wherever it is found out.
func TestWhoIsNotServedHasNotGuessed(t *testing.T) {
	w := newWorld(t)
	w.user("ana")
	p := w.as("ana")
	r := w.crowded(func() {})
	for range 10 {
		_, err := r.Login(w.ctx, "ana", "wrong password", here)
		w.want(err, identity.ErrBusy)
		_, err = r.Login(w.ctx, "nobody", "wrong password", here)
		w.want(err, identity.ErrBusy)
		w.want(r.ChangePassword(w.ctx, p, "wrong password", another, here), identity.ErrBusy)
	}
	for _, name := range []string{"ana", "nobody"} {
		for i := range 5 {
			if !w.guess(name, here) {
				t.Errorf("%s: throttled after %d guesses", name, i)
			}
		}
		if w.guess(name, here) {
			t.Errorf("%s: a sixth guess", name)
		}
	}
}

// Nor is one made where the worker fails.
func TestWhoseWorkerFailsHasNotGuessed(t *testing.T) {
	w := newWorld(t)
	w.user("ana")
	broken := *w
	hasher, err := identity.NewHasher(identity.PasswordConfig{Hash: "bcrypt", Cost: 4, Workers: 1, Queue: 1})
	if err != nil {
		t.Fatal(err)
	}
	hasher.Isolate(func(ctx context.Context, _ identity.Priority) *exec.Cmd {
		return exec.CommandContext(ctx, t.TempDir()+"/missing")
	})
	t.Cleanup(hasher.Close)
	broken.hasher = hasher
	broken.start()
	for range 10 {
		if _, err := broken.Login(w.ctx, "ana", "wrong password", here); err == nil || errors.Is(err, identity.ErrBadCredentials) {
			t.Fatalf("without a worker: %v", err)
		}
	}
	for i := range 5 {
		if !w.guess("ana", here) {
			t.Errorf("throttled after %d guesses", i)
		}
	}
	if w.guess("ana", here) {
		t.Error("a sixth guess")
	}
}

// But one is made where the worker fails between finding a password wrong and the rest
// of the work: whoever brought that about would know what they wanted to.
func TestAGuessThatFailsHalfwayIsCounted(t *testing.T) {
	for what, guess := range map[string]struct {
		password string
		cost     int
	}{
		"while the time is evened out":       {"wrong password", 5},
		"before the other spelling is tried": {"wrong\u00a0password", 4},
	} {
		t.Run(what, func(t *testing.T) {
			w := newWorld(t)
			w.user("ana")
			hasher, err := identity.NewHasher(identity.PasswordConfig{Hash: "bcrypt", Cost: guess.cost, Workers: 1, Queue: 1})
			w.must(err)
			started := 0
			hasher.Isolate(func(ctx context.Context, _ identity.Priority) *exec.Cmd {
				if started++; started%2 == 0 {
					return exec.CommandContext(ctx, t.TempDir()+"/missing")
				}
				cmd := exec.CommandContext(ctx, os.Args[0], "-test.run=^TestWorkerProcess$")
				cmd.Env = []string{"PASSWORD_WORKER=once"}
				return cmd
			})
			t.Cleanup(hasher.Close)
			w.hasher = hasher
			w.start()
			for range 5 {
				if _, err := w.Login(w.ctx, "ana", guess.password, here); err == nil || errors.Is(err, identity.ErrBadCredentials) {
					t.Fatalf("a worker for one password: %v", err)
				}
			}
			if started != 10 {
				t.Errorf("%d processes, want two for each guess", started)
			}
			if w.guess("ana", here) {
				t.Error("a sixth guess")
			}
		})
	}
}

// What was counted in one window is not taken back from the next.
func TestAnAttemptIsTakenBackWhereItWasCounted(t *testing.T) {
	w := newWorld(t)
	w.user("ana")
	r := w.crowded(func() {
		w.clock.advance(w.cfg.LoginLimit.Window)
		for i := range 5 {
			if !w.guess("ana", here) {
				t.Errorf("throttled after %d guesses", i)
			}
		}
	})
	_, err := r.Login(w.ctx, "ana", "wrong password", here)
	w.want(err, identity.ErrBusy)
	if w.guess("ana", here) {
		t.Error("a sixth guess")
	}
}
