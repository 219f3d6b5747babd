package identity

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"time"

	"github.com/google/uuid"
)

// Errors of the account operations, each with one meaning for the caller.
var (
	ErrBadCredentials     = errors.New("username or password is wrong")
	ErrDisabled           = errors.New("account is disabled")
	ErrRegistrationClosed = errors.New("registration is closed")
	ErrRoleNotAllowed     = errors.New("role may not be given by this caller")
	ErrTokenUsed          = errors.New("token is unknown, used or expired")
	ErrTokenReused        = errors.New("refresh token was used before; its session has been ended")
)

// Config is what an operator decides about accounts.
type Config struct {
	Registration bool     // whether strangers may register
	DefaultRoles []string // of a new user
	AdminRoles   []string // who may administer; the first is given by first-run set-up
	// SuperRole is the role whose holders administer every tenant.
	SuperRole string
	Passwords PasswordRules

	RefreshTTL   time.Duration // a session ends when it was not refreshed for so long
	RefreshGrace time.Duration // how long the token before the current one is answered
	SessionTTL   time.Duration // a session ends then in any case
	ResetTTL     time.Duration
	VerifyTTL    time.Duration
	ResetLink    string // with {token}
	VerifyLink   string // with {token}
	LoginLimit   Limit
	AuditTTL     time.Duration // how long audit records are kept

	Now func() time.Time // nil: time.Now
}

// Roles is what has to be known about roles; the policy knows it.
type Roles interface {
	// Permissions returns what the roles are granted, sorted.
	Permissions(roles []string) []string
	// Roles returns the roles that exist, sorted.
	Roles() []string
}

// Client is where a call came from.
type Client struct {
	IP        string
	UserAgent string
	RequestID string
}

// Service is the account side of the gateway: the rules, not HTTP, not storage.
type Service struct {
	cfg         Config
	store       Store
	tokens      *Tokens
	revocations *Revocations
	issuers     *Issuers // nil: none but ourselves
	hasher      *Hasher
	roles       Roles
	mailer      Mailer
	log         *slog.Logger
	wake        chan struct{} // tells Run of a new job
}

// NewService wires a Service. The keys of tokens also authenticate refresh tokens.
func NewService(cfg Config, store Store, tokens *Tokens, revocations *Revocations,
	hasher *Hasher, roles Roles, mailer Mailer, log *slog.Logger) *Service {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	return &Service{cfg: cfg, store: store, tokens: tokens, revocations: revocations,
		hasher: hasher, roles: roles, mailer: mailer, log: log, wake: make(chan struct{}, 1)}
}

// With returns a Service that does the same by other rules: for a configuration
// that is to be swapped as a whole with the policy it belongs to.
func (s *Service) With(cfg Config, roles Roles) *Service {
	c := *s
	cfg.Now = s.cfg.Now
	c.cfg, c.roles = cfg, roles
	return &c
}

// Tokens verifies access tokens and signs assertions.
func (s *Service) Tokens() *Tokens { return s.tokens }

// Ready reports whether the store can be asked.
func (s *Service) Ready(ctx context.Context) error { return s.store.Ping(ctx) }

// now is the time in the precision of the store, so that what is compared in
// memory and in the store is the same.
func (s *Service) now() time.Time { return s.cfg.Now().UTC().Truncate(time.Millisecond) }

// newID returns a UUIDv7: unguessable enough to be shown, ordered by time.
func newID() string {
	id, err := uuid.NewV7()
	if err != nil {
		panic("identity: the system's random source failed: " + err.Error()) // crypto/rand does not fail
	}
	return id.String()
}

// isAdministrator reports whether any of roles administers.
func (s *Service) isAdministrator(roles []string) bool {
	return s.isSuper(roles) || slices.ContainsFunc(roles, func(r string) bool { return slices.Contains(s.cfg.AdminRoles, r) })
}

// isSuper reports whether the super role, if there is one, is among roles.
func (s *Service) isSuper(roles []string) bool {
	return s.cfg.SuperRole != "" && slices.Contains(roles, s.cfg.SuperRole)
}

// reach is the tenant that p may administer; nil is all of them.
func (s *Service) reach(p *Principal) *string {
	if p == nil || s.isSuper(p.Roles) {
		return nil // nil is the operator at the command line
	}
	return &p.Tenant
}

// revoke tells every replica. It must outlive every token it is about.
func (s *Service) revoke(ctx context.Context, r Revocation) error {
	r.ExpiresAt = s.now().Add(s.tokens.AccessTTL() + time.Minute)
	return s.revocations.Revoke(ctx, r)
}
