package main

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// The exit status is what CI looks at: "no" must not look like "I could not say".
func TestExitStatusOfPolicyCommands(t *testing.T) {
	t.Chdir(t.TempDir())
	for name, content := range map[string]string{
		"good.csv":       "p, role:user, /tasks, GET, allow\n",
		"good.test.yaml": "principals: {ana: {roles: [user]}}\ntests: [{name: x, requests: [GET /tasks], expect: {ana: allow}}]\n",
		"fail.yaml":      "principals: {ana: {roles: [user]}}\ntests: [{name: x, requests: [GET /tasks]}]\n",
		"warn.csv":       "p, role:user, /tasks, GET, allow\np, role:user, /tasks, GET, allow\n",
		"bad.csv":        "p, user, /tasks, GET, allow\n",
		"other.csv":      "p, role:user, /tasks, PUT, allow\n",
		"log.jsonl":      `{"subject":{"authenticated":true,"roles":["user"]},"method":"GET","path":"/tasks","effect":"allow"}` + "\n",
	} {
		if err := os.WriteFile(filepath.Join(".", name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		status int
		args   string
	}{
		{0, "lint good.csv"},
		{0, "lint warn.csv"},
		{1, "lint warn.csv --strict"},
		{1, "lint bad.csv"},
		{2, "lint missing.csv"},
		{2, "lint"}, // there is no gateway.yaml
		{2, "lint good.csv --users"},
		{2, "lint good.csv --loud"},
		{2, "lint good.csv --output yaml"},
		{0, "test good.csv"},
		{1, "test good.csv --suite fail.yaml"},
		{2, "test good.csv --suite missing.yaml"},
		{2, "test good.csv --cover-min 900"},
		{2, "test bad.csv --suite good.test.yaml"},
		{0, "explain --policy good.csv --role user GET /tasks"},
		{1, "explain --policy good.csv --role user PUT /tasks"},
		{2, "explain --policy bad.csv --role user PUT /tasks"},
		{2, "explain --policy good.csv --role user"},
		{0, "diff good.csv warn.csv"},
		{1, "diff good.csv other.csv"},
		{2, "diff good.csv bad.csv"},
		{2, "diff good.csv"},
		{0, "matrix good.csv --output html"},
		{2, "matrix bad.csv"},
		{0, "replay good.csv --log log.jsonl"},
		{1, "replay other.csv --log log.jsonl"},
		{2, "replay good.csv --log good.csv"},
		{2, "replay good.csv --log missing.jsonl"},
		{2, "replay good.csv"},
		{2, "dif"},
	} {
		var stderr bytes.Buffer
		env := environment{stdin: strings.NewReader(""), stdout: io.Discard, stderr: &stderr}
		if got := run(t.Context(), append([]string{"policy"}, strings.Fields(c.args)...), env); got != c.status {
			t.Errorf("policy %s: status %d, want %d\n%s", c.args, got, c.status, &stderr)
		}
		if failed := c.status == 2; failed != (stderr.Len() > 0) {
			t.Errorf("policy %s: status %d, and standard error says %q", c.args, c.status, &stderr)
		}
	}
}

func TestASlipInTheNameOfACommandIsNoSuccess(t *testing.T) {
	for _, c := range []struct {
		status int
		args   string
	}{{1, "serv"}, {1, "user lst"}, {1, "keys lists"}, {1, "config shema"}, {2, "policy tset"}, {0, "user"}, {0, "policy"}, {0, "help"}} {
		var stdout, stderr bytes.Buffer
		env := environment{stdin: strings.NewReader(""), stdout: &stdout, stderr: &stderr}
		if got := run(t.Context(), strings.Fields(c.args), env); got != c.status || (got == 0) != (stderr.Len() == 0) || (got == 0) != (stdout.Len() > 0) {
			t.Errorf("%s: status %d, want %d\n%s\n%s", c.args, got, c.status, &stdout, &stderr)
		}
	}
}
