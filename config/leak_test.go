package config

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// What is wrong with a configuration is shown in the log and in /readyz. A secret
// in the wrong place, or in the right one and malformed, must not be.
func TestAWrongConfigurationShowsNoSecret(t *testing.T) {
	const secret = "s3cr3t"
	const good = `
identity:
  store: "file:x.db"
  tokens: {issuer: "http://localhost:8080"}
  reset: {link: "http://localhost:8080/auth/reset?token={token}"}
policy: {file: p.csv}
upstreams: {tasks: {targets: ["http://127.0.0.1:9001"]}}
routes: [{path: /tasks, upstream: tasks}]
`
	const store, target = `store: "file:x.db"`, `http://127.0.0.1:9001`
	smtp := func(rest string) string { return "store: 'file:x.db'\n  mail: {driver: smtp, smtp: " + rest + "}" }
	load := func(t *testing.T, text string, env ...string) error {
		t.Helper()
		file := filepath.Join(t.TempDir(), "gateway.yaml")
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := Load(file, env)
		return err
	}
	for _, replace := range [][2]string{
		{store, `store: "postgres://u:s3cr3t@h/db"`},
		{store, `store: ["mongodb://u:s3cr3t@h/db"]`},
		{store, `store: {uri: "mongodb://u:s3cr3t@h/db"}`},
		{store, `stroe: "mongodb://u:s3cr3t@h/"`},
		{store, `store: "mongodb://u:s3cr3t@h/db`},
		{store, `store: mongodb://u:s3cr3t@h/db: x`},
		{store, `store: !!int mongodb://u:s3cr3t@h/db`},
		{store, smtp(`{host: h, password: [s3cr3t]}`)},
		{store, smtp(`{host: h, password: {s3cr3t: 1}}`)},
		{store, smtp(`{host: h, pasword: s3cr3t}`)},
		{store, smtp(`s3cr3t`)},
		{target, `http://u:s3cr3t@127.0.0.1:9001`},
		{target, `http://u:s3cr3t@127.0.0.1:900x`},
	} {
		err := load(t, strings.Replace(good, replace[0], replace[1], 1))
		if err == nil {
			t.Errorf("%s: accepted", replace[1])
		} else if strings.Contains(err.Error(), secret) {
			t.Errorf("%s: %v", replace[1], err)
		}
	}
	for _, variable := range []string{"GATEWAY_IDENTITY_STORE=s3cr3t://x", "GATEWAY_IDENTITY_MAIL_SMTP_PASSWRD=s3cr3t"} {
		err := load(t, good, variable)
		if err == nil {
			t.Errorf("%s: accepted", variable)
		} else if strings.Contains(err.Error(), secret) {
			t.Errorf("%s: %v", variable, err)
		}
	}
}
