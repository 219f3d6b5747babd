package identity

import "context"

// RunDue does what Run does between two waits.
func (s *Service) RunDue(ctx context.Context) error { return s.runDue(ctx) }

// RefreshToken makes the refresh token of a session and counter.
func (s *Service) RefreshToken(sessionID string, counter int64) (string, error) {
	return s.tokens.encodeRefresh(sessionID, counter)
}

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
