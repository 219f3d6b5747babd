package gateway

import (
	"bytes"
	"io"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// What a small GET with a token costs outside the sockets, part by part.

// hotEvent is the event of such a request.
func hotEvent() *event {
	return &event{
		start: time.Now(), requestID: newRequestID(), clientIP: "127.0.0.1", method: "GET", path: "/tasks/1", route: "/tasks",
		userID: "0190b0a0-0000-7000-8000-000000000001", sessionID: "0190b0a1-0000-7000-8000-000000000001",
		rule: "p, role:user, /tasks/:id, *, allow", upstream: "tasks", series: &series{},
		exchange: exchange{target: "127.0.0.1:9001", attempts: 1}, status: 200, bytesOut: 90,
	}
}

func BenchmarkRecord(b *testing.B) {
	for _, format := range []string{"json", "text"} {
		b.Run(format, func(b *testing.B) {
			out := NewLogBuffer(io.Discard)
			b.Cleanup(out.Close)
			r := newRecorder(slog.New(slog.NewJSONHandler(out, nil)), NewAccessLog(out, format == "json"), prometheus.NewRegistry())
			e := hotEvent()
			b.ReportAllocs()
			for b.Loop() {
				e.start = time.Now().Add(-234_567 * time.Nanosecond)
				r.record(e)
			}
		})
	}
}

func BenchmarkRecordParallel(b *testing.B) {
	out := NewLogBuffer(io.Discard)
	b.Cleanup(out.Close)
	r := newRecorder(slog.New(slog.NewJSONHandler(out, nil)), NewAccessLog(out, true), prometheus.NewRegistry())
	shared := &series{}
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		e := hotEvent()
		e.series = shared
		for pb.Next() {
			e.start = time.Now().Add(-234_567 * time.Nanosecond)
			r.record(e)
		}
	})
}

func benchHeader(b *testing.B, raw []byte) {
	var h clientHeader
	var dst []byte
	b.ReportAllocs()
	for b.Loop() {
		if h.read(raw, true) != nil {
			b.Fatal("refused")
		}
		dst = h.appendForwardable(dst[:0], raw, false)
	}
}

func BenchmarkHeader(b *testing.B) {
	raw := block("User-Agent: curl/8.5.0", "Accept: */*", "Accept-Encoding: gzip, deflate, br",
		"Authorization: Bearer "+strings.Repeat("eyJhbGciOiJFZERTQSIsImtpZCI6IjEi", 20))
	benchHeader(b, raw)
}

func BenchmarkBrowsersHeader(b *testing.B) {
	raw := block("Connection: keep-alive", "Cache-Control: max-age=0", `sec-ch-ua: "Chromium";v="124", "Google Chrome";v="124", "Not-A.Brand";v="99"`,
		"sec-ch-ua-mobile: ?0", `sec-ch-ua-platform: "Linux"`, "Upgrade-Insecure-Requests: 1",
		"User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/124.0.0.0 Safari/537.36",
		"Accept: text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8", "Sec-Fetch-Site: same-origin",
		"Sec-Fetch-Mode: navigate", "Sec-Fetch-User: ?1", "Sec-Fetch-Dest: document", "Referer: https://example.com/tasks",
		"Accept-Encoding: gzip, deflate, br, zstd", "Accept-Language: en-US,en;q=0.9,de;q=0.8", "Cookie: theme=dark; lang=de")
	benchHeader(b, raw)
}

func BenchmarkAnswerHead(b *testing.B) {
	head := []byte(strings.TrimSuffix(hotAnswer, "{}"))
	var a answerHead
	var dst []byte
	b.ReportAllocs()
	for b.Loop() {
		end, err := headEnd(head, 0)
		if err == nil {
			dst, err = a.parse(dst[:0], head[:end])
		}
		if err != nil || !bytes.HasPrefix(dst, []byte("HTTP/1.1 200 OK\r\n")) {
			b.Fatal(err)
		}
	}
}

func BenchmarkNewRequestID(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		_ = newRequestID()
	}
}
