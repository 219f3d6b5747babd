package identity

import (
	"context"
	"time"
)

// Store keeps what the gateway must not forget. Package storetest is its
// specification; every implementation passes all of it.
//
// Each method is atomic by itself and nothing is atomic across two of them: a
// document database without transactions has to be able to implement it.
// Methods are safe for concurrent use by several processes where the backend
// allows several. Times are stored with millisecond precision, in UTC. An
// expired session, token, counter, revocation or record is as absent, whether
// or not it has been swept yet. Failures that say nothing about the data
// (connection, timeout) match ErrUnavailable.
type Store interface {
	UserStore
	AdministratorStore
	SessionStore
	TokenStore
	RevocationStore
	CounterStore
	JobStore
	AuditStore
	RuleHitStore

	// Ping asks the backend for a sign of life.
	Ping(ctx context.Context) error
	// Sweep deletes what has expired by now and returns how much that was. A
	// store whose backend does that by itself returns 0.
	Sweep(ctx context.Context, now time.Time) (int, error)
	// Close releases the backend. Methods called afterwards fail.
	Close() error
}

// UserStore keeps accounts.
type UserStore interface {
	// CreateUser stores a new user. ErrUsernameTaken (key or skeleton) and
	// ErrEmailTaken name the uniqueness that was violated; nothing is stored then.
	CreateUser(ctx context.Context, u User) error
	// User returns the user with that ID, or ErrNotFound.
	User(ctx context.Context, id string) (User, error)
	// UserByUsername and UserByEmail look up the normalised key; ErrNotFound.
	// An empty key finds nobody.
	UserByUsername(ctx context.Context, key string) (User, error)
	UserByEmail(ctx context.Context, key string) (User, error)
	// UpdateUser replaces the stored user of u.ID if its version is still
	// u.Version, and stores it with Version+1. ErrConflict if somebody else
	// was faster, ErrNotFound, ErrUsernameTaken, ErrEmailTaken otherwise.
	// It returns what is stored now.
	UpdateUser(ctx context.Context, u User) (User, error)
	// DeleteUser removes the user; ErrNotFound. Sessions and tokens are the
	// caller's to remove.
	DeleteUser(ctx context.Context, id string) error
	// ListUsers returns a page of users in the order of the key searched by.
	ListUsers(ctx context.Context, q UserQuery) ([]User, error)
}

// UserQuery selects a page of users.
type UserQuery struct {
	Tenant *string // nil: of every tenant
	// At most one prefix may be set. Users are ordered by EmailKey when
	// EmailPrefix is set and by UsernameKey otherwise.
	UsernamePrefix string
	EmailPrefix    string
	After          string // exclusive: the last key of the page before; "" begins
	Limit          int    // at most; must be positive
}

// AdministratorStore remembers a set of user IDs that never becomes empty by
// Release. The set is kept a subset of the users who really are active
// administrators, so that "not empty" means that somebody can still administer.
type AdministratorStore interface {
	// HoldAdministrator adds id to the set.
	HoldAdministrator(ctx context.Context, id string) error
	// ReleaseAdministrator removes id from the set if another member remains,
	// and returns ErrLastAdministrator, changing nothing, if id is the only
	// one. Releasing a non-member does nothing.
	ReleaseAdministrator(ctx context.Context, id string) error
	// DropAdministrator removes id whatever remains: for members that turn out
	// not to be administrators.
	DropAdministrator(ctx context.Context, id string) error
	// Administrators returns the set.
	Administrators(ctx context.Context) ([]string, error)
}

// SessionStore keeps sessions.
type SessionStore interface {
	CreateSession(ctx context.Context, s Session) error
	// Session returns a session that has not expired by now, or ErrNotFound.
	Session(ctx context.Context, id string, now time.Time) (Session, error)
	// RotateSession sets Counter to counter+1, RotatedAt to now and ExpiresAt
	// to expiresAt, if the session exists, has not expired by now, and its
	// Counter is still counter; ErrNotFound otherwise. Of any number of
	// parallel calls with one counter exactly one succeeds.
	RotateSession(ctx context.Context, id string, counter int64, now, expiresAt time.Time) (Session, error)
	// Sessions lists the user's sessions that have not expired by now, newest first.
	Sessions(ctx context.Context, userID string, now time.Time) ([]Session, error)
	// DeleteSession ends one session; ErrNotFound if there is none.
	DeleteSession(ctx context.Context, id string) error
	// DeleteSessions ends all sessions of a user but the one named keep (""
	// keeps none) and returns the IDs of those it ended.
	DeleteSessions(ctx context.Context, userID, keep string) ([]string, error)
}

// TokenStore keeps one-time tokens, at most one for a user and purpose.
type TokenStore interface {
	// PutToken stores t in place of the user's earlier token of that purpose.
	PutToken(ctx context.Context, t OneTimeToken) error
	// TakeToken removes and returns the unexpired token with that hash;
	// ErrNotFound otherwise, and always for an empty hash. Of any number of
	// parallel calls exactly one succeeds.
	TakeToken(ctx context.Context, purpose Purpose, hash string, now time.Time) (OneTimeToken, error)
	// DeleteTokens removes every token of the user.
	DeleteTokens(ctx context.Context, userID string) error
}

// RevocationStore spreads revocations to every replica.
type RevocationStore interface {
	// Revoke records r. Of two revocations of one user the higher MinEpoch and
	// the later ExpiresAt stay.
	Revoke(ctx context.Context, r Revocation) error
	// Revocations returns those recorded or raised at or after since, by the
	// store's own clock, and the value to pass as since next time. The zero
	// time returns all that have not expired. Records can be returned more
	// than once; none that was recorded is ever missed by a reader who polls.
	Revocations(ctx context.Context, since, now time.Time) (rs []Revocation, next time.Time, err error)
}

// CounterStore counts events in fixed windows, for throttling.
type CounterStore interface {
	// Hit adds n to the counter of key and returns its value in the window (of
	// that length, aligned to the Unix epoch) that holds now, n included.
	// Counters of past windows are as absent. n of 0 only asks and stores
	// nothing; n of -1 takes one event back, and a counter is never below zero.
	Hit(ctx context.Context, key string, n int, window time.Duration, now time.Time) (int, error)
	// Forget sets the counter back to zero.
	Forget(ctx context.Context, key string) error
}

// JobStore is the outbox.
type JobStore interface {
	Enqueue(ctx context.Context, j Job) error
	// ClaimJob returns a job that is due by now (the longest due first), with
	// Attempts raised and NextAt set to now+lease, so that nobody else gets it
	// until then; ErrNotFound when none is due.
	ClaimJob(ctx context.Context, now time.Time, lease time.Duration) (Job, error)
	// FinishJob deletes a job; deleting one that is gone is no error.
	FinishJob(ctx context.Context, id string) error
	// RetryJob makes a claimed job due at next; ErrNotFound if it is gone.
	RetryJob(ctx context.Context, id string, next time.Time) error
}

// AuditStore keeps audit records until they expire.
type AuditStore interface {
	AppendAudit(ctx context.Context, r AuditRecord) error
	// ListAudit returns a page of unexpired records, newest first.
	ListAudit(ctx context.Context, q AuditQuery) ([]AuditRecord, error)
}

// AuditQuery selects a page of audit records. Zero fields do not restrict.
type AuditQuery struct {
	Tenant *string // nil: of every tenant
	UserID string
	Event  string
	Before string // exclusive: ID of the last record of the page before
	Now    time.Time
	Limit  int // at most; must be positive
}
