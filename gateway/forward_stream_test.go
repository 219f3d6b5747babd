package gateway

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/valyala/fasthttp"
)

// An upstream that says something only when the client has heard what it said
// before can't be served by anybody who holds something back.
func TestForwardPassesOnEachPieceWhenItComes(t *testing.T) {
	const head = "HTTP/1.1 200 OK\nDate: x\n"
	tests := []struct {
		name   string
		pieces []string // of the upstream
		hears  []string // the client, after each
		ends   bool     // the upstream's connection, with the answer
		raw    bool     // the pieces are as they are
	}{
		{
			name:   "of a body with a length",
			pieces: []string{head + "Content-Length: 6\n\n", "ab", "c", "def"},
			hears:  []string{head + "Content-Length: 6\n\n", "ab", "c", "def"},
		},
		{
			name:   "of a head that comes bit by bit",
			pieces: []string{"H", "TTP/1.1 200 OK\n", "Date: x\nContent-Len", "gth: 2\n\n", "ab"},
			hears:  []string{"", "", "", head + "Content-Length: 2\n\n", "ab"},
		},
		{
			name:   "of a head whose last bytes come one by one",
			raw:    true,
			pieces: []string{crlf(head) + "Content-Length: 2\r", "\n", "\r", "\n", "ab"},
			hears:  []string{"", "", "", head + "Content-Length: 2\n\n", "ab"},
		},
		{
			name:   "of server-sent events",
			pieces: []string{head + "Content-Type: text/event-stream\nTransfer-Encoding: chunked\n\n", "b\ndata: 1\n\n\n", "b\ndata: 2\n\n\n", "0\n\n"},
			hears:  []string{head + "Content-Type: text/event-stream\nTransfer-Encoding: chunked\n\n", "b\ndata: 1\n\n\n", "b\ndata: 2\n\n\n", "0\n\n"},
		},
		{
			name:   "of a chunk that is not complete",
			pieces: []string{head + "Transfer-Encoding: chunked\n\n4\nab", "c", "d", "\n0", "\n", "\n"},
			hears:  []string{head + "Transfer-Encoding: chunked\n\n4\nab", "c", "d", "\n0", "\n", "\n"},
		},
		{
			name:   "of a body that ends with the connection",
			pieces: []string{head + "\n", "ab", "cde"},
			hears:  []string{head + "Transfer-Encoding: chunked\n\n", "2\nab\n", "3\ncde\n"},
			ends:   true,
		},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			noLeaks(t)
			heard := make(chan struct{})
			addr := serveUpstream(t, func(_ int, w *wire) {
				w.head()
				for _, piece := range test.pieces {
					if !test.raw {
						piece = crlf(piece)
					}
					w.say(piece)
					<-heard
				}
			})
			c := serveEdge(t, testUpstream(t, upstreamOptions{}, addr), nil).dial()
			c.say("GET / HTTP/1.1\r\nHost: h\r\n\r\n")
			for _, want := range test.hears {
				c.hear(crlf(want))
				heard <- struct{}{}
			}
			if test.ends {
				c.hear("0\r\n\r\n")
			}
		})
	}
}

func TestForwardSendsEachPieceOfAnUploadWhenItComes(t *testing.T) {
	first, second := strings.Repeat("a", 20<<10), strings.Repeat("b", 5)
	for name, framing := range map[string]string{
		"of a body with a length": fmt.Sprintf("Content-Length: %d\r\n", len(first)+len(second)),
		"of a chunked body":       "Transfer-Encoding: chunked\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			noLeaks(t)
			chunked := strings.Contains(framing, "chunked")
			frame := func(s string) string {
				if chunked {
					return fmt.Sprintf("%x\r\n%s\r\n", len(s), s)
				}
				return s
			}
			got := make(chan string)
			addr := serveUpstream(t, func(_ int, w *wire) {
				head := w.head()
				if !strings.HasSuffix(head, framing+"\r\n") {
					t.Errorf("head %q", head)
				}
				for _, n := range []int{len(first), len(second)} {
					body := ""
					for len(body) < n {
						if chunked {
							var size int
							if _, err := fmt.Fscanf(w.in, "%x\r\n", &size); err != nil {
								t.Error(err)
								return
							}
							body += w.take(size)
							w.hear("\r\n")
						} else {
							body += w.take(n - len(body))
						}
					}
					got <- body
				}
				if chunked {
					w.hear("0\r\n\r\n")
				}
				w.say("HTTP/1.1 200 OK\r\nDate: x\r\nContent-Length: 0\r\n\r\n")
				w.hearEnd()
			})
			e := serveEdge(t, testUpstream(t, upstreamOptions{}, addr), nil)
			c := e.dial()
			c.say("PUT / HTTP/1.1\r\nHost: h\r\n" + framing + "\r\n" + frame(first))
			if <-got != first {
				t.Error("first piece differs")
			}
			c.say(frame(second))
			if <-got != second {
				t.Error("second piece differs")
			}
			if chunked {
				c.say("0\r\n\r\n")
			}
			c.hear("HTTP/1.1 200 OK\r\nDate: x\r\nContent-Length: 0\r\n\r\n")
			if r := e.result(); r.err != nil || r.bytesIn != int64(len(first)+len(second)) {
				t.Errorf("forward: %+v, %v", r.exchange, r.err)
			}
		})
	}
}

func TestForwardCarriesWhatIsLargeInConstantMemory(t *testing.T) {
	const size = 256 << 20
	piece := make([]byte, 64<<10)
	count := func(r io.Reader) (n int64) {
		buf := make([]byte, 64<<10)
		for {
			more, err := r.Read(buf)
			if n += int64(more); err != nil || n == size {
				return n
			}
		}
	}
	fill := func(w *wire) {
		for range size / len(piece) {
			if _, err := w.Write(piece); err != nil {
				t.Error(err)
				return
			}
		}
	}
	addr := serveUpstream(t, func(_ int, w *wire) {
		_ = w.SetDeadline(time.Now().Add(6 * patience))
		switch head := w.head(); {
		case strings.HasPrefix(head, "PUT"):
			if n := count(w.in); n != size {
				t.Errorf("upload of %d", n)
			}
			w.say("HTTP/1.1 200 OK\r\nDate: x\r\nContent-Length: 0\r\n\r\n")
		default:
			w.say(fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n", size))
			fill(w)
		}
	})
	e := serveEdge(t, testUpstream(t, upstreamOptions{}, addr), nil)
	for _, method := range []string{"PUT", "GET"} {
		c := e.dial()
		_ = c.SetDeadline(time.Now().Add(6 * patience))
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		if method == "PUT" {
			c.say(fmt.Sprintf("PUT / HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n", size))
			fill(c)
			c.hear("HTTP/1.1 200 OK\r\nDate: x\r\nContent-Length: 0\r\n\r\n")
		} else {
			c.say("GET / HTTP/1.1\r\nHost: h\r\n\r\n")
			c.head()
			if n := count(c.in); n != size {
				t.Errorf("download of %d", n)
			}
		}
		runtime.ReadMemStats(&after)
		if used := after.TotalAlloc - before.TotalAlloc; used > 4<<20 {
			t.Errorf("%s: %d bytes allocated", method, used)
		}
	}
}

// The answer can overtake the end of the upload by a hair, which is no reason to
// give up two connections.
func TestForwardKeepsItsConnectionsAfterAnUpload(t *testing.T) {
	noLeaks(t)
	conns := make(chan struct{}, 1000)
	body := strings.Repeat("x", 40<<10)
	addr := serveUpstream(t, func(_ int, w *wire) {
		conns <- struct{}{}
		for w.head() != "" {
			w.hear(body)
			w.say(okAnswer)
		}
	})
	e := serveEdge(t, testUpstream(t, upstreamOptions{}, addr), nil)
	c := e.dial()
	for n := range 200 {
		if n == 100 { // long enough for what was set on the connection to fire
			time.Sleep(3 * watchDelay / 2)
		}
		c.say(fmt.Sprintf("PUT / HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n%s", len(body), body))
		c.hear(okAnswer)
		if r := e.result(); r.err != nil {
			t.Fatalf("%+v, %v", r.exchange, r.err)
		}
	}
	if n := len(conns); n != 1 {
		t.Errorf("%d connections to the upstream", n)
	}
}

func TestForwardIsFullDuplex(t *testing.T) {
	noLeaks(t)
	addr := serveUpstream(t, func(_ int, w *wire) {
		w.head()
		w.say("HTTP/1.1 200 OK\r\nDate: x\r\nTransfer-Encoding: chunked\r\n\r\n")
		for range 3 {
			w.say(w.take(6))
		}
		w.say(w.take(5))
		w.head()
	})
	c := serveEdge(t, testUpstream(t, upstreamOptions{}, addr), nil).dial()
	c.say("POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n")
	c.hear("HTTP/1.1 200 OK\r\nDate: x\r\nTransfer-Encoding: chunked\r\n\r\n")
	for _, piece := range []string{"1\r\na\r\n", "1\r\nb\r\n", "1\r\nc\r\n"} {
		c.say(piece)
		c.hear(piece)
	}
	c.say("0\r\n\r\n")
	c.hear("0\r\n\r\n")
}

func TestForwardPassesOnAnEarlyAnswer(t *testing.T) {
	for _, status := range []string{"413 Content Too Large", "401 Unauthorized"} {
		for name, framing := range map[string]string{
			"to a body with a length": "Content-Length: 1000000000\r\n",
			"to a chunked body":       "Transfer-Encoding: chunked\r\n",
		} {
			t.Run(status+" "+name, func(t *testing.T) {
				noLeaks(t)
				addr := serveUpstream(t, func(_ int, w *wire) {
					w.head()
					w.take(100 << 10)
					w.say("HTTP/1.1 " + status + "\r\nDate: x\r\nConnection: close\r\nContent-Length: 5\r\n\r\nnever")
					// Closing with so much unread resets the connection.
				})
				e := serveEdge(t, testUpstream(t, upstreamOptions{}, addr), nil)
				c := e.dial()
				c.say("PUT / HTTP/1.1\r\nHost: h\r\n" + framing + "\r\n")
				sent := make(chan struct{})
				go func() {
					defer close(sent)
					piece := []byte("1000\r\n" + strings.Repeat("x", 4096) + "\r\n")
					for {
						if _, err := c.Write(piece); err != nil {
							return
						}
					}
				}()
				c.hear("HTTP/1.1 " + status + "\r\nDate: x\r\nContent-Length: 5\r\nConnection: close\r\n\r\nnever")
				c.hearEnd()
				_ = c.Close()
				<-sent
				if r := e.result(); r.err != nil {
					t.Error(r.err)
				}
			})
		}
	}
}

func TestForwardAnswersWhileTheClientHoldsBackTheRestOfItsBody(t *testing.T) {
	noLeaks(t)
	addr := serveUpstream(t, func(_ int, w *wire) {
		w.head()
		w.say("HTTP/1.1 200 OK\r\nDate: x\r\nContent-Length: 2\r\n\r\nok")
		w.hear("3\r\nabc\r\n")
		w.hearEnd()
	})
	c := serveEdge(t, testUpstream(t, upstreamOptions{}, addr), nil).dial()
	c.say("POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabc")
	c.hear("HTTP/1.1 200 OK\r\nDate: x\r\nContent-Length: 2\r\n\r\nok")
	c.hearEnd() // nothing better can be done with it
}

func TestForwardAllowsASlowBodyAndNotASlowHead(t *testing.T) {
	timeout := routeTimeouts{header: 200 * time.Millisecond, idle: 300 * time.Millisecond}
	adjust := func(_ *fasthttp.RequestCtx, out *outbound) { out.timeout = timeout }
	// The clock is what is tested here, so these sleep.
	drip := func(w io.Writer, s string) {
		for i := range s {
			time.Sleep(timeout.header / 8)
			_, _ = io.WriteString(w, s[i:i+1]) // what fails is seen at the other end
		}
	}
	body := "twenty bytes of body"
	for name, test := range map[string]struct {
		upstream func(w *wire)
		upload   bool // drips
		gets     string
		err      error
		ends     bool
	}{
		"a slow head is not waited for": {
			upstream: func(w *wire) { w.head(); w.hearEnd() },
			err:      errUpstreamTimeout,
		},
		"a head that drips is not waited for": {
			upstream: func(w *wire) { w.head(); drip(w, "HTTP/1.1 200 OK\r\n"); w.hearEnd() },
			err:      errUpstreamTimeout,
		},
		"a slow body is": {
			upstream: func(w *wire) {
				w.head()
				w.say("HTTP/1.1 200 OK\r\nDate: x\r\nContent-Length: 20\r\n\r\n")
				drip(w, body)
			},
			gets: "HTTP/1.1 200 OK\r\nDate: x\r\nContent-Length: 20\r\n\r\n" + body,
		},
		"a body that stops is not": {
			upstream: func(w *wire) {
				w.head()
				w.say("HTTP/1.1 200 OK\r\nDate: x\r\nContent-Length: 20\r\n\r\nabc")
				w.hearEnd()
			},
			gets: "HTTP/1.1 200 OK\r\nDate: x\r\nContent-Length: 20\r\n\r\nabc",
			err:  errUpstreamTimeout,
			ends: true,
		},
		"the time for the head begins when the upload has ended": {
			upload: true,
			upstream: func(w *wire) {
				w.head()
				w.take(20 * 6)
				w.say("HTTP/1.1 200 OK\r\nDate: x\r\nContent-Length: 2\r\n\r\nok")
			},
			gets: "HTTP/1.1 200 OK\r\nDate: x\r\nContent-Length: 2\r\n\r\nok",
		},
	} {
		t.Run(name, func(t *testing.T) {
			noLeaks(t)
			e := serveEdge(t, testUpstream(t, upstreamOptions{}, serveUpstream(t, func(_ int, w *wire) { test.upstream(w) })), adjust)
			c := e.dial()
			if test.upload {
				c.say("POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n")
				for i := range body {
					time.Sleep(timeout.header / 8)
					c.say("1\r\n" + body[i:i+1] + "\r\n")
				}
				c.say("0\r\n\r\n")
			} else {
				c.say("GET / HTTP/1.1\r\nHost: h\r\n\r\n")
			}
			if test.gets != "" {
				c.hear(test.gets)
			} else if head := c.head(); !strings.HasPrefix(head, "HTTP/1.1 500") {
				t.Errorf("client got %q", head)
			}
			e.fails(test.err)
			if test.ends {
				c.hearEnd()
			}
		})
	}
}

func TestForwardAllowsASilentAnswerDuringAnUpload(t *testing.T) {
	noLeaks(t)
	const idle = 300 * time.Millisecond
	addr := serveUpstream(t, func(_ int, w *wire) {
		w.head()
		w.say("HTTP/1.1 200 OK\r\nDate: x\r\nContent-Length: 2\r\n\r\n")
		w.take(10*6 + 5)
		time.Sleep(idle / 2)
		w.say("ok")
	})
	e := serveEdge(t, testUpstream(t, upstreamOptions{}, addr), func(_ *fasthttp.RequestCtx, out *outbound) {
		out.timeout.idle = idle
	})
	c := e.dial()
	c.say("POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n")
	c.hear("HTTP/1.1 200 OK\r\nDate: x\r\nContent-Length: 2\r\n\r\n")
	for range 10 {
		time.Sleep(idle / 6)
		c.say("1\r\nx\r\n")
	}
	c.say("0\r\n\r\n")
	c.hear("ok")
}

func TestForwardGivesUpOnAnUploadThatStops(t *testing.T) {
	noLeaks(t)
	addr := serveUpstream(t, func(_ int, w *wire) {
		w.head()
		if got, _ := w.rest(); got != "3\r\nabc\r\n" {
			t.Errorf("upstream saw %q", got)
		}
	})
	e := serveEdge(t, testUpstream(t, upstreamOptions{}, addr), func(_ *fasthttp.RequestCtx, out *outbound) {
		out.timeout.idle = 50 * time.Millisecond
	})
	c := e.dial()
	c.say("POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n")
	c.head()
	e.fails(errBodyTimeout)
	c.hear(errBodyTimeout.Error())
	c.hearEnd()
}

// A body that never stands still, and never ends either, would keep the upstream busy
// for as long as its sender likes.
func TestForwardGivesUpOnAnUploadThatTakesTooLong(t *testing.T) {
	for _, expects := range []string{"", "Expect: 100-continue\r\n"} {
		t.Run(expects, func(t *testing.T) {
			noLeaks(t)
			begin := time.Now()
			addr := serveUpstream(t, func(_ int, w *wire) {
				w.head()
				if expects != "" {
					w.say("HTTP/1.1 100 Continue\r\n\r\n")
				}
				if got, _ := w.rest(); len(got) == 0 || strings.Contains(got, "0\r\n\r\n") {
					t.Errorf("upstream saw %q", got)
				}
			})
			const limit = 400 * time.Millisecond
			e := serveEdge(t, testUpstream(t, upstreamOptions{}, addr), func(_ *fasthttp.RequestCtx, out *outbound) {
				out.timeout.idle, out.timeout.body = limit/2, limit
			})
			c := e.dial()
			c.say("POST / HTTP/1.1\r\nHost: h\r\n" + expects + "Transfer-Encoding: chunked\r\n\r\n")
			if expects != "" {
				c.hear("HTTP/1.1 100 Continue\r\n\r\n")
			}
			answered := make(chan struct{})
			var drips sync.WaitGroup
			drips.Go(func() {
				for {
					select {
					case <-answered:
						return
					case <-time.After(limit / 40):
						_, _ = io.WriteString(c.Conn, "1\r\nx\r\n") // that nobody takes it any more is what is waited for
					}
				}
			})
			head := c.head()
			close(answered)
			drips.Wait()
			if took := time.Since(begin); !strings.HasPrefix(head, "HTTP/1.1 ") || took < limit {
				t.Errorf("after %v: %q", took, head)
			}
			e.fails(errBodyTimeout)
		})
	}
}

// The limit is the upstream's, unless the route has one of its own.
func TestTheTimeForABodyIsConfigured(t *testing.T) {
	const soon = 50 * time.Millisecond
	for _, limits := range []struct{ upstream, route time.Duration }{{soon, 0}, {time.Hour, soon}} {
		e := startGateway(t, func(c *StateConfig) {
			c.Upstreams[0].BodyTimeout = limits.upstream
			for i := range c.Routes {
				c.Routes[i].BodyTimeout = limits.route
			}
		})
		res, body := e.send("POST /public/x HTTP/1.1\r\nHost: gateway.test\r\nContent-Length: 20000\r\n\r\n" + strings.Repeat("x", 9000))
		if res.StatusCode != 408 || res.Header.Get("X-Gateway-Error") != string(codeRequestTimeout) {
			t.Errorf("%+v: %d\n%s", limits, res.StatusCode, body)
		}
	}
}

func TestForwardGivesUpOnAnUpstreamThatTakesNothing(t *testing.T) {
	noLeaks(t)
	gaveUp := make(chan struct{})
	addr := serveUpstream(t, func(_ int, w *wire) {
		w.head()
		<-gaveUp
	})
	e := serveEdge(t, testUpstream(t, upstreamOptions{}, addr), func(_ *fasthttp.RequestCtx, out *outbound) {
		out.timeout = routeTimeouts{header: 50 * time.Millisecond, idle: 50 * time.Millisecond}
	})
	c := e.dial()
	c.say("PUT / HTTP/1.1\r\nHost: h\r\nContent-Length: 1000000000\r\n\r\n")
	sent := make(chan struct{})
	go func() {
		defer close(sent)
		piece := make([]byte, 1<<20)
		for {
			if _, err := c.Write(piece); err != nil {
				return // as it should
			}
		}
	}()
	c.head()
	e.fails(errUpstreamTimeout)
	close(gaveUp)
	_ = c.Close()
	<-sent
}

func TestForwardGivesUpOnAClientThatTakesNothing(t *testing.T) {
	noLeaks(t)
	addr := serveUpstream(t, func(_ int, w *wire) {
		w.head()
		_, _ = w.Write([]byte("HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n"))
		piece := make([]byte, 1<<20)
		for {
			if _, err := w.Write(piece); err != nil {
				return // as it should
			}
		}
	})
	e := serveEdge(t, testUpstream(t, upstreamOptions{}, addr), func(_ *fasthttp.RequestCtx, out *outbound) {
		out.timeout.idle = 50 * time.Millisecond
	})
	c := e.dial()
	c.say("GET / HTTP/1.1\r\nHost: h\r\n\r\n")
	c.head()
	e.fails(errClientGone)
}

func TestForwardEndsTheUpstreamsWorkWhenTheClientLeaves(t *testing.T) {
	for name, test := range map[string]struct {
		request string
		answer  string
	}{
		"while it waits for the head":         {request: "GET / HTTP/1.1\r\nHost: h\r\n\r\n"},
		"while it waits for the body":         {request: "GET / HTTP/1.1\r\nHost: h\r\n\r\n", answer: "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n1"},
		"while it waits for the next event":   {request: "GET / HTTP/1.1\r\nHost: h\r\n\r\n", answer: "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n"},
		"in the middle of a body":             {request: "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 100000\r\n\r\n" + strings.Repeat("x", 10000)},
		"in the middle of a chunk":            {request: "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab"},
		"after a body, waiting for the head":  {request: "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n"},
		"before the body was asked for":       {request: "POST / HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n"},
		"with the next request already there": {request: "GET / HTTP/1.1\r\nHost: h\r\n\r\nGET /2 HTTP/1.1\r\nHost: h\r\n\r\n"},
	} {
		t.Run(name, func(t *testing.T) {
			noLeaks(t)
			asked := make(chan struct{}, 2)
			ended := make(chan struct{})
			addr := serveUpstream(t, func(n int, w *wire) {
				w.head()
				w.say(test.answer)
				asked <- struct{}{}
				_, _ = io.Copy(io.Discard, w.in)
				if n == 0 {
					close(ended)
				}
			})
			e := serveEdge(t, testUpstream(t, upstreamOptions{}, addr), nil)
			c := e.dial()
			c.say(test.request)
			<-asked
			if test.answer != "" {
				c.head()
			}
			left := time.Now()
			_ = c.Close()
			<-ended
			if d := time.Since(left); d > 10*time.Second {
				t.Errorf("noticed after %v", d)
			}
			e.fails(errClientGone)
		})
	}
}

func TestForwardKeepsWhatAClientSaysWhileItIsWatched(t *testing.T) {
	noLeaks(t)
	watched := make(chan struct{})
	addr := serveUpstream(t, func(_ int, w *wire) {
		w.hear("GET /1 HTTP/1.1\r\nHost: h\r\nX-Ours: yes\r\n\r\n")
		<-watched
		w.say("HTTP/1.1 200 OK\r\nDate: x\r\nContent-Length: 1\r\n\r\n1")
		w.hear("GET /2 HTTP/1.1\r\nHost: h\r\nX-Ours: yes\r\n\r\n")
		w.say("HTTP/1.1 200 OK\r\nDate: x\r\nContent-Length: 1\r\n\r\n2")
		w.hear("GET /3 HTTP/1.1\r\nHost: h\r\nX-Ours: yes\r\n\r\n")
		time.Sleep(3 * watchDelay / 2)
		w.say("HTTP/1.1 200 OK\r\nDate: x\r\nContent-Length: 1\r\n\r\n3")
		w.hear("GET /4 HTTP/1.1\r\nHost: h\r\nX-Ours: yes\r\n\r\n")
		w.say("HTTP/1.1 200 OK\r\nDate: x\r\nContent-Length: 1\r\n\r\n4")
	})
	c := serveEdge(t, testUpstream(t, upstreamOptions{}, addr), nil).dial()
	c.say("GET /1 HTTP/1.1\r\nHost: h\r\n\r\n")
	time.Sleep(3 * watchDelay / 2) // now it is
	c.say("GET /2 HTTP/1.1\r\nHost: h\r\n\r\n")
	time.Sleep(watchDelay / 2)
	close(watched)
	c.hear("HTTP/1.1 200 OK\r\nDate: x\r\nContent-Length: 1\r\n\r\n1" +
		"HTTP/1.1 200 OK\r\nDate: x\r\nContent-Length: 1\r\n\r\n2")
	// And what it says when the watch is over.
	for _, n := range []string{"3", "4"} {
		c.say("GET /" + n + " HTTP/1.1\r\nHost: h\r\n\r\n")
		c.hear("HTTP/1.1 200 OK\r\nDate: x\r\nContent-Length: 1\r\n\r\n" + n)
	}
}

// What came before must never be in an answer, whatever the order and the sizes.
func TestForwardNeverMixesAnswers(t *testing.T) {
	noLeaks(t)
	addr := serveUpstream(t, func(_ int, w *wire) {
		for {
			head := w.head()
			if head == "" {
				return
			}
			var path, size int
			if _, err := fmt.Sscanf(head, "GET /%d/%d ", &path, &size); err != nil {
				t.Error(err)
				return
			}
			body := bytes.Repeat(fmt.Appendf(nil, "%08d", path), size/8)
			if path%2 == 0 {
				w.say(fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(body), body))
			} else {
				w.say(fmt.Sprintf("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n", len(body), body))
			}
		}
	})
	e := serveEdge(t, testUpstream(t, upstreamOptions{}, addr), nil)
	done := make(chan struct{})
	const clients, requests = 8, 40
	for n := range clients {
		go func() {
			defer func() { done <- struct{}{} }()
			conn, err := e.connect()
			if err != nil {
				t.Error(err)
				return
			}
			defer conn.Close()
			in := bufio.NewReader(conn)
			for i := range requests {
				id, size := n*requests+i, 8<<(i%15)
				body, err := func() ([]byte, error) {
					if _, err := fmt.Fprintf(conn, "GET /%d/%d HTTP/1.1\r\nHost: h\r\n\r\n", id, size); err != nil {
						return nil, err
					}
					resp, err := http.ReadResponse(in, nil)
					if err != nil {
						return nil, err
					}
					defer resp.Body.Close()
					return io.ReadAll(resp.Body)
				}()
				if want := bytes.Repeat(fmt.Appendf(nil, "%08d", id), size/8); err != nil || !bytes.Equal(body, want) {
					t.Errorf("%d of %d bytes: got %d bytes, %.20q, %v", id, size, len(body), body, err)
					return
				}
			}
		}()
	}
	for range clients {
		<-done
	}
}
