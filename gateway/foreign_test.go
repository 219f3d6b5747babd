package gateway

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"portcullis/identity"
)

// foreignIssuer is another issuer of tokens, with its keys on a socket of its own.
type foreignIssuer struct {
	t      *testing.T
	key    *ecdsa.PrivateKey
	config identity.IssuerConfig
}

func startForeignIssuer(t *testing.T) *foreignIssuer {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	point, err := key.PublicKey.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	x, y := base64.RawURLEncoding.EncodeToString(point[1:33]), base64.RawURLEncoding.EncodeToString(point[33:])
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = fmt.Fprintf(w, `{"keys":[{"kty":"EC","crv":"P-256","kid":"k1","use":"sig","x":%q,"y":%q}]}`, x, y)
	}))
	t.Cleanup(server.Close)
	return &foreignIssuer{t: t, key: key, config: identity.IssuerConfig{
		Name: "keycloak", Issuer: "https://idp.example", JWKSURL: server.URL, Audience: "portcullis", Algorithms: []string{"ES256"},
		RolesClaim: "roles", Roles: map[string]string{"staff": "user", "boss": "admin"}, EmailClaim: "email", Tenant: "acme",
		ClockSkew: time.Second, MaxTTL: time.Hour, Refresh: time.Hour,
	}}
}

func (i *foreignIssuer) token(sub string, roles ...string) string {
	i.t.Helper()
	now := time.Now()
	token := jwt.NewWithClaims(jwt.SigningMethodES256, jwt.MapClaims{
		"iss": i.config.Issuer, "aud": "portcullis", "sub": sub, "iat": now.Unix(), "exp": now.Add(time.Hour).Unix(), "roles": roles,
	})
	token.Header["kid"] = "k1"
	signed, err := token.SignedString(i.key)
	if err != nil {
		i.t.Fatal(err)
	}
	return signed
}

// trustingThem is a change of startGateway.
func trustingThem(t *testing.T, issuers ...identity.IssuerConfig) func(*StateConfig) {
	return func(c *StateConfig) {
		t.Helper()
		held, err := identity.NewFederation(slog.New(slog.DiscardHandler)).Trust(issuers)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		held.Await(ctx)
		c.Identity = c.Identity.Trusting(held)
	}
}

func bearer(token string) string { return "Authorization: Bearer " + token }

func TestTheUpstreamIsToldOfAForeignCaller(t *testing.T) {
	idp := startForeignIssuer(t)
	e := startGateway(t, trustingThem(t, idp.config))
	token := idp.token("f3a", "staff")
	if res, body := e.send(get("/tasks/1", bearer(token))); res.StatusCode != 200 {
		t.Fatalf("%d %s", res.StatusCode, body)
	}
	seen := e.requests()[0]
	for _, line := range []string{"X-User-Id: keycloak:f3a", "X-User-Name: keycloak:f3a", "X-User-Roles: user", "X-User-Permissions: tasks.write", "X-User-Tenant: acme"} {
		if !strings.Contains(seen, line+"\r\n") {
			t.Errorf("missing %q in\n%s", line, seen)
		}
	}
	for _, name := range []string{"X-Session-Id", "X-User-Email", "Authorization"} {
		if strings.Contains(seen, name) {
			t.Errorf("%s in\n%s", name, seen)
		}
	}
	for what, tc := range map[string]struct {
		raw    string
		status int
	}{
		"what the roles do not allow": {get("/admin/x", bearer(token)), 403},
		"no role that is mapped":      {get("/tasks/1", bearer(idp.token("f3a", "admin", "user"))), 403},
		"in a cookie of ours":         {get("/tasks/1", "Cookie: "+CookieConfig{}.name(accessCookie)+"="+token), 401},
		"changed":                     {get("/tasks/1", bearer(token[:len(token)-4]+"AAAA")), 401},
	} {
		if res, body := e.send(tc.raw); res.StatusCode != tc.status {
			t.Errorf("%s: %d %s", what, res.StatusCode, body)
		}
	}
	if seen := e.requests(); len(seen) != 0 {
		t.Errorf("the upstream saw %q", seen)
	}
}

// A caller without an account here gets a plain answer where one would be needed,
// and as an administrator reaches the tenant that the operator gave the issuer.
func TestForeignCallersAtOurOwnEndpoints(t *testing.T) {
	idp := startForeignIssuer(t)
	e := startGateway(t, trustingThem(t, idp.config))
	user := func(name, tenant string) string {
		u, err := e.service.CreateUser(t.Context(), identity.NewUser{Username: name, Email: name + "@example.com", Password: "correct horse", Tenant: tenant}, identity.Client{})
		if err != nil {
			t.Fatal(err)
		}
		return u.ID
	}
	here, elsewhere := user("hilda", "acme"), user("edgar", "other")
	boss, staff := bearer(idp.token("boss", "boss")), bearer(idp.token("f3a", "staff"))
	do := func(method, target, body, who string) (int, string) {
		t.Helper()
		raw := fmt.Sprintf("%s %s HTTP/1.1\r\nHost: a\r\n%s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", method, target, who, len(body), body)
		res, answer := e.send(raw)
		return res.StatusCode, answer
	}
	for _, c := range []struct {
		method, target, body, who string
		status                    int
		has                       string
	}{
		{"GET", "/auth/me", "", staff, 403, "foreign_account"},
		{"PATCH", "/auth/me", `{"email":"x@example.com"}`, staff, 403, "foreign_account"},
		{"PUT", "/auth/me/password", `{"current_password":"a","new_password":"b"}`, staff, 403, "foreign_account"},
		{"GET", "/auth/me/sessions", "", boss, 403, "foreign_account"},
		{"DELETE", "/auth/me/sessions/" + here, "", boss, 403, "foreign_account"},
		{"POST", "/auth/logout", "", staff, 403, "foreign_account"},
		{"POST", "/auth/logout?scope=global", "", staff, 403, "foreign_account"},
		{"GET", "/auth/users", "", boss, 200, "hilda"},
		{"GET", "/auth/users/" + here, "", boss, 200, "hilda"},
		{"GET", "/auth/users/" + elsewhere, "", boss, 404, "not_found"},
		{"PATCH", "/auth/users/" + here, `{"is_active":false}`, boss, 200, `"is_active":false`},
		{"PATCH", "/auth/users/" + elsewhere, `{"is_active":false}`, boss, 404, "not_found"},
		{"GET", "/auth/users/keycloak:f3a", "", boss, 404, "not_found"},
		{"DELETE", "/auth/users/keycloak:f3a", "", boss, 404, "not_found"},
		{"GET", "/tasks/1", "", staff, 200, "ok"},
		{"POST", "/auth/users/nobody:f3a/logout", "", boss, 404, "not_found"},
		{"POST", "/auth/users/keycloak:f3a/logout", "", boss, 204, ""},
		{"GET", "/tasks/1", "", staff, 401, "invalid_token"},
		{"GET", "/auth/users", "", boss, 200, "hilda"},
	} {
		if status, answer := do(c.method, c.target, c.body, c.who); status != c.status || !strings.Contains(answer, c.has) {
			t.Errorf("%s %s: %d %s, want %d with %s", c.method, c.target, status, answer, c.status, c.has)
		}
	}
	if _, answer := do("GET", "/auth/users", "", boss); strings.Contains(answer, "edgar") {
		t.Errorf("another tenant's users: %s", answer)
	}
}

func TestIssuerWithoutKeysIsAnHonest503(t *testing.T) {
	idp := startForeignIssuer(t)
	idp.config.JWKSURL = "http://127.0.0.1:1/"
	e := startGateway(t, trustingThem(t, idp.config))
	res, body := e.send(get("/tasks/1", bearer(idp.token("f3a", "staff"))))
	if res.StatusCode != 503 || res.Header.Get(fieldGatewayError) != string(codeIssuerUnavailable) || res.Header.Get("Retry-After") == "" {
		t.Errorf("%d %v %s", res.StatusCode, res.Header, body)
	}
	if res, _ := e.send(get("/tasks/1", bearer(e.token("uma", "user")))); res.StatusCode != 200 {
		t.Errorf("our own token: %d", res.StatusCode)
	}
}

// A State that ends takes its issuers' fetchers along: startGateway's leak check
// would not see them, their number does.
func TestIssuersEndWithTheState(t *testing.T) {
	looks := make(chan struct{}, 100)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		looks <- struct{}{}
		_, _ = io.WriteString(w, `{"keys":[]}`)
	}))
	defer server.Close()
	idp := startForeignIssuer(t)
	idp.config.JWKSURL, idp.config.Refresh = server.URL, time.Hour
	federation := identity.NewFederation(slog.New(slog.DiscardHandler))
	held, err := federation.Trust([]identity.IssuerConfig{idp.config})
	if err != nil {
		t.Fatal(err)
	}
	held.Await(t.Context())
	<-looks
	e := startGateway(t, func(c *StateConfig) { c.Identity = c.Identity.Trusting(held) })
	if n := len(federation.Ages()); n != 1 {
		t.Fatalf("%d issuers", n)
	}
	next := e.config
	next.Identity = e.service
	state, err := NewState(next)
	if err != nil {
		t.Fatal(err)
	}
	e.gateway.Swap(state)
	if n := len(federation.Ages()); n != 0 {
		t.Errorf("%d issuers are still looked at", n)
	}
}
