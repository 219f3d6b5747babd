package storetest

import (
	"slices"
	"testing"
	"time"

	"portcullis/identity"
)

// newAudit returns a record with every field set.
func newAudit(tenant, userID, event string) identity.AuditRecord {
	now := theTime()
	return identity.AuditRecord{
		ID: newID(), At: now, Event: event, Tenant: tenant, UserID: userID,
		ActorID: newID(), SessionID: newID(), IP: "192.0.2.1", RequestID: newID(),
		Details: map[string]string{"scope": "local"}, ExpiresAt: now.Add(time.Hour),
	}
}

func appendAudit(t *testing.T, s identity.Store, r identity.AuditRecord) identity.AuditRecord {
	t.Helper()
	succeed(t, s.AppendAudit(t.Context(), r))
	return r
}

func testAudit(t *testing.T, s identity.Store) {
	ctx := t.Context()
	now := theTime()

	list := func(t *testing.T, q identity.AuditQuery) []identity.AuditRecord {
		t.Helper()
		if q.Limit == 0 {
			q.Limit = 1000
		}
		if q.Now.IsZero() {
			q.Now = now
		}
		records, err := s.ListAudit(ctx, q)
		succeed(t, err)
		return records
	}
	ids := func(records []identity.AuditRecord) []string {
		var ids []string
		for _, r := range records {
			ids = append(ids, r.ID)
		}
		return ids
	}

	t.Run("a record is listed with every field", func(t *testing.T) {
		tenant := newID()
		r := newAudit(tenant, newID(), "login")
		odd, kept := oddTime()
		r.At, r.ExpiresAt = odd, odd
		appendAudit(t, s, r)
		r.At, r.ExpiresAt = kept, kept
		got := list(t, identity.AuditQuery{Tenant: &tenant})
		equal(t, got, []identity.AuditRecord{r})
		utc(t, got[0].At, got[0].ExpiresAt)
	})

	t.Run("details are taken literally, and no details as no details", func(t *testing.T) {
		literal := map[string]string{}
		for i, key := range hostile {
			literal[key] = hostile[len(hostile)-1-i]
		}
		for _, details := range []map[string]string{nil, {}, {"": ""}, literal} {
			r := newAudit(newID(), "", "login")
			r.Details = details
			appendAudit(t, s, r)
			equal(t, list(t, identity.AuditQuery{Tenant: &r.Tenant})[0].Details, details)
		}
	})

	t.Run("what a client sent need not be UTF-8 to be kept", func(t *testing.T) {
		r := newAudit(newID(), "", "login")
		r.ActorID, r.SessionID, r.IP, r.RequestID, r.Details = malformed, malformed, malformed, malformed, map[string]string{malformed: malformed}
		appendAudit(t, s, r)
		r.ActorID, r.SessionID, r.IP, r.RequestID, r.Details = replaced, replaced, replaced, replaced, map[string]string{replaced: replaced}
		equal(t, list(t, identity.AuditQuery{Tenant: &r.Tenant}), []identity.AuditRecord{r})
	})

	t.Run("every combination of fields selects, newest first, and pages miss and repeat nothing", func(t *testing.T) {
		tenants, users, events := []string{newID(), newID(), ""}, []string{newID(), newID(), ""}, []string{newID(), newID()}
		var all []identity.AuditRecord
		for range 3 {
			for _, tenant := range tenants {
				for _, user := range users {
					for _, event := range events {
						all = append(all, appendAudit(t, s, newAudit(tenant, user, event)))
					}
				}
			}
		}
		slices.Reverse(all)
		selected := func(q identity.AuditQuery) []string {
			var want []string
			for _, r := range all {
				if (q.Tenant == nil || r.Tenant == *q.Tenant) && (q.UserID == "" || r.UserID == q.UserID) && (q.Event == "" || r.Event == q.Event) {
					want = append(want, r.ID)
				}
			}
			return want
		}
		for _, tenant := range []*string{nil, &tenants[0], &tenants[2]} {
			for _, user := range []string{"", users[1]} {
				for _, event := range []string{"", events[0]} {
					q := identity.AuditQuery{Tenant: tenant, UserID: user, Event: event}
					want := selected(q)
					for _, limit := range []int{1, 4, 1000} {
						q.Limit, q.Before = limit, ""
						var got []string
						for page := list(t, q); len(page) > 0; page = list(t, q) {
							if len(page) > limit {
								t.Fatalf("a page of %d has %d records", limit, len(page))
							}
							q.Before = page[len(page)-1].ID
							for _, id := range ids(page) {
								if id >= all[len(all)-1].ID { // not of the tests before
									got = append(got, id)
								}
							}
						}
						equal(t, got, want)
					}
				}
			}
		}
	})

	t.Run("a page begins before the cursor even if its record was never there", func(t *testing.T) {
		tenant := newID()
		first := appendAudit(t, s, newAudit(tenant, "", "login"))
		gap := newID()
		second := appendAudit(t, s, newAudit(tenant, "", "login"))
		equal(t, ids(list(t, identity.AuditQuery{Tenant: &tenant, Before: gap})), []string{first.ID})
		equal(t, ids(list(t, identity.AuditQuery{Tenant: &tenant, Before: newID()})), []string{second.ID, first.ID})
		equal(t, ids(list(t, identity.AuditQuery{Tenant: &tenant, Before: first.ID})), nil)
	})

	t.Run("fields are taken literally", func(t *testing.T) {
		for _, value := range hostile {
			r := newAudit(value, value, value)
			r.ID = value + "id"
			appendAudit(t, s, r)
		}
		for _, value := range hostile {
			want := []string{value + "id"}
			equal(t, ids(list(t, identity.AuditQuery{Tenant: &value})), want)
			equal(t, ids(list(t, identity.AuditQuery{UserID: value})), want)
			equal(t, ids(list(t, identity.AuditQuery{Event: value, UserID: value})), want)
			equal(t, ids(list(t, identity.AuditQuery{Event: value, Tenant: &value})), want)
			if value != "login" {
				equal(t, ids(list(t, identity.AuditQuery{Event: value})), want)
			}
		}
		bad := malformed
		for _, q := range []identity.AuditQuery{{Tenant: &bad}, {UserID: bad}, {Event: bad}} {
			equal(t, ids(list(t, q)), nil)
		}
	})

	t.Run("a record that has expired by now is not listed", func(t *testing.T) {
		tenant, user := newID(), newID()
		long, short := newAudit(tenant, user, "login"), newAudit(tenant, user, "login")
		short.ExpiresAt = now.Add(30 * time.Minute)
		appendAudit(t, s, long)
		appendAudit(t, s, short)
		for _, q := range []identity.AuditQuery{{Tenant: &tenant}, {UserID: user}, {UserID: user, Event: "login"}, {Tenant: &tenant, Event: "login"}} {
			q.Now = short.ExpiresAt.Add(-time.Millisecond)
			equal(t, ids(list(t, q)), []string{short.ID, long.ID})
			q.Now, q.Limit = short.ExpiresAt, 1
			equal(t, ids(list(t, q)), []string{long.ID})
			q.Now = long.ExpiresAt
			equal(t, ids(list(t, q)), nil)
		}
	})

	t.Run("an existing ID is a conflict, and the existing record stays", func(t *testing.T) {
		r := appendAudit(t, s, newAudit(newID(), "", "login"))
		other := newAudit(r.Tenant, "", "other")
		other.ID = r.ID
		fail(t, s.AppendAudit(ctx, other), identity.ErrConflict)
		equal(t, list(t, identity.AuditQuery{Tenant: &r.Tenant}), []identity.AuditRecord{r})
	})

	t.Run("a record that could not be found again is refused", func(t *testing.T) {
		tenant := newID()
		for _, spoil := range []func(*identity.AuditRecord){
			func(r *identity.AuditRecord) { r.ID = "" },
			func(r *identity.AuditRecord) { r.ID = malformed },
			func(r *identity.AuditRecord) { r.Event = malformed },
			func(r *identity.AuditRecord) { r.UserID = malformed },
		} {
			r := newAudit(tenant, "", "login")
			spoil(&r)
			refuse(t, s.AppendAudit(ctx, r))
		}
		refuse(t, s.AppendAudit(ctx, newAudit(malformed, "", "login")))
		equal(t, ids(list(t, identity.AuditQuery{Tenant: &tenant})), nil)
	})

	t.Run("a limit that is not positive is refused", func(t *testing.T) {
		for _, limit := range []int{0, -1} {
			_, err := s.ListAudit(ctx, identity.AuditQuery{Now: now, Limit: limit})
			refuse(t, err)
		}
	})
}
