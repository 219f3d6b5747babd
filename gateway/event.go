package gateway

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/trace"
)

// event is the one record of a request: filled as the request goes down the
// road, logged and counted once when its answer is over.
type event struct {
	start     time.Time
	end       time.Time // once recorded
	requestID string
	clientIP  string
	method    string
	path      string // as sent, without the query, which may hold secrets
	route     string // a template: an endpoint's, or the path of a route
	userID    string
	sessionID string
	tenant    string
	rule      string // what the policy decided by
	upstream  string
	series    *series // of the route; nil without one
	exchange  exchange
	status    int
	bytesOut  int64
	span      trace.Span // nil without tracing
	code      code       // of our refusal, if it was one
	cause     error      // why, for this log alone
}

// longestLogged is how much of a path a record holds. A client may send far more,
// and would fill the log's disk with it.
const longestLogged = 2 << 10

// clip shortens a path for the log.
func clip(path string) string {
	if len(path) > longestLogged {
		return path[:longestLogged] + "…"
	}
	return path
}

// recorder logs and counts events.
type recorder struct {
	log       *slog.Logger
	tracing   *Tracing   // nil: none
	access    *AccessLog // nil: records go to log
	requests  *prometheus.CounterVec
	refusals  *prometheus.CounterVec
	durations *prometheus.HistogramVec
}

func newRecorder(log *slog.Logger, access *AccessLog, metrics prometheus.Registerer) *recorder {
	r := &recorder{
		log: log, access: access,
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "portcullis_requests_total", Help: "Requests answered, by route template, method and status.",
		}, []string{"route", "method", "status"}),
		refusals: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "portcullis_refusals_total", Help: "Requests the gateway itself refused, by code.",
		}, []string{"code"}),
		durations: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "portcullis_request_duration_seconds", Help: "Time from the request's head to the end of its answer.",
			Buckets: []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 10, 60},
		}, []string{"route"}),
	}
	metrics.MustRegister(r.requests, r.refusals, r.durations)
	return r
}

// record closes an event.
func (r *recorder) record(e *event) {
	took := time.Since(e.start)
	e.end = e.start.Add(took)
	r.tracing.end(e)
	r.count(e.series, e, took.Seconds())
	if e.code != "" {
		r.refusals.WithLabelValues(string(e.code)).Inc()
	}
	level := slog.LevelInfo
	if e.cause != nil && (e.status >= 500 || errors.Is(e.cause, errPanic)) {
		level = slog.LevelError
	}
	ctx := context.Background()
	if !r.log.Enabled(ctx, level) {
		return
	}
	if r.access == nil {
		r.log.LogAttrs(ctx, level, "request", e.attrs(nil, took)...)
		return
	}
	var buffer [18]slog.Attr
	r.access.record(e.end, level, "request", e.attrs(buffer[:0], took))
}

// attrs appends what the log says of an event that took so long.
func (e *event) attrs(attrs []slog.Attr, took time.Duration) []slog.Attr {
	attrs = append(attrs,
		slog.String("request_id", e.requestID),
		slog.String("ip", e.clientIP),
		slog.String("method", e.method),
		slog.String("path", e.path),
		slog.String("route", e.route),
		slog.Int("status", e.status),
		slog.Int64("bytes", e.bytesOut),
		slog.Float64("seconds", took.Seconds()),
	)
	attrs = appendAttr(attrs, "user_id", e.userID)
	attrs = appendAttr(attrs, "session_id", e.sessionID)
	attrs = appendAttr(attrs, "tenant", e.tenant)
	attrs = appendAttr(attrs, "rule", e.rule)
	attrs = appendAttr(attrs, "upstream", e.upstream)
	attrs = appendAttr(attrs, "target", e.exchange.target)
	attrs = appendAttr(attrs, "code", string(e.code))
	if e.exchange.attempts > 1 {
		attrs = append(attrs, slog.Int("attempts", e.exchange.attempts))
	}
	if e.cause != nil {
		attrs = append(attrs, slog.String("cause", e.cause.Error()))
	}
	return attrs
}

func appendAttr(attrs []slog.Attr, key, value string) []slog.Attr {
	if value == "" {
		return attrs
	}
	return append(attrs, slog.String(key, value))
}
