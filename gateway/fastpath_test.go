package gateway

import (
	"fmt"
	"maps"
	"net"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// fastGateway counts the requests that its fast path has answered.
type fastGateway struct {
	*testGateway
	fast, under atomic.Int64
}

// taken is how many there were, once none of them is under way: an answer is read
// before the fast path returns.
func (e *fastGateway) taken() int64 {
	e.t.Helper()
	waitUntil(e.t, func() bool { return e.under.Load() == 0 })
	return e.fast.Load()
}

func startFast(t *testing.T, adjust func(*Config), change ...func(*StateConfig)) *fastGateway {
	t.Helper()
	e := &fastGateway{testGateway: newTestGateway(t, adjust, change...)}
	path := e.gateway.clients.fast
	e.gateway.clients.fast = func(c *clientConn, p []byte) int {
		e.under.Add(1)
		defer e.under.Add(-1)
		n := path(c, p)
		if n > 0 {
			e.fast.Add(1)
		}
		return n
	}
	e.serve()
	return e
}

// What differs from one request to the next by itself.
var ofOneRequest = regexp.MustCompile(`(?im)^(x-request-id|traceparent|date|x-identity-assertion): .*$|"request_id":"[^"]*"`)

// outcome is all that can be seen of a request, from both sides, but for the end of
// its connection, which closed waits for.
func (e *fastGateway) outcome(raw string) (all string, closed func() bool) {
	res, body, closed := e.sendAndHold(raw)
	var fields []string
	for name, values := range maps.All(res.Header) {
		for _, v := range values {
			fields = append(fields, name+": "+v)
		}
	}
	slices.Sort(fields)
	told := fmt.Sprintf("%s\n%s\n\n%s\nupstream: %s", res.Status, strings.Join(fields, "\n"), body, strings.Join(e.requests(), "\n"))
	return ofOneRequest.ReplaceAllString(told, "$1"), closed
}

// An empty line before a request changes nothing about it (RFC 9112 §2.2), but makes it
// the server's. Everything else is to be the same.
func TestTheFastPathLeadsWhereTheServersDoes(t *testing.T) {
	e := startFast(t, func(*Config) {}, func(c *StateConfig) {
		c.Routes = append(c.Routes, RouteConfig{Path: "/cors", Upstream: "up", CORS: CORS{Origins: []string{"https://app.test"}, Methods: []string{"PUT"}}},
			RouteConfig{Path: "/small", Upstream: "up", MaxBody: 3})
		c.Policy = mustParsePolicy(t, testPolicy+"p, anonymous, /cors/*, *, allow\np, anonymous, /small/*, *, allow\n")
	})
	token := "Authorization: Bearer " + e.token("uma", "user")
	post := func(method, target, fields, body string) string {
		return fmt.Sprintf("%s %s HTTP/1.1\r\nHost: gateway.test\r\n%sContent-Length: %d\r\n\r\n%s", method, target, fields, len(body), body)
	}
	const fast, server = true, false
	for name, test := range map[string]struct {
		raw  string
		fast bool
	}{
		"a stranger's":          {get("/public/x?a=b"), fast},
		"a caller's":            {get("/tasks/1", token), fast},
		"with odd fields":       {get("/tasks/1", token, "X_User_Id: eve", "x-forwarded-for: 192.0.2.9", "Forwarded: for=192.0.2.9", "Via:  1.1 x ", "A: ", "Keep-Alive: 5"), fast},
		"kept alive by name":    {get("/public/x", "Connection: Keep-Alive"), fast},
		"encoded":               {get("/public/%C3%A9?q=%20"), fast},
		"HEAD":                  {strings.Replace(get("/public/x"), "GET", "HEAD", 1), fast},
		"HEAD, refused":         {strings.Replace(get("/tasks/1"), "GET", "HEAD", 1), fast},
		"DELETE":                {strings.Replace(get("/public/x"), "GET", "DELETE", 1), fast},
		"POST without a length": {strings.Replace(get("/public/x"), "GET", "POST", 1), fast},
		"POST":                  {post("POST", "/public/x", "Content-Type: text/plain\r\n", "hello"), fast},
		"PUT of all there is":   {post("PUT", "/public/x", "", strings.Repeat("x", 8192)), fast},
		"DELETE with a body":    {post("DELETE", "/public/x", "", "hello"), fast},
		"too large a body":      {post("POST", "/small/x", "", "hello"), fast},
		"a token that is none":  {get("/tasks/1", "Authorization: Bearer x"), fast},
		"no token":              {get("/tasks/1"), fast},
		"not allowed":           {get("/admin/x", token), fast},
		"nowhere":               {get("/nowhere", token), fast},
		"of another origin":     {get("/cors/x", "Origin: https://app.test"), fast},
		"a preflight":           {strings.Replace(get("/cors/x", "Origin: https://app.test", "Access-Control-Request-Method: PUT"), "GET", "OPTIONS", 1), fast},

		"a longer body":           {post("PUT", "/public/x", "", strings.Repeat("x", 8193)), server},
		"a body of GET":           {post("GET", "/public/x", "", "hello"), server},
		"a length of nothing":     {post("POST", "/public/x", "", ""), server},
		"ours":                    {get("/auth/me", token), server},
		"ours, another spelling":  {get("/%61uth/me", token), server},
		"ours, unknown":           {get("/auth/nothing", token), server},
		"keys":                    {get("/.well-known/jwks.json"), server},
		"login":                   {post("POST", "/auth/login", "Content-Type: application/json\r\n", `{"username":"uma","password":"wrong"}`), server},
		"not canonical":           {get("/public/../tasks/1", token), server},
		"absolute":                {get("http://gateway.test/public/x"), server},
		"asterisk":                {strings.Replace(get("*"), "GET", "OPTIONS", 1), server},
		"an unknown method":       {strings.Replace(get("/public/x"), "GET", "BREW", 1), server},
		"TRACE":                   {strings.Replace(get("/public/x"), "GET", "TRACE", 1), server},
		"an old version":          {strings.Replace(get("/public/x"), "1.1", "1.0", 1), server},
		"the last one":            {get("/public/x", "Connection: close"), server},
		"with a hop's own field":  {get("/public/x", "Connection: X-Hop", "X-Hop: 1"), server},
		"an expectation":          {post("POST", "/small/x", "Expect: 100-continue\r\n", "hello"), server},
		"an upgrade":              {get("/public/x", "Connection: Upgrade", "Upgrade: websocket"), server},
		"an upgrade, half":        {get("/public/x", "Upgrade: websocket"), server},
		"chunked":                 {"POST /public/x HTTP/1.1\r\nHost: gateway.test\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", server},
		"no host":                 {"GET /public/x HTTP/1.1\r\n\r\n", server},
		"two hosts":               {get("/public/x", "Host: gateway.test"), server},
		"two tokens":              {get("/tasks/1", token, token), server},
		"a line that is no field": {get("/public/x", "nonsense"), server},
	} {
		t.Run(name, func(t *testing.T) {
			before := e.taken()
			got, closed := e.outcome(test.raw)
			if took := e.taken() > before; took != test.fast {
				t.Errorf("took the fast path: %v", took)
			}
			want, closedByServer := e.outcome("\r\n" + test.raw)
			if got != want {
				t.Errorf("%s\n\nby the server:\n%s", got, want)
			}
			if e.taken() > before+1 {
				t.Error("behind an empty line, it took the fast path, too")
			}
			t.Parallel() // from here on, all wait together
			if got, want := closed(), closedByServer(); got != want {
				t.Errorf("closed: %v, by the server: %v", got, want)
			}
		})
	}
}

// Requests that come together are answered in their order, whoever answers them.
func TestPipelinedRequestsOfBothPathsKeepTheirOrder(t *testing.T) {
	e := startFast(t, func(*Config) {})
	conn, err := net.Dial("tcp", e.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	w := newWire(t, conn)
	long := strings.Repeat("y", 9000)
	w.say(get("/public/1") + get("/tasks/2") + get("/auth/me") + get("/public/4") + "POST /public/5 HTTP/1.1\r\nHost: gateway.test\r\nContent-Length: 5\r\n\r\nhello" +
		"POST /public/6 HTTP/1.1\r\nHost: gateway.test\r\nContent-Length: 9000\r\n\r\n" + long + get("/public/7")[:20])
	w.say(get("/public/7")[20:] + get("/public/8", "Connection: close"))
	said, err := w.rest()
	if err != nil {
		t.Fatal(err)
	}
	var got []int
	for _, res := range answers(t, "GET", said) {
		got = append(got, res.StatusCode)
	}
	if want := []int{200, 401, 401, 200, 200, 200, 200, 200}; !slices.Equal(got, want) {
		t.Errorf("answered %v", got)
	}
	var paths []string
	for _, head := range e.requests() {
		line, _, _ := strings.Cut(head, "\r\n")
		paths = append(paths, line)
	}
	if want := "GET /public/1 GET /public/4 POST /public/5 POST /public/6 GET /public/7 GET /public/8"; strings.ReplaceAll(strings.Join(paths, " "), " HTTP/1.1", "") != want {
		t.Errorf("upstream saw %v", paths)
	}
}

// The time for a header runs from its first byte, however many requests were answered
// before; and the time between two requests from the last answer.
func TestTheFastPathKeepsTheTimeLimits(t *testing.T) {
	const header, idle = 150 * time.Millisecond, 600 * time.Millisecond
	for name, test := range map[string]struct {
		behind string
		after  time.Duration
		hears  string // the beginning of
	}{
		"nothing":       {"", idle, ""},
		"half a header": {"GET /public/x HTT", header, "HTTP/1.1 408"},
	} {
		t.Run(name, func(t *testing.T) {
			e := startFast(t, func(c *Config) { c.HeaderTimeout, c.IdleTimeout = header, idle })
			conn, err := net.Dial("tcp", e.addr)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			w := newWire(t, conn)
			w.say(get("/public/1"))
			w.head()
			w.hear("ok")
			begin := time.Now()
			w.say(get("/public/2") + test.behind)
			w.head()
			w.hear("ok")
			said, err := w.rest()
			if took := time.Since(begin); err != nil || !strings.HasPrefix(said, test.hears) || test.hears == "" && said != "" || took < test.after {
				t.Errorf("%q, %v after %v", said, err, took)
			}
			if e.taken() != 2 {
				t.Errorf("%d requests took the fast path", e.taken())
			}
		})
	}
}

// Whoever has had an answer has no more time for a header than before, whenever it begins.
func TestAHeaderThatBeginsLaterHasNoMoreTime(t *testing.T) {
	const header, idle = 150 * time.Millisecond, time.Minute
	for name, before := range map[string]string{"fast path": "", "server": "\r\n", "fast path, parked": "", "server, parked": "\r\n"} {
		t.Run(name, func(t *testing.T) {
			e := startFast(t, func(c *Config) { c.HeaderTimeout, c.IdleTimeout = header, idle })
			parked := strings.HasSuffix(name, "parked")
			if parked {
				e.gateway.clients.mu.Lock() // as adding a connection does, and that comes later
				e.gateway.clients.parking.after = testParkAfter
				e.gateway.clients.mu.Unlock()
			}
			conn, err := net.Dial("tcp", e.addr)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			w := newWire(t, conn)
			for range 2 {
				w.say(before + get("/public/1"))
				w.head()
				w.hear("ok")
			}
			if parked {
				parks(t, e.testGateway, 1)
			}
			begin := time.Now()
			w.say("G")
			said, err := w.rest()
			if took := time.Since(begin); err != nil || !strings.HasPrefix(said, "HTTP/1.1 408") || took < header {
				t.Errorf("%q, %v after %v", said, err, took)
			}
		})
	}
}

// What the fast path looks at and leaves to the server is one request: it is counted
// once, by limits and in the log.
func TestWhatTheFastPathLeavesToTheServerCountsOnce(t *testing.T) {
	const each = 3
	e := startFast(t, func(*Config) {}, func(c *StateConfig) {
		c.RateLimits = []RateLimit{
			{Name: "address", Key: "address", Requests: 4 * each, Per: time.Hour},
			{Name: "user", Key: "user", Requests: 4 * each, Per: time.Hour},
		}
		c.Routes[0].RateLimits = []string{"address", "user"}
	})
	token := "Authorization: Bearer " + e.token("uma", "user")
	for i := range each {
		for kind, raw := range map[string]string{
			"fast":   get("/tasks/1", token),
			"last":   get("/tasks/1", token, "Connection: close"),
			"body":   "POST /tasks/1 HTTP/1.1\r\nHost: h\r\n" + token + "\r\nContent-Length: 9000\r\n\r\n" + strings.Repeat("x", 9000),
			"server": "\r\n" + get("/tasks/1", token),
		} {
			if res, body := e.send(raw); res.StatusCode != 200 {
				t.Errorf("%s, %d: %d %s", kind, i, res.StatusCode, body)
			}
		}
	}
	for kind, raw := range map[string]string{"fast": get("/tasks/1", token), "last": get("/tasks/1", token, "Connection: close")} {
		if res, _ := e.send(raw); res.StatusCode != 429 {
			t.Errorf("%s: one too many is answered with %d", kind, res.StatusCode)
		}
	}
	waitUntil(t, func() bool { return e.gateway.clients.count() == 0 }) // a record may come after its answer
	const all = 4*each + 2
	if n := strings.Count(e.log.String(), "msg=request"); n != all || e.taken() != each+1 {
		t.Errorf("%d records of %d requests, %d on the fast path", n, all, e.taken())
	}
}
