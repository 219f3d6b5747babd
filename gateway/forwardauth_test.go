package gateway

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/golang-jwt/jwt/v5"
)

// askedBy is a change of startGateway: the test itself is the proxy.
func askedBy(proxy string) func(*StateConfig) {
	return func(c *StateConfig) {
		c.TrustedProxies = []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32")}
		c.ForwardAuth = ForwardAuthConfig{Proxy: proxy, From: c.TrustedProxies, Audiences: []string{"app"}}
	}
}

func TestAProxyIsToldWhatIsAllowed(t *testing.T) {
	for _, proxy := range []string{"nginx", "traefik", "caddy", "envoy"} {
		t.Run(proxy, func(t *testing.T) {
			e := startGateway(t, askedBy(proxy))
			user := "Authorization: Bearer " + e.token("uma", "user")
			ask := func(method, target string, fields ...string) string {
				switch proxy {
				case "nginx":
					return get("/auth/forward", append(fields, "X-Original-Method: "+method, "X-Original-URI: "+target)...)
				case "envoy":
					return method + get("/auth/forward"+target, fields...)[3:]
				}
				return get("/auth/forward", append(fields, "X-Forwarded-Method: "+method, "X-Forwarded-Uri: "+target)...)
			}
			for name, c := range map[string]struct {
				raw    string
				status int
				code   code
			}{
				"allowed":                           {ask("GET", "/tasks/1?a=b", user), 200, ""},
				"allowed to everybody":              {ask("POST", "/public/x"), 200, ""},
				"a stranger":                        {ask("GET", "/tasks/1"), 401, codeUnauthenticated},
				"a bad token":                       {ask("GET", "/public/x", "Authorization: Bearer nonsense"), 401, codeInvalidToken},
				"another scheme":                    {ask("GET", "/public/x", "Authorization: Basic YTpi"), 401, codeInvalidToken},
				"not allowed":                       {ask("GET", "/admin/x", user), 403, codeForbidden},
				"allowed, but for the method":       {ask("DELETE", "/nowhere", user), 403, codeForbidden},
				"allowed where there is no route":   {ask("GET", "/nowhere", user), 200, ""},
				"unknown, to a stranger":            {ask("GET", "/no/such/route"), 401, codeUnauthenticated},
				"dots":                              {ask("GET", "/tasks/../admin", user), 400, codePathNotCanonical},
				"encoded dots":                      {ask("GET", "/tasks/%2e%2e/admin", user), 400, codePathNotCanonical},
				"two slashes":                       {ask("GET", "/tasks//1", user), 400, codePathNotCanonical},
				"a parameter":                       {ask("GET", "/tasks;x=1/1", user), 400, codePathNotCanonical},
				"an encoded slash":                  {ask("GET", "/tasks%2F1", user), 400, codePathNotCanonical},
				"a preflight is asked about as any": {ask("OPTIONS", "/tasks/1", "Origin: https://x.example", "Access-Control-Request-Method: GET"), 401, codeUnauthenticated},
				"itself":                            {ask("GET", "/auth/forward"), 401, codeUnauthenticated},
				"another method beside it":          {ask("GET", "/public/x", "X-Original-Method: DELETE"), 400, codeMalformedRequest},
				"another target beside it":          {ask("GET", "/public/x", "X-Original-URI: /tasks"), 400, codeMalformedRequest},
				"another URL beside it":             {ask("GET", "/public/x", "X-Original-URL: http://a/tasks"), 400, codeMalformedRequest},
				"another proxy's word beside it":    {ask("GET", "/public/x", "X-Forwarded-Uri: /tasks", "X-Forwarded-Method: GET"), 400, codeMalformedRequest},
				"a misspelt one":                    {ask("GET", "/public/x", "X_Original_URI: /public/x"), 400, codeMalformedRequest},
				"a dotted one":                      {ask("GET", "/public/x", "X.Forwarded.Method: GET"), 400, codeMalformedRequest},
				"the same, from another proxy":      {ask("GET", "/public/x", "X-Original-URL: https://app.example/public/x"), 200, ""},
			} {
				t.Run(name, func(t *testing.T) {
					res, body := e.send(c.raw)
					if res.StatusCode != c.status || res.Header.Get(fieldGatewayError) != string(c.code) {
						t.Errorf("%d %s, want %d %s\n%s", res.StatusCode, res.Header.Get(fieldGatewayError), c.status, c.code, body)
					}
					if (res.Header.Get("X-User-Id") != "") != (c.status == 200 && strings.Contains(c.raw, user)) {
						t.Errorf("X-User-Id is %q", res.Header.Get("X-User-Id"))
					}
					if (res.StatusCode == 401) != (res.Header.Get("WWW-Authenticate") != "") {
						t.Errorf("WWW-Authenticate is %q", res.Header.Get("WWW-Authenticate"))
					}
					if c.status == 200 && body != "" {
						t.Errorf("body %q", body)
					}
				})
			}
			if seen := e.requests(); len(seen) != 0 {
				t.Errorf("the upstream saw %q", seen)
			}
		})
	}
}

func TestWhatAProxyDoesNotSayIsNotMadeUp(t *testing.T) {
	e := startGateway(t, askedBy("nginx"))
	for name, raw := range map[string]string{
		"nothing":                      get("/auth/forward"),
		"no method":                    get("/auth/forward", "X-Original-URI: /public/x"),
		"no target":                    get("/auth/forward", "X-Original-Method: GET"),
		"two methods":                  get("/auth/forward", "X-Original-Method: GET", "X-Original-Method: GET", "X-Original-URI: /public/x"),
		"two targets":                  get("/auth/forward", "X-Original-Method: GET", "X-Original-URI: /public/x", "x-original-uri: /public/x"),
		"another proxy's fields alone": get("/auth/forward", "X-Forwarded-Method: GET", "X-Forwarded-Uri: /public/x"),
		"half of each":                 get("/auth/forward", "X-Forwarded-Method: GET", "X-Original-URI: /public/x"),
		"a path behind":                get("/auth/forward/public/x", "X-Original-Method: GET", "X-Original-URI: /public/x"),
		"an unknown upstream":          get("/auth/forward?upstream=other", "X-Original-Method: GET", "X-Original-URI: /public/x"),
		"two upstreams":                get("/auth/forward?upstream=up&upstream=app", "X-Original-Method: GET", "X-Original-URI: /public/x"),
		"another parameter":            get("/auth/forward?x=y", "X-Original-Method: GET", "X-Original-URI: /public/x"),
		"an authority in the target":   get("/auth/forward", "X-Original-Method: GET", "X-Original-URI: http://a/public/x"),
		"a fragment":                   get("/auth/forward", "X-Original-Method: GET", "X-Original-URI: /public/x?a#b"),
		"a space":                      get("/auth/forward", "X-Original-Method: GET", "X-Original-URI: /public/x y"),
		"a list":                       get("/auth/forward", "X-Original-Method: GET, DELETE", "X-Original-URI: /public/x"),
	} {
		res, body := e.send(raw)
		if want := 400; res.StatusCode != want && (name != "a list" || res.StatusCode != 501) {
			t.Errorf("%s: %d %s", name, res.StatusCode, body)
		}
	}
	if res, body := e.send(get("/auth/forward", "X-Original-Method: GET", "X-Original-URL: https://app.example/public/x")); res.StatusCode != 200 {
		t.Errorf("as ingress-nginx asks: %d %s", res.StatusCode, body)
	}
}

// Neither strangers nor users learn that there is anything, and what they say of
// another request changes nothing.
func TestOnlyTheProxyMayAsk(t *testing.T) {
	for name, change := range map[string]func(*StateConfig){
		"turned off": func(c *StateConfig) { askedBy("nginx")(c); c.ForwardAuth = ForwardAuthConfig{} },
		"another address": func(c *StateConfig) {
			askedBy("nginx")(c)
			c.TrustedProxies = []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}
		},
		"nobody trusted": func(c *StateConfig) { askedBy("nginx")(c); c.TrustedProxies = nil },
	} {
		t.Run(name, func(t *testing.T) {
			e := startGateway(t, change)
			user := "Authorization: Bearer " + e.token("uma", "user")
			for _, path := range []string{"/auth/forward", "/auth/forward/public/x", "/auth/forwardx"} {
				res, _ := e.send(get(path, "X-Original-Method: GET", "X-Original-URI: /public/x"))
				if res.StatusCode != 401 || res.Header.Get(fieldGatewayError) != string(codeUnauthenticated) {
					t.Errorf("a stranger at %s: %d", path, res.StatusCode)
				}
				res, _ = e.send(get(path, user, "X-Original-Method: GET", "X-Original-URI: /public/x"))
				if res.StatusCode != 404 || res.Header.Get(fieldUserID) != "" {
					t.Errorf("a user at %s: %d", path, res.StatusCode)
				}
			}
		})
	}
}

// An assertion is for the service that was named, or the route's, or nobody.
func TestTheAssertionIsForTheServiceBehindTheProxy(t *testing.T) {
	e := startGateway(t, askedBy("nginx"))
	user := "Authorization: Bearer " + e.token("uma", "user")
	for target, want := range map[string][2]string{
		"/auth/forward":              {"/tasks/1", "up"},
		"/auth/forward?upstream=app": {"/tasks/1", "app"},
		"/auth/forward?upstream=up":  {"/tasks/1", "up"},
		"/auth/forward#":             {"/nowhere", ""},
	} {
		res, body := e.send(get(strings.TrimSuffix(target, "#"), user, "X-Original-Method: GET", "X-Original-URI: "+want[0]))
		if res.StatusCode != 200 {
			t.Fatalf("%s: %d %s", target, res.StatusCode, body)
		}
		if (res.Header.Get(fieldAssertion) != "") != (want[1] != "") {
			t.Errorf("%s, %s: the assertion is %q", target, want[0], res.Header.Get(fieldAssertion))
		}
		if got := audienceOf(t, res.Header.Get(fieldAssertion)); got != want[1] {
			t.Errorf("%s, %s: for %q, want %q", target, want[0], got, want[1])
		}
	}
}

// A page of another origin must not open a WebSocket with the cookies of a user:
// proxies keep Upgrade to themselves when they ask.
func TestForgedWebSocketsAreRefusedForTheProxy(t *testing.T) {
	e := startGateway(t, askedBy("nginx"), func(c *StateConfig) { c.Cookies.Origins = []string{"https://app.example"} })
	cookie := "Cookie: " + CookieConfig{}.name(accessCookie) + "=" + e.token("uma", "user")
	asks := []string{cookie, "X-Original-Method: GET", "X-Original-URI: /tasks/1"}
	for name, c := range map[string]struct {
		fields []string
		status int
	}{
		"a page":                     {asks, 200},
		"a WebSocket of ours":        {append(asks[:3:3], "Sec-WebSocket-Key: x", "Origin: https://app.example"), 200},
		"a WebSocket of somebody":    {append(asks[:3:3], "Sec-WebSocket-Key: x", "Origin: https://evil.example"), 403},
		"one over HTTP/2":            {append(asks[:3:3], "Sec-WebSocket-Version: 13", "Origin: https://evil.example"), 403},
		"a change without its token": {[]string{cookie, "X-Original-Method: POST", "X-Original-URI: /tasks/1", "Origin: https://app.example"}, 403},
	} {
		if res, body := e.send(get("/auth/forward", c.fields...)); res.StatusCode != c.status {
			t.Errorf("%s: %d %s", name, res.StatusCode, body)
		}
	}
}

// A proxy that announces its client's body and keeps it must not have the beginning of
// its next question taken for that: what the client chose the length of would be cut
// off somebody else's.
func TestAQuestionIsNotTakenForTheBodyOfTheOneBefore(t *testing.T) {
	e := startGateway(t, askedBy("nginx"))
	question := func(target string, fields ...string) string {
		return get("/auth/forward", append(fields, "X-Original-Method: GET", "X-Original-URI: "+target)...)
	}
	for target, status := range map[string]int{"/public/x": 200, "/tasks/1": 401, "/tasks//1": 400} {
		for _, body := range []string{"Content-Length: 7", "Transfer-Encoding: chunked"} {
			got := answers(t, "GET", e.talk(question(target, body)+question("/public/y")))
			if len(got) != 1 || got[0].StatusCode != status || !got[0].Close {
				t.Errorf("%s, %s: %d answers, the first is %d; it ends the connection: %v", target, body, len(got), got[0].StatusCode, got[0].Close)
			}
		}
	}
}

// Where the gateway proxies it answers preflights itself. Where it is asked that
// answer would be a yes, and the service would get a request that no policy allows.
func TestPreflightIsNoYes(t *testing.T) {
	e := startGateway(t, askedBy("nginx"), func(c *StateConfig) {
		c.Routes[0].CORS = CORS{Origins: []string{"https://app.example"}, Methods: []string{"GET"}}
	})
	preflight := []string{"Origin: https://app.example", "Access-Control-Request-Method: GET"}
	if res, body := e.send("OPTIONS" + get("/tasks/1", preflight...)[3:]); res.StatusCode != 204 {
		t.Fatalf("a preflight of its own: %d %s", res.StatusCode, body)
	}
	if res, body := e.send(get("/auth/forward", append(preflight, "X-Original-Method: OPTIONS", "X-Original-URI: /tasks/1")...)); res.StatusCode != 401 {
		t.Errorf("asked about: %d %s", res.StatusCode, body)
	}
}

// audienceOf is the aud claim of a token, unverified.
func audienceOf(t *testing.T, token string) string {
	t.Helper()
	if token == "" {
		return ""
	}
	claims := jwt.RegisteredClaims{}
	if _, _, err := jwt.NewParser().ParseUnverified(token, &claims); err != nil {
		t.Fatal(err)
	}
	return strings.Join(claims.Audience, ",")
}
