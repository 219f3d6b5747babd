package upstream

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"maps"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"
)

// jsonMap is a JSON object in the making.
type jsonMap = map[string]any

const (
	testIssuer   = "http://gateway.test"
	testAudience = "tasks"
)

// issuer stands for the gateway: it signs assertions and serves its keys.
type issuer struct {
	*httptest.Server
	private ed25519.PrivateKey
	public  ed25519.PublicKey

	mu      sync.Mutex
	keys    []jsonMap
	answer  http.HandlerFunc // nil: serve keys
	fetches int
}

// testKeyID names the key that an issuer signs with unless a test says otherwise.
const testKeyID = "k1"

func newIssuer(t testing.TB) *issuer {
	t.Helper()
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	i := &issuer{private: private, public: public, keys: []jsonMap{okpKey(testKeyID, public)}}
	i.Server = httptest.NewServer(i)
	t.Cleanup(i.Close)
	return i
}

func (i *issuer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	i.mu.Lock()
	i.fetches++
	keys, answer := i.keys, i.answer
	i.mu.Unlock()
	if answer != nil {
		answer(w, r)
		return
	}
	w.Header().Set("Content-Type", "application/jwk-set+json")
	_ = json.NewEncoder(w).Encode(jsonMap{"keys": keys})
}

func (i *issuer) setKeys(keys ...jsonMap) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.keys = keys
}

func (i *issuer) setAnswer(answer http.HandlerFunc) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.answer = answer
}

func (i *issuer) fetched() int {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.fetches
}

func okpKey(kid string, public ed25519.PublicKey) jsonMap {
	return jsonMap{"kty": "OKP", "crv": "Ed25519", "alg": "EdDSA", "use": "sig", "kid": kid, "x": b64(public)}
}

// header returns the JOSE header of a good assertion, with changes; a nil value removes.
func header(changes jsonMap) jsonMap {
	return changed(jsonMap{"alg": "EdDSA", "typ": "identity-assertion+jwt", "kid": testKeyID}, changes)
}

// claims returns the claims of a good assertion for sub, with changes; a nil value removes.
func claims(sub string, changes jsonMap) jsonMap {
	now := time.Now().Unix()
	return changed(jsonMap{
		"iss": testIssuer, "aud": []string{testAudience}, "sub": sub, "sid": "session-of-" + sub,
		"name": sub, "email": sub + "@example.org", "roles": []string{"user"}, "permissions": []string{},
		"tenant": "", "iat": now, "exp": now + 120,
	}, changes)
}

func changed(m, changes jsonMap) jsonMap {
	maps.Copy(m, changes)
	maps.DeleteFunc(m, func(_ string, v any) bool { return v == nil })
	return m
}

// sign makes a compact JWS. The header and the payload are encoded as they are.
func sign(header, payload any, signer func([]byte) []byte) string {
	h, err := json.Marshal(header)
	if err != nil {
		panic(err)
	}
	p, err := json.Marshal(payload)
	if err != nil {
		panic(err)
	}
	text := b64(h) + "." + b64(p)
	return text + "." + b64(signer([]byte(text)))
}

// eddsa signs with the issuer's key, whatever the header says.
func (i *issuer) eddsa(text []byte) []byte { return ed25519.Sign(i.private, text) }

// assertion returns a good assertion for sub, with changed claims.
func (i *issuer) assertion(sub string, changes jsonMap) string {
	return sign(header(nil), claims(sub, changes), i.eddsa)
}

// verifier returns a verifier of this issuer's assertions.
func (i *issuer) verifier(t testing.TB) *Verifier {
	t.Helper()
	return newTestVerifier(t, i.URL)
}

func newTestVerifier(t testing.TB, jwks string) *Verifier {
	t.Helper()
	v, err := NewVerifier(VerifierConfig{JWKS: jwks, Issuer: testIssuer, Audience: testAudience}, testLog(t))
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func b64(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }
