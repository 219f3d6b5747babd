package identity

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"

	"golang.org/x/text/unicode/norm"
)

// User administration. Who may call these is the policy's decision; what is
// decided here is whom they may be about: an administrator of one tenant does
// not see another's users, and nobody but a holder of the super role moves users
// between tenants or gives that role. A nil Principal is the operator.

// Users returns a page of users, and the cursor of the next one ("" at the end).
// search is the beginning of a username or, with an "@", of an e-mail address.
func (s *Service) Users(ctx context.Context, p *Principal, search, cursor string, limit int) ([]User, string, error) {
	q := UserQuery{Tenant: s.reach(p), After: cursor, Limit: limit + 1}
	search = strings.ToLower(norm.NFKC.String(search))
	if strings.Contains(search, "@") {
		q.EmailPrefix = search
	} else {
		q.UsernamePrefix = search
	}
	users, err := s.store.ListUsers(ctx, q)
	if err != nil {
		return nil, "", fmt.Errorf("listing users: %w", err)
	}
	if len(users) <= limit {
		return users, "", nil
	}
	users = users[:limit]
	last := users[limit-1]
	if q.EmailPrefix != "" {
		return users, last.EmailKey, nil
	}
	return users, last.UsernameKey, nil
}

// UserByID returns a user within p's reach, or ErrNotFound.
func (s *Service) UserByID(ctx context.Context, p *Principal, id string) (User, error) {
	u, err := s.store.User(ctx, id)
	if reach := s.reach(p); err == nil && reach != nil && u.Tenant != *reach {
		return User{}, ErrNotFound
	}
	return u, err
}

// UserByName returns the user with that username or e-mail address; for the operator.
func (s *Service) UserByName(ctx context.Context, name string) (User, error) {
	if strings.Contains(name, "@") {
		address, err := parseEmail(name)
		if err != nil {
			return User{}, ErrNotFound
		}
		return s.store.UserByEmail(ctx, address.key)
	}
	key, err := usernameKey(name)
	if err != nil {
		return User{}, ErrNotFound
	}
	return s.store.UserByUsername(ctx, key)
}

// Change is what an administrator may change about a user; nil leaves a field alone.
type Change struct {
	Roles  *[]string
	Active *bool
	Email  *string
	Tenant *string
}

// UpdateUser changes a user. What tokens say of them counts from their next
// request on, because their access tokens are refused from then on.
func (s *Service) UpdateUser(ctx context.Context, p *Principal, id string, in Change, client Client) (User, error) {
	before, err := s.UserByID(ctx, p, id)
	if err != nil {
		return User{}, err
	}
	if in.Tenant != nil && s.reach(p) != nil && *in.Tenant != before.Tenant {
		return User{}, ErrRoleNotAllowed
	}
	edit := func(u *User) error { return s.applyChange(u, in, p) }
	after := before
	if err := edit(&after); err != nil {
		return User{}, err
	}
	// The set of administrators must never hold somebody who is none: leave it
	// before ceasing to be one, enter it after having become one.
	was, will := s.administers(before), s.administers(after)
	if was && !will {
		if err := s.store.ReleaseAdministrator(ctx, id); err != nil {
			return User{}, fmt.Errorf("releasing an administrator: %w", err)
		}
	}
	u, err := s.change(ctx, id, edit)
	if settleErr := s.settleAdministrator(ctx, id); err == nil {
		err = settleErr
	}
	if err != nil {
		return User{}, err
	}
	if err := s.revoke(ctx, Revocation{Kind: RevokeUser, ID: id, MinEpoch: u.Epoch}); err != nil {
		return User{}, fmt.Errorf("revoking tokens: %w", err)
	}
	if !u.Active {
		if err := s.endSessions(ctx, id, ""); err != nil {
			return User{}, fmt.Errorf("ending sessions: %w", err)
		}
	}
	s.audit(ctx, client, AuditRecord{Event: EventUserChanged, UserID: id, ActorID: actor(p), Tenant: u.Tenant, Details: describeChange(before, u)})
	if u.EmailKey != before.EmailKey {
		return u, s.enqueue(ctx, jobVerify, map[string]string{"user": id, "email": u.Email})
	}
	return u, nil
}

func (s *Service) applyChange(u *User, in Change, p *Principal) error {
	var rolesErr, emailErr error
	if in.Roles != nil {
		u.Roles, rolesErr = s.parseRoles(*in.Roles, p)
	}
	if in.Active != nil {
		u.Active = *in.Active
	}
	if in.Email != nil {
		var address email
		if address, emailErr = parseEmail(*in.Email); emailErr == nil && address.key != u.EmailKey {
			u.Email, u.EmailKey, u.EmailVerified = address.display, address.key, false
		}
	}
	if in.Tenant != nil {
		u.Tenant = *in.Tenant
	}
	u.Epoch++
	return fieldErrors(rolesErr, emailErr)
}

// DeleteUser removes a user, their sessions and tokens.
func (s *Service) DeleteUser(ctx context.Context, p *Principal, id string, client Client) error {
	u, err := s.UserByID(ctx, p, id)
	if err != nil {
		return err
	}
	if err := s.store.ReleaseAdministrator(ctx, id); err != nil {
		return fmt.Errorf("releasing an administrator: %w", err)
	}
	if err := s.store.DeleteUser(ctx, id); err != nil {
		return errors.Join(fmt.Errorf("deleting a user: %w", err), s.settleAdministrator(ctx, id))
	}
	err = errors.Join(
		s.revoke(ctx, Revocation{Kind: RevokeUser, ID: id, MinEpoch: math.MaxInt64}),
		s.endSessions(ctx, id, ""),
		s.store.DeleteTokens(ctx, id),
	)
	if err != nil {
		return fmt.Errorf("removing what a deleted user had: %w", err)
	}
	s.audit(ctx, client, AuditRecord{Event: EventUserDeleted, UserID: id, ActorID: actor(p), Tenant: u.Tenant})
	return nil
}

// LogoutUser ends every session of a user.
func (s *Service) LogoutUser(ctx context.Context, p *Principal, id string, client Client) error {
	u, err := s.UserByID(ctx, p, id)
	if err != nil {
		return err
	}
	if err := s.endSessions(ctx, id, ""); err != nil {
		return fmt.Errorf("ending sessions: %w", err)
	}
	s.audit(ctx, client, AuditRecord{Event: EventLogout, UserID: id, ActorID: actor(p), Tenant: u.Tenant, Details: map[string]string{"scope": "forced"}})
	return nil
}

// HasAdministrator reports whether anybody can administer.
func (s *Service) HasAdministrator(ctx context.Context) (bool, error) {
	ids, err := s.store.Administrators(ctx)
	return len(ids) > 0, err
}

func (s *Service) administers(u User) bool { return u.Active && s.isAdministrator(u.Roles) }

// settleAdministrator makes the set agree with what the user has become, however
// several changes of the same user were interleaved.
func (s *Service) settleAdministrator(ctx context.Context, id string) error {
	u, err := s.store.User(ctx, id)
	switch {
	case errors.Is(err, ErrNotFound) || err == nil && !s.administers(u):
		err = s.store.DropAdministrator(ctx, id)
	case err == nil:
		if err = s.store.HoldAdministrator(ctx, id); err != nil {
			break
		}
		// Somebody may have ended it between the look and the entry.
		if u, err = s.store.User(ctx, id); errors.Is(err, ErrNotFound) || err == nil && !s.administers(u) {
			err = s.store.DropAdministrator(ctx, id)
		}
	}
	if err != nil {
		return fmt.Errorf("counting an administrator: %w", err)
	}
	return nil
}

// parseRoles sorts the roles and refuses those that do not exist or that p may not give.
func (s *Service) parseRoles(roles []string, p *Principal) ([]string, error) {
	known := s.roles.Roles()
	var out []string
	for _, r := range roles {
		if !slices.Contains(known, r) && !slices.Contains(s.cfg.AdminRoles, r) && !slices.Contains(s.cfg.DefaultRoles, r) {
			return nil, badField("roles", "must be roles that the policy knows: %s", strings.Join(known, ", "))
		}
		if r == s.cfg.SuperRole && s.reach(p) != nil {
			return nil, ErrRoleNotAllowed
		}
		out = append(out, r)
	}
	slices.Sort(out)
	return slices.Compact(out), nil
}

func actor(p *Principal) string {
	if p == nil {
		return "operator"
	}
	return p.UserID
}

// describeChange names what an administrator changed, for the audit record.
func describeChange(before, after User) map[string]string {
	d := map[string]string{}
	if !slices.Equal(before.Roles, after.Roles) {
		d["roles"] = strings.Join(before.Roles, ",") + " -> " + strings.Join(after.Roles, ",")
	}
	if before.Active != after.Active {
		d["active"] = fmt.Sprintf("%v -> %v", before.Active, after.Active)
	}
	if before.EmailKey != after.EmailKey {
		d["email"] = "changed"
	}
	if before.Tenant != after.Tenant {
		d["tenant"] = before.Tenant + " -> " + after.Tenant
	}
	return d
}
