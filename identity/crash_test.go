package identity_test

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"portcullis/identity"
)

// What is true of an operation that the store can interrupt at any call.
type interruptible struct {
	do func() error
	// interrupted is checked when do has failed and the store is back.
	interrupted func(t *testing.T)
	// again are the errors that a second attempt may have.
	again []error
	// done is checked after the second attempt.
	done func(t *testing.T)
}

// Every operation is interrupted at each of its calls to the store, which stays
// away as after a crash, and comes back; then the client tries again. What
// matters must hold in between, and in the end.
func TestInterruptedOperations(t *testing.T) {
	for name, prepare := range map[string]func(w *world, i int) interruptible{
		"register":        interruptedRegister,
		"refresh":         interruptedRefresh,
		"theft":           interruptedTheft,
		"logout":          interruptedLogout,
		"end session":     interruptedEndSession,
		"change password": interruptedChangePassword,
		"reset":           interruptedReset,
		"verify e-mail":   interruptedVerifyEmail,
		"rename":          interruptedRename,
		"demote":          interruptedDemote,
		"disable":         interruptedDisable,
		"delete":          interruptedDelete,
		"mail":            interruptedMail,
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, func(cfg *identity.Config) { cfg.LoginLimit.Attempts = 1000 })
			w.user("root", "superadmin")
			w.mail()
			for i := 0; ; i++ {
				if i > 60 {
					t.Fatal("does not end")
				}
				op := prepare(w, i)
				w.store.failing(i)
				err := op.do()
				w.store.heal()
				if err == nil {
					if i == 0 {
						t.Fatal("did not ask the store")
					}
					op.done(t)
					return
				}
				if !errors.Is(err, identity.ErrUnavailable) {
					t.Errorf("interrupted at call %d: %v", i+1, err)
				}
				if op.interrupted != nil {
					op.interrupted(t)
				}
				w.administrators()
				if err := op.do(); err != nil && !slices.ContainsFunc(op.again, func(ok error) bool { return errors.Is(err, ok) }) {
					t.Errorf("interrupted at call %d, tried again: %v", i+1, err)
				}
				op.done(t)
				w.mail()
				if t.Failed() {
					t.Fatalf("interrupted at call %d", i+1)
				}
			}
		})
	}
}

// numbered makes a user for the i-th time around.
func (w *world) numbered(i int, roles ...string) (identity.User, string) {
	name := fmt.Sprintf("user-%d", i)
	return w.user(name, roles...), name
}

// endedEverywhere fails the test unless the tokens of a grant are worth nothing,
// here and on a replica that has just started.
func (w *world) endedEverywhere(g identity.Grant) {
	w.t.Helper()
	w.refused(g.AccessToken)
	w.replica().refused(g.AccessToken)
}

func (w *world) sessionEnded(g identity.Grant) {
	w.t.Helper()
	_, err := w.Refresh(w.ctx, g.RefreshToken, here)
	w.want(err, identity.ErrTokenInvalid)
}

// An account is never without the mail that was promised for it.
func interruptedRegister(w *world, i int) interruptible {
	in := identity.Registration{Username: fmt.Sprintf("user-%d", i), Email: fmt.Sprintf("user-%d@example.com", i), Password: password}
	complete := func(t *testing.T) {
		t.Helper()
		_, err := w.UserByName(w.ctx, in.Username)
		w.clock.advance(2 * identity.JobLease)
		mailed := mailsTo(w.mail())
		if there := err == nil; there != (len(mailed) == 1) {
			t.Errorf("the account is there: %v; mailed %v", there, mailed)
		}
	}
	there := false
	return interruptible{
		do: func() error { _, err := w.Register(w.ctx, in, nil, here); return err },
		interrupted: func(t *testing.T) {
			complete(t)
			_, err := w.UserByName(w.ctx, in.Username)
			there = err == nil
		},
		again: []error{identity.ErrUsernameTaken},
		done: func(t *testing.T) {
			if !there {
				complete(t)
			}
			w.login(in.Username)
		},
	}
}

// A client that did not hear its answer asks again, and is not taken for a thief.
func interruptedRefresh(w *world, i int) interruptible {
	_, name := w.numbered(i)
	g := w.login(name)
	return interruptible{
		do: func() error { _, err := w.Refresh(w.ctx, g.RefreshToken, here); return err },
		done: func(t *testing.T) {
			next, err := w.Refresh(w.ctx, g.RefreshToken, here)
			w.must(err)
			w.believed(next.AccessToken)
			if n := len(w.audited(identity.EventTokenReuse)); n != 0 {
				t.Errorf("%d thefts", n)
			}
		},
	}
}

func interruptedTheft(w *world, i int) interruptible {
	_, name := w.numbered(i)
	g := w.login(name)
	next, err := w.Refresh(w.ctx, g.RefreshToken, here)
	w.must(err)
	w.clock.advance(2 * grace)
	return interruptible{
		do: func() error {
			_, err := w.Refresh(w.ctx, g.RefreshToken, here)
			if errors.Is(err, identity.ErrTokenReused) && !errors.Is(err, identity.ErrUnavailable) {
				err = nil // what it is to say
			}
			return err
		},
		again: []error{identity.ErrTokenInvalid},
		done:  func(*testing.T) { w.endedEverywhere(next); w.sessionEnded(next) },
	}
}

func interruptedLogout(w *world, i int) interruptible {
	_, name := w.numbered(i)
	g, other := w.login(name), w.login(name)
	me := w.who(g.AccessToken)
	return interruptible{
		do:   func() error { return w.Logout(w.ctx, me, identity.LogoutGlobal, here) },
		done: func(*testing.T) { w.endedEverywhere(g); w.endedEverywhere(other); w.sessionEnded(other) },
	}
}

func interruptedEndSession(w *world, i int) interruptible {
	_, name := w.numbered(i)
	g, other := w.login(name), w.login(name)
	me := w.who(g.AccessToken)
	return interruptible{
		do:    func() error { return w.EndSession(w.ctx, me, other.SessionID, here) },
		again: []error{identity.ErrNotFound},
		done:  func(*testing.T) { w.endedEverywhere(other); w.sessionEnded(other); w.believed(g.AccessToken) },
	}
}

// noticed fails the test unless a notice has been mailed if, and only if, what it
// says is so; twice at worst.
func (w *world) noticed(t *testing.T, template string, so bool) {
	t.Helper()
	w.clock.advance(2 * identity.JobLease)
	n := 0
	for _, m := range w.mail() {
		if m.Template == template {
			n++
		}
	}
	if (n > 0) != so || n > 2 {
		t.Errorf("mailed %d times that %s, and it is %v", n, template, so)
	}
}

// newPassword says which password opens the account, and that the other does not.
func (w *world) newPassword(t *testing.T, name string) bool {
	t.Helper()
	_, oldErr := w.Login(w.ctx, name, password, here)
	_, newErr := w.Login(w.ctx, name, another, here)
	if (oldErr == nil) == (newErr == nil) {
		t.Errorf("the old password: %v; the new one: %v", oldErr, newErr)
	}
	return newErr == nil
}

func interruptedChangePassword(w *world, i int) interruptible {
	_, name := w.numbered(i)
	w.mail()
	g, other := w.login(name), w.login(name)
	me := w.who(g.AccessToken)
	changed := false
	return interruptible{
		do: func() error {
			err := w.ChangePassword(w.ctx, me, password, another, here)
			if changed && slices.Equal(fields(err), []string{"current_password"}) {
				err = nil
			}
			return err
		},
		interrupted: func(t *testing.T) {
			if changed = w.newPassword(t, name); changed {
				w.sessionEnded(other)
			}
		},
		done: func(t *testing.T) {
			if !w.newPassword(t, name) {
				t.Error("the old password is still good")
			}
			w.endedEverywhere(other)
			w.sessionEnded(other)
			w.believed(g.AccessToken)
			w.noticed(t, "password_changed", true)
		},
	}
}

func interruptedReset(w *world, i int) interruptible {
	u, name := w.numbered(i)
	g := w.login(name)
	token := w.forgot(u.Email)
	return interruptible{
		do: func() error { return w.Reset(w.ctx, token, another, here) },
		interrupted: func(t *testing.T) {
			if w.newPassword(t, name) {
				w.sessionEnded(g)
			}
		},
		again: []error{identity.ErrTokenUsed},
		done: func(t *testing.T) {
			if w.newPassword(t, name) {
				w.endedEverywhere(g)
				w.sessionEnded(g)
				return
			}
			// The link was lost with the store. The next one works.
			w.must(w.Reset(w.ctx, w.forgot(u.Email), another, here))
			w.endedEverywhere(g)
		},
	}
}

func interruptedVerifyEmail(w *world, i int) interruptible {
	u, name := w.numbered(i)
	w.mail()
	wanted := fmt.Sprintf("wanted-%d@example.com", i)
	_, err := w.UpdateMe(w.ctx, w.as(name), identity.Profile{Email: &wanted, CurrentPassword: password}, identity.Client{IP: from(i).IP})
	w.must(err)
	token := w.token()
	return interruptible{
		do:    func() error { return w.VerifyEmail(w.ctx, token, here) },
		again: []error{identity.ErrTokenUsed},
		done: func(t *testing.T) {
			s := w.stored(u.ID)
			if (s.EmailKey == wanted) != s.EmailVerified {
				t.Errorf("half changed: %+v", s)
			}
			w.noticed(t, "email_changed", s.EmailVerified)
		},
	}
}

func interruptedRename(w *world, i int) interruptible {
	_, name := w.numbered(i)
	g := w.login(name)
	me := w.who(g.AccessToken)
	renamed := "renamed-" + name
	return interruptible{
		do:   func() error { _, err := w.UpdateMe(w.ctx, me, identity.Profile{Username: &renamed}, here); return err },
		done: func(*testing.T) { w.endedEverywhere(g); w.login(renamed) },
	}
}

func interruptedChange(w *world, i int, in identity.Change) (identity.User, identity.Grant, func() error) {
	u, name := w.numbered(i, "admin")
	g := w.login(name)
	return u, g, func() error { _, err := w.UpdateUser(w.ctx, nil, u.ID, in, here); return err }
}

func interruptedDemote(w *world, i int) interruptible {
	u, g, do := interruptedChange(w, i, identity.Change{Roles: &[]string{"user"}})
	return interruptible{do: do, done: func(t *testing.T) {
		w.endedEverywhere(g)
		if s := w.stored(u.ID); !slices.Equal(s.Roles, []string{"user"}) {
			t.Errorf("roles %v", s.Roles)
		}
		w.administrators()
	}}
}

func interruptedDisable(w *world, i int) interruptible {
	_, g, do := interruptedChange(w, i, identity.Change{Active: ptr(false)})
	return interruptible{do: do, done: func(*testing.T) {
		w.endedEverywhere(g)
		w.sessionEnded(g)
		w.administrators()
	}}
}

func interruptedDelete(w *world, i int) interruptible {
	u, name := w.numbered(i, "admin")
	g := w.login(name)
	return interruptible{
		do:    func() error { return w.DeleteUser(w.ctx, nil, u.ID, here) },
		again: []error{identity.ErrNotFound},
		done: func(t *testing.T) {
			w.endedEverywhere(g)
			w.sessionEnded(g)
			if _, err := w.store.User(w.ctx, u.ID); !errors.Is(err, identity.ErrNotFound) {
				t.Errorf("the account: %v", err)
			}
			if n := w.sessions(u.ID); n != 0 {
				t.Errorf("%d sessions are left", n)
			}
			w.administrators()
		},
	}
}

// A mail that was promised arrives; twice at worst.
func interruptedMail(w *world, i int) interruptible {
	u, _ := w.numbered(i)
	w.mail()
	w.must(w.Forgot(w.ctx, u.Email, from(i)))
	return interruptible{
		do: func() error { return w.RunDue(w.ctx) },
		done: func(t *testing.T) {
			w.clock.advance(identity.JobLease + time.Second)
			mails := w.mail()
			if len(mails) < 1 || len(mails) > 2 {
				t.Fatalf("mailed %v", mailsTo(mails))
			}
			_, token, _ := cutLink(mails[len(mails)-1])
			w.must(w.Reset(w.ctx, token, another, here))
			w.mail()
			w.clock.advance(time.Hour)
			if again := w.mail(); len(again) != 0 {
				t.Errorf("mailed once more: %v", mailsTo(again))
			}
		},
	}
}
