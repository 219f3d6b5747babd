package gateway

import (
	"compress/gzip"
	"context"
	"encoding/hex"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	spans "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"
)

// receiver is an OTLP/HTTP receiver.
type receiver struct {
	mu    sync.Mutex
	bytes string
	got   []*spans.ResourceSpans
}

func (c *receiver) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body := io.Reader(r.Body)
	if r.Header.Get("Content-Encoding") == "gzip" {
		unpacked, err := gzip.NewReader(r.Body)
		if err != nil {
			http.Error(w, "", http.StatusBadRequest)
			return
		}
		body = unpacked
	}
	b, err := io.ReadAll(body)
	var request spans.TracesData // in protobuf, an ExportTraceServiceRequest
	if err != nil || r.URL.Path != "/v1/traces" || proto.Unmarshal(b, &request) != nil {
		http.Error(w, "", http.StatusBadRequest)
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.bytes += string(b)
	c.got = append(c.got, request.GetResourceSpans()...)
	w.Header().Set("Content-Type", "application/x-protobuf")
}

// spans returns what has come, by name, and the service that sent it.
func (c *receiver) spans() (all []*spans.Span, service string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, r := range c.got {
		for _, a := range r.GetResource().GetAttributes() {
			if a.GetKey() == "service.name" {
				service = a.GetValue().GetStringValue()
			}
		}
		for _, s := range r.GetScopeSpans() {
			all = append(all, s.GetSpans()...)
		}
	}
	return all, service
}

func attributesOf(s *spans.Span) map[string]any {
	all := map[string]any{}
	for _, a := range s.GetAttributes() {
		if v := a.GetValue(); v.GetStringValue() != "" {
			all[a.GetKey()] = v.GetStringValue()
		} else {
			all[a.GetKey()] = v.GetIntValue()
		}
	}
	return all
}

const (
	aTrace    = "0af7651916cd43dd8448eb211c80319c"
	aSpan     = "b7ad6b7169203331"
	sampled   = "traceparent: 00-" + aTrace + "-" + aSpan + "-01"
	unsampled = "traceparent: 00-" + aTrace + "-" + aSpan + "-00"
)

func TestEachRequestOfASampledTraceIsOneSpan(t *testing.T) {
	c := &receiver{}
	server := httptest.NewServer(c)
	t.Cleanup(server.Close)
	e, tracing := startTracedGateway(t, server.URL)
	token := e.token("uma", "user")
	const secret = "s3cr3t"
	e.send(get("/public/x?token="+secret, sampled, "tracestate: vendor=1"))
	seen := e.requests()[0]
	e.send(get("/tasks/1", sampled, "Authorization: Bearer "+secret))
	e.send(get("/tasks/2", sampled, "Authorization: Bearer "+token, "Cookie: a="+secret))
	e.send(get("/public/not-sampled", unsampled))
	unseen := e.requests()
	if err := tracing.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	all, service := c.spans()
	if len(all) != 3 || service != "edge" {
		t.Fatalf("%d spans of %q: %v", len(all), service, all)
	}
	for i, want := range []map[string]any{
		{"http.request.method": "GET", "url.path": "/public/x", "http.route": "/public", "http.response.status_code": int64(200), "portcullis.upstream": "up"},
		{"http.request.method": "GET", "url.path": "/tasks/1", "http.response.status_code": int64(401), "portcullis.code": "invalid_token"},
		{"http.request.method": "GET", "url.path": "/tasks/2", "http.route": "/tasks", "http.response.status_code": int64(200)},
	} {
		s := all[i]
		if hex.EncodeToString(s.GetTraceId()) != aTrace || hex.EncodeToString(s.GetParentSpanId()) != aSpan || s.GetKind() != spans.Span_SPAN_KIND_SERVER || s.GetEndTimeUnixNano() <= s.GetStartTimeUnixNano() {
			t.Errorf("%v", s)
		}
		got := attributesOf(s)
		for k, v := range want {
			if got[k] != v {
				t.Errorf("span %d: %s is %v, want %v", i, k, got[k], v)
			}
		}
	}
	if name := all[0].GetName(); name != "GET /public" {
		t.Errorf("a span is called %q", name)
	}
	// The upstream's spans are children of ours, and in the client's trace.
	if want := "traceparent: 00-" + aTrace + "-" + hex.EncodeToString(all[0].GetSpanId()) + "-01\r\n"; !strings.Contains(seen, want) || !strings.Contains(seen, "tracestate: vendor=1\r\n") {
		t.Errorf("the upstream saw %q, want %q", seen, want)
	}
	if last := unseen[len(unseen)-1]; !strings.Contains(last, unsampled+"\r\n") {
		t.Errorf("of a trace that is not recorded the upstream saw %q", last)
	}
	for _, hidden := range []string{secret, token} {
		if strings.Contains(c.bytes, hidden) {
			t.Errorf("the spans hold %s", hidden)
		}
	}
}

// startTracedGateway is startGateway with spans that go to a collector.
func startTracedGateway(t *testing.T, collector string) (*testGateway, *Tracing) {
	t.Helper()
	var tracing *Tracing
	e := startGatewayAs(t, func(c *Config) {
		var err error
		if tracing, err = NewTracing(t.Context(), TracingConfig{Endpoint: collector, ServiceName: "edge", Version: "v1", SampleRatio: 0.5}, c.Log, c.Metrics); err != nil {
			t.Fatal(err)
		}
		c.Tracing = tracing
	})
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Millisecond)
		defer cancel()
		_ = tracing.Close(ctx) // some tests have no collector
	})
	return e, tracing
}

// A collector that is away, or takes nothing, costs spans and never a request.
func TestACollectorThatIsAwayBlocksNoRequest(t *testing.T) {
	stuck := make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		select {
		case <-stuck:
		case <-r.Context().Done():
		}
	}))
	t.Cleanup(server.Close)
	t.Cleanup(func() { close(stuck) })
	for name, at := range map[string]string{"refuses connections": "http://" + deadAddr(t), "takes nothing": server.URL} {
		t.Run(name, func(t *testing.T) {
			e, tracing := startTracedGateway(t, at)
			dropped := func() float64 {
				return metricsOf(t, e)["portcullis_spans_dropped_total"].GetMetric()[0].GetCounter().GetValue()
			}
			c := e.dial()
			for sent := 0; sent < spanQueueSize+3*spanBatch; sent++ {
				c.say(get("/public/x", sampled))
				c.expect(badNews{status: 200, body: "ok"})
			}
			waitUntil(t, func() bool { return dropped() > 0 })
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
			defer cancel()
			_ = tracing.Close(ctx) // does not wait for it either
		})
	}
}
