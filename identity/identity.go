// Package identity answers one question: who is calling, and how do they prove it?
//
// It owns users, sessions, passwords, tokens and their revocation as rules; it
// knows neither HTTP (package gateway) nor a database (the packages beneath it
// implement [Store]) nor what a role may do (package policy).
package identity

import (
	"errors"
	"time"
)

// Misses that callers tell apart with errors.Is. A Store returns the ones that
// concern it, possibly wrapped.
var (
	ErrNotFound          = errors.New("not found")
	ErrUsernameTaken     = errors.New("username is taken")
	ErrEmailTaken        = errors.New("e-mail address is taken")
	ErrConflict          = errors.New("changed by somebody else meanwhile")
	ErrLastAdministrator = errors.New("the last administrator cannot be removed")
	// ErrUnavailable means that the store could not be asked: nothing is known
	// about the question itself, and trying again later may answer it.
	ErrUnavailable = errors.New("store unavailable")
)

// User is an account. Keys are what the store finds and keeps unique; Username
// and Email are what their owner typed.
type User struct {
	ID string // UUIDv7, canonical text form

	Username    string
	UsernameKey string // normalised Username; unique
	// UsernameSkeleton is equal for names that look alike (UTS 39); unique, so
	// that nobody registers a name that readers would take for another's.
	UsernameSkeleton string

	Email         string
	EmailKey      string // normalised Email; unique
	EmailVerified bool

	PasswordHash string   // PHC string; never leaves this package
	Roles        []string // without the policy file's "role:" prefix
	Active       bool
	Tenant       string // "" is the default tenant

	// Epoch is carried by every access token and raised whenever something that
	// tokens say of the user stops being true. Tokens of an older epoch are refused.
	Epoch int64
	// Version is raised by every stored change; see Store.UpdateUser.
	Version int64

	CreatedAt time.Time
	UpdatedAt time.Time
}

// Session is one signed-in device. It is one document whatever the number of
// refreshes: refresh tokens are derived from ID and Counter, not stored.
type Session struct {
	ID      string // UUIDv7, canonical text form
	UserID  string
	Counter int64 // the only refresh token that is current carries this number

	UserAgent string
	IP        string

	CreatedAt time.Time
	RotatedAt time.Time // last refresh; CreatedAt before the first
	ExpiresAt time.Time // ends then unless refreshed before
	EndsAt    time.Time // ends then in any case
}

// Purpose says what a one-time token is good for. A token of one purpose is
// worth nothing for another.
type Purpose string

// The purposes of one-time tokens.
const (
	PurposeReset  Purpose = "reset"
	PurposeVerify Purpose = "verify"
)

// OneTimeToken is what is kept of a token that was mailed out: enough to know
// it again, not enough to use it.
type OneTimeToken struct {
	Purpose   Purpose
	UserID    string
	Hash      string // SHA-256 of the token, hexadecimal
	Email     string // the address it was mailed to
	ExpiresAt time.Time
}

// RevocationKind says what a Revocation's ID names.
type RevocationKind string

// The kinds of revocation.
const (
	RevokeSession RevocationKind = "session"
	RevokeUser    RevocationKind = "user"
)

// Revocation says that access tokens which are still valid by themselves are
// not to be believed: those of one session, or those of one user with an epoch
// below MinEpoch. It can be forgotten when the last such token has expired.
type Revocation struct {
	Kind      RevocationKind
	ID        string
	MinEpoch  int64 // RevokeUser only
	ExpiresAt time.Time
}

// Job is work that was promised in an answer and survives a crash: mostly mail.
// It holds intents ("send this address a reset link"), never secrets.
type Job struct {
	ID        string // UUIDv7
	Kind      string
	Data      map[string]string
	Attempts  int // claims so far
	CreatedAt time.Time
	NextAt    time.Time // not to be claimed before
}

// AuditRecord is one security-relevant event.
type AuditRecord struct {
	ID        string // UUIDv7, so that records sort by time
	At        time.Time
	Event     string // stable snake_case name
	Tenant    string
	UserID    string // whom it is about
	ActorID   string // who did it, when somebody did
	SessionID string
	IP        string
	RequestID string
	Details   map[string]string
	ExpiresAt time.Time
}
