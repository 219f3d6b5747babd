package identity_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"portcullis/identity"
)

func TestMailIsTriedAgainWithGrowingPauses(t *testing.T) {
	w := newWorld(t)
	u := w.user("ana")
	w.mail()
	w.mails.failWith(errors.New("451 try again"))
	w.must(w.Forgot(w.ctx, u.Email, here))
	w.mail()
	for pause := identity.JobPause; pause < 3*time.Hour; pause *= 2 {
		w.clock.advance(pause - time.Millisecond)
		before := countLines(w.logs.String(), "mail will be tried again")
		w.mail()
		if n := countLines(w.logs.String(), "mail will be tried again"); n != before {
			t.Fatalf("tried before %v had passed", pause)
		}
		w.clock.advance(time.Millisecond)
		w.mail()
		if n := countLines(w.logs.String(), "mail will be tried again"); n != before+1 {
			t.Fatalf("not tried after %v", pause)
		}
	}
	w.mails.failWith(nil)
	w.clock.advance(identity.JobPauseMax)
	token := w.token() // made when the mail was sent, so it works as long as it says
	w.clock.advance(w.cfg.ResetTTL - time.Minute)
	w.must(w.Reset(w.ctx, token, another, here))
	if r := w.audited(identity.EventResetRequested); len(r) != 1 {
		t.Errorf("one request is audited %d times", len(r))
	}
}

func TestMailIsGivenUpInTheEnd(t *testing.T) {
	w := newWorld(t)
	u := w.user("ana")
	w.mail()
	w.mails.failWith(errors.New("550 no such mailbox"))
	w.must(w.Forgot(w.ctx, u.Email, here))
	for range identity.JobAttempts + 3 {
		w.mail()
		w.clock.advance(identity.JobPauseMax)
	}
	if n := countLines(w.logs.String(), "mail given up"); n != 1 {
		t.Errorf("given up %d times", n)
	}
	if n := countLines(w.logs.String(), "mail will be tried again"); n != identity.JobAttempts-1 {
		t.Errorf("tried again %d times", n)
	}
	w.mails.failWith(nil)
	if got := w.mail(); len(got) != 0 {
		t.Errorf("mailed %v", mailsTo(got))
	}
}

// One broken mail does not hold up the others.
func TestMailThatFailsDoesNotBlock(t *testing.T) {
	w := newWorld(t)
	a := w.user("ana")
	w.mail()
	w.mails.failWith(errors.New("no"))
	w.must(w.Forgot(w.ctx, a.Email, here))
	w.mail()
	w.mails.failWith(nil)
	w.user("eve")
	if got := mailsTo(w.mail()); !slices.Equal(got, []string{"verify eve@example.com"}) {
		t.Errorf("mailed %v", got)
	}
}

func TestReplicasShareTheOutbox(t *testing.T) {
	w := newWorld(t)
	var wg sync.WaitGroup
	for _, name := range []string{"a1", "b1", "c1", "d1", "e1", "f1", "g1", "h1"} {
		w.user(name)
	}
	for range 4 {
		r := w.replica()
		wg.Go(func() {
			if err := r.RunDue(r.ctx); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	got := mailsTo(w.mails.take())
	if len(got) != 8 || len(slices.Compact(got)) != 8 {
		t.Errorf("mailed %v", got)
	}
}

// A gateway that dies while it sends leaves the mail to the next one.
func TestMailOfAReplicaThatDied(t *testing.T) {
	w := newWorld(t)
	w.user("ana")
	if _, err := w.store.ClaimJob(w.ctx, w.clock.Now(), identity.JobLease); err != nil {
		t.Fatal(err)
	}
	if got := w.mail(); len(got) != 0 {
		t.Errorf("mailed %v while another may be sending it", mailsTo(got))
	}
	w.clock.advance(identity.JobLease)
	if got := mailsTo(w.mail()); !slices.Equal(got, []string{"verify ana@example.com"}) {
		t.Errorf("mailed %v", got)
	}
}

func TestMailForSomebodyWhoIsGone(t *testing.T) {
	w := newWorld(t)
	u := w.user("ana")
	w.must(w.DeleteUser(w.ctx, nil, u.ID, here))
	if got := w.mail(); len(got) != 0 {
		t.Errorf("mailed %v", mailsTo(got))
	}
	if log := w.logs.String(); strings.Contains(log, "mail will be tried again") || strings.Contains(log, "given up") {
		t.Error("it is tried again")
	}
}

func TestNoMailToVerifyWhereThatIsTurnedOff(t *testing.T) {
	w := newWorld(t, func(cfg *identity.Config) { cfg.VerifyLink = "" })
	w.user("ana")
	if got := w.mail(); len(got) != 0 {
		t.Errorf("mailed %v", mailsTo(got))
	}
}

// What waits in the store is what is to be done, never what it is done with.
func TestOutboxHoldsNoSecrets(t *testing.T) {
	w := newWorld(t)
	u := w.user("ana")
	w.must(w.Forgot(w.ctx, u.Email, here))
	hash := w.stored(u.ID).PasswordHash
	for range 2 {
		job, err := w.store.ClaimJob(w.ctx, w.clock.Now(), time.Hour)
		w.must(err)
		for key, value := range job.Data {
			if strings.Contains(value, hash) || strings.Contains(value, "token=") {
				t.Errorf("%s: %s=%q", job.Kind, key, value)
			}
		}
	}
}

func TestRunKeepsPromisesAtOnceAndEnds(t *testing.T) {
	w := newWorld(t)
	ctx, cancel := context.WithCancel(w.ctx)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		w.Run(ctx)
	}()
	began := time.Now()
	w.user("ana")
	for len(w.mails.take()) == 0 {
		if time.Since(began) > identity.Patience {
			t.Fatal("no mail")
		}
		time.Sleep(time.Millisecond)
	}
	cancel()
	select {
	case <-ended:
	case <-time.After(identity.Patience):
		t.Fatal("Run does not end")
	}
}

func TestRunGoesOnWhenTheStoreComesBack(t *testing.T) {
	w := newWorld(t)
	ctx, cancel := context.WithCancel(w.ctx)
	ended := make(chan struct{})
	count := w.store.failing(0)
	go func() {
		defer close(ended)
		w.Run(ctx)
	}()
	defer func() { cancel(); <-ended }()
	for count() == 0 {
		time.Sleep(time.Millisecond)
	}
	w.store.heal()
	w.user("ana")
	for began := time.Now(); len(w.mails.take()) == 0; time.Sleep(time.Millisecond) {
		if time.Since(began) > identity.Patience {
			t.Fatal("no mail")
		}
	}
}

func TestRunSweepsWhatHasExpired(t *testing.T) {
	w := newWorld(t)
	w.user("ana")
	w.login("ana")
	w.clock.advance(w.cfg.SessionTTL + w.cfg.AuditTTL + time.Hour)
	ctx, cancel := context.WithCancel(w.ctx)
	swept, ended := make(chan struct{}), make(chan struct{})
	w.store.once("Sweep", true, func() { close(swept) })
	go func() {
		defer close(ended)
		w.Run(ctx)
	}()
	select {
	case <-swept:
	case <-time.After(identity.Patience):
		t.Error("nothing is swept")
	}
	cancel()
	<-ended
	if n, err := w.store.Store.Sweep(w.ctx, w.clock.Now()); n != 0 || err != nil {
		t.Errorf("%d expired records are left: %v", n, err)
	}
}
