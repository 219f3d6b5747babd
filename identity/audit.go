package identity

import (
	"context"
	"log/slog"
	"maps"
	"slices"
)

// The events of the audit log. Their names are stable.
const (
	EventRegistered      = "registered"
	EventLogin           = "login"
	EventLoginFailed     = "login_failed"
	EventLogout          = "logout"
	EventTokenReuse      = "token_reuse"
	EventThrottled       = "throttled"
	EventPasswordChanged = "password_changed"
	EventPasswordReset   = "password_reset"
	EventResetRequested  = "reset_requested"
	EventEmailVerified   = "email_verified"
	EventUserChanged     = "user_changed"
	EventUserDeleted     = "user_deleted"
	EventUserUnlocked    = "user_unlocked"
)

// audit records a security-relevant event in the log and in the store. What it
// records has happened already, so a store that is away does not undo it: the
// log then has the only copy, and says so.
func (s *Service) audit(ctx context.Context, client Client, r AuditRecord) {
	r.ID, r.At = newID(), s.now()
	r.ExpiresAt = r.At.Add(s.cfg.AuditTTL)
	r.IP, r.RequestID = client.IP, client.RequestID
	attrs := []any{"event", r.Event, "id", r.ID, "user_id", r.UserID, "actor_id", r.ActorID, "tenant", r.Tenant,
		"session_id", r.SessionID, "ip", r.IP, "request_id", r.RequestID}
	for _, key := range slices.Sorted(maps.Keys(r.Details)) {
		attrs = append(attrs, slog.String(key, r.Details[key]))
	}
	s.log.InfoContext(ctx, "audit", attrs...)
	if err := s.store.AppendAudit(ctx, r); err != nil {
		s.log.ErrorContext(ctx, "audit record is only in this log", "id", r.ID, "error", err)
	}
}

// Audit lists records newest first, as far as p may see them.
func (s *Service) Audit(ctx context.Context, p *Principal, q AuditQuery) ([]AuditRecord, error) {
	q.Tenant, q.Now = s.reach(p), s.now()
	return s.store.ListAudit(ctx, q)
}
