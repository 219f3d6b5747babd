package identity

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
)

// Forgot promises a reset link to an address, if somebody has it. All that
// happens before the answer happens for every address alike; whether it is known
// is found out afterwards, by the job.
func (s *Service) Forgot(ctx context.Context, addr string, client Client) error {
	address, err := parseEmail(addr)
	if err != nil {
		return err
	}
	if err := s.throttle(ctx, s.now(), client, mailLimits(address.key, client)...); err != nil {
		return err
	}
	return s.enqueue(ctx, jobReset, map[string]string{"email": address.key, "ip": client.IP, "request_id": client.RequestID})
}

// Reset sets a new password by a mailed token and ends all the user's sessions.
func (s *Service) Reset(ctx context.Context, token, password string, client Client) error {
	// Whatever can be refused without the token is refused before it is spent.
	if err := s.checkPassword("new_password", password, User{}); err != nil {
		return err
	}
	t, err := s.take(ctx, PurposeReset, token)
	if err != nil {
		return err
	}
	// The mail has proved something only while the address is the user's.
	theirs := func(u User) error {
		if !u.Active || u.Email != t.Email {
			return ErrTokenUsed
		}
		return nil
	}
	u, err := s.store.User(ctx, t.UserID)
	if err == nil {
		err = theirs(u)
	}
	if err == nil {
		err = s.unlock(ctx, u) // the owner is back, whoever has been guessing
	}
	if err == nil {
		err = s.setPassword(ctx, u, theirs, "new_password", password, "")
	}
	if err != nil {
		return s.giveBack(ctx, t, err)
	}
	s.audit(ctx, client, AuditRecord{Event: EventPasswordReset, UserID: u.ID, ActorID: u.ID, Tenant: u.Tenant})
	return nil
}

// VerifyEmail confirms that the holder of a mailed token reads that address, and
// makes it the user's address if it is a new one.
func (s *Service) VerifyEmail(ctx context.Context, token string, client Client) error {
	t, err := s.take(ctx, PurposeVerify, token)
	if err != nil {
		return err
	}
	if err := s.confirm(ctx, t, client); err != nil {
		return s.giveBack(ctx, t, err)
	}
	return nil
}

// confirm stores that the user of t reads the address of t. It can be repeated.
func (s *Service) confirm(ctx context.Context, t OneTimeToken, client Client) error {
	address, err := parseEmail(t.Email)
	if err != nil {
		return ErrTokenUsed
	}
	u, err := s.store.User(ctx, t.UserID)
	if err != nil {
		return fmt.Errorf("reading the user: %w", err)
	}
	notice := ""
	if u.EmailKey != address.key {
		if notice, err = s.promise(ctx, jobEmailChanged, emailChangedJob(u)); err != nil {
			return err
		}
	}
	u, err = s.change(ctx, u.ID, func(u *User) error {
		if u.EmailKey != address.key {
			u.Epoch++
		}
		u.Email, u.EmailKey, u.EmailVerified = address.display, address.key, true
		return nil
	})
	if err != nil {
		return err
	}
	// Tokens that carry an older address must not outlive it.
	if err := s.revoke(ctx, Revocation{Kind: RevokeUser, ID: u.ID, MinEpoch: u.Epoch}); err != nil {
		return fmt.Errorf("revoking tokens: %w", err)
	}
	s.audit(ctx, client, AuditRecord{Event: EventEmailVerified, UserID: u.ID, ActorID: u.ID, Tenant: u.Tenant})
	if notice != "" {
		s.redeem(ctx, notice)
	}
	return nil
}

// giveBack makes a spent token usable again if what it was for has failed for
// another reason than the token's own.
func (s *Service) giveBack(ctx context.Context, t OneTimeToken, err error) error {
	if errors.Is(err, ErrNotFound) || errors.Is(err, ErrTokenUsed) {
		return ErrTokenUsed
	}
	bounded, cancel := detached(ctx)
	defer cancel()
	return errors.Join(err, s.store.PutToken(bounded, t))
}

// mint stores a new one-time token in place of an older one and returns what is
// to be mailed: 256 random bits.
func (s *Service) mint(ctx context.Context, t OneTimeToken) (string, error) {
	b := make([]byte, 32)
	_, _ = rand.Read(b) // never fails (crypto/rand)
	token := base64.RawURLEncoding.EncodeToString(b)
	t.Hash = tokenHash(token)
	if err := s.store.PutToken(ctx, t); err != nil {
		return "", fmt.Errorf("storing a token: %w", err)
	}
	return token, nil
}

// take spends a one-time token.
func (s *Service) take(ctx context.Context, purpose Purpose, token string) (OneTimeToken, error) {
	if len(token) != base64.RawURLEncoding.EncodedLen(32) {
		return OneTimeToken{}, ErrTokenUsed
	}
	t, err := s.store.TakeToken(ctx, purpose, tokenHash(token), s.now())
	if errors.Is(err, ErrNotFound) {
		return OneTimeToken{}, ErrTokenUsed
	}
	if err != nil {
		return OneTimeToken{}, fmt.Errorf("taking a token: %w", err)
	}
	return t, nil
}

func tokenHash(token string) string {
	sum := sha256.Sum256([]byte(token))
	return hex.EncodeToString(sum[:])
}
