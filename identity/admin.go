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
// set their e-mail address may reset their password. For the same reason a caller
// whom the policy lets in without an administrator's role touches no administrator,
// and gives nobody a role, or it could make itself one. A nil Principal is the
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
	u, err := s.alter(ctx, p, id, client, func(u *User) error { return s.applyChange(u, in, p) })
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
	if err != nil {
		return nil, nil //nolint:nilerr // applyChange says it, with what else is wrong
	}
	if address.key == u.EmailKey {
		return nil, nil
	}
	confirm, err := s.promise(ctx, jobVerify, map[string]string{"user": id, "email": address.display})
	if err != nil {
		return nil, err
	}
	notice, err := s.promise(ctx, jobEmailChanged, emailChangedJob(u))
	return []string{confirm, notice}, err
}

func (s *Service) applyChange(u *User, in Change, p *Principal) error {
	var rolesErr, emailErr, tenantErr error
	if in.Roles != nil {
		had := u.Roles
		u.Roles, rolesErr = s.parseRoles(*in.Roles, p)
		if rolesErr == nil && !s.mayAdminister(p) && !slices.Equal(had, u.Roles) {
			return ErrRoleNotAllowed
		}
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
// Access tokens are refused from then on. It returns the user as stored.
func (s *Service) alter(ctx context.Context, p *Principal, id string, client Client, edit func(*User) error) (User, error) {
	before, after, err := s.replace(ctx, p, id, edit)
	for errors.Is(err, ErrConflict) && ctx.Err() == nil {
		before, after, err = s.replace(ctx, p, id, edit)
	}
	stored := err == nil
	if stored && s.administers(before) && !s.administers(after) {
		err = s.keepAdministrators(ctx, before)
	}
	if stored && !errors.Is(err, ErrLastAdministrator) {
		s.audit(ctx, client, AuditRecord{Event: EventUserChanged, UserID: id, ActorID: actor(p), Tenant: after.Tenant, Details: describeChange(before, after)})
		err = errors.Join(err, s.revoke(ctx, Revocation{Kind: RevokeUser, ID: id, MinEpoch: after.Epoch}))
	}
	if s.administers(before) || s.administers(after) {
		bounded, cancel := detached(ctx)
		defer cancel()
		err = errors.Join(err, s.settleAdministrator(bounded, id))
	}
	return after, err
}

// replace is one attempt of alter.
func (s *Service) replace(ctx context.Context, p *Principal, id string, edit func(*User) error) (before, after User, err error) {
	if before, err = s.alterable(ctx, p, id); err != nil {
		return User{}, User{}, err
	}
	after = before
	if err := edit(&after); err != nil {
		return before, before, err
	}
	after.Epoch++
	after.UpdatedAt = s.now()
	if s.administers(before) && !s.administers(after) {
		if err := s.store.ReleaseAdministrator(ctx, id); err != nil {
			return before, before, fmt.Errorf("releasing an administrator: %w", err)
		}
	}
	stored, err := s.store.UpdateUser(ctx, after)
	if err != nil {
		return before, before, fmt.Errorf("storing a user: %w", err)
	}
	return before, stored, nil
}

// mayAlter reports whether p may change u, who is in p's reach.
func (s *Service) mayAlter(p *Principal, u User) bool {
	return s.reach(p) == nil || !s.isSuper(u.Roles) && (s.mayAdminister(p) || !s.isAdministrator(u.Roles))
}

// mayAdminister reports whether p is an administrator, or the operator.
func (s *Service) mayAdminister(p *Principal) bool { return p == nil || s.isAdministrator(p.Roles) }

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
	u, err := s.alter(ctx, p, id, client, func(u *User) error { u.Active = false; return nil })
	if err != nil {
		return err
	}
	if err := s.shutOut(ctx, id); err != nil {
		return err
	}
	// Once more, for an administrator whom somebody has enabled again meanwhile.
	if err := s.store.ReleaseAdministrator(ctx, id); err != nil {
		return fmt.Errorf("releasing an administrator: %w", err)
	}
	if err := s.store.DeleteUser(ctx, id); err != nil {
		return fmt.Errorf("deleting a user: %w", err)
	}
	s.audit(ctx, client, AuditRecord{Event: EventUserDeleted, UserID: id, ActorID: actor(p), Tenant: u.Tenant})
	return s.settleAdministrator(ctx, id)
}

// LogoutUser ends every session of a user.
func (s *Service) LogoutUser(ctx context.Context, p *Principal, id string, client Client) error {
	if from := s.issuers.of(id); from != nil {
		return s.logoutForeign(ctx, p, id, from, client)
	}
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
