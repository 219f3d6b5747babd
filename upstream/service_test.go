package upstream

import (
	"bytes"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// service is a running task manager with an issuer of its own.
type service struct {
	*httptest.Server
	t      testing.TB
	issuer *issuer
	store  Store
	log    *logBuffer
}

func newService(t testing.TB) *service {
	t.Helper()
	return newServiceOver(t, newBolt(t))
}

func newServiceOver(t testing.TB, store Store) *service {
	t.Helper()
	s := &service{t: t, issuer: newIssuer(t), store: store, log: &logBuffer{}}
	log := slog.New(slog.NewJSONHandler(s.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	s.Server = httptest.NewServer(NewHandler(store, s.issuer.verifier(t), log))
	t.Cleanup(s.Close)
	return s
}

func newBolt(t testing.TB) *BoltStore {
	t.Helper()
	s, err := OpenBolt(filepath.Join(t.TempDir(), "data", "tasks.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

// user sends requests as one subject. Its zero changes are those of [claims].
type user struct {
	*service
	assertion string
}

func (s *service) as(sub string) user { return user{s, s.issuer.assertion(sub, nil)} }

func (s *service) with(sub string, claims jsonMap) user {
	return user{s, s.issuer.assertion(sub, claims)}
}

// reply is an answer, read whole.
type reply struct {
	status int
	header http.Header
	body   []byte
	took   time.Duration
}

// do sends a request; a body that is not "" is sent as JSON.
func (u user) do(method, path, body string) reply {
	u.t.Helper()
	h := http.Header{}
	if body != "" {
		h.Set("Content-Type", "application/json")
	}
	return u.doWith(method, path, h, strings.NewReader(body))
}

func (u user) doWith(method, path string, h http.Header, body io.Reader) reply {
	u.t.Helper()
	h.Set(assertionHeader, u.assertion)
	return u.send(method, path, h, body)
}

// send sends a request with these header fields and no others.
func (s *service) send(method, path string, h http.Header, body io.Reader) reply {
	s.t.Helper()
	r, err := http.NewRequestWithContext(s.t.Context(), method, s.URL, body)
	if err != nil {
		s.t.Fatal(err)
	}
	r.URL.Opaque = path // as written, not as net/url would
	r.Header = h
	start := time.Now()
	res, err := s.Client().Do(r)
	if err != nil {
		s.t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	return reply{res.StatusCode, res.Header, b, time.Since(start)}
}

// create makes a task and returns it.
func (u user) create(title string) Task {
	u.t.Helper()
	body, err := json.Marshal(jsonMap{"title": title})
	if err != nil {
		u.t.Fatal(err)
	}
	r := u.do(http.MethodPost, "/tasks", string(body))
	r.want(u.t, http.StatusCreated)
	return decode[Task](u.t, r)
}

func (r reply) want(t testing.TB, status int) {
	t.Helper()
	if r.status != status {
		t.Fatalf("status %d, want %d; body %s", r.status, status, r.body)
	}
}

// problem is an answer of problem details.
type problem struct {
	Type      string       `json:"type"`
	Title     string       `json:"title"`
	Status    int          `json:"status"`
	Detail    string       `json:"detail"`
	Code      string       `json:"code"`
	RequestID string       `json:"request_id"`
	Errors    []FieldError `json:"errors"`
}

// wantProblem fails the test unless r is complete problem details with that status and code.
func (r reply) wantProblem(t testing.TB, status int, c code) problem {
	t.Helper()
	r.want(t, status)
	if got := r.header.Get("Content-Type"); got != "application/problem+json" {
		t.Errorf("Content-Type %q, want application/problem+json", got)
	}
	p := decode[problem](t, r)
	if p.Code != string(c) || p.Status != status || p.Type == "" || p.Title == "" || p.Detail == "" || p.RequestID == "" {
		t.Errorf("problem %+v, want code %s, status %d and no empty member", p, c, status)
	}
	if status == http.StatusServiceUnavailable && r.header.Get("Retry-After") == "" {
		t.Error("a 503 without Retry-After")
	}
	if status == http.StatusUnauthorized && r.header.Get("WWW-Authenticate") == "" {
		t.Error("a 401 without WWW-Authenticate")
	}
	return p
}

// decode reads an answer that must have no members but those of T.
func decode[T any](t testing.TB, r reply) T {
	t.Helper()
	var v T
	d := json.NewDecoder(bytes.NewReader(r.body))
	d.DisallowUnknownFields()
	if err := d.Decode(&v); err != nil {
		t.Fatalf("%v in %s", err, r.body)
	}
	return v
}

// stored returns everything in the store that belongs to the default tenant.
func (s *service) stored() []Task {
	s.t.Helper()
	ts, err := s.store.ListByTenant(s.t.Context(), "", Page{Limit: 1000})
	if err != nil {
		s.t.Fatal(err)
	}
	return ts
}

// logBuffer collects log lines.
type logBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// testLog sends log lines to the test's own output.
func testLog(t testing.TB) *slog.Logger { return slog.New(slog.NewTextHandler(t.Output(), nil)) }
