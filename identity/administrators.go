package identity

import (
	"context"
	"errors"
	"fmt"
)

// The last administrator cannot be removed. The store keeps a set of them that
// refuses to become empty, but it changes users and the set in two steps, and
// several replicas do so at once. So:
//
//   - who ceases to be an administrator leaves the set first, which the set
//     refuses to its last member;
//   - when the user is stored, somebody must still administer, or the change is
//     taken back: of several changes at once, the last to be stored sees what
//     all of them have left;
//   - in the end the set is made to agree with what the user has become.

// HasAdministrator reports whether anybody can administer.
func (s *Service) HasAdministrator(ctx context.Context) (bool, error) {
	ids, err := s.store.Administrators(ctx)
	return len(ids) > 0, err
}

func (s *Service) administers(u User) bool { return u.Active && s.isAdministrator(u.Roles) }

// keepAdministrators undoes that a user has ceased to be an administrator if
// nobody is left; ErrLastAdministrator then.
func (s *Service) keepAdministrators(ctx context.Context, before User) error {
	ids, err := s.store.Administrators(ctx)
	if err != nil {
		return fmt.Errorf("reading the administrators: %w", err)
	}
	for _, id := range ids {
		u, err := s.store.User(ctx, id)
		if err == nil && s.administers(u) {
			return nil
		}
		if err != nil && !errors.Is(err, ErrNotFound) {
			return fmt.Errorf("reading an administrator: %w", err)
		}
	}
	_, err = s.change(ctx, before.ID, func(u *User) error {
		u.Roles, u.Active, u.Tenant = before.Roles, before.Active, before.Tenant
		u.Email, u.EmailKey, u.EmailVerified = before.Email, before.EmailKey, before.EmailVerified
		u.Epoch++
		return nil
	})
	if err != nil {
		return fmt.Errorf("keeping the last administrator: %w", err)
	}
	return ErrLastAdministrator
}

// settleAdministrator makes the set agree with what the user is, and looks again
// until nobody has changed it in between: whoever acts last on the set has seen
// the user as they are.
func (s *Service) settleAdministrator(ctx context.Context, id string) error {
	administers := func() (bool, error) {
		u, err := s.store.User(ctx, id)
		if errors.Is(err, ErrNotFound) {
			return false, nil
		}
		return err == nil && s.administers(u), err
	}
	is, err := administers()
	for was := !is; err == nil && was != is; {
		was = is
		if is {
			err = s.store.HoldAdministrator(ctx, id)
		} else {
			err = s.store.DropAdministrator(ctx, id)
		}
		if err == nil {
			is, err = administers()
		}
	}
	if err != nil {
		return fmt.Errorf("counting an administrator: %w", err)
	}
	return nil
}
