package boltstore

import (
	"bytes"
	"context"
	"errors"

	"go.etcd.io/bbolt"

	"portcullis/identity"
)

// AppendAudit implements [identity.AuditStore].
func (s *Store) AppendAudit(ctx context.Context, a identity.AuditRecord) error {
	return s.write(ctx, "append audit record", func(tx *bbolt.Tx) error {
		r := auditRecord(a)
		r.At, r.ExpiresAt = stored(r.At), stored(r.ExpiresAt)
		if err := required(named{"ID", r.ID}); err != nil {
			return err
		}
		if err := optional(named{"Event", r.Event}, named{"Tenant", r.Tenant}, named{"UserID", r.UserID}); err != nil {
			return err
		}
		return audits.insert(tx, r)
	})
}

// ListAudit implements [identity.AuditStore].
func (s *Store) ListAudit(ctx context.Context, q identity.AuditQuery) ([]identity.AuditRecord, error) {
	var page []identity.AuditRecord
	err := s.read(ctx, "list audit records", func(tx *bbolt.Tx) error {
		if q.Limit <= 0 {
			return errors.New("the limit must be positive")
		}
		index, base := auditIndex(q)
		c := audits.index(tx, index).Cursor()
		for k := seekNewest(c, base, q.Before); k != nil && bytes.HasPrefix(k, base) && len(page) < q.Limit; k, _ = c.Prev() {
			r, err := audits.get(tx, k[len(base):])
			if err != nil {
				return err
			}
			if !expired(r.ExpiresAt, q.Now) && (q.Tenant == nil || r.Tenant == *q.Tenant) {
				page = append(page, identity.AuditRecord(r))
			}
		}
		return nil
	})
	return page, err
}

// auditIndex returns the index that serves q and what its keys for q begin
// with; the rest of each key is the record's ID. No index has a tenant and a
// user: records about one user are of one tenant.
func auditIndex(q identity.AuditQuery) (index string, base []byte) {
	switch {
	case q.UserID != "" && q.Event != "":
		return "user_event", group(q.UserID, q.Event)
	case q.UserID != "":
		return "user", group(q.UserID)
	case q.Tenant != nil && q.Event != "":
		return "tenant_event", group(*q.Tenant, q.Event)
	case q.Event != "":
		return "event", group(q.Event)
	case q.Tenant != nil:
		return "tenant", group(*q.Tenant)
	default:
		return primary, nil
	}
}

// seekNewest moves c to the last key that begins with base and whose rest is
// before the given ID, and returns it; the key returned does not begin with
// base if there is none.
func seekNewest(c *bbolt.Cursor, base []byte, before string) []byte {
	if before == "" {
		before = "\xff" // above every ID, because they are valid UTF-8
	}
	k, _ := c.Seek(append(bytes.Clone(base), before...))
	if k == nil {
		k, _ = c.Last()
		return k
	}
	k, _ = c.Prev()
	return k
}
