package identity

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/google/uuid"
)

// Why a token is not believed. They are told apart for the log; to the client
// all but ErrRevocationsStale are one answer.
var (
	ErrTokenInvalid = errors.New("invalid token")
	ErrTokenExpired = errors.New("token expired")
	ErrTokenRevoked = errors.New("token revoked")
	// ErrRevocationsStale means that the token would be fine, but the store
	// could not be asked for revocations for longer than the operator accepts.
	ErrRevocationsStale = errors.New("revocations are out of date")
)

// The values of the typ header (RFC 7515 §4.1.9) keep tokens apart that are
// signed with the same key: what proves a caller to an upstream must not open
// the gateway.
const (
	typAccess    = "at+jwt" // RFC 9068
	typAssertion = "identity-assertion+jwt"
)

// AssertionTTL is the lifetime of an identity assertion.
const AssertionTTL = 5 * time.Minute

const (
	maxTokenBytes = 8 << 10
	// clockSkew is how far the clock of the replica that issued a token may be
	// ahead of ours. It never prolongs a token.
	clockSkew = 5 * time.Second
)

// accessClaims is what an access token says. Field names follow RFC 9068 and
// OpenID Connect where they have one.
type accessClaims struct {
	jwt.RegisteredClaims
	SessionID     string   `json:"sid"`
	Username      string   `json:"preferred_username"`
	Email         string   `json:"email"`
	EmailVerified bool     `json:"email_verified"`
	Roles         []string `json:"roles"`
	Permissions   []string `json:"permissions"`
	Tenant        string   `json:"tenant,omitempty"`
	Epoch         int64    `json:"epoch"`
}

// assertionClaims is what the gateway tells an upstream.
type assertionClaims struct {
	jwt.RegisteredClaims
	SessionID     string   `json:"sid"`
	Username      string   `json:"name"`
	Email         string   `json:"email"`
	EmailVerified bool     `json:"email_verified"`
	Roles         []string `json:"roles"`
	Permissions   []string `json:"permissions"`
	Tenant        string   `json:"tenant,omitempty"`
}

// TokensConfig says how tokens are made and whom they are for.
type TokensConfig struct {
	Issuer    string
	Audience  string
	AccessTTL time.Duration
	Now       func() time.Time // nil: time.Now
}

// Tokens issues and verifies signed tokens.
type Tokens struct {
	cfg         TokensConfig
	trust       atomic.Pointer[trust]
	parser      *jwt.Parser
	revocations *Revocations
}

// trust is a set of keys with what they have verified. The two are replaced
// together: a token that is being verified while a key is withdrawn must not be
// remembered afterwards.
type trust struct {
	keys     *Keyring
	verified *generations[*Principal]
}

// NewTokens returns Tokens that sign with keys and ask revocations.
func NewTokens(cfg TokensConfig, keys *Keyring, revocations *Revocations) *Tokens {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	t := &Tokens{cfg: cfg, revocations: revocations}
	t.SetKeys(keys)
	t.parser = jwt.NewParser(
		jwt.WithValidMethods([]string{string(EdDSA), string(ES256), string(RS256), string(HS256)}),
		jwt.WithIssuer(cfg.Issuer),
		jwt.WithAudience(cfg.Audience),
		jwt.WithExpirationRequired(),
		jwt.WithIssuedAt(),
		jwt.WithLeeway(clockSkew),
		jwt.WithStrictDecoding(),
		jwt.WithTimeFunc(cfg.Now),
	)
	return t
}

// SetKeys replaces the keys, and reports whether they are others. What was signed
// with a key that is no longer there stops being valid. The same keys again change
// nothing: what was verified need not be verified anew.
func (t *Tokens) SetKeys(keys *Keyring) (changed bool) {
	if trust := t.trust.Load(); trust != nil && trust.keys.equal(keys) {
		return false
	}
	t.trust.Store(&trust{keys, newGenerations[*Principal](verifiedTokens)})
	return true
}

// JWKS is the document with the current public keys (RFC 7517).
func (t *Tokens) JWKS() []byte { return t.trust.Load().keys.jwks(t.cfg.Now(), t.signed()) }

// signed is how long what the keys sign is valid.
func (t *Tokens) signed() time.Duration { return Lifetimes{Access: t.cfg.AccessTTL}.signed() }

// AccessTTL is the lifetime of an access token.
func (t *Tokens) AccessTTL() time.Duration { return t.cfg.AccessTTL }

// Issue signs an access token for a session of u. It fails for a token larger
// than Verify takes: the user has more roles and permissions than fit.
func (t *Tokens) Issue(u User, sessionID string, permissions []string) (string, error) {
	now := t.cfg.Now()
	token, err := sign(t.trust.Load().keys.client(now), typAccess, accessClaims{
		RegisteredClaims: jwt.RegisteredClaims{
			Issuer:    t.cfg.Issuer,
			Audience:  jwt.ClaimStrings{t.cfg.Audience},
			Subject:   u.ID,
			ID:        uuid.NewString(),
			IssuedAt:  jwt.NewNumericDate(now),
			NotBefore: jwt.NewNumericDate(now),
			ExpiresAt: jwt.NewNumericDate(now.Add(t.cfg.AccessTTL)),
		},
		SessionID:     sessionID,
		Username:      u.Username,
		Email:         u.Email,
		EmailVerified: u.EmailVerified,
		Roles:         notNil(u.Roles),
		Permissions:   notNil(permissions),
		Tenant:        u.Tenant,
		Epoch:         u.Epoch,
	})
	if err == nil && len(token) > maxTokenBytes {
		return "", fmt.Errorf("access token of user %s would have %d bytes, and %d are accepted", u.ID, len(token), maxTokenBytes)
	}
	return token, err
}

// Assert signs what an upstream named audience may believe about p, and returns
// it with its expiry, which is never later than the end of the caller's token.
func (t *Tokens) Assert(p *Principal, audience string, permissions []string) (string, time.Time, error) {
	now := t.cfg.Now()
	expires := now.Add(AssertionTTL)
	if p.ExpiresAt.Before(expires) {
		expires = p.ExpiresAt
	}
	signed, err := sign(t.trust.Load().keys.assertion(now), typAssertion, assertionClaims{
		RegisteredClaims: jwt.RegisteredClaims{
			Issuer:    t.cfg.Issuer,
			Audience:  jwt.ClaimStrings{audience},
			Subject:   p.UserID,
			IssuedAt:  jwt.NewNumericDate(now),
			ExpiresAt: jwt.NewNumericDate(expires),
		},
		SessionID:     p.SessionID,
		Username:      p.Username,
		Email:         p.Email,
		EmailVerified: p.EmailVerified,
		Roles:         notNil(p.Roles),
		Permissions:   notNil(permissions),
		Tenant:        p.Tenant,
	})
	return signed, expires, err
}

// Verify returns the caller that an access token proves. What the signature
// proves is remembered for the token's exact bytes; expiry and revocation are
// asked every time. token may be overwritten after the call.
func (t *Tokens) Verify(token []byte) (*Principal, error) { return t.verify(token, t.cfg.Now()) }

func (t *Tokens) verify(token []byte, now time.Time) (*Principal, error) {
	trust := t.trust.Load()
	p, ok := trust.verified.get(token)
	if !ok {
		proved, err := t.parse(token, trust.keys)
		if err != nil {
			return nil, err
		}
		var key string
		key, p = together(token, proved)
		trust.verified.put(key, p)
	}
	return t.live(p, now)
}

// live returns p if neither time nor anybody has ended what its token proves.
func (t *Tokens) live(p *Principal, now time.Time) (*Principal, error) {
	if !now.Before(p.ExpiresAt) {
		return nil, ErrTokenExpired
	} else if err := t.revocations.Check(p, now); err != nil {
		return nil, err
	}
	return p, nil
}

// wellFormed refuses what must not get to a decoder.
func wellFormed(token []byte) error {
	if len(token) > maxTokenBytes {
		return fmt.Errorf("%w: %d bytes", ErrTokenInvalid, len(token))
	}
	if bytes.ContainsAny(token, "\r\n") { // base64 decoders skip them, even strict ones
		return fmt.Errorf("%w: line breaks", ErrTokenInvalid)
	}
	return nil
}

// parse verifies a token from nothing.
func (t *Tokens) parse(token []byte, keys *Keyring) (*Principal, error) {
	if err := wellFormed(token); err != nil {
		return nil, err
	}
	var c accessClaims
	if _, err := t.parser.ParseWithClaims(string(token), &c, func(token *jwt.Token) (any, error) { return t.verificationKey(token, keys) }); err != nil {
		if errors.Is(err, jwt.ErrTokenExpired) {
			return nil, ErrTokenExpired
		}
		return nil, fmt.Errorf("%w: %w", ErrTokenInvalid, err)
	}
	// The library holds these to be optional; RFC 9068 and we do not.
	if c.ExpiresAt.Unix() <= 0 || c.IssuedAt == nil || c.Subject == "" || c.SessionID == "" ||
		c.ExpiresAt.Sub(c.IssuedAt.Time) > t.cfg.AccessTTL+clockSkew {
		return nil, fmt.Errorf("%w: claims are missing or out of bounds", ErrTokenInvalid)
	}
	return &Principal{
		UserID:        c.Subject,
		Username:      c.Username,
		Email:         c.Email,
		EmailVerified: c.EmailVerified,
		Roles:         slices.Clip(c.Roles),
		Permissions:   slices.Clip(c.Permissions),
		Tenant:        c.Tenant,
		SessionID:     c.SessionID,
		Epoch:         c.Epoch,
		IssuedAt:      c.IssuedAt.Time,
		ExpiresAt:     c.ExpiresAt.Time,
	}, nil
}

// verificationKey chooses the key that a token's header names and insists that
// the header names the key's own algorithm and our kind of token.
func (t *Tokens) verificationKey(token *jwt.Token, keys *Keyring) (any, error) {
	if typ, _ := token.Header["typ"].(string); typ != typAccess {
		return nil, errors.New("not an access token")
	}
	if _, ok := token.Header["crit"]; ok {
		return nil, errors.New("critical header parameters are not understood") // RFC 7515 §4.1.11
	}
	kid, _ := token.Header["kid"].(string)
	key, err := keys.verifier(kid, t.cfg.Now(), t.signed())
	if err != nil {
		return nil, err
	}
	if token.Method.Alg() != string(key.alg) {
		return nil, errors.New("algorithm is not the key's")
	}
	return key.public, nil
}

func sign(key *signingKey, typ string, claims jwt.Claims) (string, error) {
	token := jwt.NewWithClaims(key.method(), claims)
	token.Header["typ"] = typ
	token.Header["kid"] = key.id
	signed, err := token.SignedString(key.private)
	if err != nil {
		return "", fmt.Errorf("signing a token: %w", err)
	}
	return signed, nil
}

// notNil makes the JSON of an empty list [] rather than null.
func notNil(s []string) []string {
	if s == nil {
		return []string{}
	}
	return s
}
