package gateway

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/url"
	"strings"
	"testing"

	"github.com/valyala/fasthttp"
)

// BenchmarkForward measures the way of a request through forward: from a client
// to an upstream and back, over loopback, with both of them counted in.
// Allocations are of the whole process, in which client and upstream have none.
func BenchmarkForward(b *testing.B) {
	small := "HTTP/1.1 200 OK\r\nServer: bench\r\nDate: Mon, 01 Jan 2024 00:00:00 GMT\r\nContent-Type: application/json\r\nContent-Length: 90\r\n\r\n" + strings.Repeat("x", 90)
	sized := func(n int) string {
		return fmt.Sprintf("HTTP/1.1 200 OK\r\nDate: Mon, 01 Jan 2024 00:00:00 GMT\r\nContent-Length: %d\r\n\r\n%s", n, strings.Repeat("x", n))
	}
	get := "GET /tasks/1?x=y HTTP/1.1\r\nHost: example.org\r\nUser-Agent: bench\r\nAccept: */*\r\n\r\n"
	for _, bench := range []struct{ name, request, answer string }{
		{"small GET", get, small},
		{"POST of 200 bytes", "POST /tasks HTTP/1.1\r\nHost: example.org\r\nContent-Length: 200\r\n\r\n" + strings.Repeat("y", 196) + "\r\n\r\n", small},
		{"GET of 10 kB", get, sized(10 << 10)},
		{"GET of 1 MB", get, sized(1 << 20)},
	} {
		b.Run(bench.name, func(b *testing.B) { benchForward(b, bench.request, bench.answer) })
	}
}

func benchForward(b *testing.B, request, answer string) {
	at := &url.URL{Scheme: "http", Host: serveBytes(b, answer)}
	u, err := newUpstream("bench", upstreamOptions{targets: []*url.URL{at}})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(u.close)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	header := []byte("X-User-Id: 0190b0a0-0000-7000-8000-000000000000\r\nX-Request-Id: 0123456789abcdef\r\n")
	s := &fasthttp.Server{
		Handler: func(ctx *fasthttp.RequestCtx) {
			out := outbound{method: "GET", target: "/tasks/1?x=y", host: "example.org", header: header}
			if ctx.IsPost() {
				out.method = "POST"
			}
			if _, err := u.forwardServed(ctx, &out); err != nil {
				b.Error(err)
			}
		},
		ReadBufferSize:        16 << 10,
		NoDefaultServerHeader: true, NoDefaultDate: true, NoDefaultContentType: true,
	}
	prepareServer(s)
	go func() { _ = s.Serve(new(clients).listen(ln)) }()
	b.Cleanup(func() { _ = ln.Close() })
	conn, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = conn.Close() })
	buf, asked := make([]byte, len(answer)), []byte(request)
	ask := func() {
		if _, err := conn.Write(asked); err != nil {
			b.Fatal(err)
		}
		if _, err := io.ReadFull(conn, buf); err != nil || !bytes.HasPrefix(buf, []byte("HTTP/1.1 200 OK\r\n")) {
			b.Fatalf("%.40q, %v", buf, err)
		}
	}
	ask()
	b.ReportAllocs()
	b.SetBytes(int64(len(answer)))
	for b.Loop() {
		ask()
	}
}
