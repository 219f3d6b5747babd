package gateway

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// startNginx runs the nginx of the README in front of e and of its upstream, and
// returns its address.
func startNginx(t *testing.T, e *testGateway) string {
	t.Helper()
	nginx, err := exec.LookPath("nginx")
	if err != nil {
		if nginx = "/usr/sbin/nginx"; !exists(nginx) {
			if os.Getenv("REQUIRE_NGINX") != "" {
				t.Fatal("REQUIRE_NGINX is set, but there is no nginx")
			}
			t.Skip("there is no nginx: skipped")
		}
	}
	readme, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(readme), "```nginx\n")
	server, _, ok := strings.Cut(rest, "```\n")
	if !ok || !strings.Contains(server, "listen 80;") {
		t.Fatal("the README has no configuration of nginx")
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := ln.Addr().String()
	if err := ln.Close(); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	conf := fmt.Sprintf(`daemon off; master_process off; pid %[1]s/pid; error_log stderr;
events {}
http {
    access_log off;
    client_body_temp_path %[1]s/body; proxy_temp_path %[1]s/proxy; fastcgi_temp_path %[1]s/fastcgi; uwsgi_temp_path %[1]s/uwsgi; scgi_temp_path %[1]s/scgi;
    upstream app { server %[2]s; }
    upstream gateway { server %[3]s; }
%[4]s
}
`, dir, e.config.Upstreams[0].Targets[0].Host, e.addr, strings.Replace(server, "listen 80;", "listen "+addr+";", 1))
	file := filepath.Join(dir, "nginx.conf")
	if err := os.WriteFile(file, []byte(conf), 0o600); err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	cmd := exec.Command(nginx, "-p", dir, "-e", "stderr", "-c", file)
	cmd.Stderr = &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait() // it was killed
		if t.Failed() {
			t.Logf("nginx says:\n%s", log.String())
		}
	})
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		if conn, err := net.Dial("tcp", addr); err == nil {
			_ = conn.Close()
			return addr
		}
		if time.Now().After(end) {
			t.Fatalf("nginx does not listen:\n%s", log.String())
		}
	}
}

func exists(file string) bool {
	_, err := os.Stat(file)
	return err == nil
}

// The configuration of the README with a real nginx: what its clients get, and
// what the service behind it saw.
func TestForwardAuthOfNginx(t *testing.T) {
	e := startGateway(t, askedBy("nginx"))
	token := e.token("uma", "user")
	user := "Authorization: Bearer " + token
	p, err := e.service.Tokens().Verify([]byte(token))
	if err != nil {
		t.Fatal(err)
	}
	through := &testGateway{t: t, addr: startNginx(t, e)}
	spoofed := []string{"X-User-Id: forged", "x-user-roles: forged", "X_User_Id: forged", "X.User.Roles: forged", "X-User-Name: forged", "X-User-Email: forged",
		"X-User-Permissions: forged", "X-User-Tenant: forged", "X-Session-Id: forged", "X-Identity-Assertion: forged"}
	claims := []string{"X-Original-URI: /public/x", "X-Original-Method: GET", "X-Original-URL: http://a/public/x", "X-Forwarded-Uri: /public/x", "X-Forwarded-Method: GET"}
	post := func(target string, fields ...string) string {
		return "POST" + strings.Replace(get(target, append(fields, "Content-Length: 4")...), "GET", "", 1) + "body"
	}
	for name, c := range map[string]struct {
		raw    string
		status int
		saw    string // "": nothing
	}{
		"allowed":                         {get("/tasks/1?a=b%20c&d", user), 200, "GET /tasks/1?a=b%20c&d HTTP/1."},
		"allowed, with a body":            {post("/tasks/1", user), 200, "POST /tasks/1 HTTP/1."},
		"an encoded character":            {get("/tasks/a%20b", user), 200, "GET /tasks/a%20b HTTP/1."},
		"allowed to everybody":            {get("/public/x"), 200, "GET /public/x HTTP/1."},
		"a stranger":                      {get("/tasks/1"), 401, ""},
		"a bad token":                     {get("/tasks/1", user+"x"), 401, ""},
		"not allowed":                     {get("/admin/x", user), 403, ""},
		"denied":                          {get("/tasks/secret", user), 403, ""},
		"allowed for another method only": {post("/nowhere", user), 403, ""},
		"spoofed identity":                {get("/tasks/1", append(spoofed, user)...), 200, "GET /tasks/1 HTTP/1."},
		"spoofed identity of a stranger":  {get("/public/x", spoofed...), 200, "GET /public/x HTTP/1."},
		"spoofed target":                  {get("/admin/x", append(claims, user)...), 403, ""},
		"spoofed target of a stranger":    {get("/tasks/1", claims...), 401, ""},
		"spoofed method":                  {post("/nowhere", append(claims, user)...), 403, ""},
		"spoofed twice":                   {get("/admin/x", append(append(claims, claims...), user)...), 403, ""},
		"spoofed with underscores":        {get("/admin/x", user, "X_Original_URI: /public/x", "X_Original_Method: GET"), 403, ""},
		"spoofed through Connection":      {get("/admin/x", append(claims, user, "Connection: X-Original-URI, X-Original-Method")...), 403, ""},
		"dots":                            {get("/public/../admin/x", user), 403, ""},
		"encoded dots":                    {get("/tasks/%2e%2e/admin/x", user), 403, ""},
		"encoded dots into the open":      {get("/admin/%2e%2e/public/x"), 403, ""},
		"two slashes":                     {get("//admin/x", user), 403, ""},
		"two slashes in the open":         {get("/public//x"), 403, ""},
		"a parameter":                     {get("/public;/../admin/x", user), 403, ""},
		"a parameter at the end":          {get("/public/x;y", user), 403, ""},
		"a needless encoding":             {get("/%61dmin/x", user), 403, ""},
		"a fragment":                      {get("/public/x#/../../admin", user), 403, ""},
		"the question itself":             {get("/auth/forward", append(claims, user)...), 404, ""},
		"a question by path":              {get("/auth/forward/public/x", user), 404, ""},
		"a question in other letters":     {get("/auth/%66orward", append(claims, user)...), 404, ""},
		"a question around a corner":      {get("/auth/x/../forward", append(claims, user)...), 404, ""},
		"what is internal":                {get("/_authorize", append(claims, user)...), 404, ""},
		"signing in":                      {post("/auth/login"), 415, ""},
	} {
		t.Run(name, func(t *testing.T) {
			res, body, _ := through.send(c.raw)
			if res.StatusCode != c.status {
				t.Errorf("%d, want %d\n%s", res.StatusCode, c.status, body)
			}
			if res.Header.Get(fieldUserID) != "" || strings.HasPrefix(res.Header.Get(fieldAssertion), "ey") {
				t.Errorf("the client was given what is for the service: %v", res.Header)
			}
			if (c.status == 401) != (res.Header.Get("WWW-Authenticate") != "") {
				t.Errorf("WWW-Authenticate is %q", res.Header.Get("WWW-Authenticate"))
			}
			seen := e.requests()
			if c.saw == "" {
				if len(seen) > 0 {
					t.Errorf("the service saw %q", seen)
				}
				return
			}
			if len(seen) != 1 || !strings.HasPrefix(seen[0], c.saw) {
				t.Fatalf("the service saw %q, want %q", seen, c.saw)
			}
			if strings.Contains(seen[0], "forged") || strings.Contains(seen[0], token) {
				t.Errorf("the service saw\n%s", seen[0])
			}
			known := strings.Contains(c.raw, user)
			for _, line := range []string{"X-User-Id: " + p.UserID, "X-User-Name: uma", "X-User-Roles: user", "X-Session-Id: " + p.SessionID} {
				if strings.Contains(seen[0], line+"\r\n") != known {
					t.Errorf("%q is missing, or should be, in\n%s", line, seen[0])
				}
			}
			_, rest, told := strings.Cut(seen[0], fieldAssertion+": ")
			assertion, _, _ := strings.Cut(rest, "\r\n")
			if told != known || known && audienceOf(t, assertion) != "app" {
				t.Errorf("the assertion is %q in\n%s", assertion, seen[0])
			}
			if !known && strings.Contains(seen[0], "X-User") {
				t.Errorf("a stranger is told of in\n%s", seen[0])
			}
		})
	}
}
