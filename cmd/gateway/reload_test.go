package main

import (
	"bytes"
	"errors"
	"io"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"portcullis/gateway"
	"portcullis/policy"
)

// A reloader over real files, whose looks are taken by the test: no time decides.

// Both policies are of one length.
const (
	firstPolicy  = "p, role:admin, /auth/*, *, allow\np, role:user, /first, GET, allow\n"
	secondPolicy = "p, role:admin, /auth/*, *, allow\np, role:user, /other, GET, allow\n"
	suiteOfBoth  = "principals: {root: {roles: [admin]}}\ntests:\n  - {name: administrators, requests: [GET /auth/users], expect: {root: allow}}\n"
)

type watched struct {
	*reloader
	t   *testing.T
	dir string
	log bytes.Buffer
}

// watch starts a gateway, which nobody connects to, on a policy file; laid says how
// the file comes to be there.
func watch(t *testing.T, lay func(dir string)) *watched {
	t.Helper()
	w := &watched{t: t, dir: t.TempDir()}
	if lay == nil {
		w.write("policy.csv", firstPolicy)
	} else {
		lay(w.dir)
	}
	w.write("gateway.yaml", `
identity:
  store: "file:./data/identity.db"
  tokens: {issuer: "http://localhost:8080", keys: ./data/keys}
  reset: {link: "http://localhost:8080/auth/reset?token={token}"}
policy: {file: policy.csv}
`)
	s := &shared{environment: environment{stdout: io.Discard, stderr: io.Discard}, config: filepath.Join(w.dir, "gateway.yaml")}
	cfg, err := s.load()
	if err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.NewTextHandler(&w.log, nil))
	rules, err := loadPolicy(cfg)
	if err != nil {
		t.Fatal(err)
	}
	accounts, err := openAccounts(t.Context(), cfg, rules, log, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { accounts.close(log) })
	state, err := buildState(cfg, accounts, rules)
	if err != nil {
		t.Fatal(err)
	}
	g := gateway.New(gateway.Config{HeaderBytes: 16 << 10, HeaderTimeout: time.Second, IdleTimeout: time.Second, Log: log, Metrics: prometheus.NewRegistry()}, state)
	w.reloader = &reloader{shared: s, running: cfg, accounts: accounts, gateway: g, log: log}
	w.done = w.digest()
	w.seen = w.done
	return w
}

func (w *watched) write(name, content string) {
	w.t.Helper()
	if err := os.WriteFile(filepath.Join(w.dir, name), []byte(content), 0o600); err != nil {
		w.t.Fatal(err)
	}
}

func (w *watched) do(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

// runs checks what is running: the path that it opens to users.
func (w *watched) runs(want string) {
	w.t.Helper()
	for _, path := range []string{"/first", "/other"} {
		d := w.gateway.Policy().Decide(policy.Caller{Authenticated: true, Roles: []string{"user"}}, "GET", path)
		if d.Allowed != (path == want) {
			w.t.Fatalf("GET %s: allowed is %v, but the policy for %s should be running\n%s", path, d.Allowed, want, w.log.String())
		}
	}
}

func TestAChangedPolicyRunsHoweverItIsWritten(t *testing.T) {
	for _, test := range []struct {
		name   string
		lay    func(w *watched, dir string)
		change func(w *watched)
	}{
		{"written in place", nil, func(w *watched) { w.write("policy.csv", secondPolicy) }},
		{"renamed over it, as editors do", nil, func(w *watched) {
			w.write(".policy.csv.swp", secondPolicy)
			w.do(os.Rename(filepath.Join(w.dir, ".policy.csv.swp"), filepath.Join(w.dir, "policy.csv")))
		}},
		{"moved away and written anew, as other editors do", nil, func(w *watched) {
			w.do(os.Rename(filepath.Join(w.dir, "policy.csv"), filepath.Join(w.dir, "policy.csv~")))
			w.write("policy.csv", secondPolicy)
		}},
		{"with the old size and time", nil, func(w *watched) {
			info, err := os.Stat(filepath.Join(w.dir, "policy.csv"))
			w.do(err)
			w.write("policy.csv", secondPolicy)
			w.do(os.Chtimes(filepath.Join(w.dir, "policy.csv"), info.ModTime(), info.ModTime()))
		}},
		{"a swapped symbolic link, as Kubernetes does", func(w *watched, dir string) {
			w.do(os.Mkdir(filepath.Join(dir, "..v1"), 0o700))
			w.write("..v1/policy.csv", firstPolicy)
			w.do(os.Symlink("..v1", filepath.Join(dir, "..data")))
			w.do(os.Symlink("..data/policy.csv", filepath.Join(dir, "policy.csv")))
		}, func(w *watched) {
			w.do(os.Mkdir(filepath.Join(w.dir, "..v2"), 0o700))
			w.write("..v2/policy.csv", secondPolicy)
			w.do(os.Symlink("..v2", filepath.Join(w.dir, "..data_tmp")))
			w.do(os.Rename(filepath.Join(w.dir, "..data_tmp"), filepath.Join(w.dir, "..data")))
			w.do(os.RemoveAll(filepath.Join(w.dir, "..v1")))
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			var w *watched
			if test.lay == nil {
				w = watch(t, nil)
			} else {
				w = watch(t, func(dir string) { test.lay(&watched{t: t, dir: dir}, dir) })
			}
			w.look()
			w.runs("/first")
			test.change(w)
			w.look()
			w.runs("/first") // it may still be being written
			w.look()
			w.runs("/other")
		})
	}
}

func TestAHalfWrittenPolicyNeverRuns(t *testing.T) {
	w := watch(t, nil)
	half, _, _ := strings.Cut(secondPolicy, "p, role:user")
	half += "p, role:user, /first, GET, allow\np, role:user, /o*"
	for _, part := range []string{secondPolicy[:5], "p, role:admin, /auth/*, *, allow\n", half} {
		w.write("policy.csv", part)
		w.look()
		w.runs("/first")
	}
	w.write("policy.csv", secondPolicy)
	w.look()
	w.runs("/first")
	w.look()
	w.runs("/other")
	if strings.Contains(w.log.String(), "refused") {
		t.Errorf("what was on its way is reported as wrong:\n%s", w.log.String())
	}
	// A file that is written to between the last look and the reading of it.
	w.write("policy.csv", firstPolicy)
	w.look()
	before := w.seen
	w.write("policy.csv", "p, role:admin, /auth/*, *, allow\n")
	w.try()
	w.runs("/other")
	if !maps.Equal(w.seen, before) || maps.Equal(w.done, before) {
		t.Error("the reload counts as tried")
	}
}

func TestAReloadIsRefusedAndTheLastGoodOneStays(t *testing.T) {
	w := watch(t, nil)
	for _, test := range []struct{ name, policy, tests, want string }{
		{"that has errors", firstPolicy + "p, user, /x, GET, allow\n", "", "policy.csv:3:4: error: unknown subject"},
		{"whose tests fail", secondPolicy, suiteOfBoth + "  - {name: all is open, requests: [GET /x], expect: {root: allow}}\n", "want allowed, got denied"},
		{"whose tests make no sense", secondPolicy, "principals: 1\n", "policy.test.yaml:1"},
		{"that locks out every administrator", "p, role:user, /other, GET, allow\n", "", "lock out every administrator (identity.admin_roles): admin may not GET /auth/users: no rule allows it"},
		{"that lets administrators look only", "p, role:admin, /auth/*, GET, allow\n", "", "admin may not PATCH /auth/users/:id"},
		{"that denies it to administrators", secondPolicy + "p, authenticated, /auth/users/:id, PATCH, deny\n", "", "policy.csv:3: p, authenticated, /auth/users/:id, PATCH, deny"},
		{"that opens something to everybody", secondPolicy + "p, anonymous, /reports/*, POST, allow\n", "", "policy.csv:3: error: opens to everybody: anonymous POST /reports/*"},
		{"that acknowledges something else", secondPolicy + "# acknowledge: anonymous POST /reports\np, anonymous, /reports/*, POST, allow\n", "", "opens to everybody: anonymous POST /reports/*"},
	} {
		w.log.Reset()
		w.write("policy.csv", test.policy)
		if test.tests != "" {
			w.write("policy.test.yaml", test.tests)
		}
		w.look()
		w.look()
		w.runs("/first")
		if !strings.Contains(strings.ReplaceAll(w.log.String(), `\n`, "\n"), test.want) {
			t.Errorf("a policy %s: the log is\n%s\nwant %s", test.name, w.log.String(), test.want)
		}
		said := w.log.String()
		w.look()
		w.look()
		if w.log.String() != said {
			t.Errorf("a policy %s: said more than once", test.name)
		}
		w.do(errors.Join(os.RemoveAll(filepath.Join(w.dir, "policy.test.yaml"))))
	}
	// It compares with what runs, not with what was tried.
	w.write("policy.csv", secondPolicy+"# acknowledge: anonymous POST /reports/*\np, anonymous, /reports/*, POST, allow\n")
	w.look()
	w.look()
	w.runs("/other")
}

func TestAFileThatIsGoneOrUnreadableKeepsTheLastGoodOne(t *testing.T) {
	w := watch(t, nil)
	file := filepath.Join(w.dir, "policy.csv")
	for name, spoil := range map[string]func(){
		"gone":        func() { w.do(os.Remove(file)) },
		"unreadable":  func() { w.do(errors.Join(os.Remove(file), os.Symlink("nowhere", file))) },
		"a directory": func() { w.do(errors.Join(os.Remove(file), os.Mkdir(file, 0o700))) },
		"empty":       func() { w.write("policy.csv", "") },
	} {
		w.log.Reset()
		spoil()
		w.look()
		w.look()
		w.runs("/first")
		if !strings.Contains(w.log.String(), "refused") {
			t.Errorf("%s: not a word in the log: %s", name, w.log.String())
		}
		w.do(os.RemoveAll(file))
		w.write("policy.csv", firstPolicy)
		w.look()
		w.look()
		w.runs("/first")
		if !strings.Contains(w.log.String(), "msg=reloaded") {
			t.Errorf("%s, and back again: %s", name, w.log.String())
		}
	}
}

func TestTestsThatChangeAloneAreAReload(t *testing.T) {
	w := watch(t, nil)
	w.write("policy.test.yaml", suiteOfBoth)
	w.look()
	w.look()
	if !strings.Contains(w.log.String(), "msg=reloaded") {
		t.Errorf("not reloaded: %s", w.log.String())
	}
	// Tests that were there and cannot be found are not "no tests".
	w.log.Reset()
	w.do(errors.Join(os.Remove(filepath.Join(w.dir, "policy.test.yaml")), os.Symlink("nowhere", filepath.Join(w.dir, "policy.test.yaml"))))
	w.look()
	w.look()
	if !strings.Contains(w.log.String(), "refused") {
		t.Errorf("a link that leads nowhere is taken for no tests: %s", w.log.String())
	}
	w.do(os.Remove(filepath.Join(w.dir, "policy.test.yaml")))
	w.write("policy.test.yaml", strings.Replace(suiteOfBoth, "allow", "deny", 1))
	w.look()
	w.look()
	if !strings.Contains(w.log.String(), "fails its tests") {
		t.Errorf("not refused: %s", w.log.String())
	}
}

func TestAPolicyOfAnotherNameIsLookedAtWhenItIsRefused(t *testing.T) {
	w := watch(t, nil)
	w.write("other.csv", "p, user, /x, GET, allow\n")
	source, err := os.ReadFile(w.config)
	w.do(err)
	w.write("gateway.yaml", strings.Replace(string(source), "policy.csv", "other.csv", 1))
	for range 4 {
		w.look()
	}
	w.runs("/first")
	w.write("other.csv", secondPolicy)
	w.look()
	w.look()
	w.runs("/other")
	w.log.Reset()
	w.write("policy.csv", "of no concern any more")
	w.look()
	w.look()
	if w.log.Len() > 0 {
		t.Errorf("a file that is not the policy any more is reloaded: %s", w.log.String())
	}
}
