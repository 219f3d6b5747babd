package identity

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/golang-jwt/jwt/v5"
)

// ErrIssuerUnavailable means that the issuer's keys are not known yet: nothing is
// known about the token.
var ErrIssuerUnavailable = errors.New("the issuer's keys cannot be had")

// IssuerConfig is somebody else whose tokens are believed.
type IssuerConfig struct {
	Name   string // of the issuer here: its users are NAME:sub
	Issuer string // the iss claim, byte by byte
	// JWKSURL is where its keys are (RFC 7517).
	JWKSURL    string
	CA         []byte   // certificates to believe there, in PEM; nil: the system's
	Audience   string   // one of the aud claim
	Algorithms []string // asymmetric ones of JWS

	// The claims are names, or JSON Pointers (RFC 6901) to nested ones: /realm_access/roles.
	RolesClaim    string
	Roles         map[string]string // theirs → ours; what is not there is no role
	UsernameClaim string            // "": users are named as their id
	EmailClaim    string            // counts with email_verified alone
	Tenant        string

	ClockSkew time.Duration // how far the issuer's clock may be ahead
	MaxTTL    time.Duration // tokens that are valid for longer are refused
	Refresh   time.Duration // between two looks at the keys
}

const (
	// foreignSeparator is in no id and no username of ours.
	foreignSeparator = ":"
	// maxUserID is what upstreams and stores take for an id, in bytes.
	maxUserID = 255
)

// typs are the typ headers of an issuer's access and id tokens. Ours for
// assertions is not among them, so that those of another gateway open nothing.
func typs() []string { return []string{"", "jwt", "at+jwt", "application/at+jwt"} }

// issuer verifies the tokens of one issuer.
type issuer struct {
	IssuerConfig
	keys   *keySource
	parser *jwt.Parser
	now    func() time.Time
}

func newIssuer(cfg IssuerConfig, keys *keySource, now func() time.Time) *issuer {
	return &issuer{IssuerConfig: cfg, keys: keys, now: now, parser: jwt.NewParser(
		jwt.WithValidMethods(cfg.Algorithms),
		jwt.WithIssuer(cfg.Issuer),
		jwt.WithAudience(cfg.Audience),
		jwt.WithExpirationRequired(),
		jwt.WithIssuedAt(),
		jwt.WithLeeway(cfg.ClockSkew),
		jwt.WithStrictDecoding(),
		jwt.WithTimeFunc(now),
	)}
}

// verify returns the caller that a token of this issuer proves. It waits for
// nobody: a key that is not known is asked for in the background.
func (i *issuer) verify(token []byte) (*Principal, error) {
	keys := i.keys.current.Load()
	if keys == nil {
		return nil, fmt.Errorf("%w: %s", ErrIssuerUnavailable, i.Name)
	}
	p, err := i.parse(token, keys)
	if err != nil {
		return nil, err
	}
	key, p := together(token, p)
	keys.verified.put(key, p)
	return p, nil
}

func (i *issuer) parse(token []byte, keys *issuerKeys) (*Principal, error) {
	claims := jwt.MapClaims{}
	if _, err := i.parser.ParseWithClaims(string(token), claims, func(t *jwt.Token) (any, error) { return i.verificationKey(t, keys) }); err != nil {
		if errors.Is(err, jwt.ErrTokenExpired) {
			return nil, ErrTokenExpired
		}
		return nil, fmt.Errorf("%w of %s: %w", ErrTokenInvalid, i.Name, err)
	}
	expires, err := claims.GetExpirationTime()
	switch {
	case err != nil || expires == nil || expires.Unix() <= 0 || expires.Sub(i.now()) > i.MaxTTL+i.ClockSkew:
		return nil, fmt.Errorf("%w of %s: exp is out of bounds", ErrTokenInvalid, i.Name)
	case claims["events"] != nil: // a logout token (OpenID Connect Back-Channel Logout §2.4)
		return nil, fmt.Errorf("%w of %s: a security event", ErrTokenInvalid, i.Name)
	}
	sub, _ := claims["sub"].(string)
	if !validSubject(sub) || len(i.Name)+len(foreignSeparator)+len(sub) > maxUserID {
		return nil, fmt.Errorf("%w of %s: sub is not 1 to 255 visible ASCII characters", ErrTokenInvalid, i.Name)
	}
	p := &Principal{Issuer: i.Name, UserID: i.Name + foreignSeparator + sub, Tenant: i.Tenant, Roles: i.roles(claims), ExpiresAt: expires.Time}
	if p.Username = p.UserID; i.UsernameClaim != "" {
		if name := text(claims, i.UsernameClaim); name != "" {
			p.Username = name
		}
	}
	if verified := claims["email_verified"]; verified == true || verified == "true" {
		// What is not one address, such as a@evil.example@acme.example, has more readings than one.
		if _, err := parseEmail(text(claims, i.EmailClaim)); err == nil {
			p.Email, p.EmailVerified = text(claims, i.EmailClaim), true
		}
	}
	if issued, err := claims.GetIssuedAt(); err == nil && issued != nil {
		p.IssuedAt = issued.Time
		p.Epoch = issued.Unix() // what a revocation is compared with; 0 is before any
	}
	return p, nil
}

// verificationKey chooses the key that a token's header names, if the token's
// algorithm is the key's. What else a header may say of keys (jku, jwk, x5u, x5c)
// is the word of whoever made the token.
func (i *issuer) verificationKey(token *jwt.Token, keys *issuerKeys) (any, error) {
	typ, isText := token.Header["typ"].(string)
	if _, there := token.Header["typ"]; there != isText || !slices.Contains(typs(), strings.ToLower(typ)) {
		return nil, errors.New("not an access token")
	}
	if _, ok := token.Header["crit"]; ok {
		return nil, errors.New("critical header parameters are not understood") // RFC 7515 §4.1.11
	}
	kid, _ := token.Header["kid"].(string)
	key, ok := keys.byID[kid]
	if !ok {
		i.keys.ask()
		return nil, errors.New("unknown key")
	}
	if !key.fits(token.Method.Alg()) {
		return nil, errors.New("algorithm is not the key's")
	}
	return key.public, nil
}

// roles translates the issuer's roles: a list, or one text with spaces between them.
func (i *issuer) roles(claims jwt.MapClaims) []string {
	var theirs []string
	switch v := claim(claims, i.RolesClaim).(type) {
	case string:
		theirs = strings.Fields(v)
	case []any:
		for _, r := range v {
			if r, ok := r.(string); ok {
				theirs = append(theirs, r)
			}
		}
	}
	ours := map[string]bool{}
	for _, r := range theirs {
		if role, ok := i.Roles[r]; ok {
			ours[role] = true
		}
	}
	return slices.Sorted(maps.Keys(ours))
}

// claim returns a claim by its name, or by a JSON Pointer to it.
func claim(claims jwt.MapClaims, name string) any {
	if !strings.HasPrefix(name, "/") {
		return claims[name]
	}
	var v any = map[string]any(claims)
	for step := range strings.SplitSeq(name[1:], "/") {
		members, ok := v.(map[string]any)
		if !ok {
			return nil
		}
		v = members[strings.NewReplacer("~1", "/", "~0", "~").Replace(step)]
	}
	return v
}

// text returns a claim that can be a header's value; "" for any other.
func text(claims jwt.MapClaims, name string) string {
	s, _ := claim(claims, name).(string)
	if len(s) > 255 || !utf8.ValidString(s) || strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsGraphic(r) }) || strings.TrimSpace(s) != s {
		return ""
	}
	return s
}

// validSubject accepts what OpenID Connect Core §2 says of a subject, as far as it
// can stand in a header field and a log.
func validSubject(s string) bool {
	return len(s) > 0 && len(s) <= 255 && !strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r >= 0x7f })
}

// unverifiedIssuer reads who a token says it is from. It decides whose keys are
// asked, and nothing else.
func unverifiedIssuer(token []byte) string {
	_, rest, _ := bytes.Cut(token, []byte{'.'})
	payload, _, _ := bytes.Cut(rest, []byte{'.'})
	decoded, err := base64.RawURLEncoding.AppendDecode(nil, payload)
	if err != nil {
		return ""
	}
	var claims struct {
		Issuer string `json:"iss"`
	}
	if json.Unmarshal(decoded, &claims) != nil {
		return ""
	}
	return claims.Issuer
}
