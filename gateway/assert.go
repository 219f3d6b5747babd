package gateway

import (
	"strings"
	"sync"
	"time"

	"portcullis/identity"
)

// assertions keeps what upstreams are told of a caller, ready to be sent, so that
// a signature is made once for a token and upstream and not once for a request.
// It belongs to one State, because permissions follow from the policy, and it can
// outlive nothing: a token that is refused never gets here.
type assertions struct {
	mark       *mark
	mu         sync.RWMutex
	young, old map[assertionKey]*callerFields
}

// mark tells the callerFields of one State from those of another without keeping
// the other in memory.
type mark struct{ _ byte }

// assertionKey names the token by the Principal that it proved: one for a token,
// shared by all its requests.
type assertionKey struct {
	principal *identity.Principal
	audience  string
}

// callerFields are field lines for one audience, and when to make them anew.
type callerFields struct {
	of       *mark
	audience string
	renew    time.Time
	lines    []byte
	// room is where most lines are: with thousands of callers, memory is waited for
	// by the piece. It fills up what the allocator gives.
	room [1024 - 72]byte
}

// maxAssertions bounds one of the two generations; about 2 kB each.
const maxAssertions = 16384

func newAssertions() *assertions {
	return &assertions{mark: &mark{}, young: map[assertionKey]*callerFields{}}
}

// fields returns the lines that tell an upstream who p is. The Principal keeps
// those that were asked for last, and most callers need no others.
func (a *assertions) fields(s *State, p *identity.Principal, audience string, now time.Time) ([]byte, error) {
	if f, ok := p.Kept.Load().(*callerFields); ok && f.of == a.mark && f.audience == audience && now.Before(f.renew) {
		return f.lines, nil
	}
	f, err := a.find(s, assertionKey{p, audience}, now)
	if err != nil {
		return nil, err
	}
	p.Kept.Store(f)
	return f.lines, nil
}

// find looks the lines up, or makes them. Assertions are renewed after 80 % of
// their life, so that an upstream never gets one that is about to end.
func (a *assertions) find(s *State, key assertionKey, now time.Time) (*callerFields, error) {
	a.mu.RLock()
	f, ok := a.young[key]
	if !ok {
		f, ok = a.old[key]
	}
	a.mu.RUnlock()
	if ok && now.Before(f.renew) {
		return f, nil
	}
	p := key.principal
	permissions := s.policy.Permissions(p.Roles)
	assertion, expires, err := s.identity.Tokens().Assert(p, key.audience, permissions)
	if err != nil {
		return nil, err
	}
	lines := s.presets[key.audience].caller(p, permissions, assertion)
	f = &callerFields{of: a.mark, audience: key.audience, renew: now.Add(expires.Sub(now) * 8 / 10)}
	f.lines = append(f.room[:0], lines...)
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.young) >= maxAssertions {
		a.old, a.young = a.young, map[assertionKey]*callerFields{}
	}
	a.young[key] = f
	return f, nil
}

// appendCaller writes the fields of the contract, "What an upstream receives".
func appendCaller(dst []byte, p *identity.Principal, permissions []string, assertion string) []byte {
	dst = appendField(dst, fieldUserID, p.UserID)
	dst = appendField(dst, fieldUserName, p.Username)
	dst = appendKnown(dst, fieldUserEmail, p.Email)
	dst = appendField(dst, fieldUserRoles, strings.Join(p.Roles, ","))
	dst = appendField(dst, fieldUserPermissions, strings.Join(permissions, ","))
	dst = appendKnown(dst, fieldUserTenant, p.Tenant)
	dst = appendKnown(dst, fieldSessionID, p.SessionID) // foreign callers have none
	return appendField(dst, fieldAssertion, assertion)
}

// appendField writes one field line. A value that could end the line was refused
// where it was chosen; should one get here, it says nothing rather than a second
// field.
func appendField(dst []byte, name, value string) []byte {
	if !plain(value) {
		value = ""
	}
	dst = append(dst, name...)
	dst = append(dst, ": "...)
	dst = append(dst, value...)
	return append(dst, "\r\n"...)
}
