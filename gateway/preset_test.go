package gateway

import (
	"slices"
	"strings"
	"testing"
	"time"

	"portcullis/identity"
)

func presetNames() []string { return []string{"portcullis", "oauth2-proxy", "authelia", "kong"} }

// Every name that any preset says is one that no client may say, in any spelling.
func TestEveryPresetIsReserved(t *testing.T) {
	p := &identity.Principal{UserID: "u", Username: "n", Email: "e", EmailVerified: true, Roles: []string{"r"}, Tenant: "t", SessionID: "s"}
	names := 0
	for _, name := range presetNames() {
		set, err := parsePreset(name)
		if err != nil {
			t.Fatal(err)
		}
		lines := string(set.caller(p, []string{"x"}, "a")) + string(set.stranger())
		for line := range strings.Lines(lines) {
			field, _, _ := strings.Cut(line, ":")
			names++
			for _, spelling := range []string{field, strings.ToUpper(field), strings.ReplaceAll(field, "-", "_"), strings.ReplaceAll(field, "-", ".")} {
				var buf [longestClassified]byte
				if c := classOf(fold(&buf, []byte(spelling))); c != classReserved {
					t.Errorf("%s of %s is of class %d", spelling, name, c)
				}
			}
		}
	}
	if names < 20 {
		t.Fatalf("only %d names", names)
	}
	if _, err := parsePreset("Kong"); err == nil {
		t.Error("a preset that does not exist is found")
	}
}

// forgedIdentity is every name of every preset in spellings that a server folds.
func forgedIdentity() []string {
	var all []string
	for _, name := range []string{"X-User-Id", "X-User-Name", "X-User-Email", "X-User-Roles", "X-User-Permissions", "X-User-Tenant", "X-Session-Id", "X-Identity-Assertion",
		"X-Forwarded-User", "X-Forwarded-Email", "X-Forwarded-Groups", "X-Forwarded-Preferred-Username", "Remote-User", "Remote-Groups", "Remote-Email", "Remote-Name",
		"X-Consumer-Id", "X-Consumer-Custom-Id", "X-Consumer-Username", "X-Consumer-Groups", "X-Authenticated-Groups", "X-Anonymous-Consumer"} {
		all = append(all, name+": forged", strings.ToLower(strings.ReplaceAll(name, "-", "_"))+": forged", strings.ReplaceAll(name, "-", ".")+": forged")
	}
	return all
}

func TestAnUpstreamIsToldWhoCallsInTheNamesItKnows(t *testing.T) {
	for name, want := range map[string][]string{
		"":             {"X-User-Id: ID", "X-User-Name: uma", "X-User-Email: uma@example.com", "X-User-Roles: admin,user", "X-User-Permissions: tasks.write", "X-Session-Id: SESSION"},
		"oauth2-proxy": {"X-Forwarded-User: ID", "X-Forwarded-Groups: admin,user", "X-Forwarded-Preferred-Username: uma"},
		"authelia":     {"Remote-User: uma", "Remote-Groups: admin,user", "Remote-Name: uma"},
		"kong": {"X-Consumer-Id: ID", "X-Consumer-Custom-Id: ID", "X-Consumer-Username: uma", "X-Consumer-Groups: admin, user",
			"X-Authenticated-Groups: admin, user"},
	} {
		t.Run(name, func(t *testing.T) {
			e := startGateway(t, func(c *StateConfig) { c.Upstreams[0].Headers = name })
			token := e.token("uma", "user", "admin")
			p, err := e.service.Tokens().Verify([]byte(token))
			if err != nil {
				t.Fatal(err)
			}
			replace := strings.NewReplacer("ID", p.UserID, "SESSION", p.SessionID)
			for _, extra := range [][]string{{}, {"Connection: upgrade, Remote-User, X-Consumer-Id, X-Forwarded-User, X-User-Id", "Upgrade: websocket"}} {
				e.send(get("/tasks/1", slices.Concat([]string{"Authorization: Bearer " + token}, forgedIdentity(), extra)...))
				seen := e.requests()
				if len(seen) != 1 {
					t.Fatalf("the upstream saw %q", seen)
				}
				var got []string
				for line := range strings.Lines(seen[0]) {
					field, _, _ := strings.Cut(line, ":")
					var buf [longestClassified]byte
					always := []string{fieldAssertion, fieldForwardedHost, fieldForwardedProto}
					if classOf(fold(&buf, []byte(field))) == classReserved && !slices.Contains(always, field) {
						got = append(got, strings.TrimSpace(line))
					}
				}
				wanted := make([]string, len(want))
				for i, line := range want {
					wanted[i] = replace.Replace(line)
				}
				slices.Sort(got)
				slices.Sort(wanted)
				if !slices.Equal(got, wanted) {
					t.Errorf("got %q\nwant %q", got, wanted)
				}
				for _, line := range []string{fieldAssertion + ": ey", fieldRequestID + ": ", fieldForwardedFor + ": 127.0.0.1", fieldTraceparent + ": 00-"} {
					if !strings.Contains(seen[0], "\r\n"+line) {
						t.Errorf("missing %q in\n%s", line, seen[0])
					}
				}
			}
		})
	}
}

func TestOfAStrangerNoPresetSaysAName(t *testing.T) {
	for _, name := range presetNames() {
		e := startGateway(t, func(c *StateConfig) { c.Upstreams[0].Headers = name })
		e.send(get("/public/x", forgedIdentity()...))
		seen := e.requests()
		if len(seen) != 1 {
			t.Fatalf("the upstream saw %q", seen)
		}
		if strings.Contains(seen[0], "forged") || strings.Contains(seen[0], "Consumer-Id") || strings.Contains(seen[0], fieldAssertion) {
			t.Errorf("%s: %s", name, seen[0])
		}
		if anonymous := strings.Contains(seen[0], "\r\nX-Anonymous-Consumer: true\r\n"); anonymous != (name == "kong") {
			t.Errorf("%s: %s", name, seen[0])
		}
	}
}

// Whoever registers may claim any address: applications that know people by it
// learn of those alone that were proved.
func TestAnAddressThatNobodyProvedIsNoName(t *testing.T) {
	for _, name := range []string{"oauth2-proxy", "authelia", "kong"} {
		set, err := parsePreset(name)
		if err != nil {
			t.Fatal(err)
		}
		p := identity.Principal{UserID: "u", Username: "n", Email: "boss@example.com"}
		if lines := string(set.caller(&p, nil, "a")); strings.Contains(lines, "boss") {
			t.Errorf("%s: %s", name, lines)
		}
		p.EmailVerified = true
		if lines := string(set.caller(&p, nil, "a")); name != "kong" && !strings.Contains(lines, "boss") {
			t.Errorf("%s: %s", name, lines)
		}
	}
}

// Nor can somebody of another issuer be taken for somebody here by their name.
func TestANameOfAnotherIssuerIsNobodysHere(t *testing.T) {
	for _, name := range []string{"oauth2-proxy", "authelia", "kong"} {
		set, err := parsePreset(name)
		if err != nil {
			t.Fatal(err)
		}
		p := identity.Principal{Issuer: "other", UserID: "other|7", Username: "admin"}
		if lines := string(set.caller(&p, nil, "a")); strings.Contains(lines, "admin") || !strings.Contains(lines, "other|7") {
			t.Errorf("%s: %s", name, lines)
		}
	}
}

// What an upstream is told is made once for a token, whatever its preset.
func TestPresetsCostNothingPerRequest(t *testing.T) {
	e := startGateway(t, func(c *StateConfig) { c.Upstreams[0].Headers = "kong" })
	p, err := e.service.Tokens().Verify([]byte(e.token("uma", "user")))
	if err != nil {
		t.Fatal(err)
	}
	st := e.gateway.state.Load()
	now := time.Now()
	if _, err := st.assertions.fields(st, p, "up", now); err != nil {
		t.Fatal(err)
	}
	allocations := testing.AllocsPerRun(100, func() { _, _ = st.assertions.fields(st, p, "up", now) })
	if allocations != 0 {
		t.Errorf("%v allocations", allocations)
	}
}
