package upstream

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/google/go-cmp/cmp"
)

func TestAssertionIsTheOnlySourceOfIdentity(t *testing.T) {
	t.Parallel()
	i := newIssuer(t)
	v := i.verifier(t)
	c := claims("ann", jsonMap{"roles": []string{"user", "admin"}, "permissions": []string{"tasks.write"}, "tenant": "acme"})
	got, err := v.Verify(t.Context(), http.Header{
		assertionHeader: {sign(header(nil), c, i.eddsa)},
		"X-User-Id":     {"mallory"}, "X-User-Roles": {"root"}, "X-User-Tenant": {"umbrella"}, "X-User-Name": {"Mallory"},
	})
	if err != nil {
		t.Fatal(err)
	}
	want := Identity{
		Subject: "ann", SessionID: "session-of-ann", Name: "ann", Email: "ann@example.org",
		Roles: []string{"user", "admin"}, Permissions: []string{"tasks.write"}, Tenant: "acme",
		ExpiresAt: time.Unix(c["exp"].(int64), 0),
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestAssertionIsAccepted(t *testing.T) {
	t.Parallel()
	i := newIssuer(t)
	es, rs := ecKey(t, elliptic.P256()), rsaKey(t, 2048)
	i.setKeys(okpKey(testKeyID, i.public), ecJWK("es", &es.PublicKey), rsaJWK("rs", &rs.PublicKey),
		changed(okpKey("bare", i.public), jsonMap{"alg": nil, "use": nil}))
	now := time.Now().Unix()
	for name, assertion := range map[string]string{
		"with EdDSA":                             sign(header(nil), claims("ann", nil), i.eddsa),
		"with ES256":                             sign(header(jsonMap{"alg": "ES256", "kid": "es"}), claims("ann", nil), es256(t, es)),
		"with RS256":                             sign(header(jsonMap{"alg": "RS256", "kid": "rs"}), claims("ann", nil), rs256(t, rs)),
		"with a key that says no alg and no use": sign(header(jsonMap{"kid": "bare"}), claims("ann", nil), i.eddsa),
		"with one audience as a string":          i.assertion("ann", jsonMap{"aud": testAudience}),
		"with several audiences":                 i.assertion("ann", jsonMap{"aud": []string{"other", testAudience}}),
		"with a lifetime of 5 minutes":           i.assertion("ann", jsonMap{"iat": now, "exp": now + 300}),
		"with an nbf that has passed":            i.assertion("ann", jsonMap{"nbf": now - 1}),
		"from a clock a little ahead":            i.assertion("ann", jsonMap{"iat": now + 5, "nbf": now + 5, "exp": now + 120}),
		"without what is optional":               i.assertion("ann", jsonMap{"sid": nil, "name": nil, "email": nil, "roles": nil, "permissions": nil, "tenant": nil}),
		"with claims it does not know":           i.assertion("ann", jsonMap{"favourite_colour": jsonMap{"r": 1}}),
	} {
		t.Run(name, func(t *testing.T) {
			got, err := i.verifier(t).Verify(t.Context(), http.Header{assertionHeader: {assertion}})
			if err != nil || got.Subject != "ann" {
				t.Errorf("got %+v, %v", got, err)
			}
		})
	}
}

// forgeries returns header fields that must not be believed, by what is wrong
// with them. All but the missing ones are right in every other respect.
func forgeries(t testing.TB, i *issuer) map[string][]string {
	t.Helper()
	good := i.assertion("ann", nil)
	parts := strings.Split(good, ".")
	now := time.Now().Unix()
	other := newIssuer(t)
	es, weak, p384 := ecKey(t, elliptic.P256()), rsaKey(t, 1024), ecKey(t, elliptic.P384())
	secret := []byte("the gateway's secret for client tokens, 32 bytes or more")
	i.setKeys(okpKey(testKeyID, i.public), ecJWK("es", &es.PublicKey), rsaJWK("weak", &weak.PublicKey),
		changed(ecJWK("p384", &p384.PublicKey), jsonMap{"alg": nil}),
		changed(okpKey("enc", i.public), jsonMap{"use": "enc"}),
		jsonMap{"kty": "oct", "kid": "oct", "use": "sig", "alg": "HS256", "k": b64(secret)},
		jsonMap{"kty": "from-the-future", "kid": "future"})
	der, err := x509.MarshalPKIXPublicKey(i.public)
	if err != nil {
		t.Fatal(err)
	}
	onePEM := pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
	hs := func(secret []byte) func([]byte) []byte {
		return func(text []byte) []byte {
			m := hmac.New(sha256.New, secret)
			m.Write(text)
			return m.Sum(nil)
		}
	}
	with := func(h, c jsonMap) string { return sign(header(h), claims("ann", c), i.eddsa) }
	none := func([]byte) []byte { return nil }

	forged := map[string]string{
		"empty":                                     "",
		"not a JWS":                                 "Bearer of bad news",
		"two parts":                                 parts[0] + "." + parts[1],
		"four parts":                                good + ".x",
		"no signature":                              parts[0] + "." + parts[1] + ".",
		"a changed payload":                         parts[0] + "." + b64([]byte(`{"sub":"root"}`)) + "." + parts[2],
		"two assertions in one field":               good + "," + good,
		"longer than any assertion":                 with(nil, jsonMap{"name": strings.Repeat("x", maxAssertionBytes)}),
		"a payload that is no object":               sign(header(nil), []string{"sub", "ann"}, i.eddsa),
		"a header that is no object":                sign("EdDSA", claims("ann", nil), i.eddsa),
		"HS256 with the public key as secret":       sign(header(jsonMap{"alg": "HS256"}), claims("ann", nil), hs(i.public)),
		"HS256 with the public key in PEM":          sign(header(jsonMap{"alg": "HS256"}), claims("ann", nil), hs(onePEM)),
		"HS256 with a symmetric key in the JWKS":    sign(header(jsonMap{"alg": "HS256", "kid": "oct"}), claims("ann", nil), hs(secret)),
		"alg none":                                  sign(header(jsonMap{"alg": "none"}), claims("ann", nil), none),
		"alg None":                                  sign(header(jsonMap{"alg": "None"}), claims("ann", nil), none),
		"no alg":                                    sign(header(jsonMap{"alg": nil}), claims("ann", nil), i.eddsa),
		"alg in another case":                       with(jsonMap{"alg": "eddsa"}, nil),
		"the alg of another key":                    with(jsonMap{"alg": "ES256"}, nil),
		"ES256 by a P-384 key":                      sign(header(jsonMap{"alg": "ES256", "kid": "p384"}), claims("ann", nil), es256(t, p384)),
		"a short RSA key":                           sign(header(jsonMap{"alg": "RS256", "kid": "weak"}), claims("ann", nil), rs256(t, weak)),
		"a key for encryption":                      with(jsonMap{"kid": "enc"}, nil),
		"an unknown kid":                            sign(header(jsonMap{"kid": "k2"}), claims("ann", nil), other.eddsa),
		"no kid":                                    with(jsonMap{"kid": nil}, nil),
		"a kid that is no string":                   with(jsonMap{"kid": 1}, nil),
		"another's key under a known kid":           sign(header(nil), claims("ann", nil), other.eddsa),
		"a key it brings along":                     sign(header(jsonMap{"jwk": okpKey(testKeyID, other.public)}), claims("ann", nil), other.eddsa),
		"an address of keys it brings along":        sign(header(jsonMap{"jku": other.URL, "kid": "k2"}), claims("ann", nil), other.eddsa),
		"an access token's typ":                     with(jsonMap{"typ": "at+jwt"}, nil),
		"typ JWT":                                   with(jsonMap{"typ": "JWT"}, nil),
		"typ in another case":                       with(jsonMap{"typ": "Identity-Assertion+JWT"}, nil),
		"no typ":                                    with(jsonMap{"typ": nil}, nil),
		"a typ that is no string":                   with(jsonMap{"typ": []string{assertionType}}, nil),
		"an unknown crit":                           with(jsonMap{"crit": []string{"exp"}, "exp": 1}, nil),
		"an empty crit":                             with(jsonMap{"crit": []string{}}, nil),
		"a crit of null":                            sign(jsonMap{"alg": "EdDSA", "typ": assertionType, "kid": testKeyID, "crit": nil}, claims("ann", nil), i.eddsa),
		"another issuer":                            with(nil, jsonMap{"iss": "http://gateway.test.evil"}),
		"no issuer":                                 with(nil, jsonMap{"iss": nil}),
		"another audience":                          with(nil, jsonMap{"aud": []string{"billing"}}),
		"an audience that begins like ours":         with(nil, jsonMap{"aud": "tasks2"}),
		"no audience":                               with(nil, jsonMap{"aud": nil}),
		"no audience in the list":                   with(nil, jsonMap{"aud": []string{}}),
		"an audience that is no string":             with(nil, jsonMap{"aud": []any{testAudience, 1}}),
		"expired":                                   with(nil, jsonMap{"iat": now - 120, "exp": now - 1}),
		"no exp":                                    with(nil, jsonMap{"exp": nil}),
		"an exp of 0":                               with(nil, jsonMap{"exp": 0}),
		"an exp of 0 and an iat before it":          with(nil, jsonMap{"exp": 0, "iat": -60}),
		"a negative exp":                            with(nil, jsonMap{"exp": -1}),
		"an exp beyond all numbers":                 with(nil, jsonMap{"exp": 1e300}),
		"an exp and an iat beyond all numbers":      with(nil, jsonMap{"exp": 1e300, "iat": 1e300}),
		"an exp that is no number":                  with(nil, jsonMap{"exp": "never"}),
		"no iat":                                    with(nil, jsonMap{"iat": nil}),
		"an iat of 0":                               with(nil, jsonMap{"iat": 0}),
		"a lifetime of 10 minutes":                  with(nil, jsonMap{"iat": now, "exp": now + 600}),
		"a lifetime of 10 minutes, half of it gone": with(nil, jsonMap{"iat": now - 300, "exp": now + 300}),
		"a lifetime that begins in the future":      with(nil, jsonMap{"iat": now + 3600, "exp": now + 3700}),
		"a future nbf":                              with(nil, jsonMap{"nbf": now + 60}),
		"no sub":                                    with(nil, jsonMap{"sub": nil}),
		"an empty sub":                              with(nil, jsonMap{"sub": ""}),
		"a sub that is no string":                   with(nil, jsonMap{"sub": 7}),
		"a sub longer than any":                     with(nil, jsonMap{"sub": strings.Repeat("a", 256)}),
		"roles that are no list":                    with(nil, jsonMap{"roles": "admin"}),
		"a padded signature":                        good + "==",
		"a padded payload":                          parts[0] + "." + base64.URLEncoding.EncodeToString([]byte(`{"a":1}`)) + "." + parts[2],
	}
	// An Ed25519 signature leaves 4 bits of its last character unused: 15 more
	// texts decode to the same bytes unless the decoder minds.
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	last := strings.IndexByte(alphabet, good[len(good)-1])
	for bits := 1; bits < 16; bits++ {
		forged[fmt.Sprintf("another spelling of the signature, %d", bits)] = good[:len(good)-1] + string(alphabet[last|bits])
	}

	fields := map[string][]string{
		"absent":                             nil,
		"two fields":                         {good, good},
		"two fields, the second one bad":     {good, "x"},
		"two fields, the second one another": {good, i.assertion("bob", nil)},
	}
	for name, assertion := range forged {
		fields[name] = []string{assertion}
	}
	return fields
}

func TestForgedAssertionIsRefusedAndNothingIsDone(t *testing.T) {
	t.Parallel()
	s := newService(t)
	s.as("ann").create("hers")
	before := s.stored()
	for name, fields := range forgeries(t, s.issuer) {
		t.Run(name, func(t *testing.T) {
			h := http.Header{
				"Content-Type": {"application/json"}, "X-User-Id": {"ann"}, "X-User-Name": {"ann"}, "X-User-Roles": {"user,admin"},
				"X-User-Tenant": {""}, "Authorization": {"Bearer " + s.as("ann").assertion},
				// What some servers would take for the same name.
				"X_identity_assertion": {s.as("ann").assertion},
			}
			if fields != nil {
				h[assertionHeader] = fields
			}
			for _, request := range [][2]string{{"POST", "/tasks"}, {"GET", "/admin/tasks"}, {"DELETE", "/tasks/" + before[0].ID}, {"GET", "/nowhere"}, {"PUT", "/tasks"}} {
				want := codeAssertionInvalid
				if fields == nil {
					want = codeAssertionRequired
				}
				r := s.send(request[0], request[1], h, strings.NewReader(`{"title":"forged"}`))
				r.wantProblem(t, 401, want)
				for _, field := range fields {
					if field != "" && bytes.Contains(r.body, []byte(field)) {
						t.Errorf("the answer repeats the assertion: %s", r.body)
					}
				}
			}
		})
	}
	if diff := cmp.Diff(before, s.stored()); diff != "" {
		t.Error(diff)
	}
	log := s.log.String()
	for name, fields := range forgeries(t, s.issuer) {
		for _, field := range fields {
			if len(field) > 40 && strings.Contains(log, field[:40]) {
				t.Errorf("the log holds the assertion with %s", name)
			}
		}
	}
}

func TestForgedAssertionHasOneOfTheDocumentedErrors(t *testing.T) {
	t.Parallel()
	i := newIssuer(t)
	v := i.verifier(t)
	for name, fields := range forgeries(t, i) {
		got, err := v.Verify(t.Context(), http.Header{assertionHeader: fields})
		want := ErrInvalidAssertion
		if fields == nil {
			want = ErrNoAssertion
		}
		if !errors.Is(err, want) || !cmp.Equal(got, Identity{}) {
			t.Errorf("%s: got %+v, %v; want %v", name, got, err, want)
		}
	}
}

func TestVerifiedAssertionIsRememberedUntilItExpires(t *testing.T) {
	t.Parallel()
	i := newIssuer(t)
	v := i.verifier(t)
	now := time.Now()
	v.now = func() time.Time { return now }
	h := http.Header{assertionHeader: {i.assertion("ann", jsonMap{"iat": now.Unix(), "exp": now.Unix() + 60})}}
	if _, err := v.Verify(t.Context(), h); err != nil {
		t.Fatal(err)
	}
	// Without the keys, only what is remembered can be answered.
	v.keys = newKeySource("http://127.0.0.1:1/", testLog(t))
	now = now.Add(58 * time.Second)
	if got, err := v.Verify(t.Context(), h); err != nil || got.Subject != "ann" {
		t.Errorf("before it expires: %v, %v", got, err)
	}
	now = now.Add(2 * time.Second)
	if got, err := v.Verify(t.Context(), h); err == nil {
		t.Errorf("after it has expired: %v", got)
	}
}

func TestVerifiedCacheIsBoundedAndKeepsTheLatest(t *testing.T) {
	t.Parallel()
	var c verifiedCache
	now := time.Now()
	for n := range 2*maxVerified + 1 {
		key := fmt.Sprint(n)
		c.put(key, Identity{Subject: key, ExpiresAt: now.Add(time.Minute)})
		if got, ok := c.get(key, now); !ok || got.Subject != key {
			t.Fatalf("%s was not kept", key)
		}
	}
	if len(c.m) != maxVerified {
		t.Errorf("%d entries, want %d", len(c.m), maxVerified)
	}
}

func TestNewVerifierRefusesAnEmptyExpectation(t *testing.T) {
	t.Parallel()
	good := VerifierConfig{JWKS: "http://gateway.test/keys", Issuer: testIssuer, Audience: testAudience}
	if _, err := NewVerifier(good, testLog(t)); err != nil {
		t.Fatal(err)
	}
	for name, spoil := range map[string]func(*VerifierConfig){
		"no issuer":     func(c *VerifierConfig) { c.Issuer = "" },
		"no audience":   func(c *VerifierConfig) { c.Audience = "" },
		"no key set":    func(c *VerifierConfig) { c.JWKS = "" },
		"a path":        func(c *VerifierConfig) { c.JWKS = "/etc/keys.json" },
		"a file":        func(c *VerifierConfig) { c.JWKS = "file:///etc/keys.json" },
		"a broken URL":  func(c *VerifierConfig) { c.JWKS = "http://[::1" },
		"a URL no host": func(c *VerifierConfig) { c.JWKS = "http:///keys" },
	} {
		c := good
		spoil(&c)
		if _, err := NewVerifier(c, testLog(t)); err == nil {
			t.Errorf("%s was taken", name)
		}
	}
}

func TestAlgorithmIsTheKeysChoice(t *testing.T) {
	t.Parallel()
	public := newIssuer(t).public
	for name, c := range map[string]struct {
		key  any
		want string
	}{
		"Ed25519":           {public, "EdDSA"},
		"P-256":             {&ecKey(t, elliptic.P256()).PublicKey, "ES256"},
		"P-384":             {&ecKey(t, elliptic.P384()).PublicKey, ""},
		"RSA, 2048 bits":    {&rsaKey(t, 2048).PublicKey, "RS256"},
		"RSA, 1024 bits":    {&rsaKey(t, 1024).PublicKey, ""},
		"a shared secret":   {[]byte(public), ""},
		"no key":            {nil, ""},
		"a private P-256":   {ecKey(t, elliptic.P256()), ""},
		"a list of Ed25519": {jwt.VerificationKeySet{Keys: []jwt.VerificationKey{public}}, ""},
	} {
		if got := algorithmOf(c.key); got != c.want {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
}

func ecKey(t testing.TB, curve elliptic.Curve) *ecdsa.PrivateKey {
	t.Helper()
	k, err := ecdsa.GenerateKey(curve, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func ecJWK(kid string, k *ecdsa.PublicKey) jsonMap {
	point, err := k.Bytes() // 0x04, X, Y
	if err != nil {
		panic(err)
	}
	size := len(point) / 2
	return jsonMap{"kty": "EC", "crv": k.Curve.Params().Name, "alg": "ES256", "use": "sig", "kid": kid,
		"x": b64(point[1 : 1+size]), "y": b64(point[1+size:])}
}

// es256 signs with SHA-256, in the format of JWS: r and s, each of the curve's size.
func es256(t testing.TB, k *ecdsa.PrivateKey) func([]byte) []byte {
	return func(text []byte) []byte {
		sum := sha256.Sum256(text)
		r, s, err := ecdsa.Sign(rand.Reader, k, sum[:])
		if err != nil {
			t.Fatal(err)
		}
		size := (k.Curve.Params().BitSize + 7) / 8
		return append(r.FillBytes(make([]byte, size)), s.FillBytes(make([]byte, size))...)
	}
}

// rsaKey returns a key that is long enough, or, to be refused, one that is not.
func rsaKey(t testing.TB, bits int) *rsa.PrivateKey {
	t.Helper()
	k, err := rsa.GenerateKey(rand.Reader, bits)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func rsaJWK(kid string, k *rsa.PublicKey) jsonMap {
	return jsonMap{"kty": "RSA", "alg": "RS256", "use": "sig", "kid": kid, "n": b64(k.N.Bytes()), "e": "AQAB"}
}

func rs256(t testing.TB, k *rsa.PrivateKey) func([]byte) []byte {
	return func(text []byte) []byte {
		sum := sha256.Sum256(text)
		sig, err := rsa.SignPKCS1v15(rand.Reader, k, crypto.SHA256, sum[:])
		if err != nil {
			t.Fatal(err)
		}
		return sig
	}
}
