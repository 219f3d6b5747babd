package identity

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
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

// Login signs a user in by username or e-mail address. A wrong password and an
// unknown user are one answer in one time. Attempts by name and by address count
// apart: counting them together would tell strangers whose address it is.
func (s *Service) Login(ctx context.Context, name, password string, client Client) (Grant, error) {
	lookup := s.store.UserByUsername
	key, err := usernameKey(name)
	if strings.Contains(name, "@") {
		lookup = s.store.UserByEmail
		var address email
		address, err = parseEmail(name)
		key = address.key
	}
	account := key
	if err != nil { // nobody's: the store, which may not take any bytes, is asked for the name that finds nobody
		key, account = "", name
	}
	if s.hasher.full() { // before anything is counted: no guess is made, and a refusal must be cheap in a flood
		return Grant{}, ErrBusy
	}
	at := s.now()
	limits, err := s.loginLimits(ctx, at, account, client)
	if err != nil {
		return Grant{}, err
	}
	if err := s.throttle(ctx, at, client, limits...); err != nil {
		return Grant{}, err
	}
	u, err := lookup(ctx, key)
	if err != nil && !errors.Is(err, ErrNotFound) {
		return Grant{}, fmt.Errorf("looking up a user: %w", err)
	}
	ok, stale, err := s.guess(ctx, at, limits, u.PasswordHash, password)
	if err != nil {
		return Grant{}, err
	}
	if !ok {
		s.audit(ctx, client, AuditRecord{Event: EventLoginFailed, UserID: u.ID, Tenant: u.Tenant})
		return Grant{}, ErrBadCredentials
	}
	if !u.Active {
		s.audit(ctx, client, AuditRecord{Event: EventLoginFailed, UserID: u.ID, Tenant: u.Tenant, Details: map[string]string{"reason": "disabled"}})
		return Grant{}, ErrDisabled
	}
	if err := s.succeeded(ctx, at, limits); err != nil {
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

// guess verifies a password whose attempt was counted at a time. One that there was no
// time for, or that failed, was none: a flood must not lock out those who wait in it. But
// one that failed after the password was found wrong tells that it was.
func (s *Service) guess(ctx context.Context, at time.Time, limits []counter, hash, password string) (ok, stale bool, err error) {
	ok, stale, err = s.hasher.Verify(ctx, hash, password)
	if err != nil && !errors.Is(err, errHalfway) {
		err = errors.Join(err, s.takeBack(context.WithoutCancel(ctx), at, limits))
	}
	if err != nil {
		return false, false, fmt.Errorf("verifying a password: %w", err)
	}
	return ok, stale, nil
}

// rehash stores the password as the configuration wants it today. Whoever was
// faster may have changed the password, so it is verified again then.
func (s *Service) rehash(ctx context.Context, u User, password string) (User, error) {
	hash, err := s.hasher.Hash(ctx, password)
	if err != nil {
		return User{}, err
	}
	changed := u
	changed.PasswordHash = hash
	updated, err := s.store.UpdateUser(ctx, changed)
	if errors.Is(err, ErrConflict) {
		if updated, err = s.store.User(ctx, u.ID); err == nil {
			var ok bool
			if ok, _, err = s.hasher.Verify(ctx, updated.PasswordHash, password); err == nil && !ok {
				err = ErrBadCredentials
			}
		}
	}
	if errors.Is(err, ErrNotFound) {
		err = ErrBadCredentials
	}
	if err != nil {
		return User{}, fmt.Errorf("hashing a password anew: %w", err)
	}
	return updated, nil
}

// Me returns the caller's own account.
func (s *Service) Me(ctx context.Context, p *Principal) (User, error) {
	return s.store.User(ctx, p.UserID)
}

// Profile is what a user may change about themselves; nil leaves a field alone.
type Profile struct {
	Username *string
	Email    *string // counts once it was confirmed from the new address
	// CurrentPassword is needed for another address: with it comes the password, by a
	// link, and whoever has stolen an access token has not stolen that.
	CurrentPassword string
}

// UpdateMe changes the caller's own account. A new name ends the access tokens
// that carry the old one, which somebody else may take; sessions live on.
func (s *Service) UpdateMe(ctx context.Context, p *Principal, in Profile, client Client) (User, error) {
	u, err := s.store.User(ctx, p.UserID)
	if err != nil {
		return User{}, fmt.Errorf("reading the user: %w", err)
	}
	var name username
	var address email
	var nameErr, emailErr error
	if in.Username != nil {
		name, nameErr = parseUsername(*in.Username)
	}
	if in.Email != nil {
		if address, emailErr = parseEmail(*in.Email); emailErr == nil && s.cfg.VerifyLink == "" {
			emailErr = badField("email", "cannot be changed: this service does not verify addresses")
		}
	}
	if err := fieldErrors(nameErr, emailErr); err != nil {
		return User{}, err
	}
	if in.Email != nil && address.key != u.EmailKey {
		if in.CurrentPassword == "" {
			return User{}, badField("current_password", "is required with another address")
		}
		if err := s.provePassword(ctx, p, u, in.CurrentPassword, client); err != nil {
			return User{}, err
		}
	}
	details := map[string]string{}
	confirm := in.Email != nil && (address.key != u.EmailKey || !u.EmailVerified)
	if confirm {
		if err := s.throttle(ctx, s.now(), client, mailLimits(address.key, client)...); err != nil {
			return User{}, err
		}
		details["email"] = "to be confirmed"
	}
	// A caller whose token still has another name is one whose renaming was interrupted.
	if in.Username != nil && (name.display != u.Username || name.display != p.Username) {
		details["username"] = u.Username + " -> " + name.display
		if u, err = s.rename(ctx, u.ID, name); err != nil {
			return User{}, err
		}
	}
	if len(details) > 0 {
		s.audit(ctx, client, AuditRecord{Event: EventUserChanged, UserID: u.ID, ActorID: u.ID, Tenant: u.Tenant, Details: details})
	}
	if confirm {
		if err := s.enqueue(ctx, jobVerify, verifyJob(u, address.display)); err != nil {
			return User{}, err
		}
	}
	return u, nil
}

func (s *Service) rename(ctx context.Context, id string, name username) (User, error) {
	u, err := s.change(ctx, id, func(u *User) error {
		u.Username, u.UsernameKey, u.UsernameSkeleton = name.display, name.key, name.skeleton
		u.Epoch++
		return nil
	})
	if err != nil {
		return User{}, err
	}
	if err := s.revoke(ctx, Revocation{Kind: RevokeUser, ID: u.ID, MinEpoch: u.Epoch}); err != nil {
		return User{}, fmt.Errorf("revoking tokens: %w", err)
	}
	return u, nil
}

// ChangePassword needs the current password and ends the user's other sessions.
func (s *Service) ChangePassword(ctx context.Context, p *Principal, current, next string, client Client) error {
	u, err := s.store.User(ctx, p.UserID)
	if err != nil {
		return fmt.Errorf("reading the user: %w", err)
	}
	if err := s.provePassword(ctx, p, u, current, client); err != nil {
		return err
	}
	// A reset meanwhile has had its reason: the password that was current then
	// must not undo it.
	still := func(now User) error {
		if now.PasswordHash != u.PasswordHash {
			return errNotCurrent()
		}
		return nil
	}
	if err := s.setPassword(ctx, u, still, "new_password", next, p.SessionID); err != nil {
		return err
	}
	s.audit(ctx, client, AuditRecord{Event: EventPasswordChanged, UserID: u.ID, ActorID: u.ID, Tenant: u.Tenant, SessionID: p.SessionID})
	return nil
}

func errNotCurrent() error { return badField("current_password", "is not the current password") }

// provePassword wants the password of somebody who is signed in. The same counters as a
// login: a stolen access token must not be a way to guess the password it does not know.
func (s *Service) provePassword(ctx context.Context, p *Principal, u User, current string, client Client) error {
	at := s.now()
	limits, err := s.loginLimits(ctx, at, u.UsernameKey, client)
	if err != nil {
		return err
	}
	if err := s.throttle(ctx, at, client, limits...); err != nil {
		return err
	}
	ok, _, err := s.guess(ctx, at, limits, u.PasswordHash, current)
	if err != nil {
		return err
	}
	if !ok {
		s.audit(ctx, client, AuditRecord{Event: EventLoginFailed, UserID: u.ID, ActorID: u.ID, Tenant: u.Tenant, SessionID: p.SessionID, Details: map[string]string{"reason": "current password"}})
		return errNotCurrent()
	}
	return s.succeeded(ctx, at, limits)
}

// checkPassword says what is wrong with a password that u wants to have.
func (s *Service) checkPassword(field, password string, u User) error {
	if err := s.cfg.Passwords.check(field, password, u); err != nil {
		return err
	}
	common, err := s.hasher.common.has(normalPassword(password))
	if err != nil {
		return err
	}
	if common {
		return badField(field, "is one of the passwords that are tried first: choose another")
	}
	return nil
}

// setPassword stores a new password, if the user is still as they are required
// to be, and ends every session but keep. Sessions end before as well as after:
// after, because one could begin with the old password meanwhile; before, so
// that a crash in between leaves none alive. One-time tokens end too: an address
// that an intruder wanted to have confirmed would be a way back in. The user is
// told by mail.
func (s *Service) setPassword(ctx context.Context, u User, require func(User) error, field, password, keep string) error {
	if err := s.checkPassword(field, password, u); err != nil {
		return err
	}
	hash, err := s.hasher.Hash(ctx, password)
	if err != nil {
		return err
	}
	notice, err := s.promise(ctx, jobPasswordChanged, map[string]string{"user": u.ID, "as_of": asOf(u)})
	if err != nil {
		return err
	}
	if err := s.endSessions(ctx, u.ID, keep); err != nil {
		return fmt.Errorf("ending sessions: %w", err)
	}
	_, err = s.change(ctx, u.ID, func(u *User) error {
		if err := require(*u); err != nil {
			return err
		}
		u.PasswordHash = hash
		return nil
	})
	if err != nil {
		return err
	}
	if err := s.store.DeleteTokens(ctx, u.ID); err != nil {
		return fmt.Errorf("deleting one-time tokens: %w", err)
	}
	if err := s.endSessions(ctx, u.ID, keep); err != nil {
		return fmt.Errorf("ending sessions: %w", err)
	}
	s.redeem(ctx, notice)
	return nil
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
