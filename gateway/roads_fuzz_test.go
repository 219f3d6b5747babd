package gateway

import (
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// cutConn is a connection whose reads end where cuts say, so that what was sent in one
// piece comes in pieces.
type cutConn struct {
	net.Conn
	cuts []byte // lengths of reads, one after the other; 0 and what comes behind them: as it comes
}

func (c *cutConn) NetConn() net.Conn { return c.Conn }

func (c *cutConn) Read(p []byte) (int, error) {
	if len(c.cuts) > 0 {
		if n := int(c.cuts[0]); n > 0 {
			p = p[:min(len(p), n)]
		}
		c.cuts = c.cuts[1:]
	}
	return c.Conn.Read(p)
}

// cutListener cuts the connections that it accepts.
type cutListener struct {
	net.Listener
	mu   sync.Mutex
	cuts []byte
}

func (l *cutListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return &cutConn{conn, slices.Clone(l.cuts)}, nil
}

// whatCame is an upstream that keeps all that it gets, with net/http's idea of it.
type whatCame struct {
	mu   sync.Mutex
	seen []string
}

func (u *whatCame) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		panic(http.ErrAbortHandler) // no answer to half a request
	}
	var fields strings.Builder
	for _, name := range slices.Sorted(maps.Keys(r.Header)) {
		fmt.Fprintf(&fields, "%s: %q\n", name, r.Header[name])
	}
	u.mu.Lock()
	u.seen = append(u.seen, fmt.Sprintf("%s %s %s %d %s\n%s\n%s", r.Method, r.RequestURI, r.Host, r.ContentLength, r.TransferEncoding, fields.String(), body))
	u.mu.Unlock()
	switch len(body) % 3 {
	case 0:
		_, _ = io.WriteString(w, "answer to "+r.URL.Path)
	case 1:
		w.WriteHeader(http.StatusNoContent)
	case 2:
		_, _ = io.WriteString(w, "in ")
		_ = http.NewResponseController(w).Flush()
		_, _ = io.WriteString(w, "pieces")
	}
}

func (u *whatCame) take() string {
	u.mu.Lock()
	defer u.mu.Unlock()
	seen := u.seen
	u.seen = nil
	return ofOneExchange.ReplaceAllString("upstream:\n"+strings.Join(seen, "\n---\n"), "$1")
}

// twoRoads are two gateways that have all in common but that one has no fast path.
type twoRoads struct {
	fast, server *testGateway
	listeners    [2]*cutListener
	token        string
}

func startTwoRoads(t testing.TB, at *url.URL) *twoRoads {
	t.Helper()
	both := &twoRoads{}
	adjust := func(c *Config) { c.HeaderBytes, c.Log = 4<<10, slog.New(slog.DiscardHandler) }
	both.fast = newTestGateway(t, adjust, withCookies, func(c *StateConfig) {
		c.TrustedProxies = prefixes(t, "127.0.0.0/8")
		c.Upstreams[0].Targets = []*url.URL{at}
		c.Routes = append(c.Routes, RouteConfig{Path: "/small", Upstream: "up", MaxBody: 3},
			RouteConfig{Path: "/cors", Upstream: "up", CORS: CORS{Origins: []string{"https://app.test"}, Methods: []string{"PUT"}}})
		c.Policy = mustParsePolicy(t, testPolicy+"p, anonymous, /small/*, *, allow\np, anonymous, /cors/*, *, allow\n")
	})
	both.token = both.fast.token("uma", "user")
	state, err := NewState(both.fast.config)
	if err != nil {
		t.Fatal(err)
	}
	cfg := Config{HeaderTimeout: 5 * time.Second, IdleTimeout: 5 * time.Second, Metrics: prometheus.NewRegistry()}
	adjust(&cfg)
	both.server = &testGateway{t: t, log: &lockedLog{}, gateway: New(cfg, state)}
	both.server.gateway.clients.fast = nil
	for i, e := range []*testGateway{both.fast, both.server} {
		both.listeners[i] = &cutListener{}
		e.serveOn(func(ln net.Listener) net.Listener {
			both.listeners[i].Listener = ln
			return both.listeners[i]
		})
	}
	return both
}

// What differs from one request to the next by itself, in bytes and in quoted fields.
var ofOneExchange = regexp.MustCompile(`(?im)^(x-request-id|traceparent|date|x-identity-assertion): .*$|"request_id":"[^"]*"`)

// outcome is all that a client gets to hear who sends this and then falls silent.
func (b *twoRoads) outcome(t *testing.T, e *testGateway, raw, cuts []byte) string {
	for _, l := range b.listeners {
		l.mu.Lock()
		l.cuts = cuts
		l.mu.Unlock()
	}
	conn, err := net.Dial("tcp", e.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.(*net.TCPConn).SetLinger(0) // else it would leave too many sockets behind
	_ = conn.SetDeadline(time.Now().Add(4 * time.Second))
	go func() {
		_, _ = conn.Write(raw)
		_ = conn.(*net.TCPConn).CloseWrite()
	}()
	said, err := io.ReadAll(conn)
	told := fmt.Sprintf("%s\n\nwaited in vain: %v\n\n", said, isTimeout(err))
	return ofOneExchange.ReplaceAllString(told, "$1")
}

// outcomes asks both gateways, and again if they don't agree: a machine that hesitates
// makes a client that has sent all seem to have left.
func (b *twoRoads) outcomes(ask func(*testGateway) string) (fast, server string) {
	for range 5 {
		if fast, server = ask(b.fast), ask(b.server); fast == server {
			break
		}
	}
	return fast, server
}

// FuzzBothRoads sends the same bytes, in the same pieces, to a gateway with the fast
// path and to one without. What the upstream and the client see must be the same.
func FuzzBothRoads(f *testing.F) {
	const token = "Authorization: Bearer TOKEN"
	post := func(method, target, fields, body string) string {
		return fmt.Sprintf("%s %s HTTP/1.1\r\nHost: h\r\n%sContent-Length: %d\r\n\r\n%s", method, target, fields, len(body), body)
	}
	for _, file := range []string{"testdata/refused.txt", "testdata/refused_bodies.txt"} {
		for _, raw := range vectors(f, file) {
			if strings.HasSuffix(file, "bodies.txt") {
				raw = "POST /public/a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n" + raw
			}
			f.Add([]byte(raw), []byte{0})
			f.Add([]byte(get("/public/a")+raw+smuggled), []byte{40, 3, 1})
		}
	}
	whole := get("/public/a") + get("/tasks/1", token) + post("POST", "/public/b", "", "hello") + get("/auth/me", token) + get("/tasks/2")
	for i, raw := range []string{
		whole, "\r\n" + whole, whole + "\r\n" + whole, whole + "GET /pub",
		post("PUT", "/small/x", "", "hel") + post("PUT", "/small/x", "", "hell") + whole,
		post("DELETE", "/public/x", "", "he") + post("GET", "/public/x", "", "he") + post("HEAD", "/public/x", "", "he") + post("POST", "/public/x", "", "") + whole,
		post("POST", "/public/x", "Expect: 100-continue\r\n", "hello") + whole, post("POST", "/tasks/x", "", "hello") + whole,
		"HEAD /public/a HTTP/1.1\r\nHost: h\r\n\r\nHEAD /tasks/a HTTP/1.1\r\nHost: h\r\n\r\n" + whole,
		"OPTIONS * HTTP/1.1\r\nHost: h\r\n\r\n" + whole, get("http://h/public/x") + whole, get("/public/../tasks/1", token) + whole, get("//public") + whole,
		"GET /public/a HTTP/1.0\r\nConnection: keep-alive\r\n\r\n" + whole, "GET /public/a HTTP/1.0\r\n\r\n" + whole,
		get("/public/a", "Connection: X-User-Id, close") + whole, get("/tasks/1", token, "Connection: X-User-Id", "X-User-Id: eve") + whole,
		get("/tasks/1", token, "X_User_Id: eve", "X-User-Roles: admin", "Forwarded: for=1", "Cookie: a=b", "Te: trailers", "Via: 1.1 x"),
		get("/public/a", "Connection: keep-alive") + get("/public/a", "Keep-Alive: timeout=5") + get("/public/a", "Proxy-Connection: close") + whole,
		get("/public/a", "Upgrade: websocket") + get("/public/a", "Connection: Upgrade", "Upgrade: websocket") + whole,
		"PUT /public/a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n2;x\r\nab\r\n1\r\nc\r\n0\r\nX: y\r\n\r\n" + whole,
		get("/public/a", "X: "+strings.Repeat("y", 3000)) + whole, get("/public/a", "X: "+strings.Repeat("y", 4<<10)) + whole,
		get("/public/a?"+strings.Repeat("y", 4<<10-len(get("/public/a?")))) + whole, get("/public/a?"+strings.Repeat("y", 4<<10-len(get("/public/a?"))-1)) + whole,
		get("/tasks/1", "Cookie: a=b; __Host-portcullis_access=TOKEN; c=d") + post("POST", "/tasks/1", "Cookie: __Host-portcullis_access=TOKEN\r\n", "x") + whole,
		get("/tasks/1", "Cookie: __Host-portcullis_access=TOKEN", "Cookie: __Host-portcullis_access=x", "X-CSRF-Token: x") + get("/tasks/1", token, "Cookie: __Host-portcullis_access=x"),
		get("/public/a", "X-Forwarded-For: 192.0.2.1, 127.0.0.1", "X-Forwarded-Proto: https", "X-Forwarded-Host: a.test", "X-Request-Id: id-1") + get("/public/a", "Forwarded: for=192.0.2.1;proto=https"),
		get("/public/a", "X-Forwarded-For: x", "X-Forwarded-For: 192.0.2.1", "X-Forwarded-Proto: x", "traceparent: 00-0123456789abcdef0123456789abcdef-0123456789abcdef-01"),
		get("/cors/x", "Origin: https://app.test") + get("/cors/x", "Origin: https://evil.test") + strings.Replace(get("/cors/x", "Origin: https://app.test", "Access-Control-Request-Method: PUT"), "GET", "OPTIONS", 1) + whole,
		post("POST", "/public/x", "", strings.Repeat("z", 5000)) + whole, get("/public/a", "X: \x80é", "Y:\tz\t") + whole,
	} {
		f.Add([]byte(raw), []byte{0})
		f.Add([]byte(raw), []byte{byte(20 + i), 1, 1, 1, 9, 200, 100, 0, 1})
		f.Add([]byte(raw), slices.Repeat([]byte{1}, 300))
	}
	upstream := &whatCame{}
	server := httptest.NewServer(upstream)
	f.Cleanup(server.Close)
	at, err := url.Parse(server.URL)
	if err != nil {
		f.Fatal(err)
	}
	both := startTwoRoads(f, at)
	f.Fuzz(func(t *testing.T, raw, cuts []byte) {
		if len(raw) > 16<<10 || len(cuts) > 1000 {
			return
		}
		sent := []byte(strings.ReplaceAll(string(raw), "TOKEN", both.token))
		fast, server := both.outcomes(func(e *testGateway) string { return both.outcome(t, e, sent, cuts) + upstream.take() })
		if fast != server {
			t.Fatalf("%q, cut %v\nfast:\n%s\n\nserver:\n%s", raw, cuts, fast, server)
		}
	})
}
