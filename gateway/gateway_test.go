package gateway

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"portcullis/identity"
	"portcullis/identity/boltstore"
	"portcullis/policy"
)

// The edge, over real sockets: what is sent, what comes back, and what the
// upstream saw.

const testPolicy = `
p, anonymous,     /public/*,        *,        allow
p, anonymous,     /auth/login,      POST,     allow
p, anonymous,     /auth/register,   POST,     allow
p, anonymous,     /auth/refresh,    POST,     allow
p, anonymous,     /.well-known/jwks.json, GET, allow
p, authenticated, /auth/*,          *,        allow
p, role:user,     /tasks/*,         *,        allow
p, role:admin,    /admin/*,         *,        allow
p, role:user,     /tasks/secret,    *,        deny
p, perm:tasks.write, /nowhere,      GET,      allow
g, role:user,     perm:tasks.write
`

// testGateway is a gateway with an upstream that records what it sees.
type testGateway struct {
	t       testing.TB
	gateway *Gateway
	service *identity.Service
	addr    string
	config  StateConfig
	log     *lockedLog
	metrics *prometheus.Registry

	mu   sync.Mutex
	seen []string // heads of requests, as they came over the wire
}

type lockedLog struct {
	mu   sync.Mutex
	buf  bytes.Buffer
	deaf bool // keeps nothing, for tests of more requests than memory
}

func (l *lockedLog) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.deaf {
		return len(p), nil
	}
	return l.buf.Write(p)
}

func (l *lockedLog) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

// startGateway starts a gateway in front of an upstream that answers every request
// with 200 and its own idea of the path.
func startGateway(t testing.TB, change ...func(*StateConfig)) *testGateway {
	t.Helper()
	return startGatewayAs(t, func(*Config) {}, change...)
}

func startGatewayAs(t testing.TB, adjust func(*Config), change ...func(*StateConfig)) *testGateway {
	t.Helper()
	e := newTestGateway(t, adjust, change...)
	e.serve()
	return e
}

// newTestGateway is a gateway that does not serve yet.
func newTestGateway(t testing.TB, adjust func(*Config), change ...func(*StateConfig)) *testGateway {
	t.Helper()
	e := &testGateway{t: t, log: &lockedLog{}, metrics: prometheus.NewRegistry()}
	rules, err := policy.Parse("test.csv", []byte(testPolicy))
	if err != nil {
		t.Fatal(err)
	}
	e.service = startIdentity(t, rules, slog.New(slog.NewTextHandler(e.log, nil)))
	e.config = StateConfig{
		Policy: rules, Identity: e.service, Prefix: "/auth",
		Upstreams: []UpstreamConfig{{Name: "up", Targets: []*url.URL{{Scheme: "http", Host: e.startUpstream()}}}},
		Routes:    []RouteConfig{{Path: "/tasks", Upstream: "up"}, {Path: "/admin", Upstream: "up"}, {Path: "/public", Upstream: "up"}},
	}
	for _, c := range change {
		c(&e.config)
	}
	state, err := NewState(e.config)
	if err != nil {
		t.Fatal(err)
	}
	cfg := Config{HeaderBytes: 16 << 10, HeaderTimeout: 5 * time.Second, IdleTimeout: 5 * time.Second,
		Log: slog.New(slog.NewTextHandler(e.log, nil)), Metrics: e.metrics}
	adjust(&cfg)
	e.gateway = New(cfg, state)
	return e
}

func (e *testGateway) serve() {
	e.t.Helper()
	e.serveOn(func(ln net.Listener) net.Listener { return ln })
}

// serveOn serves through what wrap makes of a listener.
func (e *testGateway) serveOn(wrap func(net.Listener) net.Listener) {
	e.t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		e.t.Fatal(err)
	}
	e.addr = ln.Addr().String()
	served := make(chan error, 1)
	go func() { served <- e.gateway.Serve(wrap(ln)) }()
	e.t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := errors.Join(e.gateway.Shutdown(ctx), <-served); err != nil {
			e.t.Error(err)
		}
	})
}

// A Serve that has only just begun, or begins too late, ends as well.
func TestAShutdownEndsAServeThatHasOnlyJustBegun(t *testing.T) {
	for range 10 {
		t.Run("", func(t *testing.T) { startGateway(t) }) // whose Cleanup waits for Serve to end
	}
}

// inMemory is a temporary directory without a disk, where there is such a thing:
// what a store's waiting for the disk is good for is tested in its own package.
func inMemory(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "portcullis-test-") //nolint:usetesting // TempDir is on a disk
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

func mustParsePolicy(t testing.TB, source string) *policy.Policy {
	t.Helper()
	p, err := policy.Parse("test.csv", []byte(source))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func startIdentity(t testing.TB, roles identity.Roles, log *slog.Logger) *identity.Service {
	t.Helper()
	dir := inMemory(t)
	store, err := boltstore.Open(filepath.Join(dir, "identity.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = store.Close() })
	keys, err := identity.OpenKeyring(filepath.Join(dir, "keys"), identity.EdDSA)
	if err != nil {
		t.Fatal(err)
	}
	hasher, err := identity.NewHasher(identity.PasswordConfig{Hash: "bcrypt", Cost: 4, Workers: 2, Queue: 64})
	if err != nil {
		t.Fatal(err)
	}
	revocations := identity.NewRevocations(identity.RevocationConfig{}, store, log)
	tokens := identity.NewTokens(identity.TokensConfig{Issuer: "http://gateway.test", Audience: "api", AccessTTL: 15 * time.Minute}, keys, revocations)
	return identity.NewService(identity.Config{
		Registration: true, AdminRoles: []string{"admin"}, SuperRole: "superadmin", Passwords: identity.PasswordRules{MinLength: 8},
		RefreshTTL: time.Hour, RefreshGrace: 10 * time.Second, SessionTTL: time.Hour, ResetTTL: time.Hour, VerifyTTL: time.Hour,
		AuditTTL: time.Hour,
	}, store, tokens, revocations, hasher, roles, nil, log)
}

// startUpstream reads requests off the wire by itself, so that nothing that a
// library would repair is hidden.
func (e *testGateway) startUpstream() string {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		e.t.Fatal(err)
	}
	e.t.Cleanup(func() { _ = ln.Close() })
	go func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			go e.answer(conn)
		}
	}()
	return ln.Addr().String()
}

func (e *testGateway) answer(conn net.Conn) {
	defer func() { _ = conn.Close() }()
	r := bufio.NewReader(conn)
	for {
		var head strings.Builder
		length, chunked := 0, false
		for {
			line, err := r.ReadString('\n')
			if err != nil {
				return
			}
			if n, ok := strings.CutPrefix(strings.ToLower(line), "content-length: "); ok {
				length, _ = strconv.Atoi(strings.TrimSpace(n))
			}
			chunked = chunked || strings.EqualFold(line, "Transfer-Encoding: chunked\r\n")
			if line == "\r\n" {
				break
			}
			head.WriteString(line)
		}
		// What is left behind would be taken for another request, sooner or later.
		body := io.LimitReader(r, int64(length))
		if chunked {
			body = httputil.NewChunkedReader(r)
		}
		if n, err := io.Copy(io.Discard, body); err != nil || n < int64(length) {
			return
		}
		if chunked {
			if end, err := r.ReadString('\n'); err != nil || end != "\r\n" { // we send no trailers
				return
			}
		}
		e.mu.Lock()
		e.seen = append(e.seen, head.String())
		e.mu.Unlock()
		if _, err := io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX-Gateway-Error: forged\r\nX-Identity-Assertion: echoed\r\nX-Up: yes\r\n\r\nok"); err != nil {
			return
		}
	}
}

// requests returns and forgets what the upstream has seen.
func (e *testGateway) requests() []string {
	e.mu.Lock()
	defer e.mu.Unlock()
	seen := e.seen
	e.seen = nil
	return seen
}

// token registers a user with these roles and signs them in.
func (e *testGateway) token(name string, roles ...string) string {
	e.t.Helper()
	ctx := context.Background()
	if _, err := e.service.CreateUser(ctx, identity.NewUser{Username: name, Email: name + "@example.com", Password: "correct horse", Roles: roles}, identity.Client{}); err != nil {
		e.t.Fatal(err)
	}
	grant, err := e.service.Login(ctx, name, "correct horse", identity.Client{IP: "192.0.2.1"})
	if err != nil {
		e.t.Fatal(err)
	}
	return grant.AccessToken
}

// send writes raw bytes, reads one answer, and hangs up. It returns when the gateway has
// noticed, so that it has recorded what it does behind an answer.
func (e *testGateway) send(raw string) (res *http.Response, body string) {
	e.t.Helper()
	others := e.gateway.clients.count()
	conn := e.dialTCP()
	res, body, _ = e.exchange(conn, raw)
	_ = conn.Close()
	// Others may come meanwhile, and a test that sends beside them waits by itself.
	for end := time.Now().Add(2 * time.Second); e.gateway.clients.count() > others && time.Now().Before(end); {
		time.Sleep(100 * time.Microsecond)
	}
	return res, body
}

// sendAndHold leaves the connection open instead: closed waits a moment, counted from
// the answer, for the gateway to end it, and says whether it has.
func (e *testGateway) sendAndHold(raw string) (res *http.Response, body string, closed func() bool) {
	e.t.Helper()
	conn := e.dialTCP()
	res, body, r := e.exchange(conn, raw)
	answered := time.Now()
	return res, body, func() bool {
		const moment = 100 * time.Millisecond
		_ = conn.SetReadDeadline(time.Now().Add(max(moment-time.Since(answered), moment/5)))
		_, err := r.ReadByte()
		return err != nil && !errors.Is(err, os.ErrDeadlineExceeded)
	}
}

func (e *testGateway) exchange(conn net.Conn, raw string) (*http.Response, string, *bufio.Reader) {
	e.t.Helper()
	if _, err := io.WriteString(conn, raw); err != nil {
		e.t.Fatal(err)
	}
	r := bufio.NewReader(conn)
	method, _, _ := strings.Cut(strings.TrimLeft(raw, "\r\n"), " ")
	res, err := http.ReadResponse(r, &http.Request{Method: method})
	if err != nil {
		e.t.Fatalf("no answer to %q: %v", raw, err)
	}
	b, err := io.ReadAll(res.Body)
	if err != nil {
		e.t.Fatal(err)
	}
	return res, string(b), r
}

// get makes a request from field lines.
func get(target string, fields ...string) string {
	return "GET " + target + " HTTP/1.1\r\nHost: gateway.test\r\n" + strings.Join(append(fields, "", ""), "\r\n")
}

func TestTheOrderOfRefusals(t *testing.T) {
	e := startGateway(t)
	user, admin := "Authorization: Bearer "+e.token("uma", "user"), "Authorization: Bearer "+e.token("ada", "admin")
	for name, tc := range map[string]struct {
		raw    string
		status int
		code   code
	}{
		"a path with two readings comes first":            {get("/tasks/../admin", "Authorization: Bearer nonsense"), 400, codePathNotCanonical},
		"then a bad token, even where none is needed":     {get("/public/x", "Authorization: Bearer nonsense"), 401, codeInvalidToken},
		"then the policy: a stranger is asked to sign in": {get("/tasks"), 401, codeUnauthenticated},
		"a stranger learns nothing about routes":          {get("/no/such/route"), 401, codeUnauthenticated},
		"somebody is told no":                             {get("/admin/x", user), 403, codeForbidden},
		"a denied path is denied":                         {get("/tasks/secret", user), 403, codeForbidden},
		"only then the route":                             {get("/auth/none", user), 404, codeNotFound},
		"another scheme is no token":                      {get("/public/x", "Authorization: Basic YTpi"), 401, codeInvalidToken},
		"an empty token is no token":                      {get("/public/x", "Authorization: Bearer "), 401, codeInvalidToken},
		"two tokens are none":                             {get("/tasks", user, admin), 400, codeMalformedRequest},
		"a target with an authority of its own":           {get("http://other.test/public/x"), 400, codePathNotCanonical},
		"a method of ours that is not there":              {get("/auth/logout", user), 405, codeMethodNotAllowed},
		"an unknown method":                               {"BREW /public/x HTTP/1.1\r\nHost: a\r\n\r\n", 501, codeMethodUnknown},
		"CONNECT is not for us":                           {"CONNECT example.com:80 HTTP/1.1\r\nHost: example.com:80\r\n\r\n", 501, codeMethodUnknown},
		"TRACE is not for us":                             {"TRACE /public/x HTTP/1.1\r\nHost: a\r\n\r\n", 501, codeMethodUnknown},
		"a host with a slash":                             {"GET /public/x HTTP/1.1\r\nHost: a/b\r\n\r\n", 400, codeMalformedRequest},
	} {
		t.Run(name, func(t *testing.T) {
			res, body := e.send(tc.raw)
			if res.StatusCode != tc.status || res.Header.Get(fieldGatewayError) != string(tc.code) {
				t.Fatalf("got %d %s, want %d %s\n%s", res.StatusCode, res.Header.Get(fieldGatewayError), tc.status, tc.code, body)
			}
			if ct := res.Header.Get("Content-Type"); ct != "application/problem+json" {
				t.Errorf("content type %q", ct)
			}
			challenge := res.Header.Get("WWW-Authenticate")
			switch want := ""; {
			case tc.code == codeInvalidToken:
				want = `Bearer error="invalid_token"`
				fallthrough
			case tc.code == codeUnauthenticated:
				if want == "" {
					want = "Bearer"
				}
				if challenge != want {
					t.Errorf("challenge %q, want %q", challenge, want)
				}
			case challenge != "":
				t.Errorf("challenge %q", challenge)
			}
			if seen := e.requests(); len(seen) != 0 {
				t.Errorf("the upstream saw %q", seen)
			}
		})
	}
}

func TestTheUpstreamIsToldWhoCalls(t *testing.T) {
	e := startGateway(t)
	token := e.token("uma", "user")
	res, body := e.send(get("/tasks/1?a=b%20c&d", "Authorization: Bearer "+token, "X-Custom: kept"))
	if res.StatusCode != 200 || body != "ok" || res.Header.Get("X-Up") != "yes" {
		t.Fatalf("%d %s", res.StatusCode, body)
	}
	if res.Header.Get(fieldGatewayError) != "" || res.Header.Get(fieldAssertion) != "" {
		t.Error("the upstream's forgery or echo reached the client")
	}
	seen := e.requests()
	if len(seen) != 1 {
		t.Fatalf("the upstream saw %q", seen)
	}
	p, err := e.service.Tokens().Verify([]byte(token))
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{
		"GET /tasks/1?a=b%20c&d HTTP/1.1", "X-Custom: kept",
		"X-User-Id: " + p.UserID, "X-User-Name: uma", "X-User-Email: uma@example.com", "X-User-Roles: user",
		"X-User-Permissions: tasks.write", "X-Session-Id: " + p.SessionID, "X-Request-Id: " + res.Header.Get(fieldRequestID),
		"X-Forwarded-For: 127.0.0.1", "X-Forwarded-Proto: http", "X-Forwarded-Host: gateway.test",
	} {
		if !strings.Contains(seen[0], line+"\r\n") {
			t.Errorf("missing %q in\n%s", line, seen[0])
		}
	}
	for _, name := range []string{fieldAssertion + ": ey", fieldTraceparent + ": 00-"} {
		if !strings.Contains(seen[0], "\r\n"+name) {
			t.Errorf("missing %q in\n%s", name, seen[0])
		}
	}
	if strings.Contains(seen[0], "Authorization") || strings.Contains(seen[0], token) {
		t.Error("the client's token was passed on")
	}
}

func TestForAStrangerTheUserFieldsAreAbsent(t *testing.T) {
	e := startGateway(t)
	e.send(get("/public/x", "X-User-Id: 1", "x-user-roles: admin", "X_Session_Id: 2", "X.Identity.Assertion: 3"))
	seen := e.requests()
	if len(seen) != 1 {
		t.Fatalf("the upstream saw %q", seen)
	}
	for _, name := range []string{"user", "session", "assertion"} {
		if strings.Contains(strings.ToLower(seen[0]), name) {
			t.Errorf("%s in\n%s", name, seen[0])
		}
	}
}

// Peers had advisories for each of these; here it is one table for every kind of
// route that forwards.
func TestNoSpellingOfAnIdentityFieldGetsThrough(t *testing.T) {
	e := startGateway(t)
	token := "Authorization: Bearer " + e.token("uma", "user")
	forged := []string{"X-User-Id: forged", "x-user-id: forged", "X_USER_ID: forged", "X.User.Id: forged", "X-User_Id: forged", "X~User~Id: forged",
		"X-User-Roles: forged", "X_User_Roles: forged", "X-Identity-Assertion: forged", "X_Identity_Assertion: forged",
		"X-User-Permissions: forged", "X-User-Tenant: forged", "X-Session-Id: forged", "X-User-Email: forged", "X-User-Name: forged",
		"X-Forwarded-For: 203.0.113.9", "Forwarded: for=203.0.113.9", "X-Real-IP: 203.0.113.9", "X-Forwarded-User: forged",
		"X-Auth-Request-User: forged", "Remote-User: forged", "X-Consumer-Username: forged", "X-HTTP-Method-Override: DELETE",
		"X-Original-URL: /admin", "X-Rewrite-URL: /admin", "X-Request-Id: forged", "traceparent: forged"}
	for route, fields := range map[string][]string{"/tasks/1": {token}, "/public/x": {}} {
		for _, extra := range [][]string{{}, {"Connection: X-User-Id, X-User-Roles, X-Identity-Assertion, X-Forwarded-For, X-Request-Id"},
			{"Connection: keep-alive, upgrade", "Upgrade: websocket"}, {"Trailer: X-User-Id"}} {
			res, body := e.send(get(route, slices.Concat(fields, forged, extra)...))
			if res.StatusCode != 200 {
				t.Fatalf("%s: %d %s", route, res.StatusCode, body)
			}
			seen := e.requests()
			if len(seen) != 1 {
				t.Fatalf("the upstream saw %q", seen)
			}
			for _, bad := range []string{"forged", "203.0.113.9", "DELETE", "/admin"} {
				if strings.Contains(seen[0], bad) {
					t.Errorf("%s with %v: %s in\n%s", route, extra, bad, seen[0])
				}
			}
			if route == "/tasks/1" && !strings.Contains(seen[0], "X-User-Name: uma\r\n") {
				t.Errorf("%v took our own away:\n%s", extra, seen[0])
			}
		}
	}
}

// rawBytes turns lines into bytes: each ends with CRLF, unless with a backslash;
// escapes are Go's.
func rawBytes(t testing.TB, lines string) string {
	t.Helper()
	var b strings.Builder
	for line := range strings.Lines(lines) {
		line = strings.TrimSuffix(line, "\n")
		text, open := strings.CutSuffix(line, `\`)
		bytes, err := strconv.Unquote(`"` + strings.ReplaceAll(text, `"`, `\"`) + `"`)
		if err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		b.WriteString(bytes)
		if !open {
			b.WriteString("\r\n")
		}
	}
	return b.String()
}

func TestForwardedForIsBelievedFromTrustedProxiesOnly(t *testing.T) {
	for name, tc := range map[string]struct {
		trusted, sent, want, client string
	}{
		"nobody is trusted by default": {"", "203.0.113.9", "127.0.0.1", "127.0.0.1"},
		"a trusted proxy is believed":  {"127.0.0.0/8", "203.0.113.9", "203.0.113.9, 127.0.0.1", "203.0.113.9"},
		"only as far as it is trusted": {"127.0.0.0/8", "10.1.1.1, 203.0.113.9", "10.1.1.1, 203.0.113.9, 127.0.0.1", "203.0.113.9"},
		"through several proxies":      {"127.0.0.0/8,10.0.0.0/8", "6.6.6.6, 203.0.113.9, 10.1.1.1", "6.6.6.6, 203.0.113.9, 10.1.1.1, 127.0.0.1", "203.0.113.9"},
		"nonsense is nobody's address": {"127.0.0.0/8", "unknown", "unknown, 127.0.0.1", "127.0.0.1"},
	} {
		t.Run(name, func(t *testing.T) {
			e := startGateway(t, func(c *StateConfig) { c.TrustedProxies = prefixes(t, tc.trusted) })
			e.send(get("/public/x", "X-Forwarded-For: "+tc.sent))
			seen := e.requests()
			if len(seen) != 1 || !strings.Contains(seen[0], "X-Forwarded-For: "+tc.want+"\r\n") {
				t.Errorf("want %s in %q", tc.want, seen)
			}
			waitUntil(t, func() bool { return strings.Contains(e.log.String(), "msg=request") }) // the answer may come first
			if want := "ip=" + tc.client + " "; !strings.Contains(e.log.String(), want) {
				t.Errorf("want %s in\n%s", want, e.log)
			}
		})
	}
}

func prefixes(t testing.TB, list string) []netip.Prefix {
	t.Helper()
	var all []netip.Prefix
	for _, text := range strings.FieldsFunc(list, func(r rune) bool { return r == ',' }) {
		p, err := netip.ParsePrefix(text)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
	}
	return all
}

func TestARevokedTokenIsRefusedOnItsNextRequest(t *testing.T) {
	e := startGateway(t)
	token := e.token("uma", "user")
	if res, _ := e.send(get("/tasks", "Authorization: Bearer "+token)); res.StatusCode != 200 {
		t.Fatal(res.Status)
	}
	res, body := e.send("POST /auth/logout HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer " + token + "\r\nContent-Length: 0\r\n\r\n")
	if res.StatusCode != 204 {
		t.Fatal(res.Status, body)
	}
	if res, _ := e.send(get("/tasks", "Authorization: Bearer "+token)); res.StatusCode != 401 {
		t.Errorf("after logout: %s", res.Status)
	}
}

// A request is decided and forwarded by one State, whatever is swapped under it.
func TestSwapsNeverMixTwoStates(t *testing.T) {
	e := startGateway(t)
	open, err := policy.Parse("open.csv", []byte("p, anonymous, /admin/*, *, allow"))
	if err != nil {
		t.Fatal(err)
	}
	// One State forwards /admin for everybody, the other knows no such route and
	// allows nobody: a mixture would show as a 404 or 403 for a stranger.
	opened, closed := e.config, e.config
	opened.Policy = open
	closed.Routes = nil
	stop := make(chan struct{})
	var swapper sync.WaitGroup
	swapper.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
			}
			state, err := NewState([]StateConfig{opened, closed}[i%2])
			if err != nil {
				t.Error(err)
				return
			}
			e.gateway.Swap(state)
		}
	})
	client := &http.Client{}
	counts := map[int]int{}
	for range 2000 {
		res, err := client.Get("http://" + e.addr + "/admin/x")
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, res.Body)
		_ = res.Body.Close()
		counts[res.StatusCode]++
	}
	close(stop)
	swapper.Wait()
	client.CloseIdleConnections()
	for status, n := range counts {
		if status != 200 && status != 401 {
			t.Errorf("%d answers of %d", n, status)
		}
	}
	if len(counts) < 2 {
		t.Errorf("only %v: nothing was swapped while requests came", counts)
	}
}

// What is read of one request must not change when the next one is read.
func TestNothingOfOneRequestIsSeenInAnother(t *testing.T) {
	e := startGateway(t)
	var clients sync.WaitGroup
	for i := range 8 {
		name := fmt.Sprintf("user%c", 'a'+i)
		token := e.token(name, "user")
		clients.Go(func() {
			for n := range 50 {
				target := fmt.Sprintf("/tasks/%s-%d", name, n)
				req, err := http.NewRequest("GET", "http://"+e.addr+target, nil)
				if err != nil {
					t.Error(err)
					return
				}
				req.Header.Set("Authorization", "Bearer "+token)
				req.Header.Set("X-Mine", name)
				res, err := http.DefaultClient.Do(req)
				if err != nil {
					t.Error(err)
					return
				}
				_ = res.Body.Close()
			}
		})
	}
	clients.Wait()
	http.DefaultClient.CloseIdleConnections()
	seen := e.requests()
	if len(seen) != 400 {
		t.Fatalf("the upstream saw %d requests", len(seen))
	}
	for _, head := range seen {
		_, rest, _ := strings.Cut(head, "/tasks/")
		name, _, _ := strings.Cut(rest, "-")
		if !strings.Contains(head, "X-Mine: "+name+"\r\n") || !strings.Contains(head, "X-User-Name: "+name+"\r\n") {
			t.Errorf("mixed up:\n%s", head)
		}
	}
}

func TestAPanicIsAnAnswerAndNotTheEnd(t *testing.T) {
	e := startGateway(t)
	st := e.gateway.state.Load()
	broken := *st
	broken.endpoints = nil // find panics
	e.gateway.state.Store(&broken)
	res, body := e.send(get("/public/x"))
	e.gateway.state.Store(st)
	if res.StatusCode != 500 || strings.Contains(body, "goroutine") {
		t.Errorf("%d %s", res.StatusCode, body)
	}
	if !strings.Contains(e.log.String(), "panic") {
		t.Error("the cause is not in the log")
	}
	if res, _ := e.send(get("/public/x")); res.StatusCode != 200 {
		t.Errorf("afterwards: %s", res.Status)
	}
}

func TestMoreConnectionsThanAllowedAreAnswered503(t *testing.T) {
	e := startGateway(t)
	g := New(Config{Connections: 1, HeaderBytes: 16 << 10, HeaderTimeout: 5 * time.Second, IdleTimeout: 5 * time.Second,
		Log: slog.New(slog.DiscardHandler), Metrics: prometheus.NewRegistry()}, e.gateway.state.Load())
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- g.Serve(ln) }()
	first, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	ask := func(conn net.Conn) int {
		if err := conn.SetDeadline(time.Now().Add(5 * time.Second)); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(conn, get("/public/x")); err != nil {
			t.Fatal(err)
		}
		res, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			t.Fatal(err)
		}
		_ = res.Body.Close()
		return res.StatusCode
	}
	if status := ask(first); status != 200 {
		t.Errorf("the first connection: %d", status)
	}
	second, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	if status := ask(second); status != 503 {
		t.Errorf("the second connection: %d", status)
	}
	_, _ = first.Close(), second.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := errors.Join(g.app.ShutdownWithContext(ctx), <-served); err != nil {
		t.Error(err)
	}
}

func TestReservedPathsCannotBeRouted(t *testing.T) {
	e := startGateway(t)
	for path, ok := range map[string]bool{
		"/auth": false, "/auth/x": false, "/auth/login": false, "/.well-known/jwks.json": false, "/.well-known": false,
		"/": true, "/authors": true, "/tasks": true, "/a/../b": false, "/a/": false,
	} {
		cfg := e.config
		cfg.Routes = []RouteConfig{{Path: path, Upstream: "up"}}
		state, err := NewState(cfg)
		if (err == nil) != ok {
			t.Errorf("%s: %v", path, err)
		}
		if err == nil {
			state.close()
		}
	}
}

func TestOperatorsSeeReadinessAndMetrics(t *testing.T) {
	e := startGateway(t)
	e.send(get("/public/x"))
	metrics := prometheus.NewRegistry()
	metrics.MustRegister(e.gateway.recorder.requests, e.gateway.reloads.count, e.gateway.reloads.info, e.gateway.reloads.rules, e.gateway.reloads.failed)
	server := httptest.NewServer(e.gateway.AdminHandler(metrics))
	defer server.Close()
	ask := func(path string) (int, string) {
		res, err := http.Get(server.URL + path)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = res.Body.Close() }()
		b, err := io.ReadAll(res.Body)
		if err != nil {
			t.Fatal(err)
		}
		return res.StatusCode, string(b)
	}
	if status, body := ask("/livez"); status != 200 || body != "ok\n" {
		t.Errorf("livez: %d %s", status, body)
	}
	revision := e.gateway.Policy().Revision()
	if status, body := ask("/readyz"); status != 200 || !strings.Contains(body, `"store":"ok"`) ||
		!strings.Contains(body, `"policy_revision":"`+revision+`","policy_rules":10,"policy_loaded_at":"20`) || strings.Contains(body, "reload") {
		t.Errorf("readyz: %d %s", status, body)
	}
	if status, body := ask("/metrics"); status != 200 || !strings.Contains(body, `portcullis_requests_total{method="GET",route="/public",status="200"} 1`) {
		t.Errorf("metrics: %d %s", status, body)
	}
	e.gateway.Refused(errors.New("policy.csv:1: wrong"))
	if _, body := ask("/readyz"); !strings.Contains(body, "policy.csv:1: wrong") || !strings.Contains(body, `"reload_refused_at":"20`) {
		t.Errorf("readyz after a refused reload: %s", body)
	}
	_, body := ask("/metrics")
	for _, want := range []string{`portcullis_policy_info{revision="` + revision + `"} 1`, "portcullis_policy_rules 10", "portcullis_reload_refused 1", `portcullis_reloads_total{result="refused"} 1`} {
		if !strings.Contains(body, want) {
			t.Errorf("metrics lack %s:\n%s", want, body)
		}
	}
	next := e.config
	next.Policy = mustParsePolicy(t, "p, anonymous, /other, GET, allow")
	state, err := NewState(next)
	if err != nil {
		t.Fatal(err)
	}
	e.gateway.Swap(state)
	_, body = ask("/metrics")
	if strings.Contains(body, revision) || !strings.Contains(body, "portcullis_policy_rules 1\n") || !strings.Contains(body, "portcullis_reload_refused 0") {
		t.Errorf("metrics after a reload:\n%s", body)
	}
	e.gateway.draining.Store(true)
	if status, _ := ask("/readyz"); status != 503 {
		t.Errorf("readyz while draining: %d", status)
	}
}
