package gateway

import (
	"bytes"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/url"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"portcullis/identity"
)

// noStore has nothing behind it: whoever calls it panics, and the request is
// answered 500.
type noStore struct{ identity.Store }

// hotGateway is a gateway as it is used, with access log, metrics, policy and
// assertions, in front of an upstream that allocates nothing, and without a store.
type hotGateway struct {
	gateway *Gateway
	addr    string
	tokens  *identity.Tokens
}

func startHot(t testing.TB, upstream string, log io.Writer) *hotGateway {
	t.Helper()
	quiet := slog.New(slog.DiscardHandler)
	keys, err := identity.OpenKeyring(filepath.Join(t.TempDir(), "keys"), identity.EdDSA)
	if err != nil {
		t.Fatal(err)
	}
	hasher, err := identity.NewHasher(identity.PasswordConfig{Hash: "bcrypt", Cost: 4, Workers: 1})
	if err != nil {
		t.Fatal(err)
	}
	rules := mustParsePolicy(t, testPolicy)
	revocations := identity.NewRevocations(identity.RevocationConfig{}, noStore{}, quiet)
	tokens := identity.NewTokens(identity.TokensConfig{Issuer: "http://gateway.test", Audience: "api", AccessTTL: 15 * time.Minute}, keys, revocations)
	service := identity.NewService(identity.Config{}, noStore{}, tokens, revocations, hasher, rules, nil, quiet)
	state, err := NewState(StateConfig{
		Policy: rules, Identity: service, Prefix: "/auth",
		Upstreams: []UpstreamConfig{{Name: "up", Targets: []*url.URL{{Scheme: "http", Host: upstream}}}},
		Routes:    []RouteConfig{{Path: "/tasks", Upstream: "up"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	records := NewLogBuffer(log)
	t.Cleanup(records.Close)
	g := New(Config{
		HeaderBytes: 16 << 10, HeaderTimeout: 5 * time.Second, IdleTimeout: time.Minute, Metrics: prometheus.NewRegistry(),
		Log: slog.New(slog.NewJSONHandler(records, nil)), AccessLog: NewAccessLog(records, true),
	}, state)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- g.Serve(ln) }()
	t.Cleanup(func() {
		if err := g.Shutdown(t.Context()); err != nil && t.Context().Err() == nil {
			t.Error(err)
		}
		<-served
	})
	return &hotGateway{gateway: g, addr: ln.Addr().String(), tokens: tokens}
}

// token is one of its own for each n.
func (h *hotGateway) token(t testing.TB, n int) string {
	t.Helper()
	u := identity.User{ID: fmt.Sprintf("0190b0a0-0000-7000-8000-%012d", n), Username: fmt.Sprintf("u%d", n), Email: fmt.Sprintf("u%d@example.com", n), Roles: []string{"user"}}
	token, err := h.tokens.Issue(u, fmt.Sprintf("0190b0a1-0000-7000-8000-%012d", n), []string{"tasks.write"})
	if err != nil {
		t.Fatal(err)
	}
	return token
}

func hotRequest(token, path string) []byte {
	return []byte("GET " + path + " HTTP/1.1\r\nHost: api.example.com\r\nUser-Agent: curl/8.5.0\r\nAccept: */*\r\n" +
		"Accept-Encoding: gzip, deflate, br\r\nAuthorization: Bearer " + token + "\r\n\r\n")
}

const hotAnswer = "HTTP/1.1 200 OK\r\nServer: upstream\r\nDate: Mon, 01 Jan 2024 00:00:00 GMT\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"

// hotClient sends a request after another on one connection, and allocates nothing.
type hotClient struct {
	conn net.Conn
	buf  [4096]byte
}

func (h *hotGateway) dial(t testing.TB) *hotClient {
	t.Helper()
	conn, err := net.Dial("tcp", h.addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return &hotClient{conn: conn}
}

func (c *hotClient) ask(t testing.TB, request []byte) []byte {
	if _, err := c.conn.Write(request); err != nil {
		t.Fatal(err)
	}
	n := 0
	for !bytes.HasSuffix(c.buf[:n], []byte("{}")) {
		more, err := c.conn.Read(c.buf[n:])
		if err != nil {
			t.Fatalf("%v, after %q", err, c.buf[:n])
		}
		n += more
	}
	if !bytes.HasPrefix(c.buf[:n], []byte("HTTP/1.1 200")) {
		t.Fatalf("%q", c.buf[:n])
	}
	return c.buf[:n]
}

// BenchmarkRoad is a small GET on the whole road, with client and upstream counted
// in; they allocate nothing.
func BenchmarkRoad(b *testing.B) {
	h := startHot(b, serveBytes(b, hotAnswer), io.Discard)
	request := hotRequest(h.token(b, 1), "/tasks/1")
	c := h.dial(b)
	c.ask(b, request)
	b.ReportAllocs()
	for b.Loop() {
		c.ask(b, request)
	}
}

// The road of a request that is proxied allocates five times at most.
func TestTheRoadHardlyAllocates(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector makes pools forget on purpose")
	}
	h := startHot(t, serveBytes(t, hotAnswer), io.Discard)
	c := h.dial(t)
	for name, request := range map[string][]byte{
		"GET":        hotRequest(h.token(t, 1), "/tasks/1?x=y"),
		"long token": hotRequest(h.token(t, 1), "/tasks/"+strings.Repeat("z", 900)),
	} {
		for range 100 { // pools and caches
			c.ask(t, request)
		}
		if n := testing.AllocsPerRun(2000, func() { c.ask(t, request) }); n > 5 {
			t.Errorf("%s: %.1f allocations a request", name, n)
		}
	}
}

// What is proxied never asks the store.
func TestTheRoadNeverAsksTheStore(t *testing.T) {
	h := startHot(t, serveBytes(t, hotAnswer), io.Discard)
	c := h.dial(t)
	for i := range 1000 {
		c.ask(t, hotRequest(h.token(t, i%50), fmt.Sprintf("/tasks/%d", i)))
	}
}

// Memory is used again for other requests on other connections: nothing of one may
// be seen by another's upstream, client or record.
func TestNothingOfARequestIsSeenByTheNext(t *testing.T) {
	var mu sync.Mutex
	seen := map[string]string{} // path → head
	upstream := serveWhen(t, hotAnswer, func(read []byte) bool {
		if !bytes.HasSuffix(read, []byte("\r\n\r\n")) {
			return false
		}
		mu.Lock()
		defer mu.Unlock()
		_, after, _ := strings.Cut(string(read), " ")
		path, _, _ := strings.Cut(after, " ")
		seen[path] = string(read)
		return true
	})
	log := &lockedLog{}
	h := startHot(t, upstream, log)
	const clients, each = 8, 60
	var all sync.WaitGroup
	for n := range clients {
		c := h.dial(t)
		mine := fmt.Sprintf("client%d", n)
		token := h.token(t, n)
		all.Go(func() {
			for i := range each {
				// Each is as long as nobody else's, and some have fields others lack.
				var r strings.Builder
				fmt.Fprintf(&r, "GET /tasks/%s-%d%s HTTP/1.1\r\nHost: %s.example.com\r\nAuthorization: Bearer %s\r\n", mine, i, strings.Repeat(mine, i*(n+1)%11), mine, token)
				if (i+n)%3 == 0 {
					fmt.Fprintf(&r, "X-Private: %s\r\nConnection: X-Private-Hop\r\nX-Private-Hop: %s\r\n", strings.Repeat(mine, i%7+1), mine)
				}
				if (i+n)%5 == 0 {
					fmt.Fprintf(&r, "traceparent: 00-%032x-%016x-01\r\n", n+1, i+1)
				}
				c.ask(t, []byte(r.String()+"\r\n"))
			}
		})
	}
	all.Wait()
	mu.Lock()
	defer mu.Unlock()
	if len(seen) != clients*each {
		t.Fatalf("%d requests were seen", len(seen))
	}
	for path, head := range seen {
		mine, _, _ := strings.Cut(strings.TrimPrefix(path, "/tasks/"), "-")
		for n := range clients {
			other := fmt.Sprintf("client%d", n)
			if other != mine && (strings.Contains(head, other) || strings.Contains(head, fmt.Sprintf("X-User-Name: u%d\r\n", n))) {
				t.Errorf("%s is told of %s: %s", path, other, head)
			}
		}
		if n := strings.TrimPrefix(mine, "client"); !strings.Contains(head, "X-User-Name: u"+n+"\r\n") || strings.Contains(head, "X-Private-Hop") {
			t.Errorf("%s: %s", path, head)
		}
	}
	h.gateway.recorder.access.out.flush()
	records := 0
	for line := range strings.Lines(log.String()) {
		records++
		path, user := member(line, "path"), member(line, "user_id")
		mine, _, _ := strings.Cut(strings.TrimPrefix(path, "/tasks/client"), "-")
		if !strings.HasSuffix(user, "-00000000000"+mine) || seen[path] == "" || !strings.Contains(seen[path], "X-Request-Id: "+member(line, "request_id")+"\r\n") {
			t.Errorf("record of another: %s", line)
		}
	}
	if records != clients*each {
		t.Errorf("%d records", records)
	}
}

func member(line, name string) string {
	_, after, _ := strings.Cut(line, `"`+name+`":"`)
	value, _, _ := strings.Cut(after, `"`)
	return value
}
