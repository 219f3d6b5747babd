package gateway

import (
	"bufio"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
)

// A front proxy is a real one, configured as the README says, that asks the gateway
// about what its clients send to the service behind it.
type frontProxy struct {
	name  string
	start func(t *testing.T, e *testGateway) (addr string)
	// What the proxy makes of a 400 of the gateway's.
	refused int
	// What only this one is asked, or answers in its own way.
	cases func(user string, claims []string) map[string]frontCase
}

type frontCase struct {
	raw    string
	status int
	saw    string // how what the service saw begins; "": nothing
}

// What its clients get, and what the service behind it saw.
func (p frontProxy) test(t *testing.T) {
	e := startGateway(t, askedBy(p.name))
	token := e.token("uma", "user")
	user := "Authorization: Bearer " + token
	principal, err := e.service.Tokens().Verify([]byte(token))
	if err != nil {
		t.Fatal(err)
	}
	through := &testGateway{t: t, addr: p.start(t, e)}
	claims := []string{"X-Original-URI: /public/x", "X-Original-Method: GET", "X-Original-URL: http://a/public/x", "X-Forwarded-Uri: /public/x", "X-Forwarded-Method: GET"}
	cases := frontCases(user, claims, p.refused)
	maps.Copy(cases, p.cases(user, claims))
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			res, body := through.ask(c.raw)
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
			_, fields, _ := strings.Cut(strings.ToLower(seen[0]), "\r\n")
			for _, lie := range []string{"forged", strings.ToLower(token), "\r\nx-original-", "\r\nx-forwarded-uri:", "\r\nx-forwarded-method:", "upgrade: h2c"} {
				if strings.Contains("\r\n"+fields, lie) {
					t.Errorf("the service saw %q in\n%s", lie, seen[0])
				}
			}
			known := strings.Contains(c.raw, user)
			for _, line := range []string{"X-User-Id: " + principal.UserID, "X-User-Name: uma", "X-User-Email: uma@example.com", "X-User-Roles: user", "X-Session-Id: " + principal.SessionID} {
				if strings.Contains(seen[0], line+"\r\n") != known {
					t.Errorf("%q is missing, or should be, in\n%s", line, seen[0])
				}
			}
			_, rest, told := strings.Cut(seen[0], fieldAssertion+": ")
			assertion, _, _ := strings.Cut(rest, "\r\n")
			if told != known || known && audienceOf(t, assertion) != "app" {
				t.Errorf("the assertion is %q in\n%s", assertion, seen[0])
			}
			// Uma has no tenant, and a stranger nothing: not even empty fields.
			if strings.Contains(seen[0], fieldUserTenant) || !known && (strings.Contains(seen[0], "X-User") || strings.Contains(seen[0], fieldSessionID)) {
				t.Errorf("the service is told of what is not in\n%s", seen[0])
			}
		})
	}
}

// frontCases are what every front proxy is asked.
func frontCases(user string, claims []string, refused int) map[string]frontCase {
	spoofed := []string{"X-User-Id: forged", "x-user-roles: forged", "X_User_Id: forged", "X.User.Roles: forged", "X-User_Name: forged", "X-User-Name: forged",
		"X-User-Email: forged", "X-User-Permissions: forged", "X-User-Tenant: forged", "X-Session-Id: forged", "X_Session_Id: forged", "X-Identity-Assertion: forged", "X-Identity_Assertion: forged"}
	for _, c := range "!#$%&'*+.^_`|~" { // all that can be in a name beside letters, digits and "-" (RFC 9110 §5.6.2)
		spoofed = append(spoofed, fmt.Sprintf("X%cUser%[1]cId: forged", c), fmt.Sprintf("X%c: forged", c))
	}
	return map[string]frontCase{
		"allowed":                         {get("/tasks/1?a=b%20c&d", user), 200, "GET /tasks/1?a=b%20c&d HTTP/1."},
		"allowed, with a body":            {postBody("/tasks/1", user), 200, "POST /tasks/1 HTTP/1."},
		"an encoded character":            {get("/tasks/a%20b", user), 200, "GET /tasks/a%20b HTTP/1."},
		"a query of anything":             {get("/public/x?/../%2e%2F;\\{a}"), 200, "GET /public/x?/../%2e%2F;\\{a} HTTP/1."},
		"allowed to everybody":            {get("/public/x"), 200, "GET /public/x HTTP/1."},
		"a stranger":                      {get("/tasks/1"), 401, ""},
		"a bad token":                     {get("/tasks/1", user+"x"), 401, ""},
		"not allowed":                     {get("/admin/x", user), 403, ""},
		"denied":                          {get("/tasks/secret", user), 403, ""},
		"allowed for another method only": {postBody("/nowhere", user), 403, ""},
		"spoofed identity":                {get("/tasks/1", append(spoofed, user)...), 200, "GET /tasks/1 HTTP/1."},
		"spoofed identity of a stranger":  {get("/public/x", spoofed...), 200, "GET /public/x HTTP/1."},
		"spoofed target":                  {get("/admin/x", append(claims, user)...), 403, ""},
		"spoofed target of a stranger":    {get("/tasks/1", claims...), 401, ""},
		"a spoofed target goes no further": {get("/tasks/1", "X-Original-URI: /admin", "X-Original-Method: PUT", "X-Original-URL: http://a/admin", "X-Forwarded-Uri: /admin",
			"X-Forwarded-Method: PUT", "X_Original_URI: /admin", "X_Forwarded_Method: PUT", user), 200, "GET /tasks/1 HTTP/1."},
		"spoofed method":             {postBody("/nowhere", append(claims, user)...), 403, ""},
		"spoofed twice":              {get("/admin/x", append(append(claims, claims...), user)...), 403, ""},
		"spoofed with underscores":   {get("/admin/x", user, "X_Original_URI: /public/x", "X_Original_Method: GET"), 403, ""},
		"spoofed through Connection": {get("/admin/x", append(claims, user, "Connection: X-Original-URI, X-Original-Method, X-Forwarded-Uri, X-Forwarded-Method")...), 403, ""},
		"identity kept back through Connection": {get("/tasks/1", user, "Connection: X-User-Id, X-User-Name, X-User-Roles, X-Session-Id, X-Identity-Assertion, Authorization"),
			200, "GET /tasks/1 HTTP/1."},
		"the fields alone kept back through Connection": {get("/tasks/1", user, "Connection: X-User-Id, X-User-Name, X-User-Roles, X-Session-Id, X-Identity-Assertion"),
			200, "GET /tasks/1 HTTP/1."},
		"copied":                           {"COPY" + get("/tasks/1", user, "Destination: /tasks/2")[3:], 200, "COPY /tasks/1 HTTP/1."},
		"copied to where the user may not": {"COPY" + get("/tasks/1", user, "Destination: /admin/x")[3:], 403, ""},
		"another protocol":                 {get("/tasks/1", user, "Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAAQAAP__"), 200, "GET /tasks/1 HTTP/1."},
		"dots":                             {get("/public/../admin/x", user), refused, ""},
		"encoded dots":                     {get("/tasks/%2e%2e/admin/x", user), refused, ""},
		"encoded dots into the open":       {get("/admin/%2e%2e/public/x"), refused, ""},
		"an encoded dot":                   {get("/public/%2E/x"), refused, ""},
		"two slashes":                      {get("//admin/x", user), refused, ""},
		"two slashes in the open":          {get("/public//x"), refused, ""},
		"an encoded slash":                 {get("/public%2Fx"), refused, ""},
		"an encoded slash and dots":        {get("/public/..%2fadmin/x", user), refused, ""},
		"a backslash":                      {get("/public/..\\admin/x", user), refused, ""},
		"an encoded backslash":             {get("/public/%5Cx"), refused, ""},
		"a parameter":                      {get("/public;/../admin/x", user), refused, ""},
		"a parameter at the end":           {get("/public/x;y", user), refused, ""},
		"a needless encoding":              {get("/%61dmin/x", user), refused, ""},
		"a fragment":                       {get("/public/x#/../../admin", user), refused, ""},
		"the question itself":              {get("/auth/forward", append(claims, user)...), 404, ""},
		"the question, and a slash":        {get("/auth/forward/", append(claims, user)...), 404, ""},
		"the question, and a query":        {get("/auth/forward?upstream=app", append(claims, user)...), 404, ""},
		"a question by path":               {get("/auth/forward/public/x", user), 404, ""},
		"a question in other letters":      {get("/auth/%66orward", append(claims, user)...), 404, ""},
		"a question around a corner":       {get("/auth/x/../forward", append(claims, user)...), 404, ""},
		"a question where one is":          {get("/auth/./forward", append(claims, user)...), 404, ""},
		"a question with two slashes":      {get("/auth//forward", append(claims, user)...), 404, ""},
		"a question after two slashes":     {get("//auth/forward", append(claims, user)...), 404, ""},
		"a question by an encoded slash":   {get("/auth%2Fforward", append(claims, user)...), 404, ""},
		"a question with an authority":     {get("http://gateway.test/auth/forward", append(claims, user)...), 404, ""},
		"signing in":                       {postBody("/auth/login"), 415, ""},
	}
}

// withOpaqueTargets adds what is special about proxies written in Go: what follows a
// scheme without a slash is opaque to them, and sent on without one.
func withOpaqueTargets(user string, claims []string, cases map[string]frontCase) map[string]frontCase {
	maps.Copy(cases, map[string]frontCase{
		"a question without a root":      {get("http:auth/forward", append(claims, user)...), 400, ""},
		"a question in a target":         {get("http:http://gateway.test/auth/forward", append(claims, user)...), 400, ""},
		"a target in a target":           {get("http:http://gateway.test/public/x"), 400, ""},
		"a target of an authority alone": {get("http:?x"), 401, ""},
		"a method that is none":          {"get" + get("/public/x")[3:], 501, ""},
		"CONNECT":                        {"CONNECT gateway.test:80 HTTP/1.1\r\nHost: gateway.test:80\r\n\r\n", 501, ""},
	})
	return cases
}

func postBody(target string, fields ...string) string {
	return "POST" + strings.TrimPrefix(get(target, append(fields, "Content-Length: 4")...), "GET") + "body"
}

// Methods and bodies are the client's, as it sent them; its address is the proxy's to
// say.
func (p frontProxy) testBodies(t *testing.T) {
	app := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		_, _ = fmt.Fprintf(w, "%s %s %q %v by %q%q", r.Method, r.RequestURI, body, err, r.Header["X-Forwarded-For"], r.Header["Forwarded"])
	}))
	t.Cleanup(app.Close)
	e := startGateway(t, askedBy(p.name), func(c *StateConfig) {
		c.Upstreams[0].Targets = []*url.URL{{Scheme: "http", Host: strings.TrimPrefix(app.URL, "http://")}}
	})
	user := "Authorization: Bearer " + e.token("uma", "user")
	through := &testGateway{t: t, addr: p.start(t, e)}
	long := strings.Repeat("x", 1<<20)
	hops := []string{user, "X-Forwarded-For: 203.0.113.9, 198.51.100.1", "X-Forwarded-For: 203.0.113.9", "Forwarded: for=203.0.113.9"}
	as := func(method, body string, fields ...string) string {
		return method + strings.TrimPrefix(get("/tasks/1", append(hops, fields...)...), "GET") + body
	}
	for name, c := range map[string]struct{ raw, method, body string }{
		"none":             {as("GET", ""), "GET", ""},
		"of a length":      {as("PUT", "body", "Content-Length: 4"), "PUT", "body"},
		"of no length":     {as("POST", "4\r\nbody\r\n0\r\n\r\n", "Transfer-Encoding: chunked"), "POST", "body"},
		"long":             {as("PATCH", long, "Content-Length: 1048576"), "PATCH", long},
		"of another GET":   {as("GET", "body", "Content-Length: 4"), "GET", "body"},
		"after a deletion": {as("DELETE", ""), "DELETE", ""},
	} {
		t.Run(name, func(t *testing.T) {
			want := fmt.Sprintf("%s /tasks/1 %q <nil> by [\"127.0.0.1\"][]", c.method, c.body)
			if res, got := through.ask(c.raw); res.StatusCode != 200 || got != want {
				t.Errorf("%d %.200s\nwant %.200s", res.StatusCode, got, want)
			}
		})
	}
}

// Where there is no gateway that answers, nothing gets to the service.
func (p frontProxy) testAlone(t *testing.T) {
	e := startGateway(t, askedBy(p.name))
	user := "Authorization: Bearer " + e.token("uma", "user")
	alone := &testGateway{t: t, addr: freeAddr(t), config: e.config}
	through := &testGateway{t: t, addr: p.start(t, alone)}
	for _, raw := range []string{get("/public/x"), get("/tasks/1", user), postBody("/tasks/1", user), get("/tasks/1", user, "Connection: Upgrade", "Upgrade: websocket")} {
		if res, _ := through.ask(raw); res.StatusCode < 500 {
			t.Errorf("%d to %s", res.StatusCode, raw)
		}
	}
	if seen := e.requests(); len(seen) > 0 {
		t.Errorf("the service saw %q", seen)
	}
}

// The gateway, too, knows a client by what the proxy says of it, where it is asked and
// where people sign in.
func (p frontProxy) testAddresses(t *testing.T) {
	e := startGateway(t, askedBy(p.name))
	addr := p.start(t, e)
	for name, c := range map[string]struct {
		raw    string
		status int
	}{
		"a question": {get("/tasks/1", "X-Forwarded-For: 203.0.113.9, 198.51.100.1", "X-Forwarded-For: 203.0.113.9", "Forwarded: for=203.0.113.9"), 401},
		"signing in": {postBody("/auth/login", "X-Forwarded-For: 203.0.113.9, 198.51.100.1", "X-Forwarded-For: 203.0.113.9", "Forwarded: for=203.0.113.9"), 415},
	} {
		t.Run(name, func(t *testing.T) {
			before := len(e.log.String())
			// Not the proxy's own address.
			conn, err := (&net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 2)}}).DialContext(t.Context(), "tcp", addr)
			if err != nil {
				t.Skip("this system has one loopback address:", err)
			}
			defer func() { _ = conn.Close() }()
			if _, err := io.WriteString(conn, c.raw); err != nil {
				t.Fatal(err)
			}
			res, err := http.ReadResponse(bufio.NewReader(conn), nil)
			if err != nil {
				t.Fatal(err)
			}
			_ = res.Body.Close()
			if log := e.log.String()[before:]; res.StatusCode != c.status || strings.Count(log, "ip=") != 1 || !strings.Contains(log, "ip=127.0.0.2 ") {
				t.Errorf("%d, and the gateway knows the client by\n%s", res.StatusCode, log)
			}
		})
	}
}
