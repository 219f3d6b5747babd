package gateway

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"
)

// Bad news from behind: what upstreams do, and what of it a client is told. Each
// over TCP and over TLS, through the whole gateway.

// badConn is a connection on which an upstream misbehaves. What it says while it
// is corked goes out as one piece, but over TLS still as several records.
type badConn struct {
	*wire
	socket   *corkedConn
	poisoned chan struct{} // for badNews.poisons
}

type corkedConn struct {
	net.Conn
	corked bool
	held   bytes.Buffer
}

func (c *corkedConn) Write(p []byte) (int, error) {
	if c.corked {
		return c.held.Write(p)
	}
	return c.Conn.Write(p)
}

func (b *badConn) sayAtOnce(pieces ...string) {
	b.socket.corked = true
	for _, p := range pieces {
		b.say(p)
	}
	b.socket.corked = false
	if _, err := b.socket.held.WriteTo(b.socket.Conn); err != nil {
		b.t.Error(err)
	}
}

// reset ends the connection with a reset, whatever is around it.
func (b *badConn) reset() {
	_ = b.socket.Conn.(*net.TCPConn).SetLinger(0)
	_ = b.socket.Close()
}

// untilClosed waits until the gateway has let go of the connection.
func (b *badConn) untilClosed() { _, _ = io.Copy(io.Discard, b.in) }

// badNews is a misbehaviour on an upstream's first connection, and what it means
// to the client.
type badNews struct {
	request string // GET /public/x unless given
	do      func(b *badConn)
	status  int
	code    string // of the refusal; "" if the answer is the upstream's
	body    string // of the upstream's answer, or its beginning if it is cut
	cut     bool   // the client sees the answer end early
	waits   bool   // the gateway has to give up waiting
	poisons bool   // what comes next is to wait for poisoned
}

func badNewsTable() map[string]badNews {
	half := func(text string) func(*badConn) {
		return func(b *badConn) { b.head(); b.say(crlf(text)) }
	}
	stays := func(text string) func(*badConn) {
		return func(b *badConn) {
			b.head()
			_, _ = io.WriteString(b.Conn, crlf(text)) // may be refused halfway
			b.untilClosed()
		}
	}
	upload := "POST /public/x HTTP/1.1\r\nHost: h\r\nContent-Length: 1000000\r\n\r\n" + strings.Repeat("x", 10000)
	return map[string]badNews{
		"it closes at once":               {do: func(*badConn) {}, status: 502, code: "upstream_malformed"},
		"it resets at once":               {do: func(b *badConn) { b.head(); b.reset() }, status: 502, code: "upstream_malformed"},
		"it closes instead of answering":  {do: half(""), status: 502, code: "upstream_malformed"},
		"it says nothing":                 {do: stays(""), status: 504, code: "upstream_timeout", waits: true},
		"it stops in the status line":     {do: stays("HTTP/1.1 2"), status: 504, code: "upstream_timeout", waits: true},
		"it stops in a field":             {do: stays("HTTP/1.1 200 OK\nContent-Le"), status: 504, code: "upstream_timeout", waits: true},
		"it ends in a field":              {do: half("HTTP/1.1 200 OK\nContent-Le"), status: 502, code: "upstream_malformed"},
		"it speaks another protocol":      {do: stays("220 mail ready\n"), status: 502, code: "upstream_malformed"},
		"it has two lengths":              {do: stays("HTTP/1.1 200 OK\nContent-Length: 2\nContent-Length: 3\n\nok!"), status: 502, code: "upstream_malformed"},
		"it floods with 1xx":              {do: stays(strings.Repeat("HTTP/1.1 102 Processing\n\n", 10000)), status: 502, code: "upstream_malformed"},
		"it trickles 1xx and no more":     {do: stays(strings.Repeat("HTTP/1.1 102 Processing\n\n", 3)), status: 504, code: "upstream_timeout", waits: true},
		"it sends a header bomb":          {do: stays("HTTP/1.1 200 OK\n" + strings.Repeat("X: y\n", 1<<20)), status: 502, code: "upstream_malformed"},
		"it sends one endless field":      {do: stays("HTTP/1.1 200 OK\nX: " + strings.Repeat("y", 8<<20)), status: 502, code: "upstream_malformed"},
		"it upgrades unasked":             {do: stays("HTTP/1.1 101 Switching Protocols\nConnection: Upgrade\nUpgrade: websocket\n\n"), status: 502, code: "upstream_malformed"},
		"it gives half a body and closes": {do: half("HTTP/1.1 200 OK\nContent-Length: 10\n\nhello"), status: 200, body: "hello", cut: true},
		"it gives half a body and resets": {do: func(b *badConn) {
			b.head()
			b.say("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello")
			b.hear("go on")
			b.reset()
		}, request: "POST /public/x HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\ngo on", status: 200, body: "hello", cut: true},
		"it gives half a body and stops": {do: stays("HTTP/1.1 200 OK\nContent-Length: 10\n\nhello"), status: 200, body: "hello", cut: true, waits: true},
		"it gives half a chunk":          {do: half("HTTP/1.1 200 OK\nTransfer-Encoding: chunked\n\na\nhello"), status: 200, body: "hello", cut: true},
		"it loses count of its chunks":   {do: stays("HTTP/1.1 200 OK\nTransfer-Encoding: chunked\n\n5\nhello, "), status: 502, code: "upstream_malformed"},
		"it ends before the last chunk":  {do: half("HTTP/1.1 200 OK\nTransfer-Encoding: chunked\n\n5\nhello\n"), status: 200, body: "hello", cut: true},
		"it says more than its length": {do: func(b *badConn) {
			b.head()
			b.say("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok, and poison")
			b.untilClosed()
		}, status: 200, body: "ok"},
		"it answers twice at once": {do: func(b *badConn) {
			b.head()
			b.sayAtOnce(okAnswer, "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison")
			b.untilClosed()
		}, status: 200, body: "ok"},
		"it answers twice at once, in chunks": {do: func(b *badConn) {
			b.head()
			b.sayAtOnce("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison")
			b.untilClosed()
		}, status: 200, body: "ok"},
		"it answers again when it has been idle": {do: func(b *badConn) {
			b.head()
			b.say(okAnswer)
			b.say("HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison")
			close(b.poisoned)
			b.untilClosed()
		}, status: 200, body: "ok", poisons: true},
		"it answers before the request ends": {request: upload, do: func(b *badConn) {
			b.head()
			b.say("HTTP/1.1 413 Content Too Large\r\nContent-Length: 3\r\n\r\nbig")
			b.untilClosed()
		}, status: 413, body: "big"},
		"it closes before the request ends": {request: upload, do: half(""), status: 502, code: "upstream_malformed"},
	}
}

func TestBadNewsFromBehind(t *testing.T) {
	for name, news := range badNewsTable() {
		for _, scheme := range []string{"http", "https"} {
			t.Run(name+", "+scheme, func(t *testing.T) {
				noLeaks(t)
				poisoned := make(chan struct{})
				e := startBadUpstream(t, scheme, news.waits, func(n int, b *badConn) {
					if n == 0 {
						b.poisoned = poisoned
						news.do(b)
						return
					}
					for b.head() != "" {
						b.say(okAnswer)
					}
				})
				request := news.request
				if request == "" {
					request = get("/public/x")
				}
				c := e.dial()
				c.say(request)
				c.expect(news)
				if news.poisons {
					<-poisoned
				}
				// Whoever comes next gets what is theirs.
				for range 3 {
					c = e.dial()
					c.say(get("/public/next"))
					c.expect(badNews{status: 200, body: "ok"})
					_ = c.Close()
				}
				waitUntil(t, func() bool {
					return e.gateway.state.Load().upstreams["up"].status(time.Now())[0].active == 0
				})
			})
		}
	}
}

func TestAnEndlessAnswerEndsWithTheClient(t *testing.T) {
	for _, scheme := range []string{"http", "https"} {
		t.Run(scheme, func(t *testing.T) {
			noLeaks(t)
			ended := make(chan struct{})
			e := startBadUpstream(t, scheme, false, func(_ int, b *badConn) {
				defer close(ended)
				b.head()
				b.say("HTTP/1.1 200 OK\r\nContent-Length: 900000000000000000\r\n\r\n")
				for piece := strings.Repeat("x", 32<<10); ; {
					if _, err := io.WriteString(b.Conn, piece); err != nil {
						return
					}
				}
			})
			c := e.dial()
			c.say(get("/public/x"))
			c.head()
			c.take(4 << 20)
			_ = c.Close()
			<-ended
		})
	}
}

func TestAnUpstreamThatIsNotThere(t *testing.T) {
	for name, test := range map[string]struct {
		scheme string
		serve  func(n int, w *wire) // nil: nobody listens
	}{
		"refuses connections":  {"http", nil},
		"refuses them, TLS":    {"https", nil},
		"does not speak TLS":   {"https", func(_ int, w *wire) { w.say("HTTP/1.1 400 Bad Request\r\n\r\n") }},
		"hangs up on our TLS":  {"https", func(int, *wire) {}},
		"never says hello":     {"https", func(_ int, w *wire) { _, _ = io.Copy(io.Discard, w.in) }},
		"has no key we accept": {"https", func(_ int, w *wire) { untrusted(w) }},
	} {
		t.Run(name, func(t *testing.T) {
			noLeaks(t)
			addr := deadAddr(t)
			if test.serve != nil {
				addr = serveUpstream(t, test.serve)
			}
			e := startGateway(t, func(c *StateConfig) {
				c.Upstreams = []UpstreamConfig{{Name: "up", Targets: []*url.URL{{Scheme: test.scheme, Host: addr}}, ConnectTimeout: 100 * time.Millisecond}}
			})
			conn := e.dialTCP() // that each answer comes on it says that none before has closed it
			for range failuresToEject {
				res := ask(t, conn, "POST /public/x HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\nab")
				if res.StatusCode != 502 || res.Header.Get("X-Gateway-Error") != "upstream_unreachable" {
					t.Errorf("%s, X-Gateway-Error %q", res.Status, res.Header.Get("X-Gateway-Error"))
				}
			}
			until := &e.gateway.state.Load().upstreams["up"].targets[0].breaker.openUntil
			if until.Swap(time.Now().Add(time.Hour).UnixNano()) == 0 { // not to run out before it is asked
				t.Error("the target was not ejected")
			}
			res := ask(t, conn, get("/public/x"))
			if res.StatusCode != 503 || res.Header.Get("X-Gateway-Error") != "no_healthy_target" || res.Header.Get("Retry-After") == "" {
				t.Errorf("%s, X-Gateway-Error %q, Retry-After %q", res.Status, res.Header.Get("X-Gateway-Error"), res.Header.Get("Retry-After"))
			}
		})
	}
}

// untrusted answers a TLS handshake with a certificate that nobody vouches for.
func untrusted(w *wire) {
	certs := httptest.NewUnstartedServer(nil)
	certs.StartTLS()
	defer certs.Close()
	_ = tls.Server(w.Conn, &tls.Config{Certificates: certs.TLS.Certificates}).Handshake() // the gateway refuses it
}

// startBadUpstream starts a gateway before an upstream of which each connection
// is treated with serve. An impatient one gives up soon.
func startBadUpstream(t *testing.T, scheme string, impatient bool, serve func(n int, b *badConn)) *testGateway {
	t.Helper()
	certs := httptest.NewUnstartedServer(nil)
	certs.StartTLS()
	roots := x509.NewCertPool()
	roots.AddCert(certs.Certificate())
	config := &tls.Config{Certificates: certs.TLS.Certificates}
	certs.Close()
	addr := serveUpstream(t, func(n int, w *wire) {
		socket := &corkedConn{Conn: w.Conn}
		conn := net.Conn(socket)
		if scheme == "https" {
			secure := tls.Server(socket, config)
			if err := secure.Handshake(); err != nil {
				t.Errorf("handshake: %v", err)
				return
			}
			conn = secure
		}
		b := &badConn{wire: newWire(t, conn), socket: socket}
		serve(n, b)
		_ = conn.Close()
	})
	wait := patience
	if impatient {
		wait = 100 * time.Millisecond
	}
	return startGateway(t, func(c *StateConfig) {
		c.Upstreams = []UpstreamConfig{{
			Name: "up", Targets: []*url.URL{{Scheme: scheme, Host: addr}},
			TLS: &tls.Config{RootCAs: roots, ServerName: "example.com"}, HeaderTimeout: wait, IdleTimeout: wait,
		}}
	})
}

func (e *testGateway) dial() *badClient {
	e.t.Helper()
	conn, err := net.Dial("tcp", e.addr)
	if err != nil {
		e.t.Fatal(err)
	}
	e.t.Cleanup(func() { _ = conn.Close() })
	return &badClient{newWire(e.t, conn)}
}

// badClient is a client that hears bad news.
type badClient struct{ *wire }

func (c *badClient) expect(want badNews) {
	c.t.Helper()
	res, err := http.ReadResponse(c.in, nil)
	if err != nil {
		c.t.Fatalf("no answer: %v", err)
	}
	body, err := io.ReadAll(res.Body)
	if (err != nil) != want.cut {
		c.t.Errorf("the body ended with %v", err)
	}
	if res.StatusCode != want.status || res.Header.Get("X-Gateway-Error") != want.code {
		c.t.Errorf("%s, X-Gateway-Error %q; want %d, %q", res.Status, res.Header.Get("X-Gateway-Error"), want.status, want.code)
	}
	if want.code == "" && string(body) != want.body {
		c.t.Errorf("got %q, want %q", body, want.body)
	}
	if bytes.Contains(body, []byte("poison")) {
		c.t.Errorf("got another's answer: %q", body)
	}
}

func TestPipelinedRequestsAreAnsweredInTheirOrder(t *testing.T) {
	e := startGateway(t)
	conn, err := net.Dial("tcp", e.addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	ours, theirs := get("/tasks/1"), get("/public/x")
	unknown := "BREW /public/x HTTP/1.1\r\nHost: h\r\n\r\n"
	if _, err := io.WriteString(conn, ours+theirs+theirs+ours+ours+theirs+unknown+theirs); err != nil {
		t.Fatal(err)
	}
	r := bufio.NewReader(conn)
	for i, want := range []int{401, 200, 200, 401, 401, 200, 501} {
		res, err := http.ReadResponse(r, nil)
		if err != nil {
			t.Fatalf("answer %d: %v", i, err)
		}
		if body, err := io.ReadAll(res.Body); err != nil || res.StatusCode != want || (want == 200) != (string(body) == "ok") {
			t.Errorf("answer %d: %s, %q, %v; want %d", i, res.Status, body, err, want)
		}
	}
}
