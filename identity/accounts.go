package identity

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Registration is what somebody who wants an account sends.
type Registration struct {
	Username string
	Email    string
	Password string
	Role     string // "" for the default roles; anything else only an administrator may ask for
}

// Register creates an account. by is the caller if there is one: administrators
// may register others when registration is closed, and give them a role.
func (s *Service) Register(ctx context.Context, in Registration, by *Principal, client Client) (User, error) {
	administrator := by != nil && s.isAdministrator(by.Roles)
	if !administrator {
		if !s.cfg.Registration {
			return User{}, ErrRegistrationClosed
		}
		if in.Role != "" && !slices.Equal(s.cfg.DefaultRoles, []string{in.Role}) {
			return User{}, ErrRoleNotAllowed
		}
		if err := s.throttle(ctx, client, registerLimit(client)); err != nil {
			return User{}, err
		}
	}
	account := NewUser{Username: in.Username, Email: in.Email, Password: in.Password, Roles: s.cfg.DefaultRoles}
	if in.Role != "" {
		account.Roles = []string{in.Role}
	}
	if by != nil {
		account.Tenant = by.Tenant
	}
	return s.create(ctx, account, by, client)
}

// NewUser is an account to be created by somebody who may.
type NewUser struct {
	Username string
	Email    string
	Password string
	Roles    []string
	Tenant   string
}

// CreateUser creates an account on the operator's behalf: nothing but its
// validity is asked.
func (s *Service) CreateUser(ctx context.Context, in NewUser, client Client) (User, error) {
	return s.create(ctx, in, nil, client)
}

func (s *Service) create(ctx context.Context, in NewUser, by *Principal, client Client) (User, error) {
	name, nameErr := parseUsername(in.Username)
	address, emailErr := parseEmail(in.Email)
	roles, rolesErr := s.parseRoles(in.Roles, by)
	now := s.now()
	u := User{
		ID:       newID(),
		Username: name.display, UsernameKey: name.key, UsernameSkeleton: name.skeleton,
		Email: address.display, EmailKey: address.key,
		Roles: roles, Active: true, Tenant: in.Tenant,
		Epoch: 1, CreatedAt: now, UpdatedAt: now,
	}
	if err := fieldErrors(nameErr, emailErr, s.cfg.Passwords.check("password", in.Password, u), rolesErr); err != nil {
		return User{}, err
	}
	var err error
	if u.PasswordHash, err = s.hasher.Hash(ctx, in.Password); err != nil {
		return User{}, err
	}
	if err := s.store.CreateUser(ctx, u); err != nil {
		return User{}, fmt.Errorf("creating a user: %w", err)
	}
	if s.isAdministrator(u.Roles) {
		if err := s.store.HoldAdministrator(ctx, u.ID); err != nil {
			return User{}, fmt.Errorf("counting an administrator: %w", err)
		}
	}
	record := AuditRecord{Event: EventRegistered, UserID: u.ID, ActorID: u.ID, Tenant: u.Tenant}
	if by != nil {
		record.ActorID = by.UserID
	}
	s.audit(ctx, client, record)
	if err := s.enqueue(ctx, jobVerify, map[string]string{"user": u.ID, "email": u.Email}); err != nil {
		return User{}, err
	}
	return u, nil
}

// Login signs a user in by username or e-mail address. A wrong password and an
// unknown user are one answer in one time.
func (s *Service) Login(ctx context.Context, name, password string, client Client) (Grant, error) {
	account := name
	isEmail := strings.Contains(name, "@")
	if isEmail {
		if address, err := parseEmail(name); err == nil {
			account = address.key
		}
	} else if key, err := usernameKey(name); err == nil {
		account = key
	}
	limits := s.loginLimits(account, client)
	if err := s.throttle(ctx, client, limits...); err != nil {
		return Grant{}, err
	}
	lookup := s.store.UserByUsername
	if isEmail {
		lookup = s.store.UserByEmail
	}
	u, err := lookup(ctx, account)
	if err != nil && !errors.Is(err, ErrNotFound) {
		return Grant{}, fmt.Errorf("looking up a user: %w", err)
	}
	ok, stale, err := s.hasher.Verify(ctx, u.PasswordHash, password)
	if err != nil {
		return Grant{}, fmt.Errorf("verifying a password: %w", err)
	}
	if !ok {
		s.audit(ctx, client, AuditRecord{Event: EventLoginFailed, UserID: u.ID, Tenant: u.Tenant})
		return Grant{}, ErrBadCredentials
	}
	if !u.Active {
		s.audit(ctx, client, AuditRecord{Event: EventLoginFailed, UserID: u.ID, Tenant: u.Tenant, Details: map[string]string{"reason": "disabled"}})
		return Grant{}, ErrDisabled
	}
	if err := s.succeeded(ctx, limits); err != nil {
		return Grant{}, err
	}
	if stale {
		if u, err = s.rehash(ctx, u, password); err != nil {
			return Grant{}, err
		}
	}
	grant, err := s.begin(ctx, u, client)
	if err != nil {
		return Grant{}, err
	}
	s.audit(ctx, client, AuditRecord{Event: EventLogin, UserID: u.ID, ActorID: u.ID, Tenant: u.Tenant, SessionID: grant.SessionID})
	return grant, nil
}

// rehash stores the password as the configuration wants it today. Losing a race
// is fine: there will be a next login.
func (s *Service) rehash(ctx context.Context, u User, password string) (User, error) {
	hash, err := s.hasher.Hash(ctx, password)
	if err != nil {
		return u, err
	}
	changed := u
	changed.PasswordHash = hash
	updated, err := s.store.UpdateUser(ctx, changed)
	if errors.Is(err, ErrConflict) || errors.Is(err, ErrNotFound) {
		return u, nil
	}
	return updated, err
}

// Me returns the caller's own account.
func (s *Service) Me(ctx context.Context, p *Principal) (User, error) {
	return s.store.User(ctx, p.UserID)
}

// Profile is what a user may change about themselves; nil leaves a field alone.
type Profile struct {
	Username *string
	Email    *string // counts once it was confirmed from the new address
}

// UpdateMe changes the caller's own account.
func (s *Service) UpdateMe(ctx context.Context, p *Principal, in Profile, client Client) (User, error) {
	var address email
	u, err := s.change(ctx, p.UserID, func(u *User) error {
		var nameErr, emailErr error
		if in.Username != nil {
			nameErr = setUsername(u, *in.Username)
		}
		if in.Email != nil {
			address, emailErr = parseEmail(*in.Email)
		}
		return fieldErrors(nameErr, emailErr)
	})
	if err != nil {
		return User{}, err
	}
	if in.Email != nil && (address.key != u.EmailKey || !u.EmailVerified) {
		if err := s.throttle(ctx, client, mailLimits(address.key, client)...); err != nil {
			return User{}, err
		}
		if err := s.enqueue(ctx, jobVerify, map[string]string{"user": u.ID, "email": address.display}); err != nil {
			return User{}, err
		}
	}
	s.audit(ctx, client, AuditRecord{Event: EventUserChanged, UserID: u.ID, ActorID: u.ID, Tenant: u.Tenant})
	return u, nil
}

// ChangePassword needs the current password and ends the user's other sessions.
func (s *Service) ChangePassword(ctx context.Context, p *Principal, current, next string, client Client) error {
	u, err := s.store.User(ctx, p.UserID)
	if err != nil {
		return fmt.Errorf("reading the user: %w", err)
	}
	// The same counters as a login: a stolen access token must not be a way to
	// guess the password it does not know.
	limits := s.loginLimits(u.UsernameKey, client)
	if err := s.throttle(ctx, client, limits...); err != nil {
		return err
	}
	ok, _, err := s.hasher.Verify(ctx, u.PasswordHash, current)
	if err != nil {
		return fmt.Errorf("verifying a password: %w", err)
	}
	if !ok {
		return badField("current_password", "is not the current password")
	}
	if err := s.succeeded(ctx, limits); err != nil {
		return err
	}
	if err := s.setPassword(ctx, u, "new_password", next, p.SessionID); err != nil {
		return err
	}
	s.audit(ctx, client, AuditRecord{Event: EventPasswordChanged, UserID: u.ID, ActorID: u.ID, Tenant: u.Tenant, SessionID: p.SessionID})
	return s.enqueue(ctx, jobPasswordChanged, map[string]string{"user": u.ID})
}

// setPassword stores a new password and ends every session but keep. Sessions
// end before as well as after: after, because one could begin with the old
// password meanwhile; before, so that a crash in between leaves none alive.
func (s *Service) setPassword(ctx context.Context, u User, field, password, keep string) error {
	if err := s.cfg.Passwords.check(field, password, u); err != nil {
		return err
	}
	hash, err := s.hasher.Hash(ctx, password)
	if err != nil {
		return err
	}
	if err := s.endSessions(ctx, u.ID, keep); err != nil {
		return fmt.Errorf("ending sessions: %w", err)
	}
	if _, err := s.change(ctx, u.ID, func(u *User) error { u.PasswordHash = hash; return nil }); err != nil {
		return err
	}
	if err := s.endSessions(ctx, u.ID, keep); err != nil {
		return fmt.Errorf("ending sessions: %w", err)
	}
	return nil
}

// setUsername changes the name and what follows from it.
func setUsername(u *User, name string) error {
	n, err := parseUsername(name)
	if err == nil {
		u.Username, u.UsernameKey, u.UsernameSkeleton = n.display, n.key, n.skeleton
	}
	return err
}

// change reads, edits and stores a user until nobody else was faster.
func (s *Service) change(ctx context.Context, id string, edit func(*User) error) (User, error) {
	for {
		u, err := s.store.User(ctx, id)
		if err != nil {
			return User{}, fmt.Errorf("reading a user: %w", err)
		}
		if err := edit(&u); err != nil {
			return User{}, err
		}
		u.UpdatedAt = s.now()
		updated, err := s.store.UpdateUser(ctx, u)
		if errors.Is(err, ErrConflict) && ctx.Err() == nil {
			continue
		}
		if err != nil {
			return User{}, fmt.Errorf("storing a user: %w", err)
		}
		return updated, nil
	}
}
