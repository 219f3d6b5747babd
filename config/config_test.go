package config

import (
	"errors"
	"flag"
	"io/fs"
	"log/slog"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/rogpeppe/go-internal/txtar"
)

var update = flag.Bool("update", false, "rewrite what the tests expect in testdata/bad and README.md")

// A file that says what it must and nothing else gets every default.
func TestDefaultsAreSafe(t *testing.T) {
	got, err := Load("testdata/minimal.yaml", nil)
	if err != nil {
		t.Fatal(err)
	}
	want := &Config{
		Listen:          ":8080",
		ShutdownTimeout: 30 * time.Second,
		Admin:           Admin{Listen: "127.0.0.1:8081"},
		TLS: TLS{MinVersion: "tls1.2", ClientAuth: "none",
			ACME: ACME{Cache: "testdata/data/acme", Directory: "https://acme-v02.api.letsencrypt.org/directory"}},
		ProxyProtocol: "off",
		ForwardAuth:   ForwardAuth{Proxy: "none"},
		Log:           Log{Level: slog.LevelInfo, Format: "json"},
		Limits: Limits{
			HeaderBytes: 16 << 10, Body: 10 << 20, Connections: 0,
			HeaderTimeout: 10 * time.Second, IdleTimeout: 75 * time.Second,
		},
		HSTS: HSTS{MaxAge: 30 * 24 * time.Hour},
		Identity: Identity{
			Prefix:       "/auth",
			Store:        Store{File: "testdata/data/identity.db"},
			Registration: "open",
			AdminRoles:   []string{"admin"},
			SuperRole:    "superadmin",
			SessionTTL:   720 * time.Hour,
			Password:     Password{Hash: "bcrypt", Cost: 12, MinLength: 8, Workers: 0, Queue: 64},
			Tokens: Tokens{
				Issuer: "http://localhost:8080", Audience: "api", Algorithm: "EdDSA", Keys: "testdata/data/keys",
				AccessTTL: 15 * time.Minute, RefreshTTL: 168 * time.Hour, RefreshGrace: 10 * time.Second,
			},
			Revocation: Revocation{Poll: 500 * time.Millisecond, OnStoreLoss: "serve", MaxStaleness: 30 * time.Second},
			LoginLimit: LoginLimit{Attempts: 5, Window: 15 * time.Minute},
			Reset:      Reset{TTL: time.Hour, Link: "http://localhost:8080/auth/reset?token={token}"},
			Verify:     Verify{TTL: 24 * time.Hour},
			Mail:       Mail{Driver: "log", SMTP: SMTP{Port: 587, TLS: "starttls"}},
			Audit:      Audit{TTL: 90 * 24 * time.Hour},
			CORS:       defaultCORS(),
		},
		Telemetry: Telemetry{ServiceName: "portcullis", SampleRatio: 1},
		Policy:    Policy{File: "testdata/policy.csv", DecisionLog: DecisionLog{MaxBytes: 100 << 20, Keep: 5, SampleAllows: 1, Buffer: 8192}},
		Upstreams: map[string]Upstream{"tasks": {
			Targets: []*url.URL{{Scheme: "http", Host: "127.0.0.1:9001"}}, Balance: "round_robin", Headers: "portcullis",
			ConnectTimeout: 2 * time.Second, HeaderTimeout: 30 * time.Second, IdleTimeout: time.Minute,
			Health: Health{Interval: 5 * time.Second, Timeout: time.Second},
		}},
		Routes: []Route{{Path: "/tasks", Upstream: "tasks", MaxBody: 10 << 20, HeaderTimeout: 30 * time.Second, IdleTimeout: time.Minute, CORS: defaultCORS()}},
	}
	if diff := cmp.Diff(want, got, cmpopts.EquateComparable(netip.Prefix{}, Secret{})); diff != "" {
		t.Error(diff)
	}
}

// defaultCORS allows nobody.
func defaultCORS() CORS {
	return CORS{
		Methods: []string{"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"}, Headers: []string{"Authorization", "Content-Type", "X-CSRF-Token"},
		Expose: []string{"X-Request-Id", "X-Gateway-Error", "Retry-After", "RateLimit", "RateLimit-Policy", "WWW-Authenticate"},
		MaxAge: 10 * time.Minute,
	}
}

func TestFilesInTheDocumentationLoad(t *testing.T) {
	for _, path := range []string{"../gateway.yaml", "testdata/design.yaml"} {
		c, err := Load(path, nil)
		if err != nil {
			t.Errorf("%s:\n%v", path, err)
			continue
		}
		if len(c.TrustedProxies)+len(c.Identity.DefaultRoles) > 0 {
			t.Errorf("%s trusts a proxy or gives roles away", path)
		}
	}
}

func TestValuesFromElsewhere(t *testing.T) {
	c, err := Load("testdata/routes.yaml", nil)
	if err != nil {
		t.Fatal(err)
	}
	want := []Route{
		{Path: "/files", Upstream: "files", MaxBody: 1 << 30, HeaderTimeout: 5 * time.Second, IdleTimeout: time.Minute, BodyTimeout: 10 * time.Minute, CORS: defaultCORS()},
		{Path: "/files/new", Upstream: "files", MaxBody: 2 << 30, HeaderTimeout: time.Minute, IdleTimeout: time.Minute, BodyTimeout: 10 * time.Minute, PassAuthorization: true, CORS: defaultCORS()},
		{Path: "/", Upstream: "web-1", MaxBody: 1 << 30, HeaderTimeout: 30 * time.Second, IdleTimeout: 5 * time.Minute, BodyTimeout: time.Minute, StripPrefix: false, Rewrite: "/app",
			RequestHeaders:  Headers{Set: []string{"X-Environment: production, blue"}, Remove: []string{"X-Internal", "Cookie"}},
			ResponseHeaders: Headers{Remove: []string{"Server"}},
			CORS: CORS{Origins: []string{"https://app.example.com", "http://localhost:3000", "capacitor://localhost", "http://[::1]:3000"}, Methods: []string{"GET"},
				Headers: []string{"X-A"}, Expose: []string{}, Credentials: true, MaxAge: time.Hour}},
	}
	if diff := cmp.Diff(want, c.Routes); diff != "" {
		t.Error(diff)
	}
	tls := UpstreamTLS{CA: "testdata/ca.pem", Cert: "testdata/web.pem", Key: "/etc/web.key", ServerName: "web"}
	if got := c.Upstreams["web-1"].TLS; got != tls {
		t.Errorf("tls of an upstream: %+v, want %+v", got, tls)
	}
	if got, want := c.Policy.File, "/etc/portcullis/policy.csv"; got != want {
		t.Errorf("an absolute name became %s, want %s", got, want)
	}
	if got, want := c.Upstreams["files"].OpenAPI, "openapi.yaml"; got != want {
		t.Errorf("a name relative to testdata became %s, want %s", got, want)
	}
}

// Each file in testdata/bad is an archive of a gateway.yaml and the problems
// that it has, all of them.
func TestEverythingWrongIsReported(t *testing.T) {
	for _, path := range badFiles(t) {
		t.Run(strings.TrimPrefix(path, "testdata/bad/"), func(t *testing.T) {
			a, text := readBad(t, path)
			_, err := decode("gateway.yaml", text, nil)
			var problems *Error
			if !errors.As(err, &problems) {
				t.Fatalf("got error %v, want problems", err)
			}
			got := err.Error() + "\n"
			if *update {
				a.Files = []txtar.File{a.Files[0], {Name: "want", Data: []byte(got)}}
				if err := os.WriteFile(path, txtar.Format(a), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if len(a.Files) != 2 || a.Files[1].Name != "want" {
				t.Fatal("the archive must consist of gateway.yaml and want")
			}
			if diff := cmp.Diff(string(a.Files[1].Data), got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func badFiles(t *testing.T) []string {
	t.Helper()
	paths, err := filepath.Glob("testdata/bad/*/*.txtar")
	if err != nil || len(paths) == 0 {
		t.Fatalf("no bad files: %v", err)
	}
	return paths
}

func readBad(t *testing.T, path string) (a *txtar.Archive, text []byte) {
	t.Helper()
	a, err := txtar.ParseFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if len(a.Files) == 0 || a.Files[0].Name != "gateway.yaml" {
		t.Fatalf("%s does not begin with gateway.yaml", path)
	}
	return a, a.Files[0].Data
}

func TestUnreadableFilesAreNoProblemsOfTheConfiguration(t *testing.T) {
	dir := t.TempDir()
	large := filepath.Join(dir, "large.yaml")
	if err := os.WriteFile(large, make([]byte, maxFile+1), 0o600); err != nil {
		t.Fatal(err)
	}
	tests := map[string]struct {
		path, want string
		is         error
	}{
		"a file that is not there is named":     {filepath.Join(dir, "none.yaml"), "none.yaml", fs.ErrNotExist},
		"a directory is not waited for":         {dir, "is not a regular file", nil},
		"a device is not waited for":            {"/dev/zero", "is not a regular file", nil},
		"more than a mebibyte is not a gateway": {large, "is larger than 1024 KiB", nil},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			_, err := Load(tt.path, nil)
			if err == nil || !strings.Contains(err.Error(), tt.want) || tt.is != nil && !errors.Is(err, tt.is) {
				t.Errorf("got error %v, want one that contains %q", err, tt.want)
			}
			if errors.As(err, new(*Error)) {
				t.Error("is reported as a problem of the configuration")
			}
		})
	}
}

// A problem says where it is in a form that editors and terminals make a link of.
func TestProblemsAreRenderedInOneLine(t *testing.T) {
	tests := map[string]Problem{
		"gateway.yaml:12:5: identity.tokens.acess_ttl: unknown key, did you mean access_ttl?": {
			File: "gateway.yaml", Line: 12, Column: 5, Key: "identity.tokens.acess_ttl", Message: "unknown key, did you mean access_ttl?"},
		"gateway.yaml: is empty":                  {File: "gateway.yaml", Message: "is empty"},
		"GATEWAY_LISTEN: listen: is not a number": {Variable: "GATEWAY_LISTEN", Key: "listen", Message: "is not a number"},
	}
	for want, p := range tests {
		if got := p.String(); got != want {
			t.Errorf("got  %s\nwant %s", got, want)
		}
	}
}

func TestMisspellingsAreRecognised(t *testing.T) {
	candidates := []string{"listen", "limits", "log", "identity", "access_ttl", "refresh_ttl"}
	tests := map[string]string{
		"lisen":     "listen",
		"listne":    "listen", // neighbours swapped
		"Listen":    "listen",
		"lgo":       "log",
		"acess_tll": "access_ttl",
		"refresh":   "",
		"replicas":  "",
		"":          "",
		"identitty": "identity",
	}
	for word, want := range tests {
		if want != "" {
			want = ", did you mean " + want + "?"
		}
		if got := didYouMean(word, candidates); got != want {
			t.Errorf("%q: got %q, want %q", word, got, want)
		}
	}
}

func TestDurations(t *testing.T) {
	tests := map[string]time.Duration{
		"15m": 15 * time.Minute, "1h30m": 90 * time.Minute, "500ms": 500 * time.Millisecond, "1.5s": 1500 * time.Millisecond,
		"7d": 168 * time.Hour, "1d12h": 36 * time.Hour, "0d": 0, "36500d": 36500 * 24 * time.Hour,
		"": -1, "d": -1, "15": -1, "15 m": -1, "-1h": -1, "+1h": -1, "1d-1h": -1, "1h1d": -1, "1dd": -1, "1.5d": -1,
		"36501d": -1, "99999999999999999999d": -1, "9999999999h": -1, "36500d2562047h": -1, "1w": -1,
	}
	for text, want := range tests {
		got, err := parseDuration(text, "")
		if want < 0 && err == nil {
			t.Errorf("%q is accepted as %v", text, got)
		}
		if want >= 0 && (err != nil || got != want) {
			t.Errorf("%q: got %v, %v; want %v", text, got, err, want)
		}
	}
}

func TestSizes(t *testing.T) {
	tests := map[string]int64{
		"0B": 0, "512B": 512, "64KiB": 64 << 10, "10MiB": 10 << 20, "8GiB": 8 << 30, "8589934591GiB": 8589934591 << 30,
		"": -1, "B": -1, "10": -1, "10M": -1, "10MB": -1, "10 MiB": -1, "1.5MiB": -1, "-1B": -1, "10BB": -1, "10iB": -1,
		"8589934592GiB": -1, "9223372036854775808B": -1, "99999999999999999999B": -1,
	}
	for text, want := range tests {
		got, err := parseSize(text, "")
		if want < 0 && err == nil {
			t.Errorf("%q is accepted as %v", text, got)
		}
		if want >= 0 && (err != nil || got != want) {
			t.Errorf("%q: got %v, %v; want %v", text, got, err, want)
		}
	}
}

// FuzzLoad holds that no file and no environment brings the loader down, and
// that it returns either a configuration or problems with a place and a message.
func FuzzLoad(f *testing.F) {
	minimal, err := os.ReadFile("testdata/minimal.yaml")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(minimal, "IDENTITY_TOKENS_ACCESS_TTL=5m")
	f.Add(minimal, "UPSTREAMS_TASKS_TARGETS=http://a:1, http://b:2")
	f.Add([]byte("a: &a [*a, *a]\n? {b: c}\n: d\n--- \n"), "=")
	f.Add([]byte("\xff\xfe"), "LISTEN=\xff")
	paths, err := filepath.Glob("testdata/bad/*/*.txtar")
	if err != nil {
		f.Fatal(err)
	}
	for _, path := range paths {
		a, err := txtar.ParseFile(path)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(a.Files[0].Data, "")
	}
	f.Fuzz(func(t *testing.T, text []byte, env string) {
		if name, _, _ := strings.Cut(env, "="); strings.HasSuffix(name, fileSuffix) {
			t.Skip("files of this machine are no input")
		}
		c, err := decode("gateway.yaml", text, []string{prefix + env})
		if err == nil {
			if c.Listen == "" || c.Identity.Store == (Store{}) || len(c.Identity.AdminRoles) == 0 {
				t.Errorf("accepted without what it must have: %+v", c)
			}
			return
		}
		var problems *Error
		if !errors.As(err, &problems) || len(problems.Problems) == 0 || c != nil {
			t.Fatalf("got %v and error %v, want nothing and problems", c, err)
		}
		for _, p := range problems.Problems {
			if p.File+p.Variable == "" || p.Message == "" || strings.ContainsAny(p.String(), "\n\x00") {
				t.Errorf("problem without place or message, or of several lines: %q", p.String())
			}
		}
	})
}
