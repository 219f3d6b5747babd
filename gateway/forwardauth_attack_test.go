package gateway

import (
	"bufio"
	"io"
	"net"
	"net/url"
	"strings"
	"testing"
)

// Somebody who may ask, and holds a user's token, wants to be believed by a service
// that the policy does not let that user reach: asks about what is open, for another.

// besides is a change of startGateway: services that a user of up has no business with.
func besides(c *StateConfig) {
	c.ForwardAuth.Audiences = append(c.ForwardAuth.Audiences, "listed")
	for _, name := range []string{"other", "listed", "rest"} {
		c.Upstreams = append(c.Upstreams, UpstreamConfig{Name: name, Targets: []*url.URL{{Scheme: "http", Host: c.Upstreams[0].Targets[0].Host}}})
	}
	c.Routes = append(c.Routes,
		RouteConfig{Path: "/tasks/deep", Upstream: "other"},
		RouteConfig{Path: "/public/rewritten", Upstream: "other", Rewrite: "/tasks"},
		RouteConfig{Path: "/", Upstream: "rest"},
	)
}

func TestAnAssertionIsForWhereTheDecidedPathLeads(t *testing.T) {
	for _, proxy := range []string{"nginx", "traefik", "caddy"} {
		t.Run(proxy, func(t *testing.T) {
			e := startGateway(t, askedBy(proxy), besides)
			user, nobody := "Authorization: Bearer "+e.token("uma", "user"), "X-Nobody: 1"
			says := [2]string{"X-Forwarded-Method: GET", "X-Forwarded-Uri: "}
			if proxy == "nginx" {
				says = [2]string{"X-Original-Method: GET", "X-Original-URI: "}
			}
			for _, c := range []struct {
				who, path, audience string
				status              int
				aud                 string
			}{
				{user, "/tasks/1", "up", 200, "up"},
				{user, "/tasks/1", "", 200, "up"},
				{user, "/tasks/1", "other", 400, ""},
				{user, "/tasks/1", "rest", 400, ""},
				{user, "/tasks/1?upstream=other", "other", 400, ""},
				{user, "/public/x", "other", 400, ""},
				{nobody, "/public/x", "other", 400, ""}, // the same for everybody
				{nobody, "/public/x", "up", 200, ""},
				// The longest path, on a border of segments.
				{user, "/tasks/deep", "other", 200, "other"},
				{user, "/tasks/deep/1", "other", 200, "other"},
				{user, "/tasks/deep/1", "up", 400, ""},
				{user, "/tasks/deeper", "other", 400, ""},
				{user, "/tasks/deeper", "up", 200, "up"},
				{user, "/nowhere", "rest", 200, "rest"},
				{user, "/nowhere", "up", 400, ""},
				// A rewriting is of what is sent, not of what is decided on.
				{user, "/public/rewritten/1", "other", 200, "other"},
				{user, "/public/rewritten/1", "up", 400, ""},
				// Where the gateway answers itself no request gets to an upstream, though / is a route.
				{user, "/auth/me", "rest", 400, ""},
				{user, "/auth/me", "", 200, ""},
				{user, "/auth/no/such/endpoint", "rest", 400, ""},
				{user, "/auth/forward", "rest", 400, ""},
				{user, jwksPath, "rest", 400, ""},
				// What the operator has listed is for any path that is open.
				{user, "/tasks/1", "app", 200, "app"},
				{user, "/auth/me", "app", 200, "app"},
				{user, "/tasks/1", "listed", 200, "listed"},
				// Who may not is not told whether that leads there.
				{user, "/admin/x", "other", 403, ""},
				{user, "/admin/x", "up", 403, ""},
				{nobody, "/tasks/1", "other", 401, ""},
				{nobody, "/tasks/1", "up", 401, ""},
				{user, "/tasks/1", "Up", 400, ""},
				{user, "/tasks/1", "upp", 400, ""},
			} {
				question, before := "/auth/forward", len(e.log.String())
				if c.audience != "" {
					question += "?upstream=" + c.audience
				}
				res, body := e.send(get(question, c.who, says[0], says[1]+c.path))
				if res.StatusCode != c.status {
					t.Errorf("%s for %q: %d, want %d\n%s", c.path, c.audience, res.StatusCode, c.status, body)
				}
				if got := audienceOf(t, res.Header.Get(fieldAssertion)); got != c.aud {
					t.Errorf("%s for %q: the assertion is for %q, want %q", c.path, c.audience, got, c.aud)
				}
				if known := c.status == 200 && c.who == user; (res.Header.Get(fieldUserID) != "") != known {
					t.Errorf("%s for %q: X-User-Id is %q", c.path, c.audience, res.Header.Get(fieldUserID))
				}
				if c.status == 400 {
					e.saysWhatToConfigure(t, res.Header.Get(fieldGatewayError), body, e.log.String()[before:])
				}
			}
			if seen := e.requests(); len(seen) != 0 {
				t.Errorf("the upstream saw %q", seen)
			}
		})
	}
}

// saysWhatToConfigure looks at a refusal: what to do about it is told in the log, and to
// nobody else.
func (e *testGateway) saysWhatToConfigure(t *testing.T, code, body, log string) {
	t.Helper()
	if code != string(codeMalformedRequest) || strings.Contains(body, "audiences") || strings.Contains(body, "rest") {
		t.Errorf("the answer is %s\n%s", code, body)
	}
	if strings.Count(log, "forward_auth.audiences") != 1 {
		t.Errorf("the log says %s", log)
	}
}

// Envoy has no query of its own: what looks like one is its client's.
func TestAClientOfEnvoyDoesNotChooseTheAudience(t *testing.T) {
	e := startGateway(t, askedBy("envoy"), besides)
	user := "Authorization: Bearer " + e.token("uma", "user")
	for target, want := range map[string]string{
		"/tasks/1": "up", "/tasks/1?upstream=other": "up", "/tasks/1?upstream=app": "up", "/tasks/deep/1?upstream=up": "other",
		"/public/rewritten/1": "other", "/nowhere?upstream=up": "rest", "/auth/me": "", "/auth/me?upstream=rest": "", jwksPath: "",
	} {
		res, body := e.send(get("/auth/forward"+target, user))
		if res.StatusCode != 200 {
			t.Errorf("%s: %d %s", target, res.StatusCode, body)
		}
		if got := audienceOf(t, res.Header.Get(fieldAssertion)); got != want {
			t.Errorf("%s: the assertion is for %q, want %q", target, got, want)
		}
	}
	for _, target := range []string{"", "?upstream=other"} {
		if res, body := e.send(get("/auth/forward"+target, user)); res.StatusCode != 400 {
			t.Errorf("%q: %d %s", target, res.StatusCode, body)
		}
	}
}

// With its endpoints at the root, the gateway's own paths are among those of the
// services, and open to every user.
func TestAnAssertionIsForNobodyWhereTheGatewayAnswersAtTheRoot(t *testing.T) {
	e := startGateway(t, askedBy("nginx"), func(c *StateConfig) {
		c.Prefix, c.Routes = "", []RouteConfig{{Path: "/", Upstream: "up"}, {Path: "/menu", Upstream: "up"}}
		c.Policy = mustParsePolicy(t, "p, authenticated, /*, GET, allow\n")
	})
	user := "Authorization: Bearer " + e.token("uma", "user")
	for _, c := range []struct {
		path, audience string
		status         int
		aud            string
	}{
		{"/me", "", 200, ""},
		{"/me", "up", 400, ""},
		{"/users/1", "up", 400, ""},
		{"/login", "up", 400, ""},
		{jwksPath, "up", 401, ""}, // who is calling is not asked there
		{"/menu", "up", 200, "up"},
		{"/me/and/more", "", 200, "up"},
		{"/", "up", 200, "up"},
	} {
		question := "/forward"
		if c.audience != "" {
			question += "?upstream=" + c.audience
		}
		res, body := e.send(get(question, user, "X-Original-Method: GET", "X-Original-URI: "+c.path))
		if got := audienceOf(t, res.Header.Get(fieldAssertion)); res.StatusCode != c.status || got != c.aud {
			t.Errorf("%s for %q: %d, for %q; want %d, for %q\n%s", c.path, c.audience, res.StatusCode, got, c.status, c.aud, body)
		}
	}
}

// A network that is trusted to say whom it brings has more in it than the proxy that asks.
func TestOnlyThoseNamedMayAsk(t *testing.T) {
	question := []string{"Connection: close", "X-Original-Method: GET", "X-Original-URI: /public/x"}
	for name, c := range map[string]struct {
		trusted, from string
		header        string // of the PROXY protocol
		fields        []string
		may           bool
	}{
		"the proxy":                          {"127.0.0.0/8", "127.0.0.1/32", "", nil, true},
		"one of its network":                 {"127.0.0.0/8", "127.0.0.0/30", "", nil, true},
		"the second that is named":           {"127.0.0.0/8", "127.0.0.9/32,127.0.0.1/32", "", nil, true},
		"another that is trusted":            {"127.0.0.0/8", "127.0.0.9/32", "", nil, false},
		"nobody is named":                    {"127.0.0.0/8", "", "", nil, false},
		"named, but not trusted":             {"192.0.2.0/24", "127.0.0.1/32", "", nil, false},
		"another, brought by who is named":   {"127.0.0.0/8", "127.0.0.9/32", "", []string{"X-Forwarded-For: 127.0.0.9"}, false},
		"another, in other words":            {"127.0.0.0/8", "127.0.0.9/32", "", []string{"Forwarded: for=127.0.0.9"}, false},
		"another, in a PROXY header":         {"127.0.0.0/8", "127.0.0.9/32", "PROXY TCP4 127.0.0.9 192.0.2.1 1000 80\r\n", nil, false},
		"another, in a newer one":            {"127.0.0.0/8", "127.0.0.9/32", v2(0x21, 0x11, "\x7f\x00\x00\x09\xc0\x00\x02\x01\x03\xe8\x00\x50"), nil, false},
		"a client of a balancer":             {"127.0.0.0/8", "127.0.0.1/32", "PROXY TCP4 127.0.0.9 192.0.2.1 1000 80\r\n", nil, false},
		"the proxy behind a balancer":        {"127.0.0.0/8", "127.0.0.1/32,127.0.0.9/32", "PROXY TCP4 127.0.0.9 192.0.2.1 1000 80\r\n", nil, true},
		"nobody whom a balancer knows":       {"127.0.0.0/8", "127.0.0.1/32", "PROXY UNKNOWN\r\n", nil, false},
		"the proxy, whatever it says it has": {"127.0.0.0/8", "127.0.0.1/32", "", []string{"X-Forwarded-For: 203.0.113.9"}, true},
	} {
		t.Run(name, func(t *testing.T) {
			e := startGatewayAs(t, func(c *Config) { c.ProxyProtocol = ProxyOptional }, askedBy("nginx"), func(s *StateConfig) {
				s.TrustedProxies, s.ForwardAuth.From = prefixes(t, c.trusted), prefixes(t, c.from)
			})
			user := "Authorization: Bearer " + e.token("uma", "user")
			for _, who := range []string{user, "X-Nobody: 1"} {
				said, _ := io.ReadAll(e.say(c.header + get("/auth/forward", append(append(question, c.fields...), who)...)))
				want := "HTTP/1.1 401 " // as at any path of no endpoint
				switch {
				case c.may:
					want = "HTTP/1.1 200 "
				case who == user:
					want = "HTTP/1.1 404 "
				}
				if !strings.HasPrefix(string(said), want) || strings.Contains(string(said), fieldUserID) != (c.may && who == user) {
					t.Errorf("%s: answered %q", who[:8], said)
				}
			}
		})
	}
}

// Whoever is no longer named is not answered any more, on the connection that it has.
func TestWhoMayAskChangesWithTheConfiguration(t *testing.T) {
	e := startGateway(t, askedBy("nginx"), func(c *StateConfig) { c.TrustedProxies = prefixes(t, "127.0.0.0/8") })
	question := get("/auth/forward", "Authorization: Bearer "+e.token("uma", "user"), "X-Original-Method: GET", "X-Original-URI: /public/x")
	conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", e.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	answers := bufio.NewReader(conn)
	for _, c := range []struct {
		from   string
		status int
	}{{"127.0.0.1/32", 200}, {"127.0.0.9/32", 404}, {"", 404}, {"127.0.0.9/32,127.0.0.1/32", 200}} {
		next := e.config
		next.ForwardAuth.From = prefixes(t, c.from)
		state, err := NewState(next)
		if err != nil {
			t.Fatal(err)
		}
		e.gateway.Swap(state)
		if _, err := io.WriteString(conn, question); err != nil {
			t.Fatal(err)
		}
		res, err := readAnswer(answers, "GET")
		if err != nil {
			t.Fatal(err)
		}
		if res.StatusCode != c.status || (res.Header.Get(fieldUserID) != "") != (c.status == 200) {
			t.Errorf("from %q: %d, want %d", c.from, res.StatusCode, c.status)
		}
	}
}
