//go:build linux

package main

import (
	"bytes"
	"context"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"runtime/pprof"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/pprof/profile"
)

func TestMain(m *testing.M) {
	if len(os.Args) == 3 && os.Args[1] == "upstream" { // as the program starts itself
		if err := serveUpstream(os.Args[2]); err != nil {
			os.Exit(1)
		}
	}
	os.Exit(m.Run())
}

func TestMessagesEndWhereTheyEnd(t *testing.T) {
	const answer = "HTTP/1.1 200 OK\r\nDate: x\r\ncontent-length:  5\r\n\r\nhello"
	for cut := range len(answer) {
		var m message
		for range 2 { // and the next on the same connection
			first, done, err := m.next([]byte(answer[:cut]))
			if err != nil || done {
				t.Fatalf("after %d bytes: done %v, %v", cut, done, err)
			}
			again, done, err := m.next([]byte(answer[cut:]))
			if err != nil || !done {
				t.Fatalf("cut at %d: done %v, %v", cut, done, err)
			}
			if got := string(first) + string(again); got != "HTTP/1.1 200 OK" {
				t.Errorf("cut at %d: first line %q", cut, got)
			}
		}
	}
	for _, bad := range []string{
		"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nab",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
		"HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\n",
	} {
		if _, _, err := new(message).next([]byte(bad)); err == nil {
			t.Errorf("%q is taken", bad)
		}
	}
}

// A service that stands still for a while delays all that should have come
// meanwhile, and not only the one request that it holds.
func TestTheOpenLoopCountsWaiting(t *testing.T) {
	held := make(chan struct{})
	served := 0
	addr := serveHTTP(t, func(http.ResponseWriter, *http.Request) { // one connection: one after the other
		if served++; served == 10 {
			<-held
		}
	})
	time.AfterFunc(300*time.Millisecond, func() { close(held) })
	l, err := newLoad(addr, 1, [][]byte{[]byte("GET / HTTP/1.1\r\nHost: x\r\n\r\n")})
	if err != nil {
		t.Fatal(err)
	}
	defer l.close()
	got, err := l.open(t.Context(), 200*time.Millisecond, 1000)
	if err != nil {
		t.Fatal(err)
	}
	late := 0
	for _, d := range got {
		if d > 50*time.Millisecond {
			late++
		}
	}
	if len(got) < 150 || late < len(got)/2 {
		t.Errorf("%d of %d requests were late", late, len(got))
	}
}

func serveHTTP(t *testing.T, h http.HandlerFunc) string {
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return s.Listener.Addr().String()
}

func TestARefusalIsNoResult(t *testing.T) {
	// Once the first second, of warming up, is over. The refusal ends what is left.
	const duration, refusing = 4 * time.Second, 1200 * time.Millisecond
	var first time.Time
	addr := serveHTTP(t, func(w http.ResponseWriter, _ *http.Request) { // one connection: one after the other
		if first.IsZero() {
			first = time.Now()
		} else if time.Since(first) > refusing {
			w.WriteHeader(http.StatusUnauthorized)
		}
	})
	p, err := startProcess(t.TempDir(), "sleep", "sleep", "60")
	if err != nil {
		t.Fatal(err)
	}
	defer p.stop()
	var said bytes.Buffer
	b := &bench{ctx: t.Context(), duration: duration, progress: &said, result: &Result{}}
	row := b.row(&benchCase{name: "x"}, "y")
	if err := b.saturate(&running{process: p, addr: addr}, row, [][]byte{[]byte("GET / HTTP/1.1\r\nHost: x\r\n\r\n")}, 1); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(row.Failure, "401") {
		t.Fatalf("failure %q, figures %v", row.Failure, row.Figures)
	}
	if row.Figures != nil || !strings.Contains(said.String(), "no result") {
		t.Errorf("figures %v, said %q", row.Figures, said.String())
	}
}

func TestRatiosAreOfRounds(t *testing.T) {
	// Twice the work in each round, while the machine slows down by the round.
	got, ok := ratio([]float64{2, 20, 200}, []float64{1, 10, 100})
	if !ok || got != (spread{2, 2, 2}) {
		t.Errorf("%v, %v", got, ok)
	}
	if _, ok := ratio(nil, []float64{1}); ok {
		t.Error("a ratio of nothing")
	}
	if got, _ := spreadOf([]float64{4, 1, 2, 3}); got != (spread{2.5, 1, 4}) {
		t.Errorf("%v", got)
	}
	r := &Result{Rows: []*Row{
		{Case: "get", Name: rowNginx, Figures: map[figure][]float64{cpu: {10}}},
		{Case: "get", Name: rowPortcullis, Figures: map[figure][]float64{cpu: {11}}},
	}}
	var out bytes.Buffer
	r.printGoals(&out)
	if !strings.Contains(out.String(), "MISSED") || strings.Contains(out.String(), "reached") {
		t.Errorf("%s", out.String())
	}
}

// What the README shows is what the file holds.
func TestTheReadmeShowsTheResult(t *testing.T) {
	r, err := readResult("result.json")
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(text), readmeBegin+r.markdown()+readmeEnd) {
		t.Error("README.md does not show cmd/bench/result.json: bench -from cmd/bench/result.json -readme README.md -svg cmd/bench/result.svg")
	}
	plot, err := os.ReadFile("result.svg")
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(plot, r.svg()) {
		t.Error("result.svg does not show result.json")
	}
}

// Everything once, too short to mean something; nothing stays behind.
func TestARunFromEndToEnd(t *testing.T) {
	if testing.Short() {
		t.Skip("builds the gateway")
	}
	for _, name := range []string{"nginx", "haproxy"} {
		if _, err := exec.LookPath(name); err != nil {
			t.Skip(name + " is not installed")
		}
	}
	dir := t.TempDir()
	t.Setenv("TMPDIR", dir)
	gateway := filepath.Join(t.TempDir(), "gateway")
	if out, err := exec.Command("go", "build", "-o", gateway, "portcullis/cmd/gateway").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	kept := filepath.Join(t.TempDir(), "result.json")
	var out, progress bytes.Buffer
	args := []string{"-gateway", gateway, "-rounds", "1", "-duration", "100ms", "-json", kept,
		"-case", "get,upload,download,algorithms,tokens,rules"}
	if err := run(t.Context(), args, &out, &progress); err != nil {
		t.Fatalf("%v\n%s", err, progress.String())
	}
	r, err := readResult(kept)
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range r.Rows {
		if row.Failure != "" || len(row.Figures[throughput]) != 1 {
			t.Errorf("%s, %s: %q, %v", row.Case, row.Name, row.Failure, row.Figures)
		}
	}
	if len(r.Rows) != 19 || !strings.Contains(out.String(), "× nginx, plain") {
		t.Errorf("%d rows\n%s", len(r.Rows), out.String())
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

func TestAStoppedProcessLeavesNothing(t *testing.T) {
	p, err := startProcess(t.TempDir(), "sh", "sh", "-c", "sleep 60 & sleep 60 & wait")
	if err != nil {
		t.Fatal(err)
	}
	for len(p.pids()) < 3 {
		time.Sleep(time.Millisecond)
	}
	all := p.pids()
	p.stop()
	for _, pid := range all {
		for there(pid) { // killed, and the kernel is about to find out
			time.Sleep(time.Millisecond)
		}
	}
}

func there(pid int) bool {
	stat, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	return err == nil && !strings.Contains(string(stat), ") Z ")
}

func TestFlags(t *testing.T) {
	for _, bad := range [][]string{{"-case", "nothing"}, {"-rounds", "0"}, {"what"}, {"-from", "/nonexistent"}, {"-gateway", "/nonexistent"}} {
		var out bytes.Buffer
		if err := run(context.Background(), bad, &out, &out); err == nil {
			t.Errorf("%v is accepted", bad)
		}
	}
}

// What was taken in several measurements is one profile, and does not tell where the
// binary was.
func TestProfilesAreMerged(t *testing.T) {
	var requested []string
	addr := serveHTTP(t, func(w http.ResponseWriter, r *http.Request) {
		requested = append(requested, r.URL.String())
		if err := pprof.StartCPUProfile(w); err != nil {
			t.Error(err)
		}
		for begin := time.Now(); time.Since(begin) < 200*time.Millisecond; {
			_ = bytes.Repeat([]byte("work "), 1000)
		}
		pprof.StopCPUProfile()
	})
	p := &profiler{file: filepath.Join(t.TempDir(), "profile")}
	for range 2 {
		if err := p.begin(t.Context(), &running{admin: addr}, 2*time.Second)(); err != nil {
			t.Fatal(err)
		}
	}
	if err := p.begin(t.Context(), &running{}, time.Second)(); err != nil { // nginx
		t.Error(err)
	}
	if want := "/debug/pprof/profile?seconds=2"; len(requested) != 2 || requested[0] != want {
		t.Errorf("requested %q", requested)
	}
	if err := p.write(); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(p.file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	all, err := profile.Parse(f)
	if err != nil {
		t.Fatal(err)
	}
	if one := p.taken[0].DurationNanos; all.DurationNanos <= one || len(all.Sample) == 0 {
		t.Errorf("%d samples of %d ns, beside %d ns of one", len(all.Sample), all.DurationNanos, one)
	}
	for _, m := range all.Mapping {
		if m.File != "" {
			t.Errorf("tells of %s", m.File)
		}
	}
}

func TestAMachineSaysHowFarItsProcessorsAreApart(t *testing.T) {
	if ns := apart(); (ns > 0) != (runtime.NumCPU() > 1) {
		t.Errorf("%d processors, %v ns", runtime.NumCPU(), ns)
	}
	m := Machine{Processors: 2, Model: "Model", Kernel: "6.1", Go: "go1.26", Nginx: "1.22", HAProxy: "2.6"}
	const rest = ", Linux 6.1, Go 1.26, nginx 1.22, HAProxy 2.6"
	if got := m.String(); got != "2 processors (Model)"+rest {
		t.Errorf("before anything was measured: %s", got)
	}
	m.Apart = []float64{163.4, 40.2, 42}
	if got := m.String(); got != "2 processors (Model) that are 42 ns apart [40–163]"+rest {
		t.Error(got)
	}
}
