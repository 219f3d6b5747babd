package identity

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// The kinds of jobs. What they need to know is in their data; secrets are made
// when the job runs, so that none waits in the store.
const (
	jobReset           = "reset"            // email, ip, request_id
	jobVerify          = "verify"           // user, email, as_of ("": only the address that the user has)
	jobPasswordChanged = "password_changed" // user, as_of: before the change
	jobEmailChanged    = "email_changed"    // user, email: the old address, proved: "true" if it was
)

const (
	storeWait   = 10 * time.Second // for the store, in work that no caller bounds
	jobLease    = time.Minute      // for one attempt; a crash costs that much delay
	jobAttempts = 12               // with doubling pauses: about two days
	jobPause    = 30 * time.Second
	jobPauseMax = 12 * time.Hour
	jobPoll     = time.Second // for what other replicas enqueued and what is due again
	sweepEvery  = time.Minute
)

// enqueue promises work. When it returns, the promise survives a crash.
func (s *Service) enqueue(ctx context.Context, kind string, data map[string]string) error {
	if _, err := s.add(ctx, kind, data, s.now()); err != nil {
		return err
	}
	s.wakeUp()
	return nil
}

// promise enqueues work about something that is only about to be stored, so that
// it cannot be stored without the work's being promised. It becomes due by
// redeem, or by itself a little later; if nothing was stored in the end, do
// finds that out.
func (s *Service) promise(ctx context.Context, kind string, data map[string]string) (id string, err error) {
	return s.add(ctx, kind, data, s.now().Add(jobLease))
}

func (s *Service) redeem(ctx context.Context, id string) {
	if err := s.store.RetryJob(ctx, id, s.now()); err != nil {
		s.log.WarnContext(ctx, "a mail will be late", "job", id, "error", err)
		return
	}
	s.wakeUp()
}

func (s *Service) add(ctx context.Context, kind string, data map[string]string, due time.Time) (id string, err error) {
	id = newID()
	if err := s.store.Enqueue(ctx, Job{ID: id, Kind: kind, Data: data, CreatedAt: s.now(), NextAt: due}); err != nil {
		return "", fmt.Errorf("enqueueing a mail: %w", err)
	}
	return id, nil
}

func (s *Service) wakeUp() {
	select {
	case s.wake <- struct{}{}:
	default: // Run is awake
	}
}

// detached is for what must be tried even if the caller has gone.
func detached(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(ctx), storeWait)
}

// Run does the service's background work until ctx ends: it keeps promises made
// by enqueue, and sweeps what has expired.
func (s *Service) Run(ctx context.Context) {
	poll := time.NewTicker(jobPoll)
	defer poll.Stop()
	sweep := time.NewTicker(sweepEvery)
	defer sweep.Stop()
	failing := false
	s.sweep(ctx)
	for {
		err := s.runDue(ctx)
		if err != nil && !failing && ctx.Err() == nil {
			s.log.Error("mail is waiting: the outbox cannot be read", "error", err)
		}
		failing = err != nil
		select {
		case <-ctx.Done():
			return
		case <-s.wake:
		case <-poll.C:
		case <-sweep.C:
			s.sweep(ctx)
		}
	}
}

// sweep deletes what has expired.
func (s *Service) sweep(ctx context.Context) {
	bounded, cancel := context.WithTimeout(ctx, sweepEvery)
	defer cancel()
	if _, err := s.store.Sweep(bounded, s.now()); err != nil && ctx.Err() == nil {
		s.log.Error("expired records cannot be swept", "error", err)
	}
}

// runDue does every job that is due. The error is the store's.
func (s *Service) runDue(ctx context.Context) error {
	for ctx.Err() == nil {
		job, err := s.claim(ctx)
		if errors.Is(err, ErrNotFound) {
			return nil
		}
		if err != nil {
			return err
		}
		attempt, cancel := context.WithTimeout(ctx, jobLease/2)
		err = s.do(attempt, job)
		cancel()
		if err = s.settle(ctx, job, err); err != nil {
			return err
		}
	}
	return nil
}

func (s *Service) claim(ctx context.Context) (Job, error) {
	ctx, cancel := context.WithTimeout(ctx, storeWait)
	defer cancel()
	return s.store.ClaimJob(ctx, s.now(), jobLease)
}

// settle finishes a job that was done or has failed for the last time, and has
// another tried again later.
func (s *Service) settle(ctx context.Context, job Job, failure error) error {
	ctx, cancel := context.WithTimeout(ctx, storeWait)
	defer cancel()
	if failure == nil || errors.Is(failure, ErrNotFound) { // its user or address is gone
		return s.store.FinishJob(ctx, job.ID)
	}
	if job.Attempts >= jobAttempts {
		s.log.Error("mail given up", "kind", job.Kind, "job", job.ID, "attempts", job.Attempts, "error", failure)
		return s.store.FinishJob(ctx, job.ID)
	}
	pause := min(jobPause<<min(job.Attempts-1, 16), jobPauseMax)
	s.log.Warn("mail will be tried again", "kind", job.Kind, "job", job.ID, "attempts", job.Attempts, "in", pause, "error", failure)
	err := s.store.RetryJob(ctx, job.ID, s.now().Add(pause))
	if errors.Is(err, ErrNotFound) {
		return nil
	}
	return err
}

// do does one job.
func (s *Service) do(ctx context.Context, job Job) error {
	var u User
	var err error
	if job.Kind == jobReset {
		u, err = s.store.UserByEmail(ctx, job.Data["email"])
	} else {
		u, err = s.store.User(ctx, job.Data["user"])
	}
	if err != nil {
		return fmt.Errorf("finding the addressee: %w", err)
	}
	// Anybody can register with anybody's address and be called www.evil.example: nobody
	// but who has proved that the address is theirs is greeted by name.
	m, proved := Mail{To: u.Email, Template: job.Kind}, u.EmailVerified
	switch job.Kind {
	case jobReset:
		if !u.Active {
			return nil
		}
		m.Valid = s.cfg.ResetTTL
		m.Link, err = s.link(ctx, s.cfg.ResetLink, OneTimeToken{Purpose: PurposeReset, UserID: u.ID, Email: u.Email, ExpiresAt: s.now().Add(m.Valid)})
		if err == nil && job.Attempts == 1 {
			s.audit(ctx, Client{IP: job.Data["ip"], RequestID: job.Data["request_id"]}, AuditRecord{Event: EventResetRequested, UserID: u.ID, Tenant: u.Tenant})
		}
	case jobVerify:
		if s.cfg.VerifyLink == "" || !mayVerify(u, job) {
			return nil
		}
		m.To, m.Valid, proved = job.Data["email"], s.cfg.VerifyTTL, false
		m.Link, err = s.link(ctx, s.cfg.VerifyLink, OneTimeToken{Purpose: PurposeVerify, UserID: u.ID, Email: m.To, ExpiresAt: s.now().Add(m.Valid)})
		if err != nil {
			break
		}
		// Whoever has ended the wish meanwhile has not ended this token.
		if u, err = s.store.User(ctx, u.ID); err == nil && !mayVerify(u, job) {
			return s.store.DeleteTokens(ctx, u.ID)
		}
	case jobEmailChanged:
		if m.To = job.Data["email"]; m.To == u.Email {
			return nil // it was not changed in the end
		}
		proved = job.Data["proved"] == "true"
	case jobPasswordChanged:
		if job.Data["as_of"] == asOf(u) {
			return nil // it was not changed in the end
		}
	default:
		return fmt.Errorf("unknown kind of job %q", job.Kind)
	}
	if err != nil {
		return err
	}
	if proved {
		m.Username = u.Username
	}
	return s.mailer.Send(ctx, m)
}

// emailChangedJob is a notice to the address that u has, and is about to lose.
func emailChangedJob(u User) map[string]string {
	return map[string]string{"user": u.ID, "email": u.Email, "proved": strconv.FormatBool(u.EmailVerified)}
}

// verifyJob is the wish to have an address confirmed as u's.
func verifyJob(u User, address string) map[string]string {
	return map[string]string{"user": u.ID, "email": address, "as_of": asOf(u)}
}

// mayVerify reports whether the wish still counts. The address of the account
// can be confirmed until it is; another one would replace it, and whoever changed
// the password since, or as an administrator anything, has put an end to such plans.
func mayVerify(u User, job Job) bool {
	address, err := parseEmail(job.Data["email"])
	if err != nil || !u.Active {
		return false
	}
	if address.key == u.EmailKey {
		return !u.EmailVerified
	}
	return job.Data["as_of"] == asOf(u)
}

// asOf is equal as long as a user's password, address, and what an administrator
// decides about them are.
func asOf(u User) string { return digest(fmt.Sprintf("%d|%s", u.Epoch, u.PasswordHash)) }

// link puts a fresh token into a link.
func (s *Service) link(ctx context.Context, link string, t OneTimeToken) (string, error) {
	token, err := s.mint(ctx, t)
	if err != nil {
		return "", err
	}
	return strings.ReplaceAll(link, "{token}", token), nil
}
