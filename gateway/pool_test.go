package gateway

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/valyala/fasthttp"
)

func TestNewUpstreamRefusesTargetsThatAreNone(t *testing.T) {
	for _, target := range []string{
		"", "127.0.0.1:80", "ftp://h", "http://", "http://:80", "http://user@h", "http://h/path", "http://h?q", "//h",
	} {
		at, err := url.Parse(target)
		if err != nil {
			continue // is refused before
		}
		if _, err := newUpstream("x", upstreamOptions{targets: []*url.URL{at}}); err == nil {
			t.Errorf("%q is accepted", target)
		}
	}
	if _, err := newUpstream("x", upstreamOptions{}); err == nil {
		t.Error("no target is accepted")
	}
}

func TestTargetsHaveTheirSchemesPort(t *testing.T) {
	for target, addr := range map[string]string{
		"http://h": "h:80", "https://h": "h:443", "http://h:8080/": "h:8080", "http://[::1]": "[::1]:80", "https://[::1]:1": "[::1]:1",
	} {
		at, err := url.Parse(target)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := newTarget(at, nil); err != nil || got.addr != addr {
			t.Errorf("%s: %v, %v", target, got, err)
		}
	}
}

// pickAll picks n times and returns the addresses.
func pickAll(u *upstream, now time.Time, n int) (picked []string) {
	for range n {
		t, _, err := u.pick(now, nil)
		if err != nil {
			picked = append(picked, err.Error())
		} else {
			picked = append(picked, t.addr)
		}
	}
	return picked
}

func count(picked []string) map[string]int {
	counts := map[string]int{}
	for _, p := range picked {
		counts[p]++
	}
	return counts
}

func TestRoundRobinIsFair(t *testing.T) {
	u := testUpstream(t, upstreamOptions{}, "a:1", "b:1", "c:1")
	now := time.Now()
	if got := count(pickAll(u, now, 30)); fmt.Sprint(got) != "map[a:1:10 b:1:10 c:1:10]" {
		t.Error(got)
	}
	u.targets[1].down.Store(true)
	if got := count(pickAll(u, now, 30)); got["b:1"] != 0 || got["a:1"]+got["c:1"] != 30 {
		t.Error(got)
	}
}

func TestLeastConnectionsPrefersTheIdleTarget(t *testing.T) {
	u := testUpstream(t, upstreamOptions{leastConnections: true}, "a:1", "b:1", "c:1")
	u.targets[0].active.Store(3)
	u.targets[1].active.Store(1)
	u.targets[2].active.Store(2)
	if got := count(pickAll(u, time.Now(), 10)); got["b:1"] != 10 {
		t.Error(got)
	}
	u.targets[1].active.Store(2)
	u.targets[0].active.Store(2)
	if got := count(pickAll(u, time.Now(), 30)); fmt.Sprint(got) != "map[a:1:10 b:1:10 c:1:10]" {
		t.Error(got)
	}
}

func TestATargetThatFailsAgainAndAgainIsEjected(t *testing.T) {
	u := testUpstream(t, upstreamOptions{}, "a:1", "b:1")
	now := time.Now()
	bad := &u.targets[0].breaker
	for range failuresToEject - 1 {
		bad.failed(now, false)
	}
	bad.succeeded() // only failures in a row count
	for range failuresToEject - 1 {
		bad.failed(now, false)
	}
	if got := count(pickAll(u, now, 10)); got["a:1"] != 5 {
		t.Errorf("before: %v", got)
	}
	bad.failed(now, false)
	if got := count(pickAll(u, now, 10)); got["b:1"] != 10 {
		t.Errorf("ejected: %v", got)
	}
	if s := u.status(now); s[0].healthy || !s[1].healthy {
		t.Errorf("%+v", s)
	}
	// Each time that it fails on probation it is left out for twice as long.
	want := shortestEjection
	for range 10 {
		if got := count(pickAll(u, now.Add(want-1), 10)); got["a:1"] != 0 {
			t.Errorf("after %v: %v", want-1, got)
		}
		now = now.Add(want)
		if got := count(pickAll(u, now, 10)); got["a:1"] != 1 {
			t.Errorf("on probation: %v", got)
		}
		bad.failed(now, true)
		want = min(2*want, longestEjection)
	}
	now = now.Add(longestEjection)
	if got := count(pickAll(u, now, 10)); got["a:1"] != 1 {
		t.Errorf("on probation: %v", got)
	}
	bad.undecided()
	if got := count(pickAll(u, now, 10)); got["a:1"] != 1 {
		t.Errorf("on probation again: %v", got)
	}
	bad.succeeded()
	if got := count(pickAll(u, now, 10)); got["a:1"] != 5 {
		t.Errorf("after: %v", got)
	}
	bad.failed(now, false)
	if got := count(pickAll(u, now, 10)); got["a:1"] != 5 {
		t.Errorf("forgiven, but: %v", got)
	}
}

func TestNoTargetIsLeftIfAllAreEjected(t *testing.T) {
	u := testUpstream(t, upstreamOptions{}, "a:1", "b:1")
	now := time.Now()
	for _, target := range u.targets {
		for range failuresToEject {
			target.breaker.failed(now, false)
		}
	}
	if _, _, err := u.pick(now, nil); !errors.Is(err, errNoTarget) {
		t.Error(err)
	}
}

func TestTheOnlyTargetIsTriedEverySecond(t *testing.T) {
	u := testUpstream(t, upstreamOptions{}, "a:1")
	now := time.Now()
	b := &u.targets[0].breaker
	for range failuresToEject {
		b.failed(now, false)
	}
	for range 10 {
		now = now.Add(longestOnlyEjection)
		if _, probe, err := u.pick(now, nil); err != nil || !probe {
			t.Fatal(probe, err)
		}
		b.failed(now, true)
	}
}

// deadAddr is an address where nobody listens.
func deadAddr(t *testing.T) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	return ln.Addr().String()
}

func TestForwardTriesTheNextTargetIfOneCannotBeReached(t *testing.T) {
	noLeaks(t)
	good := serveUpstream(t, func(_ int, w *wire) {
		for w.head() != "" {
			w.hear("ab")
			w.say(okAnswer)
		}
	})
	bad := deadAddr(t)
	u := testUpstream(t, upstreamOptions{}, bad, good)
	e := serveEdge(t, u, nil)
	c := e.dial()
	attempts := 0
	for range 3 * failuresToEject {
		c.say("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\nab")
		c.hear(okAnswer)
		r := e.result()
		if r.err != nil || r.target != good {
			t.Errorf("%+v, %v", r.exchange, r.err)
		}
		attempts += r.attempts
	}
	// Ejected, it is asked no more for a while.
	if want := 3*failuresToEject + failuresToEject; attempts != want {
		t.Errorf("%d attempts, want %d", attempts, want)
	}
}

func TestATargetThatAnswersNonsenseIsEjected(t *testing.T) {
	noLeaks(t)
	good := serveUpstream(t, func(_ int, w *wire) {
		for w.head() != "" {
			w.say(okAnswer)
		}
	})
	bad := serveUpstream(t, func(_ int, w *wire) { w.head() })
	u := testUpstream(t, upstreamOptions{}, bad, good)
	e := serveEdge(t, u, nil)
	failed := 0
	for range 4 * failuresToEject {
		c := e.dial()
		c.say("GET / HTTP/1.1\r\nHost: h\r\n\r\n")
		c.head()
		if e.result().err != nil {
			failed++
		}
	}
	if failed != failuresToEject || u.status(time.Now())[0].healthy {
		t.Errorf("%d failed, %+v", failed, u.status(time.Now()))
	}
}

func TestForwardWithoutHealthyTarget(t *testing.T) {
	noLeaks(t)
	u := testUpstream(t, upstreamOptions{}, deadAddr(t), deadAddr(t))
	e := serveEdge(t, u, nil)
	c := e.dial()
	for range 2 * failuresToEject {
		c.say("GET / HTTP/1.1\r\nHost: h\r\n\r\n")
		head := c.head()
		c.take(len(errUnreachable.Error()))
		if r := e.result(); r.err == nil {
			t.Errorf("%q", head)
		}
		if !u.status(time.Now())[0].healthy && !u.status(time.Now())[1].healthy {
			break
		}
	}
	c = e.dial()
	c.say("GET / HTTP/1.1\r\nHost: h\r\n\r\n")
	c.head()
	c.hear(errNoTarget.Error())
}

func TestIdleConnectionsAreBoundedAndClosed(t *testing.T) {
	noLeaks(t)
	const conns, limit = 4, 2
	all := make(chan struct{})
	var arrived, open atomic.Int32
	addr := serveUpstream(t, func(_ int, w *wire) {
		open.Add(1)
		defer open.Add(-1)
		w.head()
		if arrived.Add(1) == conns {
			close(all)
		}
		<-all // so that there are as many connections as requests
		w.say(okAnswer)
		_, _ = w.rest()
	})
	u := testUpstream(t, upstreamOptions{idleConns: limit, idleTimeout: 60 * time.Millisecond}, addr)
	e := serveEdge(t, u, nil)
	var clients []*wire
	for range conns {
		c := e.dial()
		c.say("GET / HTTP/1.1\r\nHost: h\r\n\r\n")
		clients = append(clients, c)
	}
	for _, c := range clients {
		c.hear(okAnswer)
	}
	for range conns {
		e.result()
	}
	if s := u.status(time.Now())[0]; s.idle != limit || s.active != 0 {
		t.Errorf("%+v", s)
	}
	waitUntil(t, func() bool { return open.Load() == 0 && u.status(time.Now())[0].idle == 0 })
}

func waitUntil(t testing.TB, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("never happens")
		}
	}
}

func TestCloseKeepsNothingAndDisturbsNobody(t *testing.T) {
	noLeaks(t)
	answer, idleEnded := make(chan struct{}), make(chan struct{})
	addr := serveUpstream(t, func(_ int, w *wire) {
		if strings.HasPrefix(w.head(), "GET /slow ") {
			<-answer
		} else {
			defer close(idleEnded)
		}
		w.say(okAnswer)
		w.hearEnd()
	})
	u := testUpstream(t, upstreamOptions{}, addr)
	e := serveEdge(t, u, nil)
	slow, quick := e.dial(), e.dial()
	slow.say("GET /slow HTTP/1.1\r\nHost: h\r\n\r\n")
	waitUntil(t, func() bool { return u.status(time.Now())[0].active == 1 })
	quick.say("GET / HTTP/1.1\r\nHost: h\r\n\r\n")
	quick.hear(okAnswer)
	waitUntil(t, func() bool { return u.status(time.Now())[0].idle == 1 })
	u.close()
	<-idleEnded
	close(answer)
	slow.hear(okAnswer)
	waitUntil(t, func() bool { s := u.status(time.Now())[0]; return s.active == 0 && s.idle == 0 })
	u.close() // again does no harm
}

func TestActiveHealthChecks(t *testing.T) {
	noLeaks(t)
	var status atomic.Int32
	status.Store(200)
	asked := make(chan string, 100)
	addr := serveUpstream(t, func(_ int, w *wire) {
		asked <- w.head()
		if s := status.Load(); s != 0 {
			w.say(fmt.Sprintf("HTTP/1.1 %d X\r\nContent-Length: 0\r\n\r\n", s))
			return
		}
		_, _ = w.rest() // hangs
	})
	u := testUpstream(t, upstreamOptions{health: healthOptions{
		path: "/healthz", interval: 5 * time.Millisecond, timeout: 20 * time.Millisecond,
	}}, addr)
	healthy := func() bool { return u.status(time.Now())[0].healthy }
	if want := "GET /healthz HTTP/1.1\r\nHost: " + addr + "\r\nUser-Agent: portcullis-health\r\nConnection: close\r\n\r\n"; <-asked != want {
		t.Errorf("asked %q", want)
	}
	for _, bad := range []int32{500, 404, 0, 99} {
		waitUntil(t, healthy)
		status.Store(bad)
		waitUntil(t, func() bool { return !healthy() })
		if _, _, err := u.pick(time.Now(), nil); !errors.Is(err, errNoTarget) {
			t.Errorf("status %d: %v", bad, err)
		}
		status.Store(302)
	}
	waitUntil(t, healthy)
}

func TestForwardOverTLS(t *testing.T) {
	noLeaks(t)
	certs := httptest.NewUnstartedServer(nil)
	certs.StartTLS()
	certificate := certs.TLS.Certificates[0]
	pool := x509.NewCertPool()
	pool.AddCert(certs.Certificate())
	certs.Close()
	serverTLS := &tls.Config{Certificates: []tls.Certificate{certificate}}
	clientTLS := &tls.Config{RootCAs: pool, ServerName: "example.com"}

	ln, err := tls.Listen("tcp", "127.0.0.1:0", serverTLS)
	if err != nil {
		t.Fatal(err)
	}
	conns, silent := make(chan struct{}, 10), make(chan struct{})
	served := make(chan struct{})
	go func() {
		defer close(served)
		for n := 0; ; n++ {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			conns <- struct{}{}
			go func() {
				defer conn.Close()
				w := newWire(t, conn)
				for head := w.head(); head != ""; head = w.head() {
					if strings.HasPrefix(head, "GET /silence ") {
						close(silent)
						w.hearEnd()
						return
					}
					w.say(okAnswer)
					if n == 0 {
						return // while it is idle
					}
					w.head()
					w.say(upgradeAnswer)
					w.hear("ping")
					w.say("pong")
				}
			}()
		}
	}()
	t.Cleanup(func() { _ = ln.Close(); <-served })

	u, err := newUpstream("test", upstreamOptions{targets: []*url.URL{{Scheme: "https", Host: ln.Addr().String()}}, tls: clientTLS})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(u.close)
	edgeLn, err := tls.Listen("tcp", "127.0.0.1:0", serverTLS)
	if err != nil {
		t.Fatal(err)
	}
	sawTLS := make(chan bool, 10)
	e := serveEdgeOn(t, u, func(ctx *fasthttp.RequestCtx, _ *outbound) { sawTLS <- clientConnOf(ctx).tls != nil }, edgeLn)
	conn, err := tls.Dial("tcp", e.addr, clientTLS)
	if err != nil {
		t.Fatal(err)
	}
	first := conn
	t.Cleanup(func() { _ = first.Close() })
	c := newWire(t, conn)
	for range 2 {
		c.say("GET / HTTP/1.1\r\nHost: h\r\n\r\n")
		c.hear(okAnswer)
		if r := e.result(); r.err != nil || r.attempts != 1 {
			t.Errorf("%+v, %v", r.exchange, r.err)
		}
		if !<-sawTLS {
			t.Error("the server does not know that this is TLS")
		}
		waitUntil(t, func() bool { return u.status(time.Now())[0].active == 0 })
		time.Sleep(5 * time.Millisecond) // for the close to arrive, if it was not there already
	}
	c.say(upgradeRequest)
	c.hear(upgradeGot)
	c.say("ping")
	c.hear("pong")
	e.result()

	// A client that leaves is noticed behind TLS, too.
	leaver, err := tls.Dial("tcp", e.addr, clientTLS)
	if err != nil {
		t.Fatal(err)
	}
	c = newWire(t, leaver)
	c.say("GET /silence HTTP/1.1\r\nHost: h\r\n\r\n")
	<-silent
	_ = leaver.Close()
	e.fails(errClientGone)
	if n := len(conns); n != 3 {
		t.Errorf("%d connections", n)
	}
}

func TestForwardTrustsNoOtherCertificate(t *testing.T) {
	noLeaks(t)
	server := httptest.NewUnstartedServer(nil)
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	server.StartTLS()
	t.Cleanup(server.Close)
	at, err := url.Parse(server.URL)
	if err != nil {
		t.Fatal(err)
	}
	u, err := newUpstream("test", upstreamOptions{targets: []*url.URL{at}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(u.close)
	e := serveEdge(t, u, nil)
	c := e.dial()
	c.say("GET / HTTP/1.1\r\nHost: h\r\n\r\n")
	c.head()
	if r := e.fails(errUnreachable); !strings.Contains(r.err.Error(), "certificate") {
		t.Error(r.err)
	}
}
