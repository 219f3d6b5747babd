package gateway

import (
	"bufio"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"portcullis/gateway/certs/certstest"
)

const goodOrigin = "https://good.example"

func testCORS() CORS {
	return CORS{Origins: []string{goodOrigin, "http://localhost:3000"}, Methods: []string{"GET", "PUT"}, Headers: []string{"Authorization"},
		Expose: []string{"X-Up"}, MaxAge: time.Minute}
}

// startCORS starts a gateway whose /tasks and own endpoints pages of goodOrigin may
// use, and whose other routes have no CORS.
func startCORS(t *testing.T, change ...func(*StateConfig)) *testGateway {
	return startGateway(t, append([]func(*StateConfig){func(c *StateConfig) {
		c.CORS = testCORS()
		c.Routes[0].CORS = testCORS()
	}}, change...)...)
}

func preflight(path, origin string) string {
	return "OPTIONS " + path + " HTTP/1.1\r\nHost: gateway.test\r\nOrigin: " + origin + "\r\nAccess-Control-Request-Method: PUT\r\nAccess-Control-Request-Headers: authorization\r\n\r\n"
}

func TestAPreflightIsAnsweredBeforeAnybodyIsKnown(t *testing.T) {
	e := startCORS(t)
	var closed []func() bool
	for _, path := range []string{"/tasks", "/tasks/secret", "/auth/me", "/auth/login", "/auth/none"} {
		res, body, ended := e.sendAndHold(preflight(path, goodOrigin))
		if closed = append(closed, ended); res.StatusCode != 204 || body != "" {
			t.Fatalf("%s: %d %q", path, res.StatusCode, body)
		}
		for name, want := range map[string]string{"Access-Control-Allow-Origin": goodOrigin, "Access-Control-Allow-Methods": "GET, PUT",
			"Access-Control-Allow-Headers": "Authorization", "Access-Control-Max-Age": "60", "Vary": "Origin",
			"Access-Control-Allow-Credentials": "", "Access-Control-Expose-Headers": "", "X-Up": ""} {
			if got := strings.Join(res.Header[name], "|"); got != want {
				t.Errorf("%s: %s is %q, want %q", path, name, got, want)
			}
		}
	}
	for i, ended := range closed {
		if ended() {
			t.Errorf("the connection of preflight %d is closed", i)
		}
	}
	if seen := e.requests(); len(seen) != 0 {
		t.Errorf("the upstream saw %q", seen)
	}
}

// What comes behind a preflight as its body is no request.
func TestTheBodyOfAPreflightIsNoRequest(t *testing.T) {
	e := startCORS(t)
	inner := get("/public/smuggled")
	for _, framing := range []string{fmt.Sprintf("Content-Length: %d\r\n\r\n%s", len(inner), inner), fmt.Sprintf("Transfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n", len(inner), inner)} {
		head := strings.TrimSuffix(preflight("/tasks", goodOrigin), "\r\n")
		if res, _ := e.send(head + framing); res.StatusCode != 204 {
			t.Errorf("%d", res.StatusCode)
		}
	}
	if seen := e.requests(); len(seen) != 0 {
		t.Errorf("the upstream saw %q", seen)
	}
}

// A preflight that is not for a page we know is a request like any other: what
// there is behind a path is no stranger's to know.
func TestOtherPreflightsGoTheOrdinaryRoad(t *testing.T) {
	e := startCORS(t)
	for _, origin := range []string{"https://evil.example", "https://good.example.evil.example", "https://evilgood.example", "https://good.example:443",
		"https://good.example:8443", "http://good.example", "HTTPS://good.example", "https://Good.example", "https://good.example/", "https://good.example.",
		"https://sub.good.example", "null", "*", "https://*", "https://good.example, https://evil.example", "https://good.example\tx", "http://localhost:3001", ""} {
		res, _ := e.send(preflight("/tasks", origin))
		if res.StatusCode != 401 || res.Header.Get("Access-Control-Allow-Origin") != "" || res.Header.Get("Access-Control-Allow-Methods") != "" {
			t.Errorf("%q: %d %v", origin, res.StatusCode, res.Header)
		}
	}
	for name, raw := range map[string]string{
		"a route without CORS":   preflight("/admin", goodOrigin),
		"no route":               preflight("/none", goodOrigin),
		"two origins":            "OPTIONS /tasks HTTP/1.1\r\nHost: a\r\nOrigin: " + goodOrigin + "\r\nOrigin: " + goodOrigin + "\r\nAccess-Control-Request-Method: PUT\r\n\r\n",
		"no method asked for":    "OPTIONS /tasks HTTP/1.1\r\nHost: a\r\nOrigin: " + goodOrigin + "\r\n\r\n",
		"not OPTIONS":            "GET /tasks HTTP/1.1\r\nHost: a\r\nOrigin: " + goodOrigin + "\r\nAccess-Control-Request-Method: PUT\r\n\r\n",
		"an alias of the origin": "OPTIONS /tasks HTTP/1.1\r\nHost: a\r\nO_rigin: " + goodOrigin + "\r\nAccess-Control-Request-Method: PUT\r\n\r\n",
	} {
		if res, _ := e.send(raw); res.StatusCode != 401 {
			t.Errorf("%s: %d", name, res.StatusCode)
		}
	}
	if res, _ := e.send(preflight("/tasks/../admin", goodOrigin)); res.StatusCode != 400 {
		t.Errorf("a path with two readings: %d", res.StatusCode)
	}
	// On a route of strangers without CORS, the upstream may answer for itself.
	if res, body := e.send(preflight("/public/x", goodOrigin)); res.StatusCode != 200 || body != "ok" {
		t.Errorf("a public route: %d %s", res.StatusCode, body)
	}
}

// A page can read every answer of a route that is for it, refusals too, and is let
// do nothing by being one.
func TestAPageReadsAnswersAndIsNobodyByItself(t *testing.T) {
	up := serveBytes(t, "HTTP/1.1 200 OK\r\nAccess-Control-Allow-Origin: *\r\naccess-control-allow-credentials: true\r\nAccess-Control-Expose-Headers: all\r\nVary: Accept\r\nX-Up: yes\r\nContent-Length: 2\r\n\r\nok")
	e := startCORS(t, func(c *StateConfig) {
		c.Upstreams[0].Targets = []*url.URL{{Scheme: "http", Host: up}}
		c.Upstreams = append(c.Upstreams, UpstreamConfig{Name: "away", Targets: []*url.URL{{Scheme: "http", Host: "127.0.0.1:1"}}})
		c.Routes = append(c.Routes, RouteConfig{Path: "/tasks/away", Upstream: "away", CORS: testCORS()})
	})
	token := "Authorization: Bearer " + e.token("uma", "user")
	for name, tc := range map[string]struct {
		target string
		fields []string
		status int
	}{
		"an answer":             {"/tasks/1", []string{token}, 200},
		"a stranger":            {"/tasks/1", nil, 401},
		"a token that is none":  {"/tasks/1", []string{"Authorization: Bearer x"}, 401},
		"denied":                {"/tasks/secret", []string{token}, 403},
		"no upstream":           {"/tasks/away", []string{token}, 502},
		"an endpoint":           {"/auth/me", []string{token}, 200},
		"an endpoint's refusal": {"/auth/none", []string{token}, 404},
	} {
		for _, origin := range []string{goodOrigin, "https://evil.example", "null", ""} {
			fields := slices.Clone(tc.fields)
			if origin != "" {
				fields = append(fields, "Origin: "+origin)
			}
			res, body := e.send(get(tc.target, fields...))
			if res.StatusCode != tc.status {
				t.Fatalf("%s, origin %q: %d %s", name, origin, res.StatusCode, body)
			}
			allowed, exposed := []string(nil), []string(nil)
			if origin == goodOrigin {
				allowed, exposed = []string{goodOrigin}, []string{"X-Up"}
			}
			if got := res.Header["Access-Control-Allow-Origin"]; !slices.Equal(got, allowed) {
				t.Errorf("%s, origin %q: allowed %q", name, origin, got)
			}
			if got := res.Header["Access-Control-Expose-Headers"]; !slices.Equal(got, exposed) {
				t.Errorf("%s, origin %q: exposed %q", name, origin, got)
			}
			if res.Header.Get("Access-Control-Allow-Credentials") != "" {
				t.Errorf("%s, origin %q: credentials", name, origin)
			}
			if got := res.Header["Vary"]; !slices.Contains(got, "Origin") {
				t.Errorf("%s, origin %q: Vary is %q", name, origin, got)
			}
		}
	}
	if res, _ := e.send(get("/tasks/1", token, "Origin: "+goodOrigin)); !slices.Contains(res.Header["Vary"], "Accept") || res.Header.Get("X-Up") != "yes" {
		t.Errorf("what else the upstream said: %v", res.Header)
	}
	// Without CORS, an upstream's answer is its own.
	if res, _ := e.send(get("/public/x", "Origin: "+goodOrigin)); res.Header.Get("Access-Control-Allow-Origin") != "*" || slices.Contains(res.Header["Vary"], "Origin") {
		t.Errorf("a route without CORS: %v", res.Header)
	}
}

func TestAnyOriginAndCredentials(t *testing.T) {
	e := startGateway(t, func(c *StateConfig) {
		c.Routes[2].CORS = CORS{Origins: []string{"*"}}
		c.Routes[0].CORS = CORS{Origins: []string{goodOrigin}, Credentials: true}
	})
	res, _ := e.send(get("/public/x", "Origin: https://anybody.example"))
	if res.Header.Get("Access-Control-Allow-Origin") != "*" || res.Header.Get("Vary") != "" {
		t.Errorf("any origin: %v", res.Header)
	}
	if res, _ = e.send(get("/public/x", "Origin: null")); res.Header.Get("Access-Control-Allow-Origin") != "" {
		t.Errorf("null: %v", res.Header)
	}
	if res, _ = e.send(get("/tasks", "Origin: "+goodOrigin)); res.Header.Get("Access-Control-Allow-Credentials") != "true" {
		t.Errorf("credentials: %v", res.Header)
	}
	if res, _ = e.send(get("/tasks", "Origin: https://evil.example")); res.Header.Get("Access-Control-Allow-Credentials") != "" {
		t.Errorf("credentials for anybody: %v", res.Header)
	}
	for _, bad := range []CORS{
		{Origins: []string{"*"}, Credentials: true}, {Origins: []string{"*", goodOrigin}}, {Origins: []string{"null"}},
		{Origins: []string{goodOrigin}, Methods: []string{"G T"}}, {Origins: []string{goodOrigin}, Expose: []string{"X-A\r\nX-B: 1"}},
	} {
		if CheckRoutes(StateConfig{Routes: []RouteConfig{{Path: "/", CORS: bad}}}) == nil {
			t.Errorf("%+v is accepted", bad)
		}
	}
	twice := RouteConfig{Path: "/", CORS: testCORS(), ResponseHeaders: HeaderEdit{Set: []Field{{"access-control-allow-origin", "*"}}}}
	if CheckRoutes(StateConfig{Routes: []RouteConfig{twice}}) == nil {
		t.Error("two voices are accepted")
	}
}

// Answers of ours give a browser nothing to make more of; answers of upstreams are
// theirs. HSTS means something over TLS only.
func TestSecurityFieldsAreOnOurOwnAnswersOnly(t *testing.T) {
	e := startGateway(t, func(c *StateConfig) { c.HSTS = "max-age=60" })
	own := map[string]string{"X-Content-Type-Options": "nosniff", "X-Frame-Options": "DENY", "Referrer-Policy": "no-referrer", "Cache-Control": "no-store"}
	token := "Authorization: Bearer " + e.token("uma", "user")
	for _, raw := range []string{get("/tasks"), get("/admin/x", token), get("/auth/me", token), get("/x/../y"), "BREW / HTTP/1.1\r\nHost: a\r\n\r\n",
		"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: x\r\n\r\n", "POST /auth/logout HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n" + token + "\r\n\r\n"} {
		res, _ := e.send(raw)
		for name, want := range own {
			if got := res.Header[http.CanonicalHeaderKey(name)]; len(got) != 1 || got[0] != want {
				t.Errorf("%.20q: %s is %q", raw, name, got)
			}
		}
		if !strings.Contains(res.Header.Get("Content-Security-Policy"), "frame-ancestors 'none'") || res.Header.Get("Strict-Transport-Security") != "" {
			t.Errorf("%.20q: %v", raw, res.Header)
		}
	}
	res, _ := e.send(get("/public/x"))
	for name := range own {
		if res.Header.Get(name) != "" {
			t.Errorf("the upstream's answer has %s", name)
		}
	}
	for target, want := range map[string]string{"/tasks": "max-age=60", "/public/x": ""} {
		if got := overTLS(t, e, get(target)).Header.Get("Strict-Transport-Security"); got != want {
			t.Errorf("%s over TLS: %q, want %q", target, got, want)
		}
	}
}

// overTLS sends a request to the state of e over TLS.
func overTLS(t *testing.T, e *testGateway, raw string) *http.Response {
	t.Helper()
	ca := certstest.NewAuthority(t)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	g := New(Config{HeaderBytes: 16 << 10, HeaderTimeout: 5 * time.Second, IdleTimeout: 5 * time.Second,
		Log: slog.New(slog.DiscardHandler), Metrics: prometheus.NewRegistry()}, e.gateway.state.Load())
	served := make(chan error, 1)
	go func() {
		served <- g.Serve(tls.NewListener(ln, &tls.Config{Certificates: []tls.Certificate{ca.Issue("gateway.test").Certificate}, MinVersion: tls.VersionTLS12}))
	}()
	conn, err := tls.Dial("tcp", ln.Addr().String(), &tls.Config{RootCAs: ca.Pool(), ServerName: "gateway.test", MinVersion: tls.VersionTLS12})
	if err != nil {
		t.Fatal(err)
	}
	if err := conn.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(conn, raw); err != nil {
		t.Fatal(err)
	}
	res, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	_, _ = io.Copy(io.Discard, res.Body)
	_ = res.Body.Close()
	if err := errors.Join(conn.Close(), ln.Close()); err != nil {
		t.Error(err)
	}
	<-served
	return res
}
