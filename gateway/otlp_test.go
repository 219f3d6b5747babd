package gateway

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	spans "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/encoding/protowire"

	"portcullis/gateway/certs/certstest"
)

const theHeader = "OTEL_EXPORTER_OTLP_HEADERS"

// script answers the nth request (from 1) with the nth handler, or the last.
func script(t *testing.T, answers ...http.HandlerFunc) (url string, asked *atomic.Int32) {
	t.Helper()
	asked = &atomic.Int32{}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n := min(int(asked.Add(1)), len(answers))
		answers[n-1](w, r)
	}))
	t.Cleanup(server.Close)
	return server.URL, asked
}

// status answers with a status and fields such as "Retry-After: 1".
func status(code int, fields ...string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		for _, f := range fields {
			name, value, _ := strings.Cut(f, ": ")
			w.Header().Set(name, value)
		}
		w.WriteHeader(code)
	}
}

// says answers with a protobuf message.
func says(code int, message []byte) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", typeProtobuf)
		w.WriteHeader(code)
		_, _ = w.Write(message)
	}
}

// numberAndText is a google.rpc.Status or an ExportTracePartialSuccess.
func numberAndText(number int64, text string) []byte {
	b := protowire.AppendTag(nil, 1, protowire.VarintType)
	b = protowire.AppendVarint(b, uint64(number))
	b = protowire.AppendTag(b, 2, protowire.BytesType)
	return protowire.AppendString(b, text)
}

// partialSuccess is an ExportTraceServiceResponse.
func partialSuccess(rejected int64, why string) []byte {
	b := protowire.AppendTag(nil, 7, protowire.Fixed32Type) // of a later version
	b = protowire.AppendFixed32(b, 1)
	b = protowire.AppendTag(b, 1, protowire.BytesType)
	return protowire.AppendBytes(b, numberAndText(rejected, why))
}

// uploadOne sends one span to a collector, as an export does, and stops.
func uploadOne(t *testing.T, url string) error {
	t.Helper()
	c := startCollector(t, url)
	ctx, cancel := context.WithTimeout(t.Context(), spanTimeout)
	defer cancel()
	return c.UploadTraces(ctx, oneSpan())
}

func startCollector(t *testing.T, url string) *collector {
	t.Helper()
	env, err := readCollectorEnv()
	if err != nil {
		t.Fatal(err)
	}
	c := newCollector(url+"/v1/traces", env, nil)
	t.Cleanup(func() { _ = c.Stop(context.Background()) })
	return c
}

func oneSpan() []*spans.ResourceSpans {
	return []*spans.ResourceSpans{{ScopeSpans: []*spans.ScopeSpans{{Spans: []*spans.Span{{Name: "one"}}}}}}
}

func TestSpansAreSentAgainOnlyWhereTheSpecificationSaysSo(t *testing.T) {
	elsewhere, strayed := script(t, status(200))
	hangUp := func(w http.ResponseWriter, _ *http.Request) {
		conn, _, _ := http.NewResponseController(w).Hijack()
		_ = conn.Close()
	}
	location := "Location: " + elsewhere + "/v1/traces"
	for name, c := range map[string]struct {
		answers []http.HandlerFunc
		asked   int32
		err     string // "" is none
	}{
		"200":                          {[]http.HandlerFunc{status(200)}, 1, ""},
		"202":                          {[]http.HandlerFunc{status(202)}, 1, ""},
		"429":                          {[]http.HandlerFunc{status(429), status(200)}, 2, ""},
		"502":                          {[]http.HandlerFunc{status(502), status(200)}, 2, ""},
		"503 twice":                    {[]http.HandlerFunc{status(503), status(503), status(200)}, 3, ""},
		"504":                          {[]http.HandlerFunc{status(504), status(200)}, 2, ""},
		"503, and then no":             {[]http.HandlerFunc{status(503), status(400), status(200)}, 2, "400 Bad Request"},
		"hangs up":                     {[]http.HandlerFunc{hangUp, status(200)}, 2, ""},
		"at once":                      {[]http.HandlerFunc{status(503, "Retry-After: 0"), status(200)}, 2, ""},
		"in a second":                  {[]http.HandlerFunc{status(429, "Retry-After: 1"), status(200)}, 2, ""},
		"nonsense":                     {[]http.HandlerFunc{status(429, "Retry-After: -1"), status(200)}, 2, ""},
		"long ago":                     {[]http.HandlerFunc{status(503, "Retry-After: Fri, 31 Dec 1999 23:59:59 GMT"), status(200)}, 2, ""},
		"too late for these":           {[]http.HandlerFunc{status(503, "Retry-After: 30"), status(200)}, 1, "503 Service Unavailable"},
		"in years":                     {[]http.HandlerFunc{status(503, "Retry-After: 99999999999999999999"), status(200)}, 1, "503 Service Unavailable"},
		"at a date":                    {[]http.HandlerFunc{status(503, "Retry-After: Fri, 31 Dec 2999 23:59:59 GMT"), status(200)}, 1, "503 Service Unavailable"},
		"400":                          {[]http.HandlerFunc{status(400), status(200)}, 1, "400 Bad Request"},
		"401":                          {[]http.HandlerFunc{status(401), status(200)}, 1, "401 Unauthorized"},
		"404":                          {[]http.HandlerFunc{status(404), status(200)}, 1, "404 Not Found"},
		"413":                          {[]http.HandlerFunc{status(413), status(200)}, 1, "413 Request Entity Too Large"},
		"500":                          {[]http.HandlerFunc{status(500), status(200)}, 1, "500 Internal Server Error"},
		"501":                          {[]http.HandlerFunc{status(501), status(200)}, 1, "501 Not Implemented"},
		"moved":                        {[]http.HandlerFunc{status(301, location)}, 1, "301 Moved Permanently"},
		"elsewhere":                    {[]http.HandlerFunc{status(307, location)}, 1, "307 Temporary Redirect"},
		"elsewhere for ever":           {[]http.HandlerFunc{status(308, location)}, 1, "308 Permanent Redirect"},
		"a permanent error, explained": {[]http.HandlerFunc{says(400, numberAndText(3, "no \xffroom\n"))}, 1, `400 Bad Request: "no room\n"`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			url, asked := script(t, c.answers...)
			err := uploadOne(t, url)
			if said := fmt.Sprint(err); (c.err == "") != (err == nil) || !strings.Contains(said, c.err) && err != nil {
				t.Errorf("the error is %q, want %q", said, c.err)
			}
			if n := asked.Load(); n != c.asked {
				t.Errorf("asked %d times, want %d", n, c.asked)
			}
		})
	}
	t.Cleanup(func() { // after the parallel ones
		if strayed.Load() != 0 {
			t.Error("a redirect was followed")
		}
	})
}

// Somebody who asks for a minute gets it: the spans meanwhile are not sent.
func TestACollectorThatAsksForQuietIsLeftAlone(t *testing.T) {
	url, asked := script(t, status(429, "Retry-After: 60"), status(200))
	c := startCollector(t, url)
	for range 3 {
		ctx, cancel := context.WithTimeout(t.Context(), spanTimeout)
		defer cancel()
		if err := c.UploadTraces(ctx, oneSpan()); err == nil {
			t.Fatal("the spans were taken")
		}
	}
	if n := asked.Load(); n != 1 {
		t.Errorf("asked %d times", n)
	}
	c.quiet.Store(time.Now().UnixNano()) // the minute is over
	if err := c.UploadTraces(t.Context(), oneSpan()); err != nil || asked.Load() != 2 {
		t.Errorf("%v, asked %d times", err, asked.Load())
	}
}

func TestAskedToWait(t *testing.T) {
	for field, want := range map[string]time.Duration{
		"": 0, "0": 0, "7": 7 * time.Second, "60": time.Minute, "61": time.Minute, "99999999999999999999999": time.Minute,
		"-1": 0, "1.5": 0, " 1": 0, "soon": 0,
		"Fri, 31 Dec 1999 23:59:59 GMT": 0, "Fri, 31 Dec 2999 23:59:59 GMT": time.Minute,
	} {
		if got := askedToWait(field); got != want {
			t.Errorf("%q: %v, want %v", field, got, want)
		}
	}
}

func TestWhatTheCollectorIsSent(t *testing.T) {
	for name, c := range map[string]struct {
		env  map[string]string
		want map[string]string // "" is none
	}{
		"nothing in the environment": {nil, map[string]string{"Content-Type": typeProtobuf, "User-Agent": "portcullis", "Content-Encoding": "", "Authorization": ""}},
		"headers": {map[string]string{theHeader: "Authorization=Bearer%20abc%3D, x-tenant = t1 ,,"},
			map[string]string{"Authorization": "Bearer abc=", "X-Tenant": "t1"}},
		"headers for traces": {map[string]string{theHeader: "Authorization=all,X-All=1", "OTEL_EXPORTER_OTLP_TRACES_HEADERS": "Authorization=traces"},
			map[string]string{"Authorization": "traces", "X-All": ""}},
		"no say in the framing": {map[string]string{theHeader: "Content-Type=text/plain,Content-Encoding=br,Content-Length=1,Transfer-Encoding=chunked,User-Agent=me"},
			map[string]string{"Content-Type": typeProtobuf, "Content-Encoding": "", "User-Agent": "me"}},
		"gzip":                   {map[string]string{"OTEL_EXPORTER_OTLP_COMPRESSION": "gzip"}, map[string]string{"Content-Encoding": "gzip", "Content-Type": typeProtobuf}},
		"GZIP":                   {map[string]string{"OTEL_EXPORTER_OTLP_COMPRESSION": "GZIP"}, map[string]string{"Content-Encoding": "gzip"}},
		"an unknown compression": {map[string]string{"OTEL_EXPORTER_OTLP_COMPRESSION": "zstd"}, map[string]string{"Content-Encoding": ""}},
		"gzip, but not for traces": {map[string]string{"OTEL_EXPORTER_OTLP_COMPRESSION": "gzip", "OTEL_EXPORTER_OTLP_TRACES_COMPRESSION": "none"},
			map[string]string{"Content-Encoding": ""}},
		"not elsewhere": {map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://127.0.0.1:1",
			"OTEL_EXPORTER_OTLP_TIMEOUT": "1", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, map[string]string{"Content-Type": typeProtobuf}},
	} {
		t.Run(name, func(t *testing.T) {
			for k, v := range c.env {
				t.Setenv(k, v)
			}
			r := &receiver{}
			seen := http.Header{}
			url, _ := script(t, func(w http.ResponseWriter, req *http.Request) {
				seen = req.Header.Clone()
				r.ServeHTTP(w, req)
			})
			if err := uploadOne(t, url); err != nil {
				t.Fatal(err)
			}
			if got, _ := r.spans(); len(got) != 1 || got[0].GetName() != "one" {
				t.Errorf("the collector got %v", got)
			}
			for name, want := range c.want {
				if got := seen.Get(name); got != want {
					t.Errorf("%s is %q, want %q", name, got, want)
				}
			}
		})
	}
}

func TestAnEnvironmentThatMakesNoSenseIsRefused(t *testing.T) {
	const secret = "s3cr3t"
	empty := filepath.Join(t.TempDir(), "empty.pem")
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, env := range map[string]map[string]string{
		"no name":                     {theHeader: secret},
		"an empty name":               {theHeader: "=" + secret},
		"not a name":                  {theHeader: "a b=" + secret},
		"the second one":              {theHeader: "a=b," + secret},
		"not encoded":                 {theHeader: "a=%zz" + secret},
		"a second line":               {theHeader: "a=" + secret + "%0d%0aX-Admin:%201"},
		"a NUL":                       {theHeader: "a=" + secret + "%00"},
		"a file that is not there":    {"OTEL_EXPORTER_OTLP_CERTIFICATE": empty + ".not"},
		"a file without certificates": {"OTEL_EXPORTER_OTLP_TRACES_CERTIFICATE": empty},
		"no key":                      {"OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE": empty},
		"no certificate":              {"OTEL_EXPORTER_OTLP_CLIENT_KEY": empty},
	} {
		t.Run(name, func(t *testing.T) {
			for k, v := range env {
				t.Setenv(k, v)
			}
			tracing, err := NewTracing(t.Context(), TracingConfig{Endpoint: "http://127.0.0.1:1"}, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
			if err == nil {
				_ = tracing.Close(t.Context())
				t.Fatal("taken")
			}
			if said := err.Error(); strings.Contains(said, secret) || !strings.Contains(said, "OTEL_EXPORTER_OTLP_") {
				t.Errorf("the error is %q", said)
			}
		})
	}
}

// An operator learns of what the environment says in vain, and the spans are sent.
func TestVariablesThatAreNotFollowedAreToldOf(t *testing.T) {
	r := &receiver{}
	url, _ := script(t, r.ServeHTTP)
	for name, c := range map[string]struct {
		env  map[string]string
		told []string // variables, and what is done instead
	}{
		"nothing": {nil, nil},
		"empty":   {map[string]string{"OTEL_EXPORTER_OTLP_PROTOCOL": " ", "OTEL_SERVICE_NAME": ""}, nil},
		"what is done anyway": {map[string]string{"OTEL_EXPORTER_OTLP_PROTOCOL": "HTTP/protobuf", "OTEL_EXPORTER_OTLP_COMPRESSION": "none",
			"OTEL_EXPORTER_OTLP_ENDPOINT": url, "OTEL_EXPORTER_OTLP_TIMEOUT": "5000", "OTEL_SDK_DISABLED": "False", "OTEL_TRACES_EXPORTER": "otlp",
			"OTEL_PROPAGATORS": "tracecontext,baggage", "OTEL_SERVICE_NAME": "edge"}, nil},
		"for traces alone": {map[string]string{"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc", "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "http/protobuf",
			"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": url + "/v1/traces"}, nil},
		"gRPC": {map[string]string{"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, []string{"OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf"}},
		"JSON, for traces": {map[string]string{"OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "http/json", "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"},
			[]string{"OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "http/protobuf"}},
		"an unknown compression": {map[string]string{"OTEL_EXPORTER_OTLP_COMPRESSION": "zstd"}, []string{"OTEL_EXPORTER_OTLP_COMPRESSION", "none"}},
		"elsewhere": {map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": "http://me:s3cr3t@127.0.0.1:1"},
			[]string{"OTEL_EXPORTER_OTLP_ENDPOINT", "telemetry.otlp_endpoint"}},
		"for longer":   {map[string]string{"OTEL_EXPORTER_OTLP_TIMEOUT": "10000"}, []string{"OTEL_EXPORTER_OTLP_TIMEOUT", "5s"}},
		"for nonsense": {map[string]string{"OTEL_EXPORTER_OTLP_TIMEOUT": "-1"}, []string{"OTEL_EXPORTER_OTLP_TIMEOUT", "5s"}},
		"off":          {map[string]string{"OTEL_SDK_DISABLED": "true"}, []string{"OTEL_SDK_DISABLED", "telemetry.otlp_endpoint"}},
		"no exporter":  {map[string]string{"OTEL_TRACES_EXPORTER": "none"}, []string{"OTEL_TRACES_EXPORTER", "telemetry.otlp_endpoint"}},
		"a sampler":    {map[string]string{"OTEL_TRACES_SAMPLER": "always_off"}, []string{"OTEL_TRACES_SAMPLER", "telemetry.sample_ratio"}},
		"B3":           {map[string]string{"OTEL_PROPAGATORS": "b3"}, []string{"OTEL_PROPAGATORS", "tracecontext"}},
		"another name": {map[string]string{"OTEL_SERVICE_NAME": "door"}, []string{"OTEL_SERVICE_NAME", "telemetry.service_name"}},
	} {
		t.Run(name, func(t *testing.T) {
			for k, v := range c.env {
				t.Setenv(k, v)
			}
			exported, _, said := exports(t, url, 1)
			if exported != 1 {
				t.Errorf("%v spans were exported", exported)
			}
			if strings.Count(said, "\n") != len(c.told)/2 || strings.Contains(said, "s3cr3t") {
				t.Errorf("logged %q", said)
			}
			for _, word := range c.told {
				if !strings.Contains(said, `"`+word+`"`) {
					t.Errorf("logged %q, without %s", said, word)
				}
			}
		})
	}
}

// The SDK reads the attributes of the resource; what it cannot read is in our log.
func TestTheResourceIsDescribedByTheEnvironment(t *testing.T) {
	r := &receiver{}
	url, _ := script(t, r.ServeHTTP)
	t.Setenv("OTEL_RESOURCE_ATTRIBUTES", "service.name=other,deployment.environment.name=staging,nonsense")
	if _, _, said := exports(t, url, 1); strings.Count(said, "\n") != 1 || !strings.Contains(said, `"WARN"`) || !strings.Contains(said, "nonsense") {
		t.Errorf("logged %q", said)
	}
	if _, service := r.spans(); service != "edge" || !strings.Contains(r.bytes, "staging") {
		t.Errorf("the spans are of %q: %q", service, r.bytes)
	}
}

// exports sends n spans by way of the queue, and returns what is counted and logged.
func exports(t *testing.T, url string, n int) (exported, dropped float64, said string) {
	t.Helper()
	var b strings.Builder // read after the queue's goroutine has ended
	metrics := prometheus.NewRegistry()
	tracing, err := NewTracing(t.Context(), TracingConfig{Endpoint: url, ServiceName: "edge", SampleRatio: 1}, slog.New(slog.NewJSONHandler(&b, nil)), metrics)
	if err != nil {
		t.Fatal(err)
	}
	for range n {
		_, s := tracing.tracer.Start(t.Context(), "one")
		s.End()
	}
	if err := tracing.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	all := metricsOf(t, &testGateway{metrics: metrics})
	value := func(name string) float64 { return all[name].GetMetric()[0].GetCounter().GetValue() }
	return value("portcullis_spans_exported_total"), value("portcullis_spans_dropped_total"), b.String()
}

func TestSpansThatTheCollectorRejectsAreCounted(t *testing.T) {
	truncated := partialSuccess(3, "why")
	for name, c := range map[string]struct {
		answer            http.HandlerFunc
		exported, dropped float64
		said              string // "" is nothing
	}{
		"takes all":            {status(200), 5, 0, ""},
		"rejects some":         {says(200, partialSuccess(3, "too old")), 2, 3, "the collector rejects 3 spans"},
		"rejects more":         {says(200, partialSuccess(1<<62, "")), 0, 5, "the collector rejects"},
		"rejects less than 0":  {says(200, partialSuccess(-3, "")), 5, 0, ""},
		"warns":                {says(200, partialSuccess(0, "slow down")), 5, 0, ""},
		"says it in JSON":      {func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, `{"partialSuccess":{}}`) }, 5, 0, ""},
		"is cut off":           {says(200, truncated[:len(truncated)-1]), 5, 0, ""},
		"is no message at all": {says(200, []byte{0xff, 0xff, 0xff}), 5, 0, ""},
		"refuses":              {says(400, numberAndText(3, "no")), 0, 5, "the collector answers 400 Bad Request"},
	} {
		t.Run(name, func(t *testing.T) {
			url, _ := script(t, c.answer)
			exported, dropped, said := exports(t, url, 5)
			if exported != c.exported || dropped != c.dropped {
				t.Errorf("%v exported, %v dropped", exported, dropped)
			}
			if (c.said == "") != (said == "") || !strings.Contains(said, c.said) || strings.Count(said, "\n") > 1 {
				t.Errorf("logged %q, want %q", said, c.said)
			}
		})
	}
}

// Whoever stops the gateway does not wait for a collector that is in trouble: what
// is left is sent once.
func TestTheLastSpansAreSentOnce(t *testing.T) {
	url, asked := script(t, status(503, "Retry-After: 4"), status(200))
	exported, dropped, said := exports(t, url, 5)
	if exported != 0 || dropped != 5 || asked.Load() != 1 || !strings.Contains(said, "503") {
		t.Errorf("%v exported, %v dropped, asked %d times, logged %q", exported, dropped, asked.Load(), said)
	}
}

// A collector may tell back what it was sent, in whatever part of its answer.
func TestTheLogDoesNotHoldWhatTheHeaderHolds(t *testing.T) {
	const secret = "s3cr3t"
	t.Setenv(theHeader, "Authorization=Bearer%20"+secret)
	for name, answer := range map[string]http.HandlerFunc{
		"an error":        says(401, numberAndText(16, "the token "+secret+" has expired")),
		"a rejection":     says(200, partialSuccess(1, "not for "+secret)),
		"a cut message":   says(200, partialSuccess(1, strings.Repeat("x", collectorText-3)+secret)),
		"a text":          func(w http.ResponseWriter, _ *http.Request) { http.Error(w, secret, http.StatusBadRequest) },
		"a redirect":      status(302, "Location: http://127.0.0.1:1/?token="+secret),
		"a broken answer": raw("HTTP/1.1 200 OK\r\n" + secret + "\r\n\r\n"),
		"no answer":       raw(secret + "\r\n"),
		"a status":        raw("HTTP/1.1 499 " + secret + "\r\nContent-Length: 0\r\n\r\n"),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			url, _ := script(t, answer)
			_, _, said := exports(t, url, 1)
			if said == "" || strings.Contains(said, secret) || strings.Contains(said, "s3c") {
				t.Errorf("logged %q", said)
			}
		})
	}
}

// Of two words of which one begins with the other, nothing of the longer stays.
func TestOfTwoCredentialsTheLongerIsHiddenFirst(t *testing.T) {
	header, err := parseOTLPHeaders("Authorization=s3%20s3cr3t%20s3cr3t-2,X-Key=s3cr3t-2-more")
	if err != nil {
		t.Fatal(err)
	}
	const want = "[hidden], [hidden], [hidden] and [hidden]"
	if got := (collectorEnv{header: header}).secrets().Replace("s3cr3t-2-more, s3cr3t-2, s3cr3t and s3"); got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

// raw answers with bytes, and closes.
func raw(answer string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		conn, _, _ := http.NewResponseController(w).Hijack()
		_, _ = io.WriteString(conn, answer)
		_ = conn.Close()
	}
}

// An answer without an end is read as far as it counts.
func TestAnAnswerWithoutAnEndIsNotRead(t *testing.T) {
	const buffered = 64 << 20 // more than sockets hold, and less than can be read within spanTimeout
	written := make(chan int)
	for name, head := range map[string]string{
		"the body":   "HTTP/1.1 200 OK\r\nContent-Type: " + typeProtobuf + "\r\nConnection: close\r\n\r\n",
		"the header": "HTTP/1.1 200 OK\r\nX: ",
	} {
		t.Run(name, func(t *testing.T) {
			url, _ := script(t, func(w http.ResponseWriter, _ *http.Request) {
				conn, b, _ := http.NewResponseController(w).Hijack()
				written <- writeUntilClosed(conn, b, head)
			}, status(200))
			if err := uploadOne(t, url); err != nil {
				t.Error(err)
			}
			if n := <-written; n > buffered {
				t.Errorf("%d bytes were read", n)
			}
		})
	}
}

func writeUntilClosed(conn net.Conn, b *bufio.ReadWriter, head string) (n int) {
	defer conn.Close()
	_, err := b.WriteString(head)
	for more := strings.Repeat("x", 4096); err == nil; _, err = b.WriteString(more) {
		n += len(more)
	}
	return n
}

// Stop ends what waits for a collector, and later exports fail at once.
func TestStopEndsAnUpload(t *testing.T) {
	came := make(chan struct{})
	for name, answer := range map[string]http.HandlerFunc{
		"under way": func(_ http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body)
			close(came)
			<-r.Context().Done()
		},
		"between attempts": status(503, "Retry-After: 59"),
	} {
		t.Run(name, func(t *testing.T) {
			url, asked := script(t, answer)
			c := startCollector(t, url)
			done := make(chan error, 1)
			go func() { done <- c.UploadTraces(context.Background(), oneSpan()) }()
			if name == "under way" {
				<-came
			} else {
				waitUntil(t, func() bool { return c.untilAsked() > 0 })
			}
			if err := c.Stop(t.Context()); err != nil {
				t.Fatal(err)
			}
			select {
			case err := <-done:
				if err == nil {
					t.Error("the spans were taken")
				}
			case <-time.After(patience):
				t.Fatal("goes on")
			}
			if err := c.UploadTraces(t.Context(), oneSpan()); err == nil || asked.Load() != 1 {
				t.Errorf("after Stop: %v, asked %d times", err, asked.Load())
			}
		})
	}
}

// Whoever is on the way to a collector of https must not get the header.
func TestACollectorOverTLSHasToBeTheOne(t *testing.T) {
	var asked atomic.Int32
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { asked.Add(1) }))
	server.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	ours, dir := certstest.NewAuthority(t), t.TempDir()
	server.TLS = &tls.Config{ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: ours.Pool(), MinVersion: tls.VersionTLS12}
	server.StartTLS()
	t.Cleanup(server.Close)
	certificate, key, authority, another := filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem"), filepath.Join(dir, "theirs.pem"), filepath.Join(dir, "ours.pem")
	ours.Issue("gateway").Write(t, certificate, key)
	for file, text := range map[string][]byte{authority: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}), another: ours.PEM()} {
		if err := os.WriteFile(file, text, 0o600); err != nil {
			t.Fatal(err)
		}
	}

	for _, c := range []struct {
		name  string
		env   map[string]string
		taken bool
	}{
		{"an unknown authority", nil, false},
		{"no certificate of ours", map[string]string{"OTEL_EXPORTER_OTLP_CERTIFICATE": authority}, false},
		{"another authority", map[string]string{"OTEL_EXPORTER_OTLP_CERTIFICATE": authority, "OTEL_EXPORTER_OTLP_TRACES_CERTIFICATE": another,
			"OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE": certificate, "OTEL_EXPORTER_OTLP_CLIENT_KEY": key}, false},
		{"both", map[string]string{"OTEL_EXPORTER_OTLP_CERTIFICATE": authority,
			"OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE": certificate, "OTEL_EXPORTER_OTLP_CLIENT_KEY": key}, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			for k, v := range c.env {
				t.Setenv(k, v)
			}
			before := asked.Load()
			ctx, cancel := context.WithTimeout(t.Context(), 2*collectorPause) // an attempt or two
			if c.taken {
				ctx, cancel = context.WithTimeout(t.Context(), spanTimeout)
			}
			defer cancel()
			err := startCollector(t, server.URL).UploadTraces(ctx, oneSpan())
			if (err == nil) != c.taken || asked.Load()-before != map[bool]int32{true: 1}[c.taken] {
				t.Errorf("%v, asked %d times", err, asked.Load()-before)
			}
			if errors.Is(err, context.DeadlineExceeded) {
				t.Error("was not refused")
			}
		})
	}
}

// One request whose bytes are no text must not take the others' spans with it.
func TestAPathThatIsNoTextCostsNobodyElseASpan(t *testing.T) {
	c := &receiver{}
	server := httptest.NewServer(c)
	t.Cleanup(server.Close)
	e, tracing := startTracedGateway(t, server.URL)
	for _, path := range []string{"/public/%ff", "/public/\xff", "/public/%c3%28", "/public/x"} {
		e.send(get(path, sampled))
	}
	if err := tracing.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	all, _ := c.spans()
	found := false
	for _, s := range all {
		found = found || attributesOf(s)["url.path"] == "/public/x"
	}
	if !found {
		t.Errorf("%d spans: %v", len(all), all)
	}
}
