package gateway

import (
	"bufio"
	"encoding/base64"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/go-json-experiment/json"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/valyala/fasthttp"

	"portcullis/policy"
)

// Two policies that say the opposite of each other.
const (
	policyA = "p, perm:a, /a, GET, allow\np, perm:a, /b, GET, deny\ng, role:user, perm:a\n"
	policyB = "p, perm:b, /b, GET, allow\np, perm:b, /a, GET, deny\ng, role:user, perm:b\n"
)

// In many requests during 200 swaps each answer is one of the two policies': what
// was decided, by which rule of which revision, and what the upstream is told, in
// the fields and in the assertion, all say the same.
func TestEveryAnswerDuringSwapsIsOfOnePolicy(t *testing.T) {
	// What tells something are the requests that are under way at a swap.
	const clients, pipelined = 8, 16
	swaps := 500
	if testing.Short() {
		swaps = 50
	} else if raceEnabled {
		swaps = 250
	}
	requests := swaps * 4 * clients * pipelined
	e := startGateway(t, func(c *StateConfig) {
		c.TrustedProxies = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")} // whose request ids are kept
		c.Upstreams = []UpstreamConfig{{Name: "echo", Targets: []*url.URL{{Scheme: "http", Host: startEcho(t)}}}}
		c.Routes = []RouteConfig{{Path: "/", Upstream: "echo"}}
	})
	e.log.deaf = true
	token := e.token("ana", "user")
	a, b := e.config, e.config
	a.Policy, b.Policy = mustParsePolicy(t, policyA), mustParsePolicy(t, policyB)
	swap := func(c StateConfig) {
		state, err := NewState(c)
		if err != nil {
			t.Error(err)
			return
		}
		e.gateway.Swap(state)
	}
	swap(a)

	// The decisions are read where the log's writer would.
	dropped := prometheus.NewCounter(prometheus.CounterOpts{Name: "dropped"})
	l := &DecisionLog{denials: make(chan decision, 1<<16), allows: make(chan decision, 1<<16), sampled: 1<<64 - 1, droppedAny: dropped, droppedDenial: dropped}
	e.gateway.decisions = l
	decisions := make([]decision, requests)
	var reader sync.WaitGroup
	reader.Go(func() {
		for range requests {
			var d decision
			select {
			case d = <-l.denials:
			case d = <-l.allows:
			}
			l.waiting.Add(-d.held)
			if n, err := strconv.ParseInt(d.requestID, 16, 64); err == nil {
				decisions[n] = d
			}
		}
	})
	answered := make(chan struct{}, requests)
	var swapper sync.WaitGroup
	swapper.Go(func() {
		for i := range swaps {
			for range requests / (swaps + 1) {
				<-answered
			}
			swap([]StateConfig{b, a}[i%2])
		}
	})
	told := make([]string, requests) // what each answer said: "403", or what the upstream was told
	var next atomic.Int64
	var asking sync.WaitGroup
	for range clients {
		asking.Go(func() {
			if err := askPipelined(e.addr, token, pipelined, requests, &next, told, answered); err != nil {
				t.Error(err)
			}
		})
	}
	asking.Wait()
	if t.Failed() {
		t.FailNow()
	}
	swapper.Wait()
	reader.Wait()

	outcomes := map[string]int{}
	for n := range requests {
		d, path := decisions[n], []string{"/a", "/b"}[n%2]
		policyOf, perm := a.Policy, "a"
		if d.revision == b.Policy.Revision() {
			policyOf, perm = b.Policy, "b"
		}
		want := policyOf.Decide(policy.Caller{Authenticated: true, Roles: []string{"user"}}, "GET", path)
		says := "403"
		if want.Allowed {
			says = "200 " + perm + " [" + perm + "]"
		}
		if d.revision != policyOf.Revision() || d.rule != want.Rule || d.allowed != want.Allowed || told[n] != says {
			t.Fatalf("request %d of %s: logged %v by %q of %s; the answer says %q; that policy says %v by %q", n, path, d.allowed, d.rule, d.revision, told[n], want.Allowed, want.Rule)
		}
		outcomes[path+" "+told[n]]++
	}
	if len(outcomes) != 4 {
		t.Errorf("only %v: nothing was swapped while requests came", outcomes)
	}
	t.Logf("%d requests, %d swaps: %v", requests, swaps, outcomes)
}

// startEcho is an upstream that answers with the permissions it was told of, in
// the field and in the assertion.
func startEcho(t *testing.T) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := &fasthttp.Server{Handler: func(ctx *fasthttp.RequestCtx) {
		_, rest, _ := strings.Cut(string(ctx.Request.Header.Peek(fieldAssertion)), ".")
		payload, _, _ := strings.Cut(rest, ".")
		text, err := base64.RawURLEncoding.DecodeString(payload)
		var claims struct {
			Permissions []string `json:"permissions"`
		}
		if err == nil {
			err = json.Unmarshal(text, &claims)
		}
		_, _ = fmt.Fprintf(ctx, "%s %v", ctx.Request.Header.Peek(fieldUserPermissions), claims.Permissions)
		if err != nil {
			ctx.Error(err.Error(), 500)
		}
	}}
	go func() { _ = server.Serve(ln) }()
	t.Cleanup(func() { _ = ln.Close() })
	return ln.Addr().String()
}

// askPipelined takes numbers from next until there are enough, asks for /a with
// the even ones and for /b with the odd ones, several at a time, and notes the answers.
func askPipelined(addr, token string, depth, requests int, next *atomic.Int64, told []string, answered chan<- struct{}) error {
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	r := bufio.NewReader(conn)
	res := fasthttp.AcquireResponse()
	defer fasthttp.ReleaseResponse(res)
	for {
		var asked []int
		var raw strings.Builder
		for range depth {
			n := int(next.Add(1) - 1)
			if n >= requests {
				break
			}
			asked = append(asked, n)
			fmt.Fprintf(&raw, "GET /%c HTTP/1.1\r\nHost: gateway.test\r\nX-Request-Id: %032x\r\nAuthorization: Bearer %s\r\n\r\n", 'a'+rune(n%2), n, token)
		}
		if asked == nil {
			return nil
		}
		if _, err := conn.Write([]byte(raw.String())); err != nil {
			return err
		}
		for _, n := range asked {
			if err := res.Read(r); err != nil {
				return fmt.Errorf("answer %d: %w", n, err)
			}
			told[n] = strconv.Itoa(res.StatusCode())
			if res.StatusCode() == 200 {
				told[n] += " " + string(res.Body())
			}
			answered <- struct{}{}
		}
	}
}
