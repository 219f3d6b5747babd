package gateway

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/valyala/fasthttp"

	"portcullis/identity"
)

const (
	upgradeRequest = "GET /chat HTTP/1.1\r\nHost: h\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: x\r\n\r\n"
	upgradeSeen    = "GET /chat HTTP/1.1\r\nHost: h\r\nSec-WebSocket-Key: x\r\nX-Ours: yes\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
	upgradeAnswer  = "HTTP/1.1 101 Switching Protocols\r\nupgrade: WebSocket\r\nConnection: upgrade\r\nSec-WebSocket-Accept: y\r\n\r\n"
	upgradeGot     = "HTTP/1.1 101 Switching Protocols\r\nSec-WebSocket-Accept: y\r\nConnection: Upgrade\r\nUpgrade: WebSocket\r\n\r\n"
)

// tunnelEnd is what outbound.done was told.
type tunnelEnd struct {
	in, out int64
	err     error
}

// serveTunnels is serveEdge for upgrades.
func serveTunnels(t *testing.T, u *upstream, timeout routeTimeouts) (*edge, chan tunnelEnd) {
	t.Helper()
	ends := make(chan tunnelEnd, 10)
	return serveEdge(t, u, func(_ *fasthttp.RequestCtx, out *outbound) {
		out.timeout = timeout
		out.done = func(in, out int64, err error) { ends <- tunnelEnd{in, out, err} }
	}), ends
}

func closeWriting(w *wire) { _ = closeWrite(w.Conn) }

func TestForwardUpgrades(t *testing.T) {
	tests := map[string]struct {
		upstream, client func(w *wire)
		in, out          int64
	}{
		"and carries bytes in both directions": {
			upstream: func(w *wire) { w.say("one"); w.hear("two"); w.say("three"); w.hearEnd() },
			client:   func(w *wire) { w.hear("one"); w.say("two"); w.hear("three") },
			in:       3, out: 8,
		},
		"and keeps one direction when the client has ended the other": {
			upstream: func(w *wire) { w.hear("last word"); w.hearEnd(); w.say("after"); w.say("wards") },
			client:   func(w *wire) { w.say("last word"); closeWriting(w); w.hear("afterwards"); w.hearEnd() },
			in:       9, out: 10,
		},
		"and keeps one direction when the upstream has ended the other": {
			upstream: func(w *wire) { w.say("last word"); closeWriting(w); w.hear("afterwards"); w.hearEnd() },
			client:   func(w *wire) { w.hear("last word"); w.hearEnd(); w.say("after"); w.say("wards") },
			in:       10, out: 9,
		},
		"and tells the upstream when the client has gone": {
			upstream: func(w *wire) { w.hearEnd() },
			client:   func(*wire) {},
		},
		"and tells the client when the upstream has gone": {
			upstream: func(*wire) {},
			client:   func(w *wire) { w.hearEnd() },
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			noLeaks(t)
			addr := serveUpstream(t, func(_ int, w *wire) {
				w.hear(upgradeSeen)
				w.say(upgradeAnswer)
				test.upstream(w)
			})
			u := testUpstream(t, upstreamOptions{}, addr)
			e, ends := serveTunnels(t, u, routeTimeouts{})
			c := e.dial()
			c.say(upgradeRequest)
			c.hear(upgradeGot)
			if r := e.result(); r.err != nil || !r.upgraded || r.status != 101 {
				t.Errorf("%+v, %v", r.exchange, r.err)
			}
			test.client(c)
			_ = c.Close()
			if end := <-ends; end.err != nil || end.in != test.in || end.out != test.out {
				t.Errorf("done: %+v", end)
			}
			if s := u.status(time.Now())[0]; s.active != 0 || s.idle != 0 {
				t.Errorf("%+v", s)
			}
		})
	}
}

func TestForwardLosesNothingAroundAnUpgrade(t *testing.T) {
	noLeaks(t)
	addr := serveUpstream(t, func(_ int, w *wire) {
		w.hear(upgradeSeen)
		w.silent() // what is not HTTP must not come before the answer
		w.say(upgradeAnswer + "behind the answer")
		w.hear("behind the request" + strings.Repeat("x", 30000) + "end")
	})
	e, ends := serveTunnels(t, testUpstream(t, upstreamOptions{}, addr), routeTimeouts{})
	c := e.dial()
	c.say(upgradeRequest + "behind the request" + strings.Repeat("x", 30000))
	c.hear(upgradeGot + "behind the answer")
	c.say("end")
	c.hearEnd()
	_ = c.Close()
	<-ends
}

func TestForwardPassesOnARefusedUpgrade(t *testing.T) {
	noLeaks(t)
	addr := serveUpstream(t, func(_ int, w *wire) {
		w.hear(upgradeSeen)
		w.say("HTTP/1.1 403 Forbidden\r\nDate: x\r\nContent-Length: 2\r\n\r\nno")
		w.hear("GET /next HTTP/1.1\r\nHost: h\r\nX-Ours: yes\r\n\r\n")
		w.say(okAnswer)
	})
	e, _ := serveTunnels(t, testUpstream(t, upstreamOptions{}, addr), routeTimeouts{})
	c := e.dial()
	c.say(upgradeRequest)
	c.hear("HTTP/1.1 403 Forbidden\r\nDate: x\r\nContent-Length: 2\r\n\r\nno")
	c.say("GET /next HTTP/1.1\r\nHost: h\r\n\r\n")
	c.hear(okAnswer)
}

func TestForwardRefusesAnUpgradeThatWasNotAskedFor(t *testing.T) {
	for name, answer := range map[string]string{
		"to another protocol":          "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n",
		"to no protocol":               "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n\r\n",
		"that Connection does not say": "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n",
		"in HTTP/1.0":                  "HTTP/1.0 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			noLeaks(t)
			addr := serveUpstream(t, func(_ int, w *wire) {
				w.head()
				w.say(answer)
				w.hearEnd()
			})
			e, _ := serveTunnels(t, testUpstream(t, upstreamOptions{}, addr), routeTimeouts{})
			c := e.dial()
			c.say(upgradeRequest)
			if head := c.head(); !strings.HasPrefix(head, "HTTP/1.1 500 ") {
				t.Errorf("client got %q", head)
			}
			e.fails(errUpstreamMalformed)
		})
	}
}

func TestForwardDoesNotUpgradeARequestWithABody(t *testing.T) {
	noLeaks(t)
	addr := serveUpstream(t, func(_ int, w *wire) {
		w.hear("POST / HTTP/1.1\r\nHost: h\r\nX-Ours: yes\r\nContent-Length: 2\r\n\r\nab")
		w.say(okAnswer)
	})
	e, _ := serveTunnels(t, testUpstream(t, upstreamOptions{}, addr), routeTimeouts{})
	c := e.dial()
	c.say("POST / HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nContent-Length: 2\r\n\r\nab")
	c.hear(okAnswer)
}

func TestATunnelEndsWhenNothingMoves(t *testing.T) {
	noLeaks(t)
	timeout := routeTimeouts{idle: 300 * time.Millisecond}
	addr := serveUpstream(t, func(_ int, w *wire) {
		w.head()
		w.say(upgradeAnswer)
		for range 6 { // one direction is enough to keep both
			time.Sleep(timeout.idle / 5)
			w.say(".")
		}
		w.hearEnd()
	})
	e, ends := serveTunnels(t, testUpstream(t, upstreamOptions{}, addr), timeout)
	c := e.dial()
	c.say(upgradeRequest)
	c.hear(upgradeGot + "......")
	c.hearEnd()
	if end := <-ends; !isTimeout(end.err) {
		t.Errorf("done: %+v", end)
	}
}

func TestATunnelEndsWhenTheClientTakesNothing(t *testing.T) {
	noLeaks(t)
	addr := serveUpstream(t, func(_ int, w *wire) {
		w.head()
		w.say(upgradeAnswer)
		_, _ = w.Write(make([]byte, 64<<20)) // may be refused halfway
	})
	e, ends := serveTunnels(t, testUpstream(t, upstreamOptions{}, addr), routeTimeouts{idle: 50 * time.Millisecond})
	c := e.dial()
	c.say(upgradeRequest)
	c.hear(upgradeGot)
	said := make(chan struct{})
	go func() { // though it goes on talking
		defer close(said)
		for {
			if _, err := c.Write([]byte(".")); err != nil {
				return
			}
			time.Sleep(5 * time.Millisecond)
		}
	}()
	start := time.Now()
	if end := <-ends; !isTimeout(end.err) || time.Since(start) > patience/2 {
		t.Errorf("done: %+v after %v", end, time.Since(start))
	}
	<-said
}

func TestATunnelCarriesMuch(t *testing.T) {
	noLeaks(t)
	const size = 8 << 20
	both := func(w *wire) {
		sent := make(chan struct{})
		go func() {
			defer close(sent)
			w.say(strings.Repeat("x", size))
			closeWriting(w)
		}()
		if n, err := io.Copy(io.Discard, w.in); n != size || err != nil {
			w.t.Errorf("%d bytes, %v", n, err)
		}
		<-sent
	}
	addr := serveUpstream(t, func(_ int, w *wire) {
		w.head()
		w.say(upgradeAnswer)
		both(w)
	})
	e, ends := serveTunnels(t, testUpstream(t, upstreamOptions{}, addr), routeTimeouts{})
	c := e.dial()
	c.say(upgradeRequest)
	c.hear(upgradeGot)
	both(c)
	if end := <-ends; fmt.Sprint(end) != fmt.Sprint(tunnelEnd{size, size, nil}) {
		t.Errorf("done: %+v", end)
	}
}

// A connection that became HTTP again would carry requests past the policy. Upgrade is
// a wish: the request itself goes on without it.
func TestNoConnectionBecomesHTTPAgain(t *testing.T) {
	e := startGateway(t)
	for protocol, passed := range map[string]bool{
		"websocket": true, "WebSocket": true, "x/1": true,
		"h2c": false, "H2C": false, "h2": false, "HTTP/2.0": false, "TLS/1.2": false, "websocket, h2c": false, "h2c ,websocket": false,
	} {
		e.send(get("/public/x", "Connection: Upgrade, HTTP2-Settings", "HTTP2-Settings: AAMAAABk", "Upgrade: "+protocol))
		seen := e.requests()
		if len(seen) != 1 || strings.Contains(seen[0], "\r\nUpgrade: ") != passed || strings.Contains(seen[0], "\r\nConnection: ") != passed {
			t.Errorf("%s: the upstream saw %q", protocol, seen)
		}
	}
}

// What a logout, or an administrator, has ended is not carried on by a connection that
// was upgraded before. Those of others are, and of strangers.
func TestATunnelEndsWithWhatProvedItsCaller(t *testing.T) {
	for name, end := range map[string]func(s *identity.Service, p *identity.Principal) error{
		"the session is ended": func(s *identity.Service, p *identity.Principal) error {
			return s.Logout(t.Context(), p, identity.LogoutLocal, identity.Client{})
		},
		"the user is disabled": func(s *identity.Service, p *identity.Principal) error {
			inactive := false
			_, err := s.UpdateUser(t.Context(), nil, p.UserID, identity.Change{Active: &inactive}, identity.Client{})
			return err
		},
		"the user has other roles": func(s *identity.Service, p *identity.Principal) error {
			_, err := s.UpdateUser(t.Context(), nil, p.UserID, identity.Change{Roles: &[]string{}}, identity.Client{})
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			noLeaks(t)
			e := startBadUpstream(t, "http", false, func(_ int, b *badConn) {
				b.head()
				b.say(upgradeAnswer)
				_, _ = io.Copy(b.Conn, b.in) // an echo
			})
			token := e.token("uma", "user")
			p, err := e.service.Verify([]byte(token), time.Now())
			if err != nil {
				t.Fatal(err)
			}
			open := func(fields string) *badClient {
				c := e.dial()
				c.say(strings.Replace(strings.Replace(upgradeRequest, "/chat", "/public/chat", 1), "Host: h\r\n", "Host: h\r\n"+fields, 1))
				c.answers("101", "")
				return c
			}
			umas, bobs, nobodys := open("Authorization: Bearer "+token+"\r\n"), open("Authorization: Bearer "+e.token("bob", "user")+"\r\n"), open("")
			umas.say("ping")
			umas.hear("ping")
			if err := end(e.service, p); err != nil {
				t.Fatal(err)
			}
			umas.hearEnd()
			waitUntil(t, func() bool { return strings.Contains(e.log.String(), errRevoked.Error()) })
			for _, c := range []*badClient{bobs, nobodys} {
				c.say("pong")
				c.hear("pong")
			}
		})
	}
}

// So is an answer that has no end, whether anything comes of it or not: what is revoked is
// remembered for as long as a token is valid. One that has a length is not.
func TestAStreamEndsWithWhatProvedItsCaller(t *testing.T) {
	noLeaks(t)
	goOn := make(chan struct{})
	e := startBadUpstream(t, "http", false, func(_ int, b *badConn) {
		head := b.head()
		if strings.Contains(head, "/file") {
			b.say("HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nabc")
			<-goOn
			b.say("def")
			return
		}
		b.say("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
		if strings.Contains(head, "/silent") {
			b.say("1\r\n.\r\n")
			_, _ = io.Copy(io.Discard, b.in)
			return
		}
		for {
			if _, err := io.WriteString(b.Conn, "1\r\n.\r\n"); err != nil {
				return
			}
			time.Sleep(revocationLook / 20)
		}
	})
	token := e.token("uma", "user")
	p, err := e.service.Verify([]byte(token), time.Now())
	if err != nil {
		t.Fatal(err)
	}
	open := func(path, token string) *bufio.Reader {
		c := e.dial()
		if path == "silent/upload" { // that goes on beside it
			c.say("POST /public/" + path + " HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\nAuthorization: Bearer " + token + "\r\n\r\n1\r\nx\r\n")
		} else {
			c.say("GET /public/" + path + " HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer " + token + "\r\n\r\n")
		}
		res, err := http.ReadResponse(c.in, nil)
		if err != nil || res.StatusCode != 200 {
			t.Fatal(res, err)
		}
		return bufio.NewReader(res.Body)
	}
	bobs, file := open("events", e.token("bob", "user")), open("file", token)
	umas := []*bufio.Reader{open("events", token), open("silent", token), open("silent/upload", token)}
	if err := e.service.Logout(t.Context(), p, identity.LogoutLocal, identity.Client{}); err != nil {
		t.Fatal(err)
	}
	for _, stream := range umas {
		if _, err := io.Copy(io.Discard, stream); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("the stream ended as if it was whole: %v", err)
		}
	}
	waitUntil(t, func() bool { return strings.Count(e.log.String(), errRevoked.Error()) == len(umas) })
	close(goOn)
	if got, err := io.ReadAll(file); string(got) != "abcdef" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
	if _, err := io.ReadFull(bobs, make([]byte, 30)); err != nil {
		t.Errorf("somebody else's stream: %v", err)
	}
}
