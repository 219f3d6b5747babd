package gateway

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"math/rand/v2"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
)

// metricsOf gathers what the gateway has registered.
func metricsOf(t *testing.T, e *testGateway) map[string]*dto.MetricFamily {
	t.Helper()
	families, err := e.metrics.Gather()
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]*dto.MetricFamily{}
	for _, f := range families {
		all[f.GetName()] = f
	}
	return all
}

func countSeries(all map[string]*dto.MetricFamily) (n int) {
	for _, f := range all {
		n += len(f.GetMetric())
	}
	return n
}

// What a client makes up must not become a label: the series would be without end,
// and their memory with them.
func TestAScanAddsNoSeries(t *testing.T) {
	e := startGateway(t)
	token := "Authorization: Bearer " + e.token("uma", "user") + "\r\n"
	methods := append(methods(), "TRACE", "CONNECT", "get", "BREW")
	random := rand.New(rand.NewPCG(1, 2))
	word := func() string { return fmt.Sprintf("scan%x", random.Uint32()) }
	request := func(i int) string {
		place := []string{"/", "/public/", "/tasks/", "/auth/", "/auth/users/", "/.well-known/", "//", "/%2e/", "/admin/"}[i%9]
		method, fields, version := methods[i/9%len(methods)], "", "HTTP/1.1"
		switch i / 9 % 7 {
		case 0:
			method = strings.ToUpper(word())
		case 1:
			fields = token
		case 2:
			fields = "Authorization: Bearer " + word() + "\r\n"
		case 3:
			fields = "X-Forwarded-For: " + word() + "\r\nX-Request-Id: " + word() + "\r\n"
		case 4:
			version = "HTTP/1.0"
		}
		return fmt.Sprintf("%s %s%s?%s %s\r\nHost: %s.example\r\n%s\r\n", method, place, word(), word(), version, word(), fields)
	}
	scan := func(from, to int) {
		t.Helper()
		var c *badClient
		for i := from; i < to; i++ {
			if c == nil {
				c = e.dial()
			}
			raw := request(i)
			c.say(raw)
			name, _, _ := strings.Cut(raw, " ")
			res, err := http.ReadResponse(c.in, &http.Request{Method: name})
			if err != nil {
				t.Fatalf("%q: %v", raw, err)
			}
			if _, err := io.Copy(io.Discard, res.Body); err != nil {
				t.Fatal(err)
			}
			if res.Close {
				_ = c.Close()
				c = nil
			}
		}
	}
	// Every kind of request has been there once, and then nothing is new.
	kinds := 9 * len(methods) * 7
	scan(0, kinds)
	before := countSeries(metricsOf(t, e))
	scan(kinds, kinds+10_000)
	all := metricsOf(t, e)
	if after := countSeries(all); after != before {
		t.Errorf("%d series, %d before", after, before)
	}
	for name, f := range all {
		for _, m := range f.GetMetric() {
			for _, l := range m.GetLabel() {
				if strings.Contains(strings.ToLower(l.GetValue()), "scan") {
					t.Errorf("%s has the label %s=%q", name, l.GetName(), l.GetValue())
				}
			}
		}
	}
}

func TestMetricsAreInBaseUnits(t *testing.T) {
	e := startGateway(t)
	e.send(get("/public/x"))
	e.send(get("/tasks/x"))
	e.gateway.Refused(errors.New("no"))
	for name, f := range metricsOf(t, e) {
		if !regexp.MustCompile(`^portcullis_[a-z_]+[a-z]$`).MatchString(name) {
			t.Errorf("%s: not one of ours", name)
		}
		if (f.GetType() == dto.MetricType_COUNTER) != strings.HasSuffix(name, "_total") {
			t.Errorf("%s is a %s", name, f.GetType())
		}
		if regexp.MustCompile(`_(ms|millis|milliseconds|minutes|kib|kb|mb|percent)(_|$)`).MatchString(name) {
			t.Errorf("%s: not a base unit", name)
		}
		if !strings.HasSuffix(f.GetHelp(), ".") {
			t.Errorf("%s: its help is no sentence: %q", name, f.GetHelp())
		}
	}
}

func TestGaugesShowWhatGoesOn(t *testing.T) {
	asked, answer := make(chan struct{}), make(chan struct{})
	e := startBadUpstream(t, "http", false, func(_ int, b *badConn) {
		for b.head() != "" {
			asked <- struct{}{}
			<-answer
			b.say(okAnswer)
		}
	})
	gauge := func(name string) float64 {
		t.Helper()
		f := metricsOf(t, e)[name]
		if f == nil || len(f.GetMetric()) != 1 {
			t.Fatalf("%s: %v", name, f)
		}
		return f.GetMetric()[0].GetGauge().GetValue()
	}
	expect := func(connections, active, idle, healthy, draining float64) {
		t.Helper()
		waitUntil(t, func() bool {
			return gauge("portcullis_client_connections") == connections && gauge("portcullis_upstream_requests_active") == active &&
				gauge("portcullis_upstream_connections_idle") == idle && gauge("portcullis_upstream_healthy") == healthy && gauge("portcullis_draining") == draining
		})
	}
	expect(0, 0, 0, 1, 0)
	c := e.dial()
	c.say(get("/public/x"))
	<-asked
	expect(1, 1, 0, 1, 0)
	answer <- struct{}{}
	c.expect(badNews{status: 200, body: "ok"})
	expect(1, 0, 1, 1, 0)
	e.gateway.state.Load().upstreams["up"].targets[0].down.Store(true)
	e.gateway.Drain()
	expect(1, 0, 1, 0, 1)
	_ = c.Close()
	expect(0, 0, 1, 0, 1)
}

// cmd/gateway/README.md documents each field of the access record.
func TestReadmeHasTheFieldsOfTheAccessRecord(t *testing.T) {
	var out bytes.Buffer
	r := newRecorder(slog.New(slog.NewJSONHandler(&out, nil)), nil, prometheus.NewRegistry())
	r.record(&event{
		start: time.Now(), requestID: "a", clientIP: "b", method: "GET", path: "/c", route: "/d", userID: "e", sessionID: "f", tenant: "g",
		rule: "h", upstream: "i", exchange: exchange{target: "j", attempts: 2}, status: 500, bytesOut: 1, code: codeInternal, cause: errors.New("k"),
	})
	var record map[string]any
	if err := json.Unmarshal(out.Bytes(), &record); err != nil {
		t.Fatal(err)
	}
	readme, err := os.ReadFile("../cmd/gateway/README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, table, _ := strings.Cut(string(readme), "<!-- access: begin -->")
	table, _, _ = strings.Cut(table, "<!-- access: end -->")
	var documented []string
	for _, row := range regexp.MustCompile("(?m)^\\| (`[^|]*) \\|").FindAllStringSubmatch(table, -1) {
		for _, name := range regexp.MustCompile("`([a-z_]+)`").FindAllStringSubmatch(row[1], -1) {
			documented = append(documented, name[1])
		}
	}
	slices.Sort(documented)
	if fields := slices.Sorted(maps.Keys(record)); !slices.Equal(fields, documented) {
		t.Errorf("a record has   %v\ncmd/gateway/README.md has %v", fields, documented)
	}
}

// One request is one record, whatever it says, and the record holds no secret.
func TestTheLogCannotBeForgedOrFlooded(t *testing.T) {
	e := startGateway(t, func(c *StateConfig) { c.TrustedProxies = prefixes(t, "127.0.0.0/8") })
	var out lockedLog
	buffer := NewLogBuffer(&out)
	e.gateway.recorder.access = NewAccessLog(buffer, true)
	token := e.token("uma", "user")
	const secret = "s3cr3t"
	post := func(path, body string) string {
		return fmt.Sprintf("POST %s HTTP/1.1\r\nHost: h\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", path, len(body), body)
	}
	forged := `\n{"level":"ERROR","msg":"forged"}` + "\u2028\x1b[2J"
	requests := []string{
		get("/public/" + strings.Repeat("a", 12<<10)),
		get("/public/%0a%7B%22msg%22:%22forged%22%7D?access_token=" + secret),
		get("/public/x", "X-Request-Id: "+forged, "X-Forwarded-For: "+forged, "User-Agent: "+forged, "Referer: /"+secret),
		get("/public/x\u2028forged"),
		get("/tasks/x?token="+secret, "Authorization: Bearer "+secret, "Cookie: a="+secret),
		get("/tasks/x", "Authorization: Basic "+secret),
		get("/tasks/x", "Authorization: Bearer "+token, "Authorization: Bearer "+secret),
		get("/tasks/x", "Authorization: Bearer "+token),
		secret + " / HTTP/1.1\r\nHost: h\r\n\r\n",
		"GET /" + secret + "\x00 HTTP/1.1\r\nHost: h\r\n\r\n",
		"GET / HTTP/1.1\r\nHost: h\r\n" + secret + "\r\n\r\n",
		post("/auth/login", `{"username":"`+secret+`","password":"`+secret+`"}`),
		post("/auth/login", `{"username":"`+secret+`","password":"`+secret),
		post("/auth/refresh", `{"refresh_token":"`+secret+`"}`),
	}
	for _, raw := range requests {
		e.send(raw)
	}
	buffer.Close()
	records := 0
	for lines := bufio.NewScanner(strings.NewReader(out.String())); lines.Scan(); records++ {
		var record struct{ Msg, Path string }
		if err := json.Unmarshal(lines.Bytes(), &record); err != nil || record.Msg != "request" {
			t.Errorf("%v in %s", err, lines.Text())
		}
		if len(lines.Text()) > longestLogged+1024 {
			t.Errorf("a record of %d bytes", len(lines.Text()))
		}
	}
	if records != len(requests) {
		t.Errorf("%d records of %d requests\n%s", records, len(requests), out.String())
	}
	for _, hidden := range []string{secret, token} {
		if strings.Contains(out.String(), hidden) {
			t.Errorf("the log has %s:\n%s", hidden, out.String())
		}
	}
}
