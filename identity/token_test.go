package identity

import (
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// testTokens is Tokens with a clock, and with what a forger would like to have.
type testTokens struct {
	*Tokens
	keys *Keyring
	now  time.Time
}

func newTestTokens(t *testing.T, alg Algorithm) *testTokens {
	t.Helper()
	keys, err := OpenKeyring(t.TempDir(), alg)
	if err != nil {
		t.Fatal(err)
	}
	tt := &testTokens{keys: keys, now: time.Date(2030, 1, 1, 12, 0, 0, 0, time.UTC)}
	cfg := TokensConfig{Issuer: "https://id.example", Audience: "api", AccessTTL: 15 * time.Minute, Now: func() time.Time { return tt.now }}
	tt.Tokens = NewTokens(cfg, keys, NewRevocations(RevocationConfig{}, nil, slog.New(slog.DiscardHandler)))
	return tt
}

func testUser() User {
	return User{ID: newID(), Username: "ana", Email: "ana@example.com", EmailVerified: true, Roles: []string{"user"}, Tenant: "acme", Epoch: 3}
}

func (tt *testTokens) issue(t *testing.T) string {
	t.Helper()
	token, err := tt.Issue(testUser(), newID(), []string{"tasks.read"})
	if err != nil {
		t.Fatal(err)
	}
	return token
}

// claims are those of a good token, for a forger to change.
func (tt *testTokens) claims() map[string]any {
	return map[string]any{
		"iss": "https://id.example", "aud": "api", "sub": newID(), "sid": newID(),
		"iat": tt.now.Unix(), "exp": tt.now.Add(10 * time.Minute).Unix(), "roles": []string{"admin"}, "epoch": 3,
	}
}

func (tt *testTokens) header() map[string]any {
	return map[string]any{"alg": string(tt.keys.client(tt.now).alg), "typ": typAccess, "kid": tt.keys.client(tt.now).id}
}

// forge signs any header and claims with the gateway's own key, or with another.
func (tt *testTokens) forge(t *testing.T, header, claims any, key any) string {
	t.Helper()
	if key == nil {
		key = tt.keys.client(tt.now).private
	}
	part := func(v any) string {
		b, ok := v.([]byte)
		if !ok {
			var err error
			if b, err = json.Marshal(v); err != nil {
				t.Fatal(err)
			}
		}
		return base64.RawURLEncoding.EncodeToString(b)
	}
	text := part(header) + "." + part(claims)
	var signature []byte
	switch k := key.(type) {
	case ed25519.PrivateKey:
		signature = ed25519.Sign(k, []byte(text))
	case []byte:
		mac := hmac.New(sha256.New, k)
		mac.Write([]byte(text))
		signature = mac.Sum(nil)
	default:
		var err error
		if signature, err = tt.keys.client(tt.now).method().Sign(text, key); err != nil {
			t.Fatal(err)
		}
	}
	return text + "." + base64.RawURLEncoding.EncodeToString(signature)
}

func TestTokenSaysWhoTheCallerIs(t *testing.T) {
	for _, alg := range []Algorithm{EdDSA, ES256, RS256, HS256} {
		t.Run(string(alg), func(t *testing.T) {
			t.Parallel()
			tt := newTestTokens(t, alg)
			u, sid := testUser(), newID()
			token, err := tt.Issue(u, sid, []string{"tasks.read"})
			if err != nil {
				t.Fatal(err)
			}
			for range 2 { // from nothing, and from the cache
				p, err := tt.Verify([]byte(token))
				if err != nil {
					t.Fatal(err)
				}
				if p.UserID != u.ID || p.SessionID != sid || p.Username != "ana" || p.Email != "ana@example.com" || !p.EmailVerified ||
					p.Tenant != "acme" || p.Epoch != 3 || !slices.Equal(p.Roles, []string{"user"}) ||
					!slices.Equal(p.Permissions, []string{"tasks.read"}) || !p.ExpiresAt.Equal(tt.now.Add(15*time.Minute)) {
					t.Errorf("%+v", p)
				}
			}
		})
	}
}

// The clean forgery must pass, or the others would prove nothing.
func TestForgedTokensAreRefused(t *testing.T) {
	tt := newTestTokens(t, EdDSA)
	otherKey, err := generateKey(t.TempDir(), EdDSA, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tt.Verify([]byte(tt.forge(t, tt.header(), tt.claims(), nil))); err != nil {
		t.Fatalf("a token like ours is refused: %v", err)
	}
	with := func(m map[string]any, key string, value any) map[string]any {
		if value == nil {
			delete(m, key)
		} else {
			m[key] = value
		}
		return m
	}
	header := func(key string, value any) string {
		return tt.forge(t, with(tt.header(), key, value), tt.claims(), nil)
	}
	claim := func(key string, value any) string {
		return tt.forge(t, tt.header(), with(tt.claims(), key, value), nil)
	}
	public := tt.keys.client(tt.now).public.(ed25519.PublicKey)
	publicDER, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		t.Fatal(err)
	}
	publicPEM := pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: publicDER})
	hs := func(key []byte) string {
		return tt.forge(t, map[string]any{"alg": "HS256", "typ": typAccess, "kid": tt.keys.client(tt.now).id}, tt.claims(), key)
	}
	unsigned := func(alg string) string {
		token := tt.forge(t, with(tt.header(), "alg", alg), tt.claims(), nil)
		return token[:strings.LastIndexByte(token, '.')+1]
	}
	unix := func(d time.Duration) int64 { return tt.now.Add(d).Unix() }
	for name, token := range map[string]string{
		"empty":                           "",
		"not a token":                     "hello",
		"two dots":                        "..",
		"four parts":                      tt.issue(t) + ".x",
		"JSON null":                       tt.forge(t, tt.header(), []byte("null"), nil),
		"claims that are a list":          tt.forge(t, tt.header(), []byte("[]"), nil),
		"header that is a list":           tt.forge(t, []byte("[]"), tt.claims(), nil),
		"alg none":                        unsigned("none"),
		"alg None":                        unsigned("None"),
		"alg missing":                     header("alg", nil),
		"alg of another family":           header("alg", "ES256"),
		"alg of the same family":          header("alg", "HS512"),
		"alg that is a list":              header("alg", []string{"EdDSA"}),
		"HS256 keyed with the public key": hs(public),
		"HS256 keyed with its PEM":        hs(publicPEM),
		"HS256 keyed with its DER":        hs(publicDER),
		"HS256 keyed with nothing":        hs([]byte{}),
		"another key under our kid":       tt.forge(t, tt.header(), tt.claims(), otherKey.private),
		"another key under its own kid":   tt.forge(t, with(tt.header(), "kid", otherKey.id), tt.claims(), otherKey.private),
		"another key in the header":       tt.forge(t, with(with(tt.header(), "kid", nil), "jwk", map[string]string{"kty": "OKP", "crv": "Ed25519", "x": base64.RawURLEncoding.EncodeToString(otherKey.public.(ed25519.PublicKey))}), tt.claims(), otherKey.private),
		"no kid":                          header("kid", nil),
		"empty kid":                       header("kid", ""),
		"kid that is a number":            header("kid", 1),
		"kid that is a path":              header("kid", "../../../dev/null"),
		"no typ":                          header("typ", nil),
		"typ JWT":                         header("typ", "JWT"),
		"typ of an assertion":             header("typ", typAssertion),
		"typ in another case":             header("typ", "AT+JWT"),
		"typ with its full name":          header("typ", "application/at+jwt"),
		"crit":                            header("crit", []string{"exp"}),
		"empty crit":                      header("crit", []string{}),
		"crit null":                       tt.forge(t, []byte(`{"alg":"EdDSA","typ":"at+jwt","kid":"`+tt.keys.client(tt.now).id+`","crit":null}`), tt.claims(), nil),
		"another audience":                claim("aud", "tasks"),
		"no audience":                     claim("aud", nil),
		"empty audience":                  claim("aud", ""),
		"audience in another case":        claim("aud", "API"),
		"another issuer":                  claim("iss", "https://id.example.evil"),
		"no issuer":                       claim("iss", nil),
		"issuer with a slash":             claim("iss", "https://id.example/"),
		"expired":                         claim("exp", unix(-time.Second)),
		"expires now":                     claim("exp", unix(0)),
		"no expiry":                       claim("exp", nil),
		"expiry 0":                        claim("exp", 0),
		"negative expiry":                 claim("exp", -1),
		"expiry in text":                  claim("exp", "9999999999"),
		"expiry beyond all years":         claim("exp", 1e300),
		"a longer life than we give":      claim("exp", unix(16*time.Minute)),
		"a life of years":                 claim("exp", unix(24*365*10*time.Hour)),
		"no issue time":                   claim("iat", nil),
		"issued in the future":            claim("iat", unix(time.Minute)),
		"issued long ago for long":        claim("iat", 0),
		"not valid yet":                   claim("nbf", unix(time.Minute)),
		"no subject":                      claim("sub", nil),
		"empty subject":                   claim("sub", ""),
		"subject that is a number":        claim("sub", 1),
		"no session":                      claim("sid", nil),
		"roles in one text":               claim("roles", "admin"),
		"larger than any of ours":         claim("pad", strings.Repeat("x", maxTokenBytes)),
	} {
		t.Run(name, func(t *testing.T) {
			p, err := tt.Verify([]byte(token))
			if p != nil || !errors.Is(err, ErrTokenInvalid) && !errors.Is(err, ErrTokenExpired) {
				t.Errorf("%+v, %v", p, err)
			}
			if err != nil && len(token) > 40 && strings.Contains(err.Error(), token[len(token)-40:]) {
				t.Errorf("the error quotes the token: %v", err)
			}
		})
	}
}

// One token has one spelling: what is not the bytes that were issued is refused,
// even where a decoder would read the same in it.
func TestTokenInAnotherSpellingIsRefused(t *testing.T) {
	for _, alg := range []Algorithm{EdDSA, HS256} {
		tt := newTestTokens(t, alg)
		token := tt.issue(t)
		spellings := map[string]string{
			"padding":              token + "=",
			"double padding":       token + "==",
			"space before":         " " + token,
			"space after":          token + " ",
			"NUL after":            token + "\x00",
			"line break after":     token + "\n",
			"line break inside":    token[:len(token)-5] + "\r\n" + token[len(token)-5:],
			"line break in claims": strings.Replace(token, ".", ".\n", 1),
			"standard alphabet":    strings.NewReplacer("-", "+", "_", "/").Replace(token) + "+",
		}
		// 64 bytes in 86 characters leave four bits that mean nothing, 32 in 43 two.
		const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
		last := strings.IndexByte(alphabet, token[len(token)-1])
		for bit := range 2 {
			spellings["bit "+string(rune('0'+bit))+" at the end"] = token[:len(token)-1] + string(alphabet[last^(1<<bit)])
		}
		for name, s := range spellings {
			if _, err := tt.Verify([]byte(s)); !errors.Is(err, ErrTokenInvalid) {
				t.Errorf("%s, %s: %v", alg, name, err)
			}
		}
		if _, err := tt.Verify([]byte(token)); err != nil {
			t.Errorf("%s, as issued: %v", alg, err)
		}
	}
}

func TestAssertionDoesNotOpenTheGateway(t *testing.T) {
	for _, alg := range []Algorithm{EdDSA, HS256} {
		tt := newTestTokens(t, alg)
		p, err := tt.Verify([]byte(tt.issue(t)))
		if err != nil {
			t.Fatal(err)
		}
		// Even for an upstream that is called as the clients' audience is.
		assertion, _, err := tt.Assert(p, "api", nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := tt.Verify([]byte(assertion)); !errors.Is(err, ErrTokenInvalid) {
			t.Errorf("%s: %v", alg, err)
		}
	}
}

func TestAssertion(t *testing.T) {
	for _, alg := range []Algorithm{EdDSA, ES256, RS256, HS256} {
		t.Run(string(alg), func(t *testing.T) {
			t.Parallel()
			tt := newTestTokens(t, alg)
			p, err := tt.Verify([]byte(tt.issue(t)))
			if err != nil {
				t.Fatal(err)
			}
			signed, expires, err := tt.Assert(p, "tasks", []string{"tasks.read"})
			if err != nil {
				t.Fatal(err)
			}
			if !expires.Equal(tt.now.Add(AssertionTTL)) {
				t.Errorf("expires %v", expires)
			}
			var c assertionClaims
			token, err := jwt.ParseWithClaims(signed, &c, func(tok *jwt.Token) (any, error) {
				if tok.Header["typ"] != typAssertion {
					t.Errorf("typ %v", tok.Header["typ"])
				}
				return tt.keys.byID[tok.Header["kid"].(string)].public, nil
			}, jwt.WithTimeFunc(func() time.Time { return tt.now }))
			if err != nil {
				t.Fatal(err)
			}
			if token.Method.Alg() == string(HS256) {
				t.Error("an upstream that can verify this could sign it too")
			}
			if c.Issuer != "https://id.example" || !slices.Equal(c.Audience, []string{"tasks"}) || c.Subject != p.UserID || c.SessionID != p.SessionID ||
				c.Tenant != "acme" || !slices.Equal(c.Roles, []string{"user"}) || !slices.Equal(c.Permissions, []string{"tasks.read"}) {
				t.Errorf("%+v", c)
			}
		})
	}
}

// Anybody may register with any address: an upstream has to be able to tell.
func TestAssertionSaysWhetherTheAddressIsProved(t *testing.T) {
	tt := newTestTokens(t, EdDSA)
	for _, proved := range []bool{false, true} {
		p := &Principal{UserID: "u-1", Email: "root@example.com", EmailVerified: proved, ExpiresAt: tt.now.Add(time.Minute)}
		signed, _, err := tt.Assert(p, "tasks", nil)
		if err != nil {
			t.Fatal(err)
		}
		claims := jwt.MapClaims{}
		if _, _, err := jwt.NewParser().ParseUnverified(signed, claims); err != nil {
			t.Fatal(err)
		}
		if claims["email"] != p.Email || claims["email_verified"] != proved {
			t.Errorf("%v: %v", proved, claims)
		}
	}
}

func TestAssertionEndsWithTheCallersToken(t *testing.T) {
	tt := newTestTokens(t, EdDSA)
	token := []byte(tt.issue(t))
	tt.now = tt.now.Add(14 * time.Minute)
	p, err := tt.Verify(token)
	if err != nil {
		t.Fatal(err)
	}
	if _, expires, err := tt.Assert(p, "tasks", nil); err != nil || !expires.Equal(p.ExpiresAt) {
		t.Errorf("expires %v, the token %v (%v)", expires, p.ExpiresAt, err)
	}
}

func TestCachedTokenExpires(t *testing.T) {
	tt := newTestTokens(t, EdDSA)
	token := []byte(tt.issue(t))
	if _, err := tt.Verify(token); err != nil {
		t.Fatal(err)
	}
	tt.now = tt.now.Add(15*time.Minute - time.Second)
	if _, err := tt.Verify(token); err != nil {
		t.Errorf("a second before: %v", err)
	}
	tt.now = tt.now.Add(time.Second)
	if _, err := tt.Verify(token); !errors.Is(err, ErrTokenExpired) {
		t.Errorf("then: %v", err)
	}
}

// The tolerance for other clocks is for tokens from the future, never beyond the end.
func TestClockSkew(t *testing.T) {
	tt := newTestTokens(t, EdDSA)
	token := []byte(tt.issue(t))
	issued := tt.now
	tt.now = issued.Add(-clockSkew)
	if _, err := tt.Verify(token); err != nil {
		t.Errorf("from a clock that is ahead by what is tolerated: %v", err)
	}
	tt = newTestTokens(t, EdDSA)
	token = []byte(tt.issue(t))
	tt.now = issued.Add(-clockSkew - time.Second)
	if _, err := tt.Verify(token); !errors.Is(err, ErrTokenInvalid) {
		t.Errorf("from a clock that is ahead by more: %v", err)
	}
}

func TestTokenBufferMayBeReused(t *testing.T) {
	tt := newTestTokens(t, EdDSA)
	a, b := tt.issue(t), tt.issue(t)
	buffer := []byte(a)
	pa, err := tt.Verify(buffer)
	if err != nil {
		t.Fatal(err)
	}
	id := strings.Clone(pa.UserID)
	copy(buffer, b)
	pb, err := tt.Verify(buffer)
	if err != nil {
		t.Fatal(err)
	}
	if pa.UserID != id || pa.UserID == pb.UserID {
		t.Errorf("the first caller was %s, has become %s; the second is %s", id, pa.UserID, pb.UserID)
	}
}

func TestTokenThatWouldBeTooLargeIsNotIssued(t *testing.T) {
	tt := newTestTokens(t, EdDSA)
	if _, err := tt.Issue(testUser(), newID(), slices.Repeat([]string{"tasks.write"}, 1000)); err == nil {
		t.Error("a token was issued that Verify refuses")
	}
}

func TestTokenOfAWithdrawnKeyIsRefused(t *testing.T) {
	tt := newTestTokens(t, EdDSA)
	token := []byte(tt.issue(t))
	if _, err := tt.Verify(token); err != nil { // and remember it
		t.Fatal(err)
	}
	other, err := OpenKeyring(t.TempDir(), EdDSA)
	if err != nil {
		t.Fatal(err)
	}
	tt.SetKeys(other)
	if _, err := tt.Verify(token); !errors.Is(err, ErrTokenInvalid) {
		t.Errorf("%v", err)
	}
}

// Keys are replaced while tokens are being verified: none of the withdrawn key's
// may stay in the cache.
func TestTokenOfAWithdrawnKeyIsRefusedWhateverWasUnderWay(t *testing.T) {
	tt := newTestTokens(t, EdDSA)
	old := tt.keys
	other, err := OpenKeyring(t.TempDir(), EdDSA)
	if err != nil {
		t.Fatal(err)
	}
	for range 20 {
		tt.SetKeys(old)
		tokens := make([][]byte, 50)
		for i := range tokens {
			tokens[i] = []byte(tt.issue(t))
		}
		var begun atomic.Int32
		var wg sync.WaitGroup
		for w := range 4 {
			wg.Go(func() {
				for i := w; i < len(tokens); i += 4 {
					begun.Add(1)
					_, _ = tt.Verify(tokens[i])
				}
			})
		}
		for begun.Load() < 10 {
		}
		tt.SetKeys(other)
		wg.Wait()
		for _, token := range tokens {
			if _, err := tt.Verify(token); !errors.Is(err, ErrTokenInvalid) {
				t.Fatalf("%v", err)
			}
		}
	}
}

func TestSmallRSAKeysAreRefused(t *testing.T) {
	key, err := rsa.GenerateKey(rand.Reader, 1024) // that is the point
	if err != nil {
		t.Skip("this Go does not even make one: ", err)
	}
	if _, err := newSigningKey(key); err == nil {
		t.Error("accepted")
	}
}
