package upstream

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
)

// storeTimeout bounds every use of the store: one that is away costs a client
// this long, and then a 503.
const storeTimeout = 2 * time.Second

const healthPath = "/healthz"

// NewHandler returns the service: it answers every request with the caller's
// tasks or with problem details, and writes one line about it to log.
func NewHandler(store Store, verifier *Verifier, log *slog.Logger) http.Handler {
	a := &api{store: store, verifier: verifier, log: log, now: time.Now}
	a.routes = []route{
		{"/tasks", map[string]endpoint{http.MethodGet: a.list, http.MethodPost: a.create}},
		{"/tasks/{id}", map[string]endpoint{http.MethodGet: a.get, http.MethodPatch: a.update, http.MethodDelete: a.remove}},
		{"/tasks/{id}/complete", map[string]endpoint{http.MethodPost: a.complete}},
		{"/admin/tasks", map[string]endpoint{http.MethodGet: a.listAll}},
	}
	return a
}

type api struct {
	store    Store
	verifier *Verifier
	log      *slog.Logger
	now      func() time.Time
	routes   []route
}

// route is a path, in which {id} stands for one segment, and what it takes.
// http.ServeMux is not used because it answers some paths by itself: with
// redirects that repeat the path, and with errors that are not ours.
type route struct {
	template string
	methods  map[string]endpoint
}

// call is what an endpoint is given: the request, and what has been proved or found of it.
type call struct {
	*http.Request
	caller Identity
	taskID string // "" where the path has none
}

type endpoint func(w http.ResponseWriter, c call) error

// ServeHTTP implements http.Handler.
func (a *api) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.URL.EscapedPath() == healthPath {
		// Not logged: gateways ask every few seconds, and would bury the rest.
		serveHealth(w, r)
		return
	}
	e := &event{ResponseWriter: w, requestID: requestID(r.Header), start: time.Now()}
	err := a.serveRecovered(e, r)
	if err != nil && e.status == 0 {
		asFailure(err).write(e, e.requestID)
	}
	e.log(a.log, r, err)
	if err != nil && !e.failed() {
		// The answer had begun well: cutting it off is how the other side learns.
		panic(http.ErrAbortHandler)
	}
}

func (a *api) serveRecovered(e *event, r *http.Request) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v\n%s", p, debug.Stack())
		}
	}()
	return a.serve(e, r)
}

// serve answers one request. Who is asking comes before what for: a stranger is
// not told which paths there are.
func (a *api) serve(e *event, r *http.Request) error {
	caller, err := a.verifier.Verify(r.Context(), r.Header)
	if err != nil {
		return err
	}
	e.subject = caller.Subject

	route, taskID, ok := a.find(r.URL.EscapedPath())
	if !ok {
		return &failure{code: codeNotFound}
	}
	e.route = route.template

	method := r.Method
	if method == http.MethodHead {
		method = http.MethodGet // the server leaves the body out
	}
	endpoint, ok := route.methods[method]
	if !ok {
		return &failure{code: codeMethodNotAllowed, allow: route.allow()}
	}
	return endpoint(e, call{Request: r, caller: caller, taskID: taskID})
}

// find compares the path as it was sent. None of ours needs an escape, so that
// a path with one is another path, not another spelling.
func (a *api) find(path string) (found route, taskID string, ok bool) {
	for _, route := range a.routes {
		if id, ok := matchPath(route.template, path); ok {
			return route, id, true
		}
	}
	return route{}, "", false
}

func matchPath(template, path string) (id string, ok bool) {
	before, after, hasID := strings.Cut(template, "{id}")
	if !hasID {
		return "", path == template
	}
	rest, ok := strings.CutPrefix(path, before)
	if !ok {
		return "", false
	}
	id, ok = strings.CutSuffix(rest, after)
	return id, ok && id != "" && !strings.Contains(id, "/")
}

func (rt route) allow() string {
	var methods []string
	for m := range rt.methods {
		methods = append(methods, m)
		if m == http.MethodGet {
			methods = append(methods, http.MethodHead)
		}
	}
	slices.Sort(methods)
	return strings.Join(methods, ", ")
}

// serveHealth says that this process answers. It does not ask the store: one
// that is away is away for all replicas, and "try again in 2 seconds" from each
// of them is a better answer than the gateway's "no healthy target".
func serveHealth(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		f := &failure{code: codeMethodNotAllowed, allow: "GET, HEAD"}
		f.write(w, requestID(r.Header))
		return
	}
	writeBody(w, http.StatusOK, "application/json", map[string]string{"status": "ok"})
}

// requestID returns the ID the gateway gave the request. What does not look
// like one is replaced: it is repeated in answers and in the log.
func requestID(h http.Header) string {
	const maxLength = 128
	ids := h.Values("X-Request-Id")
	if len(ids) == 1 && ids[0] != "" && len(ids[0]) <= maxLength && !strings.ContainsFunc(ids[0], notInID) {
		return ids[0]
	}
	return uuid.NewString()
}

func notInID(r rune) bool {
	letter := 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9'
	return !letter && !strings.ContainsRune("-._~:+/=", r)
}

// event is the record of one request, filled on its way and logged at its end.
// It stands in for the ResponseWriter, from which it learns the status.
type event struct {
	http.ResponseWriter
	start     time.Time
	requestID string
	subject   string
	route     string
	status    int
}

// WriteHeader implements http.ResponseWriter.
func (e *event) WriteHeader(status int) {
	e.status = status
	e.ResponseWriter.WriteHeader(status)
}

// Unwrap lets http.ResponseController find what it controls.
func (e *event) Unwrap() http.ResponseWriter { return e.ResponseWriter }

func (e *event) failed() bool { return e.status >= http.StatusBadRequest }

func (e *event) log(log *slog.Logger, r *http.Request, err error) {
	attrs := []slog.Attr{
		slog.String("request_id", e.requestID),
		slog.String("sub", e.subject),
		slog.String("method", r.Method),
		slog.String("route", e.route), // never the path: it is the client's
		slog.Int("status", e.status),
		slog.Float64("duration_ms", float64(time.Since(e.start).Microseconds())/1000),
	}
	level := slog.LevelInfo
	if err != nil {
		f := asFailure(err)
		attrs = append(attrs, slog.String("code", string(f.code)))
		if f.cause != nil {
			attrs = append(attrs, slog.Any("error", f.cause))
		}
		if e.status >= http.StatusInternalServerError {
			level = slog.LevelError
		}
	}
	// The request's context may have ended; the line is written all the same.
	log.LogAttrs(context.WithoutCancel(r.Context()), level, "request", attrs...)
}
