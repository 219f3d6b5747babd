package policy

import (
	"encoding/json"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/google/go-cmp/cmp"
)

func aRecord() Record {
	return Record{
		Time: time.Date(2026, 3, 1, 9, 30, 0, 120_000_000, time.UTC), RequestID: "r-1", Tenant: "acme",
		Subject: RecordSubject{UserID: "u-1", Authenticated: true, Roles: []string{"user"}},
		Method:  "GET", Path: "/tasks/ä<b>\u2028", Route: "/tasks", Effect: Allow, Rule: "p, role:user, /tasks/:id, GET, allow", Policy: "0123456789ab",
	}
}

func line(t *testing.T, r Record) string {
	t.Helper()
	b, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	return string(b) + "\n"
}

// The words of the log are a contract with whoever reads it.
func TestARecordOnTheWire(t *testing.T) {
	r := aRecord()
	r.Path = "/tasks/9"
	want := `{"time":"2026-03-01T09:30:00.12Z","request_id":"r-1","tenant":"acme",` +
		`"subject":{"user_id":"u-1","authenticated":true,"roles":["user"]},"method":"GET","path":"/tasks/9","route":"/tasks",` +
		`"effect":"allow","rule":"p, role:user, /tasks/:id, GET, allow","policy":"0123456789ab"}` + "\n"
	if diff := cmp.Diff(want, line(t, r)); diff != "" {
		t.Error(diff)
	}
	stranger := Record{Time: r.Time, RequestID: "r-2", Subject: RecordSubject{Roles: []string{}}, Method: "GET", Path: "/", Effect: Deny, Policy: "0123456789ab"}
	want = `{"time":"2026-03-01T09:30:00.12Z","request_id":"r-2","subject":{"authenticated":false,"roles":[]},"method":"GET","path":"/","route":"","effect":"deny","policy":"0123456789ab"}` + "\n"
	if diff := cmp.Diff(want, line(t, stranger)); diff != "" {
		t.Error(diff)
	}
}

func TestRecordsAreReadAsTheyWereWritten(t *testing.T) {
	first, second := aRecord(), aRecord()
	second.RequestID, second.Effect = "r-2", Deny
	log := line(t, first) + strings.Replace(line(t, second), "{", `{"later":{"version":2},`, 1)
	var got []Record
	for r, err := range ReadRecords("log", iotest.OneByteReader(strings.NewReader(log))) {
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, r)
	}
	if diff := cmp.Diff([]Record{first, second}, got); diff != "" {
		t.Error(diff)
	}
}

func TestBadLinesOfALogAreToldAndPassedOver(t *testing.T) {
	good := line(t, aRecord())
	long := strings.Replace(aRecord().Path, "ä", strings.Repeat("ä", maxRecordBytes), 1)
	for _, c := range []struct{ name, bad, want string }{
		{"no JSON", "GET /tasks allowed\n", "invalid character 'G'"},
		{"an empty line", "\n", "unexpected end of JSON input"},
		{"two objects", strings.TrimSuffix(good, "\n") + good, "after top-level value"},
		{"another type", `{"time":1}` + "\n", "not a JSON string"},
		{"no effect", `{"method":"GET","path":"/"}` + "\n", `the effect is ""`},
		{"an unknown effect", `{"method":"GET","path":"/","effect":"Allow"}` + "\n", `the effect is "Allow"`},
		{"no method", `{"path":"/","effect":"deny"}` + "\n", "there is no method"},
		{"no path", `{"method":"GET","effect":"deny"}` + "\n", "there is no path"},
		{"what a terminal would obey", strings.Replace(good, "r-1", `\u001b[2J`, 1), "control character"},
		{"and in a role", strings.Replace(good, `["user"]`, `["user","\u009b"]`, 1), "control character"},
		{"invalid UTF-8", strings.Replace(good, "tasks", "t\xffasks", 1), "invalid UTF-8"},
		{"a line without measure", `{"path":"` + long + "\"}\n", "longer than 1048576 bytes"},
	} {
		var records int
		var problems []error
		for r, err := range ReadRecords("log", strings.NewReader(good+c.bad+good)) {
			if err != nil {
				problems = append(problems, err)
				continue
			}
			if r.RequestID != "r-1" {
				t.Errorf("%s: %+v", c.name, r)
			}
			records++
		}
		if records != 2 || len(problems) != 1 {
			t.Errorf("%s: %d records, %v", c.name, records, problems)
			continue
		}
		var p Problem
		if !errors.As(problems[0], &p) || p.Line != 2 || p.File != "log" || !strings.Contains(p.Message, c.want) {
			t.Errorf("%s: %v", c.name, problems[0])
		}
		if text := problems[0].Error(); !strings.HasPrefix(text, "log:2: error: ") || len(text) > 300 {
			t.Errorf("%s: %s", c.name, text)
		}
	}
}

func TestTheLastLineOfALogMayBeUnderWay(t *testing.T) {
	good := line(t, aRecord())
	records := 0
	for _, err := range ReadRecords("log", strings.NewReader(good+good[:len(good)/2])) {
		if err != nil {
			t.Error(err)
		}
		records++
	}
	if records != 1 {
		t.Errorf("%d records", records)
	}
}

func TestALogThatCannotBeReadOnIsAnError(t *testing.T) {
	away := errors.New("away")
	good := line(t, aRecord())
	var last error
	n := 0
	for _, err := range ReadRecords("log", io.MultiReader(strings.NewReader(good+good[:9]), iotest.ErrReader(away))) {
		last = err
		n++
	}
	if n != 2 || !errors.Is(last, away) || !strings.HasPrefix(last.Error(), "log:2: ") {
		t.Errorf("%d, %v", n, last)
	}
}
