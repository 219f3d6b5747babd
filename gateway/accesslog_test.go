package gateway

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
)

// slogLine is what slog's own handler writes.
func slogLine(asJSON bool, at time.Time, level slog.Level, attrs []slog.Attr) string {
	var b bytes.Buffer
	var h slog.Handler = slog.NewTextHandler(&b, nil)
	if asJSON {
		h = slog.NewJSONHandler(&b, nil)
	}
	r := slog.NewRecord(at, level, "request", 0)
	r.AddAttrs(attrs...)
	if h.Handle(nil, r) != nil { //nolint:staticcheck // neither looks at the context
		return "failed"
	}
	return b.String()
}

func ourLine(asJSON bool, at time.Time, level slog.Level, attrs []slog.Attr) string {
	var b bytes.Buffer
	buffer := NewLogBuffer(&b)
	NewAccessLog(buffer, asJSON).record(at, level, "request", attrs)
	buffer.Close()
	return b.String()
}

// hostile are values that clients can choose: each byte, and what ends lines or
// strings for somebody.
func hostile() []string {
	all := []string{
		"", "plain", "a b", "a=b", `"`, `\`, `{"x":1}`, "\r\nlevel=ERROR msg=forged", "\x00", "\x1b[31m", "\x7f", "\u0085",
		"\u2028", "\u2029", "\u202e", "\ufeff", "\ufffd", "\xff\xfe", "\xed\xa0\x80", "caf\u00e9", "\u65e5\u672c", "\U0001f600", strings.Repeat("x", 5000),
	}
	for c := range 256 {
		all = append(all, string([]byte{byte(c)}), "a"+string([]byte{byte(c)})+"z")
	}
	return all
}

func TestRecordsAreThoseOfSlog(t *testing.T) {
	zones := []*time.Location{time.UTC, time.FixedZone("east", 19800), time.FixedZone("west", -3600)}
	instants := []time.Time{time.Unix(1700000000, 0), time.Unix(1700000000, 120_000_000), time.Unix(1700000000, 123_456_789), time.Unix(1700000000, 1)}
	for _, asJSON := range []bool{true, false} {
		for i, value := range hostile() {
			at := instants[i%len(instants)].In(zones[i%len(zones)])
			attrs := []slog.Attr{slog.String("path", value), slog.Int("status", i), slog.Int64("bytes", -1), slog.String("last", value)}
			level := []slog.Level{slog.LevelInfo, slog.LevelError}[i%2]
			if want, got := slogLine(asJSON, at, level, attrs), ourLine(asJSON, at, level, attrs); got != want {
				t.Errorf("json %v: %q\n got %s\nwant %s", asJSON, value, got, want)
			}
		}
		for _, f := range []float64{0, 1, 0.5, 1e-6, 9.99e-7, 1e-9, 2.5e-10, 1.0000000010000001, 123456789.123, 1e20, 1e21, 1e22, math.Pi, -0.25} {
			attrs := []slog.Attr{slog.Float64("seconds", f)}
			if want, got := slogLine(asJSON, instants[0], 0, attrs), ourLine(asJSON, instants[0], 0, attrs); got != want {
				t.Errorf("json %v: %v\n got %s\nwant %s", asJSON, f, got, want)
			}
		}
	}
}

func FuzzRecordsAreThoseOfSlog(f *testing.F) {
	f.Add("GET", 0.001)
	f.Add("\r\n\u2028\xff", 1e-9)
	f.Fuzz(func(t *testing.T, s string, seconds float64) {
		if math.IsNaN(seconds) || math.IsInf(seconds, 0) {
			return
		}
		attrs := []slog.Attr{slog.String("s", s), slog.Float64("f", seconds)}
		at := time.Unix(1700000000, 123_456_789).UTC()
		for _, asJSON := range []bool{true, false} {
			if want, got := slogLine(asJSON, at, 0, attrs), ourLine(asJSON, at, 0, attrs); got != want {
				t.Errorf("json %v\n got %s\nwant %s", asJSON, got, want)
			}
		}
	})
}

// What is logged of a request does not depend on who writes it.
func TestAnEventIsLoggedAsBySlog(t *testing.T) {
	full := &event{
		start: time.Now().Add(-time.Second), requestID: "id", clientIP: "192.0.2.1", method: "GET", path: "/a\"b\xff", route: "/a",
		userID: "u\n", sessionID: "s", tenant: "t", rule: "p, role:user, /a, GET, allow", upstream: "tasks",
		exchange: exchange{target: "127.0.0.1:1", attempts: 2}, status: 502, bytesOut: 7,
		code: codeUpstreamUnreach, cause: errors.New("dial:\r\n refused"),
	}
	for name, e := range map[string]*event{"all of it": full, "next to nothing": {start: time.Now(), status: 400}, "a late failure": {start: time.Now(), status: 200, cause: errors.New("x")}} {
		var direct, buffered bytes.Buffer
		newRecorder(slog.New(slog.NewJSONHandler(&direct, nil)), nil, prometheus.NewRegistry()).record(e)
		out := NewLogBuffer(&buffered)
		newRecorder(slog.New(slog.DiscardHandler), NewAccessLog(out, true), prometheus.NewRegistry()).record(e)
		out.Close()
		if buffered.Len() > 0 {
			t.Errorf("%s: a logger that lets nothing through, and still: %s", name, buffered.String())
		}
		out = NewLogBuffer(&buffered)
		newRecorder(slog.New(slog.NewJSONHandler(&direct, nil)), NewAccessLog(out, true), prometheus.NewRegistry()).record(e)
		out.Close()
		if diff := cmp.Diff(fields(t, direct.Bytes()), fields(t, buffered.Bytes())); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
}

// fields are those of a record but for the two that tell the time.
func fields(t *testing.T, line []byte) map[string]any {
	t.Helper()
	var all map[string]any
	if err := json.Unmarshal(line, &all); err != nil {
		t.Fatalf("%v: %s", err, line)
	}
	if all["time"] == nil || all["seconds"] == nil {
		t.Errorf("no time: %s", line)
	}
	delete(all, "time")
	delete(all, "seconds")
	return all
}

// writes remembers each write; while mu is held, none returns.
type writes struct {
	mu  sync.Mutex
	all []string
}

func (w *writes) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.all = append(w.all, string(p))
	return len(p), nil
}

func TestManyRecordsAreOneWrite(t *testing.T) {
	w := &writes{}
	b := NewLogBuffer(w)
	line := strings.Repeat("x", 99) + "\n"
	for range 100 {
		b.record([]byte(line))
	}
	if _, err := b.Write([]byte("urgent\n")); err != nil { // in its place, and at once
		t.Fatal(err)
	}
	w.mu.Lock()
	if n := len(w.all); n == 0 || n > 20 {
		t.Errorf("%d writes", n) // more than one only if 100 ms have passed meanwhile
	}
	if got := strings.Join(w.all, ""); got != strings.Repeat(line, 100)+"urgent\n" {
		t.Errorf("%d bytes", len(got))
	}
	w.mu.Unlock()
	b.record([]byte("last\n"))
	b.Close()
	b.record([]byte("after\n"))
	if got := strings.Join(w.all, ""); !strings.HasSuffix(got, "urgent\nlast\nafter\n") {
		t.Errorf("at the end: %q", got[len(got)-40:])
	}
}

// Nobody has to write again for a record to be seen.
func TestALonelyRecordIsWritten(t *testing.T) {
	wrote := make(chan string, 1)
	b := NewLogBuffer(writerFunc(func(p []byte) { wrote <- string(p) }))
	b.record([]byte("lonely\n"))
	if got := <-wrote; got != "lonely\n" {
		t.Errorf("%q", got)
	}
}

type writerFunc func([]byte)

func (f writerFunc) Write(p []byte) (int, error) { f(p); return len(p), nil }

// Each line comes out whole, once, and those of one goroutine in their order; and
// a writer that stands still makes its users wait rather than the memory grow.
func TestLinesStayWhole(t *testing.T) {
	w := &writes{}
	b := NewLogBuffer(w)
	const writers, each = 8, 2000
	w.mu.Lock() // the writer stands still
	var all sync.WaitGroup
	for n := range writers {
		all.Go(func() {
			for i := range each {
				line := fmt.Sprintf("%d %d %s\n", n, i, strings.Repeat("y", 200))
				if i%100 == 99 {
					_, _ = b.Write([]byte(line))
				} else {
					b.record([]byte(line))
				}
			}
		})
	}
	b.mu.Lock()
	if len(b.pending) > logAtMost+writers*300 {
		t.Errorf("%d bytes wait", len(b.pending))
	}
	b.mu.Unlock()
	w.mu.Unlock()
	all.Wait()
	b.Close()
	next := make([]int, writers)
	for line := range strings.Lines(strings.Join(w.all, "")) {
		var n, i int
		var rest string
		if _, err := fmt.Sscanf(line, "%d %d %s\n", &n, &i, &rest); err != nil || len(rest) != 200 || i != next[n] {
			t.Fatalf("%.60q, %v; wanted line %d", line, err, next[n])
		}
		next[n]++
	}
	for n, got := range next {
		if got != each {
			t.Errorf("%d: %d lines", n, got)
		}
	}
}

func TestCountersAreFoundOnce(t *testing.T) {
	metrics := prometheus.NewRegistry()
	r := newRecorder(slog.New(slog.DiscardHandler), nil, metrics)
	s := &series{}
	for i := range 40 { // more pairs than are remembered
		for range 3 {
			r.record(&event{start: time.Now(), route: "/a", method: "GET", status: 200 + i, series: s})
		}
	}
	r.record(&event{start: time.Now(), route: "/a", method: "POST", status: 200, series: s})
	r.record(&event{start: time.Now(), route: "/a", method: "GET", status: 200})
	families, err := metrics.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		switch f.GetName() {
		case "portcullis_requests_total":
			if len(f.GetMetric()) != 41 {
				t.Errorf("%d counters", len(f.GetMetric()))
			}
			for _, m := range f.GetMetric() {
				want := 3.0
				labels := fmt.Sprint(m.GetLabel())
				switch {
				case strings.Contains(labels, "POST"):
					want = 1
				case strings.Contains(labels, `"200"`):
					want = 4
				}
				if m.GetCounter().GetValue() != want {
					t.Errorf("%s: %v, want %v", labels, m.GetCounter().GetValue(), want)
				}
			}
		case "portcullis_request_duration_seconds":
			if n := f.GetMetric()[0].GetHistogram().GetSampleCount(); n != 122 {
				t.Errorf("%d durations", n)
			}
		}
	}
	if n := len(*s.requests.Load()); n != maxSeries {
		t.Errorf("%d are remembered", n)
	}
}
