package gateway

import (
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"time"
)

// A drain loses no request: what is under way is answered, what is idle is ended,
// and nothing is held up by who says nothing.

// shutdown begins a shutdown and returns what tells its end.
func (e *testGateway) shutdown(ctx context.Context) chan error {
	done := make(chan error, 1)
	go func() { done <- e.gateway.Shutdown(ctx) }()
	return done
}

func (e *testGateway) ends(done chan error) error {
	e.t.Helper()
	select {
	case err := <-done:
		return err
	case <-time.After(patience):
		e.t.Fatal("the shutdown does not end")
	}
	return nil
}

// answers reads one answer and returns its head.
func (c *badClient) answers(status, body string) (head string) {
	c.t.Helper()
	head = c.head()
	if !strings.HasPrefix(head, "HTTP/1.1 "+status+" ") {
		c.t.Errorf("got %q, want %s", head, status)
	}
	c.hear(body)
	return head
}

func closes(head string) bool { return strings.Contains(head, "\r\nConnection: close\r\n") }

func TestWhileDrainingEveryAnswerEndsItsConnection(t *testing.T) {
	e := startGateway(t)
	kept := e.dial()
	kept.say(get("/public/x"))
	if closes(kept.answers("200", "ok")) {
		t.Error("a connection is not kept")
	}
	e.gateway.Drain()
	for _, test := range []struct{ request, status string }{
		{get("/public/x"), "200"},
		{get("/tasks/1"), "401"},
		{get("/a/../b"), "400"},
		{get("/.well-known/jwks.json"), "200"},
		{"BREW / HTTP/1.1\r\nHost: h\r\n\r\n", "501"},
		{"POST /auth/login HTTP/1.1\r\nHost: h\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}", "400"},
	} {
		c := e.dial() // it goes on accepting them
		c.say(test.request)
		if head := c.answers(test.status, ""); !closes(head) {
			t.Errorf("%.20q is answered %q", test.request, head)
		}
		if _, err := c.rest(); err != nil {
			t.Error(err)
		}
	}
	kept.say(get("/public/x"))
	if !closes(kept.answers("200", "ok")) {
		t.Error("a connection is kept")
	}
	kept.hearEnd()
}

func TestAShutdownEndsIdleConnectionsAndNoOthers(t *testing.T) {
	noLeaks(t)
	asked, answer := make(chan struct{}, 10), make(chan struct{})
	e := startBadUpstream(t, "http", false, func(_ int, b *badConn) {
		for head := b.head(); head != ""; head = b.head() {
			if strings.HasPrefix(head, "POST") {
				asked <- struct{}{}
				<-answer
			}
			if strings.Contains(head, "chunked") {
				b.hear("1\r\nx\r\n1\r\ny\r\n0\r\n\r\n")
			}
			b.say(okAnswer)
		}
	})
	silent, idle, halfHead, waits, uploads := e.dial(), e.dial(), e.dial(), e.dial(), e.dial()
	idle.say(get("/public/x"))
	idle.answers("200", "ok")
	halfHead.say("GET /public/x HTTP/1.1\r\nHo")
	waits.say("POST /public/x HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n")
	uploads.say("POST /public/x HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n")
	<-asked
	<-asked
	done := e.shutdown(context.Background())
	idle.hearEnd()
	silent.hearEnd()
	if _, err := net.Dial("tcp", e.addr); err == nil {
		t.Error("it goes on accepting connections")
	}
	halfHead.say("st: h\r\n\r\n")
	if !closes(halfHead.answers("200", "ok")) {
		t.Error("a connection is kept")
	}
	halfHead.hearEnd()
	uploads.say("1\r\ny\r\n0\r\n\r\n")
	select {
	case err := <-done:
		t.Errorf("the shutdown did not wait: %v", err)
	default:
	}
	close(answer)
	waits.answers("200", "ok")
	waits.hearEnd()
	uploads.answers("200", "ok")
	uploads.hearEnd()
	if err := e.ends(done); err != nil {
		t.Error(err)
	}
}

func TestARequestThatHasArrivedIsReadBeforeItsConnectionIsClosed(t *testing.T) {
	c, far := connPair(t)
	far.say("GET")
	waitUntil(t, func() bool { return arrived(c) })
	if c.leave() {
		t.Error("taken for a tunnel")
	}
	buf := make([]byte, 8)
	if n, err := c.Read(buf); string(buf[:n]) != "GET" || err != nil {
		t.Fatalf("%q, %v", buf[:n], err)
	}
	// It has begun, so the rest is waited for, and in the time that the server has set.
	go func() { far.silent(); far.say(" /") }()
	if n, err := c.Read(buf); string(buf[:n]) != " /" || err != nil {
		t.Fatalf("%q, %v", buf[:n], err)
	}
	c.began = false // answered
	c.leave()
	if n, err := c.Read(buf); n != 0 || !errors.Is(err, io.EOF) {
		t.Errorf("%q, %v", buf[:n], err)
	}
}

func TestAShutdownEndsTunnelsLast(t *testing.T) {
	noLeaks(t)
	asked, answer := make(chan struct{}), make(chan struct{})
	e := startBadUpstream(t, "http", false, func(_ int, b *badConn) {
		if strings.HasPrefix(b.head(), "GET /public/x ") {
			close(asked)
			<-answer
			b.say(okAnswer)
			return
		}
		b.say(upgradeAnswer)
		_, _ = io.Copy(b.Conn, b.in) // an echo
	})
	tunnel, waits := e.dial(), e.dial()
	tunnel.say(strings.Replace(upgradeRequest, "/chat", "/public/chat", 1))
	tunnel.answers("101", "")
	tunnel.say("ping")
	tunnel.hear("ping")
	waits.say(get("/public/x"))
	<-asked
	done := e.shutdown(context.Background())
	waitUntil(t, func() bool { conn, err := net.Dial("tcp", e.addr); return err != nil || conn.Close() != nil })
	tunnel.say("pong")
	tunnel.hear("pong")
	close(answer)
	waits.answers("200", "ok")
	tunnel.hearEnd()
	if err := e.ends(done); err != nil {
		t.Error(err)
	}
	waitUntil(t, func() bool { return strings.Contains(e.log.String(), errTunnelClosed.Error()) })
}

func TestAShutdownThatTakesTooLongCutsWhatIsLeft(t *testing.T) {
	noLeaks(t)
	asked := make(chan struct{}, 10)
	e := startBadUpstream(t, "http", false, func(_ int, b *badConn) {
		b.head()
		asked <- struct{}{}
		b.untilClosed()
	})
	c := e.dial()
	c.say(get("/public/x"))
	<-asked
	ctx, cancel := context.WithCancel(context.Background())
	done := e.shutdown(ctx)
	waitUntil(t, func() bool { conn, err := net.Dial("tcp", e.addr); return err != nil || conn.Close() != nil })
	cancel()
	if got, _ := c.rest(); got != "" {
		t.Errorf("got %q", got)
	}
	if err := e.ends(done); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
}

// arrived reports whether there is something to be read.
func arrived(c *clientConn) bool {
	tcp, ok := tcpOf(c.Conn)
	return ok && readable(rawSocket(tcp))
}
