package gateway

import (
	"bytes"
	"context"
	"log/slog"
	"math/rand/v2"
	"os"
	"sync/atomic"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/prometheus/client_golang/prometheus"

	"portcullis/policy"
)

// DecisionLogConfig is where and how decisions are logged, one JSON line each.
type DecisionLogConfig struct {
	File     string
	MaxBytes int64 // of a file, before the next is begun
	Keep     int   // full files beside it: File.1 is the latest
	// SampleAllows is the share of permissions that are logged, from 0 to 1.
	// Denials always are.
	SampleAllows float64
	Buffer       int // decisions that may wait, of each kind
}

// DecisionLog writes decisions to a file, beside the requests that they are about:
// when it does not keep up, decisions are dropped and counted.
type DecisionLog struct {
	cfg     DecisionLogConfig
	log     *slog.Logger
	sampled uint64 // permissions with a random number below are logged
	// Denials wait for themselves, so that permissions don't crowd them out.
	denials, allows chan decision
	waiting         atomic.Int64 // bytes of what strangers could choose the length of

	logged, lost              prometheus.Counter
	droppedDenial, droppedAny prometheus.Counter
	file                      rotatedFile
	failing                   bool // the last write failed, and was reported
}

// decision is a policy.Record that was not written yet. All of its text is
// shared with what made it, so that noting one copies a few words.
type decision struct {
	at            time.Time
	requestID     string
	tenant        string
	userID        string
	authenticated bool
	roles         []string
	method        string
	path          string
	route         string
	allowed       bool
	rule          string
	revision      string
	held          int64 // bytes that the path keeps from being freed: all that the client said of the target
}

// maxWaiting bounds the memory that waiting decisions keep from being freed, on
// top of the buffers: paths are as long as clients like.
const maxWaiting = 16 << 20

// OpenDecisionLog opens the file. Run has to be called to write to it.
func OpenDecisionLog(cfg DecisionLogConfig, log *slog.Logger, metrics prometheus.Registerer) (*DecisionLog, error) {
	dropped := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "portcullis_decisions_dropped_total", Help: "Decisions that were not logged because too many waited, by effect.",
	}, []string{"effect"})
	l := &DecisionLog{
		cfg: cfg, log: log,
		denials: make(chan decision, cfg.Buffer), allows: make(chan decision, cfg.Buffer),
		logged: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "portcullis_decisions_logged_total", Help: "Decisions written to the decision log.",
		}),
		lost: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "portcullis_decisions_lost_total", Help: "Decisions that could not be written to the decision log.",
		}),
		droppedDenial: dropped.WithLabelValues(string(policy.Deny)),
		droppedAny:    dropped.WithLabelValues(string(policy.Allow)),
		file:          rotatedFile{name: cfg.File, max: cfg.MaxBytes, keep: cfg.Keep},
	}
	switch {
	case cfg.SampleAllows >= 1:
		l.sampled = 1<<64 - 1
	case cfg.SampleAllows > 0:
		l.sampled = uint64(cfg.SampleAllows * (1 << 64))
	}
	if err := l.file.open(); err != nil {
		return nil, err
	}
	metrics.MustRegister(dropped, l.logged, l.lost)
	return l, nil
}

// note takes a decision down, or drops it; it never waits.
func (l *DecisionLog) note(st *State, r *request, route string, c policy.Caller, d policy.Decision) {
	if d.Allowed && l.sampled < 1<<64-1 && rand.Uint64() >= l.sampled { //nolint:gosec // a sample, not a secret
		return
	}
	n := decision{
		at: r.event.start, requestID: r.event.requestID, authenticated: c.Authenticated, roles: c.Roles,
		method: r.method, path: r.path, route: route, allowed: d.Allowed, rule: d.Rule, revision: st.policy.Revision(),
	}
	if p := r.principal; p != nil {
		n.tenant, n.userID = p.Tenant, p.UserID
	}
	buffer, dropped := l.denials, l.droppedDenial
	if d.Allowed {
		buffer, dropped = l.allows, l.droppedAny
	}
	n.held = int64(len(r.target) + len(r.host))
	if l.waiting.Add(n.held) <= maxWaiting {
		select {
		case buffer <- n:
			return
		default:
		}
	}
	l.waiting.Add(-n.held)
	dropped.Inc()
}

// routeName is what answers a request, if it may: an endpoint's template or a
// route's path; "" for nothing.
func routeName(endpoint found, ours bool, route *route) string {
	if ours || route == nil {
		return endpoint.template
	}
	return route.Path
}

// record is what the log has of a decision.
func (d *decision) record() policy.Record {
	effect := policy.Deny
	if d.allowed {
		effect = policy.Allow
	}
	return policy.Record{
		Time: d.at.UTC(), RequestID: d.requestID, Tenant: d.tenant,
		Subject: policy.RecordSubject{UserID: d.userID, Authenticated: d.authenticated, Roles: d.roles},
		Method:  d.method, Path: d.path, Route: d.route, Effect: effect, Rule: d.rule, Policy: d.revision,
	}
}

// retryEvery is how often a file that could not be written to is tried again.
const retryEvery = time.Second

// Run writes decisions until ctx ends, and then those that wait. Each signal on
// reopen closes the file and opens what has its name then.
func (l *DecisionLog) Run(ctx context.Context, reopen <-chan os.Signal) {
	var batch bytes.Buffer
	for {
		select {
		case <-ctx.Done():
			for len(l.denials)+len(l.allows) > 0 {
				l.gather(&batch)
				l.write(&batch)
			}
			if err := l.file.close(); err != nil {
				l.report(err, 0)
			}
			return
		case <-reopen:
			if err := l.file.reopen(); err != nil {
				l.report(err, 0)
			}
		case d := <-l.denials:
			l.append(&batch, d)
		case d := <-l.allows:
			l.append(&batch, d)
		}
		l.gather(&batch)
		l.write(&batch)
	}
}

// batchBytes is about how much is written at once.
const batchBytes = 64 << 10

// gather appends what waits, denials first, without waiting itself.
func (l *DecisionLog) gather(batch *bytes.Buffer) {
	for batch.Len() < batchBytes {
		select {
		case d := <-l.denials:
			l.append(batch, d)
			continue
		default:
		}
		select {
		case d := <-l.allows:
			l.append(batch, d)
		default:
			return
		}
	}
}

// append encodes a decision. JSON escapes what could end the line, and a path
// whose bytes are no UTF-8 is written with U+FFFD for them.
func (l *DecisionLog) append(batch *bytes.Buffer, d decision) {
	l.waiting.Add(-d.held)
	at := batch.Len()
	if err := json.MarshalWrite(batch, d.record(), jsontext.AllowInvalidUTF8(true)); err != nil {
		batch.Truncate(at)
		l.report(err, 1)
		return
	}
	batch.WriteByte('\n')
}

// write empties the batch into the file. What cannot be written is lost: requests
// do not wait for a disk.
func (l *DecisionLog) write(batch *bytes.Buffer) {
	if batch.Len() == 0 {
		return
	}
	lines := bytes.Count(batch.Bytes(), []byte{'\n'})
	err := l.file.write(batch.Bytes())
	batch.Reset()
	if err != nil {
		l.report(err, lines)
		return
	}
	l.logged.Add(float64(lines))
	if l.failing {
		l.failing = false
		l.log.Info("the decision log is written again", "file", l.cfg.File)
	}
}

// report counts what was lost, and says why when it begins.
func (l *DecisionLog) report(err error, lines int) {
	l.lost.Add(float64(lines))
	if !l.failing {
		l.failing = true
		l.log.Error("decisions are lost: the decision log cannot be written", "file", l.cfg.File, "error", err)
	}
}
