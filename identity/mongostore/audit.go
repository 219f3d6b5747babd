package mongostore

import (
	"context"
	"slices"
	"time"
	"unicode/utf8"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"portcullis/identity"
)

// auditDoc is an identity.AuditRecord.
type auditDoc struct {
	ID        string    `bson:"_id"`
	At        time.Time `bson:"at"`
	Event     string    `bson:"event"`
	Tenant    string    `bson:"tenant"`
	UserID    string    `bson:"user_id"`
	ActorID   string    `bson:"actor_id"`
	SessionID string    `bson:"session_id"`
	IP        string    `bson:"ip"`
	RequestID string    `bson:"request_id"`
	Details   []pair    `bson:"details"`
	ExpiresAt time.Time `bson:"expires_at"`
}

// AppendAudit implements [identity.AuditStore].
func (s *Store) AppendAudit(ctx context.Context, r identity.AuditRecord) error {
	wrong := required(named{"ID", r.ID})
	if wrong == nil {
		wrong = optional(named{"Event", r.Event}, named{"Tenant", r.Tenant}, named{"UserID", r.UserID})
	}
	return s.insert(ctx, "append audit record", s.audits, auditDoc{
		ID: r.ID, At: r.At, Event: r.Event, Tenant: r.Tenant, UserID: r.UserID,
		ActorID: text(r.ActorID), SessionID: text(r.SessionID), IP: text(r.IP), RequestID: text(r.RequestID),
		Details: pairs(r.Details), ExpiresAt: r.ExpiresAt,
	}, wrong)
}

// ListAudit implements [identity.AuditStore]. Expiry is looked at here, for the
// reason given at Sessions; what has expired is the oldest, and soon gone.
func (s *Store) ListAudit(ctx context.Context, q identity.AuditQuery) ([]identity.AuditRecord, error) {
	const doing = "list audit records"
	ctx, cancel := s.bound(ctx)
	defer cancel()
	if q.Limit <= 0 {
		return nil, failure(doing, inputError("the limit must be positive"))
	}
	filter := bson.D{}
	if q.Tenant != nil {
		filter = append(filter, eq("tenant", *q.Tenant))
	}
	if q.UserID != "" {
		filter = append(filter, eq("user_id", q.UserID))
	}
	if q.Event != "" {
		filter = append(filter, eq("event", q.Event))
	}
	if !utf8.ValidString(q.UserID) || !utf8.ValidString(q.Event) || !utf8.ValidString(q.Before) || q.Tenant != nil && !utf8.ValidString(*q.Tenant) {
		return nil, nil
	}
	var records []identity.AuditRecord
	for before, more := q.Before, true; more && len(records) < q.Limit; {
		older := filter
		if before != "" {
			older = append(slices.Clone(filter), elem("_id", bson.D{elem("$lt", before)}))
		}
		docs, err := find[auditDoc](ctx, s.audits, older, options.Find().SetSort(bson.D{elem("_id", -1)}).SetLimit(int64(q.Limit)))
		if err != nil {
			return nil, failure(doing, err)
		}
		for _, d := range docs {
			if before = d.ID; d.ExpiresAt.After(stored(q.Now)) && len(records) < q.Limit {
				records = append(records, d.record())
			}
		}
		more = len(docs) == q.Limit
	}
	return records, nil
}

func (d auditDoc) record() identity.AuditRecord {
	return identity.AuditRecord{
		ID: d.ID, At: d.At, Event: d.Event, Tenant: d.Tenant, UserID: d.UserID,
		ActorID: d.ActorID, SessionID: d.SessionID, IP: d.IP, RequestID: d.RequestID,
		Details: unpair(d.Details), ExpiresAt: d.ExpiresAt,
	}
}
