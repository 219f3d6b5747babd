package main

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"portcullis/gateway"
)

// The pages are held against what they describe.

// readme is that of the repository, or of a room of it.
func readme(t *testing.T, room string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("../..", room, "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// TestReadmeRoad runs the README's lines in a shell, against real servers.
func TestReadmeRoad(t *testing.T) {
	for _, tool := range []string{"bash", "curl", "jq"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("%s is not installed: skipped", tool)
		}
	}
	block := regexp.MustCompile("(?s)```sh\n(.*?)```").FindStringSubmatch(readme(t, ""))
	if block == nil {
		t.Fatal("the README has no sh block")
	}
	dir := t.TempDir()
	edge, operators, tasks := freeAddr(t), freeAddr(t), freeAddr(t)
	proxy := newDescribedProxy("http://" + edge)
	t.Cleanup(func() { proxy.finish(func(problem string) { t.Error(problem) }) })
	env := append(os.Environ(),
		"GATEWAY_LISTEN="+edge, "GATEWAY_ADMIN_LISTEN="+operators, "GATEWAY_UPSTREAMS_TASKS_TARGETS=http://"+tasks,
		"GATEWAY_IDENTITY_STORE=file:"+filepath.Join(dir, "identity.db"), "GATEWAY_IDENTITY_TOKENS_KEYS="+filepath.Join(dir, "keys"),
		"GATEWAY_IDENTITY_PASSWORD_COST=4", "GATEWAY_IDENTITY_COOKIES_ORIGINS="+proxy.URL,
		"TASKS_LISTEN="+tasks, "TASKS_STORE=file:"+filepath.Join(dir, "tasks.db"), "TASKS_JWKS=http://"+edge+jwksPath)
	var log lockedBuffer
	background(t, env, &log, "taskmanager")
	background(t, env, &log, "gateway", "serve", "-c", "../../gateway.yaml", "--create-admin")
	password := waitFor(t, &log, `password +(\S+)`)
	waitFor(t, &log, `serving`)

	// What a reader does by hand: the token of the mail goes into RESET.
	script, afterMail, ok := strings.Cut(block[1], "RESET=the-token-in-the-link\n")
	if !ok {
		t.Fatal("the README's lines do not reset a password any more")
	}
	host := strings.TrimPrefix(proxy.URL, "http://")
	runLines(t, dir, host, "ADMIN_PASSWORD="+password+"\n"+script)
	token := waitFor(t, &log, `reset\?token=(\S+)`)
	runLines(t, dir, host, "RESET="+token+"\n"+afterMail)
}

// runLines runs shell lines in one shell. What a command prints must hold the
// text of the comment "# → …" behind it.
func runLines(t *testing.T, dir, host, lines string) {
	t.Helper()
	var script strings.Builder
	script.WriteString("set -euo pipefail\n")
	var want []string
	part := ""
	for line := range strings.Lines(strings.ReplaceAll(lines, "localhost:8080", host)) {
		text, expects := strings.CutPrefix(line, "# → ")
		if !expects {
			part += line
			continue
		}
		fmt.Fprintf(&script, "{\n%s} >out.%d\n", part, len(want))
		want, part = append(want, strings.TrimSpace(text)), ""
	}
	script.WriteString(part)
	shell := exec.Command("bash", "-c", script.String())
	shell.Dir = dir
	if out, err := shell.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s\n%s", err, out, script.String())
	}
	if len(want) == 0 {
		t.Fatal("no line says what to expect")
	}
	for i, text := range want {
		got, err := os.ReadFile(filepath.Join(dir, fmt.Sprintf("out.%d", i)))
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(string(got), text) {
			t.Errorf("want %s, got\n%s", text, got)
		}
	}
}

func TestReadmeHasTheRefusals(t *testing.T) {
	want := gateway.RefusalTable()
	_, rest, _ := strings.Cut(readme(t, ""), "<!-- refusals: begin -->\n")
	if got, _, ok := strings.Cut(rest, "<!-- refusals: end -->"); !ok || got != want {
		t.Errorf("the README's table of refusals is out of date; it should be\n%s", want)
	}
}

// TestReadmeHasTheMetrics holds the table in cmd/gateway/README.md against what a gateway shows
// after a few requests.
func TestReadmeHasTheMetrics(t *testing.T) {
	i := &instance{t: t, tasks: serveHTTP(t, &countingUpstream{seen: map[string]int{}}), dir: filepath.Join(t.TempDir(), "a")}
	i.start()
	defer i.stop()
	r := &replica{t: t, addr: i.edge}
	token := r.signIn("ana")
	for _, path := range []string{"/tasks?1", "/nowhere"} {
		r.ask("GET", path, token, "")
	}
	res, err := http.Get("http://" + i.operators + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	scraped, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	want := metricsTable(string(scraped))
	_, rest, _ := strings.Cut(readme(t, "cmd/gateway"), "<!-- metrics: begin -->\n")
	if got, _, ok := strings.Cut(rest, "<!-- metrics: end -->"); !ok || got != want {
		t.Errorf("the table of metrics in cmd/gateway/README.md is out of date; it should be\n%s", want)
	}
}

// metricsTable makes a table of the metrics of ours in a scrape.
func metricsTable(scrape string) string {
	var b strings.Builder
	b.WriteString("\n| metric | type | labels | meaning |\n|---|---|---|---|\n")
	for _, m := range regexp.MustCompile(`(?m)^# HELP (portcullis_\S+) (.*)\n# TYPE \S+ (\S+)\n[^{ ]+(?:\{(.*)\})? \S+$`).FindAllStringSubmatch(scrape, -1) {
		var labels []string
		for _, l := range regexp.MustCompile(`([a-z_]+)="`).FindAllStringSubmatch(m[4], -1) {
			if l[1] != "le" {
				labels = append(labels, "`"+l[1]+"`")
			}
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s |\n", m[1], m[3], strings.Join(labels, ", "), m[2])
	}
	b.WriteString("\n")
	return b.String()
}

// background runs a command until the test ends.
func background(t *testing.T, env []string, log *lockedBuffer, name string, args ...string) {
	t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Env, cmd.Stdout, cmd.Stderr = env, log, log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(os.Interrupt)
		if err := cmd.Wait(); err != nil {
			t.Errorf("%s: %v\n%s", name, err, log)
		}
	})
}

// waitFor waits until the log matches, and returns the pattern's last group.
func waitFor(t *testing.T, log *lockedBuffer, pattern string) string {
	t.Helper()
	re := regexp.MustCompile(pattern)
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if m := re.FindStringSubmatch(log.String()); m != nil {
			return m[len(m)-1]
		}
	}
	t.Fatalf("the log does not come to %s:\n%s", pattern, log)
	return ""
}

// lockedBuffer is a log that is written and read at once.
type lockedBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}
