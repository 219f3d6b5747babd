package gateway

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
)

const (
	spanQueueSize = 2048 // finished spans that wait; more are dropped
	spanBatch     = 512
	spanDelay     = time.Second // until a batch that is not full is sent
	spanTimeout   = 5 * time.Second
)

// TracingConfig says where spans go. Headers, such as a collector's credentials,
// come from OTEL_EXPORTER_OTLP_HEADERS, as everywhere; see readCollectorEnv.
type TracingConfig struct {
	Endpoint    string // URL of an OTLP/HTTP receiver
	ServiceName string
	Version     string
	SampleRatio float64 // of the traces that begin here; 0 to 1
}

// Tracing makes a span of each request and sends it to an OpenTelemetry
// collector. A request never waits for it: what the collector does not take in
// time is dropped and counted. A nil Tracing does nothing and costs nothing.
type Tracing struct {
	provider *sdktrace.TracerProvider
	tracer   trace.Tracer
}

// NewTracing returns a Tracing that Close ends. The collector need not be there.
// What OpenTelemetry's environment variables say in vain is logged, without the
// values: an URL can hold a password.
func NewTracing(ctx context.Context, cfg TracingConfig, log *slog.Logger, metrics prometheus.Registerer) (*Tracing, error) {
	env, err := readCollectorEnv()
	if err != nil {
		return nil, fmt.Errorf("tracing: %w", err)
	}
	for _, v := range findUnfollowed(cfg) {
		log.Warn("tracing: a variable is not followed", "variable", v.name, "instead", v.instead)
	}
	// The SDK reads variables of its own, such as OTEL_RESOURCE_ATTRIBUTES, and has one
	// place for what it thinks of them.
	otel.SetErrorHandler(otel.ErrorHandlerFunc(func(err error) { log.Warn("tracing: OpenTelemetry complains", "error", err) }))
	closing := make(chan struct{})
	exporter, err := otlptrace.New(ctx, newCollector(strings.TrimSuffix(cfg.Endpoint, "/")+tracesPath, env, closing))
	if err != nil {
		return nil, fmt.Errorf("tracing: %w", err)
	}
	// The sampled flag of a client's trace is honoured either way.
	provider := sdktrace.NewTracerProvider(
		sdktrace.WithSampler(sdktrace.ParentBased(sdktrace.TraceIDRatioBased(cfg.SampleRatio))),
		sdktrace.WithSpanProcessor(newSpanQueue(exporter, closing, log, metrics)),
		sdktrace.WithResource(resource.NewSchemaless(
			attribute.String("service.name", cfg.ServiceName), attribute.String("service.version", cfg.Version))),
	)
	return &Tracing{provider: provider, tracer: provider.Tracer("portcullis/gateway")}, nil
}

// Close sends what waits, until ctx ends.
func (t *Tracing) Close(ctx context.Context) error {
	if t == nil {
		return nil
	}
	return t.provider.Shutdown(ctx)
}

// begin makes the request's span, a child of the client's.
func (t *Tracing) begin(r *request) {
	if t == nil {
		return
	}
	ctx := context.Background()
	if parent := string(r.header.traceparent); validTraceparent(parent) {
		ctx = propagation.TraceContext{}.Extract(ctx, propagation.MapCarrier{"traceparent": parent})
	}
	_, r.event.span = t.tracer.Start(ctx, r.event.method, trace.WithSpanKind(trace.SpanKindServer), trace.WithTimestamp(r.event.start))
}

// end completes the span of an event. There is none if the request's head could
// not be read.
func (t *Tracing) end(e *event) {
	if t == nil || e.span == nil || !e.span.IsRecording() {
		return
	}
	if e.route != "" {
		e.span.SetName(e.method + " " + e.route)
	}
	e.span.SetAttributes(
		attribute.String("http.request.method", e.method),
		attribute.String("url.path", e.path), // without the query, which may hold secrets
		attribute.Int("http.response.status_code", e.status),
		attribute.String("client.address", e.clientIP),
		attribute.String("portcullis.request_id", e.requestID),
	)
	for _, a := range []struct{ key, value string }{
		{"http.route", e.route}, {"portcullis.code", string(e.code)}, {"portcullis.rule", e.rule},
		{"portcullis.upstream", e.upstream}, {"portcullis.target", e.exchange.target},
	} {
		if a.value != "" {
			e.span.SetAttributes(attribute.String(a.key, a.value))
		}
	}
	if e.exchange.head > 0 {
		e.span.AddEvent("upstream answered", trace.WithTimestamp(e.start.Add(e.exchange.head)))
	}
	if e.status >= 500 {
		e.span.SetStatus(codes.Error, "")
	}
	e.span.End(trace.WithTimestamp(e.end))
}

// traceparent is what the upstream is told, if the request's span is recorded: the
// spans of the upstream are its children.
func (e *event) traceparent() (string, bool) {
	if e.span == nil || !e.span.SpanContext().IsSampled() {
		return "", false
	}
	s := e.span.SpanContext()
	return "00-" + s.TraceID().String() + "-" + s.SpanID().String() + "-01", true
}

// spanQueue takes finished spans without ever waiting, and exports them from a
// goroutine of its own.
type spanQueue struct {
	exporter sdktrace.SpanExporter
	log      *slog.Logger
	spans    chan sdktrace.ReadOnlySpan
	closing  chan struct{}
	closed   chan struct{}
	ending   atomic.Bool
	failing  bool // the last export failed
	exported prometheus.Counter
	dropped  prometheus.Counter
}

func newSpanQueue(exporter sdktrace.SpanExporter, closing chan struct{}, log *slog.Logger, metrics prometheus.Registerer) *spanQueue {
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Name: name, Help: help})
	}
	q := &spanQueue{
		exporter: exporter, log: log, spans: make(chan sdktrace.ReadOnlySpan, spanQueueSize), closing: closing, closed: make(chan struct{}),
		exported: counter("portcullis_spans_exported_total", "Spans that the collector took."),
		dropped:  counter("portcullis_spans_dropped_total", "Spans that the collector did not take in time."),
	}
	metrics.MustRegister(q.exported, q.dropped)
	go q.run()
	return q
}

// OnStart implements sdktrace.SpanProcessor.
func (q *spanQueue) OnStart(context.Context, sdktrace.ReadWriteSpan) {}

// OnEnd implements sdktrace.SpanProcessor.
func (q *spanQueue) OnEnd(s sdktrace.ReadOnlySpan) {
	if !s.SpanContext().IsSampled() {
		return
	}
	select {
	case q.spans <- s:
	default:
		q.dropped.Inc()
	}
}

// ForceFlush implements sdktrace.SpanProcessor.
func (q *spanQueue) ForceFlush(context.Context) error { return nil }

// Shutdown implements sdktrace.SpanProcessor.
func (q *spanQueue) Shutdown(ctx context.Context) error {
	if !q.ending.Swap(true) {
		close(q.closing)
	}
	select {
	case <-q.closed:
		return q.exporter.Shutdown(ctx)
	case <-ctx.Done():
		return errors.Join(ctx.Err(), q.exporter.Shutdown(ctx))
	}
}

// run exports batches until Shutdown, and then what is left.
func (q *spanQueue) run() {
	defer close(q.closed)
	tick := time.NewTicker(spanDelay)
	defer tick.Stop()
	batch := make([]sdktrace.ReadOnlySpan, 0, spanBatch)
	for {
		select {
		case s := <-q.spans:
			if batch = append(batch, s); len(batch) < spanBatch {
				continue
			}
		case <-tick.C:
		case <-q.closing:
			for len(q.spans) > 0 {
				batch = append(batch, <-q.spans)
			}
			q.export(batch)
			return
		}
		q.export(batch)
		batch = batch[:0]
	}
}

// export sends a batch. A collector that goes away is logged once.
func (q *spanQueue) export(batch []sdktrace.ReadOnlySpan) {
	if len(batch) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), spanTimeout)
	defer cancel()
	err := q.exporter.ExportSpans(ctx, batch)
	lost := 0
	if partial := (*partialError)(nil); errors.As(err, &partial) {
		lost = int(min(partial.rejected, int64(len(batch))))
	} else if err != nil {
		lost = len(batch)
	}
	q.dropped.Add(float64(lost))
	q.exported.Add(float64(len(batch) - lost))
	if failing := err != nil; failing != q.failing {
		q.failing = failing
		if failing {
			q.log.Warn("spans cannot be exported: they are dropped until that works again", "error", err)
		} else {
			q.log.Info("spans are exported again")
		}
	}
}
