package identity

import (
	"strings"
	"sync/atomic"
	"time"
)

// Principal is a caller who has proved who they are. It is shared by all
// requests that carry the same token and must not be changed.
type Principal struct {
	Issuer        string // "" is ourselves; else the name of an issuer we trust, and there is no session
	UserID        string
	SessionID     string
	Tenant        string
	Roles         []string
	Epoch         int64
	IssuedAt      time.Time
	ExpiresAt     time.Time
	Username      string
	Email         string
	EmailVerified bool
	Permissions   []string // as of the token's issue

	// Kept may be set by whoever serves the caller's requests, and holds what was
	// made of the Principal for one of them and is good for the next. It is found
	// without being looked for, and is forgotten with the token.
	Kept atomic.Value
}

// verified is a Principal with room for its roles.
type verified struct {
	Principal
	roles [4]string
}

// together makes of a token and the Principal that it proves what is remembered
// of them: two pieces of memory, one of them text and nothing else. With thousands
// of callers neither is in the processor's caches when the next request needs it,
// and it is by pieces that memory is waited for.
func together(token []byte, p *Principal) (string, *Principal) {
	v := &verified{Principal: Principal{
		Issuer: p.Issuer, UserID: p.UserID, SessionID: p.SessionID, Tenant: p.Tenant,
		Epoch: p.Epoch, IssuedAt: p.IssuedAt, ExpiresAt: p.ExpiresAt,
		Username: p.Username, Email: p.Email, EmailVerified: p.EmailVerified,
		Permissions: append([]string(nil), p.Permissions...),
	}}
	v.Roles = append(v.roles[:0], p.Roles...)
	// What each request needs comes first.
	texts := make([]*string, 0, 16)
	for i := range v.Roles {
		texts = append(texts, &v.Roles[i])
	}
	texts = append(texts, &v.UserID, &v.SessionID, &v.Tenant, &v.Issuer, &v.Username, &v.Email)
	for i := range v.Permissions {
		texts = append(texts, &v.Permissions[i])
	}
	size := len(token)
	for _, text := range texts {
		size += len(*text)
	}
	var b strings.Builder
	b.Grow(size)
	b.Write(token)
	for _, text := range texts {
		b.WriteString(*text)
	}
	all := b.String()
	rest := all[len(token):]
	for _, text := range texts {
		*text, rest = rest[:len(*text)], rest[len(*text):]
	}
	return all[:len(token)], &v.Principal
}
