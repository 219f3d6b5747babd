package gateway

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/crypto/acme"
)

// dialTCP opens a connection to the gateway.
func (e *testGateway) dialTCP() net.Conn {
	e.t.Helper()
	conn, err := net.Dial("tcp", e.addr)
	if err != nil {
		e.t.Fatal(err)
	}
	e.t.Cleanup(func() { _ = conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		e.t.Fatal(err)
	}
	return conn
}

// ask sends a request and returns the answer, of which the body is read.
func ask(t *testing.T, conn net.Conn, raw string) *http.Response {
	t.Helper()
	if _, err := io.WriteString(conn, raw); err != nil {
		t.Fatal(err)
	}
	res, err := readAnswer(bufio.NewReader(conn), "GET")
	if err != nil {
		t.Fatal(err)
	}
	return res
}

// refusedFor is how many connections were refused for a reason.
func (e *testGateway) refusedFor(reason string) float64 {
	e.t.Helper()
	metrics := prometheus.NewRegistry()
	metrics.MustRegister(e.gateway.arrivals.refused)
	families, err := metrics.Gather()
	if err != nil {
		e.t.Fatal(err)
	}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			if m.GetLabel()[0].GetValue() == reason {
				return m.GetCounter().GetValue()
			}
		}
	}
	return 0
}

func TestTheEdgeSpeaksTLS(t *testing.T) {
	server := serverTLS(t)
	server.ClientAuth = tls.RequestClientCert
	server.NextProtos = append(server.NextProtos, acme.ALPNProto)
	e := startGatewayAs(t, func(c *Config) { c.TLS = server })
	client := func(protocols ...string) *tls.Config {
		c := clientTLS(t)
		c.NextProtos, c.Certificates = protocols, server.Certificates // vouched for by whoever; no identity
		return c
	}

	conn := tls.Client(e.dialTCP(), client("h2", "http/1.1"))
	if res := ask(t, conn, get("/public/x", "X-Forwarded-Proto: http")); res.StatusCode != 200 {
		t.Error(res.Status)
	}
	if got := conn.ConnectionState().NegotiatedProtocol; got != "http/1.1" {
		t.Errorf("negotiated %q", got)
	}
	seen := e.requests()
	if len(seen) != 1 || !strings.Contains(seen[0], "X-Forwarded-Proto: https\r\n") || strings.Contains(strings.ToLower(seen[0]), "cert") || strings.Contains(seen[0], "X-User") {
		t.Errorf("the upstream saw %q", seen)
	}
	if res := ask(t, conn, get("/tasks/1")); res.StatusCode != 401 {
		t.Errorf("a client's certificate signed it in: %s", res.Status)
	}

	if err := tls.Client(e.dialTCP(), client("h2")).Handshake(); err == nil {
		t.Error("HTTP/2 is spoken")
	}
	if res := ask(t, e.dialTCP(), get("/public/x")); res.StatusCode != 400 || res.Header.Get(fieldGatewayError) != string(codeMalformedRequest) {
		t.Errorf("plain HTTP: %s", res.Status)
	}
	// The authority's question is answered by the handshake; there is no HTTP behind it.
	challenge := tls.Client(e.dialTCP(), client(acme.ALPNProto))
	_, _ = io.WriteString(challenge, get("/public/x"))
	if b, _ := io.ReadAll(challenge); len(b) > 0 {
		t.Errorf("behind a challenge: %q", b)
	}
	for _, garbage := range []string{"\x16\x03\x01\x00\x05hello", "\x00", "SSH-2.0-x\r\n", "PROXY TCP4 1.2.3.4 1.2.3.4 1 1\r\n"} {
		conn := e.dialTCP()
		_, _ = io.WriteString(conn, garbage)
		_ = conn.(*net.TCPConn).CloseWrite()
		if b, _ := io.ReadAll(conn); strings.HasPrefix(string(b), "HTTP") {
			t.Errorf("%q: %q", garbage, b)
		}
	}
	if seen := e.requests(); len(seen) != 0 {
		t.Errorf("the upstream saw %q", seen)
	}
	if n := e.refusedFor("tls_handshake"); n < 5 {
		t.Errorf("%v handshakes have failed", n)
	}
}

// A client has one time limit for all that comes before its first request, however
// it spends it, and nobody waits for it meanwhile.
func TestTheFirstRequestHasOneTimeLimit(t *testing.T) {
	const limit = 300 * time.Millisecond
	hello := clientHello(t)
	for name, tc := range map[string]struct {
		adjust func(*Config)
		drip   string // a byte at a time
	}{
		"TLS":             {func(c *Config) { c.TLS = serverTLS(t) }, hello},
		"PROXY":           {func(c *Config) { c.ProxyProtocol = ProxyRequired }, "PROXY TCP4 192.0.2.1 192.0.2.2 1000 1000\r\n" + get("/public/x")},
		"header":          {func(*Config) {}, get("/public/" + strings.Repeat("x", 1000))},
		"body":            {func(*Config) {}, "POST /public/x HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\n" + strings.Repeat("x", 1000)},
		"all but the end": {func(*Config) {}, "GET /public/x HTTP/1.1\r\nHost: a\r\n"},
	} {
		t.Run(name, func(t *testing.T) {
			e := startGatewayAs(t, func(c *Config) { c.HeaderTimeout = limit; tc.adjust(c) },
				func(s *StateConfig) { s.TrustedProxies = prefixes(t, "127.0.0.0/8") })
			start := time.Now()
			slow := e.dialTCP()
			stop := make(chan struct{})
			go func() { // far more slowly than it would have to
				defer close(stop)
				for i := range len(tc.drip) {
					if _, err := io.WriteString(slow, tc.drip[i:i+1]); err != nil {
						return
					}
					time.Sleep(20 * time.Millisecond)
				}
			}()
			if e.gateway.arrivals.tls == nil && e.gateway.arrivals.proxy == ProxyOff {
				if res := ask(t, e.dialTCP(), get("/public/x")); res.StatusCode != 200 {
					t.Errorf("meanwhile: %s", res.Status)
				}
			}
			said, _ := io.ReadAll(slow) // reset or not
			if took := time.Since(start); took < limit || took > 20*limit {
				t.Errorf("ended after %v", took)
			}
			if strings.Contains(string(said), " 200 ") {
				t.Errorf("answered %q", said)
			}
			_ = slow.Close()
			<-stop
			if seen := e.requests(); len(seen) > 1 {
				t.Errorf("the upstream saw %q", seen)
			}
		})
	}
}

// clientHello is how a TLS connection begins.
func clientHello(t *testing.T) string {
	t.Helper()
	near, far := net.Pipe()
	defer far.Close()
	go func() {
		_ = tls.Client(near, clientTLS(t)).Handshake() // until far is closed
		_ = near.Close()
	}()
	buf := make([]byte, 4096)
	n, err := far.Read(buf)
	if err != nil {
		t.Fatal(err)
	}
	return string(buf[:n])
}

// gatedConn says nothing before it may.
type gatedConn struct {
	net.Conn
	gate chan struct{}
}

func (c *gatedConn) Write(p []byte) (int, error) {
	<-c.gate
	return c.Conn.Write(p)
}

// Who has connected before the gateway was told to stop is answered, even if the TLS
// handshake takes until after that.
func TestAHandshakeSurvivesADrain(t *testing.T) {
	e := startGatewayAs(t, func(c *Config) { c.TLS = serverTLS(t) })
	gate := make(chan struct{})
	conn := tls.Client(&gatedConn{e.dialTCP(), gate}, clientTLS(t))
	waitUntil(t, func() bool { return e.gateway.clients.count() == 1 })
	stopped := make(chan error, 1)
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		stopped <- e.gateway.Shutdown(ctx)
	}()
	waitUntil(t, func() bool {
		other, err := net.Dial("tcp", e.addr)
		if err == nil {
			_ = other.Close()
		}
		return err != nil
	})
	time.Sleep(3 * drainTick) // for the drain to have looked at it
	close(gate)
	if res := ask(t, conn, get("/public/x")); res.StatusCode != 200 || !res.Close {
		t.Errorf("%s, %v", res.Status, res.Header)
	}
	_ = conn.Close()
	if err := <-stopped; err != nil {
		t.Error(err)
	}
}

func TestConnectionsPerAddress(t *testing.T) {
	e := startGatewayAs(t, func(c *Config) { c.ConnectionsPerAddress = 2 })
	first, second := e.dialTCP(), e.dialTCP()
	ask(t, first, get("/public/x"))
	ask(t, second, get("/public/x"))
	third := e.dialTCP()
	res := ask(t, third, get("/public/x"))
	if res.StatusCode != 503 || res.Header.Get(fieldGatewayError) != string(codeOverloaded) || res.Header.Get("Retry-After") == "" || !res.Close {
		t.Errorf("the third: %s, %v", res.Status, res.Header)
	}
	// One that ends makes room.
	_ = first.Close()
	waitUntil(t, func() bool { return e.gateway.arrivals.room.count("127.0.0.1") == 1 })
	if res := ask(t, e.dialTCP(), get("/public/x")); res.StatusCode != 200 {
		t.Errorf("after one has ended: %s", res.Status)
	}
	if n := e.refusedFor("connections_per_address"); n != 1 {
		t.Errorf("%v were counted", n)
	}
}

func TestTrustedProxiesMayHaveManyConnections(t *testing.T) {
	e := startGatewayAs(t, func(c *Config) { c.ConnectionsPerAddress = 1 }, func(s *StateConfig) { s.TrustedProxies = prefixes(t, "127.0.0.0/8") })
	for range 3 {
		if res := ask(t, e.dialTCP(), get("/public/x")); res.StatusCode != 200 {
			t.Error(res.Status)
		}
	}
}

func TestRoom(t *testing.T) {
	r := newRoom(10, 2)
	for _, step := range []struct {
		addr string
		want bool
	}{
		{"192.0.2.1", true}, {"192.0.2.1", true}, {"192.0.2.1", false}, {"192.0.2.2", true},
		{"2001:db8::1", true}, {"2001:db8::ffff:1", true}, {"2001:db8:0:0:9::", false}, {"2001:db8:0:1::", true},
	} {
		if _, ok := r.join(mustAddr(t, step.addr)); ok != step.want {
			t.Errorf("%s: %v", step.addr, ok)
		}
	}
	for range 10 {
		if !r.enter() {
			t.Error("no room")
		}
	}
	if r.enter() {
		t.Error("room for an eleventh")
	}
	key, _ := r.join(mustAddr(t, "192.0.2.2"))
	r.leave(key)
	if !r.enter() || r.count("192.0.2.2") != 1 {
		t.Error("one that leaves makes no room")
	}
}

// badListener has no descriptors for a while.
type badListener struct {
	net.Listener
	left int
}

func (l *badListener) Accept() (net.Conn, error) {
	if l.left > 0 {
		l.left--
		return nil, &net.OpError{Op: "accept", Err: syscall.EMFILE}
	}
	return l.Listener.Accept()
}

func TestAcceptingGoesOnWhenDescriptorsAreShort(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	far, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer far.Close()
	listener := new(clients).listen(&badListener{ln, 2})
	conn, err := listener.Accept()
	if err != nil {
		t.Fatal(err)
	}
	_ = conn.Close()
	_ = ln.Close()
	if _, err := listener.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("after the listener was closed: %v", err)
	}
}
