package identity

import (
	"context"
	"errors"
	"fmt"
)

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
	another := in.Email != nil && address.key != u.EmailKey
	if another {
		if in.CurrentPassword == "" {
			return User{}, badField("current_password", "is required with another address")
		}
		if err := s.provePassword(ctx, p, u, in.CurrentPassword, client); err != nil {
			return User{}, err
		}
	}
	details := map[string]string{}
	confirm := another || in.Email != nil && !u.EmailVerified
	if confirm {
		if err := s.throttle(ctx, s.now(), client, mailLimits(address.key, client)...); err != nil {
			return User{}, err
		}
		details["email"] = "to be confirmed"
	}
	// A caller whose token still has another name is one whose renaming was interrupted.
	if in.Username != nil && (name.display != u.Username || name.display != p.Username) {
		details["username"] = u.Username + " -> " + name.display
		if u, err = s.rename(ctx, u, name, another); err != nil {
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

// rename gives a user another name. proved means that more is to be done that took the
// password they had before.
func (s *Service) rename(ctx context.Context, before User, name username, proved bool) (User, error) {
	u, err := s.change(ctx, before.ID, func(u *User) error {
		if proved && u.PasswordHash != before.PasswordHash {
			return errNotCurrent()
		}
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
