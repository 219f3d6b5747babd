package gateway

import (
	"bytes"
	"errors"

	"portcullis/policy"
)

// authenticate finds out who is calling, from memory. A stranger is fine; a token
// that does not hold is not.
func (r *request) authenticate(st *State) error {
	token, err := r.token(st)
	if token == nil || err != nil {
		return err
	}
	p, err := st.identity.Verify(token, r.event.start)
	if err != nil {
		return err
	}
	if r.header.cookieCaller && p.Issuer != "" {
		return refuse(codeInvalidToken, errors.New("another issuer's token in a cookie of ours"))
	}
	r.principal = p
	r.event.userID, r.event.sessionID, r.event.tenant = p.UserID, p.SessionID, p.Tenant
	return nil
}

// token is the access token that the client sent; nil if it sent none. A cookie
// only counts where there is no Authorization field.
func (r *request) token(st *State) ([]byte, error) {
	if !r.header.authorizes && r.header.cookies != nil {
		token, err := findCookie(r.header.cookies, st.cookies.name(accessCookie))
		r.header.cookieCaller = token != nil
		return token, err
	}
	if r.header.authorization == nil {
		return nil, nil
	}
	scheme, token, ok := bytes.Cut(r.header.authorization, []byte{' '})
	if !ok || !bytes.EqualFold(scheme, []byte("Bearer")) {
		return nil, refuse(codeInvalidToken, errors.New("not a Bearer token"))
	}
	return token, nil
}

// decide asks the policy. A stranger who may not is asked to sign in: whether
// there is anything behind the path is not for strangers to know.
func (g *Gateway) decide(st *State, r *request, route string) error {
	caller := policy.Caller{}
	if r.principal != nil {
		caller = policy.Caller{Authenticated: true, Roles: r.principal.Roles}
	}
	allowed := g.allows(st, r, route, caller)
	var cause error
	if allowed && r.hasDestination() {
		var err error
		cause = errDestinationDenied
		if allowed, err = g.askDestination(st, r, caller); err != nil {
			return err
		}
	}
	switch {
	case allowed:
		return nil
	case r.principal == nil:
		return refuse(codeUnauthenticated, cause)
	}
	return refuse(codeForbidden, cause)
}

// allows asks the policy about the request's path, and tells everybody who listens.
func (g *Gateway) allows(st *State, r *request, route string, caller policy.Caller) (allowed bool) {
	d := st.policy.Decide(caller, r.method, r.path)
	r.event.rule = d.Rule
	st.hits.Count(d)
	if g.decisions != nil {
		g.decisions.note(st, r, route, caller, d)
	}
	if st.shadow != nil {
		st.shadow.ask(r, caller, d)
	}
	return d.Allowed
}
