package gateway

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"portcullis/identity"
	"portcullis/policy"
)

// openLog opens a decision log in a file of its own.
func openLog(t *testing.T, change func(*DecisionLogConfig)) (*DecisionLog, *lockedLog) {
	t.Helper()
	cfg := DecisionLogConfig{File: filepath.Join(t.TempDir(), "decisions.jsonl"), MaxBytes: 1 << 20, Keep: 2, SampleAllows: 1, Buffer: 1024}
	if change != nil {
		change(&cfg)
	}
	said := &lockedLog{}
	l, err := OpenDecisionLog(cfg, slog.New(slog.NewTextHandler(said, nil)), prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	return l, said
}

// counted is what a counter has come to.
func counted(c prometheus.Collector) float64 {
	r := prometheus.NewRegistry()
	r.MustRegister(c)
	families, err := r.Gather()
	if err != nil || len(families) == 0 {
		return -1
	}
	return families[0].GetMetric()[0].GetCounter().GetValue()
}

// finish writes what waits and closes the log.
func (l *DecisionLog) finish() {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	l.Run(ctx, nil)
}

func readLog(t *testing.T, file string) []policy.Record {
	t.Helper()
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	var all []policy.Record
	for r, err := range policy.ReadRecords(file, f) {
		if err != nil {
			t.Error(err)
		}
		all = append(all, r)
	}
	return all
}

// decided is a request as note sees it.
func decided(method, path string, p *identity.Principal) *request {
	return &request{method: method, path: path, target: path, principal: p, event: &event{start: time.Now(), requestID: newRequestID()}}
}

func TestEveryDecisionIsLogged(t *testing.T) {
	l, _ := openLog(t, nil)
	e := startGateway(t, func(*StateConfig) {})
	e.gateway.decisions = l // before the first request
	token := e.token("ana", "user")
	auth := "Authorization: Bearer " + token
	for _, raw := range []string{
		get("/tasks/1?secret=hunter2", auth),
		get("/tasks/secret", auth),
		get("/tasks/1"),
		get("/public/a%22%7D%5D"),
		get("/auth/me", auth),
		get("/auth/nothing", auth),
		get("/public//x"), // never decided
		strings.Replace(get("/tasks/2", auth, "Destination: /tasks/secret"), "GET", "MOVE", 1),
	} {
		e.send(raw)
	}
	l.finish()
	revision := e.gateway.Policy().Revision()
	const ana, stranger = "[user] true", "[] false"
	want := []string{
		"GET /tasks/secret /tasks deny p, role:user, /tasks/secret, *, deny " + ana,
		"GET /tasks/1 /tasks deny  " + stranger,
		"GET /tasks/1 /tasks allow p, role:user, /tasks/*, *, allow " + ana,
		"GET /public/a\"}] /public allow p, anonymous, /public/*, *, allow " + stranger,
		"GET /auth/me /auth/me allow p, authenticated, /auth/*, *, allow " + ana,
		"GET /auth/nothing  allow p, authenticated, /auth/*, *, allow " + ana,
		"MOVE /tasks/2 /tasks allow p, role:user, /tasks/*, *, allow " + ana, // one request, two decisions
		"MOVE /tasks/secret /tasks deny p, role:user, /tasks/secret, *, deny " + ana,
	}
	var got []string
	for _, r := range readLog(t, l.cfg.File) {
		got = append(got, fmt.Sprintf("%s %s %s %s %s %v %v", r.Method, r.Path, r.Route, r.Effect, r.Rule, r.Subject.Roles, r.Subject.Authenticated))
		if r.Policy != revision || !validRequestID([]byte(r.RequestID)) || time.Since(r.Time) > time.Minute || (r.Subject.UserID != "") != r.Subject.Authenticated {
			t.Errorf("%+v", r)
		}
	}
	slices.Sort(got) // permissions and denials wait for themselves
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	source, err := os.ReadFile(l.cfg.File)
	if err != nil || bytes.Contains(source, []byte("hunter2")) || bytes.Contains(source, []byte(token)) || bytes.Count(source, []byte("\n")) != len(want) {
		t.Errorf("the log says what it should not, or on more lines than decisions: %v\n%s", err, source)
	}
	if info, err := os.Stat(l.cfg.File); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
}

// The gateway refuses such paths before; the log does not rely on it.
func TestALineIsALineWhateverIsInIt(t *testing.T) {
	l, _ := openLog(t, nil)
	l.note(&State{}, decided("GET", "/a\n{\"effect\":\"allow\"}\r\u2028\xff\x00", nil), "", policy.Caller{Roles: []string{"a\",\"b\n"}}, policy.Decision{})
	l.finish()
	source, err := os.ReadFile(l.cfg.File)
	var got policy.Record
	if err != nil || bytes.Count(source, []byte("\n")) != 1 || json.Unmarshal(source, &got) != nil {
		t.Fatalf("%v\n%s", err, source)
	}
	if got.Path != "/a\n{\"effect\":\"allow\"}\r\u2028\uFFFD\x00" || len(got.Subject.Roles) != 1 || got.Effect != policy.Deny {
		t.Errorf("%+v", got)
	}
}

func TestPermissionsAreSampledAndDenialsNever(t *testing.T) {
	for sample, want := range map[float64][2]int{0: {0, 0}, 0.1: {60, 140}, 1: {1000, 1000}} {
		l, _ := openLog(t, func(c *DecisionLogConfig) { c.SampleAllows = sample })
		st := &State{}
		for range 1000 {
			l.note(st, decided("GET", "/x", nil), "", policy.Caller{}, policy.Decision{Allowed: true})
			l.note(st, decided("GET", "/x", nil), "", policy.Caller{}, policy.Decision{})
		}
		if n := len(l.allows); n < want[0] || n > want[1] {
			t.Errorf("of 1000 permissions %d are logged at %v", n, sample)
		}
		if n := len(l.denials); n != 1000 {
			t.Errorf("of 1000 denials %d are logged at %v", n, sample)
		}
	}
}

// Nobody writes: what a flood can take is bounded, and permissions take nothing
// from denials.
func TestWhatDoesNotFitIsDroppedAndCounted(t *testing.T) {
	l, _ := openLog(t, func(c *DecisionLogConfig) { c.Buffer = 64 })
	st := &State{}
	for range 100 {
		l.note(st, decided("GET", "/x", nil), "", policy.Caller{}, policy.Decision{Allowed: true})
	}
	l.note(st, decided("GET", "/x", nil), "", policy.Caller{}, policy.Decision{})
	if got := counted(l.droppedAny); got != 36 {
		t.Errorf("%v permissions were dropped, want 36", got)
	}
	if got := counted(l.droppedDenial); got != 0 || len(l.denials) != 1 {
		t.Errorf("%v denials were dropped", got)
	}
	l.finish()
	if got := l.waiting.Load(); got != 0 {
		t.Errorf("%d bytes wait in an empty buffer", got)
	}
	long := "/" + strings.Repeat("x", 1<<20) // as a query, it is kept with the path
	for range 40 {
		r := decided("GET", "/x", nil)
		r.target = "/x?" + long
		l.note(st, r, "", policy.Caller{}, policy.Decision{})
	}
	if got := len(l.denials); got >= 17 {
		t.Errorf("%d paths of a mebibyte wait", got)
	}
}

func TestTheFileIsRotatedWithinBounds(t *testing.T) {
	l, said := openLog(t, func(c *DecisionLogConfig) { c.MaxBytes, c.Keep = 64<<10, 2 })
	st := &State{}
	for range 3000 {
		l.note(st, decided("GET", "/x", nil), "", policy.Caller{}, policy.Decision{})
		var batch bytes.Buffer
		l.gather(&batch)
		l.write(&batch)
	}
	l.finish()
	entries, err := os.ReadDir(filepath.Dir(l.cfg.File))
	if err != nil || len(entries) != 3 {
		t.Errorf("files: %v, %v", entries, err)
	}
	for _, entry := range entries {
		file := filepath.Join(filepath.Dir(l.cfg.File), entry.Name())
		if info, err := os.Stat(file); err != nil || info.Size() > 64<<10 || info.Size() == 0 {
			t.Errorf("%s: %v, %v", file, info.Size(), err)
		}
		readLog(t, file) // whole lines
	}
	if said.String() != "" {
		t.Error(said.String())
	}
}

func TestAFullDiskCostsDecisionsAndIsSaidOnce(t *testing.T) {
	if _, err := os.Stat("/dev/full"); err != nil {
		t.Skip("there is no /dev/full")
	}
	l, said := openLog(t, nil)
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	good := l.file.file
	l.file.file = full
	one := func() {
		l.note(&State{}, decided("GET", "/x", nil), "", policy.Caller{}, policy.Decision{})
		var batch bytes.Buffer
		l.gather(&batch)
		l.write(&batch)
	}
	for range 10 {
		one()
	}
	if got := counted(l.lost); got != 10 {
		t.Errorf("%v are counted as lost, want 10", got)
	}
	if n := strings.Count(said.String(), "decisions are lost"); n != 1 {
		t.Errorf("said %d times:\n%s", n, said.String())
	}
	l.file.file = good
	one()
	l.finish()
	if n := len(readLog(t, l.cfg.File)); n != 1 || !strings.Contains(said.String(), "written again") {
		t.Errorf("%d decisions after the disk is free again; %s", n, said.String())
	}
}

func TestALineCutOffByACrashSpoilsNoOther(t *testing.T) {
	l, _ := openLog(t, func(c *DecisionLogConfig) {
		if err := os.WriteFile(c.File, []byte(`{"time":"2026-`), 0o600); err != nil {
			t.Fatal(err)
		}
	})
	l.note(&State{}, decided("GET", "/x", nil), "", policy.Caller{}, policy.Decision{})
	l.finish()
	source, err := os.ReadFile(l.cfg.File)
	if lines := strings.Split(string(source), "\n"); err != nil || len(lines) != 3 || !strings.HasPrefix(lines[1], `{"time":"`) {
		t.Errorf("%v\n%s", err, source)
	}
}

func TestTheFileIsOpenedAnew(t *testing.T) {
	l, _ := openLog(t, nil)
	reopen, ctx := make(chan os.Signal), t.Context()
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() { l.Run(ctx, reopen); close(done) }()
	note := func() {
		l.note(&State{}, decided("GET", "/x", nil), "", policy.Caller{}, policy.Decision{})
	}
	note()
	reopen <- syscall.SIGHUP // received only after the loop is back from what it did
	if err := os.Rename(l.cfg.File, l.cfg.File+".old"); err != nil {
		t.Fatal(err)
	}
	reopen <- syscall.SIGHUP
	note()
	cancel()
	<-done
	if old, now := len(readLog(t, l.cfg.File+".old")), len(readLog(t, l.cfg.File)); old+now != 2 || now == 0 {
		t.Errorf("%d decisions in the old file and %d in the new", old, now)
	}
}

func TestALogThatCannotBeOpenedIsAnError(t *testing.T) {
	dir := t.TempDir()
	fifo := filepath.Join(dir, "fifo")
	if err := errors.Join(os.Mkdir(filepath.Join(dir, "directory"), 0o700), syscall.Mkfifo(fifo, 0o600), os.WriteFile(filepath.Join(dir, "file"), nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	for _, file := range []string{"directory", "fifo", "file/below"} {
		_, err := OpenDecisionLog(DecisionLogConfig{File: filepath.Join(dir, file), Buffer: 1}, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
		if err == nil {
			t.Errorf("%s: no error", file)
		}
	}
}

func BenchmarkNote(b *testing.B) {
	l := &DecisionLog{denials: make(chan decision, 64), allows: make(chan decision, 64), sampled: 1<<64 - 1}
	go func() {
		for d := range l.allows {
			l.waiting.Add(-d.held)
		}
	}()
	l.droppedAny = prometheus.NewCounter(prometheus.CounterOpts{Name: "dropped"})
	st, r := &State{}, decided("GET", "/tasks/1", nil)
	b.ReportAllocs()
	for b.Loop() {
		l.note(st, r, "/x", policy.Caller{}, policy.Decision{Allowed: true})
	}
	close(l.allows)
}
