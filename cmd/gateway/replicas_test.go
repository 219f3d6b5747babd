package main

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-json-experiment/json"
)

// replica is one of several gateways on one store.
type replica struct {
	t    *testing.T
	addr string
	log  *lockedBuffer
}

// startReplica starts a gateway on the MongoDB at uri. Replicas of one directory
// have the same keys.
func startReplica(t *testing.T, dir, uri, tasks string, env ...string) *replica {
	t.Helper()
	r := &replica{t: t, addr: freeAddr(t), log: &lockedBuffer{}}
	env = append(append(os.Environ(),
		"GATEWAY_LISTEN="+r.addr, "GATEWAY_ADMIN_LISTEN=", "GATEWAY_UPSTREAMS_TASKS_TARGETS=http://"+tasks,
		"GATEWAY_IDENTITY_STORE="+uri, "GATEWAY_IDENTITY_TOKENS_KEYS="+filepath.Join(dir, "keys"),
		"GATEWAY_IDENTITY_PASSWORD_COST=4"), env...)
	background(t, env, r.log, "gateway", "serve", "-c", "../../gateway.yaml")
	waitFor(t, r.log, `serving`)
	return r
}

// ask makes a request and returns its status, its answer and its Retry-After.
func (r *replica) ask(method, path, token, body string) (int, map[string]any, string) {
	r.t.Helper()
	req, err := http.NewRequestWithContext(r.t.Context(), method, "http://"+r.addr+path, strings.NewReader(body))
	if err != nil {
		r.t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	res, err := (&http.Client{Timeout: patience}).Do(req)
	if err != nil {
		r.t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	answer := map[string]any{}
	b, err := io.ReadAll(res.Body)
	if err != nil {
		r.t.Fatal(err)
	}
	_ = json.Unmarshal(b, &answer) // not every answer is JSON
	return res.StatusCode, answer, res.Header.Get("Retry-After")
}

// signIn registers somebody, unless they are, and returns an access token.
func (r *replica) signIn(name string) string {
	r.t.Helper()
	r.ask("POST", "/auth/register", "", fmt.Sprintf(`{"username":%q,"email":"%s@example.com","password":"correct horse battery"}`, name, name))
	status, grant, _ := r.ask("POST", "/auth/login", "", fmt.Sprintf(`{"username":%q,"password":"correct horse battery"}`, name))
	if status != 200 {
		r.t.Fatalf("login: %d %v", status, grant)
	}
	return grant["access_token"].(string)
}

// okUpstream answers every request with 200.
func okUpstream(t *testing.T) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "{}") }), ReadHeaderTimeout: patience}
	go func() { _ = server.Serve(ln) }()
	t.Cleanup(func() { _ = server.Close() })
	return ln.Addr().String()
}

func testDatabase(t *testing.T) string {
	t.Helper()
	server := mongoURI(t)
	name := fmt.Sprintf("replicas_%x", time.Now().UnixNano())
	t.Cleanup(func() { dropDatabases(t, server, name) })
	return onDatabase(server, name)
}

func TestTwoReplicasAgree(t *testing.T) {
	uri, dir, tasks := testDatabase(t), t.TempDir(), okUpstream(t)
	a, b := startReplica(t, dir, uri, tasks), startReplica(t, dir, uri, tasks)

	t.Run("a logout counts on the other one within its poll", func(t *testing.T) {
		token := a.signIn("ana")
		if status, _, _ := b.ask("GET", "/tasks", token, ""); status != 200 {
			t.Fatalf("before: %d", status)
		}
		if status, _, _ := a.ask("POST", "/auth/logout", token, ""); status != 204 {
			t.Fatalf("logout: %d", status)
		}
		if status, _, _ := a.ask("GET", "/tasks", token, ""); status != 401 {
			t.Errorf("the same replica still answers %d", status)
		}
		start := time.Now()
		for {
			if status, _, _ := b.ask("GET", "/tasks", token, ""); status == 401 {
				break
			}
			if time.Since(start) > patience {
				t.Fatal("the other replica never learns")
			}
			time.Sleep(5 * time.Millisecond)
		}
		t.Logf("refused by the other replica after %v", time.Since(start).Round(time.Millisecond))
	})
	t.Run("failed logins count together", func(t *testing.T) {
		a.signIn("bob")
		for i := range 5 {
			r := []*replica{a, b}[i%2]
			if status, _, _ := r.ask("POST", "/auth/login", "", `{"username":"bob","password":"wrong password"}`); status != 401 {
				t.Fatalf("attempt %d: %d", i, status)
			}
		}
		for _, r := range []*replica{a, b} {
			if status, _, wait := r.ask("POST", "/auth/login", "", `{"username":"bob","password":"correct horse battery"}`); status != 429 || wait == "" {
				t.Errorf("after five: %d, Retry-After %q", status, wait)
			}
		}
	})
}

// byLink returns the store of a new database, behind a link.
func byLink(t *testing.T) (uri string, l *link) {
	t.Helper()
	u, err := url.Parse(testDatabase(t))
	if err != nil {
		t.Fatal(err)
	}
	l = startLink(t, u.Host)
	u.Host = l.addr
	q := u.Query()
	q.Set("directConnection", "true")
	u.RawQuery = q.Encode()
	return u.String(), l
}

func TestAStoreThatGoesAway(t *testing.T) {
	uri, link := byLink(t)
	r := startReplica(t, t.TempDir(), uri, okUpstream(t))
	token := r.signIn("ana")

	link.cut()
	start := time.Now()
	status, answer, wait := r.ask("POST", "/auth/login", "", `{"username":"ana","password":"correct horse battery"}`)
	if status != 503 || wait == "" || answer["code"] != "store_unavailable" {
		t.Errorf("login without a store: %d, Retry-After %q, %v", status, wait, answer)
	}
	t.Logf("refused after %v", time.Since(start).Round(time.Millisecond))
	if status, _, _ := r.ask("GET", "/tasks", token, ""); status != 200 {
		t.Errorf("proxying without a store: %d", status)
	}
	link.restore()
	for end := time.Now().Add(patience); ; time.Sleep(50 * time.Millisecond) {
		if status, _, _ := r.ask("POST", "/auth/login", "", `{"username":"ana","password":"correct horse battery"}`); status == 200 {
			break
		} else if time.Now().After(end) {
			t.Fatalf("the store is back, but a login is answered %d", status)
		}
	}
}

// An operator who would rather serve nobody than somebody who was locked out
// elsewhere says on_store_loss: deny.
func TestAStoreThatGoesAwayForTooLong(t *testing.T) {
	uri, link := byLink(t)
	admin := freeAddr(t)
	r := startReplica(t, t.TempDir(), uri, okUpstream(t), "GATEWAY_ADMIN_LISTEN="+admin,
		"GATEWAY_IDENTITY_REVOCATION_ON_STORE_LOSS=deny", "GATEWAY_IDENTITY_REVOCATION_MAX_STALENESS=1s", "GATEWAY_IDENTITY_REVOCATION_POLL=50ms")
	token := r.signIn("ana")
	answered := func(want int) {
		t.Helper()
		for end := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
			status, answer, wait := r.ask("GET", "/tasks", token, "")
			if status == want && (want != 503 || wait != "" && answer["code"] == "store_unavailable") {
				return
			}
			if time.Now().After(end) {
				t.Fatalf("answered %d, Retry-After %q, %v; want %d", status, wait, answer, want)
			}
		}
	}
	answered(200)
	link.cut()
	answered(503)
	stale := regexp.MustCompile(`(?m)^portcullis_revocations_staleness_seconds ([0-9.]+)$`).FindStringSubmatch(metrics(t, admin))
	if stale == nil {
		t.Fatal("the metrics do not say how stale the revocations are")
	}
	if seconds, err := strconv.ParseFloat(stale[1], 64); err != nil || seconds <= 1 {
		t.Errorf("stale for %s seconds, want more than max_staleness", stale[1])
	}
	link.restore()
	answered(200)
}

func metrics(t *testing.T, admin string) string {
	t.Helper()
	res, err := http.Get("http://" + admin + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// link is a way to a server that can be cut.
type link struct {
	addr, to string
	mu       sync.Mutex
	down     bool
	conns    []net.Conn
}

func startLink(t *testing.T, to string) *link {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := &link{addr: ln.Addr().String(), to: to}
	t.Cleanup(func() { _ = ln.Close(); l.cut() })
	go func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			go l.join(conn)
		}
	}()
	return l
}

func (l *link) join(near net.Conn) {
	far, err := net.Dial("tcp", l.to)
	l.mu.Lock()
	if err != nil || l.down {
		l.mu.Unlock()
		_ = near.Close()
		return
	}
	l.conns = append(l.conns, near, far)
	l.mu.Unlock()
	go func() { _, _ = io.Copy(far, near); _ = far.Close() }()
	_, _ = io.Copy(near, far)
	_ = near.Close()
}

func (l *link) cut() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.down = true
	for _, c := range l.conns {
		_ = c.Close()
	}
	l.conns = nil
}

func (l *link) restore() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.down = false
}
