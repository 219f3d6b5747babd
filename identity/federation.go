package identity

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"reflect"
	"slices"
	"strings"
	"sync"
	"time"
)

// ErrForeignAccount means that the caller has no account here: an issuer keeps it.
var ErrForeignAccount = errors.New("the account is kept by another issuer")

// Federation owns what runs for issuers other than ourselves. It outlives the
// configurations that name them: an issuer that two of them have in common goes
// on with the keys it knows.
type Federation struct {
	log   *slog.Logger
	now   func() time.Time
	pause time.Duration

	mu      sync.Mutex
	running []*joined
}

// joined is an issuer and how many Issuers hold it.
type joined struct {
	*issuer
	holders int
}

// NewFederation returns a Federation of nobody.
func NewFederation(log *slog.Logger) *Federation {
	return &Federation{log: log, now: time.Now, pause: issuerPause}
}

// Issuers are those whom one configuration trusts. It must be closed.
type Issuers struct {
	federation *Federation
	list       []*joined
	once       sync.Once
}

// Trust starts what is not running yet. Names and iss claims must be unique.
func (f *Federation) Trust(cfgs []IssuerConfig) (*Issuers, error) {
	for i, c := range cfgs {
		for _, other := range cfgs[:i] {
			if other.Name == c.Name || other.Issuer == c.Issuer {
				return nil, fmt.Errorf("issuers %s and %s: have the same name or iss", other.Name, c.Name)
			}
		}
		if c.Name == "" || strings.Contains(c.Name, foreignSeparator) || c.Issuer == "" || c.Audience == "" || c.Refresh <= 0 ||
			slices.ContainsFunc(c.Algorithms, func(a string) bool { return strings.HasPrefix(a, "HS") || a == "none" }) {
			return nil, fmt.Errorf("issuer %q: its configuration is incomplete", c.Name)
		}
		if _, ok := c.roots(); !ok {
			return nil, fmt.Errorf("issuer %q: there is no certificate to believe in PEM", c.Name)
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	is := &Issuers{federation: f}
	for _, c := range cfgs {
		at := slices.IndexFunc(f.running, func(j *joined) bool { return reflect.DeepEqual(j.IssuerConfig, c) })
		if at < 0 {
			var known *issuerKeys
			if same := slices.IndexFunc(f.running, func(j *joined) bool { return j.Issuer == c.Issuer && j.JWKSURL == c.JWKSURL && bytes.Equal(j.CA, c.CA) }); same >= 0 {
				known = f.running[same].keys.current.Load()
			}
			f.running = append(f.running, &joined{issuer: newIssuer(c, startKeySource(c.Name, c, f.pause, known, f.log), f.now)})
			at = len(f.running) - 1
		}
		f.running[at].holders++
		is.list = append(is.list, f.running[at])
	}
	return is, nil
}

// Ages is how long ago the keys of each issuer were last seen to be current, by
// name. Those never seen are left out.
func (f *Federation) Ages() map[string]time.Duration {
	f.mu.Lock()
	defer f.mu.Unlock()
	ages := map[string]time.Duration{}
	for _, j := range f.running {
		if at := j.keys.looked.Load(); at != 0 {
			ages[j.Name] = f.now().Sub(time.Unix(0, at))
		}
	}
	return ages
}

// Forget has the tokens of all issuers verified anew, and with the callers that they
// proved it lets go of what was made of these: our keys that signed it are others now.
func (f *Federation) Forget() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, j := range f.running {
		// A look that has found new keys meanwhile has forgotten, too.
		if keys := j.keys.current.Load(); keys != nil {
			j.keys.current.CompareAndSwap(keys, keys.unused())
		}
	}
}

// Await returns when every issuer has been asked once, or ctx ends: what has not
// answered by then is not waited for.
func (is *Issuers) Await(ctx context.Context) {
	for _, j := range is.list {
		select {
		case <-j.keys.first:
		case <-ctx.Done():
			return
		}
	}
}

// Close ends what runs for issuers that nobody else holds.
func (is *Issuers) Close() {
	is.once.Do(func() {
		f := is.federation
		f.mu.Lock()
		var unused []*joined
		for _, j := range is.list {
			if j.holders--; j.holders == 0 {
				unused = append(unused, j)
			}
		}
		f.running = slices.DeleteFunc(f.running, func(j *joined) bool { return j.holders == 0 })
		f.mu.Unlock()
		for _, j := range unused {
			j.keys.close()
		}
	})
}

// verify returns the caller that a token proves, be it ours or an issuer's.
func (is *Issuers) verify(token []byte, own *Tokens, now time.Time) (*Principal, error) {
	if p, ok := own.trust.Load().verified.get(token); ok {
		return own.live(p, now)
	}
	for _, j := range is.list {
		if keys := j.keys.current.Load(); keys != nil {
			if p, ok := keys.verified.get(token); ok {
				return own.live(p, now)
			}
		}
	}
	if err := wellFormed(token); err != nil {
		return nil, err
	}
	from := unverifiedIssuer(token)
	i := slices.IndexFunc(is.list, func(j *joined) bool { return j.Issuer == from })
	if i < 0 || from == own.cfg.Issuer {
		return own.verify(token, now)
	}
	p, err := is.list[i].verify(token)
	if err != nil {
		return nil, err
	}
	return own.live(p, now)
}

// of returns the issuer that a user's id is of, or nil.
func (is *Issuers) of(id string) *issuer {
	name, sub, ok := strings.Cut(id, foreignSeparator)
	if is == nil || !ok || !validSubject(sub) {
		return nil
	}
	if i := slices.IndexFunc(is.list, func(j *joined) bool { return j.Name == name }); i >= 0 {
		return is.list[i].issuer
	}
	return nil
}

// Trusting returns a Service that believes issuers, too, and closes them with Close.
func (s *Service) Trusting(issuers *Issuers) *Service {
	c := *s
	c.issuers = issuers
	return &c
}

// Close lets go of the issuers of a Service made by Trusting.
func (s *Service) Close() {
	if s.issuers != nil {
		s.issuers.Close()
	}
}

// Verify returns the caller that an access token proves, ours or that of an
// issuer we trust, at a time that is now: whoever asks has read a clock for the
// request. It asks no store and waits for nobody.
func (s *Service) Verify(token []byte, now time.Time) (*Principal, error) {
	if s.issuers == nil {
		return s.tokens.verify(token, now)
	}
	return s.issuers.verify(token, s.tokens, now)
}

// Revoked reports whether somebody has ended what p's token proved, who is served for
// longer than a request takes: the session, or what the token says of the user. That
// the token has expired since is another matter.
func (s *Service) Revoked(p *Principal) bool {
	return errors.Is(s.tokens.revocations.Check(p, s.tokens.cfg.Now()), ErrTokenRevoked)
}

// logoutForeign makes tokens of a foreign user count no more that were issued
// until now. We do not know them otherwise: their issuer may sign them in again.
func (s *Service) logoutForeign(ctx context.Context, p *Principal, id string, from *issuer, client Client) error {
	reach := s.reach(p)
	if reach != nil && from.Tenant != *reach {
		return ErrNotFound
	}
	if !s.mayAlter(p, User{Roles: slices.Collect(maps.Values(from.Roles))}) {
		return ErrRoleNotAllowed // the user may have any of these
	}
	now := s.now()
	err := s.revocations.Revoke(ctx, Revocation{
		Kind: RevokeUser, ID: id, MinEpoch: now.Add(from.ClockSkew).Unix() + 1, ExpiresAt: now.Add(from.MaxTTL + from.ClockSkew + time.Minute),
	})
	if err != nil {
		return errors.Join(errors.New("revoking a foreign user's tokens"), err)
	}
	s.audit(ctx, client, AuditRecord{Event: EventLogout, UserID: id, ActorID: actor(p), Tenant: from.Tenant, Details: map[string]string{"scope": "forced"}})
	return nil
}
