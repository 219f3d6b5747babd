package gateway

import (
	"strings"
	"testing"
	"time"

	"portcullis/identity"
)

// What a Principal keeps is for one upstream and one State, until it is renewed:
// anything else is not taken for it.
func TestWhatAPrincipalKeepsIsOfOneAudienceAndState(t *testing.T) {
	e := startGateway(t, func(c *StateConfig) {
		other := c.Upstreams[0]
		other.Name, other.Headers = "other", "kong"
		c.Upstreams = append(c.Upstreams, other)
	})
	p, err := e.service.Tokens().Verify([]byte(e.token("uma", "user")))
	if err != nil {
		t.Fatal(err)
	}
	st, now := e.gateway.state.Load(), time.Now()
	ask := func(a *assertions, p *identity.Principal, audience string, now time.Time) string {
		t.Helper()
		lines, err := a.fields(st, p, audience, now)
		if err != nil {
			t.Fatal(err)
		}
		return string(lines)
	}
	first := ask(st.assertions, p, "up", now)
	for range 2 { // whatever was kept last
		if kong := ask(st.assertions, p, "other", now); !strings.Contains(kong, "X-Consumer-Id: ") {
			t.Errorf("the other upstream is told %q", kong)
		}
		if again := ask(st.assertions, p, "up", now); again != first {
			t.Errorf("told %q, and then %q", first, again)
		}
	}
	// Signatures can be alike; memory is not.
	kept := p.Kept.Load()
	ask(newAssertions(), p, "up", now)
	if p.Kept.Load() == kept {
		t.Error("another State takes what was kept for this one")
	}
	ask(st.assertions, p, "up", now)
	if p.Kept.Load() != kept {
		t.Error("an assertion was signed twice")
	}
	ask(st.assertions, p, "up", now.Add(identity.AssertionTTL*9/10))
	if p.Kept.Load() == kept {
		t.Error("an assertion is not renewed before it ends")
	}
}
