package gateway

import (
	"crypto/tls"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/go-json-experiment/json"

	"portcullis/gateway/certs/certstest"
	"portcullis/policy"
)

// startRewriting starts a gateway with one public route of that path.
func startRewriting(t *testing.T, r RouteConfig) *testGateway {
	return startGateway(t, func(c *StateConfig) {
		r.Upstream = "up"
		c.Routes = []RouteConfig{r}
	})
}

// What the upstream is asked for is canonical again, keeps the client's spelling
// of the rest, and says nothing of the prefix.
func TestAPrefixIsCutOffOrReplaced(t *testing.T) {
	for name, tc := range map[string]struct{ route, rewrite, sent, want string }{
		"cut off":                               {"/public", "/", "/public/x", "/x"},
		"nothing is left":                       {"/public", "/", "/public", "/"},
		"a slash is left":                       {"/public", "/", "/public/", "/"},
		"a trailing slash stays":                {"/public", "/", "/public/x/", "/x/"},
		"the query stays":                       {"/public", "/", "/public?a=/public", "/?a=/public"},
		"percent-encodings stay":                {"/public", "/", "/public/%20/%25z%3F", "/%20/%25z%3F"},
		"the prefix was encoded":                {"/public/a+b", "/", "/public/a%2Bb/c", "/c"},
		"the prefix again":                      {"/public", "/", "/public/public/x", "/public/x"},
		"two segments":                          {"/public/v1", "/", "/public/v1/x/y", "/x/y"},
		"replaced":                              {"/public", "/api/v2", "/public/x?q", "/api/v2/x?q"},
		"replaced, and nothing is left":         {"/public", "/api", "/public", "/api"},
		"replaced, and a slash is left":         {"/public", "/api", "/public/", "/api/"},
		"put before everything":                 {"/", "/api", "/public/x", "/api/public/x"},
		"what looks like a host is only a path": {"/public", "/", "/public/evil.example/x", "/evil.example/x"},
	} {
		t.Run(name, func(t *testing.T) {
			e := startRewriting(t, RouteConfig{Path: tc.route, Rewrite: tc.rewrite})
			if res, body := e.send(get(tc.sent)); res.StatusCode != 200 {
				t.Fatalf("%d %s", res.StatusCode, body)
			}
			seen := e.requests()
			if len(seen) != 1 || !strings.HasPrefix(seen[0], "GET "+tc.want+" HTTP/1.1\r\n") {
				t.Errorf("the upstream saw %q, want %s", seen, tc.want)
			}
		})
	}
}

// What is cut off cannot hide what follows from the policy, nor make a path of
// what it would have refused.
func TestThePolicyDecidesOnTheWholePath(t *testing.T) {
	e := startGateway(t, func(c *StateConfig) {
		c.Routes = []RouteConfig{{Path: "/tasks", Upstream: "up", Rewrite: "/"}, {Path: "/public", Upstream: "up", Rewrite: "/tasks"}}
	})
	token := "Authorization: Bearer " + e.token("uma", "user")
	for target, status := range map[string]int{
		"/tasks/secret": 403, "/secret": 403, "/tasks//secret": 400, "/tasks/./secret": 400, "/tasks/%73ecret": 400,
		"/tasks/..%2Fsecret": 400, "/public/../secret": 400, "/tasks/": 200, "/public/secret": 200,
	} {
		res, body := e.send(get(target, token))
		if res.StatusCode != status {
			t.Errorf("%s: %d, want %d\n%s", target, res.StatusCode, status, body)
		}
	}
}

// For every path that is accepted, what is forwarded is canonical and means the
// prefix and the very same rest.
func FuzzRewrite(f *testing.F) {
	for _, rest := range []string{"", "/", "/x", "/%20", "/a%2Bb", "/%25", "/a?b", "/..", "//", "/%2F"} {
		f.Add(rest)
	}
	f.Fuzz(func(t *testing.T, rest string) {
		for _, p := range []struct{ route, upstream string }{{"/a", "/"}, {"/a/b+c", "/"}, {"/a", "/x/y"}, {"/", "/x"}} {
			sent := strings.TrimSuffix(p.route, "/") + rest
			path, query, _ := strings.Cut(sent, "?")
			decoded, err := canonicalPath(nil, []byte(path))
			if err != nil || !within(string(decoded), p.route) || strings.Contains(path, "#") {
				continue
			}
			w, err := newRewriting(p.route, p.upstream)
			if err != nil {
				t.Fatal(err)
			}
			got := w.target(sent)
			gotPath, gotQuery, _ := strings.Cut(got, "?")
			again, err := canonicalPath(nil, []byte(gotPath))
			want := strings.TrimSuffix(p.upstream, "/") + strings.TrimPrefix(string(decoded), strings.TrimSuffix(p.route, "/"))
			if want == "" {
				want = "/"
			}
			if err != nil || string(again) != want || gotQuery != query {
				t.Errorf("%s by %v: %s, which means %q (%v); want %q", sent, p, got, again, err, want)
			}
		}
	})
}

func TestALocationLeadsBackThroughTheGateway(t *testing.T) {
	strip, replace, all := RouteConfig{Path: "/public", Rewrite: "/"}, RouteConfig{Path: "/public", Rewrite: "/api"}, RouteConfig{Path: "/", Rewrite: "/api"}
	for name, tc := range map[string]struct {
		route    RouteConfig
		location string
		want     string
	}{
		"a path":                           {strip, "/login?a=/b#c", "/public/login?a=/b#c"},
		"the root":                         {strip, "/", "/public/"},
		"on the host that was asked for":   {strip, "http://Gateway.Test/login", "http://Gateway.Test/public/login"},
		"the other scheme":                 {strip, "https://gateway.test", "https://gateway.test/public/"},
		"relative":                         {strip, "login", "login"},
		"another host":                     {strip, "http://other.test/login", "http://other.test/login"},
		"a host that begins with ours":     {strip, "http://gateway.test.evil.example/x", "http://gateway.test.evil.example/x"},
		"another port":                     {strip, "http://gateway.test:81/x", "http://gateway.test:81/x"},
		"a user name in front of a host":   {strip, "http://gateway.test@evil.example/x", "http://gateway.test@evil.example/x"},
		"another host without a scheme":    {strip, "//other.test/login", "//other.test/login"},
		"which browsers read as the same":  {strip, `/\other.test/login`, `/\other.test/login`},
		"what would become another host":   {all, "/api//evil.example/x", "/api//evil.example/x"},
		"by a backslash":                   {all, `/api/\evil.example/x`, `/api/\evil.example/x`},
		"by a tab":                         {all, "/api/\t/evil.example/x", "/api/\t/evil.example/x"},
		"a tab where nothing is cut off":   {strip, "/\t/evil.example/x", "/\t/evil.example/x"},
		"a host of nobody":                 {strip, "http:///x", "http:///x"},
		"no URL of ours":                   {strip, "mailto:a@b.example", "mailto:a@b.example"},
		"under what was replaced":          {replace, "/api/x", "/public/x"},
		"exactly what was replaced":        {replace, "/api?x", "/public?x"},
		"beside what was replaced":         {replace, "/apish", "/apish"},
		"out of what was put before":       {all, "/api", "/"},
		"out of what was put before, path": {all, "/api/x", "/x"},
	} {
		t.Run(name, func(t *testing.T) {
			up := serveBytes(t, "HTTP/1.1 302 Found\r\nLocation: "+tc.location+"\r\nContent-Length: 0\r\nX-Up: yes\r\n\r\n")
			e := startGateway(t, func(c *StateConfig) {
				tc.route.Upstream = "up"
				c.Routes = []RouteConfig{tc.route}
				c.Upstreams[0].Targets = []*url.URL{{Scheme: "http", Host: up}}
			})
			res, _ := e.send(get("/public/x"))
			if got := res.Header["Location"]; len(got) != 1 || got[0] != tc.want {
				t.Errorf("Location %q, want %q", got, tc.want)
			}
			if res.Header.Get("X-Up") != "yes" {
				t.Errorf("the rest of the answer: %v", res.Header)
			}
		})
	}
}

func TestHeaderFieldsAreSetAndRemoved(t *testing.T) {
	e := startRewriting(t, RouteConfig{Path: "/public",
		RequestHeaders:  HeaderEdit{Set: []Field{{"X-Env", "production"}, {"Accept", "text/plain"}}, Remove: []string{"X-Internal", "Cookie"}},
		ResponseHeaders: HeaderEdit{Set: []Field{{"X-Frame-Options", "DENY"}}, Remove: []string{"X-Up"}},
	})
	res, _ := e.send(get("/public/x", "accept: */*", "X_Env: forged", "x-internal: 1", "X.Internal: 2", "COOKIE: a=b", "X-Kept: 1", "Connection: X-Env, Accept"))
	seen := e.requests()
	if len(seen) != 1 {
		t.Fatalf("the upstream saw %q", seen)
	}
	for _, want := range []string{"\r\nX-Env: production\r\n", "\r\nAccept: text/plain\r\n", "\r\nX-Kept: 1\r\n"} {
		if strings.Count(seen[0], want) != 1 {
			t.Errorf("want one %q in %q", want, seen[0])
		}
	}
	for _, bad := range []string{"*/*", "forged", "nternal", "a=b"} {
		if strings.Contains(seen[0], bad) {
			t.Errorf("%s in %q", bad, seen[0])
		}
	}
	if res.Header.Get("X-Frame-Options") != "DENY" || res.Header.Get("X-Up") != "" || res.Header.Get(fieldRequestID) == "" {
		t.Errorf("the answer has %v", res.Header)
	}
}

// The names that are ours, or about the connection, are nobody else's to set or
// remove; nor is there a value that ends its line.
func TestHeaderEditsThatAreRefused(t *testing.T) {
	var requests, answers []HeaderEdit
	both := func(h HeaderEdit) { requests, answers = append(requests, h), append(answers, h) }
	for _, name := range []string{"Connection", "Transfer-Encoding", "transfer_encoding", "Content-Length", "Content.Length", "Upgrade", "TE", "Trailer",
		"Keep-Alive", "X-Request-Id", "X_Identity_Assertion", "X-Gateway-Error", "", "X A", "X:A", "X\rA", "Ä"} {
		both(HeaderEdit{Set: []Field{{name, "1"}}})
		both(HeaderEdit{Remove: []string{name}})
	}
	for _, name := range []string{"X-User-Id", "x_user_id", "X.USER.ROLES", "X-Forwarded-For", "Forwarded", "Host", "Authorization", "authorization",
		"traceparent", "Remote-User", "X-Forwarded-Prefix", "Expect", "Proxy-Authorization", "X-HTTP-Method-Override"} {
		requests = append(requests, HeaderEdit{Set: []Field{{name, "1"}}}, HeaderEdit{Remove: []string{name}})
	}
	for _, value := range []string{"a\r\nX-User-Id: 1", "a\n", "\x00", "a\x7f"} {
		both(HeaderEdit{Set: []Field{{"X-A", value}}})
	}
	both(HeaderEdit{Set: []Field{{"X-A", "1"}, {"x_a", "2"}}})
	both(HeaderEdit{Set: []Field{{"X-A", "1"}}, Remove: []string{"x-a"}})
	for _, h := range requests {
		if CheckRoutes(StateConfig{Routes: []RouteConfig{{Path: "/", RequestHeaders: h}}}) == nil {
			t.Errorf("of requests: %+v is accepted", h)
		}
	}
	for _, h := range answers {
		if CheckRoutes(StateConfig{Routes: []RouteConfig{{Path: "/", ResponseHeaders: h}}}) == nil {
			t.Errorf("of answers: %+v is accepted", h)
		}
	}
	good := HeaderEdit{Set: []Field{{"X-A", "a\tb"}}, Remove: []string{"Server"}}
	if err := CheckRoutes(StateConfig{Routes: []RouteConfig{{Path: "/", RequestHeaders: good, ResponseHeaders: good}}}); err != nil {
		t.Error(err)
	}
}

func TestRewritesThatAreRefused(t *testing.T) {
	for _, rewrite := range []string{"a", "/a/", "//", "//a", "/a//b", "/../a", "/.", "/%41", "/a%2Fb", "/a;b", "/a?b", "/a b", "/a%20b"} {
		if CheckRoutes(StateConfig{Routes: []RouteConfig{{Path: "/x", Rewrite: rewrite}}}) == nil {
			t.Errorf("%s is accepted", rewrite)
		}
	}
}

// An upstream may have a CA of its own, want to see the gateway's certificate, and
// be known by another name than its address.
func TestTLSToTheUpstream(t *testing.T) {
	ca := certstest.NewAuthority(t)
	serverCert, clientCert := ca.Issue("tasks.internal").Certificate, ca.Issue("portcullis").Certificate
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, r.TLS.PeerCertificates[0].Subject.CommonName+" for "+r.TLS.ServerName)
	}))
	server.TLS = &tls.Config{Certificates: []tls.Certificate{serverCert}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: ca.Pool()}
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	server.StartTLS()
	t.Cleanup(server.Close)
	at, err := url.Parse(server.URL)
	if err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		config *tls.Config
		status int
		body   string
	}{
		"all of it":             {&tls.Config{RootCAs: ca.Pool(), Certificates: []tls.Certificate{clientCert}, ServerName: "tasks.internal"}, 200, "portcullis for tasks.internal"},
		"no certificate":        {&tls.Config{RootCAs: ca.Pool(), ServerName: "tasks.internal"}, 502, ""},
		"another name":          {&tls.Config{RootCAs: ca.Pool(), Certificates: []tls.Certificate{clientCert}}, 502, ""},
		"a CA nobody knows":     {&tls.Config{Certificates: []tls.Certificate{clientCert}, ServerName: "tasks.internal"}, 502, ""},
		"nothing of the system": {nil, 502, ""},
	} {
		t.Run(name, func(t *testing.T) {
			e := startGateway(t, func(c *StateConfig) {
				c.Upstreams = []UpstreamConfig{{Name: "up", Targets: []*url.URL{at}, TLS: tc.config}}
			})
			for range 2 { // the second on a kept connection
				res, body := e.send(get("/public/x"))
				if res.StatusCode != tc.status || tc.body != "" && body != tc.body {
					t.Errorf("%d %s, want %d %s", res.StatusCode, body, tc.status, tc.body)
				}
			}
		})
	}
}

// The description on the docs page is of what clients can ask for.
func TestTheDescriptionHasPathsAsClientsSeeThem(t *testing.T) {
	readable, err := policy.Parse("test.csv", []byte("p, anonymous, /auth/openapi.json, GET, allow"))
	if err != nil {
		t.Fatal(err)
	}
	const description = `{"openapi":"3.1.0","paths":{"/":{},"/items":{"get":{}},"/items/{id}":{},"/other":{}}}`
	for name, tc := range map[string]struct {
		routes []RouteConfig
		want   []string
	}{
		"as they are": {[]RouteConfig{{Path: "/items", Upstream: "up"}}, []string{"/", "/items", "/items/{id}", "/other"}},
		"cut off":     {[]RouteConfig{{Path: "/shop", Upstream: "up", Rewrite: "/"}}, []string{"/shop/", "/shop/items", "/shop/items/{id}", "/shop/other"}},
		"replaced":    {[]RouteConfig{{Path: "/shop", Upstream: "up", Rewrite: "/items"}}, []string{"/shop", "/shop/{id}"}},
		"twice":       {[]RouteConfig{{Path: "/other", Upstream: "up"}, {Path: "/shop", Upstream: "up", Rewrite: "/items"}}, []string{"/other", "/shop", "/shop/{id}"}},
	} {
		e := startGateway(t, func(c *StateConfig) {
			c.Routes, c.Upstreams[0].OpenAPI, c.Policy = tc.routes, []byte(description), readable
		})
		res, body := e.send(get("/auth/openapi.json"))
		if res.StatusCode != 200 {
			t.Fatalf("%d %s", res.StatusCode, body)
		}
		var doc struct {
			Paths map[string]any `json:"paths"`
		}
		if err := json.Unmarshal([]byte(body), &doc); err != nil {
			t.Fatal(err)
		}
		var got []string
		for path := range doc.Paths {
			if !strings.HasPrefix(path, "/auth/") && path != jwksPath {
				got = append(got, path)
			}
		}
		slices.Sort(got)
		if !slices.Equal(got, tc.want) {
			t.Errorf("%s: %q, want %q", name, got, tc.want)
		}
	}
}

// Whatever an upstream says, what is made of it leads to the host that was asked.
func FuzzLocation(f *testing.F) {
	for _, value := range []string{"/", "/api//evil.example", `/api/\evil.example`, "/api/\t/evil.example", "/api/\n/", "http://gateway.test/api/x", "http://gateway.test", "//a", "/api?x", "http://gateway.test//evil"} {
		f.Add(value)
	}
	f.Fuzz(func(t *testing.T, value string) {
		for _, p := range []struct{ route, upstream string }{{"/a", "/"}, {"/a", "/api"}, {"/", "/api"}} {
			w, err := newRewriting(p.route, p.upstream)
			if err != nil {
				t.Fatal(err)
			}
			got, ok := w.location(value, "gateway.test")
			if !ok {
				continue
			}
			// As browsers read it (URL standard, §4.4).
			read := strings.NewReplacer("\t", "", "\n", "", "\r", "", `\`, "/").Replace(got)
			scheme, rest, absolute := strings.Cut(read, "://")
			if absolute && !strings.HasPrefix(read, "/") {
				host, _, _ := strings.Cut(strings.NewReplacer("?", "/", "#", "/").Replace(rest), "/")
				if !strings.EqualFold(scheme, "http") && !strings.EqualFold(scheme, "https") || !strings.EqualFold(host, "gateway.test") {
					t.Errorf("%q by %v leads to %q", value, p, got)
				}
				continue
			}
			if !strings.HasPrefix(read, "/") || strings.HasPrefix(read, "//") {
				t.Errorf("%q by %v leads to %q", value, p, got)
			}
		}
	})
}
