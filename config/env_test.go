package config

import (
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestTheEnvironmentWins(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "password"), "hunter2\n")
	write(t, filepath.Join(dir, "windows"), "hunter2\r\n")
	write(t, filepath.Join(dir, "spaces"), "  hunter 2  \n\n")
	smtp := []string{
		"GATEWAY_IDENTITY_MAIL_DRIVER=smtp", "GATEWAY_IDENTITY_MAIL_FROM=a@example.com",
		"GATEWAY_IDENTITY_MAIL_SMTP_HOST=mail.example.com", "GATEWAY_IDENTITY_MAIL_SMTP_USERNAME=a",
	}
	password := func(c *Config) any { return c.Identity.Mail.SMTP.Password.Reveal() }
	tests := map[string]struct {
		env  []string
		get  func(c *Config) any
		want any
	}{
		"over the file": {
			[]string{"GATEWAY_IDENTITY_TOKENS_ISSUER=https://auth.example.com"},
			func(c *Config) any { return c.Identity.Tokens.Issuer }, "https://auth.example.com",
		},
		"over a default": {
			[]string{"GATEWAY_IDENTITY_TOKENS_ACCESS_TTL=5m"},
			func(c *Config) any { return c.Identity.Tokens.AccessTTL }, 5 * time.Minute,
		},
		"in a section that the file does not have": {
			[]string{"GATEWAY_ADMIN_LISTEN=127.0.0.1:9999"},
			func(c *Config) any { return c.Admin.Listen }, "127.0.0.1:9999",
		},
		"with an empty text where that means something": {
			[]string{"GATEWAY_ADMIN_LISTEN="},
			func(c *Config) any { return c.Admin.Listen }, "",
		},
		"with numbers": {
			[]string{"GATEWAY_LIMITS_CONNECTIONS=100"},
			func(c *Config) any { return c.Limits.Connections }, 100,
		},
		"with lists, whose elements have commas between them": {
			[]string{"GATEWAY_TRUSTED_PROXIES=10.0.0.0/8, 192.0.2.1"},
			func(c *Config) any { return c.TrustedProxies },
			[]netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("192.0.2.1/32")},
		},
		"with an empty list": {
			[]string{"GATEWAY_TRUSTED_PROXIES="},
			func(c *Config) any { return len(c.TrustedProxies) }, 0,
		},
		"in an upstream of the file": {
			[]string{"GATEWAY_UPSTREAMS_TASKS_TARGETS=http://a:1,http://b:2"},
			func(c *Config) any {
				u := c.Upstreams["tasks"].Targets
				return u[0].String() + " " + u[1].String()
			}, "http://a:1 http://b:2",
		},
		"in an upstream whose name has a hyphen": {
			[]string{"GATEWAY_UPSTREAMS_MAIL_OUT_HEALTH_PATH=/up"},
			func(c *Config) any { return c.Upstreams["mail-out"].Health.Path }, "/up",
		},
		"with the later of two": {
			[]string{"GATEWAY_LISTEN=:1", "GATEWAY_LISTEN=:2"},
			func(c *Config) any { return c.Listen }, ":2",
		},
		"with a store": {
			[]string{"GATEWAY_IDENTITY_STORE=mongodb://u:p@db.internal/gateway"},
			func(c *Config) any { return c.Identity.Store.File + c.Identity.Store.MongoDB.Reveal() },
			"mongodb://u:p@db.internal/gateway",
		},
		"with a secret from a file, less its newline": {
			append([]string{"GATEWAY_IDENTITY_MAIL_SMTP_PASSWORD_FILE=" + dir + "/password"}, smtp...), password, "hunter2",
		},
		"with a secret from a file of another system": {
			append([]string{"GATEWAY_IDENTITY_MAIL_SMTP_PASSWORD_FILE=" + dir + "/windows"}, smtp...), password, "hunter2",
		},
		"with a secret whose spaces count": {
			append([]string{"GATEWAY_IDENTITY_MAIL_SMTP_PASSWORD=  hunter 2  "}, smtp...), password, "  hunter 2  ",
		},
		"with a store from a file, relative to the configuration": {
			[]string{"GATEWAY_IDENTITY_STORE_FILE=store.txt"},
			func(c *Config) any { return c.Identity.Store.MongoDB.Reveal() }, "mongodb+srv://u:p@db.internal",
		},
		"and what is of others stays theirs": {
			[]string{
				"HOME=/root", "GATEWAYS=1", "nonsense", "MYGATEWAY_LISTEN=:1",
				// What Kubernetes tells of Services called gateway and gateway-tasks.
				"GATEWAY_SERVICE_HOST=10.0.0.1", "GATEWAY_SERVICE_PORT=80", "GATEWAY_SERVICE_PORT_HTTP=80",
				"GATEWAY_PORT=tcp://10.0.0.1:80", "GATEWAY_PORT_80_TCP=tcp://10.0.0.1:80",
				"GATEWAY_PORT_80_TCP_PROTO=tcp", "GATEWAY_PORT_80_TCP_PORT=80", "GATEWAY_PORT_80_TCP_ADDR=10.0.0.1",
				"GATEWAY_TASKS_SERVICE_HOST=10.0.0.2",
			},
			func(c *Config) any { return c.Listen }, ":8080",
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			c, err := Load("testdata/env/gateway.yaml", tt.env)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, tt.get(c), cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestWhatIsWrongInTheEnvironmentNamesTheVariable(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "empty"), "\n")
	write(t, filepath.Join(dir, "two-lines"), "hunter2\nhunter3\n")
	write(t, filepath.Join(dir, "large"), strings.Repeat("x", maxSecret+1))
	passwordFile := func(name string) []string {
		return []string{"GATEWAY_IDENTITY_MAIL_SMTP_PASSWORD_FILE=" + filepath.Join(dir, name)}
	}
	tests := map[string]struct {
		env  []string
		want string // DIR stands for the directory of the secrets
	}{
		"a value of the wrong form": {
			[]string{"GATEWAY_IDENTITY_TOKENS_ACCESS_TTL=15min"},
			`GATEWAY_IDENTITY_TOKENS_ACCESS_TTL: identity.tokens.access_ttl: "15min" is not a duration such as 500ms, 15m or 7d`,
		},
		"a value out of bounds": {
			[]string{"GATEWAY_IDENTITY_PASSWORD_COST=99"},
			`GATEWAY_IDENTITY_PASSWORD_COST: identity.password.cost: "99" is more than 16`,
		},
		"an empty value that means nothing": {
			[]string{"GATEWAY_LISTEN="},
			`GATEWAY_LISTEN: listen: must not be empty`,
		},
		"a boolean that is spelled in another way": {
			[]string{"GATEWAY_IDENTITY_REGISTRATION=yes"},
			`GATEWAY_IDENTITY_REGISTRATION: identity.registration: "yes" is not open or closed`,
		},
		"an element of a list": {
			[]string{"GATEWAY_TRUSTED_PROXIES=10.0.0.0/8,localhost"},
			`GATEWAY_TRUSTED_PROXIES: trusted_proxies: "localhost" is not an address or a network such as 10.0.0.0/8`,
		},
		"an empty list where one element is needed": {
			[]string{"GATEWAY_IDENTITY_ADMIN_ROLES= , "},
			`GATEWAY_IDENTITY_ADMIN_ROLES: identity.admin_roles: must have an element`,
		},
		"a value that breaks a rule together with one of the file": {
			[]string{"GATEWAY_IDENTITY_SESSION_TTL=1h"},
			`GATEWAY_IDENTITY_SESSION_TTL: identity.session_ttl: must not be less than tokens.refresh_ttl`,
		},
		"a byte that is no text": {
			[]string{"GATEWAY_IDENTITY_TOKENS_AUDIENCE=a\xff"},
			`GATEWAY_IDENTITY_TOKENS_AUDIENCE: identity.tokens.audience: must not have control characters`,
		},
		"an unknown variable, and what it may mean": {
			[]string{"GATEWAY_IDENTITY_TOKEN_ACCESS_TTL=5m", "GATEWAY_DEBUG=1"},
			"GATEWAY_DEBUG: sets no key of gateway.yaml\n" +
				"GATEWAY_IDENTITY_TOKEN_ACCESS_TTL: sets no key of gateway.yaml, did you mean GATEWAY_IDENTITY_TOKENS_ACCESS_TTL?",
		},
		"somebody who asks and is not trusted": {
			[]string{"GATEWAY_FORWARD_AUTH_PROXY=nginx", "GATEWAY_TRUSTED_PROXIES=10.0.0.7", "GATEWAY_FORWARD_AUTH_FROM=10.0.0.7, 10.0.0.8"},
			`GATEWAY_FORWARD_AUTH_FROM: forward_auth.from[1]: "10.0.0.8" is none of trusted_proxies, did you mean 10.0.0.7?`,
		},
		"an upstream that the file does not have": {
			[]string{"GATEWAY_UPSTREAMS_TASK_TARGETS=http://a:1"},
			"GATEWAY_UPSTREAMS_TASK_TARGETS: sets no key of gateway.yaml, did you mean GATEWAY_UPSTREAMS_TASKS_TARGETS?",
		},
		"a section or a route, which have no variable": {
			[]string{"GATEWAY_LIMITS=1", "GATEWAY_ROUTES_0_PATH=/x"},
			"GATEWAY_LIMITS: sets no key of gateway.yaml\nGATEWAY_ROUTES_0_PATH: sets no key of gateway.yaml",
		},
		"a file for what is no secret": {
			[]string{"GATEWAY_LISTEN_FILE=/etc/hostname"},
			"GATEWAY_LISTEN_FILE: sets no key of gateway.yaml",
		},
		"a port that is not of Kubernetes": {
			[]string{"GATEWAY_IDENTITY_MAIL_PORT=25"},
			"GATEWAY_IDENTITY_MAIL_PORT: sets no key of gateway.yaml",
		},
		"a secret that is given twice": {
			append([]string{"GATEWAY_IDENTITY_MAIL_SMTP_PASSWORD=x"}, passwordFile("two-lines")...),
			"GATEWAY_IDENTITY_MAIL_SMTP_PASSWORD_FILE: identity.mail.smtp.password: is set beside GATEWAY_IDENTITY_MAIL_SMTP_PASSWORD; only one of them can be meant",
		},
		"a secret that is not there": {
			passwordFile("none"),
			"GATEWAY_IDENTITY_MAIL_SMTP_PASSWORD_FILE: identity.mail.smtp.password: its file cannot be read: stat DIR/none: no such file or directory",
		},
		"a secret that would be waited for": {
			[]string{"GATEWAY_IDENTITY_MAIL_SMTP_PASSWORD_FILE=/dev/zero"},
			"GATEWAY_IDENTITY_MAIL_SMTP_PASSWORD_FILE: identity.mail.smtp.password: its file cannot be read: /dev/zero is not a regular file",
		},
		"a secret that is too large to be one": {
			passwordFile("large"),
			"GATEWAY_IDENTITY_MAIL_SMTP_PASSWORD_FILE: identity.mail.smtp.password: its file cannot be read: DIR/large is larger than 64 KiB",
		},
		"a secret that is empty": {
			passwordFile("empty"),
			"GATEWAY_IDENTITY_MAIL_SMTP_PASSWORD_FILE: identity.mail.smtp.password: its file is empty",
		},
		"a secret of two lines, without showing it": {
			passwordFile("two-lines"),
			"GATEWAY_IDENTITY_MAIL_SMTP_PASSWORD_FILE: identity.mail.smtp.password: must not have control characters",
		},
		"a store, without showing it": {
			[]string{"GATEWAY_IDENTITY_STORE=postgres://u:hunter2@db"},
			"GATEWAY_IDENTITY_STORE: identity.store: the value is not file:PATH, mongodb://… or mongodb+srv://…",
		},
		"a URL with a password, without showing it": {
			[]string{"GATEWAY_UPSTREAMS_TASKS_TARGETS=http://u:hunter2@db"},
			"GATEWAY_UPSTREAMS_TASKS_TARGETS: upstreams.tasks.targets: the value must not hold a user name or password",
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			c, err := Load("testdata/env/gateway.yaml", tt.env)
			if !errors.As(err, new(*Error)) {
				t.Fatalf("got %v and error %v, want problems", c, err)
			}
			if diff := cmp.Diff(tt.want, strings.ReplaceAll(err.Error(), dir, "DIR")); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// What the environment gives is not looked at in the file, so that a file can
// leave to the environment what it must not know.
func TestTheEnvironmentGivesWhatTheFileLacks(t *testing.T) {
	env := []string{
		"GATEWAY_IDENTITY_STORE=file:identity.db", "GATEWAY_IDENTITY_TOKENS_ISSUER=http://localhost",
		"GATEWAY_IDENTITY_RESET_LINK=http://localhost/{token}", "GATEWAY_POLICY_FILE=policy.csv",
	}
	c, err := decode("dir/gateway.yaml", []byte(`identity: {store: "", tokens: {issuer: }}`), env)
	if err != nil {
		t.Fatal(err)
	}
	if c.Policy.File != "dir/policy.csv" || c.Identity.Store.File != "dir/identity.db" {
		t.Errorf("files of the environment are not relative to the configuration: %s, %s", c.Policy.File, c.Identity.Store.File)
	}
}

// No two keys may be set by one variable, whatever the upstreams are called.
func TestEachVariableMeansOneKey(t *testing.T) {
	seen := map[string]string{}
	walk(keysOf(reflect.TypeFor[Config]()), "", func(k key, path string) {
		if k.shape != scalar && k.shape != list || strings.Contains(path, "[") {
			return
		}
		variables := []string{variable(path)}
		if k.format.secret {
			variables = append(variables, variable(path)+fileSuffix)
		}
		for _, v := range variables {
			if other, taken := seen[v]; taken {
				t.Errorf("%s sets both %s and %s", v, other, path)
			}
			seen[v] = path
		}
	})
	// In GATEWAY_UPSTREAMS_A_B_C the name may be a or a-b: no key of an upstream
	// may end with an underscore and another.
	var keys []string
	for v := range seen {
		if k, ok := strings.CutPrefix(v, "GATEWAY_UPSTREAMS_NAME_"); ok {
			keys = append(keys, k)
		}
	}
	if len(keys) == 0 {
		t.Fatal("upstreams have no variables")
	}
	for _, a := range keys {
		for _, b := range keys {
			if strings.HasSuffix(a, "_"+b) {
				t.Errorf("GATEWAY_UPSTREAMS_X_%s could be the key %s of the upstream x or %s of another", a, a, b)
			}
		}
	}
}

// walk calls f for every key with its path, in which NAME stands for names.
func walk(keys []key, path string, f func(k key, path string)) {
	for _, k := range keys {
		at := join(path, k.name)
		f(k, at)
		switch k.shape {
		case sections:
			walk(k.keys, at+"[]", f)
		case named:
			walk(k.keys, at+".NAME", f)
		default:
			walk(k.keys, at, f)
		}
	}
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}
