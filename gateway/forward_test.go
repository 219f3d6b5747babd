package gateway

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"net/url"
	"os"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/valyala/fasthttp"
	"go.uber.org/goleak"
)

// patience bounds what a test waits for; nothing in a passing test takes it.
const patience = 10 * time.Second

// crlf makes the lines of a test's text those of HTTP.
func crlf(s string) string { return strings.ReplaceAll(s, "\n", "\r\n") }

// wire is one end of a connection in a test.
type wire struct {
	t testing.TB
	net.Conn
	in *bufio.Reader
}

func newWire(t testing.TB, conn net.Conn) *wire {
	t.Helper()
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Error(err)
	}
	return &wire{t: t, Conn: conn, in: bufio.NewReader(conn)}
}

// say writes s as it is.
func (w *wire) say(s string) {
	w.t.Helper()
	if _, err := io.WriteString(w.Conn, s); err != nil {
		w.t.Errorf("say %.40q: %v", s, err)
	}
}

// head reads up to the empty line.
func (w *wire) head() string {
	w.t.Helper()
	var b strings.Builder
	for !strings.HasSuffix(b.String(), "\r\n\r\n") {
		line, err := w.in.ReadString('\n')
		b.WriteString(line)
		if err != nil {
			if b.Len() > 0 || err != io.EOF {
				w.t.Errorf("head: %q, then %v", b.String(), err)
			}
			return b.String()
		}
	}
	return b.String()
}

// take reads n bytes.
func (w *wire) take(n int) string {
	w.t.Helper()
	p := make([]byte, n)
	if n, err := io.ReadFull(w.in, p); err != nil {
		w.t.Errorf("read: %q, then %v", p[:n], err)
	}
	return string(p)
}

// hear fails the test unless exactly want comes next.
func (w *wire) hear(want string) {
	w.t.Helper()
	if got := w.take(len(want)); got != want {
		w.t.Errorf("got  %q\nwant %q", got, want)
	}
}

// rest reads to the end of the connection and returns how it ended.
func (w *wire) rest() (string, error) {
	p, err := io.ReadAll(w.in)
	return string(p), err
}

// hearEnd fails the test unless the connection ends here, without a reset.
func (w *wire) hearEnd() {
	w.t.Helper()
	if got, err := w.rest(); got != "" || err != nil {
		w.t.Errorf("got %q, %v; want the end", got, err)
	}
}

// silent fails the test if anything comes within a moment.
func (w *wire) silent() {
	w.t.Helper()
	_ = w.SetReadDeadline(time.Now().Add(30 * time.Millisecond))
	if b, err := w.in.Peek(1); !isTimeout(err) {
		w.t.Errorf("got %q, %v; want silence", b, err)
	}
	_ = w.SetReadDeadline(time.Now().Add(patience))
}

// serveUpstream runs an upstream that treats its n-th connection, from 0, with
// serve, which closes it by returning.
func serveUpstream(t *testing.T, serve func(n int, w *wire)) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var conns sync.WaitGroup
	conns.Go(func() {
		for n := 0; ; n++ {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			conns.Go(func() {
				w := newWire(t, conn)
				serve(n, w)
				_ = conn.Close()
			})
		}
	})
	t.Cleanup(func() {
		_ = ln.Close()
		conns.Wait()
	})
	return ln.Addr().String()
}

// testUpstream is an upstream with these targets.
func testUpstream(t *testing.T, o upstreamOptions, addrs ...string) *upstream {
	t.Helper()
	for _, addr := range addrs {
		o.targets = append(o.targets, &url.URL{Scheme: "http", Host: addr})
	}
	u, err := newUpstream("test", o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(u.close)
	return u
}

// edge is a server whose handler does nothing but forward.
type edge struct {
	t       *testing.T
	addr    string
	results chan result
}

type result struct {
	exchange
	err error
}

// serveEdge runs an edge before u. adjust may change each request.
func serveEdge(t *testing.T, u *upstream, adjust func(*fasthttp.RequestCtx, *outbound)) *edge {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return serveEdgeOn(t, u, adjust, ln)
}

func serveEdgeOn(t *testing.T, u *upstream, adjust func(*fasthttp.RequestCtx, *outbound), ln net.Listener) *edge {
	t.Helper()
	e := &edge{t: t, addr: ln.Addr().String(), results: make(chan result, 1000)}
	s := &fasthttp.Server{
		Handler:                       func(ctx *fasthttp.RequestCtx) { e.handle(ctx, u, adjust) },
		DisablePreParseMultipartForm:  true,
		DisableHeaderNamesNormalizing: true,
		NoDefaultServerHeader:         true,
		NoDefaultDate:                 true,
		NoDefaultContentType:          true,
		CloseOnShutdown:               true,
		ReadBufferSize:                16 << 10,
		MaxRequestBodySize:            64 << 10,
		ReadTimeout:                   patience,
		Logger:                        quietServer{},
	}
	prepareServer(s)
	clients := new(clients)
	served := make(chan error, 1)
	listener := clients.listen(ln)
	if isOverTLS(t) {
		listener.arrivals = newArrivals(Config{TLS: serverTLS(t), Log: slog.New(slog.DiscardHandler), Metrics: prometheus.NewRegistry()},
			func(netip.Addr) bool { return false })
	}
	go func() { served <- s.Serve(listener) }()
	t.Cleanup(func() {
		clients.each((*clientConn).cutTunnel)
		_ = ln.Close() // Shutdown waits in steps of 100 ms
		if err := <-served; err != nil {
			t.Errorf("serve: %v", err)
		}
	})
	return e
}

type quietServer struct{}

func (quietServer) Printf(string, ...any) {}

func (e *edge) handle(ctx *fasthttp.RequestCtx, u *upstream, adjust func(*fasthttp.RequestCtx, *outbound)) {
	var h clientHeader
	raw := ctx.Request.Header.RawHeaders()
	if err := h.read(raw, ctx.Request.Header.IsHTTP11()); err != nil {
		ctx.Error("client: "+err.Error(), 400)
		ctx.SetConnectionClose()
		return
	}
	out := &outbound{
		method: string(ctx.Method()), target: string(ctx.RequestURI()), host: string(h.host),
		header: append(h.appendForwardable(nil, raw, true), "X-Ours: yes\r\n"...),
	}
	if h.upgradeListed {
		out.upgrade = string(h.upgrade)
	}
	if adjust != nil {
		adjust(ctx, out)
	}
	if out.method == "SELF" { // the edge's own answer
		ctx.SetBodyString("own")
		return
	}
	x, err := u.forwardServed(ctx, out)
	e.results <- result{x, err}
	if err != nil {
		ctx.Error(sentinel(err), 500)
	}
}

// sentinel names the error that err is.
func sentinel(err error) string {
	for _, s := range []error{
		errNoTarget, errUnreachable, errUpstreamMalformed, errUpstreamTimeout,
		errBodyTooLarge, errBodyTimeout, errBadBody, errClientGone,
	} {
		if errors.Is(err, s) {
			return s.Error()
		}
	}
	return fmt.Sprintf("unknown: %v", err)
}

// connect opens a connection of a client, over TLS in the tests of that.
func (e *edge) connect() (net.Conn, error) {
	conn, err := net.Dial("tcp", e.addr)
	if err == nil && isOverTLS(e.t) {
		return tls.Client(conn, clientTLS(e.t)), nil
	}
	return conn, err
}

func (e *edge) dial() *wire {
	e.t.Helper()
	conn, err := e.connect()
	if err != nil {
		e.t.Fatal(err)
	}
	e.t.Cleanup(func() { _ = conn.Close() })
	return newWire(e.t, conn)
}

// result returns what forward returned next.
func (e *edge) result() result {
	e.t.Helper()
	select {
	case r := <-e.results:
		return r
	case <-time.After(patience):
		e.t.Fatal("forward does not return")
	}
	return result{}
}

// fails expects the next exchange to end with want.
func (e *edge) fails(want error) result {
	e.t.Helper()
	r := e.result()
	if !errors.Is(r.err, want) {
		e.t.Errorf("forward: %v; want %v", r.err, want)
	}
	return r
}

// noLeaks fails the test if, when all else is cleaned up, it has left goroutines
// or descriptors behind. It is to be called first.
func noLeaks(t *testing.T) {
	t.Helper()
	goroutines := goleak.IgnoreCurrent()
	// The server's clock runs for ever, and its cleaner sleeps before it ends.
	clock := goleak.IgnoreAnyFunction("github.com/valyala/fasthttp.updateServerDate.func1")
	cleaner := goleak.IgnoreAnyFunction("github.com/valyala/fasthttp.(*workerPool).Start.func2")
	before := openFiles(t)
	t.Cleanup(func() {
		if err := goleak.Find(goroutines, clock, cleaner); err != nil {
			t.Error(err)
		}
		deadline := time.Now().Add(patience)
		for openFiles(t) > before {
			if time.Now().After(deadline) {
				t.Errorf("%d descriptors, %d before", openFiles(t), before)
				return
			}
			time.Sleep(time.Millisecond)
		}
	})
}

func openFiles(t *testing.T) int {
	t.Helper()
	if runtime.GOOS != "linux" {
		return 0
	}
	files, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, f := range files {
		if to, err := os.Readlink("/proc/self/fd/" + f.Name()); err == nil && strings.HasPrefix(to, "socket:") {
			n++
		}
	}
	return n
}

func TestForwardKeepsEveryByteThatMatters(t *testing.T) {
	const date = "Date: Mon, 01 Jan 2024 00:00:00 GMT\n"
	tests := []struct {
		name    string
		request string
		sees    string // the upstream
		answer  string
		gets    string // the client
		ends    bool   // the client's connection
		notKept bool   // the upstream's
	}{
		{
			name:    "a GET goes through, with fields in their order and case and ours last",
			request: "GET /a?b=%20c&d HTTP/1.1\nHost: example.org:8080\nx-LOWER: 1\nAccept: */*\nx-lower: 2\n\n",
			sees:    "GET /a?b=%20c&d HTTP/1.1\nHost: example.org:8080\nx-LOWER: 1\nAccept: */*\nx-lower: 2\nX-Ours: yes\n\n",
			answer:  "HTTP/1.1 200 Fine\nserver: mine/1\n" + date + "x-B: 1\nX-a:2\nContent-LENGTH: 5\nSet-Cookie: a=1\nSet-Cookie: b=2; Path=/\nX-B: 3\n\nhello",
			gets:    "HTTP/1.1 200 Fine\nserver: mine/1\n" + date + "x-B: 1\nX-a:2\nContent-LENGTH: 5\nSet-Cookie: a=1\nSet-Cookie: b=2; Path=/\nX-B: 3\n\nhello",
		},
		{
			name:    "hop-by-hop fields stay on their hop, in both directions",
			request: "GET / HTTP/1.1\nHost: h\nConnection: keep-alive, X-Hop\nX-Hop: 1\nKeep-Alive: timeout=9\nTE: trailers\nProxy-Connection: x\nUpgrade: h2c\nTrailer: X\n\n",
			sees:    "GET / HTTP/1.1\nHost: h\nX-Ours: yes\n\n",
			answer:  "HTTP/1.1 200 OK\nX-Hop: 2\n" + date + "Connection: x-hop, Content-Length\nKeep-Alive: timeout=5\nUpgrade: h2c\nProxy-Authenticate: Basic\nTrailer: X\nTE: x\nProxy-Connection: y\nContent-Length: 0\nX-Kept: 1\n\n",
			gets:    "HTTP/1.1 200 OK\n" + date + "Content-Length: 0\nX-Kept: 1\n\n",
		},
		{
			name:    "an answer can't pretend to be the gateway's",
			request: "GET / HTTP/1.1\nHost: h\n\n",
			sees:    "GET / HTTP/1.1\nHost: h\nX-Ours: yes\n\n",
			answer:  "HTTP/1.1 200 OK\n" + date + "X-Gateway-Error: x\nx_identity_assertion: y\nContent-Length: 0\n\n",
			gets:    "HTTP/1.1 200 OK\n" + date + "Content-Length: 0\n\n",
		},
		{
			name:    "an answer that closes its connection does not close the client's",
			request: "GET / HTTP/1.1\nHost: h\n\n",
			sees:    "GET / HTTP/1.1\nHost: h\nX-Ours: yes\n\n",
			answer:  "HTTP/1.1 200 OK\n" + date + "Connection: close\nContent-Length: 1\n\nx",
			gets:    "HTTP/1.1 200 OK\n" + date + "Content-Length: 1\n\nx",
			notKept: true,
		},
		{
			name:    "the body of a POST goes along with its head",
			request: "POST / HTTP/1.1\nHost: h\nContent-Length: 5\nContent-Type: text/plain\n\n12345",
			sees:    "POST / HTTP/1.1\nHost: h\nContent-Type: text/plain\nX-Ours: yes\nContent-Length: 5\n\n12345",
			answer:  "HTTP/1.1 201 Created\n" + date + "Content-Length: 2\n\nok",
			gets:    "HTTP/1.1 201 Created\n" + date + "Content-Length: 2\n\nok",
		},
		{
			name:    "a body of no bytes is told apart from no body",
			request: "GET / HTTP/1.1\nHost: h\nContent-Length: 0\n\n",
			sees:    "GET / HTTP/1.1\nHost: h\nX-Ours: yes\nContent-Length: 0\n\n",
			answer:  "HTTP/1.1 200 OK\n" + date + "Content-Length: 0\n\n",
			gets:    "HTTP/1.1 200 OK\n" + date + "Content-Length: 0\n\n",
		},
		{
			name:    "a POST without a body is one of no bytes",
			request: "POST / HTTP/1.1\nHost: h\n\n",
			sees:    "POST / HTTP/1.1\nHost: h\nX-Ours: yes\nContent-Length: 0\n\n",
			answer:  "HTTP/1.1 200 OK\n" + date + "Content-Length: 0\n\n",
			gets:    "HTTP/1.1 200 OK\n" + date + "Content-Length: 0\n\n",
		},
		{
			name:    "a DELETE without a body stays one, and Content-Length: -2 is nobody's",
			request: "DELETE / HTTP/1.1\nHost: h\n\n",
			sees:    "DELETE / HTTP/1.1\nHost: h\nX-Ours: yes\n\n",
			answer:  "HTTP/1.1 204 No Content\n" + date + "\n",
			gets:    "HTTP/1.1 204 No Content\n" + date + "\n",
		},
		{
			name:    "a GET may have a body",
			request: "GET / HTTP/1.1\nHost: h\nContent-Length: 2\n\nab",
			sees:    "GET / HTTP/1.1\nHost: h\nX-Ours: yes\nContent-Length: 2\n\nab",
			answer:  "HTTP/1.1 200 OK\n" + date + "Content-Length: 0\n\n",
			gets:    "HTTP/1.1 200 OK\n" + date + "Content-Length: 0\n\n",
		},
		{
			name:    "a DELETE may have a body, chunked even",
			request: "DELETE / HTTP/1.1\nHost: h\nTransfer-Encoding: chunked\n\n2;ext=1\nab\n0\nX-Trailer: dropped\n\n",
			sees:    "DELETE / HTTP/1.1\nHost: h\nX-Ours: yes\nTransfer-Encoding: chunked\n\n2\nab\n0\n\n",
			answer:  "HTTP/1.1 200 OK\n" + date + "Content-Length: 0\n\n",
			gets:    "HTTP/1.1 200 OK\n" + date + "Content-Length: 0\n\n",
		},
		{
			name:    "trailers cannot become header fields, and cannot take ours away",
			request: "POST / HTTP/1.1\nHost: h\nTrailer: X-Ours\nTransfer-Encoding: chunked\n\n1\na\n0\nX-Ours: no\n\n",
			sees:    "POST / HTTP/1.1\nHost: h\nX-Ours: yes\nTransfer-Encoding: chunked\n\n1\na\n0\n\n",
			answer:  "HTTP/1.1 200 OK\n" + date + "Content-Length: 0\n\n",
			gets:    "HTTP/1.1 200 OK\n" + date + "Content-Length: 0\n\n",
		},
		{
			name:    "a chunked answer stays chunked, without extensions and trailers",
			request: "GET / HTTP/1.1\nHost: h\n\n",
			sees:    "GET / HTTP/1.1\nHost: h\nX-Ours: yes\n\n",
			answer:  "HTTP/1.1 200 OK\n" + date + "Trailer: X-T\ntransfer-encoding: Chunked\n\n5;a=b\nhello\nA\n0123456789\n0;last\nX-T: 1\nX-U: 2\n\n",
			gets:    "HTTP/1.1 200 OK\n" + date + "Transfer-Encoding: chunked\n\n5\nhello\nA\n0123456789\n0\n\n",
		},
		{
			name:    "a body that ends with the connection becomes chunked",
			request: "GET / HTTP/1.1\nHost: h\n\n",
			sees:    "GET / HTTP/1.1\nHost: h\nX-Ours: yes\n\n",
			answer:  "HTTP/1.1 200 OK\n" + date + "\nhello",
			gets:    "HTTP/1.1 200 OK\n" + date + "Transfer-Encoding: chunked\n\n5\nhello\n0\n\n",
			notKept: true,
		},
		{
			name:    "the answer to HEAD has a length and no body",
			request: "HEAD / HTTP/1.1\nHost: h\n\n",
			sees:    "HEAD / HTTP/1.1\nHost: h\nX-Ours: yes\n\n",
			answer:  "HTTP/1.1 200 OK\n" + date + "Content-Length: 12345\n\n",
			gets:    "HTTP/1.1 200 OK\n" + date + "Content-Length: 12345\n\n",
		},
		{
			name:    "the answer to HEAD may be chunked, and has no body",
			request: "HEAD / HTTP/1.1\nHost: h\n\n",
			sees:    "HEAD / HTTP/1.1\nHost: h\nX-Ours: yes\n\n",
			answer:  "HTTP/1.1 200 OK\n" + date + "Transfer-Encoding: chunked\n\n",
			gets:    "HTTP/1.1 200 OK\n" + date + "Transfer-Encoding: chunked\n\n",
		},
		{
			name:    "the answer to HEAD need not be framed at all",
			request: "HEAD / HTTP/1.1\nHost: h\n\n",
			sees:    "HEAD / HTTP/1.1\nHost: h\nX-Ours: yes\n\n",
			answer:  "HTTP/1.1 200 OK\n" + date + "\n",
			gets:    "HTTP/1.1 200 OK\n" + date + "\n",
		},
		{
			name:    "304 tells the length of what it does not send",
			request: "GET / HTTP/1.1\nHost: h\nIf-None-Match: x\n\n",
			sees:    "GET / HTTP/1.1\nHost: h\nIf-None-Match: x\nX-Ours: yes\n\n",
			answer:  "HTTP/1.1 304 Not Modified\n" + date + "ETag: x\nContent-Length: 99\n\n",
			gets:    "HTTP/1.1 304 Not Modified\n" + date + "ETag: x\nContent-Length: 99\n\n",
		},
		{
			name:    "204 has no length",
			request: "GET / HTTP/1.1\nHost: h\n\n",
			sees:    "GET / HTTP/1.1\nHost: h\nX-Ours: yes\n\n",
			answer:  "HTTP/1.1 204 No Content\nContent-Length: 0\n" + date + "\n",
			gets:    "HTTP/1.1 204 No Content\n" + date + "\n",
		},
		{
			name:    "informational answers are not the answer",
			request: "GET / HTTP/1.1\nHost: h\n\n",
			sees:    "GET / HTTP/1.1\nHost: h\nX-Ours: yes\n\n",
			answer:  "HTTP/1.1 100 Continue\n\nHTTP/1.1 103 Early Hints\nLink: </x>\n\nHTTP/1.1 200 OK\n" + date + "Content-Length: 1\n\nx",
			gets:    "HTTP/1.1 200 OK\n" + date + "Content-Length: 1\n\nx",
		},
		{
			name:    "a status line may lack its reason",
			request: "GET / HTTP/1.1\nHost: h\n\n",
			sees:    "GET / HTTP/1.1\nHost: h\nX-Ours: yes\n\n",
			answer:  "HTTP/1.1 299\n" + date + "Content-Length: 0\n\n",
			gets:    "HTTP/1.1 299 \n" + date + "Content-Length: 0\n\n",
		},
		{
			name:    "an upstream that speaks HTTP/1.0 is understood",
			request: "GET / HTTP/1.1\nHost: h\n\n",
			sees:    "GET / HTTP/1.1\nHost: h\nX-Ours: yes\n\n",
			answer:  "HTTP/1.0 200 OK\n" + date + "Connection: keep-alive\nContent-Length: 1\n\nx",
			gets:    "HTTP/1.1 200 OK\n" + date + "Content-Length: 1\n\nx",
			notKept: true,
		},
		{
			name:    "a client that asks for the end gets it",
			request: "GET / HTTP/1.1\nHost: h\nConnection: close\n\n",
			sees:    "GET / HTTP/1.1\nHost: h\nX-Ours: yes\n\n",
			answer:  "HTTP/1.1 200 OK\n" + date + "Content-Length: 1\n\nx",
			gets:    "HTTP/1.1 200 OK\n" + date + "Content-Length: 1\nConnection: close\n\nx",
			ends:    true,
		},
		{
			name:    "a client that speaks HTTP/1.0 is not kept waiting for more",
			request: "GET / HTTP/1.0\nHost: h\n\n",
			sees:    "GET / HTTP/1.1\nHost: h\nX-Ours: yes\n\n",
			answer:  "HTTP/1.1 200 OK\n" + date + "Content-Length: 1\n\nx",
			gets:    "HTTP/1.1 200 OK\n" + date + "Content-Length: 1\nConnection: close\n\nx",
			ends:    true,
		},
		{
			name:    "a client that speaks HTTP/1.0 may keep its connection",
			request: "GET / HTTP/1.0\nHost: h\nConnection: keep-alive\n\n",
			sees:    "GET / HTTP/1.1\nHost: h\nX-Ours: yes\n\n",
			answer:  "HTTP/1.1 200 OK\n" + date + "Content-Length: 1\n\nx",
			gets:    "HTTP/1.1 200 OK\n" + date + "Content-Length: 1\nConnection: keep-alive\n\nx",
		},
		{
			name:    "a client that speaks HTTP/1.0 gets no chunks",
			request: "GET / HTTP/1.0\nHost: h\nConnection: keep-alive\n\n",
			sees:    "GET / HTTP/1.1\nHost: h\nX-Ours: yes\n\n",
			answer:  "HTTP/1.1 200 OK\n" + date + "Transfer-Encoding: chunked\n\n3\nabc\n2;x\nde\n0\nT: 1\n\n",
			gets:    "HTTP/1.1 200 OK\n" + date + "Connection: close\n\nabcde",
			ends:    true,
		},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			noLeaks(t)
			saw := make(chan string, 1)
			over := make(chan struct{})
			addr := serveUpstream(t, func(n int, w *wire) {
				if n > 0 {
					return
				}
				saw <- w.take(len(crlf(test.sees)))
				w.say(crlf(test.answer))
				switch {
				case test.notKept:
					_ = w.Conn.(*net.TCPConn).CloseWrite()
					w.hearEnd()
				case w.head() == "":
					t.Error("the upstream's connection was not kept")
				default:
					w.say("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
				}
				close(over)
			})
			e := serveEdge(t, testUpstream(t, upstreamOptions{}, addr), nil)
			c := e.dial()
			c.say(crlf(test.request))
			c.hear(crlf(test.gets))
			if got := <-saw; got != crlf(test.sees) {
				t.Errorf("upstream saw %q\nwant         %q", got, crlf(test.sees))
			}
			if r := e.result(); r.err != nil || r.attempts != 1 {
				t.Errorf("forward: %+v, %v", r.exchange, r.err)
			}
			if test.ends {
				c.hearEnd()
				c = e.dial()
			}
			if !test.notKept {
				// The next request comes on the same connections.
				c.say("GET /next HTTP/1.1\r\nHost: h\r\n\r\n")
				c.head()
			}
			<-over
		})
	}
}

func TestForwardDatesAnAnswerWithoutDate(t *testing.T) {
	addr := serveUpstream(t, func(_ int, w *wire) {
		w.head()
		w.say("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
	})
	c := serveEdge(t, testUpstream(t, upstreamOptions{}, addr), nil).dial()
	c.say("GET / HTTP/1.1\r\nHost: h\r\n\r\n")
	head := c.head()
	_, date, _ := strings.Cut(head, "Date: ")
	date, _, _ = strings.Cut(date, "\r\n")
	at, err := time.Parse(time.RFC1123, date)
	if err != nil || time.Since(at) > patience {
		t.Errorf("%q: %v", head, err)
	}
}

func TestForwardAnswersPipelinedRequestsInOrder(t *testing.T) {
	addr := serveUpstream(t, func(_ int, w *wire) {
		for h := w.head(); h != ""; h = w.head() {
			path := strings.Fields(h)[1]
			w.say(fmt.Sprintf("HTTP/1.1 200 OK\r\nDate: x\r\nContent-Length: %d\r\n\r\n%s", len(path), path))
		}
	})
	c := serveEdge(t, testUpstream(t, upstreamOptions{}, addr), nil).dial()
	c.say("GET /1 HTTP/1.1\r\nHost: h\r\n\r\n" +
		"SELF /2 HTTP/1.1\r\nHost: h\r\n\r\n" +
		"SELF /3 HTTP/1.1\r\nHost: h\r\n\r\n" +
		"POST /4 HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabc" +
		"GET /5 HTTP/1.1\r\nHost: h\r\n\r\n" +
		"SELF /6 HTTP/1.1\r\nHost: h\r\n\r\n")
	forwarded := "HTTP/1.1 200 OK\r\nDate: x\r\nContent-Length: 2\r\n\r\n"
	own := "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nown"
	c.hear(forwarded + "/1" + own + own + forwarded + "/4" + forwarded + "/5" + own)
}

func TestForwardAddsFieldsToTheAnswer(t *testing.T) {
	addr := serveUpstream(t, func(_ int, w *wire) {
		w.head()
		w.say("HTTP/1.1 200 OK\r\nDate: x\r\nContent-Length: 1\r\nX-Request-Id: theirs\r\n\r\nx")
	})
	c := serveEdge(t, testUpstream(t, upstreamOptions{}, addr), func(ctx *fasthttp.RequestCtx, out *outbound) {
		out.answerHeader = []byte("X-Request-Id: ours\r\n")
		ctx.SetConnectionClose()
	}).dial()
	c.say("GET / HTTP/1.1\r\nHost: h\r\n\r\n")
	c.hear("HTTP/1.1 200 OK\r\nDate: x\r\nContent-Length: 1\r\nX-Request-Id: ours\r\nConnection: close\r\n\r\nx")
	c.hearEnd()
}

func TestForwardTellsAboutTheExchange(t *testing.T) {
	addr := serveUpstream(t, func(_ int, w *wire) {
		w.head()
		w.take(3)
		w.say("HTTP/1.1 404 Not Found\r\nContent-Length: 5\r\n\r\nhello")
	})
	e := serveEdge(t, testUpstream(t, upstreamOptions{}, addr), nil)
	c := e.dial()
	c.say("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabc")
	r := e.result()
	if r.head <= 0 || r.head > patience {
		t.Errorf("head after %v", r.head)
	}
	r.head = 0
	if want := (exchange{target: addr, attempts: 1, status: 404, bytesIn: 3, bytesOut: 5, answered: true}); r.exchange != want {
		t.Errorf("got  %+v\nwant %+v", r.exchange, want)
	}
}

// serveBytes is an upstream that gives the same answer to every request, on
// connections that it keeps.
func serveBytes(t testing.TB, answer string) string {
	t.Helper()
	return serveWhen(t, answer, func(read []byte) bool { return bytes.HasSuffix(read, []byte("\r\n\r\n")) })
}

// serveWhen gives the same answer whenever what was read since the last is whole.
func serveWhen(t testing.TB, answer string, whole func(read []byte) bool) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ln.Close() })
	go func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				buf := make([]byte, 64<<10)
				for n := 0; ; {
					more, err := conn.Read(buf[n:])
					if err != nil {
						return
					}
					if n += more; whole(buf[:n]) {
						n = 0
						if _, err := io.WriteString(conn, answer); err != nil {
							return
						}
					}
				}
			}()
		}
	}()
	return ln.Addr().String()
}
