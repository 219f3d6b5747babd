package gateway

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
)

// Whatever an upstream says, and however it stops, the client hears the same from both
// roads, and nothing that is not meant for it.
func TestBothRoadsBringTheSameAnswers(t *testing.T) {
	const ok = "HTTP/1.1 200 OK\r\nDate: x\r\nContent-Length: 2\r\n\r\nok"
	type ending uint8
	const (
		stays ending = iota
		closes
		resets
	)
	answers := map[string]struct {
		raw string
		end ending
	}{
		"plain":                             {ok, stays},
		"and closes":                        {ok, closes},
		"announces a close":                 {strings.Replace(ok, "Date", "Connection: close\r\nDate", 1), closes},
		"more than it should":               {ok + "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nforged", stays},
		"interim answers":                   {"HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + ok, stays},
		"100 that nobody waits for":         {"HTTP/1.1 100 Continue\r\n\r\n" + ok, stays},
		"interim answers without end":       {strings.Repeat("HTTP/1.1 103 x\r\n\r\n", 30), stays},
		"a protocol nobody asked for":       {"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n" + ok, stays},
		"204 with a length":                 {"HTTP/1.1 204 No Content\r\nDate: x\r\nContent-Length: 2\r\n\r\nok", stays},
		"204 with chunks":                   {"HTTP/1.1 204 No Content\r\nDate: x\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", stays},
		"304 with a length":                 {"HTTP/1.1 304 Not Modified\r\nDate: x\r\nContent-Length: 2\r\n\r\nok", stays},
		"chunks":                            {"HTTP/1.1 200 OK\r\nDate: x\r\nTransfer-Encoding: chunked\r\n\r\n2;a=b\r\nok\r\n0\r\nX-User-Id: eve\r\n\r\n", stays},
		"until it closes":                   {"HTTP/1.1 200 OK\r\nDate: x\r\n\r\nok", closes},
		"until it closes, HTTP/1.0":         {"HTTP/1.0 200 OK\r\nDate: x\r\n\r\nok", closes},
		"nothing":                           {"", closes},
		"a reset":                           {"", resets},
		"half a head":                       {ok[:20], closes},
		"half a body":                       {strings.Replace(ok, "2\r\n", "3\r\n", 1), closes},
		"half a body, and a reset":          {strings.Replace(ok, "2\r\n", "3\r\n", 1), resets},
		"half the chunks":                   {"HTTP/1.1 200 OK\r\nDate: x\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n", closes},
		"a chunk that is none":              {"HTTP/1.1 200 OK\r\nDate: x\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\nzz\r\n", stays},
		"no HTTP":                           {"SSH-2.0-OpenSSH_9.2\r\n", stays},
		"two lengths":                       {"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok", stays},
		"fields that are the gateway's":     {strings.Replace(ok, "Date", "X-Identity-Assertion: x\r\nX-Gateway-Error: x\r\nConnection: x-up\r\nX-Up: 1\r\nDate", 1), stays},
		"an error of its own, and no close": {strings.Replace(ok, "200 OK", "500 Oh", 1), stays},
	}
	var now atomic.Pointer[string] // which of them
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ln.Close() })
	serve := func(conn net.Conn) {
		defer conn.Close()
		for in := bufio.NewReader(conn); ; {
			r, err := http.ReadRequest(in)
			if err != nil {
				return
			}
			_, _ = io.Copy(io.Discard, r.Body)
			answer := answers[*now.Load()]
			if _, err := io.WriteString(conn, answer.raw); err != nil || answer.end == closes {
				return
			} else if answer.end == resets {
				_ = conn.(*net.TCPConn).SetLinger(0)
				return
			}
		}
	}
	go func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			go serve(conn)
		}
	}()
	both := startTwoRoads(t, &url.URL{Scheme: "http", Host: ln.Addr().String()})
	const post = "POST /public/b HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhello"
	head := strings.Replace(get("/public/a"), "GET", "HEAD", 1)
	for name := range answers {
		for method, raw := range map[string]string{
			"GET": get("/public/a"), "HEAD": head, "POST": post, "all": get("/public/a") + head + post + get("/tasks/x") + get("/public/a"),
		} {
			t.Run(name+"/"+method, func(t *testing.T) {
				now.Store(&name)
				fast, server := both.outcomes(func(e *testGateway) string {
					e.gateway.state.Load().route("/public").upstream.targets[0].breaker.succeeded()
					return both.outcome(t, e, []byte(raw), nil)
				})
				if fast != server {
					t.Errorf("fast:\n%s\n\nserver:\n%s", fast, server)
				}
				if strings.Contains(fast, "forged") || strings.Contains(strings.ToLower(fast), "assertion") || strings.Contains(fast, "eve") {
					t.Errorf("the client hears %s", fast)
				}
			})
		}
	}
}

// A client that leaves, however it does and whatever it still had to say, ends the
// upstream's work and takes nothing else along.
func TestAClientThatLeavesInTheMiddleOfAnAnswer(t *testing.T) {
	for road, before := range map[string]string{"fast path": "", "server": "\r\n"} {
		for how, leave := range map[string]func(*net.TCPConn){
			"closes": func(c *net.TCPConn) { _ = c.Close() },
			"resets": func(c *net.TCPConn) { _ = c.SetLinger(0); _ = c.Close() },
			"asks for more, and resets": func(c *net.TCPConn) {
				_, _ = io.WriteString(c, get("/public/next"))
				_ = c.SetLinger(0)
				_ = c.Close()
			},
		} {
			t.Run(road+"/"+how, func(t *testing.T) {
				ended := make(chan struct{}, 10)
				upstream := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
					defer func() { ended <- struct{}{} }()
					for {
						if _, err := w.Write(make([]byte, 32<<10)); err != nil {
							return
						}
					}
				}))
				t.Cleanup(upstream.Close)
				at, err := url.Parse(upstream.URL)
				if err != nil {
					t.Fatal(err)
				}
				e := startGateway(t, func(c *StateConfig) { c.Upstreams[0].Targets = []*url.URL{at} })
				conn := e.dialTCP()
				if _, err := io.WriteString(conn, before+get("/public/x")); err != nil {
					t.Fatal(err)
				}
				if _, err := io.ReadFull(conn, make([]byte, 100<<10)); err != nil {
					t.Fatal(err)
				}
				leave(conn.(*net.TCPConn))
				<-ended
				target := e.gateway.state.Load().route("/public").upstream.targets[0]
				waitUntil(t, func() bool { return e.gateway.clients.count() == 0 && target.active.Load() == 0 })
				waitUntil(t, func() bool { return strings.Contains(e.log.String(), "msg=request") })
				if log := e.log.String(); strings.Count(log, "msg=request") != 1 || !strings.Contains(log, "status=200") || !strings.Contains(log, "client has left") {
					t.Errorf("log: %s", log)
				}
			})
		}
	}
}
