package identity_test

import (
	"context"
	"sync"
	"time"

	"portcullis/identity"
)

// faultyStore is a store that tests can stop: before and after are called with
// the name of every method around the call, and an error of before is the
// method's answer. Calls that a hook makes itself are not hooked.
type faultyStore struct {
	identity.Store
	mu     sync.Mutex
	before func(method string) error
	after  func(method string)
}

// hook sets both; nil is none.
func (f *faultyStore) hook(before func(string) error, after func(string)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.before, f.after = before, after
}

// once calls do before (or after) the next call of method, and only that.
func (f *faultyStore) once(method string, atEnd bool, do func()) {
	var first sync.Once
	run := func(m string) {
		if m == method {
			first.Do(func() {
				f.hook(nil, nil)
				do()
			})
		}
	}
	if atEnd {
		f.hook(nil, run)
	} else {
		f.hook(func(m string) error { run(m); return nil }, nil)
	}
}

// failing makes every call from the n-th (counting from 0) on fail as when the
// store has gone away, and returns the number of calls so far.
func (f *faultyStore) failing(n int) (calls func() int) {
	var mu sync.Mutex
	count := 0
	f.hook(func(string) error {
		mu.Lock()
		defer mu.Unlock()
		count++
		if count > n {
			return identity.ErrUnavailable
		}
		return nil
	}, nil)
	return func() int {
		mu.Lock()
		defer mu.Unlock()
		return count
	}
}

func (f *faultyStore) heal() { f.hook(nil, nil) }

func (f *faultyStore) enter(method string) error {
	f.mu.Lock()
	before := f.before
	f.mu.Unlock()
	if before == nil {
		return nil
	}
	return before(method)
}

func (f *faultyStore) leave(method string) {
	f.mu.Lock()
	after := f.after
	f.mu.Unlock()
	if after != nil {
		after(method)
	}
}

// exec and query wrap one call.
func (f *faultyStore) exec(method string, call func() error) error {
	if err := f.enter(method); err != nil {
		return err
	}
	defer f.leave(method)
	return call()
}

func query[T any](f *faultyStore, method string, call func() (T, error)) (T, error) {
	if err := f.enter(method); err != nil {
		var none T
		return none, err
	}
	defer f.leave(method)
	return call()
}

func (f *faultyStore) CreateUser(ctx context.Context, u identity.User) error {
	return f.exec("CreateUser", func() error { return f.Store.CreateUser(ctx, u) })
}

func (f *faultyStore) User(ctx context.Context, id string) (identity.User, error) {
	return query(f, "User", func() (identity.User, error) { return f.Store.User(ctx, id) })
}

func (f *faultyStore) UserByUsername(ctx context.Context, key string) (identity.User, error) {
	return query(f, "UserByUsername", func() (identity.User, error) { return f.Store.UserByUsername(ctx, key) })
}

func (f *faultyStore) UserByEmail(ctx context.Context, key string) (identity.User, error) {
	return query(f, "UserByEmail", func() (identity.User, error) { return f.Store.UserByEmail(ctx, key) })
}

func (f *faultyStore) UpdateUser(ctx context.Context, u identity.User) (identity.User, error) {
	return query(f, "UpdateUser", func() (identity.User, error) { return f.Store.UpdateUser(ctx, u) })
}

func (f *faultyStore) DeleteUser(ctx context.Context, id string) error {
	return f.exec("DeleteUser", func() error { return f.Store.DeleteUser(ctx, id) })
}

func (f *faultyStore) ListUsers(ctx context.Context, q identity.UserQuery) ([]identity.User, error) {
	return query(f, "ListUsers", func() ([]identity.User, error) { return f.Store.ListUsers(ctx, q) })
}

func (f *faultyStore) HoldAdministrator(ctx context.Context, id string) error {
	return f.exec("HoldAdministrator", func() error { return f.Store.HoldAdministrator(ctx, id) })
}

func (f *faultyStore) ReleaseAdministrator(ctx context.Context, id string) error {
	return f.exec("ReleaseAdministrator", func() error { return f.Store.ReleaseAdministrator(ctx, id) })
}

func (f *faultyStore) DropAdministrator(ctx context.Context, id string) error {
	return f.exec("DropAdministrator", func() error { return f.Store.DropAdministrator(ctx, id) })
}

func (f *faultyStore) Administrators(ctx context.Context) ([]string, error) {
	return query(f, "Administrators", func() ([]string, error) { return f.Store.Administrators(ctx) })
}

func (f *faultyStore) CreateSession(ctx context.Context, s identity.Session) error {
	return f.exec("CreateSession", func() error { return f.Store.CreateSession(ctx, s) })
}

func (f *faultyStore) Session(ctx context.Context, id string, now time.Time) (identity.Session, error) {
	return query(f, "Session", func() (identity.Session, error) { return f.Store.Session(ctx, id, now) })
}

func (f *faultyStore) RotateSession(ctx context.Context, id string, counter int64, now, expiresAt time.Time) (identity.Session, error) {
	return query(f, "RotateSession", func() (identity.Session, error) { return f.Store.RotateSession(ctx, id, counter, now, expiresAt) })
}

func (f *faultyStore) Sessions(ctx context.Context, userID string, now time.Time) ([]identity.Session, error) {
	return query(f, "Sessions", func() ([]identity.Session, error) { return f.Store.Sessions(ctx, userID, now) })
}

func (f *faultyStore) DeleteSession(ctx context.Context, id string) error {
	return f.exec("DeleteSession", func() error { return f.Store.DeleteSession(ctx, id) })
}

func (f *faultyStore) DeleteSessions(ctx context.Context, userID, keep string) ([]string, error) {
	return query(f, "DeleteSessions", func() ([]string, error) { return f.Store.DeleteSessions(ctx, userID, keep) })
}

func (f *faultyStore) PutToken(ctx context.Context, t identity.OneTimeToken) error {
	return f.exec("PutToken", func() error { return f.Store.PutToken(ctx, t) })
}

func (f *faultyStore) TakeToken(ctx context.Context, p identity.Purpose, hash string, now time.Time) (identity.OneTimeToken, error) {
	return query(f, "TakeToken", func() (identity.OneTimeToken, error) { return f.Store.TakeToken(ctx, p, hash, now) })
}

func (f *faultyStore) DeleteTokens(ctx context.Context, userID string) error {
	return f.exec("DeleteTokens", func() error { return f.Store.DeleteTokens(ctx, userID) })
}

func (f *faultyStore) Revoke(ctx context.Context, r identity.Revocation) error {
	return f.exec("Revoke", func() error { return f.Store.Revoke(ctx, r) })
}

func (f *faultyStore) Revocations(ctx context.Context, since, now time.Time) ([]identity.Revocation, time.Time, error) {
	if err := f.enter("Revocations"); err != nil {
		return nil, time.Time{}, err
	}
	defer f.leave("Revocations")
	return f.Store.Revocations(ctx, since, now)
}

func (f *faultyStore) Sweep(ctx context.Context, now time.Time) (int, error) {
	return query(f, "Sweep", func() (int, error) { return f.Store.Sweep(ctx, now) })
}

func (f *faultyStore) Hit(ctx context.Context, key string, n int, window time.Duration, now time.Time) (int, error) {
	return query(f, "Hit", func() (int, error) { return f.Store.Hit(ctx, key, n, window, now) })
}

func (f *faultyStore) Forget(ctx context.Context, key string) error {
	return f.exec("Forget", func() error { return f.Store.Forget(ctx, key) })
}

func (f *faultyStore) Enqueue(ctx context.Context, j identity.Job) error {
	return f.exec("Enqueue", func() error { return f.Store.Enqueue(ctx, j) })
}

func (f *faultyStore) ClaimJob(ctx context.Context, now time.Time, lease time.Duration) (identity.Job, error) {
	return query(f, "ClaimJob", func() (identity.Job, error) { return f.Store.ClaimJob(ctx, now, lease) })
}

func (f *faultyStore) FinishJob(ctx context.Context, id string) error {
	return f.exec("FinishJob", func() error { return f.Store.FinishJob(ctx, id) })
}

func (f *faultyStore) RetryJob(ctx context.Context, id string, next time.Time) error {
	return f.exec("RetryJob", func() error { return f.Store.RetryJob(ctx, id, next) })
}

func (f *faultyStore) AppendAudit(ctx context.Context, r identity.AuditRecord) error {
	return f.exec("AppendAudit", func() error { return f.Store.AppendAudit(ctx, r) })
}

func (f *faultyStore) ListAudit(ctx context.Context, q identity.AuditQuery) ([]identity.AuditRecord, error) {
	return query(f, "ListAudit", func() ([]identity.AuditRecord, error) { return f.Store.ListAudit(ctx, q) })
}
