package identity

import (
	"context"
	"os"
	"os/exec"
	"runtime"
)

// RunDue does what Run does between two waits.
func (s *Service) RunDue(ctx context.Context) error { return s.runDue(ctx) }

// RefreshToken makes the refresh token of a session and counter.
func (s *Service) RefreshToken(sessionID string, counter int64) (string, error) {
	return s.tokens.encodeRefresh(sessionID, counter)
}

// Occupy has every worker hang, and returns when nobody more may wait.
func (h *Hasher) Occupy() {
	h.Isolate(func(ctx context.Context, _ Priority) *exec.Cmd {
		cmd := exec.CommandContext(ctx, os.Args[0], "-test.run=^TestWorkerProcess$")
		cmd.Env = []string{workerMode + "=hang"}
		return cmd
	})
	for range h.cfg.Workers + h.cfg.Queue {
		go func() { _, _ = h.Hash(context.Background(), "x") }()
	}
	for !h.full() {
		runtime.Gosched()
	}
}

// Patience is patience, for tests from outside.
const Patience = patience

// What tests of the outbox and of throttling count with.
const (
	JobLease             = jobLease
	JobAttempts          = jobAttempts
	JobPause             = jobPause
	JobPauseMax          = jobPauseMax
	AccountFactor        = accountFactor
	AddressFactor        = addressFactor
	RegistrationsPerHour = registrationsPerHour
	MailsPerAddressee    = mailsPerAddressee
	MailsPerHour         = mailsPerHour
	RefreshesPerMinute   = refreshesPerMinute
	MaxSessions          = maxSessions
)
