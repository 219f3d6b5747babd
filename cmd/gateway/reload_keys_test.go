package main

import (
	"context"
	"crypto/ed25519"
	"encoding/base64"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"portcullis/identity"
)

// A withdrawn key vouches for nobody any more, also while something is wrong with the
// policy: not even for the users of another issuer, whose tokens it has not signed.
func TestAWithdrawnKeyVouchesForNobody(t *testing.T) {
	public, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	issuer := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = fmt.Fprintf(w, `{"keys":[{"kty":"OKP","crv":"Ed25519","kid":"k","x":%q}]}`, base64.RawURLEncoding.EncodeToString(public))
	}))
	t.Cleanup(issuer.Close)
	service := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Told", r.Header.Get("X-Identity-Assertion"))
	}))
	t.Cleanup(service.Close)

	w := watch(t, nil)
	w.write("gateway.yaml", fmt.Sprintf(`
identity:
  store: "file:./data/identity.db"
  tokens: {issuer: "http://localhost:8080", keys: ./data/keys}
  issuers: [{name: far, issuer: far, jwks_url: %q, audience: api, algorithms: [EdDSA], roles: {staff: user}}]
  reset: {link: "http://localhost:8080/auth/reset?token={token}"}
policy: {file: policy.csv}
upstreams: {app: {targets: [%q]}}
routes: [{path: /first, upstream: app}]
`, issuer.URL, service.URL))
	w.look()
	w.look()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go func() { _ = w.gateway.Serve(ln) }()
	t.Cleanup(func() { _ = w.gateway.Shutdown(context.Background()) })

	now := time.Now()
	foreign := jwt.NewWithClaims(jwt.SigningMethodEdDSA, jwt.MapClaims{
		"iss": "far", "aud": "api", "sub": "f3a", "iat": now.Unix(), "exp": now.Add(time.Hour).Unix(), "roles": []string{"staff"},
	})
	foreign.Header["kid"] = "k"
	token, err := foreign.SignedString(private)
	if err != nil {
		t.Fatal(err)
	}
	vouches := func() string {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+ln.Addr().String()+"/first", nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer "+token)
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		_ = res.Body.Close()
		if res.StatusCode != http.StatusOK {
			t.Fatal(res.Status)
		}
		return signedBy(t, res.Header.Get("Told"))
	}

	first := vouches()
	if vouches() != first {
		t.Fatal("two keys sign")
	}
	keys := filepath.Join(w.dir, "data", "keys")
	if _, err := identity.Rotate(keys, identity.EdDSA, false, now); err != nil {
		t.Fatal(err)
	}
	if _, err := identity.Withdraw(keys, identity.EdDSA, first, now, identity.Lifetimes{}); err != nil {
		t.Fatal(err)
	}
	w.write("policy.csv", "nonsense")
	w.look()
	w.look()
	if strings.Contains(string(w.accounts.tokens.JWKS()), first) {
		t.Fatal("the key is not withdrawn")
	}
	if vouches() == first {
		t.Error("an upstream is told what the withdrawn key has signed")
	}
}
