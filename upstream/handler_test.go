package upstream

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
)

func TestTaskLivesItsLife(t *testing.T) {
	t.Parallel()
	s := newService(t)
	ann := s.with("ann", jsonMap{"tenant": "acme"})

	r := ann.do("POST", "/tasks", `{"title":" \u2003Buy milk\n","description":"2 l\nand eggs"}`)
	r.want(t, http.StatusCreated)
	created := decode[Task](t, r)
	if id, err := uuid.Parse(created.ID); err != nil || id.Version() != 7 {
		t.Errorf("ID %q is no UUIDv7", created.ID)
	}
	if got, want := r.header.Get("Location"), "/tasks/"+created.ID; got != want {
		t.Errorf("Location %q, want %q", got, want)
	}
	want := Task{
		ID: created.ID, Owner: "ann", Tenant: "acme", Title: "Buy milk", Description: "2 l\nand eggs",
		CreatedAt: created.CreatedAt, UpdatedAt: created.CreatedAt,
	}
	if diff := cmp.Diff(want, created); diff != "" {
		t.Error(diff)
	}
	if age := time.Since(created.CreatedAt); age < -time.Second || age > time.Minute {
		t.Errorf("created %v ago", age)
	}
	path := "/tasks/" + created.ID

	r = ann.do("GET", path, "")
	r.want(t, http.StatusOK)
	if diff := cmp.Diff(want, decode[Task](t, r)); diff != "" {
		t.Error(diff)
	}

	r = ann.do("PATCH", path, `{"title":"Buy oat milk","done":true}`)
	r.want(t, http.StatusOK)
	patched := decode[Task](t, r)
	if patched.Title != "Buy oat milk" || !patched.Done || patched.CompletedAt == nil || patched.Description != want.Description {
		t.Errorf("patched to %+v", patched)
	}

	r = ann.do("PATCH", path, `{"done":false,"description":""}`)
	r.want(t, http.StatusOK)
	if reopened := decode[Task](t, r); reopened.Done || reopened.CompletedAt != nil || reopened.Description != "" {
		t.Errorf("reopened to %+v", reopened)
	}

	r = ann.do("POST", path+"/complete", "")
	r.want(t, http.StatusOK)
	completed := decode[Task](t, r)
	if !completed.Done || completed.CompletedAt == nil {
		t.Errorf("completed to %+v", completed)
	}
	time.Sleep(2 * time.Millisecond) // so that another time would be another time
	r = ann.do("POST", path+"/complete", "")
	r.want(t, http.StatusOK)
	if diff := cmp.Diff(completed, decode[Task](t, r)); diff != "" {
		t.Errorf("completing it again changed it: %s", diff)
	}

	r = ann.do("DELETE", path, "")
	r.want(t, http.StatusNoContent)
	if len(r.body) != 0 {
		t.Errorf("204 with a body: %s", r.body)
	}
	for _, method := range []string{"GET", "DELETE"} {
		ann.do(method, path, "").wantProblem(t, 404, codeTaskNotFound)
	}
}

func TestTaskIsItsOwnersAndNobodyElses(t *testing.T) {
	t.Parallel()
	s := newService(t)
	task := s.as("ann").create("private")
	free, err := uuid.NewV7()
	if err != nil {
		t.Fatal(err)
	}
	id, missing := task.ID, free.String()
	strangers := map[string]user{
		"another user":                  s.as("bob"),
		"an administrator":              s.with("root", jsonMap{"roles": []string{"admin"}}),
		"the same ID in another tenant": s.with("ann", jsonMap{"tenant": "acme"}),
	}
	for name, who := range strangers {
		for _, c := range []struct{ method, suffix, body string }{
			{"GET", "", ""}, {"PATCH", "", `{"title":"stolen"}`}, {"POST", "/complete", ""}, {"DELETE", "", ""},
		} {
			theirs := who.do(c.method, "/tasks/"+id+c.suffix, c.body).wantProblem(t, 404, codeTaskNotFound)
			nobodys := who.do(c.method, "/tasks/"+missing+c.suffix, c.body).wantProblem(t, 404, codeTaskNotFound)
			theirs.RequestID, nobodys.RequestID = "", ""
			if diff := cmp.Diff(nobodys, theirs); diff != "" {
				t.Errorf("%s, %s: a foreign task differs from a missing one: %s", name, c.method, diff)
			}
		}
		if got := decode[page](t, who.do("GET", "/tasks", "")); len(got.Items) != 0 {
			t.Errorf("%s sees %v", name, got.Items)
		}
	}
	if diff := cmp.Diff([]Task{task}, s.stored()); diff != "" {
		t.Error(diff)
	}
}

func TestAdministratorSeesTheTasksOfTheTenant(t *testing.T) {
	t.Parallel()
	s := newService(t)
	acme := jsonMap{"tenant": "acme"}
	a1, b1 := s.with("ann", acme).create("a1"), s.with("bob", acme).create("b1")
	a2 := s.with("ann", acme).create("a2")
	s.as("ann").create("of another tenant")
	root := s.with("root", jsonMap{"tenant": "acme", "roles": []string{"user", "admin"}})

	for query, want := range map[string][]Task{
		"":                   {a2, b1, a1},
		"?owner=ann":         {a2, a1},
		"?owner=ann&limit=1": {a2},
		"?owner=nobody":      {},
		"?owner=%2A":         {},
	} {
		r := root.do("GET", "/admin/tasks"+query, "")
		r.want(t, http.StatusOK)
		if diff := cmp.Diff(want, decode[page](t, r).Items); diff != "" {
			t.Errorf("%s: %s", query, diff)
		}
	}
	for name, roles := range map[string]any{
		"no roles": nil, "another role": []string{"user"}, "another case": []string{"Admin"}, "the policy file's spelling": []string{"role:admin"},
		"a list in a string": []string{"user,admin"}, "an empty role": []string{""},
	} {
		t.Run("not with "+name, func(t *testing.T) {
			who := s.with("ann", jsonMap{"tenant": "acme", "roles": roles, "permissions": []string{"admin"}})
			who.do("GET", "/admin/tasks", "").wantProblem(t, 403, codeRoleRequired)
		})
	}
}

func TestListingIsCutIntoPages(t *testing.T) {
	t.Parallel()
	s := newService(t)
	ann := s.as("ann")
	if r := ann.do("GET", "/tasks", ""); string(r.body) != `{"items":[],"next_cursor":""}` {
		t.Errorf("an empty listing is %s", r.body)
	}
	var want []string // newest first
	for n := range 25 {
		want = append([]string{ann.create(fmt.Sprint(n)).ID}, want...)
	}
	if got := decode[page](t, ann.do("GET", "/tasks", "")); len(got.Items) != defaultPageLimit {
		t.Errorf("%d tasks on a page by default, want %d", len(got.Items), defaultPageLimit)
	}
	if got := decode[page](t, ann.do("GET", "/tasks?limit=25", "")); len(got.Items) != 25 || got.NextCursor != "" {
		t.Errorf("%d tasks and cursor %q, want all 25 and none", len(got.Items), got.NextCursor)
	}
	// Between two pages others are created: none of those begun with is skipped or comes twice.
	var got []string
	path := "/tasks?limit=10&cursor="
	for pages := 0; ; pages++ {
		p := decode[page](t, ann.do("GET", path, ""))
		for _, task := range p.Items {
			got = append(got, task.ID)
		}
		if p.NextCursor == "" {
			break
		}
		if pages > 5 {
			t.Fatal("the pages do not end")
		}
		ann.create("meanwhile")
		path = "/tasks?limit=10&cursor=" + p.NextCursor
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %d tasks, want these %d in order", len(got), len(want))
	}
}

func TestListingSelectsWhatIsDone(t *testing.T) {
	t.Parallel()
	ann := newService(t).as("ann")
	open1, closed, open2 := ann.create("1"), ann.create("2"), ann.create("3")
	ann.do("POST", "/tasks/"+closed.ID+"/complete", "").want(t, http.StatusOK)
	for query, want := range map[string][]string{
		"": {open2.ID, closed.ID, open1.ID}, "?done=true": {closed.ID}, "?done=false": {open2.ID, open1.ID},
	} {
		got := []string{}
		for _, task := range decode[page](t, ann.do("GET", "/tasks"+query, "")).Items {
			got = append(got, task.ID)
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s: got %v, want %v", query, got, want)
		}
	}
}

const echo = "EcHo" // no answer may hold it

func TestBadQueryIsRefused(t *testing.T) {
	t.Parallel()
	s := newService(t)
	s.as("ann").create("x")
	root := s.with("root", jsonMap{"roles": []string{"admin"}})
	good := encodeCursor(s.stored()[0].ID)
	for query, field := range map[string]string{
		"limit=0":                    "limit",
		"limit=101":                  "limit",
		"limit=-1":                   "limit",
		"limit=%2B1":                 "limit",
		"limit=01":                   "limit",
		"limit=1e1":                  "limit",
		"limit=":                     "limit",
		"limit=99999999999999999999": "limit",
		"limit=" + echo:              "limit",
		"limit=1&limit=2":            "limit",
		"cursor=" + echo:             "cursor",
		"cursor=" + good + "=":       "cursor",
		"cursor=" + good + "%0A":     "cursor",
		"cursor=" + good[:22]:        "cursor",
		"cursor=" + good + "AAAA":    "cursor",
		"cursor=" + b64(append([]byte{2}, make([]byte, 16)...)): "cursor",
		"cursor=" + b64(append([]byte{1}, make([]byte, 16)...)): "cursor",
		"cursor=" + s.stored()[0].ID:                            "cursor",
		"cursor=" + good + "&cursor=" + good:                    "cursor",
		"done=1":                                                "done",
		"done=True":                                             "done",
		"done=":                                                 "done",
		"done=true&done=true":                                   "done",
		"owner=ann":                                             "query", // the listing of one's own knows no owner
		echo + "=1":                                             "query",
		"Limit=1":                                               "query",
		"limit=1;done=true":                                     "query",
		"limit=%zz":                                             "query",
	} {
		r := root.do("GET", "/tasks?"+query, "")
		p := r.wantProblem(t, 400, codeValidationFailed)
		if len(p.Errors) != 1 || p.Errors[0].Field != field || p.Errors[0].Message == "" {
			t.Errorf("%s: errors %v, want one of %s", query, p.Errors, field)
		}
		if strings.Contains(string(r.body), echo) {
			t.Errorf("%s: the answer repeats it: %s", query, r.body)
		}
	}
	for _, query := range []string{"owner=", "owner=a&owner=b", "owner=%ff", "owner=" + strings.Repeat("x", 256), "done=true"} {
		root.do("GET", "/admin/tasks?"+query, "").wantProblem(t, 400, codeValidationFailed)
	}
}

// badBody is a body no operation takes, and how it is refused.
type badBody struct {
	body   string
	status int
	code   code
	field  string // "": no errors are listed
}

func badBodies() map[string]badBody {
	notJSON := func(body string) badBody { return badBody{body, 400, codeInvalidJSON, ""} }
	wrong := func(body, field string) badBody { return badBody{body, 400, codeValidationFailed, field} }
	return map[string]badBody{
		"nothing":                       notJSON(" "),
		"text":                          notJSON(echo),
		"half an object":                notJSON(`{"title":"` + echo),
		"an object and more":            notJSON(`{"title":"a"} ` + echo),
		"two objects":                   notJSON(`{"title":"a"}{"title":"b"}`),
		"an object and a NUL":           notJSON("{\"title\":\"a\"}\x00"),
		"a byte order mark":             notJSON("\ufeff{\"title\":\"a\"}"),
		"a comma too many":              notJSON(`{"title":"a",}`),
		"a comment":                     notJSON(`{"title":"a"/**/}`),
		"an array":                      notJSON(`[{"title":"a"}]`),
		"a string":                      notJSON(`"title"`),
		"null":                          notJSON(`null`),
		"a raw control character":       notJSON("{\"title\":\"a\nb\"}"),
		"invalid UTF-8 in a value":      notJSON("{\"title\":\"a\xff\"}"),
		"invalid UTF-8 in a name":       notJSON("{\"t\xc3itle\":\"a\"}"),
		"an overlong UTF-8 sequence":    notJSON("{\"title\":\"\xc0\xaf\"}"),
		"UTF-16":                        notJSON("\xff\xfe{\x00}\x00"),
		"a high surrogate alone":        notJSON(`{"title":"a\ud800"}`),
		"a low surrogate alone":         notJSON(`{"title":"\udc00\ud800"}`),
		"two high surrogates":           notJSON(`{"title":"\ud83d\ud83d\ude00"}`),
		"deep arrays":                   notJSON(strings.Repeat("[", 60_000)),
		"deep arrays, closed":           notJSON(strings.Repeat("[", 30_000) + strings.Repeat("]", 30_000)),
		"deep arrays as the title":      wrong(`{"title":`+strings.Repeat("[", 5_000)+strings.Repeat("]", 5_000)+`}`, "title"),
		"deep objects":                  notJSON(strings.Repeat(`{"title":`, 7_000)),
		"an object as the title":        wrong(`{"title":{"$ne":null}}`, "title"),
		"an array as the title":         wrong(`{"title":["a"]}`, "title"),
		"a number as the title":         wrong(`{"title":1}`, "title"),
		"a number beyond all numbers":   wrong(`{"title":1e999999}`, "title"),
		"null as the title":             wrong(`{"title":null}`, "title"),
		"true as the title":             wrong(`{"title":true}`, "title"),
		"a number as the description":   wrong(`{"title":"a","description":0}`, "description"),
		"null as the description":       wrong(`{"title":"a","description":null}`, "description"),
		"the title twice":               wrong(`{"title":"a","title":"`+echo+`"}`, "title"),
		"the title twice, once escaped": wrong(`{"title":"a","t\u0069tle":"b"}`, "title"),
		"an unknown member":             wrong(`{"title":"a","`+echo+`":1}`, "body"),
		"an unknown member, nested":     wrong(`{"title":"a","x":{"y":[1]}}`, "body"),
		"the title in another case":     wrong(`{"title":"a","Title":"b"}`, "body"),
		"a member of the answer":        wrong(`{"title":"a","owner":"bob"}`, "body"),
		"an empty title":                wrong(`{"title":""}`, "title"),
		"a blank title":                 wrong(`{"title":" \t\n\u2003"}`, "title"),
		"a title of 201 characters":     wrong(`{"title":"`+strings.Repeat("é", 201)+`"}`, "title"),
		"a line break in the title":     wrong(`{"title":"a\nb"}`, "title"),
		"a NUL in the title":            wrong(`{"title":"a\u0000b"}`, "title"),
		"a C1 control in the title":     wrong(`{"title":"a\u0085b"}`, "title"),
		"a NUL in the description":      wrong(`{"title":"a","description":"\u0000"}`, "description"),
		"a long description":            wrong(`{"title":"a","description":"`+strings.Repeat("x", 10_001)+`"}`, "description"),
		"65 KiB":                        {`{"title":"a"}` + strings.Repeat(" ", maxBodyBytes), 413, codeTooLarge, ""},
	}
}

func TestBadBodyIsRefusedAndNothingIsStored(t *testing.T) {
	t.Parallel()
	s := newService(t)
	ann := s.as("ann")
	path := "/tasks/" + ann.create("as it was").ID
	before := s.stored()

	onCreate, onUpdate := badBodies(), badBodies()
	onCreate["no title"] = badBody{`{}`, 400, codeValidationFailed, "title"}
	onCreate["a description only"] = badBody{`{"description":"a"}`, 400, codeValidationFailed, "title"}
	onCreate["done"] = badBody{`{"title":"a","done":true}`, 400, codeValidationFailed, "body"}
	onUpdate["no members"] = badBody{`{}`, 400, codeValidationFailed, "body"}
	onUpdate["a string as done"] = badBody{`{"done":"true"}`, 400, codeValidationFailed, "done"}
	onUpdate["a number as done"] = badBody{`{"title":"a","done":1}`, 400, codeValidationFailed, "done"}
	onUpdate["null as done"] = badBody{`{"done":null}`, 400, codeValidationFailed, "done"}

	check := func(method, path string, bodies map[string]badBody) {
		for name, c := range bodies {
			t.Run(method+" with "+name, func(t *testing.T) {
				r := ann.do(method, path, c.body)
				p := r.wantProblem(t, c.status, c.code)
				switch {
				case c.field == "" && p.Errors != nil:
					t.Errorf("errors %v, want none", p.Errors)
				case c.field != "" && (len(p.Errors) != 1 || p.Errors[0].Field != c.field || p.Errors[0].Message == ""):
					t.Errorf("errors %v, want one of %s", p.Errors, c.field)
				}
				if strings.Contains(string(r.body), echo) {
					t.Errorf("the answer repeats the request: %s", r.body)
				}
				if diff := cmp.Diff(before, s.stored()); diff != "" {
					t.Fatalf("it was stored: %s", diff)
				}
			})
		}
	}
	check("POST", "/tasks", onCreate)
	check("PATCH", path, onUpdate)
	if strings.Contains(s.log.String(), echo) {
		t.Error("the log holds bodies")
	}

	t.Run("all that is wrong is said at once", func(t *testing.T) {
		p := ann.do("PATCH", path, `{"title":"","description":1,"done":"x"}`).wantProblem(t, 400, codeValidationFailed)
		fields := map[string]bool{}
		for _, e := range p.Errors {
			fields[e.Field] = true
		}
		if !maps.Equal(fields, map[string]bool{"title": true, "description": true, "done": true}) {
			t.Errorf("errors %v, want all three", p.Errors)
		}
	})
}

func TestGoodBodyAtTheLimitsIsTaken(t *testing.T) {
	t.Parallel()
	ann := newService(t).as("ann")
	for name, body := range map[string]string{
		"200 characters of 4 bytes":        `{"title":"` + strings.Repeat("𝄞", 200) + `"}`,
		"200 characters and spaces around": `{"title":"  ` + strings.Repeat("x", 200) + `  "}`,
		"10,000 characters of 4 bytes":     `{"title":"a","description":"` + strings.Repeat("𝄞", 10_000) + `"}`,
		"a surrogate pair":                 `{"title":"\ud83d\ude00"}`,
		"an escaped backslash before u":    `{"title":"\\ud800 \\\\udc00"}`,
		"a replacement character":          `{"title":"\ufffd ` + "\ufffd" + `"}`,
		"64 KiB":                           `{"title":"a"}` + strings.Repeat(" ", maxBodyBytes-len(`{"title":"a"}`)),
		"names that are escaped":           `{"\u0074itle":"a"}`,
		"markup, which is text":            `{"title":"<script>alert(1)</script> $where 'or 1=1"}`,
	} {
		r := ann.do("POST", "/tasks", body)
		if r.status != http.StatusCreated {
			t.Errorf("%s: %d %s", name, r.status, r.body)
			continue
		}
		var sent struct{ Title, Description string }
		if err := json.Unmarshal([]byte(body), &sent); err != nil {
			t.Fatal(err)
		}
		got := decode[Task](t, r)
		if got.Title != strings.TrimSpace(sent.Title) || got.Description != sent.Description {
			t.Errorf("%s: stored as %q, %q", name, got.Title, got.Description)
		}
	}
}

func TestBodyMustBeDeclaredAsJSON(t *testing.T) {
	t.Parallel()
	s := newService(t)
	for name, h := range map[string]http.Header{
		"nothing":            {},
		"text":               {"Content-Type": {"text/plain"}},
		"a form":             {"Content-Type": {"application/x-www-form-urlencoded"}},
		"something like it":  {"Content-Type": {"application/jsonp"}},
		"another charset":    {"Content-Type": {"application/json; charset=utf-16"}},
		"a broken parameter": {"Content-Type": {"application/json; charset"}},
		"two types":          {"Content-Type": {"application/json", "text/plain"}},
		"a list of types":    {"Content-Type": {"application/json, text/plain"}},
		"a content encoding": {"Content-Type": {"application/json"}, "Content-Encoding": {"gzip"}},
	} {
		r := s.as("ann").doWith("POST", "/tasks", h, strings.NewReader(`{"title":"a"}`))
		if r.status != http.StatusUnsupportedMediaType {
			t.Errorf("%s: %d %s", name, r.status, r.body)
			continue
		}
		r.wantProblem(t, 415, codeMediaType)
	}
	if got := s.stored(); len(got) != 0 {
		t.Errorf("stored %v", got)
	}
	for _, good := range []string{"application/json", "Application/JSON", "application/json; charset=UTF-8", `application/json;charset="utf-8"`} {
		r := s.as("ann").doWith("POST", "/tasks", http.Header{"Content-Type": {good}}, strings.NewReader(`{"title":"a"}`))
		r.want(t, http.StatusCreated)
	}
}

func TestBodyOfUnknownLengthIsBoundedToo(t *testing.T) {
	t.Parallel()
	s := newService(t)
	h := http.Header{"Content-Type": {"application/json"}}
	endless := io.MultiReader(strings.NewReader(`{"title":"`), &repeat{'x', 10 << 20})
	s.as("ann").doWith("POST", "/tasks", h, endless).wantProblem(t, 413, codeTooLarge)
	if got := s.stored(); len(got) != 0 {
		t.Errorf("stored %v", got)
	}
}

// repeat is a reader of n times the same byte, and no *strings.Reader, whose
// length the client would announce.
type repeat struct {
	b byte
	n int
}

func (r *repeat) Read(p []byte) (int, error) {
	if r.n == 0 {
		return 0, io.EOF
	}
	n := min(len(p), r.n)
	for i := range p[:n] {
		p[i] = r.b
	}
	r.n -= n
	return n, nil
}

func TestUnknownPathIsNotFound(t *testing.T) {
	t.Parallel()
	s := newService(t)
	id := s.as("ann").create("x").ID
	before := s.stored()
	for _, path := range []string{
		"/", "/" + echo, "/tasks/", "//tasks", "/tasks//", "/Tasks", "/%74asks", "/tasks%2F" + id, "/tasks/" + id + "/", "/tasks/" + id + "/" + echo,
		"/tasks/../tasks", "/./tasks", "/tasks/" + id + "/complete/", "/admin", "/admin/tasks/", "/admin/tasks/" + id, "/healthz/", "/tasks;x", "/tasks%00",
	} {
		r := s.as("ann").do("GET", path, "")
		if r.status != http.StatusNotFound {
			t.Errorf("%s: %d %s", path, r.status, r.body)
			continue
		}
		r.wantProblem(t, 404, codeNotFound)
		if strings.Contains(string(r.body), echo) {
			t.Errorf("the answer repeats the path: %s", r.body)
		}
	}
	for _, other := range []string{
		strings.ToUpper(id), strings.ReplaceAll(id, "-", ""), "{" + id + "}", "urn:uuid:" + id, "1", echo, "%20" + id, id + "%00", "..", "%2e%2e",
	} {
		for _, c := range [][2]string{{"GET", ""}, {"DELETE", ""}, {"POST", "/complete"}} {
			r := s.as("ann").do(c[0], "/tasks/"+other+c[1], "")
			if r.status != http.StatusNotFound || strings.Contains(string(r.body), echo) {
				t.Errorf("%s %s: %d %s", c[0], other, r.status, r.body)
			}
		}
	}
	if diff := cmp.Diff(before, s.stored()); diff != "" {
		t.Error(diff)
	}
}

func TestWrongMethodIsRefusedWithThoseThatAreRight(t *testing.T) {
	t.Parallel()
	s := newService(t)
	ann := s.as("ann")
	id := ann.create("x").ID
	before := s.stored()
	for path, allow := range map[string]string{
		"/tasks": "GET, HEAD, POST", "/tasks/" + id: "DELETE, GET, HEAD, PATCH", "/tasks/" + id + "/complete": "POST", "/admin/tasks": "GET, HEAD", "/healthz": "GET, HEAD",
	} {
		for _, method := range []string{"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PROPFIND", "get"} {
			if slices.Contains(strings.Split(allow, ", "), method) {
				continue
			}
			r := ann.do(method, path, "")
			if got := r.header.Get("Allow"); r.status != http.StatusMethodNotAllowed || got != allow {
				t.Errorf("%s %s: %d with Allow %q, want 405 with %q", method, path, r.status, got, allow)
			}
			if method != http.MethodHead {
				r.wantProblem(t, 405, codeMethodNotAllowed)
			}
		}
	}
	if diff := cmp.Diff(before, s.stored()); diff != "" {
		t.Error(diff)
	}
	get, head := ann.do("GET", "/tasks", ""), ann.do("HEAD", "/tasks", "")
	if head.status != http.StatusOK || len(head.body) != 0 || head.header.Get("Content-Length") != get.header.Get("Content-Length") {
		t.Errorf("HEAD: %d %v", head.status, head.header)
	}
}

func TestHealthNeedsNoAssertion(t *testing.T) {
	t.Parallel()
	s := newService(t)
	s.issuer.Close()
	if err := s.store.Close(); err != nil {
		t.Fatal(err)
	}
	r := s.send("GET", "/healthz", http.Header{}, nil)
	if r.status != http.StatusOK || string(r.body) != `{"status":"ok"}` {
		t.Errorf("%d %s", r.status, r.body)
	}
}

func TestStoreThatIsAwayIsUnavailability(t *testing.T) {
	t.Parallel()
	t.Run("closed", func(t *testing.T) {
		t.Parallel()
		s := newService(t)
		ann := s.with("ann", jsonMap{"roles": []string{"admin"}})
		id := ann.create("x").ID
		if err := s.store.Close(); err != nil {
			t.Fatal(err)
		}
		for _, c := range [][3]string{
			{"POST", "/tasks", `{"title":"a"}`}, {"GET", "/tasks", ""}, {"GET", "/tasks/" + id, ""}, {"PATCH", "/tasks/" + id, `{"done":true}`},
			{"POST", "/tasks/" + id + "/complete", ""}, {"DELETE", "/tasks/" + id, ""}, {"GET", "/admin/tasks", ""}, {"GET", "/admin/tasks?owner=ann", ""},
		} {
			r := ann.do(c[0], c[1], c[2])
			r.wantProblem(t, 503, codeStoreUnavailable)
			if strings.Contains(string(r.body), "database") {
				t.Errorf("the answer holds the driver's text: %s", r.body)
			}
		}
		if !strings.Contains(s.log.String(), "database not open") {
			t.Error("the log does not say why")
		}
	})
	t.Run("stuck", func(t *testing.T) {
		t.Parallel()
		store := newBolt(t)
		store.writer <- struct{}{} // somebody writes and does not end
		s := newServiceOver(t, store)
		r := s.as("ann").do("POST", "/tasks", `{"title":"a"}`)
		r.wantProblem(t, 503, codeStoreUnavailable)
		if r.took > storeTimeout+time.Second {
			t.Errorf("took %v", r.took)
		}
		s.as("ann").do("GET", "/tasks", "").want(t, http.StatusOK) // who only reads is not held up
	})
}

func TestEveryRequestIsLoggedInOneLine(t *testing.T) {
	t.Parallel()
	s := newService(t)
	ann := s.as("ann")
	secretBody := `{"title":"secret plan"}`
	id := ann.create("x").ID
	type line struct {
		Level      string  `json:"level"`
		Msg        string  `json:"msg"`
		RequestID  string  `json:"request_id"`
		Sub        string  `json:"sub"`
		Method     string  `json:"method"`
		Route      string  `json:"route"`
		Status     int     `json:"status"`
		DurationMS float64 `json:"duration_ms"`
		Code       string  `json:"code"`
	}
	cases := []struct {
		who                user
		method, path, body string
		want               line
	}{
		{ann, "POST", "/tasks", secretBody, line{"INFO", "request", "", "ann", "POST", "/tasks", 201, 0, ""}},
		{ann, "GET", "/tasks/" + id + "?secret=1", "", line{"INFO", "request", "", "ann", "GET", "/tasks/{id}", 200, 0, ""}},
		{ann, "POST", "/tasks/" + id + "/complete", "", line{"INFO", "request", "", "ann", "POST", "/tasks/{id}/complete", 200, 0, ""}},
		{ann, "GET", "/secret", "", line{"INFO", "request", "", "ann", "GET", "", 404, 0, "not_found"}},
		{ann, "GET", "/admin/tasks", "", line{"INFO", "request", "", "ann", "GET", "/admin/tasks", 403, 0, "role_required"}},
		{user{s, "secret"}, "GET", "/tasks", "", line{"INFO", "request", "", "", "GET", "", 401, 0, "assertion_invalid"}},
	}
	for n, c := range cases {
		already := len(s.log.String())
		c.want.RequestID = fmt.Sprint("id-", n)
		h := http.Header{"X-Request-Id": {c.want.RequestID}, "Content-Type": {"application/json"}}
		r := c.who.doWith(c.method, c.path, h, strings.NewReader(c.body))
		var lines []string
		for len(lines) == 0 { // the line is written after the answer
			if lines = strings.Split(strings.TrimSuffix(s.log.String()[already:], "\n"), "\n"); lines[0] == "" {
				lines = nil
				time.Sleep(time.Millisecond)
			}
		}
		if len(lines) != 1 {
			t.Errorf("%d lines for one request: %s", len(lines), lines)
		}
		var got line
		if err := json.Unmarshal([]byte(lines[0]), &got); err != nil {
			t.Fatal(err)
		}
		if got.DurationMS <= 0 {
			t.Errorf("duration %v", got.DurationMS)
		}
		got.DurationMS = 0
		if diff := cmp.Diff(c.want, got); diff != "" {
			t.Error(diff)
		}
		if c.want.Code != "" && decode[problem](t, r).RequestID != c.want.RequestID {
			t.Errorf("the answer has another request ID: %s", r.body)
		}
	}
	if log := s.log.String(); strings.Contains(log, "secret") || strings.Contains(log, ann.assertion[:30]) {
		t.Errorf("the log holds a body, a path or an assertion: %s", log)
	}
}

func TestRequestIDThatIsNoneIsReplaced(t *testing.T) {
	t.Parallel()
	s := newService(t)
	for name, ids := range map[string][]string{
		"none": nil, "an empty one": {""}, "two": {"a", "b"}, "a long one": {strings.Repeat("a", 129)}, "markup": {"<b>" + echo}, "a space": {"a b"}, "not ASCII": {"é"},
	} {
		h := http.Header{}
		if ids != nil {
			h["X-Request-Id"] = ids
		}
		r := s.as("ann").doWith("GET", "/nowhere", h, nil)
		if p := r.wantProblem(t, 404, codeNotFound); slices.Contains(ids, p.RequestID) || len(p.RequestID) != 36 {
			t.Errorf("%s: %q", name, p.RequestID)
		}
	}
}

func TestAnswersAreNotForCaches(t *testing.T) {
	t.Parallel()
	ann := newService(t).as("ann")
	for _, r := range []reply{ann.do("GET", "/tasks", ""), ann.do("GET", "/nowhere", "")} {
		if r.header.Get("Cache-Control") != "no-store" || r.header.Get("X-Content-Type-Options") != "nosniff" {
			t.Errorf("%v", r.header)
		}
	}
}

func TestBodyThatBreaksOffStoresNothing(t *testing.T) {
	t.Parallel()
	s := newService(t)
	conn, err := new(net.Dialer).DialContext(t.Context(), "tcp", s.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	body := `{"title":"whole, but not as long as announced"}`
	fmt.Fprintf(conn, "POST /tasks HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n%s: %s\r\nContent-Length: %d\r\n\r\n%s",
		assertionHeader, s.as("ann").assertion, len(body)+10, body)
	if err := conn.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	res, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusBadRequest {
		t.Errorf("status %d, want 400", res.StatusCode)
	}
	if got := s.stored(); len(got) != 0 {
		t.Errorf("stored %v", got)
	}
}

// brokenStore panics in every method.
type brokenStore struct{ Store }

func TestPanicIsOneRequestsFailure(t *testing.T) {
	t.Parallel()
	s := newServiceOver(t, brokenStore{})
	s.as("ann").do("GET", "/tasks", "").wantProblem(t, 500, codeInternal)
	s.as("ann").do("GET", "/nowhere", "").wantProblem(t, 404, codeNotFound)
	if !strings.Contains(s.log.String(), "panic: ") {
		t.Error("the log does not say so")
	}
}

func TestEveryCodeHasItsAnswer(t *testing.T) {
	t.Parallel()
	for c, p := range problems {
		if c == "" || strings.Trim(string(c), "abcdefghijklmnopqrstuvwxyz_") != "" {
			t.Errorf("%q is not snake_case", c)
		}
		if http.StatusText(p.status) == "" || p.status < 400 || p.detail == "" {
			t.Errorf("%s: %+v", c, p)
		}
	}
}
