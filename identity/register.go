package identity

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
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
		if err := s.throttle(ctx, s.now(), client, registerLimit(client)); err != nil {
			return User{}, err
		}
	}
	account := NewUser{Username: in.Username, Email: in.Email, Password: in.Password, Roles: s.cfg.DefaultRoles}
	if in.Role != "" {
		account.Roles = []string{in.Role}
	}
	if administrator { // nobody else puts people into a tenant, not even into their own
		account.Tenant = by.Tenant
	}
	creator := ""
	if by != nil {
		creator = by.UserID
	}
	return s.create(ctx, account, by, creator, client)
}

// NewUser is an account to be created by somebody who may.
type NewUser struct {
	Username string
	Email    string
	Password string
	// PasswordHash, in place of Password, takes over an account from another
	// system: bcrypt, argon2id, or passlib's bcrypt_sha256 and PBKDF2.
	PasswordHash  string
	Roles         []string
	Tenant        string
	EmailVerified bool
	Quiet         bool // send no mail that asks to confirm the address
}

// CreateUser creates an account on the operator's behalf: nothing but its
// validity is asked.
func (s *Service) CreateUser(ctx context.Context, in NewUser, client Client) (User, error) {
	return s.create(ctx, in, nil, actor(nil), client)
}

// create makes an account; creator is who the audit record says did it, "" for
// the user themselves.
func (s *Service) create(ctx context.Context, in NewUser, by *Principal, creator string, client Client) (User, error) {
	u, err := s.newUser(ctx, in, by)
	if err != nil {
		return User{}, err
	}
	job := ""
	if !in.Quiet && !u.EmailVerified {
		// The mail is promised before there is an account that it could be missing
		// for. Should there be none in the end, the job finds nobody.
		if job, err = s.promise(ctx, jobVerify, verifyJob(u, u.Email)); err != nil {
			return User{}, err
		}
	}
	if err := s.store.CreateUser(ctx, u); err != nil {
		return User{}, fmt.Errorf("creating a user: %w", err)
	}
	if s.isAdministrator(u.Roles) {
		if err := s.store.HoldAdministrator(ctx, u.ID); err != nil {
			err = fmt.Errorf("counting an administrator: %w", err)
			bounded, cancel := detached(ctx)
			defer cancel()
			return User{}, errors.Join(err, s.store.DeleteUser(bounded, u.ID))
		}
	}
	s.audit(ctx, client, AuditRecord{Event: EventRegistered, UserID: u.ID, ActorID: cmp.Or(creator, u.ID), Tenant: u.Tenant})
	if job != "" {
		s.redeem(ctx, job)
	}
	return u, nil
}

// newUser validates an account to be and hashes its password.
func (s *Service) newUser(ctx context.Context, in NewUser, by *Principal) (User, error) {
	name, nameErr := parseUsername(in.Username)
	address, emailErr := parseEmail(in.Email)
	roles, rolesErr := s.parseRoles(in.Roles, by)
	tenant, tenantErr := parseTenant(in.Tenant)
	now := s.now()
	u := User{
		ID:       newID(),
		Username: name.display, UsernameKey: name.key, UsernameSkeleton: name.skeleton,
		Email: address.display, EmailKey: address.key, EmailVerified: in.EmailVerified,
		PasswordHash: in.PasswordHash,
		Roles:        roles, Active: true, Tenant: tenant,
		Epoch: 1, CreatedAt: now, UpdatedAt: now,
	}
	var passwordErr error
	if in.PasswordHash == "" {
		passwordErr = s.checkPassword("password", in.Password, u)
	} else if _, err := parseHash(in.PasswordHash); err != nil {
		passwordErr = badField("password_hash", "is of an unknown, malformed or too expensive kind")
	}
	if err := fieldErrors(nameErr, emailErr, passwordErr, rolesErr, tenantErr); err != nil {
		return User{}, err
	}
	if in.PasswordHash != "" {
		return u, nil
	}
	var err error
	u.PasswordHash, err = s.hasher.Hash(ctx, in.Password)
	return u, err
}
