package upstream

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"sync"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

const (
	assertionHeader = "X-Identity-Assertion"
	// assertionType is the header parameter typ of an assertion. A client's
	// access token is signed with the same keys: this is what tells them apart.
	assertionType = "identity-assertion+jwt"

	maxAssertionBytes    = 16 << 10
	maxAssertionLifetime = 5 * time.Minute
	maxNameBytes         = 255 // of a subject or tenant
	// clockSkew is how far ahead of ours the issuer's clock may be. What has
	// expired by our clock has expired.
	clockSkew = 10 * time.Second

	maxVerified = 4096
)

var (
	// ErrNoAssertion means that a request carries no identity assertion.
	ErrNoAssertion = errors.New("no identity assertion")
	// ErrInvalidAssertion means that it carries one that proves nothing.
	ErrInvalidAssertion = errors.New("invalid identity assertion")
)

// Identity is who is calling, as the gateway has signed it. Its slices are
// shared between requests and must not be changed.
type Identity struct {
	Subject     string // the user's ID; never empty
	SessionID   string
	Name        string
	Email       string
	Roles       []string
	Permissions []string
	Tenant      string // "" is the default tenant
	ExpiresAt   time.Time
}

// HasRole reports whether the caller has the role.
func (id Identity) HasRole(role string) bool { return slices.Contains(id.Roles, role) }

// Verifier finds out who is calling from a request's identity assertion, a
// compact JWS (RFC 7515) with the claims of a JWT (RFC 7519). It is safe for
// concurrent use.
type Verifier struct {
	parser   *jwt.Parser
	keys     *keySource
	now      func() time.Time
	verified verifiedCache
}

// VerifierConfig says whose assertions are believed.
type VerifierConfig struct {
	JWKS     string // the URL of the issuer's key set
	Issuer   string // the claim iss, exactly
	Audience string // one of the claim aud: this service's name at the gateway
}

// NewVerifier returns a Verifier. It does not fetch the keys yet: the gateway
// may start later than the services behind it.
func NewVerifier(c VerifierConfig, log *slog.Logger) (*Verifier, error) {
	var errs []error
	if u, err := url.Parse(c.JWKS); err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		errs = append(errs, errors.New("the address of the key set must be an http or https URL"))
	}
	// The parser takes an empty expectation for none.
	if c.Issuer == "" {
		errs = append(errs, errors.New("the issuer must not be empty"))
	}
	if c.Audience == "" {
		errs = append(errs, errors.New("the audience must not be empty"))
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	v := &Verifier{keys: newKeySource(c.JWKS, log), now: time.Now}
	v.parser = jwt.NewParser(
		jwt.WithValidMethods([]string{
			jwt.SigningMethodEdDSA.Alg(), jwt.SigningMethodES256.Alg(), jwt.SigningMethodRS256.Alg(),
		}),
		jwt.WithStrictDecoding(), // else one signature has several spellings
		jwt.WithIssuer(c.Issuer),
		jwt.WithAudience(c.Audience),
		jwt.WithExpirationRequired(),
		jwt.WithIssuedAt(), // a lifetime that begins in the future would last until then
		jwt.WithLeeway(clockSkew),
		jwt.WithTimeFunc(func() time.Time { return v.now() }),
	)
	return v, nil
}

// Verify returns who sent a request with these header fields. The errors are
// ErrNoAssertion, ErrInvalidAssertion and ErrKeysUnavailable; their text holds
// nothing of the assertion's.
func (v *Verifier) Verify(ctx context.Context, h http.Header) (Identity, error) {
	fields := h.Values(assertionHeader)
	switch {
	case len(fields) == 0:
		return Identity{}, ErrNoAssertion
	case len(fields) > 1:
		return Identity{}, fmt.Errorf("%w: more than one header field", ErrInvalidAssertion)
	case len(fields[0]) > maxAssertionBytes:
		return Identity{}, fmt.Errorf("%w: longer than %d bytes", ErrInvalidAssertion, maxAssertionBytes)
	}
	assertion := fields[0]
	if id, ok := v.verified.get(assertion, v.now()); ok {
		return id, nil
	}
	id, err := v.verify(ctx, assertion)
	if err != nil {
		return Identity{}, err
	}
	v.verified.put(assertion, id)
	return id, nil
}

type assertionClaims struct {
	jwt.RegisteredClaims
	SessionID   string   `json:"sid"`
	Name        string   `json:"name"`
	Email       string   `json:"email"`
	Roles       []string `json:"roles"`
	Permissions []string `json:"permissions"`
	Tenant      string   `json:"tenant"`
}

func (v *Verifier) verify(ctx context.Context, assertion string) (Identity, error) {
	var c assertionClaims
	_, err := v.parser.ParseWithClaims(assertion, &c, func(t *jwt.Token) (any, error) {
		if err := checkJOSEHeader(t.Header); err != nil {
			return nil, err
		}
		return v.keys.key(ctx, t)
	})
	if err != nil {
		return Identity{}, assertionError(err)
	}
	if err := c.check(v.now()); err != nil {
		return Identity{}, err
	}
	return Identity{
		Subject:     c.Subject,
		SessionID:   c.SessionID,
		Name:        c.Name,
		Email:       c.Email,
		Roles:       c.Roles,
		Permissions: c.Permissions,
		Tenant:      c.Tenant,
		ExpiresAt:   c.ExpiresAt.Time,
	}, nil
}

// checkJOSEHeader checks what the parser leaves to its callers, before a key is looked for.
func checkJOSEHeader(h map[string]any) error {
	if h["typ"] != assertionType {
		return fmt.Errorf("%w: its type is not %s", ErrInvalidAssertion, assertionType)
	}
	// crit lists extensions that must be understood (RFC 7515, 4.1.11); we know none.
	if _, ok := h["crit"]; ok {
		return fmt.Errorf("%w: it has critical extensions", ErrInvalidAssertion)
	}
	if kid, _ := h["kid"].(string); kid == "" {
		return fmt.Errorf("%w: it names no key", ErrInvalidAssertion)
	}
	return nil
}

// check looks at what the parser does not, or not strictly enough.
func (c *assertionClaims) check(now time.Time) error {
	switch {
	case c.IssuedAt == nil:
		return fmt.Errorf("%w: no iat", ErrInvalidAssertion)
	case !now.Before(c.ExpiresAt.Time):
		return fmt.Errorf("%w: %w", ErrInvalidAssertion, jwt.ErrTokenExpired)
	case c.ExpiresAt.Sub(c.IssuedAt.Time) > maxAssertionLifetime:
		return fmt.Errorf("%w: it lives longer than %v", ErrInvalidAssertion, maxAssertionLifetime)
	case c.Subject == "":
		return fmt.Errorf("%w: no sub", ErrInvalidAssertion)
	case len(c.Subject) > maxNameBytes || len(c.Tenant) > maxNameBytes:
		return fmt.Errorf("%w: sub or tenant longer than %d bytes", ErrInvalidAssertion, maxNameBytes)
	}
	return nil
}

// assertionError keeps the reason and leaves the parser's text behind, which can
// quote what a stranger wrote.
func assertionError(err error) error {
	if errors.Is(err, ErrKeysUnavailable) || errors.Is(err, ErrInvalidAssertion) {
		return err
	}
	for _, reason := range []error{
		jwt.ErrTokenMalformed, jwt.ErrTokenSignatureInvalid, jwt.ErrTokenRequiredClaimMissing, jwt.ErrTokenExpired,
		jwt.ErrTokenNotValidYet, jwt.ErrTokenUsedBeforeIssued, jwt.ErrTokenInvalidIssuer, jwt.ErrTokenInvalidAudience,
	} {
		if errors.Is(err, reason) {
			return fmt.Errorf("%w: %w", ErrInvalidAssertion, reason)
		}
	}
	return fmt.Errorf("%w: %w", ErrInvalidAssertion, jwt.ErrTokenUnverifiable)
}

// verifiedCache remembers what verification has proved, because the gateway
// sends one assertion with many requests. Its keys are whole assertions, so that
// nothing but the very same bytes is believed. Strangers cannot fill it: only what
// has been verified gets in. The zero value is ready.
type verifiedCache struct {
	mu sync.RWMutex
	m  map[string]Identity
}

func (c *verifiedCache) get(assertion string, now time.Time) (Identity, bool) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	id, ok := c.m[assertion]
	if !ok || !now.Before(id.ExpiresAt) {
		return Identity{}, false
	}
	return id, true
}

func (c *verifiedCache) put(assertion string, id Identity) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.m == nil {
		c.m = make(map[string]Identity)
	}
	// Whichever entry goes, expired or not: at worst it is verified once more.
	for other := range c.m {
		if len(c.m) < maxVerified {
			break
		}
		delete(c.m, other)
	}
	c.m[assertion] = id
}
