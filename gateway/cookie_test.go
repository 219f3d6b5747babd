package gateway

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

const ownOrigin = "https://gateway.test"

// browser is what a browser holds after a login in cookie mode.
type browser struct {
	access, refresh, csrf string
}

func (b browser) cookie() string {
	return "Cookie: theme=dark; __Host-portcullis_access=" + b.access + "; __Host-portcullis_refresh=" + b.refresh + "; lang=de"
}

// own are the fields of a request by a page of ours.
func (b browser) own() []string {
	return []string{b.cookie(), "Origin: " + ownOrigin, "X-CSRF-Token: " + b.csrf}
}

func withCookies(c *StateConfig) { c.Cookies.Origins = []string{ownOrigin, "https://app.example.com"} }

// post makes a request without a body from field lines.
func post(target string, fields ...string) string {
	return "POST " + target + " HTTP/1.1\r\nHost: gateway.test\r\nContent-Length: 0\r\n" + strings.Join(append(fields, "", ""), "\r\n")
}

func loginRequest(target, name string, fields ...string) string {
	body := `{"username":"` + name + `","password":"correct horse"}`
	fields = append(fields, "Content-Type: application/json", fmt.Sprintf("Content-Length: %d", len(body)))
	return "POST " + target + " HTTP/1.1\r\nHost: gateway.test\r\n" + strings.Join(append(fields, "", ""), "\r\n") + body
}

// signIn signs in somebody whom token has registered.
func (e *testGateway) signIn(name string) browser {
	e.t.Helper()
	res, body := e.ask(loginRequest("/auth/login?mode=cookie", name, "Origin: "+ownOrigin))
	if res.StatusCode != 200 {
		e.t.Fatalf("login: %s\n%s", res.Status, body)
	}
	return e.browserOf(res, body)
}

func (e *testGateway) browserOf(res *http.Response, body string) (b browser) {
	e.t.Helper()
	var in map[string]any
	if err := json.Unmarshal([]byte(body), &in); err != nil {
		e.t.Fatal(err)
	}
	b.csrf, _ = in["csrf_token"].(string)
	for _, c := range res.Cookies() {
		switch c.Name {
		case "__Host-portcullis_access":
			b.access = c.Value
		case "__Host-portcullis_refresh":
			b.refresh = c.Value
		}
	}
	if b.access == "" || b.refresh == "" || b.csrf == "" {
		e.t.Fatalf("the browser got %v and %s", res.Header.Values("Set-Cookie"), body)
	}
	return b
}

// ask is send for who does not care about the connection, which takes a while to
// find out about.
func (e *testGateway) ask(raw string) (*http.Response, string) {
	e.t.Helper()
	conn, err := net.Dial("tcp", e.addr)
	if err != nil {
		e.t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	if err := conn.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		e.t.Fatal(err)
	}
	go func() { _, _ = io.WriteString(conn, raw) }() // the answer may come before the end of a large body
	res, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		e.t.Fatalf("no answer to %q: %v", raw, err)
	}
	body, err := io.ReadAll(res.Body)
	if err != nil {
		e.t.Fatal(err)
	}
	return res, string(body)
}

// is fails the test unless the answer is a refusal with that code, or with "" not
// a refusal.
func (e *testGateway) is(what, raw string, status int, want code) {
	e.t.Helper()
	res, body := e.ask(raw)
	if res.StatusCode != status || res.Header.Get("X-Gateway-Error") != string(want) {
		e.t.Errorf("%s: %d %s, want %d %s\n%s", what, res.StatusCode, res.Header.Get("X-Gateway-Error"), status, want, body)
	}
}

func TestTokensOfCookieModeAreInCookiesOnly(t *testing.T) {
	for name, tc := range map[string]struct {
		insecure bool
		prefix   string
		secure   string
	}{
		"behind TLS":         {false, "__Host-", "; Secure"},
		"on a loopback host": {true, "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			e := startGateway(t, withCookies, func(c *StateConfig) { c.Cookies.Insecure = tc.insecure })
			e.token("uma", "user")
			res, body := e.ask(loginRequest("/auth/login?mode=cookie", "uma", "Origin: "+ownOrigin))
			if strings.Contains(body, "eyJ") || strings.Contains(body, "prt_") {
				t.Errorf("a token is in the body: %s", body)
			}
			var members map[string]any
			if err := json.Unmarshal([]byte(body), &members); err != nil || len(members) != 4 || members["expires_in"] != 900.0 {
				t.Errorf("body %s: %v", body, err)
			}
			cookies := res.Header.Values("Set-Cookie")
			if len(cookies) != 2 {
				t.Fatalf("cookies %q", cookies)
			}
			for i, c := range []struct{ name, life string }{{"portcullis_access", "900"}, {"portcullis_refresh", "3600"}} {
				pair, attributes, _ := strings.Cut(cookies[i], ";")
				if n, v, _ := strings.Cut(pair, "="); n != tc.prefix+c.name || v == "" {
					t.Errorf("cookie %s", pair)
				}
				if want := " Path=/; Max-Age=" + c.life + "; HttpOnly; SameSite=Strict" + tc.secure; attributes != want {
					t.Errorf("attributes %q, want %q", attributes, want)
				}
			}
		})
	}
}

func TestTheUpstreamSeesTheCallerAndNotTheCookies(t *testing.T) {
	e := startGateway(t, withCookies)
	e.token("uma", "user")
	b := e.signIn("uma")
	e.requests()
	res, body := e.ask("POST /tasks/x HTTP/1.1\r\nHost: gateway.test\r\nContent-Length: 0\r\nCookie: a=1; b=\"2 3\"\r\n" + strings.Join(append(b.own(), "Cookie: z=9", "", ""), "\r\n"))
	if res.StatusCode != 200 || res.Header.Get("Vary") != "Cookie" {
		t.Fatalf("%s Vary %q\n%s", res.Status, res.Header.Get("Vary"), body)
	}
	seen := e.requests()[0]
	for _, want := range []string{"X-User-Name: uma\r\n", "Cookie: a=1; b=\"2 3\"\r\n", "Cookie: theme=dark; lang=de\r\n", "Cookie: z=9\r\n"} {
		if !strings.Contains(seen, want) {
			t.Errorf("no %q in\n%s", want, seen)
		}
	}
	for _, secret := range []string{b.access, b.refresh, b.csrf, "portcullis"} {
		if strings.Contains(seen, secret) {
			t.Errorf("%s is in\n%s", secret, seen)
		}
	}
}

// What only looks like a cookie of ours proves nothing, and does not get through.
func TestNoSpellingOfOurCookiesGetsThrough(t *testing.T) {
	e := startGateway(t, withCookies)
	e.token("uma", "user")
	token := e.signIn("uma").access
	for _, cookie := range []string{
		"portcullis_access=%s", // the name for another mode
		"__host-portcullis_access=%s", "__HOST-PORTCULLIS_ACCESS=%s", "__Host-portcullis.access=%s", "__Host_portcullis-access=%s",
		"\"__Host-portcullis_access\"=%s", "__Host-portcullis_access =%s", "=__Host-portcullis_access=%s", " = __Host-portcullis_access=%s",
		"__Host-portcullis_access\t=%s", "__Host-portcullis_refresh=%s", "portcullis_refresh=\"%s\"",
	} {
		for _, line := range []string{"Cookie: ", "cookie:", "COOKIE: a=1; ", "Cookie: a=\"1;", "Cookie: ;;\t"} {
			line += fmt.Sprintf(cookie, token)
			e.requests()
			e.is(line, get("/tasks/x", line), 401, codeUnauthenticated)
			e.is(line, get("/public/x", line+"; b=2"), 200, "")
			seen := e.requests()
			if len(seen) != 1 || strings.Contains(seen[0], token) || !strings.Contains(seen[0], "b=2\r\n") {
				t.Errorf("%s: the upstream saw %q", line, seen)
			}
		}
	}
	for _, other := range []string{"portcullis=1", "xportcullis_access=1", "portcullis_accessx=1", "a=portcullis_access=1", "a=__Host-portcullis_access", "portcullis_access_=1"} {
		e.requests()
		e.is(other, get("/public/x", "Cookie: "+other), 200, "")
		if seen := e.requests(); len(seen) != 1 || !strings.Contains(seen[0], "\r\nCookie: "+other+"\r\n") {
			t.Errorf("%s: the upstream saw %q", other, seen)
		}
	}
}

func TestARequestByCookieMustBeOfAPageOfOurs(t *testing.T) {
	e := startGateway(t, withCookies)
	e.token("uma", "user")
	e.token("eve", "user")
	b, other := e.signIn("uma"), e.signIn("eve")
	own, csrf := "Origin: "+ownOrigin, "X-CSRF-Token: "+b.csrf
	for name, tc := range map[string]struct {
		fields []string
		safe   bool // accepted with a safe method
		socket bool // accepted for an upgrade
		unsafe bool
	}{
		"our page":                           {[]string{own, csrf}, true, true, true},
		"a page that is allowed":             {[]string{"Origin: https://app.example.com", csrf}, true, true, true},
		"no Origin, and the browser's word":  {[]string{"Sec-Fetch-Site: same-origin", csrf}, true, true, true},
		"typed by the user":                  {[]string{"Sec-Fetch-Site: none", csrf}, true, true, true},
		"no token":                           {[]string{own}, true, true, false},
		"an empty token":                     {[]string{own, "X-CSRF-Token:"}, true, true, false},
		"another session's token":            {[]string{own, "X-CSRF-Token: " + other.csrf}, true, true, false},
		"two tokens":                         {[]string{own, csrf, csrf}, true, true, false},
		"nothing at all":                     {nil, true, false, false},
		"the token alone":                    {[]string{csrf}, true, false, false},
		"another site":                       {[]string{"Origin: https://evil.example", csrf}, true, false, false},
		"a neighbour":                        {[]string{"Origin: https://evil.gateway.test", "Sec-Fetch-Site: same-site", csrf}, true, false, false},
		"without Origin from a neighbour":    {[]string{"Sec-Fetch-Site: same-site", csrf}, true, false, false},
		"without Origin from another site":   {[]string{"Sec-Fetch-Site: cross-site", csrf}, true, false, false},
		"Sec-Fetch-Site beside a bad Origin": {[]string{"Origin: https://evil.example", "Sec-Fetch-Site: same-origin", csrf}, true, false, false},
		"an opaque origin":                   {[]string{"Origin: null", csrf}, true, false, false},
		"an empty Origin":                    {[]string{"Origin:", "Sec-Fetch-Site: same-origin", csrf}, true, false, false},
		"two Origins":                        {[]string{own, "Origin: https://evil.example", csrf}, true, false, false},
		"our host without TLS":               {[]string{"Origin: http://gateway.test", csrf}, true, false, false},
		"our host on another port":           {[]string{"Origin: https://gateway.test:8443", csrf}, true, false, false},
		"what begins like our origin":        {[]string{"Origin: https://gateway.test.evil.example", csrf}, true, false, false},
		"what ends like our origin":          {[]string{"Origin: https://evil.example/https://gateway.test", csrf}, true, false, false},
		"the Referer of our page":            {[]string{"Referer: https://gateway.test/", csrf}, true, false, false},
		"another spelling of the token":      {[]string{own, "X_CSRF_Token: " + b.csrf}, true, true, false},
	} {
		fields := append([]string{b.cookie()}, tc.fields...)
		for _, way := range []struct {
			name, raw string
			ok        bool
		}{
			{"GET", get("/tasks/x", fields...), tc.safe},
			{"upgrade", get("/tasks/x", append(fields, "Connection: Upgrade", "Upgrade: websocket")...), tc.socket},
			{"POST", post("/tasks/x", fields...), tc.unsafe},
			{"DELETE", strings.Replace(post("/tasks/x", fields...), "POST", "DELETE", 1), tc.unsafe},
			{"QUERY", strings.Replace(post("/tasks/x", fields...), "POST", "QUERY", 1), tc.unsafe},
			{"an endpoint of ours", strings.Replace(post("/auth/me", fields...), "POST", "PATCH", 1), tc.unsafe},
		} {
			e.requests()
			what := name + " by " + way.name
			res, body := e.ask(way.raw)
			got := res.Header.Get("X-Gateway-Error")
			if refused := got == string(codeCSRFFailed); refused == way.ok || refused && res.StatusCode != 403 {
				t.Errorf("%s: %d %s\n%s", what, res.StatusCode, got, body)
			}
			if n := len(e.requests()); got == string(codeCSRFFailed) && n != 0 {
				t.Errorf("%s: refused, and the upstream saw it", what)
			}
		}
	}
}

func TestWhereForgeryIsRefusedOnTheRoad(t *testing.T) {
	e := startGateway(t, withCookies)
	bearer := e.token("uma", "user")
	b := e.signIn("uma")
	gone := e.signIn("uma")
	e.is("logout", post("/auth/logout", gone.own()...), 204, "")

	e.is("before the policy", post("/admin/x", b.cookie()), 403, codeCSRFFailed)
	e.is("the policy", post("/admin/x", b.own()...), 403, codeForbidden)
	e.is("before the route", post("/nowhere", b.cookie()), 403, codeCSRFFailed)
	e.is("after authentication", post("/admin/x", gone.cookie()), 401, codeInvalidToken)
	e.is("a cookie with nonsense", get("/tasks/x", "Cookie: __Host-portcullis_access=nonsense"), 401, codeInvalidToken)
	e.is("an empty cookie", get("/tasks/x", "Cookie: __Host-portcullis_access="), 401, codeInvalidToken)
	e.is("the refresh token in the place of the access token", get("/tasks/x", "Cookie: __Host-portcullis_access="+b.refresh), 401, codeInvalidToken)
	e.is("the access token in quotes", get("/tasks/x", `Cookie: __Host-portcullis_access="`+b.access+`"`), 401, codeInvalidToken)

	// Authorization wins, whatever it says.
	e.is("both", post("/tasks/x", b.cookie(), "Authorization: Bearer "+bearer), 200, "")
	e.is("a bad token beside a good cookie", get("/tasks/x", b.cookie(), "Authorization: Bearer nonsense"), 401, codeInvalidToken)
	e.is("another scheme beside a good cookie", get("/tasks/x", b.cookie(), "Authorization: Basic dTpw"), 401, codeInvalidToken)
	e.is("an empty field beside a good cookie", get("/tasks/x", b.cookie(), "Authorization:"), 401, codeUnauthenticated)
	e.requests()
	e.is("a good token beside a bad cookie", get("/tasks/x", "Cookie: __Host-portcullis_access=nonsense", "Authorization: Bearer "+bearer, "X-CSRF-Token: the-upstreams"), 200, "")
	if seen := e.requests()[0]; strings.Contains(seen, "nonsense") || !strings.Contains(seen, "X-CSRF-Token: the-upstreams\r\n") {
		t.Errorf("the upstream saw %s", seen)
	}

	// A page that was loaded anew asks for its token.
	if res, _ := e.ask(get("/auth/me", b.cookie())); res.Header.Get("X-CSRF-Token") != b.csrf {
		t.Errorf("X-CSRF-Token %q", res.Header.Get("X-CSRF-Token"))
	}
	if res, _ := e.ask(get("/auth/me", "Authorization: Bearer "+bearer)); res.Header.Get("X-CSRF-Token") != "" {
		t.Error("a CSRF token for a client without cookies")
	}

	// Somebody has put a cookie of the same name beside ours.
	for _, fields := range [][]string{
		{b.cookie() + "; __Host-portcullis_access=" + b.access}, {b.cookie(), "Cookie: __Host-portcullis_access=x"}, {"Cookie: __Host-portcullis_access=", b.cookie()},
	} {
		e.is("two cookies", get("/tasks/x", fields...), 400, codeMalformedRequest)
		e.is("two cookies for what is public", get("/public/x", fields...), 400, codeMalformedRequest)
		e.is("two cookies, and a token", get("/tasks/x", append(fields, "Authorization: Bearer "+bearer)...), 200, "")
		e.is("two cookies do not keep out", loginRequest("/auth/login?mode=cookie", "uma", append(fields, "Origin: "+ownOrigin)...), 200, "")
	}
}

func TestLoginByCookie(t *testing.T) {
	e := startGateway(t, withCookies)
	e.token("uma", "user")
	for name, tc := range map[string]struct {
		target string
		fields []string
		status int
		code   code
	}{
		"our page":               {"?mode=cookie", []string{"Origin: " + ownOrigin}, 200, ""},
		"another site":           {"?mode=cookie", []string{"Origin: https://evil.example"}, 403, codeCSRFFailed},
		"an unknown page":        {"?mode=cookie", nil, 403, codeCSRFFailed},
		"an expired cookie":      {"?mode=cookie", []string{"Origin: " + ownOrigin, "Cookie: __Host-portcullis_access=nonsense"}, 200, ""},
		"another mode":           {"?mode=cookies", []string{"Origin: " + ownOrigin}, 400, codeValidationFailed},
		"no mode, from anywhere": {"", []string{"Origin: https://evil.example"}, 200, ""},
	} {
		res, body := e.ask(loginRequest("/auth/login"+tc.target, "uma", tc.fields...))
		if res.StatusCode != tc.status || res.Header.Get("X-Gateway-Error") != string(tc.code) {
			t.Errorf("%s: %s\n%s", name, res.Status, body)
		}
		if wants := tc.status == 200 && tc.target != ""; wants != (len(res.Cookies()) == 2) {
			t.Errorf("%s: cookies %v", name, res.Cookies())
		}
	}
}

func TestRefreshByCookie(t *testing.T) {
	e := startGateway(t, withCookies)
	e.token("uma", "user")
	b, other := e.signIn("uma"), e.signIn("uma")
	own := "Origin: " + ownOrigin
	only := "Cookie: __Host-portcullis_refresh=" + b.refresh
	for name, tc := range map[string]struct {
		raw    string
		status int
		code   code
	}{
		"another site":            {post("/auth/refresh?mode=cookie", b.cookie(), "Origin: https://evil.example", "X-CSRF-Token: "+b.csrf), 403, codeCSRFFailed},
		"no token":                {post("/auth/refresh?mode=cookie", b.cookie(), own), 403, codeCSRFFailed},
		"another session's token": {post("/auth/refresh?mode=cookie", b.cookie(), own, "X-CSRF-Token: "+other.csrf), 403, codeCSRFFailed},
		"no mode":                 {post("/auth/refresh", b.own()...), 415, codeUnsupportedMedia},
		"a body": {strings.Replace(post("/auth/refresh?mode=cookie", append(b.own(), "Content-Type: application/json")...), "Content-Length: 0", "Content-Length: 2", 1) + "{}",
			400, codeMalformedRequest},
		"two cookies":                   {post("/auth/refresh?mode=cookie", append(b.own(), only)...), 400, codeMalformedRequest},
		"the access token in its place": {post("/auth/refresh?mode=cookie", own, "X-CSRF-Token: "+b.csrf, "Cookie: __Host-portcullis_refresh="+b.access), 401, codeInvalidRefresh},
		"no cookie":                     {post("/auth/refresh?mode=cookie", own, "X-CSRF-Token: "+b.csrf), 401, codeInvalidRefresh},
		"the name of the other kind":    {post("/auth/refresh?mode=cookie", own, "X-CSRF-Token: "+b.csrf, "Cookie: portcullis_refresh="+b.refresh), 401, codeInvalidRefresh},
	} {
		e.is(name, tc.raw, tc.status, tc.code)
	}

	// The access cookie has expired, or is nonsense; both come anew.
	res, body := e.ask(post("/auth/refresh?mode=cookie", only+"; __Host-portcullis_access=expired", own, "X-CSRF-Token: "+b.csrf))
	if res.StatusCode != 200 {
		t.Fatalf("%s\n%s", res.Status, body)
	}
	next := e.browserOf(res, body)
	if next.refresh == b.refresh || next.access == b.access || next.csrf != b.csrf || strings.Contains(body, "prt_") {
		t.Errorf("%+v after %+v\n%s", next, b, body)
	}
	e.is("the new cookie", get("/tasks/x", next.cookie()), 200, "")

	// A session that has ended takes its cookies along.
	e.is("logout", post("/auth/logout", next.own()...), 204, "")
	res, _ = e.ask(post("/auth/refresh?mode=cookie", next.own()...))
	if res.StatusCode != 401 || !cleared(res) {
		t.Errorf("%s %q", res.Status, res.Header.Values("Set-Cookie"))
	}
}

// cleared reports whether an answer takes both cookies away.
func cleared(res *http.Response) bool {
	n := 0
	for _, c := range res.Cookies() {
		if c.Value == "" && c.MaxAge < 0 && c.Path == "/" && c.Secure && strings.HasPrefix(c.Name, "__Host-portcullis_") {
			n++
		}
	}
	return n == 2
}

func TestLogoutByCookie(t *testing.T) {
	e := startGateway(t, withCookies)
	bearer := e.token("uma", "user")
	for scope, clears := range map[string]bool{"": true, "?scope=local": true, "?scope=global": true, "?scope=others": false} {
		b := e.signIn("uma")
		res, body := e.ask(post("/auth/logout"+scope, b.own()...))
		if res.StatusCode != 204 || cleared(res) != clears || !clears && len(res.Cookies()) != 0 {
			t.Errorf("logout%s: %s %q\n%s", scope, res.Status, res.Header.Values("Set-Cookie"), body)
		}
		if clears {
			e.is("afterwards", get("/tasks/x", b.cookie()), 401, codeInvalidToken)
		}
	}
	b := e.signIn("uma")
	p, err := e.service.Tokens().Verify([]byte(b.access))
	if err != nil {
		t.Fatal(err)
	}
	res, _ := e.ask(strings.Replace(post("/auth/me/sessions/"+p.SessionID, b.own()...), "POST", "DELETE", 1))
	if res.StatusCode != 204 || !cleared(res) {
		t.Errorf("ending the session itself: %s %q", res.Status, res.Header.Values("Set-Cookie"))
	}
	b = e.signIn("uma")
	res, _ = e.ask(post("/auth/logout", b.cookie(), "Authorization: Bearer "+e.fresh(bearer)))
	if len(res.Cookies()) != 0 {
		t.Errorf("a logout by token touches the cookies: %q", res.Header.Values("Set-Cookie"))
	}
}

// fresh returns the token, or another of the same user if it was ended.
func (e *testGateway) fresh(token string) string {
	e.t.Helper()
	if res, _ := e.ask(get("/auth/me", "Authorization: Bearer "+token)); res.StatusCode == 200 {
		return token
	}
	res, body := e.ask(loginRequest("/auth/login", "uma"))
	var in struct {
		AccessToken string `json:"access_token"`
	}
	if err := json.Unmarshal([]byte(body), &in); err != nil || in.AccessToken == "" {
		e.t.Fatalf("%s %v", res.Status, err)
	}
	return in.AccessToken
}

// An upstream neither sets nor clears a cookie of ours, and keeps its own.
func TestAnUpstreamCannotSetOurCookies(t *testing.T) {
	for line, passes := range map[string]bool{
		"Set-Cookie: theme=dark; Path=/":                               true,
		"Set-Cookie: portcullis=1":                                     true,
		"Set-Cookie: a=__Host-portcullis_access=1":                     true,
		"Set-Cookie: __Host-portcullis_access=evil; Path=/; Secure":    false,
		"Set-Cookie: __Host-portcullis_refresh=; Max-Age=0":            false,
		"set-cookie:portcullis_access=evil":                            false,
		"SET-COOKIE: \t portcullis_refresh \t=evil":                    false,
		"Set-Cookie: =portcullis_access=evil":                          false,
		"Set-Cookie: = portcullis_access=evil; Path=/":                 false,
		"Set-Cookie: portcullis_access":                                false,
		"Set-Cookie: __HOST-portcullis_access=evil":                    false,
		"Set-Cookie: portcullis_access=evil; Domain=gateway.test; a=b": false,
	} {
		var a answerHead
		head := "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n" + line + "\r\nDate: x\r\n\r\n"
		out, err := a.parse(nil, []byte(head))
		if err != nil {
			t.Fatal(err)
		}
		if got := strings.Contains(string(out), line); got != passes {
			t.Errorf("%q: passed on %v, want %v\n%s", line, got, passes, out)
		}
	}
}

// A page in a cookie's session may do everything that its user may with a token.
func TestACookieSessionEndsLikeAnother(t *testing.T) {
	e := startGateway(t, withCookies)
	e.token("uma", "user")
	b, other := e.signIn("uma"), e.signIn("uma")
	e.is("the others", post("/auth/logout?scope=others", b.own()...), 204, "")
	e.is("still here", get("/tasks/x", b.cookie()), 200, "")
	e.is("the other", get("/tasks/x", other.cookie()), 401, codeInvalidToken)
	e.is("the other cannot refresh", post("/auth/refresh?mode=cookie", other.own()...), 401, codeInvalidRefresh)
}

func TestASocketThatIsOursIsForwarded(t *testing.T) {
	e := startGateway(t, withCookies)
	e.token("uma", "user")
	b := e.signIn("uma")
	e.requests()
	e.is("the upstream answers", get("/tasks/x", b.cookie(), "Origin: "+ownOrigin, "Connection: Upgrade", "Upgrade: websocket"), 200, "")
	if seen := e.requests(); len(seen) != 1 || !strings.Contains(seen[0], "Upgrade: websocket") || strings.Contains(seen[0], b.access) {
		t.Errorf("the upstream saw %q", seen)
	}
}

// A body that a page of another site can send without asking: none of them.
func TestAForeignFormChangesNothing(t *testing.T) {
	e := startGateway(t, withCookies)
	e.token("uma", "user")
	b := e.signIn("uma")
	for _, mediaType := range []string{"application/x-www-form-urlencoded", "multipart/form-data", "text/plain"} {
		e.is(mediaType, post("/tasks/x", b.cookie(), "Origin: https://evil.example", "Sec-Fetch-Site: cross-site", "Content-Type: "+mediaType), 403, codeCSRFFailed)
	}
	body := "username=uma&password=correct+horse"
	raw := "POST /auth/login?mode=cookie HTTP/1.1\r\nHost: gateway.test\r\nOrigin: https://evil.example\r\nContent-Type: application/x-www-form-urlencoded\r\n" +
		fmt.Sprintf("Content-Length: %d\r\n\r\n%s", len(body), body)
	e.is("signing somebody in as somebody else", raw, 403, codeCSRFFailed)
}

func BenchmarkHeaderWithForeignCookies(b *testing.B) {
	raw := block("Cookie: session=0123456789abcdef0123456789abcdef; theme=dark; _ga=GA1.2.1234567890.1234567890; lang=de", "Accept: */*")
	var dst []byte
	for b.Loop() {
		var h clientHeader
		if h.read(raw, true) != nil {
			b.Fatal("refused")
		}
		dst = h.appendForwardable(dst[:0], raw, false)
	}
	b.ReportAllocs()
}
