package upstream

import (
	"context"
	"errors"
	"net/http"
	"os"
	"strings"
	"testing"

	"github.com/MicahParks/keyfunc/v3"
	"github.com/golang-jwt/jwt/v5"
)

// The verifier that README.md shows, word for word.

type Claims struct {
	jwt.RegisteredClaims
	Roles  []string `json:"roles"`
	Tenant string   `json:"tenant"`
}

func NewCaller(ctx context.Context, jwks, issuer, audience string) (func(*http.Request) (*Claims, error), error) {
	keys, err := keyfunc.NewDefaultCtx(ctx, []string{jwks}) // fetches now, and again for a new key
	parser := jwt.NewParser(jwt.WithValidMethods([]string{"EdDSA", "ES256", "RS256"}), jwt.WithStrictDecoding(),
		jwt.WithIssuer(issuer), jwt.WithAudience(audience), jwt.WithExpirationRequired(), jwt.WithIssuedAt())
	return func(r *http.Request) (*Claims, error) {
		fields, c := r.Header.Values("X-Identity-Assertion"), &Claims{}
		if len(fields) != 1 {
			return nil, errors.New("not through the gateway")
		}
		token, err := parser.ParseWithClaims(fields[0], c, keys.Keyfunc)
		if err != nil {
			return nil, err
		}
		if _, crit := token.Header["crit"]; crit || token.Header["typ"] != "identity-assertion+jwt" || c.Subject == "" || c.IssuedAt == nil {
			return nil, errors.New("not an identity assertion")
		}
		return c, nil
	}, err
}

func TestVerifierOfTheReadme(t *testing.T) {
	t.Parallel()
	source, err := os.ReadFile("readme_test.go")
	if err != nil {
		t.Fatal(err)
	}
	readme, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, shown, _ := strings.Cut(string(readme), "```go\n")
	shown, _, _ = strings.Cut(shown, "```")
	_, code, _ := strings.Cut(shown, "func ")
	if code == "" || !strings.Contains(string(source), code) {
		t.Error("README.md shows another verifier than the one tested here")
	}
	if n := strings.Count(code, "\n"); n > 20 {
		t.Errorf("it has %d lines, more than the 20 it is said to have", n)
	}

	i := newIssuer(t)
	forged := forgeries(t, i) // adds keys, so comes before they are fetched
	caller, err := NewCaller(t.Context(), i.URL, testIssuer, testAudience)
	if err != nil {
		t.Fatal(err)
	}
	request := func(fields []string) *http.Request {
		return (&http.Request{Header: http.Header{"X-Identity-Assertion": fields}}).WithContext(t.Context())
	}
	if c, err := caller(request([]string{i.assertion("ann", nil)})); err != nil || c.Subject != "ann" {
		t.Errorf("a good assertion: %v, %v", c, err)
	}
	// What the gateway's keys would have to sign, or what costs only memory; it
	// is the task manager's own caution to refuse these.
	for _, name := range []string{
		"a lifetime of 10 minutes", "a lifetime of 10 minutes, half of it gone", "no iat", "an iat of 0", "a sub longer than any",
		"longer than any assertion", "a short RSA key", "a key for encryption", "no kid",
	} {
		if forged[name] == nil {
			t.Errorf("there is no forgery called %q", name)
		}
		delete(forged, name)
	}
	for name, fields := range forged {
		if c, err := caller(request(fields)); err == nil {
			t.Errorf("%s: taken for %v", name, c)
		}
	}
}
