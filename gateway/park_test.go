package gateway

import (
	"bufio"
	"context"
	"crypto/tls"
	"io"
	"net"
	"strings"
	"testing"
	"time"
)

// A parked connection is like any other to everybody but the server: each promise
// about connections is tried on one that is parked.

const testParkAfter = 20 * time.Millisecond

// startParking starts a gateway that parks soon.
func startParking(t *testing.T, adjust func(*Config), change ...func(*StateConfig)) *testGateway {
	t.Helper()
	e := startGatewayAs(t, adjust, change...)
	cs := &e.gateway.clients
	cs.mu.Lock() // as adding a connection does, and that comes later
	cs.parking.after = testParkAfter
	cs.mu.Unlock()
	return e
}

// parks waits until n connections are open and the server serves none of them.
func parks(t *testing.T, e *testGateway, n int) {
	t.Helper()
	waitUntil(t, func() bool {
		return e.gateway.clients.count() == n && e.gateway.app.Server().GetCurrentConcurrency() == 0
	})
}

func TestAParkedConnectionIsAnsweredAsAnyOther(t *testing.T) {
	noLeaks(t)
	for name, tc := range map[string]struct {
		adjust func(*Config)
		before string
		dial   func(*testing.T, net.Conn) net.Conn
	}{
		"TCP": {func(*Config) {}, "", func(_ *testing.T, c net.Conn) net.Conn { return c }},
		"TLS": {func(c *Config) { c.TLS = serverTLS(t) }, "", func(t *testing.T, c net.Conn) net.Conn { return tls.Client(c, clientTLS(t)) }},
		"PROXY": {func(c *Config) { c.ProxyProtocol = ProxyRequired }, "PROXY TCP4 192.0.2.1 192.0.2.2 1000 1000\r\n",
			func(_ *testing.T, c net.Conn) net.Conn { return c }},
	} {
		t.Run(name, func(t *testing.T) {
			e := startParking(t, tc.adjust, func(s *StateConfig) { s.TrustedProxies = prefixes(t, "127.0.0.0/8") })
			raw := e.dialTCP()
			_, _ = io.WriteString(raw, tc.before)
			c := newWire(t, tc.dial(t, raw))
			const post = "POST /public/x HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\nab"
			for round, sent := range []string{
				get("/public/1"),
				get("/public/2"),
				"\r\n" + get("/public/3"),
				get("/public/4") + post + get("/public/5"),
				get("/tasks/6"), // is refused
				"POST /tasks/7 HTTP/1.1\r\nHost: h\r\nContent-Length: 100000\r\n\r\n" + strings.Repeat("x", 100000), // and its body is read afterwards
				"HEAD /public/8 HTTP/1.1\r\nHost: h\r\n\r\n",
				get("/public/9"),
			} {
				c.say(sent)
				method, _, _ := strings.Cut(sent, " ")
				for range strings.Count(sent, " HTTP/1.1\r\n") {
					want := 200
					if strings.Contains(sent, "/tasks/") {
						want = 401
					}
					res, err := readAnswer(c.in, method)
					if err != nil || res.StatusCode != want || res.Close {
						t.Fatalf("round %d: %v, %v; want %d", round, res, err, want)
					}
				}
				parks(t, e, 1)
			}
			for _, seen := range e.requests() {
				if name == "PROXY" && !strings.Contains(seen, "X-Forwarded-For: 192.0.2.1\r\n") || name == "TLS" && !strings.Contains(seen, "X-Forwarded-Proto: https\r\n") {
					t.Errorf("the upstream saw %q", seen)
				}
			}
		})
	}
}

func TestAParkedConnectionEnds(t *testing.T) {
	const idle = 400 * time.Millisecond
	t.Run("when it has been idle for too long, however often it was parked", func(t *testing.T) {
		noLeaks(t)
		e := startParking(t, func(c *Config) { c.IdleTimeout = idle })
		c := e.dial()
		for range 2 {
			c.say(get("/public/x"))
			start := time.Now()
			c.answers("200", "ok")
			parks(t, e, 1)
			if took := time.Since(start); took > idle/2 { // a busy machine
				t.Skip("parked after", took)
			}
		}
		start := time.Now()
		c.hearEnd()
		if took := time.Since(start); took < idle/2 || took > 20*idle {
			t.Errorf("ended after %v", took)
		}
		parks(t, e, 0)
	})
	t.Run("when the client closes", func(t *testing.T) {
		noLeaks(t)
		e := startParking(t, func(c *Config) { c.IdleTimeout = time.Hour })
		for _, end := range []func(*net.TCPConn){
			func(c *net.TCPConn) { _ = c.Close() },
			func(c *net.TCPConn) { _ = c.CloseWrite() },
			func(c *net.TCPConn) { _ = c.SetLinger(0); _ = c.Close() },
		} {
			c := e.dialTCP()
			ask(t, c, get("/public/x"))
			parks(t, e, 1)
			end(c.(*net.TCPConn))
			parks(t, e, 0)
		}
		if strings.Contains(e.log.String(), "malformed_request") {
			t.Error(e.log.String())
		}
	})
	t.Run("when the gateway is shut down", func(t *testing.T) {
		noLeaks(t)
		e := startParking(t, func(c *Config) { c.IdleTimeout = time.Hour })
		parked := []*badClient{e.dial(), e.dial(), e.dial()}
		for _, c := range parked {
			c.say(get("/public/x"))
			c.answers("200", "ok")
		}
		parks(t, e, len(parked))
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		done := e.shutdown(ctx)
		for _, c := range parked {
			c.hearEnd()
		}
		if err := e.ends(done); err != nil {
			t.Error(err)
		}
	})
}

// The first byte starts the clock for the header, and it is the only one.
func TestAParkedConnectionIsNoWayAroundTheHeaderTimeout(t *testing.T) {
	const limit = 300 * time.Millisecond
	e := startParking(t, func(c *Config) { c.HeaderTimeout, c.IdleTimeout = limit, time.Hour })
	c := e.dialTCP()
	ask(t, c, get("/public/x"))
	parks(t, e, 1)
	start := time.Now()
	stop := make(chan struct{})
	go func() { // a byte at a time, and seldom enough to be parked if that were allowed
		defer close(stop)
		for _, b := range []byte(get("/public/" + strings.Repeat("y", 1000))) {
			if _, err := c.Write([]byte{b}); err != nil {
				return
			}
			time.Sleep(2 * testParkAfter)
		}
	}()
	said, _ := io.ReadAll(c)
	if took := time.Since(start); took < limit || took > 20*limit {
		t.Errorf("ended after %v", took)
	}
	if strings.Contains(string(said), " 200 ") {
		t.Errorf("answered %q", said)
	}
	_ = c.Close()
	<-stop
}

// Bytes that are no request leave a TLS connection idle, for as long as it was to be.
func TestHalfARecordLeavesAConnectionIdle(t *testing.T) {
	e := startParking(t, func(c *Config) { c.TLS, c.HeaderTimeout, c.IdleTimeout = serverTLS(t), time.Second, time.Hour })
	raw := &tappedConn{Conn: e.dialTCP()}
	c := tls.Client(raw, clientTLS(t))
	ask(t, c, get("/public/x"))
	parks(t, e, 1)
	raw.hold = true
	if _, err := io.WriteString(c, get("/public/y")); err != nil {
		t.Fatal(err)
	}
	for _, b := range raw.held[:8] {
		_, _ = raw.Conn.Write([]byte{b})
		parks(t, e, 1)
	}
	if _, err := raw.Conn.Write(raw.held[8:]); err != nil {
		t.Fatal(err)
	}
	res, err := readAnswer(bufio.NewReader(c), "GET")
	if err != nil || res.StatusCode != 200 {
		t.Errorf("%v, %v", res, err)
	}
}

// tappedConn keeps what is to be sent.
type tappedConn struct {
	net.Conn
	hold bool
	held []byte
}

func (c *tappedConn) Write(p []byte) (int, error) {
	if !c.hold {
		return c.Conn.Write(p)
	}
	c.held = append(c.held, p...)
	return len(p), nil
}

// A connection costs the server nothing before it has said something, and what it is
// told when it never does stays the same.
func TestASilentConnectionWaitsOutsideTheServer(t *testing.T) {
	noLeaks(t)
	const limit = 300 * time.Millisecond
	e := startParking(t, func(c *Config) { c.HeaderTimeout = limit })
	start := time.Now()
	c := e.dial()
	waitUntil(t, func() bool { return e.gateway.clients.count() == 1 })
	if n := e.gateway.app.Server().GetCurrentConcurrency(); n != 0 && time.Since(start) < limit {
		t.Errorf("%d are served", n)
	}
	c.answers("408", "")
	if took := time.Since(start); took < limit || took > 20*limit {
		t.Errorf("answered after %v", took)
	}
	if _, err := c.rest(); err != nil {
		t.Error(err)
	}
	parks(t, e, 0)
}

func TestParkedConnectionsAreCounted(t *testing.T) {
	e := startParking(t, func(c *Config) { c.ConnectionsPerAddress = 2 })
	first, second := e.dialTCP(), e.dialTCP()
	ask(t, first, get("/public/x"))
	ask(t, second, get("/public/x"))
	parks(t, e, 2)
	if res := ask(t, e.dialTCP(), get("/public/x")); res.StatusCode != 503 {
		t.Errorf("the third: %s", res.Status)
	}
	ask(t, first, get("/public/x"))
	parks(t, e, 2)
	if n := e.gateway.arrivals.room.count("127.0.0.1"); n != 2 {
		t.Errorf("%d are counted", n)
	}
	_ = first.Close()
	waitUntil(t, func() bool { return e.gateway.arrivals.room.count("127.0.0.1") == 1 })
	if res := ask(t, e.dialTCP(), get("/public/x")); res.StatusCode != 200 {
		t.Errorf("after one has ended: %s", res.Status)
	}
}

// A request that comes while the gateway begins to shut down is answered, or its
// connection ends cleanly: it is never half of one.
func TestARequestThatHasArrivedWhileParkedIsAnswered(t *testing.T) {
	noLeaks(t)
	e := startParking(t, func(c *Config) { c.IdleTimeout = time.Hour })
	c := e.dial()
	c.say(get("/public/x"))
	c.answers("200", "ok")
	parks(t, e, 1)
	var conn *clientConn
	e.gateway.clients.each(func(c *clientConn) { conn = c })
	// Under its lock the connection can't be looked at, so that both have come when it is.
	conn.mu.Lock()
	conn.leaving = true
	_ = conn.Conn.SetReadDeadline(time.Unix(1, 0))
	c.say(get("/public/x"))
	waitUntil(t, func() bool { return arrived(conn) })
	conn.mu.Unlock()
	c.answers("200", "ok")
	c.hearEnd()
	parks(t, e, 0)
}

// The time that a connection has waited outside the server counts: the server's own
// clock, which starts when it gets the connection, does not extend it.
func TestTheServersFirstDeadlineIsTheConnections(t *testing.T) {
	c, _ := connPair(t)
	first, later := time.Now().Add(time.Minute), time.Now().Add(time.Hour)
	c.headerUntil = first
	for _, want := range []time.Time{first, later} {
		if err := c.SetReadDeadline(later); err != nil {
			t.Fatal(err)
		}
		if !c.readWant.Equal(want) {
			t.Errorf("reads until %v, want %v", c.readWant, want)
		}
	}
}
