package identity

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"
)

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
