package identity

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/text/unicode/norm"
)

// User administration. Who may call these is the policy's decision; what is
// decided here is whom they may be about: an administrator of one tenant does
// not see another's users, and nobody but a holder of the super role moves users
// between tenants, gives that role, or touches those who have it: whoever may
// set their e-mail address may reset their password. A nil Principal is the
// operator.

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
	var mails []string
	if in.Email != nil {
		var err error
		if mails, err = s.promiseAddress(ctx, p, id, *in.Email); err != nil {
			return User{}, err
		}
	}
	_, u, err := s.alter(ctx, p, id, client, func(u *User) error { return s.applyChange(u, in, p) })
	if err != nil {
		return User{}, err
	}
	if !u.Active {
		if err := s.shutOut(ctx, id); err != nil {
			return User{}, err
		}
	}
	if in.Email != nil { // a link to an address that was replaced must not bring it back
		if err := s.store.DeleteTokens(ctx, id); err != nil {
			return User{}, fmt.Errorf("deleting one-time tokens: %w", err)
		}
	}
	for _, job := range mails {
		s.redeem(ctx, job)
	}
	return u, nil
}

// promiseAddress promises the mails of a new address: to confirm it, and a
// notice to the old one. What is wrong with it, applyChange will say.
func (s *Service) promiseAddress(ctx context.Context, p *Principal, id, email string) (jobs []string, err error) {
	u, err := s.alterable(ctx, p, id)
	if err != nil {
		return nil, err
	}
	address, err := parseEmail(email)
	if err != nil || address.key == u.EmailKey {
		return nil, nil
	}
	confirm, err := s.promise(ctx, jobVerify, map[string]string{"user": id, "email": address.display})
	if err != nil {
		return nil, err
	}
	notice, err := s.promise(ctx, jobEmailChanged, map[string]string{"user": id, "email": u.Email})
	return []string{confirm, notice}, err
}

func (s *Service) applyChange(u *User, in Change, p *Principal) error {
	var rolesErr, emailErr, tenantErr error
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
	if in.Tenant != nil && *in.Tenant != u.Tenant {
		if s.reach(p) != nil {
			return ErrRoleNotAllowed
		}
		u.Tenant, tenantErr = parseTenant(*in.Tenant)
	}
	return fieldErrors(rolesErr, emailErr, tenantErr)
}

// alter edits a user in p's reach, and what it has read is what it replaces:
// whatever edit and the checks here have seen is still so when it is stored.
// Access tokens are refused from then on. It returns the user before and after.
//
// The set of administrators must never hold somebody who is none: they leave it
// before ceasing to be one, and enter it after having become one.
func (s *Service) alter(ctx context.Context, p *Principal, id string, client Client, edit func(*User) error) (before, after User, err error) {
	counts := false // in the set of administrators, at some time of this
	for {
		if before, err = s.alterable(ctx, p, id); err != nil {
			break
		}
		after = before
		if err = edit(&after); err != nil {
			break
		}
		after.Epoch++
		after.UpdatedAt = s.now()
		was, will := s.administers(before), s.administers(after)
		counts = counts || was || will
		if was && !will {
			if err = s.store.ReleaseAdministrator(ctx, id); err != nil {
				err = fmt.Errorf("releasing an administrator: %w", err)
				break
			}
		}
		if after, err = s.store.UpdateUser(ctx, after); err == nil {
			s.audit(ctx, client, AuditRecord{Event: EventUserChanged, UserID: id, ActorID: actor(p), Tenant: after.Tenant, Details: describeChange(before, after)})
			if err = s.revoke(ctx, Revocation{Kind: RevokeUser, ID: id, MinEpoch: after.Epoch}); err != nil {
				err = fmt.Errorf("revoking tokens: %w", err)
			}
			break
		}
		if !errors.Is(err, ErrConflict) || ctx.Err() != nil {
			err = fmt.Errorf("storing a user: %w", err)
			break
		}
	}
	if counts {
		bounded, cancel := detached(ctx)
		defer cancel()
		err = errors.Join(err, s.settleAdministrator(bounded, id))
	}
	return before, after, err
}

// mayAlter reports whether p may change u, who is in p's reach.
func (s *Service) mayAlter(p *Principal, u User) bool {
	return s.reach(p) == nil || !s.isSuper(u.Roles)
}

// shutOut ends what a user could still come in by: sessions and mailed links.
func (s *Service) shutOut(ctx context.Context, id string) error {
	if err := s.endSessions(ctx, id, ""); err != nil {
		return fmt.Errorf("ending sessions: %w", err)
	}
	if err := s.store.DeleteTokens(ctx, id); err != nil {
		return fmt.Errorf("deleting one-time tokens: %w", err)
	}
	return nil
}

// DeleteUser removes a user, their sessions and tokens. They are disabled first:
// when the store fails in between, nobody is left who is half there and can
// still come in, and deleting can be tried again.
func (s *Service) DeleteUser(ctx context.Context, p *Principal, id string, client Client) error {
	_, u, err := s.alter(ctx, p, id, client, func(u *User) error { u.Active = false; return nil })
	if err != nil {
		return err
	}
	if err := s.shutOut(ctx, id); err != nil {
		return err
	}
	if err := s.store.DeleteUser(ctx, id); err != nil {
		return fmt.Errorf("deleting a user: %w", err)
	}
	s.audit(ctx, client, AuditRecord{Event: EventUserDeleted, UserID: id, ActorID: actor(p), Tenant: u.Tenant})
	return nil
}

// LogoutUser ends every session of a user.
func (s *Service) LogoutUser(ctx context.Context, p *Principal, id string, client Client) error {
	u, err := s.alterable(ctx, p, id)
	if err != nil {
		return err
	}
	if err := s.endSessions(ctx, id, ""); err != nil {
		return fmt.Errorf("ending sessions: %w", err)
	}
	s.audit(ctx, client, AuditRecord{Event: EventLogout, UserID: id, ActorID: actor(p), Tenant: u.Tenant, Details: map[string]string{"scope": "forced"}})
	return nil
}

// UnlockUser forgets the failed logins of a user, whatever addresses they came
// from, so that the next attempt is not throttled on the account's behalf. What
// was counted for a client's address stays.
func (s *Service) UnlockUser(ctx context.Context, p *Principal, id string, client Client) error {
	u, err := s.alterable(ctx, p, id)
	if err != nil {
		return err
	}
	if err := s.unlock(ctx, u); err != nil {
		return err
	}
	s.audit(ctx, client, AuditRecord{Event: EventUserUnlocked, UserID: id, ActorID: actor(p), Tenant: u.Tenant})
	return nil
}

// alterable is UserByID for what p is about to do something to.
func (s *Service) alterable(ctx context.Context, p *Principal, id string) (User, error) {
	u, err := s.UserByID(ctx, p, id)
	if err != nil {
		return User{}, fmt.Errorf("reading a user: %w", err)
	}
	if !s.mayAlter(p, u) {
		return User{}, ErrRoleNotAllowed
	}
	return u, nil
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
		if s.isSuper([]string{r}) && s.reach(p) != nil {
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
