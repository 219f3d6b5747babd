package gateway

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"portcullis/policy"
)

const candidatePolicy = testPolicy + `
p, anonymous, /admin/*,       GET, allow
p, role:user, /tasks/archive, *,   deny
`

// shadowed starts a gateway with a candidate beside its policy, and operators.
func shadowed(t *testing.T, candidate string) (*testGateway, *httptest.Server) {
	t.Helper()
	e := startGateway(t, func(c *StateConfig) {
		c.Shadow = &Shadow{File: "candidate.csv", Policy: mustParsePolicy(t, candidate)}
	})
	server := httptest.NewServer(e.gateway.AdminHandler(prometheus.NewRegistry()))
	t.Cleanup(server.Close)
	return e, server
}

func report(t *testing.T, server *httptest.Server) ShadowReport {
	t.Helper()
	res, err := http.Get(server.URL + "/policy/shadow")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	var r ShadowReport
	if err := json.NewDecoder(res.Body).Decode(&r); err != nil || res.StatusCode != 200 {
		t.Fatal(res.Status, err)
	}
	return r
}

func TestAShadowCountsWhatItWouldChangeAndChangesNothing(t *testing.T) {
	e, server := shadowed(t, candidatePolicy)
	plain := startGateway(t)
	requests := []string{"/tasks/1", "/tasks/archive", "/tasks/secret", "/admin/x", "/public/x", "/nowhere"}
	for _, g := range []*testGateway{e, plain} {
		token := "Authorization: Bearer " + g.token("ana", "user")
		for _, path := range requests {
			g.send(get(path, token))
			g.send(get(path))
		}
	}
	heads := func(g *testGateway) (all []string) {
		for _, head := range g.requests() {
			line, _, _ := strings.Cut(head, "\r\n")
			all = append(all, line)
		}
		return all
	}
	if got, want := heads(e), heads(plain); strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("with a shadow the upstream saw %v, without it %v", got, want)
	}
	r := report(t, server)
	if r.Same != 9 || r.WouldAllow != 2 || r.WouldDeny != 1 || r.Unacknowledged != 2 || len(r.Recent) != 3 {
		t.Errorf("%+v", r)
	}
	first := r.Groups[0]
	if first.Direction != "would_allow" || first.Count != 2 || first.RunningRule != "" || first.CandidateRule != "p, anonymous, /admin/*, GET, allow" ||
		first.Example.Path != "/admin/x" || first.Example.Roles[0] != "user" || first.Example.UserID == "" {
		t.Errorf("%+v", first)
	}
	second := r.Groups[1]
	if second.Direction != "would_deny" || second.RunningRule != "p, role:user, /tasks/*, *, allow" || second.CandidateRule != "p, role:user, /tasks/archive, *, deny" {
		t.Errorf("%+v", second)
	}
	if newest := r.Recent[0]; newest.Path != "/admin/x" || newest.Authenticated || newest.Group != first.ID || r.Recent[2].Path != "/tasks/archive" {
		t.Errorf("%+v", r.Recent)
	}
}

func TestAShadowThatPanicsIsReportedAndLeftAlone(t *testing.T) {
	e, server := shadowed(t, candidatePolicy)
	asked := 0
	e.gateway.state.Load().shadow.decide = func(policy.Caller, string, string) policy.Decision { asked++; panic("a defect") }
	for range 3 {
		if res, _ := e.send(get("/public/x")); res.StatusCode != 200 {
			t.Errorf("the answer is %s", res.Status)
		}
	}
	if r := report(t, server); !strings.Contains(r.Problem, "a defect") || asked != 1 {
		t.Errorf("asked %d times; %+v", asked, r)
	}
}

func TestAShadowThatCannotBeReadIsReported(t *testing.T) {
	e := startGateway(t, func(c *StateConfig) { c.Shadow = &Shadow{File: "candidate.csv", Problem: "candidate.csv:1: wrong"} })
	server := httptest.NewServer(e.gateway.AdminHandler(prometheus.NewRegistry()))
	defer server.Close()
	if res, _ := e.send(get("/public/x")); res.StatusCode != 200 {
		t.Errorf("the answer is %s", res.Status)
	}
	if r := report(t, server); r.Problem != "candidate.csv:1: wrong" || r.Candidate != "candidate.csv" || r.Same != 0 {
		t.Errorf("%+v", r)
	}
}

// A stranger who asks for whatever they like takes no more memory than others.
func TestWhatAShadowRemembersIsBounded(t *testing.T) {
	var rules strings.Builder
	for i := range 2 * maxGroups {
		fmt.Fprintf(&rules, "p, anonymous, /%d, GET, allow\n", i)
	}
	c := newComparison(&Shadow{Policy: mustParsePolicy(t, rules.String())}, mustParsePolicy(t, "p, anonymous, /x, GET, allow"))
	long := mustParsePolicy(t, "p, anonymous, /long/*, GET, allow")
	for i := range 2 * maxGroups {
		c.ask(decided("GET", fmt.Sprintf("/%d", i), nil), policy.Caller{}, policy.Decision{})
	}
	c.decide = long.Decide
	for range 10 {
		c.ask(decided("GET", "/long/"+strings.Repeat("x", 1<<20), nil), policy.Caller{}, policy.Decision{})
	}
	r := c.report()
	if len(r.Groups) > maxGroups+2 || len(r.Recent) != maxDisagreements || r.WouldAllow != 2*maxGroups+10 {
		t.Errorf("%d groups, %d recent of %d", len(r.Groups), len(r.Recent), r.WouldAllow)
	}
	if n := len(r.Recent[0].Path); n > 2*maxShadowPath {
		t.Errorf("a path of %d bytes is kept", n)
	}
	if r.Recent[0].Group != elsewhere(wouldAllow).ID() || r.Recent[maxDisagreements-1].Path != "/1010" {
		t.Errorf("the newest is of %s, the oldest %s", r.Recent[0].Group, r.Recent[maxDisagreements-1].Path)
	}
	// What is beyond the groups objects, too.
	for _, g := range r.Groups {
		if g.ID == elsewhere(wouldAllow).ID() && g.Count == maxGroups+10 {
			return
		}
	}
	t.Error("the rest is in no group")
}

func TestWhatWasSeenOutlivesAReloadThatIsAboutSomethingElse(t *testing.T) {
	e, server := shadowed(t, candidatePolicy)
	e.send(get("/admin/x"))
	swap := func(change func(*StateConfig)) {
		next := e.config
		change(&next)
		state, err := NewState(next)
		if err != nil {
			t.Fatal(err)
		}
		e.gateway.Swap(state)
	}
	swap(func(c *StateConfig) { c.Routes = nil })
	if r := report(t, server); r.WouldAllow != 1 {
		t.Errorf("forgotten: %+v", r)
	}
	swap(func(c *StateConfig) {
		c.Shadow = &Shadow{File: "candidate.csv", Policy: mustParsePolicy(t, candidatePolicy+"# another\n")}
	})
	if r := report(t, server); r.WouldAllow != 0 || len(r.Groups) != 0 {
		t.Errorf("of another candidate: %+v", r)
	}
	e.send(get("/admin/x"))
	swap(func(c *StateConfig) { c.Policy = mustParsePolicy(t, testPolicy+"# another\n") })
	if r := report(t, server); r.WouldAllow != 0 {
		t.Errorf("beside another policy: %+v", r)
	}
}

func TestOnlyOperatorsAcknowledge(t *testing.T) {
	e, server := shadowed(t, candidatePolicy)
	e.send(get("/admin/x"))
	before := report(t, server)
	body := fmt.Sprintf(`{"candidate_revision":%q,"groups":[%q]}`, before.CandidateRevision, before.Groups[0].ID)
	address := strings.TrimPrefix(server.URL, "http://")
	ask := func(body string, header map[string]string) (int, string) {
		t.Helper()
		req, err := http.NewRequest("POST", server.URL+"/policy/shadow/acknowledge", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", "application/json")
		for name, value := range header {
			req.Header.Set(name, value)
		}
		if host := header["Host"]; host != "" {
			req.Host = host
		}
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = res.Body.Close() }()
		answer, err := io.ReadAll(res.Body)
		if err != nil {
			t.Fatal(err)
		}
		return res.StatusCode, string(answer)
	}
	for _, test := range []struct {
		name, body string
		header     map[string]string
		status     int
	}{
		{"a page that has bound its name to our address", body, map[string]string{"Host": "evil.example"}, 421},
		{"with our port", body, map[string]string{"Host": "evil.example:8081"}, 421},
		{"a name that begins like localhost", body, map[string]string{"Host": "localhost.evil.example"}, 421},
		{"a name that begins like an address", body, map[string]string{"Host": "127.0.0.1.evil.example"}, 421},
		{"a page of another origin", body, map[string]string{"Origin": "https://evil.example"}, 403},
		{"a page of no origin", body, map[string]string{"Origin": "null"}, 403},
		{"a form", body, map[string]string{"Content-Type": "text/plain"}, 415},
		{"a form that says so", body, map[string]string{"Content-Type": "application/x-www-form-urlencoded"}, 415},
		{"another candidate", strings.Replace(body, before.CandidateRevision, "0123456789ab", 1), nil, 409},
		{"no candidate", `{"groups":[]}`, nil, 409},
		{"a group that is none", strings.Replace(body, before.Groups[0].ID, "0123456789ab", 1), nil, 404},
		{"no object", "[]", nil, 400},
		{"an unknown member", strings.Replace(body, "{", `{"all":true,`, 1), nil, 400},
		{"too much", strings.Replace(body, "{", "{"+strings.Repeat(" ", maxOwnBody), 1), nil, 413},
	} {
		if status, answer := ask(test.body, test.header); status != test.status {
			t.Errorf("%s: %d, want %d: %s", test.name, status, test.status, answer)
		}
		if r := report(t, server); r.Groups[0].Acknowledged {
			t.Fatalf("%s: acknowledged", test.name)
		}
	}
	for _, host := range []string{address, "localhost:8081", "[::1]:8081", "10.0.0.7:8081"} {
		if status, answer := ask(body, map[string]string{"Host": host, "Origin": "http://" + host, "Sec-Fetch-Site": "same-origin"}); status != 200 {
			t.Errorf("%s: %d %s", host, status, answer)
		}
	}
	if r := report(t, server); !r.Groups[0].Acknowledged || r.Unacknowledged != 0 {
		t.Errorf("%+v", r)
	}
	// Who reads is looked at likewise.
	req, err := http.NewRequest("GET", server.URL+"/policy/shadow", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Host = "evil.example"
	res, err := http.DefaultClient.Do(req)
	if err != nil || res.StatusCode != 421 {
		t.Errorf("%v %v", res, err)
	}
	_ = res.Body.Close()
}

func TestAShadowIsAskedAndReadAtOnce(t *testing.T) {
	c := newComparison(&Shadow{Policy: mustParsePolicy(t, "p, anonymous, /a/:id, GET, allow")}, mustParsePolicy(t, "p, anonymous, /x, GET, allow"))
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			for i := range 500 {
				c.ask(decided("GET", fmt.Sprintf("/a/%d", i), nil), policy.Caller{}, policy.Decision{})
				if i%50 == 0 {
					r := c.report()
					c.acknowledge([]string{r.Groups[0].ID})
				}
			}
		})
	}
	all.Wait()
	if r := c.report(); r.WouldAllow != 2000 || r.Groups[0].Count != 2000 {
		t.Errorf("%+v", r.Groups)
	}
}
