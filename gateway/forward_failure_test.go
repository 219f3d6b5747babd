package gateway

import (
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/valyala/fasthttp"
)

const okAnswer = "HTTP/1.1 200 OK\r\nDate: x\r\nContent-Length: 2\r\n\r\nok"

// reset makes the close of a connection a reset.
func (w *wire) reset() {
	tcp, _ := tcpOf(w.Conn)
	_ = tcp.SetLinger(0)
	_ = tcp.Close()
}

func TestForwardRefusesWhatIsNoAnswer(t *testing.T) {
	tests := map[string]string{
		"another protocol":                    "SSH-2.0-OpenSSH_9.2\n",
		"garbage":                             "\x00\x01\x02\x03",
		"HTTP/2":                              "HTTP/2 200 OK\n\n",
		"HTTP/1.2":                            "HTTP/1.2 200 OK\n\n",
		"HTTP/0.9":                            "<html>",
		"a status of two digits":              "HTTP/1.1 20 OK\nContent-Length: 0\n\n",
		"a status of four digits":             "HTTP/1.1 2000 OK\nContent-Length: 0\n\n",
		"a status below 100":                  "HTTP/1.1 099 OK\nContent-Length: 0\n\n",
		"a status that is no number":          "HTTP/1.1 2x0 OK\nContent-Length: 0\n\n",
		"two spaces before the status":        "HTTP/1.1  200 OK\nContent-Length: 0\n\n",
		"a tab before the status":             "HTTP/1.1\t200 OK\nContent-Length: 0\n\n",
		"a NUL in the reason":                 "HTTP/1.1 200 O\x00K\nContent-Length: 0\n\n",
		"a repeated Content-Length":           "HTTP/1.1 200 OK\nContent-Length: 2\nContent-Length: 2\n\nok",
		"differing Content-Lengths":           "HTTP/1.1 200 OK\nContent-Length: 2\ncontent-length: 3\n\nok",
		"a list of Content-Lengths":           "HTTP/1.1 200 OK\nContent-Length: 2, 2\n\nok",
		"an empty Content-Length":             "HTTP/1.1 200 OK\nContent-Length:\n\nok",
		"a negative Content-Length":           "HTTP/1.1 200 OK\nContent-Length: -2\n\nok",
		"a signed Content-Length":             "HTTP/1.1 200 OK\nContent-Length: +2\n\nok",
		"a hexadecimal Content-Length":        "HTTP/1.1 200 OK\nContent-Length: 0x2\n\nok",
		"a Content-Length that overflows":     "HTTP/1.1 200 OK\nContent-Length: 99999999999999999999\n\nok",
		"both Content-Length and chunks":      "HTTP/1.1 200 OK\nContent-Length: 2\nTransfer-Encoding: chunked\n\n0\n\n",
		"both, the other way round":           "HTTP/1.1 200 OK\nTransfer-Encoding: chunked\nContent-Length: 2\n\n0\n\n",
		"an encoding behind chunked":          "HTTP/1.1 200 OK\nTransfer-Encoding: chunked, gzip\n\n0\n\n",
		"an encoding before chunked":          "HTTP/1.1 200 OK\nTransfer-Encoding: gzip, chunked\n\n0\n\n",
		"chunked twice":                       "HTTP/1.1 200 OK\nTransfer-Encoding: chunked\nTransfer-Encoding: chunked\n\n0\n\n",
		"the identity encoding":               "HTTP/1.1 200 OK\nTransfer-Encoding: identity\n\nok",
		"an unknown encoding":                 "HTTP/1.1 200 OK\nTransfer-Encoding: xchunked\n\n0\n\n",
		"chunks in HTTP/1.0":                  "HTTP/1.0 200 OK\nTransfer-Encoding: chunked\n\n0\n\n",
		"a folded field":                      "HTTP/1.1 200 OK\nX: a\n b\nContent-Length: 0\n\n",
		"a space before the colon":            "HTTP/1.1 200 OK\nContent-Length : 0\n\n",
		"a field without name":                "HTTP/1.1 200 OK\n: x\nContent-Length: 0\n\n",
		"a field without colon":               "HTTP/1.1 200 OK\nContent-Length 0\n\n",
		"a name that is no token":             "HTTP/1.1 200 OK\nX(Y): 1\nContent-Length: 0\n\n",
		"a NUL in a value":                    "HTTP/1.1 200 OK\nX: a\x00b\nContent-Length: 0\n\n",
		"a bare CR in a value":                "HTTP/1.1 200 OK\nX: a\rb\nContent-Length: 0\n\n",
		"a chunk size that is no number":      "HTTP/1.1 200 OK\nTransfer-Encoding: chunked\n\nx\n",
		"a chunk size that is missing":        "HTTP/1.1 200 OK\nTransfer-Encoding: chunked\n\n\n",
		"a signed chunk size":                 "HTTP/1.1 200 OK\nTransfer-Encoding: chunked\n\n+2\nok\n0\n\n",
		"a chunk size behind a space":         "HTTP/1.1 200 OK\nTransfer-Encoding: chunked\n\n 2\nok\n0\n\n",
		"a chunk size before a space":         "HTTP/1.1 200 OK\nTransfer-Encoding: chunked\n\n2 \nok\n0\n\n",
		"a chunk size with a prefix":          "HTTP/1.1 200 OK\nTransfer-Encoding: chunked\n\n0x2\nok\n0\n\n",
		"a chunk size that overflows":         "HTTP/1.1 200 OK\nTransfer-Encoding: chunked\n\n1000000000000002\nok\n0\n\n",
		"a chunk longer than its size":        "HTTP/1.1 200 OK\nTransfer-Encoding: chunked\n\n1\nok\n0\n\n",
		"a NUL in a chunk extension":          "HTTP/1.1 200 OK\nTransfer-Encoding: chunked\n\n2;\x00\nok\n0\n\n",
		"a chunk extension that does not end": "HTTP/1.1 200 OK\nTransfer-Encoding: chunked\n\n2;" + strings.Repeat("x", maxChunkOverhead+1),
		"a trailer that does not end":         "HTTP/1.1 200 OK\nTransfer-Encoding: chunked\n\n0\nX: " + strings.Repeat("x", maxChunkOverhead+1),
		"a head that does not end":            "HTTP/1.1 200 OK\nX: " + strings.Repeat("x", maxHead),
		"a head of many fields that does not": "HTTP/1.1 200 OK\n" + strings.Repeat("X: y\n", maxHead/6+1),
		"informational answers without end":   strings.Repeat("HTTP/1.1 102 Processing\n\n", maxInterim+1),
		"101 to nothing":                      "HTTP/1.1 101 Switching Protocols\nConnection: Upgrade\n\n",
		"101 that was not asked for":          "HTTP/1.1 101 Switching Protocols\nConnection: Upgrade\nUpgrade: websocket\n\n",
	}
	// What could go on is refused when it does not; everything else at once.
	halves := map[string]string{
		"nothing at all":                         "",
		"half a head":                            "HTTP/1.1 200 OK\nContent-Le",
		"an informational answer, and then none": "HTTP/1.1 103 Early Hints\n\n",
	}
	raw := map[string]string{ // as they are
		"lines that end in LF":             "HTTP/1.1 200 OK\nContent-Length: 2\n\nok",
		"one line that ends in LF":         "HTTP/1.1 200 OK\r\nX: 1\nContent-Length: 2\r\n\r\nok",
		"a status line that ends in LF":    "HTTP/1.1 200 OK\nContent-Length: 2\r\n\r\nok",
		"a line that ends in CR":           "HTTP/1.1 200 OK\rContent-Length: 2\r\n\r\nok",
		"a chunk size that ends in LF":     "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\nok\r\n0\r\n\r\n",
		"a chunk that ends in LF":          "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\n0\r\n\r\n",
		"a chunk extension that has an LF": "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2;a\nok\r\n0\r\n\r\n",
		"a trailer that ends in LF":        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX: 1\n\r\n",
	}
	for name, answer := range tests {
		raw[name] = crlf(answer)
	}
	for name, answer := range halves {
		raw[name] = crlf(answer)
	}
	for name, answer := range raw {
		t.Run(name, func(t *testing.T) {
			noLeaks(t)
			addr := serveUpstream(t, func(_ int, w *wire) {
				w.head()
				_, _ = io.WriteString(w.Conn, answer) // may be refused halfway
				if _, ok := halves[name]; ok {
					_ = w.Conn.(*net.TCPConn).CloseWrite()
				}
				_, _ = io.Copy(io.Discard, w.in) // the gateway has to close it
			})
			e := serveEdge(t, testUpstream(t, upstreamOptions{}, addr), nil)
			c := e.dial()
			c.say("GET / HTTP/1.1\r\nHost: h\r\n\r\n")
			if head := c.head(); !strings.HasPrefix(head, "HTTP/1.1 500 ") {
				t.Errorf("client got %q", head)
			}
			c.hear(errUpstreamMalformed.Error())
			if r := e.fails(errUpstreamMalformed); r.answered || r.attempts != 1 {
				t.Errorf("%+v", r.exchange)
			}
			// The client's connection is as good as before.
			c.say("SELF / HTTP/1.1\r\nHost: h\r\n\r\n")
			c.head()
			c.hear("own")
		})
	}
}

func TestForwardCutsAnAnswerThatDoesNotEnd(t *testing.T) {
	const head = "HTTP/1.1 200 OK\r\nDate: x\r\n"
	tests := map[string]struct {
		answer, gets string
		http10       bool
		reset        bool // the upstream resets instead of closing
		isReset      bool // the client has to see a reset
	}{
		"of a length":                {answer: head + "Content-Length: 5\r\n\r\nabc", gets: head + "Content-Length: 5\r\n\r\nabc"},
		"of a length, after a reset": {answer: head + "Content-Length: 5\r\n\r\nabc", gets: head + "Content-Length: 5\r\n\r\nabc", reset: true},
		"in a chunk":                 {answer: head + "Transfer-Encoding: chunked\r\n\r\n5\r\nabc", gets: head + "Transfer-Encoding: chunked\r\n\r\n5\r\nabc"},
		"between chunks":             {answer: head + "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n", gets: head + "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n"},
		"in the trailers":            {answer: head + "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nX: 1\r\n", gets: head + "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n"},
		"reset instead of closed":    {answer: head + "\r\nabc", gets: head + "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n", reset: true},
		"for a client that knows the end by the end of the connection": {
			answer: head + "Content-Length: 5\r\n\r\nabc", gets: head + "Content-Length: 5\r\nConnection: close\r\n\r\nabc", http10: true, isReset: true},
		"of chunks, for such a client": {
			answer: head + "Transfer-Encoding: chunked\r\n\r\n5\r\nabc", gets: head + "Connection: close\r\n\r\nabc", http10: true, isReset: true},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			noLeaks(t)
			heard := make(chan struct{})
			addr := serveUpstream(t, func(_ int, w *wire) {
				w.head()
				w.say(test.answer)
				<-heard
				if test.reset {
					w.reset()
				}
			})
			e := serveEdge(t, testUpstream(t, upstreamOptions{}, addr), nil)
			c := e.dial()
			version := "HTTP/1.1"
			if test.http10 {
				version = "HTTP/1.0"
			}
			c.say("GET / " + version + "\r\nHost: h\r\n\r\n")
			c.hear(test.gets)
			close(heard)
			if got, err := c.rest(); got != "" || (err != nil) != test.isReset {
				t.Errorf("client got %q, %v", got, err)
			}
			if r := e.fails(errUpstreamMalformed); !r.answered || r.status != 200 {
				t.Errorf("%+v", r.exchange)
			}
		})
	}
}

// serveFlaky is an upstream that answers the first request on each connection
// and then does what broken says; it returns what it has seen.
func serveFlaky(t *testing.T, broken func(w *wire)) (addr string, saw func() []string) {
	seen := make(chan string, 10)
	addr = serveUpstream(t, func(n int, w *wire) {
		seen <- w.head()
		w.say(okAnswer)
		if n == 0 {
			broken(w)
			return
		}
		_, _ = io.Copy(io.Discard, w.in)
	})
	return addr, func() (all []string) {
		for len(seen) > 0 {
			all = append(all, <-seen)
		}
		return all
	}
}

func TestForwardOnAConnectionThatDiedWhileItWasIdle(t *testing.T) {
	for how, die := range map[string]func(w *wire){
		"it was closed":          func(w *wire) { _ = w.Close() },
		"it was half-closed":     func(w *wire) { _ = w.Conn.(*net.TCPConn).CloseWrite() },
		"it was reset":           func(w *wire) { w.reset() },
		"it said something more": func(w *wire) { w.say("HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison") },
	} {
		for _, request := range []string{
			"GET / HTTP/1.1\r\nHost: h\r\n\r\n",
			"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\nab",
			"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n",
		} {
			t.Run(how+", "+request[:4], func(t *testing.T) {
				noLeaks(t)
				dead := make(chan struct{})
				addr, saw := serveFlaky(t, func(w *wire) {
					die(w)
					close(dead)
					_, _ = io.Copy(io.Discard, w.in)
				})
				e := serveEdge(t, testUpstream(t, upstreamOptions{}, addr), nil)
				c := e.dial()
				c.say("GET /first HTTP/1.1\r\nHost: h\r\n\r\n")
				c.hear(okAnswer)
				<-dead
				time.Sleep(5 * time.Millisecond) // loopback is quick, not instantaneous
				c.say(request)
				c.hear(okAnswer)
				e.result()
				if r := e.result(); r.err != nil || r.attempts != 1 {
					t.Errorf("%+v, %v", r.exchange, r.err)
				}
				if all := saw(); len(all) != 2 {
					t.Errorf("upstream saw %q", all)
				}
			})
		}
	}
}

func TestForwardSendsARequestAgainOnlyIfThatCanDoNoHarm(t *testing.T) {
	tests := []struct {
		name    string
		request string
		broken  func(w *wire) // what happens to it on the pooled connection
		again   bool
	}{
		{"a GET whose connection is closed", "GET / HTTP/1.1\r\nHost: h\r\n\r\n", func(w *wire) { w.head() }, true},
		{"a HEAD", "HEAD / HTTP/1.1\r\nHost: h\r\n\r\n", func(w *wire) { w.head() }, true},
		{"a DELETE", "DELETE / HTTP/1.1\r\nHost: h\r\n\r\n", func(w *wire) { w.head() }, true},
		{"a GET whose connection is reset", "GET / HTTP/1.1\r\nHost: h\r\n\r\n", func(w *wire) { w.head(); w.reset() }, true},
		{"not a GET with a body", "GET / HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\nab", func(w *wire) { w.head() }, false},
		{"not a PUT with a body", "PUT / HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\nab", func(w *wire) { w.head() }, false},
		{"not a POST", "POST / HTTP/1.1\r\nHost: h\r\n\r\n", func(w *wire) { w.head() }, false},
		{"not a POST that is streamed", "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", func(w *wire) { w.head() }, false},
		{"not a PATCH", "PATCH / HTTP/1.1\r\nHost: h\r\n\r\n", func(w *wire) { w.head() }, false},
		{"not an unknown method", "MOVE / HTTP/1.1\r\nHost: h\r\n\r\n", func(w *wire) { w.head() }, false},
		{"not if a byte of an answer has come", "GET / HTTP/1.1\r\nHost: h\r\n\r\n", func(w *wire) { w.head(); w.say("H") }, false},
		{"not if an informational answer has come", "GET / HTTP/1.1\r\nHost: h\r\n\r\n", func(w *wire) { w.head(); w.say("HTTP/1.1 103 Early Hints\r\n\r\n") }, false},
		{"not if the answer is malformed", "GET / HTTP/1.1\r\nHost: h\r\n\r\n", func(w *wire) { w.head(); w.say("nonsense") }, false},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			noLeaks(t)
			addr, saw := serveFlaky(t, test.broken)
			e := serveEdge(t, testUpstream(t, upstreamOptions{}, addr), nil)
			c := e.dial()
			c.say("GET /first HTTP/1.1\r\nHost: h\r\n\r\n")
			c.hear(okAnswer)
			c.say(test.request)
			head := c.head()
			e.result()
			r := e.result()
			if test.again {
				if !strings.HasPrefix(head, "HTTP/1.1 200 ") || r.err != nil || r.attempts != 2 || len(saw()) != 2 {
					t.Errorf("client got %q, %+v, %v", head, r.exchange, r.err)
				}
			} else if !strings.HasPrefix(head, "HTTP/1.1 500 ") || sentinel(r.err) != errUpstreamMalformed.Error() || r.attempts != 1 || len(saw()) != 1 {
				t.Errorf("client got %q, %+v, %v", head, r.exchange, r.err)
			}
		})
	}
}

func TestForwardSendsARequestAgainOnANewConnection(t *testing.T) {
	noLeaks(t)
	var busy sync.WaitGroup
	busy.Add(2)
	addr := serveUpstream(t, func(n int, w *wire) {
		w.head()
		if n < 2 { // both have to be in the pool
			busy.Done()
			busy.Wait()
		}
		w.say(okAnswer)
		w.head()
	})
	e := serveEdge(t, testUpstream(t, upstreamOptions{}, addr), nil)
	c, d := e.dial(), e.dial()
	c.say("GET / HTTP/1.1\r\nHost: h\r\n\r\n")
	d.say("GET / HTTP/1.1\r\nHost: h\r\n\r\n")
	c.hear(okAnswer)
	d.hear(okAnswer)
	e.result()
	e.result()
	c.say("GET / HTTP/1.1\r\nHost: h\r\n\r\n")
	c.hear(okAnswer)
	if r := e.result(); r.attempts != 2 {
		t.Errorf("%+v, %v", r.exchange, r.err)
	}
}

func TestForwardSendsARequestAgainOnlyOnce(t *testing.T) {
	noLeaks(t)
	conns := make(chan string, 10)
	addr := serveUpstream(t, func(n int, w *wire) {
		conns <- w.head()
		if n == 0 {
			w.say(okAnswer)
			w.head()
		}
	})
	e := serveEdge(t, testUpstream(t, upstreamOptions{}, addr), nil)
	c := e.dial()
	c.say("GET /1 HTTP/1.1\r\nHost: h\r\n\r\n")
	c.hear(okAnswer)
	e.result()
	c.say("GET /2 HTTP/1.1\r\nHost: h\r\n\r\n")
	c.head()
	if r := e.fails(errUpstreamMalformed); r.attempts != 2 || len(conns) != 2 {
		t.Errorf("%+v on %d connections", r.exchange, len(conns))
	}
}

// What an upstream says too much must not be the next one's answer.
func TestForwardKeepsNoConnectionThatIsNotClean(t *testing.T) {
	tests := map[string]struct{ request, answer, gets string }{
		"bytes behind a body with a length": {answer: okAnswer + "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison", gets: okAnswer},
		"bytes behind a chunked body": {
			answer: "HTTP/1.1 200 OK\r\nDate: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nHTTP/1.1 200 OK\r\n\r\npoison",
			gets:   "HTTP/1.1 200 OK\r\nDate: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
		},
		"a body behind 204": {
			answer: "HTTP/1.1 204 No Content\r\nDate: x\r\nContent-Length: 6\r\n\r\npoison", gets: "HTTP/1.1 204 No Content\r\nDate: x\r\n\r\n"},
		"a body behind 304": {
			answer: "HTTP/1.1 304 Not Modified\r\nDate: x\r\nContent-Length: 6\r\n\r\npoison", gets: "HTTP/1.1 304 Not Modified\r\nDate: x\r\nContent-Length: 6\r\n\r\n"},
		"a body in the answer to HEAD": {
			request: "HEAD / HTTP/1.1\r\nHost: h\r\n\r\n",
			answer:  "HTTP/1.1 200 OK\r\nDate: x\r\nContent-Length: 6\r\n\r\npoison", gets: "HTTP/1.1 200 OK\r\nDate: x\r\nContent-Length: 6\r\n\r\n"},
		"an answer before the end of the request": {
			request: "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 100000\r\n\r\n" + strings.Repeat("x", 10000), answer: okAnswer, gets: okAnswer},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			noLeaks(t)
			addr := serveUpstream(t, func(n int, w *wire) {
				w.head()
				if n == 0 {
					w.say(test.answer)
				} else {
					w.say(okAnswer)
				}
				if rest, _ := w.rest(); strings.Contains(rest, "HTTP/1.1") {
					t.Errorf("the connection was used again: %q", rest)
				}
			})
			u := testUpstream(t, upstreamOptions{}, addr)
			e := serveEdge(t, u, nil)
			c := e.dial()
			if test.request == "" {
				test.request = "GET / HTTP/1.1\r\nHost: h\r\n\r\n"
			}
			c.say(test.request)
			c.hear(test.gets)
			e.result()
			if s := u.status(time.Now())[0]; s.idle != 0 || s.active != 0 {
				t.Errorf("%+v", s)
			}
			c = e.dial()
			c.say("GET /next HTTP/1.1\r\nHost: h\r\n\r\n")
			c.hear(okAnswer)
		})
	}
}

func TestForwardRefusesARequestBodyThatIsMalformed(t *testing.T) {
	tests := map[string]struct {
		body string
		sees string // the upstream, at most
	}{
		"a chunk size that is no number":     {"zz\r\n", ""},
		"a chunk longer than its size":       {"2\r\nabc\r\n0\r\n\r\n", "2\r\nab\r\n"},
		"a chunk size that ends in LF":       {"2\nab\r\n0\r\n\r\n", ""},
		"a smuggled request behind a LF":     {"2;\nab\r\n0\r\n\r\nGET /admin HTTP/1.1\r\nHost: h\r\n\r\n", ""},
		"a chunk size that overflows":        {"ffffffffffffffff1\r\nab\r\n0\r\n\r\n", ""},
		"a negative chunk size":              {"-2\r\nab\r\n0\r\n\r\n", ""},
		"a malformed chunk behind good ones": {"1\r\na\r\n1\r\nb\r\nGET /admin HTTP/1.1\r\n\r\n", "1\r\na\r\n1\r\nb\r\n"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			noLeaks(t)
			sees := make(chan string, 2)
			addr := serveUpstream(t, func(_ int, w *wire) {
				w.head()
				rest, _ := w.rest() // ends: the connection is not kept
				sees <- rest
			})
			e := serveEdge(t, testUpstream(t, upstreamOptions{}, addr), nil)
			c := e.dial()
			c.say("POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n" + test.body)
			head := c.head()
			if !strings.HasPrefix(head, "HTTP/1.1 500 ") || !strings.Contains(head, "Connection: close\r\n") {
				t.Errorf("client got %q", head)
			}
			c.hear(errBadBody.Error())
			e.fails(errBadBody)
			c.hearEnd()
			if got := <-sees; !strings.HasPrefix(test.sees, got) {
				t.Errorf("upstream saw %q", got)
			}
		})
	}
}

func TestForwardCutsAnAnswerWhoseRequestTurnsOutToBeMalformed(t *testing.T) {
	noLeaks(t)
	addr := serveUpstream(t, func(_ int, w *wire) {
		w.head()
		w.say("HTTP/1.1 200 OK\r\nDate: x\r\nContent-Length: 10\r\n\r\nhello")
		w.hearEnd()
	})
	e := serveEdge(t, testUpstream(t, upstreamOptions{}, addr), nil)
	c := e.dial()
	c.say("POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n")
	c.hear("HTTP/1.1 200 OK\r\nDate: x\r\nContent-Length: 10\r\n\r\nhello")
	c.say("zz\r\n")
	c.hearEnd()
	if r := e.fails(errBadBody); !r.answered {
		t.Errorf("%+v", r.exchange)
	}
}

func TestForwardLimitsTheBody(t *testing.T) {
	limit := func(_ *fasthttp.RequestCtx, out *outbound) { out.maxBody = 20 << 10 }
	for name, test := range map[string]struct {
		head, body string
		asked      bool // the upstream
	}{
		"by what is announced":        {head: "Content-Length: 20481\r\n"},
		"before it is sent":           {head: "Content-Length: 20481\r\nExpect: 100-continue\r\n"},
		"by what comes":               {head: "Transfer-Encoding: chunked\r\n", body: "5001\r\n" + strings.Repeat("x", 0x5001) + "\r\n0\r\n\r\n", asked: true},
		"by what comes in many steps": {head: "Transfer-Encoding: chunked\r\n", body: strings.Repeat("400\r\n"+strings.Repeat("x", 0x400)+"\r\n", 21) + "0\r\n\r\n", asked: true},
	} {
		t.Run(name, func(t *testing.T) {
			noLeaks(t)
			addr := serveUpstream(t, func(_ int, w *wire) {
				if head := w.head(); head != "" && !test.asked {
					t.Errorf("upstream saw %q", head)
				}
				_, _ = io.Copy(io.Discard, w.in)
			})
			e := serveEdge(t, testUpstream(t, upstreamOptions{}, addr), limit)
			c := e.dial()
			c.say("PUT / HTTP/1.1\r\nHost: h\r\n" + test.head + "\r\n")
			if test.body == "" && !strings.Contains(test.head, "Expect") {
				test.body = strings.Repeat("x", 20481)
			}
			go func() { _, _ = io.WriteString(c.Conn, test.body) }() // may be refused halfway
			if head := c.head(); !strings.HasPrefix(head, "HTTP/1.1 500 ") {
				t.Errorf("client got %q", head)
			}
			c.hear(errBodyTooLarge.Error())
			e.fails(errBodyTooLarge)
		})
	}
	t.Run("exactly", func(t *testing.T) {
		addr := serveUpstream(t, func(_ int, w *wire) {
			w.head()
			w.take(20 << 10)
			w.say(okAnswer)
		})
		c := serveEdge(t, testUpstream(t, upstreamOptions{}, addr), limit).dial()
		c.say(fmt.Sprintf("PUT / HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n%s", 20<<10, strings.Repeat("x", 20<<10)))
		c.hear(okAnswer)
	})
}

func TestForwardToAnUpstreamThatCannotBeReached(t *testing.T) {
	noLeaks(t)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := ln.Addr().String()
	_ = ln.Close()
	e := serveEdge(t, testUpstream(t, upstreamOptions{}, addr), nil)
	c := e.dial()
	c.say("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\nab")
	c.head()
	c.hear(errUnreachable.Error())
	if r := e.fails(errUnreachable); r.target != addr || r.attempts != 1 {
		t.Errorf("%+v", r.exchange)
	}
	// Nothing of the body was lost on the connection.
	c.say("SELF / HTTP/1.1\r\nHost: h\r\n\r\n")
	c.head()
	c.hear("own")
}
