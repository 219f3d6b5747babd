package identity

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/MicahParks/jwkset"
	"github.com/golang-jwt/jwt/v5"
)

// testIssuer is an issuer on a socket of its own.
type testIssuer struct {
	t      *testing.T
	server *httptest.Server
	config IssuerConfig
	looks  atomic.Int32

	mu     sync.Mutex
	keys   map[string]crypto.Signer // by kid
	answer http.HandlerFunc         // in place of the keys, when set
}

func startIssuer(t *testing.T, name string) *testIssuer {
	t.Helper()
	is := &testIssuer{t: t, keys: map[string]crypto.Signer{}}
	is.server = httptest.NewServer(http.HandlerFunc(is.serve))
	t.Cleanup(is.server.Close)
	is.config = IssuerConfig{
		Name: name, Issuer: "https://" + name + ".example/realm", JWKSURL: is.server.URL + "/jwks", Audience: "portcullis",
		Algorithms: []string{"RS256", "ES256"}, RolesClaim: "roles", Roles: map[string]string{"staff": "user", "boss": "admin"},
		EmailClaim: "email", Tenant: "acme", ClockSkew: 30 * time.Second, MaxTTL: 24 * time.Hour, Refresh: time.Hour,
	}
	is.add("k1", rsaKey(t))
	return is
}

func rsaKey(t *testing.T) *rsa.PrivateKey {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func ecKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func (is *testIssuer) add(kid string, key crypto.Signer) {
	is.mu.Lock()
	defer is.mu.Unlock()
	is.keys[kid] = key
}

func (is *testIssuer) withdraw(kid string) {
	is.mu.Lock()
	defer is.mu.Unlock()
	delete(is.keys, kid)
}

func (is *testIssuer) answerWith(h http.HandlerFunc) {
	is.mu.Lock()
	defer is.mu.Unlock()
	is.answer = h
}

func (is *testIssuer) serve(w http.ResponseWriter, r *http.Request) {
	is.looks.Add(1)
	is.mu.Lock()
	answer := is.answer
	all := []jwkset.JWKMarshal{}
	for kid, key := range is.keys {
		j, err := publicJWK(key.Public(), jwkset.JWKMetadataOptions{KID: kid, USE: jwkset.UseSig})
		if err != nil {
			is.t.Error(err)
		}
		all = append(all, j)
	}
	is.mu.Unlock()
	if answer != nil {
		answer(w, r)
		return
	}
	_ = json.NewEncoder(w).Encode(map[string]any{"keys": all})
}

func (is *testIssuer) claims() jwt.MapClaims {
	now := time.Now()
	return jwt.MapClaims{
		"iss": is.config.Issuer, "aud": []string{"other", "portcullis"}, "sub": "f3a-7", "iat": now.Unix(), "nbf": now.Unix(), "exp": now.Add(time.Hour).Unix(),
		"preferred_username": "fred", "email": "fred@acme.example", "email_verified": true, "roles": []string{"staff", "unknown"},
		// What ours would mean, and theirs does not.
		"sid": "s1", "epoch": 1 << 40, "tenant": "root", "permissions": []string{"everything"},
	}
}

// sign makes a token with the key of that kid; change may make it another.
func (is *testIssuer) sign(kid string, change ...func(header, claims map[string]any)) []byte {
	is.t.Helper()
	is.mu.Lock()
	key := is.keys[kid]
	is.mu.Unlock()
	var method jwt.SigningMethod = jwt.SigningMethodRS256
	switch key.(type) {
	case *ecdsa.PrivateKey:
		method = jwt.SigningMethodES256
	case ed25519.PrivateKey:
		method = jwt.SigningMethodEdDSA
	}
	return is.signWith(method, key, kid, change...)
}

func (is *testIssuer) signWith(method jwt.SigningMethod, key any, kid string, change ...func(header, claims map[string]any)) []byte {
	is.t.Helper()
	token := jwt.NewWithClaims(method, is.claims())
	token.Header["kid"] = kid
	for _, c := range change {
		c(token.Header, token.Claims.(jwt.MapClaims))
	}
	signed, err := token.SignedString(key)
	if err != nil {
		is.t.Fatal(err)
	}
	return []byte(signed)
}

func claimed(name string, value any) func(_, claims map[string]any) {
	return func(_, claims map[string]any) {
		if claims[name] = value; value == nil {
			delete(claims, name)
		}
	}
}

func headed(name string, value any) func(header, _ map[string]any) {
	return func(header, _ map[string]any) {
		if header[name] = value; value == nil {
			delete(header, name)
		}
	}
}

// trusted is a service that believes these issuers, and itself.
type trusted struct {
	*Service
	t          *testing.T
	own        *testTokens
	federation *Federation
	revoked    *Revocations
}

func trusting(t *testing.T, issuers ...IssuerConfig) *trusted {
	t.Helper()
	own := newTestTokens(t, EdDSA)
	own.now = time.Now()
	tr := &trusted{t: t, own: own, federation: NewFederation(slog.New(slog.DiscardHandler)), revoked: own.revocations}
	tr.federation.pause = 10 * time.Millisecond
	tr.Service = (&Service{cfg: Config{Now: time.Now}, tokens: own.Tokens}).Trusting(tr.hold(issuers...))
	return tr
}

func (tr *trusted) hold(issuers ...IssuerConfig) *Issuers {
	tr.t.Helper()
	held, err := tr.federation.Trust(issuers)
	if err != nil {
		tr.t.Fatal(err)
	}
	tr.t.Cleanup(held.Close)
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	held.Await(ctx)
	return held
}

func (tr *trusted) who(token []byte) *Principal {
	tr.t.Helper()
	p, err := tr.Verify(token, time.Now())
	if err != nil {
		tr.t.Fatal(err)
	}
	return p
}

// soon repeats a check that something in the background makes true.
func soon(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("never: %s", what)
		}
	}
}

func TestTokenOfAnIssuer(t *testing.T) {
	is := startIssuer(t, "keycloak")
	is.add("e1", ecKey(t))
	tr := trusting(t, is.config)
	for _, kid := range []string{"k1", "e1", "k1"} {
		p := tr.who(is.sign(kid))
		if p.Issuer != "keycloak" || p.UserID != "keycloak:f3a-7" || p.Username != p.UserID || p.Email != "fred@acme.example" || !p.EmailVerified ||
			!slices.Equal(p.Roles, []string{"user"}) || p.Permissions != nil || p.Tenant != "acme" || p.SessionID != "" || p.Epoch > time.Now().Unix() {
			t.Errorf("%+v", p)
		}
	}
	if p := tr.who([]byte(tr.own.issue(t))); p.Issuer != "" || p.SessionID == "" {
		t.Errorf("our own token: %+v", p)
	}
}

func TestClaimsOfAnIssuer(t *testing.T) {
	is := startIssuer(t, "idp")
	for name, c := range map[string]struct {
		config func(*IssuerConfig)
		change []func(_, _ map[string]any)
		want   func(*Principal) bool
	}{
		"no roles":                  {nil, []func(_, _ map[string]any){claimed("roles", nil)}, func(p *Principal) bool { return len(p.Roles) == 0 }},
		"roles of no list":          {nil, []func(_, _ map[string]any){claimed("roles", 7)}, func(p *Principal) bool { return len(p.Roles) == 0 }},
		"roles as a text":           {nil, []func(_, _ map[string]any){claimed("roles", "boss  staff")}, func(p *Principal) bool { return slices.Equal(p.Roles, []string{"admin", "user"}) }},
		"our names are none":        {nil, []func(_, _ map[string]any){claimed("roles", []any{"admin", "superadmin", "role:admin", nil, 1})}, func(p *Principal) bool { return len(p.Roles) == 0 }},
		"unverified e-mail":         {nil, []func(_, _ map[string]any){claimed("email_verified", false)}, func(p *Principal) bool { return p.Email == "" && !p.EmailVerified }},
		"e-mail nobody vouches for": {nil, []func(_, _ map[string]any){claimed("email_verified", nil)}, func(p *Principal) bool { return p.Email == "" }},
		"e-mail at two domains":     {nil, []func(_, _ map[string]any){claimed("email", "fred@evil.example@acme.example")}, func(p *Principal) bool { return p.Email == "" && !p.EmailVerified }},
		"e-mail in a list":          {nil, []func(_, _ map[string]any){claimed("email", "root@acme.example,fred@evil.example")}, func(p *Principal) bool { return p.Email == "" && !p.EmailVerified }},
		"e-mail with a name":        {nil, []func(_, _ map[string]any){claimed("email", "root@acme.example <fred@evil.example>")}, func(p *Principal) bool { return p.Email == "" && !p.EmailVerified }},
		"e-mail of two lines":       {nil, []func(_, _ map[string]any){claimed("email", "a@b\r\nX-User-Roles: admin")}, func(p *Principal) bool { return p.Email == "" && !p.EmailVerified }},
		"a username":                {func(c *IssuerConfig) { c.UsernameClaim = "preferred_username" }, nil, func(p *Principal) bool { return p.Username == "fred" }},
		"a username of two lines": {func(c *IssuerConfig) { c.UsernameClaim = "preferred_username" },
			[]func(_, _ map[string]any){claimed("preferred_username", "fred\nadmin")}, func(p *Principal) bool { return p.Username == p.UserID }},
		"nested roles": {func(c *IssuerConfig) { c.RolesClaim = "/realm_access/roles" },
			[]func(_, _ map[string]any){claimed("realm_access", map[string]any{"roles": []string{"boss"}})}, func(p *Principal) bool { return slices.Equal(p.Roles, []string{"admin"}) }},
		"a claim that only looks nested": {func(c *IssuerConfig) { c.RolesClaim = "/realm_access/roles" },
			[]func(_, _ map[string]any){claimed("/realm_access/roles", []string{"boss"}), claimed("realm_access", "roles")}, func(p *Principal) bool { return len(p.Roles) == 0 }},
		"roles under a URL": {func(c *IssuerConfig) { c.RolesClaim = "https://acme.example/roles" },
			[]func(_, _ map[string]any){claimed("https://acme.example/roles", []string{"boss"})}, func(p *Principal) bool { return slices.Equal(p.Roles, []string{"admin"}) }},
	} {
		t.Run(name, func(t *testing.T) {
			one := is.config
			if c.config != nil {
				c.config(&one)
			}
			tr := trusting(t, one)
			if p := tr.who(is.sign("k1", c.change...)); !c.want(p) {
				t.Errorf("%+v", p)
			}
		})
	}
}

// Each of these is another's attack on somebody; the token that they change is believed.
func TestForgedTokensOfAnIssuerAreRefused(t *testing.T) {
	is := startIssuer(t, "keycloak")
	is.add("e1", ecKey(t))
	is.add("d1", ed25519Key(t))
	tr := trusting(t, is.config)
	tr.who(is.sign("k1"))
	rs := is.keys["k1"].(*rsa.PrivateKey)
	der, err := x509.MarshalPKIXPublicKey(rs.Public())
	if err != nil {
		t.Fatal(err)
	}
	public := pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
	jwkOf, err := publicJWK(rs.Public(), jwkset.JWKMetadataOptions{})
	if err != nil {
		t.Fatal(err)
	}
	modulus, _ := base64.RawURLEncoding.DecodeString(jwkOf.N)
	mine := rsaKey(t)
	myJWK, _ := publicJWK(mine.Public(), jwkset.JWKMetadataOptions{})
	now := time.Now()
	none := func() []byte {
		signed, err := jwt.NewWithClaims(jwt.SigningMethodNone, is.claims()).SignedString(jwt.UnsafeAllowNoneSignatureType)
		if err != nil {
			t.Fatal(err)
		}
		return []byte(signed)
	}
	good := string(is.sign("k1"))
	parts := strings.Split(good, ".")
	tokens := map[string][]byte{
		"HS256 with the public key as PEM": is.signWith(jwt.SigningMethodHS256, public, "k1"),
		"HS256 with the public key as DER": is.signWith(jwt.SigningMethodHS256, der, "k1"),
		"HS256 with the modulus":           is.signWith(jwt.SigningMethodHS256, modulus, "k1"),
		"HS256 with nothing":               is.signWith(jwt.SigningMethodHS256, []byte{}, "k1"),
		"none":                             none(),
		"no signature":                     []byte(parts[0] + "." + parts[1] + "."),
		"two parts":                        []byte(parts[0] + "." + parts[1]),
		"the signature of another token":   []byte(parts[0] + "." + strings.Split(string(is.sign("k1", claimed("sub", "x"))), ".")[1] + "." + parts[2]),
		"a line break":                     []byte(good[:10] + "\n" + good[10:]),
		"padding":                          []byte(good + "="),
		"an algorithm that is not allowed": is.signWith(jwt.SigningMethodRS512, rs, "k1"),
		"PSS, which is not allowed":        is.signWith(jwt.SigningMethodPS256, rs, "k1"),
		"EdDSA, which is not allowed":      is.sign("d1"),
		"RS256 for an EC key":              is.signWith(jwt.SigningMethodRS256, rs, "e1"),
		"another's key of that id":         is.signWith(jwt.SigningMethodRS256, mine, "k1"),
		"another's key, brought along":     is.signWith(jwt.SigningMethodRS256, mine, "k1", headed("jwk", myJWK)),
		"another's key, to be fetched":     is.signWith(jwt.SigningMethodRS256, mine, "k1", headed("jku", is.server.URL), headed("x5u", is.server.URL)),
		"no key":                           is.sign("k1", headed("kid", nil)),
		"a key that is a number":           is.sign("k1", headed("kid", 1)),
		"a key in a file":                  is.sign("k1", headed("kid", "../../../../dev/null")),
		"a key in a table":                 is.sign("k1", headed("kid", "' UNION SELECT 'k")),
		"crit":                             is.sign("k1", headed("crit", []string{"b64"}), headed("b64", false)),
		"an assertion":                     is.sign("k1", headed("typ", typAssertion)),
		"a logout token":                   is.sign("k1", headed("typ", "logout+jwt")),
		"a security event":                 is.sign("k1", claimed("events", map[string]any{"x": 1})),
		"a typ that is a number":           is.sign("k1", headed("typ", 1)),
		"no exp":                           is.sign("k1", claimed("exp", nil)),
		"exp 0":                            is.sign("k1", claimed("exp", 0)),
		"exp as a text":                    is.sign("k1", claimed("exp", "tomorrow")),
		"expired":                          is.sign("k1", claimed("exp", now.Add(-time.Second).Unix())),
		"exp in years":                     is.sign("k1", claimed("exp", now.AddDate(10, 0, 0).Unix())),
		"exp beyond counting":              is.sign("k1", claimed("exp", 1e300)),
		"not yet":                          is.sign("k1", claimed("nbf", now.Add(time.Hour).Unix())),
		"issued tomorrow":                  is.sign("k1", claimed("iat", now.Add(time.Hour).Unix())),
		"no aud":                           is.sign("k1", claimed("aud", nil)),
		"another's aud":                    is.sign("k1", claimed("aud", []string{"other"})),
		"an aud that begins like ours":     is.sign("k1", claimed("aud", "portcullis2")),
		"no iss":                           is.sign("k1", claimed("iss", nil)),
		"a list of iss":                    is.sign("k1", claimed("iss", []string{is.config.Issuer})),
		"iss with a slash more":            is.sign("k1", claimed("iss", is.config.Issuer+"/")),
		"our iss":                          is.sign("k1", claimed("iss", "https://id.example"), claimed("aud", "api"), headed("typ", typAccess)),
		"no sub":                           is.sign("k1", claimed("sub", nil)),
		"an empty sub":                     is.sign("k1", claimed("sub", "")),
		"a sub that is a number":           is.sign("k1", claimed("sub", 7)),
		"a sub of two lines":               is.sign("k1", claimed("sub", "x\r\nX-User-Roles: admin")),
		"a sub with NUL":                   is.sign("k1", claimed("sub", "x\x00")),
		"a sub with a space":               is.sign("k1", claimed("sub", "x y")),
		"a sub beyond ASCII":               is.sign("k1", claimed("sub", "fréd")),
		"a long sub":                       is.sign("k1", claimed("sub", strings.Repeat("x", 256))),
		"a long token":                     is.sign("k1", claimed("x", strings.Repeat("x", maxTokenBytes))),
		"nothing":                          {},
		"dots":                             []byte(".."),
		"a payload that is no object":      []byte(parts[0] + "." + base64.RawURLEncoding.EncodeToString([]byte(`"iss"`)) + "." + parts[2]),
	}
	for name, token := range tokens {
		for range 2 { // from nothing, and from what may have been remembered
			if p, err := tr.Verify(token, time.Now()); err == nil {
				t.Errorf("%s: believed: %+v", name, p)
			} else if !errors.Is(err, ErrTokenInvalid) && !errors.Is(err, ErrTokenExpired) {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
}

func ed25519Key(t *testing.T) ed25519.PrivateKey {
	t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// Two issuers who use one key id, users of one sub, and a token of the one that
// says it is the other's.
func TestIssuersAreNotTakenForEachOther(t *testing.T) {
	a, b := startIssuer(t, "alpha"), startIssuer(t, "beta")
	b.config.Tenant, b.config.Roles = "other", map[string]string{"staff": "guest"}
	tr := trusting(t, a.config, b.config)
	pa, pb := tr.who(a.sign("k1")), tr.who(b.sign("k1"))
	if pa.UserID == pb.UserID || pa.Tenant == pb.Tenant || slices.Equal(pa.Roles, pb.Roles) {
		t.Errorf("%+v is %+v", pa, pb)
	}
	for name, token := range map[string][]byte{
		"alpha's key, beta's iss":  a.sign("k1", claimed("iss", b.config.Issuer)),
		"beta's key, alpha's iss":  b.sign("k1", claimed("iss", a.config.Issuer)),
		"our key, alpha's iss":     []byte(tr.own.forge(t, tr.own.header(), with2(tr.own.claims(), "iss", a.config.Issuer), nil)),
		"our key, alpha's kid too": []byte(tr.own.forge(t, with2(tr.own.header(), "kid", "k1"), with2(tr.own.claims(), "iss", a.config.Issuer), nil)),
	} {
		for range 2 {
			if p, err := tr.Verify(token, time.Now()); !errors.Is(err, ErrTokenInvalid) {
				t.Errorf("%s: %+v, %v", name, p, err)
			}
		}
	}
	// A user of ours cannot be one of theirs: ids of ours are UUIDs, names have no colon.
	if _, err := parseUsername(pa.UserID); err == nil {
		t.Error("somebody may register with the id of a foreign user")
	}
}

func with2(m map[string]any, key string, value any) map[string]any {
	m = maps.Clone(m)
	m[key] = value
	return m
}

// The cache of verified tokens must not outlive the key that verified them, nor
// the configuration that said what they mean.
func TestWithdrawnKeyOfAnIssuerEmptiesTheCache(t *testing.T) {
	a, b := startIssuer(t, "alpha"), startIssuer(t, "beta")
	a.config.Refresh, b.config.Refresh = 20*time.Millisecond, 20*time.Millisecond
	a.add("k2", rsaKey(t))
	tr := trusting(t, a.config, b.config)
	gone, stays, others := a.sign("k1"), a.sign("k2"), b.sign("k1")
	for _, token := range [][]byte{gone, stays, others} {
		tr.who(token)
	}
	a.withdraw("k1")
	soon(t, "the withdrawn key's token is refused", func() bool {
		_, err := tr.Verify(gone, time.Now())
		return errors.Is(err, ErrTokenInvalid)
	})
	tr.who(stays)
	tr.who(others)

	// The same token under another map of roles is another caller.
	before := tr.who(stays)
	changed := a.config
	changed.Roles = map[string]string{"staff": "admin"}
	later := tr.Service.Trusting(tr.hold(changed, b.config))
	after, err := later.Verify(stays, time.Now())
	if err != nil || slices.Equal(after.Roles, before.Roles) {
		t.Errorf("%+v, %v", after, err)
	}
	if again := tr.who(stays); !slices.Equal(again.Roles, before.Roles) {
		t.Errorf("the old configuration changed: %+v", again)
	}
	// All keys withdrawn is not the same as no answer.
	a.withdraw("k2")
	soon(t, "a token of an issuer without keys is refused", func() bool {
		_, err := tr.Verify(stays, time.Now())
		return errors.Is(err, ErrTokenInvalid)
	})
}

func TestNewKeyOfAnIssuerIsLearntWhenItIsMet(t *testing.T) {
	is := startIssuer(t, "keycloak")
	tr := trusting(t, is.config)
	tr.who(is.sign("k1"))
	is.add("k2", ecKey(t))
	token := is.sign("k2")
	if _, err := tr.Verify(token, time.Now()); !errors.Is(err, ErrTokenInvalid) {
		t.Errorf("a request waited for the issuer: %v", err)
	}
	soon(t, "the new key's token is believed", func() bool { _, err := tr.Verify(token, time.Now()); return err == nil })
}

// Whoever makes up key ids must not be able to make us hammer the issuer.
func TestMadeUpKeysCostTheIssuerLittle(t *testing.T) {
	is := startIssuer(t, "keycloak")
	own := newTestTokens(t, EdDSA)
	own.now = time.Now()
	federation := NewFederation(slog.New(slog.DiscardHandler)) // with the pause of production
	held, err := federation.Trust([]IssuerConfig{is.config})
	if err != nil {
		t.Fatal(err)
	}
	defer held.Close()
	held.Await(t.Context())
	for n := range 500 {
		if _, err := held.verify(is.sign("k1", headed("kid", fmt.Sprint(n))), own.Tokens, time.Now()); !errors.Is(err, ErrTokenInvalid) {
			t.Fatal(err)
		}
	}
	if looks := is.looks.Load(); looks > 2 {
		t.Errorf("%d looks at the issuer", looks)
	}
}

func TestIssuerThatMisbehaves(t *testing.T) {
	stop := make(chan struct{})
	for name, answer := range map[string]http.HandlerFunc{
		"error":     func(w http.ResponseWriter, _ *http.Request) { http.Error(w, `{"keys":[]}`, 500) },
		"malformed": func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, `{"keys":[{"kty":`) },
		"no set":    func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, `{"error":"maintenance"}`) },
		"HTML":      func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, `<html>sign in</html>`) },
		"huge": func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, `{"keys":[],"x":"`)
			for range 600 {
				_, _ = io.WriteString(w, strings.Repeat("x", 1024))
			}
			_, _ = io.WriteString(w, `"}`)
		},
		"many keys": func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, `{"keys":[{}`+strings.Repeat(",{}", 1000)+`]}`)
		},
		"elsewhere": func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path != "/elsewhere" {
				http.Redirect(w, r, "/elsewhere", http.StatusFound)
				return
			}
			_, _ = io.WriteString(w, `{"keys":[]}`)
		},
		"endless": func(w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(200)
			_ = http.NewResponseController(w).Flush()
			select {
			case <-stop:
			case <-r.Context().Done():
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			good := startIssuer(t, "good")
			good.config.Refresh = 20 * time.Millisecond
			tr := trusting(t, good.config)
			token := good.sign("k1")
			tr.who(token)
			// Keys that are known stay, whatever it answers from now on.
			good.answerWith(answer)
			looks := good.looks.Load()
			soon(t, "another look", func() bool { return good.looks.Load() > looks })
			tr.who(token)
			tr.who(good.sign("k1", claimed("sub", "cold")))

			// One that has never told its keys keeps nobody waiting.
			bad := startIssuer(t, "bad")
			bad.answerWith(answer)
			held, err := tr.federation.Trust([]IssuerConfig{bad.config})
			if err != nil {
				t.Fatal(err)
			}
			if _, err := held.verify(bad.sign("k1"), tr.own.Tokens, time.Now()); !errors.Is(err, ErrIssuerUnavailable) {
				t.Errorf("%v", err)
			}
			held.Close() // ends the look under way
		})
	}
	close(stop)
}

func TestUnreachableIssuerStopsNothing(t *testing.T) {
	is := startIssuer(t, "gone")
	is.server.Close()
	tr := trusting(t, is.config)
	if _, err := tr.Verify(is.sign("k1"), time.Now()); !errors.Is(err, ErrIssuerUnavailable) {
		t.Errorf("%v", err)
	}
	tr.who([]byte(tr.own.issue(t)))
}

// What a set says beside keys for signatures is left out, and the rest stays.
func TestKeysThatCannotBeUsedAreLeftOut(t *testing.T) {
	good, err := publicJWK(rsaKey(t).Public(), jwkset.JWKMetadataOptions{KID: "good", USE: jwkset.UseSig})
	if err != nil {
		t.Fatal(err)
	}
	one, _ := json.Marshal(good)
	fetched := false
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { fetched = true }))
	defer server.Close()
	with := func(change func(m map[string]any)) string {
		m := map[string]any{}
		if err := json.Unmarshal(one, &m); err != nil {
			t.Fatal(err)
		}
		change(m)
		b, _ := json.Marshal(m)
		return string(b)
	}
	small, _ := rsa.GenerateKey(rand.Reader, 1024)
	weak := ""
	if small != nil {
		j, _ := publicJWK(small.Public(), jwkset.JWKMetadataOptions{KID: "weak"})
		b, _ := json.Marshal(j)
		weak = "," + string(b)
	}
	doc := `{"keys":[` + strings.Join([]string{string(one),
		with(func(m map[string]any) { m["kid"] = "enc"; m["use"] = "enc" }),
		with(func(m map[string]any) { m["kid"] = "ops"; m["key_ops"] = []string{"encrypt"} }),
		with(func(m map[string]any) { delete(m, "kid") }),
		with(func(m map[string]any) { m["kid"] = "twice" }), with(func(m map[string]any) { m["kid"] = "twice"; m["alg"] = "RS512" }),
		with(func(m map[string]any) {
			m["kid"] = "huge"
			m["n"] = base64.RawURLEncoding.EncodeToString(slices.Repeat([]byte{0xff}, 2048))
		}),
		with(func(m map[string]any) { m["kid"] = "even"; m["e"] = "Ag" }),
		`{"kty":"oct","kid":"secret","k":"c2VjcmV0"}`, `{"kty":"EC","kid":"off","crv":"P-256","x":"AQ","y":"AQ"}`, `{"kty":"EC","kid":"no"}`, `7`, `null`,
	}, ",") + weak + `]}`
	keys, err := parseIssuerKeys([]byte(doc))
	if err != nil {
		t.Fatal(err)
	}
	if ids := slices.Sorted(maps.Keys(keys.byID)); !slices.Equal(ids, []string{"good"}) {
		t.Errorf("%v", ids)
	}
	// A JWK may name a URL of its certificate; libraries fetch it.
	withX5U := with(func(m map[string]any) { m["x5u"] = server.URL })
	if keys, err := parseIssuerKeys([]byte(`{"keys":[` + withX5U + `]}`)); err != nil || len(keys.byID) != 1 || fetched {
		t.Errorf("%v, %v, fetched %v", keys, err, fetched)
	}
}

// The algorithm is the key's to choose, of those that are allowed.
func TestKeyIsForOneAlgorithm(t *testing.T) {
	rs, ec := rsaKey(t), ecKey(t)
	for name, c := range map[string]struct {
		public any
		alg    string // of the JWK
		fits   []string
	}{
		"RSA, open":                      {rs.Public(), "", []string{"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"}},
		"RSA, for one":                   {rs.Public(), "RS256", []string{"RS256"}},
		"RSA, for PSS":                   {rs.Public(), "PS512", []string{"PS512"}},
		"RSA, for HMAC, which it is not": {rs.Public(), "HS256", nil},
		"RSA, to encrypt":                {rs.Public(), "RSA-OAEP", nil},
		"P-256":                          {ec.Public(), "", []string{"ES256"}},
		"P-256, for another curve":       {ec.Public(), "ES384", nil},
		"Ed25519":                        {ed25519Key(t).Public(), "", []string{"EdDSA"}},
	} {
		marshalled, err := publicJWK(c.public, jwkset.JWKMetadataOptions{KID: "k"})
		if err != nil {
			t.Fatal(err)
		}
		marshalled.ALG = jwkset.ALG(c.alg)
		one, err := json.Marshal(marshalled)
		if err != nil {
			t.Fatal(err)
		}
		keys, err := parseIssuerKeys([]byte(`{"keys":[` + string(one) + `]}`))
		if err != nil || keys.byID["k"] == nil {
			t.Fatalf("%s: %v, %v", name, keys, err)
		}
		var fits []string
		for _, alg := range []string{"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA", "HS256", "none", ""} {
			if keys.byID["k"].fits(alg) {
				fits = append(fits, alg)
			}
		}
		if !slices.Equal(fits, c.fits) {
			t.Errorf("%s: %v, want %v", name, fits, c.fits)
		}
	}
}

func TestForeignUserCanBeRevoked(t *testing.T) {
	is := startIssuer(t, "keycloak")
	tr := trusting(t, is.config)
	before := is.sign("k1", claimed("iat", time.Now().Add(-time.Minute).Unix()))
	other := is.sign("k1", claimed("sub", "other"))
	tr.who(before)
	tr.who(other)
	tr.revoked.add(Revocation{Kind: RevokeUser, ID: "keycloak:f3a-7", MinEpoch: time.Now().Unix() - 30, ExpiresAt: time.Now().Add(time.Hour)})
	if _, err := tr.Verify(before, time.Now()); !errors.Is(err, ErrTokenRevoked) {
		t.Errorf("%v", err)
	}
	if _, err := tr.Verify(is.sign("k1", claimed("iat", nil), claimed("epoch", 1<<50)), time.Now()); !errors.Is(err, ErrTokenRevoked) {
		t.Errorf("a token without iat: %v", err)
	}
	tr.who(is.sign("k1")) // issued later
	tr.who(other)
	// An id of no session is not a session.
	tr.revoked.add(Revocation{Kind: RevokeSession, ID: "", ExpiresAt: time.Now().Add(time.Hour)})
	tr.who(other)
	if err := tr.Logout(t.Context(), tr.who(other), LogoutGlobal, Client{}); !errors.Is(err, ErrForeignAccount) {
		t.Errorf("%v", err)
	}
}

// A reload that names the same issuers keeps what is known, and what no
// configuration names any more ends.
func TestIssuersLiveAsLongAsSomebodyTrustsThem(t *testing.T) {
	a, b := startIssuer(t, "alpha"), startIssuer(t, "beta")
	tr := trusting(t)
	first := tr.hold(a.config, b.config)
	second := tr.hold(b.config)
	if looks := b.looks.Load(); looks != 1 {
		t.Errorf("%d looks at an issuer that was known", looks)
	}
	first.Close()
	first.Close()
	if ages := tr.federation.Ages(); len(ages) != 1 {
		t.Errorf("still running: %v", ages)
	}
	if _, err := second.verify(b.sign("k1"), tr.own.Tokens, time.Now()); err != nil {
		t.Error(err)
	}
	second.Close()
	if n := len(tr.federation.running); n != 0 {
		t.Errorf("%d still run", n)
	}
}

func TestIssuersThatCannotBeToldApartAreRefused(t *testing.T) {
	f := NewFederation(slog.New(slog.DiscardHandler))
	good := IssuerConfig{Name: "a", Issuer: "https://a", JWKSURL: "http://127.0.0.1:1/", Audience: "x", Algorithms: []string{"RS256"}, Refresh: time.Hour}
	for name, change := range map[string]func(a, b *IssuerConfig){
		"one name":        func(_, b *IssuerConfig) { b.Name = "a" },
		"one iss":         func(_, b *IssuerConfig) { b.Issuer = "https://a" },
		"a colon":         func(a, _ *IssuerConfig) { a.Name = "a:b" },
		"no audience":     func(a, _ *IssuerConfig) { a.Audience = "" },
		"a symmetric alg": func(a, _ *IssuerConfig) { a.Algorithms = []string{"HS256"} },
		"none":            func(a, _ *IssuerConfig) { a.Algorithms = []string{"none"} },
	} {
		a, b := good, good
		b.Name, b.Issuer = "b", "https://b"
		change(&a, &b)
		if _, err := f.Trust([]IssuerConfig{a, b}); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}
